/* A heap of the k best so far, the worst of them on top. */
#include "serving/top_k.h"

#include <stdbool.h>

static bool is_worse(ct_ranked a, ct_ranked b) { return a.logit < b.logit || (a.logit == b.logit && a.candidate > b.candidate); }

/* Puts `one` at the top of the heap and lets it sink to its place. */
static void sink(ct_ranked *heap, size_t count, ct_ranked one) {
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_worse(heap[child + 1], heap[child])) child++;
        if (!is_worse(heap[child], one)) break;
        heap[at] = heap[child];
    }
    heap[at] = one;
}

void ct_top_k(const float *logits, size_t stride, size_t count, size_t k, ct_ranked *out) {
    if (k == 0) return;
    for (size_t i = 0; i < count; i++) {
        const ct_ranked one = {logits[i * stride], (uint32_t)i};
        if (i >= k) {
            if (is_worse(out[0], one)) sink(out, k, one);
            continue;
        }
        size_t at = i; /* rises from the end */
        for (; at > 0 && is_worse(one, out[(at - 1) / 2]); at = (at - 1) / 2) out[at] = out[(at - 1) / 2];
        out[at] = one;
    }
    for (size_t left = k; left > 1; left--) { /* the worst of those that are left goes to their end */
        const ct_ranked worst = out[0];
        sink(out, left - 1, out[left - 1]);
        out[left - 1] = worst;
    }
}
