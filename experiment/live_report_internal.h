/* What the files of the report on a server's experiment share. Nobody else includes it. */
#ifndef EXPERIMENT_LIVE_REPORT_INTERNAL_H
#define EXPERIMENT_LIVE_REPORT_INTERNAL_H

#include "experiment/live_internal.h"
#include "experiment/live_report.h"
#include "experiment/online_internal.h"
#include "experiment/report_internal.h"
#include "trainer/metrics.h"

/* --- live_guardrails.c --- */

typedef struct live_request_cost {
    uint32_t unit, arm;
    int64_t latency_us; /* -1 = not said */
    bool failed;
} live_request_cost;

typedef struct live_guardrails {
    live_request_cost *requests; /* (count) */
    size_t count, capacity;
} live_guardrails;
CT_MUST_CHECK ct_code live_guardrails_add(live_guardrails *guardrails, live_request_cost request, ct_status *status);
void live_guardrails_deinit(live_guardrails *guardrails);
/* Sorts the requests. Units of `table` that are in two arms are left out. */
CT_MUST_CHECK ct_code live_guardrails_json(live_guardrails *guardrails, const online_design *design, const online_table *table,
                                           json_t **out_json, ct_status *status);

/* --- live_drift.c --- */

typedef struct live_drift live_drift;
CT_MUST_CHECK ct_code live_drift_create(const ct_schema *schema, live_drift **out_drift, ct_status *status);
void live_drift_destroy(live_drift *drift); /* NULL is fine */
/* Reads the training rows; before what was served. */
CT_MUST_CHECK ct_code live_drift_train(live_drift *drift, const char *const *sources, size_t count, const atomic_bool *stop,
                                       json_t *warnings, ct_status *status);
/* Impressions of a request. */
CT_MUST_CHECK ct_code live_drift_add(live_drift *drift, const live_exposure *exposure, const live_shown *shown, size_t count,
                                     ct_status *status);
CT_MUST_CHECK ct_code live_drift_json(live_drift *drift, json_t *warnings, json_t **out_json, ct_status *status);

/* --- live_slices.c --- */

typedef struct live_slices live_slices;
CT_MUST_CHECK ct_code live_slices_create(const char *const *features, size_t count, live_slices **out_slices, ct_status *status);
void live_slices_destroy(live_slices *slices); /* NULL is fine */
CT_MUST_CHECK ct_code live_slices_add(live_slices *slices, const live_exposure *exposure, uint32_t unit, const live_shown *shown,
                                      size_t count, ct_status *status);
CT_MUST_CHECK ct_code live_slices_json(live_slices *slices, const online_design *design, const online_table *table, json_t *warnings,
                                       json_t **out_json, ct_status *status);

#endif
