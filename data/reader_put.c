/* Chunks into batches, in the order of the log; bad rows are counted on the way. Only one thread at a time is here. */
#include <stdio.h>
#include <string.h>

#include "data/reader_internal.h"

enum { SHARE_FROM_ROW = 1000 };

/* --- putting: batches --- */

/* A batch to fill, unless there is one; false where none is free, and then a release lets putting go on. */
static bool take_slot(ct_reader *reader) {
    if (reader->filling) return true;
    (void)pthread_mutex_lock(&reader->lock);
    if (reader->free_count) reader->filling = &reader->slots[reader->free_slots[--reader->free_count]];
    reader->no_slot = !reader->filling;
    (void)pthread_mutex_unlock(&reader->lock);
    if (!reader->filling) return false;
    ct_batch *batch = reader->filling->batch;
    batch->rows = 0;
    for (size_t i = 0; i < batch->column_count; i++) {
        batch->columns[i].present = reader->present[i];
        batch->columns[i].shared = false;
    }
    reader->rows = 0;
    return true;
}

static void publish(ct_reader *reader) {
    ct_reader_slot *full = reader->filling;
    if (!full || !reader->rows) return;
    full->batch->rows = reader->rows;
    full->batch->first_row = reader->report.rows - (int64_t)reader->rows;
    full->batch->tail = reader->rows < reader->options.batch_rows;
    full->report = reader->report;
    reader->filling = NULL;
    reader->rows = 0;
    (void)pthread_mutex_lock(&reader->lock);
    reader->ready[(reader->ready_at + reader->ready_count) % reader->lookahead] = (size_t)(full - reader->slots);
    reader->ready_count++;
    (void)pthread_cond_signal(&reader->filled);
    (void)pthread_mutex_unlock(&reader->lock);
}

/* --- putting: counting --- */

static ct_code check_share(const ct_reader *reader, int64_t rows, ct_status *status) {
    const ct_read_report *report = &reader->report;
    if ((double)report->bad_total <= reader->options.max_bad_share * (double)rows) return CT_OK;
    return ct_fail(status, CT_INVALID, "%lld bad rows of %lld, more than the share of %g that is allowed; the first: %s",
                   (long long)report->bad_total, (long long)rows, reader->options.max_bad_share, report->first_bad[0]);
}

void ct_read_report_add_bad(ct_read_report *report, ct_bad_row_kind kind, const char *source, int64_t line, const char *reason) {
    report->bad_rows[kind]++;
    report->bad_total++;
    if (report->shown == CT_BAD_ROWS_SHOWN) return;
    const size_t bytes = strlen(source), kept = CT_BAD_ROW_TEXT_BYTES / 2;
    const bool cut = bytes > kept; /* of a long path its end tells more */
    (void)snprintf(report->first_bad[report->shown++], CT_BAD_ROW_TEXT_BYTES, "%s%s:%lld: %.96s", cut ? "..." : "",
                   cut ? source + bytes - kept : source, (long long)line, reason);
}

static ct_code count_bad(ct_reader *reader, const char *name, int64_t line, ct_bad_row_kind kind, const char *reason, ct_status *status) {
    ct_read_report *report = &reader->report;
    ct_read_report_add_bad(report, kind, name, line, reason);
    const int64_t rows = report->rows + report->bad_total;
    if (reader->options.max_bad_rows >= 0 && report->bad_total > reader->options.max_bad_rows) {
        return ct_fail(status, CT_INVALID, "%lld bad rows, more than the %lld that are allowed; the first: %s",
                       (long long)report->bad_total, (long long)reader->options.max_bad_rows, report->first_bad[0]);
    }
    return rows >= SHARE_FROM_ROW ? check_share(reader, rows, status) : CT_OK;
}

/* `count` good rows were written behind the rows of the batch being filled. CT_END when no more are wanted. */
static ct_code count_good(ct_reader *reader, size_t count, ct_status *status) {
    ct_read_report *report = &reader->report;
    const int64_t before = report->rows + report->bad_total;
    const size_t time = (size_t)reader->time_field;
    if (reader->time_field >= 0 && reader->present[time]) {
        const int64_t *times = ct_column_i64(&reader->filling->batch->columns[time]) + reader->rows;
        for (size_t r = 0; r < count; r++) {
            report->unsorted_times += times[r] < reader->last_time;
            reader->last_time = times[r];
        }
    }
    report->rows += (int64_t)count;
    reader->rows += count;
    if (before < SHARE_FROM_ROW && before + (int64_t)count >= SHARE_FROM_ROW) CT_TRY(check_share(reader, SHARE_FROM_ROW, status));
    if (reader->rows == reader->options.batch_rows) publish(reader);
    return ct_reader_has_all_rows(reader) ? CT_END : CT_OK;
}

/* --- putting: chunks --- */

/* The chunk's good rows up to `until`; `*out_wait` where no batch is free. */
static ct_code put_rows(ct_reader *reader, const ct_chunk *c, size_t until, bool *out_wait, ct_status *status) {
    while (reader->put_row < until) {
        if (ct_reader_stopped(reader)) return ct_reader_cancelled(status);
        if (!take_slot(reader)) {
            *out_wait = true;
            return CT_OK;
        }
        size_t count = until - reader->put_row;
        if (count > reader->options.batch_rows - reader->rows) count = reader->options.batch_rows - reader->rows;
        if (reader->options.max_rows >= 0 && (int64_t)count > reader->options.max_rows - reader->report.rows) {
            count = (size_t)(reader->options.max_rows - reader->report.rows);
        }
        ct_batch *batch = reader->filling->batch;
        batch->rows = reader->rows;
        if (batch->rows == 0) batch->oldest_ms = c->read_ms;
        batch->newest_ms = c->read_ms;
        CT_TRY(ct_batch_append(batch, c->rows.batch, reader->put_row, count, status));
        reader->put_row += count;
        CT_TRY(count_good(reader, count, status));
    }
    return CT_OK;
}

/* Why the chunk's event is a bad row, where that will be shown: all bad rows of the chunk before it were shown too, so they are few. */
static const char *reason_of(const ct_reader *reader, const ct_rows *rows, size_t event) {
    size_t bad = 0;
    if (reader->report.shown == CT_BAD_ROWS_SHOWN) return "";
    for (size_t e = 0; e < event; e++) bad += rows->events[e].kind != CT_BAD_KINDS;
    return rows->reason[bad];
}

static ct_code put_event(ct_reader *reader, const ct_chunk *c, size_t e, ct_status *status) {
    const ct_row_event *event = &c->rows.events[e];
    if (event->kind == CT_BAD_KINDS) {
        reader->report.blank_lines += event->count;
        return CT_OK;
    }
    reader->put_row += event->drops;
    return count_bad(reader, reader->names[c->source], reader->put_line + event->line + 1, (ct_bad_row_kind)event->kind,
                     reason_of(reader, &c->rows, e), status);
}

/* Puts a chunk, or what is left of it; `*out_wait` where no batch is free. CT_END when no more rows are wanted or there. */
static ct_code put_chunk(ct_reader *reader, const ct_chunk *c, bool *out_wait, ct_status *status) {
    const ct_rows *rows = &c->rows;
    if (c->code != CT_OK) {
        *status = c->status;
        return c->code;
    }
    if (c->source != reader->put_source) reader->put_line = 0;
    reader->put_source = c->source;
    for (; reader->put_event < rows->event_count; reader->put_event++) {
        CT_TRY(put_rows(reader, c, rows->events[reader->put_event].row, out_wait, status));
        if (*out_wait) return CT_OK;
        CT_TRY(put_event(reader, c, reader->put_event, status));
    }
    CT_TRY(put_rows(reader, c, rows->batch->rows, out_wait, status));
    if (*out_wait) return CT_OK;
    reader->put_line += (int64_t)rows->lines;
    reader->put_row = reader->put_event = 0;
    return CT_OK;
}

/* As put_chunk, and what is due at the end. */
ct_code ct_reader_put(ct_reader *reader, const ct_chunk *c, bool *out_wait, ct_status *status) {
    const ct_code code = put_chunk(reader, c, out_wait, status);
    if (code != CT_END) return code;
    CT_TRY(check_share(reader, reader->report.rows + reader->report.bad_total, status));
    publish(reader); /* the last, shorter one */
    return CT_END;
}
