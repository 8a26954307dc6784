/* Calibration while the server runs: what the models said of the candidates that were shown, beside how many of them were clicked. The last
 * exposures are kept, a request's scores with two marks for each candidate (shown, clicked), in a ring of bounded size; feedback is matched
 * with them by the request's id. What is older falls out, and feedback on it is counted as unknown: the whole truth is `clicktower
 * report`'s.
 *
 * The threads that write exposures and feedback call it, never one that scores. Counted: a candidate is shown once and clicked once,
 * however often it is said and in which order; a click counts once its candidate was shown, however late. A click that is still to come is
 * none yet.
 *
 * An exposure takes 24 bytes, and 5 for each candidate, rounded up to 8. Feedback may be here before the exposure that it is of: the last
 * CT_CALIBRATION_EARLY such events wait for theirs. */
#ifndef SERVING_CALIBRATION_H
#define SERVING_CALIBRATION_H

#include "base/status.h"
#include "model/scorer_stats.h"

enum { CT_CALIBRATION_BYTES = 16 << 20, CT_CALIBRATION_EARLY = 4096, CT_CALIBRATION_SERIES = 64, CT_CALIBRATION_NAME_BYTES = 256 };

typedef enum ct_feedback_kind { CT_FEEDBACK_SHOWN, CT_FEEDBACK_CLICK } ct_feedback_kind;

typedef struct ct_calibration ct_calibration;
/* bytes: of the ring, 4 KiB or more. */
CT_MUST_CHECK ct_code ct_calibration_create(size_t bytes, ct_calibration **out_calibration, ct_status *status);
void ct_calibration_destroy(ct_calibration *calibration); /* NULL is fine */

/* --- any thread; NULL is fine --- */
/* A request was scored: the first output of each candidate, (candidates). arm: "" = none. The newest of an id counts. */
void ct_calibration_expose(ct_calibration *calibration, const char *request_id, const char *model, const char *arm,
                           const float *probabilities, size_t candidates);
void ct_calibration_feedback(ct_calibration *calibration, const void *request_id, size_t id_bytes, uint32_t candidate,
                             ct_feedback_kind kind);

/* Of one model and arm, by buckets of the score (CT_SCORE_BOUNDS), since the start. */
typedef struct ct_calibration_series {
    char model[CT_CALIBRATION_NAME_BYTES], arm[CT_CALIBRATION_NAME_BYTES]; /* cut to fit */
    uint64_t shown[CT_SCORE_BUCKETS], clicks[CT_SCORE_BUCKETS];
    double predicted[CT_SCORE_BUCKETS]; /* sum of the scores of what was shown */
} ct_calibration_series;
typedef struct ct_calibration_stats {
    size_t series_count;
    uint64_t counted, repeated, unknown; /* events; unknown: of no exposure that is there, or of a candidate that it has not */
    uint64_t fallen;                     /* exposures that made room for newer ones, and such as fit nowhere */
    size_t exposures, waiting;           /* there now; events that wait for their exposure */
    size_t bytes;                        /* of the whole table */
} ct_calibration_stats;
void ct_calibration_stats_get(ct_calibration *calibration, ct_calibration_stats *out_stats);
/* Series `index` of series_count; they keep their places. */
void ct_calibration_series_get(ct_calibration *calibration, size_t index, ct_calibration_series *out_series);

#endif
