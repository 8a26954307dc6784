/* Model file (YAML): which network, of which sizes, over which features. Every value has a default; `lr`, `fm`, `dnn`, `deepfm`, `dcn-v2`
 * and `dlrm` are built in.
 *
 *     model: dcn-v2                 # lr, fm, dnn, deepfm, dcn-v2, dlrm
 *     features: [C1, C2, I1]        # default: every id, number and vector of the schema
 *     exclude: [item_vector]        # taken out of them
 *     embedding: {dim: 16, optimizer: adagrad_rowwise, learning_rate: 0.05, initial_accumulator: 1e-8, beta1: 0.9, beta2: 0.999,
 *                 epsilon: 1e-8, l2: 0, first_value_scale: 0.01, min_count: 2, id_drop: 0.003, target_stats: false, target_smoothing: 10,
 *                 expire_days: 0, precision: fp32, admission: exact, filter_mib: 64}
 *                                   # dim: lr has 1; fm and deepfm: the last one is the first-order weight
 *                                   # optimizer: of rows: adagrad_rowwise, adagrad, adam, sgd (embedding_store/store.h)
 *     cross: {layers: 3, rank: 0}   # dcn-v2; rank: of its matrices; 0 = full
 *     bottom: [512, 256]            # dlrm: layers over the numbers, before one of embedding.dim
 *     deep: [400, 400, 400]         # dlrm: [512, 256], over the products
 *     layer_norm: false             # each layer of bottom and deep is normalised before its ReLU
 *     dropout: 0                    # share of their outputs that training drops
 *     numbers: {buckets: true, missing_flag: true}  # buckets: each number also as an id, floor(log(v)^2) (see model.h)
 *     vector: {adapter: 16}         # width of a vector's trained linear adapter; of lr 1, of fm, deepfm and dlrm embedding.dim.
 *                                   # [64, 16]: two layers, the first with a ReLU
 *     optimizer: {learning_rate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, l2: 0}
 *     average: {power: 8}           # evaluation and serving use averaged weights of the tower (see tower.h); 0 = the last ones
 *     schedule: {rows: 0}           # learning rates fall linearly to 0 over so many rows; 0 = they stay
 *     precision: auto               # auto, fp32, bf16
 *
 * These are the defaults of dcn-v2; docs/file-formats.md has those of each model.
 * --set PATH=VALUE writes one value, as cross.layers=3 or deep=[500,500,500]. */
#ifndef MODEL_SPEC_H
#define MODEL_SPEC_H

#include "base/status.h"
#include "data/schema.h"
#include "embedding_store/store.h"
#include "tower/tower.h"

typedef enum ct_architecture {
    CT_ARCHITECTURE_LR,
    CT_ARCHITECTURE_DNN,
    CT_ARCHITECTURE_DCN_V2,
    CT_ARCHITECTURE_FM,
    CT_ARCHITECTURE_DEEPFM,
    CT_ARCHITECTURE_DLRM
} ct_architecture;
enum { CT_SPEC_MAX_DEEP = 16, CT_SPEC_FILTER_MIB = 64 /* default */ };

typedef struct ct_model_spec {
    ct_architecture architecture;
    char **features; /* names; NULL = all of the schema's */
    size_t feature_count;
    char **exclude;
    size_t exclude_count;
    uint32_t embedding_dim; /* LR has 1 whatever stands here */
    ct_row_optimiser row_optimiser;
    ct_row_precision row_precision;
    float embedding_learning_rate, initial_accumulator, first_value_scale;
    float row_beta1, row_beta2, row_epsilon, row_l2;
    uint32_t min_count;
    uint32_t expire_days;  /* of the log's time; 0 = rows do not expire */
    bool admission_filter; /* a filter of filter_mib counts the keys that have no row yet; else each is counted exactly */
    uint32_t filter_mib;
    double id_drop;
    bool target_stats;                 /* each id also gives its click rate and its count in earlier batches */
    float target_smoothing;            /* impressions that the prior counts for */
    uint32_t cross_layers, cross_rank; /* rank 0 = full */
    uint32_t bottom[CT_SPEC_MAX_DEEP];
    size_t bottom_count;
    uint32_t deep[CT_SPEC_MAX_DEEP];
    size_t deep_count;
    bool layer_norm;
    float dropout;
    bool number_buckets, number_flags;
    uint32_t vector_adapter, vector_hidden; /* hidden: width of a first layer; 0 = none */
    float learning_rate, beta1, beta2, epsilon, l2;
    float average_power;
    double schedule_rows;
    ct_precision precision;
} ct_model_spec;

bool ct_model_is_built_in(const char *name);
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
