/* The model folder as it is written. Its content is taken at one moment, copies of what changes in training and the store's snapshot; then
 * it is written by whoever has the time, beside training if need be. The folder is made beside its name and renamed, so a name holds a
 * whole model or none. The manifest is written last and lists every other file with size and checksum. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "model/model_internal.h"

struct ct_model_saving {
    ct_model *model;                                     /* its constants, and the sums of files that were written */
    char *folder, *staged, *resume_folder, *kept_folder; /* the last two may be NULL */
    tensor_list tensors;
    char *values; /* of the tensors */
    ct_snapshot *snapshot;
    ct_histories_saving *histories; /* NULL = there are none */
    char *spec;
    json_t *metrics;
    ct_model_text *texts; /* (text_count): name and text are its own */
    size_t text_count;
    int64_t rows, step, tower_step, epoch_rows;
    uint32_t epoch;
};

static void saving_destroy(ct_model_saving *saving) {
    ct_snapshot_end(saving->snapshot);
    tensor_list_deinit(&saving->tensors);
    ct_histories_saving_end(saving->histories);
    json_decref(saving->metrics);
    for (size_t i = 0; saving->texts != NULL && i < saving->text_count; i++) {
        free((char *)(uintptr_t)saving->texts[i].name);
        free((char *)(uintptr_t)saving->texts[i].text);
    }
    free(saving->texts);
    free(saving->values);
    free(saving->spec);
    free(saving->folder);
    free(saving->staged);
    free(saving->resume_folder);
    free(saving->kept_folder);
    free(saving);
}

/* --- the digest --- */

static void digest_head(const ct_model *model, const char *spec, int64_t rows, int64_t step, const tensor_list *list, ct_digest *digest) {
    ct_digest_update_text(digest, "clicktower-model 1");
    ct_digest_update_u64(digest, model->schema->hash);
    ct_digest_update_text(digest, spec);
    ct_digest_update_u64(digest, model->seed);
    ct_digest_update_u64(digest, (uint64_t)rows);
    ct_digest_update_u64(digest, (uint64_t)step);
    ct_digest_update_u64(digest, (uint64_t)model->batch_rows);
    for (size_t i = 0; i < list->count; i++) {
        const named_tensor *tensor = &list->tensors[i];
        ct_digest_update_text(digest, tensor->name);
        ct_digest_update_u64(digest, tensor->rows);
        ct_digest_update_u64(digest, tensor->columns);
        ct_digest_update(digest, tensor->data, tensor->rows * tensor->columns * (tensor->f64 ? 8 : 4));
    }
}

ct_code ct_model_digest(ct_model *model, char out_hex[CT_DIGEST_HEX_BYTES], ct_status *status) {
    if (model->mode == CT_MODEL_READ) {
        memcpy(out_hex, model->digest, CT_DIGEST_HEX_BYTES);
        return CT_OK;
    }
    ct_digest *digest = NULL;
    tensor_list list = {0};
    char *spec = ct_model_spec_text(model->spec);
    ct_code code = spec == NULL ? ct_fail_memory(status, 4096, "the spec's text") : CT_OK;
    if (code != CT_OK) return code;
    CT_TRY_GOTO(code, ct_digest_create(&digest, status), done);
    CT_TRY_GOTO(code, tensor_list_init(&list, model, status), done);
    digest_head(model, spec, model->rows, model->step, &list, digest);
    CT_TRY_GOTO(code, ct_store_digest(model->store, digest, status), done);
    if (model->histories != NULL) CT_TRY_GOTO(code, ct_histories_digest(model->histories, digest, status), done);
    ct_digest_hex(digest, out_hex);
done:
    tensor_list_deinit(&list);
    ct_digest_destroy(digest);
    free(spec);
    return code;
}

/* Writes the histories, and gives the digest of what is saved; after the snapshot was written. */
static ct_code write_histories(const ct_model_saving *saving, const char *path, char out_hex[CT_DIGEST_HEX_BYTES], ct_status *status) {
    ct_digest *digest = NULL;
    CT_TRY(ct_digest_create(&digest, status));
    digest_head(saving->model, saving->spec, saving->rows, saving->step, &saving->tensors, digest);
    ct_snapshot_digest(saving->snapshot, digest);
    const ct_code code = saving->histories != NULL ? ct_histories_saving_write(saving->histories, path, digest, status) : CT_OK;
    if (code == CT_OK) ct_digest_hex(digest, out_hex);
    ct_digest_destroy(digest);
    return code;
}

/* --- the files --- */

static ct_code add_file(json_t *files, const char *folder, const char *name, const file_prints *before, file_prints *now,
                        ct_status *status) {
    char *path = ct_path_join(folder, name);
    char hex[CT_DIGEST_HEX_BYTES];
    uint64_t bytes = 0;
    if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
    const ct_code code = file_print_of(before, now, path, hex, &bytes, status);
    free(path);
    if (code != CT_OK) return code;
    json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "name", name, "bytes", (json_int_t)bytes, "xxh3_128", hex));
    return CT_OK;
}

static ct_code write_manifest(const ct_model_saving *saving, const char *digest, ct_status *status) {
    ct_model *model = saving->model;
    const char *folder = saving->staged;
    ct_file_list list = {0};
    file_prints prints = {0};
    char *text = NULL, *path = NULL;
    ct_digest *checksum = NULL;
    ct_file_writer *writer = NULL;
    json_t *files = json_array(), *vectors = json_object();
    for (size_t i = 0; i < model->layout.vector_count; i++)
        json_object_set_new(vectors, model->schema->fields[model->layout.vectors[i].field].name,
                            json_string(model->layout.vectors[i].table_name));
    for (size_t i = 0; i < model->layout.similarity_count; i++)
        json_object_set_new(vectors, model->schema->fields[model->layout.similarities[i].vector_field].name,
                            json_string(model->layout.similarities[i].table_name));
    json_t *required = json_array();
    if (saving->histories != NULL) json_array_append_new(required, json_string(MODEL_CHAIN));
    /* clang-format off */
    json_t *manifest = json_pack("{s:s, s:i, s:i, s:o, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:[s], s:o, s:o}",
        "format", "clicktower-model", "version", MODEL_FORMAT_VERSION, "least_reader_version", MODEL_LEAST_READER_VERSION, "required_features", required,
        "created_unix_ms", (json_int_t)ct_clock_unix_ms(), "schema", model->schema->name, "model", ct_architecture_name(model->spec->architecture),
        "rows", (json_int_t)saving->rows, "step", (json_int_t)saving->step, "tower_step", (json_int_t)saving->tower_step, "epoch", (json_int_t)saving->epoch, "epoch_rows", (json_int_t)saving->epoch_rows,
        "seed", (json_int_t)model->seed, "batch_rows", (json_int_t)model->batch_rows, "instruction_set", model->instruction_set,
        "precision", ct_model_precision(model) == CT_PRECISION_BF16 ? "bf16" : "fp32", "outputs", "click", "vectors", vectors, "files", files);
    /* clang-format on */
    ct_code code = manifest == NULL ? ct_fail_memory(status, 4096, "the manifest") : ct_folder_list(folder, &list, status);
    for (size_t i = 0; i < list.count && code == CT_OK; i++) code = add_file(files, folder, list.names[i], &model->prints, &prints, status);
    if (code != CT_OK) goto done;
    json_object_set_new(manifest, "digest", json_string(digest));
    if (saving->histories != NULL)
        json_object_set_new(manifest, "histories_bytes", json_integer((json_int_t)ct_histories_saving_opened_bytes(saving->histories)));
    text = json_dumps(manifest, JSON_INDENT(2));
    path = ct_path_join(folder, MODEL_MANIFEST);
    if (text == NULL || path == NULL) {
        code = ct_fail_memory(status, 4096, "the manifest");
        goto done;
    }
    char hex[CT_DIGEST_HEX_BYTES];
    CT_TRY_GOTO(code, ct_digest_create(&checksum, status), done);
    ct_digest_update(checksum, text, strlen(text));
    ct_digest_hex(checksum, hex);
    CT_TRY_GOTO(code, ct_file_writer_open(path, &writer, status), done);
    CT_TRY_GOTO(code, ct_file_writer_printf(writer, status, "%s\n%s%s\n", text, MODEL_CHECKSUM_WORD, hex), done);
    code = ct_file_writer_commit(writer, status);
    writer = NULL;
    if (code == CT_OK) {
        file_prints_deinit(&model->prints);
        model->prints = prints;
        prints = (file_prints){0};
    }
done:
    file_prints_deinit(&prints);
    ct_file_writer_abort(writer);
    ct_digest_destroy(checksum);
    ct_file_list_deinit(&list);
    json_decref(manifest);
    free(text);
    free(path);
    return code;
}

static ct_code write_text(const char *folder, const char *name, const char *text, size_t bytes, ct_status *status) {
    char *path = ct_path_join(folder, name);
    if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
    const ct_code code = ct_file_write(path, text, bytes, status);
    free(path);
    return code;
}

static ct_code check_texts(const ct_model_text *texts, size_t count, ct_status *status) {
    static const char *const taken[] = {"manifest", "schema.yaml",  "model.yaml", "tower.safetensors",
                                        "tables",   "metrics.json", "resume",     "histories"};
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    for (size_t i = 0; i < count; i++) {
        const char *name = texts[i].name;
        bool bad = name[0] == '\0' || name[0] == '.' || name[strspn(name, good)] != '\0';
        for (size_t t = 0; t < sizeof taken / sizeof *taken; t++) bad = bad || strcmp(name, taken[t]) == 0;
        for (size_t t = 0; t < i; t++) bad = bad || strcmp(name, texts[t].name) == 0;
        if (bad) return ct_fail(status, CT_INVALID, "'%s' is no name for a text of a model folder", name);
    }
    return CT_OK;
}

static ct_code write_content(const ct_model_saving *saving, ct_status *status) {
    const ct_model *model = saving->model;
    const char *folder = saving->staged;
    char *tower = ct_path_join(folder, "tower.safetensors"), *json = ct_path_join(folder, "metrics.json");
    char *resume = ct_path_join(folder, MODEL_RESUME), *histories = ct_path_join(folder, MODEL_HISTORIES);
    char digest[CT_DIGEST_HEX_BYTES];
    ct_code code = CT_OK;
    if (tower == NULL || json == NULL || resume == NULL || histories == NULL) {
        code = ct_fail_memory(status, 4096, "the model folder");
        goto done;
    }
    CT_TRY_GOTO(code, write_text(folder, "schema.yaml", model->schema->text, model->schema->text_bytes, status), done);
    CT_TRY_GOTO(code, write_text(folder, "model.yaml", saving->spec, strlen(saving->spec), status), done);
    CT_TRY_GOTO(code, ct_json_save(json, saving->metrics, status), done);
    for (size_t i = 0; i < saving->text_count; i++)
        CT_TRY_GOTO(code, write_text(folder, saving->texts[i].name, saving->texts[i].text, strlen(saving->texts[i].text), status), done);
    CT_TRY_GOTO(code, safetensors_write(tower, saving->tensors.tensors, saving->tensors.count, status), done);
    CT_TRY_GOTO(code, ct_snapshot_write(saving->snapshot, status), done);
    CT_TRY_GOTO(code, write_histories(saving, histories, digest, status), done);
    if (saving->resume_folder != NULL && rename(saving->resume_folder, resume) != 0) {
        code = ct_fail_errno(status, "%s: cannot be moved into the model folder", saving->resume_folder);
        goto done;
    }
    code = write_manifest(saving, digest, status);
done:
    free(tower);
    free(json);
    free(resume);
    free(histories);
    return code;
}

/* --- one moment --- */

/* The tensors' values as they are now, in memory of their own. */
static ct_code copy_tensors(ct_model_saving *saving, ct_status *status) {
    tensor_list *list = &saving->tensors;
    size_t bytes = 0;
    CT_TRY(tensor_list_init(list, saving->model, status));
    CT_TRY(tensor_list_check_finite(list, status));
    for (size_t i = 0; i < list->count; i++) bytes += list->tensors[i].rows * list->tensors[i].columns * sizeof(double);
    saving->values = malloc(bytes + 1);
    if (saving->values == NULL) return ct_fail_memory(status, bytes, "a copy of the tower");
    char *to = saving->values;
    for (size_t i = 0; i < list->count; i++) {
        named_tensor *tensor = &list->tensors[i];
        const size_t values = tensor->rows * tensor->columns;
        if (values > 0) memcpy(to, tensor->data, values * (tensor->f64 ? sizeof(double) : sizeof(float)));
        tensor->data = to;
        to += values * sizeof(double);
    }
    return CT_OK;
}

static ct_code copy_texts(ct_model_saving *saving, const ct_model_text *texts, size_t count, ct_status *status) {
    saving->texts = calloc(count + 1, sizeof *saving->texts);
    saving->text_count = count;
    for (size_t i = 0; saving->texts != NULL && i < count; i++) {
        saving->texts[i] = (ct_model_text){strdup(texts[i].name), strdup(texts[i].text)};
        if (saving->texts[i].name == NULL || saving->texts[i].text == NULL)
            return ct_fail_memory(status, strlen(texts[i].text), texts[i].name);
    }
    return saving->texts != NULL ? CT_OK : ct_fail_memory(status, count * sizeof *texts, "a folder's texts");
}

static ct_code take(ct_model_saving *saving, const json_t *metrics, ct_status *status) {
    ct_model *model = saving->model;
    saving->rows = model->rows;
    saving->step = model->step;
    saving->tower_step = ct_tower_step(model->tower);
    saving->epoch = model->epoch;
    saving->epoch_rows = model->epoch_rows;
    saving->spec = ct_model_spec_text(model->spec);
    saving->metrics = json_deep_copy(metrics);
    if (saving->spec == NULL || saving->metrics == NULL) return ct_fail_memory(status, 4096, "the model folder");
    CT_TRY(copy_tensors(saving, status));
    if (model->histories != NULL) CT_TRY(ct_histories_saving_begin(model->histories, &saving->histories, status));
    char *tables = ct_path_join(saving->staged, "tables");
    if (tables == NULL) return ct_fail_memory(status, strlen(saving->staged), "a path");
    const ct_code code = ct_snapshot_begin(model->store, tables, &saving->snapshot, status);
    free(tables);
    return code;
}

/* After a failure. The store's helper may have the snapshot's folder in work, which stays until it is through. */
static void remove_staged(ct_model_saving *saving, ct_status *status) {
    ct_status ignored = CT_STATUS_INIT;
    ct_snapshot_end(saving->snapshot);
    saving->snapshot = NULL;
    if (ct_folder_remove(saving->staged, &ignored) != CT_OK) ct_fail_within(status, "%s could not be removed either", saving->staged);
}

ct_code ct_model_save_begin(ct_model *model, const char *folder, const json_t *metrics, const ct_model_text *texts, size_t text_count,
                            const char *resume_folder, const char *kept_folder, ct_model_saving **out_saving, ct_status *status) {
    if (model->mode != CT_MODEL_TRAIN) return ct_fail(status, CT_INVALID, "the model was opened for reading; it can't be saved");
    CT_TRY(check_texts(texts, text_count, status));
    ct_snapshot_wait(model->store); /* its folder may be staged under the same name */
    CT_TRY(ct_model_folder_replaceable(folder, status));
    ct_code code = CT_OK;
    ct_model_saving *saving = calloc(1, sizeof *saving);
    if (saving == NULL) return ct_fail_memory(status, sizeof *saving, "the model folder");
    saving->model = model;
    saving->folder = strdup(folder);
    saving->resume_folder = resume_folder != NULL ? strdup(resume_folder) : NULL;
    saving->kept_folder = kept_folder != NULL ? strdup(kept_folder) : NULL;
    if (saving->folder == NULL || (resume_folder != NULL && saving->resume_folder == NULL) ||
        (kept_folder != NULL && saving->kept_folder == NULL)) {
        code = ct_fail_memory(status, strlen(folder), "a path");
        goto fail;
    }
    CT_TRY_GOTO(code, copy_texts(saving, texts, text_count, status), fail);
    CT_TRY_GOTO(code, ct_folder_stage(folder, &saving->staged, status), fail);
    code = take(saving, metrics, status);
    if (code != CT_OK) remove_staged(saving, status);
fail:
    if (code == CT_OK)
        *out_saving = saving;
    else
        saving_destroy(saving);
    return code;
}

ct_code ct_model_save_end(ct_model_saving *saving, ct_status *status) {
    ct_code code = write_content(saving, status);
    if (code == CT_OK) code = ct_folder_commit_keeping(saving->staged, saving->folder, saving->kept_folder, status);
    if (code != CT_OK) remove_staged(saving, status);
    saving_destroy(saving);
    return code;
}

ct_code ct_model_save_texts(ct_model *model, const char *folder, const json_t *metrics, const ct_model_text *texts, size_t text_count,
                            const char *resume_folder, const char *kept_folder, ct_status *status) {
    ct_model_saving *saving = NULL;
    CT_TRY(ct_model_save_begin(model, folder, metrics, texts, text_count, resume_folder, kept_folder, &saving, status));
    return ct_model_save_end(saving, status);
}

ct_code ct_model_save(ct_model *model, const char *folder, const json_t *metrics, const char *curve, ct_status *status) {
    return ct_model_save_texts(model, folder, metrics, &(const ct_model_text){"curve.jsonl", curve}, 1, NULL, NULL, status);
}

/* In the store's scratch folder, which is removed with the store. */
ct_code model_save_histories_beside(ct_model *model, const char *live_folder, const char *from, ct_status *status) {
    if (model->histories == NULL) return CT_OK;
    char *folder = ct_path_join(live_folder, MODEL_HISTORIES), *files = from != NULL ? ct_path_join(from, MODEL_HISTORIES) : NULL;
    const ct_code code = folder == NULL || (from != NULL && files == NULL)
                             ? ct_fail_memory(status, strlen(live_folder), "a path")
                             : ct_histories_save_beside(model->histories, folder, files, status);
    free(folder);
    free(files);
    return code;
}

ct_code ct_model_save_beside(ct_model *model, const char *live_folder, const char *from, ct_status *status) {
    char *tables = from != NULL ? ct_path_join(from, "tables") : NULL;
    if (from != NULL && tables == NULL) return ct_fail_memory(status, strlen(from), "a path");
    ct_code code = ct_store_save_beside(model->store, live_folder, tables, status);
    free(tables);
    if (code == CT_OK) code = model_save_histories_beside(model, live_folder, from, status);
    return code;
}
