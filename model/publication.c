/* The publish folder, its deltas as a model knows them, and a model that is taken on by them. */
#include "model/publication.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "embedding_store/delta.h"
#include "embedding_store/following.h"
#include "model/model_internal.h"

static const char histories_name[] = "histories"; /* words of a delta: data/history.h */
static const char base_prefix[] = "base-", delta_prefix[] = "delta-", delta_suffix[] = ".ctd", facts_name[] = "publish.json";
enum { DIGITS = 12 };
static const int64_t MOST_SEQUENCE = 999999999999; /* of so many digits */

/* --- the folder --- */

/* The number of so many digits between prefix and suffix; -1 where there is none. */
static int64_t number_of(const char *name, const char *prefix, const char *suffix) {
    const size_t length = strlen(name), before = strlen(prefix), after = strlen(suffix);
    int64_t number;
    if (length != before + DIGITS + after || strncmp(name, prefix, before) != 0 || strcmp(name + length - after, suffix) != 0) return -1;
    if (strspn(name + before, "0123456789") != length - before - after) return -1;
    return ct_parse_i64(name + before, length - before - after, &number) ? number : -1;
}

static int rising(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static ct_code add(int64_t **numbers, size_t *count, int64_t number, ct_status *status) {
    if ((*count & (*count - 1)) == 0) { /* a power of two: full */
        const size_t room = *count ? 2 * *count : 1;
        int64_t *more = realloc(*numbers, room * sizeof *more);
        if (more == NULL) return ct_fail_memory(status, room * sizeof *more, "the deltas' numbers");
        *numbers = more;
    }
    (*numbers)[(*count)++] = number;
    return CT_OK;
}

ct_code ct_publication_list(const char *folder, ct_publication *out_list, ct_status *status) {
    ct_publication list = {0};
    DIR *open = opendir(folder);
    if (open == NULL) return ct_fail_errno(status, "%s: cannot open the folder", folder);
    ct_code code = CT_OK;
    for (const struct dirent *entry; code == CT_OK && (entry = readdir(open)) != NULL;) {
        const int64_t base = number_of(entry->d_name, base_prefix, ""), delta = number_of(entry->d_name, delta_prefix, delta_suffix);
        if (base >= 0) code = add(&list.bases, &list.base_count, base, status);
        if (delta >= 0) code = add(&list.deltas, &list.delta_count, delta, status);
    }
    (void)closedir(open);
    if (code != CT_OK) {
        ct_publication_deinit(&list);
        return code;
    }
    if (list.base_count > 0) qsort(list.bases, list.base_count, sizeof *list.bases, rising);
    if (list.delta_count > 0) qsort(list.deltas, list.delta_count, sizeof *list.deltas, rising);
    *out_list = list;
    return CT_OK;
}

void ct_publication_deinit(ct_publication *list) {
    free(list->bases);
    free(list->deltas);
    *list = (ct_publication){0};
}

bool ct_publication_is(const char *folder) {
    ct_publication list;
    ct_status ignored = CT_STATUS_INIT;
    if (ct_publication_list(folder, &list, &ignored) != CT_OK) return false;
    const bool is = list.base_count + list.delta_count > 0;
    ct_publication_deinit(&list);
    return is;
}

static char *path_of(const char *folder, const char *prefix, int64_t sequence, const char *suffix) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s%0*lld%s", prefix, DIGITS, (long long)sequence, suffix);
    return ct_path_join(folder, name);
}

char *ct_publication_base(const char *folder, int64_t sequence) { return path_of(folder, base_prefix, sequence, ""); }
char *ct_publication_delta(const char *folder, int64_t sequence) { return path_of(folder, delta_prefix, sequence, delta_suffix); }

/* Digest and rows of a base, and what its files weigh. */
static ct_code read_base(const char *path, char out_digest[CT_DIGEST_HEX_BYTES], int64_t *out_rows, uint64_t *out_bytes,
                         ct_status *status) {
    json_t *manifest = NULL, *files = NULL;
    const char *digest = NULL;
    uint64_t bytes = 0;
    CT_TRY(ct_model_manifest(path, false, &manifest, status));
    ct_code code = ct_json_get_string(manifest, "digest", path, &digest, status);
    if (code == CT_OK) code = ct_json_get_i64(manifest, "rows", path, out_rows, status);
    if (code == CT_OK) code = ct_json_get_array(manifest, "files", path, &files, status);
    for (size_t i = 0; code == CT_OK && i < json_array_size(files); i++)
        bytes += (uint64_t)json_integer_value(json_object_get(json_array_get(files, i), "bytes"));
    if (code == CT_OK) {
        (void)snprintf(out_digest, CT_DIGEST_HEX_BYTES, "%s", digest);
        *out_bytes = bytes;
    }
    json_decref(manifest);
    return code;
}

static ct_code read_facts(const char *path, ct_delta_facts *out_facts, ct_status *status) {
    ct_delta *delta = NULL;
    CT_TRY(ct_delta_open(path, &delta, status));
    const ct_code code = ct_delta_facts_get(delta, out_facts, status);
    ct_delta_close(delta);
    return code;
}

/* What can't be read is as good as not there: a base takes its place. */
static ct_code read_end(const char *folder, const ct_publication *list, ct_published *end, ct_status *status) {
    ct_status ignored = CT_STATUS_INIT;
    for (size_t i = list->base_count; i > 0 && end->base_sequence < 0; i--) {
        char *path = ct_publication_base(folder, list->bases[i - 1]);
        int64_t rows = -1;
        if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
        if (read_base(path, end->base, &rows, &end->base_bytes, &ignored) == CT_OK) {
            end->base_sequence = list->bases[i - 1];
            if (end->base_sequence == end->sequence) {
                end->rows = rows;
                memcpy(end->digest, end->base, sizeof end->digest);
            }
        }
        free(path);
    }
    for (size_t i = 0; i < list->delta_count; i++) {
        if (list->deltas[i] <= end->base_sequence) continue;
        char *path = ct_publication_delta(folder, list->deltas[i]);
        ct_delta_facts facts;
        if (path == NULL) return ct_fail_memory(status, strlen(folder), "a path");
        if (read_facts(path, &facts, &ignored) == CT_OK) {
            end->delta_bytes += facts.bytes;
            end->deltas++;
            if (list->deltas[i] == end->sequence && facts.sequence == end->sequence) {
                end->rows = facts.rows;
                memcpy(end->digest, facts.to, sizeof end->digest);
            }
        }
        free(path);
    }
    return CT_OK;
}

ct_code ct_publication_end(const char *folder, ct_published *out_end, ct_status *status) {
    ct_publication list;
    ct_published end = {.sequence = -1, .rows = -1, .base_sequence = -1};
    CT_TRY(ct_publication_list(folder, &list, status));
    if (list.base_count > 0) end.sequence = list.bases[list.base_count - 1];
    if (list.delta_count > 0 && list.deltas[list.delta_count - 1] > end.sequence) end.sequence = list.deltas[list.delta_count - 1];
    const ct_code code = read_end(folder, &list, &end, status);
    ct_publication_deinit(&list);
    if (code == CT_OK) *out_end = end;
    return code;
}

/* --- writing --- */

enum { CHANGES_PART = 32 /* of the memory limit, for the keys that have changed */ };

void ct_model_expect_deltas(ct_model *model) {
    if (model->histories != NULL) ct_histories_digest_anew(model->histories); /* that of what is published */
    ct_store_expect_changes(model->store, model->memory_bytes / CHANGES_PART);
}

ct_code ct_model_track_changes(ct_model *model, ct_status *status) {
    if (model->histories != NULL) ct_histories_forget_changes(model->histories);
    return ct_store_track_changes(model->store, status);
}

int64_t ct_model_changes(const ct_model *model) { return ct_store_changes(model->store); }
bool ct_model_changes_full(const ct_model *model) { return ct_store_changes_full(model->store); }

ct_code ct_model_publish_base(ct_model *model, const char *folder, int64_t sequence, const json_t *metrics, ct_status *status) {
    char text[64];
    (void)snprintf(text, sizeof text, "{\"sequence\": %lld}\n", (long long)sequence);
    CT_TRY(ct_model_save_texts(model, folder, metrics, &(const ct_model_text){facts_name, text}, 1, NULL, NULL, status));
    if (model->histories != NULL) ct_histories_forget_changes(model->histories);
    return ct_store_forget_changes(model->store, status);
}

static ct_code write_histories(ct_model *model, ct_delta_writer *writer, ct_status *status) {
    uint64_t *words = NULL;
    size_t count = 0;
    if (model->histories == NULL) return CT_OK;
    CT_TRY(ct_histories_changes(model->histories, &words, &count, status));
    const ct_code code = ct_delta_writer_words(writer, histories_name, words, count, status);
    free(words);
    if (code == CT_OK) ct_histories_forget_changes(model->histories);
    return code;
}

ct_code ct_model_publish_delta(ct_model *model, const char *path, ct_delta_facts *facts, ct_status *status) {
    ct_delta_writer *writer = NULL;
    tensor_list list = {0};
    json_t *json = NULL;
    ct_code code = CT_OK;
    CT_TRY_GOTO(code, tensor_list_init(&list, model, status), done);
    CT_TRY_GOTO(code, tensor_list_check_finite(&list, status), done);
    CT_TRY_GOTO(code, ct_delta_writer_open(path, &writer, status), done);
    CT_TRY_GOTO(code, ct_delta_writer_changes(writer, model->store, &facts->records, status), done);
    for (size_t i = 0; i < list.count; i++) {
        const named_tensor *tensor = &list.tensors[i];
        CT_TRY_GOTO(code, ct_delta_writer_tensor(writer, tensor->name, tensor->f64, tensor->rows, tensor->columns, tensor->data, status),
                    done);
    }
    CT_TRY_GOTO(code, write_histories(model, writer, status), done);
    CT_TRY_GOTO(code, ct_model_digest(model, facts->to, status), done);
    facts->rows = model->rows;
    facts->step = model->step;
    facts->created_ms = ct_clock_unix_ms();
    json =
        json_pack("{s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "sequence", (json_int_t)facts->sequence,
                  "base_sequence", (json_int_t)facts->base_sequence, "base", facts->base, "from", facts->from, "to", facts->to, "rows",
                  (json_int_t)model->rows, "step", (json_int_t)model->step, "tower_step", (json_int_t)ct_tower_step(model->tower), "epoch",
                  (json_int_t)model->epoch, "epoch_rows", (json_int_t)model->epoch_rows, "created_unix_ms", (json_int_t)facts->created_ms,
                  "oldest_row_unix_ms", (json_int_t)facts->oldest_row_ms, "newest_row_unix_ms", (json_int_t)facts->newest_row_ms);
    if (json == NULL) {
        code = ct_fail_memory(status, 1024, "a delta's description");
        goto done;
    }
    code = ct_delta_writer_commit(writer, json, &facts->bytes, status);
    writer = NULL;
done:
    ct_delta_writer_abort(writer);
    tensor_list_deinit(&list);
    json_decref(json);
    return code;
}

/* --- reading --- */

static ct_code get_digest(const json_t *json, const char *member, const char *path, char out[CT_DIGEST_HEX_BYTES], ct_status *status) {
    const char *text = NULL;
    CT_TRY(ct_json_get_string(json, member, path, &text, status));
    if (strlen(text) != CT_DIGEST_HEX_BYTES - 1) return ct_fail(status, CT_CORRUPT, "%s: %s is '%s'", path, member, text);
    memcpy(out, text, CT_DIGEST_HEX_BYTES);
    return CT_OK;
}

ct_code ct_delta_facts_get(const ct_delta *delta, ct_delta_facts *out_facts, ct_status *status) {
    const json_t *json = ct_delta_description(delta);
    const char *path = ct_delta_path(delta);
    ct_delta_facts facts = {.records = ct_delta_records(delta), .bytes = ct_delta_bytes(delta)};
    CT_TRY(ct_json_get_range(json, "sequence", path, 0, MOST_SEQUENCE, &facts.sequence, status));
    CT_TRY(ct_json_get_range(json, "base_sequence", path, 0, MOST_SEQUENCE, &facts.base_sequence, status));
    CT_TRY(get_digest(json, "base", path, facts.base, status));
    CT_TRY(get_digest(json, "from", path, facts.from, status));
    CT_TRY(get_digest(json, "to", path, facts.to, status));
    model_position position;
    CT_TRY(model_position_get(json, path, &position, status));
    facts.rows = position.rows;
    facts.step = position.step;
    facts.created_ms = position.created_ms;
    CT_TRY(ct_json_get_i64(json, "oldest_row_unix_ms", path, &facts.oldest_row_ms, status));
    CT_TRY(ct_json_get_i64(json, "newest_row_unix_ms", path, &facts.newest_row_ms, status));
    *out_facts = facts;
    return CT_OK;
}

ct_code ct_publication_sequence(const char *model_folder, int64_t *out_sequence, ct_status *status) {
    char *path = ct_path_join(model_folder, facts_name);
    json_t *json = NULL;
    if (path == NULL) return ct_fail_memory(status, strlen(model_folder), "a path");
    ct_code code = CT_OK;
    if (ct_path_exists(path)) {
        code = ct_json_load(path, &json, status);
        if (code == CT_OK) code = ct_json_get_range(json, "sequence", path, 0, MOST_SEQUENCE, out_sequence, status);
    } else {
        *out_sequence = -1;
    }
    json_decref(json);
    free(path);
    return code;
}

ct_code ct_delta_check_follows(const ct_delta *delta, const ct_delta_facts *facts, int64_t sequence, const char *digest,
                               ct_status *status) {
    const char *path = ct_delta_path(delta);
    if (sequence >= 0 && facts->sequence != sequence + 1)
        return ct_fail(status, CT_INVALID, "%s: it is number %lld, and the model is at number %lld, which number %lld must follow", path,
                       (long long)facts->sequence, (long long)sequence, (long long)sequence + 1);
    if (strcmp(facts->from, digest) != 0)
        return ct_fail(status, CT_INVALID,
                       "%s: number %lld of base %lld (%s) follows the model %s, and this is the model %s: it is of another training", path,
                       (long long)facts->sequence, (long long)facts->base_sequence, facts->base, facts->from, digest);
    return CT_OK;
}

/* All but tables and histories. */
static ct_code take_tensors(ct_model *model, const ct_delta *delta, ct_status *status) {
    const json_t *json = ct_delta_description(delta);
    const char *path = ct_delta_path(delta);
    model_position position;
    ct_delta_facts facts;
    tensor_list list = {0};
    CT_TRY(ct_delta_facts_get(delta, &facts, status));
    CT_TRY(model_position_get(json, path, &position, status));
    ct_code code = tensor_list_init(&list, model, status);
    for (size_t i = 0; i < list.count && code == CT_OK; i++) {
        const named_tensor *tensor = &list.tensors[i];
        code = ct_delta_tensor(delta, tensor->name, tensor->f64, tensor->rows, tensor->columns, tensor->data, status);
    }
    if (code == CT_OK) {
        tensor_list_filled(&list, model, position.tower_step);
        model_position_set(model, &position);
        memcpy(model->digest, facts.to, sizeof model->digest);
    }
    tensor_list_deinit(&list);
    return code;
}

ct_code ct_model_apply_delta(ct_model *model, const ct_delta *delta, ct_status *status) {
    uint64_t *words = NULL;
    size_t count = 0;
    CT_TRY(ct_store_apply_delta(model->store, delta, status));
    CT_TRY(take_tensors(model, delta, status));
    if (model->histories == NULL) return CT_OK;
    CT_TRY(ct_delta_words(delta, histories_name, &words, &count, status));
    const ct_code code = ct_histories_apply(model->histories, words, count, ct_delta_path(delta), status);
    free(words);
    return code;
}

/* --- a model that follows --- */

enum { ROOM_PART = 4 /* of the memory limit, for rows that deltas change */ };

struct ct_follower {
    ct_model *models[2]; /* [0] owns all that they share */
    size_t now;
    ct_store *store; /* models[0]'s own; it reads a view */
    ct_following *following;
    bool staged;
    int64_t sequence, staged_sequence; /* -1 = unknown */
};

/* Another model of the same schema, rows and shape, with a tower of its own. */
static ct_code twin_create(const ct_model *model, ct_model **out_twin, ct_status *status) {
    ct_model *twin = calloc(1, sizeof *twin);
    if (twin == NULL) return ct_fail_memory(status, sizeof *twin, "a model");
    twin->schema = model->schema;
    twin->spec = model->spec;
    twin->layout = model->layout;
    twin->device = model->device;
    twin->pool = model->pool;
    twin->mode = model->mode;
    twin->seed = model->seed;
    twin->batch_rows = model->batch_rows;
    twin->precision = model->precision;
    memcpy(twin->instruction_set, model->instruction_set, sizeof twin->instruction_set);
    *out_twin = twin;
    return model_finish(twin, SIZE_MAX, status);
}

static void twin_destroy(ct_model *twin) {
    if (twin == NULL) return;
    ct_tower_destroy(twin->tower);
    ct_histories_destroy(twin->histories);
    for (size_t i = 0; twin->centres != NULL && i < twin->layout.similarity_count; i++) free(twin->centres[i]);
    free(twin->centres);
    free(twin->moments);
    free(twin->scales);
    free(twin);
}

ct_code ct_follower_open(const char *folder, uint64_t memory_bytes, const char *scratch, ct_pool *pool, ct_follower **out_follower,
                         ct_status *status) {
    const uint64_t room = memory_bytes / ROOM_PART;
    ct_code code = CT_OK;
    ct_follower *follower = calloc(1, sizeof *follower);
    if (follower == NULL) return ct_fail_memory(status, sizeof *follower, "a model that follows");
    CT_TRY_GOTO(code, ct_publication_sequence(folder, &follower->sequence, status), fail);
    CT_TRY_GOTO(code, model_check_read_limit(folder, memory_bytes, ROOM_PART, status), fail);
    CT_TRY_GOTO(code, ct_model_open_within(folder, CT_MODEL_READ, memory_bytes - room, NULL, NULL, pool, &follower->models[0], status),
                fail);
    follower->store = follower->models[0]->store;
    CT_TRY_GOTO(code, ct_following_create(follower->store, room, scratch, &follower->following, status), fail);
    follower->models[0]->store = ct_following_view(follower->following);
    CT_TRY_GOTO(code, twin_create(follower->models[0], &follower->models[1], status), fail);
    *out_follower = follower;
    return CT_OK;
fail:
    ct_follower_close(follower);
    return code;
}

void ct_follower_close(ct_follower *follower) {
    if (follower == NULL) return;
    if (follower->staged) ct_follower_drop(follower);
    twin_destroy(follower->models[1]);
    ct_following_destroy(follower->following);
    if (follower->models[0] != NULL) follower->models[0]->store = follower->store;
    ct_model_destroy(follower->models[0]);
    free(follower);
}

ct_model *ct_follower_model(const ct_follower *follower) { return follower->models[follower->now]; }
int64_t ct_follower_sequence(const ct_follower *follower) { return follower->sequence; }

/* The histories of the model that comes, which share what has not changed with those of the model that is read. */
static ct_code stage_histories(const ct_histories *from, const ct_delta *delta, ct_histories **out_next, ct_status *status) {
    uint64_t *words = NULL;
    size_t count = 0;
    CT_TRY(ct_delta_words(delta, histories_name, &words, &count, status));
    const ct_code code = ct_histories_next(from, words, count, ct_delta_path(delta), out_next, status);
    free(words);
    return code;
}

ct_code ct_follower_stage(ct_follower *follower, const ct_delta *delta, ct_model **out_model, ct_status *status) {
    ct_model *next = follower->models[1 - follower->now];
    const ct_histories *histories = ct_follower_model(follower)->histories;
    ct_delta_facts facts;
    ct_store *view = NULL;
    CT_TRY(ct_delta_facts_get(delta, &facts, status));
    CT_TRY(ct_delta_check_follows(delta, &facts, follower->sequence, ct_follower_model(follower)->digest, status));
    CT_TRY(ct_delta_check(delta, status));
    CT_TRY(ct_following_stage(follower->following, delta, &view, status));
    follower->staged = true;
    ct_code code = take_tensors(next, delta, status);
    if (code == CT_OK && histories != NULL) code = stage_histories(histories, delta, &next->histories, status);
    if (code != CT_OK) {
        ct_follower_drop(follower);
        return code;
    }
    next->store = view;
    follower->staged_sequence = facts.sequence;
    *out_model = next;
    return CT_OK;
}

void ct_follower_drop(ct_follower *follower) {
    ct_model *next = follower->models[1 - follower->now];
    ct_histories_drop(next->histories);
    next->histories = NULL;
    ct_following_drop(follower->following);
    follower->staged = false;
}

ct_code ct_follower_settle(ct_follower *follower, ct_status *status) {
    if (follower->staged) {
        ct_model *before = ct_follower_model(follower);
        follower->now = 1 - follower->now;
        follower->sequence = follower->staged_sequence;
        follower->staged = false;
        if (before->histories != NULL) ct_histories_retire(before->histories, ct_follower_model(follower)->histories);
        before->histories = NULL;
    }
    const ct_code code = ct_following_settle(follower->following, status);
    follower->models[1 - follower->now]->store = ct_follower_model(follower)->store; /* its own is gone */
    return code;
}
