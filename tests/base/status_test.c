#include "base/status.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void fills_code_and_message(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_fail(&status, CT_INVALID, "%s:%d: no", "file", 7), CT_INVALID);
    assert_int_equal(status.code, CT_INVALID);
    assert_string_equal(status.message, "file:7: no");
}

static void puts_a_prefix(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    (void)ct_fail(&status, CT_CORRUPT, "bad checksum");
    assert_int_equal(ct_fail_within(&status, "table %d", 3), CT_CORRUPT);
    assert_string_equal(status.message, "table 3: bad checksum");
}

static void may_quote_its_own_message(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    (void)ct_fail(&status, CT_IO, "inner");
    assert_int_equal(ct_fail(&status, CT_INTERNAL, "outer (%s)", status.message), CT_INTERNAL);
    assert_string_equal(status.message, "outer (inner)");
}

static void keeps_one_line_and_cuts(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    (void)ct_fail(&status, CT_INVALID, "a\nb\r\nc");
    assert_string_equal(status.message, "a b  c");

    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)ct_fail(&status, CT_INVALID, "%s", text);
    assert_int_equal(strlen(status.message), CT_STATUS_MESSAGE_BYTES - 1);
    (void)ct_fail_within(&status, "prefix");
    assert_int_equal(strlen(status.message), CT_STATUS_MESSAGE_BYTES - 1);
    assert_memory_equal(status.message, "prefix: xxx", 11);
    (void)ct_fail_within(&status, "%s", text); /* a prefix that leaves no room */
    assert_int_equal(strlen(status.message), CT_STATUS_MESSAGE_BYTES - 1);
}

/* It may go to a terminal, or into JSON. */
static void is_utf8_without_control_characters(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    (void)ct_fail(&status, CT_INVALID, "a\tb\x1b[31m c\x7f \xc2\x9b \xff \xc3 \xed\xa0\x80.");
    assert_string_equal(status.message, "a b?[31m c? ? ? ? ???.");
    (void)ct_fail(&status, CT_INVALID,
                  "Gr\xc3\xb6\xc3\x9f"
                  "e \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_string_equal(status.message,
                        "Gr\xc3\xb6\xc3\x9f"
                        "e \xe2\x82\xac \xf0\x9f\x98\x80");
    (void)ct_fail_within(&status, "\x07");
    assert_memory_equal(status.message, "?: Gr", 5);
}

static void maps_errno(void **state) {
    (void)state;
    static const struct {
        int error;
        ct_code code;
    } cases[] = {{ENOENT, CT_NOT_FOUND},
                 {ENOSPC, CT_EXHAUSTED},
                 {EDQUOT, CT_EXHAUSTED},
                 {EFBIG, CT_EXHAUSTED},
                 {ENOMEM, CT_EXHAUSTED},
                 {EACCES, CT_IO},
                 {EIO, CT_IO}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_status status = CT_STATUS_INIT;
        errno = cases[i].error;
        assert_int_equal(ct_fail_errno(&status, "x.tsv: cannot read"), cases[i].code);
        assert_int_equal(status.code, cases[i].code);
        assert_memory_equal(status.message, "x.tsv: cannot read: ", 20);
        assert_string_equal(status.message + 20, strerror(cases[i].error));
    }
}

static void reports_memory(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_fail_memory(&status, 4096, "rows"), CT_EXHAUSTED);
    assert_string_equal(status.message, "out of memory (4096 bytes for rows)");
}

static void names_every_code(void **state) {
    (void)state;
    for (int a = CT_OK; a <= CT_INTERNAL; a++) {
        assert_string_not_equal(ct_code_name((ct_code)a), "unknown");
        for (int b = CT_OK; b < a; b++) assert_string_not_equal(ct_code_name((ct_code)a), ct_code_name((ct_code)b));
    }
    assert_string_equal(ct_code_name(CT_OK), "ok");
    assert_string_equal(ct_code_name(CT_INVALID), "invalid");
}

static ct_code tries(ct_code code, int *went_on) {
    CT_TRY(code);
    *went_on = 1;
    return CT_OK;
}

static ct_code tries_goto(ct_code given) {
    ct_code code;
    CT_TRY_GOTO(code, given, fail);
    return CT_END;
fail:
    return code;
}

static void try_returns_failures(void **state) {
    (void)state;
    int went_on = 0;
    assert_int_equal(tries(CT_IO, &went_on), CT_IO);
    assert_int_equal(went_on, 0);
    assert_int_equal(tries(CT_OK, &went_on), CT_OK);
    assert_int_equal(went_on, 1);
    assert_int_equal(tries_goto(CT_IO), CT_IO);
    assert_int_equal(tries_goto(CT_OK), CT_END);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_code_and_message),
        cmocka_unit_test(puts_a_prefix),
        cmocka_unit_test(may_quote_its_own_message),
        cmocka_unit_test(keeps_one_line_and_cuts),
        cmocka_unit_test(is_utf8_without_control_characters),
        cmocka_unit_test(maps_errno),
        cmocka_unit_test(reports_memory),
        cmocka_unit_test(names_every_code),
        cmocka_unit_test(try_returns_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
