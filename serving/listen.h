/* Sockets that listen: one way to take HOST:PORT, and to say why it can't be had. */
#ifndef SERVING_LISTEN_H
#define SERVING_LISTEN_H

#include <stddef.h>

#include "base/status.h"

/* A socket that listens and does not block, the caller's to close. HOST:PORT or [v6]:PORT, port 0 = any free one; of the addresses that a
 * name has the first one that can be had. CT_UNAVAILABLE names the address, and says why and what to do. */
CT_MUST_CHECK ct_code ct_listen(const char *address, int *out_fd, ct_status *status);

/* Could all of these be had now, at once? Nothing is kept. For whoever has much to do before he listens. */
CT_MUST_CHECK ct_code ct_listen_check(const char *const *addresses, size_t count, ct_status *status);

#endif
