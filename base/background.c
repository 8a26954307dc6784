/* The watcher is a thread of its own, as the one that works may be waiting for a processor. `lock` guards what follows it. */
#include "base/background.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/thread.h"

enum { NICE = 10 };

struct ct_background {
    ct_pool *pool;
    pthread_t worker, watcher;
    bool may_idle, watched;
    ct_pauses pauses;              /* what the work asks: wants_pauses */
    bool (*wanted)(void *context); /* NULL = no pauses are made */
    void *wanted_context;
    atomic_bool starved; /* since the begin: it gives way no more */
    int64_t look_ns;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop, working;
    int64_t since_ns, used_ns; /* of the look before: when, and what the threads had used of processors then */
};

static bool set_policy(pthread_t thread, int policy) {
    const struct sched_param parameters = {.sched_priority = 0};
    return pthread_setschedparam(thread, policy, &parameters) == 0;
}

static void *try_policies(void *out_may) {
    *(bool *)out_may = set_policy(pthread_self(), SCHED_IDLE) && set_policy(pthread_self(), SCHED_OTHER);
    return NULL;
}

/* Whether a thread of this one's priority may come back: tried by one that ends anyway. */
static bool may_idle(void) {
    bool may = false;
    pthread_t thread;
    if (pthread_create(&thread, NULL, try_policies, &may) != 0) return false;
    (void)pthread_join(thread, NULL);
    return may;
}

static int64_t used_ns(const ct_background *background) {
    clockid_t clock;
    struct timespec used = {0};
    if (pthread_getcpuclockid(background->worker, &clock) == 0) (void)clock_gettime(clock, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec + ct_pool_used_ns(background->pool);
}

/* Under lock. */
static void look(ct_background *background, double seconds) {
    const int64_t used = used_ns(background);
    if (background->working && (double)(used - background->used_ns) * 1e-9 < CT_BACKGROUND_SHARE * seconds) {
        atomic_store(&background->starved, true);
        (void)set_policy(background->worker, SCHED_OTHER);
        ct_pool_set_policy(background->pool, SCHED_OTHER);
    }
    background->used_ns = used;
}

void ct_background_look(ct_background *background, double seconds) {
    (void)pthread_mutex_lock(&background->lock);
    look(background, seconds);
    (void)pthread_mutex_unlock(&background->lock);
}

static void *watch(void *argument) {
    ct_background *background = argument;
    (void)pthread_mutex_lock(&background->lock);
    while (!background->stop) {
        if (!background->working) {
            (void)pthread_cond_wait(&background->changed, &background->lock);
            continue;
        }
        const int64_t until = background->since_ns + background->look_ns, now = ct_clock_ns();
        if (now >= until) {
            look(background, (double)(now - background->since_ns) * 1e-9);
            background->since_ns = now;
            continue;
        }
        (void)ct_condition_wait(&background->changed, &background->lock, until);
    }
    (void)pthread_mutex_unlock(&background->lock);
    return NULL;
}

ct_code ct_background_create(size_t threads, double look_seconds, ct_background **out_background, ct_status *status) {
    ct_background *background = calloc(1, sizeof *background);
    if (!background) return ct_fail_memory(status, sizeof *background, "a thread's work");
    (void)pthread_mutex_init(&background->lock, NULL);
    ct_condition_init(&background->changed);
    background->worker = pthread_self();
    background->look_ns = (int64_t)(look_seconds * 1e9);
    if (background->look_ns) background->watched = ct_thread_start("ct-watch", watch, background, &background->watcher); /* not low */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* of the thread alone, in Linux */
    background->may_idle = (background->watched || !background->look_ns) && may_idle();
    const ct_code code = ct_pool_create(threads, &background->pool, status);
    if (code != CT_OK) {
        ct_background_destroy(background);
        return code;
    }
    *out_background = background;
    return CT_OK;
}

void ct_background_destroy(ct_background *background) {
    if (!background) return;
    (void)pthread_mutex_lock(&background->lock);
    background->stop = true;
    (void)pthread_cond_signal(&background->changed);
    (void)pthread_mutex_unlock(&background->lock);
    if (background->watched) (void)pthread_join(background->watcher, NULL);
    ct_pool_destroy(background->pool);
    (void)pthread_cond_destroy(&background->changed);
    (void)pthread_mutex_destroy(&background->lock);
    free(background);
}

ct_pool *ct_background_pool(ct_background *background) { return background->pool; }

static bool wants_pauses(void *context) {
    const ct_background *background = context;
    return !atomic_load(&background->starved) && background->wanted(background->wanted_context);
}

void ct_background_set_pauses(ct_background *background, bool (*wanted)(void *context), void *context, const atomic_bool *given_up) {
    background->pauses = (ct_pauses){wants_pauses, background, given_up};
    background->wanted = wanted;
    background->wanted_context = context;
}

/* The watcher needs the lock: a thread that holds it is an ordinary one. */
void ct_background_begin(ct_background *background) {
    if (!background) return;
    if (background->wanted) ct_pauses_set(&background->pauses);
    atomic_store(&background->starved, false);
    (void)pthread_mutex_lock(&background->lock);
    background->working = true;
    background->since_ns = ct_clock_ns();
    background->used_ns = used_ns(background);
    if (background->may_idle) ct_pool_set_policy(background->pool, SCHED_IDLE);
    (void)pthread_cond_signal(&background->changed);
    (void)pthread_mutex_unlock(&background->lock);
    if (!background->may_idle) return;
    (void)set_policy(background->worker, SCHED_IDLE);
    (void)sched_yield(); /* to whoever has come while it had the right to go on for a while */
}

void ct_background_end(ct_background *background) {
    if (!background) return;
    ct_pauses_set(NULL);
    if (background->may_idle) (void)set_policy(background->worker, SCHED_OTHER);
    (void)pthread_mutex_lock(&background->lock);
    background->working = false;
    if (background->may_idle) ct_pool_set_policy(background->pool, SCHED_OTHER);
    (void)pthread_mutex_unlock(&background->lock);
}
