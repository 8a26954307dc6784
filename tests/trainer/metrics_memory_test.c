/* Metrics that outgrow their memory: the same bits as in memory, and the definitions; the calibration table; a temporary file that cannot
 * be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/random.h"
#include "tests/base/temp.h"
#include "trainer/metrics.h"

enum { N = 6000 };

static double unit(uint64_t number, uint32_t index) { return ct_random_unit(11, CT_PLACE_TEST, 0, number, index); }

static void assert_close(double actual, double expected, double bound) {
    if (!(fabs(actual - expected) <= bound)) {
        printf("got %.17g, expected %.17g within %g\n", actual, expected, bound);
        fail();
    }
}

#define assert_ok(call)                                                                     \
    do {                                                                                    \
        ct_status status = CT_STATUS_INIT;                                                  \
        if ((call) != CT_OK) fail_msg("%s: %s", ct_code_name(status.code), status.message); \
    } while (0)

typedef struct rows {
    float logits[N], labels[N], weights[N];
    uint64_t groups[N];
} rows;

/* `levels` different logits; weights of any size, some 0. */
static rows *make_rows(double levels) {
    rows *r = calloc(1, sizeof *r);
    assert_non_null(r);
    for (size_t i = 0; i < N; i++) {
        r->logits[i] = (float)(floor(unit(i, 1) * levels) / levels * 8.0 - 4.0);
        r->labels[i] = unit(i, 2) < 0.3 ? 1.0f : 0.0f;
        r->weights[i] = unit(i, 3) < 0.1 ? 0.0f : (float)(unit(i, 4) * 3.0);
        r->groups[i] = ct_random_u64(1, CT_PLACE_TEST, 1, (uint64_t)(unit(i, 5) * unit(i, 6) * 300.0), 0); /* over all 64 bits */
    }
    return r;
}

static ct_metrics collect(const rows *r, bool weights, bool groups, size_t n, size_t step, size_t memory_bytes) {
    ct_metrics_collector *collector = NULL;
    ct_metrics metrics;
    assert_ok(ct_metrics_collector_create_within(memory_bytes, &collector, &status));
    for (int round = 0; round < 2; round++) { /* again after a reset */
        ct_metrics_collector_reset(collector);
        for (size_t i = 0; i < n; i += step)
            assert_ok(ct_metrics_collector_add(collector, r->logits + i, r->labels + i, weights ? r->weights + i : NULL,
                                               groups ? r->groups + i : NULL, n - i < step ? n - i : step, &status));
        ct_metrics found;
        assert_ok(ct_metrics_collector_finish(collector, &found, &status));
        if (round == 1) assert_memory_equal(&found, &metrics, sizeof metrics);
        metrics = found;
    }
    ct_metrics_collector_destroy(collector);
    return metrics;
}

/* The definition: pairs of a click and a non-click of one group (or of any), ties half. */
static double auc_by_pairs(const rows *r, bool weights, const uint64_t *group, size_t n, double *out_weight) {
    double won = 0.0, pairs = 0.0, weight = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (group != NULL && r->groups[i] != *group) continue;
        weight += weights ? (double)r->weights[i] : 1.0;
        if (r->labels[i] == 0.0f) continue;
        for (size_t j = 0; j < n; j++) {
            if (r->labels[j] != 0.0f || (group != NULL && r->groups[j] != *group)) continue;
            const double pair = weights ? (double)r->weights[i] * (double)r->weights[j] : 1.0;
            pairs += pair;
            won += pair * (r->logits[i] > r->logits[j] ? 1.0 : r->logits[i] == r->logits[j] ? 0.5 : 0.0);
        }
    }
    *out_weight = weight;
    return won / pairs;
}

static double grouped_by_pairs(const rows *r, bool weights, size_t n, int64_t *out_groups) {
    double sum = 0.0, total = 0.0;
    *out_groups = 0;
    for (size_t i = 0; i < n; i++) {
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++) seen = r->groups[j] == r->groups[i];
        if (seen) continue;
        double weight = 0.0;
        const double auc = auc_by_pairs(r, weights, &r->groups[i], n, &weight);
        if (isnan(auc)) continue;
        sum += weight * auc;
        total += weight;
        ++*out_groups;
    }
    return sum / total;
}

static void any_memory_gives_the_same_bits(void **state) {
    (void)state;
    static const size_t memory[] = {0, 500, 4096, 50000, 300000}, steps[] = {1, 7, 1024, 5000};
    for (size_t shape = 0; shape < 4; shape++) {
        const bool weights = shape & 1, groups = shape & 2;
        rows *r = make_rows(shape < 2 ? 40.0 : 1e6);
        /* So different that a sum's bits tell the order of its terms. */
        for (size_t i = 0; i < N; i++) r->weights[i] *= exp2f((float)floor(unit(i, 7) * 60.0 - 30.0));
        const ct_metrics whole = collect(r, weights, groups, N, N, 64 << 20);
        for (size_t m = 0; m < sizeof memory / sizeof *memory; m++)
            for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
                const ct_metrics part = collect(r, weights, groups, N, steps[s], memory[m]);
                assert_memory_equal(&part, &whole, sizeof whole);
            }
        /* one row more and one less than fits */
        for (size_t n = 255; n <= 257; n++) {
            const ct_metrics little = collect(r, weights, groups, n, n, groups ? 256 * 48 : 256 * 16);
            const ct_metrics large = collect(r, weights, groups, n, n, 64 << 20);
            assert_memory_equal(&little, &large, sizeof large);
        }
        free(r);
    }
}

static void spilled_rows_meet_the_definitions(void **state) {
    (void)state;
    for (size_t shape = 0; shape < 4; shape++) {
        const bool weights = shape & 1;
        const size_t n = 1500;
        rows *r = make_rows(shape < 2 ? 30.0 : 1e6);
        const ct_metrics metrics = collect(r, weights, true, n, 100, 2000);
        double weight = 0.0;
        int64_t groups = 0;
        assert_close(metrics.auc, auc_by_pairs(r, weights, NULL, n, &weight), 1e-13);
        assert_close(metrics.weight, weight, 1e-9);
        assert_close(metrics.grouped_auc, grouped_by_pairs(r, weights, n, &groups), 1e-13);
        assert_int_equal(metrics.groups, groups);
        assert_true(groups > 100);
        free(r);
    }
}

/* --- the calibration table --- */

static void bins_by_hand(void **state) {
    (void)state;
    /* 40 rows with logits of their own: two in each bin; every second one is clicked */
    rows *r = make_rows(1.0);
    for (size_t i = 0; i < 40; i++) r->logits[i] = (float)((i * 17) % 40) * 0.25f - 5.0f, r->labels[i] = (i * 17) % 40 % 2 ? 1.0f : 0.0f;
    const ct_metrics even = collect(r, false, false, 40, 40, 1 << 20);
    const ct_calibration_table *table = &even.calibration_table;
    assert_int_equal(table->count, 20);
    double expected = 0.0, maximum = 0.0;
    for (size_t b = 0; b < 20; b++) {
        const double low = 1.0 / (1.0 + exp(5.0 - 0.5 * (double)b)), high = 1.0 / (1.0 + exp(4.75 - 0.5 * (double)b));
        assert_int_equal(table->bins[b].rows, 2);
        assert_close(table->bins[b].weight, 2.0, 0.0);
        assert_close(table->bins[b].low, low, 1e-15);
        assert_close(table->bins[b].high, high, 1e-15);
        assert_close(table->bins[b].mean_prediction, (low + high) / 2.0, 1e-15);
        assert_close(table->bins[b].click_rate, 0.5, 0.0);
        const double error = fabs((low + high) / 2.0 - 0.5);
        expected += error / 20.0;
        if (error > maximum) maximum = error;
    }
    assert_close(table->expected_error, expected, 1e-15);
    assert_close(table->maximum_error, maximum, 1e-15);

    /* blocks of weight 1, 2, 1 of 4: their middles at 1/8, 1/2, 7/8 are bins 2, 10 and 17; one bin each */
    const float logits[] = {1, 0, -1, 0}, labels[] = {1, 1, 0, 0};
    memcpy(r->logits, logits, sizeof logits);
    memcpy(r->labels, labels, sizeof labels);
    const ct_metrics few = collect(r, false, false, 4, 4, 1 << 20);
    table = &few.calibration_table;
    assert_int_equal(table->count, 3);
    assert_int_equal(table->bins[1].rows, 2);
    assert_close(table->bins[1].low, 0.5, 0.0);
    assert_close(table->bins[1].high, 0.5, 0.0);
    assert_close(table->bins[1].click_rate, 0.5, 0.0);
    assert_close(table->bins[0].click_rate, 0.0, 0.0);
    assert_close(table->bins[2].click_rate, 1.0, 0.0);
    const double side = 1.0 / (1.0 + exp(1.0));
    assert_close(table->expected_error, side / 2.0, 1e-15);
    assert_close(table->maximum_error, side, 1e-15);

    /* all tied: one bin; no weight: none, and null in JSON */
    for (size_t i = 0; i < 4; i++) r->logits[i] = 2.0f, r->weights[i] = 0.0f;
    assert_int_equal(collect(r, false, false, 4, 4, 1 << 20).calibration_table.count, 1);
    const ct_metrics none = collect(r, true, false, 4, 4, 1 << 20);
    assert_int_equal(none.calibration_table.count, 0);
    json_t *object = json_object();
    assert_ok(ct_calibration_to_json(&none, object, &status));
    assert_int_equal(json_array_size(json_object_get(object, "calibration_table")), 0);
    assert_true(json_is_array(json_object_get(object, "calibration_table")));
    assert_true(json_is_null(json_object_get(object, "expected_calibration_error")));
    json_decref(object);
    object = json_object();
    assert_ok(ct_calibration_to_json(&few, object, &status));
    const json_t *bin = json_array_get(json_object_get(object, "calibration_table"), 1);
    assert_int_equal(json_integer_value(json_object_get(bin, "rows")), 2);
    assert_close(json_real_value(json_object_get(bin, "low")), 0.5, 0.0);
    assert_close(json_real_value(json_object_get(object, "maximum_calibration_error")), side, 1e-15);
    json_decref(object);
    free(r);
}

/* Each row's bin from the definition: the weight below its prediction and the weight of its prediction, by counting. */
static void bins_by_counting(void **state) {
    (void)state;
    enum { ROWS = 1500 };
    static const double levels[] = {5, 60, 700, 1e6};
    for (size_t l = 0; l < 4; l++) {
        rows *r = make_rows(levels[l]);
        double total = 0.0, weight[20] = {0}, clicks[20] = {0}, predictions[20] = {0}, low[20], high[20];
        int64_t count[20] = {0};
        for (size_t i = 0; i < ROWS; i++) {
            r->weights[i] = (float)floor((double)r->weights[i] * 2.0) / 2.0f; /* halves: the sums are exact */
            total += (double)r->weights[i];
        }
        for (size_t i = 0; i < ROWS; i++) {
            double below = 0.0, same = 0.0;
            for (size_t j = 0; j < ROWS; j++) {
                if (r->logits[j] < r->logits[i]) below += (double)r->weights[j];
                if (r->logits[j] == r->logits[i]) same += (double)r->weights[j];
            }
            const double w = (double)r->weights[i], p = 1.0 / (1.0 + exp(-(double)r->logits[i]));
            if (w == 0.0) continue;
            const size_t b = (size_t)(20.0 * ((below + same / 2.0) / total));
            low[b] = count[b] == 0 || p < low[b] ? p : low[b];
            high[b] = count[b] == 0 || p > high[b] ? p : high[b];
            count[b]++;
            weight[b] += w;
            clicks[b] += w * (double)r->labels[i];
            predictions[b] += w * p;
        }
        const ct_metrics metrics = collect(r, true, false, ROWS, 333, 3000);
        const ct_calibration_table *table = &metrics.calibration_table;
        size_t at = 0;
        for (size_t b = 0; b < 20; b++) {
            if (count[b] == 0) continue;
            assert_true(at < table->count);
            const ct_calibration_bin *bin = &table->bins[at++];
            assert_int_equal(bin->rows, count[b]);
            assert_close(bin->weight, weight[b], 0.0);
            assert_close(bin->low, low[b], 1e-15);
            assert_close(bin->high, high[b], 1e-15);
            assert_close(bin->mean_prediction, predictions[b] / weight[b], 1e-14);
            assert_close(bin->click_rate, clicks[b] / weight[b], 1e-15);
        }
        assert_int_equal(at, table->count);
        free(r);
    }
}

/* --- the temporary file --- */

static size_t files_in(const char *folder) {
    DIR *open = opendir(folder);
    assert_non_null(open);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(open)) != NULL;) count += entry->d_name[0] != '.';
    closedir(open);
    return count;
}

static void a_full_disk_is_said(void **state) {
    (void)state;
    char *folder = temp_folder(), *nowhere = temp_path(folder, "nowhere");
    rows *r = make_rows(1e6);
    ct_metrics_collector *collector = NULL;
    ct_metrics metrics;
    ct_status status = CT_STATUS_INIT;
    const char *before = getenv("TMPDIR");
    char *saved = before != NULL ? strdup(before) : NULL;

    assert_int_equal(setenv("TMPDIR", folder, 1), 0);
    assert_ok(ct_metrics_collector_create_within(4096, &collector, &status));
    assert_ok(ct_metrics_collector_add(collector, r->logits, r->labels, NULL, NULL, N, &status));
    assert_int_equal(files_in(folder), 0); /* it has no name, so nothing is left whatever happens */
    assert_ok(ct_metrics_collector_finish(collector, &metrics, &status));
    ct_metrics_collector_reset(collector);

    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    const struct rlimit small = {8192, limit.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const ct_code code = ct_metrics_collector_add(collector, r->logits, r->labels, NULL, NULL, N, &status);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(code, CT_EXHAUSTED);
    assert_non_null(strstr(status.message, folder));
    assert_non_null(strstr(status.message, "TMPDIR"));
    ct_metrics_collector_reset(collector);
    ct_metrics again;
    assert_ok(ct_metrics_collector_add(collector, r->logits, r->labels, NULL, NULL, N, &status));
    assert_ok(ct_metrics_collector_finish(collector, &again, &status));
    assert_memory_equal(&again, &metrics, sizeof metrics);
    ct_metrics_collector_destroy(collector);

    assert_int_equal(setenv("TMPDIR", nowhere, 1), 0);
    status = (ct_status)CT_STATUS_INIT;
    assert_ok(ct_metrics_collector_create_within(4096, &collector, &status));
    assert_int_equal(ct_metrics_collector_add(collector, r->logits, r->labels, NULL, NULL, N, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, nowhere));
    ct_metrics_collector_destroy(collector);

    if (saved != NULL)
        setenv("TMPDIR", saved, 1);
    else
        unsetenv("TMPDIR");
    free(saved);
    free(r);
    free(nowhere);
    temp_remove(folder);
}

static void rows_behind_the_end_are_refused(void **state) {
    (void)state;
    const float logits[] = {0, 1}, labels[] = {0, 1};
    ct_metrics_collector *collector = NULL;
    ct_metrics metrics;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_metrics_collector_create(&collector, &status));
    assert_ok(ct_metrics_collector_add(collector, logits, labels, NULL, NULL, 2, &status));
    assert_ok(ct_metrics_collector_finish(collector, &metrics, &status));
    assert_int_equal(ct_metrics_collector_add(collector, logits, labels, NULL, NULL, 2, &status), CT_INVALID);
    ct_metrics_collector_reset(collector);
    assert_ok(ct_metrics_collector_add(collector, logits, labels, NULL, NULL, 2, &status));
    ct_metrics_collector_destroy(collector);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_memory_gives_the_same_bits),
        cmocka_unit_test(spilled_rows_meet_the_definitions),
        cmocka_unit_test(bins_by_hand),
        cmocka_unit_test(bins_by_counting),
        cmocka_unit_test(a_full_disk_is_said),
        cmocka_unit_test(rows_behind_the_end_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
