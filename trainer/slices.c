/* Rows (value, entry, group) go through a sorter by value. At the end one reading counts the rows of each value and decides what the slices
 * are, a second one hands each slice's rows to a collector. The sort is stable, so a value's rows come in the log's order. */
#include "trainer/slices.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/text.h"
#include "trainer/metrics_sort.h"

enum { DEFAULT_MEMORY_BYTES = 64 << 20, COLLECTOR_BYTES = 16 << 20, MISSING_BYTES = 4 << 20, CHUNK_ROWS = 512 };

static const ct_sort_order value_order = {.words = 3, .keys = 1, .key = {{0, 0}}}; /* value, entry, group */

typedef struct slice_field {
    size_t field;
    bool quantiles;
    ct_sorter *rows;
    ct_metrics_collector *missing;
} slice_field;

struct ct_slices {
    const ct_schema *schema;
    slice_field *fields; /* (count) */
    size_t count;
    bool has_weights, has_groups;
    uint64_t *set; /* (set_capacity): different values of a row */
    size_t set_capacity;
};

/* Rows on their way to a sorter or from one. */
typedef struct chunk {
    size_t n;
    uint64_t words[3][CHUNK_ROWS];
} chunk;

/* --- life --- */

static ct_code find_field(const ct_schema *schema, const char *name, slice_field *out, ct_status *status) {
    const int64_t field = ct_schema_find(schema, name);
    char shown[128];
    (void)ct_text_show(name, strlen(name), shown, sizeof shown);
    if (field < 0) return ct_fail(status, CT_INVALID, "schema %s has no field '%s' to slice by", schema->name, shown);
    switch (schema->fields[field].kind) {
        case CT_FIELD_ID:
        case CT_FIELD_UNIT:
        case CT_FIELD_GROUP:
            out->quantiles = false;
            break;
        case CT_FIELD_NUMBER:
        case CT_FIELD_TIME:
            out->quantiles = true;
            break;
        case CT_FIELD_LABEL:
        case CT_FIELD_WEIGHT:
        case CT_FIELD_VECTOR:
        case CT_FIELD_HISTORY:
        case CT_FIELD_SIMILARITY:
            return ct_fail(status, CT_INVALID, "field '%s' has no slices: name an id, unit, group, number or time", shown);
    }
    out->field = (size_t)field;
    return CT_OK;
}

ct_code ct_slices_create(const ct_schema *schema, const char *const *fields, size_t field_count, size_t memory_bytes,
                         ct_slices **out_slices, ct_status *status) {
    const size_t memory = (memory_bytes > 0 ? memory_bytes : DEFAULT_MEMORY_BYTES) / (field_count > 0 ? field_count : 1);
    ct_code code = CT_OK;
    ct_slices *slices = calloc(1, sizeof *slices);
    if (slices == NULL) return ct_fail_memory(status, sizeof *slices, "slices");
    slices->schema = schema;
    slices->fields = calloc(field_count + 1, sizeof *slices->fields);
    if (slices->fields == NULL) {
        code = ct_fail_memory(status, field_count * sizeof *slices->fields, "slices");
        goto fail;
    }
    for (size_t f = 0; f < field_count; f++) {
        slice_field *field = &slices->fields[slices->count++];
        CT_TRY_GOTO(code, find_field(schema, fields[f], field, status), fail);
        for (size_t other = 0; other < f; other++)
            if (slices->fields[other].field == field->field) {
                code = ct_fail(status, CT_INVALID, "field '%s' is named twice to slice by", fields[f]);
                goto fail;
            }
        CT_TRY_GOTO(code, ct_sorter_create(&value_order, memory, &field->rows, status), fail);
        CT_TRY_GOTO(code, ct_metrics_collector_create_within(MISSING_BYTES, &field->missing, status), fail);
    }
    *out_slices = slices;
    return CT_OK;
fail:
    ct_slices_destroy(slices);
    return code;
}

void ct_slices_destroy(ct_slices *slices) {
    if (slices == NULL) return;
    for (size_t f = 0; f < slices->count; f++) {
        ct_sorter_destroy(slices->fields[f].rows);
        ct_metrics_collector_destroy(slices->fields[f].missing);
    }
    free(slices->fields);
    free(slices->set);
    free(slices);
}

/* --- taking rows --- */

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The different values of a row of a list column, in slices->set. */
static ct_code distinct_values(ct_slices *slices, const uint64_t *values, size_t n, size_t *out_count, ct_status *status) {
    if (n > slices->set_capacity) {
        uint64_t *grown = realloc(slices->set, n * sizeof *grown);
        if (grown == NULL) return ct_fail_memory(status, n * sizeof *grown, "the values of a row");
        slices->set = grown;
        slices->set_capacity = n;
    }
    size_t count = 0;
    memcpy(slices->set, values, n * sizeof *values);
    qsort(slices->set, n, sizeof *slices->set, by_value);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || slices->set[i] != slices->set[count - 1]) slices->set[count++] = slices->set[i];
    *out_count = count;
    return CT_OK;
}

/* The one value of a row of a dense column, as a word that orders as the values do; false: missing. */
static bool dense_value(const ct_column *column, size_t row, uint64_t *out_value) {
    const size_t at = column->shared ? 0 : row;
    switch (column->type) {
        case CT_TYPE_F32:
            *out_value = ct_score_key(ct_column_f32(column)[at]);
            return !isnan(ct_column_f32(column)[at]);
        case CT_TYPE_I64:
            *out_value = (uint64_t)ct_column_i64(column)[at] ^ UINT64_C(1) << 63;
            return true;
        case CT_TYPE_U64:
            *out_value = ct_column_u64(column)[at];
            return true;
    }
    return false;
}

static ct_code flush(chunk *rows, ct_sorter *sorter, ct_status *status) {
    const ct_code code = ct_sorter_add(sorter, (const uint64_t *const[]){rows->words[0], rows->words[1], rows->words[2]}, rows->n, status);
    rows->n = 0;
    return code;
}

static ct_code put(chunk *rows, ct_sorter *sorter, uint64_t value, uint64_t entry, uint64_t group, ct_status *status) {
    rows->words[0][rows->n] = value;
    rows->words[1][rows->n] = entry;
    rows->words[2][rows->n++] = group;
    return rows->n == CHUNK_ROWS ? flush(rows, sorter, status) : CT_OK;
}

static ct_code add_field(ct_slices *slices, slice_field *field, const ct_batch *batch, const float *logits, const float *labels,
                         const float *weights, const uint64_t *groups, ct_status *status) {
    const ct_column *column = &batch->columns[field->field];
    chunk rows;
    rows.n = 0;
    if (!column->present) return ct_fail(status, CT_INVALID, "the data has no field '%s' to slice by", column->name);
    for (size_t r = 0; r < batch->rows; r++) {
        const uint64_t entry = ct_entry(logits[r], labels[r] != 0.0f, weights != NULL ? weights[r] : 1.0f);
        const uint64_t group = groups != NULL ? groups[r] : 0;
        uint64_t value = 0;
        size_t count = 0;
        if (column->offsets != NULL) {
            const size_t row = column->shared ? 0 : r, first = column->offsets[row];
            CT_TRY(distinct_values(slices, ct_column_u64(column) + first, column->offsets[row + 1] - first, &count, status));
            for (size_t i = 0; i < count; i++) CT_TRY(put(&rows, field->rows, slices->set[i], entry, group, status));
        } else if (dense_value(column, r, &value)) {
            count = 1;
            CT_TRY(put(&rows, field->rows, value, entry, group, status));
        }
        if (count == 0)
            CT_TRY(ct_metrics_collector_add(field->missing, logits + r, labels + r, weights != NULL ? weights + r : NULL,
                                            groups != NULL ? groups + r : NULL, 1, status));
    }
    return flush(&rows, field->rows, status);
}

ct_code ct_slices_add(ct_slices *slices, const ct_batch *batch, const float *logits, const float *labels, const float *weights,
                      const uint64_t *groups, ct_status *status) {
    slices->has_weights = weights != NULL;
    slices->has_groups = groups != NULL;
    for (size_t f = 0; f < slices->count; f++)
        CT_TRY(add_field(slices, &slices->fields[f], batch, logits, labels, weights, groups, status));
    return CT_OK;
}

/* --- what the slices are: the first reading --- */

typedef struct value_rows {
    uint64_t value;
    int64_t rows;
} value_rows;

typedef struct plan {
    value_rows top[CT_SLICE_VALUES]; /* the most rows first, then in the order of the values */
    size_t top_count;
    int64_t values;                    /* different ones */
    uint64_t bin_start[CT_SLICE_BINS]; /* least value of each bin */
    size_t bin_count;
    int last_bin;
    /* while reading */
    uint64_t value;
    int64_t rows, below; /* of this value so far; of lesser values */
} plan;

static void plan_top(plan *p, uint64_t value, int64_t rows) {
    size_t at = p->top_count;
    while (at > 0 && p->top[at - 1].rows < rows) at--; /* values come in order: an equal number stands behind */
    if (at == CT_SLICE_VALUES) return;
    if (p->top_count < CT_SLICE_VALUES) p->top_count++;
    for (size_t i = p->top_count - 1; i > at; i--) p->top[i] = p->top[i - 1];
    p->top[at] = (value_rows){value, rows};
}

static void plan_bin(plan *p, uint64_t value, int64_t rows, int64_t below, int64_t total) {
    const int bin = (int)(CT_SLICE_BINS * (((double)below + (double)rows / 2.0) / (double)total));
    if (bin == p->last_bin) return;
    p->last_bin = bin;
    p->bin_start[p->bin_count++] = value;
}

/* The rows of the value that was read last are complete. */
static void plan_close(plan *p, bool quantiles, int64_t total) {
    if (p->rows == 0) return;
    p->values++;
    if (quantiles)
        plan_bin(p, p->value, p->rows, p->below, total);
    else
        plan_top(p, p->value, p->rows);
    p->below += p->rows;
    p->rows = 0;
}

static ct_code make_plan(const slice_field *field, plan *p, ct_status *status) {
    const uint64_t *words[CT_SORT_MAX_WORDS];
    const int64_t total = ct_sorter_rows(field->rows);
    size_t n = 0;
    *p = (plan){.last_bin = -1};
    ct_code code = ct_sorter_rewind(field->rows, status);
    while (code == CT_OK && (code = ct_sorter_next(field->rows, words, &n, status)) == CT_OK) {
        for (size_t i = 0; i < n; i++) {
            if (words[0][i] != p->value) plan_close(p, field->quantiles, total);
            p->value = words[0][i];
            p->rows++;
        }
    }
    if (code != CT_END) return code;
    plan_close(p, field->quantiles, total);
    return CT_OK;
}

static int top_by_value(const void *a, const void *b) { return by_value(&((const value_rows *)a)->value, &((const value_rows *)b)->value); }

/* --- their metrics: the second reading --- */

typedef struct reading {
    const ct_slices *slices;
    const slice_field *field;
    const plan *plan;
    value_rows by_value[CT_SLICE_VALUES]; /* the plan's, in the order of the values */
    json_t *found[CT_SLICE_VALUES];       /* objects, in the same order */
    json_t *bins;                         /* an array */
    ct_metrics_collector *own, *other;
    size_t at;               /* slice of `own` */
    uint64_t least, largest; /* value in `own` */
    bool open;               /* `own` has rows */
} reading;

static ct_code add_chunk(const ct_slices *slices, ct_metrics_collector *collector, const uint64_t *const words[], size_t first, size_t n,
                         ct_status *status) {
    float logits[CHUNK_ROWS], labels[CHUNK_ROWS], weights[CHUNK_ROWS];
    for (size_t done = 0; done < n; done += CHUNK_ROWS) {
        const size_t rows = n - done < CHUNK_ROWS ? n - done : CHUNK_ROWS, from = first + done;
        for (size_t r = 0; r < rows; r++) {
            const uint64_t entry = words[1][from + r];
            logits[r] = ct_score_of_key((uint32_t)(entry >> CT_ENTRY_SHIFT));
            labels[r] = ct_entry_click(entry) ? 1.0f : 0.0f;
            weights[r] = ct_entry_weight(entry);
        }
        CT_TRY(ct_metrics_collector_add(collector, logits, labels, slices->has_weights ? weights : NULL,
                                        slices->has_groups ? words[2] + from : NULL, rows, status));
    }
    return CT_OK;
}

/* Finishes a collector into an object and empties it. */
static ct_code metrics_of(const ct_slices *slices, ct_metrics_collector *collector, json_t *object, ct_status *status) {
    ct_metrics metrics;
    ct_code code = object == NULL ? ct_fail_memory(status, 4096, "a slice") : CT_OK;
    if (code == CT_OK) code = ct_metrics_collector_finish(collector, &metrics, status);
    if (code == CT_OK) code = ct_metrics_to_json(&metrics, slices->has_groups, object, status);
    ct_metrics_collector_reset(collector);
    return code;
}

/* A number or a time from its word. */
static json_t *ordered_value(const reading *run, uint64_t word) {
    if (run->slices->schema->fields[run->field->field].kind == CT_FIELD_TIME) return json_integer((json_int_t)(word ^ UINT64_C(1) << 63));
    return ct_json_real((double)ct_score_of_key((uint32_t)word));
}

static ct_code close_slice(reading *run, ct_status *status) {
    if (!run->open) return CT_OK;
    json_t *object = json_object();
    run->open = false;
    if (run->field->quantiles) {
        json_object_set_new(object, "low", ordered_value(run, run->least));
        json_object_set_new(object, "high", ordered_value(run, run->largest));
        json_array_append_new(run->bins, object);
    } else {
        char hex[32];
        (void)snprintf(hex, sizeof hex, "0x%016llx", (unsigned long long)run->by_value[run->at].value);
        json_object_set_new(object, "value", json_string(hex));
        run->found[run->at] = object;
    }
    return metrics_of(run->slices, run->own, object, status);
}

/* Rows of one value, or a part of them. */
static ct_code read_value(reading *run, const uint64_t *const words[], size_t first, size_t n, ct_status *status) {
    const uint64_t value = words[0][first];
    const plan *p = run->plan;
    size_t at = run->at;
    ct_metrics_collector *into = run->own;
    if (run->field->quantiles) {
        while (at + 1 < p->bin_count && value >= p->bin_start[at + 1]) at++;
    } else {
        while (at < p->top_count && run->by_value[at].value < value) at++;
        if (at == p->top_count || run->by_value[at].value != value) into = run->other;
    }
    if (at != run->at) CT_TRY(close_slice(run, status));
    run->at = at;
    if (into == run->own) {
        if (!run->open) run->least = value;
        run->largest = value;
        run->open = true;
    }
    return add_chunk(run->slices, into, words, first, n, status);
}

static ct_code read_slices(reading *run, ct_status *status) {
    const uint64_t *words[CT_SORT_MAX_WORDS];
    size_t n = 0;
    ct_code code = ct_sorter_rewind(run->field->rows, status);
    while (code == CT_OK && (code = ct_sorter_next(run->field->rows, words, &n, status)) == CT_OK) {
        for (size_t first = 0, last; first < n && code == CT_OK; first = last) {
            for (last = first + 1; last < n && words[0][last] == words[0][first];) last++;
            code = read_value(run, words, first, last - first, status);
        }
    }
    return code == CT_END ? close_slice(run, status) : code;
}

/* Into `object`: the slices in the order in which they are shown, then other and missing. */
static ct_code finish_field(const ct_slices *slices, const slice_field *field, json_t *object, ct_status *status) {
    plan p;
    CT_TRY(make_plan(field, &p, status));
    reading run = {.slices = slices, .field = field, .plan = &p, .bins = json_array()};
    ct_code code = CT_OK;
    memcpy(run.by_value, p.top, sizeof run.by_value);
    qsort(run.by_value, p.top_count, sizeof *run.by_value, top_by_value);
    CT_TRY_GOTO(code, ct_metrics_collector_create_within(COLLECTOR_BYTES, &run.own, status), done);
    CT_TRY_GOTO(code, ct_metrics_collector_create_within(COLLECTOR_BYTES, &run.other, status), done);
    CT_TRY_GOTO(code, read_slices(&run, status), done);
    for (size_t i = 0; i < p.top_count; i++)
        for (size_t j = 0; j < p.top_count; j++)
            if (run.by_value[j].value == p.top[i].value) json_array_append(run.bins, run.found[j]);
    json_object_set(object, "slices", run.bins);
    if (!field->quantiles) {
        json_object_set_new(object, "values", json_integer((json_int_t)p.values));
        json_t *other =
            p.values > (int64_t)p.top_count ? json_pack("{s:I}", "values", (json_int_t)(p.values - (int64_t)p.top_count)) : json_null();
        json_object_set_new(object, "other", other);
        if (json_is_object(other)) CT_TRY_GOTO(code, metrics_of(slices, run.other, other, status), done);
    }
    ct_metrics missing;
    CT_TRY_GOTO(code, ct_metrics_collector_finish(field->missing, &missing, status), done);
    json_t *rest = missing.rows > 0 ? json_object() : json_null();
    json_object_set_new(object, "missing", rest);
    if (missing.rows > 0) code = metrics_of(slices, field->missing, rest, status);
done:
    for (size_t i = 0; i < CT_SLICE_VALUES; i++) json_decref(run.found[i]);
    json_decref(run.bins);
    ct_metrics_collector_destroy(run.own);
    ct_metrics_collector_destroy(run.other);
    return code;
}

ct_code ct_slices_finish(ct_slices *slices, json_t **out_json, ct_status *status) {
    json_t *all = json_array();
    ct_code code = CT_OK;
    for (size_t f = 0; f < slices->count && code == CT_OK; f++) {
        slice_field *field = &slices->fields[f];
        const ct_field *of = &slices->schema->fields[field->field];
        json_t *object = json_pack("{s:s, s:s, s:s}", "field", of->name, "kind", ct_field_kind_name(of->kind), "by",
                                   field->quantiles ? "quantile" : "value");
        if (json_array_append_new(all, object) != 0) {
            code = ct_fail_memory(status, 4096, "slices as JSON");
            break;
        }
        code = finish_field(slices, field, object, status);
        ct_sorter_reset(field->rows);
    }
    if (code == CT_OK)
        *out_json = all;
    else
        json_decref(all);
    return code;
}
