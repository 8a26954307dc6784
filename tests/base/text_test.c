#include "base/text.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"

static void integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } cases[] = {{"0", true, 0},
                 {"-0", true, 0},
                 {"+7", true, 7},
                 {"-7", true, -7},
                 {"007", true, 7},
                 {"-2147483648", true, -2147483648},
                 {"9223372036854775807", true, INT64_MAX},
                 {"-9223372036854775808", true, INT64_MIN},
                 {"9223372036854775808", false, 0},
                 {"-9223372036854775809", false, 0},
                 {"18446744073709551616", false, 0},
                 {"18446744073709551617", false, 0},
                 {"99999999999999999999999999", false, 0},
                 {"", false, 0},
                 {"-", false, 0},
                 {"+", false, 0},
                 {"--1", false, 0},
                 {"+-1", false, 0},
                 {" 1", false, 0},
                 {"1 ", false, 0},
                 {"1.0", false, 0},
                 {"1e3", false, 0},
                 {"0x10", false, 0},
                 {"a", false, 0},
                 {"1a", false, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t value = 12345;
        const bool good = ct_parse_i64(cases[i].text, strlen(cases[i].text), &value);
        if (good != cases[i].good) fail_msg("\"%s\"", cases[i].text);
        assert_true(value == (good ? cases[i].value : 12345)); /* left alone on failure */
    }
    int64_t value = 0;
    assert_true(ct_parse_i64("123456", 3, &value) && value == 123); /* no NUL needed */
    assert_false(ct_parse_i64("1\0", 2, &value));
}

static void numbers_follow_the_grammar(void **state) {
    (void)state;
    static const char *const good[] = {"1",    "-1", "+1", "1.", ".5", "1.5", "-.5e3", "1e5", "1E+5", "1e-5", "0e999999999999999999999",
                                       "00.00"};
    static const char *const bad[] = {"",      "-",    ".",     "-.",  "e5",    ".e5",   "1e",     "1e+",      "1e-",
                                      "1.2.3", "1e5.", "1 ",    " 1",  "0x1p3", "inf",   "nan",    "INFINITY", "-inf",
                                      "1f",    "1,5",  "1_000", "--1", "+-1",   "1e5e5", "1e1000", "-1e1000",  "1e99999999999999999999999"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        double d = -99;
        float f = -99;
        if (!ct_parse_f64(good[i], strlen(good[i]), &d)) fail_msg("\"%s\"", good[i]);
        if (!ct_parse_f32(good[i], strlen(good[i]), &f)) fail_msg("\"%s\"", good[i]);
        assert_true(d == strtod(good[i], NULL));
        assert_true(f == strtof(good[i], NULL));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double d = -99;
        float f = -99;
        if (ct_parse_f64(bad[i], strlen(bad[i]), &d) || d != -99) fail_msg("\"%s\"", bad[i]);
        if (ct_parse_f32(bad[i], strlen(bad[i]), &f) || f != -99) fail_msg("\"%s\"", bad[i]);
    }
    double d;
    float f;
    assert_true(ct_parse_f64("-0", 2, &d) && d == 0 && signbit(d));
    assert_true(ct_parse_f32("-0.0", 4, &f) && f == 0 && signbit(f));
    assert_false(ct_parse_f32("1e39", 4, &f)); /* beyond float, not beyond double */
    assert_true(ct_parse_f64("1e39", 4, &d));
    assert_false(ct_parse_f32("340282356779733661637539395458142568448", 39, &f)); /* 2^128 - 2^103, half way: away to infinity */
    assert_true(ct_parse_f32("340282356779733661637539395458142568447", 39, &f) && f == FLT_MAX);
    assert_true(ct_parse_f32("1e-60", 5, &f) && f == 0.0f); /* too small is the nearest: 0 */
    assert_true(ct_parse_f32("1e-45", 5, &f) && f == 0x1p-149f);
    assert_true(ct_parse_f64("12345", 2, &d) && d == 12); /* no NUL needed */
    assert_false(ct_parse_f64("1\0", 2, &d));
}

/* What is printed with enough digits comes back, and what is printed with any number of digits is read as the C library reads it. */
static void numbers_come_back(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 100000; i++) {
        const uint64_t u = ct_random_u64(3, CT_PLACE_TEST, 0, i, 0);
        const uint32_t v = (uint32_t)ct_random_u64(3, CT_PLACE_TEST, 0, i, 1);
        double d, d2;
        float f, f2;
        char text[500];
        memcpy(&d, &u, 8);
        memcpy(&f, &v, 4);
        if (isfinite(d)) {
            int length = snprintf(text, sizeof text, "%.17g", d);
            assert_true(ct_parse_f64(text, (size_t)length, &d2) && memcmp(&d, &d2, 8) == 0);
            length = snprintf(text, sizeof text, "%.*e", (int)(i % 40), d);
            if (isfinite(strtod(text, NULL))) assert_true(ct_parse_f64(text, (size_t)length, &d2) && d2 == strtod(text, NULL));
        }
        if (isfinite(f)) {
            int length = snprintf(text, sizeof text, "%.9g", (double)f);
            assert_true(ct_parse_f32(text, (size_t)length, &f2) && memcmp(&f, &f2, 4) == 0);
            length = snprintf(text, sizeof text, "%.*f", (int)(i % 30), (double)f);
            assert_true(ct_parse_f32(text, (size_t)length, &f2) && f2 == strtof(text, NULL));
        }
        const double plain = (double)(int64_t)(u >> (i % 64)) / pow(10, (double)(i % 25)); /* as logs have them */
        int length = snprintf(text, sizeof text, "%.*f", (int)(i % 25), plain);
        assert_true(ct_parse_f64(text, (size_t)length, &d2) && d2 == strtod(text, NULL));
        assert_true(ct_parse_f32(text, (size_t)length, &f2) && f2 == strtof(text, NULL));
    }
}

/* Halfway between two neighbours: to the even one; a digit more, however far behind, decides. By definition, not by another parser. */
static void halves_go_to_the_even_one(void **state) {
    (void)state;
    static char text[4000];
    for (uint32_t i = 0; i < 2000; i++) {
        const uint32_t bits = (uint32_t)ct_random_u64(4, CT_PLACE_TEST, 0, i, 0) % 0x7f7fffffu;
        float low, high, got;
        memcpy(&low, &bits, 4);
        const uint32_t next = bits + 1;
        memcpy(&high, &next, 4);
        const double half = ((double)low + (double)high) / 2;     /* exact: one bit more than a float has */
        int length = snprintf(text, sizeof text, "%.160f", half); /* exact: the last bit is 2^-150 */
        assert_true(ct_parse_f32(text, (size_t)length, &got) && got == (bits % 2 == 0 ? low : high));
        memset(text + length, '0', 2000);
        text[length + 2000] = '1';
        assert_true(ct_parse_f32(text, (size_t)length + 2000, &got) && got == (bits % 2 == 0 ? low : high));
        assert_true(ct_parse_f32(text, (size_t)length + 2001, &got) && got == high);
    }
    double got;
    assert_true(ct_parse_f64("9007199254740993", 16, &got) && got == 0x1p53); /* 2^53 + 1: even is below */
    assert_true(ct_parse_f64("9007199254740993.000", 20, &got) && got == 0x1p53);
    assert_true(ct_parse_f64("9007199254740993.0000000000000000001", 36, &got) && got == 0x1p53 + 2);
    float single; /* 2^24 + 1 + 2^-40: through a double it would be rounded twice */
    assert_true(ct_parse_f32("16777217.0000000000009094947017729282379150390625", 49, &single) && single == 0x1p24f + 2);
    /* Many digits before the point. */
    memset(text, '0', 3000);
    text[0] = '1';
    memcpy(text + 3001, "e-3000", 6);
    text[3000] = '0';
    assert_true(ct_parse_f64(text, 3007, &got) && got == 1.0);
}

static void no_locale_changes_numbers(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"};
    const char *found = NULL;
    for (size_t i = 0; i < 3 && !found; i++) found = setlocale(LC_NUMERIC, names[i]);
    if (!found) {
        print_message("SKIP: no locale with a decimal comma is installed\n");
        return;
    }
    double d = 0;
    const bool good = ct_parse_f64("3.14159265358979323846264", 25, &d);
    (void)setlocale(LC_NUMERIC, "C");
    assert_true(good && d == 3.14159265358979323846264);
}

static void assert_shown(const char *text, size_t bytes, size_t room, const char *expected) {
    char out[64];
    memset(out, 'Z', sizeof out);
    assert_ptr_equal(ct_text_show(text, bytes, out, room), out);
    assert_string_equal(out, expected);
    for (size_t i = room; i < sizeof out; i++) assert_int_equal(out[i], 'Z');
}

static void shows_text(void **state) {
    (void)state;
    assert_shown("abc", 3, 64, "abc");
    assert_shown("abc", 3, 4, "abc"); /* just fits */
    assert_shown("abcdefgh", 8, 8, "abcd...");
    assert_shown("a\tb\0c\n", 6, 64, "a\\x09b\\x00c\\x0a");
    assert_shown("\xff\x7f ~", 4, 64, "\\xff\\x7f ~");
    assert_shown("abc\n", 4, 7, "abc..."); /* an escape is not cut in two */
    assert_shown("", 0, 1, "");
    assert_shown("abc", 3, 3, "..");
    assert_shown("abc", 3, 1, "");
    char out[1] = {'Z'};
    (void)ct_text_show("abc", 3, out, 0);
    assert_int_equal(out[0], 'Z');
}

static void utf8_is_well_formed(void **state) {
    (void)state;
    static const char *const valid[] = {"",
                                        "plain",
                                        "\x7f",
                                        "\xc2\x80",
                                        "\xdf\xbf",
                                        "\xe0\xa0\x80",
                                        "\xed\x9f\xbf",
                                        "\xee\x80\x80",
                                        "\xef\xbf\xbf",
                                        "\xf0\x90\x80\x80",
                                        "\xf4\x8f\xbf\xbf"};
    static const char *const invalid[] = {"\x80",
                                          "\xbf",
                                          "\xc0\x80",
                                          "\xc1\xbf",
                                          "\xc2",
                                          "\xc2\x41",
                                          "\xe0\x9f\xbf",
                                          "\xe1\x80",
                                          "\xe1\x80\x41",
                                          "\xed\xa0\x80",
                                          "\xed\xbf\xbf",
                                          "\xf0\x8f\xbf\xbf",
                                          "\xf0\x90\x80",
                                          "\xf4\x90\x80\x80",
                                          "\xf5\x80\x80\x80",
                                          "\xfe",
                                          "\xff"};
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) assert_true(ct_utf8_is_valid(valid[i], strlen(valid[i])));
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        if (ct_utf8_is_valid(invalid[i], strlen(invalid[i]))) fail_msg("invalid sequence %zu is taken", i);
        char behind[16] = "ok";
        strcat(behind, invalid[i]);
        assert_false(ct_utf8_is_valid(behind, strlen(behind)));
    }
    assert_true(ct_utf8_is_valid("a\0b", 3));
    assert_true(ct_utf8_is_valid(NULL, 0));
    uint32_t c = 0;
    assert_int_equal(ct_utf8_character("\xe2\x82\xac!", 4, &c), 3);
    assert_int_equal(c, 0x20ac);
    assert_int_equal(ct_utf8_character("\xf4\x8f\xbf\xbf", 4, &c), 4);
    assert_int_equal(c, 0x10ffff);
    assert_int_equal(ct_utf8_character("\xe2\x82\xac", 2, &c), 0);
    assert_int_equal(ct_utf8_character("", 0, &c), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),
        cmocka_unit_test(numbers_follow_the_grammar),
        cmocka_unit_test(numbers_come_back),
        cmocka_unit_test(halves_go_to_the_even_one),
        cmocka_unit_test(no_locale_changes_numbers),
        cmocka_unit_test(shows_text),
        cmocka_unit_test(utf8_is_well_formed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
