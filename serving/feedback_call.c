/* clicktower.v1.Scorer/Feedback: the call waits, without a thread, until its events are on disk. */
#include "serving/server_internal.h"

static void answer(void *context, const ct_status *status, uint32_t accepted) {
    ct_rpc_call *call = context;
    if (status->code != CT_OK) {
        ct_rpc_call_fail(call, status);
        return;
    }
    Clicktower__V1__FeedbackResponse response = CLICKTOWER__V1__FEEDBACK_RESPONSE__INIT;
    response.accepted = accepted;
    uint8_t *out = ct_rpc_call_reserve(call, clicktower__v1__feedback_response__get_packed_size(&response));
    (void)clicktower__v1__feedback_response__pack(&response, out);
    ct_rpc_call_reply(call);
}

void ct_serve_feedback(void *context, void *worker, ct_rpc_call *call) {
    ct_server *server = context;
    ct_status status = CT_STATUS_INIT;
    size_t bytes = 0;
    const uint8_t *data = ct_rpc_call_request(call, &bytes);
    (void)worker;
    const ct_code code = server->feedback ? ct_feedback_submit(server->feedback, data, bytes, answer, call, &status)
                                          : ct_fail(&status, CT_UNSUPPORTED, "this server takes no feedback (--feedback)");
    if (code != CT_OK) ct_rpc_call_fail(call, &status);
}
