/* What histories look like in a file of a model folder and in a delta, which is all units or those that have changed:
 *
 *     "CTHISTD\n"  u64 rows  u64 histories  u64 1 = all that was before is gone, else 0
 *     for each history, in the order of the schema:  u64 hash of the field  u64 units  u64 entries
 *         units, by rising key:  u64 key  u64 entries
 *         entries, unit by unit, oldest first:  i64 when  u64 key  u64 key of the vector
 *
 * All little-endian. Files of earlier programs begin "CTHIST1\n"  u64 rows  u64 histories, and hold all.
 *
 * The digest is of rows, and of each history's units and the sum of their hashes (base/hash.h: the unit's key; its entries as here), so it
 * does not depend on files or on how the table grew. The sum is kept: the hash of a unit is taken out of it before the unit changes, and
 * comes in when it is next written, or asked for. So a digest costs what has changed. */
#include <stdlib.h>
#include <string.h>

#include "data/history_internal.h"

ct_code ct_history_put(ct_history_sink *to, const void *words, size_t count, ct_status *status) {
    if (to->writer != NULL) return ct_file_writer_write(to->writer, words, count * sizeof(uint64_t), status);
    if (to->digest != NULL) {
        ct_digest_update(to->digest, words, count * sizeof(uint64_t));
        return CT_OK;
    }
    if (to->count + count > to->room) {
        const size_t room = 2 * to->room + count + 64;
        uint64_t *more = realloc(to->words, room * sizeof *more);
        if (more == NULL) return ct_fail_memory(status, room * sizeof *more, "the histories' changes");
        to->words = more;
        to->room = room;
    }
    if (count > 0) memcpy(to->words + to->count, words, count * sizeof *to->words);
    to->count += count;
    return CT_OK;
}

ct_code ct_history_put_head(ct_history_sink *to, int64_t rows, size_t histories, bool all, ct_status *status) {
    uint64_t words[4] = {0, (uint64_t)rows, histories, all};
    memcpy(words, CT_HISTORY_MAGIC, sizeof words[0]);
    return ct_history_put(to, words, 4, status);
}

static int by_key(const void *left, const void *right) {
    const ct_history_order *a = left, *b = right;
    return (a->key > b->key) - (a->key < b->key);
}

ct_code ct_history_put_units(ct_history_sink *to, uint64_t hash, ct_history_order *order, size_t count, ct_status *status) {
    uint64_t entries = 0;
    for (size_t i = 0; i < count; i++) entries += order[i].count;
    if (count > 1) qsort(order, count, sizeof *order, by_key);
    CT_TRY(ct_history_put(to, (const uint64_t[]){hash, count, entries}, 3, status));
    for (size_t i = 0; i < count; i++) CT_TRY(ct_history_put(to, (const uint64_t[]){order[i].key, order[i].count}, 2, status));
    return CT_OK;
}

/* Of the units that have changed after period `since`; 0: of all. */
static ct_code put_history(ct_history_sink *to, const ct_schema *schema, const ct_history *history, uint32_t since, ct_status *status) {
    size_t count = 0;
    ct_history_order *order = malloc((history->unit_count + 1) * sizeof *order);
    if (order == NULL) return ct_fail_memory(status, history->unit_count * sizeof *order, "the histories' units");
    for (size_t u = 0; u < history->unit_count; u++) {
        const ct_history_unit *unit = &history->units[u];
        if (since > 0 && unit->changed <= since) continue;
        order[count++] = (ct_history_order){.key = unit->key, .unit = (uint32_t)u, .count = unit->end - unit->begin};
    }
    ct_code code = ct_history_put_units(to, schema->fields[history->field].hash, order, count, status);
    for (size_t i = 0; i < count && code == CT_OK; i++) {
        const ct_history_unit *unit = &history->units[order[i].unit];
        code = ct_history_put(to, unit->entries + unit->begin, order[i].count * sizeof *unit->entries / sizeof(uint64_t), status);
    }
    free(order);
    return code;
}

static ct_code put_histories(ct_history_sink *to, const ct_histories *histories, uint32_t since, ct_status *status) {
    for (size_t h = 0; h < histories->count; h++) CT_TRY(put_history(to, histories->schema, &histories->list[h], since, status));
    return CT_OK;
}

ct_code ct_histories_changes(ct_histories *histories, uint64_t **out_words, size_t *out_count, ct_status *status) {
    ct_history_sink to = {0};
    (void)pthread_mutex_lock(&histories->mutex);
    const bool all = histories->forgotten == 0 || histories->cleared > histories->forgotten;
    ct_code code = ct_history_put_head(&to, histories->rows, histories->count, histories->cleared > histories->forgotten, status);
    if (code == CT_OK) code = put_histories(&to, histories, all ? 0 : histories->forgotten, status);
    (void)pthread_mutex_unlock(&histories->mutex);
    if (code != CT_OK) {
        free(to.words);
        return code;
    }
    *out_words = to.words;
    *out_count = to.count;
    return CT_OK;
}

void ct_histories_forget_changes(ct_histories *histories) {
    (void)pthread_mutex_lock(&histories->mutex);
    histories->forgotten = histories->period++;
    (void)pthread_mutex_unlock(&histories->mutex);
}

/* --- the digest --- */

void ct_history_digest_head(ct_digest *digest, int64_t rows, size_t histories) {
    ct_digest_update_text(digest, "histories 2");
    ct_digest_update_u64(digest, (uint64_t)rows);
    ct_digest_update_u64(digest, histories);
}

void ct_history_digest(ct_digest *digest, uint64_t hash, size_t units, const ct_sum *sum) {
    ct_digest_update_u64(digest, hash);
    ct_digest_update_u64(digest, units);
    for (size_t n = 0; n < 2; n++) ct_digest_update_u64(digest, sum->word[n]);
}

void ct_history_sum_add(ct_sum *sum, uint64_t key, const ct_history_entry *entries, uint32_t count) {
    ct_sum_add(sum, key, entries, count * sizeof *entries);
}

/* What a saving at work has to write comes into the sum when it does, else it would count twice. */
ct_sum ct_history_sum(const ct_histories *histories, ct_history *history) {
    ct_sum sum = history->sum;
    for (size_t u = 0; u < history->unit_count; u++) {
        ct_history_unit *unit = &history->units[u];
        if (unit->summed) continue;
        ct_history_sum_add(&sum, unit->key, unit->entries + unit->begin, unit->end - unit->begin);
        unit->summed = histories->saving == NULL;
    }
    if (histories->saving == NULL) history->sum = sum;
    return sum;
}

/* As a file of earlier programs, byte for byte. */
static ct_code digest_once(const ct_histories *histories, ct_digest *digest, ct_status *status) {
    ct_history_sink to = {.digest = digest};
    uint64_t words[3] = {0, (uint64_t)histories->rows, histories->count};
    memcpy(words, CT_HISTORY_MAGIC_ONCE, sizeof words[0]);
    CT_TRY(ct_history_put(&to, words, 3, status));
    return put_histories(&to, histories, 0, status);
}

ct_code ct_histories_digest(ct_histories *histories, ct_digest *digest, ct_status *status) {
    if (histories->once) return digest_once(histories, digest, status);
    (void)pthread_mutex_lock(&histories->mutex);
    ct_history_digest_head(digest, histories->rows, histories->count);
    for (size_t h = 0; h < histories->count; h++) {
        ct_history *history = &histories->list[h];
        const ct_sum sum = ct_history_sum(histories, history);
        ct_history_digest(digest, histories->schema->fields[history->field].hash, history->unit_count, &sum);
    }
    (void)pthread_mutex_unlock(&histories->mutex);
    return CT_OK;
}

void ct_histories_digest_anew(ct_histories *histories) { histories->once = false; }
