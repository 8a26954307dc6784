/* Expiry: a key that was not seen for more than expire_days days of the log is as if it had never been seen.
 *
 * The log's day is the latest one of the training look-ups so far. It never goes back, so what has expired stays expired, whoever looks and
 * whenever it is removed. Every key keeps the day on which it was last seen: 0 where it came from a store without days, which counts as the
 * first one here; CT_DAY_NEVER for rare rows. When the log comes to a new day, all
 * that has expired goes before the look-up finds any row: once for each day of the log, so look-ups themselves compare nothing. What is on
 * disk alone stays there: whoever reads a record compares the days, and counts and sums are kept by day (tier_internal.h), so that they can
 * be taken off without reading. Compactions drop it; a snapshot of tables in memory does not have it. */
#include <stdlib.h>

#include "embedding_store/changes.h"
#include "embedding_store/saver.h"
#include "embedding_store/tier.h"

typedef struct expire_work {
    ct_store *store;
    ct_table *table;
    _Atomic int64_t rows; /* that expired */
    ct_failure failure;
} expire_work;

static ct_code expire_part(expire_work *work, size_t part, ct_status *status) {
    const ct_table *table = work->table;
    ct_partition *partition = &work->table->partitions[part];
    int64_t rows = 0;
    if (!work->store->tier && partition->rows > 0) { /* a tier has made the room */
        uint32_t *free_rows = realloc(partition->free_rows, partition->rows * sizeof *free_rows);
        if (!free_rows) return ct_fail_memory(status, partition->rows * sizeof *free_rows, "a table's free rows");
        partition->free_rows = free_rows;
    }
    for (size_t place = 0; place < (size_t)1 << partition->index_bits;) {
        ct_index_entry *entry = ct_partition_entry(partition, place);
        if (entry->slot == CT_SLOT_EMPTY || ct_entry_counts(entry)->day >= table->oldest_day) {
            place++;
            continue;
        }
        rows += entry->slot != CT_SLOT_STUB;
        if (work->store->changes) ct_changes_expire(work->store->changes, table, part, entry);
        if (work->store->saver) CT_TRY(ct_saver_let_go(work->store->saver, table, part, entry, status));
        if (!work->store->tier || ct_tier_let_go(work->store->tier, table, part, place)) {
            ct_partition_remove(partition, place); /* another entry may stand there now */
        } else {
            ct_partition_free_row(partition, entry);
            entry->count = 0;
            *ct_entry_counts(entry) = (ct_key_counts){.day = table->day};
        }
    }
    atomic_fetch_add_explicit(&work->rows, rows, memory_order_relaxed);
    return CT_OK;
}

static void expire_task(void *context, size_t part, size_t worker) {
    (void)worker;
    expire_work *work = context;
    ct_saver *saver = work->store->saver;
    ct_status status;
    if (saver) ct_saver_lock(saver, work->table, part);
    if (expire_part(work, part, &status) != CT_OK) ct_failure_put(&work->failure, &status);
    if (saver) ct_saver_unlock(saver, work->table, part);
}

ct_code ct_expire_rows(ct_store *store, ct_table *table, ct_status *status) {
    expire_work work = {.store = store, .table = table, .failure = {.status = status}};
    ct_run(store->pool, table->partition_count, expire_task, &work);
    table->expired += work.rows;
    return ct_failure_code(&work.failure);
}

ct_code ct_expire(ct_store *store, ct_table *table, uint32_t day, ct_status *status) {
    if (day <= table->day) return CT_OK;
    if (day == CT_DAY_NEVER) return ct_fail(status, CT_INVALID, "lookup: day %u", day);
    const uint32_t before = table->oldest_day;
    ct_table_set_day(table, table->day ? table->first_day : day, day);
    if (store->tier) CT_TRY(ct_tier_expire(store->tier, table, status));
    return table->oldest_day == before ? CT_OK : ct_expire_rows(store, table, status);
}
