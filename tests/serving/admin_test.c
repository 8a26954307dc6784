/* The admin port over real sockets, with a model that can be held up. admin_test.py tries the same port of the whole program. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
/* after them */
#include <cmocka.h>

#include "serving/admin.h"
#include "serving/rpc.h"
#include "tests/serving/fake_model.h"
#include "tests/serving/requests.h"

static const char SCHEMA[] =
    "name: shop\nformat: {columns: 2}\nfields:\n"
    "  - {name: price, kind: number, column: 1}\n"
    "  - {name: item, kind: id, column: 2, type: integer}\n";
enum { TIMEOUT_MS = 600000, MAX_BODY_BYTES = 1000 };

typedef struct fixture {
    ct_schema *schema;
    ct_model *model;
    ct_server *server;
    ct_admin *admin;
    char target[64];
} fixture;

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

static int set_up(void **state) {
    fixture *fx = calloc(1, sizeof *fx);
    ct_status status = CT_STATUS_INIT;
    const bool used[] = {true, true};
    MUST(ct_schema_parse(SCHEMA, strlen(SCHEMA), "shop.yaml", &fx->schema, &status), status);
    fx->model = fake_model_create(fx->schema, used, 1);
    const ct_server_model model = {"say \"hi\"", fx->model};
    const ct_server_options options = {
        .listen = "127.0.0.1:0", .models = &model, .model_count = 1, .threads = 2, .queue_ms = TIMEOUT_MS, .max_candidates = 100};
    MUST(ct_server_start(&options, &fx->server, &status), status);
    (void)snprintf(fx->target, sizeof fx->target, "127.0.0.1:%d", ct_server_port(fx->server));
    const ct_admin_options admin = {.listen = "127.0.0.1:0", .server = fx->server, .version = "9.8.7", .max_body_bytes = MAX_BODY_BYTES};
    MUST(ct_admin_start(&admin, &fx->admin, &status), status);
    assert_true(ct_admin_port(fx->admin) > 0);
    *state = fx;
    return 0;
}

static int tear_down(void **state) {
    fixture *fx = *state;
    ct_admin_stop(fx->admin);
    ct_server_stop(fx->server, TIMEOUT_MS);
    ct_model_destroy(fx->model);
    ct_schema_destroy(fx->schema);
    free(fx);
    return 0;
}

/* --- raw HTTP --- */

static int connect_to(const fixture *fx) {
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)ct_admin_port(fx->admin)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void send_text(int fd, const char *text) { assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text)); }

/* Everything up to the connection's end, in `out`, as text; closes it. */
static const char *read_all(int fd, char *out, size_t out_bytes) {
    size_t used = 0;
    ssize_t got;
    while ((got = recv(fd, out + used, out_bytes - 1 - used, 0)) > 0) used += (size_t)got;
    out[used] = '\0';
    (void)close(fd);
    return out;
}

static int status_of(const char *answer) {
    int status = 0;
    return sscanf(answer, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

static const char *get(const fixture *fx, const char *path, char *out, size_t out_bytes) {
    char head[256];
    (void)snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    const int fd = connect_to(fx);
    send_text(fd, head);
    return read_all(fd, out, out_bytes);
}

static const char *post(const fixture *fx, const char *body, char *out, size_t out_bytes) {
    char head[256];
    (void)snprintf(head, sizeof head, "POST /v1/score HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                   strlen(body));
    const int fd = connect_to(fx);
    send_text(fd, head);
    send_text(fd, body);
    return read_all(fd, out, out_bytes);
}

static const char GOOD[] = "{\"candidates\": [{\"name\": \"price\", \"numbers\": [0.5]}, {\"name\": \"item\", \"integers\": [3]}]}";

/* For tests that ask until it is so: first, those that wait for the server's lock have their turn. */
static ct_server_stats look(const fixture *fx) {
    ct_server_stats stats;
    (void)sched_yield();
    ct_server_stats_get(fx->server, &stats);
    return stats;
}

/* --- one gRPC call in a thread --- */

typedef struct caller {
    pthread_t thread;
    const char *target;
    ct_status status;
} caller;

static void *call_main(void *argument) {
    caller *c = argument;
    test_request r;
    test_request_init(&r);
    test_number(test_add(&r, false, "price"), 1);
    test_integer(test_add(&r, false, "item"), 2);
    size_t bytes = 0, reply_bytes = 0;
    uint8_t *packed = test_pack(&r, &bytes);
    ct_rpc_channel *channel = NULL;
    c->status = (ct_status)CT_STATUS_INIT;
    if (ct_rpc_channel_create(c->target, NULL, &channel, &c->status) == CT_OK) {
        const uint8_t *reply = NULL;
        memcpy(ct_rpc_channel_reserve(channel, bytes), packed, bytes);
        c->status.code = ct_rpc_channel_call(channel, "/clicktower.v1.Scorer/Score", TIMEOUT_MS, true, &reply, &reply_bytes, &c->status);
    }
    ct_rpc_channel_destroy(channel);
    free(packed);
    test_request_deinit(&r);
    return NULL;
}

/* --- tests --- */

static void a_server_that_goes_down_says_so_while_it_finishes(void **state) {
    fixture *fx = *state;
    char out[4096];
    assert_int_equal(status_of(get(fx, "/readyz", out, sizeof out)), 200);
    fake_model_hold(fx->model, true);
    caller call = {.target = fx->target};
    assert_int_equal(pthread_create(&call.thread, NULL, call_main, &call), 0);
    fake_model_wait_runs(fx->model, 1);
    /* What gRPC computes does not hold up the admin port. */
    assert_int_equal(status_of(get(fx, "/healthz", out, sizeof out)), 200);
    ct_server_drain(fx->server);
    assert_int_equal(status_of(get(fx, "/readyz", out, sizeof out)), 503);
    assert_non_null(strstr(out, "going down"));
    assert_int_equal(status_of(get(fx, "/healthz", out, sizeof out)), 200);
    assert_int_equal(status_of(post(fx, GOOD, out, sizeof out)), 503);
    assert_non_null(strstr(out, "\"code\":\"UNAVAILABLE\""));
    char *metrics = malloc(1 << 20);
    assert_non_null(strstr(get(fx, "/metrics", metrics, 1 << 20), "\nclicktower_ready 0\n"));
    assert_non_null(strstr(metrics, "\nclicktower_active_requests 1\n"));
    free(metrics);
    fake_model_hold(fx->model, false);
    ct_server_wait_idle(fx->server, TIMEOUT_MS);
    assert_int_equal(pthread_join(call.thread, NULL), 0);
    assert_int_equal(call.status.code, CT_OK);
}

/* Sends a good request with one more header line. */
static int send_with(const fixture *fx, const char *line) {
    char head[512];
    (void)snprintf(head, sizeof head, "POST /v1/score HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s",
                   strlen(GOOD), line, GOOD);
    const int fd = connect_to(fx);
    send_text(fd, head);
    return fd;
}

static int post_with(const fixture *fx, const char *line, char *out, size_t out_bytes) {
    return status_of(read_all(send_with(fx, line), out, out_bytes));
}

/* Scores as JSON wait in the queue that gRPC's calls wait in, for the same threads, and the port goes on meanwhile. */
static void scoring_waits_its_turn(void **state) {
    const fixture *fx = *state;
    char out[4096];
    int waiting[3];
    fake_model_hold(fx->model, true);
    for (size_t i = 0; i < 3; i++) {
        waiting[i] = send_with(fx, "");
        if (i < 2) fake_model_wait_runs(fx->model, i + 1);
    }
    while (look(fx).queued < 1) continue;
    assert_int_equal(look(fx).scoring, 3);
    assert_int_equal(status_of(get(fx, "/healthz", out, sizeof out)), 200);
    assert_int_equal(post_with(fx, "Grpc-Timeout: 1n\r\n", out, sizeof out), 429); /* it could not be in time behind the one that waits */
    assert_non_null(strstr(out, "would wait too long"));
    while (look(fx).refused[CT_REFUSED_SLOW] != 1) continue; /* counted behind the answer */
    fake_model_hold(fx->model, false);
    for (size_t i = 0; i < 3; i++) assert_int_equal(status_of(read_all(waiting[i], out, sizeof out)), 200);
    while (look(fx).scoring) continue;
    assert_int_equal(look(fx).ended[CT_OK], 3);
    assert_int_equal(fake_model_rows(fx->model), 3);
}

static void a_request_has_a_deadline_where_it_says_so(void **state) {
    const fixture *fx = *state;
    char out[4096], line[64];
    static const char *const wrong[] = {"", "100", "m", "1x", "1mm", "-1S", " 1 S", "123456789S"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        (void)snprintf(line, sizeof line, "Grpc-Timeout: %s\r\n", wrong[i]);
        assert_int_equal(post_with(fx, line, out, sizeof out), 400);
        assert_non_null(strstr(out, "Grpc-Timeout"));
    }
    static const char *const good[] = {"99999999H", "60M", "99999999S", "99999999m", "99999999u"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        (void)snprintf(line, sizeof line, "Grpc-Timeout: %s\r\n", good[i]);
        assert_int_equal(post_with(fx, line, out, sizeof out), 200);
    }
    const size_t rows = fake_model_rows(fx->model);
    assert_int_equal(post_with(fx, "Grpc-Timeout: 1n\r\n", out, sizeof out), 504);
    assert_non_null(strstr(out, "\"code\":\"DEADLINE_EXCEEDED\""));
    assert_int_equal(fake_model_rows(fx->model), rows);
}

static void scoring_needs_a_token_where_grpc_does(void **state) {
    const fixture *fx = *state;
    ct_status status = CT_STATUS_INIT;
    char out[4096];
    static const char *const tokens[] = {"secret-one", "secret-two"};
    assert_int_equal(post_with(fx, "", out, sizeof out), 200);
    MUST(ct_server_set_tokens(fx->server, tokens, 2, &status), status);
    assert_int_equal(post_with(fx, "Authorization: Bearer secret-one\r\n", out, sizeof out), 200);
    assert_int_equal(post_with(fx, "authorization: Bearer secret-two\r\n", out, sizeof out), 200);
    static const char *const wrong[] = {"",
                                        "Authorization: Bearer \r\n",
                                        "Authorization: Bearer secret-\r\n",
                                        "Authorization: Bearer secret-one2\r\n",
                                        "Authorization: Basic secret-one\r\n",
                                        "Authorization: secret-one\r\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(post_with(fx, wrong[i], out, sizeof out), 401);
        assert_non_null(strstr(out, "WWW-Authenticate: Bearer\r\n"));
        assert_non_null(strstr(out, "\"code\":\"UNAUTHENTICATED\""));
        assert_null(strstr(out, "secret"));
    }
    assert_int_equal(status_of(get(fx, "/healthz", out, sizeof out)), 200);
    MUST(ct_server_set_tokens(fx->server, NULL, 0, &status), status);
    assert_int_equal(post_with(fx, "", out, sizeof out), 200);
}

static void labels_are_escaped(void **state) {
    const fixture *fx = *state;
    char *out = malloc(1 << 20);
    (void)get(fx, "/metrics", out, 1 << 20);
    assert_non_null(strstr(out, "clicktower_build_info{version=\"9.8.7\"} 1\n"));
    assert_non_null(strstr(out, "clicktower_table_rows{model=\"say \\\"hi\\\"\",table=\"ids \\\"all\\\"\\\\\\n\"} 7\n"));
    assert_non_null(strstr(out, "clicktower_table_lookups_total{model=\"say \\\"hi\\\"\",table=\"ids \\\"all\\\"\\\\\\n\"} 10\n"));
    free(out);
}

static void bodies_are_bounded(void **state) {
    const fixture *fx = *state;
    char out[4096], body[MAX_BODY_BYTES + 2];
    assert_int_equal(status_of(post(fx, GOOD, out, sizeof out)), 200);
    memset(body, ' ', sizeof body);
    memcpy(body, GOOD, sizeof GOOD - 1);
    body[MAX_BODY_BYTES] = '\0';
    assert_int_equal(status_of(post(fx, body, out, sizeof out)), 200);
    body[MAX_BODY_BYTES] = ' ';
    body[MAX_BODY_BYTES + 1] = '\0';
    assert_int_equal(status_of(post(fx, body, out, sizeof out)), 413);
    assert_non_null(strstr(out, "larger than 1000 bytes"));
    /* In pieces, of a length that is not said beforehand. */
    const int fd = connect_to(fx);
    send_text(fd, "POST /v1/score HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const char *at = GOOD; *at != '\0'; at++) {
        const char chunk[] = {'1', '\r', '\n', *at, '\r', '\n', '\0'};
        send_text(fd, chunk);
    }
    send_text(fd, "0\r\n\r\n");
    assert_int_equal(status_of(read_all(fd, out, sizeof out)), 200);
    assert_non_null(strstr(out, "\"probabilities\":[0."));
}

static void bad_clients_harm_nobody(void **state) {
    const fixture *fx = *state;
    char out[4096];
    int idle[40];
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) { /* half of a request, and no more */
        idle[i] = connect_to(fx);
        send_text(idle[i], i % 3 == 0   ? "\r\n\r\n"
                           : i % 3 == 1 ? "GET /healthz HTT"
                                        : "POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{\"candid");
    }
    static const char *const broken[] = {"GARBAGE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                         "POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n{}",
                                         "POST /v1/score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const int fd = connect_to(fx);
        send_text(fd, broken[i]);
        (void)shutdown(fd, SHUT_WR);
        const int status = status_of(read_all(fd, out, sizeof out));
        assert_true(status == 0 || (status >= 400 && status < 600));
    }
    assert_int_equal(status_of(get(fx, "/healthz", out, sizeof out)), 200);
    assert_int_equal(status_of(post(fx, GOOD, out, sizeof out)), 200);
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) (void)close(idle[i]);
}

static void a_connection_may_ask_again(void **state) {
    const fixture *fx = *state;
    char out[4096];
    const int fd = connect_to(fx);
    send_text(fd, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    (void)read_all(fd, out, sizeof out);
    assert_non_null(strstr(out, "ok\n"));
    assert_non_null(strstr(out, "ready\n"));
}

static void wrong_addresses_are_refused(void **state) {
    const fixture *fx = *state;
    char taken[64];
    (void)snprintf(taken, sizeof taken, "127.0.0.1:%d", ct_admin_port(fx->admin));
    const struct {
        const char *listen;
        ct_code code;
        const char *word;
    } cases[] = {{taken, CT_UNAVAILABLE, "in use"},
                 {"no.such.host.invalid:1", CT_UNAVAILABLE, "no.such.host.invalid:1"},
                 {"127.0.0.1", CT_INVALID, "HOST:PORT"},
                 {":80", CT_INVALID, "HOST:PORT"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_status status = CT_STATUS_INIT;
        ct_admin *admin = NULL;
        const ct_admin_options options = {.listen = cases[i].listen, .server = fx->server, .version = ""};
        assert_int_equal(ct_admin_start(&options, &admin, &status), cases[i].code);
        assert_non_null(strstr(status.message, cases[i].word));
        assert_null(admin);
    }
    ct_status status = CT_STATUS_INIT;
    ct_admin *admin = NULL;
    const ct_admin_options options = {.listen = "[::1]:0", .server = fx->server, .version = ""};
    if (ct_admin_start(&options, &admin, &status) == CT_OK)
        assert_true(ct_admin_port(admin) > 0);
    else
        print_message("SKIP: no IPv6 here: %s\n", status.message);
    ct_admin_stop(admin);
    ct_admin_stop(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_server_that_goes_down_says_so_while_it_finishes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(scoring_waits_its_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_request_has_a_deadline_where_it_says_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(scoring_needs_a_token_where_grpc_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(labels_are_escaped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bodies_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_clients_harm_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_connection_may_ask_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_addresses_are_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
