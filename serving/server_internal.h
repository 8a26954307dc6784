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
#include "serving/hold.h"
#include "serving/queue.h"
#include "serving/rpc.h"
#include "serving/score_call.h"
#include "serving/server.h"

enum {
    CT_SERVE_BLOCK_ROWS = 256, /* that one thread computes at a time: the tower's block */
    CT_SERVE_MERGE_ROWS = 32,  /* of the largest request that is computed together with others */
    CT_SERVE_MERGE_BYTES = 65536,
    CT_SERVE_GROUP_CALLS = 64, /* that are computed together at most */
    CT_SERVE_SHARE_ROWS = 64,  /* of the smallest request that is worth a second thread */
    /* of memory that a thread keeps for its next request, and for each other one of a group */
    CT_SERVE_KEPT_BYTES = 8 * 1024 * 1024,
    CT_SERVE_KEPT_SMALL_BYTES = 256 * 1024
};

typedef struct ct_health ct_health;

typedef struct ct_served_derived {
    char *name;
    size_t field; /* of the schema, that it comes from */
} ct_served_derived;

typedef struct ct_served_model {
    char *name;
    ct_model *model;
    ct_decoder *decoder;
    char version[CT_DIGEST_HEX_BYTES];
    size_t outputs;
    ct_served_derived *derived; /* (derived_count) */
    size_t derived_count;       /* at most CT_EXPOSURE_DERIVED: further ones are not logged */
} ct_served_model;

/* Requests that saw an arm; those that failed after their arm was known are among them. */
typedef struct ct_arm_counts {
    uint64_t requests[CT_ASSIGN_HOWS], failures;
} ct_arm_counts;

/* What a request sees. */
typedef struct ct_arm_choice {
    const ct_served_model *model;
    bool in_experiment; /* else what follows means nothing */
    ct_assign_how how;
    size_t arm, meant; /* whose model scores; the one that was assigned: differ with CT_ASSIGN_FALLBACK */
} ct_arm_choice;

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
    const ct_experiment *experiment;                       /* the caller's; NULL = none runs */
    const ct_served_model *arm_models[CT_ASSIGN_MAX_ARMS]; /* NULL = not there: the arm falls to the control */
    /* under the server's lock */
    size_t users;
    ct_arm_counts arm_counts[CT_ASSIGN_MAX_ARMS];
} ct_model_set;

/* What one request needs. A thread has some; where a request is shared among threads, it goes with the request until the last one has let
 * go of it, and the thread takes another. */
typedef struct ct_score_work {
    ct_arena arena; /* first: everything below may point into it */
    struct ct_score_work *next_free;
    ct_score_call call;
    int64_t arrived_ns, began_ns, decoded_ns, computed_ns, ended_ns; /* 0 = did not come to that */
    ct_code code;                                                    /* how it ended */
    ct_model_set *set;
    /* from here to `derived` set by ct_score_prepare, and zero before */
    const uint8_t *packed; /* the request's bytes, which stay until it is answered */
    size_t packed_bytes;
    const Clicktower__V1__ScoreRequest *request;
    ProtobufCBinaryData request_id; /* its own, or made_id */
    char made_id[CT_MADE_ID_BYTES];
    bool exposed; /* it is to be logged */
    ct_arm_choice choice;
    const ct_served_model *model; /* choice.model */
    ct_batch batch;
    float *logits;        /* (rows, outputs) */
    float *probabilities; /* (outputs, rows), once there is an answer */
    float *derived;       /* (derived_count, derived_stride), first `rows` of each used; NULL = not wanted */
    size_t derived_stride;
    /* shared requests only */
    struct ct_score_work *next_shared; /* under the server's lock */
    size_t block_rows, blocks;
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
    /* Calls at hand: the first ones of works, which are small; or else `large`. */
    ct_score_work *works[CT_SERVE_GROUP_CALLS], *large;
    size_t work_count;
    bool has_large;
    ct_arena arena;                      /* of what is computed together, and of messages of other methods */
    size_t rows_done;                    /* since its present work began */
    bool leads;                          /* it is the one that polls */
    bool idle;                           /* it leads and waits: what comes first may be computed at once */
    int64_t answered_ns, watch_until_ns; /* when it last did so; until when it looks for the next one, 0 = not at all */
} ct_worker;

struct ct_server {
    ct_rpc_server *rpc;
    uint32_t max_candidates;
    bool log_requests;
    size_t thread_count, threads_started; /* one more than may score at once */
    ct_worker *workers;                   /* (thread_count) */
    pthread_mutex_t lock;
    pthread_cond_t ended;  /* the last request has ended, or the last user of a set */
    pthread_cond_t work;   /* something for a thread that waits */
    pthread_cond_t hungry; /* the queue gets short: the leader must not nap */
    /* all under lock */
    ct_model_set *set;
    ct_score_work *free_small, *free_large; /* workspaces that nobody has */
    ct_score_work *shared;                  /* requests that still have blocks to take */
    ct_score_work *computed;                /* calls that the leader is to send */
    bool leading, stopped;                  /* does a thread poll? */
    bool asleep;                            /* the leader may be waiting: it does not look at `computed` soon */
    int64_t crowded_until_ns;               /* others take the processor from us till then, as it seems; 0 = they never did */
    size_t waiting;                         /* threads that wait for `work` */
    ct_queue queue;
    double rate_rows, rate_ns; /* of late: rows that were computed, and how long threads took for them */
    ct_hold hold;              /* the leader's, without the lock */
    size_t scoring;            /* Score requests taken and not yet answered */
    int64_t company_ns;        /* when a Score request last came while another was there */
    bool draining;
    atomic_int_least64_t begun_ns; /* when the last Score request was; read without the lock */
    ct_health *health;
    ct_exposures *exposures;     /* NULL = none; has a lock of its own, and so has the next */
    ct_feedback *feedback;       /* NULL = none */
    ct_calibration *calibration; /* NULL = none */
    ct_server_stats stats;
    ct_follow_list *follow;
};

/* --- methods: context is the server --- */
void ct_serve_score(void *context, void *worker, ct_rpc_call *call);
void ct_serve_models(void *context, void *worker, ct_rpc_call *call);
void ct_serve_feedback(void *context, void *worker, ct_rpc_call *call);
void ct_serve_health(void *context, void *worker, ct_rpc_call *call);
extern const ct_rpc_stream_fns ct_serve_watch, ct_serve_reflection;

/* --- health.c: who watches. NULL is fine for _destroy and _changed. --- */
ct_health *ct_health_create(void);
void ct_health_destroy(ct_health *health);
/* Says it to all who watch. */
void ct_health_changed(ct_health *health, bool serving);

/* --- threads.c --- */
void *ct_worker_main(void *worker);
CT_MUST_CHECK ct_code ct_worker_init(ct_worker *worker, ct_server *server, size_t index, ct_status *status);
void ct_worker_deinit(ct_worker *worker); /* zeroed is fine */
/* Another workspace, in the place of one that goes with its large request; NULL when out of memory. */
ct_score_work *ct_server_other_work(ct_server *server);
void ct_score_work_put(ct_score_work **list, ct_score_work *work);
ct_score_work *ct_score_work_take(ct_score_work **list); /* NULL = there is none */
/* Puts a call into the queue, or refuses it at once: in any case it is ended once, perhaps before this returns. */
void ct_server_submit(ct_server *server, ct_score_call call, int64_t deadline_ns);
/* Under the lock. Wakes up to `count` threads that wait; how many may come. */
size_t ct_server_wake(ct_server *server, size_t count);

/* --- score.c --- */
/* The set that is served now, and giving it back. */
ct_model_set *ct_server_take_set(ct_server *server);
void ct_server_give_set(ct_server *server, ct_model_set *set);
CT_MUST_CHECK ct_code ct_score_work_create(ct_score_work **out_work, ct_status *status);
void ct_score_work_destroy(ct_score_work *work); /* NULL is fine */
/* Empties the arena; gives back what an unusually large request took. */
void ct_score_work_reset(ct_score_work *work, size_t keep_bytes);
/* Under the lock: the call's turn has come. */
void ct_score_begin(ct_server *server, ct_score_work *work, ct_score_call call, int64_t arrived_ns, int64_t now_ns);
/* Computes and answers the worker's large call, perhaps with the help of other threads. */
void ct_score_run_large(ct_worker *worker);
/* Computes the worker's small calls together: each is to be sent then. */
void ct_score_run_group(ct_worker *worker);
/* Sends what was computed, answers and failures, and counts it. Afterwards the calls may be gone. */
void ct_score_send(ct_server *server, ct_score_work *const *works, size_t count);
CT_MUST_CHECK ct_code ct_score_compute(ct_worker *worker, ct_score_work *work, size_t first_row, size_t rows, ct_status *status);
/* Answers the call, or ends it with the status, and counts it. Afterwards it may be gone. */
void ct_score_end(ct_server *server, ct_score_work *work, ct_code code, const ct_status *status);
/* Ends a call that was not begun and is not in the queue. `why`: where the code is CT_EXHAUSTED. */
void ct_score_refuse(ct_server *server, ct_score_call call, ct_code code, ct_refusal why);

/* --- response.c: for gRPC and HTTP --- */
/* Unpacks a request, chooses its model, makes its batch and room for its logits. work->set is set; the bytes stay until the end. */
CT_MUST_CHECK ct_code ct_score_prepare(ct_server *server, ct_score_work *work, const uint8_t *data, size_t bytes, ct_status *status);
/* The answer, in the work's arena. */
CT_MUST_CHECK ct_code ct_score_response(ct_score_work *work, Clicktower__V1__ScoreResponse *response, ct_status *status);
/* Logs the request, where it is to be logged: with CT_OK all its scores, also those that a top_k leaves out of the answer. */
void ct_score_expose(ct_server *server, const ct_score_work *work, ct_code code);

/* --- arms.c --- */
/* The experiment's arms find their models. The set is not in use yet. CT_INVALID: the control's model is not there. */
CT_MUST_CHECK ct_code ct_model_set_run(ct_model_set *set, const ct_experiment *experiment, ct_status *status);
/* What a request sees. CT_NOT_FOUND: no such model; CT_INVALID: no such arm. */
CT_MUST_CHECK ct_code ct_model_set_choose(const ct_model_set *set, const Clicktower__V1__ScoreRequest *request, ct_arm_choice *out_choice,
                                          ct_status *status);
const ct_served_model *ct_model_set_named(const ct_model_set *set, const char *name, size_t bytes); /* NULL = not there */
/* Under the server's lock: a request has ended. */
void ct_model_set_count(ct_model_set *set, const ct_arm_choice *choice, bool failed);
/* Under the server's lock: counts go on from those of the set before, where it ran the same experiment. */
void ct_model_set_move_counts(ct_model_set *set, ct_model_set *from);

/* --- share.c: requests that several threads compute --- */
/* Consumes the work and returns true, or changes nothing and returns false. */
bool ct_share(ct_worker *worker, ct_score_work **work);
/* Under the lock: one that needs help, held from now on; NULL = none. */
ct_score_work *ct_share_find(ct_server *server);
void ct_share_help(ct_worker *worker, ct_score_work *work);

/* --- follow.c --- */
void ct_follow_destroy(ct_server *server);

/* --- merge.c --- */
/* One batch of the rows of several, in their order: columns of the schema that they all have. What is shared is repeated. The arena's. */
CT_MUST_CHECK ct_code ct_merge_batches(ct_arena *arena, const ct_batch *const *batches, size_t count, ct_batch *out_batch,
                                       ct_status *status);

/* --- models.c --- */
/* Decoders, versions, scorers for each thread, and the answer to Models. The models and the experiment (NULL = none) stay the caller's. */
CT_MUST_CHECK ct_code ct_model_set_create(const ct_server_model *models, size_t model_count, const ct_experiment *experiment,
                                          uint32_t max_candidates, size_t thread_count, ct_model_set **out_set, ct_status *status);
void ct_model_set_destroy(ct_model_set *set); /* NULL is fine */
/* The model that a request names, or the first one; CT_NOT_FOUND. */
CT_MUST_CHECK ct_code ct_model_set_find(const ct_model_set *set, const Clicktower__V1__ScoreRequest *request,
                                        const ct_served_model **out_model, ct_status *status);

#endif
