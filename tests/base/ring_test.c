/* The ring: what goes in comes out, in order, whatever the sizes, and from many threads at once; a full one says so. */
#include "base/ring.h"

#include <pthread.h>
#include <setjmp.h>
#include <string.h>
/* after them */
#include <cmocka.h>

#include "base/clock.h"
#include "base/random.h"

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

enum { THREADS = 4, RECORDS = 20000, LARGEST = 700 };

static ct_ring *make(size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_ring *ring = NULL;
    MUST(ct_ring_create(bytes, &ring, &status), status);
    return ring;
}

/* Record n of a thread: its size and its bytes are functions of both. */
static size_t size_of(uint64_t thread, uint64_t n) { return 16 + (size_t)(ct_random_u64(thread, CT_PLACE_TEST, 0, n, 0) % LARGEST); }
static void fill(char *record, uint64_t thread, uint64_t n) {
    memcpy(record, &thread, 8);
    memcpy(record + 8, &n, 8);
    /* Whatever a record holds must not look like a header to the reader: all ones, and ones as integers. */
    memset(record + 16, n % 2 ? 0xff : 1, size_of(thread, n) - 16);
}
static void check(const char *record, size_t bytes, uint64_t thread, uint64_t n) {
    char wanted[16 + LARGEST];
    assert_int_equal(bytes, size_of(thread, n));
    fill(wanted, thread, n);
    assert_memory_equal(record, wanted, bytes);
}

static void take(ct_ring *ring, uint64_t thread, uint64_t n) {
    size_t bytes = 0;
    const char *record = ct_ring_read(ring, &bytes);
    assert_non_null(record);
    check(record, bytes, thread, n);
    ct_ring_release(ring);
}

static void keeps_order_around_its_end(void **state) {
    (void)state;
    ct_ring *ring = make(4096);
    size_t bytes = 0;
    assert_null(ct_ring_read(ring, &bytes));
    uint64_t in = 0, out = 0;
    while (in < 5000) {
        char *record = ct_ring_reserve(ring, size_of(0, in));
        if (record) {
            fill(record, 0, in++);
            ct_ring_commit(ring, record);
            continue;
        }
        /* It is full: some of it, or all, is taken out. */
        for (uint64_t n = 1 + ct_random_u64(7, CT_PLACE_TEST, 0, out, 1) % 9; n > 0 && out < in; n--) take(ring, 0, out++);
    }
    while (out < in) take(ring, 0, out++);
    assert_null(ct_ring_read(ring, &bytes));
    ct_ring_destroy(ring);
}

static void waits_for_what_is_not_committed(void **state) {
    (void)state;
    ct_ring *ring = make(4096);
    size_t bytes = 0;
    char *first = ct_ring_reserve(ring, 1), *second = ct_ring_reserve(ring, 2);
    memcpy(first, "1", 1);
    memcpy(second, "22", 2);
    ct_ring_commit(ring, second);
    assert_null(ct_ring_read(ring, &bytes));
    ct_ring_commit(ring, first);
    assert_ptr_equal(ct_ring_read(ring, &bytes), first);
    assert_int_equal(bytes, 1);
    ct_ring_release(ring);
    assert_ptr_equal(ct_ring_read(ring, &bytes), second);
    assert_int_equal(bytes, 2);
    /* Beyond half of it nothing is ever taken; half of it once the rest is free. */
    assert_null(ct_ring_reserve(ring, 2033));
    ct_ring_release(ring);
    assert_non_null(ct_ring_reserve(ring, 2032));
    ct_ring_destroy(ring);
}

typedef struct writer {
    ct_ring *ring;
    pthread_t thread;
    uint64_t number, put;
} writer;

static void *write_records(void *argument) {
    writer *w = argument;
    for (uint64_t n = 0; n < RECORDS;) {
        char *record = ct_ring_reserve(w->ring, size_of(w->number, n));
        if (!record) {
            (void)sched_yield();
            continue;
        }
        fill(record, w->number, n++);
        ct_ring_commit(w->ring, record);
    }
    return NULL;
}

/* The reader sleeps whenever there is nothing: a wake-up that is lost would hang here. */
static void many_writers(void **state) {
    (void)state;
    ct_ring *ring = make(16384);
    writer writers[THREADS];
    uint64_t next[THREADS] = {0};
    for (uint64_t t = 0; t < THREADS; t++) {
        writers[t] = (writer){.ring = ring, .number = t};
        assert_int_equal(pthread_create(&writers[t].thread, NULL, write_records, &writers[t]), 0);
    }
    for (uint64_t all = 0; all < (uint64_t)THREADS * RECORDS;) {
        size_t bytes = 0;
        const char *record = ct_ring_read(ring, &bytes);
        if (!record) {
            ct_ring_sleep(ring, INT64_MAX);
            continue;
        }
        uint64_t thread = 0;
        memcpy(&thread, record, 8);
        assert_true(thread < THREADS);
        check(record, bytes, thread, next[thread]++);
        ct_ring_release(ring);
        all++;
    }
    for (size_t t = 0; t < THREADS; t++) (void)pthread_join(writers[t].thread, NULL);
    ct_ring_destroy(ring);
}

static void *stop(void *ring) {
    ct_ring_stop(ring);
    return NULL;
}

static void the_stop_ends_every_sleep(void **state) {
    (void)state;
    ct_ring *ring = make(4096);
    ct_ring_sleep(ring, ct_clock_ns() + 1000);
    assert_true(ct_ring_nap(ring, ct_clock_ns() + 1000));
    void *record = ct_ring_reserve(ring, 1);
    ct_ring_commit(ring, record);
    ct_ring_sleep(ring, INT64_MAX); /* there is a record */
    ct_ring_release(ring);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop, ring), 0);
    assert_false(ct_ring_nap(ring, INT64_MAX));
    ct_ring_sleep(ring, INT64_MAX);
    (void)pthread_join(thread, NULL);
    ct_ring_destroy(ring);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_order_around_its_end),
        cmocka_unit_test(waits_for_what_is_not_committed),
        cmocka_unit_test(many_writers),
        cmocka_unit_test(the_stop_ends_every_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
