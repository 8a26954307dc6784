/* YAML failures are one line that names file, line, field and reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/yaml.h"

typedef struct oven {
    uint32_t heat;
    double *weight;
    bool *fan;
} oven;

typedef struct recipe {
    char *name;
    oven *oven;
    uint32_t *minutes;
    uint32_t minutes_count;
} recipe;

static const cyaml_schema_field_t oven_fields[] = {CYAML_FIELD_UINT("heat", CYAML_FLAG_DEFAULT, oven, heat),
                                                   CYAML_FIELD_FLOAT_PTR("weight", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, oven, weight),
                                                   CYAML_FIELD_BOOL_PTR("fan", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, oven, fan),
                                                   CYAML_FIELD_END};
static const cyaml_schema_value_t minutes_value = {CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint32_t)};
static const cyaml_schema_field_t recipe_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, recipe, name, 1, 20),
    CYAML_FIELD_MAPPING_PTR("oven", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, recipe, oven, oven_fields),
    CYAML_FIELD_SEQUENCE("minutes", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, recipe, minutes, &minutes_value, 1, 3), CYAML_FIELD_END};
static const cyaml_schema_value_t recipe_schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, recipe, recipe_fields)};

static void a_document_is_read(void **state) {
    (void)state;
    const char *text = "# bread\nname: rye\noven:\n  heat: 230\n  fan: false\nminutes: [10, 40]\n";
    ct_status status = CT_STATUS_INIT;
    void *loaded = NULL;
    if (ct_yaml_load(text, strlen(text), "r.yaml", &recipe_schema, &loaded, &status) != CT_OK) fail_msg("%s", status.message);
    const recipe *read = loaded;
    assert_string_equal(read->name, "rye");
    assert_int_equal(read->oven->heat, 230);
    assert_null(read->oven->weight);
    assert_false(*read->oven->fan);
    assert_int_equal(read->minutes_count, 2);
    assert_int_equal(read->minutes[1], 40);
    assert_string_equal(status.message, "");
    ct_yaml_free(&recipe_schema, loaded);
    ct_yaml_free(&recipe_schema, NULL);
}

/* Only the given bytes are read. */
static void the_length_is_kept(void **state) {
    (void)state;
    const char text[] = "name: rye\n: this is [no YAML";
    ct_status status = CT_STATUS_INIT;
    void *loaded = NULL;
    if (ct_yaml_load(text, 10, "r.yaml", &recipe_schema, &loaded, &status) != CT_OK) fail_msg("%s", status.message);
    ct_yaml_free(&recipe_schema, loaded);
}

typedef struct refusal {
    const char *text;
    const char *words[4]; /* the message holds each, in this order */
} refusal;

static void a_wrong_document_is_refused_by_place_and_reason(void **state) {
    (void)state;
    static const refusal refusals[] = {
        {"", {"r.yaml", "empty"}},
        {"\n\n", {"r.yaml", "empty"}},
        {"# only a comment\n", {"r.yaml", "empty"}},
        {"name: rye\noven:\n  heat: hot\n", {"r.yaml:3", "'heat'", "'oven'", "hot"}}, /* another type, inside out */
        {"name: rye\noven: {heat: -3}\n", {"r.yaml:2", "'heat'", "-3"}},
        {"name: rye\noven: {heat: 1, weight: 1.2.3}\n", {"r.yaml:2", "'weight'", "1.2.3"}},
        {"name: rye\noven: {heat: 1, weight: nan}\n", {"r.yaml:2", "'weight'", "nan"}},
        {"name: rye\noven: {heat: 1, weight: 0x10}\n", {"r.yaml:2", "'weight'", "0x10"}},
        {"name: rye\noven: {heat: 1, weight: }\n", {"r.yaml:2", "'weight'"}},
        {"name: rye\noven:\n  heat: 230C\n", {"r.yaml:3", "'heat'", "230C"}},
        {"name: rye\noven:\n  heat: 1_000\n", {"r.yaml:3", "'heat'", "1_000"}},
        {"name: rye\noven:\n  heat: 2e2\n", {"r.yaml:3", "'heat'", "2e2"}},
        {"name: rye\noven:\n  heat: 010\n", {"r.yaml:3", "'heat'", "010"}},
        {"name: rye\noven:\n  heat: 4294967296\n", {"r.yaml:3", "'heat'", "4294967296"}},
        {"name: rye\noven: {heat: 1, fan: flase}\n", {"r.yaml:2", "'fan'", "flase"}},
        {"name: rye\nminutes:\n  - 3\n  - 4.5\n", {"r.yaml:4", "'minutes'", "4.5"}},
        {"name: rye\nminutes: [3, x, 4]\n", {"r.yaml:2", "'minutes'", "x"}},
        {"name: rye\nminutes: [1, 2, 3, 4]\n", {"r.yaml:2", "'minutes'"}}, /* too many */
        {"name: rye\nminutes: 3\n", {"r.yaml:2", "'minutes'"}},
        {"name: rye\noven: [1]\n", {"r.yaml:2", "'oven'"}},
        {"name: rye\n\n\ncolour: brown\n", {"r.yaml:4", "colour"}}, /* unknown */
        {"name: rye\noven: {heat: 1, colour: 2}\n", {"r.yaml:2", "colour"}},
        {"name: rye\noven: {heat: 1}\nname: wheat\n", {"r.yaml:3", "name"}}, /* repeated */
        {"name: rye\noven:\n  heat: 1\n  heat: 2\n", {"r.yaml:4", "heat"}},
        {"oven: {heat: 1}\n", {"r.yaml", "name"}}, /* a missing one */
        {"name: rye\noven: {}\n", {"r.yaml:2", "heat"}},
        {"name: a name of more than twenty letters\n", {"r.yaml:1", "'name'"}},
        {"- rye\n", {"r.yaml:1"}},
        {"rye\n", {"r.yaml:1"}},
        {"name: [rye\n", {"r.yaml"}}, /* no YAML at all */
        {"name: \"rye\n", {"r.yaml"}},
        {"name: rye\n\tminutes: [3]\n", {"r.yaml"}},
        {"name: *bread\n", {"r.yaml:1", "alias"}},
        {"name: \"rye\\0wheat\"\n", {"r.yaml:1", "'name'", "rye\\x00wheat", "NUL"}},
        {"name: rye\n---\nname: wheat\n", {"r.yaml:2", "second"}},
        {"\"name\\0\": rye\n", {"r.yaml:1", "key"}},
        {"name: rye\noven: {heat: 1, fan: \"true\\0\"}\n", {"r.yaml:2", "'fan'", "true\\x00"}},
        {"name: rye\nminutes: []\n", {"r.yaml:2", "'minutes'", "has 0 entries; it needs at least 1"}},
        {"name: rye\nminutes: [1, 2, 3, 4]\n", {"r.yaml:2", "'minutes'", "has 4 entries; it needs at most 3"}},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        ct_status status = CT_STATUS_INIT;
        void *loaded = NULL;
        const ct_code code = ct_yaml_load(refusals[i].text, strlen(refusals[i].text), "r.yaml", &recipe_schema, &loaded, &status);
        if (code != CT_INVALID) fail_msg("case %zu: %s: %s", i, ct_code_name(code), status.message);
        assert_null(loaded);
        const char *from = status.message;
        for (size_t w = 0; w < 4 && refusals[i].words[w] != NULL; w++) {
            from = strstr(from, refusals[i].words[w]);
            if (from == NULL) fail_msg("case %zu: '%s' is not in its place in '%s'", i, refusals[i].words[w], status.message);
        }
        if (strpbrk(status.message, "\n\t\r") != NULL) fail_msg("case %zu: more than one line: '%s'", i, status.message);
        if (getenv("SHOW") != NULL) print_message("%s\n", status.message);
    }
}

/* libyaml alone takes minutes to hours of either. */
static void what_would_take_long_is_refused(void **state) {
    (void)state;
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES + 1);
    assert_non_null(text);
    static const char *const beginnings[] = {"minutes: ", "", "name: rye\nminutes: [1, "};
    static const char openings[] = "[{";
    for (size_t i = 0; i < 6; i++) {
        ct_status status = CT_STATUS_INIT;
        void *loaded = NULL;
        memset(text, openings[i % 2], BYTES);
        memcpy(text, beginnings[i / 2], strlen(beginnings[i / 2]));
        assert_int_equal(ct_yaml_load(text, BYTES, "deep.yaml", &recipe_schema, &loaded, &status), CT_INVALID);
        assert_string_equal(strchr(status.message, ' '), " more than 64 values inside each other");
        assert_null(loaded);
        text[BYTES] = '\0';
        assert_false(ct_yaml_is_list(text, BYTES, "minutes", "x"));
    }
    size_t used = 0;
    for (int i = 0; used < BYTES - 32; i++) used += (size_t)sprintf(text + used, "%s&a%d 1", i ? ", " : "minutes: [", i);
    ct_status status = CT_STATUS_INIT;
    void *loaded = NULL;
    assert_int_equal(ct_yaml_load(text, used, "r.yaml", &recipe_schema, &loaded, &status), CT_INVALID);
    assert_string_equal(status.message, "r.yaml:1: more than 1000 anchors");
    free(text);
}

/* A few KiB of aliases would be 16 million values. */
static void aliases_of_aliases_are_refused(void **state) {
    (void)state;
    enum { COUNT = 4000 };
    static const cyaml_schema_value_t row_value = {
        CYAML_VALUE_SEQUENCE(CYAML_FLAG_POINTER, uint32_t *, &minutes_value, 0, CYAML_UNLIMITED)};
    static const cyaml_schema_field_t fields[] = {
        CYAML_FIELD_SEQUENCE("minutes", CYAML_FLAG_POINTER, recipe, minutes, &row_value, 0, CYAML_UNLIMITED), CYAML_FIELD_END};
    static const cyaml_schema_value_t schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, recipe, fields)};
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    fprintf(to, "minutes:\n- &a [0");
    for (int i = 1; i < COUNT; i++) fprintf(to, ",0");
    fprintf(to, "]\n");
    for (int i = 1; i < COUNT; i++) fprintf(to, "- *a\n");
    assert_int_equal(fclose(to), 0);
    ct_status status = CT_STATUS_INIT;
    void *loaded = NULL;
    assert_int_equal(ct_yaml_load(text, bytes, "r.yaml", &schema, &loaded, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "field 'minutes': more than a million values"));
    free(text);
}

static void strings_are_written_as_they_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text, *written;
    } cases[] = {{"rye", "\"rye\""},
                 {"\"\\", "\"\\\"\\\\\""},
                 {"\t\n\x7f", "\"\\x09\\x0a\\x7f\""},
                 {"\xc2\x85\xc2\xa0", "\"\\x85\xc2\xa0\""},
                 {"\xe2\x80\xa8", "\"\\u2028\""},
                 {"\xff", "\"\\ufffd\""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *written = NULL;
        size_t bytes = 0;
        FILE *to = open_memstream(&written, &bytes);
        assert_non_null(to);
        ct_yaml_put_string(to, cases[i].text, strlen(cases[i].text));
        assert_int_equal(fclose(to), 0);
        assert_string_equal(written, cases[i].written);
        free(written);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_document_is_read),
                                       cmocka_unit_test(the_length_is_kept),
                                       cmocka_unit_test(a_wrong_document_is_refused_by_place_and_reason),
                                       cmocka_unit_test(what_would_take_long_is_refused),
                                       cmocka_unit_test(aliases_of_aliases_are_refused),
                                       cmocka_unit_test(strings_are_written_as_they_are_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
