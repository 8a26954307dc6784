/* A new model that begins where another one ended: rows by key, layers by name, and inside a layer by the names of the features that stand
 * at its inputs, so that a feature more or less costs what it must and no whole layer.
 *
 * Legend. A map says for each column of a slab (tower.h) of the new tower which column of the old tower it is; NONE = a new one. x is
 * mapped by feature; a layer that is taken maps its own output. A layer is taken where the old tower has one of its name and kind, with the
 * same number of outputs, over inputs that are known; the weights of what is new in it are 0, so the new model scores as the old one did
 * until it has learned something. The weights taken are those that the old model scored with: the averaged ones, where it had an average.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/model_internal.h"

#define NONE SIZE_MAX

typedef struct slab_map {
    size_t *columns; /* (width); NULL = nothing of it is known */
    size_t width;
    size_t old_slab;
} slab_map;

typedef struct take_over {
    ct_model *model;
    const ct_model *old;
    slab_map slabs[CT_TOWER_MAX_LAYERS + 1];
    json_t *lines; /* array of texts */
} take_over;

static void say(take_over *take, const char *format, ...) CT_PRINTF(2, 3);
static void say(take_over *take, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_array_append_new(take->lines, json_string(text));
}

/* --- x, by feature --- */

static const char *field_name(const ct_model *model, size_t field) { return model->schema->fields[field].name; }

static void map_range(size_t *columns, uint32_t to, uint32_t from, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) columns[to + i] = from + i;
}

static const layout_id *find_id(const ct_model *old, const char *name, const layout_id *id) {
    for (size_t i = 0; i < old->layout.id_count; i++) {
        const layout_id *other = &old->layout.ids[i];
        if (other->salt == id->salt && (other->bucket == NOT_A_BUCKET) == (id->bucket == NOT_A_BUCKET) &&
            strcmp(field_name(old, other->field), name) == 0)
            return other;
    }
    return NULL;
}

static size_t find_number(const ct_model *old, const char *name) {
    for (size_t i = 0; i < old->layout.number_count; i++)
        if (strcmp(field_name(old, old->layout.numbers[i].field), name) == 0) return i;
    return NONE;
}

static const layout_similarity *find_similarity(const ct_model *old, const char *name) {
    for (size_t i = 0; i < old->layout.similarity_count; i++)
        if (strcmp(field_name(old, old->layout.similarities[i].field), name) == 0) return &old->layout.similarities[i];
    return NULL;
}

static const layout_vector *find_vector(const ct_model *old, const char *name) {
    for (size_t i = 0; i < old->layout.vector_count; i++)
        if (strcmp(field_name(old, old->layout.vectors[i].field), name) == 0) return &old->layout.vectors[i];
    return NULL;
}

static uint32_t adapter_width(const ct_model *model) {
    const ct_tower_spec *tower = &model->layout.tower; /* the last one writes into x */
    return tower->adapter_count > 0 ? (uint32_t)tower->adapters[tower->adapter_count - 1].out : 0;
}

static void map_x(take_over *take) {
    const ct_model *model = take->model, *old = take->old;
    size_t *columns = take->slabs[0].columns;
    const bool stats = model->spec->target_stats && old->spec->target_stats;
    for (size_t i = 0; i < model->layout.id_count; i++) {
        const layout_id *id = &model->layout.ids[i], *other = find_id(old, field_name(model, id->field), id);
        if (other == NULL) continue;
        if (model->layout.embedding_dim == old->layout.embedding_dim)
            map_range(columns, id->column, other->column, old->layout.embedding_dim);
        if (stats) map_range(columns, id->odds_column, other->odds_column, 1);
    }
    for (size_t i = 0; i < model->layout.number_count; i++) {
        const layout_number *number = &model->layout.numbers[i];
        const size_t other = find_number(old, field_name(model, number->field));
        if (other == NONE) continue;
        map_range(columns, number->column, old->layout.numbers[other].column, model->spec->number_flags && old->spec->number_flags ? 2 : 1);
        take->model->moments[i] = old->moments[other];
    }
    for (size_t i = 0; i < model->layout.similarity_count; i++) {
        const layout_similarity *similarity = &model->layout.similarities[i],
                                *other = find_similarity(old, field_name(model, similarity->field));
        if (other != NULL && other->tiers == similarity->tiers && model->spec->number_flags == old->spec->number_flags)
            map_range(columns, similarity->column, other->column, (model->spec->number_flags ? 2 : 1) + similarity->tiers);
    }
    for (size_t i = 0; i < model->layout.vector_count; i++) {
        const layout_vector *vector = &model->layout.vectors[i], *other = find_vector(old, field_name(model, vector->field));
        if (other != NULL && other->dim == vector->dim && adapter_width(model) == adapter_width(old))
            map_range(columns, vector->column, other->column, adapter_width(old));
    }
}

/* Does the model read the field, as the same kind of thing as `like`? */
static bool reads(const ct_model *model, const ct_field *like) {
    const int64_t field = ct_schema_find(model->schema, like->name);
    return field >= 0 && model->schema->fields[field].kind == like->kind && model->schema->fields[field].salt == like->salt &&
           ct_model_uses_field(model, (size_t)field);
}

static void compare_features(take_over *take) {
    size_t kept = 0;
    for (size_t f = 0; f < take->model->schema->field_count; f++) {
        const ct_field *field = &take->model->schema->fields[f];
        if (!ct_model_uses_field(take->model, f)) continue;
        if (reads(take->old, field))
            kept++;
        else
            say(take, "feature %s: new", field->name);
    }
    for (size_t f = 0; f < take->old->schema->field_count; f++) {
        const ct_field *field = &take->old->schema->fields[f];
        if (ct_model_uses_field(take->old, f) && !reads(take->model, field))
            say(take, "feature %s: dropped%s", field->name,
                field->kind == CT_FIELD_ID || field->kind == CT_FIELD_NUMBER ? "; its rows stay in the table, where nothing reads them"
                                                                             : "");
    }
    say(take, "features: %zu as before", kept);
}

/* --- slabs behind x --- */

static size_t slab_width(const ct_tower_spec *tower, size_t slab) { return slab == 0 ? tower->width : tower->layers[slab - 1].out; }

static size_t find_field(const ct_tower_spec *tower, size_t column) {
    for (size_t f = 0; f < tower->field_count; f++)
        if (tower->fields[f] == column) return f;
    return NONE;
}

static bool in_field(const ct_tower_spec *tower, size_t column) {
    for (size_t f = 0; f < tower->field_count; f++)
        if (column >= tower->fields[f] && column < tower->fields[f] + tower->field_dim) return true;
    return false;
}

static void map_rest(take_over *take, const ct_tower_spec *tower, const ct_tower_spec *old, slab_map *map) {
    size_t at = 0;
    for (size_t column = 0; column < tower->width; column++) {
        if (in_field(tower, column)) continue;
        const size_t from = take->slabs[0].columns[column];
        size_t rest = 0;
        for (size_t c = 0; from != NONE && c < from; c++) rest += !in_field(old, c);
        map->columns[at++] = from != NONE && !in_field(old, from) ? rest : NONE;
    }
}

/* Products of vectors i > j; vector 0 is the second input, where there is one. */
static void map_dot(take_over *take, const ct_tower_spec *tower, const ct_tower_spec *old, const ct_layer_spec *layer, slab_map *map) {
    const bool bottom = layer->input_count == 2;
    const size_t vectors = tower->field_count + bottom, begin = bottom ? tower->field_dim : 0;
    for (size_t c = 0; c < begin; c++) map->columns[c] = take->slabs[layer->inputs[1]].columns[c];
    size_t at = begin;
    for (size_t i = 1; i < vectors; i++)
        for (size_t j = 0; j < i; j++, at++) {
            size_t of[2] = {i, j};
            for (size_t k = 0; k < 2; k++) {
                if (bottom && of[k] == 0) continue;
                const size_t column = take->slabs[0].columns[tower->fields[of[k] - bottom]];
                const size_t field = column == NONE ? NONE : find_field(old, column);
                of[k] = field == NONE ? NONE : field + bottom;
            }
            if (of[0] == NONE || of[1] == NONE || of[0] == of[1]) continue;
            const size_t high = of[0] > of[1] ? of[0] : of[1], low = of[0] > of[1] ? of[1] : of[0];
            map->columns[at] = begin + high * (high - 1) / 2 + low;
        }
}

static const ct_layer_spec *find_layer(const ct_tower_spec *tower, const char *name, size_t *out_index) {
    for (size_t i = 0; i < tower->layer_count; i++)
        if (strcmp(tower->layers[i].name, name) == 0) {
            *out_index = i;
            return &tower->layers[i];
        }
    return NULL;
}

/* Does each of the layer's inputs stand for the old layer's? Of a HEAD: does one? */
static bool inputs_known(const take_over *take, const ct_layer_spec *layer, const ct_layer_spec *other) {
    size_t known = 0;
    for (size_t i = 0; i < layer->input_count; i++)
        for (size_t k = 0; k < other->input_count; k++) {
            const slab_map *map = &take->slabs[layer->inputs[i]];
            known += map->columns != NULL && map->old_slab == other->inputs[k] && (layer->kind == CT_LAYER_HEAD || i == k);
        }
    return layer->kind == CT_LAYER_HEAD ? known > 0 : known == layer->input_count && layer->input_count == other->input_count;
}

/* --- weights --- */

static const ct_tensor *find_tensor(const ct_tensor *tensors, size_t count, const char *layer, const char *what) {
    char names[2][CT_LAYER_NAME_BYTES + 32];
    (void)snprintf(names[0], sizeof names[0], "%s.%s", layer, what);
    (void)snprintf(names[1], sizeof names[1], "average.%s.%s", layer, what);
    for (size_t i = 0; i < count; i++)
        if (strcmp(tensors[i].name, names[0]) == 0 || strcmp(tensors[i].name, names[1]) == 0) return &tensors[i];
    return NULL;
}

typedef struct tensor_set {
    ct_tensor *tensors;
    size_t count;
} tensor_set;

static ct_code tensor_set_init(tensor_set *set, ct_tower *tower, ct_status *status) {
    set->count = ct_tower_tensor_count(tower);
    set->tensors = calloc(set->count + 1, sizeof *set->tensors);
    if (set->tensors == NULL) return ct_fail_memory(status, set->count * sizeof *set->tensors, "the list of tensors");
    for (size_t i = 0; i < set->count; i++) set->tensors[i] = ct_tower_tensor(tower, i);
    return CT_OK;
}

/* rows, columns: maps of both sides of the matrix; NULL = the same on both sides. */
static void take_tensor(const tensor_set *to, const tensor_set *from, const char *layer, const char *what, const size_t *rows,
                        const size_t *columns) {
    const ct_tensor *tensor = find_tensor(to->tensors, to->count, layer, what);
    const ct_tensor *other = find_tensor(from->tensors, from->count, layer, what);
    if (tensor == NULL || other == NULL) return;
    for (size_t r = 0; r < tensor->rows; r++)
        for (size_t c = 0; c < tensor->columns; c++) {
            const size_t old_row = rows != NULL ? rows[r] : r, old_column = columns != NULL ? columns[c] : c;
            const bool known = old_row < other->rows && old_column < other->columns;
            tensor->data[r * tensor->columns + c] = known ? other->data[old_row * other->columns + old_column] : 0.0f;
        }
}

/* For each row of the layer's matrix the old matrix's row. */
static ct_code map_inputs(const take_over *take, const ct_layer_spec *layer, const ct_layer_spec *other, size_t **out_rows,
                          size_t *out_count, size_t *out_new, ct_status *status) {
    const ct_tower_spec *tower = &take->model->layout.tower, *old = &take->old->layout.tower;
    const bool matrix_of_first = layer->kind == CT_LAYER_CROSS; /* a second input is added, not multiplied */
    const size_t inputs = matrix_of_first ? 1 : layer->input_count, old_inputs = matrix_of_first ? 1 : other->input_count;
    size_t count = 0, at = 0;
    for (size_t i = 0; i < inputs; i++) count += slab_width(tower, layer->inputs[i]);
    size_t *rows = malloc((count + 1) * sizeof *rows);
    if (rows == NULL) return ct_fail_memory(status, count * sizeof *rows, "a map of columns");
    *out_new = 0;
    for (size_t i = 0; i < inputs; i++) {
        const slab_map *map = &take->slabs[layer->inputs[i]];
        size_t begin = 0, k = 0; /* where the old input stands in the old matrix */
        for (; k < old_inputs && !(map->columns != NULL && map->old_slab == other->inputs[k]); k++)
            begin += slab_width(old, other->inputs[k]);
        for (size_t c = 0; c < slab_width(tower, layer->inputs[i]); c++, at++) {
            rows[at] = k < old_inputs && map->columns[c] != NONE ? begin + map->columns[c] : NONE;
            *out_new += rows[at] == NONE;
        }
    }
    *out_rows = rows;
    *out_count = count;
    return CT_OK;
}

static ct_code take_weights(take_over *take, const ct_layer_spec *layer, const ct_layer_spec *other, const tensor_set *to,
                            const tensor_set *from, ct_status *status) {
    size_t *rows = NULL, count = 0, fresh = 0;
    const size_t *columns = layer->kind == CT_LAYER_CROSS ? take->slabs[0].columns : NULL;
    CT_TRY(map_inputs(take, layer, other, &rows, &count, &fresh, status));
    take_tensor(to, from, layer->name, "weight", rows, columns);
    take_tensor(to, from, layer->name, "bias", NULL, columns);
    take_tensor(to, from, layer->name, "scale", NULL, columns);
    take_tensor(to, from, layer->name, "shift", NULL, columns);
    free(rows);
    if (fresh == 0)
        say(take, "layer %s: taken", layer->name);
    else
        say(take, "layer %s: taken; %zu of its %zu inputs are new and begin at 0", layer->name, fresh, count);
    return CT_OK;
}

static ct_code take_layer(take_over *take, size_t index, const tensor_set *to, const tensor_set *from, ct_status *status) {
    const ct_tower_spec *tower = &take->model->layout.tower, *old = &take->old->layout.tower;
    const ct_layer_spec *layer = &tower->layers[index];
    slab_map *map = &take->slabs[index + 1];
    size_t place = 0;
    const ct_layer_spec *other = find_layer(old, layer->name, &place);
    if (other == NULL || other->kind != layer->kind) {
        say(take, "layer %s: new", layer->name);
        return CT_OK;
    }
    const bool by_feature = layer->kind == CT_LAYER_CROSS || layer->kind == CT_LAYER_DOT || layer->kind == CT_LAYER_REST;
    const bool dims = layer->kind == CT_LAYER_DOT ? tower->field_dim == old->field_dim : by_feature || layer->out == other->out;
    if (!dims) {
        say(take, "layer %s: new, as its shape is another one (%zu outputs, before %zu)", layer->name, layer->out, other->out);
        return CT_OK;
    }
    if (!inputs_known(take, layer, other)) {
        say(take, "layer %s: new, as what it reads is new", layer->name);
        return CT_OK;
    }
    map->width = layer->out;
    map->old_slab = place + 1;
    map->columns = malloc((layer->out + 1) * sizeof *map->columns);
    if (map->columns == NULL) return ct_fail_memory(status, layer->out * sizeof *map->columns, "a map of columns");
    for (size_t c = 0; c < layer->out; c++) map->columns[c] = by_feature ? NONE : c;
    switch (layer->kind) {
        case CT_LAYER_DOT:
            map_dot(take, tower, old, layer, map);
            return CT_OK;
        case CT_LAYER_REST:
            map_rest(take, tower, old, map);
            return CT_OK;
        case CT_LAYER_FM:
            return CT_OK;
        case CT_LAYER_CROSS:
            memcpy(map->columns, take->slabs[0].columns, layer->out * sizeof *map->columns);
            break;
        case CT_LAYER_DENSE:
        case CT_LAYER_HEAD:
            break;
    }
    return take_weights(take, layer, other, to, from, status);
}

static void clear_tensor(const tensor_set *to, const char *owner, const char *what) {
    const ct_tensor *tensor = find_tensor(to->tensors, to->count, owner, what);
    if (tensor != NULL) memset(tensor->data, 0, tensor->rows * tensor->columns * sizeof(float));
}

static void take_adapter(take_over *take, const ct_adapter_spec *adapter, const tensor_set *to, const tensor_set *from) {
    const ct_tower_spec *old = &take->old->layout.tower;
    for (size_t i = 0; i < old->adapter_count; i++) {
        if (strcmp(old->adapters[i].name, adapter->name) != 0 || old->adapters[i].in != adapter->in || old->adapters[i].out != adapter->out)
            continue;
        take_tensor(to, from, adapter->name, "weight", NULL, NULL);
        take_tensor(to, from, adapter->name, "bias", NULL, NULL);
        say(take, "adapter %s: taken", adapter->name);
        return;
    }
    const ct_architecture architecture = take->model->spec->architecture;
    /* Here its output enters a sum as it is, so 0 stands in it; elsewhere the weights over it do. */
    if (!adapter->hidden &&
        (architecture == CT_ARCHITECTURE_LR || architecture == CT_ARCHITECTURE_FM || architecture == CT_ARCHITECTURE_DEEPFM))
        clear_tensor(to, adapter->name, "weight");
    say(take, "adapter %s: new", adapter->name);
}

/* The averaged weights begin as the weights do. */
static void begin_average(const tensor_set *to) {
    static const char prefix[] = "average.";
    for (size_t i = 0; i < to->count; i++) {
        const ct_tensor *average = &to->tensors[i];
        if (strncmp(average->name, prefix, sizeof prefix - 1) != 0) continue;
        for (size_t k = 0; k < to->count; k++)
            if (strcmp(to->tensors[k].name, average->name + sizeof prefix - 1) == 0)
                memcpy(average->data, to->tensors[k].data, average->rows * average->columns * sizeof(float));
    }
}

static ct_code take_tower(take_over *take, ct_status *status) {
    const ct_tower_spec *tower = &take->model->layout.tower, *old = &take->old->layout.tower;
    tensor_set to = {0}, from = {0};
    ct_code code = CT_OK;
    CT_TRY_GOTO(code, tensor_set_init(&to, take->model->tower, status), done);
    CT_TRY_GOTO(code, tensor_set_init(&from, take->old->tower, status), done);
    for (size_t i = 0; i < tower->adapter_count; i++) take_adapter(take, &tower->adapters[i], &to, &from);
    for (size_t i = 0; i < tower->layer_count; i++) CT_TRY_GOTO(code, take_layer(take, i, &to, &from, status), done);
    for (size_t i = 0; i < old->layer_count; i++) {
        size_t place = 0;
        const ct_layer_spec *layer = find_layer(tower, old->layers[i].name, &place);
        if (layer == NULL || layer->kind != old->layers[i].kind) say(take, "layer %s: dropped", old->layers[i].name);
    }
    begin_average(&to);
    ct_tower_weights_changed(take->model->tower);
done:
    free(to.tensors);
    free(from.tensors);
    return code;
}

/* --- rows --- */

static ct_code take_rows(take_over *take, const char *folder, ct_status *status) {
    const ct_table_spec *table = ct_store_table(take->model->store, ID_TABLE);
    ct_store_taken taken;
    char *tables = ct_path_join(folder, "tables");
    if (tables == NULL) return ct_fail_memory(status, strlen(folder), "a path");
    const ct_code code = ct_store_take(take->model->store, ID_TABLE, tables, &taken, status);
    free(tables);
    if (code != CT_OK) return code;
    if (!taken.rows_taken)
        say(take, "table %s: new, as its rows are %u floats wide, before %u", table->name, table->dim, taken.dim);
    else if (taken.state_taken)
        say(take, "table %s: %lld rows taken, %lld keys still counted; with the state of %s", table->name, (long long)taken.rows,
            (long long)taken.stubs, ct_row_optimiser_name(table->optimiser));
    else
        say(take, "table %s: %lld rows taken, %lld keys still counted; the state of %s is new, as they were trained with %s", table->name,
            (long long)taken.rows, (long long)taken.stubs, ct_row_optimiser_name(table->optimiser), ct_row_optimiser_name(taken.optimiser));
    if (taken.counts_taken) say(take, "table %s: target statistics go on from those of the last pass", table->name);
    return CT_OK;
}

static ct_code take_all(take_over *take, const char *folder, ct_model **inout_old, ct_status *status) {
    ct_model *model = take->model;
    const ct_model *old = take->old;
    slab_map *x = &take->slabs[0];
    x->width = model->layout.width;
    x->columns = malloc((x->width + 1) * sizeof *x->columns);
    if (x->columns == NULL) return ct_fail_memory(status, x->width * sizeof *x->columns, "a map of columns");
    for (size_t c = 0; c < x->width; c++) x->columns[c] = NONE;
    say(take, "from %s: %s, %lld rows, schema %s", folder, ct_architecture_name(old->spec->architecture), (long long)old->rows,
        old->schema->name);
    compare_features(take);
    map_x(take);
    memcpy(model->prior, old->prior, sizeof model->prior);
    CT_TRY(take_tower(take, status));
    model_refresh_scales(model);
    /* Its rows are not held twice. */
    ct_model_destroy(*inout_old);
    *inout_old = NULL;
    take->old = NULL;
    CT_TRY(take_rows(take, folder, status));
    say(take, "new in any case: learning rates and their schedule, the tower's Adam and its average, the counts of rows, steps and passes");
    return CT_OK;
}

ct_code ct_model_init_from(ct_model *model, const char *folder, json_t **out_lines, ct_status *status) {
    if (model->mode != CT_MODEL_TRAIN || model->step > 0)
        return ct_fail(status, CT_INVALID, "only a model that has learned nothing can begin with another one's weights");
    ct_model *old = NULL;
    take_over take = {.model = model, .lines = json_array()};
    if (take.lines == NULL) return ct_fail_memory(status, 64, "a list of texts");
    ct_code code = ct_model_open(folder, CT_MODEL_READ, model->device, model->pool, &old, status);
    if (code == CT_OK) {
        take.old = old;
        code = take_all(&take, folder, &old, status);
    }
    ct_model_destroy(old);
    for (size_t i = 0; i <= CT_TOWER_MAX_LAYERS; i++) free(take.slabs[i].columns);
    if (code == CT_OK)
        *out_lines = take.lines;
    else
        json_decref(take.lines);
    return code;
}
