/* A warm forward pass allocates nothing of ours: malloc and its kin are counted where our objects call them (the linker's --wrap). oneDNN
 * makes a small map of arguments for each of its calls, which is not ours to avoid and not counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/tower/tower_fixture.h"

static size_t calls;
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes) { return ++calls, __real_malloc(bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return ++calls, __real_calloc(count, bytes); }
void *__wrap_realloc(void *memory, size_t bytes) { return ++calls, __real_realloc(memory, bytes); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) { return ++calls, __real_aligned_alloc(alignment, bytes); }

static void test_no_allocation(void **state) {
    (void)state;
    static ct_spec_builder b;
    static float logits[CT_TOWER_MAX_ROWS * 2];
    const ct_precision precisions[] = {CT_PRECISION_FP32, CT_PRECISION_AUTO};
    for (size_t p = 0; p < 2; ++p) {
        ct_status status = CT_STATUS_INIT;
        ct_pool *pool = NULL;
        ct_tower *tower = NULL;
        ct_workspace *workspace = NULL;
        spec_zoo(&b);
        const ct_tower_options options = tower_options(precisions[p], 600);
        assert_int_equal(ct_pool_create(2, &pool, &status), CT_OK);
        assert_int_equal(ct_tower_create(&b.spec, &options, pool, &tower, &status), CT_OK);
        assert_int_equal(ct_workspace_create(tower, &workspace, &status), CT_OK);
        assert_true(calls > 0); /* the counter works */
        size_t stride, raw_stride;
        float *x = ct_workspace_x(workspace, &stride), *raw = ct_workspace_raw(workspace, &raw_stride);
        for (size_t r = 0; r < CT_TOWER_MAX_ROWS; ++r) fill_row(1, r, x + r * stride, 37, raw + r * raw_stride, 26);
        calls = 0;
        ct_tower_context(tower, workspace);
        for (size_t rows = 1; rows <= CT_TOWER_MAX_ROWS; rows += 17) {
            ct_tower_forward(tower, workspace, rows, rows % 2 == 1, logits);
        }
        ct_tower_block_forward(tower, 0, 200, logits);
        ct_tower_block_backward(tower, 0, 200, logits);
        assert_int_equal(ct_tower_update(tower, 200, &status), CT_OK);
        assert_int_equal(calls, 0);
        ct_workspace_destroy(workspace);
        ct_tower_destroy(tower);
        ct_pool_destroy(pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
