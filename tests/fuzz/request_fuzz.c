/* A ScoreRequest off the wire: the message decoder, the batch that is made of it, and that batch beside itself (what the server does with
 * requests that wait together). Whatever the bytes are, they are a batch that keeps its promises or a refusal with a message. */
#include <math.h>
#include <stdbool.h>

#include "serving/server_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/serving/requests.h"

const char *const fuzz_name = "request_fuzz";

enum { MAX_CANDIDATES = 300 };

static const char SCHEMA[] =
    "name: shop\n"
    "format: {separator: \"\\t\", columns: 7}\n"
    "fields:\n"
    "  - {name: label, kind: label, column: 1}\n"
    "  - {name: price, kind: number, column: 2, side: candidate}\n"
    "  - {name: user, kind: id, column: 3, side: context, type: text}\n"
    "  - {name: item, kind: id, column: 4, side: candidate, type: integer}\n"
    "  - {name: likes, kind: id, column: 5, side: context, type: integer, separator: \",\", max: 3, newest: last, shares: item}\n"
    "  - {name: words, kind: id, column: 6, side: candidate, type: text, separator: \" \", max: 2, newest: first}\n"
    "  - {name: item_text, kind: vector, of: item, file: text.npy}\n"
    "  - {name: spare, kind: number, column: 7, side: candidate}\n";

static ct_schema *schema;
static ct_decoder *decoder;

static void make_decoder(void) {
    ct_status status = CT_STATUS_INIT;
    bool used[16] = {false};
    if (decoder) return;
    FUZZ_MUST(ct_schema_parse(SCHEMA, strlen(SCHEMA), "shop.yaml", &schema, &status) == CT_OK);
    for (size_t f = 1; f + 1 < schema->field_count; f++) used[f] = true;
    FUZZ_MUST(ct_decoder_create(schema, used, MAX_CANDIDATES, &decoder, &status) == CT_OK);
}

__attribute__((destructor)) static void free_decoder(void) {
    ct_decoder_destroy(decoder);
    ct_schema_destroy(schema);
}

static void check_column(const ct_column *column, size_t batch_rows) {
    const size_t rows = column->shared ? 1 : batch_rows;
    size_t values = rows;
    if (column->offsets) {
        FUZZ_MUST(column->offsets[0] == 0);
        for (size_t r = 0; r < rows; r++)
            FUZZ_MUST(column->offsets[r] <= column->offsets[r + 1] && column->offsets[r + 1] <= column->offsets[r] + 3);
        values = column->offsets[rows];
    }
    uint64_t sum = 0; /* reads every value: the sanitizers see whether they are there */
    for (size_t i = 0; i < values; i++) {
        if (column->type == CT_TYPE_F32)
            FUZZ_MUST(!isinf(ct_column_f32(column)[i]));
        else
            sum += ct_column_u64(column)[i];
    }
    FUZZ_MUST(sum != 1 || values);
}

static void check_merged(ct_arena *arena, const ct_batch *batch) {
    ct_status status = CT_STATUS_INIT;
    const ct_batch *const both[] = {batch, batch};
    ct_batch merged;
    FUZZ_MUST(ct_merge_batches(arena, both, 2, &merged, &status) == CT_OK);
    FUZZ_MUST(merged.rows == 2 * batch->rows);
    for (size_t c = 0; c < merged.column_count; c++) {
        const ct_column *column = &merged.columns[c];
        FUZZ_MUST(column->present == batch->columns[c].present);
        if (!column->present) continue;
        FUZZ_MUST(!column->shared);
        check_column(column, merged.rows);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    Clicktower__V1__ScoreRequest *request = NULL;
    ct_batch batch;
    ct_arena arena;
    make_decoder();
    FUZZ_MUST(ct_request_rows_guess(data, bytes) >= 1);
    ct_arena_init(&arena, 0);
    ct_code code = ct_request_unpack(&arena, data, bytes, &request, &status);
    if (code == CT_OK) code = ct_request_batch(decoder, &arena, request, &batch, &status);
    if (code == CT_OK) {
        FUZZ_MUST(batch.rows >= 1 && batch.rows <= MAX_CANDIDATES && batch.column_count == schema->field_count);
        for (size_t c = 0; c < batch.column_count; c++)
            if (batch.columns[c].present) check_column(&batch.columns[c], batch.rows);
        check_merged(&arena, &batch);
    } else {
        FUZZ_MUST((code == CT_INVALID || code == CT_EXHAUSTED) && status.message[0]);
    }
    ct_arena_deinit(&arena);
    return 0;
}

/* Seed `index`: which side each column stands on, what lists it has, how many rows. */
size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    if (index >= 16) return 0;
    const size_t rows = index % 4 == 3 ? 40 : 1 + index % 4;
    test_request r;
    test_request_init(&r);
    const bool context = (index & 4) != 0, explicit_count = (index & 8) != 0;
    const size_t own = context ? 1 : rows;
    test_column *price = test_add(&r, false, "price"), *user = test_add(&r, true, "user"), *item = test_add(&r, context, "item"),
                *likes = test_add(&r, context, "likes"), *words = test_add(&r, !context, "words");
    for (size_t i = 0; i < rows; i++) {
        test_length(price, i % 3 != 0);
        if (i % 3) test_number(price, (float)i * 0.5f);
    }
    test_token(user, "anna");
    for (size_t i = 0; i < own; i++) {
        if (index & 1)
            test_integer(item, (int64_t)i - 7);
        else
            test_token(item, "-12");
        test_length(likes, (uint32_t)(i % 5));
        for (size_t v = 0; v < i % 5; v++) test_integer(likes, (int64_t)v << 40);
    }
    for (size_t i = 0; i < (context ? rows : 1); i++) test_token(words, "w\xc3\xa9");
    if (explicit_count || context) r.message.candidate_count = (uint32_t)rows;
    r.message.model = ct_text_data(index & 2 ? "m" : "");
    r.message.request_id = ct_text_data("r-1");
    size_t bytes = 0;
    uint8_t *packed = test_pack(&r, &bytes);
    test_request_deinit(&r);
    FUZZ_MUST(bytes <= FUZZ_MAX_BYTES);
    memcpy(out, packed, bytes);
    free(packed);
    return bytes;
}
