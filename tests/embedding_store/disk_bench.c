/* How fast rows come onto a disk and from it: sorted rows into the database, warming by a scan, random reads; a whole snapshot, one after
 * few rows have changed, beside training and at rest, and opening it. Each beside its bound of the same run: RocksDB's own calls in a bare
 * loop, or the disk, which writes as many bytes in one file. Rows of 16 floats under row-wise Adagrad.
 *
 *     disk_bench FOLDER [ROWS] [THREADS] [CHANGED %]
 *
 * Prints lines of `name value unit bound`, bound 0 where there is none. FOLDER must not exist; it takes 350 bytes a row, and so does
 * memory. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "embedding_store/database.h"
#include "embedding_store/live.h"
#include "embedding_store/saver.h"
#include "tests/bench.h"

enum { DIM = 16, COLUMNS = 26, BATCH_ROWS = 2048, BATCH = BATCH_ROWS * COLUMNS, READS = 1 << 20, READ_BATCH = 4096, GET_KEYS = 256 };

static void must_database(char *error) {
    if (!error) return;
    fprintf(stderr, "disk_bench: %s\n", error);
    exit(1);
}

static double seconds_since(int64_t since) { return (double)(ct_clock_ns() - since) * 1e-9; }

static void show(const char *name, double value, const char *unit, double bound) {
    printf("%s\t%.6g\t%s\t%.6g\n", name, value, unit, bound);
    fflush(stdout);
}

static char root[512];

static const char *path_of(const char *name) {
    static char paths[4][1024];
    static size_t next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static uint64_t folder_bytes(const char *folder, bool new_only) {
    ct_file_list list;
    uint64_t bytes = 0;
    must(ct_folder_list(folder, &list, &status));
    for (size_t i = 0; i < list.count; i++) {
        char *path = ct_path_join(folder, list.names[i]);
        struct stat info;
        /* A sorted file of the last snapshot has a third name. */
        if (path && stat(path, &info) == 0 && (!new_only || info.st_nlink < 3)) bytes += (uint64_t)info.st_size;
        free(path);
    }
    ct_file_list_deinit(&list);
    return bytes;
}

/* Seconds that the disk takes for so many bytes in one file. */
static double disk_seconds(uint64_t bytes) {
    static char block[1 << 20];
    const char *path = path_of("bytes");
    const int64_t since = ct_clock_ns();
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    for (uint64_t done = 0; fd >= 0 && done < bytes;) {
        const size_t part = bytes - done < sizeof block ? (size_t)(bytes - done) : sizeof block;
        if (write(fd, block, part) != (ssize_t)part) break;
        done += part;
    }
    if (fd < 0 || fsync(fd) != 0 || close(fd) != 0) perror("disk_bench");
    const double seconds = seconds_since(since);
    (void)unlink(path);
    return seconds;
}

/* Into the kernel's pages: RocksDB has what it writes dropped from them, and a cold disk is another benchmark. */
static void warm(const char *folder) {
    static char block[1 << 20];
    ct_file_list list;
    must(ct_folder_list(folder, &list, &status));
    for (size_t i = 0; i < list.count; i++) {
        char *path = ct_path_join(folder, list.names[i]);
        const int fd = path ? open(path, O_RDONLY) : -1;
        while (fd >= 0 && read(fd, block, sizeof block) > 0) {}
        if (fd >= 0) (void)close(fd);
        free(path);
    }
    ct_file_list_deinit(&list);
}

/* --- the database: `rows` records, whose keys are spread evenly --- */

static uint64_t spread(uint64_t number, uint64_t rows) { return (uint64_t)((__uint128_t)number * UINT64_MAX / rows); }

static ct_code nothing(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *ignored) {
    (void)number, (void)bytes, (void)ignored;
    *(uint64_t *)context += key + (record ? (uint64_t)(uint8_t)record[0] : 0);
    return CT_OK;
}

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void raw_ingest(uint64_t rows, const char *record, size_t bytes, double *out_seconds) {
    ct_database database;
    const char *const names[] = {"ids"};
    char key[8], *error = NULL;
    const int64_t since = ct_clock_ns();
    must(ct_folder_create(path_of("raw"), &status));
    must(ct_database_open(&database, path_of("raw"), CT_DATABASE_NEW, NULL, names, 1, &status));
    rocksdb_envoptions_t *environment = rocksdb_envoptions_create();
    rocksdb_sstfilewriter_t *writer = rocksdb_sstfilewriter_create(environment, database.options);
    const char *path = path_of("raw/new.sst");
    rocksdb_sstfilewriter_open(writer, path, &error);
    for (uint64_t i = 0; i < rows && !error; i++) {
        ct_put_be64(key, spread(i, rows));
        rocksdb_sstfilewriter_put(writer, key, sizeof key, record, bytes, &error);
    }
    must_database(error);
    rocksdb_sstfilewriter_finish(writer, &error);
    must_database(error);
    rocksdb_sstfilewriter_destroy(writer);
    rocksdb_envoptions_destroy(environment);
    must(ct_database_ingest(&database, path_of("raw"), 0, &path, 1, &status));
    ct_database_close(&database);
    *out_seconds = seconds_since(since);
}

static void raw_scan(uint64_t rows) {
    ct_database database;
    const char *const names[] = {"ids"};
    uint64_t found = 0, sum = 0;
    must(ct_database_open(&database, path_of("raw"), CT_DATABASE_SCAN, NULL, names, 1, &status));
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(options, 1);
    rocksdb_readoptions_set_readahead_size(options, 1 << 20);
    const int64_t since = ct_clock_ns();
    rocksdb_iterator_t *iterator = rocksdb_create_iterator_cf(database.db, options, database.families[1]);
    for (rocksdb_iter_seek_to_first(iterator); rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator), found++) {
        size_t bytes;
        sum += (uint64_t)(uint8_t)rocksdb_iter_value(iterator, &bytes)[0];
    }
    show("bare_scan", (double)rows / seconds_since(since), found == rows && sum < UINT64_MAX ? "rows/s" : "wrong", 0);
    rocksdb_iter_destroy(iterator);
    rocksdb_readoptions_destroy(options);
    ct_database_close(&database);
}

/* Batches of READ_BATCH sorted keys, in the calls that ct_live_get makes. */
static double raw_reads(const uint64_t *keys) {
    ct_database database;
    const char *const names[] = {"ids"};
    must(ct_database_open(&database, path_of("raw"), CT_DATABASE_READ, NULL, names, 1, &status));
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(options, 1);
    char bytes[GET_KEYS][8], *errors[GET_KEYS];
    const char *pointers[GET_KEYS];
    size_t sizes[GET_KEYS];
    rocksdb_pinnableslice_t *values[GET_KEYS];
    const int64_t since = ct_clock_ns();
    for (size_t first = 0; first < READS; first += GET_KEYS) {
        for (size_t i = 0; i < GET_KEYS; i++) {
            ct_put_be64(bytes[i], keys[first + i]);
            pointers[i] = bytes[i];
            sizes[i] = 8;
        }
        rocksdb_batched_multi_get_cf(database.db, options, database.families[1], GET_KEYS, pointers, sizes, values, errors, true);
        for (size_t i = 0; i < GET_KEYS; i++) {
            must_database(errors[i]);
            rocksdb_pinnableslice_destroy(values[i]);
        }
    }
    const double seconds = seconds_since(since);
    rocksdb_readoptions_destroy(options);
    ct_database_close(&database);
    return seconds;
}

static void bench_database(uint64_t rows) {
    const char *const names[] = {"ids"};
    char record[9 + DIM * 4];
    double raw;
    uint64_t sum = 0;
    ct_live *live;
    for (size_t i = 0; i < sizeof record; i++) record[i] = (char)(i * 37);
    raw_ingest(rows, record, sizeof record, &raw);
    const int64_t since = ct_clock_ns();
    must(ct_live_create(path_of("database"), NULL, NULL, names, 1, &live, &status));
    must(ct_live_begin(live, 0, &status));
    for (uint64_t i = 0; i < rows; i++) must(ct_live_put(live, spread(i, rows), record, sizeof record, &status));
    must(ct_live_end(live, &status));
    show("ingest", (double)rows / seconds_since(since), "rows/s", (double)rows / raw);
    warm(path_of("raw"));
    warm(path_of("database"));
    raw_scan(rows);
    uint64_t *keys = malloc(READS * sizeof *keys);
    if (!keys) exit(1);
    for (size_t i = 0; i < READS; i++) keys[i] = spread(draw(rows), rows);
    for (size_t i = 0; i < READS; i += READ_BATCH) qsort(keys + i, READ_BATCH, sizeof *keys, by_number);
    raw = raw_reads(keys);
    const int64_t reading = ct_clock_ns();
    for (size_t i = 0; i < READS; i += READ_BATCH) must(ct_live_get(live, 0, keys + i, READ_BATCH, nothing, &sum, &status));
    show("random_reads", READS / seconds_since(reading), "rows/s", READS / raw);
    free(keys);
    ct_live_close(live);
    must(ct_folder_remove(path_of("raw"), &status));
}

/* --- the store --- */

typedef struct world {
    ct_store *store;
    ct_ticket *ticket;
    ct_lookup lookup;
    ct_key_column columns[COLUMNS];
    uint64_t keys[BATCH];
    float *gradients;
} world;

static void train(world *world) {
    for (size_t c = 0; c < COLUMNS; c++) world->columns[c].keys = world->keys + c * BATCH_ROWS;
    must(ct_store_prefetch(world->store, world->ticket, &world->lookup, &status));
    must(ct_store_acquire(world->store, world->ticket, &status));
    must(ct_store_apply(world->store, world->ticket, world->gradients, DIM * COLUMNS, NULL, &status));
    ct_store_release(world->store, world->ticket);
}

/* Seconds for rows [first, first + count), in batches. */
static double train_rows(world *world, uint64_t first, uint64_t count) {
    const int64_t since = ct_clock_ns();
    for (uint64_t done = 0; done < count; done += BATCH) {
        for (uint64_t i = 0; i < BATCH; i++) world->keys[i] = key_of(first + (done + i) % count);
        train(world);
    }
    return seconds_since(since);
}

static atomic_bool written;

static void *write_main(void *snapshot) {
    must(ct_snapshot_write(snapshot, &status));
    atomic_store(&written, true);
    return NULL;
}

/* A snapshot while training goes on, with half of the rows. */
static void bench_beside(world *world, uint64_t rows, double batch_seconds) {
    ct_snapshot *snapshot;
    pthread_t thread;
    double longest = 0;
    int64_t began = ct_clock_ns();
    must(ct_snapshot_begin(world->store, path_of("beside"), &snapshot, &status));
    const double stall = seconds_since(began);
    if (pthread_create(&thread, NULL, write_main, snapshot) != 0) exit(1);
    size_t batches = 0;
    for (; !atomic_load(&written); batches++) {
        for (uint64_t i = 0; i < BATCH; i++) world->keys[i] = key_of(draw(rows));
        const int64_t since = ct_clock_ns();
        train(world);
        const double seconds = seconds_since(since);
        if (seconds > longest) longest = seconds;
    }
    (void)pthread_join(thread, NULL);
    show("beside_seconds", seconds_since(began), "s", 0);
    ct_snapshot_end(snapshot);
    show("beside_stall", stall * 1e3, "ms", 0);
    show("beside_longest_batch", longest * 1e3, "ms", batch_seconds * 1e3);
    show("beside_batches", (double)batches, "batches", 0);
}

static void bench_store(uint64_t rows, ct_pool *pool, double changed) {
    const ct_table_spec spec = {
        .name = "ids", .dim = DIM, .learning_rate = 0.01f, .initial_accumulator = 0.01f, .first_value_scale = 0.01f, .min_count = 1};
    world *world = calloc(1, sizeof *world);
    if (!world) exit(1);
    must(ct_store_create(&spec, 1, ct_device_cpu(), pool, &world->store, &status));
    must(ct_ticket_create(world->store, &world->ticket, &status));
    world->gradients = calloc((size_t)BATCH * DIM, sizeof(float));
    if (!world->gradients) exit(1);
    for (size_t i = 0; i < (size_t)BATCH * DIM; i++) world->gradients[i] = (float)(i % 7) * 1e-4f;
    world->lookup =
        (ct_lookup){.mode = CT_LOOKUP_TRAIN, .rows = BATCH_ROWS, .block_rows = 256, .columns = world->columns, .column_count = COLUMNS};
    for (uint32_t c = 0; c < COLUMNS; c++) world->columns[c] = (ct_key_column){.output_column = c * DIM};
    (void)train_rows(world, 0, rows);

    int64_t since = ct_clock_ns();
    must(ct_store_snapshot(world->store, path_of("whole"), &status));
    double seconds = seconds_since(since);
    const uint64_t whole = folder_bytes(path_of("whole"), false);
    show("whole_seconds", seconds, "s", disk_seconds(whole));
    show("whole_bytes", (double)whole, "bytes", 0);

    const uint64_t few = (uint64_t)((double)rows * changed / 100);
    const double plain = train_rows(world, rows / 2, few) / (double)((few + BATCH - 1) / BATCH);
    must(ct_folder_remove(path_of("whole"), &status));
    must(ct_store_snapshot(world->store, path_of("whole"), &status));
    since = ct_clock_ns();
    must(ct_store_save_beside(world->store, path_of("live"), path_of("whole"), &status));
    show("save_beside", seconds_since(since), "s", 0);
    const double marked = train_rows(world, rows / 3, few) / (double)((few + BATCH - 1) / BATCH);
    show("first_touch_batch", marked * 1e3, "ms", plain * 1e3);

    ct_snapshot *snapshot;
    since = ct_clock_ns();
    must(ct_snapshot_begin(world->store, path_of("few"), &snapshot, &status));
    const double stall = seconds_since(since);
    must(ct_snapshot_write(snapshot, &status));
    seconds = seconds_since(since);
    ct_snapshot_end(snapshot);
    const uint64_t bytes = folder_bytes(path_of("few"), true);
    show("few_seconds", seconds, "s", disk_seconds(bytes));
    show("few_bytes", (double)bytes, "bytes", (double)few * (8 + 9 + DIM * 4));
    show("few_stall", stall * 1e3, "ms", 0);
    (void)train_rows(world, 0, rows / 2);
    bench_beside(world, rows, plain);
    ct_ticket_destroy(world->ticket);
    ct_store_destroy(world->store);
    free(world->gradients);
    free(world);

    ct_store *store;
    warm(path_of("few"));
    warm(path_of("whole"));
    since = ct_clock_ns();
    must(ct_store_open(path_of("few"), CT_STORE_TRAIN, ct_device_cpu(), pool, &store, &status));
    seconds = seconds_since(since);
    show("open_seconds", seconds, "s", 0);
    show("open", (double)rows / seconds, "rows/s", 0);
    ct_store_destroy(store);
    since = ct_clock_ns();
    must(ct_store_open(path_of("whole"), CT_STORE_READ, ct_device_cpu(), pool, &store, &status));
    show("open_whole", (double)rows / seconds_since(since), "rows/s", 0);
    ct_store_destroy(store);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "disk_bench FOLDER [ROWS] [THREADS] [CHANGED %%]\n");
        return 2;
    }
    const uint64_t rows = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000000;
    const size_t threads = argc > 3 ? strtoull(argv[3], NULL, 10) : 2;
    const double changed = argc > 4 ? strtod(argv[4], NULL) : 1;
    ct_pool *pool;
    if (ct_path_exists(argv[1])) {
        fprintf(stderr, "disk_bench: %s is there already\n", argv[1]);
        return 2;
    }
    (void)snprintf(root, sizeof root, "%s", argv[1]);
    must(ct_folder_create(root, &status));
    must(ct_pool_create(threads, &pool, &status));
    bench_database(rows);
    bench_store(rows, pool, changed);
    ct_pool_destroy(pool);
    must(ct_folder_remove(root, &status));
    return 0;
}
