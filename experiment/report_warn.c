/* Warnings of the reports. */
#include <stdarg.h>
#include <stdio.h>

#include "experiment/report_internal.h"

ct_code report_warn(json_t *warnings, ct_status *status, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_t *json = json_string(text); /* NULL where a file's name is no UTF-8 */
    if (json == NULL) json = json_string("a warning that names a file whose name is not UTF-8");
    return json_array_append_new(warnings, json) == 0 ? CT_OK : ct_fail_memory(status, sizeof text, "the report's warnings");
}
