/* A history that is pooled by attention: the same bits for any number of threads, within a limit on memory, in halves, alone and beside
 * other rows, with the history and the context shared by a request or not. That they are the right ones: reference_test. */
#include "tests/model/fixture.h"

enum { TRAIN_ROWS = 1100, BATCH_ROWS = 300, ROWS = 400, LIMIT = 128 << 20 };

typedef struct fixture {
    char *folder, *log;
    ct_schema *shop, *schema;
    ct_pool *pool;
    ct_batch *rows; /* (ROWS) behind the trained ones, with their histories */
} fixture;

/* Adds the histories, row by row, to those that `histories` have. */
static void add_histories(ct_histories *histories, ct_batch *batch) {
    batch->columns[SHOP_ALIKE].present = false;
    assert_ok(ct_histories_live(histories, batch, &status));
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    ct_histories *histories = NULL;
    assert_non_null(f);
    f->folder = temp_folder();
    f->log = shop_log(f->folder, "train.tsv", 0, TRAIN_ROWS, -1);
    char *later = shop_log(f->folder, "later.tsv", TRAIN_ROWS, ROWS, -1);
    f->shop = shop_schema(f->folder);
    f->schema = shop_alike_schema(f->folder, f->shop);
    f->pool = make_pool(2);
    assert_ok(ct_histories_create(f->schema, &histories, &status));
    ct_batch *before = read_all(f->schema, f->log, TRAIN_ROWS);
    f->rows = read_all(f->schema, later, ROWS);
    add_histories(histories, before);
    add_histories(histories, f->rows);
    ct_batch_destroy(before);
    ct_histories_destroy(histories);
    free(later);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    ct_batch_destroy(f->rows);
    ct_schema_destroy(f->schema);
    ct_schema_destroy(f->shop);
    ct_pool_destroy(f->pool);
    free(f->log);
    temp_remove(f->folder);
    free(f);
    return 0;
}

#define COMMON \
    "embedding.dim=18", "embedding.first_value_scale=0.5", "embedding.min_count=2", "embedding.id_drop=0.05", "deep=[20]", "precision=fp32"

static ct_model *trained(const fixture *f, const char *name, const char *precision, size_t threads, uint64_t memory_bytes,
                         ct_pool **out_pool) {
    const char *sets[] = {COMMON, precision};
    char *live = temp_path(f->folder, "live");
    ct_model_spec *spec = make_spec(name, sets, sizeof sets / sizeof *sets);
    ct_model *model = NULL;
    ct_histories *histories = NULL;
    *out_pool = make_pool(threads);
    const ct_model_options options = {
        .seed = 3, .batch_rows = BATCH_ROWS, .pool = *out_pool, .memory_bytes = memory_bytes, .live_folder = live};
    assert_ok(ct_model_create(f->schema, spec, &options, &model, &status));
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        float logits[BATCH_ROWS];
        ct_reader *reader = open_reader(f->schema, f->log, BATCH_ROWS);
        ct_batch *batch = NULL;
        assert_ok(ct_histories_create(f->schema, &histories, &status));
        while ((batch = next_batch(reader)) != NULL) {
            add_histories(histories, batch);
            assert_ok(ct_model_train(model, batch, epoch, logits, &status));
            ct_reader_release(reader, batch);
        }
        ct_reader_close(reader);
        ct_histories_destroy(histories);
    }
    ct_model_spec_destroy(spec);
    free(live);
    return model;
}

static void threads_and_memory_do_not_show(void **state) {
    const fixture *f = *state;
    static const char *const names[] = {"dcn-v2", "deepfm"}, *const precisions[] = {"embedding.precision=fp32", "embedding.precision=fp16"};
    char digests[4][CT_DIGEST_HEX_BYTES];
    for (size_t i = 0; i < 4; i++) {
        static const size_t threads[] = {1, 3, 2};
        for (size_t t = 0; t < 3; t++) {
            char got[CT_DIGEST_HEX_BYTES];
            ct_pool *pool = NULL;
            ct_model *model = trained(f, names[i / 2], precisions[i % 2], threads[t], t == 2 ? LIMIT : 0, &pool);
            digest_of(model, t == 0 ? digests[i] : got);
            if (t > 0) assert_string_equal(got, digests[i]);
            ct_model_destroy(model);
            ct_pool_destroy(pool);
        }
        for (size_t j = 0; j < i; j++) assert_string_not_equal(digests[i], digests[j]);
    }
}

/* Row r of a request, whose context and history are those of row `base`. */
typedef struct request {
    size_t base;
    bool shared[SHOP_ALIKE_FIELDS];
} request;

static size_t row_of_request(const void *context, size_t column, size_t row) {
    const request *r = context;
    return r->shared[column] ? r->base : (r->base + row) % ROWS;
}

static void a_row_has_the_same_bits_wherever_it_stands(void **state) {
    const fixture *f = *state;
    static const char *const precisions[] = {"embedding.precision=fp32", "embedding.precision=fp16"};
    for (size_t p = 0; p < 2; p++) {
        float got[ROWS];
        size_t empty = 0, differ = 0;
        ct_pool *pool = NULL;
        ct_model *model = trained(f, "dcn-v2", precisions[p], 2, 0, &pool);
        ct_scorer *scorer = NULL;
        assert_ok(ct_scorer_create(model, &scorer, &status));
        float *expected = score_all(model, f->rows);
        for (size_t first = 0, size = 1; first < ROWS; first += size, size = size % 37 + 5) {
            if (size > ROWS - first) size = ROWS - first;
            assert_ok(ct_scorer_run(scorer, f->rows, first, size, got + first, &status));
        }
        assert_memory_equal(expected, got, sizeof got);
        for (size_t base = 0; base < ROWS; base += 23) {
            enum { CANDIDATES = 41 };
            request r = {.base = base};
            for (size_t c = 0; c < SHOP_ALIKE_FIELDS; c++)
                r.shared[c] =
                    c == SHOP_USER || c == SHOP_TAGS || c == SHOP_AGE || c == SHOP_LIKES || c == SHOP_LIKES_TEXT || c == SHOP_ALIKE;
            for (int context = 1; context >= 0; context--) { /* only the history is shared, then */
                ct_batch *plain = pick_rows(f->schema, f->rows, CANDIDATES, row_of_request, &r, NULL);
                ct_batch *shared = pick_rows(f->schema, f->rows, CANDIDATES, row_of_request, &r, r.shared);
                float *alone = score_all(model, plain);
                assert_ok(ct_scorer_run(scorer, shared, 0, CANDIDATES, got, &status));
                assert_memory_equal(alone, got, CANDIDATES * sizeof *got);
                assert_ok(ct_scorer_run(scorer, shared, 9, CANDIDATES - 9, got, &status));
                assert_memory_equal(alone + 9, got, (CANDIDATES - 9) * sizeof *got);
                free(alone);
                ct_batch_destroy(plain);
                ct_batch_destroy(shared);
                r.shared[SHOP_USER] = false;
            }
        }
        /* It says something: without its history a row that has one scores otherwise, and one that has none as before. */
        ct_batch *without = pick_rows(f->schema, f->rows, ROWS, row_of_request, &(request){0}, NULL);
        uint32_t *offsets = without->columns[SHOP_ALIKE].offsets;
        for (size_t row = 0; row <= ROWS; row++) offsets[row] = 0;
        assert_ok(ct_scorer_run(scorer, without, 0, ROWS, got, &status));
        for (size_t row = 0; row < ROWS; row++) {
            const bool none = f->rows->columns[SHOP_ALIKE].offsets[row + 1] == f->rows->columns[SHOP_ALIKE].offsets[row];
            empty += none;
            differ += got[row] != expected[row];
            if (none) assert_true(got[row] == expected[row]);
        }
        assert_in_range(empty, 1, ROWS / 2);
        assert_in_range(differ, (ROWS - empty) * 9 / 10, ROWS - empty);
        free(expected);
        ct_batch_destroy(without);
        ct_scorer_destroy(scorer);
        ct_model_destroy(model);
        ct_pool_destroy(pool);
    }
}

static void what_can_not_attend_is_refused(void **state) {
    const fixture *f = *state;
    static const struct {
        const char *model, *set, *words;
    } wrong[] = {{"lr", "exclude=[tags]", "field 'alike': lr has one weight"},
                 {"dnn", "exclude=[item]", "field 'alike': its attention is that of 'item', which is not among the features"}};
    for (size_t i = 0; i < 2; i++) {
        ct_model_spec *spec = make_spec(wrong[i].model, &wrong[i].set, 1);
        const ct_model_options options = {.batch_rows = BATCH_ROWS, .pool = f->pool};
        ct_model *model = NULL;
        assert_refused(CT_INVALID, wrong[i].words, ct_model_create(f->schema, spec, &options, &model, &status));
        ct_model_spec_destroy(spec);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_and_memory_do_not_show),
                                       cmocka_unit_test(a_row_has_the_same_bits_wherever_it_stands),
                                       cmocka_unit_test(what_can_not_attend_is_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
