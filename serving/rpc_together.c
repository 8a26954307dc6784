/* Answers that go out together. gRPC's core writes each answer with a system call of its own, and has no way to be told that more will
 * follow; each write makes a packet, which the kernel takes through its whole network stack, and wakes the client. Of a small request that
 * is a fifth of all the work. So this program has its own sendmsg, which the dynamic linker gives to libgrpc: in a thread that is sending
 * answers together it tells the kernel that more will follow (MSG_MORE, see tcp(7) and sendmsg(2)), and at the end pushes what every
 * connection has. Everywhere else it is sendmsg as ever.
 *
 * Where a socket was closed meanwhile nothing is lost: the kernel sends what is left, and to set TCP_NODELAY, which gRPC sets on all of its
 * sockets, changes nothing for another socket that has got the number.
 *
 * The sanitizers have a sendmsg of their own, which has to stay in place: there each answer goes out for itself. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "serving/rpc.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__

void ct_rpc_together_begin(void) {}
void ct_rpc_together_end(void) {}

#else

enum { SOCKETS = 64 };

static _Thread_local struct {
    bool on;
    size_t count;
    int sockets[SOCKETS]; /* that have something to be pushed */
} together;

/* Remembers the socket. False: what it is given must go out at once. */
static bool will_push(int fd) {
    if (!together.on) return false;
    for (size_t i = 0; i < together.count; i++)
        if (together.sockets[i] == fd) return true;
    if (together.count == SOCKETS) return false;
    together.sockets[together.count++] = fd;
    return true;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return syscall(SYS_sendmsg, fd, message, will_push(fd) ? flags | MSG_MORE : flags);
}

void ct_rpc_together_begin(void) {
    together.count = 0;
    together.on = true;
}

void ct_rpc_together_end(void) {
    static const int on = 1;
    together.on = false;
    for (size_t i = 0; i < together.count; i++)
        (void)setsockopt(together.sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* it pushes: tcp(7) */
}

#endif
