/* Vectors that several models have in common are in memory once: counted byte by byte, by a device that counts. */
#include <stdatomic.h>

#include "tests/model/fixture.h"

enum { LOG_ROWS = 900, BATCH_ROWS = 300, VECTOR_TABLE = 1 };

/* --- a device that counts what it has given out --- */

static atomic_size_t live_bytes;
static ct_device_ops counting_ops;
static ct_device counting;

static ct_code counted_alloc(ct_device *device, ct_memory_kind kind, size_t bytes, void **out_memory, ct_status *status) {
    (void)device;
    const ct_code code = ct_device_cpu()->ops->memory_alloc(ct_device_cpu(), kind, bytes, out_memory, status);
    if (code == CT_OK) live_bytes += bytes;
    return code;
}

static void counted_free(ct_device *device, ct_memory_kind kind, void *memory, size_t bytes) {
    (void)device;
    if (memory != NULL) live_bytes -= bytes;
    ct_device_cpu()->ops->memory_free(ct_device_cpu(), kind, memory, bytes);
}

static ct_device *counting_device(void) {
    counting = *ct_device_cpu();
    counting_ops = *counting.ops;
    counting_ops.memory_alloc = counted_alloc;
    counting_ops.memory_free = counted_free;
    counting.ops = &counting_ops;
    return &counting;
}

/* --- models --- */

static const char *const sets[] = {"precision=fp32", "embedding.dim=4", "vector.adapter=4"};

static ct_model *make(const ct_schema *schema, ct_pool *pool, uint64_t seed, uint64_t shuffle, ct_model *const *with, size_t count) {
    ct_model_spec *spec = make_spec("dnn", sets, 3);
    const ct_model_options options = {.seed = seed,
                                      .batch_rows = BATCH_ROWS,
                                      .device = &counting,
                                      .pool = pool,
                                      .shuffle_vectors = shuffle,
                                      .vectors_of = with,
                                      .vectors_of_count = count};
    ct_model *model = NULL;
    assert_ok(ct_model_create(schema, spec, &options, &model, &status));
    ct_model_spec_destroy(spec);
    return model;
}

static size_t vector_bytes(const ct_model *model) {
    ct_model_table table;
    ct_model_table_get(model, VECTOR_TABLE, &table);
    assert_true(table.bytes > 0 && table.rows > 0);
    return (size_t)table.bytes;
}

static void assert_same_scores(ct_model *a, ct_model *b, const ct_batch *rows) {
    float *of_a = score_all(a, rows), *of_b = score_all(b, rows);
    assert_memory_equal(of_a, of_b, rows->rows * sizeof *of_a);
    free(of_a);
    free(of_b);
}

static void test_vectors_are_held_once(void **state) {
    (void)state;
    char *folder = temp_folder(), *log = shop_log(folder, "train.tsv", 0, LOG_ROWS, -1), *saved = temp_path(folder, "saved");
    ct_schema *schema = shop_schema(folder);
    ct_pool *pool = make_pool(2);
    ct_batch *rows = read_all(schema, log, LOG_ROWS);
    counting_device();

    ct_model *first = make(schema, pool, 1, 0, NULL, 0);
    size_t before = live_bytes;
    ct_model *alone = make(schema, pool, 2, 0, NULL, 0);
    const size_t whole = live_bytes - before;
    before = live_bytes;
    ct_model *sharing = make(schema, pool, 2, 0, &first, 1);
    assert_int_equal(live_bytes - before, whole - vector_bytes(first));
    /* Both learn the same, and the content is the content. */
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        train_on(alone, log, epoch, 0, 100);
        train_on(sharing, log, epoch, 0, 100);
    }
    assert_same_scores(alone, sharing, rows);
    char a[CT_DIGEST_HEX_BYTES], b[CT_DIGEST_HEX_BYTES];
    digest_of(alone, a);
    digest_of(sharing, b);
    assert_string_equal(a, b);

    /* Shuffled ones are others; of one seed the same again. */
    before = live_bytes;
    ct_model *shuffled = make(schema, pool, 2, 7, &first, 1);
    assert_int_equal(live_bytes - before, whole);
    before = live_bytes;
    ct_model *const with[] = {first, shuffled};
    ct_model *shuffled_too = make(schema, pool, 3, 7, with, 2);
    assert_int_equal(live_bytes - before, whole - vector_bytes(first));

    /* A model from a folder brings a copy, which goes. */
    save_model(sharing, saved);
    ct_model *opened = NULL;
    assert_ok(ct_model_open(saved, CT_MODEL_TRAIN, &counting, pool, &opened, &status));
    before = live_bytes;
    const size_t copy = vector_bytes(opened);
    assert_ok(ct_model_share_vectors(opened, first, &status));
    assert_int_equal(before - live_bytes, copy);
    assert_same_scores(alone, opened, rows);

    /* Whoever goes first, the others keep them; the last one takes them along. */
    ct_model_destroy(first);
    assert_same_scores(alone, sharing, rows);
    ct_model_destroy(sharing);
    assert_same_scores(alone, opened, rows);
    ct_model_destroy(opened);
    ct_model_destroy(shuffled);
    ct_model_destroy(shuffled_too);
    ct_model_destroy(alone);
    assert_int_equal(live_bytes, 0);

    ct_batch_destroy(rows);
    ct_pool_destroy(pool);
    ct_schema_destroy(schema);
    free(log);
    free(saved);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors_are_held_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
