/* Paired bootstrap of AUC and log loss by clusters of units.
 *
 * Legend: K clusters; n+[k], n-[k] clicks and non-clicks of cluster k; M[i][j] = how often a click of cluster i outranks a non-click of
 * cluster j, ties half; L[k] = sum of the rows' log losses. A draw gives weights w[k] (multinomial: K picks with replacement); its AUC is
 * w'Mw / (sum w n+ * sum w n-), with no sorting again; its log loss is sum w[k] L[k] / sum w[k] n[k]. Rows have no weights of their own.
 *
 * A metric that does not exist (a class is missing, or all rows) is NaN. Nothing depends on the number of threads. */
#ifndef EXPERIMENT_BOOTSTRAP_H
#define EXPERIMENT_BOOTSTRAP_H

#include "base/pool.h"
#include "base/status.h"

enum { CT_BOOTSTRAP_MAX_CLUSTERS = 2048 };

/* Immutable: many threads may read it. Takes 8 K^2 bytes. */
typedef struct ct_concordance ct_concordance;
/* logits, labels (0 or 1), clusters (each < cluster_count <= 2048): (n); mask: (n), only rows with true, or NULL = all. CT_INVALID where a
 * logit is NaN or a cluster or their count is out of range. Needs 16 bytes a row while it works. */
CT_MUST_CHECK ct_code ct_concordance_create(const float *logits, const float *labels, const uint32_t *clusters, const bool *mask, size_t n,
                                            size_t cluster_count, ct_concordance **out_concordance, ct_status *status);
void ct_concordance_destroy(ct_concordance *concordance); /* NULL is fine */
/* weights: (cluster_count), each below 2^31, or NULL = all 1. */
double ct_concordance_auc(const ct_concordance *concordance, const uint32_t *weights);
double ct_concordance_log_loss(const ct_concordance *concordance, const uint32_t *weights);
double ct_concordance_rows(const ct_concordance *concordance);
double ct_concordance_clicks(const ct_concordance *concordance);

/* Weights of draw `draw`: cluster_count picks by ct_random(seed, CT_PLACE_BOOTSTRAP, 0, draw, pick). They sum to cluster_count. */
void ct_bootstrap_weights(uint64_t seed, uint64_t draw, uint32_t *out_weights, size_t cluster_count);

/* Both metrics of each concordance under the same draws. All have one cluster_count (CT_INVALID else). out_auc, out_log_loss: (count,
 * draws). */
CT_MUST_CHECK ct_code ct_bootstrap_values(ct_concordance *const *concordances, size_t count, uint64_t seed, uint32_t draws, ct_pool *pool,
                                          double *out_auc, double *out_log_loss, ct_status *status);

typedef struct ct_interval {
    double estimate, low, high; /* 95 %: the percentiles 2.5 and 97.5 of the draws, linear between neighbours */
    uint32_t draws;             /* in which the difference existed */
} ct_interval;

/* Difference B - A of a metric, mean over seeds; a, b: (seed_count), whole[s] the metric without resampling and values[s * draws + d] that
 * of draw d. Each draw resamples clusters (through the values) and pairs of seeds, by ct_random(seed, CT_PLACE_BOOTSTRAP, 1, draw, pick);
 * with S seeds their part of a draw's deviation is widened by sqrt(S / (S - 1)), since S picks of S seeds spread too little by that. One
 * seed: the interval does not cover seeds. */
typedef struct ct_bootstrap_side {
    const double *whole, *values;
} ct_bootstrap_side;
CT_MUST_CHECK ct_code ct_bootstrap_interval(const ct_bootstrap_side *a, const ct_bootstrap_side *b, size_t seed_count, uint64_t seed,
                                            uint32_t draws, ct_interval *out_interval, ct_status *status);

/* The two above in one, for one pair: a[s], b[s]: (seed_count). */
typedef enum ct_bootstrap_metric { CT_BOOTSTRAP_AUC, CT_BOOTSTRAP_LOG_LOSS } ct_bootstrap_metric;
CT_MUST_CHECK ct_code ct_bootstrap_difference(ct_concordance *const *a, ct_concordance *const *b, size_t seed_count,
                                              ct_bootstrap_metric metric, uint64_t seed, uint32_t draws, ct_pool *pool,
                                              ct_interval *out_interval, ct_status *status);

#endif
