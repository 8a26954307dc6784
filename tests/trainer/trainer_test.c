/* Whole runs: the same content for any number of threads and any way in, and metrics that agree with each other. */
#include <fcntl.h>
#include <math.h>
#include <unistd.h>
#include <zlib.h>

#include "base/json.h"
#include "data/block_file.h"
#include "tests/trainer/fixture.h"

/* The digest of a whole run, and of the folder that it left. */
static void digest_of_run(const fixture *f, const char *source, size_t threads, char out_hex[CT_DIGEST_HEX_BYTES]) {
    ct_pool *pool = make_pool(threads);
    ct_model *model = fresh(f, "dcn-v2", pool);
    ct_train_result result;
    char opened[CT_DIGEST_HEX_BYTES];
    assert_ok(run(f, model, &source, NULL, 1, NULL, pool, &result, &status));
    assert_int_equal(result.progressive.rows, LOG_ROWS);
    assert_int_equal(result.train_report.rows, LOG_ROWS);
    assert_false(result.stopped);
    digest_of(model, out_hex);
    ct_model_destroy(model);
    model = open_model(f->out, CT_MODEL_TRAIN, pool);
    digest_of(model, opened);
    assert_string_equal(out_hex, opened);
    ct_model_destroy(model);
    ct_pool_destroy(pool);
}

static void any_number_of_threads_gives_the_same_digest(void **state) {
    const fixture *f = *state;
    char first[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES];
    digest_of_run(f, f->log, 1, first);
    static const size_t threads[] = {1, 2, 3, 8};
    for (size_t i = 0; i < 4; i++) {
        digest_of_run(f, f->log, threads[i], other);
        assert_string_equal(first, other);
    }
}

static void write_gzip(const char *from, const char *to) {
    char *data = NULL;
    size_t bytes = 0;
    assert_ok(ct_file_read(from, 1 << 30, &data, &bytes, &status));
    gzFile file = gzopen(to, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, data, (unsigned)bytes), bytes);
    assert_int_equal(gzclose(file), Z_OK);
    free(data);
}

static void write_blocks(const fixture *f, const char *to) {
    ct_block_writer *writer = NULL;
    ct_reader *reader = open_reader(f->schema, f->log, 700); /* blocks that are no batches */
    ct_batch *batch = NULL;
    assert_ok(ct_block_writer_open(to, f->schema, &writer, &status));
    while ((batch = next_batch(reader)) != NULL) {
        assert_ok(ct_block_writer_write(writer, batch, &status));
        ct_reader_release(reader, batch);
    }
    assert_ok(ct_block_writer_commit(writer, &status));
    ct_reader_close(reader);
}

static void any_way_in_gives_the_same_digest(void **state) {
    const fixture *f = *state;
    char text[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES];
    char *gzip = temp_path(f->folder, "train.tsv.gz"), *blocks = temp_path(f->folder, "train.ctb");
    digest_of_run(f, f->log, 2, text);
    write_gzip(f->log, gzip);
    write_blocks(f, blocks);
    digest_of_run(f, gzip, 2, other);
    assert_string_equal(text, other);
    digest_of_run(f, blocks, 2, other);
    assert_string_equal(text, other);
    const char *const piped[] = {f->log, gzip, blocks};
    for (size_t i = 0; i < 3; i++) { /* standard input */
        const int old = dup(0), file = open(piped[i], O_RDONLY);
        assert_true(old >= 0 && file >= 0);
        assert_int_equal(dup2(file, 0), 0);
        close(file);
        digest_of_run(f, "-", 2, other);
        assert_int_equal(dup2(old, 0), 0);
        close(old);
        assert_string_equal(text, other);
    }
    free(gzip);
    free(blocks);
}

/* The log in two files is the same log. */
static void a_log_in_parts_gives_the_same_digest(void **state) {
    const fixture *f = *state;
    char whole[CT_DIGEST_HEX_BYTES], parts[CT_DIGEST_HEX_BYTES];
    char *first = shop_log(f->folder, "part1.tsv", 0, 1001, -1), *second = shop_log(f->folder, "part2.tsv", 1001, LOG_ROWS - 1001, -1);
    digest_of_run(f, f->log, 2, whole);
    const char *sources[] = {first, second};
    ct_model *model = fresh(f, "dcn-v2", f->pool);
    ct_train_options options = {.train = CT_READER_OPTIONS_INIT, .epochs = 1, .out_folder = f->out, .pool = f->pool};
    options.train.sources = sources;
    options.train.source_count = 2;
    ct_train_result result;
    assert_ok(ct_train(model, &options, &result, &status));
    digest_of(model, parts);
    assert_string_equal(whole, parts);
    ct_model_destroy(model);
    free(first);
    free(second);
}

static void two_trainers_do_not_disturb_each_other(void **state) {
    const fixture *f = *state;
    static const char *const names[] = {"dcn-v2", "lr"};
    ct_model *models[2];
    ct_trainer *trainers[2];
    char alone[2][CT_DIGEST_HEX_BYTES], together[CT_DIGEST_HEX_BYTES];
    for (size_t i = 0; i < 2; i++) {
        models[i] = fresh(f, names[i], f->pool);
        train_on(models[i], f->log, 0, 0, SIZE_MAX);
        digest_of(models[i], alone[i]);
        ct_model_destroy(models[i]);
        models[i] = fresh(f, names[i], f->pool);
        assert_ok(ct_trainer_create(models[i], 0, &trainers[i], &status));
    }
    ct_reader *reader = open_reader(f->schema, f->log, BATCH_ROWS);
    ct_batch *batch = NULL;
    while ((batch = next_batch(reader)) != NULL) { /* one reader feeds both, as in a comparison */
        for (size_t i = 0; i < 2; i++) assert_ok(ct_trainer_batch(trainers[i], batch, 0, &status));
        ct_reader_release(reader, batch);
    }
    ct_reader_close(reader);
    for (size_t i = 0; i < 2; i++) {
        digest_of(models[i], together);
        assert_string_equal(alone[i], together);
        ct_trainer_destroy(trainers[i]);
        ct_model_destroy(models[i]);
    }
}

/* --- metrics --- */

/* Progressive metrics from their definition: each row's logit before it was learned. */
static void progressive_metrics_are_those_of_the_logits(void **state) {
    enum { LONG_ROWS = 24000, POINT_ROWS = 10000 };
    const fixture *f = *state;
    char *log_path = shop_log(f->folder, "long.tsv", 0, LONG_ROWS, -1);
    float *logits = malloc(LONG_ROWS * sizeof *logits), *labels = malloc(LONG_ROWS * sizeof *labels),
          *weights = malloc(LONG_ROWS * sizeof *weights);
    assert_true(logits != NULL && labels != NULL && weights != NULL);
    ct_model *model = fresh(f, "dcn-v2", f->pool), *twin = fresh(f, "dcn-v2", f->pool);
    ct_trainer *trainer = NULL;
    assert_ok(ct_trainer_create(model, POINT_ROWS, &trainer, &status));
    ct_metrics metrics;
    assert_ok(ct_trainer_progressive(trainer, &metrics, &status));
    assert_int_equal(metrics.rows, 0);
    assert_true(isnan(metrics.auc) && isnan(metrics.log_loss) && isnan(metrics.calibration));
    assert_string_equal(ct_trainer_curve(trainer), "");
    ct_reader *reader = open_reader(f->schema, log_path, BATCH_ROWS);
    ct_batch *batch = NULL;
    size_t rows = 0;
    while ((batch = next_batch(reader)) != NULL) {
        assert_ok(ct_trainer_batch(trainer, batch, 0, &status));
        assert_ok(ct_model_train(twin, batch, 0, logits + rows, &status));
        memcpy(labels + rows, batch->columns[SHOP_LABEL].values, batch->rows * sizeof *labels);
        memcpy(weights + rows, batch->columns[SHOP_WEIGHT].values, batch->rows * sizeof *weights);
        rows += batch->rows;
        ct_reader_release(reader, batch);
    }
    ct_reader_close(reader);
    assert_int_equal(rows, LONG_ROWS);
    double loss = 0, weight = 0, clicks = 0, predicted = 0, auc = 0;
    for (size_t r = 0; r < rows; r++) {
        const double p = 1 / (1 + exp(-(double)logits[r])), w = (double)weights[r];
        loss -= w * log(labels[r] > 0 ? p : 1 - p);
        weight += w;
        clicks += labels[r] > 0 ? w : 0;
        predicted += w * p;
    }
    assert_ok(ct_auc(logits, labels, weights, rows, &auc, &status));
    assert_ok(ct_trainer_progressive(trainer, &metrics, &status));
    const double rate = clicks / weight, constant = -rate * log(rate) - (1 - rate) * log(1 - rate);
    assert_int_equal(metrics.rows, LONG_ROWS);
    assert_true(fabs(metrics.weight - weight) < 1e-9);
    assert_true(fabs(metrics.clicks - clicks) < 1e-9);
    if (fabs(metrics.log_loss - loss / weight) > 1e-6) fail_msg("log loss %.9f instead of %.9f", metrics.log_loss, loss / weight);
    assert_true(auc > 0.55); /* there is something to sort */
    if (fabs(metrics.auc - auc) > 1e-4) fail_msg("AUC %.6f instead of %.6f", metrics.auc, auc);
    assert_true(fabs(metrics.normalized_entropy - loss / weight / constant) < 1e-5);
    assert_true(fabs(metrics.calibration - predicted / clicks) < 1e-5);
    assert_true(fabs(metrics.mean_prediction - predicted / weight) < 1e-6);

    /* The curve: a point at each 10,000 rows, at the batch that reaches them, over the rows since the last one. */
    char *curve = strdup(ct_trainer_curve(trainer)), *rest = curve, *line = NULL;
    size_t points = 0, begin = 0;
    static const size_t ends[] = {10200, 20400};
    while ((line = strsep(&rest, "\n")) != NULL && line[0] != '\0') {
        json_t *point = NULL;
        assert_ok(ct_json_parse(line, strlen(line), "curve", &point, &status));
        assert_true(points < 2);
        assert_int_equal(json_integer_value(json_object_get(point, "rows")), ends[points]);
        assert_int_equal(json_integer_value(json_object_get(point, "window_rows")), ends[points] - begin);
        assert_ok(ct_auc(logits + begin, labels + begin, weights + begin, ends[points] - begin, &auc, &status));
        assert_true(fabs(json_real_value(json_object_get(point, "auc")) - auc) < 1e-12);
        begin = ends[points++];
        json_decref(point);
    }
    assert_int_equal(points, 2);
    free(curve);
    ct_trainer_destroy(trainer);
    ct_model_destroy(model);
    ct_model_destroy(twin);
    free(logits);
    free(labels);
    free(weights);
    free(log_path);
}

static void assert_equal_metrics(const ct_metrics *a, const ct_metrics *b) {
    assert_int_equal(a->rows, b->rows);
    assert_true(a->weight == b->weight && a->clicks == b->clicks && a->auc == b->auc && a->log_loss == b->log_loss);
    assert_true(a->normalized_entropy == b->normalized_entropy && a->calibration == b->calibration);
    assert_true(a->mean_prediction == b->mean_prediction && a->grouped_auc == b->grouped_auc);
    assert_int_equal(a->groups, b->groups);
}

typedef struct collected {
    float logits[EVAL_ROWS], probabilities[EVAL_ROWS];
    size_t rows;
} collected;

static ct_code collect(void *context, const ct_batch *batch, const float *logits, const float *probabilities, ct_status *status) {
    collected *c = context;
    if (c->rows + batch->rows > EVAL_ROWS) return ct_fail(status, CT_INTERNAL, "too many rows");
    memcpy(c->logits + c->rows, logits, batch->rows * sizeof *logits);
    memcpy(c->probabilities + c->rows, probabilities, batch->rows * sizeof *probabilities);
    c->rows += batch->rows;
    return CT_OK;
}

static void evaluation_of_the_folder_equals_the_run(void **state) {
    const fixture *f = *state;
    ct_model *model = fresh(f, "dcn-v2", f->pool);
    ct_train_result result;
    const char *source = f->log, *eval = f->later;
    assert_ok(run(f, model, &source, &eval, 1, NULL, f->pool, &result, &status));
    assert_true(result.evaluated);
    assert_int_equal(result.evaluation.rows, EVAL_ROWS);
    assert_int_equal(result.eval_report.rows, EVAL_ROWS);
    ct_batch *rows = read_all(f->schema, f->later, EVAL_ROWS);
    float *expected = score_all(model, rows);
    ct_model_destroy(model);

    static const size_t threads[] = {1, 3}, batch_rows[] = {64, 4096};
    for (size_t i = 0; i < 2; i++) {
        ct_pool *pool = make_pool(threads[i]);
        collected *got = calloc(1, sizeof *got);
        assert_non_null(got);
        model = open_model(f->out, CT_MODEL_READ, pool);
        ct_evaluate_options options = {.reader = CT_READER_OPTIONS_INIT, .pool = pool, .predictions = collect, .predictions_context = got};
        options.reader.sources = &eval;
        options.reader.source_count = 1;
        options.reader.batch_rows = batch_rows[i];
        ct_metrics metrics;
        ct_read_report report;
        assert_ok(ct_evaluate(model, &options, &metrics, &report, &status));
        assert_equal_metrics(&metrics, &result.evaluation);
        assert_int_equal(report.rows, EVAL_ROWS);
        assert_int_equal(got->rows, EVAL_ROWS);
        assert_memory_equal(expected, got->logits, sizeof got->logits);
        for (size_t r = 0; r < EVAL_ROWS; r++)
            assert_true(fabs((double)got->probabilities[r] - 1 / (1 + exp(-(double)got->logits[r]))) < 1e-6);
        ct_model_destroy(model);
        ct_pool_destroy(pool);
        free(got);
    }
    json_t *json = metrics_json(f);
    assert_true(json_real_value(json_object_get(json, "auc")) == result.evaluation.auc);
    assert_true(json_real_value(json_object_get(json, "log_loss")) == result.evaluation.log_loss);
    assert_true(json_real_value(json_object_get(json, "grouped_auc")) == result.evaluation.grouped_auc);
    assert_int_equal(json_integer_value(json_object_get(json, "rows")), EVAL_ROWS);
    assert_true(json_real_value(json_object_get(json_object_get(json, "progressive"), "auc")) == result.progressive.auc);
    json_decref(json);
    free(expected);
    ct_batch_destroy(rows);
}

/* Progress and failure of the caller's function end the evaluation. */
static ct_code refuse(void *context, const ct_batch *batch, const float *logits, const float *probabilities, ct_status *status) {
    (void)context, (void)batch, (void)logits, (void)probabilities;
    return ct_fail(status, CT_IO, "the disk is full");
}

static void a_failing_receiver_ends_the_evaluation(void **state) {
    const fixture *f = *state;
    ct_model *model = fresh(f, "lr", f->pool);
    train_on(model, f->log, 0, 0, 1);
    const char *eval = f->later;
    ct_evaluate_options options = {.reader = CT_READER_OPTIONS_INIT, .pool = f->pool, .predictions = refuse};
    options.reader.sources = &eval;
    options.reader.source_count = 1;
    ct_metrics metrics;
    ct_read_report report;
    assert_refused(CT_IO, "the disk is full", ct_evaluate(model, &options, &metrics, &report, &status));
    ct_model_destroy(model);
}

static void one_class_has_no_auc(void **state) {
    const fixture *f = *state;
    for (int label = 0; label < 2; label++) {
        char *log = shop_log(f->folder, "one.tsv", 0, 1000, label), *path = temp_path(f->out, "metrics.json"), *text = NULL;
        const char *source = log;
        size_t bytes = 0;
        ct_model *model = fresh(f, "lr", f->pool);
        ct_train_result result;
        assert_ok(run(f, model, &source, &source, 1, NULL, f->pool, &result, &status));
        assert_true(isnan(result.evaluation.auc) && isnan(result.progressive.auc) && isnan(result.evaluation.normalized_entropy));
        assert_true(result.evaluation.log_loss < 0.693); /* but it learns */
        json_t *json = metrics_json(f);
        static const char *const undefined[] = {"auc", "normalized_entropy", "grouped_auc"};
        for (size_t i = 0; i < 3; i++) {
            assert_true(json_is_null(json_object_get(json, undefined[i])));
            assert_true(i == 2 || json_is_null(json_object_get(json_object_get(json, "progressive"), undefined[i])));
        }
        assert_true(json_is_null(json_object_get(json, "calibration")) == (label == 0));
        json_decref(json);
        assert_ok(ct_file_read(path, 1 << 20, &text, &bytes, &status));
        assert_null(strcasestr(text, "nan"));
        assert_null(strcasestr(text, "inf\""));
        ct_model_destroy(model);
        free(text);
        free(path);
        free(log);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(any_number_of_threads_gives_the_same_digest), TEST(any_way_in_gives_the_same_digest),
                                       TEST(a_log_in_parts_gives_the_same_digest),        TEST(two_trainers_do_not_disturb_each_other),
                                       TEST(progressive_metrics_are_those_of_the_logits), TEST(evaluation_of_the_folder_equals_the_run),
                                       TEST(a_failing_receiver_ends_the_evaluation),      TEST(one_class_has_no_auc)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
