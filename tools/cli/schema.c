/* clicktower schema: guesses a schema from a log's first rows. */
#include <stdio.h>
#include <stdlib.h>

#include "data/guess.h"
#include "tools/cli/cli.h"

ct_code ct_verb_schema(int argc, char **argv, ct_status *status) {
    ct_text_list words = {0};
    const char *name = "log";
    int64_t rows = 10000;
    const ct_option options[] = {
        {"name", "NAME", CT_OPTION_TEXT, false, &name, "of the schema", 0, 0, NULL},
        {"rows", "N", CT_OPTION_INTEGER, false, &rows, "that are looked at", 2, 10000000, NULL},
    };
    const ct_command command = {
        "schema",
        "Guesses a schema from the first rows of a log and prints it, each field with the reason: a beginning to be "
        "looked at and corrected.",
        "  clicktower schema log.csv.gz >shop.yaml\n"
        "  clicktower schema --name shop --rows 100000 log.tsv",
        "SOURCE",
        &words,
        options,
        sizeof options / sizeof *options};
    char *yaml = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    const ct_guess_options guess = {.source = words.items[0], .name = name, .max_rows = (size_t)rows, .stop = ct_stop_on_signals()};
    if (ct_schema_guess(&guess, &yaml, status) != CT_OK) {
        code = ct_stop_explain("no schema was printed", status);
        goto done;
    }
    (void)fputs(yaml, stdout);
done:
    free(yaml);
    ct_text_list_deinit(&words);
    return code;
}
