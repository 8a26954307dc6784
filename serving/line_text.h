/* One line of JSON after the other as text, for files that hold millions of values: straight into a buffer, without a tree. The caller puts
 * the braces and commas; a line is checked by the tests that read it with a JSON library. */
#ifndef SERVING_LINE_TEXT_H
#define SERVING_LINE_TEXT_H

#include "base/status.h"

/* Zeroed = empty. Out of memory is remembered: what is put afterwards is lost, and `failed` says so. */
typedef struct ct_line_text {
    char *data;
    size_t bytes, capacity;
    bool failed;
} ct_line_text;

void ct_line_text_deinit(ct_line_text *text);
/* Empties it; gives memory back where it has grown beyond keep_bytes. */
void ct_line_text_reset(ct_line_text *text, size_t keep_bytes);

void ct_line_text_put(ct_line_text *text, const char *literal); /* as it is */
/* A JSON string; where the bytes are not UTF-8, {"hex":"..."} of them. `data` may be NULL where there are none. */
void ct_line_text_string(ct_line_text *text, const void *data, size_t bytes);
void ct_line_text_integer(ct_line_text *text, int64_t value);
/* Up to nine digits, which give the float back; null where it is not finite. */
void ct_line_text_float(ct_line_text *text, float value);
void ct_line_text_double(ct_line_text *text, double value); /* seventeen */
/* ,"name": with the comma unless the object was just opened */
void ct_line_text_member(ct_line_text *text, const char *name);

#endif
