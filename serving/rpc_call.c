/* Calls of the server. Design. A call lives in a slot: memory that is armed (gRPC may put a call there), taken, answered and armed again.
 * What gRPC gives back through the completion queue is the address of an event, which says what happened to which slot: its close (the
 * client is done with it, or has cancelled), its reply (sent), and for streams each message read or written. `pending` counts those that
 * are still to come; who takes it to zero frees the call and arms the slot again.
 *
 * The close is asked for apart from the reply, so that a cancelled call is known before it is computed; but where the handler has ended the
 * call, or will only fail it, together with it: a call that is refused costs one batch and one event less. gRPC writes `cancelled` once,
 * before the event; reading it earlier is a hint, never more.
 *
 * After the server has stopped, arming fails or comes back unsuccessful; the slot then stays unarmed. */
#include <grpc/byte_buffer_reader.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "serving/rpc_internal.h"

/* --- slots --- */

void ct_rpc_call_arm(ct_rpc_call *call) {
    ct_rpc_server *server = call->server;
    call->metadata.count = 0;
    atomic_store(&call->pending, 0); /* hands the slot over: see ct_rpc_call_event */
    if (call->method->registered)
        (void)grpc_server_request_registered_call(server->server, call->method->registered, &call->call, &call->deadline, &call->metadata,
                                                  call->method->public.stream ? NULL : &call->payload, server->queue, server->queue,
                                                  &call->taken);
    else
        (void)grpc_server_request_call(server->server, &call->call, &call->details, &call->metadata, server->queue, server->queue,
                                       &call->taken);
}

static void call_clear(ct_rpc_call *call) {
    grpc_slice_unref(call->request);
    grpc_slice_unref(call->response);
    call->request = call->response = grpc_empty_slice();
    if (call->payload) grpc_byte_buffer_destroy(call->payload);
    call->payload = NULL;
    if (!call->method->registered) {
        grpc_call_details_destroy(&call->details);
        grpc_call_details_init(&call->details);
    }
    if (call->peer) peer_table_leave(call->server->peers, call->peer);
    call->peer = NULL;
    if (call->call) grpc_call_unref(call->call);
    call->call = NULL;
    call->has_response = call->greeted = false;
    call->data = NULL;
}

void ct_rpc_call_one_less_pending(ct_rpc_call *call) {
    if (atomic_fetch_sub(&call->pending, 1) != 1) return;
    ct_rpc_server *server = call->server;
    atomic_size_t *count = call->method->public.stream ? &server->streams : &server->active;
    call_clear(call);
    ct_rpc_call_arm(call);
    if (atomic_fetch_sub(count, 1) == 1) { /* somebody may wait for that */
        (void)pthread_mutex_lock(&server->lock);
        (void)pthread_cond_broadcast(&server->change);
        (void)pthread_mutex_unlock(&server->lock);
    }
}

static void start_batch(ct_rpc_call *call, const grpc_op *ops, size_t count, event *tag) {
    grpc_call *grpc = call->call;
    (void)atomic_fetch_add(&call->pending, 0); /* see ct_rpc_call_event */
    if (grpc_call_start_batch(grpc, ops, count, tag, NULL) != GRPC_CALL_OK) ct_rpc_call_one_less_pending(call);
}

/* One contiguous piece: most often the payload's only slice as it is. */
static void read_payload(ct_rpc_call *call) {
    grpc_byte_buffer_reader reader;
    if (!call->payload || !grpc_byte_buffer_reader_init(&reader, call->payload)) return;
    grpc_slice first;
    if (grpc_byte_buffer_reader_next(&reader, &first)) {
        if (GRPC_SLICE_LENGTH(first) == grpc_byte_buffer_length(call->payload)) {
            call->request = first;
        } else {
            grpc_slice_unref(first);
            grpc_byte_buffer_reader_destroy(&reader);
            if (!grpc_byte_buffer_reader_init(&reader, call->payload)) return;
            call->request = grpc_byte_buffer_reader_readall(&reader);
        }
    }
    grpc_byte_buffer_reader_destroy(&reader);
}

static void forget_request(ct_rpc_call *call) {
    grpc_slice_unref(call->request);
    call->request = grpc_empty_slice();
    if (call->payload) grpc_byte_buffer_destroy(call->payload);
    call->payload = NULL;
}

/* Whether the call may go on to its handler; else it is ended. */
static bool admit(ct_rpc_call *call) {
    ct_rpc_server *server = call->server;
    if (!call->method->registered) {
        atomic_fetch_add(&server->no_method, 1);
        ct_status status = CT_STATUS_INIT;
        char name[128];
        ct_text_show((const char *)GRPC_SLICE_START_PTR(call->details.method), GRPC_SLICE_LENGTH(call->details.method), name, sizeof name);
        (void)ct_fail(&status, CT_UNSUPPORTED, "no method %s here", name);
        ct_rpc_call_fail(call, &status);
        return false;
    }
    if (call->method->public.needs_token && !token_list_allows(&server->tokens, &call->metadata)) {
        atomic_fetch_add(&server->no_token, 1);
        ct_rpc_call_finish(call, GRPC_STATUS_UNAUTHENTICATED,
                           "metadata 'authorization' must be 'Bearer TOKEN' with a token of this server");
        return false;
    }
    if (server->peers && call->method->public.needs_token) {
        call->peer = peer_table_enter(server->peers, call->call);
        if (!call->peer) {
            atomic_fetch_add(&server->peer_limit, 1);
            ct_rpc_call_finish(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "too many calls at once from this address; try again later");
            return false;
        }
    }
    return true;
}

static grpc_op close_op(ct_rpc_call *call) {
    return (grpc_op){.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->cancelled};
}

static void ask_for_close(ct_rpc_call *call) {
    if (atomic_exchange(&call->close_asked, true)) return;
    const grpc_op close = close_op(call);
    start_batch(call, &close, 1, &call->closed);
}

void ct_rpc_call_take(ct_rpc_call *call, void *worker) {
    const ct_rpc_method *public = &call->method->public;
    atomic_fetch_add(public->stream ? &call->server->streams : &call->server->active, 1);
    atomic_store(&call->pending, 3); /* close, reply, and this function */
    call->cancelled = 0;
    atomic_store(&call->ended, false);
    const gpr_timespec left = gpr_time_sub(call->deadline, gpr_now(call->deadline.clock_type));
    call->deadline_ns = INT64_MAX;
    if (left.tv_sec < INT32_MAX) call->deadline_ns = ct_clock_ns() + left.tv_sec * 1000000000 + left.tv_nsec;
    atomic_store(&call->close_asked, false);
    call->watched = true;
    if (public->stream) ask_for_close(call);
    if (admit(call)) {
        if (public->stream) {
            ct_rpc_stream_read(call);
        } else {
            call->has_message = call->payload != NULL;
            read_payload(call);
            public->handle(public->context, worker, call);
        }
    }
    if (call->watched) ask_for_close(call);
    ct_rpc_call_one_less_pending(call);
}

/* --- streams --- */

void **ct_rpc_call_data(ct_rpc_call *call) { return &call->data; }

void ct_rpc_stream_read(ct_rpc_call *call) {
    forget_request(call);
    const grpc_op receive = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->payload};
    (void)atomic_fetch_add(&call->pending, 1);
    start_batch(call, &receive, 1, &call->read);
}

static grpc_byte_buffer *take_response(ct_rpc_call *call) {
    if (!call->has_response) return NULL;
    grpc_byte_buffer *body = grpc_raw_byte_buffer_create(&call->response, 1);
    grpc_slice_unref(call->response);
    call->response = grpc_empty_slice();
    call->has_response = false;
    return body;
}

void ct_rpc_stream_write(ct_rpc_call *call) {
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    size_t count = 0;
    if (!call->greeted) ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    call->greeted = true;
    grpc_byte_buffer *body = take_response(call);
    ops[count].op = GRPC_OP_SEND_MESSAGE;
    ops[count++].data.send_message.send_message = body;
    (void)atomic_fetch_add(&call->pending, 1);
    start_batch(call, ops, count, &call->written);
    grpc_byte_buffer_destroy(body);
}

static void stream_event(ct_rpc_call *call, event_kind kind, bool success, void *worker) {
    const ct_rpc_method *public = &call->method->public;
    const ct_rpc_stream_fns *stream = public->stream;
    if (kind == EVENT_READ) {
        if (call->payload) {
            read_payload(call);
            stream->message(public->context, worker, call);
        } else if (success && !__atomic_load_n(&call->cancelled, __ATOMIC_RELAXED)) {
            stream->end(public->context, worker, call);
        }
    } else if (kind == EVENT_WRITTEN) {
        if (success) stream->written(public->context, worker, call);
    } else if (kind == EVENT_CLOSED) {
        stream->closed(public->context, worker, call);
        ct_rpc_call_finish(call, GRPC_STATUS_CANCELLED, "cancelled");
    }
}

void ct_rpc_call_event(ct_rpc_call *call, event_kind kind, bool success, void *worker) {
    /* gRPC's queue orders what one thread did before it gave something to gRPC and what another does after it came back. So does this
     * load, with the write of `pending` that stands before each of our calls, where thread sanitizer can see it. */
    (void)atomic_load(&call->pending);
    if (kind == EVENT_TAKEN) {
        if (success) ct_rpc_call_take(call, worker); /* else: the server stops */
        return;
    }
    if (call->method->public.stream) stream_event(call, kind, success, worker);
    ct_rpc_call_one_less_pending(call);
}

/* --- one call, for handlers --- */

const uint8_t *ct_rpc_call_request(const ct_rpc_call *call, size_t *out_bytes) {
    *out_bytes = GRPC_SLICE_LENGTH(call->request);
    return GRPC_SLICE_START_PTR(call->request);
}

void ct_rpc_call_will_fail(ct_rpc_call *call) {
    forget_request(call);
    call->watched = false;
}

int64_t ct_rpc_call_deadline_ns(const ct_rpc_call *call) { return call->deadline_ns; }

ct_code ct_rpc_call_why_unwanted(const ct_rpc_call *call, int64_t now_ns) {
    if (call->deadline_ns <= now_ns) return CT_DEADLINE;
    return __atomic_load_n(&call->cancelled, __ATOMIC_RELAXED) || !call->has_message ? CT_CANCELLED : CT_OK;
}

uint8_t *ct_rpc_call_reserve(ct_rpc_call *call, size_t bytes) {
    call->response = grpc_slice_malloc(bytes);
    call->has_response = true;
    return GRPC_SLICE_START_PTR(call->response);
}

void ct_rpc_call_finish(ct_rpc_call *call, grpc_status_code code, const char *message) {
    if (atomic_exchange(&call->ended, true)) return;
    grpc_op ops[4];
    memset(ops, 0, sizeof ops);
    size_t count = 0;
    if (!atomic_exchange(&call->close_asked, true)) {
        ops[count++] = close_op(call);
        (void)atomic_fetch_sub(&call->pending, 1); /* the reply's event is the close's, too */
    }
    if (!call->greeted) ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    call->greeted = true;
    grpc_byte_buffer *body = code == GRPC_STATUS_OK ? take_response(call) : NULL;
    if (body) {
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count++].data.send_message.send_message = body;
    }
    grpc_slice details = message ? grpc_slice_from_copied_string(message) : grpc_empty_slice();
    ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[count].data.send_status_from_server.status = code;
    ops[count++].data.send_status_from_server.status_details = message ? &details : NULL;
    start_batch(call, ops, count, &call->replied);
    /* The batch has taken the slices over; `call` may be gone. */
    grpc_slice_unref(details);
    if (body) grpc_byte_buffer_destroy(body);
}

void ct_rpc_call_reply(ct_rpc_call *call) { ct_rpc_call_finish(call, GRPC_STATUS_OK, NULL); }

void ct_rpc_call_fail(ct_rpc_call *call, const ct_status *status) {
    ct_rpc_call_finish(call, status->code == CT_OK ? GRPC_STATUS_INTERNAL : ct_rpc_code_to_grpc(status->code), status->message);
}
