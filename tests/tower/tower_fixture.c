#include "tests/tower/tower_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/math.h"
#include "base/random.h"

void spec_begin(ct_spec_builder *b, size_t context_width, size_t width) {
    memset(b, 0, sizeof *b);
    b->spec = (ct_tower_spec){.context_width = context_width, .width = width};
    b->spec.layers = b->layers;
    b->spec.adapters = b->adapters;
    b->spec.unit_ranges = b->units;
    b->spec.fields = b->fields;
}

static ct_layer_spec *add_layer(ct_spec_builder *b, ct_layer_kind kind, const char *name, size_t out) {
    ct_layer_spec *layer = &b->layers[b->spec.layer_count];
    *layer = (ct_layer_spec){.kind = kind, .out = out, .input_count = 1};
    snprintf(layer->name, sizeof layer->name, "%s%zu", name, b->spec.layer_count);
    ++b->spec.layer_count;
    return layer;
}

size_t spec_dense(ct_spec_builder *b, size_t input, size_t out, ct_activation activation) {
    ct_layer_spec *layer = add_layer(b, CT_LAYER_DENSE, "dense", out);
    layer->inputs[0] = input;
    layer->activation = activation;
    return b->spec.layer_count;
}

size_t spec_cross(ct_spec_builder *b, size_t input) {
    add_layer(b, CT_LAYER_CROSS, "cross", b->spec.width)->inputs[0] = input;
    return b->spec.layer_count;
}

size_t spec_cross_low(ct_spec_builder *b, size_t carry, size_t rank) {
    const size_t inner = spec_dense(b, carry, rank, CT_ACTIVATION_NONE);
    b->layers[inner - 1].no_bias = true;
    ct_layer_spec *layer = add_layer(b, CT_LAYER_CROSS, "cross", b->spec.width);
    layer->inputs[0] = inner;
    layer->inputs[layer->input_count++] = carry;
    return b->spec.layer_count;
}

void spec_field(ct_spec_builder *b, size_t column, size_t dim) {
    b->fields[b->spec.field_count++] = column;
    b->spec.field_dim = dim;
}

size_t spec_fm(ct_spec_builder *b) {
    add_layer(b, CT_LAYER_FM, "fm", b->spec.field_dim);
    return b->spec.layer_count;
}

size_t spec_dot(ct_spec_builder *b, size_t second) {
    const size_t vectors = b->spec.field_count + (second != 0);
    ct_layer_spec *layer = add_layer(b, CT_LAYER_DOT, "dot", vectors * (vectors - 1) / 2 + (second != 0 ? b->spec.field_dim : 0));
    if (second != 0) layer->inputs[layer->input_count++] = second;
    return b->spec.layer_count;
}

size_t spec_rest(ct_spec_builder *b) {
    add_layer(b, CT_LAYER_REST, "rest", b->spec.width - b->spec.field_count * b->spec.field_dim);
    return b->spec.layer_count;
}

void spec_head(ct_spec_builder *b, size_t outputs, size_t input_count, size_t a, size_t c, size_t d) {
    ct_layer_spec *layer = add_layer(b, CT_LAYER_HEAD, "head", outputs);
    layer->input_count = input_count;
    layer->inputs[0] = a;
    layer->inputs[1] = c;
    layer->inputs[2] = d;
}

void spec_adapter(ct_spec_builder *b, size_t raw_column, size_t in, size_t column, size_t out) {
    ct_adapter_spec *adapter = &b->adapters[b->spec.adapter_count];
    *adapter = (ct_adapter_spec){.raw_column = raw_column, .in = in, .column = column, .out = out};
    snprintf(adapter->name, sizeof adapter->name, "adapter%zu", b->spec.adapter_count);
    ++b->spec.adapter_count;
    if (raw_column + in > b->spec.raw_width) b->spec.raw_width = raw_column + in;
}

void spec_two_adapters(ct_spec_builder *b, size_t raw_column, size_t in, size_t hidden, size_t column, size_t out) {
    const size_t end = raw_column + in > b->spec.raw_width ? raw_column + in : b->spec.raw_width;
    spec_adapter(b, raw_column, in, end, hidden);
    b->adapters[b->spec.adapter_count - 1].hidden = true;
    spec_adapter(b, end, hidden, column, out);
}

void spec_unit(ct_spec_builder *b, size_t column, size_t count) {
    b->units[b->spec.unit_range_count++] = (ct_unit_range){.column = column, .count = count};
}

void spec_lr(ct_spec_builder *b, size_t numbers, size_t ids) {
    spec_begin(b, 0, numbers + ids);
    spec_unit(b, numbers, ids);
    spec_head(b, 1, 1, 0, 0, 0);
}

void spec_dnn(ct_spec_builder *b, size_t context_width, size_t width, size_t hidden, size_t depth) {
    spec_begin(b, context_width, width);
    size_t slab = 0;
    for (size_t i = 0; i < depth; ++i) slab = spec_dense(b, slab, hidden, CT_ACTIVATION_RELU);
    spec_head(b, 1, 1, slab, 0, 0);
}

void spec_dcn(ct_spec_builder *b, size_t context_width, size_t width, size_t cross, size_t hidden, size_t depth) {
    spec_begin(b, context_width, width);
    size_t crossed = 0, deep = 0;
    for (size_t i = 0; i < cross; ++i) crossed = spec_cross(b, crossed);
    for (size_t i = 0; i < depth; ++i) deep = spec_dense(b, deep, hidden, CT_ACTIVATION_RELU);
    spec_head(b, 1, 2, crossed, deep, 0);
}

void spec_zoo(ct_spec_builder *b) {
    spec_begin(b, 19, 37);
    spec_adapter(b, 0, 21, 3, 7);
    spec_adapter(b, 21, 5, 25, 9);
    const size_t c1 = spec_cross(b, 0);
    const size_t c2 = spec_cross(b, c1);
    const size_t d1 = spec_dense(b, c1, 45, CT_ACTIVATION_RELU);
    const size_t d2 = spec_dense(b, d1, 18, CT_ACTIVATION_NONE);
    const size_t d3 = spec_dense(b, 0, 70, CT_ACTIVATION_RELU);
    const size_t d4 = spec_dense(b, d3, 5, CT_ACTIVATION_RELU);
    spec_unit(b, 1, 2);
    spec_unit(b, 34, 3);
    spec_head(b, 2, 4, 0, c2, d2);
    b->layers[b->spec.layer_count - 1].inputs[3] = d4;
}

static void begin_with_fields(ct_spec_builder *b, size_t fields, size_t dim, size_t numbers) {
    const size_t of_context = fields / 2 * dim + numbers / 2;
    spec_begin(b, of_context, fields * dim + numbers);
    for (size_t i = 0; i < fields / 2; ++i) spec_field(b, i * dim, dim);
    for (size_t i = 0; i < fields - fields / 2; ++i) spec_field(b, of_context + i * dim, dim);
}

void spec_deepfm(ct_spec_builder *b, size_t fields, size_t dim, size_t numbers, size_t hidden, size_t depth) {
    begin_with_fields(b, fields, dim, numbers);
    const size_t fm = spec_fm(b);
    size_t deep = 0;
    for (size_t i = 0; i < depth; ++i) deep = spec_dense(b, deep, hidden, CT_ACTIVATION_RELU);
    spec_unit(b, 0, dim);
    b->units[0].slab = fm;
    spec_head(b, 1, depth > 0 ? 3 : 2, 0, fm, deep);
}

void spec_dlrm(ct_spec_builder *b, size_t fields, size_t dim, size_t numbers, size_t bottom, size_t top) {
    begin_with_fields(b, fields, dim, numbers);
    const size_t below = spec_dense(b, spec_dense(b, spec_rest(b), bottom, CT_ACTIVATION_RELU), dim, CT_ACTIVATION_RELU);
    const size_t above = spec_dense(b, spec_dense(b, spec_dot(b, below), top, CT_ACTIVATION_RELU), top / 2, CT_ACTIVATION_RELU);
    spec_head(b, 1, 1, above, 0, 0);
}

void spec_field_zoo(ct_spec_builder *b) {
    spec_begin(b, 12, 33);
    const size_t columns[] = {1, 6, 12, 18, 23};
    for (size_t i = 0; i < 5; ++i) spec_field(b, columns[i], 5);
    spec_two_adapters(b, 0, 7, 18, 23, 5);
    spec_two_adapters(b, 25, 9, 4, 6, 5);
    const size_t fm = spec_fm(b);
    const size_t d1 = spec_dense(b, spec_rest(b), 37, CT_ACTIVATION_RELU);
    b->layers[d1 - 1].normalise = true;
    const size_t d2 = spec_dense(b, d1, 5, CT_ACTIVATION_NONE);
    b->layers[d2 - 1].normalise = true;
    const size_t d3 = spec_dense(b, spec_dot(b, d2), 20, CT_ACTIVATION_RELU);
    const size_t c1 = spec_cross_low(b, 0, 6);
    const size_t c2 = spec_cross_low(b, c1, 19);
    const size_t c3 = spec_cross(b, c2);
    const size_t d4 = spec_dense(b, fm, 9, CT_ACTIVATION_RELU);
    const size_t d5 = spec_dense(b, spec_dot(b, 0), 11, CT_ACTIVATION_RELU);
    const size_t d6 = spec_dense(b, d5, 17, CT_ACTIVATION_RELU);
    spec_unit(b, 1, 2);
    b->units[0].slab = d6;
    spec_head(b, 2, 4, d3, c3, d4);
    b->layers[b->spec.layer_count - 1].inputs[3] = d6;
}

ct_tower_options tower_options(ct_precision precision, size_t batch_rows) {
    return (ct_tower_options){.precision = precision,
                              .seed = 7,
                              .optimiser = CT_DENSE_ADAM,
                              .learning_rate = 1e-3f,
                              .beta1 = 0.9f,
                              .beta2 = 0.999f,
                              .epsilon = 1e-8f,
                              .batch_rows = batch_rows};
}

float test_value(uint64_t seed, uint64_t i) {
    const ct_random4 random = ct_random(seed, CT_PLACE_TEST, 0, i, 0);
    return 2.0f * ct_unit_float(random.word[0]) - 1.0f;
}

void fill_row(uint64_t seed, size_t row, float *x, size_t width, float *raw, size_t raw_width) {
    for (size_t i = 0; i < width; ++i) x[i] = test_value(seed, row * 65536 + i);
    for (size_t i = 0; i < raw_width; ++i) raw[i] = test_value(seed + 1, row * 65536 + i);
}

float row_label(uint64_t seed, size_t row, size_t output) { return test_value(seed + 2, row * 16 + output) > 0.3f ? 1.0f : 0.0f; }

float logit_gradient(float logit, float label, size_t rows) { return (float)((ct_sigmoid((double)logit) - (double)label) / (double)rows); }

typedef struct batch_job {
    ct_tower *tower;
    const ct_tower_spec *spec;
    size_t block_rows, first, rows, outputs;
    uint64_t seed;
    float *logits, *gradients;
} batch_job;

static void batch_task(void *context, size_t block, size_t worker) {
    const batch_job *job = context;
    (void)worker;
    const size_t start = block * job->block_rows;
    const size_t count = job->rows - start < job->block_rows ? job->rows - start : job->block_rows;
    size_t x_stride, raw_stride;
    float *x = ct_tower_block_x(job->tower, block, &x_stride), *raw = ct_tower_block_raw(job->tower, block, &raw_stride);
    for (size_t r = 0; r < count; ++r) {
        fill_row(job->seed, job->first + start + r, x + r * x_stride, job->spec->width, raw == NULL ? NULL : raw + r * raw_stride,
                 job->spec->raw_width);
    }
    float *logits = job->logits + start * job->outputs, *gradients = job->gradients + start * job->outputs;
    ct_tower_block_forward(job->tower, block, count, logits);
    for (size_t r = 0; r < count; ++r) {
        for (size_t o = 0; o < job->outputs; ++o) {
            const float label = row_label(job->seed, job->first + start + r, o);
            gradients[r * job->outputs + o] = logit_gradient(logits[r * job->outputs + o], label, job->rows);
        }
    }
    ct_tower_block_backward(job->tower, block, count, gradients);
}

/* Blocks, then gradients. */
static void pass_task(void *context, size_t task, size_t worker) {
    const batch_job *job = context;
    const size_t blocks = (job->rows + job->block_rows - 1) / job->block_rows;
    if (task < blocks) {
        batch_task(context, task, worker);
        ct_tower_block_done(job->tower, task);
    } else {
        ct_tower_gradient_task(job->tower, task - blocks);
    }
}

static void run(ct_tower *tower, ct_pool *pool, const ct_tower_spec *spec, size_t batch_rows, uint64_t seed, size_t first, size_t rows,
                bool gradients_too, float *out_logits) {
    const size_t outputs = spec->layers[spec->layer_count - 1].out;
    float *logits = calloc(rows * outputs, sizeof *logits), *gradients = calloc(rows * outputs, sizeof *gradients);
    if (logits == NULL || gradients == NULL) abort();
    batch_job job = {tower, spec, ct_tower_block_rows(batch_rows), first, rows, outputs, seed, logits, gradients};
    const size_t blocks = (rows + job.block_rows - 1) / job.block_rows;
    if (gradients_too) {
        ct_tower_gradients_begin(tower, rows);
        ct_pool_run(pool, blocks + ct_tower_gradient_tasks(tower), pass_task, &job);
    } else {
        ct_pool_run(pool, blocks, batch_task, &job);
    }
    if (out_logits != NULL) memcpy(out_logits, logits, rows * outputs * sizeof *logits);
    free(logits);
    free(gradients);
}

void run_batch(ct_tower *tower, ct_pool *pool, const ct_tower_spec *spec, size_t batch_rows, uint64_t seed, size_t first, size_t rows,
               float *out_logits) {
    run(tower, pool, spec, batch_rows, seed, first, rows, false, out_logits);
}

void run_pass(ct_tower *tower, ct_pool *pool, const ct_tower_spec *spec, size_t batch_rows, uint64_t seed, size_t first, size_t rows) {
    run(tower, pool, spec, batch_rows, seed, first, rows, true, NULL);
}

uint64_t tower_hash(ct_tower *tower) {
    uint64_t hash = 0;
    for (size_t i = 0; i < ct_tower_tensor_count(tower); ++i) {
        const ct_tensor tensor = ct_tower_tensor(tower, i);
        hash = ct_hash64(tensor.data, tensor.rows * tensor.columns * sizeof(float), hash);
    }
    return hash;
}
