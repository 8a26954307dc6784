/* Score. A request of up to a block is decoded, computed and answered by the worker that took it. A larger one is decoded by that worker
 * and then cut into blocks, which every idle worker takes from one counter; so a large request uses all cores and a busy server loses
 * nothing to it. Rows do not depend on how a request is cut: the model's forward gives the same bits for a row beside any others.
 *
 * Deadline and cancellation are looked at before decoding and before every block. */
#include <string.h>

#include "serving/server_internal.h"

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

static ct_code find_model(const ct_server *server, const request *r, const ct_served_model **out_model, ct_status *status) {
    if (r->model.len == 0) {
        *out_model = &server->models[0];
        return CT_OK;
    }
    for (size_t i = 0; i < server->model_count; i++) {
        const ct_served_model *model = &server->models[i];
        if (strlen(model->name) == r->model.len && memcmp(model->name, r->model.data, r->model.len) == 0) {
            *out_model = model;
            return CT_OK;
        }
    }
    char shown[80];
    return ct_fail(status, CT_NOT_FOUND, "no model \"%s\" here; the first one here is \"%s\"",
                   ct_text_show((const char *)r->model.data, r->model.len, shown, sizeof shown), server->models[0].name);
}

static ct_code decode(const ct_server *server, ct_score_work *work, ct_status *status) {
    size_t bytes = 0;
    const uint8_t *data = ct_rpc_call_request(work->call, &bytes);
    request *r = NULL;
    CT_TRY(ct_request_unpack(&work->arena, data, bytes, &r, status));
    CT_TRY(find_model(server, r, &work->model, status));
    CT_TRY(ct_request_batch(work->model->decoder, &work->arena, r, &work->batch, status));
    const size_t floats = work->batch.rows * work->model->outputs;
    work->logits = ct_arena_alloc(&work->arena, floats * sizeof(float));
    if (!work->logits) return ct_fail_memory(status, floats * sizeof(float), "a request's logits");
    work->request = r;
    return CT_OK;
}

static ct_code compute(ct_worker *worker, ct_score_work *work, size_t first_row, size_t rows, ct_status *status) {
    ct_server *server = worker->server;
    const ct_served_model *model = work->model;
    CT_TRY(ct_rpc_call_wanted(work->call, status));
    CT_TRY(ct_scorer_run(worker->scorers[model - server->models], &work->batch, first_row, rows, work->logits + first_row * model->outputs,
                         status));
    atomic_fetch_add_explicit(&server->rows_scored, rows, memory_order_relaxed);
    return CT_OK;
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

/* Ends the call; afterwards it may be gone. */
static void end(ct_server *server, ct_score_work *work, ct_code code, ct_status *status) {
    if (code == CT_OK) code = answer(work, status);
    if (code == CT_OK)
        ct_rpc_call_reply(work->call);
    else
        ct_rpc_call_fail(work->call, status);
    if (code == CT_OK) atomic_fetch_add_explicit(&server->requests_scored, 1, memory_order_relaxed);
    if (atomic_fetch_sub(&server->scoring, 1) == 1 && atomic_load(&server->draining)) {
        (void)pthread_mutex_lock(&server->lock);
        (void)pthread_cond_broadcast(&server->idle);
        (void)pthread_mutex_unlock(&server->lock);
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

static void let_go(ct_server *server, ct_score_work *work) {
    if (atomic_fetch_sub(&work->holders, 1) != 1) return;
    ct_score_work_reset(work);
    (void)pthread_mutex_lock(&server->lock);
    work->next_free = server->free_work;
    server->free_work = work;
    (void)pthread_mutex_unlock(&server->lock);
}

static void help(void *argument, void *worker) {
    ct_score_work *work = argument;
    ct_worker *self = worker;
    take_blocks(self, work);
    let_go(self->server, work);
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

/* Consumes worker->work and returns true, or changes nothing and returns false. */
static bool share(ct_worker *worker) {
    ct_server *server = worker->server;
    ct_score_work *work = worker->work;
    const size_t blocks = (work->batch.rows + CT_SERVE_BLOCK_ROWS - 1) / CT_SERVE_BLOCK_ROWS;
    size_t helpers = server->worker_count - 1;
    if (helpers > blocks - 1) helpers = blocks - 1;
    if (helpers == 0) return false;
    ct_score_work *fresh = other_work(server);
    if (!fresh) return false;
    worker->work = fresh;

    work->blocks = blocks;
    work->status = (ct_status)CT_STATUS_INIT;
    atomic_store(&work->failed, false);
    atomic_store(&work->next_block, 0);
    atomic_store(&work->blocks_left, blocks + 1); /* ours keeps the call alive while we post and work */
    atomic_store(&work->holders, helpers + 1);
    const size_t posted = ct_rpc_call_post(work->call, helpers, help, work);
    if (posted < helpers) atomic_fetch_sub(&work->holders, helpers - posted); /* ours remains */
    take_blocks(worker, work);
    if (atomic_fetch_sub(&work->blocks_left, 1) == 1) end(server, work, work->status.code, &work->status);
    let_go(server, work);
    return true;
}

void ct_serve_score(void *context, void *worker, ct_rpc_call *call) {
    ct_server *server = context;
    ct_worker *self = worker;
    ct_score_work *work = self->work;
    ct_status status = CT_STATUS_INIT;
    ct_code code;
    work->call = call;
    atomic_fetch_add(&server->scoring, 1);
    if (atomic_load(&server->draining)) {
        code = ct_fail(&status, CT_UNAVAILABLE, "the server is going down");
        goto done;
    }
    CT_TRY_GOTO(code, ct_rpc_call_wanted(call, &status), done);
    CT_TRY_GOTO(code, decode(server, work, &status), done);
    if (work->batch.rows > CT_SERVE_BLOCK_ROWS && share(self)) return;
    for (size_t first = 0; first < work->batch.rows; first += CT_SERVE_BLOCK_ROWS) {
        const size_t left = work->batch.rows - first;
        CT_TRY_GOTO(code, compute(self, work, first, left < CT_SERVE_BLOCK_ROWS ? left : CT_SERVE_BLOCK_ROWS, &status), done);
    }
done:
    end(server, work, code, &status);
    ct_score_work_reset(work);
}
