/* What follows from histories, as features of a model. A log whose histories and their lengths were worked out by plain loops and stand in
 * columns of their own must give the same model as one in which the program derives them. A linear model of a similarity alone must score
 * as its weights say of cosines and tiers that plain loops work out. Then: a table that stands, one that goes on, files, resume. */
#include <math.h>

#include "data/vectors.h"
#include "tests/model/fixture.h"
#include "trainer/trainer.h"

enum { USERS = 30, ITEMS = 60, VECTORS = 50, DIM = 7, TIERS = 6, MOST = 8, TRAIN = 1500, TEST = 300, ALL = TRAIN + TEST, BATCH = 200 };

typedef struct row {
    bool click;
    uint32_t user, item, time;
} row;

static row all[ALL];
static double vectors[VECTORS][DIM]; /* items from VECTORS on have none */
static char *folder;
static ct_pool *pool;

#define COMMON                                                            \
    "  - {name: click, kind: label, column: 1}\n"                         \
    "  - {name: user, kind: id, column: 2, side: context}\n"              \
    "  - {name: who, kind: unit, column: 2}\n"                            \
    "  - {name: item, kind: id, column: 3, type: integer}\n"              \
    "  - {name: text, kind: vector, of: item, file: v.npy, ids: v.txt}\n" \
    "  - {name: when, kind: time, column: 4}\n"
static const char derived_yaml[] = "name: derived\nformat: {columns: 4}\nfields:\n" COMMON
                                   "  - {name: liked, kind: history, of: item, clicked: true, max: 8}\n"
                                   "  - {name: likes, kind: number, of: liked}\n"
                                   "  - {name: close, kind: similarity, of: liked, vector: text, tiers: 6}\n";
static const char written_yaml[] =
    "name: written\nformat: {columns: 6}\nfields:\n" COMMON
    "  - {name: liked, kind: id, column: 5, side: context, type: integer, separator: \",\", max: 8, shares: item}\n"
    "  - {name: likes, kind: number, column: 6, side: context}\n";

static uint32_t draw(uint64_t *state, uint32_t below) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % below);
}

/* Users like items near one of their own. */
static void make_data(void) {
    uint64_t state = 9;
    uint32_t time = 100;
    float values[VECTORS][DIM];
    char names[VECTORS][8];
    const char *ids[VECTORS];
    for (size_t i = 0; i < VECTORS; i++) {
        snprintf(names[i], sizeof names[i], "%zu", i);
        ids[i] = names[i];
        for (size_t d = 0; d < DIM; d++) {
            values[i][d] = (float)draw(&state, 2000) / 1000.0f - 0.7f;
            vectors[i][d] = (double)values[i][d];
        }
    }
    char *npy = temp_path(folder, "v.npy"), *txt = temp_path(folder, "v.txt");
    assert_ok(ct_vectors_write(npy, txt, &values[0][0], VECTORS, DIM, ids, &status));
    free(npy);
    free(txt);
    for (size_t r = 0; r < ALL; r++) {
        time += draw(&state, 3) == 0;
        const uint32_t user = draw(&state, USERS), item = draw(&state, ITEMS);
        double near = 0;
        for (size_t d = 0; d < DIM && item < VECTORS; d++) near += vectors[item][d] * vectors[user][d];
        all[r] = (row){draw(&state, 100) < (near > 0.3 ? 70u : 25u), user, item, time};
    }
}

/* --- the plain loops --- */

/* What user of row r liked: before row r's time, or, r beyond `until`, all of the rows before `until`. */
static size_t history_of(size_t r, size_t until, uint32_t items[MOST]) {
    uint32_t found[ALL];
    size_t count = 0;
    for (size_t q = 0; q < r && q < until; q++)
        if (all[q].user == all[r].user && all[q].click && (r >= until || all[q].time < all[r].time)) found[count++] = all[q].item;
    const size_t kept = count < MOST ? count : MOST;
    memcpy(items, found + count - kept, kept * sizeof *items);
    return kept;
}

static void centred(uint32_t item, double out[DIM]) {
    for (size_t d = 0; d < DIM; d++) {
        double mean = 0;
        for (size_t i = 0; i < VECTORS; i++) mean += vectors[i][d] / VECTORS;
        out[d] = item < VECTORS ? vectors[item][d] - mean : 0;
    }
}

static double cosine(const double a[DIM], const double b[DIM]) {
    double ab = 0, aa = 0, bb = 0;
    for (size_t d = 0; d < DIM; d++) ab += a[d] * b[d], aa += a[d] * a[d], bb += b[d] * b[d];
    return ab / sqrt(aa * bb);
}

/* What a similarity gives for row r: cosine, missing flag, log(1 + n) of each tier. */
static void similarity_of(size_t r, size_t until, double out[2 + TIERS]) {
    uint32_t items[MOST], tiers[TIERS] = {0};
    const size_t count = history_of(r, until, items);
    double own[DIM], sum[DIM] = {0};
    bool any = false;
    centred(all[r].item, own);
    for (size_t i = 0; i < count && all[r].item < VECTORS; i++) {
        double liked[DIM];
        if (items[i] >= VECTORS) continue;
        centred(items[i], liked);
        for (size_t d = 0; d < DIM; d++) sum[d] += liked[d];
        const int tier = (int)floor((cosine(own, liked) + 1) / 2 * TIERS);
        tiers[tier < TIERS ? tier : TIERS - 1]++;
        any = true;
    }
    out[0] = any ? cosine(own, sum) : 0;
    out[1] = any ? 0 : 1;
    for (size_t t = 0; t < TIERS; t++) out[2 + t] = log1p(tiers[t]);
}

/* Rows [first, last) with their histories, as text; until: see history_of. */
static char *write_rows(const char *name, size_t first, size_t last, bool written, size_t until) {
    char *path = temp_path(folder, name);
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    for (size_t r = first; r < last; r++) {
        fprintf(to, "%d\tu%u\t%u\t%u", all[r].click, all[r].user, all[r].item, all[r].time);
        uint32_t items[MOST];
        const size_t count = history_of(r, until, items);
        if (written) fprintf(to, "\t");
        for (size_t i = 0; written && i < count; i++) fprintf(to, "%s%u", i == 0 ? "" : ",", items[i]);
        if (written) fprintf(to, "\t%zu", count);
        fprintf(to, "\n");
    }
    assert_int_equal(fclose(to), 0);
    return path;
}

/* --- runs --- */

static ct_schema *load(const char *name, const char *text) {
    ct_schema *schema = NULL;
    char *path = temp_path(folder, name);
    assert_ok(ct_file_write(path, text, strlen(text), &status));
    assert_ok(ct_schema_load(path, &schema, &status));
    free(path);
    return schema;
}

static const char *const sets[] = {
    "deep=[16]",      "cross.layers=1",       "embedding.dim=5", "embedding.min_count=1", "vector.adapter=[6,4]", "numbers.buckets=false",
    "precision=fp32", "embedding.id_drop=0.1"};
static const char *const without[] = {
    "exclude=[close]",       "deep=[16]",      "cross.layers=1",       "embedding.dim=5", "embedding.min_count=1", "vector.adapter=[6,4]",
    "numbers.buckets=false", "precision=fp32", "embedding.id_drop=0.1"};
static const char *const linear[] = {"features=[close]", "precision=fp32", "optimizer.learning_rate=0.05"};
#define WHOLE "dcn-v2", sets, sizeof sets / sizeof *sets

static ct_train_options options_of(const char *const *source, const char *out, uint32_t epochs) {
    ct_train_options options = {.train = CT_READER_OPTIONS_INIT, .epochs = epochs, .out_folder = out, .pool = pool};
    options.train.sources = source;
    options.train.source_count = 1;
    return options;
}

static ct_train_result train(const ct_schema *schema, const char *name, const char *const *spec, size_t spec_count, const char *source,
                             const char *out, uint32_t epochs) {
    ct_model *model = make_model(schema, name, spec, spec_count, 5, BATCH, pool);
    const ct_train_options options = options_of(&source, out, epochs);
    ct_train_result result;
    assert_ok(ct_train(model, &options, &result, &status));
    ct_model_destroy(model);
    return result;
}

typedef struct scores {
    size_t count;
    float logits[ALL];
} scores;

static ct_code keep(void *context, const ct_batch *batch, const float *logits, const float *probabilities, ct_status *status) {
    (void)probabilities, (void)status;
    scores *to = context;
    memcpy(to->logits + to->count, logits, batch->rows * sizeof *logits);
    to->count += batch->rows;
    return CT_OK;
}

static scores evaluate(const char *model_folder, const char *source, bool live, size_t batch_rows) {
    ct_model *model = open_model(model_folder, CT_MODEL_READ, pool);
    scores out = {0};
    ct_evaluate_options options = {
        .reader = CT_READER_OPTIONS_INIT, .pool = pool, .predictions = keep, .predictions_context = &out, .live = live};
    options.reader.sources = &source;
    options.reader.source_count = 1;
    options.reader.batch_rows = batch_rows;
    ct_metrics metrics;
    ct_read_report report;
    assert_ok(ct_evaluate(model, &options, &metrics, &report, &status));
    ct_model_destroy(model);
    return out;
}

static void assert_same(const scores *a, const scores *b) {
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->logits, b->logits, a->count * sizeof *a->logits);
}

static void histories_are_what_plain_loops_say(void **state) {
    (void)state;
    ct_schema *derived = load("derived.yaml", derived_yaml), *written = load("written.yaml", written_yaml);
    char *a = write_rows("a.tsv", 0, TRAIN, false, ALL), *b = write_rows("b.tsv", 0, TRAIN, true, ALL);
    char *a_model = temp_path(folder, "a"), *b_model = temp_path(folder, "b");
    const size_t count = sizeof without / sizeof *without;
    const ct_train_result one = train(derived, "dcn-v2", without, count, a, a_model, 2),
                          other = train(written, "dcn-v2", without + 1, count - 1, b, b_model, 2);
    assert_true(one.progressive.log_loss == other.progressive.log_loss);

    char *test = write_rows("test.tsv", TRAIN, ALL, false, ALL);
    char *live = write_rows("live.tsv", TRAIN, ALL, true, ALL), *standing = write_rows("standing.tsv", TRAIN, ALL, true, TRAIN);
    const scores got_live = evaluate(a_model, test, true, 64), got_standing = evaluate(a_model, test, false, 64),
                 want_live = evaluate(b_model, live, false, 100), want_standing = evaluate(b_model, standing, false, 100),
                 again = evaluate(a_model, test, true, 7);
    assert_same(&got_live, &want_live);
    assert_same(&got_standing, &want_standing);
    assert_same(&got_live, &again); /* whatever the batches */
    assert_memory_not_equal(got_live.logits, got_standing.logits, TEST * sizeof(float));
    free(a), free(b), free(test), free(live), free(standing), free(a_model), free(b_model);
    ct_schema_destroy(derived);
    ct_schema_destroy(written);
}

/* A tensor of a model folder: https://github.com/huggingface/safetensors. */
static void read_tensor(const char *model_folder, const char *name, float *out, size_t count) {
    char *path = temp_path(model_folder, "tower.safetensors"), *bytes = NULL;
    size_t size = 0;
    assert_ok(ct_file_read(path, 1 << 24, &bytes, &size, &status));
    uint64_t header = 0;
    memcpy(&header, bytes, 8);
    json_t *json = json_loadb(bytes + 8, header, 0, NULL);
    const json_t *offsets = json_object_get(json_object_get(json, name), "data_offsets");
    const size_t first = (size_t)json_integer_value(json_array_get(offsets, 0)),
                 last = (size_t)json_integer_value(json_array_get(offsets, 1));
    assert_int_equal(last - first, count * sizeof *out);
    memcpy(out, bytes + 8 + header + first, count * sizeof *out);
    json_decref(json);
    free(bytes);
    free(path);
}

/* Float32 sums against double ones. */
static void assert_linear(const char *what, const scores *got, size_t first, size_t until, const float *weights, float bias) {
    double worst = 0, low = 1e9, high = -1e9;
    for (size_t i = 0; i < got->count; i++) {
        double inputs[2 + TIERS], logit = (double)bias;
        similarity_of(first + i, until, inputs);
        for (size_t k = 0; k < 2 + TIERS; k++) logit += (double)weights[k] * inputs[k];
        worst = fmax(worst, fabs(logit - (double)got->logits[i]));
        low = fmin(low, logit), high = fmax(high, logit);
    }
    print_message("%s: largest difference %.2e, logits from %.2f to %.2f\n", what, worst, low, high);
    assert_true(got->count > 0 && worst < 2e-6 && high - low > 0.5);
}

static void similarities_are_what_plain_loops_say(void **state) {
    (void)state;
    ct_schema *schema = load("derived.yaml", derived_yaml);
    char *source = write_rows("a.tsv", 0, TRAIN, false, ALL), *test = write_rows("test.tsv", TRAIN, ALL, false, ALL);
    char *out = temp_path(folder, "linear");
    float weights[2 + TIERS], bias = 0;
    train(schema, "lr", linear, sizeof linear / sizeof *linear, source, out, 3);
    read_tensor(out, "average.head.weight", weights, 2 + TIERS);
    read_tensor(out, "average.head.bias", &bias, 1);
    for (size_t k = 0; k < 2 + TIERS; k++) assert_true(fabsf(weights[k]) > 0.01f);
    const scores live = evaluate(out, test, true, 64), standing = evaluate(out, test, false, 200);
    assert_linear("live", &live, TRAIN, ALL, weights, bias);
    assert_linear("standing", &standing, TRAIN, TRAIN, weights, bias);
    free(source), free(test), free(out);
    ct_schema_destroy(schema);
}

/* --- the folder --- */

static void digest_of_folder(const char *path, char out[CT_DIGEST_HEX_BYTES]) {
    ct_model *model = open_model(path, CT_MODEL_TRAIN, pool);
    digest_of(model, out);
    ct_model_destroy(model);
}

/* Stopped after a checkpoint in the second pass, then on to the end: the bits of a run that was never stopped, and the table too. */
static void a_run_that_goes_on_ends_with_the_same_bits(void **state) {
    (void)state;
    ct_schema *schema = load("derived.yaml", derived_yaml);
    const char *source = write_rows("a.tsv", 0, TRAIN, false, ALL);
    char *whole = temp_path(folder, "whole"), *parts = temp_path(folder, "parts");
    char want[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    train(schema, WHOLE, source, whole, 2);
    digest_of_folder(whole, want);

    ct_model *model = make_model(schema, WHOLE, 5, BATCH, pool);
    ct_reader *reader = NULL;
    ct_histories *histories = NULL;
    ct_batch *batch = NULL;
    ct_reader_options reading = CT_READER_OPTIONS_INIT;
    float logits[BATCH];
    reading.sources = &source;
    reading.source_count = 1;
    reading.batch_rows = BATCH;
    reading.live = true;
    for (uint32_t epoch = 0; epoch < 2; epoch++) { /* a pass and three batches by hand */
        assert_ok(ct_histories_create(schema, &histories, &status));
        reading.histories = histories;
        assert_ok(ct_reader_open(schema, &reading, &reader, &status));
        ct_status status = CT_STATUS_INIT;
        for (size_t b = 0; (epoch == 0 || b < 3) && ct_reader_next(reader, &batch, &status) == CT_OK; b++) {
            assert_ok(ct_model_train(model, batch, epoch, logits, &status));
            ct_reader_release(reader, batch);
        }
        ct_reader_close(reader);
        ct_histories_destroy(histories);
    }
    json_t *metrics = json_object();
    assert_ok(ct_model_save(model, parts, metrics, "", &status));
    json_decref(metrics);
    char before[CT_DIGEST_HEX_BYTES];
    digest_of(model, before);
    ct_model_destroy(model);
    model = open_model(parts, CT_MODEL_TRAIN, pool);
    digest_of(model, got);
    assert_string_equal(before, got);
    reading.histories = NULL;
    assert_ok(ct_histories_create(schema, &histories, &status));
    reading.histories = histories;
    assert_ok(ct_reader_open(schema, &reading, &reader, &status));
    ct_status status = CT_STATUS_INIT;
    for (size_t b = 0; ct_reader_next(reader, &batch, &status) == CT_OK; b++) {
        if (b >= 3) assert_ok(ct_model_train(model, batch, 1, logits, &status));
        ct_reader_release(reader, batch);
    }
    ct_reader_close(reader);
    ct_histories_destroy(histories);
    digest_of(model, got);
    assert_string_equal(want, got);
    ct_model_destroy(model);

    /* A byte of the table is found; so is a table that is not there. */
    char *file = NULL, *bytes = NULL;
    size_t size = 0;
    assert_true(asprintf(&file, "%s/histories/00", parts) > 0);
    assert_ok(ct_file_read(file, 1 << 20, &bytes, &size, &status));
    bytes[size / 2] ^= 1;
    assert_ok(ct_file_write(file, bytes, size, &status));
    assert_refused(CT_CORRUPT, "histories", ct_model_open(parts, CT_MODEL_READ, NULL, pool, &model, &status));
    assert_int_equal(remove(file), 0);
    assert_refused(CT_CORRUPT, "histories", ct_model_open(parts, CT_MODEL_READ, NULL, pool, &model, &status));
    free(file), free(bytes), free(whole), free(parts), free((char *)(uintptr_t)source);
    ct_schema_destroy(schema);
}

static void shuffling_is_refused(void **state) {
    (void)state;
    ct_schema *schema = load("derived.yaml", derived_yaml);
    const char *source = write_rows("a.tsv", 0, TRAIN, false, ALL);
    char *out = temp_path(folder, "shuffled");
    ct_model *model = make_model(schema, WHOLE, 5, BATCH, pool);
    ct_train_options options = options_of(&source, out, 1);
    options.train.shuffle_rows = 1000;
    ct_train_result result;
    assert_refused(CT_INVALID, "histories", ct_train(model, &options, &result, &status));
    ct_model_destroy(model);
    free(out), free((char *)(uintptr_t)source);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histories_are_what_plain_loops_say), cmocka_unit_test(similarities_are_what_plain_loops_say),
        cmocka_unit_test(a_run_that_goes_on_ends_with_the_same_bits), cmocka_unit_test(shuffling_is_refused)};
    folder = temp_folder();
    pool = make_pool(2);
    make_data();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ct_pool_destroy(pool);
    temp_remove(folder);
    return failed;
}
