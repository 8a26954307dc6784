/* Pauses of long work that is done beside requests. A loop over pieces of some ten µs each has a pause point where it holds no lock; for
 * most threads that costs a look at a variable. A thread of background work (base/background.h) sleeps there for CT_PAUSE_NS once it has
 * worked for CT_PAUSE_WORK_NS, where others are at work.
 *
 * Why a low priority is not enough: the kernel compares priorities within a group of threads only, and groups them by session (autogroup)
 * or by unit or container (cgroup). For a client of another group, woken by its answer, the loader of a model is an equal, which keeps the
 * processor until the kernel's next tick: up to 4 ms. */
#ifndef BASE_PAUSE_H
#define BASE_PAUSE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/status.h"

enum {
    CT_PAUSE_WORK_NS = 200000,
    CT_PAUSE_NS = 100000,
    CT_PAUSE_ROWS = 64 /* or other things of less than a µs, between two points */
};

typedef struct ct_pauses {
    bool (*wanted)(void *context); /* are others at work? Asked by several threads, once for each CT_PAUSE_WORK_NS of each. NULL = never */
    void *context;
    const atomic_bool *given_up; /* the work is no longer wanted; NULL = it always is */
} ct_pauses;

/* Of the calling thread, and of the tasks that it gives to a pool, from now on. NULL = it makes none. The caller's, and stays. */
void ct_pauses_set(const ct_pauses *pauses);
const ct_pauses *ct_pauses_get(void);
void ct_pause_point(void);
/* The same, of work that can end with a failure: CT_CANCELLED once it is given up. */
CT_MUST_CHECK ct_code ct_pause_check(ct_status *status);

#endif
