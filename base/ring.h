/* A bounded ring of records of any size, from many threads to one. Whoever puts a record never waits: there is room, or there is not. It
 * takes no lock and makes no system call, unless the reader sleeps and must be woken.
 *
 * Records come out in the order in which they were reserved, so one that is reserved and not yet committed holds up those behind it:
 * commit at once. */
#ifndef BASE_RING_H
#define BASE_RING_H

#include "base/status.h"

typedef struct ct_ring ct_ring;
/* bytes: of all records, with 16 for each; at least 4096. */
CT_MUST_CHECK ct_code ct_ring_create(size_t bytes, ct_ring **out_ring, ct_status *status);
void ct_ring_destroy(ct_ring *ring); /* when nobody uses it any more; NULL is fine */

/* --- any thread --- */
/* Memory of a record, 16-byte aligned, to be filled and committed; NULL where there is no room, and always beyond half the ring. */
void *ct_ring_reserve(ct_ring *ring, size_t bytes);
void ct_ring_commit(ct_ring *ring, void *record);
/* Ends the reader's ct_ring_sleep and ct_ring_nap, now and for ever. */
void ct_ring_stop(ct_ring *ring);

/* --- the reader --- */
/* The oldest record, which stays until it is released; NULL where there is none. */
const void *ct_ring_read(ct_ring *ring, size_t *out_bytes);
void ct_ring_release(ct_ring *ring);
/* Until there is a record, until then (ct_clock_ns; INT64_MAX = as long as it takes), or until the stop. */
void ct_ring_sleep(ct_ring *ring, int64_t until_ns);
/* Until then or until the stop, whatever comes: so that many records wake it once. False once it is stopped. */
bool ct_ring_nap(ct_ring *ring, int64_t until_ns);

#endif
