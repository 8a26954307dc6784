/* From schema and spec to the columns of x and the tower's layers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model_internal.h"

static bool is_feature(const ct_field *field) {
    return field->kind == CT_FIELD_ID || field->kind == CT_FIELD_NUMBER || field->kind == CT_FIELD_VECTOR ||
           field->kind == CT_FIELD_HISTORY || field->kind == CT_FIELD_SIMILARITY;
}

static ct_code find_feature(const ct_schema *schema, const char *name, const char *list, size_t *out_field, ct_status *status) {
    const int64_t field = ct_schema_find(schema, name);
    if (field < 0) return ct_fail(status, CT_INVALID, "%s names '%s', but schema %s has no such field", list, name, schema->name);
    if (!is_feature(&schema->fields[field]))
        return ct_fail(status, CT_INVALID, "%s names '%s', which is no feature in schema %s: no id, number, vector, history or similarity",
                       list, name, schema->name);
    *out_field = (size_t)field;
    return CT_OK;
}

ct_code model_choose_fields(const ct_schema *schema, const ct_model_spec *spec, bool *out_used, ct_status *status) {
    for (size_t i = 0; i < schema->field_count; i++) out_used[i] = spec->features == NULL && is_feature(&schema->fields[i]);
    size_t field = 0;
    for (size_t i = 0; i < spec->feature_count; i++) {
        CT_TRY(find_feature(schema, spec->features[i], "features", &field, status));
        out_used[field] = true;
    }
    for (size_t i = 0; i < spec->exclude_count; i++) {
        CT_TRY(find_feature(schema, spec->exclude[i], "exclude", &field, status));
        out_used[field] = false;
    }
    size_t used = 0;
    for (size_t i = 0; i < schema->field_count; i++) used += out_used[i];
    if (used == 0) return ct_fail(status, CT_INVALID, "no feature is left: check features and exclude against schema %s", schema->name);
    return CT_OK;
}

static ct_side side_of(const ct_schema *schema, const ct_field *field) {
    return field->kind == CT_FIELD_VECTOR ? schema->fields[field->of].side : field->side;
}

/* Buckets have keys, and rows, of their own: salted with NAME#bucket. */
static uint64_t bucket_salt(const char *name) {
    char text[300];
    const int length = snprintf(text, sizeof text, "%s#bucket", name);
    return ct_hash64(text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1, 0);
}

static void place_similarities(model_layout *layout, const ct_schema *schema, const bool *used, ct_side side, const ct_model_spec *spec,
                               const uint32_t *vector_dims, const char (*vector_tables)[CT_TABLE_NAME_BYTES]) {
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (!used[f] || field->kind != CT_FIELD_SIMILARITY || field->side != side) continue;
        layout_similarity *similarity = &layout->similarities[layout->similarity_count++];
        *similarity = (layout_similarity){.field = f,
                                          .vector_field = field->vector,
                                          .dim = vector_dims[field->vector],
                                          .tiers = field->tiers,
                                          .column = (uint32_t)layout->width};
        snprintf(similarity->table_name, sizeof similarity->table_name, "%s", vector_tables[field->vector]);
        layout->width += (spec->number_flags ? 2 : 1) + field->tiers;
    }
}

/* Columns of one side: ids and histories, then numbers' buckets, then vectors, then numbers and similarities. */
static void place_side(model_layout *layout, const ct_schema *schema, const bool *used, ct_side side, const ct_model_spec *spec,
                       uint32_t adapter_width, const uint32_t *vector_dims, const char (*vector_tables)[CT_TABLE_NAME_BYTES]) {
    const size_t first_id = layout->id_count;
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field_kind kind = schema->fields[f].kind;
        if (!used[f] || (kind != CT_FIELD_ID && kind != CT_FIELD_HISTORY) || side_of(schema, &schema->fields[f]) != side) continue;
        layout->ids[layout->id_count++] = (layout_id){f, (uint32_t)layout->width, schema->fields[f].salt, NOT_A_BUCKET, NO_QUERY, 0};
        layout->width += layout->embedding_dim;
    }
    for (size_t f = 0; f < schema->field_count && spec->number_buckets; f++) {
        if (!used[f] || schema->fields[f].kind != CT_FIELD_NUMBER || side_of(schema, &schema->fields[f]) != side) continue;
        layout->ids[layout->id_count++] =
            (layout_id){f, (uint32_t)layout->width, bucket_salt(schema->fields[f].name), layout->bucket_count++, NO_QUERY, 0};
        layout->width += layout->embedding_dim;
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        if (!used[f] || schema->fields[f].kind != CT_FIELD_VECTOR || side_of(schema, &schema->fields[f]) != side) continue;
        layout_vector *vector = &layout->vectors[layout->vector_count++];
        *vector = (layout_vector){
            .field = f, .raw_column = (uint32_t)layout->raw_width, .dim = vector_dims[f], .column = (uint32_t)layout->width};
        snprintf(vector->table_name, sizeof vector->table_name, "%s", vector_tables[f]);
        layout->raw_width += vector->dim + spec->vector_hidden;
        layout->width += adapter_width;
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        if (!used[f] || schema->fields[f].kind != CT_FIELD_NUMBER || side_of(schema, &schema->fields[f]) != side) continue;
        layout->numbers[layout->number_count++] = (layout_number){f, (uint32_t)layout->width};
        layout->width += spec->number_flags ? 2 : 1;
    }
    place_similarities(layout, schema, used, side, spec, vector_dims, vector_tables);
    for (size_t i = first_id; i < layout->id_count && spec->target_stats; i++) {
        layout->ids[i].odds_column = (uint32_t)layout->width++;
    }
}

#define ONLY_ONE SIZE_MAX

static ct_layer_spec *add_layer(ct_tower_spec *tower, ct_layer_kind kind, size_t input, size_t out, const char *name, size_t number) {
    ct_layer_spec *layer = &tower->layers[tower->layer_count++];
    *layer = (ct_layer_spec){.kind = kind, .inputs = {input}, .input_count = 1, .out = out};
    layer->activation = kind == CT_LAYER_DENSE ? CT_ACTIVATION_RELU : CT_ACTIVATION_NONE;
    if (number == ONLY_ONE)
        snprintf(layer->name, sizeof layer->name, "%s", name);
    else
        snprintf(layer->name, sizeof layer->name, "%s.%zu", name, number);
    return layer;
}

/* ReLU layers over slab `input`; the slab of the last one. */
static size_t add_dense(ct_tower_spec *tower, const ct_model_spec *spec, size_t input, const uint32_t *widths, size_t count,
                        const char *name) {
    for (size_t i = 0; i < count; i++) {
        ct_layer_spec *layer = add_layer(tower, CT_LAYER_DENSE, input, widths[i], name, i);
        layer->normalise = spec->layer_norm;
        layer->dropout = spec->dropout;
        input = tower->layer_count;
    }
    return input;
}

/* The slab of the last cross layer. */
static size_t add_cross(ct_tower_spec *tower, const ct_model_spec *spec) {
    size_t cross = 0;
    for (size_t i = 0; i < spec->cross_layers; i++) {
        size_t inner = cross;
        if (spec->cross_rank > 0) {
            ct_layer_spec *narrow = add_layer(tower, CT_LAYER_DENSE, cross, spec->cross_rank, "cross_inner", i);
            narrow->activation = CT_ACTIVATION_NONE;
            narrow->no_bias = true;
            inner = tower->layer_count;
        }
        ct_layer_spec *layer = add_layer(tower, CT_LAYER_CROSS, inner, tower->width, "cross", i);
        if (spec->cross_rank > 0) layer->inputs[layer->input_count++] = cross;
        cross = tower->layer_count;
    }
    return cross;
}

/* DLRM: numbers through layers of their own, the last as wide as an embedding; products of all pairs of vectors; layers over them. */
static size_t add_dlrm(ct_tower_spec *tower, const ct_model_spec *spec) {
    const size_t rest = tower->width - tower->field_count * tower->field_dim;
    size_t bottom = 0;
    if (rest > 0) {
        const uint32_t dim = (uint32_t)tower->field_dim;
        add_layer(tower, CT_LAYER_REST, 0, rest, "rest", ONLY_ONE);
        bottom = add_dense(tower, spec, tower->layer_count, spec->bottom, spec->bottom_count, "bottom");
        add_layer(tower, CT_LAYER_DENSE, bottom, dim, "bottom", spec->bottom_count);
        bottom = tower->layer_count;
    }
    const size_t vectors = tower->field_count + (bottom != 0);
    ct_layer_spec *dot =
        add_layer(tower, CT_LAYER_DOT, 0, vectors * (vectors - 1) / 2 + (bottom != 0 ? tower->field_dim : 0), "dot", ONLY_ONE);
    if (bottom != 0) dot->inputs[dot->input_count++] = bottom;
    return add_dense(tower, spec, tower->layer_count, spec->deep, spec->deep_count, "deep");
}

/* Does the last column of each field stand in the sum as it is? */
static bool has_weights(ct_architecture architecture) {
    return architecture == CT_ARCHITECTURE_FM || architecture == CT_ARCHITECTURE_DEEPFM;
}

static void add_layers(model_layout *layout, const ct_model_spec *spec) {
    ct_tower_spec *tower = &layout->tower;
    size_t inputs[CT_LAYER_MAX_INPUTS], count = 0; /* of the head */
    if (has_weights(spec->architecture)) {
        inputs[count++] = 0;
        add_layer(tower, CT_LAYER_FM, 0, tower->field_dim, "fm", ONLY_ONE);
        inputs[count++] = tower->layer_count;
        tower->unit_ranges[tower->unit_range_count++] = (ct_unit_range){.count = tower->field_dim, .slab = tower->layer_count};
    }
    if (spec->architecture == CT_ARCHITECTURE_DLRM) {
        inputs[count++] = add_dlrm(tower, spec);
    } else {
        if (spec->cross_layers > 0) inputs[count++] = add_cross(tower, spec);
        if (spec->deep_count > 0) inputs[count++] = add_dense(tower, spec, 0, spec->deep, spec->deep_count, "deep");
    }
    ct_layer_spec *head = add_layer(tower, CT_LAYER_HEAD, 0, 1, "head", ONLY_ONE);
    for (size_t i = 0; i < count; i++) head->inputs[i] = inputs[i];
    head->input_count = count > 0 ? count : 1;
}

/* LR: ids and adapters are one wide and enter the sum as they are. */
static void add_unit_ranges(model_layout *layout) {
    ct_tower_spec *tower = &layout->tower;
    for (size_t i = 0; i < layout->id_count; i++)
        tower->unit_ranges[tower->unit_range_count++] = (ct_unit_range){.column = layout->ids[i].column, .count = 1};
    for (size_t i = 0; i < layout->vector_count; i++)
        tower->unit_ranges[tower->unit_range_count++] = (ct_unit_range){.column = layout->vectors[i].column, .count = 1};
}

static bool has_fields(ct_architecture architecture) {
    return architecture == CT_ARCHITECTURE_FM || architecture == CT_ARCHITECTURE_DEEPFM || architecture == CT_ARCHITECTURE_DLRM;
}

/* The embeddings and the adapters' outputs, in the order of their columns: the context's ids, then its vectors, then the candidates'. The
 * last column of one with a weight is that weight, and in no product. */
static ct_code add_fields(model_layout *layout, ct_architecture architecture, ct_status *status) {
    ct_tower_spec *tower = &layout->tower;
    const size_t ids[] = {0, layout->context_ids, layout->id_count}, vectors[] = {0, layout->context_vectors, layout->vector_count};
    for (size_t side = 0; side < 2; side++) {
        for (size_t i = ids[side]; i < ids[side + 1]; i++) tower->fields[tower->field_count++] = layout->ids[i].column;
        for (size_t i = vectors[side]; i < vectors[side + 1]; i++) tower->fields[tower->field_count++] = layout->vectors[i].column;
    }
    if (tower->field_count < 2)
        return ct_fail(status, CT_INVALID, "%zu ids, buckets and vectors; fm, deepfm and dlrm need two or more to multiply",
                       tower->field_count);
    tower->field_dim = layout->embedding_dim;
    if (!has_weights(architecture)) return CT_OK;
    tower->field_dim--;
    for (size_t i = 0; i < tower->field_count; i++)
        tower->unit_ranges[tower->unit_range_count++] = (ct_unit_range){.column = tower->fields[i] + tower->field_dim, .count = 1};
    return CT_OK;
}

/* Which ids are compared with the histories that attend. Both are on one side, so a look-up of that side has them both. */
static ct_code find_queries(model_layout *layout, const ct_schema *schema, const ct_model_spec *spec, ct_status *status) {
    layout->compared = layout->embedding_dim - has_weights(spec->architecture);
    for (size_t i = 0; i < layout->id_count; i++) {
        layout_id *id = &layout->ids[i];
        const ct_field *field = &schema->fields[id->field];
        if (id->bucket != NOT_A_BUCKET || !field->attention) continue;
        if (spec->architecture == CT_ARCHITECTURE_LR)
            return ct_fail(status, CT_INVALID, "field '%s': lr has one weight for an id, and nothing to attend by: exclude it",
                           field->name);
        for (size_t q = 0; q < layout->id_count; q++)
            if (layout->ids[q].field == field->of && layout->ids[q].bucket == NOT_A_BUCKET) id->query = q;
        if (id->query == NO_QUERY)
            return ct_fail(status, CT_INVALID,
                           "field '%s': its attention is that of '%s', which is not among the features: take both or none", field->name,
                           schema->fields[field->of].name);
        layout->attention = true;
    }
    return CT_OK;
}

/* hidden: 0, or the width of a first layer, which stands behind the vector in the raw input. */
static void add_adapter(ct_tower_spec *tower, const layout_vector *vector, const char *field, uint32_t hidden, uint32_t out) {
    size_t from = vector->raw_column, in = vector->dim;
    if (hidden > 0) {
        ct_adapter_spec *first = &tower->adapters[tower->adapter_count++];
        *first = (ct_adapter_spec){.raw_column = from, .in = in, .column = from + in, .out = hidden, .hidden = true};
        const int length = snprintf(first->name, sizeof first->name, "vector.%s.hidden", field);
        if (length >= (int)sizeof first->name) snprintf(first->name, sizeof first->name, "vector.%zu.hidden", vector->field);
        from += in;
        in = hidden;
    }
    ct_adapter_spec *last = &tower->adapters[tower->adapter_count++];
    *last = (ct_adapter_spec){.raw_column = from, .in = in, .column = vector->column, .out = out};
    const int length = snprintf(last->name, sizeof last->name, "vector.%s", field);
    if (length >= (int)sizeof last->name) snprintf(last->name, sizeof last->name, "vector.%zu", vector->field);
}

ct_code model_layout_init(model_layout *layout, const ct_schema *schema, const ct_model_spec *spec, const uint32_t *vector_dims,
                          const char (*vector_tables)[CT_TABLE_NAME_BYTES], ct_status *status) {
    *layout = (model_layout){0};
    const size_t fields = schema->field_count;
    const bool linear = spec->architecture == CT_ARCHITECTURE_LR;
    ct_code code = CT_OK;
    bool *used = calloc(fields + 1, sizeof *used);
    layout->ids = calloc(2 * fields + 1, sizeof *layout->ids);
    layout->numbers = calloc(fields + 1, sizeof *layout->numbers);
    layout->similarities = calloc(fields + 1, sizeof *layout->similarities);
    layout->vectors = calloc(fields + 1, sizeof *layout->vectors);
    layout->tower.layers = calloc(CT_TOWER_MAX_LAYERS, sizeof *layout->tower.layers);
    layout->tower.adapters = calloc(CT_TOWER_MAX_ADAPTERS, sizeof *layout->tower.adapters);
    layout->tower.unit_ranges = calloc(3 * fields + 1, sizeof *layout->tower.unit_ranges);
    layout->tower.fields = calloc(3 * fields + 1, sizeof *layout->tower.fields);
    if (used == NULL || layout->ids == NULL || layout->numbers == NULL || layout->similarities == NULL || layout->vectors == NULL ||
        layout->tower.layers == NULL || layout->tower.adapters == NULL || layout->tower.unit_ranges == NULL ||
        layout->tower.fields == NULL) {
        code = ct_fail_memory(status, fields * sizeof(layout_id), "the model's layout");
        goto done;
    }
    CT_TRY_GOTO(code, model_choose_fields(schema, spec, used, status), done);
    for (size_t f = 0; f < fields; f++) layout->histories = layout->histories || (used[f] && schema->fields[f].derived);
    layout->embedding_dim = linear ? 1 : spec->embedding_dim;
    const uint32_t adapter = linear || has_fields(spec->architecture) ? layout->embedding_dim : spec->vector_adapter;
    place_side(layout, schema, used, CT_SIDE_CONTEXT, spec, adapter, vector_dims, vector_tables);
    layout->context_width = layout->width;
    layout->context_ids = layout->id_count;
    layout->context_numbers = layout->number_count;
    layout->context_vectors = layout->vector_count;
    layout->context_similarities = layout->similarity_count;
    place_side(layout, schema, used, CT_SIDE_CANDIDATE, spec, adapter, vector_dims, vector_tables);
    CT_TRY_GOTO(code, find_queries(layout, schema, spec, status), done);
    const size_t most_vectors = spec->vector_hidden > 0 ? CT_TOWER_MAX_ADAPTERS / 2 : CT_TOWER_MAX_ADAPTERS;
    if (layout->vector_count > most_vectors) {
        code = ct_fail(status, CT_INVALID, "%zu vector features; at most %zu are possible", layout->vector_count, most_vectors);
        goto done;
    }
    ct_tower_spec *tower = &layout->tower;
    tower->context_width = layout->context_width;
    tower->width = layout->width;
    tower->raw_width = layout->raw_width;
    for (size_t i = 0; i < layout->vector_count; i++)
        add_adapter(tower, &layout->vectors[i], schema->fields[layout->vectors[i].field].name, spec->vector_hidden, adapter);
    if (has_fields(spec->architecture)) CT_TRY_GOTO(code, add_fields(layout, spec->architecture, status), done);
    add_layers(layout, spec);
    if (linear) add_unit_ranges(layout);
done:
    free(used);
    if (code != CT_OK) model_layout_deinit(layout);
    return code;
}

void model_layout_deinit(model_layout *layout) {
    free(layout->ids);
    free(layout->numbers);
    free(layout->vectors);
    free(layout->similarities);
    free(layout->tower.layers);
    free(layout->tower.adapters);
    free(layout->tower.unit_ranges);
    free(layout->tower.fields);
    *layout = (model_layout){0};
}
