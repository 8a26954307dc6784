/* What the tests of whole runs share: two logs of the made shop, a small model, a run over one source. */
#ifndef TESTS_TRAINER_FIXTURE_H
#define TESTS_TRAINER_FIXTURE_H

#include "trainer/trainer.h"

#include <signal.h>

#include "base/json.h"
#include "tests/model/fixture.h"

enum { LOG_ROWS = 3000, EVAL_ROWS = 700, BATCH_ROWS = 600 };

typedef struct fixture {
    char *folder, *log, *later, *out;
    ct_schema *schema;
    ct_pool *pool;
} fixture;

static inline int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->folder = temp_folder();
    f->log = shop_log(f->folder, "train.tsv", 0, LOG_ROWS, -1);
    f->later = shop_log(f->folder, "later.tsv", LOG_ROWS, EVAL_ROWS, -1);
    f->out = temp_path(f->folder, "model");
    f->schema = shop_schema(f->folder);
    f->pool = make_pool(2);
    signal(SIGPIPE, SIG_IGN);
    *state = f;
    return 0;
}

static inline int tear_down(void **state) {
    fixture *f = *state;
    ct_schema_destroy(f->schema);
    ct_pool_destroy(f->pool);
    free(f->log);
    free(f->later);
    free(f->out);
    temp_remove(f->folder);
    free(f);
    return 0;
}

static inline int remove_out(void **state) {
    const fixture *f = *state;
    assert_ok(ct_folder_remove(f->out, &status));
    return 0;
}

static inline ct_model *fresh(const fixture *f, const char *name, ct_pool *pool) {
    const char *sets[] = {"embedding.dim=6", "vector.adapter=3", "embedding.id_drop=0.05", "deep=[24,16]"};
    return make_model(f->schema, name, sets, strcmp(name, "lr") == 0 ? 3 : 4, 5, BATCH_ROWS, pool);
}

/* One source; eval may be NULL. */
static inline ct_code run(const fixture *f, ct_model *model, const char *const *source, const char *const *eval, uint32_t epochs,
                          const atomic_bool *stop, ct_pool *pool, ct_train_result *out_result, ct_status *status) {
    ct_train_options options = {.train = CT_READER_OPTIONS_INIT,
                                .eval_sources = eval,
                                .eval_source_count = eval != NULL,
                                .epochs = epochs,
                                .out_folder = f->out,
                                .pool = pool};
    options.train.sources = source;
    options.train.source_count = 1;
    options.train.stop = stop;
    return ct_train(model, &options, out_result, status);
}

static inline json_t *metrics_json(const fixture *f) {
    char *path = temp_path(f->out, "metrics.json");
    json_t *json = NULL;
    assert_ok(ct_json_load(path, &json, &status));
    free(path);
    return json;
}

#define TEST(function) cmocka_unit_test_teardown(function, remove_out)

#endif
