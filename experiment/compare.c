/* A run: open the arms; read the test rows, then the training and validation rows, so that faults there are told before the work; take up
 * what an earlier run left; train and judge (compare_train.c); differences; report. */
#include "experiment/compare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "experiment/compare_internal.h"
#include "experiment/report_internal.h"

/* --- checks --- */

typedef struct source_list {
    const char *role;
    const char *const *names;
    size_t count;
} source_list;

static ct_code check_disjoint(const source_list *a, const source_list *b, ct_status *status) {
    for (size_t i = 0; i < a->count; i++)
        for (size_t j = 0; j < b->count; j++)
            if (strcmp(a->names[i], b->names[j]) == 0 || ct_path_same_file(a->names[i], b->names[j]))
                return ct_fail(status, CT_INVALID,
                               "%s is among the %s and the %s sources; a model must not be judged on rows it was trained "
                               "or chosen on",
                               b->names[j], a->role, b->role);
    return CT_OK;
}

/* Sources are read several times, the last time after hours of training: a missing one is told now. */
static ct_code check_rereadable(const source_list *list, ct_status *status) {
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->names[i], "-") == 0)
            return ct_fail(status, CT_INVALID,
                           "standard input can be read once, but the %s sources are read several times; write it to a "
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
    if (options->seeds == 0 || options->draws == 0 || options->batch_rows == 0)
        return ct_fail(status, CT_INVALID, "compare needs at least one seed, one draw and one row in a batch (%u, %u, %zu)", options->seeds,
                       options->draws, options->batch_rows);
    if (options->memory_bytes > 0 && options->scratch_folder == NULL)
        return ct_fail(status, CT_INVALID, "a limit on memory needs a scratch folder");
    CT_TRY(check_rereadable(&train, status));
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

uint64_t compare_seed(const compare_run *run, const arm_run *arm, uint32_t seed) {
    return run->options->seed + seed + (arm->kind == CT_ARM_AGAIN ? run->options->seeds : 0);
}

uint64_t compare_shuffle(const compare_run *run, const arm_run *arm, uint32_t seed) {
    const uint64_t model_seed = compare_seed(run, arm, seed);
    return arm->kind == CT_ARM_PLACEBO ? ct_hash64(&model_seed, sizeof model_seed, 0) | 1 : 0;
}

static ct_code open_arm(compare_run *run, size_t index, ct_status *status) {
    const size_t seeds = run->options->seeds;
    arm_run *arm = &run->arms[index];
    arm->name = ct_arms_name(run->arms_file, index);
    arm->kind = ct_arms_kind(run->arms_file, index);
    CT_TRY(ct_arms_spec(run->arms_file, index, &arm->spec, status));
    arm->models = calloc(seeds, sizeof(ct_model *));
    arm->logits = calloc(seeds, sizeof(float *));
    arm->valid = calloc(seeds, sizeof *arm->valid);
    arm->test = calloc(seeds, sizeof *arm->test);
    arm->best_epoch = calloc(seeds, sizeof *arm->best_epoch);
    arm->epochs = calloc(seeds, sizeof *arm->epochs);
    arm->train_ns = calloc(seeds, sizeof *arm->train_ns);
    arm->descriptions = calloc(seeds, sizeof(json_t *));
    arm->saved = calloc(seeds, sizeof *arm->saved);
    if (!arm->models || !arm->logits || !arm->valid || !arm->test || !arm->best_epoch || !arm->epochs || !arm->train_ns ||
        !arm->descriptions || !arm->saved)
        return ct_fail_memory(status, seeds * sizeof *arm->test, "the arms");
    for (size_t s = 0; s < seeds; s++) arm->saved[s].logits_epoch = -1;
    return CT_OK;
}

static void close_arm(arm_run *arm, uint32_t seeds) {
    for (uint32_t s = 0; s < seeds; s++) {
        if (arm->models != NULL) ct_model_destroy(arm->models[s]);
        if (arm->logits != NULL) free(arm->logits[s]);
        if (arm->descriptions != NULL) json_decref(arm->descriptions[s]);
    }
    free(arm->models);
    free(arm->logits);
    free(arm->valid);
    free(arm->test);
    free(arm->best_epoch);
    free(arm->epochs);
    free(arm->train_ns);
    free(arm->descriptions);
    free(arm->saved);
    json_decref(arm->trial);
    ct_model_spec_destroy(arm->spec);
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
    return plan_try_arms(run, status);
}

/* What is known to be wrong before the work. */
static void say_warnings(const compare_run *run) {
    const json_t *warning = NULL;
    size_t i = 0;
    json_array_foreach(run->warnings, i, warning) {
        char text[1200];
        (void)snprintf(text, sizeof text, "warning: %s", json_string_value(warning));
        if (run->options->say != NULL) run->options->say(run->options->say_context, text);
    }
}

ct_code ct_compare_run(const ct_compare_options *options, json_t **out_report, ct_status *status) {
    ct_compare_options given = *options;
    if (given.ndcg_at == 0) given.ndcg_at = 10;
    compare_run run = {.options = &given};
    ct_code code = CT_OK;
    CT_TRY(check_options(&given, status));
    CT_TRY_GOTO(code, open_run(&run, status), done);
    CT_TRY_GOTO(code, features_init(&run, status), done);
    CT_TRY_GOTO(code, test_rows_read(&run, status), done);
    run.decides = run.test.groups != NULL ? CT_TALLY_GROUPED_AUC : CT_TALLY_AUC;
    CT_TRY_GOTO(code, survey_read(&run, status), done);
    CT_TRY_GOTO(code, state_open(&run, status), done);
    say_warnings(&run);
    plan_say(&run);
    CT_TRY_GOTO(code, compare_train(&run, status), done);
    CT_TRY_GOTO(code, slices_make(&run, status), done);
    code = compare_report(&run, out_report, status);
done:
    for (size_t a = 0; a < run.arm_count; a++) close_arm(&run.arms[a], options->seeds);
    free(run.arms);
    features_deinit(&run);
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
