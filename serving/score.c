/* Score. A request of up to a block is decoded, computed and answered by one thread. A larger one is decoded by that thread and then cut
 * into blocks, which every free thread takes from one counter; so a large request uses all cores and a busy server loses nothing to it.
 * Rows do not depend on how a request is cut: the model's forward gives the same bits for a row beside any others.
 *
 * Who computes. There is one thread more than may score at once. A thread that takes a call computes it, so an idle server hands nothing
 * over; the last thread that polls does not: it puts the call into the queue, or refuses it, and polls on. A thread that is done first
 * helps with shared requests, then takes from the queue, and polls again where there is nothing: looking and beginning to poll are one step
 * under the lock, so no call is left in the queue while a thread is free. Refusing costs a look at the queue; nothing is decoded before a
 * call's turn has come.
 *
 * Deadline and cancellation are looked at while a call waits, before decoding and before every block. */
#include <string.h>

#include "base/clock.h"
#include "serving/server_internal.h"

enum { AWAKE_NS = 1000000, NAP_NS = 1000000 };

typedef Clicktower__V1__ScoreRequest request;

ct_code ct_score_work_create(ct_score_work **out_work, ct_status *status) {
    ct_score_work *work = calloc(1, sizeof *work);
    if (!work) return ct_fail_memory(status, sizeof *work, "a request");
    ct_arena_init(&work->arena, 0);
    (void)pthread_mutex_init(&work->lock, NULL);
    *out_work = work;
    return CT_OK;
}

void ct_score_work_destroy(ct_score_work *work) {
    if (!work) return;
    ct_arena_deinit(&work->arena);
    (void)pthread_mutex_destroy(&work->lock);
    free(work);
}

void ct_score_work_reset(ct_score_work *work) {
    if (ct_arena_bytes(&work->arena) > CT_SERVE_KEPT_ARENA_BYTES) {
        ct_arena_deinit(&work->arena);
        ct_arena_init(&work->arena, 0);
    } else {
        ct_arena_reset(&work->arena);
    }
}

static ct_code find_model(const ct_model_set *set, const request *r, const ct_served_model **out_model, ct_status *status) {
    if (r->model.len == 0) {
        *out_model = &set->models[0];
        return CT_OK;
    }
    for (size_t i = 0; i < set->model_count; i++) {
        const ct_served_model *model = &set->models[i];
        if (strlen(model->name) == r->model.len && memcmp(model->name, r->model.data, r->model.len) == 0) {
            *out_model = model;
            return CT_OK;
        }
    }
    char shown[80];
    return ct_fail(status, CT_NOT_FOUND, "no model \"%s\" here; the first one here is \"%s\"",
                   ct_text_show((const char *)r->model.data, r->model.len, shown, sizeof shown), set->models[0].name);
}

static ct_code decode(ct_score_work *work, ct_status *status) {
    size_t bytes = 0;
    const uint8_t *data = ct_rpc_call_request(work->call, &bytes);
    request *r = NULL;
    CT_TRY(ct_request_unpack(&work->arena, data, bytes, &r, status));
    CT_TRY(find_model(work->set, r, &work->model, status));
    CT_TRY(ct_request_batch(work->model->decoder, &work->arena, r, &work->batch, status));
    const size_t floats = work->batch.rows * work->model->outputs;
    work->logits = ct_arena_alloc(&work->arena, floats * sizeof(float));
    if (!work->logits) return ct_fail_memory(status, floats * sizeof(float), "a request's logits");
    work->request = r;
    return CT_OK;
}

static ct_code compute(ct_worker *worker, ct_score_work *work, size_t first_row, size_t rows, ct_status *status) {
    const ct_model_set *set = work->set;
    const ct_served_model *model = work->model;
    CT_TRY(ct_rpc_call_wanted(work->call, status));
    ct_scorer *scorer = set->scorers[worker->index * set->model_count + (size_t)(model - set->models)];
    return ct_scorer_run(scorer, &work->batch, first_row, rows, work->logits + first_row * model->outputs, status);
}

/* Packs the answer straight into gRPC's memory. */
static ct_code answer(ct_score_work *work, ct_status *status) {
    const ct_served_model *model = work->model;
    const size_t rows = work->batch.rows, outputs = model->outputs;
    Clicktower__V1__ScoreResponse response = CLICKTOWER__V1__SCORE_RESPONSE__INIT;
    Clicktower__V1__Output *list = ct_arena_alloc(&work->arena, outputs * sizeof *list);
    Clicktower__V1__Output **pointers = ct_arena_alloc(&work->arena, outputs * sizeof(Clicktower__V1__Output *));
    float *values = ct_arena_alloc(&work->arena, 2 * rows * outputs * sizeof *values);
    if (!list || !pointers || !values) return ct_fail_memory(status, 2 * rows * outputs * sizeof *values, "an answer");
    for (size_t o = 0; o < outputs; o++) {
        float *logits = values + 2 * o * rows, *probabilities = logits + rows;
        for (size_t r = 0; r < rows; r++) logits[r] = work->logits[r * outputs + o];
        ct_probabilities(logits, probabilities, rows);
        clicktower__v1__output__init(&list[o]);
        list[o].name = ct_text_data(ct_model_output_name(model->model, o));
        list[o].probabilities = probabilities;
        list[o].n_probabilities = rows;
        if (work->request->logits) {
            list[o].logits = logits;
            list[o].n_logits = rows;
        }
        pointers[o] = &list[o];
    }
    response.outputs = pointers;
    response.n_outputs = outputs;
    response.request_id = work->request->request_id;
    response.model = ct_text_data(model->name);
    response.model_version = ct_text_data(model->version);
    uint8_t *out = ct_rpc_call_reserve(work->call, clicktower__v1__score_response__get_packed_size(&response));
    (void)clicktower__v1__score_response__pack(&response, out);
    return CT_OK;
}

/* --- counting, under the server's lock --- */

static void observe(ct_latency_histogram *histogram, int64_t ns) {
    static const double bounds[] = CT_SERVER_LATENCY_BOUNDS;
    const double seconds = (double)ns * 1e-9;
    size_t bucket = 0;
    while (bucket + 1 < CT_SERVER_LATENCY_BUCKETS && seconds > bounds[bucket]) bucket++;
    histogram->counts[bucket]++;
    histogram->count++;
    histogram->sum_ns += (uint64_t)(ns > 0 ? ns : 0);
}

static void give_set(ct_server *server, ct_model_set *set) {
    if (--set->users == 0 && set != server->set) (void)pthread_cond_broadcast(&server->idle); /* ct_server_replace waits */
}

/* One call less; its status. */
static void count_end(ct_server *server, ct_code code) {
    server->stats.ended[code]++;
    if (--server->scoring == 0 && server->draining) (void)pthread_cond_broadcast(&server->idle);
}

ct_model_set *ct_server_take_set(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    ct_model_set *set = server->set;
    set->users++;
    (void)pthread_mutex_unlock(&server->lock);
    return set;
}

void ct_server_give_set(ct_server *server, ct_model_set *set) {
    (void)pthread_mutex_lock(&server->lock);
    give_set(server, set);
    (void)pthread_mutex_unlock(&server->lock);
}

/* --- the end of a call --- */

/* Ends the call; afterwards it may be gone. */
static void end(ct_server *server, ct_score_work *work, ct_code code, ct_status *status) {
    const size_t rows = code == CT_OK ? work->batch.rows : 0;
    if (code == CT_OK) code = answer(work, status);
    if (code == CT_OK)
        ct_rpc_call_reply(work->call);
    else
        ct_rpc_call_fail(work->call, status);
    const int64_t took = ct_clock_ns() - work->arrived_ns;
    (void)pthread_mutex_lock(&server->lock);
    if (code == CT_OK) {
        server->stats.candidates += rows;
        observe(&server->stats.latency, took);
    }
    give_set(server, work->set);
    count_end(server, code);
    (void)pthread_mutex_unlock(&server->lock);
}

/* Ends a call that was not begun and has left the queue, if it was there. */
static void refuse(ct_server *server, ct_rpc_call *call, ct_code code, bool waited) {
    ct_status status;
    status.code = code;
    const char *text = code == CT_DEADLINE    ? "the deadline has passed"
                       : code == CT_CANCELLED ? "the client has cancelled"
                       : waited               ? "the server is busy: the request has waited too long; try again later or elsewhere"
                                              : "the server is busy: too many requests wait; try again later or elsewhere";
    memcpy(status.message, text, strlen(text) + 1);
    ct_rpc_call_fail(call, &status);
    (void)pthread_mutex_lock(&server->lock);
    if (code == CT_EXHAUSTED) (*(waited ? &server->stats.refused_waited : &server->stats.refused_full))++;
    count_end(server, code);
    (void)pthread_mutex_unlock(&server->lock);
}

static bool is_wanted(void *item, int64_t now_ns) { return ct_rpc_call_why_unwanted(item, now_ns) == CT_OK; }

/* Under lock. Does more wait than the busy threads will take at once? Then nothing is lost where new calls are seen a little later. */
static bool has_plenty(const ct_server *server) { return server->polling == 1 && server->queue.count >= 2 * (server->thread_count - 1); }

/* Under overload the thread that polls would be woken for every packet, and would take the cores from those that compute. So while plenty
 * waits it works for a while and naps for a while, but not longer than the queue lasts. What came meanwhile is taken together, which costs
 * less for each, and clients that retry at once get their refusals at a rate that leaves the others their share. */
static void nap(ct_worker *worker) {
    ct_server *server = worker->server;
    const int64_t limit = ct_clock_ns() + NAP_NS;
    const struct timespec until = {.tv_sec = limit / 1000000000, .tv_nsec = limit % 1000000000};
    (void)pthread_mutex_lock(&server->lock);
    while (has_plenty(server) && pthread_cond_timedwait(&server->hungry, &server->lock, &until) == 0) continue;
    (void)pthread_mutex_unlock(&server->lock);
    worker->awake_since_ns = ct_clock_ns();
}

int64_t ct_score_before_wait(void *worker) {
    ct_worker *self = worker;
    ct_server *server = self->server;
    ct_queue_entry gone[16];
    for (;;) {
        const int64_t now = ct_clock_ns();
        (void)pthread_mutex_lock(&server->lock);
        const size_t count = ct_queue_sweep(&server->queue, now, is_wanted, gone, sizeof gone / sizeof *gone);
        const int64_t again = ct_queue_next_expiry(&server->queue);
        const bool plenty = has_plenty(server);
        (void)pthread_mutex_unlock(&server->lock);
        for (size_t i = 0; i < count; i++) {
            const ct_code why = ct_rpc_call_why_unwanted(gone[i].item, now);
            refuse(server, gone[i].item, why == CT_OK ? CT_EXHAUSTED : why, true);
        }
        if (count == sizeof gone / sizeof *gone) continue;
        if (!plenty || now - self->awake_since_ns < AWAKE_NS) return again;
        nap(self);
    }
}

/* --- requests of more than a block --- */

static void take_blocks(ct_worker *worker, ct_score_work *work) {
    ct_status status = CT_STATUS_INIT;
    for (;;) {
        const size_t block = atomic_fetch_add(&work->next_block, 1);
        if (block >= work->blocks) return;
        const size_t first = block * CT_SERVE_BLOCK_ROWS, left = work->batch.rows - first;
        if (!atomic_load_explicit(&work->failed, memory_order_relaxed) &&
            compute(worker, work, first, left < CT_SERVE_BLOCK_ROWS ? left : CT_SERVE_BLOCK_ROWS, &status) != CT_OK) {
            (void)pthread_mutex_lock(&work->lock);
            if (work->status.code == CT_OK) work->status = status;
            (void)pthread_mutex_unlock(&work->lock);
            atomic_store(&work->failed, true);
        }
        if (atomic_fetch_sub(&work->blocks_left, 1) == 1) end(worker->server, work, work->status.code, &work->status);
    }
}

/* A thread that holds the work has no more to do for it; the first one takes it out of the list of those that need help. */
static void let_go(ct_server *server, ct_score_work *work) {
    (void)pthread_mutex_lock(&server->lock);
    for (ct_score_work **at = &server->shared; *at; at = &(*at)->next_shared) {
        if (*at != work) continue;
        *at = work->next_shared;
        break;
    }
    const bool last = --work->holders == 0;
    (void)pthread_mutex_unlock(&server->lock);
    if (!last) return;
    ct_score_work_reset(work);
    (void)pthread_mutex_lock(&server->lock);
    work->next_free = server->free_work;
    server->free_work = work;
    (void)pthread_mutex_unlock(&server->lock);
}

static ct_score_work *other_work(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    ct_score_work *work = server->free_work;
    if (work) server->free_work = work->next_free;
    (void)pthread_mutex_unlock(&server->lock);
    ct_status ignored = CT_STATUS_INIT;
    if (!work && ct_score_work_create(&work, &ignored) != CT_OK) return NULL;
    return work;
}

static void work_on(ct_worker *worker);

/* Runs in a thread that polled. */
static void wake(void *argument, void *worker) {
    ct_worker *self = worker;
    ct_server *server = self->server;
    (void)argument;
    (void)pthread_mutex_lock(&server->lock);
    const bool free_to_work = server->polling > 1;
    if (free_to_work) server->polling--;
    (void)pthread_mutex_unlock(&server->lock);
    if (free_to_work) work_on(self);
}

/* Consumes worker->work and returns true, or changes nothing and returns false. */
static bool share(ct_worker *worker) {
    ct_server *server = worker->server;
    ct_score_work *work = worker->work;
    const size_t blocks = (work->batch.rows + CT_SERVE_BLOCK_ROWS - 1) / CT_SERVE_BLOCK_ROWS;
    if (server->thread_count <= 2) return false;
    ct_score_work *fresh = other_work(server);
    if (!fresh) return false;
    worker->work = fresh;

    work->blocks = blocks;
    work->status = (ct_status)CT_STATUS_INIT;
    atomic_store(&work->failed, false);
    atomic_store(&work->next_block, 0);
    atomic_store(&work->blocks_left, blocks + 1); /* ours keeps the call alive while we post and work */
    work->holders = 1;
    (void)pthread_mutex_lock(&server->lock);
    size_t helpers = server->polling - 1;
    work->next_shared = server->shared;
    server->shared = work;
    (void)pthread_mutex_unlock(&server->lock);
    if (helpers > blocks - 1) helpers = blocks - 1;
    if (helpers) (void)ct_rpc_call_post(work->call, helpers, wake, NULL);
    take_blocks(worker, work);
    if (atomic_fetch_sub(&work->blocks_left, 1) == 1) end(server, work, work->status.code, &work->status);
    let_go(server, work);
    return true;
}

/* --- one call --- */

/* Under lock: the call's turn has come. */
static void begin(ct_worker *worker, ct_rpc_call *call, int64_t arrived_ns, int64_t now_ns) {
    ct_server *server = worker->server;
    ct_score_work *work = worker->work;
    work->call = call;
    work->arrived_ns = arrived_ns;
    work->set = server->set;
    work->set->users++;
    observe(&server->stats.waited, now_ns - arrived_ns);
}

static void run(ct_worker *worker) {
    ct_score_work *work = worker->work;
    ct_status status = CT_STATUS_INIT;
    ct_code code;
    CT_TRY_GOTO(code, ct_rpc_call_wanted(work->call, &status), done);
    CT_TRY_GOTO(code, decode(work, &status), done);
    if (work->batch.rows > CT_SERVE_BLOCK_ROWS && share(worker)) return;
    for (size_t first = 0; first < work->batch.rows; first += CT_SERVE_BLOCK_ROWS) {
        const size_t left = work->batch.rows - first;
        CT_TRY_GOTO(code, compute(worker, work, first, left < CT_SERVE_BLOCK_ROWS ? left : CT_SERVE_BLOCK_ROWS, &status), done);
    }
done:
    end(worker->server, work, code, &status);
    ct_score_work_reset(work);
}

/* By a thread that does not poll: works until there is nothing to do, and polls again. */
static void work_on(ct_worker *worker) {
    ct_server *server = worker->server;
    for (;;) {
        const int64_t now = ct_clock_ns();
        ct_queue_entry next;
        (void)pthread_mutex_lock(&server->lock);
        ct_score_work *shared = server->shared;
        while (shared && atomic_load(&shared->next_block) >= shared->blocks) shared = shared->next_shared;
        bool found = false;
        if (shared) {
            shared->holders++;
        } else {
            found = ct_queue_take(&server->queue, now, &next);
            if (found) {
                begin(worker, next.item, next.since_ns, now);
                if (!has_plenty(server)) (void)pthread_cond_signal(&server->hungry);
            } else
                server->polling++;
        }
        (void)pthread_mutex_unlock(&server->lock);
        if (shared) {
            take_blocks(worker, shared);
            let_go(server, shared);
        } else if (found) {
            run(worker);
        } else {
            return;
        }
    }
}

void ct_serve_score(void *context, void *worker, ct_rpc_call *call) {
    ct_server *server = context;
    ct_worker *self = worker;
    const int64_t now = ct_clock_ns();
    size_t bytes = 0;
    (void)ct_rpc_call_request(call, &bytes);
    ct_queue_entry refused = {NULL, 0, 0};
    bool ours = false;
    (void)pthread_mutex_lock(&server->lock);
    server->scoring++;
    const bool draining = server->draining;
    if (!draining) {
        ours = server->polling > 1;
        if (ours) {
            server->polling--;
            begin(self, call, now, now);
        } else {
            const ct_queue_entry entry = {.item = call, .since_ns = now, .bytes = bytes};
            (void)ct_queue_push(&server->queue, now, entry, &refused);
        }
    }
    (void)pthread_mutex_unlock(&server->lock);
    if (ours) {
        run(self);
        work_on(self);
    } else if (draining) {
        ct_status status = CT_STATUS_INIT;
        (void)ct_fail(&status, CT_UNAVAILABLE, "the server is going down");
        ct_rpc_call_fail(call, &status);
        (void)pthread_mutex_lock(&server->lock);
        count_end(server, CT_UNAVAILABLE);
        (void)pthread_mutex_unlock(&server->lock);
    } else if (refused.item) {
        refuse(server, refused.item, CT_EXHAUSTED, false);
    }
}
