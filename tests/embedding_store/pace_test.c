/* Training that is held back while compaction is behind: by how much (pace.h's formula), and, over a database whose compaction is made
 * slow, that the files stay within their bound, that nothing is learned differently, and what files cost in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "embedding_store/pace.h"
#include "embedding_store/tier.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"

#define MIB ((uint64_t)1 << 20)

/* --- the formula --- */

static void assert_pressure(uint32_t runs, uint64_t newer_mib, uint64_t oldest_mib, bool by_levels, double wanted) {
    const ct_tuning tuning = {
        .by_levels = by_levels, .runs = 8, .slow_runs = 20, .most_runs = 40, .slow_percent = 150, .most_percent = 300};
    const ct_backlog backlog = {.runs = runs, .newer_bytes = newer_mib * MIB, .oldest_bytes = oldest_mib * MIB};
    const double got = ct_pace_pressure(&tuning, &backlog);
    if (got < wanted - 1e-9 || got > wanted + 1e-9)
        fail_msg("%u runs, %llu MiB over %llu: pressure %.12g, should be %.12g", runs, (unsigned long long)newer_mib,
                 (unsigned long long)oldest_mib, got, wanted);
}

static void test_pressure(void **unused) {
    (void)unused;
    assert_pressure(0, 0, 0, false, 0);
    assert_pressure(20, 0, 1000, false, 0);
    assert_pressure(25, 0, 1000, false, 0.25);
    assert_pressure(40, 0, 1000, false, 1);
    assert_pressure(60, 0, 1000, false, 2);
    /* of 1,000 MiB: from 256 + 1,500 MiB on, at most 512 + 3,000 */
    assert_pressure(10, 1756, 1000, false, 0);
    assert_pressure(10, 1756 + 439, 1000, false, 0.25);
    assert_pressure(10, 3512, 1000, false, 1);
    assert_pressure(25, 1756 + 878, 1000, false, 0.5); /* the larger one */
    assert_pressure(35, 1756 + 878, 1000, false, 0.75);
    assert_pressure(10, 512, 0, false, 1);
    assert_pressure(7, 9999, 1000, false, 0); /* no compaction is due, so there is nothing to wait for */
    assert_pressure(30, 9999, 1000, true, 0.5);
    ct_tuning tuning = ct_tuning_ours;
    tuning.most_level0_bytes = 100 * MIB;
    ct_backlog backlog = {.runs = tuning.runs, .level0_bytes = 50 * MIB};
    assert_true(ct_pace_pressure(&tuning, &backlog) <= 0);
    backlog.level0_bytes = 100 * MIB;
    assert_true(ct_pace_pressure(&tuning, &backlog) >= 1);
    backlog.runs--; /* none is due */
    assert_true(ct_pace_pressure(&tuning, &backlog) <= 0);
}

static void test_pause(void **unused) {
    (void)unused;
    assert_int_equal(ct_pace_pause_ns(0, 1000000), 0);
    assert_int_equal(ct_pace_pause_ns(0.5, 1000000), 4000000); /* a fifth of the rate */
    assert_int_equal(ct_pace_pause_ns(0.2, 3000000), 3000000); /* half of it */
    assert_int_equal(ct_pace_pause_ns(0.75, 1000), 12000);
    assert_int_equal(ct_pace_pause_ns(0.999999, 1000000), 1000000000); /* no more than a second, */
    assert_int_equal(ct_pace_pause_ns(0.5, 60000000000), 1000000000);  /* whatever was before */
    assert_int_equal(ct_pace_pause_ns(0.5, 0), 0);
}

/* --- a slow compaction --- */

enum { ROWS = 60, DIM = 5, COLUMNS = 4, KEYS = 4000 };

static const ct_table_spec spec = {
    .name = "ids", .dim = DIM, .learning_rate = 0.05f, .initial_accumulator = 0.1f, .first_value_scale = 0.1f, .seed = 7, .min_count = 1};

typedef struct run {
    char digest[CT_DIGEST_HEX_BYTES];
    ct_store_disk disk;
    int64_t kib; /* of anonymous memory, more at the end than at the begin */
} run;

static int64_t anonymous_kib(void) {
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssAnon: %lld", &kib) == 1) break;
    if (file) (void)fclose(file);
    return kib;
}

/* tuning: NULL = all in memory */
static run train(const ct_tuning *tuning, uint64_t batches) {
    run run = {.kib = anonymous_kib()};
    ct_pool *pool;
    ct_store *store;
    ct_ticket *tickets[2];
    const ct_tier_limits limits = {.cache_bytes = 80000, .tuning = tuning};
    assert_ok(ct_pool_create(2, &pool, &status));
    assert_ok(ct_store_create_parted(&spec, 1, CT_STORE_TRAIN, 2, ct_device_cpu(), pool, &store, &status));
    if (tuning) assert_ok(ct_tier_create(store, &limits, path_of("live"), NULL, NULL, &status));
    for (size_t i = 0; i < 2; i++) assert_ok(ct_ticket_create(store, &tickets[i], &status));
    random_lookup random[2];
    const random_lookup_options options = {
        .rows = ROWS, .block_rows = 128, .columns = COLUMNS, .keys = KEYS, .plain = true, .dim = DIM, .seed = 11};
    float *out = NULL;
    for (uint64_t number = 0; number <= batches; number++) {
        if (number < batches) {
            random_lookup_init(&random[number % 2], &options, number);
            assert_ok(ct_store_prefetch(store, tickets[number % 2], &random[number % 2].lookup, &status));
        }
        if (number > 0) {
            random_lookup *before = &random[(number - 1) % 2];
            if (!out) out = calloc(ROWS * before->stride, sizeof *out);
            ct_store_gather(store, tickets[(number - 1) % 2], 0, ROWS, false, out, before->stride);
            assert_ok(ct_store_apply(store, tickets[(number - 1) % 2], before->gradients, before->stride, NULL, &status));
            ct_store_release(store, tickets[(number - 1) % 2]);
            random_lookup_deinit(before);
        }
        if (number < batches) assert_ok(ct_store_acquire(store, tickets[number % 2], &status));
    }
    digest_hex(store, run.digest);
    ct_store_disk_get(store, &run.disk);
    run.kib = anonymous_kib() - run.kib;
    for (size_t i = 0; i < 2; i++) ct_ticket_destroy(tickets[i]);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
    free(out);
    return run;
}

static void test_slow_compaction(void **unused) {
    (void)unused;
    enum { BATCHES = 100, MOST = 8, OF_A_FLUSH = 2 };
    ct_tuning tuning = ct_tuning_ours;
    /* Held back before a compaction is due, so that it is on any machine; and at 2 MB a second. */
    tuning.runs = 4;
    tuning.slow_runs = 2;
    tuning.most_runs = MOST;
    tuning.compaction_bytes_a_second = 2000000;
    const run free_run = train(NULL, BATCHES), held = train(&tuning, BATCHES);
    printf("%llu writes, %u runs at most, held back %.3f s, %.3f s at most\n", (unsigned long long)held.disk.writes, held.disk.most_runs,
           (double)held.disk.held_ns * 1e-9, (double)held.disk.longest_held_ns * 1e-9);
    assert_string_equal(held.digest, free_run.digest);
    assert_true(held.disk.writes > 5 * MOST); /* as many runs, were there no compaction */
    assert_true(held.disk.most_runs > 2);
    assert_true(held.disk.most_runs <= MOST + OF_A_FLUSH); /* the digest's flush does not wait */
    assert_true(held.disk.held_ns > 0);
    assert_true(held.disk.longest_held_ns <= held.disk.held_ns && held.disk.held_ns <= held.disk.waited_ns);
    assert_int_equal(free_run.disk.held_ns, 0);
}

/* As many runs as there may be at most have room in what a limit has for RocksDB (tier_sizes.c: 32 MiB). */
static void test_memory_of_runs(void **unused) {
    (void)unused;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("SKIP: a sanitizer's memory is not the program's\n");
#else
    ct_tuning tuning = ct_tuning_ours;
    tuning.runs = tuning.slow_runs = 1000000;
    tuning.most_runs = 2000000;
    const run few = train(&tuning, 40), many = train(&tuning, 40 + ct_tuning_ours.most_runs);
    printf("%u runs take %lld KiB, %u take %lld\n", few.disk.most_runs, (long long)few.kib, many.disk.most_runs, (long long)many.kib);
    assert_true(many.disk.most_runs >= ct_tuning_ours.most_runs);
    assert_true(many.disk.most_runs >= many.disk.writes); /* nothing is compacted: each write is a run */
    assert_true(many.kib < 8 * 1024);
#endif
}

int main(void) {
    root_create("pace_test");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pressure), cmocka_unit_test(test_pause),
                                       cmocka_unit_test(test_slow_compaction), cmocka_unit_test(test_memory_of_runs)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    assert_ok(ct_folder_remove(root, &status));
    return failed;
}
