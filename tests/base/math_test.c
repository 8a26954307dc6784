/* Errors are measured against libm in long double (64-bit significand), in units of the last place of the nearest result. */
#include "base/math.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"

static double unit(uint64_t number, uint32_t index) { return ct_random_unit(1, CT_PLACE_TEST, 0, number, index); }
static double between(double low, double high, uint64_t number, uint32_t index) { return low + (high - low) * unit(number, index); }

static double from_bits(uint64_t u) {
    double x;
    memcpy(&x, &u, 8);
    return x;
}
static float float_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static uint32_t bits_of_float(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

/* |got - exact| in ulp of exact, for a type with `digits` bits and least exponent `least` (of the ulp of subnormals). */
static double ulps(long double got, long double exact, int digits, int least) {
    if (got == exact) return 0;
    int exponent;
    (void)frexpl(exact, &exponent);
    int ulp = exponent - digits;
    if (exact == 0 || ulp < least) ulp = least;
    return (double)ldexpl(fabsl(got - exact), -ulp);
}
static double ulps_f64(double got, long double exact) { return ulps(got, exact, 53, -1074); }
static double ulps_f32(float got, long double exact) { return ulps(got, exact, 24, -149); }

typedef struct worst {
    double error, at;
} worst;
static void note(worst *w, double error, double at) {
    if (!(error <= w->error)) *w = (worst){error, at};
}
static void check(const char *name, worst w, double bound) {
    print_message("%-22s worst error %.3f ulp at %a (bound %g)\n", name, w.error, w.at, bound);
    assert_true(w.error < bound);
}

static void exp_is_close(void **state) {
    (void)state;
    worst all = {0}, near = {0}, subnormal = {0};
    for (uint64_t i = 0; i < 200000; i++) {
        double x = between(-708, 709.78, i, 0);
        note(&all, ulps_f64(ct_exp(x), expl(x)), x);
        x = between(-1, 1, i, 1) * exp2(-40 * unit(i, 2));
        note(&near, ulps_f64(ct_exp(x), expl(x)), x);
        x = between(-745.1, -708, i, 3);
        note(&subnormal, ulps_f64(ct_exp(x), expl(x)), x);
    }
    for (int k = -1074; k < 1024; k++) { /* beside the cuts of the reduction */
        const double cut = (k + 0.5) * 0.693147180559945309417;
        for (int d = -2; d <= 2; d++) {
            const double x = cut + d * 1e-13;
            if (x > -708 && x < 709.78) note(&all, ulps_f64(ct_exp(x), expl(x)), x);
        }
    }
    check("exp", all, 2);
    check("exp near 0", near, 2);
    check("exp subnormal", subnormal, 2);
    assert_true(ct_exp(0.0) == 1.0 && ct_exp(-0.0) == 1.0);
    assert_true(ct_exp(-746.0) == 0.0 && ct_exp(-1e300) == 0.0 && ct_exp(-INFINITY) == 0.0);
    assert_true(ct_exp(709.79) == INFINITY && ct_exp(1e300) == INFINITY && ct_exp(INFINITY) == INFINITY);
    assert_true(ct_exp(709.78) < INFINITY);
    assert_true(isnan(ct_exp(NAN)));
}

static void log_is_close(void **state) {
    (void)state;
    worst all = {0}, near = {0}, subnormal = {0};
    for (uint64_t i = 0; i < 300000; i++) {
        double x = from_bits(ct_random_u64(2, CT_PLACE_TEST, 0, i, 0) % UINT64_C(0x7ff0000000000000));
        if (x > 0) note(&all, ulps_f64(ct_log(x), logl(x)), x);
        x = 1 + between(-0.5, 1, i, 1) * exp2(-52 * unit(i, 2));
        note(&near, ulps_f64(ct_log(x), logl(x)), x);
        x = from_bits(ct_random_u64(2, CT_PLACE_TEST, 0, i, 3) >> (12 + i % 51));
        if (x > 0) note(&subnormal, ulps_f64(ct_log(x), logl(x)), x);
    }
    for (int k = -1000; k < 1000; k++)
        for (int d = -3; d <= 3; d++) { /* beside the cuts of the reduction */
            const double x = ldexp(0.70710678118654752440 * (1 + d * DBL_EPSILON), k);
            note(&all, ulps_f64(ct_log(x), logl(x)), x);
        }
    check("log", all, 2);
    check("log near 1", near, 2);
    check("log subnormal", subnormal, 2);
    assert_true(ct_log(1.0) == 0.0);
    assert_true(ct_log(0.0) == -INFINITY && ct_log(-0.0) == -INFINITY);
    assert_true(ct_log(INFINITY) == INFINITY);
    assert_true(isnan(ct_log(-1.0)) && isnan(ct_log(-INFINITY)) && isnan(ct_log(NAN)));
}

static void log1p_is_close(void **state) {
    (void)state;
    worst all = {0}, small = {0}, below = {0};
    for (uint64_t i = 0; i < 300000; i++) {
        double x = exp2(between(-60, 1000, i, 0));
        note(&all, ulps_f64(ct_log1p(x), log1pl(x)), x);
        x = between(-1, 1, i, 1) * exp2(-70 * unit(i, 2));
        note(&small, ulps_f64(ct_log1p(x), log1pl(x)), x);
        x = -1 + exp2(-52 * unit(i, 3));
        if (x > -1) note(&below, ulps_f64(ct_log1p(x), log1pl(x)), x);
    }
    check("log1p", all, 4);
    check("log1p near 0", small, 4);
    check("log1p near -1", below, 4);
    assert_true(ct_log1p(0.0) == 0.0 && ct_log1p(1e-300) == 1e-300);
    assert_true(ct_log1p(-1.0) == -INFINITY && ct_log1p(INFINITY) == INFINITY);
    assert_true(isnan(ct_log1p(-1.5)) && isnan(ct_log1p(NAN)));
}

static void sigmoid_and_softplus_are_close(void **state) {
    (void)state;
    worst sigmoid = {0}, softplus = {0};
    for (uint64_t i = 0; i < 200000; i++) {
        const double x = between(-700, 700, i, 0) * (i % 2 ? 1 : 0.02);
        note(&sigmoid, ulps_f64(ct_sigmoid(x), 1 / (1 + expl(-(long double)x))), x);
        const long double exact = x > 0 ? x + log1pl(expl(-(long double)x)) : log1pl(expl((long double)x));
        note(&softplus, ulps_f64(ct_softplus(x), exact), x);
    }
    check("sigmoid", sigmoid, 4);
    check("softplus", softplus, 4);
    assert_true(ct_sigmoid(0.0) == 0.5 && ct_sigmoid(1000.0) == 1.0 && ct_sigmoid(-1000.0) == 0.0);
    assert_true(ct_sigmoid(INFINITY) == 1.0 && ct_sigmoid(-INFINITY) == 0.0 && isnan(ct_sigmoid(NAN)));
    assert_true(ct_softplus(1e300) == 1e300 && ct_softplus(-1e300) == 0.0 && isnan(ct_softplus(NAN)));
    assert_true(ct_softplus(INFINITY) == INFINITY && ct_softplus(-INFINITY) == 0.0);
}

/* One Newton step in long double from our value tells how far it is off. */
static double quantile_error(double p) {
    const long double x = ct_normal_quantile(p), root_half = 0.707106781186547524400844362104849039L;
    /* Both tails are compared where they are small, so that nothing cancels. */
    const long double off = p < 0.5 ? erfcl(-x * root_half) / 2 - (long double)p : (1 - (long double)p) - erfcl(x * root_half) / 2;
    const long double density = expl(-x * x / 2) * 0.398942280401432677939946059934381868L;
    return (double)fabsl(off / density / x);
}

static void normal_quantile_is_close(void **state) {
    (void)state;
    double error = 0;
    for (uint64_t i = 0; i < 50000; i++) {
        double e = quantile_error(unit(i, 0) * 0.999998 + 1e-6);
        if (!(e <= error)) error = e;
        e = quantile_error(exp2(-1 - 1020 * unit(i, 1))); /* far into the lower tail */
        if (!(e <= error)) error = e;
        e = quantile_error(1 - exp2(-2 - 50 * unit(i, 2)));
        if (!(e <= error)) error = e;
    }
    print_message("normal quantile: worst relative error %.3g\n", error);
    assert_true(error < 1e-14); /* 1e-9 is promised; a wrong digit in a coefficient shows earlier */
    assert_true(ct_normal_quantile(0.5) == 0.0);
    assert_true(fabs(ct_normal_quantile(0.975) - 1.959963984540054) < 1e-14);
    assert_true(ct_normal_quantile(0.025) < -1.95);
    assert_true(isnan(ct_normal_quantile(-0.1)) && isnan(ct_normal_quantile(1.1)) && isnan(ct_normal_quantile(NAN)));
}

/* Every 1,009th float of all there are. */
static void float_functions_are_close(void **state) {
    (void)state;
    worst sigmoid = {0}, log1p_worst = {0};
    for (uint64_t u = 0; u <= UINT32_MAX; u += 1009) {
        const float x = float_from_bits((uint32_t)u);
        float y, z;
        ct_sigmoid_f32(&x, &y, 1);
        ct_signed_log1p_f32(&x, &z, 1);
        if (isnan(x)) {
            assert_true(isnan(y) && isnan(z));
            continue;
        }
        note(&sigmoid, ulps_f32(y, 1 / (1 + expl(-(long double)x))), (double)x);
        assert_true(signbit(z) == signbit(x));
        if (isfinite(x)) note(&log1p_worst, ulps_f32(fabsf(z), log1pl(fabsl((long double)x))), (double)x);
    }
    check("sigmoid f32", sigmoid, 4);
    check("signed log1p f32", log1p_worst, 4);
    const float x[6] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, -NAN};
    float y[6];
    ct_sigmoid_f32(x, y, 6);
    assert_true(y[0] == 0.5f && y[1] == 0.5f && y[2] == 1.0f && y[3] == 0.0f && isnan(y[4]) && isnan(y[5]));
    ct_signed_log1p_f32(x, y, 6);
    assert_true(y[0] == 0.0f && !signbit(y[0]) && y[1] == 0.0f && signbit(y[1]));
    assert_true(y[2] == INFINITY && y[3] == -INFINITY && isnan(y[4]) && isnan(y[5]));
}

/* The nearest bf16 by its definition: of the two neighbours, in exact arithmetic, ties to the even one. */
static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint64_t u = 0; u <= UINT32_MAX; u += 4093) {
        const float x = float_from_bits((uint32_t)u);
        const uint16_t got = ct_bf16_from_f32(x);
        if (isnan(x)) {
            assert_true(isnan(ct_f32_from_bf16(got)));
            continue;
        }
        const uint16_t down = (uint16_t)(u >> 16), up = (uint16_t)(down + 1); /* towards zero and away from it */
        if (isinf(x)) {
            assert_int_equal(got, down);
            continue;
        }
        const double low = (double)ct_f32_from_bf16(down);
        /* What would be infinity counts as the next power of two. */
        const double high = (up & 0x7fff) == 0x7f80 ? copysign(0x1p128, (double)x) : (double)ct_f32_from_bf16(up);
        const double to_low = fabs((double)x - low), to_high = fabs(high - (double)x);
        const uint16_t expected = to_low < to_high ? down : to_high < to_low ? up : (down & 1) ? up : down;
        assert_int_equal(got, expected);
    }
    assert_int_equal(bits_of_float(ct_f32_from_bf16(0x3f80)), 0x3f800000);
    assert_int_equal(ct_bf16_from_f32(1.0f), 0x3f80);
    assert_int_equal(ct_bf16_from_f32(float_from_bits(0x7f800001u)) & 0x7fc0, 0x7fc0); /* a NaN with low bits only stays one */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_close),
        cmocka_unit_test(log_is_close),
        cmocka_unit_test(log1p_is_close),
        cmocka_unit_test(sigmoid_and_softplus_are_close),
        cmocka_unit_test(normal_quantile_is_close),
        cmocka_unit_test(float_functions_are_close),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
