/* A schema's text: refused with a message that names the file, or a schema whose parts fit together and that comes out the same again. */
#include "data/schema.h"

#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "schema_fuzz";

static void check_field(const ct_schema *schema, size_t f) {
    const ct_field *field = &schema->fields[f];
    FUZZ_MUST(field->name && field->name[0] && ct_schema_find(schema, field->name) == (int64_t)f);
    FUZZ_MUST(field->max_values >= 1 && (field->value_separator || field->max_values == 1));
    FUZZ_MUST(!field->value_separator || field->value_separator != schema->separator);
    if (field->kind == CT_FIELD_VECTOR) {
        FUZZ_MUST(field->of < schema->field_count && schema->fields[field->of].kind == CT_FIELD_ID && field->vector_path);
    } else {
        FUZZ_MUST(field->column >= 0 || (schema->header && field->column_name));
        FUZZ_MUST(!schema->columns || field->column < (int64_t)schema->columns);
    }
    if (field->shares) {
        const int64_t shared = ct_schema_find(schema, field->shares);
        FUZZ_MUST(shared >= 0 && schema->fields[shared].salt == field->salt);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL, *again = NULL;
    const ct_code code = ct_schema_parse((const char *)data, bytes, "fuzz.yaml", &schema, &status);
    if (code != CT_OK) {
        FUZZ_MUST(code == CT_INVALID && strncmp(status.message, "fuzz.yaml", 9) == 0 && !strchr(status.message, '\n'));
        return 0;
    }
    FUZZ_MUST(schema->name && schema->field_count && (schema->columns || schema->header));
    for (size_t f = 0; f < schema->field_count; f++) check_field(schema, f);
    FUZZ_MUST(schema->text_bytes == bytes && memcmp(schema->text, data, bytes) == 0);
    FUZZ_MUST(ct_schema_parse(schema->text, schema->text_bytes, "fuzz.yaml", &again, &status) == CT_OK && again->hash == schema->hash);
    ct_schema_destroy(again);
    ct_schema_destroy(schema);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const char *const seeds[] = {
        "name: shop\nformat: {separator: \"\\t\", header: false, columns: 40}\nfields:\n"
        "  - {name: label, kind: label, column: 1, at_least: 4}     # a comment\n"
        "  - {name: price, kind: number, column: 2, side: candidate}\n"
        "  - {name: user,  kind: id, column: 3, side: context, type: text}\n"
        "  - {name: item,  kind: id, column: 4, side: candidate, type: integer}\n"
        "  - {name: likes, kind: id, column: 5, side: context, type: integer, separator: \",\", max: 50, newest: last, shares: item}\n"
        "  - {name: item_text, kind: vector, of: item, file: text.npy, ids: text.txt}\n"
        "  - {name: unit, kind: unit, column: 3}\n  - {name: g, kind: group, column: 3, type: integer}\n"
        "  - {name: w, kind: weight, column: 7}\n  - {name: when, kind: time, column: 6, time_unit: milliseconds}\n",
        "name: h\nformat:\n  separator: \",\"\n  header: true\nfields:\n- name: y\n  kind: label\n  column: click\n"
        "- name: \"a b\"\n  kind: number\n  column: 2\n- name: 'it''s'\n  kind: id\n  column: third\n  separator: '|'\n",
        "{name: j, format: {columns: 1}, fields: [{name: x, kind: number, column: 1}]}",
        "name: x\nformat: {columns: 1}\nfields:\n  - &a {name: x, kind: number, column: 1}\n  - *a\n",
        "%YAML 1.1\n---\nname: |\n  long\n  text\nformat: {columns: 2}\nfields: []\n...\n---\nname: two\n",
        "name: n\nformat: {columns: 65536}\nfields:\n  - {name: x, kind: vector, of: y, file: /a/b}\n"
        "  - {name: y, kind: id, column: 65536, separator: ' ', max: 10000, newest: first}\n",
    };
    if (index >= sizeof seeds / sizeof seeds[0]) return 0;
    memcpy(out, seeds[index], strlen(seeds[index]));
    return strlen(seeds[index]);
}
