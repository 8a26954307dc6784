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

/* Bytes of the character that the text begins with: 1 to 4 in well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing beyond
 * U+10FFFF), else 0. out_character: may be NULL. */
size_t ct_utf8_character(const char *text, size_t bytes, uint32_t *out_character);
bool ct_utf8_is_valid(const void *text, size_t bytes); /* all of it */

/* Copies `text` for a message: at most out_bytes - 1 bytes, non-printing bytes as \xNN, "..." where cut; returns out. */
const char *ct_text_show(const char *text, size_t bytes, char *out, size_t out_bytes);

#endif
