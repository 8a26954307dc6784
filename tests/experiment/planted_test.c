/* What the report must say of worlds whose truth is known. All of a click is its item's appeal, and the item's vector explains all
 * of it, or nothing. How well any model can rank the rows of a slice follows from their true probabilities. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "data/synth.h"
#include "experiment/compare.h"
#include "experiment/counts.h"
#include "tests/base/temp.h"
#include "trainer/metrics.h"

enum { ROWS = 40000, TRAIN = 30000, VALID = 2000, TEST = ROWS - TRAIN - VALID, LINE_BYTES = 4096, ITEM_COLUMN = 15 };

/* --- the world --- */

typedef struct world {
    char *folder, *train, *valid, *test, *arms;
    ct_synth_options synth;
    ct_schema *schema;
    float labels[TEST], best[TEST]; /* of the test rows; best: their true probabilities */
    uint64_t counts[TEST];          /* training rows of their items */
} world;

static uint64_t item_of(const char *line) {
    for (int column = 0; column < ITEM_COLUMN; column++) line = strchr(line, '\t') + 1;
    return ct_hash64(line, strcspn(line, "\t\n"), 0);
}

static void share_out(world *w, const char *log) {
    static char line[LINE_BYTES];
    ct_status status = CT_STATUS_INIT;
    ct_counts *counts = NULL;
    FILE *in = fopen(log, "r"), *train = fopen(w->train, "w"), *valid = fopen(w->valid, "w"), *test = fopen(w->test, "w");
    assert_true(in != NULL && train != NULL && valid != NULL && test != NULL);
    assert_int_equal(ct_counts_create(&counts, &status), CT_OK);
    for (size_t row = 0; fgets(line, sizeof line, in) != NULL; row++) {
        fputs(line, row < TRAIN ? train : row < TRAIN + VALID ? valid : test);
        if (row < TRAIN) assert_int_equal(ct_counts_add(counts, item_of(line), 1, &status), CT_OK);
        if (row < TRAIN + VALID) continue;
        w->labels[row - TRAIN - VALID] = line[0] == '1' ? 1.0f : 0.0f;
        w->counts[row - TRAIN - VALID] = ct_counts_get(counts, item_of(line));
    }
    ct_counts_destroy(counts);
    fclose(in);
    assert_int_equal(fclose(train), 0);
    assert_int_equal(fclose(valid), 0);
    assert_int_equal(fclose(test), 0);
}

static world *make_world(double content_share) {
    static double probabilities[TEST];
    ct_status status = CT_STATUS_INIT;
    ct_synth_truth truth;
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->folder = temp_folder();
    char *log = temp_path(w->folder, "log.tsv"), *vectors = temp_path(w->folder, "items.npy"), *yaml = temp_path(w->folder, "log.yaml");
    w->train = temp_path(w->folder, "train.tsv");
    w->valid = temp_path(w->folder, "valid.tsv");
    w->test = temp_path(w->folder, "test.tsv");
    w->arms = temp_path(w->folder, "arms.yaml");
    ct_synth_options_init(&w->synth);
    w->synth.rows = ROWS;
    w->synth.path = log;
    w->synth.vectors_path = vectors;
    w->synth.schema_path = yaml;
    w->synth.item_share = 1.0;
    w->synth.pairs_share = 0.0;
    w->synth.new_item_share = 0.6;
    w->synth.signal = 2.0;
    w->synth.content_share = content_share;
    assert_int_equal(ct_synth_write(&w->synth, &truth, &status), CT_OK);
    assert_int_equal(ct_schema_load(yaml, &w->schema, &status), CT_OK);
    assert_int_equal(ct_synth_probabilities(&w->synth, TRAIN + VALID, TEST, probabilities, NULL, &status), CT_OK);
    for (size_t i = 0; i < TEST; i++) w->best[i] = (float)probabilities[i];
    static const char arms[] =
        "model: dnn\n"
        "set: [\"deep=[16]\", \"embedding.dim=8\", \"vector.adapter=8\", \"numbers.buckets=false\", \"optimizer.learning_rate=0.003\"]\n"
        "arms:\n"
        "  - {name: id, features: [C1, C2, I1]}\n"
        "  - {name: content, features: [C1, I1, item_vector]}\n";
    assert_int_equal(ct_file_write(w->arms, arms, strlen(arms), &status), CT_OK);
    share_out(w, log);
    free(log);
    free(vectors);
    free(yaml);
    return w;
}

static void remove_world(world *w) {
    ct_schema_destroy(w->schema);
    temp_remove(w->folder);
    free(w->train);
    free(w->valid);
    free(w->test);
    free(w->arms);
    free(w);
}

/* The AUC of the true probabilities on the rows whose item has least to most training rows: nothing ranks them better. */
static double best_auc(const world *w, uint64_t least, uint64_t most) {
    static float scores[TEST], labels[TEST];
    ct_status status = CT_STATUS_INIT;
    size_t n = 0;
    double auc = 0.0;
    for (size_t i = 0; i < TEST; i++) {
        if (w->counts[i] < least || w->counts[i] > most) continue;
        scores[n] = w->best[i];
        labels[n++] = w->labels[i];
    }
    assert_int_equal(ct_auc(scores, labels, NULL, n, &auc, &status), CT_OK);
    return auc;
}

/* --- the report --- */

static json_t *compare(const world *w) {
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    json_t *report = NULL;
    const char *train = w->train, *valid = w->valid, *test = w->test;
    assert_int_equal(ct_pool_create(2, &pool, &status), CT_OK);
    const ct_compare_options options = {.schema = w->schema,
                                        .arms_path = w->arms,
                                        .train_sources = &train,
                                        .train_source_count = 1,
                                        .valid_sources = &valid,
                                        .valid_source_count = 1,
                                        .test_sources = &test,
                                        .test_source_count = 1,
                                        .seeds = 3,
                                        .seed = 1,
                                        .batch_rows = 256,
                                        .draws = 400,
                                        .epochs = 8,
                                        .pool = pool};
    const ct_code code = ct_compare_run(&options, &report, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    ct_pool_destroy(pool);
    char *table = ct_compare_table(report);
    printf("%s", table);
    free(table);
    return report;
}

typedef struct slice {
    const char *verdict;
    double id, content, low, high; /* AUC of the arms; interval of the difference */
} slice;

static slice slice_of(const json_t *report, const char *name) {
    const json_t *slices = json_object_get(json_array_get(json_object_get(report, "comparisons"), 0), "slices"), *one = NULL;
    size_t i = 0;
    json_array_foreach(slices, i, one) {
        if (strcmp(json_string_value(json_object_get(one, "slice")), name) != 0) continue;
        const json_t *auc = json_object_get(one, "auc");
        return (slice){json_string_value(json_object_get(one, "verdict")), json_number_value(json_object_get(auc, "a")),
                       json_number_value(json_object_get(auc, "b")), json_number_value(json_object_get(auc, "low")),
                       json_number_value(json_object_get(auc, "high"))};
    }
    fail_msg("no slice %s", name);
    return (slice){0};
}

static void assert_between(const char *what, double low, double value, double high) {
    printf("%s: %.4f, must be in [%.4f, %.4f]\n", what, value, low, high);
    assert_true(low <= value && value <= high);
}

/* Content explains all: new items rank nearly as well as they can by their vectors, and by chance without; hot items equally well. */
static void test_content_explains_all(void **state) {
    (void)state;
    world *w = make_world(1.0);
    json_t *report = compare(w);
    const slice fresh = slice_of(report, "new"), hot = slice_of(report, "hot");
    const double best_new = best_auc(w, 0, 0), best_hot = best_auc(w, 100, UINT64_MAX), planted = best_new - 0.5;
    assert_string_equal(fresh.verdict, "B better");
    assert_string_equal(hot.verdict, "no difference shown");
    assert_between("new, content", best_new - 0.05, fresh.content, best_new + 0.01);
    assert_between("new, id", 0.42, fresh.id, 0.6); /* the user and I1 tell a little */
    assert_between("new, difference", 0.7 * planted, fresh.content - fresh.id, 1.2 * planted);
    assert_true(fresh.low > 0.0);
    assert_between("hot, content", best_hot - 0.02, hot.content, best_hot + 0.01);
    assert_between("hot, id", best_hot - 0.02, hot.id, best_hot + 0.01);
    json_decref(report);
    remove_world(w);
}

/* Content explains nothing: new items can't be ranked by anybody but for what users tell; where an item is known its id wins. */
static void test_content_explains_nothing(void **state) {
    (void)state;
    world *w = make_world(0.0);
    json_t *report = compare(w);
    const slice fresh = slice_of(report, "new"), hot = slice_of(report, "hot"), all = slice_of(report, "all");
    const double best_hot = best_auc(w, 100, UINT64_MAX);
    assert_string_equal(fresh.verdict, "no difference shown");
    assert_string_equal(hot.verdict, "A better");
    assert_string_equal(all.verdict, "A better");
    assert_between("new, content", 0.42, fresh.content, 0.58); /* chance, of some hundred items, whose rows go together */
    assert_between("hot, id", best_hot - 0.02, hot.id, best_hot + 0.01);
    assert_true(hot.high < 0.0);
    json_decref(report);
    remove_world(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_content_explains_all), cmocka_unit_test(test_content_explains_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
