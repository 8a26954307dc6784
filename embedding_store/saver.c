#include "embedding_store/saver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "embedding_store/database.h"
#include "embedding_store/live.h"

enum {
    FIND_AHEAD = 24, /* keys, of the one that is marked */
    ROW_AHEAD = 8,
    CHUNK_KEYS = 512,            /* written between two locks */
    LEAST_KEPT_BYTES = 64 << 20, /* of copies, before training waits; or a part of the tables, where that is more */
    KEPT_PART = 4,
    FIRST_KEPT = 64
};

/* Copies of records that training has changed before they were written, by key. */
typedef struct kept_records {
    struct kept_record {
        uint64_t key;
        size_t offset; /* of its record among records */
        uint32_t bytes;
        uint32_t next; /* number + 1 of another one with the same hash; 0 = none */
    } * items;         /* (count) */
    uint32_t *heads;   /* (room): number + 1 of the first one with a hash */
    size_t count, room /* a power of two */, used, records_room;
    char *records; /* (used) */
} kept_records;

typedef struct saver_part {
    pthread_mutex_t mutex;
    ct_sum clean; /* of the records whose entries have mark 0 */
    kept_records kept;
} saver_part;

struct ct_saver {
    ct_store *store;
    ct_live *live;
    size_t parts;
    saver_part *part;            /* (tables, parts) */
    bool frozen;                 /* the frozen tables are in the database */
    uint8_t now, before;         /* marks: of what has changed since the snapshot at work began, and of what it has to write. 0 = neither */
    _Atomic uint64_t kept_bytes; /* in all partitions */
    uint64_t most_kept_bytes;    /* then training waits */
    pthread_mutex_t mutex;       /* of: */
    pthread_cond_t changed;
    bool writing, broken;
    int64_t waited_ns;
};

static saver_part *part_of(const ct_saver *saver, size_t table, size_t part) { return &saver->part[table * saver->parts + part]; }
static size_t number_of(const ct_saver *saver, const ct_table *table) { return (size_t)(table - saver->store->tables); }
static bool is_trained(const ct_saver *saver, size_t table) { return saver->store->tables[table].spec.kind == CT_TABLE_TRAINED; }

/* --- life --- */

/* Are the records of the folder laid out as ours? */
static ct_code same_layout(const char *folder, bool *out_same, ct_status *status) {
    ct_stored_table *stored;
    size_t count;
    ct_status why = CT_STATUS_INIT;
    CT_TRY(ct_store_manifest_read(folder, &stored, &count, NULL, status));
    *out_same = true;
    for (size_t i = 0; i < count; i++) *out_same = *out_same && ct_record_check_layout(&stored[i], &why) == CT_OK;
    free(stored);
    return CT_OK;
}

static ct_code init_marks(ct_saver *saver, size_t number, bool clean, ct_status *status) {
    ct_table *table = &saver->store->tables[number];
    ct_sum *sums = calloc(saver->parts, sizeof *sums);
    if (!sums) return ct_fail_memory(status, saver->parts * sizeof *sums, "a saver");
    if (clean) ct_table_sums(saver->store, number, sums);
    for (size_t p = 0; p < saver->parts; p++) {
        ct_partition *partition = &table->partitions[p];
        const size_t places = (size_t)1 << partition->index_bits;
        part_of(saver, number, p)->clean = sums[p];
        partition->mark = saver->now;
        partition->marks = malloc(places);
        if (!partition->marks) {
            free(sums);
            return ct_fail_memory(status, places, "a saver");
        }
        for (size_t at = 0; at < places; at++)
            partition->marks[at] = clean || ct_partition_entry(partition, at)->slot == CT_SLOT_EMPTY ? 0 : saver->now;
        partition->bytes += places;
    }
    free(sums);
    return CT_OK;
}

ct_code ct_saver_create(ct_store *store, const char *live_folder, const char *from, ct_saver **out_saver, ct_status *status) {
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    ct_code code;
    ct_saver *saver = calloc(1, sizeof *saver);
    if (!saver) return ct_fail_memory(status, sizeof *saver, "a saver");
    saver->store = store;
    saver->parts = (size_t)1 << store->partition_bits;
    saver->now = 1;
    (void)pthread_mutex_init(&saver->mutex, NULL);
    (void)pthread_cond_init(&saver->changed, NULL);
    saver->part = calloc(store->table_count * saver->parts + 1, sizeof *saver->part);
    if (!saver->part) {
        code = ct_fail_memory(status, store->table_count * saver->parts * sizeof *saver->part, "a saver");
        goto fail;
    }
    for (size_t i = 0; i < store->table_count * saver->parts; i++) (void)pthread_mutex_init(&saver->part[i].mutex, NULL);
    bool same = false;
    if (from) CT_TRY_GOTO(code, same_layout(from, &same, status), fail);
    saver->frozen = same;
    for (size_t i = 0; i < store->table_count; i++) names[i] = store->tables[i].spec.name;
    CT_TRY_GOTO(code, ct_live_create(live_folder, same ? from : NULL, NULL, names, store->table_count, &saver->live, status), fail);
    for (size_t i = 0; i < store->table_count; i++)
        if (is_trained(saver, i)) CT_TRY_GOTO(code, init_marks(saver, i, same, status), fail);
    *out_saver = saver;
    return CT_OK;
fail:
    ct_saver_destroy(saver);
    return code;
}

static void kept_clear(kept_records *kept) {
    free(kept->items);
    free(kept->heads);
    free(kept->records);
    *kept = (kept_records){0};
}

void ct_saver_destroy(ct_saver *saver) {
    if (!saver) return;
    ct_live_close(saver->live);
    for (size_t i = 0; saver->part && i < saver->store->table_count * saver->parts; i++) {
        kept_clear(&saver->part[i].kept);
        (void)pthread_mutex_destroy(&saver->part[i].mutex);
    }
    (void)pthread_mutex_destroy(&saver->mutex);
    (void)pthread_cond_destroy(&saver->changed);
    free(saver->part);
    free(saver);
}

void ct_saver_lock(ct_saver *saver, const ct_table *table, size_t part) {
    (void)pthread_mutex_lock(&part_of(saver, number_of(saver, table), part)->mutex);
}

void ct_saver_unlock(ct_saver *saver, const ct_table *table, size_t part) {
    (void)pthread_mutex_unlock(&part_of(saver, number_of(saver, table), part)->mutex);
}

/* --- copies --- */

static size_t kept_home(const kept_records *kept, uint64_t key) { return (key * UINT64_C(0x9E3779B97F4A7C15)) >> 32 & (kept->room - 1); }

static ct_code kept_grow(kept_records *kept, ct_status *status) {
    const size_t room = kept->room ? 2 * kept->room : FIRST_KEPT;
    struct kept_record *items = realloc(kept->items, room * sizeof *items);
    if (!items) return ct_fail_memory(status, room * sizeof *items, "a snapshot's copies");
    kept->items = items;
    uint32_t *heads = realloc(kept->heads, room * sizeof *heads);
    if (!heads) return ct_fail_memory(status, room * sizeof *heads, "a snapshot's copies");
    kept->heads = heads;
    kept->room = room;
    memset(heads, 0, room * sizeof *heads);
    for (size_t i = 0; i < kept->count; i++) {
        uint32_t *head = &heads[kept_home(kept, items[i].key)];
        items[i].next = *head;
        *head = (uint32_t)i + 1;
    }
    return CT_OK;
}

static ct_code keep(ct_saver *saver, kept_records *kept, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    if (kept->count == kept->room) CT_TRY(kept_grow(kept, status));
    if (kept->used + bytes > kept->records_room) {
        const size_t room = kept->records_room ? 2 * kept->records_room : FIRST_KEPT * bytes;
        char *records = realloc(kept->records, room + bytes);
        if (!records) return ct_fail_memory(status, room + bytes, "a snapshot's copies");
        kept->records = records;
        kept->records_room = room + bytes;
    }
    memcpy(kept->records + kept->used, record, bytes);
    uint32_t *head = &kept->heads[kept_home(kept, key)];
    kept->items[kept->count++] = (struct kept_record){.key = key, .offset = kept->used, .bytes = (uint32_t)bytes, .next = *head};
    *head = (uint32_t)kept->count;
    kept->used += bytes;
    (void)atomic_fetch_add(&saver->kept_bytes, bytes + sizeof *kept->items + sizeof *kept->heads);
    return CT_OK;
}

/* NULL = there is none. */
static const struct kept_record *kept_find(const kept_records *kept, uint64_t key) {
    if (!kept->room) return NULL;
    for (uint32_t i = kept->heads[kept_home(kept, key)]; i; i = kept->items[i - 1].next)
        if (kept->items[i - 1].key == key) return &kept->items[i - 1];
    return NULL;
}

/* --- in training --- */

/* The record as it is now goes out of the sum, or is kept for the snapshot. */
static ct_code take_out(ct_saver *saver, saver_part *mine, const ct_table *table, const ct_partition *partition,
                        const ct_index_entry *entry, uint8_t mark, ct_status *status) {
    if (mark == saver->now) return CT_OK;
    char record[CT_RECORD_MAX_BYTES];
    const size_t bytes = ct_record_encode(table, partition, entry, record);
    if (mark) return keep(saver, &mine->kept, entry->key, record, bytes, status);
    ct_sum_take(&mine->clean, entry->key, record, bytes);
    return CT_OK;
}

static ct_code mark_entry(ct_saver *saver, saver_part *mine, const ct_table *table, ct_partition *partition, const ct_index_entry *entry,
                          ct_status *status) {
    uint8_t *mark = &partition->marks[ct_partition_place(partition, entry)];
    CT_TRY(take_out(saver, mine, table, partition, entry, *mark, status));
    *mark = saver->now;
    return CT_OK;
}

static void prefetch_row(const ct_partition *partition, const ct_index_entry *entry) {
    if (entry->slot == CT_SLOT_STUB) return;
    ct_prefetch(ct_slab_at(&partition->values, entry->slot - 1));
    if (partition->state.floats) ct_prefetch(ct_slab_at(&partition->state, entry->slot - 1));
}

ct_code ct_saver_mark(ct_saver *saver, const ct_ticket *ticket, size_t part, ct_status *status) {
    const ct_table *table = ticket->table;
    ct_partition *partition = &table->partitions[part];
    saver_part *mine = part_of(saver, number_of(saver, table), part);
    const ct_unique *uniques = &ticket->uniques[ticket->bases[part]];
    const size_t count = ticket->unique_counts[part];
    const ct_index_entry *found[ROW_AHEAD];
    for (size_t i = 0; i < count + FIND_AHEAD; i++) {
        if (i < count) {
            ct_table_prefetch(table, uniques[i].key);
            ct_prefetch(&partition->marks[ct_key_home(uniques[i].key, partition->index_bits)]);
        }
        if (i >= FIND_AHEAD - ROW_AHEAD && i - (FIND_AHEAD - ROW_AHEAD) < count) {
            const size_t at = i - (FIND_AHEAD - ROW_AHEAD);
            const ct_index_entry *entry = found[at % ROW_AHEAD] = ct_partition_find(partition, uniques[at].key);
            if (entry && partition->marks[ct_partition_place(partition, entry)] != saver->now) prefetch_row(partition, entry);
        }
        if (i < FIND_AHEAD - 1 || i - (FIND_AHEAD - 1) >= count) continue;
        const ct_index_entry *entry = found[(i - (FIND_AHEAD - 1)) % ROW_AHEAD];
        if (entry) CT_TRY(mark_entry(saver, mine, table, partition, entry, status));
    }
    return CT_OK;
}

ct_code ct_saver_mark_key(ct_saver *saver, const ct_table *table, uint64_t key, ct_status *status) {
    const size_t part = ct_partition_of(key, table->partition_bits);
    ct_partition *partition = &table->partitions[part];
    const ct_index_entry *entry = ct_partition_find(partition, key);
    return entry ? mark_entry(saver, part_of(saver, number_of(saver, table), part), table, partition, entry, status) : CT_OK;
}

ct_code ct_saver_let_go(ct_saver *saver, const ct_table *table, size_t part, const ct_index_entry *entry, ct_status *status) {
    const ct_partition *partition = &table->partitions[part];
    return take_out(saver, part_of(saver, number_of(saver, table), part), table, partition, entry,
                    partition->marks[ct_partition_place(partition, entry)], status);
}

void ct_saver_make_room(ct_saver *saver) {
    if (atomic_load_explicit(&saver->kept_bytes, memory_order_relaxed) < saver->most_kept_bytes) return;
    const int64_t since = ct_clock_ns();
    (void)pthread_mutex_lock(&saver->mutex);
    while (saver->writing && atomic_load(&saver->kept_bytes) >= saver->most_kept_bytes)
        (void)pthread_cond_wait(&saver->changed, &saver->mutex);
    (void)pthread_mutex_unlock(&saver->mutex);
    saver->waited_ns += ct_clock_ns() - since;
}

int64_t ct_saver_waited_ns(const ct_saver *saver) { return saver->waited_ns; }

/* --- snapshots --- */

ct_code ct_saver_begin(ct_saver *saver, ct_sum *out_sums, ct_status *status) {
    const ct_store *store = saver->store;
    uint64_t bytes = 0;
    (void)pthread_mutex_lock(&saver->mutex);
    const bool broken = saver->broken;
    if (!broken) saver->writing = true;
    (void)pthread_mutex_unlock(&saver->mutex);
    if (broken) return ct_fail(status, CT_INVALID, "the snapshot before this one failed: nothing is saved any more");
    saver->before = saver->now;
    saver->now = saver->now == 1 ? 2 : 1; /* nothing has this mark any more: the last snapshot has written it */
    for (size_t i = 0; i < store->table_count; i++) {
        const ct_table *table = &store->tables[i];
        out_sums[i] = (ct_sum){{0, 0}};
        if (!is_trained(saver, i)) continue;
        if (table->spec.expire_days) {
            ct_stored_table layout;
            ct_record_layout(&table->spec, &layout);
            ct_live_expire(saver->live, i, &layout, table->oldest_day);
        }
        for (size_t p = 0; p < saver->parts; p++) {
            table->partitions[p].mark = saver->now;
            bytes += table->partitions[p].bytes;
            for (size_t n = 0; n < 2; n++) out_sums[i].word[n] += part_of(saver, i, p)->clean.word[n];
        }
    }
    saver->most_kept_bytes = bytes / KEPT_PART > LEAST_KEPT_BYTES ? bytes / KEPT_PART : LEAST_KEPT_BYTES;
    return CT_OK;
}

/* What the one that writes has of the partition at work. */
typedef struct writing {
    ct_saver *saver;
    size_t table, number; /* of the partition */
    ct_sum *sum;          /* of the snapshot's table */
    uint64_t *keys;       /* (room), rising once they are sorted */
    size_t count, room;
    char *records; /* (CHUNK_KEYS, record_bytes) */
    size_t record_bytes, sizes[CHUNK_KEYS];
} writing;

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static ct_code reserve_keys(writing *work, size_t count, ct_status *status) {
    if (count <= work->room) return CT_OK;
    uint64_t *keys = realloc(work->keys, count * sizeof *keys);
    if (!keys) return ct_fail_memory(status, count * sizeof *keys, "a snapshot's keys");
    work->keys = keys;
    work->room = count;
    return CT_OK;
}

/* In the lock: which keys have to be written. */
static ct_code list_keys(writing *work, const ct_partition *partition, const kept_records *kept, ct_status *status) {
    const uint8_t before = work->saver->before;
    const size_t places = (size_t)1 << partition->index_bits;
    size_t most = kept->count; /* empty places have no mark */
    for (size_t at = 0; at < places; at++) most += partition->marks[at] == before;
    CT_TRY(reserve_keys(work, most, status));
    work->count = 0;
    for (size_t at = 0; at < places; at++) {
        if (partition->marks[at] != before) continue;
        work->keys[work->count++] = ct_partition_entry(partition, at)->key;
    }
    for (size_t i = 0; i < kept->count; i++) work->keys[work->count++] = kept->items[i].key;
    return CT_OK;
}

/* In the lock: the records of keys[first .. first + count) into the chunk. */
static ct_code copy_chunk(writing *work, const ct_table *table, ct_partition *partition, saver_part *mine, const uint64_t *keys,
                          size_t count, ct_status *status) {
    const ct_index_entry *found[CHUNK_KEYS];
    for (size_t i = 0; i < count; i++) ct_table_prefetch(table, keys[i]);
    for (size_t i = 0; i < count; i++) {
        found[i] = ct_partition_find(partition, keys[i]);
        if (found[i] && partition->marks[ct_partition_place(partition, found[i])] != work->saver->before) found[i] = NULL;
        if (found[i]) prefetch_row(partition, found[i]);
    }
    for (size_t i = 0; i < count; i++) {
        char *record = work->records + i * work->record_bytes;
        if (found[i]) {
            if (!ct_record_finite(table, partition, found[i])) return ct_record_fail_finite(table, keys[i], status);
            work->sizes[i] = ct_record_encode(table, partition, found[i], record);
            ct_sum_add(&mine->clean, keys[i], record, work->sizes[i]);
            partition->marks[ct_partition_place(partition, found[i])] = 0;
        } else {
            const struct kept_record *kept = kept_find(&mine->kept, keys[i]);
            if (!kept) return ct_fail(status, CT_INTERNAL, "table %s: key %016llx is lost", table->spec.name, (unsigned long long)keys[i]);
            work->sizes[i] = kept->bytes;
            memcpy(record, mine->kept.records + kept->offset, kept->bytes);
        }
    }
    return CT_OK;
}

static ct_code write_part(writing *work, ct_status *status) {
    ct_saver *saver = work->saver;
    const ct_table *table = &saver->store->tables[work->table];
    ct_partition *partition = &table->partitions[work->number];
    saver_part *mine = part_of(saver, work->table, work->number);
    (void)pthread_mutex_lock(&mine->mutex);
    ct_code code = list_keys(work, partition, &mine->kept, status);
    (void)pthread_mutex_unlock(&mine->mutex);
    CT_TRY(code);
    if (work->count) qsort(work->keys, work->count, sizeof *work->keys, by_number);
    for (size_t first = 0; first < work->count && code == CT_OK; first += CHUNK_KEYS) {
        const uint64_t *keys = work->keys + first;
        const size_t count = work->count - first < CHUNK_KEYS ? work->count - first : CHUNK_KEYS;
        (void)pthread_mutex_lock(&mine->mutex);
        code = copy_chunk(work, table, partition, mine, keys, count, status);
        (void)pthread_mutex_unlock(&mine->mutex);
        for (size_t i = 0; i < count && code == CT_OK; i++) {
            const char *record = work->records + i * work->record_bytes;
            ct_sum_add(work->sum, keys[i], record, work->sizes[i]);
            code = ct_live_put(saver->live, keys[i], record, work->sizes[i], status);
        }
    }
    CT_TRY(code);
    (void)pthread_mutex_lock(&mine->mutex);
    const kept_records kept = mine->kept;
    mine->kept = (kept_records){0};
    (void)pthread_mutex_unlock(&mine->mutex);
    (void)pthread_mutex_lock(&saver->mutex);
    (void)atomic_fetch_sub(&saver->kept_bytes, kept.used + kept.count * (sizeof *kept.items + sizeof *kept.heads));
    (void)pthread_cond_broadcast(&saver->changed);
    (void)pthread_mutex_unlock(&saver->mutex);
    kept_clear(&(kept_records){.items = kept.items, .heads = kept.heads, .records = kept.records});
    return CT_OK;
}

static ct_code write_table(ct_saver *saver, size_t number, ct_sum *sum, ct_status *status) {
    writing work = {.saver = saver, .table = number, .sum = sum, .record_bytes = ct_record_bytes(&saver->store->tables[number])};
    work.records = malloc(CHUNK_KEYS * work.record_bytes);
    if (!work.records) return ct_fail_memory(status, CHUNK_KEYS * work.record_bytes, "a snapshot's records");
    ct_code code = ct_live_begin(saver->live, number, status);
    for (work.number = 0; work.number < saver->parts && code == CT_OK; work.number++) code = write_part(&work, status);
    if (code == CT_OK)
        code = ct_live_end(saver->live, status);
    else
        ct_live_abandon(saver->live);
    free(work.keys);
    free(work.records);
    return code;
}

ct_code ct_saver_write(ct_saver *saver, const char *folder, ct_sum *sums, ct_status *status) {
    ct_store *store = saver->store;
    ct_code code = CT_OK;
    for (size_t i = 0; i < store->table_count && code == CT_OK; i++) {
        if (is_trained(saver, i))
            code = write_table(saver, i, &sums[i], status);
        else if (!saver->frozen)
            code = ct_live_put_frozen(saver->live, &store->tables[i], i, status);
    }
    saver->frozen = true;
    (void)pthread_mutex_lock(&saver->mutex);
    saver->broken = code != CT_OK;
    saver->writing = false;
    (void)pthread_cond_broadcast(&saver->changed);
    (void)pthread_mutex_unlock(&saver->mutex);
    if (code == CT_OK) code = ct_live_checkpoint(saver->live, folder, status);
    return code == CT_OK ? ct_database_tidy(folder, status) : code;
}

void ct_saver_end(ct_saver *saver) {
    (void)pthread_mutex_lock(&saver->mutex);
    saver->broken |= saver->writing; /* it was not written, and nobody knows any more what it lacks */
    saver->writing = false;
    (void)pthread_cond_broadcast(&saver->changed);
    (void)pthread_mutex_unlock(&saver->mutex);
}

ct_sum ct_saver_sum(ct_saver *saver, size_t number) {
    const ct_table *table = &saver->store->tables[number];
    ct_sum sum = {{0, 0}};
    for (size_t p = 0; p < saver->parts; p++) {
        const ct_partition *partition = &table->partitions[p];
        saver_part *mine = part_of(saver, number, p);
        (void)pthread_mutex_lock(&mine->mutex);
        for (size_t n = 0; n < 2; n++) sum.word[n] += mine->clean.word[n];
        for (size_t at = 0; at < (size_t)1 << partition->index_bits; at++) {
            if (partition->marks[at]) ct_sum_add_entry(&sum, table, partition, ct_partition_entry(partition, at));
        }
        (void)pthread_mutex_unlock(&mine->mutex);
    }
    return sum;
}
