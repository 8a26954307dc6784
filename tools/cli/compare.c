/* clicktower compare: arms of an experiment on one log, offline. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/text.h"
#include "experiment/compare.h"
#include "tools/cli/cli.h"

ct_code ct_verb_compare(int argc, char **argv, ct_status *status) {
    const char *schema_name = NULL, *arms = NULL, *out = NULL;
    ct_text_list train = {0}, valid = {0}, test = {0};
    int64_t seeds = 3, batch = CT_MODEL_DEFAULT_BATCH_ROWS, threads = 0, draws = 1000;
    uint64_t seed = 1;
    const ct_option options[] = {
        {"schema", "FILE", CT_OPTION_TEXT, true, &schema_name, "what the columns of the log mean", 0, 0, NULL},
        {"arms", "FILE.yaml", CT_OPTION_TEXT, true, &arms, "the arms; the first one is the control", 0, 0, NULL},
        {"train", "SOURCE", CT_OPTION_LIST, true, &train, "logs that all arms learn from", 0, 0, NULL},
        {"valid", "SOURCE", CT_OPTION_LIST, false, &valid, "logs for choosing, reported apart", 0, 0, NULL},
        {"test", "SOURCE", CT_OPTION_LIST, true, &test, "logs that judge the arms, once", 0, 0, NULL},
        {"out", "DIR", CT_OPTION_TEXT, true, &out, "folder for compare.json", 0, 0, NULL},
        {"seeds", "N", CT_OPTION_INTEGER, false, &seeds, "models of each arm, from different first values", 1, 100, NULL},
        {"seed", "N", CT_OPTION_SEED, false, &seed, "the first one", 0, 0, NULL},
        {"draws", "N", CT_OPTION_INTEGER, false, &draws, "of the bootstrap", 100, 100000, NULL},
        {"batch", "N", CT_OPTION_INTEGER, false, &batch, "rows of a step; 2048 is faster, and as good for a log of 100 million rows", 1,
         CT_MODEL_MAX_BATCH_ROWS, NULL},
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
    char *table = NULL, *path = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&train, &valid, &test}, 3, 1, status), done);
    const atomic_bool *stop = ct_stop_on_signals();
    CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    CT_TRY_GOTO(code, ct_folder_create(out, status), done); /* before the work: a folder that cannot be made is told at once */
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
                                        .draws = (uint32_t)draws,
                                        .pool = pool,
                                        .stop = stop,
                                        .progress = true};
    if (ct_compare_run(&compare, &report, status) != CT_OK) {
        code = ct_stop_explain("no report was written", status);
        goto done;
    }
    path = ct_path_join(out, "compare.json");
    table = ct_compare_table(report);
    if (!path || !table) {
        code = ct_fail_memory(status, 4096, "the report");
        goto done;
    }
    CT_TRY_GOTO(code, ct_json_save(path, report, status), done);
    (void)fputs(table, stdout);
    (void)printf("\nreport %s\n", path);
done:
    free(table);
    free(path);
    json_decref(report);
    ct_pool_destroy(pool);
    ct_schema_destroy(schema);
    ct_text_list_deinit(&train);
    ct_text_list_deinit(&valid);
    ct_text_list_deinit(&test);
    return code;
}
