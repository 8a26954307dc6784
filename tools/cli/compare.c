/* clicktower compare: arms of an experiment on one log, offline. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "experiment/arms.h"
#include "experiment/compare.h"
#include "tools/cli/cli.h"

static void say(void *context, const char *text) {
    (void)context;
    (void)fprintf(stderr, "clicktower compare: %s\n", text);
}

ct_code ct_verb_compare(int argc, char **argv, ct_status *status) {
    const char *schema_name = NULL, *arms = NULL, *out = NULL;
    ct_text_list train = {0}, valid = {0}, test = {0};
    int64_t seeds = 3, batch = CT_MODEL_DEFAULT_BATCH_ROWS, threads = 0, draws = 1000, epochs = 1, ndcg_at = 10, parallel_arms = 0,
            memory = 0, save_seconds = 60, shuffle_rows = 0;
    uint64_t seed = 1;
    const ct_option options[] = {
        {"schema", "FILE", CT_OPTION_TEXT, true, &schema_name, "what the columns of the log mean", 0, 0, NULL},
        {"arms", "FILE.yaml", CT_OPTION_TEXT, true, &arms, "the arms; the first one is the control", 0, 0, NULL},
        {"train", "SOURCE", CT_OPTION_LIST, true, &train, "logs that all arms learn from", 0, 0, NULL},
        {"valid", "SOURCE", CT_OPTION_LIST, false, &valid, "logs that choose the epoch; reported apart", 0, 0, NULL},
        {"test", "SOURCE", CT_OPTION_LIST, true, &test, "logs that judge the arms, once", 0, 0, NULL},
        {"out", "DIR", CT_OPTION_TEXT, true, &out,
         "folder for compare.json and compare.html; a comparison that was broken off goes on from DIR/state when it is started again", 0, 0,
         NULL},
        {"seeds", "N", CT_OPTION_INTEGER, false, &seeds, "models of each arm, from different first values", 1, 100, NULL},
        {"seed", "N", CT_OPTION_SEED, false, &seed, "the first one", 0, 0, NULL},
        {"draws", "N", CT_OPTION_INTEGER, false, &draws, "of the bootstrap", 100, 100000, NULL},
        {"epochs", "N", CT_OPTION_INTEGER, false, &epochs,
         "passes over the training logs; with --valid each model is judged at its best one", 1, 1000, NULL},
        {"ndcg-at", "K", CT_OPTION_INTEGER, false, &ndcg_at, "places that nDCG looks at", 1, 1000, NULL},
        {"parallel-arms", "N", CT_OPTION_INTEGER, false, &parallel_arms,
         "arms that train at once, so that fewer take less memory and more passes over the logs; 0 = all; the report does not depend on it",
         0, CT_ARMS_MAX, NULL},
        {"memory", "MIB", CT_OPTION_INTEGER, false, &memory,
         "limit on the tables of all models that train at once; what does not fit is kept in --out meanwhile; 0 = none; the report does "
         "not "
         "depend on it",
         0, 1 << 30, NULL},
        {"save-seconds", "N", CT_OPTION_INTEGER, false, &save_seconds,
         "models are saved behind an epoch when so long has passed since the last time, so that a comparison can go on; finished ones are "
         "saved at once",
         0, 1 << 30, NULL},
        {"batch", "N", CT_OPTION_INTEGER, false, &batch, "rows of a step; 2048 is faster, and as good for a log of 100 million rows", 1,
         CT_MODEL_MAX_BATCH_ROWS, NULL},
        {"shuffle-rows", "N", CT_OPTION_INTEGER, false, &shuffle_rows,
         "training rows are drawn from windows of so many, anew in each epoch; 0 = in the log's order. Takes the memory of two windows", 0,
         1 << 26, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "0 = all processors; the result does not depend on it", 0, 1024, NULL},
    };
    const ct_command command = {"compare",
                                "Compares arms of an experiment on one log: the same rows, paired intervals.",
                                "  clicktower compare --schema shop.yaml --arms arms.yaml --train train.gz \\\n"
                                "      --valid valid.gz --test test.gz --out report",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_schema *schema = NULL;
    ct_pool *pool = NULL;
    json_t *report = NULL;
    char *table = NULL, *path = NULL, *page = NULL, *page_path = NULL, *state = NULL, *tables = NULL, *scratch = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    const atomic_bool *stop = ct_stop_on_signals();
    CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    CT_TRY_GOTO(code, ct_folder_create(out, status), done); /* before the work: a folder that cannot be made is told at once */
    state = ct_path_join(out, "state");
    tables = ct_path_join(out, "tables");
    if (!state || !tables) {
        code = ct_fail_memory(status, strlen(out), "a path");
        goto done;
    }
    if (memory > 0) CT_TRY_GOTO(code, ct_folder_scratch(tables, &scratch, status), done);
    const ct_compare_options compare = {.schema = schema,
                                        .arms_path = arms,
                                        .train_sources = train.items,
                                        .train_source_count = train.count,
                                        .valid_sources = valid.items,
                                        .valid_source_count = valid.count,
                                        .test_sources = test.items,
                                        .test_source_count = test.count,
                                        .seeds = (uint32_t)seeds,
                                        .seed = seed,
                                        .batch_rows = (size_t)batch,
                                        .shuffle_rows = (size_t)shuffle_rows,
                                        .draws = (uint32_t)draws,
                                        .epochs = (uint32_t)epochs,
                                        .ndcg_at = (size_t)ndcg_at,
                                        .parallel_arms = (size_t)parallel_arms,
                                        .memory_bytes = (uint64_t)memory << 20,
                                        .state_folder = state,
                                        .scratch_folder = scratch,
                                        .save_ms = save_seconds * 1000,
                                        .pool = pool,
                                        .stop = stop,
                                        .progress = true,
                                        .say = say};
    if (ct_compare_run(&compare, &report, status) != CT_OK) {
        code = ct_stop_explain("no report was written; started again, the comparison goes on where it was", status);
        goto done;
    }
    path = ct_path_join(out, "compare.json");
    page_path = ct_path_join(out, "compare.html");
    table = ct_compare_table(report);
    CT_TRY_GOTO(code, ct_compare_html(report, &page, status), done);
    if (!path || !page_path || !table) {
        code = ct_fail_memory(status, 4096, "the report");
        goto done;
    }
    CT_TRY_GOTO(code, ct_json_save(path, report, status), done);
    CT_TRY_GOTO(code, ct_file_write(page_path, page, strlen(page), status), done);
    CT_TRY_GOTO(code, ct_compare_forget(state, status), done);
    (void)fputs(table, stdout);
    (void)printf("\nreport %s\npage %s\n", path, page_path);
done:
    if (scratch != NULL) {
        ct_status ignored = CT_STATUS_INIT;
        if (ct_folder_remove(scratch, &ignored) != CT_OK) ct_warn("compare", "%s", ignored.message);
    }
    free(scratch);
    free(tables);
    free(state);
    free(table);
    free(path);
    free(page);
    free(page_path);
    json_decref(report);
    ct_pool_destroy(pool);
    ct_schema_destroy(schema);
    ct_text_list_deinit(&train);
    ct_text_list_deinit(&valid);
    ct_text_list_deinit(&test);
    return code;
}
