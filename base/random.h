/* Random numbers as a pure function of (seed, place, epoch, number, index): Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). No generator has state, so resume, ranks and several arms need nothing saved.
 *
 * seed: the run's; place: where in the code (below); epoch: 0 where there is none; number: the global row number or the key; index: which
 * draw of these. Key = seed xor a mix of place and epoch; counter = (number, index, 0). */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef enum ct_place {
    CT_PLACE_FIRST_VALUE = 1, /* embedding rows: number = key, index = element / 4 */
    CT_PLACE_ID_DROP = 2,     /* number = global row, index = low 32 bits of the feature's salt */
    CT_PLACE_TOWER = 3,       /* first weights: number = hash of the tensor's name, index = element / 4 */
    CT_PLACE_BOOTSTRAP = 4,   /* number = draw, index = cluster */
    CT_PLACE_SHUFFLE = 5,
    CT_PLACE_ASSIGN = 6,
    CT_PLACE_DROPOUT = 7,  /* number = global row, index = layer * 2^16 + column / 8 */
    CT_PLACE_ROUNDING = 8, /* seed = hash of the batch's first row; number = key, index = element / 8, two elements a word */
    CT_PLACE_SYNTH = 64,   /* 64 .. 127 belong to data/synth */
    CT_PLACE_TEST = 128    /* 128 .. belong to tests */
} ct_place;

typedef struct ct_random4 {
    uint32_t word[4];
} ct_random4;

/* The bare bijection; checked against the known answers that the authors publish. */
ct_random4 ct_philox4x32(const uint32_t counter[4], const uint32_t key[2]);

ct_random4 ct_random(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t number, uint32_t index);
uint64_t ct_random_u64(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t number, uint32_t index);
double ct_random_unit(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t number, uint32_t index); /* [0, 1), 53 bits */

/* Many at once: out_word0[i] = ct_random(seed, place, epoch, first_number + i, index).word[0]. */
void ct_random_words(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t first_number, uint32_t index, uint32_t *out_word0 /* (n) */,
                     size_t n);

static inline float ct_unit_float(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; } /* [0, 1), 24 bits */

#endif
