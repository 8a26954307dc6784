/* All rows that a reader gives, flat, so that two ways of reading can be compared byte by byte. */
#ifndef TESTS_DATA_ROWS_H
#define TESTS_DATA_ROWS_H

#include "data/block_file.h"
#include "data/reader.h"
#include "tests/data/fixture.h"

enum { ROWS_COLUMNS = 64 };

typedef struct bytes {
    char *data;
    size_t size, capacity;
} bytes;

static inline void bytes_add(bytes *b, const void *data, size_t size) {
    if (b->size + size > b->capacity) {
        b->capacity = 2 * (b->capacity + size);
        b->data = realloc(b->data, b->capacity);
        assert_non_null(b->data);
    }
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
}

typedef struct rows {
    size_t rows, columns;
    bool present[ROWS_COLUMNS];
    bytes values[ROWS_COLUMNS], counts[ROWS_COLUMNS]; /* counts: u32 a row, CSR only */
    ct_read_report report;
} rows;

static inline void rows_add(rows *r, const ct_batch *batch) {
    r->columns = batch->column_count;
    assert_true(r->columns <= ROWS_COLUMNS);
    for (size_t i = 0; i < batch->column_count; i++) {
        const ct_column *c = &batch->columns[i];
        size_t values = batch->rows;
        assert_true(r->rows == 0 || r->present[i] == c->present);
        r->present[i] = c->present;
        if (!c->present) continue;
        if (c->offsets) {
            assert_int_equal(c->offsets[0], 0);
            for (size_t k = 0; k < batch->rows; k++) {
                const uint32_t count = c->offsets[k + 1] - c->offsets[k];
                bytes_add(&r->counts[i], &count, 4);
            }
            values = c->offsets[batch->rows];
        }
        bytes_add(&r->values[i], c->values, values * ct_column_type_bytes(c->type));
    }
    r->rows += batch->rows;
}

static inline void rows_free(rows *r) {
    for (size_t i = 0; i < ROWS_COLUMNS; i++) {
        free(r->values[i].data);
        free(r->counts[i].data);
    }
    *r = (rows){0};
}

/* Reads to the end or to a failure, whose code it returns (CT_OK for the end). Checks the batches' shape. */
static inline ct_code rows_read(const ct_schema *schema, const ct_reader_options *options, rows *out, ct_status *status) {
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    bool short_seen = false;
    *out = (rows){0};
    ct_code code = ct_reader_open(schema, options, &reader, status);
    if (code != CT_OK) return code;
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        assert_true(batch->rows > 0 && batch->rows <= options->batch_rows);
        assert_false(short_seen);
        short_seen = batch->rows < options->batch_rows;
        assert_int_equal(batch->first_row, out->rows);
        rows_add(out, batch);
        ct_reader_report(reader, &out->report);
        assert_int_equal(out->report.rows, out->rows);
        ct_reader_release(reader, batch);
    }
    assert_code(code, ct_reader_next(reader, &batch, status), status); /* it stays so */
    ct_reader_report(reader, &out->report);
    ct_reader_close(reader);
    return code == CT_END ? CT_OK : code;
}

static inline void assert_same_rows(const rows *a, const rows *b) {
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->columns, b->columns);
    for (size_t i = 0; i < a->columns; i++) {
        assert_int_equal(a->present[i], b->present[i]);
        assert_int_equal(a->values[i].size, b->values[i].size);
        if (a->values[i].size) assert_memory_equal(a->values[i].data, b->values[i].data, a->values[i].size);
        assert_int_equal(a->counts[i].size, b->counts[i].size);
        if (a->counts[i].size) assert_memory_equal(a->counts[i].data, b->counts[i].data, a->counts[i].size);
    }
}

/* A schema with every kind, and a log for it. */
static const char every_kind[] =
    "name: every\n"
    "format: {columns: 9}\n"
    "fields:\n"
    "  - {name: click, kind: label, column: 1}\n"
    "  - {name: price, kind: number, column: 2}\n"
    "  - {name: token, kind: id, column: 3}\n"
    "  - {name: item, kind: id, column: 4, type: integer}\n"
    "  - {name: likes, kind: id, column: 5, type: integer, separator: \",\", max: 3, shares: item}\n"
    "  - {name: recent, kind: id, column: 5, separator: \",\", max: 2, newest: first}\n"
    "  - {name: item_vector, kind: vector, of: item, file: v.npy}\n"
    "  - {name: likes_vector, kind: vector, of: likes, file: v.npy}\n"
    "  - {name: user, kind: unit, column: 6, type: integer}\n"
    "  - {name: page, kind: group, column: 7}\n"
    "  - {name: when, kind: time, column: 8}\n"
    "  - {name: weight, kind: weight, column: 9}\n";
enum { CLICK, PRICE, TOKEN, ITEM, LIKES, RECENT, ITEM_VECTOR, LIKES_VECTOR, USER, PAGE, WHEN, WEIGHT };

static inline ct_schema *schema_of(const char *text) {
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL;
    assert_ok(ct_schema_parse(text, strlen(text), "test.yaml", &schema, &status), &status);
    return schema;
}

static inline void add_row(text *t, uint64_t *seed, const char *end) {
    text_add(t, "%u\t", draw(seed, 2));
    if (draw(seed, 5)) text_add(t, "%d", (int)draw(seed, 2000) - 1000);
    text_add(t, "\t");
    if (draw(seed, 5)) text_add(t, "%08x", draw(seed, 1000) * 2654435761u);
    text_add(t, "\t%0*u\t", (int)draw(seed, 5) + 1, draw(seed, 300));
    const uint32_t likes = draw(seed, 7);
    for (uint32_t i = 0; i < likes; i++) text_add(t, "%s%u", i ? "," : "", draw(seed, 300));
    text_add(t, "\t%u\t", draw(seed, 40));
    text_add(t, "p%u\t", draw(seed, 40));
    text_add(t, "%u\t", 1600000000u + draw(seed, 1000));
    text_add(t, "%u.%u%s", draw(seed, 3), t->size % 10 > 4 ? 5u : 0u, end);
}

static inline ct_reader_options options_of(const char *const *paths, size_t count, size_t batch_rows) {
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    options.sources = paths;
    options.source_count = count;
    options.batch_rows = batch_rows;
    return options;
}

/* Writes what a reader gives into a block file, in blocks of `block_rows`. */
static inline char *convert_file(const char *folder, const ct_schema *schema, const char *from, const char *name, size_t block_rows) {
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader = NULL;
    ct_block_writer *writer = NULL;
    ct_batch *batch;
    ct_code code;
    char *path = temp_path(folder, name);
    const ct_reader_options options = options_of(&from, 1, block_rows);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    assert_ok(ct_block_writer_open(path, schema, &writer, &status), &status);
    while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        assert_ok(ct_block_writer_write(writer, batch, &status), &status);
        ct_reader_release(reader, batch);
    }
    assert_code(CT_END, code, &status);
    assert_ok(ct_block_writer_commit(writer, &status), &status);
    ct_reader_close(reader);
    return path;
}

static const char one_number[] = "name: n\nformat: {columns: 1}\nfields:\n  - {name: x, kind: number, column: 1}\n";

#endif
