/* What a model that follows deltas (tools/cli/followed.h) tells: for /metrics. */
#ifndef SERVING_FOLLOW_H
#define SERVING_FOLLOW_H

#include <stdint.h>
#include <stdio.h>

/* Upper bounds of the freshness histogram's buckets, in seconds; one more bucket is without bound. */
#define CT_FOLLOW_BOUNDS \
    { 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600 }
enum { CT_FOLLOW_BUCKETS = 14, CT_FOLLOW_NAME_BYTES = 256 };

typedef struct ct_follow_stats {
    uint64_t applied, refused, not_yet; /* deltas, and bases that were refused or not complete */
    uint64_t bases;                     /* that took over */
    uint64_t records, bytes;            /* of the deltas applied */
    uint64_t stage_ns[3];               /* of them: reading beside the model; the swap; putting the rows in place */
    int64_t sequence;                   /* of the model now; -1 = unknown */
    int64_t newest_row_unix_ms;         /* that the model has learned from; 0 = no delta yet */
    /* of the last delta, from when its oldest and its newest row was read to when requests were answered with it */
    double oldest_seconds, newest_seconds;
    uint64_t freshness[CT_FOLLOW_BUCKETS]; /* of the deltas' oldest rows; not cumulative */
    double freshness_sum;
} ct_follow_stats;
void ct_follow_stats_observe(ct_follow_stats *stats, double oldest_seconds);

/* Kept by a server: copies by model's name, newest first. */
typedef struct ct_follow_list ct_follow_list;
struct ct_follow_list {
    ct_follow_list *next;
    char name[CT_FOLLOW_NAME_BYTES];
    ct_follow_stats stats;
};

#endif
