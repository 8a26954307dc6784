/* Rows of several requests as one batch. A row's bits do not depend on the rows beside it, nor on whether a value is shared
 * (model/model.h), so small requests that wait together are computed together: the product of one row costs almost as much as that of
 * sixteen. */
#include <string.h>

#include "serving/server_internal.h"

static ct_code merge_values(ct_arena *arena, const ct_batch *const *batches, size_t count, size_t rows, size_t c, ct_column *out,
                            ct_status *status) {
    const size_t width = ct_column_type_bytes(out->type);
    char *values = ct_arena_alloc(arena, rows * width);
    if (!values) return ct_fail_memory(status, rows * width, "requests together");
    out->values = values;
    for (size_t b = 0; b < count; b++) {
        const ct_column *from = &batches[b]->columns[c];
        if (!from->shared) {
            memcpy(values, from->values, batches[b]->rows * width);
            values += batches[b]->rows * width;
            continue;
        }
        for (size_t r = 0; r < batches[b]->rows; r++, values += width) memcpy(values, from->values, width);
    }
    return CT_OK;
}

static size_t value_count(const ct_batch *batch, size_t c) {
    const ct_column *column = &batch->columns[c];
    return column->shared ? batch->rows * column->offsets[1] : column->offsets[batch->rows];
}

static ct_code merge_lists(ct_arena *arena, const ct_batch *const *batches, size_t count, size_t rows, size_t c, ct_column *out,
                           ct_status *status) {
    const size_t width = ct_column_type_bytes(out->type);
    size_t total = 0, row = 0;
    for (size_t b = 0; b < count; b++) total += value_count(batches[b], c);
    char *values = ct_arena_alloc(arena, total * width + 1);
    uint32_t *offsets = ct_arena_alloc(arena, (rows + 1) * sizeof *offsets);
    if (!values || !offsets) return ct_fail_memory(status, total * width, "requests together");
    out->values = values;
    out->offsets = offsets;
    offsets[0] = 0;
    for (size_t b = 0; b < count; b++) {
        const ct_column *from = &batches[b]->columns[c];
        for (size_t r = 0; r < batches[b]->rows; r++, row++) {
            const size_t at = from->shared ? 0 : r, length = from->offsets[at + 1] - from->offsets[at];
            memcpy(values + offsets[row] * width, (const char *)from->values + from->offsets[at] * width, length * width);
            offsets[row + 1] = offsets[row] + (uint32_t)length;
        }
    }
    return CT_OK;
}

ct_code ct_merge_batches(ct_arena *arena, const ct_batch *const *batches, size_t count, ct_batch *out_batch, ct_status *status) {
    ct_batch merged = {.column_count = batches[0]->column_count};
    for (size_t b = 0; b < count; b++) merged.rows += batches[b]->rows;
    merged.columns = ct_arena_zalloc(arena, merged.column_count, sizeof *merged.columns);
    if (!merged.columns) return ct_fail_memory(status, merged.column_count * sizeof *merged.columns, "requests together");
    for (size_t c = 0; c < merged.column_count; c++) {
        ct_column *out = &merged.columns[c];
        *out = batches[0]->columns[c];
        if (!out->present) continue;
        out->shared = false;
        if (out->offsets)
            CT_TRY(merge_lists(arena, batches, count, merged.rows, c, out, status));
        else
            CT_TRY(merge_values(arena, batches, count, merged.rows, c, out, status));
    }
    *out_batch = merged;
    return CT_OK;
}
