/* When background work pauses, for how long at least, and in which threads. */
#include "base/pause.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
/* after them */
#include <cmocka.h>

#include "base/background.h"
#include "base/clock.h"
#include "base/file.h"

enum { THREADS = 3 };

typedef struct others {
    bool at_work;
    atomic_int asked;
    int64_t asked_ns; /* last */
} others;

static bool wanted(void *context) {
    others *o = context;
    o->asked_ns = ct_clock_ns();
    atomic_fetch_add(&o->asked, 1);
    return o->at_work;
}

static void is_asked_and_sleeps(void **state) {
    (void)state;
    others o = {.at_work = true};
    const ct_pauses pauses = {.wanted = wanted, .context = &o};
    ct_pauses_set(&pauses);
    for (int i = 1; i <= 3; i++) {
        int64_t before = 0;
        while (atomic_load(&o.asked) < i) {
            before = ct_clock_ns();
            ct_pause_point();
        }
        assert_true(ct_clock_ns() - before >= CT_PAUSE_NS); /* it slept in the point that asked */
    }
    ct_pauses_set(NULL);
}

/* Each question is after a piece of work, and a pause is not work. */
static void works_between_two_pauses(void **state) {
    (void)state;
    others o = {.at_work = true};
    const ct_pauses pauses = {.wanted = wanted, .context = &o};
    ct_pauses_set(&pauses);
    while (atomic_load(&o.asked) < 1) ct_pause_point();
    const int64_t first_ns = o.asked_ns;
    while (atomic_load(&o.asked) < 2) ct_pause_point();
    assert_true(o.asked_ns - first_ns >= CT_PAUSE_NS + CT_PAUSE_WORK_NS);
    ct_pauses_set(NULL);
}

static void asks_nobody_without_pauses(void **state) {
    (void)state;
    others o = {.at_work = true};
    const ct_pauses pauses = {.wanted = wanted, .context = &o};
    ct_pauses_set(&pauses);
    ct_pauses_set(NULL);
    const int64_t until = ct_clock_ns() + 2 * CT_PAUSE_WORK_NS;
    while (ct_clock_ns() < until) ct_pause_point();
    assert_int_equal(atomic_load(&o.asked), 0);
}

typedef struct seen {
    pthread_barrier_t all; /* so that each thread takes one task */
    const ct_pauses *pauses[THREADS];
} seen;

static void note(void *context, size_t task, size_t worker) {
    seen *s = context;
    (void)task;
    (void)pthread_barrier_wait(&s->all);
    s->pauses[worker] = ct_pauses_get();
}

static void expect(ct_pool *pool, const ct_pauses *pauses) {
    seen s;
    assert_int_equal(pthread_barrier_init(&s.all, NULL, THREADS), 0);
    ct_pool_run(pool, THREADS, note, &s);
    for (int i = 0; i < THREADS; i++) assert_ptr_equal(s.pauses[i], pauses);
    (void)pthread_barrier_destroy(&s.all);
}

static void tasks_pause_as_their_caller(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    others o = {.at_work = false};
    const ct_pauses pauses = {.wanted = wanted, .context = &o};
    ct_pool *pool = NULL;
    if (ct_pool_create(THREADS, &pool, &status) != CT_OK) fail_msg("%s", status.message);
    expect(pool, NULL);
    ct_pauses_set(&pauses);
    expect(pool, &pauses);
    ct_pauses_set(NULL);
    expect(pool, NULL);
    ct_pool_destroy(pool);
}

static void background_pauses_between_begin_and_end(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    others o = {.at_work = true};
    ct_background *background = NULL;
    if (ct_background_create(THREADS, 0, &background, &status) != CT_OK) fail_msg("%s", status.message);
    ct_background_begin(background);
    assert_null(ct_pauses_get());
    ct_background_end(background);
    ct_background_set_pauses(background, wanted, &o, NULL);
    assert_null(ct_pauses_get());
    for (int i = 0; i < 2; i++) {
        const int asked = atomic_load(&o.asked);
        ct_background_begin(background);
        while (atomic_load(&o.asked) == asked) ct_pause_point();
        ct_background_look(background, 1e9); /* of so much time it has had next to nothing: it pauses no more */
        const int before = atomic_load(&o.asked);
        const int64_t until = ct_clock_ns() + 2 * CT_PAUSE_WORK_NS;
        while (ct_clock_ns() < until) ct_pause_point();
        assert_int_equal(atomic_load(&o.asked), before);
        ct_background_end(background);
        assert_null(ct_pauses_get());
    }
    ct_background_destroy(background);
}

/* Of the thread that has set it and of its pool's. */
typedef struct given_up_work {
    const char *file;
    ct_code codes[THREADS], digest[THREADS];
} given_up_work;

static void work(void *context, size_t task, size_t worker) {
    given_up_work *w = context;
    ct_status status = CT_STATUS_INIT;
    char hex[CT_DIGEST_HEX_BYTES];
    (void)worker;
    w->codes[task] = ct_pause_check(&status);
    w->digest[task] = ct_file_digest(w->file, hex, NULL, &status);
}

static void ends_once_it_is_given_up(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    atomic_bool given_up = false;
    const ct_pauses pauses = {.given_up = &given_up};
    ct_pool *pool = NULL;
    given_up_work w = {.file = "/proc/self/exe"};
    if (ct_pool_create(THREADS, &pool, &status) != CT_OK) fail_msg("%s", status.message);
    for (int turn = 0; turn < 3; turn++) { /* before, then, and for whoever has not set it */
        atomic_store(&given_up, turn > 0);
        ct_pauses_set(turn < 2 ? &pauses : NULL);
        ct_pool_run(pool, THREADS, work, &w);
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(w.codes[i], turn == 1 ? CT_CANCELLED : CT_OK);
            assert_int_equal(w.digest[i], turn == 1 ? CT_CANCELLED : CT_OK);
        }
    }
    ct_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_asked_and_sleeps),
        cmocka_unit_test(works_between_two_pauses),
        cmocka_unit_test(asks_nobody_without_pauses),
        cmocka_unit_test(tasks_pause_as_their_caller),
        cmocka_unit_test(background_pauses_between_begin_and_end),
        cmocka_unit_test(ends_once_it_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
