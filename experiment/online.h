/* Report of an experiment on live traffic, from a table of what happened (one row an impression, a visit or a day of a unit):
 *
 *     unit      who was assigned, as text
 *     time      a number (seconds or any unit that grows)
 *     arm       its name
 *     value     a number: clicks, purchases, money
 *     count     optional: what the value is counted over, as impressions; 1 where there is no such column
 *     covariate optional: a number of the unit from before the experiment; its first row's counts; CUPED uses it
 *
 * A header names the columns in any order; tabs or commas separate them. The metric is sum value / sum count, with the unit as cluster
 * (statistics.h). Every arm is compared with the control: at the end, and at 50 times from the first row to the last, for the plot.
 *
 * Verdicts go by the confidence sequence, so that they hold whenever somebody looks, with alpha split evenly over the arms that are
 * compared. There is none where the units do not split as meant (p below 0.001), or where more than 1 % of the units are in two arms (those
 * are left out).
 *
 * Memory: 40 bytes a row and some 150 bytes a unit. */
#ifndef EXPERIMENT_ONLINE_H
#define EXPERIMENT_ONLINE_H

#include <jansson.h>
#include <stdatomic.h>

#include "base/status.h"

enum { CT_ONLINE_MAX_ARMS = 16, CT_ONLINE_LOOKS = 50 };

typedef struct ct_online_options {
    const char *table;       /* a source: a file, plain or compressed, "-" or "|command" */
    const char *control;     /* NULL = the arm named "control", else the first one by name */
    const char *weights;     /* "A=50,B=50", any numbers above 0; NULL = all equal */
    double plan;             /* units of both arms at which the confidence sequence is narrowest; fixed before the experiment */
    double alpha;            /* 0.05 */
    const atomic_bool *stop; /* may be NULL */
} ct_online_options;

/* out_report (the caller's):
 *     format_version, table, rows, alpha, sequence_alpha, plan, first_time, last_time
 *     units {all, in_two_arms}; sample_ratio {p, mismatch}; has_count, has_covariate
 *     arms [{name, control, weight, units, rows, value, count, mean, mean_low, mean_high}]
 *     differences [{a (the control), b, estimate, fixed {low, high}, sequence {low, high}, lift {estimate, fixed, sequence}, p, cuped
 *         {theta, variance_reduction, estimate, fixed, sequence} or null, verdict, words, looks [{time, units, estimate, fixed,
 * sequence}]}] verdict: "B better", "B worse", "no difference shown", "no verdict"; by CUPED's sequence where there is a covariate warnings
 * [text] CT_INVALID names table, line, column and value at fault. */
CT_MUST_CHECK ct_code ct_online_report(const ct_online_options *options, json_t **out_report, ct_status *status);
/* Plain ASCII, at most 110 columns; malloc'd; NULL when out of memory. */
char *ct_online_table(const json_t *report);
/* A page that stands alone; malloc'd. */
CT_MUST_CHECK ct_code ct_online_html(const json_t *report, char **out_html, ct_status *status);

#endif
