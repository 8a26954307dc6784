/* Ordered target statistics: against the reference over epochs, for any number of threads and partitions, in training and reading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/random.h"
#include "embedding_store/store_internal.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"
#include "tests/embedding_store/reference.h"

enum { MOST_ROWS = 64, COLUMNS = 5, DIM = 4 };

static ct_table_spec counted(uint32_t min_count) {
    return (ct_table_spec){.name = "ids",
                           .kind = CT_TABLE_TRAINED,
                           .dim = DIM,
                           .learning_rate = 0.1f,
                           .initial_accumulator = 0.1f,
                           .first_value_scale = 0.1f,
                           .min_count = min_count,
                           .target_stats = true};
}

static void fill_labels(float *labels, size_t rows, uint64_t number) {
    for (size_t r = 0; r < rows; r++) labels[r] = (float)(ct_random_u64(5, CT_PLACE_TEST, 9, number * 1000 + r, 0) % 3 == 0);
}

typedef struct counts {
    uint32_t impressions[MOST_ROWS], clicks[MOST_ROWS];
} counts;

/* In pieces of odd sizes, as threads would. */
static void gather_pieces(const ct_store *store, const ct_ticket *ticket, size_t rows, size_t column, counts *out) {
    memset(out, 0xa5, sizeof *out);
    for (size_t first = 0, piece = 1; first < rows; first += piece, piece = piece * 2 + 1) {
        if (piece > rows - first) piece = rows - first;
        ct_store_gather_counts(store, ticket, first, piece, column, &out->impressions[first], &out->clicks[first]);
    }
}

/* Of the ticket and of the reference; returns the sum of clicks. */
static uint64_t assert_counts(const ct_store *store, const ct_ticket *ticket, const reference *reference, const ct_lookup *lookup,
                              const char *what) {
    uint64_t clicks = 0;
    for (size_t c = 0; c < lookup->column_count; c++) {
        counts got, wanted;
        gather_pieces(store, ticket, lookup->rows, c, &got);
        reference_gather_counts(reference, lookup, c, wanted.impressions, wanted.clicks);
        for (size_t r = 0; r < lookup->rows; r++) {
            if (got.impressions[r] != wanted.impressions[r] || got.clicks[r] != wanted.clicks[r])
                fail_msg("%s: column %zu, row %zu: %u clicks of %u, should be %u of %u", what, c, r, got.clicks[r], got.impressions[r],
                         wanted.clicks[r], wanted.impressions[r]);
            clicks += got.clicks[r];
        }
    }
    return clicks;
}

typedef struct setting {
    uint32_t min_count, partition_bits;
    size_t threads, rows;
    double drop_rate;
    bool plain, rare;
} setting;

static random_lookup_options options_of(const setting *s) {
    return (random_lookup_options){.rows = s->rows,
                                   .block_rows = 16,
                                   .columns = COLUMNS,
                                   .keys = 60,
                                   .plain = s->plain,
                                   .rare = s->rare,
                                   .dim = DIM,
                                   .drop_rate = s->drop_rate,
                                   .seed = 3};
}

/* Three epochs over four batches; the third batch of the second epoch is trained, but not counted. */
static void compare(const setting *s, char out_hex[CT_DIGEST_HEX_BYTES]) {
    const ct_table_spec spec = counted(s->min_count);
    ct_pool *pool;
    ct_store *store;
    ct_ticket *ticket;
    reference reference;
    assert_ok(ct_pool_create(s->threads, &pool, &status));
    assert_ok(ct_store_create_parted(&spec, 1, CT_STORE_TRAIN, s->partition_bits, ct_device_cpu(), pool, &store, &status));
    assert_ok(ct_ticket_create(store, &ticket, &status));
    reference_init(&reference, &spec);
    uint64_t seen = 0;
    for (uint64_t step = 0; step < 12; step++) {
        const uint64_t number = step % 4;
        const random_lookup_options options = options_of(s);
        random_lookup random;
        random_lookup_init(&random, &options, number);
        random.lookup.epoch = (uint32_t)(step / 4);
        float labels[MOST_ROWS];
        fill_labels(labels, s->rows, number);
        const float *given = step == 6 ? NULL : labels;
        assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        reference_acquire(&reference, &random.lookup);
        seen += assert_counts(store, ticket, &reference, &random.lookup, "training");
        if (number == 0) assert_int_equal(assert_counts(store, ticket, &reference, &random.lookup, "a new epoch"), 0);
        assert_ok(ct_store_apply(store, ticket, random.gradients, random.stride, given, &status));
        ct_store_release(store, ticket);
        reference_apply(&reference, &random.lookup, random.gradients, random.stride, given);

        random.lookup.mode = CT_LOOKUP_READ;
        random.lookup.epoch = 99; /* reading does not ask for one */
        assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        reference_resolve(&reference, &random.lookup);
        assert_true(assert_counts(store, ticket, &reference, &random.lookup, "reading") > 0);
        ct_store_release(store, ticket);
        random_lookup_deinit(&random);
    }
    assert_true(seen > 0);
    if (out_hex) digest_hex(store, out_hex);
    reference_deinit(&reference);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
}

static void test_reference(void **unused) {
    (void)unused;
    static const size_t threads[] = {1, 2, 3, 8};
    static const uint32_t bits[] = {CT_PARTITION_BITS, 0, 3, CT_MAX_PARTITION_BITS};
    for (unsigned kind = 0; kind < 16; kind++) {
        const setting setting = {.min_count = kind & 8 ? 3 : 1,
                                 .partition_bits = bits[kind % 3 + (kind & 8 ? 1 : 0)],
                                 .threads = threads[kind % 4],
                                 .rows = kind & 2 ? 61 : 40,
                                 .drop_rate = kind & 1 ? 0.2 : 0.0,
                                 .plain = kind & 2,
                                 .rare = kind & 4};
        compare(&setting, NULL);
    }
}

static void test_threads_and_partitions(void **unused) {
    (void)unused;
    static const size_t threads[] = {1, 2, 3, 8, 2, 3};
    static const uint32_t bits[] = {CT_PARTITION_BITS, CT_PARTITION_BITS, CT_PARTITION_BITS, CT_PARTITION_BITS, 0, CT_MAX_PARTITION_BITS};
    char wanted[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    for (size_t i = 0; i < 6; i++) {
        const setting setting = {
            .min_count = 2, .partition_bits = bits[i], .threads = threads[i], .rows = 61, .drop_rate = 0.1, .rare = true};
        compare(&setting, i ? got : wanted);
        if (i) assert_string_equal(got, wanted);
    }
}

/* Two runs that differ in one label of one batch. */
static void test_no_row_sees_its_own_batch(void **unused) {
    (void)unused;
    const setting setting = {.min_count = 2, .rows = 50, .drop_rate = 0.1, .rare = true};
    const random_lookup_options options = options_of(&setting);
    const ct_table_spec spec = counted(setting.min_count);
    enum { BATCHES = 5, FLIPPED_BATCH = 2 };
    for (size_t flipped = 0; flipped < setting.rows; flipped += 7) {
        ct_store *stores[2];
        ct_ticket *tickets[2];
        for (size_t i = 0; i < 2; i++) {
            assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &stores[i], &status));
            assert_ok(ct_ticket_create(stores[i], &tickets[i], &status));
        }
        uint64_t differences = 0;
        for (uint64_t number = 0; number < BATCHES; number++) {
            random_lookup random;
            random_lookup_init(&random, &options, number);
            counts got[2][COLUMNS];
            for (size_t i = 0; i < 2; i++) {
                float labels[MOST_ROWS];
                fill_labels(labels, setting.rows, number);
                if (i && number == FLIPPED_BATCH) labels[flipped] = 1.0f - labels[flipped];
                assert_ok(ct_store_prefetch(stores[i], tickets[i], &random.lookup, &status));
                assert_ok(ct_store_acquire(stores[i], tickets[i], &status));
                for (size_t c = 0; c < COLUMNS; c++) gather_pieces(stores[i], tickets[i], setting.rows, c, &got[i][c]);
                assert_ok(ct_store_apply(stores[i], tickets[i], random.gradients, random.stride, labels, &status));
                ct_store_release(stores[i], tickets[i]);
            }
            for (size_t c = 0; c < COLUMNS; c++) {
                assert_memory_equal(got[0][c].impressions, got[1][c].impressions, sizeof got[0][c].impressions);
                if (number <= FLIPPED_BATCH) assert_memory_equal(got[0][c].clicks, got[1][c].clicks, sizeof got[0][c].clicks);
                for (size_t r = 0; r < setting.rows; r++) differences += got[0][c].clicks[r] != got[1][c].clicks[r];
            }
            random_lookup_deinit(&random);
        }
        assert_true(differences > 0); /* later batches do see it */
        for (size_t i = 0; i < 2; i++) {
            ct_ticket_destroy(tickets[i]);
            ct_store_destroy(stores[i]);
        }
    }
}

static const uint64_t HAND_KEYS[5] = {7, 7, 8, 9, 7};
static const uint32_t HAND_OFFSETS[4] = {0, 2, 3, 5}; /* rows {7, 7}, {8}, {9, 7} */

static void run_by_hand(ct_store *store, ct_ticket *ticket, uint32_t epoch, const float *labels, counts *out) {
    const ct_key_column column = {.keys = HAND_KEYS, .offsets = HAND_OFFSETS};
    const ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = 3, .block_rows = 256, .columns = &column, .column_count = 1, .epoch = epoch};
    const float gradients[3 * DIM] = {0};
    assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    ct_store_gather_counts(store, ticket, 0, 3, 0, out->impressions, out->clicks);
    assert_ok(ct_store_apply(store, ticket, gradients, DIM, labels, &status));
    ct_store_release(store, ticket);
}

static void assert_hand(const counts *got, const uint32_t impressions[3], const uint32_t clicks[3]) {
    for (size_t r = 0; r < 3; r++) {
        assert_int_equal(got->impressions[r], impressions[r]);
        assert_int_equal(got->clicks[r], clicks[r]);
    }
}

static void test_by_hand(void **unused) {
    (void)unused;
    static const uint32_t none[3] = {0, 0, 0};
    static const float labels[3] = {1.0f, 0.5f, 0.75f}; /* above a half is a click */
    const ct_table_spec spec = counted(100);            /* stubs count as well */
    ct_store *store;
    ct_ticket *ticket;
    counts got;
    assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
    assert_ok(ct_ticket_create(store, &ticket, &status));
    run_by_hand(store, ticket, 4, labels, &got);
    assert_hand(&got, none, none);
    run_by_hand(store, ticket, 4, labels, &got); /* 7: 3 of 3; 8: 0 of 1; 9: 1 of 1 */
    assert_hand(&got, (const uint32_t[3]){6, 1, 4}, (const uint32_t[3]){6, 0, 4});
    run_by_hand(store, ticket, 5, NULL, &got); /* a new epoch, not counted */
    assert_hand(&got, none, none);
    run_by_hand(store, ticket, 4, NULL, &got); /* so the old one still stands */
    assert_hand(&got, (const uint32_t[3]){12, 2, 8}, (const uint32_t[3]){12, 0, 8});
    run_by_hand(store, ticket, 5, labels, &got);
    run_by_hand(store, ticket, 4, NULL, &got); /* now it is gone */
    assert_hand(&got, none, none);
    ct_table_info info;
    ct_store_table_info(store, 0, &info);
    assert_int_equal(info.rows, 0);
    assert_int_equal(info.stubs, 3);

    /* Counts stay at their largest, and so do sums. */
    ct_partition *partition = &store->tables[0].partitions[ct_partition_of(7, store->partition_bits)];
    *ct_entry_counts(ct_partition_find(partition, 7)) = (ct_key_counts){.impressions = UINT32_MAX - 2, .clicks = 1, .epoch = 5};
    run_by_hand(store, ticket, 5, labels, &got);
    assert_hand(&got, (const uint32_t[3]){UINT32_MAX, 1, UINT32_MAX - 1}, (const uint32_t[3]){2, 0, 2});
    run_by_hand(store, ticket, 5, NULL, &got);
    assert_hand(&got, (const uint32_t[3]){UINT32_MAX, 2, UINT32_MAX}, (const uint32_t[3]){8, 0, 6});
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

static void test_tables_without(void **unused) {
    (void)unused;
    ct_table_spec specs[2] = {counted(1), {.name = "text", .kind = CT_TABLE_FROZEN, .dim = DIM, .target_stats = true}};
    specs[0].target_stats = false;
    ct_store *store;
    ct_ticket *ticket;
    counts got = {{1, 1, 1}, {1, 1, 1}};
    static const uint32_t none[3] = {0, 0, 0};
    static const float labels[3] = {1, 1, 1};
    assert_ok(ct_store_create(specs, 2, ct_device_cpu(), NULL, &store, &status));
    assert_ok(ct_ticket_create(store, &ticket, &status));
    assert_false(ct_store_table(store, 1)->target_stats);
    for (int i = 0; i < 2; i++) {
        run_by_hand(store, ticket, 0, labels, &got);
        assert_hand(&got, none, none);
    }
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

/* A snapshot that is opened for reading gives what the store gave, to stubs as well, also where a request's row is shared. */
static void test_open_for_reading(void **unused) {
    (void)unused;
    const char *base = getenv("TEST_TMPDIR");
    char root[512];
    (void)snprintf(root, sizeof root, "%s/counts-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(root));
    char *folder = ct_path_join(root, "store");
    const ct_table_spec spec = counted(8);
    ct_store *stores[2];
    ct_ticket *ticket;
    assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &stores[0], &status));
    assert_ok(ct_ticket_create(stores[0], &ticket, &status));
    const setting setting = {.rows = 60, .rare = true};
    const random_lookup_options options = options_of(&setting);
    for (uint64_t number = 0; number < 6; number++) {
        random_lookup random;
        float labels[MOST_ROWS];
        random_lookup_init(&random, &options, number);
        random.lookup.epoch = (uint32_t)(number / 3);
        fill_labels(labels, setting.rows, number);
        assert_ok(ct_store_prefetch(stores[0], ticket, &random.lookup, &status));
        assert_ok(ct_store_acquire(stores[0], ticket, &status));
        assert_ok(ct_store_apply(stores[0], ticket, random.gradients, random.stride, labels, &status));
        ct_store_release(stores[0], ticket);
        random_lookup_deinit(&random);
    }
    ct_ticket_destroy(ticket);
    assert_ok(ct_store_snapshot(stores[0], folder, &status));
    assert_ok(ct_store_open(folder, CT_STORE_READ, ct_device_cpu(), NULL, &stores[1], &status));
    ct_table_info training, reading;
    ct_store_table_info(stores[0], 0, &training);
    ct_store_table_info(stores[1], 0, &reading);
    assert_true(training.rows > 0 && training.stubs > 0);
    assert_int_equal(reading.rows, training.rows);
    assert_int_equal(reading.stubs, training.stubs);

    uint64_t keys[MOST_ROWS], clicks = 0;
    for (uint64_t i = 0; i < MOST_ROWS; i++) keys[i] = random_key(i);
    const uint32_t many[2] = {0, MOST_ROWS};
    const ct_key_column columns[2] = {{.keys = keys}, {.keys = keys, .offsets = many, .shared = true}};
    const ct_lookup lookup = {.mode = CT_LOOKUP_READ, .rows = MOST_ROWS, .columns = columns, .column_count = 2};
    counts got[2][2];
    for (size_t i = 0; i < 2; i++) {
        assert_ok(ct_ticket_create(stores[i], &ticket, &status));
        assert_ok(ct_store_prefetch(stores[i], ticket, &lookup, &status));
        assert_ok(ct_store_acquire(stores[i], ticket, &status));
        for (size_t c = 0; c < 2; c++) gather_pieces(stores[i], ticket, MOST_ROWS, c, &got[i][c]);
        ct_store_release(stores[i], ticket);
        ct_ticket_destroy(ticket);
    }
    assert_memory_equal(&got[0], &got[1], sizeof got[0]);
    for (size_t r = 0; r < MOST_ROWS; r++) clicks += got[0][0].clicks[r];
    assert_true(clicks > 0);
    for (size_t r = 0; r < MOST_ROWS; r++) assert_int_equal(got[0][1].clicks[r], clicks);
    for (size_t i = 0; i < 2; i++) ct_store_destroy(stores[i]);
    assert_ok(ct_folder_remove(root, &status));
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_threads_and_partitions),
        cmocka_unit_test(test_no_row_sees_its_own_batch),
        cmocka_unit_test(test_tables_without),
        cmocka_unit_test(test_open_for_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
