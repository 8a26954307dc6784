/* Snapshots of a store within a limit: what has changed is written out, and then the database has it all. */
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

typedef struct take_work {
    ct_table *table;
    const ct_stored_table *from;
    ct_live *live;
    ct_tier *tier;
    size_t number;         /* of the table */
    ct_partition *scratch; /* holds one row at a time */
    int64_t rows, stubs;   /* of the other table */
} take_work;

/* Read into a partition of its own, and written as this table's. */
static ct_code take_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    take_work *work = context;
    ct_table *table = work->table;
    ct_index_entry *entry;
    bool row, lives;
    char out[CT_RECORD_MAX_BYTES];
    (void)number;
    CT_TRY(ct_record_check(work->from, record, bytes, &row, status));
    CT_TRY(ct_record_lives(work->from, record, &lives, status));
    if (!lives) return CT_OK;
    work->rows += row;
    work->stubs += !row;
    if (table->spec.expire_days && ct_record_day(work->from, record) < table->oldest_day) return CT_OK;
    CT_TRY(ct_partition_claim(table, work->scratch, key, &entry, status));
    CT_TRY(ct_record_decode(table, work->scratch, work->from, record, row, entry, status));
    if (table->spec.target_stats) {
        ct_key_counts *counts = ct_entry_counts(entry);
        const ct_seen seen = ct_counts_in_epoch(counts, work->from->counted_epoch);
        counts->impressions = seen.impressions;
        counts->clicks = seen.clicks;
        counts->epoch = 0;
    }
    const size_t size = ct_record_encode(table, work->scratch, entry, out);
    CT_TRY(ct_live_put(work->live, key, out, size, status));
    CT_TRY(ct_tier_count(work->tier, work->number, key, out, size, row, status));
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
    take_work work = {.table = table, .from = &stored[from], .live = ct_tier_live(store->tier), .tier = store->tier, .number = number};
    ct_code code;
    for (size_t i = 0; i < count; i++) names[i] = stored[i].spec.name;
    CT_TRY(ct_live_open(folder, CT_LIVE_SCANS, names, count, &other, status));
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
    if (code == CT_OK && (work.rows != stored[from].rows || work.stubs != stored[from].stubs))
        code = ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", folder,
                       table->spec.name, (long long)work.rows, (long long)work.stubs, (long long)stored[from].rows,
                       (long long)stored[from].stubs);
done:
    if (work.scratch) work.scratch->touched = work.scratch->free_rows = NULL; /* not the heap's */
    ct_table_deinit(&scratch);
    ct_live_close(other);
    return code;
}
