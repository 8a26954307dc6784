/* A page's text is written in one pass; every text is escaped: as HTML in the tables, and in the JSON islands by writing '<' as \u003c, so
 * that nothing in a text can end the element that holds it. */
#include "trainer/page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chart_js.h"
#include "trainer/report_resources.h"

struct ct_page {
    FILE *out;
};

void ct_page_put(ct_page *page, const char *text) { (void)fputs(text, page->out); }

void ct_page_printf(ct_page *page, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(page->out, format, arguments);
    va_end(arguments);
}

void ct_page_escaped(ct_page *page, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
            case '&':
                ct_page_put(page, "&amp;");
                break;
            case '<':
                ct_page_put(page, "&lt;");
                break;
            case '>':
                ct_page_put(page, "&gt;");
                break;
            case '"':
                ct_page_put(page, "&quot;");
                break;
            case '\'':
                ct_page_put(page, "&#39;");
                break;
            default:
                (void)fputc(*text, page->out);
        }
    }
}

void ct_page_island(ct_page *page, const json_t *json) {
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    for (const char *c = text; c != NULL && *c != '\0'; c++) {
        if (*c == '<')
            ct_page_put(page, "\\u003c");
        else
            (void)fputc(*c, page->out);
    }
    if (text == NULL) ct_page_put(page, "null");
    free(text);
}

void ct_page_name(ct_page *page, const char *name) {
    for (; *name != '\0'; name++) {
        const char one[] = {*name == '_' ? ' ' : *name, '\0'};
        ct_page_escaped(page, one);
    }
}

void ct_page_value(ct_page *page, const json_t *value) {
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
        case JSON_STRING:
            ct_page_escaped(page, json_string_value(value));
            break;
        case JSON_INTEGER:
            (void)fprintf(page->out, "%lld", (long long)json_integer_value(value));
            break;
        case JSON_REAL:
            (void)fprintf(page->out, "%.8g", json_real_value(value));
            break;
        case JSON_TRUE:
            ct_page_put(page, "yes");
            break;
        case JSON_FALSE:
            ct_page_put(page, "no");
            break;
        case JSON_ARRAY:
            for (size_t i = 0; i < json_array_size(value); i++) {
                if (i > 0) ct_page_put(page, "<br>");
                ct_page_value(page, json_array_get(value, i));
            }
            break;
        default:
            ct_page_put(page, "none");
    }
}

void ct_page_cell(ct_page *page, const json_t *value) {
    ct_page_put(page, json_is_number(value) || value == NULL || json_is_null(value) ? "<td class=\"number\">" : "<td>");
    if (value != NULL) ct_page_value(page, value);
    ct_page_put(page, "</td>");
}

/* --- the page --- */

static ct_code put_marks(ct_page *page, const char *at, size_t bytes, const ct_page_mark *marks, size_t mark_count, const void *context,
                         ct_status *status) {
    const char *end = at + bytes;
    while (at < end) {
        const char *mark = memmem(at, (size_t)(end - at), "@@", 2);
        if (mark == NULL) mark = end;
        (void)fwrite(at, 1, (size_t)(mark - at), page->out);
        if (mark == end) return CT_OK;
        const char *name = mark + 2, *close = memmem(name, (size_t)(end - name), "@@", 2);
        const size_t name_bytes = close == NULL ? 0 : (size_t)(close - name);
        const ct_page_mark *found = NULL;
        for (size_t m = 0; m < mark_count; m++)
            if (strlen(marks[m].name) == name_bytes && memcmp(marks[m].name, name, name_bytes) == 0) found = &marks[m];
        if (found != NULL)
            found->put(page, context);
        else if (name_bytes == 8 && memcmp(name, "CHART_JS", 8) == 0)
            (void)fwrite(ct_chart_js, 1, ct_chart_js_bytes, page->out);
        else if (name_bytes == 5 && memcmp(name, "STYLE", 5) == 0)
            (void)fwrite(ct_page_style, 1, ct_page_style_bytes, page->out);
        else
            return ct_fail(status, CT_INTERNAL, "the page of the report has a mark that nothing stands for");
        at = close + 2;
    }
    return CT_OK;
}

ct_code ct_page_make(const void *template, size_t bytes, const ct_page_mark *marks, size_t mark_count, const void *context, char **out_html,
                     ct_status *status) {
    char *text = NULL;
    size_t text_bytes = 0;
    ct_page page = {open_memstream(&text, &text_bytes)};
    if (page.out == NULL) return ct_fail_memory(status, bytes, "the report");
    ct_code code = put_marks(&page, template, bytes, marks, mark_count, context, status);
    const bool bad = ferror(page.out) != 0;
    if ((fclose(page.out) != 0 || bad) && code == CT_OK) code = ct_fail_memory(status, text_bytes, "the report");
    if (code != CT_OK) {
        free(text);
        return code;
    }
    *out_html = text;
    return CT_OK;
}
