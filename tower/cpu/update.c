/* Weight gradients and the optimiser's step, in two runs of the pool (the first may be the caller's): first all gradients, each checked for
 * what is not finite; then, only if all are finite, the step. A task of the first is a panel of 64 output columns of one layer; it goes
 * through the batch's blocks in order and adds each block's finished product, so neither the threads nor who computes a block's product
 * change a bit. A task of the second is some rows of one layer's weights: they stream through the cache with their state, and are packed at
 * once, while they are in it.
 */
#include <math.h>
#include <sched.h>
#include <string.h>

#include "tower/cpu/cpu.h"

typedef struct update_task {
    ct_tower *tower;
    ct_cpu *cpu;
    ct_step_rule rule, small_rule; /* small_rule: without l2, which only some of the small parameters get */
} update_task;

/* Tasks: first the full panels of all layers, then the narrow ones, so that the last tasks of a run are short. */
static const ct_cpu_layer *find_layer(const ct_cpu *cpu, size_t task, size_t *out_panel) {
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        *out_panel = task;
        if (task < layer->full_panels) return layer;
        task -= layer->full_panels;
    }
    const ct_cpu_layer *layer = cpu->layers;
    while (task >= layer->panel_count - layer->full_panels) task -= layer->panel_count - layer->full_panels, ++layer;
    *out_panel = layer->full_panels;
    return layer;
}

static float *panel_gradient(const ct_cpu *cpu, const ct_cpu_layer *layer, size_t panel) {
    return cpu->gradients + layer->gradient_offset + panel * layer->in_padded * cpu->panel_columns;
}

/* Puts a sum of `partial` into the place of its parameter. */
static void spread_small(const ct_tower *tower, const ct_cpu *cpu, const float *partial) {
    const ct_tower_spec *spec = &tower->spec;
    const ct_parameter *parameters = tower->parameters;
    const ct_cpu_head *head = &cpu->head;
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        const size_t from[CT_PARAMETER_KINDS] = {0, layer->partial_bias, layer->partial_scale, layer->partial_shift};
        for (size_t k = CT_BIAS; k < CT_PARAMETER_KINDS; ++k) {
            const ct_parameter *p = &parameters[ct_tower_layer_parameter(spec, l, (ct_parameter_kind)k)];
            memcpy(cpu->small + p->offset, partial + from[k], p->columns * sizeof(float));
        }
    }
    float *to = cpu->small + head->weight;
    for (size_t i = 0; i < head->input_count; ++i) {
        for (size_t k = 0; k < cpu->slabs[head->inputs[i]].width; ++k, to += head->outputs) {
            const bool unit = ct_tower_is_unit(spec, head->inputs[i], k);
            for (size_t o = 0; o < head->outputs; ++o) {
                to[o] = unit ? 0.0f : partial[head->partial + o * head->columns + head->at[i] + k];
            }
        }
    }
    memcpy(cpu->small + head->bias, partial + head->partial_bias, head->outputs * sizeof(float));
    for (size_t i = 0; i < spec->adapter_count; ++i) {
        const ct_cpu_adapter *adapter = &cpu->adapters[i];
        const size_t out = adapter->spec->out;
        to = cpu->small + adapter->weight;
        for (size_t k = 0; k < adapter->spec->in; ++k) {
            memcpy(to + k * out, partial + adapter->partial + k * adapter->padded, out * sizeof *to);
        }
        memcpy(cpu->small + adapter->bias, partial + adapter->partial_bias, out * sizeof *to);
    }
}

/* --- gradients --- */

void ct_cpu_panel_product(const ct_cpu *cpu, ct_cpu_scratch *scratch, size_t l, size_t panel, const ct_cpu_rows *kept, bool add) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t kind = ct_cpu_panel_kind(layer, panel), at = ct_cpu_panel_at(cpu, panel) * ct_cpu_item(cpu);
    float *gradient = panel_gradient(cpu, layer, panel);
    if (!cpu->own) {
        ct_product_run(layer->panels[kind].gradient, scratch->executor, layer->in_padded, kept->slabs[layer->input].transposed,
                       (const char *)kept->dz[l] + at, gradient, add);
        return;
    }
    const ct_tile_gradient own = {.a = kept->slabs[layer->input].transposed,
                                  .b = kept->dz[l],
                                  .rows = cpu->block_rows,
                                  .in = layer->in_padded,
                                  .out = layer->out_padded,
                                  .column = panel * cpu->panel_columns,
                                  .columns = layer->panels[kind].columns,
                                  .c = gradient,
                                  .add = add};
    ct_tiles_gradient(&own);
}

void ct_cpu_gradients_begin(ct_tower *tower, size_t rows) {
    ct_cpu *cpu = ct_cpu_of(tower);
    for (size_t b = 0; b < cpu->block_count; ++b) atomic_store_explicit(&cpu->done[b], false, memory_order_relaxed);
    cpu->begun_rows = rows;
}

void ct_cpu_block_done(ct_tower *tower, size_t block) { atomic_store_explicit(&ct_cpu_of(tower)->done[block], true, memory_order_release); }

size_t ct_cpu_gradient_tasks(const ct_tower *tower) { return ct_cpu_of(tower)->task_count + 1; }

/* A block takes a millisecond at most; but where another program has the processor of the thread that works on it, it takes many. */
static void wait_for_block(const ct_cpu *cpu, size_t block) {
    for (size_t spins = 0; !atomic_load_explicit(&cpu->done[block], memory_order_acquire); ++spins) {
        if (spins > 1000) (void)sched_yield();
    }
}

void ct_cpu_gradient_task(ct_tower *tower, size_t task) {
    ct_cpu *cpu = ct_cpu_of(tower);
    const size_t blocks = ct_round_up(cpu->begun_rows, cpu->block_rows) / cpu->block_rows;
    if (task == cpu->task_count) { /* the small ones */
        float *partial = cpu->partial;
        for (size_t b = 0; b < blocks; ++b) {
            wait_for_block(cpu, b);
            if (b == 0) {
                memcpy(partial, cpu->blocks[0].partial, cpu->partial_floats * sizeof *partial);
            } else {
                ct_loop_add(cpu->blocks[b].partial, cpu->partial_floats, partial);
            }
        }
        cpu->finite[task] = ct_loop_finite(partial, cpu->partial_floats);
        spread_small(tower, cpu, partial);
        return;
    }
    size_t panel;
    const ct_cpu_layer *layer = find_layer(cpu, task, &panel);
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    for (size_t b = 0; b < blocks; ++b) {
        wait_for_block(cpu, b);
        ct_cpu_panel_product(cpu, scratch, (size_t)(layer - cpu->layers), panel, &cpu->blocks[b], b > 0);
    }
    ct_cpu_scratch_give(cpu, scratch);
    const size_t columns = layer->panels[ct_cpu_panel_kind(layer, panel)].columns;
    cpu->finite[task] = ct_loop_finite(panel_gradient(cpu, layer, panel), layer->in_padded * columns);
}

/* --- the step --- */

/* The step of rows [row, end) of a matrix (rows, n) that begins at `offset`. */
static void step_at(const update_task *update, const ct_step_rule *rule, const ct_panel_gradient *gradient, size_t offset, size_t row,
                    size_t end, size_t n) {
    ct_tower *tower = update->tower;
    float *w = tower->weights + offset;
    float *average = tower->average == NULL ? NULL : tower->average + offset;
    if (tower->options.optimiser == CT_DENSE_ADAM) {
        ct_loop_adam(rule, gradient, row, end, n, w, tower->m + offset, tower->v + offset, average);
    } else {
        ct_loop_sgd(rule, gradient, row, end, n, w, average);
    }
}

/* A parameter whose gradient stands in panels: the matrix of a DENSE or CROSS. */
static bool in_panels(const ct_tower *tower, size_t parameter) {
    const size_t owner = parameter / CT_PARAMETER_KINDS, adapters = tower->spec.adapter_count;
    return owner >= adapters && parameter % CT_PARAMETER_KINDS == CT_WEIGHT && owner - adapters < ct_cpu_of(tower)->layer_count;
}

/* l2 of the HEAD's trained weights and the adapters'. */
static void decay_small(const ct_tower *tower, ct_cpu *cpu) {
    const ct_tower_spec *spec = &tower->spec;
    const ct_cpu_head *head = &cpu->head;
    const float l2 = tower->options.l2;
    size_t at = head->weight;
    for (size_t i = 0; i < head->input_count; ++i) {
        for (size_t k = 0; k < cpu->slabs[head->inputs[i]].width; ++k, at += head->outputs) {
            if (ct_tower_is_unit(spec, head->inputs[i], k)) continue;
            for (size_t o = 0; o < head->outputs; ++o) cpu->small[at + o] += l2 * tower->weights[at + o];
        }
    }
    for (size_t i = 0; i < spec->adapter_count; ++i) {
        const size_t first = cpu->adapters[i].weight, count = spec->adapters[i].in * spec->adapters[i].out;
        for (size_t k = 0; k < count; ++k) cpu->small[first + k] += l2 * tower->weights[first + k];
    }
}

static void step_small(const update_task *update) {
    ct_tower *tower = update->tower;
    ct_cpu *cpu = update->cpu;
    if (tower->options.l2 > 0) decay_small(tower, cpu);
    for (size_t i = 0; i < tower->parameter_count; ++i) {
        const ct_parameter *p = &tower->parameters[i];
        const size_t count = p->rows * p->columns;
        if (in_panels(tower, i) || count == 0) continue;
        const ct_panel_gradient gradient = {.values = cpu->small + p->offset, .columns = count};
        step_at(update, &update->small_rule, &gradient, p->offset, 0, 1, count);
    }
    ct_cpu_pack_small(tower, &cpu->weights);
}

/* The first one is the small parameters, which are slow for their size; then pieces of rows. */
static void step_task(void *context, size_t task, size_t worker) {
    const update_task *update = context;
    const ct_cpu *cpu = update->cpu;
    (void)worker;
    if (task-- == 0) {
        step_small(update);
        return;
    }
    size_t l = 0, i = 0;
    for (size_t pieces; task >= (pieces = i < cpu->layers[l].part_count ? ct_cpu_step_pieces(&cpu->layers[l].parts[i]) : 0);) {
        task -= pieces;
        if (++i >= cpu->layers[l].part_count) ++l, i = 0;
    }
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_part *part = &layer->parts[i];
    const size_t row = task * CT_STEP_ROWS, end = part->k - row < CT_STEP_ROWS ? part->k : row + CT_STEP_ROWS;
    const ct_panel_gradient gradient = {.values = cpu->gradients + layer->gradient_offset,
                                        .panel_stride = layer->in_padded * cpu->panel_columns,
                                        .columns = cpu->panel_columns,
                                        .last_columns = layer->panels[layer->panel_count > layer->full_panels].columns};
    step_at(update, &update->rule, &gradient, layer->weight, part->row + row, part->row + end, layer->out);
    ct_cpu_pack_part(cpu, &cpu->weights, l, i, row, end);
    ct_cpu_pack_back(cpu, l, part->row + row, part->row + end);
}

static void own_gradient_task(void *context, size_t task, size_t worker) {
    (void)worker;
    ct_cpu_gradient_task(context, task);
}

/* Makes the gradients, unless tasks of the caller's have; false where one is not finite. */
static bool finish_gradients(ct_tower *tower, size_t rows) {
    ct_cpu *cpu = ct_cpu_of(tower);
    if (cpu->begun_rows != rows) {
        ct_cpu_gradients_begin(tower, rows);
        for (size_t b = 0; b < cpu->block_count; ++b) ct_cpu_block_done(tower, b);
        ct_pool_run(tower->pool, ct_cpu_gradient_tasks(tower), own_gradient_task, tower);
    }
    cpu->begun_rows = 0;
    bool finite = true;
    for (size_t i = 0; i <= cpu->task_count; ++i) finite = finite && cpu->finite[i];
    return finite;
}

/* base^exponent by multiplications alone: the same bits with any C library. */
static double power(double base, int64_t exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent /= 2, base *= base) {
        if (exponent % 2 == 1) result *= base;
    }
    return result;
}

static ct_step_rule make_rule(const ct_tower *tower) {
    const ct_tower_options *options = &tower->options;
    const double beta1 = (double)options->beta1, beta2 = (double)options->beta2, power_of_t = (double)options->average_power;
    const int64_t t = tower->step + 1;
    ct_step_rule rule = {.rate = options->learning_rate, .average = (float)((1.0 + power_of_t) / ((double)t + power_of_t))};
    if (options->optimiser != CT_DENSE_ADAM) return rule;
    rule.beta1 = options->beta1;
    rule.beta2 = options->beta2;
    rule.rest1 = (float)(1.0 - beta1);
    rule.rest2 = (float)(1.0 - beta2);
    rule.rate = (float)((double)options->learning_rate / (1.0 - power(beta1, t)));
    rule.root = (float)(1.0 / sqrt(1.0 - power(beta2, t)));
    rule.epsilon = options->epsilon;
    return rule;
}

ct_code ct_cpu_update(ct_tower *tower, size_t rows, ct_status *status) {
    ct_cpu *cpu = ct_cpu_of(tower);
    if (cpu == NULL || rows == 0 || rows > cpu->block_rows * cpu->block_count) {
        return ct_fail(status, CT_INVALID, "tower: an update of %zu rows; must be 1 to the batch of %zu", rows, tower->options.batch_rows);
    }
    update_task update = {.tower = tower, .cpu = cpu};
    if (!finish_gradients(tower, rows)) {
        return ct_fail(status, CT_INVALID,
                       "tower: diverged at step %lld: a gradient is not finite; nothing was changed; a smaller learning rate may help",
                       (long long)tower->step + 1);
    }
    update.small_rule = update.rule = make_rule(tower);
    update.rule.l2 = tower->options.l2;
    ct_pool_run(tower->pool, cpu->step_count + 1, step_task, &update);
    atomic_store(&cpu->stale, cpu->two_sets);
    return CT_OK;
}

void ct_cpu_weight_gradient(ct_tower *tower, size_t rows, size_t parameter, float *out_gradient) {
    ct_cpu *cpu = ct_cpu_of(tower);
    const ct_parameter *p = &tower->parameters[parameter];
    cpu->begun_rows = 0;
    (void)finish_gradients(tower, rows);
    if (!in_panels(tower, parameter)) {
        memcpy(out_gradient, cpu->small + p->offset, p->rows * p->columns * sizeof(float));
        return;
    }
    const ct_cpu_layer *layer = &cpu->layers[parameter / CT_PARAMETER_KINDS - tower->spec.adapter_count];
    for (size_t i = 0; i < p->rows; ++i) {
        for (size_t k = 0; k < p->columns; ++k) {
            const size_t panel = k / cpu->panel_columns, columns = layer->panels[ct_cpu_panel_kind(layer, panel)].columns;
            out_gradient[i * p->columns + k] = panel_gradient(cpu, layer, panel)[i * columns + k % cpu->panel_columns];
        }
    }
}
