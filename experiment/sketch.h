/* How many distinct keys there are, without keeping them: HyperLogLog (Flajolet, Fusy, Gandouet and Meunier, 2007) with 4,096 registers, so
 * with a standard error of 1.04 / sqrt(4096) = 1.6 %. Keys must be hashes; the result depends on the set of keys alone. */
#ifndef EXPERIMENT_SKETCH_H
#define EXPERIMENT_SKETCH_H

#include <stdint.h>

enum { CT_SKETCH_BITS = 12, CT_SKETCH_REGISTERS = 1 << CT_SKETCH_BITS };

typedef struct ct_sketch {
    uint8_t rank[CT_SKETCH_REGISTERS]; /* zeroed = no key */
} ct_sketch;

static inline void ct_sketch_add(ct_sketch *sketch, uint64_t key) {
    const uint64_t rest = key << CT_SKETCH_BITS | UINT64_C(1) << (CT_SKETCH_BITS - 1); /* ends the zeros */
    const uint8_t rank = (uint8_t)(__builtin_clzll(rest) + 1);
    uint8_t *here = &sketch->rank[key >> (64 - CT_SKETCH_BITS)];
    if (rank > *here) *here = rank;
}

double ct_sketch_count(const ct_sketch *sketch);

#endif
