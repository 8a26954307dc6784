/* Compare from logs to report: a planted truth, slices counted anew here, refusals, and the table. */
#include "experiment/compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "data/synth.h"

enum { PATH_BYTES = 600, LINE_BYTES = 4096, SMALL_ROWS = 6000, ROWS = 60000 };

typedef struct log_files {
    char folder[PATH_BYTES - 64], all[PATH_BYTES], train[PATH_BYTES], valid[PATH_BYTES], test[PATH_BYTES], schema_path[PATH_BYTES],
        vectors[PATH_BYTES], arms[PATH_BYTES];
    ct_schema *schema;
} log_files;

/* Rows [first, last) of a log. */
static void cut(const char *from, const char *to, long first, long last) {
    static char line[LINE_BYTES];
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    assert_true(in != NULL && out != NULL);
    for (long row = 0; fgets(line, sizeof line, in) != NULL; row++)
        if (row >= first && row < last) fputs(line, out);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void write_text(const char *path, const char *text) {
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_file_write(path, text, strlen(text), &status), CT_OK);
}

/* `planted` (may be NULL) changes the world. */
static void make_world(log_files *files, int64_t rows, void (*planted)(ct_synth_options *options)) {
    ct_status status = CT_STATUS_INIT;
    const char *temporary = getenv("TEST_TMPDIR");
    snprintf(files->folder, sizeof files->folder, "%s/compare_test_XXXXXX", temporary != NULL ? temporary : "/tmp");
    assert_non_null(mkdtemp(files->folder));
    snprintf(files->all, PATH_BYTES, "%s/all.tsv", files->folder);
    snprintf(files->train, PATH_BYTES, "%s/train.tsv", files->folder);
    snprintf(files->valid, PATH_BYTES, "%s/valid.tsv", files->folder);
    snprintf(files->test, PATH_BYTES, "%s/test.tsv", files->folder);
    snprintf(files->schema_path, PATH_BYTES, "%s/schema.yaml", files->folder);
    snprintf(files->vectors, PATH_BYTES, "%s/vectors.npy", files->folder);
    snprintf(files->arms, PATH_BYTES, "%s/arms.yaml", files->folder);
    ct_synth_options options;
    ct_synth_truth truth;
    ct_synth_options_init(&options);
    if (planted != NULL) planted(&options);
    options.rows = rows;
    options.path = files->all;
    options.vectors_path = files->vectors;
    options.schema_path = files->schema_path;
    assert_int_equal(ct_synth_write(&options, &truth, &status), CT_OK);
    cut(files->all, files->train, 0, rows * 15 / 20);
    cut(files->all, files->valid, rows * 15 / 20, rows * 16 / 20);
    cut(files->all, files->test, rows * 16 / 20, rows);
    assert_int_equal(ct_schema_load(files->schema_path, &files->schema, &status), CT_OK);
}

static void make_log(log_files *files, int64_t rows) { make_world(files, rows, NULL); }

static void remove_log(log_files *files) {
    ct_status status = CT_STATUS_INIT;
    ct_schema_destroy(files->schema);
    assert_int_equal(ct_folder_remove(files->folder, &status), CT_OK);
}

typedef struct compare_call {
    const char *train, *valid, *test;
    ct_compare_options options;
} compare_call;

static void call_init(compare_call *call, const log_files *files, ct_pool *pool) {
    call->train = files->train, call->valid = files->valid, call->test = files->test;
    call->options = (ct_compare_options){.schema = files->schema,
                                         .arms_path = files->arms,
                                         .train_sources = &call->train,
                                         .train_source_count = 1,
                                         .valid_sources = &call->valid,
                                         .valid_source_count = 1,
                                         .test_sources = &call->test,
                                         .test_source_count = 1,
                                         .seeds = 2,
                                         .seed = 1,
                                         .batch_rows = 256,
                                         .draws = 200,
                                         .pool = pool};
}

static ct_pool *pool_of(size_t threads) {
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(threads, &pool, &status), CT_OK);
    return pool;
}

static json_t *run(const compare_call *call) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    const ct_code code = ct_compare_run(&call->options, &report, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    return report;
}

static const json_t *find_pair(const json_t *report, const char *a, const char *b) {
    const json_t *comparisons = json_object_get(report, "comparisons");
    for (size_t i = 0; i < json_array_size(comparisons); i++) {
        const json_t *pair = json_array_get(comparisons, i);
        if (strcmp(json_string_value(json_object_get(pair, "a")), a) == 0 && strcmp(json_string_value(json_object_get(pair, "b")), b) == 0)
            return pair;
    }
    fail_msg("no pair %s, %s", a, b);
    return NULL;
}

static const json_t *find_slice(const json_t *pair, const char *name) {
    const json_t *slices = json_object_get(pair, "slices");
    for (size_t i = 0; i < json_array_size(slices); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(slices, i), "slice")), name) == 0) return json_array_get(slices, i);
    fail_msg("no slice %s", name);
    return NULL;
}

static const char *verdict(const json_t *pair, const char *slice) {
    return json_string_value(json_object_get(find_slice(pair, slice), "verdict"));
}

static const json_t *at(const json_t *json, const char *first, const char *second) {
    return json_object_get(json_object_get(json, first), second);
}

static bool has_warning(const json_t *report, const char *words) {
    const json_t *warnings = json_object_get(report, "warnings");
    for (size_t i = 0; i < json_array_size(warnings); i++)
        if (strstr(json_string_value(json_array_get(warnings, i)), words) != NULL) return true;
    return false;
}

/* --- the table --- */

static void check_table(const json_t *report, bool print) {
    char *text = ct_compare_table(report);
    assert_non_null(text);
    if (print) printf("%s", text);
    size_t column = 0;
    for (const char *c = text; *c != '\0'; c++) {
        assert_true(*c == '\n' || (*c >= ' ' && *c < 0x7f));
        column = *c == '\n' ? 0 : column + 1;
        assert_true(column <= 100);
    }
    assert_int_equal(column, 0);
    free(text);
}

/* --- slices, counted from the files --- */

enum { ITEM_COLUMN = 15 /* label, 13 numbers, C1, C2 */, TOKEN_BYTES = 9 };

typedef struct item_row {
    char item[TOKEN_BYTES];
    bool click;
} item_row;

static size_t read_items(const char *path, item_row *rows, size_t capacity) {
    static char line[LINE_BYTES];
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    size_t n = 0;
    while (fgets(line, sizeof line, in) != NULL) {
        assert_true(n < capacity);
        const char *at_column = line;
        for (int c = 0; c < ITEM_COLUMN; c++) at_column = strchr(at_column, '\t') + 1;
        const size_t bytes = strcspn(at_column, "\t\n");
        assert_true(bytes < TOKEN_BYTES);
        rows[n].click = line[0] == '1';
        memcpy(rows[n].item, at_column, bytes);
        rows[n++].item[bytes] = '\0';
    }
    fclose(in);
    return n;
}

static int by_item(const void *a, const void *b) { return strcmp(((const item_row *)a)->item, ((const item_row *)b)->item); }

/* First of the sorted rows that is not before `item`, or not before or at it. */
static size_t bound(const item_row *rows, size_t n, const char *item, bool behind) {
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const int order = strcmp(rows[middle].item, item);
        if (order < 0 || (behind && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void check_slices(const log_files *files, const json_t *pair) {
    static const char *const names[] = {"new", "cold", "warm", "hot"};
    static item_row train[ROWS], test[ROWS];
    const size_t train_rows = read_items(files->train, train, ROWS), test_rows = read_items(files->test, test, ROWS);
    int64_t rows[4] = {0}, clicks[4] = {0};
    qsort(train, train_rows, sizeof *train, by_item);
    for (size_t i = 0; i < test_rows; i++) {
        const size_t count = bound(train, train_rows, test[i].item, true) - bound(train, train_rows, test[i].item, false);
        const size_t kind = count == 0 ? 0 : count <= 4 ? 1 : count <= 99 ? 2 : 3;
        rows[kind]++;
        clicks[kind] += test[i].click;
    }
    rows[1] += rows[0]; /* new ones are cold */
    clicks[1] += clicks[0];
    for (size_t kind = 0; kind < 4; kind++) {
        const json_t *slice = find_slice(pair, names[kind]);
        assert_int_equal(json_integer_value(json_object_get(slice, "rows")), rows[kind]);
        assert_int_equal(json_integer_value(json_object_get(slice, "clicks")), clicks[kind]);
    }
    assert_int_equal(json_integer_value(json_object_get(find_slice(pair, "all"), "rows")), test_rows);
}

/* --- tests --- */

/* Vectors explain most of the items' appeal: they help where an item's id was not seen, and add nothing where it was seen often. */
static void test_planted_truth(void **state) {
    (void)state;
    static log_files files;
    make_log(&files, ROWS);
    write_text(files.arms,
               "model: dnn\n"
               "set: [\"deep=[32]\", \"embedding.dim=8\", \"vector.adapter=8\"]\n"
               "arms:\n"
               "  - {name: id, exclude: [item_vector]}\n"
               "  - {name: id+vector}\n"
               "  - {name: id again, exclude: [item_vector]}\n");
    ct_pool *pool = pool_of(2);
    compare_call call;
    call_init(&call, &files, pool);
    call.options.seeds = 3;
    json_t *report = run(&call);
    check_table(report, true);

    const json_t *pair = find_pair(report, "id", "id+vector");
    assert_string_equal(verdict(pair, "new"), "B better");
    assert_string_equal(verdict(pair, "hot"), "no difference shown");
    const json_t *new_slice = find_slice(pair, "new"), *hot = find_slice(pair, "hot");
    assert_true(json_number_value(at(new_slice, "log_loss", "high")) < 0.0);
    assert_true(json_number_value(at(new_slice, "auc", "difference")) > 0.02);
    assert_true(fabs(json_number_value(at(hot, "auc", "difference"))) < 0.005);
    assert_true(json_is_true(json_object_get(pair, "control")));
    check_slices(&files, pair);

    /* Equal settings: exactly no difference, in any slice, in either metric. */
    const json_t *same = find_pair(report, "id", "id again");
    assert_int_equal(json_array_size(json_object_get(same, "slices")), 7);
    for (size_t i = 0; i < 7; i++) {
        static const char *const metrics[] = {"auc", "log_loss", "grouped_auc", "normalized_entropy", "calibration", "ndcg", "mrr"},
                                 *const ends[] = {"difference", "low", "high"};
        const json_t *slice = json_array_get(json_object_get(same, "slices"), i);
        for (size_t m = 0; m < 7; m++)
            for (size_t e = 0; e < 3; e++) assert_true(json_number_value(at(slice, metrics[m], ends[e])) == 0.0);
        assert_null(strstr(json_string_value(json_object_get(slice, "verdict")), "B"));
    }
    /* The other order of the same pair: the opposite. */
    const json_t *opposite = find_pair(report, "id+vector", "id again");
    assert_false(json_is_true(json_object_get(opposite, "control")));
    assert_string_equal(verdict(opposite, "new"), "A better");
    assert_true(json_number_value(at(find_slice(opposite, "new"), "auc", "difference")) ==
                -json_number_value(at(new_slice, "auc", "difference")));

    /* The comparison's own AUC is the evaluation's. */
    const json_t *arm = json_array_get(json_object_get(report, "arms"), 1), *test = json_object_get(arm, "test");
    assert_true(fabs(json_number_value(at(test, "auc", "mean")) - json_number_value(at(find_slice(pair, "all"), "auc", "b"))) < 1e-12);
    assert_true(fabs(json_number_value(at(test, "log_loss", "mean")) - json_number_value(at(find_slice(pair, "all"), "log_loss", "b"))) <
                1e-9);
    assert_true(fabs(json_number_value(at(test, "grouped_auc", "mean")) -
                     json_number_value(at(find_slice(pair, "all"), "grouped_auc", "b"))) < 1e-9);
    assert_true(fabs(json_number_value(at(test, "normalized_entropy", "mean")) -
                     json_number_value(at(find_slice(pair, "all"), "normalized_entropy", "b"))) < 1e-9);
    assert_true(fabs(json_number_value(at(test, "calibration", "mean")) -
                     json_number_value(at(find_slice(pair, "all"), "calibration", "b"))) < 1e-6);
    assert_int_equal(json_array_size(at(test, "auc", "seeds")), 3);
    double squares = 0.0;
    for (size_t i = 0; i < 3; i++) {
        const double auc = json_number_value(json_array_get(at(test, "auc", "seeds"), i)) - json_number_value(at(test, "auc", "mean"));
        assert_true(auc != 0.0);
        squares += auc * auc;
    }
    assert_true(fabs(json_number_value(at(test, "auc", "deviation")) - sqrt(squares / 2.0)) < 1e-12);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(arm, "valid"), "rows")), ROWS / 20);
    assert_int_equal(json_integer_value(json_object_get(report, "prediction_bytes")), 4 * 9 * (ROWS / 5));
    assert_int_equal(json_array_size(json_object_get(arm, "features")), 13 + 26 + 1);
    assert_int_equal(json_array_size(json_object_get(json_array_get(json_object_get(report, "arms"), 0), "features")), 13 + 26);
    assert_string_equal(json_string_value(at(report, "units", "by")), "field");
    assert_in_range(json_integer_value(at(report, "units", "clusters")), 1500, 2048); /* of 3,179 units hashed into 2,048 */
    assert_string_equal(json_string_value(json_object_get(report, "decided_by")), "grouped_auc");
    assert_non_null(strstr(json_string_value(json_object_get(pair, "words")), "; new items: B better (grouped AUC +0.0"));
    /* The curve over the item's training count: its first step is the slice of new items. */
    const json_t *curve = json_object_get(report, "item_curve"), *step = json_array_get(curve, 0);
    assert_int_equal(json_array_size(curve), 10);
    assert_int_equal(json_integer_value(json_object_get(step, "rows")), json_integer_value(json_object_get(new_slice, "rows")));
    assert_true(fabs(json_number_value(json_array_get(json_object_get(step, "auc"), 1)) - json_number_value(at(new_slice, "auc", "b"))) <
                1e-12);
    int64_t curve_rows = 0;
    for (size_t i = 0; i < 10; i++) curve_rows += json_integer_value(json_object_get(json_array_get(curve, i), "rows"));
    assert_int_equal(curve_rows, ROWS / 5);
    assert_string_equal(json_string_value(json_object_get(report, "item")), "C2");
    json_decref(report);
    ct_pool_destroy(pool);
    remove_log(&files);
}

/* Nearly all is the item's appeal, and its vector explains all of it. */
static void plant_content(ct_synth_options *options) {
    options->item_share = 0.9;
    options->pairs_share = 0.0;
    options->content_share = 1.0;
    options->new_item_share = 0.6;
    options->signal = 2.0;
}

/* Nearly all is the item's appeal, and its vector explains nothing of it. */
static void plant_no_content(ct_synth_options *options) {
    plant_content(options);
    options->content_share = 0.0;
}

/* Vectors that explain nothing: the arm without ids has only chance to go by on items that it saw too little to know, and ids win where
 * items were seen often. The opposite of the world above, and the report says so. */
static void test_planted_without_content(void **state) {
    (void)state;
    static log_files files;
    make_world(&files, ROWS / 2, plant_no_content);
    write_text(files.arms,
               "model: dnn\n"
               "set: [\"deep=[16]\", \"embedding.dim=8\", \"vector.adapter=8\", \"numbers.buckets=false\"]\n"
               "arms:\n"
               "  - {name: id, features: [C1, C2, I1]}\n"
               "  - {name: content, features: [C1, I1, item_vector]}\n");
    ct_pool *pool = pool_of(2);
    compare_call call;
    call_init(&call, &files, pool);
    call.options.seeds = 3;
    call.options.epochs = 3;
    json_t *report = run(&call);
    check_table(report, true);
    const json_t *pair = find_pair(report, "id", "content");
    assert_string_equal(verdict(pair, "hot"), "A better");
    assert_string_equal(verdict(pair, "all"), "A better");
    const json_t *fresh = find_slice(pair, "new");
    assert_string_equal(json_string_value(json_object_get(fresh, "verdict")), "no difference shown");
    assert_true(fabs(json_number_value(at(fresh, "auc", "b")) - 0.5) < 0.06); /* chance; 600 rows have a deviation of 0.025 */
    json_decref(report);
    ct_pool_destroy(pool);
    remove_log(&files);
}

static const char small_arms[] =
    "model: lr\n"
    "arms:\n"
    "  - {name: \"a arm with a name of many characters, and some like \\u00e4 and \\u4e2d\", exclude: [item_vector]}\n"
    "  - {name: b, features: [C1, C3]}\n";

/* Drops what time and memory decide. */
static void drop_timings(json_t *report) {
    json_t *arms = json_object_get(report, "arms");
    for (size_t i = 0; i < json_array_size(arms); i++) {
        json_object_del(json_array_get(arms, i), "train_seconds");
        json_object_del(json_array_get(arms, i), "rows_per_second");
    }
}

static const json_t *arm_at(const json_t *report, size_t arm) { return json_array_get(json_object_get(report, "arms"), arm); }

/* A placebo loses what the content gave, an A/A arm differs by its seeds alone; slices by features; several epochs; what training and test
 * have in common is said. */
static void test_controls_and_slices(void **state) {
    (void)state;
    static log_files files;
    static char line[LINE_BYTES];
    make_world(&files, ROWS / 2, plant_content);
    write_text(files.arms,
               "model: dnn\n"
               "set: [\"deep=[16]\", \"embedding.dim=8\", \"vector.adapter=8\", \"numbers.buckets=false\"]\n"
               "slices: [I1, C3]\n"
               "arms:\n"
               "  - {name: id, features: [C1, C2, C3, I1]}\n"
               "  - {name: content, features: [C1, C3, I1, item_vector]}\n"
               "  - {name: shuffled, placebo: content}\n"
               "  - {name: id again, again: id}\n");
    ct_pool *pool = pool_of(2);
    compare_call call;
    call_init(&call, &files, pool);
    call.options.seeds = 3;
    call.options.epochs = 3;
    json_t *report = run(&call);
    check_table(report, true);
    assert_string_equal(json_string_value(json_object_get(arm_at(report, 2), "kind")), "placebo");
    assert_string_equal(json_string_value(json_object_get(arm_at(report, 2), "of")), "content");
    assert_string_equal(json_string_value(json_object_get(arm_at(report, 3), "kind")), "again");
    assert_true(json_is_null(json_object_get(arm_at(report, 0), "of")));
    /* Of equal shape, so of equal cost in memory. */
    assert_int_equal(json_integer_value(json_object_get(arm_at(report, 1), "table_rows")),
                     json_integer_value(json_object_get(arm_at(report, 2), "table_rows")));

    /* On new items an id says nothing and content much; shuffled content nothing again. */
    const json_t *gain = find_slice(find_pair(report, "id", "content"), "new"),
                 *loss = find_slice(find_pair(report, "content", "shuffled"), "new"),
                 *nothing = find_slice(find_pair(report, "id", "shuffled"), "new");
    assert_true(json_number_value(at(gain, "auc", "low")) > 0.0);
    assert_true(json_number_value(at(loss, "auc", "high")) < 0.0);
    assert_true(json_number_value(at(nothing, "auc", "low")) < 0.0 && json_number_value(at(nothing, "auc", "high")) > 0.0);
    /* A/A: seeds differ, so the difference is not 0, and it is not called one. */
    const json_t *same = find_slice(find_pair(report, "id", "id again"), "all");
    assert_true(json_number_value(at(same, "auc", "difference")) != 0.0);
    assert_string_equal(json_string_value(json_object_get(same, "verdict")), "no difference shown");
    assert_false(has_warning(report, "A/A"));
    assert_false(has_warning(report, "placebo"));

    /* Every slicing field covers all rows. */
    const json_t *slices = json_object_get(find_pair(report, "id", "content"), "slices"), *slice = NULL;
    int64_t numbers = 0, ids = 0;
    size_t i = 0, number_slices = 0, id_slices = 0;
    json_array_foreach(slices, i, slice) {
        const char *of = json_string_value(json_object_get(slice, "of"));
        const int64_t rows = json_integer_value(json_object_get(slice, "rows"));
        if (strcmp(of, "I1") == 0) numbers += rows, number_slices++;
        if (strcmp(of, "C3") == 0) ids += rows, id_slices++;
        assert_true(rows > 0 || strcmp(of, "items") == 0);
    }
    assert_int_equal(numbers, ROWS / 10);
    assert_int_equal(ids, ROWS / 10);
    assert_in_range(number_slices, 2, 5);
    assert_int_equal(id_slices, 9);

    const json_t *epochs = json_object_get(arm_at(report, 0), "best_epochs");
    assert_int_equal(json_array_size(epochs), 3);
    for (i = 0; i < 3; i++)
        assert_in_range(json_integer_value(json_array_get(epochs, i)), 1, json_integer_value(json_object_get(report, "epochs")));
    json_decref(report);

    /* Ten rows of the test put into training. */
    FILE *in = fopen(files.test, "r"), *out = fopen(files.train, "a");
    assert_true(in != NULL && out != NULL);
    for (int row = 0; row < 10 && fgets(line, sizeof line, in) != NULL; row++) fputs(line, out);
    fclose(in);
    assert_int_equal(fclose(out), 0);
    call.options.seeds = 1;
    call.options.epochs = 1;
    report = run(&call);
    assert_int_equal(json_integer_value(at(report, "overlap", "repeated_rows")), 10);
    assert_true(has_warning(report, "10 training rows are also test rows"));
    json_decref(report);
    ct_pool_destroy(pool);
    remove_log(&files);
}

static void test_threads_and_options(void **state) {
    (void)state;
    static log_files files;
    make_log(&files, SMALL_ROWS);
    write_text(files.arms, small_arms);
    json_t *first = NULL;
    compare_call call;
    for (size_t threads = 1; threads <= 3; threads++) {
        ct_pool *pool = pool_of(threads);
        call_init(&call, &files, pool);
        json_t *report = run(&call);
        check_table(report, threads == 1);
        drop_timings(report);
        if (first == NULL) first = json_incref(report);
        assert_true(json_equal(report, first));
        json_decref(report);
        ct_pool_destroy(pool);
    }
    json_decref(first);

    /* One seed, no validation, the built-in schema: blocks of rows, no slices; and it is said. */
    ct_status status = CT_STATUS_INIT;
    ct_schema *criteo = NULL;
    ct_pool *pool = pool_of(2);
    assert_int_equal(ct_schema_load("criteo", &criteo, &status), CT_OK);
    call_init(&call, &files, pool);
    call.options.schema = criteo;
    call.options.valid_source_count = 0;
    call.options.seeds = 1;
    write_text(files.arms, "arms: [{name: a, model: lr}, {name: b, model: lr, features: [C1]}]\n");
    json_t *report = run(&call);
    check_table(report, true);
    assert_string_equal(json_string_value(at(report, "units", "by")), "blocks");
    assert_int_equal(json_integer_value(at(report, "units", "units")), 2); /* 1,200 rows */
    assert_int_equal(json_integer_value(at(report, "units", "clusters")), 2);
    assert_true(json_is_null(json_object_get(report, "item")));
    assert_int_equal(json_array_size(json_object_get(find_pair(report, "a", "b"), "slices")), 1);
    assert_true(json_is_null(json_object_get(json_array_get(json_object_get(report, "arms"), 0), "valid")));
    assert_true(json_is_null(at(json_object_get(json_array_get(json_object_get(report, "arms"), 0), "test"), "auc", "deviation")));
    assert_true(has_warning(report, "one seed"));
    assert_true(has_warning(report, "blocks of 1000 consecutive rows"));
    assert_true(has_warning(report, "only 2 units"));
    assert_true(has_warning(report, "no item field"));
    json_decref(report);

    /* With an item named in the arms file there are slices. */
    write_text(files.arms, "item: C3\narms: [{name: a, model: lr}, {name: b, model: lr, features: [C1]}]\n");
    report = run(&call);
    assert_int_equal(json_array_size(json_object_get(find_pair(report, "a", "b"), "slices")), 5); /* all and items; no unit field */
    assert_false(has_warning(report, "no item field"));
    json_decref(report);
    ct_schema_destroy(criteo);
    ct_pool_destroy(pool);
    remove_log(&files);
}

/* A test log without clicks, and with bad rows: metrics are null, the verdict says why. */
static void test_one_class(void **state) {
    (void)state;
    static log_files files;
    static char line[LINE_BYTES];
    make_log(&files, SMALL_ROWS);
    write_text(files.arms, small_arms);
    FILE *in = fopen(files.all, "r"), *out = fopen(files.test, "w");
    assert_true(in != NULL && out != NULL);
    for (int i = 0; i < 500 && fgets(line, sizeof line, in) != NULL; i++) {
        line[0] = '0';
        fputs(line, out);
    }
    fputs("not a row\n", out);
    fclose(in);
    assert_int_equal(fclose(out), 0);
    ct_pool *pool = pool_of(1);
    compare_call call;
    call_init(&call, &files, pool);
    json_t *report = run(&call);
    check_table(report, false);
    const json_t *comparison = json_array_get(json_object_get(report, "comparisons"), 0), *all = find_slice(comparison, "all");
    assert_true(json_is_null(at(all, "auc", "difference")) && json_is_null(at(all, "auc", "low")) && json_is_null(at(all, "auc", "a")));
    assert_true(json_is_real(at(all, "log_loss", "difference")) && json_is_real(at(all, "log_loss", "low")));
    assert_int_equal(json_integer_value(at(all, "auc", "draws")), 0);
    assert_string_equal(verdict(comparison, "all"), "too few clicks");
    const json_t *test = json_object_get(json_array_get(json_object_get(report, "arms"), 0), "test");
    assert_true(json_is_null(at(test, "auc", "mean")) && json_is_null(at(test, "calibration", "mean")));
    assert_int_equal(json_integer_value(at(report, "bad_rows", "test")), 1);
    assert_true(has_warning(report, "test: bad rows left out: 1"));
    char *text = json_dumps(report, 0);
    assert_non_null(text);
    assert_null(strstr(text, "nan"));
    free(text);
    json_decref(report);
    ct_pool_destroy(pool);
    remove_log(&files);
}

static void assert_refused(const compare_call *call, ct_code expected, const char *words) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    const ct_code code = ct_compare_run(&call->options, &report, &status);
    printf("%s\n", status.message);
    assert_int_equal(code, expected);
    assert_null(report);
    assert_non_null(strstr(status.message, words));
}

static void test_refused(void **state) {
    (void)state;
    static log_files files;
    char linked[PATH_BYTES];
    make_log(&files, 1000);
    write_text(files.arms, small_arms);
    ct_pool *pool = pool_of(1);
    compare_call call;
    call_init(&call, &files, pool);
    call.test = files.train;
    assert_refused(&call, CT_INVALID, files.train);
    call_init(&call, &files, pool);
    call.valid = files.test;
    assert_refused(&call, CT_INVALID, "validation and the test");
    /* the same file under another name */
    snprintf(linked, sizeof linked, "%s/other.tsv", files.folder);
    assert_int_equal(symlink(files.train, linked), 0);
    call_init(&call, &files, pool);
    call.test = linked;
    assert_refused(&call, CT_INVALID, "training and the test");
    call_init(&call, &files, pool);
    call.test = "-";
    assert_refused(&call, CT_INVALID, "standard input");
    call_init(&call, &files, pool);
    call.test = "/nowhere.tsv";
    assert_refused(&call, CT_NOT_FOUND, "/nowhere.tsv");
    call_init(&call, &files, pool);
    call.options.seeds = 0;
    assert_refused(&call, CT_INVALID, "seed");
    call_init(&call, &files, pool);
    call.options.train_source_count = 0;
    assert_refused(&call, CT_INVALID, "training");
    call_init(&call, &files, pool);
    write_text(files.arms, "item: I1\narms: [{name: a, model: lr}, {name: b, model: lr}]\n");
    assert_refused(&call, CT_INVALID, "'I1'");
    write_text(files.arms, "arms: [{name: a, model: lr}, {name: b, model: lr, features: [C99]}]\n");
    assert_refused(&call, CT_INVALID, "arm 'b'");
    write_text(files.arms, "slices: [C99]\narms: [{name: a, model: lr}, {name: b, model: lr}]\n");
    assert_refused(&call, CT_INVALID, "'C99'");
    write_text(files.arms, "arms: [{name: a, model: lr, exclude: [item_vector]}, {name: b, placebo: a}]\n");
    assert_refused(&call, CT_INVALID, "no vector to shuffle");
    write_text(files.arms, small_arms);
    call.train = "-";
    call.options.epochs = 2;
    assert_refused(&call, CT_INVALID, "2 epochs");
    call_init(&call, &files, pool);
    const atomic_bool stop = true;
    call.options.stop = &stop;
    assert_refused(&call, CT_CANCELLED, "");
    ct_pool_destroy(pool);
    remove_log(&files);
}

/* Numbers of any size keep to the columns. */
static void test_table_width(void **state) {
    (void)state;
    static const double sizes[] = {0.0, -0.00004, 9.99999, -99.9999, 12345.678, -999999.9, 1e7, -3e38, 1e300};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const double v = sizes[i];
        json_t *interval = json_pack("{s:f, s:f, s:f}", "difference", v, "low", v, "high", v);
        json_t *report = json_pack(
            "{s:{s:I, s:I}, s:I, s:[I], s:I, s:{s:s, s:s, s:I, s:I}, s:s, s:[{s:s, s:s, s:f, s:f, s:{s:{s:f, s:f}, s:{s:f, s:f}, "
            "s:{s:f}}}], s:[{s:s, s:s, s:b, s:[{s:s, s:I, s:I, s:O, s:O, s:s}]}], s:[s]}",
            "rows", "train", (json_int_t)INT64_MAX, "test", (json_int_t)INT64_MAX, "test_clicks", (json_int_t)INT64_MAX, "seeds",
            (json_int_t)1, "draws", (json_int_t)1000, "units", "by", "field", "field", "\xc3\xa4 very long name of a field indeed, it is",
            "units", (json_int_t)1000000000, "clusters", (json_int_t)512, "item", "C2", "arms", "name",
            "0123456789012345678901234567890123456789", "model", "dcn-v2", "rows_per_second", fabs(v), "table_bytes", 1e12, "test", "auc",
            "mean", 0.5, "deviation", 0.25, "log_loss", "mean", fabs(v), "deviation", fabs(v), "calibration", "mean", fabs(v),
            "comparisons", "a", "x", "b", "y", "control", 1, "slices", "slice", "all", "rows", (json_int_t)5000000000, "clicks",
            (json_int_t)999999999, "auc", interval, "log_loss", interval, "verdict", "no difference shown", "warnings",
            "a_word_that_is_longer_than_a_line_of_one_hundred_columns_and_therefore_has_to_be_cut_somewhere_in_the_middle_or_so end");
        assert_non_null(report);
        check_table(report, i == 0);
        json_decref(report);
        json_decref(interval);
    }
    json_t *empty = json_object();
    check_table(empty, false);
    json_decref(empty);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_truth),
        cmocka_unit_test(test_controls_and_slices),
        cmocka_unit_test(test_planted_without_content),
        cmocka_unit_test(test_threads_and_options),
        cmocka_unit_test(test_one_class),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_table_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
