/* Expiry, and rows of floats and of halves, against the reference, in memory and over a database, across a save and a reopening, whatever
 * optimiser, admission, target statistics, number of threads and parts; and what compactions drop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "embedding_store/database.h"
#include "embedding_store/helper.h"
#include "embedding_store/live.h"
#include "embedding_store/tier_internal.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"
#include "tests/embedding_store/reference.h"

enum { ROWS = 50, BATCHES = 30, DIM = 11, COLUMNS = 4, KEYS = 1200, EXPIRE_DAYS = 2, FIRST_DAY = 20000 };

typedef struct setting {
    ct_row_optimiser optimiser;
    uint32_t min_count, partition_bits;
    size_t threads;
    uint64_t cache_bytes;  /* 0 = no limit */
    uint64_t reopen_bytes; /* limit of the second half */
    bool target_stats, ahead, half;
} setting;

static ct_table_spec spec_of(const setting *s) {
    return (ct_table_spec){.name = "ids",
                           .dim = DIM,
                           .optimiser = s->optimiser,
                           USUAL_STEPS,
                           .min_count = s->min_count,
                           .target_stats = s->target_stats,
                           .precision = s->half ? CT_ROW_FP16 : CT_ROW_FP32,
                           .expire_days = EXPIRE_DAYS};
}

/* Three batches a day; some days are left out, and now and then a batch of an earlier day comes. */
static uint32_t day_of(uint64_t number) {
    const uint32_t day = (uint32_t)(FIRST_DAY + number / 3 + (number > 12 ? 2 : 0) + (number > 20 ? 7 : 0));
    return number % 5 == 4 ? day - 4 : day;
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
    random->lookup.epoch = (uint32_t)(number / 13);
    random->lookup.day = day_of(number);
}

static void assert_gathered(ct_store *store, const ct_ticket *ticket, const reference *reference, const random_lookup *random,
                            const char *what) {
    const size_t rows = random->lookup.rows, floats = rows * random->stride;
    float *got = calloc(floats, sizeof(float)), *wanted = calloc(floats, sizeof(float));
    ct_store_gather(store, ticket, 0, rows, false, got, random->stride);
    reference_gather(reference, &random->lookup, wanted, random->stride);
    for (size_t i = 0; i < floats; i++)
        if (got[i] != wanted[i])
            fail_msg("%s, day %u of %u: float %zu is %.9g, should be %.9g", what, random->lookup.day, reference->day, i, (double)got[i],
                     (double)wanted[i]);
    free(got);
    free(wanted);
    if (!reference->spec.target_stats) return;
    for (size_t c = 0; c < COLUMNS; c++) {
        uint32_t seen[2][ROWS], should[2][ROWS];
        ct_store_gather_counts(store, ticket, 0, rows, c, seen[0], seen[1]);
        reference_gather_counts(reference, &random->lookup, c, should[0], should[1]);
        for (size_t r = 0; r < rows; r++)
            if (seen[0][r] != should[0][r] || seen[1][r] != should[1][r])
                fail_msg("%s: column %zu, row %zu: %u clicks of %u, should be %u of %u", what, c, r, seen[1][r], seen[0][r], should[1][r],
                         should[0][r]);
    }
}

static void read_batch(ct_store *store, reference *reference, uint64_t number) {
    random_lookup random;
    ct_ticket *ticket;
    make_batch(&random, number);
    random.lookup.mode = CT_LOOKUP_READ;
    random.lookup.day = UINT32_MAX - 1; /* reading does not ask for one */
    assert_ok(ct_ticket_create(store, &ticket, &status));
    assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    reference_resolve(reference, &random.lookup);
    assert_gathered(store, ticket, reference, &random, "reading");
    ct_store_release(store, ticket);
    ct_ticket_destroy(ticket);
    random_lookup_deinit(&random);
}

static void train(ct_store *store, reference *reference, const setting *s, uint64_t first, uint64_t end) {
    float labels[ROWS];
    ct_ticket *tickets[2];
    random_lookup random[2];
    for (size_t i = 0; i < ROWS; i++) labels[i] = i % 3 == 0;
    for (size_t i = 0; i < 2; i++) assert_ok(ct_ticket_create(store, &tickets[i], &status));
    make_batch(&random[first % 2], first);
    for (uint64_t number = first; number < end; number++) {
        random_lookup *this = &random[number % 2];
        ct_ticket *ticket = tickets[number % 2];
        if (!s->ahead || number == first) assert_ok(ct_store_prefetch(store, ticket, &this->lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        reference_acquire(reference, &this->lookup);
        if (number + 1 < end) {
            make_batch(&random[(number + 1) % 2], number + 1);
            if (s->ahead) assert_ok(ct_store_prefetch(store, tickets[(number + 1) % 2], &random[(number + 1) % 2].lookup, &status));
        }
        assert_gathered(store, ticket, reference, this, "training");
        assert_ok(ct_store_apply(store, ticket, this->gradients, this->stride, labels, &status));
        ct_store_release(store, ticket);
        reference_apply(reference, &this->lookup, this->gradients, this->stride, labels);
        if (number % 4 == 3) read_batch(store, reference, number - 3); /* of it, some has expired */
        ct_table_info info;
        ct_store_table_info(store, 0, &info);
        assert_int_equal(info.rows, reference_rows(reference));
        assert_int_equal(info.stubs, reference_stubs(reference));
        assert_int_equal(info.expired, reference->expired);
        random_lookup_deinit(this);
    }
    for (size_t i = 0; i < 2; i++) ct_ticket_destroy(tickets[i]);
}

/* Half of the batches, a snapshot, which is read as serving does, and the other half from there. */
static void compare(const setting *s, char out_hex[CT_DIGEST_HEX_BYTES]) {
    const ct_table_spec spec = spec_of(s);
    ct_pool *pool;
    ct_store *store;
    reference reference;
    char before[CT_DIGEST_HEX_BYTES], after[CT_DIGEST_HEX_BYTES];
    reference_init(&reference, &spec);
    assert_ok(ct_pool_create(s->threads, &pool, &status));
    assert_ok(ct_store_create_parted(&spec, 1, CT_STORE_TRAIN, s->partition_bits, ct_device_cpu(), pool, &store, &status));
    if (s->cache_bytes)
        assert_ok(ct_tier_create(store, &(const ct_tier_limits){.cache_bytes = s->cache_bytes}, path_of("live"), NULL, NULL, &status));
    train(store, &reference, s, 0, BATCHES / 2);
    assert_true(reference.expired > 20);
    digest_hex(store, before);
    assert_ok(ct_store_snapshot(store, path_of("snapshot"), &status));
    ct_store_destroy(store);
    static const uint64_t limits[] = {0, 9 << 20, (8 << 20) + 1 /* nothing is resident */};
    for (size_t i = 0; i < 3; i++) {
        const ct_store_limit reading = {.memory_bytes = limits[i]};
        assert_ok(ct_store_open_within(path_of("snapshot"), CT_STORE_READ, &reading, ct_device_cpu(), pool, &store, &status));
        for (uint64_t number = 0; number < BATCHES / 2; number++) read_batch(store, &reference, number);
        ct_table_info info;
        ct_store_table_info(store, 0, &info);
        assert_true(info.lookups > 0);
        if (i == 0) assert_int_equal(info.missed, 0);
        if (i == 2) assert_int_equal(info.missed, info.lookups + info.unknown);
        ct_store_destroy(store);
    }
    const ct_store_limit limit = {.memory_bytes = s->reopen_bytes, .live_folder = path_of("live")};
    assert_ok(ct_store_open_within(path_of("snapshot"), CT_STORE_TRAIN, &limit, ct_device_cpu(), pool, &store, &status));
    assert_int_equal(ct_store_table(store, 0)->expire_days, EXPIRE_DAYS);
    digest_hex(store, after);
    assert_string_equal(after, before);
    train(store, &reference, s, BATCHES / 2, BATCHES);
    digest_hex(store, out_hex);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
    reference_deinit(&reference);
    assert_ok(ct_folder_remove(path_of("snapshot"), &status));
}

static void test_same_bits(void **unused) {
    (void)unused;
    size_t number = 0;
    for (int optimiser = CT_ROW_ADAGRAD_ROWWISE; optimiser <= CT_ROW_ADAM; optimiser++) {
        for (uint32_t min_count = 1; min_count <= 3; min_count += 2) {
            const bool stats = (optimiser + (int)min_count / 2) % 2, half = (optimiser / 2 + (int)min_count / 2) % 2;
            char wanted[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
            const setting free = {.optimiser = (ct_row_optimiser)optimiser,
                                  .min_count = min_count,
                                  .partition_bits = 3,
                                  .threads = 2,
                                  .target_stats = stats,
                                  .half = half};
            compare(&free, wanted);
            static const size_t threads[] = {1, 2, 8};
            for (size_t i = 0; i < 2; i++, number++) {
                setting held = free;
                held.partition_bits = (uint32_t)(number % 3);
                held.threads = threads[number % 3];
                held.cache_bytes = 400000;
                held.reopen_bytes = number % 2 ? 0 : 40 << 20;
                held.ahead = number % 4 < 2;
                compare(&held, got);
                assert_string_equal(got, wanted);
            }
        }
    }
}

/* One key, by hand: N days later it is as it was, N + 1 days later it begins anew. */
static void test_by_hand(void **unused) {
    (void)unused;
    for (uint32_t later = EXPIRE_DAYS; later <= EXPIRE_DAYS + 1; later++) {
        const setting s = {.optimiser = CT_ROW_SGD, .min_count = 2};
        const ct_table_spec spec = spec_of(&s);
        ct_store *store;
        ct_ticket *ticket;
        assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
        assert_ok(ct_ticket_create(store, &ticket, &status));
        const uint64_t key = 77, keys[2] = {key, key};
        const ct_key_column column = {.keys = keys, .rare_key = ct_rare_key(1)};
        const float gradient[2 * DIM] = {1, 1, 1, 1, 1, 1, 1, 1};
        ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = 2, .block_rows = 128, .columns = &column, .column_count = 1, .day = FIRST_DAY};
        for (int batch = 0; batch < 4; batch++) {
            const int64_t rows[] = {1, 2, later > EXPIRE_DAYS ? 1 : 2, 2}; /* the rare row, and the key's from its second batch on */
            ct_table_info info;
            if (batch == 2) lookup.day = FIRST_DAY + later;
            assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
            assert_ok(ct_store_acquire(store, ticket, &status));
            assert_ok(ct_store_apply(store, ticket, gradient, DIM, NULL, &status));
            ct_store_release(store, ticket);
            ct_store_table_info(store, 0, &info);
            assert_int_equal(info.rows, rows[batch]);
            assert_int_equal(info.stubs, 2 - rows[batch]);
            assert_int_equal(info.expired, batch >= 2 && later > EXPIRE_DAYS);
        }
        ct_ticket_destroy(ticket);
        ct_store_destroy(store);
    }
}

/* Rows of another store: with their days where it has them; else they count as seen on the first day here. */
static void test_taken_rows(void **unused) {
    (void)unused;
    for (int with_days = 0; with_days < 2; with_days++) {
        for (int limited = 0; limited < 2; limited++) {
            const setting s = {.optimiser = CT_ROW_ADAGRAD, .min_count = 1};
            const ct_table_spec spec = spec_of(&s);
            ct_table_spec from = spec;
            from.expire_days = with_days ? 1 : 0;
            reference reference;
            ct_store *store;
            ct_store_taken taken;
            reference_init(&reference, &from);
            assert_ok(ct_store_create(&from, 1, ct_device_cpu(), NULL, &store, &status));
            train(store, &reference, &s, 0, 12);
            assert_ok(ct_store_snapshot(store, path_of("snapshot"), &status));
            ct_store_destroy(store);
            const ct_store_limit limit = {.memory_bytes = limited ? 40 << 20 : 0, .live_folder = path_of("live")};
            assert_ok(ct_store_create_within(&spec, 1, &limit, ct_device_cpu(), NULL, &store, &status));
            assert_ok(ct_store_take(store, 0, path_of("snapshot"), &taken, &status));
            assert_int_equal(taken.rows, reference_rows(&reference));
            reference.spec = spec;
            reference.expired = 0;
            for (size_t i = 0; i < reference.row_count && !with_days; i++) reference.rows[i].day = day_of(12);
            train(store, &reference, &s, 12, BATCHES);
            assert_true(reference.expired > 100);
            reference_deinit(&reference);
            ct_store_destroy(store);
            assert_ok(ct_folder_remove(path_of("snapshot"), &status));
        }
    }
}

/* Eight days of one record each, and one that does not expire; a day's number stands at offset 3. */
static void test_compaction(void **unused) {
    (void)unused;
    enum { RECORD_BYTES = 9, DAYS = 8 };
    ct_database database;
    const char *names[] = {"ids"}, *path = path_of("new.sst");
    char *error = NULL;
    assert_ok(ct_folder_create(path_of("live"), &status));
    assert_ok(ct_database_open(&database, path_of("live"), CT_DATABASE_LIVE, NULL, names, 1, &status));
    rocksdb_envoptions_t *environment = rocksdb_envoptions_create();
    rocksdb_sstfilewriter_t *writer = rocksdb_sstfilewriter_create(environment, database.options);
    rocksdb_sstfilewriter_open(writer, path, &error);
    for (uint32_t i = 0; i <= DAYS && !error; i++) {
        char key[8], record[RECORD_BYTES] = "";
        ct_put_be64(key, i);
        ct_put_le32(record + 3, i == DAYS ? CT_DAY_NEVER : FIRST_DAY + i);
        rocksdb_sstfilewriter_put(writer, key, sizeof key, record, sizeof record, &error);
    }
    if (!error) rocksdb_sstfilewriter_finish(writer, &error);
    assert_null(error);
    rocksdb_sstfilewriter_destroy(writer);
    rocksdb_envoptions_destroy(environment);
    assert_ok(ct_database_ingest(&database, path_of("live"), 0, &path, 1, &status));
    for (uint32_t oldest = 0; oldest <= FIRST_DAY + 5; oldest += FIRST_DAY + 5) {
        atomic_store(&database.expiry[0].day_offset, 3);
        atomic_store(&database.expiry[0].oldest_day, oldest);
        rocksdb_compactoptions_t *options = rocksdb_compactoptions_create();
        rocksdb_compactoptions_set_bottommost_level_compaction(options, 2 /* force: there is one file, which would be moved */);
        rocksdb_compact_range_cf_opt(database.db, database.families[1], options, NULL, 0, NULL, 0);
        rocksdb_compactoptions_destroy(options);
        uint64_t left = 0;
        rocksdb_readoptions_t *read = rocksdb_readoptions_create();
        rocksdb_iterator_t *iterator = rocksdb_create_iterator_cf(database.db, read, database.families[1]);
        for (rocksdb_iter_seek_to_first(iterator); rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
            size_t bytes;
            left |= UINT64_C(1) << ct_get_be64(rocksdb_iter_key(iterator, &bytes));
        }
        rocksdb_iter_destroy(iterator);
        rocksdb_readoptions_destroy(read);
        assert_int_equal(left, oldest ? 0x1e0 /* days 5, 6, 7, and the one without */ : 0x1ff);
    }
    ct_database_close(&database);
    assert_ok(ct_folder_remove(path_of("live"), &status));
}

typedef struct records {
    char bytes[4096][CT_RECORD_MAX_BYTES];
    size_t sizes[4096], count;
    uint64_t keys[4096];
} records;

static ct_code list_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *unused) {
    records *list = context;
    (void)unused;
    assert_true(number < 4096);
    memcpy(list->bytes[number], record, bytes);
    list->sizes[number] = bytes;
    list->keys[number] = key;
    list->count = number + 1;
    return CT_OK;
}

/* Puts all records of the database into it once more, twice, so that it compacts, and waits until it has. Returns how many are left. */
static size_t compacted(ct_live *live, records *list) {
    list->count = 0;
    assert_ok(ct_live_scan(live, 0, list_record, list, &status));
    for (int i = 0; i < 2; i++) {
        assert_ok(ct_live_begin(live, 0, &status));
        for (size_t n = 0; n < list->count; n++) assert_ok(ct_live_put(live, list->keys[n], list->bytes[n], list->sizes[n], &status));
        assert_ok(ct_live_end(live, &status));
    }
    while (ct_live_compacts(live, 0)) (void)nanosleep(&(const struct timespec){0, 1000000}, NULL); /* RocksDB tells nobody */
    list->count = 0;
    assert_ok(ct_live_scan(live, 0, list_record, list, &status));
    return list->count;
}

static void wait_job(void *context, ct_failure *failure) {
    char byte;
    (void)failure;
    if (read(*(const int *)context, &byte, 1) != 1) abort();
}

/* A snapshot that is still to be linked, while the log comes to a day on which all that it has expires, and the database is compacted. */
static void test_compaction_before_a_snapshot_is_linked(void **unused) {
    (void)unused;
    const setting s = {.optimiser = CT_ROW_SGD, .min_count = 2};
    const ct_table_spec spec = spec_of(&s);
    ct_tuning tuning = ct_tuning_ours;
    tuning.runs = 2;
    reference reference;
    ct_store *store, *opened;
    ct_snapshot *snapshot;
    char before[CT_DIGEST_HEX_BYTES], after[CT_DIGEST_HEX_BYTES];
    int gate[2];
    uint64_t job;
    records *list = calloc(1, sizeof *list);
    assert_non_null(list);
    reference_init(&reference, &spec);
    assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
    assert_ok(
        ct_tier_create(store, &(const ct_tier_limits){.cache_bytes = 400000, .tuning = &tuning}, path_of("live"), NULL, NULL, &status));
    train(store, &reference, &s, 0, 6);
    ct_tier *tier = store->tier;
    digest_hex(store, before);
    assert_ok(ct_tier_flush(tier, &status));
    assert_int_equal(pipe(gate), 0);
    assert_ok(ct_helper_submit(tier->helper, wait_job, &gate[0], &job, &status));
    assert_ok(ct_snapshot_begin(store, path_of("snapshot"), &snapshot, &status));
    assert_ok(ct_expire(store, &store->tables[0], FIRST_DAY + 100, &status));
    const size_t all = compacted(tier->live, list);
    assert_true(all > 100);
    assert_int_equal(write(gate[1], "", 1), 1);
    assert_ok(ct_snapshot_write(snapshot, &status));
    ct_snapshot_end(snapshot);
    assert_ok(ct_store_open(path_of("snapshot"), CT_STORE_TRAIN, ct_device_cpu(), NULL, &opened, &status));
    digest_hex(opened, after);
    assert_string_equal(after, before);
    ct_store_destroy(opened);
    /* The next batch tells compactions. */
    random_lookup random;
    ct_ticket *ticket;
    make_batch(&random, 6);
    assert_ok(ct_ticket_create(store, &ticket, &status));
    assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    assert_ok(ct_store_apply(store, ticket, random.gradients, random.stride, NULL, &status));
    ct_store_release(store, ticket);
    ct_ticket_destroy(ticket);
    random_lookup_deinit(&random);
    assert_true(compacted(tier->live, list) < all / 2);
    (void)close(gate[0]);
    (void)close(gate[1]);
    ct_store_destroy(store);
    reference_deinit(&reference);
    free(list);
    assert_ok(ct_folder_remove(path_of("snapshot"), &status));
}

/* Rows of another store and of another precision: each value becomes the nearest half, or what the half says. */
static void test_taken_halves(void **unused) {
    (void)unused;
    for (int halves = 0; halves < 2; halves++) {
        for (int limited = 0; limited < 2; limited++) {
            const setting from = {.optimiser = CT_ROW_SGD, .min_count = 1, .half = halves},
                          to = {.optimiser = CT_ROW_SGD, .min_count = 1, .half = !halves};
            const ct_table_spec from_spec = spec_of(&from), to_spec = spec_of(&to);
            reference reference;
            ct_store *store;
            ct_store_taken taken;
            reference_init(&reference, &from_spec);
            assert_ok(ct_store_create(&from_spec, 1, ct_device_cpu(), NULL, &store, &status));
            train(store, &reference, &from, 0, 3);
            assert_ok(ct_store_snapshot(store, path_of("snapshot"), &status));
            ct_store_destroy(store);
            const ct_store_limit limit = {.memory_bytes = limited ? 40 << 20 : 0, .live_folder = path_of("live")};
            assert_ok(ct_store_create_within(&to_spec, 1, &limit, ct_device_cpu(), NULL, &store, &status));
            assert_ok(ct_store_take(store, 0, path_of("snapshot"), &taken, &status));
            for (size_t i = 0; i < reference.row_count && !halves; i++)
                for (size_t k = 0; k < DIM; k++) reference.rows[i].values[k] = reference_round_half(reference.rows[i].values[k], 4096);
            reference.spec = to_spec;
            for (uint64_t number = 0; number < 3; number++) read_batch(store, &reference, number);
            reference_deinit(&reference);
            ct_store_destroy(store);
            assert_ok(ct_folder_remove(path_of("snapshot"), &status));
        }
    }
}

int main(void) {
    root_create("expire_test");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_hand),    cmocka_unit_test(test_same_bits),
                                       cmocka_unit_test(test_taken_rows), cmocka_unit_test(test_taken_halves),
                                       cmocka_unit_test(test_compaction), cmocka_unit_test(test_compaction_before_a_snapshot_is_linked)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    assert_ok(ct_folder_remove(root, &status));
    return failed;
}
