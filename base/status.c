#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* A message is one line of UTF-8 without control characters, whatever it quotes: it goes to terminals, logs, JSON and gRPC. Messages are
 * formatted into a buffer on the stack first: an argument may be the old message of the same status. */
static void set_message(ct_status *status, const char *text) {
    const size_t bytes = strlen(text);
    size_t used = 0;
    for (size_t i = 0, length; i < bytes; i += length) {
        uint32_t c = 0;
        length = ct_utf8_character(text + i, bytes - i, &c);
        if (used + (length > 0 ? length : 1) > sizeof status->message - 1) break;
        if (c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa0)) {
            memcpy(status->message + used, text + i, length);
            used += length;
            continue;
        }
        status->message[used++] = c == '\n' || c == '\r' || c == '\t' ? ' ' : '?';
        if (length == 0) length = 1;
    }
    status->message[used] = '\0';
}

/* Appends a and b at `used`, cut to fit. */
static void append(char text[CT_STATUS_MESSAGE_BYTES], size_t used, const char *a, const char *b) {
    if (used > CT_STATUS_MESSAGE_BYTES - 1) used = CT_STATUS_MESSAGE_BYTES - 1;
    for (; *a && used < CT_STATUS_MESSAGE_BYTES - 1; a++) text[used++] = *a;
    for (; *b && used < CT_STATUS_MESSAGE_BYTES - 1; b++) text[used++] = *b;
    text[used] = '\0';
}

ct_code ct_fail(ct_status *status, ct_code code, const char *format, ...) {
    char text[CT_STATUS_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(text, sizeof text, format, arguments) < 0) text[0] = '\0';
    va_end(arguments);
    status->code = code;
    set_message(status, text);
    return code;
}

ct_code ct_fail_within(ct_status *status, const char *format, ...) {
    char text[CT_STATUS_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0) length = 0;
    append(text, (size_t)length, ": ", status->message);
    set_message(status, text);
    return status->code;
}

ct_code ct_fail_errno(ct_status *status, const char *format, ...) {
    const int error = errno;
    char text[CT_STATUS_MESSAGE_BYTES], reason[128];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0) length = 0;
    append(text, (size_t)length, ": ", strerror_r(error, reason, sizeof reason)); /* the GNU one: it returns the text */
    switch (error) {
        case ENOENT:
            status->code = CT_NOT_FOUND;
            break;
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
        case ENOMEM:
            status->code = CT_EXHAUSTED;
            break;
        default:
            status->code = CT_IO;
    }
    set_message(status, text);
    return status->code;
}

ct_code ct_fail_memory(ct_status *status, size_t bytes, const char *what) {
    return ct_fail(status, CT_EXHAUSTED, "out of memory (%zu bytes for %s)", bytes, what);
}

const char *ct_code_name(ct_code code) {
    switch (code) {
        case CT_OK:
            return "ok";
        case CT_END:
            return "end";
        case CT_INVALID:
            return "invalid";
        case CT_USAGE:
            return "usage";
        case CT_NOT_FOUND:
            return "not_found";
        case CT_EXISTS:
            return "exists";
        case CT_IO:
            return "io";
        case CT_CORRUPT:
            return "corrupt";
        case CT_UNSUPPORTED:
            return "unsupported";
        case CT_EXHAUSTED:
            return "exhausted";
        case CT_UNAVAILABLE:
            return "unavailable";
        case CT_DEADLINE:
            return "deadline";
        case CT_CANCELLED:
            return "cancelled";
        case CT_INTERNAL:
            return "internal";
    }
    return "unknown";
}
