#include "experiment/bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "experiment/distributions.h"

enum { LANES = CT_TALLY_LANES };

/* --- draws --- */

static size_t pick_of(uint64_t seed, uint32_t epoch, uint64_t draw, size_t pick, size_t count) {
    return (size_t)((uint64_t)ct_random(seed, CT_PLACE_BOOTSTRAP, epoch, draw, (uint32_t)pick).word[0] * count >> 32);
}

void ct_bootstrap_weights(uint64_t seed, uint64_t draw, uint32_t *out_weights, size_t cluster_count) {
    memset(out_weights, 0, cluster_count * sizeof *out_weights);
    for (size_t pick = 0; pick < cluster_count; pick++) out_weights[pick_of(seed, 0, draw, pick, cluster_count)]++;
}

typedef struct values_job {
    ct_tally *const *tallies;
    size_t count, cluster_count;
    uint64_t seed;
    uint32_t draws;
    double *weights;  /* (threads, cluster_count, LANES) */
    uint32_t *counts; /* (threads, cluster_count) */
    double *values;   /* (count, metrics, draws) */
} values_job;

/* LANES draws of all tallies. */
static void values_task(void *context, size_t task, size_t worker) {
    const values_job *job = context;
    const size_t clusters = job->cluster_count, first = task * LANES, left = job->draws - first, lanes = left < LANES ? left : LANES;
    double *weights = job->weights + worker * clusters * LANES;
    uint32_t *counts = job->counts + worker * clusters;
    for (size_t l = 0; l < LANES; l++) {
        ct_bootstrap_weights(job->seed, first + l, counts, clusters);
        for (size_t k = 0; k < clusters; k++) weights[k * LANES + l] = (double)counts[k];
    }
    for (size_t i = 0; i < job->count; i++) {
        double out[CT_TALLY_METRICS][LANES];
        ct_tally_values(job->tallies[i], weights, out);
        for (size_t m = 0; m < CT_TALLY_METRICS; m++)
            memcpy(job->values + (i * CT_TALLY_METRICS + m) * job->draws + first, out[m], lanes * sizeof(double));
    }
}

ct_code ct_bootstrap_values(ct_tally *const *tallies, size_t count, uint64_t seed, uint32_t draws, ct_pool *pool, double *out_values,
                            ct_status *status) {
    if (count == 0) return CT_OK;
    const size_t clusters = ct_tally_clusters(tallies[0]);
    for (size_t i = 1; i < count; i++)
        if (ct_tally_clusters(tallies[i]) != clusters)
            return ct_fail(status, CT_INVALID, "bootstrap: %zu and %zu clusters in one comparison", clusters,
                           ct_tally_clusters(tallies[i]));
    ct_code code = CT_OK;
    const size_t scratch = ct_pool_threads(pool) * clusters;
    double *weights = malloc(scratch * LANES * sizeof *weights);
    uint32_t *counts = malloc(scratch * sizeof *counts);
    if (weights == NULL || counts == NULL) {
        code = ct_fail_memory(status, scratch * (LANES * sizeof *weights + sizeof *counts), "the bootstrap's draws");
    } else {
        values_job job = {tallies, count, clusters, seed, draws, weights, counts, out_values};
        ct_pool_run(pool, (draws + LANES - 1) / LANES, values_task, &job);
    }
    free(weights);
    free(counts);
    return code;
}

/* --- intervals --- */

static int by_value(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double percentile(const double *sorted, size_t n, double share) {
    const double place = share * (double)(n - 1);
    const size_t below = (size_t)place;
    if (below + 1 >= n) return sorted[n - 1];
    return sorted[below] + (place - (double)below) * (sorted[below + 1] - sorted[below]);
}

static double variance(const double *x, size_t n) {
    double mean = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? squares / (double)(n - 1) : 0.0;
}

/* Of the mean over seeds: what its deviation has from units, and from seeds. */
typedef struct deviation {
    double all;     /* variance */
    double degrees; /* of freedom */
} deviation;

/* unit_variance: of the draws' means over seeds; single_variance: of one seed's draws, mean over the seeds; seed_variance: of the seeds'
 * whole differences, over their number. See ct_bootstrap_interval. */
static deviation deviation_of(double unit_variance, double single_variance, double seed_variance, size_t seed_count) {
    const double seeds = (double)seed_count;
    if (!(seed_variance > 0.0)) return (deviation){unit_variance, (double)INFINITY};
    const double both = fmax(0.0, (single_variance - unit_variance) / (seeds - 1.0)); /* of seeds with units, over the seeds */
    const double all = unit_variance + fmax(0.0, seed_variance - both);
    return (deviation){all, fmax(1.0, all * all / (seed_variance * seed_variance)) * (seeds - 1.0)};
}

/* Fills all of `interval` but the estimate: differences: (n), those that exist. */
static void interval_of(double *differences, size_t n, deviation deviation, ct_interval *interval) {
    interval->draws = (uint32_t)n;
    interval->low = interval->high = interval->p = (double)NAN;
    interval->degrees = deviation.degrees;
    if (n == 0) return;
    const double drawn = variance(differences, n), all = deviation.all;
    const double stretch = (drawn > 0.0 ? sqrt(all / drawn) : 1.0) * ct_student_two_sided_quantile(0.05, interval->degrees) /
                           ct_student_two_sided_quantile(0.05, (double)INFINITY);
    qsort(differences, n, sizeof *differences, by_value);
    interval->low = interval->estimate + stretch * (percentile(differences, n, 0.025) - interval->estimate);
    interval->high = interval->estimate + stretch * (percentile(differences, n, 0.975) - interval->estimate);
    interval->p = all > 0.0 ? ct_student_two_sided(interval->estimate / sqrt(all), interval->degrees) : interval->estimate != 0 ? 0.0 : 1.0;
}

ct_code ct_bootstrap_interval(const ct_bootstrap_side *a, const ct_bootstrap_side *b, size_t seed_count, uint64_t seed, uint32_t draws,
                              ct_interval *out_interval, ct_status *status) {
    if (seed_count == 0 || draws == 0) return ct_fail(status, CT_INVALID, "bootstrap: needs at least one seed and one draw");
    double *differences = calloc(2 * (size_t)draws + 3 * seed_count, sizeof *differences);
    if (differences == NULL) return ct_fail_memory(status, draws * sizeof *differences, "the bootstrap's draws");
    const double seeds = (double)seed_count, widen = seed_count > 1 ? sqrt(seeds / (seeds - 1.0)) : 0.0;
    double *means = differences + draws, *by_seed = means + draws;     /* means: over all seeds, so that units alone move them */
    double *sums = by_seed + seed_count, *squares = sums + seed_count; /* (seeds): of a seed's draws, less its whole difference */
    size_t kept = 0;
    ct_interval interval = {.estimate = 0.0};
    for (size_t s = 0; s < seed_count; s++) {
        by_seed[s] = b->whole[s] - a->whole[s];
        interval.estimate += by_seed[s] / seeds;
    }
    for (size_t draw = 0; draw < draws; draw++) {
        double all = 0.0, picked = 0.0;
        for (size_t s = 0; s < seed_count; s++) {
            all += b->values[s * b->stride + draw] - a->values[s * a->stride + draw];
            const size_t pick = pick_of(seed, 1, draw, s, seed_count);
            picked += b->values[pick * b->stride + draw] - a->values[pick * a->stride + draw];
        }
        const double difference = all / seeds + (seed_count > 1 ? widen * (picked - all) / seeds : 0.0);
        if (!isfinite(difference)) continue;
        means[kept] = all / seeds;
        differences[kept++] = difference;
        for (size_t s = 0; s < seed_count; s++) {
            const double off = b->values[s * b->stride + draw] - a->values[s * a->stride + draw] - by_seed[s];
            sums[s] += off;
            squares[s] += off * off;
        }
    }
    const double seed_variance = variance(by_seed, seed_count) / seeds, n = (double)kept;
    double single_variance = 0.0;
    for (size_t s = 0; s < seed_count && kept > 1; s++) single_variance += (squares[s] - sums[s] * sums[s] / n) / (n - 1.0) / seeds;
    if (!isfinite(seed_variance)) kept = 0;
    interval_of(differences, kept, deviation_of(variance(means, kept), single_variance, seed_variance, seed_count), &interval);
    free(differences);
    *out_interval = interval;
    return CT_OK;
}

/* --- several pairs --- */

typedef struct ranked_p {
    double p;
    size_t at;
} ranked_p;

static int by_p(const void *left, const void *right) {
    const ranked_p *a = left, *b = right;
    return (a->p > b->p) - (a->p < b->p);
}

ct_code ct_holm(double *p, size_t n, ct_status *status) {
    size_t tests = 0;
    ranked_p *order = malloc((n + 1) * sizeof *order);
    if (order == NULL) return ct_fail_memory(status, n * sizeof *order, "p-values");
    for (size_t i = 0; i < n; i++)
        if (!isnan(p[i])) order[tests++] = (ranked_p){p[i], i};
    qsort(order, tests, sizeof *order, by_p);
    double least = 0.0;
    for (size_t rank = 0; rank < tests; rank++) {
        least = fmax(least, fmin(1.0, (double)(tests - rank) * order[rank].p));
        p[order[rank].at] = least;
    }
    free(order);
    return CT_OK;
}
