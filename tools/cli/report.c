/* clicktower report: an experiment on live traffic, from a table or from what a server logged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "experiment/live_report.h"
#include "experiment/online.h"
#include "tools/cli/cli.h"

typedef struct outputs {
    const char *folder, *json, *html; /* NULL = not wanted */
} outputs;

/* report.json and report.html in a folder. */
static ct_code write_folder(const char *folder, const json_t *report, const char *page, ct_status *status) {
    char *json_path = ct_path_join(folder, "report.json"), *page_path = ct_path_join(folder, "report.html");
    ct_code code = json_path != NULL && page_path != NULL ? CT_OK : ct_fail_memory(status, strlen(folder), "a file's name");
    if (code == CT_OK) code = ct_json_save(json_path, report, status);
    if (code == CT_OK) code = ct_file_write(page_path, page, strlen(page), status);
    free(json_path);
    free(page_path);
    return code;
}

static ct_code write_report(const outputs *out, const json_t *report, ct_status *status) {
    char *page = NULL, *text = NULL;
    ct_code code = CT_OK;
    if (out->html != NULL || out->folder != NULL) CT_TRY_GOTO(code, ct_online_html(report, &page, status), done);
    if (out->html != NULL) CT_TRY_GOTO(code, ct_file_write(out->html, page, strlen(page), status), done);
    if (out->folder != NULL) CT_TRY_GOTO(code, write_folder(out->folder, report, page, status), done);
    if (out->json != NULL) CT_TRY_GOTO(code, ct_json_output(out->json, report, status), done);
    if (out->json != NULL && strcmp(out->json, "-") == 0) goto done;
    text = ct_online_table(report);
    if (text == NULL) {
        code = ct_fail_memory(status, 4096, "the report");
        goto done;
    }
    (void)fputs(text, stdout);
    if (out->folder != NULL) (void)printf("\nreport %s/report.json\npage %s/report.html\n", out->folder, out->folder);
done:
    free(text);
    free(page);
    return code;
}

/* A table, or what a server logged: not both, nor half of it. */
static ct_code check_source(const ct_online_options *table, const ct_live_options *live, ct_status *status) {
    const bool any = live->exposures != NULL || live->feedback != NULL || live->experiment != NULL;
    const bool all = live->exposures != NULL && live->feedback != NULL && live->experiment != NULL;
    if (table->table != NULL ? any : !all)
        return ct_fail(status, CT_USAGE, "give --table, or --exposures, --feedback and --experiment: see clicktower report --help");
    if ((live->training_count > 0) != (live->schema != NULL))
        return ct_fail(status, CT_USAGE, "--training and --schema are needed together: what the served model was trained on");
    return CT_OK;
}

ct_code ct_verb_report(int argc, char **argv, ct_status *status) {
    outputs out = {0};
    ct_online_options table = {.plan = 10000.0, .alpha = 0.05};
    ct_live_options live = {.positive = "click", .until_ms = INT64_MIN};
    ct_text_list events = {0}, training = {0}, slices = {0};
    int64_t wait_seconds = 0;
    double until = 0.0;
    const ct_option options[] = {
        {"exposures", "DIR", CT_OPTION_TEXT, false, &live.exposures, "what `serve --exposures` wrote", 0, 0, NULL},
        {"feedback", "DIR", CT_OPTION_TEXT, false, &live.feedback, "what `serve --feedback` wrote; may be the same folder", 0, 0, NULL},
        {"experiment", "FILE.yaml", CT_OPTION_TEXT, false, &live.experiment, "the experiment that was served", 0, 0, NULL},
        {"table", "SOURCE", CT_OPTION_TEXT, false, &table.table,
         "instead of these three: rows with a header that names unit, time, arm, value and maybe count, covariate", 0, 0, NULL},
        {"out", "DIR", CT_OPTION_TEXT, false, &out.folder, "where report.json and report.html (with a plot over time) go", 0, 0, NULL},
        {"positive", "EVENT", CT_OPTION_TEXT, false, &live.positive, "the event whose rate decides", 0, 0, NULL},
        {"event", "NAME", CT_OPTION_REPEATED, false, &events, "also compares the sum of this event's values; may be repeated", 0, 0, NULL},
        {"wait-seconds", "N", CT_OPTION_INTEGER, false, &wait_seconds,
         "an event counts up to so long after it was shown, and what was shown counts once that has passed; 0 = always", 0, 1e9, NULL},
        {"until", "UNIX_SECONDS", CT_OPTION_NUMBER, false, &until, "feedback is whole up to then; 0 = up to the newest that was received",
         0, 1e11, NULL},
        {"covariate", "SOURCE", CT_OPTION_TEXT, false, &live.covariate,
         "a table with a header that names unit and value, from before the experiment: cuts the variance (CUPED)", 0, 0, NULL},
        {"training", "SOURCE", CT_OPTION_LIST, false, &training, "what the served model was trained on: shows the drift of each feature", 0,
         0, NULL},
        {"schema", "criteo|FILE.yaml", CT_OPTION_TEXT, false, &live.schema, "of --training", 0, 0, NULL},
        {"slice", "FEATURE", CT_OPTION_REPEATED, false, &slices, "also compares by the values of this feature; may be repeated", 0, 0,
         NULL},
        {"control", "ARM", CT_OPTION_TEXT, false, &table.control,
         "of a table: the others are compared with it; without it 'control', else the first by name", 0, 0, NULL},
        {"weights", "A=W,B=W", CT_OPTION_TEXT, false, &table.weights, "of a table: how units were meant to split; without it equally", 0, 0,
         NULL},
        {"plan", "UNITS", CT_OPTION_NUMBER, false, &table.plan,
         "units of both arms that you plan for: there the confidence sequence is narrowest; fix it before you look", 1, 1e15, NULL},
        {"alpha", "P", CT_OPTION_NUMBER, false, &table.alpha, "chance of a false claim", 0.000001, 0.999999, NULL},
        {"json", "FILE|-", CT_OPTION_TEXT, false, &out.json, "also as JSON; - = instead of the table", 0, 0, NULL},
        {"html", "FILE.html", CT_OPTION_TEXT, false, &out.html, "also as a page with a plot over time", 0, 0, NULL},
    };
    static const ct_option_need needs[] = {{"positive", "exposures"}, {"event", "exposures"},     {"wait-seconds", "exposures"},
                                           {"until", "exposures"},    {"covariate", "exposures"}, {"training", "exposures"},
                                           {"slice", "exposures"},    {"control", "table"},       {"weights", "table"}};
    const ct_command command = {"report",
                                "Compares the arms of an experiment on live traffic: ratio metrics with the unit as cluster, "
                                "intervals that stay valid while you look, and a check of the split itself.",
                                "  clicktower report --exposures log --feedback log \\\n"
                                "      --experiment ranker.yaml --out report\n"
                                "  clicktower report --table clicks.tsv --control old \\\n"
                                "      --weights old=90,new=10 --html report.html",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    json_t *report = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse_needs(&command, needs, sizeof needs / sizeof *needs, argc, argv, status), done);
    live.events = events.items;
    live.event_count = events.count;
    live.training = training.items;
    live.training_count = training.count;
    live.slices = slices.items;
    live.slice_count = slices.count;
    live.wait_ms = wait_seconds * 1000;
    if (until > 0.0) live.until_ms = (int64_t)(until * 1000.0 + 0.5);
    live.plan = table.plan;
    live.alpha = table.alpha;
    CT_TRY_GOTO(code, check_source(&table, &live, status), done);
    const char *const read[] = {table.table, live.covariate};
    CT_TRY_GOTO(code, ct_check_output("json", out.json, read, 2, status), done);
    CT_TRY_GOTO(code, ct_check_output("html", out.html, read, 2, status), done);
    live.stop = table.stop = ct_stop_on_signals();
    live.progress = true;
    if (out.folder != NULL) CT_TRY_GOTO(code, ct_folder_create(out.folder, status), done); /* before the work */
    code = table.table != NULL ? ct_online_report(&table, &report, status) : ct_live_report(&live, &report, status);
    if (code != CT_OK) {
        code = ct_stop_explain("no report was written", status);
        goto done;
    }
    code = write_report(&out, report, status);
done:
    json_decref(report);
    ct_text_list_deinit(&events);
    ct_text_list_deinit(&training);
    ct_text_list_deinit(&slices);
    return code;
}
