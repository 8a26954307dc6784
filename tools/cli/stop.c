/* Stopping: SIGINT and SIGTERM are blocked in every thread and taken by one of their own, so that no code ever runs inside a handler. */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include "tools/cli/cli.h"

/* The process has one set of signals, hence the one state of this program. */
static atomic_bool stopping;
static atomic_int stop_signal;
static sem_t stopped;
static sigset_t signals;

static void *take_signals(void *argument) {
    (void)argument;
    for (;;) {
        int signal = 0;
        if (sigwait(&signals, &signal) != 0) continue;
        if (atomic_load(&stopping)) _exit(130); /* the second time: the user means it */
        atomic_store(&stop_signal, signal);
        atomic_store(&stopping, true);
        (void)sem_post(&stopped);
    }
    return NULL;
}

const atomic_bool *ct_stop_on_signals(void) {
    pthread_t thread;
    (void)sem_init(&stopped, 0, 0);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (pthread_create(&thread, NULL, take_signals, NULL) == 0)
        (void)pthread_detach(thread);
    else
        (void)pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* then a signal ends the process, as it does by default */
    return &stopping;
}

static const char *signal_name(void) {
    const int signal = atomic_load(&stop_signal);
    return signal == SIGTERM ? "SIGTERM" : signal == SIGINT ? "SIGINT" : "none";
}

const char *ct_stop_wait(void) {
    while (sem_wait(&stopped) != 0) continue;
    return signal_name();
}

void ct_stop_ask(void) { (void)sem_post(&stopped); }

ct_code ct_stop_explain(const char *what, ct_status *status) {
    if (status->code != CT_CANCELLED || !atomic_load(&stopping)) return status->code;
    return ct_fail(status, CT_CANCELLED, "stopped by %s: %s", signal_name(), what);
}
