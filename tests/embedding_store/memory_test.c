/* Once warm, a look-up allocates nothing: every allocation of the program is counted (the linker wraps them). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "embedding_store/store.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"

static _Atomic int64_t allocations;

/* The linker's names: a call of malloc comes here, and __real_malloc is the library's. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__real_mmap(void *address, size_t bytes, int protection, int flags, int file, long offset);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, long offset);

void *__wrap_malloc(size_t bytes) {
    allocations++;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes) {
    allocations++;
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes) {
    allocations++;
    return __real_realloc(memory, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    allocations++;
    return __real_aligned_alloc(alignment, bytes);
}

void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, long offset) {
    allocations++;
    return __real_mmap(address, bytes, protection, flags, file, offset);
}

enum { ROWS = 500 };

static void run(ct_store *store, ct_ticket *ticket, random_lookup *random, ct_lookup_mode mode, float *out) {
    random->lookup.mode = mode;
    assert_ok(ct_store_prefetch(store, ticket, &random->lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    ct_store_gather(store, ticket, 0, random->lookup.rows, false, out, random->stride);
    const float labels[ROWS] = {1};
    uint32_t impressions[ROWS], clicks[ROWS];
    ct_store_gather_counts(store, ticket, 0, ROWS, 0, impressions, clicks);
    if (mode == CT_LOOKUP_TRAIN) assert_ok(ct_store_apply(store, ticket, random->gradients, random->stride, labels, &status));
    ct_store_release(store, ticket);
}

static void test_warm(void **unused) {
    (void)unused;
    enum { BATCHES = 6 };
    const ct_table_spec spec = {.name = "ids",
                                .dim = 16,
                                .learning_rate = 0.1f,
                                .initial_accumulator = 0.1f,
                                .first_value_scale = 0.1f,
                                .min_count = 2,
                                .target_stats = true};
    ct_pool *pool;
    ct_store *store;
    ct_ticket *training, *reading;
    assert_ok(ct_pool_create(2, &pool, &status));
    assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), pool, &store, &status));
    assert_ok(ct_ticket_create(store, &training, &status));
    assert_ok(ct_ticket_create(store, &reading, &status));
    random_lookup random[BATCHES];
    size_t floats = 0;
    for (uint64_t i = 0; i < BATCHES; i++) {
        const random_lookup_options options = {
            .rows = ROWS, .block_rows = 128, .columns = 6, .keys = 3000, .rare = true, .dim = 16, .drop_rate = 0.1, .seed = 2};
        random_lookup_init(&random[i], &options, i);
        if (random[i].stride * options.rows > floats) floats = random[i].stride * options.rows;
    }
    float *out = malloc(floats * sizeof *out);
    int64_t cold = allocations, warm = 0;
    for (int round = 0; round < 5; round++) {
        if (round == 3) warm = allocations; /* by now every key has its row: min_count is 2 */
        for (size_t i = 0; i < BATCHES; i++) {
            run(store, training, &random[i], CT_LOOKUP_TRAIN, out);
            run(store, reading, &random[i], CT_LOOKUP_READ, out);
        }
    }
    const int64_t end = allocations;
    assert_true(warm > cold); /* they are counted */
    assert_int_equal(end - warm, 0);
    for (size_t i = 0; i < BATCHES; i++) random_lookup_deinit(&random[i]);
    free(out);
    ct_ticket_destroy(training);
    ct_ticket_destroy(reading);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_warm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
