#include "data/history.h"

#include <stdlib.h>
#include <string.h>

#include "base/pause.h"
#include "data/history_internal.h"
#include "data/internal.h"

enum { FIRST_SLOTS = 256, FIRST_ENTRIES = 4, MALLOC_BYTES = 16 /* that it adds */ };

/* --- units --- */

/* Keys are hashes; their low bits will do. */
static uint32_t *slot_of(const ct_history *history, uint64_t key) {
    const size_t mask = history->slot_count - 1;
    size_t at = (size_t)key & mask;
    while (history->slots[at] != 0 && history->units[history->slots[at] - 1].key != key) at = (at + 1) & mask;
    return &history->slots[at];
}

static const ct_history_unit *find_unit(const ct_history *history, uint64_t key) {
    if (history->slot_count == 0) return NULL;
    const uint32_t slot = *slot_of(history, key);
    return slot == 0 ? NULL : &history->units[slot - 1];
}

static bool grow_slots(ct_history *history) {
    const size_t count = history->slot_count == 0 ? FIRST_SLOTS : 2 * history->slot_count;
    uint32_t *slots = calloc(count, sizeof *slots);
    if (slots == NULL) return false;
    free(history->slots);
    history->bytes += (count - history->slot_count) * sizeof *slots;
    history->slots = slots;
    history->slot_count = count;
    for (size_t i = 0; i < history->unit_count; i++) *slot_of(history, history->units[i].key) = (uint32_t)i + 1;
    return true;
}

ct_history_unit *ct_history_unit_of(ct_history *history, uint64_t key) {
    if (2 * (history->unit_count + 1) > history->slot_count && !grow_slots(history)) return NULL;
    uint32_t *slot = slot_of(history, key);
    if (*slot != 0) return &history->units[*slot - 1];
    if (history->unit_count == history->unit_capacity) {
        const size_t capacity = history->unit_capacity == 0 ? FIRST_SLOTS : 2 * history->unit_capacity;
        ct_history_unit *units = capacity > UINT32_MAX ? NULL : realloc(history->units, capacity * sizeof *units);
        if (units == NULL) return NULL;
        history->bytes += (capacity - history->unit_capacity) * sizeof *units;
        history->units = units;
        history->unit_capacity = capacity;
    }
    ct_history_unit *unit = &history->units[history->unit_count++];
    *unit = (ct_history_unit){.key = key};
    *slot = (uint32_t)history->unit_count;
    return unit;
}

bool ct_history_unit_reserve(ct_history *history, ct_history_unit *unit, uint32_t count, uint32_t capacity) {
    if (unit->begin + count <= unit->capacity) return true;
    const uint32_t used = unit->end - unit->begin;
    if (count > unit->capacity - unit->capacity / 4) { /* else moving to the front makes room for many more */
        ct_history_entry *entries = malloc(capacity * sizeof *entries);
        if (entries == NULL) return false;
        if (used > 0) memcpy(entries, unit->entries + unit->begin, used * sizeof *entries);
        history->bytes += (capacity - unit->capacity) * sizeof *entries + (unit->entries == NULL ? MALLOC_BYTES : 0);
        free(unit->entries);
        unit->entries = entries;
        unit->capacity = capacity;
    } else {
        memmove(unit->entries, unit->entries + unit->begin, used * sizeof *unit->entries);
    }
    unit->begin = 0;
    unit->end = used;
    return true;
}

uint64_t ct_history_opened_bytes(const ct_history *history) {
    const uint64_t units = history->unit_count;
    uint64_t capacity = FIRST_SLOTS, slots = FIRST_SLOTS;
    if (units == 0) return 0;
    while (capacity < units) capacity *= 2;
    while (slots < 2 * units) slots *= 2;
    return capacity * sizeof *history->units + slots * sizeof *history->slots + history->entry_count * sizeof(ct_history_entry) +
           units * MALLOC_BYTES;
}

bool ct_history_unit_change(ct_histories *histories, size_t number, ct_history_unit *unit) {
    if (unit->changed == histories->period && !unit->summed) return true; /* not the first time */
    if (histories->saving != NULL && !ct_histories_keep(histories, number, unit)) return false;
    const uint32_t count = unit->end - unit->begin;
    if (unit->summed) ct_sum_take(&histories->list[number].sum, unit->key, unit->entries + unit->begin, count * sizeof *unit->entries);
    unit->summed = 0;
    if (unit->changed <= histories->written) histories->changed_bytes += 2 * sizeof(uint64_t) + (count + 1) * sizeof *unit->entries;
    unit->changed = histories->period & CT_HISTORY_PERIODS;
    return true;
}

/* Where the entries of `when` or later begin. */
static uint32_t before(const ct_history_unit *unit, int64_t when) {
    uint32_t at = unit->end;
    while (at > unit->begin && unit->entries[at - 1].when >= when) at--;
    return at;
}

static bool enter(ct_histories *histories, size_t number, uint64_t unit_key, const ct_history_entry *entry) {
    ct_history *history = &histories->list[number];
    ct_history_unit *unit = ct_history_unit_of(history, unit_key);
    if (unit == NULL || !ct_history_unit_change(histories, number, unit)) return false;
    const uint32_t count = unit->end - unit->begin + 1;
    if (!ct_history_unit_reserve(history, unit, count, count < FIRST_ENTRIES ? FIRST_ENTRIES : 2 * count)) return false;
    uint32_t at = unit->end;
    while (at > unit->begin && unit->entries[at - 1].when > entry->when) at--; /* only a late one stands before others */
    memmove(unit->entries + at + 1, unit->entries + at, (unit->end - at) * sizeof *entry);
    unit->entries[at] = *entry;
    unit->end++;
    history->entry_count++;
    const uint32_t earlier = before(unit, unit->entries[unit->end - 1].when);
    if (earlier - unit->begin > history->max_values) unit->begin = earlier - history->max_values;
    history->entry_count -= count - (unit->end - unit->begin);
    return true;
}

/* --- the object --- */

bool ct_schema_has_histories(const ct_schema *schema) {
    for (size_t f = 0; f < schema->field_count; f++)
        if (schema->fields[f].kind == CT_FIELD_HISTORY) return true;
    return false;
}

ct_code ct_histories_create(const ct_schema *schema, ct_histories **out_histories, ct_status *status) {
    ct_histories *histories = calloc(1, sizeof *histories);
    ct_history *list = calloc(schema->field_count + 1, sizeof *list);
    if (histories == NULL || list == NULL) {
        free(histories);
        free(list);
        return ct_fail_memory(status, schema->field_count * sizeof *list, "histories");
    }
    *histories = (ct_histories){.schema = schema,
                                .unit = ct_schema_find_kind(schema, CT_FIELD_UNIT),
                                .time = ct_schema_find_kind(schema, CT_FIELD_TIME),
                                .label = ct_schema_find_kind(schema, CT_FIELD_LABEL),
                                .list = list,
                                .period = 1};
    (void)pthread_mutex_init(&histories->mutex, NULL);
    (void)pthread_cond_init(&histories->saved, NULL);
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (field->kind != CT_FIELD_HISTORY) continue;
        ct_history *history = &list[histories->count++];
        *history = (ct_history){.field = f, .of = field->of, .vector = -1, .clicked = field->clicked, .max_values = field->max_values};
        for (size_t s = 0; s < schema->field_count; s++)
            if (schema->fields[s].kind == CT_FIELD_SIMILARITY && schema->fields[s].of == f)
                history->vector = (int64_t)schema->fields[s].vector;
    }
    *out_histories = histories;
    return CT_OK;
}

void ct_histories_clear(ct_histories *histories) {
    (void)pthread_mutex_lock(&histories->mutex);
    for (size_t h = 0; h < histories->count; h++) {
        ct_history *history = &histories->list[h];
        if (!ct_histories_move_units(histories, h)) {
            for (size_t u = 0; u < history->unit_count; u++) free(history->units[u].entries);
            free(history->units);
        }
        free(history->slots);
        history->units = NULL;
        history->slots = NULL;
        history->unit_count = history->unit_capacity = history->slot_count = 0;
        history->bytes = history->entry_count = 0;
        history->sum = (ct_sum){{0, 0}};
    }
    histories->rows = histories->late = 0;
    histories->cleared = histories->period;
    histories->once = false;
    (void)pthread_mutex_unlock(&histories->mutex);
}

void ct_histories_destroy(ct_histories *histories) {
    if (histories == NULL) return;
    for (size_t h = 0; h < histories->count; h++) { /* here in pieces, as a server may replace millions of units beside requests */
        ct_history *history = &histories->list[h];
        for (size_t u = 0; u < history->unit_count; u++) {
            free(history->units[u].entries);
            if (u % CT_PAUSE_ROWS == 0) ct_pause_point();
        }
        history->unit_count = 0;
    }
    ct_histories_clear(histories);
    (void)pthread_mutex_destroy(&histories->mutex);
    (void)pthread_cond_destroy(&histories->saved);
    free(histories->chain.folder);
    free(histories->list);
    free(histories);
}

ct_code ct_histories_copy(const ct_histories *from, ct_histories **out_histories, ct_status *status) {
    ct_histories *copy = NULL;
    CT_TRY(ct_histories_create(from->schema, &copy, status));
    copy->rows = from->rows;
    copy->late = from->late;
    for (size_t h = 0; h < from->count; h++) {
        const ct_history *history = &from->list[h];
        for (size_t u = 0; u < history->unit_count; u++) {
            const ct_history_unit *unit = &history->units[u];
            const uint32_t used = unit->end - unit->begin;
            ct_history_unit *to = ct_history_unit_of(&copy->list[h], unit->key);
            if (to == NULL || !ct_history_unit_reserve(&copy->list[h], to, used, 2 * used)) {
                ct_histories_destroy(copy);
                return ct_fail_memory(status, used * sizeof *to->entries, "a copy of the histories");
            }
            if (used > 0) memcpy(to->entries, unit->entries + unit->begin, used * sizeof *to->entries);
            to->end = used;
            copy->list[h].entry_count += used;
        }
    }
    *out_histories = copy;
    return CT_OK;
}

int64_t ct_histories_late(const ct_histories *histories) { return histories->late; }

size_t ct_histories_units(const ct_histories *histories) {
    size_t units = 0;
    for (size_t h = 0; h < histories->count; h++) units += histories->list[h].unit_count;
    return units;
}

uint64_t ct_histories_bytes(const ct_histories *histories) {
    uint64_t bytes = 0;
    for (size_t h = 0; h < histories->count; h++) bytes += histories->list[h].bytes;
    return bytes;
}

/* --- rows --- */

static ct_code check_column(const ct_histories *histories, const ct_batch *batch, int64_t field, const char *history, ct_status *status) {
    const ct_column *column = &batch->columns[field];
    if (column->present && !column->shared) return CT_OK;
    return ct_fail(status, CT_INVALID, "the history '%s' needs the column '%s', which the source lacks", history,
                   histories->schema->fields[field].name);
}

/* What rows need to get theirs (unit), to be entered (all others). */
static ct_code check_batch(const ct_histories *histories, const ct_batch *batch, bool enters, ct_status *status) {
    for (size_t h = 0; h < histories->count; h++) {
        const ct_history *history = &histories->list[h];
        const char *name = histories->schema->fields[history->field].name;
        CT_TRY(check_column(histories, batch, histories->unit, name, status));
        if (!enters) continue;
        CT_TRY(check_column(histories, batch, (int64_t)history->of, name, status));
        if (history->vector >= 0) CT_TRY(check_column(histories, batch, history->vector, name, status));
        if (history->clicked) CT_TRY(check_column(histories, batch, histories->label, name, status));
        if (histories->time >= 0) CT_TRY(check_column(histories, batch, histories->time, name, status));
    }
    return CT_OK;
}

static const ct_history *history_of(const ct_histories *histories, size_t field) {
    const ct_field *fields = histories->schema->fields;
    const size_t of = fields[field].kind == CT_FIELD_HISTORY ? field : fields[field].of;
    size_t h = 0;
    while (histories->list[h].field != of) h++;
    return &histories->list[h];
}

/* The batch's columns that are to be filled, with room for the most that they can hold. */
typedef struct to_fill {
    size_t field;
    const ct_history *history;
} to_fill;

static ct_code begin_filling(const ct_histories *histories, ct_batch *batch, to_fill **out_list, size_t *out_count, ct_status *status) {
    const ct_schema *schema = histories->schema;
    to_fill *list = calloc(schema->field_count + 1, sizeof *list);
    size_t count = 0;
    if (list == NULL) return ct_fail_memory(status, schema->field_count * sizeof *list, "histories");
    for (size_t f = 0; f < schema->field_count; f++) {
        if (!schema->fields[f].derived || batch->columns[f].present) continue;
        const ct_code code = ct_batch_reserve(batch, f, batch->rows * schema->fields[f].max_values, status);
        if (code != CT_OK) {
            free(list);
            return code;
        }
        if (batch->columns[f].offsets != NULL) batch->columns[f].offsets[0] = 0;
        list[count++] = (to_fill){f, history_of(histories, f)};
    }
    *out_list = list;
    *out_count = count;
    return CT_OK;
}

static void fill_row(ct_batch *batch, const to_fill *fill, size_t row, const ct_history_unit *unit, uint32_t end) {
    ct_column *column = &batch->columns[fill->field];
    const uint32_t all = unit == NULL ? 0 : end - unit->begin, most = fill->history->max_values, count = all < most ? all : most;
    if (column->offsets == NULL) {
        ((float *)column->values)[row] = (float)count;
        return;
    }
    uint64_t *keys = (uint64_t *)column->values + column->offsets[row];
    const ct_history_entry *from = count > 0 ? unit->entries + end - count : NULL;
    if (column->kind == CT_FIELD_HISTORY)
        for (uint32_t i = 0; i < count; i++) keys[i] = from[i].key;
    else
        for (uint32_t i = 0; i < count; i++) keys[i] = from[i].vector;
    column->offsets[row + 1] = column->offsets[row] + count;
}

static void end_filling(ct_batch *batch, to_fill *list, size_t count) {
    for (size_t i = 0; i < count; i++) batch->columns[list[i].field].present = true;
    free(list);
}

ct_code ct_histories_fill(const ct_histories *histories, ct_batch *batch, ct_status *status) {
    to_fill *list = NULL;
    size_t count = 0;
    CT_TRY(check_batch(histories, batch, false, status));
    CT_TRY(begin_filling(histories, batch, &list, &count, status));
    const uint64_t *units = ct_column_u64(&batch->columns[histories->unit]);
    for (size_t i = 0; i < count; i++)
        for (size_t row = 0; row < batch->rows; row++) {
            const ct_history_unit *unit = find_unit(list[i].history, units[row]);
            fill_row(batch, &list[i], row, unit, unit == NULL ? 0 : unit->end);
        }
    end_filling(batch, list, count);
    return CT_OK;
}

/* One row behind those before it: fills, then enters. */
static bool take_row(ct_histories *histories, ct_batch *filled, const to_fill *list, size_t count, const ct_batch *batch, size_t row) {
    const uint64_t unit_key = ct_column_u64(&batch->columns[histories->unit])[row];
    const int64_t when = histories->time >= 0 ? ct_column_i64(&batch->columns[histories->time])[row] : histories->rows + 1;
    bool late = false;
    histories->rows++;
    for (size_t i = 0; i < count; i++) {
        const ct_history_unit *unit = find_unit(list[i].history, unit_key);
        fill_row(filled, &list[i], row, unit, unit == NULL ? 0 : before(unit, when));
    }
    for (size_t h = 0; h < histories->count; h++) {
        ct_history *history = &histories->list[h];
        const ct_history_unit *unit = find_unit(history, unit_key);
        late = late || (unit != NULL && unit->end > unit->begin && unit->entries[unit->end - 1].when > when);
        if (history->clicked && ct_column_f32(&batch->columns[histories->label])[row] != 1.0f) continue;
        const ct_history_entry entry = {.when = when,
                                        .key = ct_column_u64(&batch->columns[history->of])[row],
                                        .vector = history->vector < 0 ? 0 : ct_column_u64(&batch->columns[history->vector])[row]};
        if (!enter(histories, h, unit_key, &entry)) return false;
    }
    histories->late += late;
    return true;
}

static void lock_for_rows(ct_histories *histories) {
    (void)pthread_mutex_lock(&histories->mutex);
    ct_histories_wait_for_room(histories);
    histories->once = false;
}

ct_code ct_histories_live(ct_histories *histories, ct_batch *batch, ct_status *status) {
    to_fill *list = NULL;
    size_t count = 0, row = 0;
    CT_TRY(check_batch(histories, batch, true, status));
    CT_TRY(begin_filling(histories, batch, &list, &count, status));
    lock_for_rows(histories);
    while (row < batch->rows && take_row(histories, batch, list, count, batch, row)) row++;
    (void)pthread_mutex_unlock(&histories->mutex);
    const bool done = row == batch->rows;
    end_filling(batch, list, count);
    return done ? CT_OK : ct_fail_memory(status, sizeof(ct_history_unit), "histories");
}

ct_code ct_histories_add(ct_histories *histories, const ct_batch *batch, ct_status *status) {
    CT_TRY(check_batch(histories, batch, true, status));
    size_t row = 0;
    lock_for_rows(histories);
    while (row < batch->rows && take_row(histories, NULL, NULL, 0, batch, row)) row++;
    (void)pthread_mutex_unlock(&histories->mutex);
    return row == batch->rows ? CT_OK : ct_fail_memory(status, sizeof(ct_history_unit), "histories");
}

size_t ct_histories_read(const ct_histories *histories, size_t field, uint64_t unit_key, uint64_t *out_keys) {
    const ct_history *history = history_of(histories, field);
    const ct_history_unit *unit = find_unit(history, unit_key);
    if (unit == NULL) return 0;
    const uint32_t all = unit->end - unit->begin, count = all < history->max_values ? all : history->max_values;
    const bool vectors = histories->schema->fields[field].kind == CT_FIELD_SIMILARITY;
    for (uint32_t i = 0; i < count; i++) {
        const ct_history_entry *entry = &unit->entries[unit->end - count + i];
        out_keys[i] = vectors ? entry->vector : entry->key;
    }
    return count;
}
