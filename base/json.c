/* JSON by jansson; its errors become ours at this border. */
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { MAX_FILE_BYTES = 256 * 1024 * 1024 };

ct_code ct_json_parse(const char *data, size_t bytes, const char *name, json_t **out_json, ct_status *status) {
    json_error_t error;
    json_t *json = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json) {
        if (json_error_code(&error) == json_error_out_of_memory) return ct_fail_memory(status, bytes, name);
        return ct_fail(status, CT_CORRUPT, "%s:%d: not valid JSON: %s", name, error.line > 0 ? error.line : 1, error.text);
    }
    *out_json = json;
    return CT_OK;
}

ct_code ct_json_load(const char *path, json_t **out_json, ct_status *status) {
    char *data;
    size_t bytes;
    CT_TRY(ct_file_read(path, MAX_FILE_BYTES, &data, &bytes, status));
    const ct_code code = ct_json_parse(data, bytes, path, out_json, status);
    free(data);
    return code;
}

typedef struct sink {
    ct_file_writer *writer;
    ct_status *status;
    ct_code code;
} sink;

static int sink_write(const char *buffer, size_t size, void *data) {
    sink *s = data;
    s->code = ct_file_writer_write(s->writer, buffer, size, s->status);
    return s->code == CT_OK ? 0 : -1;
}

ct_code ct_json_save(const char *path, const json_t *json, ct_status *status) {
    sink s = {.writer = NULL, .status = status, .code = CT_OK};
    CT_TRY(ct_file_writer_open(path, &s.writer, status));
    if (json_dump_callback(json, sink_write, &s, JSON_INDENT(2) | JSON_ENCODE_ANY) != 0) {
        if (s.code == CT_OK) s.code = ct_fail(status, CT_INTERNAL, "%s: a value that JSON cannot hold", path);
        goto fail;
    }
    CT_TRY_GOTO(s.code, ct_file_writer_write(s.writer, "\n", 1, status), fail);
    return ct_file_writer_commit(s.writer, status);
fail:
    ct_file_writer_abort(s.writer);
    return s.code;
}

json_t *ct_json_real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static ct_code wrong_member(const json_t *object, const char *member, const char *name, const char *expected, ct_status *status) {
    if (!json_is_object(object)) return ct_fail(status, CT_CORRUPT, "%s: \"%s\" must be in an object, and this is none", name, member);
    if (!json_object_get(object, member)) return ct_fail(status, CT_CORRUPT, "%s: \"%s\" is missing (%s expected)", name, member, expected);
    return ct_fail(status, CT_CORRUPT, "%s: \"%s\" must be %s", name, member, expected);
}

ct_code ct_json_get_string(const json_t *object, const char *member, const char *name, const char **out, ct_status *status) {
    const json_t *value = json_object_get(object, member);
    if (!json_is_string(value)) return wrong_member(object, member, name, "a string", status);
    *out = json_string_value(value);
    return CT_OK;
}

ct_code ct_json_get_i64(const json_t *object, const char *member, const char *name, int64_t *out, ct_status *status) {
    const json_t *value = json_object_get(object, member);
    if (!json_is_integer(value)) return wrong_member(object, member, name, "an integer", status);
    *out = json_integer_value(value);
    return CT_OK;
}

ct_code ct_json_get_range(const json_t *object, const char *member, const char *name, int64_t least, int64_t most, int64_t *out,
                          ct_status *status) {
    int64_t value = 0;
    CT_TRY(ct_json_get_i64(object, member, name, &value, status));
    if (value < least || value > most)
        return ct_fail(status, CT_CORRUPT, "%s: \"%s\" is %lld; it must be between %lld and %lld", name, member, (long long)value,
                       (long long)least, (long long)most);
    *out = value;
    return CT_OK;
}

ct_code ct_json_get_f64(const json_t *object, const char *member, const char *name, double *out, ct_status *status) {
    const json_t *value = json_object_get(object, member);
    if (!json_is_number(value)) return wrong_member(object, member, name, "a number", status);
    *out = json_number_value(value);
    return CT_OK;
}

ct_code ct_json_get_array(const json_t *object, const char *member, const char *name, json_t **out, ct_status *status) {
    json_t *value = json_object_get(object, member);
    if (!json_is_array(value)) return wrong_member(object, member, name, "an array", status);
    *out = value;
    return CT_OK;
}

ct_code ct_json_get_object(const json_t *object, const char *member, const char *name, json_t **out, ct_status *status) {
    json_t *value = json_object_get(object, member);
    if (!json_is_object(value)) return wrong_member(object, member, name, "an object", status);
    *out = value;
    return CT_OK;
}
