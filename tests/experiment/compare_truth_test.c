/* Compare on made logs with a planted truth: what it finds is what was planted, slices are counted anew here, controls show nothing. */
#include "tests/experiment/compare_fixture.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_truth),
        cmocka_unit_test(test_controls_and_slices),
        cmocka_unit_test(test_planted_without_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
