/* A tower's description: checked once, by one function that answers with text, and copied. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tower/tower_internal.h"

enum { CT_TOWER_MAX_WIDTH = 1 << 20, CT_TOWER_MAX_BATCH = 1 << 24 };

size_t ct_tower_slab_width(const ct_tower_spec *spec, size_t slab) { return slab == 0 ? spec->width : spec->layers[slab - 1].out; }

size_t ct_tower_layer_in(const ct_tower_spec *spec, size_t layer) {
    const ct_layer_spec *l = &spec->layers[layer];
    const size_t count = l->kind == CT_LAYER_HEAD ? l->input_count : 1;
    size_t in = 0;
    for (size_t i = 0; i < count; ++i) in += ct_tower_slab_width(spec, l->inputs[i]);
    return in;
}

size_t ct_tower_rest_width(const ct_tower_spec *spec) { return spec->width - spec->field_count * spec->field_dim; }

size_t ct_tower_outputs(const ct_tower_spec *spec) { return spec->layers[spec->layer_count - 1].out; }

bool ct_tower_is_unit(const ct_tower_spec *spec, size_t slab, size_t column) {
    for (size_t i = 0; i < spec->unit_range_count; ++i) {
        const ct_unit_range *range = &spec->unit_ranges[i];
        if (range->slab == slab && column >= range->column && column - range->column < range->count) return true;
    }
    return false;
}

static bool name_is_text(const char name[CT_LAYER_NAME_BYTES]) { return name[0] != 0 && memchr(name, 0, CT_LAYER_NAME_BYTES) != NULL; }

/* [column, column + count) lies in [0, limit) and is not empty. */
static bool range_fits(size_t column, size_t count, size_t limit) { return count > 0 && column < limit && count <= limit - column; }

static bool ranges_meet(size_t a, size_t a_count, size_t b, size_t b_count) { return a < b + b_count && b < a + a_count; }

static ct_code check_average(const ct_tower_options *options, ct_status *status) {
    if (!(options->average_power >= 0) || !isfinite(options->average_power)) {
        return ct_fail(status, CT_INVALID, "tower: the average's power %g must be finite and not negative", (double)options->average_power);
    }
    return CT_OK;
}

static ct_code check_options(const ct_tower_options *options, ct_status *status) {
    if (options->precision != CT_PRECISION_AUTO && options->precision != CT_PRECISION_FP32 && options->precision != CT_PRECISION_BF16) {
        return ct_fail(status, CT_INVALID, "tower: precision %d is not known", (int)options->precision);
    }
    if (options->batch_rows > CT_TOWER_MAX_BATCH) {
        return ct_fail(status, CT_INVALID, "tower: a batch of %zu rows is more than %d", options->batch_rows, CT_TOWER_MAX_BATCH);
    }
    CT_TRY(check_average(options, status));
    if (options->batch_rows == 0) return CT_OK;
    if (!isfinite(options->l2) || options->l2 < 0) {
        return ct_fail(status, CT_INVALID, "tower: l2 %g must be finite and not negative", (double)options->l2);
    }
    if (!isfinite(options->learning_rate) || options->learning_rate < 0) {
        return ct_fail(status, CT_INVALID, "tower: learning rate %g must be finite and not negative", (double)options->learning_rate);
    }
    if (options->optimiser != CT_DENSE_SGD && options->optimiser != CT_DENSE_ADAM) {
        return ct_fail(status, CT_INVALID, "tower: optimiser %d is not known", (int)options->optimiser);
    }
    if (options->optimiser == CT_DENSE_ADAM) {
        const bool betas = options->beta1 >= 0 && options->beta1 < 1 && options->beta2 >= 0 && options->beta2 < 1;
        if (!betas || !(options->epsilon > 0) || !isfinite(options->epsilon)) {
            return ct_fail(status, CT_INVALID, "tower: Adam needs 0 <= beta1, beta2 < 1 and epsilon > 0; given %g, %g, %g",
                           (double)options->beta1, (double)options->beta2, (double)options->epsilon);
        }
    }
    return CT_OK;
}

static ct_code check_adapters(const ct_tower_spec *spec, ct_status *status) {
    if (spec->adapter_count > CT_TOWER_MAX_ADAPTERS) {
        return ct_fail(status, CT_INVALID, "tower: %zu adapters, at most %d", spec->adapter_count, CT_TOWER_MAX_ADAPTERS);
    }
    for (size_t i = 0; i < spec->adapter_count; ++i) {
        const ct_adapter_spec *a = &spec->adapters[i];
        if (!name_is_text(a->name)) return ct_fail(status, CT_INVALID, "tower: adapter %zu has no name, or one that is too long", i);
        if (!range_fits(a->raw_column, a->in, spec->raw_width)) {
            return ct_fail(status, CT_INVALID, "adapter %s: columns %zu + %zu are outside the raw input of %zu", a->name, a->raw_column,
                           a->in, spec->raw_width);
        }
        const size_t limit = a->hidden ? spec->raw_width : spec->width;
        if (!range_fits(a->column, a->out, limit)) {
            return ct_fail(status, CT_INVALID, "adapter %s: columns %zu + %zu are outside the %s input of %zu", a->name, a->column, a->out,
                           a->hidden ? "raw" : "first", limit);
        }
        const ct_adapter_spec *next = i + 1 < spec->adapter_count ? a + 1 : NULL;
        if (a->hidden && (next == NULL || next->hidden || next->raw_column != a->column || next->in != a->out)) {
            return ct_fail(status, CT_INVALID, "adapter %s: the adapter behind it must read what it writes, columns %zu + %zu", a->name,
                           a->column, a->out);
        }
        if (!a->hidden && a->column < spec->context_width && a->column + a->out > spec->context_width) {
            return ct_fail(status, CT_INVALID, "adapter %s: columns %zu + %zu lie on both sides of the context's end at %zu", a->name,
                           a->column, a->out, spec->context_width);
        }
        for (size_t k = 0; k < i; ++k) {
            if (a->hidden == spec->adapters[k].hidden && ranges_meet(a->column, a->out, spec->adapters[k].column, spec->adapters[k].out)) {
                return ct_fail(status, CT_INVALID, "adapter %s: writes columns that adapter %s writes too", a->name,
                               spec->adapters[k].name);
            }
            if (strcmp(a->name, spec->adapters[k].name) == 0) return ct_fail(status, CT_INVALID, "adapter %s: two have this name", a->name);
        }
    }
    return CT_OK;
}

static ct_code check_cross(const ct_tower_spec *spec, const ct_layer_spec *layer, ct_status *status) {
    const size_t carry = layer->inputs[layer->input_count - 1];
    if (layer->out != spec->width) {
        return ct_fail(status, CT_INVALID, "layer %s: a CROSS has as many columns as the first input, %zu, not %zu", layer->name,
                       spec->width, layer->out);
    }
    if (carry != 0 && spec->layers[carry - 1].kind != CT_LAYER_CROSS) {
        return ct_fail(status, CT_INVALID, "layer %s: a CROSS reads the first input or a CROSS, not layer %s", layer->name,
                       spec->layers[carry - 1].name);
    }
    return CT_OK;
}

static ct_code check_of_fields(const ct_tower_spec *spec, const ct_layer_spec *layer, ct_status *status) {
    if (layer->inputs[0] != 0) return ct_fail(status, CT_INVALID, "layer %s: must read the first input", layer->name);
    if (spec->field_count == 0) return ct_fail(status, CT_INVALID, "layer %s: there are no fields", layer->name);
    size_t out = layer->kind == CT_LAYER_FM ? spec->field_dim : ct_tower_rest_width(spec);
    if (layer->kind == CT_LAYER_DOT) {
        const size_t vectors = spec->field_count + layer->input_count - 1;
        out = vectors * (vectors - 1) / 2 + (layer->input_count == 2 ? spec->field_dim : 0);
        if (layer->input_count == 2 && ct_tower_slab_width(spec, layer->inputs[1]) != spec->field_dim) {
            return ct_fail(status, CT_INVALID, "layer %s: its second input has %zu columns, a field %zu", layer->name,
                           ct_tower_slab_width(spec, layer->inputs[1]), spec->field_dim);
        }
    }
    if (out != layer->out) return ct_fail(status, CT_INVALID, "layer %s: %zu columns; must be %zu", layer->name, layer->out, out);
    return CT_OK;
}

static ct_code check_fields(const ct_tower_spec *spec, ct_status *status) {
    if (spec->field_count > 0 && (spec->field_dim == 0 || spec->field_dim > spec->width)) {
        return ct_fail(status, CT_INVALID, "tower: fields of %zu columns in a first input of %zu", spec->field_dim, spec->width);
    }
    for (size_t i = 0; i < spec->field_count; ++i) {
        const size_t column = spec->fields[i], end = column + spec->field_dim;
        if (!range_fits(column, spec->field_dim, spec->width) || (i > 0 && column < spec->fields[i - 1] + spec->field_dim) ||
            (column < spec->context_width && end > spec->context_width)) {
            return ct_fail(status, CT_INVALID,
                           "tower: field %zu, columns %zu + %zu, meets the one before it, both sides, or the end of the first input", i,
                           column, spec->field_dim);
        }
    }
    return CT_OK;
}

static ct_code check_layer(const ct_tower_spec *spec, size_t index, ct_status *status) {
    const ct_layer_spec *layer = &spec->layers[index];
    const bool last = index + 1 == spec->layer_count;
    if (!name_is_text(layer->name)) return ct_fail(status, CT_INVALID, "tower: layer %zu has no name, or one that is too long", index);
    for (size_t k = 0; k < index; ++k) {
        if (strcmp(layer->name, spec->layers[k].name) == 0) {
            return ct_fail(status, CT_INVALID, "layer %s: layers %zu and %zu have this name", layer->name, k, index);
        }
    }
    for (size_t k = 0; k < spec->adapter_count; ++k) {
        if (strcmp(layer->name, spec->adapters[k].name) == 0) {
            return ct_fail(status, CT_INVALID, "layer %s: an adapter has this name too", layer->name);
        }
    }
    if ((int)layer->kind < CT_LAYER_DENSE || (int)layer->kind > CT_LAYER_REST) {
        return ct_fail(status, CT_INVALID, "layer %s: kind %d is not known", layer->name, (int)layer->kind);
    }
    if (last != (layer->kind == CT_LAYER_HEAD)) {
        return ct_fail(status, CT_INVALID, "layer %s: the last layer, and no other, must be the HEAD", layer->name);
    }
    if (layer->out == 0 || layer->out > CT_TOWER_MAX_WIDTH) {
        return ct_fail(status, CT_INVALID, "layer %s: %zu columns; must be 1 to %d", layer->name, layer->out, CT_TOWER_MAX_WIDTH);
    }
    const bool two = layer->kind == CT_LAYER_CROSS || layer->kind == CT_LAYER_DOT;
    const size_t most = layer->kind == CT_LAYER_HEAD ? CT_LAYER_MAX_INPUTS : two ? 2 : 1;
    if (layer->input_count == 0 || layer->input_count > most) {
        return ct_fail(status, CT_INVALID, "layer %s: %zu inputs; must be 1 to %zu", layer->name, layer->input_count, most);
    }
    for (size_t i = 0; i < layer->input_count; ++i) {
        if (layer->inputs[i] > index) {
            return ct_fail(status, CT_INVALID, "layer %s: reads slab %zu, which is not there yet (0 to %zu)", layer->name, layer->inputs[i],
                           index);
        }
        for (size_t k = 0; k < i; ++k) {
            if (layer->inputs[k] == layer->inputs[i]) {
                return ct_fail(status, CT_INVALID, "layer %s: reads slab %zu twice", layer->name, layer->inputs[i]);
            }
        }
    }
    if (layer->activation != CT_ACTIVATION_NONE && (layer->activation != CT_ACTIVATION_RELU || layer->kind != CT_LAYER_DENSE)) {
        return ct_fail(status, CT_INVALID, "layer %s: activation %d is not for this kind of layer", layer->name, (int)layer->activation);
    }
    if (layer->kind != CT_LAYER_DENSE && (layer->no_bias || layer->normalise || layer->dropout != 0)) {
        return ct_fail(status, CT_INVALID, "layer %s: only a DENSE may lack a bias, be normalised or drop values", layer->name);
    }
    if (!(layer->dropout >= 0) || layer->dropout >= 1) {
        return ct_fail(status, CT_INVALID, "layer %s: dropout %g; must be at least 0 and less than 1", layer->name, (double)layer->dropout);
    }
    if (layer->kind == CT_LAYER_CROSS) return check_cross(spec, layer, status);
    return layer->kind == CT_LAYER_DENSE || layer->kind == CT_LAYER_HEAD ? CT_OK : check_of_fields(spec, layer, status);
}

static ct_code check_readers(const ct_tower_spec *spec, ct_status *status) {
    for (size_t index = 0; index + 1 < spec->layer_count; ++index) {
        bool read = false;
        for (size_t k = index + 1; k < spec->layer_count; ++k) {
            for (size_t i = 0; i < spec->layers[k].input_count; ++i) read = read || spec->layers[k].inputs[i] == index + 1;
        }
        if (!read) return ct_fail(status, CT_INVALID, "layer %s: no later layer reads it", spec->layers[index].name);
    }
    return CT_OK;
}

static ct_code check_units(const ct_tower_spec *spec, ct_status *status) {
    if (spec->unit_range_count == 0) return CT_OK;
    const ct_layer_spec *head = &spec->layers[spec->layer_count - 1];
    for (size_t i = 0; i < spec->unit_range_count; ++i) {
        const ct_unit_range *range = &spec->unit_ranges[i];
        bool read = false;
        for (size_t k = 0; k < head->input_count; ++k) read = read || head->inputs[k] == range->slab;
        if (!read) {
            return ct_fail(status, CT_INVALID, "layer %s: unit range %zu is of slab %zu, which it does not read", head->name, i,
                           range->slab);
        }
        const size_t width = ct_tower_slab_width(spec, range->slab);
        if (!range_fits(range->column, range->count, width)) {
            return ct_fail(status, CT_INVALID, "layer %s: unit range %zu + %zu is outside the %zu columns of slab %zu", head->name,
                           range->column, range->count, width, range->slab);
        }
        for (size_t k = 0; k < i; ++k) {
            const ct_unit_range *other = &spec->unit_ranges[k];
            if (range->slab == other->slab && ranges_meet(range->column, range->count, other->column, other->count)) {
                return ct_fail(status, CT_INVALID, "layer %s: unit ranges %zu and %zu overlap", head->name, k, i);
            }
        }
    }
    return CT_OK;
}

ct_code ct_tower_spec_check(const ct_tower_spec *spec, const ct_tower_options *options, ct_status *status) {
    if (spec->width == 0 || spec->width > CT_TOWER_MAX_WIDTH || spec->raw_width > CT_TOWER_MAX_WIDTH) {
        return ct_fail(status, CT_INVALID, "tower: a first input of %zu columns and a raw one of %zu; must be 1 (0 for raw) to %d",
                       spec->width, spec->raw_width, CT_TOWER_MAX_WIDTH);
    }
    if (spec->context_width > spec->width) {
        return ct_fail(status, CT_INVALID, "tower: %zu context columns of %zu", spec->context_width, spec->width);
    }
    if (spec->layer_count == 0 || spec->layer_count > CT_TOWER_MAX_LAYERS) {
        return ct_fail(status, CT_INVALID, "tower: %zu layers; must be 1 to %d", spec->layer_count, CT_TOWER_MAX_LAYERS);
    }
    CT_TRY(check_options(options, status));
    CT_TRY(check_adapters(spec, status));
    CT_TRY(check_fields(spec, status));
    for (size_t i = 0; i < spec->layer_count; ++i) CT_TRY(check_layer(spec, i, status));
    CT_TRY(check_readers(spec, status));
    return check_units(spec, status);
}

static ct_code copy_array(const void *from, size_t count, size_t bytes_each, void **out, ct_status *status) {
    if (count == 0) return CT_OK;
    *out = malloc(count * bytes_each);
    if (*out == NULL) return ct_fail_memory(status, count * bytes_each, "the tower's description");
    memcpy(*out, from, count * bytes_each);
    return CT_OK;
}

ct_code ct_tower_spec_copy(const ct_tower_spec *spec, ct_tower_spec *out_copy, ct_status *status) {
    ct_tower_spec copy = *spec;
    void *adapters = NULL, *layers = NULL, *ranges = NULL, *fields = NULL;
    ct_code code;
    CT_TRY_GOTO(code, copy_array(spec->adapters, spec->adapter_count, sizeof *spec->adapters, &adapters, status), fail);
    CT_TRY_GOTO(code, copy_array(spec->layers, spec->layer_count, sizeof *spec->layers, &layers, status), fail);
    CT_TRY_GOTO(code, copy_array(spec->unit_ranges, spec->unit_range_count, sizeof *spec->unit_ranges, &ranges, status), fail);
    CT_TRY_GOTO(code, copy_array(spec->fields, spec->field_count, sizeof *spec->fields, &fields, status), fail);
    copy.adapters = adapters;
    copy.layers = layers;
    copy.unit_ranges = ranges;
    copy.fields = fields;
    *out_copy = copy;
    return CT_OK;
fail:
    free(adapters);
    free(layers);
    free(ranges);
    free(fields);
    return code;
}

void ct_tower_spec_free(ct_tower_spec *copy) {
    free(copy->adapters);
    free(copy->layers);
    free(copy->unit_ranges);
    free(copy->fields);
}
