/* Scoring for people with curl. The JSON becomes the very bytes that a gRPC client would send, and goes through the same queue, limits and
 * threads (score_call.h); the answer's bytes become JSON. Meanwhile the connection is suspended, so the admin port's one thread goes on.
 *
 * HTTP has no deadline of its own: the header `Grpc-Timeout`, as gRPC spells it (https://github.com/grpc/grpc/blob/master/doc/
 * PROTOCOL-HTTP2.md) and as gateways in front of gRPC take it, gives one. */
#include <string.h>

#include "base/clock.h"
#include "serving/admin_internal.h"
#include "serving/message_json.h"
#include "serving/server_internal.h"

static const uint8_t *request(const void *of, size_t *out_bytes) {
    const ct_admin_call *call = of;
    *out_bytes = call->packed_bytes;
    return call->packed;
}

static ct_code why_unwanted(const void *of, int64_t now_ns) {
    const ct_admin_call *call = of;
    return call->deadline_ns <= now_ns ? CT_DEADLINE : CT_OK;
}

static uint8_t *reserve(void *of, size_t bytes) {
    ct_admin_call *call = of;
    call->answer = ct_arena_alloc(call->arena, bytes + 1);
    call->answer_bytes = bytes;
    return call->answer;
}

static void end(void *of, const ct_status *status) {
    ct_admin_call *call = of;
    call->done(call->context, status);
}

static const ct_score_way way = {.request = request, .why_unwanted = why_unwanted, .reserve = reserve, .end = end};

ct_code ct_admin_timeout(const char *text, int64_t *out_ns, ct_status *status) {
    static const struct {
        char unit;
        int64_t ns;
    } units[] = {{'H', 3600000000000}, {'M', 60000000000}, {'S', 1000000000}, {'m', 1000000}, {'u', 1000}, {'n', 1}};
    int64_t value = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < 8; digits++) value = 10 * value + (text[digits] - '0');
    for (size_t u = 0; digits && u < sizeof units / sizeof *units; u++) {
        if (text[digits] != units[u].unit || text[digits + 1] != '\0') continue;
        *out_ns = value > INT64_MAX / 4 / units[u].ns ? INT64_MAX / 4 : value * units[u].ns;
        return CT_OK;
    }
    return ct_fail(status, CT_INVALID, "header Grpc-Timeout must be 1 to 8 digits and one of H M S m u n, as 100m for 100 ms");
}

ct_code ct_admin_score(ct_server *server, ct_admin_call *call, const char *body, size_t bytes, const char *timeout, ct_status *status) {
    int64_t left_ns = 0;
    call->deadline_ns = INT64_MAX;
    if (timeout) {
        CT_TRY(ct_admin_timeout(timeout, &left_ns, status));
        call->deadline_ns = ct_clock_ns() + left_ns;
    }
    CT_TRY(ct_message_pack_json(call->arena, &clicktower__v1__score_request__descriptor, body, bytes, &call->packed, &call->packed_bytes,
                                status));
    ct_server_submit(server, (ct_score_call){&way, call}, call->deadline_ns);
    return CT_OK;
}

ct_code ct_admin_scores(const ct_admin_call *call, json_t **out_answer, ct_status *status) {
    ProtobufCMessage *response = NULL;
    CT_TRY(ct_message_unpack(call->arena, &clicktower__v1__score_response__descriptor, call->answer, call->answer_bytes, "the answer",
                             &response, status));
    *out_answer = ct_message_to_json(response);
    return *out_answer ? CT_OK : ct_fail_memory(status, call->answer_bytes, "an answer");
}
