/* The backward pass of a block: gradients of all slabs, in memory of the thread's own; what the weight gradient needs, in the block's.
 * Layers from the last to the first; rows behind the last one have a gradient of zero from the HEAD on. */
#include <string.h>

#include "tower/cpu/cpu.h"

static void head_back(const ct_cpu *cpu, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t rows, size_t whole,
                      const float *logit_gradients) {
    const ct_cpu_head *head = &cpu->head;
    for (size_t i = 0; i < head->input_count; ++i) {
        const size_t slab = head->inputs[i];
        const ct_cpu_slab_plan *plan = &cpu->slabs[slab];
        float *gradient = scratch->gradient[slab];
        for (size_t r = 0; r < whole; ++r) {
            for (size_t o = 0; o < head->outputs; ++o) {
                const float scale = r < rows ? logit_gradients[r * head->outputs + o] : 0.0f;
                const float *weights = head->packed + o * head->columns + head->at[i];
                ct_loop_axpy(scale, weights, plan->padded, o == 0 && head->first[i], gradient + r * plan->padded);
                if (r >= rows) continue;
                float *partial = kept->partial + head->partial + o * head->columns + head->at[i];
                if (plan->f32 || !cpu->bf16) {
                    const float *in = plan->f32 ? kept->slabs[slab].f32 : kept->slabs[slab].in;
                    ct_loop_axpy(scale, in + r * plan->padded, plan->padded, false, partial);
                } else {
                    ct_loop_axpy_bf16(scale, (const uint16_t *)kept->slabs[slab].in + r * plan->padded, plan->padded, partial);
                }
            }
        }
    }
    for (size_t r = 0; r < rows; ++r) {
        for (size_t o = 0; o < head->outputs; ++o) kept->partial[head->partial_bias + o] += logit_gradients[r * head->outputs + o];
    }
}

/* dz of a chunk, and what does not go through the product. */
static void layer_dz(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t row) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded, x_stride = cpu->slabs[0].padded;
    const float *dy = scratch->gradient[l + 1] + row * n;
    float *bias_gradient = kept->partial + layer->partial_bias;
    if (!layer->cross) {
        if (cpu->bf16) {
            const uint16_t *y = (const uint16_t *)kept->slabs[l + 1].in + row * n;
            ct_loop_dense_back_bf16(dy, n, y, n, layer->relu, CT_CHUNK_ROWS, n, scratch->dz, bias_gradient);
        } else {
            const float *y = (const float *)kept->slabs[l + 1].in + row * n;
            ct_loop_dense_back_f32(dy, n, y, n, layer->relu, CT_CHUNK_ROWS, n, scratch->dz, bias_gradient);
        }
        return;
    }
    const bool in_is_x = layer->input == 0;
    const ct_cross_back back = {.dy = dy,
                                .dy_stride = n,
                                .x = kept->slabs[0].f32 + row * x_stride,
                                .x_stride = x_stride,
                                .sum = kept->sum[l] + row * n,
                                .sum_stride = n,
                                .bias = layer->bias,
                                .dx = scratch->gradient[0] + row * x_stride,
                                .dx_stride = x_stride,
                                .dx_first = layer->dx_first,
                                .in_is_x = in_is_x,
                                .din = in_is_x || layer->din_in_place ? NULL : scratch->gradient[layer->input] + row * n,
                                .din_stride = n,
                                .dz = scratch->dz,
                                .bias_gradient = bias_gradient};
    if (cpu->bf16) {
        ct_loop_cross_back_bf16(&back, CT_CHUNK_ROWS, n);
    } else {
        ct_loop_cross_back_f32(&back, CT_CHUNK_ROWS, n);
    }
}

static void layer_back(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t whole) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_panels *panels = &layer->dz_panels;
    const size_t item = ct_cpu_item(cpu);
    for (size_t row = 0; row < whole; row += CT_CHUNK_ROWS) {
        layer_dz(cpu, l, kept, scratch, row);
        if (cpu->bf16) {
            ct_loop_to_panels_bf16(scratch->dz, CT_CHUNK_ROWS, layer->out_padded, panels, row, kept->dz[l]);
        } else {
            ct_loop_to_panels_f32(scratch->dz, CT_CHUNK_ROWS, layer->out_padded, panels, row, kept->dz[l]);
        }
        float *to = scratch->gradient[layer->input] + row * layer->in_padded;
        ct_product_run(layer->back, scratch->executor, CT_CHUNK_ROWS, scratch->dz, layer->packed_back, to, layer->back_adds);
    }
    const size_t count = layer->panel_count * CT_PANEL_COLUMNS / panels->width;
    for (size_t p = 0; p < count && whole < cpu->block_rows; ++p) {
        char *rest = (char *)kept->dz[l] + (p * panels->panel_stride + whole * panels->width) * item;
        memset(rest, 0, (cpu->block_rows - whole) * panels->width * item);
    }
}

void ct_cpu_block_backward(ct_tower *tower, size_t block, size_t rows, const float *logit_gradients) {
    ct_cpu *cpu = ct_cpu_of(tower);
    ct_cpu_rows *kept = &cpu->blocks[block];
    const size_t whole = ct_round_up(rows, CT_CHUNK_ROWS), stride = cpu->slabs[0].padded;
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    memset(kept->partial, 0, cpu->partial_floats * sizeof(float));
    head_back(cpu, kept, scratch, rows, whole, logit_gradients);
    for (size_t l = cpu->layer_count; l-- > 0;) layer_back(cpu, l, kept, scratch, whole);
    const float *dx = scratch->gradient[0];
    for (size_t i = 0; i < tower->spec.adapter_count; ++i) {
        const ct_cpu_adapter *adapter = &cpu->adapters[i];
        ct_loop_adapter_back(kept->raw + adapter->spec->raw_column, cpu->raw_stride, dx + adapter->spec->column, stride, rows,
                             adapter->spec->in, adapter->spec->out, kept->partial + adapter->partial,
                             kept->partial + adapter->partial_bias);
    }
    /* Not the padding: it must stay zero even where a gradient is not finite. */
    for (size_t r = 0; r < rows; ++r) memcpy(kept->slabs[0].f32 + r * stride, dx + r * stride, cpu->slabs[0].width * sizeof *dx);
    ct_cpu_scratch_give(cpu, scratch);
}
