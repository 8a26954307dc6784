/* Exposures are gone through once, after all feedback is in memory: each request gives a row of the comparison, a cost, scored impressions,
 * and what drift and slices want. The comparisons themselves are those of any table (online.c). */
#include "experiment/live_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "experiment/counts.h"
#include "experiment/live_report_internal.h"

enum { POSITIVES = 0, SHOWN, EVENTS, SUMS_MAX = EVENTS + LIVE_MAX_EVENTS };
#define UNEQUAL_RATES 0.01

typedef struct live_request {
    double time; /* seconds */
    uint32_t unit, arm;
} live_request;

typedef struct live_run {
    const ct_live_options *options;
    ct_experiment *experiment;
    live_feedback *feedback;
    live_exposures *exposures;
    ct_schema *schema; /* of drift; NULL = none */
    live_drift *drift;
    live_slices *slices;
    live_guardrails guardrails;
    online_design design;
    online_table table;     /* arms, units; rows anew for each metric */
    ct_counts *numbers;     /* of a unit's hash: its number from 1 */
    bool *first;            /* (units): no row of it yet, while a metric by unit is made */
    live_request *requests; /* (count) */
    double *sums;           /* (count, width): POSITIVES, SHOWN, values by event */
    size_t count, width, request_capacity, sum_capacity;
    ct_metrics_collector *scores[CT_ONLINE_MAX_ARMS];
    int64_t left_out[CT_ASSIGN_HOWS][CT_ONLINE_MAX_ARMS], other_experiments, other_deals;
    double logged[CT_ONLINE_MAX_ARMS], stands_for[CT_ONLINE_MAX_ARMS]; /* requests, and with those that were not logged */
    bool sampled;
    json_t *warnings;
} live_run;

/* --- one request --- */

static ct_code unit_of(live_run *run, const live_exposure *e, uint32_t arm, uint32_t *out_unit, ct_status *status) {
    online_table *table = &run->table;
    const uint64_t hash = ct_hash64(e->unit, strlen(e->unit), 0);
    uint64_t number = ct_counts_get(run->numbers, hash);
    if (number == 0) {
        if (table->unit_count + 1 >= TWO_ARMS ||
            !online_grow((void **)&table->units, &table->unit_capacity, table->unit_count + 1, sizeof *table->units))
            return ct_fail_memory(status, table->unit_count * sizeof *table->units, "the units");
        table->units[table->unit_count++] = (online_unit){.arm = arm, .covariate = (double)NAN};
        number = table->unit_count;
        CT_TRY(ct_counts_add(run->numbers, hash, number, status));
    }
    online_unit *unit = &table->units[number - 1];
    if (unit->arm != arm && unit->arm != TWO_ARMS) {
        unit->arm = TWO_ARMS;
        table->in_two_arms++;
    }
    *out_unit = (uint32_t)number - 1;
    return CT_OK;
}

static ct_code add_score(live_run *run, const live_exposure *e, uint32_t arm, const live_shown *shown, ct_status *status) {
    float score = 0.0f;
    CT_TRY(live_exposure_score(e, shown->candidate, &score, status));
    const float logit = (float)(log((double)score) - log1p(-(double)score));
    const float label = shown->positive ? 1.0f : 0.0f, weight = (float)(1.0 / e->sample_rate);
    return ct_metrics_collector_add(run->scores[arm], &logit, &label, &weight, NULL, 1, status);
}

static ct_code take_shown(live_run *run, const live_exposure *e, uint32_t unit, uint32_t arm, double *sums, ct_status *status) {
    const live_shown *shown = NULL;
    size_t count = 0;
    CT_TRY(live_feedback_of(run->feedback, e, &shown, &count, status));
    for (size_t i = 0; i < count; i++) {
        sums[SHOWN] += 1.0 / e->sample_rate;
        sums[POSITIVES] += shown[i].positive / e->sample_rate;
        for (size_t event = 0; event < run->options->event_count; event++) sums[EVENTS + event] += shown[i].values[event] / e->sample_rate;
        CT_TRY(add_score(run, e, arm, &shown[i], status));
    }
    if (run->drift != NULL) CT_TRY(live_drift_add(run->drift, e, shown, count, status));
    return run->slices != NULL ? live_slices_add(run->slices, e, unit, shown, count, status) : CT_OK;
}

/* A request that is compared. */
static ct_code take_request(live_run *run, const live_exposure *e, uint32_t arm, ct_status *status) {
    uint32_t unit = 0;
    const ct_assignment dealt = ct_assign(run->experiment, e->unit, strlen(e->unit));
    CT_TRY(unit_of(run, e, arm, &unit, status));
    run->other_deals += dealt.arm != arm || (dealt.how != CT_ASSIGN_DRAWN && dealt.how != CT_ASSIGN_FORCED);
    if (!online_grow((void **)&run->requests, &run->request_capacity, run->count + 1, sizeof *run->requests) ||
        !online_grow((void **)&run->sums, &run->sum_capacity, (run->count + 1) * run->width, sizeof *run->sums))
        return ct_fail_memory(status, run->count * (sizeof *run->requests + run->width * sizeof *run->sums), "the requests");
    double *sums = run->sums + run->count * run->width;
    memset(sums, 0, run->width * sizeof *sums);
    run->requests[run->count++] = (live_request){(double)e->time_ms / 1000.0, unit, arm};
    run->logged[arm] += 1.0;
    run->stands_for[arm] += 1.0 / e->sample_rate;
    run->sampled = run->sampled || e->sample_rate < 1.0;
    CT_TRY(live_guardrails_add(&run->guardrails, (live_request_cost){unit, arm, e->failed ? -1 : e->latency_us, e->failed}, status));
    return e->failed ? CT_OK : take_shown(run, e, unit, arm, sums, status);
}

static ct_code take_exposure(live_run *run, const live_exposure *e, ct_status *status) {
    if (strcmp(e->experiment, ct_experiment_name(run->experiment)) != 0) {
        run->other_experiments++;
        live_feedback_pass(run->feedback, e);
        return CT_OK;
    }
    const size_t arm = ct_experiment_find_arm(run->experiment, e->arm, strlen(e->arm));
    if (arm == ct_experiment_arm_count(run->experiment))
        return live_fail(&e->line, status, "\"arm\" is '%s', which %s does not have; give the file that was served", e->arm,
                         run->options->experiment);
    if (e->assigned == CT_ASSIGN_DRAWN && e->unit[0] != '\0') return take_request(run, e, (uint32_t)arm, status);
    run->left_out[e->assigned == CT_ASSIGN_DRAWN ? CT_ASSIGN_NONE : e->assigned][arm]++;
    live_feedback_pass(run->feedback, e);
    return CT_OK;
}

static ct_code take_all(live_run *run, ct_status *status) {
    const live_exposure *exposure = NULL;
    ct_code code;
    while ((code = live_exposures_next(run->exposures, &exposure, status)) == CT_OK) CT_TRY(take_exposure(run, exposure, status));
    if (code != CT_END) return code;
    if (run->count == 0)
        return ct_fail(status, CT_INVALID, "%s: no request that drew an arm of experiment '%s' (%s)", run->options->exposures,
                       ct_experiment_name(run->experiment), run->options->experiment);
    return CT_OK;
}

/* --- the covariate --- */

static ct_code take_covariate(live_run *run, const online_header *header, const ct_line *line, ct_status *status) {
    online_part parts[ONLINE_MAX_COLUMNS];
    double value = 0.0;
    CT_TRY(online_header_split(header, line, parts, status));
    CT_TRY(online_header_number(header, line, parts, 1, &value, status));
    const online_part *unit = &parts[header->at[0]];
    const uint64_t number = ct_counts_get(run->numbers, ct_hash64(unit->text, unit->bytes, 0));
    if (number == 0) return CT_OK; /* it had no request */
    if (!isnan(run->table.units[number - 1].covariate))
        return ct_fail(status, CT_INVALID, "%s:%lld: unit '%.*s' stands there twice", line->source, (long long)line->number,
                       (int)(unit->bytes < 80 ? unit->bytes : 80), unit->text);
    run->table.units[number - 1].covariate = value;
    return CT_OK;
}

/* A unit that the table lacks gets the mean of the others: it is from before the experiment, so this favours no arm. */
static ct_code fill_covariate(live_run *run, ct_status *status) {
    double sum = 0.0, known = 0.0;
    for (size_t i = 0; i < run->table.unit_count; i++) {
        if (isnan(run->table.units[i].covariate)) continue;
        sum += run->table.units[i].covariate;
        known += 1.0;
    }
    const double mean = known > 0.0 ? sum / known : 0.0, absent = (double)run->table.unit_count - known;
    for (size_t i = 0; i < run->table.unit_count; i++)
        if (isnan(run->table.units[i].covariate)) run->table.units[i].covariate = mean;
    if (run->options->covariate != NULL && absent > 0.0)
        return report_warn(run->warnings, status, "%.0f of %zu units are not in %s: they get the mean of the others", absent,
                           run->table.unit_count, run->options->covariate);
    return CT_OK;
}

static ct_code read_covariate(live_run *run, ct_status *status) {
    static const char *const names[] = {"unit", "value"};
    online_header header = {0};
    ct_lines *lines = NULL;
    ct_line line;
    ct_code code;
    if (run->options->covariate == NULL) return fill_covariate(run, status);
    run->table.has_covariate = true;
    CT_TRY(ct_lines_open(&run->options->covariate, 1, &lines, status));
    ct_lines_set_stop(lines, run->options->stop);
    while ((code = ct_lines_next(lines, &line, status)) == CT_OK) {
        if (ct_lines_is_first(lines))
            code = online_header_read(&header, names, 2, 2, "unit and value", &line, status);
        else if (line.bytes > 0)
            code = take_covariate(run, &header, &line, status);
        if (code != CT_OK) break;
    }
    ct_lines_close(lines);
    return code == CT_END ? fill_covariate(run, status) : code;
}

/* --- metrics --- */

/* sum[of] over impressions, or over units. */
static ct_code compare_metric(live_run *run, const char *event, size_t of, bool by_unit, json_t *warnings, json_t **out_metric,
                              ct_status *status) {
    online_table *table = &run->table;
    for (size_t i = 0; i < table->unit_count; i++) run->first[i] = true;
    for (size_t i = 0; i < run->count; i++) {
        const live_request *request = &run->requests[i];
        const double *sums = run->sums + i * run->width;
        table->rows[i] = (online_row){request->time, sums[of], by_unit ? 0.0 : sums[SHOWN], request->unit, request->arm};
    }
    online_table_sort(table);
    for (size_t i = 0; by_unit && i < run->count; i++) {
        table->rows[i].count = run->first[table->rows[i].unit] ? 1.0 : 0.0;
        run->first[table->rows[i].unit] = false;
    }
    table->has_count = true;
    CT_TRY(online_compare(&run->design, table, warnings, out_metric, status));
    if (json_object_set_new(*out_metric, "metric", json_sprintf("%s by %s", event, by_unit ? "unit" : "impression")) == 0) return CT_OK;
    return ct_fail(status, CT_INVALID, "event '%s' is not UTF-8", event);
}

static ct_code compare_all(live_run *run, json_t *report, ct_status *status) {
    json_t *others = json_array(), *unheard = json_array(), *metric = NULL;
    ct_code code = compare_metric(run, run->options->positive, POSITIVES, false, run->warnings, &metric, status);
    if (code == CT_OK && json_object_update(report, metric) != 0) code = ct_fail_memory(status, 4096, "the report");
    json_decref(metric);
    for (size_t m = 1; code == CT_OK && m < 2 * (1 + run->options->event_count); m++) {
        const size_t event = m / 2;
        if (m % 2 == 1 && run->sampled) continue;
        metric = NULL;
        code = compare_metric(run, event == 0 ? run->options->positive : run->options->events[event - 1],
                              event == 0 ? (size_t)POSITIVES : EVENTS + event - 1, m % 2 == 1, unheard, &metric, status);
        if (metric != NULL) (void)json_array_append_new(others, metric);
    }
    (void)json_object_set_new(report, "metrics", others);
    json_decref(unheard);
    return code;
}

static ct_code scores_json(live_run *run, json_t **out_json, ct_status *status) {
    json_t *scores = json_array();
    for (size_t arm = 0; arm < run->table.arm_count; arm++) {
        ct_metrics metrics;
        json_t *one = json_pack("{s:s}", "name", run->table.arms[arm]);
        ct_code code = ct_metrics_collector_finish(run->scores[arm], &metrics, status);
        if (code == CT_OK) code = ct_metrics_to_json(&metrics, false, one, status);
        if (code == CT_OK) code = ct_calibration_to_json(&metrics, one, status);
        (void)json_array_append_new(scores, one);
        if (code == CT_OK) continue;
        json_decref(scores);
        return code;
    }
    *out_json = scores;
    return CT_OK;
}

static json_t *left_out_json(const live_run *run) {
    json_t *assigned = json_object();
    for (int how = 0; how < CT_ASSIGN_HOWS; how++) {
        json_t *by_arm = json_object();
        for (size_t arm = 0; arm < run->table.arm_count; arm++)
            if (run->left_out[how][arm] > 0)
                (void)json_object_set_new(by_arm, run->table.arms[arm], json_integer((json_int_t)run->left_out[how][arm]));
        if (json_object_size(by_arm) > 0)
            (void)json_object_set_new(assigned, ct_assign_how_name((ct_assign_how)how), by_arm);
        else
            json_decref(by_arm);
    }
    return json_pack("{s:o, s:I, s:o, s:o}", "assigned", assigned, "other_experiments", (json_int_t)run->other_experiments, "exposures",
                     live_exposures_json(run->exposures), "feedback", live_feedback_json(run->feedback));
}

/* A name that nothing ever has is most likely misspelt, and would read as "no difference". */
static ct_code warn_of_unheard(live_run *run, const char *event, size_t of, ct_status *status) {
    for (size_t i = 0; i < run->count; i++)
        if (run->sums[i * run->width + of] != 0.0) return CT_OK;
    return report_warn(run->warnings, status, "event '%s': nothing that was shown has it, or all its values are 0; is the name right?",
                       event);
}

static ct_code add_warnings(live_run *run, ct_status *status) {
    const live_feedback_counts f = live_feedback_count(run->feedback);
    int64_t fallback = 0;
    for (size_t arm = 0; arm < run->table.arm_count; arm++) fallback += run->left_out[CT_ASSIGN_FALLBACK][arm];
    CT_TRY(warn_of_unheard(run, run->options->positive, POSITIVES, status));
    for (size_t i = 0; i < run->options->event_count; i++) CT_TRY(warn_of_unheard(run, run->options->events[i], EVENTS + i, status));
    if (fallback > 0)
        CT_TRY(report_warn(run->warnings, status,
                           "%lld requests saw the control because the model of their arm was not there; they are left out, and so may be "
                           "missing in that arm",
                           (long long)fallback));
    if (run->other_deals > 0)
        CT_TRY(report_warn(run->warnings, status,
                           "%lld of %zu requests saw another arm than %s deals to their unit: is it the file that was served?",
                           (long long)run->other_deals, run->count, run->options->experiment));
    if (run->sampled)
        CT_TRY(report_warn(run->warnings, status,
                           "requests were sampled: there are no metrics by unit, and units without a logged request are not seen"));
    if (run->design.unknown_split)
        CT_TRY(report_warn(run->warnings, status, "the arms were sampled at different rates: the split of the units can't be checked"));
    if (f.conflicts > 0)
        CT_TRY(report_warn(run->warnings, status,
                           "%lld events carry the id of another event and were left out: an event_id must belong to one event",
                           (long long)f.conflicts));
    if (f.not_shown > 0)
        CT_TRY(report_warn(run->warnings, status, "%lld events are of candidates that nothing says were shown: they count nowhere",
                           (long long)f.not_shown));
    return CT_OK;
}

static ct_code make_report(live_run *run, json_t **out_report, ct_status *status) {
    json_t *report = json_pack("{s:i, s:s, s:s, s:s, s:I}", "format_version", 1, "experiment", ct_experiment_name(run->experiment),
                               "exposures", run->options->exposures, "feedback", run->options->feedback, "until_ms",
                               (json_int_t)live_feedback_until_ms(run->feedback));
    json_t *part = NULL;
    ct_code code;
    if (report == NULL) return ct_fail(status, CT_INVALID, "a folder's name is not UTF-8");
    CT_TRY_GOTO(code, compare_all(run, report, status), fail);
    CT_TRY_GOTO(code, add_warnings(run, status), fail);
    (void)json_object_set_new(report, "left_out", left_out_json(run));
    CT_TRY_GOTO(code, live_guardrails_json(&run->guardrails, &run->design, &run->table, &part, status), fail);
    (void)json_object_set_new(report, "guardrails", part);
    CT_TRY_GOTO(code, scores_json(run, &part, status), fail);
    (void)json_object_set_new(report, "scores", part);
    part = json_null();
    if (run->drift != NULL) CT_TRY_GOTO(code, live_drift_json(run->drift, run->warnings, &part, status), fail);
    (void)json_object_set_new(report, "drift", part);
    part = json_array();
    if (run->slices != NULL) {
        json_decref(part);
        CT_TRY_GOTO(code, live_slices_json(run->slices, &run->design, &run->table, run->warnings, &part, status), fail);
    }
    (void)json_object_set_new(report, "slices", part);
    (void)json_object_set(report, "warnings", run->warnings);
    *out_report = report;
    return CT_OK;
fail:
    json_decref(report);
    return code;
}

/* --- all of it --- */

static ct_code prepare(live_run *run, ct_status *status) {
    const ct_live_options *o = run->options;
    CT_TRY(online_check(o->plan, o->alpha, status));
    if (o->event_count > LIVE_MAX_EVENTS) return ct_fail(status, CT_INVALID, "%zu events; at most %d", o->event_count, LIVE_MAX_EVENTS);
    if (o->training_count > 0 && o->schema == NULL) return ct_fail(status, CT_INVALID, "training sources need their schema");
    CT_TRY(ct_experiment_load(o->experiment, &run->experiment, status));
    run->design = (online_design){.control = ct_experiment_control(run->experiment), .plan = o->plan, .alpha = o->alpha};
    run->width = EVENTS + o->event_count;
    for (size_t arm = 0; arm < ct_experiment_arm_count(run->experiment); arm++) {
        run->table.arms[arm] = strdup(ct_experiment_arm_name(run->experiment, arm));
        if (run->table.arms[arm] == NULL) return ct_fail_memory(status, 64, "an arm's name");
        run->table.arm_count = arm + 1;
        run->design.weights[arm] = ct_experiment_arm_weight(run->experiment, arm);
        CT_TRY(ct_metrics_collector_create(&run->scores[arm], status));
    }
    CT_TRY(ct_counts_create(&run->numbers, status));
    if (o->slice_count > 0) CT_TRY(live_slices_create(o->slices, o->slice_count, &run->slices, status));
    if (o->training_count == 0) return CT_OK;
    CT_TRY(ct_schema_load(o->schema, &run->schema, status));
    CT_TRY(live_drift_create(run->schema, &run->drift, status));
    return live_drift_train(run->drift, o->training, o->training_count, o->stop, run->warnings, status);
}

/* Were the arms logged at the same rate? */
static bool rates_differ(const live_run *run) {
    double least = INFINITY, most = 0.0;
    for (size_t arm = 0; arm < run->table.arm_count; arm++) {
        if (!(run->logged[arm] > 0.0)) continue;
        const double factor = run->stands_for[arm] / run->logged[arm];
        if (factor < least) least = factor;
        if (factor > most) most = factor;
    }
    return most > least * (1.0 + UNEQUAL_RATES);
}

ct_code ct_live_report(const ct_live_options *options, json_t **out_report, ct_status *status) {
    live_run run = {.options = options, .warnings = json_array()};
    const live_feedback_options feedback = {.folder = options->feedback,
                                            .positive = options->positive,
                                            .events = options->events,
                                            .event_count = options->event_count,
                                            .wait_ms = options->wait_ms,
                                            .until_ms = options->until_ms,
                                            .reading = {options->stop, options->progress}};
    ct_code code;
    CT_TRY_GOTO(code, prepare(&run, status), done);
    CT_TRY_GOTO(code, live_feedback_read(&feedback, &run.feedback, status), done);
    CT_TRY_GOTO(code, live_exposures_open(options->exposures, (live_reading){options->stop, options->progress}, &run.exposures, status),
                done);
    CT_TRY_GOTO(code, take_all(&run, status), done);
    CT_TRY_GOTO(code, read_covariate(&run, status), done);
    run.design.unknown_split = rates_differ(&run);
    run.table.row_count = run.count;
    run.table.rows = malloc(run.count * sizeof *run.table.rows);
    run.first = malloc((run.table.unit_count + 1) * sizeof *run.first);
    if (run.table.rows == NULL || run.first == NULL) {
        code = ct_fail_memory(status, run.count * sizeof *run.table.rows, "the rows");
        goto done;
    }
    code = make_report(&run, out_report, status);
done:
    for (size_t arm = 0; arm < CT_ONLINE_MAX_ARMS; arm++) ct_metrics_collector_destroy(run.scores[arm]);
    online_table_deinit(&run.table);
    live_guardrails_deinit(&run.guardrails);
    live_slices_destroy(run.slices);
    live_drift_destroy(run.drift);
    ct_schema_destroy(run.schema);
    ct_counts_destroy(run.numbers);
    live_exposures_close(run.exposures);
    live_feedback_destroy(run.feedback);
    ct_experiment_destroy(run.experiment);
    free(run.requests);
    free(run.sums);
    free(run.first);
    json_decref(run.warnings);
    return code;
}
