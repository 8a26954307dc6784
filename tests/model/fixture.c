#include "tests/model/fixture.h"

#include "base/random.h"
#include "data/vectors.h"

/* --- the log --- */

enum { USERS = 150, ITEMS = 120, TAGS = 12, VECTORS = 90 };

static uint32_t draw(size_t row, uint32_t what, uint32_t below) { return ct_random(7, CT_PLACE_TEST, what, row, 0).word[0] % below; }

/* Small numbers come more often. */
static uint32_t draw_skewed(size_t row, uint32_t what, uint32_t below) {
    const uint32_t a = draw(row, what, below), b = draw(row, what + 100, below);
    return a < b ? a : b;
}

char *shop_log(const char *folder, const char *name, size_t first, size_t rows, int label) {
    char *path = temp_path(folder, name);
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    for (size_t row = first; row < first + rows; row++) {
        const uint32_t user = draw_skewed(row, 1, USERS), item = draw_skewed(row, 2, ITEMS), price = draw(row, 3, 5000);
        const uint32_t odds = (user % 3 == 0 ? 30u : 10u) + (item % 4 == 1 ? 30u : 0u) + (price < 800 ? 20u : 0u);
        const bool click = label < 0 ? draw(row, 4, 100) < odds : label == 1;
        fprintf(to, "%d\t%g\tu%u\t", click, 0.25 * (1 + draw(row, 5, 8)), user);
        const uint32_t tags = draw(row, 6, 5); /* the schema keeps 3 */
        for (uint32_t i = 0; i < tags; i++) fprintf(to, "%st%u", i == 0 ? "" : ",", draw_skewed(row, 10 + i, TAGS));
        fprintf(to, "\t");
        if (draw(row, 7, 5) > 0) fprintf(to, "%u", draw(row, 8, 80));
        fprintf(to, "\t%u\t", item);
        const uint32_t likes = draw(row, 9, 6); /* the schema keeps 4 */
        for (uint32_t i = 0; i < likes; i++) fprintf(to, "%s%u", i == 0 ? "" : ",", draw_skewed(row, 20 + i, ITEMS));
        fprintf(to, "\t%.2f\t", price / 100.0);
        if (draw(row, 30, 10) > 0) fprintf(to, "%d", (int)draw(row, 31, 2001) - 1000);
        fprintf(to, "\n");
    }
    assert_int_equal(fclose(to), 0);
    return path;
}

static const char shop_yaml[] =
    "name: shop\n"
    "format: {separator: \"\\t\", header: false, columns: 9}\n"
    "fields:\n"
    "  - {name: label, kind: label, column: 1}\n"
    "  - {name: weight, kind: weight, column: 2}\n"
    "  - {name: user, kind: id, column: 3, side: context}\n"
    "  - {name: tags, kind: id, column: 4, side: context, separator: \",\", max: 3, newest: last}\n"
    "  - {name: age, kind: number, column: 5, side: context}\n"
    "  - {name: item, kind: id, column: 6, side: candidate, type: integer}\n"
    "  - {name: likes, kind: id, column: 7, side: context, type: integer, separator: \",\", max: 4,\n"
    "     newest: last, shares: item}\n"
    "  - {name: price, kind: number, column: 8, side: candidate}\n"
    "  - {name: spread, kind: number, column: 9, side: candidate}\n"
    "  - {name: item_text, kind: vector, of: item, file: items.npy, ids: items.txt}\n"
    "  - {name: likes_text, kind: vector, of: likes, file: items.npy, ids: items.txt}\n"
    "  - {name: who, kind: unit, column: 3}\n";

char *shop_files(const char *folder) {
    char *yaml = temp_path(folder, "shop.yaml"), *npy = temp_path(folder, "items.npy"), *txt = temp_path(folder, "items.txt");
    float values[VECTORS * SHOP_VECTOR_DIM];
    char names[VECTORS][8];
    const char *ids[VECTORS];
    for (size_t i = 0; i < VECTORS; i++) { /* items from VECTORS on have no vector */
        snprintf(names[i], sizeof names[i], "%zu", i);
        ids[i] = names[i];
        for (size_t d = 0; d < SHOP_VECTOR_DIM; d++)
            values[i * SHOP_VECTOR_DIM + d] = 2 * ct_unit_float(ct_random(7, CT_PLACE_TEST + 1, 0, i, (uint32_t)d).word[0]) - 1;
    }
    assert_ok(ct_file_write(yaml, shop_yaml, sizeof shop_yaml - 1, &status));
    assert_ok(ct_vectors_write(npy, txt, values, VECTORS, SHOP_VECTOR_DIM, ids, &status));
    free(npy);
    free(txt);
    return yaml;
}

ct_schema *shop_schema(const char *folder) {
    char *yaml = shop_files(folder);
    ct_schema *schema = NULL;
    assert_ok(ct_schema_load(yaml, &schema, &status));
    assert_int_equal(schema->field_count, SHOP_FIELDS);
    free(yaml);
    return schema;
}

ct_schema *shop_alike_schema(const char *folder, const ct_schema *shop) {
    static const char more[] = "  - {name: alike, kind: history, of: item, clicked: true, max: 4, pooling: attention}\n";
    char *text = NULL, *yaml = temp_path(folder, "alike.yaml");
    ct_schema *schema = NULL;
    assert_true(asprintf(&text, "%.*s%s", (int)shop->text_bytes, shop->text, more) > 0);
    assert_ok(ct_file_write(yaml, text, strlen(text), &status));
    assert_ok(ct_schema_load(yaml, &schema, &status));
    assert_int_equal(schema->field_count, SHOP_ALIKE_FIELDS);
    free(text);
    free(yaml);
    return schema;
}

/* --- short ways --- */

ct_pool *make_pool(size_t threads) {
    ct_pool *pool = NULL;
    assert_ok(ct_pool_create(threads, &pool, &status));
    return pool;
}

ct_model_spec *make_spec(const char *name, const char *const *sets, size_t set_count) {
    ct_model_spec *spec = NULL;
    assert_ok(ct_model_spec_load(name, sets, set_count, &spec, &status));
    return spec;
}

ct_model *make_model(const ct_schema *schema, const char *name, const char *const *sets, size_t set_count, uint64_t seed, size_t batch_rows,
                     ct_pool *pool) {
    ct_model_spec *spec = make_spec(name, sets, set_count);
    const ct_model_options options = {.seed = seed, .batch_rows = batch_rows, .pool = pool};
    ct_model *model = NULL;
    assert_ok(ct_model_create(schema, spec, &options, &model, &status));
    ct_model_spec_destroy(spec);
    return model;
}

ct_model *open_model(const char *folder, ct_model_mode mode, ct_pool *pool) {
    ct_model *model = NULL;
    assert_ok(ct_model_open(folder, mode, NULL, pool, &model, &status));
    return model;
}

void save_model(ct_model *model, const char *folder) {
    json_t *metrics = json_pack("{s:n}", "auc");
    assert_ok(ct_model_save(model, folder, metrics, "{\"rows\":0}\n", &status));
    json_decref(metrics);
}

/* The reader keeps a pointer to its sources: it points into a list of its own here. */
ct_reader *open_reader(const ct_schema *schema, const char *source, size_t batch_rows) {
    static const char *sources[64];
    static size_t next;
    const char **slot = &sources[next++ % 64];
    *slot = source;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    options.sources = slot;
    options.source_count = 1;
    options.batch_rows = batch_rows;
    options.max_bad_rows = 0;
    ct_reader *reader = NULL;
    assert_ok(ct_reader_open(schema, &options, &reader, &status));
    return reader;
}

ct_batch *next_batch(ct_reader *reader) {
    ct_batch *batch = NULL;
    ct_status status = CT_STATUS_INIT;
    const ct_code code = ct_reader_next(reader, &batch, &status);
    if (code == CT_END) return NULL;
    if (code != CT_OK) fail_msg("%s", status.message);
    return batch;
}

void train_on(ct_model *model, const char *source, uint32_t epoch, size_t first, size_t last) {
    ct_reader *reader = open_reader(ct_model_schema(model), source, ct_model_batch_rows(model));
    float *logits = malloc(ct_model_batch_rows(model) * sizeof *logits);
    ct_batch *batch = NULL;
    assert_non_null(logits);
    for (size_t i = 0; i < last && (batch = next_batch(reader)) != NULL; i++) {
        if (i >= first) assert_ok(ct_model_train(model, batch, epoch, logits, &status));
        ct_reader_release(reader, batch);
    }
    free(logits);
    ct_reader_close(reader);
}

void digest_of(ct_model *model, char out_hex[CT_DIGEST_HEX_BYTES]) { assert_ok(ct_model_digest(model, out_hex, &status)); }

static size_t same_row(const void *context, size_t column, size_t row) {
    (void)context;
    (void)column;
    return row;
}

ct_batch *read_all(const ct_schema *schema, const char *source, size_t rows) {
    ct_reader *reader = open_reader(schema, source, rows);
    ct_batch *batch = next_batch(reader);
    assert_non_null(batch);
    assert_int_equal(batch->rows, rows);
    ct_batch *copy = pick_rows(schema, batch, rows, same_row, NULL, NULL);
    ct_reader_close(reader);
    return copy;
}

float *score_all(ct_model *model, const ct_batch *batch) {
    ct_scorer *scorer = NULL;
    float *logits = malloc(batch->rows * sizeof *logits);
    assert_non_null(logits);
    assert_ok(ct_scorer_create(model, &scorer, &status));
    assert_ok(ct_scorer_run(scorer, batch, 0, batch->rows, logits, &status));
    ct_scorer_destroy(scorer);
    return logits;
}

ct_batch *pick_rows(const ct_schema *schema, const ct_batch *from, size_t rows, row_of_fn row_of, const void *context, const bool *shared) {
    ct_batch *batch = NULL;
    assert_ok(ct_batch_create(schema, rows, &batch, &status));
    batch->rows = rows;
    batch->first_row = from->first_row;
    for (size_t c = 0; c < from->column_count; c++) {
        const ct_column *in = &from->columns[c];
        ct_column *out = &batch->columns[c];
        const size_t bytes = ct_column_type_bytes(in->type);
        out->present = in->present;
        out->shared = shared != NULL && shared[c];
        if (!in->present) continue;
        const size_t count = out->shared ? 1 : rows;
        size_t used = 0;
        for (size_t r = 0; r < count; r++) {
            const size_t row = row_of(context, c, r);
            const size_t begin = in->offsets != NULL ? in->offsets[row] : row, end = in->offsets != NULL ? in->offsets[row + 1] : row + 1;
            if (in->offsets != NULL) {
                assert_ok(ct_batch_reserve(batch, c, used + end - begin, &status));
                if (r == 0) out->offsets[0] = 0;
                out->offsets[r + 1] = (uint32_t)(used + end - begin);
            }
            if (end > begin) memcpy((char *)out->values + used * bytes, (const char *)in->values + begin * bytes, (end - begin) * bytes);
            used += end - begin;
        }
    }
    return batch;
}

/* --- the log with what a test of it needs --- */

void shop_init(shop *shop, size_t log_rows, size_t rows) {
    shop->folder = temp_folder();
    shop->log = shop_log(shop->folder, "train.tsv", 0, log_rows, -1);
    char *later = shop_log(shop->folder, "later.tsv", log_rows, rows, -1);
    shop->schema = shop_schema(shop->folder);
    shop->pool = make_pool(2);
    shop->rows = read_all(shop->schema, later, rows);
    free(later);
}

void shop_deinit(shop *shop) {
    ct_batch_destroy(shop->rows);
    ct_schema_destroy(shop->schema);
    ct_pool_destroy(shop->pool);
    free(shop->log);
    temp_remove(shop->folder);
}
