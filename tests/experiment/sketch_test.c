/* The sketch's count against numbers of keys that are known. */
#include "experiment/sketch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "base/hash.h"

static void test_counts(void **state) {
    (void)state;
    static const uint64_t counts[] = {0, 1, 10, 1000, 5000, 12000, 50000, 1000000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        ct_sketch sketch = {{0}};
        for (uint64_t key = 0; key < counts[i]; key++)
            for (int again = 0; again < 2; again++) ct_sketch_add(&sketch, ct_hash64(&key, sizeof key, i));
        const double found = ct_sketch_count(&sketch), n = (double)counts[i];
        printf("%llu keys: %.0f\n", (unsigned long long)counts[i], found);
        assert_true(fabs(found - n) <= 4 * 0.01625 * n + 1e-9); /* four standard errors */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
