/* Arms file (YAML): what an experiment compares.
 *
 *     model: dcn-v2                # default for all arms; a built-in name or a model file; without it each arm has its own
 *     set: ["deep=[64,32]"]        # for all arms, as --set
 *     item: C2                     # id field whose training count makes the slices; default: the id of the schema's first vector
 *     slices: [C5, I1]             # more slices: ids by their most frequent values, numbers by quartiles; at most 8
 *     arms:                        # 2 to 32; the first one is the control
 *       - {name: id, exclude: [item_vector]}
 *       - {name: id+vector, model: dcn-v2, set: ["vector.adapter=16"]}
 *       - {name: shuffled, placebo: id+vector}   # the same arm with its vectors dealt anew among the items: no content left
 *       - {name: id again, again: id}            # A/A: the same arm, from other seeds
 *
 * An arm has `name` (unique, at most 64 bytes), `model`, `set` (after the file's own), `features` and `exclude` (as in a model file, and in
 * its place); or `placebo` or `again`, the name of an arm of the former kind, and nothing else. A model file's relative path is looked for
 * beside the arms file. */
#ifndef EXPERIMENT_ARMS_H
#define EXPERIMENT_ARMS_H

#include "base/status.h"
#include "model/spec.h"

enum { CT_ARMS_MAX = 32, CT_ARM_NAME_MAX_BYTES = 64, CT_ARMS_MAX_SLICES = 8 };

typedef enum ct_arm_kind { CT_ARM_OWN, CT_ARM_PLACEBO, CT_ARM_AGAIN } ct_arm_kind;

typedef struct ct_arms ct_arms;
/* CT_INVALID names file, line and field at fault. */
CT_MUST_CHECK ct_code ct_arms_load(const char *path, ct_arms **out_arms, ct_status *status);
/* From text; `path` is for messages and for finding model files. */
CT_MUST_CHECK ct_code ct_arms_parse(const char *text, size_t bytes, const char *path, ct_arms **out_arms, ct_status *status);
void ct_arms_destroy(ct_arms *arms); /* NULL is fine */

size_t ct_arms_count(const ct_arms *arms);
const char *ct_arms_name(const ct_arms *arms, size_t arm);
ct_arm_kind ct_arms_kind(const ct_arms *arms, size_t arm);
size_t ct_arms_of(const ct_arms *arms, size_t arm); /* the arm that a placebo or an A/A arm repeats; itself for others */
const char *ct_arms_item(const ct_arms *arms);      /* NULL = not given */
size_t ct_arms_slice_count(const ct_arms *arms);
const char *ct_arms_slice(const ct_arms *arms, size_t slice); /* a field's name */
/* The model of an arm (of a placebo and an A/A arm: of the arm that it repeats), settings applied; the caller's to destroy. Failures name
 * the arm. */
CT_MUST_CHECK ct_code ct_arms_spec(const ct_arms *arms, size_t arm, ct_model_spec **out_spec, ct_status *status);

#endif
