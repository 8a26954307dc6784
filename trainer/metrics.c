/* A row is kept as one 64-bit entry: the score's order in the upper half, the weight in the lower one, with the label as its sign. A
 * stable radix sort by the upper half gives the AUC in one sweep; sorting on by group, stably, leaves each group's rows together and in
 * the order of their scores, so that the same sweep serves the grouped AUC. */
#include "trainer/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, DIGIT_MASK = DIGITS - 1, KEY_SHIFT = 32 };

double ct_logit_loss(float logit, bool click) { return ct_softplus(click ? -(double)logit : (double)logit); }

/* --- entries --- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

uint32_t ct_score_key(float score) {
    const uint32_t bits = bits_of(score + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static uint64_t entry_of(float score, bool click, float weight) {
    return (uint64_t)ct_score_key(score) << KEY_SHIFT | bits_of(copysignf(weight, click ? -1.0f : 1.0f));
}

static bool entry_click(uint64_t entry) { return entry >> 31 & 1; }

static double entry_weight(uint64_t entry) {
    const uint32_t bits = (uint32_t)entry & 0x7fffffffu;
    float weight;
    memcpy(&weight, &bits, sizeof weight);
    return (double)weight;
}

static ct_code check_row(float logit, float label, float weight, int64_t row, ct_status *status) {
    if (isnan(logit)) return ct_fail(status, CT_INVALID, "metrics: the logit of row %lld is not a number", (long long)row);
    if (label != 0.0f && label != 1.0f)
        return ct_fail(status, CT_INVALID, "metrics: the label of row %lld is %g; it must be 0 or 1", (long long)row, (double)label);
    if (!(weight >= 0.0f) || isinf(weight))
        return ct_fail(status, CT_INVALID, "metrics: the weight of row %lld is %g; it must be finite and not negative", (long long)row,
                       (double)weight);
    return CT_OK;
}

/* --- sorting --- */

/* One stable pass by one digit of `by`, which is `first` or `second`; false, and nothing moved, where all rows have the same digit. */
static bool sort_pass(const uint64_t *by, unsigned shift, const uint64_t *first, const uint64_t *second, uint64_t *out_first,
                      uint64_t *out_second, size_t n) {
    size_t place[DIGITS] = {0};
    for (size_t i = 0; i < n; i++) place[by[i] >> shift & DIGIT_MASK]++;
    if (n == 0 || place[by[0] >> shift & DIGIT_MASK] == n) return false;
    size_t sum = 0;
    for (size_t d = 0; d < DIGITS; d++) {
        const size_t count = place[d];
        place[d] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t to = place[by[i] >> shift & DIGIT_MASK]++;
        out_first[to] = first[i];
        if (second != NULL) out_second[to] = second[i];
    }
    return true;
}

/* Sorts pairs by the bits of one array from `shift` on. second and scratch_second may be NULL. */
static void sort_pairs(uint64_t *first, uint64_t *second, uint64_t *scratch_first, uint64_t *scratch_second, bool by_second, unsigned shift,
                       size_t n) {
    uint64_t *const home_first = first, *const home_second = second;
    for (; shift < 64; shift += DIGIT_BITS) {
        if (!sort_pass(by_second ? second : first, shift, first, second, scratch_first, scratch_second, n)) continue;
        uint64_t *swap = first;
        first = scratch_first, scratch_first = swap;
        swap = second;
        second = scratch_second, scratch_second = swap;
    }
    if (first == home_first) return;
    memcpy(home_first, first, n * sizeof *first);
    if (home_second != NULL) memcpy(home_second, second, n * sizeof *second);
}

void ct_score_sort(uint64_t *entries, uint64_t *scratch, size_t n) { sort_pairs(entries, NULL, scratch, NULL, false, KEY_SHIFT, n); }

/* AUC of entries sorted by score; *out_weight: of all rows. */
static double sweep(const uint64_t *entries, size_t n, double *out_weight) {
    double clicks = 0.0, others = 0.0, won = 0.0;
    for (size_t i = 0; i < n;) {
        const uint64_t key = entries[i] >> KEY_SHIFT;
        double tied_clicks = 0.0, tied_others = 0.0;
        for (; i < n && entries[i] >> KEY_SHIFT == key; i++) {
            if (entry_click(entries[i])) {
                tied_clicks += entry_weight(entries[i]);
            } else {
                tied_others += entry_weight(entries[i]);
            }
        }
        won += tied_clicks * (others + 0.5 * tied_others);
        clicks += tied_clicks;
        others += tied_others;
    }
    if (out_weight != NULL) *out_weight = clicks + others;
    return clicks > 0.0 && others > 0.0 ? won / (clicks * others) : NAN;
}

ct_code ct_auc(const float *scores, const float *labels, const float *weights, size_t n, double *out_auc, ct_status *status) {
    for (size_t i = 0; i < n; i++) CT_TRY(check_row(scores[i], labels[i], weights ? weights[i] : 1.0f, (int64_t)i, status));
    if (n == 0) {
        *out_auc = NAN;
        return CT_OK;
    }
    uint64_t *entries = n > SIZE_MAX / (2 * sizeof *entries) ? NULL : malloc(2 * n * sizeof *entries);
    if (entries == NULL) return ct_fail_memory(status, n, "the order of the scores");
    for (size_t i = 0; i < n; i++) entries[i] = entry_of(scores[i], labels[i] != 0.0f, weights ? weights[i] : 1.0f);
    ct_score_sort(entries, entries + n, n);
    *out_auc = sweep(entries, n, NULL);
    free(entries);
    return CT_OK;
}

/* --- the collector --- */

struct ct_metrics_collector {
    uint64_t *entries, *groups; /* (count); groups NULL where there are none */
    size_t count, capacity;
    bool started, has_weights, has_groups;
    double weight, clicks, loss, predictions; /* sums */
};

ct_code ct_metrics_collector_create(ct_metrics_collector **out_collector, ct_status *status) {
    ct_metrics_collector *collector = calloc(1, sizeof *collector);
    if (collector == NULL) return ct_fail_memory(status, sizeof *collector, "metrics");
    *out_collector = collector;
    return CT_OK;
}

void ct_metrics_collector_destroy(ct_metrics_collector *collector) {
    if (collector == NULL) return;
    free(collector->entries);
    free(collector->groups);
    free(collector);
}

void ct_metrics_collector_reset(ct_metrics_collector *collector) {
    uint64_t *entries = collector->entries, *groups = collector->groups;
    const size_t capacity = collector->capacity;
    *collector = (ct_metrics_collector){.entries = entries, .groups = groups, .capacity = capacity};
}

static ct_code grow(uint64_t **array, size_t capacity, ct_status *status) {
    uint64_t *grown = capacity > SIZE_MAX / sizeof *grown ? NULL : realloc(*array, capacity * sizeof *grown);
    if (grown == NULL) return ct_fail_memory(status, capacity, "the rows of the metrics");
    *array = grown;
    return CT_OK;
}

/* Room for `rows` more. */
static ct_code make_room(ct_metrics_collector *collector, size_t rows, bool groups, ct_status *status) {
    size_t capacity = collector->capacity;
    if (collector->count + rows > capacity) {
        capacity += capacity / 2 + 4096;
        if (capacity < collector->count + rows) capacity = collector->count + rows;
        CT_TRY(grow(&collector->entries, capacity, status));
        if (collector->groups != NULL) CT_TRY(grow(&collector->groups, capacity, status));
        collector->capacity = capacity;
    }
    if (groups && collector->groups == NULL) CT_TRY(grow(&collector->groups, capacity, status));
    return CT_OK;
}

ct_code ct_metrics_collector_add(ct_metrics_collector *collector, const float *logits, const float *labels, const float *weights,
                                 const uint64_t *groups, size_t n, ct_status *status) {
    if (n == 0) return CT_OK;
    if (collector->started && (collector->has_weights != (weights != NULL) || collector->has_groups != (groups != NULL)))
        return ct_fail(status, CT_INVALID, "metrics: some rows have a %s and others do not",
                       collector->has_weights != (weights != NULL) ? "weight" : "group");
    for (size_t i = 0; i < n; i++)
        CT_TRY(check_row(logits[i], labels[i], weights ? weights[i] : 1.0f, (int64_t)(collector->count + i), status));
    CT_TRY(make_room(collector, n, groups != NULL, status));
    collector->started = true;
    collector->has_weights = weights != NULL;
    collector->has_groups = groups != NULL;
    uint64_t *entries = collector->entries + collector->count;
    for (size_t i = 0; i < n; i++) {
        const bool click = labels[i] != 0.0f;
        const float weight = weights ? weights[i] : 1.0f;
        entries[i] = entry_of(logits[i], click, weight);
        collector->weight += (double)weight;
        if (click) collector->clicks += (double)weight;
        /* A row of weight 0 counts for nothing, though its loss be infinite. */
        if (weight > 0.0f) collector->loss += (double)weight * ct_logit_loss(logits[i], click);
        collector->predictions += (double)weight * ct_sigmoid((double)logits[i]);
    }
    if (groups != NULL) memcpy(collector->groups + collector->count, groups, n * sizeof *groups);
    collector->count += n;
    return CT_OK;
}

/* Of entries sorted by group, then by score. */
static void grouped(const uint64_t *entries, const uint64_t *groups, size_t n, ct_metrics *metrics) {
    double sum = 0.0, weight = 0.0;
    for (size_t first = 0; first < n;) {
        size_t last = first;
        while (last < n && groups[last] == groups[first]) last++;
        double group_weight = 0.0;
        const double auc = sweep(entries + first, last - first, &group_weight);
        if (!isnan(auc)) {
            sum += group_weight * auc;
            weight += group_weight;
            metrics->groups++;
        }
        first = last;
    }
    if (metrics->groups > 0) metrics->grouped_auc = sum / weight;
}

ct_code ct_metrics_collector_finish(ct_metrics_collector *collector, ct_metrics *out_metrics, ct_status *status) {
    const size_t n = collector->count;
    ct_metrics metrics = {.rows = (int64_t)n,
                          .weight = collector->weight,
                          .clicks = collector->clicks,
                          .auc = NAN,
                          .log_loss = NAN,
                          .normalized_entropy = NAN,
                          .calibration = NAN,
                          .mean_prediction = NAN,
                          .grouped_auc = NAN};
    if (collector->weight > 0.0) {
        metrics.log_loss = collector->loss / collector->weight;
        metrics.mean_prediction = collector->predictions / collector->weight;
    }
    if (collector->clicks > 0.0) metrics.calibration = collector->predictions / collector->clicks;
    const double rate = collector->clicks / collector->weight;
    if (rate > 0.0 && rate < 1.0) metrics.normalized_entropy = metrics.log_loss / -(rate * ct_log(rate) + (1.0 - rate) * ct_log1p(-rate));
    if (n > 0) {
        const bool with_groups = collector->has_groups;
        const size_t arrays = with_groups ? 2 : 1;
        uint64_t *scratch = n > SIZE_MAX / (arrays * sizeof *scratch) ? NULL : malloc(arrays * n * sizeof *scratch);
        if (scratch == NULL) return ct_fail_memory(status, arrays * n, "the order of the scores");
        uint64_t *groups = with_groups ? collector->groups : NULL, *group_scratch = with_groups ? scratch + n : NULL;
        sort_pairs(collector->entries, groups, scratch, group_scratch, false, KEY_SHIFT, n);
        metrics.auc = sweep(collector->entries, n, NULL);
        if (with_groups) {
            sort_pairs(collector->entries, groups, scratch, group_scratch, true, 0, n);
            grouped(collector->entries, groups, n, &metrics);
        }
        free(scratch);
    }
    *out_metrics = metrics;
    return CT_OK;
}

ct_code ct_metrics_to_json(const ct_metrics *metrics, bool with_groups, json_t *object, ct_status *status) {
    bool ok = json_object_set_new(object, "rows", json_integer(metrics->rows)) == 0;
    const struct {
        const char *name;
        double value;
    } members[] = {{"auc", metrics->auc},
                   {"log_loss", metrics->log_loss},
                   {"normalized_entropy", metrics->normalized_entropy},
                   {"calibration", metrics->calibration},
                   {"mean_prediction", metrics->mean_prediction},
                   {"clicks", metrics->clicks}};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        ok = ok && json_object_set_new(object, members[i].name, ct_json_real(members[i].value)) == 0;
    if (with_groups) {
        ok = ok && json_object_set_new(object, "grouped_auc", ct_json_real(metrics->grouped_auc)) == 0 &&
             json_object_set_new(object, "groups", json_integer(metrics->groups)) == 0;
    }
    return ok ? CT_OK : ct_fail_memory(status, 1024, "metrics as JSON");
}
