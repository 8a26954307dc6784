/* Residual k-means on vectors whose clusters are planted, and its invariants: nearest centres, centres in the middle, no thread in the
 * bits. */
#include "experiment/quantize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/random.h"

enum { DIM = 11, BIG = 8, SMALL = 4, EACH = 200, COUNT = BIG * SMALL * EACH /* more than one block */ };

static float values[COUNT * DIM];
static uint32_t codes[COUNT * 3], again[COUNT * 3];

static double normal(uint64_t number, uint32_t index) {
    return ct_normal_quantile(ct_random_unit(3, CT_PLACE_TEST, 0, number, index) * (1.0 - 1e-12) + 5e-13);
}

static void run(const float *from, size_t count, size_t dim, uint32_t levels, uint32_t per_level, size_t threads, uint32_t *out,
                double *left) {
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(threads, &pool, &status), CT_OK);
    const ct_quantize_options options = {.levels = levels, .codes = per_level, .seed = 5, .pool = pool};
    const ct_code code = ct_quantize(from, count, dim, &options, out, left, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    ct_pool_destroy(pool);
}

/* Vector i: a large step for its first group, a small one for its second, and noise that is smaller still. */
static void plant(void) {
    for (size_t i = 0; i < COUNT; i++)
        for (uint32_t d = 0; d < DIM; d++)
            values[i * DIM + d] =
                (float)(100.0 * normal(1000000 + i % BIG, d) + 3.0 * normal(2000000 + i / BIG % SMALL, d) + 0.01 * normal(i, 20 + d));
}

/* The same group, the same code and the other way round? */
static size_t mistakes(size_t groups, size_t (*group_of)(size_t), const uint32_t *of, size_t levels, size_t level) {
    size_t wrong = 0;
    for (size_t g = 0; g < groups; g++) {
        size_t counts[64] = {0}, all = 0, most = 0;
        for (size_t i = 0; i < COUNT; i++)
            if (group_of(i) == g) counts[of[i * levels + level]]++, all++;
        for (size_t c = 0; c < 64; c++) most = counts[c] > most ? counts[c] : most;
        wrong += all - most;
    }
    return wrong;
}
static size_t big_of(size_t i) { return i % BIG; }
static size_t small_of(size_t i) { return i / BIG % SMALL; }

static void test_planted(void **state) {
    (void)state;
    double left[3];
    plant();
    run(values, COUNT, DIM, 2, BIG, 2, codes, left);
    /* k-means++ may start two centres in one group, and Lloyd's steps cannot mend it; then a pair of groups shares a code. */
    assert_in_range(mistakes(BIG, big_of, codes, 2, 0), 0, COUNT / BIG);
    assert_true(left[0] < 0.2 && left[1] < left[0]);
    /* Of one small step alone, exactly: 4 groups, 4 codes. */
    static float small[COUNT * DIM];
    for (size_t i = 0; i < COUNT; i++)
        for (uint32_t d = 0; d < DIM; d++) small[i * DIM + d] = values[i * DIM + d] - (float)(100.0 * normal(1000000 + i % BIG, d));
    run(small, COUNT, DIM, 1, SMALL, 2, codes, left);
    assert_int_equal(mistakes(SMALL, small_of, codes, 1, 0), 0);
    assert_true(left[0] < 1e-4);
}

static void test_threads_and_lloyd(void **state) {
    (void)state;
    double left[3], left_again[3];
    for (size_t i = 0; i < COUNT * DIM; i++) values[i] = (float)normal(i, 1);
    run(values, COUNT, DIM, 3, 16, 1, codes, left);
    for (size_t threads = 2; threads <= 5; threads++) {
        run(values, COUNT, DIM, 3, 16, threads, again, left_again);
        assert_memory_equal(codes, again, sizeof codes);
        assert_memory_equal(left, left_again, sizeof left);
    }
    assert_true(left[0] < 1.0 && left[1] < left[0] && left[2] < left[1]);

    /* Level by level from the codes alone: centres are the means of what is left, and what is left of all is what it says. */
    double spread = 0.0;
    static double rest[COUNT * DIM];
    for (size_t d = 0; d < DIM; d++) {
        double mean = 0.0;
        for (size_t i = 0; i < COUNT; i++) mean += (double)values[i * DIM + d] / COUNT;
        for (size_t i = 0; i < COUNT; i++) spread += ((double)values[i * DIM + d] - mean) * ((double)values[i * DIM + d] - mean);
    }
    for (size_t i = 0; i < COUNT * DIM; i++) rest[i] = (double)values[i];
    for (size_t level = 0; level < 3; level++) {
        double centres[16][DIM] = {{0.0}}, squares = 0.0;
        size_t sizes[16] = {0};
        for (size_t i = 0; i < COUNT; i++) {
            sizes[codes[i * 3 + level]]++;
            for (size_t d = 0; d < DIM; d++) centres[codes[i * 3 + level]][d] += rest[i * DIM + d];
        }
        for (size_t c = 0; c < 16; c++) {
            assert_true(sizes[c] > 0);
            for (size_t d = 0; d < DIM; d++) centres[c][d] /= (double)sizes[c];
        }
        for (size_t i = 0; i < COUNT; i++)
            for (size_t d = 0; d < DIM; d++) {
                rest[i * DIM + d] -= centres[codes[i * 3 + level]][d];
                squares += rest[i * DIM + d] * rest[i * DIM + d];
            }
        /* The centres were moved once before the last look, so they are the means up to that last step. */
        assert_true(fabs(squares / spread - left[level]) < 2e-3);
    }
}

static void test_edges(void **state) {
    (void)state;
    double left[3];
    const float three[] = {1, 2, 3, 4, 5, 6};
    run(three, 3, 2, 3, 3, 1, codes, left);
    assert_true(left[0] == 0.0);
    assert_true(codes[0] != codes[3] && codes[3] != codes[6] && codes[0] != codes[6]);
    const float equal[] = {2, 2, 2, 2};
    run(equal, 4, 1, 2, 2, 1, codes, left);
    assert_true(left[0] == 0.0);
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(1, &pool, &status), CT_OK);
    ct_quantize_options options = {.levels = 1, .codes = 4, .pool = pool};
    assert_int_equal(ct_quantize(three, 3, 2, &options, codes, left, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "too few for 4 codes"));
    options.codes = 0;
    assert_int_equal(ct_quantize(three, 3, 2, &options, codes, left, &status), CT_INVALID);
    options.codes = 2, options.levels = 9;
    assert_int_equal(ct_quantize(three, 3, 2, &options, codes, left, &status), CT_INVALID);
    options.levels = 1;
    const float infinite[] = {1, 2, INFINITY, 4, 5, 6};
    assert_int_equal(ct_quantize(infinite, 3, 2, &options, codes, left, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "value 0 of vector 1"));
    const atomic_bool stop = true;
    options.stop = &stop;
    assert_int_equal(ct_quantize(three, 3, 2, &options, codes, left, &status), CT_CANCELLED);
    ct_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_planted), cmocka_unit_test(test_threads_and_lloyd),
                                       cmocka_unit_test(test_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
