/* What a tower's description becomes on the CPU: padded widths, products, packed copies of the weights, who writes which gradient first. */
#include <string.h>

#include "tower/cpu/cpu.h"

static const size_t forward_counts[] = {128, 64, 32, 16, 4, 1};

static ct_code get_forward(ct_cpu *cpu, size_t k, size_t n, const ct_product **out_product, ct_status *status) {
    ct_product_shape shape = {.k = k, .n = n, .bf16 = cpu->bf16, .count_count = sizeof forward_counts / sizeof *forward_counts};
    memcpy(shape.counts, forward_counts, sizeof forward_counts);
    return ct_products_get(cpu->products, &shape, out_product, status);
}
static ct_code get_back(ct_cpu *cpu, size_t k, size_t n, const ct_product **out_product, ct_status *status) {
    const ct_product_shape shape = {.k = k, .n = n, .bf16 = cpu->bf16, .counts = {CT_CHUNK_ROWS}, .count_count = 1, .accumulate = true};
    return ct_products_get(cpu->products, &shape, out_product, status);
}
static ct_code get_gradient(ct_cpu *cpu, size_t rows, size_t n, const ct_product **out_product, ct_status *status) {
    const ct_product_shape shape = {
        .k = cpu->block_rows, .n = n, .bf16 = cpu->bf16, .counts = {rows}, .count_count = 1, .accumulate = true};
    return ct_products_get(cpu->products, &shape, out_product, status);
}

static void plan_slabs(const ct_tower_spec *spec, ct_cpu *cpu) {
    cpu->own = cpu->bf16 && ct_products_own();
    cpu->part_rows = cpu->own ? CT_OWN_PART_ROWS : CT_CHUNK_ROWS;
    cpu->padding = cpu->bf16 && ct_products_tiles() ? 32 : 16;
    cpu->raw_stride = ct_round_up(spec->raw_width, 16);
    cpu->layer_count = spec->layer_count - 1;
    cpu->slab_count = spec->layer_count;
    for (size_t s = 0; s < cpu->slab_count; ++s) {
        ct_cpu_slab_plan *slab = &cpu->slabs[s];
        slab->width = ct_tower_slab_width(spec, s);
        slab->padded = ct_round_up(slab->width, cpu->padding);
        slab->f32 = s == 0 || spec->layers[s - 1].kind == CT_LAYER_CROSS || spec->layers[s - 1].kind == CT_LAYER_FM;
        slab->gradient = s;
        if (slab->padded > cpu->widest) cpu->widest = slab->padded;
    }
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        if (ct_tower_has_weight(spec->layers[l].kind)) cpu->slabs[spec->layers[l].inputs[0]].product = true;
    }
    cpu->fields = spec->fields;
    cpu->field_count = spec->field_count;
    cpu->field_dim = spec->field_dim;
    cpu->field_floats = ct_loop_dots_scratch(spec->field_count + 1, spec->field_dim);
    const size_t ends[] = {0, spec->context_width, spec->width};
    for (size_t i = 0; i < 2; ++i) {
        const size_t width = ends[i + 1] - ends[i];
        if (width == 0) continue;
        cpu->x_parts[cpu->x_part_count++] =
            (ct_cpu_x_part){.column = ends[i], .width = width, .padded = ct_round_up(width, cpu->padding), .context = i == 0};
    }
}

static ct_code plan_layer(const ct_tower *tower, ct_cpu *cpu, size_t l, ct_status *status) {
    const ct_tower_spec *spec = &tower->spec;
    const ct_layer_spec *from = &spec->layers[l];
    ct_cpu_layer *layer = &cpu->layers[l];
    const bool training = cpu->block_rows > 0;
    layer->kind = from->kind;
    layer->cross = from->kind == CT_LAYER_CROSS;
    layer->relu = from->activation == CT_ACTIVATION_RELU;
    layer->normalise = from->normalise;
    layer->dropout = from->dropout;
    layer->second = from->kind == CT_LAYER_DOT && from->input_count == 2;
    layer->input = from->inputs[layer->second ? 1 : 0];
    layer->carry = from->inputs[from->input_count - 1];
    layer->in = cpu->slabs[layer->input].width;
    layer->in_padded = cpu->slabs[layer->input].padded;
    layer->out = from->out;
    layer->out_padded = cpu->slabs[l + 1].padded;
    const ct_parameter *four = &tower->parameters[ct_tower_layer_parameter(spec, l, CT_WEIGHT)];
    layer->weight = four[CT_WEIGHT].offset;
    layer->bias = four[CT_BIAS].offset;
    layer->scale = four[CT_SCALE].offset;
    layer->shift = four[CT_SHIFT].offset;
    if (!ct_tower_has_weight(layer->kind)) return CT_OK;
    layer->part_count = layer->input == 0 ? cpu->x_part_count : 1;
    for (size_t i = 0; i < layer->part_count; ++i) {
        ct_cpu_part *part = &layer->parts[i];
        const ct_cpu_x_part *x = &cpu->x_parts[i];
        *part = layer->input == 0 ? (ct_cpu_part){.row = x->column, .k = x->width, .padded = x->padded, .context = x->context}
                                  : (ct_cpu_part){.row = 0, .k = layer->in, .padded = layer->in_padded};
        CT_TRY(get_forward(cpu, part->padded, layer->out_padded, &part->product, status));
    }
    if (!training) return CT_OK;
    CT_TRY(get_back(cpu, layer->out_padded, layer->in_padded, &layer->back, status));
    if (cpu->own) return CT_OK;
    layer->panel_count = ct_round_up(layer->out_padded, CT_PANEL_COLUMNS) / CT_PANEL_COLUMNS;
    layer->full_panels = layer->out_padded / CT_PANEL_COLUMNS;
    layer->panels[0].columns = layer->full_panels > 0 ? CT_PANEL_COLUMNS : 0;
    layer->panels[1].columns = layer->out_padded % CT_PANEL_COLUMNS;
    for (size_t i = 0; i < 2; ++i) {
        const size_t columns = layer->panels[i].columns;
        if (columns == 0) continue;
        CT_TRY(get_gradient(cpu, layer->in_padded, columns, &layer->panels[i].gradient, status));
        ct_panels *dz = &layer->panels[i].dz;
        *dz = *ct_product_panels(layer->panels[i].gradient);
        if (dz->elements > cpu->block_rows * CT_PANEL_COLUMNS) {
            return ct_fail(status, CT_INTERNAL, "layer %s: oneDNN lays a (%zu, %zu) matrix out in %zu elements", from->name,
                           cpu->block_rows, columns, dz->elements);
        }
        dz->panel_stride = cpu->block_rows * dz->width; /* the panels of all columns, one behind the other */
    }
    return CT_OK;
}

static void plan_head(const ct_tower *tower, ct_cpu *cpu) {
    const ct_tower_spec *spec = &tower->spec;
    const ct_layer_spec *from = &spec->layers[spec->layer_count - 1];
    ct_cpu_head *head = &cpu->head;
    head->outputs = from->out;
    head->input_count = from->input_count;
    for (size_t i = 0; i < from->input_count; ++i) {
        head->inputs[i] = from->inputs[i];
        head->at[i] = head->columns;
        head->columns += ct_round_up(cpu->slabs[from->inputs[i]].width, CT_TOWER_ALIGN);
    }
    head->weight = tower->parameters[ct_tower_layer_parameter(spec, spec->layer_count - 1, CT_WEIGHT)].offset;
    head->bias = tower->parameters[ct_tower_layer_parameter(spec, spec->layer_count - 1, CT_BIAS)].offset;
}

/* An output that only products read: backward finds it in what their weight gradients read. */
static bool is_kept_turned(const ct_cpu *cpu, size_t slab) {
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        if (cpu->layers[l].kind == CT_LAYER_DOT && cpu->layers[l].second && cpu->layers[l].input == slab) return false;
    }
    return cpu->own && cpu->slabs[slab].product && ct_cpu_plain_dense(&cpu->layers[slab - 1]);
}

/* The layers from the last to the first, as backward takes them: who writes a slab's gradient first, who adds. */
static void plan_backward(ct_cpu *cpu) {
    bool written[CT_CPU_MAX_SLABS] = {false};
    for (size_t i = 0; i < cpu->head.input_count; ++i) {
        cpu->head.first[i] = true;
        written[cpu->head.inputs[i]] = true;
    }
    for (size_t s = 1; s < cpu->slab_count; ++s) cpu->slabs[s].passing = !written[s] && (cpu->slabs[s].f32 || is_kept_turned(cpu, s));
    for (size_t l = cpu->layer_count; l-- > 0;) {
        ct_cpu_layer *layer = &cpu->layers[l];
        if (layer->kind != CT_LAYER_DENSE) {
            layer->dx_first = !written[0];
            written[0] = true;
        }
        if (layer->cross) {
            layer->din_in_place = layer->carry != 0 && !written[layer->carry];
            if (layer->din_in_place) cpu->slabs[layer->carry].gradient = cpu->slabs[l + 1].gradient;
            written[layer->carry] = true;
        }
        layer->back_adds = written[layer->input];
        written[layer->input] = true;
    }
}

static void plan_partial(ct_cpu *cpu) {
    size_t floats = 0;
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        ct_cpu_layer *layer = &cpu->layers[l];
        size_t *const at[] = {&layer->partial_bias, &layer->partial_scale, &layer->partial_shift};
        const size_t count = layer->normalise ? 3 : ct_tower_has_weight(layer->kind) ? 1 : 0;
        for (size_t i = 0; i < count; ++i, floats += layer->out_padded) *at[i] = floats;
    }
    cpu->head.partial = floats;
    floats += cpu->head.outputs * cpu->head.columns;
    cpu->head.partial_bias = floats;
    floats += ct_round_up(cpu->head.outputs, 16);
    cpu->partial_floats = floats;
}

static void place_set(const ct_cpu *cpu, size_t adapter_count, ct_cpu_weights *weights, ct_cpu_pieces *memory) {
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        for (size_t i = 0; i < layer->part_count; ++i) {
            weights->parts[l][i] = ct_cpu_take(memory, ct_product_panels(layer->parts[i].product)->elements * ct_cpu_item(cpu));
        }
    }
    weights->head = ct_cpu_take(memory, cpu->head.outputs * cpu->head.columns * sizeof(float));
    for (size_t i = 0; i < adapter_count; ++i) {
        weights->adapters[i] = ct_cpu_take(memory, cpu->adapters[i].spec->in * cpu->adapters[i].padded * sizeof(float));
    }
}

static void place_packed(ct_cpu *cpu, size_t adapter_count, ct_cpu_pieces *memory) {
    place_set(cpu, adapter_count, &cpu->weights, memory);
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        ct_cpu_layer *layer = &cpu->layers[l];
        if (layer->back != NULL) layer->packed_back = ct_cpu_take(memory, ct_product_panels(layer->back)->elements * ct_cpu_item(cpu));
    }
    if (cpu->two_sets) place_set(cpu, adapter_count, &cpu->average, memory);
}

ct_code ct_cpu_plan(const ct_tower *tower, ct_cpu *cpu, ct_status *status) {
    const ct_tower_spec *spec = &tower->spec;
    if (tower->options.batch_rows > 0) {
        cpu->block_rows = ct_tower_block_rows(tower->options.batch_rows);
        cpu->block_count = ct_round_up(tower->options.batch_rows, cpu->block_rows) / cpu->block_rows;
    }
    plan_slabs(spec, cpu);
    CT_TRY(ct_products_create(&cpu->products, status));
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        ct_code code = plan_layer(tower, cpu, l, status);
        if (code != CT_OK) return ct_fail_within(status, "layer %s", spec->layers[l].name);
    }
    plan_head(tower, cpu);
    plan_backward(cpu);
    plan_partial(cpu);
    for (size_t i = 0; i < spec->adapter_count; ++i) {
        ct_cpu_adapter *adapter = &cpu->adapters[i];
        adapter->spec = &spec->adapters[i];
        adapter->padded = ct_round_up(adapter->spec->out, 16);
        adapter->weight = tower->parameters[ct_tower_adapter_parameter(i, CT_WEIGHT)].offset;
        adapter->bias = tower->parameters[ct_tower_adapter_parameter(i, CT_BIAS)].offset;
        adapter->context = spec->adapters[adapter->spec->hidden ? i + 1 : i].column < spec->context_width;
        adapter->partial = cpu->partial_floats;
        adapter->partial_bias = adapter->partial + adapter->spec->in * adapter->padded;
        cpu->partial_floats = adapter->partial_bias + adapter->padded;
    }
    size_t floats = 0;
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        cpu->layers[l].gradient_offset = floats;
        floats += cpu->layers[l].panel_count * cpu->layers[l].in_padded * CT_PANEL_COLUMNS;
        cpu->panel_count += cpu->layers[l].panel_count;
        for (size_t i = 0; i < cpu->layers[l].part_count; ++i) cpu->piece_count += ct_cpu_step_pieces(&cpu->layers[l].parts[i]);
    }
    cpu->two_sets = tower->average != NULL;
    ct_cpu_pieces memory = {NULL, 0};
    place_packed(cpu, spec->adapter_count, &memory);
    cpu->packed_memory = ct_tower_memory(memory.used);
    if (cpu->packed_memory == NULL) return ct_fail_memory(status, memory.used, "the tower's packed weights");
    memory = (ct_cpu_pieces){cpu->packed_memory, 0};
    place_packed(cpu, spec->adapter_count, &memory);
    cpu->weights.masters = tower->weights;
    if (cpu->two_sets) {
        cpu->average.masters = tower->average;
    } else {
        cpu->average = cpu->weights;
    }
    return CT_OK;
}

void ct_cpu_pack_part(const ct_cpu *cpu, const ct_cpu_weights *weights, size_t l, size_t i, size_t row, size_t end) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    const ct_cpu_part *part = &layer->parts[i];
    const ct_panels *panels = ct_product_panels(part->product);
    const float *from = weights->masters + layer->weight + part->row * layer->out;
    if (cpu->own) {
        ct_tiles_pack(from, layer->out, row, end, panels->panel_stride, weights->parts[l][i]);
    } else if (cpu->bf16) {
        ct_loop_pack_bf16(from, layer->out, row, end, panels, weights->parts[l][i]);
    } else {
        ct_loop_pack_f32(from, layer->out, row, end, panels, weights->parts[l][i]);
    }
}

void ct_cpu_pack_back(const ct_cpu *cpu, size_t l, size_t row, size_t end) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    if (layer->back == NULL) return;
    const float *from = cpu->weights.masters + layer->weight;
    if (cpu->own) {
        ct_tiles_pack_back(from, layer->out, row, end, ct_product_panels(layer->back)->panel_stride, layer->packed_back);
    } else if (cpu->bf16) {
        ct_loop_pack_back_bf16(from, layer->out, row, end, ct_product_panels(layer->back), layer->packed_back);
    } else {
        ct_loop_pack_back_f32(from, layer->out, row, end, ct_product_panels(layer->back), layer->packed_back);
    }
}

void ct_cpu_pack_small(const ct_tower *tower, const ct_cpu_weights *weights) {
    const ct_cpu *cpu = ct_cpu_of(tower);
    const ct_cpu_head *head = &cpu->head;
    const float *weight = weights->masters + head->weight;
    for (size_t i = 0; i < head->input_count; ++i) {
        const size_t width = cpu->slabs[head->inputs[i]].width;
        for (size_t k = 0; k < width; ++k, weight += head->outputs) {
            for (size_t o = 0; o < head->outputs; ++o) weights->head[o * head->columns + head->at[i] + k] = weight[o];
        }
    }
    for (size_t i = 0; i < tower->spec.adapter_count; ++i) {
        const ct_cpu_adapter *adapter = &cpu->adapters[i];
        const size_t out = adapter->spec->out;
        const float *from = weights->masters + adapter->weight;
        for (size_t k = 0; k < adapter->spec->in; ++k) {
            memcpy(weights->adapters[i] + k * adapter->padded, from + k * out, out * sizeof(float));
        }
    }
}
