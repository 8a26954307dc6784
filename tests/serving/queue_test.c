/* The queue by itself, with a clock of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after them */
#include <cmocka.h>

#include "serving/queue.h"

enum { LIMIT = 4, MAX_BYTES = 1000, MAX_WAIT = 100 };

static int items[16];
static bool gone[16];

static bool wanted(void *item, int64_t now_ns) {
    (void)now_ns;
    return !gone[(int *)item - items];
}

static ct_queue_entry entry(size_t index, int64_t since, size_t bytes) { return (ct_queue_entry){&items[index], since, bytes, 1}; }

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

static void push(ct_queue *queue, size_t index, int64_t now) {
    ct_queue_entry refused;
    assert_true(ct_queue_push(queue, now, entry(index, now, 10), &refused));
}

static void takes(ct_queue *queue, int64_t now, size_t index) {
    ct_queue_entry got;
    assert_true(ct_queue_take(queue, now, &got));
    assert_ptr_equal(got.item, &items[index]);
}

static void test_order(void **state) {
    ct_queue *queue = *state;
    ct_queue_entry got;
    assert_false(ct_queue_take(queue, 0, &got));
    assert_int_equal(ct_queue_next_expiry(queue), INT64_MAX);
    for (size_t i = 0; i < 4; i++) push(queue, i, (int64_t)i * 10);
    assert_int_equal(ct_queue_next_expiry(queue), MAX_WAIT);
    takes(queue, 49, 0); /* 49 waited: in order */
    takes(queue, 60, 3); /* the oldest, 1, has waited 50: the newest */
    push(queue, 4, 61);
    takes(queue, 61, 4);
    takes(queue, 69, 2); /* newest first still: 1 is there */
    takes(queue, 70, 1);
    push(queue, 5, 80); /* calm again: in order */
    push(queue, 6, 81);
    takes(queue, 90, 5);
    takes(queue, 90, 6);
    assert_int_equal(queue->bytes, 0);
}

static void test_full(void **state) {
    ct_queue *queue = *state;
    ct_queue_entry refused;
    for (size_t i = 0; i < 4; i++) push(queue, i, 0);
    assert_false(ct_queue_push(queue, 49, entry(4, 49, 10), &refused)); /* in order: the new one would be last */
    assert_ptr_equal(refused.item, &items[4]);
    assert_false(ct_queue_push(queue, 50, entry(5, 50, 10), &refused)); /* newest first: the oldest would be last */
    assert_ptr_equal(refused.item, &items[0]);
    assert_int_equal(queue->count, 4);
    takes(queue, 50, 5);
}

static void test_bytes(void **state) {
    ct_queue *queue = *state;
    ct_queue_entry refused;
    assert_true(ct_queue_push(queue, 0, entry(0, 0, 5000), &refused)); /* alone, any size goes */
    assert_false(ct_queue_push(queue, 1, entry(1, 1, 1), &refused));
    assert_ptr_equal(refused.item, &items[1]);
    takes(queue, 1, 0);
    assert_true(ct_queue_push(queue, 1, entry(0, 1, 600), &refused));
    assert_true(ct_queue_push(queue, 1, entry(1, 1, 400), &refused));
    assert_false(ct_queue_push(queue, 1, entry(2, 1, 1), &refused));
    assert_false(ct_queue_push(queue, 60, entry(3, 60, 601), &refused)); /* the oldest's room would not do */
    assert_ptr_equal(refused.item, &items[3]);
    assert_false(ct_queue_push(queue, 60, entry(4, 60, 600), &refused));
    assert_ptr_equal(refused.item, &items[0]);
    assert_int_equal(queue->bytes, 1000);
}

static void test_sweep(void **state) {
    ct_queue *queue = *state;
    ct_queue_entry out[4];
    for (size_t i = 0; i < 4; i++) push(queue, i, (int64_t)i);
    assert_int_equal(ct_queue_sweep(queue, 99, wanted, out, 4), 0);
    gone[2] = true;
    assert_int_equal(ct_queue_sweep(queue, 99, wanted, out, 4), 1);
    assert_ptr_equal(out[0].item, &items[2]);
    assert_int_equal(ct_queue_next_expiry(queue), 100);
    assert_int_equal(ct_queue_sweep(queue, 103, wanted, out, 2), 2); /* as many as fit, oldest first */
    assert_ptr_equal(out[0].item, &items[0]);
    assert_ptr_equal(out[1].item, &items[1]);
    assert_int_equal(ct_queue_sweep(queue, 103, wanted, out, 2), 1);
    assert_ptr_equal(out[0].item, &items[3]);
    assert_int_equal(queue->count, 0);
    assert_int_equal(queue->bytes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
