/* Reader: sources (text, gzip, zstd, block files, standard input, commands, mixed) to batches of exactly `batch_rows` rows, the last one
 * shorter, in the log's order across sources. Threads read ahead. Rows, batches and counts do not depend on how the rows came or on the
 * number of threads: text, gzip and block file of the same rows give the same batches. Memory does not depend on the sources' size.
 *
 * With a shuffle window the batches' rows are in another order, which is the same for any number of threads and comes back in each run; a
 * failure is told where its window would begin.
 *
 * A bad row is never dropped in silence: it is counted by kind and the first ones are kept for showing; beyond `max_bad_rows` or
 * `max_bad_share` reading fails. Blank lines are skipped and counted apart. */
#ifndef DATA_READER_H
#define DATA_READER_H

#include <stdatomic.h>

#include "data/batch.h"
#include "data/history.h"

typedef enum ct_bad_row_kind {
    CT_BAD_FIELD_COUNT,
    CT_BAD_LABEL,
    CT_BAD_WEIGHT,
    CT_BAD_TIME,
    CT_BAD_NUMBER,
    CT_BAD_ID,
    CT_BAD_NUL_BYTE,
    CT_BAD_TOO_LONG,
    CT_BAD_KINDS
} ct_bad_row_kind;
const char *ct_bad_row_kind_name(ct_bad_row_kind kind); /* "field count", ... */

enum { CT_BAD_ROWS_SHOWN = 5, CT_BAD_ROW_TEXT_BYTES = 256 };

typedef struct ct_read_report {
    int64_t rows; /* good ones given out so far */
    int64_t blank_lines;
    int64_t bad_rows[CT_BAD_KINDS];
    int64_t bad_total;
    int64_t unsorted_times; /* rows whose time is before the row's ahead of them */
    size_t shown;
    char first_bad[CT_BAD_ROWS_SHOWN][CT_BAD_ROW_TEXT_BYTES]; /* "file:line: reason" */
} ct_read_report;
/* Counts a bad row and keeps the first ones, for readers of their own. */
void ct_read_report_add_bad(ct_read_report *report, ct_bad_row_kind kind, const char *source, int64_t line, const char *reason);

typedef struct ct_reader_options {
    const char *const *sources;
    size_t source_count;
    size_t batch_rows;
    size_t lookahead;        /* batches read ahead and in use at once; 0 = 4, at least 2 */
    int64_t max_bad_rows;    /* -1 = no limit */
    double max_bad_share;    /* 0..1 of all rows so far, checked from the 1,000th row on and at the end; 1 = no limit */
    int64_t max_rows;        /* stop after so many rows; -1 = all */
    const atomic_bool *stop; /* may be NULL; when true, next() returns CT_CANCELLED */
    size_t threads;          /* that read, decompress and parse; 0 = 2, or 1 where there is only one processor */
    size_t chunk_bytes;      /* of text that a thread parses at once; 0 = as is best; other values are for tests */
    size_t shuffle_rows;     /* rows are drawn from windows of so many (rounded up to whole batches); 0 = in the log's order. Takes the
                                memory of two windows */
    uint64_t shuffle_seed;   /* the order in a window is a function of these and of the rows' numbers */
    uint32_t shuffle_epoch;
    ct_histories
        *histories; /* of the schema, or NULL: what is derived from histories is not there. The caller's; only next() uses it. Those
                       of the log's order, also where rows are shuffled: then a window or two are in it before they are given out */
    bool live;      /* the batches' rows enter the histories, each after it got its own; else they stand */
} ct_reader_options;
#define CT_READER_OPTIONS_INIT \
    { NULL, 0, 2048, 0, -1, 1.0, -1, NULL, 0, 0, 0, 0, 0, NULL, false }

typedef struct ct_reader ct_reader;
/* Looks at each source (ct_source_check), so that a missing file is told at once. The options' strings must outlive the reader. */
CT_MUST_CHECK ct_code ct_reader_open(const ct_schema *schema, const ct_reader_options *options, ct_reader **out_reader, ct_status *status);
void ct_reader_close(ct_reader *reader); /* NULL is fine; batches given out become invalid */
/* The next batch, owned by the reader and valid until ct_reader_release; CT_END when there is none. At most `lookahead - 1` may be held. */
CT_MUST_CHECK ct_code ct_reader_next(ct_reader *reader, ct_batch **out_batch, ct_status *status);
void ct_reader_release(ct_reader *reader, ct_batch *batch);
/* Processor time of the reader's threads so far, by step; a command's own (`|command`) is not in it. */
typedef struct ct_reader_times {
    int64_t read_ns; /* bytes in, unpacked, cut into lines */
    int64_t parse_ns;
    int64_t put_ns; /* rows into batches */
} ct_reader_times;
void ct_reader_times_get(ct_reader *reader, ct_reader_times *out_times);
/* What was read of the batches given out so far. Copy it out; not while another thread is in next(). */
void ct_reader_report(const ct_reader *reader, ct_read_report *out_report);

/* --- one text line to values, for clients that send raw values --- */

/* Splits a line at the schema's separator into its source columns; CT_INVALID where their number is wrong. `out_begin`, `out_bytes`:
 * (schema->columns). A row's field f with column c has the text out_begin[c], out_bytes[c]. */
CT_MUST_CHECK ct_code ct_line_split(const ct_schema *schema, const char *line, size_t bytes, const char **out_begin, size_t *out_bytes,
                                    ct_status *status);

#endif
