#include "embedding_store/optimiser.h"

#include <math.h>
#include <string.h>

#include "base/math.h"

enum { LANES = 16, AHEAD = 16 };

#define INLINE static inline __attribute__((always_inline))

/* Sixteen floats side by side. The compiler splits it into what the processor has; the bits do not depend on that. */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

INLINE void load(lanes *to, const float *from, size_t n) {
    if (n == LANES) {
        memcpy(to, from, sizeof *to);
    } else {
        float padded[LANES] = {0};
        memcpy(padded, from, n * sizeof(float));
        memcpy(to, padded, sizeof *to);
    }
}

INLINE void store(float *to, const lanes *from, size_t n) {
    if (n == LANES)
        memcpy(to, from, sizeof *from);
    else
        memcpy(to, from, n * sizeof(float));
}

/* Elements [at, at + n) of the gradient of a row: the two sums of the legend. n lanes count, the others are zero. */
INLINE void sum(const ct_gradients *g, const ct_occurrence *o, size_t count, size_t at, size_t n, lanes *out) {
    const float *values = g->values + at;
    lanes total = {0}, block = {0}, one;
    size_t block_end = count > 1 ? (size_t)(o[0].row / g->block_rows + 1) * g->block_rows : SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) {
            const ct_occurrence *later = &o[i + AHEAD];
            __builtin_prefetch(values + later->row * g->stride + g->output_column[later->column]);
        }
        if (o[i].row >= block_end) {
            total += block;
            block = (lanes){0};
            block_end = (size_t)(o[i].row / g->block_rows + 1) * g->block_rows;
        }
        load(&one, values + o[i].row * g->stride + g->output_column[o[i].column], n);
        if (g->factors) one *= g->factors[o[i].order];
        block += one;
    }
    *out = total + block;
}

INLINE float fold(const lanes *squares) {
    float lane[LANES];
    memcpy(lane, squares, sizeof lane);
    for (size_t width = LANES / 2; width; width /= 2)
        for (size_t j = 0; j < width; j++) lane[j] += lane[j + width];
    return lane[0];
}

INLINE void step(const ct_table_spec *spec, float *row, float *accumulator, const lanes *gradient, size_t dim) {
    lanes squares = {0}, values;
    for (size_t at = 0; at < dim; at += LANES) squares += gradient[at / LANES] * gradient[at / LANES];
    *accumulator += fold(&squares) / (float)dim;
    const float rate = spec->learning_rate / sqrtf(*accumulator);
    for (size_t at = 0; at < dim; at += LANES) {
        const size_t n = dim - at < LANES ? dim - at : LANES;
        load(&values, row + at, n);
        values -= gradient[at / LANES] * rate;
        store(row + at, &values, n);
    }
}

INLINE void steps(const ct_table_spec *spec, const ct_gradients *g, const ct_unique *uniques, size_t count, const ct_occurrence *list,
                  size_t begin, const ct_slab *values, const ct_slab *state, size_t dim, lanes *gradient) {
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count && uniques[i + AHEAD].row != CT_NO_ROW) {
            const ct_unique *later = &uniques[i + AHEAD];
            __builtin_prefetch(ct_slab_at(values, later->row), 1);
            __builtin_prefetch(ct_slab_at(state, later->row), 1);
            const ct_occurrence *o = &list[uniques[i + AHEAD - 1].end]; /* of the last one: perhaps behind the list's end, then unread */
            if (later->end > uniques[i + AHEAD - 1].end) __builtin_prefetch(g->values + o->row * g->stride + g->output_column[o->column]);
        }
        const size_t end = uniques[i].end, n = end - begin;
        if (n && uniques[i].row != CT_NO_ROW) {
            for (size_t at = 0; at < dim; at += LANES)
                sum(g, &list[begin], n, at, dim - at < LANES ? dim - at : LANES, &gradient[at / LANES]);
            step(spec, ct_slab_at(values, uniques[i].row), ct_slab_at(state, uniques[i].row), gradient, dim);
        }
        begin = end;
    }
}

#define ARGUMENTS                                                                                                                      \
    const ct_table_spec *spec, const ct_gradients *g, const ct_unique *uniques, size_t count, const ct_occurrence *list, size_t begin, \
        const ct_slab *values, const ct_slab *state

CT_HOT static void steps_8(ARGUMENTS) {
    lanes gradient[1];
    steps(spec, g, uniques, count, list, begin, values, state, 8, gradient);
}

CT_HOT static void steps_16(ARGUMENTS) {
    lanes gradient[1];
    steps(spec, g, uniques, count, list, begin, values, state, 16, gradient);
}

CT_HOT static void steps_32(ARGUMENTS) {
    lanes gradient[2];
    steps(spec, g, uniques, count, list, begin, values, state, 32, gradient);
}

CT_HOT static void steps_any(ARGUMENTS) {
    lanes gradient[CT_TABLE_MAX_DIM / LANES];
    steps(spec, g, uniques, count, list, begin, values, state, spec->dim, gradient);
}

void ct_adagrad_rowwise(const ct_table_spec *spec, const ct_gradients *g, const ct_unique *uniques, size_t count, const ct_occurrence *list,
                        size_t begin, const ct_slab *values, const ct_slab *state) {
    switch (spec->dim) {
        case 8:
            steps_8(spec, g, uniques, count, list, begin, values, state);
            break;
        case 16:
            steps_16(spec, g, uniques, count, list, begin, values, state);
            break;
        case 32:
            steps_32(spec, g, uniques, count, list, begin, values, state);
            break;
        default:
            steps_any(spec, g, uniques, count, list, begin, values, state);
            break;
    }
}
