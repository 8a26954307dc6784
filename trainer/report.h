/* The report of a training run: one HTML file that stands alone, with Chart.js inside. Tables are plain HTML; the charts are drawn from
 * three JSON islands, script elements of type application/json with the ids curve-data (an array of the curve's lines), metrics-data
 * (metrics.json) and settings-data. The page asks for nothing from anywhere: its content security policy forbids it. */
#ifndef TRAINER_REPORT_H
#define TRAINER_REPORT_H

#include <jansson.h>

#include "base/status.h"

typedef struct ct_report_input {
    const char *title;
    const json_t *metrics;  /* as metrics.json: of, progressive, train, evaluation, model, ... */
    const char *curve;      /* as curve.jsonl */
    const json_t *settings; /* an object of texts, numbers and arrays of texts, shown in its order */
    const char *model_file; /* YAML */
} ct_report_input;

/* out_html: malloc'd. CT_INVALID where the curve is no JSON. */
CT_MUST_CHECK ct_code ct_report_html(const ct_report_input *input, char **out_html, ct_status *status);

#endif
