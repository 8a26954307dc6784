/* Log lines for what a server refused: at most one for each kind and look, with how many there were since the last one. Where exposures or
 * feedback can't be written, one line when that begins and one when it is over. */
#ifndef TOOLS_CLI_REFUSALS_H
#define TOOLS_CLI_REFUSALS_H

#include "serving/server.h"

typedef struct ct_refusal_log {
    ct_exposures *exposures; /* NULL = none; and so the next */
    ct_feedback *feedback;
    /* at the last look */
    ct_server_stats seen;
    ct_exposures_stats exposures_seen;
    ct_feedback_stats feedback_seen;
    bool exposures_failing, feedback_failing;
} ct_refusal_log;
void ct_refusals_log(ct_refusal_log *log, ct_server *server);

#endif
