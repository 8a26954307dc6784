#include "experiment/statistics.h"

#include <math.h>

#include "base/math.h"
#include "experiment/distributions.h"

static void add(ct_arm_sums *s, double sign, double y, double x, double c) {
    s->n += sign;
    s->y += sign * y;
    s->x += sign * x;
    s->c += sign * c;
    s->yy += sign * y * y;
    s->xx += sign * x * x;
    s->cc += sign * c * c;
    s->xy += sign * x * y;
    s->yc += sign * y * c;
    s->xc += sign * x * c;
}

void ct_arm_sums_add(ct_arm_sums *sums, double y, double x, double c) { add(sums, 1.0, y, x, c); }
void ct_arm_sums_remove(ct_arm_sums *sums, double y, double x, double c) { add(sums, -1.0, y, x, c); }

static double covariance(double product, double left, double right, double n) { return (product - left * right / n) / (n - 1.0); }

/* Var l and Cov(l, c) of an arm; l = (y - R x) / mean x. */
typedef struct linearised {
    double ratio, variance, covariance, covariate_variance;
} linearised;

static linearised linearise(const ct_arm_sums *s) {
    const double n = s->n, mean_x = s->x / n, r = s->y / s->x;
    const double yy = covariance(s->yy, s->y, s->y, n), xx = covariance(s->xx, s->x, s->x, n), xy = covariance(s->xy, s->x, s->y, n);
    linearised l = {.ratio = r, .variance = (yy - 2.0 * r * xy + r * r * xx) / (mean_x * mean_x)};
    if (l.variance < 0.0) l.variance = 0.0; /* rounding, where all units are equal */
    l.covariance = (covariance(s->yc, s->y, s->c, n) - r * covariance(s->xc, s->x, s->c, n)) / mean_x;
    l.covariate_variance = covariance(s->cc, s->c, s->c, n);
    return l;
}

ct_estimate ct_ratio(const ct_arm_sums *arm) {
    if (!(arm->n >= 2.0) || !(arm->x > 0.0)) return (ct_estimate){(double)NAN, (double)NAN};
    const linearised l = linearise(arm);
    return (ct_estimate){l.ratio, l.variance / arm->n};
}

ct_difference ct_ratio_difference(const ct_arm_sums *a, const ct_arm_sums *b, bool cuped) {
    ct_difference d = {.estimate = (double)NAN, .variance = (double)NAN, .lift = (double)NAN, .lift_variance = (double)NAN};
    if (!(a->n >= 2.0 && b->n >= 2.0 && a->x > 0.0 && b->x > 0.0)) return d;
    const linearised la = linearise(a), lb = linearise(b);
    const double plain = la.variance / a->n + lb.variance / b->n;
    const double spread = (a->n - 1.0) * la.covariate_variance + (b->n - 1.0) * lb.covariate_variance;
    double var_a = la.variance, var_b = lb.variance, shift = 0.0;
    if (cuped && spread > 0.0) {
        d.theta = ((a->n - 1.0) * la.covariance + (b->n - 1.0) * lb.covariance) / spread;
        shift = d.theta * (b->c / b->n - a->c / a->n);
        var_a += d.theta * d.theta * la.covariate_variance - 2.0 * d.theta * la.covariance;
        var_b += d.theta * d.theta * lb.covariate_variance - 2.0 * d.theta * lb.covariance;
    }
    d.estimate = lb.ratio - la.ratio - shift;
    d.variance = fmax(var_a, 0.0) / a->n + fmax(var_b, 0.0) / b->n;
    d.reduction = plain > 0.0 ? 1.0 - d.variance / plain : 0.0;
    if (la.ratio > 0.0) { /* of (A + difference) / A: A's part enters both */
        const double ratio = (la.ratio + d.estimate) / la.ratio;
        d.lift = ratio - 1.0;
        d.lift_variance = (fmax(var_b, 0.0) / b->n + ratio * ratio * fmax(var_a, 0.0) / a->n) / (la.ratio * la.ratio);
    }
    return d;
}

ct_range ct_fixed_interval(double estimate, double variance, double alpha) {
    const double half = -ct_normal_quantile(alpha / 2.0) * sqrt(variance);
    return (ct_range){estimate - half, estimate + half};
}

double ct_sequence_width(double units, double plan, double alpha) {
    const double log_alpha = -2.0 * log(alpha), k = (log_alpha + log(log_alpha + 1.0)) * units / plan;
    return sqrt((1.0 + 1.0 / k) * (log_alpha + log1p(k)));
}

ct_range ct_confidence_sequence(double estimate, double variance, double units, double plan, double alpha) {
    const double half = ct_sequence_width(units, plan, alpha) * sqrt(variance);
    return (ct_range){estimate - half, estimate + half};
}

double ct_sample_ratio_p(const double *units, const double *weights, size_t arms) {
    double all = 0.0, weight = 0.0, chi_square = 0.0;
    for (size_t i = 0; i < arms; i++) {
        all += units[i];
        weight += weights[i];
    }
    if (arms < 2 || !(all > 0.0)) return (double)NAN;
    for (size_t i = 0; i < arms; i++) {
        const double expected = all * weights[i] / weight;
        chi_square += (units[i] - expected) * (units[i] - expected) / expected;
    }
    return ct_chi_square_above(chi_square, (double)arms - 1.0);
}
