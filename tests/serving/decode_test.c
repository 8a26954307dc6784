/* Requests to batches: the same columns as the text reader makes of the same rows; every refusal by name; any bytes at all are survived. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* after them */
#include <cmocka.h>

#include "base/hash.h"
#include "base/random.h"
#include "data/reader.h"
#include "tests/base/temp.h"
#include "tests/serving/requests.h"

static const char SCHEMA[] =
    "name: shop\n"
    "format: {separator: \"\\t\", columns: 9}\n"
    "fields:\n"
    "  - {name: label, kind: label, column: 1}\n"
    "  - {name: price, kind: number, column: 2, side: candidate}\n"
    "  - {name: age, kind: number, column: 3, side: context}\n"
    "  - {name: user, kind: id, column: 4, side: context, type: text}\n"
    "  - {name: item, kind: id, column: 5, side: candidate, type: integer}\n"
    "  - {name: likes, kind: id, column: 6, side: context, type: integer, separator: \",\", max: 3, newest: last, shares: item}\n"
    "  - {name: words, kind: id, column: 7, side: candidate, type: text, separator: \" \", max: 2, newest: first}\n"
    "  - {name: item_text, kind: vector, of: item, file: text.npy}\n"
    "  - {name: likes_text, kind: vector, of: likes, file: text.npy}\n"
    "  - {name: unit, kind: unit, column: 8}\n"
    "  - {name: spare, kind: number, column: 9, side: candidate}\n";

enum { MAX_CANDIDATES = 1000 };

typedef struct fixture {
    ct_schema *schema;
    ct_decoder *decoder;
    ct_arena arena;
} fixture;

static size_t find(const fixture *fx, const char *name) {
    const int64_t f = ct_schema_find(fx->schema, name);
    assert_true(f >= 0);
    return (size_t)f;
}

static int setup(void **state) {
    static fixture fx;
    ct_status status = CT_STATUS_INIT;
    if (ct_schema_parse(SCHEMA, strlen(SCHEMA), "shop.yaml", &fx.schema, &status) != CT_OK) fail_msg("%s", status.message);
    bool used[64] = {false};
    static const char *const names[] = {"price", "age", "user", "likes", "words", "item_text", "likes_text", "item"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) used[find(&fx, names[i])] = true;
    assert_int_equal(ct_decoder_create(fx.schema, used, MAX_CANDIDATES, &fx.decoder, &status), CT_OK);
    ct_arena_init(&fx.arena, 0);
    *state = &fx;
    return 0;
}

static int teardown(void **state) {
    fixture *fx = *state;
    ct_arena_deinit(&fx->arena);
    ct_decoder_destroy(fx->decoder);
    ct_schema_destroy(fx->schema);
    return 0;
}

static ct_code decode_bytes(fixture *fx, const uint8_t *bytes, size_t count, ct_batch *out, ct_status *status) {
    Clicktower__V1__ScoreRequest *request = NULL;
    ct_arena_reset(&fx->arena);
    CT_TRY(ct_request_unpack(&fx->arena, bytes, count, &request, status));
    return ct_request_batch(fx->decoder, &fx->arena, request, out, status);
}

static ct_code decode(fixture *fx, const test_request *r, ct_batch *out, ct_status *status) {
    size_t count = 0;
    uint8_t *bytes = test_pack(r, &count);
    const ct_code code = decode_bytes(fx, bytes, count, out, status);
    free(bytes);
    return code;
}

/* --- the same rows as text and as a request --- */

typedef struct text_row {
    const char *price, *age, *user, *item, *likes, *words;
} text_row;

static const text_row ROWS[] = {
    {"1.5", "33", "anna", "7", "1,2,3,4,5", "red blue green"},
    {"", "-0.25", "b\xc3\xa9la", "-9", "", ""},
    {"1e-3", "", "", "007", "12", "one"},
    {"340282346638528859811704183484516925440", "0", "anna", "9223372036854775807", "3,,4,", " a  b c"},
    {"-0", "7", "x y", "", "-1,-2,-3", "same same"},
};
enum { ROW_COUNT = sizeof ROWS / sizeof *ROWS };

/* Pieces between separators that are not empty; returns their number. */
static size_t add_tokens(test_column *c, const char *text, char separator, char *memory) {
    size_t count = 0;
    strcpy(memory, text);
    const char separators[2] = {separator, '\0'};
    char *rest = NULL;
    for (char *token = strtok_r(memory, separators, &rest); token; token = strtok_r(NULL, separators, &rest)) {
        test_token(c, token);
        count++;
    }
    return count;
}

static void add_number(test_column *c, const char *text) {
    if (text[0]) test_number(c, strtof(text, NULL));
    test_length(c, text[0] != '\0');
}

/* One row as columns of one side; memory: at least 256 bytes for each row. */
static void add_row(test_column *const c[6], const text_row *row, char *memory) {
    add_number(c[0], row->price);
    add_number(c[1], row->age);
    test_token(c[2], row->user);
    test_token(c[3], row->item);
    test_length(c[4], (uint32_t)add_tokens(c[4], row->likes, ',', memory));
    test_length(c[5], (uint32_t)add_tokens(c[5], row->words, ' ', memory + 128));
}

static const char *const NAMES[6] = {"price", "age", "user", "item", "likes", "words"};

static void write_rows(const char *path) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t r = 0; r < ROW_COUNT; r++)
        fprintf(file, "1\t%s\t%s\t%s\t%s\t%s\t%s\tunit\t1\n", ROWS[r].price, ROWS[r].age, ROWS[r].user, ROWS[r].item, ROWS[r].likes,
                ROWS[r].words);
    assert_int_equal(fclose(file), 0);
}

static void same_row(const ct_column *got, size_t got_row, const ct_column *expected, size_t row) {
    assert_true(got->present);
    assert_string_equal(got->name, expected->name);
    assert_int_equal(got->hash, expected->hash);
    assert_int_equal(got->type, expected->type);
    assert_int_equal(got->offsets != NULL, expected->offsets != NULL);
    const size_t a = got->offsets ? got->offsets[got_row] : got_row, b = expected->offsets ? expected->offsets[row] : row;
    const size_t count = got->offsets ? got->offsets[got_row + 1] - a : 1;
    assert_int_equal(count, expected->offsets ? expected->offsets[row + 1] - b : 1);
    for (size_t i = 0; i < count; i++) {
        if (got->type == CT_TYPE_F32) {
            const float x = ct_column_f32(got)[a + i], y = ct_column_f32(expected)[b + i];
            if (isnan(y))
                assert_true(isnan(x));
            else
                assert_memory_equal(&x, &y, 4);
        } else {
            assert_int_equal(ct_column_u64(got)[a + i], ct_column_u64(expected)[b + i]);
        }
    }
}

static void test_same_as_reader(void **state) {
    fixture *fx = *state;
    char *folder = temp_folder();
    char *path = ct_path_join(folder, "rows.tsv");
    write_rows(path);
    ct_status status = CT_STATUS_INIT;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    const char *const sources[] = {path};
    options.sources = sources;
    options.source_count = 1;
    ct_reader *reader = NULL;
    ct_batch *expected = NULL, got;
    assert_int_equal(ct_reader_open(fx->schema, &options, &reader, &status), CT_OK);
    if (ct_reader_next(reader, &expected, &status) != CT_OK) fail_msg("%s", status.message);
    assert_int_equal(expected->rows, ROW_COUNT);
    static const char *const used[] = {"price", "age", "user", "item", "likes", "words", "item_text", "likes_text"};

    /* All rows as candidates. */
    char memory[ROW_COUNT][256];
    test_request r;
    test_request_init(&r);
    test_column *columns[6];
    for (size_t i = 0; i < 6; i++) columns[i] = test_add(&r, false, NAMES[i]);
    for (size_t row = 0; row < ROW_COUNT; row++) add_row(columns, &ROWS[row], memory[row]);
    if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("%s", status.message);
    test_request_deinit(&r);
    assert_int_equal(got.rows, ROW_COUNT);
    assert_int_equal(got.column_count, fx->schema->field_count);
    for (size_t u = 0; u < sizeof used / sizeof *used; u++) {
        const size_t f = find(fx, used[u]);
        assert_false(got.columns[f].shared);
        for (size_t row = 0; row < ROW_COUNT; row++) same_row(&got.columns[f], row, &expected->columns[f], row);
    }
    assert_false(got.columns[find(fx, "label")].present);
    assert_false(got.columns[find(fx, "unit")].present);
    assert_false(got.columns[find(fx, "spare")].present);

    /* Each row alone, all of it context, for three candidates. */
    for (size_t row = 0; row < ROW_COUNT; row++) {
        test_request_init(&r);
        for (size_t i = 0; i < 6; i++) columns[i] = test_add(&r, true, NAMES[i]);
        add_row(columns, &ROWS[row], memory[row]);
        r.message.candidate_count = 3;
        if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("%s", status.message);
        test_request_deinit(&r);
        assert_int_equal(got.rows, 3);
        for (size_t u = 0; u < sizeof used / sizeof *used; u++) {
            const size_t f = find(fx, used[u]);
            assert_true(got.columns[f].shared);
            same_row(&got.columns[f], 0, &expected->columns[f], row);
        }
    }
    ct_reader_close(reader);
    free(path);
    temp_remove(folder);
}

/* --- one small good request, to be spoiled --- */

static void good(test_request *r) {
    test_request_init(r);
    test_column *c = test_add(r, true, "user");
    test_token(c, "anna");
    c = test_add(r, true, "age");
    test_number(c, 30);
    c = test_add(r, true, "likes");
    test_integer(c, 5);
    test_integer(c, 6);
    test_length(c, 2);
    c = test_add(r, false, "price");
    test_number(c, 1);
    test_number(c, 2);
    c = test_add(r, false, "item");
    test_integer(c, 10);
    test_integer(c, -11);
    c = test_add(r, false, "words");
    test_token(c, "w");
    test_length(c, 0);
    test_length(c, 1);
}

static test_column *column(test_request *r, const char *name) {
    for (size_t i = 0; i < r->owned_count; i++)
        if (strcmp((const char *)r->owned[i]->message.name.data, name) == 0) return r->owned[i];
    fail_msg("no column %s", name);
    return NULL;
}

static void drop(test_request *r, const char *name) {
    size_t kept = 0;
    for (size_t i = 0; i < r->message.n_context; i++)
        if (strcmp((const char *)r->context[i]->name.data, name) != 0) r->context[kept++] = r->context[i];
    r->message.n_context = kept;
    kept = 0;
    for (size_t i = 0; i < r->message.n_candidates; i++)
        if (strcmp((const char *)r->candidates[i]->name.data, name) != 0) r->candidates[kept++] = r->candidates[i];
    r->message.n_candidates = kept;
}

static void test_keys_are_xxh3(void **state) {
    fixture *fx = *state;
    test_request r;
    ct_batch got;
    ct_status status = CT_STATUS_INIT;
    good(&r);
    column(&r, "item")->integers[1] = INT64_MIN;
    if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("%s", status.message);
    test_request_deinit(&r);
    const uint64_t salt = fx->schema->fields[find(fx, "item")].salt;
    const uint64_t *items = ct_column_u64(&got.columns[find(fx, "item")]);
    assert_int_equal(items[0], ct_hash64("10", 2, salt));
    assert_int_equal(items[1], ct_hash64("-9223372036854775808", 20, salt));
    const uint64_t *vectors = ct_column_u64(&got.columns[find(fx, "item_text")]);
    assert_int_equal(vectors[0], ct_hash64("10", 2, 0));
    assert_int_equal(vectors[1], ct_hash64("-9223372036854775808", 20, 0));
    /* likes share item's rows; their vector has salt 0 */
    assert_int_equal(ct_column_u64(&got.columns[find(fx, "likes")])[1], ct_hash64("6", 1, salt));
    assert_int_equal(ct_column_u64(&got.columns[find(fx, "likes_text")])[1], ct_hash64("6", 1, 0));
    /* XXH3 of no bytes with seed 0, as its authors give it */
    assert_int_equal(ct_hash64("", 0, 0), UINT64_C(0x2d06800538d394c2));
}

/* Tokens are bytes: a NUL or bytes that are no UTF-8 are part of them. Integers are allowed for text ids. */
static void test_tokens_are_bytes(void **state) {
    fixture *fx = *state;
    test_request r;
    ct_batch got;
    ct_status status = CT_STATUS_INIT;
    good(&r);
    column(&r, "user")->tokens[0] = (ProtobufCBinaryData){3, (uint8_t *)(uintptr_t) "a\0b"};
    if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("%s", status.message);
    const ct_field *user = &fx->schema->fields[find(fx, "user")];
    assert_int_equal(ct_column_u64(&got.columns[find(fx, "user")])[0], ct_hash64("a\0b", 3, user->salt));
    column(&r, "user")->tokens[0] = ct_text_data("\xff\xfe");
    assert_int_equal(decode(fx, &r, &got, &status), CT_OK);
    assert_int_equal(ct_column_u64(&got.columns[find(fx, "user")])[0], ct_hash64("\xff\xfe", 2, user->salt));
    column(&r, "user")->message.n_tokens = 0;
    test_integer(column(&r, "user"), 12345);
    assert_int_equal(decode(fx, &r, &got, &status), CT_OK);
    assert_int_equal(ct_column_u64(&got.columns[find(fx, "user")])[0], ct_hash64("12345", 5, user->salt));
    test_request_deinit(&r);
}

/* --- refusals --- */

static void no_candidates(test_request *r) { r->message.n_candidates = 0; }
static void empty_first(test_request *r) { column(r, "price")->message.n_numbers = 0; }
static void other_count(test_request *r) { r->message.candidate_count = 3; }
static void too_many(test_request *r) { r->message.candidate_count = MAX_CANDIDATES + 1; }
static void too_many_in_column(test_request *r) {
    for (int i = 0; i < MAX_CANDIDATES; i++) test_number(column(r, "price"), 1);
}
static void unknown_field(test_request *r) { test_token(test_add(r, true, "colour"), "red"); }
static void nul_in_name(test_request *r) { column(r, "user")->message.name = (ProtobufCBinaryData){6, (uint8_t *)(uintptr_t) "user\0x"}; }
static void no_name(test_request *r) { column(r, "user")->message.name.len = 0; }
static void bad_name(test_request *r) { column(r, "user")->message.name = ct_text_data("us\xffr"); }
static void twice(test_request *r) { test_token(test_add(r, true, "user"), "anna"); }
static void both_sides(test_request *r) {
    test_column *c = test_add(r, false, "age");
    test_number(c, 1);
    test_number(c, 2);
}
static void missing_number(test_request *r) { drop(r, "age"); }
static void missing_id(test_request *r) { drop(r, "item"); }
static void number_tokens(test_request *r) {
    column(r, "age")->message.n_numbers = 0;
    test_token(column(r, "age"), "30");
}
static void number_integers(test_request *r) {
    column(r, "age")->message.n_numbers = 0;
    test_integer(column(r, "age"), 30);
}
static void id_numbers(test_request *r) {
    column(r, "user")->message.n_tokens = 0;
    test_number(column(r, "user"), 3);
}
static void two_lists(test_request *r) { test_integer(column(r, "user"), 3); }
static void not_a_number(test_request *r) { column(r, "price")->numbers[1] = NAN; }
static void infinite(test_request *r) { column(r, "price")->numbers[0] = -INFINITY; }
static void context_two(test_request *r) { test_number(column(r, "age"), 31); }
static void context_none(test_request *r) { column(r, "age")->message.n_numbers = 0; }
static void one_short(test_request *r) { column(r, "item")->message.n_integers = 1; }
static void lengths_short(test_request *r) { column(r, "words")->message.n_lengths = 1; }
static void lengths_sum(test_request *r) { column(r, "words")->lengths[0] = 1; }
static void lengths_huge(test_request *r) { column(r, "words")->lengths[0] = UINT32_MAX; }
static void number_length(test_request *r) {
    test_length(column(r, "price"), 2);
    test_length(column(r, "price"), 0);
}
static void id_length(test_request *r) {
    test_length(column(r, "item"), 0);
    test_length(column(r, "item"), 2);
}
static void bad_integer(test_request *r) {
    column(r, "item")->message.n_integers = 0;
    test_token(column(r, "item"), "1");
    test_token(column(r, "item"), "1x");
}
static void empty_among_many(test_request *r) { column(r, "words")->tokens[0] = ct_text_data(""); }
static void sent_vector(test_request *r) { test_integer(test_add(r, true, "item_text"), 3); }
static void long_id(test_request *r) {
    static char text[CT_REQUEST_ID_MAX_BYTES + 2];
    memset(text, 'x', sizeof text - 1);
    r->message.request_id = ct_text_data(text);
}
static void long_unit(test_request *r) {
    static char text[CT_REQUEST_UNIT_MAX_BYTES + 2];
    memset(text, 'x', sizeof text - 1);
    r->message.unit = ct_text_data(text);
}
static void bad_request_id(test_request *r) { r->message.request_id = ct_text_data("\xc0\x80"); }
static void bad_unit(test_request *r) { r->message.unit = ct_text_data("\xed\xa0\x80"); }
static void bad_model(test_request *r) { r->message.model = ct_text_data("\xf4\x90\x80\x80"); }

static const struct {
    const char *name;
    void (*spoil)(test_request *r);
    ct_code code;
    const char *words[3]; /* that the message must have */
} REFUSALS[] = {
    {"no candidates", no_candidates, CT_INVALID, {"no candidates"}},
    {"empty first column", empty_first, CT_INVALID, {"no candidates"}},
    {"other candidate_count", other_count, CT_INVALID, {"'price'", "2 values", "3 rows"}},
    {"too many", too_many, CT_EXHAUSTED, {"1001 candidates", "1000"}},
    {"too many in a column", too_many_in_column, CT_EXHAUSTED, {"1002 candidates", "1000"}},
    {"unknown field", unknown_field, CT_INVALID, {"'colour'", "no such field", "shop"}},
    {"NUL in a name", nul_in_name, CT_INVALID, {"user\\x00x", "no such field"}},
    {"no name", no_name, CT_INVALID, {"''", "no such field"}},
    {"name is not UTF-8", bad_name, CT_INVALID, {"us\\xffr", "UTF-8"}},
    {"twice", twice, CT_INVALID, {"'user'", "twice"}},
    {"on both sides", both_sides, CT_INVALID, {"'age'", "twice"}},
    {"missing number", missing_number, CT_INVALID, {"'age'", "missing"}},
    {"missing id of a vector", missing_id, CT_INVALID, {"'item'", "missing"}},
    {"number as tokens", number_tokens, CT_INVALID, {"'age'", "`numbers`", "`tokens`"}},
    {"number as integers", number_integers, CT_INVALID, {"'age'", "`numbers`", "`integers`"}},
    {"id as numbers", id_numbers, CT_INVALID, {"'user'", "`tokens`", "`numbers`"}},
    {"two lists", two_lists, CT_INVALID, {"'user'", "both"}},
    {"NaN", not_a_number, CT_INVALID, {"'price'", "row 1", "finite"}},
    {"infinite", infinite, CT_INVALID, {"'price'", "row 0", "finite"}},
    {"two rows of context", context_two, CT_INVALID, {"context column 'age'", "2 values", "1 row "}},
    {"no row of context", context_none, CT_INVALID, {"context column 'age'", "0 values"}},
    {"one row short", one_short, CT_INVALID, {"candidates column 'item'", "1 values", "2 rows"}},
    {"lengths short", lengths_short, CT_INVALID, {"'words'", "1 lengths", "2 rows"}},
    {"lengths' sum", lengths_sum, CT_INVALID, {"'words'", "sum to 2", "1 values"}},
    {"huge length", lengths_huge, CT_INVALID, {"'words'", "sum to 4294967296"}},
    {"length of a number", number_length, CT_INVALID, {"'price'", "row 0", "length 2"}},
    {"length of an id", id_length, CT_INVALID, {"'item'", "row 0", "exactly 1"}},
    {"no integer", bad_integer, CT_INVALID, {"'item'", "row 1", "1x"}},
    {"empty among many", empty_among_many, CT_INVALID, {"'words'", "row 1", "empty"}},
    {"vector", sent_vector, CT_INVALID, {"'item_text'", "send 'item'"}},
    {"long request_id", long_id, CT_INVALID, {"request_id", "129 bytes", "128"}},
    {"long unit", long_unit, CT_INVALID, {"unit", "257 bytes", "256"}},
    {"request_id is not UTF-8", bad_request_id, CT_INVALID, {"request_id", "UTF-8"}},
    {"unit is not UTF-8", bad_unit, CT_INVALID, {"unit", "UTF-8"}},
    {"model is not UTF-8", bad_model, CT_INVALID, {"model", "UTF-8"}},
};

static void test_refusals(void **state) {
    fixture *fx = *state;
    test_request r;
    ct_batch got;
    ct_status status = CT_STATUS_INIT;
    good(&r);
    if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("the good one: %s", status.message);
    test_request_deinit(&r);
    for (size_t i = 0; i < sizeof REFUSALS / sizeof *REFUSALS; i++) {
        status = (ct_status)CT_STATUS_INIT;
        good(&r);
        REFUSALS[i].spoil(&r);
        const ct_code code = decode(fx, &r, &got, &status);
        test_request_deinit(&r);
        if (code != REFUSALS[i].code) fail_msg("%s: %s: %s", REFUSALS[i].name, ct_code_name(code), status.message);
        for (size_t w = 0; w < 3 && REFUSALS[i].words[w]; w++)
            if (!strstr(status.message, REFUSALS[i].words[w]))
                fail_msg("%s: \"%s\" lacks %s", REFUSALS[i].name, status.message, REFUSALS[i].words[w]);
    }
}

/* What the schema knows and the model does not use is not looked at; what a request may leave out may be left out. */
static void test_tolerance(void **state) {
    fixture *fx = *state;
    test_request r;
    ct_batch got;
    ct_status status = CT_STATUS_INIT;
    good(&r);
    test_token(test_add(&r, true, "spare"), "not a number");
    test_number(test_add(&r, false, "label"), 1);
    test_token(test_add(&r, true, "unit"), "anna");
    r.message.candidate_count = 2;
    if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("%s", status.message);
    assert_int_equal(got.rows, 2);
    assert_false(got.columns[find(fx, "spare")].present);
    assert_false(got.columns[find(fx, "label")].present);
    test_request_deinit(&r);

    /* A missing number, and no values at all in a many-valued column. */
    good(&r);
    column(&r, "age")->message.n_numbers = 0;
    test_length(column(&r, "age"), 0);
    column(&r, "likes")->message.n_integers = 0;
    column(&r, "likes")->lengths[0] = 0;
    if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("%s", status.message);
    assert_true(isnan(ct_column_f32(&got.columns[find(fx, "age")])[0]));
    assert_int_equal(got.columns[find(fx, "likes")].offsets[1], 0);
    assert_int_equal(got.columns[find(fx, "likes_text")].offsets[1], 0);
    test_request_deinit(&r);

    /* As many as are allowed. */
    good(&r);
    for (size_t i = 2; i < MAX_CANDIDATES; i++) {
        test_number(column(&r, "price"), (float)i);
        test_integer(column(&r, "item"), (int64_t)i);
        test_length(column(&r, "words"), 0);
    }
    if (decode(fx, &r, &got, &status) != CT_OK) fail_msg("%s", status.message);
    assert_int_equal(got.rows, MAX_CANDIDATES);
    assert_true(ct_column_f32(&got.columns[find(fx, "price")])[999] == 999.0f);
    test_request_deinit(&r);
}

/* --- any bytes --- */

static uint64_t draw(uint64_t number, uint32_t index) { return ct_random_u64(7, CT_PLACE_TEST, 0, number, index); }

static void check_any(fixture *fx, const uint8_t *bytes, size_t count) {
    /* In memory of exactly that size, so that reading past its end is seen. */
    uint8_t *exact = malloc(count ? count : 1);
    if (count) memcpy(exact, bytes, count);
    ct_batch got;
    ct_status status = CT_STATUS_INIT;
    const ct_code code = decode_bytes(fx, exact, count, &got, &status);
    free(exact);
    if (code == CT_OK) {
        assert_true(got.rows > 0 && got.rows <= MAX_CANDIDATES);
        for (size_t f = 0; f < got.column_count; f++) {
            const ct_column *c = &got.columns[f];
            if (!c->present) continue;
            volatile uint64_t sum = 0; /* everything that the batch claims to have can be read */
            const size_t rows = c->shared ? 1 : got.rows, values = c->offsets ? c->offsets[rows] : rows;
            for (size_t i = 0; i < values; i++) sum += c->type == CT_TYPE_F32 ? (uint64_t)(ct_column_f32(c)[i] > 0) : ct_column_u64(c)[i];
        }
    } else {
        assert_true(code == CT_INVALID || code == CT_EXHAUSTED);
        assert_true(status.message[0] != '\0');
    }
}

static void test_any_bytes(void **state) {
    fixture *fx = *state;
    uint8_t noise[512];
    for (uint64_t n = 0; n < 3000; n++) {
        const size_t count = (size_t)(draw(n, 0) % sizeof noise);
        for (size_t i = 0; i < count; i++) noise[i] = (uint8_t)draw(n, (uint32_t)i + 1);
        check_any(fx, noise, count);
    }
    test_request r;
    good(&r);
    size_t count = 0;
    uint8_t *bytes = test_pack(&r, &count);
    test_request_deinit(&r);
    for (size_t cut = 0; cut <= count; cut++) check_any(fx, bytes, cut);
    uint8_t *spoiled = malloc(count);
    for (uint64_t n = 0; n < 20000; n++) {
        memcpy(spoiled, bytes, count);
        const uint64_t changes = 1 + draw(n, 1000) % 4;
        for (uint32_t i = 0; i < changes; i++) spoiled[draw(n, 2000 + i) % count] = (uint8_t)draw(n, 3000 + i);
        check_any(fx, spoiled, count);
    }
    free(spoiled);
    free(bytes);
}

/* Two bytes on the wire become a hundred in memory: there is a limit. */
static void test_small_bytes_large_memory(void **state) {
    fixture *fx = *state;
    const size_t count = 16 * 1024 * 1024;
    uint8_t *bytes = malloc(count);
    for (size_t i = 0; i < count; i += 2) {
        bytes[i] = 0x22; /* field 4, a message of 0 bytes: an empty context column */
        bytes[i + 1] = 0;
    }
    ct_batch got;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(decode_bytes(fx, bytes, count, &got, &status), CT_EXHAUSTED);
    assert_non_null(strstr(status.message, "memory"));
    assert_true(ct_arena_bytes(&fx->arena) < (size_t)600 * 1024 * 1024);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_reader),
        cmocka_unit_test(test_keys_are_xxh3),
        cmocka_unit_test(test_tokens_are_bytes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tolerance),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_small_bytes_large_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
