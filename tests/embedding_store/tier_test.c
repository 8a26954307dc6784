/* A store within a limit against one without: the same floats in every batch and the same digest, whatever optimiser, precision, admission,
 * expiry, target statistics, number of threads and parts; with rows that come and go all the time, and with a cache that becomes smaller.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "embedding_store/tier.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"

enum { ROWS = 60, BATCHES = 40, DIM = 5, COLUMNS = 4, KEYS = 4000 };

typedef struct setting {
    ct_row_optimiser optimiser;
    uint32_t min_count, partition_bits;
    size_t threads;
    uint64_t cache_bytes;  /* 0 = no limit */
    uint64_t others_bytes; /* of these, what the caller has at the end; it grows */
    bool target_stats, expires, halves, ahead;
} setting;

static ct_table_spec spec_of(const setting *s) {
    return (ct_table_spec){.name = "ids",
                           .dim = DIM,
                           .optimiser = s->optimiser,
                           USUAL_STEPS,
                           .l2 = 0.01f,
                           .min_count = s->min_count,
                           .precision = s->halves ? CT_ROW_FP16 : CT_ROW_FP32,
                           .target_stats = s->target_stats,
                           .expire_days = s->expires ? 6 : 0};
}

typedef struct world {
    ct_pool *pool;
    ct_store *store;
    ct_ticket *tickets[2];
    int64_t most_outside;
} world;

static void world_init(world *world, const setting *s) {
    const ct_table_spec spec = spec_of(s);
    *world = (struct world){0};
    assert_ok(ct_pool_create(s->threads, &world->pool, &status));
    assert_ok(ct_store_create_parted(&spec, 1, CT_STORE_TRAIN, s->partition_bits, ct_device_cpu(), world->pool, &world->store, &status));
    if (s->cache_bytes)
        assert_ok(
            ct_tier_create(world->store, &(const ct_tier_limits){.cache_bytes = s->cache_bytes}, path_of("live"), NULL, NULL, &status));
    for (size_t i = 0; i < 2; i++) assert_ok(ct_ticket_create(world->store, &world->tickets[i], &status));
}

static void world_deinit(world *world) {
    for (size_t i = 0; i < 2; i++) ct_ticket_destroy(world->tickets[i]);
    ct_store_destroy(world->store);
    ct_pool_destroy(world->pool);
}

static void make_batch(random_lookup *random, uint64_t number) {
    const random_lookup_options options = {.rows = ROWS - number % 7,
                                           .block_rows = 16,
                                           .columns = COLUMNS,
                                           .keys = KEYS,
                                           .rare = true,
                                           .dim = DIM,
                                           .drop_rate = 0.05,
                                           .seed = 11};
    random_lookup_init(random, &options, number);
    random->lookup.epoch = (uint32_t)(number / 15);
    random->lookup.day = (uint32_t)(20000 + number / 3);
}

/* Batches [first, end): training gathers, and now and then reading ones, to `out`, which grows. Returns how many floats there are. */
static size_t train(world *world, const setting *s, uint64_t first, uint64_t end, float **out, size_t count) {
    float labels[ROWS];
    for (size_t i = 0; i < ROWS; i++) labels[i] = i % 3 == 0;
    random_lookup random[2];
    make_batch(&random[first % 2], first);
    for (uint64_t number = first; number < end; number++) {
        random_lookup *this = &random[number % 2];
        ct_ticket *ticket = world->tickets[number % 2];
        const size_t rows = this->lookup.rows, floats = rows * this->stride;
        ct_store_count_others(world->store, s->others_bytes * number / BATCHES);
        if (!s->ahead || number == first) assert_ok(ct_store_prefetch(world->store, ticket, &this->lookup, &status));
        assert_ok(ct_store_acquire(world->store, ticket, &status));
        if (number + 1 < end) {
            make_batch(&random[(number + 1) % 2], number + 1);
            if (s->ahead)
                assert_ok(ct_store_prefetch(world->store, world->tickets[(number + 1) % 2], &random[(number + 1) % 2].lookup, &status));
        }
        *out = realloc(*out, (count + 2 * floats + 2 * rows) * sizeof(float));
        memset(*out + count, 0, (2 * floats + 2 * rows) * sizeof(float));
        ct_store_gather(world->store, ticket, 0, rows, false, *out + count, this->stride);
        count += floats;
        uint32_t counts[2 * ROWS];
        ct_store_gather_counts(world->store, ticket, 0, rows, 1, counts, counts + rows);
        for (size_t i = 0; i < 2 * rows; i++) (*out)[count++] = (float)counts[i];
        assert_ok(ct_store_apply(world->store, ticket, this->gradients, this->stride, labels, &status));
        ct_store_release(world->store, ticket);
        if (number % 5 == 4) {
            ct_ticket *reading;
            assert_ok(ct_ticket_create(world->store, &reading, &status));
            ct_lookup lookup = this->lookup;
            lookup.mode = CT_LOOKUP_READ;
            assert_ok(ct_store_prefetch(world->store, reading, &lookup, &status));
            assert_ok(ct_store_acquire(world->store, reading, &status));
            ct_store_gather(world->store, reading, 0, rows, false, *out + count, this->stride);
            count += floats;
            ct_store_release(world->store, reading);
            ct_ticket_destroy(reading);
        }
        const ct_table *table = &world->store->tables[0];
        if (table->outside_rows + table->outside_stubs > world->most_outside)
            world->most_outside = table->outside_rows + table->outside_stubs;
        random_lookup_deinit(this);
    }
    return count;
}

static void assert_same(const float *got, const float *wanted, size_t count, const char *what) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(&got[i], &wanted[i], sizeof(float)) != 0)
            fail_msg("%s: float %zu of %zu is %.9g, should be %.9g", what, i, count, (double)got[i], (double)wanted[i]);
}

static void compare(const setting *with) {
    setting without = *with;
    without.cache_bytes = without.others_bytes = 0;
    without.ahead = false;
    world a, b;
    float *wanted = NULL, *got = NULL;
    char wanted_hex[CT_DIGEST_HEX_BYTES], got_hex[CT_DIGEST_HEX_BYTES];
    world_init(&a, &without);
    const size_t count = train(&a, &without, 0, BATCHES, &wanted, 0);
    digest_hex(a.store, wanted_hex);
    world_init(&b, with);
    assert_int_equal(train(&b, with, 0, BATCHES, &got, 0), count);
    assert_same(got, wanted, count, with->ahead ? "one batch ahead" : "batch by batch");
    digest_hex(b.store, got_hex);
    assert_string_equal(got_hex, wanted_hex);
    ct_table_info x, y;
    ct_store_table_info(a.store, 0, &x);
    ct_store_table_info(b.store, 0, &y);
    assert_int_equal(y.rows, x.rows);
    assert_int_equal(y.stubs, x.stubs);
    assert_int_equal(y.expired, x.expired);
    assert_true(!with->expires || x.expired > 0);
    assert_true(b.most_outside > (x.rows + x.stubs) / 6); /* the limit was felt */
    const uint64_t most = with->cache_bytes - with->others_bytes * (BATCHES - 1) / BATCHES;
    if (y.bytes > most) fail_msg("the cache has %llu bytes; it may have %llu", (unsigned long long)y.bytes, (unsigned long long)most);
    world_deinit(&a);
    world_deinit(&b);
    free(wanted);
    free(got);
    assert_false(ct_path_exists(path_of("live")));
}

/* Every optimiser with every number of threads; of the other kinds each with each other, and each with each optimiser. */
static void test_same_bits(void **unused) {
    (void)unused;
    static const size_t threads[] = {1, 2, 8};
    for (unsigned number = 0; number < 48; number++) {
        const unsigned optimiser = number % 4, bits = number / 12 * 5 + number; /* of the table of kinds */
        setting setting = {.optimiser = (ct_row_optimiser)optimiser,
                           .threads = threads[number / 4 % 3],
                           .min_count = 1 + (bits & 1),
                           .target_stats = bits >> 1 & 1,
                           .expires = bits >> 2 & 1,
                           .halves = bits >> 3 & 1,
                           .ahead = bits >> 4 & 1,
                           .partition_bits = number % 3};
        printf("%s, %zu threads%s%s%s%s%s%s\n", ct_row_optimiser_name(setting.optimiser), setting.threads,
               setting.min_count > 1 ? ", admission" : "", setting.target_stats ? ", target statistics" : "",
               setting.expires ? ", expiry" : "", setting.halves ? ", fp16" : "", setting.ahead ? ", ahead" : "",
               number % 2 ? ", shrinking" : "");
        setting.cache_bytes = (optimiser < CT_ROW_ADAGRAD ? 80000u : 110000u) * (setting.min_count == 2 ? 5 : 3) / 3 *
                              (setting.target_stats || setting.expires ? 3 : 2) / 2;
        if (number % 2) {
            setting.others_bytes = setting.cache_bytes / 3;
            setting.cache_bytes = setting.cache_bytes / 3 * 4;
        }
        compare(&setting);
    }
}

int main(void) {
    root_create("tier_test");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    assert_ok(ct_folder_remove(root, &status));
    return failed;
}
