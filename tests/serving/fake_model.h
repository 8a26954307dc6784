/* A model without a network, for tests of the server: it implements the part of model/model.h that serving/ uses. A row's logit is a pure
 * function of the row's values in the fields that it uses; scoring can be held up, and what was scored is counted. */
#ifndef TESTS_SERVING_FAKE_MODEL_H
#define TESTS_SERVING_FAKE_MODEL_H

#include "model/model.h"

/* used: (field_count), copied; the schema must outlive it. */
ct_model *fake_model_create(const ct_schema *schema, const bool *used, size_t outputs);
/* Models differ by it: it changes every logit, and is the last digit of the version. Before any use; 0 to 9, 0 at first. */
void fake_model_set_version(ct_model *model, unsigned version);
/* Makes it have one derived column, "FIELD#odds", which is the row's first logit plus one; of the field of that number in the schema. */
void fake_model_derive(ct_model *model, size_t field);
/* What ct_scorer_run gives for one row: logits (outputs). */
void fake_model_logits(const ct_model *model, const ct_batch *batch, size_t row, float *out_logits);
size_t fake_model_rows(ct_model *model);                 /* scored so far */
size_t fake_model_runs(ct_model *model);                 /* calls of ct_scorer_run that have begun */
size_t fake_model_run_rows(ct_model *model, size_t run); /* of that run, one of the first 64 */
size_t fake_model_threads(ct_model *model);              /* most calls of ct_scorer_run at once */
/* While held, ct_scorer_run waits. */
void fake_model_hold(ct_model *model, bool held);
/* Waits until that many runs have begun since the model was made. */
void fake_model_wait_runs(ct_model *model, size_t runs);

#endif
