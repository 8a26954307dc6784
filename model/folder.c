/* The model folder as it is read (save.c writes it): the manifest's own line is checked, then every file, before any of it is believed.
 * Only ct_model_open_early leaves the sorted files of tables for later: their blocks have checksums of their own, which are checked as they
 * are read. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "model/model_internal.h"

enum {
    MANIFEST_MAX_BYTES = 64 << 20,
    TEXT_MAX_BYTES = 16 << 20,
    MOST_TRIES = 100,
    EARLY_BYTES = 8 << 20 /* for look-ups of a model that was opened early, all together */
};

/* --- the tower's tensors and the transforms, by name --- */

void tensor_list_deinit(tensor_list *list) {
    free(list->tensors);
    free(list->moments);
}

ct_code tensor_list_init(tensor_list *list, ct_model *model, ct_status *status) {
    const size_t tower = ct_tower_tensor_count(model->tower), numbers = model->layout.number_count;
    const size_t similarities = model->layout.similarity_count;
    *list = (tensor_list){.tensors = calloc(tower + similarities + 2, sizeof *list->tensors),
                          .moments = calloc(3 * numbers + 1, sizeof *list->moments)};
    if (list->tensors == NULL || list->moments == NULL) return ct_fail_memory(status, tower * sizeof *list->tensors, "the list of tensors");
    for (size_t i = 0; i < tower; i++) {
        const ct_tensor tensor = ct_tower_tensor(model->tower, i);
        named_tensor *named = &list->tensors[list->count++];
        *named = (named_tensor){.rows = tensor.rows, .columns = tensor.columns, .data = tensor.data};
        snprintf(named->name, sizeof named->name, "%s", tensor.name);
    }
    for (size_t i = 0; i < numbers; i++)
        memcpy(list->moments + 3 * i, (double[]){model->moments[i].count, model->moments[i].mean, model->moments[i].m2},
               3 * sizeof(double));
    list->tensors[list->count++] =
        (named_tensor){.name = "numbers.moments", .f64 = true, .rows = numbers, .columns = 3, .data = list->moments};
    list->tensors[list->count++] = (named_tensor){.name = "labels.prior", .f64 = true, .rows = 1, .columns = 2, .data = model->prior};
    for (size_t i = 0; i < similarities; i++) {
        named_tensor *named = &list->tensors[list->count++];
        *named = (named_tensor){.rows = 1, .columns = model->layout.similarities[i].dim, .data = model->centres[i]};
        snprintf(named->name, sizeof named->name, "similarity.%zu.centre", model->layout.similarities[i].field);
    }
    return CT_OK;
}

void tensor_list_filled(const tensor_list *list, ct_model *model, int64_t tower_step) {
    for (size_t i = 0; i < model->layout.number_count; i++)
        model->moments[i] = (number_moments){list->moments[3 * i], list->moments[3 * i + 1], list->moments[3 * i + 2]};
    model_refresh_scales(model);
    ct_tower_set_step(model->tower, tower_step);
    ct_tower_weights_changed(model->tower);
}

ct_code tensor_list_check_finite(const tensor_list *list, ct_status *status) {
    for (size_t i = 0; i < list->count; i++) {
        const named_tensor *tensor = &list->tensors[i];
        const float *values = tensor->data;
        for (size_t k = 0; k < tensor->rows * tensor->columns && !tensor->f64; k++)
            if (!isfinite(values[k]))
                return ct_fail(status, CT_INVALID,
                               "diverged: the tower's tensor %s holds %g, and is not saved; lower optimizer.learning_rate", tensor->name,
                               (double)values[k]);
    }
    return CT_OK;
}

bool ct_model_folder_is(const char *folder) {
    char *path = ct_path_join(folder, MODEL_MANIFEST);
    const bool there = path != NULL && ct_path_exists(path);
    free(path);
    return there;
}

char *ct_model_resume_folder(const char *folder) {
    char *resume = ct_path_join(folder, MODEL_RESUME);
    if (resume != NULL && ct_model_folder_is(resume)) return resume;
    free(resume);
    return strdup(folder);
}

static bool is_empty(const char *folder) {
    DIR *dir = opendir(folder);
    if (dir == NULL) return false;
    size_t entries = 0;
    while (entries < 3 && readdir(dir) != NULL) entries++; /* `.` and `..` */
    (void)closedir(dir);
    return entries < 3;
}

ct_code ct_model_folder_replaceable(const char *folder, ct_status *status) {
    if (ct_path_exists(folder) && !ct_model_folder_is(folder) && !is_empty(folder))
        return ct_fail(status, CT_EXISTS, "%s: there is something that is no model folder; name another folder or move it away", folder);
    return CT_OK;
}

/* --- reading --- */

static ct_code check_version(const json_t *manifest, const char *path, ct_status *status) {
    const char *format = NULL;
    int64_t version = 0, least = 0;
    json_t *required = NULL;
    CT_TRY(ct_json_get_string(manifest, "format", path, &format, status));
    if (strcmp(format, "clicktower-model") != 0)
        return ct_fail(status, CT_CORRUPT, "%s: format is '%s', not 'clicktower-model'", path, format);
    CT_TRY(ct_json_get_i64(manifest, "version", path, &version, status));
    CT_TRY(ct_json_get_i64(manifest, "least_reader_version", path, &least, status));
    CT_TRY(ct_json_get_array(manifest, "required_features", path, &required, status));
    char features[CT_STATUS_MESSAGE_BYTES / 2];
    size_t used = 0, index;
    const json_t *feature;
    features[0] = '\0';
    json_array_foreach(required, index, feature) {
        const char *name = json_string_value(feature);
        if (name != NULL && (strcmp(name, MODEL_HISTORIES) == 0 || strcmp(name, MODEL_CHAIN) == 0)) continue;
        if (used < sizeof features)
            used += (size_t)snprintf(features + used, sizeof features - used, "%s'%s'", used ? ", " : "", name == NULL ? "?" : name);
    }
    if (least <= MODEL_FORMAT_VERSION && features[0] == '\0') return CT_OK;
    return ct_fail(
        status, CT_UNSUPPORTED,
        "%s: written in format version %lld, which needs a program that reads version %lld%s%s; this one reads version %d%s: take "
        "a newer program",
        path, (long long)version, (long long)least, features[0] ? " and knows the features " : "", features, MODEL_FORMAT_VERSION,
        features[0] ? " and none of these" : "");
}

/* A file that was read. Tables of a folder and of its resume point are mostly two names of one file, which is read once. */
typedef struct read_file {
    dev_t device;
    ino_t inode;
    uint64_t bytes;
    char hex[CT_DIGEST_HEX_BYTES];
} read_file;

/* read: (*count), what was read before; where this file is not among them, it is put there. */
static ct_code digest_of(const char *path, read_file *read, size_t *count, const read_file **out_file, ct_status *status) {
    struct stat info;
    if (stat(path, &info) != 0) memset(&info, 0, sizeof info); /* reading it says why */
    for (size_t i = 0; i < *count && info.st_nlink > 1; i++)
        if (read[i].inode == info.st_ino && read[i].device == info.st_dev) {
            *out_file = &read[i];
            return CT_OK;
        }
    read_file *file = &read[*count];
    *file = (read_file){.device = info.st_dev, .inode = info.st_ino};
    CT_TRY(ct_file_digest(path, file->hex, &file->bytes, status));
    *out_file = file;
    ++*count;
    return CT_OK;
}

static ct_code check_length(const char *path, int64_t bytes, ct_status *status) {
    struct stat info;
    if (stat(path, &info) != 0) return ct_fail_errno(status, "%s: cannot read", path);
    if (info.st_size == bytes) return CT_OK;
    return ct_fail(status, CT_CORRUPT, "%s: the file is not what was written (%lld bytes; the manifest says %lld); copy the folder again",
                   path, (long long)info.st_size, (long long)bytes);
}

static bool is_sorted_file(const char *name) {
    const char *end = strrchr(name, '.');
    return end != NULL && strcmp(end, ".sst") == 0;
}

/* What of a folder's files is checked: nothing; all bytes, but of sorted files only how many there are; all bytes. */
typedef enum folder_check { CHECK_NONE, CHECK_EARLY, CHECK_ALL } folder_check;

static ct_code check_file(const char *folder, const json_t *file, const char *manifest_path, folder_check check, read_file *read,
                          size_t *read_count, ct_status *status) {
    const char *name = NULL, *expected = NULL;
    int64_t bytes = 0;
    CT_TRY(ct_json_get_string(file, "name", manifest_path, &name, status));
    CT_TRY(ct_json_get_string(file, "xxh3_128", manifest_path, &expected, status));
    CT_TRY(ct_json_get_i64(file, "bytes", manifest_path, &bytes, status));
    char *path = ct_path_join(folder, name);
    if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
    const bool early = check == CHECK_EARLY && is_sorted_file(name);
    const read_file *found = NULL;
    ct_code code = early ? check_length(path, bytes, status) : digest_of(path, read, read_count, &found, status);
    if (code == CT_NOT_FOUND)
        code = ct_fail(status, CT_CORRUPT, "%s: the manifest lists this file, but it is missing", path);
    else if (code == CT_OK && !early && (found->bytes != (uint64_t)bytes || strcmp(found->hex, expected) != 0))
        code = ct_fail(status, CT_CORRUPT,
                       "%s: the file is not what was written (%llu bytes, checksum %s; the manifest says %lld, %s); copy the folder again",
                       path, (unsigned long long)found->bytes, found->hex, (long long)bytes, expected);
    free(path);
    return code;
}

static ct_code check_files_of(const char *folder, const json_t *files, const char *manifest_path, folder_check check, ct_status *status) {
    const size_t count = json_array_size(files);
    size_t read_count = 0;
    read_file *read = calloc(count + 1, sizeof *read);
    ct_code code = read != NULL ? CT_OK : ct_fail_memory(status, count * sizeof *read, "a folder's list of files");
    for (size_t i = 0; i < count && code == CT_OK; i++)
        code = check_file(folder, json_array_get(files, i), manifest_path, check, read, &read_count, status);
    free(read);
    return code;
}

static bool requires(const json_t *manifest, const char *feature) {
    const json_t *required = json_object_get(manifest, "required_features");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name != NULL && strcmp(name, feature) == 0) return true;
    }
    return false;
}

static bool is_listed(const json_t *manifest, const char *file) {
    const json_t *files = json_object_get(manifest, "files");
    for (size_t i = 0; i < json_array_size(files); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(files, i), "name"));
        if (name != NULL && strcmp(name, file) == 0) return true;
    }
    return false;
}

/* How many files of histories are listed, one behind the other. */
static size_t history_files(const json_t *manifest) {
    for (size_t count = 0;; count++) {
        char name[CT_HISTORIES_NAME_BYTES], path[sizeof MODEL_HISTORIES + sizeof name];
        ct_histories_file_name(count, name);
        (void)snprintf(path, sizeof path, MODEL_HISTORIES "/%s", name);
        if (count == CT_HISTORIES_MOST_FILES || !is_listed(manifest, path)) return count;
    }
}

/* Does the name lead out of the folder? */
static bool leads_out(const char *name) {
    for (const char *at = name; at != NULL; at = strchr(at, '/')) {
        at += at != name;
        if (at[0] == '\0' || at[0] == '/' || (strncmp(at, "..", 2) == 0 && (at[2] == '/' || at[2] == '\0'))) return true;
    }
    return false;
}

/* A file that is read must have been listed, else nobody has checked it; and only files of the folder are. */
static ct_code check_listed(const json_t *manifest, const char *manifest_path, ct_status *status) {
    const json_t *files = json_object_get(manifest, "files"), *file;
    size_t index;
    json_array_foreach(files, index, file) {
        const char *name = json_string_value(json_object_get(file, "name"));
        if (name != NULL && leads_out(name))
            return ct_fail(status, CT_CORRUPT, "%s: the list of files has '%s', which is no name of a file in the folder", manifest_path,
                           name);
    }
    const char *const needed[] = {"schema.yaml", "model.yaml", "tower.safetensors", "tables/store.json", "tables/CURRENT"};
    for (size_t n = 0; n < sizeof needed / sizeof *needed; n++)
        if (!is_listed(manifest, needed[n]))
            return ct_fail(status, CT_CORRUPT, "%s: the list of files lacks '%s'", manifest_path, needed[n]);
    if ((requires(manifest, MODEL_CHAIN) && history_files(manifest) == 0) ||
        (requires(manifest, MODEL_HISTORIES) && !is_listed(manifest, MODEL_HISTORIES)))
        return ct_fail(status, CT_CORRUPT, "%s: the list of files lacks the histories", manifest_path);
    return CT_OK;
}

static ct_code read_manifest(const char *folder, folder_check check, json_t **out_manifest, ct_status *status) {
    char *path = ct_path_join(folder, MODEL_MANIFEST), *text = NULL;
    json_t *manifest = NULL, *files = NULL;
    ct_digest *checksum = NULL;
    size_t bytes = 0;
    if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
    ct_code code = ct_file_read(path, MANIFEST_MAX_BYTES, &text, &bytes, status);
    if (ct_path_exists(folder) && !ct_path_is_folder(folder))
        code = ct_fail(status, CT_NOT_FOUND, "%s: is a file, not a model folder", folder);
    else if (code == CT_NOT_FOUND)
        code = ct_path_is_folder(folder) ? ct_fail(status, CT_NOT_FOUND, "%s: no model folder (it has no file 'manifest')", folder)
                                         : ct_fail(status, CT_NOT_FOUND, "%s: no such folder", folder);
    if (code != CT_OK) goto done;
    char hex[CT_DIGEST_HEX_BYTES];
    const size_t tail = strlen(MODEL_CHECKSUM_WORD) + CT_DIGEST_HEX_BYTES - 1 + 2; /* newline, word, digits, newline */
    CT_TRY_GOTO(code, ct_digest_create(&checksum, status), done);
    if (bytes > tail) ct_digest_update(checksum, text, bytes - tail);
    ct_digest_hex(checksum, hex);
    if (bytes <= tail || text[bytes - tail] != '\n' ||
        strncmp(text + bytes - tail + 1, MODEL_CHECKSUM_WORD, strlen(MODEL_CHECKSUM_WORD)) != 0 ||
        strncmp(text + bytes - CT_DIGEST_HEX_BYTES, hex, CT_DIGEST_HEX_BYTES - 1) != 0 || text[bytes - 1] != '\n') {
        code = ct_fail(status, CT_CORRUPT,
                       "%s: the file is not what was written (its last line does not hold its checksum); copy the folder again", path);
        goto done;
    }
    CT_TRY_GOTO(code, ct_json_parse(text, bytes - tail, path, &manifest, status), done);
    CT_TRY_GOTO(code, check_version(manifest, path, status), done);
    CT_TRY_GOTO(code, ct_json_get_array(manifest, "files", path, &files, status), done);
    CT_TRY_GOTO(code, check_listed(manifest, path, status), done);
    if (check != CHECK_NONE) code = check_files_of(folder, files, path, check, status);
    if (code == CT_OK) {
        *out_manifest = manifest;
        manifest = NULL;
    }
done:
    json_decref(manifest);
    ct_digest_destroy(checksum);
    free(text);
    free(path);
    return code;
}

ct_code ct_model_manifest(const char *folder, bool check_files, json_t **out_manifest, ct_status *status) {
    return read_manifest(folder, check_files ? CHECK_ALL : CHECK_NONE, out_manifest, status);
}

ct_code model_position_get(const json_t *json, const char *path, model_position *out, ct_status *status) {
    int64_t epoch = 0;
    CT_TRY(ct_json_get_range(json, "rows", path, 0, INT64_MAX, &out->rows, status));
    CT_TRY(ct_json_get_range(json, "step", path, 0, INT64_MAX, &out->step, status));
    CT_TRY(ct_json_get_range(json, "tower_step", path, 0, INT64_MAX, &out->tower_step, status));
    CT_TRY(ct_json_get_range(json, "epoch", path, 0, UINT32_MAX, &epoch, status));
    CT_TRY(ct_json_get_range(json, "epoch_rows", path, 0, INT64_MAX, &out->epoch_rows, status));
    CT_TRY(ct_json_get_i64(json, "created_unix_ms", path, &out->created_ms, status));
    out->epoch = (uint32_t)epoch;
    return CT_OK;
}

void model_position_set(ct_model *model, const model_position *position) {
    model->rows = position->rows;
    model->step = position->step;
    model->epoch = position->epoch;
    model->epoch_rows = position->epoch_rows;
    model->created_ms = position->created_ms;
}

static ct_code read_numbers(ct_model *model, const json_t *manifest, const char *folder, int64_t *out_tower_step, ct_status *status) {
    const char *instruction_set = NULL, *digest = NULL, *precision = NULL;
    int64_t seed = 0, batch_rows = 0;
    model_position position;
    CT_TRY(model_position_get(manifest, folder, &position, status));
    CT_TRY(ct_json_get_i64(manifest, "seed", folder, &seed, status));
    CT_TRY(ct_json_get_range(manifest, "batch_rows", folder, 1, CT_MODEL_MAX_BATCH_ROWS, &batch_rows, status));
    CT_TRY(ct_json_get_string(manifest, "instruction_set", folder, &instruction_set, status));
    CT_TRY(ct_json_get_string(manifest, "precision", folder, &precision, status));
    CT_TRY(ct_json_get_string(manifest, "digest", folder, &digest, status));
    if (strcmp(precision, "bf16") != 0 && strcmp(precision, "fp32") != 0)
        return ct_fail(status, CT_UNSUPPORTED, "%s: precision is '%s'; this program knows bf16 and fp32", folder, precision);
    if (strlen(digest) != CT_DIGEST_HEX_BYTES - 1) return ct_fail(status, CT_CORRUPT, "%s: digest is '%s'", folder, digest);
    model_position_set(model, &position);
    *out_tower_step = position.tower_step;
    model->seed = (uint64_t)seed;
    model->batch_rows = (size_t)batch_rows;
    model->precision = strcmp(precision, "bf16") == 0 ? CT_PRECISION_BF16 : CT_PRECISION_FP32;
    snprintf(model->instruction_set, sizeof model->instruction_set, "%s", instruction_set);
    snprintf(model->digest, sizeof model->digest, "%s", digest);
    return CT_OK;
}

/* The place of vector `field`'s table in the store. */
static ct_code find_table(const ct_model *model, const char *folder, const char *name, size_t field, size_t *out_table, ct_status *status) {
    const int64_t index = ct_store_find_table(model->store, name);
    if (index < 0)
        return ct_fail(status, CT_CORRUPT, "%s: the manifest names no table for vector '%s'", folder, model->schema->fields[field].name);
    *out_table = (size_t)index;
    return CT_OK;
}

/* The frozen tables stand in for the vector files: which table is whose stands in the manifest. */
static ct_code read_layout(ct_model *model, const json_t *manifest, const char *folder, ct_status *status) {
    const size_t fields = model->schema->field_count;
    uint32_t *dims = calloc(fields + 1, sizeof *dims);
    char(*tables)[CT_TABLE_NAME_BYTES] = calloc(fields + 1, sizeof *tables);
    json_t *vectors = NULL;
    ct_code code = CT_OK;
    if (dims == NULL || tables == NULL) {
        code = ct_fail_memory(status, fields * sizeof *tables, "the model's layout");
        goto done;
    }
    CT_TRY_GOTO(code, ct_json_get_object(manifest, "vectors", folder, &vectors, status), done);
    for (size_t f = 0; f < fields; f++) {
        const char *table = json_string_value(json_object_get(vectors, model->schema->fields[f].name));
        if (table == NULL) continue;
        const int64_t index = ct_store_find_table(model->store, table);
        if (index < 0 || ct_store_table(model->store, (size_t)index)->kind != CT_TABLE_FROZEN) {
            code = ct_fail(status, CT_CORRUPT, "%s: field '%s' needs table '%s', which is not there, or not of vectors", folder,
                           model->schema->fields[f].name, table);
            goto done;
        }
        dims[f] = ct_store_table(model->store, (size_t)index)->dim;
        snprintf(tables[f], sizeof tables[f], "%s", table);
    }
    CT_TRY_GOTO(code,
                model_layout_init(&model->layout, model->schema, model->spec, dims, (const char(*)[CT_TABLE_NAME_BYTES])tables, status),
                done);
    for (size_t i = 0; i < model->layout.vector_count; i++) {
        layout_vector *vector = &model->layout.vectors[i];
        CT_TRY_GOTO(code, find_table(model, folder, vector->table_name, vector->field, &vector->table, status), done);
    }
    for (size_t i = 0; i < model->layout.similarity_count; i++) {
        layout_similarity *similarity = &model->layout.similarities[i];
        CT_TRY_GOTO(code, find_table(model, folder, similarity->table_name, similarity->vector_field, &similarity->table, status), done);
    }
    const ct_table_spec *ids = ct_store_table_count(model->store) > 0 ? ct_store_table(model->store, ID_TABLE) : NULL;
    if (ids == NULL || ids->kind != CT_TABLE_TRAINED || ids->dim != model->layout.embedding_dim)
        code = ct_fail(status, CT_CORRUPT, "%s: the first table does not hold the ids' rows of %u floats", folder,
                       model->layout.embedding_dim);
done:
    free(dims);
    free(tables);
    return code;
}

static ct_code read_tower(ct_model *model, const char *path, int64_t tower_step, ct_status *status) {
    tensor_list list = {0};
    ct_code code = tensor_list_init(&list, model, status);
    if (code == CT_OK) code = safetensors_read(path, list.tensors, list.count, model->mode == CT_MODEL_READ, status);
    if (code == CT_OK) tensor_list_filled(&list, model, tower_step);
    tensor_list_deinit(&list);
    return code;
}

/* Histories of so many bytes and the least that reading tables takes must be within the limit, of which one part of `parts` is not for that
 * (0 = none). Whoever takes a limit from somebody refuses one below that least; here it stands for the whole. */
static ct_code check_read_limit(const char *folder, uint64_t histories_bytes, uint64_t memory_bytes, unsigned parts, ct_status *status) {
    const uint64_t mib = 1 << 20, given = memory_bytes / mib, histories = (histories_bytes + mib - 1) / mib;
    const uint64_t least = histories + CT_STORE_LEAST_READ_MIB, needed = parts > 0 ? (least * parts + parts - 2) / (parts - 1) : least;
    if (histories == 0 || given >= needed) return CT_OK;
    return ct_fail(status, CT_INVALID,
                   "%s: a memory limit of %llu MiB is too small to read the model, whose histories take %llu MiB; give %llu MiB", folder,
                   (unsigned long long)given, (unsigned long long)histories, (unsigned long long)needed);
}

ct_code model_check_read_limit(const char *folder, uint64_t memory_bytes, unsigned parts, ct_status *status) {
    json_t *manifest = NULL;
    if (memory_bytes == 0) return CT_OK;
    CT_TRY(ct_model_manifest(folder, false, &manifest, status));
    const json_int_t bytes = json_integer_value(json_object_get(manifest, "histories_bytes")); /* 0 in older folders */
    json_decref(manifest);
    return check_read_limit(folder, bytes > 0 ? (uint64_t)bytes : 0, memory_bytes, parts, status);
}

/* Where the folder has any: a chain of files, or the one of an earlier program. Of a model for reading they are a part of the limit:
 * *memory_bytes is then what they leave. */
static ct_code read_histories(ct_model *model, const json_t *manifest, const char *folder, uint64_t *memory_bytes, ct_status *status) {
    const bool chain = requires(manifest, MODEL_CHAIN);
    if (!chain && !requires(manifest, MODEL_HISTORIES)) return CT_OK;
    char *path = ct_path_join(folder, MODEL_HISTORIES);
    if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
    const ct_code code = ct_histories_open(model->schema, path, chain ? history_files(manifest) : 0, &model->histories, status);
    free(path);
    if (code != CT_OK || model->mode != CT_MODEL_READ || *memory_bytes == 0) return code;
    const uint64_t bytes = ct_histories_bytes(model->histories);
    CT_TRY(check_read_limit(folder, bytes, *memory_bytes, 0, status));
    *memory_bytes -= bytes;
    return CT_OK;
}

/* After the layout. */
static ct_code check_histories(ct_model *model, const char *folder, ct_status *status) {
    if (model->layout.histories && model->histories == NULL)
        return ct_fail(status, CT_CORRUPT, "%s: the model's features follow from histories, but the folder has none", folder);
    if (model->layout.histories) return CT_OK;
    ct_histories_destroy(model->histories); /* no feature asks for them */
    model->histories = NULL;
    return CT_OK;
}

/* Of what model.yaml asks for, no more memory is taken than the tower's file can fill. */
static ct_code finish(ct_model *model, const char *tower, ct_status *status) {
    struct stat info;
    if (stat(tower, &info) != 0) return ct_fail_errno(status, "%s: cannot look at it", tower);
    const size_t floats = (size_t)info.st_size / sizeof(float) + 1;
    ct_code code = model_finish(model, floats, status);
    if (code == CT_UNSUPPORTED && model->mode != CT_MODEL_TRAIN && model->precision == CT_PRECISION_BF16) {
        /* Trained in bf16, read where there is none: the same weights in fp32. ct_model_precision tells. */
        model->precision = CT_PRECISION_FP32;
        free(model->moments);
        free(model->scales);
        *status = (ct_status)CT_STATUS_INIT;
        code = model_finish(model, floats, status);
    }
    if (code != CT_INVALID) return code;
    status->code = CT_CORRUPT; /* it was written, so it is no argument of the caller's */
    return ct_fail_within(status, "%s", tower);
}

/* How a folder is opened: what the functions in model.h are told. */
typedef struct opening {
    ct_model_mode mode;
    bool early; /* READ */
    uint64_t memory_bytes;
    const char *live_folder;
    ct_device *device;
    ct_pool *pool;
} opening;

static ct_code open_once(const char *folder, const opening *how, ct_model **out_model, ct_status *status) {
    json_t *manifest = NULL;
    char *schema = ct_path_join(folder, "schema.yaml"), *spec = ct_path_join(folder, "model.yaml");
    char *tables = ct_path_join(folder, "tables"), *tower = ct_path_join(folder, "tower.safetensors"), *text = NULL;
    size_t bytes = 0;
    int64_t tower_step = 0;
    ct_code code = CT_OK;
    ct_model *model = calloc(1, sizeof *model);
    if (schema == NULL || spec == NULL || tables == NULL || tower == NULL || model == NULL) {
        code = ct_fail_memory(status, 4096, "a model");
        goto done;
    }
    model->mode = how->mode;
    model->early = how->early;
    model->memory_bytes = how->memory_bytes;
    ct_store_limit limit = {how->memory_bytes, how->live_folder, how->early};
    static const ct_store_mode store_modes[] = {
        [CT_MODEL_TRAIN] = CT_STORE_TRAIN, [CT_MODEL_LOOK] = CT_STORE_LOOK, [CT_MODEL_READ] = CT_STORE_READ};
    model->device = how->device != NULL ? how->device : ct_device_cpu();
    model->pool = how->pool;
    if (how->mode == CT_MODEL_READ) CT_TRY_GOTO(code, model_check_read_limit(folder, how->memory_bytes, 0, status), done);
    CT_TRY_GOTO(code, read_manifest(folder, how->early ? CHECK_EARLY : CHECK_ALL, &manifest, status), done);
    CT_TRY_GOTO(code, ct_file_read(schema, TEXT_MAX_BYTES, &text, &bytes, status), done);
    CT_TRY_GOTO(code, ct_schema_parse(text, bytes, schema, &model->schema, status), done);
    CT_TRY_GOTO(code, ct_model_spec_load(spec, NULL, 0, &model->spec, status), done);
    CT_TRY_GOTO(code, read_numbers(model, manifest, folder, &tower_step, status), done);
    CT_TRY_GOTO(code, read_histories(model, manifest, folder, &limit.memory_bytes, status), done);
    if (how->early) limit.memory_bytes = EARLY_BYTES;
    CT_TRY_GOTO(code, ct_store_open_within(tables, store_modes[how->mode], &limit, model->device, how->pool, &model->store, status), done);
    CT_TRY_GOTO(code, read_layout(model, manifest, folder, status), done);
    CT_TRY_GOTO(code, check_histories(model, folder, status), done);
    if (how->mode == CT_MODEL_TRAIN && how->memory_bytes > 0)
        CT_TRY_GOTO(code, model_save_histories_beside(model, how->live_folder, folder, status), done);
    code = finish(model, tower, status);
    if (code == CT_OK) code = read_tower(model, tower, tower_step, status);
    if (code == CT_OK) {
        *out_model = model;
        model = NULL;
    }
done:
    ct_model_destroy(model);
    json_decref(manifest);
    free(schema);
    free(spec);
    free(tables);
    free(tower);
    free(text);
    return code;
}

/* Which folder has the name now; 0 where none has. A writer puts another one there as a whole. */
static struct stat folder_of_name(const char *folder) {
    struct stat info;
    if (stat(folder, &info) != 0) memset(&info, 0, sizeof info);
    return info;
}

static bool is_same_folder(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* A writer may replace the folder while it is read: then what was read, or could not be, is not of one folder, and it is read anew. */
static ct_code open_whole(const char *folder, const opening *how, ct_model **out_model, ct_status *status) {
    for (int tries = 1;; tries++) {
        const struct stat before = folder_of_name(folder);
        ct_status found = CT_STATUS_INIT;
        ct_model *model = NULL;
        const ct_code code = open_once(folder, how, &model, &found);
        const struct stat after = folder_of_name(folder);
        if (is_same_folder(&before, &after)) {
            if (code == CT_OK)
                *out_model = model;
            else
                *status = found;
            return code;
        }
        ct_model_destroy(model);
        if (tries == MOST_TRIES)
            return ct_fail(status, CT_UNAVAILABLE, "%s: another folder took its place each of the %d times that it was read", folder,
                           tries);
    }
}

ct_code ct_model_open_within(const char *folder, ct_model_mode mode, uint64_t memory_bytes, const char *live_folder, ct_device *device,
                             ct_pool *pool, ct_model **out_model, ct_status *status) {
    const opening how = {.mode = mode, .memory_bytes = memory_bytes, .live_folder = live_folder, .device = device, .pool = pool};
    return open_whole(folder, &how, out_model, status);
}

ct_code ct_model_open(const char *folder, ct_model_mode mode, ct_device *device, ct_pool *pool, ct_model **out_model, ct_status *status) {
    return ct_model_open_within(folder, mode, 0, NULL, device, pool, out_model, status);
}

ct_code ct_model_open_early(const char *folder, uint64_t memory_bytes, ct_pool *pool, ct_model **out_model, ct_status *status) {
    const opening how = {.mode = CT_MODEL_READ, .early = true, .memory_bytes = memory_bytes, .pool = pool};
    return open_whole(folder, &how, out_model, status);
}

bool ct_model_is_early(const ct_model *model) { return model->early; }
