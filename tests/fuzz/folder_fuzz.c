/* What a training has published, a model folder and a delta to follow it, with one file as the input says. Input: which file, how it is
 * read, its text.
 * `how`: the lowest bits are a mode; REPAIRED puts the right checksum of its own into a file that has one, so that what lies behind it is
 * reached. The manifest tells of the file as it is now, so it is no damage but what somebody made: the folder is refused with a message
 * that names it, or is a model that can be read and asked. */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
#include "data/reader.h"
#include "data/vectors.h"
#include "embedding_store/delta_internal.h"
#include "model/publication.h"
#include "tests/base/temp.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "folder_fuzz";

enum { READ, WITHIN, EARLY, FOLLOW, TRAIN, LOOK, MODES, REPAIRED = 8, INPUT_HEAD = 2, ROWS = 64, BATCH_ROWS = 32, VECTORS = 5, DIM = 2 };

/* The filter has 1 MiB: the input stands for its beginning. */
enum { MANIFEST, STORE, FILTER, PUBLISH, SCHEMA, MODEL, TOWER, HISTORIES, FOLDER_FILES, DELTA = FOLDER_FILES, FILES };
static const char *const names[FOLDER_FILES] = {"manifest",    "tables/store.json", "tables/table-0.filter", "publish.json",
                                                "schema.yaml", "model.yaml",        "tower.safetensors",     "histories/00"};

static char *top, *folder, *live, *paths[FILES], *texts[FILES];
static size_t text_bytes[FILES];
static json_t *manifest;
static ct_pool *pool;

/* --- the folder --- */

static const char schema_text[] =
    "name: f\nformat: {columns: 6}\nfields:\n  - {name: click, kind: label, column: 1}\n  - {name: user, kind: id, column: 2, side: "
    "context}\n"
    "  - {name: item, kind: id, column: 3, type: integer}\n  - {name: price, kind: number, column: 4}\n"
    "  - {name: text, kind: vector, of: item, file: items.npy}\n  - {name: who, kind: unit, column: 2}\n"
    "  - {name: when, kind: time, column: 5}\n  - {name: tags, kind: id, column: 6, separator: \",\", max: 2}\n"
    "  - {name: liked, kind: history, of: item, clicked: true, max: 3, pooling: attention}\n"
    "  - {name: near, kind: similarity, of: liked, vector: text, tiers: 2}\n";

static void train(ct_model *model, const char *log, int first) {
    ct_status status = CT_STATUS_INIT;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    float logits[BATCH_ROWS];
    FILE *file = fopen(log, "w");
    FUZZ_MUST(file != NULL);
    for (int r = first; r < first + ROWS; r++)
        FUZZ_MUST(fprintf(file, "%d\tu%d\t%d\t%d.5\t%d\t%s\n", r % 3 == 0, r % 5, 1 + r * r % 7, r, 1000 * r, r % 2 ? "a,b" : "b") > 0);
    FUZZ_MUST(fclose(file) == 0);
    options.sources = (const char *const *)&log;
    options.source_count = 1;
    options.batch_rows = BATCH_ROWS;
    options.histories = ct_model_histories(model);
    FUZZ_MUST(ct_reader_open(ct_model_schema(model), &options, &reader, &status) == CT_OK);
    while (ct_reader_next(reader, &batch, &status) == CT_OK) {
        FUZZ_MUST(ct_model_train(model, batch, 0, logits, &status) == CT_OK);
        ct_reader_release(reader, batch);
    }
    ct_reader_close(reader);
}

static void publish(void) {
    static const char *const sets[] = {"embedding.dim=2",
                                       "deep=[4]",
                                       "cross.layers=1",
                                       "vector.adapter=2",
                                       "embedding.min_count=3",
                                       "numbers.buckets=false",
                                       "embedding.admission=filter",
                                       "embedding.filter_mib=1",
                                       "embedding.expire_days=3"};
    static const float vectors[VECTORS * DIM] = {1, 0, 0, 1, -1, 0.5f, 2, 3, -0.25f, 1};
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL;
    ct_model_spec *spec = NULL;
    ct_model *model = NULL;
    json_t *metrics = json_object();
    char *yaml = temp_path(top, "schema.yaml"), *npy = temp_path(top, "items.npy"), *log = temp_path(top, "log.tsv");
    FUZZ_MUST(ct_pool_create(1, &pool, &status) == CT_OK);
    FUZZ_MUST(ct_vectors_write(npy, NULL, vectors, VECTORS, DIM, NULL, &status) == CT_OK);
    FUZZ_MUST(ct_schema_parse(schema_text, strlen(schema_text), yaml, &schema, &status) == CT_OK);
    FUZZ_MUST(ct_model_spec_load("dcn-v2", sets, sizeof sets / sizeof *sets, &spec, &status) == CT_OK);
    const ct_model_options options = {.seed = 1, .batch_rows = BATCH_ROWS, .pool = pool};
    FUZZ_MUST(ct_model_create(schema, spec, &options, &model, &status) == CT_OK);
    ct_model_expect_deltas(model);
    FUZZ_MUST(ct_model_track_changes(model, &status) == CT_OK);
    train(model, log, 0);
    FUZZ_MUST(ct_model_publish_base(model, folder, 12, metrics, &status) == CT_OK);
    ct_delta_facts facts = {.sequence = 13, .base_sequence = 12};
    FUZZ_MUST(ct_model_digest(model, facts.base, &status) == CT_OK);
    memcpy(facts.from, facts.base, sizeof facts.from);
    train(model, log, ROWS);
    FUZZ_MUST(ct_model_publish_delta(model, paths[DELTA], &facts, &status) == CT_OK);
    json_decref(metrics);
    ct_model_destroy(model);
    ct_model_spec_destroy(spec);
    ct_schema_destroy(schema);
    free(yaml);
    free(npy);
    free(log);
}

static void prepare(void) {
    ct_status status = CT_STATUS_INIT;
    if (top != NULL) return;
    top = fuzz_folder();
    folder = temp_path(top, "model");
    live = temp_path(top, "live");
    for (size_t f = 0; f < FOLDER_FILES; f++) paths[f] = temp_path(folder, names[f]);
    paths[DELTA] = temp_path(top, "delta");
    publish();
    FUZZ_MUST(ct_model_manifest(folder, true, &manifest, &status) == CT_OK);
    for (size_t f = 0; f < FILES; f++) {
        FUZZ_MUST(ct_file_read(paths[f], 16 << 20, &texts[f], &text_bytes[f], &status) == CT_OK);
    }
}

__attribute__((destructor)) static void end(void) {
    if (top == NULL) return;
    temp_remove(top);
    free(folder);
    free(live);
    json_decref(manifest);
    ct_pool_destroy(pool);
    for (size_t f = 0; f < FILES; f++) {
        free(paths[f]);
        free(texts[f]);
    }
}

static void write_bytes(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    FUZZ_MUST(file != NULL && fwrite(bytes, 1, count, file) == count && fclose(file) == 0);
}

/* With the checksum of its own behind it. */
static void write_manifest(const char *text, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_digest *digest = NULL;
    char hex[CT_DIGEST_HEX_BYTES];
    FILE *file = fopen(paths[MANIFEST], "wb");
    FUZZ_MUST(ct_digest_create(&digest, &status) == CT_OK);
    ct_digest_update(digest, text, bytes);
    ct_digest_hex(digest, hex);
    ct_digest_destroy(digest);
    FUZZ_MUST(file != NULL && fwrite(text, 1, bytes, file) == bytes && fprintf(file, "\nchecksum %s\n", hex) > 0 && fclose(file) == 0);
}

/* --- the input in the place of a file --- */

/* As embedding_store/manifest.c has it: of the object without it. NULL: no object. malloc'd. */
static char *repair_store(const char *text, size_t bytes) {
    json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    char hex[17], *repaired = NULL;
    if (json_is_object(json)) {
        (void)json_object_del(json, "checksum");
        char *content = json_dumps(json, JSON_COMPACT);
        FUZZ_MUST(content != NULL);
        (void)snprintf(hex, sizeof hex, "%016llx", (unsigned long long)ct_hash64(content, strlen(content), 0));
        (void)json_object_set_new(json, "checksum", json_string(hex));
        repaired = json_dumps(json, JSON_COMPACT);
        free(content);
    }
    json_decref(json);
    return repaired;
}

static void repair_filter(char *text, size_t bytes) {
    ct_put_le64(text + bytes - 8, ct_hash64(text + 24, bytes - 32, ct_hash64(text, 24, 0)));
}

/* As far as its offsets lead: the blocks of a section, a tensor's values, and the checksum of what it says of tables. */
static void repair_description(json_t *json, char *file, size_t bytes) {
    json_t *item, *store = json_object_get(json, "store");
    size_t i;
    char hex[17];
    json_array_foreach(json_object_get(json, "sections"), i, item) {
        const ct_delta_section section = {.table = (size_t)json_integer_value(json_object_get(item, "table")),
                                          .filter = json_is_true(json_object_get(item, "filter"))};
        const json_int_t begin = json_integer_value(json_object_get(item, "offset"));
        for (size_t at = begin >= 0 && (size_t)begin < bytes ? (size_t)begin : bytes; bytes - at >= 16;) {
            const size_t payload = ct_get_le32(file + at);
            if (payload > bytes - at - 16) break;
            ct_put_le64(file + at + 8 + payload, ct_delta_block_hash(file + at, payload, &section));
            at += 16 + payload;
        }
    }
    json_array_foreach(json_object_get(json, "tensors"), i, item) {
        const json_int_t at = json_integer_value(json_object_get(item, "offset")), rows = json_integer_value(json_object_get(item, "rows")),
                         columns = json_integer_value(json_object_get(item, "columns"));
        const char *type = json_string_value(json_object_get(item, "type"));
        const size_t each = type != NULL && strcmp(type, "F32") == 0 ? 4 : 8;
        if (at < 0 || (size_t)at > bytes || rows < 0 || columns < 0 || rows > FUZZ_MAX_BYTES || columns > FUZZ_MAX_BYTES) continue;
        if ((size_t)rows * (size_t)columns * each > bytes - (size_t)at) continue;
        (void)snprintf(hex, sizeof hex, "%016llx", (unsigned long long)ct_hash64(file + at, (size_t)rows * (size_t)columns * each, 0));
        (void)json_object_set_new(item, "xxh3", json_string(hex));
    }
    char *text = store != NULL ? json_dumps(store, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char *repaired = text != NULL ? repair_store(text, strlen(text)) : NULL;
    if (repaired != NULL) (void)json_object_set_new(json, "store", json_loads(repaired, 0, NULL));
    free(text);
    free(repaired);
}

/* The head says where the description begins. */
static void put_delta(const char *text, size_t bytes, bool repaired) {
    char *file = calloc(1, bytes + CT_DELTA_HEAD_BYTES), *description = NULL;
    FUZZ_MUST(file != NULL);
    memcpy(file, text, bytes);
    const uint64_t at = ct_get_le64(file + 16);
    json_t *json = repaired && at >= CT_DELTA_HEAD_BYTES && at < bytes ? json_loadb(file + at, bytes - at, 0, NULL) : NULL;
    if (json_is_object(json)) {
        repair_description(json, file, at);
        description = json_dumps(json, JSON_COMPACT);
        FUZZ_MUST(description != NULL);
        ct_put_le64(file + 8, at + strlen(description));
        ct_put_le64(file + 24, ct_hash64(description, strlen(description), 0));
        ct_put_le64(file + 32, ct_hash64(file, 32, 0));
    }
    FILE *to = fopen(paths[DELTA], "wb");
    FUZZ_MUST(to != NULL && fwrite(file, 1, description != NULL ? at : bytes, to) > 0);
    FUZZ_MUST((description == NULL || fputs(description, to) >= 0) && fclose(to) == 0);
    json_decref(json);
    free(description);
    free(file);
}

/* Of a manifest: its own list of files, or that of the folder. */
static void put_manifest(const char *text, size_t bytes, bool repaired) {
    json_t *json = repaired ? json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (json_is_object(json)) {
        FUZZ_MUST(json_object_set(json, "files", json_object_get(manifest, "files")) == 0);
        char *whole = json_dumps(json, JSON_COMPACT);
        FUZZ_MUST(whole != NULL);
        write_manifest(whole, strlen(whole));
        free(whole);
    } else {
        write_manifest(text, bytes);
    }
    json_decref(json);
}

/* The manifest with this file's size and digest. */
static void tell_of(size_t file) {
    ct_status status = CT_STATUS_INIT;
    char hex[CT_DIGEST_HEX_BYTES];
    uint64_t bytes = 0;
    size_t i;
    json_t *entry, *told = json_deep_copy(manifest);
    FUZZ_MUST(told != NULL && ct_file_digest(paths[file], hex, &bytes, &status) == CT_OK);
    json_array_foreach(json_object_get(told, "files"), i, entry) {
        if (strcmp(json_string_value(json_object_get(entry, "name")), names[file]) != 0) continue;
        FUZZ_MUST(json_object_set_new(entry, "bytes", json_integer((json_int_t)bytes)) == 0);
        FUZZ_MUST(json_object_set_new(entry, "xxh3_128", json_string(hex)) == 0);
    }
    char *text = json_dumps(told, JSON_COMPACT);
    FUZZ_MUST(text != NULL);
    write_manifest(text, strlen(text));
    free(text);
    json_decref(told);
}

static void put(size_t file, const char *text, size_t bytes, bool repaired) {
    if (file == MANIFEST) {
        put_manifest(text, bytes, repaired);
        return;
    }
    if (file == DELTA) {
        if (bytes > 0) put_delta(text, bytes, repaired);
        return;
    }
    if (file == FILTER) {
        const size_t whole = text_bytes[FILTER];
        char *filter = malloc(whole);
        FUZZ_MUST(filter != NULL && bytes <= whole);
        memcpy(filter, texts[FILTER], whole);
        memcpy(filter, text, bytes);
        if (repaired) repair_filter(filter, whole);
        write_bytes(paths[file], filter, whole);
        free(filter);
    } else {
        char *store = file == STORE && repaired ? repair_store(text, bytes) : NULL;
        write_bytes(paths[file], store != NULL ? store : text, store != NULL ? strlen(store) : bytes);
        free(store);
    }
    tell_of(file);
}

/* --- what is read --- */

/* A batch of what the model's own schema has: zeros, each with one value. */
static ct_batch *zeros(const ct_schema *schema) {
    enum { ZEROS = 4 };
    ct_status status = CT_STATUS_INIT;
    ct_batch *batch = NULL;
    FUZZ_MUST(ct_batch_create(schema, ZEROS, &batch, &status) == CT_OK);
    batch->rows = ZEROS;
    for (size_t c = 0; c < batch->column_count; c++) {
        ct_column *column = &batch->columns[c];
        column->present = true;
        memset(column->values, 0, ZEROS * ct_column_type_bytes(column->type));
        for (uint32_t r = 0; r <= ZEROS && column->offsets != NULL; r++) column->offsets[r] = r;
    }
    return batch;
}

static void check_code(ct_code code, const ct_status *status) {
    FUZZ_MUST(code == CT_OK ||
              ((code == CT_INVALID || code == CT_CORRUPT || code == CT_UNSUPPORTED || code == CT_EXHAUSTED) && status->message[0] != '\0'));
}

static void ask(ct_model *model, size_t mode) {
    ct_status status = CT_STATUS_INIT;
    ct_batch *batch = zeros(ct_model_schema(model));
    char digest[CT_DIGEST_HEX_BYTES];
    float logits[BATCH_ROWS];
    ct_scorer *scorer = NULL;
    json_t *described = ct_model_describe(model);
    FUZZ_MUST(described != NULL);
    json_decref(described);
    if (mode == TRAIN) {
        check_code(ct_model_train(model, batch, 0, logits, &status), &status);
    } else if (mode != LOOK) {
        check_code(ct_scorer_create(model, &scorer, &status), &status);
        if (scorer != NULL) check_code(ct_scorer_run(scorer, batch, 0, batch->rows, logits, &status), &status);
        ct_scorer_destroy(scorer);
    }
    if (mode != EARLY && mode != FOLLOW) check_code(ct_model_digest(model, digest, &status), &status);
    if (mode == LOOK && ct_model_describe_folder(model, folder, &described, &status) == CT_OK) json_decref(described);
    ct_batch_destroy(batch);
}

/* Of a follower, with the delta behind it where it may follow. */
static void follow(ct_follower *follower) {
    ct_status status = CT_STATUS_INIT;
    ct_delta *delta = NULL;
    ct_model *next = NULL;
    ask(ct_follower_model(follower), FOLLOW);
    ct_code code = ct_delta_open(paths[DELTA], &delta, &status);
    if (code == CT_OK) code = ct_follower_stage(follower, delta, &next, &status);
    if (code == CT_OK) {
        ask(next, FOLLOW);
        check_code(ct_follower_settle(follower, &status), &status);
        ask(ct_follower_model(follower), FOLLOW);
    } else {
        FUZZ_MUST(code != CT_INTERNAL && strstr(status.message, paths[DELTA]) != NULL);
    }
    ct_delta_close(delta);
}

/* Of a model that is trained on: with the delta. */
static void apply(ct_model *model) {
    ct_status status = CT_STATUS_INIT;
    ct_delta *delta = NULL;
    ct_code code = ct_delta_open(paths[DELTA], &delta, &status);
    if (code == CT_OK) code = ct_model_apply_delta(model, delta, &status);
    if (code == CT_OK)
        ask(model, TRAIN);
    else
        FUZZ_MUST(code != CT_INTERNAL && strstr(status.message, paths[DELTA]) != NULL);
    ct_delta_close(delta);
}

static void read_folder(size_t file, size_t mode) {
    const uint64_t limit = mode == WITHIN || mode == FOLLOW ? UINT64_C(64) << 20 : 0;
    ct_status status = CT_STATUS_INIT;
    ct_follower *follower = NULL;
    ct_model *model = NULL;
    ct_code code;
    if (mode == FOLLOW)
        code = ct_follower_open(folder, limit, live, pool, &follower, &status);
    else if (mode == EARLY)
        code = ct_model_open_early(folder, limit, pool, &model, &status);
    else
        code = ct_model_open_within(folder,
                                    mode == TRAIN  ? CT_MODEL_TRAIN
                                    : mode == LOOK ? CT_MODEL_LOOK
                                                   : CT_MODEL_READ,
                                    limit, NULL, NULL, pool, &model, &status);
    check_code(code, &status);
    FUZZ_MUST(code == CT_OK || code == CT_EXHAUSTED || strstr(status.message, folder) != NULL);
    if (follower != NULL)
        follow(follower);
    else if (code == CT_OK && file == DELTA && mode == TRAIN)
        apply(model);
    else if (code == CT_OK)
        ask(model, mode);
    ct_follower_close(follower);
    ct_model_destroy(model);
    int64_t sequence = -2;
    code = ct_publication_sequence(folder, &sequence, &status);
    FUZZ_MUST(code == CT_OK ? sequence >= -1 && sequence < INT64_MAX : code == CT_CORRUPT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < INPUT_HEAD || bytes > FUZZ_MAX_BYTES) return 0;
    prepare();
    const size_t file = data[0] % FILES;
    size_t mode = (data[1] & 7) % MODES;
    if (file == DELTA && mode != TRAIN) mode = FOLLOW;
    if (file == MANIFEST && mode == TRAIN) mode = READ; /* its batch may be of a million rows, which takes long */
    put(file, (const char *)data + INPUT_HEAD, bytes - INPUT_HEAD, data[1] & REPAIRED);
    read_folder(file, mode);
    write_bytes(paths[file], texts[file], text_bytes[file]);
    return 0;
}

/* Each file as it was written, in another mode; the delta in both. */
size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    if (index > FILES) return 0;
    prepare();
    out[1] = (uint8_t)((index == FILES ? TRAIN : index % MODES) | REPAIRED);
    if (index == FILES) index = DELTA;
    out[0] = (uint8_t)index;
    const char *end = index == MANIFEST ? strstr(texts[index], "\nchecksum ") : NULL;
    const size_t bytes = end != NULL ? (size_t)(end - texts[index]) : index == FILTER ? 200 : text_bytes[index];
    FUZZ_MUST(bytes + INPUT_HEAD <= FUZZ_MAX_BYTES);
    memcpy(out + INPUT_HEAD, texts[index], bytes);
    return INPUT_HEAD + bytes;
}
