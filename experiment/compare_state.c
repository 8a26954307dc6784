/* The state folder: what a comparison that was broken off goes on from.
 *
 *     comparison.json          {format, version, settings: [[what, value], ...]}: what must be the same; written first
 *     arm-A-seed-S.json        the results of a model that is finished (arm and seed as numbers from 0)
 *     arm-A-seed-S/            a model folder: one that is not, at the end of an epoch, with its results so far as results.json
 *     arm-A-seed-S.logits-E    its logits of the test rows after epoch E (from 0), the best one so far: float32, little-endian
 *
 * Logits are written first, then the folder or file that names them, with their hash, then what it replaces is removed. So whenever a run
 * ends, each model is whole as of some epoch, and training the epochs behind it again gives the same bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "experiment/compare_internal.h"

enum { VERSION = 1, HEX_BYTES = 17 };
static const char format_name[] = "clicktower-comparison", settings_name[] = "comparison.json", results_name[] = "results.json";

/* STATE/arm-A-seed-S and more; malloc'd. */
static ct_code name_of(const compare_run *run, size_t arm, uint32_t seed, const char *more, char **out_path, ct_status *status) {
    if (asprintf(out_path, "%s/arm-%zu-seed-%u%s", run->options->state_folder, arm, seed, more) < 0)
        return ct_fail_memory(status, strlen(run->options->state_folder), "a path");
    return CT_OK;
}

static ct_code name_logits(const compare_run *run, size_t arm, uint32_t seed, int64_t epoch, char **out_path, ct_status *status) {
    char more[64];
    (void)snprintf(more, sizeof more, ".logits-%lld", (long long)epoch);
    return name_of(run, arm, seed, more, out_path, status);
}

/* --- settings --- */

static void add_setting(json_t *settings, const char *what, const char *of, const char *format, ...) CT_PRINTF(4, 5);
static void add_setting(json_t *settings, const char *what, const char *of, const char *format, ...) {
    char *name = NULL, *value = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&value, format, arguments) < 0) value = NULL;
    va_end(arguments);
    if (asprintf(&name, "%s%s%s%s", what, of != NULL ? " of arm '" : "", of != NULL ? of : "", of != NULL ? "'" : "") < 0) name = NULL;
    json_array_append_new(settings, name != NULL && value != NULL ? json_pack("[s, s]", name, value) : NULL); /* NULL: found by its size */
    free(name);
    free(value);
}

/* The tables' names hold the hashes of the vectors' content. */
static ct_code add_vectors(json_t *settings, const arm_run *arm, ct_status *status) {
    char *text = NULL;
    size_t bytes = 0, i = 0;
    const json_t *table = NULL;
    FILE *to = open_memstream(&text, &bytes);
    if (to == NULL) return ct_fail_memory(status, 4096, "the settings");
    json_array_foreach(json_object_get(arm->trial, "tables"), i, table) {
        if (i > 0) (void)fprintf(to, "%s%s", i > 1 ? " " : "", json_string_value(json_object_get(table, "name")));
    }
    if (fclose(to) != 0) return ct_fail_memory(status, bytes, "the settings");
    add_setting(settings, "the vectors", arm->name, "%s", text);
    free(text);
    return CT_OK;
}

/* What must be the same for a result to be of this comparison; draws, nDCG's k, slices and threads change no model. */
static ct_code settings_json(const compare_run *run, json_t **out_settings, ct_status *status) {
    static const char *const kinds[] = {"of its own", "a placebo", "an A/A arm"};
    const ct_compare_options *options = run->options;
    json_t *settings = json_array();
    size_t wanted = 10;
    add_setting(settings, "the schema", NULL, "%s (hash %016llx)", options->schema->name, (unsigned long long)options->schema->hash);
    add_setting(settings, "the training rows", NULL, "%lld (fingerprint %016llx)", (long long)run->train_report.rows,
                (unsigned long long)run->train_print);
    add_setting(settings, "the validation rows", NULL, "%lld (fingerprint %016llx)", (long long)run->valid_report.rows,
                (unsigned long long)run->valid_print);
    add_setting(settings, "the test rows", NULL, "%zu (fingerprint %016llx)", run->test.count, (unsigned long long)run->test.print);
    add_setting(settings, "the first seed", NULL, "%llu", (unsigned long long)options->seed);
    add_setting(settings, "the number of seeds", NULL, "%u", options->seeds);
    add_setting(settings, "the number of epochs", NULL, "%u", options->epochs);
    add_setting(settings, "the number of rows in a batch", NULL, "%zu", options->batch_rows);
    add_setting(settings, "the number of rows in a shuffle window", NULL, "%zu", options->shuffle_rows);
    add_setting(settings, "the instruction set", NULL, "%s", ct_tower_instruction_set());
    for (size_t a = 0; a < run->arm_count; a++, wanted += 4) {
        const arm_run *arm = &run->arms[a];
        char *spec = ct_model_spec_text(arm->spec);
        if (spec == NULL) {
            json_decref(settings);
            return ct_fail_memory(status, 4096, "the settings");
        }
        add_setting(settings, "the number", arm->name, "%zu", a + 1);
        add_setting(settings, "the kind", arm->name, "%s", kinds[arm->kind]);
        add_setting(settings, "the model", arm->name, "%s", spec);
        free(spec);
        const ct_code code = add_vectors(settings, arm, status);
        if (code != CT_OK) {
            json_decref(settings);
            return code;
        }
    }
    if (json_array_size(settings) != wanted) {
        json_decref(settings);
        return ct_fail_memory(status, 4096, "the settings");
    }
    *out_settings = settings;
    return CT_OK;
}

/* Where two texts first differ: the beginning of that line. */
static size_t line_that_differs(const char *a, const char *b) {
    size_t at = 0;
    while (a[at] == b[at] && a[at] != '\0') at++;
    while (at > 0 && a[at - 1] != '\n') at--;
    return at;
}

static ct_code check_settings(const compare_run *run, const json_t *there, const json_t *wanted, const char *path, ct_status *status) {
    for (size_t i = 0; i < json_array_size(there) || i < json_array_size(wanted); i++) {
        const json_t *a = json_array_get(there, i), *b = json_array_get(wanted, i);
        if (a != NULL && b != NULL && json_equal(a, b)) continue;
        const char *what_a = json_string_value(json_array_get(a, 0)), *what_b = json_string_value(json_array_get(b, 0));
        const char *value_a = json_string_value(json_array_get(a, 1)), *value_b = json_string_value(json_array_get(b, 1));
        if (a != NULL && (what_a == NULL || value_a == NULL))
            return ct_fail(status, CT_CORRUPT, "%s: settings[%zu] is no pair of texts; remove the folder to begin anew", path, i);
        if (what_a == NULL || what_b == NULL || strcmp(what_a, what_b) != 0) /* arms were added, dropped or moved */
            return ct_fail(
                status, CT_INVALID,
                "%s is of a comparison that is not finished and has other arms (%s there, %s here); give the same arms to go on, "
                "or remove %s to begin anew",
                path, what_a != NULL ? what_a : "nothing more", what_b != NULL ? what_b : "nothing more", run->options->state_folder);
        const size_t at = line_that_differs(value_a, value_b);
        return ct_fail(status, CT_INVALID,
                       "%s is of a comparison that is not finished, where %s is '%.*s', but here it is '%.*s'; give the same to go on, or "
                       "remove %s to begin anew",
                       path, what_a, (int)strcspn(value_a + at, "\n"), value_a + at, (int)strcspn(value_b + at, "\n"), value_b + at,
                       run->options->state_folder);
    }
    return CT_OK;
}

/* But for what a run left that ended while it wrote the first file. */
static ct_code check_empty(const char *folder, ct_status *status) {
    ct_file_list list = {0};
    CT_TRY(ct_folder_list(folder, &list, status));
    ct_code code = CT_OK;
    for (size_t i = 0; i < list.count && code == CT_OK; i++)
        if (strncmp(list.names[i], settings_name, strlen(settings_name)) != 0)
            code =
                ct_fail(status, CT_EXISTS, "%s/%s: this is no state of a comparison; name another folder for the report, or move it away",
                        folder, list.names[i]);
    ct_file_list_deinit(&list);
    return code;
}

static ct_code open_settings(const compare_run *run, const char *path, const json_t *settings, ct_status *status) {
    const char *format = NULL;
    int64_t version = 0;
    json_t *file = NULL, *there = NULL;
    if (!ct_path_exists(path)) {
        CT_TRY(ct_folder_create(run->options->state_folder, status));
        CT_TRY(check_empty(run->options->state_folder, status));
        file = json_pack("{s:s, s:i, s:O}", "format", format_name, "version", VERSION, "settings", settings);
        if (file == NULL) return ct_fail_memory(status, 4096, "the settings");
        const ct_code code = ct_json_save(path, file, status);
        json_decref(file);
        return code;
    }
    CT_TRY(ct_json_load(path, &file, status));
    ct_code code = ct_json_get_string(file, "format", path, &format, status);
    if (code == CT_OK) code = ct_json_get_i64(file, "version", path, &version, status);
    if (code == CT_OK && (strcmp(format, format_name) != 0 || version != VERSION))
        code = ct_fail(status, CT_UNSUPPORTED, "%s: format %s, version %lld; this program reads %s, version %d; remove %s to begin anew",
                       path, format, (long long)version, format_name, VERSION, run->options->state_folder);
    if (code == CT_OK) code = ct_json_get_array(file, "settings", path, &there, status);
    if (code == CT_OK) code = check_settings(run, there, settings, path, status);
    json_decref(file);
    return code;
}

/* --- results of a model --- */

/* By which the report tells of a model, in the order of metric_of. */
static const char *const metric_names[] = {"auc", "log_loss", "normalized_entropy", "calibration", "mean_prediction", "grouped_auc"};
enum { METRICS = sizeof metric_names / sizeof *metric_names };

static double *metric_of(ct_metrics *metrics, size_t metric) {
    double *const all[METRICS] = {&metrics->auc,         &metrics->log_loss,        &metrics->normalized_entropy,
                                  &metrics->calibration, &metrics->mean_prediction, &metrics->grouped_auc};
    return all[metric];
}

static json_t *metrics_json(ct_metrics *metrics) {
    json_t *json = json_pack("{s:I, s:f}", "rows", (json_int_t)metrics->rows, "clicks", metrics->clicks);
    for (size_t m = 0; m < METRICS; m++) json_object_set_new(json, metric_names[m], ct_json_real(*metric_of(metrics, m)));
    return json;
}

static ct_code read_metrics(const json_t *results, const char *name, const char *path, ct_metrics *out_metrics, ct_status *status) {
    json_t *json = NULL;
    CT_TRY(ct_json_get_object(results, name, path, &json, status));
    CT_TRY(ct_json_get_i64(json, "rows", path, &out_metrics->rows, status));
    CT_TRY(ct_json_get_f64(json, "clicks", path, &out_metrics->clicks, status));
    for (size_t m = 0; m < METRICS; m++) {
        double *metric = metric_of(out_metrics, m);
        *metric = (double)NAN;
        if (!json_is_null(json_object_get(json, metric_names[m]))) CT_TRY(ct_json_get_f64(json, metric_names[m], path, metric, status));
    }
    return CT_OK;
}

static void logits_hash(const compare_run *run, const float *logits, char out_hex[HEX_BYTES]) {
    (void)snprintf(out_hex, HEX_BYTES, "%016llx", (unsigned long long)ct_hash64(logits, run->test.count * sizeof *logits, 0));
}

static json_t *results_json(const compare_run *run, arm_run *arm, uint32_t seed) {
    char hex[HEX_BYTES] = "";
    const bool judged = arm->logits[seed] != NULL;
    if (judged) logits_hash(run, arm->logits[seed], hex);
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "late_rows", (json_int_t)run->late_rows, "epochs",
                     (json_int_t)arm->epochs[seed], "train_ns", (json_int_t)arm->train_ns[seed], "best_epoch",
                     (json_int_t)arm->best_epoch[seed], "logits_hash", judged ? json_string(hex) : json_null(), "valid",
                     run->options->valid_source_count > 0 ? metrics_json(&arm->valid[seed]) : json_null(), "test",
                     judged ? metrics_json(&arm->test[seed]) : json_null(), "description",
                     arm->descriptions[seed] != NULL ? json_incref(arm->descriptions[seed]) : json_null());
}

static ct_code read_logits(const compare_run *run, size_t index, uint32_t seed, const char *hash, ct_status *status) {
    arm_run *arm = &run->arms[index];
    char *path = NULL, *data = NULL, hex[HEX_BYTES];
    size_t bytes = 0;
    const size_t wanted = run->test.count * sizeof(float);
    CT_TRY(name_logits(run, index, seed, arm->best_epoch[seed], &path, status));
    ct_code code = ct_file_read(path, wanted, &data, &bytes, status);
    if (code == CT_OK) {
        arm->logits[seed] = (float *)(void *)data; /* malloc'd, as the file gives it */
        if (bytes == wanted) logits_hash(run, arm->logits[seed], hex);
        if (bytes != wanted || strcmp(hex, hash) != 0)
            code = ct_fail(status, CT_CORRUPT, "%s: the file is not what was written; remove %s to begin anew", path,
                           run->options->state_folder);
    }
    free(path);
    return code;
}

static ct_code read_results(compare_run *run, size_t index, uint32_t seed, const char *path, ct_status *status) {
    arm_run *arm = &run->arms[index];
    json_t *results = NULL;
    const char *hash = NULL;
    int64_t epochs = 0, best = 0;
    ct_code code = ct_json_load(path, &results, status);
    if (code != CT_OK) return code;
    CT_TRY_GOTO(code, ct_json_get_i64(results, "epochs", path, &epochs, status), done);
    CT_TRY_GOTO(code, ct_json_get_i64(results, "best_epoch", path, &best, status), done);
    CT_TRY_GOTO(code, ct_json_get_i64(results, "train_ns", path, &arm->train_ns[seed], status), done);
    CT_TRY_GOTO(code, ct_json_get_i64(results, "late_rows", path, &run->late_rows, status), done);
    if (epochs < 1 || epochs > UINT32_MAX || best < 0 || best >= epochs) {
        code = ct_fail(status, CT_CORRUPT, "%s: %lld epochs, the best one %lld; remove %s to begin anew", path, (long long)epochs,
                       (long long)best, run->options->state_folder);
        goto done;
    }
    arm->epochs[seed] = (uint32_t)epochs;
    arm->best_epoch[seed] = (uint32_t)best;
    if (run->options->valid_source_count > 0) CT_TRY_GOTO(code, read_metrics(results, "valid", path, &arm->valid[seed], status), done);
    if (!json_is_null(json_object_get(results, "logits_hash"))) {
        CT_TRY_GOTO(code, ct_json_get_string(results, "logits_hash", path, &hash, status), done);
        CT_TRY_GOTO(code, read_metrics(results, "test", path, &arm->test[seed], status), done);
        CT_TRY_GOTO(code, read_logits(run, index, seed, hash, status), done);
        arm->saved[seed].logits_epoch = best;
    }
    if (json_is_object(json_object_get(results, "description")))
        arm->descriptions[seed] = json_incref(json_object_get(results, "description"));
    if (compare_finished(run, arm, seed) && (arm->logits[seed] == NULL || arm->descriptions[seed] == NULL))
        code = ct_fail(status, CT_CORRUPT, "%s: the model is finished, but its results are not there; remove %s to begin anew", path,
                       run->options->state_folder);
done:
    json_decref(results);
    return code;
}

/* --- a model --- */

static ct_code read_model_results(compare_run *run, size_t arm, uint32_t seed, ct_status *status) {
    char *file = NULL, *folder = NULL, *inside = NULL;
    ct_code code = CT_OK;
    CT_TRY_GOTO(code, name_of(run, arm, seed, ".json", &file, status), done);
    CT_TRY_GOTO(code, name_of(run, arm, seed, "", &folder, status), done);
    inside = ct_path_join(folder, results_name);
    if (inside == NULL) {
        code = ct_fail_memory(status, strlen(folder), "a path");
    } else if (ct_path_exists(file)) {
        code = read_results(run, arm, seed, file, status);
    } else if (ct_model_folder_is(folder)) {
        code = read_results(run, arm, seed, inside, status);
        run->arms[arm].saved[seed].epochs = run->arms[arm].epochs[seed];
    }
done:
    free(file);
    free(folder);
    free(inside);
    return code;
}

ct_code state_open(compare_run *run, ct_status *status) {
    const char *folder = run->options->state_folder;
    json_t *settings = NULL;
    if (folder == NULL) return CT_OK;
    char *path = ct_path_join(folder, settings_name);
    if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
    ct_code code = settings_json(run, &settings, status);
    if (code == CT_OK) code = open_settings(run, path, settings, status);
    for (size_t a = 0; a < run->arm_count && code == CT_OK; a++)
        for (uint32_t s = 0; s < run->options->seeds && code == CT_OK; s++) code = read_model_results(run, a, s, status);
    json_decref(settings);
    free(path);
    return code;
}

ct_code state_load_model(compare_run *run, size_t index, uint32_t seed, uint64_t memory_bytes, const char *live_folder, ct_status *status) {
    arm_run *arm = &run->arms[index];
    char *folder = NULL;
    CT_TRY(name_of(run, index, seed, "", &folder, status));
    const ct_code code =
        ct_model_open_within(folder, CT_MODEL_TRAIN, memory_bytes, live_folder, NULL, run->options->pool, &arm->models[seed], status);
    free(folder);
    return code;
}

static ct_code write_logits(const compare_run *run, size_t index, uint32_t seed, ct_status *status) {
    const arm_run *arm = &run->arms[index];
    char *path = NULL;
    if (arm->logits[seed] == NULL || arm->saved[seed].logits_epoch == (int64_t)arm->best_epoch[seed]) return CT_OK;
    CT_TRY(name_logits(run, index, seed, arm->best_epoch[seed], &path, status));
    const ct_code code = ct_file_write(path, arm->logits[seed], run->test.count * sizeof(float), status);
    free(path);
    return code;
}

/* Those of an earlier epoch. */
static ct_code remove_logits(const compare_run *run, size_t index, uint32_t seed, ct_status *status) {
    saved_model *saved = &run->arms[index].saved[seed];
    const int64_t best = run->arms[index].logits[seed] != NULL ? (int64_t)run->arms[index].best_epoch[seed] : -1;
    char *path = NULL;
    if (saved->logits_epoch >= 0 && saved->logits_epoch != best) {
        CT_TRY(name_logits(run, index, seed, saved->logits_epoch, &path, status));
        (void)unlink(path);
        free(path);
    }
    saved->logits_epoch = best;
    return CT_OK;
}

static ct_code save_finished(const compare_run *run, size_t index, uint32_t seed, const json_t *results, const char *folder,
                             ct_status *status) {
    char *file = NULL;
    CT_TRY(name_of(run, index, seed, ".json", &file, status));
    ct_code code = ct_json_save(file, results, status);
    free(file);
    if (code == CT_OK && run->arms[index].saved[seed].epochs > 0) code = ct_folder_remove(folder, status);
    return code;
}

static ct_code save_model(ct_model *model, const char *folder, const json_t *results, ct_status *status) {
    json_t *none = json_object();
    char *text = json_dumps(results, JSON_COMPACT);
    ct_code code = text == NULL || none == NULL ? ct_fail_memory(status, 4096, "a model's results") : CT_OK;
    if (code == CT_OK) {
        const ct_model_text texts[] = {{results_name, text}};
        code = ct_model_save_texts(model, folder, none, texts, 1, NULL, NULL, status);
    }
    json_decref(none);
    free(text);
    return code;
}

ct_code state_save(compare_run *run, size_t index, uint32_t seed, ct_status *status) {
    arm_run *arm = &run->arms[index];
    char *folder = NULL;
    if (run->options->state_folder == NULL) return CT_OK;
    CT_TRY(name_of(run, index, seed, "", &folder, status));
    json_t *results = results_json(run, arm, seed);
    ct_code code = results == NULL ? ct_fail_memory(status, 4096, "a model's results") : write_logits(run, index, seed, status);
    if (code == CT_OK)
        code = compare_finished(run, arm, seed) ? save_finished(run, index, seed, results, folder, status)
                                                : save_model(arm->models[seed], folder, results, status);
    if (code == CT_OK) code = remove_logits(run, index, seed, status);
    if (code == CT_OK) arm->saved[seed].epochs = arm->epochs[seed];
    json_decref(results);
    free(folder);
    return code;
}

/* Under another name first, so that no half of it is taken for a state. */
ct_code ct_compare_forget(const char *state_folder, ct_status *status) {
    char *done = NULL;
    if (asprintf(&done, "%s.done", state_folder) < 0) return ct_fail_memory(status, strlen(state_folder), "a path");
    ct_code code = ct_folder_remove(done, status);
    if (code == CT_OK && ct_path_exists(state_folder) && rename(state_folder, done) != 0)
        code = ct_fail_errno(status, "%s: cannot be removed", state_folder);
    if (code == CT_OK) code = ct_folder_remove(done, status);
    free(done);
    return code;
}
