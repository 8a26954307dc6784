/* clicktower inspect: what a model folder, a publish folder, a delta, a block file or a schema holds. Everything is made a JSON object
 * first; --json prints it as it is, else it becomes lines "key value" and tables. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "data/block_file.h"
#include "model/publication.h"
#include "tools/cli/cli.h"
#include "tools/cli/inspect.h"
#include "tools/cli/publication.h"

/* --- what it is --- */

ct_content_kind ct_content_kind_of(const char *path) {
    if (ct_path_is_folder(path)) return !ct_model_folder_is(path) && ct_publication_is(path) ? CT_CONTENT_PUBLICATION : CT_CONTENT_MODEL;
    char first[16] = {0};
    FILE *file = fopen(path, "rb");
    if (!file) return CT_CONTENT_OTHER;
    const size_t count = fread(first, 1, sizeof first, file);
    (void)fclose(file);
    if (count >= 8 && memcmp(first, "CTDELTA1", 8) == 0) return CT_CONTENT_DELTA;
    return ct_block_file_is(first, count) ? CT_CONTENT_BLOCKS : CT_CONTENT_OTHER;
}

static ct_code describe_tokens(const ct_model *model, const char *folder, const ct_text_list *tokens, json_t *json, ct_status *status) {
    json_t *list = json_array(), *one = NULL;
    ct_code code = CT_OK;
    for (size_t i = 0; i < tokens->count && code == CT_OK; i++) {
        code = ct_model_describe_token(model, folder, tokens->items[i], &one, status);
        if (code == CT_OK) (void)json_array_append_new(list, one);
    }
    if (code == CT_OK) (void)json_object_set(json, "tokens", list);
    json_decref(list);
    return code;
}

static ct_code describe_model(const char *folder, const ct_text_list *tokens, json_t **out_json, ct_status *status) {
    static const char *const from_manifest[] = {"digest",  "seed",    "batch_rows", "created_unix_ms",
                                                "outputs", "version", "vectors",    "files"};
    json_t *manifest = NULL, *json = NULL;
    ct_pool *pool = NULL;
    ct_model *model = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_model_manifest(folder, false, &manifest, status), done);
    CT_TRY_GOTO(code, ct_pool_create(0, &pool, status), done);
    CT_TRY_GOTO(code, ct_model_open(folder, CT_MODEL_LOOK, NULL, pool, &model, status), done);
    if (tokens->count > 0) {
        json = json_object();
        code = describe_tokens(model, folder, tokens, json, status);
        if (code == CT_OK) {
            *out_json = json;
            json = NULL;
        }
        goto done;
    }
    CT_TRY_GOTO(code, ct_model_describe_folder(model, folder, &json, status), done);
    for (size_t i = 0; i < sizeof from_manifest / sizeof *from_manifest; i++) {
        json_t *value = json_object_get(manifest, from_manifest[i]);
        const bool empty = json_is_object(value) && json_object_size(value) == 0;
        const char *key = strcmp(from_manifest[i], "version") == 0   ? "format_version"
                          : strcmp(from_manifest[i], "vectors") == 0 ? "vector_tables"
                                                                     : from_manifest[i];
        if (value && !empty) (void)json_object_set(json, key, value);
    }
    *out_json = json;
    json = NULL;
done:
    json_decref(json);
    ct_model_destroy(model);
    ct_pool_destroy(pool);
    json_decref(manifest);
    return code;
}

static json_t *field_to_json(const ct_schema *schema, const ct_field *field) {
    const bool feature = field->kind == CT_FIELD_NUMBER || field->kind == CT_FIELD_ID || field->kind == CT_FIELD_VECTOR || field->derived;
    char hash[17];
    (void)snprintf(hash, sizeof hash, "%016" PRIx64, field->hash);
    json_t *json = json_pack("{s:s, s:s}", "name", field->name, "kind", ct_field_kind_name(field->kind));
    if (feature) (void)json_object_set_new(json, "side", json_string(field->side == CT_SIDE_CONTEXT ? "context" : "candidate"));
    if (field->column >= 0) (void)json_object_set_new(json, "column", json_integer(field->column + 1));
    if (field->column_name) (void)json_object_set_new(json, "column", json_string(field->column_name));
    if (field->kind == CT_FIELD_ID) {
        (void)json_object_set_new(json, "type", json_string(field->id_type == CT_ID_INTEGER ? "integer" : "text"));
        (void)json_object_set_new(json, "max_values", json_integer(field->max_values));
        if (field->shares) (void)json_object_set_new(json, "shares", json_string(field->shares));
    }
    if (field->derived) (void)json_object_set_new(json, "of", json_string(schema->fields[field->of].name));
    if (field->kind == CT_FIELD_HISTORY) {
        (void)json_object_set_new(json, "clicked", json_boolean(field->clicked));
        (void)json_object_set_new(json, "max_values", json_integer(field->max_values));
    }
    if (field->kind == CT_FIELD_SIMILARITY) {
        (void)json_object_set_new(json, "vector", json_string(schema->fields[field->vector].name));
        (void)json_object_set_new(json, "tiers", json_integer(field->tiers));
    }
    if (field->kind == CT_FIELD_VECTOR) {
        (void)json_object_set_new(json, "of", json_string(schema->fields[field->of].name));
        (void)json_object_set_new(json, "file", json_string(field->vector_path ? field->vector_path : ""));
    }
    if (field->has_at_least) (void)json_object_set_new(json, "at_least", json_real(field->at_least));
    (void)json_object_set_new(json, "hash", json_string(hash));
    return json;
}

static ct_code describe_schema(const char *path, json_t **out_json, ct_status *status) {
    ct_schema *schema = NULL;
    const ct_code found = ct_schema_load(path, &schema, status);
    if (found == CT_NOT_FOUND) return ct_fail(status, CT_NOT_FOUND, "%s: no such file or folder, and no built-in schema (criteo)", path);
    if (found != CT_OK) return found;
    char hash[17];
    (void)snprintf(hash, sizeof hash, "%016" PRIx64, schema->hash);
    const char *separator = schema->separator == '\t' ? "tab" : (const char[2]){schema->separator, '\0'};
    json_t *fields = json_array();
    for (size_t f = 0; f < schema->field_count; f++) (void)json_array_append_new(fields, field_to_json(schema, &schema->fields[f]));
    json_t *json = json_pack("{s:s, s:s, s:b, s:I, s:s, s:o}", "schema", schema->name, "separator", separator, "header",
                             (int)schema->header, "columns", (json_int_t)schema->columns, "hash", hash, "fields", fields);
    ct_schema_destroy(schema);
    if (!json) return ct_fail_memory(status, 4096, "the description");
    *out_json = json;
    return CT_OK;
}

ct_code ct_verb_inspect(int argc, char **argv, ct_status *status) {
    ct_text_list words = {0}, tokens = {0};
    bool as_json = false;
    const ct_option options[] = {
        {"tokens", "FEATURE=TOKEN", CT_OPTION_LIST, false, &tokens, "of a model folder: shows what it holds of these tokens instead", 0, 0,
         NULL},
        {"json", NULL, CT_OPTION_FLAG, false, &as_json, "print one JSON object", 0, 0, NULL},
    };
    const ct_command command = {"inspect",
                                "Says what a model folder, a publish folder, a delta, a block file or a schema holds.",
                                "  clicktower inspect model\n"
                                "  clicktower inspect model --tokens C1=5b3e8d20 I1=5\n"
                                "  clicktower inspect day_0.ctb --json\n"
                                "  clicktower inspect criteo",
                                "DIR|FILE.ctb|FILE.ctd|SCHEMA",
                                &words,
                                options,
                                sizeof options / sizeof *options};
    json_t *json = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    if (tokens.count > 0 && ct_content_kind_of(words.items[0]) != CT_CONTENT_MODEL) {
        code = ct_fail(status, CT_USAGE, "--tokens: %s is no model folder", words.items[0]);
        goto done;
    }
    switch (ct_content_kind_of(words.items[0])) {
        case CT_CONTENT_MODEL:
            code = describe_model(words.items[0], &tokens, &json, status);
            break;
        case CT_CONTENT_PUBLICATION:
            code = ct_describe_publication(words.items[0], &json, status);
            break;
        case CT_CONTENT_DELTA:
            code = ct_describe_delta(words.items[0], &json, status);
            break;
        case CT_CONTENT_BLOCKS:
            code = ct_block_file_describe(words.items[0], &json, status);
            break;
        case CT_CONTENT_OTHER:
            code = describe_schema(words.items[0], &json, status);
            break;
    }
    if (code != CT_OK) goto done;
    if (as_json)
        code = ct_json_output("-", json, status);
    else
        ct_print_object(json);
done:
    json_decref(json);
    ct_text_list_deinit(&words);
    ct_text_list_deinit(&tokens);
    return code;
}
