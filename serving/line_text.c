#include "serving/line_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serving/decode.h"

enum { FIRST_BYTES = 64 * 1024, NUMBER_BYTES = 32 };

void ct_line_text_deinit(ct_line_text *text) {
    free(text->data);
    *text = (ct_line_text){0};
}

void ct_line_text_reset(ct_line_text *text, size_t keep_bytes) {
    text->bytes = 0;
    text->failed = false;
    if (text->capacity > keep_bytes) ct_line_text_deinit(text);
}

/* Room for so many more; NULL where there is none. */
static char *room(ct_line_text *text, size_t bytes) {
    if (text->failed) return NULL;
    if (bytes > text->capacity - text->bytes) {
        size_t capacity = text->capacity ? 2 * text->capacity : FIRST_BYTES;
        while (capacity - text->bytes < bytes) capacity *= 2;
        char *larger = realloc(text->data, capacity);
        if (!larger) {
            text->failed = true;
            return NULL;
        }
        text->data = larger;
        text->capacity = capacity;
    }
    return text->data + text->bytes;
}

static void put_bytes(ct_line_text *text, const char *data, size_t bytes) {
    char *out = room(text, bytes);
    if (!out) return;
    memcpy(out, data, bytes);
    text->bytes += bytes;
}

void ct_line_text_put(ct_line_text *text, const char *literal) { put_bytes(text, literal, strlen(literal)); }

/* Two hex digits of each byte. */
static void put_hex(ct_line_text *text, const uint8_t *data, size_t bytes) {
    static const char digits[] = "0123456789abcdef";
    ct_line_text_put(text, "{\"hex\":\"");
    char *out = room(text, 2 * bytes);
    if (out) {
        for (size_t i = 0; i < bytes; i++) {
            *out++ = digits[data[i] >> 4];
            *out++ = digits[data[i] & 15];
        }
        text->bytes += 2 * bytes;
    }
    ct_line_text_put(text, "\"}");
}

/* Printable ASCII but for quote and backslash: most tokens. */
static bool is_plain(const unsigned char *data, size_t bytes) {
    bool plain = true;
    for (size_t i = 0; i < bytes; i++) plain &= data[i] >= 0x20 && data[i] < 0x80 && data[i] != '"' && data[i] != '\\';
    return plain;
}

void ct_line_text_string(ct_line_text *text, const void *data, size_t bytes) {
    const char *at = data;
    if (is_plain(data, bytes)) {
        char *out = room(text, bytes + 2);
        if (!out) return;
        out[0] = '"';
        if (bytes) memcpy(out + 1, data, bytes);
        out[bytes + 1] = '"';
        text->bytes += bytes + 2;
        return;
    }
    if (!ct_utf8_is_valid(data, bytes)) {
        put_hex(text, data, bytes);
        return;
    }
    char *out = room(text, 6 * bytes + 2);
    if (!out) return;
    char *const begin = out;
    *out++ = '"';
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)at[i];
        if (c == '"' || c == '\\') {
            *out++ = '\\';
            *out++ = (char)c;
        } else if (c < 0x20) {
            out += snprintf(out, 7, "\\u%04x", c);
        } else {
            *out++ = (char)c;
        }
    }
    *out++ = '"';
    text->bytes += (size_t)(out - begin);
}

void ct_line_text_integer(ct_line_text *text, int64_t value) {
    char reversed[NUMBER_BYTES];
    size_t digits = 0;
    char *out = room(text, NUMBER_BYTES);
    if (!out) return;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do reversed[digits++] = (char)('0' + left % 10);
    while ((left /= 10) != 0);
    if (value < 0) reversed[digits++] = '-';
    text->bytes += digits;
    while (digits) *out++ = reversed[--digits];
}

static void put_real(ct_line_text *text, double value, int digits) {
    char *out = room(text, NUMBER_BYTES);
    if (!out) return;
    if (isfinite(value))
        text->bytes += (size_t)snprintf(out, NUMBER_BYTES, "%.*g", digits, value);
    else
        ct_line_text_put(text, "null");
}

void ct_line_text_float(ct_line_text *text, float value) {
    const float whole_below = 1e9f; /* nine digits: the same text, and printed much faster */
    if (value > -whole_below && value < whole_below && value == (float)(int64_t)value && (value != 0.0f || !signbit(value)))
        ct_line_text_integer(text, (int64_t)value);
    else
        put_real(text, (double)value, 9);
}
void ct_line_text_double(ct_line_text *text, double value) { put_real(text, value, 17); }

void ct_line_text_member(ct_line_text *text, const char *name) {
    if (text->bytes && text->data[text->bytes - 1] != '{') ct_line_text_put(text, ",");
    ct_line_text_put(text, "\"");
    ct_line_text_put(text, name);
    ct_line_text_put(text, "\":");
}
