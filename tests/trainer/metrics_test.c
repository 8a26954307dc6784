/* Metrics against definitions: pair counting in O(n^2), cases worked by hand, and rows repeated instead of weighted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "trainer/metrics.h"

static double unit(uint64_t number, uint32_t index) { return ct_random_unit(7, CT_PLACE_TEST, 0, number, index); }

static void assert_close(double actual, double expected, double bound) {
    if (!(fabs(actual - expected) <= bound)) {
        printf("got %.17g, expected %.17g within %g\n", actual, expected, bound);
        fail();
    }
}

/* The definition: pairs of a click and a non-click, ties half. */
static double auc_by_pairs(const float *scores, const float *labels, const float *weights, size_t n) {
    double won = 0.0, pairs = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (labels[i] == 0.0f) continue;
        for (size_t j = 0; j < n; j++) {
            if (labels[j] != 0.0f) continue;
            const double weight = weights ? (double)weights[i] * (double)weights[j] : 1.0;
            pairs += weight;
            won += weight * (scores[i] > scores[j] ? 1.0 : scores[i] == scores[j] ? 0.5 : 0.0);
        }
    }
    return won / pairs; /* 0 / 0 is NaN: one class */
}

static double auc_of(const float *scores, const float *labels, const float *weights, size_t n) {
    ct_status status = CT_STATUS_INIT;
    double auc = -1.0;
    assert_int_equal(ct_auc(scores, labels, weights, n, &auc, &status), CT_OK);
    return auc;
}

static void test_auc_by_hand(void **state) {
    (void)state;
    /* clicks 0.8, 0.4; others 0.4, 0.1: won 1 + 1 + 1/2 + 1 of 4 */
    const float scores[] = {0.8f, 0.4f, 0.4f, 0.1f}, labels[] = {1, 1, 0, 0};
    assert_true(auc_of(scores, labels, NULL, 4) == 0.875);
    /* weights: clicks 2, 1; others 1, 3: won 2 (1 + 3) + 1 (1/2 + 3) of 3 * 4 */
    const float weights[] = {2, 1, 1, 3};
    assert_close(auc_of(scores, labels, weights, 4), 11.5 / 12.0, 1e-15);
    const float same[] = {3, 3, 3, 3};
    assert_true(auc_of(same, labels, NULL, 4) == 0.5);
    const float wrong[] = {-2, -1, 1, 2};
    assert_true(auc_of(wrong, labels, NULL, 4) == 0.0);
    assert_true(isnan(auc_of(scores, (const float[]){1, 1, 1, 1}, NULL, 4)));
    assert_true(isnan(auc_of(scores, (const float[]){0, 0, 0, 0}, NULL, 4)));
    assert_true(isnan(auc_of(scores, labels, (const float[]){0, 0, 1, 1}, 4))); /* clicks without weight */
    assert_true(isnan(auc_of(NULL, NULL, NULL, 0)));
}

static void test_auc_order_of_floats(void **state) {
    (void)state;
    /* 0 and -0 are equal; infinities, the largest, the smallest and denormal numbers have their order */
    const float zeros[] = {-0.0f, 0.0f}, click_first[] = {1, 0}, click_last[] = {0, 1};
    assert_true(auc_of(zeros, click_first, NULL, 2) == 0.5);
    assert_true(auc_of(zeros, click_last, NULL, 2) == 0.5);
    const float ascending[] = {-INFINITY, -FLT_MAX, -1.0f, -FLT_MIN, -1e-45f, 0.0f, 1e-45f, FLT_MIN, 1.0f, FLT_MAX, INFINITY};
    const size_t n = sizeof ascending / sizeof *ascending;
    for (size_t i = 0; i + 1 < n; i++) {
        const float pair[] = {ascending[i], ascending[i + 1]};
        assert_true(auc_of(pair, click_last, NULL, 2) == 1.0);
        assert_true(auc_of(pair, click_first, NULL, 2) == 0.0);
        assert_true(ct_score_key(pair[0]) < ct_score_key(pair[1]));
    }
}

static void test_auc_against_pairs(void **state) {
    (void)state;
    static const size_t sizes[] = {2, 3, 17, 64, 257, 1000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (uint32_t levels = 3; levels <= 100000; levels *= 30) { /* few levels make many ties */
            const size_t n = sizes[s];
            float scores[1000], labels[1000], weights[1000];
            for (size_t i = 0; i < n; i++) {
                scores[i] = (float)floor(unit(i, levels) * levels) - (float)levels / 2.0f;
                labels[i] = unit(i, levels + 1) < 0.3 ? 1.0f : 0.0f;
                weights[i] = (float)floor(unit(i, levels + 2) * 4.0);
            }
            labels[0] = 1.0f, labels[1] = 0.0f;
            weights[0] = weights[1] = 1.0f;
            assert_true(auc_of(scores, labels, NULL, n) == auc_by_pairs(scores, labels, NULL, n)); /* whole numbers: exact */
            assert_close(auc_of(scores, labels, weights, n), auc_by_pairs(scores, labels, weights, n), 1e-14);
        }
    }
}

static ct_metrics collect(const float *logits, const float *labels, const float *weights, const uint64_t *groups, size_t n, size_t step) {
    ct_status status = CT_STATUS_INIT;
    ct_metrics_collector *collector = NULL;
    ct_metrics metrics;
    assert_int_equal(ct_metrics_collector_create(&collector, &status), CT_OK);
    for (size_t i = 0; i < n; i += step) {
        const size_t rows = n - i < step ? n - i : step;
        assert_int_equal(ct_metrics_collector_add(collector, logits + i, labels + i, weights ? weights + i : NULL,
                                                  groups ? groups + i : NULL, rows, &status),
                         CT_OK);
    }
    assert_int_equal(ct_metrics_collector_finish(collector, &metrics, &status), CT_OK);
    ct_metrics again;
    assert_int_equal(ct_metrics_collector_finish(collector, &again, &status), CT_OK);
    assert_memory_equal(&again, &metrics, sizeof metrics); /* finishing changes nothing */
    ct_metrics_collector_destroy(collector);
    return metrics;
}

static void test_by_hand(void **state) {
    (void)state;
    /* p = 1/2, 3/4, 1/4 */
    const float log3 = 1.0986123f, logits[] = {0.0f, log3, -log3}, labels[] = {1, 1, 0};
    const ct_metrics metrics = collect(logits, labels, NULL, NULL, 3, 3);
    const double loss = (log(2.0) + log(4.0 / 3.0) + log(4.0 / 3.0)) / 3.0;
    const double constant = -(2.0 / 3.0 * log(2.0 / 3.0) + 1.0 / 3.0 * log(1.0 / 3.0));
    assert_int_equal(metrics.rows, 3);
    assert_close(metrics.weight, 3.0, 0.0);
    assert_close(metrics.clicks, 2.0, 0.0);
    assert_close(metrics.log_loss, loss, 1e-7);
    assert_close(metrics.normalized_entropy, loss / constant, 1e-7);
    assert_close(metrics.calibration, 1.5 / 2.0, 1e-7);
    assert_close(metrics.mean_prediction, 0.5, 1e-7);
    assert_true(metrics.auc == 1.0);
    assert_true(isnan(metrics.grouped_auc));
    assert_int_equal(metrics.groups, 0);
}

static void test_weights_repeat_rows(void **state) {
    (void)state;
    enum { N = 200 };
    static float logits[N], labels[N], weights[N], many_logits[4 * N], many_labels[4 * N];
    static uint64_t groups[N], many_groups[4 * N];
    size_t many = 0;
    for (size_t i = 0; i < N; i++) {
        logits[i] = (float)floor(unit(i, 1) * 40.0) / 8.0f - 2.5f;
        labels[i] = unit(i, 2) < 0.4 ? 1.0f : 0.0f;
        weights[i] = (float)floor(unit(i, 3) * 5.0);
        groups[i] = (uint64_t)(unit(i, 4) * 30.0) * 0x9e3779b97f4a7c15u;
        for (size_t r = 0; r < (size_t)weights[i]; r++, many++) {
            many_logits[many] = logits[i], many_labels[many] = labels[i], many_groups[many] = groups[i];
        }
    }
    const ct_metrics weighted = collect(logits, labels, weights, groups, N, 64);
    const ct_metrics repeated = collect(many_logits, many_labels, NULL, many_groups, many, 64);
    assert_int_equal(weighted.rows, N);
    assert_close(weighted.weight, (double)many, 0.0);
    assert_close(weighted.clicks, repeated.clicks, 0.0);
    assert_close(weighted.auc, repeated.auc, 1e-13);
    assert_close(weighted.log_loss, repeated.log_loss, 1e-13);
    assert_close(weighted.normalized_entropy, repeated.normalized_entropy, 1e-13);
    assert_close(weighted.calibration, repeated.calibration, 1e-13);
    assert_close(weighted.mean_prediction, repeated.mean_prediction, 1e-13);
    assert_close(weighted.grouped_auc, repeated.grouped_auc, 1e-13);
    assert_int_equal(weighted.groups, repeated.groups);
}

static void test_grouped(void **state) {
    (void)state;
    /* group 5: AUC 1 over 2 rows; group 9: 1/4 over 4 rows; group 1 has one class. Rows of a group are not together. */
    const float logits[] = {2, 1, 0, 0, 1, 0.5f, 9}, labels[] = {1, 1, 1, 0, 0, 0, 1};
    const uint64_t groups[] = {5, 9, 9, 5, 9, 9, 1};
    /* group 9: clicks 1, 0; others 1, 0.5: 1/2 + 1 + 0 + 0 of 4 = 3/8 */
    const ct_metrics metrics = collect(logits, labels, NULL, groups, 7, 2);
    assert_int_equal(metrics.groups, 2);
    assert_close(metrics.grouped_auc, (2.0 * 1.0 + 4.0 * 0.375) / 6.0, 1e-15);

    enum { N = 900 };
    static float many_logits[N], many_labels[N], in_logits[N], in_labels[N];
    static uint64_t many_groups[N];
    for (size_t i = 0; i < N; i++) {
        many_logits[i] = (float)floor(unit(i, 11) * 12.0) - 6.0f;
        many_labels[i] = unit(i, 12) < 0.3 ? 1.0f : 0.0f;
        many_groups[i] = (uint64_t)(unit(i, 13) * unit(i, 14) * 150.0) << 40 | 3;
    }
    double sum = 0.0, rows = 0.0;
    int64_t count = 0;
    for (uint64_t g = 0; g < 150; g++) {
        size_t n = 0;
        for (size_t i = 0; i < N; i++) {
            if (many_groups[i] != (g << 40 | 3)) continue;
            in_logits[n] = many_logits[i], in_labels[n++] = many_labels[i];
        }
        const double auc = auc_by_pairs(in_logits, in_labels, NULL, n);
        if (isnan(auc)) continue;
        sum += (double)n * auc, rows += (double)n, count++;
    }
    const ct_metrics all = collect(many_logits, many_labels, NULL, many_groups, N, 100);
    assert_int_equal(all.groups, count);
    assert_close(all.grouped_auc, sum / rows, 1e-14);
    assert_true(all.auc == auc_by_pairs(many_logits, many_labels, NULL, N));
}

static void test_extremes(void **state) {
    (void)state;
    /* large logits: the loss of a wrong one is the logit itself, of a right one exp(-|z|) */
    const float large[] = {1e4f, -1e4f, 3e38f, -3e38f}, labels[] = {0, 1, 1, 0};
    const ct_metrics metrics = collect(large, labels, NULL, NULL, 4, 4);
    assert_close(metrics.log_loss, 5000.0, 1e-9);
    assert_true(isfinite(metrics.calibration));
    assert_close(ct_logit_loss(30.0f, true), log1p(exp(-30.0)), 1e-28);
    assert_close(ct_logit_loss(-30.0f, false), log1p(exp(-30.0)), 1e-28);
    assert_true(ct_logit_loss(INFINITY, true) == 0.0);
    assert_true(ct_logit_loss(-INFINITY, false) == 0.0);
    assert_true(isinf(ct_logit_loss(INFINITY, false)));
    /* an infinite wrong answer without weight counts for nothing */
    const ct_metrics unweighted = collect((const float[]){INFINITY, 0, 0}, (const float[]){0, 0, 1}, (const float[]){0, 1, 1}, NULL, 3, 3);
    assert_close(unweighted.log_loss, log(2.0), 1e-15);
    assert_close(unweighted.auc, 0.5, 0.0);
}

static void test_one_class_is_null(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    const float logits[] = {0, 1}, clicks[] = {1, 1}, others[] = {0, 0};
    const uint64_t groups[] = {1, 1};
    const ct_metrics one = collect(logits, clicks, NULL, groups, 2, 2), none = collect(logits, others, NULL, groups, 2, 2);
    assert_true(isnan(one.auc) && isnan(one.normalized_entropy) && isnan(one.grouped_auc) && isfinite(one.calibration));
    assert_true(isnan(none.auc) && isnan(none.calibration) && isfinite(none.log_loss));
    const ct_metrics empty = collect(logits, clicks, NULL, NULL, 0, 1);
    assert_true(isnan(empty.log_loss) && isnan(empty.mean_prediction) && empty.rows == 0);

    json_t *object = json_object();
    assert_int_equal(ct_metrics_to_json(&none, true, object, &status), CT_OK);
    assert_true(json_is_null(json_object_get(object, "auc")));
    assert_true(json_is_null(json_object_get(object, "normalized_entropy")));
    assert_true(json_is_null(json_object_get(object, "calibration")));
    assert_true(json_is_null(json_object_get(object, "grouped_auc")));
    assert_int_equal(json_integer_value(json_object_get(object, "rows")), 2);
    assert_int_equal(json_integer_value(json_object_get(object, "groups")), 0);
    assert_close(json_real_value(json_object_get(object, "log_loss")), none.log_loss, 0.0);
    char *text = json_dumps(object, 0);
    assert_non_null(text);
    free(text);
    json_decref(object);
    object = json_object();
    assert_int_equal(ct_metrics_to_json(&none, false, object, &status), CT_OK);
    assert_null(json_object_get(object, "grouped_auc"));
    json_decref(object);
}

static void test_refused(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_metrics_collector *collector = NULL;
    const float ok[] = {0, 1}, nan_logit[] = {0, NAN}, half[] = {0, 0.5f}, minus[] = {1, -1}, endless[] = {1, INFINITY};
    const uint64_t groups[] = {1, 2};
    double auc = 0.0;
    assert_int_equal(ct_metrics_collector_create(&collector, &status), CT_OK);
    assert_int_equal(ct_metrics_collector_add(collector, nan_logit, ok, NULL, NULL, 2, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "row 1"));
    assert_int_equal(ct_metrics_collector_add(collector, ok, half, NULL, NULL, 2, &status), CT_INVALID);
    assert_int_equal(ct_metrics_collector_add(collector, ok, ok, minus, NULL, 2, &status), CT_INVALID);
    assert_int_equal(ct_metrics_collector_add(collector, ok, ok, endless, NULL, 2, &status), CT_INVALID);
    assert_int_equal(ct_auc(nan_logit, ok, NULL, 2, &auc, &status), CT_INVALID);
    assert_int_equal(ct_metrics_collector_add(collector, ok, ok, NULL, groups, 2, &status), CT_OK);
    assert_int_equal(ct_metrics_collector_add(collector, ok, ok, NULL, NULL, 2, &status), CT_INVALID);
    assert_int_equal(ct_metrics_collector_add(collector, ok, ok, ok, groups, 2, &status), CT_INVALID);
    ct_metrics metrics;
    assert_int_equal(ct_metrics_collector_finish(collector, &metrics, &status), CT_OK);
    assert_int_equal(metrics.rows, 2); /* nothing of the refused calls */
    assert_true(metrics.auc == 1.0);
    ct_metrics_collector_reset(collector);
    assert_int_equal(ct_metrics_collector_add(collector, ok, ok, ok, NULL, 2, &status), CT_OK);
    assert_int_equal(ct_metrics_collector_finish(collector, &metrics, &status), CT_OK);
    assert_int_equal(metrics.rows, 2);
    ct_metrics_collector_destroy(collector);
    ct_metrics_collector_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auc_by_hand), cmocka_unit_test(test_auc_order_of_floats), cmocka_unit_test(test_auc_against_pairs),
        cmocka_unit_test(test_by_hand),     cmocka_unit_test(test_weights_repeat_rows), cmocka_unit_test(test_grouped),
        cmocka_unit_test(test_extremes),    cmocka_unit_test(test_one_class_is_null),   cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
