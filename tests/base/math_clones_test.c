/* The float functions give the same bits whatever they are compiled for: the same source is compiled here for each instruction set that
 * CT_HOT knows, and once more plain, and every version is run on every kind of float at every length and in place. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/math.h"

#undef CT_HOT
#define CT_HOT
#define bits_of             plain_bits_of
#define from_bits           plain_from_bits
#define choose              plain_choose
#define exp_below_zero      plain_exp_below_zero
#define ct_sigmoid_f32      plain_sigmoid
#define ct_signed_log1p_f32 plain_signed_log1p
void plain_sigmoid(const float *x, float *y, size_t n);
void plain_signed_log1p(const float *x, float *y, size_t n);
#include "base/math_f32.c"
#undef bits_of
#undef from_bits
#undef choose
#undef exp_below_zero
#undef ct_sigmoid_f32
#undef ct_signed_log1p_f32

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAVE_VERSIONS 1
#undef CT_HOT
#define CT_HOT              __attribute__((target("arch=x86-64-v3"), optimize("O3")))
#define bits_of             v3_bits_of
#define from_bits           v3_from_bits
#define choose              v3_choose
#define exp_below_zero      v3_exp_below_zero
#define ct_sigmoid_f32      v3_sigmoid
#define ct_signed_log1p_f32 v3_signed_log1p
void v3_sigmoid(const float *x, float *y, size_t n);
void v3_signed_log1p(const float *x, float *y, size_t n);
#include "base/math_f32.c"
#undef bits_of
#undef from_bits
#undef choose
#undef exp_below_zero
#undef ct_sigmoid_f32
#undef ct_signed_log1p_f32

#undef CT_HOT
#define CT_HOT              __attribute__((target("arch=x86-64-v4"), optimize("O3")))
#define bits_of             v4_bits_of
#define from_bits           v4_from_bits
#define choose              v4_choose
#define exp_below_zero      v4_exp_below_zero
#define ct_sigmoid_f32      v4_sigmoid
#define ct_signed_log1p_f32 v4_signed_log1p
void v4_sigmoid(const float *x, float *y, size_t n);
void v4_signed_log1p(const float *x, float *y, size_t n);
#include "base/math_f32.c"
#undef bits_of
#undef from_bits
#undef choose
#undef exp_below_zero
#undef ct_sigmoid_f32
#undef ct_signed_log1p_f32
#endif

typedef void (*function)(const float *x, float *y, size_t n);

enum { COUNT = 300007, STEP = 14293 }; /* COUNT * STEP is just below 2^32: all signs and exponents */

static void compare(const char *name, function reference, function other) {
    float *x = malloc(COUNT * sizeof *x), *one = malloc(COUNT * sizeof *one), *many = malloc(COUNT * sizeof *many);
    assert_true(x && one && many);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t u = i * STEP;
        memcpy(&x[i], &u, 4);
    }
    for (size_t i = 0; i < COUNT; i++) reference(&x[i], &one[i], 1);
    other(x, many, COUNT);
    print_message("%s\n", name);
    assert_memory_equal(one, many, COUNT * sizeof *one);
    for (size_t n = 0; n < 150; n++) { /* tails, and an address that is not aligned */
        memset(many, 0xee, 160 * sizeof *many);
        other(x + 100001, many + 1, n);
        assert_memory_equal(many + 1, one + 100001, n * sizeof *one);
        for (size_t i = n + 1; i < 160; i++) assert_memory_equal(&many[i], "\xee\xee\xee\xee", 4);
    }
    memcpy(many, x, COUNT * sizeof *x);
    other(many, many, COUNT); /* in place */
    assert_memory_equal(one, many, COUNT * sizeof *one);
    free(many);
    free(one);
    free(x);
}

static void chosen_version_agrees(void **state) {
    (void)state;
    compare("sigmoid, chosen", plain_sigmoid, ct_sigmoid_f32);
    compare("signed log1p, chosen", plain_signed_log1p, ct_signed_log1p_f32);
}

static void every_version_agrees(void **state) {
    (void)state;
#ifdef HAVE_VERSIONS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v3")) {
        compare("sigmoid, AVX2", plain_sigmoid, v3_sigmoid);
        compare("signed log1p, AVX2", plain_signed_log1p, v3_signed_log1p);
    } else {
        print_message("SKIP: this processor has no AVX2\n");
    }
    if (__builtin_cpu_supports("x86-64-v4")) {
        compare("sigmoid, AVX-512", plain_sigmoid, v4_sigmoid);
        compare("signed log1p, AVX-512", plain_signed_log1p, v4_signed_log1p);
    } else {
        print_message("SKIP: this processor has no AVX-512\n");
    }
#else
    print_message("SKIP: this compiler makes one version\n");
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_version_agrees),
        cmocka_unit_test(every_version_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
