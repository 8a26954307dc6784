/* The same bits, whatever surrounds a row and however many threads work: run as it is and with oneDNN held to smaller instruction sets. */
#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tower/tower_fixture.h"

enum { ROWS = CT_TOWER_MAX_ROWS };

static ct_spec_builder builder;

/* NULL where bf16 is asked for and can't be had. */
static ct_tower *create(ct_precision precision, size_t batch_rows, ct_pool *pool) {
    ct_status status = CT_STATUS_INIT;
    ct_tower *tower = NULL;
    const ct_tower_options options = tower_options(precision, batch_rows);
    const ct_code code = ct_tower_create(&builder.spec, &options, pool, &tower, &status);
    if (code == CT_UNSUPPORTED && precision == CT_PRECISION_BF16) {
        assert_non_null(strstr(status.message, "bf16"));
        assert_non_null(strstr(status.message, ct_tower_instruction_set()));
        return NULL;
    }
    if (code != CT_OK) fail_msg("%s", status.message);
    return tower;
}

static ct_pool *create_pool(size_t threads) {
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(threads, &pool, &status), CT_OK);
    return pool;
}

static size_t outputs(void) { return builder.spec.layers[builder.spec.layer_count - 1].out; }

/* Rows `first` .. of the data set into the workspace, with the context of row `context_row` where it is not SIZE_MAX. */
static void put_rows(ct_workspace *workspace, size_t first, size_t rows, size_t context_row) {
    size_t stride, raw_stride;
    float *x = ct_workspace_x(workspace, &stride), *raw = ct_workspace_raw(workspace, &raw_stride);
    const ct_tower_spec *spec = &builder.spec;
    for (size_t r = 0; r < rows; ++r) {
        float *raw_row = raw == NULL ? NULL : raw + r * raw_stride, kept[64];
        fill_row(11, first + r, x + r * stride, spec->width, raw_row, spec->raw_width);
        if (context_row == SIZE_MAX) continue;
        /* The adapters of the context read raw columns of the context's row. */
        float *context = calloc(spec->width, sizeof *context);
        assert_non_null(context);
        fill_row(11, context_row, context, spec->width, kept, spec->raw_width);
        memcpy(x + r * stride, context, spec->context_width * sizeof *x);
        free(context);
        for (size_t i = 0; i < spec->adapter_count; ++i) {
            const ct_adapter_spec *a = &spec->adapters[i];
            const size_t column = (a->hidden ? a + 1 : a)->column;
            if (column < spec->context_width) memcpy(raw_row + a->raw_column, kept + a->raw_column, a->in * sizeof *raw_row);
        }
    }
}

static void expect_bits(const char *what, size_t rows, size_t at, const float *expected, const float *found, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        if (memcmp(&expected[i], &found[i], sizeof *expected) == 0) continue;
        fail_msg("%s: %zu rows, first row %zu, value %zu: %.9g, not %.9g", what, rows, at, i, (double)found[i], (double)expected[i]);
    }
}

static void check_rows(const char *name, ct_precision precision) {
    ct_tower *tower = create(precision, 0, NULL);
    if (tower == NULL) {
        printf("SKIP: %s in bf16: not on instruction set %s\n", name, ct_tower_instruction_set());
        return;
    }
    ct_status status = CT_STATUS_INIT;
    ct_workspace *workspace = NULL;
    assert_int_equal(ct_workspace_create(tower, &workspace, &status), CT_OK);
    const size_t n = outputs();
    float *expected = calloc(ROWS * n, sizeof *expected), *found = calloc(ROWS * n, sizeof *found);
    assert_true(expected != NULL && found != NULL);
    put_rows(workspace, 0, ROWS, SIZE_MAX);
    ct_tower_forward(tower, workspace, ROWS, false, expected);
    for (size_t rows = 1; rows <= ROWS; ++rows) {
        const size_t at = rows == ROWS ? 0 : rows * 37 % (ROWS - rows + 1);
        put_rows(workspace, at, rows, SIZE_MAX);
        ct_tower_forward(tower, workspace, rows, false, found);
        expect_bits(name, rows, at, expected + at * n, found, rows * n);
    }
    /* One context for all rows: computed for each, and once. */
    put_rows(workspace, 0, ROWS, 3);
    ct_tower_forward(tower, workspace, ROWS, false, expected);
    for (size_t rows = 1; rows <= ROWS; rows += rows < 70 ? 1 : 31) {
        const size_t at = rows * 11 % (ROWS - rows + 1);
        size_t stride;
        put_rows(workspace, 3, 1, SIZE_MAX);
        ct_tower_context(tower, workspace);
        put_rows(workspace, at, rows, SIZE_MAX);
        float *x = ct_workspace_x(workspace, &stride);
        for (size_t r = 0; r < rows; ++r) {
            for (size_t i = 0; i < builder.spec.context_width; ++i) x[r * stride + i] = NAN; /* must not be read */
        }
        ct_tower_forward(tower, workspace, rows, true, found);
        expect_bits(name, rows, at, expected + at * n, found, rows * n);
    }
    free(expected);
    free(found);
    ct_workspace_destroy(workspace);
    ct_tower_destroy(tower);
}

typedef void (*builder_fn)(void);
static void make_zoo(void) { spec_zoo(&builder); }
static void make_dcn(void) { spec_dcn(&builder, 61, 130, 3, 150, 2); }
static void make_dcn_candidates(void) { spec_dcn(&builder, 0, 45, 2, 40, 2); }
static void make_dcn_context(void) { spec_dcn(&builder, 45, 45, 2, 40, 2); }
static void make_dnn(void) { spec_dnn(&builder, 3, 429, 100, 2); }
static void make_narrow(void) { spec_dnn(&builder, 1, 4, 1, 2); }
static void make_fields(void) { spec_field_zoo(&builder); }
static void make_dropout(void) {
    spec_field_zoo(&builder);
    for (size_t l = 0; l < builder.spec.layer_count; ++l) {
        if (builder.layers[l].kind == CT_LAYER_DENSE) builder.layers[l].dropout = 0.25f;
    }
}
static void make_deepfm(void) { spec_deepfm(&builder, 7, 16, 5, 60, 2); }
static void make_fm(void) { spec_deepfm(&builder, 6, 11, 4, 0, 0); }
static void make_dlrm(void) { spec_dlrm(&builder, 26, 16, 13, 50, 70); }
static void make_low_rank(void) {
    spec_begin(&builder, 61, 130);
    spec_head(&builder, 1, 1, spec_cross_low(&builder, spec_cross_low(&builder, 0, 20), 33), 0, 0);
}
static void make_lr(void) {
    spec_lr(&builder, 13, 26);
    builder.spec.context_width = 20;
}
static const struct {
    const char *name;
    builder_fn make;
} models[] = {{"all kinds", make_zoo},
              {"DCN-v2", make_dcn},
              {"DCN-v2, candidates only", make_dcn_candidates},
              {"DCN-v2, context only", make_dcn_context},
              {"DNN", make_dnn},
              {"narrow DNN", make_narrow},
              {"all kinds over fields", make_fields},
              {"DeepFM", make_deepfm},
              {"FM", make_fm},
              {"DLRM", make_dlrm},
              {"low rank", make_low_rank},
              {"LR", make_lr}};
enum { MODELS = sizeof models / sizeof *models };
static const ct_precision precisions[] = {CT_PRECISION_FP32, CT_PRECISION_BF16};

static void test_rows_are_independent(void **state) {
    (void)state;
    printf("instruction set %s\n", ct_tower_instruction_set());
    for (size_t m = 0; m < MODELS; ++m) {
        models[m].make();
        for (size_t p = 0; p < 2; ++p) check_rows(models[m].name, precisions[p]);
    }
}

static void test_training_forward_is_inference(void **state) {
    (void)state;
    ct_pool *pool = create_pool(2);
    for (size_t m = 0; m < MODELS; ++m) {
        models[m].make();
        for (size_t p = 0; p < 2; ++p) {
            ct_tower *tower = create(precisions[p], 1024, pool);
            if (tower == NULL) continue;
            ct_status status = CT_STATUS_INIT;
            ct_workspace *workspace = NULL;
            assert_int_equal(ct_workspace_create(tower, &workspace, &status), CT_OK);
            float expected[ROWS * 2], found[(ROWS + 77) * 2];
            run_batch(tower, pool, &builder.spec, 1024, 11, 0, ROWS + 77, found);
            put_rows(workspace, 0, ROWS, SIZE_MAX);
            ct_tower_forward(tower, workspace, ROWS, false, expected);
            expect_bits(models[m].name, ROWS, 0, expected, found, ROWS * outputs());
            put_rows(workspace, ROWS, 77, SIZE_MAX);
            ct_tower_forward(tower, workspace, 77, false, expected);
            expect_bits(models[m].name, 77, ROWS, expected, found + ROWS * outputs(), 77 * outputs());
            ct_workspace_destroy(workspace);
            ct_tower_destroy(tower);
        }
    }
    ct_pool_destroy(pool);
}

/* 20 steps, the last of them partial. beside: the gradients are made in the run of the blocks. */
static uint64_t train(ct_precision precision, size_t threads, size_t batch_rows, bool beside) {
    ct_pool *pool = create_pool(threads);
    ct_tower *tower = create(precision, batch_rows, pool);
    uint64_t hash = 0;
    ct_status status = CT_STATUS_INIT;
    for (size_t step = 0; tower != NULL && step < 20; ++step) {
        const size_t rows = step == 19 ? batch_rows / 2 + 5 : batch_rows;
        if (beside) {
            run_pass(tower, pool, &builder.spec, batch_rows, 13, step * batch_rows, rows);
        } else {
            run_batch(tower, pool, &builder.spec, batch_rows, 13, step * batch_rows, rows, NULL);
        }
        if (ct_tower_update(tower, rows, &status) != CT_OK) fail_msg("%s", status.message);
    }
    if (tower != NULL) hash = tower_hash(tower);
    ct_tower_destroy(tower);
    ct_pool_destroy(pool);
    return hash;
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    const size_t threads[] = {2, 3, 8, 1};
    const builder_fn makes[] = {make_zoo, make_dcn, make_lr, make_dropout};
    for (size_t m = 0; m < sizeof makes / sizeof *makes; ++m) {
        makes[m]();
        for (size_t p = 0; p < 2; ++p) {
            const size_t batch = m == 1 ? 700 : 300;
            const uint64_t expected = train(precisions[p], 1, batch, false);
            for (size_t i = 0; i < 4; ++i) assert_int_equal(train(precisions[p], threads[i], batch, i != 1), expected);
        }
    }
}

static void forward_all(const ct_tower *tower, ct_workspace *workspace, float *out_logits) {
    put_rows(workspace, 0, ROWS, SIZE_MAX);
    ct_tower_forward(tower, workspace, ROWS, false, out_logits);
}

/* With an average: the weights are those of a training without one; a workspace follows each update, old or new; a tower for inference that
 * gets the "average." tensors says the same, bit for bit; and the last update alone is not what it says. */
static void check_average(ct_precision precision, ct_dense_optimiser optimiser) {
    enum { BATCH = 300 };
    ct_pool *pool = create_pool(3);
    ct_status status = CT_STATUS_INIT;
    ct_tower_options options = tower_options(precision, BATCH);
    options.optimiser = optimiser;
    ct_tower *plain = NULL, *tower = NULL, *reader = NULL;
    ct_workspace *workspace = NULL, *late = NULL, *of_reader = NULL, *of_plain = NULL;
    static float logits[4][ROWS * 2], before[ROWS * 2];
    const ct_code code = ct_tower_create(&builder.spec, &options, pool, &plain, &status);
    options.average_power = 8;
    if (code == CT_OK) {
        assert_int_equal(ct_tower_create(&builder.spec, &options, pool, &tower, &status), CT_OK);
        assert_int_equal(ct_workspace_create(tower, &workspace, &status), CT_OK);
        forward_all(tower, workspace, before);
        for (size_t step = 0; step < 12; ++step) {
            run_batch(plain, pool, &builder.spec, BATCH, 13, step * BATCH, BATCH, NULL);
            run_batch(tower, pool, &builder.spec, BATCH, 13, step * BATCH, BATCH, NULL);
            assert_int_equal(ct_tower_update(plain, BATCH, &status), CT_OK);
            assert_int_equal(ct_tower_update(tower, BATCH, &status), CT_OK);
            if (step == 5) forward_all(tower, workspace, before);
        }
        options.batch_rows = 0;
        assert_int_equal(ct_tower_create(&builder.spec, &options, NULL, &reader, &status), CT_OK);
        const size_t count = ct_tower_tensor_count(reader), copies = ct_tower_tensor_count(tower) / count;
        assert_int_equal(copies, optimiser == CT_DENSE_ADAM ? 4 : 2);
        for (size_t i = 0; i < count; ++i) {
            const ct_tensor from = ct_tower_tensor(tower, (copies - 1) * count + i), to = ct_tower_tensor(reader, i);
            const ct_tensor w = ct_tower_tensor(tower, i), other = ct_tower_tensor(plain, i);
            assert_string_equal(from.name, to.name);
            assert_int_equal(strncmp(to.name, "average.", 8), 0);
            expect_bits(w.name, 0, 0, other.data, w.data, w.rows * w.columns);
            memcpy(to.data, from.data, from.rows * from.columns * sizeof *to.data);
        }
        ct_tower_weights_changed(reader);
        assert_int_equal(ct_workspace_create(tower, &late, &status), CT_OK);
        assert_int_equal(ct_workspace_create(reader, &of_reader, &status), CT_OK);
        assert_int_equal(ct_workspace_create(plain, &of_plain, &status), CT_OK);
        forward_all(reader, of_reader, logits[0]);
        forward_all(tower, workspace, logits[1]);
        forward_all(tower, late, logits[2]);
        forward_all(plain, of_plain, logits[3]);
        expect_bits("old workspace", ROWS, 0, logits[0], logits[1], ROWS * outputs());
        expect_bits("new workspace", ROWS, 0, logits[0], logits[2], ROWS * outputs());
        assert_int_not_equal(memcmp(logits[0], logits[3], ROWS * outputs() * sizeof(float)), 0);
        assert_int_not_equal(memcmp(logits[0], before, ROWS * outputs() * sizeof(float)), 0);
    }
    ct_workspace_destroy(workspace);
    ct_workspace_destroy(late);
    ct_workspace_destroy(of_reader);
    ct_workspace_destroy(of_plain);
    ct_tower_destroy(plain);
    ct_tower_destroy(tower);
    ct_tower_destroy(reader);
    ct_pool_destroy(pool);
}

static void test_average_is_what_inference_reads(void **state) {
    (void)state;
    const builder_fn makes[] = {make_zoo, make_fields, make_lr};
    for (size_t m = 0; m < sizeof makes / sizeof *makes; ++m) {
        makes[m]();
        for (size_t p = 0; p < 2; ++p) {
            check_average(precisions[p], CT_DENSE_ADAM);
            check_average(precisions[p], CT_DENSE_SGD);
        }
    }
}

/* A rate of 0 changes nothing but the moments; a position changes what is dropped, and only where something is. */
static void test_rate_and_position(void **state) {
    (void)state;
    ct_pool *pool = create_pool(2);
    const builder_fn makes[] = {make_fields, make_dropout};
    for (size_t m = 0; m < 2; ++m) {
        makes[m]();
        ct_tower *tower = create(CT_PRECISION_FP32, 300, pool);
        ct_status status = CT_STATUS_INIT;
        static float first[600], second[600], third[600];
        run_batch(tower, pool, &builder.spec, 300, 13, 0, 300, first);
        const ct_tensor w = ct_tower_tensor(tower, 0);
        float *kept = malloc(w.rows * w.columns * sizeof *kept);
        assert_non_null(kept);
        memcpy(kept, w.data, w.rows * w.columns * sizeof *kept);
        ct_tower_set_learning_rate(tower, 0.0f);
        assert_int_equal(ct_tower_update(tower, 300, &status), CT_OK);
        expect_bits("rate 0", 0, 0, kept, w.data, w.rows * w.columns);
        ct_tower_set_position(tower, 0, 300);
        run_batch(tower, pool, &builder.spec, 300, 13, 0, 300, second);
        ct_tower_set_position(tower, 1, 0);
        run_batch(tower, pool, &builder.spec, 300, 13, 0, 300, third);
        assert_int_equal(memcmp(first, second, sizeof first) != 0, m == 1);
        assert_int_equal(memcmp(first, third, sizeof first) != 0, m == 1);
        assert_int_equal(memcmp(second, third, sizeof first) != 0, m == 1);
        free(kept);
        ct_tower_destroy(tower);
    }
    ct_pool_destroy(pool);
}

static void gradients(ct_tower *tower, size_t rows, float *out, size_t *out_count) {
    size_t at = 0;
    for (size_t i = 0; i < ct_tower_tensor_count(tower) / 3; ++i) {
        const ct_tensor tensor = ct_tower_tensor(tower, i);
        ct_tower_weight_gradient(tower, rows, i, out + at);
        at += tensor.rows * tensor.columns;
    }
    *out_count = at;
}

/* What blocks held before does not show in a partial last block. */
static void test_partial_block(void **state) {
    (void)state;
    ct_pool *pool = create_pool(2);
    make_zoo();
    const size_t sizes[] = {1, 63, 64, 65, 127, 128, 129, 200, 257, 300}, batches[] = {300, 600}; /* blocks of 128 and of 256 */
    for (size_t i = 0; i < 40; ++i) {
        const ct_precision precision = precisions[i % 2];
        const size_t batch = batches[i / 2 % 2], rows = sizes[i / 4];
        ct_tower *fresh = create(precision, batch, pool), *used = create(precision, batch, pool);
        if (fresh == NULL) continue;
        float *expected = calloc(ct_tower_parameters(fresh) + 4096, sizeof *expected);
        float *found = calloc(ct_tower_parameters(fresh) + 4096, sizeof *found);
        assert_true(expected != NULL && found != NULL);
        size_t count;
        run_batch(fresh, pool, &builder.spec, batch, 17, 0, rows, NULL);
        gradients(fresh, rows, expected, &count);
        run_batch(used, pool, &builder.spec, batch, 19, 1000, batch, NULL);
        run_batch(used, pool, &builder.spec, batch, 17, 0, rows, NULL);
        gradients(used, rows, found, &count);
        expect_bits("partial block", rows, 0, expected, found, count);
        free(expected);
        free(found);
        ct_tower_destroy(fresh);
        ct_tower_destroy(used);
    }
    ct_pool_destroy(pool);
}

/* `bad` as one logit's gradient: refused, and nothing has changed; the next good batch goes on. */
static void check_divergence(ct_precision precision, float bad) {
    ct_pool *pool = create_pool(2);
    ct_tower *tower = create(precision, 256, pool), *calm = create(precision, 256, pool);
    if (tower != NULL) {
        ct_status status = CT_STATUS_INIT;
        float logits[128 * 2], c[128 * 2] = {0};
        c[77] = bad;
        run_batch(tower, pool, &builder.spec, 256, 23, 0, 256, NULL);
        run_batch(calm, pool, &builder.spec, 256, 23, 0, 256, NULL);
        assert_int_equal(ct_tower_update(tower, 256, &status), CT_OK);
        assert_int_equal(ct_tower_update(calm, 256, &status), CT_OK);
        const uint64_t before = tower_hash(tower);
        run_batch(tower, pool, &builder.spec, 256, 23, 256, 256, NULL);
        size_t stride, raw_stride;
        float *x = ct_tower_block_x(tower, 0, &stride), *raw = ct_tower_block_raw(tower, 0, &raw_stride);
        for (size_t r = 0; r < 128; ++r) {
            fill_row(23, r, x + r * stride, builder.spec.width, raw + r * raw_stride, builder.spec.raw_width);
            if (bad < 0) x[r * stride] = 1e38f; /* finite, but sums of it are not */
        }
        ct_tower_block_forward(tower, 0, 128, logits);
        ct_tower_block_backward(tower, 0, 128, c);
        assert_int_equal(ct_tower_update(tower, 256, &status), CT_INVALID);
        assert_non_null(strstr(status.message, "diverged"));
        assert_int_equal(tower_hash(tower), before);
        assert_int_equal(ct_tower_step(tower), 1);
        run_batch(tower, pool, &builder.spec, 256, 23, 512, 30, NULL);
        run_batch(calm, pool, &builder.spec, 256, 23, 512, 30, NULL);
        assert_int_equal(ct_tower_update(tower, 30, &status), CT_OK);
        assert_int_equal(ct_tower_update(calm, 30, &status), CT_OK);
        assert_int_equal(tower_hash(tower), tower_hash(calm));
    }
    ct_tower_destroy(tower);
    ct_tower_destroy(calm);
    ct_pool_destroy(pool);
}

static void test_divergence_is_refused(void **state) {
    (void)state;
    make_zoo();
    for (size_t p = 0; p < 2; ++p) {
        check_divergence(precisions[p], NAN);
        check_divergence(precisions[p], INFINITY);
        check_divergence(precisions[p], -1e38f);
    }
}

/* Only one layer's weight gradient is not finite: 1e30 in a column whose weights are 0, times a gradient of 1e20. */
static void test_one_gradient_diverges(void **state) {
    (void)state;
    ct_pool *pool = create_pool(2);
    spec_dnn(&builder, 0, 20, 30, 2);
    for (size_t p = 0; p < 2; ++p) {
        ct_tower *tower = create(precisions[p], 100, pool);
        if (tower == NULL) continue;
        ct_status status = CT_STATUS_INIT;
        const ct_tensor weight = ct_tower_tensor(tower, 0);
        memset(weight.data, 0, weight.columns * sizeof(float));
        ct_tower_weights_changed(tower);
        const uint64_t before = tower_hash(tower);
        size_t stride;
        float *x = ct_tower_block_x(tower, 0, &stride), logits[4], c[4] = {1.0f, 1e20f, 1.0f, -1.0f};
        for (size_t r = 0; r < 4; ++r) fill_row(29, r, x + r * stride, 20, NULL, 0);
        x[stride] = 1e30f;
        ct_tower_block_forward(tower, 0, 4, logits);
        assert_true(isfinite(logits[1]));
        ct_tower_block_backward(tower, 0, 4, c);
        assert_int_equal(ct_tower_update(tower, 4, &status), CT_INVALID);
        assert_int_equal(tower_hash(tower), before);
        ct_tower_destroy(tower);
    }
    ct_pool_destroy(pool);
}

/* --- threads --- */

static size_t thread_count(void) {
    DIR *folder = opendir("/proc/self/task");
    assert_non_null(folder);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

static void *forward_in_thread(void *argument) {
    ct_tower *tower = argument;
    ct_status status = CT_STATUS_INIT;
    ct_workspace *workspace = NULL;
    static float logits[ROWS];
    if (ct_workspace_create(tower, &workspace, &status) != CT_OK) return NULL;
    put_rows(workspace, 0, ROWS, SIZE_MAX);
    ct_tower_forward(tower, workspace, ROWS, false, logits);
    ct_workspace_destroy(workspace);
    return (void *)thread_count();
}

/* Neither creation nor a pass starts threads of an OpenMP team, in whatever thread they run. */
static void test_no_teams(void **state) {
    (void)state;
    ct_pool *pool = create_pool(3);
    const size_t before = thread_count();
    make_dcn();
    ct_tower *tower = create(CT_PRECISION_AUTO, 700, pool);
    run_batch(tower, pool, &builder.spec, 700, 3, 0, 700, NULL);
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_tower_update(tower, 700, &status), CT_OK);
    assert_int_equal(thread_count(), before);
    pthread_t thread;
    void *inside = NULL;
    assert_int_equal(pthread_create(&thread, NULL, forward_in_thread, tower), 0);
    assert_int_equal(pthread_join(thread, &inside), 0);
    assert_int_equal((size_t)inside, before + 1);
    ct_tower_destroy(tower);
    ct_pool_destroy(pool);
}

/* A workspace for each thread, one tower: the same bits. */
typedef struct reader {
    ct_tower *tower;
    float logits[ROWS];
} reader;
static void *read_often(void *argument) {
    reader *r = argument;
    ct_status status = CT_STATUS_INIT;
    ct_workspace *workspace = NULL;
    if (ct_workspace_create(r->tower, &workspace, &status) != CT_OK) return NULL;
    for (size_t i = 0; i < 50; ++i) {
        put_rows(workspace, 0, ROWS, SIZE_MAX);
        ct_tower_forward(r->tower, workspace, ROWS, false, r->logits);
    }
    ct_workspace_destroy(workspace);
    return r;
}
static void test_many_readers(void **state) {
    (void)state;
    make_dcn();
    ct_tower *tower = create(CT_PRECISION_AUTO, 0, NULL);
    static reader readers[4];
    pthread_t threads[4];
    for (size_t i = 0; i < 4; ++i) {
        readers[i].tower = tower;
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, &readers[i]), 0);
    }
    for (size_t i = 0; i < 4; ++i) {
        void *result = NULL;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &readers[i]);
        expect_bits("reader", ROWS, 0, readers[0].logits, readers[i].logits, ROWS);
    }
    ct_tower_destroy(tower);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows_are_independent),
                                       cmocka_unit_test(test_training_forward_is_inference),
                                       cmocka_unit_test(test_threads_do_not_matter),
                                       cmocka_unit_test(test_average_is_what_inference_reads),
                                       cmocka_unit_test(test_rate_and_position),
                                       cmocka_unit_test(test_partial_block),
                                       cmocka_unit_test(test_divergence_is_refused),
                                       cmocka_unit_test(test_one_gradient_diverges),
                                       cmocka_unit_test(test_no_teams),
                                       cmocka_unit_test(test_many_readers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
