/* Differences between arms, by slice: tallies of all models of a slice, one set of draws for all, then every pair, then Holm's correction
 * over the slice's pairs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/progress.h"
#include "experiment/compare_internal.h"

enum { METRICS = CT_TALLY_METRICS };

typedef struct slice_run {
    const compare_run *run;
    size_t models, pairs; /* models: arms * seeds; model = arm * seeds + seed */
    bool *mask;           /* (test rows) */
    bool masked;          /* false: all rows */
    size_t cluster_count; /* 1 where nothing is resampled */
    const uint32_t *clusters;
    ct_tally **tallies;     /* (models) */
    ct_status *statuses;    /* (models) */
    double *values;         /* (models, METRICS, draws) */
    double *whole;          /* (METRICS, models) */
    ct_interval *intervals; /* (pairs, METRICS) */
    double *adjusted;       /* (pairs): p of the metric that decides, after Holm */
} slice_run;

static void tally_task(void *context, size_t model, size_t worker) {
    (void)worker;
    slice_run *s = context;
    const compare_run *run = s->run;
    const test_rows *test = &run->test;
    const size_t seeds = run->options->seeds;
    const ct_tally_input input = {.logits = run->arms[model / seeds].logits[model % seeds],
                                  .labels = test->labels,
                                  .clusters = s->clusters,
                                  .mask = s->masked ? s->mask : NULL,
                                  .n = test->count,
                                  .cluster_count = s->cluster_count,
                                  .groups = test->groups != NULL ? &test->by_group : NULL,
                                  .ndcg_at = run->options->ndcg_at};
    const ct_code code = ct_tally_create(&input, &s->tallies[model], &s->statuses[model]);
    s->statuses[model].code = code;
}

static void free_tallies(slice_run *s) {
    for (size_t i = 0; i < s->models; i++) {
        ct_tally_destroy(s->tallies[i]);
        s->tallies[i] = NULL;
    }
}

static ct_code make_tallies(slice_run *s, ct_status *status) {
    for (size_t i = 0; i < s->models; i++) s->statuses[i] = (ct_status)CT_STATUS_INIT;
    ct_pool_run(s->run->options->pool, s->models, tally_task, s);
    for (size_t i = 0; i < s->models; i++) {
        if (s->statuses[i].code == CT_OK) continue;
        *status = s->statuses[i];
        return status->code;
    }
    return CT_OK;
}

static void choose_rows(slice_run *s, const uint8_t *codes, uint8_t first, uint8_t last) {
    s->masked = codes != NULL;
    for (size_t row = 0; s->masked && row < s->run->test.count; row++) s->mask[row] = codes[row] >= first && codes[row] <= last;
}

/* --- verdicts --- */

/* Decided on grouped AUC where there are groups enough, else on AUC. */
static bool few_clicks(const slice_run *s) {
    const double rows = ct_tally_rows(s->tallies[0]), clicks = ct_tally_clicks(s->tallies[0]);
    return clicks < FEW_CLICKS || rows - clicks < FEW_CLICKS;
}

static bool has_verdict(const slice_run *s, const ct_interval *interval) {
    if (few_clicks(s) || isnan(interval->low)) return false;
    return s->run->decides != CT_TALLY_GROUPED_AUC || ct_tally_groups_ranked(s->tallies[0]) >= FEW_GROUPS;
}

static const char *verdict_of(const slice_run *s, const ct_interval *interval, double adjusted) {
    if (few_clicks(s)) return "too few clicks";
    if (!has_verdict(s, interval)) return "too few groups";
    const bool better = interval->low > 0.0, worse = interval->high < 0.0;
    if (!better && !worse) return "no difference shown";
    if (adjusted > 0.05) return better ? "B ahead, not sure" : "A ahead, not sure";
    return better ? "B better" : "A better";
}

/* --- intervals --- */

static ct_code pair_intervals(slice_run *s, size_t pair, size_t a, size_t b, ct_status *status) {
    const ct_compare_options *options = s->run->options;
    const size_t seeds = options->seeds, draws = options->draws, stride = (size_t)METRICS * draws;
    for (size_t m = 0; m < METRICS; m++) {
        const double *whole = s->whole + m * s->models, *values = s->values + m * draws;
        const ct_bootstrap_side side_a = {whole + a * seeds, values + a * seeds * stride, stride};
        const ct_bootstrap_side side_b = {whole + b * seeds, values + b * seeds * stride, stride};
        CT_TRY(ct_bootstrap_interval(&side_a, &side_b, seeds, options->seed, options->draws, &s->intervals[pair * METRICS + m], status));
    }
    return CT_OK;
}

static ct_code slice_intervals(slice_run *s, ct_status *status) {
    const compare_run *run = s->run;
    for (size_t m = 0; m < METRICS; m++)
        for (size_t i = 0; i < s->models; i++) s->whole[m * s->models + i] = ct_tally_value(s->tallies[i], (ct_tally_metric)m);
    CT_TRY(ct_bootstrap_values(s->tallies, s->models, run->options->seed, run->options->draws, run->options->pool, s->values, status));
    size_t pair = 0;
    for (size_t a = 0; a < run->arm_count; a++)
        for (size_t b = a + 1; b < run->arm_count; b++, pair++) {
            CT_TRY(pair_intervals(s, pair, a, b, status));
            const ct_interval *decides = &s->intervals[pair * METRICS + run->decides];
            s->adjusted[pair] = has_verdict(s, decides) ? decides->p : (double)NAN;
        }
    return ct_holm(s->adjusted, s->pairs, status);
}

/* --- JSON --- */

static double mean_of(const double *values, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) sum += values[i];
    return sum / (double)count;
}

static json_t *interval_json(double a, double b, const ct_interval *interval) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I}", "a", ct_json_real(a), "b", ct_json_real(b), "difference",
                     ct_json_real(interval->estimate), "low", ct_json_real(interval->low), "high", ct_json_real(interval->high), "p",
                     ct_json_real(interval->p), "draws", (json_int_t)interval->draws);
}

static json_t *pair_json(const slice_run *s, const slice *slice, size_t pair, size_t a, size_t b) {
    const size_t seeds = s->run->options->seeds;
    const ct_interval *intervals = &s->intervals[pair * METRICS];
    const bool grouped = s->run->test.groups != NULL;
    json_t *json = json_pack("{s:s, s:s, s:I, s:I, s:o}", "of", slice->of, "slice", slice->name, "rows",
                             (json_int_t)ct_tally_rows(s->tallies[0]), "clicks", (json_int_t)ct_tally_clicks(s->tallies[0]), "groups",
                             grouped ? json_integer((json_int_t)ct_tally_groups_ranked(s->tallies[0])) : json_null());
    for (size_t m = 0; m < METRICS && json != NULL; m++) {
        const double *whole = s->whole + m * s->models;
        if (!grouped && (m == CT_TALLY_GROUPED_AUC || m == CT_TALLY_NDCG || m == CT_TALLY_MRR)) continue;
        json_object_set_new(json, ct_tally_names[m],
                            interval_json(mean_of(whole + a * seeds, seeds), mean_of(whole + b * seeds, seeds), &intervals[m]));
    }
    json_object_set_new(json, "p_corrected", ct_json_real(s->adjusted[pair]));
    json_object_set_new(json, "verdict", json_string(verdict_of(s, &intervals[s->run->decides], s->adjusted[pair])));
    return json;
}

/* Appends this slice to every comparison, which stand in the order of the pairs. */
static ct_code append_pairs(const slice_run *s, const slice *slice, json_t *comparisons, ct_status *status) {
    size_t pair = 0;
    for (size_t a = 0; a < s->run->arm_count; a++)
        for (size_t b = a + 1; b < s->run->arm_count; b++, pair++)
            if (json_array_append_new(json_object_get(json_array_get(comparisons, pair), "slices"), pair_json(s, slice, pair, a, b)) != 0)
                return ct_fail_memory(status, 1024, "the report");
    return CT_OK;
}

static json_t *comparisons_json(const compare_run *run) {
    json_t *comparisons = json_array();
    for (size_t a = 0; a < run->arm_count; a++)
        for (size_t b = a + 1; b < run->arm_count; b++)
            json_array_append_new(comparisons, json_pack("{s:s, s:s, s:b, s:[]}", "a", run->arms[a].name, "b", run->arms[b].name, "control",
                                                         a == 0, "slices"));
    return comparisons;
}

/* --- all of it --- */

static void slice_run_deinit(slice_run *s) {
    if (s->tallies != NULL) free_tallies(s);
    free(s->tallies);
    free(s->statuses);
    free(s->mask);
    free(s->values);
    free(s->whole);
    free(s->intervals);
    free(s->adjusted);
}

static ct_code slice_run_init(slice_run *s, const compare_run *run, ct_status *status) {
    const size_t models = run->arm_count * run->options->seeds, pairs = run->arm_count * (run->arm_count - 1) / 2;
    const size_t values = models * METRICS * run->options->draws;
    *s = (slice_run){.run = run, .models = models, .pairs = pairs};
    s->clusters = run->test.clusters;
    s->cluster_count = run->test.cluster_count;
    s->mask = malloc((run->test.count + 1) * sizeof *s->mask);
    s->tallies = calloc(models, sizeof *s->tallies);
    s->statuses = calloc(models, sizeof *s->statuses);
    s->values = malloc(values * sizeof *s->values);
    s->whole = malloc(models * METRICS * sizeof *s->whole);
    s->intervals = malloc(pairs * METRICS * sizeof *s->intervals);
    s->adjusted = malloc(pairs * sizeof *s->adjusted);
    if (s->mask == NULL || s->tallies == NULL || s->statuses == NULL || s->values == NULL || s->whole == NULL || s->intervals == NULL ||
        s->adjusted == NULL) {
        slice_run_deinit(s);
        return ct_fail_memory(status, values * sizeof *s->values + run->test.count, "the comparison");
    }
    return CT_OK;
}

ct_code compare_differences(const compare_run *run, json_t **out_json, ct_status *status) {
    const ct_compare_options *options = run->options;
    slice_run s;
    ct_code code = CT_OK;
    ct_progress progress;
    CT_TRY(slice_run_init(&s, run, status));
    json_t *comparisons = comparisons_json(run);
    if (options->progress) ct_progress_init(&progress);
    for (size_t i = 0; i < run->slices.count; i++) {
        const slice *slice = &run->slices.list[i];
        if (options->progress) ct_progress_update(&progress, "comparing %zu models, slice %zu of %zu", s.models, i + 1, run->slices.count);
        if (options->stop != NULL && atomic_load(options->stop)) {
            code = ct_fail(status, CT_CANCELLED, "the comparison was stopped");
            goto done;
        }
        choose_rows(&s, slice->codes, slice->first, slice->last);
        CT_TRY_GOTO(code, make_tallies(&s, status), done);
        CT_TRY_GOTO(code, slice_intervals(&s, status), done);
        CT_TRY_GOTO(code, append_pairs(&s, slice, comparisons, status), done);
        free_tallies(&s);
    }
    *out_json = comparisons;
    comparisons = NULL;
done:
    if (options->progress) ct_progress_finish(&progress);
    json_decref(comparisons);
    slice_run_deinit(&s);
    return code;
}

/* --- quality over the item's training count --- */

ct_code compare_item_curve(const compare_run *run, json_t **out_json, ct_status *status) {
    slice_run s;
    ct_code code = CT_OK;
    if (run->slices.bucket == NULL) {
        *out_json = json_null();
        return CT_OK;
    }
    CT_TRY(slice_run_init(&s, run, status));
    uint32_t *one = calloc(run->test.count + 1, sizeof *one); /* all rows in one cluster: nothing is resampled */
    json_t *curve = json_array();
    if (one == NULL) {
        code = ct_fail_memory(status, run->test.count * sizeof *one, "the comparison");
        goto done;
    }
    s.clusters = one;
    s.cluster_count = 1;
    for (uint8_t bucket = 0; bucket < ITEM_BUCKETS; bucket++) {
        choose_rows(&s, run->slices.bucket, bucket, bucket);
        CT_TRY_GOTO(code, make_tallies(&s, status), done);
        json_t *arms = json_array();
        for (size_t a = 0; a < run->arm_count; a++) {
            double auc = 0.0;
            for (size_t i = 0; i < run->options->seeds; i++)
                auc += ct_tally_value(s.tallies[a * run->options->seeds + i], CT_TALLY_AUC) / (double)run->options->seeds;
            json_array_append_new(arms, ct_json_real(auc));
        }
        json_array_append_new(
            curve, json_pack("{s:I, s:I, s:I, s:o}", "least", (json_int_t)item_bucket_least[bucket], "rows",
                             (json_int_t)ct_tally_rows(s.tallies[0]), "clicks", (json_int_t)ct_tally_clicks(s.tallies[0]), "auc", arms));
        free_tallies(&s);
    }
    *out_json = curve;
    curve = NULL;
done:
    json_decref(curve);
    free(one);
    slice_run_deinit(&s);
    return code;
}
