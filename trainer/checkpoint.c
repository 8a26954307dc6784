/* The folders of a run: the model with its curve, its report and what training goes on from; older checkpoints beside it.
 *
 * trainer.json holds what the model does not: the sums of the progressive metrics, and a fingerprint of the rows that were learned, so that
 * a run does not go on over another log. It is
 *     {"rows", "loss", "weight", "clicks", "predicted", "seconds", "bins": [[bin, non-clicks, clicks], ...],   see ct_trainer_state
 *      "pass_rows": of the first whole pass, "fingerprint": of the rows of the present pass, in hex} */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "base/thread.h"
#include "trainer/report.h"
#include "trainer/train_internal.h"

enum { STATE_MAX_BYTES = 64 << 20 };
static const char state_name[] = "trainer.json";
static const char kept_prefix[] = "rows-";

uint64_t run_fingerprint(uint64_t fingerprint, const ct_batch *batch) {
    for (size_t c = 0; c < batch->column_count; c++) {
        const ct_column *column = &batch->columns[c];
        if (!column->present || batch->rows == 0) continue;
        const size_t values = column->offsets != NULL ? column->offsets[batch->rows] : batch->rows;
        const size_t used = column->kind == CT_FIELD_LABEL ? values : values > 0;
        fingerprint = ct_hash64(column->values, used * ct_column_type_bytes(column->type), fingerprint);
    }
    return fingerprint;
}

/* --- what is written --- */

static json_t *read_report_json(const ct_read_report *report) {
    json_t *kinds = json_object();
    for (size_t kind = 0; kind < CT_BAD_KINDS; kind++)
        if (report->bad_rows[kind] > 0)
            json_object_set_new(kinds, ct_bad_row_kind_name((ct_bad_row_kind)kind), json_integer((json_int_t)report->bad_rows[kind]));
    return json_pack("{s:I, s:I, s:o, s:I, s:I}", "rows", (json_int_t)report->rows, "bad_rows", (json_int_t)report->bad_total,
                     "bad_rows_by_kind", kinds, "blank_lines", (json_int_t)report->blank_lines, "unsorted_times",
                     (json_int_t)report->unsorted_times);
}

static json_t *keys_json(const ct_train_result *result) {
    const ct_filter_info *filter = &result->filter;
    json_t *json = json_pack("{s:I, s:o, s:I}", "admitted", (json_int_t)result->admitted, "waiting",
                             filter->bytes > 0 ? json_null() : json_integer(result->waiting), "expired", (json_int_t)result->expired);
    if (filter->bytes > 0) {
        json_object_set_new(json, "filter_bytes", json_integer((json_int_t)filter->bytes));
        json_object_set_new(json, "filter_fill", json_real(filter->fill));
        json_object_set_new(json, "filter_error", json_real(filter->error));
    }
    return json;
}

/* Of this run; a resumed one begins anew. */
static json_t *disk_json(const ct_store_disk *disk) {
    const double keys = disk->fetched > 0 ? (double)disk->fetched : 1;
    return json_pack("{s:f, s:f, s:f, s:I, s:f, s:I, s:I}", "waited_seconds", (double)disk->waited_ns / 1e9, "held_back_seconds",
                     (double)disk->held_ns / 1e9, "longest_held_back_seconds", (double)disk->longest_held_ns / 1e9, "most_runs",
                     (json_int_t)disk->most_runs, "runs_a_fetch", (double)disk->asked_runs / keys, "fetched_keys",
                     (json_int_t)disk->fetched, "written_bytes", (json_int_t)disk->written_bytes);
}

/* Top level: the evaluation's metrics, or the progressive ones where nothing was evaluated. */
static ct_code metrics_json(const train_run *run, json_t **out_json, ct_status *status) {
    const ct_train_result *result = run->result;
    const ct_schema *schema = ct_model_schema(run->model);
    const bool groups = ct_schema_find_kind(schema, CT_FIELD_GROUP) >= 0 || ct_schema_find_kind(schema, CT_FIELD_UNIT) >= 0;
    json_t *json = json_object(), *progressive = json_object();
    ct_code code = ct_metrics_to_json(&result->progressive, false, progressive, status);
    if (code == CT_OK)
        code =
            ct_metrics_to_json(result->evaluated ? &result->evaluation : &result->progressive, result->evaluated && groups, json, status);
    if (code == CT_OK && result->evaluated) code = ct_calibration_to_json(&result->evaluation, json, status);
    json_object_set_new(json, "of", json_string(result->evaluated ? "evaluation" : "progressive"));
    json_object_set_new(json, "stopped", json_boolean(result->stopped));
    json_object_set_new(json, "progressive", progressive);
    json_object_set_new(json, "train", read_report_json(&result->train_report));
    if (result->evaluated) json_object_set_new(json, "evaluation", read_report_json(&result->eval_report));
    json_object_set_new(json, "train_seconds", json_real(result->train_seconds));
    json_object_set_new(json, "rows_per_second", json_real(result->rows_per_second));
    json_object_set_new(json, "keys", keys_json(result));
    if (result->disk.fetched > 0) json_object_set_new(json, "disk", disk_json(&result->disk));
    json_object_set_new(json, "model", ct_model_describe(run->model));
    json_object_set_new(json, "warnings", json_deep_copy(ct_watch_said(run->watch)));
    if (run->options->init != NULL) json_object_set_new(json, "init", json_deep_copy(run->options->init));
    if (code == CT_OK)
        *out_json = json;
    else
        json_decref(json);
    return code;
}

static json_t *text_array(const char *const *texts, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *text = json_string(texts[i]); /* NULL where it is no UTF-8 */
        json_array_append_new(array, text != NULL ? text : json_string("(a name that is no UTF-8)"));
    }
    return array;
}

static json_t *settings_json(const train_run *run) {
    const ct_train_options *options = run->options;
    const ct_model *model = run->model;
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:s, s:s}", "training_data",
                     text_array(options->train.sources, options->train.source_count), "evaluation_data",
                     text_array(options->eval_sources, options->eval_source_count), "epochs", (json_int_t)options->epochs, "batch_rows",
                     (json_int_t)ct_model_batch_rows(model), "seed", (json_int_t)ct_model_seed(model), "threads",
                     (json_int_t)ct_pool_threads(options->pool), "precision",
                     ct_model_precision(model) == CT_PRECISION_BF16 ? "bf16" : "fp32", "instruction_set", ct_model_instruction_set(model));
}

/* malloc'd. */
static ct_code state_text(const train_run *run, char **out_text, ct_status *status) {
    json_t *state = NULL;
    char print[17];
    CT_TRY(ct_trainer_state(run->trainer, &state, status));
    (void)snprintf(print, sizeof print, "%016llx", (unsigned long long)run->fingerprint);
    json_object_set_new(state, "pass_rows", json_integer((json_int_t)run->pass_rows));
    json_object_set_new(state, "fingerprint", json_string(print));
    *out_text = json_dumps(state, JSON_COMPACT);
    json_decref(state);
    return *out_text != NULL ? CT_OK : ct_fail_memory(status, 4096, "the trainer's state");
}

/* --- older checkpoints: OUT.checkpoints/rows-N --- */

/* Where the out folder goes when it is replaced: NULL where it is not kept. malloc'd. */
static ct_code name_kept(const train_run *run, char **out_path, ct_status *status) {
    if (run->kept_folder == NULL || run->folder_rows < 0 || run->folder_rows == ct_model_rows(run->model)) return CT_OK;
    CT_TRY(ct_folder_create(run->kept_folder, status));
    if (asprintf(out_path, "%s/%s%lld", run->kept_folder, kept_prefix, (long long)run->folder_rows) < 0) {
        *out_path = NULL;
        return ct_fail_memory(status, strlen(run->kept_folder), "a path");
    }
    return CT_OK;
}

/* Rows of a checkpoint by its folder's name; -1 where it is none. */
static int64_t rows_of_name(const char *name) {
    int64_t rows = -1;
    const size_t prefix = sizeof kept_prefix - 1;
    if (strncmp(name, kept_prefix, prefix) != 0 || !ct_parse_i64(name + prefix, strlen(name + prefix), &rows)) return -1;
    return rows;
}

/* Removes the oldest ones until `most` are left. */
static ct_code prune(const char *folder, uint32_t most, ct_status *status) {
    for (;;) {
        DIR *open = opendir(folder);
        if (open == NULL) return CT_OK;
        uint32_t count = 0;
        int64_t oldest = -1;
        for (const struct dirent *entry; (entry = readdir(open)) != NULL;) {
            const int64_t rows = rows_of_name(entry->d_name);
            if (rows < 0) continue;
            count++;
            if (oldest < 0 || rows < oldest) oldest = rows;
        }
        (void)closedir(open);
        if (count <= most) return CT_OK;
        char *path = NULL;
        if (asprintf(&path, "%s/%s%lld", folder, kept_prefix, (long long)oldest) < 0)
            return ct_fail_memory(status, strlen(folder), "a path");
        const ct_code code = ct_folder_remove(path, status);
        free(path);
        CT_TRY(code);
    }
}

/* --- the folder --- */

/* A folder's content as it is now, with the curve and a report of the run in it: run->saving. */
static ct_code begin(train_run *run, const char *folder, const json_t *metrics, ct_status *status) {
    const char *curve = ct_trainer_curve(run->trainer);
    json_t *settings = settings_json(run);
    char *spec = ct_model_spec_text(ct_model_spec_of(run->model)), *html = NULL, *title = NULL, *state = NULL, *kept = NULL;
    const bool out = folder != run->tail_folder;
    ct_code code = CT_OK;
    if (settings == NULL || spec == NULL || asprintf(&title, "Training of %s", run->options->out_folder) < 0) {
        title = NULL;
        code = ct_fail_memory(status, 4096, "the report");
        goto done;
    }
    const ct_report_input input = {.title = title, .metrics = metrics, .curve = curve, .settings = settings, .model_file = spec};
    CT_TRY_GOTO(code, ct_report_html(&input, &html, status), done);
    CT_TRY_GOTO(code, state_text(run, &state, status), done);
    if (out) CT_TRY_GOTO(code, name_kept(run, &kept, status), done);
    const ct_model_text texts[] = {{"curve.jsonl", curve}, {"train.html", html}, {state_name, state}};
    run->saving = (run_saving){.rows = ct_model_rows(run->model),
                               .began_ns = ct_clock_ns(),
                               .out = out,
                               .last = run->finishing,
                               .kept_folder = out ? run->kept_folder : NULL,
                               .most_kept = run->folder_rows < 0 ? 0 : run->options->keep - 1}; /* those of another training go, too */
    code = ct_model_save_begin(run->model, folder, metrics, texts, sizeof texts / sizeof *texts,
                               run->tail_saved && out ? run->tail_folder : NULL, kept, &run->saving.saving, status);
done:
    json_decref(settings);
    free(spec);
    free(html);
    free(title);
    free(state);
    free(kept);
    return code;
}

static void *write_main(void *argument) {
    run_saving *saving = argument;
    ct_code code = ct_model_save_end(saving->saving, &saving->status);
    if (code == CT_OK && saving->kept_folder != NULL) code = prune(saving->kept_folder, saving->most_kept, &saving->status);
    saving->took_ns = ct_clock_ns() - saving->began_ns;
    atomic_store(&saving->failed, code != CT_OK);
    return NULL;
}

/* It is written. */
static ct_code end(train_run *run, ct_status *status) {
    const run_saving *saving = &run->saving;
    if (atomic_load(&saving->failed)) {
        *status = saving->status;
        return status->code;
    }
    if (saving->out) run->folder_rows = saving->rows;
    if (!saving->last && saving->took_ns > run->result->longest_writing_ns) run->result->longest_writing_ns = saving->took_ns;
    return CT_OK;
}

ct_code run_saved(train_run *run, ct_status *status) {
    if (!run->saving.started) return CT_OK;
    (void)pthread_join(run->saving.thread, NULL);
    run->saving.started = false;
    return end(run, status);
}

/* Of the ids' table, which is the first. */
static void count_keys(train_run *run) {
    ct_model_table ids;
    ct_model_table_get(run->model, 0, &ids);
    run->result->admitted = ids.rows;
    run->result->waiting = ids.stubs;
    run->result->expired = ids.expired;
    ct_model_filter(run->model, &run->result->filter);
    ct_model_disk(run->model, &run->result->disk);
}

ct_code run_checkpoint(train_run *run, const char *folder, ct_status *status) {
    json_t *metrics = NULL;
    ct_train_result *result = run->result;
    const int64_t since = ct_clock_ns();
    CT_TRY(run_saved(run, status));
    const int64_t waited = ct_clock_ns() - since;
    count_keys(run);
    CT_TRY(ct_trainer_progressive(run->trainer, &result->progressive, status));
    CT_TRY(metrics_json(run, &metrics, status));
    ct_code code = begin(run, folder, metrics, status);
    json_decref(metrics);
    CT_TRY(code);
    if (!run->finishing) run->saving.started = ct_thread_start("ct-save", write_main, &run->saving, &run->saving.thread);
    if (!run->saving.started) {
        (void)write_main(&run->saving);
        code = end(run, status);
    }
    const int64_t took = ct_clock_ns() - since;
    result->saving_ns += took;
    if (run->finishing) return code;
    result->saved++;
    result->saving_waited_ns += waited;
    if (took - waited > result->longest_saving_ns) result->longest_saving_ns = took - waited;
    return code;
}

/* Under a name that the next run tidies up, whenever this one is killed. */
ct_code run_remove_tail(const train_run *run, ct_status *status) {
    char *old = NULL;
    if (run->tail_folder == NULL || !ct_model_folder_is(run->tail_folder)) return CT_OK;
    if (asprintf(&old, "%s.old-%ld", run->out, (long)getpid()) < 0) return ct_fail_memory(status, strlen(run->tail_folder), "a path");
    ct_code code = ct_folder_remove(old, status);
    if (code == CT_OK && rename(run->tail_folder, old) != 0) code = ct_fail_errno(status, "%s: cannot be removed", run->tail_folder);
    if (code == CT_OK) code = ct_folder_remove(old, status);
    free(old);
    return code;
}

/* --- going on --- */

ct_code run_save_beside(const train_run *run, const char *from, ct_status *status) {
    char *live = NULL;
    CT_TRY(ct_folder_scratch(run->out, &live, status));
    const ct_code code = ct_model_save_beside(run->model, live, from, status);
    free(live);
    return code;
}

static ct_code read_state(train_run *run, const char *folder, ct_status *status) {
    char *path = ct_path_join(folder, "curve.jsonl"), *state_path = ct_path_join(folder, state_name), *curve = NULL, *end = NULL;
    const char *print = NULL;
    json_t *state = NULL;
    size_t bytes = 0;
    ct_code code = CT_OK;
    if (path == NULL || state_path == NULL) {
        code = ct_fail_memory(status, strlen(folder), "a path");
        goto done;
    }
    CT_TRY_GOTO(code, ct_file_read(path, STATE_MAX_BYTES, &curve, &bytes, status), done);
    CT_TRY_GOTO(code, ct_json_load(state_path, &state, status), done);
    CT_TRY_GOTO(code, ct_trainer_take_up(run->trainer, state, state_path, curve, status), done);
    CT_TRY_GOTO(code, ct_json_get_range(state, "pass_rows", state_path, 0, INT64_MAX, &run->pass_rows, status), done);
    CT_TRY_GOTO(code, ct_json_get_string(state, "fingerprint", state_path, &print, status), done);
    run->first_print = strtoull(print, &end, 16);
    run->has_first_print = true;
    if (*print == '\0' || *end != '\0') code = ct_fail(status, CT_CORRUPT, "%s: fingerprint is '%s'", state_path, print);
done:
    json_decref(state);
    free(path);
    free(state_path);
    free(curve);
    return code;
}

ct_code run_take_up(train_run *run, ct_status *status) {
    const ct_train_options *options = run->options;
    ct_model_position(run->model, &run->first_epoch, &run->first_rows);
    run->rows_before = ct_model_rows(run->model);
    if (options->checkpoint_rows > 0) run->next_checkpoint = (run->rows_before / options->checkpoint_rows + 1) * options->checkpoint_rows;
    size_t bytes = strlen(options->out_folder);
    while (bytes > 1 && options->out_folder[bytes - 1] == '/') bytes--;
    run->out = strndup(options->out_folder, bytes);
    if (run->out == NULL) return ct_fail_memory(status, bytes, "a path");
    if (options->early_stop == 0 && asprintf(&run->tail_folder, "%s.tail", run->out) < 0) run->tail_folder = NULL;
    if (options->checkpoint_rows > 0) {
        char *from = options->resume ? ct_model_resume_folder(run->out) : NULL;
        const ct_code code = options->resume && from == NULL ? ct_fail_memory(status, bytes, "a path") : run_save_beside(run, from, status);
        free(from);
        CT_TRY(code);
    }
    if (options->keep > 1 && asprintf(&run->kept_folder, "%s.checkpoints", run->out) < 0) run->kept_folder = NULL;
    if ((options->early_stop == 0 && run->tail_folder == NULL) || (options->keep > 1 && run->kept_folder == NULL))
        return ct_fail_memory(status, bytes, "a path");
    CT_TRY(run_remove_tail(run, status)); /* of a run that was killed */
    run->folder_rows = -1;
    if (!options->resume) return CT_OK;
    if (strcmp(ct_model_instruction_set(run->model), ct_tower_instruction_set()) != 0)
        ct_watch_say(run->watch, "the model was trained with %s, this machine has %s: the last bits of what follows may be others",
                     ct_model_instruction_set(run->model), ct_tower_instruction_set());
    json_t *manifest = NULL;
    CT_TRY(ct_model_manifest(options->out_folder, false, &manifest, status));
    ct_code code = ct_json_get_i64(manifest, "rows", options->out_folder, &run->folder_rows, status);
    json_decref(manifest);
    char *folder = ct_model_resume_folder(options->out_folder);
    if (code == CT_OK && folder == NULL) code = ct_fail_memory(status, strlen(options->out_folder), "a path");
    if (code == CT_OK) code = read_state(run, folder, status);
    free(folder);
    return code;
}
