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

void ct_refusals_log(ct_refusal_log *log, ct_server *server) {
    ct_server_stats now, *seen = &log->seen;
    ct_server_stats_get(server, &now);
    line(CT_LOG_WARNING, "queue_full", now.refused_full - seen->refused_full, NULL);
    line(CT_LOG_WARNING, "waited_too_long", now.refused_waited - seen->refused_waited, NULL);
    line(CT_LOG_WARNING, "no_token", now.no_token - seen->no_token, NULL);
    line(CT_LOG_WARNING, "peer_limit", now.peer_limit - seen->peer_limit, NULL);
    line(CT_LOG_WARNING, "no_method", now.no_method - seen->no_method, NULL);
    const uint64_t busy = now.refused_full + now.refused_waited - seen->refused_full - seen->refused_waited;
    for (int c = CT_OK + 1; c < CT_SERVER_CODES; c++) {
        uint64_t count = now.ended[c] - seen->ended[c];
        if (c == CT_EXHAUSTED) count -= busy < count ? busy : count;
        line(c == CT_INTERNAL ? CT_LOG_ERROR : CT_LOG_WARNING, ct_rpc_code_name((ct_code)c), count, now.last_message[c]);
    }
    *seen = now;
}
