/* Feedback: a file of what was shown and what came of it (docs/file-formats.md). A thread of its own takes what waits, checks it, writes
 * it, syncs the file once for all of it, and only then says that it is accepted: what was acknowledged survives the death of the process
 * and of the machine. Nobody else waits for the disk. Each request is accepted whole or not at all. */
#ifndef SERVING_FEEDBACK_H
#define SERVING_FEEDBACK_H

#include "base/arena.h"
#include "base/status.h"
#include "proto/clicktower.pb-c.h"
#include "serving/calibration.h"

enum {
    CT_FEEDBACK_MAX_EVENTS = 10000, /* of a request */
    CT_FEEDBACK_EVENT_BYTES = 64,
    CT_FEEDBACK_EVENT_ID_BYTES = 128,
    CT_FEEDBACK_MESSAGE_BYTES = 256
};

typedef struct ct_feedback_options {
    const char *folder;
    uint64_t rotate_bytes; /* of a file */
    int64_t rotate_ms;
    uint32_t max_candidates;     /* of a scored request; default 10,000 */
    size_t queue_calls;          /* that wait to be written; default 256 */
    size_t queue_bytes;          /* of all of them; default 64 MiB */
    ct_calibration *calibration; /* gets what was shown and clicked too; NULL = none. Must outlive the feedback */
} ct_feedback_options;

/* Since the start. */
typedef struct ct_feedback_stats {
    uint64_t shown, clicks, others;     /* events that were accepted */
    uint64_t invalid, busy, unwritable; /* requests that were refused */
    uint64_t failures;                  /* of writing, and of renaming a file */
    char last_failure[CT_FEEDBACK_MESSAGE_BYTES];
} ct_feedback_stats;

typedef struct ct_feedback ct_feedback;
/* Makes the folder; CT_IO where files can't be made in it. */
CT_MUST_CHECK ct_code ct_feedback_open(const ct_feedback_options *options, ct_feedback **out_feedback, ct_status *status);
/* Writes what waits, renames the file, frees; after the last submit. NULL is fine. The status says what is not as it should be. */
CT_MUST_CHECK ct_code ct_feedback_close(ct_feedback *feedback, ct_status *status);
void ct_feedback_stats_get(ct_feedback *feedback, ct_feedback_stats *out_stats);

/* CT_OK: `accepted` events are on disk. Else CT_INVALID, CT_EXHAUSTED (too many events, too large), or CT_UNAVAILABLE: not written. */
typedef void (*ct_feedback_done_fn)(void *context, const ct_status *status, uint32_t accepted);
/* Takes a packed FeedbackRequest; its bytes must stay until `done`, which is called once, by another thread. Never waits. On CT_EXHAUSTED
 * (too much waits) it is not taken, and `done` is not called. */
CT_MUST_CHECK ct_code ct_feedback_submit(ct_feedback *feedback, const uint8_t *request, size_t bytes, ct_feedback_done_fn done,
                                         void *context, ct_status *status);

/* Unpacks and checks a FeedbackRequest received at now_ms; events without a time or a worth have them afterwards. CT_INVALID names event
 * and field. The arena's. */
CT_MUST_CHECK ct_code ct_feedback_unpack(ct_arena *arena, const uint8_t *data, size_t bytes, uint32_t max_candidates, int64_t now_ms,
                                         Clicktower__V1__FeedbackRequest **out_request, ct_status *status);

#endif
