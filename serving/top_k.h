/* The best candidates of a request, where it asks for no more. */
#ifndef SERVING_TOP_K_H
#define SERVING_TOP_K_H

#include <stddef.h>
#include <stdint.h>

typedef struct ct_ranked {
    float logit;        /* finite */
    uint32_t candidate; /* place in the request, from 0 */
} ct_ranked;

/* The k candidates of the highest logits, best first; of equal ones the earlier comes first. logits: of candidate i at i * stride;
 * k <= count < 2^32; out: (k). O(count log k), allocates nothing. */
void ct_top_k(const float *logits, size_t stride, size_t count, size_t k, ct_ranked *out);

#endif
