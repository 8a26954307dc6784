/* The load generator against a server with a fake model: every call that is due is sent and counted once, however slow the machine. */
#include "serving/load.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "tests/serving/server_fixture.h"

typedef struct request {
    uint8_t *bytes;
    size_t count;
} request;

static request make_request(bool good) {
    test_request r;
    test_request_init(&r);
    test_token(test_add(&r, true, "user"), "anna");
    test_length(test_add(&r, true, "likes"), 0);
    test_number(test_add(&r, false, "price"), 1);
    test_integer(test_add(&r, false, good ? "item" : "nothing"), 1);
    request out = {NULL, 0};
    out.bytes = test_pack(&r, &out.count);
    test_request_deinit(&r);
    return out;
}

static ct_load_result *run(const fixture *fx, double rate, size_t concurrency, double seconds, const ct_load_request *requests,
                           size_t count) {
    ct_load_result *result = calloc(1, sizeof *result);
    ct_status status = CT_STATUS_INIT;
    const ct_load_options options = {.target = fx->target,
                                     .requests = requests,
                                     .request_count = count,
                                     .seconds = seconds,
                                     .warmup_seconds = seconds / 4,
                                     .rate = rate,
                                     .concurrency = concurrency,
                                     .deadline_ms = TIMEOUT_MS,
                                     .connections = 2};
    MUST(ct_load_run(&options, result, &status), status);
    return result;
}

/* Calls are due at fixed times, so how many is known: one by one below 1,000 a second, in ticks above. */
static void test_open_loop(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    const request good = make_request(true);
    const ct_load_request one = {good.bytes, good.count};
    static const double rates[] = {250, 2000};
    for (size_t i = 0; i < 2; i++) {
        ct_load_result *result = run(fx, rates[i], 0, 0.4, &one, 1);
        const double wanted = rates[i] * 0.4;
        assert_true((double)result->started >= wanted - 1 && (double)result->started <= wanted + 1);
        assert_int_equal(result->ended[CT_OK] + result->ended[CT_EXHAUSTED], result->started); /* a slow server's queue may be full */
        assert_int_equal(result->answered.count, result->ended[CT_OK]);
        assert_int_equal(result->refused.count, result->ended[CT_EXHAUSTED]);
        assert_true(result->in_time <= result->ended[CT_OK] && result->ended[CT_OK] > 0);
        free(result);
    }
    stop(fx);
    free(good.bytes);
}

/* Every second request is none: it is counted as what it is, and the first message is kept. */
static void test_failures(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    const request good = make_request(true), bad = make_request(false);
    const ct_load_request both[] = {{good.bytes, good.count}, {bad.bytes, bad.count}};
    double seconds = 0.2; /* a slow machine's closed loop may need more for two calls */
    for (size_t concurrency = 0; concurrency < 2;) {
        ct_load_result *result = run(fx, concurrency ? 0 : 500, concurrency, seconds, both, 2);
        uint64_t ended = 0;
        for (size_t c = 0; c < CT_LOAD_CODES; c++) ended += result->ended[c];
        assert_int_equal(ended, result->started);
        if (concurrency == 0) assert_true(result->started > 90);
        if (result->ended[CT_OK] > 0 && result->ended[CT_INVALID] > 0)
            concurrency++;
        else
            seconds *= 2;
        assert_int_equal(result->refused.count, result->started - result->ended[CT_OK]);
        if (result->ended[CT_INVALID] && result->ended[CT_EXHAUSTED] == 0) assert_non_null(strstr(result->first_failure, "nothing"));
        free(result);
    }
    stop(fx);
    free(good.bytes);
    free(bad.bytes);
}

/* Holds the model up for a while, once calls of the open loop have been answered. */
enum { STALL_RATE = 200, STALL_MS = 300 };
typedef struct stall {
    pthread_t thread;
    fixture *fx;
    size_t before; /* calls that were scored before it, the very first one too, which is none of the loop's */
    int64_t ns;
} stall;

static void *stall_main(void *argument) {
    stall *s = argument;
    while (look(s->fx).ended[CT_OK] < 2) continue;
    fake_model_hold(s->fx->model, true);
    const int64_t began = ct_clock_ns(), end = began + (int64_t)STALL_MS * 1000000;
    s->before = fake_model_rows(s->fx->model);
    const struct timespec at = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) continue;
    s->ns = ct_clock_ns() - began;
    fake_model_hold(s->fx->model, false);
    return NULL;
}

/* Coordinated omission: a server that stands still delays every call that is due meanwhile, not just those that it has. The last call that
 * was scored before was due before, so the i-th behind it was due at most i / rate after the stall began, and waits for the rest of it. */
static void test_stall(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    const request good = make_request(true);
    const ct_load_request one = {good.bytes, good.count};
    const ct_load_options options = {.target = fx->target,
                                     .requests = &one,
                                     .request_count = 1,
                                     .seconds = 0.5,
                                     .rate = STALL_RATE,
                                     .deadline_ms = TIMEOUT_MS,
                                     .connections = 1};
    ct_load_result *result = calloc(1, sizeof *result);
    ct_status status = CT_STATUS_INIT;
    stall s = {.fx = fx};
    assert_int_equal(pthread_create(&s.thread, NULL, stall_main, &s), 0);
    MUST(ct_load_run(&options, result, &status), status);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_int_equal(result->answered.count, result->started);
    const size_t all = result->started, left = all + 1 - s.before;
    const double apart_ns = 1e9 / STALL_RATE;
    double sum = 0;
    size_t delayed = 0;
    for (size_t i = 1; i <= left && (double)i * apart_ns < (double)s.ns; i++, delayed++) {
        const double least = (double)s.ns - (double)i * apart_ns;
        sum += least;
        const double at_least = (double)ct_histogram_quantile(&result->answered, (double)(all - i + 1) / (double)all);
        if (at_least < least) fail_msg("of %zu calls the %zu slowest should have taken %g ns at least, not %g", all, i, least, at_least);
    }
    print_message("%zu of %zu calls were due in a stall of %.0f ms\n", delayed, all, (double)s.ns / 1e6);
    assert_true(ct_histogram_mean(&result->answered) * (double)all >= sum);
    free(result);
    stop(fx);
    free(good.bytes);
}

static void test_nobody_there(void **state) {
    (void)state;
    const ct_load_request empty = {(const uint8_t *)"", 0};
    const ct_load_options options = {.target = "127.0.0.1:1",
                                     .requests = &empty,
                                     .request_count = 1,
                                     .seconds = 1,
                                     .rate = 1,
                                     .deadline_ms = TIMEOUT_MS,
                                     .connections = 1};
    ct_load_result *result = calloc(1, sizeof *result);
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_load_run(&options, result, &status), CT_UNAVAILABLE);
    assert_non_null(strstr(status.message, "127.0.0.1:1"));
    free(result);
}

int main(void) {
    const struct CMUnitTest tests[] = {EACH(test_open_loop), EACH(test_failures), EACH(test_stall), EACH(test_nobody_there)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
