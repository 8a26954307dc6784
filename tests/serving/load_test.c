/* The load generator against a server with a fake model: every call that is due is sent and counted once, however slow the machine. */
#include "serving/load.h"

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

/* Holds the model up once the first call is over, until many wait. */
typedef struct stall {
    pthread_t thread;
    fixture *fx;
    size_t waiting; /* when it ended */
} stall;
enum { STALL_CALLS = 60, STALL_RATE = 200, STALL_LIMIT_MS = 5000 };

static void *stall_main(void *argument) {
    stall *s = argument;
    while (look(s->fx).ended[CT_OK] == 0) continue;
    fake_model_hold(s->fx->model, true);
    const int64_t limit = ct_clock_ns() + (int64_t)STALL_LIMIT_MS * 1000000; /* a slow machine may send few of them in time */
    do s->waiting = look(s->fx).scoring;
    while (s->waiting < STALL_CALLS && ct_clock_ns() < limit);
    fake_model_hold(s->fx->model, false);
    return NULL;
}

/* Coordinated omission: a server that stands still delays every call that is due meanwhile, not just the one that it has. Of n calls that
 * wait when it goes on, the last one was due before that, and the others each 1/rate before the next one: so much they have waited at
 * least. */
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
    if (s.waiting < STALL_CALLS) print_message("only %zu calls waited: a slow machine\n", s.waiting);
    assert_int_equal(result->answered.count, result->started);
    const double apart_ns = 1e9 / STALL_RATE, n = (double)s.waiting, all = (double)result->started;
    assert_true((double)result->answered.max_ns >= (n - 1) * apart_ns);
    assert_true(ct_histogram_mean(&result->answered) * all >= n * (n - 1) / 2 * apart_ns);
    for (size_t k = 1; k < s.waiting;
         k++) /* k + 1 of them have waited for at least n - 1 - k intervals, so at most all - k - 1 calls less */
        assert_true((double)ct_histogram_quantile(&result->answered, (all - (double)k) / all) >= (n - 1 - (double)k) * apart_ns);
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
