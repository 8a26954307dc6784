/* Tally: one model's predictions on one slice of the test, condensed by cluster of units, so that a bootstrap draw needs no row again.
 *
 * Legend: K clusters; n+[k], n-[k] clicks and non-clicks of cluster k; M[i][j] = how often a click of cluster i outranks a non-click of
 * cluster j, ties half. A draw gives weights w[k] (how often cluster k was picked). Then
 *
 *     AUC           w'Mw / (sum w n+ * sum w n-)
 *     log loss      sum w L / sum w n, L the sum of the rows' log losses
 *     normalised entropy   log loss / entropy of sum w n+ / sum w n
 *     calibration   sum w p / sum w n+, p the sum of the predictions
 *     grouped AUC   mean of the groups' AUC, weighted by their rows; nDCG@k, MRR: mean over the groups. Groups with both classes count; a
 *                   group belongs to the cluster of its first row
 *
 * Rows count once whatever their weight. A metric that does not exist (a class or the groups are missing) is NaN. */
#ifndef EXPERIMENT_TALLY_H
#define EXPERIMENT_TALLY_H

#include "base/status.h"

enum { CT_TALLY_MAX_CLUSTERS = 2048, CT_TALLY_LANES = 8, CT_TALLY_MAX_NDCG = 1000 };

typedef enum ct_tally_metric {
    CT_TALLY_AUC,
    CT_TALLY_GROUPED_AUC,
    CT_TALLY_LOG_LOSS,
    CT_TALLY_NORMALIZED_ENTROPY,
    CT_TALLY_CALIBRATION,
    CT_TALLY_NDCG,
    CT_TALLY_MRR,
    CT_TALLY_METRICS
} ct_tally_metric;
extern const char *const ct_tally_names[CT_TALLY_METRICS]; /* "auc", "grouped_auc", ... */

/* Rows by group: those of group g are rows[offsets[g]] .. rows[offsets[g + 1] - 1]. */
typedef struct ct_tally_groups {
    size_t count;
    const size_t *offsets; /* (count + 1) */
    const uint32_t *rows;
} ct_tally_groups;

typedef struct ct_tally_input {
    const float *logits, *labels;  /* (n); labels 0 or 1 */
    const uint32_t *clusters;      /* (n), each < cluster_count */
    const bool *mask;              /* (n): only rows with true; NULL = all */
    size_t n, cluster_count;       /* at most 2048 clusters */
    const ct_tally_groups *groups; /* NULL = none */
    size_t ndcg_at;                /* k; at most 1000 */
} ct_tally_input;

/* Immutable: many threads may read it. Takes 8 K^2 bytes. */
typedef struct ct_tally ct_tally;
/* CT_INVALID where a logit is NaN or a cluster or their count is out of range. Needs 16 bytes a row while it works. */
CT_MUST_CHECK ct_code ct_tally_create(const ct_tally_input *input, ct_tally **out_tally, ct_status *status);
void ct_tally_destroy(ct_tally *tally); /* NULL is fine */
size_t ct_tally_clusters(const ct_tally *tally);
double ct_tally_rows(const ct_tally *tally);
double ct_tally_clicks(const ct_tally *tally);
double ct_tally_groups_ranked(const ct_tally *tally); /* groups with both classes */
/* All rows once. */
double ct_tally_value(const ct_tally *tally, ct_tally_metric metric);
/* Eight draws at once: weights (K, 8), whole numbers below 2^31; out: (metrics, 8). */
void ct_tally_values(const ct_tally *tally, const double *weights, double out[CT_TALLY_METRICS][CT_TALLY_LANES]);

#endif
