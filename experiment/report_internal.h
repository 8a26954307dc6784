/* Reading and writing the reports' JSON, for every renderer and maker of one. */
#ifndef EXPERIMENT_REPORT_INTERNAL_H
#define EXPERIMENT_REPORT_INTERNAL_H

#include <jansson.h>

#include "base/status.h"

static inline const json_t *member(const json_t *object, const char *name) { return json_object_get(object, name); }
/* 0 where it is missing or null. */
static inline double number(const json_t *object, const char *name) { return json_number_value(member(object, name)); }
/* "" where it is missing or null. */
static inline const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(member(object, name));
    return text != NULL ? text : "";
}

/* Adds a text to a report's array of warnings. */
CT_MUST_CHECK ct_code report_warn(json_t *warnings, ct_status *status, const char *format, ...) CT_PRINTF(3, 4);

#endif
