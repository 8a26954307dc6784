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
#include "data/source.h"
#include "trainer/train_internal.h"

enum { EVAL_BATCH_ROWS = 4096 };

static void show_progress(train_run *run, uint32_t epoch) {
    if (!run->options->progress) return;
    const double seconds = (double)(ct_clock_ns() - run->started_ns) / 1e9;
    ct_progress_update(&run->progress, "epoch %u, %lld rows, %.0f rows/s", epoch + 1, (long long)ct_model_rows(run->model),
                       (double)(ct_model_rows(run->model) - run->rows_before) / seconds);
}

/* Says what a run that diverged leaves behind. */
static ct_code explain_divergence(train_run *run, ct_status *status) {
    char what[CT_STATUS_MESSAGE_BYTES];
    ct_status saved = CT_STATUS_INIT;
    memcpy(what, status->message, sizeof what);
    if (run_saved(run, &saved) != CT_OK) return ct_fail(status, CT_INVALID, "%s; and the last checkpoint: %s", what, saved.message);
    if (run->folder_rows < 0) return ct_fail(status, CT_INVALID, "%s; nothing was written", what);
    return ct_fail(status, CT_INVALID, "%s; %s keeps the model of the first %lld rows", what, run->options->out_folder,
                   (long long)run->folder_rows);
}

static ct_code step(train_run *run, const ct_batch *batch, uint32_t epoch, ct_status *status) {
    ct_code code = ct_trainer_batch(run->trainer, batch, epoch, status);
    if (code != CT_OK && !ct_model_diverged(run->model)) return code;
    const ct_batch_sums sums = ct_trainer_last_sums(run->trainer);
    code = code != CT_OK ? ct_watch_diverged(run->watch, batch, ct_trainer_last_logits(run->trainer), status)
                         : ct_watch_batch(run->watch, batch, &sums, status);
    return code == CT_OK ? CT_OK : explain_divergence(run, status);
}

/* One batch that is new to the model. */
static ct_code train_batch(train_run *run, const ct_batch *batch, uint32_t epoch, ct_status *status) {
    const ct_train_options *options = run->options;
    if (atomic_load(&run->saving.failed)) return run_saved(run, status);
    const bool tail = batch->tail && epoch + 1 == options->epochs;
    if (tail && !run->tail_saved && run->tail_folder != NULL) {
        if (options->checkpoint_rows == 0)
            CT_TRY(run_save_beside(run, NULL, status)); /* the run's last folder will be much like this one */
        CT_TRY(run_checkpoint(run, run->tail_folder, status));
        run->tail_saved = true;
    }
    CT_TRY(step(run, batch, epoch, status));
    run->fingerprint = run_fingerprint(run->fingerprint, batch);
    if (run->publisher != NULL) CT_TRY(publisher_batch(run->publisher, batch, status));
    if (options->checkpoint_rows == 0 || tail || ct_model_rows(run->model) < run->next_checkpoint) return CT_OK;
    if (ct_watch_astray(run->watch)) return CT_OK; /* the last good one stays */
    while (run->next_checkpoint <= ct_model_rows(run->model)) run->next_checkpoint += options->checkpoint_rows;
    return run_checkpoint(run, options->out_folder, status);
}

/* Is the batch learned already? A batch that is half learned was cut otherwise then: that is an error, and so are other rows. */
static ct_code skip_batch(train_run *run, const ct_batch *batch, uint32_t epoch, bool *out_skip, ct_status *status) {
    *out_skip = epoch == run->first_epoch && batch->first_row < run->first_rows;
    if (*out_skip && batch->first_row + (int64_t)batch->rows > run->first_rows)
        return ct_fail(status, CT_INVALID,
                       "the model has learned %lld rows, which is not where a batch ends; resume from its folder's resume/",
                       (long long)run->first_rows);
    if (!*out_skip) return CT_OK;
    run->fingerprint = run_fingerprint(run->fingerprint, batch);
    if (run->has_first_print && batch->first_row + (int64_t)batch->rows == run->first_rows && run->fingerprint != run->first_print)
        return ct_fail(
            status, CT_INVALID,
            "the first %lld rows of the logs are not those that the model learned (fingerprint %016llx, but it learned %016llx); "
            "give the same logs in the same order, then new ones",
            (long long)run->first_rows, (unsigned long long)run->fingerprint, (unsigned long long)run->first_print);
    return CT_OK;
}

static ct_code next_batch(train_run *run, ct_reader *reader, ct_batch **out_batch, ct_status *status) {
    const int64_t since = ct_clock_ns();
    if (run->publisher != NULL) publisher_waits(run->publisher, true);
    const ct_code code = ct_reader_next(reader, out_batch, status);
    if (run->publisher != NULL) publisher_waits(run->publisher, false);
    run->result->waiting_ns += ct_clock_ns() - since;
    return code;
}

/* The batch behind the one that is learned is read before, so that the model can sort its keys. CT_CANCELLED where the run was stopped. */
static ct_code train_epoch(train_run *run, uint32_t epoch, ct_status *status) {
    ct_reader *reader = NULL;
    ct_batch *batch = NULL, *next = NULL;
    ct_reader_options options = run->options->train;
    options.batch_rows = ct_model_batch_rows(run->model);
    options.shuffle_epoch = epoch;
    int64_t rows = 0;
    const int64_t began = ct_clock_ns();
    run->fingerprint = 0;
    /* The reader is ahead of the model, so it has histories of its own; a run that goes on builds them from the rows that it leaves out. */
    ct_histories *histories = NULL;
    if (ct_model_histories(run->model) != NULL) CT_TRY(ct_histories_create(ct_model_schema(run->model), &histories, status));
    options.histories = histories;
    options.live = true;
    ct_code code = ct_reader_open(ct_model_schema(run->model), &options, &reader, status);
    if (code != CT_OK) {
        ct_histories_destroy(histories);
        return code;
    }
    code = next_batch(run, reader, &batch, status);
    while (code == CT_OK) {
        ct_status next_status = CT_STATUS_INIT;
        const ct_code next_code = next_batch(run, reader, &next, &next_status);
        bool skip = false;
        code = skip_batch(run, batch, epoch, &skip, status);
        ct_model_look_ahead(run->model, next_code == CT_OK && !skip ? next : NULL, epoch);
        if (code == CT_OK && !skip) code = train_batch(run, batch, epoch, status);
        rows = batch->first_row + (int64_t)batch->rows;
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        show_progress(run, epoch);
        batch = next;
        code = next_code;
        if (code != CT_OK) *status = next_status;
    }
    ct_model_look_ahead(run->model, NULL, epoch);
    if (epoch == run->first_epoch) ct_reader_report(reader, &run->result->train_report);
    ct_reader_times reading;
    ct_reader_times_get(reader, &reading);
    run->result->reading.read_ns += reading.read_ns;
    run->result->reading.parse_ns += reading.parse_ns;
    run->result->reading.put_ns += reading.put_ns;
    ct_reader_close(reader);
    const int64_t late = histories != NULL ? ct_histories_late(histories) : 0;
    if (late > 0 && epoch == run->first_epoch)
        ct_watch_say(run->watch,
                     "%lld rows are earlier than what the history of their unit held already; what is later was left out of theirs, but "
                     "a log in order of time gives them more",
                     (long long)late);
    ct_histories_destroy(histories);
    run->result->train_seconds += (double)(ct_clock_ns() - began) / 1e9;
    if (code == CT_END && epoch == run->first_epoch && rows < run->first_rows)
        return ct_fail(
            status, CT_INVALID,
            "the logs hold %lld good rows, but the model has learned %lld of this pass; give the same logs as before, then new ones",
            (long long)rows, (long long)run->first_rows);
    if (code != CT_END) return code;
    if (epoch == 0) run->pass_rows = rows;
    if (rows != run->pass_rows)
        ct_watch_say(
            run->watch,
            "pass %u read %lld rows, the first one %lld: the log has changed between them, and the model is not that of a run over "
            "all of it",
            epoch + 1, (long long)rows, (long long)run->pass_rows);
    return CT_OK;
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
        const bool outgrew = code == CT_INVALID && ct_model_least_memory(run->model) > 0; /* ahead of any change by that batch */
        if ((code == CT_CANCELLED || outgrew) && ct_model_rows(run->model) > run->rows_before) {
            run->result->stopped = true;
            if (outgrew) run->result->outgrew = *status;
            *status = (ct_status)CT_STATUS_INIT;
            return CT_OK;
        }
        if (code != CT_OK) return code;
        if (patience > 0) CT_TRY(judge_epoch(run, &best_log_loss, &worse, status));
    }
    return CT_OK;
}

/* The folder that the run ends with (or the best one so far). */
static ct_code finish(train_run *run, ct_status *status) {
    ct_train_result *result = run->result;
    result->rows_per_second = (double)(ct_model_rows(run->model) - run->rows_before) / result->train_seconds;
    const int64_t since = ct_clock_ns();
    if (run->options->early_stop == 0) {
        CT_TRY(ct_trainer_progressive(run->trainer, &result->progressive, status));
        ct_watch_end(run->watch, &result->train_report, &result->progressive, result->evaluated ? &result->evaluation : NULL);
    }
    run->finishing = true;
    const ct_code code = run_checkpoint(run, run->options->out_folder, status);
    run->finishing = false;
    result->final_saving_ns = ct_clock_ns() - since;
    return code;
}

static ct_code check_options(const ct_train_options *options, ct_status *status) {
    if (options->epochs == 0) return ct_fail(status, CT_INVALID, "0 epochs; at least 1 is needed");
    if (options->checkpoint_rows < 0) return ct_fail(status, CT_INVALID, "checkpoints each %lld rows", (long long)options->checkpoint_rows);
    if (options->early_stop > 0 && options->publish_folder != NULL)
        return ct_fail(status, CT_INVALID, "an early-stopped run keeps its best epoch only; what it publishes could not be taken back");
    if (options->early_stop > 0 && (options->eval_source_count == 0 || options->resume))
        return ct_fail(status, CT_INVALID,
                       options->resume ? "an early-stopped run keeps its best epoch only; it can't be resumed"
                                       : "early stop needs logs to evaluate on");
    for (size_t i = 0; i < options->eval_source_count; i++) CT_TRY(ct_source_check(options->eval_sources[i], status));
    if (options->epochs == 1) return CT_OK;
    for (size_t i = 0; i < options->train.source_count; i++)
        if (strcmp(options->train.sources[i], "-") == 0)
            return ct_fail(status, CT_INVALID, "standard input can be read once, but %u epochs are asked for; write it to a file first",
                           options->epochs);
    return CT_OK;
}

static void warn(void *context, const char *text) {
    train_run *run = context;
    if (run->options->progress) ct_progress_finish(&run->progress); /* clears the line; the next update draws it again */
    if (run->options->warn != NULL) run->options->warn(run->options->warn_context, text);
}

/* Is there anything left that was asked for? */
static ct_code check_position(const train_run *run, ct_status *status) {
    if (run->first_epoch < run->options->epochs) return CT_OK;
    return ct_fail(status, CT_INVALID, "the model is in pass %u over the log already, but this run asks for %u (--epochs)",
                   run->first_epoch + 1, run->options->epochs);
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
    if (options->train.shuffle_rows > 0 && ct_model_histories(model) != NULL)
        return ct_fail(
            status, CT_INVALID,
            "a shuffle window of %zu rows, but features follow from histories, which are those of the log's order; leave one of the "
            "two out",
            options->train.shuffle_rows);
    CT_TRY(ct_model_folder_replaceable(options->out_folder, status));
    ct_code code = ct_trainer_create(model, 0, &run.trainer, status);
    if (code != CT_OK) return code;
    CT_TRY_GOTO(code, ct_watch_create(model, warn, &run, &run.watch, status), done);
    CT_TRY_GOTO(code, run_take_up(&run, status), done);
    CT_TRY_GOTO(code, check_position(&run, status), done);
    if (options->publish_folder != NULL)
        CT_TRY_GOTO(code, publisher_create(model, run.trainer, options, run.watch, &run.publisher, status), done);
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
        ct_watch_end(run.watch, &run.best.train_report, &run.best.progressive, &run.best.evaluation);
        *out_result = run.best;
        goto done;
    }
    if (options->eval_source_count > 0 && !result.stopped && evaluate(&run, status) != CT_OK) { /* the training is not lost with it */
        result.unevaluated = *status;
        *status = (ct_status)CT_STATUS_INIT;
    }
    CT_TRY_GOTO(code, finish(&run, status), done);
    if (run.publisher != NULL) {
        result.publishing_ns = publisher_ns(run.publisher);
        CT_TRY_GOTO(code, publisher_finish(run.publisher, status), done);
    }
    *out_result = result;
done:;
    ct_status ignored = CT_STATUS_INIT;
    if (run_saved(&run, &ignored) != CT_OK && code == CT_OK) code = (*status = ignored).code;
    if (run.tail_saved) {
        if (run_remove_tail(&run, &ignored) != CT_OK && code == CT_OK) *status = ignored;
    }
    free(run.out);
    free(run.tail_folder);
    free(run.kept_folder);
    publisher_destroy(run.publisher);
    ct_watch_destroy(run.watch);
    ct_trainer_destroy(run.trainer);
    return code;
}
