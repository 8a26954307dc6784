/* Row optimisers: from the gradients of a batch's occurrences to one step of each row. Internal to the store.
 *
 * Legend: g_o gradient of occurrence o (dim floats: its part of the gradient matrix, times its factor; see ct_gradients); G gradient of the
 * row; v its values; lr learning rate.
 *
 *     block sum = ((0 + g_1) + g_2) + ...           over the occurrences in one block of rows, in order
 *     G         = ((0 + block 1) + block 2) + ...   over the blocks that have any, in order
 *     G_i      += l2 * v_i                          where l2 is not 0
 *
 * Row-wise Adagrad, state a (1):
 *     mean      = (sum of G_i^2) / dim              16 lanes: lane j = sum of G_i^2 with i mod 16 = j, in order; then lanes j and j + 8 are
 *                                                   added, then j and j + 4, j + 2, j + 1
 *     a        += mean;   v_i -= (lr / sqrt(a)) * G_i
 * SGD, no state:
 *     v_i      -= lr * G_i
 * Adagrad (Duchi, Hazan, Singer 2011), state a (dim):
 *     a_i      += G_i * G_i;   v_i -= (lr * G_i) / sqrt(a_i)
 * Adam (Kingma and Ba 2015, algorithm 1) with the row's own time, state m (dim), s (dim), t (1, u32, stays at its largest):
 *     t        += 1
 *     m_i       = beta1 * m_i + (1 - beta1) * G_i
 *     s_i       = beta2 * s_i + (1 - beta2) * (G_i * G_i)
 *     v_i      -= (rate * m_i) / (sqrt(s_i * scale) + epsilon)
 *     rate      = lr / (1 - beta1^t) and scale = 1 / (1 - beta2^t), in double, then rounded to float; powers by repeated squaring
 *
 * Where the table's rows are halves, v is what they say, and what comes out is rounded by ct_half_of: element i of key k takes 13 bits of
 * half i mod 2 of word (i mod 8) / 2 of ct_random(seed, CT_PLACE_ROUNDING, epoch, k, i / 8), seed = ct_hash64 of the batch's first row (8
 * bytes, as a number), seeded by the table's seed.
 *
 * Everything else is one float operation after the other, so the bits are the same whatever the instruction set. */
#ifndef EMBEDDING_STORE_OPTIMISER_H
#define EMBEDDING_STORE_OPTIMISER_H

#include "embedding_store/table.h"

typedef struct ct_occurrence {
    uint32_t order;  /* its number in the batch */
    uint32_t row;    /* of the batch */
    uint32_t column; /* of the lookup; the top bit says that id drop took it */
} ct_occurrence;

#define CT_OCCURRENCE_DROPPED (UINT32_C(1) << 31)

typedef struct ct_unique {
    uint64_t key;
    uint32_t end;    /* of its occurrences in the partition's list; they begin where the unique's before it end */
    uint32_t count;  /* occurrences, with those that id drop took */
    uint32_t row;    /* of its partition; CT_NO_ROW = none yet */
    uint32_t clicks; /* of its occurrences; set and used by apply only */
} ct_unique;

typedef struct ct_gradients {
    const float *values; /* (rows, stride) */
    size_t stride;
    const uint32_t *output_column; /* by the lookup's column */
    const float *factors;          /* by order; NULL = all 1 */
    /* of columns pooled by attention (attention.c): an occurrence's gradient is its factor times its part of the matrix, and its slope
     * times the query of its row */
    const uint32_t *attended; /* by the lookup's column: which of them, from 1; 0 = none; NULL = there is none */
    const float *slopes;      /* by order */
    const float *queries;     /* (those columns, query_rows, query_stride) */
    size_t query_rows, query_stride;
    uint32_t block_rows;
    uint64_t rounding_seed; /* where rows are halves */
    uint32_t epoch;
} ct_gradients;

/* Steps each unique that has a row and occurrences, by the table's optimiser. `first`: where the first unique's occurrences begin in list.
 * `state`: records of ct_state_floats(spec). */
void ct_optimiser_step(const ct_table_spec *spec, const ct_gradients *gradients, const ct_unique *uniques, size_t count,
                       const ct_occurrence *list, size_t first, const ct_slab *values, const ct_slab *state);

/* The columns of a row's state, in the order in which they stand in its record; their names are those in store.json. */
enum { CT_STATE_COLUMNS = 3 };
typedef struct ct_state_column {
    const char *name, *type; /* "f32" or "u32", whose bits take the place of a float */
    uint32_t count;
    float initial; /* of each f32; u32 begin at 0 */
} ct_state_column;
/* Returns how many there are. Frozen tables have none. */
size_t ct_state_columns(const ct_table_spec *spec, ct_state_column out_columns[CT_STATE_COLUMNS]);
uint32_t ct_state_floats(const ct_table_spec *spec);
void ct_state_set_first(const ct_table_spec *spec, float *state);

#endif
