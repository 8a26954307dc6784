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
