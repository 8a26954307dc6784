/* What the memory limit covers, and how many rows of a table fit into it. */
#include <stdio.h>
#include <stdlib.h>

#include "embedding_store/filter.h"
#include "embedding_store/record.h"
#include "embedding_store/tier_internal.h"

enum {
    DATABASE_BYTES = 32 << 20, /* RocksDB's own: readers of files, the file in work, a compaction's buffers; what malloc keeps */
    DATABASE_PART = 32,        /* and of the limit: filters of larger files, while they are made */
    OTHERS_PART = 64,          /* of the limit: steps in which what others have is counted, as each makes the cache smaller */
    SPARE_PART = 4,            /* of what the largest batch so far needs, for larger ones; and where that is a few, a few more */
    SPARE_LEAST = 8,
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

/* What others have of a limit of `memory_bytes`, in its steps. */
static uint64_t others_of(const ct_tier *tier, uint64_t memory_bytes) {
    const uint64_t step = memory_bytes / OTHERS_PART + 1;
    return (tier->others_counted + step - 1) / step * step;
}

/* What grows with the limit: files' filters, what others have, and the noted keys of what is published. */
static uint64_t growing_bytes(const ct_tier *tier, uint64_t memory_bytes) {
    const uint64_t changes = tier->store->changes_bytes ? tier->memory_bytes / tier->store->changes_bytes : 0; /* one part of so many */
    return memory_bytes / DATABASE_PART + others_of(tier, memory_bytes) + (changes ? memory_bytes / changes : 0);
}

/* All else that is not the cache, with two tickets in work and all of a batch's `keys` distinct keys missing. */
static uint64_t fixed_bytes(const ct_tier *tier, const ct_ticket *ticket, uint64_t keys) {
    uint64_t bytes = DATABASE_BYTES + 2 * ticket_bytes(ticket) + keys * (2 * sizeof(uint64_t) + ct_record_bytes(ticket->table));
    for (size_t i = 0; i < tier->store->table_count; i++) {
        const ct_table *table = &tier->store->tables[i];
        if (table->filter) bytes += 2 * ct_filter_bytes(table->filter); /* a snapshot that is written has a copy */
        for (size_t p = 0; p < table->partition_count && table->spec.kind == CT_TABLE_FROZEN; p++) bytes += table->partitions[p].bytes;
    }
    return bytes;
}

/* What leaves at once, and what is dirty, is a part of the cache beside it. */
static uint64_t cache_of(uint64_t bytes) { return bytes / 6 * 5; }

/* The least that works: of it, the cache has `rows` rows in each partition beside what else there is. */
static uint64_t least_memory(const ct_tier *tier, const ct_ticket *ticket, uint64_t rows, uint64_t fixed) {
    const ct_table *table = ticket->table;
    for (uint64_t mib = (fixed >> 20) + 1;; mib++) {
        const uint64_t bytes = mib << 20, used = fixed + growing_bytes(tier, bytes);
        uint32_t each, bits;
        uint64_t entries;
        if (used >= bytes) continue;
        divide(table, &table->partitions[0], cache_of(bytes - used) / tier->trained / table->partition_count, &each, &entries, &bits);
        if (each >= rows) return bytes;
    }
}

static ct_code fail_small(ct_tier *tier, const ct_ticket *ticket, uint64_t rows, uint64_t fixed, ct_status *status) {
    char others[64] = "";
    tier->least_bytes = least_memory(tier, ticket, rows, fixed);
    if (tier->others_counted)
        (void)snprintf(others, sizeof others, ", beside histories of %llu MiB, which grow",
                       (unsigned long long)((tier->others_counted + (1 << 20) - 1) >> 20));
    return ct_fail(
        status, CT_INVALID, "a memory limit of %llu MiB is too small for batches of %zu rows%s; give %llu MiB, or smaller batches",
        (unsigned long long)(tier->memory_bytes >> 20), ticket->lookup.rows, others, (unsigned long long)(tier->least_bytes >> 20));
}

void ct_tier_count_others(ct_tier *tier, uint64_t bytes) { tier->others_counted = bytes; }

/* Rows that a partition must hold at once: those of this batch and of the one before (or of another one like it), where most of them fall.
 * with_rare: all rare rows count in each partition, which is quick. */
static uint64_t rows_of_two(const ct_ticket *ticket, const tier_table *state, bool with_rare) {
    const ct_table *table = ticket->table;
    uint64_t most = 0;
    for (size_t p = 0; p < table->partition_count; p++) {
        uint64_t rows = ticket->unique_counts[p] + (state->sized_for ? state->part[p].asked : ticket->unique_counts[p]);
        for (size_t i = 0; i < ticket->rare_count && !with_rare; i++)
            rows += ct_partition_of(ticket->rare_keys[i], table->partition_bits) == p;
        if (rows > most) most = rows;
    }
    return with_rare ? most + ticket->rare_count : most;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t with_spare(uint64_t count) { return count + count / SPARE_PART + SPARE_LEAST; }

ct_code tier_set_sizes(ct_tier *tier, const ct_ticket *ticket, ct_status *status) {
    ct_table *table = ticket->table;
    tier_table *state = &tier->tables[table - tier->store->tables];
    const uint64_t parts = table->partition_count, others = others_of(tier, tier->memory_bytes);
    uint64_t keys = ticket->rare_count;
    for (size_t p = 0; p < parts; p++) keys += ticket->unique_counts[p];
    const bool as_before = state->sized_for >= keys && state->sized_beside == others;
    if (as_before && state->sized_rows >= rows_of_two(ticket, state, true)) return CT_OK;
    const uint64_t need = larger(state->needed_rows, rows_of_two(ticket, state, false));
    if (as_before && state->sized_rows >= need) return CT_OK;
    uint64_t sized_for = state->sized_for >= keys ? state->sized_for : with_spare(keys);
    uint64_t sized_rows = state->sized_rows >= need ? state->sized_rows : with_spare(need), cache = 0;
    uint32_t rows = 0;
    for (bool again = false;; again = true) {
        const uint64_t fixed = fixed_bytes(tier, ticket, sized_for), other = fixed + growing_bytes(tier, tier->memory_bytes);
        cache = tier->cache_bytes > others ? tier->cache_bytes - others : 0;
        if (!tier->cache_bytes && tier->memory_bytes > other) cache = cache_of(tier->memory_bytes - other);
        divide(table, &table->partitions[0], cache / tier->trained / parts, &rows, &state->most_entries, &state->most_bits);
        if (rows >= sized_rows || tier->cache_bytes) break;
        if (again || !state->sized_for) return fail_small(tier, ticket, with_spare(need), fixed, status);
        sized_for = larger(state->sized_for, keys); /* the first batch leaves room for larger ones; those need none */
        sized_rows = need;
    }
    for (size_t p = 0; p < parts; p++) {
        ct_partition *partition = &table->partitions[p];
        const uint32_t most = partition->rows > rows ? partition->rows : rows; /* more than there may be leave, and then it shrinks */
        uint32_t *free_rows = realloc(partition->free_rows, ((size_t)most + 1) * sizeof *free_rows);
        if (!free_rows) return ct_fail_memory(status, most * sizeof *free_rows, "a table's free rows");
        partition->free_rows = free_rows;
        partition->most_rows = rows;
    }
    state->sized_for = sized_for;
    state->sized_rows = sized_rows;
    state->needed_rows = need;
    state->sized_beside = others;
    state->most_dirty = cache / DIRTY_PART < MOST_DIRTY_BYTES ? cache / DIRTY_PART : MOST_DIRTY_BYTES;
    return CT_OK;
}

ct_code tier_shrink(ct_table *table, const tier_table *state, size_t part, ct_status *status) {
    ct_partition *partition = &table->partitions[part];
    if (partition->rows <= partition->most_rows && partition->index_bits <= state->most_bits) return CT_OK;
    return ct_partition_shrink(table, partition, partition->most_rows, state->most_bits, status);
}
