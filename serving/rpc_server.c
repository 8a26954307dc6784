/* The server's life: methods, listening, events, the end. What happens to a call is in rpc_call.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/condition.h"
#include "serving/listen.h"
#include "serving/rpc_internal.h"

enum {
    UNKNOWN_SLOTS = 4,
    GOODBYE_MS = 100,
    STREAMS = 1024, /* of one connection: what a client may have waiting inside of gRPC, where we can't refuse it */
    HANDSHAKE_MS = 10000,
    AGE_GRACE_MS = 10000,
    /* A connection whose other end has gone without a word is noticed within this time. */
    KEEPALIVE_MS = 60000,
    KEEPALIVE_TIMEOUT_MS = 20000,
    LEAST_PING_MS = 10000 /* clients that ping more often are sent away */
};

static ct_code slots_create(ct_rpc_server *server, ct_status *status) {
    for (size_t m = 0; m <= server->method_count; m++) server->slot_count += server->methods[m].public.slots;
    server->slots = calloc(server->slot_count, sizeof *server->slots);
    if (!server->slots) return ct_fail_memory(status, server->slot_count * sizeof *server->slots, "a server's calls");
    size_t at = 0;
    for (size_t m = 0; m <= server->method_count; m++) {
        for (size_t i = 0; i < server->methods[m].public.slots; i++) {
            ct_rpc_call *call = &server->slots[at++];
            call->server = server;
            call->method = &server->methods[m];
            call->taken = (event){EVENT_TAKEN, call};
            call->closed = (event){EVENT_CLOSED, call};
            call->replied = (event){EVENT_REPLIED, call};
            call->read = (event){EVENT_READ, call};
            call->written = (event){EVENT_WRITTEN, call};
            call->deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
            call->request = call->response = grpc_empty_slice();
            grpc_metadata_array_init(&call->metadata);
            grpc_call_details_init(&call->details);
        }
    }
    return CT_OK;
}

static ct_code register_methods(ct_rpc_server *server, const ct_rpc_method *methods, ct_status *status) {
    for (size_t m = 0; m < server->method_count; m++) {
        server->methods[m].public = methods[m];
        server->methods[m].registered =
            grpc_server_register_method(server->server, methods[m].path, NULL,
                                        methods[m].stream ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
        if (!server->methods[m].registered) return ct_fail(status, CT_INTERNAL, "gRPC does not take method %s", methods[m].path);
    }
    server->methods[server->method_count].public.slots = UNKNOWN_SLOTS;
    return slots_create(server, status);
}

static ct_code prepare_access(ct_rpc_server *server, const ct_rpc_server_options *options, ct_status *status) {
    if (options->max_calls_of_peer) {
        server->peers = peer_table_create(options->max_calls_of_peer);
        if (!server->peers) return ct_fail_memory(status, options->max_calls_of_peer, "a server's peers");
    }
    if (!options->tls_certificate) {
        server->credentials = grpc_insecure_server_credentials_create();
        return CT_OK;
    }
    if (!options->tls_key) return ct_fail(status, CT_INVALID, "a TLS certificate needs its key");
    server->tls = tls_source_create();
    if (!server->tls) return ct_fail_memory(status, strlen(options->tls_certificate), "a certificate");
    CT_TRY(tls_source_set(server->tls, options->tls_certificate, options->tls_key, options->tls_client_ca, status));
    server->credentials = tls_source_credentials(server->tls);
    return CT_OK;
}

ct_code ct_rpc_server_create(const ct_rpc_method *methods, size_t method_count, const ct_rpc_server_options *options,
                             ct_rpc_server **out_server, ct_status *status) {
    ct_rpc_server *server = calloc(1, sizeof *server);
    method *table = calloc(method_count + 1, sizeof *table);
    if (!server || !table) {
        free(server);
        free(table);
        return ct_fail_memory(status, sizeof *server, "a server");
    }
    server->methods = table;
    server->method_count = method_count;
    server->stopped_event = (event){EVENT_STOPPED, NULL};
    token_list_init(&server->tokens);
    (void)pthread_mutex_init(&server->lock, NULL);
    ct_condition_init(&server->change);

    ct_rpc_start_grpc();
    grpc_arg args[16] = {
        ct_rpc_integer_arg(GRPC_ARG_ALLOW_REUSEPORT, 0), /* else a second server would take half of the first one's connections */
        ct_rpc_integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                           options->max_message_bytes > INT32_MAX ? INT32_MAX : (int)options->max_message_bytes),
        ct_rpc_integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        ct_rpc_integer_arg(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0), /* a timer for each call: we look at deadlines ourselves */
        ct_rpc_integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS),
        ct_rpc_integer_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS),
        ct_rpc_integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        ct_rpc_integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        ct_rpc_integer_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        ct_rpc_integer_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, LEAST_PING_MS),
    };
    size_t arg_count = 10;
    if (options->max_connection_age_ms) {
        const int64_t age = options->max_connection_age_ms;
        args[arg_count++] = ct_rpc_integer_arg(GRPC_ARG_MAX_CONNECTION_AGE_MS, age > INT32_MAX ? INT32_MAX : (int)age);
        args[arg_count++] = ct_rpc_integer_arg(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, AGE_GRACE_MS);
    }
    const grpc_channel_args channel_args = {arg_count, args};
    server->server = grpc_server_create(&channel_args, NULL);
    server->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server->server, server->queue, NULL);
    ct_code code = register_methods(server, methods, status);
    if (code == CT_OK) code = prepare_access(server, options, status);
    if (code != CT_OK) {
        grpc_completion_queue_shutdown(server->queue);
        ct_rpc_server_destroy(server);
        return code;
    }
    *out_server = server;
    return CT_OK;
}

/* Why could the port not be had? gRPC only says that it could not. */
static ct_code listen_failure(const char *address, ct_status *status) {
    int fd = -1;
    CT_TRY(ct_listen(address, &fd, status));
    (void)close(fd);
    return ct_fail(status, CT_UNAVAILABLE, "cannot listen on %s: gRPC refuses the address", address);
}

ct_code ct_rpc_server_listen(ct_rpc_server *server, const char *address, ct_status *status) {
    char host[256];
    int port = 0;
    CT_TRY(ct_rpc_split_address(address, host, &port, status));
    const int bound = grpc_server_add_http2_port(server->server, address, server->credentials);
    if (bound == 0) return listen_failure(address, status);
    grpc_server_start(server->server);
    server->port = bound;
    server->listening = true;
    for (size_t i = 0; i < server->slot_count; i++) ct_rpc_call_arm(&server->slots[i]);
    return CT_OK;
}

int ct_rpc_server_port(const ct_rpc_server *server) { return server->port; }

ct_rpc_refusals ct_rpc_server_refusals(const ct_rpc_server *server) {
    return (ct_rpc_refusals){atomic_load(&server->no_token), atomic_load(&server->peer_limit), atomic_load(&server->no_method)};
}

ct_rpc_polled ct_rpc_server_poll(ct_rpc_server *server, void *worker, int64_t until_ns) {
    const grpc_event next = grpc_completion_queue_next(server->queue, ct_rpc_time(until_ns), NULL);
    if (next.type == GRPC_QUEUE_SHUTDOWN) return CT_RPC_STOPPED;
    if (next.type != GRPC_OP_COMPLETE) return CT_RPC_NOTHING;
    const event *happened = next.tag;
    if (happened->kind == EVENT_STOPPED) {
        (void)pthread_mutex_lock(&server->lock);
        server->stopped = true;
        (void)pthread_cond_broadcast(&server->change);
        (void)pthread_mutex_unlock(&server->lock);
    } else {
        ct_rpc_call_event(happened->call, happened->kind, next.success != 0, worker);
    }
    return CT_RPC_EVENT;
}

/* Under lock. Until something has changed, but not beyond the time given. */
static void wait_until(ct_rpc_server *server, int64_t limit_ns) { (void)ct_condition_wait(&server->change, &server->lock, limit_ns); }

void ct_rpc_server_stop(ct_rpc_server *server, int64_t grace_ms) {
    if (server->listening) {
        grpc_server_shutdown_and_notify(server->server, server->queue, &server->stopped_event);
        const int64_t limit = ct_clock_ns() + (grace_ms > 0 ? grace_ms : 0) * 1000000;
        int64_t idle_limit = 0;
        (void)pthread_mutex_lock(&server->lock);
        while (!server->stopped) {
            const int64_t now = ct_clock_ns();
            int64_t until = limit;
            if (atomic_load(&server->active) == 0) { /* only clients that have not yet said goodbye */
                if (idle_limit == 0) idle_limit = now + (int64_t)GOODBYE_MS * 1000000;
                if (idle_limit < until) until = idle_limit;
            }
            if (now >= until) break;
            wait_until(server, until);
        }
        const bool cancel = !server->stopped;
        (void)pthread_mutex_unlock(&server->lock);
        if (cancel) grpc_server_cancel_all_calls(server->server);
        (void)pthread_mutex_lock(&server->lock);
        /* A call that still computes ends first: gRPC aborts the program where a batch is started on a queue that is shut down. */
        while (!server->stopped || atomic_load(&server->active) != 0 || atomic_load(&server->streams) != 0)
            (void)pthread_cond_wait(&server->change, &server->lock);
        (void)pthread_mutex_unlock(&server->lock);
    }
    grpc_completion_queue_shutdown(server->queue);
}

void ct_rpc_server_destroy(ct_rpc_server *server) {
    if (!server) return;
    for (;;) { /* where no thread has drained the queue */
        const grpc_event left = grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (left.type == GRPC_QUEUE_SHUTDOWN) break;
    }
    for (size_t i = 0; i < server->slot_count && server->slots; i++) {
        grpc_metadata_array_destroy(&server->slots[i].metadata);
        grpc_call_details_destroy(&server->slots[i].details);
    }
    grpc_server_destroy(server->server);
    grpc_completion_queue_destroy(server->queue);
    grpc_server_credentials_release(server->credentials);
    tls_source_destroy(server->tls);
    grpc_shutdown();
    (void)pthread_cond_destroy(&server->change);
    (void)pthread_mutex_destroy(&server->lock);
    token_list_deinit(&server->tokens);
    peer_table_destroy(server->peers);
    free(server->slots);
    free(server->methods);
    free(server);
}
