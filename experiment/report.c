/* The report of a comparison as JSON:
 *
 *     format_version (2), schema, interval (0.95), draws, seeds [..], batch_rows, epochs, weighted, ndcg_at
 *     rows          {train, valid, test}; valid is null without validation sources; test_clicks
 *     bad_rows      {train, valid, test}
 *     units         {by: "field" | "blocks", field (or null), block_rows (or null), units, clusters}
 *     item          field whose training count makes the slices, or null; item_values: distinct ones in training
 *     slices        [{of, name}]: "all"; by "items" (training count new 0, cold below 5, warm 5 to 99, hot 100 or more); by "units" (new,
 *                   old); by features
 *     grouped_by    field of grouped AUC, nDCG and MRR, or null
 *     decided_by    "grouped_auc" | "auc"
 *     overlap       {repeated_rows, later_rows, valid_repeated_rows}: training rows that are test rows byte for byte; that are later than
 *                   the first test row; validation rows that are test rows
 *     features      [{name, auc (of the feature alone, over the training rows), distinct (values in training, about; null for a number),
 *                   new_in_test (share of the test rows whose value training lacks; null for a number)}]
 *     prediction_bytes  memory that the kept predictions took
 *     arms          [{name, kind ("own" | "placebo" | "again"), of (the arm repeated, or null), model, features [..], parameters,
 *                   tower_parameters, table_rows, table_bytes (with vectors), expected_table_bytes (of ids, as estimated before),
 *                   train_seconds (mean of one model, reading not counted), rows_per_second,
 *                   best_epochs [..] (by seed, from 1), valid (or null), test}]
 *     valid, test   {rows, clicks, auc, log_loss, normalized_entropy, calibration, mean_prediction, grouped_auc}, the metrics each
 *                   {mean, deviation (null with one seed), seeds [..]}
 *     comparisons   [{a, b, control (a is the control), words, slices [{of, slice, rows, clicks, groups (with both classes), METRIC..,
 *                   p_corrected (Holm, over the pairs of the slice; null without verdict), verdict}]}], METRIC: auc, log_loss,
 *                   normalized_entropy, calibration, and with groups grouped_auc, ndcg, mrr: each {a, b, difference (b - a), low, high, p,
 *                   draws}; rows count once whatever their weight
 *     verdict       by the interval of the metric that decides: "B better", "A better": it leaves out 0, after the correction too; "B
 *                   ahead, not sure", "A ahead, not sure": only before the correction; "no difference shown"; "too few clicks": under 20
 *                   clicks or non-clicks; "too few groups": under 20
 *     item_curve    [{least (training count), rows, clicks, auc [of each arm]}], or null
 *     warnings      [text] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "experiment/compare_internal.h"
#include "experiment/report_internal.h"

static double metric_value(const ct_metrics *metrics, size_t metric) {
    switch (metric) {
        case 0:
            return metrics->auc;
        case 1:
            return metrics->log_loss;
        case 2:
            return metrics->normalized_entropy;
        case 3:
            return metrics->calibration;
        case 4:
            return metrics->mean_prediction;
        default:
            return metrics->grouped_auc;
    }
}

/* Mean, deviation and values over the seeds. */
static json_t *metric_json(const ct_metrics *metrics, size_t seeds, size_t metric) {
    double mean = 0.0, squares = 0.0;
    json_t *values = json_array();
    for (size_t s = 0; s < seeds; s++) {
        mean += metric_value(&metrics[s], metric) / (double)seeds;
        json_array_append_new(values, ct_json_real(metric_value(&metrics[s], metric)));
    }
    for (size_t s = 0; s < seeds; s++) squares += (metric_value(&metrics[s], metric) - mean) * (metric_value(&metrics[s], metric) - mean);
    return json_pack("{s:o, s:o, s:o}", "mean", ct_json_real(mean), "deviation",
                     ct_json_real(seeds > 1 ? sqrt(squares / (double)(seeds - 1)) : NAN), "seeds", values);
}

static json_t *metrics_json(const ct_metrics *metrics, size_t seeds, bool grouped) {
    static const char *const names[] = {"auc", "log_loss", "normalized_entropy", "calibration", "mean_prediction", "grouped_auc"};
    json_t *json = json_pack("{s:I, s:o}", "rows", (json_int_t)metrics[0].rows, "clicks", ct_json_real(metrics[0].clicks));
    for (size_t m = 0; m < (grouped ? 6 : 5); m++) json_object_set_new(json, names[m], metric_json(metrics, seeds, m));
    return json;
}

static json_t *arm_features_json(const compare_run *run, const arm_run *arm) {
    const ct_schema *schema = run->options->schema;
    json_t *features = json_array();
    for (size_t i = 0; i < schema->field_count; i++) {
        const ct_field *field = &schema->fields[i];
        if (field->kind != CT_FIELD_NUMBER && field->kind != CT_FIELD_ID && field->kind != CT_FIELD_VECTOR && !field->derived) continue;
        if (compare_arm_has(run, arm, i)) json_array_append_new(features, json_string(field->name));
    }
    return features;
}

static json_t *epochs_json(const compare_run *run, const arm_run *arm) {
    json_t *epochs = json_array();
    for (size_t s = 0; s < run->options->seeds; s++) json_array_append_new(epochs, json_integer((json_int_t)arm->best_epoch[s] + 1));
    return epochs;
}

static json_t *arm_json(const compare_run *run, size_t index, bool grouped) {
    static const char *const kinds[] = {"own", "placebo", "again"};
    const arm_run *arm = &run->arms[index];
    const size_t seeds = run->options->seeds;
    double seconds = 0.0, passes = 0.0; /* of all models */
    for (size_t s = 0; s < seeds; s++) {
        seconds += (double)arm->train_ns[s] / 1e9;
        passes += (double)arm->epochs[s];
    }
    const json_t *model = arm->descriptions[0];
    json_t *table = NULL;
    const json_int_t tower = json_integer_value(json_object_get(model, "tower_parameters"));
    json_int_t table_rows = 0, table_bytes = 0, trained = 0;
    size_t t = 0;
    json_array_foreach(json_object_get(model, "tables"), t, table) {
        const json_int_t rows = json_integer_value(json_object_get(table, "rows"));
        table_rows += rows;
        table_bytes += json_integer_value(json_object_get(table, "bytes"));
        if (strcmp(json_string_value(json_object_get(table, "kind")), "trained") == 0)
            trained += rows * json_integer_value(json_object_get(table, "dim"));
    }
    json_t *json = json_pack(
        "{s:s, s:s, s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o, s:o}", "name", arm->name, "kind", kinds[arm->kind], "of",
        arm->kind == CT_ARM_OWN ? json_null() : json_string(ct_arms_name(run->arms_file, ct_arms_of(run->arms_file, index))), "model",
        ct_architecture_name(arm->spec->architecture), "features", arm_features_json(run, arm), "parameters", tower + trained,
        "tower_parameters", tower, "table_rows", table_rows, "table_bytes", table_bytes, "expected_table_bytes",
        (json_int_t)plan_table_bytes(run, arm), "train_seconds", seconds / (double)seeds, "rows_per_second",
        ct_json_real((double)run->train_report.rows * passes / seconds), "best_epochs", epochs_json(run, arm), "valid",
        run->options->valid_source_count > 0 ? metrics_json(arm->valid, seeds, grouped) : json_null(), "test",
        metrics_json(arm->test, seeds, grouped));
    return json;
}

static ct_code warn_of_reading(compare_run *run, const char *role, const ct_read_report *report, ct_status *status) {
    if (report->bad_total > 0)
        CT_TRY(report_warn(run->warnings, status, "%s: bad rows left out: %lld; the first: %s", role, (long long)report->bad_total,
                           report->shown > 0 ? report->first_bad[0] : "?"));
    if (report->unsorted_times > 0)
        CT_TRY(report_warn(run->warnings, status, "%s: %lld rows have an earlier time than the row before them", role,
                           (long long)report->unsorted_times));
    return CT_OK;
}

static ct_code add_warnings(compare_run *run, ct_status *status) {
    const ct_compare_options *options = run->options;
    const ct_schema *schema = options->schema;
    if (options->seeds == 1)
        CT_TRY(report_warn(run->warnings, status, "one seed: the intervals do not cover the chance in training; use 3 seeds or more"));
    if (run->test.units == NULL)
        CT_TRY(report_warn(run->warnings, status,
                           "%s: blocks of %d consecutive rows are resampled, which misses what a user's rows have in common",
                           run->unit < 0 ? "the schema has no unit field" : "the test sources have no unit column", UNIT_BLOCK_ROWS));
    if (run->options->epochs > 1 && options->valid_source_count == 0)
        CT_TRY(report_warn(run->warnings, status, "no validation sources: all %u epochs were trained, and the last one is judged",
                           run->arms[0].epochs[0]));
    if (run->late_rows > 0)
        CT_TRY(report_warn(run->warnings, status,
                           "%lld rows are earlier than what the history of their unit held already; what is later was left out of theirs, "
                           "but sources in order of time give them more",
                           (long long)run->late_rows));
    if (run->test.unit_count < FEW_UNITS)
        CT_TRY(report_warn(run->warnings, status, "only %zu units in the test: intervals of so few are too narrow", run->test.unit_count));
    if (run->item < 0)
        CT_TRY(report_warn(run->warnings, status,
                           "no item field is known (`item: FIELD` in the arms file), so there are no slices by training count"));
    if (ct_schema_find_kind(schema, CT_FIELD_WEIGHT) >= 0)
        CT_TRY(report_warn(run->warnings, status, "the arms' metrics are weighted; the comparisons count each row once"));
    CT_TRY(warn_of_reading(run, "training", &run->train_report, status));
    if (options->valid_source_count > 0) CT_TRY(warn_of_reading(run, "validation", &run->valid_report, status));
    return warn_of_reading(run, "test", &run->test_report, status);
}

static json_t *units_json(const compare_run *run) {
    const bool blocks = run->test.units == NULL;
    return json_pack("{s:s, s:o, s:o, s:I, s:I}", "by", blocks ? "blocks" : "field", "field",
                     blocks ? json_null() : json_string(run->options->schema->fields[run->unit].name), "block_rows",
                     blocks ? json_integer(UNIT_BLOCK_ROWS) : json_null(), "units", (json_int_t)run->test.unit_count, "clusters",
                     (json_int_t)run->test.cluster_count);
}

static uint32_t most_epochs(const compare_run *run) {
    uint32_t most = 0;
    for (size_t a = 0; a < run->arm_count; a++)
        for (uint32_t s = 0; s < run->options->seeds; s++)
            if (run->arms[a].epochs[s] > most) most = run->arms[a].epochs[s];
    return most;
}

static json_t *seeds_json(const ct_compare_options *options) {
    json_t *seeds = json_array();
    for (uint32_t s = 0; s < options->seeds; s++) json_array_append_new(seeds, json_integer((json_int_t)(options->seed + s)));
    return seeds;
}

static json_t *slices_json(const compare_run *run) {
    json_t *slices = json_array();
    for (size_t i = 0; i < run->slices.count; i++)
        json_array_append_new(slices, json_pack("{s:s, s:s}", "of", run->slices.list[i].of, "name", run->slices.list[i].name));
    return slices;
}

static json_t *valid_number(const compare_run *run, int64_t number) {
    return run->options->valid_source_count > 0 ? json_integer((json_int_t)number) : json_null();
}

/* --- verdicts in words --- */

static const json_t *slice_named(const json_t *comparison, const char *name) {
    const json_t *slices = json_object_get(comparison, "slices"), *slice = NULL;
    size_t i = 0;
    json_array_foreach(slices, i, slice) if (strcmp(json_string_value(json_object_get(slice, "slice")), name) == 0) return slice;
    return NULL;
}

static const char *verdict_in(const json_t *comparison, const char *slice) {
    return json_string_value(json_object_get(slice_named(comparison, slice), "verdict"));
}

/* One slice of a pair: what its interval says, and no more. */
static void say_slice(FILE *to, const compare_run *run, const json_t *slice, const char *where) {
    const char *verdict = json_string_value(json_object_get(slice, "verdict"));
    const json_t *metric = json_object_get(slice, ct_tally_names[run->decides]);
    (void)fprintf(to, "%s: %s", where, verdict);
    if (strncmp(verdict, "too few", 7) != 0)
        (void)fprintf(to, " (%s %+.4f, 95 %% interval %+.4f to %+.4f)", run->decides == CT_TALLY_AUC ? "AUC" : "grouped AUC",
                      json_number_value(json_object_get(metric, "difference")), json_number_value(json_object_get(metric, "low")),
                      json_number_value(json_object_get(metric, "high")));
}

static ct_code add_words(const compare_run *run, json_t *comparisons, ct_status *status) {
    json_t *comparison = NULL;
    size_t i = 0;
    json_array_foreach(comparisons, i, comparison) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *to = open_memstream(&text, &bytes);
        if (to == NULL) return ct_fail_memory(status, 4096, "the report");
        (void)fprintf(to, "B = %s against A = %s. ", json_string_value(json_object_get(comparison, "b")),
                      json_string_value(json_object_get(comparison, "a")));
        say_slice(to, run, slice_named(comparison, "all"), "All rows");
        for (size_t k = 0; run->test.items != NULL && k < 4; k++) {
            char where[32];
            (void)snprintf(where, sizeof where, "; %s items", item_slices[k].name);
            say_slice(to, run, slice_named(comparison, item_slices[k].name), where);
        }
        (void)fputc('.', to);
        const bool failed = ferror(to) != 0;
        if (fclose(to) != 0 || failed || json_object_set_new(comparison, "words", json_string(text)) != 0) {
            free(text);
            return ct_fail_memory(status, bytes, "the report");
        }
        free(text);
    }
    return CT_OK;
}

/* What the A/A arms and the placebos say about the other arms. */
static ct_code warn_of_controls(compare_run *run, const json_t *comparisons, ct_status *status) {
    const json_t *comparison = NULL;
    size_t i = 0;
    json_array_foreach(comparisons, i, comparison) {
        const char *a = json_string_value(json_object_get(comparison, "a")), *b = json_string_value(json_object_get(comparison, "b"));
        const char *verdict = verdict_in(comparison, "all");
        const bool is_better = strcmp(verdict, "B better") == 0, differs = is_better || strcmp(verdict, "A better") == 0;
        for (size_t arm = 0; arm < run->arm_count && differs; arm++) {
            const char *of = ct_arms_name(run->arms_file, ct_arms_of(run->arms_file, arm));
            if (run->arms[arm].kind == CT_ARM_AGAIN && strcmp(run->arms[arm].name, b) == 0 && strcmp(of, a) == 0)
                CT_TRY(report_warn(run->warnings, status,
                                   "A/A: '%s' and '%s' are the same arm, yet differ: trust no verdict here; use more seeds", a, b));
            if (run->arms[arm].kind == CT_ARM_PLACEBO && strcmp(run->arms[arm].name, b) == 0 && is_better &&
                json_is_true(json_object_get(comparison, "control")))
                CT_TRY(report_warn(run->warnings, status,
                                   "placebo: '%s' has no content and still beats the control: what '%s' gains is not all content", b, of));
        }
    }
    return CT_OK;
}

ct_code compare_report(compare_run *run, json_t **out_report, ct_status *status) {
    const ct_compare_options *options = run->options;
    const ct_schema *schema = options->schema;
    json_t *differences = NULL, *curve = NULL;
    CT_TRY(add_warnings(run, status));
    ct_code code = compare_differences(run, &differences, status);
    if (code == CT_OK) code = compare_item_curve(run, &curve, status);
    if (code == CT_OK) code = add_words(run, differences, status);
    if (code == CT_OK) code = warn_of_controls(run, differences, status);
    if (code != CT_OK) {
        json_decref(differences);
        json_decref(curve);
        return code;
    }
    const bool grouped = run->test.groups != NULL;
    json_t *arms = json_array();
    for (size_t a = 0; a < run->arm_count; a++) json_array_append_new(arms, arm_json(run, a, grouped));
    const size_t models = run->arm_count * options->seeds;
    json_t *report = json_pack(
        "{s:i, s:s, s:f, s:I, s:o, s:I, s:I, s:b, s:I, s:{s:I, s:o, s:I}, s:I, s:{s:I, s:o, s:I}, s:o, s:o, s:o, s:o, s:o, s:s, s:{s:I, "
        "s:I, s:I}, s:I, s:o, s:o, s:o, s:o, s:O}",
        "format_version", 2, "schema", schema->name, "interval", 0.95, "draws", (json_int_t)options->draws, "seeds", seeds_json(options),
        "batch_rows", (json_int_t)options->batch_rows, "epochs", (json_int_t)most_epochs(run), "weighted",
        ct_schema_find_kind(schema, CT_FIELD_WEIGHT) >= 0, "ndcg_at", (json_int_t)options->ndcg_at, "rows", "train",
        (json_int_t)run->train_report.rows, "valid", valid_number(run, run->valid_report.rows), "test", (json_int_t)run->test.count,
        "test_clicks", (json_int_t)run->test.clicks, "bad_rows", "train", (json_int_t)run->train_report.bad_total, "valid",
        valid_number(run, run->valid_report.bad_total), "test", (json_int_t)run->test_report.bad_total, "units", units_json(run), "item",
        run->item >= 0 ? json_string(schema->fields[run->item].name) : json_null(), "item_values",
        run->item >= 0 ? json_integer((json_int_t)ct_counts_size(run->item_counts)) : json_null(), "slices", slices_json(run), "grouped_by",
        grouped ? json_string(schema->fields[run->group].name) : json_null(), "decided_by", ct_tally_names[run->decides], "overlap",
        "repeated_rows", (json_int_t)run->repeated_rows, "later_rows", (json_int_t)run->later_rows, "valid_repeated_rows",
        (json_int_t)run->valid_repeated_rows, "prediction_bytes", (json_int_t)(models * run->test.count * sizeof(float)), "features",
        features_json(run), "arms", arms, "comparisons", differences, "item_curve", curve, "warnings", run->warnings);
    if (report == NULL) return ct_fail_memory(status, 4096, "the report");
    *out_report = report;
    return CT_OK;
}
