/* The reader: values against xxHash and by hand, the same batches from text, gzip and block files in any mixture and size, and what bad
 * input does. */
#include "data/reader.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>
#include <xxhash.h>

#include "data/block_file.h"
#include "tests/data/rows.h"

static char *folder;

static uint64_t xxh(const char *token, uint64_t seed) { return XXH3_64bits_withSeed(token, strlen(token), seed); }

static void test_values(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(every_kind);
    char *path = write_text(folder, "values.tsv",
                            "1\t-2147483648\tabc\t007\t,1,,2,3,04\t-0\tq\t1600000000\t0.5\n"
                            "0\t\t\t\t\t\t\t1600000000.1235\t1\r\n"
                            "0\t1e-3\tabc\t7\t,5,,\t0\tq\t-1\t0\n"
                            "1\t99999999999999999999\tx\t9223372036854775807\t8\t1\tr\t0\t3e38");
    rows r;
    const ct_reader_options options = options_of((const char *const[]){path}, 1, 10);
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 4);
    assert_int_equal(r.report.bad_total, 0);

    const float clicks[] = {1, 0, 0, 1}, prices[] = {-2147483648.0f, NAN, 1e-3f, 1e20f}, weights[] = {0.5f, 1, 0, 3e38f};
    assert_memory_equal(r.values[CLICK].data, clicks, sizeof clicks);
    for (int i = 0; i < 4; i++) {
        const float price = ((const float *)(const void *)r.values[PRICE].data)[i];
        assert_true(i == 1 ? isnan(price) : price == prices[i]);
    }
    assert_memory_equal(r.values[WEIGHT].data, weights, sizeof weights);
    const int64_t times[] = {1600000000000, 1600000000124, -1000, 0};
    assert_memory_equal(r.values[WHEN].data, times, sizeof times);
    assert_int_equal(r.report.unsorted_times, 1); /* -1 after 1600000000; 0 after -1 is in order */

    const uint64_t token = xxh("token", 0), item = xxh("item", 0), recent = xxh("recent", 0);
    const uint64_t tokens[] = {xxh("abc", token), xxh("", token), xxh("abc", token), xxh("x", token)};
    assert_memory_equal(r.values[TOKEN].data, tokens, sizeof tokens);
    const uint64_t items[] = {xxh("7", item), xxh("", item), xxh("7", item), xxh("9223372036854775807", item)};
    assert_memory_equal(r.values[ITEM].data, items, sizeof items);
    const uint64_t item_vectors[] = {xxh("7", 0), xxh("", 0), xxh("7", 0), xxh("9223372036854775807", 0)};
    assert_memory_equal(r.values[ITEM_VECTOR].data, item_vectors, sizeof item_vectors);
    /* The newest three stand last; no text is no value; empty values are skipped. */
    const uint32_t like_counts[] = {3, 0, 1, 1};
    const uint64_t likes[] = {xxh("2", item), xxh("3", item), xxh("4", item), xxh("5", item), xxh("8", item)};
    const uint64_t like_vectors[] = {xxh("2", 0), xxh("3", 0), xxh("4", 0), xxh("5", 0), xxh("8", 0)};
    assert_int_equal(r.values[LIKES].size, sizeof likes);
    assert_memory_equal(r.values[LIKES].data, likes, sizeof likes);
    assert_memory_equal(r.counts[LIKES].data, like_counts, sizeof like_counts);
    assert_int_equal(r.values[LIKES_VECTOR].size, sizeof like_vectors);
    assert_memory_equal(r.values[LIKES_VECTOR].data, like_vectors, sizeof like_vectors);
    assert_memory_equal(r.counts[LIKES_VECTOR].data, like_counts, sizeof like_counts);
    const uint32_t recent_counts[] = {2, 0, 1, 1};
    const uint64_t recents[] = {xxh("1", recent), xxh("2", recent), xxh("5", recent), xxh("8", recent)};
    assert_int_equal(r.values[RECENT].size, sizeof recents);
    assert_memory_equal(r.values[RECENT].data, recents, sizeof recents);
    assert_memory_equal(r.counts[RECENT].data, recent_counts, sizeof recent_counts);
    const uint64_t users[] = {xxh("0", 0), xxh("", 0), xxh("0", 0), xxh("1", 0)},
                   pages[] = {xxh("q", 0), xxh("", 0), xxh("q", 0), xxh("r", 0)};
    assert_memory_equal(r.values[USER].data, users, sizeof users);
    assert_memory_equal(r.values[PAGE].data, pages, sizeof pages);
    rows_free(&r);
    free(path);
    ct_schema_destroy(schema);
}

/* Only a time before that of the row ahead is unsorted; a bad row between does not count, and sources follow each other. */
static void test_times(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema =
        schema_of("name: t\nformat: {columns: 1}\nfields:\n  - {name: t, kind: time, column: 1, time_unit: milliseconds}\n");
    char *a = write_text(folder, "a", "5\n5\nx\n6\n4\n4\n"), *b = write_text(folder, "b", "3\n9\n9\n");
    for (size_t batch_rows = 1; batch_rows < 10; batch_rows++) {
        rows r;
        const ct_reader_options options = options_of((const char *const[]){a, b}, 2, batch_rows);
        assert_ok(rows_read(schema, &options, &r, &status), &status);
        assert_int_equal(r.report.unsorted_times, 2);
        rows_free(&r);
    }
    free(a);
    free(b);
    ct_schema_destroy(schema);
}

/* Parts of one log as text, gzip and blocks of several sizes: any mixture at any batch size gives the rows of the whole. */
static void test_same_batches(void **state) {
    (void)state;
    enum { PARTS = 3 };
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(every_kind);
    text whole = {0};
    char *forms[PARTS][4];
    uint64_t seed = 5;
    for (int p = 0; p < PARTS; p++) {
        const size_t begin = whole.size;
        char name[32];
        size_t zipped;
        for (int i = 0; i < 1500 + 333 * p; i++) add_row(&whole, &seed, i % 3 ? "\n" : "\r\n");
        (void)snprintf(name, sizeof name, "part%d", p);
        forms[p][0] = write_bytes(folder, name, whole.bytes + begin, whole.size - begin - (p == 1)); /* one without its last newline */
        unsigned char *gzip = gzip_bytes(whole.bytes + begin, whole.size - begin, 6, &zipped);
        (void)snprintf(name, sizeof name, "part%d.gz", p);
        forms[p][1] = write_bytes(folder, name, gzip, zipped);
        free(gzip);
        (void)snprintf(name, sizeof name, "part%d.ctb", p);
        forms[p][2] = convert_file(folder, schema, forms[p][0], name, 100);
        (void)snprintf(name, sizeof name, "large%d.ctb", p);
        forms[p][3] = convert_file(folder, schema, forms[p][1], name, 5000);
    }
    char *all = write_bytes(folder, "whole", whole.bytes, whole.size);
    rows expected;
    ct_reader_options options = options_of((const char *const[]){all}, 1, 8192);
    assert_ok(rows_read(schema, &options, &expected, &status), &status);
    assert_int_equal(expected.rows, 1500 + 1833 + 2166);
    assert_true(expected.report.unsorted_times > 1000);
    static const size_t batch_rows[] = {1, 2, 7, 64, 255, 1000, 1500, 5499, 100000};
    for (size_t b = 0; b < sizeof batch_rows / sizeof batch_rows[0]; b++) {
        for (size_t mixture = 0; mixture < 12; mixture++) {
            rows got;
            const char *paths[PARTS];
            for (size_t p = 0; p < PARTS; p++) paths[p] = forms[p][mixture < 4 ? mixture : (mixture * (p + 1) + p) % 4];
            options = options_of(paths, PARTS, batch_rows[b]);
            options.lookahead = 2 + mixture % 3;
            options.threads = (mixture + b) % 4; /* 0: as many as is usual */
            options.chunk_bytes = (const size_t[]){0, 1000, 60, 30000, 1}[(mixture + b) % 5];
            assert_ok(rows_read(schema, &options, &got, &status), &status);
            assert_same_rows(&expected, &got);
            assert_int_equal(got.report.unsorted_times, expected.report.unsorted_times);
            rows_free(&got);
        }
    }
    rows_free(&expected);
    for (int p = 0; p < PARTS; p++) {
        for (int k = 0; k < 4; k++) free(forms[p][k]);
    }
    free(all);
    free(whole.bytes);
    ct_schema_destroy(schema);
}

/* One line of each fault among good ones: counted by kind, shown with file, line and reason, and nothing of it in the rows. */
static void test_bad_rows(void **state) {
    (void)state;
    static const struct {
        const char *line;
        ct_bad_row_kind kind;
        const char *part;
    } faults[] = {
        {"1\t1\ta\t1\t1\t1\ta\t1", CT_BAD_FIELD_COUNT, "8 columns instead of 9"},
        {"1\t1\ta\t1\t1\t1\ta\t1\t1\t1", CT_BAD_FIELD_COUNT, "10 columns instead of 9"},
        {"x", CT_BAD_FIELD_COUNT, "1 columns"},
        {"2\t1\ta\t1\t1\t1\ta\t1\t1", CT_BAD_LABEL, "'click': '2'"},
        {"\t1\ta\t1\t1\t1\ta\t1\t1", CT_BAD_LABEL, "empty"},
        {"1\t1x\ta\t1\t1\t1\ta\t1\t1", CT_BAD_NUMBER, "'price': '1x'"},
        {"1\t1e99\ta\t1\t1\t1\ta\t1\t1", CT_BAD_NUMBER, "'price': '1e99'"},
        {"1\t1\ta\t1.5\t1\t1\ta\t1\t1", CT_BAD_ID, "'item': '1.5'"},
        {"1\t1\ta\t1\t1,b,2\t1\ta\t1\t1", CT_BAD_ID, "'likes': 'b'"},
        {"1\t1\ta\t1\t1\tme\ta\t1\t1", CT_BAD_ID, "'user': 'me'"},
        {"1\t1\ta\t1\t1\t1\ta\tnoon\t1", CT_BAD_TIME, "'when': 'noon'"},
        {"1\t1\ta\t1\t1\t1\ta\t\t1", CT_BAD_TIME, "'when'"},
        {"1\t1\ta\t1\t1\t1\ta\t9223372036854775807\t1", CT_BAD_TIME, "range"},
        {"1\t1\ta\t1\t1\t1\ta\t1\t-1", CT_BAD_WEIGHT, "'weight': '-1'"},
        {"1\t1\ta\t1\t1\t1\ta\t1\t", CT_BAD_WEIGHT, "'weight'"},
    };
    ct_schema *schema = schema_of(every_kind);
    ct_status status = CT_STATUS_INIT;
    text good = {0}, mixed = {0};
    uint64_t seed = 9;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        const size_t begin = good.size;
        rows r;
        add_row(&good, &seed, "\n");
        text_add(&mixed, "%s%s\n\n", good.bytes + begin, faults[i].line);
        text one = {0};
        text_add(&one, "%s\n", faults[i].line);
        char *path = write_bytes(folder, "one", one.bytes, one.size);
        const ct_reader_options options = options_of((const char *const[]){path}, 1, 4);
        assert_ok(rows_read(schema, &options, &r, &status), &status);
        assert_int_equal(r.rows, 0);
        assert_int_equal(r.report.bad_total, 1);
        if (r.report.bad_rows[faults[i].kind] != 1) print_error("%s: %s\n", faults[i].line, r.report.first_bad[0]);
        assert_int_equal(r.report.bad_rows[faults[i].kind], 1);
        assert_int_equal(r.report.shown, 1);
        assert_contains(r.report.first_bad[0], "one:1: ");
        assert_contains(r.report.first_bad[0], faults[i].part);
        rows_free(&r);
        free(one.bytes);
        free(path);
    }
    char *good_path = write_bytes(folder, "good", good.bytes, good.size),
         *mixed_path = write_bytes(folder, "mixed", mixed.bytes, mixed.size);
    for (size_t batch = 1; batch < 20; batch++) {
        rows a, b;
        ct_reader_options options = options_of((const char *const[]){good_path}, 1, batch);
        assert_ok(rows_read(schema, &options, &a, &status), &status);
        options = options_of((const char *const[]){mixed_path}, 1, batch);
        assert_ok(rows_read(schema, &options, &b, &status), &status);
        assert_same_rows(&a, &b);
        assert_int_equal(b.report.bad_total, sizeof faults / sizeof faults[0]);
        assert_int_equal(b.report.blank_lines, sizeof faults / sizeof faults[0]);
        assert_int_equal(b.report.shown, CT_BAD_ROWS_SHOWN);
        assert_contains(b.report.first_bad[4], "mixed:14: ");
        rows_free(&a);
        rows_free(&b);
    }
    for (int kind = 0; kind < CT_BAD_KINDS; kind++) assert_true(strlen(ct_bad_row_kind_name((ct_bad_row_kind)kind)) > 1);
    free(good_path);
    free(mixed_path);
    free(good.bytes);
    free(mixed.bytes);
    ct_schema_destroy(schema);
}

/* NUL bytes and a line of more than 1 MiB, in the built-in schema. */
static void test_nul_and_too_long(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL;
    bytes file = {0};
    char row[256] = "1";
    rows r;
    assert_ok(ct_schema_load("criteo", &schema, &status), &status);
    for (int i = 0; i < 39; i++) strcat(row, i < 13 ? "\t-2147483648" : "\ta");
    const size_t length = strlen(row);
    for (size_t at = 0; at < length; at += 17) { /* a NUL at many places */
        bytes_add(&file, row, at);
        bytes_add(&file, "", 1);
        bytes_add(&file, row + at + 1, length - at - 1);
        bytes_add(&file, "\n", 1);
    }
    bytes_add(&file, row, length);
    bytes_add(&file, "\n", 1);
    bytes_add(&file, row, length);
    for (int i = 0; i < CT_LINE_MAX_BYTES / 16; i++) bytes_add(&file, "0123456789abcdef", 16);
    bytes_add(&file, "\n", 1);
    bytes_add(&file, row, length);
    char *path = write_bytes(folder, "nul.tsv", file.data, file.size);
    static const size_t chunks[] = {0, 1, 1000, CT_LINE_MAX_BYTES, 3 * CT_LINE_MAX_BYTES};
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        ct_reader_options options = options_of((const char *const[]){path}, 1, 2);
        options.chunk_bytes = chunks[i];
        assert_ok(rows_read(schema, &options, &r, &status), &status);
        assert_int_equal(r.rows, 2);
        assert_int_equal(r.report.bad_rows[CT_BAD_NUL_BYTE], (length + 16) / 17);
        assert_int_equal(r.report.bad_rows[CT_BAD_TOO_LONG], 1);
        assert_int_equal(r.report.bad_total, (length + 16) / 17 + 1);
        assert_true(((const float *)(const void *)r.values[1].data)[1] == -2147483648.0f);
        rows_free(&r);
    }
    free(path);
    free(file.data);
    ct_schema_destroy(schema);
}

static void test_limits(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    static const struct {
        int bad_first, good, bad_last; /* lines */
        int64_t max_bad;
        double share;
        bool fails;
    } cases[] = {
        {3, 10, 0, -1, 1.0, false},    {3, 10, 0, 3, 1.0, false},     {3, 10, 0, 2, 1.0, true},        {0, 10, 1, 0, 1.0, true},
        {0, 10, 0, 0, 0.0, false},     {5, 5, 0, -1, 0.5, false},     {5, 4, 0, -1, 0.5, true},        {0, 1, 1, -1, 0.0, true},
        {10, 0, 0, -1, 1.0, false},    {60, 5000, 0, -1, 0.05, true}, {50, 5000, 0, -1, 0.05, false},  {500, 9500, 0, -1, 0.05, true},
        {0, 950, 50, -1, 0.05, false}, {0, 950, 51, -1, 0.05, true},  {0, 9500, 500, -1, 0.05, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        text t = {0};
        for (int k = 0; k < cases[i].bad_first; k++) text_add(&t, "bad\n");
        for (int k = 0; k < cases[i].good; k++) text_add(&t, "%d\n", k);
        for (int k = 0; k < cases[i].bad_last; k++) text_add(&t, "bad\n");
        char *path = write_bytes(folder, "limits", t.bytes, t.size);
        static const size_t batch_rows[] = {1, 3, 1000, 100000};
        for (size_t b = 0; b < 4; b++) {
            ct_status status = CT_STATUS_INIT;
            rows r;
            ct_reader_options options = options_of((const char *const[]){path}, 1, batch_rows[b]);
            options.max_bad_rows = cases[i].max_bad;
            options.max_bad_share = cases[i].share;
            const ct_code code = rows_read(schema, &options, &r, &status);
            if (code != (cases[i].fails ? CT_INVALID : CT_OK)) print_error("case %zu\n", i);
            assert_code(cases[i].fails ? CT_INVALID : CT_OK, code, &status);
            if (cases[i].fails) {
                assert_contains(status.message, "bad rows");
                assert_contains(status.message, "limits:");
            } else {
                assert_int_equal(r.rows, cases[i].good);
                assert_int_equal(r.report.bad_total, cases[i].bad_first + cases[i].bad_last);
            }
            rows_free(&r);
        }
        free(path);
        free(t.bytes);
    }
    ct_schema_destroy(schema);
}

static void test_max_rows(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    ct_status status = CT_STATUS_INIT;
    char *path = write_text(folder, "max", "1\n2\nbad\n3\n4\n5\nbad\n");
    char *blocks = convert_file(folder, schema, path, "max.ctb", 3);
    for (int kind = 0; kind < 2; kind++) {
        for (int64_t max = 0; max < 12; max++) {
            rows r;
            ct_reader_options options = options_of(kind ? (const char *const[]){blocks, path} : (const char *const[]){path, blocks}, 2, 2);
            options.max_rows = max;
            assert_ok(rows_read(schema, &options, &r, &status), &status);
            assert_int_equal(r.rows, max < 10 ? max : 10);
            if (!kind) assert_int_equal(r.report.bad_total, (max > 2) + (max > 5));
            for (int64_t k = 0; k < (int64_t)r.rows; k++)
                assert_true(((const float *)(const void *)r.values[0].data)[k] == (float)(k % 5 + 1));
            rows_free(&r);
        }
    }
    free(path);
    free(blocks);
    ct_schema_destroy(schema);
}

/* Numbers of every length and look, by the batch's own value against strtof; the fast way must round as the careful one. */
static void test_numbers(void **state) {
    (void)state;
    static const char *const more[] = {"0",         "-0",        "+5",         "007",        "16777217",  "99999999",
                                       "-99999999", "100000000", "00000001",   "12345678",   "123456789", "-123456789",
                                       "1.5",       "-1e3",      "1e-3",       "2147483648", "33554435",  "33554437",
                                       "3.4e38",    "0.1",       "1234567.25", "-16777219",  "1E5",       ".5"};
    static const char *const wrong[] = {"-",  "+",    ".",   "1-",  "--1",      "1 ",       " 1",  "1,0",
                                        "1e", "0x10", "nan", "inf", "12345:78", "1234567/", "1e39"};
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of("name: n\nformat: {columns: 2}\nfields:\n  - {name: x, kind: number, column: 2}\n");
    text t = {0};
    bytes expected = {0};
    uint64_t seed = 3;
    for (uint32_t i = 0; i < 20000; i++) {
        char number[32];
        const uint32_t digits = draw(&seed, 11);
        size_t length = 0;
        if (i < sizeof more / sizeof more[0]) {
            (void)snprintf(number, sizeof number, "%s", more[i]);
        } else {
            if (digits && draw(&seed, 3) == 0) number[length++] = '-';
            for (uint32_t d = 0; d < digits; d++) number[length++] = (char)('0' + draw(&seed, 10));
            number[length] = '\0';
        }
        text_add(&t, "%u\t%s%s", i, number, draw(&seed, 2) ? "\n" : "\r\n");
        const float value = number[0] ? strtof(number, NULL) : NAN;
        bytes_add(&expected, &value, sizeof value);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) text_add(&t, "x\t%s\n", wrong[i]);
    char *path = write_bytes(folder, "numbers", t.bytes, t.size);
    rows r;
    const ct_reader_options options = options_of((const char *const[]){path}, 1, 777);
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 20000);
    assert_int_equal(r.report.bad_rows[CT_BAD_NUMBER], sizeof wrong / sizeof wrong[0]);
    for (size_t i = 0; i < 20000; i++) {
        float got, want;
        memcpy(&got, r.values[0].data + 4 * i, 4);
        memcpy(&want, expected.data + 4 * i, 4);
        assert_true(isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want));
    }
    rows_free(&r);
    free(path);
    free(t.bytes);
    free(expected.data);
    ct_schema_destroy(schema);
}

static void test_header(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(
        "name: h\nformat: {separator: \",\", header: true}\nfields:\n  - {name: y, kind: label, column: click}\n"
        "  - {name: x, kind: number, column: price}\n  - {name: first, kind: id, column: 1}\n");
    char *a = write_text(folder, "a.csv", "id,click,price\nu,1,10\nv,0,20\n");
    char *b = write_text(folder, "b.csv", "price,more,and more,click\r\n30,,,1\r\n40,z,,0\r\n1,2,3\r\n");
    char *empty = write_text(folder, "empty.csv", "");
    char *only = write_text(folder, "only.csv", "click,price");
    const char *paths[] = {a, empty, b, only};
    rows r;
    ct_reader_options options = options_of(paths, 4, 3);
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 4);
    assert_int_equal(r.report.bad_rows[CT_BAD_FIELD_COUNT], 1);
    assert_contains(r.report.first_bad[0], "b.csv:4: 3 columns instead of 4");
    const float prices[] = {10, 20, 30, 40}, clicks[] = {1, 0, 1, 0};
    const uint64_t salt = xxh("first", 0), firsts[] = {xxh("u", salt), xxh("v", salt), xxh("30", salt), xxh("40", salt)};
    assert_memory_equal(r.values[0].data, clicks, sizeof clicks);
    assert_memory_equal(r.values[1].data, prices, sizeof prices);
    assert_memory_equal(r.values[2].data, firsts, sizeof firsts);
    rows_free(&r);
    static const struct {
        const char *text, *part;
    } wrong[] = {{"id,click,prices\n1,1,1\n", "no column 'price'"},
                 {"\nid,click,price\n", "no column 'click'"},
                 {"click,price,price\n1,1,1\n", "two columns 'price'"},
                 {"1,10\n0,20\n", "no column 'click'"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char *path = write_text(folder, "wrong.csv", wrong[i].text);
        options = options_of((const char *const[]){path}, 1, 3);
        assert_code(CT_INVALID, rows_read(schema, &options, &r, &status), &status);
        assert_contains(status.message, "wrong.csv:1: ");
        assert_contains(status.message, wrong[i].part);
        rows_free(&r);
        free(path);
    }
    ct_schema_destroy(schema);
    schema =
        schema_of("name: h\nformat: {separator: \",\", header: true, columns: 3}\nfields:\n  - {name: x, kind: number, column: price}\n");
    options = options_of((const char *const[]){only}, 1, 3);
    assert_code(CT_INVALID, rows_read(schema, &options, &r, &status), &status);
    assert_contains(status.message, "2 columns instead of the schema's 3");
    rows_free(&r);
    ct_schema_destroy(schema);
    free(a);
    free(b);
    free(empty);
    free(only);
}

static void test_line_split(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    for (size_t columns = 1; columns < 200; columns += 7) {
        char yaml[256];
        const char *begin[200];
        size_t sizes[200];
        text t = {0};
        uint64_t seed = columns;
        (void)snprintf(yaml, sizeof yaml, "name: n\nformat: {columns: %zu}\nfields:\n  - {name: x, kind: number, column: 1}\n", columns);
        ct_schema *schema = schema_of(yaml);
        uint32_t lengths[200];
        for (size_t c = 0; c < columns; c++) {
            lengths[c] = draw(&seed, 90);
            for (uint32_t k = 0; k < lengths[c]; k++) text_add(&t, "%c", 'a' + (char)(c % 26));
            if (c + 1 < columns) text_add(&t, "\t");
        }
        /* Exactly as many bytes as there are, so that the sanitizers see a read beyond them. */
        char *line = malloc(t.size ? t.size : 1);
        assert_non_null(line);
        if (t.size) memcpy(line, t.bytes, t.size);
        assert_ok(ct_line_split(schema, line, t.size, begin, sizes, &status), &status);
        for (size_t c = 0, at = 0; c < columns; at += lengths[c] + 1, c++) {
            assert_ptr_equal(begin[c], line + at);
            assert_int_equal(sizes[c], lengths[c]);
        }
        if (columns > 1) {
            char *tab = memchr(line, '\t', t.size);
            *tab = ' ';
            assert_code(CT_INVALID, ct_line_split(schema, line, t.size, begin, sizes, &status), &status);
            *tab = '\0';
            assert_code(CT_INVALID, ct_line_split(schema, line, t.size, begin, sizes, &status), &status);
            assert_contains(status.message, "NUL");
        }
        free(line);
        free(t.bytes);
        ct_schema_destroy(schema);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),           cmocka_unit_test(test_times),
        cmocka_unit_test(test_same_batches),     cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_nul_and_too_long), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_max_rows),         cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_header),           cmocka_unit_test(test_line_split),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
