#include "serving/listen.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 64, MOST_CHECKED = 8 };

/* Why, and what to do. */
static const char *reason(int error) {
    switch (error) {
        case EADDRINUSE:
            return "the port is in use; stop the other program or choose another port";
        case EACCES:
            return "this user may not have the port; choose one from 1024 on, or give the program CAP_NET_BIND_SERVICE";
        case EADDRNOTAVAIL:
            return "it is no address of this machine; 0.0.0.0 stands for all that it has";
        default:
            return strerror(error);
    }
}

ct_code ct_listen(const char *address, int *out_fd, ct_status *status) {
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address) return ct_fail(status, CT_INVALID, "address \"%s\" is not HOST:PORT", address);
    const bool bracketed = address[0] == '[' && colon[-1] == ']';
    char host[256];
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - address) - 2 * bracketed, address + bracketed);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const int lookup = getaddrinfo(host, colon + 1, &hints, &found);
    if (lookup != 0)
        return ct_fail(status, CT_UNAVAILABLE, "cannot listen on %s: %s; give an address of this machine", address, gai_strerror(lookup));
    int error = 0, fd = -1;
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        const int on = 1;
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            error = errno;
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) break;
        error = errno;
        (void)close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0) return ct_fail(status, CT_UNAVAILABLE, "cannot listen on %s: %s", address, reason(error));
    *out_fd = fd;
    return CT_OK;
}

ct_code ct_listen_check(const char *const *addresses, size_t count, ct_status *status) {
    int fds[MOST_CHECKED];
    if (count > MOST_CHECKED) return ct_fail(status, CT_INTERNAL, "%zu addresses at once, at most %d", count, MOST_CHECKED);
    ct_code code = CT_OK;
    size_t had = 0;
    while (had < count && (code = ct_listen(addresses[had], &fds[had], status)) == CT_OK) had++;
    while (had) (void)close(fds[--had]);
    return code;
}
