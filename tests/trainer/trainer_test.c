/* Whole runs: the same content for any number of threads and any way in, metrics that agree with each other, and runs that end early. */
#include "trainer/trainer.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/text.h"
#include "data/block_file.h"
#include "tests/model/fixture.h"

enum { LOG_ROWS = 3000, EVAL_ROWS = 700, BATCH_ROWS = 600 };

typedef struct fixture {
    char *folder, *log, *later, *out;
    ct_schema *schema;
    ct_pool *pool;
} fixture;

static int set_up(void **state) {
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

static int tear_down(void **state) {
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

static int remove_out(void **state) {
    const fixture *f = *state;
    assert_ok(ct_folder_remove(f->out, &status));
    return 0;
}

static ct_model *fresh(const fixture *f, const char *name, ct_pool *pool) {
    const char *sets[] = {"embedding.dim=6", "vector.adapter=3", "embedding.id_drop=0.05", "deep=[24,16]"};
    return make_model(f->schema, name, sets, strcmp(name, "lr") == 0 ? 3 : 4, 5, BATCH_ROWS, pool);
}

/* One source; eval may be NULL. */
static ct_code run(const fixture *f, ct_model *model, const char *const *source, const char *const *eval, uint32_t epochs,
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

static json_t *metrics_json(const fixture *f) {
    char *path = temp_path(f->out, "metrics.json");
    json_t *json = NULL;
    assert_ok(ct_json_load(path, &json, &status));
    free(path);
    return json;
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

/* --- how runs end --- */

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
    const char *good = f->log; /* an evaluation that can't be done leaves no folder either */
    assert_refused(CT_NOT_FOUND, missing, run(f, model, &good, &source, 1, NULL, f->pool, &result, &status));
    assert_false(ct_path_exists(f->out));
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
    assert_ok(ct_folder_create(f->out, &status));
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

#define TEST(function) cmocka_unit_test_teardown(function, remove_out)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(any_number_of_threads_gives_the_same_digest),
                                       TEST(any_way_in_gives_the_same_digest),
                                       TEST(a_log_in_parts_gives_the_same_digest),
                                       TEST(two_trainers_do_not_disturb_each_other),
                                       TEST(progressive_metrics_are_those_of_the_logits),
                                       TEST(evaluation_of_the_folder_equals_the_run),
                                       TEST(a_failing_receiver_ends_the_evaluation),
                                       TEST(one_class_has_no_auc),
                                       TEST(several_epochs_are_one_after_the_other),
                                       TEST(a_stopped_run_leaves_a_usable_folder),
                                       TEST(a_run_stopped_before_its_first_row_leaves_nothing),
                                       TEST(a_log_without_rows_is_refused),
                                       TEST(a_taken_name_is_refused_before_the_work),
                                       TEST(a_run_that_diverges_is_refused),
                                       TEST(a_diverging_step_changes_no_score),
                                       TEST(a_row_that_left_the_range_is_not_saved)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
