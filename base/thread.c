#include "base/thread.h"

#include <errno.h>
#include <signal.h>

bool ct_thread_start(const char *name, void *(*run)(void *), void *context, pthread_t *out_thread) {
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(out_thread, NULL, run, context);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (errno != 0) return false;
    (void)pthread_setname_np(*out_thread, name);
    return true;
}
