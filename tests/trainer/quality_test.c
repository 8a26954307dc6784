/* Does training learn? On a synthetic log whose best possible log loss is known, each model must go at least 97 % of the way from the
 * constant click rate to that best, with its defaults, on the last fifth of the rows, after one pass over the rest. LR on a log whose truth
 * is a sum of effects; the others on one whose truth has products of pairs too. New items are left out: nothing in their ids tells what
 * they are worth. An FM needs the longest log: all its factors begin near 0, and products of small factors learn slowly.
 *
 * Without an argument the quick ones run; with "long" those of minutes. */
#include "data/synth.h"
#include "tests/model/fixture.h"
#include "trainer/trainer.h"

static const double least_share = 0.97;

typedef struct log_files {
    char *folder, *log, *tail;
    size_t rows, tail_rows;
    ct_synth_truth truth;
} log_files;

/* The last fifth into a file of its own. */
static void cut_tail(const log_files *files) {
    char *data = NULL;
    size_t bytes = 0, begin = 0;
    assert_ok(ct_file_read(files->log, (size_t)1 << 32, &data, &bytes, &status));
    for (size_t row = 0; row < files->rows - files->tail_rows; row++)
        begin = (size_t)((char *)memchr(data + begin, '\n', bytes - begin) - data) + 1;
    assert_ok(ct_file_write(files->tail, data + begin, bytes - begin, &status));
    free(data);
}

static log_files make_log(size_t rows, double pairs_share) {
    log_files files = {.folder = temp_folder(), .rows = rows, .tail_rows = rows / 5};
    files.log = temp_path(files.folder, "log.tsv");
    files.tail = temp_path(files.folder, "tail.tsv");
    ct_synth_options options;
    ct_synth_options_init(&options);
    options.rows = (int64_t)rows;
    options.path = files.log;
    options.pairs_share = pairs_share;
    options.new_item_share = 0;
    assert_ok(ct_synth_write(&options, &files.truth, &status));
    cut_tail(&files);
    return files;
}

static void free_log(log_files *files) {
    free(files->log);
    free(files->tail);
    temp_remove(files->folder);
}

/* The share of the way from the constant to the best. */
static double share_of(const log_files *files, const char *name, const char *const *sets, size_t set_count) {
    char *out = temp_path(files->folder, "model");
    const char *sources[] = {files->log}, *tails[] = {files->tail};
    ct_schema *schema = NULL;
    ct_pool *pool = make_pool(0);
    assert_ok(ct_schema_load("criteo", &schema, &status));
    ct_model *model = make_model(schema, name, sets, set_count, 1, CT_MODEL_DEFAULT_BATCH_ROWS, pool);
    ct_train_options options = {
        .train = CT_READER_OPTIONS_INIT, .eval_sources = tails, .eval_source_count = 1, .epochs = 1, .out_folder = out, .pool = pool};
    options.train.sources = sources;
    options.train.source_count = 1;
    options.train.max_rows = (int64_t)(files->rows - files->tail_rows);
    ct_train_result result;
    assert_ok(ct_train(model, &options, &result, &status));
    assert_int_equal(result.evaluation.rows, files->tail_rows);
    const ct_synth_truth *truth = &files->truth;
    const double share =
        (truth->tail_constant_log_loss - result.evaluation.log_loss) / (truth->tail_constant_log_loss - truth->tail_best_log_loss);
    print_message("%s: log loss %.5f; best %.5f, constant %.5f: %.2f %% of the way; AUC %.4f, best %.4f; calibration %.3f; %.0f rows/s\n",
                  name, result.evaluation.log_loss, truth->tail_best_log_loss, truth->tail_constant_log_loss, 100 * share,
                  result.evaluation.auc, truth->tail_best_auc, result.evaluation.calibration, result.rows_per_second);
    /* No model knows more than the truth; a margin for the luck of the draw. */
    assert_true(share < 1.005);
    assert_true(result.evaluation.auc < truth->tail_best_auc + 0.002);
    ct_model_destroy(model);
    ct_schema_destroy(schema);
    ct_pool_destroy(pool);
    free(out);
    return share;
}

static void lr_learns_a_sum_of_effects(void **state) {
    (void)state;
    log_files files = make_log(500000, 0);
    assert_true(share_of(&files, "lr", NULL, 0) >= least_share);
    free_log(&files);
}

/* A small one, as it takes less time. */
static void dcn_v2_learns_pairs(void **state) {
    (void)state;
    log_files files = make_log(500000, 0.3);
    const char *sets[] = {"embedding.dim=8", "deep=[64,32]", "cross.layers=2", "embedding.learning_rate=0.03"};
    const double share = share_of(&files, "dcn-v2", sets, 4), linear = share_of(&files, "lr", NULL, 0);
    assert_true(share >= least_share);
    assert_true(linear < share - 0.1); /* the log needs pairs: what is learned is not the sum alone */
    free_log(&files);
}

static void deep_models_learn_pairs(void **state) {
    (void)state;
    static const char *const names[] = {"dnn", "deepfm", "dcn-v2", "dlrm"};
    log_files files = make_log(1000000, 0.3);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_true(share_of(&files, names[i], NULL, 0) >= least_share);
    free_log(&files);
}

static void fm_learns_pairs(void **state) {
    (void)state;
    log_files files = make_log(4000000, 0.3);
    assert_true(share_of(&files, "fm", NULL, 0) >= least_share);
    free_log(&files);
}

int main(int argc, char **argv) {
    const struct CMUnitTest quick[] = {cmocka_unit_test(lr_learns_a_sum_of_effects), cmocka_unit_test(dcn_v2_learns_pairs)};
    const struct CMUnitTest slow[] = {cmocka_unit_test(deep_models_learn_pairs), cmocka_unit_test(fm_learns_pairs)};
    if (argc > 1 && strcmp(argv[1], "long") == 0) return cmocka_run_group_tests(slow, NULL, NULL);
    return cmocka_run_group_tests(quick, NULL, NULL);
}
