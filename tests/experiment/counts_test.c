#include "experiment/counts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"

/* Keys that stand close, far apart, and at the ends; each counted as often as a plain array says. */
static void test_against_an_array(void **state) {
    (void)state;
    enum { KEYS = 20000 };
    ct_status status = CT_STATUS_INIT;
    ct_counts *counts = NULL;
    static uint64_t expected[KEYS];
    assert_int_equal(ct_counts_create(&counts, &status), CT_OK);
    assert_int_equal(ct_counts_get(counts, 0), 0);
    for (size_t i = 0; i < 5 * KEYS; i++) {
        const double unit = ct_random_unit(1, CT_PLACE_TEST, 0, i, 0);
        const size_t key = (size_t)(unit * unit * KEYS);
        const uint64_t amount = i % 3 + 1;
        expected[key] += amount;
        assert_int_equal(ct_counts_add(counts, key % 2 ? key << 40 : key, amount, &status), CT_OK);
    }
    size_t used = 0;
    for (size_t key = 0; key < KEYS; key++) {
        used += expected[key] > 0;
        assert_int_equal(ct_counts_get(counts, key % 2 ? key << 40 : key), expected[key]);
    }
    assert_int_equal(ct_counts_size(counts), used);
    assert_int_equal(ct_counts_get(counts, UINT64_MAX), 0);
    assert_int_equal(ct_counts_add(counts, UINT64_MAX, 7, &status), CT_OK);
    assert_int_equal(ct_counts_get(counts, UINT64_MAX), 7);
    ct_counts_destroy(counts);
    ct_counts_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_an_array)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
