/* Two passes over the same text. libyaml's events give the place of every key (and refuse what is no YAML, a second document and NUL
 * characters, which C strings would cut in silence); libcyaml (base/yaml.h) checks the shape and gives the strings. */
#include "data/schema_yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/yaml.h"
#include "data/schema.h"

const char *const ct_key_names[CT_KEYS] = {"name",   "kind",   "column", "side", "at_least", "time_unit", "type",   "separator", "max",
                                           "newest", "shares", "of",     "file", "ids",      "clicked",   "vector", "tiers",     "pooling"};
static const char *const format_names[CT_FORMAT_KEYS] = {"separator", "header", "columns"};

/* --- places --- */

enum { MAX_DEPTH = 16 };

typedef struct level {
    bool mapping, value_next;
    int key; /* mapping: which known key stands before the value; -1 = another */
} level;

enum { TOP_NAME, TOP_FORMAT, TOP_FIELDS, TOP_KEYS };
static const char *const top_names[TOP_KEYS] = {"name", "format", "fields"};

typedef struct places {
    ct_yaml_schema *out;
    size_t capacity; /* of out->fields */
    ct_arena *arena;
    level levels[MAX_DEPTH];
    int depth;
    bool name_seen, format_seen, too_deep;
    char fault[512]; /* a wrong key; "" = none */
} places;

static int key_index(const char *const *names, int count, const char *text) {
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], text) == 0) return i;
    }
    return -1;
}

/* Is the parser inside an entry of `fields`, or inside `format`, at its own keys? */
static bool in_field(const places *p) {
    return p->depth == 3 && p->levels[0].key == TOP_FIELDS && !p->levels[1].mapping && p->levels[2].mapping;
}
static bool in_format(const places *p) { return p->depth == 2 && p->levels[0].key == TOP_FORMAT && p->levels[1].mapping; }

static bool new_entry(places *p, int line) {
    ct_yaml_schema *out = p->out;
    if (out->field_count == CT_SCHEMA_MAX_FIELDS) return true; /* one more entry is refused by libcyaml */
    if (out->field_count == p->capacity) {
        const size_t capacity = p->capacity ? 2 * p->capacity : 64;
        ct_yaml_field *fields = ct_arena_zalloc(p->arena, capacity, sizeof *fields);
        if (!fields) return false;
        if (out->field_count) memcpy(fields, out->fields, out->field_count * sizeof *fields);
        out->fields = fields;
        p->capacity = capacity;
    }
    out->fields[out->field_count++].line = line;
    return true;
}

/* A scalar in the place of a key. libcyaml would tell the line of the key before it. */
static void see_key(places *p, const char *text, int line) {
    static const char *const allowed[] = {
        "a schema has name, format and fields", "a format has separator, header and columns",
        "a field has name, kind, column, side, at_least, time_unit, type, separator, max, newest, shares, of, file, ids, "
        "clicked, vector, tiers, pooling"};
    ct_yaml_schema *out = p->out;
    level *top = &p->levels[p->depth - 1];
    ct_yaml_field *field = in_field(p) && out->field_count ? &out->fields[out->field_count - 1] : NULL;
    const char *name = field ? field->value[CT_KEY_NAME] : NULL;
    bool seen = false;
    int level_kind = 0;
    top->key = -1;
    if (p->depth == 1) {
        top->key = key_index(top_names, TOP_KEYS, text);
        if (top->key == TOP_FIELDS) {
            seen = out->fields_line != 0;
            out->fields_line = line;
        } else if (top->key >= 0) {
            bool *flag = top->key == TOP_NAME ? &p->name_seen : &p->format_seen;
            seen = *flag;
            *flag = true;
        }
    } else if (in_format(p)) {
        level_kind = 1;
        top->key = key_index(format_names, CT_FORMAT_KEYS, text);
        if (top->key >= 0) {
            seen = out->format_line[top->key] != 0;
            out->format_line[top->key] = line;
        }
    } else if (field) {
        level_kind = 2;
        top->key = key_index(ct_key_names, CT_KEYS, text);
        if (top->key >= 0) {
            seen = field->key_line[top->key] != 0;
            field->key_line[top->key] = line;
        }
    } else {
        return; /* at a place that libcyaml will refuse */
    }
    if ((top->key >= 0 && !seen) || p->fault[0]) return;
    (void)snprintf(p->fault, sizeof p->fault, "%s%.128s%sthe key '%.64s' %s%s", name ? "field '" : "", name ? name : "", name ? "': " : "",
                   text, seen ? "stands twice" : "is unknown: ", seen ? "" : allowed[level_kind]);
}

/* Takes one event; false when out of memory. */
static bool see_event(places *p, const yaml_event_t *event) {
    const int line = (int)event->start_mark.line + 1;
    level *top = p->depth ? &p->levels[p->depth - 1] : NULL;
    switch (event->type) {
        case YAML_SCALAR_EVENT:
        case YAML_ALIAS_EVENT:
        case YAML_MAPPING_START_EVENT:
        case YAML_SEQUENCE_START_EVENT:
            if (top && top->mapping && !top->value_next) {
                top->value_next = true;
                if (event->type == YAML_SCALAR_EVENT) {
                    see_key(p, (const char *)event->data.scalar.value, line);
                } else {
                    top->key = -1;
                }
            } else {
                /* The name of an entry, so that a complaint about a later key can tell it. */
                if (event->type == YAML_SCALAR_EVENT && in_field(p) && top->key == CT_KEY_NAME && p->out->field_count) {
                    const char *name = ct_arena_strndup(p->arena, (const char *)event->data.scalar.value, event->data.scalar.length);
                    if (!name) return false;
                    p->out->fields[p->out->field_count - 1].value[CT_KEY_NAME] = name;
                }
                if (p->depth == 2 && p->levels[0].key == TOP_FIELDS && !top->mapping && !new_entry(p, line)) return false;
                if (top) top->value_next = false;
            }
            if (event->type == YAML_MAPPING_START_EVENT || event->type == YAML_SEQUENCE_START_EVENT) {
                p->too_deep = p->depth == MAX_DEPTH;
                if (!p->too_deep) p->levels[p->depth++] = (level){event->type == YAML_MAPPING_START_EVENT, false, -1};
            }
            return true;
        case YAML_MAPPING_END_EVENT:
        case YAML_SEQUENCE_END_EVENT:
            p->depth--;
            return true;
        default:
            return true;
    }
}

static ct_code find_places(const char *text, size_t bytes, const char *path, ct_arena *arena, ct_yaml_schema *out, ct_status *status) {
    yaml_parser_t parser;
    places p = {.out = out, .arena = arena};
    int documents = 0;
    bool done = false;
    ct_code code = CT_OK;
    if (!yaml_parser_initialize(&parser)) return ct_fail_memory(status, sizeof parser, "the YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    while (code == CT_OK && !done) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            if (parser.error == YAML_MEMORY_ERROR) {
                code = ct_fail_memory(status, bytes, "the YAML parser");
            } else if (parser.error == YAML_READER_ERROR) { /* has no line: the text is no UTF-8 or holds a control character */
                size_t line = 1;
                for (size_t i = 0; i < bytes && i < parser.problem_offset; i++) line += text[i] == '\n';
                code = ct_fail(status, CT_INVALID, "%s:%zu: not a text in UTF-8: %s (byte %zu)", path, line,
                               parser.problem ? parser.problem : "?", parser.problem_offset);
            } else {
                code = ct_fail(status, CT_INVALID, "%s:%zu: not YAML: %s%s%s", path, parser.problem_mark.line + 1,
                               parser.problem ? parser.problem : "?", parser.context ? " " : "", parser.context ? parser.context : "");
            }
            break;
        }
        const size_t line = event.start_mark.line + 1;
        if (event.type == YAML_DOCUMENT_START_EVENT && ++documents > 1) {
            code = ct_fail(status, CT_INVALID, "%s:%zu: a second YAML document starts here: a schema is one", path, line);
        } else if (event.type == YAML_ALIAS_EVENT) {
            code = ct_fail(status, CT_INVALID, "%s:%zu: aliases are not read in a schema: write the value out", path, line);
        } else if (event.type == YAML_SCALAR_EVENT && strlen((const char *)event.data.scalar.value) != event.data.scalar.length) {
            code = ct_fail(status, CT_INVALID, "%s:%zu: a value holds a NUL character", path, line);
        } else if (!see_event(&p, &event)) {
            code = ct_fail_memory(status, bytes, "the schema");
        } else if (p.fault[0]) {
            code = ct_fail(status, CT_INVALID, "%s:%zu: %s", path, line, p.fault);
        } else if (p.too_deep) {
            code = ct_fail(status, CT_INVALID, "%s:%zu: nested deeper than a schema can be", path, line);
        }
        done = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return code;
}

/* --- shape --- */

typedef struct raw_field {
    char *value[CT_KEYS];
} raw_field;
typedef struct raw_format {
    char *value[CT_FORMAT_KEYS];
} raw_format;
typedef struct raw_schema {
    char *name;
    raw_format *format;
    raw_field *fields;
    unsigned fields_count;
} raw_schema;

#define OPTIONAL             (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define FIELD_STRING(n, key) CYAML_FIELD_STRING_PTR(n, OPTIONAL, raw_field, value[key], 0, 4096)
static const cyaml_schema_field_t field_schema[] = {FIELD_STRING("name", CT_KEY_NAME),
                                                    FIELD_STRING("kind", CT_KEY_KIND),
                                                    FIELD_STRING("column", CT_KEY_COLUMN),
                                                    FIELD_STRING("side", CT_KEY_SIDE),
                                                    FIELD_STRING("at_least", CT_KEY_AT_LEAST),
                                                    FIELD_STRING("time_unit", CT_KEY_TIME_UNIT),
                                                    FIELD_STRING("type", CT_KEY_TYPE),
                                                    FIELD_STRING("separator", CT_KEY_SEPARATOR),
                                                    FIELD_STRING("max", CT_KEY_MAX),
                                                    FIELD_STRING("newest", CT_KEY_NEWEST),
                                                    FIELD_STRING("shares", CT_KEY_SHARES),
                                                    FIELD_STRING("of", CT_KEY_OF),
                                                    FIELD_STRING("file", CT_KEY_FILE),
                                                    FIELD_STRING("ids", CT_KEY_IDS),
                                                    FIELD_STRING("clicked", CT_KEY_CLICKED),
                                                    FIELD_STRING("vector", CT_KEY_VECTOR),
                                                    FIELD_STRING("tiers", CT_KEY_TIERS),
                                                    FIELD_STRING("pooling", CT_KEY_POOLING),
                                                    CYAML_FIELD_END};
static const cyaml_schema_value_t field_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, raw_field, field_schema)};
#define FORMAT_STRING(n, key) CYAML_FIELD_STRING_PTR(n, OPTIONAL, raw_format, value[key], 0, 64)
static const cyaml_schema_field_t format_schema[] = {FORMAT_STRING("separator", CT_FORMAT_SEPARATOR),
                                                     FORMAT_STRING("header", CT_FORMAT_HEADER), FORMAT_STRING("columns", CT_FORMAT_COLUMNS),
                                                     CYAML_FIELD_END};
static const cyaml_schema_field_t schema_schema[] = {
    CYAML_FIELD_STRING_PTR("name", OPTIONAL, raw_schema, name, 0, 4096),
    CYAML_FIELD_MAPPING_PTR("format", OPTIONAL, raw_schema, format, format_schema),
    CYAML_FIELD_SEQUENCE("fields", OPTIONAL, raw_schema, fields, &field_value, 0, CT_SCHEMA_MAX_FIELDS), CYAML_FIELD_END};
static const cyaml_schema_value_t schema_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, raw_schema, schema_schema)};

/* libcyaml tells the number of an entry; its name, known from its place, helps more. */
static ct_code name_field(ct_status *status, const char *path, const ct_yaml_schema *places) {
    const size_t prefix = strlen(path) + 1;
    char message[CT_STATUS_MESSAGE_BYTES];
    const ct_yaml_field *field = NULL;
    if (status->code != CT_INVALID || strlen(status->message) <= prefix || status->message[prefix - 1] != ':') return status->code;
    const long line = strtol(status->message + prefix, NULL, 10);
    for (size_t f = 0; f < places->field_count; f++) {
        if (places->fields[f].line <= line) field = &places->fields[f];
    }
    if (!field || !field->value[CT_KEY_NAME]) return status->code;
    (void)snprintf(message, sizeof message, "%s", status->message);
    return ct_fail(status, CT_INVALID, "%s (in the field '%.256s')", message, field->value[CT_KEY_NAME]);
}

/* malloc'd by libcyaml to the arena's; an absent string stays NULL. */
static bool take_string(ct_arena *arena, const char *from, const char **to) {
    if (!from) return true;
    *to = ct_arena_strndup(arena, from, strlen(from));
    return *to != NULL;
}

ct_code ct_yaml_schema_parse(const char *text, size_t bytes, const char *path, ct_arena *arena, ct_yaml_schema *out, ct_status *status) {
    ct_yaml_schema schema = {0};
    raw_schema *raw = NULL;
    void *data = NULL;
    bool taken = true;
    ct_code code = CT_OK;

    CT_TRY(find_places(text, bytes, path, arena, &schema, status));
    if (ct_yaml_load(text, bytes, path, &schema_value, &data, status) != CT_OK) return name_field(status, path, &schema);
    raw = data;
    if (raw->fields_count != schema.field_count) {
        code = ct_fail(status, CT_INTERNAL, "%s: %u fields read, %zu seen", path, raw->fields_count, schema.field_count);
        goto fail;
    }
    taken = take_string(arena, raw->name, &schema.name);
    for (size_t k = 0; taken && raw->format && k < CT_FORMAT_KEYS; k++) {
        taken = take_string(arena, raw->format->value[k], &schema.format[k]);
    }
    for (size_t f = 0; f < schema.field_count; f++) {
        for (size_t k = 0; taken && k < CT_KEYS; k++) {
            schema.fields[f].value[k] = NULL;
            taken = take_string(arena, raw->fields[f].value[k], &schema.fields[f].value[k]);
        }
    }
    if (!taken) {
        code = ct_fail_memory(status, bytes, "the schema");
        goto fail;
    }
    *out = schema;
fail:
    ct_yaml_free(&schema_value, data);
    return code;
}
