/* clicktower serve: model folders behind gRPC until SIGINT or SIGTERM; SIGHUP reads the folders again. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "serving/admin.h"
#include "serving/listen.h"
#include "tools/cli/access.h"
#include "tools/cli/cli.h"
#include "tools/cli/served.h"

/* Each connection is a file: as many as the system lets us have. */
static void allow_many_files(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* When nothing is scored any more. Both are closed in any case; the status is the first failure. */
static ct_code close_logs(ct_exposures **exposures, ct_feedback **feedback, ct_status *status) {
    ct_exposures_stats written = {0};
    ct_status other = CT_STATUS_INIT;
    const bool had_exposures = *exposures != NULL;
    const ct_code code = ct_exposures_close(*exposures, &written, status);
    const ct_code feedback_code = ct_feedback_close(*feedback, code == CT_OK ? status : &other);
    *exposures = NULL;
    *feedback = NULL;
    if (had_exposures)
        ct_log_line(CT_LOG_INFO, "serve.exposures", "result=closed written=%llu dropped=%llu", (unsigned long long)written.written,
                    (unsigned long long)(written.dropped_full + written.dropped_unwritable));
    return code != CT_OK ? code : feedback_code;
}

/* A name for this process's scratch, malloc'd. What dead ones left there is removed. */
static ct_code scratch_folder(const char *asked, char **out_path, ct_status *status) {
    const char *folder = asked ? asked : getenv("TMPDIR");
    char *path = ct_path_join(folder && folder[0] ? folder : "/var/tmp", "clicktower-serve");
    if (!path) return ct_fail_memory(status, 64, "a path");
    ct_code code = ct_folder_scratch(path, out_path, status);
    if (code != CT_OK) code = ct_fail_within(status, "scratch for what deltas change (give --scratch DIR)");
    free(path);
    return code;
}

/* What the thread of ct_served waits for: all others have blocked it. */
static void hang_up(void *context) {
    (void)context;
    (void)kill(getpid(), SIGHUP);
}

static void print_address(char *out, size_t bytes, const char *asked, int port) {
    (void)snprintf(out, bytes, "%.*s:%d", (int)(strrchr(asked, ':') - asked), asked, port);
}

/* Loading models may take minutes: what would stop the server behind that, whatever they hold, is said before. */
static ct_code check_before_loading(const char *listen, const char *admin_listen, const ct_access_files *files,
                                    const ct_access_texts *texts, ct_status *status) {
    const char *const addresses[] = {listen, admin_listen};
    CT_TRY(ct_access_texts_check(files, texts, status));
    if (admin_listen && strcmp(listen, admin_listen) == 0 && strcmp(strrchr(listen, ':'), ":0") != 0)
        return ct_fail(status, CT_USAGE, "--listen and --admin are both %s: give one of them another port", listen);
    return ct_listen_check(addresses, admin_listen ? 2 : 1, status);
}

ct_code ct_verb_serve(int argc, char **argv, ct_status *status) {
    ct_text_list folders = {0}, follows = {0};
    const char *listen = "127.0.0.1:8500", *admin_listen = NULL;
    int64_t threads = 0, queue = 256, queue_ms = 2000, max_candidates = 10000, max_message_mib = 16, max_calls_of_peer = 0, memory = 0;
    double grace = 10, look = 1, max_age = 0;
    bool log_requests = false, early = false;
    const char *scratch = NULL, *experiment = NULL, *exposures_folder = NULL, *feedback_folder = NULL;
    double exposure_sample = 1, rotate_seconds = 300;
    int64_t exposure_buffer = 64, rotate_mib = 64;
    ct_access_files files = {0};
    const ct_option options[] = {
        {"model", "[NAME=]DIR", CT_OPTION_LIST, false, &folders,
         "model folders, or folders of numbered ones, of which the highest that is complete is served, now and whenever there is a higher "
         "one; the first is the default for requests that name none",
         0, 0, NULL},
        {"follow", "[NAME=]DIR", CT_OPTION_LIST, false, &follows,
         "publish folders of `train --publish DIR`: each delta there is applied between requests, to the --model of that name (or the only "
         "one), whose folder is the base; without such a model it begins with the newest base in DIR",
         0, 0, NULL},
        {"listen", "HOST:PORT", CT_OPTION_ADDRESS, false, &listen, "0.0.0.0:PORT = every address; port 0 = any free one", 0, 0, NULL},
        {"admin", "HOST:PORT", CT_OPTION_ADDRESS, false, &admin_listen,
         "HTTP for people and monitoring: a page, /metrics, /healthz, /readyz, and POST /v1/score, /v1/feedback and /v1/reload (which "
         "need a token where gRPC does); keep it on 127.0.0.1 or where only monitoring reaches it; none by default",
         0, 0, NULL},
        {"experiment", "FILE", CT_OPTION_TEXT, false, &experiment,
         "assigns units to arms (docs/ab.md); an arm's model is the --model of that name; read again on SIGHUP", 0, 0, NULL},
        {"exposures", "DIR", CT_OPTION_TEXT, false, &exposures_folder,
         "log each scored request there, as lines of JSON (docs/file-formats.md); what can't be written is dropped and counted", 0, 0,
         NULL},
        {"exposure-sample", "P", CT_OPTION_NUMBER, false, &exposure_sample, "share of the requests that is logged, above 0", 1e-9, 1, NULL},
        {"exposure-buffer", "MIB", CT_OPTION_INTEGER, false, &exposure_buffer, "of requests that wait to be written", 1, 65536, NULL},
        {"feedback", "DIR", CT_OPTION_TEXT, false, &feedback_folder,
         "take feedback, over gRPC and by POST /v1/feedback, and write it there; it is acknowledged once it is on disk", 0, 0, NULL},
        {"rotate-mib", "N", CT_OPTION_INTEGER, false, &rotate_mib, "of a file of exposures or feedback, then the next one is begun", 1,
         1 << 20, NULL},
        {"rotate-seconds", "N", CT_OPTION_NUMBER, false, &rotate_seconds, "or once it is that old", 0.05, 31536000, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "that score at once; 0 = one for each processor", 0, 1024, NULL},
        {"memory", "MIB", CT_OPTION_INTEGER, false, &memory,
         "of the embedding rows of each model, at most: the rows that were counted most are kept in memory, the others read from DIR when "
         "they are asked for; 0 = all are in memory",
         0, 1 << 30, NULL},
        {"scratch", "DIR", CT_OPTION_TEXT, false, &scratch,
         "with --memory and --follow: for changed rows that find no room in memory; a folder is made there when it is needed, and removed "
         "at the end; by default in $TMPDIR, or else in /var/tmp",
         0, 0, NULL},
        {"answer-early", NULL, CT_OPTION_FLAG, false, &early,
         "answer with rows read from DIR while the models are still checked and read into memory; meanwhile answers take longer, and a "
         "folder that turns out to be damaged ends the server; not with --follow",
         0, 0, NULL},
        {"queue", "N", CT_OPTION_INTEGER, false, &queue, "requests that may wait for a thread; one beyond is refused at once", 1, 65536,
         NULL},
        {"queue-ms", "N", CT_OPTION_INTEGER, false, &queue_ms,
         "how long a request may wait at most, whatever its deadline; whoever would wait longer is refused at once", 1, 600000, NULL},
        {"look-seconds", "N", CT_OPTION_NUMBER, false, &look, "how often folders of numbered ones, and of deltas, are looked at", 0.05,
         86400, NULL},
        {"grace", "SECONDS", CT_OPTION_NUMBER, false, &grace, "after SIGTERM: for what was accepted", 0, 86400, NULL},
        {"max-candidates", "N", CT_OPTION_INTEGER, false, &max_candidates, "of a request", 1, 1000000, NULL},
        {"max-message", "MIB", CT_OPTION_INTEGER, false, &max_message_mib, "of a request", 1, 1024, NULL},
        {"max-calls-per-peer", "N", CT_OPTION_INTEGER, false, &max_calls_of_peer, "of one address, waiting or in work; 0 = any number", 0,
         1000000, NULL},
        {"max-connection-age", "SECONDS", CT_OPTION_NUMBER, false, &max_age,
         "then a client is asked to connect anew, so that balancers can spread them; 0 = for ever", 0, 31536000, NULL},
        {"log-requests", NULL, CT_OPTION_FLAG, false, &log_requests, "write a log line for each request, with its times", 0, 0, NULL},
        {"tls-cert", "FILE", CT_OPTION_TEXT, false, &files.certificate,
         "speak TLS, with this certificate (PEM, with its chain); it, its key and the CA are read again on SIGHUP", 0, 0, NULL},
        {"tls-key", "FILE", CT_OPTION_TEXT, false, &files.key, "of that certificate (PEM)", 0, 0, NULL},
        {"tls-client-ca", "FILE", CT_OPTION_TEXT, false, &files.client_ca,
         "clients must show a certificate that one of these has signed (PEM)", 0, 0, NULL},
        {"admin-tls-cert", "FILE", CT_OPTION_TEXT, false, &files.admin_certificate,
         "speak HTTPS on the admin port, with this certificate (PEM, with its chain; it may be that of --tls-cert); it and its key "
         "are read again on SIGHUP",
         0, 0, NULL},
        {"admin-tls-key", "FILE", CT_OPTION_TEXT, false, &files.admin_key, "of that certificate (PEM)", 0, 0, NULL},
        {"token-file", "FILE", CT_OPTION_TEXT, false, &files.tokens,
         "requests must bring one of its lines as `authorization: Bearer TOKEN`; read again on SIGHUP", 0, 0, NULL},
    };
    static const ct_option_need needs[] = {{"scratch", "memory"},
                                           {"scratch", "follow"},
                                           {"exposure-sample", "exposures"},
                                           {"exposure-buffer", "exposures"},
                                           {"rotate-mib", "exposures|feedback"},
                                           {"rotate-seconds", "exposures|feedback"},
                                           {"admin-tls-cert", "admin"},
                                           {"admin-tls-key", "admin"}};
    const ct_command command = {"serve",
                                "Answers score requests over gRPC until SIGINT or SIGTERM; prints `listening on HOST:PORT` once it is "
                                "ready, and with --admin also `admin on http://HOST:PORT/`. SIGHUP reads the model "
                                "folders again and serves what they hold now, unless one of them is broken; and the "
                                "experiment, the tokens and the certificate.",
                                "  clicktower serve --model model --admin 127.0.0.1:8501\n"
                                "  clicktower serve --model a=model-a b=model-b --listen 0.0.0.0:8500\n"
                                "  clicktower serve --follow publish\n"
                                "  clicktower serve --model old=id new=text --experiment ranker.yaml \\\n"
                                "      --exposures shown --feedback clicks",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    char *scratch_path = NULL;
    ct_pool *pool = NULL;
    ct_served *served = NULL;
    ct_server *server = NULL;
    ct_admin *admin = NULL;
    ct_exposures *exposures = NULL;
    ct_feedback *feedback = NULL;
    ct_calibration *calibration = NULL; /* of what was logged and what came of it, for the admin port */
    ct_access_texts texts = {0};
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse_needs(&command, needs, sizeof needs / sizeof *needs, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_read_memory(memory, follows.count > 0, status), done);
    CT_TRY_GOTO(code, ct_access_files_read(&files, &texts, status), done);
    ct_served_block_signals();
    (void)ct_stop_on_signals();
    allow_many_files();
    CT_TRY_GOTO(code, check_before_loading(listen, admin_listen, &files, &texts, status), done);

    const int64_t started = ct_clock_ns();
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    if (memory > 0 && follows.count > 0) CT_TRY_GOTO(code, scratch_folder(scratch, &scratch_path, status), done);
    const ct_served_sources sources = {.models = &folders,
                                       .follows = &follows,
                                       .memory_bytes = (uint64_t)memory << 20,
                                       .scratch = scratch_path,
                                       .experiment = experiment,
                                       .early = early};
    CT_TRY_GOTO(code, ct_served_open(&sources, pool, &served, status), done);
    if (exposures_folder && feedback_folder) CT_TRY_GOTO(code, ct_calibration_create(CT_CALIBRATION_BYTES, &calibration, status), done);
    if (exposures_folder) {
        const ct_exposures_options exposures_options = {
            exposures_folder, exposure_sample, (size_t)exposure_buffer << 20, (uint64_t)rotate_mib << 20, (int64_t)(rotate_seconds * 1000),
            calibration};
        CT_TRY_GOTO(code, ct_exposures_open(&exposures_options, &exposures, status), done);
    }
    if (feedback_folder) {
        const ct_feedback_options feedback_options = {.folder = feedback_folder,
                                                      .rotate_bytes = (uint64_t)rotate_mib << 20,
                                                      .rotate_ms = (int64_t)(rotate_seconds * 1000),
                                                      .max_candidates = (uint32_t)max_candidates,
                                                      .calibration = calibration};
        CT_TRY_GOTO(code, ct_feedback_open(&feedback_options, &feedback, status), done);
    }
    ct_server_options server_options = {.listen = listen,
                                        .experiment = ct_served_experiment(served),
                                        .exposures = exposures,
                                        .feedback = feedback,
                                        .calibration = calibration,
                                        .threads = (size_t)threads,
                                        .queue_calls = (size_t)queue,
                                        .queue_ms = queue_ms,
                                        .max_candidates = (uint32_t)max_candidates,
                                        .max_message_bytes = (uint32_t)max_message_mib << 20,
                                        .max_calls_of_peer = (size_t)max_calls_of_peer,
                                        .max_connection_age_ms = (int64_t)(max_age * 1000),
                                        .tls_certificate = texts.certificate,
                                        .tls_key = texts.key,
                                        .tls_client_ca = texts.client_ca,
                                        .tokens = (const char *const *)texts.tokens,
                                        .token_count = texts.token_count,
                                        .log_requests = log_requests};
    server_options.models = ct_served_models(served, &server_options.model_count);
    CT_TRY_GOTO(code, ct_server_start(&server_options, &server, status), done);

    char quoted[256], address[256], admin_address[256] = "";
    print_address(address, sizeof address, listen, ct_server_port(server));
    (void)ct_log_quote(address, quoted, sizeof quoted);
    ct_log_line(CT_LOG_INFO, "serve.start", "address=%s models=%zu threads=%zu tls=%s tokens=%zu ms=%lld", quoted,
                server_options.model_count, ct_pool_threads(pool), texts.certificate ? texts.client_ca ? "mutual" : "yes" : "no",
                texts.token_count, (long long)((ct_clock_ns() - started) / 1000000));
    ct_served_log(served);
    if (admin_listen) {
        const ct_admin_options admin_options = {.listen = admin_listen,
                                                .server = server,
                                                .version = CT_VERSION,
                                                .reload = hang_up,
                                                .tls_certificate = texts.admin_certificate,
                                                .tls_key = texts.admin_key};
        CT_TRY_GOTO(code, ct_admin_start(&admin_options, &admin, status), done);
        char admin_quoted[256];
        print_address(admin_address, sizeof admin_address, admin_listen, ct_admin_port(admin));
        ct_log_line(CT_LOG_INFO, "serve.admin", "address=%s tls=%s", ct_log_quote(admin_address, admin_quoted, sizeof admin_quoted),
                    texts.admin_certificate ? "yes" : "no");
    }
    const ct_served_options served_options = {
        .server = server, .admin = admin, .look_seconds = look, .files = files, .exposures = exposures, .feedback = feedback};
    CT_TRY_GOTO(code, ct_served_start(served, &served_options, status), done);
    (void)printf("listening on %s\n", address);
    if (admin) (void)printf("admin on http%s://%s/\n", texts.admin_certificate ? "s" : "", admin_address);
    CT_TRY_GOTO(code, ct_flush_results(status), done);

    const char *signal = ct_stop_wait();
    const int64_t began = ct_clock_ns(), grace_ms = (int64_t)(grace * 1000);
    ct_server_drain(server); /* the admin port says so while what was accepted is finished */
    ct_served_stop(served);
    ct_server_wait_idle(server, grace_ms);
    ct_admin_stop(admin);
    admin = NULL;
    ct_server_stop(server, grace_ms - (ct_clock_ns() - began) / 1000000);
    server = NULL;
    code = close_logs(&exposures, &feedback, status);
    if (code == CT_OK) code = ct_served_failure(served, status);
    ct_log_line(CT_LOG_INFO, "serve.stop", "address=%s signal=%s drain_ms=%lld", quoted, signal,
                (long long)((ct_clock_ns() - began) / 1000000));
done:
    ct_served_stop(served);
    ct_admin_stop(admin);
    if (server) ct_server_stop(server, 0);
    if (exposures || feedback) { /* the status is that of what failed before */
        ct_status later = CT_STATUS_INIT;
        if (close_logs(&exposures, &feedback, &later) != CT_OK) ct_warn("serve", "%s", later.message);
    }
    ct_calibration_destroy(calibration);
    ct_served_close(served);
    free(scratch_path);
    ct_access_texts_deinit(&texts);
    ct_pool_destroy(pool);
    ct_text_list_deinit(&folders);
    ct_text_list_deinit(&follows);
    return code;
}
