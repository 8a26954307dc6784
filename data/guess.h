/* Guess: a schema for a log that nobody has described yet, from its first rows. A beginning to be looked at and corrected, not a truth:
 * each field stands with what it was guessed from. */
#ifndef DATA_GUESS_H
#define DATA_GUESS_H

#include <stdatomic.h>

#include "base/status.h"

typedef struct ct_guess_options {
    const char *source;      /* text, as data/source.h has it */
    const char *name;        /* of the schema */
    size_t max_rows;         /* that are looked at; 0 = 10,000 */
    const atomic_bool *stop; /* may be NULL */
} ct_guess_options;

/* out_yaml: malloc'd; ct_schema_parse takes it. CT_INVALID where the lines are no table: no separator cuts them evenly. */
CT_MUST_CHECK ct_code ct_schema_guess(const ct_guess_options *options, char **out_yaml, ct_status *status);

#endif
