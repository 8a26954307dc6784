/* Does training learn? On a synthetic log whose best possible log loss is known, a model must go at least 95 % of the way from the constant
 * click rate to that best, on the last fifth of the rows, after one pass over the rest. LR on a log whose truth is a sum of effects; DCN-v2
 * on one whose truth has pairs too. New items are left out: nothing in their ids tells what they are worth. */
#include "data/synth.h"
#include "tests/model/fixture.h"
#include "trainer/trainer.h"

enum { ROWS = 500000, TAIL_ROWS = ROWS / 5, BATCH_ROWS = 512 };
static const double least_share = 0.95;

typedef struct log_files {
    char *folder, *log, *tail;
    ct_synth_truth truth;
} log_files;

/* The last fifth into a file of its own. */
static void cut_tail(const log_files *files) {
    char *data = NULL;
    size_t bytes = 0, begin = 0;
    assert_ok(ct_file_read(files->log, (size_t)1 << 32, &data, &bytes, &status));
    for (size_t row = 0; row < ROWS - TAIL_ROWS; row++) begin = (size_t)((char *)memchr(data + begin, '\n', bytes - begin) - data) + 1;
    assert_ok(ct_file_write(files->tail, data + begin, bytes - begin, &status));
    free(data);
}

static log_files make_log(double pairs_share) {
    log_files files = {.folder = temp_folder()};
    files.log = temp_path(files.folder, "log.tsv");
    files.tail = temp_path(files.folder, "tail.tsv");
    ct_synth_options options;
    ct_synth_options_init(&options);
    options.rows = ROWS;
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
    ct_model *model = make_model(schema, name, sets, set_count, 1, BATCH_ROWS, pool);
    ct_train_options options = {
        .train = CT_READER_OPTIONS_INIT, .eval_sources = tails, .eval_source_count = 1, .epochs = 1, .out_folder = out, .pool = pool};
    options.train.sources = sources;
    options.train.source_count = 1;
    options.train.max_rows = ROWS - TAIL_ROWS;
    ct_train_result result;
    assert_ok(ct_train(model, &options, &result, &status));
    assert_int_equal(result.evaluation.rows, TAIL_ROWS);
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
    log_files files = make_log(0);
    assert_true(share_of(&files, "lr", NULL, 0) >= least_share);
    free_log(&files);
}

static void dcn_v2_learns_pairs(void **state) {
    (void)state;
    log_files files = make_log(0.3);
    const char *sets[] = {"embedding.dim=8", "deep=[64,32]", "cross.layers=2", "embedding.learning_rate=0.03"};
    const double share = share_of(&files, "dcn-v2", sets, 4), linear = share_of(&files, "lr", sets, 0);
    assert_true(share >= least_share);
    assert_true(linear < share - 0.1); /* the log needs pairs: what is learned is not the sum alone */
    free_log(&files);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lr_learns_a_sum_of_effects), cmocka_unit_test(dcn_v2_learns_pairs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
