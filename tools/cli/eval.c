/* clicktower eval: metrics and predictions of a model folder on logs. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "tools/cli/cli.h"
#include "trainer/trainer.h"

typedef struct prediction_sink {
    ct_predictions_file *file;
    size_t outputs;
} prediction_sink;

static ct_code on_predictions(void *context, const ct_batch *batch, const float *logits, const float *probabilities, ct_status *status) {
    (void)logits;
    const prediction_sink *sink = context;
    return ct_predictions_write(sink->file, probabilities, batch->rows, sink->outputs, status);
}

/* A metric of a table, or "none". */
static void print_cell(FILE *file, const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (json_is_number(value))
        (void)fprintf(file, "  %11.6f", json_number_value(value));
    else
        (void)fprintf(file, "  %11s", "none");
}

static void print_slice(FILE *file, const char *field, const char *name, const json_t *slice) {
    (void)fprintf(file, "%-16s %-26s %10lld", field, name, (long long)json_integer_value(json_object_get(slice, "rows")));
    print_cell(file, slice, "auc");
    print_cell(file, slice, "log_loss");
    print_cell(file, slice, "normalized_entropy");
    print_cell(file, slice, "calibration");
    (void)fputc('\n', file);
}

static void print_slices(FILE *file, const json_t *fields) {
    (void)fprintf(file, "\n%-16s %-26s %10s  %11s  %11s  %11s  %11s\n", "slice", "value", "rows", "auc", "log_loss", "norm_entropy",
                  "calibration");
    for (size_t f = 0; f < json_array_size(fields); f++) {
        const json_t *object = json_array_get(fields, f), *slices = json_object_get(object, "slices");
        const char *field = json_string_value(json_object_get(object, "field"));
        for (size_t i = 0; i < json_array_size(slices); i++) {
            const json_t *slice = json_array_get(slices, i), *low = json_object_get(slice, "low"), *high = json_object_get(slice, "high");
            char range[64] = "";
            if (json_is_integer(low))
                (void)snprintf(range, sizeof range, "%lld..%lld", (long long)json_integer_value(low), (long long)json_integer_value(high));
            else if (low)
                (void)snprintf(range, sizeof range, json_equal(low, high) ? "%.6g" : "%.6g..%.6g", json_number_value(low),
                               json_number_value(high));
            print_slice(file, field, low ? range : json_string_value(json_object_get(slice, "value")), slice);
        }
        const json_t *other = json_object_get(object, "other"), *missing = json_object_get(object, "missing");
        if (json_is_object(other)) {
            char name[40];
            (void)snprintf(name, sizeof name, "other (%lld values)", (long long)json_integer_value(json_object_get(other, "values")));
            print_slice(file, field, name, other);
        }
        if (json_is_object(missing)) print_slice(file, field, "missing", missing);
    }
}

static void print_importance(FILE *file, const json_t *importance) {
    const json_t *features = json_object_get(importance, "features");
    (void)fprintf(file, "\n%-26s  %11s  %11s  %11s  %11s\n", "importance", "log_loss", "+-", "auc", "+-");
    for (size_t f = 0; f < json_array_size(features); f++) {
        const json_t *feature = json_array_get(features, f);
        (void)fprintf(file, "%-26s", json_string_value(json_object_get(feature, "feature")));
        print_cell(file, feature, "log_loss_increase");
        print_cell(file, feature, "log_loss_increase_error");
        print_cell(file, feature, "auc_drop");
        print_cell(file, feature, "auc_drop_error");
        (void)fputc('\n', file);
    }
}

ct_code ct_verb_eval(int argc, char **argv, ct_status *status) {
    const char *folder = NULL, *json_path = NULL, *predictions_path = NULL;
    ct_text_list data = {0}, slice_fields = {0};
    int64_t threads = 0, memory = 0, repeats = CT_IMPORTANCE_REPEATS;
    bool with_importance = false, live = false;
    ct_bad_row_limit bad_rows = CT_BAD_ROW_LIMIT_INIT;
    const ct_option options[] = {
        {"model", "DIR", CT_OPTION_TEXT, true, &folder, "the model folder", 0, 0, NULL},
        {"data", "SOURCE", CT_OPTION_LIST, true, &data, "logs with labels", 0, 0, NULL},
        {"json", "FILE|-", CT_OPTION_TEXT, false, &json_path, "the metrics as one JSON object", 0, 0, NULL},
        {"predictions", "FILE|-", CT_OPTION_TEXT, false, &predictions_path, "one probability a line, in the order of the rows", 0, 0, NULL},
        {"slice", "FIELD", CT_OPTION_REPEATED, false, &slice_fields,
         "also by the values of this field: the 20 most frequent ones of an id (shown as keys in hex, as the tokens are not kept), 10 bins "
         "of a "
         "number; may be repeated",
         0, 0, NULL},
        {"importance", NULL, CT_OPTION_FLAG, false, &with_importance,
         "also how much worse it gets when one feature is shuffled among the rows; scores the log once for each feature and repeat", 0, 0,
         NULL},
        {"live", NULL, CT_OPTION_FLAG, false, &live,
         "the rows enter the units' histories as they come, and later rows see them; without it histories stand as in the model", 0, 0,
         NULL},
        {"repeats", "N", CT_OPTION_INTEGER, false, &repeats, "of --importance: shuffles of each feature", 1, 1000, NULL},
        {"memory", "MIB", CT_OPTION_INTEGER, false, &memory,
         "of the embedding rows, at most: the rows that were counted most are kept in memory, the others read from DIR when they are asked "
         "for; 0 = "
         "all are in memory",
         0, 1 << 30, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "0 = all processors; the result does not depend on it", 0, 1024, NULL},
        {"max-bad-rows", "N|P%", CT_OPTION_BAD_ROWS, false, &bad_rows, "more bad rows than this are a failure", 0, 0, NULL},
    };
    static const ct_option_need needs[] = {{"repeats", "importance"}};
    const ct_command command = {"eval",
                                "Prints the metrics of a model on click logs.",
                                "  clicktower eval --model model --data day_1.gz\n"
                                "  clicktower eval --model model --data day_1.gz --json metrics.json \\\n"
                                "      --predictions day_1.txt\n"
                                "  clicktower eval --model model --data day_1.gz --slice C2 --slice I1 \\\n"
                                "      --importance",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_pool *pool = NULL;
    ct_model *model = NULL;
    ct_slices *slices = NULL;
    ct_importance *importance = NULL;
    json_t *json = NULL, *slices_json = NULL, *importance_json = NULL;
    prediction_sink sink = {0};
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse_needs(&command, needs, sizeof needs / sizeof *needs, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_read_memory(memory, false, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&data}, 1, 1, status), done);
    CT_TRY_GOTO(code, ct_check_output("json", json_path, data.items, data.count, status), done);
    CT_TRY_GOTO(code, ct_check_output("predictions", predictions_path, data.items, data.count, status), done);
    const bool json_out = json_path && strcmp(json_path, "-") == 0,
               predictions_out = predictions_path && strcmp(predictions_path, "-") == 0;
    if (json_out && predictions_out) {
        code = ct_fail(status, CT_USAGE, "--json - and --predictions - cannot share standard output: give one of them a file");
        goto done;
    }
    const atomic_bool *stop = ct_stop_on_signals();
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    CT_TRY_GOTO(code, ct_model_open_within(folder, CT_MODEL_READ, (uint64_t)memory << 20, NULL, NULL, pool, &model, status), done);
    if (predictions_path) CT_TRY_GOTO(code, ct_predictions_open(predictions_path, &sink.file, status), done);
    sink.outputs = ct_model_output_count(model);

    ct_evaluate_options evaluate = {.reader = CT_READER_OPTIONS_INIT, .pool = pool, .progress = true, .live = live};
    evaluate.reader.sources = data.items;
    evaluate.reader.source_count = data.count;
    evaluate.reader.max_bad_rows = bad_rows.rows;
    evaluate.reader.max_bad_share = bad_rows.share;
    evaluate.reader.stop = stop;
    if (sink.file) {
        evaluate.predictions = on_predictions;
        evaluate.predictions_context = &sink;
    }
    if (slice_fields.count)
        CT_TRY_GOTO(code, ct_slices_create(ct_model_schema(model), slice_fields.items, slice_fields.count, 0, &slices, status), done);
    if (with_importance) {
        const ct_importance_options how = {.repeats = (uint32_t)repeats, .seed = ct_model_seed(model), .stop = stop, .progress = true};
        CT_TRY_GOTO(code, ct_importance_create(model, pool, &how, &importance, status), done);
    }
    evaluate.slices = slices;
    evaluate.importance = importance;
    ct_metrics metrics;
    ct_read_report report;
    if (ct_evaluate(model, &evaluate, &metrics, &report, status) != CT_OK) {
        code = ct_stop_explain("no metrics, and no file was written", status);
        goto done;
    }
    ct_warn_report("eval", "evaluation", &report);
    if (slices) CT_TRY_GOTO(code, ct_slices_finish(slices, &slices_json, status), done);
    if (importance) CT_TRY_GOTO(code, ct_importance_finish(importance, &importance_json, status), done);
    if (sink.file) {
        ct_predictions_file *file = sink.file;
        sink.file = NULL;
        CT_TRY_GOTO(code, ct_predictions_commit(file, status), done);
    }
    const bool with_groups =
        ct_schema_find_kind(ct_model_schema(model), CT_FIELD_GROUP) >= 0 || ct_schema_find_kind(ct_model_schema(model), CT_FIELD_UNIT) >= 0;
    if (json_path) {
        json = json_object();
        if (!json) {
            code = ct_fail_memory(status, sizeof(json_t), "the metrics");
            goto done;
        }
        CT_TRY_GOTO(code, ct_metrics_to_json(&metrics, with_groups, json, status), done);
        CT_TRY_GOTO(code, ct_calibration_to_json(&metrics, json, status), done);
        if (json_object_set_new(json, "bad_rows", json_integer(report.bad_total)) != 0 ||
            (slices_json && json_object_set(json, "slices", slices_json) != 0) ||
            (importance_json && json_object_set(json, "importance", importance_json) != 0)) {
            code = ct_fail_memory(status, sizeof(json_t), "the metrics");
            goto done;
        }
        CT_TRY_GOTO(code, ct_json_output(json_path, json, status), done);
    }
    /* Whoever takes the JSON or the predictions from standard output wants nothing else there. */
    if (!json_out) {
        FILE *file = predictions_out ? stderr : stdout;
        ct_print_metrics(file, &metrics, with_groups);
        if (slices_json) print_slices(file, slices_json);
        if (importance_json) print_importance(file, importance_json);
    }
done:
    json_decref(json);
    json_decref(slices_json);
    json_decref(importance_json);
    ct_slices_destroy(slices);
    ct_importance_destroy(importance);
    ct_predictions_abort(sink.file);
    ct_model_destroy(model);
    ct_pool_destroy(pool);
    ct_text_list_deinit(&data);
    ct_text_list_deinit(&slice_fields);
    return code;
}
