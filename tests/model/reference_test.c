/* A whole run against a second implementation in NumPy (reference.py): the log is trained on through ct_train, a later part is scored
 * through ct_evaluate, and the script recomputes every score in float64 from the two files. */
#include <sys/wait.h>

#include "tests/model/fixture.h"
#include "trainer/trainer.h"

enum { TRAIN_ROWS = 1640, TEST_ROWS = 500, BATCH_ROWS = 300, EPOCHS = 2, MODULE_MISSING = 77, PYTHON_MISSING = 127 };

/* float32 sums of some hundred products a step, over 12 steps; about 1e-6 was measured. */
static const double bound = 1e-5;
static const char *script = "tests/model/reference.py";

typedef struct fixture {
    char *folder, *train, *test;
    ct_schema *schema;
    ct_pool *pool;
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->folder = temp_folder();
    f->train = shop_log(f->folder, "train.tsv", 0, TRAIN_ROWS, -1);
    f->test = shop_log(f->folder, "test.tsv", TRAIN_ROWS, TEST_ROWS, -1);
    f->schema = shop_schema(f->folder);
    f->pool = make_pool(2);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    ct_schema_destroy(f->schema);
    ct_pool_destroy(f->pool);
    free(f->train);
    free(f->test);
    temp_remove(f->folder);
    free(f);
    return 0;
}

typedef struct prediction_files {
    FILE *logits, *probabilities;
} prediction_files;

static ct_code write_predictions(void *context, const ct_batch *batch, const float *logits, const float *probabilities, ct_status *status) {
    (void)status;
    const prediction_files *files = context;
    for (size_t r = 0; r < batch->rows; r++) {
        fprintf(files->logits, "%.9g\n", (double)logits[r]);
        fprintf(files->probabilities, "%.9g\n", (double)probabilities[r]);
    }
    return CT_OK;
}

static ct_train_result train(const fixture *f, ct_model *model, const char *out_folder) {
    const char *sources[] = {f->train};
    ct_train_options options = {.train = CT_READER_OPTIONS_INIT, .epochs = EPOCHS, .out_folder = out_folder, .pool = f->pool};
    options.train.sources = sources;
    options.train.source_count = 1;
    ct_train_result result;
    assert_ok(ct_train(model, &options, &result, &status));
    return result;
}

static void evaluate(const fixture *f, const char *model_folder, const char *logits, const char *probabilities) {
    const char *sources[] = {f->test};
    prediction_files files = {fopen(logits, "w"), fopen(probabilities, "w")};
    assert_true(files.logits != NULL && files.probabilities != NULL);
    ct_evaluate_options options = {
        .reader = CT_READER_OPTIONS_INIT, .pool = f->pool, .predictions = write_predictions, .predictions_context = &files};
    options.reader.sources = sources;
    options.reader.source_count = 1;
    options.reader.batch_rows = 190;
    ct_metrics metrics;
    ct_read_report report;
    ct_model *model = open_model(model_folder, CT_MODEL_READ, f->pool);
    assert_ok(ct_evaluate(model, &options, &metrics, &report, &status));
    assert_int_equal(metrics.rows, TEST_ROWS);
    ct_model_destroy(model);
    assert_int_equal(fclose(files.logits), 0);
    assert_int_equal(fclose(files.probabilities), 0);
}

/* What the script must know; caller owns. */
static json_t *describe(const fixture *f, const ct_model_spec *spec, uint64_t seed, double log_loss, const char *logits,
                        const char *probabilities) {
    json_t *deep = json_array();
    for (size_t i = 0; i < spec->deep_count; i++) json_array_append_new(deep, json_integer(spec->deep[i]));
    char *npy = temp_path(f->folder, "items.npy"), *txt = temp_path(f->folder, "items.txt");
    json_t *run = json_pack(
        "{s:s, s:b, s:b, s:I, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:i, s:f, s:i, s:o, s:f, s:f, s:f, s:f, s:s, s:s, s:s, s:s, s:s, s:s, "
        "s:f, s:f}",
        "model", ct_architecture_name(spec->architecture), "buckets", spec->number_buckets, "missing_flag", spec->number_flags, "seed",
        (json_int_t)seed, "batch_rows", BATCH_ROWS, "epochs", EPOCHS, "dim", (int)spec->embedding_dim, "adapter", (int)spec->vector_adapter,
        "embedding_learning_rate", (double)spec->embedding_learning_rate, "initial_accumulator", (double)spec->initial_accumulator,
        "first_value_scale", (double)spec->first_value_scale, "min_count", (int)spec->min_count, "id_drop", spec->id_drop, "cross_layers",
        (int)spec->cross_layers, "deep", deep, "learning_rate", (double)spec->learning_rate, "beta1", (double)spec->beta1, "beta2",
        (double)spec->beta2, "epsilon", (double)spec->epsilon, "train", f->train, "test", f->test, "vectors", npy, "vector_ids", txt,
        "logits", logits, "probabilities", probabilities, "progressive_log_loss", log_loss, "bound", bound);
    assert_non_null(run);
    json_t *bottom = json_array();
    for (size_t i = 0; i < spec->bottom_count; i++) json_array_append_new(bottom, json_integer(spec->bottom[i]));
    json_object_set_new(run, "bottom", bottom);
    json_object_set_new(run, "hidden", json_integer(spec->vector_hidden));
    json_object_set_new(run, "cross_rank", json_integer(spec->cross_rank));
    json_object_set_new(run, "average_power", json_real((double)spec->average_power));
    json_object_set_new(run, "schedule_rows", json_real(spec->schedule_rows));
    json_object_set_new(run, "attention", json_boolean(f->schema->field_count > SHOP_FIELDS));
    json_object_set_new(run, "target_stats", json_boolean(spec->target_stats));
    json_object_set_new(run, "target_smoothing", json_real((double)spec->target_smoothing));
    free(npy);
    free(txt);
    return run;
}

static int run_script(const fixture *f, const json_t *run) {
    char *path = temp_path(f->folder, "run.json"), *command = NULL;
    assert_int_equal(json_dump_file(run, path, JSON_INDENT(1) | JSON_REAL_PRECISION(17)), 0);
    assert_true(asprintf(&command, "/usr/bin/python3 '%s' '%s'", script, path) > 0);
    fflush(NULL);
    const int code = system(command); /* NOLINT: the test's own words */
    free(command);
    free(path);
    assert_true(WIFEXITED(code));
    return WEXITSTATUS(code);
}

static void check_model(const fixture *f, const char *name, const char *const *sets, size_t set_count) {
    enum { SEED = 42 };
    char *folder = temp_path(f->folder, name), *logits = temp_path(f->folder, "logits"),
         *probabilities = temp_path(f->folder, "probabilities");
    ct_model_spec *spec = make_spec(name, sets, set_count);
    ct_model *model = make_model(f->schema, name, sets, set_count, SEED, BATCH_ROWS, f->pool);
    const ct_train_result result = train(f, model, folder);
    assert_int_equal(ct_model_step(model), EPOCHS * ((TRAIN_ROWS + BATCH_ROWS - 1) / BATCH_ROWS));
    ct_model_destroy(model);
    evaluate(f, folder, logits, probabilities);

    json_t *run = describe(f, spec, SEED, result.progressive.log_loss, logits, probabilities);
    const int code = run_script(f, run);
    const bool missing = code == MODULE_MISSING || code == PYTHON_MISSING;
    if (missing)
        print_message("SKIP: the reference needs /usr/bin/python3 with the Debian packages python3-numpy and python3-xxhash\n");
    else
        assert_int_equal(code, 0);
    if (!missing) { /* a run that differs in one setting is told apart */
        json_object_set_new(run, "id_drop", json_real(spec->id_drop + 0.02));
        assert_int_equal(run_script(f, run), 1);
    }
    json_decref(run);
    ct_model_spec_destroy(spec);
    free(folder);
    free(logits);
    free(probabilities);
    if (missing) skip();
}

#define COMMON "numbers.buckets=false", "precision=fp32", "embedding.first_value_scale=0.05", "optimizer.learning_rate=0.01"

static void lr_equals_the_reference(void **state) {
    const char *sets[] = {COMMON, "embedding.id_drop=0.1", "embedding.min_count=3"};
    check_model(*state, "lr", sets, sizeof sets / sizeof *sets);
}

static void dnn_equals_the_reference(void **state) {
    const char *sets[] = {COMMON,           "embedding.id_drop=0.1", "embedding.min_count=3", "embedding.dim=7", "vector.adapter=3",
                          "deep=[33,20,9]", "optimizer.beta1=0.8"};
    check_model(*state, "dnn", sets, sizeof sets / sizeof *sets);
}

static void dcn_v2_equals_the_reference(void **state) {
    const char *sets[] = {COMMON,         "embedding.id_drop=0.1", "embedding.min_count=3", "embedding.dim=6", "vector.adapter=4",
                          "deep=[40,24]", "cross.layers=3"};
    check_model(*state, "dcn-v2", sets, sizeof sets / sizeof *sets);
}

static void target_statistics_equal_the_reference(void **state) {
    const char *lr[] = {COMMON, "embedding.id_drop=0.1", "embedding.target_stats=true"};
    check_model(*state, "lr", lr, sizeof lr / sizeof *lr);
    const char *dcn_v2[] = {COMMON,
                            "embedding.id_drop=0.05",
                            "embedding.dim=5",
                            "vector.adapter=4",
                            "deep=[20,20]",
                            "numbers.buckets=true",
                            "embedding.target_stats=true",
                            "embedding.target_smoothing=3"};
    check_model(*state, "dcn-v2", dcn_v2, sizeof dcn_v2 / sizeof *dcn_v2);
}

static void numbers_as_ids_equal_the_reference(void **state) {
    const char *lr[] = {COMMON, "embedding.id_drop=0.1", "numbers.buckets=true"};
    check_model(*state, "lr", lr, sizeof lr / sizeof *lr);
    const char *dcn_v2[] = {COMMON,         "embedding.id_drop=0.05", "embedding.dim=5",           "vector.adapter=4",
                            "deep=[20,20]", "numbers.buckets=true",   "numbers.missing_flag=false"};
    check_model(*state, "dcn-v2", dcn_v2, sizeof dcn_v2 / sizeof *dcn_v2);
}

static void models_of_fields_equal_the_reference(void **state) {
    const char *fm[] = {COMMON, "embedding.dim=6", "embedding.learning_rate=0.02"};
    check_model(*state, "fm", fm, sizeof fm / sizeof *fm);
    const char *deepfm[] = {
        COMMON, "embedding.dim=7", "deep=[30,20]", "numbers.buckets=true", "embedding.learning_rate=0.02", "vector.adapter=[9,7]"};
    check_model(*state, "deepfm", deepfm, sizeof deepfm / sizeof *deepfm);
    const char *dlrm[] = {COMMON, "embedding.dim=16", "bottom=[20,10]", "deep=[30,9]", "average.power=0"};
    check_model(*state, "dlrm", dlrm, sizeof dlrm / sizeof *dlrm);
}

static void low_rank_and_schedule_equal_the_reference(void **state) {
    const char *sets[] = {COMMON,         "embedding.dim=6",    "deep=[20]",      "cross.layers=2",
                          "cross.rank=5", "schedule.rows=2500", "average.power=3"};
    check_model(*state, "dcn-v2", sets, sizeof sets / sizeof *sets);
}

static void adapters_of_two_layers_equal_the_reference(void **state) {
    const char *sets[] = {COMMON, "embedding.dim=6", "vector.adapter=[21,5]", "deep=[20]", "cross.layers=2", "cross.rank=4"};
    check_model(*state, "dcn-v2", sets, sizeof sets / sizeof *sets);
    const char *lr[] = {COMMON, "vector.adapter=[5,1]"};
    check_model(*state, "lr", lr, sizeof lr / sizeof *lr);
}

/* The shop's schema, and behind it a history of what was clicked that is pooled by attention of the row's item. */
static void attention_equals_the_reference(void **state) {
    fixture f = *(fixture *)*state;
    f.schema = shop_alike_schema(f.folder, f.schema);
    const char *dcn_v2[] = {COMMON,
                            "embedding.id_drop=0.1",
                            "embedding.min_count=3",
                            "embedding.dim=19",
                            "embedding.first_value_scale=0.5",
                            "vector.adapter=4",
                            "deep=[20]"};
    check_model(&f, "dcn-v2", dcn_v2, sizeof dcn_v2 / sizeof *dcn_v2);
    const char *deepfm[] = {
        COMMON,      "embedding.id_drop=0",  "embedding.min_count=1",      "embedding.dim=5", "embedding.first_value_scale=0.7",
        "deep=[15]", "numbers.buckets=true", "embedding.target_stats=true"};
    check_model(&f, "deepfm", deepfm, sizeof deepfm / sizeof *deepfm);
    ct_schema_destroy(f.schema);
}

/* Every key has its row at once; nothing is dropped, so there are no rare rows and unknown ids read zeros. */
static void dcn_v2_without_rare_rows_equals_the_reference(void **state) {
    const char *sets[] = {COMMON,      "embedding.id_drop=0", "embedding.min_count=1", "embedding.dim=17", "vector.adapter=16",
                          "deep=[12]", "cross.layers=1"};
    check_model(*state, "dcn-v2", sets, sizeof sets / sizeof *sets);
}

int main(int argc, char **argv) {
    if (argc > 1) script = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(lr_equals_the_reference),
                                       cmocka_unit_test(dnn_equals_the_reference),
                                       cmocka_unit_test(dcn_v2_equals_the_reference),
                                       cmocka_unit_test(numbers_as_ids_equal_the_reference),
                                       cmocka_unit_test(target_statistics_equal_the_reference),
                                       cmocka_unit_test(models_of_fields_equal_the_reference),
                                       cmocka_unit_test(low_rank_and_schedule_equal_the_reference),
                                       cmocka_unit_test(attention_equals_the_reference),
                                       cmocka_unit_test(adapters_of_two_layers_equal_the_reference),
                                       cmocka_unit_test(dcn_v2_without_rare_rows_equals_the_reference)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
