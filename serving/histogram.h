/* A histogram of durations with a bounded relative error (log-linear buckets, as HdrHistogram has them): 128 buckets for each power of two
 * of nanoseconds, so a value is known to within 0.8 %, from 1 ns to 2^42 ns (73 minutes; longer ones count as that). */
#ifndef SERVING_HISTOGRAM_H
#define SERVING_HISTOGRAM_H

#include <stdint.h>

enum {
    CT_HISTOGRAM_SUB_BITS = 7,
    CT_HISTOGRAM_MAX_BITS = 42,
    CT_HISTOGRAM_BUCKETS = (CT_HISTOGRAM_MAX_BITS - CT_HISTOGRAM_SUB_BITS + 1) << CT_HISTOGRAM_SUB_BITS
};

typedef struct ct_histogram { /* zeroed = empty */
    uint64_t counts[CT_HISTOGRAM_BUCKETS];
    uint64_t count;
    int64_t max_ns;
    double sum_ns;
} ct_histogram;

void ct_histogram_add(ct_histogram *histogram, int64_t ns); /* below 0 counts as 0 */
/* The smallest bound that at least `share` (0..1) of the values do not exceed; 0 where it is empty. Exact for share 1. */
int64_t ct_histogram_quantile(const ct_histogram *histogram, double share);
double ct_histogram_mean(const ct_histogram *histogram); /* ns; 0 where it is empty */

#endif
