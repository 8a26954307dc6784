/* Inside of the server, for serving/ and its tests: models with what every worker needs of them, and the workspace of a request. */
#ifndef SERVING_SERVER_INTERNAL_H
#define SERVING_SERVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/text.h"
#include "serving/decode.h"
#include "serving/queue.h"
#include "serving/rpc.h"
#include "serving/server.h"

/* Rows that one worker computes at a time; a request of more is shared by the workers. The tower's block. */
enum { CT_SERVE_BLOCK_ROWS = 256, CT_SERVE_KEPT_ARENA_BYTES = 4 * 1024 * 1024 };

typedef struct ct_served_model {
    char *name;
    ct_model *model;
    ct_decoder *decoder;
    char version[CT_DIGEST_HEX_BYTES];
    size_t outputs;
} ct_served_model;

/* What is served at one time: never changes, and is replaced as a whole. A request takes the set that is there when its work begins and
 * keeps it to its end, so no request sees two versions; the set goes when nobody has it any more. */
typedef struct ct_model_set {
    ct_served_model *models;
    size_t model_count;
    ct_scorer **scorers; /* (thread_count, model_count) */
    size_t scorer_count;
    uint8_t *models_answer; /* ModelsResponse, packed */
    size_t models_answer_bytes;
    int64_t since_unix_ms;
    size_t users; /* under the server's lock */
} ct_model_set;

/* What one request needs. A thread has one; where a request is shared among threads, it goes with the request until the last one has let
 * go of it, and the thread takes another. */
typedef struct ct_score_work {
    ct_arena arena; /* first: everything below may point into it */
    struct ct_score_work *next_free;
    ct_rpc_call *call;
    int64_t arrived_ns;
    ct_model_set *set; /* NULL where the request ended before it was decoded */
    const ct_served_model *model;
    const Clicktower__V1__ScoreRequest *request;
    ct_batch batch;
    float *logits; /* (rows, outputs) */
    /* shared requests only */
    struct ct_score_work *next_shared; /* under the server's lock */
    size_t blocks;
    atomic_size_t next_block;
    atomic_size_t blocks_left; /* and one for the thread that took the request: who takes it to 0 answers */
    size_t holders;            /* under the server's lock: who takes it to 0 frees the workspace */
    pthread_mutex_t lock;
    ct_status status; /* under lock: the first failure */
    atomic_bool failed;
} ct_score_work;

typedef struct ct_worker {
    ct_server *server;
    size_t index;
    pthread_t thread;
    ct_score_work *work;
    int64_t awake_since_ns; /* the end of its last nap */
} ct_worker;

struct ct_server {
    ct_rpc_server *rpc;
    uint32_t max_candidates;
    size_t thread_count, threads_started; /* one more than may score at once */
    ct_worker *workers;                   /* (thread_count) */
    pthread_mutex_t lock;
    pthread_cond_t idle;
    pthread_cond_t hungry; /* the queue gets short: the thread that polls must not nap */
    /* all under lock */
    ct_model_set *set;
    ct_score_work *free_work;
    ct_score_work *shared; /* requests that still have blocks to take */
    size_t polling;        /* threads that wait for calls or are about to; never below 1 */
    ct_queue queue;        /* not empty only where polling is 1 */
    size_t scoring;        /* Score requests taken and not yet answered */
    bool draining;
    ct_server_stats stats;
};

/* --- methods: context is the server --- */
void ct_serve_score(void *context, void *worker, ct_rpc_call *call);
void ct_serve_models(void *context, void *worker, ct_rpc_call *call);
void ct_serve_health(void *context, void *worker, ct_rpc_call *call);

/* --- score.c --- */
/* What a thread does before it waits for calls: refuses those that have waited too long. Returns when to look again. */
int64_t ct_score_before_wait(void *worker);
/* The set that is served now, and giving it back. */
ct_model_set *ct_server_take_set(ct_server *server);
void ct_server_give_set(ct_server *server, ct_model_set *set);
CT_MUST_CHECK ct_code ct_score_work_create(ct_score_work **out_work, ct_status *status);
void ct_score_work_destroy(ct_score_work *work); /* NULL is fine */
/* Empties the arena; gives back what an unusually large request took. */
void ct_score_work_reset(ct_score_work *work);

/* --- models.c --- */
/* Decoders, versions, scorers for each thread, and the answer to Models. The models stay the caller's. */
CT_MUST_CHECK ct_code ct_model_set_create(const ct_server_model *models, size_t model_count, uint32_t max_candidates, size_t thread_count,
                                          ct_model_set **out_set, ct_status *status);
void ct_model_set_destroy(ct_model_set *set); /* NULL is fine */
/* The model that a request names, or the first one; CT_NOT_FOUND. */
CT_MUST_CHECK ct_code ct_model_set_find(const ct_model_set *set, const Clicktower__V1__ScoreRequest *request,
                                        const ct_served_model **out_model, ct_status *status);

#endif
