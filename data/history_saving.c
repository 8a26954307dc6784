/* Histories as they were at one moment, written while more rows enter. The moment itself costs nothing: units are only added behind those
 * that there were, and whoever is about to change one of those first keeps a copy of its entries, if they are to be written. Are all
 * histories cleared meanwhile, what there was is handed over whole. Copies are bounded; beyond, rows wait for the writer.
 *
 * What is written. A saving's folder holds a chain of files, links to those that stay in a scratch folder: the first one has all units of
 * its moment, each further one those that had changed since the one before (ct_history_unit.changed tells which). All are written anew
 * where there is no chain, where all began anew, where the chain has CT_HISTORIES_MOST_FILES files, and where what has changed would weigh
 * more than the first file. So the chain weighs at most about twice what all units weigh, opening reads no more than that, and over time no
 * more than about twice of what has changed is written. After a failure the next saving writes all.
 *
 * Threads. One lock: rows enter a batch at a time, the writer takes some KiB of entries at a time. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    bool summed;
} kept_unit;

typedef struct saved_history {
    size_t unit_count;
    ct_sum sum;             /* of what was summed at the moment, then also of what was written since */
    ct_history_unit *units; /* where the histories were cleared meanwhile: they are ours; else NULL */
    kept_unit *kept;        /* (kept_count) */
    uint32_t *slots;        /* (room, a power of two): number + 1 of one kept, 0 = free; linear probing by the unit's number */
    size_t kept_count, room;
} saved_history;

struct ct_histories_saving {
    ct_histories *histories;
    int64_t rows;
    bool all, written;  /* all units go into the file; it is there */
    uint32_t since, at; /* periods: the units that have changed later than `since`, and not later than `at` */
    uint64_t kept_bytes, most_kept_bytes, moved_bytes, opened_bytes;
    saved_history list[];
};

static void lock(ct_histories *histories) { (void)pthread_mutex_lock(&histories->mutex); }
static void unlock(ct_histories *histories) { (void)pthread_mutex_unlock(&histories->mutex); }

/* malloc'd */
static char *file_path(const char *folder, size_t number) {
    char name[CT_HISTORIES_NAME_BYTES];
    ct_histories_file_name(number, name);
    return ct_path_join(folder, name);
}

static ct_code link_file(const char *from, const char *to, size_t number, ct_status *status) {
    char *source = file_path(from, number), *target = file_path(to, number);
    const ct_code code =
        source == NULL || target == NULL ? ct_fail_memory(status, strlen(from), "a path") : ct_file_link(source, target, status);
    free(source);
    free(target);
    return code;
}

/* --- whoever changes them, in the lock --- */

static uint32_t *kept_slot(const saved_history *saved, uint32_t unit) { /* there is room */
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

/* Of a unit that there was at the moment, and that has not changed since. */
static bool is_asked_for(const ct_histories_saving *saving, const ct_history_unit *unit) {
    return saving->all || unit->changed > saving->since;
}

bool ct_histories_keep(ct_histories *histories, size_t number, const ct_history_unit *unit) {
    ct_histories_saving *saving = histories->saving;
    saved_history *saved = &saving->list[number];
    const size_t at = (size_t)(unit - histories->list[number].units);
    if (saved->units != NULL || at >= saved->unit_count || unit->changed > saving->at || !is_asked_for(saving, unit)) return true;
    if (2 * saved->kept_count == saved->room && !kept_grow(saved)) return false;
    const uint32_t count = unit->end - unit->begin;
    ct_history_entry *entries = malloc((count + 1) * sizeof *entries);
    if (entries == NULL) return false;
    if (count > 0) memcpy(entries, unit->entries + unit->begin, count * sizeof *entries);
    saved->kept[saved->kept_count++] = (kept_unit){entries, (uint32_t)at, count, unit->summed};
    *kept_slot(saved, (uint32_t)at) = (uint32_t)saved->kept_count;
    saving->kept_bytes += (count + 1) * sizeof *entries + sizeof *saved->kept + 2 * sizeof *saved->slots;
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

/* --- the moment --- */

ct_code ct_histories_save_beside(ct_histories *histories, const char *folder, const char *from, ct_status *status) {
    ct_history_chain *chain = &histories->chain;
    if (chain->folder != NULL) return CT_OK;
    ct_code code = ct_folder_create(folder, status);
    for (size_t i = 0; i < chain->files && from != NULL && code == CT_OK; i++) code = link_file(from, folder, i, status);
    if (code != CT_OK) return code;
    if (from == NULL) chain->files = 0;
    lock(histories);
    for (size_t h = 0; h < histories->count; h++) (void)ct_history_sum(histories, &histories->list[h]); /* of what is not written again */
    unlock(histories);
    chain->folder = strdup(folder);
    return chain->folder != NULL ? CT_OK : ct_fail_memory(status, strlen(folder), "a path");
}

ct_code ct_histories_saving_begin(ct_histories *histories, ct_histories_saving **out_saving, ct_status *status) {
    const ct_history_chain *chain = &histories->chain;
    ct_histories_saving *saving = calloc(1, sizeof *saving + histories->count * sizeof *saving->list);
    if (saving == NULL) return ct_fail_memory(status, histories->count * sizeof *saving->list, "histories to be saved");
    lock(histories);
    while (histories->saving != NULL) (void)pthread_cond_wait(&histories->saved, &histories->mutex); /* the one before */
    saving->histories = histories;
    saving->rows = histories->rows;
    saving->most_kept_bytes = ct_histories_most_kept_bytes(histories);
    saving->all = chain->folder == NULL || chain->files == 0 || chain->files == CT_HISTORIES_MOST_FILES ||
                  histories->cleared > histories->written || chain->other_bytes + histories->changed_bytes > chain->first_bytes;
    saving->since = histories->written;
    saving->at = histories->written = histories->period++;
    histories->changed_bytes = 0;
    for (size_t h = 0; h < histories->count; h++) {
        saving->list[h].unit_count = histories->list[h].unit_count;
        saving->list[h].sum = histories->list[h].sum;
        saving->opened_bytes += ct_history_opened_bytes(&histories->list[h]);
    }
    histories->saving = saving;
    unlock(histories);
    *out_saving = saving;
    return CT_OK;
}

uint64_t ct_histories_saving_opened_bytes(const ct_histories_saving *saving) { return saving->opened_bytes; }

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

/* --- the writer --- */

static ct_history_unit *units_of(const ct_histories_saving *saving, size_t number) {
    return saving->list[number].units != NULL ? saving->list[number].units : saving->histories->list[number].units;
}

/* A unit as it was at the moment. */
typedef struct unit_then {
    const ct_history_entry *entries;
    uint32_t count;
    bool summed;
    ct_history_unit *now; /* NULL where it has changed since */
} unit_then;

/* In the lock; false: it is not to be written. */
static bool unit_of_then(const ct_histories_saving *saving, size_t number, uint32_t unit, unit_then *out) {
    const saved_history *saved = &saving->list[number];
    ct_history_unit *now = &units_of(saving, number)[unit];
    if (now->changed <= saving->at) {
        *out = (unit_then){now->entries + now->begin, now->end - now->begin, now->summed, now};
        return is_asked_for(saving, now);
    }
    const uint32_t slot = saved->room > 0 ? *kept_slot(saved, unit) : 0;
    if (slot == 0) return false;
    *out = (unit_then){saved->kept[slot - 1].entries, saved->kept[slot - 1].count, saved->kept[slot - 1].summed, NULL};
    return true;
}

/* Those that are to be written, in the order of appearance. out_order: malloc'd. */
static ct_code list_units(const ct_histories_saving *saving, size_t number, ct_history_order **out_order, size_t *out_count,
                          ct_status *status) {
    const size_t unit_count = saving->list[number].unit_count;
    size_t count = 0, room = 0;
    ct_history_order *order = NULL;
    for (size_t first = 0; first < unit_count; first += CHUNK_UNITS) {
        const size_t end = unit_count - first < CHUNK_UNITS ? unit_count : first + CHUNK_UNITS;
        if (room - count < CHUNK_UNITS) {
            const size_t most = unit_count + CHUNK_UNITS, more_room = 2 * room + CHUNK_UNITS;
            room = saving->all || more_room > most ? most : more_room;
            ct_history_order *more = realloc(order, room * sizeof *order);
            if (more == NULL) {
                free(order);
                return ct_fail_memory(status, room * sizeof *order, "histories to be saved");
            }
            order = more;
        }
        lock(saving->histories);
        for (size_t u = first; u < end; u++) {
            unit_then then;
            if (unit_of_then(saving, number, (uint32_t)u, &then))
                order[count++] = (ct_history_order){units_of(saving, number)[u].key, (uint32_t)u, then.count};
        }
        unlock(saving->histories);
    }
    *out_order = order;
    *out_count = count;
    return CT_OK;
}

/* In the lock: into the saving's sum, and into that of the histories, where they have it still. */
static void sum_up(ct_histories_saving *saving, size_t number, uint64_t key, const unit_then *then) {
    saved_history *saved = &saving->list[number];
    ct_sum hash = {{0, 0}};
    if (then->summed) return;
    ct_history_sum_add(&hash, key, then->entries, then->count);
    for (size_t n = 0; n < 2; n++) saved->sum.word[n] += hash.word[n];
    if (then->now == NULL || saved->units != NULL) return;
    for (size_t n = 0; n < 2; n++) saving->histories->list[number].sum.word[n] += hash.word[n];
    then->now->summed = 1;
}

static ct_code put_entries(ct_histories_saving *saving, size_t number, const ct_history_order *order, size_t count, ct_history_sink *to,
                           ct_status *status) {
    size_t room = CHUNK_ENTRIES;
    ct_code code = CT_OK;
    ct_history_entry *chunk = malloc(room * sizeof *chunk);
    if (chunk == NULL) return ct_fail_memory(status, room * sizeof *chunk, "histories to be saved");
    for (size_t i = 0; i < count && code == CT_OK;) {
        if (order[i].count > room) {
            free(chunk);
            room = order[i].count;
            chunk = malloc(room * sizeof *chunk);
            if (chunk == NULL) return ct_fail_memory(status, room * sizeof *chunk, "histories to be saved");
        }
        size_t used = 0;
        lock(saving->histories);
        for (; i < count && used + order[i].count <= room; i++) {
            unit_then then;
            (void)unit_of_then(saving, number, order[i].unit, &then);
            if (then.count > 0) memcpy(chunk + used, then.entries, then.count * sizeof *chunk);
            used += then.count;
            sum_up(saving, number, order[i].key, &then);
        }
        unlock(saving->histories);
        code = ct_history_put(to, chunk, used * sizeof *chunk / sizeof(uint64_t), status);
    }
    free(chunk);
    return code;
}

static ct_code put_history(ct_histories_saving *saving, size_t number, ct_history_sink *to, ct_status *status) {
    const uint64_t hash = saving->histories->schema->fields[saving->histories->list[number].field].hash;
    ct_history_order *order = NULL;
    size_t count = 0;
    CT_TRY(list_units(saving, number, &order, &count, status));
    ct_code code = ct_history_put_units(to, hash, order, count, status);
    if (code == CT_OK) code = put_entries(saving, number, order, count, to, status);
    free(order);
    return code;
}

static ct_code write_file(ct_histories_saving *saving, const char *path, uint64_t *out_bytes, ct_status *status) {
    ct_history_sink to = {0};
    CT_TRY(ct_file_writer_open(path, &to.writer, status));
    ct_code code = ct_history_put_head(&to, saving->rows, saving->histories->count, saving->all, status);
    for (size_t h = 0; h < saving->histories->count && code == CT_OK; h++) code = put_history(saving, h, &to, status);
    *out_bytes = ct_file_writer_position(to.writer);
    if (code == CT_OK) return ct_file_writer_commit(to.writer, status);
    ct_file_writer_abort(to.writer);
    return code;
}

/* The chain has one file more, or begins anew. */
static ct_code extend(ct_histories_saving *saving, ct_status *status) {
    ct_history_chain *chain = &saving->histories->chain;
    const size_t number = saving->all ? 0 : chain->files;
    uint64_t bytes = 0;
    char *path = file_path(chain->folder, number);
    if (path == NULL) return ct_fail_memory(status, strlen(chain->folder), "a path");
    const ct_code code = write_file(saving, path, &bytes, status);
    free(path);
    CT_TRY(code);
    for (size_t i = 1; i < chain->files && saving->all; i++) { /* what folders need of it, they have links to */
        path = file_path(chain->folder, i);
        if (path != NULL) (void)unlink(path);
        free(path);
    }
    chain->files = number + 1;
    chain->first_bytes = saving->all ? bytes : chain->first_bytes;
    chain->other_bytes = saving->all ? 0 : chain->other_bytes + bytes;
    return CT_OK;
}

ct_code ct_histories_saving_write(ct_histories_saving *saving, const char *folder, ct_digest *digest, ct_status *status) {
    const ct_histories *histories = saving->histories;
    const ct_history_chain *chain = &histories->chain;
    uint64_t bytes;
    CT_TRY(ct_folder_create(folder, status));
    if (chain->folder != NULL) {
        CT_TRY(extend(saving, status));
        for (size_t i = 0; i < chain->files; i++) CT_TRY(link_file(chain->folder, folder, i, status));
    } else {
        char *path = file_path(folder, 0);
        const ct_code code = path == NULL ? ct_fail_memory(status, strlen(folder), "a path") : write_file(saving, path, &bytes, status);
        free(path);
        CT_TRY(code);
    }
    saving->written = true;
    ct_history_digest_head(digest, saving->rows, histories->count);
    for (size_t h = 0; h < histories->count; h++)
        ct_history_digest(digest, histories->schema->fields[histories->list[h].field].hash, saving->list[h].unit_count,
                          &saving->list[h].sum);
    return CT_OK;
}

void ct_histories_saving_end(ct_histories_saving *saving) {
    if (saving == NULL) return;
    ct_histories *histories = saving->histories;
    const size_t count = histories->count;
    lock(histories);
    if (!saving->written) histories->chain.files = 0; /* it lacks what was to be written */
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
