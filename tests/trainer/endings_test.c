/* How runs end: after several passes, stopped, refused, diverged. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/trainer/fixture.h"

static void several_epochs_are_one_after_the_other(void **state) {
    const fixture *f = *state;
    char expected[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    ct_model *model = fresh(f, "dnn", f->pool);
    for (uint32_t epoch = 0; epoch < 3; epoch++) train_on(model, f->log, epoch, 0, SIZE_MAX);
    digest_of(model, expected);
    ct_model_destroy(model);
    model = fresh(f, "dnn", f->pool);
    ct_train_result result;
    const char *source = f->log, *input = "-";
    assert_ok(run(f, model, &source, NULL, 3, NULL, f->pool, &result, &status));
    digest_of(model, got);
    assert_string_equal(expected, got);
    assert_int_equal(result.progressive.rows, 3 * LOG_ROWS);
    assert_int_equal(result.train_report.rows, LOG_ROWS);
    assert_int_equal(ct_model_step(model), 3 * LOG_ROWS / BATCH_ROWS);
    assert_refused(CT_INVALID, "standard input", run(f, model, &input, NULL, 2, NULL, f->pool, &result, &status));
    assert_refused(CT_INVALID, "0 epochs", run(f, model, &source, NULL, 0, NULL, f->pool, &result, &status));
    ct_model_destroy(model);
}

/* Writes a log without end into a pipe, and asks for a stop once far more has gone through than pipe, reader and look-ahead can hold, so
 * that some batch must have been trained on. */
typedef struct endless {
    const char *pipe, *log;
    atomic_bool *stop;
    size_t written;
} endless;

static void *write_endless(void *context) {
    endless *e = context;
    char *data = NULL;
    size_t bytes = 0;
    ct_status status = CT_STATUS_INIT;
    const int fd = open(e->pipe, O_WRONLY);
    if (fd < 0 || ct_file_read(e->log, 1 << 30, &data, &bytes, &status) != CT_OK) {
        atomic_store(e->stop, true);
        return NULL;
    }
    for (;;) {
        size_t at = 0;
        while (at < bytes) {
            const ssize_t put = write(fd, data + at, bytes - at);
            if (put <= 0) break; /* the reader has gone */
            at += (size_t)put;
            e->written += (size_t)put;
        }
        if (at < bytes) break;
        if (e->written > 40u * bytes) atomic_store(e->stop, true);
    }
    close(fd);
    free(data);
    return NULL;
}

static void stop_a_run(const fixture *f, const char *const *eval) {
    char *pipe = temp_path(f->folder, "pipe"), expected[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    assert_int_equal(mkfifo(pipe, 0600), 0);
    atomic_bool stop = false;
    endless e = {.pipe = pipe, .log = f->log, .stop = &stop};
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, write_endless, &e), 0);
    ct_model *model = fresh(f, "lr", f->pool);
    ct_train_result result;
    const char *source = pipe;
    ct_status status = CT_STATUS_INIT;
    const ct_code code = run(f, model, &source, eval, 1, &stop, f->pool, &result, &status);
    assert_int_equal(pthread_join(writer, NULL), 0);
    if (code != CT_OK) fail_msg("%s", status.message);
    assert_true(result.stopped);
    assert_false(result.evaluated);
    const int64_t rows = ct_model_rows(model);
    assert_true(rows > 0 && rows % BATCH_ROWS == 0);
    assert_int_equal(result.progressive.rows, rows);
    json_t *json = metrics_json(f);
    assert_true(json_is_true(json_object_get(json, "stopped")));
    assert_string_equal(json_string_value(json_object_get(json, "of")), "progressive");
    json_decref(json);
    /* The model is that of the rows so far. */
    digest_of(model, got);
    ct_model_destroy(model);
    model = open_model(f->out, CT_MODEL_READ, f->pool);
    digest_of(model, expected);
    assert_string_equal(expected, got);
    assert_int_equal(ct_model_rows(model), rows);
    ct_model_destroy(model);
    assert_int_equal(remove(pipe), 0);
    free(pipe);
}

static void a_stopped_run_leaves_a_usable_folder(void **state) {
    const fixture *f = *state;
    const char *eval = f->later;
    stop_a_run(f, NULL);
    stop_a_run(f, &eval);
}

static void a_run_stopped_before_its_first_row_leaves_nothing(void **state) {
    const fixture *f = *state;
    atomic_bool stop = true;
    ct_model *model = fresh(f, "lr", f->pool);
    ct_train_result result;
    const char *source = f->log;
    assert_code(CT_CANCELLED, run(f, model, &source, NULL, 1, &stop, f->pool, &result, &status));
    assert_false(ct_path_exists(f->out));
    ct_model_destroy(model);
}

static void a_log_without_rows_is_refused(void **state) {
    const fixture *f = *state;
    char *empty = temp_path(f->folder, "empty.tsv"), *bad = temp_path(f->folder, "bad.tsv"), *missing = temp_path(f->folder, "missing.tsv");
    ct_model *model = fresh(f, "lr", f->pool);
    ct_train_result result;
    ct_metrics metrics;
    ct_read_report report;
    const char *source = empty;
    assert_ok(ct_file_write(empty, "", 0, &status));
    assert_refused(CT_INVALID, "no good row", run(f, model, &source, NULL, 1, NULL, f->pool, &result, &status));
    assert_refused(CT_INVALID, empty, run(f, model, &source, NULL, 1, NULL, f->pool, &result, &status));
    ct_evaluate_options options = {.reader = CT_READER_OPTIONS_INIT, .pool = f->pool};
    options.reader.sources = &source;
    options.reader.source_count = 1;
    assert_refused(CT_INVALID, "no good row", ct_evaluate(model, &options, &metrics, &report, &status));
    source = bad;
    assert_ok(ct_file_write(bad, "one\ttwo\n", 8, &status));
    assert_refused(CT_INVALID, "bad.tsv:1: ", run(f, model, &source, NULL, 1, NULL, f->pool, &result, &status)); /* the first bad row */
    source = missing;
    assert_refused(CT_NOT_FOUND, missing, run(f, model, &source, NULL, 1, NULL, f->pool, &result, &status));
    const char *good = f->log; /* what is to be evaluated on is looked at before the training; what fails behind it leaves the model */
    assert_refused(CT_NOT_FOUND, missing, run(f, model, &good, &source, 1, NULL, f->pool, &result, &status));
    assert_int_equal(ct_model_rows(model), 0);
    assert_false(ct_path_exists(f->out));
    source = bad;
    assert_ok(run(f, model, &good, &source, 1, NULL, f->pool, &result, &status));
    assert_int_equal(result.unevaluated.code, CT_INVALID);
    assert_non_null(strstr(result.unevaluated.message, "bad.tsv:1: "));
    assert_false(result.evaluated);
    assert_true(ct_model_folder_is(f->out));
    ct_model_destroy(model);
    free(empty);
    free(bad);
    free(missing);
}

static void a_taken_name_is_refused_before_the_work(void **state) {
    const fixture *f = *state;
    ct_model *model = fresh(f, "lr", f->pool);
    ct_train_result result;
    const char *source = f->log;
    char *inside = temp_path(f->out, "thesis.txt");
    assert_ok(ct_folder_create(f->out, &status));
    assert_ok(ct_file_write(inside, "work", 4, &status));
    free(inside);
    assert_refused(CT_EXISTS, f->out, run(f, model, &source, NULL, 1, NULL, f->pool, &result, &status));
    assert_int_equal(ct_model_rows(model), 0);
    ct_model_destroy(model);
}

/* Sixteen layers and steps of nearly 1,000: products leave float's range. */
static void a_run_that_diverges_is_refused(void **state) {
    const fixture *f = *state;
    const char *sets[] = {"precision=fp32", "optimizer.learning_rate=999", "embedding.learning_rate=999",
                          "deep=[8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8]"};
    ct_model *model = make_model(f->schema, "dnn", sets, 4, 1, BATCH_ROWS, f->pool);
    ct_train_result result;
    const char *source = f->log;
    assert_refused(CT_INVALID, "diverged", run(f, model, &source, NULL, 1, NULL, f->pool, &result, &status));
    assert_false(ct_path_exists(f->out));
    ct_model_destroy(model);
}

static size_t same_row(const void *context, size_t column, size_t row) {
    (void)context, (void)column;
    return row;
}

/* A batch whose weights are near float's end diverges in any model: it leaves the model as it was, and training goes on. The batch is one
 * that was learned before, so that it brings no new keys. */
static void a_diverging_step_changes_no_score(void **state) {
    const fixture *f = *state;
    static const char *const names[] = {"lr", "dnn", "dcn-v2"};
    ct_batch *rows = read_all(f->schema, f->later, EVAL_ROWS);
    for (size_t i = 0; i < 3; i++) {
        const char *sets[] = {"embedding.dim=6", "embedding.min_count=1", "embedding.id_drop=0.3"};
        ct_model *model = make_model(f->schema, names[i], sets, 3, 5, BATCH_ROWS, f->pool);
        train_on(model, f->log, 0, 0, 2);
        ct_reader *reader = open_reader(f->schema, f->log, BATCH_ROWS);
        ct_batch *batch = next_batch(reader);
        assert_non_null(batch);
        ct_batch *bad = pick_rows(f->schema, batch, BATCH_ROWS, same_row, NULL, NULL);
        ct_reader_close(reader);
        float *weights = bad->columns[SHOP_WEIGHT].values, logits[BATCH_ROWS];
        for (size_t r = 0; r < BATCH_ROWS; r++) weights[r] = 3e38f;
        float *before = score_all(model, rows);
        assert_refused(CT_INVALID, "diverged", ct_model_train(model, bad, 0, logits, &status));
        float *after = score_all(model, rows);
        assert_memory_equal(before, after, EVAL_ROWS * sizeof *after);
        assert_int_equal(ct_model_step(model), 2);
        assert_int_equal(ct_model_rows(model), 2 * BATCH_ROWS);
        free(after);
        train_on(model, f->log, 0, 2, SIZE_MAX);
        after = score_all(model, rows);
        size_t same = 0;
        for (size_t r = 0; r < EVAL_ROWS; r++) {
            assert_true(isfinite(after[r]));
            same += after[r] == before[r];
        }
        assert_true(same < EVAL_ROWS / 10);
        free(before);
        free(after);
        ct_batch_destroy(bad);
        ct_model_destroy(model);
    }
    ct_batch_destroy(rows);
}

typedef struct two_rows {
    size_t row[2];
} two_rows;

static size_t one_of_two(const void *context, size_t column, size_t row) {
    (void)column;
    return ((const two_rows *)context)->row[row];
}

/* Two rows of great weight, one clicked: the tower's gradient is their sum, which is 0, but each user's row goes its own way, out of
 * float's range. Nothing else looks at it before it is read again. */
static void a_row_that_left_the_range_is_not_saved(void **state) {
    const fixture *f = *state;
    const char *sets[] = {"precision=fp32",        "features=[user]",    "embedding.optimizer=sgd", "embedding.learning_rate=999",
                          "embedding.min_count=1", "embedding.id_drop=0"};
    ct_model *model = make_model(f->schema, "lr", sets, 6, 5, BATCH_ROWS, f->pool);
    ct_batch *rows = read_all(f->schema, f->later, EVAL_ROWS);
    const float *labels = ct_column_f32(&rows->columns[SHOP_LABEL]);
    const uint64_t *users = ct_column_u64(&rows->columns[SHOP_USER]);
    two_rows two = {{0, 1}};
    while (two.row[1] < EVAL_ROWS && (labels[two.row[1]] == labels[0] || users[two.row[1]] == users[0])) two.row[1]++;
    assert_true(two.row[1] < EVAL_ROWS);
    ct_batch *batch = pick_rows(f->schema, rows, 2, one_of_two, &two, NULL);
    float *weights = batch->columns[SHOP_WEIGHT].values, logits[2];
    save_model(model, f->out);
    weights[0] = weights[1] = 3e38f;
    assert_ok(ct_model_train(model, batch, 0, logits, &status));
    json_t *metrics = json_object();
    assert_refused(CT_INVALID, "diverged: the row of key", ct_model_save(model, f->out, metrics, "", &status));
    json_decref(metrics);
    ct_model_destroy(model);
    model = open_model(f->out, CT_MODEL_TRAIN, f->pool); /* the last good one */
    assert_int_equal(ct_model_step(model), 0);
    ct_model_destroy(model);
    ct_batch_destroy(batch);
    ct_batch_destroy(rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(several_epochs_are_one_after_the_other),
                                       TEST(a_stopped_run_leaves_a_usable_folder),
                                       TEST(a_run_stopped_before_its_first_row_leaves_nothing),
                                       TEST(a_log_without_rows_is_refused),
                                       TEST(a_taken_name_is_refused_before_the_work),
                                       TEST(a_run_that_diverges_is_refused),
                                       TEST(a_diverging_step_changes_no_score),
                                       TEST(a_row_that_left_the_range_is_not_saved)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
