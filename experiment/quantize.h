/* Quantize: vectors to semantic IDs by residual k-means (as in Rajput et al., "Recommender systems with generative retrieval", NeurIPS
 * 2023, with k-means in the place of a trained quantiser). Level 1 clusters the vectors; each further level clusters what the levels before
 * it leave. A vector's code is the numbers of its clusters, one a level.
 *
 * Legend: n vectors x of d values; k codes of a level; m the centres.
 *
 * First centres by k-means++ (Arthur and Vassilvitskii, SODA 2007), then Lloyd's steps until no vector changes its centre or `steps` are
 * done. A centre that loses all its vectors stays where it is. Ties go to the lower number. Random numbers are a pure function of the seed;
 * sums are taken over blocks of 4,096 vectors, then over blocks, so the codes do not depend on the number of threads. */
#ifndef EXPERIMENT_QUANTIZE_H
#define EXPERIMENT_QUANTIZE_H

#include <stdatomic.h>

#include "base/pool.h"

enum { CT_QUANTIZE_MAX_LEVELS = 8, CT_QUANTIZE_MAX_CODES = 65536 };

typedef struct ct_quantize_options {
    uint32_t levels, codes; /* 1 to 8; 1 to 65,536 */
    uint32_t steps;         /* of Lloyd's, for each level; 0 = 25 */
    uint64_t seed;
    ct_pool *pool;
    const atomic_bool *stop; /* may be NULL */
    bool progress;
} ct_quantize_options;

/* values: (count, dim), finite. out_codes: (count, levels). out_left: (levels): mean square of what is left after each level, over that of
 * the vectors less their mean (1 = nothing gained, 0 = all told). CT_INVALID where there are fewer vectors than codes. */
CT_MUST_CHECK ct_code ct_quantize(const float *values, size_t count, size_t dim, const ct_quantize_options *options, uint32_t *out_codes,
                                  double *out_left, ct_status *status);

#endif
