/* Look-ups, training and reading against the reference, bit for bit, for any number of threads and partitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "embedding_store/store_internal.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"
#include "tests/embedding_store/reference.h"

static ct_table_spec trained(const char *name, uint32_t dim, uint32_t min_count) {
    ct_table_spec spec = {.kind = CT_TABLE_TRAINED,
                          .dim = dim,
                          .optimiser = CT_ROW_ADAGRAD_ROWWISE,
                          .learning_rate = 0.07f,
                          .initial_accumulator = 0.01f,
                          .first_value_scale = 0.05f,
                          .seed = 0x123456789abcdef0u,
                          .min_count = min_count};
    strcpy(spec.name, name);
    return spec;
}

static ct_table_spec frozen(const char *name, uint32_t dim) {
    ct_table_spec spec = {.kind = CT_TABLE_FROZEN, .dim = dim};
    strcpy(spec.name, name);
    return spec;
}

static ct_pool *make_pool(size_t threads) {
    ct_pool *pool;
    assert_ok(ct_pool_create(threads, &pool, &status));
    return pool;
}

static ct_store *make_store(const ct_table_spec *specs, size_t count, uint32_t partition_bits, ct_pool *pool) {
    ct_store *store;
    assert_ok(ct_store_create_parted(specs, count, CT_STORE_TRAIN, partition_bits, ct_device_cpu(), pool, &store, &status));
    return store;
}

static void assert_floats(const float *got, const float *wanted, size_t count, const char *what) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(&got[i], &wanted[i], sizeof(float)) != 0)
            fail_msg("%s: float %zu is %.9g, should be %.9g", what, i, (double)got[i], (double)wanted[i]);
}

/* Marks every float, so that gather's leaving the others alone is seen too. */
static float *marked(size_t count) {
    float *out = malloc((count + 1) * sizeof *out);
    for (size_t i = 0; i < count; i++) out[i] = -77.0f;
    return out;
}

/* Gathers in pieces of odd sizes, as threads would. */
static void gather_pieces(const ct_store *store, const ct_ticket *ticket, size_t rows, float *out, size_t stride) {
    for (size_t first = 0, piece = 1; first < rows; first += piece, piece = piece * 2 + 1) {
        if (piece > rows - first) piece = rows - first;
        ct_store_gather(store, ticket, first, piece, false, out + first * stride, stride);
    }
}

static void train_batch(ct_store *store, ct_ticket *ticket, random_lookup *random, size_t table, float *out) {
    random->lookup.table = table;
    assert_ok(ct_store_prefetch(store, ticket, &random->lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    if (out) gather_pieces(store, ticket, random->lookup.rows, out, random->stride);
    assert_ok(ct_store_apply(store, ticket, random->gradients, random->stride, NULL, &status));
    ct_store_release(store, ticket);
}

typedef struct setting {
    uint32_t dim, min_count, partition_bits;
    size_t threads, rows, block_rows;
    double drop_rate;
    bool plain, rare;
} setting;

static void compare(const setting *s) {
    ct_pool *pool = make_pool(s->threads);
    const ct_table_spec specs[2] = {trained("other", 4, 1), trained("ids", s->dim, s->min_count)};
    ct_store *store = make_store(specs, 2, s->partition_bits, pool);
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    reference reference;
    reference_init(&reference, &specs[1]);
    for (uint64_t number = 0; number < 6; number++) {
        const random_lookup_options options = {.rows = s->rows - (number == 5 ? s->rows / 3 : 0), /* the last one is shorter */
                                               .block_rows = s->block_rows,
                                               .columns = 5,
                                               .keys = 60,
                                               .plain = s->plain,
                                               .rare = s->rare,
                                               .dim = s->dim,
                                               .drop_rate = s->drop_rate,
                                               .seed = s->dim};
        random_lookup random;
        random_lookup_init(&random, &options, number);
        const size_t floats = options.rows * random.stride;
        float *got = marked(floats), *wanted = marked(floats);
        train_batch(store, ticket, &random, 1, got);
        reference_acquire(&reference, &random.lookup);
        reference_gather(&reference, &random.lookup, wanted, random.stride);
        assert_floats(got, wanted, floats, "training gather");
        reference_apply(&reference, &random.lookup, random.gradients, random.stride, NULL);

        random.lookup.mode = CT_LOOKUP_READ; /* the same rows, and what reading makes of them after the step */
        assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        gather_pieces(store, ticket, options.rows, got, random.stride);
        ct_store_release(store, ticket);
        reference_resolve(&reference, &random.lookup);
        reference_gather(&reference, &random.lookup, wanted, random.stride);
        assert_floats(got, wanted, floats, "reading gather");
        free(got);
        free(wanted);
        random_lookup_deinit(&random);
    }
    ct_table_info info;
    ct_store_table_info(store, 1, &info);
    assert_int_equal(info.rows, reference_rows(&reference));
    assert_int_equal(info.stubs, reference_stubs(&reference));
    ct_store_table_info(store, 0, &info);
    assert_int_equal(info.rows + info.stubs, 0);
    reference_deinit(&reference);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
}

static void test_reference(void **unused) {
    (void)unused;
    static const uint32_t dims[] = {1, 3, 4, 8, 16, 17, 32, 48};
    static const size_t threads[] = {1, 2, 3, 8};
    static const uint32_t bits[] = {CT_PARTITION_BITS, 0, 3, CT_MAX_PARTITION_BITS};
    size_t number = 0;
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        for (uint32_t min_count = 1; min_count <= 3; min_count++) {
            for (unsigned kind = 0; kind < 8; kind++, number++) {
                const setting setting = {.dim = dims[d],
                                         .min_count = min_count,
                                         .partition_bits = bits[number / 3 % 4],
                                         .threads = threads[number % 4],
                                         .rows = 61,
                                         .block_rows = number % 2 ? 8 : 25,
                                         .drop_rate = kind & 1 ? 0.2 : 0.0,
                                         .plain = kind & 2,
                                         .rare = kind & 4};
                compare(&setting);
            }
        }
    }
}

/* A rare row that comes last into a full chunk must not move the rows that the batch has found before. */
static void test_rare_row_into_full_chunk(void **unused) {
    (void)unused;
    for (size_t number = 0; number < 40; number++) {
        const size_t count = 14 + number % 5;
        const ct_table_spec spec = trained("ids", 16, 1);
        ct_store *store = make_store(&spec, 1, 0, NULL);
        ct_ticket *ticket;
        assert_ok(ct_ticket_create(store, &ticket, &status));
        reference reference;
        reference_init(&reference, &spec);
        uint64_t keys[18];
        for (size_t i = 0; i < count; i++) keys[i] = random_key(i);
        const ct_key_column column = {.keys = keys, .rare_key = ct_rare_key(5)};
        const ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN,
                                  .rows = count,
                                  .block_rows = 256,
                                  .columns = &column,
                                  .column_count = 1,
                                  .drop_rate = 0.5,
                                  .drop_seed = number};
        float got[18 * 16], wanted[18 * 16];
        assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        ct_store_gather(store, ticket, 0, count, false, got, 16);
        reference_acquire(&reference, &lookup);
        reference_gather(&reference, &lookup, wanted, 16);
        assert_floats(got, wanted, count * 16, "gather");
        assert_int_equal(reference_rows(&reference), count + 1);
        reference_deinit(&reference);
        ct_ticket_destroy(ticket);
        ct_store_destroy(store);
    }
}

/* A first step by hand: one key, one row, dim 4. */
static void test_first_step(void **unused) {
    (void)unused;
    ct_table_spec spec = trained("ids", 4, 1);
    spec.first_value_scale = 0.0f;
    spec.learning_rate = 0.5f;
    spec.initial_accumulator = 0.75f;
    ct_store *store = make_store(&spec, 1, CT_PARTITION_BITS, NULL);
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    const uint64_t key = 42;
    const ct_key_column column = {.keys = &key};
    ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = 1, .block_rows = 256, .columns = &column, .column_count = 1};
    const float gradient[4] = {1, -2, 3, 4}; /* mean of squares 7.5 */
    float out[4];
    for (int i = 1; i <= 2; i++) {
        assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        ct_store_gather(store, ticket, 0, 1, false, out, 4);
        for (int j = 0; j < 4; j++) {
            const double wanted = i == 1 ? 0.0 : -0.5 * (double)gradient[j] / sqrt(8.25);
            assert_true(fabs((double)out[j] - wanted) < 1e-6);
        }
        assert_ok(ct_store_apply(store, ticket, gradient, 4, NULL, &status));
        ct_store_release(store, ticket);
    }
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

/* Many rows, huge hot keys, chunks and indexes that grow: the digest tells every bit. */
static void run_large(size_t threads, uint32_t partition_bits, uint64_t seed, char out_hex[CT_DIGEST_HEX_BYTES]) {
    ct_pool *pool = threads ? make_pool(threads) : NULL;
    const ct_table_spec specs[2] = {trained("wide", 96, 2), trained("ids", 16, 1)};
    ct_store *store = make_store(specs, 2, partition_bits, pool);
    ct_ticket *tickets[2];
    for (size_t t = 0; t < 2; t++) assert_ok(ct_ticket_create(store, &tickets[t], &status));
    for (uint64_t number = 0; number < 6; number++) {
        random_lookup random[2];
        for (size_t t = 0; t < 2; t++) {
            const random_lookup_options options = {.rows = 1000,
                                                   .block_rows = 256,
                                                   .columns = 7,
                                                   .keys = 40000,
                                                   .plain = t,
                                                   .rare = true,
                                                   .dim = specs[t].dim,
                                                   .drop_rate = 0.01,
                                                   .seed = seed};
            random_lookup_init(&random[t], &options, number);
            random[t].lookup.table = t;
            assert_ok(ct_store_prefetch(store, tickets[t], &random[t].lookup, &status));
        }
        for (size_t t = 0; t < 2; t++) {
            assert_ok(ct_store_acquire(store, tickets[t], &status));
            assert_ok(ct_store_apply(store, tickets[t], random[t].gradients, random[t].stride, NULL, &status));
            ct_store_release(store, tickets[t]);
            random_lookup_deinit(&random[t]);
        }
    }
    digest_hex(store, out_hex);
    for (size_t t = 0; t < 2; t++) ct_ticket_destroy(tickets[t]);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
}

static void test_threads_and_partitions(void **unused) {
    (void)unused;
    char wanted[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    run_large(0, CT_PARTITION_BITS, 9, wanted);
    static const size_t threads[] = {1, 2, 3, 8, 2, 3};
    static const uint32_t bits[] = {CT_PARTITION_BITS, CT_PARTITION_BITS, CT_PARTITION_BITS, CT_PARTITION_BITS, 0, CT_MAX_PARTITION_BITS};
    for (size_t i = 0; i < 6; i++) {
        run_large(threads[i], bits[i], 9, got);
        assert_string_equal(got, wanted);
    }
    run_large(1, CT_PARTITION_BITS, 10, got);
    assert_string_not_equal(got, wanted);
}

/* Tickets prefetched ahead change nothing. */
static void test_prefetch_ahead(void **unused) {
    (void)unused;
    char hex[2][CT_DIGEST_HEX_BYTES];
    ct_pool *pool = make_pool(2);
    const ct_table_spec spec = trained("ids", 8, 2);
    for (int ahead = 0; ahead < 2; ahead++) {
        ct_store *store = make_store(&spec, 1, CT_PARTITION_BITS, pool);
        ct_ticket *tickets[3];
        random_lookup random[3];
        const random_lookup_options options = {
            .rows = 100, .block_rows = 32, .columns = 4, .keys = 50, .rare = true, .dim = 8, .drop_rate = 0.1, .seed = 5};
        for (size_t i = 0; i < 3; i++) {
            assert_ok(ct_ticket_create(store, &tickets[i], &status));
            random_lookup_init(&random[i], &options, i);
        }
        for (size_t i = 0; ahead && i < 3; i++) assert_ok(ct_store_prefetch(store, tickets[i], &random[i].lookup, &status));
        for (size_t i = 0; i < 3; i++) {
            if (!ahead) assert_ok(ct_store_prefetch(store, tickets[i], &random[i].lookup, &status));
            assert_ok(ct_store_acquire(store, tickets[i], &status));
            assert_ok(ct_store_apply(store, tickets[i], random[i].gradients, random[i].stride, NULL, &status));
            ct_store_release(store, tickets[i]);
        }
        digest_hex(store, hex[ahead]);
        for (size_t i = 0; i < 3; i++) {
            ct_ticket_destroy(tickets[i]);
            random_lookup_deinit(&random[i]);
        }
        ct_store_destroy(store);
    }
    assert_string_equal(hex[0], hex[1]);
    ct_pool_destroy(pool);
}

static void test_frozen(void **unused) {
    (void)unused;
    const ct_table_spec specs[2] = {frozen("text", 3), trained("ids", 3, 1)};
    ct_pool *pool = make_pool(2);
    ct_store *store = make_store(specs, 2, CT_PARTITION_BITS, pool);
    const uint64_t keys[3] = {UINT64_MAX, 0, 77};
    const float values[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    assert_ok(ct_store_fill(store, 0, keys, values, 3, &status));
    assert_int_equal(ct_store_fill(store, 0, &keys[1], values, 1, &status), CT_INVALID); /* there already */
    assert_int_equal(ct_store_fill(store, 1, keys, values, 3, &status), CT_INVALID);     /* not frozen */
    assert_int_equal(ct_store_fill(store, 2, keys, values, 3, &status), CT_INVALID);     /* no such table */

    char before[CT_DIGEST_HEX_BYTES], after[CT_DIGEST_HEX_BYTES];
    digest_hex(store, before);
    const uint64_t asked[4] = {77, 5, UINT64_MAX, 0};
    const uint32_t offsets[4] = {0, 2, 2, 4};
    const ct_key_column columns[2] = {{.keys = asked, .output_column = 0},
                                      {.keys = asked, .offsets = offsets, .pooling = CT_POOL_MEAN, .output_column = 3}};
    ct_lookup lookup = {
        .mode = CT_LOOKUP_TRAIN, .rows = 3, .block_rows = 2, .columns = columns, .column_count = 2, .drop_rate = 0.5, .drop_seed = 3};
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    /* An unknown key reads zeros and counts in a mean; no id drop where there is no rare row to read. */
    const float wanted[18] = {7, 8, 9, 3.5f, 4, 4.5f, 0, 0, 0, 0, 0, 0, 1, 2, 3, 2.5f, 3.5f, 4.5f};
    for (int mode = 0; mode < 2; mode++) {
        float out[18];
        lookup.mode = mode ? CT_LOOKUP_READ : CT_LOOKUP_TRAIN;
        assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        ct_store_gather(store, ticket, 0, 3, false, out, 6);
        assert_floats(out, wanted, 18, "frozen gather");
        if (!mode) assert_ok(ct_store_apply(store, ticket, out, 6, NULL, &status));
        ct_store_release(store, ticket);
    }
    digest_hex(store, after);
    assert_string_equal(before, after);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
}

static void test_shared(void **unused) {
    (void)unused;
    const ct_table_spec spec = frozen("text", 2);
    ct_store *store = make_store(&spec, 1, CT_PARTITION_BITS, NULL);
    const uint64_t keys[3] = {10, 20, 30};
    const float values[6] = {1, 2, 4, 8, 16, 32};
    assert_ok(ct_store_fill(store, 0, keys, values, 3, &status));
    const uint64_t own[3] = {30, 99, 10};
    const uint32_t two[2] = {0, 2};
    const float weights[2] = {3, 1};
    const ct_key_column columns[3] = {
        {.keys = &keys[1], .shared = true, .output_column = 4},
        {.keys = own, .output_column = 0},
        {.keys = keys, .offsets = two, .weights = weights, .shared = true, .pooling = CT_POOL_MEAN, .output_column = 2}};
    const ct_lookup lookup = {.mode = CT_LOOKUP_READ, .rows = 3, .columns = columns, .column_count = 3};
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    const float all[18] = {16, 32, 1.75f, 3.5f, 4, 8, 0, 0, 1.75f, 3.5f, 4, 8, 1, 2, 1.75f, 3.5f, 4, 8};
    const float once[18] = {16, 32, 1.75f, 3.5f, 4, 8, 0, 0, -77, -77, -77, -77, 1, 2, -77, -77, -77, -77};
    float *out = marked(18);
    ct_store_gather(store, ticket, 0, 1, true, out, 6);
    ct_store_gather(store, ticket, 1, 2, true, out + 6, 6);
    assert_floats(out, once, 18, "shared once");
    ct_store_gather(store, ticket, 0, 2, false, out, 6);
    ct_store_gather(store, ticket, 2, 1, false, out + 12, 6);
    assert_floats(out, all, 18, "shared");
    ct_store_release(store, ticket);
    ct_table_info info;
    ct_store_table_info(store, 0, &info);
    assert_int_equal(info.lookups, 5);
    assert_int_equal(info.unknown, 1);

    ct_lookup training = lookup;
    training.mode = CT_LOOKUP_TRAIN;
    training.block_rows = 256;
    assert_int_equal(ct_store_prefetch(store, ticket, &training, &status), CT_INVALID);
    free(out);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

/* Several threads read while nobody writes; each has a ticket of its own. */
typedef struct reader {
    ct_store *store;
    const random_lookup *random;
    const float *wanted;
    pthread_t thread;
    bool equal;
} reader;

static void *read_often(void *context) {
    reader *reader = context;
    ct_status own = CT_STATUS_INIT;
    ct_ticket *ticket = NULL;
    const size_t floats = reader->random->lookup.rows * reader->random->stride;
    float *out = marked(floats);
    ct_lookup lookup = reader->random->lookup;
    lookup.mode = CT_LOOKUP_READ;
    reader->equal = ct_ticket_create(reader->store, &ticket, &own) == CT_OK;
    for (int i = 0; i < 50 && reader->equal; i++) {
        reader->equal =
            ct_store_prefetch(reader->store, ticket, &lookup, &own) == CT_OK && ct_store_acquire(reader->store, ticket, &own) == CT_OK;
        ct_store_gather(reader->store, ticket, 0, lookup.rows, false, out, reader->random->stride);
        ct_store_release(reader->store, ticket);
        reader->equal = reader->equal && memcmp(out, reader->wanted, floats * sizeof(float)) == 0;
    }
    ct_ticket_destroy(ticket);
    free(out);
    return NULL;
}

static void test_concurrent_reads(void **unused) {
    (void)unused;
    const ct_table_spec spec = trained("ids", 16, 1);
    ct_pool *pool = make_pool(2);
    ct_store *store = make_store(&spec, 1, CT_PARTITION_BITS, pool);
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    const random_lookup_options options = {.rows = 200, .block_rows = 128, .columns = 6, .keys = 500, .rare = true, .dim = 16, .seed = 1};
    random_lookup random;
    random_lookup_init(&random, &options, 0);
    train_batch(store, ticket, &random, 0, NULL);
    float *wanted = marked(options.rows * random.stride);
    random.lookup.mode = CT_LOOKUP_READ;
    assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    ct_store_gather(store, ticket, 0, options.rows, false, wanted, random.stride);
    ct_store_release(store, ticket);
    reader readers[4];
    for (size_t i = 0; i < 4; i++) {
        readers[i] = (reader){.store = store, .random = &random, .wanted = wanted};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_often, &readers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
        assert_true(readers[i].equal);
    }
    free(wanted);
    random_lookup_deinit(&random);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
}

static void test_refusals(void **unused) {
    (void)unused;
    ct_store *store = NULL;
    ct_device *cpu = ct_device_cpu();
    ct_table_spec specs[2] = {trained("a", 4, 1), trained("a", 4, 1)};
    assert_int_equal(ct_store_create(specs, 2, cpu, NULL, &store, &status), CT_INVALID); /* same name */
    assert_non_null(strstr(status.message, "named a"));
#define REFUSED(field, value)                                                               \
    do {                                                                                    \
        ct_table_spec bad = trained("a", 4, 1);                                             \
        bad.field = value;                                                                  \
        assert_int_equal(ct_store_create(&bad, 1, cpu, NULL, &store, &status), CT_INVALID); \
    } while (0)
    REFUSED(dim, 0);
    REFUSED(dim, CT_TABLE_MAX_DIM + 1);
    REFUSED(initial_accumulator, 0.0f);
    REFUSED(learning_rate, NAN);
    REFUSED(first_value_scale, -1.0f);
    REFUSED(min_count, 0);
    REFUSED(name[0], 0);
    REFUSED(name[0], (char)0xff);
    assert_null(store);

    store = make_store(specs, 1, CT_PARTITION_BITS, NULL);
    assert_int_equal(ct_store_find_table(store, "a"), 0);
    assert_int_equal(ct_store_find_table(store, "b"), -1);
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    const uint64_t keys[2] = {1, 2};
    const uint32_t falling[3] = {0, 2, 1};
    ct_key_column column = {.keys = keys, .offsets = falling};
    ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = 2, .block_rows = 256, .columns = &column, .column_count = 1};
    float out[8] = {0};
    assert_int_equal(ct_store_prefetch(store, ticket, &lookup, &status), CT_INVALID);
    const uint32_t late[2] = {1, 2};
    column.offsets = late;
    column.shared = true; /* one row of keys: it begins at 0 */
    lookup.mode = CT_LOOKUP_READ;
    assert_int_equal(ct_store_prefetch(store, ticket, &lookup, &status), CT_INVALID);
    lookup.mode = CT_LOOKUP_TRAIN;
    column.shared = false;
    column.offsets = NULL;
    lookup.block_rows = 0;
    assert_int_equal(ct_store_prefetch(store, ticket, &lookup, &status), CT_INVALID);
    lookup.block_rows = 256;
    lookup.table = 1;
    assert_int_equal(ct_store_prefetch(store, ticket, &lookup, &status), CT_INVALID);
    lookup.table = 0;
    assert_int_equal(ct_store_acquire(store, ticket, &status), CT_INVALID); /* not prefetched */
    assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
    assert_int_equal(ct_store_prefetch(store, ticket, &lookup, &status), CT_INVALID);   /* not released */
    assert_int_equal(ct_store_apply(store, ticket, out, 4, NULL, &status), CT_INVALID); /* not acquired */
    assert_ok(ct_store_acquire(store, ticket, &status));
    assert_ok(ct_store_apply(store, ticket, out, 4, NULL, &status));
    assert_int_equal(ct_store_apply(store, ticket, out, 4, NULL, &status), CT_INVALID); /* twice */
    ct_store_release(store, ticket);
    lookup.rows = 0; /* an empty batch is fine */
    assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
    assert_ok(ct_store_acquire(store, ticket, &status));
    ct_store_gather(store, ticket, 0, 0, false, out, 4);
    assert_ok(ct_store_apply(store, ticket, out, 4, NULL, &status));
    ct_store_release(store, ticket);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

static void test_small_tables_are_small(void **unused) {
    (void)unused;
    const ct_table_spec spec = trained("ids", 16, 1);
    ct_store *store = make_store(&spec, 1, CT_PARTITION_BITS, NULL);
    ct_ticket *ticket;
    assert_ok(ct_ticket_create(store, &ticket, &status));
    const random_lookup_options options = {
        .rows = 1000, .block_rows = 256, .columns = 1, .keys = 5000, .plain = true, .dim = 16, .seed = 1};
    random_lookup random;
    random_lookup_init(&random, &options, 0);
    train_batch(store, ticket, &random, 0, NULL);
    ct_table_info info;
    ct_store_table_info(store, 0, &info);
    assert_in_range(info.rows, 500, 1000);
    assert_in_range(info.bytes, 500 * 84, 1 << 20);
    random_lookup_deinit(&random);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

static void test_rare_keys(void **unused) {
    (void)unused;
    assert_int_not_equal(ct_rare_key(1), ct_rare_key(2));
    assert_int_not_equal(ct_rare_key(1), 0);
    assert_int_equal(ct_rare_key(7), ct_rare_key(7));
}

int main(void) {
    (void)mallopt(M_PERTURB, 0xa5); /* freed memory is overwritten, so that its use is seen */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_first_step),
        cmocka_unit_test(test_rare_row_into_full_chunk),
        cmocka_unit_test(test_prefetch_ahead),
        cmocka_unit_test(test_threads_and_partitions),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_concurrent_reads),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_small_tables_are_small),
        cmocka_unit_test(test_rare_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
