/* The whole run: epochs over the log, evaluation, model folder with its report.
 *
 * Resuming. A checkpoint is a whole model folder at a batch's end, in the place of the last one. A run that goes on from it reads the log
 * from the start, leaves out the batches that were learned, and goes on: batches are cut by position alone, so the bits are those of a run
 * that was never stopped. Before the log's tail is learned, its last, shorter batch or its last, shorter shuffle window, the state is kept
 * as resume/ in the folder: the log may have grown, and then the tail is another one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/progress.h"
#include "trainer/report.h"
#include "trainer/trainer.h"

enum { EVAL_BATCH_ROWS = 4096 };

typedef struct train_run {
    ct_model *model;
    const ct_train_options *options;
    ct_train_result *result;
    ct_trainer *trainer;
    ct_progress progress;
    int64_t started_ns;
    uint32_t first_epoch;    /* of this run: where the model stands */
    int64_t first_rows;      /* rows of that epoch that are learned already */
    int64_t rows_before;     /* rows that the model knew before this run */
    int64_t next_checkpoint; /* rows */
    char *tail_folder;       /* of the state before the last batch; NULL = none */
    bool tail_saved;
    ct_train_result best; /* early stop: of the epoch whose folder was written last */
} train_run;

static ct_code checkpoint(train_run *run, const char *folder, ct_status *status);

static void show_progress(train_run *run, uint32_t epoch) {
    if (!run->options->progress) return;
    const double seconds = (double)(ct_clock_ns() - run->started_ns) / 1e9;
    ct_progress_update(&run->progress, "epoch %u, %lld rows, %.0f rows/s", epoch + 1, (long long)ct_model_rows(run->model),
                       (double)(ct_model_rows(run->model) - run->rows_before) / seconds);
}

/* One batch that is new to the model. */
static ct_code train_batch(train_run *run, const ct_batch *batch, uint32_t epoch, ct_status *status) {
    const ct_train_options *options = run->options;
    const bool tail = batch->tail && epoch + 1 == options->epochs;
    if (tail && !run->tail_saved && run->tail_folder != NULL) {
        CT_TRY(checkpoint(run, run->tail_folder, status));
        run->tail_saved = true;
    }
    CT_TRY(ct_trainer_batch(run->trainer, batch, epoch, status));
    if (options->checkpoint_rows == 0 || tail || ct_model_rows(run->model) < run->next_checkpoint) return CT_OK;
    while (run->next_checkpoint <= ct_model_rows(run->model)) run->next_checkpoint += options->checkpoint_rows;
    return checkpoint(run, options->out_folder, status);
}

/* Is the batch learned already? A batch that is half learned was cut otherwise then: that is an error. */
static ct_code skip_batch(const train_run *run, const ct_batch *batch, uint32_t epoch, bool *out_skip, ct_status *status) {
    *out_skip = epoch == run->first_epoch && batch->first_row < run->first_rows;
    if (*out_skip && batch->first_row + (int64_t)batch->rows > run->first_rows)
        return ct_fail(status, CT_INVALID,
                       "the model has learned %lld rows, which is not where a batch ends; resume from its folder's resume/",
                       (long long)run->first_rows);
    return CT_OK;
}

/* CT_CANCELLED where the run was stopped. */
static ct_code train_epoch(train_run *run, uint32_t epoch, ct_status *status) {
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_reader_options options = run->options->train;
    options.batch_rows = ct_model_batch_rows(run->model);
    options.shuffle_epoch = epoch;
    int64_t rows = 0;
    const int64_t began = ct_clock_ns();
    CT_TRY(ct_reader_open(ct_model_schema(run->model), &options, &reader, status));
    ct_code code = CT_OK;
    for (;;) {
        const int64_t since = ct_clock_ns();
        code = ct_reader_next(reader, &batch, status);
        run->result->waiting_ns += ct_clock_ns() - since;
        if (code != CT_OK) break;
        bool skip = false;
        code = skip_batch(run, batch, epoch, &skip, status);
        if (code == CT_OK && !skip) code = train_batch(run, batch, epoch, status);
        rows = batch->first_row + (int64_t)batch->rows;
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        show_progress(run, epoch);
    }
    if (epoch == run->first_epoch) ct_reader_report(reader, &run->result->train_report);
    ct_reader_close(reader);
    run->result->train_seconds += (double)(ct_clock_ns() - began) / 1e9;
    if (code == CT_END && epoch == run->first_epoch && rows < run->first_rows)
        return ct_fail(
            status, CT_INVALID,
            "the logs hold %lld good rows, but the model has learned %lld of this pass; give the same logs as before, then new ones",
            (long long)rows, (long long)run->first_rows);
    return code == CT_END ? CT_OK : code;
}

static ct_code evaluate(train_run *run, ct_status *status) {
    const ct_train_options *options = run->options;
    ct_evaluate_options evaluation = {.reader = options->train, .pool = options->pool, .progress = options->progress};
    evaluation.reader.sources = options->eval_sources;
    evaluation.reader.source_count = options->eval_source_count;
    evaluation.reader.batch_rows = EVAL_BATCH_ROWS;
    evaluation.reader.max_rows = -1;
    evaluation.reader.shuffle_rows = 0;
    const ct_code code = ct_evaluate(run->model, &evaluation, &run->result->evaluation, &run->result->eval_report, status);
    if (code == CT_CANCELLED) {
        run->result->stopped = true;
        *status = (ct_status)CT_STATUS_INIT;
        return CT_OK;
    }
    run->result->evaluated = code == CT_OK;
    return code;
}

static ct_code finish(train_run *run, ct_status *status);

/* After an epoch: is it the best so far? Its folder is written if so. */
static ct_code judge_epoch(train_run *run, double *best_log_loss, uint32_t *worse, ct_status *status) {
    CT_TRY(evaluate(run, status));
    if (run->result->stopped) return CT_OK;
    if (run->result->evaluation.log_loss < *best_log_loss) {
        *best_log_loss = run->result->evaluation.log_loss;
        *worse = 0;
        CT_TRY(finish(run, status));
        run->best = *run->result;
        return CT_OK;
    }
    ++*worse;
    return CT_OK;
}

static ct_code train_epochs(train_run *run, ct_status *status) {
    double best_log_loss = (double)INFINITY;
    uint32_t worse = 0;
    const uint32_t patience = run->options->early_stop;
    for (uint32_t epoch = run->first_epoch; epoch < run->options->epochs && (patience == 0 || worse < patience); epoch++) {
        const ct_code code = train_epoch(run, epoch, status);
        if (code == CT_CANCELLED && ct_model_rows(run->model) > 0) {
            run->result->stopped = true;
            *status = (ct_status)CT_STATUS_INIT;
            return CT_OK;
        }
        if (code != CT_OK) return code;
        if (patience > 0) CT_TRY(judge_epoch(run, &best_log_loss, &worse, status));
    }
    return CT_OK;
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
    if (code == CT_OK && result->evaluated) code = ct_calibration_to_json(&result->evaluation, json, status);
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

static json_t *text_array(const char *const *texts, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *text = json_string(texts[i]); /* NULL where it is no UTF-8 */
        json_array_append_new(array, text != NULL ? text : json_string("(a name that is no UTF-8)"));
    }
    return array;
}

static json_t *settings_json(const train_run *run) {
    const ct_train_options *options = run->options;
    const ct_model *model = run->model;
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:s, s:s}", "training_data",
                     text_array(options->train.sources, options->train.source_count), "evaluation_data",
                     text_array(options->eval_sources, options->eval_source_count), "epochs", (json_int_t)options->epochs, "batch_rows",
                     (json_int_t)ct_model_batch_rows(model), "seed", (json_int_t)ct_model_seed(model), "threads",
                     (json_int_t)ct_pool_threads(options->pool), "precision",
                     ct_model_precision(model) == CT_PRECISION_BF16 ? "bf16" : "fp32", "instruction_set", ct_model_instruction_set(model));
}

/* The folder, with the curve and a report of the run in it. */
static ct_code save(train_run *run, const char *folder, const json_t *metrics, ct_status *status) {
    const char *curve = ct_trainer_curve(run->trainer);
    json_t *settings = settings_json(run);
    char *spec = ct_model_spec_text(ct_model_spec_of(run->model)), *html = NULL, *title = NULL;
    ct_code code = CT_OK;
    if (settings == NULL || spec == NULL || asprintf(&title, "Training of %s", run->options->out_folder) < 0) {
        title = NULL;
        code = ct_fail_memory(status, 4096, "the report");
        goto done;
    }
    const ct_report_input input = {.title = title, .metrics = metrics, .curve = curve, .settings = settings, .model_file = spec};
    CT_TRY_GOTO(code, ct_report_html(&input, &html, status), done);
    const ct_model_text texts[] = {{"curve.jsonl", curve}, {"train.html", html}};
    const bool last = run->tail_saved && folder == run->options->out_folder;
    code = ct_model_save_texts(run->model, folder, metrics, texts, sizeof texts / sizeof *texts, last ? run->tail_folder : NULL, status);
done:
    json_decref(settings);
    free(spec);
    free(html);
    free(title);
    return code;
}

static ct_code checkpoint(train_run *run, const char *folder, ct_status *status) {
    json_t *metrics = NULL;
    const int64_t since = ct_clock_ns();
    CT_TRY(ct_trainer_progressive(run->trainer, &run->result->progressive, status));
    CT_TRY(metrics_json(run, &metrics, status));
    const ct_code code = save(run, folder, metrics, status);
    json_decref(metrics);
    run->result->saving_ns += ct_clock_ns() - since;
    return code;
}

/* The folder that the run ends with (or the best one so far). */
static ct_code finish(train_run *run, ct_status *status) {
    ct_train_result *result = run->result;
    result->rows_per_second = (double)(ct_model_rows(run->model) - run->rows_before) / result->train_seconds;
    const int64_t since = ct_clock_ns();
    const ct_code code = checkpoint(run, run->options->out_folder, status);
    result->final_saving_ns = ct_clock_ns() - since;
    return code;
}

static ct_code check_options(const ct_train_options *options, ct_status *status) {
    if (options->epochs == 0) return ct_fail(status, CT_INVALID, "0 epochs; at least 1 is needed");
    if (options->checkpoint_rows < 0) return ct_fail(status, CT_INVALID, "checkpoints each %lld rows", (long long)options->checkpoint_rows);
    if (options->early_stop > 0 && (options->eval_source_count == 0 || options->resume))
        return ct_fail(status, CT_INVALID,
                       options->resume ? "an early-stopped run keeps its best epoch only; it can't be resumed"
                                       : "early stop needs logs to evaluate on");
    if (options->epochs == 1) return CT_OK;
    for (size_t i = 0; i < options->train.source_count; i++)
        if (strcmp(options->train.sources[i], "-") == 0)
            return ct_fail(status, CT_INVALID, "standard input can be read once, but %u epochs are asked for; write it to a file first",
                           options->epochs);
    return CT_OK;
}

/* Where a run goes on: position, and the curve so far. */
static ct_code take_up(train_run *run, ct_status *status) {
    ct_model_position(run->model, &run->first_epoch, &run->first_rows);
    run->rows_before = ct_model_rows(run->model);
    if (run->options->checkpoint_rows > 0)
        run->next_checkpoint = (run->rows_before / run->options->checkpoint_rows + 1) * run->options->checkpoint_rows;
    if (run->options->early_stop == 0 && asprintf(&run->tail_folder, "%s.tail", run->options->out_folder) < 0) {
        run->tail_folder = NULL;
        return ct_fail_memory(status, strlen(run->options->out_folder), "a path");
    }
    if (!run->options->resume) return CT_OK;
    char *folder = ct_model_resume_folder(run->options->out_folder);
    char *path = folder == NULL ? NULL : ct_path_join(folder, "curve.jsonl"), *curve = NULL;
    free(folder);
    size_t bytes = 0;
    if (path == NULL) return ct_fail_memory(status, strlen(run->options->out_folder), "a path");
    ct_code code = ct_file_read(path, (size_t)1 << 30, &curve, &bytes, status);
    if (code == CT_OK) code = ct_trainer_take_up_curve(run->trainer, curve, status);
    free(path);
    free(curve);
    return code;
}

ct_code ct_train(ct_model *model, const ct_train_options *options, ct_train_result *out_result, ct_status *status) {
    ct_train_result result = {0};
    train_run run = {.model = model, .options = options, .result = &result, .started_ns = ct_clock_ns()};
    CT_TRY(check_options(options, status));
    if (options->train.shuffle_rows > 0 && ct_model_spec_of(model)->target_stats)
        return ct_fail(status, CT_INVALID,
                       "a shuffle window of %zu rows, but embedding.target_stats is true: target statistics are those of the log's order; "
                       "leave one of the two out",
                       options->train.shuffle_rows);
    CT_TRY(ct_model_folder_replaceable(options->out_folder, status));
    ct_code code = ct_trainer_create(model, 0, &run.trainer, status);
    if (code != CT_OK) return code;
    CT_TRY_GOTO(code, take_up(&run, status), done);
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
    if (options->early_stop > 0 && !result.stopped) {
        *out_result = run.best;
        goto done;
    }
    if (options->eval_source_count > 0 && !result.stopped) CT_TRY_GOTO(code, evaluate(&run, status), done);
    CT_TRY_GOTO(code, finish(&run, status), done);
    *out_result = result;
done:
    if (run.tail_saved) {
        ct_status ignored = CT_STATUS_INIT;
        if (ct_folder_remove(run.tail_folder, &ignored) != CT_OK && code == CT_OK) *status = ignored;
    }
    free(run.tail_folder);
    ct_trainer_destroy(run.trainer);
    return code;
}
