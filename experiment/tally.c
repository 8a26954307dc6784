/* Every count and every M[i][j] is a whole number of halves, far below 2^53, so sums of them are exact and their order is free. */
#include "experiment/tally.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "experiment/ranking.h"
#include "trainer/metrics.h"

enum { LANES = CT_TALLY_LANES, KEY_SHIFT = 32 };

const char *const ct_tally_names[CT_TALLY_METRICS] = {"auc", "grouped_auc", "log_loss", "normalized_entropy", "calibration", "ndcg", "mrr"};

/* What is summed by cluster. */
typedef enum column { CLICKS, OTHERS, LOSS, PREDICTED, GROUP_ROWS, GROUP_AUC, GROUPS, GROUP_NDCG, GROUP_MRR, COLUMNS } column;

struct ct_tally {
    size_t cluster_count;
    double *won;           /* M: (cluster_count, cluster_count) */
    double *sums[COLUMNS]; /* (cluster_count) each */
    double all_won, all[COLUMNS];
    bool has_groups;
};

/* --- making one --- */

CT_HOT static void add_to(double *sum, const double *x, size_t n) {
    for (size_t i = 0; i < n; i++) sum[i] += x[i];
}

/* Entries: the score's order, then the cluster, then the label in the lowest bit; sorted by score. */
static size_t entry_cluster(uint64_t entry) { return (uint32_t)entry >> 1; }

/* `below`: (cluster_count), zeros: non-clicks of each cluster below the current score. */
static void count_pairs(ct_tally *t, const uint64_t *entries, size_t n, double *below) {
    for (size_t first = 0; first < n;) {
        size_t last = first;
        while (last < n && entries[last] >> KEY_SHIFT == entries[first] >> KEY_SHIFT) last++;
        for (size_t i = first; i < last; i++)
            if (!(entries[i] & 1)) below[entry_cluster(entries[i])] += 0.5;
        for (size_t i = first; i < last; i++)
            if (entries[i] & 1) add_to(t->won + entry_cluster(entries[i]) * t->cluster_count, below, t->cluster_count);
        for (size_t i = first; i < last; i++)
            if (!(entries[i] & 1)) below[entry_cluster(entries[i])] += 0.5;
        first = last;
    }
}

/* `entries`: scratch for the largest group. */
static void rank_groups(ct_tally *t, const ct_tally_input *input, uint64_t *entries) {
    const ct_tally_groups *groups = input->groups;
    double discounts[CT_TALLY_MAX_NDCG];
    for (size_t place = 0; place < input->ndcg_at; place++) discounts[place] = 1.0 / log2((double)place + 2.0);
    for (size_t g = 0; g < groups->count; g++) {
        size_t n = 0;
        uint32_t cluster = 0;
        for (size_t i = groups->offsets[g]; i < groups->offsets[g + 1]; i++) {
            const uint32_t row = groups->rows[i];
            if (input->mask != NULL && !input->mask[row]) continue;
            if (n == 0) cluster = input->clusters[row];
            entries[n++] = ct_ranking_entry(ct_score_key(input->logits[row]), input->labels[row] != 0.0f);
        }
        ct_ranking ranking;
        if (!ct_ranking_of(entries, n, discounts, input->ndcg_at, &ranking)) continue;
        t->sums[GROUP_ROWS][cluster] += (double)n;
        t->sums[GROUP_AUC][cluster] += ranking.auc * (double)n;
        t->sums[GROUPS][cluster] += 1.0;
        t->sums[GROUP_NDCG][cluster] += ranking.ndcg;
        t->sums[GROUP_MRR][cluster] += ranking.mrr;
    }
}

static double plain_sum(const double *x, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

static ct_code check_input(const ct_tally_input *input, size_t *out_rows, ct_status *status) {
    if (input->cluster_count == 0 || input->cluster_count > CT_TALLY_MAX_CLUSTERS)
        return ct_fail(status, CT_INVALID, "bootstrap: %zu clusters; 1 to %d are possible", input->cluster_count, CT_TALLY_MAX_CLUSTERS);
    if (input->ndcg_at > CT_TALLY_MAX_NDCG)
        return ct_fail(status, CT_INVALID, "nDCG at %zu; at most %d is possible", input->ndcg_at, CT_TALLY_MAX_NDCG);
    size_t rows = 0;
    for (size_t i = 0; i < input->n; i++) {
        if (input->mask != NULL && !input->mask[i]) continue;
        if (isnan(input->logits[i])) return ct_fail(status, CT_INVALID, "bootstrap: the logit of row %zu is not a number", i);
        if (input->clusters[i] >= input->cluster_count)
            return ct_fail(status, CT_INVALID, "bootstrap: row %zu is of cluster %u of %zu", i, input->clusters[i], input->cluster_count);
        rows++;
    }
    *out_rows = rows;
    return CT_OK;
}

static ct_tally *allocate(size_t clusters) {
    ct_tally *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->cluster_count = clusters;
    t->won = calloc(clusters * clusters, sizeof *t->won);
    bool all = t->won != NULL;
    for (size_t c = 0; c < COLUMNS; c++) all = (t->sums[c] = calloc(clusters, sizeof(double))) != NULL && all;
    if (all) return t;
    ct_tally_destroy(t);
    return NULL;
}

ct_code ct_tally_create(const ct_tally_input *input, ct_tally **out_tally, ct_status *status) {
    const size_t clusters = input->cluster_count;
    size_t rows = 0;
    CT_TRY(check_input(input, &rows, status));
    ct_code code = CT_OK;
    uint64_t *entries = malloc((2 * rows + 1) * sizeof *entries);
    double *below = calloc(clusters, sizeof *below);
    ct_tally *t = allocate(clusters);
    if (entries == NULL || below == NULL || t == NULL) {
        code = ct_fail_memory(status, clusters * clusters * sizeof(double) + rows * 2 * sizeof *entries, "the bootstrap");
        goto done;
    }
    rows = 0;
    for (size_t i = 0; i < input->n; i++) {
        if (input->mask != NULL && !input->mask[i]) continue;
        const bool click = input->labels[i] != 0.0f;
        const uint32_t cluster = input->clusters[i];
        entries[rows++] = (uint64_t)ct_score_key(input->logits[i]) << KEY_SHIFT | (uint64_t)cluster << 1 | click;
        t->sums[click ? CLICKS : OTHERS][cluster] += 1.0;
        t->sums[LOSS][cluster] += ct_logit_loss(input->logits[i], click);
        t->sums[PREDICTED][cluster] += ct_sigmoid((double)input->logits[i]);
    }
    ct_score_sort(entries, entries + rows, rows);
    count_pairs(t, entries, rows, below);
    t->has_groups = input->groups != NULL;
    if (t->has_groups) rank_groups(t, input, entries);
    t->all_won = plain_sum(t->won, clusters * clusters);
    for (size_t c = 0; c < COLUMNS; c++) t->all[c] = plain_sum(t->sums[c], clusters);
    *out_tally = t;
    t = NULL;
done:
    free(entries);
    free(below);
    ct_tally_destroy(t);
    return code;
}

void ct_tally_destroy(ct_tally *tally) {
    if (tally == NULL) return;
    free(tally->won);
    for (size_t c = 0; c < COLUMNS; c++) free(tally->sums[c]);
    free(tally);
}

/* --- reading it --- */

static double ratio(double above, double below) { return below > 0.0 ? above / below : (double)NAN; }

static double entropy(double rate) {
    return rate > 0.0 && rate < 1.0 ? -rate * ct_log(rate) - (1.0 - rate) * ct_log(1.0 - rate) : (double)NAN;
}

/* From the sums under some weights. */
static double metric_of(ct_tally_metric metric, double won, const double sums[COLUMNS]) {
    const double rows = sums[CLICKS] + sums[OTHERS];
    switch (metric) {
        case CT_TALLY_AUC:
            return ratio(won, sums[CLICKS] * sums[OTHERS]);
        case CT_TALLY_GROUPED_AUC:
            return ratio(sums[GROUP_AUC], sums[GROUP_ROWS]);
        case CT_TALLY_LOG_LOSS:
            return ratio(sums[LOSS], rows);
        case CT_TALLY_NORMALIZED_ENTROPY:
            return ratio(sums[LOSS], rows) / entropy(ratio(sums[CLICKS], rows));
        case CT_TALLY_CALIBRATION:
            return ratio(sums[PREDICTED], sums[CLICKS]);
        case CT_TALLY_NDCG:
            return ratio(sums[GROUP_NDCG], sums[GROUPS]);
        case CT_TALLY_MRR:
            return ratio(sums[GROUP_MRR], sums[GROUPS]);
        case CT_TALLY_METRICS:
            break;
    }
    return (double)NAN;
}

size_t ct_tally_clusters(const ct_tally *tally) { return tally->cluster_count; }
double ct_tally_rows(const ct_tally *tally) { return tally->all[CLICKS] + tally->all[OTHERS]; }
double ct_tally_clicks(const ct_tally *tally) { return tally->all[CLICKS]; }
double ct_tally_groups_ranked(const ct_tally *tally) { return tally->all[GROUPS]; }
double ct_tally_value(const ct_tally *tally, ct_tally_metric metric) { return metric_of(metric, tally->all_won, tally->all); }

/* out[l] += scale[l] * sum over j of x[j] * weights[j][l] */
CT_HOT static void add_products(const double *x, const double *weights, size_t n, const double *scale, double *out) {
    double sum[LANES] = {0.0};
    for (size_t j = 0; j < n; j++)
        for (size_t l = 0; l < LANES; l++) sum[l] += x[j] * weights[j * LANES + l];
    for (size_t l = 0; l < LANES; l++) out[l] += scale[l] * sum[l];
}

/* As above for losses: an infinite one times weight 0 is 0. */
static void add_finite_products(const double *x, const double *weights, size_t n, double *out) {
    for (size_t j = 0; j < n; j++)
        for (size_t l = 0; l < LANES; l++)
            if (weights[j * LANES + l] > 0.0) out[l] += x[j] * weights[j * LANES + l];
}

void ct_tally_values(const ct_tally *t, const double *weights, double out[CT_TALLY_METRICS][LANES]) {
    static const double ones[LANES] = {1, 1, 1, 1, 1, 1, 1, 1};
    const size_t n = t->cluster_count;
    double won[LANES] = {0.0}, sums[COLUMNS][LANES] = {{0.0}};
    for (size_t i = 0; i < n; i++)
        if (t->sums[CLICKS][i] > 0.0) add_products(t->won + i * n, weights, n, weights + i * LANES, won);
    for (size_t c = 0; c < COLUMNS; c++) {
        if (c == LOSS)
            add_finite_products(t->sums[c], weights, n, sums[c]);
        else if (c < GROUP_ROWS || t->has_groups)
            add_products(t->sums[c], weights, n, ones, sums[c]);
    }
    for (size_t l = 0; l < LANES; l++) {
        double one[COLUMNS];
        for (size_t c = 0; c < COLUMNS; c++) one[c] = sums[c][l];
        for (size_t m = 0; m < CT_TALLY_METRICS; m++) out[m][l] = metric_of((ct_tally_metric)m, won[l], one);
    }
}
