/* The embedding store as the header's text has it, in plain arrays and plain loops: what the tests compare with, bit for bit. One table;
 * no threads, no partitions, no speed. */
#ifndef TESTS_EMBEDDING_STORE_REFERENCE_H
#define TESTS_EMBEDDING_STORE_REFERENCE_H

#include "embedding_store/store.h"

typedef struct reference_row {
    uint64_t key;
    uint32_t count;
    bool has_row;
    float accumulator;
    float *values; /* (dim) */
} reference_row;

typedef struct reference {
    ct_table_spec spec;
    reference_row *rows;
    size_t row_count;
    int64_t *effective; /* by occurrence, in (column, row, value) order: the row that it reads and trains; -1 = none */
} reference;

void reference_init(reference *reference, const ct_table_spec *spec);
void reference_deinit(reference *reference);
/* Counts, admits and resolves a training batch. */
void reference_acquire(reference *reference, const ct_lookup *lookup);
/* Resolves without changing anything. */
void reference_resolve(reference *reference, const ct_lookup *lookup);
/* All rows of the batch that was acquired or resolved last; out: (rows, stride). */
void reference_gather(const reference *reference, const ct_lookup *lookup, float *out, size_t stride);
void reference_apply(reference *reference, const ct_lookup *lookup, const float *gradients, size_t stride);
int64_t reference_rows(const reference *reference);
int64_t reference_stubs(const reference *reference);

#endif
