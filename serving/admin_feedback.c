/* POST /v1/feedback: the JSON becomes the bytes that a gRPC client would send, and waits with those for the disk. Meanwhile the connection
 * is suspended, so the admin port's one thread goes on. */
#include "serving/admin_internal.h"
#include "serving/message_json.h"
#include "serving/server_internal.h"

ct_code ct_admin_feedback(ct_server *server, ct_arena *arena, const char *body, size_t bytes, ct_feedback_done_fn done, void *context,
                          ct_status *status) {
    if (!server->feedback) return ct_fail(status, CT_UNSUPPORTED, "this server takes no feedback (--feedback)");
    uint8_t *packed = NULL;
    size_t packed_bytes = 0;
    CT_TRY(ct_message_pack_json(arena, &clicktower__v1__feedback_request__descriptor, body, bytes, &packed, &packed_bytes, status));
    return ct_feedback_submit(server->feedback, packed, packed_bytes, done, context, status);
}
