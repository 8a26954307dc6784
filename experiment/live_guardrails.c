/* Errors and latencies by arm, with the unit as cluster.
 *
 * Error rate: errors over requests, a ratio metric (statistics.h).
 *
 * Latency: the quantile q of n requests is the ceil(p n)-th smallest. Its interval: the share of requests at or below q is a ratio metric
 * whose deviation s is known; the latencies at the shares p - z s and p + z s bound q (Deng, Knoblich, Lu, "Applying the delta method in
 * metric analytics", KDD 2018, section 4: no density is estimated). A difference of two quantiles has the sum of their variances, each
 * that of its interval's width. */
#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/math.h"
#include "experiment/live_report_internal.h"
#include "experiment/statistics.h"

enum { PERCENTILES = 3 };
static const struct {
    const char *name, *of;
    double share;
} percentiles[PERCENTILES] = {{"p50", "latency p50", 0.5}, {"p95", "latency p95", 0.95}, {"p99", "latency p99", 0.99}};

typedef struct guard_arm {
    double units, requests, errors;
    ct_arm_sums error_sums;
    ct_estimate quantile[PERCENTILES];
    ct_range quantile_range[PERCENTILES];
} guard_arm;

ct_code live_guardrails_add(live_guardrails *g, live_request_cost request, ct_status *status) {
    if (!online_grow((void **)&g->requests, &g->capacity, g->count + 1, sizeof *g->requests))
        return ct_fail_memory(status, g->count * sizeof *g->requests, "the requests");
    g->requests[g->count++] = request;
    return CT_OK;
}

void live_guardrails_deinit(live_guardrails *g) { free(g->requests); }

static int by_arm_and_unit(const void *left, const void *right) {
    const live_request_cost *a = left, *b = right;
    if (a->arm != b->arm) return a->arm < b->arm ? -1 : 1;
    return (a->unit > b->unit) - (a->unit < b->unit);
}

static int by_value(const void *left, const void *right) {
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* Sums by unit of how many of its requests are failed (bound < 0), or of those with a latency at or below the bound. */
static ct_arm_sums sum_units(const live_request_cost *requests, size_t count, int64_t bound) {
    ct_arm_sums sums = {0};
    for (size_t i = 0; i < count;) {
        const uint32_t unit = requests[i].unit;
        double yes = 0.0, all = 0.0;
        for (; i < count && requests[i].unit == unit; i++) {
            if (bound >= 0 && requests[i].latency_us < 0) continue;
            all += 1.0;
            yes += bound < 0 ? (double)requests[i].failed : (double)(requests[i].latency_us <= bound);
        }
        if (all > 0.0) ct_arm_sums_add(&sums, yes, all, 0.0);
    }
    return sums;
}

static int64_t at_share(const int64_t *sorted, size_t count, double share) {
    const double rank = ceil(share * (double)count);
    return sorted[rank < 1.0 ? 0 : rank >= (double)count ? count - 1 : (size_t)rank - 1];
}

static void quantiles_of(guard_arm *arm, const live_request_cost *requests, size_t count, int64_t *scratch, double alpha) {
    const double z = -ct_normal_quantile(alpha / 2.0);
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (requests[i].latency_us >= 0) scratch[n++] = requests[i].latency_us;
    online_sort(scratch, n, sizeof *scratch, by_value);
    for (int p = 0; p < PERCENTILES; p++) {
        arm->quantile[p] = (ct_estimate){(double)NAN, (double)NAN};
        arm->quantile_range[p] = (ct_range){(double)NAN, (double)NAN};
        if (n == 0) continue;
        const int64_t q = at_share(scratch, n, percentiles[p].share);
        const ct_arm_sums sums = sum_units(requests, count, q);
        const double deviation = sqrt(ct_ratio(&sums).variance);
        arm->quantile[p].value = (double)q;
        if (!isfinite(deviation)) continue;
        const ct_range range = {(double)at_share(scratch, n, percentiles[p].share - z * deviation),
                                (double)at_share(scratch, n, percentiles[p].share + z * deviation)};
        arm->quantile_range[p] = range;
        arm->quantile[p].variance = (range.high - range.low) * (range.high - range.low) / (4.0 * z * z);
    }
}

static json_t *value_json(double value, ct_range range) {
    return json_pack("{s:o, s:o, s:o}", "value", ct_json_real(value), "low", ct_json_real(range.low), "high", ct_json_real(range.high));
}

static json_t *arm_json(const guard_arm *arm, const char *name, double alpha) {
    const ct_estimate rate = ct_ratio(&arm->error_sums);
    json_t *latency = json_object();
    for (int p = 0; p < PERCENTILES; p++)
        (void)json_object_set_new(latency, percentiles[p].name, value_json(arm->quantile[p].value, arm->quantile_range[p]));
    return json_pack("{s:s, s:f, s:f, s:o, s:o}", "name", name, "requests", arm->requests, "errors", arm->errors, "error_rate",
                     value_json(rate.value, ct_fixed_interval(rate.value, rate.variance, alpha)), "latency_us", latency);
}

static void add_difference(json_t *to, const online_design *design, const online_table *table, const guard_arm *arms, size_t b,
                           const char *of, double estimate, double variance) {
    const double units = arms[design->control].units + arms[b].units;
    const bool few = arms[design->control].units < ONLINE_FEW_UNITS || arms[b].units < ONLINE_FEW_UNITS;
    const ct_range fixed = ct_fixed_interval(estimate, variance, design->alpha);
    const ct_range sequence = few || !isfinite(variance) ? (ct_range){(double)NAN, (double)NAN}
                                                         : ct_confidence_sequence(estimate, variance, units, design->plan, design->alpha);
    const char *verdict = isnan(sequence.low)   ? "no verdict"
                          : sequence.low > 0.0  ? "B worse"
                          : sequence.high < 0.0 ? "B better"
                                                : "no difference shown";
    json_array_append_new(to, json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:s}", "a", table->arms[design->control], "b", table->arms[b], "of",
                                        of, "estimate", ct_json_real(estimate), "fixed", online_range_json(fixed.low, fixed.high),
                                        "sequence", online_range_json(sequence.low, sequence.high), "verdict", verdict));
}

static void add_differences(json_t *to, const online_design *design, const online_table *table, const guard_arm *arms, size_t b) {
    const guard_arm *a = &arms[design->control];
    const ct_difference errors = ct_ratio_difference(&a->error_sums, &arms[b].error_sums, false);
    add_difference(to, design, table, arms, b, "error rate", errors.estimate, errors.variance);
    for (int p = 0; p < PERCENTILES; p++)
        add_difference(to, design, table, arms, b, percentiles[p].of, arms[b].quantile[p].value - a->quantile[p].value,
                       arms[b].quantile[p].variance + a->quantile[p].variance);
}

/* Requests of units in two arms go to the end. */
static void leave_out(live_guardrails *g, const online_table *table) {
    size_t kept = 0;
    for (size_t i = 0; i < g->count; i++)
        if (table->units[g->requests[i].unit].arm != TWO_ARMS) g->requests[kept++] = g->requests[i];
    g->count = kept;
}

ct_code live_guardrails_json(live_guardrails *g, const online_design *design, const online_table *table, json_t **out_json,
                             ct_status *status) {
    guard_arm arms[CT_ONLINE_MAX_ARMS] = {0};
    json_t *by_arm = json_array(), *differences = json_array();
    leave_out(g, table);
    int64_t *scratch = malloc((g->count + 1) * sizeof *scratch);
    if (scratch == NULL) {
        json_decref(by_arm);
        json_decref(differences);
        return ct_fail_memory(status, g->count * sizeof *scratch, "the latencies");
    }
    online_sort(g->requests, g->count, sizeof *g->requests, by_arm_and_unit);
    for (size_t arm = 0, first = 0, end; arm < table->arm_count; arm++, first = end) {
        for (end = first; end < g->count && g->requests[end].arm == arm; end++) arms[arm].errors += g->requests[end].failed;
        const live_request_cost *requests = g->requests + first;
        arms[arm].requests = (double)(end - first);
        arms[arm].error_sums = sum_units(requests, end - first, -1);
        arms[arm].units = arms[arm].error_sums.n;
        quantiles_of(&arms[arm], requests, end - first, scratch, design->alpha);
        json_array_append_new(by_arm, arm_json(&arms[arm], table->arms[arm], design->alpha));
    }
    for (size_t arm = 0; arm < table->arm_count; arm++)
        if (arm != design->control) add_differences(differences, design, table, arms, arm);
    free(scratch);
    *out_json = json_pack("{s:o, s:o}", "arms", by_arm, "differences", differences);
    return *out_json != NULL ? CT_OK : ct_fail_memory(status, 4096, "the guardrails");
}
