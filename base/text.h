/* Text to numbers and JSON to status, strict: the whole text or a failure. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <jansson.h>

#include "base/status.h"

/* Whole decimal integer, optional sign; false on anything else or overflow. */
bool ct_parse_i64(const char *text, size_t bytes, int64_t *out_value);
/* A decimal number (digits, sign, point, exponent); no blanks, hex, inf or nan; false on anything else. Correctly rounded to float. Beyond
 * float's range: false. Fast for plain integers. */
bool ct_parse_f32(const char *text, size_t bytes, float *out_value);
bool ct_parse_f64(const char *text, size_t bytes, double *out_value);

/* Copies `text` for a message: at most out_bytes - 1 bytes, non-printing bytes as \xNN, "..." where cut; returns out. */
const char *ct_text_show(const char *text, size_t bytes, char *out, size_t out_bytes);

/* --- JSON (jansson), with errors that name the file --- */
CT_MUST_CHECK ct_code ct_json_parse(const char *data, size_t bytes, const char *name, json_t **out_json, ct_status *status);
CT_MUST_CHECK ct_code ct_json_load(const char *path, json_t **out_json, ct_status *status);
/* Indented, sorted as inserted, final newline; written beside and renamed. */
CT_MUST_CHECK ct_code ct_json_save(const char *path, const json_t *json, ct_status *status);
json_t *ct_json_real(double value); /* null where the value is not finite */
/* The member, or CT_CORRUPT with name, member and the type that was expected. */
CT_MUST_CHECK ct_code ct_json_get_string(const json_t *object, const char *member, const char *name, const char **out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_i64(const json_t *object, const char *member, const char *name, int64_t *out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_f64(const json_t *object, const char *member, const char *name, double *out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_array(const json_t *object, const char *member, const char *name, json_t **out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_object(const json_t *object, const char *member, const char *name, json_t **out, ct_status *status);

#endif
