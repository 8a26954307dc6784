/* Compare from logs to report: threads and options, one class, refusals, and the table. */
#include "tests/experiment/compare_fixture.h"

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
    assert_refused(&call, CT_INVALID, "standard input");
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
        cmocka_unit_test(test_threads_and_options),
        cmocka_unit_test(test_one_class),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_table_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
