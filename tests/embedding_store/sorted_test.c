/* A table that was opened for reading: every key is found, with its own values, no other one is, whatever the keys look like; and what it
 * takes of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "embedding_store/store_internal.h"
#include "tests/embedding_store/fixture.h"

typedef uint64_t (*key_fn)(size_t number);

static uint64_t uniform(size_t number) { return ct_random_u64(0, CT_PLACE_TEST, 0, number, 0); }
static uint64_t small(size_t number) { return number; } /* all of one partition, and of one bucket of it */
static uint64_t dense(size_t number) { return (number % 2 ? UINT64_C(0x7fffffffffff0000) : UINT64_MAX - 4000) + number / 2; }
static uint64_t mixed(size_t number) { return number % 3 ? uniform(number) : number % 2 ? small(number) : dense(number); }

/* What the row of key `number` begins with. */
static float value_of(size_t number, uint32_t dim) { return (float)(number * dim % 65521); }

enum { PART_ROWS = 4096 };

static void write_frozen(const char *folder, uint32_t partition_bits, key_fn key, size_t rows, uint32_t dim) {
    const ct_table_spec spec = {.name = "rows", .kind = CT_TABLE_FROZEN, .dim = dim};
    ct_store *store;
    float *values = calloc((size_t)PART_ROWS * dim, sizeof *values);
    uint64_t keys[PART_ROWS];
    assert_ok(ct_store_create_parted(&spec, 1, CT_STORE_TRAIN, partition_bits, ct_device_cpu(), NULL, &store, &status));
    for (size_t first = 0; first < rows; first += PART_ROWS) {
        const size_t count = rows - first < PART_ROWS ? rows - first : PART_ROWS;
        for (size_t i = 0; i < count; i++) {
            keys[i] = key(first + i);
            for (uint32_t j = 0; j < dim; j++) values[i * dim + j] = value_of(first + i, dim) + (float)j;
        }
        assert_ok(ct_store_fill(store, 0, keys, values, count, &status));
    }
    assert_ok(ct_store_snapshot(store, folder, &status));
    ct_store_destroy(store);
    free(values);
}

/* Asks for all of keys[0 .. count) at once. */
static void look(ct_store *store, const uint64_t *keys, size_t count, float *out, uint32_t dim) {
    ct_ticket *ticket;
    const ct_key_column column = {.keys = keys};
    const ct_lookup lookup = {.mode = CT_LOOKUP_READ, .rows = count, .columns = &column, .column_count = 1};
    assert_ok(ct_ticket_create(store, &ticket, &status));
    assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    ct_store_gather(store, ticket, 0, count, false, out, dim);
    ct_store_release(store, ticket);
    ct_ticket_destroy(ticket);
}

static void check(key_fn key, size_t rows, uint32_t dim, uint64_t memory_bytes) {
    const char *folder = path_of("rows");
    write_frozen(folder, 3, key, rows, dim);
    ct_store *store;
    const ct_store_limit limit = {.memory_bytes = memory_bytes};
    assert_ok(ct_store_open_within(folder, CT_STORE_READ, &limit, ct_device_cpu(), NULL, &store, &status));
    ct_table_info info;
    ct_store_table_info(store, 0, &info);
    assert_int_equal(info.rows, rows);
    assert_int_equal(info.stubs, 0);
    uint64_t *keys = calloc(2 * rows + 4, sizeof *keys);
    float *out = malloc((2 * rows + 4) * dim * sizeof *out);
    for (size_t i = 0; i < rows; i++) {
        keys[i] = key(i);
        keys[rows + i] = uniform(i + (1 << 20)); /* of no row */
    }
    keys[2 * rows + 1] = UINT64_MAX - 1; /* others of no row: beside those that are there, and at the ends */
    keys[2 * rows + 2] = UINT64_C(0x7ffffffffffeffff);
    keys[2 * rows + 3] = UINT64_C(0x8000000000000000);
    look(store, keys, 2 * rows + 4, out, dim);
    for (size_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < dim; j++)
            if (out[i * dim + j] != value_of(i, dim) + (float)j)
                fail_msg("row %zu, value %u: %g instead of %g", i, j, (double)out[i * dim + j], (double)value_of(i, dim) + j);
    for (size_t i = rows; i < 2 * rows; i++) assert_true(out[i * dim] == 0.0f);
    for (size_t i = 2 * rows + 1; i < 2 * rows + 4; i++) assert_true(out[i * dim] == 0.0f);
    ct_store_table_info(store, 0, &info);
    assert_int_equal(info.unknown, rows + 3 + (key(0) != 0)); /* keys[2 * rows] is 0 */
    ct_store_destroy(store);
    free(keys);
    free(out);
    assert_ok(ct_folder_remove(folder, &status));
}

static void test_keys(void **unused) {
    (void)unused;
    static const key_fn keys[] = {uniform, small, dense, mixed};
    static const size_t rows[] = {1, 2, 33, 3001};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) check(keys[k], rows[r], 3, 0);
}

/* Under a limit, where some rows are in memory. */
static void test_within(void **unused) {
    (void)unused;
    check(uniform, 20000, 64, (8 << 20) + (2 << 20));
    check(mixed, 3001, 64, (8 << 20) + (256 << 10));
}

static void test_empty(void **unused) {
    (void)unused;
    const char *folder = path_of("rows");
    write_frozen(folder, 5, uniform, 0, 4);
    ct_store *store;
    float out[4] = {1, 1, 1, 1};
    assert_ok(ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &store, &status));
    look(store, (const uint64_t[]){7}, 1, out, 4);
    assert_true(out[0] == 0.0f);
    ct_store_destroy(store);
    assert_ok(ct_folder_remove(folder, &status));
}

/* A row's values, and what there is beside them. */
static void test_memory(void **unused) {
    (void)unused;
    enum { ROWS = 200000 };
    static const struct {
        uint32_t dim;
        double most; /* times the values */
    } cases[] = {{16, 1.15}, {4, 1.6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *folder = path_of("rows");
        write_frozen(folder, 5, uniform, ROWS, cases[i].dim);
        ct_store *store;
        assert_ok(ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &store, &status));
        ct_table_info info;
        ct_store_table_info(store, 0, &info);
        const double times = (double)info.bytes / ((double)ROWS * cases[i].dim * sizeof(float));
        if (times < 1.0 || times > cases[i].most) fail_msg("dim %u: %.3f times the values", cases[i].dim, times);
        ct_store_destroy(store);
        assert_ok(ct_folder_remove(folder, &status));
    }
}

int main(void) {
    root_create("sorted_test");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys), cmocka_unit_test(test_within), cmocka_unit_test(test_empty),
                                       cmocka_unit_test(test_memory)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    assert_ok(ct_folder_remove(root, &status));
    return failed;
}
