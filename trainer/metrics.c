/* A row is kept as one 64-bit entry (metrics_sort.h). Rows in the order of their scores give the AUC and the calibration table in one sweep
 * over blocks of equal scores; rows in the order of group, then score, give each group's AUC by the same sweep. Both orders come from
 * sorters, which go to disk where memory ends; the order is the same, so the result is. */
#include "trainer/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/math.h"
#include "trainer/metrics_sort.h"

enum { DEFAULT_MEMORY_BYTES = 64 << 20, CHUNK_ROWS = 1024 };

static const ct_sort_order score_order = {.words = 1, .keys = 1, .key = {{0, CT_ENTRY_SHIFT}}};
static const ct_sort_order group_order = {.words = 2, .keys = 2, .key = {{0, 0}, {1, CT_ENTRY_SHIFT}}}; /* group, entry */

double ct_logit_loss(float logit, bool click) { return ct_softplus(click ? -(double)logit : (double)logit); }

uint32_t ct_score_key(float score) {
    const float positive_zero = score + 0.0f;
    uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

void ct_score_sort(uint64_t *entries, uint64_t *scratch, size_t n) {
    ct_sort_rows(&score_order, (uint64_t *const[]){entries}, (uint64_t *const[]){scratch}, n);
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

/* --- AUC: rows in the order of their scores, tied ones added up before they count --- */

typedef struct sweep {
    double clicks, others, won;      /* of the scores below */
    double tied_clicks, tied_others; /* of rows with this score */
    uint64_t key;
} sweep;

static void sweep_close(sweep *s) {
    s->won += s->tied_clicks * (s->others + 0.5 * s->tied_others);
    s->clicks += s->tied_clicks;
    s->others += s->tied_others;
    s->tied_clicks = s->tied_others = 0.0;
}

/* A sweep of zeros is empty: no score has the key 0. */
static void sweep_add(sweep *s, uint64_t entry) {
    const uint64_t key = entry >> CT_ENTRY_SHIFT;
    if (key != s->key) {
        sweep_close(s);
        s->key = key;
    }
    if (ct_entry_click(entry)) {
        s->tied_clicks += (double)ct_entry_weight(entry);
    } else {
        s->tied_others += (double)ct_entry_weight(entry);
    }
}

/* Closes the sweep. */
static double sweep_auc(sweep *s) {
    sweep_close(s);
    return s->clicks > 0.0 && s->others > 0.0 ? s->won / (s->clicks * s->others) : NAN;
}

ct_code ct_auc(const float *scores, const float *labels, const float *weights, size_t n, double *out_auc, ct_status *status) {
    for (size_t i = 0; i < n; i++) CT_TRY(check_row(scores[i], labels[i], weights ? weights[i] : 1.0f, (int64_t)i, status));
    sweep s = {0};
    if (n == 0) {
        *out_auc = NAN;
        return CT_OK;
    }
    uint64_t *entries = n > SIZE_MAX / (2 * sizeof *entries) ? NULL : malloc(2 * n * sizeof *entries);
    if (entries == NULL) return ct_fail_memory(status, n, "the order of the scores");
    for (size_t i = 0; i < n; i++) entries[i] = ct_entry(scores[i], labels[i] != 0.0f, weights ? weights[i] : 1.0f);
    ct_score_sort(entries, entries + n, n);
    for (size_t i = 0; i < n; i++) sweep_add(&s, entries[i]);
    *out_auc = sweep_auc(&s);
    free(entries);
    return CT_OK;
}

/* --- calibration table: blocks of equal scores, lowest first --- */

typedef struct binning {
    ct_calibration_table *table;
    double weight, total; /* below the next block; of all rows */
    int last;             /* bin of the table's last entry; -1 = none */
    int64_t rows;         /* of the block that is being added up */
} binning;

/* Sums stand in the place of means until the end. */
static void binning_block(binning *b, uint32_t key, double clicks, double others) {
    const double weight = clicks + others, prediction = ct_sigmoid((double)ct_score_of_key(key));
    if (weight > 0.0) {
        int bin = (int)(CT_CALIBRATION_BINS * ((b->weight + weight / 2.0) / b->total));
        if (bin > CT_CALIBRATION_BINS - 1) bin = CT_CALIBRATION_BINS - 1; /* rounding */
        if (bin != b->last) b->table->bins[b->table->count++] = (ct_calibration_bin){.low = prediction};
        b->last = bin;
        ct_calibration_bin *into = &b->table->bins[b->table->count - 1];
        into->rows += b->rows;
        into->weight += weight;
        into->high = prediction;
        into->mean_prediction += weight * prediction;
        into->click_rate += clicks;
        b->weight += weight;
    }
    b->rows = 0;
}

static void binning_finish(binning *b) {
    ct_calibration_table *table = b->table;
    double weight = 0.0;
    for (size_t i = 0; i < table->count; i++) {
        ct_calibration_bin *bin = &table->bins[i];
        bin->mean_prediction /= bin->weight;
        bin->click_rate /= bin->weight;
        const double error = fabs(bin->mean_prediction - bin->click_rate);
        table->expected_error += bin->weight * error;
        if (error > table->maximum_error) table->maximum_error = error;
        weight += bin->weight;
    }
    if (table->count > 0) table->expected_error /= weight;
}

/* --- the collector --- */

struct ct_metrics_collector {
    size_t memory_bytes;
    ct_sorter *scores, *groups; /* groups: NULL before the first row with a group */
    int64_t rows;
    bool has_weights, has_groups, finished;
    double weight, clicks, loss, predictions; /* sums */
    ct_metrics metrics;                       /* once finished */
};

ct_code ct_metrics_collector_create(ct_metrics_collector **out_collector, ct_status *status) {
    return ct_metrics_collector_create_within(DEFAULT_MEMORY_BYTES, out_collector, status);
}

ct_code ct_metrics_collector_create_within(size_t memory_bytes, ct_metrics_collector **out_collector, ct_status *status) {
    ct_metrics_collector *collector = calloc(1, sizeof *collector);
    if (collector == NULL) return ct_fail_memory(status, sizeof *collector, "metrics");
    collector->memory_bytes = memory_bytes;
    *out_collector = collector;
    return CT_OK;
}

void ct_metrics_collector_destroy(ct_metrics_collector *collector) {
    if (collector == NULL) return;
    ct_sorter_destroy(collector->scores);
    ct_sorter_destroy(collector->groups);
    free(collector);
}

void ct_metrics_collector_reset(ct_metrics_collector *collector) {
    if (collector->scores != NULL) ct_sorter_reset(collector->scores);
    if (collector->groups != NULL) ct_sorter_reset(collector->groups);
    *collector = (ct_metrics_collector){.memory_bytes = collector->memory_bytes, .scores = collector->scores, .groups = collector->groups};
}

/* With groups, two sorters share the memory by the size of their rows. */
static ct_code make_sorters(ct_metrics_collector *collector, bool groups, ct_status *status) {
    if (collector->scores == NULL)
        CT_TRY(ct_sorter_create(&score_order, groups ? collector->memory_bytes / 3 : collector->memory_bytes, &collector->scores, status));
    if (groups && collector->groups == NULL)
        CT_TRY(ct_sorter_create(&group_order, collector->memory_bytes / 3 * 2, &collector->groups, status));
    return CT_OK;
}

ct_code ct_metrics_collector_add(ct_metrics_collector *collector, const float *logits, const float *labels, const float *weights,
                                 const uint64_t *groups, size_t n, ct_status *status) {
    if (n == 0) return CT_OK;
    if (collector->finished) return ct_fail(status, CT_INVALID, "metrics: rows behind the end; reset comes first");
    if (collector->rows > 0 && (collector->has_weights != (weights != NULL) || collector->has_groups != (groups != NULL)))
        return ct_fail(status, CT_INVALID, "metrics: some rows have a %s and others do not",
                       collector->has_weights != (weights != NULL) ? "weight" : "group");
    for (size_t i = 0; i < n; i++)
        CT_TRY(check_row(logits[i], labels[i], weights ? weights[i] : 1.0f, collector->rows + (int64_t)i, status));
    CT_TRY(make_sorters(collector, groups != NULL, status));
    collector->has_weights = weights != NULL;
    collector->has_groups = groups != NULL;
    uint64_t entries[CHUNK_ROWS];
    for (size_t first = 0; first < n; first += CHUNK_ROWS) {
        const size_t rows = n - first < CHUNK_ROWS ? n - first : CHUNK_ROWS;
        for (size_t r = 0; r < rows; r++) {
            const size_t i = first + r;
            const bool click = labels[i] != 0.0f;
            const float weight = weights ? weights[i] : 1.0f;
            entries[r] = ct_entry(logits[i], click, weight);
            collector->weight += (double)weight;
            if (click) collector->clicks += (double)weight;
            /* A row of weight 0 counts for nothing, though its loss be infinite. */
            if (weight > 0.0f) collector->loss += (double)weight * ct_logit_loss(logits[i], click);
            collector->predictions += (double)weight * ct_sigmoid((double)logits[i]);
        }
        CT_TRY(ct_sorter_add(collector->scores, (const uint64_t *const[]){entries}, rows, status));
        if (groups != NULL) CT_TRY(ct_sorter_add(collector->groups, (const uint64_t *const[]){groups + first, entries}, rows, status));
    }
    collector->rows += (int64_t)n;
    return CT_OK;
}

static ct_code by_score(const ct_metrics_collector *collector, ct_metrics *metrics, ct_status *status) {
    const uint64_t *words[1];
    size_t n = 0;
    sweep s = {0};
    binning b = {.table = &metrics->calibration_table, .total = collector->weight, .last = -1};
    ct_code code = ct_sorter_rewind(collector->scores, status);
    while (code == CT_OK && (code = ct_sorter_next(collector->scores, words, &n, status)) == CT_OK) {
        for (size_t i = 0; i < n; i++) {
            if (words[0][i] >> CT_ENTRY_SHIFT != s.key) binning_block(&b, (uint32_t)s.key, s.tied_clicks, s.tied_others);
            b.rows += ct_entry_weight(words[0][i]) > 0.0f;
            sweep_add(&s, words[0][i]);
        }
    }
    if (code != CT_END) return code;
    binning_block(&b, (uint32_t)s.key, s.tied_clicks, s.tied_others);
    binning_finish(&b);
    metrics->auc = sweep_auc(&s);
    return CT_OK;
}

typedef struct group_sums {
    double auc, weight;
    int64_t count;
} group_sums;

static void close_group(group_sums *sums, sweep *s) {
    const double auc = sweep_auc(s), weight = s->clicks + s->others;
    if (!isnan(auc)) {
        sums->auc += weight * auc;
        sums->weight += weight;
        sums->count++;
    }
    *s = (sweep){0};
}

static ct_code by_group(const ct_metrics_collector *collector, ct_metrics *metrics, ct_status *status) {
    const uint64_t *words[2];
    size_t n = 0;
    sweep s = {0};
    group_sums sums = {0};
    uint64_t group = 0; /* a sweep without rows belongs to any */
    ct_code code = ct_sorter_rewind(collector->groups, status);
    while (code == CT_OK && (code = ct_sorter_next(collector->groups, words, &n, status)) == CT_OK) {
        for (size_t i = 0; i < n; i++) {
            if (words[0][i] != group) {
                close_group(&sums, &s);
                group = words[0][i];
            }
            sweep_add(&s, words[1][i]);
        }
    }
    if (code != CT_END) return code;
    close_group(&sums, &s);
    metrics->groups = sums.count;
    if (sums.count > 0) metrics->grouped_auc = sums.auc / sums.weight;
    return CT_OK;
}

ct_code ct_metrics_collector_finish(ct_metrics_collector *collector, ct_metrics *out_metrics, ct_status *status) {
    if (collector->finished) {
        *out_metrics = collector->metrics;
        return CT_OK;
    }
    ct_metrics metrics = {.rows = collector->rows,
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
    if (collector->rows > 0) {
        /* An order that was read has done its work: its memory and its file go. */
        CT_TRY(by_score(collector, &metrics, status));
        ct_sorter_reset(collector->scores);
        if (collector->has_groups) {
            CT_TRY(by_group(collector, &metrics, status));
            ct_sorter_reset(collector->groups);
        }
        collector->metrics = metrics;
        collector->finished = true;
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

ct_code ct_calibration_to_json(const ct_metrics *metrics, json_t *object, ct_status *status) {
    const ct_calibration_table *table = &metrics->calibration_table;
    json_t *bins = json_array();
    bool ok =
        json_object_set_new(object, "expected_calibration_error", ct_json_real(table->count > 0 ? table->expected_error : NAN)) == 0 &&
        json_object_set_new(object, "maximum_calibration_error", ct_json_real(table->count > 0 ? table->maximum_error : NAN)) == 0;
    for (size_t i = 0; i < table->count && ok; i++) {
        const ct_calibration_bin *bin = &table->bins[i];
        ok = json_array_append_new(
                 bins, json_pack("{s:f, s:f, s:I, s:f, s:f, s:f}", "low", bin->low, "high", bin->high, "rows", (json_int_t)bin->rows,
                                 "weight", bin->weight, "mean_prediction", bin->mean_prediction, "click_rate", bin->click_rate)) == 0;
    }
    ok = json_object_set_new(object, "calibration_table", bins) == 0 && ok;
    return ok ? CT_OK : ct_fail_memory(status, 4096, "the calibration as JSON");
}
