/* What the files of model/ share. Nobody else includes it. */
#ifndef MODEL_MODEL_INTERNAL_H
#define MODEL_MODEL_INTERNAL_H

#include <stdatomic.h>

#include "embedding_store/store.h"
#include "model/model.h"
#include "model/prints.h"
#include "model/scorer_stats.h"

/* --- layout: where each feature's columns stand in x, and the tower that follows (layout.c) ---
 * Features are ordered context first, then candidate, each in the schema's order. */

typedef struct layout_id {
    size_t field;         /* an id, or a number whose bucket is the id */
    uint32_t column;      /* in x; embedding_dim columns */
    uint64_t salt;        /* of its keys */
    size_t bucket;        /* which of the buckets it is; NOT_A_BUCKET for an id */
    size_t query;         /* a history that is pooled by attention: which of the ids it compares with; else NO_QUERY */
    uint32_t odds_column; /* in x, of its smoothed log odds, where the spec asks for target statistics */
} layout_id;

typedef struct layout_number {
    size_t field;
    uint32_t column; /* in x; the value, then the missing flag where the spec asks for it */
} layout_number;

typedef struct layout_similarity {
    size_t field, vector_field;
    uint32_t dim, tiers;
    uint32_t column; /* in x: the cosine, the missing flag where the spec asks for it, then the tiers */
    char table_name[CT_TABLE_NAME_BYTES];
    size_t table;
} layout_similarity;

typedef struct layout_vector {
    size_t field;
    uint32_t raw_column, dim; /* in the raw input */
    uint32_t column;          /* of the adapter's output in x */
    char table_name[CT_TABLE_NAME_BYTES];
    size_t table; /* in the store; the id table is 0 */
} layout_vector;

typedef struct model_layout {
    layout_id *ids;
    size_t id_count, context_ids; /* the first context_ids are the context's */
    size_t bucket_count;          /* of the ids */
    layout_number *numbers;
    size_t number_count, context_numbers;
    layout_vector *vectors;
    size_t vector_count, context_vectors;
    layout_similarity *similarities;
    size_t similarity_count, context_similarities;
    bool histories; /* does any feature follow from one? */
    bool attention; /* is any history pooled by it? */
    uint32_t embedding_dim;
    uint32_t compared; /* by attention: the floats of an id's row, without a first-order weight */
    size_t context_width, width, raw_width;
    ct_tower_spec tower;
} model_layout;

/* The vectors' dims and tables must be known: vector_dims, vector_tables by schema field (0 and "" for others). */
ct_code model_layout_init(model_layout *layout, const ct_schema *schema, const ct_model_spec *spec, const uint32_t *vector_dims,
                          const char (*vector_tables)[CT_TABLE_NAME_BYTES], ct_status *status);
void model_layout_deinit(model_layout *layout);
/* Fields that the spec chooses: out_used (field_count). */
ct_code model_choose_fields(const ct_schema *schema, const ct_model_spec *spec, bool *out_used, ct_status *status);

/* --- transforms: running mean and deviation of signed log1p of each number (transform.c) --- */

typedef struct number_moments {
    double count, mean, m2;
} number_moments;

typedef struct number_scale {
    float mean, inverse_deviation;
} number_scale;

void moments_merge(number_moments *into, const number_moments *from);
number_scale moments_scale(const number_moments *moments);
/* Moments of `n` raw values; scratch: (n). Missing values are left out. */
number_moments moments_of(const float *raw, float *scratch, size_t n);
/* Writes the value and, if `flag`, the missing flag of n rows to out[r * stride]; step: 1, or 0 where one raw value holds for all rows. */
void number_write(const float *raw, size_t step, const number_scale *scale, bool flag, float *scratch, float *out, size_t stride, size_t n);
/* Smoothed log odds of n values: see model.h. impressions, clicks: (n); positive, negative: scratch (n); to out[r * stride]. */
void click_odds_write(const uint32_t *impressions, const uint32_t *clicks, double prior, float smoothing, float *positive, float *negative,
                      float *out, size_t stride, size_t n);
/* Keys of the buckets of n raw values. */
void bucket_keys_of(const float *raw, uint64_t salt, uint64_t *out_keys, size_t n);

/* --- the model --- */

enum { ID_TABLE = 0 };
#define NOT_A_BUCKET SIZE_MAX
#define NO_QUERY     SIZE_MAX

typedef struct similarity_scratch similarity_scratch;

typedef struct read_scratch {    /* of one thread */
    ct_ticket **vector_tickets;  /* (vector_count) */
    similarity_scratch *similar; /* NULL where there is no similarity */
    float numbers[CT_TOWER_MAX_ROWS];
    uint32_t impressions[CT_TOWER_MAX_ROWS], clicks[CT_TOWER_MAX_ROWS];
    float odds[2][CT_TOWER_MAX_ROWS];
    ct_status status; /* first failure in a parallel part */
    int64_t gather_ns, forward_ns, backward_ns, gradient_ns, sort_ns;
} read_scratch;

/* What the store is asked for a training batch. */
typedef struct batch_keys {
    ct_ticket *ticket;
    ct_key_column *columns; /* (id_count) */
    uint64_t *buckets;      /* (bucket_count, batch_rows) */
    int64_t *times;         /* (batch_rows), where rows expire: scratch */
} batch_keys;

/* Whose keys are sorted ahead; batch NULL = nobody's. */
typedef struct sorted_batch {
    const ct_batch *batch;
    int64_t first_row;
    size_t rows;
    uint32_t epoch;
} sorted_batch;

struct ct_model {
    ct_schema *schema;
    ct_model_spec *spec;
    model_layout layout;
    ct_store *store;
    ct_tower *tower;
    ct_device *device;
    ct_pool *pool;
    ct_model_mode mode;
    bool early;              /* opened by ct_model_open_early */
    number_moments *moments; /* (number_count) */
    number_scale *scales;    /* (number_count), of moments */
    double prior[2];         /* rows, and clicks, trained on: the prior of target statistics */
    float **centres;         /* (similarity_count): (dim), the mean of its vector file */
    ct_histories *histories; /* of the rows trained on in this epoch; NULL = none are kept */
    uint64_t seed;
    size_t batch_rows;
    int64_t rows, step, created_ms;
    uint32_t epoch;         /* of the batch trained last */
    int64_t epoch_rows;     /* of that epoch, trained on */
    ct_precision precision; /* asked of the tower: the spec's, or the folder's */
    char instruction_set[32];
    char digest[CT_DIGEST_HEX_BYTES]; /* of the folder it was read from; "" = none */

    file_prints prints; /* of the folder that was written last; the saving's at work (save.c) */

    /* training only (train.c) */
    size_t block_rows;
    uint64_t memory_bytes; /* of the ids' rows; 0 = no limit */
    bool vectors_known;    /* its vectors are those of the schema's files, shuffled by: */
    uint64_t shuffle_vectors;
    batch_keys keys[2];   /* of the batch at work, and of the one that comes (keys.c) */
    size_t side;          /* of the batch at work */
    const ct_batch *next; /* behind the one of the coming step; NULL = unknown */
    uint32_t next_epoch;
    sorted_batch sorted;           /* the other side's */
    read_scratch *scratch;         /* (threads) */
    number_moments *block_moments; /* (blocks, number_count) */
    number_moments *saved_moments; /* (number_count) */
    ct_model_profile profile;
    bool diverged;          /* the last step did */
    float *logit_gradients; /* (batch_rows) */
};

/* Tower and training scratch; store, spec, schema and layout are set. elsewhere_floats: as in ct_tower_options. */
ct_code model_finish(ct_model *model, size_t elsewhere_floats, ct_status *status);
void model_refresh_scales(ct_model *model);
ct_code training_init(ct_model *model, ct_status *status);
void training_deinit(ct_model *model);

ct_code read_scratch_init(read_scratch *scratch, ct_model *model, ct_status *status);
void read_scratch_deinit(read_scratch *scratch, const ct_model *model);

/* --- the keys of a training batch (keys.c) --- */

ct_code keys_init(ct_model *model, ct_status *status);
void keys_deinit(ct_model *model);
/* Finds or makes the batch's rows: model->keys[model->side].ticket is acquired. */
ct_code keys_look_up(ct_model *model, const ct_batch *batch, uint32_t epoch, ct_status *status);
/* Sorts the keys of the batch that comes (NULL = unknown); runs in a task beside the blocks'. */
void keys_sort_next(ct_model *model, const ct_batch *next, uint32_t epoch);
/* The batch is learned, or was refused. */
void keys_release(ct_model *model);

/* --- from columns to x (forward.c): shared by training and scoring --- */

/* The batch has every column that the model uses, in the types it needs; `training`: nothing shared, and a label. */
ct_code batch_check(const ct_model *model, const ct_batch *batch, bool training, ct_status *status);
/* Keys of the buckets among ids [first, last) for rows [first_row, first_row + rows): bucket b's at out_keys + b * stride + offset. */
void write_bucket_keys(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                       uint64_t *out_keys, size_t stride, size_t offset);
/* Target statistics of ids [first, last), columns 0 .. of the ticket's look-up, of its rows [first_row, first_row + rows) into x. */
void write_target_stats(const ct_model *model, const ct_ticket *ticket, size_t first, size_t last, size_t first_row, size_t rows,
                        read_scratch *scratch, float *x, size_t stride);
/* Key columns of ids [first, last) for rows from first_row on; bucket_keys: those of these rows, bucket b's at bucket_keys + b * stride. */
void id_columns(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, const uint64_t *bucket_keys,
                size_t stride, ct_key_column *out_columns);
/* Numbers [first, last) of rows [first_row, first_row + rows) into x. */
void write_numbers(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                   read_scratch *scratch, float *x, size_t stride);
/* Columns of a READ lookup begin `rows` rows later. */
void skip_rows(ct_key_column *columns, size_t count, size_t rows);
/* Rows of one column of a table to out: (rows, stride), as many at once as a limit on memory allows. */
ct_code read_column(const ct_model *model, ct_ticket *ticket, size_t table, ct_key_column column, size_t rows, float *out, size_t stride,
                    ct_status *status);
/* Raw vectors [first, last) into raw. */
ct_code write_vectors(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                      read_scratch *scratch, float *raw, size_t stride, ct_status *status);

/* --- similarities (similarity.c) --- */

ct_code similarity_scratch_create(ct_model *model, similarity_scratch **out_scratch, ct_status *status);
void similarity_scratch_destroy(similarity_scratch *scratch); /* NULL is fine */
/* Similarities [first, last) of rows [first_row, first_row + rows) into x. */
ct_code write_similarities(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                           read_scratch *scratch, float *x, size_t stride, ct_status *status);
/* The mean of `count` vectors (count, dim). */
void similarity_centre(const float *vectors, size_t count, size_t dim, float *out_centre);

/* --- what a scorer counts (scorer_stats.c); one thread writes --- */

typedef struct scorer_counts {
    _Atomic uint64_t runs, rows, scores[CT_SCORE_BUCKETS];
    _Atomic uint64_t run_times[CT_RUN_STAGES][CT_RUN_TIME_BUCKETS], run_ns[CT_RUN_STAGES];
    _Atomic double score_sum;
    float logit_bounds[CT_SCORE_BUCKETS - 1];
} scorer_counts;
void scorer_counts_init(scorer_counts *counts);                                                     /* from zeroed */
void scorer_counts_scores(scorer_counts *counts, const float *logits, size_t rows, size_t outputs); /* at most CT_TOWER_MAX_ROWS */
void scorer_counts_run(scorer_counts *counts, const int64_t ns[CT_RUN_STAGES]);
void scorer_counts_read(const scorer_counts *counts, ct_scorer_stats *into);

/* --- safetensors (safetensors.c): names, shapes, f32 and f64 tensors; https://github.com/huggingface/safetensors, format --- */

typedef struct named_tensor {
    char name[CT_LAYER_NAME_BYTES + 32];
    bool f64;
    size_t rows, columns;
    void *data;
} named_tensor;
ct_code safetensors_write(const char *path, const named_tensor *tensors, size_t count, ct_status *status);
/* Fills the tensors' data by name; every tensor must be there with its type and shape, and no other unless `others` may. */
ct_code safetensors_read(const char *path, named_tensor *tensors, size_t count, bool others, ct_status *status);

/* --- the folder (folder.c reads it, save.c writes it) --- */

enum { MODEL_FORMAT_VERSION = 1, MODEL_LEAST_READER_VERSION = 1 };
#define MODEL_MANIFEST      "manifest"
#define MODEL_RESUME        "resume"
#define MODEL_HISTORIES     "histories"     /* a folder of files; in folders of earlier programs one file, and a required feature */
#define MODEL_CHAIN         "history_chain" /* a required feature: that folder */
#define MODEL_CHECKSUM_WORD "checksum "

/* Where the training stands: as manifests and deltas say it, each number in its range. */
typedef struct model_position {
    int64_t rows, step, tower_step, epoch_rows, created_ms;
    uint32_t epoch;
} model_position;
ct_code model_position_get(const json_t *json, const char *path, model_position *out, ct_status *status);
void model_position_set(ct_model *model, const model_position *position); /* but for the tower's step */

/* Is a limit (0 = none) enough to read the folder within, where one part of `parts` of it is for something else (0 = none)? Reads nothing
 * but the manifest. CT_INVALID says how much is. */
ct_code model_check_read_limit(const char *folder, uint64_t memory_bytes, unsigned parts, ct_status *status);
/* The histories' part of ct_model_save_beside, which a model within a limit on memory does anyway. */
ct_code model_save_histories_beside(ct_model *model, const char *live_folder, const char *from, ct_status *status);

/* --- all that a model keeps beside its tables, by name (folder.c) --- */

typedef struct tensor_list {
    named_tensor *tensors; /* the tower's and the prior are the model's own memory */
    size_t count;
    double *moments; /* (numbers, 3): count, mean, m2 */
} tensor_list;
ct_code tensor_list_init(tensor_list *list, ct_model *model, ct_status *status);
void tensor_list_deinit(tensor_list *list); /* fine on a zeroed one */
/* CT_INVALID names a tensor that holds a value which is not finite. */
ct_code tensor_list_check_finite(const tensor_list *list, ct_status *status);
/* Other values were written into the list's tensors. */
void tensor_list_filled(const tensor_list *list, ct_model *model, int64_t tower_step);

#endif
