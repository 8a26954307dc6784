/* The server and the client over a real socket, with a model that counts and can be held up (fake_model.h). Nothing here waits for time to
 * pass: a held model makes "while it is computing" a fact. */
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
/* after them */
#include <cmocka.h>

#include "base/clock.h"
#include "base/math.h"
#include "base/random.h"
#include "data/block_file.h"
#include "data/reader.h"
#include "proto/health.pb-c.h"
#include "serving/client.h"
#include "serving/rpc.h"
#include "serving/server.h"
#include "tests/base/temp.h"
#include "tests/serving/fake_model.h"
#include "tests/serving/requests.h"

static const char SCORE[] = "/clicktower.v1.Scorer/Score", HEALTH[] = "/grpc.health.v1.Health/Check";

#define FIELDS                                                                                         \
    "  - {name: price, kind: number, column: 2, side: candidate}\n"                                    \
    "  - {name: user, kind: id, column: 3, side: context, type: text}\n"                               \
    "  - {name: item, kind: id, column: 4, side: candidate, type: integer}\n"                          \
    "  - {name: likes, kind: id, column: 5, side: context, type: integer, separator: \",\", max: 3}\n" \
    "  - {name: item_text, kind: vector, of: item, file: text.npy}\n"                                  \
    "  - {name: spare, kind: number, column: 6, side: candidate}\n"
static const char SCHEMA[] =
    "name: shop\nformat: {separator: \"\\t\", columns: 6}\nfields:\n"
    "  - {name: label, kind: label, column: 1}\n" FIELDS;

enum { LOG_ROWS = 2300, TIMEOUT_MS = 60000 };

typedef struct fixture {
    ct_schema *schema;
    ct_model *model, *other; /* `other` has two outputs */
    ct_server *server;
    char target[64];
    char *folder, *log;
    float *expected; /* (LOG_ROWS) probabilities of `log`'s rows */
} fixture;

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

static void write_log(const char *path) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (uint64_t r = 0; r < LOG_ROWS; r++) {
        const uint64_t user = ct_random_u64(1, CT_PLACE_TEST, 0, r / 40, 0) % 50;
        char price[32] = "";
        if (r % 5) (void)snprintf(price, sizeof price, "%g", (double)(r % 100) / 8);
        (void)fprintf(file, "%d\t%s\tuser%d\t%d\t%d,,%d,3,4\t0%s", (int)(r % 2), price, (int)user, (int)(r % 997) - 20, (int)user,
                      (int)(user * user), r % 7 == 0 ? "\r\n\n" : "\n");
    }
    assert_int_equal(fclose(file), 0);
}

/* The probabilities of a log's rows, read by the text reader: what `eval --predictions` would give. */
static float *expected_of(const fixture *fx, const char *path, size_t rows) {
    ct_status status = CT_STATUS_INIT;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    options.sources = &path;
    options.source_count = 1;
    options.max_bad_rows = 0;
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    float *out = malloc(rows * sizeof *out);
    size_t at = 0;
    MUST(ct_reader_open(fx->schema, &options, &reader, &status), status);
    ct_code code;
    while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        for (size_t r = 0; r < batch->rows; r++) fake_model_logits(fx->model, batch, r, &out[at++]);
        ct_reader_release(reader, batch);
    }
    assert_int_equal(code, CT_END);
    assert_int_equal(at, rows);
    ct_reader_close(reader);
    ct_sigmoid_f32(out, out, rows);
    return out;
}

static void start(fixture *fx, size_t threads) {
    ct_status status = CT_STATUS_INIT;
    const ct_server_model models[] = {{"first", fx->model}, {"second", fx->other}};
    const ct_server_options options = {
        .listen = "127.0.0.1:0", .models = models, .model_count = 2, .threads = threads, .max_candidates = 5000};
    MUST(ct_server_start(&options, &fx->server, &status), status);
    assert_true(ct_server_port(fx->server) > 0);
    (void)snprintf(fx->target, sizeof fx->target, "127.0.0.1:%d", ct_server_port(fx->server));
}

static void stop(fixture *fx) {
    ct_server_stop(fx->server, TIMEOUT_MS);
    fx->server = NULL;
}

static int setup(void **state) {
    static fixture fx;
    ct_status status = CT_STATUS_INIT;
    MUST(ct_schema_parse(SCHEMA, strlen(SCHEMA), "shop.yaml", &fx.schema, &status), status);
    fx.folder = temp_folder();
    fx.log = temp_path(fx.folder, "log.tsv");
    write_log(fx.log);
    *state = &fx;
    return 0;
}

static int teardown(void **state) {
    fixture *fx = *state;
    free(fx->log);
    temp_remove(fx->folder);
    ct_schema_destroy(fx->schema);
    return 0;
}

static int each_setup(void **state) {
    fixture *fx = *state;
    bool used[16] = {false};
    for (size_t f = 0; f < fx->schema->field_count; f++) {
        const char *name = fx->schema->fields[f].name;
        used[f] = strcmp(name, "label") != 0 && strcmp(name, "spare") != 0;
    }
    fx->model = fake_model_create(fx->schema, used, 1);
    fx->other = fake_model_create(fx->schema, used, 2);
    if (!fx->expected) fx->expected = expected_of(fx, fx->log, LOG_ROWS);
    return 0;
}

static int each_teardown(void **state) {
    fixture *fx = *state;
    if (fx->server) { /* a test has failed */
        fake_model_hold(fx->model, false);
        stop(fx);
    }
    free(fx->expected);
    fx->expected = NULL;
    ct_model_destroy(fx->model);
    ct_model_destroy(fx->other);
    return 0;
}

/* --- asking --- */

typedef struct answers {
    float *values;
    size_t count;
} answers;

static ct_code take_answer(void *context, const float *probabilities, size_t count, ct_status *status) {
    (void)status;
    answers *a = context;
    a->values = realloc(a->values, (a->count + count) * sizeof *a->values);
    memcpy(a->values + a->count, probabilities, count * sizeof *a->values);
    a->count += count;
    return CT_OK;
}

static ct_code score(const fixture *fx, const ct_schema *schema, const char *path, size_t per_request, bool context, int64_t max_rows,
                     int64_t timeout_ms, answers *out, ct_status *status) {
    ct_client *client = NULL;
    CT_TRY(ct_client_create(fx->target, NULL, &client, status));
    const ct_client_rows rows = {.schema = schema,
                                 .sources = &path,
                                 .source_count = 1,
                                 .rows_per_request = per_request,
                                 .context_columns = context,
                                 .timeout_ms = timeout_ms,
                                 .max_rows = max_rows};
    int64_t scored = -1;
    const ct_code code = ct_client_score(client, &rows, take_answer, out, &scored, status);
    if (code == CT_OK) assert_int_equal(scored, out->count);
    ct_client_destroy(client);
    return code;
}

/* A score call in a thread of its own. */
typedef struct asker {
    pthread_t thread;
    const fixture *fx;
    size_t per_request;
    int64_t rows, timeout_ms;
    answers answers;
    ct_code code;
    ct_status status;
} asker;

static void *ask_main(void *argument) {
    asker *a = argument;
    a->status = (ct_status)CT_STATUS_INIT;
    a->code = score(a->fx, a->fx->schema, a->fx->log, a->per_request, false, a->rows, a->timeout_ms, &a->answers, &a->status);
    return NULL;
}

static void ask(asker *a, const fixture *fx, size_t rows, int64_t timeout_ms) {
    *a = (asker){.fx = fx, .per_request = rows, .rows = (int64_t)rows, .timeout_ms = timeout_ms};
    assert_int_equal(pthread_create(&a->thread, NULL, ask_main, a), 0);
}

static void ask_join(asker *a) {
    assert_int_equal(pthread_join(a->thread, NULL), 0);
    if (a->code != CT_OK) print_message("%s: %s\n", ct_code_name(a->code), a->status.message);
    if (a->code == CT_OK) {
        assert_int_equal(a->answers.count, a->rows);
        assert_memory_equal(a->answers.values, a->fx->expected, a->answers.count * sizeof(float));
    }
    free(a->answers.values);
}

/* One call with given bytes. */
static ct_code raw_call(const fixture *fx, const char *path, const void *bytes, size_t count, ct_arena *arena,
                        const ProtobufCMessageDescriptor *type, ProtobufCMessage **out, ct_status *status) {
    ct_rpc_channel *channel = NULL;
    const uint8_t *reply = NULL;
    size_t reply_bytes = 0;
    CT_TRY(ct_rpc_channel_create(fx->target, NULL, &channel, status));
    uint8_t *memory = ct_rpc_channel_reserve(channel, count);
    if (count) memcpy(memory, bytes, count);
    ct_code code = ct_rpc_channel_call(channel, path, TIMEOUT_MS, true, &reply, &reply_bytes, status);
    if (code == CT_OK && out) code = ct_message_unpack(arena, type, reply, reply_bytes, "answer", out, status);
    ct_rpc_channel_destroy(channel);
    return code;
}

static ct_code health(const fixture *fx, const char *service, Grpc__Health__V1__HealthCheckResponse__ServingStatus *out,
                      ct_status *status) {
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = ct_text_data(service);
    uint8_t bytes[256];
    const size_t count = grpc__health__v1__health_check_request__pack(&request, bytes);
    ct_arena arena;
    ct_arena_init(&arena, 0);
    ProtobufCMessage *message = NULL;
    const ct_code code = raw_call(fx, HEALTH, bytes, count, &arena, &grpc__health__v1__health_check_response__descriptor, &message, status);
    if (code == CT_OK) *out = ((Grpc__Health__V1__HealthCheckResponse *)message)->status;
    ct_arena_deinit(&arena);
    return code;
}

/* --- tests --- */

static void test_scores_are_those_of_the_log(void **state) {
    fixture *fx = *state;
    static const size_t sizes[] = {1, 7, 256, 257, 1000, 2300};
    static const size_t threads[] = {1, 3};
    for (size_t t = 0; t < 2; t++) {
        start(fx, threads[t]);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            for (int context = 0; context < 2; context++) {
                ct_status status = CT_STATUS_INIT;
                answers got = {NULL, 0};
                MUST(score(fx, fx->schema, fx->log, sizes[i], context != 0, -1, TIMEOUT_MS, &got, &status), status);
                assert_int_equal(got.count, LOG_ROWS);
                assert_memory_equal(got.values, fx->expected, LOG_ROWS * sizeof(float));
                free(got.values);
            }
        }
        stop(fx);
    }
}

/* While the model is held, every worker gets a block of one request. */
static void test_large_request_uses_all_workers(void **state) {
    fixture *fx = *state;
    start(fx, 4);
    fake_model_hold(fx->model, true);
    asker a;
    ask(&a, fx, 2300, TIMEOUT_MS); /* 9 blocks */
    fake_model_wait_runs(fx->model, 4);
    fake_model_hold(fx->model, false);
    ask_join(&a);
    assert_int_equal(a.code, CT_OK);
    assert_int_equal(fake_model_threads(fx->model), 4);
    assert_int_equal(fake_model_runs(fx->model), 9);
    assert_int_equal(fake_model_rows(fx->model), 2300);
    /* Several large ones at once, and the memory of each goes round. */
    asker many[6];
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < 6; i++) ask(&many[i], fx, 300 + 331 * i, TIMEOUT_MS);
        for (size_t i = 0; i < 6; i++) ask_join(&many[i]);
        for (size_t i = 0; i < 6; i++) assert_int_equal(many[i].code, CT_OK);
    }
    stop(fx);
}

static void test_answer_fields(void **state) {
    fixture *fx = *state;
    start(fx, 1);
    ct_arena arena;
    ct_arena_init(&arena, 0);
    ct_status status = CT_STATUS_INIT;
    test_request r;
    test_request_init(&r);
    test_token(test_add(&r, true, "user"), "anna");
    test_column *likes = test_add(&r, true, "likes");
    test_length(likes, 0);
    test_column *price = test_add(&r, false, "price"), *item = test_add(&r, false, "item");
    for (int i = 0; i < 3; i++) {
        test_number(price, (float)i);
        test_integer(item, i);
    }
    r.message.request_id = ct_text_data("r-\xc3\xa9-1");
    r.message.model = ct_text_data("second");
    r.message.logits = true;
    size_t count = 0;
    uint8_t *bytes = test_pack(&r, &count);
    ProtobufCMessage *message = NULL;
    MUST(raw_call(fx, SCORE, bytes, count, &arena, &clicktower__v1__score_response__descriptor, &message, &status), status);
    const Clicktower__V1__ScoreResponse *answer = (const Clicktower__V1__ScoreResponse *)message;
    assert_int_equal(answer->request_id.len, 6);
    assert_memory_equal(answer->request_id.data, "r-\xc3\xa9-1", 6);
    assert_memory_equal(answer->model.data, "second", 6);
    assert_int_equal(answer->model_version.len, 32);
    assert_int_equal(answer->n_outputs, 2);
    assert_memory_equal(answer->outputs[0]->name.data, "click", 5);
    assert_memory_equal(answer->outputs[1]->name.data, "second", 6);
    ct_batch batch;
    ct_decoder *decoder = NULL;
    bool used[16] = {false};
    for (size_t f = 0; f < fx->schema->field_count; f++) used[f] = ct_model_uses_field(fx->other, f);
    Clicktower__V1__ScoreRequest *unpacked = NULL;
    MUST(ct_decoder_create(fx->schema, used, 10, &decoder, &status), status);
    MUST(ct_request_unpack(&arena, bytes, count, &unpacked, &status), status);
    MUST(ct_request_batch(decoder, &arena, unpacked, &batch, &status), status);
    for (size_t row = 0; row < 3; row++) {
        float logits[2];
        fake_model_logits(fx->other, &batch, row, logits);
        for (size_t o = 0; o < 2; o++) {
            assert_int_equal(answer->outputs[o]->n_logits, 3);
            assert_int_equal(answer->outputs[o]->n_probabilities, 3);
            assert_true(answer->outputs[o]->logits[row] == logits[o]);
            assert_true(fabsf(answer->outputs[o]->probabilities[row] - 1 / (1 + expf(-logits[o]))) < 1e-6f);
        }
    }
    ct_decoder_destroy(decoder);
    free(bytes);
    /* The first model where none is named; no logits where none are asked for. */
    r.message.model = ct_text_data("");
    r.message.logits = false;
    bytes = test_pack(&r, &count);
    MUST(raw_call(fx, SCORE, bytes, count, &arena, &clicktower__v1__score_response__descriptor, &message, &status), status);
    answer = (const Clicktower__V1__ScoreResponse *)message;
    assert_memory_equal(answer->model.data, "first", 5);
    assert_int_equal(answer->n_outputs, 1);
    assert_int_equal(answer->outputs[0]->n_logits, 0);
    assert_int_equal(answer->outputs[0]->n_probabilities, 3);
    free(bytes);
    r.message.model = ct_text_data("third");
    bytes = test_pack(&r, &count);
    assert_int_equal(raw_call(fx, SCORE, bytes, count, &arena, NULL, NULL, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, "third"));
    free(bytes);
    test_request_deinit(&r);
    ct_arena_deinit(&arena);
    stop(fx);
}

static void test_models_and_health(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    ct_status status = CT_STATUS_INIT;
    ct_client *client = NULL;
    json_t *all = NULL;
    MUST(ct_client_create(fx->target, NULL, &client, &status), status);
    MUST(ct_client_models(client, TIMEOUT_MS, &all, &status), status);
    char *text = json_dumps(all, JSON_COMPACT);
#define FEATURE(name, kind, side, type, max) \
    "{\"name\":\"" name "\",\"kind\":\"" kind "\",\"side\":\"" side "\",\"type\":\"" type "\",\"max_values\":" max "}"
#define MODEL(name, outputs)                                                                                                         \
    "{\"name\":\"" name                                                                                                              \
    "\",\"version\":\"ffffffffffffffffffffffffffffffff\",\"schema\":\"shop\",\"architecture\":\"lr\",\"rows\":1234,"                 \
    "\"step\":5,\"created_unix_ms\":1700000000123,\"trained_instruction_set\":\"fake\",\"instruction_set\":\"none\",\"precision\":"  \
    "\"bf16\","                                                                                                                      \
    "\"features\":[" FEATURE("price", "number", "candidate", "", "1") "," FEATURE("user", "id", "context", "text", "1") "," FEATURE( \
        "item", "id", "candidate", "integer", "1") "," FEATURE("likes", "id", "context", "integer", "3") "],\"outputs\":[" outputs "]}"
    assert_string_equal(text, "{\"models\":[" MODEL("first", "\"click\"") "," MODEL("second", "\"click\",\"second\"") "]}");
    free(text);
    json_decref(all);
    ct_client_destroy(client);

    Grpc__Health__V1__HealthCheckResponse__ServingStatus serving = 0;
    MUST(health(fx, "", &serving, &status), status);
    assert_int_equal(serving, GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING);
    serving = 0;
    MUST(health(fx, "clicktower.v1.Scorer", &serving, &status), status);
    assert_int_equal(serving, GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING);
    assert_int_equal(health(fx, "clicktower.v1.Scorers", &serving, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, "clicktower.v1.Scorers"));
    stop(fx);
}

static void test_refusals_over_the_wire(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(raw_call(fx, "/clicktower.v1.Scorer/Guess", "", 0, NULL, NULL, NULL, &status), CT_UNSUPPORTED);
    assert_non_null(strstr(status.message, "/clicktower.v1.Scorer/Guess"));
    assert_non_null(strstr(status.message, fx->target));
    assert_int_equal(raw_call(fx, SCORE, "\xff\xff\xff", 3, NULL, NULL, NULL, &status), CT_INVALID);
    assert_int_equal(raw_call(fx, SCORE, "", 0, NULL, NULL, NULL, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "no candidates"));
    const size_t large = 16 * 1024 * 1024 + 1;
    uint8_t *bytes = calloc(1, large);
    assert_int_equal(raw_call(fx, SCORE, bytes, large, NULL, NULL, NULL, &status), CT_EXHAUSTED);
    free(bytes);
    uint8_t noise[200];
    for (uint64_t n = 0; n < 300; n++) {
        for (uint32_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)ct_random_u64(3, CT_PLACE_TEST, 0, n, i);
        const ct_code code = raw_call(fx, n % 2 ? SCORE : HEALTH, noise, n % sizeof noise, NULL, NULL, NULL, &status);
        assert_true(code == CT_INVALID || (code == CT_OK && n % 2 == 0) || code == CT_NOT_FOUND);
    }
    answers got = {NULL, 0};
    MUST(score(fx, fx->schema, fx->log, 256, false, 256, TIMEOUT_MS, &got, &status), status);
    free(got.values);
    stop(fx);
}

/* --- HTTP/2 by hand (RFC 7540), where a client must do what gRPC's own would not --- */

static int connect_to(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Says hello and waits for the server's. */
static int connect_http2(int port) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    const int fd = connect_to(port);
    assert_int_equal(write(fd, preface, sizeof preface - 1), sizeof preface - 1);
    char settings[9];
    assert_int_equal(recv(fd, settings, sizeof settings, MSG_WAITALL), sizeof settings);
    return fd;
}

enum { HTTP2_DATA = 0, HTTP2_HEADERS = 1, HTTP2_RESET = 3, HTTP2_PING = 6, END_STREAM = 1, END_HEADERS = 4 };

static size_t put_frame(uint8_t *out, int type, int flags, uint32_t stream, const void *payload, size_t bytes) {
    const uint8_t head[9] = {(uint8_t)(bytes >> 16),  (uint8_t)(bytes >> 8),   (uint8_t)bytes,         (uint8_t)type,  (uint8_t)flags,
                             (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head, payload, bytes);
    return sizeof head + bytes;
}

/* HPACK: a literal that is not indexed. */
static size_t put_header(uint8_t *out, const char *name, const char *value) {
    const size_t n = strlen(name), v = strlen(value);
    out[0] = 0;
    out[1] = (uint8_t)n;
    memcpy(out + 2, name, n);
    out[2 + n] = (uint8_t)v;
    memcpy(out + 3 + n, value, v);
    return 3 + n + v;
}

/* A Score request and, right behind it, its cancellation and a ping, in one piece. */
static void send_and_cancel(int fd, const uint8_t *message, size_t bytes) {
    uint8_t out[2048], headers[512], data[1024] = {0, 0, 0, (uint8_t)(bytes >> 8), (uint8_t)bytes};
    assert_true(bytes + 5 <= sizeof data);
    size_t h = put_header(headers, ":method", "POST"), at = 0;
    h += put_header(headers + h, ":scheme", "http");
    h += put_header(headers + h, ":path", SCORE);
    h += put_header(headers + h, ":authority", "test");
    h += put_header(headers + h, "te", "trailers");
    h += put_header(headers + h, "content-type", "application/grpc");
    memcpy(data + 5, message, bytes);
    at += put_frame(out + at, HTTP2_HEADERS, END_HEADERS, 1, headers, h);
    at += put_frame(out + at, HTTP2_DATA, END_STREAM, 1, data, bytes + 5);
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

/* One worker, held with A, while B comes and is cancelled. C, behind both, is answered; B is never computed. */
static void test_cancelled_request_is_not_computed(void **state) {
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
    ask(&a, fx, 10, TIMEOUT_MS);
    fake_model_wait_runs(fx->model, 2);
    send_and_cancel(fd, bytes, count);
    fake_model_hold(fx->model, false);
    ask_join(&a);
    assert_int_equal(a.code, CT_OK);
    wait_for_pong(fd);
    ask(&c, fx, 3, TIMEOUT_MS);
    ask_join(&c);
    assert_int_equal(c.code, CT_OK);
    stop(fx);
    assert_int_equal(fake_model_rows(fx->model), 1 + 10 + 3);
    (void)close(fd);
    free(bytes);
    test_request_deinit(&r);
}

/* Of a large request whose deadline passes in its first blocks, no other block is computed. */
static void test_late_request_stops_between_blocks(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    fake_model_hold(fx->model, true);
    asker a;
    ask(&a, fx, 2300, 300);
    fake_model_wait_runs(fx->model, 2); /* both workers are held; the server has had the request for some time */
    const int64_t late = ct_clock_ns() + 400 * 1000000;
    ask_join(&a);
    assert_int_equal(a.code, CT_DEADLINE);
    while (ct_clock_ns() < late) continue; /* now the deadline has passed by the server's clock, too */
    fake_model_hold(fx->model, false);
    stop(fx);
    assert_int_equal(fake_model_rows(fx->model), 2 * 256);
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

/* Idle clients, one that speaks gRPC, one that has never said a word and one that has only said hello, do not use up the grace. */
static void test_idle_stop_does_not_wait(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    ct_status status = CT_STATUS_INIT;
    ct_client *client = NULL;
    json_t *models = NULL;
    MUST(ct_client_create(fx->target, NULL, &client, &status), status);
    MUST(ct_client_models(client, TIMEOUT_MS, &models, &status), status);
    json_decref(models);
    const int silent = connect_to(ct_server_port(fx->server)), hello = connect_http2(ct_server_port(fx->server));
    const int64_t before = ct_clock_ns();
    ct_server_stop(fx->server, 600 * 1000);
    fx->server = NULL;
    const double seconds = (double)(ct_clock_ns() - before) * 1e-9;
    print_message("stopped in %.3f s\n", seconds);
    assert_true(seconds < 10); /* a second is meant; gRPC by itself gives the one that said hello 20 s */
    assert_int_equal(ct_client_models(client, 200, &models, &status), CT_UNAVAILABLE);
    ct_client_destroy(client);
    (void)close(silent);
    (void)close(hello);
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

/* --- the client's own refusals --- */

static const char *write_text(const fixture *fx, const char *text, size_t bytes, char **out_path) {
    *out_path = temp_path(fx->folder, "text.tsv");
    FILE *file = fopen(*out_path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    return *out_path;
}

static void test_client_refuses_bad_rows(void **state) {
    fixture *fx = *state;
    start(fx, 1);
    static const struct {
        const char *text;
        const char *words[2];
    } bad[] = {
        {"1\t2\tu\t3\t4\t5\n\n1\t2\tu\t3\t4\n", {"text.tsv:3", "5 columns instead of 6"}},
        {"1\t2\tu\t3\t4\t5\t6\n", {"text.tsv:1", "7 columns instead of 6"}},
        {"2\t2\tu\t3\t4\t5\n", {"text.tsv:1", "label"}},
        {"\t2\tu\t3\t4\t5\n", {"text.tsv:1", "label"}},
        {"1\t2\tu\t3\t4\t5\r\n1\tx\tu\t3\t4\t5\r\n", {"text.tsv:2", "price"}},
        {"1\tnan\tu\t3\t4\t5\n", {"text.tsv:1", "price"}},
        {"1\t2\tu\t3.5\t4\t5\n", {"text.tsv:1", "item"}},
        {"1\t2\tu\t3\t4;5\t5\n", {"likes", "4;5"}}, /* several values: the server says so */
    };
    ct_status status = CT_STATUS_INIT;
    answers got = {NULL, 0};
    char *path = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        (void)write_text(fx, bad[i].text, strlen(bad[i].text), &path);
        if (score(fx, fx->schema, path, 256, false, -1, TIMEOUT_MS, &got, &status) != CT_INVALID) fail_msg("%zu: %s", i, status.message);
        for (size_t w = 0; w < 2; w++)
            if (!strstr(status.message, bad[i].words[w])) fail_msg("%zu: \"%s\" lacks %s", i, status.message, bad[i].words[w]);
        free(path);
    }
    assert_int_equal(score(fx, fx->schema, write_text(fx, "1\t2\tu\0\t3\t4\t5\n", 14, &path), 256, false, -1, TIMEOUT_MS, &got, &status),
                     CT_INVALID);
    assert_non_null(strstr(status.message, "NUL"));
    free(path);
    assert_int_equal(score(fx, fx->schema, "/nowhere/log.tsv", 256, false, -1, TIMEOUT_MS, &got, &status), CT_NOT_FOUND);
    assert_int_equal(got.count, 0);
    free(got.values);
    got = (answers){NULL, 0};
    MUST(score(fx, fx->schema, write_text(fx, "\n\n", 2, &path), 256, false, -1, TIMEOUT_MS, &got, &status), status);
    assert_int_equal(got.count, 0);
    free(path);
    MUST(score(fx, fx->schema, fx->log, 100, true, 150, TIMEOUT_MS, &got, &status), status); /* max_rows */
    assert_int_equal(got.count, 150);
    free(got.values);

    path = temp_path(fx->folder, "rows.ctb");
    ct_block_writer *writer = NULL;
    MUST(ct_block_writer_open(path, fx->schema, &writer, &status), status);
    MUST(ct_block_writer_commit(writer, &status), status);
    assert_int_equal(score(fx, fx->schema, path, 256, false, -1, TIMEOUT_MS, &got, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "rows.ctb is a block file"));
    free(path);
    stop(fx);
    got = (answers){NULL, 0};
    assert_int_equal(score(fx, fx->schema, fx->log, 256, false, -1, TIMEOUT_MS, &got, &status), CT_UNAVAILABLE); /* nobody there */
    assert_non_null(strstr(status.message, fx->target));
}

/* A header's names decide, in each source anew. */
static void test_client_with_header(void **state) {
    fixture *fx = *state;
    start(fx, 1);
    static const char text[] =
        "name: shop\nformat: {separator: \"\\t\", header: true}\nfields:\n"
        "  - {name: label, kind: label, column: l}\n"
        "  - {name: price, kind: number, column: p, side: candidate}\n"
        "  - {name: user, kind: id, column: u, side: context, type: text}\n"
        "  - {name: item, kind: id, column: i, side: candidate, type: integer}\n"
        "  - {name: likes, kind: id, column: k, side: context, type: integer, separator: \",\", max: 3}\n"
        "  - {name: spare, kind: number, column: s, side: candidate}\n";
    ct_schema *schema = NULL;
    ct_status status = CT_STATUS_INIT;
    MUST(ct_schema_parse(text, strlen(text), "header.yaml", &schema, &status), status);
    char *plain = NULL, *headed = temp_path(fx->folder, "headed.tsv"), *other = temp_path(fx->folder, "other.tsv");
    (void)write_text(fx, "1\t2.5\tu\t3\t4,5\t0\n0\t\tv\t-7\t\t1\n", strlen("1\t2.5\tu\t3\t4,5\t0\n0\t\tv\t-7\t\t1\n"), &plain);
    FILE *file = fopen(headed, "wb");
    (void)fprintf(file, "u\textra\ts\tl\tk\ti\tp\nu\tx\t0\t1\t4,5\t3\t2.5\n");
    assert_int_equal(fclose(file), 0);
    file = fopen(other, "wb");
    (void)fprintf(file, "p\ti\tk\tl\ts\tu\n\t-7\t\t0\t1\tv\n");
    assert_int_equal(fclose(file), 0);
    float *expected = expected_of(fx, plain, 2);
    const char *const sources[] = {headed, other};
    const ct_client_rows rows = {.schema = schema, .sources = sources, .source_count = 2, .max_rows = -1};
    ct_client *client = NULL;
    answers got = {NULL, 0};
    int64_t scored = 0;
    MUST(ct_client_create(fx->target, NULL, &client, &status), status);
    MUST(ct_client_score(client, &rows, take_answer, &got, &scored, &status), status);
    assert_int_equal(scored, 2);
    assert_memory_equal(got.values, expected, 2 * sizeof(float));
    file = fopen(other, "wb");
    (void)fprintf(file, "p\ti\tk\tl\ts\n\t-7\t\t0\t1\n");
    assert_int_equal(fclose(file), 0);
    assert_int_equal(ct_client_score(client, &rows, take_answer, &got, &scored, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "other.tsv:1"));
    assert_non_null(strstr(status.message, "user"));
    ct_client_destroy(client);
    free(expected);
    free(got.values);
    free(plain);
    free(headed);
    free(other);
    ct_schema_destroy(schema);
    stop(fx);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, each_setup, each_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        EACH(test_scores_are_those_of_the_log),
        EACH(test_large_request_uses_all_workers),
        EACH(test_answer_fields),
        EACH(test_models_and_health),
        EACH(test_refusals_over_the_wire),
        EACH(test_cancelled_request_is_not_computed),
        EACH(test_late_request_stops_between_blocks),
        EACH(test_drain),
        EACH(test_no_grace),
        EACH(test_idle_stop_does_not_wait),
        EACH(test_addresses),
        EACH(test_client_refuses_bad_rows),
        EACH(test_client_with_header),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
