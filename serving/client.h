/* A client: rows of a log, as text, to a server; probabilities back, in the order of the rows. What `clicktower score` uses. */
#ifndef SERVING_CLIENT_H
#define SERVING_CLIENT_H

#include <jansson.h>

#include "base/arena.h"
#include "base/status.h"
#include "data/schema.h"
#include "proto/clicktower.pb-c.h"
#include "serving/rpc.h"

typedef struct ct_client ct_client;
/* Does not connect yet. target: HOST:PORT; access: NULL = plain text, no token. */
CT_MUST_CHECK ct_code ct_client_create(const char *target, const ct_rpc_access *access, ct_client **out_client, ct_status *status);
void ct_client_destroy(ct_client *client); /* NULL is fine */

/* The server's models as JSON (caller owns). CT_UNAVAILABLE where nobody answers within timeout_ms. */
CT_MUST_CHECK ct_code ct_client_models(ct_client *client, int64_t timeout_ms, json_t **out_models, ct_status *status);

typedef struct ct_client_rows {
    const char *model; /* NULL = the server's default */
    const ct_schema *schema;
    const char *const *sources; /* text or gzip; block files hold keys, not values: refused by name */
    size_t source_count;
    size_t rows_per_request; /* default 256 */
    bool context_columns;    /* true: consecutive rows whose context fields agree are sent as one request with a context */
    bool context_of_first;   /* true: context fields are sent once, with the values of a request's first row, whatever the others say */
    int64_t timeout_ms;      /* for each request */
    int64_t max_rows;        /* -1 = all */
} ct_client_rows;
/* Called for each request that the rows make, in order; the request is the arena's. CT_END and any failure end the reading, with it. */
typedef ct_code (*ct_client_request_fn)(void *context, const Clicktower__V1__ScoreRequest *request, ct_arena *arena, ct_status *status);
CT_MUST_CHECK ct_code ct_client_requests(const ct_client_rows *rows, ct_client_request_fn take, void *context, int64_t *out_rows,
                                         ct_status *status);
/* Called for each answer, in order. probabilities: (count), of the first output. */
typedef ct_code (*ct_client_answer_fn)(void *context, const float *probabilities, size_t count, ct_status *status);
CT_MUST_CHECK ct_code ct_client_score(ct_client *client, const ct_client_rows *rows, ct_client_answer_fn answer, void *context,
                                      int64_t *out_rows, ct_status *status);

#endif
