/* What follows from histories, in a request: taken from the table by the unit, or brought, which wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* after them */
#include <cmocka.h>

#include "base/hash.h"
#include "data/reader.h"
#include "tests/base/temp.h"
#include "tests/serving/requests.h"

static const char SCHEMA[] =
    "name: shop\n"
    "format: {columns: 3}\n"
    "fields:\n"
    "  - {name: label, kind: label, column: 1}\n"
    "  - {name: who, kind: unit, column: 2}\n"
    "  - {name: item, kind: id, column: 3, type: integer}\n"
    "  - {name: text, kind: vector, of: item, file: v.npy}\n"
    "  - {name: liked, kind: history, of: item, clicked: true, max: 3}\n"
    "  - {name: likes, kind: number, of: liked}\n"
    "  - {name: close, kind: similarity, of: liked, vector: text}\n";
enum { OF_ITEM = 2, OF_TEXT, OF_LIKED, OF_LIKES, OF_CLOSE, FIELDS };

static ct_schema *schema;
static ct_histories *histories;
static ct_arena arena;

static int setup(void **state) {
    (void)state;
    static const char log[] = "1\tanna\t7\n0\tanna\t8\n1\tbert\t1\n1\tanna\t9\n1\tbert\t2\n1\tbert\t3\n1\tbert\t4\n";
    ct_status status = CT_STATUS_INIT;
    char *folder = temp_folder(), *path = temp_path(folder, "log.tsv");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(log, file);
    assert_int_equal(fclose(file), 0);
    if (ct_schema_parse(SCHEMA, strlen(SCHEMA), "shop.yaml", &schema, &status) != CT_OK) fail_msg("%s", status.message);
    assert_int_equal(ct_histories_create(schema, &histories, &status), CT_OK);
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    const char *sources[] = {path};
    options.sources = sources;
    options.source_count = 1;
    options.histories = histories;
    options.live = true;
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    assert_int_equal(ct_reader_open(schema, &options, &reader, &status), CT_OK);
    assert_int_equal(ct_reader_next(reader, &batch, &status), CT_OK);
    assert_int_equal(batch->rows, 7);
    ct_reader_close(reader);
    free(path);
    temp_remove(folder);
    ct_arena_init(&arena, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    ct_arena_deinit(&arena);
    ct_histories_destroy(histories);
    ct_schema_destroy(schema);
    return 0;
}

/* Two candidates for `unit`; context: items of a history that the request brings, ended by 0, or NULL; per_row: as candidates' column. */
static ct_code decode(const bool *used, const ct_histories *table, const char *unit, const int64_t *brings, bool per_row, const char *also,
                      ct_batch *out, ct_status *status) {
    test_request r;
    ct_decoder *decoder = NULL;
    Clicktower__V1__ScoreRequest *request = NULL;
    size_t bytes = 0;
    test_request_init(&r);
    r.message.unit = ct_text_data(unit);
    test_column *items = test_add(&r, false, "item");
    test_integer(items, 7);
    test_integer(items, 20);
    for (size_t row = 0; brings != NULL && row < (per_row ? 2 : 1); row++) {
        test_column *liked = row == 0 ? test_add(&r, !per_row, "liked") : r.owned[r.owned_count - 1];
        uint32_t count = 0;
        for (; brings[count] != 0; count++) test_integer(liked, brings[count] + (int64_t)row);
        test_length(liked, count);
    }
    if (also != NULL) test_number(test_add(&r, true, also), 5);
    uint8_t *packed = test_pack(&r, &bytes);
    ct_arena_reset(&arena);
    assert_int_equal(ct_decoder_create(schema, used, 100, &decoder, status), CT_OK);
    ct_decoder_set_histories(decoder, table);
    ct_code code = ct_request_unpack(&arena, packed, bytes, &request, status);
    if (code == CT_OK) code = ct_request_batch(decoder, &arena, request, out, status);
    ct_decoder_destroy(decoder);
    free(packed);
    test_request_deinit(&r);
    return code;
}

static uint64_t key_of(size_t field, int64_t item) {
    char token[24];
    const int length = snprintf(token, sizeof token, "%lld", (long long)item);
    return ct_hash64(token, (size_t)length, schema->fields[field].salt);
}

static void expect(const ct_batch *batch, size_t field, size_t row, const int64_t *items, size_t count) {
    const ct_column *column = &batch->columns[field];
    const size_t key_field = field == OF_LIKED ? OF_ITEM : OF_TEXT;
    assert_true(column->present);
    if (column->shared) row = 0;
    if (field == OF_LIKES) {
        assert_true(ct_column_f32(column)[row] == (float)count);
        return;
    }
    assert_int_equal(column->offsets[row + 1] - column->offsets[row], count);
    for (size_t i = 0; i < count; i++) assert_int_equal(ct_column_u64(column)[column->offsets[row] + i], key_of(key_field, items[i]));
}

static const bool all_used[FIELDS] = {[OF_ITEM] = true, [OF_TEXT] = true, [OF_LIKED] = true, [OF_LIKES] = true, [OF_CLOSE] = true};

static void test_units(void **state) {
    (void)state;
    static const struct {
        const char *unit;
        int64_t items[3];
        size_t count;
    } cases[] = {{"anna", {7, 9}, 2}, {"bert", {2, 3, 4}, 3}, {"nobody", {0}, 0}, {"", {0}, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_batch got;
        ct_status status = CT_STATUS_INIT;
        if (decode(all_used, histories, cases[i].unit, NULL, false, NULL, &got, &status) != CT_OK) fail_msg("%s", status.message);
        for (size_t f = OF_LIKED; f <= OF_CLOSE; f++) {
            assert_true(got.columns[f].shared);
            for (size_t row = 0; row < 2; row++) expect(&got, f, row, cases[i].items, cases[i].count);
        }
    }
}

static void test_what_comes_wins(void **state) {
    (void)state;
    static const int64_t brings[] = {40, 50, 60, 70, 0}, none[] = {0};
    for (int only = 0; only < 2; only++) { /* a model that uses nothing but the similarity takes it too */
        const bool used[FIELDS] = {[OF_ITEM] = true, [OF_TEXT] = true, [OF_LIKED] = !only, [OF_LIKES] = !only, [OF_CLOSE] = true};
        for (int table = 0; table < 2; table++) { /* and needs no table then */
            ct_batch got;
            ct_status status = CT_STATUS_INIT;
            if (decode(used, table ? histories : NULL, "anna", brings, false, NULL, &got, &status) != CT_OK) fail_msg("%s", status.message);
            for (size_t f = OF_LIKED; f <= OF_CLOSE; f++)
                if (used[f]) expect(&got, f, 1, (const int64_t[]){50, 60, 70}, 3);
            if (decode(used, table ? histories : NULL, "anna", none, false, NULL, &got, &status) != CT_OK) fail_msg("%s", status.message);
            for (size_t f = OF_LIKED; f <= OF_CLOSE; f++)
                if (used[f]) expect(&got, f, 0, none, 0);
            if (decode(used, histories, "anna", brings, true, NULL, &got, &status) != CT_OK) fail_msg("%s", status.message);
            assert_false(got.columns[OF_CLOSE].shared);
            for (size_t f = OF_LIKED; f <= OF_CLOSE; f++)
                if (used[f]) expect(&got, f, 1, (const int64_t[]){51, 61, 71}, 3);
        }
    }
}

static void test_refusals(void **state) {
    (void)state;
    ct_batch got;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(decode(all_used, NULL, "anna", NULL, false, NULL, &got, &status), CT_INVALID); /* neither table nor column */
    assert_non_null(strstr(status.message, "liked"));
    assert_int_equal(decode(all_used, histories, "anna", NULL, false, "likes", &got, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "send 'liked'"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_units), cmocka_unit_test(test_what_comes_wins),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
