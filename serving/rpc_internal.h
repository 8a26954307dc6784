/* What the files rpc*.c share. For these only. */
#ifndef SERVING_RPC_INTERNAL_H
#define SERVING_RPC_INTERNAL_H

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdatomic.h>

#include "serving/rpc.h"

/* --- both sides (rpc_common.c) --- */

/* Once for each ct_rpc_server and channel; grpc_shutdown ends it. */
void ct_rpc_start_grpc(void);
grpc_status_code ct_rpc_code_to_grpc(ct_code code);
ct_code ct_rpc_code_from_grpc(grpc_status_code code);
grpc_arg ct_rpc_integer_arg(const char *key, int value);
/* Splits HOST:PORT; the host may be [v6]. */
CT_MUST_CHECK ct_code ct_rpc_split_address(const char *address, char host[256], int *out_port, ct_status *status);
/* ct_clock_ns to gRPC's clock; INT64_MAX = never, 0 = long ago. */
gpr_timespec ct_rpc_time(int64_t ns);

/* --- who may call (rpc_access.c) --- */

/* Tokens, each in a field of one size, so that comparing takes the same time for all. */
typedef struct token_list {
    pthread_rwlock_t lock;
    size_t count;
    uint8_t (*tokens)[CT_RPC_TOKEN_BYTES + 1]; /* length - 1, then the bytes, zeros behind */
} token_list;
void token_list_init(token_list *list);
void token_list_deinit(token_list *list);
bool token_list_allows(token_list *list, const grpc_metadata_array *metadata);

/* Calls at once of each address. */
typedef struct peer_table peer_table;
peer_table *peer_table_create(size_t max_calls);
void peer_table_destroy(peer_table *table); /* NULL is fine */
/* The address's entry, counted up; NULL where it has too many (or memory is short). */
struct peer *peer_table_enter(peer_table *table, grpc_call *call);
void peer_table_leave(peer_table *table, struct peer *peer);

/* The certificate of new connections. */
typedef struct tls_source tls_source;
tls_source *tls_source_create(void);         /* NULL when out of memory */
void tls_source_destroy(tls_source *source); /* after the server; NULL is fine */
/* Copies the texts (client_ca: NULL = none); CT_INVALID, and nothing changed, where they can't be used. One caller at a time. */
CT_MUST_CHECK ct_code tls_source_set(tls_source *source, const char *certificate, const char *key, const char *client_ca,
                                     ct_status *status);
/* After the first tls_source_set. */
grpc_server_credentials *tls_source_credentials(tls_source *source);

/* --- the server (rpc_server.c) and its calls (rpc_call.c) --- */

typedef enum event_kind { EVENT_TAKEN, EVENT_CLOSED, EVENT_REPLIED, EVENT_READ, EVENT_WRITTEN, EVENT_STOPPED } event_kind;

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
    event taken, closed, replied, read, written;
    grpc_call *call;
    gpr_timespec deadline;
    int64_t deadline_ns; /* by ct_clock_ns; INT64_MAX = none */
    grpc_metadata_array metadata;
    grpc_call_details details; /* of any other method */
    grpc_byte_buffer *payload;
    grpc_slice request, response; /* owned */
    bool has_message;             /* else its client has cancelled it meanwhile (or is at fault) */
    bool has_response;
    bool greeted; /* initial metadata is sent */
    atomic_bool ended;
    atomic_bool close_asked;
    bool watched;  /* the handler's thread alone: is the close asked for before the reply? */
    int cancelled; /* gRPC's */
    struct peer *peer;
    void *data;
    atomic_size_t pending;
};

struct ct_rpc_server {
    grpc_completion_queue *queue;
    grpc_server *server;
    tls_source *tls; /* NULL = plain text */
    grpc_server_credentials *credentials;
    bool listening;
    int port;
    event stopped_event;
    atomic_size_t active, streams; /* calls taken and not yet freed: of one message, and the others */
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool stopped; /* under lock */
    token_list tokens;
    peer_table *peers; /* NULL = no limit */
    atomic_uint_fast64_t no_token, peer_limit, no_method;
    size_t method_count;
    method *methods; /* (method_count + 1): the last one stands for all others */
    size_t slot_count;
    ct_rpc_call *slots;
};

/* gRPC has filled the slot. */
void ct_rpc_call_take(ct_rpc_call *call, void *worker);
void ct_rpc_call_event(ct_rpc_call *call, event_kind kind, bool success, void *worker);
/* Ends it as ct_rpc_call_fail. */
void ct_rpc_call_finish(ct_rpc_call *call, grpc_status_code code, const char *message);
void ct_rpc_call_one_less_pending(ct_rpc_call *call);
/* Gives the slot to gRPC. */
void ct_rpc_call_arm(ct_rpc_call *call);

#endif
