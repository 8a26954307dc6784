/* The report as a table: plain ASCII, at most 100 columns. From the report alone, so that a stored one can be shown again. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiment/compare.h"
#include "experiment/report_internal.h"

enum { COLUMNS = 100, NAME_COLUMNS = 25, SLICE_COLUMNS = 18, CELL_BYTES = 64 };

static const char *text_or_dash(const json_t *object, const char *name) { return *text_of(object, name) ? text_of(object, name) : "-"; }
static long long whole(const json_t *object, const char *name) { return (long long)json_integer_value(member(object, name)); }

/* Printable ASCII, cut to `columns`, with "..." where cut. A character of several bytes becomes one '?'. */
static const char *plain(const char *text, size_t columns, char out[CELL_BYTES]) {
    size_t n = 0;
    for (; *text != '\0' && n < columns; text++) {
        if (((unsigned char)*text & 0xc0) == 0x80) continue;
        out[n++] = *text >= ' ' && *text < 0x7f ? *text : '?';
    }
    while (((unsigned char)*text & 0xc0) == 0x80) text++;
    out[n] = '\0';
    if (*text != '\0' && n == columns && n > 3) memcpy(out + n - 3, "...", 3);
    return out;
}

/* A number in at most `columns` (7 or more), with as many of the decimals as they leave room for; "-" where there is none. */
static const char *fit(const json_t *value, bool sign, int decimals, int columns, char out[CELL_BYTES]) {
    const double v = json_number_value(value);
    if (!json_is_number(value)) return "-";
    for (; decimals >= 0 && fabs(v) < 1e15; decimals--)
        if (snprintf(out, CELL_BYTES, sign ? "%+.*f" : "%.*f", decimals, v) <= columns) return out;
    snprintf(out, CELL_BYTES, sign ? "%+.0e" : "%.0e", v);
    return out;
}
static const char *signed_number(const json_t *value, char out[CELL_BYTES]) { return fit(value, true, 4, 7, out); }

static const char *interval(const json_t *metric, char out[CELL_BYTES]) {
    char estimate[CELL_BYTES], low[CELL_BYTES], high[CELL_BYTES];
    snprintf(out, CELL_BYTES, "%.16s [%.16s %.16s]", signed_number(member(metric, "difference"), estimate),
             signed_number(member(metric, "low"), low), signed_number(member(metric, "high"), high));
    return out;
}

/* Text broken at blanks, the lines after the first one indented; a word longer than a line is cut. */
static void wrap(FILE *to, const char *head, const char *text) {
    const size_t indent = strlen(head);
    size_t column = indent;
    fputs(head, to);
    for (bool first = true; *text != '\0'; first = false) {
        const size_t bytes = strcspn(text, " ");
        size_t width = 0;
        for (size_t i = 0; i < bytes; i++) width += ((unsigned char)text[i] & 0xc0) != 0x80;
        if (!first && column + 1 + width > COLUMNS) {
            fprintf(to, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', to);
            column++;
        }
        for (size_t i = 0; i < bytes; i++) {
            if (((unsigned char)text[i] & 0xc0) == 0x80) continue;
            if (column++ < COLUMNS) fputc(text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?', to);
        }
        text += bytes;
        while (*text == ' ') text++;
    }
    fputc('\n', to);
}

static void print_head(FILE *to, const json_t *report) {
    const json_t *rows = member(report, "rows"), *units = member(report, "units"), *seeds = member(report, "seeds");
    const long long unit_count = whole(units, "units"), clusters = whole(units, "clusters"), seed_count = (long long)json_array_size(seeds);
    char line[512], field[CELL_BYTES], by[CELL_BYTES + 32] = "", hashed[CELL_BYTES] = "";
    snprintf(line, sizeof line, "Trained on %lld rows, tested on %lld with %lld clicks; %lld seed%s from %lld.", whole(rows, "train"),
             whole(rows, "test"), whole(report, "test_clicks"), seed_count, seed_count == 1 ? "" : "s",
             (long long)json_integer_value(json_array_get(seeds, 0)));
    wrap(to, "", line);
    if (strcmp(text_or_dash(units, "by"), "field") == 0)
        snprintf(by, sizeof by, "field '%s'", plain(text_or_dash(units, "field"), 32, field));
    else
        snprintf(by, sizeof by, "blocks of %lld consecutive rows", whole(units, "block_rows"));
    if (clusters < unit_count) snprintf(hashed, sizeof hashed, ", hashed into %lld clusters", clusters);
    snprintf(line, sizeof line, "Units: %s, %lld of them%s; %lld bootstrap draws.", by, unit_count, hashed, whole(report, "draws"));
    wrap(to, "", line);
}

static void print_arms(FILE *to, const json_t *report) {
    const bool grouped = json_is_string(member(report, "grouped_by"));
    const json_t *arms = member(report, "arms");
    fprintf(to, "\n%-*s %-6s %7s %7s %7s %8s %7s %7s %8s %8s\n", NAME_COLUMNS, "arm (test, mean of seeds)", "model", "AUC", "+-", "grouped",
            "log loss", "+-", "calib.", "rows/s", "MiB");
    for (size_t i = 0; i < json_array_size(arms); i++) {
        const json_t *arm = json_array_get(arms, i), *test = member(arm, "test"), *auc = member(test, "auc"),
                     *loss = member(test, "log_loss");
        char cells[9][CELL_BYTES];
        fprintf(to, "%-*s %-6s %7s %7s %7s %8s %7s %7s %8s %8.1f\n", NAME_COLUMNS, plain(text_or_dash(arm, "name"), NAME_COLUMNS, cells[0]),
                plain(text_or_dash(arm, "model"), 6, cells[1]), fit(member(auc, "mean"), false, 4, 7, cells[2]),
                fit(member(auc, "deviation"), false, 4, 7, cells[3]),
                grouped ? fit(member(member(test, "grouped_auc"), "mean"), false, 4, 7, cells[4]) : "-",
                fit(member(loss, "mean"), false, 4, 8, cells[5]), fit(member(loss, "deviation"), false, 4, 7, cells[6]),
                fit(member(member(test, "calibration"), "mean"), false, 3, 7, cells[7]),
                fit(member(arm, "rows_per_second"), false, 0, 8, cells[8]), json_number_value(member(arm, "table_bytes")) / 1048576.0);
    }
}

/* A verdict in at most 14 columns. */
static const char *short_verdict(const json_t *slice) {
    const char *verdict = text_or_dash(slice, "verdict");
    if (strcmp(verdict, "no difference shown") == 0) return "not shown";
    if (strcmp(verdict, "B ahead, not sure") == 0) return "B? not sure";
    if (strcmp(verdict, "A ahead, not sure") == 0) return "A? not sure";
    return verdict;
}

static void print_comparison(FILE *to, const json_t *report, const json_t *comparison) {
    const json_t *slices = member(comparison, "slices");
    const bool grouped = strcmp(text_or_dash(report, "decided_by"), "grouped_auc") == 0;
    const char *metrics[] = {grouped ? "grouped_auc" : "auc", grouped ? "auc" : "log_loss"};
    const char *of = "all";
    char a[CELL_BYTES], b[CELL_BYTES];
    fprintf(to, "\nB = %s against A = %s%s\n", plain(text_or_dash(comparison, "b"), 32, b), plain(text_or_dash(comparison, "a"), 32, a),
            json_is_true(member(comparison, "control")) ? " (control)" : "");
    fprintf(to, "%-*s %9s  %-25s  %-25s  %s\n", SLICE_COLUMNS, "slice", "rows", grouped ? "grouped AUC, B - A" : "AUC, B - A",
            grouped ? "AUC, B - A" : "log loss, B - A", "verdict");
    for (size_t i = 0; i < json_array_size(slices); i++) {
        const json_t *slice = json_array_get(slices, i);
        const char *slice_of = text_or_dash(slice, "of");
        char cells[4][CELL_BYTES];
        const bool field = strcmp(slice_of, "all") != 0 && strcmp(slice_of, "items") != 0 && strcmp(slice_of, "units") != 0;
        if (field && strcmp(slice_of, of) != 0) fprintf(to, "%s\n", plain(slice_of, COLUMNS, cells[3]));
        of = slice_of;
        fprintf(to, "%-*s %9s  %-25s  %-25s  %.14s\n", SLICE_COLUMNS, plain(text_or_dash(slice, "slice"), SLICE_COLUMNS, cells[3]),
                fit(member(slice, "rows"), false, 0, 9, cells[0]), interval(member(slice, metrics[0]), cells[1]),
                interval(member(slice, metrics[1]), cells[2]), short_verdict(slice));
    }
}

static void print_notes(FILE *to, const json_t *report) {
    const json_t *warnings = member(report, "warnings");
    const size_t pairs = json_array_size(member(report, "comparisons"));
    char line[512], field[CELL_BYTES];
    fputc('\n', to);
    wrap(to, "note: ", "brackets hold 95 % intervals; B is better where its AUC is higher and its log loss lower");
    if (json_is_string(member(report, "grouped_by"))) {
        snprintf(line, sizeof line, "the verdict goes by the grouped AUC: the mean AUC inside each value of field '%s'",
                 plain(text_or_dash(report, "grouped_by"), 32, field));
        wrap(to, "note: ", line);
    } else {
        wrap(to, "note: ", "the verdict goes by the AUC, as there is no field that groups rows");
    }
    if (json_is_string(member(report, "item"))) {
        snprintf(line, sizeof line,
                 "items by their training rows (field '%s'): new 0, cold below 5 (new ones too), warm 5 to 99, hot 100 or more",
                 plain(text_or_dash(report, "item"), 32, field));
        wrap(to, "note: ", line);
    }
    if (pairs > 1) {
        snprintf(
            line, sizeof line,
            "verdicts are corrected for the %zu pairs (Holm), in each slice for itself; intervals are not, and \"not sure\" means that "
            "only the interval leaves out 0",
            pairs);
        wrap(to, "note: ", line);
    }
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        const char *warning = json_string_value(json_array_get(warnings, i));
        if (warning != NULL) wrap(to, "warning: ", warning);
    }
}

char *ct_compare_table(const json_t *report) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (to == NULL) return NULL;
    print_head(to, report);
    print_arms(to, report);
    const json_t *comparisons = member(report, "comparisons");
    for (size_t i = 0; i < json_array_size(comparisons); i++) print_comparison(to, report, json_array_get(comparisons, i));
    print_notes(to, report);
    const bool failed = ferror(to) != 0;
    if (fclose(to) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
