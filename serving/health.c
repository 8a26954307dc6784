/* grpc.health.v1.Health/Check. */
#include <string.h>

#include "proto/health.pb-c.h"
#include "serving/server_internal.h"

static const char SCORER[] = "clicktower.v1.Scorer";

static ct_code check(ct_server *server, ct_worker *worker, ct_rpc_call *call, ct_status *status) {
    size_t bytes = 0;
    const uint8_t *data = ct_rpc_call_request(call, &bytes);
    ProtobufCMessage *message = NULL;
    CT_TRY(ct_message_unpack(&worker->work->arena, &grpc__health__v1__health_check_request__descriptor, data, bytes, "HealthCheckRequest",
                             &message, status));
    const ProtobufCBinaryData service = ((Grpc__Health__V1__HealthCheckRequest *)message)->service;
    if (service.len != 0 && (service.len != sizeof SCORER - 1 || memcmp(service.data, SCORER, service.len) != 0)) {
        char shown[80];
        return ct_fail(status, CT_NOT_FOUND, "no service \"%s\" here, but %s",
                       ct_text_show((const char *)service.data, service.len, shown, sizeof shown), SCORER);
    }
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = ct_server_is_draining(server) ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
                                                    : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    uint8_t *out = ct_rpc_call_reserve(call, grpc__health__v1__health_check_response__get_packed_size(&response));
    (void)grpc__health__v1__health_check_response__pack(&response, out);
    return CT_OK;
}

void ct_serve_health(void *context, void *worker, ct_rpc_call *call) {
    ct_status status = CT_STATUS_INIT;
    ct_worker *self = worker;
    if (check(context, self, call, &status) == CT_OK)
        ct_rpc_call_reply(call);
    else
        ct_rpc_call_fail(call, &status);
    ct_score_work_reset(self->work);
}
