/* Inside of a tower: what the public functions keep, and the table of functions that a backend (cpu, later cuda) fills.
 *
 * The tower owns the parameters as plain row-major fp32 host memory, one slab each for weights, Adam's two moments and the average; a
 * parameter has the same offset in all of them. Each owner (adapter, layer) has four parameters; those that it lacks have no elements, but
 * a bias that is lacking has a place, of zeros. Each starts at a multiple of CT_TOWER_ALIGN floats and the gap behind it is zero, so a bias
 * may be read up to its padded width. Backends keep copies in their own layouts and refresh them in weights_changed. */
#ifndef TOWER_TOWER_INTERNAL_H
#define TOWER_TOWER_INTERNAL_H

#include "tower/tower.h"

enum { CT_TOWER_ALIGN = 32, CT_TENSOR_NAME_BYTES = CT_LAYER_NAME_BYTES + 32 };

typedef enum ct_parameter_kind { CT_WEIGHT, CT_BIAS, CT_SCALE, CT_SHIFT, CT_PARAMETER_KINDS } ct_parameter_kind;
/* Copies of the parameters, in the order of the tensors. */
typedef enum ct_copy_kind { CT_COPY_WEIGHTS, CT_COPY_M, CT_COPY_V, CT_COPY_AVERAGE, CT_COPY_KINDS } ct_copy_kind;

typedef struct ct_parameter {
    char names[CT_COPY_KINDS][CT_TENSOR_NAME_BYTES];
    size_t rows, columns;
    size_t offset; /* floats */
} ct_parameter;

typedef struct ct_tower_ops {
    const char *kind;
    /* Builds tower->backend; tower->precision becomes FP32 or BF16. */
    ct_code (*create)(ct_tower *tower, ct_status *status);
    void (*destroy)(ct_tower *tower); /* backend may be NULL or half built */
    void (*weights_changed)(ct_tower *tower);

    ct_code (*workspace_create)(const ct_tower *tower, ct_workspace **out_workspace, ct_status *status);
    void (*workspace_destroy)(ct_workspace *workspace);
    float *(*workspace_x)(ct_workspace *workspace, size_t *out_stride);
    float *(*workspace_raw)(ct_workspace *workspace, size_t *out_stride);
    void (*context)(const ct_tower *tower, ct_workspace *workspace);
    void (*forward)(const ct_tower *tower, ct_workspace *workspace, size_t rows, bool shared_context, float *out_logits);

    float *(*block_x)(ct_tower *tower, size_t block, size_t *out_stride);
    float *(*block_raw)(ct_tower *tower, size_t block, size_t *out_stride);
    void (*block_forward)(ct_tower *tower, size_t block, size_t rows, float *out_logits);
    void (*block_backward)(ct_tower *tower, size_t block, size_t rows, const float *logit_gradients);
    void (*gradients_begin)(ct_tower *tower, size_t rows);
    void (*block_done)(ct_tower *tower, size_t block);
    size_t (*gradient_tasks)(const ct_tower *tower);
    void (*gradient_task)(ct_tower *tower, size_t task);
    ct_code (*update)(ct_tower *tower, size_t rows, ct_status *status); /* the step is counted by the caller */
    void (*weight_gradient)(ct_tower *tower, size_t rows, size_t parameter, float *out_gradient);
} ct_tower_ops;

/* A backend's workspace begins with this. */
struct ct_workspace {
    const ct_tower_ops *ops;
};

struct ct_tower {
    const ct_tower_ops *ops;
    void *backend;
    ct_tower_spec spec; /* a copy of its own */
    ct_tower_options options;
    ct_precision precision; /* FP32 or BF16 */
    ct_pool *pool;
    ct_parameter *parameters; /* the adapters', then the layers' */
    size_t parameter_count;
    size_t *tensors; /* (tensor_count): the parameters that have elements */
    size_t tensor_count;
    float *weights, *m, *v, *average; /* (floats); m, v without Adam or training, average without one or training: NULL */
    size_t floats;
    int64_t step;
    uint32_t epoch; /* of the batch that comes */
    int64_t first_row;
};

/* Columns of all inputs of a layer. */
size_t ct_tower_slab_width(const ct_tower_spec *spec, size_t slab);
size_t ct_tower_layer_in(const ct_tower_spec *spec, size_t layer);
size_t ct_tower_outputs(const ct_tower_spec *spec);
size_t ct_tower_rest_width(const ct_tower_spec *spec); /* columns of x that are in no field */
/* Index of a parameter. */
static inline size_t ct_tower_adapter_parameter(size_t adapter, ct_parameter_kind kind) { return CT_PARAMETER_KINDS * adapter + kind; }
static inline size_t ct_tower_layer_parameter(const ct_tower_spec *spec, size_t layer, ct_parameter_kind kind) {
    return CT_PARAMETER_KINDS * (spec->adapter_count + layer) + kind;
}
/* Does a layer have a matrix? */
static inline bool ct_tower_has_weight(ct_layer_kind kind) {
    return kind == CT_LAYER_DENSE || kind == CT_LAYER_CROSS || kind == CT_LAYER_HEAD;
}
/* Is this column one whose weight in the HEAD is fixed at 1? */
bool ct_tower_is_unit(const ct_tower_spec *spec, size_t slab, size_t column);

/* 64-byte aligned zeroed memory, on huge pages where it is large; NULL when out of memory. Freed by ct_tower_memory_free. */
void *ct_tower_memory(size_t bytes);
void ct_tower_memory_free(void *memory);

/* spec.c: CT_INVALID names the layer, adapter or range at fault. */
CT_MUST_CHECK ct_code ct_tower_spec_check(const ct_tower_spec *spec, const ct_tower_options *options, ct_status *status);
CT_MUST_CHECK ct_code ct_tower_spec_copy(const ct_tower_spec *spec, ct_tower_spec *out_copy, ct_status *status);
void ct_tower_spec_free(ct_tower_spec *copy);

const ct_tower_ops *ct_tower_cpu_ops(void);
const char *ct_cpu_instruction_set(void);

#endif
