/* Block files. The first byte's lowest bit asks for right checksums, which are then put in wherever the file's own lengths say that they
 * stand, so that what lies behind them is reached. A block is refused or is one that a text could have given. */
#include "data/block_file.h"

#include <math.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "data/internal.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "block_file_fuzz";

static ct_schema *schema;

static void make_schema(void) {
    static const char text[] =
        "name: b\nformat: {columns: 5}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: x, kind: number, column: 2}\n"
        "  - {name: l, kind: id, column: 3, separator: \",\", max: 3}\n  - {name: t, kind: time, column: 4}\n"
        "  - {name: w, kind: weight, column: 5}\n";
    ct_status status = CT_STATUS_INIT;
    if (!schema) FUZZ_MUST(ct_schema_parse(text, strlen(text), "fuzz.yaml", &schema, &status) == CT_OK);
}

__attribute__((destructor)) static void free_schema(void) { ct_schema_destroy(schema); }

/* Right checksums, as far as the lengths lead. */
static void repair(uint8_t *file, size_t bytes) {
    if (bytes < 12) return;
    const size_t header = ct_get_le32(file + 8);
    if (header > bytes - 12 || bytes - 12 - header < 8) return;
    ct_put_le64(file + 12 + header, ct_hash64(file + 12, header, 0));
    for (size_t at = 20 + header; bytes - at >= 16;) {
        if (memcmp(file + at, "CTBE", 4) == 0) {
            if (bytes - at >= 20) ct_put_le64(file + at + 12, ct_hash64(file + at, 12, 0));
            return;
        }
        const uint64_t payload = ct_get_le64(file + at + 8);
        if (payload > bytes - at - 16 || bytes - at - 16 - payload < 8) return;
        uint8_t *hashed = malloc(4 + payload); /* the rows, then the payload */
        FUZZ_MUST(hashed);
        memcpy(hashed, file + at + 4, 4);
        memcpy(hashed + 4, file + at + 16, payload);
        ct_put_le64(file + at + 16 + payload, ct_hash64(hashed, 4 + payload, 0));
        free(hashed);
        at += 24 + payload;
    }
}

static void check_block(const ct_batch *batch) {
    for (size_t c = 0; c < batch->column_count; c++) {
        const ct_column *column = &batch->columns[c];
        if (!column->present) continue;
        for (size_t r = 0; r < batch->rows; r++) {
            if (column->kind == CT_FIELD_LABEL) FUZZ_MUST(ct_column_f32(column)[r] == 0 || ct_column_f32(column)[r] == 1);
            if (column->kind == CT_FIELD_WEIGHT) FUZZ_MUST(ct_column_f32(column)[r] >= 0 && isfinite(ct_column_f32(column)[r]));
            if (column->offsets) {
                FUZZ_MUST(column->offsets[r + 1] >= column->offsets[r] && column->offsets[r + 1] - column->offsets[r] <= 3);
            }
        }
        uint64_t sum = 0; /* every value can be read */
        const size_t values = column->offsets ? column->offsets[batch->rows] : batch->rows;
        for (size_t i = 0; i < values * ct_column_type_bytes(column->type); i++) sum += ((const uint8_t *)column->values)[i];
        FUZZ_MUST(sum <= UINT64_MAX / 2);
    }
}

static void read_file(const char *path) {
    ct_status status = CT_STATUS_INIT;
    ct_source *source = NULL;
    ct_block_reader *reader = NULL;
    ct_batch *batch = NULL;
    json_t *json = NULL;
    ct_code code = ct_source_open(path, &source, &status);
    if (code == CT_OK) code = ct_batch_create(schema, 0, &batch, &status);
    if (code == CT_OK) code = ct_block_reader_open(source, schema, &reader, &status);
    if (code == CT_OK) {
        while ((code = ct_block_reader_next(reader, batch, &status)) == CT_OK) check_block(batch);
        ct_block_reader_close(reader);
    }
    FUZZ_MUST(code != CT_OK && code != CT_INTERNAL && code != CT_IO);
    const bool good = code == CT_END;
    ct_batch_destroy(batch);
    ct_source_close(source);
    code = ct_block_file_describe(path, &json, &status);
    FUZZ_MUST(good ? code == CT_OK : code != CT_INTERNAL); /* a file may be whole and of another schema */
    if (code == CT_OK) json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (!bytes) return 0;
    make_schema();
    uint8_t *copy = malloc(bytes);
    FUZZ_MUST(copy);
    memcpy(copy, data, bytes);
    if (data[0] & 1) repair(copy + 1, bytes - 1);
    fuzz_file file = fuzz_file_open(copy + 1, bytes - 1);
    read_file(file.path);
    fuzz_file_close(&file);
    free(copy);
    return 0;
}

/* A file of our own with `blocks` blocks of `rows` rows. */
static size_t write_file(size_t blocks, size_t rows, uint8_t *out, size_t capacity) {
    ct_status status = CT_STATUS_INIT;
    ct_block_writer *writer;
    ct_batch *batch;
    char path[] = "/tmp/block-fuzz-XXXXXX";
    const int fd = mkstemp(path);
    FUZZ_MUST(fd >= 0);
    FILE *file = fdopen(fd, "rb");
    make_schema();
    FUZZ_MUST(ct_batch_create(schema, rows, &batch, &status) == CT_OK);
    batch->rows = rows;
    for (size_t r = 0; r < rows; r++) {
        ((float *)batch->columns[0].values)[r] = (float)(r % 2);
        ((float *)batch->columns[1].values)[r] = r % 3 ? (float)r : NAN;
        for (size_t v = 0; v < r % 4; v++) ((uint64_t *)batch->columns[2].values)[batch->columns[2].offsets[r] + v] = r * 77 + v;
        batch->columns[2].offsets[r + 1] = batch->columns[2].offsets[r] + (uint32_t)(r % 4);
        ((int64_t *)batch->columns[3].values)[r] = (int64_t)r * 1000;
        ((float *)batch->columns[4].values)[r] = 0.5f;
    }
    FUZZ_MUST(ct_block_writer_open(path, schema, &writer, &status) == CT_OK);
    for (size_t b = 0; b < blocks; b++) FUZZ_MUST(ct_block_writer_write(writer, batch, &status) == CT_OK);
    FUZZ_MUST(ct_block_writer_commit(writer, &status) == CT_OK);
    ct_batch_destroy(batch);
    (void)fclose(file);
    file = fopen(path, "rb"); /* the writer has put another file under the name */
    FUZZ_MUST(file);
    const size_t bytes = fread(out, 1, capacity, file);
    (void)fclose(file);
    (void)remove(path);
    return bytes;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const uint8_t blocks[] = {0, 1, 3, 2, 1, 1}, rows[] = {0, 5, 2, 9, 40, 1};
    if (index >= 2 * sizeof blocks) return 0;
    out[0] = index < sizeof blocks; /* half of them with what is repaired */
    index %= sizeof blocks;
    return 1 + write_file(blocks[index], rows[index], out + 1, FUZZ_MAX_BYTES - 1);
}
