#include "serving/histogram.h"

#include <math.h>
#include <stddef.h>

/* Values below 2^7 have a bucket each; above, the bits behind the leading one choose among 128. */
static size_t bucket_of(uint64_t ns) {
    if (ns >= UINT64_C(1) << CT_HISTOGRAM_MAX_BITS) return CT_HISTOGRAM_BUCKETS - 1;
    if (ns < 1u << CT_HISTOGRAM_SUB_BITS) return (size_t)ns;
    const unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - CT_HISTOGRAM_SUB_BITS;
    return ((size_t)shift << CT_HISTOGRAM_SUB_BITS) + (size_t)(ns >> shift);
}

/* The largest value of a bucket. */
static int64_t bucket_end(size_t bucket) {
    if (bucket < 2u << CT_HISTOGRAM_SUB_BITS) return (int64_t)bucket;
    const unsigned shift = (unsigned)(bucket >> CT_HISTOGRAM_SUB_BITS) - 1;
    const uint64_t base = (bucket & ((1u << CT_HISTOGRAM_SUB_BITS) - 1)) + (1u << CT_HISTOGRAM_SUB_BITS);
    return (int64_t)(((base + 1) << shift) - 1);
}

void ct_histogram_add(ct_histogram *histogram, int64_t ns) {
    if (ns < 0) ns = 0;
    histogram->counts[bucket_of((uint64_t)ns)]++;
    histogram->count++;
    histogram->sum_ns += (double)ns;
    if (ns > histogram->max_ns) histogram->max_ns = ns;
}

int64_t ct_histogram_quantile(const ct_histogram *histogram, double share) {
    if (histogram->count == 0) return 0;
    uint64_t wanted = (uint64_t)ceil(share * (double)histogram->count), seen = 0;
    if (wanted < 1) wanted = 1;
    for (size_t b = 0; b < CT_HISTOGRAM_BUCKETS; b++) {
        seen += histogram->counts[b];
        if (seen >= wanted) return bucket_end(b) < histogram->max_ns ? bucket_end(b) : histogram->max_ns;
    }
    return histogram->max_ns;
}

double ct_histogram_mean(const ct_histogram *histogram) { return histogram->count ? histogram->sum_ns / (double)histogram->count : 0; }
