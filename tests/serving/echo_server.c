/* A bare gRPC server that sends every request back: what the C core and the network cost, measured beside ours (tools/bench serve).
 *
 *     echo_server [THREADS]      prints `listening on 127.0.0.1:PORT`; ends with standard input
 *
 * Written as lean as the C core allows: one completion queue, a slot for each call, the reply and the close in one batch. */
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 512, MAX_THREADS = 64 };

typedef struct slot {
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload;
    int cancelled;
    bool answering;
} slot;

static grpc_server *server;
static grpc_completion_queue *queue;
static void *method;

static void arm(slot *s) {
    s->answering = false;
    s->metadata.count = 0;
    (void)grpc_server_request_registered_call(server, method, &s->call, &s->deadline, &s->metadata, &s->payload, queue, queue, s);
}

static void answer(slot *s) {
    grpc_op ops[4];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = s->payload;
    ops[2].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[3].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[3].data.recv_close_on_server.cancelled = &s->cancelled;
    s->answering = true;
    if (grpc_call_start_batch(s->call, ops, 4, s, NULL) != GRPC_CALL_OK) abort();
}

static void *work(void *argument) {
    (void)argument;
    for (;;) {
        const grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        slot *s = event.tag;
        if (!s) continue; /* the server has stopped */
        if (s->answering) {
            grpc_byte_buffer_destroy(s->payload);
            s->payload = NULL;
            grpc_call_unref(s->call);
            arm(s);
        } else if (event.success && s->payload) {
            answer(s);
        }
    }
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MAX_THREADS) return 2;
    grpc_init();
    grpc_arg args[] = {{.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = -1},
                       {.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_ENABLE_CHANNELZ, .value.integer = 0}};
    const grpc_channel_args channel_args = {2, args};
    server = grpc_server_create(&channel_args, NULL);
    queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server, queue, NULL);
    method = grpc_server_register_method(server, "/echo.Echo/Echo", NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    const int port = grpc_server_add_http2_port(server, "127.0.0.1:0", credentials);
    grpc_server_credentials_release(credentials);
    if (!method || port == 0) return 1;
    grpc_server_start(server);
    slot *slots = calloc(SLOTS, sizeof *slots);
    for (size_t i = 0; slots && i < SLOTS; i++) {
        grpc_metadata_array_init(&slots[i].metadata);
        arm(&slots[i]);
    }
    pthread_t workers[MAX_THREADS];
    for (int i = 0; i < threads; i++)
        if (pthread_create(&workers[i], NULL, work, NULL) != 0) return 1;
    (void)printf("listening on 127.0.0.1:%d\n", port);
    (void)fflush(stdout);
    while (getchar() != EOF) continue;
    _Exit(0); /* it holds nothing that outlives it */
}
