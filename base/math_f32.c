/* Float functions for hot loops: straight code without branches, so that the loops over them vectorise. Choices are made with masks of
 * integers: a choice between floats becomes a jump around arithmetic that might trap, and the loop stays scalar. Legend as in math.c. */
#include <string.h>

#include "base/math.h"

/* out may be the input itself, but no iteration reads what another one writes. */
#if defined(__clang__)
#define CT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define CT_INDEPENDENT _Pragma("GCC ivdep")
#endif

static inline uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

#define LN2_HIGH 0x1.62e4p-1f    /* upper 15 bits: times |k| < 2^9 is exact */
#define LN2_LOW  0x1.7f7d1cp-20f /* the rest */
#define INV_LN2  0x1.715476p+0f

/* exp(x) for x in [-104, 0]; NaN stays NaN. */
static inline float exp_below_zero(float x) {
    const float magic = 0x1.8p23f;
    const float shifted = x * INV_LN2 + magic;
    const float k = shifted - magic;
    const float r = (x - k * LN2_HIGH) - k * LN2_LOW;
    float q = 1.0f / 5040.0f;
    q = q * r + 1.0f / 720.0f;
    q = q * r + 1.0f / 120.0f;
    q = q * r + 1.0f / 24.0f;
    q = q * r + 1.0f / 6.0f;
    q = q * r + 0.5f;
    const float y = 1.0f + (r + r * r * q);
    /* The low bits of `shifted` are k in two's complement. 2^k in two factors: the result may be subnormal. */
    const uint32_t n = bits_of(shifted) - bits_of(magic) + 256u; /* k + 256, not below 0 */
    const uint32_t half = n >> 1;
    return y * from_bits((half - 1u) << 23) * from_bits((n - half - 1u) << 23); /* exponents half - 128, n - half - 128 */
}

/* a where mask is all ones, b where it is 0. */
static inline uint32_t choose(uint32_t mask, uint32_t a, uint32_t b) { return (a & mask) | (b & ~mask); }

CT_HOT void ct_sigmoid_f32(const float *logit, float *out_probability, size_t n) {
    const uint32_t limit = bits_of(104.0f), one = bits_of(1.0f);
    CT_INDEPENDENT
    for (size_t i = 0; i < n; i++) {
        const uint32_t x = bits_of(logit[i]), size = x & 0x7fffffffu;
        const uint32_t negative = 0u - (x >> 31), nan = 0u - (uint32_t)(size > 0x7f800000u);
        const float e = exp_below_zero(from_bits((size < limit ? size : limit) | 0x80000000u));
        const float y = from_bits(choose(negative, bits_of(e), one)) / (1.0f + e);
        out_probability[i] = from_bits(choose(nan, x, bits_of(y)));
    }
}

CT_HOT void ct_signed_log1p_f32(const float *x, float *out, size_t n) {
    const uint32_t root_half = 0x3f3504f3u; /* sqrt(1/2) */
    CT_INDEPENDENT
    for (size_t i = 0; i < n; i++) {
        const uint32_t all = bits_of(x[i]), size = all & 0x7fffffffu;
        const uint32_t finite = 0u - (uint32_t)(size < 0x7f800000u);
        const float a = from_bits(size);
        /* u + lost = 1 + a exactly (two-sum) */
        const float u = 1.0f + a, back = u - 1.0f;
        const float lost = (1.0f - (u - back)) + (a - back);
        const uint32_t shifted = bits_of(u) + (0x3f800000u - root_half);
        const float k = (float)((int32_t)(shifted >> 23) - 127);
        const float f = from_bits((shifted & 0x007fffffu) + root_half) - 1.0f;
        const float s = f / (2.0f + f), z = s * s;
        float series = 2.0f / 9.0f; /* 2 atanh(s) = 2 s + s * series */
        series = series * z + 2.0f / 7.0f;
        series = series * z + 2.0f / 5.0f;
        series = series * z + 2.0f / 3.0f;
        series = series * z;
        const float square = 0.5f * f * f;
        const float low = k * LN2_LOW + lost / u;
        const float y = k * LN2_HIGH - ((square - (s * (square + series) + low)) - f);
        out[i] = from_bits(choose(finite, bits_of(y) | (all & 0x80000000u), all)); /* inf and NaN as they came */
    }
}
