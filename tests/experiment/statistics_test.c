/* Statistics against textbooks, closed forms and the jackknife; then what they promise, over many simulated experiments. */
#include "experiment/statistics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/math.h"
#include "base/random.h"
#include "experiment/power.h"

static void assert_close(double actual, double expected, double bound) {
    if (!(fabs(actual - expected) <= bound)) {
        printf("got %.17g, expected %.17g within %g\n", actual, expected, bound);
        fail();
    }
}

static double unit(uint64_t number, uint32_t index) { return ct_random_unit(23, CT_PLACE_TEST, 0, number, index); }
static double normal(uint64_t number, uint32_t index) { return ct_normal_quantile(unit(number, index) * (1.0 - 1e-12) + 5e-13); }

/* --- fixed values --- */

/* Student, "The probable error of a mean" (1908): hours of sleep gained with two drugs. */
static void test_student_sleep(void **state) {
    (void)state;
    static const double first[] = {0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0},
                        second[] = {1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
    ct_arm_sums a = {0}, b = {0};
    for (size_t i = 0; i < 10; i++) {
        ct_arm_sums_add(&a, first[i], 1.0, 0.0);
        ct_arm_sums_add(&b, second[i], 1.0, 0.0);
    }
    const ct_difference d = ct_ratio_difference(&a, &b, false);
    assert_close(ct_ratio(&a).value, 0.75, 1e-12);
    assert_close(ct_ratio(&b).value, 2.33, 1e-12);
    assert_close(d.estimate, 1.58, 1e-12);
    assert_close(d.estimate / sqrt(d.variance), 1.8608, 5e-5); /* Welch's t, in every textbook of R */
    assert_close(d.lift, 2.33 / 0.75 - 1.0, 1e-12);
    const ct_range fixed = ct_fixed_interval(d.estimate, d.variance, 0.05);
    assert_close(fixed.high - fixed.low, 2.0 * 1.959963984540054 * 1.58 / 1.8608, 2e-4);
}

/* Mendel's peas: 315 : 108 : 101 : 32 against 9 : 3 : 3 : 1 gives 0.470, p 0.925. */
static void test_sample_ratio(void **state) {
    (void)state;
    assert_close(ct_sample_ratio_p((const double[]){315, 108, 101, 32}, (const double[]){9, 3, 3, 1}, 4), 0.9254, 1e-4);
    /* One degree of freedom: 2 (1 - Phi(z)); 520 of 1,000: z = 20 / sqrt(250). */
    assert_close(ct_sample_ratio_p((const double[]){480, 520}, (const double[]){1, 1}, 2), erfc(20.0 / sqrt(250.0) / sqrt(2.0)), 1e-12);
    /* 1 % at a million units: 505,000 against 495,000. */
    assert_true(ct_sample_ratio_p((const double[]){505000, 495000}, (const double[]){50, 50}, 2) < CT_MISMATCH_P);
    assert_true(ct_sample_ratio_p((const double[]){99000, 901000}, (const double[]){10, 90}, 2) <
                CT_MISMATCH_P); /* 1 % of an arm of 10 % */
    assert_true(ct_sample_ratio_p((const double[]){500400, 499600}, (const double[]){50, 50}, 2) > CT_MISMATCH_P);
    assert_true(isnan(ct_sample_ratio_p((const double[]){5}, (const double[]){1}, 1)));
    assert_true(isnan(ct_sample_ratio_p((const double[]){0, 0}, (const double[]){1, 1}, 2)));
}

static void test_jackknife(void **state) {
    (void)state;
    /* The delta method's variance of a ratio and the jackknife's agree up to 1 / n. */
    enum { N = 4000 };
    static double y[N], x[N];
    ct_arm_sums all = {0};
    for (size_t i = 0; i < N; i++) {
        x[i] = 1.0 + floor(unit(i, 1) * 9.0);
        y[i] = floor(x[i] * unit(i, 2));
        ct_arm_sums_add(&all, y[i], x[i], 0.0);
    }
    double mean = 0.0, squares = 0.0;
    for (size_t i = 0; i < N; i++) mean += (all.y - y[i]) / (all.x - x[i]) / N;
    for (size_t i = 0; i < N; i++) {
        const double left = (all.y - y[i]) / (all.x - x[i]) - mean;
        squares += left * left;
    }
    const ct_estimate ratio = ct_ratio(&all);
    assert_close(ratio.value, all.y / all.x, 1e-15);
    assert_close(ratio.variance / (squares * (N - 1) / N), 1.0, 3e-3);
    /* Adding and removing units leaves the sums. */
    ct_arm_sums sums = all;
    ct_arm_sums_add(&sums, 3.0, 7.0, 1.0);
    ct_arm_sums_remove(&sums, 3.0, 7.0, 1.0);
    assert_memory_equal(&sums, &all, sizeof sums);
    const ct_arm_sums one = {.n = 1, .x = 1};
    assert_true(isnan(ct_ratio(&one).value) && isnan(ct_ratio_difference(&one, &all, false).estimate));
}

static void test_power_by_hand(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_power_options o = CT_POWER_OPTIONS_INIT;
    ct_power_need need;
    /* 10 % against 15 %: (1.959964 + 0.841621)^2 (0.09 + 0.1275) / 0.0025 = 682.8 for each arm (Fleiss' table without correction: 683) */
    o.rate = 0.10, o.lift = 0.5;
    assert_int_equal(ct_power_units(&o, &need, &status), CT_OK);
    assert_close(need.units, 1366, 0);
    /* Ten rows a unit with correlation 0.2: rows count for 1 / 2.8; a covariate of correlation 0.6 takes 36 % off. */
    o.rows_per_unit = 10, o.correlation = 0.2, o.covariate_correlation = 0.6;
    assert_int_equal(ct_power_units(&o, &need, &status), CT_OK);
    assert_close(need.units, ceil(1365.706 * 2.8 / 10.0 * 0.64), 1);
    assert_close(need.rows, 10.0 * need.units, 0);
    /* There and back. */
    double lift, sequence_lift;
    assert_int_equal(ct_power_lift(&o, need.units, &lift, &sequence_lift, &status), CT_OK);
    assert_close(lift, 0.5, 0.005);
    assert_true(sequence_lift > lift);
    assert_int_equal(ct_power_lift(&o, need.sequence_units, &lift, &sequence_lift, &status), CT_OK);
    assert_close(sequence_lift, 0.5, 0.005);
    assert_true(need.sequence_units > need.units && need.sequence_units < 3.0 * need.units);
    o.rate = 0.9;
    assert_int_equal(ct_power_lift(&o, 2, &lift, &sequence_lift, &status), CT_OK);
    assert_true(isinf(lift));
    o.rate = 1.5;
    assert_int_equal(ct_power_units(&o, &need, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "rate is 1.5"));
    o.rate = 0.5, o.lift = 1.5;
    assert_int_equal(ct_power_units(&o, &need, &status), CT_INVALID);
    o.lift = 0;
    assert_int_equal(ct_power_units(&o, &need, &status), CT_INVALID);
    assert_int_equal(ct_power_lift(&o, 1, &lift, &sequence_lift, &status), CT_INVALID);
}

static void test_sequence_width(void **state) {
    (void)state;
    /* Narrowest, against the plain n^-1/2, at the plan; always wider than 1.96; alpha 0.05 by hand: K = 5.99146 + log(6.99146) = 7.93616.
     */
    const double k = 7.936155;
    assert_close(ct_sequence_width(1000, 1000, 0.05), sqrt((1 + 1 / k) * (5.991465 + log(1 + k))), 1e-5);
    const double at = ct_sequence_width(1000, 1000, 0.05);
    assert_true(at / sqrt(1000) < ct_sequence_width(900, 1000, 0.05) / sqrt(900));
    for (double n = 10; n < 1e7; n *= 3) {
        assert_true(ct_sequence_width(n, 1000, 0.05) > 1.96);
        assert_true(ct_sequence_width(n, 1000, 0.01) > ct_sequence_width(n, 1000, 0.05));
    }
    const ct_range range = ct_confidence_sequence(2.0, 4.0, 1000, 1000, 0.05);
    assert_close(range.high - 2.0, 2.0 * at, 1e-12);
    assert_close(2.0 - range.low, 2.0 * at, 1e-12);
}

/* --- coverage ---
 * A unit has 1 to 8 impressions and a click rate of its own, from 0.02 to 0.38 in A, so its impressions are far from independent; in B all
 * rates are 1 + lift times as high. A covariate is a number with a planted correlation to the unit's rate. */

static void simulate(uint64_t experiment, uint64_t i, double lift, bool *out_b, double *y, double *x) {
    const uint64_t number = (experiment << 24) + i;
    const ct_random4 r = ct_random(29, CT_PLACE_TEST, 0, number, 0);
    const double rate = (0.02 + 0.36 * (double)r.word[1] * 0x1p-32) * (1.0 + ((r.word[0] >> 31) ? lift : 0.0));
    const uint32_t impressions = 1 + r.word[0] % 8;
    *out_b = r.word[0] >> 31;
    *x = (double)impressions;
    *y = 0.0;
    for (uint32_t k = 0; k < impressions; k += 4) {
        const ct_random4 draws = ct_random(29, CT_PLACE_TEST, 0, number, 1 + k);
        for (uint32_t j = 0; j < 4 && k + j < impressions; j++) *y += (double)draws.word[j] * 0x1p-32 < rate ? 1.0 : 0.0;
    }
}

static void test_peeking(void **state) {
    (void)state;
    enum { EXPERIMENTS = 500, PEEKS = 50, UNITS = 10000 };
    size_t sequence_claims = 0, fixed_claims = 0;
    for (uint64_t e = 0; e < EXPERIMENTS; e++) {
        ct_arm_sums arms[2] = {0};
        bool by_sequence = false, by_fixed = false;
        for (uint64_t i = 0; i < UNITS; i++) {
            bool b;
            double y, x;
            simulate(e, i, 0.0, &b, &y, &x);
            ct_arm_sums_add(&arms[b], y, x, 0.0);
            if ((i + 1) % (UNITS / PEEKS) != 0) continue;
            const ct_difference d = ct_ratio_difference(&arms[0], &arms[1], false);
            const ct_range sequence = ct_confidence_sequence(d.estimate, d.variance, (double)(i + 1), 5000, 0.05),
                           fixed = ct_fixed_interval(d.estimate, d.variance, 0.05);
            by_sequence = by_sequence || sequence.low > 0.0 || sequence.high < 0.0;
            by_fixed = by_fixed || fixed.low > 0.0 || fixed.high < 0.0;
        }
        sequence_claims += by_sequence;
        fixed_claims += by_fixed;
    }
    printf("%d A/A experiments, %d looks: the confidence sequence claims a difference in %zu, the fixed interval in %zu\n", EXPERIMENTS,
           PEEKS, sequence_claims, fixed_claims);
    assert_in_range(sequence_claims, 0, EXPERIMENTS * 5 / 100);
    assert_in_range(fixed_claims, EXPERIMENTS * 20 / 100, EXPERIMENTS); /* the test can tell */
}

static void test_fixed_horizon(void **state) {
    (void)state;
    enum { RUNS = 1000, UNITS = 3000 };
    const double lift = 0.1;
    size_t covered = 0, lift_covered = 0, rows_covered = 0;
    for (uint64_t e = 0; e < RUNS; e++) {
        ct_arm_sums arms[2] = {0};
        for (uint64_t i = 0; i < UNITS; i++) {
            bool b;
            double y, x;
            simulate(1000 + e, i, lift, &b, &y, &x);
            ct_arm_sums_add(&arms[b], y, x, 0.0);
        }
        const ct_difference d = ct_ratio_difference(&arms[0], &arms[1], false);
        const ct_range fixed = ct_fixed_interval(d.estimate, d.variance, 0.05), of_lift = ct_fixed_interval(d.lift, d.lift_variance, 0.05);
        const double truth = 0.2 * lift, pa = arms[0].y / arms[0].x, pb = arms[1].y / arms[1].x;
        const ct_range rows = ct_fixed_interval(d.estimate, pa * (1 - pa) / arms[0].x + pb * (1 - pb) / arms[1].x, 0.05);
        covered += fixed.low <= truth && truth <= fixed.high;
        lift_covered += of_lift.low <= lift && lift <= of_lift.high;
        rows_covered += rows.low <= truth && truth <= rows.high;
    }
    printf("%d runs: the fixed interval holds the difference in %zu, the lift in %zu; with rows as the unit in %zu\n", RUNS, covered,
           lift_covered, rows_covered);
    assert_in_range(covered, RUNS * 93 / 100, RUNS * 97 / 100);
    assert_in_range(lift_covered, RUNS * 93 / 100, RUNS * 97 / 100);
    assert_in_range(rows_covered, 0, RUNS * 93 / 100); /* the test can tell */
}

static void test_cuped(void **state) {
    (void)state;
    enum { UNITS = 40000 };
    static const double correlations[] = {0.0, 0.3, 0.6, 0.9};
    for (size_t r = 0; r < 4; r++) {
        ct_arm_sums arms[2] = {0};
        for (uint64_t i = 0; i < UNITS; i++) {
            const double c = normal(i, 40), noise = normal(i, 41);
            const bool b = unit(i, 42) < 0.3;
            const double y = 5.0 + (b ? 0.1 : 0.0) + correlations[r] * c + sqrt(1.0 - correlations[r] * correlations[r]) * noise;
            ct_arm_sums_add(&arms[b], y, 1.0, 3.0 + 2.0 * c);
        }
        const ct_difference plain = ct_ratio_difference(&arms[0], &arms[1], false), cuped = ct_ratio_difference(&arms[0], &arms[1], true);
        assert_close(cuped.reduction, correlations[r] * correlations[r], 0.015);
        assert_close(cuped.variance / plain.variance, 1.0 - correlations[r] * correlations[r], 0.015);
        assert_close(cuped.theta, correlations[r] / 2.0, 0.02);
        assert_true(fabs(cuped.estimate - 0.1) < 4.0 * sqrt(cuped.variance));
    }
    /* Over many experiments: the intervals with CUPED hold the truth as they should, and are narrower. */
    size_t covered = 0;
    for (uint64_t e = 0; e < 500; e++) {
        ct_arm_sums arms[2] = {0};
        for (uint64_t i = 0; i < 1000; i++) {
            const uint64_t number = (e << 20) + i;
            const double c = normal(number, 50);
            const bool b = unit(number, 51) < 0.5;
            ct_arm_sums_add(&arms[b], (b ? 0.2 : 0.0) + 0.7 * c + 0.7 * normal(number, 52), 1.0, c);
        }
        const ct_difference d = ct_ratio_difference(&arms[0], &arms[1], true);
        const ct_range fixed = ct_fixed_interval(d.estimate, d.variance, 0.05);
        covered += fixed.low <= 0.2 && 0.2 <= fixed.high;
    }
    printf("500 runs with CUPED: %zu hold the difference\n", covered);
    assert_in_range(covered, 500 * 92 / 100, 500 * 98 / 100);
    /* A covariate that does not vary changes nothing. */
    ct_arm_sums a = {0}, b = {0};
    for (uint64_t i = 0; i < 10; i++) {
        ct_arm_sums_add(&a, unit(i, 60), 1.0, 4.0);
        ct_arm_sums_add(&b, unit(i, 61), 1.0, 4.0);
    }
    const ct_difference with = ct_ratio_difference(&a, &b, true), without = ct_ratio_difference(&a, &b, false);
    assert_memory_equal(&with, &without, sizeof with);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_student_sleep), cmocka_unit_test(test_sample_ratio),   cmocka_unit_test(test_jackknife),
        cmocka_unit_test(test_power_by_hand), cmocka_unit_test(test_sequence_width), cmocka_unit_test(test_peeking),
        cmocka_unit_test(test_fixed_horizon), cmocka_unit_test(test_cuped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
