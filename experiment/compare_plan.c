/* What a comparison will take, told before it begins. A model of each arm is made and learns the first rows of the log, which finds faults
 * of the arms before any work, and how fast each arm trains and scores. Rows of the tables follow from the distinct values that the survey
 * counted. Times are those of this machine as busy as it is; epochs are all that may come, though training often ends earlier. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "experiment/compare_internal.h"
#include "experiment/report_internal.h"

enum {
    SLICE_ROWS = 8192,       /* learned to find the speed; at least two batches, at most 32 */
    SLICE_NS = 20 * 1000000, /* of training and of scoring, at least */
    INDEX_BYTES = 31,        /* of a row: 16, with an index that is 35 to 70 % full */
    TOWER_BYTES = 56,        /* of a parameter: values, packed twice, gradients, moments, average; 55 to 58 were measured */
    MODEL_BYTES = 2 << 20    /* of a model that trains, for a batch */
};

/* --- the first rows --- */

typedef struct slice_of_log {
    ct_reader *reader;
    ct_batch *batches[32];
    size_t count;
    int64_t rows;
    float *logits; /* (batch_rows) */
} slice_of_log;

static void close_slice(slice_of_log *slice) {
    for (size_t i = 0; i < slice->count; i++) ct_reader_release(slice->reader, slice->batches[i]);
    ct_reader_close(slice->reader);
    free(slice->logits);
}

static ct_code read_slice(compare_run *run, slice_of_log *slice, ct_status *status) {
    const ct_compare_options *options = run->options;
    ct_reader_options reading = compare_training_reader(run);
    size_t wanted = SLICE_ROWS / options->batch_rows;
    wanted = wanted < 2 ? 2 : wanted > 32 ? 32 : wanted;
    reading.lookahead = wanted + 1; /* all are held at once */
    reading.max_rows = (int64_t)(wanted * options->batch_rows);
    slice->logits = malloc(options->batch_rows * sizeof *slice->logits);
    if (slice->logits == NULL) return ct_fail_memory(status, options->batch_rows * sizeof *slice->logits, "the first rows");
    CT_TRY(ct_reader_open(options->schema, &reading, &slice->reader, status));
    ct_code code = CT_OK;
    while (slice->count < wanted && (code = ct_reader_next(slice->reader, &slice->batches[slice->count], status)) == CT_OK)
        slice->rows += (int64_t)slice->batches[slice->count++]->rows;
    return code == CT_END ? CT_OK : code;
}

/* --- an arm --- */

static bool is_stopped(const compare_run *run) { return run->options->stop != NULL && atomic_load(run->options->stop); }

/* Rows a second; 0 where there are none, the model can't learn them again and again, or the run is to end. */
static double time_training(const compare_run *run, ct_model *model, const slice_of_log *slice) {
    ct_status ignored = CT_STATUS_INIT;
    int64_t rows = 0, began = 0;
    for (uint32_t epoch = 0; slice->rows > 0; epoch++) { /* the first pass makes rows and warms up */
        if (epoch == 1) began = ct_clock_ns();
        for (size_t i = 0; i < slice->count; i++)
            if (is_stopped(run) || ct_model_train(model, slice->batches[i], epoch, slice->logits, &ignored) != CT_OK) return 0.0;
        if (epoch > 0) rows += slice->rows;
        const int64_t passed = ct_clock_ns() - began;
        if (epoch > 0 && passed >= SLICE_NS) return (double)rows * 1e9 / (double)passed;
    }
    return 0.0;
}

static double time_scoring(ct_scorer *const *scorers, ct_pool *pool, const slice_of_log *slice) {
    ct_status ignored = CT_STATUS_INIT;
    int64_t rows = 0, passed = 0;
    const int64_t began = ct_clock_ns();
    while (slice->rows > 0 && passed < SLICE_NS) {
        for (size_t i = 0; i < slice->count; i++)
            if (ct_scorers_run(scorers, pool, slice->batches[i], slice->logits, &ignored) != CT_OK) return 0.0;
        rows += slice->rows;
        passed = ct_clock_ns() - began;
    }
    return passed > 0 ? (double)rows * 1e9 / (double)passed : 0.0;
}

static ct_code time_arm(const compare_run *run, arm_run *arm, const slice_of_log *slice, ct_status *status) {
    const size_t threads = ct_pool_threads(run->options->pool);
    arm->train_rate = time_training(run, arm->models[0], slice);
    ct_scorer **scorers = calloc(threads, sizeof(ct_scorer *));
    if (scorers == NULL) return ct_fail_memory(status, threads * sizeof(ct_scorer *), "the scorers");
    ct_code code = CT_OK;
    for (size_t i = 0; i < threads && code == CT_OK; i++) code = ct_scorer_create(arm->models[0], &scorers[i], status);
    if (code == CT_OK) arm->score_rate = time_scoring(scorers, run->options->pool, slice);
    for (size_t i = 0; i < threads; i++) ct_scorer_destroy(scorers[i]);
    free(scorers);
    return code;
}

/* A placebo without a vector would be an A/A arm that calls itself a placebo. */
static ct_code check_placebo(const compare_run *run, const arm_run *arm, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    for (size_t f = 0; f < schema->field_count; f++)
        if (schema->fields[f].kind == CT_FIELD_VECTOR && ct_model_uses_field(arm->models[0], f)) return CT_OK;
    return ct_fail(status, CT_INVALID, "%s: arm '%s': the arm that it is a placebo of has no vector to shuffle", run->options->arms_path,
                   arm->name);
}

static bool is_said(const compare_run *run, const char *text) {
    const json_t *said = NULL;
    size_t i = 0;
    json_array_foreach(run->warnings, i, said) if (strcmp(json_string_value(said), text) == 0) return true;
    return false;
}

/* Ids of a vector file in another form than the log's would make the vectors zeros for every row, and their arm lose for that. */
static ct_code check_vectors(const compare_run *run, const ct_model *model, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    for (size_t f = 0; f < schema->field_count; f++) {
        if (!ct_model_found_no_vector(model, f)) continue;
        char text[512];
        (void)snprintf(text, sizeof text,
                       "'%s' has no vector for any value of '%s' in the first rows: are the ids of its rows (`ids` in the schema) those of "
                       "the log?",
                       schema->fields[f].name, schema->fields[schema->fields[f].of].name);
        if (!is_said(run, text)) CT_TRY(report_warn(run->warnings, status, "%s", text));
    }
    return CT_OK;
}

static ct_code try_arm(const compare_run *run, arm_run *arm, const slice_of_log *slice, ct_status *status) {
    const ct_compare_options *options = run->options;
    const ct_model_options model = {.seed = compare_seed(run, arm, 0),
                                    .batch_rows = options->batch_rows,
                                    .pool = options->pool,
                                    .no_histories = true,
                                    .shuffle_vectors = compare_shuffle(run, arm, 0)};
    if (options->shuffle_rows > 0 && arm->spec->target_stats)
        return ct_fail(
            status, CT_INVALID,
            "%s: arm '%s': embedding.target_stats is true, and target statistics are those of the log's order: leave the shuffle "
            "window of %zu rows out",
            options->arms_path, arm->name, options->shuffle_rows);
    if (ct_model_create(options->schema, arm->spec, &model, &arm->models[0], status) != CT_OK)
        return ct_fail_within(status, "%s: arm '%s'", options->arms_path, arm->name);
    if (arm->kind == CT_ARM_PLACEBO) CT_TRY(check_placebo(run, arm, status));
    arm->trial = ct_model_describe(arm->models[0]);
    if (arm->trial == NULL) return ct_fail_memory(status, 4096, "a model's description");
    CT_TRY(time_arm(run, arm, slice, status));
    CT_TRY(check_vectors(run, arm->models[0], status));
    return is_stopped(run) ? ct_fail(status, CT_CANCELLED, "the comparison was stopped") : CT_OK;
}

ct_code plan_try_arms(compare_run *run, ct_status *status) {
    slice_of_log slice = {0};
    ct_code code = read_slice(run, &slice, status);
    for (size_t a = 0; a < run->arm_count && code == CT_OK; a++) {
        code = try_arm(run, &run->arms[a], &slice, status);
        ct_model_destroy(run->arms[a].models[0]);
        run->arms[a].models[0] = NULL;
    }
    close_slice(&slice);
    return code;
}

/* --- memory --- */

static uint64_t state_floats(const ct_model_spec *spec, uint64_t dim) {
    switch (spec->row_optimiser) {
        case CT_ROW_ADAGRAD_ROWWISE:
            return 1;
        case CT_ROW_ADAGRAD:
            return dim;
        case CT_ROW_ADAM:
            return 2 * dim + 1;
        default:
            return 0;
    }
}

uint64_t plan_table_bytes(const compare_run *run, const arm_run *arm) {
    const json_t *ids = json_array_get(json_object_get(arm->trial, "tables"), 0);
    const uint64_t dim = (uint64_t)json_integer_value(json_object_get(ids, "dim"));
    const uint64_t row = 4 * (dim + state_floats(arm->spec, dim)) + (uint64_t)INDEX_BYTES * (arm->spec->target_stats ? 2 : 1);
    double rows = 0.0;
    for (size_t f = 0; f < run->options->schema->field_count; f++)
        if (compare_arm_has(run, arm, f)) rows += compare_distinct(run, f);
    return (uint64_t)json_integer_value(json_object_get(ids, "bytes")) + (uint64_t)(rows * (double)row);
}

/* Of a model that trains, without its vectors. */
static uint64_t model_bytes(const compare_run *run, const arm_run *arm) {
    return plan_table_bytes(run, arm) + (uint64_t)json_integer_value(json_object_get(arm->trial, "tower_parameters")) * TOWER_BYTES +
           MODEL_BYTES;
}

/* Of this process now: the program, its readers, the test rows, what the survey keeps. 0 where the system does not tell. */
static uint64_t bytes_now(void) {
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%*u %llu", &pages) != 1) pages = 0;
    (void)fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The most at any time: a group that trains, or all models while they are compared; and what is there all the time. */
static uint64_t bytes_needed(const compare_run *run) {
    const ct_compare_options *options = run->options;
    const uint64_t models = run->arm_count * options->seeds, clusters = run->test.cluster_count;
    uint64_t most = models * clusters * clusters * sizeof(double);
    for (size_t first = 0; first < run->arm_count; first += compare_together(run)) {
        const size_t last = first + compare_together(run) < run->arm_count ? first + compare_together(run) : run->arm_count;
        uint64_t tables = 0, towers = 0;
        for (size_t a = first; a < last; a++) {
            const arm_run *arm = &run->arms[a];
            for (uint32_t s = 0; s < options->seeds; s++) {
                if (compare_finished(run, arm, s)) continue;
                tables += plan_table_bytes(run, arm);
                towers += model_bytes(run, arm) - plan_table_bytes(run, arm);
            }
        }
        tables += compare_group_vectors(run, first, last);
        if (options->memory_bytes > 0 && tables > options->memory_bytes) tables = options->memory_bytes;
        if (tables + towers > most) most = tables + towers;
    }
    return bytes_now() + most + run->test.count * models * sizeof(float);
}

/* --- time --- */

double plan_pass_seconds(const compare_run *run, size_t first, size_t last, uint32_t epoch) {
    const double train_rows = (double)run->train_report.rows, judge_rows = (double)run->valid_report.rows + (double)run->test.count;
    const bool judged = run->options->valid_source_count > 0 || epoch + 1 >= compare_epochs(run);
    double seconds = 0.0;
    for (size_t a = first; a < last; a++)
        for (uint32_t s = 0; s < run->options->seeds; s++) {
            const arm_run *arm = &run->arms[a];
            if (compare_finished(run, arm, s) || arm->epochs[s] > epoch || arm->train_rate <= 0.0) continue;
            seconds += train_rows / arm->train_rate;
            if (judged && arm->score_rate > 0.0) seconds += judge_rows / arm->score_rate;
        }
    return seconds > 0.0 ? seconds + run->read_seconds : 0.0;
}

double plan_seconds_left(const compare_run *run) {
    double seconds = 0.0;
    for (size_t first = 0; first < run->arm_count; first += compare_together(run)) {
        const size_t last = first + compare_together(run) < run->arm_count ? first + compare_together(run) : run->arm_count;
        for (uint32_t epoch = 0; epoch < compare_epochs(run); epoch++) seconds += plan_pass_seconds(run, first, last, epoch);
    }
    return seconds;
}

const char *plan_time_text(double seconds, char out[PLAN_TEXT_BYTES]) {
    if (seconds < 90.0)
        (void)snprintf(out, PLAN_TEXT_BYTES, "%.0f s", ceil(seconds));
    else if (seconds < 90.0 * 60.0)
        (void)snprintf(out, PLAN_TEXT_BYTES, "%.0f min", seconds / 60.0);
    else
        (void)snprintf(out, PLAN_TEXT_BYTES, "%.1f h", seconds / 3600.0);
    return out;
}

void plan_say(compare_run *run) {
    const ct_compare_options *options = run->options;
    char text[512], time[PLAN_TEXT_BYTES];
    const arm_run *slowest = NULL;
    size_t models = 0;
    for (size_t a = 0; a < run->arm_count; a++)
        for (uint32_t s = 0; s < options->seeds; s++) {
            const arm_run *arm = &run->arms[a];
            if (compare_finished(run, arm, s)) continue;
            models++;
            if (arm->train_rate > 0.0 && (slowest == NULL || arm->train_rate < slowest->train_rate)) slowest = arm;
        }
    run->planned_seconds = plan_seconds_left(run);
    if (options->say == NULL || models == 0 || slowest == NULL) return;
    (void)snprintf(
        text, sizeof text,
        "about %s to train and judge, and %llu MiB of memory, at most: %zu models, %zu arms at once, on %lld rows, %u epoch%s; the slowest "
        "arm, '%s', learns %.0f rows/s",
        plan_time_text(run->planned_seconds, time), (unsigned long long)((bytes_needed(run) >> 20) + 1), models, compare_together(run),
        (long long)run->train_report.rows, compare_epochs(run), compare_epochs(run) > 1 ? "s at most" : "", slowest->name,
        slowest->train_rate);
    options->say(options->say_context, text);
}
