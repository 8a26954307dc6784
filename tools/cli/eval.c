/* clicktower eval: metrics and predictions of a model folder on logs. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
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

ct_code ct_verb_eval(int argc, char **argv, ct_status *status) {
    const char *folder = NULL, *json_path = NULL, *predictions_path = NULL;
    ct_text_list data = {0};
    int64_t threads = 0;
    ct_bad_row_limit bad_rows = CT_BAD_ROW_LIMIT_INIT;
    const ct_option options[] = {
        {"model", "DIR", CT_OPTION_TEXT, true, &folder, "the model folder", 0, 0, NULL},
        {"data", "SOURCE", CT_OPTION_LIST, true, &data, "logs with labels", 0, 0, NULL},
        {"json", "FILE|-", CT_OPTION_TEXT, false, &json_path, "the metrics as one JSON object", 0, 0, NULL},
        {"predictions", "FILE|-", CT_OPTION_TEXT, false, &predictions_path, "one probability a line, in the order of the rows", 0, 0, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "0 = all processors; the result does not depend on it", 0, 1024, NULL},
        {"max-bad-rows", "N|P%", CT_OPTION_BAD_ROWS, false, &bad_rows, "more bad rows than this are a failure", 0, 0, NULL},
    };
    const ct_command command = {"eval",
                                "Prints the metrics of a model on click logs.",
                                "  clicktower eval --model model --data day_1.gz\n"
                                "  clicktower eval --model model --data day_1.gz --json metrics.json \\\n"
                                "      --predictions day_1.txt",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_pool *pool = NULL;
    ct_model *model = NULL;
    json_t *json = NULL;
    prediction_sink sink = {0};
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&data}, 1, 1, status), done);
    const bool json_out = json_path && strcmp(json_path, "-") == 0,
               predictions_out = predictions_path && strcmp(predictions_path, "-") == 0;
    if (json_out && predictions_out) {
        code = ct_fail(status, CT_USAGE, "--json - and --predictions - cannot share standard output: give one of them a file");
        goto done;
    }
    const atomic_bool *stop = ct_stop_on_signals();
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    CT_TRY_GOTO(code, ct_model_open(folder, CT_MODEL_READ, NULL, pool, &model, status), done);
    if (predictions_path) CT_TRY_GOTO(code, ct_predictions_open(predictions_path, &sink.file, status), done);
    sink.outputs = ct_model_output_count(model);

    ct_evaluate_options evaluate = {.reader = CT_READER_OPTIONS_INIT, .pool = pool, .progress = true};
    evaluate.reader.sources = data.items;
    evaluate.reader.source_count = data.count;
    evaluate.reader.max_bad_rows = bad_rows.rows;
    evaluate.reader.max_bad_share = bad_rows.share;
    evaluate.reader.stop = stop;
    if (sink.file) {
        evaluate.predictions = on_predictions;
        evaluate.predictions_context = &sink;
    }
    ct_metrics metrics;
    ct_read_report report;
    if (ct_evaluate(model, &evaluate, &metrics, &report, status) != CT_OK) {
        code = ct_stop_explain("no metrics, and no file was written", status);
        goto done;
    }
    ct_warn_report("eval", "evaluation", &report);
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
        if (json_object_set_new(json, "bad_rows", json_integer(report.bad_total)) != 0) {
            code = ct_fail_memory(status, sizeof(json_t), "the metrics");
            goto done;
        }
        CT_TRY_GOTO(code, ct_json_output(json_path, json, status), done);
    }
    /* Whoever takes the JSON or the predictions from standard output wants nothing else there. */
    if (!json_out) ct_print_metrics(predictions_out ? stderr : stdout, &metrics, with_groups);
done:
    json_decref(json);
    ct_predictions_abort(sink.file);
    ct_model_destroy(model);
    ct_pool_destroy(pool);
    ct_text_list_deinit(&data);
    return code;
}
