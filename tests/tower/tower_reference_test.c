/* Towers of the models' shapes against an independent reference in NumPy (reference.py): logits, gradients, d x, one Adam step from a
 * state in the middle of a training. Skips where /usr/bin/python3 has no NumPy. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/tower/tower_fixture.h"

static const uint32_t EPOCH = 3;
static const int64_t FIRST_ROW = (INT64_C(1) << 32) - 50;

static bool have_numpy(void) {
    static int answer = -1;
    if (answer < 0) answer = system("/usr/bin/python3 -c 'import numpy' >/dev/null 2>&1") == 0;
    if (answer == 0) printf("SKIP: /usr/bin/python3 has no NumPy (Debian: python3-numpy)\n");
    return answer == 1;
}

static void save(const char *folder, const char *name, const float *data, size_t count) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.f32", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, sizeof *data, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static void describe(const char *folder, const ct_tower_spec *spec, const ct_tower_options *options, ct_precision precision, size_t rows,
                     int64_t step) {
    char path[512];
    snprintf(path, sizeof path, "%s/tower.txt", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "rows %zu\nwidth %zu\nraw_width %zu\nprecision %s\nstep %lld\n", rows, spec->width, spec->raw_width,
            precision == CT_PRECISION_BF16 ? "bf16" : "fp32", (long long)step);
    fprintf(file, "rate %.9g\nbeta1 %.9g\nbeta2 %.9g\nepsilon %.9g\n", (double)options->learning_rate, (double)options->beta1,
            (double)options->beta2, (double)options->epsilon);
    for (size_t i = 0; i < spec->adapter_count; ++i) {
        const ct_adapter_spec *a = &spec->adapters[i];
        fprintf(file, "adapter %s %zu %zu %zu %zu %d\n", a->name, a->raw_column, a->in, a->column, a->out, a->hidden);
    }
    for (size_t i = 0; i < spec->unit_range_count; ++i) {
        fprintf(file, "unit %zu %zu %zu\n", spec->unit_ranges[i].slab, spec->unit_ranges[i].column, spec->unit_ranges[i].count);
    }
    for (size_t i = 0; i < spec->field_count; ++i) fprintf(file, "field %zu %zu\n", spec->fields[i], spec->field_dim);
    fprintf(file, "seed %llu\nepoch %u\nfirst_row %lld\n", (unsigned long long)options->seed, EPOCH, (long long)FIRST_ROW);
    fprintf(file, "l2 %.9g\naverage_power %.9g\n", (double)options->l2, (double)options->average_power);
    for (size_t i = 0; i < spec->layer_count; ++i) {
        const ct_layer_spec *layer = &spec->layers[i];
        fprintf(file, "layer %s %d %zu %d %d %d %.9g", layer->name, (int)layer->kind, layer->out, (int)layer->activation, layer->no_bias,
                layer->normalise, (double)layer->dropout);
        for (size_t k = 0; k < layer->input_count; ++k) fprintf(file, " %zu", layer->inputs[k]);
        fprintf(file, "\n");
    }
    assert_int_equal(fclose(file), 0);
}

/* Moments as of the middle of a training, biases that matter. */
static void set_state(ct_tower *tower) {
    const size_t count = ct_tower_tensor_count(tower) / 4;
    for (size_t i = 0; i < count; ++i) {
        const ct_tensor w = ct_tower_tensor(tower, i), m = ct_tower_tensor(tower, count + i), v = ct_tower_tensor(tower, 2 * count + i);
        for (size_t k = 0; k < w.rows * w.columns; ++k) {
            m.data[k] = 1e-3f * test_value(31 + i, k);
            v.data[k] = 1e-6f * (1.0f + test_value(32 + i, k));
            ct_tower_tensor(tower, 3 * count + i).data[k] = w.data[k] + 0.05f * test_value(34 + i, k);
            if (w.rows == 1) w.data[k] += 0.1f * test_value(33 + i, k);
        }
    }
    ct_tower_weights_changed(tower);
    ct_tower_set_step(tower, 5);
}

static void save_tensors(ct_tower *tower, const char *folder, size_t rows, bool before) {
    const size_t count = ct_tower_tensor_count(tower) / 4;
    for (size_t i = 0; i < count; ++i) {
        const ct_tensor w = ct_tower_tensor(tower, i);
        const size_t floats = w.rows * w.columns;
        char name[256];
        snprintf(name, sizeof name, "%s.%s", w.name, before ? "before" : "after");
        save(folder, name, w.data, floats);
        snprintf(name, sizeof name, "average.%s.%s", w.name, before ? "before" : "after");
        assert_int_equal(strncmp(ct_tower_tensor(tower, 3 * count + i).name, name, 8 + strlen(w.name)), 0);
        save(folder, name, ct_tower_tensor(tower, 3 * count + i).data, floats);
        if (!before) continue;
        snprintf(name, sizeof name, "m.%s.before", w.name);
        save(folder, name, ct_tower_tensor(tower, count + i).data, floats);
        snprintf(name, sizeof name, "v.%s.before", w.name);
        save(folder, name, ct_tower_tensor(tower, 2 * count + i).data, floats);
        float *gradient = malloc(floats * sizeof *gradient);
        assert_non_null(gradient);
        ct_tower_weight_gradient(tower, rows, i, gradient);
        snprintf(name, sizeof name, "%s.gradient", w.name);
        save(folder, name, gradient, floats);
        free(gradient);
    }
}

static void compare(const char *name, ct_spec_builder *b, ct_precision precision, size_t batch_rows, size_t rows) {
    if (!have_numpy()) skip();
    const char *root = getenv("TEST_TMPDIR") != NULL ? getenv("TEST_TMPDIR") : "/tmp";
    char folder[400], command[1024];
    snprintf(folder, sizeof folder, "%s/tower_reference_XXXXXX", root);
    assert_non_null(mkdtemp(folder));
    const ct_tower_spec *spec = &b->spec;
    const size_t outputs = spec->layers[spec->layer_count - 1].out, block = ct_tower_block_rows(batch_rows);
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    ct_tower *tower = NULL;
    ct_tower_options options = tower_options(precision, batch_rows);
    options.average_power = 4;
    options.l2 = 1e-4f;
    assert_int_equal(ct_pool_create(2, &pool, &status), CT_OK);
    if (ct_tower_create(spec, &options, pool, &tower, &status) != CT_OK) {
        ct_pool_destroy(pool);
        if (status.code != CT_UNSUPPORTED) fail_msg("%s", status.message);
        printf("SKIP: %s\n", status.message);
        skip();
    }
    set_state(tower);
    ct_tower_set_position(tower, EPOCH, FIRST_ROW);
    describe(folder, spec, &options, ct_tower_precision(tower), rows, ct_tower_step(tower));
    float *x = calloc(rows * spec->width, sizeof *x), *raw = calloc(rows * spec->raw_width + 1, sizeof *raw);
    float *dx = calloc(rows * spec->width, sizeof *dx);
    float *logits = calloc(rows * outputs, sizeof *logits), *c = calloc(rows * outputs, sizeof *c);
    assert_true(x != NULL && raw != NULL && dx != NULL && logits != NULL && c != NULL);
    for (size_t r = 0; r < rows; ++r) fill_row(21, r, x + r * spec->width, spec->width, raw + r * spec->raw_width, spec->raw_width);
    for (size_t i = 0; i < rows * outputs; ++i) c[i] = test_value(22, i) / (float)rows;
    for (size_t start = 0, k = 0; start < rows; start += block, ++k) {
        const size_t count = rows - start < block ? rows - start : block;
        size_t stride, raw_stride;
        float *bx = ct_tower_block_x(tower, k, &stride), *braw = ct_tower_block_raw(tower, k, &raw_stride);
        for (size_t r = 0; r < count; ++r) {
            memcpy(bx + r * stride, x + (start + r) * spec->width, spec->width * sizeof *x);
            if (braw != NULL) memcpy(braw + r * raw_stride, raw + (start + r) * spec->raw_width, spec->raw_width * sizeof *raw);
        }
        ct_tower_block_forward(tower, k, count, logits + start * outputs);
        ct_tower_block_backward(tower, k, count, c + start * outputs);
        for (size_t r = 0; r < count; ++r) memcpy(dx + (start + r) * spec->width, bx + r * stride, spec->width * sizeof *x);
    }
    save(folder, "x", x, rows * spec->width);
    save(folder, "raw", raw, rows * spec->raw_width);
    save(folder, "logit_gradients", c, rows * outputs);
    save(folder, "logits", logits, rows * outputs);
    save(folder, "dx", dx, rows * spec->width);
    save_tensors(tower, folder, rows, true);
    if (ct_tower_update(tower, rows, &status) != CT_OK) fail_msg("%s", status.message);
    assert_int_equal(ct_tower_step(tower), 6);
    save_tensors(tower, folder, rows, false);
    printf("%s, %s, %zu rows\n", name, ct_tower_precision(tower) == CT_PRECISION_BF16 ? "bf16" : "fp32", rows);
    fflush(stdout);
    snprintf(command, sizeof command, "/usr/bin/python3 tests/tower/reference.py %s", folder);
    const int result = system(command);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    free(x);
    free(raw);
    free(dx);
    free(logits);
    free(c);
    ct_tower_destroy(tower);
    ct_pool_destroy(pool);
    if (result != 0) fail_msg("%s differs from the reference", name);
}

static void compare_models(ct_precision precision) {
    static ct_spec_builder b;
    spec_lr(&b, 13, 26);
    compare("LR", &b, precision, 1024, 300);
    spec_dnn(&b, 0, 101, 100, 3);
    compare("DNN", &b, precision, 1024, 513);
    spec_dnn(&b, 40, 101, 64, 2);
    compare("DNN, both sides", &b, precision, 512, 97);
    spec_dcn(&b, 0, 77, 3, 90, 3);
    compare("DCN-v2", &b, precision, 1024, 256);
    spec_dcn(&b, 30, 77, 2, 130, 2);
    compare("DCN-v2, both sides", &b, precision, 512, 200);
    spec_dcn(&b, 77, 77, 1, 20, 1);
    compare("DCN-v2, context only", &b, precision, 512, 33);
    spec_zoo(&b);
    compare("all kinds", &b, precision, 512, 193);
    spec_deepfm(&b, 26, 16, 13, 100, 3);
    compare("DeepFM", &b, precision, 512, 300);
    spec_dlrm(&b, 26, 16, 13, 60, 100);
    compare("DLRM", &b, precision, 512, 300);
    spec_field_zoo(&b);
    compare("fields, low rank, normalised", &b, precision, 512, 193);
    for (size_t l = 0; l < b.spec.layer_count; ++l) {
        if (b.layers[l].kind == CT_LAYER_DENSE) b.layers[l].dropout = l % 2 == 0 ? 0.1f : 0.5f;
    }
    compare("with dropout", &b, precision, 600, 290);
}

static void test_fp32(void **state) {
    (void)state;
    compare_models(CT_PRECISION_FP32);
}
static void test_bf16(void **state) {
    (void)state;
    compare_models(CT_PRECISION_BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fp32), cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
