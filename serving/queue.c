#include "serving/queue.h"

#include <stdlib.h>
#include <string.h>

ct_code ct_queue_init(ct_queue *queue, size_t limit, size_t max_bytes, int64_t max_wait_ns, ct_status *status) {
    *queue = (ct_queue){.limit = limit, .max_bytes = max_bytes, .max_wait_ns = max_wait_ns};
    queue->entries = calloc(limit, sizeof *queue->entries);
    return queue->entries ? CT_OK : ct_fail_memory(status, limit * sizeof *queue->entries, "the queue");
}

void ct_queue_deinit(ct_queue *queue) {
    free(queue->entries);
    *queue = (ct_queue){0};
}

bool ct_queue_is_newest_first(const ct_queue *queue, int64_t now_ns) {
    return queue->count && now_ns - queue->entries[0].since_ns >= queue->max_wait_ns / 2;
}

static ct_queue_entry remove_at(ct_queue *queue, size_t at) {
    const ct_queue_entry entry = queue->entries[at];
    queue->count--;
    queue->bytes -= entry.bytes;
    memmove(queue->entries + at, queue->entries + at + 1, (queue->count - at) * sizeof entry);
    return entry;
}

/* Would an entry of `bytes` fit beside `count` others that hold `held`? */
static bool fits(const ct_queue *queue, size_t count, size_t held, size_t bytes) {
    if (count >= queue->limit) return false;
    return count == 0 || (held <= queue->max_bytes && bytes <= queue->max_bytes - held);
}

bool ct_queue_push(ct_queue *queue, int64_t now_ns, ct_queue_entry entry, ct_queue_entry *out_refused) {
    const bool room = fits(queue, queue->count, queue->bytes, entry.bytes);
    if (!room) {
        if (!ct_queue_is_newest_first(queue, now_ns) ||
            !fits(queue, queue->count - 1, queue->bytes - queue->entries[0].bytes, entry.bytes)) {
            *out_refused = entry;
            return false;
        }
        *out_refused = remove_at(queue, 0);
    }
    queue->entries[queue->count++] = entry;
    queue->bytes += entry.bytes;
    return room;
}

static size_t next_at(const ct_queue *queue, int64_t now_ns) { return ct_queue_is_newest_first(queue, now_ns) ? queue->count - 1 : 0; }

const ct_queue_entry *ct_queue_peek(const ct_queue *queue, int64_t now_ns) {
    return queue->count ? &queue->entries[next_at(queue, now_ns)] : NULL;
}

bool ct_queue_take(ct_queue *queue, int64_t now_ns, ct_queue_entry *out_entry) {
    if (queue->count == 0) return false;
    *out_entry = remove_at(queue, next_at(queue, now_ns));
    return true;
}

size_t ct_queue_sweep(ct_queue *queue, int64_t now_ns, ct_queue_wanted_fn wanted, ct_queue_entry *out_entries, size_t capacity) {
    size_t kept = 0, out = 0;
    for (size_t i = 0; i < queue->count; i++) {
        const ct_queue_entry entry = queue->entries[i];
        const bool stays = now_ns - entry.since_ns < queue->max_wait_ns && wanted(entry.item, now_ns);
        if (stays || out == capacity) {
            queue->entries[kept++] = entry;
        } else {
            out_entries[out++] = entry;
            queue->bytes -= entry.bytes;
        }
    }
    queue->count = kept;
    return out;
}

int64_t ct_queue_next_expiry(const ct_queue *queue) { return queue->count ? queue->entries[0].since_ns + queue->max_wait_ns : INT64_MAX; }
