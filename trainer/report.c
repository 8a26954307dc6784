/* The page is trainer/report_page.html with @@NAME@@ marks; each is replaced by one function. Every text is escaped: as HTML in the tables,
 * and in the JSON islands by writing '<' as \u003c, so that nothing in a text can end the element that holds it. */
#include "trainer/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chart_js.h"
#include "base/text.h"
#include "trainer/report_resources.h"

typedef struct report {
    const ct_report_input *input;
    json_t *curve; /* an array */
    FILE *out;
} report;

/* --- texts --- */

static void put(const report *r, const char *text) { (void)fputs(text, r->out); }

static void put_escaped(const report *r, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
            case '&':
                put(r, "&amp;");
                break;
            case '<':
                put(r, "&lt;");
                break;
            case '>':
                put(r, "&gt;");
                break;
            case '"':
                put(r, "&quot;");
                break;
            case '\'':
                put(r, "&#39;");
                break;
            default:
                (void)fputc(*text, r->out);
        }
    }
}

static void put_island(const report *r, const json_t *json) {
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    for (const char *c = text; c != NULL && *c != '\0'; c++) {
        if (*c == '<')
            put(r, "\\u003c");
        else
            (void)fputc(*c, r->out);
    }
    if (text == NULL) put(r, "null");
    free(text);
}

/* log_loss -> log loss */
static void put_name(const report *r, const char *name) {
    for (; *name != '\0'; name++) {
        const char one[] = {*name == '_' ? ' ' : *name, '\0'};
        put_escaped(r, one);
    }
}

static void put_value(const report *r, const json_t *value) {
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
        case JSON_STRING:
            put_escaped(r, json_string_value(value));
            break;
        case JSON_INTEGER:
            (void)fprintf(r->out, "%lld", (long long)json_integer_value(value));
            break;
        case JSON_REAL:
            (void)fprintf(r->out, "%.8g", json_real_value(value));
            break;
        case JSON_TRUE:
            put(r, "yes");
            break;
        case JSON_FALSE:
            put(r, "no");
            break;
        case JSON_ARRAY:
            for (size_t i = 0; i < json_array_size(value); i++) {
                if (i > 0) put(r, "<br>");
                put_value(r, json_array_get(value, i));
            }
            break;
        default:
            put(r, "none");
    }
}

static void put_cell(const report *r, const json_t *value) {
    put(r, json_is_number(value) || value == NULL || json_is_null(value) ? "<td class=\"number\">" : "<td>");
    if (value != NULL) put_value(r, value);
    put(r, "</td>");
}

/* One row for each name that an object has; a column for each object. */
static void put_rows(const report *r, const char *const *names, size_t count, const json_t *const *objects, size_t object_count) {
    for (size_t i = 0; i < count; i++) {
        bool there = false;
        for (size_t o = 0; o < object_count; o++) there = there || json_object_get(objects[o], names[i]) != NULL;
        if (!there) continue;
        put(r, "<tr><th scope=\"row\">");
        put_name(r, names[i]);
        put(r, "</th>");
        for (size_t o = 0; o < object_count; o++) put_cell(r, json_object_get(objects[o], names[i]));
        put(r, "</tr>\n");
    }
}

static void put_head(const report *r, const char *const *columns, size_t count) {
    put(r, "<table>\n<thead><tr><td></td>");
    for (size_t i = 0; i < count; i++) {
        put(r, "<th scope=\"col\" class=\"number\">");
        put_escaped(r, columns[i]);
        put(r, "</th>");
    }
    put(r, "</tr></thead>\n<tbody>\n");
}

static const char table_end[] = "</tbody>\n</table>\n";

/* --- what stands at the marks --- */

static bool was_evaluated(const report *r) {
    const char *of = json_string_value(json_object_get(r->input->metrics, "of"));
    return of != NULL && strcmp(of, "evaluation") == 0;
}

static void put_title(const report *r) { put_escaped(r, r->input->title); }

static void put_lead(const report *r) {
    const json_t *metrics = r->input->metrics, *model = json_object_get(metrics, "model");
    const json_t *seconds = json_object_get(metrics, "train_seconds");
    put_value(r, json_object_get(model, "model"));
    put(r, " on ");
    put_value(r, json_object_get(model, "schema"));
    put(r, ", ");
    put_value(r, json_object_get(model, "rows"));
    (void)fprintf(r->out, " rows trained in %.1f s", json_is_number(seconds) ? json_number_value(seconds) : (double)NAN);
    if (json_is_true(json_object_get(metrics, "stopped"))) put(r, "; the run was stopped early");
    put(r, ".");
}

static void put_metrics_table(const report *r) {
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
    put_head(r, columns + skip, 2 - skip);
    put_rows(r, names, sizeof names / sizeof *names, objects + skip, 2 - skip);
    put(r, table_end);
    put(r, "<p class=\"note\">Progressive: each row was scored before it was learned. Its AUC is taken over 65,536 bins.</p>\n");
}

static void put_data_table(const report *r) {
    static const char *const names[] = {"rows", "bad_rows", "blank_lines", "unsorted_times"};
    static const char *const columns[] = {"training", "evaluation"};
    const json_t *objects[] = {json_object_get(r->input->metrics, "train"), json_object_get(r->input->metrics, "evaluation")};
    const size_t count = json_is_object(objects[1]) ? 2 : 1;
    put_head(r, columns, count);
    put_rows(r, names, sizeof names / sizeof *names, objects, count);
    for (size_t o = 0; o < count; o++) {
        const char *kind;
        json_t *bad;
        json_object_foreach(json_object_get(objects[o], "bad_rows_by_kind"), kind, bad) {
            put(r, "<tr><th scope=\"row\">bad: ");
            put_name(r, kind);
            put(r, "</th>");
            for (size_t column = 0; column < count; column++) put_cell(r, column == o ? bad : NULL);
            put(r, "</tr>\n");
        }
    }
    put(r, table_end);
}

static void put_model_table(const report *r) {
    static const char *const names[] = {"model",         "schema", "precision", "instruction_set", "rows", "step", "tower_parameters",
                                        "flops_per_row", "ids",    "numbers",   "vectors"};
    static const char *const columns[] = {"kind", "dim", "rows", "stubs", "bytes"};
    const json_t *model = json_object_get(r->input->metrics, "model"), *tables = json_object_get(model, "tables");
    put(r, "<table class=\"plain\">\n<tbody>\n");
    put_rows(r, names, sizeof names / sizeof *names, &model, 1);
    put(r, table_end);
    put_head(r, columns, sizeof columns / sizeof *columns);
    for (size_t t = 0; t < json_array_size(tables); t++) {
        const json_t *table = json_array_get(tables, t);
        put(r, "<tr><th scope=\"row\">table ");
        put_value(r, json_object_get(table, "name"));
        put(r, "</th>");
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) put_cell(r, json_object_get(table, columns[c]));
        put(r, "</tr>\n");
    }
    put(r, table_end);
}

static void put_settings_table(const report *r) {
    const char *name;
    json_t *value;
    put(r, "<table>\n<tbody>\n");
    json_object_foreach((json_t *)r->input->settings, name, value) {
        put(r, "<tr><th scope=\"row\">");
        put_name(r, name);
        put(r, "</th><td>");
        put_value(r, value);
        put(r, "</td></tr>\n");
    }
    put(r, table_end);
}

static void put_model_file(const report *r) { put_escaped(r, r->input->model_file); }
static void put_curve(const report *r) { put_island(r, r->curve); }
static void put_metrics(const report *r) { put_island(r, r->input->metrics); }
static void put_settings(const report *r) { put_island(r, r->input->settings); }
static void put_chart_js(const report *r) { (void)fwrite(ct_chart_js, 1, ct_chart_js_bytes, r->out); }

static const struct mark {
    const char *name;
    void (*put)(const report *r);
} marks[] = {
    {"TITLE", put_title},
    {"LEAD", put_lead},
    {"METRICS_TABLE", put_metrics_table},
    {"DATA_TABLE", put_data_table},
    {"MODEL_TABLE", put_model_table},
    {"SETTINGS_TABLE", put_settings_table},
    {"MODEL_FILE", put_model_file},
    {"CURVE_JSON", put_curve},
    {"METRICS_JSON", put_metrics},
    {"SETTINGS_JSON", put_settings},
    {"CHART_JS", put_chart_js},
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

static ct_code put_page(const report *r, ct_status *status) {
    const char *page = (const char *)ct_report_page, *end = page + ct_report_page_bytes;
    while (page < end) {
        const char *mark = memmem(page, (size_t)(end - page), "@@", 2);
        if (mark == NULL) mark = end;
        (void)fwrite(page, 1, (size_t)(mark - page), r->out);
        if (mark == end) return CT_OK;
        const char *name = mark + 2, *close = memmem(name, (size_t)(end - name), "@@", 2);
        const struct mark *found = NULL;
        for (size_t m = 0; close != NULL && m < sizeof marks / sizeof *marks; m++)
            if (strlen(marks[m].name) == (size_t)(close - name) && memcmp(marks[m].name, name, (size_t)(close - name)) == 0)
                found = &marks[m];
        if (found == NULL) return ct_fail(status, CT_INTERNAL, "the page of the report has a mark that nothing stands for");
        found->put(r);
        page = close + 2;
    }
    return CT_OK;
}

ct_code ct_report_html(const ct_report_input *input, char **out_html, ct_status *status) {
    char *text = NULL;
    size_t bytes = 0;
    report r = {.input = input};
    CT_TRY(curve_array(input->curve, &r.curve, status));
    r.out = open_memstream(&text, &bytes);
    ct_code code = r.out == NULL ? ct_fail_memory(status, ct_report_page_bytes, "the report") : put_page(&r, status);
    if (r.out != NULL) {
        const bool bad = ferror(r.out) != 0;
        if ((fclose(r.out) != 0 || bad) && code == CT_OK) code = ct_fail_memory(status, bytes, "the report");
    }
    json_decref(r.curve);
    if (code != CT_OK) {
        free(text);
        return code;
    }
    *out_html = text;
    return CT_OK;
}
