#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/cli.h"

/* The one state that a signal handler can reach. */
static atomic_bool stopping;
static volatile sig_atomic_t stop_signal;

static void on_signal(int signal) {
    if (atomic_exchange(&stopping, true)) _exit(130); /* the second time: the user means it */
    stop_signal = signal;
}

const atomic_bool *ct_stop_on_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* no SA_RESTART: a read that waits for a pipe must wake up */
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    return &stopping;
}

ct_code ct_stop_explain(const char *what, ct_status *status) {
    if (status->code != CT_CANCELLED || !atomic_load(&stopping)) return status->code;
    return ct_fail(status, CT_CANCELLED, "stopped by %s: %s", stop_signal == SIGTERM ? "SIGTERM" : "SIGINT", what);
}
