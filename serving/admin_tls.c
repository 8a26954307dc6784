#include "serving/admin_tls.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct ct_admin_certificate {
    gnutls_certificate_credentials_t credentials;
    size_t users; /* under the lock: connections, and one while it is the newest */
};

struct ct_admin_tls {
    pthread_mutex_t lock;
    ct_admin_certificate *newest; /* under the lock */
};

static ct_code read_pair(const char *certificate, const char *key, ct_admin_certificate **out, ct_status *status) {
    ct_admin_certificate *fresh = calloc(1, sizeof *fresh);
    if (!fresh || gnutls_certificate_allocate_credentials(&fresh->credentials) != GNUTLS_E_SUCCESS) {
        free(fresh);
        return ct_fail_memory(status, sizeof *fresh, "a certificate");
    }
    const gnutls_datum_t pair[] = {{(unsigned char *)(uintptr_t)certificate, (unsigned)strlen(certificate)},
                                   {(unsigned char *)(uintptr_t)key, (unsigned)strlen(key)}};
    const int result = gnutls_certificate_set_x509_key_mem(fresh->credentials, &pair[0], &pair[1], GNUTLS_X509_FMT_PEM);
    if (result < 0) {
        gnutls_certificate_free_credentials(fresh->credentials);
        free(fresh);
        return ct_fail(status, CT_INVALID, "the admin port's TLS certificate and key can't be used: %s", gnutls_strerror(result));
    }
    fresh->users = 1;
    *out = fresh;
    return CT_OK;
}

/* Under the lock. */
static void leave(ct_admin_certificate *certificate) {
    if (--certificate->users) return;
    gnutls_certificate_free_credentials(certificate->credentials);
    free(certificate);
}

ct_code ct_admin_tls_create(const char *certificate, const char *key, ct_admin_tls **out_tls, ct_status *status) {
    ct_admin_tls *tls = calloc(1, sizeof *tls);
    if (!tls) return ct_fail_memory(status, sizeof *tls, "a certificate");
    const ct_code code = read_pair(certificate, key, &tls->newest, status);
    if (code != CT_OK) {
        free(tls);
        return code;
    }
    (void)pthread_mutex_init(&tls->lock, NULL);
    *out_tls = tls;
    return CT_OK;
}

void ct_admin_tls_destroy(ct_admin_tls *tls) {
    if (!tls) return;
    leave(tls->newest);
    (void)pthread_mutex_destroy(&tls->lock);
    free(tls);
}

ct_code ct_admin_tls_set(ct_admin_tls *tls, const char *certificate, const char *key, ct_status *status) {
    ct_admin_certificate *fresh = NULL;
    CT_TRY(read_pair(certificate, key, &fresh, status));
    (void)pthread_mutex_lock(&tls->lock);
    leave(tls->newest);
    tls->newest = fresh;
    (void)pthread_mutex_unlock(&tls->lock);
    return CT_OK;
}

ct_admin_certificate *ct_admin_tls_begin(ct_admin_tls *tls, gnutls_session_t session) {
    (void)pthread_mutex_lock(&tls->lock);
    ct_admin_certificate *newest = tls->newest;
    newest->users++;
    (void)pthread_mutex_unlock(&tls->lock);
    if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, newest->credentials) == GNUTLS_E_SUCCESS) return newest;
    ct_admin_tls_end(tls, newest);
    return NULL;
}

void ct_admin_tls_end(ct_admin_tls *tls, ct_admin_certificate *certificate) {
    (void)pthread_mutex_lock(&tls->lock);
    leave(certificate);
    (void)pthread_mutex_unlock(&tls->lock);
}
