/* How much traffic a question needs, and how small a lift some traffic can show.
 *
 * Legend: p click rate; L lift, B / A - 1; m rows of a unit and rho the correlation of two rows of one unit, so rows count for 1 / (1 + (m
 * - 1) rho) (Kish's design effect); r correlation of CUPED's covariate with the value, which takes r^2 off the variance; share of the units
 * in B. A difference d is found with probability `power` by a two-sided test at `alpha` when d >= (z(1 - alpha / 2) + z(power)) s, s its
 * standard deviation; with a confidence sequence planned for these units, when d >= (width + z(power)) s. */
#ifndef EXPERIMENT_POWER_H
#define EXPERIMENT_POWER_H

#include "base/status.h"

typedef struct ct_power_options {
    double rate;                       /* p of A, 0..1 */
    double lift;                       /* L, not 0; ct_power_lift looks for it */
    double alpha, power, share;        /* each inside (0, 1) */
    double rows_per_unit, correlation; /* m >= 1, rho in [0, 1) */
    double covariate_correlation;      /* r, in (-1, 1) */
} ct_power_options;
#define CT_POWER_OPTIONS_INIT \
    { .alpha = 0.05, .power = 0.8, .share = 0.5, .rows_per_unit = 1.0 }

typedef struct ct_power_need {
    double units, rows;                   /* of both arms, for a look at one time fixed before */
    double sequence_units, sequence_rows; /* for looks at any time */
} ct_power_need;
/* CT_INVALID names the value that is out of its range. */
CT_MUST_CHECK ct_code ct_power_units(const ct_power_options *options, ct_power_need *out_need, ct_status *status);
/* The least lift above 0 that so many units (of both arms) show; infinite where even a rate of 1 is not shown. */
CT_MUST_CHECK ct_code ct_power_lift(const ct_power_options *options, double units, double *out_lift, double *out_sequence_lift,
                                    ct_status *status);

#endif
