#include "serving/line_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

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

/* Nine digits of a value in [1e-5, 1e9) without printf, which takes ten times as long. The digits are those of value * 10^n in double
 * arithmetic, so they may differ from the nearest ones by one where these are almost a tie; floats lie six times as far apart as that. */
static void put_nine_digits(ct_line_text *text, float value) {
    static const double powers[] = {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
    static const double scales[] = {1e13, 1e12, 1e11, 1e10, 1e9, 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 1e2, 1e1, 1};
    enum { DIGITS = 9, UNITS = 5 /* powers[UNITS] is 1 */ };
    char *out = room(text, NUMBER_BYTES), digits[DIGITS];
    if (!out) return;
    char *const begin = out;
    const double x = fabs((double)value);
    int p = 0;
    while (x >= powers[p + 1]) p++;
    uint64_t number = (uint64_t)(x * scales[p] + 0.5);
    if (number == 1000000000) { /* 0.99999999996 is 1 */
        number = 100000000;
        p++;
    }
    for (int i = DIGITS; i-- > 0; number /= 10) digits[i] = (char)('0' + number % 10);
    const int whole = p - UNITS + 1; /* digits before the point; not positive: zeros behind it */
    int last = DIGITS;
    while (last > 1 && last > whole && digits[last - 1] == '0') last--;
    if (value < 0) *out++ = '-';
    if (whole <= 0) *out++ = '0';
    for (int i = 0; i < whole; i++) *out++ = digits[i];
    if (last > whole) *out++ = '.';
    for (int i = whole; i < 0; i++) *out++ = '0';
    for (int i = whole > 0 ? whole : 0; i < last; i++) *out++ = digits[i];
    text->bytes += (size_t)(out - begin);
}

void ct_line_text_float(ct_line_text *text, float value) {
    const float whole_below = 1e9f; /* nine digits: the same text, and printed much faster */
    if (value > -whole_below && value < whole_below && value == (float)(int64_t)value && (value != 0.0f || !signbit(value)))
        ct_line_text_integer(text, (int64_t)value);
    else if (fabsf(value) >= 1e-4f && fabsf(value) < whole_below)
        put_nine_digits(text, value);
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
