#include "tools/cli/refusals.h"

#include <inttypes.h>

#include "base/log.h"
#include "serving/rpc.h"

static void line(ct_log_level level, const char *kind, uint64_t count, const char *last) {
    char quoted[2 * CT_SERVER_MESSAGE_BYTES + 3];
    if (count == 0) return;
    if (last)
        ct_log_line(level, "serve.refused", "kind=%s count=%" PRIu64 " last=%s", kind, count, ct_log_quote(last, quoted, sizeof quoted));
    else
        ct_log_line(level, "serve.refused", "kind=%s count=%" PRIu64, kind, count);
}

/* Whether more was lost than at the last look; the first time, and the first time that nothing more is, are said. */
static void trouble(const char *event, uint64_t lost, uint64_t lost_before, const char *reason, bool *failing) {
    char quoted[2 * CT_EXPOSURES_MESSAGE_BYTES + 3];
    const bool now = lost > lost_before;
    if (now && !*failing)
        ct_log_line(CT_LOG_ERROR, event, "result=failing lost=%" PRIu64 " reason=%s", lost, ct_log_quote(reason, quoted, sizeof quoted));
    if (!now && *failing) ct_log_line(CT_LOG_INFO, event, "result=recovered lost=%" PRIu64, lost);
    *failing = now;
}

static void log_exposures(ct_refusal_log *log) {
    if (!log->exposures) return;
    ct_exposures_stats now;
    const ct_exposures_stats *seen = &log->exposures_seen;
    ct_exposures_stats_get(log->exposures, &now);
    const uint64_t lost = now.dropped_full + now.dropped_unwritable, before = seen->dropped_full + seen->dropped_unwritable;
    const bool unwritable = now.failures > seen->failures;
    trouble("serve.exposures", lost + (unwritable && lost == before), before,
            unwritable ? now.last_failure : "the disk can't follow: no room in memory (--exposure-buffer)", &log->exposures_failing);
    log->exposures_seen = now;
}

static void log_feedback(ct_refusal_log *log) {
    if (!log->feedback) return;
    ct_feedback_stats now;
    const ct_feedback_stats *seen = &log->feedback_seen;
    ct_feedback_stats_get(log->feedback, &now);
    line(CT_LOG_WARNING, "feedback_invalid", now.invalid - seen->invalid, NULL);
    line(CT_LOG_WARNING, "feedback_busy", now.busy - seen->busy, NULL);
    trouble("serve.feedback", now.failures, seen->failures, now.last_failure, &log->feedback_failing);
    log->feedback_seen = now;
}

void ct_refusals_log(ct_refusal_log *log, ct_server *server) {
    log_exposures(log);
    log_feedback(log);
    ct_server_stats now, *seen = &log->seen;
    ct_server_stats_get(server, &now);
    static const char *const kinds[CT_REFUSALS] = {"queue_full", "would_wait_too_long", "waited_too_long"};
    uint64_t busy = 0;
    for (size_t r = 0; r < CT_REFUSALS; r++) {
        line(CT_LOG_WARNING, kinds[r], now.refused[r] - seen->refused[r], NULL);
        busy += now.refused[r] - seen->refused[r];
    }
    line(CT_LOG_WARNING, "no_token", now.no_token - seen->no_token, NULL);
    line(CT_LOG_WARNING, "peer_limit", now.peer_limit - seen->peer_limit, NULL);
    line(CT_LOG_WARNING, "no_method", now.no_method - seen->no_method, NULL);
    for (int c = CT_OK + 1; c < CT_SERVER_CODES; c++) {
        uint64_t count = now.ended[c] - seen->ended[c];
        if (c == CT_EXHAUSTED) count -= busy < count ? busy : count;
        line(c == CT_INTERNAL ? CT_LOG_ERROR : CT_LOG_WARNING, ct_rpc_code_name((ct_code)c), count, now.last_message[c]);
    }
    *seen = now;
}
