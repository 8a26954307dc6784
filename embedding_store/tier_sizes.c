/* What the memory limit covers, and how many rows of a table fit into it. */
#include <stdio.h>
#include <stdlib.h>

#include "embedding_store/filter.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/tier_internal.h"

enum {
    DATABASE_BYTES = 32 << 20, /* RocksDB's own: readers of files, the file in work, a compaction's buffers; what malloc keeps */
    DATABASE_PART = 32,        /* and of the limit: filters of larger files, while they are made */
    MERGE_KEY_BYTES = 6,       /* of each key of level 0. One that is merged takes 11: its hash for the filter, the filter, its share of the
                                  index. At       most half are at a time: level 0 is merged into itself only beside a compaction of the rest. */
    MERGE_BYTES = 8 << 20,     /* of DATABASE_BYTES, with DATABASE_PART: for that */
    MERGE_PART = 32,           /* of the limit: steps in which more is taken for it */
    OTHERS_PART = 64,          /* of the limit: steps in which what others have is counted, as each makes the cache smaller */
    LEAST_INDEX_BITS = 4,
    MOST_DIRTY_BYTES = 64 << 20,
    DIRTY_PART = 8 /* of the cache, at most */
};

size_t tier_place_bytes(const ct_partition *partition) { return (sizeof(ct_index_entry) << partition->entry_shift) + sizeof(uint32_t); }

size_t tier_row_bytes(const ct_partition *partition) {
    return (partition->values.floats + partition->state.floats) * sizeof(float) + sizeof(uint32_t);
}

/* Entries of the index for each row. Where keys are counted before they get a row, most are stubs, unless a filter counts. */
static uint64_t entries_a_row(const ct_table *table) { return table->spec.min_count > 1 && !table->filter ? 3 : 1; }

/* How many rows and index entries a partition of `bytes` may have. */
static void divide(const ct_table *table, const ct_partition *partition, uint64_t bytes, uint32_t *out_rows, uint64_t *out_entries,
                   uint32_t *out_bits) {
    *out_rows = 0;
    *out_entries = 0;
    *out_bits = LEAST_INDEX_BITS;
    for (uint32_t bits = LEAST_INDEX_BITS; bits < 32 && tier_place_bytes(partition) << bits < bytes; bits++) {
        const uint64_t entries = ((uint64_t)1 << bits) * 7 / 10, left = bytes - (tier_place_bytes(partition) << bits);
        uint64_t rows = left / tier_row_bytes(partition);
        if (rows > entries / entries_a_row(table)) rows = entries / entries_a_row(table);
        if (rows > CT_SLOT_STUB / 2) rows = CT_SLOT_STUB / 2;
        if (rows < *out_rows) break;
        *out_rows = (uint32_t)rows;
        *out_entries = entries;
        *out_bits = bits;
    }
}

static size_t ticket_bytes(const ct_ticket *ticket) {
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof ticket->scratch / sizeof *ticket->scratch; i++) bytes += ticket->scratch[i].bytes;
    for (size_t i = 0; i < ticket->dedupe_count; i++) bytes += ticket->dedupes[i].scratch.bytes;
    return bytes;
}

/* All that is not the cache, with two tickets in work and all of a batch's `keys` distinct keys missing. */
static uint64_t other_bytes(const ct_tier *tier, const ct_ticket *ticket, uint64_t keys) {
    uint64_t bytes = DATABASE_BYTES + tier->memory_bytes / DATABASE_PART + tier->others_bytes + tier->store->changes_bytes +
                     2 * ticket_bytes(ticket) + keys * (2 * sizeof(uint64_t) + ct_record_bytes(ticket->table));
    for (size_t i = 0; i < tier->store->table_count; i++) {
        const ct_table *table = &tier->store->tables[i];
        if (table->filter) bytes += 2 * ct_filter_bytes(table->filter); /* a snapshot that is written has a copy */
    }
    return bytes;
}

/* What leaves at once, and what is dirty, is a part of the cache beside it. */
static uint64_t cache_of(uint64_t bytes) { return bytes / 6 * 5; }

/* The least that works: of it, the cache for `rows` rows beside what else there is. */
static uint64_t least_memory(const ct_tier *tier, const ct_ticket *ticket, uint64_t rows, uint64_t other) {
    const ct_table *table = ticket->table;
    const uint64_t fixed = other - tier->memory_bytes / DATABASE_PART;
    for (uint64_t mib = (fixed >> 20) + 1;; mib++) {
        const uint64_t bytes = mib << 20, used = fixed + bytes / DATABASE_PART;
        uint32_t each, bits;
        uint64_t entries;
        if (used >= bytes) continue;
        divide(table, &table->partitions[0], cache_of(bytes - used) / tier->trained / table->partition_count, &each, &entries, &bits);
        if (each * table->partition_count >= rows) return bytes;
    }
}

/* What merging the most that level 0 had so far into one file may take beyond what is kept for it in any case: compaction cuts what it
 * writes into files of LIVE_FILE_BYTES, but for level 0, where what comes in during a long compaction of everything is merged meanwhile.
 * Taken from the rows; not given back, since sizes should not go up and down. */
static uint64_t merge_bytes(const ct_tier *tier, const tier_done *done) {
    const uint64_t step = tier->memory_bytes / MERGE_PART + 1, keys = atomic_load(&done->written_keys);
    const uint64_t kept = MERGE_BYTES + tier->memory_bytes / DATABASE_PART;
    if (!keys || !tier->memory_bytes) return 0;
    const double each = (double)atomic_load(&done->written_bytes) / (double)keys; /* bytes on disk are a little more */
    const uint64_t needed = (uint64_t)((double)atomic_load(&done->most_level0_bytes) / each * MERGE_KEY_BYTES);
    return needed > kept ? (needed - kept + step - 1) / step * step : 0;
}

/* Level 0 may have what can be merged with so much beside what is kept for it in any case. */
static void bound_level0(ct_tier *tier, const tier_table *state, uint64_t bytes) {
    const uint64_t keys = atomic_load(&state->done.written_keys);
    if (!keys || !tier->memory_bytes) return;
    const double each = (double)atomic_load(&state->done.written_bytes) / (double)keys;
    const uint64_t kept = MERGE_BYTES + tier->memory_bytes / DATABASE_PART;
    ct_live_bound_level0(tier->live, (uint64_t)((double)(kept + bytes) / MERGE_KEY_BYTES * each));
}

static ct_code fail_small(ct_tier *tier, const ct_ticket *ticket, uint64_t rows, uint64_t other, ct_status *status) {
    char others[64] = "";
    tier->least_bytes = least_memory(tier, ticket, rows, other);
    if (tier->others_bytes)
        (void)snprintf(others, sizeof others, ", beside histories of %llu MiB, which grow",
                       (unsigned long long)((tier->others_bytes + (1 << 20) - 1) >> 20));
    return ct_fail(
        status, CT_INVALID, "a memory limit of %llu MiB is too small for batches of %zu rows%s; give %llu MiB, or smaller batches",
        (unsigned long long)(tier->memory_bytes >> 20), ticket->lookup.rows, others, (unsigned long long)(tier->least_bytes >> 20));
}

void ct_tier_count_others(ct_tier *tier, uint64_t bytes) {
    const uint64_t step = tier->memory_bytes / OTHERS_PART + 1;
    tier->others_bytes = (bytes + step - 1) / step * step;
}

ct_code tier_set_sizes(ct_tier *tier, const ct_ticket *ticket, ct_status *status) {
    ct_table *table = ticket->table;
    tier_table *state = &tier->tables[table - tier->store->tables];
    const uint64_t parts = table->partition_count;
    uint64_t keys = ticket->rare_count;
    for (size_t p = 0; p < parts; p++) keys += ticket->unique_counts[p];
    const uint64_t wanted = merge_bytes(tier, &state->done), beside = tier->others_bytes + wanted;
    if (state->sized_for >= keys && state->sized_beside == beside) return CT_OK;
    keys = state->sized_for >= keys ? state->sized_for : keys + keys / 4; /* others may have more */
    uint64_t cache = tier->cache_bytes > tier->others_bytes ? tier->cache_bytes - tier->others_bytes : 0;
    const uint64_t other = other_bytes(tier, ticket, keys);
    const uint64_t left = tier->memory_bytes > other ? tier->memory_bytes - other : 0, step = tier->memory_bytes / MERGE_PART + 1;
    uint64_t merge = wanted < left / 2 ? wanted : left / 2 / step * step;
    uint32_t rows = 0;
    for (;; merge -= step) {
        if (!tier->cache_bytes) cache = cache_of(left - merge);
        divide(table, &table->partitions[0], cache / tier->trained / parts, &rows, &state->most_entries, &state->most_bits);
        if (rows * parts >= 4 * keys || !merge) break; /* some batches come first; then training is held back earlier */
    }
    if (rows * parts < 2 * keys && !tier->cache_bytes) return fail_small(tier, ticket, 2 * keys, other, status);
    bound_level0(tier, state, merge < wanted ? merge : left / 2);
    for (size_t p = 0; p < parts; p++) {
        ct_partition *partition = &table->partitions[p];
        const uint32_t most = partition->rows > rows ? partition->rows : rows; /* more than there may be leave, and then it shrinks */
        uint32_t *free_rows = realloc(partition->free_rows, ((size_t)most + 1) * sizeof *free_rows);
        if (!free_rows) return ct_fail_memory(status, most * sizeof *free_rows, "a table's free rows");
        partition->free_rows = free_rows;
        partition->most_rows = rows;
    }
    state->sized_for = keys;
    state->sized_beside = beside;
    state->most_dirty = cache / DIRTY_PART < MOST_DIRTY_BYTES ? cache / DIRTY_PART : MOST_DIRTY_BYTES;
    return CT_OK;
}

ct_code tier_shrink(ct_table *table, const tier_table *state, size_t part, ct_status *status) {
    ct_partition *partition = &table->partitions[part];
    if (partition->rows <= partition->most_rows && partition->index_bits <= state->most_bits) return CT_OK;
    return ct_partition_shrink(table, partition, partition->most_rows, state->most_bits, status);
}
