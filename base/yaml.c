/* libcyaml takes a number's first characters and leaves the rest (16x is 16, 4e2 in a count is 4, 010 is 8), takes any word for true, and
 * tells of an unknown key by the line of what it stands in. So the document is first read by libyaml, and its keys, numbers and booleans
 * are held against the schema. What is left to libcyaml it reports by a log function: one line with the reason, then a backtrace from the
 * inside out, each with a position. The first of each is kept. */
#include "base/yaml.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/text.h"

enum { REASON_BYTES = 256, PLACE_BYTES = 256 };

typedef struct yaml_log {
    char reason[REASON_BYTES];
    char place[PLACE_BYTES]; /* "field 'layers' of 'cross'" */
    unsigned long line;
} yaml_log;

/* The name in quotes of a backtrace line, or NULL. Cuts the text behind it. */
static char *quoted(char *text) {
    char *begin = strchr(text, '\'');
    if (begin == NULL) return NULL;
    char *end = strchr(begin + 1, '\'');
    if (end == NULL) return NULL;
    *end = '\0';
    return begin + 1;
}

CT_PRINTF(3, 0) static void keep(cyaml_log_t level, void *context, const char *format, va_list arguments) {
    (void)level;
    yaml_log *log = context;
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\n")] = '\0';
    char *body = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
    if (strncmp(body, "Backtrace", 9) == 0) return;
    if (strncmp(body, "  in ", 5) != 0) {
        if (log->reason[0] == '\0') snprintf(log->reason, sizeof log->reason, "%.*s", (int)sizeof log->reason - 1, body);
        return;
    }
    const char *line = strstr(body, "(line: ");
    if (log->line == 0 && line != NULL && sscanf(line, "(line: %lu", &log->line) != 1) log->line = 0;
    const bool entry = strstr(body, "sequence entry") != NULL;
    const char *name = quoted(body);
    if (name == NULL) return;
    const size_t used = strlen(log->place);
    snprintf(log->place + used, sizeof log->place - used, "%s%s '%s'", used == 0 ? "" : " of ", entry ? "entry" : "field", name);
}

static cyaml_config_t config(yaml_log *log) {
    return (cyaml_config_t){.log_fn = log == NULL ? NULL : keep,
                            .log_ctx = log,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_WARNING,
                            .flags = CYAML_CFG_DEFAULT};
}

/* --- keys, numbers and booleans --- */

typedef struct strict_check {
    const char *path;
    yaml_document_t *document;
    ct_status *status;
    size_t *values; /* so far; an alias' count each time */
} strict_check;

typedef struct place { /* a field and those around it */
    const struct place *around;
    const char *name;
} place;

static const char *text_of(const yaml_node_t *node) { return (const char *)node->data.scalar.value; }

/* "FILE:LINE: field 'heat' of field 'oven': WHAT", without the fields at the top. */
static ct_code fail_at(const strict_check *check, const yaml_node_t *node, const place *at, const char *what) {
    char fields[PLACE_BYTES] = "";
    for (size_t used = 0; at != NULL && used < sizeof fields; at = at->around, used = strlen(fields))
        snprintf(fields + used, sizeof fields - used, "%sfield '%s'", used == 0 ? "" : " of ", at->name);
    return ct_fail(check->status, CT_INVALID, "%s:%zu: %s%s%s", check->path, node->start_mark.line + 1, fields,
                   fields[0] == '\0' ? "" : ": ", what);
}

static ct_code fail_text(const strict_check *check, const yaml_node_t *node, const place *at, const char *what) {
    char shown[64], text[128];
    snprintf(text, sizeof text, "'%s' %s", ct_text_show(text_of(node), node->data.scalar.length, shown, sizeof shown), what);
    return fail_at(check, node, at, text);
}

static bool is_whole(const char *text, size_t bytes) {
    int64_t value;
    const size_t sign = bytes > 0 && (text[0] == '-' || text[0] == '+') ? 1 : 0;
    return ct_parse_i64(text, bytes, &value) && (text[sign] != '0' || bytes == sign + 1);
}

static ct_code check_scalar(const strict_check *check, const yaml_node_t *node, cyaml_type_e type, const place *at) {
    const char *text = text_of(node);
    const size_t bytes = node->data.scalar.length;
    double real;
    if (strlen(text) != bytes) return fail_text(check, node, at, "holds a NUL character");
    if ((type == CYAML_INT || type == CYAML_UINT) && !is_whole(text, bytes)) return fail_text(check, node, at, "is not a whole number");
    if (type == CYAML_UINT && text[0] == '-') return fail_text(check, node, at, "is below 0");
    if (type == CYAML_FLOAT && !ct_parse_f64(text, bytes, &real)) return fail_text(check, node, at, "is not a number");
    if (type == CYAML_BOOL && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return fail_text(check, node, at, "is neither true nor false");
    return CT_OK;
}

static ct_code check_node(const strict_check *check, int index, const cyaml_schema_value_t *schema, const place *at);

static ct_code check_mapping(const strict_check *check, const yaml_node_t *node, const cyaml_schema_value_t *schema, const place *at) {
    const yaml_node_pair_t *first = node->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = first; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(check->document, pair->key);
        if (key == NULL || key->type != YAML_SCALAR_NODE || strlen(text_of(key)) != key->data.scalar.length)
            return fail_at(check, node, at, "a key is not a word");
        const cyaml_schema_field_t *field = schema->mapping.fields;
        while (field->key != NULL && strcmp(field->key, text_of(key)) != 0) field++;
        if (field->key == NULL) return fail_text(check, key, at, "is no key that is known here");
        for (const yaml_node_pair_t *earlier = first; earlier < pair; earlier++)
            if (strcmp(text_of(yaml_document_get_node(check->document, earlier->key)), text_of(key)) == 0)
                return fail_text(check, key, at, "stands here twice");
        CT_TRY(check_node(check, pair->value, &field->value, &(place){at, field->key}));
    }
    for (const cyaml_schema_field_t *field = schema->mapping.fields; field->key != NULL; field++) {
        bool there = (field->value.flags & CYAML_FLAG_OPTIONAL) != 0;
        for (const yaml_node_pair_t *pair = first; pair < node->data.mapping.pairs.top && !there; pair++)
            there = strcmp(text_of(yaml_document_get_node(check->document, pair->key)), field->key) == 0;
        if (!there) return fail_at(check, node, &(place){at, field->key}, "is missing");
    }
    return CT_OK;
}

static ct_code check_sequence(const strict_check *check, const yaml_node_t *node, const cyaml_schema_value_t *schema, const place *at) {
    const size_t entries = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    char text[128];
    for (const yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++)
        CT_TRY(check_node(check, *item, schema->sequence.entry, at));
    if (entries >= schema->sequence.min && entries <= schema->sequence.max) return CT_OK;
    const bool few = entries < schema->sequence.min;
    snprintf(text, sizeof text, "has %zu entr%s; it needs %s %u", entries, entries == 1 ? "y" : "ies", few ? "at least" : "at most",
             few ? schema->sequence.min : schema->sequence.max);
    return fail_at(check, node, at, text);
}

/* Goes as deep as the schema does. */
static ct_code check_node(const strict_check *check, int index, const cyaml_schema_value_t *schema, const place *at) {
    const yaml_node_t *node = yaml_document_get_node(check->document, index);
    if (node == NULL) return CT_OK;
    if (++*check->values > CT_YAML_MAX_VALUES) return fail_at(check, node, at, "more than a million values, aliases written out");
    switch (schema->type) {
        case CYAML_MAPPING:
            if (node->type != YAML_MAPPING_NODE) return fail_at(check, node, at, "must be a mapping (keys and values)");
            return check_mapping(check, node, schema, at);
        case CYAML_SEQUENCE:
        case CYAML_SEQUENCE_FIXED:
            if (node->type != YAML_SEQUENCE_NODE) return fail_at(check, node, at, "must be a list");
            return check_sequence(check, node, schema, at);
        case CYAML_FLAGS:
        case CYAML_BITFIELD:
        case CYAML_IGNORE:
            return CT_OK;
        default:
            if (node->type != YAML_SCALAR_NODE) return fail_at(check, node, at, "must be one value");
            return check_scalar(check, node, schema->type, at);
    }
}

/* One document, which libyaml reads soon: it takes time in proportion to the square of the depth, and of the number of anchors, so a MiB of
 * '[' would take hours. What is no YAML is left to whoever loads it. */
static ct_code check_shape(const char *text, size_t bytes, const char *path, ct_status *status) {
    yaml_parser_t parser;
    yaml_event_t event;
    size_t depth = 0, anchors = 0, documents = 0;
    ct_code code = CT_OK;
    if (!yaml_parser_initialize(&parser)) return ct_fail_memory(status, sizeof parser, "a YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    for (bool end = false; code == CT_OK && !end && yaml_parser_parse(&parser, &event);) {
        const yaml_char_t *anchor = NULL;
        switch (event.type) {
            case YAML_SEQUENCE_START_EVENT:
                anchor = event.data.sequence_start.anchor;
                depth++;
                break;
            case YAML_MAPPING_START_EVENT:
                anchor = event.data.mapping_start.anchor;
                depth++;
                break;
            case YAML_SEQUENCE_END_EVENT:
            case YAML_MAPPING_END_EVENT:
                depth--;
                break;
            case YAML_SCALAR_EVENT:
                anchor = event.data.scalar.anchor;
                break;
            case YAML_DOCUMENT_START_EVENT:
                documents++;
                break;
            default:
                end = event.type == YAML_STREAM_END_EVENT;
        }
        anchors += anchor != NULL;
        const size_t line = event.start_mark.line + 1;
        if (depth > CT_YAML_MAX_DEPTH)
            code = ct_fail(status, CT_INVALID, "%s:%zu: more than %d values inside each other", path, line, CT_YAML_MAX_DEPTH);
        else if (anchors > CT_YAML_MAX_ANCHORS)
            code = ct_fail(status, CT_INVALID, "%s:%zu: more than %d anchors", path, line, CT_YAML_MAX_ANCHORS);
        else if (documents > 1)
            code = ct_fail(status, CT_INVALID, "%s:%zu: a second YAML document starts here; one is read", path, line);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return code;
}

static ct_code check_strictly(const char *text, size_t bytes, const char *path, const cyaml_schema_value_t *schema, ct_status *status) {
    yaml_parser_t parser;
    yaml_document_t document;
    CT_TRY(check_shape(text, bytes, path, status));
    if (!yaml_parser_initialize(&parser)) return ct_fail_memory(status, sizeof parser, "a YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    ct_code code = CT_OK;
    if (yaml_parser_load(&parser, &document)) {
        size_t values = 0;
        const strict_check check = {path, &document, status, &values};
        code = check_node(&check, 1, schema, NULL);
        yaml_document_delete(&document);
    } else if (parser.error == YAML_MEMORY_ERROR) {
        code = ct_fail(status, CT_EXHAUSTED, "%s: out of memory while reading YAML", path);
    } else {
        const char *problem = parser.problem != NULL ? parser.problem : "?";
        if (parser.error == YAML_READER_ERROR)
            code = ct_fail(status, CT_INVALID, "%s:%zu: not a text in UTF-8: %s", path, parser.mark.line + 1, problem);
        else
            code = ct_fail(status, CT_INVALID, "%s:%zu: not YAML: %s%s%s", path, parser.problem_mark.line + 1, problem,
                           parser.context != NULL ? " " : "", parser.context != NULL ? parser.context : "");
    }
    yaml_parser_delete(&parser);
    return code;
}

ct_code ct_yaml_load(const char *text, size_t bytes, const char *path, const cyaml_schema_value_t *schema, void **out, ct_status *status) {
    yaml_log log = {"", "", 0};
    const cyaml_config_t loading = config(&log);
    void *data = NULL;
    if (bytes > 0) CT_TRY(check_strictly(text, bytes, path, schema, status));
    const cyaml_err_t error = bytes == 0 ? CYAML_OK : cyaml_load_data((const uint8_t *)text, bytes, &loading, schema, &data, NULL);
    if (error == CYAML_ERR_OOM) return ct_fail(status, CT_EXHAUSTED, "%s: out of memory while reading YAML", path);
    if (error == CYAML_OK && data == NULL) return ct_fail(status, CT_INVALID, "%s: the file is empty; it must be a YAML mapping", path);
    if (error == CYAML_OK) {
        *out = data;
        return CT_OK;
    }
    const char *reason = log.reason[0] != '\0' ? log.reason : cyaml_strerror(error);
    if (log.line == 0) return ct_fail(status, CT_INVALID, "%s: %s%s%s", path, log.place, log.place[0] == '\0' ? "" : ": ", reason);
    return ct_fail(status, CT_INVALID, "%s:%lu: %s%s%s", path, log.line, log.place, log.place[0] == '\0' ? "" : ": ", reason);
}

/* NULL where `node` is no mapping or lacks the key. */
static const yaml_node_t *value_of(yaml_document_t *document, const yaml_node_t *node, const char *key) {
    if (node == NULL || node->type != YAML_MAPPING_NODE) return NULL;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(document, pair->key);
        if (name->type == YAML_SCALAR_NODE && strcmp(text_of(name), key) == 0) return yaml_document_get_node(document, pair->value);
    }
    return NULL;
}

bool ct_yaml_is_list(const char *text, size_t bytes, const char *outer, const char *inner) {
    yaml_parser_t parser;
    yaml_document_t document;
    bool list = false;
    ct_status ignored = CT_STATUS_INIT; /* loading it says the same */
    if (check_shape(text, bytes, "", &ignored) != CT_OK || !yaml_parser_initialize(&parser)) return false;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    if (yaml_parser_load(&parser, &document)) {
        const yaml_node_t *value = value_of(&document, value_of(&document, yaml_document_get_root_node(&document), outer), inner);
        list = value != NULL && value->type == YAML_SEQUENCE_NODE;
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return list;
}

void ct_yaml_put_string(FILE *to, const char *text, size_t bytes) {
    (void)fputc('"', to);
    for (size_t i = 0, length; i < bytes; i += length) {
        uint32_t c = 0;
        length = ct_utf8_character(text + i, bytes - i, &c);
        if (length == 0) {
            length = 1;
            (void)fputs("\\ufffd", to);
        } else if (c == '"' || c == '\\')
            (void)fprintf(to, "\\%c", (char)c);
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
            (void)fprintf(to, "\\x%02x", c);
        else if (c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe || c == 0xffff) /* line ends; no characters of YAML's */
            (void)fprintf(to, "\\u%04x", c);
        else
            (void)fwrite(text + i, 1, length, to);
    }
    (void)fputc('"', to);
}

void ct_yaml_free(const cyaml_schema_value_t *schema, void *data) {
    const cyaml_config_t freeing = config(NULL);
    if (data != NULL) cyaml_free(&freeing, schema, data, 0);
}
