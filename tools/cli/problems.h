/* Problems of files: one run of verify finds all of them. Each gets a line as it is found, but for the first one, which waits until it is
 * known whether it is alone: then it is the last line, which else counts them. */
#ifndef TOOLS_CLI_PROBLEMS_H
#define TOOLS_CLI_PROBLEMS_H

#include <jansson.h>

#include "base/status.h"

typedef struct ct_problems {
    size_t checked, count;
    ct_status first;
} ct_problems;

/* A file was checked, and `code` came of it, with `status`, which is cleared. */
void ct_problems_take(ct_problems *problems, ct_code code, ct_status *status);
/* Each of the `files` that a model folder's manifest lists: there, of that size, of that checksum? */
void ct_problems_of_files(ct_problems *problems, const char *folder, const json_t *files);
/* CT_OK where there was none; else the failure that the run ends with, which says what to do about `folder`. */
CT_MUST_CHECK ct_code ct_problems_end(const ct_problems *problems, const char *folder, ct_status *status);

#endif
