/* Who may call: TLS, bearer tokens, and how many calls of one address may be in work at once. */
#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "serving/rpc_internal.h"

/* --- tokens --- */

void token_list_init(token_list *list) {
    *list = (token_list){.count = 0};
    (void)pthread_rwlock_init(&list->lock, NULL);
}

void token_list_deinit(token_list *list) {
    (void)pthread_rwlock_destroy(&list->lock);
    free(list->tokens);
}

static void put_token(uint8_t out[CT_RPC_TOKEN_BYTES + 1], const void *token, size_t bytes) {
    memset(out, 0, CT_RPC_TOKEN_BYTES + 1);
    out[0] = (uint8_t)(bytes - 1);
    memcpy(out + 1, token, bytes);
}

ct_code ct_rpc_server_set_tokens(ct_rpc_server *server, const char *const *tokens, size_t count, ct_status *status) {
    if (count > CT_RPC_MAX_TOKENS) return ct_fail(status, CT_INVALID, "%zu tokens: at most %d", count, CT_RPC_MAX_TOKENS);
    uint8_t(*fresh)[CT_RPC_TOKEN_BYTES + 1] = calloc(count + 1, sizeof *fresh);
    if (!fresh) return ct_fail_memory(status, count * sizeof *fresh, "tokens");
    for (size_t i = 0; i < count; i++) {
        const size_t bytes = strlen(tokens[i]);
        if (bytes == 0 || bytes > CT_RPC_TOKEN_BYTES) {
            free(fresh);
            return ct_fail(status, CT_INVALID, "token %zu has %zu bytes: 1 to %d", i + 1, bytes, CT_RPC_TOKEN_BYTES);
        }
        put_token(fresh[i], tokens[i], bytes);
    }
    (void)pthread_rwlock_wrlock(&server->tokens.lock);
    uint8_t(*before)[CT_RPC_TOKEN_BYTES + 1] = server->tokens.tokens;
    server->tokens.tokens = fresh;
    server->tokens.count = count;
    (void)pthread_rwlock_unlock(&server->tokens.lock);
    free(before);
    return CT_OK;
}

bool token_list_allows(token_list *list, const grpc_metadata_array *metadata) {
    static const char SCHEME[] = "Bearer ";
    enum { SCHEME_BYTES = sizeof SCHEME - 1 };
    uint8_t given[CT_RPC_TOKEN_BYTES + 1] = {0};
    bool found = false;
    for (size_t i = 0; i < metadata->count && !found; i++) {
        if (grpc_slice_str_cmp(metadata->metadata[i].key, "authorization") != 0) continue;
        const uint8_t *value = GRPC_SLICE_START_PTR(metadata->metadata[i].value);
        const size_t bytes = GRPC_SLICE_LENGTH(metadata->metadata[i].value);
        if (bytes <= SCHEME_BYTES || bytes > SCHEME_BYTES + CT_RPC_TOKEN_BYTES || memcmp(value, SCHEME, SCHEME_BYTES) != 0) break;
        put_token(given, value + SCHEME_BYTES, bytes - SCHEME_BYTES);
        found = true;
    }
    (void)pthread_rwlock_rdlock(&list->lock);
    /* Every byte of every token is looked at, whatever was given: the time says nothing about how much of it was right. */
    bool allowed = list->count == 0;
    for (size_t t = 0; t < list->count; t++) {
        volatile uint8_t differs = 0;
        for (size_t b = 0; b < sizeof given; b++) differs = (uint8_t)(differs | (list->tokens[t][b] ^ given[b]));
        allowed |= (differs == 0) & found;
    }
    (void)pthread_rwlock_unlock(&list->lock);
    return allowed;
}

bool ct_rpc_server_allows(ct_rpc_server *server, const char *authorization) {
    grpc_metadata one = {.key = grpc_slice_from_static_string("authorization"),
                         .value = grpc_slice_from_static_string(authorization ? authorization : "")};
    const grpc_metadata_array all = {.count = 1, .capacity = 1, .metadata = &one};
    return token_list_allows(&server->tokens, &all);
}

/* --- peers --- */

enum { PEER_SLOTS = 4096, PEER_BYTES = 64 };

/* Addresses that have calls in work now: few, since each of them has at least one. */
typedef struct peer {
    char address[PEER_BYTES];
    size_t calls;
    struct peer *next;
} peer;

struct peer_table {
    size_t max_calls;
    pthread_mutex_t lock;
    peer *slots[PEER_SLOTS];
};

peer_table *peer_table_create(size_t max_calls) {
    peer_table *table = calloc(1, sizeof *table);
    if (!table) return NULL;
    table->max_calls = max_calls;
    (void)pthread_mutex_init(&table->lock, NULL);
    return table;
}

void peer_table_destroy(peer_table *table) {
    if (!table) return;
    for (size_t i = 0; i < PEER_SLOTS; i++)
        for (peer *at = table->slots[i]; at;) {
            peer *next = at->next;
            free(at);
            at = next;
        }
    (void)pthread_mutex_destroy(&table->lock);
    free(table);
}

/* "ipv4:127.0.0.1:5000" without the port. */
static size_t peer_address(grpc_call *call, char out[PEER_BYTES]) {
    char *text = grpc_call_get_peer(call);
    const char *colon = strrchr(text, ':');
    size_t bytes = colon ? (size_t)(colon - text) : strlen(text);
    if (bytes > PEER_BYTES - 1) bytes = PEER_BYTES - 1;
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    gpr_free(text);
    return bytes;
}

peer *peer_table_enter(peer_table *table, grpc_call *call) {
    char address[PEER_BYTES];
    const size_t bytes = peer_address(call, address), slot = (size_t)ct_hash64(address, bytes, 0) % PEER_SLOTS;
    (void)pthread_mutex_lock(&table->lock);
    peer *found = table->slots[slot];
    while (found && strcmp(found->address, address) != 0) found = found->next;
    if (!found) {
        found = calloc(1, sizeof *found);
        if (found) {
            memcpy(found->address, address, bytes + 1);
            found->next = table->slots[slot];
            table->slots[slot] = found;
        }
    }
    if (found && found->calls >= table->max_calls) found = NULL;
    if (found) found->calls++;
    (void)pthread_mutex_unlock(&table->lock);
    return found;
}

void peer_table_leave(peer_table *table, peer *peer_) {
    (void)pthread_mutex_lock(&table->lock);
    if (--peer_->calls == 0) {
        struct peer **at = &table->slots[(size_t)ct_hash64(peer_->address, strlen(peer_->address), 0) % PEER_SLOTS];
        while (*at != peer_) at = &(*at)->next;
        *at = peer_->next;
        free(peer_);
    }
    (void)pthread_mutex_unlock(&table->lock);
}

/* --- TLS --- */

typedef struct tls_texts {
    char *certificate, *key, *client_ca; /* client_ca: NULL = clients need no certificate */
} tls_texts;

/* What new connections are shown. gRPC asks at each handshake, in any thread, and keeps what it has while `fresh` is false. */
struct tls_source {
    pthread_mutex_t lock;
    tls_texts texts;
    bool fresh;
};

static void texts_deinit(tls_texts *texts) {
    free(texts->certificate);
    if (texts->key) explicit_bzero(texts->key, strlen(texts->key));
    free(texts->key);
    free(texts->client_ca);
    *texts = (tls_texts){NULL, NULL, NULL};
}

static ct_code texts_copy(const char *certificate, const char *key, const char *client_ca, tls_texts *out, ct_status *status) {
    *out = (tls_texts){strdup(certificate), strdup(key), client_ca ? strdup(client_ca) : NULL};
    if (out->certificate && out->key && (out->client_ca || !client_ca)) return CT_OK;
    texts_deinit(out);
    return ct_fail_memory(status, strlen(certificate), "a certificate");
}

static grpc_ssl_certificate_config_reload_status fetch_config(void *context, grpc_ssl_server_certificate_config **out_config) {
    tls_source *source = context;
    (void)pthread_mutex_lock(&source->lock);
    const bool fresh = source->fresh;
    if (fresh) {
        const grpc_ssl_pem_key_cert_pair pair = {.private_key = source->texts.key, .cert_chain = source->texts.certificate};
        /* gRPC 1.51 aborts where there is no root here, though it verifies nobody: the certificate itself is one that serves. */
        const char *const root = source->texts.client_ca ? source->texts.client_ca : source->texts.certificate;
        *out_config = grpc_ssl_server_certificate_config_create(root, &pair, 1);
        source->fresh = false;
    }
    (void)pthread_mutex_unlock(&source->lock);
    return fresh ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
}

static grpc_ssl_client_certificate_request_type client_request(const char *client_ca) {
    return client_ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
}

/* gRPC says what it thinks of a certificate only to a server that would listen with it, and only yes or no. */
static ct_code check_certificate(const tls_texts *texts, ct_status *status) {
    grpc_ssl_pem_key_cert_pair pair = {.private_key = texts->key, .cert_chain = texts->certificate};
    grpc_server_credentials *credentials =
        grpc_ssl_server_credentials_create_ex(texts->client_ca, &pair, 1, client_request(texts->client_ca), NULL);
    grpc_server *server = grpc_server_create(NULL, NULL);
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server, queue, NULL);
    const bool good = credentials && grpc_server_add_http2_port(server, "127.0.0.1:0", credentials) > 0;
    grpc_server_shutdown_and_notify(server, queue, NULL);
    (void)grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_completion_queue_shutdown(queue);
    (void)grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_server_destroy(server);
    grpc_completion_queue_destroy(queue);
    grpc_server_credentials_release(credentials);
    return good ? CT_OK
                : ct_fail(status, CT_INVALID,
                          "the TLS certificate, key or client CA is no PEM text, or the key does not belong to the certificate");
}

ct_code ct_rpc_check_certificate(const char *certificate, const char *key, const char *client_ca, ct_status *status) {
    tls_texts texts;
    CT_TRY(texts_copy(certificate, key, client_ca, &texts, status));
    ct_rpc_start_grpc();
    const ct_code code = check_certificate(&texts, status);
    grpc_shutdown();
    texts_deinit(&texts);
    return code;
}

tls_source *tls_source_create(void) {
    tls_source *source = calloc(1, sizeof *source);
    if (source) (void)pthread_mutex_init(&source->lock, NULL);
    return source;
}

void tls_source_destroy(tls_source *source) {
    if (!source) return;
    texts_deinit(&source->texts);
    (void)pthread_mutex_destroy(&source->lock);
    free(source);
}

ct_code tls_source_set(tls_source *source, const char *certificate, const char *key, const char *client_ca, ct_status *status) {
    tls_texts texts;
    CT_TRY(texts_copy(certificate, key, client_ca, &texts, status));
    const ct_code code = check_certificate(&texts, status);
    if (code == CT_OK) {
        (void)pthread_mutex_lock(&source->lock);
        const tls_texts before = source->texts;
        source->texts = texts;
        source->fresh = true;
        texts = before;
        (void)pthread_mutex_unlock(&source->lock);
    }
    texts_deinit(&texts);
    return code;
}

grpc_server_credentials *tls_source_credentials(tls_source *source) {
    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(client_request(source->texts.client_ca), fetch_config, source));
}

ct_code ct_rpc_server_set_certificate(ct_rpc_server *server, const char *certificate, const char *key, const char *client_ca,
                                      ct_status *status) {
    if (!server->tls || !client_ca != !server->tls->texts.client_ca)
        return ct_fail(status, CT_INVALID, "TLS, and whether clients need certificates, can't be changed while the server runs");
    return tls_source_set(server->tls, certificate, key, client_ca, status);
}
