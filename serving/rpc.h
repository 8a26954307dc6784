/* RPC: a thin, typed face over gRPC's C core: unary methods on a server, unary calls of a client. Only rpc*.c and
 * rpc_internal.h include grpc/.
 *
 * Server. One completion queue, shared by all workers; each worker calls ct_rpc_server_work and stays in it until the server stops. A
 * request is handed to its method's handler in the worker that took it; the handler ends it, there or later in any other thread, with
 * exactly one ct_rpc_call_reply or ct_rpc_call_fail. ct_rpc_call_post wakes other workers: that is how they share one request's work. */
#ifndef SERVING_RPC_H
#define SERVING_RPC_H

#include "base/status.h"

typedef struct ct_rpc_server ct_rpc_server;
typedef struct ct_rpc_call ct_rpc_call;

/* `context`: the method's; `worker`: what that worker gave to ct_rpc_server_work. */
typedef void (*ct_rpc_handler_fn)(void *context, void *worker, ct_rpc_call *call);
typedef void (*ct_rpc_task_fn)(void *argument, void *worker);

typedef struct ct_rpc_method {
    const char *path; /* "/package.Service/Method"; must outlive the server */
    ct_rpc_handler_fn handle;
    void *context;
    size_t slots; /* calls that may be with us at once; further ones wait inside gRPC */
} ct_rpc_method;

CT_MUST_CHECK ct_code ct_rpc_server_create(const ct_rpc_method *methods, size_t method_count, uint32_t max_message_bytes,
                                           ct_rpc_server **out_server, ct_status *status);
/* Binds and starts. HOST:PORT, port 0 = any free one. CT_UNAVAILABLE names address and reason. A method that is not registered is answered
 * with UNIMPLEMENTED. */
CT_MUST_CHECK ct_code ct_rpc_server_listen(ct_rpc_server *server, const char *address, ct_status *status);
int ct_rpc_server_port(const ct_rpc_server *server);
/* Called by a worker before it waits for what comes next: until when at the latest (ct_clock_ns; INT64_MAX = as long as it takes). */
typedef int64_t (*ct_rpc_before_wait_fn)(void *worker);
/* Runs handlers until the server has stopped. before_wait: NULL is fine. */
void ct_rpc_server_work(ct_rpc_server *server, void *worker, ct_rpc_before_wait_fn before_wait);
/* From no worker, once. Takes no new calls, waits up to grace_ms for those that are here, cancels the rest; then the workers leave
 * ct_rpc_server_work. Join them before ct_rpc_server_destroy. At once when idle; a client that does not say goodbye is given 100 ms. */
void ct_rpc_server_stop(ct_rpc_server *server, int64_t grace_ms);
/* After ct_rpc_server_stop, where workers ran; NULL is fine. */
void ct_rpc_server_destroy(ct_rpc_server *server);

/* The request's bytes, valid until the call ends. */
const uint8_t *ct_rpc_call_request(const ct_rpc_call *call, size_t *out_bytes);
/* CT_OK while somebody still waits for the answer; CT_DEADLINE, CT_CANCELLED else. Cheap. */
CT_MUST_CHECK ct_code ct_rpc_call_wanted(const ct_rpc_call *call, ct_status *status);
/* The same for many calls at one time: CT_OK, CT_DEADLINE or CT_CANCELLED. */
ct_code ct_rpc_call_why_unwanted(const ct_rpc_call *call, int64_t now_ns);
/* Memory of the answer, `bytes` long; once for a call, then ct_rpc_call_reply. */
uint8_t *ct_rpc_call_reserve(ct_rpc_call *call, size_t bytes);
void ct_rpc_call_reply(ct_rpc_call *call);
/* Ends the call with the gRPC status that stands for `status`. */
void ct_rpc_call_fail(ct_rpc_call *call, const ct_status *status);
/* Has `task` run `count` times, by whichever workers are idle first. By the thread that has the call, before the call ends; the call's
 * memory lives until all have run, which may be after it has ended. Only one task for a call. Returns how many will run. */
size_t ct_rpc_call_post(ct_rpc_call *call, size_t count, ct_rpc_task_fn task, void *argument);

const char *ct_rpc_code_name(ct_code code); /* of gRPC: "OK", "RESOURCE_EXHAUSTED", ...; static storage */

/* --- client: one call at a time for each channel --- */

typedef struct ct_rpc_channel ct_rpc_channel;
CT_MUST_CHECK ct_code ct_rpc_channel_create(const char *target, ct_rpc_channel **out_channel, ct_status *status);
void ct_rpc_channel_destroy(ct_rpc_channel *channel); /* NULL is fine */
/* Memory of the next request. */
uint8_t *ct_rpc_channel_reserve(ct_rpc_channel *channel, size_t bytes);
/* Sends what was reserved, waits. `wait_for_server`: a server that is not there yet is waited for. The reply is valid until the next
 * reserve. A failure's message names the target and what the server said. */
CT_MUST_CHECK ct_code ct_rpc_channel_call(ct_rpc_channel *channel, const char *path, int64_t timeout_ms, bool wait_for_server,
                                          const uint8_t **out_reply, size_t *out_bytes, ct_status *status);

/* --- client: many calls at once, to one method. Calls are started by any thread and taken back by one. --- */

typedef struct ct_rpc_caller ct_rpc_caller;
typedef struct ct_rpc_result {
    uint64_t tag;
    ct_code code;
    const uint8_t *reply; /* valid until the next ct_rpc_caller_next */
    size_t reply_bytes;
    char message[200]; /* what the server said */
} ct_rpc_result;
/* path must outlive the caller. */
CT_MUST_CHECK ct_code ct_rpc_caller_create(const char *target, const char *path, size_t connections, ct_rpc_caller **out_caller,
                                           ct_status *status);
/* Waits for the calls in flight, whose deadlines end them. NULL is fine. */
void ct_rpc_caller_destroy(ct_rpc_caller *caller);
/* The request's bytes must stay until the call has ended. deadline_ns: by ct_clock_ns. Connections take turns. */
CT_MUST_CHECK ct_code ct_rpc_caller_start(ct_rpc_caller *caller, const uint8_t *request, size_t bytes, int64_t deadline_ns, uint64_t tag,
                                          ct_status *status);
size_t ct_rpc_caller_in_flight(const ct_rpc_caller *caller);
/* The next call that has ended; false where none has until then. */
bool ct_rpc_caller_next(ct_rpc_caller *caller, int64_t until_ns, ct_rpc_result *out_result);

#endif
