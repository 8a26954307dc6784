/* safetensors: u64 little-endian length of a JSON header, the header {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}}, the data.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/text.h"
#include "model/model_internal.h"

static size_t tensor_bytes(const named_tensor *tensor) { return tensor->rows * tensor->columns * (tensor->f64 ? 8 : 4); }
static const char *tensor_type(const named_tensor *tensor) { return tensor->f64 ? "F64" : "F32"; }

ct_code safetensors_write(const char *path, const named_tensor *tensors, size_t count, ct_status *status) {
    ct_file_writer *writer = NULL;
    json_t *header = json_object();
    char *text = NULL;
    size_t offset = 0;
    ct_code code = CT_OK;
    for (size_t i = 0; i < count; i++) {
        const size_t end = offset + tensor_bytes(&tensors[i]);
        json_object_set_new(header, tensors[i].name,
                            json_pack("{s:s, s:[I, I], s:[I, I]}", "dtype", tensor_type(&tensors[i]), "shape", (json_int_t)tensors[i].rows,
                                      (json_int_t)tensors[i].columns, "data_offsets", (json_int_t)offset, (json_int_t)end));
        offset = end;
    }
    text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (text == NULL) return ct_fail_memory(status, count * sizeof *tensors, "a safetensors header");
    /* The data starts at a multiple of 8: the header is padded with blanks, as the format asks. */
    const size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    uint8_t prefix[8];
    ct_put_le64(prefix, padded);
    CT_TRY_GOTO(code, ct_file_writer_open(path, &writer, status), done);
    CT_TRY_GOTO(code, ct_file_writer_write(writer, prefix, sizeof prefix, status), done);
    CT_TRY_GOTO(code, ct_file_writer_write(writer, text, length, status), done);
    CT_TRY_GOTO(code, ct_file_writer_write(writer, "       ", padded - length, status), done);
    for (size_t i = 0; i < count; i++)
        CT_TRY_GOTO(code, ct_file_writer_write(writer, tensors[i].data, tensor_bytes(&tensors[i]), status), done);
    code = ct_file_writer_commit(writer, status);
    writer = NULL;
done:
    ct_file_writer_abort(writer);
    free(text);
    return code;
}

static ct_code read_tensor(const char *path, const json_t *header, const char *data, size_t data_bytes, named_tensor *tensor,
                           ct_status *status) {
    const json_t *entry = json_object_get(header, tensor->name);
    if (entry == NULL) return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' is missing", path, tensor->name);
    const char *type = NULL;
    json_int_t rows = -1, columns = -1, begin = -1, end = -1;
    if (json_unpack((json_t *)entry, "{s:s, s:[I, I], s:[I, I]}", "dtype", &type, "shape", &rows, &columns, "data_offsets", &begin, &end) !=
        0)
        return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' has no dtype, shape of two and data_offsets", path, tensor->name);
    if (strcmp(type, tensor_type(tensor)) != 0 || rows != (json_int_t)tensor->rows || columns != (json_int_t)tensor->columns)
        return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' is %s %lld x %lld; the model needs %s %zu x %zu", path, tensor->name, type,
                       (long long)rows, (long long)columns, tensor_type(tensor), tensor->rows, tensor->columns);
    if (begin < 0 || end < begin || (size_t)end > data_bytes || (size_t)(end - begin) != tensor_bytes(tensor))
        return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' lies at %lld to %lld of %zu bytes", path, tensor->name, (long long)begin,
                       (long long)end, data_bytes);
    if (tensor_bytes(tensor) > 0) memcpy(tensor->data, data + begin, tensor_bytes(tensor));
    return CT_OK;
}

ct_code safetensors_read(const char *path, named_tensor *tensors, size_t count, bool others, ct_status *status) {
    char *file = NULL;
    size_t bytes = 0;
    json_t *header = NULL;
    ct_code code = ct_file_read(path, (size_t)1 << 36, &file, &bytes, status);
    if (code != CT_OK) return code;
    const uint64_t header_bytes = bytes >= 8 ? ct_get_le64(file) : 0;
    if (bytes < 8 || header_bytes > bytes - 8) {
        code = ct_fail(status, CT_CORRUPT, "%s: the header's length %llu does not fit into %zu bytes", path,
                       (unsigned long long)header_bytes, bytes);
        goto done;
    }
    CT_TRY_GOTO(code, ct_json_parse(file + 8, header_bytes, path, &header, status), done);
    const char *name = NULL;
    json_t *entry = NULL;
    size_t found = 0;
    json_object_foreach(header, name, entry) found++;
    if (!json_is_object(header) || found < count || (!others && found > count)) {
        code = ct_fail(status, CT_CORRUPT, "%s: %zu tensors; the model has %zu", path, found, count);
        goto done;
    }
    const char *data = file + 8 + header_bytes;
    const size_t data_bytes = bytes - 8 - header_bytes;
    for (size_t i = 0; i < count; i++) CT_TRY_GOTO(code, read_tensor(path, header, data, data_bytes, &tensors[i], status), done);
done:
    json_decref(header);
    free(file);
    return code;
}
