#include "base/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

enum { MAX_THREADS = 8 };

static ct_pool *make_pool(size_t threads) {
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(threads, &pool, &status), CT_OK);
    return pool;
}

typedef struct counted {
    uint32_t *runs; /* (tasks), plain memory: the barrier must make it visible */
    size_t threads;
    atomic_int busy[MAX_THREADS];
    atomic_int errors;
} counted;

static void count_task(void *context, size_t task, size_t worker) {
    counted *c = context;
    if (worker >= c->threads || atomic_exchange(&c->busy[worker], 1) != 0) (void)atomic_fetch_add(&c->errors, 1);
    c->runs[task]++;
    atomic_store(&c->busy[worker], 0);
}

/* Each task once, on a worker of its own, done when ct_pool_run returns; short runs follow each other as fast as they can. */
static void runs_each_task_once(void **state) {
    (void)state;
    static const size_t thread_counts[] = {1, 2, 3, 8};
    for (size_t t = 0; t < sizeof thread_counts / sizeof *thread_counts; t++) {
        enum { TASKS = 100, RUNS = 3000 };
        uint32_t runs[TASKS] = {0};
        counted c = {.runs = runs, .threads = thread_counts[t]};
        ct_pool *pool = make_pool(thread_counts[t]);
        assert_int_equal(ct_pool_threads(pool), thread_counts[t]);
        uint32_t expected[TASKS] = {0};
        for (size_t r = 0; r < RUNS; r++) {
            const size_t tasks = r % (TASKS + 1);
            ct_pool_run(pool, tasks, count_task, &c);
            for (size_t i = 0; i < tasks; i++) expected[i]++;
            assert_memory_equal(runs, expected, sizeof runs);
        }
        assert_int_equal(atomic_load(&c.errors), 0);
        ct_pool_destroy(pool);
    }
    ct_pool_destroy(NULL);
}

typedef struct meeting {
    pthread_barrier_t barrier;
    atomic_int seen[MAX_THREADS];
    atomic_int errors;
} meeting;

static void meet(void *context, size_t task, size_t worker) {
    meeting *m = context;
    (void)task;
    if (worker >= MAX_THREADS || atomic_exchange(&m->seen[worker], 1) != 0) (void)atomic_fetch_add(&m->errors, 1);
    (void)pthread_barrier_wait(&m->barrier);
}

/* Tasks that wait for each other end only if as many threads take part, spinning or asleep: a lost wake-up hangs here. All are under way
 * at once, so each must have a worker number of its own. */
static void enough_threads_take_part(void **state) {
    (void)state;
    static const struct { size_t threads, tasks; } cases[] = {{2, 2}, {5, 5}, {8, 8}, {8, 3}, {8, 7}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        ct_pool *pool = make_pool(cases[c].threads);
        meeting m;
        memset(&m, 0, sizeof m);
        assert_int_equal(pthread_barrier_init(&m.barrier, NULL, (unsigned)cases[c].tasks), 0);
        for (int round = 0; round < 200; round++) {
            for (size_t i = 0; i < MAX_THREADS; i++) atomic_store(&m.seen[i], 0);
            ct_pool_run(pool, cases[c].tasks, meet, &m);
            if (round % 20 == 0) { /* long enough for the workers to go to sleep */
                const int64_t until = ct_clock_ns() + 300000;
                while (ct_clock_ns() < until) {}
            }
        }
        assert_int_equal(atomic_load(&m.errors), 0);
        (void)pthread_barrier_destroy(&m.barrier);
        ct_pool_destroy(pool);
    }
}

typedef struct place {
    pthread_t thread;
    size_t worker;
    size_t calls;
} place;

static void note_place(void *context, size_t task, size_t worker) {
    place *p = context;
    (void)task;
    p->thread = pthread_self();
    p->worker = worker;
    p->calls++;
}

static void one_task_or_thread_runs_inline(void **state) {
    (void)state;
    ct_pool *many = make_pool(2), *one = make_pool(1);
    for (int round = 0; round < 20000; round++) { /* the other thread spins meanwhile and would take the task now and then */
        place p = {.worker = 99};
        ct_pool_run(many, 1, note_place, &p);
        assert_true(pthread_equal(p.thread, pthread_self()));
        assert_int_equal(p.worker, 0);
        assert_int_equal(p.calls, 1);
        p = (place){.worker = 99};
        ct_pool_run(one, 5, note_place, &p);
        assert_true(pthread_equal(p.thread, pthread_self()));
        assert_int_equal(p.worker, 0);
        assert_int_equal(p.calls, 5);
    }
    place p = {.calls = 0};
    ct_pool_run(many, 0, note_place, &p);
    assert_int_equal(p.calls, 0);
    ct_pool_destroy(many);
    ct_pool_destroy(one);
}

typedef struct shared_pool {
    ct_pool *pool;
    atomic_size_t owner; /* the caller whose run is under way; 0 = none */
    atomic_int mixed;
} shared_pool;

typedef struct caller {
    shared_pool *shared;
    size_t number; /* from 1 */
    atomic_size_t done;
    size_t wrong;
} caller;

static void check_owner(void *context, size_t task, size_t worker) {
    caller *c = context;
    (void)task;
    (void)worker;
    size_t none = 0;
    if (!atomic_compare_exchange_strong(&c->shared->owner, &none, c->number) && none != c->number)
        (void)atomic_fetch_add(&c->shared->mixed, 1);
    (void)atomic_fetch_add(&c->done, 1);
    if (atomic_load(&c->done) % 16 == 0) atomic_store(&c->shared->owner, 0); /* the last of the run's 16 tasks */
}

static void *call_often(void *argument) {
    caller *c = argument;
    for (size_t run = 1; run <= 500; run++) {
        ct_pool_run(c->shared->pool, 16, check_owner, c);
        if (atomic_load(&c->done) != 16 * run) c->wrong++;
    }
    return NULL;
}

static void callers_take_turns(void **state) {
    (void)state;
    enum { CALLERS = 3 };
    for (size_t threads = 1; threads <= 3; threads++) {
        shared_pool shared = {.pool = make_pool(threads)};
        caller callers[CALLERS];
        pthread_t ids[CALLERS];
        for (size_t i = 0; i < CALLERS; i++) {
            memset(&callers[i], 0, sizeof callers[i]);
            callers[i].shared = &shared;
            callers[i].number = i + 1;
            assert_int_equal(pthread_create(&ids[i], NULL, call_often, &callers[i]), 0);
        }
        for (size_t i = 0; i < CALLERS; i++) {
            assert_int_equal(pthread_join(ids[i], NULL), 0);
            assert_int_equal(callers[i].wrong, 0);
        }
        assert_int_equal(atomic_load(&shared.mixed), 0);
        ct_pool_destroy(shared.pool);
    }
}

static void limits_and_defaults(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(1025, &pool, &status), CT_INVALID);
    assert_null(pool);
    assert_non_null(strstr(status.message, "1025"));
    assert_true(ct_pool_default_threads() >= 1);
    pool = make_pool(0);
    assert_int_equal(ct_pool_threads(pool), ct_pool_default_threads());
    ct_pool_destroy(pool);
}

static void clocks_go_forward(void **state) {
    (void)state;
    int64_t before = ct_clock_ns();
    for (int i = 0; i < 1000; i++) {
        const int64_t now = ct_clock_ns();
        assert_true(now >= before);
        before = now;
    }
    assert_true(ct_clock_unix_ms() > INT64_C(1700000000000)); /* later than November 2023 */
    assert_true(ct_clock_unix_ms() < INT64_C(4102444800000)); /* and before 2100: milliseconds, not micro */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_each_task_once), cmocka_unit_test(enough_threads_take_part), cmocka_unit_test(one_task_or_thread_runs_inline),
        cmocka_unit_test(callers_take_turns),  cmocka_unit_test(limits_and_defaults),      cmocka_unit_test(clocks_go_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
