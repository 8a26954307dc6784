/* Reader: some threads read, decompress and parse ahead into a ring of batches; the caller takes them in order.
 *
 * The log is cut into chunks: some hundred KiB of whole lines, or a block of a block file. A chunk goes through three steps: it is read
 * (one chunk at a time, in order), parsed (any thread, any order; a block needs none) and its rows are put behind those of the chunk before
 * (one at a time, in order), where batches are filled and bad rows are counted. Each thread takes a step that can be done: reading first,
 * as only one thread can do it and the others live on it; then what comes last, so that what is in hand stays little. A thread that is
 * alone reads last: a pipe that pauses must not keep the rows that are there. Chunks are a ring, and a chunk is read into only when its
 * rows have been taken, so memory is bounded. All that depends on the log's order happens in the last step, so rows, batches, counts and
 * failures are the same for any number of threads and any size of chunk. The end of the log, or a failure to read, is a chunk too.
 *
 * Hand-over of batches: a slot is free, being filled, ready or held. Any free slot is taken (not the next in a circle), so that a caller
 * may release in any order; there always is one in time, as at most lookahead - 1 are held. `lock` guards the lists, the ring's numbers and
 * the flags beside them. What belongs to reading and to putting is touched only by the thread that has that step.
 *
 * What a row is does not depend on where batches begin: limits on bad rows are checked in the order of the log, at bad rows, when the
 * 1,000th row is reached and at the end. A batch that is not full when reading fails is not given out.
 *
 * An optional column must be there in all sources or in none (a text has all of them). */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/pool.h"
#include "base/thread.h"
#include "data/reader_internal.h"

enum {
    LOOKAHEAD_DEFAULT = 4,
    LOOKAHEAD_MAX = 4096,
    BATCH_ROWS_MAX = 1 << 22,
    SHUFFLE_ROWS_MAX = 1 << 30,
    THREADS_DEFAULT = 2,
    THREADS_MAX = 64,
    CHUNK_BYTES = 512 << 10,
    CHUNK_BYTES_MIN = 16 << 10,
    CHUNK_BYTES_MAX = 64 << 20,
    CHUNKS_MORE = 4,            /* than threads */
    CHUNK_ROWS_BYTES = 8 << 20, /* of a chunk's rows, whatever the schema is */
    STOP_MS = 50
};

const char *ct_bad_row_kind_name(ct_bad_row_kind kind) {
    static const char *const names[CT_BAD_KINDS] = {"field count", "label", "weight", "time", "number", "id", "NUL byte", "too long"};
    return (unsigned)kind < CT_BAD_KINDS ? names[kind] : "?";
}

/* --- reading --- */

static ct_code check_present(ct_reader *reader, const ct_batch *batch /* NULL: a text, which has all that is not derived */,
                             ct_status *status) {
    for (size_t i = 0; i < reader->schema->field_count; i++) {
        const bool present = batch ? batch->columns[i].present : !reader->schema->fields[i].derived;
        if (reader->present_known && present != reader->present[i]) {
            return ct_fail(status, CT_INVALID, "%s: column '%s' is %s here, but it is %s in the sources before: give sources of one kind%s",
                           reader->names[reader->source_next], reader->schema->fields[i].name, present ? "there" : "missing",
                           present ? "missing" : "there",
                           reader->schema->fields[i].derived ? "; `clicktower convert` leaves out what is derived" : "");
        }
        if (!reader->present_known) reader->present[i] = present;
    }
    reader->present_known = true;
    return CT_OK;
}

static ct_code begin_source(ct_reader *reader, ct_status *status) {
    char first[16];
    size_t count;
    if (!reader->source) CT_TRY(ct_source_open(reader->options.sources[reader->source_next], &reader->source, status));
    ct_source_set_stop(reader->source, &reader->closing, reader->options.stop);
    CT_TRY(ct_source_peek(reader->source, first, &count, status));
    if (ct_block_file_is(first, count)) {
        CT_TRY(ct_block_reader_open(reader->source, reader->schema, &reader->blocks, status));
    } else {
        CT_TRY(check_present(reader, NULL, status));
        ct_text_cutter_begin(&reader->cutter, reader->source);
        reader->header_next = reader->schema->header;
    }
    reader->begun = true;
    return CT_OK;
}

static void end_source(ct_reader *reader) {
    ct_block_reader_close(reader->blocks);
    reader->blocks = NULL;
    ct_source_close(reader->source);
    reader->source = NULL;
    reader->begun = false;
    reader->source_next++;
}

static ct_code read_text(ct_reader *reader, ct_chunk *c, ct_status *status) {
    CT_TRY(ct_text_cutter_next(&reader->cutter, reader->chunk_bytes, &c->text, status));
    c->header_bytes = 0;
    if (reader->header_next) {
        const char *newline = memchr(c->text.buffer, '\n', c->text.bytes + 1);
        const size_t bytes = (size_t)(newline - c->text.buffer);
        const size_t length = bytes && newline[-1] == '\r' ? bytes - 1 : bytes;
        CT_TRY(ct_row_layout_header(&reader->layout, reader->schema, reader->names[reader->source_next], c->text.buffer, length, status));
        c->header_bytes = bytes < c->text.bytes ? bytes + 1 : bytes;
        reader->header_next = false;
    }
    c->layout.columns = reader->layout.columns;
    memcpy(c->layout.column, reader->layout.column, reader->schema->field_count * sizeof *c->layout.column);
    return CT_OK;
}

static ct_code read_block(ct_reader *reader, ct_chunk *c, ct_status *status) {
    CT_TRY(ct_block_reader_next(reader->blocks, c->rows.batch, status));
    c->rows.lines = c->rows.event_count = c->rows.bad = 0;
    return check_present(reader, c->rows.batch, status);
}

/* The next chunk of the log; CT_END behind its last. */
static ct_code read_chunk(ct_reader *reader, ct_chunk *c, ct_status *status) {
    while (reader->source_next < reader->options.source_count) {
        if (ct_reader_stopped(reader)) return ct_reader_cancelled(status);
        if (!reader->begun) CT_TRY(begin_source(reader, status));
        const ct_code code = reader->blocks ? read_block(reader, c, status) : read_text(reader, c, status);
        if (code != CT_END) {
            c->source = reader->source_next;
            c->is_block = reader->blocks != NULL;
            c->read_ms = ct_clock_unix_ms();
            return code;
        }
        end_source(reader);
    }
    return CT_END;
}

/* --- parsing --- */

static ct_code parse_chunk(ct_chunk *c, ct_rows_parser *parser, ct_status *status) {
    const size_t skip = c->header_bytes;
    CT_TRY(ct_rows_parse(parser, &c->layout, c->text.buffer + skip, c->text.bytes - skip, &c->rows, status));
    if (!skip) return CT_OK;
    c->rows.lines++;
    for (size_t e = 0; e < c->rows.event_count; e++) c->rows.events[e].line++;
    return CT_OK;
}

/* --- the threads --- */

static void finish(ct_reader *reader, ct_code code, const ct_status *status) {
    reader->finished = true;
    reader->end_code = code;
    reader->end_status = *status;
    reader->end_report = reader->report;
    (void)pthread_cond_broadcast(&reader->filled);
}

/* Each does one step, if it can be done now. Called with the lock, which is given back for the time of the work. */

static bool try_put(ct_reader *reader) {
    ct_chunk *c = &reader->chunks[reader->put_next % reader->chunk_count];
    ct_status status = CT_STATUS_INIT;
    bool wait = false;
    if (reader->putting || reader->no_slot || reader->put_next == reader->read_next || !c->parsed) return false;
    reader->putting = true;
    (void)pthread_mutex_unlock(&reader->lock);
    const int64_t began = ct_clock_thread_ns();
    const ct_code code = ct_reader_put(reader, c, &wait, &status);
    const int64_t ended = ct_clock_thread_ns();
    (void)pthread_mutex_lock(&reader->lock);
    reader->times.put_ns += ended - began;
    reader->putting = false;
    if (code != CT_OK) {
        finish(reader, code, &status);
    } else if (!wait) {
        c->parsed = false;
        reader->put_next++;
    }
    return true;
}

static bool try_parse(ct_reader *reader, ct_rows_parser *parser) {
    if (reader->parse_next == reader->read_next) return false;
    ct_chunk *c = &reader->chunks[reader->parse_next++ % reader->chunk_count];
    if (c->code == CT_OK && !c->is_block) {
        (void)pthread_mutex_unlock(&reader->lock);
        const int64_t began = ct_clock_thread_ns();
        c->code = parse_chunk(c, parser, &c->status);
        const int64_t ended = ct_clock_thread_ns();
        (void)pthread_mutex_lock(&reader->lock);
        reader->times.parse_ns += ended - began;
    }
    c->parsed = true;
    return true;
}

static bool try_read(ct_reader *reader) {
    if (reader->reading || reader->read_all || reader->read_next - reader->put_next == reader->chunk_count) return false;
    ct_chunk *c = &reader->chunks[reader->read_next % reader->chunk_count];
    reader->reading = true;
    (void)pthread_mutex_unlock(&reader->lock);
    const int64_t began = ct_clock_thread_ns();
    c->code = read_chunk(reader, c, &c->status);
    const int64_t ended = ct_clock_thread_ns();
    (void)pthread_mutex_lock(&reader->lock);
    reader->times.read_ns += ended - began;
    reader->reading = false;
    reader->read_all = c->code != CT_OK;
    reader->read_next++;
    return true;
}

static void *run(void *argument) {
    ct_reader *reader = argument;
    ct_rows_parser *parser = NULL;
    ct_status status = CT_STATUS_INIT;
    const ct_code code = ct_rows_parser_create(reader->schema, &parser, &status);
    (void)pthread_mutex_lock(&reader->lock);
    if (code != CT_OK && !reader->finished) finish(reader, code, &status);
    while (!reader->finished && !atomic_load(&reader->closing)) {
        if ((reader->thread_count > 1 && try_read(reader)) || try_put(reader) || try_parse(reader, parser) || try_read(reader)) {
            if (reader->waiting) (void)pthread_cond_broadcast(&reader->work); /* what was done may be what it waits for */
        } else {
            reader->waiting++;
            (void)pthread_cond_wait(&reader->work, &reader->lock);
            reader->waiting--;
        }
    }
    (void)pthread_cond_broadcast(&reader->work);
    (void)pthread_mutex_unlock(&reader->lock);
    ct_rows_parser_destroy(parser);
    return NULL;
}

/* --- batches in the log's order --- */

/* Waits until a batch is ready or reading has ended; false when stopped. Called with the lock. */
static bool wait_filled(ct_reader *reader) {
    while (!reader->ready_count && !reader->finished) {
        if (!reader->options.stop) {
            (void)pthread_cond_wait(&reader->filled, &reader->lock);
            continue;
        }
        /* A signal handler can set the flag, but not wake us. */
        (void)ct_condition_wait(&reader->filled, &reader->lock, ct_clock_ns() + STOP_MS * INT64_C(1000000));
        if (atomic_load(reader->options.stop)) return false;
    }
    return true;
}

static ct_code next_in_order(void *source, ct_batch **out_batch, ct_status *status) {
    ct_reader *reader = source;
    ct_code code = CT_OK;
    if (reader->options.stop && atomic_load(reader->options.stop)) return ct_reader_cancelled(status);
    (void)pthread_mutex_lock(&reader->lock);
    if (reader->held + 1 >= reader->lookahead) {
        code = ct_fail(status, CT_INTERNAL, "%zu batches are held and none was released: the reader has only %zu", reader->held,
                       reader->lookahead);
    } else if (!wait_filled(reader)) {
        code = ct_reader_cancelled(status);
    } else if (reader->ready_count) {
        ct_reader_slot *ready = &reader->slots[reader->ready[reader->ready_at]];
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

static void release_in_order(void *source, ct_batch *batch) {
    ct_reader *reader = source;
    (void)pthread_mutex_lock(&reader->lock);
    for (size_t i = 0; i < reader->lookahead; i++) {
        if (reader->slots[i].batch != batch || !reader->slots[i].held) continue;
        reader->slots[i].held = false;
        reader->held--;
        reader->free_slots[reader->free_count++] = i;
        if (reader->no_slot) (void)pthread_cond_signal(&reader->work);
        reader->no_slot = false;
        break;
    }
    (void)pthread_mutex_unlock(&reader->lock);
}

/* What follows from histories is that of the log's order, whatever order a shuffle window makes of the rows behind this. */
static ct_code next_with_histories(void *source, ct_batch **out_batch, ct_status *status) {
    ct_reader *reader = source;
    ct_histories *histories = reader->options.histories;
    ct_batch *batch = NULL;
    CT_TRY(next_in_order(reader, &batch, status));
    if (histories) {
        const ct_code code =
            reader->options.live ? ct_histories_live(histories, batch, status) : ct_histories_fill(histories, batch, status);
        if (code != CT_OK) {
            release_in_order(reader, batch);
            return code;
        }
    }
    *out_batch = batch;
    return CT_OK;
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
    if (options->shuffle_rows > SHUFFLE_ROWS_MAX) {
        return ct_fail(status, CT_INVALID, "a shuffle window of %zu rows: at most %d are possible", options->shuffle_rows,
                       SHUFFLE_ROWS_MAX);
    }
    if (options->threads > THREADS_MAX) {
        return ct_fail(status, CT_INVALID, "%zu threads to read with: at most %d are possible", options->threads, THREADS_MAX);
    }
    if (options->chunk_bytes > CHUNK_BYTES_MAX) {
        return ct_fail(status, CT_INVALID, "chunks of %zu bytes: at most %d are possible", options->chunk_bytes, CHUNK_BYTES_MAX);
    }
    if (!(options->max_bad_share >= 0 && options->max_bad_share <= 1)) {
        return ct_fail(status, CT_INVALID, "a share of bad rows of %g: it lies between 0 and 1", options->max_bad_share);
    }
    for (size_t i = 0; i < options->source_count; i++) {
        const char *path = options->sources[i];
        if (strcmp(path, "-") == 0 && standard++)
            return ct_fail(status, CT_INVALID, "standard input ('-') is given twice, but can be read once only");
        CT_TRY(ct_source_check(path, status)); /* now, not when the sources before it have been read */
    }
    return CT_OK;
}

/* Bytes of text in a chunk: fewer where a schema makes much more of a short line than it is long. */
static size_t default_chunk_bytes(const ct_schema *schema) {
    size_t row_bytes = 1;
    const size_t line_bytes = schema->columns > 2 ? schema->columns : 2;
    for (size_t f = 0; f < schema->field_count; f++) row_bytes += ct_column_type_bytes(ct_field_type(&schema->fields[f]));
    const size_t bytes = CHUNK_ROWS_BYTES / row_bytes * line_bytes;
    return bytes < CHUNK_BYTES_MIN ? CHUNK_BYTES_MIN : bytes > CHUNK_BYTES ? CHUNK_BYTES : bytes;
}

static ct_code make_slots(ct_reader *reader, ct_status *status) {
    reader->slots = calloc(reader->lookahead, sizeof *reader->slots);
    reader->free_slots = calloc(reader->lookahead, sizeof *reader->free_slots);
    reader->ready = calloc(reader->lookahead, sizeof *reader->ready);
    reader->present = calloc(reader->schema->field_count ? reader->schema->field_count : 1, sizeof *reader->present);
    if (!reader->slots || !reader->free_slots || !reader->ready || !reader->present) {
        return ct_fail_memory(status, reader->lookahead * sizeof *reader->slots, "a reader");
    }
    for (size_t i = 0; i < reader->lookahead; i++) {
        CT_TRY(ct_batch_create(reader->schema, reader->options.batch_rows, &reader->slots[i].batch, status));
        reader->free_slots[reader->free_count++] = i;
    }
    return CT_OK;
}

static ct_code make_chunks(ct_reader *reader, ct_status *status) {
    CT_TRY(ct_row_layout_init(reader->schema, &reader->layout, status));
    const size_t count = reader->thread_count + CHUNKS_MORE;
    reader->chunks = calloc(count, sizeof *reader->chunks);
    if (!reader->chunks) return ct_fail_memory(status, count * sizeof *reader->chunks, "a reader");
    for (size_t i = 0; i < count; i++) {
        ct_chunk *c = &reader->chunks[reader->chunk_count++];
        CT_TRY(ct_rows_init(reader->schema, &c->rows, status));
        CT_TRY(ct_row_layout_init(reader->schema, &c->layout, status));
    }
    return CT_OK;
}

static ct_code make_shuffle(ct_reader *reader, ct_status *status) {
    const ct_reader_options *options = &reader->options;
    const size_t batches = (options->shuffle_rows + options->batch_rows - 1) / options->batch_rows;
    if (!batches) return CT_OK;
    return ct_shuffle_create(reader->schema,
                             &(const ct_shuffle_options){.window_rows = batches * options->batch_rows,
                                                         .batch_rows = options->batch_rows,
                                                         .slots = reader->lookahead,
                                                         .seed = options->shuffle_seed,
                                                         .epoch = options->shuffle_epoch,
                                                         .next = next_with_histories,
                                                         .release = release_in_order,
                                                         .source = reader},
                             &reader->shuffle, status);
}

static ct_code make_names(ct_reader *reader, ct_status *status) {
    reader->names = calloc(reader->options.source_count, sizeof *reader->names);
    if (!reader->names) return ct_fail_memory(status, reader->options.source_count * sizeof *reader->names, "the sources' names");
    for (size_t i = 0; i < reader->options.source_count; i++) {
        reader->names[i] = ct_source_name_of(reader->options.sources[i]);
        if (!reader->names[i]) return ct_fail_memory(status, strlen(reader->options.sources[i]), "the sources' names");
    }
    return CT_OK;
}

static ct_code start(ct_reader *reader, ct_status *status) {
    if (pthread_mutex_init(&reader->lock, NULL) != 0) return ct_fail(status, CT_EXHAUSTED, "cannot make the reader's lock");
    ct_condition_init(&reader->work);
    ct_condition_init(&reader->filled);
    reader->lock_made = true;
    if (ct_reader_has_all_rows(reader)) { /* none are wanted */
        finish(reader, CT_END, status);
        return CT_OK;
    }
    reader->threads = calloc(reader->thread_count, sizeof *reader->threads);
    if (!reader->threads) return ct_fail_memory(status, reader->thread_count * sizeof *reader->threads, "threads");
    (void)pthread_mutex_lock(&reader->lock);
    while (reader->started < reader->thread_count && ct_thread_start("ct-read", run, reader, &reader->threads[reader->started]))
        reader->started++;
    reader->thread_count = reader->started; /* fewer threads do it too */
    (void)pthread_mutex_unlock(&reader->lock);
    if (!reader->started) return ct_fail(status, CT_EXHAUSTED, "cannot start the reader's threads");
    return CT_OK;
}

ct_code ct_reader_open(const ct_schema *schema, const ct_reader_options *options, ct_reader **out_reader, ct_status *status) {
    ct_code code;
    CT_TRY(check_options(options, status));
    ct_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return ct_fail_memory(status, sizeof *reader, "a reader");
    const size_t processors = ct_pool_default_threads();
    reader->schema = schema;
    reader->options = *options;
    reader->lookahead = !options->lookahead ? LOOKAHEAD_DEFAULT : options->lookahead < 2 ? 2 : options->lookahead;
    reader->thread_count = options->threads ? options->threads : processors < THREADS_DEFAULT ? processors : THREADS_DEFAULT;
    reader->chunk_bytes = options->chunk_bytes ? options->chunk_bytes : default_chunk_bytes(schema);
    reader->time_field = ct_schema_find_kind(schema, CT_FIELD_TIME);
    reader->last_time = INT64_MIN;
    CT_TRY_GOTO(code, make_names(reader, status), fail);
    CT_TRY_GOTO(code, make_slots(reader, status), fail);
    CT_TRY_GOTO(code, make_chunks(reader, status), fail);
    CT_TRY_GOTO(code, make_shuffle(reader, status), fail);
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
    if (reader->started) {
        (void)pthread_mutex_lock(&reader->lock);
        (void)pthread_cond_broadcast(&reader->work);
        (void)pthread_mutex_unlock(&reader->lock);
    }
    for (size_t i = 0; i < reader->started; i++) (void)pthread_join(reader->threads[i], NULL);
    if (reader->lock_made) {
        (void)pthread_cond_destroy(&reader->work);
        (void)pthread_cond_destroy(&reader->filled);
        (void)pthread_mutex_destroy(&reader->lock);
    }
    ct_block_reader_close(reader->blocks);
    ct_source_close(reader->source);
    ct_text_cutter_deinit(&reader->cutter);
    ct_row_layout_deinit(&reader->layout);
    for (size_t i = 0; i < reader->chunk_count; i++) {
        ct_text_deinit(&reader->chunks[i].text);
        ct_rows_deinit(&reader->chunks[i].rows);
        ct_row_layout_deinit(&reader->chunks[i].layout);
    }
    ct_shuffle_destroy(reader->shuffle);
    for (size_t i = 0; reader->slots && i < reader->lookahead; i++) ct_batch_destroy(reader->slots[i].batch);
    for (size_t i = 0; reader->names && i < reader->options.source_count; i++) free(reader->names[i]);
    free(reader->names);
    free(reader->threads);
    free(reader->chunks);
    free(reader->slots);
    free(reader->free_slots);
    free(reader->ready);
    free(reader->present);
    free(reader);
}

ct_code ct_reader_next(ct_reader *reader, ct_batch **out_batch, ct_status *status) {
    return reader->shuffle ? ct_shuffle_next(reader->shuffle, out_batch, status) : next_with_histories(reader, out_batch, status);
}

void ct_reader_release(ct_reader *reader, ct_batch *batch) {
    if (reader->shuffle) {
        ct_shuffle_release(reader->shuffle, batch);
    } else {
        release_in_order(reader, batch);
    }
}

void ct_reader_times_get(ct_reader *reader, ct_reader_times *out_times) {
    (void)pthread_mutex_lock(&reader->lock);
    *out_times = reader->times;
    (void)pthread_mutex_unlock(&reader->lock);
}

void ct_reader_report(const ct_reader *reader, ct_read_report *out_report) {
    *out_report = reader->given;
    if (reader->shuffle) out_report->rows = ct_shuffle_rows(reader->shuffle);
}
