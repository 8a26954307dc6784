/* Every count and every M[i][j] is a whole number of halves, far below 2^53, so sums of them are exact and their order is free. */
#include "experiment/bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/random.h"
#include "trainer/metrics.h"

enum { LANES = 8, KEY_SHIFT = 32 };

struct ct_concordance {
    size_t cluster_count;
    double *won;                    /* M: (cluster_count, cluster_count) */
    double *clicks, *others, *loss; /* (cluster_count) */
    double all_clicks, all_others, all_won, all_loss;
};

/* --- one concordance --- */

CT_HOT static void add_to(double *sum, const double *x, size_t n) {
    for (size_t i = 0; i < n; i++) sum[i] += x[i];
}

CT_HOT static double weighted_sum(const double *x, const uint32_t *weights, size_t n) {
    double lane[LANES] = {0.0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += x[i + l] * (double)(int32_t)weights[i + l];
    double sum = 0.0;
    for (size_t l = 0; l < LANES; l++) sum += lane[l];
    for (; i < n; i++) sum += x[i] * (double)(int32_t)weights[i];
    return sum;
}

static double plain_sum(const double *x, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

/* Entries: the score's order, then the cluster, then the label in the lowest bit; sorted by score. */
static size_t entry_cluster(uint64_t entry) { return (uint32_t)entry >> 1; }

/* `below`: (cluster_count), zeros: non-clicks of each cluster below the current score. */
static void count_pairs(ct_concordance *c, const uint64_t *entries, size_t n, double *below) {
    for (size_t first = 0; first < n;) {
        size_t last = first;
        while (last < n && entries[last] >> KEY_SHIFT == entries[first] >> KEY_SHIFT) last++;
        for (size_t i = first; i < last; i++)
            if (!(entries[i] & 1)) below[entry_cluster(entries[i])] += 0.5;
        for (size_t i = first; i < last; i++)
            if (entries[i] & 1) add_to(c->won + entry_cluster(entries[i]) * c->cluster_count, below, c->cluster_count);
        for (size_t i = first; i < last; i++)
            if (!(entries[i] & 1)) below[entry_cluster(entries[i])] += 0.5;
        first = last;
    }
}

ct_code ct_concordance_create(const float *logits, const float *labels, const uint32_t *clusters, const bool *mask, size_t n,
                              size_t cluster_count, ct_concordance **out_concordance, ct_status *status) {
    if (cluster_count == 0 || cluster_count > CT_BOOTSTRAP_MAX_CLUSTERS)
        return ct_fail(status, CT_INVALID, "bootstrap: %zu clusters; 1 to %d are possible", cluster_count, CT_BOOTSTRAP_MAX_CLUSTERS);
    size_t rows = 0;
    for (size_t i = 0; i < n; i++) {
        if (mask != NULL && !mask[i]) continue;
        if (isnan(logits[i])) return ct_fail(status, CT_INVALID, "bootstrap: the logit of row %zu is not a number", i);
        if (clusters[i] >= cluster_count)
            return ct_fail(status, CT_INVALID, "bootstrap: row %zu is of cluster %u of %zu", i, clusters[i], cluster_count);
        rows++;
    }
    ct_code code = CT_OK;
    uint64_t *entries = malloc((2 * rows + 1) * sizeof *entries);
    double *below = calloc(cluster_count, sizeof *below);
    ct_concordance *c = calloc(1, sizeof *c);
    if (c != NULL) {
        c->cluster_count = cluster_count;
        c->won = calloc(cluster_count * cluster_count, sizeof *c->won);
        c->clicks = calloc(cluster_count, sizeof *c->clicks);
        c->others = calloc(cluster_count, sizeof *c->others);
        c->loss = calloc(cluster_count, sizeof *c->loss);
    }
    if (!entries || !below || !c || !c->won || !c->clicks || !c->others || !c->loss) {
        code = ct_fail_memory(status, cluster_count * cluster_count * sizeof(double) + rows * 2 * sizeof *entries, "the bootstrap");
        goto fail;
    }
    rows = 0;
    for (size_t i = 0; i < n; i++) {
        if (mask != NULL && !mask[i]) continue;
        const bool click = labels[i] != 0.0f;
        entries[rows++] = (uint64_t)ct_score_key(logits[i]) << KEY_SHIFT | (uint64_t)clusters[i] << 1 | click;
        (click ? c->clicks : c->others)[clusters[i]] += 1.0;
        c->loss[clusters[i]] += ct_logit_loss(logits[i], click);
    }
    ct_score_sort(entries, entries + rows, rows);
    count_pairs(c, entries, rows, below);
    c->all_clicks = plain_sum(c->clicks, cluster_count);
    c->all_others = plain_sum(c->others, cluster_count);
    c->all_won = plain_sum(c->won, cluster_count * cluster_count);
    c->all_loss = plain_sum(c->loss, cluster_count);
    *out_concordance = c;
    c = NULL;
fail:
    free(entries);
    free(below);
    ct_concordance_destroy(c);
    return code;
}

void ct_concordance_destroy(ct_concordance *concordance) {
    if (concordance == NULL) return;
    free(concordance->won);
    free(concordance->clicks);
    free(concordance->others);
    free(concordance->loss);
    free(concordance);
}

static double ratio(double above, double below) { return below > 0.0 ? above / below : NAN; }

double ct_concordance_auc(const ct_concordance *c, const uint32_t *weights) {
    if (weights == NULL) return ratio(c->all_won, c->all_clicks * c->all_others);
    const size_t n = c->cluster_count;
    double won = 0.0;
    for (size_t i = 0; i < n; i++)
        if (weights[i] != 0 && c->clicks[i] > 0.0) won += (double)weights[i] * weighted_sum(c->won + i * n, weights, n);
    return ratio(won, weighted_sum(c->clicks, weights, n) * weighted_sum(c->others, weights, n));
}

double ct_concordance_log_loss(const ct_concordance *c, const uint32_t *weights) {
    if (weights == NULL) return ratio(c->all_loss, c->all_clicks + c->all_others);
    double loss = 0.0; /* not by lanes: an infinite loss times weight 0 would be NaN */
    for (size_t i = 0; i < c->cluster_count; i++)
        if (weights[i] != 0) loss += (double)weights[i] * c->loss[i];
    return ratio(loss, weighted_sum(c->clicks, weights, c->cluster_count) + weighted_sum(c->others, weights, c->cluster_count));
}

double ct_concordance_rows(const ct_concordance *concordance) { return concordance->all_clicks + concordance->all_others; }
double ct_concordance_clicks(const ct_concordance *concordance) { return concordance->all_clicks; }

/* --- draws --- */

static size_t pick_of(uint64_t seed, uint32_t epoch, uint64_t draw, size_t pick, size_t count) {
    return (size_t)((uint64_t)ct_random(seed, CT_PLACE_BOOTSTRAP, epoch, draw, (uint32_t)pick).word[0] * count >> 32);
}

void ct_bootstrap_weights(uint64_t seed, uint64_t draw, uint32_t *out_weights, size_t cluster_count) {
    memset(out_weights, 0, cluster_count * sizeof *out_weights);
    for (size_t pick = 0; pick < cluster_count; pick++) out_weights[pick_of(seed, 0, draw, pick, cluster_count)]++;
}

typedef struct values_job {
    ct_concordance *const *concordances;
    size_t count, cluster_count;
    uint64_t seed;
    uint32_t draws;
    uint32_t *weights; /* (threads, cluster_count) */
    double *auc, *log_loss;
} values_job;

static void values_task(void *context, size_t draw, size_t worker) {
    const values_job *job = context;
    uint32_t *weights = job->weights + worker * job->cluster_count;
    ct_bootstrap_weights(job->seed, draw, weights, job->cluster_count);
    for (size_t i = 0; i < job->count; i++) {
        job->auc[i * job->draws + draw] = ct_concordance_auc(job->concordances[i], weights);
        job->log_loss[i * job->draws + draw] = ct_concordance_log_loss(job->concordances[i], weights);
    }
}

ct_code ct_bootstrap_values(ct_concordance *const *concordances, size_t count, uint64_t seed, uint32_t draws, ct_pool *pool,
                            double *out_auc, double *out_log_loss, ct_status *status) {
    if (count == 0) return CT_OK;
    const size_t cluster_count = concordances[0]->cluster_count;
    for (size_t i = 1; i < count; i++)
        if (concordances[i]->cluster_count != cluster_count)
            return ct_fail(status, CT_INVALID, "bootstrap: %zu and %zu clusters in one comparison", cluster_count,
                           concordances[i]->cluster_count);
    const size_t scratch = ct_pool_threads(pool) * cluster_count;
    uint32_t *weights = malloc(scratch * sizeof *weights);
    if (weights == NULL) return ct_fail_memory(status, scratch * sizeof *weights, "the bootstrap's draws");
    values_job job = {concordances, count, cluster_count, seed, draws, weights, out_auc, out_log_loss};
    ct_pool_run(pool, draws, values_task, &job);
    free(weights);
    return CT_OK;
}

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

ct_code ct_bootstrap_interval(const ct_bootstrap_side *a, const ct_bootstrap_side *b, size_t seed_count, uint64_t seed, uint32_t draws,
                              ct_interval *out_interval, ct_status *status) {
    if (seed_count == 0 || draws == 0) return ct_fail(status, CT_INVALID, "bootstrap: needs at least one seed and one draw");
    double *differences = malloc(draws * sizeof *differences);
    if (differences == NULL) return ct_fail_memory(status, draws * sizeof *differences, "the bootstrap's draws");
    const double seeds = (double)seed_count, widen = seed_count > 1 ? sqrt(seeds / (seeds - 1.0)) : 0.0;
    size_t kept = 0;
    for (size_t draw = 0; draw < draws; draw++) {
        double all = 0.0, picked = 0.0;
        for (size_t s = 0; s < seed_count; s++) {
            all += b->values[s * draws + draw] - a->values[s * draws + draw];
            const size_t pick = pick_of(seed, 1, draw, s, seed_count);
            picked += b->values[pick * draws + draw] - a->values[pick * draws + draw];
        }
        const double difference = all / seeds + (seed_count > 1 ? widen * (picked - all) / seeds : 0.0);
        if (isfinite(difference)) differences[kept++] = difference;
    }
    ct_interval interval = {.estimate = 0.0, .low = NAN, .high = NAN, .draws = (uint32_t)kept};
    for (size_t s = 0; s < seed_count; s++) interval.estimate += (b->whole[s] - a->whole[s]) / seeds;
    if (kept > 0) {
        qsort(differences, kept, sizeof *differences, by_value);
        interval.low = percentile(differences, kept, 0.025);
        interval.high = percentile(differences, kept, 0.975);
    }
    free(differences);
    *out_interval = interval;
    return CT_OK;
}

ct_code ct_bootstrap_difference(ct_concordance *const *a, ct_concordance *const *b, size_t seed_count, ct_bootstrap_metric metric,
                                uint64_t seed, uint32_t draws, ct_pool *pool, ct_interval *out_interval, ct_status *status) {
    ct_code code = CT_OK;
    if (seed_count == 0 || draws == 0) return ct_fail(status, CT_INVALID, "bootstrap: needs at least one seed and one draw");
    const size_t each = seed_count * draws, total = 4 * each + 2 * seed_count;
    ct_concordance **both = malloc(2 * seed_count * sizeof *both);
    double *memory = malloc(total * sizeof *memory);
    if (both == NULL || memory == NULL) {
        code = ct_fail_memory(status, total * sizeof *memory, "the bootstrap's draws");
        goto fail;
    }
    double *auc = memory, *log_loss = memory + 2 * each, *whole = memory + 4 * each;
    memcpy(both, a, seed_count * sizeof *both);
    memcpy(both + seed_count, b, seed_count * sizeof *both);
    CT_TRY_GOTO(code, ct_bootstrap_values(both, 2 * seed_count, seed, draws, pool, auc, log_loss, status), fail);
    for (size_t i = 0; i < 2 * seed_count; i++)
        whole[i] = metric == CT_BOOTSTRAP_AUC ? ct_concordance_auc(both[i], NULL) : ct_concordance_log_loss(both[i], NULL);
    const double *values = metric == CT_BOOTSTRAP_AUC ? auc : log_loss;
    const ct_bootstrap_side side_a = {whole, values}, side_b = {whole + seed_count, values + each};
    code = ct_bootstrap_interval(&side_a, &side_b, seed_count, seed, draws, out_interval, status);
fail:
    free(both);
    free(memory);
    return code;
}
