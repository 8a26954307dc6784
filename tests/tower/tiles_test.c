/* Our own bf16 products and what finishes them, beside plain loops in double: odd row counts, all remainders of a row of tiles, the same
 * bits whatever the number of rows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/math.h"
#include "base/random.h"
#include "tower/cpu/loops.h"
#include "tower/cpu/products.h"
#include "tower/cpu/tiles.h"

static bool possible(void) {
    if (ct_tiles_possible() && ct_products_bf16_native()) return true;
    printf("SKIP: this processor does not multiply bf16\n");
    return false;
}

static float value(uint64_t place, size_t i) {
    const ct_random4 random = ct_random(7, CT_PLACE_TEST, 0, place, (uint32_t)(i / 4));
    return (float)random.word[i % 4] * 0x1p-31f - 1.0f;
}
static uint16_t *make_bf16(uint64_t place, size_t count) {
    uint16_t *to = aligned_alloc(64, (count * sizeof *to + 63) / 64 * 64);
    assert_non_null(to);
    for (size_t i = 0; i < count; ++i) to[i] = ct_bf16_from_f32(value(place, i));
    return to;
}
static float *make_floats(uint64_t place, size_t count) {
    float *to = aligned_alloc(64, (count * sizeof *to + 63) / 64 * 64);
    assert_non_null(to);
    for (size_t i = 0; i < count; ++i) to[i] = value(place, i);
    return to;
}

/* Element (i, j) of a matrix in panels, and of a turned one (rows, n). */
static float in_panels(const uint16_t *b, size_t k, size_t i, size_t j) {
    return ct_f32_from_bf16(b[j / 16 * k * 16 + i / 2 * 32 + j % 16 * 2 + i % 2]);
}
static float in_turned(const uint16_t *m, size_t n, size_t i, size_t j) {
    return ct_f32_from_bf16(m[i / 8 * 8 * n + j / 16 * 128 + i % 8 / 2 * 32 + j % 16 * 2 + i % 2]);
}

/* A sum of k products of values below 1, in fp32: each addition is off by 2^-24 of what it has, which is below k. */
static void expect_near(const char *what, size_t i, size_t j, double expected, double found, size_t k) {
    if (fabs(expected - found) <= (double)k * sqrt((double)k) * 0x1p-24) return;
    fail_msg("%s (%zu, %zu): %.9g, not %.9g", what, i, j, found, expected);
}

static void check_product(size_t k, size_t n) {
    enum { ROWS = 23 };
    uint16_t *a = make_bf16(1, ROWS * k), *b = make_bf16(2, k * n);
    float *whole = make_floats(3, ROWS * n), *found = make_floats(3, ROWS * n), *before = make_floats(3, ROWS * n);
    ct_tile_product product = {.a = a, .b = b, .k = k, .n = n, .c = whole};
    ct_tiles_multiply(&product, ROWS);
    for (size_t i = 0; i < ROWS; ++i) {
        for (size_t j = 0; j < n; ++j) {
            double sum = 0;
            for (size_t p = 0; p < k; ++p) sum += (double)ct_f32_from_bf16(a[i * k + p]) * (double)in_panels(b, k, p, j);
            expect_near("product", i, j, sum, (double)whole[i * n + j], k);
        }
    }
    product.add = true;
    for (size_t rows = 1; rows <= ROWS; ++rows) { /* from each row on, added */
        const size_t from = ROWS - rows;
        product.a = a + from * k;
        product.c = found + from * n;
        memcpy(found, before, ROWS * n * sizeof *found);
        ct_tiles_multiply(&product, rows);
        for (size_t i = 0; i < ROWS * n; ++i) {
            const float expected = i < from * n ? before[i] : before[i] + whole[i];
            if (memcmp(&expected, &found[i], sizeof expected) != 0) fail_msg("%zu rows of k %zu, n %zu: value %zu differs", rows, k, n, i);
        }
    }
    free(a);
    free(b);
    free(whole);
    free(found);
    free(before);
}

static void test_products(void **state) {
    (void)state;
    if (!possible()) return;
    for (size_t n = 16; n <= 16 * 11; n += 16) check_product(48, n);
    check_product(16, 16);
    check_product(400, 80);
}

static void check_gradient(size_t rows, size_t in, size_t out, size_t first, size_t end) {
    uint16_t *x = make_bf16(1, rows * in), *dz = make_bf16(2, rows * out);
    float *c = make_floats(3, in * out), *before = make_floats(3, in * out);
    ct_tile_gradient gradient = {.a = x, .b = dz, .rows = rows, .in = in, .out = out, .first = first, .end = end, .c = c, .add = true};
    ct_tiles_gradient(&gradient);
    for (size_t i = 0; i < in; ++i) { /* what is behind the last row stays */
        for (size_t j = 0; j < out; ++j) {
            double sum = (double)before[i * out + j];
            for (size_t r = 0; r < rows && i < end - first; ++r) {
                sum += (double)in_turned(x, in, r, first + i) * (double)in_turned(dz, out, r, j);
            }
            expect_near("gradient", i, j, sum, (double)c[i * out + j], rows);
        }
    }
    free(x);
    free(dz);
    free(c);
    free(before);
}

static void test_gradients(void **state) {
    (void)state;
    if (!possible()) return;
    check_gradient(8, 16, 16, 0, 16);
    check_gradient(256, 48, 112, 8, 40);
    check_gradient(128, 80, 48, 72, 80);
    check_gradient(64, 32, 64, 0, 32);
}

/* A DENSE layer's end: bias, ReLU, another sum, rounding, both forms; then back, the mask from either form. */
static void test_dense(void **state) {
    (void)state;
    if (!possible()) return;
    enum { ROWS = 16, N = 48 };
    float *sums = make_floats(1, ROWS * N), *second = make_floats(2, N), *bias = make_floats(3, N), *others = make_floats(4, ROWS * N);
    uint16_t *y = make_bf16(5, ROWS * N), *turned = make_bf16(5, ROWS * N), *dz[2], *dz_turned = make_bf16(5, ROWS * N);
    sums[5] = NAN;
    for (size_t row = 0; row < ROWS; row += CT_TILE_ROWS) {
        const ct_dense_finish dense = {.second = second, .n = N, .bias = bias, .relu = true, .y = y, .turned = turned};
        const ct_tile tile = {.row = row, .rows = CT_TILE_ROWS, .end = N, .sums = sums + row * N, .stride = N};
        ct_finish_dense(&dense, &tile);
    }
    for (size_t i = 0; i < ROWS; ++i) {
        for (size_t j = 0; j < N; ++j) {
            const float z = second[j] + sums[i * N + j] + bias[j];
            const uint16_t expected = ct_bf16_from_f32(z < 0 ? 0 : z);
            assert_int_equal(y[i * N + j], expected);
            const float other = in_turned(turned, N, i, j), same = ct_f32_from_bf16(expected);
            assert_memory_equal(&other, &same, sizeof same);
        }
    }
    float gradients[2][N];
    memset(gradients, 0, sizeof gradients);
    for (size_t form = 0; form < 2; ++form) {
        dz[form] = make_bf16(5, ROWS * N);
        for (size_t row = 0; row < ROWS; row += CT_TILE_ROWS) {
            const ct_dense_back_finish back = {.others = others,
                                               .n = N,
                                               .y = form == 0 ? y : NULL,
                                               .y_turned = turned,
                                               .relu = true,
                                               .dz = dz[form],
                                               .turned = dz_turned,
                                               .bias_gradient = gradients[form]};
            const ct_tile tile = {.row = row, .rows = CT_TILE_ROWS, .end = N, .sums = others + row * N, .stride = N};
            ct_finish_dense_back(&back, &tile);
        }
    }
    assert_memory_equal(dz[0], dz[1], ROWS * N * sizeof *y);
    assert_memory_equal(gradients[0], gradients[1], sizeof gradients[0]);
    for (size_t j = 0; j < N; ++j) {
        float gradient = 0;
        for (size_t i = 0; i < ROWS; ++i) {
            const float dy = (int16_t)y[i * N + j] > 0 ? 2 * others[i * N + j] : 0, rounded = in_turned(dz_turned, N, i, j);
            assert_int_equal(dz[0][i * N + j], ct_bf16_from_f32(dy));
            assert_int_equal(ct_bf16_from_f32(rounded), dz[0][i * N + j]);
            gradient += dy;
        }
        assert_memory_equal(&gradients[0][j], &gradient, sizeof gradient);
    }
    free(sums);
    free(second);
    free(bias);
    free(others);
    free(y);
    free(turned);
    free(dz[0]);
    free(dz[1]);
    free(dz_turned);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products), cmocka_unit_test(test_gradients), cmocka_unit_test(test_dense)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
