/* The shuffle window: every row once and whole, inside its window, in an order that seed, epoch and row numbers alone decide. */
#include "data/shuffle.h"

#include <math.h>

#include "tests/data/rows.h"

static char *folder;

enum { LOG_ROWS = 5000 };

/* Row n holds n, n % 2, and as ids n .. n + n % 4. */
static const char numbered[] =
    "name: c\nformat: {columns: 3}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: x, kind: number, column: 2}\n"
    "  - {name: ids, kind: id, column: 3, type: integer, separator: \",\", max: 4}\n  - {name: one, kind: id, column: 2, type: integer}\n";

static char *write_numbered(const char *name, int rows) {
    text t = {0};
    for (int n = 0; n < rows; n++) {
        text_add(&t, "%d\t%d\t", n & 1, n);
        for (int i = n; i <= n + n % 4; i++) text_add(&t, "%s%d", i > n ? "," : "", i);
        text_add(&t, "\n");
    }
    char *path = write_bytes(folder, name, t.bytes, t.size);
    free(t.bytes);
    return path;
}

typedef struct shuffled {
    int number[LOG_ROWS];
    bool tail[LOG_ROWS];
    int rows;
} shuffled;

static uint64_t key_of(const ct_field *field, int64_t number) {
    char token[24];
    uint64_t key = 0;
    ct_status status = CT_STATUS_INIT;
    const int bytes = snprintf(token, sizeof token, "%lld", (long long)number);
    assert_ok(ct_field_key(field, token, (size_t)bytes, &key, &status), &status);
    return key;
}

/* The numbers of the rows as they come; each row's other columns must be its own. */
static shuffled read_shuffled(const ct_schema *schema, const ct_reader_options *options) {
    shuffled out = {.rows = 0};
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader = NULL;
    ct_batch *batch;
    ct_code code;
    ct_read_report report;
    assert_ok(ct_reader_open(schema, options, &reader, &status), &status);
    while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        assert_int_equal(batch->first_row, out.rows);
        const ct_column *ids = &batch->columns[2];
        for (size_t r = 0; r < batch->rows; r++) {
            const int n = (int)ct_column_f32(&batch->columns[1])[r];
            assert_true(ct_column_f32(&batch->columns[0])[r] == (float)(n & 1));
            assert_int_equal(ct_column_u64(&batch->columns[3])[r], key_of(&schema->fields[3], n));
            assert_int_equal(ids->offsets[r + 1] - ids->offsets[r], n % 4 + 1);
            for (int i = 0; i <= n % 4; i++) {
                assert_int_equal(ct_column_u64(ids)[ids->offsets[r] + (uint32_t)i], key_of(&schema->fields[2], n + i));
            }
            out.tail[out.rows] = batch->tail;
            out.number[out.rows++] = n;
        }
        ct_reader_report(reader, &report);
        assert_int_equal(report.rows, out.rows);
        ct_reader_release(reader, batch);
    }
    assert_code(CT_END, code, &status);
    ct_reader_close(reader);
    return out;
}

static void assert_windows(const shuffled *s, int rows, int window) {
    bool seen[LOG_ROWS] = {false};
    assert_int_equal(s->rows, rows);
    for (int i = 0; i < rows; i++) {
        assert_int_equal(s->number[i] / window, i / window);
        assert_false(seen[s->number[i]]);
        seen[s->number[i]] = true;
        assert_int_equal(s->tail[i], i / window * window + window > rows);
    }
}

static ct_reader_options shuffle_of(const char *const *paths, size_t window, uint64_t seed, uint32_t epoch) {
    ct_reader_options options = options_of(paths, 1, 100);
    options.shuffle_rows = window;
    options.shuffle_seed = seed;
    options.shuffle_epoch = epoch;
    return options;
}

static void test_windows(void **state) {
    (void)state;
    ct_schema *schema = schema_of(numbered);
    char *path = write_numbered("log", 4350);
    const char *const paths[] = {path};
    static const struct {
        size_t asked;
        int window;
    } cases[] = {{1, 100}, {100, 100}, {101, 200}, {1000, 1000}, {4350, 4400}, {1 << 20, 1048600}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const ct_reader_options options = shuffle_of(paths, cases[i].asked, 7, 0);
        const shuffled s = read_shuffled(schema, &options);
        assert_windows(&s, 4350, cases[i].window);
    }
    free(path);
    ct_schema_destroy(schema);
}

static bool same_order(const shuffled *a, const shuffled *b, int rows) {
    return memcmp(a->number, b->number, (size_t)rows * sizeof(int)) == 0;
}

/* The same for threads and pieces of any size; another one for another seed and epoch; full windows stay when the log grows. */
static void test_function(void **state) {
    (void)state;
    ct_schema *schema = schema_of(numbered);
    char *path = write_numbered("log", 2550), *longer = write_numbered("longer", 3000);
    const char *const paths[] = {path}, *const longer_paths[] = {longer};
    ct_reader_options options = shuffle_of(paths, 1000, 7, 0);
    const shuffled first = read_shuffled(schema, &options);
    for (size_t i = 0; i < 6; i++) {
        options.threads = (const size_t[]){1, 2, 3, 8, 1, 2}[i];
        options.chunk_bytes = (const size_t[]){0, 1, 100, 4096, 33, 0}[i];
        options.lookahead = (const size_t[]){0, 2, 3, 9, 2, 5}[i];
        const shuffled again = read_shuffled(schema, &options);
        assert_true(same_order(&first, &again, 2550));
    }
    options = shuffle_of(longer_paths, 1000, 7, 0);
    const shuffled grown = read_shuffled(schema, &options);
    assert_true(same_order(&first, &grown, 2000));
    assert_windows(&grown, 3000, 1000);
    options = shuffle_of(paths, 1000, 8, 0);
    const shuffled seed = read_shuffled(schema, &options);
    options = shuffle_of(paths, 1000, 7, 1);
    const shuffled epoch = read_shuffled(schema, &options);
    assert_false(same_order(&first, &seed, 1000) || same_order(&first, &epoch, 1000) || same_order(&seed, &epoch, 1000));
    /* Two windows of one run are in two orders. */
    bool differ = false;
    for (int i = 0; i < 1000; i++) differ = differ || first.number[i] + 1000 != first.number[1000 + i];
    assert_true(differ);
    free(path);
    free(longer);
    ct_schema_destroy(schema);
}

/* Each order of four rows comes as often as any other: chi squared over 24,000 windows, 23 degrees of freedom. */
static void test_uniform(void **state) {
    (void)state;
    enum { WINDOWS = 24000 };
    int counts[256] = {0}, orders = 0;
    double chi_squared = 0;
    for (uint64_t w = 0; w < WINDOWS; w++) {
        uint32_t rows[4];
        ct_shuffle_order(11, 0, 4 * w, rows, 4);
        counts[rows[0] | rows[1] << 2 | rows[2] << 4 | rows[3] << 6]++;
    }
    for (int i = 0; i < 256; i++) {
        if (!counts[i]) continue;
        orders++;
        chi_squared += (counts[i] - WINDOWS / 24.0) * (counts[i] - WINDOWS / 24.0) / (WINDOWS / 24.0);
    }
    assert_int_equal(orders, 24);
    assert_true(chi_squared < 49.7); /* its 0.999 quantile */
    uint32_t none[1] = {7};
    ct_shuffle_order(1, 0, 0, none, 0);
    assert_int_equal(none[0], 7);
    ct_shuffle_order(1, 0, 0, none, 1);
    assert_int_equal(none[0], 0);
}

/* Bad rows are counted, limits and stops hold; a failure comes behind the whole windows before it. */
static void test_failures(void **state) {
    (void)state;
    ct_schema *schema = schema_of(numbered);
    ct_status status = CT_STATUS_INIT;
    rows r;
    char *path = write_numbered("good", 2550), *bad = write_text(folder, "bad", "1\t2\n1\t7\t7\n2\t3\t4\n");
    ct_reader_options options = shuffle_of((const char *const[]){path, bad}, 1000, 7, 0);
    options.source_count = 2;
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 2551);
    assert_int_equal(r.report.bad_total, 2);
    rows_free(&r);
    options.max_bad_rows = 1;
    assert_code(CT_INVALID, rows_read(schema, &options, &r, &status), &status);
    assert_contains(status.message, ":1: 2 columns instead of 3");
    assert_int_equal(r.rows, 2000);
    rows_free(&r);
    options.max_bad_rows = -1;
    options.max_rows = 1234;
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 1234);
    rows_free(&r);
    const atomic_bool now = true;
    options.stop = &now;
    assert_code(CT_CANCELLED, rows_read(schema, &options, &r, &status), &status);
    rows_free(&r);
    options = shuffle_of((const char *const[]){path}, SIZE_MAX, 7, 0);
    assert_code(CT_INVALID, rows_read(schema, &options, &r, &status), &status);
    assert_contains(status.message, "a shuffle window of");
    char *empty = write_text(folder, "empty", "");
    options = shuffle_of((const char *const[]){empty}, 10, 7, 0);
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 0);
    rows_free(&r);
    free(empty);
    free(path);
    free(bad);
    ct_schema_destroy(schema);
}

/* As many batches may be held at once as without a window, and released in any order. */
static void test_held(void **state) {
    (void)state;
    ct_schema *schema = schema_of(numbered);
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader = NULL;
    ct_batch *held[3], *more;
    char *path = write_numbered("held", 1000);
    ct_reader_options options = shuffle_of((const char *const[]){path}, 300, 7, 0);
    options.lookahead = 4;
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    for (int i = 0; i < 3; i++) assert_ok(ct_reader_next(reader, &held[i], &status), &status);
    assert_code(CT_INTERNAL, ct_reader_next(reader, &more, &status), &status);
    for (int i = 0; i < 3; i++) assert_int_equal(held[i]->first_row, 100 * i);
    ct_reader_release(reader, held[1]);
    assert_ok(ct_reader_next(reader, &more, &status), &status);
    assert_ptr_equal(more, held[1]);
    assert_int_equal(more->first_row, 300);
    ct_reader_close(reader);
    free(path);
    ct_schema_destroy(schema);
}

/* Histories are those of the log's order, whatever order the rows come in: of row n, whose unit is n % 5, the items n - 15, n - 10, n - 5.
 */
static void test_histories(void **state) {
    (void)state;
    enum { ROWS = 700, UNITS = 5, MOST = 3 };
    ct_schema *schema = schema_of(
        "name: h\nformat: {columns: 3}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: who, kind: unit, column: 2}\n"
        "  - {name: item, kind: id, column: 3, type: integer}\n  - {name: had, kind: history, of: item, max: 3}\n"
        "  - {name: x, kind: number, column: 3}\n");
    text t = {0};
    for (int n = 0; n < ROWS; n++) text_add(&t, "%d\tu%d\t%d\n", n & 1, n % UNITS, n);
    char *path = write_bytes(folder, "history.tsv", t.bytes, t.size);
    static const size_t windows[] = {0, 100, 256, 5000}, batch_rows[] = {50, 64};
    for (size_t i = 0; i < 8; i++) {
        ct_status status = CT_STATUS_INIT;
        ct_histories *histories = NULL;
        ct_reader *reader = NULL;
        ct_batch *batch = NULL;
        ct_reader_options options = shuffle_of((const char *const *)&path, windows[i % 4], 3, 1);
        options.batch_rows = batch_rows[i / 4];
        options.live = true;
        assert_ok(ct_histories_create(schema, &histories, &status), &status);
        options.histories = histories;
        assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
        int rows = 0, moved = 0;
        ct_code code;
        while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
            const ct_column *had = &batch->columns[3];
            assert_true(had->present);
            for (size_t r = 0; r < batch->rows; r++, rows++) {
                const int n = (int)ct_column_f32(&batch->columns[4])[r], count = n / UNITS < MOST ? n / UNITS : MOST;
                moved += n != rows;
                assert_int_equal(had->offsets[r + 1] - had->offsets[r], count);
                for (int k = 0; k < count; k++)
                    assert_int_equal(ct_column_u64(had)[had->offsets[r] + (size_t)k], key_of(&schema->fields[2], n - (count - k) * UNITS));
            }
            ct_reader_release(reader, batch);
        }
        assert_code(CT_END, code, &status);
        assert_int_equal(rows, ROWS);
        assert_true(windows[i % 4] ? moved > ROWS / 2 : moved == 0);
        ct_reader_close(reader);
        ct_histories_destroy(histories);
    }
    free(path);
    free(t.bytes);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),  cmocka_unit_test(test_function), cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_failures), cmocka_unit_test(test_held),     cmocka_unit_test(test_histories),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
