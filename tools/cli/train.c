/* clicktower train: a log through a model, ends with a model folder. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#include "tools/cli/cli.h"
#include "trainer/trainer.h"

static void print_summary(const char *out, const char *publish, int64_t epochs, const ct_train_result *result) {
    const double seconds = result->train_seconds;
    (void)printf("trained      rows %" PRId64 "  epochs %" PRId64 "  seconds %.2f  rows_per_second %.0f\n", result->progressive.rows,
                 epochs, seconds, result->rows_per_second);
    (void)printf("progressive  ");
    ct_print_metrics_line(stdout, &result->progressive);
    (void)printf("\n");
    if (result->evaluated) {
        (void)printf("evaluation   rows %" PRId64 "  ", result->evaluation.rows);
        ct_print_metrics_line(stdout, &result->evaluation);
        (void)printf("\n");
    }
    if (result->filter.bytes > 0)
        (void)printf("keys         admitted %" PRId64 "  waiting unknown  expired %" PRId64
                     "\n"
                     "filter       MiB %.1f  fill %.4f  error %.4f\n",
                     result->admitted, result->expired, (double)result->filter.bytes / (1 << 20), result->filter.fill,
                     result->filter.error);
    else
        (void)printf("keys         admitted %" PRId64 "  waiting %" PRId64 "  expired %" PRId64 "\n", result->admitted, result->waiting,
                     result->expired);
    if (result->train_report.bad_total || result->eval_report.bad_total)
        (void)printf("bad_rows     training %" PRId64 "  evaluation %" PRId64 "\n", result->train_report.bad_total,
                     result->eval_report.bad_total);
    if (result->disk.fetched > 0)
        (void)printf("disk         waited_seconds %.2f  held_back_seconds %.2f  longest %.2f  most_runs %u\n",
                     (double)result->disk.waited_ns / 1e9, (double)result->disk.held_ns / 1e9, (double)result->disk.longest_held_ns / 1e9,
                     result->disk.most_runs);
    (void)printf("model        %s\n", out);
    if (publish != NULL) (void)printf("published    %s\n", publish);
    (void)printf("report       %s/train.html\n", out);
}

static ct_code open_again(const char *out, const ct_schema *schema, const ct_model_spec *spec, const ct_model_options *options,
                          ct_model **out_model, ct_status *status) {
    char *folder = ct_model_resume_folder(out);
    if (folder == NULL) return ct_fail_memory(status, strlen(out), "a path");
    ct_model *model = NULL;
    ct_code code = ct_model_open_within(folder, CT_MODEL_TRAIN, options->memory_bytes, options->live_folder, options->device, options->pool,
                                        &model, status);
    free(folder);
    if (code == CT_OK) code = ct_model_check_same(model, schema, spec, options->seed, options->batch_rows, status);
    if (code != CT_OK) {
        ct_model_destroy(model);
        return ct_fail_within(status, "--resume %s", out);
    }
    *out_model = model;
    return CT_OK;
}

/* Rows and tower of another folder, with a list of what was taken, new and dropped. */
static ct_code begin_with(ct_model *model, const char *folder, json_t **out_lines, ct_status *status) {
    const ct_code code = ct_model_init_from(model, folder, out_lines, status);
    if (code != CT_OK) return ct_fail_within(status, "--init %s", folder);
    for (size_t i = 0; i < json_array_size(*out_lines); i++)
        (void)printf("init         %s\n", json_string_value(json_array_get(*out_lines, i)));
    return CT_OK;
}

/* A model folder is replaced as a whole, with what somebody has put beside the model. */
static void warn_of_others(const char *out) {
    static const char *const parts[] = {"manifest",     "schema.yaml", "model.yaml",   "tower.safetensors", "tables", "histories",
                                        "metrics.json", "curve.jsonl", "trainer.json", "train.html",        "resume", "publish.json"};
    ct_file_list files;
    ct_status ignored = CT_STATUS_INIT;
    if (ct_folder_list(out, &files, &ignored) != CT_OK) return;
    for (size_t i = 0; i < files.count; i++) {
        const size_t bytes = strcspn(files.names[i], "/");
        bool known = false;
        for (size_t p = 0; p < sizeof parts / sizeof *parts && !known; p++)
            known = strlen(parts[p]) == bytes && memcmp(parts[p], files.names[i], bytes) == 0;
        if (known) continue;
        ct_warn("train", "%s is no part of the model in %s and goes when this run replaces the folder: move it away", files.names[i], out);
        break;
    }
    ct_file_list_deinit(&files);
}

static ct_code check_out(const char *out, bool resume, const char *init, ct_status *status) {
    if (resume && init != NULL)
        return ct_fail(status, CT_USAGE, "--resume goes on with the training of --out, --init begins a new one: give one of them");
    if (!resume && ct_model_folder_is(out)) ct_warn("train", "%s holds a model, which stays until this run writes its own", out);
    if (ct_model_folder_is(out)) warn_of_others(out);
    return CT_OK;
}

static void warn(void *context, const char *text) {
    (void)context;
    ct_warn("train", "%s", text);
}

typedef struct profile_part {
    const char *name;
    double ns;
} profile_part;

static void print_part(const profile_part *part, double of_seconds) {
    (void)printf("  %-17s %8.3f s  %5.1f %%\n", part->name, part->ns / 1e9, part->ns / 1e7 / of_seconds);
}

/* Seconds of wall time; what runs on all threads at once is shared out by the threads' own time. */
static void print_profile(const ct_model *model, const ct_pool *pool, const ct_train_result *result) {
    ct_model_profile profile;
    ct_model_profile_get(model, &profile);
    const double threads_time = (double)(profile.gather + profile.forward + profile.backward + profile.gradient + profile.sort);
    const double wall = threads_time > 0 ? (double)profile.pass_wall / threads_time : 0;
    const profile_part parts[] = {
        {"waiting for rows", (double)result->waiting_ns},     {"look-up", (double)profile.look_up + (double)profile.sort * wall},
        {"number moments", (double)profile.moments},          {"gather", (double)profile.gather * wall},
        {"forward", (double)profile.forward * wall},          {"backward", (double)profile.backward * wall},
        {"weight gradient", (double)profile.gradient * wall}, {"tower update", (double)profile.tower_update},
        {"row update", (double)profile.row_update},           {"checkpoints", (double)(result->saving_ns - result->final_saving_ns)},
        {"publishing", (double)result->publishing_ns}};
    const profile_part reading[] = {{"read, unpack", (double)result->reading.read_ns},
                                    {"parse", (double)result->reading.parse_ns},
                                    {"fill batches", (double)result->reading.put_ns}};
    double rest = result->train_seconds * 1e9;
    (void)printf("profile      %zu threads\n", ct_pool_threads(pool));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        rest -= parts[i].ns;
        print_part(&parts[i], result->train_seconds);
    }
    print_part(&(const profile_part){"other", rest}, result->train_seconds);
    if (result->saved > 0)
        (void)printf("  checkpoints held training up %" PRId64
                     " times, for %.3f s at most; writing one took %.3f s at most, beside training, "
                     "which waited %.3f s for one before\n",
                     result->saved, (double)result->longest_saving_ns / 1e9, (double)result->longest_writing_ns / 1e9,
                     (double)result->saving_waited_ns / 1e9);
    if (profile.disk > 0)
        (void)printf("  %.3f s in look-up and checkpoints were spent waiting for the disk, of which %.3f s as compaction was behind\n",
                     (double)profile.disk / 1e9, (double)result->disk.held_ns / 1e9);
    (void)printf("beside it    processor time of the reader's own threads\n");
    for (size_t i = 0; i < sizeof reading / sizeof *reading; i++) print_part(&reading[i], result->train_seconds);
}

/* By their names: neither may be there yet. */
static bool is_within(const char *path, const char *folder) {
    while (strncmp(path, "./", 2) == 0) path += 2;
    while (strncmp(folder, "./", 2) == 0) folder += 2;
    size_t bytes = strlen(folder);
    while (bytes > 1 && folder[bytes - 1] == '/') bytes--;
    return strncmp(path, folder, bytes) == 0 && (path[bytes] == '\0' || path[bytes] == '/');
}

ct_code ct_verb_train(int argc, char **argv, ct_status *status) {
    const char *schema_name = NULL, *model_name = NULL, *out = NULL, *precision = NULL, *init = NULL, *device = "auto";
    ct_text_list train = {0}, eval = {0}, sets = {0};
    int64_t epochs = 1, batch = CT_MODEL_DEFAULT_BATCH_ROWS, threads = 0, early_stop = 0, checkpoint_rows = 0, keep = 1, schedule_rows = 0,
            memory = 0;
    bool resume = false, profile = false;
    uint64_t seed = 1;
    int64_t shuffle_rows = 0, publish_rows = 0;
    const char *publish = NULL;
    double publish_seconds = 0;
    ct_bad_row_limit bad_rows = CT_BAD_ROW_LIMIT_INIT;
    const ct_option options[] = {
        {"schema", "criteo|FILE.yaml", CT_OPTION_TEXT, true, &schema_name, "what the columns of the log mean", 0, 0, NULL},
        {"model", "NAME|FILE.yaml", CT_OPTION_TEXT, true, &model_name, "lr, fm, dnn, deepfm, dcn-v2, dlrm or a model file", 0, 0, NULL},
        {"train", "SOURCE", CT_OPTION_LIST, true, &train, "logs to learn from, in the order of time", 0, 0, NULL},
        {"eval", "SOURCE", CT_OPTION_LIST, false, &eval, "logs to evaluate on afterwards", 0, 0, NULL},
        {"out", "DIR", CT_OPTION_TEXT, true, &out,
         "the model folder to write; a model that is there is replaced when this run writes its own", 0, 0, NULL},
        {"set", "PATH=VALUE", CT_OPTION_REPEATED, false, &sets,
         "changes one value of the model, as cross.layers=3 or deep=[500,500,500]; may be repeated", 0, 0, NULL},
        {"epochs", "N", CT_OPTION_INTEGER, false, &epochs, "passes over the log", 1, 10000, NULL},
        {"early-stop", "N", CT_OPTION_INTEGER, false, &early_stop,
         "ends after N epochs in a row that did not lower the log loss of --eval; keeps the best one; 0 = no", 0, 10000, NULL},
        {"checkpoint-rows", "N", CT_OPTION_INTEGER, false, &checkpoint_rows, "writes the folder each N rows; 0 = only at the end", 0, 1e15,
         NULL},
        {"keep", "N", CT_OPTION_INTEGER, false, &keep,
         "checkpoints that stay: the folder itself, and N - 1 before it as DIR.checkpoints/rows-ROWS, each a model folder", 1, 1000, NULL},
        {"resume", NULL, CT_OPTION_FLAG, false, &resume,
         "goes on from the folder that --out names, with the same logs (and new ones behind them)", 0, 0, NULL},
        {"init", "DIR", CT_OPTION_TEXT, false, &init,
         "begins with the rows and the tower of another model, as yesterday's; features, layers and row optimiser may differ, and what was "
         "taken, new and dropped is listed",
         0, 0, NULL},
        {"schedule-rows", "N", CT_OPTION_INTEGER, false, &schedule_rows,
         "learning rates fall linearly to 0 over N rows (of all epochs); as --set schedule.rows=N; 0 = as the model says, by default they "
         "stay",
         0, 1e15, NULL},
        {"memory", "MIB", CT_OPTION_INTEGER, false, &memory,
         "of the embedding rows and all that belongs to them, at most; what does not fit is kept in DIR.live-PID while the run lasts, and "
         "the result is the same; 0 = no limit",
         0, 1 << 30, NULL},
        {"publish", "DIR", CT_OPTION_TEXT, false, &publish,
         "also writes the model there while it trains, for `serve --follow DIR`: a base first, then deltas of what has changed; the last "
         "one is the model that --out gets",
         0, 0, NULL},
        {"publish-rows", "N", CT_OPTION_INTEGER, false, &publish_rows, "of --publish: each N rows, at a batch's end; 0 = not by rows", 0,
         1e15, NULL},
        {"publish-seconds", "S", CT_OPTION_NUMBER, false, &publish_seconds,
         "of --publish: S seconds after the last one, also while the log waits; 0 = not by time, and 60 where --publish-rows is not given "
         "either",
         0, 1e9, NULL},
        {"profile", NULL, CT_OPTION_FLAG, false, &profile, "shows where the time went", 0, 0, NULL},
        {"batch", "N", CT_OPTION_INTEGER, false, &batch, "rows of a step; 2048 is faster, and as good for a log of 100 million rows", 1,
         CT_MODEL_MAX_BATCH_ROWS, NULL},
        {"seed", "N", CT_OPTION_SEED, false, &seed, "decides first values, id drop and the order in shuffle windows", 0, 0, NULL},
        {"shuffle-rows", "N", CT_OPTION_INTEGER, false, &shuffle_rows,
         "rows are drawn from windows of N (rounded up to whole batches), in another order in each epoch; takes the memory of 2 N rows; "
         "0 = in the log's order",
         0, 1 << 30, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "0 = all processors; the result does not depend on it", 0, 1024, NULL},
        {"device", "auto|cpu", CT_OPTION_CHOICE, false, &device, "what computes", 0, 0, "auto|cpu"},
        {"precision", "auto|fp32|bf16", CT_OPTION_CHOICE, false, &precision,
         "of products; auto is bf16 where the processor multiplies bf16; otherwise as the model says", 0, 0, "auto|fp32|bf16"},
        {"max-bad-rows", "N|P%", CT_OPTION_BAD_ROWS, false, &bad_rows, "more bad rows than this are a failure", 0, 0, NULL},
    };
    static const ct_option_need needs[] = {{"publish-rows", "publish"}, {"publish-seconds", "publish"}};
    const ct_command command = {"train",
                                "Trains a model on click logs and writes a model folder.",
                                "  clicktower train --schema criteo --model dcn-v2 --train day_0.gz \\\n"
                                "      --eval day_1.gz --out model\n"
                                "  zcat day_*.gz | clicktower train --schema shop.yaml --model lr \\\n"
                                "      --train - --out model --set embedding.learning_rate=0.1\n"
                                "  clicktower train --schema criteo --model dcn-v2 --train day_1.gz \\\n"
                                "      --init model --out model_1",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_schema *schema = NULL;
    ct_model_spec *spec = NULL;
    ct_pool *pool = NULL;
    ct_model *model = NULL;
    json_t *init_lines = NULL;
    char *live = NULL;
    ct_folder_lock *lock = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse_needs(&command, needs, sizeof needs / sizeof *needs, argc, argv, status), done);
    CT_TRY_GOTO(code, check_out(out, resume, init, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&train, &eval}, 2, epochs, status), done);
    if (publish != NULL && is_within(publish, out)) {
        code = ct_fail(status, CT_USAGE,
                       "--publish %s is, or lies in, --out %s, which is replaced as a whole: give each a folder of its own", publish, out);
        goto done;
    }
    const atomic_bool *stop = ct_stop_on_signals();

    CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    CT_TRY_GOTO(code, ct_model_spec_load(model_name, sets.items, sets.count, &spec, status), done);
    if (precision) {
        char assignment[32];
        (void)snprintf(assignment, sizeof assignment, "precision=%s", precision);
        CT_TRY_GOTO(code, ct_model_spec_set(spec, assignment, status), done);
    }
    if (schedule_rows > 0) {
        char assignment[48];
        (void)snprintf(assignment, sizeof assignment, "schedule.rows=%" PRId64, schedule_rows);
        CT_TRY_GOTO(code, ct_model_spec_set(spec, assignment, status), done);
    }
    CT_TRY_GOTO(code, ct_folder_lock_take(out, &lock, status), done);
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    if (memory > 0) CT_TRY_GOTO(code, ct_folder_scratch(out, &live, status), done);
    const ct_model_options model_options = {.seed = seed,
                                            .batch_rows = (size_t)batch,
                                            .device = NULL,
                                            .pool = pool,
                                            .memory_bytes = (uint64_t)memory << 20,
                                            .live_folder = live};
    CT_TRY_GOTO(code,
                resume ? open_again(out, schema, spec, &model_options, &model, status)
                       : ct_model_create(schema, spec, &model_options, &model, status),
                done);

    if (init != NULL) CT_TRY_GOTO(code, begin_with(model, init, &init_lines, status), done);

    ct_train_options train_options = {.train = CT_READER_OPTIONS_INIT,
                                      .eval_sources = eval.items,
                                      .eval_source_count = eval.count,
                                      .epochs = (uint32_t)epochs,
                                      .early_stop = (uint32_t)early_stop,
                                      .checkpoint_rows = checkpoint_rows,
                                      .resume = resume,
                                      .keep = (uint32_t)keep,
                                      .out_folder = out,
                                      .publish_folder = publish,
                                      .publish_rows = publish_rows,
                                      .publish_seconds = publish_rows == 0 && publish_seconds == 0 ? 60 : publish_seconds,
                                      .pool = pool,
                                      .progress = true,
                                      .init = init_lines,
                                      .warn = warn};
    train_options.train.sources = train.items;
    train_options.train.source_count = train.count;
    train_options.train.batch_rows = (size_t)batch;
    train_options.train.max_bad_rows = bad_rows.rows;
    train_options.train.max_bad_share = bad_rows.share;
    train_options.train.stop = stop;
    train_options.train.shuffle_rows = (size_t)shuffle_rows;
    train_options.train.shuffle_seed = seed;
    ct_train_result result = {0};
    code = ct_train(model, &train_options, &result, status);
    if (code != CT_OK) {
        code = ct_stop_explain(
            resume ? "nothing new was learned, and the folder is as it was" : "nothing was learned yet and nothing was written", status);
        goto done;
    }
    ct_warn_report("train", "training", &result.train_report);
    ct_warn_report("train", "evaluation", &result.eval_report);
    print_summary(out, publish, epochs, &result);
    if (profile) print_profile(model, pool, &result);
    if (result.unevaluated.code != CT_OK)
        code =
            ct_fail(status, result.unevaluated.code, "%s; %s holds the trained model, which was not evaluated: `clicktower eval` does that",
                    result.unevaluated.message, out);
    if (result.stopped) {
        char what[CT_STATUS_MESSAGE_BYTES / 2];
        (void)snprintf(what, sizeof what,
                       "%s holds the model of the first %" PRId64 " rows, which can be used as it is, or trained on with --resume", out,
                       result.progressive.rows);
        if (result.outgrew.code != CT_OK) {
            code = ct_fail(status, CT_INVALID, "%s; %s and more memory", result.outgrew.message, what);
        } else {
            (void)ct_fail(status, CT_CANCELLED, "stopped");
            code = ct_stop_explain(what, status);
        }
    }
done:
    json_decref(init_lines);
    ct_model_destroy(model);
    free(live);
    ct_folder_lock_release(lock);
    ct_pool_destroy(pool);
    ct_model_spec_destroy(spec);
    ct_schema_destroy(schema);
    ct_text_list_deinit(&train);
    ct_text_list_deinit(&eval);
    ct_text_list_deinit(&sets);
    return code;
}
