/* Split: rows counted by hand, and a random log against a plain second way to split it. */
#include "experiment/split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/random.h"

enum { PATH_BYTES = 512, MANY = 5000 };

typedef struct fixture {
    char folder[PATH_BYTES - 64], log[PATH_BYTES], out[PATH_BYTES];
    ct_schema *schema;
    const char *source;
    ct_split_options options;
} fixture;

static const char shop[] =
    "name: shop\n"
    "format: {separator: \"\\t\", columns: 4}\n"
    "fields:\n"
    "  - {name: label, kind: label, column: 1}\n"
    "  - {name: user, kind: unit, column: 2}\n"
    "  - {name: item, kind: id, column: 3}\n"
    "  - {name: when, kind: time, column: 4}\n";

static void write_text(const char *path, const char *text) {
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_file_write(path, text, strlen(text), &status), CT_OK);
}

static void load_schema(fixture *f, const char *text) {
    ct_status status = CT_STATUS_INIT;
    ct_schema_destroy(f->schema);
    f->schema = NULL;
    const ct_code code = ct_schema_parse(text, strlen(text), "shop.yaml", &f->schema, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    f->options.schema = f->schema;
}

static void begin(fixture *f) {
    const char *temporary = getenv("TEST_TMPDIR");
    *f = (fixture){0};
    (void)snprintf(f->folder, sizeof f->folder, "%s/split_test_XXXXXX", temporary != NULL ? temporary : "/tmp");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->log, PATH_BYTES, "%s/log.tsv", f->folder);
    (void)snprintf(f->out, PATH_BYTES, "%s/out", f->folder);
    f->source = f->log;
    f->options = (ct_split_options){.sources = &f->source,
                                    .source_count = 1,
                                    .parts = {60, 20, 20},
                                    .item = "item",
                                    .seed = 1,
                                    .folder = f->out,
                                    .max_bad_rows = -1,
                                    .max_bad_share = 1.0};
    load_schema(f, shop);
}

static void end(fixture *f) {
    ct_status status = CT_STATUS_INIT;
    ct_schema_destroy(f->schema);
    assert_int_equal(ct_folder_remove(f->folder, &status), CT_OK);
}

static json_t *split(const fixture *f, ct_read_report *rows) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    const ct_code code = ct_split(&f->options, &report, rows, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    return report;
}

/* What a part's file holds; the caller's. */
static char *part_text(const fixture *f, const char *name) {
    ct_status status = CT_STATUS_INIT;
    char path[PATH_BYTES + 32], *text = NULL;
    size_t bytes;
    (void)snprintf(path, sizeof path, "%s/%s", f->out, name);
    assert_int_equal(ct_file_read(path, 1 << 24, &text, &bytes, &status), CT_OK);
    return text;
}

static void assert_part(const fixture *f, const char *name, const char *expected) {
    char *text = part_text(f, name);
    assert_string_equal(text, expected);
    free(text);
}

static long long number(const json_t *report, size_t part, const char *name) {
    const json_t *value = json_object_get(json_array_get(json_object_get(report, "parts"), part), name);
    assert_true(json_is_integer(value));
    return (long long)json_integer_value(value);
}

static bool has_warning(const json_t *report, const char *words) {
    const json_t *warnings = json_object_get(report, "warnings");
    for (size_t i = 0; i < json_array_size(warnings); i++)
        if (strstr(json_string_value(json_array_get(warnings, i)), words) != NULL) return true;
    return false;
}

/* Ten rows out of order; times 1 .. 10, with 5 twice. */
static const char ten[] =
    "1\ta\tx\t3\n"
    "0\ta\ty\t1\n"
    "0\tb\tx\t2\n"
    "\n"
    "1\tb\tz\t10\n"
    "0\ta\tx\t5\n"
    "1\tb\ty\t5\n"
    "0\tb\tx\t4\n"
    "1\ta\ty\t7\n"
    "0\tc\tw\t9\n"
    "0\tb\tx\t8\n";

static void test_by_time(void **state) {
    (void)state;
    fixture f;
    ct_read_report rows;
    begin(&f);
    write_text(f.log, ten);
    json_t *report = split(&f, &rows);
    assert_part(&f, "train.tsv", "0\ta\ty\t1\n0\tb\tx\t2\n1\ta\tx\t3\n0\tb\tx\t4\n0\ta\tx\t5\n1\tb\ty\t5\n");
    assert_part(&f, "valid.tsv", "1\ta\ty\t7\n0\tb\tx\t8\n");
    assert_part(&f, "test.tsv", "0\tc\tw\t9\n1\tb\tz\t10\n");
    assert_int_equal(json_integer_value(json_object_get(report, "rows")), 10);
    assert_int_equal(json_integer_value(json_object_get(report, "clicks")), 4);
    /* 1 < 3, 5 < 10, 4 < 5, 8 < 9 */
    assert_int_equal(json_integer_value(json_object_get(report, "unsorted_rows")), 4);
    assert_true(has_warning(report, "4 rows had an earlier time"));
    assert_int_equal(number(report, 0, "rows"), 6);
    assert_int_equal(number(report, 0, "clicks"), 2);
    assert_int_equal(number(report, 0, "units"), 2);
    assert_int_equal(number(report, 2, "units"), 2);
    assert_int_equal(number(report, 2, "new_units"), 1);
    assert_int_equal(number(report, 2, "new_items"), 2);
    assert_int_equal(number(report, 2, "new_item_rows"), 2);
    assert_int_equal(number(report, 1, "first_time"), 7000);
    assert_int_equal(number(report, 1, "last_time"), 8000);
    assert_int_equal(rows.rows, 10);
    assert_int_equal(rows.bad_total, 0);
    json_decref(report);
    /* Again into the same folder: it is a split, and is replaced. */
    report = split(&f, &rows);
    json_decref(report);
    end(&f);
}

static void test_by_unit(void **state) {
    (void)state;
    fixture f;
    ct_read_report rows;
    begin(&f);
    write_text(f.log, ten);
    f.options.by = CT_SPLIT_BY_UNIT_TIME;
    json_t *report = split(&f, &rows);
    /* a has times 1 3 5 7: places 0 25 50 75 -> train train train valid; b 2 4 5 8 10: 0 20 40 60 80 -> t t t valid test; c 9: train. */
    assert_part(&f, "train.tsv", "0\ta\ty\t1\n0\tb\tx\t2\n1\ta\tx\t3\n0\tb\tx\t4\n0\ta\tx\t5\n1\tb\ty\t5\n0\tc\tw\t9\n");
    assert_part(&f, "valid.tsv", "1\ta\ty\t7\n0\tb\tx\t8\n");
    assert_part(&f, "test.tsv", "1\tb\tz\t10\n");
    assert_int_equal(number(report, 2, "new_units"), 0);
    assert_true(has_warning(report, "test has clicks only"));
    assert_false(has_warning(report, "later than the first test row"));
    json_decref(report);
    /* b's last row is now earlier than c's and a's: their training rows are later than a test row. */
    write_text(f.log, "0\tb\tx\t1\n0\tb\tx\t2\n0\tb\tx\t3\n0\tb\tx\t4\n1\tb\tx\t5\n0\ta\tx\t6\n0\tc\tx\t7\n");
    report = split(&f, &rows);
    assert_true(has_warning(report, "2 training rows are later than the first test row"));
    json_decref(report);
    end(&f);
}

/* No validation, a header, commas, a carriage return, bad rows, repeated rows, new units. */
static void test_forms(void **state) {
    (void)state;
    fixture f;
    ct_read_report rows;
    begin(&f);
    load_schema(&f,
                "name: shop\n"
                "format: {separator: \",\", header: true}\n"
                "fields:\n"
                "  - {name: label, kind: label, column: click}\n"
                "  - {name: user, kind: unit, column: who}\n"
                "  - {name: item, kind: id, column: what}\n"
                "  - {name: when, kind: time, column: at, time_unit: milliseconds}\n");
    f.options.parts[0] = 50;
    f.options.parts[1] = 0;
    f.options.parts[2] = 50;
    write_text(f.log, "at,who,what,click\r\n1,a,x,0\r\n2,a,x,1\nlater,a,x,1\n3,b,y,2\n4,c,z,1\n4,c,z\n2,a,x,1\n");
    json_t *report = split(&f, &rows);
    assert_part(&f, "train.csv", "at,who,what,click\n1,a,x,0\n2,a,x,1\n");
    assert_part(&f, "test.csv", "at,who,what,click\n2,a,x,1\n4,c,z,1\n");
    assert_int_equal(json_array_size(json_object_get(report, "parts")), 2);
    assert_int_equal(number(report, 1, "repeated_rows"), 1);
    assert_true(has_warning(report, "1 of 2 test rows are also in training"));
    assert_false(has_warning(report, "of units that training lacks"));
    assert_int_equal(rows.bad_total, 3);
    assert_int_equal(rows.bad_rows[CT_BAD_TIME], 1);
    assert_int_equal(rows.bad_rows[CT_BAD_LABEL], 1);
    assert_int_equal(rows.bad_rows[CT_BAD_FIELD_COUNT], 1);
    assert_non_null(strstr(rows.first_bad[0], "log.tsv:4: "));
    assert_non_null(strstr(rows.first_bad[2], "3 columns instead of 4"));
    json_decref(report);
    end(&f);
}

/* A random log: every row is in exactly the part that a plain count of the unit's earlier rows says; unseen items have no training row and
 * all their others. */
static void test_random(void **state) {
    (void)state;
    fixture f;
    ct_read_report rows;
    static int user[MANY], item[MANY], when[MANY];
    begin(&f);
    FILE *log = fopen(f.log, "w");
    assert_non_null(log);
    for (int i = 0; i < MANY; i++) {
        const ct_random4 r = ct_random(7, CT_PLACE_TEST, 0, (uint64_t)i, 0);
        user[i] = (int)(r.word[0] % 40);
        item[i] = (int)(r.word[1] % 300);
        when[i] = (int)(r.word[2] % 1000);
        assert_true(fprintf(log, "%u\t%d\t%d\t%d\n", r.word[3] & 1, user[i], item[i], when[i]) > 0);
    }
    assert_int_equal(fclose(log), 0);
    f.options.by = CT_SPLIT_BY_UNIT_TIME;
    f.options.unseen_share = 0.2;
    json_t *report = split(&f, &rows);
    const json_t *unseen = json_object_get(report, "unseen");
    const long long items = json_integer_value(json_object_get(unseen, "items"));
    assert_in_range(items, 35, 85); /* of 300 at 0.2: 60, deviation 7 */
    /* Which part a row is in, found by looking for its line (lines may repeat: then by count). */
    static const char *const names[] = {"train.tsv", "valid.tsv", "test.tsv"};
    static char is_unseen[300];
    long long expected[3] = {0}, left_out = 0;
    char *texts[3];
    for (int p = 0; p < 3; p++) texts[p] = part_text(&f, names[p]);
    memset(is_unseen, 1, sizeof is_unseen);
    for (char *line = texts[0]; *line != '\0'; line = strchr(line, '\n') + 1) {
        int label, u, it, t;
        assert_int_equal(sscanf(line, "%d\t%d\t%d\t%d", &label, &u, &it, &t), 4);
        is_unseen[it] = 0;
    }
    static char in_test[300];
    for (int i = 0; i < MANY; i++) {
        int before = 0, all = 0;
        for (int j = 0; j < MANY; j++) {
            if (user[j] != user[i]) continue;
            all++;
            before += when[j] < when[i] || (when[j] == when[i] && j < i);
        }
        const int part = 100 * before < 60 * all ? 0 : 100 * before < 80 * all ? 1 : 2;
        if (part == 2) in_test[item[i]] = 1;
        if (part == 0 && is_unseen[item[i]])
            left_out++;
        else
            expected[part]++;
    }
    assert_int_equal(json_integer_value(json_object_get(unseen, "rows_left_out")), left_out);
    for (size_t p = 0; p < 3; p++) assert_int_equal(number(report, p, "rows"), expected[p]);
    long long new_items = 0;
    for (int i = 0; i < 300; i++) new_items += in_test[i] && is_unseen[i];
    assert_int_equal(number(report, 2, "new_items"), new_items);
    for (int p = 0; p < 3; p++) { /* each part is in order of time */
        int last = -1;
        for (char *line = texts[p]; *line != '\0'; line = strchr(line, '\n') + 1) {
            int label, u, it, t;
            assert_int_equal(sscanf(line, "%d\t%d\t%d\t%d", &label, &u, &it, &t), 4);
            assert_true(t >= last);
            last = t;
        }
        free(texts[p]);
    }
    json_decref(report);
    /* Another seed, other items. */
    f.options.seed = 2;
    report = split(&f, &rows);
    assert_int_not_equal(json_integer_value(json_object_get(json_object_get(report, "unseen"), "rows_left_out")), left_out);
    json_decref(report);
    end(&f);
}

/* New units in most of the test. */
static void test_new_units(void **state) {
    (void)state;
    fixture f;
    ct_read_report rows;
    begin(&f);
    write_text(f.log, "0\ta\tx\t1\n1\ta\tx\t2\n0\ta\tx\t3\n1\ta\tx\t4\n0\tb\tx\t5\n");
    json_t *report = split(&f, &rows);
    assert_true(has_warning(report, "100 % of the test rows are of units that training lacks"));
    json_decref(report);
    end(&f);
}

static void assert_refused(const fixture *f, ct_code expected, const char *words) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    ct_read_report rows;
    const ct_code code = ct_split(&f->options, &report, &rows, &status);
    printf("%s\n", status.message);
    assert_int_equal(code, expected);
    assert_null(report);
    assert_non_null(strstr(status.message, words));
}

static void test_refused(void **state) {
    (void)state;
    fixture f;
    begin(&f);
    write_text(f.log, ten);
    f.options.parts[2] = 30;
    assert_refused(&f, CT_INVALID, "60,20,30");
    f.options.parts[2] = 20;
    f.options.item = "user";
    assert_refused(&f, CT_INVALID, "'user'");
    f.options.item = NULL;
    f.options.unseen_share = 0.2;
    assert_refused(&f, CT_INVALID, "--item");
    f.options.unseen_share = 1.0;
    assert_refused(&f, CT_INVALID, "share of 1");
    f.options.unseen_share = 0;
    f.source = "-";
    assert_refused(&f, CT_INVALID, "standard input");
    f.source = "/nowhere.tsv";
    assert_refused(&f, CT_NOT_FOUND, "/nowhere.tsv");
    f.source = f.log;
    f.options.folder = f.folder;
    assert_refused(&f, CT_EXISTS, "split.json");
    f.options.folder = f.out;
    write_text(f.log, "CTBLOCK1\n");
    assert_refused(&f, CT_UNSUPPORTED, "block file");
    write_text(f.log, "0\ta\tx\tsoon\n0\ta\tx\t1\n");
    assert_refused(&f, CT_INVALID, "too few");
    f.options.max_bad_rows = 0;
    assert_refused(&f, CT_INVALID, "'soon'");
    write_text(f.log, "");
    assert_refused(&f, CT_INVALID, "no good row");
    load_schema(&f, "name: x\nformat: {columns: 2}\nfields: [{name: label, kind: label, column: 1}, {name: u, kind: id, column: 2}]\n");
    assert_refused(&f, CT_INVALID, "no time field");
    load_schema(&f, "name: x\nformat: {columns: 2}\nfields: [{name: t, kind: time, column: 1}, {name: u, kind: id, column: 2}]\n");
    f.options.by = CT_SPLIT_BY_UNIT_TIME;
    assert_refused(&f, CT_INVALID, "no unit field");
    assert_false(ct_path_exists(f.out));
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_time), cmocka_unit_test(test_by_unit),   cmocka_unit_test(test_forms),
        cmocka_unit_test(test_random),  cmocka_unit_test(test_new_units), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
