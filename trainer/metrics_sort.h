/* Private to trainer/: rows in bounded memory, given back in order, and the 64-bit entry that a scored row is kept as.
 *
 * A sorter takes rows of up to three 64-bit words. Up to half of its memory holds rows, the other half is for sorting them. What does not
 * fit goes, sorted, to a temporary file without a name (in TMPDIR, else /tmp); reading merges the runs. The order is stable: rows with
 * equal keys come in the order in which they were added, so the result does not depend on the memory. */
#ifndef TRAINER_METRICS_SORT_H
#define TRAINER_METRICS_SORT_H

#include <string.h>

#include "base/status.h"
#include "trainer/metrics.h"

enum { CT_SORT_MAX_WORDS = 3, CT_SORT_MAX_KEYS = 2 };

typedef struct ct_sort_order {
    size_t words, keys;
    struct {
        size_t word;
        unsigned shift;      /* bits [shift, 64) of the word */
    } key[CT_SORT_MAX_KEYS]; /* the one that decides first comes first */
} ct_sort_order;

/* Sorts arrays in memory. words, scratch: order->words arrays of (n). */
void ct_sort_rows(const ct_sort_order *order, uint64_t *const words[], uint64_t *const scratch[], size_t n);

typedef struct ct_sorter ct_sorter;
/* memory_bytes: while rows come and while they are read; some KiB are taken however little it is. Nothing is taken before the first row. */
CT_MUST_CHECK ct_code ct_sorter_create(const ct_sort_order *order, size_t memory_bytes, ct_sorter **out_sorter, ct_status *status);
void ct_sorter_destroy(ct_sorter *sorter); /* NULL is fine */
/* words: order->words arrays of (n). Not after ct_sorter_rewind. A failure (CT_EXHAUSTED: the disk is full) ends with reset or destroy. */
CT_MUST_CHECK ct_code ct_sorter_add(ct_sorter *sorter, const uint64_t *const words[], size_t n, ct_status *status);
int64_t ct_sorter_rows(const ct_sorter *sorter);
/* Before the first row; may be repeated. */
CT_MUST_CHECK ct_code ct_sorter_rewind(ct_sorter *sorter, ct_status *status);
/* The next rows in order, as order->words arrays of (*out_rows), valid until the next call; CT_END behind the last. */
CT_MUST_CHECK ct_code ct_sorter_next(ct_sorter *sorter, const uint64_t *out_words[], size_t *out_rows, ct_status *status);
void ct_sorter_reset(ct_sorter *sorter); /* empty, memory kept */

/* --- the entry of a row: the score's order in the upper half, the weight in the lower one, with the label as its sign --- */

enum { CT_ENTRY_SHIFT = 32 };

static inline uint64_t ct_entry(float score, bool click, float weight) {
    const float signed_weight = click ? -weight : weight;
    uint32_t bits;
    memcpy(&bits, &signed_weight, sizeof bits);
    return (uint64_t)ct_score_key(score) << CT_ENTRY_SHIFT | bits;
}

static inline bool ct_entry_click(uint64_t entry) { return entry >> 31 & 1; }

static inline float ct_entry_weight(uint64_t entry) {
    const uint32_t bits = (uint32_t)entry & 0x7fffffffu;
    float weight;
    memcpy(&weight, &bits, sizeof weight);
    return weight;
}

/* The score of a key; -0 comes back as 0. */
static inline float ct_score_of_key(uint32_t key) {
    const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

#endif
