/* Snapshots and digests of a store within a limit: what has changed is written out, and then the database has it all. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "embedding_store/database.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/tier.h"

/* Frozen tables never change: one file each, once. */
static ct_code write_frozen(ct_store *store, size_t number, ct_status *status) {
    const ct_table *table = &store->tables[number];
    ct_live *live = ct_tier_live(store->tier);
    char record[CT_RECORD_MAX_BYTES];
    CT_TRY(ct_live_begin(live, number, status));
    ct_code code = CT_OK;
    for (size_t p = 0; p < table->partition_count && code == CT_OK; p++) {
        const ct_partition *partition = &table->partitions[p];
        ct_index_entry *entries;
        code = ct_partition_sorted(partition, &entries, status);
        for (size_t i = 0; code == CT_OK && i < partition->used; i++)
            code = ct_live_put(live, entries[i].key, record, ct_record_encode(table, partition, &entries[i], record), status);
        if (partition->used && code == CT_OK) free(entries);
    }
    if (code == CT_OK) return ct_live_end(live, status);
    ct_live_abandon(live);
    return code;
}

ct_code ct_tier_snapshot(ct_store *store, const char *folder, ct_status *status) {
    CT_TRY(ct_tier_flush(store->tier, status));
    CT_TRY(ct_tier_check_finite(store->tier, status));
    for (size_t i = 0; i < store->table_count && !store->frozen_live; i++)
        if (store->tables[i].spec.kind == CT_TABLE_FROZEN) CT_TRY(write_frozen(store, i, status));
    store->frozen_live = true;
    CT_TRY(ct_live_checkpoint(ct_tier_live(store->tier), folder, status));
    return ct_database_tidy(folder, status);
}

typedef struct digest_work {
    const ct_stored_table *layout;
    ct_digest *digest;
    int64_t rows, stubs;
} digest_work;

/* As store.c's digest_entries feeds a resident one. */
static ct_code digest_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    digest_work *work = context;
    const ct_stored_table *layout = work->layout;
    bool row;
    (void)number;
    CT_TRY(ct_record_check(layout, record, bytes, &row, status));
    ct_digest_update_u64(work->digest, key);
    ct_digest_update_u64(work->digest, (uint64_t)ct_get_le32(record + layout->count.offset) << 1 | row);
    if (layout->spec.target_stats) {
        ct_digest_update_u64(
            work->digest, (uint64_t)ct_get_le32(record + layout->impressions.offset) << 32 | ct_get_le32(record + layout->clicks.offset));
        ct_digest_update_u64(work->digest, ct_get_le32(record + layout->epoch.offset));
    }
    work->rows += row;
    work->stubs += !row;
    if (!row) return CT_OK;
    ct_digest_update(work->digest, record + layout->value.offset, layout->spec.dim * sizeof(float));
    ct_state_column columns[CT_STATE_COLUMNS];
    const size_t count = ct_state_columns(&layout->spec, columns);
    for (size_t i = 0; i < count; i++) {
        if (layout->state[i].present) {
            ct_digest_update(work->digest, record + layout->state[i].offset, columns[i].count * sizeof(float));
        } else {
            for (uint32_t j = 0; j < columns[i].count; j++) ct_digest_update(work->digest, &columns[i].initial, sizeof(float));
        }
    }
    return CT_OK;
}

ct_code ct_tier_digest(ct_store *store, size_t table, ct_digest *digest, ct_status *status) {
    digest_work work = {.layout = ct_tier_layout(store->tier, table), .digest = digest};
    CT_TRY(ct_live_scan(ct_tier_live(store->tier), table, digest_record, &work, status));
    ct_table_info info;
    ct_store_table_info(store, table, &info);
    if (work.rows != info.rows || work.stubs != info.stubs)
        return ct_fail(status, CT_CORRUPT, "table %s has %lld rows and %lld stubs in its database, should have %lld and %lld",
                       store->tables[table].spec.name, (long long)work.rows, (long long)work.stubs, (long long)info.rows,
                       (long long)info.stubs);
    return CT_OK;
}

typedef struct take_work {
    ct_table *table;
    const ct_stored_table *from;
    ct_live *live;
    ct_partition *scratch; /* holds one row at a time */
} take_work;

/* Read into a partition of its own, and written as this table's. */
static ct_code take_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    take_work *work = context;
    ct_table *table = work->table;
    ct_index_entry *entry;
    bool row;
    char out[CT_RECORD_MAX_BYTES];
    (void)number;
    CT_TRY(ct_record_check(work->from, record, bytes, &row, status));
    CT_TRY(ct_partition_claim(table, work->scratch, key, &entry, status));
    CT_TRY(ct_record_decode(table, work->scratch, work->from, record, row, entry, status));
    if (table->spec.target_stats) {
        const ct_seen seen = ct_counts_in_epoch(ct_entry_counts(entry), work->from->counted_epoch);
        *ct_entry_counts(entry) = (ct_key_counts){.impressions = seen.impressions, .clicks = seen.clicks};
    }
    CT_TRY(ct_live_put(work->live, key, out, ct_record_encode(table, work->scratch, entry, out), status));
    ct_partition_remove(work->scratch, ct_partition_place(work->scratch, entry));
    if (row)
        table->outside_rows++;
    else
        table->outside_stubs++;
    return CT_OK;
}

ct_code ct_tier_take(ct_store *store, size_t number, const char *folder, const ct_stored_table *stored, size_t count, size_t from,
                     ct_status *status) {
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    ct_live *other = NULL;
    ct_table scratch = {0};
    uint32_t touched[16], free_rows[1]; /* an index of 2^4 places and one row are all that is used */
    ct_table *table = &store->tables[number];
    take_work work = {.table = table, .from = &stored[from], .live = ct_tier_live(store->tier)};
    ct_code code;
    for (size_t i = 0; i < count; i++) names[i] = stored[i].spec.name;
    CT_TRY(ct_live_open(folder, names, count, &other, status));
    CT_TRY_GOTO(code, ct_table_init(&scratch, &table->spec, store->device, 0, ct_state_floats(&table->spec), status), done);
    work.scratch = &scratch.partitions[0];
    work.scratch->touched = touched;
    work.scratch->free_rows = free_rows;
    CT_TRY_GOTO(code, ct_live_begin(work.live, number, status), done);
    code = ct_live_scan(other, from, take_record, &work, status);
    if (code == CT_OK)
        code = ct_live_end(work.live, status);
    else
        ct_live_abandon(work.live);
    if (code == CT_OK && (table->outside_rows != stored[from].rows || table->outside_stubs != stored[from].stubs))
        code = ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", folder,
                       table->spec.name, (long long)table->outside_rows, (long long)table->outside_stubs, (long long)stored[from].rows,
                       (long long)stored[from].stubs);
done:
    if (work.scratch) work.scratch->touched = work.scratch->free_rows = NULL; /* not the heap's */
    ct_table_deinit(&scratch);
    ct_live_close(other);
    return code;
}
