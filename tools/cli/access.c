#include "tools/cli/access.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "serving/admin.h"

enum { MAX_FILE_BYTES = 1 << 20 };

ct_code ct_read_pem(const char *path, char **out_text, ct_status *status) {
    size_t bytes = 0;
    if (!path) return CT_OK;
    char *text = NULL;
    CT_TRY(ct_file_read(path, MAX_FILE_BYTES, &text, &bytes, status));
    if (strlen(text) != bytes || !strstr(text, "-----BEGIN ")) {
        free(text);
        return ct_fail(status, CT_INVALID, "%s is no PEM file: it must be a text with a line that begins with -----BEGIN", path);
    }
    *out_text = text;
    return CT_OK;
}

void ct_free_tokens(char **tokens, size_t count) {
    for (size_t i = 0; tokens && i < count; i++) {
        explicit_bzero(tokens[i], strlen(tokens[i]));
        free(tokens[i]);
    }
    free(tokens);
}

static bool has_unprintable(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (text[i] < ' ' || text[i] > '~') return true;
    return false;
}

ct_code ct_read_tokens(const char *path, char ***out_tokens, size_t *out_count, ct_status *status) {
    char *text = NULL;
    size_t bytes = 0, count = 0;
    CT_TRY(ct_file_read(path, MAX_FILE_BYTES, &text, &bytes, status));
    size_t lines = 1;
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    char **tokens = calloc(lines, sizeof *tokens);
    ct_code code = tokens ? CT_OK : ct_fail_memory(status, lines * sizeof *tokens, "tokens");
    if (code == CT_OK && strlen(text) != bytes) /* what is behind it, and of UTF-16 all but a character, would be left out */
        code = ct_fail(status, CT_INVALID, "%s holds a NUL byte: write the tokens as plain ASCII, one a line", path);
    size_t line = 0;
    for (char *at = text, *next = NULL; code == CT_OK && at; at = next) {
        line++;
        next = strchr(at, '\n');
        if (next) *next++ = '\0';
        at += strspn(at, " \t");
        size_t length = strlen(at);
        while (length && strchr(" \t\r", at[length - 1])) length--;
        if (length == 0 || at[0] == '#') continue;
        if (has_unprintable(at, length))
            code = ct_fail(status, CT_INVALID, "%s:%zu: a token of other characters than printable ASCII, which no header can hold", path,
                           line);
        else if (length > CT_RPC_TOKEN_BYTES)
            code = ct_fail(status, CT_INVALID, "%s:%zu: a token of %zu bytes: at most %d", path, line, length, CT_RPC_TOKEN_BYTES);
        else if (count == CT_RPC_MAX_TOKENS)
            code = ct_fail(status, CT_INVALID, "%s:%zu: more than %d tokens", path, line, CT_RPC_MAX_TOKENS);
        else if (!(tokens[count] = strndup(at, length)))
            code = ct_fail_memory(status, length, "a token");
        else
            count++;
    }
    explicit_bzero(text, bytes);
    free(text);
    if (code == CT_OK && count == 0) code = ct_fail(status, CT_INVALID, "%s has no token: write one a line", path);
    if (code != CT_OK) {
        ct_free_tokens(tokens, count);
        return code;
    }
    *out_tokens = tokens;
    *out_count = count;
    return CT_OK;
}

ct_code ct_access_read(const ct_access_options *options, ct_access *out_access, ct_status *status) {
    *out_access = (ct_access){.token_count = 0};
    if ((options->tls_certificate || options->tls_key) && !(options->tls_ca && options->tls_certificate && options->tls_key))
        return ct_fail(status, CT_USAGE, "--tls-cert and --tls-key belong together, and beside --tls-ca");
    const char *const paths[] = {options->tls_ca, options->tls_certificate, options->tls_key};
    ct_code code = CT_OK;
    for (size_t i = 0; i < 3; i++) CT_TRY_GOTO(code, ct_read_pem(paths[i], &out_access->texts[i], status), fail);
    if (options->token_file)
        CT_TRY_GOTO(code, ct_read_tokens(options->token_file, &out_access->tokens, &out_access->token_count, status), fail);
    out_access->rpc = (ct_rpc_access){.tls_ca = out_access->texts[0],
                                      .tls_certificate = out_access->texts[1],
                                      .tls_key = out_access->texts[2],
                                      .token = out_access->tokens ? out_access->tokens[0] : NULL};
    return CT_OK;
fail:
    ct_access_deinit(out_access);
    return code;
}

void ct_access_deinit(ct_access *access) {
    for (size_t i = 0; i < 3; i++) free(access->texts[i]);
    ct_free_tokens(access->tokens, access->token_count);
    *access = (ct_access){.token_count = 0};
}

ct_code ct_access_files_read(const ct_access_files *files, ct_access_texts *out_texts, ct_status *status) {
    *out_texts = (ct_access_texts){.token_count = 0};
    if (!files->certificate != !files->key) return ct_fail(status, CT_USAGE, "--tls-cert and --tls-key belong together: give both");
    if (files->client_ca && !files->certificate) return ct_fail(status, CT_USAGE, "--tls-client-ca needs --tls-cert and --tls-key");
    if (!files->admin_certificate != !files->admin_key)
        return ct_fail(status, CT_USAGE, "--admin-tls-cert and --admin-tls-key belong together: give both");
    CT_TRY(ct_read_pem(files->certificate, &out_texts->certificate, status));
    CT_TRY(ct_read_pem(files->key, &out_texts->key, status));
    CT_TRY(ct_read_pem(files->client_ca, &out_texts->client_ca, status));
    CT_TRY(ct_read_pem(files->admin_certificate, &out_texts->admin_certificate, status));
    CT_TRY(ct_read_pem(files->admin_key, &out_texts->admin_key, status));
    return files->tokens ? ct_read_tokens(files->tokens, &out_texts->tokens, &out_texts->token_count, status) : CT_OK;
}

ct_code ct_access_texts_check(const ct_access_files *files, const ct_access_texts *texts, ct_status *status) {
    if (files->certificate && ct_rpc_check_certificate(texts->certificate, texts->key, texts->client_ca, status) != CT_OK)
        return ct_fail_within(status, "%s, %s%s%s", files->certificate, files->key, files->client_ca ? ", " : "",
                              files->client_ca ? files->client_ca : "");
    if (files->admin_certificate && ct_admin_check_certificate(texts->admin_certificate, texts->admin_key, status) != CT_OK)
        return ct_fail_within(status, "%s, %s", files->admin_certificate, files->admin_key);
    return CT_OK;
}

static void free_secret(char *text) {
    if (text) explicit_bzero(text, strlen(text));
    free(text);
}

void ct_access_texts_deinit(ct_access_texts *texts) {
    free(texts->certificate);
    free_secret(texts->key);
    free(texts->client_ca);
    free(texts->admin_certificate);
    free_secret(texts->admin_key);
    ct_free_tokens(texts->tokens, texts->token_count);
    *texts = (ct_access_texts){.token_count = 0};
}
