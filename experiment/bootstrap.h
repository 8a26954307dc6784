/* Paired bootstrap by clusters of units and by seeds. Nothing depends on the number of threads. */
#ifndef EXPERIMENT_BOOTSTRAP_H
#define EXPERIMENT_BOOTSTRAP_H

#include "base/pool.h"
#include "experiment/tally.h"

/* Weights of draw `draw`: cluster_count picks with replacement, by ct_random(seed, CT_PLACE_BOOTSTRAP, 0, draw, pick). They sum to
 * cluster_count. */
void ct_bootstrap_weights(uint64_t seed, uint64_t draw, uint32_t *out_weights, size_t cluster_count);

/* Every metric of each tally under the same draws. All have one number of clusters (CT_INVALID else). out_values: (count, metrics, draws).
 */
CT_MUST_CHECK ct_code ct_bootstrap_values(ct_tally *const *tallies, size_t count, uint64_t seed, uint32_t draws, ct_pool *pool,
                                          double *out_values, ct_status *status);

typedef struct ct_interval {
    double estimate, low, high; /* 95 % */
    double p;                   /* of no difference, two-sided: Student's t of estimate / sqrt(V), as below */
    double degrees;             /* of freedom of that deviation; infinite with one seed */
    uint32_t draws;             /* in which the difference existed */
} ct_interval;

/* Difference B - A of a metric, mean over seeds; a, b: (seed_count), whole[s] the metric without resampling and values[s * stride + d] that
 * of draw d. Each draw resamples clusters (through the values) and pairs of seeds, by ct_random(seed, CT_PLACE_BOOTSTRAP, 1, draw, pick);
 * with S seeds their part of a draw's deviation is widened by sqrt(S / (S - 1)), since S picks of S seeds spread too little by that.
 *
 * Units and seeds are crossed: a model is idiosyncratic about units, which moves the variance over units and that over seeds, so their
 * plain sum counts it twice, and that of the draws three times (Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1, 2007); the
 * intervals would hold the truth in up to 99 %. With Vu the variance of the draws with all seeds, V1 that of one seed's draws (mean over
 * the seeds) and Vs that of the mean over S seeds, the part in common is C = (V1 - Vu) / (S - 1), and the variance is V = Vu + max(0, Vs -
 * C).
 *
 * The interval is the percentiles 2.5 and 97.5 of the draws (linear between neighbours), their distance from the estimate stretched by
 * sqrt(V / variance of the draws) and by t(d) / t(infinity): few seeds tell little of how much seeds differ. d is Welch and
 * Satterthwaite's: V^2 / (Vs^2 / (S - 1)), at least S - 1. One seed: the interval does not cover seeds. */
typedef struct ct_bootstrap_side {
    const double *whole, *values;
    size_t stride; /* from a seed's values to the next one's; at least the draws */
} ct_bootstrap_side;
CT_MUST_CHECK ct_code ct_bootstrap_interval(const ct_bootstrap_side *a, const ct_bootstrap_side *b, size_t seed_count, uint64_t seed,
                                            uint32_t draws, ct_interval *out_interval, ct_status *status);

/* Holm's correction (Scand. J. Statist. 6, 1979): p-values, (n), NaN = no test, become adjusted ones: reject where at most 0.05, and with
 * probability 0.95 no true hypothesis of the family is rejected. */
CT_MUST_CHECK ct_code ct_holm(double *p, size_t n, ct_status *status);

#endif
