/* The whole run: epochs over the log, evaluation, model folder. */
#include <string.h>

#include "base/clock.h"
#include "base/progress.h"
#include "trainer/trainer.h"

enum { EVAL_BATCH_ROWS = 4096 };

typedef struct train_run {
    ct_model *model;
    const ct_train_options *options;
    ct_train_result *result;
    ct_trainer *trainer;
    ct_progress progress;
    int64_t started_ns;
} train_run;

static void show_progress(train_run *run, uint32_t epoch) {
    if (!run->options->progress) return;
    const double seconds = (double)(ct_clock_ns() - run->started_ns) / 1e9;
    ct_progress_update(&run->progress, "epoch %u, %lld rows, %.0f rows/s", epoch + 1, (long long)ct_model_rows(run->model),
                       (double)ct_model_rows(run->model) / seconds);
}

/* CT_CANCELLED where the run was stopped. */
static ct_code train_epoch(train_run *run, uint32_t epoch, ct_status *status) {
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_reader_options options = run->options->train;
    options.batch_rows = ct_model_batch_rows(run->model);
    CT_TRY(ct_reader_open(ct_model_schema(run->model), &options, &reader, status));
    ct_code code = CT_OK;
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        code = ct_trainer_batch(run->trainer, batch, epoch, status);
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        show_progress(run, epoch);
    }
    if (epoch == 0) ct_reader_report(reader, &run->result->train_report);
    ct_reader_close(reader);
    return code == CT_END ? CT_OK : code;
}

static ct_code train_epochs(train_run *run, ct_status *status) {
    for (uint32_t epoch = 0; epoch < run->options->epochs; epoch++) {
        const ct_code code = train_epoch(run, epoch, status);
        if (code == CT_CANCELLED && ct_model_rows(run->model) > 0) {
            run->result->stopped = true;
            *status = (ct_status)CT_STATUS_INIT;
            return CT_OK;
        }
        if (code != CT_OK) return code;
    }
    return CT_OK;
}

static ct_code evaluate(train_run *run, ct_status *status) {
    const ct_train_options *options = run->options;
    ct_evaluate_options evaluation = {.reader = options->train, .pool = options->pool, .progress = options->progress};
    evaluation.reader.sources = options->eval_sources;
    evaluation.reader.source_count = options->eval_source_count;
    evaluation.reader.batch_rows = EVAL_BATCH_ROWS;
    evaluation.reader.max_rows = -1;
    const ct_code code = ct_evaluate(run->model, &evaluation, &run->result->evaluation, &run->result->eval_report, status);
    if (code == CT_CANCELLED) {
        run->result->stopped = true;
        *status = (ct_status)CT_STATUS_INIT;
        return CT_OK;
    }
    run->result->evaluated = code == CT_OK;
    return code;
}

static json_t *read_report_json(const ct_read_report *report) {
    json_t *kinds = json_object();
    for (size_t kind = 0; kind < CT_BAD_KINDS; kind++)
        if (report->bad_rows[kind] > 0)
            json_object_set_new(kinds, ct_bad_row_kind_name((ct_bad_row_kind)kind), json_integer((json_int_t)report->bad_rows[kind]));
    return json_pack("{s:I, s:I, s:o, s:I, s:I}", "rows", (json_int_t)report->rows, "bad_rows", (json_int_t)report->bad_total,
                     "bad_rows_by_kind", kinds, "blank_lines", (json_int_t)report->blank_lines, "unsorted_times",
                     (json_int_t)report->unsorted_times);
}

/* Top level: the evaluation's metrics, or the progressive ones where nothing was evaluated. */
static ct_code metrics_json(const train_run *run, json_t **out_json, ct_status *status) {
    const ct_train_result *result = run->result;
    const ct_schema *schema = ct_model_schema(run->model);
    const bool groups = ct_schema_find_kind(schema, CT_FIELD_GROUP) >= 0 || ct_schema_find_kind(schema, CT_FIELD_UNIT) >= 0;
    json_t *json = json_object(), *progressive = json_object();
    ct_code code = ct_metrics_to_json(&result->progressive, false, progressive, status);
    if (code == CT_OK)
        code =
            ct_metrics_to_json(result->evaluated ? &result->evaluation : &result->progressive, result->evaluated && groups, json, status);
    json_object_set_new(json, "of", json_string(result->evaluated ? "evaluation" : "progressive"));
    json_object_set_new(json, "stopped", json_boolean(result->stopped));
    json_object_set_new(json, "progressive", progressive);
    json_object_set_new(json, "train", read_report_json(&result->train_report));
    if (result->evaluated) json_object_set_new(json, "evaluation", read_report_json(&result->eval_report));
    json_object_set_new(json, "train_seconds", json_real(result->train_seconds));
    json_object_set_new(json, "rows_per_second", json_real(result->rows_per_second));
    json_object_set_new(json, "model", ct_model_describe(run->model));
    if (code == CT_OK)
        *out_json = json;
    else
        json_decref(json);
    return code;
}

static ct_code check_options(const ct_train_options *options, ct_status *status) {
    if (options->epochs == 0) return ct_fail(status, CT_INVALID, "0 epochs; at least 1 is needed");
    if (options->epochs == 1) return CT_OK;
    for (size_t i = 0; i < options->train.source_count; i++)
        if (strcmp(options->train.sources[i], "-") == 0)
            return ct_fail(status, CT_INVALID, "standard input can be read once, but %u epochs are asked for; write it to a file first",
                           options->epochs);
    return CT_OK;
}

ct_code ct_train(ct_model *model, const ct_train_options *options, ct_train_result *out_result, ct_status *status) {
    ct_train_result result = {0};
    train_run run = {.model = model, .options = options, .result = &result, .started_ns = ct_clock_ns()};
    json_t *metrics = NULL;
    CT_TRY(check_options(options, status));
    CT_TRY(ct_model_folder_replaceable(options->out_folder, status));
    ct_code code = ct_trainer_create(model, 0, &run.trainer, status);
    if (code != CT_OK) return code;
    if (options->progress) ct_progress_init(&run.progress);
    code = train_epochs(&run, status);
    if (options->progress) ct_progress_finish(&run.progress);
    if (code != CT_OK) goto done;
    if (ct_model_rows(model) == 0) {
        const ct_read_report *report = &result.train_report;
        code =
            ct_fail(status, CT_INVALID, "%s: no good row to train on (%lld bad ones)%s%s", options->train.sources[0],
                    (long long)report->bad_total, report->shown > 0 ? "; the first: " : "", report->shown > 0 ? report->first_bad[0] : "");
        goto done;
    }
    result.train_seconds = (double)(ct_clock_ns() - run.started_ns) / 1e9;
    result.rows_per_second = (double)ct_model_rows(model) / result.train_seconds;
    CT_TRY_GOTO(code, ct_trainer_progressive(run.trainer, &result.progressive, status), done);
    if (options->eval_source_count > 0 && !result.stopped) CT_TRY_GOTO(code, evaluate(&run, status), done);
    CT_TRY_GOTO(code, metrics_json(&run, &metrics, status), done);
    CT_TRY_GOTO(code, ct_model_save(model, options->out_folder, metrics, ct_trainer_curve(run.trainer), status), done);
    *out_result = result;
done:
    json_decref(metrics);
    ct_trainer_destroy(run.trainer);
    return code;
}
