/* For tests, loaded with LD_PRELOAD: ends the process with SIGKILL ahead of its Nth change to the file system, as a power cut or kill -9
 * could. CT_KILL_AT = N; 0 = never. CT_KILL_COUNT names a file that gets the number of changes of a run that ended by itself. Forks and
 * threads count together; with CT_KILL_THREAD only the changes of threads of that name do (compactions are RocksDB's "rocksdb:low"). */
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long changes;

static void change(void) {
    const char *at = getenv("CT_KILL_AT"), *thread = getenv("CT_KILL_THREAD");
    char name[16] = "";
    if (thread != NULL && (prctl(PR_GET_NAME, name) != 0 || strncmp(name, thread, strlen(thread)) != 0)) return;
    const long n = atomic_fetch_add(&changes, 1) + 1;
    if (at != NULL && n == atol(at)) (void)kill(getpid(), SIGKILL);
}

__attribute__((destructor)) static void count(void) {
    const char *path = getenv("CT_KILL_COUNT");
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file == NULL) return;
    (void)fprintf(file, "%ld\n", atomic_load(&changes));
    (void)fclose(file);
}

#define CHANGE(name, parameters, ...)                                \
    int name parameters {                                            \
        static int(*real) parameters;                                \
        if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #name); \
        change();                                                    \
        return real(__VA_ARGS__);                                    \
    }

CHANGE(rename, (const char *from, const char *to), from, to)
CHANGE(renameat2, (int old_folder, const char *from, int new_folder, const char *to, unsigned flags), old_folder, from, new_folder, to,
       flags)
CHANGE(link, (const char *from, const char *to), from, to)
CHANGE(unlink, (const char *path), path)
CHANGE(rmdir, (const char *path), path)
CHANGE(mkdir, (const char *path, mode_t mode), path, mode)
CHANGE(fsync, (int file), file)
CHANGE(fdatasync, (int file), file)
