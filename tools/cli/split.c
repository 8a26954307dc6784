/* clicktower split: one log into training, validation and test rows. */
#include "experiment/split.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "tools/cli/cli.h"

/* "80,10,10", or "80,20" for no validation. */
static ct_code parse_parts(const char *text, int64_t out_parts[CT_SPLIT_PARTS], ct_status *status) {
    int64_t numbers[CT_SPLIT_PARTS];
    size_t count = 0;
    bool good = true;
    for (const char *at = text; good; at++) {
        const size_t bytes = strcspn(at, ",");
        good = count < CT_SPLIT_PARTS && ct_parse_i64(at, bytes, &numbers[count]) && numbers[count] >= 0 && numbers[count] <= 100;
        count++;
        at += bytes;
        if (*at == '\0') break;
    }
    good = good && count >= 2;
    if (good && count == 2) {
        numbers[CT_SPLIT_TEST] = numbers[1];
        numbers[CT_SPLIT_VALID] = 0;
    }
    good = good && numbers[0] > 0 && numbers[2] > 0 && numbers[0] + numbers[1] + numbers[2] == 100;
    if (!good) {
        char shown[80];
        return ct_fail(status, CT_USAGE, "--parts is '%s': give whole percentages of train, valid and test that sum to 100, as 80,10,10",
                       ct_text_show(text, strlen(text), shown, sizeof shown));
    }
    memcpy(out_parts, numbers, sizeof numbers);
    return CT_OK;
}

static void print_report(const json_t *report, const char *folder) {
    const json_t *part = NULL;
    const bool units = json_is_string(json_object_get(report, "unit")), items = json_is_string(json_object_get(report, "item"));
    size_t i = 0;
    (void)printf("%-6s %10s %10s", "part", "rows", "clicks");
    if (units) (void)printf(" %9s %9s", "units", "new");
    if (items) (void)printf(" %9s %9s %11s", "items", "new", "rows of new");
    (void)printf("  file\n");
    json_array_foreach(json_object_get(report, "parts"), i, part) {
#define NUMBER(name) json_integer_value(json_object_get(part, name))
        (void)printf("%-6s %10lld %10lld", json_string_value(json_object_get(part, "name")), (long long)NUMBER("rows"),
                     (long long)NUMBER("clicks"));
        if (units) (void)printf(" %9lld %9lld", (long long)NUMBER("units"), (long long)NUMBER("new_units"));
        if (items)
            (void)printf(" %9lld %9lld %11lld", (long long)NUMBER("items"), (long long)NUMBER("new_items"),
                         (long long)NUMBER("new_item_rows"));
        (void)printf("  %s/%s\n", folder, json_string_value(json_object_get(part, "file")));
#undef NUMBER
    }
    const json_t *unseen = json_object_get(report, "unseen");
    if (json_is_object(unseen))
        (void)printf("%lld unseen items; their %lld training rows were left out\n",
                     (long long)json_integer_value(json_object_get(unseen, "items")),
                     (long long)json_integer_value(json_object_get(unseen, "rows_left_out")));
}

ct_code ct_verb_split(int argc, char **argv, ct_status *status) {
    const char *schema_name = NULL, *by = NULL, *parts = "80,10,10", *item = NULL, *out = NULL;
    ct_text_list in = {0};
    double unseen = 0.0;
    uint64_t seed = 1;
    ct_bad_row_limit bad_rows = CT_BAD_ROW_LIMIT_INIT;
    const ct_option options[] = {
        {"schema", "FILE", CT_OPTION_TEXT, true, &schema_name, "what the columns of the log mean; it needs a time", 0, 0, NULL},
        {"by", "time|user-time", CT_OPTION_CHOICE, true, &by, "time: the last rows are the test; user-time: the last rows of each unit are",
         0, 0, "time|user-time"},
        {"in", "SOURCE", CT_OPTION_LIST, true, &in, "logs as text; they are read twice", 0, 0, NULL},
        {"out", "DIR", CT_OPTION_TEXT, true, &out, "folder for train, valid, test (.csv where commas separate, else .tsv) and split.json",
         0, 0, NULL},
        {"parts", "A,B,C", CT_OPTION_TEXT, false, &parts, "percent of the rows that train, validate and test", 0, 0, NULL},
        {"unseen-items", "P%", CT_OPTION_PERCENT, false, &unseen, "of the items lose their training rows: what a new item meets", 0, 99.9,
         NULL},
        {"item", "FIELD", CT_OPTION_TEXT, false, &item, "the item's id; without it, that of the schema's first vector", 0, 0, NULL},
        {"seed", "N", CT_OPTION_SEED, false, &seed, "draws the items of --unseen-items", 0, 0, NULL},
        {"max-bad-rows", "N|P%", CT_OPTION_BAD_ROWS, false, &bad_rows, "more bad rows than this are a failure", 0, 0, NULL},
    };
    static const ct_option_need needs[] = {{"seed", "unseen-items"}};
    const ct_command command = {"split",
                                "Splits a log into training, validation and test rows by time: the lines as they stand, "
                                "each part in order of time. Says what makes the parts differ.",
                                "  clicktower split --schema shop.yaml --by time --in log.gz --out split\n"
                                "  clicktower split --schema shop.yaml --by user-time --unseen-items 20% \\\n"
                                "      --in log.gz --out cold",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_schema *schema = NULL;
    json_t *report = NULL, *warning = NULL;
    ct_read_report rows;
    size_t i = 0;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse_needs(&command, needs, sizeof needs / sizeof *needs, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&in}, 1, 2, status), done);
    ct_split_options split = {.by = strcmp(by, "time") == 0 ? CT_SPLIT_BY_TIME : CT_SPLIT_BY_UNIT_TIME,
                              .sources = in.items,
                              .source_count = in.count,
                              .unseen_share = unseen,
                              .item = item,
                              .seed = seed,
                              .folder = out,
                              .max_bad_rows = bad_rows.rows,
                              .max_bad_share = bad_rows.share,
                              .stop = ct_stop_on_signals(),
                              .progress = true};
    CT_TRY_GOTO(code, parse_parts(parts, split.parts, status), done);
    CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    split.schema = schema;
    if (ct_split(&split, &report, &rows, status) != CT_OK) {
        code = ct_stop_explain("no split was written", status);
        goto done;
    }
    rows.unsorted_times = 0; /* among the warnings below, with what became of them */
    ct_warn_report("split", "input", &rows);
    json_array_foreach(json_object_get(report, "warnings"), i, warning) ct_warn("split", "%s", json_string_value(warning));
    print_report(report, out);
done:
    json_decref(report);
    ct_schema_destroy(schema);
    ct_text_list_deinit(&in);
    return code;
}
