/* More than can be served, and another model while requests run. The model is held up, so "while it computes" is a fact, and what a row is
 * believed to take is set by hand, so nothing here waits for time to pass except where a test says so. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* after them */
#include <cmocka.h>

#include "base/clock.h"
#include "serving/server_internal.h"
#include "tests/serving/fake_model.h"
#include "tests/serving/requests.h"

static const char SCORE[] = "/clicktower.v1.Scorer/Score", HEALTH[] = "/grpc.health.v1.Health/Check",
                  MODELS[] = "/clicktower.v1.Scorer/Models";
static const char SCHEMA[] =
    "name: shop\nformat: {separator: \"\\t\", columns: 2}\nfields:\n"
    "  - {name: label, kind: label, column: 1}\n"
    "  - {name: item, kind: id, column: 2, side: candidate, type: integer}\n";

/* No call has to wait so long, however slow the machine: what a row took there goes into what the server believes that it takes. */
enum { REQUESTS = 700, TIMEOUT_MS = 100000000, LONG_MS = 100000000, VERSIONS = 3 };

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

typedef struct fixture {
    ct_schema *schema;
    ct_model *models[VERSIONS];
    ct_server *server;
    ct_rpc_caller *caller;
    uint8_t *requests[REQUESTS + 1]; /* of that many rows */
    size_t bytes[REQUESTS + 1];
} fixture;

static int setup(void **state) {
    static fixture fx;
    ct_status status = CT_STATUS_INIT;
    MUST(ct_schema_parse(SCHEMA, strlen(SCHEMA), "shop.yaml", &fx.schema, &status), status);
    for (size_t n = 1; n <= REQUESTS; n++) {
        test_request r;
        test_request_init(&r);
        test_column *item = test_add(&r, false, "item");
        for (size_t i = 0; i < n; i++) test_integer(item, (int64_t)(i % 5));
        r.message.candidate_count = (uint32_t)n;
        fx.requests[n] = test_pack(&r, &fx.bytes[n]);
        test_request_deinit(&r);
    }
    *state = &fx;
    return 0;
}

static int teardown(void **state) {
    fixture *fx = *state;
    for (size_t n = 1; n <= REQUESTS; n++) free(fx->requests[n]);
    ct_schema_destroy(fx->schema);
    return 0;
}

static int each_setup(void **state) {
    fixture *fx = *state;
    const bool used[2] = {false, true};
    for (unsigned v = 0; v < VERSIONS; v++) {
        fx->models[v] = fake_model_create(fx->schema, used, 1);
        fake_model_set_version(fx->models[v], v);
    }
    return 0;
}

static void start(fixture *fx, size_t threads, size_t queue_calls, int64_t queue_ms) {
    ct_status status = CT_STATUS_INIT;
    const ct_server_model model = {"m", fx->models[0]};
    const ct_server_options options = {
        .listen = "127.0.0.1:0", .models = &model, .model_count = 1, .threads = threads, .queue_calls = queue_calls, .queue_ms = queue_ms};
    MUST(ct_server_start(&options, &fx->server, &status), status);
    char target[64];
    (void)snprintf(target, sizeof target, "127.0.0.1:%d", ct_server_port(fx->server));
    MUST(ct_rpc_caller_create(target, NULL, SCORE, 1, &fx->caller, &status), status);
}

static void stop(fixture *fx) {
    ct_rpc_caller_destroy(fx->caller);
    fx->caller = NULL;
    ct_server_stop(fx->server, TIMEOUT_MS);
    fx->server = NULL;
}

static int each_teardown(void **state) {
    fixture *fx = *state;
    for (size_t v = 0; v < VERSIONS; v++) fake_model_hold(fx->models[v], false);
    if (fx->server) stop(fx); /* a test has failed */
    for (size_t v = 0; v < VERSIONS; v++) ct_model_destroy(fx->models[v]);
    return 0;
}

/* Sends a request of that many rows, which is also its tag. */
static void send_rows(fixture *fx, size_t rows, int64_t timeout_ms) {
    ct_status status = CT_STATUS_INIT;
    MUST(ct_rpc_caller_start(fx->caller, fx->requests[rows], fx->bytes[rows], ct_clock_ns() + timeout_ms * 1000000, rows, &status), status);
}

static ct_rpc_result next(fixture *fx) {
    ct_rpc_result result;
    assert_true(ct_rpc_caller_next(fx->caller, INT64_MAX, &result));
    return result;
}

/* Tests ask until it is so: before each look, those that wait for the lock have their turn. */
static ct_server_stats stats_of(fixture *fx) {
    ct_server_stats stats;
    (void)sched_yield();
    ct_server_stats_get(fx->server, &stats);
    return stats;
}

static void wait_queued(fixture *fx, size_t count) {
    while (stats_of(fx).queued != count) continue;
}

/* From now on, until a call ends, the server believes that a row takes so long. */
static void set_row_ns(fixture *fx, double ns) {
    (void)pthread_mutex_lock(&fx->server->lock);
    fx->server->queue.row_ns = ns;
    (void)pthread_mutex_unlock(&fx->server->lock);
}

static void set_max_wait_ns(fixture *fx, int64_t ns) {
    (void)pthread_mutex_lock(&fx->server->lock);
    fx->server->queue.max_wait_ns = ns;
    (void)pthread_mutex_unlock(&fx->server->lock);
}

static double row_ns_of(fixture *fx) {
    (void)sched_yield();
    (void)pthread_mutex_lock(&fx->server->lock);
    const double ns = fx->server->queue.row_ns;
    (void)pthread_mutex_unlock(&fx->server->lock);
    return ns;
}

static ct_code plain_call(fixture *fx, const char *path, ct_status *status) {
    char target[64];
    (void)snprintf(target, sizeof target, "127.0.0.1:%d", ct_server_port(fx->server));
    ct_rpc_channel *channel = NULL;
    const uint8_t *reply = NULL;
    size_t bytes = 0;
    CT_TRY(ct_rpc_channel_create(target, NULL, &channel, status));
    (void)ct_rpc_channel_reserve(channel, 0);
    const ct_code code = ct_rpc_channel_call(channel, path, TIMEOUT_MS, true, &reply, &bytes, status);
    ct_rpc_channel_destroy(channel);
    return code;
}

/* One request computes, two wait; the one beyond is refused while the model is still held, and so is Health answered. */
static void test_queue_full(void **state) {
    fixture *fx = *state;
    start(fx, 1, 2, LONG_MS);
    fake_model_hold(fx->models[0], true);
    send_rows(fx, 10, TIMEOUT_MS);
    fake_model_wait_runs(fx->models[0], 1);
    send_rows(fx, 11, TIMEOUT_MS);
    wait_queued(fx, 1);
    send_rows(fx, 12, TIMEOUT_MS);
    wait_queued(fx, 2);
    for (size_t i = 0; i < 50; i++) {
        send_rows(fx, 13, TIMEOUT_MS);
        const ct_rpc_result refused = next(fx);
        assert_int_equal(refused.tag, 13);
        assert_int_equal(refused.code, CT_EXHAUSTED);
        assert_non_null(strstr(refused.message, "too many requests wait"));
    }
    ct_status status = CT_STATUS_INIT;
    MUST(plain_call(fx, HEALTH, &status), status);
    MUST(plain_call(fx, MODELS, &status), status);
    ct_server_stats stats = stats_of(fx);
    assert_int_equal(stats.queued, 2);
    assert_int_equal(stats.scoring, 3);
    assert_int_equal(stats.refused[CT_REFUSED_FULL], 50);
    fake_model_hold(fx->models[0], false);
    for (size_t rows = 10; rows <= 12; rows++) { /* in order */
        const ct_rpc_result answer = next(fx);
        assert_int_equal(answer.code, CT_OK);
        assert_int_equal(answer.tag, rows);
    }
    send_rows(fx, 14, TIMEOUT_MS);
    assert_int_equal(next(fx).code, CT_OK);
    ct_rpc_caller_destroy(fx->caller);
    fx->caller = NULL;
    while (stats_of(fx).scoring) continue;
    stats = stats_of(fx);
    assert_int_equal(stats.ended[CT_OK], 4);
    assert_int_equal(stats.ended[CT_EXHAUSTED], 50);
    assert_int_equal(stats.candidates, 10 + 11 + 12 + 14);
    assert_int_equal(stats.latency.count, 4);
    assert_int_equal(stats.waited.count, 4);
    assert_int_equal(fake_model_rows(fx->models[0]), 10 + 11 + 12 + 14);
    stop(fx);
}

/* Who would wait for more than half of his time is refused at once, though there is room; the others are answered in order. */
static void test_would_wait_too_long(void **state) {
    fixture *fx = *state;
    enum { FIRST = 40, SECOND = 41, SHORT_MS = 8000000 }; /* rows: too many to be computed together */
    start(fx, 1, 10, LONG_MS);
    fake_model_hold(fx->models[0], true);
    send_rows(fx, 1, TIMEOUT_MS);
    fake_model_wait_runs(fx->models[0], 1);
    set_row_ns(fx, 125e9);
    send_rows(fx, FIRST, SHORT_MS); /* an empty queue takes everything */
    wait_queued(fx, 1);
    send_rows(fx, SECOND, TIMEOUT_MS); /* 5,000 s until its turn, and it has ten times as many */
    wait_queued(fx, 2);
    send_rows(fx, 2, SHORT_MS); /* 10,125 s, and it has 8,000 */
    const ct_rpc_result result = next(fx);
    assert_int_equal(result.tag, 2);
    assert_int_equal(result.code, CT_EXHAUSTED);
    assert_non_null(strstr(result.message, "would wait too long"));
    while (stats_of(fx).refused[CT_REFUSED_SLOW] != 1) continue; /* counted behind the answer */
    fake_model_hold(fx->models[0], false);
    static const size_t order[] = {1, FIRST, SECOND};
    for (size_t i = 0; i < 3; i++) {
        const ct_rpc_result answer = next(fx);
        assert_int_equal(answer.code, CT_OK);
        assert_int_equal(answer.tag, order[i]);
    }
    assert_int_equal(fake_model_runs(fx->models[0]), 3);
    for (size_t i = 0; i < 3; i++) assert_int_equal(fake_model_run_rows(fx->models[0], i), order[i]);
    stop(fx);
}

/* What a row takes is measured, and an estimate that is far too high does not keep the server from finding out. */
static void test_estimate(void **state) {
    fixture *fx = *state;
    start(fx, 1, 10, LONG_MS);
    assert_true(row_ns_of(fx) == 0);
    send_rows(fx, 10, TIMEOUT_MS);
    assert_int_equal(next(fx).code, CT_OK);
    while (row_ns_of(fx) == 0) continue;
    set_row_ns(fx, 1e15);
    send_rows(fx, 10, TIMEOUT_MS);
    assert_int_equal(next(fx).code, CT_OK);
    while (row_ns_of(fx) == 1e15) continue;
    const double row_ns = row_ns_of(fx);
    assert_true(row_ns > 0 && row_ns < 1e13);
    stop(fx);
}

/* Who has waited too long is told so, though no thread is free. Here the 20 ms pass indeed; they are the limit once the first call
 * computes. */
static void test_waits_too_long(void **state) {
    fixture *fx = *state;
    start(fx, 1, 10, LONG_MS);
    fake_model_hold(fx->models[0], true);
    send_rows(fx, 1, TIMEOUT_MS);
    fake_model_wait_runs(fx->models[0], 1);
    set_max_wait_ns(fx, 20000000);
    send_rows(fx, 2, TIMEOUT_MS);
    const ct_rpc_result result = next(fx);
    assert_int_equal(result.tag, 2);
    assert_int_equal(result.code, CT_EXHAUSTED);
    assert_non_null(strstr(result.message, "waited too long"));
    fake_model_hold(fx->models[0], false);
    assert_int_equal(next(fx).code, CT_OK);
    while (stats_of(fx).scoring) continue; /* counted behind the answer */
    assert_int_equal(stats_of(fx).refused[CT_REFUSED_WAITED], 1);
    assert_int_equal(fake_model_rows(fx->models[0]), 1);
    stop(fx);
}

/* A call that waits leaves the queue before its deadline passes, while the model is still held, and is never computed. */
static void test_late_while_queued(void **state) {
    enum { HELD = 40 }; /* rows: too many for the thread that reads, so they are handed to another */
    fixture *fx = *state;
    start(fx, 1, 10, LONG_MS);
    ct_code code = CT_OK;
    /* On a slow machine the deadline may pass before the server has the call: again, with more time. */
    for (int64_t timeout_ms = 400; code != CT_EXHAUSTED; timeout_ms *= 2) {
        const size_t runs = fake_model_runs(fx->models[0]), rows = fake_model_rows(fx->models[0]);
        fake_model_hold(fx->models[0], true);
        send_rows(fx, HELD, TIMEOUT_MS);
        fake_model_wait_runs(fx->models[0], runs + 1);
        send_rows(fx, 2, timeout_ms);
        const ct_rpc_result result = next(fx);
        assert_int_equal(result.tag, 2);
        code = result.code;
        assert_true(code == CT_EXHAUSTED || code == CT_DEADLINE);
        while (code == CT_EXHAUSTED && stats_of(fx).scoring > 1) continue;
        if (code == CT_EXHAUSTED) assert_int_equal(stats_of(fx).queued, 0);
        fake_model_hold(fx->models[0], false);
        assert_int_equal(next(fx).code, CT_OK);
        if (code == CT_EXHAUSTED) assert_int_equal(fake_model_rows(fx->models[0]), rows + HELD);
        send_rows(fx, 3, TIMEOUT_MS); /* when it is answered, the server has seen what was sent before it */
        assert_int_equal(next(fx).code, CT_OK);
        while (stats_of(fx).scoring) continue;
    }
    stop(fx);
}

/* Requests of 1 .. REQUESTS rows, so many in all; half of them come while the model is held, so most of those are refused. */
enum { STORM = 200, STEP = 2 * REQUESTS / STORM, REFUSED = STORM / 4, QUEUE = 4, THREADS = 3 };

/* Ends a call: its rows, where they were computed; else it is counted as refused. */
static void end_of_storm(fixture *fx, size_t *computed, size_t *refused) {
    const ct_rpc_result result = next(fx);
    assert_true(result.code == CT_OK || result.code == CT_EXHAUSTED);
    if (result.code == CT_OK)
        *computed += (size_t)result.tag;
    else
        ++*refused;
}

/* A storm of small and large requests: every call ends, what is refused is not computed, and afterwards all is as before. */
static void test_storm(void **state) {
    fixture *fx = *state;
    start(fx, THREADS, QUEUE, LONG_MS);
    for (int round = 0; round < 3; round++) {
        const size_t before = fake_model_rows(fx->models[0]);
        const uint64_t refused_before = stats_of(fx).ended[CT_EXHAUSTED];
        size_t computed = 0, refused = 0;
        const size_t runs = fake_model_runs(fx->models[0]);
        fake_model_hold(fx->models[0], true);
        send_rows(fx, REQUESTS, TIMEOUT_MS); /* in blocks for all threads but the one that reads, which must not be held with them */
        fake_model_wait_runs(fx->models[0], runs + THREADS);
        for (size_t i = 0; i < STORM / 2; i++) send_rows(fx, 1 + i * STEP, TIMEOUT_MS);
        ct_server_stats stats;
        do stats = stats_of(fx);
        while (stats.ended[CT_EXHAUSTED] - refused_before < REFUSED && stats.queued <= QUEUE);
        assert_true(stats.queued <= QUEUE);
        fake_model_hold(fx->models[0], false);
        for (size_t i = 0; i < STORM / 2; i++) send_rows(fx, 1 + STEP / 2 + i * STEP, TIMEOUT_MS);
        for (size_t ended = 0; ended < 1 + STORM; ended++) end_of_storm(fx, &computed, &refused);
        assert_true(computed > 0 && refused >= REFUSED);
        assert_int_equal(fake_model_rows(fx->models[0]) - before, computed);
        while (stats_of(fx).scoring) continue;
        assert_int_equal(stats_of(fx).ended[CT_EXHAUSTED] - refused_before, refused);
        for (size_t i = 0; i < 20; i++) {
            send_rows(fx, 300, TIMEOUT_MS);
            assert_int_equal(next(fx).code, CT_OK);
        }
    }
    stop(fx);
}

/* --- another model --- */

typedef struct replacer {
    pthread_t thread;
    ct_server *server;
    ct_model *model;
    ct_code code;
    atomic_bool done;
} replacer;

static void *replace_main(void *argument) {
    replacer *r = argument;
    ct_status status = CT_STATUS_INIT;
    const ct_server_model model = {"m", r->model};
    r->code = ct_server_replace(r->server, &model, 1, NULL, NULL, &status);
    atomic_store(&r->done, true);
    return NULL;
}

/* The answer's version, and whether every row is that version's. */
static unsigned version_of(fixture *fx, const ct_rpc_result *result, size_t rows) {
    ct_arena arena;
    ct_arena_init(&arena, 0);
    ct_status status = CT_STATUS_INIT;
    ProtobufCMessage *message = NULL;
    MUST(ct_message_unpack(&arena, &clicktower__v1__score_response__descriptor, result->reply, result->reply_bytes, "answer", &message,
                           &status),
         status);
    const Clicktower__V1__ScoreResponse *answer = (const Clicktower__V1__ScoreResponse *)message;
    assert_int_equal(answer->model_version.len, 32);
    const char digit = (char)answer->model_version.data[31];
    const unsigned version = digit == 'f' ? 0 : (unsigned)(digit - '0');
    assert_true(version < VERSIONS);
    Clicktower__V1__ScoreRequest *request = NULL;
    const bool used[2] = {false, true};
    ct_decoder *decoder = NULL;
    ct_batch batch;
    MUST(ct_decoder_create(fx->schema, used, REQUESTS, &decoder, &status), status);
    MUST(ct_request_unpack(&arena, fx->requests[rows], fx->bytes[rows], &request, &status), status);
    MUST(ct_request_batch(decoder, &arena, request, &batch, &status), status);
    assert_int_equal(answer->outputs[0]->n_probabilities, rows);
    for (size_t r = 0; r < rows; r++) {
        float value;
        fake_model_logits(fx->models[version], &batch, r, &value);
        ct_probabilities(&value, &value, 1);
        assert_memory_equal(&answer->outputs[0]->probabilities[r], &value, sizeof value);
    }
    ct_decoder_destroy(decoder);
    ct_arena_deinit(&arena);
    return version;
}

/* A request of several blocks that has begun ends with its model, though another is served meanwhile; replacing returns after it. */
static void test_replace_while_it_computes(void **state) {
    fixture *fx = *state;
    start(fx, 2, 10, LONG_MS);
    fake_model_hold(fx->models[0], true);
    send_rows(fx, REQUESTS, TIMEOUT_MS);
    fake_model_wait_runs(fx->models[0], 2); /* two of three blocks: no thread is free */
    send_rows(fx, 7, TIMEOUT_MS);
    wait_queued(fx, 1);
    replacer r = {.server = fx->server, .model = fx->models[1]};
    assert_int_equal(pthread_create(&r.thread, NULL, replace_main, &r), 0);
    while (stats_of(fx).replaced == 0) continue;
    assert_false(atomic_load(&r.done));
    fake_model_hold(fx->models[0], false);
    bool old_seen = false, new_seen = false;
    for (size_t i = 0; i < 2; i++) {
        const ct_rpc_result result = next(fx);
        assert_int_equal(result.code, CT_OK);
        const unsigned version = version_of(fx, &result, (size_t)result.tag);
        assert_int_equal(version, result.tag == REQUESTS ? 0 : 1); /* the one that waited had not begun */
        *(version ? &new_seen : &old_seen) = true;
    }
    assert_true(old_seen && new_seen);
    assert_int_equal(pthread_join(r.thread, NULL), 0);
    assert_int_equal(r.code, CT_OK);
    /* The old one is ours alone now: destroying it hurts nobody. */
    ct_model_destroy(fx->models[0]);
    const bool used[2] = {false, true};
    fx->models[0] = fake_model_create(fx->schema, used, 1);
    send_rows(fx, 300, TIMEOUT_MS);
    const ct_rpc_result result = next(fx);
    assert_int_equal(version_of(fx, &result, 300), 1);
    stop(fx);
}

typedef struct swapper {
    pthread_t thread;
    fixture *fx;
    atomic_bool stop;
    size_t swaps;
} swapper;

static void *swap_main(void *argument) {
    swapper *s = argument;
    ct_status status = CT_STATUS_INIT;
    while (!atomic_load(&s->stop)) {
        const ct_server_model model = {"m", s->fx->models[s->swaps % VERSIONS]};
        if (ct_server_replace(s->fx->server, &model, 1, NULL, NULL, &status) != CT_OK) break;
        s->swaps++;
    }
    return NULL;
}

/* Swaps one after the other under load: no request fails, none mixes versions, every version is seen. */
static void test_replace_under_load(void **state) {
    fixture *fx = *state;
    start(fx, 3, 1000, LONG_MS);
    swapper s = {.fx = fx};
    assert_int_equal(pthread_create(&s.thread, NULL, swap_main, &s), 0);
    size_t seen[VERSIONS] = {0}, started = 0;
    for (; started < 16; started++) send_rows(fx, 1 + (started * 37) % REQUESTS, TIMEOUT_MS);
    for (size_t ended = 0; ended < started; ended++) {
        const ct_rpc_result result = next(fx);
        if (result.code != CT_OK) fail_msg("%s", result.message);
        seen[version_of(fx, &result, (size_t)result.tag)]++;
        const bool enough = ended > 300 && seen[0] && seen[1] && seen[2];
        if (!enough) {
            send_rows(fx, 1 + (started * 37) % REQUESTS, TIMEOUT_MS);
            started++;
        }
    }
    atomic_store(&s.stop, true);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_true(s.swaps > 2);
    print_message("%zu requests, %zu swaps\n", started, s.swaps);
    stop(fx);
}

/* What can't be served changes nothing. */
static void test_replace_refused(void **state) {
    fixture *fx = *state;
    start(fx, 1, 10, LONG_MS);
    ct_status status = CT_STATUS_INIT;
    const ct_server_model twice[] = {{"m", fx->models[1]}, {"m", fx->models[2]}};
    assert_int_equal(ct_server_replace(fx->server, twice, 2, NULL, NULL, &status), CT_INVALID);
    assert_int_equal(ct_server_replace(fx->server, twice, 0, NULL, NULL, &status), CT_INVALID);
    send_rows(fx, 3, TIMEOUT_MS);
    const ct_rpc_result result = next(fx);
    assert_int_equal(version_of(fx, &result, 3), 0);
    stop(fx);
}

/* --- small requests that wait --- */

/* What waits together is computed together, up to the one that is too large for that, and everybody gets the answers to his own rows. */
static void test_merge(void **state) {
    fixture *fx = *state;
    static const size_t sent[] = {2, 3, 4, 32, 33, 5, 6};
    static const size_t runs[] = {1, 2 + 3 + 4 + 32, 33, 5 + 6};
    enum { SENT = sizeof sent / sizeof *sent, RUNS = sizeof runs / sizeof *runs };
    start(fx, 1, 100, LONG_MS);
    fake_model_hold(fx->models[0], true);
    send_rows(fx, 1, TIMEOUT_MS);
    fake_model_wait_runs(fx->models[0], 1);
    for (size_t i = 0; i < SENT; i++) {
        send_rows(fx, sent[i], TIMEOUT_MS);
        wait_queued(fx, i + 1);
    }
    fake_model_hold(fx->models[0], false);
    for (size_t i = 0; i < SENT + 1; i++) {
        const ct_rpc_result result = next(fx);
        assert_int_equal(result.code, CT_OK);
        assert_int_equal(version_of(fx, &result, (size_t)result.tag), 0);
    }
    assert_int_equal(fake_model_runs(fx->models[0]), RUNS);
    for (size_t i = 0; i < RUNS; i++) assert_int_equal(fake_model_run_rows(fx->models[0], i), runs[i]);
    while (stats_of(fx).scoring) continue;
    assert_int_equal(stats_of(fx).merged_groups, 2);
    assert_int_equal(stats_of(fx).merged_requests, 6);
    assert_int_equal(stats_of(fx).ended[CT_OK], SENT + 1);
    stop(fx);
}

/* One of those that wait is late, one is no request: the others do not notice. */
static void test_merge_with_bad_ones(void **state) {
    fixture *fx = *state;
    start(fx, 1, 100, LONG_MS);
    fake_model_hold(fx->models[0], true);
    send_rows(fx, 1, TIMEOUT_MS);
    fake_model_wait_runs(fx->models[0], 1);
    send_rows(fx, 2, TIMEOUT_MS);
    ct_status status = CT_STATUS_INIT;
    wait_queued(fx, 1);
    MUST(ct_rpc_caller_start(fx->caller, (const uint8_t *)"\xff", 1, ct_clock_ns() + (int64_t)TIMEOUT_MS * 1000000, 100, &status), status);
    wait_queued(fx, 2);
    send_rows(fx, 3, TIMEOUT_MS);
    wait_queued(fx, 3);
    fake_model_hold(fx->models[0], false);
    for (size_t i = 0; i < 4; i++) {
        const ct_rpc_result result = next(fx);
        assert_int_equal(result.code, result.tag == 100 ? CT_INVALID : CT_OK);
        if (result.code == CT_OK) assert_int_equal(version_of(fx, &result, (size_t)result.tag), 0);
    }
    assert_int_equal(fake_model_runs(fx->models[0]), 2);
    stop(fx);
}

/* A request of less than a block is cut where a thread is free. */
static void test_share_small(void **state) {
    fixture *fx = *state;
    start(fx, 2, 100, LONG_MS);
    while (fake_model_threads(fx->models[0]) < 2) { /* a thread that has not begun to wait yet does not count as free */
        fake_model_hold(fx->models[0], true);
        const size_t runs = fake_model_runs(fx->models[0]);
        send_rows(fx, 100, TIMEOUT_MS);
        fake_model_wait_runs(fx->models[0], runs + 1);
        const int64_t limit = ct_clock_ns() + 1000000000;
        while (fake_model_threads(fx->models[0]) < 2 && ct_clock_ns() < limit) (void)sched_yield();
        fake_model_hold(fx->models[0], false);
        const ct_rpc_result result = next(fx);
        assert_int_equal(result.code, CT_OK);
        assert_int_equal(version_of(fx, &result, 100), 0);
    }
    stop(fx);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, each_setup, each_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        EACH(test_queue_full),      EACH(test_would_wait_too_long),       EACH(test_estimate),
        EACH(test_waits_too_long),  EACH(test_late_while_queued),         EACH(test_storm),
        EACH(test_merge),           EACH(test_merge_with_bad_ones),       EACH(test_share_small),
        EACH(test_replace_refused), EACH(test_replace_while_it_computes), EACH(test_replace_under_load),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
