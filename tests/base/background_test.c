/* How the system schedules background work between begin and end, outside of them, and once it was seen to get nothing; and that it stays
 * ordinary where it could not come back. */
#include "base/background.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
/* after them */
#include <cmocka.h>

enum { THREADS = 3, LEAST_NICE = 10 };

typedef struct seen {
    pthread_barrier_t all; /* so that each thread takes one task */
    int policies[THREADS], nices[THREADS];
} seen;

static void note(void *context, size_t task, size_t worker) {
    seen *s = context;
    struct sched_param parameters;
    (void)task;
    (void)pthread_barrier_wait(&s->all);
    (void)pthread_getschedparam(pthread_self(), &s->policies[worker], &parameters);
    s->nices[worker] = getpriority(PRIO_PROCESS, (id_t)gettid());
}

static void expect(ct_background *background, int policy) {
    seen s;
    assert_int_equal(pthread_barrier_init(&s.all, NULL, THREADS), 0);
    ct_pool_run(ct_background_pool(background), THREADS, note, &s);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(s.policies[i], policy);
        assert_true(s.nices[i] >= LEAST_NICE);
    }
    (void)pthread_barrier_destroy(&s.all);
}

static ct_background *make(void) {
    ct_status status = CT_STATUS_INIT;
    ct_background *background = NULL;
    if (ct_background_create(THREADS, 0, &background, &status) != CT_OK) fail_msg("%s", status.message);
    return background;
}

/* A thread's own attempt, at that priority. */
static void *comes_back(void *out) {
    const struct sched_param parameters = {.sched_priority = 0};
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LEAST_NICE);
    *(bool *)out = sched_setscheduler(0, SCHED_IDLE, &parameters) == 0 && sched_setscheduler(0, SCHED_OTHER, &parameters) == 0;
    return NULL;
}

static bool may_come_back(void) {
    bool may = false;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, comes_back, &may), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return may;
}

static void gives_way_between_begin_and_end(void **state) {
    (void)state;
    const bool may = may_come_back();
    if (!may) (void)printf("a thread may not come back from SCHED_IDLE here: all of it is ordinary\n");
    const int idle = may ? SCHED_IDLE : SCHED_OTHER;
    ct_background *background = make();
    expect(background, SCHED_OTHER);
    for (int i = 0; i < 2; i++) {
        ct_background_begin(background);
        expect(background, idle);
        ct_background_look(background, 0); /* nothing can be less than a share of no time */
        expect(background, idle);
        ct_background_look(background, 1e9); /* of so much time it has had next to nothing */
        expect(background, SCHED_OTHER);
        ct_background_end(background);
        expect(background, SCHED_OTHER);
    }
    ct_background_begin(background);
    ct_background_end(background);
    ct_background_look(background, 1e9);
    expect(background, SCHED_OTHER);
    ct_background_destroy(background);
    ct_background_destroy(NULL);
    ct_background_begin(NULL);
    ct_background_end(NULL);
}

/* A process without rights must not be left behind in SCHED_IDLE. */
static void stays_ordinary_without_rights(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        if (setrlimit(RLIMIT_NICE, &none) != 0) _exit(2);
        if (may_come_back() && (setuid(65534) != 0 || may_come_back())) _exit(3);
        ct_background *background = make();
        ct_background_begin(background);
        expect(background, SCHED_OTHER);
        ct_background_end(background);
        expect(background, SCHED_OTHER);
        ct_background_destroy(background);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The watcher's own look, whenever it comes. */
static void is_watched(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_background *background = NULL;
    if (ct_background_create(THREADS, 1e-3, &background, &status) != CT_OK) fail_msg("%s", status.message);
    ct_background_begin(background);
    for (int policy = SCHED_IDLE; policy != SCHED_OTHER; policy = sched_getscheduler(0)) (void)usleep(1000); /* it uses next to nothing */
    expect(background, SCHED_OTHER);
    ct_background_end(background);
    ct_background_destroy(background);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stays_ordinary_without_rights),
        cmocka_unit_test(gives_way_between_begin_and_end),
        cmocka_unit_test(is_watched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
