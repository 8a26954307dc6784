#include "embedding_store/record.h"

#include <string.h>

#include "base/bytes.h"
#include "embedding_store/half.h"

size_t ct_record_bytes(const ct_table *table) {
    const ct_table_spec *spec = &table->spec;
    const size_t head = spec->kind != CT_TABLE_TRAINED ? 0u : 5u + (spec->target_stats ? 12u : 0u) + (spec->expire_days ? 4u : 0u);
    return head + ct_state_floats(spec) * sizeof(float) + ct_value_bytes(spec);
}

size_t ct_record_encode(const ct_table *table, const ct_partition *partition, const ct_index_entry *entry, char *out) {
    size_t n = 0;
    const bool has_row = entry->slot != CT_SLOT_STUB;
    if (table->spec.kind == CT_TABLE_TRAINED) {
        ct_put_le32(out, entry->count);
        out[4] = has_row;
        n = 5;
        const ct_key_counts *counts = (const ct_key_counts *)(const void *)(entry + 1); /* where there are any */
        if (table->spec.target_stats) {
            ct_put_le32(out + n, counts->impressions);
            ct_put_le32(out + n + 4, counts->clicks);
            ct_put_le32(out + n + 8, counts->epoch);
            n += 12;
        }
        if (table->spec.expire_days) {
            ct_put_le32(out + n, counts->day);
            n += 4;
        }
        if (!has_row) return n;
        const size_t state = partition->state.floats * sizeof(float);
        if (state) memcpy(out + n, ct_slab_at(&partition->state, entry->slot - 1), state);
        n += state;
    }
    memcpy(out + n, ct_slab_at(&partition->values, entry->slot - 1), ct_value_bytes(&table->spec));
    return n + ct_value_bytes(&table->spec);
}

void ct_sum_add_entry(ct_sum *sum, const ct_table *table, const ct_partition *partition, const ct_index_entry *entry) {
    char record[CT_RECORD_MAX_BYTES];
    ct_sum_add(sum, entry->key, record, ct_record_encode(table, partition, entry, record));
}

void ct_sum_take_entry(ct_sum *sum, const ct_table *table, const ct_partition *partition, const ct_index_entry *entry) {
    char record[CT_RECORD_MAX_BYTES];
    ct_sum_take(sum, entry->key, record, ct_record_encode(table, partition, entry, record));
}

bool ct_record_finite(const ct_table *table, const ct_partition *partition, const ct_index_entry *entry) {
    if (table->spec.kind != CT_TABLE_TRAINED || entry->slot == CT_SLOT_STUB) return true;
    const float *values = ct_slab_at(&partition->values, entry->slot - 1);
    if (table->spec.precision == CT_ROW_FP16) {
        const uint16_t *halves = (const uint16_t *)(const void *)values;
        bool finite = true;
        for (uint32_t i = 0; i < table->spec.dim; i++) finite &= (halves[i] & 0x7c00) != 0x7c00;
        return finite;
    }
    float zero = 0; /* stays 0 as long as all are finite */
    for (uint32_t i = 0; i < table->spec.dim; i++) zero += values[i] * 0.0f;
    return zero == 0;
}

ct_code ct_record_fail_finite(const ct_table *table, uint64_t key, ct_status *status) {
    return ct_fail(
        status, CT_INVALID,
        "diverged: the row of key %016llx in table %s holds a value that is not finite, and is not saved; lower its learning rate",
        (unsigned long long)key, table->spec.name);
}

ct_code ct_record_check(const ct_stored_table *stored, const char *record, size_t bytes, bool *out_row, ct_status *status) {
    const bool trained = stored->spec.kind == CT_TABLE_TRAINED;
    const bool row = !trained || (bytes > stored->admitted.offset && record[stored->admitted.offset] == 1);
    if (bytes != (row ? stored->row_bytes : stored->stub_bytes))
        return ct_fail(status, CT_CORRUPT, "table %s holds a row of another size", stored->spec.name);
    if (!row && record[stored->admitted.offset] != 0)
        return ct_fail(status, CT_CORRUPT, "table %s holds a row that is neither a row nor a stub", stored->spec.name);
    *out_row = row;
    return CT_OK;
}

uint32_t ct_record_day(const ct_stored_table *stored, const char *record) {
    return stored->day.present ? ct_get_le32(record + stored->day.offset) : 0;
}

ct_code ct_record_lives(const ct_stored_table *stored, const char *record, size_t bytes, bool *out_row, bool *out_lives,
                        ct_status *status) {
    CT_TRY(ct_record_check(stored, record, bytes, out_row, status));
    const uint32_t day = ct_record_day(stored, record);
    if (stored->spec.expire_days && day > stored->today && day != CT_DAY_NEVER)
        return ct_fail(status, CT_CORRUPT, "table %s holds a key that was seen on day %u, but its log has come to day %u",
                       stored->spec.name, day, stored->today);
    *out_lives = !stored->spec.expire_days || day >= ct_oldest_day(stored->spec.expire_days, stored->first_day, stored->today);
    return CT_OK;
}

/* Of another table, they may be of another precision. */
static void decode_values(const ct_table *table, const ct_stored_table *stored, const char *from, float *to) {
    if (stored->spec.precision == table->spec.precision) {
        memcpy(to, from, ct_value_bytes(&table->spec));
        return;
    }
    uint16_t *halves = (uint16_t *)(void *)to;
    for (uint32_t i = 0; i < table->spec.dim; i++) {
        float value;
        uint16_t half;
        if (table->spec.precision == CT_ROW_FP16) {
            memcpy(&value, from + i * sizeof value, sizeof value);
            halves[i] = ct_half_of(value, CT_HALF_NEAREST);
        } else {
            memcpy(&half, from + i * sizeof half, sizeof half);
            to[i] = ct_half_to_float(half);
        }
    }
}

ct_code ct_record_decode(ct_table *table, ct_partition *partition, const ct_stored_table *stored, const char *record, bool row,
                         ct_index_entry *entry, ct_status *status) {
    if (table->spec.kind == CT_TABLE_TRAINED) entry->count = ct_get_le32(record + stored->count.offset);
    if (table->spec.target_stats && stored->epoch.present) {
        ct_key_counts *counts = ct_entry_counts(entry);
        counts->impressions = ct_get_le32(record + stored->impressions.offset);
        counts->clicks = ct_get_le32(record + stored->clicks.offset);
        counts->epoch = ct_get_le32(record + stored->epoch.offset);
    }
    if (table->spec.expire_days) ct_entry_counts(entry)->day = ct_record_day(stored, record);
    if (!row) return CT_OK;
    if (entry->slot == CT_SLOT_STUB) CT_TRY(ct_partition_add_row(table, partition, entry, status));
    decode_values(table, stored, record + stored->value.offset, ct_slab_at(&partition->values, entry->slot - 1));
    if (!partition->state.floats) return CT_OK;
    float *state = ct_slab_at(&partition->state, entry->slot - 1);
    ct_state_set_first(&table->spec, state);
    ct_state_column columns[CT_STATE_COLUMNS];
    const size_t count = ct_state_columns(&table->spec, columns);
    for (size_t i = 0; i < count; state += columns[i++].count)
        if (stored->state[i].present) memcpy(state, record + stored->state[i].offset, columns[i].count * sizeof(float));
    return CT_OK;
}

static void layout(const ct_table_spec *spec, bool with_state, ct_stored_table *out_stored) {
    memset(out_stored, 0, sizeof *out_stored);
    out_stored->spec = *spec;
    uint32_t at = 0;
    if (spec->kind == CT_TABLE_TRAINED) {
        out_stored->count = (ct_stored_column){true, 0};
        out_stored->admitted = (ct_stored_column){true, 4};
        at = 5;
        if (spec->target_stats) {
            out_stored->impressions = (ct_stored_column){true, 5};
            out_stored->clicks = (ct_stored_column){true, 9};
            out_stored->epoch = (ct_stored_column){true, 13};
            at = 17;
        }
        if (spec->expire_days) {
            out_stored->day = (ct_stored_column){true, at};
            at += 4;
        }
        out_stored->stub_bytes = at;
        ct_state_column columns[CT_STATE_COLUMNS];
        const size_t count = with_state ? ct_state_columns(spec, columns) : 0;
        for (size_t i = 0; i < count; i++) {
            out_stored->state[i] = (ct_stored_column){true, at};
            at += columns[i].count * (uint32_t)sizeof(float);
        }
    }
    out_stored->value = (ct_stored_column){true, at};
    out_stored->row_bytes = at + (uint32_t)ct_value_bytes(spec);
}

void ct_record_layout(const ct_table_spec *spec, ct_stored_table *out_stored) { layout(spec, true, out_stored); }
void ct_record_layout_read(const ct_table_spec *spec, ct_stored_table *out_stored) { layout(spec, false, out_stored); }

ct_code ct_record_check_layout(const ct_stored_table *stored, ct_status *status) {
    ct_stored_table ours;
    ct_record_layout(&stored->spec, &ours);
    bool same = ours.row_bytes == stored->row_bytes && ours.stub_bytes == stored->stub_bytes && ours.value.offset == stored->value.offset &&
                ours.day.offset == stored->day.offset;
    ct_state_column columns[CT_STATE_COLUMNS];
    for (size_t i = ct_state_columns(&stored->spec, columns); i > 0; i--)
        same &= stored->state[i - 1].present && ours.state[i - 1].offset == stored->state[i - 1].offset;
    if (same) return CT_OK;
    return ct_fail(status, CT_UNSUPPORTED,
                   "table %s has other columns than this program writes; open it without a memory limit, or write it anew",
                   stored->spec.name);
}
