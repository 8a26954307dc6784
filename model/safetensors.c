/* safetensors: u64 little-endian length of a JSON header, the header {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}}, the data.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
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

typedef struct tensor_file {
    const char *path;
    int fd;
    uint64_t data, data_bytes; /* where the tensors begin */
    json_t *header;
} tensor_file;

static ct_code read_header(tensor_file *file, ct_status *status) {
    struct stat found;
    uint8_t prefix[8] = {0};
    if (fstat(file->fd, &found) != 0) return ct_fail_errno(status, "%s: cannot look at it", file->path);
    const uint64_t bytes = (uint64_t)found.st_size;
    if (bytes >= sizeof prefix) CT_TRY(ct_file_read_at(file->fd, file->path, 0, prefix, sizeof prefix, status));
    const uint64_t header_bytes = ct_get_le64(prefix);
    if (bytes < sizeof prefix || header_bytes > bytes - sizeof prefix)
        return ct_fail(status, CT_CORRUPT, "%s: the header's length %llu does not fit into %llu bytes", file->path,
                       (unsigned long long)header_bytes, (unsigned long long)bytes);
    char *text = malloc(header_bytes + 1);
    if (text == NULL) return ct_fail_memory(status, header_bytes, file->path);
    ct_code code = ct_file_read_at(file->fd, file->path, sizeof prefix, text, header_bytes, status);
    if (code == CT_OK) code = ct_json_parse(text, header_bytes, file->path, &file->header, status);
    free(text);
    file->data = sizeof prefix + header_bytes;
    file->data_bytes = bytes - file->data;
    return code;
}

static ct_code read_tensor(const tensor_file *file, named_tensor *tensor, ct_status *status) {
    const char *path = file->path;
    const json_t *entry = json_object_get(file->header, tensor->name);
    if (entry == NULL) return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' is missing", path, tensor->name);
    const char *type = NULL;
    json_int_t rows = -1, columns = -1, begin = -1, end = -1;
    if (json_unpack((json_t *)entry, "{s:s, s:[I, I], s:[I, I]}", "dtype", &type, "shape", &rows, &columns, "data_offsets", &begin, &end) !=
        0)
        return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' has no dtype, shape of two and data_offsets", path, tensor->name);
    if (strcmp(type, tensor_type(tensor)) != 0 || rows != (json_int_t)tensor->rows || columns != (json_int_t)tensor->columns)
        return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' is %s %lld x %lld; the model needs %s %zu x %zu", path, tensor->name, type,
                       (long long)rows, (long long)columns, tensor_type(tensor), tensor->rows, tensor->columns);
    if (begin < 0 || end < begin || (uint64_t)end > file->data_bytes || (size_t)(end - begin) != tensor_bytes(tensor))
        return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' lies at %lld to %lld of %llu bytes", path, tensor->name, (long long)begin,
                       (long long)end, (unsigned long long)file->data_bytes);
    return ct_file_read_at(file->fd, path, file->data + (uint64_t)begin, tensor->data, tensor_bytes(tensor), status);
}

ct_code safetensors_read(const char *path, named_tensor *tensors, size_t count, bool others, ct_status *status) {
    tensor_file file = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) return ct_fail_errno(status, "%s: cannot open", path);
    ct_code code = CT_OK;
    CT_TRY_GOTO(code, read_header(&file, status), done);
    const size_t found = json_object_size(file.header);
    if (!json_is_object(file.header) || found < count || (!others && found > count)) {
        code = ct_fail(status, CT_CORRUPT, "%s: %zu tensors; the model has %zu", path, found, count);
        goto done;
    }
    for (size_t i = 0; i < count; i++) CT_TRY_GOTO(code, read_tensor(&file, &tensors[i], status), done);
done:
    json_decref(file.header);
    (void)close(file.fd);
    return code;
}
