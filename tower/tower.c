/* The public face of a tower: parameters with their names and first values, and dispatch to the backend. */
#include "tower/tower.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "base/pause.h"
#include "base/random.h"
#include "tower/tower_internal.h"

enum { CT_HUGE_BYTES = 2 << 20 };

void *ct_tower_memory(size_t bytes) {
    const size_t alignment = bytes >= CT_HUGE_BYTES / 4 ? CT_HUGE_BYTES : 64;
    if (bytes == 0) bytes = 1;
    if (bytes > SIZE_MAX / 2) return NULL;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void *memory = aligned_alloc(alignment, rounded);
    if (memory == NULL) return NULL;
    if (alignment == CT_HUGE_BYTES) (void)madvise(memory, rounded, MADV_HUGEPAGE); /* a hint: its failure changes nothing */
    for (size_t done = 0; done < rounded; done += CT_HUGE_BYTES) {
        memset((char *)memory + done, 0, rounded - done < CT_HUGE_BYTES ? rounded - done : CT_HUGE_BYTES);
        ct_pause_point();
    }
    return memory;
}

void ct_tower_memory_free(void *memory) { free(memory); }

static size_t align_floats(size_t count) { return (count + CT_TOWER_ALIGN - 1) / CT_TOWER_ALIGN * CT_TOWER_ALIGN; }

static size_t add_parameter(ct_parameter *parameter, const char *owner, const char *what, size_t rows, size_t columns, size_t offset) {
    static const char *const prefixes[CT_COPY_KINDS] = {"", "optimizer.m.", "optimizer.v.", "average."};
    for (size_t i = 0; i < CT_COPY_KINDS; ++i) {
        snprintf(parameter->names[i], sizeof parameter->names[i], "%s%.*s.%s", prefixes[i], CT_LAYER_NAME_BYTES - 1, owner, what);
    }
    parameter->rows = rows;
    parameter->columns = columns;
    parameter->offset = offset;
    return offset + align_floats(rows * columns);
}

static size_t add_layer(ct_parameter *four, const ct_layer_spec *layer, size_t in, size_t offset) {
    const bool weight = ct_tower_has_weight(layer->kind);
    const size_t out = weight ? layer->out : 0, of_norm = layer->normalise ? out : 0;
    offset = add_parameter(&four[CT_WEIGHT], layer->name, "weight", weight ? in : 0, out, offset);
    offset = add_parameter(&four[CT_BIAS], layer->name, "bias", 1, layer->no_bias ? 0 : out, offset);
    if (layer->no_bias) offset += align_floats(out); /* zeros */
    offset = add_parameter(&four[CT_SCALE], layer->name, "scale", 1, of_norm, offset);
    return add_parameter(&four[CT_SHIFT], layer->name, "shift", 1, of_norm, offset);
}

static bool has_average(const ct_tower *tower) { return tower->options.average_power > 0; }

static ct_code allocate(ct_tower *tower, ct_status *status) {
    const size_t bytes = tower->floats * sizeof(float);
    const bool training = tower->options.batch_rows > 0, moments = training && tower->options.optimiser == CT_DENSE_ADAM;
    float **copies[] = {&tower->weights, &tower->m, &tower->v, &tower->average};
    const bool wanted[] = {true, moments, moments, training && has_average(tower)};
    for (size_t i = 0; i < CT_COPY_KINDS; ++i) {
        if (!wanted[i]) continue;
        *copies[i] = ct_tower_memory(bytes);
        if (*copies[i] == NULL) return ct_fail_memory(status, bytes, "the tower's weights");
    }
    return CT_OK;
}

static ct_code plan_parameters(ct_tower *tower, ct_status *status) {
    const ct_tower_spec *spec = &tower->spec;
    tower->parameter_count = CT_PARAMETER_KINDS * (spec->adapter_count + spec->layer_count);
    tower->parameters = calloc(tower->parameter_count, sizeof *tower->parameters);
    tower->tensors = calloc(tower->parameter_count, sizeof *tower->tensors);
    if (tower->parameters == NULL || tower->tensors == NULL) {
        return ct_fail_memory(status, tower->parameter_count * sizeof *tower->parameters, "the tower's names");
    }
    size_t offset = 0;
    for (size_t i = 0; i < spec->adapter_count; ++i) {
        const ct_adapter_spec *a = &spec->adapters[i];
        ct_layer_spec as_layer = {.kind = CT_LAYER_DENSE, .out = a->out};
        memcpy(as_layer.name, a->name, sizeof as_layer.name);
        offset = add_layer(&tower->parameters[ct_tower_adapter_parameter(i, CT_WEIGHT)], &as_layer, a->in, offset);
    }
    for (size_t i = 0; i < spec->layer_count; ++i) {
        ct_parameter *four = &tower->parameters[ct_tower_layer_parameter(spec, i, CT_WEIGHT)];
        offset = add_layer(four, &spec->layers[i], ct_tower_layer_in(spec, i), offset);
    }
    size_t weights = 0;
    for (size_t i = 0; i < tower->parameter_count; ++i) {
        const size_t count = tower->parameters[i].rows * tower->parameters[i].columns;
        if (count > 0) tower->tensors[tower->tensor_count++] = i;
        weights += count;
    }
    const size_t most = tower->options.elsewhere_floats;
    if (most > 0 && weights > most)
        return ct_fail(status, CT_INVALID, "tower: it has %zu weights, but there are at most %zu for it", weights, most);
    tower->floats = offset;
    return allocate(tower, status);
}

/* Uniform in [-limit, limit), a pure function of seed, name and element. */
static void first_weights(const ct_parameter *parameter, uint64_t seed, double limit, float *data) {
    const uint64_t number = ct_hash64(parameter->names[CT_COPY_WEIGHTS], strlen(parameter->names[CT_COPY_WEIGHTS]), 0);
    const size_t count = parameter->rows * parameter->columns;
    for (size_t i = 0; i < count; i += 4) {
        const ct_random4 random = ct_random(seed, CT_PLACE_TOWER, 0, number, (uint32_t)(i / 4));
        for (size_t k = 0; k < 4 && i + k < count; ++k) {
            data[i + k] = (float)((2.0 * (double)ct_unit_float(random.word[k]) - 1.0) * limit);
        }
    }
}

static void set_unit_weights(const ct_tower *tower, float *weights) {
    const ct_tower_spec *spec = &tower->spec;
    if (spec->unit_range_count == 0 || weights == NULL) return;
    const ct_layer_spec *head = &spec->layers[spec->layer_count - 1];
    float *w = weights + tower->parameters[ct_tower_layer_parameter(spec, spec->layer_count - 1, CT_WEIGHT)].offset;
    for (size_t i = 0; i < head->input_count; ++i) {
        const size_t width = ct_tower_slab_width(spec, head->inputs[i]);
        for (size_t column = 0; column < width; ++column, w += head->out) {
            for (size_t k = 0; k < head->out && ct_tower_is_unit(spec, head->inputs[i], column); ++k) w[k] = 1.0f;
        }
    }
}

static void fill_first_weights(ct_tower *tower) {
    const ct_tower_spec *spec = &tower->spec;
    for (size_t i = 0; i < tower->parameter_count; i += CT_PARAMETER_KINDS) {
        const ct_parameter *p = &tower->parameters[i + CT_WEIGHT], *scale = &tower->parameters[i + CT_SCALE];
        const size_t owner = i / CT_PARAMETER_KINDS;
        const bool relu = owner < spec->adapter_count ? spec->adapters[owner].hidden
                                                      : spec->layers[owner - spec->adapter_count].activation == CT_ACTIVATION_RELU;
        const double fan = relu ? (double)p->rows : (double)(p->rows + p->columns);
        if (p->rows > 0) first_weights(p, tower->options.seed, sqrt(6.0 / fan), tower->weights + p->offset);
        for (size_t k = 0; k < scale->columns; ++k) tower->weights[scale->offset + k] = 1.0f;
    }
    set_unit_weights(tower, tower->weights);
    if (tower->average != NULL) memcpy(tower->average, tower->weights, tower->floats * sizeof(float));
}

ct_code ct_tower_create(const ct_tower_spec *spec, const ct_tower_options *options, ct_pool *pool, ct_tower **out_tower,
                        ct_status *status) {
    CT_TRY(ct_tower_spec_check(spec, options, status));
    if (options->batch_rows > 0 && pool == NULL) return ct_fail(status, CT_INVALID, "tower: training needs a pool of threads");
    ct_tower *tower = calloc(1, sizeof *tower);
    if (tower == NULL) return ct_fail_memory(status, sizeof *tower, "a tower");
    tower->ops = ct_tower_cpu_ops();
    tower->options = *options;
    tower->pool = pool;
    ct_code code;
    CT_TRY_GOTO(code, ct_tower_spec_copy(spec, &tower->spec, status), fail);
    CT_TRY_GOTO(code, plan_parameters(tower, status), fail);
    CT_TRY_GOTO(code, tower->ops->create(tower, status), fail);
    if (options->elsewhere_floats == 0) {
        fill_first_weights(tower);
        ct_tower_weights_changed(tower);
    }
    *out_tower = tower;
    return CT_OK;
fail:
    ct_tower_destroy(tower);
    return code;
}

void ct_tower_destroy(ct_tower *tower) {
    if (tower == NULL) return;
    tower->ops->destroy(tower);
    ct_tower_memory_free(tower->weights);
    ct_tower_memory_free(tower->m);
    ct_tower_memory_free(tower->v);
    ct_tower_memory_free(tower->average);
    free(tower->tensors);
    free(tower->parameters);
    ct_tower_spec_free(&tower->spec);
    free(tower);
}

ct_precision ct_tower_precision(const ct_tower *tower) { return tower->precision; }

const char *ct_tower_instruction_set(void) { return ct_cpu_instruction_set(); }

size_t ct_tower_block_rows(size_t batch_rows) { return batch_rows <= 512 ? 128 : 256; }

size_t ct_tower_parameters(const ct_tower *tower) {
    size_t count = 0;
    for (size_t i = 0; i < tower->parameter_count; ++i) count += tower->parameters[i].rows * tower->parameters[i].columns;
    for (size_t i = 0; i < tower->spec.unit_range_count; ++i) {
        count -= tower->spec.unit_ranges[i].count * ct_tower_outputs(&tower->spec);
    }
    return count;
}

double ct_tower_flops_per_row(const ct_tower *tower) {
    double flops = 0;
    for (size_t i = CT_WEIGHT; i < tower->parameter_count; i += CT_PARAMETER_KINDS) {
        flops += 2.0 * (double)tower->parameters[i].rows * (double)tower->parameters[i].columns;
    }
    return flops;
}

size_t ct_tower_tensor_count(const ct_tower *tower) {
    const size_t copies = (size_t)(1 + (tower->m != NULL ? 2 : 0) + (tower->average != NULL ? 1 : 0));
    return copies * tower->tensor_count;
}

ct_tensor ct_tower_tensor(ct_tower *tower, size_t index) {
    float *const slabs[] = {tower->weights, tower->m, tower->v, tower->average};
    size_t copy = 0;
    for (size_t skip = index / tower->tensor_count; skip > 0; --skip) {
        do ++copy;
        while (slabs[copy] == NULL);
    }
    const ct_parameter *p = &tower->parameters[tower->tensors[index % tower->tensor_count]];
    const bool only_average = tower->options.batch_rows == 0 && has_average(tower);
    return (ct_tensor){
        .name = p->names[only_average ? CT_COPY_AVERAGE : copy], .rows = p->rows, .columns = p->columns, .data = slabs[copy] + p->offset};
}

int64_t ct_tower_step(const ct_tower *tower) { return tower->step; }
void ct_tower_set_step(ct_tower *tower, int64_t step) { tower->step = step; }

void ct_tower_weights_changed(ct_tower *tower) {
    set_unit_weights(tower, tower->weights);
    set_unit_weights(tower, tower->average);
    tower->ops->weights_changed(tower);
}

void ct_tower_set_learning_rate(ct_tower *tower, float learning_rate) { tower->options.learning_rate = learning_rate; }

void ct_tower_set_position(ct_tower *tower, uint32_t epoch, int64_t first_row) {
    tower->epoch = epoch;
    tower->first_row = first_row;
}

ct_code ct_workspace_create(const ct_tower *tower, ct_workspace **out_workspace, ct_status *status) {
    return tower->ops->workspace_create(tower, out_workspace, status);
}
void ct_workspace_destroy(ct_workspace *workspace) {
    if (workspace != NULL) workspace->ops->workspace_destroy(workspace);
}
float *ct_workspace_x(ct_workspace *workspace, size_t *out_stride) { return workspace->ops->workspace_x(workspace, out_stride); }
float *ct_workspace_raw(ct_workspace *workspace, size_t *out_stride) { return workspace->ops->workspace_raw(workspace, out_stride); }

void ct_tower_context(const ct_tower *tower, ct_workspace *workspace) { tower->ops->context(tower, workspace); }
void ct_tower_forward(const ct_tower *tower, ct_workspace *workspace, size_t rows, bool shared_context, float *out_logits) {
    tower->ops->forward(tower, workspace, rows, shared_context, out_logits);
}

float *ct_tower_block_x(ct_tower *tower, size_t block, size_t *out_stride) { return tower->ops->block_x(tower, block, out_stride); }
float *ct_tower_block_raw(ct_tower *tower, size_t block, size_t *out_stride) { return tower->ops->block_raw(tower, block, out_stride); }
void ct_tower_block_forward(ct_tower *tower, size_t block, size_t rows, float *out_logits) {
    tower->ops->block_forward(tower, block, rows, out_logits);
}
void ct_tower_block_backward(ct_tower *tower, size_t block, size_t rows, const float *logit_gradients) {
    tower->ops->block_backward(tower, block, rows, logit_gradients);
}
ct_code ct_tower_update(ct_tower *tower, size_t rows, ct_status *status) {
    CT_TRY(tower->ops->update(tower, rows, status));
    ++tower->step;
    return CT_OK;
}
void ct_tower_gradients_begin(ct_tower *tower, size_t rows) { tower->ops->gradients_begin(tower, rows); }
void ct_tower_block_done(ct_tower *tower, size_t block) { tower->ops->block_done(tower, block); }
size_t ct_tower_gradient_tasks(const ct_tower *tower) { return tower->ops->gradient_tasks(tower); }
void ct_tower_gradient_task(ct_tower *tower, size_t task) { tower->ops->gradient_task(tower, task); }
void ct_tower_weight_gradient(ct_tower *tower, size_t rows, size_t tensor, float *out_gradient) {
    tower->ops->weight_gradient(tower, rows, tower->tensors[tensor], out_gradient);
}
