/* Design. A run is published by one atomic word, the gate: an "open" bit, the run's number and how many workers are inside. A worker
 * enters by adding itself while the gate is open, takes task numbers from one counter and leaves. The caller takes tasks too, closes the
 * gate when none is left, and waits until nobody is inside. So a worker that wakes late finds the gate closed or another run's number, and
 * a run never waits for a sleeping thread.
 *
 * function, context, tasks and pauses are written by the caller before the gate opens (release) and read only by workers that entered
 * (acquire). `lock` guards sleeping and the two conditions; the gate opens under it, so that no wake-up is lost. `run_lock` serialises
 * callers and is taken first. A task that calls ct_pool_run on its own pool would wait for itself for ever: don't.
 *
 * Threads spin for some microseconds before they sleep, since training runs several lists of tasks in a step of some milliseconds; they
 * don't where there are more threads than processors. */
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/pause.h"
#include "base/thread.h"

enum { MAX_THREADS = 1024, SPIN_NS = 20000 };

#define GATE_OPEN      (UINT64_C(1) << 63)
#define GATE_RUN_SHIFT 32
#define GATE_RUN_MASK  UINT64_C(0x7fffffff)
#define GATE_INSIDE(g) ((g)&UINT64_C(0xffffffff))
#define GATE_RUN(g)    (((g) >> GATE_RUN_SHIFT) & GATE_RUN_MASK)

typedef struct worker {
    ct_pool *pool;
    size_t number; /* 1 .. threads-1 */
    pthread_t thread;
} worker;

struct ct_pool {
    _Alignas(64) _Atomic uint64_t gate;
    _Alignas(64) _Atomic size_t next_task;
    _Alignas(64) ct_task_fn function;
    void *context;
    size_t tasks;
    const ct_pauses *pauses; /* the caller's */

    size_t threads; /* with the caller */
    size_t started; /* threads in workers that run */
    bool spin;
    pthread_mutex_t run_lock, lock;
    pthread_cond_t wake, done;
    size_t sleepers; /* under lock */
    bool stop;       /* under lock */
    worker workers[];
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool has_work(uint64_t gate, uint64_t last_run) { return (gate & GATE_OPEN) && GATE_RUN(gate) != last_run; }

static void take_tasks(ct_pool *pool, size_t number) {
    const size_t tasks = pool->tasks;
    for (;;) {
        const size_t task = atomic_fetch_add_explicit(&pool->next_task, 1, memory_order_relaxed);
        if (task >= tasks) return;
        pool->function(pool->context, task, number);
    }
}

/* Waits until there is work of a run other than last_run; false when the pool stops. */
static bool wait_for_work(ct_pool *pool, uint64_t last_run) {
    if (pool->spin) {
        const int64_t start = ct_clock_ns();
        do {
            for (int i = 0; i < 16; i++) {
                if (has_work(atomic_load_explicit(&pool->gate, memory_order_relaxed), last_run)) return true;
                relax();
            }
        } while (ct_clock_ns() - start < SPIN_NS);
    }
    (void)pthread_mutex_lock(&pool->lock);
    pool->sleepers++;
    while (!pool->stop && !has_work(atomic_load_explicit(&pool->gate, memory_order_relaxed), last_run))
        (void)pthread_cond_wait(&pool->wake, &pool->lock);
    pool->sleepers--;
    const bool stop = pool->stop;
    (void)pthread_mutex_unlock(&pool->lock);
    return !stop;
}

static void *worker_main(void *argument) {
    worker *self = argument;
    ct_pool *pool = self->pool;
    uint64_t last_run = 0; /* runs are numbered from 1 */
    while (wait_for_work(pool, last_run)) {
        uint64_t gate = atomic_load_explicit(&pool->gate, memory_order_relaxed);
        bool inside = false;
        while (has_work(gate, last_run) && !inside)
            inside = atomic_compare_exchange_weak_explicit(&pool->gate, &gate, gate + 1, memory_order_acquire, memory_order_relaxed);
        if (!inside) continue; /* it was over before we came */
        last_run = GATE_RUN(gate);
        ct_pauses_set(pool->pauses);
        take_tasks(pool, self->number);
        gate = atomic_fetch_sub_explicit(&pool->gate, 1, memory_order_release) - 1;
        if (!(gate & GATE_OPEN) && GATE_INSIDE(gate) == 0) { /* the caller may sleep */
            (void)pthread_mutex_lock(&pool->lock);
            (void)pthread_cond_signal(&pool->done);
            (void)pthread_mutex_unlock(&pool->lock);
        }
    }
    return NULL;
}

/* What a container's limit on processor time amounts to, rounded up; SIZE_MAX where there is none. Only version 2 of control groups, and
 * of the groups only the nearest, which is where containers set it. */
static size_t processors_of_quota(void) {
    char line[512], path[600];
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file) return SIZE_MAX;
    path[0] = '\0';
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::", 3) == 0) (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
    }
    (void)fclose(file);
    if (!path[0] || !(file = fopen(path, "re"))) return SIZE_MAX;
    long long quota = 0, period = 0;
    const int read = fscanf(file, "%lld %lld", &quota, &period); /* "max 100000" where there is no limit */
    (void)fclose(file);
    return read == 2 && quota > 0 && period > 0 ? (size_t)((quota + period - 1) / period) : SIZE_MAX;
}

size_t ct_pool_default_threads(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    size_t count = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        count = (size_t)CPU_COUNT(&set);
    } else { /* more processors than the set has room for */
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        if (online > 0) count = (size_t)online;
    }
    const size_t quota = processors_of_quota();
    if (count > quota) count = quota;
    if (count > MAX_THREADS) count = MAX_THREADS;
    return count ? count : 1;
}

void ct_pool_destroy(ct_pool *pool) {
    if (!pool) return;
    (void)pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    (void)pthread_cond_broadcast(&pool->wake);
    (void)pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->started; i++) (void)pthread_join(pool->workers[i].thread, NULL);
    (void)pthread_cond_destroy(&pool->done);
    (void)pthread_cond_destroy(&pool->wake);
    (void)pthread_mutex_destroy(&pool->lock);
    (void)pthread_mutex_destroy(&pool->run_lock);
    free(pool);
}

ct_code ct_pool_create(size_t threads, ct_pool **out_pool, ct_status *status) {
    const size_t processors = ct_pool_default_threads();
    if (threads == 0) threads = processors;
    if (threads > MAX_THREADS) return ct_fail(status, CT_INVALID, "%zu threads: at most %d", threads, MAX_THREADS);
    size_t bytes = sizeof(ct_pool) + (threads - 1) * sizeof(worker);
    bytes = (bytes + 63) / 64 * 64;
    ct_pool *pool = aligned_alloc(64, bytes);
    if (!pool) return ct_fail_memory(status, bytes, "a thread pool");
    memset(pool, 0, bytes);
    atomic_init(&pool->gate, 0);
    atomic_init(&pool->next_task, 0);
    pool->threads = threads;
    pool->spin = threads <= processors;
    (void)pthread_mutex_init(&pool->run_lock, NULL); /* with default attributes none of these fails on Linux */
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
    (void)pthread_cond_init(&pool->done, NULL);

    bool all = true;
    for (size_t i = 0; i + 1 < threads && all; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .number = i + 1};
        all = ct_thread_start("ct-pool", worker_main, w, &w->thread);
        pool->started += all;
    }
    if (!all) {
        const int error = errno;
        const size_t started = pool->started + 1;
        ct_pool_destroy(pool);
        return ct_fail(status, CT_EXHAUSTED, "cannot start thread %zu of %zu: %s; use fewer threads", started + 1, threads,
                       error == EAGAIN ? "a limit on threads or memory is reached" : strerror(error));
    }
    *out_pool = pool;
    return CT_OK;
}

size_t ct_pool_threads(const ct_pool *pool) { return pool->threads; }

static void wait_until_empty(ct_pool *pool) {
    if (pool->spin) {
        const int64_t start = ct_clock_ns();
        do {
            for (int i = 0; i < 16; i++) {
                if (GATE_INSIDE(atomic_load_explicit(&pool->gate, memory_order_acquire)) == 0) return;
                relax();
            }
        } while (ct_clock_ns() - start < SPIN_NS);
    }
    (void)pthread_mutex_lock(&pool->lock);
    while (GATE_INSIDE(atomic_load_explicit(&pool->gate, memory_order_acquire)) != 0) (void)pthread_cond_wait(&pool->done, &pool->lock);
    (void)pthread_mutex_unlock(&pool->lock);
}

void ct_pool_run(ct_pool *pool, size_t tasks, ct_task_fn function, void *context) {
    if (tasks == 0) return;
    (void)pthread_mutex_lock(&pool->run_lock); /* also where we run inline: worker 0 may have scratch memory */
    if (pool->threads == 1 || tasks == 1) {
        for (size_t task = 0; task < tasks; task++) function(context, task, 0);
        (void)pthread_mutex_unlock(&pool->run_lock);
        return;
    }
    pool->function = function;
    pool->context = context;
    pool->tasks = tasks;
    pool->pauses = ct_pauses_get();
    atomic_store_explicit(&pool->next_task, 0, memory_order_relaxed);

    (void)pthread_mutex_lock(&pool->lock);
    const uint64_t run = (GATE_RUN(atomic_load_explicit(&pool->gate, memory_order_relaxed)) + 1) & GATE_RUN_MASK;
    atomic_store_explicit(&pool->gate, GATE_OPEN | run << GATE_RUN_SHIFT, memory_order_release);
    const size_t sleepers = pool->sleepers;
    if (sleepers >= tasks)
        for (size_t i = 0; i + 1 < tasks; i++) (void)pthread_cond_signal(&pool->wake); /* the caller does one itself */
    else if (sleepers)
        (void)pthread_cond_broadcast(&pool->wake);
    (void)pthread_mutex_unlock(&pool->lock);

    take_tasks(pool, 0);
    (void)atomic_fetch_and_explicit(&pool->gate, ~GATE_OPEN, memory_order_acq_rel);
    wait_until_empty(pool);
    (void)pthread_mutex_unlock(&pool->run_lock);
}

void ct_pool_set_policy(ct_pool *pool, int policy) {
    const struct sched_param parameters = {.sched_priority = 0};
    for (size_t i = 0; i < pool->started; i++) (void)pthread_setschedparam(pool->workers[i].thread, policy, &parameters);
}

int64_t ct_pool_used_ns(const ct_pool *pool) {
    int64_t sum = 0;
    for (size_t i = 0; i < pool->started; i++) {
        clockid_t clock;
        struct timespec used;
        if (pthread_getcpuclockid(pool->workers[i].thread, &clock) == 0 && clock_gettime(clock, &used) == 0)
            sum += (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
    }
    return sum;
}
