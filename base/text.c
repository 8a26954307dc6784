/* Numbers are read in two steps: the grammar is checked and the digits are gathered into a 64-bit integer and a power of ten; where one
 * IEEE operation on exact operands gives the nearest value (Clinger's fast path) that is the answer, else the C library's strtod gets the
 * significant digits, in the C locale. */
#include "base/text.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ct_parse_i64(const char *text, size_t bytes, int64_t *out_value) {
    size_t i = 0;
    bool negative = false;
    if (bytes && (text[0] == '-' || text[0] == '+')) negative = text[i++] == '-';
    if (i == bytes) return false;
    uint64_t value = 0;
    for (; i < bytes; i++) {
        const unsigned digit = (unsigned)(unsigned char)text[i] - '0';
        if (digit > 9) return false;
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) || __builtin_add_overflow(value, (uint64_t)digit, &value)) return false;
    }
    if (value > (uint64_t)INT64_MAX + negative) return false;
    *out_value = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

/* A value needs no more significant digits than this: a double's halfway case has at most 767, and one more digit tells on which side
 * of it the rest lies. */
enum { MAX_DIGITS = 800 };

typedef struct decimal {
    bool negative;
    uint64_t mantissa; /* of the first 19 significant digits */
    size_t digits;     /* significant ones, all of them */
    size_t first;      /* where the first of them stands in the text */
    size_t end;        /* behind the last digit before the exponent */
    int64_t exponent;  /* of the last digit: value = digits * 10^exponent */
} decimal;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool decimal_read(const char *text, size_t bytes, decimal *d) {
    size_t i = 0;
    *d = (decimal){0};
    if (bytes && (text[0] == '-' || text[0] == '+')) d->negative = text[i++] == '-';
    bool any = false, point = false;
    for (; i < bytes; i++) {
        const char c = text[i];
        if (c == '.') {
            if (point) return false;
            point = true;
            continue;
        }
        if (!is_digit(c)) break;
        any = true;
        if (point) d->exponent--;
        if (d->digits == 0 && c == '0') continue; /* a leading zero */
        if (d->digits == 0) d->first = i;
        if (d->digits < 19) d->mantissa = 10 * d->mantissa + (uint64_t)(c - '0');
        d->digits++;
    }
    if (!any) return false;
    d->end = i;
    if (i == bytes) return true;
    if (text[i] != 'e' && text[i] != 'E') return false;
    if (++i == bytes) return false;
    bool negative = false;
    if (text[i] == '-' || text[i] == '+') negative = text[i++] == '-';
    if (i == bytes) return false;
    int64_t exponent = 0;
    for (; i < bytes; i++) {
        if (!is_digit(text[i])) return false;
        /* Saturates far beyond what as many digits as fit into memory could make up for. */
        if (exponent < INT64_C(1000000000000000)) exponent = 10 * exponent + (text[i] - '0');
    }
    d->exponent += negative ? -exponent : exponent;
    return true;
}

/* Writes the significant digits as DIGITSeEXPONENT for strtod; what is beyond MAX_DIGITS is replaced by one digit that is not 0 if any of
 * it was not. */
static void decimal_print(const decimal *d, const char *text, char out[MAX_DIGITS + 32]) {
    size_t used = 0, seen = 0;
    bool rest = false;
    for (size_t i = d->first; i < d->end; i++) {
        if (text[i] == '.') continue;
        if (seen < MAX_DIGITS)
            out[used++] = text[i];
        else
            rest = rest || text[i] != '0';
        seen++;
    }
    int64_t exponent = d->exponent + (int64_t)(seen > MAX_DIGITS ? seen - MAX_DIGITS : 0);
    if (rest) {
        out[used++] = '1';
        exponent--;
    }
    if (exponent > 100000) exponent = 100000; /* strtod need not know larger ones */
    if (exponent < -100000) exponent = -100000;
    (void)snprintf(out + used, 24, "e%lld", (long long)exponent);
}

bool ct_parse_f64(const char *text, size_t bytes, double *out_value) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}; /* all exact */
    decimal d;
    if (!decimal_read(text, bytes, &d)) return false;
    double value;
    if (d.digits == 0) {
        value = 0;
    } else if (d.digits <= 19 && d.exponent == 0) {
        value = (double)d.mantissa;
    } else if (d.digits <= 19 && d.mantissa <= UINT64_C(1) << 53 && d.exponent >= -22 && d.exponent <= 22) {
        value = d.exponent < 0 ? (double)d.mantissa / powers[-d.exponent] : (double)d.mantissa * powers[d.exponent];
    } else {
        char digits[MAX_DIGITS + 32];
        decimal_print(&d, text, digits);
        const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* glibc has it ready: no allocation */
        if (!c) return false;
        value = strtod_l(digits, NULL, c);
        freelocale(c);
        if (isinf(value)) return false;
    }
    *out_value = d.negative ? -value : value;
    return true;
}

bool ct_parse_f32(const char *text, size_t bytes, float *out_value) {
    static const float powers[] = {1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f, 1e6f, 1e7f, 1e8f, 1e9f, 1e10f}; /* all exact */
    decimal d;
    if (!decimal_read(text, bytes, &d)) return false;
    float value;
    if (d.digits == 0) {
        value = 0;
    } else if (d.digits <= 19 && d.exponent == 0) {
        value = (float)d.mantissa;
    } else if (d.digits <= 19 && d.mantissa <= UINT64_C(1) << 24 && d.exponent >= -10 && d.exponent <= 10) {
        value = d.exponent < 0 ? (float)d.mantissa / powers[-d.exponent] : (float)d.mantissa * powers[d.exponent];
    } else {
        char digits[MAX_DIGITS + 32];
        decimal_print(&d, text, digits);
        const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        if (!c) return false;
        value = strtof_l(digits, NULL, c);
        freelocale(c);
        if (isinf(value)) return false;
    }
    *out_value = d.negative ? -value : value;
    return true;
}

size_t ct_utf8_character(const char *text, size_t bytes, uint32_t *out_character) {
    const uint8_t *at = (const uint8_t *)text;
    if (bytes == 0) return 0;
    uint8_t low = 0x80, high = 0xbf; /* of the second byte */
    size_t more = 0;
    uint32_t character = at[0];
    if (at[0] >= 0xc2 && at[0] <= 0xdf) {
        more = 1;
        character &= 0x1f;
    } else if (at[0] >= 0xe0 && at[0] <= 0xef) {
        more = 2;
        character &= 0x0f;
        if (at[0] == 0xe0) low = 0xa0;
        if (at[0] == 0xed) high = 0x9f;
    } else if (at[0] >= 0xf0 && at[0] <= 0xf4) {
        more = 3;
        character &= 0x07;
        if (at[0] == 0xf0) low = 0x90;
        if (at[0] == 0xf4) high = 0x8f;
    } else if (at[0] >= 0x80) {
        return 0;
    }
    if (bytes <= more || (more > 0 && (at[1] < low || at[1] > high))) return 0;
    for (size_t i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
        character = character << 6 | (at[i] & 0x3f);
    }
    if (out_character) *out_character = character;
    return more + 1;
}

bool ct_utf8_is_valid(const void *text, size_t bytes) {
    const char *at = text;
    for (size_t i = 0, length; i < bytes; i += length) {
        length = (unsigned char)at[i] < 0x80 ? 1 : ct_utf8_character(at + i, bytes - i, NULL);
        if (length == 0) return false;
    }
    return true;
}

const char *ct_text_show(const char *text, size_t bytes, char *out, size_t out_bytes) {
    if (out_bytes == 0) return out;
    /* Where all of it does not fit, room is kept for "...": `fits` is how far the text may go then. */
    size_t used = 0, cut_at = 0, i = 0;
    for (; i < bytes; i++) {
        const unsigned char c = (unsigned char)text[i];
        const size_t need = c >= 0x20 && c < 0x7f ? 1 : 4;
        if (used + need > out_bytes - 1) break;
        if (need == 1)
            out[used] = (char)c;
        else {
            out[used] = '\\';
            out[used + 1] = 'x';
            out[used + 2] = "0123456789abcdef"[c >> 4];
            out[used + 3] = "0123456789abcdef"[c & 15];
        }
        used += need;
        if (used + 3 <= out_bytes - 1) cut_at = used;
    }
    if (i < bytes) {
        used = cut_at;
        for (int dot = 0; dot < 3 && used < out_bytes - 1; dot++) out[used++] = '.';
    }
    out[used] = '\0';
    return out;
}
