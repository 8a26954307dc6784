/* The server and the client over a real socket, with a model that counts and can be held up (fake_model.h). Nothing here waits for time to
 * pass: a held model makes "while it is computing" a fact. */
#include <math.h>
#include <sched.h>

#include "base/random.h"
#include "tests/serving/server_fixture.h"

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

/* By which what is read beside requests knows when to pause. */
static void test_is_busy_for_a_while(void **state) {
    fixture *fx = *state;
    start(fx, 2);
    assert_false(ct_server_is_busy(fx->server));
    ct_status status = CT_STATUS_INIT;
    Grpc__Health__V1__HealthCheckResponse__ServingStatus serving = 0;
    MUST(health(fx, "", &serving, &status), status);
    assert_false(ct_server_is_busy(fx->server)); /* only Score counts */
    for (bool busy = false; !busy;) {            /* a slow machine may see it too late */
        answers got = {NULL, 0};
        MUST(score(fx, fx->schema, fx->log, 1, false, 1, TIMEOUT_MS, &got, &status), status);
        busy = ct_server_is_busy(fx->server);
        free(got.values);
    }
    while (ct_server_is_busy(fx->server)) (void)sched_yield();
    stop(fx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EACH(test_scores_are_those_of_the_log), EACH(test_large_request_uses_all_workers), EACH(test_answer_fields),
        EACH(test_models_and_health),           EACH(test_refusals_over_the_wire),         EACH(test_is_busy_for_a_while),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
