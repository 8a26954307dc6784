/* Reading what history_write.c has the format of: the files of a model folder, record by record, with no more memory than two cursors and
 * the histories themselves; and the words of a delta. A unit that is there already is replaced by what is read. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pause.h"
#include "data/history_internal.h"

enum { CURSOR_WORDS = 8192 };
static const uint64_t MOST_ROWS = UINT64_C(1) << 62; /* so that a clock that counts rows can go on */

typedef struct source {
    const char *path;
    const uint64_t *words; /* in memory; NULL = in the open file */
    int fd;
    uint64_t count; /* of words */
    bool shares;    /* the entries that units have are another version's */
} source;

/* A place in a source, with the words of a file that were read around it. */
typedef struct cursor {
    const source *from;
    uint64_t at, first;
    size_t held;
    uint64_t words[CURSOR_WORDS];
} cursor;

static ct_code corrupt(const cursor *cursor, const char *what, ct_status *status) {
    return ct_fail(status, CT_CORRUPT, "%s: %s (at byte %llu); copy the folder again", cursor->from->path, what,
                   (unsigned long long)(8 * cursor->at));
}

static bool has(const cursor *cursor, uint64_t count, uint64_t each) { return count <= (cursor->from->count - cursor->at) / each; }

/* The next words, which must be there. */
static ct_code take(cursor *cursor, void *to, size_t count, ct_status *status) {
    const source *from = cursor->from;
    if (from->words != NULL) {
        memcpy(to, from->words + cursor->at, count * sizeof *from->words);
        cursor->at += count;
        return CT_OK;
    }
    for (char *next = to; count > 0;) {
        if (cursor->at < cursor->first || cursor->at >= cursor->first + cursor->held) {
            const uint64_t left = from->count - cursor->at;
            cursor->held = left < CURSOR_WORDS ? (size_t)left : CURSOR_WORDS;
            cursor->first = cursor->at;
            CT_TRY(ct_file_read_at(from->fd, from->path, 8 * cursor->at, cursor->words, 8 * cursor->held, status));
        }
        const size_t ahead = (size_t)(cursor->first + cursor->held - cursor->at), n = count < ahead ? count : ahead;
        memcpy(next, cursor->words + (cursor->at - cursor->first), 8 * n);
        next += 8 * n;
        cursor->at += n;
        count -= n;
    }
    return CT_OK;
}

/* Entries of a unit stand in the order of time; of those before the newest time there are at most max_values. */
static ct_code take_entries(cursor *from, ct_history *history, ct_history_unit *unit, uint32_t count, ct_status *status) {
    if (!ct_history_unit_reserve(history, unit, count, count)) return ct_fail_memory(status, count * sizeof *unit->entries, "histories");
    CT_TRY(take(from, unit->entries, count * sizeof *unit->entries / sizeof(uint64_t), status));
    uint32_t newest = 1; /* how many have the newest time */
    for (uint32_t e = 1; e < count; e++) {
        if (unit->entries[e].when < unit->entries[e - 1].when) return corrupt(from, "a history is out of order of time", status);
        newest = unit->entries[e].when == unit->entries[e - 1].when ? newest + 1 : 1;
    }
    unit->end = count;
    return count - newest > history->max_values ? corrupt(from, "a history is longer than its schema allows", status) : CT_OK;
}

/* units: another cursor of the same source, which reads the list of units beside their entries. */
static ct_code take_history(cursor *from, cursor *units, ct_histories *histories, size_t number, ct_status *status) {
    ct_history *history = &histories->list[number];
    const ct_field *field = &histories->schema->fields[history->field];
    uint64_t head[3], pair[2], before = 0, taken = 0;
    if (!has(from, 3, 1)) return corrupt(from, "the file is cut", status);
    CT_TRY(take(from, head, 3, status));
    if (head[0] != field->hash)
        return ct_fail(status, CT_CORRUPT, "%s: the history is not that of the schema's field '%s'", from->from->path, field->name);
    const uint64_t unit_count = head[1], entries = head[2];
    if (!has(from, unit_count, 2)) return corrupt(from, "the file is cut", status);
    units->at = from->at;
    from->at += 2 * unit_count;
    if (!has(from, entries, 3)) return corrupt(from, "the file is cut", status);
    for (uint64_t u = 0; u < unit_count; u++) {
        CT_TRY(take(units, pair, 2, status));
        const uint64_t key = pair[0], count = pair[1];
        if (u > 0 && key <= before) return corrupt(units, "units are out of order", status);
        before = key;
        if (count == 0 || count > entries - taken || count > UINT32_MAX / 4) return corrupt(units, "the entries do not add up", status);
        ct_history_unit *unit = ct_history_unit_of(history, key);
        if (unit == NULL || !ct_history_unit_change(histories, number, unit)) return ct_fail_memory(status, sizeof *unit, "histories");
        taken += count;
        history->entry_count += count - (unit->end - unit->begin);
        unit->begin = unit->end = 0;
        if (from->from->shares) {
            unit->entries = NULL;
            unit->capacity = 0;
        }
        CT_TRY(take_entries(from, history, unit, (uint32_t)count, status));
        if (u % CT_PAUSE_ROWS == 0) ct_pause_point();
    }
    return taken == entries ? CT_OK : corrupt(from, "the entries do not add up", status);
}

/* all: 1 or 0 as the head of changes must say it, -1 where it may say either. once: a file of an earlier program. */
static ct_code take_all(const source *source, ct_histories *histories, bool once, int all, ct_status *status) {
    cursor *from = malloc(2 * sizeof *from), *units = from + 1;
    if (from == NULL) return ct_fail_memory(status, 2 * sizeof *from, "histories");
    for (size_t i = 0; i < 2; i++) {
        from[i].from = source;
        from[i].at = from[i].first = 0;
        from[i].held = 0;
    }
    const uint64_t words = once ? 3 : 4;
    uint64_t head[4] = {0};
    ct_code code = CT_OK;
    if (!has(from, words, 1)) {
        code = corrupt(from, "the file is cut", status);
        goto done;
    }
    CT_TRY_GOTO(code, take(from, head, words, status), done);
    if (memcmp(head, once ? CT_HISTORY_MAGIC_ONCE : CT_HISTORY_MAGIC, sizeof head[0]) != 0)
        code = corrupt(from, "these are no histories", status);
    else if (head[1] > MOST_ROWS)
        code = corrupt(from, "the number of rows is impossible", status);
    else if (head[2] != histories->count)
        code = corrupt(from, "the number of histories is not the schema's", status);
    else if (!once && (head[3] > 1 || (all >= 0 && head[3] != (uint64_t)all)))
        code = corrupt(from, "the file is not of this place in the chain", status);
    for (size_t h = 0; h < histories->count && code == CT_OK; h++) code = take_history(from, units, histories, h, status);
    if (code == CT_OK && from->at != source->count) code = corrupt(from, "there is more than there should be", status);
    histories->rows = (int64_t)head[1];
done:
    free(from);
    return code;
}

/* --- deltas --- */

ct_code ct_histories_take_changes(ct_histories *histories, const uint64_t *words, size_t count, const char *path, bool shares,
                                  ct_status *status) {
    const source source = {.path = path, .words = words, .fd = -1, .count = count, .shares = shares};
    return take_all(&source, histories, false, -1, status);
}

ct_code ct_histories_apply(ct_histories *histories, const uint64_t *words, size_t count, const char *path, ct_status *status) {
    if (count >= 4 && words[3] != 0) {
        const bool once = histories->once;
        ct_histories_clear(histories);
        histories->once = once;
    }
    return ct_histories_take_changes(histories, words, count, path, false, status);
}

/* --- files --- */

static ct_code take_file(ct_histories *histories, const char *path, bool once, int all, uint64_t *out_bytes, ct_status *status) {
    struct stat info;
    source source = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (source.fd < 0) return ct_fail_errno(status, "%s: cannot open", path);
    ct_code code = CT_OK;
    if (fstat(source.fd, &info) != 0)
        code = ct_fail_errno(status, "%s: cannot look at it", path);
    else if (info.st_size < 0 || info.st_size % 8 != 0)
        code = ct_fail(status, CT_CORRUPT, "%s: the file is cut: %lld bytes are no whole words; copy the folder again", path,
                       (long long)info.st_size);
    source.count = code == CT_OK ? (uint64_t)info.st_size / 8 : 0;
    if (code == CT_OK) code = take_all(&source, histories, once, all, status);
    *out_bytes = 8 * source.count;
    (void)close(source.fd);
    return code;
}

void ct_histories_file_name(size_t number, char out_name[CT_HISTORIES_NAME_BYTES]) {
    (void)snprintf(out_name, CT_HISTORIES_NAME_BYTES, "%02u", (unsigned)(number % 100));
}

ct_code ct_histories_open(const ct_schema *schema, const char *path, size_t files, ct_histories **out_histories, ct_status *status) {
    ct_histories *histories = NULL;
    uint64_t bytes = 0;
    CT_TRY(ct_histories_create(schema, &histories, status));
    ct_code code = CT_OK;
    if (files == 0) {
        code = take_file(histories, path, true, -1, &bytes, status);
        histories->once = true;
    }
    for (size_t i = 0; i < files && code == CT_OK; i++) {
        char name[CT_HISTORIES_NAME_BYTES];
        ct_histories_file_name(i, name);
        char *file = ct_path_join(path, name);
        code = file == NULL ? ct_fail_memory(status, strlen(path), "a path") : take_file(histories, file, false, i == 0, &bytes, status);
        *(i == 0 ? &histories->chain.first_bytes : &histories->chain.other_bytes) += bytes;
        free(file);
    }
    if (code != CT_OK) {
        ct_histories_destroy(histories);
        return code;
    }
    histories->chain.files = files;
    histories->forgotten = histories->written = histories->period++;
    histories->changed_bytes = 0;
    *out_histories = histories;
    return CT_OK;
}
