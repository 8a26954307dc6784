/* The server: models behind gRPC. A thread that takes a request also computes it, unless it is the last one that is free: so somebody
 * always reads the network, answers Health, notices who has gone, and refuses what is too much. What that thread takes waits in a bounded
 * queue (serving/queue.h says who is refused). Small requests that wait together are computed together; a large one is shared by the
 * threads that are free, and its context is looked up and multiplied once for each thread that has a part of it.
 *
 * Only serving/rpc* include grpc/. Threads: `threads` that score at once, and one that waits. Models are immutable here; every thread has
 * scorers of its own. Shutdown: not serving (health), no new calls, finish what was accepted within a grace period, then cancel the
 * rest. */
#ifndef SERVING_SERVER_H
#define SERVING_SERVER_H

#include "base/background.h"
#include "base/status.h"
#include "experiment/assign/assign.h"
#include "model/model.h"
#include "serving/exposures.h"
#include "serving/feedback.h"
#include "serving/follow.h"

typedef struct ct_server_model {
    const char *name;
    ct_model *model; /* READ; stays the caller's, must outlive the server */
} ct_server_model;

typedef struct ct_server_options {
    const char *listen; /* HOST:PORT; port 0 = any free one; [::1]:PORT for IPv6 */
    const ct_server_model *models;
    size_t model_count;
    /* An experiment that runs; NULL = none. Its arms' models are found among `models` by name; an arm whose model is not there falls to the
     * control, whose model must be. The caller's, as the models are. */
    const ct_experiment *experiment;
    ct_exposures *exposures;       /* where requests are logged; NULL = nowhere; must outlive the server */
    ct_feedback *feedback;         /* where feedback goes; NULL = none is taken; must outlive the server */
    ct_calibration *calibration;   /* of exposures and feedback, for /metrics; NULL = none; must outlive the server */
    size_t threads;                /* that score at once; 0 = processors */
    size_t queue_calls;            /* that wait for a thread; default 256. Beyond: RESOURCE_EXHAUSTED at once */
    int64_t queue_ms;              /* how long one may wait at most; default 2,000. Who would wait longer: RESOURCE_EXHAUSTED */
    uint32_t max_candidates;       /* default 10,000 */
    uint32_t max_message_bytes;    /* default 16 MiB */
    size_t max_calls_of_peer;      /* of one address, waiting or in work; 0 = any number. Beyond: RESOURCE_EXHAUSTED */
    int64_t max_connection_age_ms; /* 0 = for ever */
    /* PEM texts; NULL certificate = no TLS. With a client CA, clients must show a certificate of it. */
    const char *tls_certificate, *tls_key, *tls_client_ca;
    const char *const *tokens; /* see ct_server_set_tokens */
    size_t token_count;
    bool log_requests; /* a log line for each Score request */
} ct_server_options;

/* Upper bounds of the latency histogram's buckets, in seconds; one more bucket is without bound. */
#define CT_SERVER_LATENCY_BOUNDS \
    { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5 }
enum { CT_SERVER_LATENCY_BUCKETS = 15, CT_SERVER_CODES = CT_INTERNAL + 1, CT_SERVER_MESSAGE_BYTES = 160 };

typedef struct ct_latency_histogram {
    uint64_t counts[CT_SERVER_LATENCY_BUCKETS]; /* not cumulative */
    uint64_t sum_ns, count;
} ct_latency_histogram;

/* Why a busy server refuses a request (serving/queue.h): too many wait; it would wait too long; it has waited too long. */
typedef enum ct_refusal { CT_REFUSED_FULL, CT_REFUSED_SLOW, CT_REFUSED_WAITED, CT_REFUSALS } ct_refusal;

/* Since the start. */
typedef struct ct_server_stats {
    uint64_t ended[CT_SERVER_CODES];                             /* Score requests, by how they ended */
    uint64_t candidates;                                         /* of requests that were answered */
    uint64_t refused[CT_REFUSALS];                               /* of those that ended with CT_EXHAUSTED */
    uint64_t no_token, peer_limit, no_method;                    /* calls of any method that were refused before they were looked at */
    char last_message[CT_SERVER_CODES][CT_SERVER_MESSAGE_BYTES]; /* what was said the last time, by how requests ended */
    uint64_t merged_groups, merged_requests;                     /* forwards of several requests, and the requests that they were of */
    uint64_t direct_requests;                                    /* computed at once by the thread that had read them */
    ct_latency_histogram latency;                                /* of answered requests, from arrival to answer */
    ct_latency_histogram waited;                                 /* of requests whose work began, from arrival to then */
    /* The stages behind that: message to batch; look-ups and products (where requests are computed together, each has all of it); and
     * packing and sending. */
    ct_latency_histogram decoding, computing, answering;
    uint64_t replaced, replace_refused;           /* swaps that were done, and that could not be */
    uint64_t not_yet;                             /* looks at a folder that was not complete */
    size_t queued, queue_calls, scoring, threads; /* now; scoring counts the queued, too */
} ct_server_stats;

typedef struct ct_server ct_server;
/* Listens and answers when it returns. A port in use: CT_UNAVAILABLE naming the address. */
CT_MUST_CHECK ct_code ct_server_start(const ct_server_options *options, ct_server **out_server, ct_status *status);
int ct_server_port(const ct_server *server); /* on which it listens */
/* Serves these models, and runs this experiment (NULL = none), from now on, in the place of those before, all at once. A request that has
 * begun ends with what it began with, and this returns when the last of those has: then the models before are the caller's alone. On
 * failure nothing has changed. One at a time. background: whose work this is, begun; it does not give way while it has the server's lock.
 * NULL = nobody's. */
CT_MUST_CHECK ct_code ct_server_replace(ct_server *server, const ct_server_model *models, size_t model_count,
                                        const ct_experiment *experiment, ct_background *background, ct_status *status);
/* For whoever finds out before ct_server_replace that new models can't be served. */
void ct_server_count_refused_swap(ct_server *server);
/* Or that they are not complete yet. */
void ct_server_count_not_yet(ct_server *server);
/* What a model tells that follows deltas, from now on in /metrics; copied. Where there is no memory it is not told. */
void ct_server_set_follow_stats(ct_server *server, const char *model, const ct_follow_stats *stats);
/* Of the number-th model that told something, from 0; false = there are no more. */
bool ct_server_get_follow_stats(ct_server *server, size_t number, ct_follow_list *out_entry);
/* Calls of Score, Models and reflection must bring `authorization: Bearer TOKEN` with one of these from now on (Health may always be
 * asked); 0 = no token is needed. Copied. CT_INVALID says what is wrong, by number, never by content. */
CT_MUST_CHECK ct_code ct_server_set_tokens(ct_server *server, const char *const *tokens, size_t count, ct_status *status);
/* New connections are shown this certificate from now on; see ct_rpc_server_set_certificate. */
CT_MUST_CHECK ct_code ct_server_set_certificate(ct_server *server, const char *certificate, const char *key, const char *client_ca,
                                                ct_status *status);
/* Would a call with this `authorization` (NULL = none) be let in? The admin port asks. */
bool ct_server_allows(ct_server *server, const char *authorization);
void ct_server_stats_get(ct_server *server, ct_server_stats *out_stats);
/* Was a request begun in the last tenth of a second? Takes no lock. */
bool ct_server_is_busy(const ct_server *server);
/* Does it go down (Health says NOT_SERVING)? */
bool ct_server_is_draining(ct_server *server);
/* From now on as at the beginning of ct_server_stop: Health says NOT_SERVING, new requests are refused. */
void ct_server_drain(ct_server *server);
/* Waits until every request that was taken has been answered, for at most grace_ms; behind ct_server_drain. */
void ct_server_wait_idle(ct_server *server, int64_t grace_ms);
/* Drains for at most grace_ms, stops the threads, frees the server. Returns at once when idle. */
void ct_server_stop(ct_server *server, int64_t grace_ms);

#endif
