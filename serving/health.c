/* grpc.health.v1.Health: Check, and Watch, which says the status at once and again whenever it changes, until the client goes. Threads: who
 * watches is under the lock of ct_health; that lock also orders the writes to a watching call, of which there is one at a time. */
#include <stdlib.h>
#include <string.h>

#include "proto/health.pb-c.h"
#include "serving/server_internal.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;
enum {
    SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING,
    NOT_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING,
    SERVICE_UNKNOWN = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN
};

static const char *const SERVICES[] = {"", "clicktower.v1.Scorer"};

static bool is_known(ProtobufCBinaryData service) {
    for (size_t i = 0; i < sizeof SERVICES / sizeof *SERVICES; i++)
        if (service.len == strlen(SERVICES[i]) && (service.len == 0 || memcmp(service.data, SERVICES[i], service.len) == 0)) return true;
    return false;
}

static ct_code read_service(ct_worker *worker, ct_rpc_call *call, ProtobufCBinaryData *out, ct_status *status) {
    size_t bytes = 0;
    const uint8_t *data = ct_rpc_call_request(call, &bytes);
    ProtobufCMessage *message = NULL;
    CT_TRY(ct_message_unpack(&worker->arena, &grpc__health__v1__health_check_request__descriptor, data, bytes, "HealthCheckRequest",
                             &message, status));
    *out = ((Grpc__Health__V1__HealthCheckRequest *)message)->service;
    return CT_OK;
}

static void put_status(ct_rpc_call *call, int serving) {
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = (serving_status)serving;
    uint8_t *out = ct_rpc_call_reserve(call, grpc__health__v1__health_check_response__get_packed_size(&response));
    (void)grpc__health__v1__health_check_response__pack(&response, out);
}

void ct_serve_health(void *context, void *worker, ct_rpc_call *call) {
    ct_status status = CT_STATUS_INIT;
    ct_worker *self = worker;
    ProtobufCBinaryData service = {0, NULL};
    ct_code code = read_service(self, call, &service, &status);
    char shown[80];
    if (code == CT_OK && !is_known(service))
        code = ct_fail(&status, CT_NOT_FOUND, "no service \"%s\" here, but %s",
                       ct_text_show((const char *)service.data, service.len, shown, sizeof shown), SERVICES[1]);
    if (code == CT_OK) {
        put_status(call, ct_server_is_draining(context) ? NOT_SERVING : SERVING);
        ct_rpc_call_reply(call);
    } else {
        ct_rpc_call_fail(call, &status);
    }
    ct_arena_reset(&self->arena);
}

/* --- Watch --- */

typedef struct watch {
    struct watch *next;
    ct_rpc_call *call;
    bool known; /* a service of ours */
    bool writing;
    int said; /* last */
} watch;

struct ct_health {
    pthread_mutex_t lock;
    bool serving;
    watch *watches;
};

ct_health *ct_health_create(void) {
    ct_health *health = calloc(1, sizeof *health);
    if (!health) return NULL;
    (void)pthread_mutex_init(&health->lock, NULL);
    health->serving = true;
    return health;
}

void ct_health_destroy(ct_health *health) {
    if (!health) return;
    (void)pthread_mutex_destroy(&health->lock);
    free(health);
}

/* Under lock. */
static void say(const ct_health *health, watch *w) {
    const int status = !w->known ? SERVICE_UNKNOWN : health->serving ? SERVING : NOT_SERVING;
    if (w->writing || w->said == status) return;
    w->writing = true;
    w->said = status;
    put_status(w->call, status);
    ct_rpc_stream_write(w->call);
}

void ct_health_changed(ct_health *health, bool serving) {
    if (!health) return;
    (void)pthread_mutex_lock(&health->lock);
    health->serving = serving;
    for (watch *w = health->watches; w; w = w->next) say(health, w);
    (void)pthread_mutex_unlock(&health->lock);
}

static void watch_message(void *context, void *worker, ct_rpc_call *call) {
    ct_health *health = ((ct_server *)context)->health;
    ct_worker *self = worker;
    ct_status status = CT_STATUS_INIT;
    ProtobufCBinaryData service = {0, NULL};
    watch *w = NULL;
    ct_code code = read_service(self, call, &service, &status);
    if (code == CT_OK && !(w = calloc(1, sizeof *w))) code = ct_fail_memory(&status, sizeof *w, "a watch");
    if (code == CT_OK) {
        w->call = call;
        w->known = is_known(service);
        w->said = -1;
        *ct_rpc_call_data(call) = w;
        (void)pthread_mutex_lock(&health->lock);
        w->next = health->watches;
        health->watches = w;
        say(health, w);
        (void)pthread_mutex_unlock(&health->lock);
    } else {
        ct_rpc_call_fail(call, &status);
    }
    ct_arena_reset(&self->arena);
}

static void watch_end(void *context, void *worker, ct_rpc_call *call) {
    (void)context;
    (void)worker;
    if (*ct_rpc_call_data(call)) return;
    ct_status status = CT_STATUS_INIT;
    (void)ct_fail(&status, CT_INVALID, "Watch needs a HealthCheckRequest");
    ct_rpc_call_fail(call, &status);
}

static void watch_written(void *context, void *worker, ct_rpc_call *call) {
    ct_health *health = ((ct_server *)context)->health;
    watch *w = *ct_rpc_call_data(call);
    (void)worker;
    if (!w) return;
    (void)pthread_mutex_lock(&health->lock);
    w->writing = false;
    say(health, w);
    (void)pthread_mutex_unlock(&health->lock);
}

static void watch_closed(void *context, void *worker, ct_rpc_call *call) {
    ct_health *health = ((ct_server *)context)->health;
    watch *w = *ct_rpc_call_data(call);
    (void)worker;
    if (!w) return;
    (void)pthread_mutex_lock(&health->lock);
    watch **at = &health->watches;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    (void)pthread_mutex_unlock(&health->lock);
    *ct_rpc_call_data(call) = NULL;
    free(w);
}

const ct_rpc_stream_fns ct_serve_watch = {watch_message, watch_end, watch_written, watch_closed};
