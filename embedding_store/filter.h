/* Admission by approximate counts, for logs with so many keys that a stub for each that waits is too much (ct_table_spec.filter_mib): keys
 * without a row are counted in a filter of a fixed size. Internal to the store.
 *
 * Legend: a virtual shard has L lines of 64 bytes; a line has 4 parts of 32 cells of 4 bits; a key has one line of its shard, and one cell
 * in each part of the line; n keys, so n / (1,024 L) a line on average.
 *
 *     count(key)        = the least of its 4 cells
 *     after a batch     : each cell is at least count(key) + occurrences(key) of every key of the batch that has it, counts as they were
 *                         before the batch
 *
 * That is minimum increase (Cohen, Matias: Spectral Bloom Filters, SIGMOD 2003; Estan, Varghese: New Directions in Traffic Measurement,
 * SIGCOMM 2002: conservative update), a batch at a time, so that no order of keys within a batch matters. A count is never below the
 * truth, and above it only where each of the key's 4 cells was raised by another key too. So the chance that a key is ever counted too
 * high, and with it the share of keys that are admitted too early, is at most the chance of a Bloom filter's false positive, here of one in
 * blocks (Bloom 1970; Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007):
 *
 *     error(n) = sum over i of Poisson(i; n / (1,024 L)) (1 - (31/32)^i)^4
 *
 * i being the other keys of the line: 0.4 % where there are 16 cells for each key, 1.6 % at 10, 6 % at 6, 17 % at 4. Counts stop at 15.
 *
 * Where the table expires, there are two such filters, of half the size each. One is of this period of expire_days days of the log, since
 * its first day, the other one of the period before. A key's count is the larger of its two, and is written to the newer one, so it moves
 * along as long as the key is seen. When a period begins, what was of two periods before is cleared. So a key keeps its count for at least
 * expire_days days after it was seen, as a stub would, and at most for twice as long. */
#ifndef EMBEDDING_STORE_FILTER_H
#define EMBEDDING_STORE_FILTER_H

#include "embedding_store/record.h"

enum {
    CT_FILTER_LINE_BYTES = 64,
    CT_FILTER_PARTS = 4,                                                         /* of a line, with a cell of each key in each */
    CT_FILTER_PART_CELLS = 32,                                                   /* of half a byte */
    CT_FILTER_LINES_A_MIB = (1 << 20) / CT_FILTER_LINE_BYTES / CT_VIRTUAL_SHARDS /* of a shard */
};

typedef struct ct_filter {
    ct_device *device;
    uint8_t *lines;     /* (generations, CT_VIRTUAL_SHARDS, shard_lines, CT_FILTER_LINE_BYTES) */
    uint8_t *changed;   /* (generations, CT_VIRTUAL_SHARDS, shard_lines): since it was cleared; NULL = nobody asks */
    size_t shard_lines; /* of one generation */
    uint32_t generations;
    uint32_t period; /* of the log's day; generation period % generations is the newer one */
} ct_filter;

/* Empty. spec: with a filter_mib. */
CT_MUST_CHECK ct_code ct_filter_create(const ct_table_spec *spec, ct_device *device, ct_filter **out_filter, ct_status *status);
/* Without its changes. */
CT_MUST_CHECK ct_code ct_filter_copy(const ct_filter *filter, ct_filter **out_copy, ct_status *status);
void ct_filter_destroy(ct_filter *filter); /* NULL is fine */

static inline size_t ct_filter_line_count(const ct_filter *filter) {
    return (size_t)filter->generations * CT_VIRTUAL_SHARDS * filter->shard_lines;
}
uint64_t ct_filter_bytes(const ct_filter *filter); /* of memory */

/* ct_filter_set_period, which store_internal.h declares: the log has come to another period of expire_days days. It never goes back. */

/* --- keys; by the task that has their shard --- */
void ct_filter_prefetch(const ct_filter *filter, uint64_t key);
/* How often a key was seen, or more; at most CT_FILTER_MOST_COUNT. */
uint32_t ct_filter_count(const ct_filter *filter, uint64_t key);
/* Raises the key's count to at least `count`, or CT_FILTER_MOST_COUNT. */
void ct_filter_raise(ct_filter *filter, uint64_t key, uint32_t count);

/* --- what it holds --- */
/* From now on it is noted which lines change. */
CT_MUST_CHECK ct_code ct_filter_track(ct_filter *filter, ct_status *status);
void ct_filter_forget_changes(ct_filter *filter);
/* One that is equal has an equal sum, whatever the number of threads and partitions. */
ct_sum ct_filter_sum(const ct_filter *filter, ct_pool *pool);
/* fill: share of the cells that are not 0, of the fuller generation. error: the chance that a key that was never seen is counted: the share
 * of all choices of 4 cells of a line which are all above 0. */
typedef struct ct_filter_load {
    double fill, error;
} ct_filter_load;
ct_filter_load ct_filter_measure(const ct_filter *filter);

/* --- its file in a snapshot: FOLDER/NAME.filter, a table's ---
 * "CTFILT1\n" | u64 generations | u64 lines of a shard | the lines | u64 XXH3 of the lines, seeded by that of the 24 bytes before them */
CT_MUST_CHECK ct_code ct_filter_write(const ct_filter *filter, const char *folder, size_t table, ct_status *status);
/* Before there is memory for it: has the file the length that a filter of this spec has? */
CT_MUST_CHECK ct_code ct_filter_check_file(const ct_table_spec *spec, const char *folder, size_t table, ct_status *status);
/* Into one that is made as the table asks. CT_CORRUPT where it is not what was written, or another one's. */
CT_MUST_CHECK ct_code ct_filter_read(ct_filter *filter, const char *folder, size_t table, ct_status *status);

#endif
