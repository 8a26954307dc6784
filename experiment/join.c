/* Three passes: feedback into memory; exposures, to find where the rows to be lie and when they were shown; and, in that order, exposures
 * again for what they hold. */
#include "experiment/join.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/progress.h"
#include "data/block_file.h"
#include "data/history.h"
#include "experiment/live_internal.h"
#include "experiment/online_internal.h"
#include "experiment/report_internal.h"

enum { STOP_ROWS = 4096 };

typedef struct join_row {
    int64_t time_ms;
    uint64_t request, offset;
    uint32_t file, number; /* of the line */
    uint32_t candidate;
    bool positive;
} join_row;

typedef struct join_run {
    const ct_join_options *options;
    live_feedback *feedback;
    live_exposures *exposures;
    live_rows *rows;
    int64_t *served; /* (field_count): rows whose request says how the derived field was served */
    bool *keep;      /* (field_count): derived fields that the rows have */
    bool *arms_seen; /* (arm_count) */
    join_row *found; /* (count) */
    size_t count, capacity;
    int64_t positives;
    double least_rate, most_rate;
    ct_block_writer *blocks; /* one of these two */
    ct_file_writer *text;
    ct_batch *batch;
    json_t *warnings;
} join_run;

static int by_time(const void *left, const void *right) {
    const join_row *a = left, *b = right;
    if (a->time_ms != b->time_ms) return a->time_ms < b->time_ms ? -1 : 1;
    if (a->request != b->request) return a->request < b->request ? -1 : 1;
    return (a->candidate > b->candidate) - (a->candidate < b->candidate);
}

static ct_code add_found(join_run *run, const live_exposure *e, const live_shown *shown, size_t count, ct_status *status) {
    if (count > 0 && e->line.number > UINT32_MAX) return live_fail(&e->line, status, "a file of too many lines");
    if (!online_grow((void **)&run->found, &run->capacity, run->count + count, sizeof *run->found))
        return ct_fail_memory(status, run->count * sizeof *run->found, "the rows");
    for (size_t i = 0; i < count; i++)
        run->found[run->count++] = (join_row){shown[i].time_ms,         e->request,         e->line.offset,   e->line.file,
                                              (uint32_t)e->line.number, shown[i].candidate, shown[i].positive};
    if (count > 0 && e->sample_rate < run->least_rate) run->least_rate = e->sample_rate;
    if (count > 0 && e->sample_rate > run->most_rate) run->most_rate = e->sample_rate;
    return CT_OK;
}

static bool is_wanted(join_run *run, const live_exposure *e) {
    for (size_t a = 0; a < run->options->arm_count; a++) {
        if (strcmp(run->options->arms[a], e->arm) != 0) continue;
        run->arms_seen[a] = true;
        return true;
    }
    return run->options->arm_count == 0;
}

/* A text has no place for what is derived. */
static bool is_text(const join_run *run) {
    const char *dot = strrchr(run->options->out, '.');
    return dot == NULL || strcmp(dot, ".ctb") != 0;
}

static ct_code count_served(join_run *run, const live_exposure *exposure, size_t count, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    if (count == 0 || is_text(run) || !ct_schema_has_histories(schema)) return CT_OK;
    CT_TRY(live_rows_take(run->rows, exposure, status));
    for (size_t f = 0; f < schema->field_count; f++) {
        bool served = false;
        if (!schema->fields[f].derived) continue;
        CT_TRY(live_rows_is_served(run->rows, f, &served, status));
        run->served[f] += served ? (int64_t)count : 0;
    }
    return CT_OK;
}

/* What follows from one history is kept where all of it was served with every row. */
static void choose_derived(join_run *run) {
    const ct_schema *schema = run->options->schema;
    for (size_t f = 0; f < schema->field_count; f++)
        run->keep[f] = schema->fields[f].kind == CT_FIELD_HISTORY && run->count > 0 && run->served[f] == (int64_t)run->count;
    for (size_t f = 0; f < schema->field_count; f++)
        if (schema->fields[f].derived && run->served[f] < (int64_t)run->count)
            run->keep[schema->fields[f].kind == CT_FIELD_HISTORY ? f : schema->fields[f].of] = false;
    for (size_t f = 0; f < schema->field_count; f++)
        if (schema->fields[f].derived && schema->fields[f].kind != CT_FIELD_HISTORY) run->keep[f] = run->keep[schema->fields[f].of];
    live_rows_keep(run->rows, run->keep);
}

static ct_code find_rows(join_run *run, ct_status *status) {
    const live_exposure *exposure = NULL;
    ct_code code;
    while ((code = live_exposures_next(run->exposures, &exposure, status)) == CT_OK) {
        const live_shown *shown = NULL;
        size_t count = 0;
        if (exposure->failed) continue;
        if (!is_wanted(run, exposure)) {
            live_feedback_pass(run->feedback, exposure);
            continue;
        }
        CT_TRY(live_feedback_of(run->feedback, exposure, &shown, &count, status));
        CT_TRY(add_found(run, exposure, shown, count, status));
        CT_TRY(count_served(run, exposure, count, status));
    }
    if (code != CT_END) return code;
    for (size_t a = 0; a < run->options->arm_count; a++)
        if (!run->arms_seen[a])
            return ct_fail(status, CT_INVALID, "%s: no request of arm '%s'", run->options->exposures, run->options->arms[a]);
    online_sort(run->found, run->count, sizeof *run->found, by_time);
    choose_derived(run);
    return CT_OK;
}

/* --- writing --- */

static ct_code open_out(join_run *run, ct_status *status) {
    const char *out = run->options->out, *header = NULL;
    size_t bytes = 0;
    if (!is_text(run)) {
        CT_TRY(ct_batch_create(run->options->schema, CT_BLOCK_FILE_ROWS, &run->batch, status));
        return ct_block_writer_open_served(out, run->options->schema, run->keep, &run->blocks, status);
    }
    CT_TRY(ct_file_writer_open(out, &run->text, status));
    CT_TRY(live_rows_header(run->rows, &header, &bytes, status));
    return ct_file_writer_write(run->text, header, bytes, status);
}

static ct_code flush(join_run *run, ct_status *status) {
    CT_TRY(ct_block_writer_write(run->blocks, run->batch, status));
    run->batch->rows = 0;
    return CT_OK;
}

static ct_code write_row(join_run *run, const join_row *row, ct_status *status) {
    const live_shown shown = {.candidate = row->candidate, .time_ms = row->time_ms, .positive = row->positive};
    const char *text = NULL;
    size_t bytes = 0;
    run->positives += row->positive;
    if (run->text != NULL) {
        CT_TRY(live_rows_text(run->rows, &shown, &text, &bytes, status));
        return ct_file_writer_write(run->text, text, bytes, status);
    }
    CT_TRY(live_rows_add(run->rows, &shown, run->batch, status));
    return run->batch->rows == CT_BLOCK_FILE_ROWS ? flush(run, status) : CT_OK;
}

static ct_code write_rows(join_run *run, ct_progress *progress, ct_status *status) {
    const join_row *before = NULL;
    for (size_t i = 0; i < run->count; i++) {
        const join_row *row = &run->found[i];
        if (i % STOP_ROWS == 0 && run->options->stop != NULL && atomic_load(run->options->stop))
            return ct_fail(status, CT_CANCELLED, "the join was stopped");
        if (i % STOP_ROWS == 0 && run->options->progress) ct_progress_update(progress, "rows: %zu of %zu", i, run->count);
        if (before == NULL || before->file != row->file || before->offset != row->offset) {
            const live_exposure *exposure = NULL;
            CT_TRY(live_exposures_at(run->exposures, row->file, row->offset, row->number, &exposure, status));
            CT_TRY(live_rows_take(run->rows, exposure, status));
        }
        before = row;
        CT_TRY(write_row(run, row, status));
    }
    return run->blocks != NULL ? flush(run, status) : CT_OK;
}

static ct_code commit(join_run *run, ct_status *status) {
    ct_code code;
    if (run->text != NULL) {
        code = ct_file_writer_commit(run->text, status);
        run->text = NULL;
    } else {
        code = ct_block_writer_commit(run->blocks, status);
        run->blocks = NULL;
    }
    return code;
}

/* --- what is told --- */

static ct_code check_fields(join_run *run, json_t *missing, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    for (size_t f = 0; f < schema->field_count; f++) {
        const int64_t rows = live_rows_missing(run->rows, f);
        if (schema->fields[f].derived && !run->keep[f] && run->served[f] > 0)
            CT_TRY(
                report_warn(run->warnings, status,
                            "'%s' is left out: it, or what follows from the same history, was not served with every row (%lld of %zu have "
                            "it), so whoever reads the rows makes it of the rows before; `--arm NAME` takes the rows of an arm alone",
                            schema->fields[f].name, (long long)run->served[f], run->count));
        if (rows == 0 || schema->fields[f].kind == CT_FIELD_VECTOR) continue;
        if (rows == (int64_t)run->count)
            return ct_fail(status, CT_INVALID, "%s: no request brings '%s' of schema '%s'; take a schema without it",
                           run->options->exposures, schema->fields[f].name, schema->name);
        if (json_object_set_new(missing, schema->fields[f].name, json_integer(rows)) != 0) return ct_fail_memory(status, 64, "the summary");
        CT_TRY(report_warn(run->warnings, status, "%lld of %zu rows are of requests that did not bring '%s': it is missing there",
                           (long long)rows, run->count, schema->fields[f].name));
    }
    return CT_OK;
}

static ct_code warn(join_run *run, ct_status *status) {
    const live_feedback_counts f = live_feedback_count(run->feedback);
    if (run->count > 0 && run->least_rate < run->most_rate && ct_schema_find_kind(run->options->schema, CT_FIELD_WEIGHT) < 0)
        CT_TRY(
            report_warn(run->warnings, status,
                        "requests were logged at rates from %g to %g: give the schema a weight field, so that each row counts for as many "
                        "as it stands for",
                        run->least_rate, run->most_rate));
    if (f.conflicts > 0)
        CT_TRY(report_warn(run->warnings, status,
                           "%lld events carry the id of another event and were left out: an event_id must belong to one event",
                           (long long)f.conflicts));
    return CT_OK;
}

static ct_code summarize(join_run *run, json_t **out_summary, ct_status *status) {
    json_t *missing = json_object();
    ct_code code = check_fields(run, missing, status);
    if (code == CT_OK) code = warn(run, status);
    if (code != CT_OK) {
        json_decref(missing);
        return code;
    }
    json_t *served = json_array();
    for (size_t f = 0; f < run->options->schema->field_count; f++)
        if (run->keep[f]) json_array_append_new(served, json_string(run->options->schema->fields[f].name));
    *out_summary =
        json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:O}", "rows", (json_int_t)run->count, "positives", (json_int_t)run->positives,
                  "until_ms", (json_int_t)live_feedback_until_ms(run->feedback), "exposures", live_exposures_json(run->exposures),
                  "feedback", live_feedback_json(run->feedback), "missing", missing, "served", served, "warnings", run->warnings);
    return *out_summary != NULL ? CT_OK : ct_fail_memory(status, 4096, "the summary");
}

ct_code ct_join(const ct_join_options *options, json_t **out_summary, ct_status *status) {
    join_run run = {.options = options, .least_rate = 1.0, .warnings = json_array()};
    const live_feedback_options feedback = {.folder = options->feedback,
                                            .positive = options->positive,
                                            .wait_ms = options->wait_ms,
                                            .until_ms = options->until_ms,
                                            .reading = {options->stop, options->progress}};
    ct_progress progress = {0};
    json_t *summary = NULL;
    ct_code code;
    run.served = calloc(options->schema->field_count + 1, sizeof *run.served);
    run.keep = calloc(options->schema->field_count + 1, sizeof *run.keep);
    run.arms_seen = calloc(options->arm_count + 1, sizeof *run.arms_seen);
    if (run.served == NULL || run.keep == NULL || run.arms_seen == NULL) {
        code = ct_fail_memory(status, options->schema->field_count * sizeof *run.served, "a join");
        goto done;
    }
    CT_TRY_GOTO(code, live_rows_create(options->schema, &run.rows, status), done);
    CT_TRY_GOTO(code, live_feedback_read(&feedback, &run.feedback, status), done);
    CT_TRY_GOTO(code, live_exposures_open(options->exposures, (live_reading){options->stop, options->progress}, &run.exposures, status),
                done);
    CT_TRY_GOTO(code, find_rows(&run, status), done);
    CT_TRY_GOTO(code, open_out(&run, status), done);
    if (options->progress) ct_progress_init(&progress);
    code = write_rows(&run, &progress, status);
    if (options->progress) ct_progress_finish(&progress);
    if (code != CT_OK) goto done;
    CT_TRY_GOTO(code, summarize(&run, &summary, status), done);
    CT_TRY_GOTO(code, commit(&run, status), done);
    *out_summary = summary;
    summary = NULL;
done:
    ct_file_writer_abort(run.text);
    ct_block_writer_abort(run.blocks);
    ct_batch_destroy(run.batch);
    live_rows_destroy(run.rows);
    live_exposures_close(run.exposures);
    live_feedback_destroy(run.feedback);
    free(run.found);
    free(run.served);
    free(run.keep);
    free(run.arms_seen);
    json_decref(run.warnings);
    json_decref(summary);
    return code;
}
