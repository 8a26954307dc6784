/* Legend: P, Q lower and upper regularised incomplete gamma; I_x(a, b) regularised incomplete beta. Continued fractions by Lentz's method
 * as Thompson and Barnett describe it (J. Comput. Phys. 64, 1986). */
#include "experiment/distributions.h"

#include <math.h>

#include "base/math.h"

enum { STEPS = 100000 };

#define SMALLEST 1e-300
#define PRECISE  1e-16

double ct_normal_two_sided(double z) { return erfc(fabs(z) / sqrt(2.0)); }

/* Q(a, x) = x^a e^-x / Gamma(a) * fraction, for x > a + 1. */
static double gamma_fraction(double a, double x) {
    double b = x + 1.0 - a, c = 1.0 / SMALLEST, d = 1.0 / b, h = d;
    for (int i = 1; i < STEPS; i++) {
        const double an = -(double)i * ((double)i - a);
        b += 2.0;
        d = an * d + b;
        if (fabs(d) < SMALLEST) d = SMALLEST;
        c = b + an / c;
        if (fabs(c) < SMALLEST) c = SMALLEST;
        d = 1.0 / d;
        const double step = d * c;
        h *= step;
        if (fabs(step - 1.0) < PRECISE) break;
    }
    return h;
}

static double gamma_series(double a, double x) {
    double term = 1.0 / a, sum = term;
    for (int i = 1; i < STEPS; i++) {
        term *= x / (a + (double)i);
        sum += term;
        if (fabs(term) < fabs(sum) * PRECISE) break;
    }
    return sum;
}

double ct_chi_square_above(double x, double degrees) {
    const double a = degrees / 2.0, half = x / 2.0;
    if (isnan(x) || !(degrees > 0.0)) return (double)NAN;
    if (half <= 0.0) return 1.0;
    const double front = exp(a * log(half) - half - lgamma(a));
    return half < a + 1.0 ? 1.0 - front * gamma_series(a, half) : front * gamma_fraction(a, half);
}

static double beta_fraction(double a, double b, double x) {
    double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);
    if (fabs(d) < SMALLEST) d = SMALLEST;
    d = 1.0 / d;
    double h = d;
    for (int i = 1; i < STEPS; i++) {
        const double m = (double)i;
        const double terms[2] = {m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
                                 -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))};
        double step = 1.0;
        for (int half = 0; half < 2; half++) {
            d = 1.0 + terms[half] * d;
            if (fabs(d) < SMALLEST) d = SMALLEST;
            c = 1.0 + terms[half] / c;
            if (fabs(c) < SMALLEST) c = SMALLEST;
            d = 1.0 / d;
            step = d * c;
            h *= step;
        }
        if (fabs(step - 1.0) < PRECISE) break;
    }
    return h;
}

/* I_x(a, b); y = 1 - x is given too, so that nothing is lost near 1. */
static double beta(double a, double b, double x, double y) {
    if (x <= 0.0) return 0.0;
    if (y <= 0.0) return 1.0;
    const double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(y));
    return x < (a + 1.0) / (a + b + 2.0) ? front * beta_fraction(a, b, x) / a : 1.0 - front * beta_fraction(b, a, y) / b;
}

double ct_student_two_sided(double t, double degrees) {
    if (isnan(t) || !(degrees > 0.0)) return (double)NAN;
    if (isinf(degrees) || degrees > 1e8) return ct_normal_two_sided(t);
    if (isinf(t)) return 0.0;
    const double below = degrees + t * t;
    return beta(degrees / 2.0, 0.5, degrees / below, t * t / below);
}

double ct_student_two_sided_quantile(double p, double degrees) {
    if (!(p > 0.0 && p < 1.0) || !(degrees > 0.0)) return (double)NAN;
    double low = 0.0, high = -ct_normal_quantile(p / 2.0);
    if (isinf(degrees) || degrees > 1e8) return high;
    while (ct_student_two_sided(high, degrees) > p) low = high, high *= 2.0;
    for (int i = 0; i < 200 && high - low > 1e-15 * high; i++) {
        const double middle = 0.5 * (low + high);
        if (ct_student_two_sided(middle, degrees) > p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}
