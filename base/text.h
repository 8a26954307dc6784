/* Text to numbers, strict: the whole text or nothing; and text in messages. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/status.h"

/* Whole decimal integer, optional sign; false on anything else or overflow. */
bool ct_parse_i64(const char *text, size_t bytes, int64_t *out_value);
/* A decimal number (digits, sign, point, exponent); no blanks, hex, inf or nan; false on anything else. Correctly rounded to float. Beyond
 * float's range: false. Fast for plain integers. */
bool ct_parse_f32(const char *text, size_t bytes, float *out_value);
bool ct_parse_f64(const char *text, size_t bytes, double *out_value);

/* Copies `text` for a message: at most out_bytes - 1 bytes, non-printing bytes as \xNN, "..." where cut; returns out. */
const char *ct_text_show(const char *text, size_t bytes, char *out, size_t out_bytes);

#endif
