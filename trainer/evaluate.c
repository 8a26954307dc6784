/* Metrics of a model on sources: read, score on all threads, collect in the log's order. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/progress.h"
#include "trainer/trainer.h"

typedef struct evaluation {
    ct_model *model;
    const ct_evaluate_options *options;
    ct_reader_options reader;
    ct_scorer **scorers; /* (threads) */
    ct_metrics_collector *collector;
    float *logits, *probabilities; /* (batch_rows, outputs) */
    int64_t label, weight, group;  /* fields, -1 = none */
} evaluation;

static ct_code evaluate_batch(evaluation *run, const ct_batch *batch, ct_status *status) {
    const size_t outputs = ct_model_output_count(run->model);
    CT_TRY(ct_scorers_run(run->scorers, run->options->pool, batch, run->logits, status));
    const ct_column *weight = run->weight >= 0 ? &batch->columns[run->weight] : NULL;
    const ct_column *group = run->group >= 0 ? &batch->columns[run->group] : NULL;
    const float *labels = ct_column_f32(&batch->columns[run->label]);
    const float *weights = weight != NULL && weight->present ? ct_column_f32(weight) : NULL;
    const uint64_t *groups = group != NULL && group->present ? ct_column_u64(group) : NULL;
    CT_TRY(ct_metrics_collector_add(run->collector, run->logits, labels, weights, groups, batch->rows, status));
    if (run->options->slices != NULL) CT_TRY(ct_slices_add(run->options->slices, batch, run->logits, labels, weights, groups, status));
    if (run->options->importance != NULL)
        CT_TRY(ct_importance_add(run->options->importance, run->scorers, batch, run->logits, labels, weights, status));
    if (run->options->predictions == NULL) return CT_OK;
    ct_probabilities(run->logits, run->probabilities, batch->rows * outputs);
    return run->options->predictions(run->options->predictions_context, batch, run->logits, run->probabilities, status);
}

static ct_code evaluate_rows(evaluation *run, ct_read_report *out_report, ct_status *status) {
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_progress progress;
    int64_t rows = 0;
    const int64_t started = ct_clock_ns();
    CT_TRY(ct_reader_open(ct_model_schema(run->model), &run->reader, &reader, status));
    if (run->options->progress) ct_progress_init(&progress);
    ct_code code = CT_OK;
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        code = evaluate_batch(run, batch, status);
        rows += (int64_t)batch->rows;
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        if (run->options->progress)
            ct_progress_update(&progress, "evaluated %lld rows, %.0f rows/s", (long long)rows,
                               (double)rows / ((double)(ct_clock_ns() - started) / 1e9));
    }
    if (run->options->progress) ct_progress_finish(&progress);
    ct_reader_report(reader, out_report);
    ct_reader_close(reader);
    return code == CT_END ? CT_OK : code;
}

ct_code ct_evaluate(ct_model *model, const ct_evaluate_options *options, ct_metrics *out_metrics, ct_read_report *out_report,
                    ct_status *status) {
    const ct_schema *schema = ct_model_schema(model);
    ct_read_report report;
    evaluation run = {.model = model, .options = options, .reader = options->reader};
    ct_code code = CT_OK;
    if (options->importance != NULL) {
        run.reader.batch_rows = CT_IMPORTANCE_WINDOW_ROWS;
        run.reader.lookahead = 2; /* windows are large, and reading is not what takes long */
    }
    ct_histories *live = NULL;
    const size_t threads = ct_pool_threads(options->pool), values = run.reader.batch_rows * ct_model_output_count(model);
    run.label = ct_schema_find_kind(schema, CT_FIELD_LABEL);
    run.weight = ct_schema_find_kind(schema, CT_FIELD_WEIGHT);
    run.group = ct_schema_find_kind(schema, CT_FIELD_GROUP);
    if (run.group < 0) run.group = ct_schema_find_kind(schema, CT_FIELD_UNIT);
    if (run.label < 0) return ct_fail(status, CT_INVALID, "schema %s has no label; evaluation needs one", schema->name);
    run.scorers = calloc(threads, sizeof(ct_scorer *));
    run.logits = malloc(values * sizeof(float));
    run.probabilities = malloc(values * sizeof(float));
    if (run.scorers == NULL || run.logits == NULL || run.probabilities == NULL) {
        code = ct_fail_memory(status, values * sizeof(float), "evaluation");
        goto done;
    }
    if (run.reader.histories == NULL && ct_model_histories(model) != NULL) {
        if (options->live) CT_TRY_GOTO(code, ct_histories_copy(ct_model_histories(model), &live, status), done);
        run.reader.histories = live != NULL ? live : ct_model_histories(model);
        run.reader.live = options->live;
    }
    for (size_t i = 0; i < threads; i++) CT_TRY_GOTO(code, ct_scorer_create(model, &run.scorers[i], status), done);
    CT_TRY_GOTO(code, ct_metrics_collector_create(&run.collector, status), done);
    CT_TRY_GOTO(code, evaluate_rows(&run, &report, status), done);
    if (report.rows == 0) {
        code = ct_fail(status, CT_INVALID, "%s: no good row to evaluate (%lld bad ones)%s%s", options->reader.sources[0],
                       (long long)report.bad_total, report.shown > 0 ? "; the first: " : "", report.shown > 0 ? report.first_bad[0] : "");
        goto done;
    }
    CT_TRY_GOTO(code, ct_metrics_collector_finish(run.collector, out_metrics, status), done);
    *out_report = report;
done:
    if (run.scorers != NULL)
        for (size_t i = 0; i < threads; i++) ct_scorer_destroy(run.scorers[i]);
    free(run.scorers);
    ct_metrics_collector_destroy(run.collector);
    free(run.logits);
    free(run.probabilities);
    ct_histories_destroy(live);
    return code;
}
