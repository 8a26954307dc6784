/* The CPU filling of a tower: plan, memory and the parts that forward.c, backward.c and update.c share.
 *
 * Precision. T is the type of products' operands: float, or bf16 (round to nearest even) with fp32 sums. In bf16 mode x and every CROSS
 * output are kept in fp32 for what is elementwise (x * (in W + b) + in, the HEAD) and rounded to bf16 for products only; a DENSE output is
 * rounded once and every reader sees the rounded value; weights are rounded from their fp32 masters; gradients with respect to a product
 * are rounded to bf16, bias gradients are sums of what was not rounded. HEAD, adapters, FM and DOT are fp32 loops in either mode; what DOT
 * and REST write is rounded as a DENSE output is, what FM writes is kept in fp32.
 *
 * Weights. Training reads the weights, inference the average where there is one. Each set has its own packed copies; those of the average
 * are made when a forward pass first needs them after an update.
 *
 * Layout. A slab's rows are `padded` columns wide (a multiple of 16, or of 32 where bf16 goes through AMX), padding columns are zero:
 * weights' padding is, so they stay so. Layers that read x have one product for the context's columns and one for the candidates'.
 * Work goes in parts of rows (part_rows) through all layers: sums stay in the cache between a product and the loop behind it, and what a
 * layer leaves until the next one reads it.
 *
 * Our own products (`own`: bf16 where tiles.h can and no AMX is) do not return sums: finish.c takes a tile of eight rows while it is in the
 * first cache. Forward it makes a layer's output of them. Backward it makes the dz of the layer below, where that layer's output has no
 * reader of lower number (is_early), so its gradient never stands in memory.
 *
 * Training keeps for each block, beside the slabs that backward reads: each product input transposed (columns, block rows), each layer's dz
 * in panels; both feed the weight gradient, panel of 64 output columns (the last one: of what is left) by panel, product of a block added
 * after product of a block. Our own products: both turned as in tiles.h, and not panels but some rows of a weight at a time, whose step
 * follows at once (update.c). Rows behind the last one of a batch are zero in both. Small gradients (biases, HEAD, adapters) are `partial`
 * sums of a block. */
#ifndef TOWER_CPU_CPU_H
#define TOWER_CPU_CPU_H

#include <pthread.h>
#include <stdatomic.h>

#include "tower/cpu/loops.h"
#include "tower/cpu/products.h"
#include "tower/cpu/tiles.h"
#include "tower/tower_internal.h"

enum { CT_CHUNK_ROWS = 128, CT_OWN_PART_ROWS = 64, CT_PANEL_COLUMNS = 64, CT_STEP_ROWS = 32, CT_CPU_MAX_SLABS = CT_TOWER_MAX_LAYERS };

/* Columns of x that one product reads. */
typedef struct ct_cpu_x_part {
    size_t column, width, padded;
    bool context;
} ct_cpu_x_part;

typedef struct ct_cpu_part {
    size_t row, k, padded; /* rows of W */
    const ct_product *product;
    bool context;
} ct_cpu_part;

typedef struct ct_cpu_layer {
    ct_layer_kind kind; /* no HEAD */
    bool cross, relu, normalise;
    float dropout;
    size_t input, carry; /* slabs: of the product, or the second one of a DOT; CROSS: of what is added */
    bool second;         /* DOT: there is one */
    size_t in, in_padded, out, out_padded;
    size_t part_count; /* 1, or 2 where x is read and has both sides: context, candidates */
    ct_cpu_part parts[2];
    size_t weight, bias, scale, shift; /* offsets */
    /* training */
    const ct_product *back; /* d in = dz W' */
    void *packed_back;
    bool back_adds;                  /* to what another reader of the input has written */
    bool dx_first;                   /* CROSS, FM, DOT, REST: the first to write d x */
    bool din_in_place;               /* CROSS: d carry continues in d out's memory */
    size_t panel_count, full_panels; /* of 64 columns; the last one may be narrower; not of our own products */
    struct {
        const ct_product *gradient; /* (in_padded, columns) = in' dz */
        ct_panels dz;               /* of a block */
        size_t columns;
    } panels[2];                                                        /* the full ones, the narrow one */
    size_t gradient_offset, partial_bias, partial_scale, partial_shift; /* floats */
} ct_cpu_layer;

typedef struct ct_cpu_slab_plan {
    size_t width, padded;
    bool f32, product; /* kept as floats; as T for a product */
    bool passing;      /* an output that backward does not read here: in training it lives in the thread's memory */
    size_t gradient;   /* index of the memory of its gradient */
} ct_cpu_slab_plan;

typedef struct ct_cpu_head {
    size_t outputs, input_count;
    size_t inputs[CT_LAYER_MAX_INPUTS], at[CT_LAYER_MAX_INPUTS]; /* slab; first column in `packed` */
    bool first[CT_LAYER_MAX_INPUTS];                             /* the first to write that slab's gradient */
    size_t columns;                                              /* of a packed row */
    size_t weight, bias;                                         /* offsets */
    size_t partial, partial_bias;
} ct_cpu_head;

typedef struct ct_cpu_adapter {
    const ct_adapter_spec *spec;
    size_t padded;
    size_t weight, bias; /* offsets */
    bool context;
    size_t partial, partial_bias;
} ct_cpu_adapter;

/* A set of weights, as the passes read it. */
typedef struct ct_cpu_weights {
    const float *masters;                   /* (floats) */
    void *parts[CT_TOWER_MAX_LAYERS][2];    /* T, panels */
    float *head;                            /* (outputs, columns) */
    float *adapters[CT_TOWER_MAX_ADAPTERS]; /* (in, padded) */
} ct_cpu_weights;

/* What is kept for rows of a block or of a workspace. */
typedef struct ct_cpu_slab {
    float *f32;       /* (rows, padded) or NULL */
    void *in;         /* T (rows, padded) or NULL; may be f32 */
    void *transposed; /* T (padded, block rows); training, inputs of products */
} ct_cpu_slab;

typedef struct ct_cpu_rows {
    float *raw;
    void *x_in[2];                       /* T, for each part of x */
    ct_cpu_slab slabs[CT_CPU_MAX_SLABS]; /* [0].f32 is x */
    float *sum[CT_TOWER_MAX_LAYERS];     /* training: (rows, padded); CROSS: product before the bias; normalised: (z - mean) / deviation */
    float *inverse[CT_TOWER_MAX_LAYERS]; /* training, normalised: (rows) 1 / deviation */
    float *kept[CT_TOWER_MAX_LAYERS];    /* training, dropout: (rows, padded) 0, or 1 / (1 - dropout) */
    void *dz[CT_TOWER_MAX_LAYERS];       /* training: T, panels */
    float *partial;                      /* training: sums of this block */
} ct_cpu_rows;

/* One thread's own. */
typedef struct ct_cpu_scratch {
    struct ct_cpu_scratch *next; /* in the list of free ones */
    ct_executor *executor;
    ct_cpu_rows rows;                  /* training: the passing slabs and x_in of the block at work */
    float *sums[3];                    /* (chunk, widest) */
    float *fields;                     /* of a row: DOT's vectors and their products */
    void *dz[2];                       /* T (CT_CHUNK_ROWS, widest); our own products: of even layers, of odd ones */
    float *gradient[CT_CPU_MAX_SLABS]; /* (part_rows, padded) */
    void *memory;
} ct_cpu_scratch;

typedef struct ct_cpu {
    bool bf16, own;   /* own: products are ours (tiles.h) */
    size_t part_rows; /* of a block, that go through all layers together */
    size_t padding, widest, raw_stride;
    size_t x_part_count;
    ct_cpu_x_part x_parts[2];
    size_t slab_count; /* x and the outputs of all layers but the HEAD */
    ct_cpu_slab_plan slabs[CT_CPU_MAX_SLABS];
    size_t layer_count; /* without the HEAD */
    ct_cpu_layer layers[CT_TOWER_MAX_LAYERS];
    ct_cpu_head head;
    ct_cpu_adapter adapters[CT_TOWER_MAX_ADAPTERS];
    const size_t *fields;                        /* first columns in x */
    size_t field_count, field_dim, field_floats; /* field_floats: of a row's scratch memory */
    ct_products *products;
    void *packed_memory;
    ct_cpu_weights weights, average; /* without an average, or without training, both are the same */
    bool two_sets;
    pthread_mutex_t pack_lock;
    bool pack_lock_made;
    atomic_bool stale; /* the packed average */
    /* training */
    size_t block_rows, block_count, partial_floats;
    size_t panel_count, piece_count; /* of all layers: panels of gradients; pieces of CT_STEP_ROWS rows of weights */
    ct_cpu_rows *blocks;
    void *block_memory;       /* of all blocks */
    float *x_memory;          /* (block_count, block_rows, padded): x of all blocks */
    ct_cpu_scratch **scratch; /* one for each thread of the pool */
    size_t scratch_count;
    pthread_mutex_t lock; /* of `free` */
    pthread_cond_t returned;
    bool lock_made;
    ct_cpu_scratch *free; /* last in, first out: memory that is still in the cache */
    float *gradients;     /* of layers: panels of (in_padded, columns), each with room for 64; not of our own products */
    float *small;         /* of everything else: (tower->floats), where the parameters are */
    float *partial;       /* sum of the blocks' (partial_floats) */
    bool *sound; /* (block_count): the block's gradients, and sums of such, are finite for sure: nothing they are made of reaches 2^50 */
    atomic_bool *done;             /* (block_count): backward has passed the block, and said whether it is sound */
    size_t begun_rows;             /* of the batch whose gradients are made by tasks of the caller's run; 0 = none */
    ct_step_rule rule, small_rule; /* of the step; small_rule: without l2, which only some of the small parameters get */
} ct_cpu;

typedef struct ct_cpu_workspace {
    ct_workspace base;
    const ct_cpu *cpu;
    ct_cpu_rows rows;
    ct_cpu_scratch *scratch;
    float *context_x;                        /* (context_width) */
    float *context_sum[CT_TOWER_MAX_LAYERS]; /* (padded) or NULL */
    void *memory;
} ct_cpu_workspace;

static inline ct_cpu *ct_cpu_of(const ct_tower *tower) { return tower->backend; }
static inline size_t ct_cpu_item(const ct_cpu *cpu) { return cpu->bf16 ? sizeof(uint16_t) : sizeof(float); }
static inline size_t ct_round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

static inline size_t ct_cpu_block_count(const ct_cpu *cpu, size_t rows) { return (rows + cpu->block_rows - 1) / cpu->block_rows; }
/* Elements of a layer's dz of a block. */
static inline size_t ct_cpu_dz_size(const ct_cpu *cpu, const ct_cpu_layer *layer) {
    return cpu->block_rows * (cpu->own ? layer->out_padded : layer->panel_count * CT_PANEL_COLUMNS);
}

/* Which of a layer's panels[] a panel is. */
static inline size_t ct_cpu_panel_kind(const ct_cpu_layer *layer, size_t panel) { return panel < layer->full_panels ? 0 : 1; }
static inline size_t ct_cpu_step_pieces(const ct_cpu_part *part) { return (part->k + CT_STEP_ROWS - 1) / CT_STEP_ROWS; }
/* Where a panel of a block's dz begins, in elements. */
static inline size_t ct_cpu_panel_at(const ct_cpu *cpu, size_t panel) { return panel * cpu->block_rows * CT_PANEL_COLUMNS; }

/* A DENSE layer with nothing between the product and the activation, nor behind it. */
static inline bool ct_cpu_plain_dense(const ct_cpu_layer *layer) {
    return layer->kind == CT_LAYER_DENSE && !layer->normalise && layer->dropout == 0;
}

/* Gives out pieces of one allocation; without `base` it only counts. */
typedef struct ct_cpu_pieces {
    char *base;
    size_t used;
} ct_cpu_pieces;
static inline void *ct_cpu_take(ct_cpu_pieces *from, size_t bytes) {
    const size_t at = from->used;
    from->used += ct_round_up(bytes, 64);
    return from->base == NULL ? NULL : from->base + at;
}

/* Are values of a product's operands below 2^50? */
static inline bool ct_cpu_moderate(const ct_cpu *cpu, const void *values, size_t count) {
    return cpu->bf16 ? ct_loop_moderate_bf16(values, count) : ct_loop_moderate_f32(values, count);
}

/* plan.c */
CT_MUST_CHECK ct_code ct_cpu_plan(const ct_tower *tower, ct_cpu *cpu, ct_status *status);
/* Rows [row, end) of a part's W; see ct_loop_pack_bf16. */
void ct_cpu_pack_part(const ct_cpu *cpu, const ct_cpu_weights *weights, size_t l, size_t part, size_t row, size_t end);
void ct_cpu_pack_back(const ct_cpu *cpu, size_t l, size_t row, size_t end);   /* rows of W */
void ct_cpu_pack_small(const ct_tower *tower, const ct_cpu_weights *weights); /* HEAD and adapters */
/* The set that inference reads, packed. Thread-safe. */
const ct_cpu_weights *ct_cpu_for_inference(const ct_tower *tower);

/* memory.c */
CT_MUST_CHECK ct_code ct_cpu_scratch_create(const ct_cpu *cpu, bool training, ct_cpu_scratch **out_scratch, ct_status *status);
void ct_cpu_scratch_destroy(ct_cpu_scratch *scratch); /* NULL is fine */
CT_MUST_CHECK ct_code ct_cpu_training_create(const ct_tower *tower, ct_cpu *cpu, ct_status *status);
void ct_cpu_training_destroy(ct_cpu *cpu);
CT_MUST_CHECK ct_code ct_cpu_workspace_create(const ct_tower *tower, ct_workspace **out_workspace, ct_status *status);
void ct_cpu_workspace_destroy(ct_workspace *workspace);
/* The second input of a DOT from `row` on; none where it has none. */
ct_vectors_in ct_cpu_second(const ct_cpu *cpu, const ct_cpu_rows *rows, const ct_cpu_layer *layer, size_t row);
/* A block's memory from row `first` on, with what passes through the thread's. */
ct_cpu_rows ct_cpu_rows_at_work(const ct_cpu *cpu, size_t block, size_t first, const ct_cpu_scratch *scratch);
ct_cpu_scratch *ct_cpu_scratch_take(ct_cpu *cpu); /* waits until one is free */
void ct_cpu_scratch_give(ct_cpu *cpu, ct_cpu_scratch *scratch);

/* forward.c */
void ct_cpu_context(const ct_tower *tower, ct_workspace *workspace);
void ct_cpu_forward(const ct_tower *tower, ct_workspace *workspace, size_t rows, bool shared_context, float *out_logits);
void ct_cpu_block_forward(ct_tower *tower, size_t block, size_t rows, float *out_logits);

/* backward.c */
void ct_cpu_block_backward(ct_tower *tower, size_t block, size_t rows, const float *logit_gradients);

/* update.c */
void ct_cpu_gradients_begin(ct_tower *tower, size_t rows);
void ct_cpu_block_done(ct_tower *tower, size_t block);
size_t ct_cpu_gradient_tasks(const ct_tower *tower);
void ct_cpu_gradient_task(ct_tower *tower, size_t task);
ct_code ct_cpu_update(ct_tower *tower, size_t rows, ct_status *status);
/* Rows of a weight that are stepped together. */
typedef struct ct_cpu_piece {
    size_t l, part;
    size_t row, end; /* of the part */
} ct_cpu_piece;
ct_cpu_piece ct_cpu_find_piece(const ct_cpu *cpu, size_t index);
/* A piece's, or a panel's, weight gradient: of a block, added to those of the blocks before, or the first one. Of a piece, which is for our
 * own products, it stands in the scratch memory: (rows, out_padded), from the returned place on. */
const float *ct_cpu_piece_product(const ct_cpu *cpu, ct_cpu_scratch *scratch, const ct_cpu_piece *piece, const ct_cpu_rows *kept, bool add);
void ct_cpu_panel_product(const ct_cpu *cpu, ct_cpu_scratch *scratch, size_t l, size_t panel, const ct_cpu_rows *kept, bool add);
void ct_cpu_weight_gradient(ct_tower *tower, size_t rows, size_t parameter, float *out_gradient);

#endif
