/* What the renderers of the online report share. A report of a server's experiment (experiment/live_report.h) has more sections than one
 * of a table; the rest is the same. Nobody else includes this. */
#ifndef EXPERIMENT_ONLINE_RENDER_INTERNAL_H
#define EXPERIMENT_ONLINE_RENDER_INTERNAL_H

#include <stdio.h>

#include "experiment/online.h"
#include "experiment/report_internal.h"
#include "trainer/page.h"

static inline bool is_live(const json_t *report) { return member(report, "experiment") != NULL; }

/* --- online_text.c --- */
enum { ONLINE_NAME_COLUMNS = 24 };
/* A name in plain ASCII, cut or filled up to its columns. */
void online_put_name(FILE *to, const char *text, int columns);
/* What is not there (null: too few units for it) is "-", in a page an empty cell. */
void online_put_range(FILE *to, const json_t *range);                  /* 23 columns */
void online_put_difference(FILE *to, const json_t *value);             /* with its sign, 11 columns */
void online_put_lift(FILE *to, const json_t *difference, int columns); /* in percent */
/* --- online_live_text.c --- */
void online_put_live(FILE *to, const json_t *report);

/* --- online_html.c --- */
/* Each is a cell. */
void online_page_range(ct_page *page, const json_t *range);
void online_page_mean(ct_page *page, const json_t *value);
void online_page_difference(ct_page *page, const json_t *value);
void online_page_differences(ct_page *page, const json_t *comparison);
/* --- online_live_html.c --- */
void online_page_live(ct_page *page, const json_t *report);

/* What a slice is called. */
const char *online_slice_name(const json_t *slice, char *out, size_t out_bytes);
/* "ramp 12, forced 3": requests, by how they were assigned; "" where none was left out. */
const char *online_assigned_text(const json_t *left_out, char *out, size_t out_bytes);

#endif
