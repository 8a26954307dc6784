/* Block files: what was written comes back; a file taken apart by hand holds what its description says; every changed, cut or added byte
 * is found; a file with fitting checksums and impossible content is refused too. */
#include "data/block_file.h"

#include <math.h>
#include <xxhash.h>

#include "tests/data/rows.h"

static char *folder;

static uint64_t le(const unsigned char *at, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

static void put_le(unsigned char *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (unsigned char)(value >> (8 * i));
}

/* Text rows -> rows and a block file. */
static char *convert(const ct_schema *schema, const char *data, size_t size, const char *name, size_t block_rows, rows *out_rows) {
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader = NULL;
    ct_block_writer *writer = NULL;
    ct_batch *batch;
    ct_code code;
    char *text_path = write_bytes(folder, "text.tsv", data, size), *path = temp_path(folder, name);
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    options.sources = (const char *const *)&text_path;
    options.source_count = 1;
    options.batch_rows = block_rows;
    (void)remove(path);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    assert_ok(ct_block_writer_open(path, schema, &writer, &status), &status);
    assert_false(ct_path_exists(path)); /* it appears at commit */
    while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        assert_ok(ct_block_writer_write(writer, batch, &status), &status);
        if (out_rows) rows_add(out_rows, batch);
        ct_reader_release(reader, batch);
    }
    assert_code(CT_END, code, &status);
    assert_ok(ct_block_writer_commit(writer, &status), &status);
    ct_reader_close(reader);
    free(text_path);
    return path;
}

static ct_code read_blocks(const ct_schema *schema, const char *path, rows *out, ct_status *status) {
    ct_source *source = NULL;
    ct_block_reader *reader = NULL;
    ct_batch *batch = NULL;
    *out = (rows){0};
    ct_code code = ct_source_open(path, &source, status);
    if (code == CT_OK) code = ct_block_reader_open(source, schema, &reader, status);
    if (code == CT_OK) code = ct_batch_create(schema, 1, &batch, status);
    while (code == CT_OK) {
        code = ct_block_reader_next(reader, batch, status);
        if (code == CT_OK) rows_add(out, batch);
    }
    ct_batch_destroy(batch);
    ct_block_reader_close(reader);
    ct_source_close(source);
    return code == CT_END ? CT_OK : code;
}

static text some_rows(int count, uint64_t seed) {
    text t = {0};
    for (int i = 0; i < count; i++) add_row(&t, &seed, "\n");
    return t;
}

static void test_round_trip(void **state) {
    (void)state;
    ct_schema *schema = schema_of(every_kind);
    text t = some_rows(1000, 3);
    static const size_t block_rows[] = {1, 7, 999, 1000, 8192};
    char first_digest[64] = "";
    for (size_t i = 0; i < sizeof block_rows / sizeof block_rows[0]; i++) {
        ct_status status = CT_STATUS_INIT;
        rows written = {0}, got;
        json_t *json = NULL;
        char *path = convert(schema, t.bytes, t.size, "a.ctb", block_rows[i], &written);
        assert_ok(read_blocks(schema, path, &got, &status), &status);
        assert_same_rows(&written, &got);
        /* The description, whose digest does not depend on the blocks. */
        assert_ok(ct_block_file_describe(path, &json, &status), &status);
        assert_int_equal(json_integer_value(json_object_get(json, "rows")), 1000);
        assert_int_equal(json_integer_value(json_object_get(json, "blocks")), (1000 + block_rows[i] - 1) / block_rows[i]);
        assert_int_equal(json_array_size(json_object_get(json, "columns")), schema->field_count);
        const char *digest = json_string_value(json_object_get(json, "digest"));
        assert_int_equal(strlen(digest), 32);
        if (!i) (void)snprintf(first_digest, sizeof first_digest, "%s", digest);
        assert_string_equal(digest, first_digest);
        json_decref(json);
        rows_free(&written);
        rows_free(&got);
        free(path);
    }
    /* Another value, another digest. */
    ct_status status = CT_STATUS_INIT;
    json_t *json = NULL;
    t.bytes[0] = t.bytes[0] == '0' ? '1' : '0';
    char *path = convert(schema, t.bytes, t.size, "b.ctb", 100, NULL);
    assert_ok(ct_block_file_describe(path, &json, &status), &status);
    assert_string_not_equal(json_string_value(json_object_get(json, "digest")), first_digest);
    json_decref(json);
    free(path);
    free(t.bytes);
    ct_schema_destroy(schema);
}

static void test_empty(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(every_kind);
    rows got;
    char *path = convert(schema, "", 0, "none.ctb", 10, NULL);
    assert_ok(read_blocks(schema, path, &got, &status), &status);
    assert_int_equal(got.rows, 0);
    rows_free(&got);
    free(path);
    ct_schema_destroy(schema);
}

static const char small_schema[] =
    "name: s\nformat: {columns: 3}\nfields:\n  - {name: y, kind: label, column: 1}\n"
    "  - {name: ids, kind: id, column: 2, separator: \",\", max: 3}\n  - {name: x, kind: number, column: 3}\n";
static const char small_text[] = "1\ta,b\t1.5\n0\t\t\n1\tc\t-2\n";

/* The layout as block_file.h describes it, with xxHash itself. */
static void test_layout(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(small_schema);
    char *path = convert(schema, small_text, strlen(small_text), "s.ctb", 2, NULL), *data = NULL;
    size_t size;
    assert_ok(ct_file_read(path, 1 << 20, &data, &size, &status), &status);
    const unsigned char *at = (const unsigned char *)data;
    assert_memory_equal(at, "CTBLOCK1", 8);
    assert_true(ct_block_file_is(data, 8));
    assert_false(ct_block_file_is(data, 7));
    const size_t header = le(at + 8, 4);
    at += 12;
    assert_int_equal(le(at + header, 8), XXH3_64bits(at, header));
    json_t *json = json_loadb((const char *)at, header, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(json, "format_version")), 1);
    const json_t *column = json_array_get(json_object_get(json, "columns"), 1);
    assert_string_equal(json_string_value(json_object_get(column, "name")), "ids");
    assert_string_equal(json_string_value(json_object_get(column, "kind")), "id");
    assert_string_equal(json_string_value(json_object_get(column, "type")), "u64");
    assert_string_equal(json_string_value(json_object_get(column, "layout")), "csr");
    json_decref(json);
    at += header + 8;
    /* First block: two rows, labels 1 0, offsets 0 2 2, keys a b, numbers 1.5 NaN. */
    assert_memory_equal(at, "CTBB", 4);
    assert_int_equal(le(at + 4, 4), 2);
    const size_t payload = le(at + 8, 8);
    assert_int_equal(payload, 2 * 4 + 3 * 4 + 2 * 8 + 2 * 4);
    unsigned char *hashed = malloc(4 + payload);
    assert_non_null(hashed);
    memcpy(hashed, at + 4, 4);
    memcpy(hashed + 4, at + 16, payload);
    assert_int_equal(le(at + 16 + payload, 8), XXH3_64bits(hashed, 4 + payload));
    free(hashed);
    float numbers[2];
    memcpy(numbers, at + 16, 8);
    assert_true(numbers[0] == 1 && numbers[1] == 0);
    assert_int_equal(le(at + 24, 4), 0);
    assert_int_equal(le(at + 28, 4), 2);
    assert_int_equal(le(at + 32, 4), 2);
    assert_int_equal(le(at + 36, 8), XXH3_64bits_withSeed("a", 1, XXH3_64bits("ids", 3)));
    assert_int_equal(le(at + 44, 8), XXH3_64bits_withSeed("b", 1, XXH3_64bits("ids", 3)));
    memcpy(numbers, at + 52, 8);
    assert_true(numbers[0] == 1.5f && numbers[1] != numbers[1]);
    at += 16 + payload + 8;
    assert_memory_equal(at, "CTBB", 4);
    assert_int_equal(le(at + 4, 4), 1);
    at += 16 + le(at + 8, 8) + 8;
    assert_memory_equal(at, "CTBE", 4);
    assert_int_equal(le(at + 4, 8), 3);
    assert_int_equal(le(at + 12, 8), XXH3_64bits(at, 12));
    assert_ptr_equal(at + 20, (const unsigned char *)data + size);
    free(data);
    free(path);
    ct_schema_destroy(schema);
}

/* Neither the block reader nor the description nor a reader takes the file. */
static void assert_damaged(const ct_schema *schema, const char *path, const char *what, size_t where) {
    ct_status status = CT_STATUS_INIT;
    json_t *json = NULL;
    rows got;
    ct_code codes[3];
    codes[0] = read_blocks(schema, path, &got, &status);
    rows_free(&got);
    codes[1] = ct_block_file_describe(path, &json, &status);
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    options.sources = &path;
    options.source_count = 1;
    options.max_bad_rows = 0;
    codes[2] = rows_read(schema, &options, &got, &status);
    rows_free(&got);
    for (int i = 0; i < 3; i++) {
        if (codes[i] != CT_CORRUPT && codes[i] != CT_INVALID) print_error("%s %zu: %s by %d\n", what, where, ct_code_name(codes[i]), i);
        assert_true(codes[i] == CT_CORRUPT || codes[i] == CT_INVALID);
    }
    assert_contains(status.message, ".ctb");
}

static void test_damaged(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(small_schema);
    char *path = convert(schema, small_text, strlen(small_text), "s.ctb", 2, NULL), *data = NULL;
    size_t size;
    assert_ok(ct_file_read(path, 1 << 20, &data, &size, &status), &status);
    free(path);
    for (size_t i = 0; i < size; i++) {
        static const unsigned char masks[] = {0x01, 0x80, 0xff};
        for (size_t k = 0; k < sizeof masks; k++) {
            data[i] = (char)(data[i] ^ (char)masks[k]);
            path = write_bytes(folder, "flip.ctb", data, size);
            data[i] = (char)(data[i] ^ (char)masks[k]);
            assert_damaged(schema, path, "flipped byte", i);
            free(path);
        }
    }
    for (size_t cut = 0; cut < size; cut++) {
        path = write_bytes(folder, "cut.ctb", data, cut);
        assert_damaged(schema, path, "cut at", cut);
        free(path);
    }
    data = realloc(data, size + 1);
    assert_non_null(data);
    data[size] = 'C';
    path = write_bytes(folder, "longer.ctb", data, size + 1);
    assert_damaged(schema, path, "longer", size);
    free(path);
    free(data);
    ct_schema_destroy(schema);
}

/* Changes in the first block with its checksum made to fit. */
static void test_impossible(void **state) {
    (void)state;
    static const struct {
        size_t at; /* in the block, from its tag */
        uint64_t value;
        int bytes;
        const char *part;
    } cases[] = {
        {4, 3, 4, "do not fill"},         /* three rows in the place of two */
        {4, 1, 4, "do not fill"},         /* one */
        {4, 0xffffffff, 4, "impossible"}, /* four thousand million */
        {8, 8, 8, ""},                    /* a shorter payload */
        {8, UINT64_MAX, 8, "impossible"}, /* a payload of no file */
        {8, 1u << 30, 8, "cut"},          /* a longer one than the file */
        {16, 0x40000000, 4, "not allow"}, /* label 2.0 */
        {24, 1, 4, "do not fill"},        /* offsets that begin at 1 */
        {28, 3, 4, "do not fill"},        /* and go down */
        {32, 3, 4, "do not fill"},        /* more values than there are */
        {32, 0x7fffffff, 4, "do not fill"},
    };
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(small_schema);
    char *path = convert(schema, small_text, strlen(small_text), "s.ctb", 2, NULL), *data = NULL;
    size_t size;
    rows got;
    assert_ok(ct_file_read(path, 1 << 20, &data, &size, &status), &status);
    free(path);
    const size_t header = le((const unsigned char *)data + 8, 4);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char *copy = malloc(size), *hashed = malloc(size);
        assert_true(copy && hashed);
        memcpy(copy, data, size);
        unsigned char *block = copy + 12 + header + 8;
        const size_t payload = le(block + 8, 8);
        put_le(block + cases[i].at, cases[i].value, cases[i].bytes);
        memcpy(hashed, block + 4, 4);
        memcpy(hashed + 4, block + 16, payload);
        put_le(block + 16 + payload, XXH3_64bits(hashed, 4 + payload), 8);
        path = write_bytes(folder, "impossible.ctb", copy, size);
        assert_code(CT_CORRUPT, read_blocks(schema, path, &got, &status), &status);
        assert_contains(status.message, "impossible.ctb");
        assert_contains(status.message, cases[i].part);
        rows_free(&got);
        free(path);
        free(copy);
        free(hashed);
    }
    /* An end that tells of other rows. */
    unsigned char *end = (unsigned char *)data + size - 20;
    put_le(end + 4, 4, 8);
    put_le(end + 12, XXH3_64bits(end, 12), 8);
    path = write_bytes(folder, "impossible.ctb", data, size);
    assert_code(CT_CORRUPT, read_blocks(schema, path, &got, &status), &status);
    assert_contains(status.message, "4 rows, but it holds 3");
    rows_free(&got);
    free(path);
    free(data);
    ct_schema_destroy(schema);
}

/* Another schema over the same file: new columns are absent, other rules are refused by name. */
static void test_other_schema(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(small_schema);
    char *path = convert(schema, small_text, strlen(small_text), "s.ctb", 2, NULL);
    rows got, own;
    assert_ok(read_blocks(schema, path, &own, &status), &status);
#define HEAD "name: t\nformat: {columns: 5}\nfields:\n  - {name: y, kind: label, column: 1}\n"
    ct_schema *more = schema_of(HEAD
                                "  - {name: new, kind: number, column: 5}\n  - {name: tags, kind: id, column: 4, separator: \",\"}\n"
                                "  - {name: ids, kind: id, column: 4, side: context, separator: \",\", max: 3}\n");
    assert_ok(read_blocks(more, path, &got, &status), &status);
    assert_int_equal(got.rows, 3);
    assert_true(got.present[0] && !got.present[1] && !got.present[2] && got.present[3]);
    assert_memory_equal(got.values[3].data, own.values[1].data, own.values[1].size);
    rows_free(&got);
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    options.sources = (const char *const *)&path;
    options.source_count = 1;
    options.batch_rows = 2;
    assert_ok(rows_read(more, &options, &got, &status), &status);
    assert_true(got.present[0] && !got.present[1] && !got.present[2] && got.present[3]);
    assert_memory_equal(got.values[3].data, own.values[1].data, own.values[1].size);
    rows_free(&got);
    /* A text has the columns that the file lacks: both together are refused. */
    char *text_path = write_text(folder, "more.tsv", "1\t\t\ta\t1\n");
    const char *both[] = {text_path, path};
    options.sources = both;
    options.source_count = 2;
    assert_code(CT_INVALID, rows_read(more, &options, &got, &status), &status);
    assert_contains(status.message, "'new'");
    rows_free(&got);
    free(text_path);
    static const struct {
        const char *yaml, *part;
    } wrong[] = {
        {HEAD "  - {name: ids, kind: id, column: 4, separator: \",\", max: 4}\n", "max=4"},
        {HEAD "  - {name: ids, kind: id, column: 4}\n", "column 'ids'"},
        {HEAD "  - {name: x, kind: id, column: 4}\n", "the file's is 'number'"},
        {"name: t\nformat: {columns: 5}\nfields:\n  - {name: y, kind: label, column: 1, at_least: 2}\n", "at_least=2"},
        {"name: t\nformat: {columns: 5}\nfields:\n  - {name: click, kind: label, column: 1}\n", "no column 'click'"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ct_schema *other = schema_of(wrong[i].yaml);
        assert_code(CT_INVALID, read_blocks(other, path, &got, &status), &status);
        assert_contains(status.message, "s.ctb");
        assert_contains(status.message, wrong[i].part);
        rows_free(&got);
        ct_schema_destroy(other);
    }
    rows_free(&own);
    ct_schema_destroy(more);
    ct_schema_destroy(schema);
    free(path);
}

static void test_writer(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(small_schema), *other = schema_of(every_kind);
    ct_block_writer *writer = NULL;
    ct_batch *batch = NULL, *foreign = NULL;
    char *path = temp_path(folder, "w.ctb");
    assert_ok(ct_block_writer_open(path, schema, &writer, &status), &status);
    assert_ok(ct_batch_create(schema, 4, &batch, &status), &status);
    assert_ok(ct_batch_create(other, 4, &foreign, &status), &status);
    assert_code(CT_INVALID, ct_block_writer_write(writer, foreign, &status), &status);
    batch->columns[2].present = false;
    assert_code(CT_INVALID, ct_block_writer_write(writer, batch, &status), &status);
    batch->columns[2].present = true;
    batch->columns[2].shared = true;
    assert_code(CT_UNSUPPORTED, ct_block_writer_write(writer, batch, &status), &status);
    batch->columns[2].shared = false;
    assert_ok(ct_block_writer_write(writer, batch, &status), &status); /* no rows: nothing to write */
    ct_block_writer_abort(writer);
    ct_block_writer_abort(NULL);
    assert_false(ct_path_exists(path));
    assert_int_not_equal(ct_block_writer_open("/nowhere/at/all/x.ctb", schema, &writer, &status), CT_OK);
    free(path);
    ct_batch_destroy(batch);
    ct_batch_destroy(foreign);
    ct_schema_destroy(schema);
    ct_schema_destroy(other);
}

static const char history_schema[] =
    "name: h\nformat: {columns: 3}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: who, kind: unit, column: 2}\n"
    "  - {name: item, kind: id, column: 3}\n  - {name: liked, kind: history, of: item, max: 2%s}\n  - {name: likes, kind: number, of: "
    "liked}\n";

static ct_schema *history_schema_with(const char *more) {
    char text[600];
    (void)snprintf(text, sizeof text, history_schema, more);
    return schema_of(text);
}

/* A file of three rows with histories of 0, 1 and 2 values, whose lengths are said to be these. */
static char *write_served(const ct_schema *schema, const float likes[3], const bool derived[5]) {
    ct_status status = CT_STATUS_INIT;
    ct_block_writer *writer = NULL;
    ct_batch *batch = NULL;
    char *path = temp_path(folder, "served.ctb");
    assert_ok(ct_batch_create(schema, 3, &batch, &status), &status);
    batch->rows = 3;
    for (size_t c = 0; c < 3; c++) memset(batch->columns[c].values, 0, 3 * ct_column_type_bytes(batch->columns[c].type));
    memcpy(batch->columns[3].offsets, (const uint32_t[]){0, 0, 1, 3}, 16);
    memcpy(batch->columns[3].values, (const uint64_t[]){5, 6, 7}, 24);
    memcpy(batch->columns[4].values, likes, 12);
    assert_ok(ct_block_writer_open_served(path, schema, derived, &writer, &status), &status);
    assert_ok(ct_block_writer_write(writer, batch, &status), &status);
    assert_ok(ct_block_writer_commit(writer, &status), &status);
    ct_batch_destroy(batch);
    return path;
}

/* Columns that follow from a history, as they were served: they come back as they are, under their history's rule; how it is pooled is no
 * part of that. */
static void test_served(void **state) {
    (void)state;
    static const bool all[5] = {[3] = true, [4] = true}, one[5] = {[3] = true};
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = history_schema_with(""), *attends = history_schema_with(", pooling: attention");
    ct_schema *clicked = history_schema_with(", clicked: true");
    rows got;
    char *path = write_served(schema, (const float[]){0, 1, 2}, all);
    const ct_schema *same[] = {schema, attends};
    for (size_t i = 0; i < 2; i++) {
        assert_ok(read_blocks(same[i], path, &got, &status), &status);
        assert_true(got.present[3] && got.present[4]);
        assert_memory_equal(got.values[3].data, ((const uint64_t[]){5, 6, 7}), 24);
        assert_memory_equal(got.counts[3].data, ((const uint32_t[]){0, 1, 2}), 12);
        assert_memory_equal(got.values[4].data, ((const float[]){0, 1, 2}), 12);
        rows_free(&got);
    }
    assert_int_not_equal(schema->hash, attends->hash);
    assert_code(CT_INVALID, read_blocks(clicked, path, &got, &status), &status);
    assert_non_null(strstr(status.message, "column 'liked' was made by another rule"));
    free(path);
    static const float wrong[][3] = {{0, 1, 2.5f}, {0, 1, -1}, {0, 1, NAN}, {0, 1, 1e9f}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        path = write_served(schema, wrong[i], all);
        assert_code(CT_CORRUPT, read_blocks(schema, path, &got, &status), &status);
        rows_free(&got);
        free(path);
    }
    path = write_served(schema, wrong[0], one);
    assert_code(CT_INVALID, read_blocks(schema, path, &got, &status), &status);
    assert_non_null(strstr(status.message, "has 'liked' as it was served, but not 'likes'"));
    free(path);
    path = write_served(schema, wrong[0], NULL);
    assert_ok(read_blocks(schema, path, &got, &status), &status);
    assert_true(!got.present[3] && !got.present[4]);
    rows_free(&got);
    free(path);
    ct_schema_destroy(schema);
    ct_schema_destroy(attends);
    ct_schema_destroy(clicked);
}

/* Batches: room for all values, kept when it grows. */
static void test_batch(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(small_schema);
    ct_batch *batch = NULL;
    assert_ok(ct_batch_create(schema, 10, &batch, &status), &status);
    assert_int_equal(batch->column_count, 3);
    assert_int_equal(batch->rows, 0);
    assert_null(batch->columns[0].offsets);
    assert_non_null(batch->columns[1].offsets);
    assert_int_equal(batch->columns[1].offsets[0], 0);
    assert_int_equal(batch->columns[1].value_capacity, 30);
    assert_int_equal(batch->columns[1].type, CT_TYPE_U64);
    assert_int_equal(batch->columns[1].hash, schema->fields[1].hash);
    batch->rows = 2;
    batch->columns[1].offsets[1] = 1;
    batch->columns[1].offsets[2] = 3;
    memcpy(batch->columns[1].values, (const uint64_t[]){7, 8, 9}, 24);
    assert_ok(ct_batch_reserve(batch, 1, 1000, &status), &status);
    assert_memory_equal(batch->columns[1].values, ((const uint64_t[]){7, 8, 9}), 24);
    assert_code(CT_EXHAUSTED, ct_batch_reserve(batch, 1, (size_t)UINT32_MAX + 1, &status), &status);
    ct_batch_destroy(batch);
    ct_batch_destroy(NULL);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_empty),      cmocka_unit_test(test_layout),
        cmocka_unit_test(test_damaged),    cmocka_unit_test(test_impossible), cmocka_unit_test(test_other_schema),
        cmocka_unit_test(test_writer),     cmocka_unit_test(test_served),     cmocka_unit_test(test_batch),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
