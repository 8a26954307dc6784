/* The backward pass of a block, part by part: gradients of all slabs, in memory of the thread's own; what the weight
 * gradient needs, in the block's. Layers from the last to the first; rows behind the last one have a gradient of zero from the HEAD on. */
#include <string.h>

#include "tower/cpu/cpu.h"

/* A part of a block on its way back. Gradients of slabs lie in the thread's memory, from the part's first row on. */
typedef struct part {
    const ct_cpu *cpu;
    const ct_cpu_rows *kept;
    ct_cpu_scratch *scratch;
    size_t first, end, rows; /* of the block; those from `rows` on are padding */
} part;

/* Gradient of a slab, of a row of the block. */
static float *gradient_at(const part *p, size_t slab, size_t row) {
    return p->scratch->gradient[slab] + (row - p->first) * p->cpu->slabs[slab].padded;
}

static void head_back(const part *p, const float *logit_gradients) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_head *head = &cpu->head;
    const ct_cpu_rows *kept = p->kept;
    for (size_t i = 0; i < head->input_count; ++i) {
        const size_t slab = head->inputs[i];
        const ct_cpu_slab_plan *plan = &cpu->slabs[slab];
        for (size_t r = p->first; r < p->end; ++r) {
            for (size_t o = 0; o < head->outputs; ++o) {
                const float scale = r < p->rows ? logit_gradients[r * head->outputs + o] : 0.0f;
                const float *weights = cpu->weights.head + o * head->columns + head->at[i];
                ct_loop_axpy(scale, weights, plan->padded, o == 0 && head->first[i], gradient_at(p, slab, r));
                if (r >= p->rows) continue;
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
    for (size_t r = p->first; r < p->end && r < p->rows; ++r) {
        for (size_t o = 0; o < head->outputs; ++o) kept->partial[head->partial_bias + o] += logit_gradients[r * head->outputs + o];
    }
}

/* dz of a normalised layer, or one that drops values. */
static void rich_dz(const part *p, size_t l, size_t row, void *dz) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_rows *kept = p->kept;
    ct_cpu_scratch *scratch = p->scratch;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded;
    const float *masters = cpu->weights.masters;
    float *d = scratch->sums[2], *unused = scratch->sums[1], *partial = kept->partial;
    memcpy(d, gradient_at(p, l + 1, row), cpu->part_rows * n * sizeof *d);
    if (layer->dropout > 0) ct_loop_multiply(kept->kept[l] + row * n, cpu->part_rows * n, d);
    if (layer->relu) {
        if (cpu->bf16) {
            ct_loop_where_positive_bf16((const uint16_t *)kept->slabs[l + 1].in + row * n, cpu->part_rows * n, d);
        } else {
            ct_loop_where_positive_f32((const float *)kept->slabs[l + 1].in + row * n, cpu->part_rows * n, d);
        }
    }
    if (layer->normalise) {
        ct_loop_normalise_back(d, cpu->part_rows, layer->out, n, masters + layer->scale, kept->sum[l] + row * n, kept->inverse[l] + row,
                               partial + layer->partial_scale, partial + layer->partial_shift);
    }
    if (cpu->bf16) {
        ct_loop_dense_back_bf16(d, n, (const uint16_t *)(const void *)unused, n, false, cpu->part_rows, n, dz,
                                partial + layer->partial_bias);
    } else {
        ct_loop_dense_back_f32(d, n, unused, n, false, cpu->part_rows, n, dz, partial + layer->partial_bias);
    }
}

/* dz of a chunk, and what does not go through the product. */
static void layer_dz(const part *p, size_t l, size_t row) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_rows *kept = p->kept;
    ct_cpu_scratch *scratch = p->scratch;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded, x_stride = cpu->slabs[0].padded;
    const float *dy = gradient_at(p, l + 1, row);
    float *bias_gradient = kept->partial + layer->partial_bias;
    if (layer->normalise || layer->dropout > 0) {
        rich_dz(p, l, row, scratch->dz[0]);
        return;
    }
    if (!layer->cross) {
        if (cpu->bf16) {
            const uint16_t *y = (const uint16_t *)kept->slabs[l + 1].in + row * n;
            ct_loop_dense_back_bf16(dy, n, y, n, layer->relu, cpu->part_rows, n, scratch->dz[0], bias_gradient);
        } else {
            const float *y = (const float *)kept->slabs[l + 1].in + row * n;
            ct_loop_dense_back_f32(dy, n, y, n, layer->relu, cpu->part_rows, n, scratch->dz[0], bias_gradient);
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
                                .dx = gradient_at(p, 0, row),
                                .dx_stride = x_stride,
                                .dx_first = layer->dx_first,
                                .in_is_x = in_is_x,
                                .din = in_is_x || layer->din_in_place ? NULL : gradient_at(p, layer->carry, row),
                                .din_stride = n,
                                .dz = scratch->dz[0],
                                .bias_gradient = bias_gradient};
    if (cpu->bf16) {
        ct_loop_cross_back_bf16(&back, cpu->part_rows, n);
    } else {
        ct_loop_cross_back_f32(&back, cpu->part_rows, n);
    }
}

/* FM, DOT, REST: d x, and d of a DOT's second input. */
static void of_fields_back(const part *p, size_t l, size_t context_width) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_fields fields = {.columns = cpu->fields, .count = cpu->field_count, .dim = cpu->field_dim};
    const size_t n = layer->out_padded, stride = cpu->slabs[0].padded, rows = p->end - p->first;
    const float *dy = gradient_at(p, l + 1, p->first), *x = p->kept->slabs[0].f32 + p->first * stride;
    float *dx = gradient_at(p, 0, p->first);
    if (layer->dx_first) memset(dx, 0, rows * stride * sizeof *dx);
    if (layer->kind == CT_LAYER_FM) {
        ct_loop_fm_back(&fields, context_width, x, stride, dy, n, rows, dx);
    } else if (layer->kind == CT_LAYER_REST) {
        ct_loop_rest_back(&fields, cpu->slabs[0].width, dy, n, rows, dx, stride);
    } else {
        const ct_vectors_in second = ct_cpu_second(cpu, p->kept, layer, p->first);
        float *d_second = layer->second ? gradient_at(p, layer->input, p->first) : NULL;
        if (layer->second && !layer->back_adds) memset(d_second, 0, rows * layer->in_padded * sizeof *d_second);
        ct_loop_dots_back(&fields, x, stride, &second, dy, n, rows, p->scratch->fields, dx, d_second);
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
            ct_loop_to_panels_bf16((const uint16_t *)dz + first[i], n, cpu->part_rows, columns[i], panels, row, (uint16_t *)to + to_at[i]);
        } else {
            ct_loop_to_panels_f32((const float *)dz + first[i], n, cpu->part_rows, columns[i], panels, row, (float *)to + to_at[i]);
        }
    }
}

/* A plain DENSE layer in bf16 whose right-hand matrices are in pairs: dz of a chunk, in both forms at once. */
static bool goes_in_pairs(const ct_cpu *cpu, const ct_cpu_layer *layer) {
    if (!cpu->bf16 || !ct_cpu_plain_dense(layer)) return false;
    for (size_t i = 0; i < 2; ++i) {
        const ct_panels *panels = &layer->panels[i].dz;
        if (layer->panels[i].columns > 0 && (panels->pair != 2 || panels->width % 16 != 0)) return false;
    }
    return true;
}

static void dense_dz_in_pairs(const part *p, size_t l, size_t row) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_rows *kept = p->kept;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded, full = layer->full_panels * CT_PANEL_COLUMNS;
    const float *dy = gradient_at(p, l + 1, row);
    const uint16_t *y = (const uint16_t *)kept->slabs[l + 1].in + row * n;
    float *bias_gradient = kept->partial + layer->partial_bias;
    uint16_t *dz = p->scratch->dz[0], *to = kept->dz[l];
    if (full > 0) ct_loop_dense_back_pairs(dy, y, layer->relu, cpu->part_rows, full, n, dz, bias_gradient, &layer->panels[0].dz, row, to);
    if (full == n) return;
    ct_loop_dense_back_pairs(dy + full, y + full, layer->relu, cpu->part_rows, n - full, n, dz + full, bias_gradient + full,
                             &layer->panels[1].dz, row, to + ct_cpu_panel_at(cpu, layer->full_panels));
}

static void layer_back(const part *p, size_t l) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    ct_cpu_scratch *scratch = p->scratch;
    const bool pairs = goes_in_pairs(cpu, layer);
    if (pairs) {
        dense_dz_in_pairs(p, l, p->first);
    } else {
        layer_dz(p, l, p->first);
        dz_to_panels(cpu, layer, scratch->dz[0], p->first, p->kept->dz[l]);
    }
    ct_product_run(layer->back, scratch->executor, cpu->part_rows, scratch->dz[0], layer->packed_back,
                   gradient_at(p, layer->input, p->first), layer->back_adds);
}

/* --- with products of our own: where layer l + 1 is the last to add to the gradient of layer l's output, its product's rows become
 * layer l's dz at once --- */

static bool finishes(const ct_cpu *cpu, size_t l) { return cpu->own && (cpu->layers[l].cross || ct_cpu_plain_dense(&cpu->layers[l])); }

static bool is_early(const ct_cpu *cpu, size_t l) {
    return finishes(cpu, l) && l + 1 < cpu->layer_count && ct_tower_has_weight(cpu->layers[l + 1].kind) &&
           cpu->layers[l + 1].input == l + 1;
}

/* dz of a layer, dense, from a row of the block on. Two layers' at a time. */
static uint16_t *own_dz(const part *p, size_t l, size_t row) {
    return (uint16_t *)p->scratch->dz[l % 2] + (row - p->first) * p->cpu->layers[l].out_padded;
}

static ct_turned own_turned(const part *p, size_t l, size_t row) { return (uint16_t *)p->kept->dz[l] + row * p->cpu->layers[l].out_padded; }

typedef union back_finish {
    ct_dense_back_finish dense;
    ct_cross_back_finish cross;
} back_finish;

/* What makes layer l's dz of dy, from `row` on. adds: dy is what stands in its gradient and the tile. */
static ct_tile_finish prepare_finish(const part *p, size_t l, size_t row, bool adds, back_finish *out_finish) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_rows *kept = p->kept;
    const size_t n = layer->out_padded, x_stride = cpu->slabs[0].padded;
    float *dy = gradient_at(p, l + 1, row), *bias_gradient = kept->partial + layer->partial_bias;
    if (!layer->cross) {
        const uint16_t *y = kept->slabs[l + 1].in; /* NULL: it was passing */
        out_finish->dense = (ct_dense_back_finish){.others = adds ? dy : NULL,
                                                   .n = n,
                                                   .y = y == NULL ? NULL : y + row * n,
                                                   .y_turned = y == NULL ? (uint16_t *)kept->slabs[l + 1].transposed + row * n : NULL,
                                                   .relu = layer->relu,
                                                   .dz = own_dz(p, l, row),
                                                   .turned = own_turned(p, l, row),
                                                   .bias_gradient = bias_gradient};
        return ct_finish_dense_back;
    }
    const bool in_is_x = layer->carry == 0;
    out_finish->cross = (ct_cross_back_finish){.adds = adds,
                                               .dy = dy,
                                               .n = n,
                                               .x = kept->slabs[0].f32 + row * x_stride,
                                               .x_stride = x_stride,
                                               .sum = kept->sum[l] + row * n,
                                               .bias = cpu->weights.masters + layer->bias,
                                               .dx = gradient_at(p, 0, row),
                                               .dx_stride = x_stride,
                                               .dx_first = layer->dx_first,
                                               .in_is_x = in_is_x,
                                               .din = in_is_x || layer->din_in_place ? NULL : gradient_at(p, layer->carry, row),
                                               .dz = own_dz(p, l, row),
                                               .turned = own_turned(p, l, row),
                                               .bias_gradient = bias_gradient};
    return ct_finish_cross_back;
}

/* dz of rows of a layer whose gradient is whole. */
static void own_dz_now(const part *p, size_t l, size_t row, size_t rows) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t n = layer->out_padded;
    if (!finishes(cpu, l)) {
        uint16_t *dz = own_dz(p, l, row);
        rich_dz(p, l, row, dz);
        ct_tiles_turn_bf16(dz, rows, n, own_turned(p, l, row));
        return;
    }
    back_finish finish;
    const ct_tile tile = {.rows = rows, .end = n, .sums = gradient_at(p, l + 1, row), .stride = n};
    prepare_finish(p, l, row, false, &finish)(&finish, &tile);
}

static void own_layer_back(const part *p, size_t l) {
    const ct_cpu *cpu = p->cpu;
    const ct_cpu_layer *layer = &cpu->layers[l];
    const bool early = is_early(cpu, l), next_early = l > 0 && layer->input == l && is_early(cpu, l - 1);
    const size_t row = p->first, rows = p->end - row;
    if (!early) own_dz_now(p, l, row, rows);
    const uint16_t *dz = own_dz(p, l, row);
    if (next_early) {
        back_finish finish;
        const ct_tile_finish next = prepare_finish(p, l - 1, row, layer->back_adds, &finish);
        ct_product_run_finished(layer->back, rows, dz, layer->packed_back, p->scratch->sums[0], next, &finish);
    } else {
        ct_product_run(layer->back, p->scratch->executor, rows, dz, layer->packed_back, gradient_at(p, layer->input, row),
                       layer->back_adds);
    }
}

/* dz of the rows behind `whole` is zero. */
static void clear_dz(const ct_cpu *cpu, size_t l, const ct_cpu_rows *kept, size_t whole) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const size_t item = ct_cpu_item(cpu);
    if (cpu->own && layer->back != NULL) {
        memset((uint16_t *)kept->dz[l] + whole * layer->out_padded, 0, (cpu->block_rows - whole) * layer->out_padded * item);
        return;
    }
    for (size_t panel = 0; panel < layer->panel_count && whole < cpu->block_rows; ++panel) {
        const ct_panels *panels = &layer->panels[ct_cpu_panel_kind(layer, panel)].dz;
        char *from = (char *)kept->dz[l] + ct_cpu_panel_at(cpu, panel) * item;
        for (size_t p = 0; p < panels->count; ++p) {
            memset(from + (p * panels->panel_stride + whole * panels->width) * item, 0, (cpu->block_rows - whole) * panels->width * item);
        }
    }
}

/* Of rows [first, first + rows), dx from `first` on. From the last to the first: the gradient of what a hidden one wrote takes the place of
 * its value. */
static void adapters_back(const ct_cpu *cpu, size_t count, const ct_cpu_rows *kept, size_t first, size_t rows, const float *dx) {
    float *raw = kept->raw == NULL ? NULL : kept->raw + first * cpu->raw_stride;
    for (size_t i = count; i-- > 0;) {
        const ct_cpu_adapter *adapter = &cpu->adapters[i];
        const ct_adapter_spec *spec = adapter->spec;
        const float *d = (spec->hidden ? raw : dx) + spec->column;
        const size_t d_stride = spec->hidden ? cpu->raw_stride : cpu->slabs[0].padded;
        float *in = raw + spec->raw_column;
        ct_loop_adapter_back(in, cpu->raw_stride, d, d_stride, rows, spec->in, spec->out, kept->partial + adapter->partial,
                             kept->partial + adapter->partial_bias);
        if (i > 0 && cpu->adapters[i - 1].spec->hidden)
            ct_loop_adapter_relu_back(cpu->weights.adapters[i], d, d_stride, rows, spec->in, spec->out, in, cpu->raw_stride);
    }
}

/* What weight gradients read of rows [first, first + count) of a block's dz; all of it, where rows do not follow each other. */
static bool dz_moderate(const ct_cpu *cpu, const ct_cpu_rows *kept, size_t first, size_t count) {
    bool moderate = true;
    for (size_t l = 0; l < cpu->layer_count && moderate; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        if (kept->dz[l] == NULL) continue;
        moderate = cpu->own ? ct_cpu_moderate(cpu, (uint16_t *)kept->dz[l] + first * layer->out_padded, count * layer->out_padded)
                            : ct_cpu_moderate(cpu, kept->dz[l], ct_cpu_dz_size(cpu, layer));
    }
    return moderate;
}

void ct_cpu_block_backward(ct_tower *tower, size_t block, size_t rows, const float *logit_gradients) {
    ct_cpu *cpu = ct_cpu_of(tower);
    ct_cpu_rows *kept = &cpu->blocks[block];
    const size_t whole = ct_round_up(rows, CT_CHUNK_ROWS), stride = cpu->slabs[0].padded;
    ct_cpu_scratch *scratch = ct_cpu_scratch_take(cpu);
    bool sound = cpu->sound[block];
    memset(kept->partial, 0, cpu->partial_floats * sizeof(float));
    for (size_t first = 0; first < whole; first += cpu->part_rows) {
        const part p = {.cpu = cpu,
                        .kept = kept,
                        .scratch = scratch,
                        .first = first,
                        .end = first + cpu->part_rows,
                        .rows = rows < first ? first : rows};
        head_back(&p, logit_gradients);
        for (size_t l = cpu->layer_count; l-- > 0;) {
            if (cpu->own && ct_tower_has_weight(cpu->layers[l].kind)) {
                own_layer_back(&p, l);
            } else if (ct_tower_has_weight(cpu->layers[l].kind)) {
                layer_back(&p, l);
            } else {
                of_fields_back(&p, l, tower->spec.context_width);
            }
        }
        if (cpu->own) sound = sound && dz_moderate(cpu, kept, first, cpu->part_rows); /* it is in the cache */
        const size_t count = (p.rows < p.end ? p.rows : p.end) - first;
        const float *dx = gradient_at(&p, 0, first);
        adapters_back(cpu, tower->spec.adapter_count, kept, first, count, dx);
        /* Not the padding: it must stay zero even where a gradient is not finite. */
        float *x = kept->slabs[0].f32 + first * stride;
        for (size_t r = 0; r < count; ++r) memcpy(x + r * stride, dx + r * stride, cpu->slabs[0].width * sizeof *dx);
    }
    for (size_t l = 0; l < cpu->layer_count; ++l) clear_dz(cpu, l, kept, whole);
    if (!cpu->own) sound = sound && dz_moderate(cpu, kept, 0, cpu->block_rows);
    cpu->sound[block] = sound && ct_loop_moderate_f32(kept->partial, cpu->partial_floats);
    ct_cpu_scratch_give(cpu, scratch);
}
