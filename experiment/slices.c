/* Slices of the test rows: by the training count of their item, by whether training had their unit, by the values of any feature. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiment/compare_internal.h"

enum { ID_VALUES = 8, QUARTILES = 4 };

/* A row's code is the first of these that it is in; new items are cold ones too. */
const struct item_slice item_slices[4] = {{"new", 0, 0}, {"cold", 0, 4}, {"warm", 5, 99}, {"hot", 100, UINT64_MAX}};
const uint64_t item_bucket_least[ITEM_BUCKETS] = {0, 1, 2, 5, 10, 20, 50, 100, 200, 500};

void slices_deinit(slices *slices) {
    for (size_t i = 0; i < slices->code_count; i++) free(slices->codes[i]);
    free(slices->bucket);
    slices->code_count = slices->count = 0;
    slices->bucket = NULL;
}

static slice *add_slice(slices *slices, const char *of, const uint8_t *codes, uint8_t code) {
    slice *added = &slices->list[slices->count++];
    *added = (slice){.codes = codes, .first = code, .last = code};
    (void)snprintf(added->of, sizeof added->of, "%s", of);
    return added;
}

/* A byte for each test row. */
static ct_code new_codes(slices *slices, size_t rows, uint8_t **out_codes, ct_status *status) {
    uint8_t *codes = calloc(rows + 1, 1);
    if (codes == NULL) return ct_fail_memory(status, rows, "the slices");
    slices->codes[slices->code_count++] = codes;
    *out_codes = codes;
    return CT_OK;
}

static ct_code slice_items(compare_run *run, ct_status *status) {
    const test_rows *test = &run->test;
    slices *slices = &run->slices;
    uint8_t *codes = NULL;
    if (test->items == NULL) return CT_OK;
    CT_TRY(new_codes(slices, test->count, &codes, status));
    slices->bucket = calloc(test->count + 1, 1);
    if (slices->bucket == NULL) return ct_fail_memory(status, test->count, "the slices");
    for (size_t row = 0; row < test->count; row++) {
        const uint64_t count = ct_counts_get(run->item_counts, test->items[row]);
        while (count > item_slices[codes[row]].most) codes[row]++;
        while (slices->bucket[row] + 1 < ITEM_BUCKETS && count >= item_bucket_least[slices->bucket[row] + 1]) slices->bucket[row]++;
    }
    for (uint8_t i = 0; i < 4; i++) {
        slice *added = add_slice(slices, "items", codes, i);
        while (added->first > 0 && item_slices[added->first - 1].least >= item_slices[i].least) added->first--;
        (void)snprintf(added->name, SLICE_TEXT_BYTES, "%s", item_slices[i].name);
    }
    return CT_OK;
}

static ct_code slice_units(compare_run *run, ct_status *status) {
    const test_rows *test = &run->test;
    uint8_t *codes = NULL;
    if (test->units == NULL || run->unit_counts == NULL) return CT_OK;
    CT_TRY(new_codes(&run->slices, test->count, &codes, status));
    for (size_t row = 0; row < test->count; row++) codes[row] = ct_counts_get(run->unit_counts, test->units[row]) > 0;
    (void)snprintf(add_slice(&run->slices, "units", codes, 0)->name, SLICE_TEXT_BYTES, "new units");
    (void)snprintf(add_slice(&run->slices, "units", codes, 1)->name, SLICE_TEXT_BYTES, "old units");
    return CT_OK;
}

typedef struct value_count {
    uint64_t value, rows;
    size_t first; /* row at which the value first stands */
} value_count;

static int most_first(const void *left, const void *right) {
    const value_count *a = left, *b = right;
    if (a->rows != b->rows) return a->rows < b->rows ? 1 : -1;
    return a->first < b->first ? -1 : 1;
}

/* The most frequent values, each a slice, and the others together. */
static ct_code slice_ids(compare_run *run, const slice_field *field, const char *name, ct_status *status) {
    const test_rows *test = &run->test;
    ct_counts *counts = NULL;
    value_count *values = NULL;
    uint8_t *codes = NULL;
    ct_code code = CT_OK;
    size_t distinct = 0;
    CT_TRY(new_codes(&run->slices, test->count, &codes, status));
    CT_TRY(ct_counts_create(&counts, status));
    for (size_t row = 0; row < test->count; row++) CT_TRY_GOTO(code, ct_counts_add(counts, field->values[row], 1, status), done);
    values = malloc((ct_counts_size(counts) + 1) * sizeof *values);
    if (values == NULL) {
        code = ct_fail_memory(status, ct_counts_size(counts) * sizeof *values, "the slices");
        goto done;
    }
    /* The count is taken at the value's first row and moved beyond any that can be there, so that it is taken once. */
    for (size_t row = 0; row < test->count; row++) {
        const uint64_t rows = ct_counts_get(counts, field->values[row]);
        if (rows > test->count) continue;
        values[distinct++] = (value_count){field->values[row], rows, row};
        CT_TRY_GOTO(code, ct_counts_add(counts, field->values[row], test->count, status), done);
    }
    qsort(values, distinct, sizeof *values, most_first);
    const size_t shown = distinct < ID_VALUES ? distinct : ID_VALUES;
    for (size_t row = 0; row < test->count; row++)
        while (codes[row] < shown && values[codes[row]].value != field->values[row]) codes[row]++;
    for (uint8_t i = 0; i < shown; i++)
        (void)snprintf(add_slice(&run->slices, name, codes, i)->name, SLICE_TEXT_BYTES, "0x%016llx", (unsigned long long)values[i].value);
    if (distinct > shown)
        (void)snprintf(add_slice(&run->slices, name, codes, (uint8_t)shown)->name, SLICE_TEXT_BYTES, "other %zu values", distinct - shown);
done:
    ct_counts_destroy(counts);
    free(values);
    return code;
}

static float as_number(uint64_t bits) {
    const uint32_t low = (uint32_t)bits;
    float value;
    memcpy(&value, &low, sizeof value);
    return value;
}

static int by_number(const void *left, const void *right) {
    const float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

/* Quartiles of the test rows' values, equal values together, and the missing ones. */
static ct_code slice_numbers(compare_run *run, const slice_field *field, const char *name, ct_status *status) {
    const test_rows *test = &run->test;
    uint8_t *codes = NULL;
    CT_TRY(new_codes(&run->slices, test->count, &codes, status));
    float *sorted = malloc((test->count + 1) * sizeof *sorted), edges[QUARTILES + 1];
    if (sorted == NULL) return ct_fail_memory(status, test->count * sizeof *sorted, "the slices");
    size_t n = 0;
    for (size_t row = 0; row < test->count; row++)
        if (!isnan(as_number(field->values[row]))) sorted[n++] = as_number(field->values[row]);
    qsort(sorted, n, sizeof *sorted, by_number);
    for (size_t q = 0; q < QUARTILES && n > 0; q++) edges[q] = sorted[n * q / QUARTILES];
    edges[QUARTILES] = n > 0 ? sorted[n - 1] : 0.0f;
    for (size_t row = 0; row < test->count; row++) {
        const float value = as_number(field->values[row]);
        codes[row] = QUARTILES; /* missing */
        for (uint8_t q = 0; q < QUARTILES && !isnan(value); q++)
            if (value >= edges[q]) codes[row] = q;
    }
    for (uint8_t q = 0; q < QUARTILES && n > 0; q++) {
        const bool last = q + 1 == QUARTILES;
        if (!last && edges[q + 1] <= edges[q]) continue; /* no row: its values are in a later one */
        (void)snprintf(add_slice(&run->slices, name, codes, q)->name, SLICE_TEXT_BYTES, last ? "[%.6g, %.6g]" : "[%.6g, %.6g)",
                       (double)edges[q], (double)edges[q + 1]);
    }
    if (n < test->count) (void)snprintf(add_slice(&run->slices, name, codes, QUARTILES)->name, SLICE_TEXT_BYTES, "missing");
    free(sorted);
    return CT_OK;
}

ct_code slices_make(compare_run *run, ct_status *status) {
    (void)snprintf(add_slice(&run->slices, "all", NULL, 0)->name, SLICE_TEXT_BYTES, "all");
    CT_TRY(slice_items(run, status));
    CT_TRY(slice_units(run, status));
    for (size_t f = 0; f < run->test.field_count; f++) {
        const ct_field *field = &run->options->schema->fields[run->test.fields[f].field];
        if (field->kind == CT_FIELD_NUMBER)
            CT_TRY(slice_numbers(run, &run->test.fields[f], field->name, status));
        else
            CT_TRY(slice_ids(run, &run->test.fields[f], field->name, status));
    }
    return CT_OK;
}
