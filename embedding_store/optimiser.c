#include "embedding_store/optimiser.h"

#include <math.h>
#include <string.h>

#include "base/math.h"
#include "base/random.h"
#include "embedding_store/half.h"

enum { LANES = 16, AHEAD = 32 };

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
    lanes total = {0}, block = {0}, one, query;
    size_t block_end = count > 1 ? (size_t)(o[0].row / g->block_rows + 1) * g->block_rows : SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) {
            const ct_occurrence *later = &o[i + AHEAD];
            ct_prefetch(values + later->row * g->stride + g->output_column[later->column]);
        }
        if (o[i].row >= block_end) {
            total += block;
            block = (lanes){0};
            block_end = (size_t)(o[i].row / g->block_rows + 1) * g->block_rows;
        }
        load(&one, values + o[i].row * g->stride + g->output_column[o[i].column], n);
        if (g->factors) one *= g->factors[o[i].order];
        if (g->attended && g->attended[o[i].column]) {
            load(&query, g->queries + ((g->attended[o[i].column] - 1) * g->query_rows + o[i].row) * g->query_stride + at, n);
            one += query * g->slopes[o[i].order];
        }
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

INLINE void square_roots(const lanes *x, lanes *out) {
    float lane[LANES];
    memcpy(lane, x, sizeof lane);
    for (size_t j = 0; j < LANES; j++) lane[j] = sqrtf(lane[j]);
    memcpy(out, lane, sizeof lane);
}

/* base^exponent for a base in [0, 1). What is below 2^-64 is 0: nothing beside the 1 that it is taken from, and no slow tiny numbers. */
static double power(double base, uint32_t exponent) {
    double result = 1.0;
    for (; exponent; exponent >>= 1, base *= base) {
        if (base < 0x1p-64) return 0.0;
        if (exponent & 1) result *= base;
    }
    return result;
}

/* --- the steps of the legend: of one row, whose gradient G is in lanes; lanes behind dim are zero --- */

#define STEP_ARGUMENTS const ct_table_spec *spec, float *row, float *state, const lanes *gradient, size_t dim
/* at: 0, LANES, ...; n: how many of the floats from there on belong to the row */
#define FOR_LANES for (size_t at = 0, n = 0; n = dim - at < LANES ? dim - at : LANES, at < dim; at += LANES)

INLINE void step_adagrad_rowwise(STEP_ARGUMENTS) {
    lanes squares = {0}, values;
    for (size_t at = 0; at < dim; at += LANES) squares += gradient[at / LANES] * gradient[at / LANES];
    *state += fold(&squares) / (float)dim;
    const float rate = spec->learning_rate / sqrtf(*state);
    FOR_LANES {
        load(&values, row + at, n);
        values -= gradient[at / LANES] * rate;
        store(row + at, &values, n);
    }
}

INLINE void step_sgd(STEP_ARGUMENTS) {
    (void)state;
    lanes values;
    FOR_LANES {
        load(&values, row + at, n);
        values -= gradient[at / LANES] * spec->learning_rate;
        store(row + at, &values, n);
    }
}

INLINE void step_adagrad(STEP_ARGUMENTS) {
    lanes values, sums;
    FOR_LANES {
        const lanes *g = &gradient[at / LANES];
        load(&sums, state + at, n);
        sums += *g * *g;
        store(state + at, &sums, n);
        load(&values, row + at, n);
        square_roots(&sums, &sums);
        values -= *g * spec->learning_rate / sums;
        store(row + at, &values, n);
    }
}

INLINE void step_adam(STEP_ARGUMENTS) {
    uint32_t time;
    memcpy(&time, state + 2 * dim, sizeof time);
    if (time < UINT32_MAX) time++;
    memcpy(state + 2 * dim, &time, sizeof time);
    const float rate = (float)((double)spec->learning_rate / (1.0 - power((double)spec->beta1, time)));
    const float scale = (float)(1.0 / (1.0 - power((double)spec->beta2, time)));
    lanes values, first, second;
    FOR_LANES {
        const lanes *g = &gradient[at / LANES];
        load(&first, state + at, n);
        load(&second, state + dim + at, n);
        first = first * spec->beta1 + *g * (1.0f - spec->beta1);
        second = second * spec->beta2 + *g * *g * (1.0f - spec->beta2);
        store(state + at, &first, n);
        store(state + dim + at, &second, n);
        load(&values, row + at, n);
        second *= scale;
        square_roots(&second, &second);
        values -= first * rate / (second + spec->epsilon);
        store(row + at, &values, n);
    }
}

INLINE void step(ct_row_optimiser optimiser, STEP_ARGUMENTS) {
    switch (optimiser) {
        case CT_ROW_ADAGRAD_ROWWISE:
            step_adagrad_rowwise(spec, row, state, gradient, dim);
            break;
        case CT_ROW_SGD:
            step_sgd(spec, row, state, gradient, dim);
            break;
        case CT_ROW_ADAGRAD:
            step_adagrad(spec, row, state, gradient, dim);
            break;
        case CT_ROW_ADAM:
            step_adam(spec, row, state, gradient, dim);
            break;
    }
}

INLINE void decay(float l2, const float *row, lanes *gradient, size_t dim) {
    lanes values;
    FOR_LANES {
        load(&values, row + at, n);
        gradient[at / LANES] += values * l2;
    }
}

/* --- rows of halves --- */

INLINE void decode_row(const uint16_t *halves, float *row, size_t dim) {
    for (size_t i = 0; i < dim; i++) row[i] = ct_half_to_float(halves[i]);
}

INLINE void encode_row(const float *row, uint16_t *halves, size_t dim, const ct_gradients *g, uint64_t key) {
    enum { MASK = (1 << 13) - 1, AT_ONCE = 8 };
    for (size_t i = 0; i < dim; i += AT_ONCE) {
        const ct_random4 random = ct_random(g->rounding_seed, CT_PLACE_ROUNDING, g->epoch, key, (uint32_t)(i / AT_ONCE));
        for (size_t j = i; j < dim && j < i + AT_ONCE; j++) halves[j] = ct_half_of(row[j], random.word[(j - i) / 2] >> (j % 2 * 16) & MASK);
    }
}

/* --- all rows of a partition; optimiser, dim and whether there is a buffer (for rows of halves) are constants of each caller --- */

INLINE void prefetch_record(const float *record, size_t floats) {
    for (size_t i = 0; i < floats; i += LANES) ct_prefetch(record + i);
}

INLINE void steps(ct_row_optimiser optimiser, const ct_table_spec *spec, const ct_gradients *g, const ct_unique *uniques, size_t count,
                  const ct_occurrence *list, size_t begin, const ct_slab *values, const ct_slab *state, size_t dim, lanes *gradient,
                  float *buffer) {
    const float l2 = spec->l2;
    const bool adagrad_rowwise = optimiser == CT_ROW_ADAGRAD_ROWWISE, stateless = optimiser == CT_ROW_SGD;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count && uniques[i + AHEAD].row != CT_NO_ROW) {
            const ct_unique *later = &uniques[i + AHEAD];
            ct_prefetch(ct_slab_at(values, later->row));
            if (!stateless) prefetch_record(ct_slab_at(state, later->row), adagrad_rowwise ? 1 : state->floats);
            const ct_occurrence *o = &list[uniques[i + AHEAD - 1].end]; /* of the last one: perhaps behind the list's end, then unread */
            if (later->end > uniques[i + AHEAD - 1].end) ct_prefetch(g->values + o->row * g->stride + g->output_column[o->column]);
        }
        const size_t end = uniques[i].end, n = end - begin;
        if (n && uniques[i].row != CT_NO_ROW) {
            float *stored = ct_slab_at(values, uniques[i].row), *row = buffer ? buffer : stored;
            if (buffer) decode_row((const uint16_t *)(const void *)stored, row, dim);
            for (size_t at = 0; at < dim; at += LANES)
                sum(g, &list[begin], n, at, dim - at < LANES ? dim - at : LANES, &gradient[at / LANES]);
            if (l2 != 0.0f) decay(l2, row, gradient, dim);
            step(optimiser, spec, row, stateless ? NULL : ct_slab_at(state, uniques[i].row), gradient, dim);
            if (buffer) encode_row(row, (uint16_t *)(void *)stored, dim, g, uniques[i].key);
        }
        begin = end;
    }
}

#define ARGUMENTS                                                                                                                      \
    const ct_table_spec *spec, const ct_gradients *g, const ct_unique *uniques, size_t count, const ct_occurrence *list, size_t begin, \
        const ct_slab *values, const ct_slab *state

#define STEPS(name, optimiser, constant_dim, most_dim)                                                       \
    CT_HOT static void name(ARGUMENTS) {                                                                     \
        lanes gradient[((most_dim) + LANES - 1) / LANES];                                                    \
        steps(optimiser, spec, g, uniques, count, list, begin, values, state, constant_dim, gradient, NULL); \
    }

#define HALF_STEPS(name, optimiser)                                                                         \
    CT_HOT static void name(ARGUMENTS) {                                                                    \
        lanes gradient[CT_TABLE_MAX_DIM / LANES];                                                           \
        float buffer[CT_TABLE_MAX_DIM];                                                                     \
        steps(optimiser, spec, g, uniques, count, list, begin, values, state, spec->dim, gradient, buffer); \
    }

#define OPTIMISER(name, optimiser)                                               \
    STEPS(name##_8, optimiser, 8, 8)                                             \
    STEPS(name##_16, optimiser, 16, 16)                                          \
    STEPS(name##_32, optimiser, 32, 32)                                          \
    STEPS(name##_any, optimiser, spec->dim, CT_TABLE_MAX_DIM)                    \
    HALF_STEPS(name##_half, optimiser)                                           \
    static void name(ARGUMENTS) {                                                \
        if (spec->precision == CT_ROW_FP16) {                                    \
            name##_half(spec, g, uniques, count, list, begin, values, state);    \
            return;                                                              \
        }                                                                        \
        switch (spec->dim) {                                                     \
            case 8:                                                              \
                name##_8(spec, g, uniques, count, list, begin, values, state);   \
                break;                                                           \
            case 16:                                                             \
                name##_16(spec, g, uniques, count, list, begin, values, state);  \
                break;                                                           \
            case 32:                                                             \
                name##_32(spec, g, uniques, count, list, begin, values, state);  \
                break;                                                           \
            default:                                                             \
                name##_any(spec, g, uniques, count, list, begin, values, state); \
                break;                                                           \
        }                                                                        \
    }

OPTIMISER(adagrad_rowwise, CT_ROW_ADAGRAD_ROWWISE)
OPTIMISER(sgd, CT_ROW_SGD)
OPTIMISER(adagrad, CT_ROW_ADAGRAD)
OPTIMISER(adam, CT_ROW_ADAM)

void ct_optimiser_step(const ct_table_spec *spec, const ct_gradients *g, const ct_unique *uniques, size_t count, const ct_occurrence *list,
                       size_t begin, const ct_slab *values, const ct_slab *state) {
    switch (spec->optimiser) {
        case CT_ROW_ADAGRAD_ROWWISE:
            adagrad_rowwise(spec, g, uniques, count, list, begin, values, state);
            break;
        case CT_ROW_SGD:
            sgd(spec, g, uniques, count, list, begin, values, state);
            break;
        case CT_ROW_ADAGRAD:
            adagrad(spec, g, uniques, count, list, begin, values, state);
            break;
        case CT_ROW_ADAM:
            adam(spec, g, uniques, count, list, begin, values, state);
            break;
    }
}

/* --- names and state --- */

static const char *const NAMES[] = {
    [CT_ROW_ADAGRAD_ROWWISE] = "adagrad_rowwise", [CT_ROW_SGD] = "sgd", [CT_ROW_ADAGRAD] = "adagrad", [CT_ROW_ADAM] = "adam"};

enum { NAME_COUNT = sizeof NAMES / sizeof *NAMES };

const char *ct_row_optimiser_name(ct_row_optimiser optimiser) { return (size_t)optimiser < NAME_COUNT ? NAMES[optimiser] : NULL; }

bool ct_row_optimiser_find(const char *name, ct_row_optimiser *out_optimiser) {
    for (size_t i = 0; i < NAME_COUNT; i++) {
        if (strcmp(name, NAMES[i]) != 0) continue;
        *out_optimiser = (ct_row_optimiser)i;
        return true;
    }
    return false;
}

size_t ct_state_columns(const ct_table_spec *spec, ct_state_column out_columns[CT_STATE_COLUMNS]) {
    if (spec->kind != CT_TABLE_TRAINED) return 0;
    switch (spec->optimiser) {
        case CT_ROW_ADAGRAD_ROWWISE:
            out_columns[0] = (ct_state_column){"accumulator", "f32", 1, spec->initial_accumulator};
            return 1;
        case CT_ROW_ADAGRAD:
            out_columns[0] = (ct_state_column){"accumulator", "f32", spec->dim, spec->initial_accumulator};
            return 1;
        case CT_ROW_ADAM:
            out_columns[0] = (ct_state_column){"first_moment", "f32", spec->dim, 0.0f};
            out_columns[1] = (ct_state_column){"second_moment", "f32", spec->dim, 0.0f};
            out_columns[2] = (ct_state_column){"updates", "u32", 1, 0.0f};
            return 3;
        case CT_ROW_SGD:
            break;
    }
    return 0;
}

uint32_t ct_state_floats(const ct_table_spec *spec) {
    ct_state_column columns[CT_STATE_COLUMNS];
    uint32_t floats = 0;
    for (size_t i = ct_state_columns(spec, columns); i > 0; i--) floats += columns[i - 1].count;
    return floats;
}

void ct_state_set_first(const ct_table_spec *spec, float *state) {
    ct_state_column columns[CT_STATE_COLUMNS];
    const size_t count = ct_state_columns(spec, columns);
    for (size_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < columns[i].count; j++) *state++ = columns[i].initial; /* the bits of 0.0f are those of a u32 0 */
}
