/* The admin port: sockets and paths; libmicrohttpd speaks HTTP. Its one thread runs everything here but start, stop and wait_over, so
 * only what these share is locked. */
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/chart_js.h"
#include "serving/admin_internal.h"
#include "serving/admin_tls.h"
#include "serving/listen.h"
#include "serving/server_internal.h"

enum {
    DEFAULT_MAX_BODY_BYTES = 8 * 1024 * 1024,
    ALL_BODIES_BYTES = 64 * 1024 * 1024, /* of all requests that are being received */
    CONNECTIONS = 128,
    IDLE_SECONDS = 30
};

typedef struct reply {
    unsigned status;
    const char *type;
    const void *data;
    size_t bytes;
    void *owned;              /* freed once it was sent; NULL = `data` stays */
    const char *allow;        /* with 405 */
    const char *authenticate; /* with 401 */
} reply;

/* A request for scores that waits for its turn, or feedback that waits for the disk. */
typedef struct waiting {
    ct_admin *admin;
    struct MHD_Connection *connection; /* suspended */
    ct_arena arena;
    bool done;
    ct_status status;
    ct_admin_call score;
    uint32_t accepted;
} waiting;

typedef struct body {
    char *data;
    size_t bytes, capacity;
    unsigned refused; /* an HTTP status; 0 = fine */
    waiting *waiting; /* NULL = not yet */
} body;

typedef reply (*answer_fn)(ct_admin *admin, const body *from);
/* Sees to it that `wait_over` is called once; on failure it was not. */
typedef ct_code (*begin_fn)(ct_admin *admin, const body *from, ct_status *status);
typedef struct route {
    const char *path, *method;
    answer_fn answer;
    bool needs_token; /* where the server has tokens */
    begin_fn begin;   /* NULL = `answer` at once; else once what was begun has ended */
} route;

static reply answer_page(ct_admin *admin, const body *from);
static reply answer_script(ct_admin *admin, const body *from);
static reply answer_chart(ct_admin *admin, const body *from);
static reply answer_health(ct_admin *admin, const body *from);
static reply answer_ready(ct_admin *admin, const body *from);
static reply answer_metrics(ct_admin *admin, const body *from);
static reply answer_reload(ct_admin *admin, const body *from);
static ct_code begin_score(ct_admin *admin, const body *from, ct_status *status);
static ct_code begin_feedback(ct_admin *admin, const body *from, ct_status *status);
static reply answer_score(ct_admin *admin, const body *from);
static reply answer_feedback(ct_admin *admin, const body *from);

static const route routes[] = {
    {.path = "/", .method = "GET", .answer = answer_page},
    {.path = "/admin.js", .method = "GET", .answer = answer_script},
    {.path = "/chart.js", .method = "GET", .answer = answer_chart},
    {.path = "/healthz", .method = "GET", .answer = answer_health},
    {.path = "/readyz", .method = "GET", .answer = answer_ready},
    {.path = "/metrics", .method = "GET", .answer = answer_metrics},
    {.path = "/v1/score", .method = "POST", .begin = begin_score, .answer = answer_score, .needs_token = true},
    {.path = "/v1/feedback", .method = "POST", .begin = begin_feedback, .answer = answer_feedback, .needs_token = true},
    {.path = "/v1/reload", .method = "POST", .answer = answer_reload, .needs_token = true},
};
enum { ROUTES = sizeof routes / sizeof *routes };

struct ct_admin {
    struct MHD_Daemon *daemon;
    ct_admin_tls *tls; /* NULL = plain HTTP */
    ct_server *server;
    void (*reload)(void *context);
    void *context;
    const char *version;
    size_t max_body_bytes, bodies_bytes;
    int port;
    ct_http_counts counts[ROUTES + 1]; /* the last one: every other path */
    pthread_mutex_t lock;
    pthread_cond_t idle; /* nothing waits any more */
    size_t waiting;      /* under lock: requests that wait; while there are some, libmicrohttpd must not be stopped */
    bool stopping;       /* under lock */
};

/* --- answers --- */

static reply text_reply(unsigned status, const char *text) {
    return (reply){.status = status, .type = "text/plain; charset=utf-8", .data = text, .bytes = strlen(text)};
}

static reply file_reply(const char *type, const unsigned char *data, size_t bytes) {
    return (reply){.status = MHD_HTTP_OK, .type = type, .data = data, .bytes = bytes};
}

/* Takes `json`; NULL is out of memory. One line, for terminals too. A float's nine digits give it back. */
static reply json_reply(unsigned status, json_t *json) {
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!text) return text_reply(MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    const size_t bytes = strlen(text);
    text[bytes] = '\n'; /* in the place of the NUL */
    return (reply){.status = status, .type = "application/json", .data = text, .bytes = bytes + 1, .owned = text};
}

static reply error_reply(unsigned status, const char *code, const char *message) {
    return json_reply(status, json_pack("{s:{s:s, s:s}}", "error", "code", code, "message", message));
}

static reply answer_page(ct_admin *admin, const body *from) {
    (void)admin, (void)from;
    return file_reply("text/html; charset=utf-8", ct_admin_page, ct_admin_page_bytes);
}

static reply answer_script(ct_admin *admin, const body *from) {
    (void)admin, (void)from;
    return file_reply("text/javascript; charset=utf-8", ct_admin_script, ct_admin_script_bytes);
}

static reply answer_chart(ct_admin *admin, const body *from) {
    (void)admin, (void)from;
    return file_reply("text/javascript; charset=utf-8", ct_chart_js, ct_chart_js_bytes);
}

static reply answer_health(ct_admin *admin, const body *from) {
    (void)admin, (void)from;
    return text_reply(MHD_HTTP_OK, "ok\n");
}

static reply answer_ready(ct_admin *admin, const body *from) {
    (void)from;
    return ct_server_is_draining(admin->server) ? text_reply(MHD_HTTP_SERVICE_UNAVAILABLE, "going down\n")
                                                : text_reply(MHD_HTTP_OK, "ready\n");
}

static reply answer_metrics(ct_admin *admin, const body *from) {
    (void)from;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    bool good = out != NULL;
    if (out) {
        ct_metrics_write(out, admin->server, admin->version, admin->counts, ROUTES + 1);
        good = !ferror(out);
        good = fclose(out) == 0 && good;
    }
    if (!good) {
        free(text);
        return text_reply(MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    }
    return (reply){.status = MHD_HTTP_OK, .type = "text/plain; version=0.0.4; charset=utf-8", .data = text, .bytes = bytes, .owned = text};
}

static reply answer_reload(ct_admin *admin, const body *from) {
    (void)from;
    if (!admin->reload) return error_reply(MHD_HTTP_NOT_IMPLEMENTED, "UNIMPLEMENTED", "this server reads nothing again");
    admin->reload(admin->context);
    return json_reply(MHD_HTTP_ACCEPTED, json_pack("{s:b}", "asked", 1));
}

/* As google.rpc.Code says. */
static unsigned http_status(ct_code code) {
    switch (code) {
        case CT_OK:
            return MHD_HTTP_OK;
        case CT_INVALID:
            return MHD_HTTP_BAD_REQUEST;
        case CT_NOT_FOUND:
            return MHD_HTTP_NOT_FOUND;
        case CT_EXHAUSTED:
            return MHD_HTTP_TOO_MANY_REQUESTS;
        case CT_UNSUPPORTED:
            return MHD_HTTP_NOT_IMPLEMENTED;
        case CT_UNAVAILABLE:
            return MHD_HTTP_SERVICE_UNAVAILABLE;
        case CT_DEADLINE:
            return MHD_HTTP_GATEWAY_TIMEOUT;
        default:
            return MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
}

/* --- what takes a while: begun, then answered once it has ended --- */

/* By any thread. */
static void wait_over(void *context, const ct_status *status) {
    waiting *w = context;
    ct_admin *admin = w->admin;
    w->status = *status;
    w->done = true;
    (void)pthread_mutex_lock(&admin->lock);
    MHD_resume_connection(w->connection); /* from now on `w` may be gone */
    if (--admin->waiting == 0) (void)pthread_cond_signal(&admin->idle);
    (void)pthread_mutex_unlock(&admin->lock);
}

/* Suspends the connection until wait_over. False where there is no memory for it. */
static bool begin_waiting(ct_admin *admin, struct MHD_Connection *connection, body *from, begin_fn begin) {
    waiting *w = calloc(1, sizeof *w);
    if (!w) return false;
    w->admin = admin;
    w->connection = connection;
    ct_arena_init(&w->arena, 0);
    from->waiting = w;
    (void)pthread_mutex_lock(&admin->lock);
    const bool stopping = admin->stopping;
    admin->waiting++;
    (void)pthread_mutex_unlock(&admin->lock);
    MHD_suspend_connection(connection);
    ct_status status = CT_STATUS_INIT;
    const ct_code code = stopping ? ct_fail(&status, CT_UNAVAILABLE, "the server is going down") : begin(admin, from, &status);
    if (code != CT_OK) wait_over(w, &status);
    return true;
}

static ct_code begin_score(ct_admin *admin, const body *from, ct_status *status) {
    waiting *w = from->waiting;
    w->score = (ct_admin_call){.arena = &w->arena, .done = wait_over, .context = w};
    return ct_admin_score(admin->server, &w->score, from->data ? from->data : "", from->bytes,
                          MHD_lookup_connection_value(w->connection, MHD_HEADER_KIND, "Grpc-Timeout"), status);
}

static void feedback_done(void *context, const ct_status *status, uint32_t accepted) {
    waiting *w = context;
    w->accepted = accepted;
    wait_over(w, status);
}

static ct_code begin_feedback(ct_admin *admin, const body *from, ct_status *status) {
    waiting *w = from->waiting;
    return ct_admin_feedback(admin->server, &w->arena, from->data ? from->data : "", from->bytes, feedback_done, w, status);
}

static reply error_of(const ct_status *status) {
    return error_reply(http_status(status->code), ct_rpc_code_name(status->code), status->message);
}

static reply out_of_memory(void) { return error_reply(MHD_HTTP_SERVICE_UNAVAILABLE, "UNAVAILABLE", "out of memory; try again later"); }

static reply answer_score(ct_admin *admin, const body *from) {
    (void)admin;
    const waiting *w = from->waiting;
    if (!w) return out_of_memory();
    ct_status status = w->status;
    json_t *answer = NULL;
    if (status.code != CT_OK || ct_admin_scores(&w->score, &answer, &status) != CT_OK) return error_of(&status);
    return json_reply(MHD_HTTP_OK, answer);
}

static reply answer_feedback(ct_admin *admin, const body *from) {
    (void)admin;
    const waiting *w = from->waiting;
    if (!w) return out_of_memory();
    if (w->status.code != CT_OK) return error_of(&w->status);
    return json_reply(MHD_HTTP_OK, json_pack("{s:I}", "accepted", (json_int_t)w->accepted));
}

/* --- HTTP --- */

static void count(ct_admin *admin, size_t path, unsigned status) {
    for (size_t s = 0; s < CT_HTTP_STATUSES; s++)
        if (ct_http_statuses[s] == status) admin->counts[path].by_status[s]++;
}

static enum MHD_Result send_reply(ct_admin *admin, struct MHD_Connection *connection, size_t path, reply r) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer(r.bytes, (void *)(uintptr_t)r.data, r.owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(r.owned);
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r.type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    (void)MHD_add_response_header(response, "Content-Security-Policy",
                                  "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
                                  "frame-ancestors 'none'");
    if (r.allow) (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r.allow);
    if (r.authenticate) (void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, r.authenticate);
    const enum MHD_Result result = MHD_queue_response(connection, r.status, response);
    MHD_destroy_response(response);
    count(admin, path, r.status);
    return result;
}

/* Keeps a piece of a request's body, or notes why not. */
static void receive(ct_admin *admin, body *into, const char *data, size_t bytes) {
    if (into->refused) return;
    if (bytes > admin->max_body_bytes - into->bytes) {
        into->refused = MHD_HTTP_CONTENT_TOO_LARGE;
        return;
    }
    if (into->bytes + bytes > into->capacity) {
        size_t capacity = into->capacity ? 2 * into->capacity : 4096;
        while (capacity < into->bytes + bytes) capacity *= 2;
        char *larger = admin->bodies_bytes + capacity - into->capacity > ALL_BODIES_BYTES ? NULL : realloc(into->data, capacity);
        if (!larger) {
            into->refused = MHD_HTTP_SERVICE_UNAVAILABLE;
            return;
        }
        admin->bodies_bytes += capacity - into->capacity;
        into->data = larger;
        into->capacity = capacity;
    }
    memcpy(into->data + into->bytes, data, bytes);
    into->bytes += bytes;
}

/* libmicrohttpd has made the connection's session with the certificate of the start. */
static void on_connection(void *context, struct MHD_Connection *connection, void **mine, enum MHD_ConnectionNotificationCode what) {
    ct_admin *admin = context;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        *mine = info ? ct_admin_tls_begin(admin->tls, (gnutls_session_t)info->tls_session) : NULL;
    } else if (*mine) {
        ct_admin_tls_end(admin->tls, *mine);
        *mine = NULL;
    }
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request, enum MHD_RequestTerminationCode why) {
    (void)connection, (void)why;
    ct_admin *admin = context;
    body *from = *request;
    if (!from) return;
    admin->bodies_bytes -= from->capacity;
    if (from->waiting) ct_arena_deinit(&from->waiting->arena);
    free(from->waiting);
    free(from->data);
    free(from);
    *request = NULL;
}

static reply refused_body(const ct_admin *admin, unsigned status) {
    char message[96];
    if (status == MHD_HTTP_CONTENT_TOO_LARGE) {
        (void)snprintf(message, sizeof message, "the body is larger than %zu bytes: send fewer candidates", admin->max_body_bytes);
        return error_reply(status, "RESOURCE_EXHAUSTED", message);
    }
    return error_reply(status, "UNAVAILABLE", "too many large requests at once; try again later");
}

/* libmicrohttpd calls this once when a request's head has come, for each piece of its body, and when all has come. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *http_version, const char *data, size_t *bytes, void **request) {
    (void)http_version;
    ct_admin *admin = context;
    body *from = *request;
    if (!from) {
        *request = calloc(1, sizeof *from);
        return *request ? MHD_YES : MHD_NO;
    }
    if (*bytes) {
        receive(admin, from, data, *bytes);
        *bytes = 0;
        return MHD_YES;
    }
    if (from->waiting && !from->waiting->done) return MHD_YES; /* suspended */
    size_t at = 0;
    while (at < ROUTES && strcmp(routes[at].path, path) != 0) at++;
    if (at == ROUTES)
        return send_reply(admin, connection, at,
                          text_reply(MHD_HTTP_NOT_FOUND,
                                     "nothing here; see /, /metrics, /healthz, /readyz, "
                                     "and POST /v1/score, /v1/feedback and /v1/reload\n"));
    const bool get = strcmp(routes[at].method, MHD_HTTP_METHOD_GET) == 0;
    if (strcmp(method, routes[at].method) != 0 && !(get && strcmp(method, MHD_HTTP_METHOD_HEAD) == 0)) {
        reply wrong = text_reply(MHD_HTTP_METHOD_NOT_ALLOWED, get ? "GET only\n" : "POST only\n");
        wrong.allow = get ? "GET, HEAD" : "POST";
        return send_reply(admin, connection, at, wrong);
    }
    const char *authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    if (routes[at].needs_token && !ct_server_allows(admin->server, authorization)) {
        reply unknown = error_reply(MHD_HTTP_UNAUTHORIZED, "UNAUTHENTICATED", "a token is needed: Authorization: Bearer TOKEN");
        unknown.authenticate = "Bearer";
        return send_reply(admin, connection, at, unknown);
    }
    if (from->refused) return send_reply(admin, connection, at, refused_body(admin, from->refused));
    if (routes[at].begin && !from->waiting && begin_waiting(admin, connection, from, routes[at].begin)) return MHD_YES;
    return send_reply(admin, connection, at, routes[at].answer(admin, from));
}

/* --- start and stop --- */

static int bound_port(int fd) {
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0) return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port : ((struct sockaddr_in *)&address)->sin_port);
}

static struct MHD_Daemon *start_daemon(ct_admin *admin, int fd, const char *certificate, const char *key) {
    const struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)certificate},
                                         {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key},
                                         {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)CT_ADMIN_TLS_PRIORITIES},
                                         {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, admin},
                                         {MHD_OPTION_END, 0, NULL}};
    const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    return MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_ALLOW_SUSPEND_RESUME | (admin->tls ? MHD_USE_TLS : 0), 0,
                            NULL, NULL, on_request, admin, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, admin,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                            MHD_OPTION_ARRAY, admin->tls ? tls : none, MHD_OPTION_END);
}

static void admin_free(ct_admin *admin) {
    ct_admin_tls_destroy(admin->tls);
    (void)pthread_cond_destroy(&admin->idle);
    (void)pthread_mutex_destroy(&admin->lock);
    free(admin);
}

ct_code ct_admin_start(const ct_admin_options *options, ct_admin **out_admin, ct_status *status) {
    ct_admin *admin = calloc(1, sizeof *admin);
    if (!admin) return ct_fail_memory(status, sizeof *admin, "the admin port");
    admin->server = options->server;
    admin->version = options->version;
    admin->reload = options->reload;
    admin->context = options->context;
    admin->max_body_bytes = options->max_body_bytes ? options->max_body_bytes : DEFAULT_MAX_BODY_BYTES;
    for (size_t r = 0; r < ROUTES; r++) admin->counts[r].path = routes[r].path;
    admin->counts[ROUTES].path = "other";
    int fd = -1;
    ct_code code = CT_OK;
    if (options->tls_certificate) code = ct_admin_tls_create(options->tls_certificate, options->tls_key, &admin->tls, status);
    if (code == CT_OK) code = ct_listen(options->listen, &fd, status);
    if (code != CT_OK) {
        ct_admin_tls_destroy(admin->tls);
        free(admin);
        return code;
    }
    admin->port = bound_port(fd);
    (void)pthread_mutex_init(&admin->lock, NULL);
    (void)pthread_cond_init(&admin->idle, NULL);
    sigset_t all, before; /* signals are for the program's own threads */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    admin->daemon = start_daemon(admin, fd, options->tls_certificate, options->tls_key);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!admin->daemon) {
        (void)close(fd);
        admin_free(admin);
        return ct_fail(status, CT_UNAVAILABLE, "cannot serve HTTP on %s: libmicrohttpd does not start", options->listen);
    }
    *out_admin = admin;
    return CT_OK;
}

ct_code ct_admin_check_certificate(const char *certificate, const char *key, ct_status *status) {
    ct_admin_tls *tls = NULL;
    CT_TRY(ct_admin_tls_create(certificate, key, &tls, status));
    ct_admin_tls_destroy(tls);
    return CT_OK;
}

ct_code ct_admin_set_certificate(ct_admin *admin, const char *certificate, const char *key, ct_status *status) {
    if (!admin->tls) return ct_fail(status, CT_INVALID, "the admin port began without TLS");
    return ct_admin_tls_set(admin->tls, certificate, key, status);
}

int ct_admin_port(const ct_admin *admin) { return admin->port; }

void ct_admin_stop(ct_admin *admin) {
    if (!admin) return;
    (void)pthread_mutex_lock(&admin->lock);
    admin->stopping = true;
    while (admin->waiting) (void)pthread_cond_wait(&admin->idle, &admin->lock);
    (void)pthread_mutex_unlock(&admin->lock);
    MHD_stop_daemon(admin->daemon);
    admin_free(admin);
}
