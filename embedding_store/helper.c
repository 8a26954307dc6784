#include "embedding_store/helper.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/thread.h"

enum { MOST_OPEN = 8 };

struct ct_helper {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct {
        ct_helper_fn function;
        void *context;
    } jobs[MOST_OPEN];            /* job n at n % MOST_OPEN */
    uint64_t submitted, finished; /* numbers of the last ones */
    bool stop;
    bool broken;      /* a job failed and is finished */
    ct_status failed; /* the first one */
    ct_failure failure;
    int64_t waited_ns;
};

static void *run(void *context) {
    ct_helper *helper = context;
    (void)pthread_mutex_lock(&helper->mutex);
    for (;;) {
        while (helper->submitted == helper->finished && !helper->stop) (void)pthread_cond_wait(&helper->changed, &helper->mutex);
        if (helper->submitted == helper->finished) break;
        const uint64_t job = helper->finished + 1;
        (void)pthread_mutex_unlock(&helper->mutex);
        if (!atomic_load(&helper->failure.set))
            helper->jobs[job % MOST_OPEN].function(helper->jobs[job % MOST_OPEN].context, &helper->failure);
        (void)pthread_mutex_lock(&helper->mutex);
        helper->finished = job;
        helper->broken = atomic_load(&helper->failure.set);
        (void)pthread_cond_broadcast(&helper->changed);
    }
    (void)pthread_mutex_unlock(&helper->mutex);
    return NULL;
}

ct_code ct_helper_create(ct_helper **out_helper, ct_status *status) {
    ct_helper *helper = calloc(1, sizeof *helper);
    if (!helper) return ct_fail_memory(status, sizeof *helper, "a helper thread");
    helper->failure.status = &helper->failed;
    (void)pthread_mutex_init(&helper->mutex, NULL);
    (void)pthread_cond_init(&helper->changed, NULL);
    if (!ct_thread_start("ct-store", run, helper, &helper->thread)) {
        (void)pthread_cond_destroy(&helper->changed);
        (void)pthread_mutex_destroy(&helper->mutex);
        free(helper);
        return ct_fail(status, CT_EXHAUSTED, "cannot start a helper thread");
    }
    *out_helper = helper;
    return CT_OK;
}

void ct_helper_destroy(ct_helper *helper) {
    if (!helper) return;
    (void)pthread_mutex_lock(&helper->mutex);
    helper->stop = true;
    (void)pthread_cond_broadcast(&helper->changed);
    (void)pthread_mutex_unlock(&helper->mutex);
    (void)pthread_join(helper->thread, NULL);
    (void)pthread_cond_destroy(&helper->changed);
    (void)pthread_mutex_destroy(&helper->mutex);
    free(helper);
}

static ct_code result(ct_helper *helper, ct_status *status) {
    if (!helper->broken) return CT_OK;
    *status = helper->failed;
    return status->code;
}

ct_code ct_helper_submit(ct_helper *helper, ct_helper_fn function, void *context, uint64_t *out_job, ct_status *status) {
    (void)pthread_mutex_lock(&helper->mutex);
    while (helper->submitted - helper->finished == MOST_OPEN) (void)pthread_cond_wait(&helper->changed, &helper->mutex);
    const uint64_t job = ++helper->submitted;
    helper->jobs[job % MOST_OPEN].function = function;
    helper->jobs[job % MOST_OPEN].context = context;
    *out_job = job;
    (void)pthread_cond_broadcast(&helper->changed);
    (void)pthread_mutex_unlock(&helper->mutex);
    (void)status;
    return CT_OK;
}

static ct_code wait_for(ct_helper *helper, uint64_t job, bool counted, ct_status *status) {
    (void)pthread_mutex_lock(&helper->mutex);
    const int64_t since = ct_clock_ns();
    while (helper->finished < job) (void)pthread_cond_wait(&helper->changed, &helper->mutex);
    if (counted) helper->waited_ns += ct_clock_ns() - since;
    const ct_code code = result(helper, status);
    (void)pthread_mutex_unlock(&helper->mutex);
    return code;
}

ct_code ct_helper_wait(ct_helper *helper, uint64_t job, ct_status *status) { return wait_for(helper, job, true, status); }

ct_code ct_helper_join(ct_helper *helper, uint64_t job, ct_status *status) { return wait_for(helper, job, false, status); }

bool ct_helper_is_done(ct_helper *helper, uint64_t job) {
    (void)pthread_mutex_lock(&helper->mutex);
    const bool done = helper->finished >= job;
    (void)pthread_mutex_unlock(&helper->mutex);
    return done;
}

ct_code ct_helper_drain(ct_helper *helper, ct_status *status) {
    (void)pthread_mutex_lock(&helper->mutex);
    const uint64_t job = helper->submitted;
    (void)pthread_mutex_unlock(&helper->mutex);
    return ct_helper_wait(helper, job, status);
}

int64_t ct_helper_waited_ns(ct_helper *helper) {
    (void)pthread_mutex_lock(&helper->mutex);
    const int64_t waited = helper->waited_ns;
    (void)pthread_mutex_unlock(&helper->mutex);
    return waited;
}
