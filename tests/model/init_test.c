/* A model that begins with another one's rows and tower: what the two share scores as before, whatever stands beside it, and training goes
 * on as it would have. */
#include <math.h>

#include "tests/model/fixture.h"

enum { LOG_ROWS = 1800, BATCH_ROWS = 300 };

typedef struct fixture {
    char *folder, *log, *old;
    ct_schema *schema;
    ct_pool *pool;
    ct_batch *rows;
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->folder = temp_folder();
    f->log = shop_log(f->folder, "train.tsv", 0, LOG_ROWS, -1);
    f->old = temp_path(f->folder, "old");
    f->schema = shop_schema(f->folder);
    f->pool = make_pool(2);
    f->rows = read_all(f->schema, f->log, LOG_ROWS);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    ct_batch_destroy(f->rows);
    ct_schema_destroy(f->schema);
    ct_pool_destroy(f->pool);
    free(f->log);
    free(f->old);
    temp_remove(f->folder);
    free(f);
    return 0;
}

static int remove_old(void **state) {
    const fixture *f = *state;
    assert_ok(ct_folder_remove(f->old, &status));
    return 0;
}

enum { MAX_SETS = 16 };

/* `more`: separated by blanks. */
static ct_model *make(const fixture *f, const char *name, const char *more, uint64_t seed) {
    char text[512];
    const char *sets[MAX_SETS] = {"precision=fp32", "embedding.dim=4", "vector.adapter=4"};
    size_t count = 3;
    snprintf(text, sizeof text, "%s", more);
    for (char *set = strtok(text, " "); set != NULL; set = strtok(NULL, " ")) {
        assert_true(count < MAX_SETS);
        sets[count++] = set;
    }
    return make_model(f->schema, name, sets, count, seed, BATCH_ROWS, f->pool);
}

/* Trains on batches [0, last) and saves. */
static void make_old(const fixture *f, const char *name, const char *more, size_t last) {
    ct_model *model = make(f, name, more, 5);
    train_on(model, f->log, 0, 0, last);
    save_model(model, f->old);
    ct_model_destroy(model);
}

/* The lines as one text, malloc'd. */
static char *init(const fixture *f, ct_model *model) {
    json_t *lines = NULL;
    assert_ok(ct_model_init_from(model, f->old, &lines, &status));
    char *text = json_dumps(lines, 0);
    assert_non_null(text);
    json_decref(lines);
    assert_int_equal(ct_model_rows(model), 0);
    assert_int_equal(ct_model_step(model), 0);
    return text;
}

static void assert_says(const char *text, const char *what) {
    if (strstr(text, what) == NULL) fail_msg("'%s' is not in %s", what, text);
}

static float *scores_of_old(const fixture *f) {
    ct_model *model = open_model(f->old, CT_MODEL_READ, f->pool);
    float *scores = score_all(model, f->rows);
    ct_model_destroy(model);
    return scores;
}

/* Scores of the old model and of `model`; differences up to `most`. */
static void assert_scores(const fixture *f, ct_model *model, const char *what, double most) {
    float *before = scores_of_old(f), *after = score_all(model, f->rows);
    double farthest = 0, spread = 0;
    for (size_t r = 0; r < LOG_ROWS; r++) {
        farthest = fmax(farthest, fabs((double)before[r] - (double)after[r]));
        spread = fmax(spread, fabs((double)before[r] - (double)before[0]));
    }
    if (farthest > most) fail_msg("%s: a logit is off by %g, more than %g", what, farthest, most);
    assert_true(spread > 0.1); /* there is something to get wrong */
    free(before);
    free(after);
}

static const char *const models[] = {"lr", "fm", "dnn", "deepfm", "dcn-v2", "dlrm"};

static const char *small(const char *name) {
    if (strcmp(name, "lr") == 0 || strcmp(name, "fm") == 0) return "";
    if (strcmp(name, "dcn-v2") == 0) return "deep=[16,8] cross.layers=2";
    if (strcmp(name, "dlrm") == 0) return "deep=[16,8] bottom=[6]";
    return "deep=[16,8]";
}

static void the_same_model_scores_the_same(void **state) {
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        make_old(f, models[i], small(models[i]), SIZE_MAX);
        ct_model *model = make(f, models[i], small(models[i]), 6);
        char *lines = init(f, model);
        assert_null(strstr(lines, "dropped"));
        assert_null(strstr(lines, ": new"));
        assert_scores(f, model, models[i], 0);
        free(lines);
        ct_model_destroy(model);
    }
}

/* More features, on both sides and of every kind: they say nothing before they have learned something. */
static void new_features_change_no_score(void **state) {
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char without[256], with[256];
        snprintf(without, sizeof without, "%s exclude=[tags,age,price,likes_text] embedding.target_stats=true", small(models[i]));
        snprintf(with, sizeof with, "%s embedding.target_stats=true", small(models[i]));
        make_old(f, models[i], without, SIZE_MAX);
        ct_model *model = make(f, models[i], with, 6);
        char *lines = init(f, model);
        assert_says(lines, "feature tags: new");
        assert_says(lines, "feature age: new");
        assert_says(lines, "feature price: new");
        assert_says(lines, "feature likes_text: new");
        assert_null(strstr(lines, "dropped"));
        assert_scores(f, model, models[i], 2e-5);
        float *before = score_all(model, f->rows);
        train_on(model, f->log, 0, 0, 3); /* and then they do */
        float *after = score_all(model, f->rows);
        assert_true(memcmp(before, after, LOG_ROWS * sizeof *after) != 0);
        for (size_t r = 0; r < LOG_ROWS; r++) assert_true(isfinite(after[r]));
        free(before);
        free(after);
        free(lines);
        ct_model_destroy(model);
    }
}

/* Cross layers beside those of a dnn: the head does not hear them yet. */
static void another_kind_of_model_takes_what_it_shares(void **state) {
    const fixture *f = *state;
    make_old(f, "dnn", "deep=[16,8]", SIZE_MAX);
    ct_model *model = make(f, "dcn-v2", "deep=[16,8] cross.layers=2", 6);
    char *lines = init(f, model);
    assert_says(lines, "layer deep.0: taken");
    assert_says(lines, "layer deep.1: taken");
    assert_says(lines, "layer cross.0: new");
    assert_says(lines, "layer head: taken; ");
    assert_scores(f, model, "dnn to dcn-v2", 2e-5);
    free(lines);
    ct_model_destroy(model);

    model = make(f, "dnn", "deep=[16,8,4]", 6); /* one layer more: the head reads something new */
    lines = init(f, model);
    assert_says(lines, "layer deep.1: taken");
    assert_says(lines, "layer deep.2: new");
    assert_says(lines, "layer head: new, as what it reads is new");
    free(lines);
    ct_model_destroy(model);

    model = make(f, "dnn", "deep=[12,8]", 6); /* another width: nothing over it holds */
    lines = init(f, model);
    assert_says(lines, "layer deep.0: new, as its shape is another one (12 outputs, before 16)");
    assert_says(lines, "layer deep.1: new, as what it reads is new");
    free(lines);
    ct_model_destroy(model);

    model = make(f, "lr", "", 6);
    lines = init(f, model);
    assert_says(lines, "table ids: new, as its rows are 1 floats wide, before 4");
    assert_says(lines, "layer deep.0: dropped");
    free(lines);
    ct_model_destroy(model);
}

static void dropped_features_are_named(void **state) {
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char without[256];
        make_old(f, models[i], small(models[i]), SIZE_MAX);
        snprintf(without, sizeof without, "%s exclude=[tags,price,item_text]", small(models[i]));
        ct_model *model = make(f, models[i], without, 6);
        char *lines = init(f, model);
        assert_says(lines, "feature tags: dropped; its rows stay");
        assert_says(lines, "feature price: dropped");
        assert_says(lines, "feature item_text: dropped");
        assert_null(strstr(lines, ": new,"));
        train_on(model, f->log, 0, 0, 2);
        float *after = score_all(model, f->rows);
        for (size_t r = 0; r < LOG_ROWS; r++) assert_true(isfinite(after[r]));
        free(after);
        free(lines);
        ct_model_destroy(model);
    }
}

/* Where the tower stands still and no number moves, all that training does hangs on the rows, their counts and their optimiser's state: the
 * new model goes on with the bits of the old one. */
static void rows_go_on_with_their_state(void **state) {
    const fixture *f = *state;
    static const char *const optimisers[] = {"adagrad_rowwise", "sgd", "adagrad", "adam"};
    static const struct {
        const char *model, *sets;
    } kinds[] = {{"lr", ""}, {"dnn", "deep=[16,8]"}, {"dnn", "deep=[16,8] embedding.target_stats=true"}};
    for (size_t o = 0; o < 4; o++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            char sets[512], wanted[128];
            snprintf(sets, sizeof sets,
                     "%s embedding.optimizer=%s optimizer.learning_rate=0 average.power=0 features=[user,tags,item,likes] "
                     "embedding.first_value_scale=0.1 embedding.learning_rate=0.02 embedding.id_drop=0",
                     kinds[k].sets, optimisers[o]);
            make_old(f, kinds[k].model, sets, 3);
            ct_model *old = open_model(f->old, CT_MODEL_TRAIN, f->pool), *model = make(f, kinds[k].model, sets, 5);
            char *lines = init(f, model);
            snprintf(wanted, sizeof wanted, "with the state of %s", optimisers[o]);
            assert_says(lines, wanted);
            train_on(old, f->log, 0, 3, SIZE_MAX);
            train_on(model, f->log, 0, 3, SIZE_MAX);
            float *expected = score_all(old, f->rows), *got = score_all(model, f->rows);
            assert_memory_equal(expected, got, LOG_ROWS * sizeof *got);
            free(expected);
            free(got);
            free(lines);
            ct_model_destroy(old);
            ct_model_destroy(model);
        }
}

static void another_row_optimiser_begins_anew(void **state) {
    const fixture *f = *state;
    make_old(f, "dnn", "deep=[16,8]", SIZE_MAX);
    static const char *const optimisers[] = {"sgd", "adagrad", "adam"};
    for (size_t o = 0; o < 3; o++) {
        char sets[128];
        snprintf(sets, sizeof sets, "deep=[16,8] embedding.optimizer=%s embedding.learning_rate=0.01", optimisers[o]);
        ct_model *model = make(f, "dnn", sets, 6);
        char *lines = init(f, model);
        assert_says(lines, "is new, as they were trained with adagrad_rowwise");
        assert_scores(f, model, optimisers[o], 0);
        train_on(model, f->log, 0, 0, SIZE_MAX);
        assert_int_equal(ct_model_rows(model), LOG_ROWS);
        free(lines);
        ct_model_destroy(model);
    }
}

/* Clicks and impressions of the last pass go on as those of the first one; none of an earlier pass does. */
static void statistics_of_the_last_pass_are_kept(void **state) {
    const fixture *f = *state;
    const char *sets = "deep=[16,8] embedding.target_stats=true";
    ct_model *model = make(f, "dnn", sets, 5);
    for (uint32_t epoch = 0; epoch < 3; epoch++) train_on(model, f->log, epoch, 0, epoch < 2 ? SIZE_MAX : 2);
    save_model(model, f->old);
    ct_model_destroy(model);
    model = make(f, "dnn", sets, 6);
    char *lines = init(f, model);
    assert_says(lines, "target statistics go on");
    assert_scores(f, model, "target statistics", 0);
    free(lines);
    ct_model_destroy(model);
    model = make(f, "dnn", "deep=[16,8]", 6); /* the other way round: the columns are gone */
    lines = init(f, model);
    assert_null(strstr(lines, "target statistics go on"));
    free(lines);
    ct_model_destroy(model);
    make_old(f, "dnn", "deep=[16,8]", SIZE_MAX);
    model = make(f, "dnn", sets, 6); /* from a model without: they begin */
    lines = init(f, model);
    assert_null(strstr(lines, "target statistics go on"));
    assert_scores(f, model, "no target statistics before", 2e-5);
    free(lines);
    ct_model_destroy(model);
}

static void what_cannot_be_is_refused(void **state) {
    const fixture *f = *state;
    json_t *lines = NULL;
    make_old(f, "lr", "", SIZE_MAX);
    ct_model *model = make(f, "lr", "", 6);
    assert_refused(CT_NOT_FOUND, "nowhere", ct_model_init_from(model, "nowhere", &lines, &status));
    train_on(model, f->log, 0, 0, 1);
    assert_refused(CT_INVALID, "learned nothing", ct_model_init_from(model, f->old, &lines, &status));
    ct_model_destroy(model);
}

#define TEST(function) cmocka_unit_test_teardown(function, remove_old)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_same_model_scores_the_same),       TEST(new_features_change_no_score), TEST(another_kind_of_model_takes_what_it_shares),
        TEST(dropped_features_are_named),           TEST(rows_go_on_with_their_state),  TEST(another_row_optimiser_begins_anew),
        TEST(statistics_of_the_last_pass_are_kept), TEST(what_cannot_be_is_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
