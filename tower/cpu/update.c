/* Weight gradients and the optimiser's step, in one or two runs of the pool (the first may be the caller's). Nothing is stepped before all
 * blocks have been passed and found sound: then every gradient is finite (forward.c, backward.c). A task goes through the batch's blocks in
 * order and adds each block's finished product, so neither the threads nor who computes a block's product change a bit.
 *
 * With our own products a task is a piece: some rows of one layer's weights. Their gradient stays in the second cache, and their step
 * follows at once. So weights and their state, which are much more than a cache holds, stream while the other thread's products keep the
 * processor busy, and a gradient is never written to memory. oneDNN's products want to be wider: there a task is a panel of 64 output
 * columns of one layer, and the steps are a second run, whose tasks are pieces. A piece is packed at once, while it is in the cache. */
#include <math.h>
#include <sched.h>
#include <string.h>

#include "tower/cpu/cpu.h"

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
    return cpu->gradients + layer->gradient_offset + panel * layer->in_padded * CT_PANEL_COLUMNS;
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

ct_cpu_piece ct_cpu_find_piece(const ct_cpu *cpu, size_t index) {
    ct_cpu_piece piece = {0};
    for (size_t pieces;; index -= pieces) {
        const ct_cpu_layer *layer = &cpu->layers[piece.l];
        pieces = piece.part < layer->part_count ? ct_cpu_step_pieces(&layer->parts[piece.part]) : 0;
        if (index < pieces) break;
        if (++piece.part >= layer->part_count) ++piece.l, piece.part = 0;
    }
    const size_t k = cpu->layers[piece.l].parts[piece.part].k;
    piece.row = index * CT_STEP_ROWS;
    piece.end = k - piece.row < CT_STEP_ROWS ? k : piece.row + CT_STEP_ROWS;
    return piece;
}

const float *ct_cpu_piece_product(const ct_cpu *cpu, ct_cpu_scratch *scratch, const ct_cpu_piece *piece, const ct_cpu_rows *kept,
                                  bool add) {
    const ct_cpu_layer *layer = &cpu->layers[piece->l];
    const size_t of_part = layer->parts[piece->part].row, row = of_part + piece->row, first = row / CT_TILE_ROWS * CT_TILE_ROWS;
    const ct_tile_gradient gradient = {.a = kept->slabs[layer->input].transposed,
                                       .b = kept->dz[piece->l],
                                       .rows = cpu->block_rows,
                                       .in = layer->in_padded,
                                       .out = layer->out_padded,
                                       .first = first,
                                       .end = ct_round_up(of_part + piece->end, CT_TILE_ROWS),
                                       .c = scratch->sums[0],
                                       .add = add};
    ct_tiles_gradient(&gradient);
    return scratch->sums[0] + (row - first) * layer->out_padded;
}

void ct_cpu_panel_product(const ct_cpu *cpu, ct_cpu_scratch *scratch, size_t l, size_t panel, const ct_cpu_rows *kept, bool add) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t kind = ct_cpu_panel_kind(layer, panel), at = ct_cpu_panel_at(cpu, panel) * ct_cpu_item(cpu);
    ct_product_run(layer->panels[kind].gradient, scratch->executor, layer->in_padded, kept->slabs[layer->input].transposed,
                   (const char *)kept->dz[l] + at, panel_gradient(cpu, layer, panel), add);
}

/* A block takes a millisecond at most; but where another program has the processor of the thread that works on it, it takes many. */
static void wait_for_block(const ct_cpu *cpu, size_t block) {
    for (size_t spins = 0; !atomic_load_explicit(&cpu->done[block], memory_order_acquire); ++spins) {
        if (spins > 1000) (void)sched_yield();
    }
}

/* Of blocks that are done. */
static bool all_sound(const ct_cpu *cpu) {
    bool sound = true;
    for (size_t b = 0; b < ct_cpu_block_count(cpu, cpu->begun_rows); ++b) sound = sound && cpu->sound[b];
    return sound;
}

static void panel_task(ct_cpu *cpu, size_t task) {
    size_t panel;
    const ct_cpu_layer *layer = find_layer(cpu, task, &panel);
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    for (size_t b = 0; b < ct_cpu_block_count(cpu, cpu->begun_rows); ++b) {
        wait_for_block(cpu, b);
        ct_cpu_panel_product(cpu, scratch, (size_t)(layer - cpu->layers), panel, &cpu->blocks[b], b > 0);
    }
    ct_cpu_scratch_give(cpu, scratch);
}

/* --- the step --- */

/* The step of rows [row, end) of a matrix (rows, n) that begins at `offset`. */
static void step_at(const ct_tower *tower, const ct_step_rule *rule, const ct_panel_gradient *gradient, size_t offset, size_t row,
                    size_t end, size_t n) {
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

/* The sums of biases, HEAD and adapters, and their step. */
static void small_task(const ct_tower *tower, ct_cpu *cpu) {
    float *partial = cpu->partial;
    for (size_t b = 0; b < ct_cpu_block_count(cpu, cpu->begun_rows); ++b) {
        wait_for_block(cpu, b);
        if (b == 0) {
            memcpy(partial, cpu->blocks[0].partial, cpu->partial_floats * sizeof *partial);
        } else {
            ct_loop_add(cpu->blocks[b].partial, cpu->partial_floats, partial);
        }
    }
    if (!all_sound(cpu)) return;
    spread_small(tower, cpu, partial);
    if (tower->options.l2 > 0) decay_small(tower, cpu);
    for (size_t i = 0; i < tower->parameter_count; ++i) {
        const ct_parameter *p = &tower->parameters[i];
        const size_t count = p->rows * p->columns;
        if (in_panels(tower, i) || count == 0) continue;
        const ct_panel_gradient gradient = {.values = cpu->small + p->offset, .columns = count};
        step_at(tower, &cpu->small_rule, &gradient, p->offset, 0, 1, count);
    }
    ct_cpu_pack_small(tower, &cpu->weights);
}

/* gradient: of the layer's rows from `first` on. */
static void step_piece(const ct_tower *tower, const ct_cpu *cpu, const ct_cpu_piece *piece, const ct_panel_gradient *gradient,
                       size_t first) {
    const ct_cpu_layer *layer = &cpu->layers[piece->l];
    const size_t row = layer->parts[piece->part].row + piece->row, end = layer->parts[piece->part].row + piece->end;
    step_at(tower, &cpu->rule, gradient, layer->weight + first * layer->out, row - first, end - first, layer->out);
    ct_cpu_pack_part(cpu, &cpu->weights, piece->l, piece->part, piece->row, piece->end);
    ct_cpu_pack_back(cpu, piece->l, row, end);
}

static void own_task(const ct_tower *tower, ct_cpu *cpu, size_t task) {
    const ct_cpu_piece piece = ct_cpu_find_piece(cpu, task);
    const ct_cpu_layer *layer = &cpu->layers[piece.l];
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    ct_panel_gradient gradient = {.columns = layer->out_padded, .last_columns = layer->out_padded};
    for (size_t b = 0; b < ct_cpu_block_count(cpu, cpu->begun_rows); ++b) {
        wait_for_block(cpu, b);
        gradient.values = ct_cpu_piece_product(cpu, scratch, &piece, &cpu->blocks[b], b > 0);
    }
    if (all_sound(cpu)) step_piece(tower, cpu, &piece, &gradient, layer->parts[piece.part].row + piece.row);
    ct_cpu_scratch_give(cpu, scratch);
}

static void step_task(void *context, size_t task, size_t worker) {
    const ct_tower *tower = context;
    const ct_cpu *cpu = ct_cpu_of(tower);
    (void)worker;
    const ct_cpu_piece piece = ct_cpu_find_piece(cpu, task);
    const ct_cpu_layer *layer = &cpu->layers[piece.l];
    const ct_panel_gradient gradient = {.values = cpu->gradients + layer->gradient_offset,
                                        .panel_stride = layer->in_padded * CT_PANEL_COLUMNS,
                                        .columns = CT_PANEL_COLUMNS,
                                        .last_columns = layer->panels[layer->panel_count > layer->full_panels].columns};
    step_piece(tower, cpu, &piece, &gradient, 0);
}

/* --- both --- */

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

/* The step's rule, and no block done. */
static void begin(const ct_tower *tower, ct_cpu *cpu, size_t rows) {
    cpu->small_rule = cpu->rule = make_rule(tower);
    cpu->rule.l2 = tower->options.l2;
    for (size_t b = 0; b < cpu->block_count; ++b) atomic_store_explicit(&cpu->done[b], false, memory_order_relaxed);
    cpu->begun_rows = rows;
}

void ct_cpu_gradients_begin(ct_tower *tower, size_t rows) {
    ct_cpu *cpu = ct_cpu_of(tower);
    begin(tower, cpu, rows);
    for (size_t b = 0; b < cpu->block_count; ++b) cpu->sound[b] = false; /* a block that fails before its backward stays so */
}

void ct_cpu_block_done(ct_tower *tower, size_t block) { atomic_store_explicit(&ct_cpu_of(tower)->done[block], true, memory_order_release); }

/* The small ones are the last task. */
static size_t large_tasks(const ct_cpu *cpu) { return cpu->own ? cpu->piece_count : cpu->panel_count; }
size_t ct_cpu_gradient_tasks(const ct_tower *tower) { return large_tasks(ct_cpu_of(tower)) + 1; }

void ct_cpu_gradient_task(ct_tower *tower, size_t task) {
    ct_cpu *cpu = ct_cpu_of(tower);
    if (task == large_tasks(cpu)) {
        small_task(tower, cpu);
    } else if (cpu->own) {
        own_task(tower, cpu, task);
    } else {
        panel_task(cpu, task);
    }
}

static void own_run_task(void *context, size_t task, size_t worker) {
    (void)worker;
    ct_cpu_gradient_task(context, task);
}

ct_code ct_cpu_update(ct_tower *tower, size_t rows, ct_status *status) {
    ct_cpu *cpu = ct_cpu_of(tower);
    if (cpu == NULL || rows == 0 || rows > cpu->block_rows * cpu->block_count) {
        return ct_fail(status, CT_INVALID, "tower: an update of %zu rows; must be 1 to the batch of %zu", rows, tower->options.batch_rows);
    }
    if (cpu->begun_rows != rows) { /* no tasks of the caller's */
        begin(tower, cpu, rows);
        for (size_t b = 0; b < cpu->block_count; ++b) ct_cpu_block_done(tower, b);
        ct_pool_run(tower->pool, ct_cpu_gradient_tasks(tower), own_run_task, tower);
    }
    const bool sound = all_sound(cpu);
    cpu->begun_rows = 0;
    if (!sound) {
        return ct_fail(
            status, CT_INVALID,
            "tower: diverged at step %lld: a gradient or an output is not finite, or beyond 1e15; nothing was changed; a smaller "
            "learning rate may help",
            (long long)tower->step + 1);
    }
    if (!cpu->own) ct_pool_run(tower->pool, cpu->piece_count, step_task, tower);
    atomic_store(&cpu->stale, cpu->two_sets);
    return CT_OK;
}

/* Rows of `from`, which are `stride` apart, into the place of a parameter's rows [row, end). */
static void write_gradient(const ct_parameter *p, const float *from, size_t stride, size_t row, size_t end, float *out_gradient) {
    for (size_t i = row; i < end; ++i) memcpy(out_gradient + i * p->columns, from + (i - row) * stride, p->columns * sizeof(float));
}

void ct_cpu_weight_gradient(ct_tower *tower, size_t rows, size_t parameter, float *out_gradient) {
    ct_cpu *cpu = ct_cpu_of(tower);
    const ct_parameter *p = &tower->parameters[parameter];
    const size_t blocks = ct_cpu_block_count(cpu, rows);
    ct_cpu_scratch *scratch = cpu->scratch[0];
    if (!in_panels(tower, parameter)) {
        memcpy(cpu->partial, cpu->blocks[0].partial, cpu->partial_floats * sizeof(float));
        for (size_t b = 1; b < blocks; ++b) ct_loop_add(cpu->blocks[b].partial, cpu->partial_floats, cpu->partial);
        spread_small(tower, cpu, cpu->partial);
        write_gradient(p, cpu->small + p->offset, p->columns, 0, p->rows, out_gradient);
        return;
    }
    const size_t l = parameter / CT_PARAMETER_KINDS - tower->spec.adapter_count;
    const ct_cpu_layer *layer = &cpu->layers[l];
    for (size_t i = 0; cpu->own && i < cpu->piece_count; ++i) {
        const ct_cpu_piece piece = ct_cpu_find_piece(cpu, i);
        if (piece.l != l) continue;
        const float *from = NULL;
        for (size_t b = 0; b < blocks; ++b) from = ct_cpu_piece_product(cpu, scratch, &piece, &cpu->blocks[b], b > 0);
        const size_t first = layer->parts[piece.part].row;
        write_gradient(p, from, layer->out_padded, first + piece.row, first + piece.end, out_gradient);
    }
    for (size_t panel = 0; panel < layer->panel_count; ++panel) {
        for (size_t b = 0; b < blocks; ++b) ct_cpu_panel_product(cpu, scratch, l, panel, &cpu->blocks[b], b > 0);
    }
    for (size_t i = 0; i < p->rows && !cpu->own; ++i) {
        for (size_t k = 0; k < p->columns; ++k) {
            const size_t panel = k / CT_PANEL_COLUMNS, columns = layer->panels[ct_cpu_panel_kind(layer, panel)].columns;
            out_gradient[i * p->columns + k] = panel_gradient(cpu, layer, panel)[i * columns + k % CT_PANEL_COLUMNS];
        }
    }
}
