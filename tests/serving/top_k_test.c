/* The best k of some logits beside a stable sort of all of them. */
#include "serving/top_k.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
/* after them */
#include <cmocka.h>

#include "base/random.h"

static int best_first(const void *a, const void *b) {
    const ct_ranked *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->candidate > y->candidate ? 1 : -1;
}

enum { MOST = 700, OUTPUTS = 3 };

/* kind: 0 = any values, 1 = few different ones, 2 = rising, 3 = falling, 4 = all equal, 5 = zeros of both signs */
static float value_of(int kind, size_t i) {
    const uint64_t draw = ct_random_u64(3, CT_PLACE_TEST, (uint32_t)kind, i, 0);
    switch (kind) {
        case 0:
            return (float)(int64_t)draw * 1e-18f;
        case 1:
            return (float)(draw % 5);
        case 2:
            return (float)i;
        case 3:
            return -(float)i;
        case 4:
            return 0.5f;
        default:
            return draw % 2 ? 0.0f : -0.0f;
    }
}

static void test_top_k(void **state) {
    (void)state;
    static const size_t counts[] = {1, 2, 3, 7, 8, 64, 257, MOST};
    float *logits = calloc(MOST * OUTPUTS, sizeof *logits);
    ct_ranked *all = calloc(MOST, sizeof *all), *got = calloc(MOST + 1, sizeof *got);
    for (int kind = 0; kind < 6; kind++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            const size_t count = counts[c];
            for (size_t i = 0; i < count; i++) {
                all[i] = (ct_ranked){value_of(kind, i), (uint32_t)i};
                for (size_t o = 0; o < OUTPUTS; o++) logits[i * OUTPUTS + o] = o == 0 ? all[i].logit : (float)(i * o);
            }
            qsort(all, count, sizeof *all, best_first);
            for (size_t k = 0; k <= count; k += 1 + k / 9) {
                got[k] = (ct_ranked){-7, 77}; /* behind the end */
                ct_top_k(logits, OUTPUTS, count, k, got);
                for (size_t i = 0; i < k; i++)
                    if (got[i].candidate != all[i].candidate || got[i].logit != all[i].logit)
                        fail_msg("kind %d, %zu of %zu: at %zu is %u (%g), not %u (%g)", kind, k, count, i, got[i].candidate,
                                 (double)got[i].logit, all[i].candidate, (double)all[i].logit);
                assert_int_equal(got[k].candidate, 77);
            }
        }
    free(logits);
    free(all);
    free(got);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_top_k)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
