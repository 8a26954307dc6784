/* Load: drives a server with requests that were made beforehand, and measures. What `clicktower load` uses.
 *
 * Closed loop (concurrency): so many calls are always in flight; a slow server slows the client down. Open loop (rate): calls are due at
 * fixed times, whatever the server does. Their latency counts from when they were due, so a stall of the server, or of this client, is
 * counted for every call that it delayed ("coordinated omission" does not hide it); so does their deadline. Where 1,000 calls or more are
 * due in a second the client wakes once a millisecond, starts what is due and takes what has come: so a latency is up to 1 ms too long,
 * never too short, and a client that shares the server's processors interrupts it less. */
#ifndef SERVING_LOAD_H
#define SERVING_LOAD_H

#include "base/status.h"
#include "serving/histogram.h"
#include "serving/rpc.h"

typedef struct ct_load_request {
    const uint8_t *bytes; /* a packed ScoreRequest */
    size_t count;         /* of bytes */
} ct_load_request;

typedef struct ct_load_options {
    const char *target;          /* HOST:PORT */
    const ct_rpc_access *access; /* NULL = plain text, no token */
    const ct_load_request *requests;
    size_t request_count; /* taken in turn */
    double seconds, warmup_seconds;
    size_t concurrency; /* closed loop; 0 = open loop */
    double rate;        /* open loop: calls a second */
    int64_t deadline_ms;
    size_t connections;
} ct_load_options;

enum { CT_LOAD_CODES = CT_INTERNAL + 1 };

/* Of the calls that were due within `seconds` after the warm-up. */
typedef struct ct_load_result {
    double seconds;
    uint64_t started;
    uint64_t ended[CT_LOAD_CODES];
    uint64_t in_time;        /* answered within the deadline */
    ct_histogram answered;   /* latency of those that were answered */
    ct_histogram refused;    /* of those that were not */
    char first_failure[200]; /* what the server said the first time; "" = nothing failed */
} ct_load_result;

/* CT_UNAVAILABLE where the first call finds nobody. */
CT_MUST_CHECK ct_code ct_load_run(const ct_load_options *options, ct_load_result *out_result, ct_status *status);

#endif
