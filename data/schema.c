/* From a schema's YAML (schema_yaml.c) to fields that are checked, linked to each other and hashed. Every complaint names the file, the
 * line and the field.
 *
 * Rules beyond the grammar in schema.h: a schema has at most one label, weight, time, group and unit. One without a label can be loaded
 * (for scoring); whoever trains must ask for it. `side` may be left out (candidate). With a header, a `column` of digits is a position and
 * anything else a name. A history needs a unit and, where it is of what was clicked, a label. `shares` names a field that has its own rows
 * (no chains) and tokens of the same type. `max` may be left out (100).
 */
#include "data/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "data/internal.h"
#include "data/schema_yaml.h"

enum {
    SCHEMA_MAX_BYTES = 16 << 20,
    NAME_MAX_BYTES = 256,
    COLUMNS_MAX = 65536,
    VALUES_DEFAULT = 100,
    VALUES_MAX = 10000,
    TIERS_DEFAULT = 20
};

static const char *const kind_keys = "label, weight, time, group, unit, number, id, vector, history or similarity";

/* Which keys besides name and kind may stand beside a kind. */
#define KEY(k) (1u << (k))
static const unsigned allowed_keys[] = {
    [CT_FIELD_LABEL] = KEY(CT_KEY_COLUMN) | KEY(CT_KEY_AT_LEAST),
    [CT_FIELD_WEIGHT] = KEY(CT_KEY_COLUMN),
    [CT_FIELD_TIME] = KEY(CT_KEY_COLUMN) | KEY(CT_KEY_TIME_UNIT),
    [CT_FIELD_GROUP] = KEY(CT_KEY_COLUMN) | KEY(CT_KEY_TYPE),
    [CT_FIELD_UNIT] = KEY(CT_KEY_COLUMN) | KEY(CT_KEY_TYPE),
    [CT_FIELD_NUMBER] = KEY(CT_KEY_COLUMN) | KEY(CT_KEY_SIDE) | KEY(CT_KEY_OF),
    [CT_FIELD_ID] = KEY(CT_KEY_COLUMN) | KEY(CT_KEY_SIDE) | KEY(CT_KEY_TYPE) | KEY(CT_KEY_SEPARATOR) | KEY(CT_KEY_MAX) |
                    KEY(CT_KEY_NEWEST) | KEY(CT_KEY_SHARES),
    [CT_FIELD_VECTOR] = KEY(CT_KEY_OF) | KEY(CT_KEY_FILE) | KEY(CT_KEY_IDS),
    [CT_FIELD_HISTORY] = KEY(CT_KEY_OF) | KEY(CT_KEY_CLICKED) | KEY(CT_KEY_MAX) | KEY(CT_KEY_POOLING),
    [CT_FIELD_SIMILARITY] = KEY(CT_KEY_OF) | KEY(CT_KEY_VECTOR) | KEY(CT_KEY_TIERS),
};
enum { KINDS = sizeof allowed_keys / sizeof allowed_keys[0] };

typedef struct loader {
    const char *path;
    ct_arena *arena;
    ct_yaml_schema yaml;
    ct_schema *schema;
    ct_status *status;
} loader;

/* "PATH:LINE: field 'NAME': ..."; the line is the key's, or the entry's for CT_KEYS and for a key that is not there. */
static ct_code CT_PRINTF(4, 5) fail_field(const loader *l, size_t f, ct_key key, const char *format, ...) {
    const ct_yaml_field *field = &l->yaml.fields[f];
    const int line = key < CT_KEYS && field->key_line[key] ? field->key_line[key] : field->line;
    char text[CT_STATUS_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!field->value[CT_KEY_NAME]) return ct_fail(l->status, CT_INVALID, "%s:%d: field %zu: %s", l->path, line, f + 1, text);
    return ct_fail(l->status, CT_INVALID, "%s:%d: field '%.256s': %s", l->path, line, field->value[CT_KEY_NAME], text);
}

/* --- format --- */

static ct_code load_format(loader *l) {
    ct_schema *schema = l->schema;
    const char *separator = l->yaml.format[CT_FORMAT_SEPARATOR];
    const char *header = l->yaml.format[CT_FORMAT_HEADER];
    const char *columns = l->yaml.format[CT_FORMAT_COLUMNS];
    schema->separator = '\t';
    if (separator) {
        if (strlen(separator) != 1 || separator[0] == '\n' || separator[0] == '\r') {
            return ct_fail(l->status, CT_INVALID, "%s:%d: format: separator must be one byte; a tab is \"\\t\" in double quotes", l->path,
                           l->yaml.format_line[CT_FORMAT_SEPARATOR]);
        }
        schema->separator = separator[0];
    }
    if (header && strcmp(header, "true") != 0 && strcmp(header, "false") != 0) {
        return ct_fail(l->status, CT_INVALID, "%s:%d: format: header '%s' is neither true nor false", l->path,
                       l->yaml.format_line[CT_FORMAT_HEADER], header);
    }
    schema->header = header && strcmp(header, "true") == 0;
    if (columns) {
        int64_t count;
        if (!ct_parse_i64(columns, strlen(columns), &count) || count < 1 || count > COLUMNS_MAX) {
            return ct_fail(l->status, CT_INVALID, "%s:%d: format: columns '%s' is no number from 1 to %d", l->path,
                           l->yaml.format_line[CT_FORMAT_COLUMNS], columns, COLUMNS_MAX);
        }
        schema->columns = (size_t)count;
    } else if (!schema->header) {
        return ct_fail(l->status, CT_INVALID,
                       "%s:1: format: columns is missing: without a header the number of columns of a line must be told", l->path);
    }
    return CT_OK;
}

/* --- fields, each by itself --- */

static ct_code load_choice(loader *l, size_t f, ct_key key, const char *const *names, int *out_index) {
    const char *value = l->yaml.fields[f].value[key];
    if (!value) return CT_OK;
    for (int i = 0; i < 2; i++) {
        if (strcmp(value, names[i]) == 0) {
            *out_index = i;
            return CT_OK;
        }
    }
    return fail_field(l, f, key, "%s '%s' is neither %s nor %s", ct_key_names[key], value, names[0], names[1]);
}

static ct_code load_name(loader *l, size_t f) {
    const char *name = l->yaml.fields[f].value[CT_KEY_NAME];
    if (!name || !name[0]) return fail_field(l, f, CT_KEY_NAME, "name is missing");
    const size_t bytes = strlen(name);
    if (bytes > NAME_MAX_BYTES) return fail_field(l, f, CT_KEY_NAME, "the name is longer than %d bytes", NAME_MAX_BYTES);
    for (size_t i = 0; i < bytes; i++) {
        if (!ct_name_may_hold(name[i])) return fail_field(l, f, CT_KEY_NAME, "a name may hold neither '/' nor control characters");
    }
    l->schema->fields[f].name = name;
    return CT_OK;
}

static ct_code load_kind(loader *l, size_t f) {
    const ct_yaml_field *yaml = &l->yaml.fields[f];
    const char *kind = yaml->value[CT_KEY_KIND];
    int found = -1;
    if (!kind) return fail_field(l, f, CT_KEY_KIND, "kind is missing: %s", kind_keys);
    for (int k = 0; k < KINDS; k++) {
        if (strcmp(kind, ct_field_kind_name((ct_field_kind)k)) == 0) found = k;
    }
    if (found < 0) return fail_field(l, f, CT_KEY_KIND, "kind '%s' is none of %s", kind, kind_keys);
    l->schema->fields[f].kind = (ct_field_kind)found;
    if (found == CT_FIELD_VECTOR && yaml->value[CT_KEY_COLUMN]) {
        return fail_field(l, f, CT_KEY_COLUMN, "column cannot stand in a vector: its values are chosen by the id field that `of` names");
    }
    if (yaml->value[CT_KEY_OF] && !(allowed_keys[found] & KEY(CT_KEY_OF))) {
        return fail_field(l, f, CT_KEY_OF, "`of` is for a vector and for what follows from a history; a field of kind %s has a column",
                          kind);
    }
    if (found == CT_FIELD_NUMBER && yaml->value[CT_KEY_OF] && (yaml->value[CT_KEY_COLUMN] || yaml->value[CT_KEY_SIDE])) {
        return fail_field(l, f, CT_KEY_OF, "a number has `column` and `side`, or `of`: then it counts that history's values");
    }
    l->schema->fields[f].derived =
        found == CT_FIELD_HISTORY || found == CT_FIELD_SIMILARITY || (found == CT_FIELD_NUMBER && yaml->value[CT_KEY_OF]);
    for (int key = CT_KEY_COLUMN; key < CT_KEYS; key++) {
        if (yaml->value[key] && !(allowed_keys[found] & KEY(key))) {
            return fail_field(l, f, (ct_key)key, "%s means nothing for a field of kind %s", ct_key_names[key], kind);
        }
    }
    return CT_OK;
}

static ct_code load_column(loader *l, size_t f) {
    const ct_schema *schema = l->schema;
    ct_field *field = &l->schema->fields[f];
    const char *column = l->yaml.fields[f].value[CT_KEY_COLUMN];
    int64_t position;
    field->column = -1;
    if (field->kind == CT_FIELD_VECTOR || field->derived) return CT_OK;
    if (!column || !column[0]) return fail_field(l, f, CT_KEY_COLUMN, "column is missing");
    if (!ct_parse_i64(column, strlen(column), &position)) {
        if (!schema->header) {
            return fail_field(l, f, CT_KEY_COLUMN, "column '%s' is no position; names need `header: true` in the format", column);
        }
        field->column_name = column;
        return CT_OK;
    }
    if (position < 1) return fail_field(l, f, CT_KEY_COLUMN, "column %s: positions start at 1", column);
    if (position > COLUMNS_MAX) return fail_field(l, f, CT_KEY_COLUMN, "column %s: a line has at most %d columns", column, COLUMNS_MAX);
    if (schema->columns && (size_t)position > schema->columns) {
        return fail_field(l, f, CT_KEY_COLUMN, "column %s is beyond the %zu columns of the format", column, schema->columns);
    }
    field->column = position - 1;
    return CT_OK;
}

/* A number from 1 to `most`; one that is not given leaves *out as it is. */
static ct_code load_count(loader *l, size_t f, ct_key key, int64_t most, uint32_t *out) {
    const char *text = l->yaml.fields[f].value[key];
    int64_t count;
    if (!text) return CT_OK;
    if (!ct_parse_i64(text, strlen(text), &count) || count < 1 || count > most) {
        return fail_field(l, f, key, "%s '%s' is no number from 1 to %lld", ct_key_names[key], text, (long long)most);
    }
    *out = (uint32_t)count;
    return CT_OK;
}

static ct_code load_values(loader *l, size_t f) {
    const ct_yaml_field *yaml = &l->yaml.fields[f];
    ct_field *field = &l->schema->fields[f];
    const char *separator = yaml->value[CT_KEY_SEPARATOR];
    int newest = 1;
    field->max_values = 1;
    if (field->kind == CT_FIELD_HISTORY) {
        field->value_separator = ',';
        field->max_values = VALUES_DEFAULT;
        return load_count(l, f, CT_KEY_MAX, CT_HISTORY_MAX_VALUES, &field->max_values);
    }
    if (field->kind == CT_FIELD_SIMILARITY) {
        field->tiers = TIERS_DEFAULT;
        return load_count(l, f, CT_KEY_TIERS, CT_SIMILARITY_MAX_TIERS, &field->tiers);
    }
    if (!separator) {
        if (yaml->value[CT_KEY_MAX]) return fail_field(l, f, CT_KEY_MAX, "max needs a separator: without one a row has one value");
        if (yaml->value[CT_KEY_NEWEST]) return fail_field(l, f, CT_KEY_NEWEST, "newest needs a separator: without one a row has one value");
        return CT_OK;
    }
    if (strlen(separator) != 1 || separator[0] == '\n' || separator[0] == '\r') {
        return fail_field(l, f, CT_KEY_SEPARATOR, "separator must be one byte");
    }
    if (separator[0] == l->schema->separator) {
        return fail_field(l, f, CT_KEY_SEPARATOR, "separator is the one that stands between columns");
    }
    field->value_separator = separator[0];
    field->max_values = VALUES_DEFAULT;
    CT_TRY(load_count(l, f, CT_KEY_MAX, VALUES_MAX, &field->max_values));
    CT_TRY(load_choice(l, f, CT_KEY_NEWEST, (const char *const[]){"first", "last"}, &newest));
    field->newest_first = newest == 0;
    return CT_OK;
}

/* A file's name against the schema's folder; an absolute one stands alone. */
static ct_code resolve(loader *l, const char *name, const char **out_path) {
    const char *slash = strrchr(l->path, '/');
    const size_t folder = slash && name[0] != '/' ? (size_t)(slash - l->path) + 1 : 0;
    const size_t bytes = strlen(name);
    char *path = ct_arena_alloc(l->arena, folder + bytes + 1);
    if (!path) return ct_fail_memory(l->status, folder + bytes + 1, "a path");
    memcpy(path, l->path, folder);
    memcpy(path + folder, name, bytes + 1);
    *out_path = path;
    return CT_OK;
}

static ct_code load_field(loader *l, size_t f) {
    const ct_yaml_field *yaml = &l->yaml.fields[f];
    ct_field *field = &l->schema->fields[f];
    int side = CT_SIDE_CANDIDATE, type = CT_ID_TEXT, time_unit = CT_TIME_SECONDS, clicked = 0, pooling = 0;
    CT_TRY(load_name(l, f));
    CT_TRY(load_kind(l, f));
    CT_TRY(load_column(l, f));
    CT_TRY(load_choice(l, f, CT_KEY_SIDE, (const char *const[]){"context", "candidate"}, &side));
    CT_TRY(load_choice(l, f, CT_KEY_TYPE, (const char *const[]){"text", "integer"}, &type));
    CT_TRY(load_choice(l, f, CT_KEY_TIME_UNIT, (const char *const[]){"seconds", "milliseconds"}, &time_unit));
    CT_TRY(load_choice(l, f, CT_KEY_CLICKED, (const char *const[]){"false", "true"}, &clicked));
    CT_TRY(load_choice(l, f, CT_KEY_POOLING, (const char *const[]){"mean", "attention"}, &pooling));
    CT_TRY(load_values(l, f));
    field->clicked = clicked == 1;
    field->attention = pooling == 1;
    field->side = (ct_side)side;
    field->id_type = (ct_id_type)type;
    field->time_unit = (ct_time_unit)time_unit;
    field->shares = yaml->value[CT_KEY_SHARES];
    if (yaml->value[CT_KEY_AT_LEAST]) {
        const char *text = yaml->value[CT_KEY_AT_LEAST];
        if (!ct_parse_f64(text, strlen(text), &field->at_least))
            return fail_field(l, f, CT_KEY_AT_LEAST, "at_least '%s' is no number", text);
        field->has_at_least = true;
    }
    if (field->kind == CT_FIELD_VECTOR) {
        if (!yaml->value[CT_KEY_OF]) return fail_field(l, f, CT_KEY_OF, "`of` is missing: the id field that chooses the vector");
        if (!yaml->value[CT_KEY_FILE] || !yaml->value[CT_KEY_FILE][0]) return fail_field(l, f, CT_KEY_FILE, "file is missing");
        CT_TRY(resolve(l, yaml->value[CT_KEY_FILE], &field->vector_path));
        if (yaml->value[CT_KEY_IDS]) CT_TRY(resolve(l, yaml->value[CT_KEY_IDS], &field->vector_ids_path));
    }
    return CT_OK;
}

/* --- fields, together --- */

static ct_code link_id(loader *l, size_t f) {
    ct_field *field = &l->schema->fields[f];
    const char *owner = field->name;
    if (field->shares) {
        const int64_t other = ct_schema_find(l->schema, field->shares);
        if (other < 0) return fail_field(l, f, CT_KEY_SHARES, "shares '%s', which is no field", field->shares);
        const ct_field *shared = &l->schema->fields[other];
        if (shared->kind != CT_FIELD_ID) {
            return fail_field(l, f, CT_KEY_SHARES, "shares '%s', which is a %s, not an id", field->shares,
                              ct_field_kind_name(shared->kind));
        }
        if ((size_t)other == f) return fail_field(l, f, CT_KEY_SHARES, "shares its own rows");
        if (shared->shares) {
            return fail_field(l, f, CT_KEY_SHARES, "shares '%s', which itself shares '%s': name that one", field->shares, shared->shares);
        }
        if (shared->id_type != field->id_type) {
            return fail_field(l, f, CT_KEY_SHARES, "shares '%s', which has another type (text and integer tokens have different keys)",
                              field->shares);
        }
        owner = field->shares;
    }
    field->salt = ct_hash64(owner, strlen(owner), 0);
    return CT_OK;
}

static ct_code link_vector(loader *l, size_t f) {
    ct_field *field = &l->schema->fields[f];
    const char *name = l->yaml.fields[f].value[CT_KEY_OF];
    const int64_t of = ct_schema_find(l->schema, name);
    if (of < 0) return fail_field(l, f, CT_KEY_OF, "of '%s', which is no field", name);
    const ct_field *id = &l->schema->fields[of];
    if (id->kind != CT_FIELD_ID)
        return fail_field(l, f, CT_KEY_OF, "of '%s', which is a %s, not an id", name, ct_field_kind_name(id->kind));
    field->of = (size_t)of;
    field->side = id->side;
    field->id_type = id->id_type;
    field->value_separator = id->value_separator;
    field->max_values = id->max_values;
    field->newest_first = id->newest_first;
    return CT_OK;
}

/* The field that a key names. */
static ct_code find_named(loader *l, size_t f, ct_key key, const char *what, ct_field_kind kind, size_t *out_field) {
    const char *name = l->yaml.fields[f].value[key];
    if (!name) return fail_field(l, f, key, "`%s` is missing: %s", ct_key_names[key], what);
    const int64_t found = ct_schema_find(l->schema, name);
    if (found < 0) return fail_field(l, f, key, "%s '%s', which is no field", ct_key_names[key], name);
    const ct_field_kind is = l->schema->fields[found].kind;
    if (is != kind) {
        return fail_field(l, f, key, "%s '%s', which is of kind %s, not %s", ct_key_names[key], name, ct_field_kind_name(is),
                          ct_field_kind_name(kind));
    }
    *out_field = (size_t)found;
    return CT_OK;
}

static ct_code link_history(loader *l, size_t f) {
    ct_field *field = &l->schema->fields[f];
    CT_TRY(find_named(l, f, CT_KEY_OF, "the id field whose values it keeps", CT_FIELD_ID, &field->of));
    const ct_field *id = &l->schema->fields[field->of];
    if (id->value_separator) return fail_field(l, f, CT_KEY_OF, "of '%s', which has several values a row; it must have one", id->name);
    if (ct_schema_find_kind(l->schema, CT_FIELD_UNIT) < 0) {
        return fail_field(l, f, CT_KEY_KIND, "a history is a unit's, and the schema has no field of kind unit");
    }
    if (field->clicked && ct_schema_find_kind(l->schema, CT_FIELD_LABEL) < 0) {
        return fail_field(l, f, CT_KEY_CLICKED, "what was clicked is told by a label, and the schema has none");
    }
    field->side = field->attention ? id->side : CT_SIDE_CONTEXT;
    field->id_type = id->id_type;
    field->salt = id->salt;
    return CT_OK;
}

/* A similarity, and a number that counts. */
static ct_code link_derived(loader *l, size_t f) {
    ct_field *field = &l->schema->fields[f];
    CT_TRY(find_named(l, f, CT_KEY_OF, "the history", CT_FIELD_HISTORY, &field->of));
    const ct_field *history = &l->schema->fields[field->of];
    field->side = CT_SIDE_CONTEXT;
    if (field->kind == CT_FIELD_NUMBER) return CT_OK;
    CT_TRY(find_named(l, f, CT_KEY_VECTOR, "the vector field that it compares", CT_FIELD_VECTOR, &field->vector));
    const ct_field *vector = &l->schema->fields[field->vector];
    if (vector->of != history->of) {
        return fail_field(l, f, CT_KEY_VECTOR, "vector '%s' is of '%s', but the history '%s' is of '%s'", vector->name,
                          l->schema->fields[vector->of].name, history->name, l->schema->fields[history->of].name);
    }
    field->side = vector->side;
    field->id_type = history->id_type;
    field->value_separator = history->value_separator;
    field->max_values = history->max_values;
    return CT_OK;
}

/* Open addressing over the names: thousands of fields must not cost millions of comparisons. */
static ct_code check_names(loader *l) {
    enum { SLOTS = 4 * CT_SCHEMA_MAX_FIELDS };
    uint16_t *slots = ct_arena_zalloc(l->arena, SLOTS, sizeof *slots); /* 0 = empty, else field + 1 */
    if (!slots) return ct_fail_memory(l->status, SLOTS * sizeof *slots, "the schema's names");
    for (size_t f = 0; f < l->schema->field_count; f++) {
        const char *name = l->schema->fields[f].name;
        size_t at = ct_hash64(name, strlen(name), 0) % SLOTS;
        for (; slots[at]; at = (at + 1) % SLOTS) {
            const size_t other = slots[at] - 1u;
            if (strcmp(l->schema->fields[other].name, name) != 0) continue;
            return fail_field(l, f, CT_KEY_NAME, "the name is used twice; first on line %d", l->yaml.fields[other].line);
        }
        slots[at] = (uint16_t)(f + 1);
    }
    return CT_OK;
}

static ct_code check_kinds(loader *l) {
    for (int kind = CT_FIELD_LABEL; kind <= CT_FIELD_UNIT; kind++) {
        int64_t first = -1;
        for (size_t f = 0; f < l->schema->field_count; f++) {
            if (l->schema->fields[f].kind != (ct_field_kind)kind) continue;
            if (first >= 0) {
                return fail_field(l, f, CT_KEY_KIND, "a second %s: '%s' on line %d is one already, and a schema has at most one",
                                  ct_field_kind_name((ct_field_kind)kind), l->schema->fields[first].name, l->yaml.fields[first].line);
            }
            first = (int64_t)f;
        }
    }
    return CT_OK;
}

static ct_code hash_schema(loader *l) {
    ct_schema *schema = l->schema;
    uint64_t running = ct_hash64("schema", 6, 0);
    for (size_t f = 0; f < schema->field_count; f++) {
        char rule[CT_FIELD_RULE_BYTES];
        uint64_t words[3];
        ct_field_rule(&schema->fields[f], rule);
        schema->fields[f].hash = ct_hash64(rule, strlen(rule), 0);
        words[0] = running;
        words[1] = ct_hash64(schema->fields[f].name, strlen(schema->fields[f].name), 0);
        words[2] = schema->fields[f].hash + schema->fields[f].attention; /* decides what a model is, not what the column holds */
        running = ct_hash64(words, sizeof words, 0);
    }
    schema->hash = running;
    return CT_OK;
}

static ct_code load_all(loader *l, const char *text, size_t bytes) {
    ct_schema *schema = l->schema;
    CT_TRY(ct_yaml_schema_parse(text, bytes, l->path, l->arena, &l->yaml, l->status));
    if (!l->yaml.name || !l->yaml.name[0]) return ct_fail(l->status, CT_INVALID, "%s:1: the schema's name is missing", l->path);
    if (!l->yaml.field_count) {
        return ct_fail(l->status, CT_INVALID, "%s:%d: the schema has no fields", l->path, l->yaml.fields_line ? l->yaml.fields_line : 1);
    }
    schema->name = l->yaml.name;
    schema->text = ct_arena_strndup(l->arena, text, bytes);
    schema->text_bytes = bytes;
    schema->field_count = l->yaml.field_count;
    schema->fields = ct_arena_zalloc(l->arena, schema->field_count, sizeof *schema->fields);
    if (!schema->text || !schema->fields) return ct_fail_memory(l->status, bytes, "the schema");
    CT_TRY(load_format(l));
    for (size_t f = 0; f < schema->field_count; f++) CT_TRY(load_field(l, f));
    CT_TRY(check_names(l));
    CT_TRY(check_kinds(l));
    for (size_t f = 0; f < schema->field_count; f++) {
        if (schema->fields[f].kind == CT_FIELD_ID) CT_TRY(link_id(l, f));
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        if (schema->fields[f].kind == CT_FIELD_VECTOR) CT_TRY(link_vector(l, f));
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        if (schema->fields[f].kind == CT_FIELD_HISTORY) CT_TRY(link_history(l, f));
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        if (schema->fields[f].derived && schema->fields[f].kind != CT_FIELD_HISTORY) CT_TRY(link_derived(l, f));
    }
    return hash_schema(l);
}

/* --- public --- */

ct_code ct_schema_parse(const char *text, size_t bytes, const char *path, ct_schema **out_schema, ct_status *status) {
    ct_schema *schema = calloc(1, sizeof *schema);
    ct_arena *arena = calloc(1, sizeof *arena);
    if (!schema || !arena) {
        free(schema);
        free(arena);
        return ct_fail_memory(status, sizeof *schema, "the schema");
    }
    ct_arena_init(arena, 0);
    schema->owner = arena;
    loader l = {.path = path, .arena = arena, .schema = schema, .status = status};
    const ct_code code = load_all(&l, text, bytes);
    if (code != CT_OK) {
        ct_schema_destroy(schema);
        return code;
    }
    *out_schema = schema;
    return CT_OK;
}

ct_code ct_schema_load(const char *name_or_path, ct_schema **out_schema, ct_status *status) {
    char *text = NULL;
    size_t bytes = 0;
    if (strcmp(name_or_path, "criteo") == 0) {
        return ct_schema_parse(ct_schema_criteo, strlen(ct_schema_criteo), "criteo", out_schema, status);
    }
    ct_code code = ct_file_read(name_or_path, SCHEMA_MAX_BYTES, &text, &bytes, status);
    if (code == CT_NOT_FOUND) {
        return ct_fail(status, CT_NOT_FOUND, "schema '%s' is neither a file nor built in (built in: criteo)", name_or_path);
    }
    if (code != CT_OK) return ct_fail_within(status, "schema");
    code = ct_schema_parse(text, bytes, name_or_path, out_schema, status);
    free(text);
    return code;
}

void ct_schema_destroy(ct_schema *schema) {
    if (!schema) return;
    ct_arena_deinit(schema->owner);
    free(schema->owner);
    free(schema);
}

int64_t ct_schema_find(const ct_schema *schema, const char *name) {
    for (size_t f = 0; f < schema->field_count; f++) {
        if (strcmp(schema->fields[f].name, name) == 0) return (int64_t)f;
    }
    return -1;
}

int64_t ct_schema_find_kind(const ct_schema *schema, ct_field_kind kind) {
    int64_t found = -1;
    for (size_t f = 0; f < schema->field_count; f++) {
        if (schema->fields[f].kind != kind) continue;
        if (found >= 0) return -1;
        found = (int64_t)f;
    }
    return found;
}
