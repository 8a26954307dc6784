/* Progress on a terminal: one line on standard error, redrawn at most ten times a second, shown once two seconds have passed; nothing at
 * all where standard error is no terminal. */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include "base/status.h"

typedef struct ct_progress {
    int64_t started_ns, drawn_ns;
    bool terminal, visible;
} ct_progress;

void ct_progress_init(ct_progress *progress);
/* Cheap when it is not time to draw. */
void ct_progress_update(ct_progress *progress, const char *format, ...) CT_PRINTF(2, 3);
void ct_progress_finish(ct_progress *progress); /* clears the line */

#endif
