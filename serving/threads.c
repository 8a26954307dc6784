/* The server's threads. There is one more than may score at once. One of them leads: it alone polls gRPC, puts calls into the queue and
 * refuses what is too much; nothing is decoded before a call's turn has come, so refusing costs a look at the queue. Where calls wait and
 * another thread is free, the leader lets that one lead and computes; else it goes on polling. So somebody always reads the network,
 * answers Health and notices who has gone, and gRPC's polling is never passed around among threads that all wait for it.
 *
 * With short calls (SHORT_NS) it is otherwise, since to let another thread lead takes about as long as one of them does. The leader
 * computes them itself, all that have come in one group, and goes on leading; where there is more than FORK_NS of work, other threads take
 * a part of it each. What they have computed is left to the leader, unless that may be waiting for the network: two threads in gRPC at once
 * spend their time on its locks, and answers that are sent by one thread go out together (rpc_together.c). A group takes GROUP_NS at most,
 * as far as is known: so long nobody reads. All this rests on each of the threads getting its processor soon. Where one was kept waiting
 * for LATE_NS, by another program on the machine, short calls are treated like others for CROWDED_NS.
 *
 * A short call that comes alone is even computed in the middle of the leader's poll. What comes meanwhile waits for that time, and for a
 * while (COMPANY_NS) after calls were there together nothing is done so. Where the client asked again within WATCH_NS of its answer, the
 * leader looks for the next call for so long before it sleeps: falling asleep and being woken take a good part of such a call's time.
 *
 * A thread that has nothing to do leads if nobody does, else helps with a shared request, else takes calls from the queue, else waits.
 * Looking and beginning to wait are one step under the lock, so no call stays in the queue while a thread is free.
 *
 * Small requests that wait together are taken together (merge.c): there is no waiting for company. */
#include <math.h>

#include "base/clock.h"
#include "base/condition.h"
#include "serving/server_internal.h"

enum {
    NAP_NS = 2000000,
    PLENTY_NS = 1000000,
    DRAIN_EVENTS = 64,
    QUIET_POLLS = 8,
    FEW_QUIET_POLLS = 2,
    SWEEP_CALLS = 16,
    HOLD_NS = 50000000,
    RATE_ROWS = 8192,
    SHORT_NS = 200000,
    FORK_NS = 200000,
    GROUP_NS = 1000000,
    LATE_NS = 1000000,
    CROWDED_NS = 50000000,
    COMPANY_NS = 1000000,
    WATCH_NS = 100000
};

static ct_score_call call_of(const ct_queue_entry *entry) { return (ct_score_call){entry->kind, entry->item}; }

static ct_code why_unwanted(const ct_queue_entry *entry, int64_t now_ns) {
    const ct_score_call call = call_of(entry);
    return call.way->why_unwanted(call.of, now_ns);
}

static bool is_wanted(const ct_queue_entry *entry, int64_t now_ns) { return why_unwanted(entry, now_ns) == CT_OK; }

/* Under lock. Have the threads enough to do, in calls or in work? Then nothing is lost where new calls are seen a little later. */
static bool has_plenty(const ct_server *server) {
    return server->waiting == 0 && (server->queue.count >= 2 * (server->thread_count - 1) || ct_queue_wait_ns(&server->queue) >= PLENTY_NS);
}

/* --- what a thread does with calls that wait --- */

/* Under lock. What a row takes, of the last RATE_ROWS to 2 RATE_ROWS rows. */
static void note_work(ct_server *server, const ct_worker *worker, int64_t began_ns) {
    if (worker->rows_done == 0) return;
    server->rate_rows += (double)worker->rows_done;
    server->rate_ns += (double)(ct_clock_ns() - began_ns);
    const double threads = (double)(server->thread_count - 1);
    server->queue.row_ns = server->rate_ns / server->rate_rows / threads;
    if (server->rate_rows < 2 * RATE_ROWS) return;
    server->rate_rows /= 2;
    server->rate_ns /= 2;
}

/* Under lock. What so many rows take one thread, as far as is known; 0 = it is not, before the first calls. */
static double work_ns(const ct_server *server, size_t rows) {
    return (double)rows * server->queue.row_ns * (double)(server->thread_count - 1);
}

static bool is_small(const ct_queue_entry *entry) { return entry->rows <= CT_SERVE_MERGE_ROWS && entry->bytes <= CT_SERVE_MERGE_BYTES; }

/* Under lock. */
static bool is_short(const ct_server *server, const ct_queue_entry *entry) {
    const double ns = work_ns(server, entry->rows);
    return is_small(entry) && ns > 0 && ns <= SHORT_NS;
}

static bool is_crowded(const ct_server *server) { return server->crowded_until_ns && ct_clock_ns() < server->crowded_until_ns; }

/* Under lock. */
static bool is_short_next(const ct_server *server) {
    return server->queue.count && is_short(server, ct_queue_peek(&server->queue)) && !is_crowded(server);
}

/* Under lock. How many threads that wait are to help with the short calls in the queue. One goes on waiting, in whose place the leader
 * computes. */
static size_t helpers_for(const ct_server *server) {
    const double parts = work_ns(server, server->queue.rows) / FORK_NS;
    const size_t most = server->waiting ? server->waiting - 1 : 0;
    return parts < (double)most ? (size_t)parts : most;
}

/* Under lock. The next call, and, where it is small, those behind it that are, too: `calls` at most, of `ns` at most. */
static bool take_group(ct_worker *worker, size_t calls, double ns) {
    ct_server *server = worker->server;
    const int64_t now = ct_clock_ns();
    size_t rows = 0;
    worker->work_count = 0;
    worker->has_large = false;
    while (worker->work_count < CT_SERVE_GROUP_CALLS && !worker->has_large) {
        const ct_queue_entry *next = ct_queue_peek(&server->queue);
        if (!next) break;
        const bool fits = rows + next->rows <= CT_SERVE_BLOCK_ROWS && work_ns(server, rows + next->rows) <= ns;
        const bool joins = is_small(next) && fits && worker->work_count < calls;
        if (worker->work_count && !joins) break;
        worker->has_large = !is_small(next);
        rows += next->rows;
        ct_queue_entry taken;
        (void)ct_queue_take(&server->queue, now, &taken);
        ct_score_work *work = worker->has_large ? worker->large : worker->works[worker->work_count++];
        ct_score_begin(server, work, call_of(&taken), taken.since_ns, now);
    }
    if (!has_plenty(server)) (void)pthread_cond_signal(&server->hungry);
    return worker->work_count > 0 || worker->has_large;
}

static size_t part_of(size_t count, size_t threads) { return (count + threads - 1) / threads; }

/* Under lock. What is in the queue for this thread, where all that wait take their parts. */
static bool take(ct_worker *worker) {
    const ct_server *server = worker->server;
    return take_group(worker, part_of(server->queue.count, server->waiting > 1 ? server->waiting : 1), INFINITY);
}

/* Under lock. The same, of short calls. */
static bool take_short(ct_worker *worker, size_t helpers) {
    return take_group(worker, part_of(worker->server->queue.count, 1 + helpers), GROUP_NS);
}

/* --- what was computed --- */

void ct_score_work_put(ct_score_work **list, ct_score_work *work) {
    work->next_free = *list;
    *list = work;
}

ct_score_work *ct_score_work_take(ct_score_work **list) {
    ct_score_work *work = *list;
    if (work) *list = work->next_free;
    return work;
}

/* Under lock, which is given back meanwhile. Sends the worker's calls. */
static void send_own(ct_worker *worker) {
    ct_server *server = worker->server;
    (void)pthread_mutex_unlock(&server->lock);
    ct_score_send(server, worker->works, worker->work_count);
    for (size_t i = 0; i < worker->work_count; i++) ct_score_work_reset(worker->works[i], CT_SERVE_KEPT_SMALL_BYTES);
    (void)pthread_mutex_lock(&server->lock);
}

/* Under lock, which is given back meanwhile. Sends what others have left to the leader. */
static void send_computed(ct_server *server) {
    while (server->computed) {
        ct_score_work *works[CT_SERVE_GROUP_CALLS];
        size_t count = 0;
        while (count < CT_SERVE_GROUP_CALLS && (works[count] = ct_score_work_take(&server->computed))) count++;
        (void)pthread_mutex_unlock(&server->lock);
        const int64_t began = ct_clock_ns();
        ct_score_send(server, works, count);
        for (size_t i = 0; i < count; i++) ct_score_work_reset(works[i], CT_SERVE_KEPT_SMALL_BYTES);
        (void)pthread_mutex_lock(&server->lock);
        server->rate_ns += (double)(ct_clock_ns() - began);
        for (size_t i = 0; i < count; i++) ct_score_work_put(&server->free_small, works[i]);
    }
}

/* Under lock. Leaves the worker's calls to the leader. Where memory is short some stay, the first ones of its works. */
static void leave_to_leader(ct_worker *worker) {
    ct_server *server = worker->server;
    while (worker->work_count) {
        ct_status ignored = CT_STATUS_INIT;
        ct_score_work *other = ct_score_work_take(&server->free_small), **last = &worker->works[worker->work_count - 1];
        if (!other && ct_score_work_create(&other, &ignored) != CT_OK) return;
        ct_score_work_put(&server->computed, *last);
        *last = other;
        worker->work_count--;
    }
}

/* Under lock, which is given back meanwhile. */
static void send_or_leave(ct_worker *worker) {
    const ct_server *server = worker->server;
    if (server->leading && !worker->leads && !server->asleep && !is_crowded(server)) leave_to_leader(worker);
    if (worker->work_count) send_own(worker);
}

/* --- work --- */

/* Under lock. Short calls that took much longer than they should: was the processor taken away? */
static void note_crowd(ct_server *server, size_t rows, int64_t began_ns, int64_t ended_ns) {
    if ((double)(ended_ns - began_ns) > 2 * work_ns(server, rows) + LATE_NS) server->crowded_until_ns = ended_ns + CROWDED_NS;
}

/* Under lock, which is given back meanwhile. Computes the calls at hand, and sees that they are sent. */
static void work(ct_worker *worker, bool are_short) {
    ct_server *server = worker->server;
    (void)pthread_mutex_unlock(&server->lock);
    const int64_t began = ct_clock_ns();
    worker->rows_done = 0;
    if (worker->has_large)
        ct_score_run_large(worker);
    else
        ct_score_run_group(worker);
    const int64_t ended = ct_clock_ns();
    (void)pthread_mutex_lock(&server->lock);
    if (are_short) note_crowd(server, worker->rows_done, began, ended);
    if (!worker->has_large) send_or_leave(worker);
    note_work(server, worker, began);
}

/* Under lock, which is given back meanwhile. Helps with a shared request. */
static void help(ct_worker *worker, ct_score_work *shared) {
    ct_server *server = worker->server;
    (void)pthread_mutex_unlock(&server->lock);
    const int64_t began = ct_clock_ns();
    worker->rows_done = 0;
    ct_share_help(worker, shared);
    (void)pthread_mutex_lock(&server->lock);
    note_work(server, worker, began);
}

/* --- the leader --- */

static void refuse_held(ct_server *server, const ct_held *held) {
    ct_score_refuse(server, (ct_score_call){held->kind, held->item}, CT_EXHAUSTED, (ct_refusal)held->why);
}

/* A busy server's leader would be woken for every packet, and each time take a core from a thread that computes: that costs more than its
 * own work. So once it has read all there is, and the threads have enough to do, it naps, but not longer than the queue lasts. What came
 * meanwhile is taken together. */
static void nap(ct_server *server) {
    const int64_t limit = ct_clock_ns() + NAP_NS;
    (void)pthread_mutex_lock(&server->lock);
    while (has_plenty(server) && ct_condition_wait(&server->hungry, &server->lock, limit) == 0) continue;
    (void)pthread_mutex_unlock(&server->lock);
}

/* Refuses those that have waited too long, and those whose refusal was held back. Returns when to look again. */
static int64_t tend_queue(ct_server *server) {
    ct_queue_entry gone[SWEEP_CALLS];
    ct_held held;
    for (;;) {
        const int64_t now = ct_clock_ns();
        while (ct_hold_take(&server->hold, now, &held)) refuse_held(server, &held);
        (void)pthread_mutex_lock(&server->lock);
        const size_t count = ct_queue_sweep(&server->queue, now, is_wanted, gone, SWEEP_CALLS);
        const int64_t again = ct_queue_next_expiry(&server->queue);
        (void)pthread_mutex_unlock(&server->lock);
        for (size_t i = 0; i < count; i++) {
            const ct_code why = why_unwanted(&gone[i], now);
            ct_score_refuse(server, call_of(&gone[i]), why == CT_OK ? CT_EXHAUSTED : why, CT_REFUSED_WAITED);
        }
        const int64_t next = ct_hold_next(&server->hold);
        if (count < SWEEP_CALLS) return next < again ? next : again;
    }
}

/* Handles what has come, or some of it. False where there may be more. gRPC reads one connection in each poll, and a piece of a message is
 * no event, so a poll without one does not say that there is no more. */
static bool read_all(ct_worker *worker, ct_rpc_polled *polled, size_t quiet_polls) {
    size_t quiet = 0;
    for (size_t i = 0; i < DRAIN_EVENTS && quiet < quiet_polls && *polled != CT_RPC_STOPPED; i++) {
        *polled = ct_rpc_server_poll(worker->server->rpc, worker, 0);
        quiet = *polled == CT_RPC_EVENT ? 0 : quiet + 1;
    }
    return quiet == quiet_polls;
}

/* Looks for the next call of a client that asks again as soon as it has its answer. */
static ct_rpc_polled watch(ct_worker *worker) {
    ct_rpc_polled polled = CT_RPC_NOTHING;
    while (worker->watch_until_ns && polled == CT_RPC_NOTHING) {
        polled = ct_rpc_server_poll(worker->server->rpc, worker, 0);
        if (polled == CT_RPC_NOTHING && ct_clock_ns() >= worker->watch_until_ns) worker->watch_until_ns = 0;
    }
    return polled;
}

/* Under lock, which is given back meanwhile. Short calls are in the queue. */
static void lead_short(ct_worker *worker, ct_rpc_polled *polled) {
    ct_server *server = worker->server;
    const size_t helpers = helpers_for(server);
    (void)take_short(worker, helpers);
    (void)ct_server_wake(server, helpers);
    work(worker, true);
    (void)pthread_mutex_unlock(&server->lock);
    (void)read_all(worker, polled, FEW_QUIET_POLLS);
    (void)tend_queue(server);
    (void)pthread_mutex_lock(&server->lock);
}

/* Under lock, which is given back meanwhile. */
static void read_calls(ct_worker *worker, ct_rpc_polled *polled) {
    ct_server *server = worker->server;
    const bool plenty = has_plenty(server);
    server->asleep = true;
    (void)pthread_mutex_unlock(&server->lock);
    if (plenty) {
        ct_rpc_together_begin(); /* what is refused */
        const bool all = read_all(worker, polled, QUIET_POLLS);
        (void)tend_queue(server);
        ct_rpc_together_end();
        if (all) nap(server);
    } else {
        worker->idle = true;
        *polled = watch(worker);
        if (*polled == CT_RPC_NOTHING) *polled = ct_rpc_server_poll(server->rpc, worker, tend_queue(server));
        worker->idle = false;
        if (*polled == CT_RPC_EVENT) (void)read_all(worker, polled, FEW_QUIET_POLLS);
    }
    (void)pthread_mutex_lock(&server->lock);
    server->asleep = false;
}

/* Under lock, which is given back meanwhile, until another thread may lead: then what waits is this one's. */
static void lead(ct_worker *worker) {
    ct_server *server = worker->server;
    ct_rpc_polled polled = CT_RPC_NOTHING;
    server->leading = worker->leads = true;
    for (;;) {
        send_computed(server);
        if (polled == CT_RPC_STOPPED) break;
        const bool a_thread_may = server->queue.count && server->waiting;
        if (a_thread_may && !is_short_next(server)) break;
        if (a_thread_may)
            lead_short(worker, &polled); /* in the place of one that waits: no more compute at once than may */
        else
            read_calls(worker, &polled);
    }
    server->leading = worker->leads = false;
    server->stopped = polled == CT_RPC_STOPPED;
    if (server->stopped)
        (void)pthread_cond_broadcast(&server->work);
    else
        (void)pthread_cond_signal(&server->work);
}

/* --- calls --- */

/* The call's place in the queue, or why it has none; CT_UNAVAILABLE in `out_code` where the server goes down. */
static ct_queue_answer enqueue(ct_server *server, const ct_queue_entry *entry, ct_code *out_code) {
    ct_queue_answer answer = CT_QUEUE_FULL;
    (void)pthread_mutex_lock(&server->lock);
    if (server->scoring++) server->company_ns = entry->since_ns;
    *out_code = server->draining ? CT_UNAVAILABLE : CT_EXHAUSTED;
    if (!server->draining) answer = ct_queue_push(&server->queue, entry->since_ns, *entry);
    (void)pthread_mutex_unlock(&server->lock);
    return answer;
}

static ct_queue_entry entry_of(const ct_server *server, ct_score_call call, int64_t deadline_ns) {
    size_t bytes = 0;
    const uint8_t *data = call.way->request(call.of, &bytes);
    const size_t rows = ct_request_rows_guess(data, bytes);
    return (ct_queue_entry){.item = call.of,
                            .kind = call.way,
                            .since_ns = ct_clock_ns(),
                            .deadline_ns = deadline_ns,
                            .bytes = bytes,
                            .rows = rows < server->max_candidates ? rows : server->max_candidates};
}

static ct_refusal refusal_of(ct_queue_answer answer) { return answer == CT_QUEUE_FULL ? CT_REFUSED_FULL : CT_REFUSED_SLOW; }

/* By a thread that is none of the server's. */
void ct_server_submit(ct_server *server, ct_score_call call, int64_t deadline_ns) {
    const ct_queue_entry entry = entry_of(server, call, deadline_ns);
    ct_code code = CT_OK;
    const ct_queue_answer answer = enqueue(server, &entry, &code);
    if (answer != CT_QUEUE_TAKEN) {
        ct_score_refuse(server, call, code, refusal_of(answer));
        return;
    }
    (void)pthread_mutex_lock(&server->lock);
    (void)ct_server_wake(server, 1);
    (void)pthread_mutex_unlock(&server->lock);
}

/* At once, or, where too many are refused, a little later (hold.h). By the leader. */
static void refuse_in_turn(ct_server *server, const ct_queue_entry *entry, ct_refusal why) {
    const int64_t now = entry->since_ns, half = (entry->deadline_ns - now) / 2;
    ct_held held = {.item = entry->item, .kind = entry->kind, .why = why, .until_ns = now + (half < HOLD_NS ? half : HOLD_NS)};
    const ct_score_call call = call_of(entry);
    if (call.way->will_fail) call.way->will_fail(call.of);
    if (!ct_hold_put(&server->hold, held, &held)) refuse_held(server, &held);
    while (ct_hold_take(&server->hold, now, &held)) refuse_held(server, &held);
}

/* Over gRPC. */
static const uint8_t *rpc_request(const void *of, size_t *out_bytes) { return ct_rpc_call_request(of, out_bytes); }
static void rpc_will_fail(void *of) { ct_rpc_call_will_fail(of); }
static ct_code rpc_why_unwanted(const void *of, int64_t now_ns) { return ct_rpc_call_why_unwanted(of, now_ns); }
static uint8_t *rpc_reserve(void *of, size_t bytes) { return ct_rpc_call_reserve(of, bytes); }
static void rpc_end(void *of, const ct_status *status) {
    if (status->code == CT_OK)
        ct_rpc_call_reply(of);
    else
        ct_rpc_call_fail(of, status);
}
static const ct_score_way rpc_way = {rpc_request, rpc_will_fail, rpc_why_unwanted, rpc_reserve, rpc_end};

/* Computes the call here and now, where it takes little time and there is nothing else to do. True: it is answered. */
static bool score_at_once(ct_worker *leader, const ct_queue_entry *entry) {
    ct_server *server = leader->server;
    const int64_t now = entry->since_ns;
    if (!leader->idle) return false;
    leader->idle = false; /* for one call */
    (void)pthread_mutex_lock(&server->lock);
    const bool alone = server->scoring == 0 && now - server->company_ns >= COMPANY_NS;
    const bool at_once = alone && !server->draining && is_short(server, entry);
    if (at_once) {
        server->scoring++;
        server->stats.direct_requests++;
        leader->work_count = 1;
        leader->has_large = false;
        ct_score_begin(server, leader->works[0], call_of(entry), now, now);
        work(leader, true);
    }
    (void)pthread_mutex_unlock(&server->lock);
    leader->watch_until_ns = 0;
    if (!at_once) return false;
    const int64_t end = ct_clock_ns();
    if (server->thread_count > 2 && now - leader->answered_ns < WATCH_NS) leader->watch_until_ns = end + WATCH_NS;
    leader->answered_ns = end;
    return true;
}

/* In the leader, which looks at the queue next. */
void ct_serve_score(void *context, void *worker, ct_rpc_call *call) {
    ct_server *server = context;
    const ct_score_call score = {&rpc_way, call};
    const ct_queue_entry entry = entry_of(server, score, ct_rpc_call_deadline_ns(call));
    if (score_at_once(worker, &entry)) return;
    ct_code code = CT_OK;
    const ct_queue_answer answer = enqueue(server, &entry, &code);
    if (answer == CT_QUEUE_TAKEN) return;
    if (code == CT_EXHAUSTED)
        refuse_in_turn(server, &entry, refusal_of(answer));
    else
        ct_score_refuse(server, score, code, refusal_of(answer));
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
            lead(worker);
            if (!server->stopped && take(worker)) work(worker, false);
        } else if ((shared = ct_share_find(server))) {
            help(worker, shared);
        } else if (is_short_next(server) && take_short(worker, helpers_for(server))) {
            work(worker, true);
        } else if (take(worker)) {
            work(worker, false);
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
    return ct_score_work_create(&worker->large, status);
}

void ct_worker_deinit(ct_worker *worker) {
    for (size_t i = 0; i < CT_SERVE_GROUP_CALLS; i++) ct_score_work_destroy(worker->works[i]);
    ct_score_work_destroy(worker->large);
    if (worker->server) ct_arena_deinit(&worker->arena);
}

ct_score_work *ct_server_other_work(ct_server *server) {
    (void)pthread_mutex_lock(&server->lock);
    ct_score_work *work = ct_score_work_take(&server->free_large);
    (void)pthread_mutex_unlock(&server->lock);
    ct_status ignored = CT_STATUS_INIT;
    if (!work && ct_score_work_create(&work, &ignored) != CT_OK) return NULL;
    return work;
}
