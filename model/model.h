/* The model: raw fields -> batch -> look-up -> derived features -> logits. The only forward, for training, evaluation, comparison and
 * serving. A model is a schema, a spec, an embedding store, a tower and the state of its transforms.
 *
 * First input x: for each side (context, then candidate) the ids in the schema's order (embedding_dim columns each; several values are
 * averaged), then, where the spec asks for buckets, the numbers as ids, the vectors' adapters, then one or two columns for each number
 * (sign(v) log(1 + |v|) - mean) / deviation, with mean and deviation of all rows trained on so far (this batch's included; a missing value
 * is 0), and 1 where it is missing. The bucket of a number v above 2 is 1000 + floor(log(v)^2), of others floor(v), and missing has its
 * own; its key is XXH3 of the bucket as int32, seeded by the hash of NAME#bucket (the transform of the winners of Criteo's challenge, 3
 * Idiots, 2014). Of fm and deepfm, the last column of each id, bucket and adapter is its first-order weight: it enters the logit as it is
 * and is in no product.
 *
 * Where the spec asks for target statistics, one more column for each id (and bucket): from the impressions n and clicks c of its value in
 * earlier batches of the epoch, with prior p (the click rate of all earlier rows) and smoothing a:
 *     log(1 + c / (a p)) - log(1 + (n - c) / (a (1 - p)))    the smoothed log odds, less the prior's (0 for an unknown value)
 * The count itself is no input: it grows as long as the log does, so a layer that learned from small counts would meet larger ones.
 * In evaluation and serving the counts are those at the end of training. A row never sees its own label: counts and prior change after the
 * whole batch was read.
 *
 * A history is an id with several values, whose rows are averaged (none: zeros); one with pooling: attention weights them by the softmax of
 * <q, k> / sqrt(dim), q the row of the row's own value of the history's id, k theirs, and stands on that id's side (without the last column
 * of fm and deepfm in the product). A number that counts one is a number. A similarity stands behind its side's numbers: with the vectors'
 * mean over their file taken off each, the cosine of the row's vector to the sum of the history's (0 where either has none, and then 1 as
 * the missing flag, as numbers have it), then for each of `tiers` equal steps of [-1, 1] log(1 + n), n = how many of the history's vectors
 * have their cosine to the row's in it. They are not standardised: of a tier that is seldom met that would make a very large number.
 *
 * The model keeps the histories of the rows that it learned in this pass over the log; its folder holds them.
 *
 * Outputs are named; today there is one, "click". A model folder holds
 *     manifest  schema.yaml  model.yaml  tower.safetensors  tables/  metrics.json  [histories/]  [texts: curve.jsonl  train.html]
 * where manifest (JSON, with a line of its own checksum behind it) lists every other file with its size and checksum. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <jansson.h>

#include "base/hash.h"
#include "base/pool.h"
#include "data/batch.h"
#include "data/history.h"
#include "device/device.h"
#include "model/spec.h"

typedef struct ct_model ct_model;

enum { CT_MODEL_MAX_BATCH_ROWS = 1 << 20 };
/* Rows of a training batch where the user asks for no other number. Few, so that a short log makes many steps: docs/file-formats.md. */
enum { CT_MODEL_DEFAULT_BATCH_ROWS = 256 };

typedef struct ct_model_options {
    uint64_t seed;
    size_t batch_rows;        /* of a training batch */
    ct_device *device;        /* NULL = the CPU */
    ct_pool *pool;            /* must outlive the model */
    uint64_t shuffle_vectors; /* not 0: a placebo, whose vectors are dealt anew among their ids by this seed */
    /* Of the rows of ids and all that belongs to them, 0 = no limit: what does not fit is kept in `live_folder`, scratch that is made anew
     * and removed in the end. The result is the same, to the bit. */
    uint64_t memory_bytes;
    const char *live_folder;
    /* Other models, made from this schema and these files as they are now: their vectors are shared where they are the same, neither read
     * nor held again (see ct_model_share_vectors). May be NULL. */
    struct ct_model *const *vectors_of;
    size_t vectors_of_count;
    bool no_histories; /* the caller keeps them, and the model is not saved */
} ct_model_options;

/* Copies what it needs of schema and spec. CT_INVALID names the feature or the setting at fault. Loads the vector files. */
CT_MUST_CHECK ct_code ct_model_create(const ct_schema *schema, const ct_model_spec *spec, const ct_model_options *options,
                                      ct_model **out_model, ct_status *status);

/* Puts what another model's folder holds into a model that has learned nothing yet: rows by key, numbers' moments by feature, layers by
 * name, and inside a layer by the features at its inputs; what is new there begins at 0, so the model scores as the other one does until it
 * has learned something. Schema, kind of model and row optimiser may be others: what does not fit is new. Optimiser states of rows are
 * taken where the optimiser is the same; the tower's are not, nor are counts of rows, steps and passes. out_lines: what was taken, new and
 * dropped, an array of texts; caller owns. After a failure the model is good for nothing but ct_model_destroy. */
CT_MUST_CHECK ct_code ct_model_init_from(ct_model *model, const char *folder, json_t **out_lines, ct_status *status);

/* --- the folder --- */
typedef enum ct_model_mode { CT_MODEL_TRAIN, CT_MODEL_LOOK, CT_MODEL_READ } ct_model_mode;
/* Checks every file against the manifest before it is believed: CT_CORRUPT names the file. CT_UNSUPPORTED names the version or the
 * required feature that this program lacks. READ: only what a forward needs. LOOK: all but the rows of tables, to
 * be described and for a digest, which reads them one by one. */
CT_MUST_CHECK ct_code ct_model_open(const char *folder, ct_model_mode mode, ct_device *device, ct_pool *pool, ct_model **out_model,
                                    ct_status *status);
/* The same within ct_model_options' limit. READ needs no live_folder: rows are read from the folder itself. */
CT_MUST_CHECK ct_code ct_model_open_within(const char *folder, ct_model_mode mode, uint64_t memory_bytes, const char *live_folder,
                                           ct_device *device, ct_pool *pool, ct_model **out_model, ct_status *status);
/* READ, in a moment, for answers until the same folder has been opened by ct_model_open_within: rows are read from it when they are asked
 * for. Every file is checked but the sorted files of tables, of which only their lengths and what RocksDB reads of them to open them are;
 * each block's checksum is checked when it is read, and a block that is not what was written fails the scorer that asks for it. How many
 * rows there are is believed. memory_bytes: as there, of which the histories, which are read whole, must leave something. */
CT_MUST_CHECK ct_code ct_model_open_early(const char *folder, uint64_t memory_bytes, ct_pool *pool, ct_model **out_model,
                                          ct_status *status);
bool ct_model_is_early(const ct_model *model); /* was it opened so? */
void ct_model_destroy(ct_model *model);        /* NULL is fine */
/* Vectors of equal content are held once for both models, as long as either lives. Neither may be at work meanwhile. */
CT_MUST_CHECK ct_code ct_model_share_vectors(ct_model *model, ct_model *with, ct_status *status);
/* A text that is written into the folder as it is, as curve.jsonl or train.html; the model does not read it. */
typedef struct ct_model_text {
    const char *name; /* of the file: letters, digits, '.', '_' and '-', and none of the names above */
    const char *text;
} ct_model_text;
/* Written beside and renamed; an older folder of that name is replaced, anything else there is CT_EXISTS. `metrics` becomes metrics.json.
 * `resume_folder` (NULL = none): another model folder on the same file system, which is moved in as resume/: the state that training goes
 * on from, where that is not the model itself. `kept_folder` (NULL = none): where the older folder goes, instead of being removed.
 * CT_INVALID names the table or tensor that holds a value which is not finite: then nothing is written. */
CT_MUST_CHECK ct_code ct_model_save_texts(ct_model *model, const char *folder, const json_t *metrics, const ct_model_text *texts,
                                          size_t text_count, const char *resume_folder, const char *kept_folder, ct_status *status);
/* From here on what is saved costs what has changed since the last time, and can be written while training goes on: see
 * ct_store_save_beside. live_folder: scratch, as in ct_model_options, best on the file system of the folders. from: the model folder that
 * the model was opened from and has not changed since, or NULL. A model within a limit on memory does so anyway. */
CT_MUST_CHECK ct_code ct_model_save_beside(ct_model *model, const char *live_folder, const char *from, ct_status *status);
/* ct_model_save_texts in two steps. begin takes what the model is now, by the thread that trains, between two batches; it waits until the
 * one before has ended. end writes it, by any thread, while the model is trained on or not, and frees it in any case. */
typedef struct ct_model_saving ct_model_saving;
CT_MUST_CHECK ct_code ct_model_save_begin(ct_model *model, const char *folder, const json_t *metrics, const ct_model_text *texts,
                                          size_t text_count, const char *resume_folder, const char *kept_folder,
                                          ct_model_saving **out_saving, ct_status *status);
CT_MUST_CHECK ct_code ct_model_save_end(ct_model_saving *saving, ct_status *status);
/* The same with one text: `curve` becomes curve.jsonl. */
CT_MUST_CHECK ct_code ct_model_save(ct_model *model, const char *folder, const json_t *metrics, const char *curve, ct_status *status);
/* FOLDER/resume where that is a model folder, else FOLDER: what training goes on from. malloc'd; NULL when out of memory. */
char *ct_model_resume_folder(const char *folder);
/* CT_INVALID, with both values, where a model differs from what is asked for: schema, spec, seed or batch. */
CT_MUST_CHECK ct_code ct_model_check_same(const ct_model *model, const ct_schema *schema, const ct_model_spec *spec, uint64_t seed,
                                          size_t batch_rows, ct_status *status);
/* CT_EXISTS where `folder` is taken by something that is no model folder: what save would say, for asking before the work. */
CT_MUST_CHECK ct_code ct_model_folder_replaceable(const char *folder, ct_status *status);
/* Digest of the content: schema, spec, tables, tower, transforms, step. Not of metrics, paths, precision-independent file layout, machine
 * or time. */
CT_MUST_CHECK ct_code ct_model_digest(ct_model *model, char out_hex[CT_DIGEST_HEX_BYTES], ct_status *status);
/* Is this a model folder (does it have a manifest)? */
bool ct_model_folder_is(const char *folder);
/* The manifest as JSON, its own checksum checked and, if `check_files`, every file's. */
CT_MUST_CHECK ct_code ct_model_manifest(const char *folder, bool check_files, json_t **out_manifest, ct_status *status);

/* --- what it is --- */
const ct_schema *ct_model_schema(const ct_model *model);
const ct_model_spec *ct_model_spec_of(const ct_model *model);
int64_t ct_model_rows(const ct_model *model); /* trained on */
int64_t ct_model_step(const ct_model *model); /* batches trained on */
uint64_t ct_model_seed(const ct_model *model);
size_t ct_model_batch_rows(const ct_model *model);
int64_t ct_model_created_ms(const ct_model *model);          /* when its folder was written; 0 = never */
const char *ct_model_instruction_set(const ct_model *model); /* it was trained with */
ct_precision ct_model_precision(const ct_model *model);
size_t ct_model_output_count(const ct_model *model);
const char *ct_model_output_name(const ct_model *model, size_t output); /* "click" */
/* Is field `field` of the schema an input of the model (itself, or as the id of one of its vectors)? */
bool ct_model_uses_field(const ct_model *model, size_t field);
/* The histories of the rows learned; NULL where no feature follows from one. They stand for a reader or a decoder, which must not change
 * them. */
ct_histories *ct_model_histories(const ct_model *model);
/* A number's typical value: raw, of the mean that its transform has learned. False where the model doesn't use field `field` as a number,
 * or has seen no value of it. */
bool ct_model_typical_number(const ct_model *model, size_t field, double *out_value);
/* Of a vector field that the model uses, itself or in a similarity: were keys looked up so far, in training or by scorers, and has none of
 * them a vector? Most likely the ids of its file have another form than the log's. False of any other field. */
bool ct_model_found_no_vector(const ct_model *model, size_t field);
/* Of the folder of a LOOK model: ct_model_describe with what a scan of all rows finds in its tables: see ct_store_describe. Caller owns. */
CT_MUST_CHECK ct_code ct_model_describe_folder(const ct_model *model, const char *folder, json_t **out_json, ct_status *status);
/* What the folder holds of a token, "FEATURE=TOKEN", of an id, or of a number that is also an id by its bucket: feature and token, and what
 * ct_store_describe_key says. Caller owns. */
CT_MUST_CHECK ct_code ct_model_describe_token(const ct_model *model, const char *folder, const char *feature_token, json_t **out_json,
                                              ct_status *status);
/* parameters of the tower, rows, stubs and bytes of each table, flops; caller owns */
json_t *ct_model_describe(const ct_model *model);
/* One of its tables in the store. */
typedef struct ct_model_table {
    const char *name; /* the model's */
    int64_t rows;
    int64_t stubs;   /* keys that are counted and have no row yet; those of a model that was opened for reading may be left out */
    int64_t waiting; /* the same, of a model that was opened for reading those that its folder or last delta tells of */
    int64_t expired; /* rows, since training began */
    uint64_t bytes;
    int64_t missed;         /* keys that scorers have asked of the folder so far, as memory had them not */
    int64_t found, unknown; /* keys that scorers have looked up so far: with a row, without one */
} ct_model_table;
size_t ct_model_table_count(const ct_model *model);
void ct_model_table_get(const ct_model *model, size_t table, ct_model_table *out_table);
/* The filter that counts ids without a row (ct_store_filter_info), of a model that trains. */
void ct_model_filter(const ct_model *model, ct_filter_info *out_info);
/* The database under a limit on memory (ct_store_disk_get), of a model that trains. */
void ct_model_disk(const ct_model *model, ct_store_disk *out_disk);
/* Where ct_model_train failed because the limit on memory is too small for the batch: the least that is enough for it; else 0. */
uint64_t ct_model_least_memory(const ct_model *model);

/* --- training --- */
/* One step on one batch (needs the label column): out_logits (rows, outputs) are those before the step. CT_INVALID "diverged" leaves every
 * value as it was before the batch (counts of keys include it, and the rows that it admits are there with their first values). Not for two
 * threads at once. `epoch` counts passes over the log from 0. */
CT_MUST_CHECK ct_code ct_model_train(ct_model *model, const ct_batch *batch, uint32_t epoch, float *out_logits, ct_status *status);
bool ct_model_diverged(const ct_model *model); /* was that why the last step failed? */

/* Which batch (and of which epoch) will come after the next ct_model_train; NULL = unknown. Its keys are sorted beside that step, and its
 * rows fetched, where there is a limit on memory; no result depends on it. It must stay as it is until it is learned, or until this is
 * called with NULL. */
void ct_model_look_ahead(ct_model *model, const ct_batch *next, uint32_t epoch);

/* Where the time of training went so far, in nanoseconds. `look_up`, `moments`, `tower_update` and `row_update` are wall time; the others
 * are summed over threads. */
typedef struct ct_model_profile {
    int64_t look_up, moments, gather, forward, backward, gradient /* of weights */, sort /* of the next batch's keys */, tower_update,
        row_update;
    int64_t disk;      /* within a limit on memory: waiting for it, in look-ups and when folders are saved */
    int64_t pass_wall; /* of gather, forward, backward, gradient and sort together */
} ct_model_profile;
void ct_model_profile_get(const ct_model *model, ct_model_profile *out_profile);
/* Where training stands: whole passes over the log that are done, and rows of the pass after them. */
void ct_model_position(const ct_model *model, uint32_t *out_epoch, int64_t *out_epoch_rows);

/* --- inference: a scorer for each thread; the model must not be trained meanwhile --- */
typedef struct ct_scorer ct_scorer;
CT_MUST_CHECK ct_code ct_scorer_create(ct_model *model, ct_scorer **out_scorer, ct_status *status);
void ct_scorer_destroy(ct_scorer *scorer); /* NULL is fine */
/* Logits (rows, outputs) of rows [first_row, first_row + rows) of the batch, any number. Columns may be shared (a request's context); a
 * field that the model uses and that is absent is CT_INVALID, by name. Same bits for a row, whatever rows stand beside it and whichever
 * columns are shared. */
CT_MUST_CHECK ct_code ct_scorer_run(ct_scorer *scorer, const ct_batch *batch, size_t first_row, size_t rows, float *out_logits,
                                    ct_status *status);
/* Derived columns: what the forward makes of the model's own state rather than of the row; today the target statistics, "FEATURE#odds", and
 * "FEATURE#bucket#odds" of a number's bucket: the smoothed log odds. One number a row. */
size_t ct_model_derived_count(const ct_model *model);
void ct_model_derived_name(const ct_model *model, size_t derived, char *out, size_t out_bytes); /* cut to fit */
size_t ct_model_derived_field(const ct_model *model, size_t derived);                           /* of the schema, that it comes from */
/* ct_scorer_run, which also gives the derived columns as they entered the network: those of the call's row r at out_derived[d * stride +
 * r], d from 0 to ct_model_derived_count. NULL = not wanted. */
CT_MUST_CHECK ct_code ct_scorer_run_derived(ct_scorer *scorer, const ct_batch *batch, size_t first_row, size_t rows, float *out_logits,
                                            float *out_derived, size_t stride, ct_status *status);
/* Probabilities of logits: ct_sigmoid_f32. One place, so that evaluation and serving agree. logits may be out. */
void ct_probabilities(const float *logits, float *out_probabilities, size_t n);
/* The whole batch on the pool, a scorer for each worker: scorers (ct_pool_threads). */
CT_MUST_CHECK ct_code ct_scorers_run(ct_scorer *const *scorers, ct_pool *pool, const ct_batch *batch, float *out_logits, ct_status *status);

#endif
