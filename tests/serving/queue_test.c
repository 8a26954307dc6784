/* The queue by itself, with a clock of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after them */
#include <cmocka.h>

#include "serving/queue.h"

enum { LIMIT = 4, MAX_BYTES = 1000, MAX_WAIT = 100 };
/* Times below are small, so the queue was empty a moment ago unless a test says otherwise. */
static const int64_t NEVER = INT64_MAX;

static int items[16];
static bool gone[16];

static bool wanted(const ct_queue_entry *entry, int64_t now_ns) {
    (void)now_ns;
    return !gone[(int *)entry->item - items];
}

static int setup(void **state) {
    static ct_queue queue;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_queue_init(&queue, LIMIT, MAX_BYTES, MAX_WAIT, &status), CT_OK);
    for (size_t i = 0; i < 16; i++) gone[i] = false;
    *state = &queue;
    return 0;
}

static int teardown(void **state) {
    ct_queue_deinit(*state);
    return 0;
}

static ct_queue_answer push(ct_queue *queue, size_t index, int64_t now, int64_t deadline, size_t rows) {
    return ct_queue_push(queue, now,
                         (ct_queue_entry){.item = &items[index], .since_ns = now, .deadline_ns = deadline, .bytes = 10, .rows = rows});
}

static ct_queue_answer push_bytes(ct_queue *queue, size_t index, size_t bytes) {
    return ct_queue_push(queue, 0, (ct_queue_entry){.item = &items[index], .deadline_ns = NEVER, .bytes = bytes, .rows = 1});
}

static void takes(ct_queue *queue, int64_t now, size_t index) {
    ct_queue_entry got;
    assert_ptr_equal(ct_queue_peek(queue)->item, &items[index]);
    assert_true(ct_queue_take(queue, now, &got));
    assert_ptr_equal(got.item, &items[index]);
}

/* In order, around the ring's end. */
static void test_order(void **state) {
    ct_queue *queue = *state;
    ct_queue_entry got;
    assert_false(ct_queue_take(queue, 0, &got));
    assert_null(ct_queue_peek(queue));
    for (size_t i = 0; i < 3; i++) assert_int_equal(push(queue, i, (int64_t)i, NEVER, 1), CT_QUEUE_TAKEN);
    takes(queue, 10, 0);
    takes(queue, 10, 1);
    for (size_t i = 3; i < 6; i++) assert_int_equal(push(queue, i, (int64_t)i, NEVER, 1), CT_QUEUE_TAKEN);
    for (size_t i = 2; i < 6; i++) takes(queue, 10, i);
    assert_int_equal(queue->count, 0);
    assert_int_equal(queue->bytes, 0);
    assert_int_equal(queue->rows, 0);
}

/* Rows that take 2 ns each. */
static void test_estimate(void **state) {
    ct_queue *queue = *state;
    assert_int_equal(push(queue, 0, 0, NEVER, 1000000), CT_QUEUE_TAKEN); /* what a row takes is not known: 0 */
    assert_int_equal(push(queue, 1, 0, NEVER, 1000000), CT_QUEUE_TAKEN);
    takes(queue, 0, 0);
    takes(queue, 0, 1);
    queue->row_ns = 2;
    assert_int_equal(push(queue, 0, 0, 10, 1000000), CT_QUEUE_TAKEN); /* an empty queue takes everything */
    takes(queue, 0, 0);
    assert_int_equal(ct_queue_wait_ns(queue), 0);
    assert_int_equal(push(queue, 0, 0, NEVER, 20), CT_QUEUE_TAKEN);
    assert_int_equal(ct_queue_wait_ns(queue), 40);
    assert_int_equal(push(queue, 1, 0, 79, 1), CT_QUEUE_SLOW); /* half of the time to its deadline is 39 */
    assert_int_equal(push(queue, 1, 0, 80, 1), CT_QUEUE_TAKEN);
    assert_int_equal(push(queue, 2, 0, 84, 22), CT_QUEUE_SLOW); /* 42 until its turn, 44 for itself */
    assert_int_equal(push(queue, 2, 0, 86, 22), CT_QUEUE_TAKEN);
    assert_int_equal(ct_queue_wait_ns(queue), 86);
    takes(queue, 1, 0);
    assert_int_equal(push(queue, 3, 1, NEVER, 30), CT_QUEUE_TAKEN); /* 46; the limit of all is 100 */
    assert_int_equal(push(queue, 4, 1, NEVER, 1), CT_QUEUE_SLOW);   /* 106 */
}

/* Once it has not been empty for a while, a quarter of the limit is all that may wait, until it has been empty. */
static void test_overload(void **state) {
    ct_queue *queue = *state;
    queue->row_ns = 1;
    const int64_t late = CT_QUEUE_CALM_NS;
    assert_int_equal(push(queue, 0, 0, NEVER, 26), CT_QUEUE_TAKEN);
    assert_int_equal(push(queue, 1, late, NEVER, 1), CT_QUEUE_TAKEN); /* 26 of 100 */
    takes(queue, late, 0);
    assert_int_equal(push(queue, 2, late, NEVER, 25), CT_QUEUE_TAKEN);
    assert_int_equal(push(queue, 3, late + 1, NEVER, 1), CT_QUEUE_SLOW); /* 26 of 25 */
    takes(queue, late + 1, 1);
    assert_int_equal(push(queue, 3, late + 1, NEVER, 1), CT_QUEUE_TAKEN); /* 25 of 25 */
    takes(queue, late + 2, 2);
    takes(queue, late + 3, 3); /* empty */
    assert_int_equal(push(queue, 4, late + 4, NEVER, 90), CT_QUEUE_TAKEN);
    assert_int_equal(push(queue, 5, late + 5, NEVER, 10), CT_QUEUE_TAKEN); /* 90 of 100: a burst again */
    assert_int_equal(push(queue, 6, late + 6, late + 6 + 198, 1), CT_QUEUE_SLOW);
}

static void test_full(void **state) {
    ct_queue *queue = *state;
    for (size_t i = 0; i < LIMIT; i++) assert_int_equal(push(queue, i, 0, NEVER, 1), CT_QUEUE_TAKEN);
    assert_int_equal(push(queue, 4, 0, NEVER, 1), CT_QUEUE_FULL);
    takes(queue, 0, 0);
    assert_int_equal(push(queue, 4, 0, NEVER, 1), CT_QUEUE_TAKEN);
    for (size_t i = 1; i <= LIMIT; i++) takes(queue, 0, i);
}

static void test_bytes(void **state) {
    ct_queue *queue = *state;
    assert_int_equal(push_bytes(queue, 0, 5000), CT_QUEUE_TAKEN); /* alone, any size goes */
    assert_int_equal(push_bytes(queue, 1, 1), CT_QUEUE_FULL);
    takes(queue, 1, 0);
    assert_int_equal(push_bytes(queue, 0, 600), CT_QUEUE_TAKEN);
    assert_int_equal(push_bytes(queue, 1, 401), CT_QUEUE_FULL);
    assert_int_equal(push_bytes(queue, 1, 400), CT_QUEUE_TAKEN);
    assert_int_equal(push_bytes(queue, 2, 1), CT_QUEUE_FULL);
    assert_int_equal(queue->bytes, 1000);
}

/* Who has waited for half of his time, or for the limit of all, leaves; and whom nobody wants. */
static void test_sweep(void **state) {
    ct_queue *queue = *state;
    ct_queue_entry out[4];
    assert_int_equal(ct_queue_next_expiry(queue), NEVER);
    assert_int_equal(push(queue, 0, 0, NEVER, 1), CT_QUEUE_TAKEN); /* until 100 */
    assert_int_equal(ct_queue_next_expiry(queue), MAX_WAIT);
    assert_int_equal(push(queue, 1, 1, 81, 2), CT_QUEUE_TAKEN); /* 41 */
    assert_int_equal(push(queue, 2, 2, NEVER, 4), CT_QUEUE_TAKEN);
    assert_int_equal(push(queue, 3, 3, 500, 8), CT_QUEUE_TAKEN); /* 103 */
    assert_int_equal(ct_queue_next_expiry(queue), 41);
    assert_int_equal(ct_queue_sweep(queue, 40, wanted, out, 4), 0);
    assert_int_equal(ct_queue_sweep(queue, 41, wanted, out, 4), 1);
    assert_ptr_equal(out[0].item, &items[1]);
    assert_int_equal(queue->rows, 13);
    gone[2] = true;
    assert_int_equal(ct_queue_sweep(queue, 99, wanted, out, 4), 1);
    assert_ptr_equal(out[0].item, &items[2]);
    assert_int_equal(push(queue, 4, 99, NEVER, 1), CT_QUEUE_TAKEN);
    assert_int_equal(ct_queue_sweep(queue, 200, wanted, out, 2), 2); /* as many as fit, oldest first */
    assert_ptr_equal(out[0].item, &items[0]);
    assert_ptr_equal(out[1].item, &items[3]);
    assert_int_equal(ct_queue_sweep(queue, 200, wanted, out, 2), 1);
    assert_ptr_equal(out[0].item, &items[4]);
    assert_int_equal(queue->count, 0);
    assert_int_equal(queue->bytes, 0);
    assert_int_equal(queue->rows, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),    cmocka_unit_test_setup_teardown(test_estimate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overload, setup, teardown), cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),    cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
