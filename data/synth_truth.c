/* What the best possible model reaches: log loss and AUC of the true probabilities.
 *
 * A row is kept as 32 bits: its probability as a float (below 1, so that 30 bits are enough and their order is the numbers' order) and
 * its label in the lowest bit. Sorting these words puts rows in the order of their probability; equal probabilities count half. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "data/synth_internal.h"

struct ct_synth_score {
    int64_t rows, tail_begin, added;
    int64_t clicks, tail_clicks;
    double loss, tail_loss;
    uint32_t *packed; /* (rows) */
};

ct_code ct_synth_score_create(int64_t rows, ct_synth_score **out_score, ct_status *status) {
    ct_synth_score *score = calloc(1, sizeof(*score));
    if (score == NULL) return ct_fail_memory(status, sizeof(*score), "the log's truth");
    score->rows = rows;
    score->tail_begin = rows - rows / 5;
    score->packed = malloc((size_t)rows * sizeof(uint32_t));
    if (score->packed == NULL) {
        free(score);
        return ct_fail_memory(status, (size_t)rows * sizeof(uint32_t), "the log's truth");
    }
    *out_score = score;
    return CT_OK;
}

void ct_synth_score_destroy(ct_synth_score *score) {
    if (score == NULL) return;
    free(score->packed);
    free(score);
}

void ct_synth_score_add(ct_synth_score *score, double logit, double probability, bool click) {
    const double loss = ct_softplus(click ? -logit : logit);
    score->loss += loss;
    score->clicks += click;
    if (score->added >= score->tail_begin) {
        score->tail_loss += loss;
        score->tail_clicks += click;
    }
    float narrow = (float)probability;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof(bits));
    score->packed[score->added++] = bits << 1 | (uint32_t)click;
}

/* Least significant digit first, 11 bits at a time; `spare` has room for `count` words. The result is in `words`. */
static void sort_words(uint32_t *words, uint32_t *spare, size_t count) {
    enum { BITS = 11, BUCKETS = 1 << BITS };
    uint32_t *from = words, *to = spare;
    for (unsigned shift = 0; shift < 32; shift += BITS) {
        size_t begin[BUCKETS + 1] = {0};
        for (size_t i = 0; i < count; i++) begin[(from[i] >> shift & (BUCKETS - 1)) + 1]++;
        for (size_t b = 0; b < BUCKETS; b++) begin[b + 1] += begin[b];
        for (size_t i = 0; i < count; i++) to[begin[from[i] >> shift & (BUCKETS - 1)]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != words) memcpy(words, from, count * sizeof(*words));
}

/* Share of (click, no click) pairs in the right order, ties half; NaN without one of the two. Twice the wins fit 64 bits up to 2^31 rows
 * of each. */
static double auc(const uint32_t *sorted, size_t count) {
    uint64_t below = 0, clicks = 0, twice_wins = 0;
    for (size_t i = 0; i < count;) {
        const uint32_t probability = sorted[i] >> 1;
        uint64_t here[2] = {0, 0};
        for (; i < count && sorted[i] >> 1 == probability; i++) here[sorted[i] & 1]++;
        twice_wins += here[1] * (2 * below + here[0]);
        below += here[0];
        clicks += here[1];
    }
    if (below == 0 || clicks == 0) return NAN;
    return (double)twice_wins / (2.0 * (double)below * (double)clicks);
}

/* Log loss of the constant `rate` on rows of which the share `clicked` are clicks; 0 log 0 is 0. */
static double constant_loss(double rate, double clicked) {
    double loss = 0.0;
    if (clicked > 0.0) loss -= clicked * ct_log(rate);
    if (clicked < 1.0) loss -= (1.0 - clicked) * ct_log(1.0 - rate);
    return loss;
}

ct_code ct_synth_score_finish(ct_synth_score *score, ct_synth_truth *out_truth, ct_status *status) {
    const size_t rows = (size_t)score->rows, tail_begin = (size_t)score->tail_begin, tail_rows = rows - tail_begin;
    uint32_t *spare = malloc(rows * sizeof(*spare));
    if (spare == NULL) return ct_fail_memory(status, rows * sizeof(*spare), "sorting the log's truth");

    const double rate = (double)score->clicks / (double)rows;
    ct_synth_truth truth = {.rows = score->rows,
                            .clicks = score->clicks,
                            .best_log_loss = score->loss / (double)rows,
                            .constant_log_loss = constant_loss(rate, rate),
                            .tail_best_auc = NAN,
                            .tail_best_log_loss = NAN,
                            .tail_constant_log_loss = NAN};
    if (tail_rows > 0) {
        const double head_rate = (double)(score->clicks - score->tail_clicks) / (double)tail_begin;
        sort_words(score->packed + tail_begin, spare, tail_rows);
        truth.tail_best_auc = auc(score->packed + tail_begin, tail_rows);
        truth.tail_best_log_loss = score->tail_loss / (double)tail_rows;
        truth.tail_constant_log_loss = constant_loss(head_rate, (double)score->tail_clicks / (double)tail_rows);
    }
    sort_words(score->packed, spare, rows);
    truth.best_auc = auc(score->packed, rows);
    free(spare);
    *out_truth = truth;
    return CT_OK;
}
