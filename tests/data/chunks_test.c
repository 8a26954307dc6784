/* The reader's threads: whatever their number and the size of what each parses at once, rows and counts are those of the log. */
#include <xxhash.h>

#include "tests/data/rows.h"

static char *folder;

static uint64_t xxh(const char *token, uint64_t seed) { return XXH3_64bits_withSeed(token, strlen(token), seed); }

/* What is known of a log that was made line by line. */
typedef struct truth {
    bytes bad, blank; /* int64, at each good row: how many came before it */
    int64_t bad_total, blank_total, lines, rows;
    char first[CT_BAD_ROWS_SHOWN][32];
} truth;

static const char chunky[] =
    "name: c\nformat: {columns: 3}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: x, kind: number, column: 2}\n"
    "  - {name: ids, kind: id, column: 3, type: integer, separator: \",\", max: 4}\n";

/* One line: a good one holds its row's number and, as ids, number .. number + number % 4. */
static void add_line(text *t, truth *known, uint64_t *seed) {
    static const char *const bad[] = {"1\tx\t1,2", "2\t1\t1", "1\t1", "1\t1\t1\t1", "1\t3\t4,z,5", "1\t3\tz"};
    const uint32_t kind = draw(seed, 8);
    const char *end = draw(seed, 4) ? "\n" : "\r\n";
    known->lines++;
    if (kind == 0) {
        text_add(t, "%s", end);
        known->blank_total++;
    } else if (kind == 1) {
        if (known->bad_total < CT_BAD_ROWS_SHOWN) {
            (void)snprintf(known->first[known->bad_total], sizeof known->first[0], ":%lld: ", (long long)known->lines);
        }
        text_add(t, "%s%s", bad[draw(seed, 6)], end);
        known->bad_total++;
    } else {
        const int64_t n = known->rows++;
        text_add(t, "%d\t%d\t", (int)(n & 1), (int)n);
        for (int64_t i = n; i <= n + n % 4; i++) text_add(t, "%s%d", i > n ? "," : "", (int)i);
        text_add(t, "%s", end);
        bytes_add(&known->bad, &known->bad_total, 8);
        bytes_add(&known->blank, &known->blank_total, 8);
    }
}

static void assert_truth(const ct_batch *batch, const ct_read_report *report, const truth *known, uint64_t salt) {
    const size_t last = (size_t)batch->first_row + batch->rows - 1;
    int64_t bad, blank;
    memcpy(&bad, known->bad.data + 8 * last, 8);
    memcpy(&blank, known->blank.data + 8 * last, 8);
    assert_int_equal(report->bad_total, bad);
    assert_int_equal(report->blank_lines, blank);
    assert_int_equal(report->shown, bad < CT_BAD_ROWS_SHOWN ? bad : CT_BAD_ROWS_SHOWN);
    for (size_t i = 0; i < report->shown; i++) assert_contains(report->first_bad[i], known->first[i]);
    const ct_column *ids = &batch->columns[2];
    for (size_t r = 0; r < batch->rows; r++) {
        const int64_t n = batch->first_row + (int64_t)r;
        assert_true(ct_column_f32(&batch->columns[0])[r] == (float)(n & 1));
        assert_true(ct_column_f32(&batch->columns[1])[r] == (float)n);
        assert_int_equal(ids->offsets[r + 1] - ids->offsets[r], n % 4 + 1);
        for (int64_t i = 0; i <= n % 4; i++) {
            char token[24];
            (void)snprintf(token, sizeof token, "%lld", (long long)(n + i));
            assert_int_equal(ct_column_u64(ids)[ids->offsets[r] + i], xxh(token, salt));
        }
    }
}

/* Threads and chunks of any size give the same rows, and at each batch the same counts: those of a log whose every line is known. */
static void test_chunks(void **state) {
    (void)state;
    ct_schema *schema = schema_of(chunky);
    const uint64_t salt = xxh("ids", 0);
    text t = {0};
    truth known = {0};
    uint64_t seed = 77;
    for (int i = 0; i < 6000; i++) add_line(&t, &known, &seed);
    char *path = write_bytes(folder, "chunks", t.bytes, t.size);
    static const size_t chunks[] = {1, 13, 100, 4096, 0}, threads[] = {1, 2, 3, 8}, sizes[] = {1, 50, 999, 100000};
    for (size_t i = 0; i < 5 * 4 * 4; i++) {
        ct_status status = CT_STATUS_INIT;
        ct_reader *reader = NULL;
        ct_batch *batch;
        ct_code code;
        ct_read_report report;
        int64_t rows = 0;
        ct_reader_options options = options_of((const char *const[]){path}, 1, sizes[i / 20]);
        options.chunk_bytes = chunks[i % 5];
        options.threads = threads[i / 5 % 4];
        assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
        while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
            assert_int_equal(batch->first_row, rows);
            rows += (int64_t)batch->rows;
            ct_reader_report(reader, &report);
            if (batch->rows == options.batch_rows) assert_truth(batch, &report, &known, salt);
            ct_reader_release(reader, batch);
        }
        assert_code(CT_END, code, &status);
        assert_int_equal(rows, known.rows);
        ct_reader_report(reader, &report);
        assert_int_equal(report.bad_total, known.bad_total);
        assert_int_equal(report.blank_lines, known.blank_total);
        ct_reader_close(reader);
    }
    free(path);
    free(t.bytes);
    free(known.bad.data);
    free(known.blank.data);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
