/* clicktower serve: model folders behind gRPC until SIGINT or SIGTERM. */
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

ct_code ct_verb_serve(int argc, char **argv, ct_status *status) {
    ct_text_list folders = {0};
    const char *listen = "127.0.0.1:8500";
    int64_t threads = 0;
    const ct_option options[] = {
        {"model", "[NAME=]DIR", CT_OPTION_LIST, true, &folders, "model folders; the first one is the default for requests that name none",
         0, 0, NULL},
        {"listen", "HOST:PORT", CT_OPTION_ADDRESS, false, &listen, "0.0.0.0:PORT = every address; port 0 = any free one", 0, 0, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "0 = all processors", 0, 1024, NULL},
    };
    const ct_command command = {
        "serve",
        "Answers score requests over gRPC until SIGINT or SIGTERM; prints `listening on\nHOST:PORT` once it is ready.",
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
    size_t opened = 0;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    (void)ct_stop_on_signals();

    served = calloc(folders.count, sizeof *served);
    models = calloc(folders.count, sizeof *models);
    if (!served || !models) {
        code = ct_fail_memory(status, folders.count * sizeof *served, "the models");
        goto done;
    }
    CT_TRY_GOTO(code, parse_models(&folders, served, status), done);
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    for (; opened < folders.count; opened++) {
        models[opened].name = served[opened].name;
        CT_TRY_GOTO(code, ct_model_open(served[opened].folder, CT_MODEL_READ, NULL, pool, &models[opened].model, status), done);
    }
    const ct_server_options server_options = {.listen = listen,
                                              .models = models,
                                              .model_count = folders.count,
                                              .threads = (size_t)threads,
                                              .max_candidates = 10000,
                                              .max_message_bytes = 16u << 20};
    CT_TRY_GOTO(code, ct_server_start(&server_options, &server, status), done);

    char quoted[256], address[256];
    (void)snprintf(address, sizeof address, "%.*s:%d", (int)(strrchr(listen, ':') - listen), listen, ct_server_port(server));
    (void)ct_log_quote(address, quoted, sizeof quoted);
    ct_log_line(CT_LOG_INFO, "serve.start", "address=%s models=%zu threads=%zu", quoted, folders.count, ct_pool_threads(pool));
    (void)printf("listening on %s\n", address);
    CT_TRY_GOTO(code, ct_flush_results(status), done);

    const char *signal = ct_stop_wait();
    const int64_t began = ct_clock_ns();
    ct_server_stop(server, GRACE_MS);
    server = NULL;
    ct_log_line(CT_LOG_INFO, "serve.stop", "address=%s signal=%s drain_ms=%lld", quoted, signal,
                (long long)((ct_clock_ns() - began) / 1000000));
done:
    if (server) ct_server_stop(server, 0);
    for (size_t i = 0; i < opened; i++) ct_model_destroy(models[i].model);
    for (size_t i = 0; served && i < folders.count; i++) free(served[i].name);
    free(models);
    free(served);
    ct_pool_destroy(pool);
    ct_text_list_deinit(&folders);
    return code;
}
