/* What one thread takes to score a request without any network: the pieces of a request's time, and what merging and sharing save.
 *
 *     forward_bench MODEL_DIR REQUESTS      REQUESTS: messages with gRPC's five-byte prefix, as tools/bench writes them */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/pool.h"
#include "model/model.h"
#include "serving/decode.h"
#include "tests/bench.h"

enum { REPEATS = 300, MAX_MESSAGES = 4096 };

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    ct_pool *pool = NULL;
    ct_model *model = NULL;
    ct_scorer *scorer = NULL;
    must(ct_pool_create(1, &pool, &status));
    must(ct_model_open(argv[1], CT_MODEL_READ, NULL, pool, &model, &status));
    must(ct_scorer_create(model, &scorer, &status));
    FILE *file = fopen(argv[2], "rb");
    if (!file) return 1;
    static uint8_t *messages[MAX_MESSAGES];
    static size_t bytes[MAX_MESSAGES];
    size_t count = 0;
    uint8_t head[5];
    while (count < MAX_MESSAGES && fread(head, 1, 5, file) == 5) {
        bytes[count] = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
        messages[count] = malloc(bytes[count]);
        if (!messages[count] || fread(messages[count], 1, bytes[count], file) != bytes[count]) return 1;
        count++;
    }
    (void)fclose(file);
    const ct_schema *schema = ct_model_schema(model);
    bool *used = calloc(schema->field_count, sizeof *used);
    for (size_t f = 0; f < schema->field_count; f++) used[f] = ct_model_uses_field(model, f);
    ct_decoder *decoder = NULL;
    must(ct_decoder_create(schema, used, 1000000, &decoder, &status));
    ct_arena arena;
    ct_arena_init(&arena, 0);
    static double unpack_ns[REPEATS], decode_ns[REPEATS], shared_ns[REPEATS], plain_ns[REPEATS];
    size_t rows = 0;
    for (size_t i = 0; i < REPEATS; i++) {
        Clicktower__V1__ScoreRequest *request = NULL;
        ct_batch batch;
        int64_t t[5];
        t[0] = ct_clock_ns();
        must(ct_request_unpack(&arena, messages[i % count], bytes[i % count], &request, &status));
        t[1] = ct_clock_ns();
        must(ct_request_batch(decoder, &arena, request, &batch, &status));
        t[2] = ct_clock_ns();
        rows = batch.rows;
        float *logits = ct_arena_alloc(&arena, rows * sizeof *logits);
        must(ct_scorer_run(scorer, &batch, 0, rows, logits, &status));
        t[3] = ct_clock_ns();
        for (size_t f = 0; f < batch.column_count; f++) { /* every row brings its context: repeated by hand */
            ct_column *column = &batch.columns[f];
            if (!column->present || !column->shared || column->offsets) continue;
            const size_t width = ct_column_type_bytes(column->type);
            char *values = ct_arena_alloc(&arena, rows * width);
            for (size_t r = 0; r < rows; r++) memcpy(values + r * width, column->values, width);
            column->values = values;
            column->shared = false;
        }
        const int64_t again = ct_clock_ns();
        must(ct_scorer_run(scorer, &batch, 0, rows, logits, &status));
        t[4] = ct_clock_ns();
        unpack_ns[i] = (double)(t[1] - t[0]);
        decode_ns[i] = (double)(t[2] - t[1]);
        shared_ns[i] = (double)(t[3] - t[2]);
        plain_ns[i] = (double)(t[4] - again);
        ct_arena_reset(&arena);
    }
    (void)printf("rows %zu: unpack %.1f us, decode %.1f us, forward with context once %.1f us, with context in every row %.1f us\n", rows,
                 median(unpack_ns, REPEATS) * 1e-3, median(decode_ns, REPEATS) * 1e-3, median(shared_ns, REPEATS) * 1e-3,
                 median(plain_ns, REPEATS) * 1e-3);
    ct_arena_deinit(&arena);
    ct_decoder_destroy(decoder);
    for (size_t i = 0; i < count; i++) free(messages[i]);
    free(used);
    ct_scorer_destroy(scorer);
    ct_model_destroy(model);
    ct_pool_destroy(pool);
    return 0;
}
