/* Histories as they were at one moment, written while more rows enter. The moment itself costs nothing: units are only added behind those
 * that there were, and whoever is about to change one of those first keeps a copy of its entries. Are all histories cleared meanwhile, what
 * there was is handed over whole. Copies are bounded; beyond, rows wait for the writer.
 *
 * Threads. One lock: rows enter a batch at a time, the writer takes some KiB of entries at a time. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/history_internal.h"

enum {
    LEAST_KEPT_BYTES = 1 << 20, /* of copies, before rows wait; or a part of the histories, where that is more */
    KEPT_PART = 8,
    FIRST_KEPT = 64,
    CHUNK_UNITS = 4096,    /* listed between two locks */
    CHUNK_ENTRIES = 16384, /* written between two locks, or one unit's */
    ORDER_BYTES = 32       /* a unit's place in the order, and what sorting needs */
};

typedef struct kept_unit {
    ct_history_entry *entries;
    uint32_t unit, count;
} kept_unit;

typedef struct saved_history {
    size_t unit_count;
    ct_history_unit *units; /* where the histories were cleared meanwhile: they are ours; else NULL */
    kept_unit *kept;        /* (kept_count) */
    uint32_t *slots;        /* (room, a power of two): number + 1 of one kept, 0 = free; linear probing by the unit's number */
    size_t kept_count, room;
} saved_history;

struct ct_histories_saving {
    ct_histories *histories;
    int64_t rows;
    uint64_t kept_bytes, most_kept_bytes, moved_bytes;
    saved_history list[];
};

/* A unit in the order of the file. */
typedef struct ordered_unit {
    uint64_t key;
    uint32_t unit, count; /* of its entries */
} ordered_unit;

static void lock(ct_histories *histories) { (void)pthread_mutex_lock(&histories->mutex); }
static void unlock(ct_histories *histories) { (void)pthread_mutex_unlock(&histories->mutex); }

/* --- whoever changes them, in the lock --- */

static uint32_t *kept_slot(const saved_history *saved, uint32_t unit) {
    size_t at = (size_t)(unit * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (saved->room - 1);
    while (saved->slots[at] != 0 && saved->kept[saved->slots[at] - 1].unit != unit) at = (at + 1) & (saved->room - 1);
    return &saved->slots[at];
}

static bool kept_grow(saved_history *saved) {
    const size_t room = saved->room == 0 ? 2 * FIRST_KEPT : 2 * saved->room;
    kept_unit *kept = realloc(saved->kept, room / 2 * sizeof *kept);
    if (kept == NULL) return false;
    saved->kept = kept;
    uint32_t *slots = calloc(room, sizeof *slots);
    if (slots == NULL) return false;
    free(saved->slots);
    saved->slots = slots;
    saved->room = room;
    for (size_t i = 0; i < saved->kept_count; i++) *kept_slot(saved, kept[i].unit) = (uint32_t)i + 1;
    return true;
}

bool ct_histories_keep(ct_histories *histories, size_t number, ct_history_unit *unit) {
    ct_histories_saving *saving = histories->saving;
    saved_history *saved = &saving->list[number];
    const size_t at = (size_t)(unit - histories->list[number].units);
    if (saved->units != NULL || at >= saved->unit_count || unit->kept) return true;
    if (2 * saved->kept_count == saved->room && !kept_grow(saved)) return false;
    const uint32_t count = unit->end - unit->begin;
    ct_history_entry *entries = malloc((count + 1) * sizeof *entries);
    if (entries == NULL) return false;
    if (count > 0) memcpy(entries, unit->entries + unit->begin, count * sizeof *entries);
    saved->kept[saved->kept_count++] = (kept_unit){entries, (uint32_t)at, count};
    *kept_slot(saved, (uint32_t)at) = (uint32_t)saved->kept_count;
    saving->kept_bytes += (count + 1) * sizeof *entries + sizeof *saved->kept + 2 * sizeof *saved->slots;
    unit->kept = true;
    return true;
}

void ct_histories_wait_for_room(ct_histories *histories) {
    while (histories->saving != NULL && histories->saving->kept_bytes >= histories->saving->most_kept_bytes)
        (void)pthread_cond_wait(&histories->saved, &histories->mutex);
}

bool ct_histories_move_units(ct_histories *histories, size_t number) {
    ct_history *history = &histories->list[number];
    saved_history *saved = histories->saving == NULL ? NULL : &histories->saving->list[number];
    if (saved == NULL || saved->units != NULL || history->units == NULL) return false;
    saved->units = history->units;
    histories->saving->moved_bytes += history->bytes;
    for (size_t u = saved->unit_count; u < history->unit_count; u++) free(history->units[u].entries); /* they came later */
    return true;
}

/* --- the writer --- */

ct_code ct_histories_saving_begin(ct_histories *histories, ct_histories_saving **out_saving, ct_status *status) {
    ct_histories_saving *saving = calloc(1, sizeof *saving + histories->count * sizeof *saving->list);
    if (saving == NULL) return ct_fail_memory(status, histories->count * sizeof *saving->list, "histories to be saved");
    lock(histories);
    while (histories->saving != NULL) (void)pthread_cond_wait(&histories->saved, &histories->mutex); /* the one before */
    saving->histories = histories;
    saving->rows = histories->rows;
    saving->most_kept_bytes = ct_histories_most_kept_bytes(histories);
    for (size_t h = 0; h < histories->count; h++) saving->list[h].unit_count = histories->list[h].unit_count;
    histories->saving = saving;
    unlock(histories);
    *out_saving = saving;
    return CT_OK;
}

uint64_t ct_histories_most_kept_bytes(const ct_histories *histories) {
    const uint64_t part = ct_histories_bytes(histories) / KEPT_PART;
    return part > LEAST_KEPT_BYTES ? part : LEAST_KEPT_BYTES;
}

uint64_t ct_histories_saving_bytes(ct_histories *histories) {
    lock(histories);
    uint64_t bytes = ct_histories_most_kept_bytes(histories) + ct_histories_units(histories) * ORDER_BYTES;
    if (histories->saving != NULL) {
        bytes += histories->saving->moved_bytes;
        for (size_t h = 0; h < histories->count; h++)
            if (histories->saving->list[h].units != NULL) bytes += histories->saving->list[h].unit_count * ORDER_BYTES;
    }
    unlock(histories);
    return bytes;
}

/* In the lock: the unit's entries as they were. */
static const ct_history_entry *entries_of(const saved_history *saved, const ct_history_unit *units, uint32_t unit, uint32_t *out_count) {
    if (units[unit].kept) {
        const kept_unit *kept = &saved->kept[*kept_slot(saved, unit) - 1];
        *out_count = kept->count;
        return kept->entries;
    }
    *out_count = units[unit].end - units[unit].begin;
    return units[unit].entries + units[unit].begin;
}

static const ct_history_unit *units_of(const ct_histories_saving *saving, size_t number) {
    return saving->list[number].units != NULL ? saving->list[number].units : saving->histories->list[number].units;
}

static int by_key(const void *left, const void *right) {
    const ordered_unit *a = left, *b = right;
    return (a->key > b->key) - (a->key < b->key);
}

static uint64_t list_units(ct_histories_saving *saving, size_t number, ordered_unit *order) {
    const saved_history *saved = &saving->list[number];
    uint64_t entries = 0;
    for (size_t first = 0; first < saved->unit_count; first += CHUNK_UNITS) {
        const size_t end = saved->unit_count - first < CHUNK_UNITS ? saved->unit_count : first + CHUNK_UNITS;
        lock(saving->histories);
        const ct_history_unit *units = units_of(saving, number);
        for (size_t u = first; u < end; u++) {
            order[u] = (ordered_unit){.key = units[u].key, .unit = (uint32_t)u};
            (void)entries_of(saved, units, (uint32_t)u, &order[u].count);
            entries += order[u].count;
        }
        unlock(saving->histories);
    }
    qsort(order, saved->unit_count, sizeof *order, by_key);
    return entries;
}

static ct_code put(ct_file_writer *writer, ct_digest *digest, const void *bytes, size_t count, ct_status *status) {
    ct_digest_update(digest, bytes, count);
    return ct_file_writer_write(writer, bytes, count, status);
}

static ct_code put_entries(ct_histories_saving *saving, size_t number, const ordered_unit *order, ct_file_writer *writer, ct_digest *digest,
                           ct_status *status) {
    const saved_history *saved = &saving->list[number];
    size_t room = CHUNK_ENTRIES;
    ct_code code = CT_OK;
    ct_history_entry *chunk = malloc(room * sizeof *chunk);
    if (chunk == NULL) return ct_fail_memory(status, room * sizeof *chunk, "histories to be saved");
    for (size_t u = 0; u < saved->unit_count && code == CT_OK;) {
        if (order[u].count > room) {
            free(chunk);
            room = order[u].count;
            chunk = malloc(room * sizeof *chunk);
            if (chunk == NULL) return ct_fail_memory(status, room * sizeof *chunk, "histories to be saved");
        }
        size_t used = 0;
        lock(saving->histories);
        const ct_history_unit *units = units_of(saving, number);
        for (; u < saved->unit_count && used + order[u].count <= room; u++) {
            uint32_t count;
            const ct_history_entry *entries = entries_of(saved, units, order[u].unit, &count);
            if (count > 0) memcpy(chunk + used, entries, count * sizeof *chunk);
            used += count;
        }
        unlock(saving->histories);
        code = put(writer, digest, chunk, used * sizeof *chunk, status);
    }
    free(chunk);
    return code;
}

static ct_code put_history(ct_histories_saving *saving, size_t number, ct_file_writer *writer, ct_digest *digest, ct_status *status) {
    const size_t count = saving->list[number].unit_count;
    const uint64_t hash = saving->histories->schema->fields[saving->histories->list[number].field].hash;
    ordered_unit *order = malloc((count + 1) * sizeof *order);
    if (order == NULL) return ct_fail_memory(status, count * sizeof *order, "histories to be saved");
    const uint64_t entries = list_units(saving, number, order);
    ct_code code = put(writer, digest, (const uint64_t[]){hash, count, entries}, 3 * sizeof(uint64_t), status);
    for (size_t u = 0; u < count && code == CT_OK; u++)
        code = put(writer, digest, (const uint64_t[]){order[u].key, order[u].count}, 2 * sizeof(uint64_t), status);
    if (code == CT_OK) code = put_entries(saving, number, order, writer, digest, status);
    free(order);
    return code;
}

ct_code ct_histories_saving_write(ct_histories_saving *saving, const char *path, ct_digest *digest, ct_status *status) {
    ct_file_writer *writer = NULL;
    uint64_t words[3] = {0, (uint64_t)saving->rows, saving->histories->count};
    memcpy(words, CT_HISTORY_MAGIC, sizeof words[0]);
    CT_TRY(ct_file_writer_open(path, &writer, status));
    ct_code code = put(writer, digest, words, sizeof words, status);
    for (size_t h = 0; h < saving->histories->count && code == CT_OK; h++) code = put_history(saving, h, writer, digest, status);
    if (code == CT_OK) return ct_file_writer_commit(writer, status);
    ct_file_writer_abort(writer);
    return code;
}

void ct_histories_saving_end(ct_histories_saving *saving) {
    if (saving == NULL) return;
    ct_histories *histories = saving->histories;
    const size_t count = histories->count;
    lock(histories);
    for (size_t h = 0; h < count; h++) {
        const saved_history *saved = &saving->list[h];
        for (size_t i = 0; i < saved->kept_count && saved->units == NULL; i++) histories->list[h].units[saved->kept[i].unit].kept = false;
    }
    histories->saving = NULL;
    (void)pthread_cond_broadcast(&histories->saved);
    unlock(histories); /* from here on they may go */
    for (size_t h = 0; h < count; h++) {
        saved_history *saved = &saving->list[h];
        for (size_t i = 0; i < saved->kept_count; i++) free(saved->kept[i].entries);
        for (size_t u = 0; saved->units != NULL && u < saved->unit_count; u++) free(saved->units[u].entries);
        free(saved->units);
        free(saved->kept);
        free(saved->slots);
    }
    free(saving);
}
