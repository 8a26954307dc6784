/* Conditions by ct_clock_ns, which nobody sets. */
#ifndef BASE_CONDITION_H
#define BASE_CONDITION_H

#include <pthread.h>
#include <stdint.h>

void ct_condition_init(pthread_cond_t *condition);
/* Under `lock`, once; may end for no reason. until_ns: by ct_clock_ns. The result is pthread_cond_timedwait's. */
int ct_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns);

#endif
