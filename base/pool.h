/* Thread pool: runs a fixed list of tasks on a fixed number of threads. The tasks are numbered and the split of the work into tasks
 * never depends on the number of threads, so results don't either. ct_pool_run is a barrier; the caller works too, as worker 0. One run
 * at a time for each pool (a second caller waits). No allocation in ct_pool_run. Tasks are taken from one atomic counter, and
 * make the pauses of their caller (base/pause.h). */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/status.h"

typedef struct ct_pool ct_pool;

/* task: 0 .. tasks-1; worker: 0 .. threads-1, no two running tasks share one (index scratch memory by it). */
typedef void (*ct_task_fn)(void *context, size_t task, size_t worker);

size_t ct_pool_default_threads(void); /* processors that this process may use, at least 1 */
CT_MUST_CHECK ct_code ct_pool_create(size_t threads /* 0 = default; at most 1024 */, ct_pool **out_pool, ct_status *status);
void ct_pool_destroy(ct_pool *pool); /* NULL is fine */
size_t ct_pool_threads(const ct_pool *pool);
void ct_pool_run(ct_pool *pool, size_t tasks, ct_task_fn function, void *context);

/* Of the pool's own threads, which are not the caller's: how the system schedules them (SCHED_OTHER, SCHED_IDLE), where it allows that; and
 * what they have used of processors so far, in nanoseconds. */
void ct_pool_set_policy(ct_pool *pool, int policy);
int64_t ct_pool_used_ns(const ct_pool *pool);

#endif
