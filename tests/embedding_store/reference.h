/* The embedding store as the header's text has it, in plain arrays and plain loops: what the tests compare with, bit for bit. One table;
 * no threads, no partitions, no speed. */
#ifndef TESTS_EMBEDDING_STORE_REFERENCE_H
#define TESTS_EMBEDDING_STORE_REFERENCE_H

#include "embedding_store/store.h"

typedef struct reference_row {
    uint64_t key;
    uint32_t count;
    bool has_row;
    float accumulator;     /* row-wise Adagrad's */
    float *values;         /* (dim) */
    float *first, *second; /* (dim): Adam's moments; Adagrad's sums are `second` */
    uint32_t updates;      /* Adam's */
    uint32_t impressions, clicks, epoch;
    uint32_t day; /* last seen */
    bool rare;
} reference_row;

typedef struct reference {
    ct_table_spec spec;
    reference_row *rows;
    size_t row_count;
    int64_t *effective; /* by occurrence, in (column, row, value) order: the row that it reads and trains; -1 = none */
    int64_t *own;       /* by occurrence: its own key's row or stub; -1 = none */
    bool *dropped;      /* by occurrence */
    uint32_t epoch;     /* that reading counts belong to: of the last batch that was acquired, or the last that was counted */
    uint32_t counted_epoch;
    uint32_t day;    /* the latest of all training batches */
    int64_t expired; /* rows */
} reference;

/* Rounded to a half by `random`, 0 .. 8191; 4096 = to the nearest, the larger one where both are as near. */
float reference_round_half(float value, uint32_t random);
void reference_init(reference *reference, const ct_table_spec *spec);
void reference_deinit(reference *reference);
/* Counts, admits and resolves a training batch. */
void reference_acquire(reference *reference, const ct_lookup *lookup);
/* Resolves without changing anything. */
void reference_resolve(reference *reference, const ct_lookup *lookup);
/* All rows of the batch that was acquired or resolved last; out: (rows, stride). */
void reference_gather(const reference *reference, const ct_lookup *lookup, float *out, size_t stride);
/* Of all rows of the batch that was acquired or resolved last; outputs: (rows). */
void reference_gather_counts(const reference *reference, const ct_lookup *lookup, size_t column, uint32_t *out_impressions,
                             uint32_t *out_clicks);
/* labels: (rows), or NULL. */
void reference_apply(reference *reference, const ct_lookup *lookup, const float *gradients, size_t stride, const float *labels);
int64_t reference_rows(const reference *reference);
int64_t reference_stubs(const reference *reference);

#endif
