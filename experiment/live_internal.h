/* What the reading side of live experiments shares: the files that a server writes (docs/file-formats.md, "Exposures and feedback") to
 * what was shown and what came of it. Nobody else includes it.
 *
 *     live_files.c      a folder's lines
 *     live_parse.c      a line to an exposure, its columns, an event
 *     live_feedback.c   all events, each once; those of a request
 *     live_exposures.c  scored requests, each once
 *     live_rows.c       a candidate of an exposure to a row of a schema */
#ifndef EXPERIMENT_LIVE_INTERNAL_H
#define EXPERIMENT_LIVE_INTERNAL_H

#include <jansson.h>
#include <stdatomic.h>

#include "data/batch.h"
#include "experiment/assign/assign.h"

/* --- live_files.c --- */

typedef struct live_line {
    const char *text; /* without its newline; valid until the next call */
    size_t bytes;
    const char *path; /* as long as the folder is open */
    uint64_t offset;
    int64_t number; /* from 1 */
    uint32_t file;  /* of the folder */
} live_line;

typedef struct live_folder live_folder;
/* The files of a folder whose names end in .jsonl or .jsonl.part, by name; those that begin with the other kind's prefix are left out, so
 * both kinds may share a folder. kind: "exposures" or "feedback". CT_NOT_FOUND where there is none; CT_UNSUPPORTED for a packed one. */
typedef struct live_reading {
    const atomic_bool *stop; /* may be NULL */
    bool progress;           /* shown on a terminal */
} live_reading;
CT_MUST_CHECK ct_code live_folder_open(const char *path, const char *kind, live_reading reading, live_folder **out_folder,
                                       ct_status *status);
void live_folder_close(live_folder *folder); /* NULL is fine */
/* The next line that is not empty; CT_END behind the last. The last line of a .part is left out where it has no end. */
CT_MUST_CHECK ct_code live_folder_next(live_folder *folder, live_line *out_line, ct_status *status);
/* The line that began there. */
CT_MUST_CHECK ct_code live_folder_at(live_folder *folder, uint32_t file, uint64_t offset, int64_t number, live_line *out_line,
                                     ct_status *status);
typedef struct live_folder_counts {
    int64_t files, lines, cut; /* cut: lines that were left out as they have no end yet */
} live_folder_counts;
live_folder_counts live_folder_count(const live_folder *folder);

/* --- live_parse.c: every failure names file, line and member --- */

typedef struct live_exposure {
    json_t *json; /* owns the texts */
    live_line line;
    int64_t time_ms, latency_us; /* latency_us: -1 = not said */
    const char *request_id, *unit, *experiment, *arm, *model;
    uint64_t request; /* hash of its id */
    ct_assign_how assigned;
    double sample_rate;
    bool failed;                                        /* nothing below is there */
    size_t candidates;                                  /* 1 .. */
    const json_t *context, *columns, *derived, *scores; /* arrays; scores: (candidates), of "click" or else of the first output */
} live_exposure;
CT_MUST_CHECK ct_code live_exposure_parse(const live_line *line, live_exposure *out_exposure, ct_status *status);
void live_exposure_deinit(live_exposure *exposure);
/* The probability of a candidate. */
CT_MUST_CHECK ct_code live_exposure_score(const live_exposure *exposure, size_t candidate, float *out_score, ct_status *status);
/* "FILE:LINE: WHAT" */
ct_code live_fail(const live_line *line, ct_status *status, const char *format, ...) CT_PRINTF(3, 4);

/* A column of an exposure. */
typedef struct live_column {
    const char *name;
    const json_t *values, *lengths; /* lengths: NULL = one value a row */
    bool shared;                    /* context: one row for all candidates */
    bool numbers;                   /* the values are numbers, not ids */
} live_column;
CT_MUST_CHECK ct_code live_column_read(const live_exposure *exposure, const json_t *column, bool shared, live_column *out_column,
                                       ct_status *status);
/* The column of that name; false where there is none. *hint: where it was last time, 0 at first. */
CT_MUST_CHECK ct_code live_column_find(const live_exposure *exposure, const char *name, size_t *hint, live_column *out_column,
                                       bool *out_found, ct_status *status);
/* Where a candidate's values stand. */
void live_column_row(const live_column *column, size_t candidate, size_t *out_first, size_t *out_count);
/* Value `i` as the text of an id (integers in decimal; `buffer` may be used for it), or as a number (NaN: it was not finite). */
enum { LIVE_INTEGER_BYTES = 24 };
CT_MUST_CHECK ct_code live_column_token(const live_exposure *exposure, const live_column *column, size_t i, char buffer[LIVE_INTEGER_BYTES],
                                        const char **out_text, size_t *out_bytes, ct_status *status);
CT_MUST_CHECK ct_code live_column_number(const live_exposure *exposure, const live_column *column, size_t i, float *out_value,
                                         ct_status *status);

typedef struct live_event {
    json_t *json; /* owns the texts */
    int64_t received_ms, time_ms;
    const char *event_id, *request_id, *event; /* event_id: "" = none */
    uint32_t candidate;
    double value;
} live_event;
CT_MUST_CHECK ct_code live_event_parse(const live_line *line, live_event *out_event, ct_status *status);
void live_event_deinit(live_event *event);

/* --- live_feedback.c --- */

enum { LIVE_MAX_EVENTS = 8 };

typedef struct live_feedback_options {
    const char *folder;
    const char *positive;      /* "click" */
    const char *const *events; /* others whose values are wanted; at most LIVE_MAX_EVENTS */
    size_t event_count;
    int64_t wait_ms;  /* an event counts where it happened at most so long after its candidate was shown; 0 = always */
    int64_t until_ms; /* feedback is whole up to then; INT64_MIN = up to the newest that was received */
    live_reading reading;
} live_feedback_options;

typedef struct live_feedback_counts {
    live_folder_counts folder;
    int64_t duplicates;       /* came more than once */
    int64_t conflicts;        /* of them: another event under the same id */
    int64_t other_events;     /* of names that nobody asked for */
    int64_t unknown_requests; /* events without an exposure: not sampled, failed, or not of this folder */
    int64_t no_candidate;     /* the request has fewer candidates */
    int64_t shown_again;      /* a candidate that was shown before */
    int64_t not_shown;        /* events of a candidate that nothing says was shown */
    int64_t too_late;         /* events behind the window */
    int64_t before_shown;     /* events that happened before their candidate was shown: they count */
    int64_t waiting;          /* candidates shown whose window has not passed: they don't count yet */
} live_feedback_counts;

/* 48 bytes an event in memory. */
typedef struct live_feedback live_feedback;
CT_MUST_CHECK ct_code live_feedback_read(const live_feedback_options *options, live_feedback **out_feedback, ct_status *status);
void live_feedback_destroy(live_feedback *feedback); /* NULL is fine */

/* A candidate that was shown, and what came of it within the window. */
typedef struct live_shown {
    uint32_t candidate;
    int64_t time_ms; /* first shown */
    bool positive;
    double values[LIVE_MAX_EVENTS]; /* sums, by `events` */
} live_shown;
/* Those of a request, by candidate, valid until the next call; counts what is left out. A request is to be asked for once. */
CT_MUST_CHECK ct_code live_feedback_of(live_feedback *feedback, const live_exposure *exposure, const live_shown **out_shown,
                                       size_t *out_count, ct_status *status);
/* A request that nobody asks about: its events are not of an unknown one. */
void live_feedback_pass(live_feedback *feedback, const live_exposure *exposure);
live_feedback_counts live_feedback_count(const live_feedback *feedback);
int64_t live_feedback_until_ms(const live_feedback *feedback);
/* The counts as JSON; NULL when out of memory. */
json_t *live_feedback_json(const live_feedback *feedback);

/* --- live_exposures.c --- */

typedef struct live_exposures live_exposures;
CT_MUST_CHECK ct_code live_exposures_open(const char *folder, live_reading reading, live_exposures **out_exposures, ct_status *status);
void live_exposures_close(live_exposures *exposures); /* NULL is fine */
/* The next request, scored or failed, valid until the next call; a scored one whose id came before is left out and counted. CT_END. */
CT_MUST_CHECK ct_code live_exposures_next(live_exposures *exposures, const live_exposure **out_exposure, ct_status *status);
/* The request on the line that began there. */
CT_MUST_CHECK ct_code live_exposures_at(live_exposures *exposures, uint32_t file, uint64_t offset, int64_t number,
                                        const live_exposure **out_exposure, ct_status *status);
json_t *live_exposures_json(const live_exposures *exposures);

/* --- live_rows.c --- */

/* Is it a feature whose values stand in a source, and so in a request? */
static inline bool live_is_feature(const ct_field *field) {
    return !field->derived && (field->kind == CT_FIELD_NUMBER || field->kind == CT_FIELD_ID);
}

/* The fields of a schema, found among an exposure's columns: labels, times, weights, groups and units come from what was logged beside
 * them (label: positive or not; time: when it was shown; weight: 1 / sample_rate; group: the request; unit: the unit). */
typedef struct live_rows live_rows;
CT_MUST_CHECK ct_code live_rows_create(const ct_schema *schema, live_rows **out_rows, ct_status *status);
void live_rows_destroy(live_rows *rows); /* NULL is fine */
/* Which exposure the next rows are of. */
CT_MUST_CHECK ct_code live_rows_take(live_rows *rows, const live_exposure *exposure, ct_status *status);
/* A row behind the batch's rows, for which there is room. A field whose column the exposure lacks is missing: a missing number, an empty
 * token, no values; counted. */
CT_MUST_CHECK ct_code live_rows_add(live_rows *rows, const live_shown *shown, ct_batch *batch, ct_status *status);
/* The same as a line of the schema's text, with its newline, in memory of `rows`. CT_INVALID where the text can't hold a value. */
CT_MUST_CHECK ct_code live_rows_text(live_rows *rows, const live_shown *shown, const char **out_text, size_t *out_bytes, ct_status *status);
/* The header's line, "" without one. */
CT_MUST_CHECK ct_code live_rows_header(live_rows *rows, const char **out_text, size_t *out_bytes, ct_status *status);
int64_t live_rows_missing(const live_rows *rows, size_t field); /* rows so far that lack it */
/* Does the exposure taken last say what the derived field was as it was served: did the request bring the history that it follows from, or
 * was that logged as it was taken from the server's state? CT_INVALID where it was served under another rule than the schema's. */
CT_MUST_CHECK ct_code live_rows_is_served(const live_rows *rows, size_t field, bool *out_served, ct_status *status);
/* Rows from now on have these derived fields, (field_count), as they were served; each must have been served with each row. The array must
 * outlive the rows. Without this call they have none. */
void live_rows_keep(live_rows *rows, const bool *derived);

#endif
