#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void ct_log_line(ct_log_level level, const char *event, const char *format, ...) {
    static const char *const names[] = {[CT_LOG_INFO] = "info", [CT_LOG_WARNING] = "warning", [CT_LOG_ERROR] = "error"};
    char line[4096];
    struct timespec now;
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, sizeof line, "time=%Y-%m-%dT%H:%M:%S", &utc);
    int length = snprintf(line + used, sizeof line - used, ".%03dZ level=%s event=%s ", (int)(now.tv_nsec / 1000000), names[level], event);
    used = length < 0 ? used : used + (size_t)length;
    if (used > sizeof line - 2) used = sizeof line - 2;
    va_list arguments;
    va_start(arguments, format);
    length = vsnprintf(line + used, sizeof line - 1 - used, format, arguments); /* one byte stays for the newline */
    va_end(arguments);
    if (length > 0) used += (size_t)length;
    if (used > sizeof line - 2) used = sizeof line - 2;
    for (size_t i = 0; i < used; i++)
        if (line[i] == '\n' || line[i] == '\r') line[i] = ' ';
    if (used && line[used - 1] == ' ') used--;
    line[used++] = '\n';
    const ssize_t written = write(STDERR_FILENO, line, used); /* there is nobody to tell of a failure */
    (void)written;
}

const char *ct_log_quote(const char *text, char *out, size_t out_bytes) {
    if (out_bytes < 3) { /* no room for two quotes */
        if (out_bytes) out[0] = '\0';
        return out;
    }
    size_t used = 0;
    out[used++] = '"';
    for (; *text; text++) {
        const char c = *text;
        const bool escape = c == '"' || c == '\\' || c == '\n' || c == '\r';
        if (used + (escape ? 2u : 1u) + 2u > out_bytes) break; /* the closing quote and NUL must follow */
        if (escape) out[used++] = '\\';
        out[used++] = c == '\n' ? 'n' : c == '\r' ? 'r' : ((unsigned char)c < 0x20 || c == 0x7f) ? ' ' : c;
    }
    out[used++] = '"';
    out[used] = '\0';
    return out;
}
