/* A guessed schema can be used as it is, whatever the log's header says. */
#include "data/guess.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/resource.h>

#include "data/schema.h"
#include "tests/base/temp.h"

/* The guess from a log of this text. */
static ct_schema *guessed(void **state, const char *log, const char *name) {
    char *path = temp_path(*state, "log.csv"), *yaml = NULL;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL;
    assert_int_equal(ct_file_write(path, log, strlen(log), &status), CT_OK);
    const ct_guess_options options = {.source = path, .name = name};
    if (ct_schema_guess(&options, &yaml, &status) != CT_OK) fail_msg("%s", status.message);
    if (ct_schema_parse(yaml, strlen(yaml), "guess.yaml", &schema, &status) != CT_OK) fail_msg("%s", status.message);
    free(yaml);
    free(path);
    return schema;
}

static void columns_keep_names_that_fields_may_not_have(void **state) {
    ct_schema *schema =
        guessed(state, "click,cost/unit,line\xc2\x85 end,tab\tbell\a,caf\xc3\xa9\n1,1.5,2.5,3.5,4.5\n0,2.5,3.5,4.5,5.5\n", "a \xff \"b\"");
    static const char *const fields[] = {"click", "cost_unit", "line\xc2\x85 end", "tab_bell_", "caf\xc3\xa9"};
    static const char *const columns[] = {"click", "cost/unit", "line\xc2\x85 end", "tab\tbell\a", "caf\xc3\xa9"};
    assert_int_equal(schema->field_count, 5);
    for (size_t f = 0; f < 5; f++) {
        assert_string_equal(schema->fields[f].name, fields[f]);
        assert_string_equal(schema->fields[f].column_name, columns[f]);
    }
    assert_string_equal(schema->name, "a \xef\xbf\xbd \"b\"");
    ct_schema_destroy(schema);
}

/* What is held of a log is in proportion to it: 4,096 columns of two rows would have taken a GiB. */
static void many_columns_take_little(void **state) {
    enum { COLUMNS = 4096, MOST_KIB = 300 << 10 };
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    for (int row = 0; row < 2; row++)
        for (int c = 0; c < COLUMNS; c++) fprintf(to, "%d.5%c", row, c + 1 < COLUMNS ? ',' : '\n');
    assert_int_equal(fclose(to), 0);
    struct rusage before, after;
    assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
    ct_schema *schema = guessed(state, text, "wide");
    assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
    assert_int_equal(schema->field_count, COLUMNS);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* their memory is not the program's */
    assert_true(after.ru_maxrss - before.ru_maxrss < MOST_KIB);
#endif
    ct_schema_destroy(schema);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(columns_keep_names_that_fields_may_not_have, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(many_columns_take_little, temp_setup, temp_teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
