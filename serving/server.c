/* The server's parts and its life: workers, method table, start and drain. Methods are in score.c, models.c and health.c. */
#include "serving/server.h"

#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/pool.h"
#include "base/thread.h"
#include "serving/server_internal.h"

enum {
    DEFAULT_MAX_CANDIDATES = 10000,
    DEFAULT_MAX_MESSAGE_BYTES = 16 * 1024 * 1024,
    DEFAULT_QUEUE_CALLS = 256,
    DEFAULT_QUEUE_MS = 2000,
    MAX_THREADS = 1024,
    MAX_QUEUE_CALLS = 65536,
    MAX_QUEUE_BYTES = 256 * 1024 * 1024,
    HELD_CALLS = 256, /* refusals that may be held back; and how many a second for each thread go out at once */
    REFUSALS_PER_S = 1000,
    BUSY_NS = 100000000,
    SPARE_SLOTS = 64 + HELD_CALLS, /* calls that are being refused or answered */
    OTHER_SLOTS = 8,
    FEEDBACK_SLOTS = 320, /* what may wait to be written, and what is being refused */
    WATCH_SLOTS = 256
};

static void server_destroy(ct_server *server) {
    if (!server) return;
    for (size_t i = 0; i < server->threads_started; i++) (void)pthread_join(server->workers[i].thread, NULL);
    ct_rpc_server_destroy(server->rpc);
    for (size_t i = 0; server->workers && i < server->thread_count; i++) ct_worker_deinit(&server->workers[i]);
    ct_score_work *work = NULL;
    while ((work = ct_score_work_take(&server->free_small)) || (work = ct_score_work_take(&server->free_large)))
        ct_score_work_destroy(work);
    ct_model_set_destroy(server->set);
    ct_follow_destroy(server);
    ct_queue_deinit(&server->queue);
    ct_hold_deinit(&server->hold);
    ct_health_destroy(server->health);
    free(server->workers);
    (void)pthread_cond_destroy(&server->ended);
    (void)pthread_cond_destroy(&server->work);
    (void)pthread_cond_destroy(&server->hungry);
    (void)pthread_mutex_destroy(&server->lock);
    free(server);
}

static ct_code start_workers(ct_server *server, ct_status *status) {
    for (size_t i = 0; i < server->thread_count; i++) {
        if (!ct_thread_start("ct-serve", ct_worker_main, &server->workers[i], &server->workers[i].thread))
            return ct_fail(status, CT_EXHAUSTED, "cannot start thread %zu of %zu; use fewer threads", i + 1, server->thread_count);
        server->threads_started++;
    }
    return CT_OK;
}

static ct_code check_options(const ct_server_options *options, ct_status *status) {
    if (options->threads > MAX_THREADS) return ct_fail(status, CT_INVALID, "%zu threads: at most %d", options->threads, MAX_THREADS);
    if (options->queue_calls > MAX_QUEUE_CALLS)
        return ct_fail(status, CT_INVALID, "a queue of %zu calls: at most %d", options->queue_calls, MAX_QUEUE_CALLS);
    if (options->queue_ms < 0) return ct_fail(status, CT_INVALID, "a queue of %lld ms", (long long)options->queue_ms);
    return CT_OK;
}

ct_code ct_server_start(const ct_server_options *options, ct_server **out_server, ct_status *status) {
    CT_TRY(check_options(options, status));
    ct_server *server = calloc(1, sizeof *server);
    if (!server) return ct_fail_memory(status, sizeof *server, "a server");
    (void)pthread_mutex_init(&server->lock, NULL);
    ct_condition_init(&server->ended);
    ct_condition_init(&server->work);
    ct_condition_init(&server->hungry);
    server->thread_count = 1 + (options->threads ? options->threads : ct_pool_default_threads());
    server->max_candidates = options->max_candidates ? options->max_candidates : DEFAULT_MAX_CANDIDATES;
    server->log_requests = options->log_requests;
    server->workers = calloc(server->thread_count, sizeof *server->workers);

    /* Signals are for the program's own threads, not for ours nor for those that gRPC starts. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    ct_code code = CT_OK;
    if (!server->workers) {
        code = ct_fail_memory(status, server->thread_count * sizeof *server->workers, "a server");
        goto fail;
    }
    const uint32_t max_bytes = options->max_message_bytes ? options->max_message_bytes : DEFAULT_MAX_MESSAGE_BYTES;
    const size_t queue_calls = options->queue_calls ? options->queue_calls : DEFAULT_QUEUE_CALLS;
    const int64_t queue_ms = options->queue_ms ? options->queue_ms : DEFAULT_QUEUE_MS;
    CT_TRY_GOTO(code, ct_queue_init(&server->queue, queue_calls, MAX_QUEUE_BYTES, queue_ms * 1000000, status), fail);
    CT_TRY_GOTO(code, ct_hold_init(&server->hold, HELD_CALLS, REFUSALS_PER_S * (double)(server->thread_count - 1), HELD_CALLS / 4, status),
                fail);
    CT_TRY_GOTO(code,
                ct_model_set_create(options->models, options->model_count, options->experiment, server->max_candidates,
                                    server->thread_count, &server->set, status),
                fail);
    server->exposures = options->exposures;
    server->feedback = options->feedback;
    server->calibration = options->calibration;
    for (size_t i = 0; i < server->thread_count; i++) CT_TRY_GOTO(code, ct_worker_init(&server->workers[i], server, i, status), fail);
    server->health = ct_health_create();
    if (!server->health) {
        code = ct_fail_memory(status, 1, "a server");
        goto fail;
    }

    const ct_rpc_method methods[] = {
        {.path = "/clicktower.v1.Scorer/Score",
         .handle = ct_serve_score,
         .context = server,
         .slots = queue_calls + server->thread_count * CT_SERVE_GROUP_CALLS + SPARE_SLOTS,
         .needs_token = true},
        {.path = "/clicktower.v1.Scorer/Models", .handle = ct_serve_models, .context = server, .slots = OTHER_SLOTS, .needs_token = true},
        {.path = "/clicktower.v1.Scorer/Feedback",
         .handle = ct_serve_feedback,
         .context = server,
         .slots = FEEDBACK_SLOTS,
         .needs_token = true},
        {.path = "/grpc.health.v1.Health/Check", .handle = ct_serve_health, .context = server, .slots = OTHER_SLOTS},
        {.path = "/grpc.health.v1.Health/Watch", .stream = &ct_serve_watch, .context = server, .slots = WATCH_SLOTS},
        {.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
         .stream = &ct_serve_reflection,
         .context = server,
         .slots = OTHER_SLOTS,
         .needs_token = true},
        {.path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
         .stream = &ct_serve_reflection,
         .context = server,
         .slots = OTHER_SLOTS,
         .needs_token = true},
    };
    const ct_rpc_server_options rpc_options = {.max_message_bytes = max_bytes,
                                               .max_connection_age_ms = options->max_connection_age_ms,
                                               .max_calls_of_peer = options->max_calls_of_peer,
                                               .tls_certificate = options->tls_certificate,
                                               .tls_key = options->tls_key,
                                               .tls_client_ca = options->tls_client_ca};
    CT_TRY_GOTO(code, ct_rpc_server_create(methods, sizeof methods / sizeof *methods, &rpc_options, &server->rpc, status), fail);
    if (options->token_count) {
        code = ct_rpc_server_set_tokens(server->rpc, options->tokens, options->token_count, status);
        if (code != CT_OK) {
            ct_rpc_server_stop(server->rpc, 0);
            goto fail;
        }
    }
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

ct_code ct_server_replace(ct_server *server, const ct_server_model *models, size_t model_count, const ct_experiment *experiment,
                          ct_background *background, ct_status *status) {
    ct_model_set *set = NULL;
    CT_TRY(ct_model_set_create(models, model_count, experiment, server->max_candidates, server->thread_count, &set, status));
    ct_background_end(background);
    (void)pthread_mutex_lock(&server->lock);
    ct_model_set *before = server->set;
    server->set = set;
    ct_model_set_move_counts(set, before);
    server->stats.replaced++;
    while (before->users) (void)pthread_cond_wait(&server->ended, &server->lock);
    ct_model_set_move_counts(set, before); /* of those that had begun */
    (void)pthread_mutex_unlock(&server->lock);
    ct_background_begin(background);
    ct_model_set_destroy(before);
    return CT_OK;
}

void ct_server_count_refused_swap(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    server->stats.replace_refused++;
    (void)pthread_mutex_unlock(&server->lock);
}

void ct_server_count_not_yet(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    server->stats.not_yet++;
    (void)pthread_mutex_unlock(&server->lock);
}

ct_code ct_server_set_certificate(ct_server *server, const char *certificate, const char *key, const char *client_ca, ct_status *status) {
    return ct_rpc_server_set_certificate(server->rpc, certificate, key, client_ca, status);
}

ct_code ct_server_set_tokens(ct_server *server, const char *const *tokens, size_t count, ct_status *status) {
    return ct_rpc_server_set_tokens(server->rpc, tokens, count, status);
}

bool ct_server_allows(ct_server *server, const char *authorization) { return ct_rpc_server_allows(server->rpc, authorization); }

void ct_server_stats_get(ct_server *server, ct_server_stats *out_stats) {
    (void)pthread_mutex_lock(&server->lock);
    *out_stats = server->stats;
    out_stats->queued = server->queue.count;
    out_stats->scoring = server->scoring;
    out_stats->queue_calls = server->queue.limit;
    out_stats->threads = server->thread_count - 1;
    (void)pthread_mutex_unlock(&server->lock);
    const ct_rpc_refusals refusals = ct_rpc_server_refusals(server->rpc);
    out_stats->no_token = refusals.no_token;
    out_stats->peer_limit = refusals.peer_limit;
    out_stats->no_method = refusals.no_method;
}

bool ct_server_is_busy(const ct_server *server) {
    return ct_clock_ns() - atomic_load_explicit(&server->begun_ns, memory_order_relaxed) < BUSY_NS;
}

bool ct_server_is_draining(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    const bool draining = server->draining;
    (void)pthread_mutex_unlock(&server->lock);
    return draining;
}

void ct_server_drain(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    server->draining = true;
    (void)pthread_mutex_unlock(&server->lock);
    ct_health_changed(server->health, false);
}

/* Until `limit`, by ct_clock_ns. */
static void wait_idle(ct_server *server, int64_t limit) {
    (void)pthread_mutex_lock(&server->lock);
    while (server->scoring != 0 && ct_clock_ns() < limit) {
        (void)ct_condition_wait(&server->ended, &server->lock, limit);
    }
    (void)pthread_mutex_unlock(&server->lock);
}

void ct_server_wait_idle(ct_server *server, int64_t grace_ms) {
    wait_idle(server, ct_clock_ns() + (grace_ms > 0 ? grace_ms : 0) * 1000000);
}

void ct_server_stop(ct_server *server, int64_t grace_ms) {
    if (!server) return;
    const int64_t limit = ct_clock_ns() + (grace_ms > 0 ? grace_ms : 0) * 1000000;
    /* First we only say that we go: what is being scored ends, Health says NOT_SERVING, new requests are sent elsewhere. */
    ct_server_drain(server);
    wait_idle(server, limit);
    const int64_t left_ms = (limit - ct_clock_ns()) / 1000000;
    ct_rpc_server_stop(server->rpc, left_ms > 0 ? left_ms : 0);
    server_destroy(server);
}
