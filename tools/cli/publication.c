#include "tools/cli/publication.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/pool.h"
#include "embedding_store/delta.h"
#include "model/publication.h"
#include "tools/cli/cli.h"
#include "tools/cli/problems.h"

/* --- verify --- */

ct_code ct_verify_delta(const char *path, char out_digest[CT_DIGEST_HEX_BYTES], ct_status *status) {
    ct_delta *delta = NULL;
    ct_delta_facts facts;
    CT_TRY(ct_delta_open(path, &delta, status));
    ct_code code = ct_delta_facts_get(delta, &facts, status);
    if (code == CT_OK) code = ct_delta_check(delta, status);
    if (code == CT_OK) memcpy(out_digest, facts.to, CT_DIGEST_HEX_BYTES);
    ct_delta_close(delta);
    return code;
}

typedef struct walk {
    const char *folder;
    ct_pool *pool;
    ct_model *model;
    int64_t sequence; /* of the model */
    char digest[CT_DIGEST_HEX_BYTES];
} walk;

static bool has(const int64_t *numbers, size_t count, int64_t number) {
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == number) return true;
    return false;
}

/* Is the model that the walk has come to the one whose digest was written? */
static ct_code check_digest(walk *walk, const char *written, const char *path, ct_status *status) {
    char found[CT_DIGEST_HEX_BYTES];
    CT_TRY(ct_model_digest(walk->model, found, status));
    if (strcmp(found, written) == 0) return CT_OK;
    return ct_fail(status, CT_CORRUPT, "%s: number %lld has the digest %s, and %s was written", path, (long long)walk->sequence, found,
                   written);
}

static ct_code written_digest(const char *path, char out[CT_DIGEST_HEX_BYTES], ct_status *status) {
    json_t *manifest = NULL;
    const char *digest = NULL;
    CT_TRY(ct_model_manifest(path, false, &manifest, status));
    const ct_code code = ct_json_get_string(manifest, "digest", path, &digest, status);
    if (code == CT_OK) (void)snprintf(out, CT_DIGEST_HEX_BYTES, "%s", digest);
    json_decref(manifest);
    return code;
}

static ct_code open_base(walk *walk, int64_t number, ct_status *status) {
    char *path = ct_publication_base(walk->folder, number);
    ct_code code = path ? written_digest(path, walk->digest, status) : ct_fail_memory(status, strlen(walk->folder), "a path");
    ct_model_destroy(walk->model);
    walk->model = NULL;
    walk->sequence = number;
    if (code == CT_OK) code = ct_model_open(path, CT_MODEL_TRAIN, NULL, walk->pool, &walk->model, status);
    if (code == CT_OK) code = check_digest(walk, walk->digest, path, status);
    free(path);
    return code;
}

static ct_code take_delta(walk *walk, int64_t number, bool base, ct_status *status) {
    char *path = ct_publication_delta(walk->folder, number), *base_path = ct_publication_base(walk->folder, number);
    char of_base[CT_DIGEST_HEX_BYTES];
    ct_delta *delta = NULL;
    ct_delta_facts facts;
    ct_code code = CT_OK;
    if (!path || !base_path) {
        code = ct_fail_memory(status, strlen(walk->folder), "a path");
        goto done;
    }
    CT_TRY_GOTO(code, ct_delta_open(path, &delta, status), done);
    CT_TRY_GOTO(code, ct_delta_facts_get(delta, &facts, status), done);
    CT_TRY_GOTO(code, ct_delta_check_follows(delta, &facts, walk->sequence, walk->digest, status), done);
    CT_TRY_GOTO(code, ct_model_apply_delta(walk->model, delta, status), done);
    walk->sequence = number;
    memcpy(walk->digest, facts.to, sizeof walk->digest);
    if (!base) goto done;
    CT_TRY_GOTO(code, written_digest(base_path, of_base, status), done);
    code = check_digest(walk, of_base, base_path, status);
    if (code == CT_OK && strcmp(of_base, walk->digest) != 0) code = check_digest(walk, walk->digest, path, status);
done:
    ct_delta_close(delta);
    free(path);
    free(base_path);
    return code;
}

/* All of its files, before any of them is used. */
static ct_code check_files(const char *folder, const ct_publication *list, ct_status *status) {
    ct_problems problems = {0};
    ct_status found = CT_STATUS_INIT;
    char digest[CT_DIGEST_HEX_BYTES];
    for (size_t i = 0; i < list->base_count; i++) {
        char *path = ct_publication_base(folder, list->bases[i]);
        json_t *manifest = NULL;
        if (!path) return ct_fail_memory(status, strlen(folder), "a path");
        ct_problems_take(&problems, ct_model_manifest(path, false, &manifest, &found), &found);
        ct_problems_of_files(&problems, path, json_object_get(manifest, "files"));
        json_decref(manifest);
        free(path);
    }
    for (size_t i = 0; i < list->delta_count; i++) {
        char *path = ct_publication_delta(folder, list->deltas[i]);
        if (!path) return ct_fail_memory(status, strlen(folder), "a path");
        ct_problems_take(&problems, ct_verify_delta(path, digest, &found), &found);
        free(path);
    }
    return ct_problems_end(&problems, folder, status);
}

ct_code ct_verify_publication(const char *folder, char out_digest[CT_DIGEST_HEX_BYTES], ct_status *status) {
    ct_publication list;
    walk walk = {.folder = folder};
    ct_code code = CT_OK;
    CT_TRY(ct_publication_list(folder, &list, status));
    size_t next = 1; /* base */
    if (list.base_count == 0) {
        code = ct_fail(status, CT_INVALID, "%s: no base is there", folder);
        goto done;
    }
    CT_TRY_GOTO(code, check_files(folder, &list, status), done);
    CT_TRY_GOTO(code, ct_pool_create(0, &walk.pool, status), done);
    CT_TRY_GOTO(code, open_base(&walk, list.bases[0], status), done);
    for (;;) {
        while (next < list.base_count && list.bases[next] <= walk.sequence) next++;
        const int64_t number = walk.sequence + 1;
        if (has(list.deltas, list.delta_count, number)) {
            CT_TRY_GOTO(code, take_delta(&walk, number, has(list.bases, list.base_count, number), status), done);
        } else if (next < list.base_count) { /* a chain that ended */
            CT_TRY_GOTO(code, check_digest(&walk, walk.digest, folder, status), done);
            CT_TRY_GOTO(code, open_base(&walk, list.bases[next], status), done);
        } else {
            break;
        }
    }
    if (list.delta_count > 0 && list.deltas[list.delta_count - 1] > walk.sequence) {
        code = ct_fail(status, CT_CORRUPT, "%s: delta %lld is missing: behind number %lld come deltas up to %lld and no base", folder,
                       (long long)walk.sequence + 1, (long long)walk.sequence, (long long)list.deltas[list.delta_count - 1]);
        goto done;
    }
    code = check_digest(&walk, walk.digest, folder, status);
    if (code == CT_OK) memcpy(out_digest, walk.digest, CT_DIGEST_HEX_BYTES);
done:
    ct_model_destroy(walk.model);
    ct_pool_destroy(walk.pool);
    ct_publication_deinit(&list);
    return code;
}

/* --- inspect --- */

static json_t *facts_json(const ct_delta_facts *facts) {
    return json_pack("{s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "sequence", (json_int_t)facts->sequence,
                     "base_sequence", (json_int_t)facts->base_sequence, "base", facts->base, "from", facts->from, "digest", facts->to,
                     "rows", (json_int_t)facts->rows, "step", (json_int_t)facts->step, "records", (json_int_t)facts->records, "bytes",
                     (json_int_t)facts->bytes, "created_unix_ms", (json_int_t)facts->created_ms, "oldest_row_unix_ms",
                     (json_int_t)facts->oldest_row_ms, "newest_row_unix_ms", (json_int_t)facts->newest_row_ms);
}

/* What they weigh: the tower, whole in each delta, and the histories that have changed. */
static void put_tensors(json_t *json, const json_t *tensors) {
    json_int_t tower = 0, histories = 0;
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *tensor = json_array_get(tensors, i);
        const char *type = json_string_value(json_object_get(tensor, "type"));
        const json_int_t values =
            json_integer_value(json_object_get(tensor, "rows")) * json_integer_value(json_object_get(tensor, "columns"));
        if (type != NULL && strcmp(type, "U64") == 0)
            histories += 8 * values;
        else
            tower += (type != NULL && strcmp(type, "F64") == 0 ? 8 : 4) * values;
    }
    (void)json_object_set_new(json, "tower_bytes", json_integer(tower));
    if (histories > 0) (void)json_object_set_new(json, "histories_bytes", json_integer(histories));
}

ct_code ct_describe_delta(const char *path, json_t **out_json, ct_status *status) {
    ct_delta *delta = NULL;
    ct_delta_facts facts;
    CT_TRY(ct_delta_open(path, &delta, status));
    ct_code code = ct_delta_facts_get(delta, &facts, status);
    if (code == CT_OK) {
        const json_t *description = ct_delta_description(delta), *tables = json_object_get(json_object_get(description, "store"), "tables");
        json_t *json = facts_json(&facts), *list = json_array(), *section;
        size_t index;
        json_array_foreach(json_object_get(description, "sections"), index, section) {
            const json_t *table = json_array_get(tables, (size_t)json_integer_value(json_object_get(section, "table")));
            if (json_is_true(json_object_get(section, "filter"))) {
                (void)json_object_set(json, "filter_bytes", json_object_get(section, "bytes"));
                continue;
            }
            (void)json_array_append_new(
                list, json_pack("{s:O?, s:O?, s:O?, s:O?, s:O?}", "name", json_object_get(table, "name"), "records",
                                json_object_get(section, "records"), "bytes", json_object_get(section, "bytes"), "rows_afterwards",
                                json_object_get(table, "rows"), "stubs_afterwards", json_object_get(table, "stubs")));
        }
        (void)json_object_set_new(json, "tables", list);
        put_tensors(json, json_object_get(description, "tensors"));
        if (json)
            *out_json = json;
        else
            code = ct_fail_memory(status, 1024, "the description");
    }
    ct_delta_close(delta);
    return code;
}

ct_code ct_describe_publication(const char *folder, json_t **out_json, ct_status *status) {
    ct_publication list;
    ct_published end;
    CT_TRY(ct_publication_list(folder, &list, status));
    ct_code code = ct_publication_end(folder, &end, status);
    json_t *bases = json_array(), *deltas = json_array();
    for (size_t i = 0; code == CT_OK && i < list.base_count; i++) {
        char *path = ct_publication_base(folder, list.bases[i]), digest[CT_DIGEST_HEX_BYTES];
        json_t *manifest = NULL;
        code = path ? ct_model_manifest(path, false, &manifest, status) : ct_fail_memory(status, strlen(folder), "a path");
        if (code == CT_OK) {
            (void)snprintf(digest, sizeof digest, "%s", json_string_value(json_object_get(manifest, "digest")));
            (void)json_array_append_new(bases, json_pack("{s:I, s:O?, s:s}", "sequence", (json_int_t)list.bases[i], "rows",
                                                         json_object_get(manifest, "rows"), "digest", digest));
        }
        json_decref(manifest);
        free(path);
    }
    for (size_t i = 0; code == CT_OK && i < list.delta_count; i++) {
        char *path = ct_publication_delta(folder, list.deltas[i]);
        ct_delta *delta = NULL;
        ct_delta_facts facts;
        code = path ? ct_delta_open(path, &delta, status) : ct_fail_memory(status, strlen(folder), "a path");
        if (code == CT_OK) code = ct_delta_facts_get(delta, &facts, status);
        if (code == CT_OK)
            (void)json_array_append_new(
                deltas, json_pack("{s:I, s:I, s:I, s:I, s:s}", "sequence", (json_int_t)facts.sequence, "rows", (json_int_t)facts.rows,
                                  "records", (json_int_t)facts.records, "bytes", (json_int_t)facts.bytes, "digest", facts.to));
        ct_delta_close(delta);
        free(path);
    }
    ct_publication_deinit(&list);
    if (code == CT_OK)
        *out_json = json_pack("{s:I, s:I, s:s, s:I, s:I, s:I, s:O, s:O}", "sequence", (json_int_t)end.sequence, "rows",
                              (json_int_t)end.rows, "digest", end.digest, "base_sequence", (json_int_t)end.base_sequence, "base_bytes",
                              (json_int_t)end.base_bytes, "delta_bytes", (json_int_t)end.delta_bytes, "bases", bases, "deltas", deltas);
    json_decref(bases);
    json_decref(deltas);
    if (code == CT_OK && !*out_json) code = ct_fail_memory(status, 1024, "the description");
    return code;
}
