/* First reading: time, keys and hash of every row. Then the parts are chosen, and split_write.c reads again and copies lines. */
#include "experiment/split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "data/raw_rows.h"
#include "experiment/counts.h"
#include "experiment/split_internal.h"

enum { BAD_SHARE_ROWS = 1000, STOP_ROWS = 4096 };

const char *const split_names[CT_SPLIT_PARTS] = {"train", "valid", "test"};

void split_file_name(const ct_schema *schema, size_t part, char out_name[16]) {
    (void)snprintf(out_name, 16, "%s.%s", split_names[part], schema->separator == ',' ? "csv" : "tsv");
}

/* --- checks --- */

static ct_code find_fields(split_run *run, ct_status *status) {
    const ct_split_options *options = run->options;
    const ct_schema *schema = options->schema;
    run->label = ct_schema_find_kind(schema, CT_FIELD_LABEL);
    run->time = ct_schema_find_kind(schema, CT_FIELD_TIME);
    run->unit = ct_schema_find_kind(schema, CT_FIELD_UNIT);
    run->item = -1;
    if (run->time < 0)
        return ct_fail(status, CT_INVALID, "schema %s has no time field; a split needs one: a field of kind: time", schema->name);
    if (options->by == CT_SPLIT_BY_UNIT_TIME && run->unit < 0)
        return ct_fail(status, CT_INVALID, "schema %s has no unit field; --by user-time needs one (kind: unit)", schema->name);
    if (options->item != NULL) {
        run->item = ct_schema_find(schema, options->item);
        if (run->item < 0 || schema->fields[run->item].kind != CT_FIELD_ID || schema->fields[run->item].value_separator != 0)
            return ct_fail(status, CT_INVALID, "item '%s' is no id field with one value of schema %s", options->item, schema->name);
    }
    for (size_t i = 0; i < schema->field_count && run->item < 0; i++)
        if (schema->fields[i].kind == CT_FIELD_VECTOR && schema->fields[schema->fields[i].of].value_separator == 0)
            run->item = (int64_t)schema->fields[i].of;
    if (run->item < 0 && options->unseen_share > 0.0)
        return ct_fail(status, CT_INVALID, "schema %s has no vector that would tell the item; name its id field (--item FIELD)",
                       schema->name);
    run->rows.has_unit = run->unit >= 0;
    run->rows.has_item = run->item >= 0;
    return CT_OK;
}

/* The folder is replaced as a whole: no file of it may be one that is read. */
static ct_code check_not_read(const ct_split_options *options, ct_status *status) {
    ct_file_list there = {0};
    ct_code code = CT_OK;
    CT_TRY(ct_folder_list(options->folder, &there, status));
    for (size_t i = 0; code == CT_OK && i < there.count; i++) {
        char *path = ct_path_join(options->folder, there.names[i]);
        if (path == NULL) code = ct_fail_memory(status, 0, options->folder);
        for (size_t s = 0; code == CT_OK && s < options->source_count; s++)
            if (ct_path_same_file(path, options->sources[s]))
                code = ct_fail(status, CT_INVALID, "%s is read, and would be replaced by the split in %s; give another folder",
                               options->sources[s], options->folder);
        free(path);
    }
    ct_file_list_deinit(&there);
    return code;
}

static ct_code check_options(const ct_split_options *options, ct_status *status) {
    const int64_t *parts = options->parts;
    if (parts[0] <= 0 || parts[1] < 0 || parts[2] <= 0 || parts[0] + parts[1] + parts[2] != 100)
        return ct_fail(status, CT_INVALID,
                       "parts %lld,%lld,%lld: percentages of train, valid and test that sum to 100; only that of valid may be 0",
                       (long long)parts[0], (long long)parts[1], (long long)parts[2]);
    if (!(options->unseen_share >= 0.0 && options->unseen_share < 1.0))
        return ct_fail(status, CT_INVALID, "unseen items: a share of %g; from 0 to less than 1 is possible", options->unseen_share);
    for (size_t i = 0; i < options->source_count; i++)
        if (strcmp(options->sources[i], "-") == 0)
            return ct_fail(status, CT_INVALID,
                           "standard input can be read once, but a split reads its sources twice; write it to a file first");
    if (!ct_path_exists(options->folder)) return CT_OK;
    char *report = ct_path_join(options->folder, "split.json");
    const bool is_split = report != NULL && ct_path_exists(report);
    free(report);
    if (!is_split)
        return ct_fail(status, CT_EXISTS, "%s is there and holds no split.json, so it is no split; give another folder", options->folder);
    return check_not_read(options, status);
}

/* --- reading --- */

static bool grow_array(void **array, size_t count, size_t bytes_each) {
    void *grown = realloc(*array, count * bytes_each);
    if (grown == NULL) return false;
    *array = grown;
    return true;
}

static ct_code reserve_row(split_rows *rows, ct_status *status) {
    if (rows->count < rows->capacity) return CT_OK;
    const size_t capacity = rows->capacity + rows->capacity / 2 + 4096;
    if (!grow_array((void **)&rows->time, capacity, sizeof *rows->time) ||
        !grow_array((void **)&rows->hash, capacity, sizeof *rows->hash) ||
        !grow_array((void **)&rows->bytes, capacity, sizeof *rows->bytes) || !grow_array((void **)&rows->click, capacity, 1) ||
        !grow_array((void **)&rows->part, capacity, 1) ||
        (rows->has_unit && !grow_array((void **)&rows->unit, capacity, sizeof *rows->unit)) ||
        (rows->has_item && !grow_array((void **)&rows->item, capacity, sizeof *rows->item)))
        return ct_fail_memory(status, capacity * 38, "the rows of a split");
    rows->capacity = capacity;
    return CT_OK;
}

static void deinit_rows(split_rows *rows) {
    free(rows->time);
    free(rows->unit);
    free(rows->item);
    free(rows->hash);
    free(rows->bytes);
    free(rows->click);
    free(rows->part);
}

static ct_code check_bad(const split_run *run, bool at_end, ct_status *status) {
    const ct_split_options *options = run->options;
    const ct_read_report *report = &run->report;
    const double all = (double)(report->rows + report->bad_total);
    const bool many = options->max_bad_rows >= 0 && report->bad_total > options->max_bad_rows;
    const bool share = (at_end || all >= BAD_SHARE_ROWS) && (double)report->bad_total > options->max_bad_share * all;
    if (!many && !share) return CT_OK;
    return ct_fail(status, CT_INVALID, "%lld bad rows of %.0f, more than allowed; the first: %s", (long long)report->bad_total, all,
                   report->first_bad[0]);
}

/* One good row into the arrays, or a bad one into the report. */
static ct_code take_row(split_run *run, const ct_raw_rows *raw, const ct_raw_row *row, ct_status *status) {
    const ct_field *fields = run->options->schema->fields;
    split_rows *rows = &run->rows;
    ct_status wrong = CT_STATUS_INIT;
    size_t bytes;
    float label = 0.0f;
    int64_t time = 0;
    uint64_t unit = 0, item = 0;
    ct_bad_row_kind kind = CT_BAD_FIELD_COUNT;
    bool bad = row->is_bad;
    if (bad) {
        ct_read_report_add_bad(&run->report, row->line.too_long ? CT_BAD_TOO_LONG : CT_BAD_FIELD_COUNT, row->line.source, row->line.number,
                               row->reason);
        return check_bad(run, false, status);
    }
    const char *text = ct_raw_rows_text(raw, (size_t)run->time, &bytes);
    if (ct_field_time(&fields[run->time], text, bytes, &time, &wrong) != CT_OK) bad = true, kind = CT_BAD_TIME;
    if (!bad && run->label >= 0) {
        text = ct_raw_rows_text(raw, (size_t)run->label, &bytes);
        if (ct_field_label(&fields[run->label], text, bytes, &label, &wrong) != CT_OK) bad = true, kind = CT_BAD_LABEL;
    }
    if (!bad && run->unit >= 0) {
        text = ct_raw_rows_text(raw, (size_t)run->unit, &bytes);
        if (ct_field_key(&fields[run->unit], text, bytes, &unit, &wrong) != CT_OK) bad = true, kind = CT_BAD_ID;
    }
    if (!bad && run->item >= 0) {
        text = ct_raw_rows_text(raw, (size_t)run->item, &bytes);
        if (ct_field_key(&fields[run->item], text, bytes, &item, &wrong) != CT_OK) bad = true, kind = CT_BAD_ID;
    }
    if (bad) {
        ct_read_report_add_bad(&run->report, kind, row->line.source, row->line.number, wrong.message);
        return check_bad(run, false, status);
    }
    CT_TRY(reserve_row(rows, status));
    const size_t at = rows->count++;
    if (at > 0 && time < rows->time[at - 1]) run->report.unsorted_times++;
    rows->time[at] = time;
    rows->hash[at] = ct_hash64(row->line.text, row->line.bytes, 0);
    rows->bytes[at] = (uint32_t)row->line.bytes + 1;
    rows->click[at] = label != 0.0f;
    rows->part[at] = LEFT_OUT;
    if (rows->has_unit) rows->unit[at] = unit;
    if (rows->has_item) rows->item[at] = item;
    run->report.rows++;
    return CT_OK;
}

static ct_code read_rows(split_run *run, ct_status *status) {
    const ct_split_options *options = run->options;
    ct_raw_rows *raw = NULL;
    ct_raw_row row;
    ct_progress progress;
    CT_TRY(ct_raw_rows_open(options->schema, options->sources, options->source_count, &raw, status));
    ct_raw_rows_set_stop(raw, options->stop);
    if (options->progress) ct_progress_init(&progress);
    ct_code code;
    while ((code = ct_raw_rows_next(raw, &row, status)) == CT_OK) {
        if (row.is_header) continue;
        CT_TRY_GOTO(code, take_row(run, raw, &row, status), done);
        if (run->rows.count % STOP_ROWS != 0) continue;
        if (options->progress) ct_progress_update(&progress, "split: %zu rows read", run->rows.count);
        if (options->stop != NULL && atomic_load(options->stop)) {
            code = ct_fail(status, CT_CANCELLED, "the split was stopped");
            goto done;
        }
    }
    if (code == CT_END) code = check_bad(run, true, status);
done:
    if (options->progress) ct_progress_finish(&progress);
    ct_raw_rows_close(raw);
    return code;
}

/* --- choosing --- */

static int by_time(const void *left, const void *right, void *context) {
    const split_rows *rows = context;
    const size_t a = *(const size_t *)left, b = *(const size_t *)right;
    if (rows->time[a] != rows->time[b]) return rows->time[a] < rows->time[b] ? -1 : 1;
    return a < b ? -1 : a > b;
}

static int by_unit_time(const void *left, const void *right, void *context) {
    const split_rows *rows = context;
    const size_t a = *(const size_t *)left, b = *(const size_t *)right;
    if (rows->unit[a] != rows->unit[b]) return rows->unit[a] < rows->unit[b] ? -1 : 1;
    return by_time(left, right, context);
}

/* Rows order[0 .. n) of one log or one unit, by time. */
static void choose(split_run *run, const size_t *order, size_t n) {
    const int64_t *parts = run->options->parts;
    for (size_t i = 0; i < n; i++) {
        const int64_t place = 100 * (int64_t)i, whole = (int64_t)n;
        run->rows.part[order[i]] = (uint8_t)(place < parts[0] * whole                ? CT_SPLIT_TRAIN
                                             : place < (parts[0] + parts[1]) * whole ? CT_SPLIT_VALID
                                                                                     : CT_SPLIT_TEST);
    }
}

static bool is_unseen(const split_run *run, uint64_t item) {
    const uint64_t hash = ct_hash64(&item, sizeof item, run->options->seed);
    return (double)(hash >> 11) * 0x1p-53 < run->options->unseen_share;
}

static ct_code leave_out_unseen(split_run *run, ct_status *status) {
    split_rows *rows = &run->rows;
    ct_counts *unseen = NULL;
    ct_code code = CT_OK;
    if (!(run->options->unseen_share > 0.0)) return CT_OK;
    CT_TRY(ct_counts_create(&unseen, status));
    for (size_t i = 0; i < rows->count; i++) {
        if (!is_unseen(run, rows->item[i])) continue;
        CT_TRY_GOTO(code, ct_counts_add(unseen, rows->item[i], 1, status), done);
        if (rows->part[i] != CT_SPLIT_TRAIN) continue;
        rows->part[i] = LEFT_OUT;
        run->unseen_rows++;
    }
    run->unseen_items = ct_counts_size(unseen);
done:
    ct_counts_destroy(unseen);
    return code;
}

static ct_code choose_parts(split_run *run, ct_status *status) {
    split_rows *rows = &run->rows;
    if (rows->count == 0)
        return ct_fail(status, CT_INVALID, "%s: no good row to split (%lld bad ones)%s%s", run->options->sources[0],
                       (long long)run->report.bad_total, run->report.shown > 0 ? "; the first: " : "",
                       run->report.shown > 0 ? run->report.first_bad[0] : "");
    run->order = malloc(rows->count * sizeof *run->order);
    if (run->order == NULL) return ct_fail_memory(status, rows->count * sizeof *run->order, "the order of a split");
    for (size_t i = 0; i < rows->count; i++) run->order[i] = i;
    if (run->options->by == CT_SPLIT_BY_UNIT_TIME) {
        qsort_r(run->order, rows->count, sizeof *run->order, by_unit_time, rows);
        for (size_t first = 0; first < rows->count;) {
            size_t last = first;
            while (last < rows->count && rows->unit[run->order[last]] == rows->unit[run->order[first]]) last++;
            choose(run, run->order + first, last - first);
            first = last;
        }
    }
    if (run->report.unsorted_times > 0 || run->options->by == CT_SPLIT_BY_UNIT_TIME)
        qsort_r(run->order, rows->count, sizeof *run->order, by_time, rows);
    if (run->options->by == CT_SPLIT_BY_TIME) choose(run, run->order, rows->count);
    CT_TRY(leave_out_unseen(run, status));
    size_t counts[CT_SPLIT_PARTS + 1] = {0};
    for (size_t i = 0; i < rows->count; i++) counts[rows->part[i]]++;
    for (size_t part = 0; part < CT_SPLIT_PARTS; part++)
        if (counts[part] == 0 && run->options->parts[part] > 0)
            return ct_fail(status, CT_INVALID, "%zu rows are too few for this split: %s would have none", rows->count, split_names[part]);
    return CT_OK;
}

/* --- all of it --- */

static ct_code write_folder(const split_run *run, const json_t *report, ct_status *status) {
    char *staged = NULL, *path = NULL;
    ct_code code;
    CT_TRY(ct_folder_stage(run->options->folder, &staged, status));
    CT_TRY_GOTO(code, split_write(run, staged, status), fail);
    path = ct_path_join(staged, "split.json");
    if (path == NULL) {
        code = ct_fail_memory(status, strlen(staged), "a path");
        goto fail;
    }
    CT_TRY_GOTO(code, ct_json_save(path, report, status), fail);
    CT_TRY_GOTO(code, ct_folder_commit(staged, run->options->folder, status), fail);
    free(path);
    free(staged);
    return CT_OK;
fail:;
    ct_status ignored = CT_STATUS_INIT;
    (void)!ct_folder_remove(staged, &ignored);
    free(path);
    free(staged);
    return code;
}

ct_code ct_split(const ct_split_options *options, json_t **out_report, ct_read_report *out_rows, ct_status *status) {
    split_run run = {.options = options, .warnings = json_array()};
    json_t *report = NULL;
    ct_code code = CT_OK;
    CT_TRY_GOTO(code, check_options(options, status), done);
    CT_TRY_GOTO(code, find_fields(&run, status), done);
    CT_TRY_GOTO(code, read_rows(&run, status), done);
    CT_TRY_GOTO(code, choose_parts(&run, status), done);
    CT_TRY_GOTO(code, split_report(&run, &report, status), done);
    CT_TRY_GOTO(code, write_folder(&run, report, status), done);
    *out_rows = run.report;
    *out_report = report;
    report = NULL;
done:
    json_decref(report);
    json_decref(run.warnings);
    deinit_rows(&run.rows);
    free(run.order);
    return code;
}
