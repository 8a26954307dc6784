/* What the files of the admin port share. */
#ifndef SERVING_ADMIN_INTERNAL_H
#define SERVING_ADMIN_INTERNAL_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

#include "base/arena.h"
#include "serving/admin.h"

/* --- admin_score.c --- */
/* A call of Score over HTTP. The first three are the caller's to set; `done` is called once, perhaps by another thread. */
typedef struct ct_admin_call {
    ct_arena *arena; /* must stay until `done` and the use of the answer; nobody else uses it before `done` */
    void (*done)(void *context, const ct_status *status);
    void *context;
    int64_t deadline_ns; /* INT64_MAX = none */
    uint8_t *packed, *answer;
    size_t packed_bytes, answer_bytes;
} ct_admin_call;
/* A ScoreRequest as JSON, with the same checks, limits and queue as over gRPC. timeout: of the header Grpc-Timeout; NULL = none. On failure
 * `done` is not called. */
CT_MUST_CHECK ct_code ct_admin_score(ct_server *server, ct_admin_call *call, const char *body, size_t bytes, const char *timeout,
                                     ct_status *status);
/* After `done` with CT_OK: the ScoreResponse as JSON (the caller's), with the same bits as over gRPC. */
CT_MUST_CHECK ct_code ct_admin_scores(const ct_admin_call *call, json_t **out_answer, ct_status *status);
/* As gRPC spells it: digits and a unit. CT_INVALID. */
CT_MUST_CHECK ct_code ct_admin_timeout(const char *text, int64_t *out_ns, ct_status *status);

/* --- admin_feedback.c --- */
/* A FeedbackRequest as JSON; the arena must stay until `done`, which is called where this returns CT_OK. */
CT_MUST_CHECK ct_code ct_admin_feedback(ct_server *server, ct_arena *arena, const char *body, size_t bytes, ct_feedback_done_fn done,
                                        void *context, ct_status *status);

/* --- metrics.c --- */
/* How often a path was asked for, by HTTP status. */
enum { CT_HTTP_STATUSES = 12 };
typedef struct ct_http_counts {
    const char *path;
    uint64_t by_status[CT_HTTP_STATUSES]; /* as ct_http_statuses */
} ct_http_counts;
extern const unsigned ct_http_statuses[CT_HTTP_STATUSES];

/* Everything as Prometheus' text, format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). */
void ct_metrics_write(FILE *out, ct_server *server, const char *version, const ct_http_counts *http, size_t http_count);

/* --- files that the build puts into the program --- */
extern const unsigned char ct_admin_page[], ct_admin_script[];
extern const size_t ct_admin_page_bytes, ct_admin_script_bytes;

#endif
