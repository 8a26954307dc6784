/* Model file (YAML): which network, of which sizes, over which features. Every value has a default; `lr`, `dnn` and `dcn-v2` are built in.
 *
 *     model: dcn-v2                 # lr, dnn, dcn-v2
 *     features: [C1, C2, I1]        # default: every id, number and vector of the schema
 *     exclude: [item_vector]        # taken out of them
 *     embedding: {dim: 16, learning_rate: 0.05, initial_accumulator: 1e-8, first_value_scale: 0.01, min_count: 2, id_drop: 0.01,
 * target_stats: false, target_smoothing: 20} cross: {layers: 3} deep: [400, 400, 400] numbers: {buckets: false, missing_flag: true}  #
 * buckets: each number also as an id, floor(log(v)^2) (see model.h) vector: {adapter: 16}         # width of a vector's trained linear
 * adapter optimizer: {learning_rate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: 1e-8} precision: auto               # auto, fp32, bf16
 *
 * --set PATH=VALUE writes one value, as cross.layers=3 or deep=[500,500,500]. */
#ifndef MODEL_SPEC_H
#define MODEL_SPEC_H

#include "base/status.h"
#include "data/schema.h"
#include "tower/tower.h"

typedef enum ct_architecture { CT_ARCHITECTURE_LR, CT_ARCHITECTURE_DNN, CT_ARCHITECTURE_DCN_V2 } ct_architecture;
enum { CT_SPEC_MAX_DEEP = 16 };

typedef struct ct_model_spec {
    ct_architecture architecture;
    char **features; /* names; NULL = all of the schema's */
    size_t feature_count;
    char **exclude;
    size_t exclude_count;
    uint32_t embedding_dim; /* LR has 1 whatever stands here */
    float embedding_learning_rate, initial_accumulator, first_value_scale;
    uint32_t min_count;
    double id_drop;
    bool target_stats;      /* each id also gives its click rate and its count in earlier batches */
    float target_smoothing; /* impressions that the prior counts for */
    uint32_t cross_layers;
    uint32_t deep[CT_SPEC_MAX_DEEP];
    size_t deep_count;
    bool number_buckets, number_flags;
    uint32_t vector_adapter;
    float learning_rate, beta1, beta2, epsilon;
    ct_precision precision;
} ct_model_spec;

/* `name_or_path`: a built-in name or a YAML file; `sets` are applied in order. Errors name the file or the --set, the line, the field, the
 * value and the range. */
CT_MUST_CHECK ct_code ct_model_spec_load(const char *name_or_path, const char *const *sets, size_t set_count, ct_model_spec **out_spec,
                                         ct_status *status);
CT_MUST_CHECK ct_code ct_model_spec_parse(const char *text, size_t bytes, const char *path, ct_model_spec **out_spec, ct_status *status);
CT_MUST_CHECK ct_code ct_model_spec_set(ct_model_spec *spec, const char *assignment, ct_status *status);
CT_MUST_CHECK ct_code ct_model_spec_copy(const ct_model_spec *spec, ct_model_spec **out_spec, ct_status *status);
/* Replaces the lists of names; NULL leaves a list as it is. */
CT_MUST_CHECK ct_code ct_model_spec_choose(ct_model_spec *spec, const char *const *features, size_t feature_count,
                                           const char *const *exclude, size_t exclude_count, ct_status *status);
void ct_model_spec_destroy(ct_model_spec *spec); /* NULL is fine */
/* Every value, as YAML that parses to the same spec; malloc'd; NULL when out of memory. */
char *ct_model_spec_text(const ct_model_spec *spec);
const char *ct_architecture_name(ct_architecture architecture); /* "dcn-v2" */

#endif
