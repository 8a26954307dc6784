/* The queue in front of scoring: a bounded list of calls that wait for a thread. Not for several threads at once.
 *
 * Which call is next. While nobody has waited for half of max_wait, the oldest: short bursts are served in order, which is fair and has the
 * shortest tail. Once somebody has, more comes than can be served, and the newest is next: it has all of its time left and its answer can
 * be in time, whereas in order of arrival every call would be answered when it is (almost) late, the more so the more clients come. By
 * deadline would do the same harm, since the earliest deadline is that of the call that has waited longest, and clients that give no
 * deadline, or lie, would decide who is served.
 * Which call is refused where the queue is full: the one that would be served last, that is the new one in the first case and the oldest in
 * the second. A call that has waited max_wait is refused, whatever the length of the queue. */
#ifndef SERVING_QUEUE_H
#define SERVING_QUEUE_H

#include "base/status.h"

typedef struct ct_queue_entry {
    void *item;
    int64_t since_ns;
    size_t bytes; /* of memory that it holds */
    size_t rows;  /* to compute, as far as is known */
} ct_queue_entry;

typedef struct ct_queue {
    ct_queue_entry *entries; /* (count of limit), oldest first */
    size_t count, limit;
    size_t bytes, max_bytes;
    int64_t max_wait_ns;
} ct_queue;

CT_MUST_CHECK ct_code ct_queue_init(ct_queue *queue, size_t limit /* at least 1 */, size_t max_bytes, int64_t max_wait_ns,
                                    ct_status *status);
void ct_queue_deinit(ct_queue *queue); /* zeroed is fine */

/* Is the newest next? */
bool ct_queue_is_newest_first(const ct_queue *queue, int64_t now_ns);
/* Adds an entry, newer than all others; where it is full returns false and the entry to refuse instead, which may be the given one. An
 * entry larger than max_bytes is taken where the queue is empty. */
bool ct_queue_push(ct_queue *queue, int64_t now_ns, ct_queue_entry entry, ct_queue_entry *out_refused);
/* The next one, which stays; NULL where there is none. */
const ct_queue_entry *ct_queue_peek(const ct_queue *queue, int64_t now_ns);
/* Takes the next one out; false where there is none. */
bool ct_queue_take(ct_queue *queue, int64_t now_ns, ct_queue_entry *out_entry);
/* Takes out those that have waited too long or that nobody wants any more, at most `capacity`, oldest first; returns how many. */
typedef bool (*ct_queue_wanted_fn)(void *item, int64_t now_ns);
size_t ct_queue_sweep(ct_queue *queue, int64_t now_ns, ct_queue_wanted_fn wanted, ct_queue_entry *out_entries, size_t capacity);
/* When the oldest will have waited too long; INT64_MAX where there is none. */
int64_t ct_queue_next_expiry(const ct_queue *queue);

#endif
