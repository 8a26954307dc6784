/* A model folder described for people, row by row. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/model_internal.h"

ct_code ct_model_describe_folder(const ct_model *model, const char *folder, json_t **out_json, ct_status *status) {
    static const char *const shown[] = {"name",      "kind",        "dim",          "precision",   "optimiser",   "rows",      "stubs",
                                        "expired",   "bytes",       "memory_bytes", "shards",      "shard_rows",  "dead_rows", "norm_mean",
                                        "norm_most", "level_bytes", "filter_bytes", "filter_fill", "filter_error"};
    json_t *store = NULL, *json = ct_model_describe(model), *tables = json_array(), *table;
    char *path = ct_path_join(folder, "tables");
    ct_code code = path == NULL || json == NULL ? ct_fail_memory(status, 4096, "the description") : CT_OK;
    if (code == CT_OK) code = ct_store_describe(path, &store, status);
    if (code == CT_OK) {
        size_t index;
        json_array_foreach(json_object_get(store, "tables"), index, table) {
            json_t *of = json_object();
            for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
                if (json_object_get(table, shown[i]) != NULL) json_object_set(of, shown[i], json_object_get(table, shown[i]));
            json_array_append_new(tables, of);
        }
        json_object_set(json, "tables", tables);
        json_object_set(json, "use_counts", json_object_get(store, "use_counts"));
        json_object_set(json, "norms", json_object_get(store, "norms"));
        *out_json = json;
        json = NULL;
    }
    json_decref(tables);
    json_decref(store);
    json_decref(json);
    free(path);
    return code;
}

/* The key of a feature's token. */
static ct_code token_key(const ct_model *model, const char *feature, size_t bytes, const char *token, uint64_t *out_key,
                         ct_status *status) {
    for (size_t i = 0; i < model->layout.id_count; i++) {
        const layout_id *id = &model->layout.ids[i];
        const ct_field *field = &model->schema->fields[id->field];
        if (strlen(field->name) != bytes || memcmp(field->name, feature, bytes) != 0) continue;
        if (id->bucket == NOT_A_BUCKET) return ct_field_key(field, token, strlen(token), out_key, status);
        float value;
        CT_TRY(ct_field_number(field, token, strlen(token), &value, status));
        bucket_keys_of(&value, id->salt, out_key, 1);
        return CT_OK;
    }
    return ct_fail(status, CT_INVALID, "'%.*s' is no id of this model, nor a number that it takes as an id", (int)bytes, feature);
}

ct_code ct_model_describe_token(const ct_model *model, const char *folder, const char *feature_token, json_t **out_json,
                                ct_status *status) {
    const char *equals = strchr(feature_token, '=');
    uint64_t key = 0;
    if (equals == NULL) return ct_fail(status, CT_USAGE, "'%s' is not FEATURE=TOKEN", feature_token);
    CT_TRY(token_key(model, feature_token, (size_t)(equals - feature_token), equals + 1, &key, status));
    char *path = ct_path_join(folder, "tables");
    json_t *json = json_pack("{s:s%, s:s}", "feature", feature_token, (size_t)(equals - feature_token), "token", equals + 1);
    ct_code code = path == NULL ? ct_fail_memory(status, strlen(folder), "a path") : CT_OK;
    if (code == CT_OK && json == NULL) code = ct_fail(status, CT_INVALID, "'%s' is not UTF-8", feature_token);
    if (code == CT_OK) code = ct_store_describe_key(path, ID_TABLE, key, json, status);
    free(path);
    if (code == CT_OK)
        *out_json = json;
    else
        json_decref(json);
    return code;
}
