/* The schema: what the built-in one says, what a rich one means, and that every wrong one is refused with file, line and field. Keys are
 * checked against xxHash itself. */
#include "data/schema.h"

#include <math.h>
#include <xxhash.h>

#include "tests/data/fixture.h"

static uint64_t xxh(const char *text, uint64_t seed) { return XXH3_64bits_withSeed(text, strlen(text), seed); }

static ct_schema *parse(const char *text) {
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL;
    assert_ok(ct_schema_parse(text, strlen(text), "shop.yaml", &schema, &status), &status);
    return schema;
}

static uint64_t key(const ct_field *field, const char *token) {
    ct_status status = CT_STATUS_INIT;
    uint64_t value = 0;
    assert_ok(ct_field_key(field, token, strlen(token), &value, &status), &status);
    return value;
}

static void test_criteo(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL;
    assert_ok(ct_schema_load("criteo", &schema, &status), &status);
    assert_string_equal(schema->name, "criteo");
    assert_int_equal(schema->separator, '\t');
    assert_false(schema->header);
    assert_int_equal(schema->columns, 40);
    assert_int_equal(schema->field_count, 40);
    for (size_t f = 0; f < 40; f++) {
        char name[8];
        const ct_field *field = &schema->fields[f];
        if (f == 0)
            (void)snprintf(name, sizeof name, "label");
        else
            (void)snprintf(name, sizeof name, "%c%zu", f < 14 ? 'I' : 'C', f < 14 ? f : f - 13);
        assert_string_equal(field->name, name);
        assert_int_equal(field->kind, f == 0 ? CT_FIELD_LABEL : f < 14 ? CT_FIELD_NUMBER : CT_FIELD_ID);
        assert_int_equal(field->column, f);
        if (f) assert_int_equal(field->side, CT_SIDE_CANDIDATE);
        if (f >= 14) assert_int_equal(field->salt, xxh(name, 0));
    }
    assert_int_equal(ct_schema_find(schema, "C26"), 39);
    assert_int_equal(ct_schema_find(schema, "C27"), -1);
    assert_int_equal(ct_schema_find_kind(schema, CT_FIELD_LABEL), 0);
    assert_int_equal(ct_schema_find_kind(schema, CT_FIELD_TIME), -1);
    assert_int_equal(ct_schema_find_kind(schema, CT_FIELD_ID), -1); /* not the only one */
    /* The text that a model folder stores gives the same schema again. */
    ct_schema *again = NULL;
    assert_ok(ct_schema_parse(schema->text, schema->text_bytes, "m/schema.yaml", &again, &status), &status);
    assert_int_equal(again->hash, schema->hash);
    ct_schema_destroy(again);
    ct_schema_destroy(schema);
    ct_schema_destroy(NULL);
}

static const char rich[] =
    "# a comment\n"
    "name: shop\n"
    "format: {separator: \",\", header: true}\n"
    "fields:\n"
    "  - {name: label, kind: label, column: rating, at_least: 3.5}\n"
    "  - name: price\n"
    "    kind: number\n"
    "    column: 2\n"
    "    side: context\n"
    "  - {name: likes, kind: id, column: likes, side: context, type: integer, separator: \"|\", max: 3, newest: first, shares: item}\n"
    "  - {name: item, kind: id, column: item, type: integer}\n"
    "  - {name: liked_text, kind: vector, of: likes, file: v/text.npy, ids: /abs/text.txt}\n"
    "  - {name: tags, kind: id, column: tags, separator: \"|\"}\n"
    "  - {name: who, kind: unit, column: user, type: integer}\n"
    "  - {name: page, kind: group, column: page}\n"
    "  - {name: when, kind: time, column: ts, time_unit: milliseconds}\n"
    "  - {name: w, kind: weight, column: w}\n";

static void test_rich(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *s = NULL;
    assert_ok(ct_schema_parse(rich, strlen(rich), "dir/sub/shop.yaml", &s, &status), &status);
    assert_int_equal(s->separator, ',');
    assert_true(s->header);
    assert_int_equal(s->columns, 0);
    assert_true(s->fields[0].has_at_least && s->fields[0].at_least == 3.5);
    assert_string_equal(s->fields[0].column_name, "rating");
    assert_int_equal(s->fields[0].column, -1);
    assert_int_equal(s->fields[1].side, CT_SIDE_CONTEXT);
    assert_int_equal(s->fields[1].column, 1);
    assert_null(s->fields[1].column_name);
    const ct_field *likes = &s->fields[2], *item = &s->fields[3], *vector = &s->fields[4], *tags = &s->fields[5];
    assert_int_equal(likes->value_separator, '|');
    assert_int_equal(likes->max_values, 3);
    assert_true(likes->newest_first);
    assert_string_equal(likes->shares, "item");
    assert_int_equal(likes->salt, xxh("item", 0));
    assert_int_equal(item->salt, xxh("item", 0));
    assert_int_equal(item->max_values, 1);
    assert_int_equal(item->side, CT_SIDE_CANDIDATE);
    assert_int_equal(key(likes, "17"), key(item, "17"));
    assert_int_equal(vector->of, 2);
    assert_int_equal(vector->side, CT_SIDE_CONTEXT);
    assert_int_equal(vector->salt, 0);
    assert_string_equal(vector->vector_path, "dir/sub/v/text.npy");
    assert_string_equal(vector->vector_ids_path, "/abs/text.txt");
    assert_int_equal(key(vector, "007"), xxh("7", 0));
    assert_int_equal(tags->max_values, 100);
    assert_false(tags->newest_first);
    assert_int_equal(s->fields[6].salt, 0);
    assert_int_equal(key(&s->fields[6], "-0"), xxh("0", 0));
    assert_int_equal(key(&s->fields[7], "007"), xxh("007", 0));
    assert_int_equal(s->fields[8].time_unit, CT_TIME_MILLISECONDS);
    ct_schema_destroy(s);
}

static void test_keys(void **state) {
    (void)state;
    ct_schema *s = parse(
        "name: a\nformat: {columns: 2}\nfields:\n  - {name: n, kind: id, column: 1, type: integer}\n"
        "  - {name: t, kind: id, column: 2}\n");
    const ct_field *n = &s->fields[0], *t = &s->fields[1];
    static const char *const pairs[][2] = {{"0", "0"},
                                           {"-0", "0"},
                                           {"007", "7"},
                                           {"+7", "7"},
                                           {"-007", "-7"},
                                           {"-7", "-7"},
                                           {"9223372036854775807", "9223372036854775807"},
                                           {"0009223372036854775807", "9223372036854775807"},
                                           {"-9223372036854775808", "-9223372036854775808"},
                                           {"123456789012345678", "123456789012345678"},
                                           {"", ""}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) assert_int_equal(key(n, pairs[i][0]), xxh(pairs[i][1], xxh("n", 0)));
    static const char *const wrong[] = {
        "9223372036854775808", "-9223372036854775809", "1.0", "1e3", " 1", "1 ", "-", "+", "0x1", "a", "--1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ct_status status = CT_STATUS_INIT;
        uint64_t value = 42;
        assert_code(CT_INVALID, ct_field_key(n, wrong[i], strlen(wrong[i]), &value, &status), &status);
        assert_contains(status.message, "'n'");
        assert_int_equal(value, 42);
    }
    static const char *const tokens[] = {"", "a", "0a1b2c3d", "007", "-0", "0123456789abcdef0123456789abcdef0123456789abcdef"};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) assert_int_equal(key(t, tokens[i]), xxh(tokens[i], xxh("t", 0)));
    ct_schema_destroy(s);
}

static void test_numbers_and_labels(void **state) {
    (void)state;
    ct_schema *s =
        parse("name: a\nformat: {columns: 3}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: x, kind: number, column: 2}\n");
    ct_schema *r = parse("name: a\nformat: {columns: 3}\nfields:\n  - {name: y, kind: label, column: 1, at_least: 4}\n");
    ct_status status = CT_STATUS_INIT;
    float value = 0;
    static const struct {
        const char *text;
        float value;
    } numbers[] = {{"-2147483648", -2147483648.0f}, {"0", 0},        {"-1", -1},
                   {"99999999999999999999", 1e20f}, {"1e-3", 1e-3f}, {"16777217", 16777216.0f}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_ok(ct_field_number(&s->fields[1], numbers[i].text, strlen(numbers[i].text), &value, &status), &status);
        assert_true(value == numbers[i].value);
    }
    assert_ok(ct_field_number(&s->fields[1], "", 0, &value, &status), &status);
    assert_true(isnan(value));
    static const char *const wrong[] = {"nan", "inf", "1e39", "0x10", " 1", "1,5", "-"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_code(CT_INVALID, ct_field_number(&s->fields[1], wrong[i], strlen(wrong[i]), &value, &status), &status);
        assert_contains(status.message, "field 'x'");
    }
    static const struct {
        const char *text;
        int plain, rated; /* -1 = refused */
    } labels[] = {{"0", 0, 0},  {"1", 1, 0},  {"1.0", 1, 0}, {"4", -1, 1}, {"3.999", -1, 0},
                  {"5", -1, 1}, {"", -1, -1}, {"x", -1, -1}, {"-1", -1, 0}};
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++) {
        for (int k = 0; k < 2; k++) {
            const int expected = k ? labels[i].rated : labels[i].plain;
            const ct_code code = ct_field_label(&(k ? r : s)->fields[0], labels[i].text, strlen(labels[i].text), &value, &status);
            assert_code(expected < 0 ? CT_INVALID : CT_OK, code, &status);
            if (expected >= 0) assert_true(value == (float)expected);
        }
    }
    ct_schema_destroy(s);
    ct_schema_destroy(r);
}

/* A column's hash covers what decides its content, and nothing else. */
static void test_hashes(void **state) {
    (void)state;
    static const char head[] = "name: a\nformat: {columns: 9}\nfields:\n  - {name: item, kind: id, column: 9}\n  - ";
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"{name: x, kind: number, column: 1}", "{name: x, kind: number, column: 2, side: context}", true},
        {"{name: x, kind: label, column: 1}", "{name: x, kind: label, column: 1, at_least: 1}", false},
        {"{name: x, kind: label, column: 1, at_least: 2}", "{name: x, kind: label, column: 1, at_least: 1}", false},
        {"{name: x, kind: id, column: 1}", "{name: x, kind: id, column: 3, side: context, type: text}", true},
        {"{name: x, kind: id, column: 1}", "{name: x, kind: id, column: 1, type: integer}", false},
        {"{name: x, kind: id, column: 1}", "{name: x, kind: id, column: 1, shares: item}", false},
        {"{name: x, kind: id, column: 1}", "{name: y, kind: id, column: 1}", false},
        {"{name: x, kind: id, column: 1}", "{name: x, kind: id, column: 1, separator: ','}", false},
        {"{name: x, kind: id, column: 1, separator: ','}", "{name: x, kind: id, column: 1, separator: ',', max: 2}", false},
        {"{name: x, kind: id, column: 1, separator: ','}", "{name: x, kind: id, column: 1, separator: ',', newest: first}", false},
        {"{name: x, kind: id, column: 1, separator: ','}", "{name: x, kind: id, column: 1, separator: ',', newest: last, max: 100}", true},
        {"{name: x, kind: vector, of: item, file: a.npy}", "{name: x, kind: vector, of: item, file: b.npy, ids: c.txt}", true},
        {"{name: x, kind: time, column: 1}", "{name: x, kind: time, column: 1, time_unit: seconds}", true},
        {"{name: x, kind: time, column: 1}", "{name: x, kind: time, column: 1, time_unit: milliseconds}", false},
        {"{name: x, kind: unit, column: 1}", "{name: x, kind: unit, column: 1, type: integer}", false},
        {"{name: x, kind: unit, column: 1}", "{name: x, kind: group, column: 1}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char a[512], b[512];
        (void)snprintf(a, sizeof a, "%s%s\n", head, cases[i].a);
        (void)snprintf(b, sizeof b, "%s%s\n", head, cases[i].b);
        ct_schema *sa = parse(a), *sb = parse(b);
        if ((sa->fields[1].hash == sb->fields[1].hash) != cases[i].same) print_error("%s | %s\n", cases[i].a, cases[i].b);
        assert_int_equal(sa->fields[1].hash == sb->fields[1].hash, cases[i].same);
        assert_int_equal(sa->hash == sb->hash, cases[i].same);
        ct_schema_destroy(sa);
        ct_schema_destroy(sb);
    }
    /* Equal fields under another name: equal columns' hashes, another schema. */
    ct_schema *x = parse("name: a\nformat: {columns: 1}\nfields:\n  - {name: x, kind: number, column: 1}\n");
    ct_schema *y = parse("name: a\nformat: {columns: 1}\nfields:\n  - {name: y, kind: number, column: 1}\n");
    assert_int_equal(x->fields[0].hash, y->fields[0].hash);
    assert_int_not_equal(x->hash, y->hash);
    ct_schema_destroy(x);
    ct_schema_destroy(y);
}

/* Without a label a schema is for scoring. */
static void test_without_label(void **state) {
    (void)state;
    ct_schema *s = parse("name: a\nformat: {columns: 1}\nfields:\n  - {name: x, kind: number, column: 1}\n");
    assert_int_equal(ct_schema_find_kind(s, CT_FIELD_LABEL), -1);
    assert_int_equal(s->separator, '\t');
    ct_schema_destroy(s);
}

#define FORMAT "name: a\nformat: {columns: 4}\n"
#define FIELDS FORMAT "fields:\n  - {name: i, kind: id, column: 1}\n  - {name: x, kind: number, column: 2}\n"
#define UNIT FIELDS "  - {name: u, kind: unit, column: 1}\n"

static void test_wrong(void **state) {
    (void)state;
    static const struct {
        const char *text, *place, *part; /* message begins with shop.yaml:place: and contains part */
    } cases[] = {
        {"", "", "empty"},
        {"# only a comment\n", "", "empty"},
        {"- a\n", "1", "must be a mapping"},
        {"just text\n", "1", "must be a mapping"},
        {"name: a\nfields: [\n", "3", "not YAML"},
        {"name: a\n\tformat: 1\n", "2", "not YAML"},
        {"name: \xff\n", "1", "UTF-8"},
        {"name: a\001\n", "1", "UTF-8"},
        {"name: \"a\\0b\"\n", "1", "NUL"},
        {FIELDS "---\nname: b\n", "6", "second YAML document"},
        {FIELDS "  - {name: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}\n", "6", "nested"},
        {"name: a\nname: b\n", "2", "stands twice"},
        {"nam: a\n", "1", "nam"},
        {"format: {columns: 1}\nfields:\n  - {name: x, kind: number, column: 1}\n", "1", "name is missing"},
        {FORMAT, "1", "no fields"},
        {FORMAT "fields: []\n", "3", "no fields"},
        {FORMAT "fields: 3\n", "3", "must be a list"},
        {FORMAT "fields:\n  - 3\n", "4", "must be a mapping"},
        /* the format */
        {"name: a\nfields:\n  - {name: x, kind: number, column: 1}\n", "1", "columns is missing"},
        {"name: a\nformat: {columns: 0}\nfields:\n  - {name: x, kind: number, column: 1}\n", "2", "columns '0'"},
        {"name: a\nformat: {columns: forty}\nfields:\n  - {name: x, kind: number, column: 1}\n", "2", "columns 'forty'"},
        {"name: a\nformat:\n  columns: 1\n  separator: ', '\nfields:\n  - {name: x, kind: number, column: 1}\n", "4", "one byte"},
        {"name: a\nformat: {columns: 1, separator: \"\\n\"}\nfields:\n  - {name: x, kind: number, column: 1}\n", "2", "one byte"},
        {"name: a\nformat: {columns: 1, header: maybe}\nfields:\n  - {name: x, kind: number, column: 1}\n", "2", "maybe"},
        {"name: a\nformat: {colums: 1}\nfields:\n  - {name: x, kind: number, column: 1}\n", "2", "colums"},
        /* one field */
        {FIELDS "  - {kind: number, column: 1}\n", "6", "field 3: name is missing"},
        {FIELDS "  - {name: '', kind: number, column: 1}\n", "6", "name is missing"},
        {FIELDS "  - {name: a/b, kind: number, column: 1}\n", "6", "'a/b'"},
        {FIELDS "  - {name: z, column: 1}\n", "6", "field 'z': kind is missing"},
        {FIELDS "  - {name: z, kind: numbr, column: 1}\n", "6", "field 'z': kind 'numbr'"},
        {FIELDS "  - {name: z, kind: [number], column: 1}\n", "6", "field 'z'"},
        {FIELDS "  - {name: z, kind: number, colum: 1}\n", "6", "colum"},
        {FIELDS "  - name: z\n    kind: number\n    colum: 1\n", "8", "field 'z': the key 'colum' is unknown"},
        {FIELDS "  - name: z\n    kind: number\n    column: 1\n    kind: id\n", "9", "field 'z': the key 'kind' stands twice"},
        {FORMAT "format: {columns: 4}\n", "3", "stands twice"},
        {FIELDS "fields: []\n", "6", "stands twice"},
        {"name: a\nformat: {columns: 4, columns: 4}\n", "2", "stands twice"},
        {FIELDS "  - {name: z, kind: number, column: 1, column: 2}\n", "6", "stands twice"},
        {FIELDS "  - name: z\n    kind: number\n", "6", "field 'z': column is missing"},
        {FIELDS "  - {name: z, kind: number, column: ~}\n", "6", "field 'z'"},
        {FIELDS "  - {name: z, kind: number, column: 0}\n", "6", "start at 1"},
        {FIELDS "  - {name: z, kind: number, column: -1}\n", "6", "start at 1"},
        {FIELDS "  - name: z\n    kind: number\n    column: 5\n", "8", "field 'z': column 5 is beyond the 4 columns"},
        {FIELDS "  - {name: z, kind: number, column: price}\n", "6", "header: true"},
        {FIELDS "  - {name: z, kind: number, column: 1, side: both}\n", "6", "side 'both'"},
        {FIELDS "  - {name: z, kind: number, column: 1, type: text}\n", "6", "type means nothing"},
        {FIELDS "  - {name: z, kind: label, column: 1, side: context}\n", "6", "side means nothing"},
        {FIELDS "  - {name: z, kind: label, column: 1, at_least: much}\n", "6", "at_least 'much'"},
        {FIELDS "  - {name: z, kind: time, column: 1, time_unit: hours}\n", "6", "time_unit 'hours'"},
        {FIELDS "  - {name: z, kind: id, column: 1, type: hex}\n", "6", "type 'hex'"},
        {FIELDS "  - {name: z, kind: id, column: 1, max: 3}\n", "6", "max needs a separator"},
        {FIELDS "  - {name: z, kind: id, column: 1, newest: last}\n", "6", "newest needs a separator"},
        {FIELDS "  - {name: z, kind: id, column: 1, separator: ','\n     , max: 0}\n", "7", "max '0'"},
        {FIELDS "  - {name: z, kind: id, column: 1, separator: ',', newest: left}\n", "6", "newest 'left'"},
        {FIELDS "  - {name: z, kind: id, column: 1, separator: '::'}\n", "6", "one byte"},
        {FIELDS "  - {name: z, kind: id, column: 1, separator: \"\\t\"}\n", "6", "between columns"},
        /* fields together */
        {FIELDS "  - {name: x, kind: number, column: 1}\n", "6", "field 'x': the name is used twice; first on line 5"},
        {FIELDS "  - {name: y, kind: label, column: 1}\n  - {name: z, kind: label, column: 2}\n", "7",
         "field 'z': a second label: 'y' on line 6"},
        {FIELDS "  - {name: y, kind: unit, column: 1}\n  - {name: z, kind: unit, column: 2}\n", "7", "a second unit"},
        {FIELDS "  - {name: z, kind: id, column: 1, shares: nobody}\n", "6", "shares 'nobody', which is no field"},
        {FIELDS "  - {name: z, kind: id, column: 1, shares: x}\n", "6", "shares 'x', which is a number"},
        {FIELDS "  - {name: z, kind: id, column: 1, shares: z}\n", "6", "its own rows"},
        {FIELDS "  - {name: z, kind: id, column: 1, shares: i, type: integer}\n", "6", "another type"},
        {FIELDS "  - {name: z, kind: id, column: 1, shares: q}\n  - {name: q, kind: id, column: 1, shares: i}\n", "6", "name that one"},
        {FIELDS "  - {name: z, kind: vector, column: 1, of: i, file: a.npy}\n", "6", "field 'z': column cannot stand in a vector"},
        {FIELDS "  - {name: z, kind: id, column: 1, of: i}\n", "6", "`of` is for a vector"},
        {FIELDS "  - {name: z, kind: number, column: 1, of: i}\n", "6", "or `of`"},
        {FIELDS "  - {name: z, kind: number, of: i}\n", "6", "of 'i', which is of kind id, not history"},
        {FIELDS "  - {name: z, kind: history, of: i}\n", "6", "no field of kind unit"},
        {UNIT "  - {name: z, kind: history}\n", "7", "`of` is missing"},
        {UNIT "  - {name: z, kind: history, of: x}\n", "7", "which is of kind number, not id"},
        {UNIT "  - {name: z, kind: history, of: i, column: 1}\n", "7", "column means nothing"},
        {UNIT "  - {name: z, kind: history, of: i, clicked: yes}\n", "7", "clicked 'yes'"},
        {UNIT "  - {name: z, kind: history, of: i, clicked: true}\n", "7", "the schema has none"},
        {UNIT "  - {name: z, kind: history, of: i, max: 1001}\n", "7", "max '1001' is no number from 1 to 1000"},
        {UNIT "  - {name: m, kind: id, column: 1, separator: ','}\n  - {name: z, kind: history, of: m}\n", "8", "several values a row"},
        {UNIT "  - {name: h, kind: history, of: i}\n  - {name: z, kind: similarity, of: h}\n", "8", "`vector` is missing"},
        {UNIT "  - {name: h, kind: history, of: i}\n  - {name: z, kind: similarity, of: h, vector: i}\n", "8", "not vector"},
        {UNIT "  - {name: h, kind: history, of: i}\n  - {name: j, kind: id, column: 1}\n"
              "  - {name: v, kind: vector, of: j, file: a.npy}\n  - {name: z, kind: similarity, of: h, vector: v}\n",
         "10", "vector 'v' is of 'j', but the history 'h' is of 'i'"},
        {UNIT "  - {name: h, kind: history, of: i}\n  - {name: v, kind: vector, of: i, file: a.npy}\n"
              "  - {name: z, kind: similarity, of: h, vector: v, tiers: 0}\n",
         "9", "tiers '0'"},
        {UNIT "  - {name: h, kind: history, of: i}\n  - {name: z, kind: vector, of: h, file: a.npy}\n", "8", "a history, not an id"},
        {FIELDS "  - {name: z, kind: vector, file: a.npy}\n", "6", "`of` is missing"},
        {FIELDS "  - {name: z, kind: vector, of: i}\n", "6", "file is missing"},
        {FIELDS "  - {name: z, kind: vector, of: x, file: a.npy}\n", "6", "of 'x', which is a number"},
        {FIELDS "  - {name: z, kind: vector, of: nobody, file: a.npy}\n", "6", "of 'nobody', which is no field"},
        {FIELDS "  - &q {name: z, kind: number, column: 1}\n  - *q\n", "7", "aliases"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ct_status status = CT_STATUS_INIT;
        ct_schema *schema = NULL;
        char place[64];
        const ct_code code = ct_schema_parse(cases[i].text, strlen(cases[i].text), "shop.yaml", &schema, &status);
        if (code != CT_INVALID) print_error("case %zu: %s\n", i, cases[i].text);
        assert_code(CT_INVALID, code, &status);
        assert_null(schema);
        (void)snprintf(place, sizeof place, "shop.yaml:%s%s", cases[i].place, cases[i].place[0] ? ":" : "");
        if (strncmp(status.message, place, strlen(place)) != 0) print_error("case %zu: %s\n", i, cases[i].text);
        assert_int_equal(status.code, CT_INVALID);
        assert_contains(status.message, place);
        assert_contains(status.message, cases[i].part);
        assert_null(strchr(status.message, '\n'));
    }
}

static void test_many_fields(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    text t = {0};
    text_add(&t, FORMAT "fields:\n");
    for (int f = 0; f < CT_SCHEMA_MAX_FIELDS; f++) text_add(&t, "  - {name: f%d, kind: id, column: 1}\n", f);
    ct_schema *s = parse(t.bytes);
    assert_int_equal(s->field_count, CT_SCHEMA_MAX_FIELDS);
    assert_int_equal(ct_schema_find(s, "f4095"), 4095);
    ct_schema_destroy(s);
    s = NULL;
    text_add(&t, "  - {name: one_more, kind: id, column: 1}\n");
    assert_code(CT_INVALID, ct_schema_parse(t.bytes, t.size, "shop.yaml", &s, &status), &status);
    free(t.bytes);
}

static void test_load(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *s = NULL;
    char *folder = temp_folder();
    char *path = write_text(folder, "shop.yaml", rich);
    assert_ok(ct_schema_load(path, &s, &status), &status);
    char *expected = temp_path(folder, "v/text.npy");
    assert_string_equal(s->fields[4].vector_path, expected);
    assert_int_equal(s->text_bytes, strlen(rich));
    assert_memory_equal(s->text, rich, strlen(rich));
    ct_schema_destroy(s);
    s = NULL;
    assert_code(CT_NOT_FOUND, ct_schema_load("critoe", &s, &status), &status);
    assert_contains(status.message, "'critoe'");
    assert_contains(status.message, "built in: criteo");
    assert_int_not_equal(ct_schema_load(folder, &s, &status), CT_OK);
    assert_null(s);
    free(expected);
    free(path);
    temp_remove(folder);
}

/* Every cut and every changed byte of a schema is a schema or a refusal, never a crash. */
static void test_damaged(void **state) {
    (void)state;
    char copy[sizeof rich];
    for (size_t i = 0; i < sizeof rich - 1; i++) {
        static const char changes[] = {'\0', '\n', ' ', ':', '{', '}', '-', '"', '&', '\xff'};
        for (size_t k = 0; k < sizeof changes + 1; k++) {
            ct_status status = CT_STATUS_INIT;
            ct_schema *schema = NULL;
            memcpy(copy, rich, sizeof rich);
            if (k < sizeof changes) copy[i] = changes[k];
            const ct_code code = ct_schema_parse(copy, k < sizeof changes ? sizeof rich - 1 : i, "shop.yaml", &schema, &status);
            if (code != CT_OK) {
                assert_code(CT_INVALID, code, &status);
                assert_contains(status.message, "shop.yaml");
            }
            ct_schema_destroy(schema);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_criteo),  cmocka_unit_test(test_rich),          cmocka_unit_test(test_keys),
        cmocka_unit_test(test_hashes),  cmocka_unit_test(test_without_label), cmocka_unit_test(test_numbers_and_labels),
        cmocka_unit_test(test_wrong),   cmocka_unit_test(test_many_fields),   cmocka_unit_test(test_load),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
