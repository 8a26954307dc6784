/* Do the intervals of comparisons that are trained hold the true difference? Two arms are trained on one log, again and again from other
 * seeds, and each time judged on other units, which no other comparison has. What an interval is about is then the difference of the two
 * arms over all units and seeds, given the training log: the mean of the comparisons' differences, from 600 seeds and 120,000 rows (an AUC
 * is a mean over pairs of rows, so that of a part of the units has no bias).
 *
 * Usage: coverage_test [COMPARISONS]. 200 of them take minutes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "data/synth.h"
#include "experiment/compare.h"
#include "tests/base/temp.h"

enum {
    TESTS = 200,
    TRAIN_ROWS = 4000,
    TEST_ROWS = 120000,
    USERS = 20000,
    SEEDS = 3,
    LINE_BYTES = 4096,
    UNIT_COLUMN = 14, /* from 0: label, 13 numbers, C1 */
    METRICS = 3
};
static const char *const metrics[METRICS] = {"auc", "grouped_auc", "log_loss"};
static size_t comparisons = TESTS;

static char *test_path(const char *folder, size_t test) {
    char name[64];
    snprintf(name, sizeof name, "test-%zu.tsv", test);
    return temp_path(folder, name);
}

/* The first rows train; each of the others goes to the test of its unit. */
static void share_out(const char *folder, const char *log, const char *train) {
    static char line[LINE_BYTES];
    static FILE *tests[TESTS];
    FILE *in = fopen(log, "r"), *to_train = fopen(train, "w");
    assert_true(in != NULL && to_train != NULL);
    for (size_t i = 0; i < TESTS; i++) {
        char *path = test_path(folder, i);
        tests[i] = fopen(path, "w");
        assert_non_null(tests[i]);
        free(path);
    }
    for (long row = 0; fgets(line, sizeof line, in) != NULL; row++) {
        const char *unit = line;
        for (int column = 0; column < UNIT_COLUMN; column++) unit = strchr(unit, '\t') + 1;
        fputs(line, row < TRAIN_ROWS ? to_train : tests[ct_hash64(unit, strcspn(unit, "\t"), 0) % TESTS]);
    }
    for (size_t i = 0; i < TESTS; i++) assert_int_equal(fclose(tests[i]), 0);
    assert_int_equal(fclose(to_train), 0);
    fclose(in);
}

typedef struct world {
    char *folder, *train, *arms;
    ct_schema *schema;
    ct_pool *pool;
} world;

static json_t *compare(const world *w, const char *test, uint64_t seed) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    const char *train = w->train;
    const ct_compare_options options = {.schema = w->schema,
                                        .arms_path = w->arms,
                                        .train_sources = &train,
                                        .train_source_count = 1,
                                        .test_sources = &test,
                                        .test_source_count = 1,
                                        .seeds = SEEDS,
                                        .seed = seed,
                                        .batch_rows = 128,
                                        .draws = 400,
                                        .epochs = 2,
                                        .pool = w->pool};
    const ct_code code = ct_compare_run(&options, &report, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    return report;
}

/* Of all rows. */
static const json_t *metric_of(const json_t *report, size_t metric) {
    const json_t *pair = json_array_get(json_object_get(report, "comparisons"), 0);
    return json_object_get(json_array_get(json_object_get(pair, "slices"), 0), metrics[metric]);
}
static double value(const json_t *object, const char *name) { return json_number_value(json_object_get(object, name)); }

static world make_world(void) {
    ct_status status = CT_STATUS_INIT;
    world w = {.folder = temp_folder()};
    char *log = temp_path(w.folder, "log.tsv"), *vectors = temp_path(w.folder, "items.npy"), *yaml = temp_path(w.folder, "log.yaml");
    static const char arms[] =
        "model: dnn\n"
        "set: [\"deep=[8]\", \"embedding.dim=4\", \"vector.adapter=4\", \"numbers.buckets=false\", \"embedding.min_count=1\", "
        "\"optimizer.learning_rate=0.005\"]\n"
        "arms:\n"
        "  - {name: id, features: [C1, C2, I1]}\n"
        "  - {name: both, features: [C1, C2, I1, item_vector]}\n";
    ct_synth_options options;
    ct_synth_truth truth;
    ct_synth_options_init(&options);
    options.rows = TRAIN_ROWS + TEST_ROWS;
    options.users = USERS;
    options.item_share = 0.6;
    options.path = log;
    options.vectors_path = vectors;
    options.schema_path = yaml;
    assert_int_equal(ct_synth_write(&options, &truth, &status), CT_OK);
    assert_int_equal(ct_schema_load(yaml, &w.schema, &status), CT_OK);
    w.train = temp_path(w.folder, "train.tsv");
    w.arms = temp_path(w.folder, "arms.yaml");
    assert_int_equal(ct_file_write(w.arms, arms, strlen(arms), &status), CT_OK);
    assert_int_equal(ct_pool_create(0, &w.pool, &status), CT_OK);
    share_out(w.folder, log, w.train);
    free(log);
    free(vectors);
    free(yaml);
    return w;
}

static void test_trained_intervals_hold_the_truth(void **state) {
    (void)state;
    world w = make_world();
    static char *tests[TESTS];
    for (size_t i = 0; i < TESTS; i++) tests[i] = test_path(w.folder, i);
    static double low[TESTS][METRICS], high[TESTS][METRICS];
    double truth[METRICS] = {0}, width[METRICS] = {0};
    size_t held[METRICS] = {0}, sure = 0;
    for (size_t i = 0; i < comparisons; i++) {
        json_t *report = compare(&w, tests[i], 1 + i * SEEDS);
        for (size_t m = 0; m < METRICS; m++) {
            const json_t *metric = metric_of(report, m);
            low[i][m] = value(metric, "low");
            high[i][m] = value(metric, "high");
            truth[m] += value(metric, "difference") / (double)comparisons;
            width[m] += (high[i][m] - low[i][m]) / (double)comparisons;
        }
        sure += value(metric_of(report, 0), "low") > 0.0;
        json_decref(report);
    }
    for (size_t m = 0; m < METRICS; m++)
        for (size_t i = 0; i < comparisons; i++) held[m] += low[i][m] <= truth[m] && truth[m] <= high[i][m];
    for (size_t m = 0; m < METRICS; m++)
        printf("%s: true difference %+.4f, %zu of %zu intervals hold it (%.1f %%), mean width %.4f\n", metrics[m], truth[m], held[m],
               comparisons, 100.0 * (double)held[m] / (double)comparisons, width[m]);
    printf("an AUC above 0 is sure in %zu\n", sure);
    /* 92 to 98 % of 200; of fewer, as many as chance leaves (a standard error is 1.54 points for 200). */
    const double slack = comparisons == TESTS ? 0.0 : 0.06, least = 0.92 - slack, most = comparisons == TESTS ? 0.98 : 1.0;
    for (size_t m = 0; m < METRICS; m++) {
        const double share = (double)held[m] / (double)comparisons;
        assert_true(share >= least && share <= most);
    }
    for (size_t i = 0; i < TESTS; i++) free(tests[i]);
    ct_pool_destroy(w.pool);
    ct_schema_destroy(w.schema);
    free(w.train);
    free(w.arms);
    temp_remove(w.folder);
}

int main(int argc, char **argv) {
    if (argc > 1) comparisons = (size_t)strtoul(argv[1], NULL, 10);
    if (comparisons < 1 || comparisons > TESTS) {
        fprintf(stderr, "1 to %d comparisons\n", TESTS);
        return 2;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_trained_intervals_hold_the_truth)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
