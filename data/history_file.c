/* The file of a model folder that holds its histories:
 *
 *     "CTHIST1\n"  u64 rows  u64 histories
 *     for each history, in the order of the schema:  u64 hash of the field  u64 units  u64 entries
 *         units, by rising key:  u64 key  u64 entries
 *         entries, unit by unit, oldest first:  i64 when  u64 key  u64 key of the vector
 *
 * All little-endian. The same bytes are the digest's, so they hold nothing that depends on how the table grew.
 *
 * A delta's histories are the same, but that the first word is "CTHISTD\n", that behind `histories` comes  u64 1 where all that was before
 * is gone, else 0, and that they hold the units that have changed. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/pause.h"
#include "data/history_internal.h"

#define FILE_MAX_BYTES ((size_t)1 << 36)
static const char magic_of_changes[8] = {'C', 'T', 'H', 'I', 'S', 'T', 'D', '\n'};

typedef struct word_list {
    uint64_t *words;
    size_t count, room;
} word_list;

/* Where the bytes go: one of the two. */
typedef struct sink {
    ct_digest *digest;
    word_list *list;
    bool changed; /* only units that have changed */
} sink;

static ct_code put_words(const sink *to, const uint64_t *words, size_t count, ct_status *status) {
    if (to->digest != NULL) {
        ct_digest_update(to->digest, words, count * sizeof *words);
        return CT_OK;
    }
    word_list *list = to->list;
    if (list->count + count > list->room) {
        const size_t room = 2 * list->room + count + 64;
        uint64_t *more = realloc(list->words, room * sizeof *more);
        if (more == NULL) return ct_fail_memory(status, room * sizeof *more, "the histories' changes");
        list->words = more;
        list->room = room;
    }
    memcpy(list->words + list->count, words, count * sizeof *words);
    list->count += count;
    return CT_OK;
}

static int by_key(const void *left, const void *right) {
    const ct_history_unit *a = *(ct_history_unit *const *)left, *b = *(ct_history_unit *const *)right;
    return (a->key > b->key) - (a->key < b->key);
}

static ct_code put_history(const sink *to, const ct_schema *schema, const ct_history *history, ct_status *status) {
    ct_code code = CT_OK;
    uint64_t entries = 0;
    size_t count = 0;
    const ct_history_unit **units = calloc(history->unit_count + 1, sizeof *units);
    if (units == NULL) return ct_fail_memory(status, history->unit_count * sizeof *units, "the histories' units");
    for (size_t u = 0; u < history->unit_count; u++) {
        if (to->changed && !history->units[u].changed) continue;
        units[count] = &history->units[u];
        entries += units[count]->end - units[count]->begin;
        count++;
    }
    qsort(units, count, sizeof *units, by_key);
    CT_TRY_GOTO(code, put_words(to, (const uint64_t[]){schema->fields[history->field].hash, count, entries}, 3, status), done);
    for (size_t u = 0; u < count; u++)
        CT_TRY_GOTO(code, put_words(to, (const uint64_t[]){units[u]->key, units[u]->end - units[u]->begin}, 2, status), done);
    for (size_t u = 0; u < count; u++)
        for (uint32_t e = units[u]->begin; e < units[u]->end; e++) {
            const ct_history_entry *entry = &units[u]->entries[e];
            CT_TRY_GOTO(code, put_words(to, (const uint64_t[]){(uint64_t)entry->when, entry->key, entry->vector}, 3, status), done);
        }
done:
    free(units);
    return code;
}

static ct_code put_all(const sink *to, const ct_histories *histories, ct_status *status) {
    uint64_t words[3] = {0, (uint64_t)histories->rows, histories->count};
    memcpy(words, CT_HISTORY_MAGIC, sizeof words[0]);
    CT_TRY(put_words(to, words, 3, status));
    for (size_t h = 0; h < histories->count; h++) CT_TRY(put_history(to, histories->schema, &histories->list[h], status));
    return CT_OK;
}

ct_code ct_histories_digest(const ct_histories *histories, ct_digest *digest, ct_status *status) {
    const sink to = {.digest = digest};
    return put_all(&to, histories, status);
}

ct_code ct_histories_changes(const ct_histories *histories, uint64_t **out_words, size_t *out_count, ct_status *status) {
    word_list list = {0};
    const sink to = {.list = &list, .changed = !histories->cleared};
    uint64_t words[4] = {0, (uint64_t)histories->rows, histories->count, histories->cleared};
    memcpy(words, magic_of_changes, sizeof magic_of_changes);
    ct_code code = put_words(&to, words, 4, status);
    for (size_t h = 0; h < histories->count && code == CT_OK; h++) code = put_history(&to, histories->schema, &histories->list[h], status);
    if (code != CT_OK) {
        free(list.words);
        return code;
    }
    *out_words = list.words;
    *out_count = list.count;
    return CT_OK;
}

void ct_histories_forget_changes(ct_histories *histories) {
    histories->cleared = false;
    for (size_t h = 0; h < histories->count; h++)
        for (size_t u = 0; u < histories->list[h].unit_count; u++) histories->list[h].units[u].changed = false;
}

/* --- reading --- */

typedef struct words {
    const char *path, *data;
    size_t count, at; /* in words */
    bool shares;      /* the entries that units have are another version's */
} words;

static uint64_t next(words *from) { return ct_get_le64(from->data + 8 * from->at++); }
static bool has(const words *from, uint64_t count, uint64_t each) { return count <= (from->count - from->at) / each; }

static ct_code corrupt(const words *from, const char *what, ct_status *status) {
    return ct_fail(status, CT_CORRUPT, "%s: %s (at byte %zu); copy the folder again", from->path, what, 8 * from->at);
}

/* Entries of a unit stand in the order of time; of those before the newest time there are at most max_values. */
static ct_code take_entries(words *from, ct_history *history, ct_history_unit *unit, uint32_t count, ct_status *status) {
    if (!ct_history_unit_reserve(history, unit, count)) return ct_fail_memory(status, count * sizeof *unit->entries, "histories");
    uint32_t newest = 0; /* how many have the newest time */
    for (uint32_t e = 0; e < count; e++) {
        ct_history_entry *entry = &unit->entries[unit->end++];
        entry->when = (int64_t)next(from);
        entry->key = next(from);
        entry->vector = next(from);
        if (e > 0 && entry->when < entry[-1].when) return corrupt(from, "a history is out of order of time", status);
        newest = e > 0 && entry->when == entry[-1].when ? newest + 1 : 1;
    }
    return count - newest > history->max_values ? corrupt(from, "a history is longer than its schema allows", status) : CT_OK;
}

static ct_code take_history(words *from, const ct_schema *schema, ct_history *history, ct_status *status) {
    const char *name = schema->fields[history->field].name;
    if (!has(from, 3, 1)) return corrupt(from, "the file is cut", status);
    if (next(from) != schema->fields[history->field].hash)
        return ct_fail(status, CT_CORRUPT, "%s: the history is not that of the schema's field '%s'", from->path, name);
    const uint64_t units = next(from), entries = next(from);
    if (!has(from, units, 2)) return corrupt(from, "the file is cut", status);
    words counts = *from;
    from->at += 2 * units;
    if (!has(from, entries, 3)) return corrupt(from, "the file is cut", status);
    uint64_t before = 0, taken = 0;
    for (uint64_t u = 0; u < units; u++) {
        const uint64_t key = next(&counts), count = next(&counts);
        if (u > 0 && key <= before) return corrupt(&counts, "units are out of order", status);
        before = key;
        if (count == 0 || count > entries - taken || count > UINT32_MAX / 4) return corrupt(&counts, "the entries do not add up", status);
        ct_history_unit *unit = ct_history_unit_of(history, key);
        if (unit == NULL) return ct_fail_memory(status, sizeof *unit, "histories");
        taken += count;
        unit->begin = unit->end = 0;
        unit->changed = true;
        if (from->shares) {
            unit->entries = NULL;
            unit->capacity = 0;
        }
        CT_TRY(take_entries(from, history, unit, (uint32_t)count, status));
        if (u % CT_PAUSE_ROWS == 0) ct_pause_point();
    }
    return taken == entries ? CT_OK : corrupt(from, "the entries do not add up", status);
}

static ct_code take_all(words *from, ct_histories *histories, ct_status *status) {
    if (from->count < 3 || memcmp(from->data, CT_HISTORY_MAGIC, sizeof(uint64_t)) != 0)
        return corrupt(from, "this is no file of histories", status);
    from->at = 1;
    histories->rows = (int64_t)next(from);
    if (next(from) != histories->count) return corrupt(from, "the number of histories is not the schema's", status);
    for (size_t h = 0; h < histories->count; h++) CT_TRY(take_history(from, histories->schema, &histories->list[h], status));
    return from->at == from->count ? CT_OK : corrupt(from, "there is more than there should be", status);
}

ct_code ct_histories_take_changes(ct_histories *histories, const uint64_t *data, size_t count, const char *path, bool shares,
                                  ct_status *status) {
    words from = {.path = path, .data = (const char *)data, .count = count, .at = 1, .shares = shares};
    if (count < 4 || memcmp(data, magic_of_changes, sizeof magic_of_changes) != 0)
        return corrupt(&from, "these are no histories of a delta", status);
    histories->rows = (int64_t)next(&from);
    if (next(&from) != histories->count) return corrupt(&from, "the number of histories is not the schema's", status);
    from.at++; /* the caller has cleared them, if need be */
    for (size_t h = 0; h < histories->count; h++) CT_TRY(take_history(&from, histories->schema, &histories->list[h], status));
    return from.at == from.count ? CT_OK : corrupt(&from, "there is more than there should be", status);
}

ct_code ct_histories_apply(ct_histories *histories, const uint64_t *words, size_t count, const char *path, ct_status *status) {
    if (count >= 4 && words[3] != 0) ct_histories_clear(histories);
    return ct_histories_take_changes(histories, words, count, path, false, status);
}

ct_code ct_histories_open(const ct_schema *schema, const char *path, ct_histories **out_histories, ct_status *status) {
    char *data = NULL;
    size_t bytes = 0;
    ct_histories *histories = NULL;
    CT_TRY(ct_file_read(path, FILE_MAX_BYTES, &data, &bytes, status));
    ct_code code = ct_histories_create(schema, &histories, status);
    if (code == CT_OK) {
        words from = {.path = path, .data = data, .count = bytes / 8};
        code = bytes % 8 != 0 ? corrupt(&from, "the file is cut", status) : take_all(&from, histories, status);
        ct_histories_forget_changes(histories);
    }
    free(data);
    if (code != CT_OK) {
        ct_histories_destroy(histories);
        return code;
    }
    *out_histories = histories;
    return CT_OK;
}
