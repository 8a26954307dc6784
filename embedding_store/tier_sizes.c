/* What the memory limit covers, and how many rows of a table fit into it. */
#include <stdlib.h>

#include "embedding_store/filter.h"
#include "embedding_store/record.h"
#include "embedding_store/tier_internal.h"

enum {
    DATABASE_BYTES = 32 << 20, /* RocksDB's own: readers of files, the file in work, a compaction's buffers; what malloc keeps */
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
static void divide(const ct_table *table, const ct_partition *partition, uint64_t bytes, uint32_t *out_rows, uint64_t *out_entries) {
    *out_rows = 0;
    *out_entries = 0;
    for (uint32_t bits = partition->index_bits; bits < 32 && tier_place_bytes(partition) << bits < bytes; bits++) {
        const uint64_t entries = ((uint64_t)1 << bits) * 7 / 10, left = bytes - (tier_place_bytes(partition) << bits);
        uint64_t rows = left / tier_row_bytes(partition);
        if (rows > entries / entries_a_row(table)) rows = entries / entries_a_row(table);
        if (rows > CT_SLOT_STUB / 2) rows = CT_SLOT_STUB / 2;
        if (rows < *out_rows) break;
        *out_rows = (uint32_t)rows;
        *out_entries = entries;
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
    uint64_t bytes = DATABASE_BYTES + tier->store->changes_bytes + 2 * ticket_bytes(ticket) +
                     keys * (2 * sizeof(uint64_t) + ct_record_bytes(ticket->table));
    for (size_t i = 0; i < tier->store->table_count; i++) {
        const ct_table *table = &tier->store->tables[i];
        if (table->filter) bytes += 2 * ct_filter_bytes(table->filter); /* a snapshot that is written has a copy */
        for (size_t p = 0; p < table->partition_count && table->spec.kind == CT_TABLE_FROZEN; p++) bytes += table->partitions[p].bytes;
    }
    return bytes;
}

/* What leaves at once, and what is dirty, is a part of the cache beside it. */
static uint64_t cache_of(uint64_t bytes) { return bytes / 6 * 5; }

static ct_code fail_small(ct_tier *tier, const ct_ticket *ticket, uint64_t keys, uint64_t other, ct_status *status) {
    const ct_table *table = ticket->table;
    const uint64_t each = (tier_place_bytes(&table->partitions[0]) * 3 + tier_row_bytes(&table->partitions[0])) * entries_a_row(table);
    tier->least_bytes = (((other + keys * each * tier->trained * 6 / 5) >> 20) + 1) << 20;
    return ct_fail(status, CT_INVALID, "a memory limit of %llu MiB is too small for batches of %zu rows; give %llu MiB, or smaller batches",
                   (unsigned long long)(tier->memory_bytes >> 20), ticket->lookup.rows, (unsigned long long)(tier->least_bytes >> 20));
}

ct_code tier_set_sizes(ct_tier *tier, const ct_ticket *ticket, ct_status *status) {
    ct_table *table = ticket->table;
    tier_table *state = &tier->tables[table - tier->store->tables];
    const uint64_t parts = table->partition_count;
    uint64_t keys = ticket->rare_count;
    for (size_t p = 0; p < parts; p++) keys += ticket->unique_counts[p];
    if (state->sized_for >= keys) return CT_OK;
    keys += keys / 4; /* others may have more */
    uint64_t cache = tier->cache_bytes;
    const uint64_t other = other_bytes(tier, ticket, keys);
    if (!cache && tier->memory_bytes > other) cache = cache_of(tier->memory_bytes - other);
    uint32_t rows = 0;
    for (size_t p = 0; p < parts; p++) {
        ct_partition *partition = &table->partitions[p];
        divide(table, partition, cache / tier->trained / parts, &rows, &state->most_entries);
        const uint32_t most = partition->rows > rows ? partition->rows : rows; /* slabs do not shrink */
        uint32_t *free_rows = realloc(partition->free_rows, ((size_t)most + 1) * sizeof *free_rows);
        if (!free_rows) return ct_fail_memory(status, most * sizeof *free_rows, "a table's free rows");
        partition->free_rows = free_rows;
        partition->most_rows = most;
    }
    if (rows * parts < 2 * keys && !tier->cache_bytes) return fail_small(tier, ticket, 2 * keys, other, status); /* two batches */
    state->sized_for = keys;
    state->most_dirty = cache / DIRTY_PART < MOST_DIRTY_BYTES ? cache / DIRTY_PART : MOST_DIRTY_BYTES;
    return CT_OK;
}
