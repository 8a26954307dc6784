/* Attention of a row's query over the keys of a column (Vaswani et al. 2017, section 3.2.1; of a candidate over a user's history: Zhou et
 * al. 2018, "Deep Interest Network"), with the rows of the table for queries, keys and values alike, so that it has no weights of its own.
 *
 * Legend: q the query's row; k_i the rows of the column's n keys, in order; c how many of a row's floats are compared; g gradient of out.
 *
 *     s_i = <q, k_i> / sqrt(c)     a_i = exp(s_i - max s) / sum_j exp(s_j - max s)     out = sum_i a_i k_i     (n = 0: zeros)
 *     p_i = <g, k_i>               t_i = a_i (p_i - sum_j a_j p_j) / sqrt(c)
 *     d q = sum_i t_i k_i          d k_i = a_i g + t_i q                               (of q and t_i k_i the first c floats, else 0)
 *
 * A dot product is summed in 16 lanes, which are then added in a fixed tree; all other sums are in order, so the bits do not depend on the
 * instruction set, on threads, nor on whether the keys are shared. Weights are worked out again on the way back: that costs a product each,
 * and nothing has to be kept between gather and the gradients. What apply needs of a key is a_i and t_i (the occurrence's two factors), and
 * q as it was before the step. */
#include <math.h>
#include <string.h>

#include "base/math.h"
#include "embedding_store/half.h"
#include "embedding_store/store_internal.h"

enum { LANES = 16, AHEAD = 8 };

#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* n floats from a stored row's float `at` on, zeros behind them. */
INLINE void load(lanes *to, const float *row, size_t at, size_t n, bool half) {
    float padded[LANES] = {0};
    if (half) {
        const uint16_t *halves = (const uint16_t *)(const void *)row + at;
        for (size_t i = 0; i < n; i++) padded[i] = ct_half_to_float(halves[i]);
        memcpy(to, padded, sizeof *to);
    } else if (n == LANES) {
        memcpy(to, row + at, sizeof *to);
    } else {
        memcpy(padded, row + at, n * sizeof(float));
        memcpy(to, padded, sizeof *to);
    }
}

INLINE size_t lanes_left(size_t at, size_t count) { return count - at < LANES ? count - at : LANES; }

/* a: (count), not a stored row. */
INLINE float dot(const float *a, const float *row, size_t count, bool half) {
    lanes sum = {0}, x, y;
    float lane[LANES];
    for (size_t at = 0; at < count; at += LANES) {
        load(&x, a, at, lanes_left(at, count), false);
        load(&y, row, at, lanes_left(at, count), half);
        sum += x * y;
    }
    memcpy(lane, &sum, sizeof lane);
    for (size_t width = LANES / 2; width; width /= 2)
        for (size_t j = 0; j < width; j++) lane[j] += lane[j + width];
    return lane[0];
}

/* out (count) += sum of factors_i row_i, from the first on. */
INLINE void add_rows(const float *const *rows, const float *factors, size_t n, size_t count, bool half, float *out) {
    for (size_t at = 0; at < count; at += LANES) {
        const size_t left = lanes_left(at, count);
        lanes sum, one;
        load(&sum, out, at, left, false);
        for (size_t i = 0; i < n; i++) {
            load(&one, rows[i], at, left, half);
            sum += one * factors[i];
        }
        memcpy(out + at, &sum, left * sizeof(float));
    }
}

/* One row's keys and query. */
typedef struct attention {
    const float *const *rows; /* (n) */
    size_t n;
    float query[CT_TABLE_MAX_DIM]; /* its first `compared` floats */
    size_t compared, dim;
    float scale; /* 1 / sqrt(compared) */
} attention;

INLINE void weigh(const attention *a, bool half, float *out_weights) {
    double exps[CT_ATTENTION_MAX_VALUES], sum = 0;
    float most = -INFINITY;
    for (size_t i = 0; i < a->n; i++) {
        if (i + AHEAD < a->n) __builtin_prefetch(a->rows[i + AHEAD]);
        out_weights[i] = dot(a->query, a->rows[i], a->compared, half) * a->scale;
        if (out_weights[i] > most) most = out_weights[i];
    }
    for (size_t i = 0; i < a->n; i++) sum += exps[i] = ct_exp((double)(out_weights[i] - most));
    for (size_t i = 0; i < a->n; i++) out_weights[i] = (float)(exps[i] / sum);
}

INLINE void forward(const attention *a, bool half, float *out) {
    float weights[CT_ATTENTION_MAX_VALUES];
    memset(out, 0, a->dim * sizeof *out);
    if (a->n == 0) return;
    weigh(a, half, weights);
    add_rows(a->rows, weights, a->n, a->dim, half, out);
}

/* out_weights, out_slopes: (n), a and t; the query's gradient is added to query_gradient (compared). */
INLINE void backward(const attention *a, bool half, const float *gradient, float *out_weights, float *out_slopes, float *query_gradient) {
    float mean = 0;
    if (a->n == 0) return;
    weigh(a, half, out_weights);
    for (size_t i = 0; i < a->n; i++) {
        out_slopes[i] = dot(gradient, a->rows[i], a->dim, half);
        mean += out_weights[i] * out_slopes[i];
    }
    for (size_t i = 0; i < a->n; i++) out_slopes[i] = out_weights[i] * (out_slopes[i] - mean) * a->scale;
    add_rows(a->rows, out_slopes, a->n, a->compared, half, query_gradient);
}

CT_HOT static void forward_floats(const attention *a, float *out) { forward(a, false, out); }
CT_HOT static void forward_halves(const attention *a, float *out) { forward(a, true, out); }
CT_HOT static void backward_floats(const attention *a, const float *gradient, float *weights, float *slopes, float *query_gradient) {
    backward(a, false, gradient, weights, slopes, query_gradient);
}
CT_HOT static void backward_halves(const attention *a, const float *gradient, float *weights, float *slopes, float *query_gradient) {
    backward(a, true, gradient, weights, slopes, query_gradient);
}

/* Number of a column's first occurrence in a row of a block. */
static size_t order_of(const ct_ticket *ticket, size_t number, size_t row) {
    const ct_key_column *column = &ticket->lookup.columns[number];
    const size_t block = row / ticket->block_rows, first = block * ticket->block_rows;
    if (column->shared) return ticket->shared_start[number];
    return ticket->starts[block * ticket->lookup.column_count + number] +
           (column->offsets ? column->offsets[row] - column->offsets[first] : row - first);
}

static void attention_of(const ct_ticket *ticket, size_t number, size_t row, attention *a) {
    const ct_key_column *column = &ticket->lookup.columns[number];
    const ct_table_spec *spec = &ticket->table->spec;
    const size_t at = column->shared ? 0 : row;
    const float *query = ticket->tokens[order_of(ticket, column->query, row)];
    a->rows = &ticket->tokens[order_of(ticket, number, row)];
    a->n = column->offsets[at + 1] - column->offsets[at];
    a->compared = column->compared;
    a->dim = spec->dim;
    a->scale = 1.0f / sqrtf((float)column->compared);
    if (spec->precision == CT_ROW_FP16)
        for (size_t i = 0; i < a->compared; i++) a->query[i] = ct_half_to_float(((const uint16_t *)(const void *)query)[i]);
    else
        memcpy(a->query, query, a->compared * sizeof *query);
}

void ct_attend(const ct_ticket *ticket, size_t number, size_t first_row, size_t rows, float *out, size_t stride) {
    const ct_key_column *column = &ticket->lookup.columns[number];
    const bool half = ticket->table->spec.precision == CT_ROW_FP16;
    attention a;
    for (size_t row = first_row; row < first_row + rows; row++, out += stride) {
        attention_of(ticket, number, row, &a);
        (half ? forward_halves : forward_floats)(&a, out + column->output_column);
    }
}

void ct_store_attend_back(const ct_store *store, const ct_ticket *ticket, size_t first_row, size_t rows, float *gradients, size_t stride) {
    (void)store;
    const bool half = ticket->table->spec.precision == CT_ROW_FP16;
    attention a;
    for (size_t number = 0; ticket->attends && number < ticket->lookup.column_count; number++) {
        const ct_key_column *column = &ticket->lookup.columns[number];
        if (column->pooling != CT_POOL_ATTENTION) continue;
        float *kept = ticket->queries + (size_t)(ticket->attended[number] - 1) * ticket->lookup.rows * ticket->query_stride;
        const size_t query_column = ticket->lookup.columns[column->query].output_column;
        float *gradient = gradients;
        for (size_t row = first_row; row < first_row + rows; row++, gradient += stride) {
            const size_t order = order_of(ticket, number, row);
            attention_of(ticket, number, row, &a);
            (half ? backward_halves : backward_floats)(&a, gradient + column->output_column, &ticket->factors[order],
                                                       &ticket->slopes[order], gradient + query_column);
            float *query = kept + row * ticket->query_stride;
            memset(query, 0, ticket->query_stride * sizeof *query);
            memcpy(query, a.query, a.compared * sizeof *query);
        }
    }
}
