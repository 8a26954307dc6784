/* clicktower report: an experiment on live traffic. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "experiment/online.h"
#include "tools/cli/cli.h"

ct_code ct_verb_report(int argc, char **argv, ct_status *status) {
    const char *table = NULL, *control = NULL, *weights = NULL, *html = NULL, *json = NULL;
    double plan = 10000.0, alpha = 0.05;
    const ct_option options[] = {
        {"table", "SOURCE", CT_OPTION_TEXT, true, &table, "rows with a header that names unit, time, arm, value and maybe count, covariate",
         0, 0, NULL},
        {"control", "ARM", CT_OPTION_TEXT, false, &control, "the others are compared with it; without it 'control', else the first by name",
         0, 0, NULL},
        {"weights", "A=W,B=W", CT_OPTION_TEXT, false, &weights, "how units were meant to split; without it equally", 0, 0, NULL},
        {"plan", "UNITS", CT_OPTION_NUMBER, false, &plan,
         "units of both arms that you plan for: there the confidence sequence is narrowest; fix it before you look", 1, 1e15, NULL},
        {"alpha", "P", CT_OPTION_NUMBER, false, &alpha, "chance of a false claim", 0.000001, 0.999999, NULL},
        {"json", "FILE|-", CT_OPTION_TEXT, false, &json, "also as JSON; - = instead of the table", 0, 0, NULL},
        {"html", "FILE.html", CT_OPTION_TEXT, false, &html, "also as a page with a plot over time", 0, 0, NULL},
    };
    const ct_command command = {"report",
                                "Compares the arms of an experiment on live traffic: ratio metrics with the unit as cluster,\n"
                                "intervals that stay valid while you look, and a check of the split itself.",
                                "  clicktower report --table clicks.tsv --control old --weights old=90,new=10 --html report.html",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    json_t *report = NULL;
    char *text = NULL, *page = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    const ct_online_options online = {
        .table = table, .control = control, .weights = weights, .plan = plan, .alpha = alpha, .stop = ct_stop_on_signals()};
    if (ct_online_report(&online, &report, status) != CT_OK) {
        code = ct_stop_explain("no report was written", status);
        goto done;
    }
    if (html != NULL) {
        CT_TRY_GOTO(code, ct_online_html(report, &page, status), done);
        CT_TRY_GOTO(code, ct_file_write(html, page, strlen(page), status), done);
    }
    if (json != NULL) CT_TRY_GOTO(code, ct_json_output(json, report, status), done);
    if (json != NULL && strcmp(json, "-") == 0) goto done;
    text = ct_online_table(report);
    if (text == NULL) {
        code = ct_fail_memory(status, 4096, "the report");
        goto done;
    }
    (void)fputs(text, stdout);
done:
    free(text);
    free(page);
    json_decref(report);
    return code;
}
