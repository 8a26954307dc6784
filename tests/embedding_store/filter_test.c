/* Admission by a filter: where it has room it admits, bit for bit, what exact counts admit (the reference), in memory and over a database,
 * for any number of threads and parts, across a save; its error is the formula's; counts live as long as filter.h says; deltas bring it;
 * a damaged file is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "embedding_store/delta.h"
#include "embedding_store/filter.h"
#include "embedding_store/sorted.h"
#include "embedding_store/tier.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"
#include "tests/embedding_store/reference.h"

enum { ROWS = 60, BATCHES = 24, DIM = 5, COLUMNS = 4, KEYS = 900, FIRST_DAY = 20000, EXPIRE_DAYS = 2 };

typedef struct setting {
    uint32_t partition_bits;
    size_t threads;
    uint64_t cache_bytes, reopen_bytes; /* 0 = no limit */
    bool ahead;
    uint32_t expire_days;
} setting;

static ct_table_spec spec_of(uint32_t filter_mib, uint32_t expire_days) {
    return (ct_table_spec){.name = "ids",
                           .dim = DIM,
                           .optimiser = CT_ROW_ADAGRAD_ROWWISE,
                           USUAL_STEPS,
                           .min_count = 3,
                           .expire_days = expire_days,
                           .filter_mib = filter_mib};
}

static uint32_t day_of(uint64_t number) { return (uint32_t)(FIRST_DAY + number / 3 + (number > 12 ? 2 : 0) + (number > 18 ? 5 : 0)); }

static void make_batch(random_lookup *random, uint64_t number) {
    const random_lookup_options options = {
        .rows = ROWS, .block_rows = 16, .columns = COLUMNS, .keys = KEYS, .rare = true, .dim = DIM, .drop_rate = 0.05, .seed = 5};
    random_lookup_init(random, &options, number);
    random->lookup.day = day_of(number);
}

static void learn(ct_store *store, ct_ticket *ticket, const random_lookup *batch) {
    assert_ok(ct_store_apply(store, ticket, batch->gradients, batch->stride, NULL, &status));
    ct_store_release(store, ticket);
}

static void train_alone(ct_store *store, uint64_t first, uint64_t end) {
    ct_ticket *ticket;
    random_lookup batch;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    for (uint64_t number = first; number < end; number++) {
        make_batch(&batch, number);
        assert_ok(ct_store_prefetch(store, ticket, &batch.lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        learn(store, ticket, &batch);
        random_lookup_deinit(&batch);
    }
    ct_ticket_destroy(ticket);
}

static void compare_batch(ct_store *store, const ct_ticket *ticket, reference *reference, const random_lookup *batch) {
    static float got[ROWS * 64], wanted[ROWS * 64];
    ct_table_info info;
    assert_true(batch->stride <= 64);
    reference_acquire(reference, &batch->lookup);
    memset(got, 0, sizeof got);
    memset(wanted, 0, sizeof wanted);
    ct_store_gather(store, ticket, 0, ROWS, false, got, batch->stride);
    reference_gather(reference, &batch->lookup, wanted, batch->stride);
    assert_memory_equal(got, wanted, ROWS * batch->stride * sizeof *got);
    ct_store_table_info(store, 0, &info);
    assert_int_equal(info.rows, reference_rows(reference));
    assert_int_equal(info.stubs, 0);
}

/* reference: NULL = rows that expire are counted another way. */
static void train(ct_store *store, reference *reference, const setting *s, uint64_t first, uint64_t end) {
    ct_ticket *tickets[2];
    random_lookup batches[2];
    for (size_t i = 0; i < 2; i++) assert_ok(ct_ticket_create(store, &tickets[i], &status));
    make_batch(&batches[first % 2], first);
    for (uint64_t number = first; number < end; number++) {
        random_lookup *this = &batches[number % 2], *next = &batches[(number + 1) % 2];
        ct_ticket *ticket = tickets[number % 2];
        if (!s->ahead || number == first) assert_ok(ct_store_prefetch(store, ticket, &this->lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        if (number + 1 < end) make_batch(next, number + 1);
        if (number + 1 < end && s->ahead) assert_ok(ct_store_prefetch(store, tickets[(number + 1) % 2], &next->lookup, &status));
        if (reference) compare_batch(store, ticket, reference, this);
        learn(store, ticket, this);
        if (reference) reference_apply(reference, &this->lookup, this->gradients, this->stride, NULL);
        random_lookup_deinit(this);
    }
    for (size_t i = 0; i < 2; i++) ct_ticket_destroy(tickets[i]);
}

static void run(const setting *s, char out_hex[CT_DIGEST_HEX_BYTES]) {
    const ct_table_spec spec = spec_of(16 /* small keys are all of one shard, and shall not meet */, s->expire_days);
    ct_table_spec exact = spec;
    exact.filter_mib = 0;
    ct_pool *pool;
    ct_store *store;
    reference reference;
    char before[CT_DIGEST_HEX_BYTES], after[CT_DIGEST_HEX_BYTES];
    reference_init(&reference, &exact);
    struct reference *with = s->expire_days ? NULL : &reference;
    assert_ok(ct_pool_create(s->threads, &pool, &status));
    assert_ok(ct_store_create_parted(&spec, 1, CT_STORE_TRAIN, s->partition_bits, ct_device_cpu(), pool, &store, &status));
    if (s->cache_bytes)
        assert_ok(ct_tier_create(store, &(const ct_tier_limits){.cache_bytes = s->cache_bytes}, path_of("live"), NULL, NULL, &status));
    train(store, with, s, 0, BATCHES / 2);
    digest_hex(store, before);
    assert_ok(ct_store_snapshot(store, path_of("snapshot"), &status));
    ct_store_destroy(store);
    assert_ok(ct_store_open(path_of("snapshot"), CT_STORE_LOOK, ct_device_cpu(), pool, &store, &status));
    digest_hex(store, after);
    assert_string_equal(after, before);
    ct_store_destroy(store);
    const ct_store_limit limit = {.memory_bytes = s->reopen_bytes, .live_folder = path_of("live")};
    assert_ok(ct_store_open_within(path_of("snapshot"), CT_STORE_TRAIN, &limit, ct_device_cpu(), pool, &store, &status));
    digest_hex(store, after);
    assert_string_equal(after, before);
    train(store, with, s, BATCHES / 2, BATCHES);
    digest_hex(store, out_hex);
    ct_table_info info;
    ct_store_table_info(store, 0, &info);
    assert_true(info.rows > 50);
    if (s->expire_days) assert_true(info.expired > 20);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
    reference_deinit(&reference);
    assert_ok(ct_folder_remove(path_of("snapshot"), &status));
}

static void test_same_bits(void **unused) {
    (void)unused;
    for (uint32_t expire_days = 0; expire_days <= EXPIRE_DAYS; expire_days += EXPIRE_DAYS) {
        static const setting settings[] = {{.partition_bits = 0, .threads = 1},
                                           {.partition_bits = 3, .threads = 2, .cache_bytes = 150000, .ahead = true},
                                           {.partition_bits = 10, .threads = 8, .reopen_bytes = 80 << 20},
                                           {.partition_bits = 2, .threads = 8, .cache_bytes = 150000, .reopen_bytes = 80 << 20}};
        char wanted[CT_DIGEST_HEX_BYTES] = "", got[CT_DIGEST_HEX_BYTES];
        for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
            setting s = settings[i];
            s.expire_days = expire_days;
            run(&s, got);
            if (i == 0) memcpy(wanted, got, sizeof wanted);
            assert_string_equal(got, wanted);
        }
    }
}

/* Keys come from a hash, as tokens' keys do. */
static uint64_t hashed(uint64_t number) { return ct_hash64(&number, sizeof number, 99); }

/* error(n) of filter.h in plain words, of a filter of 1 MiB: as many keys as lie in one of its 16,384 lines are Poisson's. */
static double formula(double keys) {
    const double load = keys / (1 << 14);
    double chance = exp(-load), error = 0;
    for (int i = 0; i < 300; i++) {
        error += chance * pow(1 - pow(31.0 / 32, i), 4);
        chance *= load / (i + 1);
    }
    return error;
}

/* The chance that a new key is counted is the formula's, and the filter's own measure says so too: at 10 and at 4 cells for each key. */
static void test_error(void **unused) {
    (void)unused;
    for (uint32_t cells = 4; cells <= 10; cells += 6) {
        enum { PROBES = 200000 };
        const ct_table_spec spec = spec_of(1, 0);
        const uint64_t keys = (2 << 20) / cells;
        ct_filter *filter;
        uint64_t wrong = 0;
        assert_ok(ct_filter_create(&spec, ct_device_cpu(), &filter, &status));
        assert_int_equal(ct_filter_bytes(filter), 1 << 20);
        for (uint64_t i = 0; i < keys; i++) ct_filter_raise(filter, hashed(i), 1);
        for (uint64_t i = 0; i < keys; i++) assert_true(ct_filter_count(filter, hashed(i)) == 1); /* raised alone: never above 1 */
        for (uint64_t i = 0; i < PROBES; i++) wrong += ct_filter_count(filter, hashed(keys + i)) > 0;
        const double expected = formula((double)keys), sigma = sqrt(expected * (1 - expected) / PROBES);
        assert_true(fabs((double)wrong / PROBES - expected) < 5 * sigma + 0.01 * expected);
        assert_true(fabs(ct_filter_measure(filter).error - expected) < 0.02 * expected);
        ct_filter_destroy(filter);
    }
}

/* Against exact counts: three of four keys come once, the others five times. Nothing that exact counts admit is missing, and no larger
 * share of keys than the formula's gets a row too early. */
static void test_too_early(void **unused) {
    (void)unused;
    enum { BATCH = 4096 };
    ct_table_spec spec = spec_of(1, 0);
    spec.dim = 1;
    spec.min_count = 2;
    const uint64_t distinct = (2 << 20) / 8, occurrences = distinct * 2;
    uint64_t *keys = malloc(BATCH * sizeof *keys), early = 0;
    float *gradients = calloc(BATCH, sizeof *gradients);
    uint8_t *counts = calloc(distinct, 1); /* exact, before the batch */
    ct_store *store;
    ct_ticket *ticket;
    ct_filter_info info;
    assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
    assert_ok(ct_ticket_create(store, &ticket, &status));
    for (uint64_t first = 0; first < occurrences; first += BATCH) {
        uint64_t numbers[BATCH];
        for (uint64_t i = 0; i < BATCH; i++) {
            const uint64_t at = (first + i) * 3 % occurrences;                  /* 3 and a power of two: each of them once, spread out */
            numbers[i] = at < distinct ? at : (at - distinct) % (distinct / 4); /* the first quarter: four times more */
            keys[i] = hashed(numbers[i]);
        }
        const ct_key_column column = {.keys = keys, .rare_key = ct_rare_key(1)};
        const ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = BATCH, .block_rows = 256, .columns = &column, .column_count = 1};
        assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        for (uint64_t i = 0; i < BATCH; i++) {
            uint8_t *count = &counts[numbers[i]];
            const bool row = ct_table_values(ticket->table, keys[i]) != NULL, exact = (*count & 0x7f) >= spec.min_count;
            if (exact) assert_true(row);
            if (row && !exact && !(*count & 0x80)) {
                early++;
                *count |= 0x80;
            }
        }
        for (uint64_t i = 0; i < BATCH; i++) counts[numbers[i]]++;
        assert_ok(ct_store_apply(store, ticket, gradients, 1, NULL, &status));
        ct_store_release(store, ticket);
    }
    ct_store_filter_info(store, 0, &info);
    const double bound = formula((double)distinct), share = (double)early / (double)distinct;
    print_message("admitted too early: %.4f of the keys; the bound at 8 cells for each key is %.4f, the filter's own error %.4f\n", share,
                  bound, info.error);
    assert_true(share > 0 && share <= bound);
    assert_true(info.error <= bound * 1.02 && info.fill > 0 && info.fill < 1);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    free(keys);
    free(gradients);
    free(counts);
}

/* Keys of one shard, more than 60 to a line, whose cells meet all the time: the order of a batch's rows does not matter. */
static void test_order(void **unused) {
    (void)unused;
    enum { KEYS_A_BATCH = 1000 };
    ct_table_spec spec = spec_of(1, 0);
    spec.dim = 1;
    spec.min_count = 4;
    ct_sum sums[2];
    ct_table_info infos[2];
    for (int reversed = 0; reversed < 2; reversed++) {
        uint64_t keys[KEYS_A_BATCH];
        float gradients[KEYS_A_BATCH] = {0};
        ct_store *store;
        ct_ticket *ticket;
        assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
        assert_ok(ct_ticket_create(store, &ticket, &status));
        for (uint64_t batch = 0; batch < 6; batch++) {
            for (uint64_t i = 0; i < KEYS_A_BATCH; i++)
                keys[reversed ? KEYS_A_BATCH - 1 - i : i] = hashed(i * 7919 % 700 + batch * 300) >> 10;
            const ct_key_column column = {.keys = keys, .rare_key = ct_rare_key(1)};
            const ct_lookup lookup = {
                .mode = CT_LOOKUP_TRAIN, .rows = KEYS_A_BATCH, .block_rows = 256, .columns = &column, .column_count = 1};
            assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
            assert_ok(ct_store_acquire(store, ticket, &status));
            assert_ok(ct_store_apply(store, ticket, gradients, 1, NULL, &status));
            ct_store_release(store, ticket);
        }
        sums[reversed] = ct_filter_sum(store->tables[0].filter, NULL);
        ct_store_table_info(store, 0, &infos[reversed]);
        ct_ticket_destroy(ticket);
        ct_store_destroy(store);
    }
    assert_memory_equal(&sums[0], &sums[1], sizeof *sums);
    assert_true(infos[0].rows > 10);
    assert_int_equal(infos[0].rows, infos[1].rows);
}

static int64_t see(ct_store *store, ct_ticket *ticket, uint64_t key, uint32_t day) {
    const float gradient[DIM] = {1};
    const ct_key_column column = {.keys = &key, .rare_key = ct_rare_key(1)};
    const ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = 1, .block_rows = 128, .columns = &column, .column_count = 1, .day = day};
    assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    const bool row = ct_table_values(ticket->table, key) != NULL;
    assert_ok(ct_store_apply(store, ticket, gradient, DIM, NULL, &status));
    ct_store_release(store, ticket);
    return row;
}

/* min_count 3, periods of 2 days from day 0 on. A key that comes every other day moves along and gets its row; after more than two periods
 * without it nothing is left, whatever the gap. */
static void test_periods(void **unused) {
    (void)unused;
    static const struct {
        uint32_t days[5];
        bool rows[5];
    } cases[] = {{{0, 0, 0, 0, 0}, {false, false, false, true, true}},     {{0, 2, 4, 6, 8}, {false, false, false, true, true}},
                 {{1, 3, 5, 7, 8}, {false, false, false, true, true}},     {{0, 0, 0, 3, 3}, {false, false, false, true, true}},
                 {{0, 0, 0, 4, 4}, {false, false, false, false, false}},   {{1, 1, 1, 4, 4}, {false, false, false, false, false}},
                 {{0, 0, 0, 99, 99}, {false, false, false, false, false}}, {{1, 1, 2, 5, 5}, {false, false, false, true, true}}};
    const ct_table_spec spec = spec_of(1, EXPIRE_DAYS);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_store *store;
        ct_ticket *ticket;
        assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
        assert_ok(ct_ticket_create(store, &ticket, &status));
        (void)see(store, ticket, 4711, FIRST_DAY); /* the log begins */
        for (size_t n = 0; n < 5; n++)
            if (see(store, ticket, 77, FIRST_DAY + cases[i].days[n]) != cases[i].rows[n]) fail_msg("case %zu: time %zu", i, n);
        ct_ticket_destroy(ticket);
        ct_store_destroy(store);
    }
}

static void write_delta(ct_store *store, const char *path) {
    ct_delta_writer *writer;
    int64_t records;
    uint64_t bytes;
    json_t *facts = json_object();
    assert_ok(ct_delta_writer_open(path, &writer, &status));
    assert_ok(ct_delta_writer_changes(writer, store, &records, &status));
    assert_ok(ct_delta_writer_commit(writer, facts, &bytes, &status));
    json_decref(facts);
    assert_true(bytes < 1 << 19); /* what has changed, not the filter */
}

static void flip(const char *path, long at) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
}

/* A snapshot and its deltas are the store of that moment, digest for digest, across periods and within a limit. */
static void test_deltas(void **unused) {
    (void)unused;
    for (int limited = 0; limited < 2; limited++) {
        const ct_table_spec spec = spec_of(1, EXPIRE_DAYS);
        const ct_store_limit limit = {.memory_bytes = limited ? 42 << 20 : 0, .live_folder = path_of("live")};
        ct_store *store, *follower;
        ct_delta *delta;
        char wanted[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
        assert_ok(ct_store_create_within(&spec, 1, &limit, ct_device_cpu(), NULL, &store, &status));
        train_alone(store, 0, 5);
        assert_ok(ct_store_track_changes(store, &status));
        assert_ok(ct_store_snapshot(store, path_of("snapshot"), &status));
        assert_ok(ct_store_open(path_of("snapshot"), CT_STORE_TRAIN, ct_device_cpu(), NULL, &follower, &status));
        for (uint64_t number = 5; number < BATCHES; number += 4) {
            train_alone(store, number, number + 4 < BATCHES ? number + 4 : BATCHES);
            write_delta(store, path_of("delta.ctd"));
            digest_hex(store, wanted);
            assert_ok(ct_delta_open(path_of("delta.ctd"), &delta, &status));
            assert_ok(ct_delta_check(delta, &status));
            assert_ok(ct_store_apply_delta(follower, delta, &status));
            ct_delta_close(delta);
            digest_hex(follower, got);
            assert_string_equal(got, wanted);
        }
        /* A flipped bit in a line of the filter. */
        train_alone(store, 0, 1);
        write_delta(store, path_of("delta.ctd"));
        assert_ok(ct_delta_open(path_of("delta.ctd"), &delta, &status));
        const json_t *sections = json_object_get(ct_delta_description(delta), "sections");
        const json_t *last = json_array_get(sections, json_array_size(sections) - 1);
        assert_true(json_is_true(json_object_get(last, "filter")));
        flip(path_of("delta.ctd"), (long)json_integer_value(json_object_get(last, "offset")) + 40);
        assert_int_equal(ct_delta_check(delta, &status), CT_CORRUPT);
        ct_delta_close(delta);
        ct_store_destroy(follower);
        ct_store_destroy(store);
        assert_ok(ct_folder_remove(path_of("snapshot"), &status));
    }
}

static void refuse_open(ct_code wanted, const char *words) {
    ct_store *store;
    const ct_code code = ct_store_open(path_of("snapshot"), CT_STORE_TRAIN, ct_device_cpu(), NULL, &store, &status);
    if (code != wanted || !strstr(status.message, "table-0.filter") || !strstr(status.message, words))
        fail_msg("code %d: %s", code, status.message);
    status = (ct_status)CT_STATUS_INIT;
}

static void test_damaged(void **unused) {
    (void)unused;
    const ct_table_spec spec = spec_of(1, 0);
    ct_store *store;
    char *data;
    size_t bytes;
    assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
    train_alone(store, 0, 2);
    assert_ok(ct_store_snapshot(store, path_of("snapshot"), &status));
    ct_store_destroy(store);
    char path[1024];
    (void)snprintf(path, sizeof path, "%s", path_of("snapshot/table-0.filter"));
    assert_ok(ct_file_read(path, 2 << 20, &data, &bytes, &status));
    static const long places[] = {0, 8, 16, 5000, -1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        flip(path, places[i]);
        refuse_open(CT_CORRUPT, i < 3 ? "is no filter" : "not what was written");
        assert_ok(ct_file_write(path, data, bytes, &status));
    }
    assert_ok(ct_file_write(path, data, bytes - 1, &status));
    refuse_open(CT_CORRUPT, "1048607 bytes, and a filter of 1 MiB, as store.json says, has 1048608"); /* before there is memory for it */
    assert_ok(ct_file_write(path, data, 100, &status));
    refuse_open(CT_CORRUPT, "100 bytes");
    assert_int_equal(remove(path), 0);
    refuse_open(CT_NOT_FOUND, "");
    free(data);
    assert_ok(ct_folder_remove(path_of("snapshot"), &status));
}

static void test_refusals(void **unused) {
    (void)unused;
    ct_store *store;
    for (int i = 0; i < 4; i++) {
        ct_table_spec spec = spec_of(i == 3 ? CT_TABLE_MAX_FILTER_MIB + 1 : 1, 0);
        if (i == 0) spec.min_count = 1;
        if (i == 1) spec.min_count = CT_FILTER_MOST_COUNT + 1;
        if (i == 2) spec.target_stats = true;
        assert_int_equal(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status), CT_INVALID);
    }
    /* A limit covers the filter, and a snapshot's copy of it: with 16 MiB more, 32 MiB more are needed. */
    uint64_t least[2];
    for (int i = 0; i < 2; i++) {
        const ct_table_spec spec = spec_of(i ? 17 : 1, 0);
        const ct_store_limit limit = {.memory_bytes = 8 << 20, .live_folder = path_of("live")};
        ct_ticket *ticket;
        random_lookup batch;
        make_batch(&batch, 0);
        assert_ok(ct_store_create_within(&spec, 1, &limit, ct_device_cpu(), NULL, &store, &status));
        assert_ok(ct_ticket_create(store, &ticket, &status));
        assert_int_equal(ct_store_prefetch(store, ticket, &batch.lookup, &status), CT_INVALID);
        least[i] = ct_store_least_memory(store);
        random_lookup_deinit(&batch);
        ct_ticket_destroy(ticket);
        ct_store_destroy(store);
    }
    assert_in_range(least[1] - least[0], 32 << 20, 34 << 20); /* and RocksDB gets its part of a larger limit */
    status = (ct_status)CT_STATUS_INIT;
}

/* Rows of a store that counted exactly: its stubs are not taken, in memory or within a limit. */
static void test_taken_rows(void **unused) {
    (void)unused;
    for (int limited = 0; limited < 2; limited++) {
        const ct_table_spec exact = spec_of(0, 0), spec = spec_of(1, 0);
        const ct_store_limit limit = {.memory_bytes = limited ? 42 << 20 : 0, .live_folder = path_of("live")};
        ct_store *store;
        ct_store_taken taken;
        ct_table_info info;
        assert_ok(ct_store_create(&exact, 1, ct_device_cpu(), NULL, &store, &status));
        train_alone(store, 0, 12);
        ct_store_table_info(store, 0, &info);
        assert_true(info.stubs > 0);
        assert_ok(ct_store_snapshot(store, path_of("snapshot"), &status));
        ct_store_destroy(store);
        assert_ok(ct_store_create_within(&spec, 1, &limit, ct_device_cpu(), NULL, &store, &status));
        assert_ok(ct_store_take(store, 0, path_of("snapshot"), &taken, &status));
        assert_int_equal(taken.rows, info.rows);
        assert_int_equal(taken.stubs, 0);
        train_alone(store, 12, 14);
        ct_store_destroy(store);
        assert_ok(ct_folder_remove(path_of("snapshot"), &status));
    }
}

int main(void) {
    root_create("filter_test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_error),    cmocka_unit_test(test_too_early),
        cmocka_unit_test(test_order),     cmocka_unit_test(test_periods),  cmocka_unit_test(test_deltas),
        cmocka_unit_test(test_damaged),   cmocka_unit_test(test_refusals), cmocka_unit_test(test_taken_rows)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    assert_ok(ct_folder_remove(root, &status));
    return failed;
}
