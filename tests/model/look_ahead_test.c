/* Saying which batch comes next changes no bit, whether it is true or not. */
#include "tests/model/fixture.h"

enum { ROWS = 700, BATCH = 96, BATCHES = 8 };

typedef enum hint { NONE, RIGHT, MIXED } hint;

/* Two passes over the log, a model whose digest goes to out_hex. MIXED: right, none, a batch that does not come, another epoch in turn. */
static void train(const ct_schema *schema, const char *log, const char *const *sets, size_t threads, hint hints, char *out_hex) {
    ct_pool *pool = make_pool(threads);
    ct_model *model = make_model(schema, "dcn-v2", sets, 3, 7, BATCH, pool);
    ct_batch *batches[BATCHES] = {NULL};
    float logits[BATCH];
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    options.sources = &log;
    options.source_count = 1;
    options.batch_rows = BATCH;
    options.lookahead = BATCHES + 2; /* all are held, and one is read that is not there */
    ct_reader *reader = NULL;
    assert_ok(ct_reader_open(schema, &options, &reader, &status));
    for (size_t i = 0; i < BATCHES; i++) assert_non_null(batches[i] = next_batch(reader));
    assert_null(next_batch(reader));
    for (size_t step = 0; step < 2 * BATCHES; step++) {
        const uint32_t epoch = (uint32_t)(step / BATCHES), next_epoch = (uint32_t)((step + 1) / BATCHES);
        const ct_batch *next = batches[(step + 1) % BATCHES];
        if (hints == RIGHT || (hints == MIXED && step % 4 == 0)) ct_model_look_ahead(model, next, next_epoch);
        if (hints == MIXED && step % 4 == 1) ct_model_look_ahead(model, NULL, 0);
        if (hints == MIXED && step % 4 == 2) ct_model_look_ahead(model, batches[(step + 3) % BATCHES], next_epoch);
        if (hints == MIXED && step % 4 == 3) ct_model_look_ahead(model, next, next_epoch + 1);
        assert_ok(ct_model_train(model, batches[step % BATCHES], epoch, logits, &status));
    }
    ct_model_look_ahead(model, NULL, 0);
    digest_of(model, out_hex);
    ct_reader_close(reader);
    ct_model_destroy(model);
    ct_pool_destroy(pool);
}

static void test_hints_change_nothing(void **state) {
    (void)state;
    char *folder = temp_folder();
    ct_schema *schema = shop_schema(folder);
    char *log = shop_log(folder, "log.tsv", 0, ROWS, -1);
    const char *const sets[][3] = {
        {"embedding.id_drop=0.1", "numbers.buckets=true", "deep=[24,16]"},
        {"embedding.target_stats=true", "numbers.buckets=false", "deep=[24,16]"},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char expected[CT_DIGEST_HEX_BYTES], found[CT_DIGEST_HEX_BYTES];
        train(schema, log, sets[i], 1, NONE, expected);
        for (size_t threads = 1; threads <= 3; threads++) {
            train(schema, log, sets[i], threads, RIGHT, found);
            assert_string_equal(found, expected);
            train(schema, log, sets[i], threads, MIXED, found);
            assert_string_equal(found, expected);
        }
    }
    free(log);
    ct_schema_destroy(schema);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hints_change_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
