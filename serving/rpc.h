/* RPC: a thin, typed face over gRPC's C core: methods of a server, unary calls of a client. Only rpc*.c and rpc_internal.h include grpc/.
 *
 * Server. One completion queue. Any thread may call ct_rpc_server_poll, but one at a time is best: gRPC passes its own polling on from
 * thread to thread else, which costs a switch for each event. A request is handed to its method's handler in the thread that polls; the
 * handler ends it, there or later in any other thread, with exactly one ct_rpc_call_reply or ct_rpc_call_fail. */
#ifndef SERVING_RPC_H
#define SERVING_RPC_H

#include "base/status.h"

typedef struct ct_rpc_server ct_rpc_server;
typedef struct ct_rpc_call ct_rpc_call;

/* `context`: the method's; `worker`: what the thread gave to ct_rpc_server_poll. */
typedef void (*ct_rpc_handler_fn)(void *context, void *worker, ct_rpc_call *call);

/* A method whose client may send several messages and get several. Nothing runs twice at once for one call, except that writing may be done
 * by any thread (one write at a time; see ct_rpc_stream_write). */
typedef struct ct_rpc_stream_fns {
    /* The next message is in ct_rpc_call_request until ct_rpc_stream_read asks for another. */
    ct_rpc_handler_fn message;
    ct_rpc_handler_fn end;     /* the client sends no more; not where it is gone */
    ct_rpc_handler_fn written; /* what ct_rpc_stream_write was given is sent, another may follow */
    /* The client is gone, or all is sent. Comes once, in any case; a call that was not ended by then is ended by it. Afterwards the call
     * must not be used. */
    ct_rpc_handler_fn closed;
} ct_rpc_stream_fns;

typedef struct ct_rpc_method {
    const char *path; /* "/package.Service/Method"; must outlive the server */
    ct_rpc_handler_fn handle;
    const ct_rpc_stream_fns *stream; /* NULL = one message each way, and `handle` gets it; else `handle` is not used */
    void *context;
    size_t slots;     /* calls that may be with us at once; further ones wait inside gRPC */
    bool needs_token; /* where the server has tokens */
} ct_rpc_method;

typedef struct ct_rpc_server_options {
    uint32_t max_message_bytes;
    int64_t max_connection_age_ms; /* 0 = for ever; afterwards clients are asked to connect anew, calls in work may end */
    size_t max_calls_of_peer;      /* of one address at once; 0 = any number. Beyond: RESOURCE_EXHAUSTED */
    /* PEM texts, copied; NULL certificate = no TLS. With a client_ca, clients must show a certificate that it has signed. */
    const char *tls_certificate, *tls_key, *tls_client_ca;
} ct_rpc_server_options;

CT_MUST_CHECK ct_code ct_rpc_server_create(const ct_rpc_method *methods, size_t method_count, const ct_rpc_server_options *options,
                                           ct_rpc_server **out_server, ct_status *status);
/* Calls must bring `authorization: Bearer TOKEN` with one of these from now on; count 0 = no token is needed. Copied. At most
 * CT_RPC_MAX_TOKENS of at most CT_RPC_TOKEN_BYTES bytes. */
enum { CT_RPC_MAX_TOKENS = 1024, CT_RPC_TOKEN_BYTES = 256 };
CT_MUST_CHECK ct_code ct_rpc_server_set_tokens(ct_rpc_server *server, const char *const *tokens, size_t count, ct_status *status);
/* Would a call with this `authorization` (NULL = none) be let in? For those who come another way. */
bool ct_rpc_server_allows(ct_rpc_server *server, const char *authorization);
/* Could a server begin with these? PEM texts, client_ca may be NULL. CT_INVALID says what is wrong. */
CT_MUST_CHECK ct_code ct_rpc_check_certificate(const char *certificate, const char *key, const char *client_ca, ct_status *status);
/* New connections are shown this certificate from now on; those that are there stay. PEM texts, copied. Only where the server began with
 * TLS, and with a client_ca where it began with one. CT_INVALID, and nothing changed, where they can't be used. One caller at a time. */
CT_MUST_CHECK ct_code ct_rpc_server_set_certificate(ct_rpc_server *server, const char *certificate, const char *key, const char *client_ca,
                                                    ct_status *status);
/* Binds and starts. HOST:PORT, port 0 = any free one. CT_UNAVAILABLE names address and reason. A method that is not registered is answered
 * with UNIMPLEMENTED. */
CT_MUST_CHECK ct_code ct_rpc_server_listen(ct_rpc_server *server, const char *address, ct_status *status);
int ct_rpc_server_port(const ct_rpc_server *server);
typedef enum ct_rpc_polled { CT_RPC_NOTHING, CT_RPC_EVENT, CT_RPC_STOPPED } ct_rpc_polled;
/* Waits for the next event until then (ct_clock_ns; 0 = not at all, INT64_MAX = as long as it takes) and handles it. */
ct_rpc_polled ct_rpc_server_poll(ct_rpc_server *server, void *worker, int64_t until_ns);
/* From no thread that polls, once. Takes no new calls, waits up to grace_ms for those that are here, cancels the rest and the streams; then
 * ct_rpc_server_poll says STOPPED. Join the threads before ct_rpc_server_destroy. At once when idle; a client that does not say goodbye is
 * given 100 ms. */
void ct_rpc_server_stop(ct_rpc_server *server, int64_t grace_ms);
/* After ct_rpc_server_stop, where threads polled; NULL is fine. */
void ct_rpc_server_destroy(ct_rpc_server *server);
/* Calls that never came to a handler: without a right token, and of a peer that had too many. Since the start. */
typedef struct ct_rpc_refusals {
    uint64_t no_token, peer_limit, no_method;
} ct_rpc_refusals;
ct_rpc_refusals ct_rpc_server_refusals(const ct_rpc_server *server);

/* The request's bytes, valid until the call ends. */
const uint8_t *ct_rpc_call_request(const ct_rpc_call *call, size_t *out_bytes);
/* In the handler: the call will only be failed, but later. Its bytes are freed, and it is not watched whether the client goes. */
void ct_rpc_call_will_fail(ct_rpc_call *call);
int64_t ct_rpc_call_deadline_ns(const ct_rpc_call *call); /* by ct_clock_ns; INT64_MAX = none */
/* CT_OK while somebody still waits for the answer; CT_DEADLINE, CT_CANCELLED else. Cheap. */
ct_code ct_rpc_call_why_unwanted(const ct_rpc_call *call, int64_t now_ns);
/* Memory of the answer, `bytes` long; once for a call, then ct_rpc_call_reply. */
uint8_t *ct_rpc_call_reserve(ct_rpc_call *call, size_t bytes);
void ct_rpc_call_reply(ct_rpc_call *call);
/* Ends the call with the gRPC status that stands for `status`. */
void ct_rpc_call_fail(ct_rpc_call *call, const ct_status *status);
/* What this thread sends between them goes out together at the end: one packet for each connection, not one for each answer. Not one pair
 * within another. */
void ct_rpc_together_begin(void);
void ct_rpc_together_end(void);
/* Streams: asks for the next message (the first one comes unasked). */
void ct_rpc_stream_read(ct_rpc_call *call);
/* Sends what was reserved. Not again before `written`; not after the end. */
void ct_rpc_stream_write(ct_rpc_call *call);
/* A pointer for the handlers, NULL at first. */
void **ct_rpc_call_data(ct_rpc_call *call);

const char *ct_rpc_code_name(ct_code code); /* of gRPC: "OK", "RESOURCE_EXHAUSTED", ...; static storage */

/* --- client: one call at a time for each channel --- */

/* How to speak to a server that wants more than a connection. All NULL, or NULL itself, is plain text without a token. PEM texts. */
typedef struct ct_rpc_access {
    const char *tls_ca;                    /* who may have signed the server's certificate */
    const char *tls_certificate, *tls_key; /* of this client */
    const char *token;
} ct_rpc_access;

typedef struct ct_rpc_channel ct_rpc_channel;
CT_MUST_CHECK ct_code ct_rpc_channel_create(const char *target, const ct_rpc_access *access, ct_rpc_channel **out_channel,
                                            ct_status *status);
void ct_rpc_channel_destroy(ct_rpc_channel *channel); /* NULL is fine */
/* Memory of the next request. */
uint8_t *ct_rpc_channel_reserve(ct_rpc_channel *channel, size_t bytes);
/* Sends what was reserved, waits. `wait_for_server`: a server that is not there yet is waited for. The reply is valid until the next
 * reserve. A failure's message names the target and what the server said. */
CT_MUST_CHECK ct_code ct_rpc_channel_call(ct_rpc_channel *channel, const char *path, int64_t timeout_ms, bool wait_for_server,
                                          const uint8_t **out_reply, size_t *out_bytes, ct_status *status);

/* --- client: many calls at once, to one method. Calls are started by any thread and taken back by one. Each is sent once: what is lost
 * with its connection (CT_UNAVAILABLE) is not sent again. --- */

typedef struct ct_rpc_caller ct_rpc_caller;
typedef struct ct_rpc_result {
    uint64_t tag;
    ct_code code;
    const uint8_t *reply; /* valid until the next ct_rpc_caller_next */
    size_t reply_bytes;
    char message[200]; /* what the server said */
} ct_rpc_result;
/* path must outlive the caller. */
CT_MUST_CHECK ct_code ct_rpc_caller_create(const char *target, const ct_rpc_access *access, const char *path, size_t connections,
                                           ct_rpc_caller **out_caller, ct_status *status);
/* Waits for the calls in flight, whose deadlines end them. NULL is fine. */
void ct_rpc_caller_destroy(ct_rpc_caller *caller);
/* The request's bytes must stay until the call has ended. deadline_ns: by ct_clock_ns. Connections take turns. */
CT_MUST_CHECK ct_code ct_rpc_caller_start(ct_rpc_caller *caller, const uint8_t *request, size_t bytes, int64_t deadline_ns, uint64_t tag,
                                          ct_status *status);
size_t ct_rpc_caller_in_flight(const ct_rpc_caller *caller);
/* The next call that has ended; false where none has until then. */
bool ct_rpc_caller_next(ct_rpc_caller *caller, int64_t until_ns, ct_rpc_result *out_result);

#endif
