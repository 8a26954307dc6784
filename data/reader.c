/* Reader: one thread reads, decompresses and parses ahead into a ring of batches; the caller takes them in order.
 *
 * Hand-over: a slot is free, being filled, ready or held. The thread takes any free slot (not the next in a circle), so that a caller may
 * release in any order; it always gets one, as at most lookahead - 1 are held. `lock` guards the lists and `finished`; everything under
 * "the thread's" is touched by it alone, and reaches the caller as a copy in the slot or in `end_*`.
 *
 * What a row is does not depend on where batches begin: limits on bad rows are checked in the order of the log, at bad rows, when the
 * 1,000th row is reached and at the end. A batch that is not full when reading fails is not given out.
 *
 * An optional column must be there in all sources or in none (a text has all of them). */
#include "data/reader.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/block_file.h"
#include "data/internal.h"

enum { LOOKAHEAD_DEFAULT = 4, LOOKAHEAD_MAX = 4096, BATCH_ROWS_MAX = 1 << 22, SHARE_FROM_ROW = 1000, STOP_MS = 50, STOP_LINES = 1024 };

typedef struct slot {
    ct_batch *batch;
    ct_read_report report; /* as of its last row */
    bool held;
} slot;

struct ct_reader {
    const ct_schema *schema;
    ct_reader_options options;
    size_t lookahead;
    slot *slots;

    pthread_mutex_t lock;
    pthread_cond_t freed, filled;
    size_t *free_slots, free_count;
    size_t *ready, ready_at, ready_count; /* a circle of `lookahead` */
    bool finished;
    ct_code end_code;
    ct_status end_status;
    ct_read_report end_report;

    atomic_bool closing;
    pthread_t thread;
    bool lock_made, thread_started;

    size_t held;

    ct_read_report given; /* the caller's */

    /* the thread's */
    ct_row_parser *parser;
    ct_source *source; /* open */
    slot *filling;     /* NULL: none yet */
    size_t rows;       /* in `filling` */
    ct_read_report report;
    int64_t time_field, last_time; /* time_field: -1 = none */
    bool *present, present_known;  /* (field_count) */
    ct_batch *block;               /* what a block file gives, before it is cut; NULL until one is met */
    ct_status row_status;          /* of a bad row */
};

const char *ct_bad_row_kind_name(ct_bad_row_kind kind) {
    static const char *const names[CT_BAD_KINDS] = {"field count", "label", "weight", "time", "number", "id", "NUL byte", "too long"};
    return (unsigned)kind < CT_BAD_KINDS ? names[kind] : "?";
}

static bool stopped(const ct_reader *reader) {
    return atomic_load(&reader->closing) || (reader->options.stop && atomic_load(reader->options.stop));
}

static ct_code cancelled(ct_status *status) { return ct_fail(status, CT_CANCELLED, "reading was stopped"); }

/* --- the thread: batches --- */

/* A batch to fill, unless there is one. */
static ct_code take_slot(ct_reader *reader, ct_status *status) {
    if (reader->filling) return CT_OK;
    (void)pthread_mutex_lock(&reader->lock);
    while (!reader->free_count && !atomic_load(&reader->closing)) (void)pthread_cond_wait(&reader->freed, &reader->lock);
    if (reader->free_count) reader->filling = &reader->slots[reader->free_slots[--reader->free_count]];
    (void)pthread_mutex_unlock(&reader->lock);
    if (!reader->filling || atomic_load(&reader->closing)) return cancelled(status);
    ct_batch *batch = reader->filling->batch;
    batch->rows = 0;
    for (size_t i = 0; i < batch->column_count; i++) {
        batch->columns[i].present = reader->present[i];
        batch->columns[i].shared = false;
    }
    reader->rows = 0;
    return CT_OK;
}

static void publish(ct_reader *reader) {
    slot *full = reader->filling;
    if (!full || !reader->rows) return;
    full->batch->rows = reader->rows;
    full->batch->first_row = reader->report.rows - (int64_t)reader->rows;
    full->report = reader->report;
    reader->filling = NULL;
    reader->rows = 0;
    (void)pthread_mutex_lock(&reader->lock);
    reader->ready[(reader->ready_at + reader->ready_count) % reader->lookahead] = (size_t)(full - reader->slots);
    reader->ready_count++;
    (void)pthread_cond_signal(&reader->filled);
    (void)pthread_mutex_unlock(&reader->lock);
}

/* --- the thread: counting --- */

static ct_code check_share(const ct_reader *reader, int64_t rows, ct_status *status) {
    const ct_read_report *report = &reader->report;
    if ((double)report->bad_total <= reader->options.max_bad_share * (double)rows) return CT_OK;
    return ct_fail(status, CT_INVALID, "%lld bad rows of %lld, more than the share of %g that is allowed; the first: %s",
                   (long long)report->bad_total, (long long)rows, reader->options.max_bad_share, report->first_bad[0]);
}

static ct_code count_bad(ct_reader *reader, const ct_line *line, ct_bad_row_kind kind, const char *reason, ct_status *status) {
    ct_read_report *report = &reader->report;
    report->bad_rows[kind]++;
    report->bad_total++;
    if (report->shown < CT_BAD_ROWS_SHOWN) {
        const size_t bytes = strlen(line->source), kept = CT_BAD_ROW_TEXT_BYTES / 2;
        const bool cut = bytes > kept; /* of a long path its end tells more */
        (void)snprintf(report->first_bad[report->shown++], CT_BAD_ROW_TEXT_BYTES, "%s%s:%lld: %.96s", cut ? "..." : "",
                       cut ? line->source + bytes - kept : line->source, (long long)line->number, reason);
    }
    const int64_t rows = report->rows + report->bad_total;
    if (reader->options.max_bad_rows >= 0 && report->bad_total > reader->options.max_bad_rows) {
        return ct_fail(status, CT_INVALID, "%lld bad rows, more than the %lld that are allowed; the first: %s",
                       (long long)report->bad_total, (long long)reader->options.max_bad_rows, report->first_bad[0]);
    }
    return rows >= SHARE_FROM_ROW ? check_share(reader, rows, status) : CT_OK;
}

static bool has_all_rows(const ct_reader *reader) {
    return reader->options.max_rows >= 0 && reader->report.rows >= reader->options.max_rows;
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
    return has_all_rows(reader) ? CT_END : CT_OK;
}

/* --- the thread: sources --- */

static ct_code check_present(ct_reader *reader, const ct_batch *batch /* NULL: a text, which has all */, ct_status *status) {
    for (size_t i = 0; i < reader->schema->field_count; i++) {
        const bool present = !batch || batch->columns[i].present;
        if (reader->present_known && present != reader->present[i]) {
            return ct_fail(status, CT_INVALID, "%s: column '%s' is %s here, but it is %s in the sources before: give sources of one kind",
                           ct_source_name(reader->source), reader->schema->fields[i].name, present ? "there" : "missing",
                           present ? "missing" : "there");
        }
        reader->present[i] = present;
    }
    reader->present_known = true;
    return CT_OK;
}

static ct_code read_lines(ct_reader *reader, ct_lines *lines, ct_status *status) {
    ct_line line;
    ct_code code;
    unsigned since = 0;
    while ((code = ct_lines_next(lines, &line, status)) == CT_OK) {
        if (++since == STOP_LINES) {
            since = 0;
            if (stopped(reader)) return cancelled(status);
        }
        if (reader->schema->header && ct_lines_is_first(lines)) {
            CT_TRY(ct_row_parser_header(reader->parser, &line, status));
            continue;
        }
        if (!line.bytes) {
            reader->report.blank_lines++;
            continue;
        }
        CT_TRY(take_slot(reader, status));
        ct_bad_row_kind kind = CT_BAD_KINDS;
        code = ct_row_parse(reader->parser, &line, reader->filling->batch, reader->rows, &kind, &reader->row_status);
        if (code == CT_INVALID) {
            CT_TRY(count_bad(reader, &line, kind, reader->row_status.message, status));
        } else if (code != CT_OK) {
            return ct_fail(status, code, "%s:%lld: %s", line.source, (long long)line.number, reader->row_status.message);
        } else {
            CT_TRY(count_good(reader, 1, status));
        }
    }
    return code == CT_END ? CT_OK : code;
}

static ct_code read_text(ct_reader *reader, ct_status *status) {
    ct_lines *lines;
    CT_TRY(check_present(reader, NULL, status));
    CT_TRY(ct_lines_attach(reader->source, &lines, status));
    const ct_code code = read_lines(reader, lines, status);
    ct_lines_close(lines);
    return code;
}

/* Rows first .. first + count - 1 of a block behind the rows of the batch being filled. */
static ct_code copy_rows(ct_reader *reader, size_t first, size_t count, ct_status *status) {
    ct_batch *batch = reader->filling->batch;
    const size_t row = reader->rows;
    batch->rows = row; /* what a growing column must keep */
    for (size_t i = 0; i < batch->column_count; i++) {
        const ct_column *from = &reader->block->columns[i];
        ct_column *to = &batch->columns[i];
        const size_t bytes_each = ct_column_type_bytes(to->type);
        size_t from_value = first, to_value = row, values = count;
        if (!to->present) continue;
        if (to->offsets) {
            from_value = from->offsets[first];
            to_value = to->offsets[row];
            values = from->offsets[first + count] - from_value;
            CT_TRY(ct_batch_reserve(batch, i, to_value + values, status));
            for (size_t r = 1; r <= count; r++) to->offsets[row + r] = (uint32_t)(to_value + (from->offsets[first + r] - from_value));
        }
        if (values)
            memcpy((char *)to->values + to_value * bytes_each, (const char *)from->values + from_value * bytes_each, values * bytes_each);
    }
    return CT_OK;
}

static ct_code read_block(ct_reader *reader, ct_status *status) {
    size_t done = 0;
    while (done < reader->block->rows) {
        if (stopped(reader)) return cancelled(status);
        CT_TRY(take_slot(reader, status));
        size_t count = reader->block->rows - done;
        if (count > reader->options.batch_rows - reader->rows) count = reader->options.batch_rows - reader->rows;
        if (reader->options.max_rows >= 0 && (int64_t)count > reader->options.max_rows - reader->report.rows) {
            count = (size_t)(reader->options.max_rows - reader->report.rows);
        }
        CT_TRY(copy_rows(reader, done, count, status));
        CT_TRY(count_good(reader, count, status));
        done += count;
    }
    return CT_OK;
}

static ct_code read_blocks(ct_reader *reader, ct_status *status) {
    ct_block_reader *blocks;
    ct_code code;
    if (!reader->block) CT_TRY(ct_batch_create(reader->schema, 0, &reader->block, status));
    CT_TRY(ct_block_reader_open(reader->source, reader->schema, &blocks, status));
    while ((code = ct_block_reader_next(blocks, reader->block, status)) == CT_OK) {
        CT_TRY_GOTO(code, check_present(reader, reader->block, status), done);
        CT_TRY_GOTO(code, read_block(reader, status), done);
    }
    if (code == CT_END) code = CT_OK;
done:
    ct_block_reader_close(blocks);
    return code;
}

/* CT_END when no more rows are wanted. */
static ct_code read_source(ct_reader *reader, ct_status *status) {
    char first[16];
    size_t count;
    ct_source_set_stop(reader->source, &reader->closing, reader->options.stop);
    CT_TRY(ct_source_peek(reader->source, first, &count, status));
    return ct_block_file_is(first, count) ? read_blocks(reader, status) : read_text(reader, status);
}

static ct_code read_all(ct_reader *reader, ct_status *status) {
    if (has_all_rows(reader)) return CT_END;
    for (size_t i = 0; i < reader->options.source_count; i++) {
        if (!reader->source) CT_TRY(ct_source_open(reader->options.sources[i], &reader->source, status));
        CT_TRY(read_source(reader, status));
        ct_source_close(reader->source);
        reader->source = NULL;
    }
    return CT_END;
}

static void *run(void *argument) {
    ct_reader *reader = argument;
    ct_status status = CT_STATUS_INIT;
    ct_code code = read_all(reader, &status);
    if (code == CT_END) {
        const ct_code share = check_share(reader, reader->report.rows + reader->report.bad_total, &status);
        if (share != CT_OK) code = share;
    }
    if (code == CT_END) publish(reader); /* the last, shorter one */
    (void)pthread_mutex_lock(&reader->lock);
    reader->finished = true;
    reader->end_code = code;
    reader->end_status = status;
    reader->end_report = reader->report;
    (void)pthread_cond_broadcast(&reader->filled);
    (void)pthread_mutex_unlock(&reader->lock);
    return NULL;
}

/* --- the caller --- */

static ct_code check_options(const ct_reader_options *options, ct_status *status) {
    size_t standard = 0;
    if (!options->source_count) return ct_fail(status, CT_INVALID, "no source to read");
    if (!options->batch_rows || options->batch_rows > BATCH_ROWS_MAX) {
        return ct_fail(status, CT_INVALID, "a batch of %zu rows: from 1 to %d are possible", options->batch_rows, BATCH_ROWS_MAX);
    }
    if (options->lookahead > LOOKAHEAD_MAX) {
        return ct_fail(status, CT_INVALID, "%zu batches read ahead: at most %d are possible", options->lookahead, LOOKAHEAD_MAX);
    }
    if (!(options->max_bad_share >= 0 && options->max_bad_share <= 1)) {
        return ct_fail(status, CT_INVALID, "a share of bad rows of %g: it lies between 0 and 1", options->max_bad_share);
    }
    for (size_t i = 0; i < options->source_count; i++) {
        const char *path = options->sources[i];
        if (strcmp(path, "-") == 0) {
            if (standard++) return ct_fail(status, CT_INVALID, "standard input ('-') is given twice, but can be read once only");
        } else if (path[0] != '|' && access(path, R_OK) != 0) {
            return ct_fail_errno(status, "%s: cannot open", path); /* now, not when the sources before it have been read */
        }
    }
    return CT_OK;
}

static ct_code start(ct_reader *reader, ct_status *status) {
    pthread_condattr_t attributes;
    sigset_t all, before;
    if (pthread_mutex_init(&reader->lock, NULL) != 0) return ct_fail(status, CT_EXHAUSTED, "cannot make the reader's lock");
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&reader->freed, &attributes);
    (void)pthread_cond_init(&reader->filled, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    reader->lock_made = true;
    /* Signals are for the program's own threads. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    const int result = pthread_create(&reader->thread, NULL, run, reader);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result != 0) return ct_fail(status, CT_EXHAUSTED, "cannot start the reader's thread: %s", strerror(result));
    reader->thread_started = true;
    return CT_OK;
}

ct_code ct_reader_open(const ct_schema *schema, const ct_reader_options *options, ct_reader **out_reader, ct_status *status) {
    ct_code code;
    CT_TRY(check_options(options, status));
    ct_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return ct_fail_memory(status, sizeof *reader, "a reader");
    reader->schema = schema;
    reader->options = *options;
    reader->lookahead = !options->lookahead ? LOOKAHEAD_DEFAULT : options->lookahead < 2 ? 2 : options->lookahead;
    reader->time_field = ct_schema_find_kind(schema, CT_FIELD_TIME);
    reader->last_time = INT64_MIN;
    reader->slots = calloc(reader->lookahead, sizeof *reader->slots);
    reader->free_slots = calloc(reader->lookahead, sizeof *reader->free_slots);
    reader->ready = calloc(reader->lookahead, sizeof *reader->ready);
    reader->present = calloc(schema->field_count ? schema->field_count : 1, sizeof *reader->present);
    if (!reader->slots || !reader->free_slots || !reader->ready || !reader->present) {
        code = ct_fail_memory(status, reader->lookahead * sizeof *reader->slots, "a reader");
        goto fail;
    }
    for (size_t i = 0; i < reader->lookahead; i++) {
        CT_TRY_GOTO(code, ct_batch_create(schema, options->batch_rows, &reader->slots[i].batch, status), fail);
        reader->free_slots[reader->free_count++] = i;
    }
    CT_TRY_GOTO(code, ct_row_parser_create(schema, &reader->parser, status), fail);
    CT_TRY_GOTO(code, ct_source_open(options->sources[0], &reader->source, status), fail);
    CT_TRY_GOTO(code, start(reader, status), fail);
    *out_reader = reader;
    return CT_OK;
fail:
    ct_reader_close(reader);
    return code;
}

void ct_reader_close(ct_reader *reader) {
    if (!reader) return;
    atomic_store(&reader->closing, true);
    if (reader->thread_started) {
        (void)pthread_mutex_lock(&reader->lock);
        (void)pthread_cond_broadcast(&reader->freed);
        (void)pthread_mutex_unlock(&reader->lock);
        (void)pthread_join(reader->thread, NULL);
    }
    if (reader->lock_made) {
        (void)pthread_cond_destroy(&reader->freed);
        (void)pthread_cond_destroy(&reader->filled);
        (void)pthread_mutex_destroy(&reader->lock);
    }
    ct_source_close(reader->source);
    ct_row_parser_destroy(reader->parser);
    ct_batch_destroy(reader->block);
    for (size_t i = 0; reader->slots && i < reader->lookahead; i++) ct_batch_destroy(reader->slots[i].batch);
    free(reader->slots);
    free(reader->free_slots);
    free(reader->ready);
    free(reader->present);
    free(reader);
}

/* Waits until a batch is ready or reading has ended; false when stopped. Called with the lock. */
static bool wait_filled(ct_reader *reader) {
    while (!reader->ready_count && !reader->finished) {
        if (!reader->options.stop) {
            (void)pthread_cond_wait(&reader->filled, &reader->lock);
            continue;
        }
        /* A signal handler can set the flag, but not wake us. */
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += STOP_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        (void)pthread_cond_timedwait(&reader->filled, &reader->lock, &until);
        if (atomic_load(reader->options.stop)) return false;
    }
    return true;
}

ct_code ct_reader_next(ct_reader *reader, ct_batch **out_batch, ct_status *status) {
    ct_code code = CT_OK;
    if (reader->options.stop && atomic_load(reader->options.stop)) return cancelled(status);
    (void)pthread_mutex_lock(&reader->lock);
    if (reader->held + 1 >= reader->lookahead) {
        code = ct_fail(status, CT_INTERNAL, "%zu batches are held and none was released: the reader has only %zu", reader->held,
                       reader->lookahead);
    } else if (!wait_filled(reader)) {
        code = cancelled(status);
    } else if (reader->ready_count) {
        slot *ready = &reader->slots[reader->ready[reader->ready_at]];
        reader->ready_at = (reader->ready_at + 1) % reader->lookahead;
        reader->ready_count--;
        ready->held = true;
        reader->held++;
        reader->given = ready->report;
        *out_batch = ready->batch;
    } else {
        reader->given = reader->end_report;
        code = reader->end_code;
        if (code != CT_END) *status = reader->end_status;
    }
    (void)pthread_mutex_unlock(&reader->lock);
    return code;
}

void ct_reader_release(ct_reader *reader, ct_batch *batch) {
    (void)pthread_mutex_lock(&reader->lock);
    for (size_t i = 0; i < reader->lookahead; i++) {
        if (reader->slots[i].batch != batch || !reader->slots[i].held) continue;
        reader->slots[i].held = false;
        reader->held--;
        reader->free_slots[reader->free_count++] = i;
        (void)pthread_cond_signal(&reader->freed);
        break;
    }
    (void)pthread_mutex_unlock(&reader->lock);
}

void ct_reader_report(const ct_reader *reader, ct_read_report *out_report) { *out_report = reader->given; }
