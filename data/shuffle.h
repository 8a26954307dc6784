/* Private to data/: a reader's shuffle window. Rows are drawn from consecutive windows of `window_rows` rows of the log, the last one
 * shorter. Which row comes where inside a window is a function of seed, epoch and the rows' numbers alone (CT_PLACE_SHUFFLE), so it does
 * not depend on threads, and a full window's order stays when the log grows; the last one's does not, and its batches are marked `tail`.
 * While a window is given out the next one is filled at the same pace, so two windows are in memory. */
#ifndef DATA_SHUFFLE_H
#define DATA_SHUFFLE_H

#include "data/batch.h"

typedef struct ct_shuffle ct_shuffle;

typedef struct ct_shuffle_options {
    size_t window_rows; /* a multiple of batch_rows */
    size_t batch_rows;
    size_t slots; /* batches that there are; all but one may be held */
    uint64_t seed;
    uint32_t epoch;
    /* The rows in order: batches of batch_rows, only the last one shorter; CT_END when there are no more. */
    ct_code (*next)(void *source, ct_batch **out_batch, ct_status *status);
    void (*release)(void *source, ct_batch *batch);
    void *source;
} ct_shuffle_options;

CT_MUST_CHECK ct_code ct_shuffle_create(const ct_schema *schema, const ct_shuffle_options *options, ct_shuffle **out_shuffle,
                                        ct_status *status);
void ct_shuffle_destroy(ct_shuffle *shuffle); /* NULL is fine */
/* As ct_reader_next and ct_reader_release. first_row counts the rows as they are given out. */
CT_MUST_CHECK ct_code ct_shuffle_next(ct_shuffle *shuffle, ct_batch **out_batch, ct_status *status);
void ct_shuffle_release(ct_shuffle *shuffle, ct_batch *batch);
int64_t ct_shuffle_rows(const ct_shuffle *shuffle); /* given out so far */

/* Writes a permutation of 0 .. count - 1: where the rows of the window that begins at row `first_row` of the log come from. */
void ct_shuffle_order(uint64_t seed, uint32_t epoch, uint64_t first_row, uint32_t *out_rows /* (count) */, size_t count);

#endif
