/* Exposures: a file of what was scored, for whoever learns or reports from it (docs/file-formats.md). Scoring threads copy a request and
 * its scores into a bounded ring; a thread of its own writes them as lines of JSON. What finds no room, or can't be written, is dropped and
 * counted: scoring never waits for a disk. Lines are in the file within a tenth of a second, synced when the file is rotated. */
#ifndef SERVING_EXPOSURES_H
#define SERVING_EXPOSURES_H

#include "base/status.h"
#include "experiment/assign/assign.h"
#include "serving/calibration.h"

typedef struct ct_exposures_options {
    const char *folder;
    double sample_rate;    /* (0, 1]: of the requests */
    size_t buffer_bytes;   /* of the ring */
    uint64_t rotate_bytes; /* of a file */
    int64_t rotate_ms;
    ct_calibration *calibration; /* gets what was scored too; NULL = none. Must outlive the exposures */
} ct_exposures_options;

enum {
    CT_MADE_ID_BYTES = 33,
    CT_EXPOSURE_OUTPUTS = 16,
    CT_EXPOSURE_DERIVED = 256,
    CT_EXPOSURE_HISTORIES = 64,
    CT_EXPOSURES_MESSAGE_BYTES = 256
};

/* One request; all of it is copied. */
typedef struct ct_exposure {
    ct_code code; /* else than CT_OK: it failed, and there are no outputs */
    int64_t latency_ns;
    const void *request_id;
    size_t request_id_bytes;
    const char *experiment, *arm, *fallback_arm; /* "" = none */
    ct_assign_how how;
    const char *model, *version;
    const uint8_t *request; /* the packed ScoreRequest */
    size_t request_bytes;
    size_t rows;
    size_t output_count; /* at most CT_EXPOSURE_OUTPUTS */
    struct {
        const char *name;
        const float *probabilities; /* (rows) */
    } outputs[CT_EXPOSURE_OUTPUTS];
    size_t derived_count; /* at most CT_EXPOSURE_DERIVED */
    struct {
        const char *name;
        const float *values; /* (count) */
        size_t count;        /* rows, or 1 */
    } derived[CT_EXPOSURE_DERIVED];
    size_t history_count; /* at most CT_EXPOSURE_HISTORIES: columns that were taken from the unit's history, one row for all candidates */
    struct {
        const char *name;
        uint64_t rule;        /* ct_schema_column_hash */
        const uint64_t *keys; /* (count) */
        size_t count;
    } histories[CT_EXPOSURE_HISTORIES];
} ct_exposure;

/* Since the start. */
typedef struct ct_exposures_stats {
    uint64_t written, written_bytes;
    uint64_t dropped_full;       /* no room in the ring: the disk, or the thread that writes, can't follow */
    uint64_t dropped_unwritable; /* the file could not be written */
    uint64_t failures;           /* of writing, and of renaming a file */
    char last_failure[CT_EXPOSURES_MESSAGE_BYTES];
} ct_exposures_stats;

typedef struct ct_exposures ct_exposures;
/* Makes the folder; CT_IO where files can't be made in it. */
CT_MUST_CHECK ct_code ct_exposures_open(const ct_exposures_options *options, ct_exposures **out_exposures, ct_status *status);
/* Writes what is in the ring, renames the file, frees; after the last put. NULL is fine. out_stats: of its whole life; may be NULL. The
 * status says what is not as it should be. */
CT_MUST_CHECK ct_code ct_exposures_close(ct_exposures *exposures, ct_exposures_stats *out_stats, ct_status *status);

/* --- any thread --- */
/* Is that request one of the sample? Decided by a hash of the id, so the same for all servers. */
bool ct_exposures_sampled(const ct_exposures *exposures, const void *request_id, size_t bytes);
/* An id that no other request has; returns its length. */
size_t ct_exposures_make_id(ct_exposures *exposures, char out_id[CT_MADE_ID_BYTES]);
/* Of a sampled request. */
void ct_exposures_put(ct_exposures *exposures, const ct_exposure *exposure);
void ct_exposures_stats_get(ct_exposures *exposures, ct_exposures_stats *out_stats);
double ct_exposures_sample_rate(const ct_exposures *exposures);

#endif
