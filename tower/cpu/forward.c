/* The forward pass, one code for inference and training: adapters, x for products, then layer by layer in chunks, HEAD. */
#include <string.h>

#include "tower/cpu/cpu.h"

static void run_adapters(const ct_tower *tower, const ct_cpu *cpu, const ct_cpu_rows *rows, size_t count, bool context, bool candidates) {
    const size_t stride = cpu->slabs[0].padded;
    for (size_t i = 0; i < tower->spec.adapter_count; ++i) {
        const ct_cpu_adapter *adapter = &cpu->adapters[i];
        if (!(adapter->context ? context : candidates)) continue;
        ct_loop_adapter(rows->raw + adapter->spec->raw_column, cpu->raw_stride, adapter->packed, adapter->bias, count, adapter->spec->in,
                        adapter->spec->out, rows->slabs[0].f32 + adapter->spec->column, stride);
    }
}

/* Part i of x as products read it. */
static void convert_x(const ct_cpu *cpu, const ct_cpu_rows *rows, size_t i, size_t count) {
    const ct_cpu_x_part *part = &cpu->x_parts[i];
    const size_t stride = cpu->slabs[0].padded;
    const float *x = rows->slabs[0].f32 + part->column;
    if (rows->x_in[i] == NULL || rows->x_in[i] == rows->slabs[0].f32) return;
    if (cpu->bf16) {
        ct_loop_to_bf16(x, stride, count, part->width, rows->x_in[i], part->padded);
        return;
    }
    for (size_t r = 0; r < count; ++r) memcpy((float *)rows->x_in[i] + r * part->padded, x + r * stride, part->width * sizeof *x);
}

static const void *part_input(const ct_cpu *cpu, const ct_cpu_rows *rows, const ct_cpu_layer *layer, size_t part, size_t row) {
    const void *base = layer->input == 0 ? rows->x_in[part] : rows->slabs[layer->input].in;
    return (const char *)base + row * layer->parts[part].padded * ct_cpu_item(cpu);
}

/* in W for rows [row, row + count): the candidates' (or only) product in `first`, the context's, if there are two, in `second`.
 * context_sum: NULL, or the context's product of all rows. */
static ct_sums layer_sums(const ct_cpu *cpu, const ct_cpu_layer *layer, const ct_cpu_rows *rows, ct_cpu_scratch *scratch, size_t row,
                          size_t count, const float *context_sum, float *first) {
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
        ct_product_run(part->product, scratch->executor, count, part_input(cpu, rows, layer, i, row), part->packed, to, false);
        sums[at] = to;
    }
    return (ct_sums){.first = sums[0], .second = sums[1], .first_stride = strides[0], .second_stride = strides[1]};
}

static void transpose(const ct_cpu *cpu, const void *from, size_t columns, size_t row, void *to, size_t to_row) {
    const size_t block = cpu->block_rows;
    if (cpu->bf16) {
        ct_loop_transpose_bf16((const uint16_t *)from + row * columns, columns, CT_CHUNK_ROWS, columns,
                               (uint16_t *)to + to_row * block + row, block);
    } else {
        ct_loop_transpose_f32((const float *)from + row * columns, columns, CT_CHUNK_ROWS, columns, (float *)to + to_row * block + row,
                              block);
    }
}

static void run_layer(const ct_cpu *cpu, size_t l, const ct_cpu_rows *rows, ct_cpu_scratch *scratch, size_t row, size_t count,
                      const float *context_sum, bool training) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded;
    const ct_cpu_slab *slab = &rows->slabs[l + 1];
    float *kept = training && layer->cross ? rows->sum[l] + row * n : NULL;
    const ct_sums sums = layer_sums(cpu, layer, rows, scratch, row, count, context_sum, kept != NULL ? kept : scratch->sums[0]);
    if (layer->cross) {
        const size_t in_stride = cpu->slabs[layer->input].padded;
        const bool round = cpu->bf16 && slab->in != NULL;
        const ct_cross cross = {.sums = sums,
                                .bias = layer->bias,
                                .x = rows->slabs[0].f32 + row * cpu->slabs[0].padded,
                                .x_stride = cpu->slabs[0].padded,
                                .in = rows->slabs[layer->input].f32 + row * in_stride,
                                .in_stride = in_stride,
                                .kept = kept,
                                .kept_stride = n,
                                .y = slab->f32 + row * n,
                                .y_stride = n,
                                .y_bf16 = round ? (uint16_t *)slab->in + row * n : NULL,
                                .y_bf16_stride = n};
        ct_loop_cross(&cross, count, n);
    } else if (cpu->bf16) {
        ct_loop_dense_bf16(&sums, layer->bias, layer->relu, count, n, (uint16_t *)slab->in + row * n, n);
    } else {
        ct_loop_dense_f32(&sums, layer->bias, layer->relu, count, n, (float *)slab->in + row * n, n);
    }
    if (training && slab->transposed != NULL) transpose(cpu, slab->in, n, row, slab->transposed, 0);
}

static void run_head(const ct_tower *tower, const ct_cpu *cpu, const ct_cpu_rows *rows, size_t count, float *out_logits) {
    const ct_cpu_head *head = &cpu->head;
    const size_t context = tower->spec.context_width;
    for (size_t r = 0; r < count; ++r) {
        for (size_t o = 0; o < head->outputs; ++o) {
            const float *weights = head->packed + o * head->columns;
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
            out_logits[r * head->outputs + o] = sum + head->bias[o];
        }
    }
}

static void run_layers(const ct_cpu *cpu, const ct_cpu_rows *rows, ct_cpu_scratch *scratch, size_t count, float *const *context_sums,
                       bool training) {
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        for (size_t row = 0; row < count; row += CT_CHUNK_ROWS) {
            const size_t chunk = count - row < CT_CHUNK_ROWS ? count - row : CT_CHUNK_ROWS;
            run_layer(cpu, l, rows, scratch, row, chunk, context_sums == NULL ? NULL : context_sums[l], training);
        }
    }
}

void ct_cpu_context(const ct_tower *tower, ct_workspace *base) {
    ct_cpu_workspace *workspace = (ct_cpu_workspace *)base;
    const ct_cpu *cpu = workspace->cpu;
    if (tower->spec.context_width == 0) return;
    run_adapters(tower, cpu, &workspace->rows, 1, true, false);
    memcpy(workspace->context_x, workspace->rows.slabs[0].f32, tower->spec.context_width * sizeof(float));
    convert_x(cpu, &workspace->rows, 0, 1);
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        const ct_cpu_part *part = &layer->parts[0];
        if (!part->context) continue;
        float *sums = workspace->scratch->sums[1];
        ct_product_run(part->product, workspace->scratch->executor, 1, part_input(cpu, &workspace->rows, layer, 0, 0), part->packed, sums,
                       false);
        memcpy(workspace->context_sum[l], sums, layer->out_padded * sizeof(float));
    }
}

void ct_cpu_forward(const ct_tower *tower, ct_workspace *base, size_t rows, bool shared_context, float *out_logits) {
    ct_cpu_workspace *workspace = (ct_cpu_workspace *)base;
    const ct_cpu *cpu = workspace->cpu;
    const size_t stride = cpu->slabs[0].padded, context = tower->spec.context_width;
    if (shared_context && context == 0) shared_context = false;
    run_adapters(tower, cpu, &workspace->rows, rows, !shared_context, true);
    if (shared_context) {
        float *x = workspace->rows.slabs[0].f32;
        for (size_t r = 0; r < rows; ++r) memcpy(x + r * stride, workspace->context_x, context * sizeof *x);
    }
    for (size_t i = 0; i < cpu->x_part_count; ++i) {
        if (!(shared_context && cpu->x_parts[i].context)) convert_x(cpu, &workspace->rows, i, rows);
    }
    run_layers(cpu, &workspace->rows, workspace->scratch, rows, shared_context ? workspace->context_sum : NULL, false);
    run_head(tower, cpu, &workspace->rows, rows, out_logits);
}

void ct_cpu_block_forward(ct_tower *tower, size_t block, size_t rows, float *out_logits) {
    ct_cpu *cpu = ct_cpu_of(tower);
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    const ct_cpu_rows rows_at_work = ct_cpu_rows_at_work(cpu, block, scratch), *kept = &rows_at_work;
    const size_t stride = cpu->slabs[0].padded, whole = ct_round_up(rows, CT_CHUNK_ROWS), item = ct_cpu_item(cpu);
    float *x = kept->slabs[0].f32;
    run_adapters(tower, cpu, kept, rows, true, true);
    memset(x + rows * stride, 0, (whole - rows) * stride * sizeof *x);
    for (size_t i = 0; i < cpu->x_part_count; ++i) convert_x(cpu, kept, i, whole);
    for (size_t row = 0; row < whole && kept->slabs[0].transposed != NULL; row += CT_CHUNK_ROWS) {
        /* The context's padding is overwritten by the candidates. */
        for (size_t i = 0; i < cpu->x_part_count; ++i) {
            transpose(cpu, kept->x_in[i], cpu->x_parts[i].padded, row, kept->slabs[0].transposed, cpu->x_parts[i].column);
        }
    }
    run_layers(cpu, kept, scratch, whole, NULL, true);
    for (size_t s = 0; s < cpu->slab_count && whole < cpu->block_rows; ++s) {
        if (kept->slabs[s].transposed == NULL) continue;
        for (size_t c = 0; c < cpu->slabs[s].padded; ++c) {
            char *column = (char *)kept->slabs[s].transposed + (c * cpu->block_rows + whole) * item;
            memset(column, 0, (cpu->block_rows - whole) * item);
        }
    }
    run_head(tower, cpu, kept, rows, out_logits);
    ct_cpu_scratch_give(cpu, scratch);
}
