/* A run: open the arms; one reader over the training log, each batch given to every model in turn; every model judged on the validation
 * sources and once on the test sources, whose logits are kept (4 bytes a row and model); differences; report. All models, arms times seeds,
 * are in memory at once. */
#include "experiment/compare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/progress.h"
#include "experiment/compare_internal.h"

ct_code compare_warn(compare_run *run, ct_status *status, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_t *json = json_string(text); /* NULL where a file's name is no UTF-8 */
    if (json == NULL) json = json_string("a warning that names a file whose name is not UTF-8");
    return json_array_append_new(run->warnings, json) == 0 ? CT_OK : ct_fail_memory(status, sizeof text, "the report");
}

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
        if (!ct_path_exists(list->names[i]))
            return ct_fail(status, CT_NOT_FOUND, "%s: no such file (%s source)", list->names[i], list->role);
    }
    return CT_OK;
}

static ct_code check_options(const ct_compare_options *options, ct_status *status) {
    const source_list train = {"training", options->train_sources, options->train_source_count};
    const source_list valid = {"validation", options->valid_sources, options->valid_source_count};
    const source_list test = {"test", options->test_sources, options->test_source_count};
    if (train.count == 0 || test.count == 0) return ct_fail(status, CT_INVALID, "compare needs training and test sources");
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

/* --- arms --- */

static ct_code open_arm(compare_run *run, size_t index, ct_status *status) {
    const ct_compare_options *options = run->options;
    arm_run *arm = &run->arms[index];
    arm->name = ct_arms_name(run->arms_file, index);
    CT_TRY(ct_arms_spec(run->arms_file, index, &arm->spec, status));
    arm->models = calloc(options->seeds, sizeof(ct_model *));
    arm->trainers = calloc(options->seeds, sizeof(ct_trainer *));
    arm->logits = calloc(options->seeds, sizeof(float *));
    arm->valid = calloc(options->seeds, sizeof *arm->valid);
    arm->test = calloc(options->seeds, sizeof *arm->test);
    if (!arm->models || !arm->trainers || !arm->logits || !arm->valid || !arm->test)
        return ct_fail_memory(status, options->seeds * sizeof *arm->test, "the arms");
    for (uint32_t s = 0; s < options->seeds; s++) {
        const ct_model_options model = {
            .seed = options->seed + s, .batch_rows = options->batch_rows, .device = NULL, .pool = options->pool};
        if (ct_model_create(options->schema, arm->spec, &model, &arm->models[s], status) != CT_OK ||
            ct_trainer_create(arm->models[s], 0, &arm->trainers[s], status) != CT_OK)
            return ct_fail_within(status, "%s: arm '%s'", options->arms_path, arm->name);
    }
    return CT_OK;
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
    ct_model_spec_destroy(arm->spec);
}

/* --- training --- */

static const ct_column *item_column(const compare_run *run, const ct_batch *batch, ct_status *status) {
    const ct_column *column = &batch->columns[run->item];
    if (column->present) return column;
    ct_fail(status, CT_INVALID, "a source lacks the column of '%s', whose count makes the slices",
            run->options->schema->fields[run->item].name);
    return NULL;
}

static ct_code count_items(compare_run *run, const ct_batch *batch, ct_status *status) {
    if (run->item_counts == NULL) return CT_OK;
    const ct_column *column = item_column(run, batch, status);
    if (column == NULL) return status->code;
    for (size_t i = 0; i < batch->rows; i++) CT_TRY(ct_counts_add(run->item_counts, ct_column_u64(column)[i], 1, status));
    return CT_OK;
}

static ct_code train_batch(compare_run *run, const ct_batch *batch, ct_status *status) {
    for (size_t a = 0; a < run->arm_count; a++) {
        arm_run *arm = &run->arms[a];
        const int64_t started = ct_clock_ns();
        for (uint32_t s = 0; s < run->options->seeds; s++)
            if (ct_trainer_batch(arm->trainers[s], batch, 0, status) != CT_OK)
                return ct_fail_within(status, "arm '%s', seed %llu", arm->name, (unsigned long long)(run->options->seed + s));
        arm->train_ns += ct_clock_ns() - started;
    }
    return count_items(run, batch, status);
}

static ct_reader_options reader_options(const ct_compare_options *options, const char *const *sources, size_t count) {
    ct_reader_options reader = CT_READER_OPTIONS_INIT;
    reader.sources = sources;
    reader.source_count = count;
    reader.batch_rows = options->batch_rows;
    reader.stop = options->stop;
    return reader;
}

static ct_code train(compare_run *run, ct_status *status) {
    const ct_compare_options *options = run->options;
    const ct_reader_options reading = reader_options(options, options->train_sources, options->train_source_count);
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_progress progress;
    int64_t rows = 0;
    const int64_t started = ct_clock_ns();
    CT_TRY(ct_reader_open(options->schema, &reading, &reader, status));
    if (options->progress) ct_progress_init(&progress);
    ct_code code = CT_OK;
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        code = train_batch(run, batch, status);
        rows += (int64_t)batch->rows;
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        if (options->progress)
            ct_progress_update(&progress, "training %zu models, %lld rows, %.0f rows/s", run->arm_count * options->seeds, (long long)rows,
                               (double)rows / ((double)(ct_clock_ns() - started) / 1e9));
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
    compare_run *run;
    bool first; /* of all models: takes labels, units and items too */
    float *logits;
    size_t count, capacity;
} collection;

static ct_code collect_rows(compare_run *run, const ct_batch *batch, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    const ct_column *label = &batch->columns[ct_schema_find_kind(schema, CT_FIELD_LABEL)];
    const ct_column *unit = run->unit >= 0 && batch->columns[run->unit].present ? &batch->columns[run->unit] : NULL;
    const ct_column *item = NULL;
    test_rows *test = &run->test;
    if (run->item >= 0 && (item = item_column(run, batch, status)) == NULL) return status->code;
    if (test->count > 0 && (unit != NULL) != (test->units != NULL))
        return ct_fail(status, CT_INVALID, "some test sources have a unit column '%s' and others do not", schema->fields[run->unit].name);
    CT_TRY(test_rows_reserve(test, batch->rows, unit != NULL, item != NULL, status));
    for (size_t i = 0; i < batch->rows; i++) {
        const size_t row = test->count + i;
        test->labels[row] = ct_column_f32(label)[i];
        test->clicks += (double)test->labels[row];
        if (unit != NULL) test->units[row] = ct_column_u64(unit)[i];
        if (item != NULL) test->slices[row] = (uint8_t)slice_of(ct_counts_get(run->item_counts, ct_column_u64(item)[i]));
    }
    test->count += batch->rows;
    return CT_OK;
}

static ct_code collect(void *context, const ct_batch *batch, const float *logits, const float *probabilities, ct_status *status) {
    (void)probabilities;
    collection *c = context;
    if (c->first) CT_TRY(collect_rows(c->run, batch, status));
    if (c->count + batch->rows > c->run->test.count)
        return ct_fail(status, CT_INVALID, "the test sources changed between two readings: more than %zu rows", c->run->test.count);
    if (c->count + batch->rows > c->capacity) {
        const size_t capacity = c->first ? c->run->test.capacity : c->run->test.count;
        float *grown = realloc(c->logits, capacity * sizeof *grown);
        if (grown == NULL) return ct_fail_memory(status, capacity * sizeof *grown, "the predictions");
        c->logits = grown;
        c->capacity = capacity;
    }
    memcpy(c->logits + c->count, logits, batch->rows * sizeof *logits);
    c->count += batch->rows;
    return CT_OK;
}

static ct_code judge_model(compare_run *run, arm_run *arm, uint32_t seed, ct_status *status) {
    const ct_compare_options *options = run->options;
    ct_evaluate_options evaluation = {.pool = options->pool, .progress = options->progress};
    if (options->valid_source_count > 0) {
        evaluation.reader = reader_options(options, options->valid_sources, options->valid_source_count);
        CT_TRY(ct_evaluate(arm->models[seed], &evaluation, &arm->valid[seed], &run->valid_report, status));
    }
    collection c = {.run = run, .first = arm == run->arms && seed == 0};
    evaluation.reader = reader_options(options, options->test_sources, options->test_source_count);
    evaluation.predictions = collect;
    evaluation.predictions_context = &c;
    const ct_code code = ct_evaluate(arm->models[seed], &evaluation, &arm->test[seed], &run->test_report, status);
    arm->logits[seed] = c.logits;
    if (code == CT_OK && c.count != run->test.count)
        return ct_fail(status, CT_INVALID, "the test sources changed between two readings: %zu rows, then %zu", run->test.count, c.count);
    return code;
}

static ct_code judge(compare_run *run, ct_status *status) {
    for (size_t a = 0; a < run->arm_count; a++)
        for (uint32_t s = 0; s < run->options->seeds; s++)
            if (judge_model(run, &run->arms[a], s, status) != CT_OK)
                return ct_fail_within(status, "arm '%s', seed %llu", run->arms[a].name, (unsigned long long)(run->options->seed + s));
    return test_rows_cluster(&run->test, status);
}

ct_code ct_compare_run(const ct_compare_options *options, json_t **out_report, ct_status *status) {
    compare_run run = {.options = options};
    ct_code code = CT_OK;
    CT_TRY(check_options(options, status));
    CT_TRY(ct_arms_load(options->arms_path, &run.arms_file, status));
    run.unit = ct_schema_find_kind(options->schema, CT_FIELD_UNIT);
    run.arm_count = ct_arms_count(run.arms_file);
    run.warnings = json_array();
    run.arms = calloc(run.arm_count, sizeof *run.arms);
    if (run.arms == NULL || run.warnings == NULL) {
        code = ct_fail_memory(status, run.arm_count * sizeof *run.arms, "the arms");
        goto done;
    }
    CT_TRY_GOTO(code, find_item(&run, status), done);
    if (run.item >= 0) CT_TRY_GOTO(code, ct_counts_create(&run.item_counts, status), done);
    for (size_t a = 0; a < run.arm_count; a++) CT_TRY_GOTO(code, open_arm(&run, a, status), done);
    CT_TRY_GOTO(code, train(&run, status), done);
    CT_TRY_GOTO(code, judge(&run, status), done);
    code = compare_report(&run, out_report, status);
done:
    if (run.arms != NULL)
        for (size_t a = 0; a < run.arm_count; a++) close_arm(&run.arms[a], options->seeds);
    free(run.arms);
    ct_counts_destroy(run.item_counts);
    test_rows_deinit(&run.test);
    json_decref(run.warnings);
    ct_arms_destroy(run.arms_file);
    return code;
}
