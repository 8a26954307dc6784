/* A run: open the arms; read the test rows, so that faults there are told before the work; train an epoch, each batch given to every model
 * in turn; judge every model that gained on the validation rows on the test rows too, and keep those logits (4 bytes a row and model); and
 * so on, until no model gains any more; differences; report. All models, arms times seeds, are in memory at once. */
#include "experiment/compare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/progress.h"
#include "experiment/compare_internal.h"
#include "experiment/report_internal.h"

enum { PATIENCE = 3 }; /* epochs without a gain, after which a model trains no more, whatever the others do */

/* --- checks --- */

static bool same_file(const char *a, const char *b) {
    struct stat a_stat, b_stat;
    if (strcmp(a, b) == 0) return true;
    if (stat(a, &a_stat) != 0 || stat(b, &b_stat) != 0) return false;
    return S_ISREG(a_stat.st_mode) && a_stat.st_dev == b_stat.st_dev && a_stat.st_ino == b_stat.st_ino;
}

typedef struct source_list {
    const char *role;
    const char *const *names;
    size_t count;
} source_list;

static ct_code check_disjoint(const source_list *a, const source_list *b, ct_status *status) {
    for (size_t i = 0; i < a->count; i++)
        for (size_t j = 0; j < b->count; j++)
            if (same_file(a->names[i], b->names[j]))
                return ct_fail(status, CT_INVALID,
                               "%s is among the %s and the %s sources; a model must not be judged on rows it was trained "
                               "or chosen on",
                               b->names[j], a->role, b->role);
    return CT_OK;
}

/* Sources that are read for each model, after hours of training: a missing one is told now. */
static ct_code check_rereadable(const source_list *list, ct_status *status) {
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->names[i], "-") == 0)
            return ct_fail(status, CT_INVALID,
                           "standard input can be read once, but the %s sources are read for each model; write it to a "
                           "file first",
                           list->role);
        if (list->names[i][0] != '|' && !ct_path_exists(list->names[i])) /* a command is run again each time */
            return ct_fail(status, CT_NOT_FOUND, "%s: no such file (%s source)", list->names[i], list->role);
    }
    return CT_OK;
}

static ct_code check_options(const ct_compare_options *options, ct_status *status) {
    const source_list train = {"training", options->train_sources, options->train_source_count};
    const source_list valid = {"validation", options->valid_sources, options->valid_source_count};
    const source_list test = {"test", options->test_sources, options->test_source_count};
    if (train.count == 0 || test.count == 0) return ct_fail(status, CT_INVALID, "compare needs training and test sources");
    if (options->epochs > 1)
        for (size_t i = 0; i < train.count; i++)
            if (strcmp(train.names[i], "-") == 0)
                return ct_fail(status, CT_INVALID, "standard input can be read once, but %u epochs read the training sources again",
                               options->epochs);
    if (options->seeds == 0 || options->draws == 0 || options->batch_rows == 0)
        return ct_fail(status, CT_INVALID, "compare needs at least one seed, one draw and one row in a batch (%u, %u, %zu)", options->seeds,
                       options->draws, options->batch_rows);
    CT_TRY(check_rereadable(&valid, status));
    CT_TRY(check_rereadable(&test, status));
    CT_TRY(check_disjoint(&train, &valid, status));
    CT_TRY(check_disjoint(&train, &test, status));
    return check_disjoint(&valid, &test, status);
}

/* The field whose training count makes the slices. */
static ct_code find_item(compare_run *run, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    const char *name = ct_arms_item(run->arms_file);
    run->item = -1;
    if (name != NULL) {
        run->item = ct_schema_find(schema, name);
        if (run->item < 0 || schema->fields[run->item].kind != CT_FIELD_ID)
            return ct_fail(status, CT_INVALID, "%s: item: '%s' is no id field of schema %s", run->options->arms_path, name, schema->name);
        if (schema->fields[run->item].value_separator != 0)
            return ct_fail(status, CT_INVALID, "%s: item: '%s' has several values a row; the slices need one", run->options->arms_path,
                           name);
        return CT_OK;
    }
    for (size_t i = 0; i < schema->field_count && run->item < 0; i++)
        if (schema->fields[i].kind == CT_FIELD_VECTOR && schema->fields[schema->fields[i].of].value_separator == 0)
            run->item = (int64_t)schema->fields[i].of;
    return CT_OK;
}

/* The fields by which the report slices, beside items and units. */
static ct_code find_slices(compare_run *run, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    for (size_t i = 0; i < ct_arms_slice_count(run->arms_file); i++) {
        const char *name = ct_arms_slice(run->arms_file, i);
        const int64_t field = ct_schema_find(schema, name);
        const bool good = field >= 0 && !schema->fields[field].derived &&
                          (schema->fields[field].kind == CT_FIELD_NUMBER ||
                           (schema->fields[field].kind == CT_FIELD_ID && schema->fields[field].value_separator == 0));
        if (!good)
            return ct_fail(status, CT_INVALID, "%s: slices: '%s' is no number and no id with one value of schema %s",
                           run->options->arms_path, name, schema->name);
        run->test.fields[run->test.field_count++].field = field;
    }
    return CT_OK;
}

/* --- arms --- */

/* A placebo without a vector would be an A/A arm that calls itself a placebo. */
static ct_code check_placebo(const compare_run *run, const arm_run *arm, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    for (size_t f = 0; f < schema->field_count; f++)
        if (schema->fields[f].kind == CT_FIELD_VECTOR && ct_model_uses_field(arm->models[0], f)) return CT_OK;
    return ct_fail(status, CT_INVALID, "%s: arm '%s': the arm that it is a placebo of has no vector to shuffle", run->options->arms_path,
                   arm->name);
}

static ct_code open_arm(compare_run *run, size_t index, ct_status *status) {
    const ct_compare_options *options = run->options;
    arm_run *arm = &run->arms[index];
    arm->name = ct_arms_name(run->arms_file, index);
    arm->kind = ct_arms_kind(run->arms_file, index);
    CT_TRY(ct_arms_spec(run->arms_file, index, &arm->spec, status));
    arm->models = calloc(options->seeds, sizeof(ct_model *));
    arm->trainers = calloc(options->seeds, sizeof(ct_trainer *));
    arm->logits = calloc(options->seeds, sizeof(float *));
    arm->valid = calloc(options->seeds, sizeof *arm->valid);
    arm->test = calloc(options->seeds, sizeof *arm->test);
    arm->best_epoch = calloc(options->seeds, sizeof *arm->best_epoch);
    arm->stopped = calloc(options->seeds, sizeof *arm->stopped);
    if (!arm->models || !arm->trainers || !arm->logits || !arm->valid || !arm->test || !arm->best_epoch || !arm->stopped)
        return ct_fail_memory(status, options->seeds * sizeof *arm->test, "the arms");
    for (uint32_t s = 0; s < options->seeds; s++) {
        const uint64_t seed = options->seed + s + (arm->kind == CT_ARM_AGAIN ? options->seeds : 0);
        const ct_model_options model = {.seed = seed,
                                        .batch_rows = options->batch_rows,
                                        .device = NULL,
                                        .pool = options->pool,
                                        .no_histories = true,
                                        .shuffle_vectors = arm->kind == CT_ARM_PLACEBO ? ct_hash64(&seed, sizeof seed, 0) | 1 : 0};
        if (ct_model_create(options->schema, arm->spec, &model, &arm->models[s], status) != CT_OK ||
            ct_trainer_create(arm->models[s], 0, &arm->trainers[s], status) != CT_OK)
            return ct_fail_within(status, "%s: arm '%s'", options->arms_path, arm->name);
    }
    return arm->kind == CT_ARM_PLACEBO ? check_placebo(run, arm, status) : CT_OK;
}

static void close_arm(arm_run *arm, uint32_t seeds) {
    for (uint32_t s = 0; s < seeds; s++) {
        if (arm->trainers != NULL) ct_trainer_destroy(arm->trainers[s]);
        if (arm->models != NULL) ct_model_destroy(arm->models[s]);
        if (arm->logits != NULL) free(arm->logits[s]);
    }
    free(arm->trainers);
    free(arm->models);
    free(arm->logits);
    free(arm->valid);
    free(arm->test);
    free(arm->best_epoch);
    free(arm->stopped);
    ct_model_spec_destroy(arm->spec);
}

/* --- training --- */

static ct_code train_batch(compare_run *run, const ct_batch *batch, uint32_t epoch, ct_status *status) {
    for (size_t a = 0; a < run->arm_count; a++) {
        arm_run *arm = &run->arms[a];
        const int64_t started = ct_clock_ns();
        for (uint32_t s = 0; s < run->options->seeds; s++)
            if (!arm->stopped[s] && ct_trainer_batch(arm->trainers[s], batch, epoch, status) != CT_OK)
                return ct_fail_within(status, "arm '%s', seed %llu", arm->name, (unsigned long long)ct_model_seed(arm->models[s]));
        arm->train_ns += ct_clock_ns() - started;
    }
    return epoch == 0 ? test_rows_compare(run, batch, status) : CT_OK;
}

ct_reader_options compare_reader(const ct_compare_options *options, const char *const *sources, size_t count) {
    ct_reader_options reader = CT_READER_OPTIONS_INIT;
    reader.sources = sources;
    reader.source_count = count;
    reader.batch_rows = options->batch_rows;
    reader.stop = options->stop;
    return reader;
}

static ct_code train_epoch(compare_run *run, uint32_t epoch, ct_status *status) {
    const ct_compare_options *options = run->options;
    ct_reader_options reading = compare_reader(options, options->train_sources, options->train_source_count);
    if (run->learned != NULL) ct_histories_clear(run->learned); /* told anew in each epoch */
    reading.histories = run->learned;
    reading.live = true;
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_progress progress;
    int64_t rows = 0;
    const int64_t started = ct_clock_ns();
    CT_TRY(ct_reader_open(options->schema, &reading, &reader, status));
    if (options->progress) ct_progress_init(&progress);
    ct_code code = CT_OK;
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        code = train_batch(run, batch, epoch, status);
        rows += (int64_t)batch->rows;
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        if (options->progress)
            ct_progress_update(&progress, "training %zu models, epoch %u, %lld rows, %.0f rows/s", run->arm_count * options->seeds,
                               epoch + 1, (long long)rows, (double)rows / ((double)(ct_clock_ns() - started) / 1e9));
    }
    if (options->progress) ct_progress_finish(&progress);
    ct_reader_report(reader, &run->train_report);
    ct_reader_close(reader);
    if (code != CT_END) return code;
    if (rows > 0) return CT_OK;
    const ct_read_report *report = &run->train_report;
    return ct_fail(status, CT_INVALID, "%s: no good row to train on (%lld bad ones)%s%s", options->train_sources[0],
                   (long long)report->bad_total, report->shown > 0 ? "; the first: " : "", report->shown > 0 ? report->first_bad[0] : "");
}

/* --- judging --- */

typedef struct collection {
    size_t rows, count; /* of the test; so far */
    float *logits;      /* (rows) */
} collection;

static ct_code collect(void *context, const ct_batch *batch, const float *logits, const float *probabilities, ct_status *status) {
    (void)probabilities;
    collection *c = context;
    if (c->count + batch->rows > c->rows)
        return ct_fail(status, CT_INVALID, "the test sources changed between two readings: more than %zu rows", c->rows);
    memcpy(c->logits + c->count, logits, batch->rows * sizeof *logits);
    c->count += batch->rows;
    return CT_OK;
}

/* Evaluates with histories that begin as `begin` and go on with the rows: live features of a frozen model. out_end: where they end, the
 * caller's; may be NULL. Without histories all of these are NULL. */
static ct_code evaluate_live(ct_model *model, ct_evaluate_options *evaluation, const ct_histories *begin, ct_metrics *out_metrics,
                             ct_read_report *out_report, ct_histories **out_end, ct_status *status) {
    ct_histories *histories = NULL;
    if (begin != NULL) CT_TRY(ct_histories_copy(begin, &histories, status));
    evaluation->reader.histories = histories;
    evaluation->reader.live = true;
    const ct_code code = ct_evaluate(model, evaluation, out_metrics, out_report, status);
    if (code == CT_OK && out_end != NULL)
        *out_end = histories;
    else
        ct_histories_destroy(histories);
    return code;
}

/* The test rows' logits of one model, in the place of those of an earlier epoch. */
static ct_code judge_model(compare_run *run, arm_run *arm, uint32_t seed, ct_status *status) {
    const ct_compare_options *options = run->options;
    if (arm->logits[seed] == NULL) arm->logits[seed] = malloc(run->test.count * sizeof(float));
    if (arm->logits[seed] == NULL) return ct_fail_memory(status, run->test.count * sizeof(float), "the predictions");
    collection c = {run->test.count, 0, arm->logits[seed]};
    ct_evaluate_options evaluation = {.pool = options->pool,
                                      .progress = options->progress,
                                      .reader = compare_reader(options, options->test_sources, options->test_source_count),
                                      .predictions = collect,
                                      .predictions_context = &c};
    const ct_histories *begin = run->after_valid != NULL ? run->after_valid : run->learned;
    ct_histories *end = NULL;
    CT_TRY(evaluate_live(arm->models[seed], &evaluation, begin, &arm->test[seed], &run->test_report, &end, status));
    if (end != NULL) run->late_rows = ct_histories_late(end);
    ct_histories_destroy(end);
    if (c.count != run->test.count)
        return ct_fail(status, CT_INVALID, "the test sources changed between two readings: %zu rows, then %zu", run->test.count, c.count);
    return CT_OK;
}

/* Judges the model where this is its best epoch so far. */
static ct_code judge_epoch(compare_run *run, arm_run *arm, uint32_t seed, uint32_t epoch, bool *out_better, ct_status *status) {
    const ct_compare_options *options = run->options;
    *out_better = true;
    if (options->valid_source_count > 0) {
        ct_metrics valid;
        ct_evaluate_options evaluation = {.pool = options->pool,
                                          .progress = options->progress,
                                          .reader = compare_reader(options, options->valid_sources, options->valid_source_count)};
        ct_histories **end = run->after_valid == NULL ? &run->after_valid : NULL; /* the same after each epoch and model */
        CT_TRY(evaluate_live(arm->models[seed], &evaluation, run->learned, &valid, &run->valid_report, end, status));
        *out_better = epoch == 0 || valid.log_loss < arm->valid[seed].log_loss;
        if (!*out_better) return CT_OK;
        arm->valid[seed] = valid;
    }
    arm->best_epoch[seed] = epoch;
    return judge_model(run, arm, seed, status);
}

static ct_code train_and_judge(compare_run *run, ct_status *status) {
    const ct_compare_options *options = run->options;
    const bool chooses = options->valid_source_count > 0;
    const uint32_t epochs = options->epochs > 0 ? options->epochs : 1;
    bool training = true;
    for (uint32_t epoch = 0; epoch < epochs && training; epoch++) {
        CT_TRY(train_epoch(run, epoch, status));
        run->epochs = epoch + 1;
        training = false;
        for (size_t a = 0; a < run->arm_count; a++)
            for (uint32_t s = 0; s < options->seeds; s++) {
                arm_run *arm = &run->arms[a];
                bool better = true;
                if (arm->stopped[s]) continue;
                arm->epochs++;
                if ((chooses || epoch + 1 == epochs) && judge_epoch(run, arm, s, epoch, &better, status) != CT_OK)
                    return ct_fail_within(status, "arm '%s', seed %llu", arm->name, (unsigned long long)ct_model_seed(arm->models[s]));
                arm->stopped[s] = !better && epoch >= arm->best_epoch[s] + PATIENCE;
                training = training || !arm->stopped[s];
            }
    }
    return CT_OK;
}

/* --- all of it --- */

static ct_code open_run(compare_run *run, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    CT_TRY(ct_arms_load(run->options->arms_path, &run->arms_file, status));
    run->unit = ct_schema_find_kind(schema, CT_FIELD_UNIT);
    run->group = ct_schema_find_kind(schema, CT_FIELD_GROUP);
    if (run->group < 0) run->group = run->unit; /* as ct_evaluate does */
    run->time = ct_schema_find_kind(schema, CT_FIELD_TIME);
    run->warnings = json_array();
    const size_t arms = ct_arms_count(run->arms_file);
    run->arms = calloc(arms, sizeof *run->arms);
    if (run->arms == NULL || run->warnings == NULL) return ct_fail_memory(status, arms * sizeof *run->arms, "the arms");
    run->arm_count = arms;
    CT_TRY(find_item(run, status));
    CT_TRY(find_slices(run, status));
    if (run->item >= 0) CT_TRY(ct_counts_create(&run->item_counts, status));
    if (run->unit >= 0) CT_TRY(ct_counts_create(&run->unit_counts, status));
    if (ct_schema_has_histories(schema)) CT_TRY(ct_histories_create(schema, &run->learned, status));
    for (size_t a = 0; a < arms; a++) CT_TRY(open_arm(run, a, status));
    return CT_OK;
}

ct_code ct_compare_run(const ct_compare_options *options, json_t **out_report, ct_status *status) {
    ct_compare_options given = *options;
    if (given.ndcg_at == 0) given.ndcg_at = 10;
    compare_run run = {.options = &given};
    ct_code code = CT_OK;
    CT_TRY(check_options(&given, status));
    CT_TRY_GOTO(code, open_run(&run, status), done);
    CT_TRY_GOTO(code, test_rows_read(&run, status), done);
    run.decides = run.test.groups != NULL ? CT_TALLY_GROUPED_AUC : CT_TALLY_AUC;
    CT_TRY_GOTO(code, train_and_judge(&run, status), done);
    CT_TRY_GOTO(code, slices_make(&run, status), done);
    code = compare_report(&run, out_report, status);
done:
    for (size_t a = 0; a < run.arm_count; a++) close_arm(&run.arms[a], options->seeds);
    free(run.arms);
    ct_counts_destroy(run.item_counts);
    ct_counts_destroy(run.unit_counts);
    ct_histories_destroy(run.learned);
    ct_histories_destroy(run.after_valid);
    slices_deinit(&run.slices);
    test_rows_deinit(&run.test);
    json_decref(run.warnings);
    ct_arms_destroy(run.arms_file);
    return code;
}
