/* One thread writes, others read: relaxed loads and stores are enough, and cost what plain ones do. */
#include "model/scorer_stats.h"

#include "base/math.h"
#include "model/model_internal.h"

enum { SCORE_BOUNDS = CT_SCORE_BUCKETS - 1, TIME_BOUNDS = CT_RUN_TIME_BUCKETS - 1 };

void scorer_counts_init(scorer_counts *counts) {
    static const double bounds[SCORE_BOUNDS] = CT_SCORE_BOUNDS;
    for (size_t b = 0; b < SCORE_BOUNDS; b++) counts->logit_bounds[b] = (float)ct_log(bounds[b] / (1 - bounds[b]));
}

static void add(_Atomic uint64_t *counter, uint64_t more) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter) { return atomic_load_explicit(counter, memory_order_relaxed); }

void scorer_counts_scores(scorer_counts *counts, const float *logits, size_t rows, size_t outputs) {
    float probabilities[CT_TOWER_MAX_ROWS] = {0};
    uint64_t buckets[CT_SCORE_BUCKETS] = {0};
    double sum = 0;
    for (size_t r = 0; r < rows; r++) {
        const float logit = logits[r * outputs];
        unsigned bucket = 0;
        for (size_t b = 0; b < SCORE_BOUNDS; b++) bucket += logit > counts->logit_bounds[b];
        buckets[bucket]++;
        probabilities[r] = logit;
    }
    ct_probabilities(probabilities, probabilities, rows);
    for (size_t r = 0; r < rows; r++) sum += (double)probabilities[r];
    for (size_t b = 0; b < CT_SCORE_BUCKETS; b++)
        if (buckets[b]) add(&counts->scores[b], buckets[b]);
    add(&counts->rows, rows);
    const double before = atomic_load_explicit(&counts->score_sum, memory_order_relaxed);
    atomic_store_explicit(&counts->score_sum, before + sum, memory_order_relaxed);
}

void scorer_counts_run(scorer_counts *counts, const int64_t ns[CT_RUN_STAGES]) {
    static const double bounds[TIME_BOUNDS] = CT_RUN_TIME_BOUNDS;
    add(&counts->runs, 1);
    for (size_t stage = 0; stage < CT_RUN_STAGES; stage++) {
        const double seconds = (double)ns[stage] * 1e-9;
        size_t bucket = 0;
        while (bucket < TIME_BOUNDS && seconds > bounds[bucket]) bucket++;
        add(&counts->run_times[stage][bucket], 1);
        add(&counts->run_ns[stage], (uint64_t)ns[stage]);
    }
}

void scorer_counts_read(const scorer_counts *counts, ct_scorer_stats *into) {
    into->runs += get(&counts->runs);
    into->rows += get(&counts->rows);
    for (size_t b = 0; b < CT_SCORE_BUCKETS; b++) into->scores[b] += get(&counts->scores[b]);
    into->score_sum += atomic_load_explicit(&counts->score_sum, memory_order_relaxed);
    for (size_t stage = 0; stage < CT_RUN_STAGES; stage++) {
        for (size_t b = 0; b < CT_RUN_TIME_BUCKETS; b++) into->run_times[stage][b] += get(&counts->run_times[stage][b]);
        into->run_ns[stage] += get(&counts->run_ns[stage]);
    }
}
