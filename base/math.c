/* Legend: x = k ln 2 + r with |r| <= ln 2 / 2 for exp; x = 2^k m with sqrt(1/2) <= m < sqrt(2), f = m - 1, s = f / (2 + f) for log.
 * Polynomials are Taylor series (of exp at 0, of atanh at 0) long enough for the reduced range; ln 2 is split into a short upper part, so
 * that k times it is exact, and the rest. Rounding to an integer is done by adding and subtracting 1.5 * 2^52 (2^23 for float), which
 * needs the default rounding mode. NaN runs through the arithmetic: no branch looks for it. */
#include "base/math.h"

#include <math.h> /* sqrt only: exact by IEEE 754 */
#include <string.h>

/* Not from <math.h>: the two names would be macros or calls that a compiler flag may change. */
#define POSITIVE_INF (__builtin_inf())
#define NOT_A_NUMBER (__builtin_nan(""))

static inline uint64_t bits_of(double x) {
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}
static inline double from_bits(uint64_t u) {
    double x;
    memcpy(&x, &u, 8);
    return x;
}

static const double LN2_HIGH = 0x1.62e42feep-1;      /* upper 33 bits: times |k| < 2^11 is exact */
static const double LN2_LOW = 0x1.a39ef35793c76p-33; /* the rest */
static const double INV_LN2 = 0x1.71547652b82fep+0;

double ct_exp(double x) {
    if (x > 710.0) return POSITIVE_INF;
    if (x < -746.0) return 0.0;
    if (x != x) return x;
    const double magic = 0x1.8p52;
    const double shifted = x * INV_LN2 + magic;
    const double k = shifted - magic;
    const int64_t n = (int64_t)k;
    const double high = x - k * LN2_HIGH, low = k * LN2_LOW;
    const double r = high - low;
    const double lost = (high - r) - low; /* what r lost by rounding */
    double q = 1.0 / 6227020800.0;        /* 1/13! */
    q = q * r + 1.0 / 479001600.0;
    q = q * r + 1.0 / 39916800.0;
    q = q * r + 1.0 / 3628800.0;
    q = q * r + 1.0 / 362880.0;
    q = q * r + 1.0 / 40320.0;
    q = q * r + 1.0 / 5040.0;
    q = q * r + 1.0 / 720.0;
    q = q * r + 1.0 / 120.0;
    q = q * r + 1.0 / 24.0;
    q = q * r + 1.0 / 6.0;
    q = q * r + 0.5;
    const double y = 1.0 + (r + (r * r * q + (lost + lost * r)));
    /* 2^n in two factors, so that subnormal results and 2^1024 / 2 come out right. */
    const int64_t half = n / 2;
    return y * from_bits((uint64_t)(half + 1023) << 52) * from_bits((uint64_t)(n - half + 1023) << 52);
}

/* log(2^k * (1 + f)); f as above. */
static inline double log_reduced(double k, double f) {
    const double s = f / (2.0 + f), z = s * s;
    double series = 2.0 / 23.0; /* 2 atanh(s) = 2 s + s * series */
    series = series * z + 2.0 / 21.0;
    series = series * z + 2.0 / 19.0;
    series = series * z + 2.0 / 17.0;
    series = series * z + 2.0 / 15.0;
    series = series * z + 2.0 / 13.0;
    series = series * z + 2.0 / 11.0;
    series = series * z + 2.0 / 9.0;
    series = series * z + 2.0 / 7.0;
    series = series * z + 2.0 / 5.0;
    series = series * z + 2.0 / 3.0;
    series = series * z;
    const double square = 0.5 * f * f; /* 2 s = f - s f = f - (square - s * square): f enters exactly */
    return k * LN2_HIGH - ((square - (s * (square + series) + k * LN2_LOW)) - f);
}

double ct_log(double x) {
    if (!(x > 0.0)) return x == 0.0 ? -POSITIVE_INF : x < 0.0 ? NOT_A_NUMBER : x; /* the last: NaN */
    if (x == POSITIVE_INF) return x;
    int64_t k = 0;
    if (x < 0x1p-1022) { /* subnormal */
        x *= 0x1p54;
        k = -54;
    }
    const uint64_t root_half = UINT64_C(0x3fe6a09e667f3bcd); /* sqrt(1/2) */
    const uint64_t u = bits_of(x) + (UINT64_C(0x3ff0000000000000) - root_half);
    k += (int64_t)(u >> 52) - 1023;
    const double m = from_bits((u & UINT64_C(0x000fffffffffffff)) + root_half);
    return log_reduced((double)k, m - 1.0);
}

double ct_log1p(double x) {
    if (!(x > -1.0)) return x == -1.0 ? -POSITIVE_INF : x < -1.0 ? NOT_A_NUMBER : x;
    if (x == POSITIVE_INF) return x;
    if (x < 0x1p-54 && x > -0x1p-54) return x;
    /* u + lost = 1 + x exactly (two-sum); log(1 + x) = log u + lost / u up to the square of a rounding error. */
    const double u = 1.0 + x, back = u - 1.0;
    const double lost = (1.0 - (u - back)) + (x - back);
    return ct_log(u) + lost / u;
}

double ct_sigmoid(double x) {
    if (x >= 0.0) return 1.0 / (1.0 + ct_exp(-x));
    const double e = ct_exp(x);
    return e / (1.0 + e);
}

double ct_softplus(double x) {
    if (x != x) return x;
    return x > 0.0 ? x + ct_log1p(ct_exp(-x)) : ct_log1p(ct_exp(x));
}

/* M. J. Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37 (1988): rational
 * approximations of degree 7 in three ranges. */
static double ratio(const double a[8], const double b[8], double r) {
    double above = a[7], below = b[7];
    for (int i = 6; i >= 0; i--) {
        above = above * r + a[i];
        below = below * r + b[i];
    }
    return above / below;
}

double ct_normal_quantile(double p) {
    static const double a[8] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
                                4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3};
    static const double b[8] = {1.0,
                                4.2313330701600911252e1,
                                6.8718700749205790830e2,
                                5.3941960214247511077e3,
                                2.1213794301586595867e4,
                                3.9307895800092710610e4,
                                2.8729085735721942674e4,
                                5.2264952788528545610e3};
    static const double c[8] = {1.42343711074968357734e0, 4.63033784615654529590e0,  5.76949722146069140550e0,  3.64784832476320460504e0,
                                1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4};
    static const double d[8] = {1.0,
                                2.05319162663775882187e0,
                                1.67638483018380384940e0,
                                6.89767334985100004550e-1,
                                1.48103976427480074590e-1,
                                1.51986665636164571966e-2,
                                5.47593808499534494600e-4,
                                1.05075007164441684324e-9};
    static const double e[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,  2.96560571828504891230e-1,
                                2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static const double f[8] = {1.0,
                                5.99832206555887937690e-1,
                                1.36929880922735805310e-1,
                                1.48753612908506148525e-2,
                                7.86869131145613259100e-4,
                                1.84631831751005468180e-5,
                                1.42151175831644588870e-7,
                                2.04426310338993978564e-15};
    if (!(p > 0.0 && p < 1.0)) return p == 0.0 ? -POSITIVE_INF : p == 1.0 ? POSITIVE_INF : NOT_A_NUMBER;
    const double q = p - 0.5;
    if (q >= -0.425 && q <= 0.425) return q * ratio(a, b, 0.180625 - q * q);
    const double r = sqrt(-ct_log(q < 0.0 ? p : 1.0 - p));
    const double x = r <= 5.0 ? ratio(c, d, r - 1.6) : ratio(e, f, r - 5.0);
    return q < 0.0 ? -x : x;
}
