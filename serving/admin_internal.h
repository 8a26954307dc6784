/* What the files of the admin port share. */
#ifndef SERVING_ADMIN_INTERNAL_H
#define SERVING_ADMIN_INTERNAL_H

#include <jansson.h>
#include <stdio.h>

#include "serving/admin.h"

/* --- admin_score.c --- */
/* A ScoreRequest as JSON to a ScoreResponse as JSON (the caller's), with the same checks, and the same bits, as over gRPC. */
CT_MUST_CHECK ct_code ct_admin_score(ct_server *server, const char *body, size_t bytes, json_t **out_answer, ct_status *status);

/* --- metrics.c --- */
/* How often a path was asked for, by HTTP status. */
enum { CT_HTTP_STATUSES = 10 };
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
