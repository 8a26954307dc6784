/* A model folder is of the moment when saving began, and its histories are not written at that moment: training goes on while they are,
 * within a limit on memory too. */
#include <unistd.h>

#include "base/file.h"
#include "tests/model/fixture.h"

enum { TRAIN_ROWS = 900, BATCH_ROWS = 300, LIMIT = 128 << 20 };

static void train_pass(ct_model *model, const ct_schema *schema, const char *log, uint32_t epoch) {
    float logits[BATCH_ROWS];
    ct_histories *histories = NULL;
    ct_reader *reader = open_reader(schema, log, BATCH_ROWS);
    ct_batch *batch = NULL;
    assert_ok(ct_histories_create(schema, &histories, &status));
    while ((batch = next_batch(reader)) != NULL) {
        assert_ok(ct_histories_live(histories, batch, &status));
        assert_ok(ct_model_train(model, batch, epoch, logits, &status));
        ct_reader_release(reader, batch);
    }
    ct_reader_close(reader);
    ct_histories_destroy(histories);
}

static void folders_are_of_one_moment(void **state) {
    (void)state;
    static const char *const sets[] = {"embedding.dim=8", "embedding.min_count=1", "deep=[8]", "precision=fp32"};
    char *folder = temp_folder(), *log = shop_log(folder, "train.tsv", 0, TRAIN_ROWS, -1);
    ct_schema *shop = shop_schema(folder), *schema = shop_alike_schema(folder, shop);
    ct_pool *pool = make_pool(2);
    for (int limited = 0; limited < 2; limited++) {
        char then[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES], staged[64];
        char *live = temp_path(folder, limited ? "live-within" : "live"), *saved = temp_path(folder, limited ? "saved-within" : "saved");
        ct_model_spec *spec = make_spec("dnn", sets, sizeof sets / sizeof *sets);
        const ct_model_options options = {
            .seed = 3, .batch_rows = BATCH_ROWS, .pool = pool, .memory_bytes = limited ? LIMIT : 0, .live_folder = live};
        ct_model *model = NULL;
        ct_model_saving *saving = NULL;
        json_t *metrics = json_object();
        const ct_model_text curve = {"curve.jsonl", ""};
        assert_ok(ct_model_create(schema, spec, &options, &model, &status));
        if (!limited) assert_ok(ct_model_save_beside(model, live, NULL, &status));
        train_pass(model, schema, log, 0);
        digest_of(model, then);
        assert_ok(ct_model_save_begin(model, saved, metrics, &curve, 1, NULL, NULL, &saving, &status));
        snprintf(staged, sizeof staged, "%s.partial-%ld", limited ? "saved-within" : "saved", (long)getpid());
        char *partial = temp_path(folder, staged), *histories = ct_path_join(partial, "histories");
        assert_true(ct_path_is_folder(partial));
        assert_false(ct_path_exists(histories));
        train_pass(model, schema, log, 1); /* all histories begin anew */
        assert_ok(ct_model_save_end(saving, &status));
        digest_of(model, got);
        assert_string_not_equal(got, then);
        ct_model_destroy(model);
        model = open_model(saved, CT_MODEL_READ, pool);
        digest_of(model, got); /* as the manifest says it */
        assert_string_equal(got, then);
        ct_model_destroy(model);
        model = open_model(saved, CT_MODEL_TRAIN, pool);
        digest_of(model, got); /* of what was read */
        assert_string_equal(got, then);
        ct_model_destroy(model);
        json_decref(metrics);
        ct_model_spec_destroy(spec);
        free(live);
        free(saved);
        free(partial);
        free(histories);
    }
    ct_pool_destroy(pool);
    ct_schema_destroy(schema);
    ct_schema_destroy(shop);
    free(log);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(folders_are_of_one_moment)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
