/* Differences between arms, by slice: concordances of all models of a slice, one set of draws for all, then every pair. */
#include <math.h>
#include <stdlib.h>

#include "base/progress.h"
#include "base/text.h"
#include "experiment/compare_internal.h"

typedef struct slice_run {
    const compare_run *run;
    size_t models;                      /* arms * seeds; model = arm * seeds + seed */
    const bool *mask;                   /* NULL = all rows */
    ct_concordance **concordances;      /* (models) */
    ct_status *statuses;                /* (models) */
    double *auc, *log_loss;             /* (models, draws) */
    double *whole_auc, *whole_log_loss; /* (models) */
} slice_run;

static void concordance_task(void *context, size_t model, size_t worker) {
    (void)worker;
    slice_run *s = context;
    const compare_run *run = s->run;
    const size_t seeds = run->options->seeds;
    const float *logits = run->arms[model / seeds].logits[model % seeds];
    const ct_code code = ct_concordance_create(logits, run->test.labels, run->test.clusters, s->mask, run->test.count,
                                               run->test.cluster_count, &s->concordances[model], &s->statuses[model]);
    s->statuses[model].code = code;
}

static void slice_free_concordances(slice_run *s) {
    for (size_t i = 0; i < s->models; i++) {
        ct_concordance_destroy(s->concordances[i]);
        s->concordances[i] = NULL;
    }
}

static ct_code slice_values(slice_run *s, ct_status *status) {
    const ct_compare_options *options = s->run->options;
    for (size_t i = 0; i < s->models; i++) s->statuses[i] = (ct_status)CT_STATUS_INIT;
    ct_pool_run(options->pool, s->models, concordance_task, s);
    for (size_t i = 0; i < s->models; i++) {
        if (s->statuses[i].code == CT_OK) continue;
        *status = s->statuses[i];
        return status->code;
    }
    for (size_t i = 0; i < s->models; i++) {
        s->whole_auc[i] = ct_concordance_auc(s->concordances[i], NULL);
        s->whole_log_loss[i] = ct_concordance_log_loss(s->concordances[i], NULL);
    }
    return ct_bootstrap_values(s->concordances, s->models, options->seed, options->draws, options->pool, s->auc, s->log_loss, status);
}

static double mean_of(const double *values, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) sum += values[i];
    return sum / (double)count;
}

static json_t *interval_json(double a, double b, const ct_interval *interval) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:I}", "a", ct_json_real(a), "b", ct_json_real(b), "difference",
                     ct_json_real(interval->estimate), "low", ct_json_real(interval->low), "high", ct_json_real(interval->high), "draws",
                     (json_int_t)interval->draws);
}

static const char *verdict_of(double rows, double clicks, const ct_interval *auc) {
    if (clicks < FEW_CLICKS || rows - clicks < FEW_CLICKS || isnan(auc->low)) return "too few clicks";
    return auc->low > 0.0 ? "B better" : auc->high < 0.0 ? "A better" : "no difference shown";
}

static ct_code pair_json(const slice_run *s, slice kind, size_t a, size_t b, json_t **out_json, ct_status *status) {
    const ct_compare_options *options = s->run->options;
    const size_t seeds = options->seeds, a_model = a * seeds, b_model = b * seeds;
    const double rows = ct_concordance_rows(s->concordances[0]), clicks = ct_concordance_clicks(s->concordances[0]);
    json_t *intervals[2];
    ct_interval auc = {0};
    for (int metric = 0; metric < 2; metric++) {
        const double *whole = metric == 0 ? s->whole_auc : s->whole_log_loss, *values = metric == 0 ? s->auc : s->log_loss;
        const ct_bootstrap_side side_a = {whole + a_model, values + a_model * options->draws};
        const ct_bootstrap_side side_b = {whole + b_model, values + b_model * options->draws};
        ct_interval interval;
        const ct_code code = ct_bootstrap_interval(&side_a, &side_b, seeds, options->seed, options->draws, &interval, status);
        if (code != CT_OK) {
            if (metric == 1) json_decref(intervals[0]);
            return code;
        }
        if (metric == 0) auc = interval;
        intervals[metric] = interval_json(mean_of(side_a.whole, seeds), mean_of(side_b.whole, seeds), &interval);
    }
    *out_json = json_pack("{s:s, s:I, s:I, s:o, s:o, s:s}", "slice", slice_names[kind], "rows", (json_int_t)rows, "clicks",
                          (json_int_t)clicks, "auc", intervals[0], "log_loss", intervals[1], "verdict", verdict_of(rows, clicks, &auc));
    return *out_json == NULL ? ct_fail_memory(status, 1024, "the report") : CT_OK;
}

/* Appends this slice to every comparison, which stand in the order of the pairs. */
static ct_code slice_pairs(const slice_run *s, slice kind, json_t *comparisons, ct_status *status) {
    size_t pair = 0;
    for (size_t a = 0; a < s->run->arm_count; a++) {
        for (size_t b = a + 1; b < s->run->arm_count; b++, pair++) {
            json_t *json = NULL;
            CT_TRY(pair_json(s, kind, a, b, &json, status));
            if (json_array_append_new(json_object_get(json_array_get(comparisons, pair), "slices"), json) != 0)
                return ct_fail_memory(status, 1024, "the report");
        }
    }
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

ct_code compare_differences(const compare_run *run, json_t **out_json, ct_status *status) {
    static const slice order[SLICES] = {SLICE_ALL, SLICE_NEW, SLICE_COLD, SLICE_WARM, SLICE_HOT};
    const ct_compare_options *options = run->options;
    const size_t models = run->arm_count * options->seeds, values = models * options->draws;
    slice_run s = {.run = run, .models = models};
    ct_code code = CT_OK;
    ct_progress progress;
    if (options->progress) ct_progress_init(&progress);
    json_t *comparisons = comparisons_json(run);
    bool *mask = malloc((run->test.count + 1) * sizeof *mask);
    s.concordances = calloc(models, sizeof *s.concordances);
    s.statuses = calloc(models, sizeof *s.statuses);
    s.auc = malloc(values * sizeof *s.auc);
    s.log_loss = malloc(values * sizeof *s.log_loss);
    s.whole_auc = malloc(models * sizeof *s.whole_auc);
    s.whole_log_loss = malloc(models * sizeof *s.whole_log_loss);
    if (!comparisons || !mask || !s.concordances || !s.statuses || !s.auc || !s.log_loss || !s.whole_auc || !s.whole_log_loss) {
        code = ct_fail_memory(status, values * 16 + run->test.count, "the comparison");
        goto done;
    }
    for (size_t i = 0; i < (run->test.slices != NULL ? SLICES : 1); i++) {
        const slice kind = order[i];
        if (options->progress) ct_progress_update(&progress, "comparing %zu models on %s items", models, slice_names[kind]);
        if (options->stop != NULL && atomic_load(options->stop)) {
            code = ct_fail(status, CT_CANCELLED, "the comparison was stopped");
            goto done;
        }
        for (size_t row = 0; kind != SLICE_ALL && row < run->test.count; row++) mask[row] = run->test.slices[row] == kind;
        s.mask = kind == SLICE_ALL ? NULL : mask;
        CT_TRY_GOTO(code, slice_values(&s, status), done);
        CT_TRY_GOTO(code, slice_pairs(&s, kind, comparisons, status), done);
        slice_free_concordances(&s);
    }
    *out_json = comparisons;
    comparisons = NULL;
done:
    if (options->progress) ct_progress_finish(&progress);
    json_decref(comparisons);
    if (s.concordances != NULL) slice_free_concordances(&s);
    free(s.concordances);
    free(mask);
    free(s.statuses);
    free(s.auc);
    free(s.log_loss);
    free(s.whole_auc);
    free(s.whole_log_loss);
    return code;
}
