/* Row optimisers: from the gradients of a batch's occurrences to one step of each row. Internal to the store.
 *
 * Legend: g_o gradient of occurrence o (dim floats: its part of the gradient matrix, times its factor); G gradient of the row; a the row's
 * accumulator; v its values.
 *
 *     block sum = ((0 + g_1) + g_2) + ...           over the occurrences in one block of rows, in order
 *     G         = ((0 + block 1) + block 2) + ...   over the blocks that have any, in order
 *     mean      = (sum of G_i^2) / dim              16 lanes: lane j = sum of G_i^2 with i mod 16 = j, in order; then lanes j and j + 8 are
 *                                                   added, then j and j + 4, j + 2, j + 1
 *     a        += mean;   v_i -= (lr / sqrt(a)) * G_i
 *
 * Every operation is one float operation, so the bits are the same whatever the instruction set. */
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
    uint32_t end;   /* of its occurrences in the partition's list; they begin where the unique's before it end */
    uint32_t count; /* occurrences, with those that id drop took */
    uint32_t row;   /* of its partition; CT_NO_ROW = none yet */
    uint32_t unused;
} ct_unique;

typedef struct ct_gradients {
    const float *values; /* (rows, stride) */
    size_t stride;
    const uint32_t *output_column; /* by the lookup's column */
    const float *factors;          /* by order; NULL = all 1 */
    uint32_t block_rows;
} ct_gradients;

/* Row-wise Adagrad: one step for each unique that has a row and occurrences. `first`: where the first unique's occurrences begin in list.
 * `state`: one float a row. */
void ct_adagrad_rowwise(const ct_table_spec *spec, const ct_gradients *gradients, const ct_unique *uniques, size_t count,
                        const ct_occurrence *list, size_t first, const ct_slab *values, const ct_slab *state);

#endif
