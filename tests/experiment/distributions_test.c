/* Distributions against printed tables and closed forms. */
#include "experiment/distributions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

static void assert_relative(double actual, double expected, double bound) {
    if (!(fabs(actual - expected) <= bound * fabs(expected))) {
        printf("got %.17g, expected %.17g within a relative %g\n", actual, expected, bound);
        fail();
    }
}

static void test_normal(void **state) {
    (void)state;
    /* Abramowitz and Stegun, table 26.1 */
    assert_relative(ct_normal_two_sided(1.0), 2 * (1 - 0.841344746068543), 1e-13);
    assert_relative(ct_normal_two_sided(-2.0), 2 * 0.022750131948179, 1e-12);
    assert_relative(ct_normal_two_sided(3.0), 2 * (1 - 0.998650101968370), 1e-12);
    assert_relative(ct_normal_two_sided(-1.959963984540054), 0.05, 1e-12);
    assert_true(ct_normal_two_sided(0.0) == 1.0);
}

static void test_chi_square(void **state) {
    (void)state;
    /* Upper points as every textbook's table has them (six digits). */
    static const double points[][3] = {{3.841459, 1, 0.05},  {6.634897, 1, 0.01},   {5.991465, 2, 0.05},  {18.30704, 10, 0.05},
                                       {37.56623, 20, 0.01}, {124.3421, 100, 0.05}, {0.00393214, 1, 0.95}};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        assert_relative(ct_chi_square_above(points[i][0], points[i][1]), points[i][2], 2e-6);
    /* Two degrees of freedom: exp(-x / 2); one: erfc(sqrt(x / 2)); four: exp(-x / 2) (1 + x / 2). */
    for (double x = 0.01; x < 600.0; x *= 1.7) {
        assert_relative(ct_chi_square_above(x, 2), exp(-x / 2.0), 1e-11);
        assert_relative(ct_chi_square_above(x, 1), erfc(sqrt(x / 2.0)), 1e-11);
        assert_relative(ct_chi_square_above(x, 4), exp(-x / 2.0) * (1.0 + x / 2.0), 1e-11);
    }
    assert_true(ct_chi_square_above(0.0, 3) == 1.0 && isnan(ct_chi_square_above(1.0, 0)) && isnan(ct_chi_square_above(NAN, 1)));
}

static void test_student(void **state) {
    (void)state;
    static const double points[][2] = {{1, 12.7062047},  {2, 4.30265273},  {4, 2.77644511},
                                       {10, 2.22813885}, {30, 2.04227246}, {120, 1.97993041}};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        assert_relative(ct_student_two_sided_quantile(0.05, points[i][0]), points[i][1], 1e-8);
        assert_relative(ct_student_two_sided(points[i][1], points[i][0]), 0.05, 1e-7);
    }
    /* One degree of freedom is Cauchy's: 1 - 2 atan(t) / pi; two: 1 - t / sqrt(2 + t^2). */
    for (double t = 0.01; t < 1e6; t *= 3.1) {
        assert_relative(ct_student_two_sided(t, 1), 2.0 / M_PI * atan(1.0 / t), 1e-10);
        assert_relative(ct_student_two_sided(-t, 2), 2.0 / (sqrt(2.0 + t * t) * (sqrt(2.0 + t * t) + t)), 1e-10);
    }
    assert_relative(ct_student_two_sided_quantile(0.05, INFINITY), 1.959963984540054, 1e-12);
    assert_relative(ct_student_two_sided(1.5, 1e7), ct_normal_two_sided(1.5), 1e-6);
    assert_true(ct_student_two_sided(0.0, 5) == 1.0 && ct_student_two_sided(INFINITY, 5) == 0.0 && isnan(ct_student_two_sided(1.0, 0)));
    assert_true(isnan(ct_student_two_sided_quantile(0.0, 5)) && isnan(ct_student_two_sided_quantile(1.0, 5)));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_normal), cmocka_unit_test(test_chi_square), cmocka_unit_test(test_student)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
