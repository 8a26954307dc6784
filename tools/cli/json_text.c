/* A JSON object as lines "key value" and tables, for people. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"

/* A scalar as text in `out`; lists of scalars are joined by commas. False: it needs a table. */
static bool scalar_text(const json_t *value, char *out, size_t out_bytes) {
    switch (json_typeof(value)) {
        case JSON_STRING:
            (void)snprintf(out, out_bytes, "%s", json_string_value(value));
            return true;
        case JSON_INTEGER:
            (void)snprintf(out, out_bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
            return true;
        case JSON_REAL:
            (void)snprintf(out, out_bytes, "%.9g", json_real_value(value));
            return true;
        case JSON_TRUE:
            (void)snprintf(out, out_bytes, "yes");
            return true;
        case JSON_FALSE:
            (void)snprintf(out, out_bytes, "no");
            return true;
        case JSON_NULL:
            (void)snprintf(out, out_bytes, "-");
            return true;
        case JSON_OBJECT:
            return false;
        case JSON_ARRAY:
            break;
    }
    size_t used = 0, index;
    const json_t *item;
    if (out_bytes) *out = '\0';
    json_array_foreach(value, index, item) {
        char text[256];
        if (json_is_object(item) || json_is_array(item) || !scalar_text(item, text, sizeof text)) return false;
        const int length = snprintf(out + used, out_bytes - used, "%s%s", index ? "," : "", text);
        used += length < 0 || (size_t)length >= out_bytes - used ? 0 : (size_t)length;
    }
    return true;
}

enum { CELL_BYTES = 512 };

/* A cell and the blanks behind it, which the last column has not. */
static void print_cell(const char *cell, json_int_t width, bool last) { (void)printf(" %-*s", last ? 0 : (int)width, cell); }

/* Rows of objects as a table: a column for each key of any row, in the order of first appearance. */
static void print_table(const json_t *rows) {
    json_t *widths = json_object();
    const char *key;
    json_t *value;
    char cell[CELL_BYTES];
    for (size_t r = 0; r < json_array_size(rows); r++) {
        json_object_foreach(json_array_get(rows, r), key, value) {
            if (!scalar_text(value, cell, sizeof cell)) continue;
            const json_t *old = json_object_get(widths, key);
            size_t width = old ? (size_t)json_integer_value(old) : strlen(key);
            if (strlen(cell) > width) width = strlen(cell);
            (void)json_object_set_new(widths, key, json_integer((json_int_t)width));
        }
    }
    const size_t columns = json_object_size(widths);
    size_t column = 0;
    (void)printf(" ");
    json_object_foreach(widths, key, value) { print_cell(key, json_integer_value(value), ++column == columns); }
    (void)printf("\n");
    for (size_t r = 0; r < json_array_size(rows); r++) {
        (void)printf(" ");
        column = 0;
        json_object_foreach(widths, key, value) {
            const json_t *content = json_object_get(json_array_get(rows, r), key);
            if (!content || !scalar_text(content, cell, sizeof cell)) (void)snprintf(cell, sizeof cell, "-");
            print_cell(cell, json_integer_value(value), ++column == columns);
        }
        (void)printf("\n");
    }
    json_decref(widths);
}

void ct_print_object(const json_t *object) {
    const char *key;
    json_t *value;
    char text[CELL_BYTES];
    json_object_foreach((json_t *)object, key, value) {
        if (scalar_text(value, text, sizeof text)) (void)printf("%s %s\n", key, text);
    }
    json_object_foreach((json_t *)object, key, value) {
        if (scalar_text(value, text, sizeof text)) continue;
        (void)printf("%s\n", key);
        if (json_is_array(value)) {
            print_table(value);
            continue;
        }
        const char *inner;
        json_t *content;
        json_object_foreach(value, inner, content) {
            if (scalar_text(content, text, sizeof text)) (void)printf("  %s %s\n", inner, text);
        }
    }
}
