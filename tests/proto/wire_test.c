/* Our C messages on the wire, against bytes written down by hand from the protobuf encoding: field numbers and types are a contract, lists
 * of numbers are packed, and a text keeps a NUL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* after them */
#include <cmocka.h>

#include "proto/clicktower.pb-c.h"
#include "proto/health.pb-c.h"

#define TEXT(literal) \
    { sizeof(literal) - 1, (uint8_t *)(uintptr_t)literal }

static void check_packed(const ProtobufCMessage *message, const char *expected, size_t bytes) {
    uint8_t packed[256];
    assert_true(protobuf_c_message_get_packed_size(message) <= sizeof packed);
    assert_int_equal(protobuf_c_message_pack(message, packed), bytes);
    assert_memory_equal(packed, expected, bytes);
}

static void test_column(void **state) {
    (void)state;
    Clicktower__V1__Column column = CLICKTOWER__V1__COLUMN__INIT;
    ProtobufCBinaryData tokens[] = {TEXT("x\0y"), TEXT("")};
    int64_t integers[] = {-1, 150};
    float numbers[] = {1.0f, -2.0f};
    uint32_t lengths[] = {2, 300};
    column.name = (ProtobufCBinaryData)TEXT("id");
    column.tokens = tokens;
    column.n_tokens = 2;
    column.integers = integers;
    column.n_integers = 2;
    column.numbers = numbers;
    column.n_numbers = 2;
    column.lengths = lengths;
    column.n_lengths = 2;
    static const char expected[] =
        "\x0a\x02id"                               /* 1: name */
        "\x12\x03x\0y\x12\x00"                     /* 2: tokens, each with its tag */
        "\x1a\x03\x01\xac\x02"                     /* 3: zigzag of -1 is 1, of 150 is 300 */
        "\x22\x08\x00\x00\x80\x3f\x00\x00\x00\xc0" /* 4: IEEE 754, little-endian */
        "\x2a\x03\x02\xac\x02";                    /* 5: lengths */
    check_packed(&column.base, expected, sizeof expected - 1);

    Clicktower__V1__Column *back = clicktower__v1__column__unpack(NULL, sizeof expected - 1, (const uint8_t *)expected);
    assert_non_null(back);
    assert_int_equal(back->n_tokens, 2);
    assert_int_equal(back->tokens[0].len, 3);
    assert_memory_equal(back->tokens[0].data, "x\0y", 3);
    assert_int_equal(back->integers[0], -1);
    assert_true(back->numbers[1] == -2.0f);
    clicktower__v1__column__free_unpacked(back, NULL);

    /* Numbers that a client has not packed are taken, too. */
    static const char loose[] = "\x25\x00\x00\x80\x3f\x28\x02";
    back = clicktower__v1__column__unpack(NULL, sizeof loose - 1, (const uint8_t *)loose);
    assert_non_null(back);
    assert_int_equal(back->n_numbers, 1);
    assert_true(back->numbers[0] == 1.0f);
    assert_int_equal(back->lengths[0], 2);
    clicktower__v1__column__free_unpacked(back, NULL);
}

static void test_request(void **state) {
    (void)state;
    Clicktower__V1__Column column = CLICKTOWER__V1__COLUMN__INIT;
    Clicktower__V1__Column *columns[] = {&column};
    Clicktower__V1__ScoreRequest request = CLICKTOWER__V1__SCORE_REQUEST__INIT;
    column.name = (ProtobufCBinaryData)TEXT("c");
    request.model = (ProtobufCBinaryData)TEXT("m");
    request.request_id = (ProtobufCBinaryData)TEXT("r");
    request.unit = (ProtobufCBinaryData)TEXT("u");
    request.context = columns;
    request.n_context = 1;
    request.candidates = columns;
    request.n_candidates = 1;
    request.candidate_count = 10000;
    request.logits = true;
    static const char expected[] =
        "\x0a\x01m\x12\x01r\x1a\x01u\x22\x03\x0a\x01"
        "c\x2a\x03\x0a\x01"
        "c\x30\x90\x4e\x38\x01";
    check_packed(&request.base, expected, sizeof expected - 1);
}

static void test_response(void **state) {
    (void)state;
    float probabilities[] = {0.5f}, logits[] = {0.0f};
    Clicktower__V1__Output output = CLICKTOWER__V1__OUTPUT__INIT;
    Clicktower__V1__Output *outputs[] = {&output};
    Clicktower__V1__ScoreResponse response = CLICKTOWER__V1__SCORE_RESPONSE__INIT;
    output.name = (ProtobufCBinaryData)TEXT("o");
    output.probabilities = probabilities;
    output.n_probabilities = 1;
    output.logits = logits;
    output.n_logits = 1;
    response.outputs = outputs;
    response.n_outputs = 1;
    response.request_id = (ProtobufCBinaryData)TEXT("r");
    response.model = (ProtobufCBinaryData)TEXT("m");
    response.model_version = (ProtobufCBinaryData)TEXT("v");
    static const char expected[] = "\x0a\x0f\x0a\x01o\x12\x04\x00\x00\x00\x3f\x1a\x04\x00\x00\x00\x00\x12\x01r\x1a\x01m\x22\x01v";
    check_packed(&response.base, expected, sizeof expected - 1);
}

static void test_health(void **state) {
    (void)state;
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    check_packed(&response.base, "\x08\x02", 2);
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (ProtobufCBinaryData)TEXT("s");
    check_packed(&request.base, "\x0a\x01s", 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_column), cmocka_unit_test(test_request), cmocka_unit_test(test_response),
                                       cmocka_unit_test(test_health)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
