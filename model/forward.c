/* From the columns of a batch to the tower's first input. Training and scoring both come through here, so a row's input is the same bits
 * in both. */
#include <string.h>

#include "model/model_internal.h"

static ct_code check_column(const ct_model *model, const ct_batch *batch, size_t field, bool training, ct_status *status) {
    const ct_column *column = &batch->columns[field];
    const char *name = model->schema->fields[field].name;
    if (!column->present)
        return ct_fail(
            status, CT_INVALID,
            "field '%s' is missing; the model needs it (a block file has the columns of the schema that made it: convert the log anew)",
            name);
    if (training && column->shared)
        return ct_fail(status, CT_INVALID, "field '%s' is shared by all rows; training needs one value a row", name);
    return CT_OK;
}

ct_code batch_check(const ct_model *model, const ct_batch *batch, bool training, ct_status *status) {
    const model_layout *layout = &model->layout;
    if (batch->column_count != model->schema->field_count)
        return ct_fail(status, CT_INVALID, "the batch has %zu columns, the model's schema %zu", batch->column_count,
                       model->schema->field_count);
    for (size_t i = 0; i < layout->id_count; i++) CT_TRY(check_column(model, batch, layout->ids[i].field, training, status));
    for (size_t i = 0; i < layout->vector_count; i++) CT_TRY(check_column(model, batch, layout->vectors[i].field, training, status));
    for (size_t i = 0; i < layout->number_count; i++) CT_TRY(check_column(model, batch, layout->numbers[i].field, training, status));
    for (size_t i = 0; i < layout->similarity_count; i++) {
        CT_TRY(check_column(model, batch, layout->similarities[i].field, training, status));
        CT_TRY(check_column(model, batch, layout->similarities[i].vector_field, training, status));
    }
    if (!training) return CT_OK;
    if (batch->rows > model->batch_rows)
        return ct_fail(status, CT_INVALID, "a batch of %zu rows, but the model was made for %zu", batch->rows, model->batch_rows);
    const int64_t label = ct_schema_find_kind(model->schema, CT_FIELD_LABEL);
    if (label < 0) return ct_fail(status, CT_INVALID, "schema %s has no label; training needs one", model->schema->name);
    if (model->spec->expire_days > 0)
        CT_TRY(check_column(model, batch, (size_t)ct_schema_find_kind(model->schema, CT_FIELD_TIME), true, status));
    return check_column(model, batch, (size_t)label, true, status);
}

/* A column as the store wants it, from first_row on. A dense column starts there; a CSR column's offsets do, over the same values. */
static ct_key_column key_column(const ct_column *column, size_t first_row) {
    const size_t skip = column->shared ? 0 : first_row;
    ct_key_column out = {
        .keys = ct_column_u64(column), .weights = column->value_weights, .shared = column->shared, .pooling = CT_POOL_MEAN};
    if (column->offsets != NULL) {
        out.offsets = column->offsets + skip;
        return out;
    }
    out.keys += skip;
    if (out.weights != NULL) out.weights += skip;
    return out;
}

void write_bucket_keys(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                       uint64_t *out_keys, size_t stride, size_t offset) {
    for (size_t i = first; i < last; i++) {
        const layout_id *id = &model->layout.ids[i];
        if (id->bucket == NOT_A_BUCKET) continue;
        const ct_column *column = &batch->columns[id->field];
        const float *raw = ct_column_f32(column) + (column->shared ? 0 : first_row);
        bucket_keys_of(raw, id->salt, out_keys + id->bucket * stride + offset, column->shared ? 1 : rows);
    }
}

void write_target_stats(const ct_model *model, const ct_ticket *ticket, size_t first, size_t last, size_t first_row, size_t rows,
                        read_scratch *scratch, float *x, size_t stride) {
    /* As if one row had been seen at each rate: there is a prior from the first row on, and it is never 0 or 1. */
    const double prior = (model->prior[1] + 0.5) / (model->prior[0] + 1);
    for (size_t i = first; i < last; i++) {
        ct_store_gather_counts(model->store, ticket, first_row, rows, i - first, scratch->impressions, scratch->clicks);
        click_odds_write(scratch->impressions, scratch->clicks, prior, model->spec->target_smoothing, scratch->odds[0], scratch->odds[1],
                         x + model->layout.ids[i].odds_column, stride, rows);
    }
}

void id_columns(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, const uint64_t *bucket_keys,
                size_t stride, ct_key_column *out_columns) {
    for (size_t i = first; i < last; i++) {
        const layout_id *id = &model->layout.ids[i];
        ct_key_column *out = &out_columns[i - first];
        if (id->bucket == NOT_A_BUCKET)
            *out = key_column(&batch->columns[id->field], first_row);
        else
            *out = (ct_key_column){
                .keys = bucket_keys + id->bucket * stride, .shared = batch->columns[id->field].shared, .pooling = CT_POOL_SUM};
        if (id->query != NO_QUERY) {
            out->pooling = CT_POOL_ATTENTION;
            out->query = (uint32_t)(id->query - first);
            out->compared = model->layout.compared;
        }
        out->rare_key = ct_rare_key(id->salt);
        out->drop_index = (uint32_t)id->salt;
        out->output_column = id->column;
    }
}

void write_numbers(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                   read_scratch *scratch, float *x, size_t stride) {
    for (size_t i = first; i < last; i++) {
        const layout_number *number = &model->layout.numbers[i];
        const ct_column *column = &batch->columns[number->field];
        const float *raw = ct_column_f32(column) + (column->shared ? 0 : first_row);
        number_write(raw, column->shared ? 0 : 1, &model->scales[i], model->spec->number_flags, scratch->numbers, x + number->column,
                     stride, rows);
    }
}

void skip_rows(ct_key_column *columns, size_t count, size_t rows) {
    for (size_t i = 0; i < count; i++) {
        ct_key_column *column = &columns[i];
        if (column->shared) continue;
        if (column->offsets != NULL) {
            column->offsets += rows;
            continue;
        }
        column->keys += rows;
        if (column->weights != NULL) column->weights += rows;
    }
}

ct_code read_column(const ct_model *model, ct_ticket *ticket, size_t table, ct_key_column column, size_t rows, float *out, size_t stride,
                    ct_status *status) {
    ct_lookup lookup = {.mode = CT_LOOKUP_READ, .table = table, .block_rows = CT_TOWER_MAX_ROWS, .columns = &column, .column_count = 1};
    for (size_t done = 0; done < rows; done += lookup.rows) {
        lookup.rows = rows - done;
        lookup.rows = ct_store_rows_at_once(model->store, &lookup);
        CT_TRY(ct_store_prefetch(model->store, ticket, &lookup, status));
        CT_TRY(ct_store_acquire(model->store, ticket, status));
        ct_store_gather(model->store, ticket, 0, lookup.rows, false, out + done * stride, stride);
        ct_store_release(model->store, ticket);
        skip_rows(&column, 1, lookup.rows);
    }
    return CT_OK;
}

ct_code write_vectors(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                      read_scratch *scratch, float *raw, size_t stride, ct_status *status) {
    for (size_t i = first; i < last; i++) {
        const layout_vector *vector = &model->layout.vectors[i];
        ct_key_column column = key_column(&batch->columns[vector->field], first_row);
        column.output_column = vector->raw_column;
        CT_TRY(read_column(model, scratch->vector_tickets[i], vector->table, column, rows, raw, stride, status));
    }
    return CT_OK;
}
