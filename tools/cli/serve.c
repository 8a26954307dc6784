/* clicktower serve: model folders behind gRPC until SIGINT or SIGTERM; SIGHUP reads the folders again. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "serving/server.h"
#include "tools/cli/cli.h"

enum { GRACE_MS = 10000 };

typedef struct served_model {
    char *name;
    const char *folder;
} served_model;

/* "[NAME=]DIR"; without a name it is the folder's last part. */
static ct_code parse_model(const char *text, served_model *out_model, ct_status *status) {
    const char *equals = strchr(text, '='), *slash = strchr(text, '/');
    if (equals && (!slash || equals < slash)) {
        if (equals == text || !equals[1]) return ct_fail(status, CT_USAGE, "--model is '%s': give NAME=DIR or DIR", text);
        out_model->folder = equals + 1;
        out_model->name = strndup(text, (size_t)(equals - text));
    } else {
        size_t end = strlen(text);
        while (end > 1 && text[end - 1] == '/') end--;
        size_t begin = end;
        while (begin > 0 && text[begin - 1] != '/') begin--;
        out_model->folder = text;
        out_model->name = strndup(text + begin, end - begin);
    }
    return out_model->name ? CT_OK : ct_fail_memory(status, strlen(text), "the name of a model");
}

static ct_code parse_models(const ct_text_list *texts, served_model *models, ct_status *status) {
    for (size_t i = 0; i < texts->count; i++) {
        CT_TRY(parse_model(texts->items[i], &models[i], status));
        for (size_t j = 0; j < i; j++)
            if (strcmp(models[i].name, models[j].name) == 0)
                return ct_fail(status, CT_USAGE, "two models are called '%s': name them, as --model a=%s b=%s", models[i].name,
                               models[j].folder, models[i].folder);
    }
    return CT_OK;
}

/* --- reading the folders again --- */

/* A thread waits for SIGHUP. It reads every folder anew beside what is served, and hands all of them over at once, or none: then what was
 * served goes on being served. */
typedef struct reloader {
    pthread_t thread;
    bool started;
    atomic_bool stop;
    ct_server *server;
    ct_pool *pool;
    const served_model *served;
    ct_server_model *models; /* (count); only this thread's while it runs */
    size_t count;
    uint64_t memory_bytes; /* of each */
} reloader;

static void close_models(ct_server_model *models, size_t count) {
    for (size_t i = 0; i < count; i++) ct_model_destroy(models[i].model);
}

static ct_code open_models(const served_model *served, size_t count, uint64_t memory_bytes, ct_pool *pool, ct_server_model *models,
                           ct_status *status) {
    for (size_t i = 0; i < count; i++) {
        models[i].name = served[i].name;
        const ct_code code =
            ct_model_open_within(served[i].folder, CT_MODEL_READ, memory_bytes, NULL, NULL, pool, &models[i].model, status);
        if (code != CT_OK) {
            close_models(models, i);
            return code;
        }
    }
    return CT_OK;
}

static void log_version(const char *event, const ct_server_model *model) {
    char version[CT_DIGEST_HEX_BYTES], quoted[256];
    ct_status ignored = CT_STATUS_INIT;
    if (ct_model_digest(model->model, version, &ignored) != CT_OK) return;
    ct_log_line(CT_LOG_INFO, event, "model=%s version=%s rows=%lld", ct_log_quote(model->name, quoted, sizeof quoted), version,
                (long long)ct_model_rows(model->model));
}

static void reload(reloader *r) {
    ct_status status = CT_STATUS_INIT;
    char quoted[2 * CT_STATUS_MESSAGE_BYTES];
    const int64_t began = ct_clock_ns();
    ct_server_model *fresh = calloc(r->count, sizeof *fresh);
    ct_code code = fresh ? open_models(r->served, r->count, r->memory_bytes, r->pool, fresh, &status)
                         : ct_fail_memory(&status, r->count, "the models");
    if (code == CT_OK) {
        code = ct_server_replace(r->server, fresh, r->count, &status);
        ct_server_model *unused = code == CT_OK ? r->models : fresh;
        close_models(unused, r->count);
        if (code == CT_OK) memcpy(r->models, fresh, r->count * sizeof *fresh);
    }
    free(fresh);
    if (code != CT_OK) {
        ct_server_count_refused_swap(r->server);
        ct_log_line(CT_LOG_ERROR, "serve.reload", "result=refused reason=%s", ct_log_quote(status.message, quoted, sizeof quoted));
        return;
    }
    ct_log_line(CT_LOG_INFO, "serve.reload", "result=done models=%zu ms=%lld", r->count, (long long)((ct_clock_ns() - began) / 1000000));
    for (size_t i = 0; i < r->count; i++) log_version("serve.model", &r->models[i]);
}

static void *reload_main(void *argument) {
    reloader *r = argument;
    sigset_t hangup;
    (void)sigemptyset(&hangup);
    (void)sigaddset(&hangup, SIGHUP);
    for (;;) {
        int signal = 0;
        if (sigwait(&hangup, &signal) != 0) continue;
        if (atomic_load(&r->stop)) return NULL;
        reload(r);
    }
}

/* Before any thread is made: then none of them takes it. */
static void block_hangup(void) {
    sigset_t hangup;
    (void)sigemptyset(&hangup);
    (void)sigaddset(&hangup, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &hangup, NULL);
}

static void reloader_stop(reloader *r) {
    if (!r->started) return;
    atomic_store(&r->stop, true);
    (void)pthread_kill(r->thread, SIGHUP);
    (void)pthread_join(r->thread, NULL);
    r->started = false;
}

ct_code ct_verb_serve(int argc, char **argv, ct_status *status) {
    ct_text_list folders = {0};
    const char *listen = "127.0.0.1:8500";
    int64_t threads = 0, queue = 256, queue_ms = 50, memory = 0;
    const ct_option options[] = {
        {"model", "[NAME=]DIR", CT_OPTION_LIST, true, &folders, "model folders; the first one is the default for requests that name none",
         0, 0, NULL},
        {"listen", "HOST:PORT", CT_OPTION_ADDRESS, false, &listen, "0.0.0.0:PORT = every address; port 0 = any free one", 0, 0, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "that score at once; 0 = one for each processor", 0, 1024, NULL},
        {"memory", "MIB", CT_OPTION_INTEGER, false, &memory,
         "of the embedding rows of each model, at most: the rows that were counted most are kept in memory, the others read from DIR when "
         "they are asked for; 0 = "
         "all are in memory",
         0, 1 << 30, NULL},
        {"queue", "N", CT_OPTION_INTEGER, false, &queue, "requests that may wait for a thread; one beyond is refused at once", 1, 65536,
         NULL},
        {"queue-ms", "N", CT_OPTION_INTEGER, false, &queue_ms,
         "how long a request may wait before it is refused; from half of it on, the newest is served first", 1, 600000, NULL},
    };
    const ct_command command = {"serve",
                                "Answers score requests over gRPC until SIGINT or SIGTERM; prints `listening on\nHOST:PORT` once it is "
                                "ready. SIGHUP reads the model "
                                "folders again and serves what\nthey hold now, unless one of them is broken.",
                                "  clicktower serve --model model\n"
                                "  clicktower serve --model a=model-a b=model-b --listen 0.0.0.0:8500",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    served_model *served = NULL;
    ct_server_model *models = NULL;
    ct_pool *pool = NULL;
    ct_server *server = NULL;
    bool opened = false;
    reloader reloading = {0};
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    block_hangup();
    (void)ct_stop_on_signals();

    served = calloc(folders.count, sizeof *served);
    models = calloc(folders.count, sizeof *models);
    if (!served || !models) {
        code = ct_fail_memory(status, folders.count * sizeof *served, "the models");
        goto done;
    }
    CT_TRY_GOTO(code, parse_models(&folders, served, status), done);
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    CT_TRY_GOTO(code, open_models(served, folders.count, (uint64_t)memory << 20, pool, models, status), done);
    opened = true;
    const ct_server_options server_options = {.listen = listen,
                                              .models = models,
                                              .model_count = folders.count,
                                              .threads = (size_t)threads,
                                              .queue_calls = (size_t)queue,
                                              .queue_ms = queue_ms,
                                              .max_candidates = 10000,
                                              .max_message_bytes = 16u << 20};
    CT_TRY_GOTO(code, ct_server_start(&server_options, &server, status), done);

    char quoted[256], address[256];
    (void)snprintf(address, sizeof address, "%.*s:%d", (int)(strrchr(listen, ':') - listen), listen, ct_server_port(server));
    (void)ct_log_quote(address, quoted, sizeof quoted);
    ct_log_line(CT_LOG_INFO, "serve.start", "address=%s models=%zu threads=%zu", quoted, folders.count, ct_pool_threads(pool));
    for (size_t i = 0; i < folders.count; i++) log_version("serve.model", &models[i]);
    reloading = (reloader){
        .server = server, .pool = pool, .served = served, .models = models, .count = folders.count, .memory_bytes = (uint64_t)memory << 20};
    if (pthread_create(&reloading.thread, NULL, reload_main, &reloading) != 0) {
        code = ct_fail(status, CT_EXHAUSTED, "cannot start a thread");
        goto done;
    }
    reloading.started = true;
    (void)printf("listening on %s\n", address);
    CT_TRY_GOTO(code, ct_flush_results(status), done);

    const char *signal = ct_stop_wait();
    const int64_t began = ct_clock_ns();
    reloader_stop(&reloading);
    ct_server_stop(server, GRACE_MS);
    server = NULL;
    ct_log_line(CT_LOG_INFO, "serve.stop", "address=%s signal=%s drain_ms=%lld", quoted, signal,
                (long long)((ct_clock_ns() - began) / 1000000));
done:
    reloader_stop(&reloading);
    if (server) ct_server_stop(server, 0);
    if (opened) close_models(models, folders.count);
    for (size_t i = 0; served && i < folders.count; i++) free(served[i].name);
    free(models);
    free(served);
    ct_pool_destroy(pool);
    ct_text_list_deinit(&folders);
    return code;
}
