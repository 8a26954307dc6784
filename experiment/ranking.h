/* How well one group of rows (one impression, one user) is ranked. Ties: the mean over all orders of equal scores, so a model that gives
 * all the same score gets what chance gets (for nDCG: McSherry and Najork, ECIR 2008). */
#ifndef EXPERIMENT_RANKING_H
#define EXPERIMENT_RANKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ct_ranking {
    double auc;
    double ndcg; /* at k: DCG = sum over the first k places of click / log2(1 + place), over the best possible one */
    double mrr;  /* 1 / place of the first click */
} ct_ranking;

/* An entry: the score's order above (ct_score_key), the click in the lowest bit. */
static inline uint64_t ct_ranking_entry(uint32_t score_key, bool click) { return (uint64_t)score_key << 32 | click; }

/* Sorts entries: (n). `discounts`: (k), 1 / log2(2), 1 / log2(3), ... False where there is no click or nothing else, and nothing to rank.
 */
bool ct_ranking_of(uint64_t *entries, size_t n, const double *discounts, size_t k, ct_ranking *out_ranking);

#endif
