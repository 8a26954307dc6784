/* Elementary functions from +, -, *, / and bit operations alone, so that the bits are the same on any machine (IEEE 754, no contraction)
 * and loops over them vectorise. Errors are measured in tests against libm in long double. */
#ifndef BASE_MATH_H
#define BASE_MATH_H

#include <stddef.h>
#include <stdint.h>

/* Of numbers that people give us to be summed: with either sign no further, so that sums of their squares stay within a double's range. */
#define CT_MOST_SUMMED 1e100

double ct_exp(double x);             /* 0 below -745, inf above 709.78; error below 2 ulp; NaN stays NaN */
double ct_log(double x);             /* natural; -inf at 0, NaN below; error below 2 ulp */
double ct_log1p(double x);           /* error below 4 ulp */
double ct_sigmoid(double x);         /* 1 / (1 + exp(-x)), no overflow */
double ct_softplus(double x);        /* log(1 + exp(x)), no overflow: log loss of logit z and label y is softplus(z) - y z */
double ct_normal_quantile(double p); /* inverse of the standard normal distribution, 0 < p < 1; relative error below 1e-9 (Acklam + one
                                        Newton/Halley step, or Wichura AS 241) */

/* Floats, for hot loops (inline-able, branch-free): error below 4 ulp in the range used. */
void ct_sigmoid_f32(const float *logit /* (n) */, float *out_probability /* (n), may be logit */, size_t n);
void ct_signed_log1p_f32(const float *x /* (n) */, float *out /* (n) */, size_t n); /* sign(x) log(1 + |x|); NaN stays NaN */

/* bf16: round to nearest even, NaN stays NaN. */
static inline uint16_t ct_bf16_from_f32(float value) {
    union {
        float f;
        uint32_t u;
    } bits = {value};
    if ((bits.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits.u >> 16) | 0x40u);
    return (uint16_t)((bits.u + 0x7fffu + ((bits.u >> 16) & 1u)) >> 16);
}
static inline float ct_f32_from_bf16(uint16_t value) {
    union {
        uint32_t u;
        float f;
    } bits = {(uint32_t)value << 16};
    return bits.f;
}

/* Put before a hot loop's function: compiled once for AVX-512, AVX2 and plain x86-64, chosen at start, and with the vectoriser of -O3
 * (that of -O2 leaves loops alone whose length is not known). Bits agree across them as long as the loop does not let the compiler reorder
 * a sum (it may not: no fast-math; write sums with explicit lanes). gcc only; nothing with a sanitizer, whose start-up the choice would
 * come before. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CT_HOT __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define CT_HOT
#endif

#endif
