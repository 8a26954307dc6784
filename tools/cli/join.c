/* clicktower join: what a server showed, as training rows. */
#include <inttypes.h>
#include <stdio.h>

#include "base/json.h"
#include "experiment/join.h"
#include "tools/cli/cli.h"

/* Its counts that are not 0, but those of files and lines that were simply read. */
static void print_counts(const char *what, const json_t *counts) {
    const char *name = NULL;
    const json_t *value = NULL;
    json_object_foreach((json_t *)(uintptr_t)counts, name, value) if (json_integer_value(value) != 0)(void)
        printf("%s.%s %" JSON_INTEGER_FORMAT "\n", what, name, json_integer_value(value));
}

ct_code ct_verb_join(int argc, char **argv, ct_status *status) {
    ct_text_list arms = {0};
    const char *exposures = NULL, *feedback = NULL, *schema_name = NULL, *out = NULL, *positive = "click", *json = NULL;
    int64_t wait_seconds = 1800, until_ms = INT64_MIN;
    double until = 0.0;
    const ct_option options[] = {
        {"exposures", "DIR", CT_OPTION_TEXT, true, &exposures, "what `serve --exposures` wrote", 0, 0, NULL},
        {"feedback", "DIR", CT_OPTION_TEXT, true, &feedback, "what `serve --feedback` wrote; may be the same folder", 0, 0, NULL},
        {"schema", "criteo|FILE.yaml", CT_OPTION_TEXT, true, &schema_name, "which columns the rows have", 0, 0, NULL},
        {"arm", "NAME", CT_OPTION_LIST, false, &arms, "only requests of these arms; without it of all", 0, 0, NULL},
        {"out", "FILE.ctb|FILE.tsv", CT_OPTION_TEXT, true, &out, "a block file where the name ends in .ctb, else text", 0, 0, NULL},
        {"positive", "EVENT", CT_OPTION_TEXT, false, &positive, "the event that makes a row's label 1", 0, 0, NULL},
        {"wait-seconds", "N", CT_OPTION_INTEGER, false, &wait_seconds,
         "how long after it was shown an event counts; a row is written once that has passed; 0 = events always count, and no row waits", 0,
         1e9, NULL},
        {"until", "UNIX_SECONDS", CT_OPTION_NUMBER, false, &until, "feedback is whole up to then; 0 = up to the newest that was received",
         0, 1e11, NULL},
        {"json", "FILE|-", CT_OPTION_TEXT, false, &json, "what was read and left out, as JSON; - = instead of the lines", 0, 0, NULL},
    };
    const ct_command command = {"join",
                                "Makes training rows of what was shown (never of what was only scored), in the order of its time. "
                                "The label says whether the event came within the waiting time.",
                                "  clicktower join --exposures log --feedback log --schema shop.yaml \\\n"
                                "      --out shown.ctb\n"
                                "  clicktower train --schema shop.yaml --model fm --train shown.ctb --out model",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_schema *schema = NULL;
    json_t *summary = NULL;
    const json_t *warning = NULL, *field = NULL;
    size_t i = 0;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    if (until > 0.0) until_ms = (int64_t)(until * 1000.0 + 0.5);
    const ct_join_options join = {.exposures = exposures,
                                  .feedback = feedback,
                                  .schema = schema,
                                  .arms = arms.items,
                                  .arm_count = arms.count,
                                  .out = out,
                                  .positive = positive,
                                  .wait_ms = wait_seconds * 1000,
                                  .until_ms = until_ms,
                                  .stop = ct_stop_on_signals(),
                                  .progress = true};
    if (ct_join(&join, &summary, status) != CT_OK) {
        code = ct_stop_explain("no file was written", status);
        goto done;
    }
    json_array_foreach(json_object_get(summary, "warnings"), i, warning) ct_warn("join", "%s", json_string_value(warning));
    if (json != NULL) {
        code = ct_json_output(json, summary, status);
        if (code != CT_OK || (json[0] == '-' && json[1] == '\0')) goto done;
    }
    (void)printf("rows %" JSON_INTEGER_FORMAT "\npositives %" JSON_INTEGER_FORMAT "\n",
                 json_integer_value(json_object_get(summary, "rows")), json_integer_value(json_object_get(summary, "positives")));
    print_counts("exposures", json_object_get(summary, "exposures"));
    print_counts("feedback", json_object_get(summary, "feedback"));
    json_array_foreach(json_object_get(summary, "served"), i, field)(void) printf("as_served %s\n", json_string_value(field));
    (void)printf("file %s\n", out);
done:
    json_decref(summary);
    ct_schema_destroy(schema);
    ct_text_list_deinit(&arms);
    return code;
}
