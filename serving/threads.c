/* The server's threads. There is one more than may score at once. One of them leads: it alone polls gRPC, puts calls into the queue and
 * refuses what is too much; nothing is decoded before a call's turn has come, so refusing costs a look at the queue. Where calls wait and
 * another thread is free, the leader lets that one lead and computes; else it goes on polling. So an idle server computes a call in the
 * thread that took it, somebody always reads the network, answers Health and notices who has gone, and gRPC's polling is never passed
 * around among threads that all wait for it.
 *
 * A thread that has nothing to do leads if nobody does, else helps with a shared request, else takes calls from the queue, else waits.
 * Looking and beginning to wait are one step under the lock, so no call stays in the queue while a thread is free.
 *
 * Small requests that wait together are taken together (merge.c): there is no waiting for company. */
#include "base/clock.h"
#include "serving/server_internal.h"

enum { AWAKE_NS = 1000000, NAP_NS = 1000000, DRAIN_EVENTS = 64, SWEEP_CALLS = 16 };

/* --- the leader --- */

static bool is_wanted(void *item, int64_t now_ns) { return ct_rpc_call_why_unwanted(item, now_ns) == CT_OK; }

/* Under lock. Does more wait than the busy threads will take at once? Then nothing is lost where new calls are seen a little later. */
static bool has_plenty(const ct_server *server) { return server->waiting == 0 && server->queue.count >= 2 * (server->thread_count - 1); }

/* Under overload the leader would be woken for every packet, and would take the cores from those that compute. So while plenty waits it
 * works for a while and naps for a while, but not longer than the queue lasts. What came meanwhile is taken together, which costs less for
 * each, and clients that retry at once get their refusals at a rate that leaves the others their share. */
static void nap(ct_worker *worker) {
    ct_server *server = worker->server;
    const int64_t limit = ct_clock_ns() + NAP_NS;
    const struct timespec until = {.tv_sec = limit / 1000000000, .tv_nsec = limit % 1000000000};
    (void)pthread_mutex_lock(&server->lock);
    while (has_plenty(server) && pthread_cond_timedwait(&server->hungry, &server->lock, &until) == 0) continue;
    (void)pthread_mutex_unlock(&server->lock);
    worker->awake_since_ns = ct_clock_ns();
}

/* Refuses those that have waited too long, and naps. Returns when to look again. */
static int64_t tend_queue(ct_worker *worker) {
    ct_server *server = worker->server;
    ct_queue_entry gone[SWEEP_CALLS];
    for (;;) {
        const int64_t now = ct_clock_ns();
        (void)pthread_mutex_lock(&server->lock);
        const size_t count = ct_queue_sweep(&server->queue, now, is_wanted, gone, SWEEP_CALLS);
        const int64_t again = ct_queue_next_expiry(&server->queue);
        const bool plenty = has_plenty(server);
        (void)pthread_mutex_unlock(&server->lock);
        for (size_t i = 0; i < count; i++) {
            const ct_code why = ct_rpc_call_why_unwanted(gone[i].item, now);
            ct_score_refuse(server, gone[i].item, why == CT_OK ? CT_EXHAUSTED : why, true);
        }
        if (count == SWEEP_CALLS) continue;
        if (!plenty || now - worker->awake_since_ns < AWAKE_NS) return again;
        nap(worker);
    }
}

static void lead(ct_worker *worker) {
    ct_server *server = worker->server;
    ct_rpc_polled polled = CT_RPC_NOTHING;
    for (;;) {
        (void)pthread_mutex_lock(&server->lock);
        const bool stopped = polled == CT_RPC_STOPPED, give = server->queue.count && server->waiting;
        if (stopped || give) {
            server->leading = false;
            server->stopped = stopped;
            if (stopped)
                (void)pthread_cond_broadcast(&server->work);
            else
                (void)pthread_cond_signal(&server->work);
        }
        (void)pthread_mutex_unlock(&server->lock);
        if (stopped || give) return;
        polled = ct_rpc_server_poll(server->rpc, worker, tend_queue(worker));
        for (size_t i = 0; i < DRAIN_EVENTS && polled == CT_RPC_EVENT; i++) {
            polled = ct_rpc_server_poll(server->rpc, worker, 0);
            if (polled == CT_RPC_STOPPED) break;
        }
    }
}

/* --- calls --- */

void ct_serve_score(void *context, void *worker, ct_rpc_call *call) {
    ct_server *server = context;
    const int64_t now = ct_clock_ns();
    size_t bytes = 0;
    const uint8_t *data = ct_rpc_call_request(call, &bytes);
    const ct_queue_entry entry = {.item = call, .since_ns = now, .bytes = bytes, .rows = ct_request_rows_guess(data, bytes)};
    ct_queue_entry refused = {NULL, 0, 0, 0};
    (void)worker;
    (void)pthread_mutex_lock(&server->lock);
    server->scoring++;
    const bool draining = server->draining;
    if (!draining) (void)ct_queue_push(&server->queue, now, entry, &refused);
    (void)pthread_mutex_unlock(&server->lock);
    if (draining)
        ct_score_refuse(server, call, CT_UNAVAILABLE, false);
    else if (refused.item)
        ct_score_refuse(server, refused.item, CT_EXHAUSTED, false);
}

static bool is_small(const ct_queue_entry *entry) { return entry->rows <= CT_SERVE_MERGE_ROWS && entry->bytes <= CT_SERVE_MERGE_BYTES; }

/* Under lock. The next call, and, where it is small, those behind it that are, too; but other threads that are free get their part. */
static bool take_group(ct_worker *worker) {
    ct_server *server = worker->server;
    const int64_t now = ct_clock_ns();
    const size_t share = server->waiting > 1 ? (server->queue.count + server->waiting - 1) / server->waiting : server->queue.count;
    size_t rows = 0;
    worker->work_count = 0;
    while (worker->work_count < CT_SERVE_GROUP_CALLS) {
        const ct_queue_entry *next = ct_queue_peek(&server->queue, now);
        if (!next) break;
        const bool joins = is_small(next) && rows + next->rows <= CT_SERVE_BLOCK_ROWS && worker->work_count < share;
        if (worker->work_count && !joins) break;
        const bool alone = !is_small(next);
        rows += next->rows;
        ct_queue_entry taken;
        (void)ct_queue_take(&server->queue, now, &taken);
        ct_score_begin(server, worker->works[worker->work_count++], taken.item, taken.since_ns, now);
        if (alone) break;
    }
    if (!has_plenty(server)) (void)pthread_cond_signal(&server->hungry);
    return worker->work_count > 0;
}

/* --- their life --- */

size_t ct_server_wake(ct_server *server, size_t count) {
    if (count > server->waiting) count = server->waiting;
    for (size_t i = 0; i < count; i++) (void)pthread_cond_signal(&server->work);
    return count;
}

void *ct_worker_main(void *argument) {
    ct_worker *worker = argument;
    ct_server *server = worker->server;
    (void)pthread_mutex_lock(&server->lock);
    while (!server->stopped) {
        ct_score_work *shared = NULL;
        if (!server->leading) {
            server->leading = true;
            (void)pthread_mutex_unlock(&server->lock);
            lead(worker);
            (void)pthread_mutex_lock(&server->lock);
            /* Whoever was woken leads; what waited is ours. */
            if (server->stopped || !take_group(worker)) continue;
            (void)pthread_mutex_unlock(&server->lock);
            ct_score_run(worker);
            (void)pthread_mutex_lock(&server->lock);
        } else if ((shared = ct_share_find(server))) {
            (void)pthread_mutex_unlock(&server->lock);
            ct_share_help(worker, shared);
            (void)pthread_mutex_lock(&server->lock);
        } else if (take_group(worker)) {
            (void)pthread_mutex_unlock(&server->lock);
            ct_score_run(worker);
            (void)pthread_mutex_lock(&server->lock);
        } else {
            server->waiting++;
            (void)pthread_cond_wait(&server->work, &server->lock);
            server->waiting--;
        }
    }
    (void)pthread_mutex_unlock(&server->lock);
    return NULL;
}

ct_code ct_worker_init(ct_worker *worker, ct_server *server, size_t index, ct_status *status) {
    worker->server = server;
    worker->index = index;
    ct_arena_init(&worker->arena, 0);
    for (size_t i = 0; i < CT_SERVE_GROUP_CALLS; i++) CT_TRY(ct_score_work_create(&worker->works[i], status));
    return CT_OK;
}

void ct_worker_deinit(ct_worker *worker) {
    for (size_t i = 0; i < CT_SERVE_GROUP_CALLS; i++) ct_score_work_destroy(worker->works[i]);
    if (worker->server) ct_arena_deinit(&worker->arena);
}

ct_score_work *ct_server_other_work(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    ct_score_work *work = server->free_work;
    if (work) server->free_work = work->next_free;
    (void)pthread_mutex_unlock(&server->lock);
    ct_status ignored = CT_STATUS_INIT;
    if (!work && ct_score_work_create(&work, &ignored) != CT_OK) return NULL;
    return work;
}
