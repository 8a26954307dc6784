/* Paired bootstrap of AUC and log loss by clusters of units.
 *
 * Legend: K clusters; n+[k], n-[k] clicks and non-clicks of cluster k; M[i][j] = how often a click of cluster i outranks a non-click of
 * cluster j, ties half. A draw gives weights w[k] (multinomial: K draws with replacement); its AUC is w'Mw / (sum w n+ * sum w n-), with
 * no sorting again; its log loss is sum w[k] L[k] / sum w[k] n[k]. */
#ifndef EXPERIMENT_BOOTSTRAP_H
#define EXPERIMENT_BOOTSTRAP_H

#include "base/pool.h"
#include "base/status.h"

typedef struct ct_concordance ct_concordance;
/* scores, labels: (n); clusters: (n), each < cluster_count <= 2048; logits may be scores. rows: (n) mask or NULL: only rows with true. */
CT_MUST_CHECK ct_code ct_concordance_create(const float *logits, const float *labels, const uint32_t *clusters, const bool *mask, size_t n,
                                            size_t cluster_count, ct_concordance **out_concordance, ct_status *status);
void ct_concordance_destroy(ct_concordance *concordance); /* NULL is fine */
/* weights: (cluster_count), or NULL = all 1. NaN where a class is missing. */
double ct_concordance_auc(const ct_concordance *concordance, const uint32_t *weights);
double ct_concordance_log_loss(const ct_concordance *concordance, const uint32_t *weights);
double ct_concordance_rows(const ct_concordance *concordance);

/* Weights of draw `draw`: cluster_count picks by ct_random(seed, CT_PLACE_BOOTSTRAP, 0, draw, pick). */
void ct_bootstrap_weights(uint64_t seed, uint64_t draw, uint32_t *out_weights, size_t cluster_count);

typedef struct ct_interval {
    double estimate, low, high; /* 95 % */
    uint32_t draws;             /* that had both classes */
} ct_interval;

/* Difference B - A of a metric, mean over seeds; a[s], b[s]: (seed_count). Each draw resamples clusters and seeds (pairs of A and B). */
typedef enum ct_bootstrap_metric { CT_BOOTSTRAP_AUC, CT_BOOTSTRAP_LOG_LOSS } ct_bootstrap_metric;
CT_MUST_CHECK ct_code ct_bootstrap_difference(ct_concordance *const *a, ct_concordance *const *b, size_t seed_count,
                                              ct_bootstrap_metric metric, uint64_t seed, uint32_t draws, ct_pool *pool,
                                              ct_interval *out_interval, ct_status *status);

#endif
