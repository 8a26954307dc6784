/* The admin port's certificate: GnuTLS, whose sessions libmicrohttpd makes. A connection keeps the certificate that it began with; one that
 * comes later is shown the newest. */
#ifndef SERVING_ADMIN_TLS_H
#define SERVING_ADMIN_TLS_H

#include <gnutls/gnutls.h>

#include "base/status.h"

/* What libmicrohttpd is to offer: TLS 1.2 and 1.3. */
#define CT_ADMIN_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

typedef struct ct_admin_tls ct_admin_tls;
/* PEM texts: the certificate with its chain, and its key. CT_INVALID says what is wrong with them. */
CT_MUST_CHECK ct_code ct_admin_tls_create(const char *certificate, const char *key, ct_admin_tls **out_tls, ct_status *status);
/* After the last connection has ended; NULL is fine. */
void ct_admin_tls_destroy(ct_admin_tls *tls);
/* For connections from now on. CT_INVALID: nothing has changed. By any thread. */
CT_MUST_CHECK ct_code ct_admin_tls_set(ct_admin_tls *tls, const char *certificate, const char *key, ct_status *status);

/* A connection begins, before its handshake: its session is shown the newest certificate. What is returned stays until `end`; NULL =
 * GnuTLS would not take it, and there is nothing to end. */
typedef struct ct_admin_certificate ct_admin_certificate;
ct_admin_certificate *ct_admin_tls_begin(ct_admin_tls *tls, gnutls_session_t session);
/* The connection has ended, its session is gone or will not be used again. */
void ct_admin_tls_end(ct_admin_tls *tls, ct_admin_certificate *certificate);

#endif
