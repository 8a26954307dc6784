/* Metrics of predictions against labels. Legend: n rows, y label (0 or 1), z logit, p = sigmoid(z), w weight (1 without a column).
 *
 *     log loss   = sum w (softplus(z) - y z) / sum w, natural logarithm, from logits, so it is finite for every finite logit
 *     AUC        = P(p+ > p-) + P(p+ = p-) / 2 over pairs of a click and a non-click (Mann-Whitney); null with one class
 *     normalized entropy = log loss / log loss of the constant mean(y) (He et al., ADKDD 2014, eq. 1); null with one class
 *     calibration = sum w p / sum w y; null without clicks
 *     grouped AUC = mean over groups that have both classes of the group's AUC, weighted by the group's rows (their weights, where there
 *                   is such a column); null where there is none
 *
 * With whole weights every metric is that of each row repeated so often. A metric that does not exist is NaN here and null in JSON. Sums
 * are taken in the order of the rows. */
#ifndef TRAINER_METRICS_H
#define TRAINER_METRICS_H

#include <jansson.h>

#include "base/status.h"

typedef struct ct_metrics {
    int64_t rows;
    double weight, clicks; /* sums; clicks weighted */
    double auc, log_loss, normalized_entropy, calibration, mean_prediction, grouped_auc;
    int64_t groups; /* with both classes */
} ct_metrics;

/* Keeps every row: 8 bytes each, 16 with groups, and as much again while it finishes. Exact. */
typedef struct ct_metrics_collector ct_metrics_collector;
CT_MUST_CHECK ct_code ct_metrics_collector_create(ct_metrics_collector **out_collector, ct_status *status);
void ct_metrics_collector_destroy(ct_metrics_collector *collector); /* NULL is fine */
/* logits, labels: (n), labels 0 or 1; weights, groups: (n) or NULL, the same for all calls. CT_INVALID on a logit that is NaN, another
 * label, a weight that is negative or not finite; then nothing of the call is kept. */
CT_MUST_CHECK ct_code ct_metrics_collector_add(ct_metrics_collector *collector, const float *logits, const float *labels,
                                               const float *weights, const uint64_t *groups, size_t n, ct_status *status);
/* The metrics of the rows so far. */
CT_MUST_CHECK ct_code ct_metrics_collector_finish(ct_metrics_collector *collector, ct_metrics *out_metrics, ct_status *status);
void ct_metrics_collector_reset(ct_metrics_collector *collector);

/* Exact weighted AUC, ties count half; weights may be NULL. NaN with one class. 16 bytes of memory a row; refuses what _add refuses. */
CT_MUST_CHECK ct_code ct_auc(const float *scores, const float *labels, const float *weights, size_t n, double *out_auc, ct_status *status);

/* Log loss of one row, softplus(z) - y z without cancellation: finite for every finite logit, infinite for a certain wrong answer. */
double ct_logit_loss(float logit, bool click);
/* Bits that order as the scores do, -0 equal to 0; not for NaN. */
uint32_t ct_score_key(float score);
/* Sorts by the upper 32 bits, equal ones in the order they came. scratch: (n). */
void ct_score_sort(uint64_t *entries, uint64_t *scratch, size_t n);

/* Adds rows, auc, log_loss, normalized_entropy, calibration, mean_prediction, clicks (and grouped_auc, groups where groups were given) to a
 * JSON object. */
CT_MUST_CHECK ct_code ct_metrics_to_json(const ct_metrics *metrics, bool with_groups, json_t *object, ct_status *status);

#endif
