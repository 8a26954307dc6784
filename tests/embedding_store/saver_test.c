/* Snapshots that are written while training goes on, against a store that is trained to the same batch, saved whole, and looked at: the
 * same digest, opened from the folder and as the snapshot says, whatever changes, grows or expires meanwhile; one after the other, so that
 * most of what a folder holds was written for an earlier one; and from a folder that an earlier run has left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "embedding_store/saver.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"

enum { ROWS = 60, DIM = 5, COLUMNS = 4, KEYS = 6000, SNAPSHOTS = 3, BATCHES = 6 /* between two snapshots */, EXPIRE_DAYS = 2 };

typedef struct setting {
    ct_row_optimiser optimiser;
    uint32_t min_count, partition_bits;
    size_t threads;
    bool target_stats, expires, half;
} setting;

typedef struct world {
    const setting *setting;
    ct_pool *pool;
    ct_store *store;
    ct_ticket *ticket;
} world;

static void world_open(world *world, const setting *s, const char *folder) {
    const ct_table_spec specs[2] = {{.name = "ids",
                                     .dim = DIM,
                                     .optimiser = s->optimiser,
                                     .precision = s->half ? CT_ROW_FP16 : CT_ROW_FP32,
                                     USUAL_STEPS,
                                     .min_count = s->min_count,
                                     .target_stats = s->target_stats,
                                     .expire_days = s->expires ? EXPIRE_DAYS : 0},
                                    {.name = "vectors", .kind = CT_TABLE_FROZEN, .dim = 2, .content_hash = "0"}};
    *world = (struct world){.setting = s};
    assert_ok(ct_pool_create(s->threads, &world->pool, &status));
    if (folder) {
        assert_ok(ct_store_open(folder, CT_STORE_TRAIN, ct_device_cpu(), world->pool, &world->store, &status));
    } else {
        assert_ok(
            ct_store_create_parted(specs, 2, CT_STORE_TRAIN, s->partition_bits, ct_device_cpu(), world->pool, &world->store, &status));
        assert_ok(ct_store_fill(world->store, 1, (const uint64_t[]){9, 3}, (const float[]){1, 2, 3, 4}, 2, &status));
    }
    assert_ok(ct_ticket_create(world->store, &world->ticket, &status));
}

static void world_close(world *world) {
    ct_ticket_destroy(world->ticket);
    ct_store_destroy(world->store);
    ct_pool_destroy(world->pool);
}

static void train(world *world, uint64_t first, uint64_t end) {
    float labels[ROWS];
    for (size_t i = 0; i < ROWS; i++) labels[i] = i % 3 == 0;
    for (uint64_t number = first; number < end; number++) {
        random_lookup random;
        const random_lookup_options options = {.rows = ROWS - number % 7,
                                               .block_rows = 16,
                                               .columns = COLUMNS,
                                               .keys = KEYS,
                                               .rare = true,
                                               .dim = DIM,
                                               .drop_rate = 0.05,
                                               .seed = 11};
        random_lookup_init(&random, &options, number);
        random.lookup.epoch = (uint32_t)(number / 15);
        random.lookup.day = 20000 + (uint32_t)number / 4;
        assert_ok(ct_store_prefetch(world->store, world->ticket, &random.lookup, &status));
        assert_ok(ct_store_acquire(world->store, world->ticket, &status));
        assert_ok(ct_store_apply(world->store, world->ticket, random.gradients, random.stride, labels, &status));
        ct_store_release(world->store, world->ticket);
        random_lookup_deinit(&random);
    }
}

static void *write_main(void *snapshot) {
    static ct_status failed;
    return ct_snapshot_write(snapshot, &failed) == CT_OK ? NULL : failed.message;
}

static void snapshot_hex(const ct_snapshot *snapshot, char out_hex[CT_DIGEST_HEX_BYTES]) {
    ct_digest *digest;
    assert_ok(ct_digest_create(&digest, &status));
    ct_snapshot_digest(snapshot, digest);
    ct_digest_hex(digest, out_hex);
    ct_digest_destroy(digest);
}

static void folder_hex(const char *folder, ct_store_mode mode, char out_hex[CT_DIGEST_HEX_BYTES]) {
    ct_store *store;
    assert_ok(ct_store_open(folder, mode, ct_device_cpu(), NULL, &store, &status));
    digest_hex(store, out_hex);
    ct_store_destroy(store);
}

/* The files of the two folders that are one. */
static size_t shared_files(const char *a, const char *b) {
    ct_file_list list;
    size_t shared = 0;
    assert_ok(ct_folder_list(a, &list, &status));
    for (size_t i = 0; i < list.count; i++) {
        char path[2048];
        (void)snprintf(path, sizeof path, "%s/%s", b, list.names[i]);
        shared += strstr(list.names[i], ".sst") && ct_path_exists(path);
    }
    ct_file_list_deinit(&list);
    return shared;
}

/* How far training gets before the snapshot is written: not at all, as far as it gets, or to the next one. */
enum { WRITE_FIRST, WRITE_BESIDE, WRITE_LAST, WRITES };

static void check(const setting *s, int when, bool reopen) {
    world saved, plain;
    char wanted[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES], before[1024] = "";
    world_open(&saved, s, NULL);
    world_open(&plain, s, NULL);
    train(&plain, 0, 3);
    train(&saved, 0, 3);
    assert_ok(ct_store_save_beside(saved.store, path_of("live"), NULL, &status));
    uint64_t at = 3;
    for (size_t n = 0; n < SNAPSHOTS; n++) {
        char folder[1024];
        ct_snapshot *snapshot;
        pthread_t thread;
        void *failed = NULL;
        (void)snprintf(folder, sizeof folder, "%s/snapshot-%zu", root, n);
        digest_hex(plain.store, wanted);
        digest_hex(saved.store, got); /* at rest */
        assert_string_equal(got, wanted);
        assert_ok(ct_snapshot_begin(saved.store, folder, &snapshot, &status));
        if (when == WRITE_FIRST) failed = write_main(snapshot);
        if (when == WRITE_BESIDE) assert_int_equal(pthread_create(&thread, NULL, write_main, snapshot), 0);
        train(&saved, at, at + BATCHES);
        train(&plain, at, at + BATCHES);
        at += BATCHES;
        if (when == WRITE_BESIDE) assert_int_equal(pthread_join(thread, &failed), 0);
        if (when == WRITE_LAST) failed = write_main(snapshot);
        if (failed) fail_msg("%s", (const char *)failed);
        snapshot_hex(snapshot, got);
        assert_string_equal(got, wanted);
        ct_snapshot_end(snapshot);
        folder_hex(folder, CT_STORE_TRAIN, got);
        assert_string_equal(got, wanted);
        folder_hex(folder, CT_STORE_LOOK, got);
        assert_string_equal(got, wanted);
        if (before[0]) {
            assert_true(shared_files(folder, before) > 0);
            assert_ok(ct_folder_remove(before, &status)); /* what is shared stays */
            folder_hex(folder, CT_STORE_TRAIN, got);
            assert_string_equal(got, wanted);
        }
        memcpy(before, folder, sizeof before);
        if (!reopen || n != 1) continue;
        world_close(&saved);
        world_close(&plain);
        assert_false(ct_path_exists(path_of("live")));
        world_open(&saved, s, folder);
        world_open(&plain, s, folder);
        at = 3 + BATCHES; /* as good as any */
        assert_ok(ct_store_save_beside(saved.store, path_of("live"), folder, &status));
    }
    world_close(&saved);
    world_close(&plain);
    assert_false(ct_path_exists(path_of("live")));
    assert_ok(ct_folder_remove(before, &status));
}

static void test_beside_training(void **unused) {
    (void)unused;
    static const size_t threads[] = {1, 2, 8};
    size_t number = 0;
    for (int optimiser = CT_ROW_ADAGRAD_ROWWISE; optimiser <= CT_ROW_ADAM; optimiser++)
        for (int when = WRITE_FIRST; when < WRITES; when++, number++) {
            const setting setting = {.optimiser = (ct_row_optimiser)optimiser,
                                     .min_count = 1 + (uint32_t)number % 2,
                                     .partition_bits = (uint32_t)number % 3 * 2,
                                     .threads = threads[number % 3],
                                     .target_stats = number % 4 < 2,
                                     .expires = number % 5 < 3,
                                     .half = number % 3 == 1};
            check(&setting, when, number % 2);
        }
}

static void test_no_changes(void **unused) {
    (void)unused;
    const setting setting = {.min_count = 1, .partition_bits = 1, .threads = 1};
    world world;
    char wanted[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    world_open(&world, &setting, NULL);
    assert_ok(ct_store_save_beside(world.store, path_of("live"), NULL, &status));
    for (size_t n = 0; n < 3; n++) { /* of an empty table, of one, and of the same one */
        char folder[1024];
        (void)snprintf(folder, sizeof folder, "%s/same-%zu", root, n);
        assert_ok(ct_store_snapshot(world.store, folder, &status));
        digest_hex(world.store, wanted);
        folder_hex(folder, CT_STORE_TRAIN, got);
        assert_string_equal(got, wanted);
        if (n == 0) train(&world, 0, 3);
    }
    world_close(&world);
}

/* The next one waits until the one at work has ended, and one that was begun and not written is the last. */
static void test_turns(void **unused) {
    (void)unused;
    const setting setting = {.min_count = 1, .partition_bits = 1, .threads = 1};
    world world;
    ct_snapshot *snapshot;
    world_open(&world, &setting, NULL);
    assert_ok(ct_store_save_beside(world.store, path_of("live"), NULL, &status));
    train(&world, 0, 2);
    assert_ok(ct_snapshot_begin(world.store, path_of("dropped"), &snapshot, &status));
    ct_snapshot_end(snapshot);
    assert_false(ct_path_exists(path_of("dropped")));
    assert_int_equal(ct_store_snapshot(world.store, path_of("next"), &status), CT_INVALID);
    assert_non_null(strstr(status.message, "failed"));
    world_close(&world);
}

static void test_not_finite(void **unused) {
    (void)unused;
    const setting setting = {.min_count = 1, .partition_bits = 1, .threads = 1};
    world world;
    world_open(&world, &setting, NULL);
    train(&world, 0, 3);
    assert_ok(ct_store_save_beside(world.store, path_of("live"), NULL, &status));
    ct_partition *partition = &world.store->tables[0].partitions[0];
    ct_slab_at(&partition->values, 1)[2] = 1.0f / 0.0f;
    assert_int_equal(ct_store_snapshot(world.store, path_of("diverged"), &status), CT_INVALID);
    assert_non_null(strstr(status.message, "not finite"));
    assert_false(ct_path_exists(path_of("diverged")));
    world_close(&world);
}

int main(void) {
    root_create("saver_test");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_beside_training), cmocka_unit_test(test_no_changes),
                                       cmocka_unit_test(test_turns), cmocka_unit_test(test_not_finite)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    assert_ok(ct_folder_remove(root, &status));
    return failed;
}
