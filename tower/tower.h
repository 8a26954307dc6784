/* The tower: the dense network from a first input x to logits, for training and for inference, on blocks of rows.
 *
 * Legend. B = rows of a block (256, or 128 where the batch is at most 512); x (rows, width) = the first input, its columns ordered context
 * first: [0, context_width) is the same for all candidates of a request, the rest is each candidate's own. Every layer that reads x adds
 * the candidates' product to the context's product (two products, never one over all columns), so the context's can be computed once for a
 * request with the same bits. All sums over rows (weight gradients) are taken inside a block, then over blocks in order. Padding rows are
 * zero. Results do not depend on the number of threads, nor, for one row's logits, on the other rows of its block or on the row count
 * that a product is padded to (checked at creation: counts that disagree on this CPU are not used).
 *
 * A tower is a list of layers over slabs. Slab 0 is x, slab i + 1 the output of layer i. Backends fill the table below; `cpu` uses
 * oneDNN's matmul and hand-written loops. The maths of each kind:
 *     DENSE   y = act(in W + b)                                    in (rows, in), W (in, out)
 *     CROSS   y = x * (in W + b) + in, elementwise (DCN-v2, Wang et al. 2021, arXiv 2008.13535, eq. 1); out = width; in: slab 0 or a CROSS
 *             out columns may be normalised before act: (z - mean) / sqrt(variance + 1e-5) * scale + shift, over the row's columns (Ba,
 *             Kiros, Hinton 2016, arXiv 1607.06450); in training a share of y may be dropped, the rest scaled up (Srivastava et al. 2014)
 *     CROSS2  CROSS with a second input: y = x * (in W + b) + carry. With in = carry V, a DENSE without bias and activation, it is the
 *             low-rank cross layer (the same paper, eq. 2): y = x * (U (V' x_l) + b) + x_l
 *     FM      y_d = ((sum_f v_fd)^2 - sum_f v_fd^2) / 2             all pairs of fields (Rendle 2010, eq. 5); out = field_dim; in: slab 0.
 *             The HEAD sums the columns (unit range), and the column of x behind each field, which is an id's first-order weight (unit
 * range too). Its own weights of x are one for each column of an embedding and field (FiLV of Pan et al. 2018, arXiv 1806.03514) DOT     y
 * = [b, <v_i, v_j> for j < i, v_0 = b]                (DLRM, Naumov et al. 2019, arXiv 1906.00091); in: slab 0, then b, a slab of field_dim
 * columns, or slab 0 alone: then y has only the fields' products, i = 1 first REST    y = the columns of x that are in no field, in order
 * in: slab 0 HEAD    logit = <concat(inputs), w> + b, one for each output   the last layer; several outputs are several columns Fields are
 * field_dim columns of x each: the embeddings. DeepFM (Guo et al. 2017, arXiv 1703.04247) is FM beside DENSE layers over x. Loss: mean over
 * the batch's rows of softplus(z) - y z. The caller gives d loss / d logit. */
#ifndef TOWER_TOWER_H
#define TOWER_TOWER_H

#include "base/pool.h"
#include "base/status.h"

enum { CT_LAYER_NAME_BYTES = 64, CT_LAYER_MAX_INPUTS = 4, CT_TOWER_MAX_LAYERS = 64, CT_TOWER_MAX_ADAPTERS = 64 };

typedef enum ct_layer_kind {
    CT_LAYER_DENSE,
    CT_LAYER_CROSS, /* with one input or two */
    CT_LAYER_HEAD,
    CT_LAYER_FM,
    CT_LAYER_DOT,
    CT_LAYER_REST
} ct_layer_kind;
typedef enum ct_activation { CT_ACTIVATION_NONE, CT_ACTIVATION_RELU } ct_activation;
typedef enum ct_precision { CT_PRECISION_AUTO, CT_PRECISION_FP32, CT_PRECISION_BF16 } ct_precision;

typedef struct ct_layer_spec {
    ct_layer_kind kind;
    char name[CT_LAYER_NAME_BYTES];     /* of its tensors: NAME.weight, .bias, .scale, .shift; unique */
    size_t inputs[CT_LAYER_MAX_INPUTS]; /* slabs */
    size_t input_count;                 /* 1; CROSS and DOT: 1 or 2; HEAD: 1 or more */
    size_t out;                         /* columns of the output */
    /* DENSE only */
    ct_activation activation;
    bool no_bias, normalise;
    float dropout; /* share of outputs, [0, 1) */
} ct_layer_spec;

/* A frozen vector's way into x: x[column .. column + out) = raw[raw_column .. raw_column + in) A + a. Trained; lies wholly in one side.
 * One of two layers is two adapters, one behind the other: what the first, `hidden`, writes, max(0, .), stands in the raw input too, in
 * columns that nobody else writes, and is what the second reads. */
typedef struct ct_adapter_spec {
    char name[CT_LAYER_NAME_BYTES];
    size_t raw_column, in; /* in the raw input */
    size_t column, out;    /* in x; hidden: in the raw input */
    bool hidden;
} ct_adapter_spec;

/* Columns whose weight in the HEAD is 1 and is not trained: sums of one-wide embeddings (LR's ids), an FM's output. */
typedef struct ct_unit_range {
    size_t column, count;
    size_t slab; /* that the HEAD reads */
} ct_unit_range;

typedef struct ct_tower_spec {
    size_t context_width, width; /* columns of x on the context side, and in all; 0 <= context_width <= width */
    size_t raw_width;            /* columns of the raw input; 0 = none */
    ct_adapter_spec *adapters;
    size_t adapter_count;
    ct_layer_spec *layers; /* the last one is the HEAD */
    size_t layer_count;
    ct_unit_range *unit_ranges;
    size_t unit_range_count;
    size_t *fields; /* first columns in x, rising; each lies in one side, and no two meet; may be none where no FM, DOT or REST is */
    size_t field_count, field_dim;
} ct_tower_spec;

typedef enum ct_dense_optimiser { CT_DENSE_SGD, CT_DENSE_ADAM } ct_dense_optimiser;

typedef struct ct_tower_options {
    ct_precision precision; /* AUTO: bf16 where the hardware multiplies bf16, else fp32 */
    uint64_t seed; /* of first weights: ct_random(seed, CT_PLACE_TOWER, 0, hash64(tensor name), element / 4); DENSE with RELU and hidden
                      adapters He-uniform, else Glorot-uniform; biases 0; HEAD Glorot */
    ct_dense_optimiser optimiser;
    float learning_rate; /* Adam: Kingma and Ba, arXiv 1412.6980, algorithm 1, with beta1, beta2, epsilon */
    float beta1, beta2, epsilon;
    float l2;            /* added to the gradient of a weight w (not of biases, scales and shifts): l2 w */
    float average_power; /* 0 = no average; p > 0: inference uses an average of the weights after each update, in which update t has a
                            weight in proportion to about t^p: of the last 1/(p+1) of training, whatever its length (polynomial-decay
                            averaging, Shamir and Zhang 2013, arXiv 1212.1824): a += (1 + p) / (t + p) (w - a) */
    size_t batch_rows;   /* largest training batch; 0 = inference only */
    /* 0 = first weights are made. Else the caller has at most so many floats to write into the tensors (all of them, and then
     * ct_tower_weights_changed, before anything is computed): a tower with more weights is refused before it takes memory. */
    size_t elsewhere_floats;
} ct_tower_options;

typedef struct ct_tower ct_tower;
/* `pool` must outlive the tower. CT_INVALID names the layer at fault. */
CT_MUST_CHECK ct_code ct_tower_create(const ct_tower_spec *spec, const ct_tower_options *options, ct_pool *pool, ct_tower **out_tower,
                                      ct_status *status);
void ct_tower_destroy(ct_tower *tower); /* NULL is fine */

ct_precision ct_tower_precision(const ct_tower *tower); /* what AUTO became */
const char *ct_tower_instruction_set(
    void); /* what oneDNN uses here, DNNL_MAX_CPU_ISA respected: "avx2", "avx512_core", "avx512_core_bf16", "avx512_core_amx", ... */
size_t ct_tower_block_rows(size_t batch_rows);        /* 256, or 128 where batch_rows <= 512 */
size_t ct_tower_parameters(const ct_tower *tower);    /* trained floats */
double ct_tower_flops_per_row(const ct_tower *tower); /* of the products of one forward pass */

/* Every float that a checkpoint keeps, in a fixed order: weights, then optimiser state (names "optimizer.m.NAME", "optimizer.v.NAME"), then
 * the averaged weights ("average.NAME"); counters are the caller's. A tower for inference alone has one set of weights; with average_power
 * their names are "average.NAME". data is the tower's own memory: read it, or write it and call ct_tower_weights_changed. */
typedef struct ct_tensor {
    const char *name;
    size_t rows, columns; /* a bias is (1, columns) */
    float *data;
} ct_tensor;
size_t ct_tower_tensor_count(const ct_tower *tower);
ct_tensor ct_tower_tensor(ct_tower *tower, size_t index);
int64_t ct_tower_step(const ct_tower *tower); /* updates so far: Adam's t */
void ct_tower_set_step(ct_tower *tower, int64_t step);
void ct_tower_weights_changed(ct_tower *tower);
/* For the updates from now on: finite, not negative. */
void ct_tower_set_learning_rate(ct_tower *tower, float learning_rate);
/* Of the batch that comes: its pass over the log and its first row in it. What is dropped is a pure function of them: CT_PLACE_DROPOUT,
 * number = global row, index = layer * 2^16 + column / 8, half word column % 8. */
void ct_tower_set_position(ct_tower *tower, uint32_t epoch, int64_t first_row);

/* --- inference: one block of up to CT_TOWER_MAX_ROWS rows, each thread with a workspace of its own; with the averaged weights, if there
 * are any. Not while the tower is updated --- */

enum { CT_TOWER_MAX_ROWS = 256 };

typedef struct ct_workspace ct_workspace;
CT_MUST_CHECK ct_code ct_workspace_create(const ct_tower *tower, ct_workspace **out_workspace, ct_status *status);
void ct_workspace_destroy(ct_workspace *workspace); /* NULL is fine */
float *ct_workspace_x(ct_workspace *workspace,
                      size_t *out_stride); /* (256, stride >= width): the caller writes all columns but the adapters' */
float *ct_workspace_raw(ct_workspace *workspace, size_t *out_stride); /* (256, stride >= raw_width) */
/* Computes what belongs to the context from row 0's context columns of x and raw; later forwards with shared_context use it. */
void ct_tower_context(const ct_tower *tower, ct_workspace *workspace);
/* logits: (rows, outputs). shared_context: the context columns of x are those of the last ct_tower_context (rows' own are not read). */
void ct_tower_forward(const ct_tower *tower, ct_workspace *workspace, size_t rows, bool shared_context, float *out_logits);

/* --- training: a batch is blocks of ct_tower_block_rows(batch_rows) rows; forward and backward of different blocks may run in parallel ---
 */

/* The tower's own, for the caller to write: a block's rows, (block rows, stride >= width), all columns but the adapters', and its raw
 * input, (block rows, stride >= raw_width). The blocks of x follow each other: row r of the batch stands at block 0's + r * stride. */
float *ct_tower_block_x(ct_tower *tower, size_t block, size_t *out_stride);
float *ct_tower_block_raw(ct_tower *tower, size_t block, size_t *out_stride);
/* rows: 1 .. block rows; out_logits: (rows, outputs). With the weights themselves, never the average; else the same bits as inference, but
 * for dropout. Keeps what backward needs. */
void ct_tower_block_forward(ct_tower *tower, size_t block, size_t rows, float *out_logits);
/* logit_gradients: (rows, outputs) = d loss / d logit. d loss / d x overwrites the block's x (adapters' columns hold their own gradient).
 */
void ct_tower_block_backward(ct_tower *tower, size_t block, size_t rows, const float *logit_gradients);
/* Weight gradients of all blocks of a batch of `rows` rows, then one optimiser step; runs on the pool. CT_INVALID "diverged" where an
 * output of a layer or a gradient is not finite or reaches 2^50, before anything is changed. */
CT_MUST_CHECK ct_code ct_tower_update(ct_tower *tower, size_t rows, ct_status *status);
/* The same with the gradients in the run of the pool that makes the blocks' passes, so that no thread waits for the last block:
 * begin before that run; in it tasks of the blocks, each of which ends with block_done (a failure of the caller's, too), and behind them
 * ct_tower_gradient_tasks tasks, which wait for the blocks in order, and may make the step of what they have the gradients of; then update,
 * which finds that done. Where a block was not passed back, nothing is stepped, and update says "diverged". A run hands its tasks
 * out in order, so whoever waits waits for a thread that works. */
void ct_tower_gradients_begin(ct_tower *tower, size_t rows /* of the batch: 1 .. batch_rows */);
void ct_tower_block_done(ct_tower *tower, size_t block);
size_t ct_tower_gradient_tasks(const ct_tower *tower);
void ct_tower_gradient_task(ct_tower *tower, size_t task);
/* For tests: the gradient of a weight tensor (index as in ct_tower_tensor) of the last backward, without an optimiser step; (rows,
 * columns). */
void ct_tower_weight_gradient(ct_tower *tower, size_t rows, size_t tensor, float *out_gradient);

#endif
