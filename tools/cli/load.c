/* clicktower load: requests made of a log's rows, sent over and over; rates, percentiles and errors back. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "serving/client.h"
#include "serving/load.h"
#include "serving/rpc.h"
#include "tools/cli/access.h"
#include "tools/cli/cli.h"

enum { MAX_REQUESTS = 4096, MAX_BYTES = 256 * 1024 * 1024 };

typedef struct requests {
    ct_load_request items[MAX_REQUESTS];
    size_t count, bytes, wanted_rows;
} requests;

static ct_code take_request(void *context, const Clicktower__V1__ScoreRequest *request, ct_arena *arena, ct_status *status) {
    requests *all = context;
    (void)arena;
    if (request->candidate_count != all->wanted_rows) return CT_OK; /* the log's end */
    const size_t bytes = clicktower__v1__score_request__get_packed_size(request);
    uint8_t *memory = malloc(bytes + 1);
    if (!memory) return ct_fail_memory(status, bytes, "a request");
    (void)clicktower__v1__score_request__pack(request, memory);
    all->items[all->count++] = (ct_load_request){memory, bytes};
    all->bytes += bytes;
    return all->count == MAX_REQUESTS || all->bytes >= MAX_BYTES ? ct_fail(status, CT_END, "enough requests") : CT_OK;
}

static const double SHARES[] = {0.5, 0.9, 0.95, 0.99, 0.999, 1};
static const char *const SHARE_NAMES[] = {"p50", "p90", "p95", "p99", "p999", "max"};
enum { SHARE_COUNT = sizeof SHARES / sizeof *SHARES };

static json_t *latencies(const ct_histogram *histogram) {
    json_t *object = json_object();
    if (histogram->count == 0) return object;
    (void)json_object_set_new(object, "mean", json_real(ct_histogram_mean(histogram) * 1e-6));
    for (size_t i = 0; i < SHARE_COUNT; i++)
        (void)json_object_set_new(object, SHARE_NAMES[i], json_real((double)ct_histogram_quantile(histogram, SHARES[i]) * 1e-6));
    return object;
}

static ct_code print_json(const ct_load_result *result, int64_t candidates, ct_status *status) {
    json_t *codes = json_object();
    for (int c = 0; c < CT_LOAD_CODES; c++) {
        if (!result->ended[c]) continue;
        const char *name = ct_rpc_code_name((ct_code)c); /* several of ours may have one name */
        const json_int_t before = json_integer_value(json_object_get(codes, name));
        (void)json_object_set_new(codes, name, json_integer(before + (json_int_t)result->ended[c]));
    }
    const double answered = (double)result->ended[CT_OK] / result->seconds;
    json_t *json = json_pack("{s:f, s:I, s:I, s:f, s:f, s:f, s:f, s:o, s:o, s:o}", "seconds", result->seconds, "candidates",
                             (json_int_t)candidates, "requests", (json_int_t)result->started, "offered_per_second",
                             (double)result->started / result->seconds, "answered_per_second", answered, "in_time_per_second",
                             (double)result->in_time / result->seconds, "candidates_per_second", answered * (double)candidates, "codes",
                             codes, "answered_ms", latencies(&result->answered), "failed_ms", latencies(&result->refused));
    if (!json) return ct_fail_memory(status, 1000, "the results");
    const ct_code code = ct_json_output("-", json, status);
    json_decref(json);
    return code;
}

static void print_latencies(const char *what, const ct_histogram *histogram) {
    if (histogram->count == 0) return;
    (void)printf("%s_ms mean %.3f", what, ct_histogram_mean(histogram) * 1e-6);
    for (size_t i = 0; i < SHARE_COUNT; i++)
        (void)printf(" %s %.3f", SHARE_NAMES[i], (double)ct_histogram_quantile(histogram, SHARES[i]) * 1e-6);
    (void)printf("\n");
}

static void print_text(const ct_load_result *result, int64_t candidates) {
    const double answered = (double)result->ended[CT_OK] / result->seconds;
    (void)printf("offered_per_second %.1f\nanswered_per_second %.1f\nin_time_per_second %.1f\ncandidates_per_second %.0f\n",
                 (double)result->started / result->seconds, answered, (double)result->in_time / result->seconds,
                 answered * (double)candidates);
    print_latencies("answered", &result->answered);
    print_latencies("failed", &result->refused);
    for (int c = 0; c < CT_LOAD_CODES; c++)
        if (result->ended[c]) (void)printf("%s %" PRIu64 "\n", ct_rpc_code_name((ct_code)c), result->ended[c]);
}

ct_code ct_verb_load(int argc, char **argv, ct_status *status) {
    const char *to = NULL, *schema_name = "criteo", *model = NULL;
    ct_text_list data = {0};
    int64_t candidates = 100, concurrency = 0, deadline_ms = 1000, connections = 4;
    double seconds = 10, warmup = 1, rate = 0;
    bool no_context = false, json = false;
    ct_access_options files = {.tls_ca = NULL};
    const ct_option options[] = {
        {"to", "HOST:PORT", CT_OPTION_ADDRESS, true, &to, "the server", 1, 0, NULL},
        {"data", "SOURCE", CT_OPTION_LIST, true, &data, "logs as text, whose rows become candidates", 0, 0, NULL},
        {"schema", "criteo|FILE.yaml", CT_OPTION_TEXT, false, &schema_name, "what the columns mean", 0, 0, NULL},
        {"model", "NAME", CT_OPTION_TEXT, false, &model, "which of the server's models; without it, its first", 0, 0, NULL},
        {"candidates", "N", CT_OPTION_INTEGER, false, &candidates, "of each request", 1, 100000, NULL},
        {"no-context", NULL, CT_OPTION_FLAG, false, &no_context,
         "send every feature for each candidate; else those that the schema calls context are sent once, with the first row's values", 0, 0,
         NULL},
        {"seconds", "N", CT_OPTION_NUMBER, false, &seconds, "how long to measure", 0.1, 86400, NULL},
        {"warmup", "N", CT_OPTION_NUMBER, false, &warmup, "seconds of the same load before, which do not count", 0, 3600, NULL},
        {"concurrency", "N", CT_OPTION_INTEGER, false, &concurrency, "closed loop: so many requests are always in flight", 0, 100000, NULL},
        {"rate", "N", CT_OPTION_NUMBER, false, &rate,
         "open loop: so many requests a second, evenly, whatever the server does; latency counts from when a request was due", 0, 1e7,
         NULL},
        {"deadline-ms", "N", CT_OPTION_INTEGER, false, &deadline_ms, "of each request", 1, 3600000, NULL},
        {"connections", "N", CT_OPTION_INTEGER, false, &connections, "that requests take in turn", 1, 1024, NULL},
        {"json", NULL, CT_OPTION_FLAG, false, &json, "print one JSON object", 0, 0, NULL},
        CT_ACCESS_OPTIONS(files),
    };
    const ct_command command = {
        "load",
        "Sends requests to a server for a while and prints rates, latencies in ms and how requests ended. Rows of the log become requests "
        "before the clock starts.",
        "  clicktower load --to 127.0.0.1:8500 --data day_1.gz --candidates 100 \\\n"
        "      --concurrency 16\n"
        "  clicktower load --to 127.0.0.1:8500 --data day_1.gz --rate 2000 \\\n"
        "      --deadline-ms 100 --json",
        NULL,
        NULL,
        options,
        sizeof options / sizeof *options};
    ct_schema *schema = NULL;
    ct_access access = {.token_count = 0};
    requests *all = calloc(1, sizeof *all);
    ct_load_result *result = calloc(1, sizeof *result);
    ct_code code;
    if (!all || !result) {
        code = ct_fail_memory(status, sizeof *all, "the requests");
        goto done;
    }
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&data}, 1, 1, status), done);
    if ((concurrency > 0) == (rate > 0)) {
        code = ct_fail(status, CT_USAGE, "give either --concurrency N (closed loop) or --rate N (open loop)");
        goto done;
    }
    CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    const ct_client_rows rows = {.model = model,
                                 .schema = schema,
                                 .sources = data.items,
                                 .source_count = data.count,
                                 .rows_per_request = (size_t)candidates,
                                 .context_of_first = !no_context,
                                 .max_rows = -1};
    int64_t read = 0;
    all->wanted_rows = (size_t)candidates;
    code = ct_client_requests(&rows, take_request, all, &read, status);
    if (code != CT_OK && code != CT_END) goto done;
    if (all->count == 0) {
        code = ct_fail(status, CT_INVALID, "the log has fewer than %" PRId64 " rows: give more, or fewer --candidates", candidates);
        goto done;
    }
    CT_TRY_GOTO(code, ct_access_read(&files, &access, status), done);
    const ct_load_options load_options = {.target = to,
                                          .access = &access.rpc,
                                          .requests = all->items,
                                          .request_count = all->count,
                                          .seconds = seconds,
                                          .warmup_seconds = warmup,
                                          .concurrency = (size_t)concurrency,
                                          .rate = rate,
                                          .deadline_ms = deadline_ms,
                                          .connections = (size_t)connections};
    CT_TRY_GOTO(code, ct_load_run(&load_options, result, status), done);
    if (result->first_failure[0]) ct_warn("load", "the first request that failed: %s", result->first_failure);
    if (json)
        CT_TRY_GOTO(code, print_json(result, candidates, status), done);
    else
        print_text(result, candidates);
    code = CT_OK;
done:
    for (size_t i = 0; all && i < all->count; i++) free((void *)(uintptr_t)all->items[i].bytes);
    free(all);
    free(result);
    ct_schema_destroy(schema);
    ct_access_deinit(&access);
    ct_text_list_deinit(&data);
    return code;
}
