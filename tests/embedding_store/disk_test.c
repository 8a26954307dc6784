/* Snapshots: what is written is what is read, also without the right to write; garbage is an error and no crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "embedding_store/store_internal.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"

static ct_pool *pool;

/* A path in the test's folder; what was there is removed. */
static const char *fresh(const char *name) {
    static char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", root, name);
    assert_ok(ct_folder_remove(path, &status));
    return path;
}

enum { DIM = 5, ROWS = 300, TABLES = 4 };

static const ct_table_spec SPECS[TABLES] = {
    {.name = "ids",
     .kind = CT_TABLE_TRAINED,
     .dim = DIM,
     .learning_rate = 0.1f,
     .initial_accumulator = 0.3f,
     .first_value_scale = 0.7f,
     .seed = 0xfedcba9876543210u,
     .min_count = 3},
    {.name = "text \"x\" \xc3\xa4", .kind = CT_TABLE_FROZEN, .dim = 2, .content_hash = "0123456789abcdef0123456789abcdef"},
    {.name = "empty", .kind = CT_TABLE_TRAINED, .dim = 1, .initial_accumulator = 1.0f, .min_count = 1},
    {.name = "counted",
     .kind = CT_TABLE_TRAINED,
     .dim = 2,
     .optimiser = CT_ROW_ADAM,
     .learning_rate = 0.01f,
     .beta1 = 0.9f,
     .beta2 = 0.999f,
     .epsilon = 1e-8f,
     .l2 = 0.001f,
     .first_value_scale = 0.1f,
     .min_count = 2,
     .target_stats = true}};

static void train_table(ct_store *store, size_t table, uint64_t keys, uint64_t from, uint64_t to) {
    ct_ticket *ticket;
    float labels[ROWS];
    for (size_t i = 0; i < ROWS; i++) labels[i] = i % 3 == 0;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    for (uint64_t number = from; number < to; number++) {
        const random_lookup_options options = {.rows = ROWS,
                                               .block_rows = 128,
                                               .columns = 4,
                                               .keys = keys,
                                               .rare = true,
                                               .dim = ct_store_table(store, table)->dim,
                                               .drop_rate = 0.05,
                                               .seed = 4};
        random_lookup random;
        random_lookup_init(&random, &options, number);
        random.lookup.table = table;
        random.lookup.epoch = (uint32_t)(number / 3);
        assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        assert_ok(ct_store_apply(store, ticket, random.gradients, random.stride, labels, &status));
        ct_store_release(store, ticket);
        random_lookup_deinit(&random);
    }
    ct_ticket_destroy(ticket);
}

static void train(ct_store *store, uint64_t from, uint64_t to) {
    train_table(store, 0, 2000, from, to);
    train_table(store, 3, 400, from, to);
}

static ct_store *make_store(uint32_t partition_bits) {
    ct_store *store;
    assert_ok(ct_store_create_parted(SPECS, TABLES, CT_STORE_TRAIN, partition_bits, ct_device_cpu(), pool, &store, &status));
    uint64_t keys[100];
    float values[200];
    for (size_t i = 0; i < 100; i++) {
        keys[i] = random_key(i);
        values[2 * i] = (float)i;
        values[2 * i + 1] = -1.0f / (float)(i + 1);
    }
    assert_ok(ct_store_fill(store, 1, keys, values, 100, &status));
    return store;
}

/* Writes a small store for the tests that damage it. */
static void write_small(const char *folder) {
    ct_store *store = make_store(CT_PARTITION_BITS);
    train(store, 0, 3);
    assert_ok(ct_store_snapshot(store, folder, &status));
    ct_store_destroy(store);
}

static void assert_only_content(const char *folder) {
    ct_file_list list;
    assert_ok(ct_folder_list(folder, &list, &status));
    for (size_t i = 0; i < list.count; i++) {
        const char *name = list.names[i], *end = strrchr(name, '.');
        const bool content = strcmp(name, "CURRENT") == 0 || strcmp(name, "store.json") == 0 || strncmp(name, "MANIFEST-", 9) == 0 ||
                             (end && strcmp(end, ".sst") == 0);
        if (!content) fail_msg("%s is in the snapshot", name);
    }
    assert_in_range(list.count, 4, 8);
    ct_file_list_deinit(&list);
}

/* train, snapshot, open, go on = train without a break; whatever the partitions and threads. */
static void test_continue(void **unused) {
    (void)unused;
    char middle[CT_DIGEST_HEX_BYTES], end[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    char folder[1024];
    strcpy(folder, fresh("continue"));
    ct_store *store = make_store(3);
    train(store, 0, 4);
    digest_hex(store, middle);
    assert_ok(ct_store_snapshot(store, folder, &status));
    digest_hex(store, got);
    assert_string_equal(got, middle); /* writing changes nothing */
    assert_only_content(folder);
    ct_table_info before, after;
    ct_store_table_info(store, 0, &before);
    assert_true(before.rows > 100 && before.stubs > 100);
    train(store, 4, 8);
    digest_hex(store, end);
    ct_store_destroy(store);

    for (size_t threads = 0; threads < 4; threads++) {
        ct_pool *other = NULL;
        if (threads) assert_ok(ct_pool_create(threads, &other, &status));
        assert_ok(ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), other, &store, &status));
        assert_int_equal(ct_store_table_count(store), TABLES);
        for (size_t i = 0; i < TABLES; i++) assert_memory_equal(ct_store_table(store, i), &SPECS[i], sizeof SPECS[i]);
        ct_store_table_info(store, 0, &after);
        assert_int_equal(after.rows, before.rows);
        assert_int_equal(after.stubs, before.stubs);
        digest_hex(store, got);
        assert_string_equal(got, middle);
        train(store, 4, 8);
        digest_hex(store, got);
        assert_string_equal(got, end);
        ct_store_destroy(store);
        ct_pool_destroy(other);
    }
    assert_only_content(folder);
}

/* The same for every row optimiser, with and without target statistics. */
static void test_continue_every_optimiser(void **unused) {
    (void)unused;
    enum { KINDS = 8 };
    ct_table_spec specs[KINDS];
    for (size_t i = 0; i < KINDS; i++) {
        specs[i] = (ct_table_spec){.dim = (uint32_t)(3 + 5 * i),
                                   .optimiser = (ct_row_optimiser)(i / 2),
                                   .learning_rate = 0.05f,
                                   .initial_accumulator = 0.3f,
                                   .beta1 = 0.8f,
                                   .beta2 = 0.99f,
                                   .epsilon = 1e-7f,
                                   .l2 = i % 3 ? 0.0f : 0.02f,
                                   .first_value_scale = 0.7f,
                                   .seed = i,
                                   .min_count = 2,
                                   .target_stats = i % 2};
        (void)snprintf(specs[i].name, sizeof specs[i].name, "%s %zu", ct_row_optimiser_name(specs[i].optimiser), i);
    }
    char folder[1024], middle[CT_DIGEST_HEX_BYTES], end[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    strcpy(folder, fresh("optimisers"));
    ct_store *store;
    assert_ok(ct_store_create_parted(specs, KINDS, CT_STORE_TRAIN, 2, ct_device_cpu(), pool, &store, &status));
    for (size_t i = 0; i < KINDS; i++) train_table(store, i, 300, 0, 4);
    digest_hex(store, middle);
    assert_ok(ct_store_snapshot(store, folder, &status));
    for (size_t i = 0; i < KINDS; i++) train_table(store, i, 300, 4, 8);
    digest_hex(store, end);
    ct_store_destroy(store);

    assert_ok(ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), NULL, &store, &status));
    digest_hex(store, got);
    assert_string_equal(got, middle);
    for (size_t i = 0; i < KINDS; i++) train_table(store, i, 300, 4, 8);
    digest_hex(store, got);
    assert_string_equal(got, end);
    ct_store_destroy(store);
}

/* More than one sorted file a table, scanned by several tasks. */
static void test_large(void **unused) {
    (void)unused;
    enum { COUNT = 1300000 };
    const ct_table_spec spec = {.name = "large", .kind = CT_TABLE_FROZEN, .dim = 1};
    ct_store *store;
    char wanted[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    uint64_t *keys = malloc(COUNT * sizeof *keys);
    float *values = malloc(COUNT * sizeof *values);
    for (uint64_t i = 0; i < COUNT; i++) {
        keys[i] = ct_hash64(&i, sizeof i, 1);
        values[i] = (float)i;
    }
    assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), pool, &store, &status));
    assert_ok(ct_store_fill(store, 0, keys, values, COUNT, &status));
    digest_hex(store, wanted);
    const char *folder = fresh("large");
    assert_ok(ct_store_snapshot(store, folder, &status));
    ct_store_destroy(store);
    ct_file_list list;
    assert_ok(ct_folder_list(folder, &list, &status));
    assert_int_equal(list.count, 2 + 3); /* two sorted files */
    ct_file_list_deinit(&list);
    assert_ok(ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), pool, &store, &status));
    digest_hex(store, got);
    assert_string_equal(got, wanted);
    ct_store_destroy(store);
    free(keys);
    free(values);
}

static void read_all(ct_store *store, float *out) {
    ct_ticket *ticket;
    uint64_t keys[ROWS];
    for (uint64_t i = 0; i < ROWS; i++) keys[i] = random_key(i);
    const ct_key_column column = {.keys = keys, .rare_key = ct_rare_key(1)};
    const ct_lookup lookup = {.mode = CT_LOOKUP_READ, .rows = ROWS, .columns = &column, .column_count = 1};
    assert_ok(ct_ticket_create(store, &ticket, &status));
    assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    ct_store_gather(store, ticket, 0, ROWS, false, out, DIM);
    ct_store_release(store, ticket);
    ct_ticket_destroy(ticket);
}

static void test_open_for_reading(void **unused) {
    (void)unused;
    char folder[1024];
    strcpy(folder, fresh("reading"));
    ct_store *store = make_store(CT_PARTITION_BITS);
    train(store, 0, 4);
    float wanted[ROWS * DIM], got[ROWS * DIM];
    read_all(store, wanted);
    ct_table_info training, reading;
    ct_store_table_info(store, 0, &training);
    assert_ok(ct_store_snapshot(store, folder, &status));
    assert_int_equal(ct_store_snapshot(store, folder, &status), CT_EXISTS);
    ct_store_destroy(store);

    assert_ok(ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &store, &status));
    read_all(store, got);
    assert_memory_equal(got, wanted, sizeof got);
    ct_store_table_info(store, 0, &reading);
    assert_int_equal(reading.rows, training.rows);
    assert_int_equal(reading.stubs, 0);
    assert_true(reading.bytes < training.bytes);
    assert_int_equal(reading.lookups + reading.unknown, ROWS);
    assert_in_range(reading.unknown, 1, ROWS - 1);

    /* A store for reading is for nothing else. */
    ct_digest *digest;
    assert_ok(ct_digest_create(&digest, &status));
    assert_int_equal(ct_store_digest(store, digest, &status), CT_INVALID);
    ct_digest_destroy(digest);
    assert_int_equal(ct_store_snapshot(store, fresh("none"), &status), CT_INVALID);
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    const ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .block_rows = 256};
    assert_int_equal(ct_store_prefetch(store, ticket, &lookup, &status), CT_INVALID);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

/* The thread sanitizer lets no thread start in a child of a process with threads, and RocksDB starts some. */
static void skip_under_thread_sanitizer(void) {
#ifdef __SANITIZE_THREAD__
    print_message("SKIP: the thread sanitizer cannot follow a child that starts threads\n");
    skip();
#endif
}

/* Root's right to write anywhere is a capability, which can be given up. */
static bool drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[2] = {{0}};
    return syscall(SYS_capset, &header, none) == 0;
}

/* What a process that may not write sees. */
static int open_in_child(const char *folder) {
    const pid_t child = fork();
    if (child == 0) {
        ct_store *store = NULL;
        if (!drop_capabilities()) _exit(3);
        if (access(folder, W_OK) == 0) _exit(4);
        if (ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &store, &status) != CT_OK) {
            fprintf(stderr, "%s\n", status.message);
            _exit(1);
        }
        ct_table_info info;
        ct_store_table_info(store, 0, &info);
        ct_store_destroy(store);
        _exit(info.rows > 0 ? 0 : 2);
    }
    return (int)child;
}

static void test_folder_that_cannot_be_written(void **unused) {
    (void)unused;
    skip_under_thread_sanitizer();
    char folder[1024], command[4096];
    strcpy(folder, fresh("locked"));
    write_small(folder);
    (void)snprintf(command, sizeof command, "chmod -R a+rX,a-w '%s' && find '%s' | sort | xargs stat -c '%%n %%s %%Y' > '%s.before'",
                   folder, folder, folder);
    assert_int_equal(system(command), 0);
    const int children[2] = {open_in_child(folder), open_in_child(folder)};
    for (int i = 0; i < 2; i++) {
        int result = -1;
        assert_int_equal(waitpid(children[i], &result, 0), children[i]);
        assert_int_equal(result, 0);
    }
    ct_store *store;
    assert_ok(ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), pool, &store, &status));
    ct_store_destroy(store);
    (void)snprintf(command, sizeof command,
                   "find '%s' | sort | xargs stat -c '%%n %%s %%Y' | cmp - '%s.before'; r=$?; chmod -R u+w '%s'; exit $r", folder, folder,
                   folder);
    assert_int_equal(system(command), 0);
}

static void test_describe(void **unused) {
    (void)unused;
    const char *folder = fresh("describe");
    write_small(folder);
    json_t *json;
    assert_ok(ct_store_describe(folder, &json, &status));
    json_t *tables = json_object_get(json, "tables");
    assert_int_equal(json_array_size(tables), TABLES);
    json_t *text = json_array_get(tables, 1);
    assert_string_equal(json_string_value(json_object_get(text, "name")), SPECS[1].name);
    assert_string_equal(json_string_value(json_object_get(text, "kind")), "frozen");
    assert_int_equal(json_integer_value(json_object_get(text, "rows")), 100);
    assert_int_equal(json_integer_value(json_object_get(text, "dim")), 2);
    assert_true(json_integer_value(json_object_get(text, "bytes")) > 100 * 16);
    assert_true(json_integer_value(json_object_get(json_array_get(tables, 0), "stubs")) > 0);
    json_t *counted = json_array_get(tables, 3);
    assert_string_equal(json_string_value(json_object_get(counted, "optimiser")), "adam");
    assert_true(json_is_true(json_object_get(counted, "target_stats")));
    static const char *const names[] = {"count",        "admitted",      "impressions", "clicks", "epoch",
                                        "first_moment", "second_moment", "updates",     "value"};
    json_t *columns = json_object_get(counted, "columns");
    assert_int_equal(json_array_size(columns), sizeof names / sizeof *names);
    for (size_t i = 0; i < json_array_size(columns); i++)
        assert_string_equal(json_string_value(json_object_get(json_array_get(columns, i), "name")), names[i]);
    json_decref(json);
    assert_int_equal(ct_store_describe(fresh("absent"), &json, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, "absent"));
}

static void test_no_tables(void **unused) {
    (void)unused;
    ct_store *store;
    const char *folder = fresh("nothing");
    assert_ok(ct_store_create(NULL, 0, ct_device_cpu(), pool, &store, &status));
    assert_ok(ct_store_snapshot(store, folder, &status));
    ct_store_destroy(store);
    assert_ok(ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), pool, &store, &status));
    assert_int_equal(ct_store_table_count(store), 0);
    ct_store_destroy(store);
}

/* --- damage --- */

static void overwrite(const char *path, const char *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Opens in a child process, so that a crash is seen as one. Returns 0 = error, 1 = opened with this digest, else a crash or another
 * content. */
static int open_damaged(const char *folder, const char *digest) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        ct_store *store = NULL;
        (void)freopen("/dev/null", "w", stderr);
        alarm(60);
        status = (ct_status)CT_STATUS_INIT;
        const ct_code code = ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), NULL, &store, &status);
        if (code != CT_OK) _exit(code == status.code && status.message[0] && code != CT_INTERNAL ? 0 : 5);
        char got[CT_DIGEST_HEX_BYTES];
        digest_hex(store, got);
        _exit(strcmp(got, digest) == 0 ? 1 : 6);
    }
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    return WIFEXITED(result) ? WEXITSTATUS(result) : 1000 + WTERMSIG(result);
}

/* One flipped byte, a cut, a missing file: an error, or the very same content. */
static void test_damage(void **unused) {
    (void)unused;
    skip_under_thread_sanitizer();
    char folder[1024], digest[CT_DIGEST_HEX_BYTES];
    strcpy(folder, fresh("damage"));
    write_small(folder);
    ct_store *store;
    assert_ok(ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), NULL, &store, &status));
    digest_hex(store, digest);
    ct_store_destroy(store);
    ct_file_list list;
    assert_ok(ct_folder_list(folder, &list, &status));
    const char *by_hand = getenv("CT_DAMAGE_STEP"); /* a longer run by hand: every so manieth byte */
    const size_t step = by_hand ? strtoull(by_hand, NULL, 10) : 0;
    size_t flips = 0, errors = 0;
    for (size_t i = 0; i < list.count; i++) {
        char *path = ct_path_join(folder, list.names[i]), *data;
        size_t bytes;
        assert_ok(ct_file_read(path, 1 << 24, &data, &bytes, &status));
        const size_t first_step = bytes / 24 + 1;
        /* Thin in the middle, dense at the end, where a sorted file has its index and footer. */
        for (size_t at = 0, next; at < bytes; at = next) {
            const size_t dense = bytes > 24 * 8 ? bytes - 24 * 8 : 0;
            next = at >= dense ? at + 8 : at + first_step < dense ? at + first_step : dense;
            if (step) next = at + step;
            const char kept = data[at];
            data[at] = (char)(kept ^ (at % 3 == 0 ? 0xff : 1 << at % 8));
            overwrite(path, data, bytes);
            const int result = open_damaged(folder, digest);
            if (result > 1) fail_msg("%s: byte %zu flipped: %d", list.names[i], at, result);
            flips++;
            errors += result == 0;
            data[at] = kept;
        }
        static const double cuts[] = {0.0, 0.3, 0.99};
        for (size_t c = 0; c < 3; c++) {
            overwrite(path, data, (size_t)(cuts[c] * (double)bytes));
            const int result = open_damaged(folder, digest);
            if (result > 1) fail_msg("%s: cut to %g: %d", list.names[i], cuts[c], result);
        }
        assert_int_equal(unlink(path), 0);
        if (open_damaged(folder, digest) != 0) fail_msg("%s is missing, and that is no error", list.names[i]);
        overwrite(path, data, bytes);
        free(data);
        free(path);
    }
    assert_int_equal(open_damaged(folder, digest), 1); /* all is back */
    print_message("%zu of %zu flipped bytes were errors, the others changed nothing\n", errors, flips);
    assert_true(errors > flips / 2);
    ct_file_list_deinit(&list);
}

/* Gives a changed store.json the checksum that belongs to it, as a defective or a later writer would. */
static void reseal(const char *path) {
    json_t *json;
    char hex[24];
    assert_ok(ct_json_load(path, &json, &status));
    assert_int_equal(json_object_del(json, "checksum"), 0);
    char *text = json_dumps(json, JSON_COMPACT);
    (void)snprintf(hex, sizeof hex, "%016llx", (unsigned long long)ct_hash64(text, strlen(text), 0));
    assert_int_equal(json_object_set_new(json, "checksum", json_string(hex)), 0);
    assert_ok(ct_json_save(path, json, &status));
    free(text);
    json_decref(json);
}

static void assert_refused(const char *folder, const char *from, const char *to, ct_code code, const char *message) {
    char *path = ct_path_join(folder, "store.json"), *data, *at;
    size_t bytes;
    assert_ok(ct_file_read(path, 1 << 20, &data, &bytes, &status));
    at = strstr(data, from);
    assert_non_null(at);
    char changed[1 << 14];
    (void)snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - data), data, to, at + strlen(from));
    overwrite(path, changed, strlen(changed));
    ct_store *store = NULL;
    assert_true(ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &store, &status) != CT_OK); /* by its checksum at the latest */
    reseal(path);
    assert_int_equal(ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &store, &status), code);
    assert_null(store);
    if (!strstr(status.message, message)) fail_msg("\"%s\" lacks \"%s\"", status.message, message);
    overwrite(path, data, bytes);
    free(data);
    free(path);
}

static void test_store_json(void **unused) {
    (void)unused;
    const char *folder = fresh("json");
    write_small(folder);
    assert_refused(folder, "\"least_reader\": 1", "\"least_reader\": 2", CT_UNSUPPORTED, "version 2");
    assert_refused(folder, "\"requires\": [", "\"requires\": [\"deltas\", ", CT_UNSUPPORTED, "deltas");
    assert_refused(folder, "\"dim\": 5", "\"dim\": 0", CT_CORRUPT, "dim");
    assert_refused(folder, "\"dim\": 5", "\"dim\": 6", CT_CORRUPT, "value");
    assert_refused(folder, "adagrad_rowwise", "adamax", CT_UNSUPPORTED, "adamax");
    assert_refused(folder, "adagrad_rowwise", "adam", CT_CORRUPT, "beta1");
    assert_refused(folder, "\"impressions\"", "\"views\"", CT_CORRUPT, "impressions");
    assert_refused(folder, "\"target_stats\": true", "\"target_stats\": false", CT_CORRUPT, "counted");
    assert_refused(folder, "\"counted_epoch\": 0", "\"counted_epoch\": -1", CT_CORRUPT, "counted_epoch");
    assert_refused(folder, "\"first_moment\",\n          \"type\": \"f32\"", "\"first_moment\", \"type\": \"u32\"", CT_CORRUPT,
                   "first_moment");
    assert_refused(folder, "\"frozen\"", "\"frosted\"", CT_UNSUPPORTED, "frosted");
    assert_refused(folder, "\"rows\": 100", "\"rows\": 101", CT_CORRUPT, "101");
    assert_refused(folder, "\"name\": \"empty\"", "\"name\": \"ids\"", CT_CORRUPT, "ids");
    assert_refused(folder, "\"name\": \"empty\"", "\"name\": \"other\"", CT_CORRUPT, "other");
    ct_store *store = NULL;
    assert_ok(ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &store, &status));
    ct_store_destroy(store);
}

static int set_up(void **unused) {
    (void)unused;
    const char *base = getenv("TEST_TMPDIR");
    (void)snprintf(root, sizeof root, "%s/store-XXXXXX", base ? base : "/tmp");
    return mkdtemp(root) && chmod(root, 0755) == 0 && ct_pool_create(2, &pool, &status) == CT_OK ? 0 : -1;
}

static int tear_down(void **unused) {
    (void)unused;
    ct_pool_destroy(pool);
    return ct_folder_remove(root, &status) == CT_OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_continue_every_optimiser),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_open_for_reading),
        cmocka_unit_test(test_folder_that_cannot_be_written),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_no_tables),
        cmocka_unit_test(test_store_json),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
