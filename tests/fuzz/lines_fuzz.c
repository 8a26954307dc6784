/* The reader. The first byte chooses a schema, the second the sizes of batches and chunks; the rest is the file. Two readers of different
 * sizes and numbers of threads must give the same rows, counts and failure; where the file is a text without a header, also those of the
 * slow and plain way below, which knows only lines, ct_line_split and the functions for one value. */
#include <stdbool.h>
#include <zlib.h>
#include <zstd.h>

#include "data/internal.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "lines_fuzz";

enum { SCHEMAS = 4, CRITEO = 0, EVERY = 1, HEADER = 2, NARROW = 3 };

static ct_schema *schemas[SCHEMAS];

static const char *const schema_texts[SCHEMAS] = {
    [EVERY] =
        "name: e\nformat: {columns: 7}\nfields:\n"
        "  - {name: y, kind: label, column: 1, at_least: 0.5}\n  - {name: x, kind: number, column: 2}\n"
        "  - {name: i, kind: id, column: 3, type: integer}\n"
        "  - {name: l, kind: id, column: 4, type: integer, separator: \",\", max: 3}\n"
        "  - {name: m, kind: id, column: 4, separator: \",\", max: 2, newest: first}\n"
        "  - {name: v, kind: vector, of: l, file: v.npy}\n  - {name: g, kind: group, column: 5}\n"
        "  - {name: t, kind: time, column: 6}\n  - {name: w, kind: weight, column: 7}\n",
    [HEADER] =
        "name: h\nformat: {separator: \",\", header: true}\nfields:\n  - {name: y, kind: label, column: click}\n"
        "  - {name: x, kind: number, column: price}\n  - {name: a, kind: id, column: 1}\n",
    [NARROW] = "name: n\nformat: {columns: 1}\nfields:\n  - {name: x, kind: number, column: 1}\n  - {name: a, kind: id, column: 1}\n"};

static const ct_schema *schema_of(size_t index) {
    ct_status status = CT_STATUS_INIT;
    if (schemas[index]) return schemas[index];
    const char *text = schema_texts[index];
    const ct_code code = text ? ct_schema_parse(text, strlen(text), "fuzz.yaml", &schemas[index], &status)
                              : ct_schema_load("criteo", &schemas[index], &status);
    FUZZ_MUST(code == CT_OK);
    return schemas[index];
}

__attribute__((destructor)) static void free_schemas(void) {
    for (size_t i = 0; i < SCHEMAS; i++) ct_schema_destroy(schemas[i]);
}

/* What was read: a digest of all values by column, so that two ways can be compared whatever their batches are. */
typedef struct result {
    ct_code code;
    int64_t rows;
    ct_read_report report;
    uint64_t hash[48];
    char message[CT_STATUS_MESSAGE_BYTES];
} result;

static void mix(uint64_t *hash, const void *data, size_t bytes) { *hash = ct_hash64(data, bytes, *hash); }

static void take_batch(result *out, const ct_batch *batch) {
    FUZZ_MUST(batch->rows > 0 && batch->first_row == out->rows && batch->column_count <= 48);
    for (size_t c = 0; c < batch->column_count; c++) {
        const ct_column *column = &batch->columns[c];
        const size_t bytes_each = ct_column_type_bytes(column->type);
        FUZZ_MUST(column->present && (!column->offsets || column->offsets[0] == 0));
        for (size_t r = 0; r < batch->rows; r++) {
            const size_t begin = column->offsets ? column->offsets[r] : r, end = column->offsets ? column->offsets[r + 1] : r + 1;
            FUZZ_MUST(end >= begin);
            for (size_t v = begin; v < end; v++) mix(&out->hash[c], (const char *)column->values + v * bytes_each, bytes_each);
            mix(&out->hash[c], "|", 1);
        }
    }
    out->rows += (int64_t)batch->rows;
}

static result read_by(const ct_schema *schema, const char *path, size_t batch_rows, size_t chunk_bytes, size_t threads) {
    result out = {0};
    ct_status status = CT_STATUS_INIT;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    ct_reader *reader;
    ct_batch *batch;
    options.sources = &path;
    options.source_count = 1;
    options.batch_rows = batch_rows;
    options.lookahead = 2;
    options.chunk_bytes = chunk_bytes;
    options.threads = threads;
    out.code = ct_reader_open(schema, &options, &reader, &status);
    if (out.code != CT_OK) {
        (void)snprintf(out.message, sizeof out.message, "%s", status.message);
        return out;
    }
    while ((out.code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        take_batch(&out, batch);
        ct_reader_release(reader, batch);
    }
    ct_reader_report(reader, &out.report);
    (void)snprintf(out.message, sizeof out.message, "%s", out.code == CT_END ? "" : status.message);
    ct_reader_close(reader);
    return out;
}

/* --- the plain way --- */

/* One field's values of one row into `out_hash`. */
static ct_code take_value(const ct_field *field, const char *text, size_t bytes, uint64_t *out_hash, ct_status *status) {
    float f32;
    int64_t i64;
    uint64_t u64, keys[8], *last = keys;
    switch (field->kind) {
        case CT_FIELD_LABEL:
            CT_TRY(ct_field_label(field, text, bytes, &f32, status));
            mix(out_hash, &f32, 4);
            break;
        case CT_FIELD_NUMBER:
            CT_TRY(ct_field_number(field, text, bytes, &f32, status));
            mix(out_hash, &f32, 4);
            break;
        case CT_FIELD_WEIGHT:
            CT_TRY(ct_field_weight(field, text, bytes, &f32, status));
            mix(out_hash, &f32, 4);
            break;
        case CT_FIELD_TIME:
            CT_TRY(ct_field_time(field, text, bytes, &i64, status));
            mix(out_hash, &i64, 8);
            break;
        default:
            if (!field->value_separator) {
                CT_TRY(ct_field_key(field, text, bytes, &u64, status));
                mix(out_hash, &u64, 8);
                break;
            }
            /* All values, then the first or the last of them: only what is kept is checked. */
            for (size_t pass = 0, count = 0, keep_from = 0; pass < 2; pass++) {
                size_t seen = 0;
                for (size_t at = 0; at < bytes; at++) {
                    size_t end = at;
                    while (end < bytes && text[end] != field->value_separator) end++;
                    if (end == at) continue;
                    const size_t number = seen++;
                    if (pass && number >= keep_from && number < keep_from + field->max_values) {
                        CT_TRY(ct_field_key(field, text + at, end - at, last++, status));
                    }
                    at = end;
                }
                count = seen;
                keep_from = count > field->max_values && !field->newest_first ? count - field->max_values : 0;
            }
            for (const uint64_t *key = keys; key < last; key++) mix(out_hash, key, 8);
            break;
    }
    mix(out_hash, "|", 1);
    return CT_OK;
}

static bool take_line(const ct_schema *schema, const char *line, size_t bytes, result *out) {
    const char *begin[64];
    size_t size[64];
    uint64_t hash[48];
    ct_status status = CT_STATUS_INIT;
    if (ct_line_split(schema, line, bytes, begin, size, &status) != CT_OK) return false;
    memcpy(hash, out->hash, sizeof hash);
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        const size_t c = (size_t)(field->kind == CT_FIELD_VECTOR ? schema->fields[field->of].column : field->column);
        if (take_value(field, begin[c], size[c], &hash[f], &status) != CT_OK) return false;
    }
    memcpy(out->hash, hash, sizeof hash);
    return true;
}

static result read_plainly(const ct_schema *schema, const char *text, size_t bytes) {
    result out = {.code = CT_END};
    const size_t mark = bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    for (size_t at = mark; at < bytes;) {
        size_t end = at, next;
        while (end < bytes && text[end] != '\n') end++;
        next = end + 1;
        if (end > at && text[end - 1] == '\r') end--;
        if (end == at) {
            out.report.blank_lines++;
        } else if (take_line(schema, text + at, end - at, &out)) {
            out.rows++;
        } else {
            out.report.bad_total++;
        }
        at = next;
    }
    return out;
}

/* --- the target --- */

/* Is it read as a text? */
static bool is_plain(const uint8_t *bytes, size_t count) {
    static const struct {
        const char *bytes;
        size_t count;
    } others[] = {{"\x1f\x8b", 2},
                  {"\x28\xb5\x2f\xfd", 4},
                  {"CTBLOCK1", 8},
                  {"\xfd"
                   "7zXZ\0",
                   6},
                  {"PK\3\4", 4}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (count >= others[i].count && memcmp(bytes, others[i].bytes, others[i].count) == 0) return false;
    }
    return !(count >= 4 && (bytes[0] & 0xf0) == 0x50 && memcmp(bytes + 1, "\x2a\x4d\x18", 3) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < 2) return 0;
    const size_t which = data[0] % SCHEMAS, sizes = data[1];
    const ct_schema *schema = schema_of(which);
    data += 2;
    bytes -= 2;
    fuzz_file file = fuzz_file_open(data, bytes);
    const result a = read_by(schema, file.path, 64, FUZZ_MAX_BYTES, 1),
                 b = read_by(schema, file.path, 1 + sizes % 7, 1 + sizes / 7 * 5, 1 + sizes % 3);
    FUZZ_MUST(a.code == b.code && strcmp(a.message, b.message) == 0 && a.code != CT_INTERNAL);
    if (a.code == CT_END) {
        FUZZ_MUST(a.rows == b.rows && memcmp(a.hash, b.hash, sizeof a.hash) == 0);
        FUZZ_MUST(memcmp(&a.report, &b.report, sizeof a.report) == 0);
        if (which != HEADER && is_plain(data, bytes)) {
            const result plain = read_plainly(schema, (const char *)data, bytes);
            FUZZ_MUST(a.rows == plain.rows && a.report.bad_total == plain.report.bad_total);
            FUZZ_MUST(a.report.blank_lines == plain.report.blank_lines && memcmp(a.hash, plain.hash, sizeof a.hash) == 0);
        }
    }
    fuzz_file_close(&file);
    return 0;
}

/* --- seeds --- */

static size_t gzip(const char *text, uint8_t *out) {
    z_stream stream = {0};
    FUZZ_MUST(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    stream.next_in = (Bytef *)(uintptr_t)text;
    stream.avail_in = (uInt)strlen(text);
    stream.next_out = out;
    stream.avail_out = FUZZ_MAX_BYTES - 2;
    FUZZ_MUST(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    (void)deflateEnd(&stream);
    return stream.total_out;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const char *const every =
        "1\t-2.5\t7\t1,2,,3,4\tg\t1600000000.5\t0.5\n0\t\t\t\t\t1\t1\r\n\n0.5\t1e3\t-007\t,\tq\t-1\t0\n1\t2\t3\n";
    static const struct {
        uint8_t schema, sizes;
        const char *text; /* NULL: a row of criteo */
    } seeds[] = {
        {CRITEO, 0, NULL},
        {CRITEO, 93, NULL},
        {EVERY, 0, every},
        {NARROW, 3,
         "\xef\xbb\xbf"
         "1\n2\n"},
        {EVERY, 200, "1\t2\t3\t4\t5\t6\t7"},
        {EVERY, 9, "1\t2\tx\t4\t5\t6\t7\n1\t2\t3\t4,y,5\t5\t6\t7\n1\tz\t3\t4\t5\t6\t7\n1\t2\t3\t4\t5\tnoon\t7\n1\t2\t3\t4\t5\t6\t-7\n"},
        {HEADER, 30, "id,click,price\nu,1,10\r\nv,0,20\n\nw,2,1\n"},
        {HEADER, 1, "price,more,click\r\n30,,1\r\n"},
        {NARROW, 50, "1\n\n\r\n-12345678\n123456789\n99999999\n\r\r\nx\n-0\n00000007\n1.5e-7"},
        {EVERY, 77, every} /* gzip */,
        {EVERY, 78, every} /* zstd */};
    enum { COUNT = sizeof seeds / sizeof seeds[0] };
    if (index >= COUNT) return 0;
    char row[1024] = "1";
    for (int f = 1; f < 40; f++) {
        (void)snprintf(row + strlen(row), sizeof row - strlen(row),
                       f % 7 == 3 ? "\t"
                       : f < 14   ? "\t%d"
                                  : "\t%08x",
                       f < 14 ? f * f - 9 : f * 77777);
    }
    strcat(row, "\n0");
    for (int f = 1; f < 40; f++) strcat(row, "\t");
    const char *text = seeds[index].text ? seeds[index].text : row;
    out[0] = seeds[index].schema;
    out[1] = seeds[index].sizes;
    if (index == COUNT - 2) return 2 + gzip(text, out + 2);
    if (index == COUNT - 1) {
        const size_t bytes = ZSTD_compress(out + 2, FUZZ_MAX_BYTES - 2, text, strlen(text), 3);
        FUZZ_MUST(!ZSTD_isError(bytes));
        return 2 + bytes;
    }
    memcpy(out + 2, text, strlen(text));
    return 2 + strlen(text);
}
