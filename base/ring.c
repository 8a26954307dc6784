/* Design. Positions count bytes from the start and never wrap; a record lies at its position modulo the size, in one piece: what is left at
 * the end of the ring and too short is skipped. Reserving moves `head` with one compare-and-swap; committing marks the record's header. The
 * reader goes from header to header as far as they are marked, and zeroes what it releases before it moves `tail`: so every place where a
 * header may come to stand reads "not yet" until its record is committed, whatever the bytes there were. */
#include "base/ring.h"
#include "base/condition.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, LEAST_BYTES = 4096 };
typedef enum record_state { NOT_YET = 0, READY = 1, SKIPPED = 2 } record_state;

typedef struct record_header {
    _Atomic uint32_t state;
    uint32_t unused;
    uint64_t bytes; /* of the record as it was asked for; of a skipped place, all of it */
} record_header;
_Static_assert(sizeof(record_header) == ALIGN, "a header takes one place");

struct ct_ring {
    char *data;
    size_t bytes;
    _Atomic uint64_t head, tail;
    atomic_bool sleeping;
    pthread_mutex_t lock; /* of the reader's sleep only */
    pthread_cond_t wake;
    bool stopped, woken;
};

static size_t rounded(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }
static record_header *header_at(const ct_ring *ring, uint64_t position) {
    return (record_header *)(void *)(ring->data + position % ring->bytes);
}

ct_code ct_ring_create(size_t bytes, ct_ring **out_ring, ct_status *status) {
    ct_ring *ring = calloc(1, sizeof *ring);
    if (!ring) return ct_fail_memory(status, sizeof *ring, "a ring");
    ring->bytes = rounded(bytes < LEAST_BYTES ? LEAST_BYTES : bytes);
    ring->data = calloc(1, ring->bytes);
    if (!ring->data) {
        free(ring);
        return ct_fail_memory(status, bytes, "a ring");
    }
    (void)pthread_mutex_init(&ring->lock, NULL);
    ct_condition_init(&ring->wake);
    *out_ring = ring;
    return CT_OK;
}

void ct_ring_destroy(ct_ring *ring) {
    if (!ring) return;
    (void)pthread_cond_destroy(&ring->wake);
    (void)pthread_mutex_destroy(&ring->lock);
    free(ring->data);
    free(ring);
}

void *ct_ring_reserve(ct_ring *ring, size_t bytes) {
    if (bytes > ring->bytes / 2 - ALIGN) return NULL;
    const size_t whole = ALIGN + rounded(bytes);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    size_t skip;
    do {
        const size_t left = ring->bytes - (size_t)(head % ring->bytes);
        skip = whole > left ? left : 0;
        const uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head + skip + whole - tail > ring->bytes) return NULL;
    } while (!atomic_compare_exchange_weak_explicit(&ring->head, &head, head + skip + whole, memory_order_relaxed, memory_order_relaxed));
    if (skip) {
        record_header *skipped = header_at(ring, head);
        skipped->bytes = skip;
        atomic_store_explicit(&skipped->state, SKIPPED, memory_order_release);
    }
    record_header *header = header_at(ring, head + skip);
    header->bytes = bytes;
    return header + 1;
}

void ct_ring_commit(ct_ring *ring, void *record) {
    record_header *header = (record_header *)record - 1;
    /* Either we see that the reader goes to sleep, or it sees our record: both sides write before they look. */
    atomic_store(&header->state, READY);
    if (!atomic_load(&ring->sleeping) || !atomic_exchange(&ring->sleeping, false)) return;
    (void)pthread_mutex_lock(&ring->lock);
    ring->woken = true;
    (void)pthread_cond_signal(&ring->wake);
    (void)pthread_mutex_unlock(&ring->lock);
}

void ct_ring_stop(ct_ring *ring) {
    (void)pthread_mutex_lock(&ring->lock);
    ring->stopped = true;
    (void)pthread_cond_signal(&ring->wake);
    (void)pthread_mutex_unlock(&ring->lock);
}

static void give_back(ct_ring *ring, record_header *header, size_t bytes) {
    const uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    memset((void *)header, 0, bytes);
    atomic_store_explicit(&ring->tail, tail + bytes, memory_order_release);
}

const void *ct_ring_read(ct_ring *ring, size_t *out_bytes) {
    for (;;) {
        /* At the head there is nothing but zeros. */
        record_header *header = header_at(ring, atomic_load_explicit(&ring->tail, memory_order_relaxed));
        const uint32_t state = atomic_load(&header->state);
        if (state == NOT_YET) return NULL;
        if (state == READY) {
            *out_bytes = header->bytes;
            return header + 1;
        }
        give_back(ring, header, header->bytes);
    }
}

void ct_ring_release(ct_ring *ring) {
    record_header *header = header_at(ring, atomic_load_explicit(&ring->tail, memory_order_relaxed));
    give_back(ring, header, ALIGN + rounded(header->bytes));
}

/* Under lock. False where the time is over. */
static bool wait_until(ct_ring *ring, int64_t until_ns) {
    if (until_ns == INT64_MAX) return pthread_cond_wait(&ring->wake, &ring->lock) == 0;
    return ct_condition_wait(&ring->wake, &ring->lock, until_ns) == 0;
}

void ct_ring_sleep(ct_ring *ring, int64_t until_ns) {
    size_t bytes;
    (void)pthread_mutex_lock(&ring->lock);
    ring->woken = false;
    atomic_store(&ring->sleeping, true);
    if (!ct_ring_read(ring, &bytes))
        while (!ring->stopped && !ring->woken && wait_until(ring, until_ns)) continue;
    atomic_store(&ring->sleeping, false);
    (void)pthread_mutex_unlock(&ring->lock);
}

bool ct_ring_nap(ct_ring *ring, int64_t until_ns) {
    (void)pthread_mutex_lock(&ring->lock);
    while (!ring->stopped && wait_until(ring, until_ns)) continue;
    const bool stopped = ring->stopped;
    (void)pthread_mutex_unlock(&ring->lock);
    return !stopped;
}
