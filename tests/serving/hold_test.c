/* Refusals that are held back, with a clock of ours: one in 100 ns, three at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after them */
#include <cmocka.h>

#include "serving/hold.h"

enum { LIMIT = 4, BURST = 3 };
static const double RATE = 1e7;

static int items[16];

static int setup(void **state) {
    static ct_hold hold;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_hold_init(&hold, LIMIT, RATE, BURST, &status), CT_OK);
    hold.due_ns = 0;
    *state = &hold;
    return 0;
}

static int teardown(void **state) {
    ct_hold_deinit(*state);
    return 0;
}

static ct_held held(size_t index, int64_t until) { return (ct_held){.item = &items[index], .why = (int)index, .until_ns = until}; }

static void put(ct_hold *hold, size_t index, int64_t until) {
    ct_held instead;
    assert_true(ct_hold_put(hold, held(index, until), &instead));
}

static void takes(ct_hold *hold, int64_t now, size_t index) {
    ct_held out;
    assert_true(ct_hold_take(hold, now, &out));
    assert_ptr_equal(out.item, &items[index]);
    assert_int_equal(out.why, index);
}

static void takes_none(ct_hold *hold, int64_t now) {
    ct_held out;
    assert_false(ct_hold_take(hold, now, &out));
}

static void test_rate(void **state) {
    ct_hold *hold = *state;
    const int64_t now = 1000000;
    takes_none(hold, now);
    assert_int_equal(ct_hold_next(hold), INT64_MAX);
    for (size_t i = 0; i < 4; i++) { /* one is in time, three are ahead of it */
        put(hold, i, INT64_MAX);
        takes(hold, now, i);
    }
    put(hold, 4, INT64_MAX);
    put(hold, 5, INT64_MAX);
    assert_int_equal(ct_hold_next(hold), now + 100);
    takes_none(hold, now + 99);
    takes(hold, now + 100, 4);
    takes_none(hold, now + 199);
    takes(hold, now + 200, 5);
    for (size_t i = 6; i < 10; i++) { /* after a while as at first, and no more than that */
        put(hold, i, INT64_MAX);
        takes(hold, now + 100000, i);
    }
    put(hold, 10, INT64_MAX);
    takes_none(hold, now + 100000);
}

static void test_until(void **state) {
    ct_hold *hold = *state;
    for (size_t i = 0; i < 4; i++) {
        put(hold, i, INT64_MAX);
        takes(hold, 1000, i);
    }
    put(hold, 4, 1020);
    put(hold, 5, 1030);
    assert_int_equal(ct_hold_next(hold), 1020);
    takes_none(hold, 1019);
    takes(hold, 1020, 4);
    takes(hold, 1030, 5);
    put(hold, 6, INT64_MAX); /* what went out before its turn does not pile up */
    assert_true(ct_hold_next(hold) <= 1030 + 2 * 100);
}

/* Where there is no room the oldest goes out. */
static void test_full(void **state) {
    ct_hold *hold = *state;
    ct_held out;
    for (size_t i = 0; i < 4; i++) {
        put(hold, i, INT64_MAX);
        takes(hold, 1000, i);
    }
    for (size_t i = 4; i < 8; i++) put(hold, i, INT64_MAX);
    for (size_t i = 8; i < 15; i++) {
        assert_false(ct_hold_put(hold, held(i, INT64_MAX), &out));
        assert_ptr_equal(out.item, &items[i - 4]);
    }
    for (size_t i = 11; i < 15; i++) takes(hold, 1000000, i);
    takes_none(hold, 1000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_until, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
