/* How calls and servers end: deadlines, cancellation, the drain, addresses. A client here speaks HTTP/2 by hand where gRPC's own would not
 * do what it must. */
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/serving/http2.h"
#include "tests/serving/server_fixture.h"

/* A Score request and, right behind it, its cancellation and a ping, in one piece. */
static void send_and_cancel(int fd, const uint8_t *message, size_t bytes) {
    uint8_t out[2048];
    size_t at = put_call(out, sizeof out, 1, SCORE, message, bytes);
    at += put_frame(out + at, HTTP2_RESET, 0, 1, "\0\0\0\10", 4);
    at += put_frame(out + at, HTTP2_PING, 0, 0, "answerme", 8);
    assert_int_equal(write(fd, out, at), at);
}

static void wait_for_pong(int fd) {
    char seen[4096];
    size_t count = 0;
    while (!memmem(seen, count, "answerme", 8)) {
        assert_true(count < sizeof seen);
        const ssize_t got = read(fd, seen + count, sizeof seen - count);
        assert_true(got > 0);
        count += (size_t)got;
    }
}

/* --- deadlines and cancellation --- */

/* One worker, held with A, while B comes, is cancelled and leaves the queue. C, behind both, is answered; B is never computed. */
static void test_cancelled_request_is_not_computed(void **state) {
    enum { A_ROWS = 33, C_ROWS = 3 }; /* A is too large for the thread that reads: it is handed to another */
    fixture *fx = *state;
    start(fx, 1);
    test_request r;
    test_request_init(&r);
    test_token(test_add(&r, true, "user"), "anna");
    test_length(test_add(&r, true, "likes"), 0);
    test_number(test_add(&r, false, "price"), 1);
    test_integer(test_add(&r, false, "item"), 1);
    size_t count = 0;
    uint8_t *bytes = test_pack(&r, &count);
    ct_status status = CT_STATUS_INIT;
    MUST(raw_call(fx, SCORE, bytes, count, NULL, NULL, NULL, &status), status); /* it would be answered */
    assert_int_equal(fake_model_rows(fx->model), 1);

    const int fd = connect_http2(ct_server_port(fx->server));
    fake_model_hold(fx->model, true);
    asker a, c;
    ask(&a, fx, A_ROWS, TIMEOUT_MS);
    fake_model_wait_runs(fx->model, 2);
    send_and_cancel(fd, bytes, count);
    wait_for_pong(fd);
    while (look(fx).ended[CT_CANCELLED] != 1) continue;
    fake_model_hold(fx->model, false);
    ask_join(&a);
    assert_int_equal(a.code, CT_OK);
    ask(&c, fx, C_ROWS, TIMEOUT_MS);
    ask_join(&c);
    assert_int_equal(c.code, CT_OK);
    stop(fx);
    assert_int_equal(fake_model_rows(fx->model), 1 + A_ROWS + C_ROWS);
    (void)close(fd);
    free(bytes);
    test_request_deinit(&r);
}

/* gRPC gives us a call without its message where the client has cancelled it before the message was read. A client that never sends one
 * looks the same, and gets the same answer. */
static void test_call_without_message(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    const int fd = connect_http2(ct_server_port(fx->server));
    uint8_t out[512];
    const size_t bytes = put_head(out, END_STREAM, 1, SCORE);
    assert_int_equal(write(fd, out, bytes), bytes);
    while (look(fx).ended[CT_CANCELLED] != 1) continue;
    wait_until_counted(fx);
    assert_int_equal(look(fx).ended[CT_INVALID], 0);
    assert_int_equal(fake_model_rows(fx->model), 0);
    assert_int_equal(close(fd), 0);
    stop(fx);
}

/* Of a large request whose deadline passes in its first blocks, no other block is computed. */
static void test_late_request_stops_between_blocks(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    size_t rows = 0;
    /* On a slow machine the deadline may pass before both workers have begun: again, with more time. */
    for (int64_t timeout_ms = 300; rows != 2 * 256; timeout_ms *= 2) {
        const size_t runs = fake_model_runs(fx->model), before = fake_model_rows(fx->model);
        fake_model_hold(fx->model, true);
        asker a;
        ask(&a, fx, 2300, timeout_ms);
        while (fake_model_runs(fx->model) < runs + 2 && !atomic_load(&a.done)) (void)sched_yield();
        const bool both = fake_model_runs(fx->model) == runs + 2; /* the server has had the request for some time */
        const int64_t late = ct_clock_ns() + (timeout_ms + 100) * 1000000;
        ask_join(&a);
        assert_int_not_equal(a.code, CT_OK);
        while (ct_clock_ns() < late) continue; /* now the deadline has passed by the server's clock, too */
        fake_model_hold(fx->model, false);
        wait_until_counted(fx);
        rows = fake_model_rows(fx->model) - before;
        if (both) assert_int_equal(rows, 2 * 256);
    }
    stop(fx);
}

/* --- the end --- */

typedef struct stopper {
    pthread_t thread;
    ct_server *server;
    int64_t grace_ms;
} stopper;

static void *stop_main(void *argument) {
    stopper *s = argument;
    ct_server_stop(s->server, s->grace_ms);
    return NULL;
}

/* The end of a drain: what was accepted is answered, new work is refused, Health says so. */
static void test_drain(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    fake_model_hold(fx->model, true);
    asker a, b;
    ask(&a, fx, 200, TIMEOUT_MS);
    fake_model_wait_runs(fx->model, 1);
    stopper s = {.server = fx->server, .grace_ms = TIMEOUT_MS};
    assert_int_equal(pthread_create(&s.thread, NULL, stop_main, &s), 0);
    fx->server = NULL;
    Grpc__Health__V1__HealthCheckResponse__ServingStatus serving = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    ct_status status = CT_STATUS_INIT;
    while (serving == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING) MUST(health(fx, "", &serving, &status), status);
    assert_int_equal(serving, GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING);
    ask(&b, fx, 5, TIMEOUT_MS);
    ask_join(&b);
    assert_int_equal(b.code, CT_UNAVAILABLE);
    fake_model_hold(fx->model, false);
    ask_join(&a);
    assert_int_equal(a.code, CT_OK);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_int_equal(fake_model_rows(fx->model), 200);
}

/* Without grace, a call that still computes is cancelled: its client is told while the model is still held. */
static void test_no_grace(void **state) {
    fixture *fx = *state;
    start(fx, 3);
    fake_model_hold(fx->model, true);
    asker a;
    ask(&a, fx, 1000, TIMEOUT_MS);
    fake_model_wait_runs(fx->model, 1);
    stopper s = {.server = fx->server, .grace_ms = 0};
    assert_int_equal(pthread_create(&s.thread, NULL, stop_main, &s), 0);
    fx->server = NULL;
    ask_join(&a);
    assert_true(a.code == CT_UNAVAILABLE || a.code == CT_CANCELLED);
    fake_model_hold(fx->model, false);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
}

/* For how long this thread last asked to wait for something; INT64_MIN = not at all. */
static _Thread_local int64_t last_wait_ns;

int __real_ct_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns);
int __wrap_ct_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns);

int __wrap_ct_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns) {
    last_wait_ns = until_ns - ct_clock_ns();
    return __real_ct_condition_wait(condition, lock, until_ns);
}

/* Idle clients, one that speaks gRPC, one that has never said a word and one that has only said hello, do not use up the grace. What the
 * stop is ready to wait at last is looked at, not how long it takes, which is the machine's; gRPC by itself gives the one that said hello
 * 20 s. Only where that passed before the stop came to wait, it is tried again. */
static void test_idle_stop_does_not_wait(void **state) {
    fixture *fx = *state;
    enum { GRACE_MS = 600 * 1000 };
    do {
        start(fx, 2);
        ct_status status = CT_STATUS_INIT;
        ct_client *client = NULL;
        json_t *models = NULL;
        MUST(ct_client_create(fx->target, NULL, &client, &status), status);
        MUST(ct_client_models(client, TIMEOUT_MS, &models, &status), status);
        json_decref(models);
        const int silent = connect_to(ct_server_port(fx->server)), hello = connect_http2(ct_server_port(fx->server));
        last_wait_ns = INT64_MIN;
        ct_server_stop(fx->server, GRACE_MS);
        fx->server = NULL;
        assert_true(last_wait_ns <= 1000000000);
        assert_int_equal(ct_client_models(client, 200, &models, &status), CT_UNAVAILABLE);
        ct_client_destroy(client);
        (void)close(silent);
        (void)close(hello);
    } while (last_wait_ns == INT64_MIN);
}

static void test_addresses(void **state) {
    fixture *fx = *state;
    start(fx, 1);
    ct_status status = CT_STATUS_INIT;
    ct_server *second = NULL;
    const ct_server_model model = {"m", fx->model};
    ct_server_options options = {.listen = fx->target, .models = &model, .model_count = 1, .threads = 2};
    assert_int_equal(ct_server_start(&options, &second, &status), CT_UNAVAILABLE);
    assert_non_null(strstr(status.message, fx->target));
    assert_non_null(strstr(status.message, "in use"));
    static const char *const wrong[] = {"",       "127.0.0.1", ":80", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x",
                                        "::1:80", "[::1]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options.listen = wrong[i];
        if (ct_server_start(&options, &second, &status) != CT_INVALID) fail_msg("\"%s\": %s", wrong[i], status.message);
        ct_client *client = NULL;
        assert_int_equal(ct_client_create(wrong[i], NULL, &client, &status), CT_INVALID);
    }
    options.listen = "192.0.2.1:0"; /* for documentation: no machine has it */
    assert_int_equal(ct_server_start(&options, &second, &status), CT_UNAVAILABLE);
    assert_non_null(strstr(status.message, "192.0.2.1:0"));
    options.listen = "127.0.0.1:0";
    const ct_server_model twice[] = {{"m", fx->model}, {"m", fx->model}};
    options.models = twice;
    options.model_count = 2;
    assert_int_equal(ct_server_start(&options, &second, &status), CT_INVALID);
    options.model_count = 0;
    assert_int_equal(ct_server_start(&options, &second, &status), CT_INVALID);
    stop(fx);
    /* The port is free again at once. */
    options.listen = fx->target;
    options.models = &model;
    options.model_count = 1;
    MUST(ct_server_start(&options, &second, &status), status);
    ct_server_stop(second, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EACH(test_cancelled_request_is_not_computed),
        EACH(test_call_without_message),
        EACH(test_late_request_stops_between_blocks),
        EACH(test_drain),
        EACH(test_no_grace),
        EACH(test_idle_stop_does_not_wait),
        EACH(test_addresses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
