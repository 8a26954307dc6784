/* Admin: an HTTP port beside gRPC, for people and for what watches over a server (libmicrohttpd).
 *
 *     GET  /            a page that shows the server's figures, live
 *     GET  /healthz     200 while the process answers
 *     GET  /readyz      200 while it serves, 503 while it goes down
 *     GET  /metrics     the figures as Prometheus' text (serving/metrics.h)
 *     POST /v1/score    a ScoreRequest as JSON, a ScoreResponse as JSON (docs/api.md)
 *     POST /v1/feedback a FeedbackRequest as JSON, a FeedbackResponse as JSON once its events are on disk
 *     POST /v1/reload   reads again what SIGHUP does; 202 at once, what comes of it stands in the log and in /metrics
 *
 * One thread does all of it, but scores: requests for those wait in gRPC's queue and are computed by its threads, with its limits. It is
 * for people and scripts all the same: JSON takes longer to read than a model to compute. Where the server has tokens, the three POSTs need
 * one, as gRPC does; the rest asks nobody who they are, with TLS or without, so it belongs on the loopback or where only those can reach it
 * that may see it. */
#ifndef SERVING_ADMIN_H
#define SERVING_ADMIN_H

#include "serving/server.h"

typedef struct ct_admin_options {
    const char *listen;            /* HOST:PORT; port 0 = any free one; [::1]:PORT for IPv6 */
    ct_server *server;             /* must outlive the admin */
    const char *version;           /* of the program; must outlive the admin */
    size_t max_body_bytes;         /* default 8 MiB. Beyond: 413 */
    void (*reload)(void *context); /* asks for it and returns; by the admin's thread. NULL = not here */
    void *context;
    /* PEM texts, must outlive the admin; NULL certificate = plain HTTP. */
    const char *tls_certificate, *tls_key;
} ct_admin_options;

typedef struct ct_admin ct_admin;
/* Answers when it returns. A port in use: CT_UNAVAILABLE naming the address. A certificate that can't be used: CT_INVALID. */
CT_MUST_CHECK ct_code ct_admin_start(const ct_admin_options *options, ct_admin **out_admin, ct_status *status);
/* Could ct_admin_start use these? CT_INVALID says what is wrong with them. */
CT_MUST_CHECK ct_code ct_admin_check_certificate(const char *certificate, const char *key, ct_status *status);
/* New connections are shown this certificate from now on; those that are there stay. PEM texts, copied. Only where it began with one.
 * CT_INVALID, and nothing changed, where they can't be used. */
CT_MUST_CHECK ct_code ct_admin_set_certificate(ct_admin *admin, const char *certificate, const char *key, ct_status *status);
int ct_admin_port(const ct_admin *admin);
/* Ends what is being answered, closes all connections; NULL is fine. */
void ct_admin_stop(ct_admin *admin);

#endif
