/* The report of an experiment as a table for a terminal. From the report alone. */
#include <stdio.h>
#include <stdlib.h>

#include "experiment/online_render_internal.h"

enum { NAME_COLUMNS = ONLINE_NAME_COLUMNS };

void online_put_name(FILE *to, const char *text, int columns) {
    int used = 0;
    for (; text != NULL && *text != '\0' && used < columns; text++) {
        if (((unsigned char)*text & 0xc0) == 0x80) continue;
        fputc(*text >= ' ' && *text < 0x7f ? *text : '?', to);
        used++;
    }
    fprintf(to, "%*s", columns - used, "");
}

static void put_name(FILE *to, const json_t *object, const char *name) { online_put_name(to, text_of(object, name), NAME_COLUMNS); }

static void put_range_times(FILE *to, const json_t *range, double times, const char *unit) {
    char text[64] = "-";
    if (json_is_number(member(range, "low")))
        (void)snprintf(text, sizeof text, "[%+.3g%s %+.3g%s]", times * number(range, "low"), unit, times * number(range, "high"), unit);
    fprintf(to, "  %-21.21s", text);
}

void online_put_range(FILE *to, const json_t *range) { put_range_times(to, range, 1.0, ""); }

void online_put_difference(FILE *to, const json_t *value) {
    if (json_is_number(value))
        fprintf(to, " %+10.4g", json_number_value(value));
    else
        fprintf(to, " %10s", "-");
}

void online_put_lift(FILE *to, const json_t *difference, int columns) {
    const json_t *lift = member(member(difference, "lift"), "estimate");
    if (json_is_number(lift))
        fprintf(to, "%+*.2f%%", columns - 1, 100.0 * json_number_value(lift));
    else
        fprintf(to, "%*s", columns, "-");
}

static void put_mean(FILE *to, const json_t *arm) {
    if (json_is_number(member(arm, "mean")))
        fprintf(to, "%-10.5g [%.4g %.4g]", number(arm, "mean"), number(arm, "mean_low"), number(arm, "mean_high"));
    else
        fprintf(to, "%-10s -", "-");
}

static void put_arms(FILE *to, const json_t *report) {
    const json_t *arm = NULL;
    size_t i = 0;
    fprintf(to, "%-*s %9s %10s %11s %11s  %-10s %s\n", NAME_COLUMNS, "arm", "units", "rows", "value", "count", "mean", "95 % interval");
    json_array_foreach(member(report, "arms"), i, arm) {
        put_name(to, arm, "name");
        fprintf(to, " %9.0f %10.0f %11.6g %11.6g  ", number(arm, "units"), number(arm, "rows"), number(arm, "value"), number(arm, "count"));
        put_mean(to, arm);
        fputs(json_is_true(member(arm, "control")) ? " A\n" : "\n", to);
    }
}

static void put_differences(FILE *to, const json_t *report) {
    const json_t *one = NULL;
    size_t i = 0;
    fprintf(to, "\n%-*s %10s  %-21s  %-21s  %s\n", NAME_COLUMNS, "B - A", "difference", "at one fixed time", "whenever you look",
            "verdict");
    json_array_foreach(member(report, "differences"), i, one) {
        const json_t *cuped = member(one, "cuped");
        put_name(to, one, "b");
        online_put_difference(to, member(one, "estimate"));
        online_put_range(to, member(one, "fixed"));
        online_put_range(to, member(one, "sequence"));
        fprintf(to, "  %s\n", json_is_object(cuped) ? "" : json_string_value(member(one, "verdict")));
        if (json_is_object(cuped)) {
            fprintf(to, "%-*s", NAME_COLUMNS, "  with the covariate");
            online_put_difference(to, member(cuped, "estimate"));
            online_put_range(to, member(cuped, "fixed"));
            online_put_range(to, member(cuped, "sequence"));
            fprintf(to, "  %s\n", json_string_value(member(one, "verdict")));
        }
        fprintf(to, "%-*s", NAME_COLUMNS, "  lift");
        online_put_lift(to, one, 11);
        put_range_times(to, member(member(one, "lift"), "fixed"), 100.0, "%");
        put_range_times(to, member(member(one, "lift"), "sequence"), 100.0, "%");
        fputc('\n', to);
    }
}

char *ct_online_table(const json_t *report) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (to == NULL) return NULL;
    const json_t *ratio = member(report, "sample_ratio"), *warning = NULL;
    size_t i = 0;
    if (is_live(report)) fprintf(to, "experiment %s, %s\n\n", text_of(report, "experiment"), text_of(report, "metric"));
    put_arms(to, report);
    put_differences(to, report);
    if (json_is_number(member(ratio, "p")))
        fprintf(to, "\nsplit of the units: %s (p %.3g)\n", json_is_true(member(ratio, "mismatch")) ? "NOT AS MEANT" : "as meant",
                number(ratio, "p"));
    else
        fprintf(to, "\nsplit of the units: not checked\n");
    if (is_live(report)) online_put_live(to, report);
    json_array_foreach(member(report, "warnings"), i, warning) fprintf(to, "warning: %s\n", json_string_value(warning));
    const bool failed = ferror(to) != 0;
    if (fclose(to) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
