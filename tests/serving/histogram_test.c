/* The histogram of latencies beside the sorted values themselves. */
#include "serving/histogram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
/* after them */
#include <cmocka.h>

#include "base/random.h"

static int by_value(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* values: (count), sorted here. A quantile is never below that of the values, and at most 1/128 above it. */
static void check_quantiles(int64_t *values, size_t count) {
    static const double shares[] = {0, 0.001, 0.1, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 1};
    ct_histogram *histogram = calloc(1, sizeof *histogram);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        ct_histogram_add(histogram, values[i]);
        sum += (double)values[i];
    }
    qsort(values, count, sizeof *values, by_value);
    for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
        const size_t rank = (size_t)ceil(shares[s] * (double)count); /* of so many values none is above it */
        const int64_t exact = values[rank ? rank - 1 : 0], got = ct_histogram_quantile(histogram, shares[s]);
        if (got < exact || (double)got > (double)exact * (1 + 1.0 / 128))
            fail_msg("share %g of %zu values: %lld, exactly %lld", shares[s], count, (long long)got, (long long)exact);
    }
    assert_int_equal(ct_histogram_quantile(histogram, 1), values[count - 1]);
    assert_int_equal(histogram->count, count);
    assert_true(fabs(ct_histogram_mean(histogram) - sum / (double)count) <= 1e-9 * sum);
    free(histogram);
}

static void test_quantiles(void **state) {
    (void)state;
    enum { MOST = 20000 };
    static const size_t counts[] = {1, 2, 3, 10, 101, 1000, MOST};
    int64_t *values = calloc(MOST, sizeof *values);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (uint32_t kind = 0; kind < 3; kind++) { /* of one magnitude; of all of them, up to an hour; a few far above the rest */
            for (size_t i = 0; i < counts[c]; i++) {
                const double unit = ct_random_unit(1, CT_PLACE_TEST, kind, i, 0);
                values[i] = (int64_t)(kind == 0      ? 1e6 * (1 + unit)
                                      : kind == 1    ? exp(unit * log(3.6e12))
                                      : i % 100 == 7 ? 1e9 * unit
                                                     : 5e5 * unit);
            }
            check_quantiles(values, counts[c]);
        }
    free(values);
}

/* Where buckets begin and end. */
static void test_edges(void **state) {
    (void)state;
    for (unsigned bit = 0; bit < CT_HISTOGRAM_MAX_BITS; bit++)
        for (int64_t off = -1; off <= 1; off++) {
            int64_t two[] = {(INT64_C(1) << bit) + off, (INT64_C(1) << bit) + off};
            check_quantiles(two, 2);
        }
    ct_histogram *histogram = calloc(1, sizeof *histogram);
    assert_int_equal(ct_histogram_quantile(histogram, 0.5), 0); /* empty */
    assert_true(ct_histogram_mean(histogram) == 0);
    ct_histogram_add(histogram, -5); /* a clock that jumped */
    assert_int_equal(ct_histogram_quantile(histogram, 1), 0);
    ct_histogram_add(histogram, INT64_MAX); /* beyond: counted as the longest */
    assert_int_equal(ct_histogram_quantile(histogram, 1), (INT64_C(1) << CT_HISTOGRAM_MAX_BITS) - 1);
    assert_int_equal(histogram->count, 2);
    free(histogram);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_quantiles), cmocka_unit_test(test_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
