/* Metrics of predictions against labels. Legend: n rows, y label (0 or 1), z logit, p = sigmoid(z), w weight (1 without a column).
 *
 *     log loss   = sum w (softplus(z) - y z) / sum w, natural logarithm, from logits, so it is finite for every finite logit
 *     AUC        = P(p+ > p-) + P(p+ = p-) / 2 over pairs of a click and a non-click (Mann-Whitney); null with one class
 *     normalized entropy = log loss / log loss of the constant mean(y) (He et al., ADKDD 2014, eq. 1); null with one class
 *     calibration = sum w p / sum w y; null without clicks
 *     grouped AUC = mean over groups that have both classes of the group's AUC, weighted by the group's rows (their weights, where there
 *                   is such a column); null where there is none
 *     calibration table = the rows in at most 20 bins of equal weight, lowest predictions first: see ct_calibration_table
 *     expected, maximum calibration error = mean, weighted by the bins' weight, and maximum over the bins of |mean p - mean y|
 *
 * With whole weights every metric is that of each row repeated so often. A metric that does not exist is NaN here and null in JSON. Sums
 * are taken in the order of the rows. */
#ifndef TRAINER_METRICS_H
#define TRAINER_METRICS_H

#include <jansson.h>

#include "base/status.h"

enum { CT_CALIBRATION_BINS = 20 };

typedef struct ct_calibration_bin {
    int64_t rows; /* with a weight above 0 */
    double weight;
    double low, high; /* least and greatest prediction */
    double mean_prediction, click_rate;
} ct_calibration_bin;

/* Rows of equal prediction (equal logit) stay together. Such a block, of weight w, with weight s below it and W in all, belongs to bin
 * floor(20 (s + w / 2) / W), that in which its middle falls. So a bin's weight is W / 20 but for half a block at each edge, and a bin that
 * no block's middle falls into is left out: with fewer than 20 different predictions there are at most as many bins. Rows of weight 0 are
 * in none. */
typedef struct ct_calibration_table {
    size_t count;
    ct_calibration_bin bins[CT_CALIBRATION_BINS];
    double expected_error, maximum_error; /* 0 where there is no bin */
} ct_calibration_table;

typedef struct ct_metrics {
    int64_t rows;
    double weight, clicks; /* sums; clicks weighted */
    double auc, log_loss, normalized_entropy, calibration, mean_prediction, grouped_auc;
    int64_t groups;                         /* with both classes */
    ct_calibration_table calibration_table; /* of a collector; empty elsewhere */
} ct_metrics;

/* Exact in bounded memory: up to `memory_bytes` (64 MiB by default, some KiB at least) hold rows, 16 bytes each and 48 with groups, sorting
 * included. What does not fit goes, sorted, to a temporary file without a name in TMPDIR (else /tmp): 8 bytes a row, 24 with groups. The
 * metrics have the same bits, however little memory there is. */
typedef struct ct_metrics_collector ct_metrics_collector;
CT_MUST_CHECK ct_code ct_metrics_collector_create(ct_metrics_collector **out_collector, ct_status *status);
CT_MUST_CHECK ct_code ct_metrics_collector_create_within(size_t memory_bytes, ct_metrics_collector **out_collector, ct_status *status);
void ct_metrics_collector_destroy(ct_metrics_collector *collector); /* NULL is fine */
/* logits, labels: (n), labels 0 or 1; weights, groups: (n) or NULL, the same for all calls. CT_INVALID on a logit that is NaN, another
 * label, a weight that is negative or not finite; then nothing of the call is kept. After any other failure (CT_EXHAUSTED: the disk is
 * full) only reset and destroy are left. */
CT_MUST_CHECK ct_code ct_metrics_collector_add(ct_metrics_collector *collector, const float *logits, const float *labels,
                                               const float *weights, const uint64_t *groups, size_t n, ct_status *status);
/* The metrics of the rows; may be asked again. No row may be added afterwards but behind a reset, and nothing else may follow a failure. */
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

/* Adds calibration_table (an array of {low, high, rows, weight, mean_prediction, click_rate}), expected_calibration_error and
 * maximum_calibration_error; null where there is no row. */
CT_MUST_CHECK ct_code ct_calibration_to_json(const ct_metrics *metrics, json_t *object, ct_status *status);

#endif
