/* The page is trainer/report_page.html with @@NAME@@ marks; each is replaced by one function. */
#include "trainer/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "trainer/page.h"
#include "trainer/report_resources.h"

typedef struct report {
    const ct_report_input *input;
    json_t *curve; /* an array */
} report;

/* One row for each name that an object has; a column for each object. */
static void put_rows(ct_page *page, const char *const *names, size_t count, const json_t *const *objects, size_t object_count) {
    for (size_t i = 0; i < count; i++) {
        bool there = false;
        for (size_t o = 0; o < object_count; o++) there = there || json_object_get(objects[o], names[i]) != NULL;
        if (!there) continue;
        ct_page_put(page, "<tr><th scope=\"row\">");
        ct_page_name(page, names[i]);
        ct_page_put(page, "</th>");
        for (size_t o = 0; o < object_count; o++) ct_page_cell(page, json_object_get(objects[o], names[i]));
        ct_page_put(page, "</tr>\n");
    }
}

static void put_head(ct_page *page, const char *const *columns, size_t count) {
    ct_page_put(page, "<table>\n<thead><tr><td></td>");
    for (size_t i = 0; i < count; i++) {
        ct_page_put(page, "<th scope=\"col\" class=\"number\">");
        ct_page_escaped(page, columns[i]);
        ct_page_put(page, "</th>");
    }
    ct_page_put(page, "</tr></thead>\n<tbody>\n");
}

static const char table_end[] = "</tbody>\n</table>\n";

/* --- what stands at the marks --- */

static bool was_evaluated(const report *r) {
    const char *of = json_string_value(json_object_get(r->input->metrics, "of"));
    return of != NULL && strcmp(of, "evaluation") == 0;
}

static void put_title(ct_page *page, const void *context) {
    const report *r = context;
    ct_page_escaped(page, r->input->title);
}

static void put_lead(ct_page *page, const void *context) {
    const report *r = context;
    const json_t *metrics = r->input->metrics, *model = json_object_get(metrics, "model");
    const json_t *seconds = json_object_get(metrics, "train_seconds");
    ct_page_value(page, json_object_get(model, "model"));
    ct_page_put(page, " on ");
    ct_page_value(page, json_object_get(model, "schema"));
    ct_page_put(page, ", ");
    ct_page_value(page, json_object_get(model, "rows"));
    ct_page_printf(page, " rows trained in %.1f s", json_is_number(seconds) ? json_number_value(seconds) : (double)NAN);
    if (json_is_true(json_object_get(metrics, "stopped"))) ct_page_put(page, "; the run was stopped early");
    ct_page_put(page, ".");
}

static void put_metrics_table(ct_page *page, const void *context) {
    const report *r = context;
    static const char *const names[] = {"rows",
                                        "clicks",
                                        "auc",
                                        "log_loss",
                                        "normalized_entropy",
                                        "calibration",
                                        "mean_prediction",
                                        "grouped_auc",
                                        "groups",
                                        "expected_calibration_error",
                                        "maximum_calibration_error"};
    static const char *const columns[] = {"evaluation", "progressive"};
    const json_t *objects[] = {r->input->metrics, json_object_get(r->input->metrics, "progressive")};
    const size_t skip = was_evaluated(r) ? 0 : 1;
    put_head(page, columns + skip, 2 - skip);
    put_rows(page, names, sizeof names / sizeof *names, objects + skip, 2 - skip);
    ct_page_put(page, table_end);
    ct_page_put(page, "<p class=\"note\">Progressive: each row was scored before it was learned. Its AUC is taken over 65,536 bins.</p>\n");
}

static void put_data_table(ct_page *page, const void *context) {
    const report *r = context;
    static const char *const names[] = {"rows", "bad_rows", "blank_lines", "unsorted_times"};
    static const char *const columns[] = {"training", "evaluation"};
    const json_t *objects[] = {json_object_get(r->input->metrics, "train"), json_object_get(r->input->metrics, "evaluation")};
    const size_t count = json_is_object(objects[1]) ? 2 : 1;
    put_head(page, columns, count);
    put_rows(page, names, sizeof names / sizeof *names, objects, count);
    for (size_t o = 0; o < count; o++) {
        const char *kind;
        json_t *bad;
        json_object_foreach(json_object_get(objects[o], "bad_rows_by_kind"), kind, bad) {
            ct_page_put(page, "<tr><th scope=\"row\">bad: ");
            ct_page_name(page, kind);
            ct_page_put(page, "</th>");
            for (size_t column = 0; column < count; column++) ct_page_cell(page, column == o ? bad : NULL);
            ct_page_put(page, "</tr>\n");
        }
    }
    ct_page_put(page, table_end);
}

static void put_keys_table(ct_page *page, const void *context) {
    const report *r = context;
    static const char *const names[] = {"admitted", "waiting", "expired", "filter_bytes", "filter_fill", "filter_error"};
    const json_t *keys = json_object_get(r->input->metrics, "keys");
    ct_page_put(page, "<table class=\"plain\">\n<tbody>\n");
    put_rows(page, names, sizeof names / sizeof *names, &keys, 1);
    ct_page_put(page, table_end);
    ct_page_put(page,
                "<p class=\"note\">Admitted: keys with a row of their own. Waiting: seen, and refused one so far, as they were not seen "
                "embedding.min_count times; they read the rare row of their feature. Expired: rows that were not seen for too long.</p>\n");
}

static void put_model_table(ct_page *page, const void *context) {
    const report *r = context;
    static const char *const names[] = {"model",         "schema", "precision", "instruction_set", "rows", "step", "tower_parameters",
                                        "flops_per_row", "ids",    "numbers",   "vectors"};
    static const char *const columns[] = {"kind", "dim", "rows", "stubs", "expired", "bytes"};
    const json_t *model = json_object_get(r->input->metrics, "model"), *tables = json_object_get(model, "tables");
    ct_page_put(page, "<table class=\"plain\">\n<tbody>\n");
    put_rows(page, names, sizeof names / sizeof *names, &model, 1);
    ct_page_put(page, table_end);
    put_head(page, columns, sizeof columns / sizeof *columns);
    for (size_t t = 0; t < json_array_size(tables); t++) {
        const json_t *table = json_array_get(tables, t);
        ct_page_put(page, "<tr><th scope=\"row\">table ");
        ct_page_value(page, json_object_get(table, "name"));
        ct_page_put(page, "</th>");
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) ct_page_cell(page, json_object_get(table, columns[c]));
        ct_page_put(page, "</tr>\n");
    }
    ct_page_put(page, table_end);
}

static void put_settings_table(ct_page *page, const void *context) {
    const report *r = context;
    const char *name;
    json_t *value;
    ct_page_put(page, "<table>\n<tbody>\n");
    json_object_foreach((json_t *)r->input->settings, name, value) {
        ct_page_put(page, "<tr><th scope=\"row\">");
        ct_page_name(page, name);
        ct_page_put(page, "</th><td>");
        ct_page_value(page, value);
        ct_page_put(page, "</td></tr>\n");
    }
    ct_page_put(page, table_end);
}

static void put_model_file(ct_page *page, const void *context) {
    const report *r = context;
    ct_page_escaped(page, r->input->model_file);
}

static void put_curve(ct_page *page, const void *context) {
    const report *r = context;
    ct_page_island(page, r->curve);
}

static void put_metrics(ct_page *page, const void *context) {
    const report *r = context;
    ct_page_island(page, r->input->metrics);
}

static void put_settings(ct_page *page, const void *context) {
    const report *r = context;
    ct_page_island(page, r->input->settings);
}

static const ct_page_mark marks[] = {
    {"TITLE", put_title},
    {"LEAD", put_lead},
    {"METRICS_TABLE", put_metrics_table},
    {"DATA_TABLE", put_data_table},
    {"MODEL_TABLE", put_model_table},
    {"KEYS_TABLE", put_keys_table},
    {"SETTINGS_TABLE", put_settings_table},
    {"MODEL_FILE", put_model_file},
    {"CURVE_JSON", put_curve},
    {"METRICS_JSON", put_metrics},
    {"SETTINGS_JSON", put_settings},
};

/* --- the page --- */

static ct_code curve_array(const char *text, json_t **out_array, ct_status *status) {
    json_t *array = json_array();
    if (array == NULL) return ct_fail_memory(status, 4096, "the curve of a report");
    for (const char *line = text; *line != '\0';) {
        const size_t bytes = strcspn(line, "\n");
        json_t *point = NULL;
        if (bytes > 0) {
            if (ct_json_parse(line, bytes, "curve", &point, status) != CT_OK) {
                json_decref(array);
                return status->code = CT_INVALID;
            }
            json_array_append_new(array, point);
        }
        line += bytes + (line[bytes] == '\n');
    }
    *out_array = array;
    return CT_OK;
}

ct_code ct_report_html(const ct_report_input *input, char **out_html, ct_status *status) {
    report r = {.input = input};
    CT_TRY(curve_array(input->curve, &r.curve, status));
    const ct_code code = ct_page_make(ct_report_page, ct_report_page_bytes, marks, sizeof marks / sizeof *marks, &r, out_html, status);
    json_decref(r.curve);
    return code;
}
