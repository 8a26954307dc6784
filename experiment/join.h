/* Join: what a server showed, and what came of it, as training rows. From a folder of exposures and one of feedback
 * (docs/file-formats.md), rows of a schema: one for each candidate that feedback says was shown, never for one that was only scored, with
 * the raw columns of its request (a context's values again for each candidate).
 *
 * The label is 1 where the positive event happened at most `wait_ms` after the candidate was first shown. A candidate whose window has not
 * passed (by until_ms) gives no row yet, clicked or not: rows of its time would be clicks only. Rows are in the order of the time they
 * were shown at, ties by request and candidate, so they depend on neither the order nor the files of what was logged.
 *
 * What follows from a history (ct_field.derived) is in a block file as it was served: as the request brought it, or as the server took it
 * from its state and logged it. That is all or nothing: where rows of some requests have it and others not (arms without it), it is left
 * out and said, and whoever reads the rows makes it of the rows before. So it is with text, which has no place for it. Target statistics
 * are always made anew: what was served is the state of the model that served (docs/ab.md).
 *
 * Memory: 48 bytes an event and 40 bytes a row. Exposures are read twice. */
#ifndef EXPERIMENT_JOIN_H
#define EXPERIMENT_JOIN_H

#include <jansson.h>
#include <stdatomic.h>

#include "data/schema.h"

typedef struct ct_join_options {
    const char *exposures, *feedback; /* folders */
    const ct_schema *schema;
    const char *const *arms; /* (arm_count): only requests of these; none: of all */
    size_t arm_count;
    const char *out;         /* a block file where the name ends in .ctb, else the schema's text */
    const char *positive;    /* "click" */
    int64_t wait_ms;         /* 0 = no window: an event always counts, and nothing waits */
    int64_t until_ms;        /* feedback is whole up to then; INT64_MIN = up to the newest that was received */
    const atomic_bool *stop; /* may be NULL */
    bool progress;           /* shown on a terminal */
} ct_join_options;

/* out_summary (the caller's): rows, positives, until_ms, exposures {..}, feedback {..}, missing {field: rows}, served [fields that the rows
 * have as they were served], warnings [text].
 * CT_INVALID names file, line and member at fault, or the field that no exposure brings. On failure no file is written. */
CT_MUST_CHECK ct_code ct_join(const ct_join_options *options, json_t **out_summary, ct_status *status);

#endif
