/* A page that stands alone: a template of HTML with @@NAME@@ marks, each replaced by what its function writes; @@CHART_JS@@ is Chart.js,
 * @@STYLE@@ what all pages look like (page_style.css).
 * For the reports of training, comparison and experiments. */
#ifndef TRAINER_PAGE_H
#define TRAINER_PAGE_H

#include <jansson.h>

#include "base/status.h"

typedef struct ct_page ct_page;
typedef struct ct_page_mark {
    const char *name;
    void (*put)(ct_page *page, const void *context);
} ct_page_mark;
/* out_html: malloc'd. */
CT_MUST_CHECK ct_code ct_page_make(const void *template, size_t bytes, const ct_page_mark *marks, size_t mark_count, const void *context,
                                   char **out_html, ct_status *status);

void ct_page_put(ct_page *page, const char *html); /* as it stands */
void ct_page_printf(ct_page *page, const char *format, ...) CT_PRINTF(2, 3);
void ct_page_escaped(ct_page *page, const char *text);
void ct_page_name(ct_page *page, const char *name);     /* log_loss as "log loss" */
void ct_page_value(ct_page *page, const json_t *value); /* arrays by line, null as "none" */
void ct_page_cell(ct_page *page, const json_t *value);  /* a cell of a table; NULL = an empty one */
void ct_page_island(ct_page *page, const json_t *json); /* for a script element of type application/json */

#endif
