/* The rows of the test: labels, keys, the clusters of units that the bootstrap resamples, and what training has in common with them. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "experiment/compare_internal.h"

#define CLUSTER_SEED UINT64_C(0x636c757374657273)
enum { MAX_CLUSTERS = CT_TALLY_MAX_CLUSTERS, ROW_HASH_WORDS = 256 };

void test_rows_deinit(test_rows *rows) {
    free(rows->labels);
    free(rows->units);
    free(rows->groups);
    free(rows->items);
    for (size_t f = 0; f < rows->field_count; f++) free(rows->fields[f].values);
    ct_counts_destroy(rows->hashes);
    free(rows->clusters);
    free(rows->group_offsets);
    free(rows->group_rows);
    *rows = (test_rows){0};
}

/* --- reading --- */

static bool grow(uint64_t **array, size_t capacity) {
    uint64_t *grown = realloc(*array, capacity * sizeof *grown);
    if (grown == NULL) return false;
    *array = grown;
    return true;
}

/* Which columns the sources have. */
typedef struct present {
    bool unit, group, item;
} present;

static ct_code reserve(test_rows *rows, size_t more, present has, ct_status *status) {
    if (rows->count + more <= rows->capacity) return CT_OK;
    size_t capacity = rows->capacity + rows->capacity / 2 + 4096;
    if (capacity < rows->count + more) capacity = rows->count + more;
    float *const labels = realloc(rows->labels, capacity * sizeof *labels);
    if (labels != NULL) rows->labels = labels;
    bool all = labels != NULL && (!has.unit || grow(&rows->units, capacity)) && (!has.group || grow(&rows->groups, capacity)) &&
               (!has.item || grow(&rows->items, capacity));
    for (size_t f = 0; f < rows->field_count && all; f++) all = grow(&rows->fields[f].values, capacity);
    if (!all) return ct_fail_memory(status, capacity * (4 + 8 * (3 + rows->field_count)), "the test rows");
    rows->capacity = capacity;
    return CT_OK;
}

/* Of every value of a row: equal rows have equal hashes. */
static uint64_t row_hash(const ct_schema *schema, const ct_batch *batch, size_t row) {
    uint64_t words[ROW_HASH_WORDS], hash = 0;
    size_t used = 0;
    for (size_t c = 0; c < batch->column_count; c++) {
        const ct_column *column = &batch->columns[c];
        if (!column->present || column->kind == CT_FIELD_VECTOR || schema->fields[c].derived) continue; /* it follows from others */
        const size_t first = column->offsets != NULL ? column->offsets[row] : row;
        const size_t last = column->offsets != NULL ? column->offsets[row + 1] : row + 1;
        for (size_t i = first; i <= last; i++) {
            uint64_t word = last - first; /* behind the values their number */
            if (i < last) {
                word = 0;
                memcpy(&word, (const char *)column->values + i * ct_column_type_bytes(column->type), ct_column_type_bytes(column->type));
            } else if (column->offsets == NULL) {
                break;
            }
            words[used++] = word;
            if (used < ROW_HASH_WORDS) continue;
            hash = ct_hash64(words, sizeof words, hash);
            used = 0;
        }
    }
    return ct_hash64(words, used * sizeof *words, hash);
}

static const ct_column *column_of(const compare_run *run, const ct_batch *batch, int64_t field, const char *what, ct_status *status) {
    const ct_column *column = &batch->columns[field];
    if (column->present) return column;
    ct_fail(status, CT_INVALID, "a source lacks the column of '%s', %s", run->options->schema->fields[field].name, what);
    return NULL;
}

static const ct_column *present_column(const ct_batch *batch, int64_t field) {
    return field >= 0 && batch->columns[field].present ? &batch->columns[field] : NULL;
}

static ct_code take_batch(compare_run *run, const ct_batch *batch, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    test_rows *test = &run->test;
    const ct_column *label = &batch->columns[ct_schema_find_kind(schema, CT_FIELD_LABEL)];
    const ct_column *unit = present_column(batch, run->unit), *group = present_column(batch, run->group),
                    *time = present_column(batch, run->time), *item = NULL;
    if (run->item >= 0 && (item = column_of(run, batch, run->item, "whose count makes the slices", status)) == NULL) return status->code;
    if (test->count > 0 && ((unit != NULL) != (test->units != NULL) || (group != NULL) != (test->groups != NULL)))
        return ct_fail(status, CT_INVALID, "some test sources have a column '%s' and others do not",
                       schema->fields[(unit != NULL) != (test->units != NULL) ? run->unit : run->group].name);
    CT_TRY(reserve(test, batch->rows, (present){unit != NULL, group != NULL, item != NULL}, status));
    for (size_t f = 0; f < test->field_count; f++) {
        const ct_column *column = column_of(run, batch, test->fields[f].field, "by which the report slices", status);
        if (column == NULL) return status->code;
        for (size_t i = 0; i < batch->rows; i++) {
            uint64_t value = 0;
            memcpy(&value, (const char *)column->values + i * ct_column_type_bytes(column->type), ct_column_type_bytes(column->type));
            test->fields[f].values[test->count + i] = value;
        }
    }
    for (size_t i = 0; i < batch->rows; i++) {
        const size_t row = test->count + i;
        test->labels[row] = ct_column_f32(label)[i];
        test->clicks += (double)test->labels[row];
        if (unit != NULL) test->units[row] = ct_column_u64(unit)[i];
        if (group != NULL) test->groups[row] = ct_column_u64(group)[i];
        if (item != NULL) test->items[row] = ct_column_u64(item)[i];
        if (time != NULL && ct_column_i64(time)[i] < test->first_time) test->first_time = ct_column_i64(time)[i];
        CT_TRY(ct_counts_add(test->hashes, row_hash(schema, batch, i), 1, status));
    }
    test->count += batch->rows;
    return CT_OK;
}

/* --- clusters and groups --- */

static uint64_t unit_of(const test_rows *rows, size_t row) { return rows->units != NULL ? rows->units[row] : row / UNIT_BLOCK_ROWS; }

/* Units to clusters: each its own while they are few, else by hash. */
static ct_code form_clusters(test_rows *rows, ct_status *status) {
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

/* Rows by group, in the log's order inside a group, groups in the order of appearance. */
static ct_code form_groups(test_rows *rows, ct_status *status) {
    if (rows->groups == NULL) return CT_OK;
    ct_counts *numbers = NULL, *sizes = NULL; /* of a group: its number from 1; of a number: its rows */
    ct_code code = CT_OK;
    CT_TRY(ct_counts_create(&numbers, status));
    CT_TRY_GOTO(code, ct_counts_create(&sizes, status), done);
    for (size_t i = 0; i < rows->count; i++) {
        if (ct_counts_get(numbers, rows->groups[i]) == 0)
            CT_TRY_GOTO(code, ct_counts_add(numbers, rows->groups[i], ct_counts_size(numbers) + 1, status), done);
        CT_TRY_GOTO(code, ct_counts_add(sizes, ct_counts_get(numbers, rows->groups[i]), 1, status), done);
    }
    const size_t groups = ct_counts_size(numbers);
    rows->group_offsets = calloc(groups + 2, sizeof *rows->group_offsets);
    rows->group_rows = malloc((rows->count + 1) * sizeof *rows->group_rows);
    if (rows->group_offsets == NULL || rows->group_rows == NULL) {
        code = ct_fail_memory(status, rows->count * sizeof *rows->group_rows, "the groups");
        goto done;
    }
    size_t *next = rows->group_offsets + 1; /* next[g]: where the next row of group g goes; in the end where group g + 1 begins */
    for (size_t g = 1; g < groups; g++) next[g] = next[g - 1] + ct_counts_get(sizes, g);
    for (size_t i = 0; i < rows->count; i++) rows->group_rows[next[ct_counts_get(numbers, rows->groups[i]) - 1]++] = (uint32_t)i;
    rows->by_group = (ct_tally_groups){groups, rows->group_offsets, rows->group_rows};
done:
    ct_counts_destroy(numbers);
    ct_counts_destroy(sizes);
    return code;
}

ct_code test_rows_read(compare_run *run, ct_status *status) {
    const ct_compare_options *options = run->options;
    const ct_reader_options reading = compare_reader(options, options->test_sources, options->test_source_count);
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    run->test.first_time = INT64_MAX;
    CT_TRY(ct_counts_create(&run->test.hashes, status));
    CT_TRY(ct_reader_open(options->schema, &reading, &reader, status));
    ct_code code = CT_OK;
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        code = take_batch(run, batch, status);
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
    }
    ct_reader_report(reader, &run->test_report);
    ct_reader_close(reader);
    if (code != CT_END) return code;
    if (run->test.count == 0)
        return ct_fail(status, CT_INVALID, "%s: no good row to judge by (%lld bad ones)%s%s", options->test_sources[0],
                       (long long)run->test_report.bad_total, run->test_report.shown > 0 ? "; the first: " : "",
                       run->test_report.shown > 0 ? run->test_report.first_bad[0] : "");
    if (run->test.count >= UINT32_MAX) return ct_fail(status, CT_EXHAUSTED, "%zu test rows; fewer than 2^32 are possible", run->test.count);
    CT_TRY(form_clusters(&run->test, status));
    return form_groups(&run->test, status);
}

/* --- training rows --- */

ct_code test_rows_compare(compare_run *run, const ct_batch *batch, ct_status *status) {
    const ct_column *unit = present_column(batch, run->unit), *time = present_column(batch, run->time), *item = NULL;
    if (run->item >= 0 && (item = column_of(run, batch, run->item, "whose count makes the slices", status)) == NULL) return status->code;
    for (size_t i = 0; i < batch->rows; i++) {
        if (item != NULL) CT_TRY(ct_counts_add(run->item_counts, ct_column_u64(item)[i], 1, status));
        if (unit != NULL && run->unit_counts != NULL) CT_TRY(ct_counts_add(run->unit_counts, ct_column_u64(unit)[i], 1, status));
        if (time != NULL && ct_column_i64(time)[i] > run->test.first_time) run->later_rows++;
        run->repeated_rows += ct_counts_get(run->test.hashes, row_hash(run->options->schema, batch, i)) > 0;
    }
    return CT_OK;
}
