/* The trainer: streams a log through a model. One object for each model; several can live in one process (compare feeds one reader's
 * batches to many). Progressive metrics: each batch is scored before it is learned.
 *
 * A run: ct_trainer_create, ct_trainer_batch for each batch, ct_trainer_evaluate, ct_trainer_save. ct_train does all of it. */
#ifndef TRAINER_TRAINER_H
#define TRAINER_TRAINER_H

#include "data/reader.h"
#include "model/model.h"
#include "trainer/importance.h"
#include "trainer/metrics.h"
#include "trainer/slices.h"

typedef struct ct_trainer ct_trainer;
/* The trainer uses the model, which stays the caller's. curve_rows: a point of the curve each so many rows (0 = each 10,000 of the first
 * 100,000, then each 100,000). */
CT_MUST_CHECK ct_code ct_trainer_create(ct_model *model, int64_t curve_rows, ct_trainer **out_trainer, ct_status *status);
void ct_trainer_destroy(ct_trainer *trainer); /* NULL is fine */
CT_MUST_CHECK ct_code ct_trainer_batch(ct_trainer *trainer, const ct_batch *batch, uint32_t epoch, ct_status *status);
/* Over all rows so far / since the last point of the curve. The AUC of all rows is taken over 2^16 bins of the logit (ties in a bin count
 * half). */
CT_MUST_CHECK ct_code ct_trainer_progressive(const ct_trainer *trainer, ct_metrics *out_metrics, ct_status *status);
/* Weighted sums over the rows of the last batch; their logits (rows, outputs), which may hold anything after a failure. */
typedef struct ct_batch_sums {
    double loss, weight, clicks;
} ct_batch_sums;
ct_batch_sums ct_trainer_last_sums(const ct_trainer *trainer);
const float *ct_trainer_last_logits(const ct_trainer *trainer);
/* What a checkpoint keeps, so that the progressive metrics of a run that goes on cover all of its rows, to the bit: sums, and the bins that
 * are not empty (at most 2^16). A JSON object; caller owns. */
CT_MUST_CHECK ct_code ct_trainer_state(const ct_trainer *trainer, json_t **out_state, ct_status *status);
/* Goes on from an earlier part of the same training: its state (from the file `path`, for messages) and its curve. */
CT_MUST_CHECK ct_code ct_trainer_take_up(ct_trainer *trainer, const json_t *state, const char *path, const char *curve, ct_status *status);
const char *ct_trainer_curve(const ct_trainer *trainer); /* JSON lines so far; owned by the trainer */

/* Metrics of a model on sources; `predictions` (may be NULL) is called for each batch, in order, with its probabilities (rows, outputs). */
typedef ct_code (*ct_predictions_fn)(void *context, const ct_batch *batch, const float *logits, const float *probabilities,
                                     ct_status *status);
typedef struct ct_evaluate_options {
    ct_reader_options reader;
    ct_pool *pool;
    ct_predictions_fn predictions;
    void *predictions_context;
    bool progress;             /* a line on a terminal */
    bool live;                 /* rows enter the model's histories as they come (in a copy); else those stand. Where the reader brings
                                  histories, it is theirs that are used, as its options say */
    ct_slices *slices;         /* takes the rows; the caller's, who finishes it; may be NULL */
    ct_importance *importance; /* the same; of this model and pool; reading is then by its windows, not by the reader's batch_rows */
} ct_evaluate_options;
CT_MUST_CHECK ct_code ct_evaluate(ct_model *model, const ct_evaluate_options *options, ct_metrics *out_metrics, ct_read_report *out_report,
                                  ct_status *status);

/* A warning, when it is noticed: a sentence without a full stop. */
typedef void (*ct_warn_fn)(void *context, const char *text);

typedef struct ct_train_options {
    ct_reader_options train;         /* batch_rows is the model's, shuffle_epoch the epoch */
    const char *const *eval_sources; /* may be none */
    size_t eval_source_count;
    uint32_t epochs;         /* >= 1 */
    uint32_t early_stop;     /* 0 = no; else ends after so many epochs in a row that were no better in log loss; the best one is kept */
    int64_t checkpoint_rows; /* 0 = only at the end; else the folder is written each so many rows, at a batch's end */
    bool resume;             /* the model was opened from ct_model_resume_folder(out_folder) and goes on where it stands */
    uint32_t keep;           /* folders: the last one, and keep - 1 checkpoints before it as out_folder.checkpoints/rows-N; 0 = 1 */
    const char *out_folder;
    /* NULL = none; else the model is published there while it trains (model/publication.h): each so many rows, at a
     * batch's end, and so many seconds after the last time, also while it waits for rows; 0 = not by that. At the end in any case. */
    const char *publish_folder;
    int64_t publish_rows;
    double publish_seconds;
    ct_pool *pool;
    bool progress;
    const json_t *init; /* what the model began with, for metrics.json: ct_model_init_from's lines; may be NULL */
    ct_warn_fn warn;    /* may be NULL */
    void *warn_context;
} ct_train_options;

typedef struct ct_train_result {
    ct_metrics progressive;
    bool evaluated;
    ct_metrics evaluation;
    ct_read_report train_report, eval_report;
    double train_seconds, rows_per_second;
    int64_t waiting_ns;                 /* for the reader */
    ct_reader_times reading;            /* of the training log */
    int64_t saving_ns, final_saving_ns; /* of all folders written; of the last one, which train_seconds leaves out */
    /* Folders, before the last one; how long the slowest of them held training up, and was written beside it; how long they waited for the
     * one before to be written. */
    int64_t saved, longest_saving_ns, longest_writing_ns, saving_waited_ns;
    int64_t publishing_ns;
    int64_t admitted, waiting, expired; /* keys: with a row; counted, without one yet; rows that expired since the training began */
    ct_filter_info filter;              /* where it counts those that wait, nobody knows how many: `waiting` means nothing */
    ct_store_disk disk;                 /* within a limit on memory; else 0 */
    bool stopped;                       /* by the stop flag, or as it says: the folder holds the model of the rows so far */
    ct_status outgrew;                  /* why: a batch, or the histories, outgrew the limit on memory; CT_OK = it is not that */
    ct_status unevaluated;              /* why the evaluation behind the last epoch failed; the folder holds the model all the same */
} ct_train_result;

/* The whole run; ends with a model folder, also where the evaluation behind it fails (`unevaluated`). A stop (the reader's flag), or a
 * limit on memory that was enough until then, ends with a folder of the rows learned so far, or none where there are none (CT_CANCELLED,
 * CT_INVALID). */
CT_MUST_CHECK ct_code ct_train(ct_model *model, const ct_train_options *options, ct_train_result *out_result, ct_status *status);

#endif
