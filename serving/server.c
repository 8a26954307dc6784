/* The server's parts and its life: workers, method table, start and drain. Methods are in score.c, models.c and health.c. */
#include "serving/server.h"

#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/pool.h"
#include "serving/server_internal.h"

enum {
    DEFAULT_MAX_CANDIDATES = 10000,
    DEFAULT_MAX_MESSAGE_BYTES = 16 * 1024 * 1024,
    MAX_THREADS = 1024,
    SCORE_SLOTS = 64,
    OTHER_SLOTS = 8
};

static void *worker_main(void *argument) {
    ct_worker *worker = argument;
    ct_rpc_server_work(worker->server->rpc, worker);
    return NULL;
}

static void server_destroy(ct_server *server) {
    if (!server) return;
    for (size_t i = 0; i < server->workers_started; i++) (void)pthread_join(server->workers[i].thread, NULL);
    ct_rpc_server_destroy(server->rpc);
    for (size_t i = 0; server->workers && i < server->worker_count; i++) {
        ct_worker *worker = &server->workers[i];
        ct_score_work_destroy(worker->work);
        for (size_t m = 0; worker->scorers && m < server->model_count; m++) ct_scorer_destroy(worker->scorers[m]);
        free(worker->scorers);
    }
    while (server->free_work) {
        ct_score_work *next = server->free_work->next_free;
        ct_score_work_destroy(server->free_work);
        server->free_work = next;
    }
    for (size_t m = 0; server->models && m < server->model_count; m++) ct_decoder_destroy(server->models[m].decoder);
    free(server->workers);
    free(server->models);
    free(server->models_answer);
    (void)pthread_cond_destroy(&server->idle);
    (void)pthread_mutex_destroy(&server->lock);
    free(server);
}

static ct_code model_init(const ct_server_model *from, uint32_t max_candidates, ct_served_model *out, ct_status *status) {
    const ct_schema *schema = ct_model_schema(from->model);
    bool *used = calloc(schema->field_count + 1, sizeof *used);
    if (!used) return ct_fail_memory(status, schema->field_count, "a server's model");
    for (size_t f = 0; f < schema->field_count; f++) used[f] = ct_model_uses_field(from->model, f);
    out->name = from->name;
    out->model = from->model;
    out->outputs = ct_model_output_count(from->model);
    ct_code code = ct_decoder_create(schema, used, max_candidates, &out->decoder, status);
    free(used);
    if (code == CT_OK) code = ct_model_digest(from->model, out->version, status);
    return code;
}

static ct_code worker_init(ct_server *server, size_t index, ct_status *status) {
    ct_worker *worker = &server->workers[index];
    worker->server = server;
    worker->index = index;
    worker->scorers = calloc(server->model_count, sizeof(ct_scorer *));
    if (!worker->scorers) return ct_fail_memory(status, server->model_count * sizeof(ct_scorer *), "a worker");
    CT_TRY(ct_score_work_create(&worker->work, status));
    for (size_t m = 0; m < server->model_count; m++) CT_TRY(ct_scorer_create(server->models[m].model, &worker->scorers[m], status));
    return CT_OK;
}

static ct_code start_workers(ct_server *server, ct_status *status) {
    for (size_t i = 0; i < server->worker_count; i++) {
        if (pthread_create(&server->workers[i].thread, NULL, worker_main, &server->workers[i]) != 0)
            return ct_fail(status, CT_EXHAUSTED, "cannot start thread %zu of %zu; use fewer threads", i + 1, server->worker_count);
        (void)pthread_setname_np(server->workers[i].thread, "ct-serve");
        server->workers_started++;
    }
    return CT_OK;
}

static ct_code check_options(const ct_server_options *options, ct_status *status) {
    if (options->model_count == 0) return ct_fail(status, CT_INVALID, "a server needs a model");
    if (options->threads > MAX_THREADS) return ct_fail(status, CT_INVALID, "%zu threads: at most %d", options->threads, MAX_THREADS);
    for (size_t i = 0; i < options->model_count; i++) {
        const char *name = options->models[i].name;
        if (name[0] == '\0' || !ct_utf8_is_valid(name, strlen(name)))
            return ct_fail(status, CT_INVALID, "model %zu: its name must be UTF-8 and not empty", i + 1);
        for (size_t j = 0; j < i; j++)
            if (strcmp(name, options->models[j].name) == 0) return ct_fail(status, CT_INVALID, "two models are named \"%s\"", name);
    }
    return CT_OK;
}

ct_code ct_server_start(const ct_server_options *options, ct_server **out_server, ct_status *status) {
    CT_TRY(check_options(options, status));
    ct_server *server = calloc(1, sizeof *server);
    if (!server) return ct_fail_memory(status, sizeof *server, "a server");
    (void)pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&server->idle, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    server->model_count = options->model_count;
    server->worker_count = options->threads ? options->threads : ct_pool_default_threads();
    server->models = calloc(server->model_count, sizeof *server->models);
    server->workers = calloc(server->worker_count, sizeof *server->workers);

    /* Signals are for the program's own threads, not for ours nor for those that gRPC starts. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    ct_code code = CT_OK;
    if (!server->models || !server->workers) {
        code = ct_fail_memory(status, server->worker_count * sizeof *server->workers, "a server");
        goto fail;
    }
    const uint32_t max_candidates = options->max_candidates ? options->max_candidates : DEFAULT_MAX_CANDIDATES;
    const uint32_t max_bytes = options->max_message_bytes ? options->max_message_bytes : DEFAULT_MAX_MESSAGE_BYTES;
    for (size_t m = 0; m < server->model_count; m++)
        CT_TRY_GOTO(code, model_init(&options->models[m], max_candidates, &server->models[m], status), fail);
    CT_TRY_GOTO(code, ct_models_answer_create(server, status), fail);
    for (size_t i = 0; i < server->worker_count; i++) CT_TRY_GOTO(code, worker_init(server, i, status), fail);

    const ct_rpc_method methods[] = {
        {"/clicktower.v1.Scorer/Score", ct_serve_score, server, SCORE_SLOTS + 16 * server->worker_count},
        {"/clicktower.v1.Scorer/Models", ct_serve_models, server, OTHER_SLOTS},
        {"/grpc.health.v1.Health/Check", ct_serve_health, server, OTHER_SLOTS},
    };
    CT_TRY_GOTO(code, ct_rpc_server_create(methods, sizeof methods / sizeof *methods, max_bytes, &server->rpc, status), fail);
    code = start_workers(server, status);
    if (code == CT_OK) code = ct_rpc_server_listen(server->rpc, options->listen, status);
    if (code != CT_OK) {
        ct_rpc_server_stop(server->rpc, 0);
        goto fail;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    *out_server = server;
    return CT_OK;
fail:
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    server_destroy(server);
    return code;
}

int ct_server_port(const ct_server *server) { return ct_rpc_server_port(server->rpc); }

void ct_server_stop(ct_server *server, int64_t grace_ms) {
    if (!server) return;
    const int64_t limit = ct_clock_ns() + (grace_ms > 0 ? grace_ms : 0) * 1000000;
    /* First we only say that we go: what is being scored ends, Health says NOT_SERVING, new requests are sent elsewhere. */
    (void)pthread_mutex_lock(&server->lock);
    atomic_store(&server->draining, true);
    while (atomic_load(&server->scoring) != 0 && ct_clock_ns() < limit) {
        const struct timespec until = {.tv_sec = limit / 1000000000, .tv_nsec = limit % 1000000000};
        (void)pthread_cond_timedwait(&server->idle, &server->lock, &until);
    }
    (void)pthread_mutex_unlock(&server->lock);
    const int64_t left_ms = (limit - ct_clock_ns()) / 1000000;
    ct_rpc_server_stop(server->rpc, left_ms > 0 ? left_ms : 0);
    server_destroy(server);
}
