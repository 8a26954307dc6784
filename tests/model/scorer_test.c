/* One row's score is the same bits whatever rows stand beside it, wherever it stands, and whichever of its columns are shared by the
 * request: this is what makes serving equal to evaluation. */
#include <math.h>

#include "base/random.h"
#include "model/scorer_stats.h"
#include "tests/model/fixture.h"

enum { LOG_ROWS = 1500, BATCH_ROWS = 256, ROWS = 600 };

static shop the_shop;

static int set_up(void **state) {
    shop_init(&the_shop, LOG_ROWS, ROWS);
    *state = &the_shop;
    return 0;
}

static int tear_down(void **state) {
    shop_deinit(*state);
    return 0;
}

/* The models and precisions that this machine has. */
typedef struct variant {
    const char *model, *precision, *numbers;
} variant;
static const variant variants[] = {{"lr", "fp32", "numbers.buckets=true"},
                                   {"dcn-v2", "fp32", "embedding.target_stats=true"},
                                   {"dnn", "fp32", "numbers.missing_flag=false"},
                                   {"dcn-v2", "fp32", "numbers.buckets=false"},
                                   {"fm", "fp32", "numbers.buckets=true"},
                                   {"deepfm", "bf16", "numbers.buckets=true"},
                                   {"dlrm", "fp32", "numbers.buckets=false"},
                                   {"dlrm", "bf16", "numbers.buckets=true"},
                                   {"dcn-v2", "bf16", "cross.rank=5"},
                                   {"dnn", "fp32", "layer_norm=true"},
                                   {"dnn", "bf16", "numbers.buckets=false"},
                                   {"dcn-v2", "bf16", "numbers.buckets=true"}};
enum { VARIANTS = sizeof variants / sizeof *variants };

static bool has_deep(const char *model) { return strcmp(model, "lr") != 0 && strcmp(model, "fm") != 0; }

/* NULL where the machine lacks the precision. */
static ct_model *trained(const shop *f, const variant *v) {
    char precision[32];
    snprintf(precision, sizeof precision, "precision=%s", v->precision);
    const char *sets[] = {
        precision,  "embedding.dim=6", "vector.adapter=3", "embedding.first_value_scale=0.1", "embedding.learning_rate=0.05",
        v->numbers, "deep=[40,24]"};
    ct_model_spec *spec = make_spec(v->model, sets, has_deep(v->model) ? 7 : 6);
    const ct_model_options options = {.seed = 3, .batch_rows = BATCH_ROWS, .pool = f->pool};
    ct_model *model = NULL;
    ct_status status = CT_STATUS_INIT;
    const ct_code code = ct_model_create(f->schema, spec, &options, &model, &status);
    ct_model_spec_destroy(spec);
    if (code == CT_UNSUPPORTED) {
        print_message("SKIP: %s in %s: %s\n", v->model, v->precision, status.message);
        return NULL;
    }
    if (code != CT_OK) fail_msg("%s", status.message);
    train_on(model, f->log, 0, 0, SIZE_MAX);
    return model;
}

static void assert_same_bits(const float *expected, const float *got, size_t n, const char *what, const variant *v) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&expected[i], &got[i], sizeof(float)) != 0)
            fail_msg("%s %s: %s, row %zu: %.9g instead of %.9g", v->model, v->precision, what, i, (double)got[i], (double)expected[i]);
}

static void assert_lively(const float *logits, size_t n) {
    float low = logits[0], high = logits[0];
    for (size_t i = 1; i < n; i++) {
        low = logits[i] < low ? logits[i] : low;
        high = logits[i] > high ? logits[i] : high;
    }
    assert_true(high - low > 0.5f); /* a model that says the same of every row would pass every test here */
}

static size_t one_row(const void *context, size_t column, size_t row) {
    (void)column;
    return *(const size_t *)context + row;
}

static void a_row_scores_the_same_alone_and_in_a_batch(void **state) {
    const shop *f = *state;
    for (size_t i = 0; i < VARIANTS; i++) {
        const variant *v = &variants[i];
        ct_model *model = trained(f, v);
        if (model == NULL) continue;
        float *expected = score_all(model, f->rows), got[ROWS];
        assert_lively(expected, ROWS);
        ct_scorer *scorer = NULL;
        assert_ok(ct_scorer_create(model, &scorer, &status));
        static const size_t sizes[] = {1, 2, 3, 7, 8, 31, 32, 100, 255, 256, 257};
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const size_t size = sizes[s];
            for (size_t first = 0; first < ROWS; first += size) {
                const size_t rows = ROWS - first < size ? ROWS - first : size;
                assert_ok(ct_scorer_run(scorer, f->rows, first, rows, got + first, &status));
            }
            assert_same_bits(expected, got, ROWS, "at offsets", v);
        }
        for (size_t row = 0; row < ROWS; row += 13) { /* a batch that holds nothing else */
            ct_batch *alone = pick_rows(f->schema, f->rows, 1, one_row, &row, NULL);
            assert_ok(ct_scorer_run(scorer, alone, 0, 1, &got[row], &status));
            assert_same_bits(&expected[row], &got[row], 1, "alone", v);
            ct_batch_destroy(alone);
        }
        assert_ok(ct_scorer_run(scorer, f->rows, ROWS, 0, got, &status)); /* no rows are fine */
        ct_scorer_destroy(scorer);
        free(expected);
        ct_model_destroy(model);
    }
}

static void the_pool_gives_the_same_bits(void **state) {
    const shop *f = *state;
    ct_model *model = trained(f, &variants[2]);
    float *expected = score_all(model, f->rows), got[ROWS];
    for (size_t threads = 1; threads <= 5; threads += 2) {
        ct_pool *pool = make_pool(threads);
        ct_scorer *scorers[5];
        for (size_t i = 0; i < threads; i++) assert_ok(ct_scorer_create(model, &scorers[i], &status));
        assert_ok(ct_scorers_run(scorers, pool, f->rows, got, &status));
        assert_same_bits(expected, got, ROWS, "on the pool", &variants[2]);
        for (size_t i = 0; i < threads; i++) ct_scorer_destroy(scorers[i]);
        ct_pool_destroy(pool);
    }
    free(expected);
    ct_model_destroy(model);
}

/* Row r of a request: columns of the subset come from one row for all, the others from rows of their own. */
typedef struct request {
    size_t base;
    bool constant[SHOP_FIELDS];
} request;

static size_t row_of_request(const void *context, size_t column, size_t row) {
    const request *r = context;
    return r->constant[column] ? r->base : (r->base + row) % ROWS;
}

static void check_subset(const shop *f, ct_model *model, ct_scorer *scorer, const request *r, size_t rows, const variant *v) {
    float got[ROWS];
    ct_batch *plain = pick_rows(f->schema, f->rows, rows, row_of_request, r, NULL);
    ct_batch *shared = pick_rows(f->schema, f->rows, rows, row_of_request, r, r->constant);
    float *expected = score_all(model, plain);
    assert_ok(ct_scorer_run(scorer, shared, 0, rows, got, &status));
    assert_same_bits(expected, got, rows, "with shared columns", v);
    request other = *r; /* what another request left behind must not matter */
    other.base = (r->base + 1) % ROWS;
    ct_batch *disturbing = pick_rows(f->schema, f->rows, 1, row_of_request, &other, other.constant);
    float ignored;
    assert_ok(ct_scorer_run(scorer, disturbing, 0, 1, &ignored, &status));
    ct_batch_destroy(disturbing);
    const size_t half = rows / 2; /* a request may be cut */
    assert_ok(ct_scorer_run(scorer, shared, half, rows - half, got + half, &status));
    assert_same_bits(expected + half, got + half, rows - half, "the second half of a request", v);
    free(expected);
    ct_batch_destroy(plain);
    ct_batch_destroy(shared);
}

static void any_columns_may_be_shared(void **state) {
    const shop *f = *state;
    for (size_t i = 0; i < VARIANTS; i++) {
        const variant *v = &variants[i];
        ct_model *model = trained(f, v);
        if (model == NULL) continue;
        ct_scorer *scorer = NULL;
        assert_ok(ct_scorer_create(model, &scorer, &status));
        request context = {.base = 17};
        for (size_t c = 0; c < SHOP_FIELDS; c++)
            context.constant[c] = c == SHOP_USER || c == SHOP_TAGS || c == SHOP_AGE || c == SHOP_LIKES || c == SHOP_LIKES_TEXT;
        static const size_t sizes[] = {1, 2, 7, 100, 300};
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) check_subset(f, model, scorer, &context, sizes[s], v);
        for (size_t c = 0; c < SHOP_FIELDS; c++) { /* all of the context but one, and one more than the context */
            request other = context;
            other.constant[c] = !other.constant[c];
            check_subset(f, model, scorer, &other, 37, v);
        }
        for (size_t t = 0; t < 40; t++) {
            const ct_random4 bits = ct_random(5, CT_PLACE_TEST, 0, t, 0);
            request any = {.base = bits.word[0] % ROWS};
            for (size_t c = 0; c < SHOP_FIELDS; c++) any.constant[c] = (bits.word[1] >> c & 1) != 0;
            check_subset(f, model, scorer, &any, 1 + bits.word[2] % 50, v);
        }
        ct_scorer_destroy(scorer);
        ct_model_destroy(model);
    }
}

/* The derived columns of a row are the same alone, in blocks, and where its context is shared; live_test computes them anew from a log. */
static void derived_columns_go_with_their_rows(void **state) {
    const shop *f = *state;
    enum { DERIVED = 32, STRIDE = ROWS + 5 };
    ct_model *plain_model = trained(f, &variants[2]), *model = trained(f, &variants[1]);
    assert_int_equal(ct_model_derived_count(plain_model), 0);
    ct_model_destroy(plain_model);
    const size_t count = ct_model_derived_count(model);
    assert_in_range(count, 3, DERIVED);
    bool has_user = false;
    for (size_t d = 0; d < count; d++) {
        char name[64], wanted[64];
        const char *field = f->schema->fields[ct_model_derived_field(model, d)].name;
        ct_model_derived_name(model, d, name, sizeof name);
        const bool bucket = f->schema->fields[ct_model_derived_field(model, d)].kind == CT_FIELD_NUMBER;
        (void)snprintf(wanted, sizeof wanted, "%s%s#odds", field, bucket ? "#bucket" : "");
        assert_string_equal(name, wanted);
        has_user |= strcmp(field, "user") == 0;
    }
    assert_true(has_user);
    ct_scorer *scorer = NULL;
    assert_ok(ct_scorer_create(model, &scorer, &status));
    static float alone[DERIVED * STRIDE], got[DERIVED * STRIDE];
    request context = {.base = 17};
    for (size_t c = 0; c < SHOP_FIELDS; c++)
        context.constant[c] = c == SHOP_USER || c == SHOP_TAGS || c == SHOP_AGE || c == SHOP_LIKES || c == SHOP_LIKES_TEXT;
    ct_batch *plain = pick_rows(f->schema, f->rows, ROWS, row_of_request, &context, NULL);
    ct_batch *shared = pick_rows(f->schema, f->rows, ROWS, row_of_request, &context, context.constant);
    float logits[ROWS], expected[ROWS];
    for (size_t r = 0; r < ROWS; r++) assert_ok(ct_scorer_run_derived(scorer, plain, r, 1, &expected[r], alone + r, STRIDE, &status));
    bool differ = false;
    for (size_t r = 1; r < ROWS; r++)
        for (size_t d = 0; d < count; d++) differ |= alone[d * STRIDE + r] != alone[d * STRIDE];
    assert_true(differ);
    for (int how = 0; how < 3; how++) { /* all at once, with shared columns, and from the middle of a request on */
        const size_t first = how == 2 ? ROWS / 3 : 0;
        for (size_t i = 0; i < DERIVED * STRIDE; i++) got[i] = -77;
        assert_ok(ct_scorer_run_derived(scorer, how ? shared : plain, first, ROWS - first, logits + first, got + first, STRIDE, &status));
        assert_same_bits(expected + first, logits + first, ROWS - first, "with derived columns", &variants[1]);
        for (size_t d = 0; d < count; d++) {
            assert_same_bits(alone + d * STRIDE + first, got + d * STRIDE + first, ROWS - first, "a derived column", &variants[1]);
            assert_true(got[d * STRIDE + ROWS] == -77); /* nothing behind its rows */
        }
    }
    ct_batch_destroy(plain);
    ct_batch_destroy(shared);
    ct_scorer_destroy(scorer);
    ct_model_destroy(model);
}

/* Where there is only one side, everything or nothing may be shared. */
static void one_side_alone_works(void **state) {
    const shop *f = *state;
    static const char *const only[][2] = {{"features=[user, tags, age, likes, likes_text]", "context"},
                                          {"features=[item, price, spread, item_text]", "candidate"}};
    for (size_t i = 0; i < 2; i++) {
        const char *sets[] = {only[i][0], "precision=fp32", "deep=[16]", "embedding.dim=4", "embedding.first_value_scale=0.1"};
        const variant v = {only[i][1], "fp32", ""};
        ct_model *model = make_model(f->schema, "dcn-v2", sets, 5, 1, BATCH_ROWS, f->pool);
        train_on(model, f->log, 0, 0, SIZE_MAX);
        ct_scorer *scorer = NULL;
        assert_ok(ct_scorer_create(model, &scorer, &status));
        request all = {.base = 5}, none = {.base = 5};
        memset(all.constant, 1, sizeof all.constant);
        check_subset(f, model, scorer, &all, 21, &v);
        check_subset(f, model, scorer, &none, 21, &v);
        ct_scorer_destroy(scorer);
        ct_model_destroy(model);
    }
}

/* Without numbers, whose transform a step changes, a batch's logits before the step are those of a scorer. */
static void training_sees_what_scoring_sees(void **state) {
    const shop *f = *state;
    for (size_t i = 0; i < VARIANTS; i++) {
        char precision[32];
        snprintf(precision, sizeof precision, "precision=%s", variants[i].precision);
        const char *sets[] = {precision,
                              "features=[user, tags, item, likes, item_text, likes_text]",
                              "embedding.dim=6",
                              "vector.adapter=3",
                              "embedding.id_drop=0",
                              "embedding.min_count=1",
                              "average.power=0", /* what training scores with */
                              "deep=[40,24]"};
        ct_model_spec *spec = make_spec(variants[i].model, sets, has_deep(variants[i].model) ? 8 : 7);
        const ct_model_options options = {.seed = 3, .batch_rows = ROWS, .pool = f->pool};
        ct_model *model = NULL;
        ct_status created = CT_STATUS_INIT;
        const ct_code code = ct_model_create(f->schema, spec, &options, &model, &created);
        ct_model_spec_destroy(spec);
        if (code == CT_UNSUPPORTED) continue;
        assert_int_equal(code, CT_OK);
        float logits[ROWS];
        for (size_t step = 0; step < 3; step++) assert_ok(ct_model_train(model, f->rows, 0, logits, &status));
        float *expected = score_all(model, f->rows);
        assert_ok(ct_model_train(model, f->rows, 0, logits, &status));
        assert_same_bits(expected, logits, ROWS, "in training", &variants[i]);
        free(expected);
        ct_model_destroy(model);
    }
}

static void an_absent_column_is_named(void **state) {
    const shop *f = *state;
    ct_model *model = trained(f, &variants[2]);
    ct_scorer *scorer = NULL;
    float got[ROWS];
    assert_ok(ct_scorer_create(model, &scorer, &status));
    for (size_t c = 0; c < SHOP_FIELDS; c++) {
        const bool needed = c != SHOP_LABEL && c != SHOP_WEIGHT && c != SHOP_WHO;
        f->rows->columns[c].present = false;
        char name[64];
        snprintf(name, sizeof name, "'%s'", f->schema->fields[c].name);
        if (needed)
            assert_refused(CT_INVALID, name, ct_scorer_run(scorer, f->rows, 0, ROWS, got, &status));
        else
            assert_ok(ct_scorer_run(scorer, f->rows, 0, ROWS, got, &status)); /* the label, weight and unit are not read */
        f->rows->columns[c].present = true;
        assert_int_equal(ct_model_uses_field(model, c), needed);
    }
    assert_refused(CT_INVALID, "600", ct_scorer_run(scorer, f->rows, ROWS - 1, 2, got, &status));
    ct_scorer_destroy(scorer);
    ct_model_destroy(model);
}

static uint64_t sum_of(const uint64_t *counts, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += counts[i];
    return sum;
}

static void scorers_count_their_scores_and_their_time(void **state) {
    const shop *f = *state;
    static const double bounds[] = CT_SCORE_BOUNDS;
    ct_model *model = trained(f, &variants[1]);
    float *logits = score_all(model, f->rows), got[ROWS];
    ct_scorer *scorers[2];
    for (size_t i = 0; i < 2; i++) assert_ok(ct_scorer_create(model, &scorers[i], &status));
    assert_ok(ct_scorer_run(scorers[0], f->rows, 0, ROWS, got, &status)); /* more than a block */
    assert_ok(ct_scorer_run(scorers[0], f->rows, 0, 0, got, &status));
    assert_ok(ct_scorer_run(scorers[1], f->rows, 100, 7, got, &status));
    f->rows->columns[SHOP_ITEM].present = false;
    assert_refused(CT_INVALID, "'item'", ct_scorer_run(scorers[1], f->rows, 0, 9, got, &status));
    f->rows->columns[SHOP_ITEM].present = true;

    uint64_t expected[CT_SCORE_BUCKETS] = {0};
    double sum = 0;
    for (size_t i = 0; i < ROWS + 7; i++) {
        float probability;
        ct_probabilities(&logits[i < ROWS ? i : i - ROWS + 100], &probability, 1);
        size_t bucket = 0;
        while (bucket < CT_SCORE_BUCKETS - 1 && (double)probability > bounds[bucket]) bucket++;
        expected[bucket]++;
        sum += (double)probability;
    }
    ct_scorer_stats stats = {0};
    for (size_t i = 0; i < 2; i++) ct_scorer_stats_add(scorers[i], &stats);
    assert_int_equal(stats.runs, 3);
    assert_int_equal(stats.rows, ROWS + 7);
    assert_memory_equal(stats.scores, expected, sizeof expected);
    assert_true(fabs(stats.score_sum - sum) < 1e-9 * sum);
    for (size_t stage = 0; stage < CT_RUN_STAGES; stage++) {
        assert_int_equal(sum_of(stats.run_times[stage], CT_RUN_TIME_BUCKETS), 3);
        assert_true(stats.run_ns[stage] > 0);
    }
    size_t filled = 0;
    for (size_t b = 0; b < CT_SCORE_BUCKETS; b++) filled += expected[b] != 0;
    assert_true(filled > 3);

    const size_t tables = ct_model_table_count(model);
    int64_t found = 0, unknown = 0;
    assert_true(tables >= 2); /* the ids', and the vectors' */
    for (size_t t = 0; t < tables; t++) {
        ct_model_table table;
        ct_model_table_get(model, t, &table);
        assert_true(table.name[0] != '\0' && table.rows > 0 && table.bytes > 0);
        found += table.found;
        unknown += table.unknown;
    }
    assert_true(found > ROWS && unknown > 0);
    for (size_t i = 0; i < 2; i++) ct_scorer_destroy(scorers[i]);
    free(logits);
    ct_model_destroy(model);
}

static void a_field_that_the_model_leaves_out_may_be_absent(void **state) {
    const shop *f = *state;
    const char *sets[] = {"features=[user, price]", "precision=fp32"};
    ct_model *model = make_model(f->schema, "lr", sets, 2, 1, BATCH_ROWS, f->pool);
    train_on(model, f->log, 0, 0, 2);
    for (size_t c = 0; c < SHOP_FIELDS; c++) f->rows->columns[c].present = c == SHOP_USER || c == SHOP_PRICE;
    free(score_all(model, f->rows));
    for (size_t c = 0; c < SHOP_FIELDS; c++) f->rows->columns[c].present = true;
    ct_model_destroy(model);
}

static void training_refuses_what_it_cannot_use(void **state) {
    const shop *f = *state;
    const char *sets[] = {"precision=fp32"};
    ct_model *model = make_model(f->schema, "lr", sets, 1, 1, BATCH_ROWS, f->pool);
    float logits[ROWS];
    assert_refused(CT_INVALID, "256", ct_model_train(model, f->rows, 0, logits, &status)); /* ROWS are more than its batch */
    request all = {.base = 5};
    all.constant[SHOP_USER] = true;
    ct_batch *shared = pick_rows(f->schema, f->rows, 10, row_of_request, &all, all.constant);
    assert_refused(CT_INVALID, "'user'", ct_model_train(model, shared, 0, logits, &status));
    shared->columns[SHOP_USER].shared = false;
    shared->columns[SHOP_LABEL].present = false;
    assert_refused(CT_INVALID, "'label'", ct_model_train(model, shared, 0, logits, &status));
    assert_int_equal(ct_model_rows(model), 0);
    assert_int_equal(ct_model_step(model), 0);
    ct_batch_destroy(shared);
    ct_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_row_scores_the_same_alone_and_in_a_batch),
                                       cmocka_unit_test(the_pool_gives_the_same_bits),
                                       cmocka_unit_test(any_columns_may_be_shared),
                                       cmocka_unit_test(derived_columns_go_with_their_rows),
                                       cmocka_unit_test(one_side_alone_works),
                                       cmocka_unit_test(training_sees_what_scoring_sees),
                                       cmocka_unit_test(an_absent_column_is_named),
                                       cmocka_unit_test(scorers_count_their_scores_and_their_time),
                                       cmocka_unit_test(a_field_that_the_model_leaves_out_may_be_absent),
                                       cmocka_unit_test(training_refuses_what_it_cannot_use)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
