/* One thread that does jobs in the order in which they come. Internal to the store. */
#ifndef EMBEDDING_STORE_HELPER_H
#define EMBEDDING_STORE_HELPER_H

#include "embedding_store/store_internal.h"

typedef struct ct_helper ct_helper;
typedef void (*ct_helper_fn)(void *context, ct_failure *failure);

CT_MUST_CHECK ct_code ct_helper_create(ct_helper **out_helper, ct_status *status);
void ct_helper_destroy(ct_helper *helper); /* finishes the jobs; NULL is fine */
/* *out_job: for wait; jobs are numbered from 1. Waits where many are open. After a failure nothing is done any more. */
CT_MUST_CHECK ct_code ct_helper_submit(ct_helper *helper, ct_helper_fn function, void *context, uint64_t *out_job, ct_status *status);
/* Until the job is done (0 is); any thread. The first failure of any job so far. */
CT_MUST_CHECK ct_code ct_helper_wait(ct_helper *helper, uint64_t job, ct_status *status);
/* The same, for who does not train: it is not counted as waiting. */
CT_MUST_CHECK ct_code ct_helper_join(ct_helper *helper, uint64_t job, ct_status *status);
bool ct_helper_is_done(ct_helper *helper, uint64_t job); /* or has failed */
CT_MUST_CHECK ct_code ct_helper_drain(ct_helper *helper, ct_status *status);
int64_t ct_helper_waited_ns(ct_helper *helper); /* in wait, so far */

#endif
