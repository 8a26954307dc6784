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
                const float *weights = cpu->weights.head + o * head->columns + head->at[i];
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

/* dz of a normalised layer, or one that drops values. */
static void rich_dz(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t row) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded;
    const float *masters = cpu->weights.masters;
    float *d = scratch->sums[2], *unused = scratch->sums[1], *partial = kept->partial;
    memcpy(d, scratch->gradient[l + 1] + row * n, CT_CHUNK_ROWS * n * sizeof *d);
    if (layer->dropout > 0) ct_loop_multiply(kept->kept[l] + row * n, CT_CHUNK_ROWS * n, d);
    if (layer->relu) {
        if (cpu->bf16) {
            ct_loop_where_positive_bf16((const uint16_t *)kept->slabs[l + 1].in + row * n, CT_CHUNK_ROWS * n, d);
        } else {
            ct_loop_where_positive_f32((const float *)kept->slabs[l + 1].in + row * n, CT_CHUNK_ROWS * n, d);
        }
    }
    if (layer->normalise) {
        ct_loop_normalise_back(d, CT_CHUNK_ROWS, layer->out, n, masters + layer->scale, kept->sum[l] + row * n, kept->inverse[l] + row,
                               partial + layer->partial_scale, partial + layer->partial_shift);
    }
    if (cpu->bf16) {
        ct_loop_dense_back_bf16(d, n, (const uint16_t *)(const void *)unused, n, false, CT_CHUNK_ROWS, n, scratch->dz,
                                partial + layer->partial_bias);
    } else {
        ct_loop_dense_back_f32(d, n, unused, n, false, CT_CHUNK_ROWS, n, scratch->dz, partial + layer->partial_bias);
    }
}

/* dz of a chunk, and what does not go through the product. */
static void layer_dz(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t row) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded, x_stride = cpu->slabs[0].padded;
    const float *dy = scratch->gradient[l + 1] + row * n;
    float *bias_gradient = kept->partial + layer->partial_bias;
    if (layer->normalise || layer->dropout > 0) {
        rich_dz(cpu, l, kept, scratch, row);
        return;
    }
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
    const bool in_is_x = layer->carry == 0;
    const ct_cross_back back = {.dy = dy,
                                .dy_stride = n,
                                .x = kept->slabs[0].f32 + row * x_stride,
                                .x_stride = x_stride,
                                .sum = kept->sum[l] + row * n,
                                .sum_stride = n,
                                .bias = cpu->weights.masters + layer->bias,
                                .dx = scratch->gradient[0] + row * x_stride,
                                .dx_stride = x_stride,
                                .dx_first = layer->dx_first,
                                .in_is_x = in_is_x,
                                .din = in_is_x || layer->din_in_place ? NULL : scratch->gradient[layer->carry] + row * n,
                                .din_stride = n,
                                .dz = scratch->dz,
                                .bias_gradient = bias_gradient};
    if (cpu->bf16) {
        ct_loop_cross_back_bf16(&back, CT_CHUNK_ROWS, n);
    } else {
        ct_loop_cross_back_f32(&back, CT_CHUNK_ROWS, n);
    }
}

/* FM, DOT, REST: d x, and d of a DOT's second input. */
static void of_fields_back(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t context_width,
                           size_t whole) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_fields fields = {.columns = cpu->fields, .count = cpu->field_count, .dim = cpu->field_dim};
    const size_t n = layer->out_padded, stride = cpu->slabs[0].padded;
    const float *dy = scratch->gradient[l + 1], *x = kept->slabs[0].f32;
    float *dx = scratch->gradient[0];
    if (layer->dx_first) memset(dx, 0, whole * stride * sizeof *dx);
    if (layer->kind == CT_LAYER_FM) {
        ct_loop_fm_back(&fields, context_width, x, stride, dy, n, whole, dx);
    } else if (layer->kind == CT_LAYER_REST) {
        ct_loop_rest_back(&fields, cpu->slabs[0].width, dy, n, whole, dx, stride);
    } else {
        const ct_vectors_in second = ct_cpu_second(cpu, kept, layer, 0);
        float *d_second = layer->second ? scratch->gradient[layer->input] : NULL;
        if (layer->second && !layer->back_adds) memset(d_second, 0, whole * layer->in_padded * sizeof *d_second);
        ct_loop_dots_back(&fields, x, stride, &second, dy, n, whole, scratch->fields, dx, d_second);
    }
}

/* A chunk of dz, (rows, out_padded), as the right-hand matrices of the weight gradient's products. */
static void dz_to_panels(const ct_cpu *cpu, const ct_cpu_layer *layer, const void *dz, size_t row, void *to) {
    const size_t full = layer->full_panels * CT_PANEL_COLUMNS, n = layer->out_padded, at = ct_cpu_panel_at(cpu, layer->full_panels);
    const size_t first[] = {0, full}, columns[] = {full, n - full}, to_at[] = {0, at};
    for (size_t i = 0; i < 2; ++i) {
        if (columns[i] == 0) continue;
        const ct_panels *panels = &layer->panels[i].dz;
        if (cpu->bf16) {
            ct_loop_to_panels_bf16((const uint16_t *)dz + first[i], n, CT_CHUNK_ROWS, columns[i], panels, row, (uint16_t *)to + to_at[i]);
        } else {
            ct_loop_to_panels_f32((const float *)dz + first[i], n, CT_CHUNK_ROWS, columns[i], panels, row, (float *)to + to_at[i]);
        }
    }
}

/* A plain DENSE layer in bf16 whose right-hand matrices are in pairs: dz of a chunk, in both forms at once. */
static bool goes_in_pairs(const ct_cpu *cpu, const ct_cpu_layer *layer) {
    if (!cpu->bf16 || layer->kind != CT_LAYER_DENSE || layer->normalise || layer->dropout > 0) return false;
    for (size_t i = 0; i < 2; ++i) {
        const ct_panels *panels = &layer->panels[i].dz;
        if (layer->panels[i].columns > 0 && (panels->pair != 2 || panels->width % 16 != 0)) return false;
    }
    return true;
}

static void dense_dz_in_pairs(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t row) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded, full = layer->full_panels * CT_PANEL_COLUMNS;
    const float *dy = scratch->gradient[l + 1] + row * n;
    const uint16_t *y = (const uint16_t *)kept->slabs[l + 1].in + row * n;
    float *bias_gradient = kept->partial + layer->partial_bias;
    uint16_t *dz = scratch->dz, *to = kept->dz[l];
    if (full > 0) ct_loop_dense_back_pairs(dy, y, layer->relu, CT_CHUNK_ROWS, full, n, dz, bias_gradient, &layer->panels[0].dz, row, to);
    if (full == n) return;
    ct_loop_dense_back_pairs(dy + full, y + full, layer->relu, CT_CHUNK_ROWS, n - full, n, dz + full, bias_gradient + full,
                             &layer->panels[1].dz, row, to + ct_cpu_panel_at(cpu, layer->full_panels));
}

static void layer_back(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, ct_cpu_scratch *scratch, size_t whole) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t item = ct_cpu_item(cpu);
    const bool pairs = goes_in_pairs(cpu, layer);
    for (size_t row = 0; row < whole; row += CT_CHUNK_ROWS) {
        if (pairs) {
            dense_dz_in_pairs(cpu, l, kept, scratch, row);
        } else {
            layer_dz(cpu, l, kept, scratch, row);
            dz_to_panels(cpu, layer, scratch->dz, row, kept->dz[l]);
        }
        float *to = scratch->gradient[layer->input] + row * layer->in_padded;
        ct_product_run(layer->back, scratch->executor, CT_CHUNK_ROWS, scratch->dz, layer->packed_back, to, layer->back_adds);
    }
    for (size_t panel = 0; panel < layer->panel_count && whole < cpu->block_rows; ++panel) {
        const ct_panels *panels = &layer->panels[ct_cpu_panel_kind(layer, panel)].dz;
        char *from = (char *)kept->dz[l] + ct_cpu_panel_at(cpu, panel) * item;
        for (size_t p = 0; p < panels->count; ++p) {
            memset(from + (p * panels->panel_stride + whole * panels->width) * item, 0, (cpu->block_rows - whole) * panels->width * item);
        }
    }
}

/* From the last to the first: the gradient of what a hidden one wrote takes the place of its value. */
static void adapters_back(const ct_cpu *cpu, size_t count, const ct_cpu_rows *kept, size_t rows, const float *dx) {
    for (size_t i = count; i-- > 0;) {
        const ct_cpu_adapter *adapter = &cpu->adapters[i];
        const ct_adapter_spec *spec = adapter->spec;
        const float *d = (spec->hidden ? kept->raw : dx) + spec->column;
        const size_t d_stride = spec->hidden ? cpu->raw_stride : cpu->slabs[0].padded;
        float *in = kept->raw + spec->raw_column;
        ct_loop_adapter_back(in, cpu->raw_stride, d, d_stride, rows, spec->in, spec->out, kept->partial + adapter->partial,
                             kept->partial + adapter->partial_bias);
        if (i > 0 && cpu->adapters[i - 1].spec->hidden)
            ct_loop_adapter_relu_back(cpu->weights.adapters[i], d, d_stride, rows, spec->in, spec->out, in, cpu->raw_stride);
    }
}

void ct_cpu_block_backward(ct_tower *tower, size_t block, size_t rows, const float *logit_gradients) {
    ct_cpu *cpu = ct_cpu_of(tower);
    ct_cpu_rows *kept = &cpu->blocks[block];
    const size_t whole = ct_round_up(rows, CT_CHUNK_ROWS), stride = cpu->slabs[0].padded;
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    memset(kept->partial, 0, cpu->partial_floats * sizeof(float));
    head_back(cpu, kept, scratch, rows, whole, logit_gradients);
    for (size_t l = cpu->layer_count; l-- > 0;) {
        if (ct_tower_has_weight(cpu->layers[l].kind)) {
            layer_back(cpu, l, kept, scratch, whole);
        } else {
            of_fields_back(cpu, l, kept, scratch, tower->spec.context_width, whole);
        }
    }
    const float *dx = scratch->gradient[0];
    adapters_back(cpu, tower->spec.adapter_count, kept, rows, dx);
    /* Not the padding: it must stay zero even where a gradient is not finite. */
    for (size_t r = 0; r < rows; ++r) memcpy(kept->slabs[0].f32 + r * stride, dx + r * stride, cpu->slabs[0].width * sizeof *dx);
    ct_cpu_scratch_give(cpu, scratch);
}
