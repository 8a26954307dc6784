/* Private to data/: a reader's parts. reader.c has the threads, reading and parsing, and the caller's side; reader_put.c puts chunks into
 * batches and counts. reader.c's first words say how they work together. */
#ifndef DATA_READER_INTERNAL_H
#define DATA_READER_INTERNAL_H

#include <pthread.h>

#include "data/block_file.h"
#include "data/rows.h"
#include "data/shuffle.h"

typedef struct ct_reader_slot {
    ct_batch *batch;
    ct_read_report report; /* as of its last row */
    bool held;
} ct_reader_slot;

typedef struct ct_chunk {
    size_t source;
    ct_text text;
    size_t header_bytes; /* of the text: a header, which is a line but no row */
    ct_row_layout layout;
    ct_rows rows; /* of a text after it was parsed; of a block at once */
    bool is_block;
    int64_t read_ms; /* when, since 1970 */
    ct_code code;    /* CT_OK: there are rows; else the log ends here, or a failure with its status */
    ct_status status;
    bool parsed; /* under lock */
} ct_chunk;

struct ct_reader {
    const ct_schema *schema;
    ct_reader_options options;
    size_t lookahead, thread_count, chunk_bytes;
    char **names; /* (source_count) for messages */
    ct_reader_slot *slots;
    ct_chunk *chunks;
    size_t chunk_count;

    pthread_mutex_t lock;
    pthread_cond_t work, filled;
    size_t *free_slots, free_count;
    size_t *ready, ready_at, ready_count;     /* a circle of `lookahead` */
    uint64_t read_next, parse_next, put_next; /* chunk number n is in chunks[n % chunk_count] */
    bool reading, putting, read_all, no_slot; /* no_slot: putting waits for a batch to be released */
    size_t waiting;                           /* threads that have nothing to do */
    ct_reader_times times;
    bool finished;
    ct_code end_code;
    ct_status end_status;
    ct_read_report end_report;

    atomic_bool closing;
    pthread_t *threads;
    size_t started;
    bool lock_made;

    size_t held;
    ct_shuffle *shuffle; /* NULL: rows are given out in order */

    ct_read_report given; /* the caller's */

    /* reading */
    ct_source *source; /* open */
    size_t source_next;
    bool begun;              /* the source's kind is known */
    ct_block_reader *blocks; /* NULL: a text */
    ct_text_cutter cutter;
    ct_row_layout layout; /* of the source */
    bool header_next;
    bool *present, present_known; /* (field_count); written before the first chunk is there */

    /* putting */
    size_t put_row, put_event; /* of the chunk */
    size_t put_source;
    int64_t put_line;        /* of the source, before the chunk */
    ct_reader_slot *filling; /* NULL: none yet */
    size_t rows;             /* in `filling` */
    ct_read_report report;
    int64_t time_field, last_time; /* time_field: -1 = none */
};

static inline bool ct_reader_stopped(const ct_reader *reader) {
    return atomic_load(&reader->closing) || (reader->options.stop && atomic_load(reader->options.stop));
}

static inline ct_code ct_reader_cancelled(ct_status *status) { return ct_fail(status, CT_CANCELLED, "reading was stopped"); }

static inline bool ct_reader_has_all_rows(const ct_reader *reader) {
    return reader->options.max_rows >= 0 && reader->report.rows >= reader->options.max_rows;
}

/* Puts a chunk that was parsed, or what is left of it, behind the rows before it; `*out_wait` where no batch is free. CT_END when no more
 * rows are wanted or there are none. */
CT_MUST_CHECK ct_code ct_reader_put(ct_reader *reader, const ct_chunk *chunk, bool *out_wait, ct_status *status);

#endif
