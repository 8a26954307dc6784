/* How fast training may go on while compaction is behind. Internal to the store.
 *
 * Rows that leave memory pile up as sorted files (runs) until compaction merges them. Each run is a file more that a fetch has to ask,
 * takes some memory, and on the disk keeps rows that are out of date. Where the disk, or the processor, compacts more slowly than training
 * writes, nothing would bound them. So training is held back, by the pressure p of the backlog: 0 up to where compaction is not behind, 1
 * where nothing more may come. After work of t a batch waits GAIN t p / (1 - p), at most MOST_PAUSE; at p = 1 until a compaction has ended.
 * The rate so goes down to 1 / (1 + GAIN p / (1 - p)) of what it was, and p settles where training writes as fast as compaction compacts:
 * many short waits instead of a long one. RocksDB's own way, stalls of whoever writes, is switched off.
 *
 * It waits between batches, so no result can depend on it. */
#ifndef EMBEDDING_STORE_PACE_H
#define EMBEDDING_STORE_PACE_H

#include "embedding_store/tuning.h"

enum {
    CT_PACE_GAIN = 4,
    CT_PACE_MOST_PAUSE_MS = 1000,
    CT_PACE_SPARE_MIB = 256 /* that newer runs may have beyond their share of the oldest one: small tables are compacted in no time */
};

/* Of a table's sorted files. */
typedef struct ct_backlog {
    uint64_t level0_bytes;              /* that compaction may make one file of, as large as it comes */
    uint32_t runs;                      /* files of level 0, and levels below it that have any */
    uint64_t newer_bytes, oldest_bytes; /* of the lowest level that has any, and of all above it */
} ct_backlog;

/* 0 = compaction is not behind, 1 or more = as far as may be. Bytes count only where so many runs are there that a compaction is due: what
 * nobody compacts is nothing to wait for. */
double ct_pace_pressure(const ct_tuning *tuning, const ct_backlog *backlog);
/* How long to wait after so much work; pressure below 1. */
int64_t ct_pace_pause_ns(double pressure, int64_t worked_ns);

#endif
