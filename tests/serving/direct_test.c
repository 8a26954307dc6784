/* Which thread computes a call (serving/threads.c): one that comes alone is computed at once by the thread that has read it; those that
 * come together are read before any of them is handed over, and computed together. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "serving/server_internal.h"
#include "tests/serving/http2.h"
#include "tests/serving/server_fixture.h"

/* A row takes the server very little, as far as it knows: the first request's many rows outweigh whatever a slow machine makes of the few
 * that follow. */
static void start_fast(fixture *fx) {
    start(fx, 1);
    ct_status status = CT_STATUS_INIT;
    answers got = {NULL, 0};
    MUST(score(fx, fx->schema, fx->log, LOG_ROWS, false, -1, TIMEOUT_MS, &got, &status), status);
    free(got.values);
    wait_until_counted(fx);
    assert_int_equal(look(fx).direct_requests, 0);
}

static uint8_t *request(size_t rows, size_t *out_bytes) {
    test_request r;
    test_request_init(&r);
    test_token(test_add(&r, true, "user"), "anna");
    test_length(test_add(&r, true, "likes"), 0);
    test_column *price = test_add(&r, false, "price"), *item = test_add(&r, false, "item");
    for (size_t i = 0; i < rows; i++) {
        test_number(price, (float)i);
        test_integer(item, (int64_t)i);
    }
    r.message.candidate_count = (uint32_t)rows;
    uint8_t *bytes = test_pack(&r, out_bytes);
    test_request_deinit(&r);
    return bytes;
}

/* One after the other, each alone. Where one comes before the thread that reads has gone back to waiting, it is handed over; so not all are
 * computed at once, but however slow the machine is, a few soon are. */
static void test_alone(void **state) {
    enum { AT_ONCE = 5, MOST = 10000 };
    fixture *fx = *state;
    start_fast(fx);
    const size_t before = fake_model_runs(fx->model);
    size_t bytes = 0, calls = 0;
    uint8_t *one = request(1, &bytes);
    while (look(fx).direct_requests < AT_ONCE && calls < MOST) {
        ct_status status = CT_STATUS_INIT;
        MUST(raw_call(fx, SCORE, one, bytes, NULL, NULL, NULL, &status), status);
        wait_until_counted(fx);
        calls++;
    }
    free(one);
    assert_int_equal(look(fx).direct_requests, AT_ONCE);
    assert_int_equal(look(fx).merged_requests, 0);
    assert_int_equal(fake_model_runs(fx->model), before + calls);
    stop(fx);
}

enum { CALLS = 12 };

/* Calls of one candidate each, in one piece. */
static void send_calls(int fd) {
    uint8_t out[16384];
    size_t at = 0;
    for (size_t i = 0; i < CALLS; i++) {
        size_t bytes = 0;
        uint8_t *message = request(1, &bytes);
        const size_t put = put_call(out + at, sizeof out - at, (uint32_t)(2 * i + 1), SCORE, message, bytes);
        assert_true(put > 0);
        at += put;
        free(message);
    }
    assert_int_equal(write(fd, out, at), at);
}

/* Reads until all of them are answered. */
static void read_answers(int fd) {
    for (size_t ended = 0; ended < CALLS;) {
        uint8_t head[9], payload[16384];
        assert_int_not_equal(read_frame(fd, head, payload, sizeof payload), SIZE_MAX);
        ended += head[3] == HTTP2_HEADERS && head[4] & END_STREAM;
    }
}

static size_t segments_with_data(int fd) {
    struct tcp_info info;
    socklen_t bytes = sizeof info;
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes), 0);
    return info.tcpi_data_segs_in;
}

/* Calls that come in one piece are one group; but the first one finds an idle server and may be computed before it is known that there are
 * others. What is computed together is sent together: the connection has fewer packets than there are answers, with all that HTTP/2 says
 * beside them. */
static void test_together(void **state) {
    fixture *fx = *state;
    start_fast(fx);
    const int fd = connect_http2(ct_server_port(fx->server));
    const size_t runs = fake_model_runs(fx->model), rows_before = fake_model_rows(fx->model), segments_before = segments_with_data(fd);
    send_calls(fd);
    read_answers(fd);
    wait_until_counted(fx);
    const ct_server_stats stats = look(fx);
    assert_int_equal(stats.ended[CT_OK], 1 + CALLS);
    assert_in_range(stats.direct_requests, 0, 1);
    assert_int_equal(stats.merged_groups, 1);
    assert_int_equal(stats.merged_requests, CALLS - stats.direct_requests);
    assert_int_equal(fake_model_rows(fx->model), rows_before + CALLS);
    assert_int_equal(fake_model_runs(fx->model), runs + 1 + CALLS - stats.merged_requests);
    const size_t segments = segments_with_data(fd) - segments_before;
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__ /* see serving/rpc_together.c */
    assert_in_range(segments, 1, CALLS / 2);
#else
    assert_in_range(segments, 1, 2 * CALLS);
#endif
    assert_int_equal(close(fd), 0);
    stop(fx);
}

/* The server is idle, believes from now on that a row takes so long, and computes no call in the middle of its poll; others take the
 * processor from it until then, as it believes. */
static void believe(fixture *fx, double row_ns, int64_t crowded_until_ns) {
    ct_server *server = fx->server;
    for (bool idle = false; !idle; (void)sched_yield()) {
        (void)pthread_mutex_lock(&server->lock);
        idle = server->waiting == server->thread_count - 1;
        server->queue.row_ns = row_ns / (double)(server->thread_count - 1);
        server->company_ns = INT64_MAX;
        server->crowded_until_ns = crowded_until_ns;
        (void)pthread_mutex_unlock(&server->lock);
    }
}

/* Where short calls that come together are more than 0.2 ms of work, each of two threads has its part: 12 of 30 us; once a part is
 * computed, what a row takes is known better. */
static void test_parts(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    believe(fx, 30000, 0);
    const int fd = connect_http2(ct_server_port(fx->server));
    send_calls(fd);
    read_answers(fd);
    wait_until_counted(fx);
    assert_int_equal(fake_model_rows(fx->model), CALLS);
    for (size_t i = 0; i < fake_model_runs(fx->model); i++) assert_in_range(fake_model_run_rows(fx->model, i), 1, CALLS / 2);
    assert_int_equal(close(fd), 0);
    stop(fx);
}

/* A short call that takes much longer than it should, because the model is held, tells of a crowd. While there is one, short calls are
 * handed over: the thread that reads answers Health, though the model is held. */
static void test_crowd(void **state) {
    enum { LATE_NS = 5000000 };
    fixture *fx = *state;
    start(fx, 2);
    for (int crowd = 0; crowd < 2; crowd++) {
        const size_t runs = fake_model_runs(fx->model);
        believe(fx, 10, crowd ? INT64_MAX : 0);
        fake_model_hold(fx->model, true);
        asker a;
        ask(&a, fx, 1, TIMEOUT_MS);
        fake_model_wait_runs(fx->model, runs + 1);
        const int64_t late = ct_clock_ns() + LATE_NS;
        Grpc__Health__V1__HealthCheckResponse__ServingStatus serving;
        ct_status status = CT_STATUS_INIT;
        if (crowd) MUST(health(fx, "", &serving, &status), status);
        while (ct_clock_ns() < late) continue;
        fake_model_hold(fx->model, false);
        ask_join(&a);
        assert_int_equal(a.code, CT_OK);
        wait_until_counted(fx);
        (void)pthread_mutex_lock(&fx->server->lock);
        const int64_t crowded_until_ns = fx->server->crowded_until_ns;
        (void)pthread_mutex_unlock(&fx->server->lock);
        assert_true(crowded_until_ns > 0);
    }
    stop(fx);
}

/* A call that is not small is handed over, so that somebody goes on reading. */
static void test_large(void **state) {
    fixture *fx = *state;
    start_fast(fx);
    ct_status status = CT_STATUS_INIT;
    size_t bytes = 0;
    uint8_t *large = request(33, &bytes); /* one more than is computed together with others */
    MUST(raw_call(fx, SCORE, large, bytes, NULL, NULL, NULL, &status), status);
    wait_until_counted(fx);
    free(large);
    assert_int_equal(look(fx).direct_requests, 0);
    stop(fx);
}

int main(void) {
    const struct CMUnitTest tests[] = {EACH(test_alone), EACH(test_together), EACH(test_parts), EACH(test_crowd), EACH(test_large)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
