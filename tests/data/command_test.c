/* Commands as sources: what they print, how they end, and how they are ended. */
#include <unistd.h>

#include "data/internal.h"
#include "tests/data/rows.h"
#include "tests/data/source_fixture.h"

static char *folder;

static void test_command(void **state) {
    (void)state;
    assert_content("|printf '1\\t2\\n3'", "1\t2\n3", 5);
    assert_content("|cat", "", 0); /* it has no standard input */
    assert_content("|exit 0", "", 0);
    assert_content("|exec >&-; exit 0", "", 0);
    char *content = some_text(700000, 1);
    for (int kind = 0; kind < 3; kind++) {
        size_t bytes = 700000;
        unsigned char *packed = kind == 1   ? gzip_bytes(content, 700000, 6, &bytes)
                                : kind == 2 ? zstd_bytes(content, 700000, 3, &bytes)
                                            : NULL;
        char *path = write_bytes(folder, "printed", packed ? packed : (unsigned char *)content, bytes), *command = NULL;
        assert_true(asprintf(&command, "|cat < '%s' | cat", path) > 0);
        assert_content(command, content, 700000);
        free(command);
        free(path);
        free(packed);
    }
    free(content);
    /* Run again at each opening. */
    char *path = temp_path(folder, "again"), *command = NULL;
    assert_true(asprintf(&command, "|echo x >> '%s'; cat '%s'", path, path) > 0);
    for (int i = 1; i < 4; i++) {
        ct_status status = CT_STATUS_INIT;
        char *data;
        size_t got;
        assert_ok(read_all(command, 100, &data, &got, &status), &status);
        assert_int_equal(got, 2 * i);
        free(data);
    }
    free(command);
    free(path);
}

static void test_command_fails(void **state) {
    (void)state;
    assert_refused("|", CT_INVALID, "no command");
    assert_refused("| \t", CT_INVALID, "no command");
    assert_refused("|echo 1; exit 3", CT_IO, "command 'echo 1; exit 3': exit status 3");
    assert_refused("|kill -9 $$", CT_IO, "command 'kill -9 $$': ended by signal 9");
    assert_refused("|exec 2>&-; /no/such/program", CT_IO, "exit status 127");
    /* What a failing command left half done is not called corrupt. */
    assert_refused("|printf '\\037\\213\\010\\000\\000'; exit 5", CT_IO, "exit status 5");
    assert_refused("|printf '\\050\\265\\057\\375\\040'; exit 6", CT_IO, "exit status 6");
    assert_refused("|printf '\\037\\213\\010\\000\\000'", CT_CORRUPT, "command 'printf");
}

/* Closed early, a command is ended with what it started, though that does not listen to a polite signal: the other end of a pipe that all
 * of them hold is closed. Nothing here waits by time. */
static void test_command_ended(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        ct_status status = CT_STATUS_INIT;
        ct_source *source = NULL;
        int ends[2];
        char byte;
        size_t got;
        const atomic_bool now = true;
        assert_int_equal(pipe(ends), 0);
        assert_ok(ct_source_open(kind ? "|trap '' TERM; (sleep 1000; echo y) & echo 0123456789abcdef; wait" : "|sleep 1000 | cat", &source,
                                 &status),
                  &status);
        (void)close(ends[1]);
        if (kind) {
            assert_ok(ct_source_read(source, &byte, 1, &got, &status), &status);
            assert_int_equal(byte, '0');
        }
        ct_source_set_stop(source, NULL, &now);
        if (!kind) assert_code(CT_CANCELLED, ct_source_read(source, &byte, 1, &got, &status), &status);
        ct_source_close(source);
        assert_int_equal(read(ends[0], &byte, 1), 0);
        (void)close(ends[0]);
    }
}

static void test_lines(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t number;
    } expected[] = {{"x", 1}, {"y", 2}, {"z", 1}};
    static const char *const commands[] = {"|printf 'x\\ny'", "|printf z"};
    ct_status status = CT_STATUS_INIT;
    ct_lines *lines = NULL;
    ct_line line;
    assert_ok(ct_lines_open(commands, 2, &lines, &status), &status);
    for (int i = 0; i < 3; i++) {
        assert_ok(ct_lines_next(lines, &line, &status), &status);
        assert_int_equal(line.bytes, 1);
        assert_int_equal(line.text[0], expected[i].text[0]);
        assert_int_equal(line.number, expected[i].number);
        assert_string_equal(line.source, i < 2 ? "command 'printf 'x\\ny''" : "command 'printf z'");
    }
    assert_code(CT_END, ct_lines_next(lines, &line, &status), &status);
    ct_lines_close(lines);
}

/* Commands print any format, block files too; one that fails fails the run behind the rows before it. */
static void test_reader(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    ct_status status = CT_STATUS_INIT;
    char *path = write_text(folder, "printed", "1.00\n2.00\nbad\n3.00\n"), *blocks = convert_file(folder, schema, path, "printed.ctb", 2);
    char *commands[3];
    rows r;
    assert_true(asprintf(&commands[0], "|cat '%s'", blocks) > 0);
    assert_int_equal(setenv("PRINTED", path, 1), 0); /* the path itself may be too long for the message */
    assert_true(asprintf(&commands[1], "|gzip -c < \"$PRINTED\"") > 0);
    assert_true(asprintf(&commands[2], "|cat '%s'; exit 4", path) > 0);
    const char *sources[] = {commands[0], commands[1], commands[0], path, commands[2], path};
    ct_reader_options options = options_of(sources, 4, 2);
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 12);
    for (size_t k = 0; k < 12; k++) assert_true(((const float *)(const void *)r.values[0].data)[k] == (float)(k % 3 + 1));
    assert_int_equal(r.report.bad_total, 2);
    assert_contains(r.report.first_bad[0], "command 'gzip -c < \"$PRINTED\"':3: ");
    rows_free(&r);
    options = options_of(sources, 6, 3);
    assert_code(CT_IO, rows_read(schema, &options, &r, &status), &status);
    assert_contains(status.message, "exit 4': exit status 4");
    assert_int_equal(r.rows, 15);
    rows_free(&r);
    /* One that never ends is ended. */
    ct_reader *reader = NULL;
    ct_batch *batch;
    options = options_of((const char *const[]){"|yes 1"}, 1, 1000);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    for (int i = 0; i < 500; i++) {
        assert_ok(ct_reader_next(reader, &batch, &status), &status);
        ct_reader_release(reader, batch);
    }
    ct_reader_close(reader);
    options.max_rows = 1500;
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 1500);
    rows_free(&r);
    for (int i = 0; i < 3; i++) free(commands[i]);
    free(path);
    free(blocks);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command), cmocka_unit_test(test_command_fails), cmocka_unit_test(test_command_ended),
        cmocka_unit_test(test_lines),   cmocka_unit_test(test_reader),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
