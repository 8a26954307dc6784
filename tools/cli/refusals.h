/* Log lines for what a server refused: at most one for each kind and look, with how many there were since the last one. */
#ifndef TOOLS_CLI_REFUSALS_H
#define TOOLS_CLI_REFUSALS_H

#include "serving/server.h"

typedef struct ct_refusal_log {
    ct_server_stats seen; /* at the last look */
} ct_refusal_log;
void ct_refusals_log(ct_refusal_log *log, ct_server *server);

#endif
