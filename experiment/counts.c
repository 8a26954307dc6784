#include "experiment/counts.h"

#include <stdlib.h>

enum { FIRST_SLOTS = 1024 };

typedef struct slot {
    uint64_t key, count; /* count 0 = free */
} slot;

struct ct_counts {
    slot *slots;
    size_t slot_count; /* a power of two */
    size_t used;
};

ct_code ct_counts_create(ct_counts **out_counts, ct_status *status) {
    ct_counts *counts = calloc(1, sizeof *counts);
    slot *slots = calloc(FIRST_SLOTS, sizeof *slots);
    if (counts == NULL || slots == NULL) {
        free(counts);
        free(slots);
        return ct_fail_memory(status, FIRST_SLOTS * sizeof *slots, "counts");
    }
    *counts = (ct_counts){slots, FIRST_SLOTS, 0};
    *out_counts = counts;
    return CT_OK;
}

void ct_counts_destroy(ct_counts *counts) {
    if (counts == NULL) return;
    free(counts->slots);
    free(counts);
}

/* The key's slot, or the free one where it belongs. Keys need not be hashes. */
static slot *find(slot *slots, size_t slot_count, uint64_t key) {
    size_t at = (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 20);
    for (;; at++) {
        slot *here = &slots[at & (slot_count - 1)];
        if (here->count == 0 || here->key == key) return here;
    }
}

static ct_code grow(ct_counts *counts, ct_status *status) {
    const size_t slot_count = 2 * counts->slot_count;
    slot *slots = calloc(slot_count, sizeof *slots);
    if (slots == NULL) return ct_fail_memory(status, slot_count * sizeof *slots, "counts");
    for (size_t i = 0; i < counts->slot_count; i++)
        if (counts->slots[i].count > 0) *find(slots, slot_count, counts->slots[i].key) = counts->slots[i];
    free(counts->slots);
    counts->slots = slots;
    counts->slot_count = slot_count;
    return CT_OK;
}

ct_code ct_counts_add(ct_counts *counts, uint64_t key, uint64_t amount, ct_status *status) {
    slot *here = find(counts->slots, counts->slot_count, key);
    if (here->count == 0) {
        if (2 * (counts->used + 1) > counts->slot_count) {
            CT_TRY(grow(counts, status));
            here = find(counts->slots, counts->slot_count, key);
        }
        here->key = key;
        counts->used++;
    }
    here->count += amount;
    return CT_OK;
}

uint64_t ct_counts_get(const ct_counts *counts, uint64_t key) { return find(counts->slots, counts->slot_count, key)->count; }

size_t ct_counts_size(const ct_counts *counts) { return counts->used; }
