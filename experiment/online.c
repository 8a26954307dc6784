/* The rows are gone through once, in order of time; sums by arm follow, as a unit's old part is taken out and its new one put in. */
#include "experiment/online.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "experiment/distributions.h"
#include "experiment/online_internal.h"
#include "experiment/report_internal.h"
#include "experiment/statistics.h"

#define MANY_IN_TWO_ARMS 0.01

typedef struct online_run {
    const online_design *design;
    online_table *table;
    ct_arm_sums sums[CT_ONLINE_MAX_ARMS];
    double rows[CT_ONLINE_MAX_ARMS];
    double sequence_alpha, ratio_p;
    bool mismatch, mixed; /* no verdict */
    json_t *looks[CT_ONLINE_MAX_ARMS], *warnings;
} online_run;

/* --- intervals as JSON --- */

json_t *online_range_json(double low, double high) { return json_pack("{s:o, s:o}", "low", ct_json_real(low), "high", ct_json_real(high)); }

static json_t *range_json(ct_range range) { return online_range_json(range.low, range.high); }

static double units_of(const online_run *run, size_t arm) { return run->sums[run->design->control].n + run->sums[arm].n; }
static bool is_few(const online_run *run, size_t arm) {
    return run->sums[run->design->control].n < ONLINE_FEW_UNITS || run->sums[arm].n < ONLINE_FEW_UNITS;
}

static ct_range fixed_of(const online_run *run, double estimate, double variance) {
    return ct_fixed_interval(estimate, variance, run->design->alpha);
}

static ct_range sequence_of(const online_run *run, size_t arm, double estimate, double variance) {
    if (is_few(run, arm)) return (ct_range){(double)NAN, (double)NAN};
    return ct_confidence_sequence(estimate, variance, units_of(run, arm), run->design->plan, run->sequence_alpha);
}

static ct_difference difference_of(const online_run *run, size_t arm, bool cuped) {
    return ct_ratio_difference(&run->sums[run->design->control], &run->sums[arm], cuped);
}

static void add_look(online_run *run, double time) {
    for (size_t arm = 0; arm < run->table->arm_count; arm++) {
        if (arm == run->design->control) continue;
        const ct_difference d = difference_of(run, arm, run->table->has_covariate);
        json_array_append_new(run->looks[arm],
                              json_pack("{s:f, s:f, s:o, s:o, s:o}", "time", time, "units", units_of(run, arm), "estimate",
                                        ct_json_real(d.estimate), "fixed", range_json(fixed_of(run, d.estimate, d.variance)), "sequence",
                                        range_json(sequence_of(run, arm, d.estimate, d.variance))));
    }
}

static void go_through(online_run *run) {
    online_table *table = run->table;
    const double first = table->rows[0].time, last = table->rows[table->row_count - 1].time;
    int look = 1;
    for (size_t i = 0; i < table->row_count; i++) {
        const online_row *row = &table->rows[i];
        for (double at; look < CT_ONLINE_LOOKS && (at = first + (last - first) * look / CT_ONLINE_LOOKS) < row->time; look++)
            add_look(run, at);
        online_unit *unit = &table->units[row->unit];
        if (unit->arm == TWO_ARMS) continue;
        ct_arm_sums *sums = &run->sums[unit->arm];
        if (unit->seen) ct_arm_sums_remove(sums, unit->value, unit->count, unit->covariate);
        unit->seen = true;
        unit->value += row->value;
        unit->count += row->count;
        ct_arm_sums_add(sums, unit->value, unit->count, unit->covariate);
        run->rows[unit->arm] += 1.0;
    }
    add_look(run, last);
}

/* --- the report --- */

static json_t *arm_json(const online_run *run, size_t arm) {
    const ct_arm_sums *sums = &run->sums[arm];
    const ct_estimate mean = ct_ratio(sums);
    const ct_range range = fixed_of(run, mean.value, mean.variance);
    return json_pack("{s:s, s:b, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:o}", "name", run->table->arms[arm], "control",
                     arm == run->design->control, "weight", run->design->weights[arm], "units", sums->n, "rows", run->rows[arm], "value",
                     sums->y, "count", sums->x, "mean", ct_json_real(mean.value), "mean_low", ct_json_real(range.low), "mean_high",
                     ct_json_real(range.high));
}

static const char *verdict_of(const online_run *run, ct_range sequence) {
    if (run->mismatch || run->mixed || isnan(sequence.low)) return "no verdict";
    return sequence.low > 0.0 ? "B better" : sequence.high < 0.0 ? "B worse" : "no difference shown";
}

static json_t *words_of(const online_run *run, size_t arm, const ct_difference *d, ct_range sequence) {
    const char *a = run->table->arms[run->design->control], *b = run->table->arms[arm];
    if (run->mismatch) return json_sprintf("B = %s against A = %s: no verdict, as the units do not split between the arms as meant.", b, a);
    if (run->mixed) return json_sprintf("B = %s against A = %s: no verdict, as too many units were in two arms.", b, a);
    if (isnan(sequence.low))
        return json_sprintf("B = %s against A = %s: no verdict, with fewer than %d units in an arm.", b, a, ONLINE_FEW_UNITS);
    char lift[64] = ""; /* of an A whose mean is 0 there is none */
    if (!isnan(d->lift)) (void)snprintf(lift, sizeof lift, " (lift %+.2f %%)", 100.0 * d->lift);
    return json_sprintf("B = %s against A = %s: %s. The difference is %+.6g%s, and whenever you look it lies between %+.6g and %+.6g.", b,
                        a, verdict_of(run, sequence), d->estimate, lift, sequence.low, sequence.high);
}

static json_t *difference_json(const online_run *run, size_t arm) {
    const ct_difference plain = difference_of(run, arm, false), cuped = difference_of(run, arm, true);
    const ct_difference *decides = run->table->has_covariate ? &cuped : &plain;
    const ct_range sequence = sequence_of(run, arm, decides->estimate, decides->variance);
    json_t *with_covariate = run->table->has_covariate
                                 ? json_pack("{s:o, s:o, s:o, s:o, s:o}", "theta", ct_json_real(cuped.theta), "variance_reduction",
                                             ct_json_real(cuped.reduction), "estimate", ct_json_real(cuped.estimate), "fixed",
                                             range_json(fixed_of(run, cuped.estimate, cuped.variance)), "sequence",
                                             range_json(sequence_of(run, arm, cuped.estimate, cuped.variance)))
                                 : json_null();
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:{s:o, s:o, s:o}, s:o, s:o, s:s, s:o, s:O}", "a", run->table->arms[run->design->control],
                     "b", run->table->arms[arm], "estimate", ct_json_real(plain.estimate), "fixed",
                     range_json(fixed_of(run, plain.estimate, plain.variance)), "sequence",
                     range_json(sequence_of(run, arm, plain.estimate, plain.variance)), "lift", "estimate", ct_json_real(decides->lift),
                     "fixed", range_json(fixed_of(run, decides->lift, decides->lift_variance)), "sequence",
                     range_json(sequence_of(run, arm, decides->lift, decides->lift_variance)), "p",
                     ct_json_real(ct_normal_two_sided(decides->estimate / sqrt(decides->variance))), "cuped", with_covariate, "verdict",
                     verdict_of(run, sequence), "words", words_of(run, arm, decides, sequence), "looks", run->looks[arm]);
}

/* Returns how many units there are. An arm that no unit is meant to be in is all or nothing. */
static double split_p(online_run *run) {
    const online_design *design = run->design;
    double units[CT_ONLINE_MAX_ARMS], weights[CT_ONLINE_MAX_ARMS], all = 0.0, strays = 0.0;
    size_t arms = 0;
    for (size_t i = 0; i < run->table->arm_count; i++) {
        all += run->sums[i].n;
        if (!(design->weights[i] > 0.0)) {
            strays += run->sums[i].n;
            continue;
        }
        units[arms] = run->sums[i].n;
        weights[arms++] = design->weights[i];
    }
    run->ratio_p = design->unknown_split ? (double)NAN : strays > 0.0 ? 0.0 : ct_sample_ratio_p(units, weights, arms);
    return all;
}

static ct_code add_warnings(online_run *run, ct_status *status) {
    const online_table *table = run->table;
    const double all = split_p(run);
    run->mismatch = run->ratio_p < CT_MISMATCH_P;
    run->mixed = (double)table->in_two_arms > MANY_IN_TWO_ARMS * (double)table->unit_count;
    if (run->mismatch)
        CT_TRY(report_warn(
            run->warnings, status,
            "sample ratio mismatch: of %.0f units too many or too few are in an arm (p %.2g); something loses units or assigns them "
            "wrongly, and no difference can be trusted",
            all, run->ratio_p));
    if (table->in_two_arms > 0)
        CT_TRY(report_warn(run->warnings, status, "%zu of %zu units were in two arms and are left out", table->in_two_arms,
                           table->unit_count));
    if (table->arm_count > 2)
        CT_TRY(report_warn(run->warnings, status,
                           "%zu arms against the control: the confidence sequences are at alpha %.4g each, so that together they keep %.4g",
                           table->arm_count - 1, run->sequence_alpha, run->design->alpha));
    return CT_OK;
}

static ct_code make_comparison(online_run *run, json_t **out_comparison, ct_status *status) {
    const online_table *table = run->table;
    CT_TRY(add_warnings(run, status));
    json_t *arms = json_array(), *differences = json_array();
    for (size_t arm = 0; arm < table->arm_count; arm++) {
        int bad = json_array_append_new(arms, arm_json(run, arm));
        if (arm != run->design->control) bad |= json_array_append_new(differences, difference_json(run, arm));
        if (bad == 0) continue;
        json_decref(arms);
        json_decref(differences);
        return ct_fail(status, CT_INVALID, "arm '%s': its name is not UTF-8, or its sums are beyond the range of numbers",
                       table->arms[arm]);
    }
    *out_comparison =
        json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:{s:I, s:I}, s:{s:o, s:b}, s:b, s:b, s:o, s:o}", "rows", (json_int_t)table->row_count,
                  "alpha", run->design->alpha, "sequence_alpha", run->sequence_alpha, "plan", run->design->plan, "first_time",
                  table->rows[0].time, "last_time", table->rows[table->row_count - 1].time, "units", "all", (json_int_t)table->unit_count,
                  "in_two_arms", (json_int_t)table->in_two_arms, "sample_ratio", "p", ct_json_real(run->ratio_p), "mismatch", run->mismatch,
                  "has_count", table->has_count, "has_covariate", table->has_covariate, "arms", arms, "differences", differences);
    return *out_comparison != NULL ? CT_OK : ct_fail(status, CT_INVALID, "an arm's name is not UTF-8");
}

ct_code online_compare(const online_design *design, online_table *table, json_t *warnings, json_t **out_comparison, ct_status *status) {
    online_run run = {.design = design, .table = table, .warnings = warnings};
    for (size_t arm = 0; arm < CT_ONLINE_MAX_ARMS; arm++) run.looks[arm] = json_array();
    for (size_t unit = 0; unit < table->unit_count; unit++) {
        table->units[unit].value = table->units[unit].count = 0.0;
        table->units[unit].seen = false;
    }
    run.sequence_alpha = design->alpha / (double)(table->arm_count - 1);
    go_through(&run);
    const ct_code code = make_comparison(&run, out_comparison, status);
    for (size_t arm = 0; arm < CT_ONLINE_MAX_ARMS; arm++) json_decref(run.looks[arm]);
    return code;
}

ct_code online_check(double plan, double alpha, ct_status *status) {
    if (plan >= 1.0 && alpha > 0.0 && alpha < 1.0) return CT_OK;
    return ct_fail(status, CT_INVALID, "a plan of %g units and an alpha of %g; the plan must be 1 or more, alpha between 0 and 1", plan,
                   alpha);
}

/* --- a report of a table --- */

static size_t find_arm(const online_table *table, const char *name, size_t bytes) {
    size_t i = 0;
    while (i < table->arm_count && (strlen(table->arms[i]) != bytes || memcmp(table->arms[i], name, bytes) != 0)) i++;
    return i;
}

static ct_code find_control(const ct_online_options *options, const online_table *table, size_t *out_control, ct_status *status) {
    const char *name = options->control != NULL ? options->control : "control";
    const size_t control = find_arm(table, name, strlen(name));
    if (control == table->arm_count && options->control != NULL)
        return ct_fail(status, CT_INVALID, "%s: no arm '%s'; its first arm is '%s'", options->table, name, table->arms[0]);
    *out_control = control < table->arm_count ? control : 0;
    return CT_OK;
}

/* "A=50,B=50": each arm once. */
static ct_code parse_weights(const char *text, const online_table *table, double *weights, ct_status *status) {
    for (size_t i = 0; i < table->arm_count; i++) weights[i] = text == NULL ? 1.0 : 0.0;
    for (const char *at = text; at != NULL && *at != '\0';) {
        const size_t bytes = strcspn(at, ",");
        const char *equals = memrchr(at, '=', bytes);
        double weight = 0.0;
        const size_t arm = equals == NULL ? table->arm_count : find_arm(table, at, (size_t)(equals - at));
        if (arm == table->arm_count || !ct_parse_f64(equals + 1, bytes - (size_t)(equals + 1 - at), &weight) || !(weight > 0.0))
            return ct_fail(status, CT_INVALID,
                           "weights '%s': give ARM=NUMBER for each arm of the table, separated by commas; numbers above 0", text);
        weights[arm] = weight;
        at += bytes + (at[bytes] == ',');
    }
    for (size_t i = 0; i < table->arm_count; i++)
        if (!(weights[i] > 0.0)) return ct_fail(status, CT_INVALID, "weights '%s': arm '%s' has none", text, table->arms[i]);
    return CT_OK;
}

ct_code ct_online_report(const ct_online_options *options, json_t **out_report, ct_status *status) {
    online_table table = {0};
    online_design design = {.plan = options->plan, .alpha = options->alpha};
    json_t *warnings = json_array(), *comparison = NULL, *report = NULL;
    ct_code code;
    CT_TRY_GOTO(code, online_check(options->plan, options->alpha, status), done);
    CT_TRY_GOTO(code, online_table_read(options, &table, status), done);
    CT_TRY_GOTO(code, find_control(options, &table, &design.control, status), done);
    CT_TRY_GOTO(code, parse_weights(options->weights, &table, design.weights, status), done);
    if (online_compare(&design, &table, warnings, &comparison, status) != CT_OK) {
        code = ct_fail_within(status, "%s", options->table);
        goto done;
    }
    report = json_pack("{s:i, s:s}", "format_version", 1, "table", options->table);
    if (report == NULL || json_object_update(report, comparison) != 0 || json_object_set(report, "warnings", warnings) != 0) {
        code = ct_fail(status, CT_INVALID, "%s: the name is not UTF-8", options->table);
        goto done;
    }
    *out_report = report;
    report = NULL;
done:
    json_decref(report);
    json_decref(comparison);
    json_decref(warnings);
    online_table_deinit(&table);
    return code;
}
