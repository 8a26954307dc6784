#include "serving/queue.h"

#include <stdlib.h>

ct_code ct_queue_init(ct_queue *queue, size_t limit, size_t max_bytes, int64_t max_wait_ns, ct_status *status) {
    *queue = (ct_queue){.limit = limit, .max_bytes = max_bytes, .max_wait_ns = max_wait_ns};
    queue->entries = calloc(limit, sizeof *queue->entries);
    return queue->entries ? CT_OK : ct_fail_memory(status, limit * sizeof *queue->entries, "the queue");
}

void ct_queue_deinit(ct_queue *queue) {
    free(queue->entries);
    *queue = (ct_queue){0};
}

static ct_queue_entry *at(const ct_queue *queue, size_t index) { return &queue->entries[(queue->first + index) % queue->limit]; }

int64_t ct_queue_wait_ns(const ct_queue *queue) { return (int64_t)((double)queue->rows * queue->row_ns); }

ct_queue_answer ct_queue_push(ct_queue *queue, int64_t now_ns, ct_queue_entry entry) {
    enum { SHARE = 2, OVERLOADED = 4 };
    const int64_t left = entry.deadline_ns - now_ns; /* far from overflow: times are positive */
    const int64_t longest = left / SHARE < queue->max_wait_ns ? left / SHARE : queue->max_wait_ns;
    if (queue->count == 0) {
        queue->empty_ns = now_ns;
    } else {
        if (queue->count == queue->limit || queue->bytes > queue->max_bytes || entry.bytes > queue->max_bytes - queue->bytes)
            return CT_QUEUE_FULL;
        const int64_t wait = ct_queue_wait_ns(queue), own = (int64_t)((double)entry.rows * queue->row_ns);
        const bool overloaded = now_ns - queue->empty_ns > CT_QUEUE_CALM_NS;
        if (wait > (overloaded ? longest / OVERLOADED : longest) || own > left - wait) return CT_QUEUE_SLOW;
    }
    entry.expires_ns = entry.since_ns + longest;
    *at(queue, queue->count++) = entry;
    queue->bytes += entry.bytes;
    queue->rows += entry.rows;
    return CT_QUEUE_TAKEN;
}

const ct_queue_entry *ct_queue_peek(const ct_queue *queue) { return queue->count ? at(queue, 0) : NULL; }

static void forget(ct_queue *queue, const ct_queue_entry *entry) {
    queue->bytes -= entry->bytes;
    queue->rows -= entry->rows;
}

bool ct_queue_take(ct_queue *queue, int64_t now_ns, ct_queue_entry *out_entry) {
    if (queue->count == 0) return false;
    *out_entry = *at(queue, 0);
    forget(queue, out_entry);
    queue->first = (queue->first + 1) % queue->limit;
    if (--queue->count == 0) queue->empty_ns = now_ns;
    return true;
}

size_t ct_queue_sweep(ct_queue *queue, int64_t now_ns, ct_queue_wanted_fn wanted, ct_queue_entry *out_entries, size_t capacity) {
    size_t kept = 0, out = 0;
    for (size_t i = 0; i < queue->count; i++) {
        const ct_queue_entry entry = *at(queue, i);
        if (out == capacity || (now_ns < entry.expires_ns && wanted(&entry, now_ns))) {
            *at(queue, kept++) = entry;
        } else {
            out_entries[out++] = entry;
            forget(queue, &entry);
        }
    }
    queue->count = kept;
    return out;
}

int64_t ct_queue_next_expiry(const ct_queue *queue) {
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < queue->count; i++)
        if (at(queue, i)->expires_ns < next) next = at(queue, i)->expires_ns;
    return next;
}
