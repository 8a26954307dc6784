/* Counts of 64-bit keys: how often an item was trained on. Open addressing; 16 bytes a slot, at most half of them used. Not for several
 * threads at once. */
#ifndef EXPERIMENT_COUNTS_H
#define EXPERIMENT_COUNTS_H

#include "base/status.h"

typedef struct ct_counts ct_counts;
CT_MUST_CHECK ct_code ct_counts_create(ct_counts **out_counts, ct_status *status);
void ct_counts_destroy(ct_counts *counts); /* NULL is fine */
/* amount: at least 1. */
CT_MUST_CHECK ct_code ct_counts_add(ct_counts *counts, uint64_t key, uint64_t amount, ct_status *status);
uint64_t ct_counts_get(const ct_counts *counts, uint64_t key); /* 0 = never added */
size_t ct_counts_size(const ct_counts *counts);                /* distinct keys */

#endif
