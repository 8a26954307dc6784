/* What a table that was opened for reading costs: memory a row beside its values, time to open, and look-ups of 26 ids a row by one thread
 * in batches of 100 and 2,048 rows, of keys drawn evenly from N; one of eight is unknown.
 *
 *     read_bench FOLDER [ROWS] [DIM] [fp16]
 *
 * FOLDER: where a snapshot of ROWS rows is written, and removed at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "embedding_store/store.h"
#include "tests/bench.h"

enum { COLUMNS = 26, FILL_ROWS = 2048, MOST_ROWS = 2048, BATCHES = 64, ROUNDS = 7 };

static void fill(const ct_table_spec *spec, size_t rows, const char *folder, ct_pool *pool) {
    ct_store *store;
    ct_ticket *ticket;
    const size_t each = (size_t)FILL_ROWS * COLUMNS;
    uint64_t *keys = malloc(each * sizeof *keys);
    ct_key_column column = {.keys = keys, .rare_key = ct_rare_key(0)};
    ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = each, .block_rows = 256, .columns = &column, .column_count = 1};
    must(ct_store_create(spec, 1, ct_device_cpu(), pool, &store, &status));
    must(ct_ticket_create(store, &ticket, &status));
    for (size_t first = 0; first < rows; first += each) {
        for (size_t i = 0; i < each; i++) keys[i] = key_of((first + i) % rows + 1);
        must(ct_store_prefetch(store, ticket, &lookup, &status));
        must(ct_store_acquire(store, ticket, &status));
        ct_store_release(store, ticket);
    }
    must(ct_folder_remove(folder, &status));
    must(ct_store_snapshot(store, folder, &status));
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    free(keys);
}

static void measure(ct_store *store, const uint64_t *keys, size_t rows, uint32_t dim) {
    ct_ticket *ticket;
    ct_key_column columns[COLUMNS];
    ct_lookup lookup = {.mode = CT_LOOKUP_READ, .rows = rows, .columns = columns, .column_count = COLUMNS, .alone = true};
    const size_t stride = (size_t)dim * COLUMNS, each = rows * COLUMNS;
    float *out = aligned_alloc(64, (rows * stride * sizeof *out + 63) / 64 * 64);
    double acquire[ROUNDS], gather[ROUNDS];
    must(ct_ticket_create(store, &ticket, &status));
    for (size_t round = 0; round < ROUNDS; round++) {
        int64_t spent[2] = {0};
        for (size_t b = 0; b < BATCHES; b++) {
            for (uint32_t c = 0; c < COLUMNS; c++)
                columns[c] = (ct_key_column){.keys = keys + b * each + c * rows, .rare_key = ct_rare_key(c), .output_column = c * dim};
            int64_t at[3] = {ct_clock_ns()};
            must(ct_store_prefetch(store, ticket, &lookup, &status));
            must(ct_store_acquire(store, ticket, &status));
            at[1] = ct_clock_ns();
            ct_store_gather(store, ticket, 0, rows, false, out, stride);
            at[2] = ct_clock_ns();
            ct_store_release(store, ticket);
            for (size_t i = 0; i < 2; i++) spent[i] += at[i + 1] - at[i];
        }
        acquire[round] = (double)spent[0] / (double)(BATCHES * each);
        gather[round] = (double)spent[1] / (double)(BATCHES * each);
    }
    printf("batches of %4zu rows: acquire %5.1f ns an id, gather %5.1f\n", rows, median(acquire, ROUNDS), median(gather, ROUNDS));
    ct_ticket_destroy(ticket);
    free(out);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "read_bench FOLDER [ROWS] [DIM] [fp16]\n");
        return 2;
    }
    const size_t rows = argc > 2 ? strtoull(argv[2], NULL, 10) : 4000000;
    const uint32_t dim = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 16;
    const bool half = argc > 4 && strcmp(argv[4], "fp16") == 0;
    const ct_table_spec spec = {.name = "ids",
                                .dim = dim,
                                .precision = half ? CT_ROW_FP16 : CT_ROW_FP32,
                                .optimiser = CT_ROW_ADAGRAD_ROWWISE,
                                .learning_rate = 0.01f,
                                .initial_accumulator = 0.01f,
                                .first_value_scale = 0.01f,
                                .min_count = 1};
    ct_pool *pool;
    must(ct_pool_create(2, &pool, &status));
    fill(&spec, rows, argv[1], pool);
    ct_store *store;
    const int64_t start = ct_clock_ns();
    must(ct_store_open(argv[1], CT_STORE_READ, ct_device_cpu(), pool, &store, &status));
    const double seconds = (double)(ct_clock_ns() - start) * 1e-9;
    ct_table_info info;
    ct_store_table_info(store, 0, &info);
    const double bytes = (double)info.bytes / (double)info.rows, values = dim * (half ? 2.0 : 4.0);
    printf("%lld rows of %g bytes: %.1f bytes a row = %.3f times; opened in %.2f s, %.1f M rows/s\n", (long long)info.rows, values, bytes,
           bytes / values, seconds, (double)info.rows / seconds * 1e-6);
    uint64_t *keys = malloc((size_t)BATCHES * MOST_ROWS * COLUMNS * sizeof *keys);
    for (size_t i = 0; i < (size_t)BATCHES * MOST_ROWS * COLUMNS; i++) keys[i] = key_of(draw(rows) + 1 + (i % 8 == 3 ? rows : 0));
    measure(store, keys, 100, dim);
    measure(store, keys, MOST_ROWS, dim);
    free(keys);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
    must(ct_folder_remove(argv[1], &status));
    return 0;
}
