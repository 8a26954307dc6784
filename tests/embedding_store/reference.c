#include "tests/embedding_store/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

void reference_init(reference *reference, const ct_table_spec *spec) {
    memset(reference, 0, sizeof *reference);
    reference->spec = *spec;
}

void reference_deinit(reference *reference) {
    for (size_t i = 0; i < reference->row_count; i++) {
        free(reference->rows[i].values);
        free(reference->rows[i].first);
        free(reference->rows[i].second);
    }
    free(reference->rows);
    free(reference->effective);
    free(reference->own);
    free(reference->dropped);
}

static int64_t find(const reference *reference, uint64_t key) {
    for (size_t i = 0; i < reference->row_count; i++)
        if (reference->rows[i].key == key) return (int64_t)i;
    return -1;
}

static size_t find_or_add(reference *reference, uint64_t key) {
    const int64_t found = find(reference, key);
    if (found >= 0) return (size_t)found;
    reference->rows = realloc(reference->rows, (reference->row_count + 1) * sizeof *reference->rows);
    const uint32_t dim = reference->spec.dim;
    reference->rows[reference->row_count] = (reference_row){
        .key = key, .values = calloc(dim, sizeof(float)), .first = calloc(dim, sizeof(float)), .second = calloc(dim, sizeof(float))};
    return reference->row_count++;
}

static size_t rows_of(const ct_lookup *lookup, size_t column) { return lookup->columns[column].shared ? 1 : lookup->rows; }

static size_t begin_of(const ct_key_column *column, size_t row) { return column->offsets ? column->offsets[row] : row; }

static size_t end_of(const ct_key_column *column, size_t row) { return column->offsets ? column->offsets[row + 1] : row + 1; }

static size_t keys_of(const ct_lookup *lookup, size_t column) {
    const size_t rows = rows_of(lookup, column);
    return rows ? end_of(&lookup->columns[column], rows - 1) : 0;
}

/* Where the column's occurrences begin in `effective`. */
static size_t base_of(const ct_lookup *lookup, size_t column) {
    size_t base = 0;
    for (size_t i = 0; i < column; i++) base += keys_of(lookup, i);
    return base;
}

static bool dropped(const ct_lookup *lookup, const ct_key_column *column, size_t row) {
    if (lookup->drop_rate <= 0.0 || column->rare_key == 0) return false;
    const ct_random4 random =
        ct_random(lookup->drop_seed, CT_PLACE_ID_DROP, lookup->epoch, (uint64_t)lookup->first_row + row, column->drop_index);
    return (double)ct_unit_float(random.word[0]) < lookup->drop_rate;
}

static void make_room(reference *reference, const ct_lookup *lookup) {
    const size_t total = base_of(lookup, lookup->column_count);
    free(reference->effective);
    free(reference->own);
    free(reference->dropped);
    reference->effective = calloc(total + 1, sizeof *reference->effective);
    reference->own = calloc(total + 1, sizeof *reference->own);
    reference->dropped = calloc(total + 1, sizeof *reference->dropped);
}

/* The halves on both sides of |value|, and how far it is from the lower to the upper one in steps of 2^-13, rounded down; `random` steps
 * more decide. */
float reference_round_half(float value, uint32_t random) {
    const float magnitude = fabsf(value);
    _Float16 nearest = (_Float16)magnitude;
    uint16_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    if ((double)nearest > (double)magnitude) bits--;
    _Float16 lower, upper;
    memcpy(&lower, &bits, sizeof lower);
    bits++;
    memcpy(&upper, &bits, sizeof upper);
    const double part = ((double)magnitude - (double)lower) / ((double)upper - (double)lower);
    return copysignf((float)(floor(part * 8192) + random >= 8192 ? upper : lower), value);
}

/* After an update. */
static void round_row(const ct_table_spec *spec, reference_row *row, const ct_lookup *lookup) {
    const uint64_t seed = ct_hash64(&lookup->first_row, sizeof lookup->first_row, spec->seed);
    for (uint32_t i = 0; i < spec->dim; i++) {
        const ct_random4 random = ct_random(seed, CT_PLACE_ROUNDING, lookup->epoch, row->key, i / 8);
        row->values[i] = reference_round_half(row->values[i], (random.word[i % 8 / 2] >> (i % 2 ? 16 : 0)) % 8192);
    }
}

/* A row begins. */
static void admit(const ct_table_spec *spec, reference_row *row) {
    row->has_row = true;
    row->accumulator = spec->initial_accumulator;
    for (uint32_t i = 0; spec->optimiser == CT_ROW_ADAGRAD && i < spec->dim; i++) row->second[i] = spec->initial_accumulator;
}

/* Forgets what was not seen for too long. */
static void expire(reference *reference, uint32_t day) {
    if (day > reference->day) reference->day = day;
    for (size_t i = 0; i < reference->row_count;) {
        reference_row *row = &reference->rows[i];
        if (row->rare || (int64_t)reference->day - (int64_t)row->day <= (int64_t)reference->spec.expire_days) {
            i++;
            continue;
        }
        reference->expired += row->has_row;
        free(row->values);
        free(row->first);
        free(row->second);
        *row = reference->rows[--reference->row_count];
    }
}

void reference_acquire(reference *reference, const ct_lookup *lookup) {
    const ct_table_spec *spec = &reference->spec;
    if (spec->expire_days) expire(reference, lookup->day);
    make_room(reference, lookup);
    reference->epoch = lookup->epoch;
    /* Who has a row in this batch: decided from the counts before it. */
    for (size_t c = 0; c < lookup->column_count; c++) {
        for (size_t j = begin_of(&lookup->columns[c], 0); j < keys_of(lookup, c); j++) {
            const size_t at = find_or_add(reference, lookup->columns[c].keys[j]);
            reference_row *row = &reference->rows[at];
            if (row->has_row || (spec->min_count > 1 && row->count < spec->min_count)) continue;
            admit(spec, row);
            for (uint32_t i = 0; i < spec->dim; i++) {
                const ct_random4 random = ct_random(spec->seed, CT_PLACE_FIRST_VALUE, 0, row->key, i / 4);
                row->values[i] = spec->first_value_scale * (2.0f * ct_unit_float(random.word[i % 4]) - 1.0f);
                if (spec->precision == CT_ROW_FP16) row->values[i] = reference_round_half(row->values[i], 4096);
            }
        }
    }
    for (size_t c = 0; c < lookup->column_count; c++) {
        const ct_key_column *column = &lookup->columns[c];
        for (size_t r = 0; r < lookup->rows; r++) {
            for (size_t j = begin_of(column, r); j < end_of(column, r); j++) {
                size_t row = find_or_add(reference, column->keys[j]);
                reference->rows[row].count++;
                reference->rows[row].day = reference->day;
                int64_t *effective = &reference->effective[base_of(lookup, c) + j];
                const bool taken = dropped(lookup, column, r);
                *effective = (int64_t)row;
                reference->own[base_of(lookup, c) + j] = (int64_t)row;
                reference->dropped[base_of(lookup, c) + j] = taken;
                if (!taken && reference->rows[row].has_row) continue;
                *effective = -1;
                if (column->rare_key == 0) continue;
                row = find_or_add(reference, column->rare_key);
                reference_row *rare = &reference->rows[row];
                if (!rare->has_row) admit(spec, rare); /* its values are zeros */
                rare->count++;
                rare->rare = true;
                *effective = (int64_t)row;
            }
        }
    }
}

void reference_resolve(reference *reference, const ct_lookup *lookup) {
    make_room(reference, lookup);
    reference->epoch = reference->counted_epoch;
    for (size_t c = 0; c < lookup->column_count; c++) {
        const ct_key_column *column = &lookup->columns[c];
        for (size_t j = begin_of(column, 0); j < keys_of(lookup, c); j++) {
            int64_t row = find(reference, column->keys[j]);
            reference->own[base_of(lookup, c) + j] = row;
            if (row < 0 || !reference->rows[row].has_row) row = column->rare_key ? find(reference, column->rare_key) : -1;
            if (row >= 0 && !reference->rows[row].has_row) row = -1;
            reference->effective[base_of(lookup, c) + j] = row;
        }
    }
}

static float weight_of(const ct_key_column *column, size_t j) { return column->weights ? column->weights[j] : 1.0f; }

static float weight_sum(const ct_key_column *column, size_t r) {
    float sum = 0.0f;
    for (size_t j = begin_of(column, r); j < end_of(column, r); j++) sum += weight_of(column, j);
    return sum;
}

void reference_gather(const reference *reference, const ct_lookup *lookup, float *out, size_t stride) {
    for (size_t c = 0; c < lookup->column_count; c++) {
        const ct_key_column *column = &lookup->columns[c];
        for (size_t row = 0; row < lookup->rows; row++) {
            const size_t r = column->shared ? 0 : row;
            for (size_t i = 0; i < reference->spec.dim; i++) {
                float value = 0.0f;
                for (size_t j = begin_of(column, r); j < end_of(column, r); j++) {
                    const int64_t at = reference->effective[base_of(lookup, c) + j];
                    value += weight_of(column, j) * (at < 0 ? 0.0f : reference->rows[at].values[i]);
                }
                if (column->pooling == CT_POOL_MEAN && begin_of(column, r) < end_of(column, r)) {
                    const float sum = weight_sum(column, r);
                    value = sum == 0.0f ? 0.0f : value / sum;
                }
                out[row * stride + column->output_column + i] = value;
            }
        }
    }
}

void reference_gather_counts(const reference *reference, const ct_lookup *lookup, size_t c, uint32_t *out_impressions,
                             uint32_t *out_clicks) {
    const ct_key_column *column = &lookup->columns[c];
    for (size_t row = 0; row < lookup->rows; row++) {
        const size_t r = column->shared ? 0 : row;
        out_impressions[row] = out_clicks[row] = 0;
        for (size_t j = begin_of(column, r); j < end_of(column, r); j++) {
            const int64_t own = reference->own[base_of(lookup, c) + j];
            if (own < 0 || reference->dropped[base_of(lookup, c) + j] || reference->rows[own].epoch != reference->epoch) continue;
            out_impressions[row] += reference->rows[own].impressions;
            out_clicks[row] += reference->rows[own].clicks;
        }
    }
}

/* One occurrence of a key, in a batch of that epoch. */
static void count(reference_row *row, uint32_t epoch, float label) {
    if (row->epoch != epoch) row->impressions = row->clicks = 0;
    row->epoch = epoch;
    row->impressions++;
    if (label > 0.5f) row->clicks++;
}

/* The product of the squares base^(2^k) whose bit is set in the exponent, smallest first. */
static double power(double base, uint32_t exponent) {
    double product = 1.0;
    for (int bit = 0; bit < 32; bit++, base *= base)
        if (exponent >> bit & 1) product *= base;
    return product;
}

static void step(const ct_table_spec *spec, reference_row *row, float *gradient) {
    const float rate = spec->learning_rate;
    float lane[16] = {0};
    if (spec->l2 != 0.0f)
        for (uint32_t i = 0; i < spec->dim; i++) gradient[i] += spec->l2 * row->values[i];
    switch (spec->optimiser) {
        case CT_ROW_ADAGRAD_ROWWISE:
            for (uint32_t i = 0; i < spec->dim; i++) lane[i % 16] += gradient[i] * gradient[i];
            for (int width = 8; width >= 1; width /= 2)
                for (int j = 0; j < width; j++) lane[j] += lane[j + width];
            row->accumulator += lane[0] / (float)spec->dim;
            for (uint32_t i = 0; i < spec->dim; i++) row->values[i] -= rate / sqrtf(row->accumulator) * gradient[i];
            break;
        case CT_ROW_SGD:
            for (uint32_t i = 0; i < spec->dim; i++) row->values[i] -= rate * gradient[i];
            break;
        case CT_ROW_ADAGRAD:
            for (uint32_t i = 0; i < spec->dim; i++) {
                row->second[i] += gradient[i] * gradient[i];
                row->values[i] -= rate * gradient[i] / sqrtf(row->second[i]);
            }
            break;
        case CT_ROW_ADAM:
            row->updates++;
            for (uint32_t i = 0; i < spec->dim; i++) {
                const float corrected = (float)((double)rate / (1.0 - power((double)spec->beta1, row->updates)));
                const float scale = (float)(1.0 / (1.0 - power((double)spec->beta2, row->updates)));
                row->first[i] = spec->beta1 * row->first[i] + (1.0f - spec->beta1) * gradient[i];
                row->second[i] = spec->beta2 * row->second[i] + (1.0f - spec->beta2) * (gradient[i] * gradient[i]);
                row->values[i] -= corrected * row->first[i] / (sqrtf(row->second[i] * scale) + spec->epsilon);
            }
            break;
    }
}

void reference_apply(reference *reference, const ct_lookup *lookup, const float *gradients, size_t stride, const float *labels) {
    const uint32_t dim = reference->spec.dim;
    float *total = malloc(dim * sizeof(float)), *block = malloc(dim * sizeof(float));
    for (size_t k = 0; k < reference->row_count; k++) {
        bool touched = false;
        memset(total, 0, dim * sizeof(float));
        for (size_t first = 0; first < lookup->rows; first += lookup->block_rows) {
            bool here = false;
            memset(block, 0, dim * sizeof(float));
            for (size_t c = 0; c < lookup->column_count; c++) {
                const ct_key_column *column = &lookup->columns[c];
                const size_t base = base_of(lookup, c);
                for (size_t r = first; r < first + lookup->block_rows && r < lookup->rows; r++) {
                    const float sum = weight_sum(column, r);
                    for (size_t j = begin_of(column, r); j < end_of(column, r); j++) {
                        if (reference->effective[base + j] != (int64_t)k) continue;
                        float factor = weight_of(column, j);
                        if (column->pooling == CT_POOL_MEAN) factor = sum == 0.0f ? 0.0f : factor / sum;
                        for (uint32_t i = 0; i < dim; i++) block[i] += factor * gradients[r * stride + column->output_column + i];
                        here = true;
                    }
                }
            }
            if (here)
                for (uint32_t i = 0; i < dim; i++) total[i] += block[i];
            touched |= here;
        }
        if (!touched) continue;
        step(&reference->spec, &reference->rows[k], total);
        if (reference->spec.precision == CT_ROW_FP16) round_row(&reference->spec, &reference->rows[k], lookup);
    }
    free(total);
    free(block);
    if (!labels || !reference->spec.target_stats) return;
    for (size_t c = 0; c < lookup->column_count; c++)
        for (size_t r = 0; r < lookup->rows; r++)
            for (size_t j = begin_of(&lookup->columns[c], r); j < end_of(&lookup->columns[c], r); j++)
                count(&reference->rows[reference->own[base_of(lookup, c) + j]], lookup->epoch, labels[r]);
    reference->counted_epoch = lookup->epoch;
}

int64_t reference_rows(const reference *reference) {
    int64_t rows = 0;
    for (size_t i = 0; i < reference->row_count; i++) rows += reference->rows[i].has_row;
    return rows;
}

int64_t reference_stubs(const reference *reference) { return (int64_t)reference->row_count - reference_rows(reference); }
