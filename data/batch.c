/* Columns in memory. Each array is its own allocation, aligned to 64 bytes; a CSR column's offsets are always (row_capacity + 1) long. */
#include "data/batch.h"

#include <stdlib.h>
#include <string.h>

#include "data/internal.h"

ct_column_type ct_field_type(const ct_field *field) {
    switch (field->kind) {
        case CT_FIELD_LABEL:
        case CT_FIELD_WEIGHT:
        case CT_FIELD_NUMBER:
            return CT_TYPE_F32;
        case CT_FIELD_TIME:
            return CT_TYPE_I64;
        case CT_FIELD_GROUP:
        case CT_FIELD_UNIT:
        case CT_FIELD_ID:
        case CT_FIELD_VECTOR:
        case CT_FIELD_HISTORY:
        case CT_FIELD_SIMILARITY:
            break;
    }
    return CT_TYPE_U64;
}

size_t ct_column_type_bytes(ct_column_type type) { return type == CT_TYPE_F32 ? 4 : 8; }

/* A larger array with the first `used` elements of the old one, which is freed. NULL when out of memory; the old one stays. */
static void *grown(void *old, size_t used, size_t count, size_t bytes_each) {
    if (count > (SIZE_MAX - 63) / bytes_each) return NULL;
    const size_t bytes = (count * bytes_each + 63) / 64 * 64;
    void *array = aligned_alloc(64, bytes ? bytes : 64);
    if (!array) return NULL;
    if (used) memcpy(array, old, used * bytes_each);
    free(old);
    return array;
}

ct_code ct_batch_reserve(ct_batch *batch, size_t column, size_t values, ct_status *status) {
    ct_column *c = &batch->columns[column];
    const size_t bytes_each = ct_column_type_bytes(c->type);
    if (values <= c->value_capacity) return CT_OK;
    if (values > UINT32_MAX) {
        return ct_fail(status, CT_EXHAUSTED, "column '%s': %zu values do not fit a batch; take smaller batches", c->name, values);
    }
    const size_t used = c->present && c->value_capacity ? ct_column_values(c, c->shared ? 1 : batch->rows) : 0;
    if (c->value_weights) {
        float *weights = grown(c->value_weights, used, values, sizeof *weights);
        if (!weights) return ct_fail_memory(status, values * sizeof *weights, c->name);
        c->value_weights = weights;
    }
    void *array = grown(c->values, used, values, bytes_each);
    if (!array) return ct_fail_memory(status, values * bytes_each, c->name);
    c->values = array;
    c->value_capacity = values;
    return CT_OK;
}

ct_code ct_batch_reserve_rows(ct_batch *batch, size_t rows, ct_status *status) {
    if (rows <= batch->row_capacity) return CT_OK;
    for (size_t i = 0; i < batch->column_count; i++) {
        ct_column *c = &batch->columns[i];
        if (!c->offsets) {
            CT_TRY(ct_batch_reserve(batch, i, rows, status));
            continue;
        }
        uint32_t *offsets = grown(c->offsets, batch->row_capacity + 1, rows + 1, sizeof *offsets);
        if (!offsets) return ct_fail_memory(status, (rows + 1) * sizeof *offsets, c->name);
        c->offsets = offsets;
    }
    batch->row_capacity = rows;
    return CT_OK;
}

/* As ct_batch_reserve, with room for what comes later where there is too little. */
static ct_code reserve_more(ct_batch *batch, size_t column, size_t values, ct_status *status) {
    const size_t capacity = batch->columns[column].value_capacity;
    if (values <= capacity) return CT_OK;
    const size_t room = values < capacity + capacity / 2 ? capacity + capacity / 2 : values;
    return ct_batch_reserve(batch, column, room > UINT32_MAX && values <= UINT32_MAX ? UINT32_MAX : room, status);
}

ct_code ct_batch_append(ct_batch *batch, const ct_batch *from, size_t first, size_t count, ct_status *status) {
    const size_t row = batch->rows;
    for (size_t i = 0; i < batch->column_count; i++) {
        const ct_column *source = &from->columns[i];
        ct_column *to = &batch->columns[i];
        const size_t bytes_each = ct_column_type_bytes(to->type);
        size_t from_value = first, to_value = row, values = count;
        to->present = source->present;
        if (!to->present) continue;
        if (to->offsets) {
            from_value = source->offsets[first];
            to_value = to->offsets[row];
            values = source->offsets[first + count] - from_value;
            CT_TRY(reserve_more(batch, i, to_value + values, status));
            for (size_t r = 1; r <= count; r++) to->offsets[row + r] = (uint32_t)(to_value + (source->offsets[first + r] - from_value));
        }
        if (values) {
            memcpy((char *)to->values + to_value * bytes_each, (const char *)source->values + from_value * bytes_each, values * bytes_each);
        }
    }
    batch->rows = row + count;
    return CT_OK;
}

/* One column's values of the rows, one after the other. */
static void gather_dense(ct_column *to, const ct_column *from, const uint32_t *rows, size_t count) {
    if (ct_column_type_bytes(to->type) == 4) {
        uint32_t *out = to->values;
        const uint32_t *values = from->values;
        for (size_t r = 0; r < count; r++) out[r] = values[rows[r]];
    } else {
        uint64_t *out = to->values;
        const uint64_t *values = from->values;
        for (size_t r = 0; r < count; r++) out[r] = values[rows[r]];
    }
}

ct_code ct_batch_gather(ct_batch *batch, const ct_batch *from, const uint32_t *rows, size_t count, ct_status *status) {
    batch->rows = 0;
    for (size_t i = 0; i < batch->column_count; i++) {
        const ct_column *source = &from->columns[i];
        ct_column *to = &batch->columns[i];
        const size_t bytes_each = ct_column_type_bytes(to->type);
        to->present = source->present;
        if (!to->present) continue;
        if (!to->offsets) {
            gather_dense(to, source, rows, count);
            continue;
        }
        size_t values = 0;
        for (size_t r = 0; r < count; r++) {
            values += source->offsets[rows[r] + 1] - source->offsets[rows[r]];
            to->offsets[r + 1] = (uint32_t)values;
        }
        CT_TRY(ct_batch_reserve(batch, i, values, status));
        for (size_t r = 0; r < count; r++) {
            const size_t bytes = (to->offsets[r + 1] - to->offsets[r]) * bytes_each;
            if (!bytes) continue;
            memcpy((char *)to->values + to->offsets[r] * bytes_each, (const char *)source->values + source->offsets[rows[r]] * bytes_each,
                   bytes);
        }
    }
    batch->rows = count;
    return CT_OK;
}

ct_code ct_batch_create(const ct_schema *schema, size_t row_capacity, ct_batch **out_batch, ct_status *status) {
    ct_batch *batch = calloc(1, sizeof *batch);
    ct_code code = CT_OK;
    if (!batch) return ct_fail_memory(status, sizeof *batch, "a batch");
    batch->columns = calloc(schema->field_count ? schema->field_count : 1, sizeof *batch->columns);
    if (!batch->columns) {
        code = ct_fail_memory(status, schema->field_count * sizeof *batch->columns, "a batch");
        goto fail;
    }
    batch->column_count = schema->field_count;
    for (size_t i = 0; i < schema->field_count; i++) {
        const ct_field *field = &schema->fields[i];
        ct_column *c = &batch->columns[i];
        size_t values = row_capacity;
        *c = (ct_column){.name = field->name, .kind = field->kind, .type = ct_field_type(field), .hash = field->hash, .present = true};
        if (ct_field_is_multi(field)) {
            c->offsets = grown(NULL, 0, row_capacity + 1, sizeof *c->offsets);
            if (!c->offsets) {
                code = ct_fail_memory(status, (row_capacity + 1) * sizeof *c->offsets, field->name);
                goto fail;
            }
            c->offsets[0] = 0;
            values = row_capacity * field->max_values;
        }
        CT_TRY_GOTO(code, ct_batch_reserve(batch, i, values, status), fail);
    }
    batch->row_capacity = row_capacity;
    *out_batch = batch;
    return CT_OK;
fail:
    ct_batch_destroy(batch);
    return code;
}

void ct_batch_destroy(ct_batch *batch) {
    if (!batch) return;
    for (size_t i = 0; i < batch->column_count; i++) {
        free(batch->columns[i].offsets);
        free(batch->columns[i].values);
        free(batch->columns[i].value_weights);
    }
    free(batch->columns);
    free(batch);
}
