/* A command as source. It runs in a process group of its own, so that a pipeline can be ended as a whole: first it is asked (SIGTERM),
 * and what is left after a short while, or when the shell has ended, is killed. Its standard input is /dev/null, as ours may be another
 * source; its errors go where ours go. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/source_internal.h"

enum { WAIT_FIRST_MS = 1, WAIT_LAST_MS = 50, TERM_MS = 500 };

extern char **environ;

static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, int output) {
    sigset_t none, defaults;
    (void)sigemptyset(&none);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE); /* what a program ignores, its children would ignore */
    (void)sigaddset(&defaults, SIGINT);
    (void)sigaddset(&defaults, SIGQUIT);
    (void)sigaddset(&defaults, SIGTERM);
    int result = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!result) result = posix_spawn_file_actions_adddup2(actions, output, STDOUT_FILENO);
    if (!result) result = posix_spawnattr_setpgroup(attributes, 0);
    if (!result) result = posix_spawnattr_setsigmask(attributes, &none);
    if (!result) result = posix_spawnattr_setsigdefault(attributes, &defaults);
    if (!result) {
        result = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    }
    return result;
}

/* 0 or an errno. */
static int spawn(const char *command, int output, pid_t *out_process) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char shell[] = "sh", flag[] = "-c";
    char *arguments[] = {shell, flag, (char *)(uintptr_t)command, NULL};
    int result = posix_spawn_file_actions_init(&actions);
    if (result) return result;
    result = posix_spawnattr_init(&attributes);
    if (!result) {
        result = prepare(&actions, &attributes, output);
        if (!result) result = posix_spawn(out_process, "/bin/sh", &actions, &attributes, arguments, environ);
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return result;
}

ct_code ct_command_start(const char *command, const char *name, int *out_fd, pid_t *out_process, ct_status *status) {
    int ends[2];
    if (!command[strspn(command, " \t\n")]) return ct_fail(status, CT_INVALID, "'|%s': no command stands behind the bar", command);
    if (pipe2(ends, O_CLOEXEC) != 0) return ct_fail_errno(status, "%s: cannot make a pipe", name);
    const int result = spawn(command, ends[1], out_process);
    (void)close(ends[1]);
    if (result) {
        (void)close(ends[0]);
        errno = result;
        return ct_fail_errno(status, "%s: cannot start /bin/sh", name);
    }
    *out_fd = ends[0];
    return CT_OK;
}

/* Has the process ended? It is left to be waited for, so that its number and its group's stay its own. */
static bool has_ended(pid_t process) {
    siginfo_t info = {0};
    const int result = waitid(P_PID, (id_t)process, &info, WEXITED | WNOHANG | WNOWAIT);
    return result == 0 ? info.si_pid != 0 : errno != EINTR;
}

/* The shell closes its output when it ends, so there is hardly anything to wait for. */
ct_code ct_command_finish(ct_source *source, ct_status *status) {
    int ms = WAIT_FIRST_MS, result = 0;
    if (!source->command) return CT_OK;
    while (!has_ended(source->command)) {
        CT_TRY(ct_source_check_stop(source, status));
        (void)poll(NULL, 0, ms);
        ms = 2 * ms < WAIT_LAST_MS ? 2 * ms : WAIT_LAST_MS;
    }
    const pid_t process = source->command;
    source->command = 0;
    while (waitpid(process, &result, 0) < 0) {
        if (errno != EINTR) return ct_fail_errno(status, "%s: cannot learn how it ended", source->name);
    }
    if (WIFSIGNALED(result)) {
        return ct_fail(status, CT_IO, "%s: ended by signal %d (%s)", source->name, WTERMSIG(result), strsignal(WTERMSIG(result)));
    }
    if (WEXITSTATUS(result) != 0) return ct_fail(status, CT_IO, "%s: exit status %d", source->name, WEXITSTATUS(result));
    return CT_OK;
}

void ct_command_kill(pid_t process) {
    (void)kill(-process, SIGTERM);
    for (int waited = 0, ms = WAIT_FIRST_MS; waited < TERM_MS && !has_ended(process); waited += ms, ms *= 2) (void)poll(NULL, 0, ms);
    (void)kill(-process, SIGKILL); /* also what the shell has left behind */
    while (waitpid(process, NULL, 0) < 0 && errno == EINTR) {}
}
