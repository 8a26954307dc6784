/* Arms file (YAML): what an experiment compares.
 *
 *     model: dcn-v2                # default for all arms; a built-in name or a model file; without it each arm has its own
 *     set: ["deep=[64,32]"]        # for all arms, as --set
 *     item: C2                     # id field whose training count makes the slices; default: the id of the schema's first vector, else
 * none arms:                        # 2 to 32; the first one is the control
 *       - {name: id, exclude: [item_vector]}
 *       - {name: id+vector, model: dcn-v2, set: ["vector.adapter=16"]}
 *
 * An arm has `name` (unique, at most 64 bytes), `model`, `set` (after the file's own), `features` and `exclude` (as in a model file, and in
 * its place). A model file's relative path is looked for beside the arms file. */
#ifndef EXPERIMENT_ARMS_H
#define EXPERIMENT_ARMS_H

#include "base/status.h"
#include "model/spec.h"

enum { CT_ARMS_MAX = 32, CT_ARM_NAME_MAX_BYTES = 64 };

typedef struct ct_arms ct_arms;
/* CT_INVALID names file, line and field at fault. */
CT_MUST_CHECK ct_code ct_arms_load(const char *path, ct_arms **out_arms, ct_status *status);
/* From text; `path` is for messages and for finding model files. */
CT_MUST_CHECK ct_code ct_arms_parse(const char *text, size_t bytes, const char *path, ct_arms **out_arms, ct_status *status);
void ct_arms_destroy(ct_arms *arms); /* NULL is fine */

size_t ct_arms_count(const ct_arms *arms);
const char *ct_arms_name(const ct_arms *arms, size_t arm);
const char *ct_arms_item(const ct_arms *arms); /* NULL = not given */
/* The model of an arm, settings applied; the caller's to destroy. Failures name the arm. */
CT_MUST_CHECK ct_code ct_arms_spec(const ct_arms *arms, size_t arm, ct_model_spec **out_spec, ct_status *status);

#endif
