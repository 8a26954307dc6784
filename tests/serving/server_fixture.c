#include "tests/serving/server_fixture.h"
#include "tests/serving/http2.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/math.h"
#include "base/random.h"
#include "data/reader.h"

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

float *expected_of(const fixture *fx, const char *path, size_t rows) {
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

void start(fixture *fx, size_t threads) {
    ct_status status = CT_STATUS_INIT;
    const ct_server_model models[] = {{"first", fx->model}, {"second", fx->other}};
    const ct_server_options options = {.listen = "127.0.0.1:0",
                                       .models = models,
                                       .model_count = 2,
                                       .experiment = fx->experiment,
                                       .exposures = fx->exposures,
                                       .feedback = fx->feedback,
                                       .threads = threads,
                                       .queue_ms = 600000,
                                       .max_candidates = 5000};
    MUST(ct_server_start(&options, &fx->server, &status), status);
    assert_true(ct_server_port(fx->server) > 0);
    (void)snprintf(fx->target, sizeof fx->target, "127.0.0.1:%d", ct_server_port(fx->server));
}

void stop(fixture *fx) {
    ct_server_stop(fx->server, TIMEOUT_MS);
    fx->server = NULL;
}

ct_server_stats look(const fixture *fx) {
    ct_server_stats stats;
    (void)sched_yield();
    ct_server_stats_get(fx->server, &stats);
    return stats;
}

void wait_until_counted(const fixture *fx) {
    while (look(fx).scoring) continue;
}

int setup(void **state) {
    static fixture fx;
    ct_status status = CT_STATUS_INIT;
    MUST(ct_schema_parse(SCHEMA, strlen(SCHEMA), "shop.yaml", &fx.schema, &status), status);
    fx.folder = temp_folder();
    fx.log = temp_path(fx.folder, "log.tsv");
    write_log(fx.log);
    *state = &fx;
    return 0;
}

int teardown(void **state) {
    fixture *fx = *state;
    free(fx->log);
    temp_remove(fx->folder);
    ct_schema_destroy(fx->schema);
    return 0;
}

int each_setup(void **state) {
    fixture *fx = *state;
    bool used[16] = {false};
    for (size_t f = 0; f < fx->schema->field_count; f++) {
        const char *name = fx->schema->fields[f].name;
        used[f] = strcmp(name, "label") != 0 && strcmp(name, "spare") != 0;
    }
    fx->model = fake_model_create(fx->schema, used, 1);
    fx->other = fake_model_create(fx->schema, used, 2);
    fx->experiment = NULL;
    fx->exposures = NULL;
    fx->feedback = NULL;
    if (!fx->expected) fx->expected = expected_of(fx, fx->log, LOG_ROWS);
    return 0;
}

int each_teardown(void **state) {
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

ct_code take_answer(void *context, const float *probabilities, size_t count, ct_status *status) {
    (void)status;
    answers *a = context;
    a->values = realloc(a->values, (a->count + count) * sizeof *a->values);
    memcpy(a->values + a->count, probabilities, count * sizeof *a->values);
    a->count += count;
    return CT_OK;
}

ct_code score(const fixture *fx, const ct_schema *schema, const char *path, size_t per_request, bool context, int64_t max_rows,
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

static void *ask_main(void *argument) {
    asker *a = argument;
    a->status = (ct_status)CT_STATUS_INIT;
    a->code = score(a->fx, a->fx->schema, a->fx->log, a->per_request, false, a->rows, a->timeout_ms, &a->answers, &a->status);
    atomic_store(&a->done, true);
    return NULL;
}

void ask(asker *a, const fixture *fx, size_t rows, int64_t timeout_ms) {
    *a = (asker){.fx = fx, .per_request = rows, .rows = (int64_t)rows, .timeout_ms = timeout_ms};
    assert_int_equal(pthread_create(&a->thread, NULL, ask_main, a), 0);
}

void ask_join(asker *a) {
    assert_int_equal(pthread_join(a->thread, NULL), 0);
    if (a->code != CT_OK) print_message("%s: %s\n", ct_code_name(a->code), a->status.message);
    if (a->code == CT_OK) {
        assert_int_equal(a->answers.count, a->rows);
        assert_memory_equal(a->answers.values, a->fx->expected, a->answers.count * sizeof(float));
    }
    free(a->answers.values);
}

ct_code raw_call(const fixture *fx, const char *path, const void *bytes, size_t count, ct_arena *arena,
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

ct_code health(const fixture *fx, const char *service, Grpc__Health__V1__HealthCheckResponse__ServingStatus *out, ct_status *status) {
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

int connect_to(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

int connect_http2(int port) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    const int fd = connect_to(port);
    assert_int_equal(write(fd, preface, sizeof preface - 1), sizeof preface - 1);
    uint8_t head[9], settings[1024];
    assert_int_not_equal(read_frame(fd, head, settings, sizeof settings), SIZE_MAX);
    return fd;
}
