#include "experiment/ranking.h"

#include <stdlib.h>

#define SCORE(entry) ((entry) >> 32)

static int by_score_down(const void *left, const void *right) {
    const uint64_t a = SCORE(*(const uint64_t *)left), b = SCORE(*(const uint64_t *)right);
    return (a < b) - (a > b);
}

/* Mean of 1 / (before + J), J the place of the first of `clicks` among `tied` in random order: P(J = j) = C(tied - j, clicks - 1) / C(tied,
 * clicks). */
static double first_place(size_t before, size_t tied, size_t clicks) {
    double p = (double)clicks / (double)tied, sum = 0.0;
    for (size_t j = 1; j <= tied - clicks + 1; j++) {
        sum += p / (double)(before + j);
        if (j < tied) p *= (double)(tied - j - (clicks - 1)) / (double)(tied - j);
    }
    return sum;
}

bool ct_ranking_of(uint64_t *entries, size_t n, const double *discounts, size_t k, ct_ranking *out_ranking) {
    size_t clicks = 0;
    for (size_t i = 0; i < n; i++) clicks += entries[i] & 1;
    if (clicks == 0 || clicks == n) return false;
    qsort(entries, n, sizeof *entries, by_score_down);
    double won = 0.0, gain = 0.0, best = 0.0, mrr = 0.0;
    size_t above = 0; /* clicks above the current score */
    for (size_t first = 0; first < n;) {
        size_t last = first, here = 0;
        for (; last < n && SCORE(entries[last]) == SCORE(entries[first]); last++) here += entries[last] & 1;
        const size_t tied = last - first;
        won += (double)(tied - here) * ((double)above + 0.5 * (double)here);
        if (above == 0 && here > 0) mrr = first_place(first, tied, here);
        for (size_t place = first; here > 0 && place < last && place < k; place++) gain += discounts[place] * (double)here / (double)tied;
        above += here;
        first = last;
    }
    for (size_t place = 0; place < clicks && place < k; place++) best += discounts[place];
    *out_ranking = (ct_ranking){won / ((double)clicks * (double)(n - clicks)), gain / best, mrr};
    return true;
}
