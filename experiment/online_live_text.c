/* The sections that only a report of a server's experiment has, for a terminal. */
#include "experiment/online_render_internal.h"

enum { DRIFT_LINES = 12, LINE_COLUMNS = 100, TITLE_COLUMNS = 30 };

const char *online_slice_name(const json_t *slice, char *out, size_t out_bytes) {
    if (member(slice, "value") != NULL)
        (void)snprintf(out, out_bytes, "%s", text_of(slice, "value")[0] != '\0' ? text_of(slice, "value") : "(empty)");
    else if (member(slice, "low") != NULL)
        (void)snprintf(out, out_bytes, "%.4g to %.4g", number(slice, "low"), number(slice, "high"));
    else
        (void)snprintf(out, out_bytes, "%s", member(slice, "other") != NULL ? "(others)" : "(missing)");
    return out;
}

const char *online_assigned_text(const json_t *left_out, char *out, size_t out_bytes) {
    const char *how = NULL, *arm = NULL;
    json_t *by_arm = NULL, *requests = NULL;
    size_t used = 0;
    out[0] = '\0';
    json_object_foreach((json_t *)(uintptr_t)member(left_out, "assigned"), how, by_arm) {
        json_int_t sum = 0;
        json_object_foreach(by_arm, arm, requests) sum += json_integer_value(requests);
        if (used < out_bytes)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%s %" JSON_INTEGER_FORMAT, used > 0 ? ", " : "", how, sum);
    }
    return out;
}

static void put_metrics(FILE *to, const json_t *report) {
    const json_t *metric = NULL, *one = NULL;
    size_t i = 0, j = 0;
    if (json_array_size(member(report, "metrics")) == 0) return;
    fprintf(to, "\n%-*s %10s  %-21s  %-21s  %s\n", TITLE_COLUMNS, "other metrics: B - A", "difference", "at one fixed time",
            "whenever you look", "lift");
    json_array_foreach(member(report, "metrics"), i, metric) json_array_foreach(member(metric, "differences"), j, one) {
        const json_t *cuped = member(one, "cuped"), *of = json_is_object(cuped) ? cuped : one;
        char name[256];
        (void)snprintf(name, sizeof name, "%s: %s", text_of(metric, "metric"), text_of(one, "b"));
        online_put_name(to, name, TITLE_COLUMNS);
        online_put_difference(to, member(of, "estimate"));
        online_put_range(to, member(of, "fixed"));
        online_put_range(to, member(of, "sequence"));
        fputs("  ", to);
        online_put_lift(to, one, 1);
        fputc('\n', to);
    }
}

static void put_quantile(FILE *to, const json_t *latency, const char *name) {
    const json_t *value = member(latency, name);
    char text[64] = "-";
    if (json_is_number(member(value, "value")))
        (void)snprintf(text, sizeof text, "%.0f [%.0f %.0f]", number(value, "value"), number(value, "low"), number(value, "high"));
    fprintf(to, " %-18s", text);
}

static void put_guardrails(FILE *to, const json_t *report) {
    const json_t *guardrails = member(report, "guardrails"), *one = NULL;
    size_t i = 0;
    fprintf(to, "\n%-16s %9s %7s %10s  %-18s %-18s %-18s\n", "requests", "all", "errors", "error rate", "latency p50, us", "p95", "p99");
    json_array_foreach(member(guardrails, "arms"), i, one) {
        const json_t *latency = member(one, "latency_us");
        online_put_name(to, text_of(one, "name"), 16);
        fprintf(to, " %9.0f %7.0f %9.3f%% ", number(one, "requests"), number(one, "errors"),
                100.0 * number(member(one, "error_rate"), "value"));
        put_quantile(to, latency, "p50");
        put_quantile(to, latency, "p95");
        put_quantile(to, latency, "p99");
        fputc('\n', to);
    }
    json_array_foreach(member(guardrails, "differences"), i, one) {
        char name[256];
        (void)snprintf(name, sizeof name, "%s: %s, B - A", text_of(one, "of"), text_of(one, "b"));
        online_put_name(to, name, TITLE_COLUMNS);
        online_put_difference(to, member(one, "estimate"));
        online_put_range(to, member(one, "fixed"));
        online_put_range(to, member(one, "sequence"));
        fprintf(to, "  %s\n", text_of(one, "verdict"));
    }
}

static void put_or_dash(FILE *to, const json_t *object, const char *name) {
    if (json_is_number(member(object, name)))
        fprintf(to, " %12.5f", number(object, name));
    else
        fprintf(to, " %12s", "-");
}

static void put_scores(FILE *to, const json_t *report) {
    static const char *const columns[] = {"log_loss", "auc", "calibration", "expected_calibration_error"};
    const json_t *one = NULL;
    size_t i = 0;
    fprintf(to, "\n%-*s %10s %10s %12s %12s %12s %12s\n", ONLINE_NAME_COLUMNS, "scores of what was shown", "shown", "positive", "log loss",
            "AUC", "calibration", "cal. error");
    json_array_foreach(member(report, "scores"), i, one) {
        online_put_name(to, text_of(one, "name"), ONLINE_NAME_COLUMNS);
        fprintf(to, " %10.0f %10.0f", number(one, "rows"), number(one, "clicks"));
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) put_or_dash(to, one, columns[c]);
        fputc('\n', to);
    }
}

static void put_drift(FILE *to, const json_t *report) {
    const json_t *drift = member(report, "drift"), *one = NULL;
    const size_t count = json_array_size(drift);
    size_t i = 0;
    if (count == 0) return;
    fprintf(to, "\n%-*s %8s %8s %8s\n", ONLINE_NAME_COLUMNS, "drift from training", "index", "chance", "unseen");
    json_array_foreach(drift, i, one) {
        if (i == DRIFT_LINES) break;
        online_put_name(to, text_of(one, "feature"), ONLINE_NAME_COLUMNS);
        fprintf(to, " %8.4f %8.4f", number(one, "psi"), number(one, "expected"));
        if (json_is_number(member(one, "unseen")))
            fprintf(to, " %7.2f%%", 100.0 * number(one, "unseen"));
        else
            fprintf(to, " %8s", "-");
        fprintf(to, "  %s\n", text_of(one, "verdict"));
    }
    if (count > DRIFT_LINES) fprintf(to, "and %zu features with less\n", count - DRIFT_LINES);
}

static void put_slices(FILE *to, const json_t *report) {
    const json_t *feature = NULL, *slice = NULL, *one = NULL;
    size_t i = 0, j = 0, k = 0;
    json_array_foreach(member(report, "slices"), i, feature) {
        fprintf(to, "\n%-*s %9s %10s  %-21s  %-21s\n", TITLE_COLUMNS, "slices: B - A", "shown", "difference", "at one fixed time",
                "whenever you look");
        json_array_foreach(member(feature, "slices"), j, slice) json_array_foreach(member(slice, "differences"), k, one) {
            char name[256], value[128];
            (void)snprintf(name, sizeof name, "%s %s: %s", text_of(feature, "feature"), online_slice_name(slice, value, sizeof value),
                           text_of(one, "b"));
            online_put_name(to, name, TITLE_COLUMNS);
            fprintf(to, " %9.0f", number(slice, "shown"));
            online_put_difference(to, member(one, "estimate"));
            online_put_range(to, member(one, "fixed"));
            online_put_range(to, member(one, "sequence"));
            fputc('\n', to);
        }
    }
}

/* Those that are not 0, in lines. */
static void put_counts(FILE *to, const json_t *counts, const char *what) {
    const char *name = NULL, *comma = "";
    json_t *value = NULL;
    int column = fprintf(to, "%s:", what);
    json_object_foreach((json_t *)(uintptr_t)counts, name, value) {
        char text[96];
        if (json_integer_value(value) == 0) continue;
        const int length = snprintf(text, sizeof text, "%s %" JSON_INTEGER_FORMAT, name, json_integer_value(value));
        for (char *c = text; *c != '\0'; c++)
            if (*c == '_') *c = ' ';
        if (column + length + 3 > LINE_COLUMNS) {
            fprintf(to, "%s\n   ", comma);
            column = 3;
            comma = "";
        }
        column += fprintf(to, "%s %s", comma, text);
        comma = ",";
    }
    fputc('\n', to);
}

void online_put_live(FILE *to, const json_t *report) {
    const json_t *left_out = member(report, "left_out");
    char assigned[256];
    put_metrics(to, report);
    put_guardrails(to, report);
    put_scores(to, report);
    put_drift(to, report);
    put_slices(to, report);
    fputc('\n', to);
    if (online_assigned_text(left_out, assigned, sizeof assigned)[0] != '\0') fprintf(to, "requests not compared: %s\n", assigned);
    if (number(left_out, "other_experiments") > 0.0)
        fprintf(to, "requests of other experiments: %.0f\n", number(left_out, "other_experiments"));
    put_counts(to, member(left_out, "exposures"), "exposures");
    put_counts(to, member(left_out, "feedback"), "feedback");
}
