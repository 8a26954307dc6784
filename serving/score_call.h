/* A call of Score, whichever way it came, over gRPC or as JSON over HTTP: what the queue and the scoring threads need of it. */
#ifndef SERVING_SCORE_CALL_H
#define SERVING_SCORE_CALL_H

#include "base/status.h"

/* `of` is the way's own. Any thread may call these, one at a time. */
typedef struct ct_score_way {
    /* A packed ScoreRequest; it stays until the call ends. */
    const uint8_t *(*request)(const void *of, size_t *out_bytes);
    /* It will only be failed, but later. NULL = nothing is won by saying so. */
    void (*will_fail)(void *of);
    /* CT_OK while somebody still waits for the answer; CT_DEADLINE, CT_CANCELLED else. Cheap. */
    ct_code (*why_unwanted)(const void *of, int64_t now_ns);
    /* Memory of a packed ScoreResponse, once for a call, then `end` with CT_OK. NULL = there is none. */
    uint8_t *(*reserve)(void *of, size_t bytes);
    /* Exactly once. Afterwards the call may be gone. */
    void (*end)(void *of, const ct_status *status);
} ct_score_way;

typedef struct ct_score_call {
    const ct_score_way *way;
    void *of;
} ct_score_call;

#endif
