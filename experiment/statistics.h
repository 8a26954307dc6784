/* Statistics of an online experiment: ratio metrics with the unit as cluster, their differences, intervals that stay valid while people
 * peek, variance reduction by a covariate, and the check of the split itself.
 *
 * Legend: unit i has a value y (clicks), a count x (impressions; 1 for a mean per unit) and a covariate c from before the experiment. R =
 * sum y / sum x of an arm. Units are independent; rows of one are not, so only sums by unit enter.
 *
 * Delta method (Deng, Lu, Litz, KDD 2017; Deng et al., "Applying the delta method in metric analytics", KDD 2018): R moves as the mean of
 * l = (y - R x) / mean x, so Var R = Var l / n, and log R has variance Var R / R^2.
 *
 * CUPED (Deng, Xu, Kohavi, Walker, WSDM 2013): the difference less theta (mean c of B - mean c of A), theta = Cov(l, c) / Var(c) pooled
 * over both arms; the variance falls by the square of their correlation.
 *
 * Confidence sequence: with probability 1 - alpha the truth is inside at all times at once, asymptotically (normal mixture: Robbins 1970;
 * Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
 * Statistics 2024, eq. 15; the same as a mixture SPRT): estimate +- s sqrt((1 + 1/k) (2 log(1/alpha) + log(1 + k))), s its standard
 * deviation and k = K n / plan, where n counts the units and K makes it narrowest at n = plan. `plan` must not depend on the data. */
#ifndef EXPERIMENT_STATISTICS_H
#define EXPERIMENT_STATISTICS_H

#include "base/status.h"

/* Of the units of one arm. */
typedef struct ct_arm_sums {
    double n, y, x, c, yy, xx, cc, xy, yc, xc;
} ct_arm_sums;
void ct_arm_sums_add(ct_arm_sums *sums, double y, double x, double c);
void ct_arm_sums_remove(ct_arm_sums *sums, double y, double x, double c); /* a unit whose values changed */

/* A unit's part: mean and variance of R. NaN with fewer than two units or no count. */
typedef struct ct_estimate {
    double value, variance;
} ct_estimate;
ct_estimate ct_ratio(const ct_arm_sums *arm);

typedef struct ct_range {
    double low, high;
} ct_range;
typedef struct ct_difference {
    double estimate, variance;  /* of B - A */
    double theta;               /* of CUPED; 0 = not used */
    double reduction;           /* 1 - variance with CUPED / without; 0 = not used */
    double lift, lift_variance; /* of B / A - 1, with the same adjustment */
} ct_difference;
/* With `cuped` where the covariate varies. */
ct_difference ct_ratio_difference(const ct_arm_sums *a, const ct_arm_sums *b, bool cuped);

/* Two-sided, at one time that was fixed before. */
ct_range ct_fixed_interval(double estimate, double variance, double alpha);
/* At all times. units: of both arms so far; plan: so many at which it is to be narrowest. */
ct_range ct_confidence_sequence(double estimate, double variance, double units, double plan, double alpha);
/* Half width of the latter in standard deviations. */
double ct_sequence_width(double units, double plan, double alpha);

/* Sample ratio mismatch: p of Pearson's chi-square of the arms' units against their weights, which are above 0 and need not sum to 1. NaN
 * with fewer than two arms or no unit. Below 0.001 the split is not what was meant, and no result can be trusted (Fabijan et al., KDD
 * 2019).
 */
#define CT_MISMATCH_P 0.001
double ct_sample_ratio_p(const double *units, const double *weights, size_t arms);

#endif
