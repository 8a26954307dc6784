/* A spec is built-in defaults with overlays on top: the user's file, then each --set. An overlay is a YAML mapping in which everything is
 * optional; what it names replaces what was there. A --set PATH=VALUE is the overlay "PATH as nested mappings: VALUE". */
#include "model/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/yaml.h"

enum { MAX_DIM = 1024, MAX_WIDTH = 16384, MAX_CROSS = 16, MODEL_FILE_MAX_BYTES = 1 << 20, MAX_NAMES = 4096 };

typedef struct overlay_embedding {
    uint32_t *dim, *min_count, *expire_days, *filter_mib;
    char *optimizer, *precision, *admission;
    double *learning_rate, *initial_accumulator, *beta1, *beta2, *epsilon, *l2, *first_value_scale, *id_drop, *target_smoothing;
    bool *target_stats;
} overlay_embedding;
typedef struct overlay_cross {
    uint32_t *layers, *rank;
} overlay_cross;
typedef struct overlay_numbers {
    bool *buckets, *missing_flag;
} overlay_numbers;
typedef struct overlay_vector {
    uint32_t *adapter;
    uint32_t *widths; /* instead of adapter, where the file has a list */
    uint32_t widths_count;
} overlay_vector;
typedef struct overlay_optimizer {
    double *learning_rate, *beta1, *beta2, *epsilon, *l2;
} overlay_optimizer;
typedef struct overlay_average {
    double *power;
} overlay_average;
typedef struct overlay_schedule {
    double *rows;
} overlay_schedule;
typedef struct overlay {
    char *model, *precision;
    char **features, **exclude;
    uint32_t features_count, exclude_count;
    overlay_embedding *embedding;
    overlay_cross *cross;
    uint32_t *bottom, *deep;
    uint32_t bottom_count, deep_count;
    bool *layer_norm;
    double *dropout;
    overlay_numbers *numbers;
    overlay_vector *vector;
    overlay_optimizer *optimizer;
    overlay_average *average;
    overlay_schedule *schedule;
} overlay;

#define OPTIONAL_POINTER (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)

static const cyaml_schema_value_t name_value = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, 256)};
static const cyaml_schema_value_t width_value = {CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint32_t)};
static const cyaml_schema_field_t embedding_fields[] = {
    CYAML_FIELD_UINT_PTR("dim", OPTIONAL_POINTER, overlay_embedding, dim),
    CYAML_FIELD_UINT_PTR("min_count", OPTIONAL_POINTER, overlay_embedding, min_count),
    CYAML_FIELD_UINT_PTR("expire_days", OPTIONAL_POINTER, overlay_embedding, expire_days),
    CYAML_FIELD_STRING_PTR("optimizer", OPTIONAL_POINTER, overlay_embedding, optimizer, 1, 64),
    CYAML_FIELD_STRING_PTR("precision", OPTIONAL_POINTER, overlay_embedding, precision, 1, 64),
    CYAML_FIELD_STRING_PTR("admission", OPTIONAL_POINTER, overlay_embedding, admission, 1, 64),
    CYAML_FIELD_UINT_PTR("filter_mib", OPTIONAL_POINTER, overlay_embedding, filter_mib),
    CYAML_FIELD_FLOAT_PTR("learning_rate", OPTIONAL_POINTER, overlay_embedding, learning_rate),
    CYAML_FIELD_FLOAT_PTR("beta1", OPTIONAL_POINTER, overlay_embedding, beta1),
    CYAML_FIELD_FLOAT_PTR("beta2", OPTIONAL_POINTER, overlay_embedding, beta2),
    CYAML_FIELD_FLOAT_PTR("epsilon", OPTIONAL_POINTER, overlay_embedding, epsilon),
    CYAML_FIELD_FLOAT_PTR("l2", OPTIONAL_POINTER, overlay_embedding, l2),
    CYAML_FIELD_FLOAT_PTR("initial_accumulator", OPTIONAL_POINTER, overlay_embedding, initial_accumulator),
    CYAML_FIELD_FLOAT_PTR("first_value_scale", OPTIONAL_POINTER, overlay_embedding, first_value_scale),
    CYAML_FIELD_FLOAT_PTR("id_drop", OPTIONAL_POINTER, overlay_embedding, id_drop),
    CYAML_FIELD_BOOL_PTR("target_stats", OPTIONAL_POINTER, overlay_embedding, target_stats),
    CYAML_FIELD_FLOAT_PTR("target_smoothing", OPTIONAL_POINTER, overlay_embedding, target_smoothing),
    CYAML_FIELD_END};
static const cyaml_schema_field_t cross_fields[] = {CYAML_FIELD_UINT_PTR("layers", OPTIONAL_POINTER, overlay_cross, layers),
                                                    CYAML_FIELD_UINT_PTR("rank", OPTIONAL_POINTER, overlay_cross, rank), CYAML_FIELD_END};
static const cyaml_schema_field_t numbers_fields[] = {CYAML_FIELD_BOOL_PTR("buckets", OPTIONAL_POINTER, overlay_numbers, buckets),
                                                      CYAML_FIELD_BOOL_PTR("missing_flag", OPTIONAL_POINTER, overlay_numbers, missing_flag),
                                                      CYAML_FIELD_END};
static const cyaml_schema_field_t vector_fields[] = {CYAML_FIELD_UINT_PTR("adapter", OPTIONAL_POINTER, overlay_vector, adapter),
                                                     CYAML_FIELD_END};
static const cyaml_schema_field_t vector_list_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("adapter", OPTIONAL_POINTER, overlay_vector, widths, widths_count, &width_value, 1, 2), CYAML_FIELD_END};
static const cyaml_schema_field_t optimizer_fields[] = {
    CYAML_FIELD_FLOAT_PTR("learning_rate", OPTIONAL_POINTER, overlay_optimizer, learning_rate),
    CYAML_FIELD_FLOAT_PTR("beta1", OPTIONAL_POINTER, overlay_optimizer, beta1),
    CYAML_FIELD_FLOAT_PTR("beta2", OPTIONAL_POINTER, overlay_optimizer, beta2),
    CYAML_FIELD_FLOAT_PTR("epsilon", OPTIONAL_POINTER, overlay_optimizer, epsilon),
    CYAML_FIELD_FLOAT_PTR("l2", OPTIONAL_POINTER, overlay_optimizer, l2),
    CYAML_FIELD_END};
static const cyaml_schema_field_t average_fields[] = {CYAML_FIELD_FLOAT_PTR("power", OPTIONAL_POINTER, overlay_average, power),
                                                      CYAML_FIELD_END};
static const cyaml_schema_field_t schedule_fields[] = {CYAML_FIELD_FLOAT_PTR("rows", OPTIONAL_POINTER, overlay_schedule, rows),
                                                       CYAML_FIELD_END};
static const cyaml_schema_field_t overlay_fields[] = {
    CYAML_FIELD_STRING_PTR("model", OPTIONAL_POINTER, overlay, model, 1, 64),
    CYAML_FIELD_STRING_PTR("precision", OPTIONAL_POINTER, overlay, precision, 1, 64),
    CYAML_FIELD_SEQUENCE("features", OPTIONAL_POINTER, overlay, features, &name_value, 1, MAX_NAMES),
    CYAML_FIELD_SEQUENCE("exclude", OPTIONAL_POINTER, overlay, exclude, &name_value, 1, MAX_NAMES),
    CYAML_FIELD_MAPPING_PTR("embedding", OPTIONAL_POINTER, overlay, embedding, embedding_fields),
    CYAML_FIELD_MAPPING_PTR("cross", OPTIONAL_POINTER, overlay, cross, cross_fields),
    CYAML_FIELD_SEQUENCE("bottom", OPTIONAL_POINTER, overlay, bottom, &width_value, 1, CT_SPEC_MAX_DEEP),
    CYAML_FIELD_BOOL_PTR("layer_norm", OPTIONAL_POINTER, overlay, layer_norm),
    CYAML_FIELD_FLOAT_PTR("dropout", OPTIONAL_POINTER, overlay, dropout),
    CYAML_FIELD_SEQUENCE("deep", OPTIONAL_POINTER, overlay, deep, &width_value, 1, CT_SPEC_MAX_DEEP),
    CYAML_FIELD_MAPPING_PTR("numbers", OPTIONAL_POINTER, overlay, numbers, numbers_fields),
    CYAML_FIELD_MAPPING_PTR("vector", OPTIONAL_POINTER, overlay, vector, vector_fields),
    CYAML_FIELD_MAPPING_PTR("optimizer", OPTIONAL_POINTER, overlay, optimizer, optimizer_fields),
    CYAML_FIELD_MAPPING_PTR("average", OPTIONAL_POINTER, overlay, average, average_fields),
    CYAML_FIELD_MAPPING_PTR("schedule", OPTIONAL_POINTER, overlay, schedule, schedule_fields),
    CYAML_FIELD_END};
static const cyaml_schema_value_t overlay_schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, overlay, overlay_fields)};

static const char *const architecture_names[] = {"lr", "dnn", "dcn-v2", "fm", "deepfm", "dlrm"}; /* in the order of ct_architecture */
static const char model_names[] = "lr, fm, dnn, deepfm, dcn-v2 or dlrm";
static const char *const row_precision_names[] = {"fp32", "fp16"}; /* in the order of ct_row_precision */
static const char *const admission_names[] = {"exact", "filter"};  /* of false and true */
static const char *const precision_names[] = {"auto", "fp32", "bf16"};

const char *ct_architecture_name(ct_architecture architecture) { return architecture_names[architecture]; }

static bool has_deep(ct_architecture architecture) { return architecture != CT_ARCHITECTURE_LR && architecture != CT_ARCHITECTURE_FM; }

static bool find_name(const char *const *names, size_t count, const char *name, size_t *out_index) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) {
            *out_index = i;
            return true;
        }
    return false;
}

/* Measured on the first rows of Criteo's log (docs/benchmarks.md), and tried on made logs at other lengths and click rates. Where the
 * accumulator begins near 0, a row's first step is as long as the learning rate, whatever its gradient: right below deep layers, too much
 * where one value is the whole of an id (lr) or rows meet in products. There it begins at about one click's squared gradient, as the mean
 * over the row has it: 1 of one float, 0.1 of 16 among which one is the weight. dlrm, with layers behind its products, lies between. */
static void set_row_rate(ct_model_spec *spec) {
    static const struct {
        float learning_rate, initial_accumulator;
    } rates[] = {[CT_ARCHITECTURE_LR] = {0.06f, 1.0f}, [CT_ARCHITECTURE_DNN] = {0.05f, 1e-8f},   [CT_ARCHITECTURE_DCN_V2] = {0.05f, 1e-8f},
                 [CT_ARCHITECTURE_FM] = {0.02f, 0.1f}, [CT_ARCHITECTURE_DEEPFM] = {0.02f, 0.1f}, [CT_ARCHITECTURE_DLRM] = {0.05f, 1e-4f}};
    spec->embedding_learning_rate = rates[spec->architecture].learning_rate;
    spec->initial_accumulator = rates[spec->architecture].initial_accumulator;
}

static void set_defaults(ct_model_spec *spec, ct_architecture architecture) {
    static const uint32_t deep[] = {400, 400, 400}, of_dlrm[] = {512, 256};
    const bool dlrm = architecture == CT_ARCHITECTURE_DLRM;
    spec->architecture = architecture;
    spec->embedding_dim = 16;
    spec->row_optimiser = CT_ROW_ADAGRAD_ROWWISE;
    spec->row_precision = CT_ROW_FP32;
    spec->row_beta1 = 0.9f;
    spec->row_beta2 = 0.999f;
    spec->row_epsilon = 1e-8f;
    spec->row_l2 = 0;
    set_row_rate(spec);
    spec->first_value_scale = architecture == CT_ARCHITECTURE_LR ? 0.0f : 0.01f;
    spec->min_count = 2;
    spec->expire_days = 0;
    spec->admission_filter = false;
    spec->filter_mib = CT_SPEC_FILTER_MIB;
    spec->id_drop = 0.003;
    spec->target_stats = false;
    spec->target_smoothing = 10;
    spec->cross_layers = architecture == CT_ARCHITECTURE_DCN_V2 ? 3 : 0;
    spec->cross_rank = 0;
    spec->bottom_count = dlrm ? sizeof of_dlrm / sizeof *of_dlrm : 0;
    memcpy(spec->bottom, of_dlrm, sizeof of_dlrm);
    spec->deep_count = !has_deep(architecture) ? 0 : dlrm ? sizeof of_dlrm / sizeof *of_dlrm : sizeof deep / sizeof *deep;
    memcpy(spec->deep, dlrm ? of_dlrm : deep, spec->deep_count * sizeof *deep);
    spec->layer_norm = false;
    spec->dropout = 0;
    spec->number_buckets = true;
    spec->number_flags = true;
    spec->vector_adapter = 16;
    spec->vector_hidden = 0;
    spec->learning_rate = architecture == CT_ARCHITECTURE_LR ? 0.01f : architecture == CT_ARCHITECTURE_FM ? 0.003f : 0.001f;
    spec->beta1 = 0.9f;
    spec->beta2 = 0.999f;
    spec->epsilon = 1e-8f;
    spec->l2 = 0;
    spec->average_power = 8;
    spec->schedule_rows = 0;
    spec->precision = CT_PRECISION_AUTO;
}

static void free_names(char **names, size_t count) {
    for (size_t i = 0; i < count; i++) free(names[i]);
    free(names);
}

static ct_code copy_names(const char *const *names, size_t count, char ***inout_names, size_t *inout_count, ct_status *status) {
    char **copy = calloc(count + 1, sizeof *copy);
    if (copy == NULL) return ct_fail_memory(status, count * sizeof *copy, "feature names");
    for (size_t i = 0; i < count; i++) {
        copy[i] = strdup(names[i]);
        if (copy[i] == NULL) {
            free_names(copy, i);
            return ct_fail_memory(status, strlen(names[i]), "a feature name");
        }
    }
    free_names(*inout_names, *inout_count);
    *inout_names = copy;
    *inout_count = count;
    return CT_OK;
}

ct_code ct_model_spec_choose(ct_model_spec *spec, const char *const *features, size_t feature_count, const char *const *exclude,
                             size_t exclude_count, ct_status *status) {
    if (features != NULL) CT_TRY(copy_names(features, feature_count, &spec->features, &spec->feature_count, status));
    if (exclude != NULL) CT_TRY(copy_names(exclude, exclude_count, &spec->exclude, &spec->exclude_count, status));
    return CT_OK;
}

void ct_model_spec_destroy(ct_model_spec *spec) {
    if (spec == NULL) return;
    free_names(spec->features, spec->feature_count);
    free_names(spec->exclude, spec->exclude_count);
    free(spec);
}

ct_code ct_model_spec_copy(const ct_model_spec *spec, ct_model_spec **out_spec, ct_status *status) {
    ct_model_spec *copy = malloc(sizeof *copy);
    if (copy == NULL) return ct_fail_memory(status, sizeof *copy, "a model spec");
    *copy = *spec;
    copy->features = copy->exclude = NULL;
    copy->feature_count = copy->exclude_count = 0;
    const ct_code code = ct_model_spec_choose(copy, (const char *const *)spec->features, spec->feature_count,
                                              (const char *const *)spec->exclude, spec->exclude_count, status);
    if (code != CT_OK) {
        ct_model_spec_destroy(copy);
        return code;
    }
    *out_spec = copy;
    return CT_OK;
}

static ct_code set_count(uint32_t *target, const uint32_t *value, uint32_t low, uint32_t high, const char *field, const char *where,
                         ct_status *status) {
    if (value == NULL) return CT_OK;
    if (*value < low || *value > high)
        return ct_fail(status, CT_INVALID, "%s: %s is %u; it must be between %u and %u", where, field, *value, low, high);
    *target = *value;
    return CT_OK;
}

static bool lies_within(double value, double low, bool closed, double high) {
    return value < high && (closed ? value >= low : value > low);
}

/* low < value < high, or low <= value where `closed`; the same of the float that the value becomes. */
static ct_code set_real(float *target, const double *value, double low, bool closed, double high, const char *field, const char *where,
                        ct_status *status) {
    if (value == NULL) return CT_OK;
    if (!lies_within(*value, low, closed, high) || !lies_within((double)(float)*value, low, closed, high))
        return ct_fail(status, CT_INVALID, "%s: %s is %g; it must be %s %g and less than %g, also as a float", where, field, *value,
                       closed ? "at least" : "above", low, high);
    *target = (float)*value;
    return CT_OK;
}

static ct_code apply_embedding(ct_model_spec *spec, const overlay_embedding *from, const char *where, ct_status *status) {
    if (from->optimizer != NULL && !ct_row_optimiser_find(from->optimizer, &spec->row_optimiser))
        return ct_fail(status, CT_INVALID, "%s: embedding.optimizer is '%s'; it must be adagrad_rowwise, adagrad, adam or sgd", where,
                       from->optimizer);
    if (from->precision != NULL) {
        size_t index = 0;
        if (!find_name(row_precision_names, sizeof row_precision_names / sizeof *row_precision_names, from->precision, &index))
            return ct_fail(status, CT_INVALID, "%s: embedding.precision is '%s'; it must be fp32 or fp16", where, from->precision);
        spec->row_precision = (ct_row_precision)index;
    }
    if (from->admission != NULL) {
        size_t index = 0;
        if (!find_name(admission_names, sizeof admission_names / sizeof *admission_names, from->admission, &index))
            return ct_fail(status, CT_INVALID, "%s: embedding.admission is '%s'; it must be exact or filter", where, from->admission);
        spec->admission_filter = index == 1;
    }
    CT_TRY(set_count(&spec->filter_mib, from->filter_mib, 1, CT_TABLE_MAX_FILTER_MIB, "embedding.filter_mib", where, status));
    CT_TRY(set_real(&spec->row_beta1, from->beta1, 0, true, 1, "embedding.beta1", where, status));
    CT_TRY(set_real(&spec->row_beta2, from->beta2, 0, true, 1, "embedding.beta2", where, status));
    CT_TRY(set_real(&spec->row_epsilon, from->epsilon, 0, false, 1, "embedding.epsilon", where, status));
    CT_TRY(set_real(&spec->row_l2, from->l2, 0, true, 1e3, "embedding.l2", where, status));
    CT_TRY(set_count(&spec->embedding_dim, from->dim, 1, MAX_DIM, "embedding.dim", where, status));
    CT_TRY(set_count(&spec->min_count, from->min_count, 1, 1u << 30, "embedding.min_count", where, status));
    CT_TRY(set_count(&spec->expire_days, from->expire_days, 0, CT_TABLE_MAX_EXPIRE_DAYS, "embedding.expire_days", where, status));
    CT_TRY(set_real(&spec->embedding_learning_rate, from->learning_rate, 0, true, 1e3, "embedding.learning_rate", where, status));
    CT_TRY(set_real(&spec->initial_accumulator, from->initial_accumulator, 0, false, 1e6, "embedding.initial_accumulator", where, status));
    CT_TRY(set_real(&spec->first_value_scale, from->first_value_scale, 0, true, 1e3, "embedding.first_value_scale", where, status));
    float drop = (float)spec->id_drop;
    CT_TRY(set_real(&drop, from->id_drop, 0, true, 1, "embedding.id_drop", where, status));
    if (from->id_drop != NULL) spec->id_drop = *from->id_drop;
    if (from->target_stats != NULL) spec->target_stats = *from->target_stats;
    CT_TRY(set_real(&spec->target_smoothing, from->target_smoothing, 0, false, 1e9, "embedding.target_smoothing", where, status));
    return CT_OK;
}

static ct_code apply_layers(ct_model_spec *spec, const overlay *from, const char *where, ct_status *status) {
    const char *name = ct_architecture_name(spec->architecture);
    if (from->deep != NULL && !has_deep(spec->architecture))
        return ct_fail(status, CT_INVALID, "%s: deep is set, but %s has no deep layers; use dnn, deepfm, dcn-v2 or dlrm", where, name);
    if (from->bottom != NULL && spec->architecture != CT_ARCHITECTURE_DLRM)
        return ct_fail(status, CT_INVALID, "%s: bottom is set, but %s has no layers over the numbers alone; use dlrm", where, name);
    for (uint32_t i = 0; i < from->deep_count; i++)
        CT_TRY(set_count(&spec->deep[i], &from->deep[i], 1, MAX_WIDTH, "a width in deep", where, status));
    if (from->deep != NULL) spec->deep_count = from->deep_count;
    for (uint32_t i = 0; i < from->bottom_count; i++)
        CT_TRY(set_count(&spec->bottom[i], &from->bottom[i], 1, MAX_WIDTH, "a width in bottom", where, status));
    if (from->bottom != NULL) spec->bottom_count = from->bottom_count;
    if (from->layer_norm != NULL) spec->layer_norm = *from->layer_norm;
    return set_real(&spec->dropout, from->dropout, 0, true, 1, "dropout", where, status);
}

/* One number, or a list of one or two. */
static ct_code apply_vector(ct_model_spec *spec, const overlay_vector *from, const char *where, ct_status *status) {
    const uint32_t *last = from->widths_count > 0 ? &from->widths[from->widths_count - 1] : from->adapter;
    if (last == NULL) return CT_OK;
    spec->vector_hidden = 0;
    CT_TRY(set_count(&spec->vector_adapter, last, 1, MAX_DIM, "vector.adapter", where, status));
    if (from->widths_count < 2) return CT_OK;
    return set_count(&spec->vector_hidden, &from->widths[0], 1, MAX_DIM, "the first width of vector.adapter", where, status);
}

static ct_code apply(ct_model_spec *spec, const overlay *from, const char *where, ct_status *status) {
    size_t index = 0;
    if (from->model != NULL) {
        if (!find_name(architecture_names, sizeof architecture_names / sizeof *architecture_names, from->model, &index))
            return ct_fail(status, CT_INVALID, "%s: model is '%s'; it must be %s", where, from->model, model_names);
        set_defaults(spec, (ct_architecture)index);
    }
    if (from->precision != NULL) {
        if (!find_name(precision_names, sizeof precision_names / sizeof *precision_names, from->precision, &index))
            return ct_fail(status, CT_INVALID, "%s: precision is '%s'; it must be auto, fp32 or bf16", where, from->precision);
        spec->precision = (ct_precision)index;
    }
    if (from->embedding != NULL) CT_TRY(apply_embedding(spec, from->embedding, where, status));
    if (from->cross != NULL) {
        if (spec->architecture != CT_ARCHITECTURE_DCN_V2 && from->cross->layers != NULL && *from->cross->layers != 0)
            return ct_fail(status, CT_INVALID, "%s: cross.layers is %u, but %s has no cross layers; use dcn-v2", where,
                           *from->cross->layers, ct_architecture_name(spec->architecture));
        const uint32_t most = spec->architecture == CT_ARCHITECTURE_DCN_V2 ? MAX_CROSS : 0;
        CT_TRY(set_count(&spec->cross_layers, from->cross->layers, 0, most, "cross.layers", where, status));
        CT_TRY(set_count(&spec->cross_rank, from->cross->rank, 0, most > 0 ? MAX_WIDTH : 0, "cross.rank", where, status));
    }
    CT_TRY(apply_layers(spec, from, where, status));
    if (from->numbers != NULL && from->numbers->buckets != NULL) spec->number_buckets = *from->numbers->buckets;
    if (from->numbers != NULL && from->numbers->missing_flag != NULL) spec->number_flags = *from->numbers->missing_flag;
    if (from->vector != NULL) CT_TRY(apply_vector(spec, from->vector, where, status));
    if (from->optimizer != NULL) {
        CT_TRY(set_real(&spec->learning_rate, from->optimizer->learning_rate, 0, true, 1e3, "optimizer.learning_rate", where, status));
        CT_TRY(set_real(&spec->beta1, from->optimizer->beta1, 0, true, 1, "optimizer.beta1", where, status));
        CT_TRY(set_real(&spec->beta2, from->optimizer->beta2, 0, true, 1, "optimizer.beta2", where, status));
        CT_TRY(set_real(&spec->epsilon, from->optimizer->epsilon, 0, false, 1, "optimizer.epsilon", where, status));
        CT_TRY(set_real(&spec->l2, from->optimizer->l2, 0, true, 1e3, "optimizer.l2", where, status));
    }
    if (from->average != NULL) CT_TRY(set_real(&spec->average_power, from->average->power, 0, true, 1e6, "average.power", where, status));
    if (from->schedule != NULL && from->schedule->rows != NULL) {
        float checked = 0;
        CT_TRY(set_real(&checked, from->schedule->rows, 0, true, 1e15, "schedule.rows", where, status));
        spec->schedule_rows = *from->schedule->rows;
    }
    return ct_model_spec_choose(spec, (const char *const *)from->features, from->features_count, (const char *const *)from->exclude,
                                from->exclude_count, status);
}

static ct_code check(const ct_model_spec *spec, const char *where, ct_status *status) {
    if (spec->architecture == CT_ARCHITECTURE_DCN_V2 && spec->cross_layers == 0)
        return ct_fail(status, CT_INVALID, "%s: a dcn-v2 needs cross.layers of 1 or more; use dnn for none", where);
    if ((spec->architecture == CT_ARCHITECTURE_FM || spec->architecture == CT_ARCHITECTURE_DEEPFM) && spec->embedding_dim < 2)
        return ct_fail(status, CT_INVALID, "%s: embedding.dim is %u; %s needs 2 or more: a weight and what makes products", where,
                       spec->embedding_dim, ct_architecture_name(spec->architecture));
    return CT_OK;
}

static ct_code apply_text(ct_model_spec *spec, const char *text, size_t bytes, const char *where, ct_status *status) {
    /* vector.adapter is a number or a list; a field of libcyaml's has one type. */
    cyaml_schema_field_t fields[sizeof overlay_fields / sizeof *overlay_fields];
    cyaml_schema_value_t schema = overlay_schema;
    void *loaded = NULL;
    memcpy(fields, overlay_fields, sizeof fields);
    for (size_t i = 0; fields[i].key != NULL; i++)
        if (strcmp(fields[i].key, "vector") == 0 && ct_yaml_is_list(text, bytes, "vector", "adapter"))
            fields[i].value.mapping.fields = vector_list_fields;
    schema.mapping.fields = fields;
    CT_TRY(ct_yaml_load(text, bytes, where, &schema, &loaded, status));
    const ct_code code = apply(spec, loaded, where, status);
    ct_yaml_free(&schema, loaded);
    return code;
}

/* "--set deep=3:1: why" becomes "--set deep=3: why": the line is that of the text that was made of it. */
static void drop_line(ct_status *status, const char *where) {
    const size_t length = strlen(where);
    if (strncmp(status->message, where, length) != 0 || status->message[length] != ':') return;
    char *line = status->message + length + 1, *end = line + strspn(line, "0123456789");
    if (end > line && *end == ':') memmove(line - 1, end, strlen(end) + 1);
}

ct_code ct_model_spec_set(ct_model_spec *spec, const char *assignment, ct_status *status) {
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || equals == assignment || equals[1] == '\0')
        return ct_fail(status, CT_USAGE, "--set %s: it must be PATH=VALUE, as embedding.dim=16", assignment);
    const size_t length = strlen(assignment);
    /* every dot becomes ":\n" and an indentation of at most its own position */
    const size_t capacity = length * length + length + 64;
    char *text = malloc(capacity);
    char *where = malloc(length + sizeof "--set ");
    if (text == NULL || where == NULL) {
        free(text);
        free(where);
        return ct_fail_memory(status, capacity, "--set");
    }
    sprintf(where, "--set %s", assignment);
    size_t used = 0, depth = 0;
    for (const char *p = assignment; p < equals; p++) {
        if (*p != '.') {
            text[used++] = *p;
            continue;
        }
        text[used++] = ':';
        text[used++] = '\n';
        depth++;
        for (size_t i = 0; i < depth; i++) text[used++] = ' ';
    }
    used += (size_t)sprintf(text + used, ": %s\n", equals + 1);
    ct_code code = apply_text(spec, text, used, where, status);
    if (code != CT_OK) drop_line(status, where);
    if (code == CT_OK) code = check(spec, where, status);
    free(text);
    free(where);
    return code;
}

static ct_code create(ct_model_spec **out_spec, ct_status *status) {
    ct_model_spec *spec = calloc(1, sizeof *spec);
    if (spec == NULL) return ct_fail_memory(status, sizeof *spec, "a model spec");
    set_defaults(spec, CT_ARCHITECTURE_DCN_V2);
    *out_spec = spec;
    return CT_OK;
}

ct_code ct_model_spec_parse(const char *text, size_t bytes, const char *path, ct_model_spec **out_spec, ct_status *status) {
    ct_model_spec *spec = NULL;
    CT_TRY(create(&spec, status));
    ct_code code = apply_text(spec, text, bytes, path, status);
    if (code == CT_OK) code = check(spec, path, status);
    if (code != CT_OK) {
        ct_model_spec_destroy(spec);
        return code;
    }
    *out_spec = spec;
    return CT_OK;
}

bool ct_model_is_built_in(const char *name) {
    size_t index;
    return find_name(architecture_names, sizeof architecture_names / sizeof *architecture_names, name, &index);
}

ct_code ct_model_spec_load(const char *name_or_path, const char *const *sets, size_t set_count, ct_model_spec **out_spec,
                           ct_status *status) {
    ct_model_spec *spec = NULL;
    size_t index = 0;
    ct_code code = CT_OK;
    if (find_name(architecture_names, sizeof architecture_names / sizeof *architecture_names, name_or_path, &index)) {
        CT_TRY(create(&spec, status));
        set_defaults(spec, (ct_architecture)index);
    } else {
        char *text = NULL;
        size_t bytes = 0;
        code = ct_file_read(name_or_path, MODEL_FILE_MAX_BYTES, &text, &bytes, status);
        if (code == CT_NOT_FOUND)
            return ct_fail(status, CT_NOT_FOUND, "model '%s': no such file, and no built-in model of that name (%s)", name_or_path,
                           model_names);
        if (code != CT_OK) return code;
        code = ct_model_spec_parse(text, bytes, name_or_path, &spec, status);
        free(text);
        if (code != CT_OK) return code;
    }
    for (size_t i = 0; i < set_count && code == CT_OK; i++) code = ct_model_spec_set(spec, sets[i], status);
    if (code != CT_OK) {
        ct_model_spec_destroy(spec);
        return code;
    }
    *out_spec = spec;
    return CT_OK;
}

static void print_widths(FILE *to, const char *key, const uint32_t *widths, size_t count) {
    fprintf(to, "%s: [", key);
    for (size_t i = 0; i < count; i++) fprintf(to, "%s%u", i == 0 ? "" : ", ", widths[i]);
    fprintf(to, "]\n");
}

static void print_names(FILE *to, const char *key, char *const *names, size_t count) {
    if (count == 0) return;
    fprintf(to, "%s: [", key);
    for (size_t i = 0; i < count; i++) {
        fprintf(to, "%s", i == 0 ? "" : ", ");
        ct_yaml_put_string(to, names[i], strlen(names[i]));
    }
    fprintf(to, "]\n");
}

char *ct_model_spec_text(const ct_model_spec *spec) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (to == NULL) return NULL;
    fprintf(to, "model: %s\n", ct_architecture_name(spec->architecture));
    print_names(to, "features", spec->features, spec->feature_count);
    print_names(to, "exclude", spec->exclude, spec->exclude_count);
    fprintf(to,
            "embedding: {dim: %u, optimizer: %s, learning_rate: %.9g, initial_accumulator: %.9g, beta1: %.9g, beta2: %.9g, epsilon: %.9g, "
            "l2: %.9g, first_value_scale: %.9g, min_count: %u, id_drop: %.17g, target_stats: %s, target_smoothing: %.9g",
            spec->embedding_dim, ct_row_optimiser_name(spec->row_optimiser), (double)spec->embedding_learning_rate,
            (double)spec->initial_accumulator, (double)spec->row_beta1, (double)spec->row_beta2, (double)spec->row_epsilon,
            (double)spec->row_l2, (double)spec->first_value_scale, spec->min_count, spec->id_drop, spec->target_stats ? "true" : "false",
            (double)spec->target_smoothing);
    /* Younger than the others: only where it is set, so that what older models wrote still says the same. */
    if (spec->expire_days) fprintf(to, ", expire_days: %u", spec->expire_days);
    if (spec->row_precision != CT_ROW_FP32) fprintf(to, ", precision: %s", row_precision_names[spec->row_precision]);
    if (spec->admission_filter) fprintf(to, ", admission: filter, filter_mib: %u", spec->filter_mib);
    fprintf(to, "}\n");
    if (spec->architecture == CT_ARCHITECTURE_DCN_V2) fprintf(to, "cross: {layers: %u, rank: %u}\n", spec->cross_layers, spec->cross_rank);
    if (spec->architecture == CT_ARCHITECTURE_DLRM) print_widths(to, "bottom", spec->bottom, spec->bottom_count);
    if (has_deep(spec->architecture)) print_widths(to, "deep", spec->deep, spec->deep_count);
    fprintf(to, "layer_norm: %s\ndropout: %.9g\n", spec->layer_norm ? "true" : "false", (double)spec->dropout);
    fprintf(to, "numbers: {buckets: %s, missing_flag: %s}\n", spec->number_buckets ? "true" : "false",
            spec->number_flags ? "true" : "false");
    if (spec->vector_hidden > 0)
        fprintf(to, "vector: {adapter: [%u, %u]}\n", spec->vector_hidden, spec->vector_adapter);
    else
        fprintf(to, "vector: {adapter: %u}\n", spec->vector_adapter);
    fprintf(to, "optimizer: {learning_rate: %.9g, beta1: %.9g, beta2: %.9g, epsilon: %.9g, l2: %.9g}\n", (double)spec->learning_rate,
            (double)spec->beta1, (double)spec->beta2, (double)spec->epsilon, (double)spec->l2);
    fprintf(to, "average: {power: %.9g}\nschedule: {rows: %.17g}\n", (double)spec->average_power, spec->schedule_rows);
    fprintf(to, "precision: %s\n", precision_names[spec->precision]);
    const bool failed = ferror(to) != 0;
    if (fclose(to) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
