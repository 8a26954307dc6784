/* The client's half of rpc.h: a channel that makes one call at a time, and a caller that has many in flight. */
#include <grpc/byte_buffer_reader.h>
#include <grpc/support/alloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "serving/rpc_internal.h"

/* --- one call at a time --- */

struct ct_rpc_channel {
    grpc_channel *channel;
    grpc_completion_queue *queue;
    grpc_slice request, reply;
    char *token; /* "Bearer ..."; NULL = none */
    grpc_metadata metadata;
    char target[300];
    bool tls;
};

static grpc_channel_credentials *client_credentials(const ct_rpc_access *access) {
    if (!access || !access->tls_ca) return grpc_insecure_credentials_create();
    grpc_ssl_pem_key_cert_pair pair = {.private_key = access->tls_key, .cert_chain = access->tls_certificate};
    return grpc_ssl_credentials_create(access->tls_ca, access->tls_certificate && access->tls_key ? &pair : NULL, NULL, NULL);
}

/* `retries`: a call that was lost with its connection before the server saw it is sent once more; makes each call a quarter dearer. NULL
 * where the certificates are no PEM texts. */
static grpc_channel *open_channel(const char *target, const ct_rpc_access *access, bool retries) {
    grpc_arg args[] = {
        ct_rpc_integer_arg(GRPC_ARG_ENABLE_RETRIES, retries),
        ct_rpc_integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1),
        ct_rpc_integer_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0), /* a model server is near; http_proxy is meant for the web */
        ct_rpc_integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        ct_rpc_integer_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100),
        ct_rpc_integer_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000),
        ct_rpc_integer_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1), /* else channels to one target share a connection */
    };
    const grpc_channel_args channel_args = {sizeof args / sizeof *args, args};
    grpc_channel_credentials *credentials = client_credentials(access);
    if (!credentials) return NULL;
    grpc_channel *channel = grpc_channel_create(target, credentials, &channel_args);
    grpc_channel_credentials_release(credentials);
    return channel;
}

/* Metadata of each call: the token. `text` keeps it. */
static ct_code make_metadata(const ct_rpc_access *access, char **out_text, grpc_metadata *out, ct_status *status) {
    if (!access || !access->token) return CT_OK;
    const size_t bytes = strlen(access->token) + sizeof "Bearer ";
    char *text = malloc(bytes);
    if (!text) return ct_fail_memory(status, bytes, "a token");
    (void)snprintf(text, bytes, "Bearer %s", access->token);
    out->key = grpc_slice_from_static_string("authorization");
    out->value = grpc_slice_from_static_string(text);
    *out_text = text;
    return CT_OK;
}

static ct_code fail_access(const char *target, ct_status *status) {
    return ct_fail(status, CT_INVALID, "%s: the CA, certificate or key is no PEM text", target);
}

ct_code ct_rpc_channel_create(const char *target, const ct_rpc_access *access, ct_rpc_channel **out_channel, ct_status *status) {
    char host[256];
    int port = 0;
    CT_TRY(ct_rpc_split_address(target, host, &port, status));
    ct_rpc_channel *channel = calloc(1, sizeof *channel);
    if (!channel) return ct_fail_memory(status, sizeof *channel, "a client");
    (void)snprintf(channel->target, sizeof channel->target, "%s", target);
    channel->tls = access && access->tls_ca;
    const ct_code code = make_metadata(access, &channel->token, &channel->metadata, status);
    if (code != CT_OK) {
        free(channel);
        return code;
    }
    ct_rpc_start_grpc();
    channel->channel = open_channel(target, access, true);
    if (!channel->channel) {
        grpc_shutdown();
        free(channel->token);
        free(channel);
        return fail_access(target, status);
    }
    channel->queue = grpc_completion_queue_create_for_next(NULL);
    channel->request = channel->reply = grpc_empty_slice();
    *out_channel = channel;
    return CT_OK;
}

void ct_rpc_channel_destroy(ct_rpc_channel *channel) {
    if (!channel) return;
    grpc_slice_unref(channel->request);
    grpc_slice_unref(channel->reply);
    grpc_channel_destroy(channel->channel);
    grpc_completion_queue_shutdown(channel->queue);
    while (grpc_completion_queue_next(channel->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type != GRPC_QUEUE_SHUTDOWN) continue;
    grpc_completion_queue_destroy(channel->queue);
    grpc_shutdown();
    free(channel->token);
    free(channel);
}

uint8_t *ct_rpc_channel_reserve(ct_rpc_channel *channel, size_t bytes) {
    grpc_slice_unref(channel->request);
    grpc_slice_unref(channel->reply);
    channel->reply = grpc_empty_slice();
    channel->request = grpc_slice_malloc(bytes);
    return GRPC_SLICE_START_PTR(channel->request);
}

/* What ended a call. Where no connection came about, gRPC's own words are long, and don't say what to look at. */
static ct_code fail_call(const ct_rpc_channel *channel, grpc_status_code code, grpc_slice details, ct_status *status) {
    static const char unconnected[] = "failed to connect to all addresses", last[] = "last error: ";
    char text[700];
    char *said = grpc_slice_to_c_string(details);
    const bool connected = strncmp(said, unconnected, sizeof unconnected - 1) != 0;
    const char *why = connected ? NULL : strstr(said, last);
    if (why) why += sizeof last - 1;
    ct_text_show(why ? why : said, strlen(why ? why : said), text, sizeof text);
    gpr_free(said);
    if (connected) return ct_fail(status, ct_rpc_code_from_grpc(code), "%s: %s", channel->target, text);
    return ct_fail(status, CT_UNAVAILABLE, "%s: no connection (%s); is there a gRPC server at this port, %s?", channel->target, text,
                   channel->tls ? "with TLS and a certificate that the CA has signed for this host" : "without TLS (else give a CA)");
}

ct_code ct_rpc_channel_call(ct_rpc_channel *channel, const char *path, int64_t timeout_ms, bool wait_for_server, const uint8_t **out_reply,
                            size_t *out_bytes, ct_status *status) {
    const gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    grpc_slice method_name = grpc_slice_from_static_string(path);
    grpc_call *call = grpc_channel_create_call(channel->channel, NULL, 0, channel->queue, method_name, NULL, deadline, NULL);
    grpc_metadata_array initial, trailing;
    grpc_metadata_array_init(&initial);
    grpc_metadata_array_init(&trailing);
    grpc_byte_buffer *body = grpc_raw_byte_buffer_create(&channel->request, 1), *answer = NULL;
    grpc_status_code code = GRPC_STATUS_UNKNOWN;
    grpc_slice details = grpc_empty_slice();

    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[0].data.send_initial_metadata.count = channel->token ? 1 : 0;
    ops[0].data.send_initial_metadata.metadata = &channel->metadata;
    if (wait_for_server) ops[0].flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY | GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = body;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &answer;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &trailing;
    ops[5].data.recv_status_on_client.status = &code;
    ops[5].data.recv_status_on_client.status_details = &details;

    ct_code result = CT_OK;
    const grpc_call_error error = grpc_call_start_batch(call, ops, 6, channel, NULL);
    if (error != GRPC_CALL_OK) {
        result = ct_fail(status, CT_INTERNAL, "%s: gRPC: %s", channel->target, grpc_call_error_to_string(error));
    } else {
        /* The deadline ends the call, so this ends too. */
        (void)grpc_completion_queue_next(channel->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (code != GRPC_STATUS_OK) {
            result = fail_call(channel, code, details, status);
        } else {
            grpc_byte_buffer_reader reader;
            if (answer && grpc_byte_buffer_reader_init(&reader, answer)) {
                channel->reply = grpc_byte_buffer_reader_readall(&reader);
                grpc_byte_buffer_reader_destroy(&reader);
            }
            *out_reply = GRPC_SLICE_START_PTR(channel->reply);
            *out_bytes = GRPC_SLICE_LENGTH(channel->reply);
        }
    }
    grpc_slice_unref(details);
    if (answer) grpc_byte_buffer_destroy(answer);
    grpc_byte_buffer_destroy(body);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_call_unref(call);
    return result;
}

/* --- many calls at once --- */

struct ct_rpc_caller {
    grpc_channel **channels;
    void **methods; /* (connections): the path, registered */
    size_t connections;
    atomic_size_t next_connection, in_flight;
    grpc_completion_queue *queue;
    char *token;
    grpc_metadata metadata;
    struct flight *last; /* the one whose result was handed out */
};

typedef struct flight {
    grpc_call *call;
    uint64_t tag;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *answer;
    grpc_slice reply;
    grpc_status_code code;
    grpc_slice details;
} flight;

static void flight_destroy(flight *f) {
    if (!f) return;
    grpc_slice_unref(f->reply);
    grpc_slice_unref(f->details);
    if (f->answer) grpc_byte_buffer_destroy(f->answer);
    grpc_metadata_array_destroy(&f->initial);
    grpc_metadata_array_destroy(&f->trailing);
    if (f->call) grpc_call_unref(f->call);
    free(f);
}

ct_code ct_rpc_caller_create(const char *target, const ct_rpc_access *access, const char *path, size_t connections,
                             ct_rpc_caller **out_caller, ct_status *status) {
    char host[256];
    int port = 0;
    CT_TRY(ct_rpc_split_address(target, host, &port, status));
    ct_rpc_caller *caller = calloc(1, sizeof *caller);
    grpc_channel **channels = calloc(connections, sizeof *channels);
    void **methods = calloc(connections, sizeof *methods);
    if (!caller || !channels || !methods) {
        free(caller);
        free(channels);
        free(methods);
        return ct_fail_memory(status, connections * sizeof *channels, "a client");
    }
    ct_rpc_start_grpc();
    *caller = (ct_rpc_caller){.channels = channels, .methods = methods};
    caller->queue = grpc_completion_queue_create_for_next(NULL);
    ct_code code = make_metadata(access, &caller->token, &caller->metadata, status);
    for (size_t i = 0; i < connections && code == CT_OK; i++) {
        channels[i] = open_channel(target, access, false);
        if (!channels[i]) {
            code = fail_access(target, status);
            break;
        }
        caller->connections++;
        methods[i] = grpc_channel_register_call(channels[i], path, NULL, NULL);
    }
    if (code != CT_OK) {
        ct_rpc_caller_destroy(caller);
        return code;
    }
    *out_caller = caller;
    return CT_OK;
}

void ct_rpc_caller_destroy(ct_rpc_caller *caller) {
    if (!caller) return;
    for (size_t i = 0; i < caller->connections; i++) grpc_channel_destroy(caller->channels[i]);
    grpc_completion_queue_shutdown(caller->queue);
    for (;;) { /* every call has a deadline, so this ends */
        const grpc_event left = grpc_completion_queue_next(caller->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (left.type == GRPC_QUEUE_SHUTDOWN) break;
        flight_destroy(left.tag);
    }
    flight_destroy(caller->last);
    grpc_completion_queue_destroy(caller->queue);
    free(caller->methods);
    free(caller->channels);
    free(caller->token);
    free(caller);
    grpc_shutdown();
}

ct_code ct_rpc_caller_start(ct_rpc_caller *caller, const uint8_t *request, size_t bytes, int64_t deadline_ns, uint64_t tag,
                            ct_status *status) {
    flight *f = calloc(1, sizeof *f);
    if (!f) return ct_fail_memory(status, sizeof *f, "a call");
    grpc_metadata_array_init(&f->initial);
    grpc_metadata_array_init(&f->trailing);
    f->tag = tag;
    f->code = GRPC_STATUS_UNKNOWN;
    f->details = f->reply = grpc_empty_slice();
    const size_t c = atomic_fetch_add(&caller->next_connection, 1) % caller->connections;
    f->call = grpc_channel_create_registered_call(caller->channels[c], NULL, 0, caller->queue, caller->methods[c], ct_rpc_time(deadline_ns),
                                                  NULL);
    grpc_slice piece = grpc_slice_from_static_buffer(request, bytes);
    grpc_byte_buffer *body = grpc_raw_byte_buffer_create(&piece, 1);
    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[0].data.send_initial_metadata.count = caller->token ? 1 : 0;
    ops[0].data.send_initial_metadata.metadata = &caller->metadata;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = body;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &f->initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &f->answer;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &f->trailing;
    ops[5].data.recv_status_on_client.status = &f->code;
    ops[5].data.recv_status_on_client.status_details = &f->details;
    atomic_fetch_add(&caller->in_flight, 1);
    const grpc_call_error error = grpc_call_start_batch(f->call, ops, 6, f, NULL);
    grpc_byte_buffer_destroy(body);
    if (error == GRPC_CALL_OK) return CT_OK;
    atomic_fetch_sub(&caller->in_flight, 1);
    flight_destroy(f);
    return ct_fail(status, CT_INTERNAL, "gRPC: %s", grpc_call_error_to_string(error));
}

size_t ct_rpc_caller_in_flight(const ct_rpc_caller *caller) { return atomic_load(&caller->in_flight); }

bool ct_rpc_caller_next(ct_rpc_caller *caller, int64_t until_ns, ct_rpc_result *out_result) {
    flight_destroy(caller->last);
    caller->last = NULL;
    const grpc_event next = grpc_completion_queue_next(caller->queue, ct_rpc_time(until_ns), NULL);
    if (next.type != GRPC_OP_COMPLETE) return false;
    flight *f = caller->last = next.tag;
    (void)atomic_fetch_sub(&caller->in_flight, 1);
    grpc_byte_buffer_reader reader;
    if (f->code == GRPC_STATUS_OK && f->answer && grpc_byte_buffer_reader_init(&reader, f->answer)) {
        f->reply = grpc_byte_buffer_reader_readall(&reader);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    *out_result = (ct_rpc_result){.tag = f->tag,
                                  .code = ct_rpc_code_from_grpc(f->code),
                                  .reply = GRPC_SLICE_START_PTR(f->reply),
                                  .reply_bytes = GRPC_SLICE_LENGTH(f->reply)};
    const size_t said = GRPC_SLICE_LENGTH(f->details);
    ct_text_show((const char *)GRPC_SLICE_START_PTR(f->details), said, out_result->message, sizeof out_result->message);
    return true;
}
