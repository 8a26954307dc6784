/* Refusals that are held back. A refusal costs a server as much as any small call: it must be read and answered. Clients that retry at once
 * would turn every refusal into the next one, and could keep a processor busy with nothing else. So a refusal goes out at once as long as
 * few are made; beyond a rate it waits until its turn comes, at most for a while. Who retries is slowed by that, and who does not retry
 * learns it a little later. Where more are held than there is room for, the oldest goes out: a flood of clients that do not retry isn't
 * slowed, and memory is bounded.
 *
 * Not for several threads at once. */
#ifndef SERVING_HOLD_H
#define SERVING_HOLD_H

#include "base/status.h"

typedef struct ct_held {
    void *item;
    const void *kind; /* of item: the owner's, and so is `why` */
    int why;
    int64_t until_ns; /* it is not held longer */
} ct_held;

typedef struct ct_hold {
    ct_held *entries; /* (limit), a ring: the oldest at `first` */
    size_t first, count, limit;
    int64_t gap_ns, burst_ns; /* between two refusals in the long run; by how much they may be ahead of that */
    int64_t due_ns;           /* when the next one would go out if all came evenly */
} ct_hold;

/* `rate` a second in the long run, `burst` of them at once. */
CT_MUST_CHECK ct_code ct_hold_init(ct_hold *hold, size_t limit, double rate, size_t burst, ct_status *status);
void ct_hold_deinit(ct_hold *hold); /* zeroed is fine */
/* Holds an entry. False where there is no room: then one is given back that goes out in its place. */
bool ct_hold_put(ct_hold *hold, ct_held entry, ct_held *out_instead);
/* The next one that is to go out now; false where there is none. */
bool ct_hold_take(ct_hold *hold, int64_t now_ns, ct_held *out_entry);
/* When there will be one; INT64_MAX where none is held. */
int64_t ct_hold_next(const ct_hold *hold);

#endif
