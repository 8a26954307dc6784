/* Design. A call lives in a slot: memory that is armed (gRPC may put a call there), taken, answered and armed again. What gRPC gives back
 * through the completion queue is the address of an event, which says what happened to which slot. Events of a taken slot: its close (the
 * client is done with it, or has cancelled), its reply (sent), and tasks posted for it. `pending` counts those that are still to come; who
 * takes it to zero frees the call and arms the slot again.
 *
 * The close is asked for when the call is taken, apart from the reply, so that a cancelled call is known before it is computed. gRPC
 * writes `cancelled` once, before the event; reading it earlier is a hint, never more.
 *
 * Posting uses that an empty batch of operations comes back through the queue at once: so an idle worker, which waits in
 * grpc_completion_queue_next, needs no second place to wait in.
 *
 * Threads: grpc_call_start_batch may not run twice at once for one call. A call has one owner at a time (see ct_rpc_call_post), so it
 * does not. After the server has stopped, arming fails or comes back unsuccessful; the slot then stays unarmed. */
#include <arpa/inet.h>
#include <errno.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "serving/rpc_internal.h"

/* Streams of one connection: what a client may have waiting inside of gRPC, where we can't refuse it. */
enum { UNKNOWN_SLOTS = 4, GOODBYE_MS = 100, STREAMS = 1024 };

typedef enum event_kind { EVENT_TAKEN, EVENT_CLOSED, EVENT_REPLIED, EVENT_TASK, EVENT_STOPPED } event_kind;

typedef struct event {
    event_kind kind;
    ct_rpc_call *call; /* NULL for EVENT_STOPPED */
} event;

typedef struct method {
    ct_rpc_method public;
    void *registered; /* NULL: any other method */
} method;

struct ct_rpc_call {
    ct_rpc_server *server;
    const method *method;
    event taken, closed, replied, task;
    grpc_call *call;
    gpr_timespec deadline;
    int64_t deadline_ns; /* by ct_clock_ns; INT64_MAX = none */
    grpc_metadata_array metadata;
    grpc_call_details details; /* of any other method */
    grpc_byte_buffer *payload;
    grpc_slice request, response; /* owned */
    bool has_response;
    int cancelled; /* gRPC's */
    ct_rpc_task_fn task_function;
    void *task_argument;
    atomic_size_t pending;
};

struct ct_rpc_server {
    grpc_completion_queue *queue;
    grpc_server *server;
    bool listening;
    int port;
    event stopped_event;
    atomic_size_t active; /* calls taken and not yet freed */
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool stopped; /* under lock */
    size_t method_count;
    method *methods; /* (method_count + 1): the last one stands for all others */
    size_t slot_count;
    ct_rpc_call *slots;
};

/* --- slots --- */

static void arm(ct_rpc_call *call) {
    ct_rpc_server *server = call->server;
    call->metadata.count = 0;
    atomic_store(&call->pending, 0); /* hands the slot over: see handle_event */
    if (call->method->registered)
        (void)grpc_server_request_registered_call(server->server, call->method->registered, &call->call, &call->deadline, &call->metadata,
                                                  &call->payload, server->queue, server->queue, &call->taken);
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
    if (call->call) grpc_call_unref(call->call);
    call->call = NULL;
    call->has_response = false;
}

static void one_less_pending(ct_rpc_call *call) {
    if (atomic_fetch_sub(&call->pending, 1) != 1) return;
    ct_rpc_server *server = call->server;
    call_clear(call);
    arm(call);
    if (atomic_fetch_sub(&server->active, 1) == 1) { /* somebody may wait for that */
        (void)pthread_mutex_lock(&server->lock);
        (void)pthread_cond_broadcast(&server->change);
        (void)pthread_mutex_unlock(&server->lock);
    }
}

static void start_batch(ct_rpc_call *call, const grpc_op *ops, size_t count, event *tag) {
    grpc_call *grpc = call->call;
    (void)atomic_fetch_add(&call->pending, 0); /* see handle_event */
    if (grpc_call_start_batch(grpc, ops, count, tag, NULL) != GRPC_CALL_OK) one_less_pending(call);
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

static void take(ct_rpc_call *call, void *worker) {
    atomic_fetch_add(&call->server->active, 1);
    atomic_store(&call->pending, 3); /* close, reply, and this function */
    call->cancelled = 0;
    const gpr_timespec left = gpr_time_sub(call->deadline, gpr_now(call->deadline.clock_type));
    call->deadline_ns = INT64_MAX;
    if (left.tv_sec < INT32_MAX) call->deadline_ns = ct_clock_ns() + left.tv_sec * 1000000000 + left.tv_nsec;
    const grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->cancelled};
    start_batch(call, &close, 1, &call->closed);
    if (call->method->registered) {
        read_payload(call);
        call->method->public.handle(call->method->public.context, worker, call);
    } else {
        ct_status status = CT_STATUS_INIT;
        char name[128];
        ct_text_show((const char *)GRPC_SLICE_START_PTR(call->details.method), GRPC_SLICE_LENGTH(call->details.method), name, sizeof name);
        (void)ct_fail(&status, CT_UNSUPPORTED, "no method %s here", name);
        ct_rpc_call_fail(call, &status);
    }
    one_less_pending(call);
}

static void handle_event(ct_rpc_server *server, const event *happened, bool success, void *worker) {
    ct_rpc_call *call = happened->call;
    /* gRPC's queue orders what one thread did before it gave something to gRPC and what another does after it came back. So does this
     * load, with the write of `pending` that stands before each of our calls, where thread sanitizer can see it. */
    if (call) (void)atomic_load(&call->pending);
    switch (happened->kind) {
        case EVENT_TAKEN:
            if (success) take(call, worker); /* else: the server stops */
            break;
        case EVENT_TASK:
            call->task_function(call->task_argument, worker);
            one_less_pending(call);
            break;
        case EVENT_CLOSED:
        case EVENT_REPLIED:
            one_less_pending(call);
            break;
        case EVENT_STOPPED:
            (void)pthread_mutex_lock(&server->lock);
            server->stopped = true;
            (void)pthread_cond_broadcast(&server->change);
            (void)pthread_mutex_unlock(&server->lock);
            break;
    }
}

void ct_rpc_server_work(ct_rpc_server *server, void *worker, ct_rpc_before_wait_fn before_wait) {
    for (;;) {
        const int64_t until = before_wait ? before_wait(worker) : INT64_MAX;
        const grpc_event next = grpc_completion_queue_next(server->queue, ct_rpc_time(until), NULL);
        if (next.type == GRPC_QUEUE_SHUTDOWN) return;
        if (next.type == GRPC_OP_COMPLETE) handle_event(server, next.tag, next.success != 0, worker);
    }
}

/* --- one call, for handlers --- */

const uint8_t *ct_rpc_call_request(const ct_rpc_call *call, size_t *out_bytes) {
    *out_bytes = GRPC_SLICE_LENGTH(call->request);
    return GRPC_SLICE_START_PTR(call->request);
}

ct_code ct_rpc_call_why_unwanted(const ct_rpc_call *call, int64_t now_ns) {
    if (call->deadline_ns <= now_ns) return CT_DEADLINE;
    return __atomic_load_n(&call->cancelled, __ATOMIC_RELAXED) ? CT_CANCELLED : CT_OK;
}

ct_code ct_rpc_call_wanted(const ct_rpc_call *call, ct_status *status) {
    const ct_code code = ct_rpc_call_why_unwanted(call, ct_clock_ns());
    if (code == CT_OK) return CT_OK;
    return ct_fail(status, code, code == CT_DEADLINE ? "the deadline has passed" : "the client has cancelled");
}

uint8_t *ct_rpc_call_reserve(ct_rpc_call *call, size_t bytes) {
    call->response = grpc_slice_malloc(bytes);
    call->has_response = true;
    return GRPC_SLICE_START_PTR(call->response);
}

static void finish(ct_rpc_call *call, grpc_status_code code, const char *message) {
    grpc_op ops[3];
    memset(ops, 0, sizeof ops);
    size_t count = 0;
    ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    grpc_byte_buffer *body = NULL;
    if (call->has_response) {
        body = grpc_raw_byte_buffer_create(&call->response, 1);
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

void ct_rpc_call_reply(ct_rpc_call *call) { finish(call, GRPC_STATUS_OK, NULL); }

void ct_rpc_call_fail(ct_rpc_call *call, const ct_status *status) {
    call->has_response = false;
    finish(call, status->code == CT_OK ? GRPC_STATUS_INTERNAL : ct_rpc_code_to_grpc(status->code), status->message);
}

size_t ct_rpc_call_post(ct_rpc_call *call, size_t count, ct_rpc_task_fn task, void *argument) {
    call->task_function = task;
    call->task_argument = argument;
    size_t posted = 0;
    while (posted < count) {
        atomic_fetch_add(&call->pending, 1);
        if (grpc_call_start_batch(call->call, NULL, 0, &call->task, NULL) != GRPC_CALL_OK) {
            atomic_fetch_sub(&call->pending, 1); /* never the last: this call has not ended */
            break;
        }
        posted++;
    }
    return posted;
}

/* --- the server --- */

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
            call->task = (event){EVENT_TASK, call};
            call->deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
            call->request = call->response = grpc_empty_slice();
            grpc_metadata_array_init(&call->metadata);
            grpc_call_details_init(&call->details);
        }
    }
    return CT_OK;
}

ct_code ct_rpc_server_create(const ct_rpc_method *methods, size_t method_count, uint32_t max_message_bytes, ct_rpc_server **out_server,
                             ct_status *status) {
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
    (void)pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&server->change, &attributes);
    (void)pthread_condattr_destroy(&attributes);

    ct_rpc_start_grpc();
    grpc_arg args[] = {
        ct_rpc_integer_arg(GRPC_ARG_ALLOW_REUSEPORT, 0), /* else a second server would take half of the first one's connections */
        ct_rpc_integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, max_message_bytes > INT32_MAX ? INT32_MAX : (int)max_message_bytes),
        ct_rpc_integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        ct_rpc_integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS),
    };
    const grpc_channel_args channel_args = {sizeof args / sizeof *args, args};
    server->server = grpc_server_create(&channel_args, NULL);
    server->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server->server, server->queue, NULL);
    ct_code code = CT_OK;
    for (size_t m = 0; m < method_count && code == CT_OK; m++) {
        table[m].public = methods[m];
        table[m].registered =
            grpc_server_register_method(server->server, methods[m].path, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
        if (!table[m].registered) code = ct_fail(status, CT_INTERNAL, "gRPC does not take method %s", methods[m].path);
    }
    table[method_count].public.slots = UNKNOWN_SLOTS;
    if (code == CT_OK) code = slots_create(server, status);
    if (code != CT_OK) {
        grpc_completion_queue_shutdown(server->queue);
        ct_rpc_server_destroy(server);
        return code;
    }
    *out_server = server;
    return CT_OK;
}

/* Why could the port not be had? gRPC only says that it could not. */
static ct_code listen_failure(const char *address, const char *host, int port, ct_status *status) {
    char service[16];
    (void)snprintf(service, sizeof service, "%d", port);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    const int lookup = getaddrinfo(host, service, &hints, &found);
    if (lookup != 0) return ct_fail(status, CT_UNAVAILABLE, "cannot listen on %s: %s", address, gai_strerror(lookup));
    int error = 0;
    for (const struct addrinfo *a = found; a && !error; a = a->ai_next) {
        const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) continue;
        const int on = 1;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1) != 0) error = errno;
        (void)close(fd);
    }
    freeaddrinfo(found);
    if (error == EADDRINUSE)
        return ct_fail(status, CT_UNAVAILABLE, "cannot listen on %s: the port is in use; stop the other program or choose another port",
                       address);
    return ct_fail(status, CT_UNAVAILABLE, "cannot listen on %s: %s", address, error ? strerror(error) : "gRPC refuses the address");
}

ct_code ct_rpc_server_listen(ct_rpc_server *server, const char *address, ct_status *status) {
    char host[256];
    int port = 0;
    CT_TRY(ct_rpc_split_address(address, host, &port, status));
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    const int bound = grpc_server_add_http2_port(server->server, address, credentials);
    grpc_server_credentials_release(credentials);
    if (bound == 0) return listen_failure(address, host, port, status);
    grpc_server_start(server->server);
    server->port = bound;
    server->listening = true;
    for (size_t i = 0; i < server->slot_count; i++) arm(&server->slots[i]);
    return CT_OK;
}

int ct_rpc_server_port(const ct_rpc_server *server) { return server->port; }

/* Under lock. Until something has changed, but not beyond the time given. */
static void wait_until(ct_rpc_server *server, int64_t limit_ns) {
    const struct timespec limit = {.tv_sec = limit_ns / 1000000000, .tv_nsec = limit_ns % 1000000000};
    (void)pthread_cond_timedwait(&server->change, &server->lock, &limit);
}

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
        while (!server->stopped || atomic_load(&server->active) != 0) (void)pthread_cond_wait(&server->change, &server->lock);
        (void)pthread_mutex_unlock(&server->lock);
    }
    grpc_completion_queue_shutdown(server->queue);
}

void ct_rpc_server_destroy(ct_rpc_server *server) {
    if (!server) return;
    for (;;) { /* where no worker has drained the queue */
        const grpc_event left = grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (left.type == GRPC_QUEUE_SHUTDOWN) break;
    }
    for (size_t i = 0; i < server->slot_count && server->slots; i++) {
        grpc_metadata_array_destroy(&server->slots[i].metadata);
        grpc_call_details_destroy(&server->slots[i].details);
    }
    grpc_server_destroy(server->server);
    grpc_completion_queue_destroy(server->queue);
    grpc_shutdown();
    (void)pthread_cond_destroy(&server->change);
    (void)pthread_mutex_destroy(&server->lock);
    free(server->slots);
    free(server->methods);
    free(server);
}
