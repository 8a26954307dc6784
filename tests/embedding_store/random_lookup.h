/* Random lookups for the store's tests: a pure function of (seed, number), so that a second run asks for the same. */
#ifndef TESTS_EMBEDDING_STORE_RANDOM_LOOKUP_H
#define TESTS_EMBEDDING_STORE_RANDOM_LOOKUP_H

#include "embedding_store/store.h"

typedef struct random_lookup_options {
    size_t rows, block_rows, columns;
    uint64_t keys; /* distinct keys of a column, about; small ones are frequent */
    bool plain;    /* one key a row, no weights, own rare keys */
    bool rare;     /* columns have rare keys; some share one */
    uint32_t dim;  /* of the table */
    double drop_rate;
    uint64_t seed;
} random_lookup_options;

/* Owns its columns. stride: of outputs and gradients; wider than the columns. */
typedef struct random_lookup {
    ct_lookup lookup;
    size_t stride;
    float *gradients; /* (rows, stride) */
    ct_key_column *columns;
} random_lookup;

void random_lookup_init(random_lookup *random, const random_lookup_options *options, uint64_t number);
void random_lookup_deinit(random_lookup *random);
/* Key `number` of a feature. Some are small numbers, 0 and the largest number: keys need not look like hashes. */
uint64_t random_key(uint64_t number);

#endif
