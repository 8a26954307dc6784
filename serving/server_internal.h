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
#include "serving/rpc.h"
#include "serving/server.h"

/* Rows that one worker computes at a time; a request of more is shared by the workers. The tower's block. */
enum { CT_SERVE_BLOCK_ROWS = 256, CT_SERVE_KEPT_ARENA_BYTES = 4 * 1024 * 1024 };

typedef struct ct_served_model {
    const char *name;
    ct_model *model;
    ct_decoder *decoder;
    char version[CT_DIGEST_HEX_BYTES];
    size_t outputs;
} ct_served_model;

/* What one request needs. A worker has one; where a request is shared among workers, it goes with the request until the last one has let
 * go of it, and the worker takes another. */
typedef struct ct_score_work {
    ct_arena arena; /* first: everything below may point into it */
    struct ct_score_work *next_free;
    ct_rpc_call *call;
    const ct_served_model *model;
    const Clicktower__V1__ScoreRequest *request;
    ct_batch batch;
    float *logits; /* (rows, outputs) */
    /* shared requests only */
    size_t blocks;
    atomic_size_t next_block;
    atomic_size_t blocks_left; /* and one for the worker that took the request: who takes it to 0 answers */
    atomic_size_t holders;     /* who takes it to 0 frees the workspace */
    pthread_mutex_t lock;
    ct_status status; /* under lock: the first failure */
    atomic_bool failed;
} ct_score_work;

typedef struct ct_worker {
    ct_server *server;
    size_t index;
    pthread_t thread;
    ct_scorer **scorers; /* (model_count) */
    ct_score_work *work;
} ct_worker;

struct ct_server {
    ct_rpc_server *rpc;
    ct_served_model *models;
    size_t model_count;
    uint8_t *models_answer; /* ModelsResponse, packed: nothing in it changes */
    size_t models_answer_bytes;
    size_t worker_count, workers_started;
    ct_worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    ct_score_work *free_work; /* under lock */
    atomic_bool draining;
    atomic_size_t scoring; /* Score requests taken and not yet answered */
    atomic_size_t rows_scored, requests_scored;
};

/* --- methods: context is the server --- */
void ct_serve_score(void *context, void *worker, ct_rpc_call *call);
void ct_serve_models(void *context, void *worker, ct_rpc_call *call);
void ct_serve_health(void *context, void *worker, ct_rpc_call *call);

/* --- score.c --- */
CT_MUST_CHECK ct_code ct_score_work_create(ct_score_work **out_work, ct_status *status);
void ct_score_work_destroy(ct_score_work *work); /* NULL is fine */
/* Empties the arena; gives back what an unusually large request took. */
void ct_score_work_reset(ct_score_work *work);

/* --- models.c --- */
/* Fills server->models_answer. */
CT_MUST_CHECK ct_code ct_models_answer_create(ct_server *server, ct_status *status);

#endif
