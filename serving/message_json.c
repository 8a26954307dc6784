#include "serving/message_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"

enum { PATH_BYTES = 160, SHOWN_BYTES = 60 };

/* Where we are, for messages: "candidates[2].numbers[7]". */
typedef struct place {
    char text[PATH_BYTES];
} place;

static place place_member(const place *at, const char *name) {
    place inner;
    (void)snprintf(inner.text, sizeof inner.text, "%.100s%s%.50s", at->text, at->text[0] ? "." : "", name);
    return inner;
}

static place place_item(const place *at, size_t index) {
    place inner;
    (void)snprintf(inner.text, sizeof inner.text, "%.130s[%zu]", at->text, index);
    return inner;
}

static const char *type_name(const json_t *json) {
    switch (json_typeof(json)) {
        case JSON_OBJECT:
            return "an object";
        case JSON_ARRAY:
            return "an array";
        case JSON_STRING:
            return "a string";
        case JSON_INTEGER:
        case JSON_REAL:
            return "a number";
        case JSON_TRUE:
        case JSON_FALSE:
            return "true or false";
        default:
            return "null";
    }
}

static ct_code wrong_type(const place *at, const char *wanted, const json_t *got, ct_status *status) {
    return ct_fail(status, CT_INVALID, "%s must be %s, not %s", at->text[0] ? at->text : "the request", wanted, type_name(got));
}

/* --- one value --- */

/* A whole number, or its decimal text, as 64-bit integers are written for JavaScript. */
static ct_code read_integer(const place *at, const json_t *json, int64_t low, int64_t high, int64_t *out, ct_status *status) {
    int64_t value;
    char shown[SHOWN_BYTES];
    if (json_is_integer(json)) {
        value = json_integer_value(json);
    } else if (json_is_string(json)) {
        if (!ct_parse_i64(json_string_value(json), json_string_length(json), &value))
            return ct_fail(status, CT_INVALID, "%s is \"%s\": a whole number is wanted", at->text,
                           ct_text_show(json_string_value(json), json_string_length(json), shown, sizeof shown));
    } else if (json_is_real(json) && json_real_value(json) == floor(json_real_value(json)) && fabs(json_real_value(json)) < 0x1p53) {
        value = (int64_t)json_real_value(json);
    } else {
        return json_is_real(json)
                   ? ct_fail(status, CT_INVALID,
                             "%s is %.17g: a whole number is wanted; one from 2^53 on without a point or an exponent, or as a text",
                             at->text, json_real_value(json))
                   : wrong_type(at, "a whole number", json, status);
    }
    if (value < low || value > high)
        return ct_fail(status, CT_INVALID, "%s is %lld: from %lld to %lld is allowed", at->text, (long long)value, (long long)low,
                       (long long)high);
    *out = value;
    return CT_OK;
}

/* The words for what has no number in JSON. */
static bool read_word(const json_t *json, double *out) {
    static const struct {
        const char *text;
        double value;
    } words[] = {{"NaN", (double)NAN}, {"Infinity", (double)INFINITY}, {"-Infinity", -(double)INFINITY}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(json_string_value(json), words[i].text) != 0) continue;
        *out = words[i].value;
        return true;
    }
    return false;
}

static ct_code read_double(const place *at, const json_t *json, double *out, ct_status *status) {
    char shown[SHOWN_BYTES];
    if (json_is_string(json)) {
        if (read_word(json, out) || ct_parse_f64(json_string_value(json), json_string_length(json), out)) return CT_OK;
        return ct_fail(status, CT_INVALID, "%s is \"%s\": a number is wanted", at->text,
                       ct_text_show(json_string_value(json), json_string_length(json), shown, sizeof shown));
    }
    if (!json_is_number(json)) return wrong_type(at, "a number", json, status);
    *out = json_number_value(json);
    return CT_OK;
}

static ct_code read_float(const place *at, const json_t *json, float *out, ct_status *status) {
    if (json_is_string(json)) {
        double word = 0.0;
        if (read_word(json, &word)) {
            *out = (float)word;
            return CT_OK;
        }
        char shown[SHOWN_BYTES];
        if (ct_parse_f32(json_string_value(json), json_string_length(json), out)) return CT_OK;
        return ct_fail(status, CT_INVALID, "%s is \"%s\": a number is wanted", at->text,
                       ct_text_show(json_string_value(json), json_string_length(json), shown, sizeof shown));
    }
    if (!json_is_number(json)) return wrong_type(at, "a number", json, status);
    const double value = json_number_value(json);
    if (fabs(value) >= 0x1.ffffffp127) /* halfway beyond the largest float */
        return ct_fail(status, CT_INVALID, "%s is %g: too large for a float", at->text, value);
    *out = (float)value;
    return CT_OK;
}

static ct_code read_message(ct_arena *arena, const ProtobufCMessageDescriptor *type, const place *at, const json_t *json,
                            ProtobufCMessage **out, ct_status *status);

/* Writes the value to `out`, which has room for one of the field's type. */
static ct_code read_value(ct_arena *arena, const ProtobufCFieldDescriptor *field, const place *at, const json_t *json, void *out,
                          ct_status *status) {
    int64_t integer;
    switch (field->type) {
        case PROTOBUF_C_TYPE_BYTES:
            if (!json_is_string(json)) return wrong_type(at, "a string", json, status);
            *(ProtobufCBinaryData *)out = (ProtobufCBinaryData){json_string_length(json), (uint8_t *)(uintptr_t)json_string_value(json)};
            return CT_OK;
        case PROTOBUF_C_TYPE_FLOAT:
            return read_float(at, json, out, status);
        case PROTOBUF_C_TYPE_DOUBLE:
            return read_double(at, json, out, status);
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
            return read_integer(at, json, INT64_MIN, INT64_MAX, out, status);
        case PROTOBUF_C_TYPE_UINT32:
            CT_TRY(read_integer(at, json, 0, UINT32_MAX, &integer, status));
            *(uint32_t *)out = (uint32_t)integer;
            return CT_OK;
        case PROTOBUF_C_TYPE_BOOL:
            if (!json_is_boolean(json)) return wrong_type(at, "true or false", json, status);
            *(protobuf_c_boolean *)out = json_is_true(json);
            return CT_OK;
        case PROTOBUF_C_TYPE_MESSAGE:
            return read_message(arena, field->descriptor, at, json, out, status);
        default:
            return ct_fail(status, CT_UNSUPPORTED, "%s cannot be given as JSON", at->text);
    }
}

static size_t value_bytes(ProtobufCType type) {
    switch (type) {
        case PROTOBUF_C_TYPE_BYTES:
            return sizeof(ProtobufCBinaryData);
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64:
        case PROTOBUF_C_TYPE_DOUBLE:
            return sizeof(int64_t);
        case PROTOBUF_C_TYPE_BOOL:
            return sizeof(protobuf_c_boolean);
        case PROTOBUF_C_TYPE_MESSAGE:
            return sizeof(ProtobufCMessage *);
        default:
            return sizeof(uint32_t); /* also a float's */
    }
}

/* --- messages --- */

static ct_code read_list(ct_arena *arena, const ProtobufCFieldDescriptor *field, const place *at, const json_t *json, char *message,
                         ct_status *status) {
    if (!json_is_array(json)) return wrong_type(at, "an array", json, status);
    const size_t count = json_array_size(json), bytes = value_bytes(field->type);
    char *values = ct_arena_alloc(arena, count * bytes + 1);
    if (!values) return ct_fail_memory(status, count * bytes, "a request");
    for (size_t i = 0; i < count; i++) {
        const place item = place_item(at, i);
        CT_TRY(read_value(arena, field, &item, json_array_get(json, i), values + i * bytes, status));
    }
    *(size_t *)(void *)(message + field->quantifier_offset) = count;
    *(void **)(void *)(message + field->offset) = values;
    return CT_OK;
}

/* Is `name` the field's name in the .proto, or that in lowerCamelCase? */
static bool is_name_of(const ProtobufCFieldDescriptor *field, const char *name) {
    if (strcmp(field->name, name) == 0) return true;
    for (const char *at = field->name; *at != '\0'; at++, name++) {
        if (*at == '_' && at[1] >= 'a' && at[1] <= 'z') {
            if (*name != at[1] - 'a' + 'A') return false;
            at++;
        } else if (*at != *name) {
            return false;
        }
    }
    return *name == '\0';
}

static ct_code read_message(ct_arena *arena, const ProtobufCMessageDescriptor *type, const place *at, const json_t *json,
                            ProtobufCMessage **out, ct_status *status) {
    if (!json_is_object(json)) return wrong_type(at, "an object", json, status);
    ProtobufCMessage *message = ct_arena_alloc(arena, type->sizeof_message);
    bool *seen = ct_arena_zalloc(arena, type->n_fields + 1, sizeof *seen);
    if (!message || !seen) return ct_fail_memory(status, type->sizeof_message, "a request");
    type->message_init(message);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)json, name, value) {
        const ProtobufCFieldDescriptor *field = NULL;
        for (unsigned f = 0; f < type->n_fields && !field; f++)
            if (is_name_of(&type->fields[f], name)) field = &type->fields[f];
        char shown[SHOWN_BYTES];
        if (!field)
            return ct_fail(status, CT_INVALID, "%s%sunknown member \"%s\": see %s in clicktower.proto", at->text, at->text[0] ? ": " : "",
                           ct_text_show(name, strlen(name), shown, sizeof shown), type->short_name);
        const place member = place_member(at, field->name);
        if (seen[field - type->fields]) return ct_fail(status, CT_INVALID, "%s is given twice", member.text);
        seen[field - type->fields] = true;
        if (json_is_null(value)) continue;
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            int *chosen = (int *)(void *)((char *)message + field->quantifier_offset);
            if (*chosen) return ct_fail(status, CT_INVALID, "%s is given beside another member of its kind", member.text);
            *chosen = (int)field->id;
        }
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            CT_TRY(read_list(arena, field, &member, value, (char *)message, status));
        else
            CT_TRY(read_value(arena, field, &member, value, (char *)message + field->offset, status));
    }
    *out = message;
    return CT_OK;
}

ct_code ct_message_from_json(ct_arena *arena, const ProtobufCMessageDescriptor *type, const json_t *json, ProtobufCMessage **out_message,
                             ct_status *status) {
    const place at = {""};
    return read_message(arena, type, &at, json, out_message, status);
}

ct_code ct_message_pack_json(ct_arena *arena, const ProtobufCMessageDescriptor *type, const char *body, size_t bytes, uint8_t **out_packed,
                             size_t *out_bytes, ct_status *status) {
    json_t *json = NULL;
    if (ct_json_parse(body, bytes, "the body", &json, status) != CT_OK) return status->code = CT_INVALID;
    ProtobufCMessage *message = NULL;
    ct_code code = ct_message_from_json(arena, type, json, &message, status);
    if (code == CT_OK) {
        const size_t packed_bytes = protobuf_c_message_get_packed_size(message);
        uint8_t *packed = ct_arena_alloc(arena, packed_bytes + 1);
        if (packed) {
            *out_bytes = protobuf_c_message_pack(message, packed);
            *out_packed = packed;
        } else {
            code = ct_fail_memory(status, packed_bytes, "a request");
        }
    }
    json_decref(json);
    return code;
}

/* --- the other way --- */

/* NULL also where the field has its default value and `skip` says to leave that out. */
static json_t *write_value(const ProtobufCFieldDescriptor *field, const void *at, bool skip) {
    switch (field->type) {
        case PROTOBUF_C_TYPE_BYTES: {
            const ProtobufCBinaryData *text = at;
            return skip && text->len == 0 ? NULL : json_stringn(text->len ? (const char *)text->data : "", text->len);
        }
        case PROTOBUF_C_TYPE_FLOAT: {
            const float value = *(const float *)at;
            if (skip && value == 0) return NULL;
            if (isnan(value)) return json_string("NaN");
            if (isinf(value)) return json_string(value > 0 ? "Infinity" : "-Infinity");
            return json_real((double)value);
        }
        case PROTOBUF_C_TYPE_DOUBLE: {
            const double value = *(const double *)at;
            if (skip && value == 0) return NULL;
            if (isnan(value)) return json_string("NaN");
            if (isinf(value)) return json_string(value > 0 ? "Infinity" : "-Infinity");
            return json_real(value);
        }
        case PROTOBUF_C_TYPE_INT64:
        case PROTOBUF_C_TYPE_SINT64: {
            const int64_t value = *(const int64_t *)at;
            return skip && value == 0 ? NULL : json_integer(value);
        }
        case PROTOBUF_C_TYPE_UINT32: {
            const uint32_t value = *(const uint32_t *)at;
            return skip && value == 0 ? NULL : json_integer(value);
        }
        case PROTOBUF_C_TYPE_BOOL:
            return skip && !*(const protobuf_c_boolean *)at ? NULL : json_boolean(*(const protobuf_c_boolean *)at);
        case PROTOBUF_C_TYPE_MESSAGE: {
            const ProtobufCMessage *inner = *(ProtobufCMessage *const *)at;
            return inner ? ct_message_to_json(inner) : NULL;
        }
        default:
            return NULL;
    }
}

json_t *ct_message_to_json(const ProtobufCMessage *message) {
    const ProtobufCMessageDescriptor *type = message->descriptor;
    json_t *json = json_object();
    bool good = json != NULL;
    for (unsigned f = 0; f < type->n_fields && good; f++) {
        const ProtobufCFieldDescriptor *field = &type->fields[f];
        const char *at = (const char *)message + field->offset;
        const bool chosen = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
        if (chosen && *(const int *)(const void *)((const char *)message + field->quantifier_offset) != (int)field->id) continue;
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            json_t *value = write_value(field, at, !chosen);
            if (value) good = json_object_set_new(json, field->name, value) == 0;
            continue;
        }
        const size_t count = *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
        if (count == 0) continue;
        const char *values = *(char *const *)(const void *)at;
        json_t *list = json_array();
        for (size_t i = 0; i < count && good; i++)
            good = json_array_append_new(list, write_value(field, values + i * value_bytes(field->type), false)) == 0;
        good = json_object_set_new(json, field->name, list) == 0 && good;
    }
    if (good) return json;
    json_decref(json);
    return NULL;
}
