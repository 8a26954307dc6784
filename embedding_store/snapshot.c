/* Snapshots: of tables in memory whole at once (disk.c), or what has changed while training goes on (saver.c); of those within a limit what
 * has changed is written out, and then the database has it all. And what a new training within a limit takes from one. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
#include "embedding_store/database.h"
#include "embedding_store/filter.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/saver.h"
#include "embedding_store/tier.h"

struct ct_snapshot {
    ct_store *store;
    char *folder;
    json_t *manifest; /* store.json; NULL = nothing is left to be written */
    ct_table_state states[CT_STORE_MAX_TABLES];
    ct_filter *filters[CT_STORE_MAX_TABLES]; /* copies, of tables that have one */
    bool linking;                            /* the helper has snapshot's folder in work, or will */
};

/* Whose turn it is to write snapshots. */
struct ct_snapshot_turn {
    pthread_mutex_t mutex;
    pthread_cond_t over;
    bool taken;
};

ct_code ct_snapshot_turn_create(ct_snapshot_turn **out_turn, ct_status *status) {
    ct_snapshot_turn *turn = calloc(1, sizeof *turn);
    if (!turn) return ct_fail_memory(status, sizeof *turn, "a store");
    (void)pthread_mutex_init(&turn->mutex, NULL);
    (void)pthread_cond_init(&turn->over, NULL);
    *out_turn = turn;
    return CT_OK;
}

void ct_snapshot_turn_destroy(ct_snapshot_turn *turn) {
    if (!turn) return;
    (void)pthread_mutex_destroy(&turn->mutex);
    (void)pthread_cond_destroy(&turn->over);
    free(turn);
}

static void take_turn(ct_snapshot_turn *turn) {
    (void)pthread_mutex_lock(&turn->mutex);
    while (turn->taken) (void)pthread_cond_wait(&turn->over, &turn->mutex);
    turn->taken = true;
    (void)pthread_mutex_unlock(&turn->mutex);
}

static void end_turn(ct_snapshot_turn *turn) {
    (void)pthread_mutex_lock(&turn->mutex);
    turn->taken = false;
    (void)pthread_cond_broadcast(&turn->over);
    (void)pthread_mutex_unlock(&turn->mutex);
}

void ct_snapshot_wait(ct_store *store) {
    if (!store->turn) return;
    take_turn(store->turn);
    end_turn(store->turn);
}

static ct_code save_manifest(const ct_snapshot *snapshot, ct_status *status) {
    char *path = ct_path_join(snapshot->folder, "store.json");
    const ct_code code = path ? ct_json_save(path, snapshot->manifest, status) : ct_fail_memory(status, strlen(snapshot->folder), "a path");
    free(path);
    return code;
}

static ct_code copy_filters(ct_snapshot *snapshot, ct_status *status) {
    const ct_store *store = snapshot->store;
    for (size_t i = 0; i < store->table_count; i++)
        if (store->tables[i].filter) CT_TRY(ct_filter_copy(store->tables[i].filter, &snapshot->filters[i], status));
    return CT_OK;
}

/* The last files: whoever makes the others removes what it does not know. */
static ct_code write_filters(const ct_snapshot *snapshot, ct_status *status) {
    for (size_t i = 0; i < snapshot->store->table_count; i++)
        if (snapshot->filters[i]) CT_TRY(ct_filter_write(snapshot->filters[i], snapshot->folder, i, status));
    return CT_OK;
}

/* All that needs the store as it is. */
static ct_code begin_tier(ct_snapshot *snapshot, ct_status *status) {
    ct_store *store = snapshot->store;
    ct_live *live = ct_tier_live(store->tier);
    CT_TRY(ct_tier_flush_begin(store->tier, status));
    CT_TRY(ct_tier_check_finite(store->tier, status));
    for (size_t i = 0; i < store->table_count && !store->frozen_live; i++) {
        if (store->tables[i].spec.kind != CT_TABLE_FROZEN) continue;
        CT_TRY(ct_tier_flush(store->tier, status)); /* the database is the helper's, unless it has nothing to do */
        CT_TRY(ct_live_put_frozen(live, &store->tables[i], i, status));
    }
    store->frozen_live = true;
    CT_TRY(ct_store_state(store, true, snapshot->states, status));
    CT_TRY(ct_tier_link(store->tier, snapshot->folder, status));
    snapshot->linking = true;
    return CT_OK;
}

static ct_code begin_saver(ct_snapshot *snapshot, ct_status *status) {
    ct_store *store = snapshot->store;
    ct_sum sums[CT_STORE_MAX_TABLES];
    CT_TRY(ct_store_state(store, false, snapshot->states, status));
    CT_TRY(ct_saver_begin(store->saver, sums, status));
    for (size_t i = 0; i < store->table_count; i++)
        if (store->tables[i].spec.kind == CT_TABLE_TRAINED) snapshot->states[i].sum = sums[i];
    return CT_OK;
}

static ct_code begin_whole(ct_snapshot *snapshot, ct_status *status) {
    if (mkdir(snapshot->folder, 0777) != 0) return ct_fail_errno(status, "%s: cannot make the folder", snapshot->folder);
    CT_TRY(ct_disk_write(snapshot->store, snapshot->folder, status));
    CT_TRY(write_filters(snapshot, status));
    CT_TRY(save_manifest(snapshot, status));
    json_decref(snapshot->manifest);
    snapshot->manifest = NULL;
    return ct_store_state(snapshot->store, true, snapshot->states, status);
}

/* What is there of the folder goes, the first failure stays. */
static void remove_folder(const ct_snapshot *snapshot, ct_status *status) {
    ct_status ignored = CT_STATUS_INIT;
    if (ct_folder_remove(snapshot->folder, &ignored) != CT_OK) (void)ct_fail_within(status, "(and %s stays behind)", snapshot->folder);
}

ct_code ct_snapshot_begin(ct_store *store, const char *folder, ct_snapshot **out_snapshot, ct_status *status) {
    if (store->mode != CT_STORE_TRAIN)
        return ct_fail(status, CT_INVALID, "%s: a store that was opened for reading has no snapshot", folder);
    if (ct_path_exists(folder)) return ct_fail(status, CT_EXISTS, "%s: exists; a snapshot needs a new folder", folder);
    ct_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot) return ct_fail_memory(status, sizeof *snapshot, "a snapshot");
    take_turn(store->turn);
    snapshot->store = store;
    snapshot->folder = strdup(folder);
    ct_code code =
        snapshot->folder ? ct_store_manifest_json(store, &snapshot->manifest, status) : ct_fail_memory(status, strlen(folder), "a path");
    if (code == CT_OK) code = copy_filters(snapshot, status);
    if (code == CT_OK) {
        code = store->tier ? begin_tier(snapshot, status) : store->saver ? begin_saver(snapshot, status) : begin_whole(snapshot, status);
        if (code != CT_OK) remove_folder(snapshot, status);
    }
    if (code == CT_OK)
        *out_snapshot = snapshot;
    else
        ct_snapshot_end(snapshot);
    return code;
}

ct_code ct_snapshot_write(ct_snapshot *snapshot, ct_status *status) {
    ct_store *store = snapshot->store;
    if (!snapshot->manifest) return CT_OK; /* begin has done it */
    ct_sum sums[CT_STORE_MAX_TABLES];
    ct_code code;
    if (store->tier) {
        snapshot->linking = false;
        code = ct_tier_linked(store->tier, status);
        if (code == CT_OK) code = ct_database_tidy(snapshot->folder, status);
    } else {
        for (size_t i = 0; i < store->table_count; i++) sums[i] = snapshot->states[i].sum;
        code = ct_saver_write(store->saver, snapshot->folder, sums, status);
        for (size_t i = 0; i < store->table_count; i++) snapshot->states[i].sum = sums[i];
    }
    if (code == CT_OK) code = write_filters(snapshot, status);
    if (code == CT_OK) code = save_manifest(snapshot, status);
    if (code != CT_OK) remove_folder(snapshot, status);
    return code;
}

void ct_snapshot_digest(const ct_snapshot *snapshot, ct_digest *digest) {
    ct_digest_update_tables(snapshot->store, snapshot->states, digest);
}

void ct_snapshot_end(ct_snapshot *snapshot) {
    if (!snapshot) return;
    ct_status ignored = CT_STATUS_INIT;
    if (snapshot->linking && ct_tier_linked(snapshot->store->tier, &ignored) == CT_OK) remove_folder(snapshot, &ignored);
    if (snapshot->store->saver) ct_saver_end(snapshot->store->saver);
    end_turn(snapshot->store->turn);
    for (size_t i = 0; i < CT_STORE_MAX_TABLES; i++) ct_filter_destroy(snapshot->filters[i]);
    json_decref(snapshot->manifest);
    free(snapshot->folder);
    free(snapshot);
}

ct_code ct_store_snapshot(ct_store *store, const char *folder, ct_status *status) {
    ct_snapshot *snapshot = NULL;
    CT_TRY(ct_snapshot_begin(store, folder, &snapshot, status));
    const ct_code code = ct_snapshot_write(snapshot, status);
    ct_snapshot_end(snapshot);
    return code;
}

/* --- rows of another snapshot --- */

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
    CT_TRY(ct_record_lives(work->from, record, bytes, &row, &lives, status));
    if (!lives) return CT_OK;
    work->rows += row;
    work->stubs += !row;
    if (table->spec.expire_days && ct_record_day(work->from, record) < table->oldest_day) return CT_OK;
    if (!row && table->filter) return CT_OK;
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
