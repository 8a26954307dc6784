/* The report of a comparison as JSON:
 *
 *     format_version, schema, interval (0.95), draws, seeds [..], batch_rows, weighted
 *     rows          {train, valid, test}; valid is null without validation sources; test_clicks
 *     bad_rows      {train, valid, test}
 *     units         {by: "field" | "blocks", field (or null), block_rows (or null), units, clusters}
 *     item          field whose training count makes the slices, or null; item_values: distinct ones in training
 *     slices        [{name, least, most (or null)}], training counts
 *     grouped_by    field of the grouped AUC, or null
 *     prediction_bytes  memory that the kept predictions took
 *     arms          [{name, model, features [..], tower_parameters, table_rows, table_bytes, train_seconds (mean of one model, reading not
 *                   counted), rows_per_second, valid (or null), test}]
 *     valid, test   {rows, clicks, auc, log_loss, normalized_entropy, calibration, mean_prediction, grouped_auc}, the metrics each
 *                   {mean, deviation (null with one seed), seeds [..]}
 *     comparisons   [{a, b, control (a is the control), slices [{slice, rows, clicks, auc, log_loss, verdict}]}], auc and log_loss each
 *                   {a, b, difference (b - a), low, high, draws}; rows count once whatever their weight
 *     verdict       by the AUC's interval: "B better", "A better", "no difference shown"; "too few clicks": under 20 clicks or non-clicks
 *     warnings      [text] */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "experiment/compare_internal.h"

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

static bool has_name(char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

static json_t *features_json(const ct_schema *schema, const ct_model_spec *spec) {
    json_t *features = json_array();
    for (size_t i = 0; i < schema->field_count; i++) {
        const ct_field *field = &schema->fields[i];
        if (field->kind != CT_FIELD_NUMBER && field->kind != CT_FIELD_ID && field->kind != CT_FIELD_VECTOR) continue;
        if (spec->features != NULL && !has_name(spec->features, spec->feature_count, field->name)) continue;
        if (has_name(spec->exclude, spec->exclude_count, field->name)) continue;
        json_array_append_new(features, json_string(field->name));
    }
    return features;
}

static json_t *arm_json(const compare_run *run, const arm_run *arm, bool grouped) {
    const size_t seeds = run->options->seeds;
    const double seconds = (double)arm->train_ns / 1e9 / (double)seeds;
    json_t *model = ct_model_describe(arm->models[0]), *table = NULL;
    json_int_t table_rows = 0, table_bytes = 0;
    size_t index = 0;
    json_array_foreach(json_object_get(model, "tables"), index, table) {
        table_rows += json_integer_value(json_object_get(table, "rows"));
        table_bytes += json_integer_value(json_object_get(table, "bytes"));
    }
    json_t *json = json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:f, s:o, s:o, s:o}", "name", arm->name, "model",
                             ct_architecture_name(arm->spec->architecture), "features", features_json(run->options->schema, arm->spec),
                             "tower_parameters", json_integer_value(json_object_get(model, "tower_parameters")), "table_rows", table_rows,
                             "table_bytes", table_bytes, "train_seconds", seconds, "rows_per_second",
                             ct_json_real((double)run->train_report.rows / seconds), "valid",
                             run->options->valid_source_count > 0 ? metrics_json(arm->valid, seeds, grouped) : json_null(), "test",
                             metrics_json(arm->test, seeds, grouped));
    json_decref(model);
    return json;
}

static ct_code warn_of_reading(compare_run *run, const char *role, const ct_read_report *report, ct_status *status) {
    if (report->bad_total > 0)
        CT_TRY(compare_warn(run, status, "%s: bad rows left out: %lld; the first: %s", role, (long long)report->bad_total,
                            report->shown > 0 ? report->first_bad[0] : "?"));
    if (report->unsorted_times > 0)
        CT_TRY(compare_warn(run, status, "%s: %lld rows have an earlier time than the row before them", role,
                            (long long)report->unsorted_times));
    return CT_OK;
}

static ct_code add_warnings(compare_run *run, ct_status *status) {
    const ct_compare_options *options = run->options;
    const ct_schema *schema = options->schema;
    if (options->seeds == 1)
        CT_TRY(compare_warn(run, status, "one seed: the intervals do not cover the chance in training; use 3 seeds or more"));
    if (run->test.units == NULL)
        CT_TRY(compare_warn(run, status, "%s: blocks of %d consecutive rows are resampled, which misses what a user's rows have in common",
                            run->unit < 0 ? "the schema has no unit field" : "the test sources have no unit column", UNIT_BLOCK_ROWS));
    if (run->test.unit_count < FEW_UNITS)
        CT_TRY(compare_warn(run, status, "only %zu units in the test: intervals of so few are too narrow", run->test.unit_count));
    if (run->item < 0)
        CT_TRY(
            compare_warn(run, status, "no item field is known (`item: FIELD` in the arms file), so there are no slices by training count"));
    if (ct_schema_find_kind(schema, CT_FIELD_WEIGHT) >= 0)
        CT_TRY(compare_warn(run, status, "the arms' metrics are weighted; the comparisons count each row once"));
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

static json_t *seeds_json(const ct_compare_options *options) {
    json_t *seeds = json_array();
    for (uint32_t s = 0; s < options->seeds; s++) json_array_append_new(seeds, json_integer((json_int_t)(options->seed + s)));
    return seeds;
}

static json_t *slices_json(const compare_run *run) {
    if (run->item < 0) return json_array();
    return json_pack("[{s:s, s:i, s:i}, {s:s, s:i, s:i}, {s:s, s:i, s:i}, {s:s, s:i, s:n}]", "name", slice_names[SLICE_NEW], "least", 0,
                     "most", COLD_LEAST - 1, "name", slice_names[SLICE_COLD], "least", COLD_LEAST, "most", WARM_LEAST - 1, "name",
                     slice_names[SLICE_WARM], "least", WARM_LEAST, "most", HOT_LEAST - 1, "name", slice_names[SLICE_HOT], "least",
                     HOT_LEAST, "most");
}

static json_t *valid_number(const compare_run *run, int64_t number) {
    return run->options->valid_source_count > 0 ? json_integer((json_int_t)number) : json_null();
}

ct_code compare_report(compare_run *run, json_t **out_report, ct_status *status) {
    const ct_compare_options *options = run->options;
    const ct_schema *schema = options->schema;
    json_t *differences = NULL;
    CT_TRY(add_warnings(run, status));
    CT_TRY(compare_differences(run, &differences, status));
    int64_t group = ct_schema_find_kind(schema, CT_FIELD_GROUP);
    if (group < 0) group = run->unit; /* as ct_evaluate does */
    json_t *arms = json_array();
    for (size_t a = 0; a < run->arm_count; a++) json_array_append_new(arms, arm_json(run, &run->arms[a], group >= 0));
    const size_t models = run->arm_count * options->seeds;
    json_t *report = json_pack(
        "{s:i, s:s, s:f, s:I, s:o, s:I, s:b, s:{s:I, s:o, s:I}, s:I, s:{s:I, s:o, s:I}, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:O}",
        "format_version", 1, "schema", schema->name, "interval", 0.95, "draws", (json_int_t)options->draws, "seeds", seeds_json(options),
        "batch_rows", (json_int_t)options->batch_rows, "weighted", ct_schema_find_kind(schema, CT_FIELD_WEIGHT) >= 0, "rows", "train",
        (json_int_t)run->train_report.rows, "valid", valid_number(run, run->valid_report.rows), "test", (json_int_t)run->test.count,
        "test_clicks", (json_int_t)run->test.clicks, "bad_rows", "train", (json_int_t)run->train_report.bad_total, "valid",
        valid_number(run, run->valid_report.bad_total), "test", (json_int_t)run->test_report.bad_total, "units", units_json(run), "item",
        run->item >= 0 ? json_string(schema->fields[run->item].name) : json_null(), "item_values",
        run->item >= 0 ? json_integer((json_int_t)ct_counts_size(run->item_counts)) : json_null(), "slices", slices_json(run), "grouped_by",
        group >= 0 ? json_string(schema->fields[group].name) : json_null(), "prediction_bytes",
        (json_int_t)(models * run->test.count * sizeof(float)), "arms", arms, "comparisons", differences, "warnings", run->warnings);
    if (report == NULL) return ct_fail_memory(status, 4096, "the report");
    *out_report = report;
    return CT_OK;
}
