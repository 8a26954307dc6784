/* Score: from the message to the answer. A large call is decoded and answered by one thread and may be shared (share.c); small ones that
 * wait together are computed together (merge.c), and sent by the thread that computed them or by the one that leads. Which thread, and
 * when: threads.c.
 *
 * Deadline and cancellation are looked at while a call waits, before decoding and before every block. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "serving/server_internal.h"

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

void ct_score_work_reset(ct_score_work *work, size_t keep_bytes) {
    if (ct_arena_bytes(&work->arena) > keep_bytes) {
        ct_arena_deinit(&work->arena);
        ct_arena_init(&work->arena, 0);
    } else {
        ct_arena_reset(&work->arena);
    }
}

static ct_code check_wanted(const ct_score_call *call, ct_status *status) {
    const ct_code code = call->way->why_unwanted(call->of, ct_clock_ns());
    if (code == CT_OK) return CT_OK;
    return ct_fail(status, code, code == CT_DEADLINE ? "the deadline has passed" : "the client has cancelled, or has sent no message");
}

static ct_code decode(ct_server *server, ct_score_work *work, ct_status *status) {
    CT_TRY(check_wanted(&work->call, status));
    size_t bytes = 0;
    const uint8_t *data = work->call.way->request(work->call.of, &bytes);
    CT_TRY(ct_score_prepare(server, work, data, bytes, status));
    work->decoded_ns = ct_clock_ns();
    return CT_OK;
}

static ct_scorer *scorer_of(const ct_worker *worker, const ct_score_work *work) {
    const ct_model_set *set = work->set;
    return set->scorers[worker->index * set->model_count + (size_t)(work->model - set->models)];
}

ct_code ct_score_compute(ct_worker *worker, ct_score_work *work, size_t first_row, size_t rows, ct_status *status) {
    CT_TRY(check_wanted(&work->call, status));
    worker->rows_done += rows;
    return ct_scorer_run_derived(scorer_of(worker, work), &work->batch, first_row, rows, work->logits + first_row * work->model->outputs,
                                 work->derived ? work->derived + first_row : NULL, work->derived_stride, status);
}

/* Packs the answer straight into the memory that it is sent from. */
static ct_code answer(ct_server *server, ct_score_work *work, ct_status *status) {
    Clicktower__V1__ScoreResponse response;
    CT_TRY(ct_score_response(work, &response, status));
    const size_t bytes = clicktower__v1__score_response__get_packed_size(&response);
    uint8_t *out = work->call.way->reserve(work->call.of, bytes);
    if (!out) return ct_fail_memory(status, bytes, "an answer");
    (void)clicktower__v1__score_response__pack(&response, out);
    ct_score_expose(server, work, CT_OK);
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
    if (--set->users == 0 && set != server->set) (void)pthread_cond_broadcast(&server->ended); /* ct_server_replace waits */
}

/* One call less; its status. */
static void count_end(ct_server *server, ct_code code, const char *message) {
    server->stats.ended[code]++;
    if (code != CT_OK) {
        char *last = server->stats.last_message[code];
        const size_t bytes = strnlen(message, CT_SERVER_MESSAGE_BYTES - 1);
        memcpy(last, message, bytes);
        last[bytes] = '\0';
    }
    if (--server->scoring == 0 && server->draining) (void)pthread_cond_broadcast(&server->ended);
}

static void count_work(ct_server *server, ct_score_work *work, const char *message) {
    ct_server_stats *stats = &server->stats;
    if (work->decoded_ns) observe(&stats->decoding, work->decoded_ns - work->began_ns);
    if (work->computed_ns) observe(&stats->computing, work->computed_ns - work->decoded_ns);
    if (work->code == CT_OK) {
        stats->candidates += work->batch.rows;
        observe(&stats->latency, work->ended_ns - work->arrived_ns);
        observe(&stats->answering, work->ended_ns - work->computed_ns);
    }
    ct_model_set_count(work->set, &work->choice, work->code != CT_OK);
    give_set(server, work->set);
    count_end(server, work->code, message);
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

/* Times are zero where it did not come to them. */
static void log_request(const ct_score_work *work, const ct_status *status) {
    char given[CT_REQUEST_ID_MAX_BYTES + 1] = "", id[2 * sizeof given + 3], model[256], why[2 * CT_STATUS_MESSAGE_BYTES];
    const int64_t end = work->ended_ns, decoded = work->decoded_ns, computed = work->computed_ns;
    const bool good = work->code == CT_OK;
    if (decoded) (void)snprintf(given, sizeof given, "%.*s", (int)work->request_id.len, (const char *)work->request_id.data);
    ct_log_line(good ? CT_LOG_INFO : CT_LOG_WARNING, "serve.request",
                "request_id=%s model=%s candidates=%zu code=%s us=%lld queue_us=%lld decode_us=%lld compute_us=%lld answer_us=%lld%s%s",
                ct_log_quote(given, id, sizeof id), ct_log_quote(decoded ? work->model->name : "", model, sizeof model),
                decoded ? work->batch.rows : 0, ct_rpc_code_name(work->code), (long long)(end - work->arrived_ns) / 1000,
                (long long)(work->began_ns - work->arrived_ns) / 1000, (long long)(decoded ? decoded - work->began_ns : 0) / 1000,
                (long long)(computed ? computed - decoded : 0) / 1000, (long long)(computed ? end - computed : 0) / 1000,
                good ? "" : " reason=", good ? "" : ct_log_quote(status->message, why, sizeof why));
}

/* All but sending: afterwards the answer is packed, or work->status says why there is none. */
static void finish(ct_server *server, ct_score_work *work, ct_code code, const ct_status *status) {
    if (code == CT_OK) {
        work->computed_ns = ct_clock_ns();
        code = answer(server, work, &work->status);
    } else if (status != &work->status) {
        work->status = *status;
    }
    if (code != CT_OK) ct_score_expose(server, work, code);
    work->code = code;
}

static void send_one(ct_server *server, ct_score_work *work) {
    static const ct_status good = {.code = CT_OK};
    const ct_status *status = work->code == CT_OK ? &good : &work->status;
    work->call.way->end(work->call.of, status);
    work->ended_ns = ct_clock_ns();
    if (server->log_requests) log_request(work, status);
}

void ct_score_send(ct_server *server, ct_score_work *const *works, size_t count) {
    if (count > 1) ct_rpc_together_begin();
    for (size_t i = 0; i < count; i++) send_one(server, works[i]);
    if (count > 1) ct_rpc_together_end();
    (void)pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < count; i++) count_work(server, works[i], works[i]->status.message);
    (void)pthread_mutex_unlock(&server->lock);
}

void ct_score_end(ct_server *server, ct_score_work *work, ct_code code, const ct_status *status) {
    finish(server, work, code, status);
    ct_score_send(server, &work, 1);
}

void ct_score_refuse(ct_server *server, ct_score_call call, ct_code code, ct_refusal why) {
    static const char *const busy[CT_REFUSALS] = {
        [CT_REFUSED_FULL] = "the server is busy: too many requests wait; try again later or elsewhere",
        [CT_REFUSED_SLOW] = "the server is busy: the request would wait too long; try again later or elsewhere",
        [CT_REFUSED_WAITED] = "the server is busy: the request has waited too long; try again later or elsewhere",
    };
    ct_status status;
    status.code = code;
    const char *text = code == CT_DEADLINE      ? "the deadline has passed"
                       : code == CT_CANCELLED   ? "the client has cancelled, or has sent no message"
                       : code == CT_UNAVAILABLE ? "the server is going down"
                                                : busy[why];
    memcpy(status.message, text, strlen(text) + 1);
    call.way->end(call.of, &status);
    if (server->log_requests) {
        char quoted[2 * CT_STATUS_MESSAGE_BYTES];
        ct_log_line(CT_LOG_WARNING, "serve.request", "request_id=\"\" model=\"\" candidates=0 code=%s reason=%s", ct_rpc_code_name(code),
                    ct_log_quote(text, quoted, sizeof quoted));
    }
    (void)pthread_mutex_lock(&server->lock);
    if (code == CT_EXHAUSTED) server->stats.refused[why]++;
    count_end(server, code, text);
    (void)pthread_mutex_unlock(&server->lock);
}

/* --- the calls of one thread --- */

void ct_score_begin(ct_server *server, ct_score_work *work, ct_score_call call, int64_t arrived_ns, int64_t now_ns) {
    work->call = call;
    work->arrived_ns = arrived_ns;
    work->began_ns = now_ns;
    work->decoded_ns = work->computed_ns = 0;
    work->choice = (ct_arm_choice){.how = CT_ASSIGN_NONE};
    work->exposed = false;
    work->derived = NULL;
    work->set = server->set;
    work->set->users++;
    atomic_store_explicit(&server->begun_ns, now_ns, memory_order_relaxed);
    observe(&server->stats.waited, now_ns - arrived_ns);
}

static ct_code run_blocks(ct_worker *worker, ct_score_work *work, ct_status *status) {
    for (size_t first = 0; first < work->batch.rows; first += CT_SERVE_BLOCK_ROWS) {
        const size_t left = work->batch.rows - first;
        CT_TRY(ct_score_compute(worker, work, first, left < CT_SERVE_BLOCK_ROWS ? left : CT_SERVE_BLOCK_ROWS, status));
    }
    return CT_OK;
}

void ct_score_run_large(ct_worker *worker) {
    ct_score_work *work = worker->large;
    ct_status status = CT_STATUS_INIT;
    ct_code code = decode(worker->server, work, &status);
    if (code == CT_OK) {
        if (ct_share(worker, &worker->large)) return;
        code = run_blocks(worker, work, &status);
    }
    ct_score_end(worker->server, work, code, &status);
    ct_score_work_reset(work, CT_SERVE_KEPT_BYTES);
}

/* Computes the rows of `count` decoded requests of one model and leaves each its logits. */
static ct_code run_merged(ct_worker *worker, ct_score_work *const *works, size_t count, ct_status *status) {
    const ct_batch *batches[CT_SERVE_GROUP_CALLS];
    for (size_t i = 0; i < count; i++) batches[i] = &works[i]->batch;
    ct_batch merged;
    CT_TRY(ct_merge_batches(&worker->arena, batches, count, &merged, status));
    const size_t outputs = works[0]->model->outputs;
    float *logits = ct_arena_alloc(&worker->arena, merged.rows * outputs * sizeof *logits);
    if (!logits) return ct_fail_memory(status, merged.rows * outputs * sizeof *logits, "requests together");
    bool derives = false;
    for (size_t i = 0; i < count; i++) derives |= works[i]->derived != NULL;
    float *derived = NULL;
    if (derives) {
        const size_t floats = merged.rows * works[0]->model->derived_count;
        derived = ct_arena_alloc(&worker->arena, floats * sizeof *derived);
        if (!derived) return ct_fail_memory(status, floats * sizeof *derived, "requests together");
    }
    worker->rows_done += merged.rows;
    CT_TRY(ct_scorer_run_derived(scorer_of(worker, works[0]), &merged, 0, merged.rows, logits, derived, merged.rows, status));
    for (size_t i = 0; i < count; i++) {
        works[i]->logits = logits;
        logits += works[i]->batch.rows * outputs;
        if (works[i]->derived) {
            works[i]->derived = derived;
            works[i]->derived_stride = merged.rows;
        }
        if (derived) derived += works[i]->batch.rows;
    }
    return CT_OK;
}

/* Takes the works of the first one's model out of the list into `out`, in order, as long as their rows fit into a block. */
static size_t take_same(ct_score_work **list, size_t *count, ct_score_work **out) {
    size_t taken = 0, kept = 0, rows = 0;
    const ct_score_work *const first = list[0]; /* its place is taken by the first that is kept */
    for (size_t i = 0; i < *count; i++) {
        const bool same = list[i]->model == first->model && list[i]->set == first->set;
        if (i == 0 || (same && rows + list[i]->batch.rows <= CT_SERVE_BLOCK_ROWS)) {
            rows += list[i]->batch.rows;
            out[taken++] = list[i];
        } else {
            list[kept++] = list[i];
        }
    }
    *count = kept;
    return taken;
}

void ct_score_run_group(ct_worker *worker) {
    ct_server *server = worker->server;
    ct_score_work *ready[CT_SERVE_GROUP_CALLS], *same[CT_SERVE_GROUP_CALLS];
    size_t ready_count = 0, groups = 0, requests = 0;
    ct_status status = CT_STATUS_INIT;
    for (size_t i = 0; i < worker->work_count; i++) {
        ct_score_work *work = worker->works[i];
        const ct_code code = decode(server, work, &status);
        if (code == CT_OK)
            ready[ready_count++] = work;
        else
            finish(server, work, code, &status);
    }
    while (ready_count) {
        const size_t count = take_same(ready, &ready_count, same);
        const ct_code code = count == 1 ? run_blocks(worker, same[0], &status) : run_merged(worker, same, count, &status);
        for (size_t i = 0; i < count; i++) finish(server, same[i], code, &status);
        ct_arena_reset(&worker->arena);
        if (count == 1) continue;
        groups++;
        requests += count;
    }
    (void)pthread_mutex_lock(&server->lock);
    server->stats.merged_groups += groups;
    server->stats.merged_requests += requests;
    (void)pthread_mutex_unlock(&server->lock);
}
