/* Importance of each feature by permutation (Breiman, "Random forests", 2001, section 10): how much worse a model becomes when the
 * feature's values are shuffled among the rows, so that they keep their distribution and say nothing any more.
 *
 * The rows of a window of 65,536 consecutive rows (the last one shorter) exchange the feature's values: whole lists where a row has
 * several, and with their weights. Row r of the log takes a place by a random number that is a function of (seed, feature's name, repeat,
 * r), so the result depends neither on threads nor on how the log is stored. Each feature of the schema that the model reads is permuted
 * alone: an id leaves its vector as it is and a vector its id; a number takes its buckets with it.
 *
 * Log loss is exact. AUC is taken over 2^14 bins of the logit, 1/512 wide, within [-16, 16); ties in a bin count half, so an AUC is wrong
 * by at most `auc_error`, half of the share of pairs in one bin, and much less in practice, as a bin's rows are nearly in random order.
 * Memory: 256 KiB for each feature and repeat. Every row is scored 1 + features x repeats times. */
#ifndef TRAINER_IMPORTANCE_H
#define TRAINER_IMPORTANCE_H

#include <stdatomic.h>

#include "base/progress.h"
#include "model/model.h"

enum { CT_IMPORTANCE_WINDOW_ROWS = 65536, CT_IMPORTANCE_REPEATS = 3 };

typedef struct ct_importance_options {
    uint32_t repeats; /* 1 .. 1,000; 0 = 3 */
    uint64_t seed;
    const atomic_bool *stop; /* may be NULL; when true, add returns CT_CANCELLED */
    bool progress;           /* a line on a terminal */
} ct_importance_options;

typedef struct ct_importance ct_importance;
CT_MUST_CHECK ct_code ct_importance_create(ct_model *model, ct_pool *pool, const ct_importance_options *options,
                                           ct_importance **out_importance, ct_status *status);
void ct_importance_destroy(ct_importance *importance); /* NULL is fine */
/* A window: a batch of CT_IMPORTANCE_WINDOW_ROWS rows, or the last one. scorers: (threads of the pool); logits: (rows, outputs), those of
 * the batch as it is; labels: (rows); weights: (rows) or NULL. Rows as the metrics' collector takes them. */
CT_MUST_CHECK ct_code ct_importance_add(ct_importance *importance, ct_scorer *const *scorers, const ct_batch *batch, const float *logits,
                                        const float *labels, const float *weights, ct_status *status);
/* {repeats, window_rows, seed, rows, log_loss, auc, auc_error, features: [{feature, log_loss_increase, log_loss_increase_error, auc_drop,
 * auc_drop_error}, ...]}, the greatest increase of log loss first. The increases are means over the repeats, the errors standard errors of
 * these means over the repeats (null for one repeat): they tell the noise of shuffling, not that of the rows. The seed is text, as JSON has
 * no number of 64 bits. */
CT_MUST_CHECK ct_code ct_importance_finish(const ct_importance *importance, json_t **out_json, ct_status *status);

#endif
