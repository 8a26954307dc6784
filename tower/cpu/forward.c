/* The forward pass, one code for inference and training: adapters, x for products, then layer by layer in chunks, HEAD. */
#include <string.h>

#include "tower/cpu/cpu.h"

static void run_adapters(const ct_tower *tower, const ct_cpu_weights *weights, const ct_cpu_rows *rows, size_t count, bool context,
                         bool candidates) {
    const ct_cpu *cpu = ct_cpu_of(tower);
    const size_t stride = cpu->slabs[0].padded;
    for (size_t i = 0; i < tower->spec.adapter_count; ++i) {
        const ct_cpu_adapter *adapter = &cpu->adapters[i];
        if (!(adapter->context ? context : candidates)) continue;
        const ct_adapter_spec *spec = adapter->spec;
        float *to = (spec->hidden ? rows->raw : rows->slabs[0].f32) + spec->column;
        const size_t to_stride = spec->hidden ? cpu->raw_stride : stride;
        ct_loop_adapter(rows->raw + spec->raw_column, cpu->raw_stride, weights->adapters[i], weights->masters + adapter->bias, count,
                        spec->in, spec->out, to, to_stride);
        if (spec->hidden) ct_loop_relu(count, spec->out, to, to_stride);
    }
}

/* Part i of x as products read it. */
static void convert_x(const ct_cpu *cpu, const ct_cpu_rows *rows, size_t i, size_t count) {
    const ct_cpu_x_part *part = &cpu->x_parts[i];
    const size_t stride = cpu->slabs[0].padded;
    const float *x = rows->slabs[0].f32 + part->column;
    if (rows->x_in[i] == NULL || rows->x_in[i] == rows->slabs[0].f32) return;
    if (cpu->bf16) {
        (cpu->own ? ct_tiles_to_bf16 : ct_loop_to_bf16)(x, stride, count, part->width, rows->x_in[i], part->padded);
        return;
    }
    for (size_t r = 0; r < count; ++r) memcpy((float *)rows->x_in[i] + r * part->padded, x + r * stride, part->width * sizeof *x);
}

static const void *part_input(const ct_cpu *cpu, const ct_cpu_rows *rows, const ct_cpu_layer *layer, size_t part, size_t row) {
    const void *base = layer->input == 0 ? rows->x_in[part] : rows->slabs[layer->input].in;
    return (const char *)base + row * layer->parts[part].padded * ct_cpu_item(cpu);
}

/* What one run of the layers works with. */
typedef struct forward_run {
    const ct_cpu *cpu;
    const ct_cpu_weights *weights;
    const ct_cpu_rows *rows;
    ct_cpu_scratch *scratch;
    float *const *context_sums; /* by layer; NULL = each row has a context of its own */
    bool training;
    const ct_tower *tower;
    int64_t first_row; /* of the block, in the pass over the log */
} forward_run;

/* in W for rows [row, row + count): the candidates' (or only) product in `first`, the context's, if there are two, in `second`.
 * context_sum: NULL, or the context's product of all rows. */
static ct_sums layer_sums(const forward_run *run, size_t l, size_t row, size_t count, float *first) {
    const ct_cpu *cpu = run->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    ct_cpu_scratch *scratch = run->scratch;
    const float *context_sum = run->context_sums == NULL ? NULL : run->context_sums[l];
    const float *sums[2] = {NULL, NULL};
    size_t strides[2] = {layer->out_padded, layer->out_padded};
    for (size_t i = 0; i < layer->part_count; ++i) {
        const ct_cpu_part *part = &layer->parts[i];
        const size_t at = layer->part_count - 1 - i;
        if (part->context && context_sum != NULL) {
            sums[at] = context_sum;
            strides[at] = 0;
            continue;
        }
        float *to = at == 0 ? first : scratch->sums[1];
        ct_product_run(part->product, scratch->executor, count, part_input(cpu, run->rows, layer, i, row), run->weights->parts[l][i], to,
                       false);
        sums[at] = to;
    }
    return (ct_sums){.first = sums[0], .second = sums[1], .first_stride = strides[0], .second_stride = strides[1]};
}

/* in W of a layer whose products are ours, its rows to `finish`. */
static void run_finished(const forward_run *run, size_t l, size_t row, size_t count, ct_tile_finish finish, const void *context) {
    const ct_cpu *cpu = run->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t last = layer->part_count - 1;
    if (layer->parts[last].context && run->context_sums != NULL) { /* there is nothing but a context, and it is shared */
        const ct_tile tile = {.rows = count, .end = layer->out_padded, .sums = run->context_sums[l]};
        finish(context, &tile);
        return;
    }
    ct_product_run_finished(layer->parts[last].product, count, part_input(cpu, run->rows, layer, last, row), run->weights->parts[l][last],
                            run->scratch->sums[0], finish, context);
}

/* The context's product, where candidates' is another one; else NULL. */
static const float *context_product(const forward_run *run, size_t l, size_t row, size_t count, size_t *out_stride) {
    const ct_cpu_layer *layer = &run->cpu->layers[l];
    *out_stride = 0;
    if (layer->part_count < 2) return NULL;
    if (run->context_sums != NULL) return run->context_sums[l];
    *out_stride = layer->out_padded;
    ct_product_run(layer->parts[0].product, run->scratch->executor, count, part_input(run->cpu, run->rows, layer, 0, row),
                   run->weights->parts[l][0], run->scratch->sums[1], false);
    return run->scratch->sums[1];
}

static void transpose(const ct_cpu *cpu, const void *from, size_t columns, size_t row, void *to, size_t to_row) {
    const size_t block = cpu->block_rows;
    if (cpu->own) {
        ct_tiles_turn_bf16((const uint16_t *)from + row * columns, cpu->part_rows, columns, (uint16_t *)to + row * columns);
        return;
    }
    if (cpu->bf16) {
        ct_loop_transpose_bf16((const uint16_t *)from + row * columns, columns, CT_CHUNK_ROWS, columns,
                               (uint16_t *)to + to_row * block + row, block);
    } else {
        ct_loop_transpose_f32((const float *)from + row * columns, columns, CT_CHUNK_ROWS, columns, (float *)to + to_row * block + row,
                              block);
    }
}

/* Where a layer's output goes for its weight gradient; NULL where it is not wanted. */
static ct_turned output_turned(const forward_run *run, size_t l, size_t row) {
    uint16_t *matrix = run->rows->slabs[l + 1].transposed;
    return run->training && matrix != NULL ? matrix + row * run->cpu->layers[l].out_padded : NULL;
}

static void run_own_cross(const forward_run *run, size_t l, size_t row, size_t count) {
    const ct_cpu *cpu = run->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_rows *rows = run->rows;
    const ct_cpu_slab *slab = &rows->slabs[l + 1];
    const size_t n = layer->out_padded, x_stride = cpu->slabs[0].padded, carry_stride = cpu->slabs[layer->carry].padded;
    ct_cross_finish cross = {.n = n,
                             .bias = run->weights->masters + layer->bias,
                             .x = rows->slabs[0].f32 + row * x_stride,
                             .x_stride = x_stride,
                             .in = rows->slabs[layer->carry].f32 + row * carry_stride,
                             .in_stride = carry_stride,
                             .kept = run->training ? rows->sum[l] + row * n : NULL,
                             .y = slab->f32 + row * n,
                             .y_bf16 = slab->in != NULL ? (uint16_t *)slab->in + row * n : NULL,
                             .turned = output_turned(run, l, row)};
    cross.second = context_product(run, l, row, count, &cross.second_stride);
    run_finished(run, l, row, count, ct_finish_cross, &cross);
}

static void run_own_dense(const forward_run *run, size_t l, size_t row, size_t count) {
    const ct_cpu_layer *layer = &run->cpu->layers[l];
    const size_t n = layer->out_padded;
    ct_dense_finish dense = {.n = n,
                             .bias = run->weights->masters + layer->bias,
                             .relu = layer->relu,
                             .y = (uint16_t *)run->rows->slabs[l + 1].in + row * n,
                             .turned = output_turned(run, l, row)};
    dense.second = context_product(run, l, row, count, &dense.second_stride);
    run_finished(run, l, row, count, ct_finish_dense, &dense);
}

static void run_cross(const forward_run *run, size_t l, size_t row, size_t count) {
    const ct_cpu *cpu = run->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_rows *rows = run->rows;
    const size_t n = layer->out_padded, carry_stride = cpu->slabs[layer->carry].padded;
    const ct_cpu_slab *slab = &rows->slabs[l + 1];
    float *kept = run->training ? rows->sum[l] + row * n : NULL;
    const ct_cross cross = {.sums = layer_sums(run, l, row, count, kept != NULL ? kept : run->scratch->sums[0]),
                            .bias = run->weights->masters + layer->bias,
                            .x = rows->slabs[0].f32 + row * cpu->slabs[0].padded,
                            .x_stride = cpu->slabs[0].padded,
                            .in = rows->slabs[layer->carry].f32 + row * carry_stride,
                            .in_stride = carry_stride,
                            .kept = kept,
                            .kept_stride = n,
                            .y = slab->f32 + row * n,
                            .y_stride = n,
                            .y_bf16 = cpu->bf16 && slab->in != NULL ? (uint16_t *)slab->in + row * n : NULL,
                            .y_bf16_stride = n};
    ct_loop_cross(&cross, count, n);
}

/* Rows of a slab of type T, written as floats. */
static void write_t(const ct_cpu *cpu, const ct_cpu_slab *slab, const float *from, size_t row, size_t count, size_t n) {
    if (cpu->bf16) {
        ct_loop_to_bf16(from, n, count, n, (uint16_t *)slab->in + row * n, n);
    } else {
        memcpy((float *)slab->in + row * n, from, count * n * sizeof *from);
    }
}

static void run_dense(const forward_run *run, size_t l, size_t row, size_t count) {
    const ct_cpu *cpu = run->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_rows *rows = run->rows;
    const ct_cpu_slab *slab = &rows->slabs[l + 1];
    const float *masters = run->weights->masters, *bias = masters + layer->bias;
    const size_t n = layer->out_padded;
    const bool drops = run->training && layer->dropout > 0;
    const ct_sums sums = layer_sums(run, l, row, count, run->scratch->sums[0]);
    if (!layer->normalise && !drops) {
        if (cpu->bf16) {
            ct_loop_dense_bf16(&sums, bias, layer->relu, count, n, (uint16_t *)slab->in + row * n, n);
        } else {
            ct_loop_dense_f32(&sums, bias, layer->relu, count, n, (float *)slab->in + row * n, n);
        }
        return;
    }
    float *z = run->scratch->sums[2];
    ct_loop_dense_f32(&sums, bias, layer->relu && !layer->normalise, count, n, z, n);
    if (layer->normalise) {
        ct_loop_normalise(z, count, layer->out, n, masters + layer->scale, masters + layer->shift, layer->relu,
                          run->training ? rows->sum[l] + row * n : NULL, run->training ? rows->inverse[l] + row : NULL);
    }
    if (drops) {
        float *kept = rows->kept[l] + row * n;
        const ct_tower *tower = run->tower;
        ct_loop_dropout_factors(tower->options.seed, tower->epoch, run->first_row + (int64_t)row, l, layer->dropout, count, n, kept);
        ct_loop_multiply(kept, count * n, z);
    }
    write_t(cpu, slab, z, row, count, n);
}

static void run_of_fields(const forward_run *run, size_t l, size_t row, size_t count) {
    const ct_cpu *cpu = run->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_slab *slab = &run->rows->slabs[l + 1];
    const size_t n = layer->out_padded;
    const ct_fields fields = {.columns = cpu->fields, .count = cpu->field_count, .dim = cpu->field_dim};
    const float *x = run->rows->slabs[0].f32 + row * cpu->slabs[0].padded;
    if (layer->kind == CT_LAYER_FM) {
        float *y = slab->f32 + row * n;
        ct_loop_fm(&fields, run->tower->spec.context_width, x, cpu->slabs[0].padded, count, y, n);
        if (cpu->bf16 && slab->in != NULL) ct_loop_to_bf16(y, n, count, n, (uint16_t *)slab->in + row * n, n);
        return;
    }
    float *y = run->scratch->sums[2]; /* its padding may hold another layer's values */
    memset(y, 0, count * n * sizeof *y);
    if (layer->kind == CT_LAYER_REST) {
        ct_loop_rest(&fields, cpu->slabs[0].width, x, cpu->slabs[0].padded, count, y, n);
    } else {
        const ct_vectors_in second = ct_cpu_second(cpu, run->rows, layer, row);
        ct_loop_dots(&fields, x, cpu->slabs[0].padded, &second, count, run->scratch->fields, y, n);
    }
    write_t(cpu, slab, y, row, count, n);
}

static void run_layer(const forward_run *run, size_t l, size_t row, size_t count) {
    const ct_cpu *cpu = run->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_slab *slab = &run->rows->slabs[l + 1];
    const bool drops = run->training && layer->dropout > 0, plain = layer->kind == CT_LAYER_DENSE && !layer->normalise && !drops;
    if (cpu->own && layer->cross) {
        run_own_cross(run, l, row, count);
    } else if (cpu->own && plain) {
        run_own_dense(run, l, row, count);
    } else if (layer->cross) {
        run_cross(run, l, row, count);
    } else if (layer->kind == CT_LAYER_DENSE) {
        run_dense(run, l, row, count);
    } else {
        run_of_fields(run, l, row, count);
    }
    const bool turned = cpu->own && (layer->cross || plain); /* already */
    if (run->training && slab->transposed != NULL && !turned) transpose(cpu, slab->in, layer->out_padded, row, slab->transposed, 0);
}

static void run_head(const ct_tower *tower, const ct_cpu_weights *set, const ct_cpu_rows *rows, size_t count, float *out_logits) {
    const ct_cpu *cpu = ct_cpu_of(tower);
    const ct_cpu_head *head = &cpu->head;
    const size_t context = tower->spec.context_width;
    for (size_t r = 0; r < count; ++r) {
        for (size_t o = 0; o < head->outputs; ++o) {
            const float *weights = set->head + o * head->columns;
            float sum = 0.0f;
            for (size_t i = 0; i < head->input_count; ++i) {
                const ct_cpu_slab_plan *plan = &cpu->slabs[head->inputs[i]];
                const ct_cpu_slab *slab = &rows->slabs[head->inputs[i]];
                const float *w = weights + head->at[i];
                if (head->inputs[i] == 0) {
                    const float *x = slab->f32 + r * plan->padded;
                    sum += ct_loop_dot(x, w, context) + ct_loop_dot(x + context, w + context, plan->width - context);
                } else if (plan->f32 || !cpu->bf16) {
                    const float *in = plan->f32 ? slab->f32 : slab->in;
                    sum += ct_loop_dot(in + r * plan->padded, w, plan->width);
                } else {
                    sum += ct_loop_dot_bf16((const uint16_t *)slab->in + r * plan->padded, w, plan->width);
                }
            }
            out_logits[r * head->outputs + o] = sum + set->masters[head->bias + o];
        }
    }
}

/* A part of rows goes through all layers before the next one: what it leaves is still in the cache. */
static void run_layers(const forward_run *run, size_t count) {
    const size_t part = run->cpu->part_rows;
    for (size_t row = 0; row < count; row += part) {
        const size_t rows = count - row < part ? count - row : part;
        for (size_t l = 0; l < run->cpu->layer_count; ++l) run_layer(run, l, row, rows);
    }
}

void ct_cpu_context(const ct_tower *tower, ct_workspace *base) {
    ct_cpu_workspace *workspace = (ct_cpu_workspace *)base;
    const ct_cpu *cpu = workspace->cpu;
    if (tower->spec.context_width == 0) return;
    const ct_cpu_weights *weights = ct_cpu_for_inference(tower);
    run_adapters(tower, weights, &workspace->rows, 1, true, false);
    memcpy(workspace->context_x, workspace->rows.slabs[0].f32, tower->spec.context_width * sizeof(float));
    convert_x(cpu, &workspace->rows, 0, 1);
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        const ct_cpu_part *part = &layer->parts[0];
        if (!part->context) continue;
        float *sums = workspace->scratch->sums[1];
        ct_product_run(part->product, workspace->scratch->executor, 1, part_input(cpu, &workspace->rows, layer, 0, 0), weights->parts[l][0],
                       sums, false);
        memcpy(workspace->context_sum[l], sums, layer->out_padded * sizeof(float));
    }
}

void ct_cpu_forward(const ct_tower *tower, ct_workspace *base, size_t rows, bool shared_context, float *out_logits) {
    ct_cpu_workspace *workspace = (ct_cpu_workspace *)base;
    const ct_cpu *cpu = workspace->cpu;
    const size_t stride = cpu->slabs[0].padded, context = tower->spec.context_width;
    if (shared_context && context == 0) shared_context = false;
    const ct_cpu_weights *weights = ct_cpu_for_inference(tower);
    run_adapters(tower, weights, &workspace->rows, rows, !shared_context, true);
    if (shared_context) {
        float *x = workspace->rows.slabs[0].f32;
        for (size_t r = 0; r < rows; ++r) memcpy(x + r * stride, workspace->context_x, context * sizeof *x);
    }
    for (size_t i = 0; i < cpu->x_part_count; ++i) {
        if (!(shared_context && cpu->x_parts[i].context)) convert_x(cpu, &workspace->rows, i, rows);
    }
    const forward_run run = {.cpu = cpu,
                             .weights = weights,
                             .rows = &workspace->rows,
                             .scratch = workspace->scratch,
                             .context_sums = shared_context ? workspace->context_sum : NULL,
                             .tower = tower};
    run_layers(&run, rows);
    run_head(tower, weights, &workspace->rows, rows, out_logits);
}

/* What weight gradients read of so many rows, from the given ones on. */
static bool inputs_moderate(const ct_cpu *cpu, const ct_cpu_rows *rows, size_t count) {
    bool moderate = true;
    for (size_t s = 0; s < cpu->slab_count && moderate; ++s) {
        const void *in = rows->slabs[s].transposed;
        moderate = in == NULL || ct_cpu_moderate(cpu, in, cpu->slabs[s].padded * count);
    }
    return moderate;
}

/* Rows [first, first + rows) of a block that are there, up to `whole` with the padding behind them. rows_at_work: from `first` on. */
static void forward_part(const ct_tower *tower, const ct_cpu_rows *at_work, ct_cpu_scratch *scratch, size_t rows, size_t whole,
                         int64_t first_row, float *out_logits) {
    const ct_cpu *cpu = ct_cpu_of(tower);
    const size_t stride = cpu->slabs[0].padded;
    float *x = at_work->slabs[0].f32;
    run_adapters(tower, &cpu->weights, at_work, rows, true, true);
    memset(x + rows * stride, 0, (whole - rows) * stride * sizeof *x);
    for (size_t i = 0; i < cpu->x_part_count; ++i) convert_x(cpu, at_work, i, whole);
    void *turned_x = at_work->slabs[0].transposed;
    if (turned_x != NULL && cpu->own) {
        ct_tiles_turn(x, whole, stride, turned_x);
    } else if (turned_x != NULL) {
        /* The context's padding is overwritten by the candidates. */
        for (size_t i = 0; i < cpu->x_part_count; ++i) {
            transpose(cpu, at_work->x_in[i], cpu->x_parts[i].padded, 0, turned_x, cpu->x_parts[i].column);
        }
    }
    const forward_run run = {.cpu = cpu,
                             .weights = &cpu->weights,
                             .rows = at_work,
                             .scratch = scratch,
                             .training = true,
                             .tower = tower,
                             .first_row = first_row};
    run_layers(&run, whole);
    run_head(tower, &cpu->weights, at_work, rows, out_logits);
}

void ct_cpu_block_forward(ct_tower *tower, size_t block, size_t rows, float *out_logits) {
    ct_cpu *cpu = ct_cpu_of(tower);
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    const ct_cpu_rows *kept = &cpu->blocks[block];
    const size_t whole = ct_round_up(rows, CT_CHUNK_ROWS), item = ct_cpu_item(cpu);
    bool sound = true;
    for (size_t first = 0; first < whole; first += cpu->part_rows) {
        const ct_cpu_rows at_work = ct_cpu_rows_at_work(cpu, block, first, scratch);
        const size_t left = rows < first ? 0 : rows - first;
        forward_part(tower, &at_work, scratch, left < cpu->part_rows ? left : cpu->part_rows, cpu->part_rows,
                     tower->first_row + (int64_t)(block * cpu->block_rows + first), out_logits + first * cpu->head.outputs);
        if (cpu->own) sound = sound && inputs_moderate(cpu, &at_work, cpu->part_rows); /* rows are in order, and in the cache */
    }
    for (size_t s = 0; s < cpu->slab_count && whole < cpu->block_rows; ++s) {
        if (kept->slabs[s].transposed == NULL) continue;
        const size_t width = cpu->slabs[s].padded;
        if (cpu->own) memset((uint16_t *)kept->slabs[s].transposed + whole * width, 0, (cpu->block_rows - whole) * width * item);
        for (size_t c = 0; c < width && !cpu->own; ++c) {
            char *column = (char *)kept->slabs[s].transposed + (c * cpu->block_rows + whole) * item;
            memset(column, 0, (cpu->block_rows - whole) * item);
        }
    }
    cpu->sound[block] = cpu->own ? sound : inputs_moderate(cpu, kept, cpu->block_rows);
    ct_cpu_scratch_give(cpu, scratch);
}
