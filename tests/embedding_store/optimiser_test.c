/* Row optimisers: against the reference bit for bit, by hand, and against Adam as its paper writes it, in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "embedding_store/store_internal.h"
#include "tests/embedding_store/fixture.h"
#include "tests/embedding_store/random_lookup.h"
#include "tests/embedding_store/reference.h"

static const ct_row_optimiser ALL[] = {CT_ROW_ADAGRAD_ROWWISE, CT_ROW_SGD, CT_ROW_ADAGRAD, CT_ROW_ADAM};
enum { OPTIMISERS = sizeof ALL / sizeof *ALL };

static ct_table_spec spec_of(ct_row_optimiser optimiser, uint32_t dim) {
    return (ct_table_spec){.name = "ids",
                           .kind = CT_TABLE_TRAINED,
                           .dim = dim,
                           .optimiser = optimiser,
                           .learning_rate = 0.07f,
                           .initial_accumulator = 0.01f,
                           .beta1 = 0.9f,
                           .beta2 = 0.99f,
                           .epsilon = 1e-6f,
                           .first_value_scale = 0.05f,
                           .seed = 0x123456789abcdef0u,
                           .min_count = 1};
}

typedef struct setting {
    ct_table_spec spec;
    uint32_t partition_bits;
    size_t threads;
    bool plain;
} setting;

static void compare(const setting *s) {
    ct_pool *pool;
    ct_store *store;
    ct_ticket *ticket;
    reference reference;
    assert_ok(ct_pool_create(s->threads, &pool, &status));
    assert_ok(ct_store_create_parted(&s->spec, 1, CT_STORE_TRAIN, s->partition_bits, ct_device_cpu(), pool, &store, &status));
    assert_ok(ct_ticket_create(store, &ticket, &status));
    reference_init(&reference, &s->spec);
    for (uint64_t number = 0; number < 7; number++) {
        const random_lookup_options options = {.rows = 53,
                                               .block_rows = 16,
                                               .columns = 5,
                                               .keys = 60,
                                               .plain = s->plain,
                                               .rare = true,
                                               .dim = s->spec.dim,
                                               .drop_rate = 0.1,
                                               .seed = s->spec.dim};
        random_lookup random;
        random_lookup_init(&random, &options, number);
        const size_t floats = options.rows * random.stride;
        float *got = calloc(floats, sizeof *got), *wanted = calloc(floats, sizeof *wanted);
        assert_ok(ct_store_prefetch(store, ticket, &random.lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        ct_store_gather(store, ticket, 0, options.rows, false, got, random.stride);
        assert_ok(ct_store_apply(store, ticket, random.gradients, random.stride, NULL, &status));
        ct_store_release(store, ticket);
        reference_acquire(&reference, &random.lookup);
        reference_gather(&reference, &random.lookup, wanted, random.stride);
        reference_apply(&reference, &random.lookup, random.gradients, random.stride, NULL);
        for (size_t i = 0; i < floats; i++)
            if (memcmp(&got[i], &wanted[i], sizeof(float)) != 0)
                fail_msg("%s, dim %u, batch %d: float %zu is %.9g, should be %.9g", ct_row_optimiser_name(s->spec.optimiser), s->spec.dim,
                         (int)number, i, (double)got[i], (double)wanted[i]);
        free(got);
        free(wanted);
        random_lookup_deinit(&random);
    }
    reference_deinit(&reference);
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
    ct_pool_destroy(pool);
}

static void test_reference(void **unused) {
    (void)unused;
    static const uint32_t dims[] = {1, 5, 8, 16, 17, 32, 48};
    static const uint32_t bits[] = {CT_PARTITION_BITS, 0, 3, CT_MAX_PARTITION_BITS};
    static const size_t threads[] = {1, 2, 3, 8};
    size_t number = 0;
    for (size_t o = 0; o < OPTIMISERS; o++) {
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
            for (unsigned kind = 0; kind < 8; kind++, number++) {
                setting setting = {.spec = spec_of(ALL[o], dims[d]),
                                   .partition_bits = bits[number / 3 % 4],
                                   .threads = threads[number % 4],
                                   .plain = kind & 1};
                if (kind & 2) setting.spec.l2 = 0.3f;
                if (kind & 4) setting.spec.min_count = 2;
                compare(&setting);
            }
        }
    }
}

/* Steps one row `steps` times by `gradient` and writes its values. */
static void run_one(const ct_table_spec *spec, const float *gradient, uint32_t steps, float *out) {
    ct_store *store;
    ct_ticket *ticket;
    assert_ok(ct_store_create(spec, 1, ct_device_cpu(), NULL, &store, &status));
    assert_ok(ct_ticket_create(store, &ticket, &status));
    const uint64_t key = 42;
    const ct_key_column column = {.keys = &key};
    ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN, .rows = 1, .block_rows = 256, .columns = &column, .column_count = 1};
    for (uint32_t i = 0; i <= steps; i++) {
        if (i == steps) lookup.mode = CT_LOOKUP_READ;
        assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        if (i == steps)
            ct_store_gather(store, ticket, 0, 1, false, out, spec->dim);
        else
            assert_ok(ct_store_apply(store, ticket, gradient, spec->dim, NULL, &status));
        ct_store_release(store, ticket);
    }
    ct_ticket_destroy(ticket);
    ct_store_destroy(store);
}

static void assert_near(float got, double wanted, double bound) {
    if (!(fabs((double)got - wanted) <= bound)) fail_msg("%.9g, should be %.9g", (double)got, wanted);
}

static void test_by_hand(void **unused) {
    (void)unused;
    const float gradient[3] = {1.0f, -2.0f, 0.5f};
    float out[3];
    ct_table_spec spec = spec_of(CT_ROW_SGD, 3);
    spec.first_value_scale = 0.0f;
    spec.learning_rate = 0.5f;
    run_one(&spec, gradient, 3, out);
    for (size_t i = 0; i < 3; i++) assert_near(out[i], -1.5 * (double)gradient[i], 0.0); /* exact in binary */

    spec.l2 = 0.25f; /* v becomes v - 0.5 (g + 0.25 v) */
    run_one(&spec, gradient, 2, out);
    for (size_t i = 0; i < 3; i++) assert_near(out[i], -0.5 * (double)gradient[i] * (1 + 0.875), 0.0);

    spec = spec_of(CT_ROW_ADAGRAD, 3);
    spec.first_value_scale = 0.0f;
    spec.initial_accumulator = 0.75f;
    run_one(&spec, gradient, 2, out);
    for (size_t i = 0; i < 3; i++) {
        const double g = (double)gradient[i];
        assert_near(out[i], -0.07 * (g / sqrt(0.75 + g * g) + g / sqrt(0.75 + 2 * g * g)), 1e-7);
    }
}

/* Algorithm 1 of Kingma and Ba, line by line, in double. The gradient is the same at each step, which keeps both moments' corrections
 * exact: the step is the learning rate's size times the sign. That is said by the paper, and checked here beside the algorithm. */
static void test_adam_by_the_paper(void **unused) {
    (void)unused;
    const float gradient[4] = {1.0f, -2.0f, 0.001f, 300.0f};
    for (uint32_t steps = 1; steps <= 3000; steps = steps * 3 + 1) {
        ct_table_spec spec = spec_of(CT_ROW_ADAM, 4);
        spec.first_value_scale = 0.0f;
        spec.learning_rate = 0.001f;
        spec.beta2 = 0.999f;
        spec.epsilon = 1e-8f;
        float out[4];
        run_one(&spec, gradient, steps, out);
        for (size_t i = 0; i < 4; i++) {
            const double g = (double)gradient[i], b1 = (double)spec.beta1, b2 = (double)spec.beta2;
            double m = 0, v = 0, x = 0;
            for (uint32_t t = 1; t <= steps; t++) {
                m = b1 * m + (1 - b1) * g;
                v = b2 * v + (1 - b2) * g * g;
                x -= (double)spec.learning_rate * (m / (1 - pow(b1, t))) / (sqrt(v / (1 - pow(b2, t))) + (double)spec.epsilon);
            }
            assert_near(out[i], x, 1e-4 * fabs(x));
            assert_near(out[i], (g > 0 ? -0.001 : 0.001) * steps, 1e-4 * 0.001 * steps);
        }
    }
}

/* Lazy: batches without the row change neither its values nor its state, so that its next step is as if they had not been. */
static void test_lazy(void **unused) {
    (void)unused;
    for (size_t o = 0; o < OPTIMISERS; o++) {
        const ct_table_spec spec = spec_of(ALL[o], 6);
        float wanted[6], got[6], rows[12];
        const float gradient[12] = {1, 2, 3, 4, 5, 6, -1, 1, -1, 1, -1, 1};
        run_one(&spec, gradient, 3, wanted);
        ct_store *store;
        ct_ticket *ticket;
        assert_ok(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status));
        assert_ok(ct_ticket_create(store, &ticket, &status));
        for (int i = 0; i < 9; i++) { /* key 42 in every third batch, 43 in all */
            const uint64_t keys[2] = {i % 3 ? 43 : 42, 43};
            const ct_key_column column = {.keys = i % 3 ? keys + 1 : keys};
            const ct_lookup lookup = {
                .mode = CT_LOOKUP_TRAIN, .rows = i % 3 ? 1 : 2, .block_rows = 256, .columns = &column, .column_count = 1};
            assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
            assert_ok(ct_store_acquire(store, ticket, &status));
            assert_ok(ct_store_apply(store, ticket, i % 3 ? gradient + 6 : gradient, 6, NULL, &status));
            ct_store_release(store, ticket);
        }
        const uint64_t keys[2] = {42, 43};
        const ct_key_column column = {.keys = keys};
        const ct_lookup lookup = {.mode = CT_LOOKUP_READ, .rows = 2, .columns = &column, .column_count = 1};
        assert_ok(ct_store_prefetch(store, ticket, &lookup, &status));
        assert_ok(ct_store_acquire(store, ticket, &status));
        ct_store_gather(store, ticket, 0, 2, false, rows, 6);
        ct_store_release(store, ticket);
        memcpy(got, rows, sizeof got);
        assert_memory_equal(got, wanted, sizeof got);
        ct_ticket_destroy(ticket);
        ct_store_destroy(store);
    }
}

static void test_refusals(void **unused) {
    (void)unused;
    ct_store *store = NULL;
#define REFUSED(of, field, value)                                                                       \
    do {                                                                                                \
        ct_table_spec bad = spec_of(of, 4);                                                             \
        bad.field = value;                                                                              \
        assert_int_equal(ct_store_create(&bad, 1, ct_device_cpu(), NULL, &store, &status), CT_INVALID); \
        assert_non_null(strstr(status.message, "ids"));                                                 \
    } while (0)
    REFUSED(CT_ROW_ADAM, beta1, 1.0f);
    REFUSED(CT_ROW_ADAM, beta1, -0.1f);
    REFUSED(CT_ROW_ADAM, beta2, 1.0f);
    REFUSED(CT_ROW_ADAM, beta2, NAN);
    REFUSED(CT_ROW_ADAM, epsilon, 0.0f);
    REFUSED(CT_ROW_ADAGRAD, initial_accumulator, 0.0f);
    REFUSED(CT_ROW_SGD, l2, -1.0f);
    REFUSED(CT_ROW_SGD, l2, INFINITY);
    ct_table_spec unknown = spec_of((ct_row_optimiser)7, 4);
    assert_int_equal(ct_store_create(&unknown, 1, ct_device_cpu(), NULL, &store, &status), CT_UNSUPPORTED);
    assert_null(store);
}

static void test_names(void **unused) {
    (void)unused;
    static const char *const names[] = {"adagrad_rowwise", "sgd", "adagrad", "adam"};
    for (size_t i = 0; i < OPTIMISERS; i++) {
        ct_row_optimiser found;
        assert_string_equal(ct_row_optimiser_name(ALL[i]), names[i]);
        assert_true(ct_row_optimiser_find(names[i], &found));
        assert_int_equal(found, ALL[i]);
    }
    ct_row_optimiser kept = CT_ROW_SGD;
    assert_false(ct_row_optimiser_find("adamax", &kept));
    assert_int_equal(kept, CT_ROW_SGD);
    assert_null(ct_row_optimiser_name((ct_row_optimiser)OPTIMISERS));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_by_hand),  cmocka_unit_test(test_adam_by_the_paper),
        cmocka_unit_test(test_lazy),      cmocka_unit_test(test_refusals), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
