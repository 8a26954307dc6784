/* How a live database is kept, and how far its compaction may fall behind. Internal to the store.
 *
 * There is one setting, `ct_tuning_ours`; docs/architecture.md has what was measured. Others are for
 * tests/embedding_store/compaction_bench, which measures them beside ours, and for tests. */
#ifndef EMBEDDING_STORE_TUNING_H
#define EMBEDDING_STORE_TUNING_H

#include <stdbool.h>
#include <stdint.h>

typedef enum ct_tuning_reads {
    CT_READS_MAPPED, /* files are mapped: a point read copies nothing */
    CT_READS_PAGES,  /* pread, from the kernel's pages */
    CT_READS_DIRECT  /* pread past them, of compaction too */
} ct_tuning_reads;

typedef struct ct_tuning {
    bool by_levels;                    /* compaction; else by size (universal) */
    uint32_t runs;                     /* start a compaction: files of level 0, and by size each further level */
    uint32_t old_percent;              /* by size: what all newer runs may have of the oldest one's bytes; then everything is compacted */
    uint32_t block_bytes, filter_bits; /* filter_bits: of a key; 0 = no filter */
    ct_tuning_reads reads;
    /* Compaction is behind from `slow` on, and training held back; at `most` it waits (pace.h). Bytes: of newer runs, in percent of the
     * oldest one's, beside twice SPARE. */
    uint32_t slow_runs, most_runs;
    uint32_t slow_percent, most_percent;
    uint64_t most_level0_bytes;         /* held back from half of it on; 0 = as a limit on memory sets it (tier_sizes.c) */
    uint64_t compaction_bytes_a_second; /* a slow disk, for tests; 0 = as fast as it is */
} ct_tuning;

extern const ct_tuning ct_tuning_ours;

#endif
