#include "embedding_store/following.h"

#include <stdlib.h>
#include <string.h>

#include "base/pause.h"
#include "embedding_store/delta_internal.h"
#include "embedding_store/live.h"
#include "embedding_store/sorted.h"
#include "embedding_store/tier_internal.h"

typedef struct view {
    ct_store store; /* its tables and their partitions are copies, which share all memory */
    ct_store *overlay;
} view;

struct ct_following {
    ct_store *store;
    view *now, *staged;    /* staged: NULL = none */
    ct_store *old_overlay; /* of now; nobody begins to read it, but somebody may still */
    ct_retired *retired;   /* (tables): of views before */
    uint64_t room_bytes;   /* within a limit on memory, else 0 */
    char *scratch;         /* a folder for what finds no room; NULL = there is none */
    bool staged_outside;   /* of the staged delta: keys that memory has not go to the database */
    uint64_t used_bytes, staged_bytes;
    uint32_t before[CT_STORE_MAX_TABLES]; /* of what is being settled: the tables' oldest days before it */
    bool failed;                          /* it is in memory by half */
};

/* --- views --- */

static void view_destroy(view *view) {
    if (!view) return;
    for (size_t i = 0; view->store.tables && i < view->store.table_count; i++) free(view->store.tables[i].partitions);
    free(view->store.tables);
    ct_store_destroy(view->overlay);
    free(view);
}

static ct_code view_create(const ct_store *store, view **out_view, ct_status *status) {
    view *view = calloc(1, sizeof *view);
    if (!view) return ct_fail_memory(status, sizeof *view, "a view");
    view->store = *store;
    view->store.changes = NULL;
    view->store.view = true;
    view->store.tables = calloc(store->table_count + 1, sizeof *store->tables);
    bool good = view->store.tables != NULL;
    for (size_t i = 0; good && i < store->table_count; i++) {
        ct_table *table = &view->store.tables[i];
        const size_t bytes = store->tables[i].partition_count * sizeof *table->partitions;
        *table = store->tables[i];
        table->partitions = malloc(bytes);
        good = table->partitions != NULL;
        if (good) memcpy(table->partitions, store->tables[i].partitions, bytes);
        atomic_store(&table->lookups, 0);
        atomic_store(&table->unknown, 0);
        atomic_store(&table->missed, 0);
    }
    if (!good) {
        view_destroy(view);
        return ct_fail_memory(status, store->table_count * sizeof *store->tables, "a view");
    }
    *out_view = view;
    return CT_OK;
}

ct_code ct_following_create(ct_store *store, uint64_t room_bytes, const char *scratch, ct_following **out_following, ct_status *status) {
    if (store->mode != CT_STORE_READ) return ct_fail(status, CT_INVALID, "only a store that was opened for reading can follow deltas");
    ct_following *following = calloc(1, sizeof *following);
    if (!following) return ct_fail_memory(status, sizeof *following, "following deltas");
    following->store = store;
    following->retired = calloc(store->table_count + 1, sizeof *following->retired);
    following->room_bytes = store->tier ? room_bytes : 0;
    if (scratch && store->tier) following->scratch = strdup(scratch);
    if (scratch && store->tier && !following->scratch) {
        ct_following_destroy(following);
        return ct_fail_memory(status, strlen(scratch), "a path");
    }
    ct_code code = following->retired ? CT_OK : ct_fail_memory(status, store->table_count * sizeof(ct_retired), "following deltas");
    if (code == CT_OK) code = view_create(store, &following->now, status);
    if (code == CT_OK)
        *out_following = following;
    else
        ct_following_destroy(following);
    return code;
}

void ct_following_destroy(ct_following *following) {
    if (!following) return;
    view_destroy(following->staged);
    view_destroy(following->now);
    ct_store_destroy(following->old_overlay);
    for (size_t i = 0; following->retired && i < following->store->table_count; i++)
        ct_retired_release(&following->retired[i], &following->store->tables[i]);
    free(following->retired);
    free(following->scratch);
    free(following);
}

ct_store *ct_following_view(const ct_following *following) { return &following->now->store; }

/* --- stage --- */

typedef struct loading {
    ct_following *following;
    ct_store *overlay;
    const ct_delta *delta;
} loading;

static ct_code load_record(void *context, size_t number, uint64_t key, const char *record, bool row, ct_status *status) {
    const loading *work = context;
    const ct_store *store = work->following->store;
    const ct_table *table = &store->tables[number];
    ct_table *to = &work->overlay->tables[number];
    ct_partition *partition = &to->partitions[ct_partition_of(key, to->partition_bits)];
    const bool counts = table->spec.target_stats; /* else a key without a row is as good as none */
    if (!row) {
        const ct_stored_table *stored = &work->delta->stored[number];
        const uint32_t oldest = ct_oldest_day(table->spec.expire_days, stored->first_day, stored->today);
        const ct_found found = ct_partition_look(&table->partitions[ct_partition_of(key, table->partition_bits)], key, 0);
        if (found.slot == CT_SLOT_EMPTY && !counts) return CT_OK;
        if (found.slot != CT_SLOT_EMPTY && found.slot != CT_SLOT_STUB && !(found.counts && found.counts->day < oldest))
            return ct_fail(status, CT_CORRUPT, "%s: key %016llx of table %s has no row any more, but its row has not expired",
                           ct_delta_path(work->delta), (unsigned long long)key, table->spec.name);
    }
    ct_index_entry *entry;
    CT_TRY(ct_partition_claim(to, partition, key, &entry, status));
    return record ? ct_record_decode(to, partition, &work->delta->stored[number], record, row, entry, status) : CT_OK;
}

static ct_code load_overlay(ct_following *following, const ct_delta *delta, ct_store **out_overlay, ct_status *status) {
    const ct_store *store = following->store;
    ct_table_spec specs[CT_STORE_MAX_TABLES];
    for (size_t i = 0; i < store->table_count; i++) specs[i] = store->tables[i].spec;
    ct_store *overlay = NULL;
    CT_TRY(ct_store_create_parted(specs, store->table_count, CT_STORE_READ, store->partition_bits, store->device, NULL, &overlay, status));
    loading work = {following, overlay, delta};
    const ct_code code = ct_delta_scan(delta, false, load_record, &work, status);
    if (code != CT_OK) {
        ct_store_destroy(overlay);
        return code;
    }
    for (size_t i = 0; i < store->table_count; i++) overlay->tables[i].counted_epoch = delta->stored[i].counted_epoch;
    *out_overlay = overlay;
    return CT_OK;
}

/* What a delta adds to a partition of a table, and takes from it. */
typedef struct needs {
    size_t entries, rows, freed;
} needs;

/* A sorted row has been given back where it expired before `oldest`. */
static ct_key_counts *sorted_counts(const ct_partition *partition, uint32_t row) {
    return partition->counts.floats ? (ct_key_counts *)(void *)ct_slab_at(&partition->counts, row) : NULL;
}
static bool sorted_lives(const ct_partition *partition, uint32_t row, uint32_t oldest) {
    return row != CT_NO_ROW && (!partition->counts.floats || sorted_counts(partition, row)->day >= oldest);
}

/* Rows that expire by the table's day, which was `before`; those that the overlay has do not. Keys of sorted rows are not at hand: the
 * overlay's are looked for among them. */
static void count_expiring(const ct_table *table, const ct_partition *partition, const ct_partition *overlay, uint32_t before,
                           size_t *out_index, size_t *out_sorted) {
    size_t index = 0, sorted = 0;
    for (size_t place = 0; place < (size_t)1 << partition->index_bits; place++) {
        const ct_index_entry *entry = ct_partition_entry(partition, place);
        index += entry->slot != CT_SLOT_EMPTY && entry->slot != CT_SLOT_STUB && ct_entry_expired(table, entry) &&
                 !ct_partition_find(overlay, entry->key);
    }
    for (uint32_t row = 0; row < partition->sorted.count; row++)
        sorted += sorted_lives(partition, row, before) && !sorted_lives(partition, row, table->oldest_day);
    for (size_t place = 0; place < (size_t)1 << overlay->index_bits; place++) {
        const ct_index_entry *entry = ct_partition_entry(overlay, place);
        if (entry->slot == CT_SLOT_EMPTY || entry->slot == CT_SLOT_STUB) continue; /* a stub's row expires */
        const uint32_t row = ct_sorted_find(&partition->sorted, entry->key);
        sorted -= sorted_lives(partition, row, before) && !sorted_lives(partition, row, table->oldest_day);
    }
    *out_index = index;
    *out_sorted = sorted;
}

/* oldest: of the table, as it is. outside: keys that memory has not go elsewhere. */
static needs needs_of(const ct_partition *from, const ct_partition *to, uint32_t oldest, bool outside) {
    needs need = {0};
    for (size_t place = 0; place < (size_t)1 << from->index_bits; place++) {
        const ct_index_entry *entry = ct_partition_entry(from, place);
        if (entry->slot == CT_SLOT_EMPTY) continue;
        const bool row = entry->slot != CT_SLOT_STUB;
        const ct_index_entry *there = ct_partition_find(to, entry->key);
        if (sorted_lives(to, ct_sorted_find(&to->sorted, entry->key), oldest)) {
            need.entries += !row && !outside; /* its row, which has expired, is given back with the others */
            continue;
        }
        if (outside && !there) continue;
        const bool had = there && there->slot != CT_SLOT_STUB;
        need.entries += !there;
        need.rows += row && !had;
        need.freed += !row && had;
    }
    return need;
}

/* Fills needs: (tables, partitions). Returns the bytes that they come to. */
static uint64_t needed(const ct_following *following, const ct_store *overlay, bool outside, needs *needs) {
    const ct_store *store = following->store;
    uint64_t bytes = 0;
    for (size_t i = 0; i < store->table_count; i++) {
        const ct_table *table = &store->tables[i];
        for (size_t p = 0; p < table->partition_count; p++) {
            struct needs *need = &needs[i * table->partition_count + p];
            *need = needs_of(&overlay->tables[i].partitions[p], &table->partitions[p], table->oldest_day, outside);
            bytes += need->rows * tier_row_bytes(&table->partitions[p]) + need->entries * 3 * tier_place_bytes(&table->partitions[p]);
        }
    }
    return bytes;
}

/* Room in the tables, and what the view's readers may know of their sizes. */
static ct_code make_room(ct_following *following, const ct_store *overlay, const ct_delta *delta, needs *needs, ct_status *status) {
    ct_store *store = following->store;
    uint64_t bytes = needed(following, overlay, false, needs);
    following->staged_outside = following->room_bytes && following->scratch && following->used_bytes + bytes > following->room_bytes;
    if (following->staged_outside)
        bytes = needed(following, overlay, true, needs);
    else if (following->room_bytes && following->used_bytes + bytes > following->room_bytes)
        return ct_fail(
            status, CT_EXHAUSTED,
            "%s: the rows that deltas have changed and that were not in memory need %llu KiB, and the memory limit leaves %llu KiB "
            "for them; give more memory, or begin anew with a later base",
            ct_delta_path(delta), (unsigned long long)((following->used_bytes + bytes) >> 10),
            (unsigned long long)(following->room_bytes >> 10));
    following->staged_bytes = bytes;
    for (size_t i = 0; i < store->table_count; i++) {
        ct_table *table = &store->tables[i];
        for (size_t p = 0; p < table->partition_count; p++) {
            const struct needs *need = &needs[i * table->partition_count + p];
            CT_TRY(ct_partition_grow_aside(table, &table->partitions[p], need->entries, need->rows, &following->retired[i], status));
            ct_pause_point();
        }
    }
    return CT_OK;
}

/* Its tables come to the day of the delta, and its readers know what has expired. */
static void tell_sizes(ct_store *view, const ct_store *overlay, const ct_delta *delta, const needs *needs) {
    for (size_t i = 0; i < view->table_count; i++) {
        ct_table *table = &view->tables[i];
        const ct_stored_table *stored = &delta->stored[i];
        int64_t rows = 0, stubs = 0;
        const uint32_t before = table->oldest_day;
        ct_table_set_day(table, stored->first_day, stored->today);
        for (size_t p = 0; p < table->partition_count; p++) {
            const struct needs *need = &needs[i * table->partition_count + p];
            ct_partition *partition = &table->partitions[p];
            if (table->oldest_day > before) {
                size_t index, sorted;
                count_expiring(table, partition, &overlay->tables[i].partitions[p], before, &index, &sorted);
                partition->free_count += (uint32_t)(index + sorted);
                partition->sorted.alive -= (uint32_t)sorted;
            }
            partition->used += need->entries;
            partition->rows += (uint32_t)need->rows;
            partition->free_count += (uint32_t)need->freed;
            rows += ct_partition_rows(partition);
            stubs += ct_partition_stubs(partition);
        }
        table->counted_epoch = stored->counted_epoch;
        table->expired = stored->expired;
        table->stored_stubs = stored->stubs;
        if (!view->tier || stored->spec.kind != CT_TABLE_TRAINED) continue;
        table->outside_rows = stored->rows > rows ? stored->rows - rows : 0;
        table->outside_stubs = table->spec.target_stats && stored->stubs > stubs ? stored->stubs - stubs : 0;
    }
}

ct_code ct_following_stage(ct_following *following, const ct_delta *delta, ct_store **out_view, ct_status *status) {
    if (following->staged) return ct_fail(status, CT_INVALID, "%s: another delta was staged and not settled", ct_delta_path(delta));
    if (following->now->overlay) return ct_fail(status, CT_INVALID, "%s: the delta before is not settled", ct_delta_path(delta));
    const ct_store *store = following->store;
    ct_store *overlay = NULL;
    view *staged = NULL;
    ct_code code;
    CT_TRY(ct_delta_check_tables(delta, store, status));
    needs *needs = calloc((store->table_count << store->partition_bits) + 1, sizeof *needs);
    if (!needs) return ct_fail_memory(status, sizeof *needs << store->partition_bits, "a delta");
    CT_TRY_GOTO(code, load_overlay(following, delta, &overlay, status), fail);
    CT_TRY_GOTO(code, make_room(following, overlay, delta, needs, status), fail);
    CT_TRY_GOTO(code, view_create(store, &staged, status), fail);
    tell_sizes(&staged->store, overlay, delta, needs);
    staged->overlay = overlay;
    atomic_store(&staged->store.overlay, overlay);
    following->staged = staged;
    *out_view = &staged->store;
    free(needs);
    return CT_OK;
fail:
    free(needs);
    ct_store_destroy(overlay);
    return code;
}

void ct_following_drop(ct_following *following) {
    view_destroy(following->staged);
    following->staged = NULL;
}

/* --- settle --- */

/* Does the partition have the key of an overlay's entry, so that what changes must change there? Its row among the sorted ones, if the
 * entry has none, has expired. */
static bool in_memory(const ct_partition *partition, const ct_index_entry *entry, uint32_t before) {
    if (entry->slot != CT_SLOT_STUB && sorted_lives(partition, ct_sorted_find(&partition->sorted, entry->key), before)) return true;
    return ct_partition_find(partition, entry->key) != NULL;
}

/* One entry of the overlay into its partition, where others read at other keys. before: the oldest day when rows were given back last. */
static ct_code settle_entry(ct_table *table, ct_partition *partition, const ct_partition *from, ct_index_entry *entry, uint32_t before,
                            ct_status *status) {
    const bool row = entry->slot != CT_SLOT_STUB;
    const uint32_t sorted = row ? ct_sorted_find(&partition->sorted, entry->key) : CT_NO_ROW;
    if (sorted_lives(partition, sorted, before)) {
        memcpy(ct_slab_at(&partition->values, sorted), ct_slab_at(&from->values, entry->slot - 1), from->values.floats * sizeof(float));
        if (partition->counts.floats) *sorted_counts(partition, sorted) = *ct_entry_counts(entry);
        return CT_OK;
    }
    const size_t mask = ((size_t)1 << partition->index_bits) - 1;
    size_t at = ct_key_home(entry->key, partition->index_bits);
    ct_index_entry *to;
    while ((to = ct_partition_entry(partition, at))->slot != CT_SLOT_EMPTY && to->key != entry->key) at = (at + 1) & mask;
    const bool is_new = to->slot == CT_SLOT_EMPTY;
    ct_index_entry fresh = {.key = entry->key, .slot = is_new ? CT_SLOT_STUB : to->slot};
    if (row) {
        if (fresh.slot == CT_SLOT_STUB) CT_TRY(ct_partition_add_row(table, partition, &fresh, status));
        memcpy(ct_slab_at(&partition->values, fresh.slot - 1), ct_slab_at(&from->values, entry->slot - 1),
               from->values.floats * sizeof(float));
    } else if (fresh.slot != CT_SLOT_STUB) {
        CT_TRY(ct_partition_drop_row(partition, &fresh, status));
    }
    to->count = entry->count;
    if (ct_entry_shift(&table->spec)) *ct_entry_counts(to) = *ct_entry_counts(entry);
    if (is_new) {
        partition->used++;
        __atomic_store_n(&to->key, entry->key, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&to->slot, fresh.slot, __ATOMIC_RELEASE);
    return CT_OK;
}

/* What has expired gives its row back; the entry stays, where others may be looking for the next one. */
static ct_code settle_expired(const ct_table *table, ct_partition *partition, uint32_t before, ct_status *status) {
    for (uint32_t row = 0; row < partition->sorted.count; row++) {
        if (!sorted_lives(partition, row, before) || sorted_lives(partition, row, table->oldest_day)) continue;
        ct_index_entry gone = {.slot = row + 1};
        CT_TRY(ct_partition_drop_row(partition, &gone, status));
        partition->sorted.alive--;
    }
    for (size_t place = 0; place < (size_t)1 << partition->index_bits; place++) {
        ct_index_entry *entry = ct_partition_entry(partition, place);
        if (entry->slot == CT_SLOT_EMPTY || entry->slot == CT_SLOT_STUB || !ct_entry_expired(table, entry)) continue;
        ct_index_entry gone = *entry;
        CT_TRY(ct_partition_drop_row(partition, &gone, status));
        __atomic_store_n(&entry->slot, CT_SLOT_STUB, __ATOMIC_RELAXED);
    }
    return CT_OK;
}

/* The entries of the overlay that the partition has not, into the database's file in work, in the order of keys. */
static ct_code put_outside(ct_live *changed, const ct_partition *partition, const ct_table *overlay, const ct_partition *from,
                           uint32_t before, ct_status *status) {
    char record[CT_RECORD_MAX_BYTES];
    ct_index_entry *entries = NULL;
    CT_TRY(ct_partition_sorted(from, &entries, status));
    ct_code code = CT_OK;
    for (size_t i = 0; i < from->used && code == CT_OK; i++) {
        const ct_index_entry *entry = ct_partition_find(from, entries[i].key); /* with its counts */
        if (in_memory(partition, entry, before)) continue;
        code = ct_live_put(changed, entry->key, record, ct_record_encode(overlay, from, entry, record), status);
    }
    free(entries);
    return code;
}

static ct_code settle_outside(ct_following *following, const ct_store *overlay, size_t number, uint32_t before, ct_status *status) {
    const ct_table *table = &following->store->tables[number], *from = &overlay->tables[number];
    ct_live *changed = ct_tier_changed(following->store->tier);
    if (table->spec.kind != CT_TABLE_TRAINED) return CT_OK;
    CT_TRY(ct_live_begin(changed, number, status));
    ct_code code = CT_OK;
    for (size_t p = 0; p < table->partition_count && code == CT_OK; p++)
        code = put_outside(changed, &table->partitions[p], from, &from->partitions[p], before, status);
    if (code == CT_OK) return ct_live_end(changed, status);
    ct_live_abandon(changed);
    return code;
}

/* The staged view is what is read from now on. */
static void take_over(ct_following *following) {
    ct_store *store = following->store;
    view *staged = following->staged;
    view_destroy(following->now); /* without an overlay: that is old_overlay */
    following->now = staged;
    following->staged = NULL;
    following->used_bytes += following->staged_bytes;
    ct_store_destroy(following->old_overlay);
    following->old_overlay = NULL;
    for (size_t i = 0; i < store->table_count; i++) {
        ct_table *table = &store->tables[i];
        const ct_table *seen = &staged->store.tables[i];
        ct_retired_release(&following->retired[i], table);
        following->before[i] = table->oldest_day;
        table->counted_epoch = seen->counted_epoch;
        table->expired = seen->expired;
        table->stored_stubs = seen->stored_stubs;
        ct_table_set_day(table, seen->first_day, seen->day);
    }
}

static ct_code settle_table(ct_following *following, size_t number, ct_status *status) {
    ct_table *table = &following->store->tables[number];
    const uint32_t before = following->before[number];
    for (size_t p = 0; p < table->partition_count; p++) {
        const ct_partition *from = &following->now->overlay->tables[number].partitions[p];
        for (size_t place = 0; place < (size_t)1 << from->index_bits; place++) {
            ct_index_entry *entry = ct_partition_entry(from, place);
            if (entry->slot == CT_SLOT_EMPTY) continue;
            if (!following->staged_outside || in_memory(&table->partitions[p], entry, before))
                CT_TRY(settle_entry(table, &table->partitions[p], from, entry, before, status));
        }
        if (table->oldest_day > before) CT_TRY(settle_expired(table, &table->partitions[p], before, status));
        ct_pause_point();
    }
    return CT_OK;
}

ct_code ct_following_settle(ct_following *following, ct_status *status) {
    ct_store *store = following->store;
    if (following->staged) take_over(following);
    const ct_store *overlay = following->now->overlay;
    if (!overlay) return CT_OK;
    if (following->failed) return ct_fail(status, CT_INVALID, "a delta could not be put into memory; begin anew with a later base");
    /* The disk first: where that fails, nothing has changed, and all of it may be tried again. */
    if (following->staged_outside && !ct_tier_changed(store->tier)) CT_TRY(ct_tier_create_changed(store->tier, following->scratch, status));
    for (size_t i = 0; i < store->table_count; i++) {
        if (following->staged_outside) CT_TRY(settle_outside(following, overlay, i, following->before[i], status));
        if (store->tier) ct_tier_expire_changed(store->tier, &store->tables[i]);
    }
    following->failed = true;
    for (size_t i = 0; i < store->table_count; i++) CT_TRY(settle_table(following, i, status));
    following->failed = false;
    atomic_store(&following->now->store.overlay, NULL);
    following->old_overlay = following->now->overlay;
    following->now->overlay = NULL;
    return CT_OK;
}
