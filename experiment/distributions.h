/* Distributions that intervals and tests need. Relative error below 1e-10 where a probability is above 1e-300; checked against tables and,
 * where it is installed, SciPy. Quantiles are found by bisection on the distribution function. */
#ifndef EXPERIMENT_DISTRIBUTIONS_H
#define EXPERIMENT_DISTRIBUTIONS_H

/* P(|Z| > |z|). */
double ct_normal_two_sided(double z);
/* P(X > x) of a chi-square with `degrees` > 0 degrees of freedom: the regularised incomplete gamma function Q(degrees / 2, x / 2), by its
 * series or its continued fraction (Lentz). */
double ct_chi_square_above(double x, double degrees);
/* P(|T| > |t|) of Student's t, by the regularised incomplete beta function; degrees may be infinite (normal). */
double ct_student_two_sided(double t, double degrees);
/* The t with P(|T| > t) = p, 0 < p < 1. */
double ct_student_two_sided_quantile(double p, double degrees);

#endif
