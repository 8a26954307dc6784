/* How fast the store is beside plain arrays: look-up, gather and update of 26 ids a row, dim 16, in batches of 2,048 rows, of keys drawn
 * evenly from N. The bound is one open-addressing table and one array of rows in huge pages, with prefetching, no partitions, no distinct
 * keys, no order of sums. Both are timed in turn, medians are shown.
 *
 *     store_bench [ROWS] [THREADS] [DROP RATE] [hot] [stats] [OPTIMISER]
 *
 * hot: half of the columns draw from 1,000 keys. stats: with target statistics, gathered and counted. The bound is without them and with
 * row-wise Adagrad in any case. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/math.h"
#include "embedding_store/store.h"
#include "tests/bench.h"

enum { DIM = 16, COLUMNS = 26, ROWS = 2048, BATCHES = 64, ROUNDS = 7, AHEAD = 16, STRIDE = DIM * COLUMNS, N = ROWS * COLUMNS };

/* --- plain arrays --- */

typedef struct flat {
    uint64_t *keys; /* 0 = empty */
    uint32_t *rows;
    size_t mask;
    float *values, *state;
    float *out;
    const uint64_t *batch;
    const float *gradients;
    size_t first, end; /* of the batch's keys: one thread's part */
    uint32_t *found;
} flat;

static inline size_t flat_home(const flat *f, uint64_t key) { return (size_t)(key * 0x9E3779B97F4A7C15u >> 20) & f->mask; }

CT_HOT static void flat_batch(const flat *f) {
    const uint64_t *keys = f->batch;
    for (size_t i = f->first; i < f->end; i++) {
        if (i + AHEAD < f->end) {
            __builtin_prefetch(&f->keys[flat_home(f, keys[i + AHEAD])]);
            __builtin_prefetch(&f->rows[flat_home(f, keys[i + AHEAD])]);
        }
        size_t at = flat_home(f, keys[i]);
        while (f->keys[at] != keys[i]) at = (at + 1) & f->mask;
        f->found[i] = f->rows[at];
    }
    for (size_t i = f->first; i < f->end; i++) {
        if (i + AHEAD < f->end) __builtin_prefetch(&f->values[(size_t)f->found[i + AHEAD] * DIM]);
        memcpy(&f->out[i * DIM], &f->values[(size_t)f->found[i] * DIM], DIM * sizeof(float));
    }
    for (size_t i = f->first; i < f->end; i++) {
        if (i + AHEAD < f->end) {
            __builtin_prefetch(&f->values[(size_t)f->found[i + AHEAD] * DIM], 1);
            __builtin_prefetch(&f->state[f->found[i + AHEAD]], 1);
        }
        typedef float lanes __attribute__((vector_size(DIM * sizeof(float))));
        lanes v, g;
        float *row = &f->values[(size_t)f->found[i] * DIM], *a = &f->state[f->found[i]], square[DIM];
        memcpy(&g, &f->gradients[i * DIM], sizeof g);
        memcpy(&v, row, sizeof v);
        const lanes squares = g * g;
        memcpy(square, &squares, sizeof square);
        for (size_t w = DIM / 2; w; w /= 2)
            for (size_t j = 0; j < w; j++) square[j] += square[j + w];
        *a += square[0] / DIM;
        v -= g * (0.01f / __builtin_sqrtf(*a));
        memcpy(row, &v, sizeof v);
    }
}

static void *memory(size_t bytes) {
    void *out;
    must(ct_device_cpu()->ops->memory_alloc(ct_device_cpu(), CT_MEMORY_DEVICE, bytes, &out, &status));
    return out;
}

static void flat_task(void *context, size_t task, size_t worker) {
    (void)worker;
    flat_batch((const flat *)context + task);
}

typedef struct gather_work {
    const ct_store *store;
    const ct_ticket *ticket;
    float *out;
    uint32_t *impressions, *clicks; /* (COLUMNS, ROWS), or NULL */
} gather_work;

static void gather_task(void *context, size_t task, size_t worker) {
    (void)worker;
    const gather_work *work = context;
    ct_store_gather(work->store, work->ticket, task * 256, 256, false, work->out + task * 256 * STRIDE, STRIDE);
    for (size_t c = 0; work->impressions && c < COLUMNS; c++) {
        const size_t at = c * ROWS + task * 256;
        ct_store_gather_counts(work->store, work->ticket, task * 256, 256, c, work->impressions + at, work->clicks + at);
    }
}

int main(int argc, char **argv) {
    const size_t rows = argc > 1 ? strtoull(argv[1], NULL, 10) : 4000000, threads = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    const double drop_rate = argc > 3 ? strtod(argv[3], NULL) : 0.0;
    bool hot = false, stats = false;
    ct_row_optimiser optimiser = CT_ROW_ADAGRAD_ROWWISE;
    for (int i = 4; i < argc; i++) {
        const bool is_hot = strcmp(argv[i], "hot") == 0, is_stats = strcmp(argv[i], "stats") == 0;
        hot |= is_hot;
        stats |= is_stats;
        if (!is_hot && !is_stats && !ct_row_optimiser_find(argv[i], &optimiser)) {
            fprintf(stderr, "store_bench: %s is neither hot, stats nor a row optimiser\n", argv[i]);
            return 2;
        }
    }
    ct_pool *pool;
    must(ct_pool_create(threads, &pool, &status));

    size_t capacity = 1;
    while (capacity < rows * 2) capacity *= 2;
    flat arrays = {.mask = capacity - 1,
                   .keys = memory(capacity * sizeof(uint64_t)),
                   .rows = memory(capacity * sizeof(uint32_t)),
                   .values = memory(rows * DIM * sizeof(float)),
                   .state = memory(rows * sizeof(float)),
                   .out = memory(N * DIM * sizeof(float)),
                   .found = memory(N * sizeof(uint32_t))};
    for (size_t i = 0; i < rows; i++) {
        size_t at = flat_home(&arrays, key_of(i + 1));
        while (arrays.keys[at]) at = (at + 1) & arrays.mask;
        arrays.keys[at] = key_of(i + 1);
        arrays.rows[at] = (uint32_t)i;
        arrays.state[i] = 0.01f;
    }

    const ct_table_spec spec = {.name = "ids",
                                .dim = DIM,
                                .optimiser = optimiser,
                                .learning_rate = 0.01f,
                                .initial_accumulator = 0.01f,
                                .beta1 = 0.9f,
                                .beta2 = 0.999f,
                                .epsilon = 1e-8f,
                                .first_value_scale = 0.01f,
                                .min_count = 1,
                                .target_stats = stats};
    ct_store *store;
    ct_ticket *ticket;
    must(ct_store_create(&spec, 1, ct_device_cpu(), pool, &store, &status));
    must(ct_ticket_create(store, &ticket, &status));
    uint64_t *keys = memory((size_t)BATCHES * N * sizeof *keys);
    float *gradients = memory(N * DIM * sizeof *gradients), *out = memory(N * DIM * sizeof *out);
    for (size_t i = 0; i < N * DIM; i++) gradients[i] = (float)(i % 7) * 1e-4f;
    uint32_t *seen = stats ? memory(2 * N * sizeof *seen) : NULL;
    float labels[ROWS];
    for (size_t i = 0; i < ROWS; i++) labels[i] = i % 4 == 0;
    ct_key_column columns[COLUMNS];
    ct_lookup lookup = {
        .mode = CT_LOOKUP_TRAIN, .rows = ROWS, .block_rows = 256, .columns = columns, .column_count = COLUMNS, .drop_rate = drop_rate};
    for (uint32_t c = 0; c < COLUMNS; c++)
        columns[c] = (ct_key_column){.rare_key = ct_rare_key(c), .drop_index = c, .output_column = c * DIM};

    const int64_t fill_start = ct_clock_ns();
    lookup.drop_rate = 0;
    for (size_t first = 0; first < rows; first += N) { /* every key once, so that all have rows */
        for (size_t i = 0; i < N; i++) keys[i] = key_of((first + i) % rows + 1);
        for (size_t c = 0; c < COLUMNS; c++) columns[c].keys = keys + c * ROWS;
        must(ct_store_prefetch(store, ticket, &lookup, &status));
        must(ct_store_acquire(store, ticket, &status));
        ct_store_release(store, ticket);
    }
    const double fill_seconds = (double)(ct_clock_ns() - fill_start) * 1e-9;
    lookup.drop_rate = drop_rate;
    for (size_t b = 0; b < BATCHES; b++)
        for (size_t i = 0; i < N; i++) keys[b * N + i] = key_of(draw(hot && i / ROWS % 2 ? 1000 : rows) + 1);

    double flat_ns[ROUNDS], prefetch_ns[ROUNDS], acquire_ns[ROUNDS], gather_ns[ROUNDS], apply_ns[ROUNDS], all_ns[ROUNDS];
    flat *parts = calloc(threads, sizeof *parts);
    for (size_t round = 0; round < ROUNDS; round++) {
        int64_t start = ct_clock_ns();
        for (size_t b = 0; b < BATCHES; b++) {
            for (size_t t = 0; t < threads; t++) {
                parts[t] = arrays;
                parts[t].batch = keys + b * N;
                parts[t].gradients = gradients;
                parts[t].first = N * t / threads;
                parts[t].end = N * (t + 1) / threads;
            }
            ct_pool_run(pool, threads, flat_task, parts);
        }
        flat_ns[round] = (double)(ct_clock_ns() - start) / ((double)BATCHES * N);
        int64_t spent[4] = {0};
        for (size_t b = 0; b < BATCHES; b++) {
            int64_t at[5];
            for (size_t c = 0; c < COLUMNS; c++) columns[c].keys = keys + b * N + c * ROWS;
            at[0] = ct_clock_ns();
            must(ct_store_prefetch(store, ticket, &lookup, &status));
            at[1] = ct_clock_ns();
            must(ct_store_acquire(store, ticket, &status));
            at[2] = ct_clock_ns();
            gather_work work = {store, ticket, out, seen, stats ? seen + N : NULL};
            ct_pool_run(pool, ROWS / 256, gather_task, &work);
            at[3] = ct_clock_ns();
            must(ct_store_apply(store, ticket, gradients, STRIDE, labels, &status));
            at[4] = ct_clock_ns();
            ct_store_release(store, ticket);
            for (size_t i = 0; i < 4; i++) spent[i] += at[i + 1] - at[i];
        }
        const double each = 1.0 / ((double)BATCHES * N);
        prefetch_ns[round] = (double)spent[0] * each;
        acquire_ns[round] = (double)spent[1] * each;
        gather_ns[round] = (double)spent[2] * each;
        apply_ns[round] = (double)spent[3] * each;
        all_ns[round] = (double)(spent[0] + spent[1] + spent[2] + spent[3]) * each;
    }
    const double flat = median(flat_ns, ROUNDS), all = median(all_ns, ROUNDS);
    ct_table_info info;
    ct_store_table_info(store, 0, &info);
    printf("rows %lld, threads %zu, drop %g%s%s, %s, memory %.1f MiB; filling %.2f M rows/s\n", (long long)info.rows, threads, drop_rate,
           hot ? ", hot" : "", stats ? ", target statistics" : "", ct_row_optimiser_name(optimiser), (double)info.bytes / 1048576.0,
           (double)rows / fill_seconds * 1e-6);
    printf("plain arrays  %6.1f M ids/s  %5.2f M rows/s\n", 1e3 / flat, 1e3 / flat / COLUMNS);
    printf("store         %6.1f M ids/s  %5.2f M rows/s  = %.2f of the bound\n", 1e3 / all, 1e3 / all / COLUMNS, flat / all);
    printf("ns an id: prefetch %.1f, acquire %.1f, gather %.1f, apply %.1f\n", median(prefetch_ns, ROUNDS), median(acquire_ns, ROUNDS),
           median(gather_ns, ROUNDS), median(apply_ns, ROUNDS));
    free(parts);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
    return 0;
}
