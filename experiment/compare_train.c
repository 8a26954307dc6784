/* Training and judging. Arms train in groups. In a pass over the log each batch is given to every model of the group that stands at this
 * epoch, in turn; behind the pass each of them is judged on the validation rows and, where it gained, on the test rows too. A model is
 * finished after the last epoch, or three epochs after its best one. So nothing that one model does depends on another one, and the results
 * are the same for any grouping, and when models of one group stand at different epochs because an earlier run ended between their
 * saves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/progress.h"
#include "experiment/compare_internal.h"

enum { PATIENCE = 8 }; /* epochs without a gain */

typedef struct group {
    size_t first, last;    /* arms [first, last) */
    size_t models;         /* that train */
    uint64_t memory_bytes; /* of each, without its vectors; 0 = no limit */
    ct_model **open;       /* (models) */
    size_t open_count;
    float *logits; /* (batch_rows): of a batch that is learned, which nobody asks for */
} group;

uint32_t compare_epochs(const compare_run *run) { return run->options->epochs > 0 ? run->options->epochs : 1; }

size_t compare_together(const compare_run *run) {
    const size_t asked = run->options->parallel_arms;
    return asked > 0 && asked < run->arm_count ? asked : run->arm_count;
}

bool compare_finished(const compare_run *run, const arm_run *arm, uint32_t seed) {
    if (arm->epochs[seed] >= compare_epochs(run)) return true;
    return run->options->valid_source_count > 0 && arm->epochs[seed] > arm->best_epoch[seed] + PATIENCE;
}

ct_code compare_fail_arm(const arm_run *arm, uint64_t seed, ct_status *status) {
    return ct_fail_within(status, "arm '%s', seed %llu", arm->name, (unsigned long long)seed);
}

/* --- memory ---
 * A store's limit is without its vectors, which are a file's memory while it trains; the trial of an arm has them whole. They are counted,
 * once for all models that share them, and each model's limit is its part of what they leave. */

static uint64_t vector_bytes(const arm_run *arm) {
    const json_t *table = NULL;
    uint64_t bytes = 0;
    size_t i = 0;
    json_array_foreach(json_object_get(arm->trial, "tables"), i, table) {
        if (i > 0) bytes += (uint64_t)json_integer_value(json_object_get(table, "bytes"));
    }
    return bytes;
}

/* Is the table one of an earlier arm's in the group? A placebo's tables are its own, one for each seed. */
static bool is_counted(const compare_run *run, size_t first, size_t arm, const char *name) {
    const json_t *table = NULL;
    for (size_t a = first; a < arm; a++) {
        size_t i = 0;
        json_array_foreach(json_object_get(run->arms[a].trial, "tables"), i, table) {
            if (strcmp(json_string_value(json_object_get(table, "name")), name) == 0) return true;
        }
    }
    return false;
}

/* Each vector file once. */
uint64_t compare_group_vectors(const compare_run *run, size_t first, size_t last) {
    uint64_t bytes = 0;
    for (size_t a = first; a < last; a++) {
        const arm_run *arm = &run->arms[a];
        const json_t *table = NULL;
        size_t i = 0;
        if (arm->kind == CT_ARM_PLACEBO) bytes += vector_bytes(arm) * run->options->seeds;
        if (arm->kind == CT_ARM_PLACEBO) continue;
        json_array_foreach(json_object_get(arm->trial, "tables"), i, table) {
            if (i > 0 && !is_counted(run, first, a, json_string_value(json_object_get(table, "name"))))
                bytes += (uint64_t)json_integer_value(json_object_get(table, "bytes"));
        }
    }
    return bytes;
}

static ct_code divide_memory(const compare_run *run, group *group, ct_status *status) {
    const uint64_t limit = run->options->memory_bytes, vectors = compare_group_vectors(run, group->first, group->last);
    if (limit == 0) return CT_OK;
    if (limit <= vectors + group->models)
        return ct_fail(status, CT_INVALID,
                       "a memory limit of %llu MiB is too small: the vectors of the arms that train at once take %llu MiB, which are held "
                       "whole; give more%s",
                       (unsigned long long)(limit >> 20), (unsigned long long)(vectors >> 20),
                       group->last - group->first > 1 ? ", or --parallel-arms 1" : "");
    group->memory_bytes = (limit - vectors) / group->models;
    return CT_OK;
}

/* --- opening and closing --- */

static ct_code open_model(compare_run *run, group *group, size_t index, uint32_t seed, ct_status *status) {
    const ct_compare_options *options = run->options;
    arm_run *arm = &run->arms[index];
    const uint64_t memory_bytes = group->memory_bytes;
    char live[4096] = "";
    if (group->memory_bytes > 0 &&
        (size_t)snprintf(live, sizeof live, "%s/arm-%zu-seed-%u", options->scratch_folder, index, seed) >= sizeof live)
        return ct_fail(status, CT_INVALID, "%s: the path is too long", options->scratch_folder);
    if (group->memory_bytes > 0) CT_TRY(ct_folder_create(options->scratch_folder, status));
    const char *live_folder = group->memory_bytes > 0 ? live : NULL;
    if (arm->saved[seed].epochs > 0) {
        CT_TRY(state_load_model(run, index, seed, memory_bytes, live_folder, status));
        for (size_t i = 0; i < group->open_count; i++) CT_TRY(ct_model_share_vectors(arm->models[seed], group->open[i], status));
    } else {
        const ct_model_options model = {.seed = compare_seed(run, arm, seed),
                                        .batch_rows = options->batch_rows,
                                        .device = NULL,
                                        .pool = options->pool,
                                        .memory_bytes = memory_bytes,
                                        .live_folder = live_folder,
                                        .vectors_of = group->open,
                                        .vectors_of_count = group->open_count,
                                        /* A model that may be saved needs its own; the rows bring theirs. */
                                        .no_histories = options->state_folder == NULL || compare_epochs(run) == 1,
                                        .shuffle_vectors = compare_shuffle(run, arm, seed)};
        if (ct_model_create(options->schema, arm->spec, &model, &arm->models[seed], status) != CT_OK)
            return ct_fail_within(status, "%s: arm '%s'", options->arms_path, arm->name);
    }
    group->open[group->open_count++] = arm->models[seed];
    return CT_OK;
}

static void close_model(arm_run *arm, uint32_t seed) {
    ct_model_destroy(arm->models[seed]);
    arm->models[seed] = NULL;
}

static void close_group(compare_run *run, group *group) {
    for (size_t a = group->first; a < group->last; a++)
        for (uint32_t s = 0; s < run->options->seeds; s++) close_model(&run->arms[a], s);
    free(group->open);
    free(group->logits);
}

static ct_code open_group(compare_run *run, group *group, ct_status *status) {
    const ct_compare_options *options = run->options;
    group->open = malloc((group->models + 1) * sizeof *group->open);
    group->logits = malloc(options->batch_rows * sizeof *group->logits);
    if (group->open == NULL || group->logits == NULL) return ct_fail_memory(status, group->models * sizeof *group->open, "the arms");
    for (size_t a = group->first; a < group->last; a++)
        for (uint32_t s = 0; s < options->seeds; s++)
            if (!compare_finished(run, &run->arms[a], s)) CT_TRY(open_model(run, group, a, s, status));
    return CT_OK;
}

/* --- a pass --- */

/* One that stands at this epoch. */
static bool trains(const arm_run *arm, uint32_t seed, uint32_t epoch) { return arm->models[seed] != NULL && arm->epochs[seed] == epoch; }

/* The limit is for all models together, but a store knows its own share alone. */
static ct_code fail_memory_limit(const compare_run *run, const group *group, const arm_run *arm, const ct_model *model, ct_status *status) {
    const uint64_t limit = group->memory_bytes, more = ct_model_least_memory(model) - limit;
    const uint64_t least = run->options->memory_bytes + more * group->models;
    return ct_fail(status, CT_INVALID,
                   "a memory limit of %llu MiB is too small for %zu models that train at once (arm '%s' needs %llu MiB for each of its "
                   "models, and has %llu); give %llu MiB%s, or smaller batches",
                   (unsigned long long)(run->options->memory_bytes >> 20), group->models, arm->name,
                   (unsigned long long)(ct_model_least_memory(model) >> 20), (unsigned long long)(limit >> 20),
                   (unsigned long long)((least >> 20) + 1), group->last - group->first > 1 ? ", or --parallel-arms 1" : "");
}

static ct_code train_batch(compare_run *run, group *group, const ct_batch *batch, const ct_batch *next, uint32_t epoch, ct_status *status) {
    for (size_t a = group->first; a < group->last; a++) {
        arm_run *arm = &run->arms[a];
        for (uint32_t s = 0; s < run->options->seeds; s++) {
            if (!trains(arm, s, epoch)) continue;
            const int64_t began = ct_clock_ns();
            ct_model_look_ahead(arm->models[s], next, epoch);
            if (ct_model_train(arm->models[s], batch, epoch, group->logits, status) != CT_OK) {
                if (ct_model_least_memory(arm->models[s]) > group->memory_bytes)
                    return fail_memory_limit(run, group, arm, arm->models[s], status);
                return compare_fail_arm(arm, compare_seed(run, arm, s), status);
            }
            arm->train_ns[s] += ct_clock_ns() - began;
        }
    }
    return CT_OK;
}

static void look_no_further(compare_run *run, const group *group, uint32_t epoch) {
    for (size_t a = group->first; a < group->last; a++)
        for (uint32_t s = 0; s < run->options->seeds; s++)
            if (run->arms[a].models[s] != NULL) ct_model_look_ahead(run->arms[a].models[s], NULL, epoch);
}

ct_reader_options compare_reader(const ct_compare_options *options, const char *const *sources, size_t count) {
    ct_reader_options reader = CT_READER_OPTIONS_INIT;
    reader.sources = sources;
    reader.source_count = count;
    reader.batch_rows = options->batch_rows;
    reader.stop = options->stop;
    return reader;
}

/* What the plan said of the pass, and of what was left when it began. */
typedef struct pass_plan {
    double seconds, left;
} pass_plan;

/* Time left: what the plan says of the rest, at the pace of what is done. */
static void show_progress(const compare_run *run, const group *group, const pass_plan *plan, ct_progress *progress, uint32_t epoch,
                          int64_t rows) {
    const double left = plan->left - plan->seconds * (double)rows / (double)run->train_report.rows;
    const double done = run->planned_seconds - left, passed = (double)(ct_clock_ns() - run->began_ns) / 1e9;
    char time[PLAN_TEXT_BYTES];
    ct_progress_update(progress, "training arms %zu to %zu of %zu, epoch %u of %u, %lld of %lld rows, %s left at most", group->first + 1,
                       group->last, run->arm_count, epoch + 1, compare_epochs(run), (long long)rows, (long long)run->train_report.rows,
                       plan_time_text(done > 0.01 * run->planned_seconds ? left * passed / done : left, time));
}

/* Batches come one ahead, so that models know the next one. */
static ct_code train_rows(compare_run *run, group *group, ct_reader *reader, uint32_t epoch, ct_status *status) {
    const ct_compare_options *options = run->options;
    ct_batch *batch = NULL, *next = NULL;
    const pass_plan plan = {plan_pass_seconds(run, group->first, group->last, epoch), plan_seconds_left(run)};
    ct_progress progress;
    int64_t rows = 0;
    if (options->progress) ct_progress_init(&progress);
    ct_code code = ct_reader_next(reader, &batch, status);
    while (code == CT_OK) {
        ct_status next_status = CT_STATUS_INIT;
        const ct_code next_code = ct_reader_next(reader, &next, &next_status);
        code = train_batch(run, group, batch, next_code == CT_OK ? next : NULL, epoch, status);
        rows += (int64_t)batch->rows;
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        if (options->progress) show_progress(run, group, &plan, &progress, epoch, rows);
        batch = next;
        code = next_code;
        if (code != CT_OK) *status = next_status;
    }
    if (options->progress) ct_progress_finish(&progress);
    look_no_further(run, group, epoch);
    if (code != CT_END) return code;
    if (rows != run->train_report.rows)
        return ct_fail(status, CT_INVALID, "the training sources changed between two readings: %lld rows, then %lld",
                       (long long)run->train_report.rows, (long long)rows);
    return CT_OK;
}

ct_reader_options compare_training_reader(compare_run *run) {
    ct_reader_options reader = compare_reader(run->options, run->options->train_sources, run->options->train_source_count);
    if (run->learned != NULL) ct_histories_clear(run->learned); /* told anew in each pass */
    reader.histories = run->learned;
    reader.live = true;
    return reader;
}

static ct_code train_epoch(compare_run *run, group *group, uint32_t epoch, ct_status *status) {
    ct_reader_options reading = compare_training_reader(run);
    reading.shuffle_rows = run->options->shuffle_rows;
    reading.shuffle_seed = run->options->seed;
    reading.shuffle_epoch = epoch;
    ct_reader *reader = NULL;
    CT_TRY(ct_reader_open(run->options->schema, &reading, &reader, status));
    const ct_code code = train_rows(run, group, reader, epoch, status);
    ct_reader_close(reader);
    return code;
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
static ct_code judge_on_test(compare_run *run, arm_run *arm, uint32_t seed, ct_status *status) {
    const ct_compare_options *options = run->options;
    ct_read_report report;
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
    CT_TRY(evaluate_live(arm->models[seed], &evaluation, begin, &arm->test[seed], &report, &end, status));
    if (end != NULL) run->late_rows = ct_histories_late(end);
    ct_histories_destroy(end);
    if (c.count != run->test.count)
        return ct_fail(status, CT_INVALID, "the test sources changed between two readings: %zu rows, then %zu", run->test.count, c.count);
    return CT_OK;
}

/* Judges the model where this is its best epoch so far; without validation rows, after the last one. */
static ct_code judge(compare_run *run, arm_run *arm, uint32_t seed, ct_status *status) {
    const ct_compare_options *options = run->options;
    const uint32_t epoch = arm->epochs[seed];
    arm->epochs[seed]++;
    if (options->valid_source_count == 0 && arm->epochs[seed] < compare_epochs(run)) return CT_OK;
    if (options->valid_source_count > 0) {
        ct_metrics valid;
        ct_read_report report;
        ct_evaluate_options evaluation = {.pool = options->pool,
                                          .progress = options->progress,
                                          .reader = compare_reader(options, options->valid_sources, options->valid_source_count)};
        ct_histories **end = run->after_valid == NULL ? &run->after_valid : NULL; /* the same after each epoch and model */
        CT_TRY(evaluate_live(arm->models[seed], &evaluation, run->learned, &valid, &report, end, status));
        if (report.rows != run->valid_report.rows)
            return ct_fail(status, CT_INVALID, "the validation sources changed between two readings: %lld rows, then %lld",
                           (long long)run->valid_report.rows, (long long)report.rows);
        if (epoch > 0 && !(valid.log_loss < arm->valid[seed].log_loss)) return CT_OK;
        arm->valid[seed] = valid;
    }
    arm->best_epoch[seed] = epoch;
    return judge_on_test(run, arm, seed, status);
}

/* --- groups --- */

/* Finished models are saved at once, and closed; others are saved once enough time has passed. */
static ct_code save_group(compare_run *run, const group *group, ct_status *status) {
    const bool all = ct_clock_ns() - run->saved_ns >= run->options->save_ms * 1000000;
    for (size_t a = group->first; a < group->last; a++)
        for (uint32_t s = 0; s < run->options->seeds; s++) {
            arm_run *arm = &run->arms[a];
            if (arm->models[s] == NULL || arm->saved[s].epochs == arm->epochs[s]) continue;
            const bool finished = compare_finished(run, arm, s);
            if (!finished && !all) continue;
            CT_TRY(state_save(run, a, s, status));
            if (finished) close_model(arm, s);
        }
    if (all) run->saved_ns = ct_clock_ns();
    return CT_OK;
}

static ct_code run_epochs(compare_run *run, group *group, ct_status *status) {
    for (uint32_t epoch = 0; epoch < compare_epochs(run); epoch++) {
        size_t models = 0;
        for (size_t a = group->first; a < group->last; a++)
            for (uint32_t s = 0; s < run->options->seeds; s++) models += trains(&run->arms[a], s, epoch);
        if (models == 0) continue;
        CT_TRY(train_epoch(run, group, epoch, status));
        for (size_t a = group->first; a < group->last; a++)
            for (uint32_t s = 0; s < run->options->seeds; s++) {
                arm_run *arm = &run->arms[a];
                if (!trains(arm, s, epoch)) continue;
                if (judge(run, arm, s, status) != CT_OK) return compare_fail_arm(arm, compare_seed(run, arm, s), status);
                if (!compare_finished(run, arm, s)) continue;
                arm->descriptions[s] = ct_model_describe(arm->models[s]);
                if (arm->descriptions[s] == NULL) return ct_fail_memory(status, 4096, "a model's description");
            }
        CT_TRY(save_group(run, group, status));
    }
    return CT_OK;
}

static ct_code run_group(compare_run *run, group *group, ct_status *status) {
    for (size_t a = group->first; a < group->last; a++)
        for (uint32_t s = 0; s < run->options->seeds; s++) group->models += !compare_finished(run, &run->arms[a], s);
    if (group->models == 0) return CT_OK;
    CT_TRY(divide_memory(run, group, status));
    ct_code code = open_group(run, group, status);
    if (code == CT_OK) code = run_epochs(run, group, status);
    close_group(run, group);
    return code;
}

ct_code compare_train(compare_run *run, ct_status *status) {
    const size_t together = compare_together(run);
    run->saved_ns = ct_clock_ns();
    run->began_ns = run->saved_ns;
    for (size_t first = 0; first < run->arm_count; first += together) {
        group group = {.first = first, .last = first + together < run->arm_count ? first + together : run->arm_count};
        CT_TRY(run_group(run, &group, status));
    }
    return CT_OK;
}
