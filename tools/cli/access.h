/* Certificates, keys and tokens: files that the command line names. */
#ifndef TOOLS_CLI_ACCESS_H
#define TOOLS_CLI_ACCESS_H

#include "serving/rpc.h"
#include "tools/cli/options.h"

/* What a client's options name. Zeroed = nothing. */
typedef struct ct_access_options {
    const char *tls_ca, *tls_certificate, *tls_key, *token_file;
} ct_access_options;
/* Rows of a client's table of options. */
#define CT_ACCESS_OPTIONS(access)                                                                                                            \
    {"tls-ca", "FILE", CT_OPTION_TEXT, false, &(access).tls_ca, "speak TLS; the server's certificate must be signed by one of these", 0,     \
     0,        NULL},                                                                                                                        \
        {"tls-cert", "FILE", CT_OPTION_TEXT, false, &(access).tls_certificate, "of this client, where the server asks for one", 0, 0, NULL}, \
        {"tls-key", "FILE", CT_OPTION_TEXT, false, &(access).tls_key, "of that certificate", 0, 0, NULL}, {                                  \
        "token-file", "FILE", CT_OPTION_TEXT, false, &(access).token_file, "whose first line the server wants as a bearer token", 0, 0,      \
            NULL                                                                                                                             \
    }

/* The files' contents. */
typedef struct ct_access {
    ct_rpc_access rpc;
    char *texts[3];
    char **tokens;
    size_t token_count;
} ct_access;
CT_MUST_CHECK ct_code ct_access_read(const ct_access_options *options, ct_access *out_access, ct_status *status);
void ct_access_deinit(ct_access *access); /* zeroed is fine */

/* What a server's options name: NULL = none. */
typedef struct ct_access_files {
    const char *certificate, *key, *client_ca, *tokens;
    const char *admin_certificate, *admin_key;
} ct_access_files;
typedef struct ct_access_texts {
    char *certificate, *key, *client_ca;
    char *admin_certificate, *admin_key;
    char **tokens;
    size_t token_count;
} ct_access_texts;
/* CT_USAGE where files that belong together are not. The texts are zeroed, or to be freed in failure, too. */
CT_MUST_CHECK ct_code ct_access_files_read(const ct_access_files *files, ct_access_texts *out_texts, ct_status *status);
/* Could a server begin with these? CT_INVALID names the files and says what is wrong. */
CT_MUST_CHECK ct_code ct_access_texts_check(const ct_access_files *files, const ct_access_texts *texts, ct_status *status);
void ct_access_texts_deinit(ct_access_texts *texts); /* zeroed is fine; wipes what is secret */

/* A PEM file; caller frees. NULL path: NULL. */
CT_MUST_CHECK ct_code ct_read_pem(const char *path, char **out_text, ct_status *status);
/* One token a line; empty lines and those that begin with # do not count. CT_INVALID where there is none. Messages never show one. */
CT_MUST_CHECK ct_code ct_read_tokens(const char *path, char ***out_tokens, size_t *out_count, ct_status *status);
void ct_free_tokens(char **tokens, size_t count); /* NULL is fine; wipes them */

#endif
