/* The tally's matrix against the AUC of repeated rows, and the interval against simulated experiments whose true difference is known
 * in closed form. */
#include "experiment/bootstrap.h"

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
#include "trainer/metrics.h"

enum { MOST_SEEDS = 8 };

static double unit(uint64_t number, uint32_t index) { return ct_random_unit(11, CT_PLACE_TEST, 0, number, index); }

static void assert_close(double actual, double expected, double bound) {
    if (!(fabs(actual - expected) <= bound)) {
        printf("got %.17g, expected %.17g within %g\n", actual, expected, bound);
        fail();
    }
}

static ct_code create(const float *logits, const float *labels, const uint32_t *clusters, const bool *mask, size_t n, size_t cluster_count,
                      ct_tally **out_tally, ct_status *status) {
    const ct_tally_input input = {
        .logits = logits, .labels = labels, .clusters = clusters, .mask = mask, .n = n, .cluster_count = cluster_count};
    return ct_tally_create(&input, out_tally, status);
}

static ct_tally *tally(const float *logits, const float *labels, const uint32_t *clusters, const bool *mask, size_t n,
                       size_t cluster_count) {
    ct_status status = CT_STATUS_INIT;
    ct_tally *made = NULL;
    const ct_code code = create(logits, labels, clusters, mask, n, cluster_count, &made, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    return made;
}

/* A metric under some weights; the other lanes hold other weights, which must not matter. */
static double weighted(const ct_tally *c, const uint32_t *weights, size_t clusters, ct_tally_metric metric) {
    static double lanes[64 * CT_TALLY_LANES];
    double out[CT_TALLY_METRICS][CT_TALLY_LANES];
    for (size_t k = 0; k < clusters; k++)
        for (size_t l = 0; l < CT_TALLY_LANES; l++) lanes[k * CT_TALLY_LANES + l] = l == 3 ? (double)weights[k] : (double)((k + l) % 3);
    ct_tally_values(c, lanes, out);
    return out[metric][3];
}

/* Draws and interval of one pair and metric: a[s], b[s]: (seed_count). */
static ct_code difference(ct_tally *const *a, ct_tally *const *b, size_t seed_count, ct_tally_metric metric, uint64_t seed, uint32_t draws,
                          ct_pool *pool, ct_interval *out_interval, ct_status *status) {
    const size_t stride = (size_t)CT_TALLY_METRICS * draws;
    ct_tally *both[2 * MOST_SEEDS];
    double whole[2 * MOST_SEEDS], *values = malloc((2 * seed_count * stride + 1) * sizeof *values);
    assert_non_null(values);
    assert_true(seed_count <= MOST_SEEDS);
    memcpy(both, a, seed_count * sizeof *both);
    memcpy(both + seed_count, b, seed_count * sizeof *both);
    for (size_t i = 0; i < 2 * seed_count; i++) whole[i] = ct_tally_value(both[i], metric);
    ct_code code = ct_bootstrap_values(both, 2 * seed_count, seed, draws, pool, values, status);
    const double *of_metric = values + metric * (size_t)draws;
    const ct_bootstrap_side side_a = {whole, of_metric, stride}, side_b = {whole + seed_count, of_metric + seed_count * stride, stride};
    if (code == CT_OK) code = ct_bootstrap_interval(&side_a, &side_b, seed_count, seed, draws, out_interval, status);
    free(values);
    return code;
}

static ct_pool *pool_of(size_t threads) {
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(threads, &pool, &status), CT_OK);
    return pool;
}

enum { ROWS = 700, CLUSTERS = 23 };

typedef struct sample {
    float logits[ROWS], labels[ROWS];
    uint32_t clusters[ROWS];
    bool mask[ROWS];
} sample;

static void sample_fill(sample *s, uint32_t levels) {
    for (size_t i = 0; i < ROWS; i++) {
        s->logits[i] = (float)floor(unit(i, 1) * levels) / 8.0f - 2.0f;
        s->labels[i] = unit(i, 2) < 0.3 ? 1.0f : 0.0f;
        s->clusters[i] = (uint32_t)(unit(i, 3) * unit(i, 4) * CLUSTERS); /* of unequal sizes */
        s->mask[i] = unit(i, 5) < 0.6;
    }
}

static double auc_of(const float *logits, const float *labels, size_t n) {
    ct_status status = CT_STATUS_INIT;
    double auc = 0.0;
    assert_int_equal(ct_auc(logits, labels, NULL, n, &auc, &status), CT_OK);
    return auc;
}

static void test_equals_auc_of_repeated_rows(void **state) {
    (void)state;
    static sample s;
    static float logits[ROWS * 8], labels[ROWS * 8];
    for (uint32_t levels = 4; levels <= 4096; levels *= 32) {
        sample_fill(&s, levels);
        for (int masked = 0; masked < 2; masked++) {
            ct_tally *c = tally(s.logits, s.labels, s.clusters, masked ? s.mask : NULL, ROWS, CLUSTERS);
            for (uint64_t draw = 0; draw < 30; draw++) {
                uint32_t weights[CLUSTERS];
                ct_bootstrap_weights(3, draw, weights, CLUSTERS);
                if (draw == 0)
                    for (size_t k = 0; k < CLUSTERS; k++) weights[k] = 1;
                size_t n = 0;
                double loss = 0.0;
                for (size_t i = 0; i < ROWS; i++) {
                    if (masked && !s.mask[i]) continue;
                    for (uint32_t r = 0; r < weights[s.clusters[i]]; r++) {
                        logits[n] = s.logits[i], labels[n] = s.labels[i];
                        const double z = (double)s.logits[i];
                        loss += s.labels[i] != 0.0f ? log1p(exp(-z)) : log1p(exp(z));
                        n++;
                    }
                }
                assert_true(weighted(c, weights, CLUSTERS, CT_TALLY_AUC) == auc_of(logits, labels, n)); /* whole numbers: exact */
                assert_close(weighted(c, weights, CLUSTERS, CT_TALLY_LOG_LOSS), loss / (double)n, 1e-12);
                if (draw > 0) continue;
                assert_true(ct_tally_value(c, CT_TALLY_AUC) == weighted(c, weights, CLUSTERS, CT_TALLY_AUC));
                assert_close(ct_tally_value(c, CT_TALLY_LOG_LOSS), loss / (double)n, 1e-12);
                assert_close(ct_tally_rows(c), (double)n, 0.0);
            }
            ct_tally_destroy(c);
        }
    }
}

static void test_missing_classes(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    const float logits[] = {0, 1, 2, 3}, labels[] = {0, 0, 1, 0};
    const uint32_t clusters[] = {0, 0, 1, 2};
    ct_tally *c = tally(logits, labels, clusters, NULL, 4, 3);
    assert_close(ct_tally_value(c, CT_TALLY_AUC), 2.0 / 3.0, 1e-15);
    assert_true(isnan(weighted(c, (const uint32_t[]){3, 0, 0}, 3, CT_TALLY_AUC)));
    assert_true(isnan(weighted(c, (const uint32_t[]){0, 3, 0}, 3, CT_TALLY_AUC)));
    assert_true(isfinite(weighted(c, (const uint32_t[]){0, 3, 0}, 3, CT_TALLY_LOG_LOSS)));
    const bool none[] = {false, false, false, false};
    ct_tally *empty = tally(logits, labels, clusters, none, 4, 3);
    assert_true(isnan(ct_tally_value(empty, CT_TALLY_AUC)) && isnan(ct_tally_value(empty, CT_TALLY_LOG_LOSS)));
    assert_close(ct_tally_rows(empty), 0.0, 0.0);

    /* Draws without a class are left out and counted: cluster 1 alone has a click; it is missing from (2/3)^3 of the draws, and in 1/27
     * of them it is alone. */
    ct_pool *pool = pool_of(1);
    ct_interval interval;
    assert_int_equal(difference(&c, &c, 1, CT_TALLY_AUC, 5, 4000, pool, &interval, &status), CT_OK);
    assert_close((double)interval.draws / 4000.0, 18.0 / 27.0, 0.03);
    assert_int_equal(difference(&empty, &empty, 1, CT_TALLY_AUC, 5, 100, pool, &interval, &status), CT_OK);
    assert_true(interval.draws == 0 && isnan(interval.low) && isnan(interval.high) && isnan(interval.estimate));
    ct_pool_destroy(pool);
    ct_tally_destroy(c);
    ct_tally_destroy(empty);
    ct_tally_destroy(NULL);
}

static void test_refused(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_tally *c = NULL;
    const float labels[] = {0, 1}, logits[] = {0, 1}, not_number[] = {0, NAN};
    const uint32_t clusters[] = {0, 2};
    assert_int_equal(create(not_number, labels, clusters, NULL, 2, 3, &c, &status), CT_INVALID);
    assert_int_equal(create(logits, labels, clusters, NULL, 2, 2, &c, &status), CT_INVALID);
    assert_int_equal(create(logits, labels, clusters, NULL, 2, 0, &c, &status), CT_INVALID);
    assert_int_equal(create(logits, labels, clusters, NULL, 2, 2049, &c, &status), CT_INVALID);
    assert_null(c);
    ct_tally *three = tally(logits, labels, clusters, NULL, 2, 3), *four = tally(logits, labels, clusters, NULL, 2, 4);
    ct_pool *pool = pool_of(1);
    ct_interval interval;
    assert_int_equal(difference(&three, &four, 1, CT_TALLY_AUC, 5, 10, pool, &interval, &status), CT_INVALID);
    assert_int_equal(difference(&three, &three, 0, CT_TALLY_AUC, 5, 10, pool, &interval, &status), CT_INVALID);
    assert_int_equal(difference(&three, &three, 1, CT_TALLY_AUC, 5, 0, pool, &interval, &status), CT_INVALID);
    ct_pool_destroy(pool);
    ct_tally_destroy(three);
    ct_tally_destroy(four);
}

static void test_weights_are_multinomial(void **state) {
    (void)state;
    enum { K = 40, DRAWS = 5000 };
    double mean[K] = {0.0}, square = 0.0, product = 0.0;
    for (uint64_t draw = 0; draw < DRAWS; draw++) {
        uint32_t weights[K], sum = 0;
        ct_bootstrap_weights(9, draw, weights, K);
        for (size_t k = 0; k < K; k++) {
            sum += weights[k];
            mean[k] += weights[k] / (double)DRAWS;
            square += (weights[k] - 1.0) * (weights[k] - 1.0) / DRAWS / K;
        }
        product += (weights[0] - 1.0) * (weights[1] - 1.0) / DRAWS;
        assert_int_equal(sum, K);
    }
    /* E = 1, variance 1 - 1/K, covariance -1/K; bounds of five standard errors */
    for (size_t k = 0; k < K; k++) assert_close(mean[k], 1.0, 5.0 / sqrt(DRAWS));
    assert_close(square, 1.0 - 1.0 / K, 0.03);
    assert_close(product, -1.0 / K, 5.0 / sqrt(DRAWS));
    uint32_t first[K], again[K], other[K];
    ct_bootstrap_weights(9, 1, first, K);
    ct_bootstrap_weights(9, 1, again, K);
    ct_bootstrap_weights(10, 1, other, K);
    assert_memory_equal(first, again, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
}

static void test_interval_by_hand(void **state) {
    (void)state;
    /* One seed: percentiles of 0, 1, .. 100 in any order, estimate from `whole`. */
    ct_status status = CT_STATUS_INIT;
    ct_interval interval;
    double values[101], zeros[101] = {0.0};
    for (size_t i = 0; i < 101; i++) values[i] = (double)(i * 37 % 101);
    const double whole_a = 2.0, whole_b = 7.0;
    assert_int_equal(ct_bootstrap_interval(&(ct_bootstrap_side){&whole_a, zeros, 101}, &(ct_bootstrap_side){&whole_b, values, 101}, 1, 1,
                                           101, &interval, &status),
                     CT_OK);
    assert_close(interval.estimate, 5.0, 0.0);
    assert_close(interval.low, 2.5, 1e-12);
    assert_close(interval.high, 97.5, 1e-12);
    assert_int_equal(interval.draws, 101);

    /* Two seeds that differ by -1 and +1 and no other noise: picks are (-1, -1), (-1, 1), (1, -1), (1, 1), widened by sqrt(2);
     * and the deviation is known from one degree of freedom: t(1) / t(infinity) = 12.7062 / 1.95996 (tables). */
    enum { DRAWS = 400 };
    double a[2 * DRAWS] = {0.0}, b[2 * DRAWS];
    for (size_t d = 0; d < 2 * DRAWS; d++) b[d] = d < DRAWS ? -1.0 : 1.0;
    const double a_whole[] = {0, 0}, b_whole[] = {-1, 1};
    assert_int_equal(ct_bootstrap_interval(&(ct_bootstrap_side){a_whole, a, DRAWS}, &(ct_bootstrap_side){b_whole, b, DRAWS}, 2, 1, DRAWS,
                                           &interval, &status),
                     CT_OK);
    assert_close(interval.estimate, 0.0, 0.0);
    /* The variance is known, 1, and the draws have it but for their chance. */
    assert_close(interval.low, -sqrt(2.0) * 12.7062047 / 1.9599640, 0.5);
    assert_close(interval.high, sqrt(2.0) * 12.7062047 / 1.9599640, 0.5);
    assert_close(interval.degrees, 1.0, 1e-12);
    assert_close(interval.p, 1.0, 0.0);

    /* Seeds that differ only in how they take units: draw d of seed 0 is +x, of seed 1 -x. So units alone do not move the mean, Vu = 0, and
     * one seed's draws have variance V1 = C. Whole differences that are no further apart than that (Vs < C) say nothing of seeds. */
    for (size_t d = 0; d < DRAWS; d++) b[d] = d % 2 ? 1.0 : -1.0, b[DRAWS + d] = -b[d];
    const double near[] = {-0.5, 0.5}, far[] = {-1, 5};
    assert_int_equal(ct_bootstrap_interval(&(ct_bootstrap_side){a_whole, a, DRAWS}, &(ct_bootstrap_side){near, b, DRAWS}, 2, 1, DRAWS,
                                           &interval, &status),
                     CT_OK);
    assert_close(interval.low, 0.0, 1e-12);
    assert_close(interval.high, 0.0, 1e-12);
    assert_int_equal(ct_bootstrap_interval(&(ct_bootstrap_side){a_whole, a, DRAWS}, &(ct_bootstrap_side){far, b, DRAWS}, 2, 1, DRAWS,
                                           &interval, &status),
                     CT_OK);
    const double seeds = 9.0, common = (double)DRAWS / (DRAWS - 1); /* Vs = 18 / 2; V1 of +-1 */
    assert_close(interval.degrees, 1.0, 1e-12);
    assert_close(interval.p, 1.0 - 2.0 / acos(-1.0) * atan(2.0 / sqrt(seeds - common)), 1e-9); /* t(1) is Cauchy's */
}

static void test_holm(void **state) {
    (void)state;
    /* 0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1, none below the one before it; NaN is no test. */
    ct_status status = CT_STATUS_INIT;
    double p[] = {0.04, 0.01, NAN, 0.03, 0.02};
    assert_int_equal(ct_holm(p, 5, &status), CT_OK);
    assert_close(p[1], 0.04, 1e-15);
    assert_close(p[4], 0.06, 1e-15);
    assert_close(p[3], 0.06, 1e-15);
    assert_close(p[0], 0.06, 1e-15);
    assert_true(isnan(p[2]));
    double large[] = {0.9, 0.6};
    assert_int_equal(ct_holm(large, 2, &status), CT_OK);
    assert_true(large[0] == 1.0 && large[1] == 1.0);
    assert_int_equal(ct_holm(NULL, 0, &status), CT_OK);
}

static void test_same_arms_and_threads(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    static sample s;
    ct_tally *a[3], *b[3];
    for (size_t i = 0; i < 3; i++) {
        sample_fill(&s, 64);
        for (size_t r = 0; r < ROWS; r++) s.logits[r] += (float)unit(r, 20 + (uint32_t)i);
        a[i] = tally(s.logits, s.labels, s.clusters, NULL, ROWS, CLUSTERS);
        for (size_t r = 0; r < ROWS; r++) s.logits[r] += s.labels[r] * (float)unit(r, 30 + (uint32_t)i);
        b[i] = tally(s.logits, s.labels, s.clusters, NULL, ROWS, CLUSTERS);
    }
    ct_interval first, interval;
    for (size_t threads = 1; threads <= 3; threads++) {
        ct_pool *pool = pool_of(threads);
        for (int metric = 0; metric < CT_TALLY_METRICS; metric++) {
            if (metric == CT_TALLY_GROUPED_AUC || metric == CT_TALLY_NDCG || metric == CT_TALLY_MRR) continue; /* no groups */
            assert_int_equal(difference(a, a, 3, (ct_tally_metric)metric, 4, 200, pool, &interval, &status), CT_OK);
            assert_true(interval.estimate == 0.0 && interval.low == 0.0 && interval.high == 0.0 && interval.draws == 200);
        }
        assert_int_equal(difference(a, b, 3, CT_TALLY_AUC, 4, 200, pool, &interval, &status), CT_OK);
        assert_true(interval.low > 0.0 && interval.low < interval.estimate && interval.estimate < interval.high);
        if (threads == 1) first = interval;
        assert_memory_equal(&interval, &first, sizeof first);
        ct_pool_destroy(pool);
    }
    for (size_t i = 0; i < 3; i++) {
        ct_tally_destroy(a[i]);
        ct_tally_destroy(b[i]);
    }
}

/* --- coverage ---
 * A row's score is mu y + its unit's effect (deviation tau) + noise (deviation 1), so two rows of different units have
 * AUC = Phi(mu / sqrt(2 (1 + tau^2))). Units differ in their effects and in how often they click, so rows are far from independent. With
 * several seeds, each model's mu has a deviation of its own. */

enum { UNITS = 60, UNIT_ROWS = 25, SIMULATIONS = 200, DRAWS = 400 };

static double normal(uint64_t number, uint32_t index) { return ct_normal_quantile(unit(number, index) * (1.0 - 1e-12) + 5e-13); }

static double expected_auc(double mu, double tau) { return 0.5 * erfc(-mu / sqrt(2.0 * (1.0 + tau * tau)) / sqrt(2.0)); }

typedef struct planted {
    double mu, tau, seed_deviation;
} planted;

static size_t covered(const planted *arms, size_t seeds, bool by_row, ct_pool *pool) {
    enum { N = UNITS * UNIT_ROWS };
    static float logits[N], labels[N];
    static uint32_t clusters[N];
    ct_status status = CT_STATUS_INIT;
    const double truth = expected_auc(arms[1].mu, arms[1].tau) - expected_auc(arms[0].mu, arms[0].tau);
    size_t count = 0;
    for (uint64_t simulation = 0; simulation < SIMULATIONS; simulation++) {
        ct_tally *sides[2][8];
        const uint64_t base = (simulation << 40) + (seeds << 32);
        for (size_t i = 0; i < N; i++) {
            labels[i] = unit(base + i, 1) < (i / UNIT_ROWS % 2 ? 0.75 : 0.05) ? 1.0f : 0.0f;
            clusters[i] = (uint32_t)(by_row ? i % UNITS : i / UNIT_ROWS);
        }
        for (uint32_t arm = 0; arm < 2; arm++) {
            for (uint32_t s = 0; s < seeds; s++) {
                const double mu = arms[arm].mu + arms[arm].seed_deviation * normal(base + s, 100 + arm);
                for (size_t i = 0; i < N; i++)
                    logits[i] = (float)(mu * (double)labels[i] + arms[arm].tau * normal(base + i / UNIT_ROWS, 2 + arm) +
                                        normal(base + i, 10 + s)); /* noise of a seed is the same in both arms */
                sides[arm][s] = tally(logits, labels, clusters, NULL, N, UNITS);
            }
        }
        ct_interval interval;
        const ct_code code = difference(sides[0], sides[1], seeds, CT_TALLY_AUC, simulation, DRAWS, pool, &interval, &status);
        assert_int_equal(code, CT_OK);
        if (interval.low <= truth && truth <= interval.high) count++;
        for (size_t s = 0; s < seeds; s++) {
            ct_tally_destroy(sides[0][s]);
            ct_tally_destroy(sides[1][s]);
        }
    }
    printf("%zu seeds, resampling %s: %zu of %d intervals hold the true difference %.4f\n", seeds, by_row ? "rows" : "units", count,
           SIMULATIONS, truth);
    return count;
}

static void test_coverage(void **state) {
    (void)state;
    ct_pool *pool = pool_of(2);
    const planted one[] = {{0.8, 0.7, 0.0}, {1.2, 1.0, 0.0}};
    const size_t units = covered(one, 1, false, pool);
    assert_in_range(units, SIMULATIONS * 92 / 100, SIMULATIONS * 98 / 100);
    /* The test can tell: clusters that cut across the units give intervals that are much too narrow. */
    assert_in_range(covered(one, 1, true, pool), 0, SIMULATIONS * 80 / 100);
    const planted seeds[] = {{0.8, 0.7, 0.2}, {1.2, 1.0, 0.2}};
    assert_in_range(covered(seeds, 5, false, pool), SIMULATIONS * 92 / 100, SIMULATIONS * 98 / 100);
    assert_in_range(covered(seeds, 2, false, pool), SIMULATIONS * 92 / 100, SIMULATIONS * 98 / 100);
    /* Seeds that differ in nothing but their noise about units: what units and seeds have in common must not count twice. */
    assert_in_range(covered(one, 4, false, pool), SIMULATIONS * 92 / 100, SIMULATIONS * 98 / 100);
    ct_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_auc_of_repeated_rows), cmocka_unit_test(test_missing_classes),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_weights_are_multinomial),     cmocka_unit_test(test_interval_by_hand), cmocka_unit_test(test_holm),
        cmocka_unit_test(test_same_arms_and_threads),       cmocka_unit_test(test_coverage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
