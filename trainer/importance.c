/* A window is scored once for each feature and repeat, with one column of the batch replaced; sums and bins of each are kept until the end.
 */
#include "trainer/importance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/math.h"
#include "base/random.h"
#include "trainer/metrics.h"

enum { BINS = 1 << 14, BINS_OF_ONE = 512, MAX_REPEATS = 1000 };

/* Of the rows as they are, or with one column permuted. */
typedef struct tally {
    double loss;
    double *bins; /* (BINS, 2): weight of non-clicks and of clicks */
} tally;

struct ct_importance {
    ct_model *model;
    ct_pool *pool;
    ct_importance_options options;
    size_t *fields; /* (count) */
    size_t count;
    tally plain, *permuted; /* (count, repeats) */
    int64_t rows;
    double weight;
    uint64_t *order, *scratch; /* (CT_IMPORTANCE_WINDOW_ROWS) */
    float *logits;             /* (CT_IMPORTANCE_WINDOW_ROWS, outputs) */
    ct_column *columns;        /* (field_count): of the batch, with one replaced */
    /* the replaced one */
    void *values;
    size_t value_bytes; /* that fit */
    float *value_weights;
    size_t weight_bytes;
    uint32_t *offsets; /* (CT_IMPORTANCE_WINDOW_ROWS + 1) */
    ct_progress progress;
};

/* --- life --- */

static bool is_listed(char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

/* A column that the forward reads: an id may be needed for its vector's sake alone. */
static bool is_feature(const ct_model *model, size_t field) {
    const ct_model_spec *spec = ct_model_spec_of(model);
    const ct_field *f = &ct_model_schema(model)->fields[field];
    if (f->kind != CT_FIELD_ID && f->kind != CT_FIELD_NUMBER && f->kind != CT_FIELD_VECTOR) return false;
    return ct_model_uses_field(model, field) && (spec->features == NULL || is_listed(spec->features, spec->feature_count, f->name)) &&
           !is_listed(spec->exclude, spec->exclude_count, f->name);
}

static ct_code tally_init(tally *t, ct_status *status) {
    t->bins = calloc((size_t)2 * BINS, sizeof *t->bins);
    return t->bins == NULL ? ct_fail_memory(status, (size_t)2 * BINS * sizeof *t->bins, "the importance of a feature") : CT_OK;
}

ct_code ct_importance_create(ct_model *model, ct_pool *pool, const ct_importance_options *options, ct_importance **out_importance,
                             ct_status *status) {
    const size_t fields = ct_model_schema(model)->field_count, rows = CT_IMPORTANCE_WINDOW_ROWS;
    ct_code code = CT_OK;
    ct_importance *importance = calloc(1, sizeof *importance);
    if (importance == NULL) return ct_fail_memory(status, sizeof *importance, "importance");
    importance->model = model;
    importance->pool = pool;
    importance->options = *options;
    if (options->repeats == 0) importance->options.repeats = CT_IMPORTANCE_REPEATS;
    if (options->repeats > MAX_REPEATS) {
        code = ct_fail(status, CT_INVALID, "%u repeats; at most %d are possible", options->repeats, MAX_REPEATS);
        goto fail;
    }
    importance->fields = calloc(fields + 1, sizeof *importance->fields);
    importance->columns = calloc(fields + 1, sizeof *importance->columns);
    importance->order = calloc(rows, sizeof *importance->order);
    importance->scratch = calloc(rows, sizeof *importance->scratch);
    importance->logits = calloc(rows * ct_model_output_count(model), sizeof *importance->logits);
    importance->offsets = calloc(rows + 1, sizeof *importance->offsets);
    if (importance->fields == NULL || importance->columns == NULL || importance->order == NULL || importance->scratch == NULL ||
        importance->logits == NULL || importance->offsets == NULL) {
        code = ct_fail_memory(status, rows * sizeof *importance->order, "importance");
        goto fail;
    }
    for (size_t f = 0; f < fields; f++)
        if (is_feature(model, f)) importance->fields[importance->count++] = f;
    const size_t tallies = importance->count * importance->options.repeats;
    importance->permuted = calloc(tallies + 1, sizeof *importance->permuted);
    if (importance->permuted == NULL) {
        code = ct_fail_memory(status, tallies * sizeof *importance->permuted, "importance");
        goto fail;
    }
    CT_TRY_GOTO(code, tally_init(&importance->plain, status), fail);
    for (size_t i = 0; i < tallies; i++) CT_TRY_GOTO(code, tally_init(&importance->permuted[i], status), fail);
    if (options->progress) ct_progress_init(&importance->progress);
    *out_importance = importance;
    return CT_OK;
fail:
    ct_importance_destroy(importance);
    return code;
}

void ct_importance_destroy(ct_importance *importance) {
    if (importance == NULL) return;
    free(importance->plain.bins);
    if (importance->permuted != NULL)
        for (size_t i = 0; i < importance->count * importance->options.repeats; i++) free(importance->permuted[i].bins);
    free(importance->permuted);
    free(importance->fields);
    free(importance->columns);
    free(importance->order);
    free(importance->scratch);
    free(importance->logits);
    free(importance->offsets);
    free(importance->values);
    free(importance->value_weights);
    free(importance);
}

/* --- permuting a column --- */

/* Rows of the window in the order of their random numbers: order[r] is the row whose value row r takes. The row's own number breaks ties.
 */
static void draw_order(ct_importance *importance, const ct_batch *batch, const char *feature, uint32_t repeat) {
    const uint32_t index = (uint32_t)ct_hash64(feature, strlen(feature), 0);
    for (size_t r = 0; r < batch->rows; r++) {
        const ct_random4 random =
            ct_random(importance->options.seed, CT_PLACE_SHUFFLE, repeat, (uint64_t)(batch->first_row + (int64_t)r), index);
        importance->order[r] = (uint64_t)random.word[0] << 32 | r;
    }
    ct_score_sort(importance->order, importance->scratch, batch->rows);
    for (size_t r = 0; r < batch->rows; r++) importance->order[r] &= UINT32_MAX;
}

static ct_code room(void **array, size_t *capacity, size_t bytes, ct_status *status) {
    if (bytes <= *capacity) return CT_OK;
    void *grown = realloc(*array, bytes);
    if (grown == NULL) return ct_fail_memory(status, bytes, "a permuted column");
    *array = grown;
    *capacity = bytes;
    return CT_OK;
}

/* order: (rows). The copy's arrays are the importance's. */
static ct_code permute_column(ct_importance *importance, const ct_column *column, size_t rows, ct_column *out, ct_status *status) {
    const size_t size = ct_column_type_bytes(column->type), values = column->offsets != NULL ? column->offsets[rows] : rows;
    void *weights = importance->value_weights;
    CT_TRY(room(&importance->values, &importance->value_bytes, values * size + 1, status));
    if (column->value_weights != NULL) {
        CT_TRY(room(&weights, &importance->weight_bytes, values * sizeof(float) + 1, status));
        importance->value_weights = weights;
    }
    *out = *column;
    out->values = importance->values;
    if (column->value_weights != NULL) out->value_weights = importance->value_weights;
    if (column->offsets != NULL) out->offsets = importance->offsets;
    size_t at = 0;
    for (size_t r = 0; r < rows; r++) {
        const size_t row = importance->order[r], first = column->offsets != NULL ? column->offsets[row] : row;
        const size_t n = column->offsets != NULL ? column->offsets[row + 1] - first : 1;
        importance->offsets[r] = (uint32_t)at;
        memcpy((char *)out->values + at * size, (const char *)column->values + first * size, n * size);
        if (column->value_weights != NULL) memcpy(out->value_weights + at, column->value_weights + first, n * sizeof(float));
        at += n;
    }
    importance->offsets[rows] = (uint32_t)at;
    return CT_OK;
}

/* --- tallies --- */

static size_t bin_of(float logit) {
    const double at = (double)logit * BINS_OF_ONE + BINS / 2;
    return at < 0.0 ? 0 : at >= BINS ? BINS - 1 : (size_t)at;
}

static ct_code tally_add(tally *t, const float *logits, const float *labels, const float *weights, size_t rows, ct_status *status) {
    for (size_t r = 0; r < rows; r++) {
        const double weight = weights != NULL ? (double)weights[r] : 1.0;
        const bool click = labels[r] != 0.0f;
        if (isnan(logits[r])) return ct_fail(status, CT_INVALID, "importance: a logit is not a number");
        if (weight == 0.0) continue;
        t->loss += weight * ct_logit_loss(logits[r], click);
        t->bins[2 * bin_of(logits[r]) + click] += weight;
    }
    return CT_OK;
}

/* NaN with one class. out_error: how far it can be from the exact one; may be NULL. */
static double tally_auc(const tally *t, double *out_error) {
    double clicks = 0.0, others = 0.0, won = 0.0, tied = 0.0;
    for (size_t b = 0; b < BINS; b++) {
        const double n = t->bins[2 * b], p = t->bins[2 * b + 1];
        won += p * (others + 0.5 * n);
        tied += p * n;
        others += n;
        clicks += p;
    }
    const bool both = clicks > 0.0 && others > 0.0;
    if (out_error != NULL) *out_error = both ? 0.5 * tied / (clicks * others) : NAN;
    return both ? won / (clicks * others) : NAN;
}

/* --- a window --- */

static ct_code add_permuted(ct_importance *importance, ct_scorer *const *scorers, const ct_batch *batch, size_t feature, uint32_t repeat,
                            const float *labels, const float *weights, ct_status *status) {
    const size_t field = importance->fields[feature];
    const ct_column *column = &batch->columns[field];
    ct_batch changed = *batch;
    memcpy(importance->columns, batch->columns, batch->column_count * sizeof *batch->columns);
    changed.columns = importance->columns;
    draw_order(importance, batch, column->name, repeat);
    CT_TRY(permute_column(importance, column, batch->rows, &changed.columns[field], status));
    CT_TRY(ct_scorers_run(scorers, importance->pool, &changed, importance->logits, status));
    return tally_add(&importance->permuted[feature * importance->options.repeats + repeat], importance->logits, labels, weights,
                     batch->rows, status);
}

ct_code ct_importance_add(ct_importance *importance, ct_scorer *const *scorers, const ct_batch *batch, const float *logits,
                          const float *labels, const float *weights, ct_status *status) {
    const ct_importance_options *options = &importance->options;
    if (batch->rows > CT_IMPORTANCE_WINDOW_ROWS)
        return ct_fail(status, CT_INVALID, "importance: a window of %zu rows; at most %d are possible", batch->rows,
                       CT_IMPORTANCE_WINDOW_ROWS);
    CT_TRY(tally_add(&importance->plain, logits, labels, weights, batch->rows, status));
    for (size_t r = 0; r < batch->rows; r++) importance->weight += weights != NULL ? (double)weights[r] : 1.0;
    for (size_t f = 0; f < importance->count; f++) {
        for (uint32_t repeat = 0; repeat < options->repeats; repeat++) {
            if (options->stop != NULL && atomic_load(options->stop)) return ct_fail(status, CT_CANCELLED, "importance: stopped");
            CT_TRY(add_permuted(importance, scorers, batch, f, repeat, labels, weights, status));
            if (options->progress)
                ct_progress_update(&importance->progress, "importance: rows from %lld on, feature %zu of %zu", (long long)importance->rows,
                                   f + 1, importance->count);
        }
    }
    importance->rows += (int64_t)batch->rows;
    if (options->progress) ct_progress_finish(&importance->progress);
    return CT_OK;
}

/* --- the end --- */

typedef struct estimate {
    double mean, error;
} estimate;

/* Mean and its standard error; the error is NaN for one value. */
static estimate estimate_of(const double *values, size_t n) {
    double mean = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) mean += values[i] / (double)n;
    for (size_t i = 0; i < n; i++) squares += (values[i] - mean) * (values[i] - mean);
    return (estimate){mean, n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : NAN};
}

typedef struct feature_result {
    const char *name;
    size_t place;
    estimate loss, auc;
} feature_result;

static int by_loss(const void *a, const void *b) {
    const feature_result *x = a, *y = b;
    if (x->loss.mean != y->loss.mean) return x->loss.mean < y->loss.mean ? 1 : -1;
    return (x->place > y->place) - (x->place < y->place);
}

static feature_result result_of(const ct_importance *importance, size_t feature, double plain_auc) {
    const uint32_t repeats = importance->options.repeats;
    double losses[MAX_REPEATS], drops[MAX_REPEATS];
    for (uint32_t i = 0; i < repeats; i++) {
        const tally *t = &importance->permuted[feature * repeats + i];
        losses[i] = (t->loss - importance->plain.loss) / importance->weight;
        drops[i] = plain_auc - tally_auc(t, NULL);
    }
    return (feature_result){ct_model_schema(importance->model)->fields[importance->fields[feature]].name, feature,
                            estimate_of(losses, repeats), estimate_of(drops, repeats)};
}

ct_code ct_importance_finish(const ct_importance *importance, json_t **out_json, ct_status *status) {
    feature_result *results = calloc(importance->count + 1, sizeof *results);
    json_t *features = json_array();
    double auc_error = NAN;
    const double auc = tally_auc(&importance->plain, &auc_error);
    if (results == NULL || features == NULL) {
        free(results);
        json_decref(features);
        return ct_fail_memory(status, importance->count * sizeof *results, "importance");
    }
    for (size_t f = 0; f < importance->count; f++) results[f] = result_of(importance, f, auc);
    qsort(results, importance->count, sizeof *results, by_loss);
    for (size_t f = 0; f < importance->count; f++)
        json_array_append_new(
            features, json_pack("{s:s, s:o, s:o, s:o, s:o}", "feature", results[f].name, "log_loss_increase",
                                ct_json_real(results[f].loss.mean), "log_loss_increase_error", ct_json_real(results[f].loss.error),
                                "auc_drop", ct_json_real(results[f].auc.mean), "auc_drop_error", ct_json_real(results[f].auc.error)));
    json_t *json = json_pack("{s:I, s:i, s:I, s:I, s:o, s:o, s:o, s:o}", "repeats", (json_int_t)importance->options.repeats, "window_rows",
                             CT_IMPORTANCE_WINDOW_ROWS, "seed", (json_int_t)importance->options.seed, "rows", (json_int_t)importance->rows,
                             "log_loss", ct_json_real(importance->plain.loss / importance->weight), "auc", ct_json_real(auc), "auc_error",
                             ct_json_real(auc_error), "features", features);
    const bool whole = json != NULL && json_array_size(features) == importance->count;
    free(results);
    if (!whole) {
        json_decref(json);
        return ct_fail_memory(status, 4096, "importance as JSON");
    }
    *out_json = json;
    return CT_OK;
}
