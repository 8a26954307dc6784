/* Synth as files: layout, stability of the bytes, schema, refusals. The planted truth is checked in synth_truth_test.c. */
#include "data/synth.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "data/reader.h"
#include "data/vectors.h"
#include "tests/data/synth_fixture.h"

/* --- layout --- */

static bool is_integer(const char *text) {
    if (*text == '-') text++;
    if (*text == '\0' || (*text == '0' && text[1] != '\0')) return false;
    return strspn(text, "0123456789") == strlen(text);
}

static bool is_token(const char *text) { return strlen(text) == 8 && strspn(text, "0123456789abcdef") == 8; }

static void forty_columns(void **state) {
    (void)state;
    enum { ROWS = 5000 };
    char *path = temp_path(folder, "log.tsv");
    ct_synth_options options = options_for(ROWS);
    options.path = path;
    const ct_synth_truth truth = write_log(&options);
    size_t bytes;
    char *data = read_file(path, &bytes), *rest = data, *line;
    int64_t rows = 0, clicks = 0, empty[40] = {0}, negative = 0;
    while ((line = strsep(&rest, "\n")) != NULL && rest != NULL) {
        char *text;
        size_t column = 0;
        for (; (text = strsep(&line, "\t")) != NULL; column++) {
            assert_true(column < 40);
            empty[column] += *text == '\0';
            negative += *text == '-';
            if (column == 0) {
                assert_true(strcmp(text, "0") == 0 || strcmp(text, "1") == 0);
                clicks += *text == '1';
            } else if (*text != '\0') {
                assert_true(column < 14 ? is_integer(text) : is_token(text));
            }
        }
        assert_int_equal(column, 40);
        rows++;
    }
    assert_int_equal(line[0], '\0'); /* the last line ends with a newline */
    assert_int_equal(rows, ROWS);
    assert_int_equal(truth.rows, ROWS);
    assert_int_equal(truth.clicks, clicks);
    assert_true(negative > 0);
    assert_int_equal(empty[14], 0); /* C1, the user */
    assert_int_equal(empty[15], 0); /* C2, the item */
    int missing_numbers = 0, missing_ids = 0;
    for (size_t c = 1; c < 40; c++) {
        if (c < 14) missing_numbers += empty[c] > 0;
        if (c >= 14) missing_ids += empty[c] > 0;
        assert_true(empty[c] < ROWS);
    }
    assert_true(missing_numbers >= 5 && missing_numbers < 13);
    assert_true(missing_ids >= 5 && missing_ids < 24);
    free(data);
    free(path);
}

/* --- the same bytes --- */

static void longer_log_begins_with_the_shorter(void **state) {
    (void)state;
    ct_synth_options options = options_for(3000);
    size_t bytes, again_bytes, long_bytes, other_bytes;
    char *data = log_of(options, &bytes), *again = log_of(options, &again_bytes);
    options.rows = 9000;
    char *longer = log_of(options, &long_bytes);
    options.rows = 3000;
    options.seed++;
    char *other = log_of(options, &other_bytes);
    assert_int_equal(bytes, again_bytes);
    assert_memory_equal(data, again, bytes);
    assert_true(long_bytes > 2 * bytes);
    assert_memory_equal(data, longer, bytes);
    assert_true(other_bytes != bytes || memcmp(data, other, bytes) != 0);
    free(data);
    free(again);
    free(longer);
    free(other);
}

static void gzip_and_standard_output(void **state) {
    (void)state;
    ct_synth_options options = options_for(4000);
    size_t bytes;
    char *data = log_of(options, &bytes), *unpacked = malloc(bytes + 1);
    assert_non_null(unpacked);
    char *first = temp_path(folder, "a.tsv.gz"), *second = temp_path(folder, "b.tsv.gz");
    options.path = first;
    (void)write_log(&options);
    options.path = second;
    (void)write_log(&options);
    gzFile file = gzopen(first, "rb");
    assert_non_null(file);
    assert_int_equal(gzread(file, unpacked, (unsigned)bytes + 1), bytes);
    assert_int_equal(gzclose(file), Z_OK);
    assert_memory_equal(unpacked, data, bytes);
    size_t first_bytes, second_bytes;
    char *packed = read_file(first, &first_bytes), *packed_again = read_file(second, &second_bytes);
    assert_true(first_bytes < bytes);
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(packed, packed_again, first_bytes);
    assert_memory_equal(packed + 4, "\0\0\0\0", 4); /* no time */
    free(packed);
    free(packed_again);

    char *captured = temp_path(folder, "captured");
    (void)fflush(stdout);
    const int file_number = open(captured, O_WRONLY | O_CREAT | O_TRUNC, 0600), before = dup(STDOUT_FILENO);
    assert_true(file_number >= 0 && before >= 0 && dup2(file_number, STDOUT_FILENO) == STDOUT_FILENO);
    ct_status status = CT_STATUS_INIT;
    options.path = "-";
    const ct_code code = ct_synth_write(&options, NULL, &status);
    assert_true(dup2(before, STDOUT_FILENO) == STDOUT_FILENO);
    (void)close(before);
    (void)close(file_number);
    assert_ok(code, &status);
    size_t captured_bytes;
    char *out = read_file(captured, &captured_bytes);
    assert_int_equal(captured_bytes, bytes);
    assert_memory_equal(out, data, bytes);
    free(out);
    free(captured);
    free(first);
    free(second);
    free(unpacked);
    free(data);
}

/* --- schema --- */

static size_t check_schema(const char *schema_path, const char *log_path, int64_t rows, const char *vectors_path) {
    ct_schema *schema;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_schema_load(schema_path, &schema, &status), &status);
    assert_string_equal(schema->name, "synth");
    assert_int_equal(schema->columns, 40);
    const int64_t item = ct_schema_find(schema, "C2"), unit = ct_schema_find_kind(schema, CT_FIELD_UNIT);
    const int64_t vector = ct_schema_find_kind(schema, CT_FIELD_VECTOR);
    assert_true(item >= 0 && unit >= 0 && (vector >= 0) == (vectors_path != NULL));
    assert_int_equal(schema->fields[unit].column, 14);
    size_t numbers[2] = {0}, ids[2] = {0};
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (field->kind == CT_FIELD_NUMBER) numbers[field->side]++;
        if (field->kind == CT_FIELD_ID) ids[field->side]++;
    }
    assert_int_equal(numbers[CT_SIDE_CONTEXT], 7);
    assert_int_equal(numbers[CT_SIDE_CANDIDATE], 6);
    assert_int_equal(ids[CT_SIDE_CONTEXT], 13);
    assert_int_equal(ids[CT_SIDE_CANDIDATE], 13);
    assert_int_equal(schema->fields[ct_schema_find(schema, "C1")].side, CT_SIDE_CONTEXT);
    assert_int_equal(schema->fields[item].side, CT_SIDE_CANDIDATE);

    uint64_t *sorted = NULL;
    size_t vector_count = 0;
    if (vectors_path != NULL) {
        const ct_field *field = &schema->fields[vector];
        assert_string_equal(field->name, "item_vector");
        assert_int_equal(field->of, item);
        ct_vectors *vectors;
        assert_ok(ct_vectors_load(field->vector_path, field->vector_ids_path, NULL, &vectors, &status), &status);
        vector_count = vectors->count;
        sorted = malloc(vector_count * sizeof(*sorted));
        memcpy(sorted, vectors->keys, vector_count * sizeof(*sorted));
        ct_vectors_destroy(vectors);
    }
    ct_reader_options reader_options = CT_READER_OPTIONS_INIT;
    reader_options.sources = &log_path;
    reader_options.source_count = 1;
    ct_reader *reader;
    assert_ok(ct_reader_open(schema, &reader_options, &reader, &status), &status);
    ct_batch *batch;
    size_t read = 0;
    while (ct_reader_next(reader, &batch, &status) == CT_OK) {
        read += batch->rows;
        for (size_t r = 0; r < batch->rows && sorted != NULL; r += 61) { /* every item has a vector */
            const uint64_t key = ct_column_u64(&batch->columns[vector])[r];
            bool found = false;
            for (size_t i = 0; i < vector_count && !found; i++) found = sorted[i] == key;
            assert_true(found);
        }
        ct_reader_release(reader, batch);
    }
    ct_read_report report;
    ct_reader_report(reader, &report);
    assert_int_equal(report.bad_total, 0);
    assert_int_equal(report.blank_lines, 0);
    assert_int_equal(read, rows);
    ct_reader_close(reader);
    ct_schema_destroy(schema);
    free(sorted);
    return read;
}

static void schema_describes_the_log(void **state) {
    (void)state;
    char *path = temp_path(folder, "log.tsv.gz"), *schema = temp_path(folder, "synth.yaml"), *vectors = temp_path(folder, "items.npy");
    ct_synth_options options = options_for(6000);
    options.path = path;
    options.schema_path = schema;
    (void)write_log(&options);
    (void)check_schema(schema, path, options.rows, NULL);
    options.vectors_path = vectors;
    (void)write_log(&options);
    (void)check_schema(schema, path, options.rows, vectors);
    free(path);
    free(schema);
    free(vectors);
}

/* The schema names the vectors relative to its own folder, wherever both are, and both may be moved together. */
static void schema_in_another_folder(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    char *a = temp_path(folder, "house/a/deep"), *b = temp_path(folder, "house/ab \"q\""), *house = temp_path(folder, "house");
    char *moved = temp_path(folder, "moved");
    assert_ok(ct_folder_create(a, &status), &status);
    assert_ok(ct_folder_create(b, &status), &status);
    char *path = temp_path(folder, "log.tsv"), *schema = temp_path(a, "synth.yaml"), *vectors = temp_path(b, "items.npy");
    ct_synth_options options = options_for(100);
    options.path = path;
    options.schema_path = schema;
    options.vectors_path = vectors;
    (void)write_log(&options);
    assert_int_equal(rename(house, moved), 0);
    char *moved_schema = temp_path(folder, "moved/a/deep/synth.yaml"), *moved_vectors = temp_path(folder, "moved/ab \"q\"/items.npy");
    (void)check_schema(moved_schema, path, options.rows, moved_vectors);
    free(a);
    free(b);
    free(house);
    free(moved);
    free(path);
    free(schema);
    free(vectors);
    free(moved_schema);
    free(moved_vectors);
}

/* --- the tail --- */

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Distinct values of the log's column, and how many rows have the most frequent one. */
static size_t count_distinct(const char *const *lines, size_t rows, size_t column, size_t *out_most) {
    char **texts = calloc(rows, sizeof *texts);
    for (size_t r = 0; r < rows; r++) {
        const char *at = lines[r];
        for (size_t c = 0; c < column; c++) at = strchr(at, '\t') + 1;
        texts[r] = strndup(at, strcspn(at, "\t"));
    }
    qsort(texts, rows, sizeof *texts, by_text);
    size_t distinct = 0, run = 0;
    *out_most = 0;
    for (size_t r = 0; r < rows; r++) {
        const bool is_new = r == 0 || strcmp(texts[r], texts[r - 1]) != 0;
        distinct += is_new;
        run = is_new ? 1 : run + 1;
        if (run > *out_most) *out_most = run;
    }
    for (size_t r = 0; r < rows; r++) free(texts[r]);
    free(texts);
    return distinct;
}

/* The law of synth_tail.c, integrated here on its own: how many distinct values `rows` draws have in the mean, and the first one's share.
 */
static double expect_distinct(double values, double slope, double rows, double *out_first) {
    const double head = 2, e = 1 - slope, all = (pow(values + head, e) - pow(head, e)) / e;
    double distinct = 0;
    for (double low = 0, high; low < values; low = high) {
        high = low < 1000 ? low + 1 : low * 1.001;
        if (high > values) high = values;
        const double mass = (pow(high + head, e) - pow(low + head, e)) / e / all;
        if (low == 0) *out_first = mass;
        distinct += (high - low) * (1 - exp(-rows * mass / (high - low)));
    }
    return distinct;
}

static void the_tail_is_a_power_law(void **state) {
    (void)state;
    enum { ROWS = 20000, COLUMN = 19 /* C6, the largest one */ };
    char *path = temp_path(folder, "log.tsv"), *plain_path = temp_path(folder, "plain.tsv");
    ct_synth_options options = options_for(ROWS);
    options.path = plain_path;
    const ct_synth_truth plain = write_log(&options);
    for (int uniform = 0; uniform < 2; uniform++) {
        options.path = path;
        options.tail = 40000000;
        if (uniform) options.tail_slope = 0;
        const ct_synth_truth truth = write_log(&options);
        assert_memory_equal(&truth, &plain, sizeof truth); /* what has no effect changes no click */
        size_t bytes, most;
        char *data = read_file(path, &bytes), *rest = data;
        const char **lines = calloc(ROWS, sizeof *lines);
        for (size_t r = 0; r < ROWS; r++) lines[r] = strsep(&rest, "\n");
        const size_t distinct = count_distinct(lines, ROWS, COLUMN, &most);
        double first = 0;
        const double wanted = expect_distinct(40000000, options.tail_slope, ROWS, &first);
        if (fabs((double)distinct - wanted) > 6 * sqrt(wanted)) fail_msg("%zu distinct values; expected %.0f", distinct, wanted);
        if (!uniform && fabs((double)most - first * ROWS) > 6 * sqrt(first * ROWS))
            fail_msg("the first value has %zu rows; expected %.0f", most, first * ROWS);
        free(lines);
        free(data);
    }
    free(plain_path);
    free(path);
}

/* --- refusals --- */

static void wrong_options_are_named(void **state) {
    (void)state;
    char *path = temp_path(folder, "log.tsv");
#define WRONG(member, value, part)                                                   \
    do {                                                                             \
        ct_synth_options options = options_for(10);                                  \
        options.path = path;                                                         \
        options.member = value;                                                      \
        ct_synth_truth truth;                                                        \
        ct_status status = CT_STATUS_INIT;                                           \
        assert_code(CT_INVALID, ct_synth_write(&options, &truth, &status), &status); \
        assert_contains(status.message, part);                                       \
    } while (0)
    WRONG(rows, 0, "rows is 0; it must be 1 to 1000000000");
    WRONG(rows, -5, "rows is -5");
    WRONG(items, 9, "items is 9; it must be 10 to 1000000");
    WRONG(users, 0, "users is 0; it must be 1 to 10000000");
    WRONG(vocabulary, 2000000, "vocabulary is 2000000; it must be 10 to 1000000");
    WRONG(tail, -1, "tail is -1; it must be 0 to 4000000000");
    WRONG(tail_slope, 3.5, "tail_slope is 3.5; it must be 0 to 3");
    WRONG(vector_dim, 0, "vector_dim is 0; it must be 1 to 4096");
    WRONG(rate, 0.0, "rate is 0; it must be 0.0001 to 0.9999");
    WRONG(rate, NAN, "rate is nan");
    WRONG(pairs_share, -0.1, "pairs_share is -0.1; it must be 0 to 1");
    WRONG(item_share, 1.5, "item_share is 1.5; it must be 0 to 1");
    WRONG(pairs_share, 0.8, "pairs_share + item_share is 1.1");
    WRONG(content_share, 1.01, "content_share is 1.01");
    WRONG(new_item_share, INFINITY, "new_item_share is inf");
    WRONG(signal, 11.0, "signal is 11; it must be 0 to 10");
    WRONG(path, NULL, "path is empty");
    WRONG(vectors_path, "v.txt", "vectors_path is v.txt; it must end in .npy");
    const ct_synth_options good = options_for(10);
    ct_synth_options options = good;
    options.rate = 2.0;
    double probability;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_synth_probabilities(&options, 0, 1, &probability, NULL, &status), CT_INVALID);
    assert_int_equal(ct_synth_probabilities(&good, -1, 1, &probability, NULL, &status), CT_INVALID);
    assert_int_equal(temp_count(folder), 0);
    free(path);
}

static void nothing_stays_behind(void **state) {
    (void)state;
    static const char *const NAMES[] = {"log.tsv", "log.tsv.gz"};
    char *vectors = temp_path(folder, "v.npy"), *nowhere = temp_path(folder, "no/schema.yaml");
    for (size_t i = 0; i < 2; i++) {
        char *path = temp_path(folder, NAMES[i]);
        atomic_bool stop = true;
        ct_synth_options options = options_for(100000);
        options.path = path;
        options.vectors_path = vectors;
        options.stop = &stop;
        ct_synth_truth truth;
        ct_status status = CT_STATUS_INIT;
        assert_code(CT_CANCELLED, ct_synth_write(&options, &truth, &status), &status);
        assert_int_equal(temp_count(folder), 0);
        stop = false;
        options.rows = 10;
        options.schema_path = nowhere;
        assert_code(CT_NOT_FOUND, ct_synth_write(&options, &truth, &status), &status);
        assert_contains(status.message, "no/schema.yaml");
        assert_int_equal(temp_count(folder), 0);
        free(path);
    }
    free(vectors);
    free(nowhere);
}

/* Extremes of every option work. */
static void smallest_and_largest(void **state) {
    (void)state;
    char *path = temp_path(folder, "log.tsv"), *vectors = temp_path(folder, "v.npy");
    for (int i = 0; i < 8; i++) {
        ct_synth_options options = options_for(i % 2 ? 1 : 3000);
        options.path = path;
        options.vectors_path = vectors;
        options.seed = i % 2 ? UINT64_MAX : 0;
        options.items = i & 2 ? 10 : 100;
        options.users = 1;
        options.vocabulary = i & 4 ? 10 : 100000;
        options.vector_dim = i & 4 ? 1 : 300;
        options.rate = i & 2 ? 0.0001 : 0.9999;
        options.new_item_share = i & 4 ? 1.0 : 0.0;
        options.content_share = i & 2 ? 1.0 : 0.0;
        options.signal = i & 4 ? 10.0 : 0.0;
        const ct_synth_truth truth = write_log(&options);
        assert_true(isfinite(truth.best_log_loss) && truth.best_log_loss >= 0.0);
        double last;
        ct_status status = CT_STATUS_INIT;
        assert_int_equal(ct_synth_probabilities(&options, INT64_MAX, 1, &last, NULL, &status), CT_OK);
        assert_true(isfinite(last));
    }
    free(path);
    free(vectors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(forty_columns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(longer_log_begins_with_the_shorter, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gzip_and_standard_output, set_up, tear_down),
        cmocka_unit_test_setup_teardown(schema_describes_the_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(schema_in_another_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_tail_is_a_power_law, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_options_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_stays_behind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(smallest_and_largest, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
