/* Gradients against central finite differences of the forward pass, fp32: every layer kind, adapters, unit ranges, several outputs, both
 * sides of the context, odd widths and row counts. Loss = sum of c z with random c, so d loss / d logit = c and only the tower is tested.
 *
 * Bound: logits are computed in fp32, so a difference has a noise of about 1e-7 sqrt(rows) / h. The gradient must be within 1 % of the
 * tensor's largest one of the central difference with h = 1e-3 or of a one-sided one; where ReLUs' kinks lie on both sides, with a smaller
 * h. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tower/tower_fixture.h"

static const double STEPS[] = {1e-3, 2.5e-4, 1e-4}, BOUND = 0.01;
enum { STEP_COUNT = 3 };

typedef struct net {
    ct_spec_builder *b;
    ct_pool *pool;
    ct_tower *tower;
    size_t block_rows, rows, outputs;
    float *x, *raw; /* (rows, width), (rows, raw_width) */
    float *c;       /* (rows, outputs) */
} net;

static net net_create(ct_spec_builder *b, size_t batch_rows, size_t rows) {
    net n = {.b = b, .block_rows = ct_tower_block_rows(batch_rows), .rows = rows};
    ct_status status = CT_STATUS_INIT;
    const ct_tower_options options = tower_options(CT_PRECISION_FP32, batch_rows);
    assert_int_equal(ct_pool_create(2, &n.pool, &status), CT_OK);
    if (ct_tower_create(&b->spec, &options, n.pool, &n.tower, &status) != CT_OK) fail_msg("%s", status.message);
    n.outputs = b->spec.layers[b->spec.layer_count - 1].out;
    n.x = calloc(rows * b->spec.width, sizeof(float));
    n.raw = calloc(rows * b->spec.raw_width + 1, sizeof(float));
    n.c = calloc(rows * n.outputs, sizeof(float));
    assert_true(n.x != NULL && n.raw != NULL && n.c != NULL);
    for (size_t r = 0; r < rows; ++r)
        fill_row(3, r, n.x + r * b->spec.width, b->spec.width, n.raw + r * b->spec.raw_width, b->spec.raw_width);
    for (size_t i = 0; i < rows * n.outputs; ++i) n.c[i] = test_value(4, i);
    for (size_t i = 0; i < ct_tower_tensor_count(n.tower) / 3; ++i) { /* biases begin at 0, scales at 1: make them matter */
        const ct_tensor bias = ct_tower_tensor(n.tower, i);
        for (size_t k = 0; k < bias.columns && bias.rows == 1; ++k) bias.data[k] += 0.2f * test_value(5 + i, k);
    }
    ct_tower_weights_changed(n.tower);
    return n;
}

static void net_destroy(net *n) {
    ct_tower_destroy(n->tower);
    ct_pool_destroy(n->pool);
    free(n->x);
    free(n->raw);
    free(n->c);
}

/* Loss; with dx (rows, width), the backward pass too. */
static double run(net *n, float *out_dx) {
    const ct_tower_spec *spec = &n->b->spec;
    double loss = 0;
    for (size_t start = 0, block = 0; start < n->rows; start += n->block_rows, ++block) {
        const size_t count = n->rows - start < n->block_rows ? n->rows - start : n->block_rows;
        size_t stride, raw_stride;
        float *x = ct_tower_block_x(n->tower, block, &stride), *raw = ct_tower_block_raw(n->tower, block, &raw_stride);
        float logits[256 * 2];
        for (size_t r = 0; r < count; ++r) {
            memcpy(x + r * stride, n->x + (start + r) * spec->width, spec->width * sizeof *x);
            if (raw != NULL) memcpy(raw + r * raw_stride, n->raw + (start + r) * spec->raw_width, spec->raw_width * sizeof *raw);
        }
        ct_tower_block_forward(n->tower, block, count, logits);
        const float *c = n->c + start * n->outputs;
        for (size_t i = 0; i < count * n->outputs; ++i) loss += (double)c[i] * (double)logits[i];
        if (out_dx == NULL) continue;
        ct_tower_block_backward(n->tower, block, count, c);
        for (size_t r = 0; r < count; ++r) memcpy(out_dx + (start + r) * spec->width, x + r * stride, spec->width * sizeof *x);
    }
    return loss;
}

static double largest(const float *values, size_t count) {
    double most = 0;
    for (size_t i = 0; i < count; ++i) most = fmax(most, fabs((double)values[i]));
    return most;
}

/* Does a step of h in one value or in a direction change the loss as `found` says? */
typedef struct probe {
    net *n;
    float *data;            /* what is changed */
    const float *kept;      /* what it was */
    const float *direction; /* (count); NULL: the element `only` alone */
    size_t count, only;
} probe;

static double loss_at(const probe *p, double h) {
    for (size_t i = 0; i < p->count; ++i) {
        const double d = p->direction != NULL ? (double)p->direction[i] : i == p->only ? 1.0 : 0.0;
        p->data[i] = (float)((double)p->kept[i] + h * d);
    }
    ct_tower_weights_changed(p->n->tower);
    const double loss = run(p->n, NULL);
    memcpy(p->data, p->kept, p->count * sizeof *p->data);
    return loss;
}

static void expect_slope(const char *what, const probe *p, double here, double found, double bound) {
    double central = 0, left = 0, right = 0;
    for (size_t i = 0; i < STEP_COUNT; ++i) {
        const double h = STEPS[i], down = loss_at(p, -h), up = loss_at(p, h), allowed = bound + 3e-7 * sqrt((double)p->n->rows) / h;
        central = (up - down) / (2 * h), left = (here - down) / h, right = (up - here) / h;
        if (fabs(central - found) <= allowed || fabs(left - found) <= allowed || fabs(right - found) <= allowed) return;
    }
    fail_msg("%s[%zu]: finite difference %.6g (%.6g, %.6g), gradient %.6g, bound %.3g", what, p->only, central, left, right, found, bound);
}

/* Single weights, and a random direction through all of them. */
static void check_tensor(net *n, size_t index) {
    const ct_tensor tensor = ct_tower_tensor(n->tower, index);
    const size_t count = tensor.rows * tensor.columns;
    float *gradient = calloc(count, sizeof *gradient), *kept = calloc(count, sizeof *kept), *direction = calloc(count, sizeof *direction);
    float *dx = calloc(n->rows * n->b->spec.width, sizeof *dx);
    assert_true(gradient != NULL && kept != NULL && dx != NULL && direction != NULL);
    memcpy(kept, tensor.data, count * sizeof *kept);
    const double here = run(n, dx);
    ct_tower_weight_gradient(n->tower, n->rows, index, gradient);
    const bool head = index + 2 == ct_tower_tensor_count(n->tower) / 3;
    const size_t stride = count / 24 + 1;
    probe p = {.n = n, .data = tensor.data, .kept = kept, .count = count};
    double slope = 0, norm = 0;
    for (size_t i = 0; i < count; ++i) {
        const bool fixed = head && kept[i] == 1.0f; /* a unit column */
        direction[i] = fixed ? 0.0f : test_value(99, i) / sqrtf((float)count);
        slope += (double)gradient[i] * (double)direction[i];
        norm += (double)gradient[i] * (double)gradient[i];
        if (fixed) assert_float_equal(gradient[i], 0.0f, 0.0f);
        if (fixed || i % stride != index % stride) continue;
        p.only = i;
        expect_slope(tensor.name, &p, here, (double)gradient[i], BOUND * largest(gradient, count));
    }
    p.direction = direction;
    expect_slope("direction", &p, here, slope, BOUND * sqrt(norm / (double)count));
    ct_tower_weights_changed(n->tower);
    free(gradient);
    free(kept);
    free(direction);
    free(dx);
}

static bool adapted(const ct_tower_spec *spec, size_t column) {
    for (size_t i = 0; i < spec->adapter_count; ++i) {
        const ct_adapter_spec *a = &spec->adapters[i];
        if (!a->hidden && column >= a->column && column < a->column + a->out) return true;
    }
    return false;
}

static void check_inputs(net *n) {
    const size_t width = n->b->spec.width, count = n->rows * width;
    float *dx = calloc(count, sizeof *dx);
    assert_non_null(dx);
    const double here = run(n, dx);
    float *kept = calloc(count, sizeof *kept);
    assert_non_null(kept);
    memcpy(kept, n->x, count * sizeof *kept);
    probe p = {.n = n, .data = n->x, .kept = kept, .count = count};
    const size_t stride = count / 60 + 1;
    for (p.only = 0; p.only < count; p.only += stride) {
        if (adapted(&n->b->spec, p.only % width)) continue; /* the adapter overwrites it */
        expect_slope("x", &p, here, (double)dx[p.only], BOUND * largest(dx, count));
    }
    free(kept);
    free(dx);
}

static void check(ct_spec_builder *b, size_t batch_rows, size_t rows) {
    net n = net_create(b, batch_rows, rows);
    for (size_t i = 0; i < ct_tower_tensor_count(n.tower) / 3; ++i) check_tensor(&n, i);
    check_inputs(&n);
    net_destroy(&n);
}

static void test_zoo(void **state) {
    (void)state;
    static ct_spec_builder b;
    const size_t rows[] = {1, 31, 33, 127, 129, 293};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        spec_zoo(&b);
        check(&b, rows[i] == 293 ? 600 : 512, rows[i]);
    }
}

/* What is dropped stays dropped: the position does not change. */
static void test_field_zoo(void **state) {
    (void)state;
    static ct_spec_builder b;
    const size_t rows[] = {1, 33, 129, 293};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        spec_field_zoo(&b);
        for (size_t l = 0; i % 2 == 1 && l < b.spec.layer_count; ++l) {
            if (b.layers[l].kind == CT_LAYER_DENSE) b.layers[l].dropout = l % 2 == 0 ? 0.3f : 0.5f;
        }
        check(&b, rows[i] == 293 ? 600 : 512, rows[i]);
    }
}

static void test_models(void **state) {
    (void)state;
    static ct_spec_builder b;
    spec_lr(&b, 13, 26);
    check(&b, 512, 33);
    spec_dnn(&b, 0, 29, 40, 3);
    check(&b, 512, 33);
    spec_dnn(&b, 29, 29, 33, 2);
    check(&b, 512, 31);
    spec_dcn(&b, 0, 43, 3, 50, 2);
    check(&b, 1024, 256);
    spec_dcn(&b, 17, 43, 2, 65, 3);
    check(&b, 1024, 257);
    spec_dcn(&b, 1, 2, 1, 1, 1);
    check(&b, 512, 3);
    spec_deepfm(&b, 5, 16, 3, 30, 2);
    check(&b, 512, 33);
    spec_deepfm(&b, 3, 21, 0, 0, 0);
    check(&b, 512, 65);
    spec_dlrm(&b, 19, 16, 13, 24, 30);
    check(&b, 512, 40);
    spec_dlrm(&b, 4, 35, 1, 10, 12);
    check(&b, 512, 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_zoo), cmocka_unit_test(test_field_zoo), cmocka_unit_test(test_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
