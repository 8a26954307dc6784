/* Halves against the compiler's own, all of them; and rounding at random: never further than to a neighbour, and true on average. */
#include "embedding_store/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/random.h"

enum { STEPS = 1 << 13, INFINITE = 0x7c00 };

static float theirs(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return (float)half;
}

static void test_all_halves(void **unused) {
    (void)unused;
    for (uint32_t bits = 0; bits < 1 << 16; bits++) {
        const uint16_t half = (uint16_t)bits;
        if ((half & INFINITE) == INFINITE) continue;
        const float value = ct_half_to_float(half), wanted = theirs(half);
        if (memcmp(&value, &wanted, sizeof value) != 0) fail_msg("half %04x is %.9g, should be %.9g", half, (double)value, (double)wanted);
        assert_int_equal(ct_half_of(value, 0), half); /* what is a half stays what it is, whatever is drawn */
        assert_int_equal(ct_half_of(value, CT_HALF_NEAREST), half);
        assert_int_equal(ct_half_of(value, STEPS - 1), half);
    }
}

/* Over all draws: the sum is the value times their number, exactly where the float has no more than 13 bits more than the half. */
static void test_mean(void **unused) {
    (void)unused;
    for (uint64_t n = 0; n < 3000; n++) {
        const ct_random4 random = ct_random(3, CT_PLACE_TEST, 0, n, 0);
        const double scale = ldexp(1.0, (int)(random.word[0] % 40) - 26); /* 2^-26 .. 2^13 */
        const float value = (float)((random.word[2] & 1 ? -1.0 : 1.0) * scale * (1.0 + (double)random.word[1] * 0x1p-32));
        double sum = 0, least = INFINITY, most = -INFINITY;
        for (uint32_t r = 0; r < STEPS; r++) {
            const double rounded = (double)theirs(ct_half_of(value, r));
            sum += rounded;
            least = fmin(least, rounded);
            most = fmax(most, rounded);
        }
        const double step = fmax(0x1p-24, ldexp(1.0, ilogbf(value) - 10)), error = fabs(sum / STEPS - (double)value);
        assert_true(most - least <= step && least <= (double)value && most >= (double)value);
        if (fabsf(value) >= 0x1p-14f ? error != 0 : error > step / STEPS) fail_msg("%.9g: the mean is %.9g", (double)value, sum / STEPS);
        const double nearest = (double)theirs(ct_half_of(value, CT_HALF_NEAREST));
        assert_true(fabs(nearest - (double)value) <= step / 2);
    }
}

static void test_edges(void **unused) {
    (void)unused;
    assert_int_equal(ct_half_of(65504.0f, STEPS - 1), 0x7bff);
    assert_int_equal(ct_half_of(65519.0f, CT_HALF_NEAREST), 0x7bff);
    assert_int_equal(ct_half_of(65535.0f, STEPS - 1), INFINITE); /* rounded up, it is more than there is: seen as divergence */
    assert_int_equal(ct_half_of(-1e9f, 0), 0x8000 | INFINITE);
    assert_int_equal(ct_half_of((float)INFINITY, 0), INFINITE);
    assert_int_equal(ct_half_of((float)NAN, 0) & 0x7fff, 0x7e00);
    assert_int_equal(ct_half_of(1e-30f, STEPS - 1), 0);
    assert_int_equal(ct_half_of(0x1p-25f, CT_HALF_NEAREST), 1);
    assert_int_equal(ct_half_of(0x1.ffcp-15f, STEPS - 1), 0x400); /* from the largest subnormal one to the smallest normal one */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_halves), cmocka_unit_test(test_mean), cmocka_unit_test(test_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
