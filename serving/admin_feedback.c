/* POST /v1/feedback: the JSON becomes the bytes that a gRPC client would send, and waits with those for the disk. Meanwhile the connection
 * is suspended, so the admin port's one thread goes on. */
#include "base/json.h"
#include "serving/admin_internal.h"
#include "serving/message_json.h"
#include "serving/server_internal.h"

ct_code ct_admin_pack_json(ct_arena *arena, const ProtobufCMessageDescriptor *type, const char *body, size_t bytes, uint8_t **out_packed,
                           size_t *out_bytes, ct_status *status) {
    json_t *json = NULL;
    if (ct_json_parse(body, bytes, "the body", &json, status) != CT_OK) return status->code = CT_INVALID;
    ProtobufCMessage *message = NULL;
    ct_code code = ct_message_from_json(arena, type, json, &message, status);
    if (code == CT_OK) {
        const size_t packed_bytes = protobuf_c_message_get_packed_size(message);
        uint8_t *packed = ct_arena_alloc(arena, packed_bytes + 1);
        if (packed) {
            *out_bytes = protobuf_c_message_pack(message, packed);
            *out_packed = packed;
        } else {
            code = ct_fail_memory(status, packed_bytes, "a request");
        }
    }
    json_decref(json);
    return code;
}

ct_code ct_admin_feedback(ct_server *server, ct_arena *arena, const char *body, size_t bytes, ct_feedback_done_fn done, void *context,
                          ct_status *status) {
    if (!server->feedback) return ct_fail(status, CT_UNSUPPORTED, "this server takes no feedback (--feedback)");
    uint8_t *packed = NULL;
    size_t packed_bytes = 0;
    CT_TRY(ct_admin_pack_json(arena, &clicktower__v1__feedback_request__descriptor, body, bytes, &packed, &packed_bytes, status));
    return ct_feedback_submit(server->feedback, packed, packed_bytes, done, context, status);
}
