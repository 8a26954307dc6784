/* Rows from another store's snapshot: what a new training begins with. */
#include <stdlib.h>
#include <string.h>

#include "embedding_store/tier.h"

/* The counts of the other store's last epoch become those of epoch 0, where a training begins; older ones count as none. */
static void begin_epoch(ct_table *table, uint32_t counted_epoch) {
    for (size_t p = 0; p < table->partition_count; p++) {
        const ct_partition *partition = &table->partitions[p];
        for (size_t place = 0; place < (size_t)1 << partition->index_bits; place++) {
            ct_index_entry *entry = ct_partition_entry(partition, place);
            if (entry->slot == CT_SLOT_EMPTY) continue;
            const ct_seen seen = ct_counts_in_epoch(ct_entry_counts(entry), counted_epoch);
            ct_key_counts *counts = ct_entry_counts(entry);
            counts->impressions = seen.impressions;
            counts->clicks = seen.clicks;
            counts->epoch = 0;
        }
    }
    table->counted_epoch = 0;
}

ct_code ct_store_take(ct_store *store, size_t number, const char *folder, ct_store_taken *out_taken, ct_status *status) {
    ct_stored_table *stored = NULL;
    size_t count = 0, from = 0;
    ct_table *table = &store->tables[number];
    ct_table_info info;
    ct_store_table_info(store, number, &info);
    if (info.rows + info.stubs > 0) return ct_fail(status, CT_INVALID, "table %s has rows already", table->spec.name);
    CT_TRY(ct_store_manifest_read(folder, &stored, &count, NULL, status));
    while (from < count && strcmp(stored[from].spec.name, table->spec.name) != 0) from++;
    ct_store_taken taken = {0};
    ct_code code = CT_OK;
    if (from < count) {
        ct_stored_table *other = &stored[from];
        taken.dim = other->spec.dim;
        taken.optimiser = other->spec.optimiser;
        taken.rows_taken = other->spec.kind == table->spec.kind && other->spec.dim == table->spec.dim;
        taken.state_taken = taken.rows_taken && other->spec.optimiser == table->spec.optimiser;
        taken.counts_taken = taken.rows_taken && other->spec.target_stats && table->spec.target_stats;
        if (!taken.state_taken)
            for (size_t i = 0; i < CT_STATE_COLUMNS; i++) other->state[i].present = false;
        if (taken.rows_taken && table->spec.expire_days) {
            ct_table_set_day(table, other->first_day, other->today);
            if (store->tier) code = ct_tier_expire(store->tier, table, status);
        }
        if (code != CT_OK) {
        } else if (taken.rows_taken && store->tier) {
            code = ct_tier_take(store, number, folder, stored, count, from, status);
        } else if (taken.rows_taken) {
            ct_store view = *store; /* of this one table */
            view.tables = table;
            view.table_count = 1;
            code = ct_disk_read(&view, folder, other, false, status);
        }
        if (code == CT_OK && taken.counts_taken && !store->tier) begin_epoch(table, other->counted_epoch);
        if (code == CT_OK && taken.rows_taken) {
            ct_store_table_info(store, number, &info);
            taken.rows = info.rows;
            taken.stubs = info.stubs;
        }
    }
    free(stored);
    if (code == CT_OK) *out_taken = taken;
    return code;
}
