/* Wrong descriptions are refused with the name at fault; names, sizes and first values are as the header says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/random.h"
#include "tests/tower/tower_fixture.h"

static ct_spec_builder b;
static ct_tower_options options;

static void reset(void) {
    spec_zoo(&b);
    options = tower_options(CT_PRECISION_FP32, 0);
}

static void refused(const char *part) {
    ct_status status = CT_STATUS_INIT;
    ct_tower *tower = NULL;
    const ct_code code = ct_tower_create(&b.spec, &options, NULL, &tower, &status);
    if (code != CT_INVALID) fail_msg("expected a refusal that names %s, got %s", part, ct_code_name(code));
    if (strstr(status.message, part) == NULL) fail_msg("\"%s\" does not name %s", status.message, part);
    assert_null(tower);
    reset();
}

static void test_refusals(void **state) {
    (void)state;
    reset();
    const size_t last = b.spec.layer_count - 1;
    b.spec.width = 0, refused("first input");
    b.spec.context_width = 38, refused("38 context");
    b.spec.layer_count = 0, refused("0 layers");
    b.spec.layer_count = 65, refused("65 layers");
    spec_dnn(&b, 0, 9, 8, 2), b.spec.layer_count = 2, refused("dense1");
    b.layers[0].kind = CT_LAYER_HEAD, refused("cross0");
    b.layers[0].name[0] = 0, refused("layer 0");
    memset(b.layers[0].name, 'x', CT_LAYER_NAME_BYTES), refused("layer 0");
    strcpy(b.layers[1].name, "cross0"), refused("cross0");
    strcpy(b.layers[1].name, "adapter1"), refused("adapter1");
    b.layers[1].out = 38, refused("cross1");
    b.layers[2].out = 0, refused("dense2");
    b.layers[1].inputs[0] = 2, refused("cross1");
    b.layers[0].inputs[0] = 9, refused("cross0");
    b.layers[2].input_count = 2, refused("dense2");
    b.layers[2].input_count = 0, refused("dense2");
    b.layers[1].activation = CT_ACTIVATION_RELU, refused("cross1");
    b.layers[last].inputs[1] = 0, refused("head6");
    b.layers[last].input_count = 3, refused("dense5"); /* nobody reads it */
    b.layers[last].input_count = 5, refused("head6");
    spec_field_zoo(&b), b.fields[1] = 5, refused("field 1");
    spec_field_zoo(&b), b.fields[1] = 8, refused("field 1"); /* both sides */
    spec_field_zoo(&b), b.fields[4] = 29, refused("field 4");
    spec_field_zoo(&b), b.spec.field_count = 0, refused("fm0");
    spec_field_zoo(&b), b.layers[0].out = 6, refused("fm0");
    spec_field_zoo(&b), b.layers[1].out = 9, refused("rest1");
    spec_field_zoo(&b), b.layers[3].out = 6, refused("dot4");
    spec_field_zoo(&b), b.layers[4].inputs[0] = 2, refused("dot4");
    spec_field_zoo(&b), b.layers[4].out = 21, refused("dot4");
    spec_field_zoo(&b), b.layers[7].inputs[1] = 4, refused("cross7");
    spec_field_zoo(&b), b.layers[7].no_bias = true, refused("cross7");
    spec_field_zoo(&b), b.layers[2].dropout = 1, refused("dense2");
    spec_field_zoo(&b), b.units[0].slab = 1, refused("unit range 0");
    options.average_power = -1, refused("average");
    b.adapters[0].in = 27, refused("adapter0");
    b.adapters[0].raw_column = SIZE_MAX, refused("adapter0");
    b.adapters[0].column = 13, refused("adapter0"); /* both sides */
    b.adapters[1].column = 37, refused("adapter1");
    b.adapters[1].column = 5, b.adapters[1].out = 2, refused("adapter1"); /* over the other */
    strcpy(b.adapters[1].name, "adapter0"), refused("adapter0");
    b.adapters[0].hidden = true, refused("adapter0"); /* whom nobody reads */
    spec_field_zoo(&b), b.adapters[1].in = 17, refused("adapter0");
    spec_field_zoo(&b), b.adapters[1].raw_column = 6, refused("adapter0");
    spec_field_zoo(&b), b.adapters[2].column = 36, refused("adapter2");
    spec_field_zoo(&b), b.adapters[3].hidden = true, refused("adapter2");
    b.units[1].column = 35, refused("unit range 35");
    b.units[1].column = 2, refused("unit ranges");
    spec_dnn(&b, 0, 9, 8, 1), spec_unit(&b, 0, 1), refused("head1");
    options.batch_rows = 10, refused("pool");
    options.batch_rows = 10, options.learning_rate = NAN, refused("learning rate");
    options.batch_rows = 10, options.beta1 = 1.0f, refused("beta1");
    options.batch_rows = 10, options.epsilon = 0.0f, refused("epsilon");
    options.precision = (ct_precision)9, refused("precision");
}

static void test_tensors(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    ct_tower *tower = NULL;
    assert_int_equal(ct_pool_create(1, &pool, &status), CT_OK);
    reset();
    options = tower_options(CT_PRECISION_AUTO, 300);
    assert_int_equal(ct_tower_create(&b.spec, &options, pool, &tower, &status), CT_OK);
    const size_t count = 2 * (b.spec.adapter_count + b.spec.layer_count);
    assert_int_equal(ct_tower_tensor_count(tower), 3 * count);
    assert_string_equal(ct_tower_tensor(tower, 0).name, "adapter0.weight");
    assert_string_equal(ct_tower_tensor(tower, 5).name, "cross0.bias");
    assert_string_equal(ct_tower_tensor(tower, count + 4).name, "optimizer.m.cross0.weight");
    assert_string_equal(ct_tower_tensor(tower, 2 * count).name, "optimizer.v.adapter0.weight");
    /* 21 x 7, 5 x 9, twice 37 x 37, 37 x 45, 45 x 18, 37 x 70, 70 x 5, (37 + 37 + 18 + 5 - 5 units) x 2, with biases */
    const size_t weights = 21 * 7 + 5 * 9 + 2 * 37 * 37 + 37 * 45 + 45 * 18 + 37 * 70 + 70 * 5, head = 37 + 37 + 18 + 5;
    const size_t biases = 7 + 9 + 2 * 37 + 45 + 18 + 70 + 5 + 2;
    assert_int_equal(ct_tower_parameters(tower), weights + biases + 2 * (head - 5));
    assert_float_equal((float)ct_tower_flops_per_row(tower), (float)(2 * (weights + 2 * head)), 0.5f);
    for (size_t i = 0; i < count; ++i) {
        const ct_tensor tensor = ct_tower_tensor(tower, i);
        const size_t floats = tensor.rows * tensor.columns;
        const bool relu =
            strstr(tensor.name, "dense2") != NULL || strstr(tensor.name, "dense4") != NULL || strstr(tensor.name, "dense5") != NULL;
        const double limit = sqrt(6.0 / (relu ? (double)tensor.rows : (double)(tensor.rows + tensor.columns)));
        if (i % 2 == 1) {
            for (size_t k = 0; k < floats; ++k) assert_float_equal(tensor.data[k], 0.0f, 0.0f);
            continue;
        }
        const uint64_t number = ct_hash64(tensor.name, strlen(tensor.name), 0);
        for (size_t k = 0; k < floats; ++k) {
            const size_t column = k / tensor.columns; /* of x, in the HEAD */
            const bool unit = i + 2 == count && column < 37 && (column == 1 || column == 2 || column >= 34);
            const ct_random4 random = ct_random(7, CT_PLACE_TOWER, 0, number, (uint32_t)(k / 4));
            const float expected = (float)((2.0 * (double)ct_unit_float(random.word[k % 4]) - 1.0) * limit);
            assert_float_equal(tensor.data[k], unit ? 1.0f : expected, 0.0f);
        }
    }
    ct_tower_set_step(tower, 41);
    assert_int_equal(ct_tower_step(tower), 41);
    assert_int_equal(ct_tower_update(tower, 0, &status), CT_INVALID);
    assert_int_equal(ct_tower_update(tower, 385, &status), CT_INVALID);
    assert_int_equal(ct_tower_step(tower), 41);
    ct_tower_destroy(tower);
    ct_tower_destroy(NULL);
    ct_workspace_destroy(NULL);
    options.batch_rows = 0; /* no moments without training */
    assert_int_equal(ct_tower_create(&b.spec, &options, NULL, &tower, &status), CT_OK);
    assert_int_equal(ct_tower_tensor_count(tower), count);
    ct_tower_destroy(tower);
    assert_int_equal(ct_tower_block_rows(512), 128);
    assert_int_equal(ct_tower_block_rows(513), 256);
    ct_pool_destroy(pool);
}

/* SGD: w - rate g, from the tower's own gradient; and a tower that only scores gives the logits of one with the same weights that learns.
 */
static void test_sgd(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    ct_tower *tower = NULL;
    assert_int_equal(ct_pool_create(2, &pool, &status), CT_OK);
    spec_dcn(&b, 3, 7, 1, 4, 1);
    options = tower_options(CT_PRECISION_FP32, 64);
    options.optimiser = CT_DENSE_SGD;
    options.learning_rate = 0.5f;
    assert_int_equal(ct_tower_create(&b.spec, &options, pool, &tower, &status), CT_OK);
    assert_int_equal(ct_tower_tensor_count(tower), 6);
    run_batch(tower, pool, &b.spec, 64, 3, 0, 50, NULL);
    float gradients[6][64], before[6][64];
    for (size_t i = 0; i < 6; ++i) {
        const ct_tensor tensor = ct_tower_tensor(tower, i);
        ct_tower_weight_gradient(tower, 50, i, gradients[i]);
        memcpy(before[i], tensor.data, tensor.rows * tensor.columns * sizeof(float));
    }
    assert_int_equal(ct_tower_update(tower, 50, &status), CT_OK);
    for (size_t i = 0; i < 6; ++i) {
        const ct_tensor tensor = ct_tower_tensor(tower, i);
        for (size_t k = 0; k < tensor.rows * tensor.columns; ++k) {
            assert_float_equal(tensor.data[k], before[i][k] - 0.5f * gradients[i][k], 0.0f);
        }
    }
    ct_tower_destroy(tower);
    ct_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refusals), cmocka_unit_test(test_tensors), cmocka_unit_test(test_sgd)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
