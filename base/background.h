/* Work that gives way: of a thread, and of a pool of its own, beside other threads that must not wait for it. Between begin and end they
 * run only while a processor has nothing else to do (SCHED_IDLE), and whoever wakes takes it from them at once; where others are known to
 * be at work they also pause again and again (base/pause.h). So that such work never starves, it is looked at again and again: where it got
 * less than CT_BACKGROUND_SHARE of a processor since the last look it goes on to its end without pauses, as ordinary work of low priority
 * (nice 10), which gets about a tenth. Of that priority it is everywhere where the system would not let it come back (it takes a limit
 * RLIMIT_NICE of 10 or more, as `ulimit -e 10`, or CAP_SYS_NICE). */
#ifndef BASE_BACKGROUND_H
#define BASE_BACKGROUND_H

#include "base/pause.h"
#include "base/pool.h"

#define CT_BACKGROUND_SHARE 0.1

typedef struct ct_background ct_background;
/* By the thread whose work it is, which has a low priority from then on, in failure too. `threads`: of the pool, with that thread.
 * look_seconds: between looks; 0 = only ct_background_look looks. */
CT_MUST_CHECK ct_code ct_background_create(size_t threads, double look_seconds, ct_background **out_background, ct_status *status);
void ct_background_destroy(ct_background *background); /* by any thread, with no work begun; NULL is fine */
ct_pool *ct_background_pool(ct_background *background);
/* Before the first begin: between begin and end the work pauses again and again (base/pause.h) while `wanted` says so. given_up: see
 * ct_pauses. */
void ct_background_set_pauses(ct_background *background, bool (*wanted)(void *context), void *context, const atomic_bool *given_up);
/* By that thread. What it does with a lock that others wait for belongs behind an end. NULL is fine. */
void ct_background_begin(ct_background *background);
void ct_background_end(ct_background *background);
/* One look, `seconds` after the one before, or after the begin. */
void ct_background_look(ct_background *background, double seconds);

#endif
