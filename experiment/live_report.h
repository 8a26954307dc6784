/* Report of an experiment that a server ran: from its folders of exposures and feedback and the experiment's file.
 *
 * Compared are the units that were drawn (assigned "bucket"); those that were forced, chosen outside, held out, beyond the ramp, or whose
 * arm had no model are counted apart, by arm. What was shown counts, never what was only scored. An impression's outcome is counted at the
 * time of its request. Where requests were sampled, each logged one stands for 1 / sample_rate.
 *
 * Metrics, each a sum over a sum with the unit as cluster (statistics.h): the positive event by impression (it decides) and by unit, and
 * for each further event the sum of its values by impression and by unit. By unit only where every request was logged.
 *
 * Beside them, by arm: error rate and percentiles of latency with intervals, quality of the scores on what was shown; the drift of what
 * was shown against the training rows (live_drift.c); slices by features. Intervals of these hold alpha each, those of slices alpha over
 * their number; none of them makes a verdict on the experiment.
 *
 * Memory: 48 bytes an event, some 60 bytes a request, 200 bytes a unit, 24 bytes an impression and slice. */
#ifndef EXPERIMENT_LIVE_REPORT_H
#define EXPERIMENT_LIVE_REPORT_H

#include <jansson.h>
#include <stdatomic.h>

#include "base/status.h"

typedef struct ct_live_options {
    const char *exposures, *feedback; /* folders */
    const char *experiment;           /* the file that was served */
    const char *positive;             /* "click" */
    const char *const *events;        /* others, whose values are compared; at most 8 */
    size_t event_count;
    int64_t wait_ms, until_ms;   /* as ct_join_options has them */
    const char *covariate;       /* NULL, or a source: a table of unit, value */
    const char *const *training; /* sources that the served model was trained on; 0 = no drift */
    size_t training_count;
    const char *schema; /* of the training sources */
    const char *const *slices;
    size_t slice_count;
    double plan, alpha; /* as ct_online_options has them */
    const atomic_bool *stop;
} ct_live_options;

/* out_report: the members of ct_online_report's for the metric that decides (without table), and
 *     experiment, exposures, feedback (names), metric, until_ms
 *     metrics    [{metric, and the same members}], the others
 *     left_out   {assigned {ramp {arm: requests}, ..}, other_experiments, exposures {..}, feedback {..}}
 *     guardrails {arms [{name, requests, errors, error_rate {value, low, high}, latency_us {p50 {value, low, high}, p95, p99}}],
 *                differences [{a, b, of, estimate, fixed, sequence, verdict}]}
 *     scores     [{name, rows, auc, log_loss, .., calibration_table}]
 *     drift      [{feature, by, psi, expected, unseen, missing {training, served}, verdict}], or null
 *     slices     [{feature, by, slices [{value | low, high | other, shown, differences [{a, b, estimate, fixed, sequence}]}]}] */
CT_MUST_CHECK ct_code ct_live_report(const ct_live_options *options, json_t **out_report, ct_status *status);

#endif
