/* The server's figures as Prometheus' text. Counters count from the start of the process, but those of a model from when it was loaded:
 * they begin anew at a swap, which Prometheus takes for what it is. */
#include <dirent.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "model/scorer_stats.h"
#include "serving/admin_internal.h"
#include "serving/server_internal.h"

const unsigned ct_http_statuses[CT_HTTP_STATUSES] = {200, 202, 400, 401, 404, 405, 413, 429, 500, 501, 503, 504};

static void head(FILE *out, const char *name, const char *type, const char *help) {
    (void)fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(FILE *out, const char *name, const char *type, const char *help, double value) {
    head(out, name, type, help);
    (void)fprintf(out, "%s %.17g\n", name, value);
}

/* label="value", with what the format wants escaped. */
static void label(FILE *out, const char *name, const char *value) {
    (void)fprintf(out, "%s=\"", name);
    for (; *value != '\0'; value++) {
        if (*value == '\n') {
            (void)fputs("\\n", out);
        } else {
            if (*value == '"' || *value == '\\') (void)fputc('\\', out);
            (void)fputc(*value, out);
        }
    }
    (void)fputc('"', out);
}

/* `label_name` NULL = none. counts: (bounds + 1), not cumulative. */
static void histogram(FILE *out, const char *name, const char *label_name, const char *label_value, const double *bounds,
                      size_t bound_count, const uint64_t *counts, double sum) {
    uint64_t total = 0;
    for (size_t b = 0; b <= bound_count; b++) {
        total += counts[b];
        (void)fprintf(out, "%s_bucket{", name);
        if (label_name) {
            label(out, label_name, label_value);
            (void)fputc(',', out);
        }
        if (b < bound_count)
            (void)fprintf(out, "le=\"%g\"} %llu\n", bounds[b], (unsigned long long)total);
        else
            (void)fprintf(out, "le=\"+Inf\"} %llu\n", (unsigned long long)total);
    }
    static const char *const ends[] = {"sum", "count"};
    for (size_t e = 0; e < 2; e++) {
        (void)fprintf(out, "%s_%s", name, ends[e]);
        if (label_name) {
            (void)fputc('{', out);
            label(out, label_name, label_value);
            (void)fputc('}', out);
        }
        (void)fprintf(out, " %.17g\n", e == 0 ? sum : (double)total);
    }
}

/* --- requests --- */

static void put_requests(FILE *out, ct_server *server, const ct_server_stats *stats) {
    static const double bounds[] = CT_SERVER_LATENCY_BOUNDS;
    const size_t bound_count = sizeof bounds / sizeof *bounds;
    head(out, "clicktower_requests_total", "counter", "Score requests, over gRPC and as JSON, by the code that they ended with.");
    /* Several of our codes are one of gRPC's. */
    for (int code = 0; code < CT_SERVER_CODES; code++) {
        const char *name = ct_rpc_code_name((ct_code)code);
        uint64_t count = 0;
        bool first = true;
        for (int other = 0; other < CT_SERVER_CODES; other++) {
            if (strcmp(ct_rpc_code_name((ct_code)other), name) != 0) continue;
            first = first && other >= code;
            count += stats->ended[other];
        }
        if (first) (void)fprintf(out, "clicktower_requests_total{code=\"%s\"} %llu\n", name, (unsigned long long)count);
    }
    one(out, "clicktower_candidates_total", "counter", "Candidates of Score requests that were answered.", (double)stats->candidates);
    static const char *const refusals[CT_REFUSALS] = {"full", "slow", "waited"};
    head(out, "clicktower_requests_refused_total", "counter",
         "Requests refused because the server was busy: no room, would have waited too long, or has waited too long.");
    for (size_t r = 0; r < CT_REFUSALS; r++)
        (void)fprintf(out, "clicktower_requests_refused_total{reason=\"%s\"} %llu\n", refusals[r], (unsigned long long)stats->refused[r]);
    head(out, "clicktower_calls_refused_total", "counter", "Calls of any method that were refused before they were looked at.");
    (void)fprintf(out, "clicktower_calls_refused_total{reason=\"no_token\"} %llu\n", (unsigned long long)stats->no_token);
    (void)fprintf(out, "clicktower_calls_refused_total{reason=\"peer_limit\"} %llu\n", (unsigned long long)stats->peer_limit);
    (void)fprintf(out, "clicktower_calls_refused_total{reason=\"no_method\"} %llu\n", (unsigned long long)stats->no_method);
    const struct {
        const char *name, *help;
        const ct_latency_histogram *histogram;
    } stages[] = {
        {"clicktower_request_duration_seconds", "From a request's arrival to its answer, of those that were answered.", &stats->latency},
        {"clicktower_queue_duration_seconds", "From a request's arrival to the begin of its work.", &stats->waited},
        {"clicktower_decode_duration_seconds", "From a request's message to its batch.", &stats->decoding},
        {"clicktower_compute_duration_seconds", "Look-ups and network; of requests that are computed together each has all of it.",
         &stats->computing},
        {"clicktower_answer_duration_seconds", "Packing and sending an answer.", &stats->answering},
    };
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        head(out, stages[i].name, "histogram", stages[i].help);
        histogram(out, stages[i].name, NULL, NULL, bounds, bound_count, stages[i].histogram->counts,
                  (double)stages[i].histogram->sum_ns * 1e-9);
    }
    one(out, "clicktower_merged_requests_total", "counter", "Requests that were computed together with others.",
        (double)stats->merged_requests);
    one(out, "clicktower_merged_groups_total", "counter", "Groups of requests that were computed together.", (double)stats->merged_groups);
    one(out, "clicktower_direct_requests_total", "counter",
        "Requests that came alone and were computed at once by the thread that had read them.", (double)stats->direct_requests);
    one(out, "clicktower_queue_requests", "gauge", "Requests that wait now.", (double)stats->queued);
    one(out, "clicktower_queue_limit_requests", "gauge", "Requests that may wait.", (double)stats->queue_calls);
    one(out, "clicktower_active_requests", "gauge", "Requests taken and not yet answered, those that wait included.",
        (double)stats->scoring);
    one(out, "clicktower_threads", "gauge", "Threads that score.", (double)stats->threads);
    one(out, "clicktower_ready", "gauge", "1 while the server takes requests, 0 while it goes down.",
        ct_server_is_draining(server) ? 0 : 1);
    head(out, "clicktower_model_swaps_total", "counter",
         "New models that took over, that could not be served, and that were not complete yet.");
    (void)fprintf(out, "clicktower_model_swaps_total{result=\"done\"} %llu\n", (unsigned long long)stats->replaced);
    (void)fprintf(out, "clicktower_model_swaps_total{result=\"refused\"} %llu\n", (unsigned long long)stats->replace_refused);
    (void)fprintf(out, "clicktower_model_swaps_total{result=\"not_yet\"} %llu\n", (unsigned long long)stats->not_yet);
}

/* --- models --- */

/* label_name NULL = the model's alone. */
static void put_labelled(FILE *out, const char *name, const char *model, const char *label_name, const char *label_value, double value) {
    (void)fprintf(out, "%s{", name);
    label(out, "model", model);
    if (label_name) {
        (void)fputc(',', out);
        label(out, label_name, label_value);
    }
    (void)fprintf(out, "} %.17g\n", value);
}

static void model_value(FILE *out, const char *name, const ct_served_model *model, double value) {
    (void)fprintf(out, "%s{", name);
    label(out, "model", model->name);
    (void)fprintf(out, "} %.17g\n", value);
}

static void put_model_facts(FILE *out, const ct_model_set *set) {
    head(out, "clicktower_model_info", "gauge", "What is served.");
    for (size_t m = 0; m < set->model_count; m++) {
        const ct_served_model *served = &set->models[m];
        const char *const labels[][2] = {
            {"model", served->name},
            {"version", served->version},
            {"architecture", ct_architecture_name(ct_model_spec_of(served->model)->architecture)},
            {"schema", ct_model_schema(served->model)->name},
            {"precision", ct_model_precision(served->model) == CT_PRECISION_BF16 ? "bf16" : "fp32"},
            {"instruction_set", ct_tower_instruction_set()},
            {"trained_instruction_set", ct_model_instruction_set(served->model)},
        };
        (void)fputs("clicktower_model_info{", out);
        for (size_t l = 0; l < sizeof labels / sizeof *labels; l++) {
            if (l) (void)fputc(',', out);
            label(out, labels[l][0], labels[l][1]);
        }
        (void)fputs("} 1\n", out);
    }
    static const char age[] = "clicktower_model_age_seconds";
    head(out, age, "gauge", "Since the model's folder was written.");
    const int64_t now_ms = ct_clock_unix_ms();
    for (size_t m = 0; m < set->model_count; m++)
        model_value(out, age, &set->models[m], (double)(now_ms - ct_model_created_ms(set->models[m].model)) * 1e-3);
    static const char trained[] = "clicktower_model_trained_rows";
    head(out, trained, "gauge", "Rows that the model was trained on.");
    for (size_t m = 0; m < set->model_count; m++) model_value(out, trained, &set->models[m], (double)ct_model_rows(set->models[m].model));
    static const char loading[] = "clicktower_model_loading";
    head(out, loading, "gauge",
         "1 while the model is still checked and read into memory: its rows are read from the disk (--answer-early).");
    for (size_t m = 0; m < set->model_count; m++) model_value(out, loading, &set->models[m], ct_model_is_early(set->models[m].model));
    one(out, "clicktower_models_loaded_timestamp_seconds", "gauge", "When the models that are served now took over.",
        (double)set->since_unix_ms * 1e-3);
}

typedef double (*table_value_fn)(const ct_model_table *table);
static double rows_of(const ct_model_table *table) { return (double)table->rows; }
static double waiting_of(const ct_model_table *table) { return (double)table->waiting; }
static double expired_of(const ct_model_table *table) { return (double)table->expired; }
static double bytes_of(const ct_model_table *table) { return (double)table->bytes; }
static double lookups_of(const ct_model_table *table) { return (double)(table->found + table->unknown); }
static double missed_of(const ct_model_table *table) { return (double)table->missed; }
static double unknown_of(const ct_model_table *table) { return (double)table->unknown; }

static void put_tables(FILE *out, const ct_model_set *set) {
    static const struct {
        const char *name, *type, *help;
        table_value_fn value;
    } figures[] = {
        {"clicktower_table_rows", "gauge", "Rows of a model's table.", rows_of},
        {"clicktower_table_waiting_keys", "gauge", "Keys that the training counts and that have no row yet (embedding.min_count).",
         waiting_of},
        {"clicktower_table_expired_rows", "gauge", "Rows that have expired since the training began (embedding.expire_days).", expired_of},
        {"clicktower_table_bytes", "gauge", "Memory of a model's table.", bytes_of},
        {"clicktower_table_lookups_total", "counter", "Keys looked up in a model's table.", lookups_of},
        {"clicktower_table_misses_total", "counter", "Keys looked up that were asked of the folder, as memory had them not (--memory).",
         missed_of},
        {"clicktower_table_unknown_total", "counter", "Keys looked up that have no row: they read the rare row, or zeros.", unknown_of},
    };
    for (size_t f = 0; f < sizeof figures / sizeof *figures; f++) {
        head(out, figures[f].name, figures[f].type, figures[f].help);
        for (size_t m = 0; m < set->model_count; m++) {
            for (size_t t = 0; t < ct_model_table_count(set->models[m].model); t++) {
                ct_model_table table;
                ct_model_table_get(set->models[m].model, t, &table);
                (void)fprintf(out, "%s{", figures[f].name);
                label(out, "model", set->models[m].name);
                (void)fputc(',', out);
                label(out, "table", table.name);
                (void)fprintf(out, "} %.17g\n", figures[f].value(&table));
            }
        }
    }
}

static void stats_of(const ct_model_set *set, size_t model, ct_scorer_stats *out_stats) {
    *out_stats = (ct_scorer_stats){0};
    for (size_t s = model; s < set->scorer_count; s += set->model_count) ct_scorer_stats_add(set->scorers[s], out_stats);
}

static void put_scores(FILE *out, const ct_model_set *set) {
    static const double score_bounds[] = CT_SCORE_BOUNDS, time_bounds[] = CT_RUN_TIME_BOUNDS;
    static const struct {
        const char *name, *help;
    } stages[CT_RUN_STAGES] = {
        {"clicktower_look_up_duration_seconds", "From keys and numbers to the network's first input, for each block of up to 256 rows."},
        {"clicktower_forward_duration_seconds", "The network, for each block of up to 256 rows."},
    };
    static const char scores[] = "clicktower_scores";
    ct_scorer_stats stats;
    head(out, scores, "histogram", "Probabilities of the model's first output.");
    for (size_t m = 0; m < set->model_count; m++) {
        stats_of(set, m, &stats);
        histogram(out, scores, "model", set->models[m].name, score_bounds, CT_SCORE_BUCKETS - 1, stats.scores, stats.score_sum);
    }
    for (size_t stage = 0; stage < CT_RUN_STAGES; stage++) {
        head(out, stages[stage].name, "histogram", stages[stage].help);
        for (size_t m = 0; m < set->model_count; m++) {
            stats_of(set, m, &stats);
            histogram(out, stages[stage].name, "model", set->models[m].name, time_bounds, CT_RUN_TIME_BUCKETS - 1, stats.run_times[stage],
                      (double)stats.run_ns[stage] * 1e-9);
        }
    }
}

/* --- models that follow deltas --- */

static void put_follow(FILE *out, ct_server *server) {
    static const double bounds[] = CT_FOLLOW_BOUNDS;
    static const char *const stages[] = {"read", "swap", "settle"};
    static const char deltas[] = "clicktower_deltas_total", records[] = "clicktower_delta_records_total",
                      bytes[] = "clicktower_delta_bytes_total", seconds[] = "clicktower_delta_seconds_total",
                      sequence[] = "clicktower_delta_sequence", age[] = "clicktower_newest_row_age_seconds",
                      last[] = "clicktower_row_to_answer_seconds", freshness[] = "clicktower_freshness_seconds";
    ct_follow_list entry;
    if (!ct_server_get_follow_stats(server, 0, &entry)) return;
    head(out, deltas, "counter", "Deltas that took over, bases that did, and what was refused or not complete yet.");
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++) {
        const struct {
            const char *result;
            uint64_t count;
        } results[] = {{"applied", entry.stats.applied},
                       {"base", entry.stats.bases},
                       {"refused", entry.stats.refused},
                       {"not_yet", entry.stats.not_yet}};
        for (size_t r = 0; r < sizeof results / sizeof *results; r++)
            put_labelled(out, deltas, entry.name, "result", results[r].result, (double)results[r].count);
    }
    head(out, records, "counter", "Keys that deltas have changed.");
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++)
        put_labelled(out, records, entry.name, NULL, NULL, (double)entry.stats.records);
    head(out, bytes, "counter", "Bytes of the deltas that took over.");
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++)
        put_labelled(out, bytes, entry.name, NULL, NULL, (double)entry.stats.bytes);
    head(out, seconds, "counter", "Reading deltas beside the model, swapping, and putting their rows in place.");
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++)
        for (size_t s = 0; s < 3; s++) put_labelled(out, seconds, entry.name, "stage", stages[s], (double)entry.stats.stage_ns[s] * 1e-9);
    head(out, sequence, "gauge", "Number of the state that is served.");
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++)
        put_labelled(out, sequence, entry.name, NULL, NULL, (double)entry.stats.sequence);
    head(out, age, "gauge", "Since the newest row was read that the model has learned from by a delta.");
    const int64_t now_ms = ct_clock_unix_ms();
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++)
        if (entry.stats.newest_row_unix_ms)
            put_labelled(out, age, entry.name, NULL, NULL, (double)(now_ms - entry.stats.newest_row_unix_ms) * 1e-3);
    head(out, last, "gauge", "Of the last delta: from when a row was read to when requests were answered with it.");
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++) {
        put_labelled(out, last, entry.name, "row", "oldest", entry.stats.oldest_seconds);
        put_labelled(out, last, entry.name, "row", "newest", entry.stats.newest_seconds);
    }
    head(out, freshness, "histogram", "Of each delta: from when its oldest row was read to when requests were answered with it.");
    for (size_t i = 0; ct_server_get_follow_stats(server, i, &entry); i++)
        histogram(out, freshness, "model", entry.name, bounds, CT_FOLLOW_BUCKETS - 1, entry.stats.freshness, entry.stats.freshness_sum);
}

/* --- the experiment that runs, exposures and feedback --- */

/* name{experiment="...",arm="..." */
static void arm_series(FILE *out, const char *name, const ct_experiment *experiment, size_t arm) {
    (void)fprintf(out, "%s{", name);
    label(out, "experiment", ct_experiment_name(experiment));
    (void)fputc(',', out);
    label(out, "arm", ct_experiment_arm_name(experiment, arm));
}

/* counts: (arms), as they were under the lock. */
static void put_experiment(FILE *out, const ct_model_set *set, const ct_arm_counts *counts) {
    const ct_experiment *experiment = set->experiment;
    if (!experiment) return;
    const size_t arms = ct_experiment_arm_count(experiment);
    static const char info[] = "clicktower_experiment_arm_info", weight[] = "clicktower_experiment_arm_weight",
                      requests[] = "clicktower_experiment_requests_total", failures[] = "clicktower_experiment_failures_total";
    head(out, info, "gauge",
         "The arms of the experiment that runs; served is false where the model is not there, and the control stands in.");
    for (size_t a = 0; a < arms; a++) {
        arm_series(out, info, experiment, a);
        (void)fputc(',', out);
        label(out, "model", ct_experiment_arm_model(experiment, a));
        (void)fprintf(out, ",control=\"%s\",served=\"%s\"} 1\n", a == ct_experiment_control(experiment) ? "true" : "false",
                      set->arm_models[a] ? "true" : "false");
    }
    head(out, weight, "gauge", "An arm's weight, as its experiment's file has it.");
    for (size_t a = 0; a < arms; a++) {
        arm_series(out, weight, experiment, a);
        (void)fprintf(out, "} %.17g\n", ct_experiment_arm_weight(experiment, a));
    }
    one(out, "clicktower_experiment_holdout_percent", "gauge", "Units that stay out for good.", ct_experiment_holdout(experiment));
    one(out, "clicktower_experiment_ramp_percent", "gauge", "Of the others, those that take part.", ct_experiment_ramp(experiment));
    head(out, requests, "counter", "Requests by the arm that they saw and how they came to it, over gRPC and HTTP; failed ones included.");
    for (size_t a = 0; a < arms; a++)
        for (int h = 0; h < CT_ASSIGN_HOWS; h++) {
            arm_series(out, requests, experiment, a);
            (void)fprintf(out, ",assigned=\"%s\"} %llu\n", ct_assign_how_name((ct_assign_how)h), (unsigned long long)counts[a].requests[h]);
        }
    head(out, failures, "counter", "Requests that failed after their arm was known.");
    for (size_t a = 0; a < arms; a++) {
        arm_series(out, failures, experiment, a);
        (void)fprintf(out, "} %llu\n", (unsigned long long)counts[a].failures);
    }
}

static void put_exposures(FILE *out, ct_exposures *exposures) {
    if (!exposures) return;
    ct_exposures_stats stats;
    ct_exposures_stats_get(exposures, &stats);
    one(out, "clicktower_exposures_written_total", "counter", "Requests that were logged.", (double)stats.written);
    one(out, "clicktower_exposures_written_bytes_total", "counter", "Bytes of them.", (double)stats.written_bytes);
    static const char dropped[] = "clicktower_exposures_dropped_total";
    head(out, dropped, "counter",
         "Requests that should have been logged and were not: no room in memory, or the file could not be written.");
    (void)fprintf(out, "%s{reason=\"full\"} %llu\n", dropped, (unsigned long long)stats.dropped_full);
    (void)fprintf(out, "%s{reason=\"unwritable\"} %llu\n", dropped, (unsigned long long)stats.dropped_unwritable);
    one(out, "clicktower_exposures_failures_total", "counter", "Writes and renames that failed.", (double)stats.failures);
    one(out, "clicktower_exposures_sample_rate", "gauge", "Share of the requests that is logged.", ct_exposures_sample_rate(exposures));
}

static void put_feedback(FILE *out, ct_feedback *feedback) {
    if (!feedback) return;
    ct_feedback_stats stats;
    ct_feedback_stats_get(feedback, &stats);
    static const char events[] = "clicktower_feedback_events_total", refused[] = "clicktower_feedback_refused_total";
    head(out, events, "counter", "Events that were accepted: they are on disk. An event that comes twice counts twice here.");
    (void)fprintf(out, "%s{event=\"shown\"} %llu\n", events, (unsigned long long)stats.shown);
    (void)fprintf(out, "%s{event=\"click\"} %llu\n", events, (unsigned long long)stats.clicks);
    (void)fprintf(out, "%s{event=\"other\"} %llu\n", events, (unsigned long long)stats.others);
    head(out, refused, "counter", "Feedback requests that were refused: wrong, too many at once, or the file could not be written.");
    (void)fprintf(out, "%s{reason=\"invalid\"} %llu\n", refused, (unsigned long long)stats.invalid);
    (void)fprintf(out, "%s{reason=\"busy\"} %llu\n", refused, (unsigned long long)stats.busy);
    (void)fprintf(out, "%s{reason=\"unwritable\"} %llu\n", refused, (unsigned long long)stats.unwritable);
    one(out, "clicktower_feedback_failures_total", "counter", "Writes and renames that failed.", (double)stats.failures);
}

/* --- calibration --- */

/* name{model="...",arm="...",le="..." of a bucket */
static void calibration_line(FILE *out, const char *name, const ct_calibration_series *series, size_t bucket, double value) {
    static const double bounds[] = CT_SCORE_BOUNDS;
    (void)fprintf(out, "%s{", name);
    label(out, "model", series->model);
    (void)fputc(',', out);
    label(out, "arm", series->arm);
    if (bucket + 1 < CT_SCORE_BUCKETS)
        (void)fprintf(out, ",score=\"%g\"} %.17g\n", bounds[bucket], value);
    else
        (void)fprintf(out, ",score=\"1\"} %.17g\n", value);
}

static void put_calibration(FILE *out, ct_calibration *calibration) {
    if (!calibration) return;
    ct_calibration_stats stats;
    ct_calibration_series series;
    static const char *const names[] = {"clicktower_calibration_shown_total", "clicktower_calibration_clicks_total",
                                        "clicktower_calibration_predicted_total"};
    static const char *const helps[] = {
        "Candidates that feedback says were shown, each once, by the bucket of their score (its upper bound).",
        "Those of them that were clicked, each once.", "Sum of their scores: how many clicks the model expected."};
    static const char events[] = "clicktower_calibration_events_total";
    ct_calibration_stats_get(calibration, &stats);
    for (size_t n = 0; n < 3; n++) {
        head(out, names[n], "counter", helps[n]);
        for (size_t s = 0; s < stats.series_count; s++) {
            ct_calibration_series_get(calibration, s, &series);
            for (size_t b = 0; b < CT_SCORE_BUCKETS; b++)
                calibration_line(out, names[n], &series, b,
                                 n == 0   ? (double)series.shown[b]
                                 : n == 1 ? (double)series.clicks[b]
                                          : series.predicted[b]);
        }
    }
    head(out, events, "counter", "Events shown and click: counted, said before, and of no request that is kept (too old, or not sampled).");
    (void)fprintf(out, "%s{result=\"counted\"} %llu\n", events, (unsigned long long)stats.counted);
    (void)fprintf(out, "%s{result=\"repeated\"} %llu\n", events, (unsigned long long)stats.repeated);
    (void)fprintf(out, "%s{result=\"unknown\"} %llu\n", events, (unsigned long long)stats.unknown);
    one(out, "clicktower_calibration_waiting_events", "gauge", "Events whose request is not there, and may still come.",
        (double)stats.waiting);
    one(out, "clicktower_calibration_requests", "gauge", "Requests whose scores are kept for feedback to come.", (double)stats.exposures);
    one(out, "clicktower_calibration_fallen_total", "counter", "Requests that made room for newer ones.", (double)stats.fallen);
    one(out, "clicktower_calibration_bytes", "gauge", "Memory for them.", (double)stats.bytes);
}

/* --- the process; names as Prometheus' own libraries have them --- */

static size_t open_files(void) {
    DIR *folder = opendir("/proc/self/fd");
    if (!folder) return 0;
    size_t count = 0;
    while (readdir(folder)) count++;
    (void)closedir(folder);
    return count > 3 ? count - 3 : 0; /* . and .. and the folder's own */
}

static void put_process(FILE *out) {
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0, resident = 0;
    if (file) {
        if (fscanf(file, "%lu %lu", &pages, &resident) != 2) pages = resident = 0;
        (void)fclose(file);
    }
    const double page_bytes = (double)sysconf(_SC_PAGESIZE);
    one(out, "process_resident_memory_bytes", "gauge", "Resident memory.", (double)resident * page_bytes);
    one(out, "process_virtual_memory_bytes", "gauge", "Virtual memory.", (double)pages * page_bytes);
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        const double seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
        const double micros = (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
        one(out, "process_cpu_seconds_total", "counter", "Time of the processors, user and system.", seconds + micros * 1e-6);
    }
    struct rlimit files;
    one(out, "process_open_fds", "gauge", "Open files.", (double)open_files());
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) one(out, "process_max_fds", "gauge", "Files that may be open.", (double)files.rlim_cur);
}

void ct_metrics_write(FILE *out, ct_server *server, const char *version, const ct_http_counts *http, size_t http_count) {
    ct_server_stats stats;
    ct_server_stats_get(server, &stats);
    head(out, "clicktower_build_info", "gauge", "The program.");
    (void)fputs("clicktower_build_info{", out);
    label(out, "version", version);
    (void)fputs("} 1\n", out);
    put_requests(out, server, &stats);
    ct_model_set *set = ct_server_take_set(server);
    put_model_facts(out, set);
    put_tables(out, set);
    put_scores(out, set);
    ct_arm_counts counts[CT_ASSIGN_MAX_ARMS];
    (void)pthread_mutex_lock(&server->lock);
    memcpy(counts, set->arm_counts, sizeof counts);
    (void)pthread_mutex_unlock(&server->lock);
    put_experiment(out, set, counts);
    ct_server_give_set(server, set);
    put_follow(out, server);
    put_exposures(out, server->exposures);
    put_feedback(out, server->feedback);
    put_calibration(out, server->calibration);
    head(out, "clicktower_http_requests_total", "counter", "Requests to the admin port, by path and HTTP status.");
    for (size_t h = 0; h < http_count; h++)
        for (size_t s = 0; s < CT_HTTP_STATUSES; s++)
            if (http[h].by_status[s] || s == 0)
                (void)fprintf(out, "clicktower_http_requests_total{path=\"%s\",code=\"%u\"} %llu\n", http[h].path, ct_http_statuses[s],
                              (unsigned long long)http[h].by_status[s]);
    put_process(out);
}
