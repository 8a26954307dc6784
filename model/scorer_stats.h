/* What scorers have done, for a server's metrics: how their scores are distributed, and where their time went. A scorer counts for itself,
 * so nothing is locked or shared while it works; whoever asks adds the scorers up. */
#ifndef MODEL_SCORER_STATS_H
#define MODEL_SCORER_STATS_H

#include "model/model.h"

/* Upper bounds of the buckets; one more bucket is without bound. */
#define CT_SCORE_BOUNDS \
    { 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9 }
/* Seconds. */
#define CT_RUN_TIME_BOUNDS \
    { 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25 }
enum { CT_SCORE_BUCKETS = 20, CT_RUN_TIME_BUCKETS = 15 };

/* Two parts of ct_scorer_run: from keys and numbers to the network's first input, and the network. */
typedef enum ct_run_stage { CT_RUN_LOOK_UP, CT_RUN_FORWARD, CT_RUN_STAGES } ct_run_stage;

typedef struct ct_scorer_stats {
    uint64_t runs, rows;
    uint64_t scores[CT_SCORE_BUCKETS]; /* rows by the probability of the first output; not cumulative */
    double score_sum;
    uint64_t run_times[CT_RUN_STAGES][CT_RUN_TIME_BUCKETS]; /* runs by the time of a stage; not cumulative */
    uint64_t run_ns[CT_RUN_STAGES];
} ct_scorer_stats;

/* Adds what the scorer has counted so far; from any thread, also while it runs. A run that failed does not count. */
void ct_scorer_stats_add(const ct_scorer *scorer, ct_scorer_stats *into);

#endif
