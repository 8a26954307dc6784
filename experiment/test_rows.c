/* The rows of the test: labels, slices, and the clusters of units that the bootstrap resamples. */
#include <stdlib.h>

#include "base/hash.h"
#include "experiment/compare_internal.h"

#define CLUSTER_SEED UINT64_C(0x636c757374657273)

const char *const slice_names[SLICES] = {"new", "cold", "warm", "hot", "all"};

slice slice_of(uint64_t training_count) {
    return training_count < COLD_LEAST   ? SLICE_NEW
           : training_count < WARM_LEAST ? SLICE_COLD
           : training_count < HOT_LEAST  ? SLICE_WARM
                                         : SLICE_HOT;
}

void test_rows_deinit(test_rows *rows) {
    free(rows->labels);
    free(rows->units);
    free(rows->slices);
    free(rows->clusters);
    *rows = (test_rows){0};
}

ct_code test_rows_reserve(test_rows *rows, size_t more, bool units, bool items, ct_status *status) {
    if (rows->count + more <= rows->capacity) return CT_OK;
    size_t capacity = rows->capacity + rows->capacity / 2 + 4096;
    if (capacity < rows->count + more) capacity = rows->count + more;
    float *const labels = realloc(rows->labels, capacity * sizeof *labels);
    if (labels != NULL) rows->labels = labels;
    uint64_t *const kept_units = units ? realloc(rows->units, capacity * sizeof *kept_units) : NULL;
    if (kept_units != NULL) rows->units = kept_units;
    uint8_t *const slices = items ? realloc(rows->slices, capacity * sizeof *slices) : NULL;
    if (slices != NULL) rows->slices = slices;
    if (labels == NULL || (units && kept_units == NULL) || (items && slices == NULL))
        return ct_fail_memory(status, capacity * (sizeof *labels + sizeof *kept_units + sizeof *slices), "the test rows");
    rows->capacity = capacity;
    return CT_OK;
}

static uint64_t unit_of(const test_rows *rows, size_t row) { return rows->units != NULL ? rows->units[row] : row / UNIT_BLOCK_ROWS; }

ct_code test_rows_cluster(test_rows *rows, ct_status *status) {
    ct_counts *numbers = NULL; /* of a unit: its number in the order of appearance, from 1 */
    ct_code code = CT_OK;
    uint32_t by_hash[MAX_CLUSTERS] = {0}; /* hash bucket -> cluster + 1 */
    uint32_t clusters = 0;
    CT_TRY(ct_counts_create(&numbers, status));
    for (size_t i = 0; i < rows->count; i++) {
        const uint64_t unit = unit_of(rows, i);
        if (ct_counts_get(numbers, unit) == 0) CT_TRY_GOTO(code, ct_counts_add(numbers, unit, ct_counts_size(numbers) + 1, status), done);
    }
    rows->clusters = malloc((rows->count + 1) * sizeof *rows->clusters);
    if (rows->clusters == NULL) {
        code = ct_fail_memory(status, rows->count * sizeof *rows->clusters, "the test rows");
        goto done;
    }
    rows->unit_count = ct_counts_size(numbers);
    for (size_t i = 0; i < rows->count; i++) {
        const uint64_t unit = unit_of(rows, i);
        if (rows->unit_count <= MAX_CLUSTERS) {
            rows->clusters[i] = (uint32_t)ct_counts_get(numbers, unit) - 1;
        } else { /* buckets that no unit falls into are no clusters */
            uint32_t *cluster = &by_hash[ct_hash64(&unit, sizeof unit, CLUSTER_SEED) % MAX_CLUSTERS];
            if (*cluster == 0) *cluster = ++clusters;
            rows->clusters[i] = *cluster - 1;
        }
    }
    rows->cluster_count = rows->unit_count <= MAX_CLUSTERS ? rows->unit_count : clusters;
done:
    ct_counts_destroy(numbers);
    return code;
}
