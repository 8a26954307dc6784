/* The rows of a table that was opened for reading, found by key without an index of places. Internal to the store.
 *
 * They come from the disk in the order of their keys, and keys are hashes: a key's top bits say nearly where it must stand. The bits behind
 * those that choose the partition choose a bucket of about three rows; `starts` has the first row of each. A bucket's keys stand one behind
 * the other, without the bytes that follow from where they stand. That is 7.3 bytes a row where a table has many millions of rows; an
 * index of 16 bytes a place, a third to 70 % full, takes 23 to 46. Keys that are no hashes cost time, not rightness: a large bucket is
 * halved until it is small.
 *
 * Nothing can be put in later. Keys that deltas bring, and keys without a row, have entries in the partition's index, which is asked where
 * it has any and the key is not here. A row here that has expired (by the day in `counts`) is as if it were not. */
#ifndef EMBEDDING_STORE_SORTED_H
#define EMBEDDING_STORE_SORTED_H

#include "base/bytes.h"
#include "embedding_store/table.h"

struct ct_stored_table;

/* Fills partitions of a table, one after the other, in the order of keys. */
typedef struct ct_filling {
    ct_table *table;
    const struct ct_stored_table *stored; /* of the records */
    ct_partition *partition;              /* in work; NULL = none yet */
    uint64_t *keys;                       /* (count), room for key_room: of that partition */
    size_t count, key_room;
} ct_filling;
/* record: of a row, checked. CT_CORRUPT where the key does not rise. */
CT_MUST_CHECK ct_code ct_filling_put(ct_filling *filling, uint64_t key, const char *record, ct_status *status);
/* The last partition is done. */
CT_MUST_CHECK ct_code ct_filling_end(ct_filling *filling, ct_status *status);
void ct_filling_deinit(ct_filling *filling); /* in any case */

/* Before the first: the table will have at most so many rows. Once. */
CT_MUST_CHECK ct_code ct_sorted_expect(ct_table *table, uint64_t rows, ct_status *status);
/* About what a row's key takes of memory, where a table has `rows` rows in 2^partition_bits partitions. */
size_t ct_sorted_key_bytes(uint64_t rows, uint32_t partition_bits);

static inline size_t ct_sorted_bucket(const ct_sorted *sorted, uint64_t key) {
    return (size_t)(key << sorted->partition_bits >> sorted->bucket_shift);
}

static inline uint64_t ct_sorted_key(const ct_sorted *sorted, size_t row) {
    return ct_get_le64(sorted->keys + row * sorted->key_bytes) & sorted->mask;
}

/* The key's row, or CT_NO_ROW. */
static inline uint32_t ct_sorted_find(const ct_sorted *sorted, uint64_t key) {
    enum { FEW = 16 };
    if (!sorted->count) return CT_NO_ROW;
    const uint32_t *start = &sorted->starts[ct_sorted_bucket(sorted, key)];
    const uint64_t wanted = key & sorted->mask;
    size_t at = start[0], end = start[1];
    while (end - at > FEW) {
        const size_t middle = at + (end - at) / 2;
        if (ct_sorted_key(sorted, middle) < wanted)
            at = middle + 1;
        else
            end = middle + 1;
    }
    for (; at < end; at++) {
        const uint64_t here = ct_sorted_key(sorted, at);
        if (here >= wanted) return here == wanted ? (uint32_t)at : CT_NO_ROW;
    }
    return CT_NO_ROW;
}

/* --- a table that is read: what is sorted, then the index --- */

/* What a partition knows of a key. */
typedef struct ct_found {
    uint32_t slot;               /* as an index entry's: CT_SLOT_EMPTY = nothing, CT_SLOT_STUB = there is no row */
    const ct_key_counts *counts; /* NULL = none */
} ct_found;

/* What was seen before oldest_day has expired: in the index it is a stub without counts; what is sorted is not there. */
static inline ct_found ct_partition_look(const ct_partition *partition, uint64_t key, uint32_t oldest_day) {
    const uint32_t row = ct_sorted_find(&partition->sorted, key);
    if (row != CT_NO_ROW) {
        const ct_key_counts *counts =
            partition->counts.floats ? (const ct_key_counts *)(const void *)ct_slab_at(&partition->counts, row) : NULL;
        if (!counts || counts->day >= oldest_day) return (ct_found){row + 1, counts};
    }
    ct_index_entry *entry = partition->used ? ct_partition_find(partition, key) : NULL;
    if (!entry) return (ct_found){CT_SLOT_EMPTY, NULL};
    const ct_key_counts *counts = partition->entry_shift ? ct_entry_counts(entry) : NULL;
    if (counts && counts->day < oldest_day) return (ct_found){CT_SLOT_STUB, NULL};
    return (ct_found){entry->slot, counts};
}

/* The key's values, or NULL where it has no row; nothing may have expired. They are halves where the table's precision is fp16. */
static inline const float *ct_table_values(const ct_table *table, uint64_t key) {
    const ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    const uint32_t row = ct_sorted_find(&partition->sorted, key);
    if (row != CT_NO_ROW) return ct_slab_at(&partition->values, row);
    const ct_index_entry *entry = partition->used ? ct_partition_find(partition, key) : NULL;
    if (!entry || entry->slot == CT_SLOT_STUB) return NULL;
    return ct_slab_at(&partition->values, entry->slot - 1);
}

/* Where a key is to be looked for, brought near in two steps: the second reads what the first has fetched. Always inlined: a call of a
 * function that does nothing but prefetch counts as one without effect, and is left out. */
static inline __attribute__((always_inline)) void ct_table_prefetch_start(const ct_table *table, uint64_t key) {
    const ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    if (partition->sorted.count) ct_prefetch(&partition->sorted.starts[ct_sorted_bucket(&partition->sorted, key)]);
}
static inline __attribute__((always_inline)) void ct_table_prefetch_keys(const ct_table *table, uint64_t key) {
    const ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    const ct_sorted *sorted = &partition->sorted;
    if (sorted->count) {
        const uint32_t *start = &sorted->starts[ct_sorted_bucket(sorted, key)];
        ct_prefetch(sorted->keys + (size_t)start[0] * sorted->key_bytes);
        ct_prefetch(sorted->keys + (size_t)start[1] * sorted->key_bytes);
    }
    if (partition->used) ct_table_prefetch(table, key);
}

#endif
