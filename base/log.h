/* Log lines of a long-running process, in logfmt, on standard error: time=... level=info event=serve.start address=... One write each. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/status.h"

typedef enum ct_log_level { CT_LOG_INFO, CT_LOG_WARNING, CT_LOG_ERROR } ct_log_level;

/* `event` is a dotted name; `format` gives the remaining "key=value" pairs. Values with spaces must come quoted: use ct_log_quote.
 * (ct_log is the logarithm: base/math.h.) */
void ct_log_line(ct_log_level level, const char *event, const char *format, ...) CT_PRINTF(3, 4);
/* Writes `text` in double quotes with \" \\ \n escaped into `out`, cut to fit; returns out. */
const char *ct_log_quote(const char *text, char *out, size_t out_bytes);

#endif
