/* Reading a block file, checks first: nothing of the header is believed before its hash fits, nothing of a block before its hash fits and
 * its parts fill it exactly. Memory for a block grows with the bytes that really come, so that a wrong length costs nothing. */
#include "data/block_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "data/block_file.h"
#include "data/internal.h"

enum { HEADER_MAX = 16 << 20, STEP_BYTES = 4 << 20 };
static const uint64_t payload_max = UINT64_C(1) << 40;

const char *ct_column_type_name(ct_column_type type) { return type == CT_TYPE_F32 ? "f32" : type == CT_TYPE_I64 ? "i64" : "u64"; }

bool ct_block_file_is(const char *first_bytes, size_t count) { return count >= 8 && memcmp(first_bytes, CT_BLOCK_MAGIC, 8) == 0; }

#define AGAIN "; copy the file, or convert the log, again"

static ct_code read_exactly(ct_source *source, void *to, size_t bytes, const char *what, ct_status *status) {
    size_t done = 0;
    while (done < bytes) {
        size_t got;
        const ct_code code = ct_source_read(source, (char *)to + done, bytes - done, &got, status);
        if (code == CT_END) return ct_fail(status, CT_CORRUPT, "%s: cut: the file ends inside %s" AGAIN, ct_source_name(source), what);
        if (code != CT_OK) return code;
        done += got;
    }
    return CT_OK;
}

/* `bytes` into the buffer behind its first `used`; the buffer grows as they come. */
static ct_code read_growing(ct_block_scan *scan, size_t used, uint64_t bytes, const char *what, ct_status *status) {
    uint64_t done = 0;
    while (done < bytes) {
        const uint64_t step = bytes - done < STEP_BYTES ? bytes - done : STEP_BYTES;
        const uint64_t needed = used + done + step;
        if (needed > scan->buffer_bytes) {
            uint64_t room = 2 * (uint64_t)scan->buffer_bytes < used + bytes ? 2 * (uint64_t)scan->buffer_bytes : used + bytes;
            if (room < needed) room = needed;
            unsigned char *buffer = realloc(scan->buffer, room);
            if (!buffer) return ct_fail_memory(status, room, "a block");
            scan->buffer = buffer;
            scan->buffer_bytes = room;
        }
        CT_TRY(read_exactly(scan->source, scan->buffer + used + done, step, what, status));
        done += step;
    }
    return CT_OK;
}

static ct_code fail_header(const ct_block_scan *scan, const char *what, ct_status *status) {
    return ct_fail(status, CT_CORRUPT, "%s: corrupt header: %s" AGAIN, ct_source_name(scan->source), what);
}

static bool parse_hex64(const char *text, uint64_t *out_value) {
    uint64_t value = 0;
    if (strlen(text) != 16) return false;
    for (int i = 0; i < 16; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, text[i]);
        if (!at) return false;
        value = value << 4 | (uint64_t)(at - digits);
    }
    *out_value = value;
    return true;
}

static ct_code parse_column(ct_block_scan *scan, const json_t *json, ct_block_column *out, ct_status *status) {
    const char *source = ct_source_name(scan->source), *name, *kind, *type, *layout, *hash, *rule;
    CT_TRY(ct_json_get_string(json, "name", source, &name, status));
    CT_TRY(ct_json_get_string(json, "kind", source, &kind, status));
    CT_TRY(ct_json_get_string(json, "type", source, &type, status));
    CT_TRY(ct_json_get_string(json, "layout", source, &layout, status));
    CT_TRY(ct_json_get_string(json, "hash", source, &hash, status));
    CT_TRY(ct_json_get_string(json, "rule", source, &rule, status));
    int found = -1;
    for (int t = CT_TYPE_F32; t <= CT_TYPE_U64; t++) {
        if (strcmp(type, ct_column_type_name((ct_column_type)t)) == 0) found = t;
    }
    if (found < 0) return ct_fail(status, CT_UNSUPPORTED, "%s: column '%s' has the type '%s', which is unknown here", source, name, type);
    out->type = (ct_column_type)found;
    out->csr = strcmp(layout, "csr") == 0;
    if (!out->csr && strcmp(layout, "dense") != 0) {
        return ct_fail(status, CT_UNSUPPORTED, "%s: column '%s' has the layout '%s', which is unknown here", source, name, layout);
    }
    if (!parse_hex64(hash, &out->hash)) return fail_header(scan, "a column's hash is not 16 hexadecimal digits", status);
    out->name = strdup(name);
    out->kind = strdup(kind);
    out->rule = strdup(rule);
    if (!out->name || !out->kind || !out->rule) return ct_fail_memory(status, strlen(rule), "a column");
    return CT_OK;
}

static ct_code parse_header(ct_block_scan *scan, const json_t *json, ct_status *status) {
    int64_t least;
    json_t *columns;
    const char *source = ct_source_name(scan->source);
    CT_TRY(ct_json_get_i64(json, "least_reader_version", source, &least, status));
    if (least > CT_BLOCK_VERSION) {
        return ct_fail(status, CT_UNSUPPORTED, "%s: needs a reader of version %lld; this one has %d", source, (long long)least,
                       CT_BLOCK_VERSION);
    }
    CT_TRY(ct_json_get_array(json, "columns", source, &columns, status));
    const size_t count = json_array_size(columns);
    if (!count || count > CT_SCHEMA_MAX_FIELDS) return fail_header(scan, "no columns, or too many", status);
    scan->columns = calloc(count, sizeof *scan->columns);
    scan->spans = calloc(count, sizeof *scan->spans);
    if (!scan->columns || !scan->spans) return ct_fail_memory(status, count * sizeof *scan->columns, "columns");
    for (size_t i = 0; i < count; i++) {
        scan->column_count = i + 1;
        CT_TRY(parse_column(scan, json_array_get(columns, i), &scan->columns[i], status));
    }
    return CT_OK;
}

ct_code ct_block_scan_open(ct_source *source, ct_block_scan *out_scan, ct_status *status) {
    ct_block_scan scan = {.source = source};
    char magic[8];
    unsigned char word[8];
    json_t *json = NULL;
    ct_code code;
    CT_TRY(read_exactly(source, magic, sizeof magic, "its header", status));
    if (!ct_block_file_is(magic, sizeof magic)) return ct_fail(status, CT_INVALID, "%s: is no block file", ct_source_name(source));
    CT_TRY(read_exactly(source, word, 4, "its header", status));
    const uint32_t bytes = ct_get_le32(word);
    if (bytes > HEADER_MAX) return fail_header(&scan, "its length is impossible", status);
    CT_TRY_GOTO(code, read_growing(&scan, 0, bytes, "its header", status), fail);
    CT_TRY_GOTO(code, read_exactly(source, word, 8, "its header", status), fail);
    if (ct_get_le64(word) != ct_hash64(scan.buffer, bytes, 0)) {
        code = fail_header(&scan, "the checksum does not fit", status);
        goto fail;
    }
    CT_TRY_GOTO(code, ct_json_parse((const char *)scan.buffer, bytes, ct_source_name(source), &json, status), fail);
    CT_TRY_GOTO(code, parse_header(&scan, json, status), fail);
    *out_scan = scan;
    json_decref(json);
    return CT_OK;
fail:
    json_decref(json);
    ct_block_scan_deinit(&scan);
    return code;
}

void ct_block_scan_deinit(ct_block_scan *scan) {
    for (size_t i = 0; i < scan->column_count; i++) {
        free(scan->columns[i].name);
        free(scan->columns[i].kind);
        free(scan->columns[i].rule);
    }
    free(scan->columns);
    free(scan->spans);
    free(scan->buffer);
    *scan = (ct_block_scan){0};
}

static ct_code fail_block(const ct_block_scan *scan, const char *what, ct_status *status) {
    return ct_fail(status, CT_CORRUPT, "%s: block %llu: %s" AGAIN, ct_source_name(scan->source), (unsigned long long)scan->blocks + 1,
                   what);
}

/* Cuts the payload into columns; false where they do not fill it exactly. */
static bool find_spans(ct_block_scan *scan, size_t rows, const unsigned char *at, uint64_t bytes) {
    for (size_t i = 0; i < scan->column_count; i++) {
        const ct_block_column *column = &scan->columns[i];
        ct_block_span *span = &scan->spans[i];
        uint64_t count = rows;
        span->offsets = NULL;
        if (column->csr) {
            const uint64_t offsets_bytes = 4 * ((uint64_t)rows + 1);
            uint32_t before = 0;
            if (bytes < offsets_bytes || ct_get_le32(at) != 0) return false;
            for (size_t r = 0; r < rows; r++) {
                const uint32_t offset = ct_get_le32(at + 4 * (r + 1));
                if (offset < before) return false;
                before = offset;
            }
            span->offsets = at;
            count = before;
            at += offsets_bytes;
            bytes -= offsets_bytes;
        }
        const uint64_t values_bytes = count * ct_column_type_bytes(column->type);
        if (bytes < values_bytes) return false;
        span->values = at;
        span->value_count = count;
        at += values_bytes;
        bytes -= values_bytes;
    }
    return bytes == 0;
}

static ct_code read_end(ct_block_scan *scan, const unsigned char tag[4], ct_status *status) {
    const char *name = ct_source_name(scan->source);
    unsigned char end[20];
    size_t got;
    memcpy(end, tag, 4);
    CT_TRY(read_exactly(scan->source, end + 4, 16, "its end", status));
    if (ct_get_le64(end + 12) != ct_hash64(end, 12, 0))
        return ct_fail(status, CT_CORRUPT, "%s: the checksum of its end does not fit" AGAIN, name);
    if (ct_get_le64(end + 4) != scan->rows) {
        return ct_fail(status, CT_CORRUPT, "%s: its end tells of %llu rows, but it holds %llu" AGAIN, name,
                       (unsigned long long)ct_get_le64(end + 4), (unsigned long long)scan->rows);
    }
    const ct_code code = ct_source_read(scan->source, end, 1, &got, status);
    if (code == CT_OK) return ct_fail(status, CT_CORRUPT, "%s: garbage behind its end" AGAIN, name);
    return code;
}

ct_code ct_block_scan_next(ct_block_scan *scan, size_t *out_rows, ct_status *status) {
    unsigned char head[12], word[8];
    CT_TRY(read_exactly(scan->source, head, 4, "its end (a block or the end should follow)", status));
    if (memcmp(head, CT_BLOCK_TAG_END, 4) == 0) return read_end(scan, head, status);
    if (memcmp(head, CT_BLOCK_TAG_BLOCK, 4) != 0) return fail_block(scan, "neither a block nor the end starts here", status);
    CT_TRY(read_exactly(scan->source, head, 12, "a block", status));
    const uint32_t rows = ct_get_le32(head);
    const uint64_t bytes = ct_get_le64(head + 4);
    if (rows > CT_BLOCK_MAX_ROWS || bytes > payload_max) return fail_block(scan, "its size is impossible", status);
    CT_TRY(read_growing(scan, 4, bytes, "a block", status));
    CT_TRY(read_exactly(scan->source, word, 8, "a block", status));
    if (bytes == 0) return fail_block(scan, "it is empty", status); /* the buffer may not be there */
    memcpy(scan->buffer, head, 4);
    if (ct_get_le64(word) != ct_hash64(scan->buffer, 4 + bytes, 0)) return fail_block(scan, "its checksum does not fit", status);
    if (!find_spans(scan, rows, scan->buffer + 4, bytes)) return fail_block(scan, "its columns do not fill it", status);
    scan->rows += rows;
    scan->blocks++;
    *out_rows = rows;
    return CT_OK;
}
