/* The client's own refusals, and headers. */
#include "data/block_file.h"
#include "tests/serving/server_fixture.h"

static const char *write_text(const fixture *fx, const char *text, size_t bytes, char **out_path) {
    *out_path = temp_path(fx->folder, "text.tsv");
    FILE *file = fopen(*out_path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    return *out_path;
}

static void test_client_refuses_bad_rows(void **state) {
    fixture *fx = *state;
    start(fx, 1);
    static const struct {
        const char *text;
        const char *words[2];
    } bad[] = {
        {"1\t2\tu\t3\t4\t5\n\n1\t2\tu\t3\t4\n", {"text.tsv:3", "5 columns instead of 6"}},
        {"1\t2\tu\t3\t4\t5\t6\n", {"text.tsv:1", "7 columns instead of 6"}},
        {"2\t2\tu\t3\t4\t5\n", {"text.tsv:1", "label"}},
        {"\t2\tu\t3\t4\t5\n", {"text.tsv:1", "label"}},
        {"1\t2\tu\t3\t4\t5\r\n1\tx\tu\t3\t4\t5\r\n", {"text.tsv:2", "price"}},
        {"1\tnan\tu\t3\t4\t5\n", {"text.tsv:1", "price"}},
        {"1\t2\tu\t3.5\t4\t5\n", {"text.tsv:1", "item"}},
        {"1\t2\tu\t3\t4;5\t5\n", {"likes", "4;5"}}, /* several values: the server says so */
    };
    ct_status status = CT_STATUS_INIT;
    answers got = {NULL, 0};
    char *path = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        (void)write_text(fx, bad[i].text, strlen(bad[i].text), &path);
        if (score(fx, fx->schema, path, 256, false, -1, TIMEOUT_MS, &got, &status) != CT_INVALID) fail_msg("%zu: %s", i, status.message);
        for (size_t w = 0; w < 2; w++)
            if (!strstr(status.message, bad[i].words[w])) fail_msg("%zu: \"%s\" lacks %s", i, status.message, bad[i].words[w]);
        free(path);
    }
    assert_int_equal(score(fx, fx->schema, write_text(fx, "1\t2\tu\0\t3\t4\t5\n", 14, &path), 256, false, -1, TIMEOUT_MS, &got, &status),
                     CT_INVALID);
    assert_non_null(strstr(status.message, "NUL"));
    free(path);
    assert_int_equal(score(fx, fx->schema, "/nowhere/log.tsv", 256, false, -1, TIMEOUT_MS, &got, &status), CT_NOT_FOUND);
    assert_int_equal(got.count, 0);
    free(got.values);
    got = (answers){NULL, 0};
    MUST(score(fx, fx->schema, write_text(fx, "\n\n", 2, &path), 256, false, -1, TIMEOUT_MS, &got, &status), status);
    assert_int_equal(got.count, 0);
    free(path);
    MUST(score(fx, fx->schema, fx->log, 100, true, 150, TIMEOUT_MS, &got, &status), status); /* max_rows */
    assert_int_equal(got.count, 150);
    free(got.values);

    path = temp_path(fx->folder, "rows.ctb");
    ct_block_writer *writer = NULL;
    MUST(ct_block_writer_open(path, fx->schema, &writer, &status), status);
    MUST(ct_block_writer_commit(writer, &status), status);
    assert_int_equal(score(fx, fx->schema, path, 256, false, -1, TIMEOUT_MS, &got, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "rows.ctb is a block file"));
    free(path);
    stop(fx);
    got = (answers){NULL, 0};
    assert_int_equal(score(fx, fx->schema, fx->log, 256, false, -1, TIMEOUT_MS, &got, &status), CT_UNAVAILABLE); /* nobody there */
    assert_non_null(strstr(status.message, fx->target));
}

/* A header's names decide, in each source anew. */
static void test_client_with_header(void **state) {
    fixture *fx = *state;
    start(fx, 1);
    static const char text[] =
        "name: shop\nformat: {separator: \"\\t\", header: true}\nfields:\n"
        "  - {name: label, kind: label, column: l}\n"
        "  - {name: price, kind: number, column: p, side: candidate}\n"
        "  - {name: user, kind: id, column: u, side: context, type: text}\n"
        "  - {name: item, kind: id, column: i, side: candidate, type: integer}\n"
        "  - {name: likes, kind: id, column: k, side: context, type: integer, separator: \",\", max: 3}\n"
        "  - {name: spare, kind: number, column: s, side: candidate}\n";
    ct_schema *schema = NULL;
    ct_status status = CT_STATUS_INIT;
    MUST(ct_schema_parse(text, strlen(text), "header.yaml", &schema, &status), status);
    char *plain = NULL, *headed = temp_path(fx->folder, "headed.tsv"), *other = temp_path(fx->folder, "other.tsv");
    (void)write_text(fx, "1\t2.5\tu\t3\t4,5\t0\n0\t\tv\t-7\t\t1\n", strlen("1\t2.5\tu\t3\t4,5\t0\n0\t\tv\t-7\t\t1\n"), &plain);
    FILE *file = fopen(headed, "wb");
    (void)fprintf(file, "u\textra\ts\tl\tk\ti\tp\nu\tx\t0\t1\t4,5\t3\t2.5\n");
    assert_int_equal(fclose(file), 0);
    file = fopen(other, "wb");
    (void)fprintf(file, "p\ti\tk\tl\ts\tu\n\t-7\t\t0\t1\tv\n");
    assert_int_equal(fclose(file), 0);
    float *expected = expected_of(fx, plain, 2);
    const char *const sources[] = {headed, other};
    const ct_client_rows rows = {.schema = schema, .sources = sources, .source_count = 2, .max_rows = -1};
    ct_client *client = NULL;
    answers got = {NULL, 0};
    int64_t scored = 0;
    MUST(ct_client_create(fx->target, NULL, &client, &status), status);
    MUST(ct_client_score(client, &rows, take_answer, &got, &scored, &status), status);
    assert_int_equal(scored, 2);
    assert_memory_equal(got.values, expected, 2 * sizeof(float));
    file = fopen(other, "wb");
    (void)fprintf(file, "p\ti\tk\tl\ts\n\t-7\t\t0\t1\n");
    assert_int_equal(fclose(file), 0);
    assert_int_equal(ct_client_score(client, &rows, take_answer, &got, &scored, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "other.tsv:1"));
    assert_non_null(strstr(status.message, "user"));
    ct_client_destroy(client);
    free(expected);
    free(got.values);
    free(plain);
    free(headed);
    free(other);
    ct_schema_destroy(schema);
    stop(fx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EACH(test_client_refuses_bad_rows),
        EACH(test_client_with_header),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
