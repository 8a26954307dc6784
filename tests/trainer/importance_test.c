/* Importance against its definition: rows ordered by their random numbers with qsort, a column picked in that order by a plain loop, every
 * pair counted. */
#include "trainer/importance.h"

#include <math.h>

#include "base/hash.h"
#include "base/random.h"
#include "tests/model/fixture.h"
#include "trainer/metrics.h"
#include "trainer/trainer.h"

enum { LOG_ROWS = 2400, ROWS = 700, FIRST = 400, REPEATS = 2, BATCH_ROWS = 200, SEED = 77 };

typedef struct fixture {
    char *folder, *log, *later;
    ct_schema *schema;
    ct_pool *pool;
    ct_model *model;
    ct_batch *batch; /* of the later log */
} fixture;

static ct_model *train(const fixture *f, const char *exclude) {
    const char *sets[] = {"embedding.dim=4",
                          "vector.adapter=3",
                          "embedding.learning_rate=0.2",
                          "optimizer.learning_rate=0.01",
                          "deep=[16]",
                          "numbers.buckets=true",
                          exclude};
    ct_model *model = make_model(f->schema, "dcn-v2", sets, exclude != NULL ? 7 : 6, 5, BATCH_ROWS, f->pool);
    train_on(model, f->log, 0, 0, LOG_ROWS / BATCH_ROWS);
    return model;
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->folder = temp_folder();
    f->log = shop_log(f->folder, "train.tsv", 0, LOG_ROWS, -1);
    f->later = shop_log(f->folder, "later.tsv", LOG_ROWS, ROWS, -1);
    f->schema = shop_schema(f->folder);
    f->pool = make_pool(2);
    f->model = train(f, NULL);
    f->batch = read_all(f->schema, f->later, ROWS);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    ct_model_destroy(f->model);
    ct_batch_destroy(f->batch);
    ct_schema_destroy(f->schema);
    ct_pool_destroy(f->pool);
    free(f->log);
    free(f->later);
    temp_remove(f->folder);
    free(f);
    return 0;
}

/* --- the definition --- */

typedef struct draw {
    uint32_t random;
    size_t row;
} draw;

static int by_random(const void *a, const void *b) {
    const draw *x = a, *y = b;
    if (x->random != y->random) return x->random < y->random ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

typedef struct picked {
    size_t column;
    draw order[ROWS]; /* of the whole batch: each window is permuted in itself */
} picked;

static size_t picked_row(const void *context, size_t column, size_t row) {
    const picked *p = context;
    return column == p->column ? p->order[row].row : row;
}

/* Windows: rows [0, FIRST) and [FIRST, ROWS). */
static void order_windows(picked *p, const char *feature, uint32_t repeat) {
    static const size_t edges[] = {0, FIRST, ROWS};
    for (size_t w = 0; w < 2; w++) {
        for (size_t r = edges[w]; r < edges[w + 1]; r++)
            p->order[r] = (draw){ct_random(SEED, CT_PLACE_SHUFFLE, repeat, r, (uint32_t)ct_hash64(feature, strlen(feature), 0)).word[0], r};
        qsort(p->order + edges[w], edges[w + 1] - edges[w], sizeof *p->order, by_random);
    }
}

static double loss_of(const float *logits, const float *labels, const float *weights) {
    double loss = 0.0, weight = 0.0;
    for (size_t r = 0; r < ROWS; r++) {
        const double z = (double)logits[r], p = 1.0 / (1.0 + exp(-z)), w = (double)weights[r];
        loss -= w * log(labels[r] != 0.0f ? p : 1.0 - p);
        weight += w;
    }
    return loss / weight;
}

/* Ties are rows with a logit in the same 512th. */
static double auc_of(const float *logits, const float *labels, const float *weights) {
    double won = 0.0, pairs = 0.0;
    for (size_t i = 0; i < ROWS; i++) {
        if (labels[i] == 0.0f) continue;
        for (size_t j = 0; j < ROWS; j++) {
            if (labels[j] != 0.0f) continue;
            const double a = floor((double)logits[i] * 512.0), b = floor((double)logits[j] * 512.0);
            const double pair = (double)weights[i] * (double)weights[j];
            pairs += pair;
            won += pair * (a > b ? 1.0 : a == b ? 0.5 : 0.0);
        }
    }
    return won / pairs;
}

static void assert_close(double actual, double expected, double bound) {
    if (!(fabs(actual - expected) <= bound)) fail_msg("got %.17g, expected %.17g within %g", actual, expected, bound);
}

/* --- the library --- */

static size_t own_row(const void *context, size_t column, size_t row) {
    (void)column;
    return row + *(const size_t *)context;
}

static json_t *importance_of(const fixture *f, ct_model *model, ct_pool *pool, uint32_t repeats) {
    const ct_importance_options options = {.repeats = repeats, .seed = SEED};
    static const size_t edges[] = {0, FIRST, ROWS};
    ct_importance *importance = NULL;
    json_t *json = NULL;
    const size_t threads = ct_pool_threads(pool);
    ct_scorer **scorers = calloc(threads, sizeof(ct_scorer *));
    assert_non_null(scorers);
    for (size_t t = 0; t < threads; t++) assert_ok(ct_scorer_create(model, &scorers[t], &status));
    assert_ok(ct_importance_create(model, pool, &options, &importance, &status));
    for (size_t w = 0; w < 2; w++) {
        ct_batch *window = pick_rows(f->schema, f->batch, edges[w + 1] - edges[w], own_row, &edges[w], NULL);
        window->first_row = (int64_t)edges[w];
        float *logits = score_all(model, window);
        assert_ok(ct_importance_add(importance, scorers, window, logits, ct_column_f32(&window->columns[SHOP_LABEL]),
                                    ct_column_f32(&window->columns[SHOP_WEIGHT]), &status));
        free(logits);
        ct_batch_destroy(window);
    }
    assert_ok(ct_importance_finish(importance, &json, &status));
    ct_importance_destroy(importance);
    for (size_t t = 0; t < threads; t++) ct_scorer_destroy(scorers[t]);
    free(scorers);
    return json;
}

static double number(const json_t *object, const char *name) {
    assert_true(json_is_real(json_object_get(object, name)));
    return json_real_value(json_object_get(object, name));
}

static void importance_is_that_of_the_definition(void **state) {
    const fixture *f = *state;
    const float *labels = ct_column_f32(&f->batch->columns[SHOP_LABEL]), *weights = ct_column_f32(&f->batch->columns[SHOP_WEIGHT]);
    json_t *json = importance_of(f, f->model, f->pool, REPEATS);
    const json_t *features = json_object_get(json, "features");
    float *plain = score_all(f->model, f->batch);
    const double plain_loss = loss_of(plain, labels, weights), plain_auc = auc_of(plain, labels, weights);
    assert_int_equal(json_integer_value(json_object_get(json, "rows")), ROWS);
    assert_close(number(json, "log_loss"), plain_loss, 1e-9);
    assert_close(number(json, "auc"), plain_auc, 1e-12);
    ct_metrics_collector *collector = NULL;
    ct_metrics exact;
    assert_ok(ct_metrics_collector_create(&collector, &status));
    assert_ok(ct_metrics_collector_add(collector, plain, labels, weights, NULL, ROWS, &status));
    assert_ok(ct_metrics_collector_finish(collector, &exact, &status));
    ct_metrics_collector_destroy(collector);
    assert_close(number(json, "auc"), exact.auc, number(json, "auc_error"));
    assert_true(number(json, "auc_error") < 0.01);

    assert_int_equal(json_array_size(features), 9); /* user, tags, age, item, likes, price, spread, two vectors */
    double before = INFINITY, most = 0.0;
    for (size_t i = 0; i < json_array_size(features); i++) {
        const json_t *feature = json_array_get(features, i);
        const char *name = json_string_value(json_object_get(feature, "feature"));
        const int64_t field = ct_schema_find(f->schema, name);
        assert_true(field >= 0);
        double loss[REPEATS], drop[REPEATS];
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            picked p = {.column = (size_t)field};
            order_windows(&p, name, repeat);
            ct_batch *permuted = pick_rows(f->schema, f->batch, ROWS, picked_row, &p, NULL);
            float *logits = score_all(f->model, permuted);
            loss[repeat] = loss_of(logits, labels, weights) - plain_loss;
            drop[repeat] = plain_auc - auc_of(logits, labels, weights);
            free(logits);
            ct_batch_destroy(permuted);
        }
        assert_close(number(feature, "log_loss_increase"), (loss[0] + loss[1]) / 2.0, 1e-9);
        assert_close(number(feature, "auc_drop"), (drop[0] + drop[1]) / 2.0, 1e-12);
        assert_close(number(feature, "log_loss_increase_error"), fabs(loss[0] - loss[1]) / 2.0, 1e-9); /* sd / sqrt 2 of two values */
        assert_close(number(feature, "auc_drop_error"), fabs(drop[0] - drop[1]) / 2.0, 1e-12);
        assert_true(number(feature, "log_loss_increase") <= before);
        before = number(feature, "log_loss_increase");
        if (before > most) most = before;
    }
    assert_true(most > 0.01); /* the model has learned something, so something matters */
    free(plain);
    json_decref(json);
}

static void threads_change_nothing_and_one_repeat_has_no_error(void **state) {
    const fixture *f = *state;
    ct_pool *one = make_pool(1), *three = make_pool(3);
    json_t *a = importance_of(f, f->model, one, 1), *b = importance_of(f, f->model, three, 1);
    assert_true(json_equal(a, b));
    const json_t *feature = json_array_get(json_object_get(a, "features"), 0);
    assert_true(json_is_null(json_object_get(feature, "auc_drop_error")));
    assert_true(json_is_null(json_object_get(feature, "log_loss_increase_error")));
    json_decref(a);
    json_decref(b);
    ct_pool_destroy(one);
    ct_pool_destroy(three);
}

static void only_what_the_model_reads_is_permuted(void **state) {
    const fixture *f = *state;
    ct_model *model = train(f, "exclude=[item,age]"); /* item is still needed for its vector's sake */
    json_t *json = importance_of(f, model, f->pool, 1);
    const json_t *features = json_object_get(json, "features");
    bool vector = false;
    assert_int_equal(json_array_size(features), 7);
    for (size_t i = 0; i < 7; i++) {
        const char *name = json_string_value(json_object_get(json_array_get(features, i), "feature"));
        assert_string_not_equal(name, "item");
        assert_string_not_equal(name, "age");
        vector = vector || strcmp(name, "item_text") == 0;
    }
    assert_true(vector);
    json_decref(json);
    ct_model_destroy(model);
}

/* Through ct_evaluate: windows instead of the reader's batches, the same metrics, and a stop. */
static void evaluation_feeds_it(void **state) {
    const fixture *f = *state;
    atomic_bool stop = false;
    const ct_importance_options how = {.repeats = 1, .seed = SEED, .stop = &stop};
    const char *source = f->later;
    ct_evaluate_options options = {.reader = CT_READER_OPTIONS_INIT, .pool = f->pool};
    options.reader.sources = &source;
    options.reader.source_count = 1;
    options.reader.batch_rows = 64;
    ct_metrics plain, with;
    ct_read_report report;
    json_t *small = NULL, *large = NULL;
    assert_ok(ct_evaluate(f->model, &options, &plain, &report, &status));
    for (int round = 0; round < 2; round++) {
        ct_importance *importance = NULL;
        assert_ok(ct_importance_create(f->model, f->pool, &how, &importance, &status));
        options.importance = importance;
        options.reader.batch_rows = round == 0 ? 64 : 1000;
        assert_ok(ct_evaluate(f->model, &options, &with, &report, &status));
        assert_memory_equal(&with, &plain, sizeof plain);
        assert_ok(ct_importance_finish(importance, round == 0 ? &small : &large, &status));
        ct_importance_destroy(importance);
    }
    assert_true(json_equal(small, large));
    assert_int_equal(json_integer_value(json_object_get(small, "rows")), ROWS);
    json_decref(small);
    json_decref(large);

    ct_importance *importance = NULL;
    assert_ok(ct_importance_create(f->model, f->pool, &how, &importance, &status));
    options.importance = importance;
    stop = true;
    assert_refused(CT_CANCELLED, "stopped", ct_evaluate(f->model, &options, &with, &report, &status));
    ct_importance_destroy(importance);
}

static void too_many_repeats_are_refused(void **state) {
    const fixture *f = *state;
    ct_importance *importance = NULL;
    assert_refused(CT_INVALID, "1001",
                   ct_importance_create(f->model, f->pool, &(const ct_importance_options){.repeats = 1001}, &importance, &status));
    assert_null(importance);
    ct_importance_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(importance_is_that_of_the_definition),  cmocka_unit_test(threads_change_nothing_and_one_repeat_has_no_error),
        cmocka_unit_test(only_what_the_model_reads_is_permuted), cmocka_unit_test(evaluation_feeds_it),
        cmocka_unit_test(too_many_repeats_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
