/* What the parts of a split hold, and what a reader of results on them should know. */
#include <stdlib.h>
#include <string.h>

#include "experiment/counts.h"
#include "experiment/report_internal.h"
#include "experiment/split_internal.h"

#define MANY_NEW_UNITS 0.5 /* of the test rows */

/* Of one part; "new" where training lacks the value. */
typedef struct part_numbers {
    size_t rows, clicks, units, new_units, new_unit_rows, items, new_items, new_item_rows, repeated_rows;
    int64_t first_time, last_time;
} part_numbers;

/* The values of one column in training and in a part. */
static ct_code count_values(const split_run *run, const uint64_t *values, size_t part, const ct_counts *train, size_t *out_distinct,
                            size_t *out_new, size_t *out_new_rows, ct_status *status) {
    ct_counts *seen = NULL;
    ct_code code = CT_OK;
    size_t fresh = 0, fresh_rows = 0;
    CT_TRY(ct_counts_create(&seen, status));
    for (size_t i = 0; i < run->rows.count; i++) {
        if (run->rows.part[i] != part) continue;
        const bool is_new = ct_counts_get(train, values[i]) == 0;
        fresh_rows += is_new;
        if (ct_counts_get(seen, values[i]) == 0) fresh += is_new;
        CT_TRY_GOTO(code, ct_counts_add(seen, values[i], 1, status), done);
    }
    *out_distinct = ct_counts_size(seen);
    *out_new = fresh;
    *out_new_rows = fresh_rows;
done:
    ct_counts_destroy(seen);
    return code;
}

static ct_code train_values(const split_run *run, const uint64_t *values, ct_counts **out_train, ct_status *status) {
    ct_counts *train = NULL;
    CT_TRY(ct_counts_create(&train, status));
    for (size_t i = 0; i < run->rows.count; i++) {
        if (run->rows.part[i] != CT_SPLIT_TRAIN) continue;
        const ct_code code = ct_counts_add(train, values[i], 1, status);
        if (code == CT_OK) continue;
        ct_counts_destroy(train);
        return code;
    }
    *out_train = train;
    return CT_OK;
}

static ct_code count_parts(const split_run *run, part_numbers numbers[CT_SPLIT_PARTS], ct_status *status) {
    const split_rows *rows = &run->rows;
    ct_counts *units = NULL, *items = NULL, *lines = NULL;
    ct_code code = CT_OK;
    memset(numbers, 0, CT_SPLIT_PARTS * sizeof *numbers);
    for (size_t i = 0; i < rows->count; i++) {
        const size_t row = run->order[i];
        if (rows->part[row] == LEFT_OUT) continue;
        part_numbers *part = &numbers[rows->part[row]];
        if (part->rows++ == 0) part->first_time = rows->time[row];
        part->last_time = rows->time[row];
        part->clicks += rows->click[row];
    }
    CT_TRY_GOTO(code, train_values(run, rows->hash, &lines, status), done);
    if (rows->has_unit) CT_TRY_GOTO(code, train_values(run, rows->unit, &units, status), done);
    if (rows->has_item) CT_TRY_GOTO(code, train_values(run, rows->item, &items, status), done);
    for (size_t p = 0; p < CT_SPLIT_PARTS; p++) {
        part_numbers *part = &numbers[p];
        for (size_t i = 0; i < rows->count && p != CT_SPLIT_TRAIN; i++)
            part->repeated_rows += rows->part[i] == p && ct_counts_get(lines, rows->hash[i]) > 0;
        if (units != NULL)
            CT_TRY_GOTO(code, count_values(run, rows->unit, p, units, &part->units, &part->new_units, &part->new_unit_rows, status), done);
        if (items != NULL)
            CT_TRY_GOTO(code, count_values(run, rows->item, p, items, &part->items, &part->new_items, &part->new_item_rows, status), done);
    }
done:
    ct_counts_destroy(units);
    ct_counts_destroy(items);
    ct_counts_destroy(lines);
    return code;
}

static ct_code add_warnings(split_run *run, const part_numbers numbers[CT_SPLIT_PARTS], ct_status *status) {
    const split_rows *rows = &run->rows;
    const part_numbers *test = &numbers[CT_SPLIT_TEST];
    size_t later = 0;
    if (run->report.unsorted_times > 0)
        CT_TRY(report_warn(run->warnings, status, "%lld rows had an earlier time than the row before them; the parts are in order of time",
                           (long long)run->report.unsorted_times));
    for (size_t p = 1; p < CT_SPLIT_PARTS; p++)
        if (numbers[p].repeated_rows > 0)
            CT_TRY(report_warn(run->warnings, status, "%zu of %zu %s rows are also in training, byte for byte: are they the same events?",
                               numbers[p].repeated_rows, numbers[p].rows, split_names[p]));
    for (size_t p = 0; p < CT_SPLIT_PARTS && run->label >= 0; p++)
        if (numbers[p].rows > 0 && (numbers[p].clicks == 0 || numbers[p].clicks == numbers[p].rows))
            CT_TRY(report_warn(run->warnings, status, "%s has %s", split_names[p], numbers[p].clicks == 0 ? "no clicks" : "clicks only"));
    if (rows->has_unit && (double)test->new_unit_rows > MANY_NEW_UNITS * (double)test->rows)
        CT_TRY(report_warn(
            run->warnings, status,
            "%.0f %% of the test rows are of units that training lacks: results speak for new units; --by user-time splits within units",
            100.0 * (double)test->new_unit_rows / (double)test->rows));
    if (run->options->by == CT_SPLIT_BY_UNIT_TIME) {
        for (size_t i = 0; i < rows->count; i++) later += rows->part[i] == CT_SPLIT_TRAIN && rows->time[i] > test->first_time;
        if (later > 0)
            CT_TRY(report_warn(
                run->warnings, status,
                "%zu training rows are later than the first test row (of other units): what happened to an item after a test row may be "
                "known; --by time has no such rows",
                later));
    }
    return CT_OK;
}

static json_t *part_json(const split_run *run, size_t p, const part_numbers *part) {
    const split_rows *rows = &run->rows;
    char name[16];
    split_file_name(run->options->schema, p, name);
    json_t *json = json_pack("{s:s, s:s, s:I, s:o, s:I, s:I}", "name", split_names[p], "file", name, "rows", (json_int_t)part->rows,
                             "clicks", run->label >= 0 ? json_integer((json_int_t)part->clicks) : json_null(), "first_time",
                             (json_int_t)part->first_time, "last_time", (json_int_t)part->last_time);
    if (rows->has_unit)
        json_object_update_new(json, json_pack("{s:I, s:I, s:I}", "units", (json_int_t)part->units, "new_units",
                                               (json_int_t)part->new_units, "new_unit_rows", (json_int_t)part->new_unit_rows));
    if (rows->has_item)
        json_object_update_new(json, json_pack("{s:I, s:I, s:I}", "items", (json_int_t)part->items, "new_items",
                                               (json_int_t)part->new_items, "new_item_rows", (json_int_t)part->new_item_rows));
    if (p != CT_SPLIT_TRAIN) json_object_set_new(json, "repeated_rows", json_integer((json_int_t)part->repeated_rows));
    return json;
}

static json_t *field_name(const split_run *run, int64_t field) {
    return field >= 0 ? json_string(run->options->schema->fields[field].name) : json_null();
}

ct_code split_report(split_run *run, json_t **out_report, ct_status *status) {
    const ct_split_options *options = run->options;
    part_numbers numbers[CT_SPLIT_PARTS];
    CT_TRY(count_parts(run, numbers, status));
    CT_TRY(add_warnings(run, numbers, status));
    json_t *parts = json_array();
    size_t clicks = 0;
    for (size_t i = 0; i < run->rows.count; i++) clicks += run->rows.click[i];
    for (size_t p = 0; p < CT_SPLIT_PARTS; p++)
        if (options->parts[p] > 0) json_array_append_new(parts, part_json(run, p, &numbers[p]));
    json_t *unseen = options->unseen_share > 0.0
                         ? json_pack("{s:f, s:I, s:I, s:I}", "share", options->unseen_share, "seed", (json_int_t)options->seed, "items",
                                     (json_int_t)run->unseen_items, "rows_left_out", (json_int_t)run->unseen_rows)
                         : json_null();
    *out_report =
        json_pack("{s:i, s:s, s:s, s:[I, I, I], s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:O}", "format_version", 1, "schema",
                  options->schema->name, "by", options->by == CT_SPLIT_BY_TIME ? "time" : "user-time", "percent",
                  (json_int_t)options->parts[0], (json_int_t)options->parts[1], (json_int_t)options->parts[2], "rows",
                  (json_int_t)run->rows.count, "clicks", run->label >= 0 ? json_integer((json_int_t)clicks) : json_null(), "unsorted_rows",
                  (json_int_t)run->report.unsorted_times, "bad_rows", (json_int_t)run->report.bad_total, "item", field_name(run, run->item),
                  "unit", field_name(run, run->unit), "unseen", unseen, "parts", parts, "warnings", run->warnings);
    return *out_report != NULL ? CT_OK : ct_fail_memory(status, 4096, "the report of a split");
}
