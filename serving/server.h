/* The server: models behind gRPC. I/O threads wait on the completion queue, unpack a request into its arena, and hand blocks of rows to one
 * pool of workers, so that one large request uses all cores; a small request is computed by the thread that took it. The context of a
 * request is looked up and multiplied once for each worker that has a part of it.
 *
 * Only serving/rpc.[ch] include grpc/. Threads: `threads` workers in all. A model is immutable here; every worker has a scorer of its own.
 * Shutdown: not serving (health), no new calls, finish what was accepted within a grace period, then cancel the rest. */
#ifndef SERVING_SERVER_H
#define SERVING_SERVER_H

#include "base/status.h"
#include "model/model.h"

typedef struct ct_server_model {
    const char *name;
    ct_model *model; /* READ; stays the caller's, must outlive the server */
} ct_server_model;

typedef struct ct_server_options {
    const char *listen; /* HOST:PORT; port 0 = any free one; [::1]:PORT for IPv6 */
    const ct_server_model *models;
    size_t model_count;
    size_t threads;             /* workers; 0 = processors */
    uint32_t max_candidates;    /* default 10,000 */
    uint32_t max_message_bytes; /* default 16 MiB */
} ct_server_options;

typedef struct ct_server ct_server;
/* Listens and answers when it returns. A port in use: CT_UNAVAILABLE naming the address. */
CT_MUST_CHECK ct_code ct_server_start(const ct_server_options *options, ct_server **out_server, ct_status *status);
int ct_server_port(const ct_server *server);
/* Drains for at most grace_ms, stops the threads, frees the server. Returns at once when idle. */
void ct_server_stop(ct_server *server, int64_t grace_ms);

#endif
