#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "tests/base/temp.h"

static json_t *parse(const char *text) {
    ct_status status = CT_STATUS_INIT;
    json_t *json = NULL;
    if (ct_json_parse(text, strlen(text), "test", &json, &status) != CT_OK) fail_msg("%s", status.message);
    return json;
}

static void refuses_with_name_and_line(void **state) {
    (void)state;
    static const struct {
        const char *text, *place;
    } cases[] = {{"{\n\"a\": 1,\n\"b\" 2}", "m.json:3: "},
                 {"{\"a\": 1,\n\"a\": 2}", "m.json:2: "}, /* a member twice */
                 {"", "m.json:1: "},
                 {"{\"a\": 1}\n\nx", "m.json:3: "}, /* something behind */
                 {"{\"a\": 99999999999999999999}", "m.json:1: "},
                 {"{\"a\": NaN}", "m.json:1: "},
                 {"{\"a\": \"\xff\"}", "m.json:1: "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_status status = CT_STATUS_INIT;
        json_t *json = NULL;
        assert_int_equal(ct_json_parse(cases[i].text, strlen(cases[i].text), "m.json", &json, &status), CT_CORRUPT);
        assert_null(json);
        if (strncmp(status.message, cases[i].place, strlen(cases[i].place)) != 0) fail_msg("%s", status.message);
    }
    ct_status status = CT_STATUS_INIT;
    json_t *json = NULL;
    assert_int_equal(ct_json_parse("{}garbage", 2, "m.json", &json, &status), CT_OK); /* no further than told */
    json_decref(json);
}

static void members_are_typed(void **state) {
    (void)state;
    json_t *json = parse("{\"s\":\"x\",\"i\":-7,\"f\":1.5,\"a\":[1],\"o\":{\"k\":null},\"n\":null,\"big\":9223372036854775807}");
    ct_status status = CT_STATUS_INIT;
    const char *text = NULL;
    int64_t integer = 0;
    double number = 0;
    json_t *value = NULL;
    assert_int_equal(ct_json_get_string(json, "s", "m", &text, &status), CT_OK);
    assert_string_equal(text, "x");
    assert_int_equal(ct_json_get_i64(json, "i", "m", &integer, &status), CT_OK);
    assert_int_equal(integer, -7);
    assert_int_equal(ct_json_get_i64(json, "big", "m", &integer, &status), CT_OK);
    assert_true(integer == INT64_MAX);
    assert_int_equal(ct_json_get_f64(json, "f", "m", &number, &status), CT_OK);
    assert_true(number == 1.5);
    assert_int_equal(ct_json_get_f64(json, "i", "m", &number, &status), CT_OK); /* an integer is a number */
    assert_true(number == -7);
    assert_int_equal(ct_json_get_array(json, "a", "m", &value, &status), CT_OK);
    assert_int_equal(json_array_size(value), 1);
    assert_int_equal(ct_json_get_object(json, "o", "m", &value, &status), CT_OK);
    assert_true(json_is_null(json_object_get(value, "k")));

    assert_int_equal(ct_json_get_range(json, "i", "m", -7, -7, &integer, &status), CT_OK);
    assert_int_equal(integer, -7);
    assert_int_equal(ct_json_get_range(json, "i", "m.json", -6, 5, &integer, &status), CT_CORRUPT);
    assert_string_equal(status.message, "m.json: \"i\" is -7; it must be between -6 and 5");
    assert_int_equal(ct_json_get_range(json, "big", "m", 0, INT64_MAX - 1, &integer, &status), CT_CORRUPT);
    assert_int_equal(ct_json_get_range(json, "f", "m", 0, 5, &integer, &status), CT_CORRUPT);
    assert_int_equal(integer, -7);
    status = (ct_status)CT_STATUS_INIT;

    static const char *const others[] = {"n", "missing"};
    for (size_t i = 0; i < 2; i++) {
        const char *m = others[i];
        text = NULL;
        value = NULL;
        assert_int_equal(ct_json_get_string(json, m, "m.json", &text, &status), CT_CORRUPT);
        assert_non_null(strstr(status.message, "m.json"));
        assert_non_null(strstr(status.message, m));
        assert_non_null(strstr(status.message, "a string"));
        assert_int_equal(ct_json_get_i64(json, m, "m.json", &integer, &status), CT_CORRUPT);
        assert_non_null(strstr(status.message, "an integer"));
        assert_int_equal(ct_json_get_f64(json, m, "m.json", &number, &status), CT_CORRUPT);
        assert_non_null(strstr(status.message, "a number"));
        assert_int_equal(ct_json_get_array(json, m, "m.json", &value, &status), CT_CORRUPT);
        assert_non_null(strstr(status.message, "an array"));
        assert_int_equal(ct_json_get_object(json, m, "m.json", &value, &status), CT_CORRUPT);
        assert_non_null(strstr(status.message, "an object"));
        assert_null(text);
        assert_null(value);
    }
    assert_int_equal(ct_json_get_i64(json, "f", "m", &integer, &status), CT_CORRUPT); /* 1.5 */
    assert_int_equal(ct_json_get_i64(json_object_get(json, "a"), "x", "m", &integer, &status), CT_CORRUPT);
    assert_int_equal(ct_json_get_i64(NULL, "x", "m", &integer, &status), CT_CORRUPT);
    json_decref(json);
}

static void saves_and_loads(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "x.json"), *text = NULL;
    size_t bytes = 0;
    ct_status status = CT_STATUS_INIT;
    json_t *json = json_object(), *back = NULL;
    static const double numbers[] = {0.1, 1.0 / 3, 1e-300, 1e300, 5e-324, -0.0, 123456789.123456789};
    json_t *array = json_array();
    for (size_t i = 0; i < 7; i++) assert_int_equal(json_array_append_new(array, ct_json_real(numbers[i])), 0);
    assert_int_equal(json_object_set_new(json, "z", json_integer(1)), 0);
    assert_int_equal(json_object_set_new(json, "a", array), 0);
    assert_int_equal(json_object_set_new(json, "nan", ct_json_real(NAN)), 0);
    assert_int_equal(json_object_set_new(json, "inf", ct_json_real(-INFINITY)), 0);
    assert_int_equal(ct_json_save(path, json, &status), CT_OK);

    assert_int_equal(ct_file_read(path, 10000, &text, &bytes, &status), CT_OK);
    assert_memory_equal(text, "{\n  \"z\": 1,\n  \"a\": [\n", 21); /* in the order of insertion, indented */
    assert_memory_equal(text + bytes - 3, "\n}\n", 3);
    free(text);

    assert_int_equal(ct_json_load(path, &back, &status), CT_OK);
    for (size_t i = 0; i < 7; i++) { /* every double comes back */
        const double value = json_real_value(json_array_get(json_object_get(back, "a"), i));
        assert_memory_equal(&value, &numbers[i], 8);
    }
    assert_true(json_is_null(json_object_get(back, "nan")) && json_is_null(json_object_get(back, "inf")));
    json_decref(back);
    json_decref(json);
    free(path);

    char *none = temp_path(folder, "none/x.json");
    json = json_object();
    assert_int_equal(ct_json_save(none, json, &status), CT_NOT_FOUND);
    back = NULL;
    assert_int_equal(ct_json_load(none, &back, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, none));
    assert_null(back);
    json_decref(json);
    free(none);
}

/* A folder in the way: the failure is told and nothing stays behind. */
static void a_failed_save_leaves_nothing(void **state) {
    const char *folder = *state;
    ct_status status = CT_STATUS_INIT;
    char *path = temp_path(folder, "taken");
    assert_int_equal(ct_folder_create(path, &status), CT_OK);
    json_t *json = json_object();
    assert_int_not_equal(ct_json_save(path, json, &status), CT_OK);
    json_decref(json);
    ct_file_list list;
    assert_int_equal(ct_folder_list(folder, &list, &status), CT_OK);
    assert_int_equal(list.count, 0);
    ct_file_list_deinit(&list);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_with_name_and_line),
        cmocka_unit_test(members_are_typed),
        cmocka_unit_test_setup_teardown(saves_and_loads, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(a_failed_save_leaves_nothing, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
