#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* From the authors' own file of known answers (Random123, kat_vectors, philox4x32 10). */
static void agrees_with_the_published_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const ct_random4 got = ct_philox4x32(cases[i].counter, cases[i].key);
        for (size_t w = 0; w < 4; w++) assert_int_equal(got.word[w], cases[i].expected[w]);
    }
}

static void every_coordinate_matters(void **state) {
    (void)state;
    const uint64_t base = ct_random_u64(1, 2, 3, 4, 5);
    assert_true(base == ct_random_u64(1, 2, 3, 4, 5));
    assert_true(base != ct_random_u64(2, 2, 3, 4, 5));
    assert_true(base != ct_random_u64(1, 3, 3, 4, 5));
    assert_true(base != ct_random_u64(1, 2, 4, 4, 5));
    assert_true(base != ct_random_u64(1, 2, 3, 5, 5));
    assert_true(base != ct_random_u64(1, 2, 3, 4, 6));
    assert_true(base != ct_random_u64(1 | UINT64_C(1) << 63, 2, 3, 4, 5)); /* upper halves as well */
    assert_true(base != ct_random_u64(1, 2, 3, 4 | UINT64_C(1) << 63, 5));
    assert_true(ct_random_u64(1, 2, 3, 4, 5) != ct_random_u64(1, 3, 2, 4, 5)); /* place and epoch are not the same */
}

/* The key of one place is the other's xor a constant, so seeds that differ by it would collide; small seeds must not. */
static void places_do_not_share_keys(void **state) {
    (void)state;
    for (uint64_t seed_a = 0; seed_a < 50; seed_a++)
        for (uint64_t seed_b = 0; seed_b < 50; seed_b++)
            for (uint32_t place = 1; place < 7; place++)
                assert_true(ct_random_u64(seed_a, place, 0, 1, 0) != ct_random_u64(seed_b, place + 1, 0, 1, 0));
}

static void unit_is_uniform_below_one(void **state) {
    (void)state;
    enum { COUNT = 100000, BINS = 64 };
    size_t bins[BINS] = {0};
    double sum = 0, least = 1, most = 0;
    for (uint64_t i = 0; i < COUNT; i++) {
        const double u = ct_random_unit(7, CT_PLACE_TEST, 0, i, 0);
        assert_true(u >= 0 && u < 1);
        bins[(size_t)(u * BINS)]++;
        sum += u;
        if (u < least) least = u;
        if (u > most) most = u;
    }
    /* Mean: 5 deviations of 1 / sqrt(12 n). Chi-square of 63 degrees: mean 63, deviation sqrt(126) = 11.2; 5 of them. */
    assert_true(sum / COUNT > 0.5 - 5 * 0.000913 && sum / COUNT < 0.5 + 5 * 0.000913);
    assert_true(least < 0.001 && most > 0.999);
    double chi = 0;
    for (size_t b = 0; b < BINS; b++) {
        const double d = (double)bins[b] - (double)COUNT / BINS;
        chi += d * d / ((double)COUNT / BINS);
    }
    assert_true(chi > 63 - 5 * 11.2 && chi < 63 + 5 * 11.2);
}

static void unit_float_stays_below_one(void **state) {
    (void)state;
    assert_true(ct_unit_float(0) == 0.0f);
    assert_true(ct_unit_float(UINT32_MAX) < 1.0f);
    assert_true(ct_unit_float(UINT32_C(1) << 31) == 0.5f);
}

/* One at a time and many at once are the same numbers, for any length and where the number's upper half changes on the way. */
static void words_agree_with_single_draws(void **state) {
    (void)state;
    enum { MOST = 70 };
    static const uint64_t firsts[] = {0, 5, UINT64_C(0xfffffff0), UINT64_C(0x123456789abcdef0), UINT64_MAX - 9};
    for (size_t f = 0; f < sizeof firsts / sizeof *firsts; f++) {
        for (size_t n = 0; n <= MOST; n++) {
            uint32_t words[MOST + 1];
            memset(words, 0xa5, sizeof words);
            ct_random_words(UINT64_C(0xfedcba9876543210) + n, CT_PLACE_TEST, 7, firsts[f], UINT32_MAX - (uint32_t)n, words, n);
            for (size_t i = 0; i < n; i++) {
                const ct_random4 one =
                    ct_random(UINT64_C(0xfedcba9876543210) + n, CT_PLACE_TEST, 7, firsts[f] + i, UINT32_MAX - (uint32_t)n);
                assert_int_equal(words[i], one.word[0]);
            }
            assert_int_equal(words[n], 0xa5a5a5a5u); /* and no more than n */
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_published_answers), cmocka_unit_test(every_coordinate_matters),
        cmocka_unit_test(places_do_not_share_keys),          cmocka_unit_test(unit_is_uniform_below_one),
        cmocka_unit_test(unit_float_stays_below_one),        cmocka_unit_test(words_agree_with_single_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
