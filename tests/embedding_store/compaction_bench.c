/* The database under a table that outgrows memory, with settings beside ours: batches as a training's, as fast as they come, without a
 * tower.
 *
 *     compaction_bench FOLDER MEMORY_MIB KEYS SECONDS uniform|skewed THREADS [NAME=VALUE ...]
 *
 * A batch has 2,048 rows of 26 ids, dimension 16. uniform: of KEYS keys, one as often as the other. skewed: half of the columns have 40
 * keys, the others KEYS / 13; key k comes as often as 1 / k: then the 1,000 most frequent ones have as many of the look-ups as in Criteo's
 * sample, about.
 * Names are those of ct_tuning: by_levels runs old_percent block_bytes filter_bits reads (mapped pages direct) slow_runs most_runs
 * slow_percent most_percent compaction_bytes_a_second; pace=0 holds nothing back.
 *
 * First every key gets a row, in random order, which is not timed. Prints a line for each tenth of the time, then `name<TAB>value` for each
 * figure. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"
#include "embedding_store/live.h"
#include "embedding_store/tier.h"
#include "tests/bench.h"

enum { DIM = 16, COLUMNS = 26, ROWS = 2048, STRIDE = DIM * COLUMNS, N = ROWS * COLUMNS, WINDOWS = 10, FEW = 40 };

/* --- settings --- */

static ct_tuning tuning_of(char **texts, int count) {
    ct_tuning tuning = ct_tuning_ours;
    for (int i = 0; i < count; i++) {
        const struct {
            const char *name;
            uint32_t *to;
        } numbers[] = {{"runs", &tuning.runs},
                       {"old_percent", &tuning.old_percent},
                       {"block_bytes", &tuning.block_bytes},
                       {"filter_bits", &tuning.filter_bits},
                       {"slow_runs", &tuning.slow_runs},
                       {"most_runs", &tuning.most_runs},
                       {"slow_percent", &tuning.slow_percent},
                       {"most_percent", &tuning.most_percent}};
        const char *value = strchr(texts[i], '=');
        const size_t name = value ? (size_t)(value++ - texts[i]) : 0;
        bool known = false;
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) {
            if (strlen(numbers[n].name) != name || memcmp(numbers[n].name, texts[i], name) != 0) continue;
            *numbers[n].to = (uint32_t)strtoul(value, NULL, 10);
            known = true;
        }
        if (strncmp(texts[i], "by_levels=", 10) == 0) {
            tuning.by_levels = known = strtoul(value, NULL, 10) > 0;
        } else if (strncmp(texts[i], "reads=", 6) == 0) {
            tuning.reads = strcmp(value, "direct") == 0 ? CT_READS_DIRECT : strcmp(value, "pages") == 0 ? CT_READS_PAGES : CT_READS_MAPPED;
            known = true;
        } else if (strncmp(texts[i], "compaction_bytes_a_second=", 26) == 0) {
            tuning.compaction_bytes_a_second = strtoull(value, NULL, 10);
            known = true;
        } else if (strcmp(texts[i], "pace=0") == 0) {
            tuning.slow_runs = tuning.slow_percent = UINT32_MAX / 2;
            tuning.most_runs = tuning.most_percent = UINT32_MAX;
            tuning.most_level0_bytes = UINT64_MAX;
            known = true;
        }
        if (known) continue;
        (void)fprintf(stderr, "compaction_bench: what is %s?\n", texts[i]);
        exit(2);
    }
    return tuning;
}

/* --- what the system says --- */

/* The number behind `name` in a file of the system. */
static uint64_t said(const char *path, const char *name) {
    char line[256];
    unsigned long long number = 0;
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0) number = strtoull(line + strlen(name), NULL, 10);
    if (file) (void)fclose(file);
    return number;
}
static uint64_t anonymous_kib(void) { return said("/proc/self/status", "RssAnon:"); }
static uint64_t written_bytes(void) { return said("/proc/self/io", "wchar:"); }
static double processor_seconds(void) {
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* --- batches --- */

typedef struct batch {
    ct_lookup lookup;
    ct_key_column columns[COLUMNS];
    uint64_t *keys; /* (COLUMNS, ROWS) */
} batch;

typedef enum shape { FILL, UNIFORM, SKEWED } shape;

static void make_batch(batch *batch, shape shape, uint64_t number, uint64_t keys) {
    for (uint32_t c = 0; c < COLUMNS; c++) {
        const bool few = shape == SKEWED && c % 2 == 0;
        const uint64_t of = shape != SKEWED ? keys : few ? FEW : keys / (COLUMNS / 2);
        for (uint32_t r = 0; r < ROWS; r++) {
            const uint64_t at = number * N + c * ROWS + r;
            const double unit = (double)(ct_random_u64(1, CT_PLACE_TEST, 0, at, 0) >> 11) * 0x1p-53;
            uint64_t drawn = shape == FILL ? at % keys : (uint64_t)(shape == UNIFORM ? unit * (double)of : pow((double)of, unit) - 1);
            if (shape == SKEWED) drawn = few ? keys + c * FEW + drawn : c / 2 * of + drawn;
            batch->keys[c * ROWS + r] = key_of(drawn);
        }
        batch->columns[c] =
            (ct_key_column){.keys = batch->keys + c * ROWS, .rare_key = ct_rare_key(c), .drop_index = c, .output_column = c * DIM};
    }
    batch->lookup = (ct_lookup){
        .mode = CT_LOOKUP_TRAIN, .rows = ROWS, .block_rows = 256, .columns = batch->columns, .column_count = COLUMNS, .first_row = 0};
}

typedef struct gather_work {
    const ct_store *store;
    const ct_ticket *ticket;
    float *out;
} gather_work;

static void gather_task(void *context, size_t task, size_t worker) {
    (void)worker;
    const gather_work *work = context;
    ct_store_gather(work->store, work->ticket, task * 256, 256, false, work->out + task * 256 * STRIDE, STRIDE);
}

typedef struct world {
    ct_pool *pool;
    ct_store *store;
    ct_ticket *tickets[2];
    batch batches[2];
    float *out, *gradients;
    uint64_t keys, number; /* of the next batch */
} world;

static void drain(const world *world) { must(ct_tier_flush(world->store->tier, &status)); }

typedef struct window {
    int64_t batches, longest_ns;
    uint32_t most_files;
    uint64_t most_bytes, most_level0_bytes, most_kib;
} window;

/* Batches of a kind until `count` are done or `seconds` are over. */
static window train(world *world, shape shape, uint64_t count, double seconds) {
    window window = {0};
    const int64_t began = ct_clock_ns();
    int64_t since = began;
    make_batch(&world->batches[world->number % 2], shape, world->number, world->keys);
    must(ct_store_prefetch(world->store, world->tickets[world->number % 2], &world->batches[world->number % 2].lookup, &status));
    for (bool last = false; !last;) {
        ct_ticket *ticket = world->tickets[world->number % 2];
        must(ct_store_acquire(world->store, ticket, &status));
        last = window.batches + 1 == (int64_t)count || (double)(ct_clock_ns() - began) * 1e-9 >= seconds;
        const size_t next = ++world->number % 2;
        if (!last) { /* looked ahead */
            make_batch(&world->batches[next], shape, world->number, world->keys);
            must(ct_store_prefetch(world->store, world->tickets[next], &world->batches[next].lookup, &status));
        }
        gather_work work = {world->store, ticket, world->out};
        ct_pool_run(world->pool, ROWS / 256, gather_task, &work);
        must(ct_store_apply(world->store, ticket, world->gradients, STRIDE, NULL, &status));
        ct_store_release(world->store, ticket);
        const int64_t now = ct_clock_ns();
        if (now - since > window.longest_ns) window.longest_ns = now - since;
        since = now;
        ct_backlog backlog;
        (void)ct_live_pressure(ct_tier_live(world->store->tier), 0, &backlog);
        if (backlog.runs > window.most_files) window.most_files = backlog.runs;
        if (backlog.oldest_bytes + backlog.newer_bytes > window.most_bytes) window.most_bytes = backlog.oldest_bytes + backlog.newer_bytes;
        if (backlog.level0_bytes > window.most_level0_bytes) window.most_level0_bytes = backlog.level0_bytes;
        const uint64_t kib = anonymous_kib();
        if (kib > window.most_kib) window.most_kib = kib;
        window.batches++;
    }
    return window;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        (void)fprintf(stderr, "compaction_bench FOLDER MEMORY_MIB KEYS SECONDS uniform|skewed THREADS [NAME=VALUE ...]\n");
        return 2;
    }
    const ct_tuning tuning = tuning_of(argv + 7, argc - 7);
    const ct_tier_limits limits = {.memory_bytes = strtoull(argv[2], NULL, 10) << 20, .tuning = &tuning};
    const double seconds = strtod(argv[4], NULL);
    const shape shape = strcmp(argv[5], "skewed") == 0 ? SKEWED : UNIFORM;
    const ct_table_spec spec = {.name = "ids",
                                .dim = DIM,
                                .optimiser = CT_ROW_ADAGRAD_ROWWISE,
                                .learning_rate = 0.01f,
                                .initial_accumulator = 0.01f,
                                .first_value_scale = 0.01f,
                                .min_count = 1};
    world world = {.keys = strtoull(argv[3], NULL, 10)};
    must(ct_pool_create(strtoull(argv[6], NULL, 10), &world.pool, &status));
    must(ct_store_create(&spec, 1, ct_device_cpu(), world.pool, &world.store, &status));
    must(ct_tier_create(world.store, &limits, argv[1], NULL, NULL, &status));
    world.out = calloc((size_t)N * DIM, sizeof *world.out);
    world.gradients = calloc((size_t)N * DIM, sizeof *world.gradients);
    for (size_t i = 0; i < 2; i++) {
        world.batches[i].keys = calloc(N, sizeof(uint64_t));
        must(ct_ticket_create(world.store, &world.tickets[i], &status));
        if (!world.batches[i].keys || !world.out || !world.gradients) return 1;
    }
    for (size_t i = 0; i < (size_t)N * DIM; i++) world.gradients[i] = (float)(i % 7) * 1e-4f + world.out[i];
    for (size_t i = 0; i < 2; i++) make_batch(&world.batches[i], shape, 0, 1 << 20);
    for (size_t i = 0; i < (size_t)N * DIM; i++) world.out[i] = 1;
    const uint64_t before_kib = anonymous_kib();

    (void)train(&world, FILL, (world.keys + N - 1) / N, 1e9);
    drain(&world);
    world.number = 0;
    ct_store_disk first, disk;
    ct_store_disk_get(world.store, &first);
    const uint64_t first_bytes = written_bytes();
    const double first_processor = processor_seconds();
    const int64_t began = ct_clock_ns();
    window all = {0};
    for (size_t w = 0; w < WINDOWS; w++) {
        const int64_t since = ct_clock_ns();
        const window one = train(&world, shape, UINT64_MAX, seconds / WINDOWS);
        const double took = (double)(ct_clock_ns() - since) * 1e-9;
        ct_store_disk_get(world.store, &disk);
        (void)printf(
            "%5.1f s  %7.0f rows/s  longest batch %5.0f ms  held back %6.2f s so far  %3u runs  %6.0f MiB, %5.0f in level 0  %4.0f MiB "
            "anonymous\n",
            (double)(ct_clock_ns() - began) * 1e-9, (double)one.batches * ROWS / took, (double)one.longest_ns * 1e-6,
            (double)(disk.held_ns - first.held_ns) * 1e-9, one.most_files, (double)one.most_bytes / 1048576,
            (double)one.most_level0_bytes / 1048576, (double)(one.most_kib - before_kib) / 1024);
        (void)fflush(stdout);
        all.batches += one.batches;
        if (one.longest_ns > all.longest_ns) all.longest_ns = one.longest_ns;
        if (one.most_files > all.most_files) all.most_files = one.most_files;
        if (one.most_bytes > all.most_bytes) all.most_bytes = one.most_bytes;
        if (one.most_kib > all.most_kib) all.most_kib = one.most_kib;
    }
    const double took = (double)(ct_clock_ns() - began) * 1e-9;
    drain(&world);
    ct_table_info info;
    ct_store_table_info(world.store, 0, &info);
    const double rows = fmax(1, (double)(disk.written_bytes - first.written_bytes)),
                 fetched = fmax(1, (double)(disk.fetched - first.fetched));
    (void)printf("rows_per_second\t%.0f\n", (double)all.batches * ROWS / took);
    (void)printf("longest_batch_ms\t%.0f\n", (double)all.longest_ns * 1e-6);
    (void)printf("held_share\t%.3f\n", (double)(disk.held_ns - first.held_ns) * 1e-9 / took);
    (void)printf("longest_held_ms\t%.0f\n", (double)disk.longest_held_ns * 1e-6);
    (void)printf("most_runs\t%u\n", all.most_files);
    (void)printf("written_mib_a_second\t%.1f\n", rows / took / 1048576);
    (void)printf("write_amplification\t%.2f\n", (double)(written_bytes() - first_bytes) / rows);
    (void)printf("runs_a_fetch\t%.1f\n", (double)(disk.asked_runs - first.asked_runs) / fetched);
    (void)printf("fetch_us_a_key\t%.2f\n", (double)(disk.fetch_ns - first.fetch_ns) * 1e-3 / fetched);
    (void)printf("disk_bytes_a_row\t%.0f\n", (double)all.most_bytes / (double)(info.rows + info.stubs));
    (void)printf("processor_seconds\t%.1f\n", processor_seconds() - first_processor);
    (void)printf("anonymous_mib\t%.0f\n", (double)(all.most_kib - before_kib) / 1024);
    for (size_t i = 0; i < 2; i++) {
        ct_ticket_destroy(world.tickets[i]);
        free(world.batches[i].keys);
    }
    ct_store_destroy(world.store);
    ct_pool_destroy(world.pool);
    free(world.out);
    free(world.gradients);
    return 0;
}
