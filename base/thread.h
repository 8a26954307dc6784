/* Threads. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* Starts a thread that runs run(context), which the caller joins. Signals do not reach it: they are for the program's own threads. name: as
 * the system's tools show it, at most 15 bytes. False where the system gives no thread; errno says why. */
bool ct_thread_start(const char *name, void *(*run)(void *), void *context, pthread_t *out_thread);

#endif
