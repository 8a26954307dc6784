/* The queue in front of scoring: a bounded list of calls that wait for a thread, in the order of their arrival. Not for several threads at
 * once.
 *
 * Who is refused. What a server can't answer in time it should refuse as soon as that is known: at arrival. So the queue knows how much
 * work waits in it (rows, and what a row takes, which its owner measures), hence how long a new call would wait, and takes it only if that
 * fits the time that it has. A call may spend half of the time to its deadline in here, and never more than max_wait: the rest is for
 * computing, for the way back, and for estimates that are wrong. A call whose half is over all the same leaves: it is refused before
 * anything is computed for it.
 *
 * Bursts and overload. A burst may fill the queue up to that limit: it will be worked off. If the queue has not been empty for CALM_NS,
 * more comes than can be served, and every place in it only makes the answers later, not more; then a call is taken only if it would wait
 * for at most a quarter of its limit.
 *
 * So all that is in here has its time left, and the order of arrival is as good as any, fair, and shortest in the tail. (Newest first, as
 * an alternative, needs a full queue of calls that are kept for nothing, and whose clients learn late that they should go elsewhere. By
 * deadline, those who lie about theirs would be served.)
 *
 * An empty queue takes every call, whatever the estimate says: so a wrong estimate is always put right by work that is measured. */
#ifndef SERVING_QUEUE_H
#define SERVING_QUEUE_H

#include "base/status.h"

enum { CT_QUEUE_CALM_NS = 100000000 };

typedef struct ct_queue_entry {
    void *item;
    const void *kind; /* of item: the owner's */
    int64_t since_ns;
    int64_t deadline_ns; /* INT64_MAX = none */
    int64_t expires_ns;  /* set by ct_queue_push: it waits no longer */
    size_t bytes;        /* of memory that it holds */
    size_t rows;         /* to compute, as far as is known */
} ct_queue_entry;

typedef struct ct_queue {
    ct_queue_entry *entries; /* (limit), a ring: the oldest at `first` */
    size_t first, count, limit;
    size_t bytes, max_bytes, rows;
    int64_t max_wait_ns;
    double row_ns;    /* that a row takes, all threads together; 0 = not known yet: nothing is refused for it. The owner's to set */
    int64_t empty_ns; /* when it was last known to be empty */
} ct_queue;

CT_MUST_CHECK ct_code ct_queue_init(ct_queue *queue, size_t limit /* at least 1 */, size_t max_bytes, int64_t max_wait_ns,
                                    ct_status *status);
void ct_queue_deinit(ct_queue *queue); /* zeroed is fine */

typedef enum ct_queue_answer {
    CT_QUEUE_TAKEN,
    CT_QUEUE_FULL, /* in calls or bytes. An entry larger than max_bytes is taken where the queue is empty */
    CT_QUEUE_SLOW  /* it would wait too long */
} ct_queue_answer;
ct_queue_answer ct_queue_push(ct_queue *queue, int64_t now_ns, ct_queue_entry entry);
/* How long a call that came now would wait. */
int64_t ct_queue_wait_ns(const ct_queue *queue);
/* The next one, which stays; NULL where there is none. */
const ct_queue_entry *ct_queue_peek(const ct_queue *queue);
/* Takes the next one out; false where there is none. */
bool ct_queue_take(ct_queue *queue, int64_t now_ns, ct_queue_entry *out_entry);
/* Takes out those that have waited too long or that nobody wants any more, at most `capacity`, oldest first; returns how many. */
typedef bool (*ct_queue_wanted_fn)(const ct_queue_entry *entry, int64_t now_ns);
size_t ct_queue_sweep(ct_queue *queue, int64_t now_ns, ct_queue_wanted_fn wanted, ct_queue_entry *out_entries, size_t capacity);
/* When the next one will have waited too long; INT64_MAX where there is none. */
int64_t ct_queue_next_expiry(const ct_queue *queue);

#endif
