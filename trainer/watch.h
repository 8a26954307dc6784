/* Private to trainer/: looks at what a run learns from, and how it goes, and says what a person should know before the run's end: labels
 * that can't be right, rows that never change, a model that has gone astray. Says each thing once. */
#ifndef TRAINER_WATCH_H
#define TRAINER_WATCH_H

#include "trainer/trainer.h"

typedef struct ct_watch ct_watch;
/* model, warn and context must outlive the watch. warn may be NULL. */
CT_MUST_CHECK ct_code ct_watch_create(const ct_model *model, ct_warn_fn warn, void *context, ct_watch **out_watch, ct_status *status);
void ct_watch_destroy(ct_watch *watch); /* NULL is fine */
/* A batch that was learned, and its sums. CT_INVALID "diverged" where the loss is not finite or above 10,000 a row, or where that of 512
 * steps behind the first 512 was above ln 2 (that of one half for every row) and above twice that of the constant click rate. */
CT_MUST_CHECK ct_code ct_watch_batch(ct_watch *watch, const ct_batch *batch, const ct_batch_sums *sums, ct_status *status);
/* The words for a step whose gradient was not finite: its number and rows, the loss, what to lower. CT_INVALID. logits: (rows). */
ct_code ct_watch_diverged(const ct_watch *watch, const ct_batch *batch, const float *logits, ct_status *status);
/* Does the loss of the last steps look as if the model went astray? Then it is no good checkpoint. */
bool ct_watch_astray(const ct_watch *watch);
/* At the end: what was read, the progressive metrics and the evaluation (NULL = none). */
void ct_watch_end(ct_watch *watch, const ct_read_report *report, const ct_metrics *progressive, const ct_metrics *evaluation);
void ct_watch_say(ct_watch *watch, const char *format, ...) CT_PRINTF(2, 3);
/* All that was said: an array of texts; the watch's. */
const json_t *ct_watch_said(const ct_watch *watch);

#endif
