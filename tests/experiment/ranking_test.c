/* Rankings by hand, and ties against the mean over every order of the tied rows. */
#include "experiment/ranking.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"

enum { MOST = 7 };

static double discounts[10];

static void assert_close(double actual, double expected) {
    if (!(fabs(actual - expected) <= 1e-12)) {
        printf("got %.17g, expected %.17g\n", actual, expected);
        fail();
    }
}

static bool rank(const uint32_t *scores, const bool *clicks, size_t n, size_t k, ct_ranking *out) {
    uint64_t entries[16];
    for (size_t i = 0; i < n; i++) entries[i] = ct_ranking_entry(scores[i], clicks[i]);
    return ct_ranking_of(entries, n, discounts, k, out);
}

static void test_by_hand(void **state) {
    (void)state;
    ct_ranking r;
    /* clicks at the places 2 and 4 of 5 */
    assert_true(rank((const uint32_t[]){50, 40, 30, 20, 10}, (const bool[]){0, 1, 0, 1, 0}, 5, 10, &r));
    assert_close(r.auc, 3.0 / 6.0);
    assert_close(r.mrr, 0.5);
    assert_close(r.ndcg, (1.0 / log2(3.0) + 1.0 / log2(5.0)) / (1.0 + 1.0 / log2(3.0)));
    /* at 2 the second click is out of sight, also in the best order's place 3 */
    assert_true(rank((const uint32_t[]){50, 40, 30, 20, 10}, (const bool[]){0, 1, 0, 1, 1}, 5, 2, &r));
    assert_close(r.ndcg, (1.0 / log2(3.0)) / (1.0 + 1.0 / log2(3.0)));
    /* perfect, worst */
    assert_true(rank((const uint32_t[]){1, 9, 3}, (const bool[]){0, 1, 0}, 3, 10, &r));
    assert_true(r.auc == 1.0 && r.ndcg == 1.0 && r.mrr == 1.0);
    assert_true(rank((const uint32_t[]){7, 9, 3}, (const bool[]){0, 0, 1}, 3, 10, &r));
    assert_close(r.auc, 0.0);
    assert_close(r.mrr, 1.0 / 3.0);
    /* nothing to rank */
    assert_false(rank((const uint32_t[]){7, 9}, (const bool[]){0, 0}, 2, 10, &r));
    assert_false(rank((const uint32_t[]){7, 9}, (const bool[]){1, 1}, 2, 10, &r));
    assert_false(rank(NULL, NULL, 0, 10, &r));
}

/* Sums the metrics over all orders of rows [at, n) that keep the scores falling. */
static void over_orders(uint32_t *scores, bool *clicks, size_t at, size_t n, size_t k, ct_ranking *sum, double *orders) {
    if (at == n) {
        uint32_t falling[MOST];
        ct_ranking r;
        for (size_t i = 0; i < n; i++) falling[i] = (uint32_t)(n - i);
        assert_true(rank(falling, clicks, n, k, &r));
        sum->auc += r.auc, sum->ndcg += r.ndcg, sum->mrr += r.mrr;
        *orders += 1.0;
        return;
    }
    for (size_t i = at; i < n && scores[i] == scores[at]; i++) {
        const bool kept = clicks[i];
        clicks[i] = clicks[at], clicks[at] = kept;
        over_orders(scores, clicks, at + 1, n, k, sum, orders);
        clicks[at] = clicks[i], clicks[i] = kept;
    }
}

static void test_ties(void **state) {
    (void)state;
    size_t compared = 0;
    for (uint64_t trial = 0; trial < 300; trial++) {
        uint32_t scores[MOST];
        bool clicks[MOST];
        const ct_random4 r = ct_random(5, CT_PLACE_TEST, 0, trial, 0);
        const size_t n = 2 + r.word[0] % (MOST - 1), k = 1 + r.word[1] % 5;
        scores[0] = 20;
        for (size_t i = 0; i < n; i++) {
            clicks[i] = r.word[2] >> i & 1;
            if (i > 0) scores[i] = scores[i - 1] - (r.word[3] >> i & 1); /* falling, with ties */
        }
        ct_ranking got, sum = {0};
        double orders = 0.0;
        if (!rank(scores, clicks, n, k, &got)) continue;
        over_orders(scores, clicks, 0, n, k, &sum, &orders);
        assert_close(got.auc, sum.auc / orders);
        assert_close(got.ndcg, sum.ndcg / orders);
        assert_close(got.mrr, sum.mrr / orders);
        compared++;
    }
    assert_true(compared > 200);
}

int main(void) {
    for (size_t i = 0; i < 10; i++) discounts[i] = 1.0 / log2((double)i + 2.0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_hand), cmocka_unit_test(test_ties)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
