/* One thread starts calls and takes back what has ended. A call's tag says when it was due, by which it is counted. */
#include "serving/load.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "serving/rpc.h"

enum { FIRST_CALL_MS = 10000, TICK_NS = 1000000, QUIET_POLLS = 8 };

typedef struct load {
    const ct_load_options *options;
    ct_rpc_caller *caller;
    int64_t begin_ns, end_ns; /* when calls that count are due */
    int64_t first_ns;         /* when the first one of all is */
    size_t next_request;
    ct_load_result *result;
} load;

static ct_code start(load *l, int64_t due_ns, ct_status *status) {
    const ct_load_request *request = &l->options->requests[l->next_request];
    l->next_request = (l->next_request + 1) % l->options->request_count;
    return ct_rpc_caller_start(l->caller, request->bytes, request->count, due_ns + l->options->deadline_ms * 1000000, (uint64_t)due_ns,
                               status);
}

static void count(load *l, const ct_rpc_result *ended, int64_t now_ns) {
    const int64_t due = (int64_t)ended->tag;
    if (due < l->begin_ns || due >= l->end_ns) return;
    ct_load_result *result = l->result;
    result->started++;
    result->ended[ended->code]++;
    if (ended->code == CT_OK) {
        ct_histogram_add(&result->answered, now_ns - due);
        if (now_ns - due <= l->options->deadline_ms * 1000000) result->in_time++;
    } else {
        ct_histogram_add(&result->refused, now_ns - due);
        if (!result->first_failure[0]) memcpy(result->first_failure, ended->message, sizeof result->first_failure);
    }
}

static ct_code closed_loop(load *l, ct_status *status) {
    for (size_t i = 0; i < l->options->concurrency; i++) CT_TRY(start(l, ct_clock_ns(), status));
    ct_rpc_result ended;
    while (ct_rpc_caller_in_flight(l->caller)) {
        if (!ct_rpc_caller_next(l->caller, INT64_MAX, &ended)) continue;
        const int64_t now = ct_clock_ns();
        count(l, &ended, now);
        if (now < l->end_ns) CT_TRY(start(l, now, status));
    }
    return CT_OK;
}

/* Starts what is due; when the next one is, or INT64_MAX. */
static ct_code start_due(load *l, uint64_t *number, int64_t *out_next_ns, ct_status *status) {
    for (;; (*number)++) {
        const int64_t due = l->first_ns + (int64_t)((double)*number * 1e9 / l->options->rate);
        *out_next_ns = due < l->end_ns ? due : INT64_MAX;
        if (due >= l->end_ns || due > ct_clock_ns()) return CT_OK;
        CT_TRY(start(l, due, status));
    }
}

/* One thread, which is awake for TICK_NS/16 in each TICK_NS where many calls are due: client and server often share the processors, and a
 * client that wakes for every call and every answer takes more from the server by interrupting it than by its own work. What comes
 * meanwhile is seen up to a tick later, and counted as seen then. */
static ct_code open_loop(load *l, ct_status *status) {
    const bool ticks = l->options->rate >= 1e9 / TICK_NS;
    uint64_t number = 0;
    int64_t next_ns = 0, tick_ns = l->first_ns;
    ct_rpc_result ended;
    for (;;) {
        CT_TRY(start_due(l, &number, &next_ns, status));
        size_t quiet = 0;
        while (quiet < QUIET_POLLS && ct_rpc_caller_in_flight(l->caller)) {
            const bool waits = !ticks || next_ns == INT64_MAX;
            if (ct_rpc_caller_next(l->caller, waits ? next_ns : 0, &ended)) {
                count(l, &ended, ct_clock_ns());
                quiet = 0;
            } else {
                quiet = waits ? QUIET_POLLS : quiet + 1;
            }
        }
        if (next_ns == INT64_MAX && !ct_rpc_caller_in_flight(l->caller)) return CT_OK;
        if (next_ns == INT64_MAX) continue;
        tick_ns += TICK_NS;
        const int64_t until = ticks && tick_ns > next_ns ? tick_ns : next_ns;
        const struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) continue;
        if (tick_ns < ct_clock_ns() - TICK_NS) tick_ns = ct_clock_ns();
    }
}

/* Connects, and says what is wrong with the requests before many of them are sent. */
static ct_code first_call(load *l, ct_status *status) {
    const ct_load_request *request = &l->options->requests[0];
    CT_TRY(ct_rpc_caller_start(l->caller, request->bytes, request->count, ct_clock_ns() + (int64_t)FIRST_CALL_MS * 1000000, 0, status));
    ct_rpc_result ended;
    while (!ct_rpc_caller_next(l->caller, INT64_MAX, &ended)) continue;
    if (ended.code == CT_OK || ended.code == CT_EXHAUSTED) return CT_OK;
    return ct_fail(status, ended.code, "%s: %s", l->options->target, ended.message);
}

ct_code ct_load_run(const ct_load_options *options, ct_load_result *out_result, ct_status *status) {
    load l = {.options = options, .result = out_result};
    memset(out_result, 0, sizeof *out_result);
    CT_TRY(ct_rpc_caller_create(options->target, options->access, "/clicktower.v1.Scorer/Score",
                                options->connections ? options->connections : 1, &l.caller, status));
    ct_code code = first_call(&l, status);
    if (code == CT_OK) {
        l.first_ns = ct_clock_ns();
        l.begin_ns = l.first_ns + (int64_t)(options->warmup_seconds * 1e9);
        l.end_ns = l.begin_ns + (int64_t)(options->seconds * 1e9);
        out_result->seconds = options->seconds;
        code = options->concurrency ? closed_loop(&l, status) : open_loop(&l, status);
    }
    ct_rpc_caller_destroy(l.caller);
    return code;
}
