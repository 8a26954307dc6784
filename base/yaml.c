/* libcyaml reports by a log function: one line with the reason, then a backtrace from the inside out, each with a position. The first of
 * each is kept. */
#include "base/yaml.h"

#include <stdio.h>
#include <string.h>

enum { REASON_BYTES = 256, PLACE_BYTES = 256 };

typedef struct yaml_log {
    char reason[REASON_BYTES];
    char place[PLACE_BYTES]; /* "field 'layers' of 'cross'" */
    unsigned long line;
} yaml_log;

/* The name in quotes of a backtrace line, or NULL. Cuts the text behind it. */
static char *quoted(char *text) {
    char *begin = strchr(text, '\'');
    if (begin == NULL) return NULL;
    char *end = strchr(begin + 1, '\'');
    if (end == NULL) return NULL;
    *end = '\0';
    return begin + 1;
}

CT_PRINTF(3, 0) static void keep(cyaml_log_t level, void *context, const char *format, va_list arguments) {
    (void)level;
    yaml_log *log = context;
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\n")] = '\0';
    char *body = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
    if (strncmp(body, "Backtrace", 9) == 0) return;
    if (strncmp(body, "  in ", 5) != 0) {
        if (log->reason[0] == '\0') snprintf(log->reason, sizeof log->reason, "%.*s", (int)sizeof log->reason - 1, body);
        return;
    }
    const char *line = strstr(body, "(line: ");
    if (log->line == 0 && line != NULL && sscanf(line, "(line: %lu", &log->line) != 1) log->line = 0;
    const bool entry = strstr(body, "sequence entry") != NULL;
    const char *name = quoted(body);
    if (name == NULL) return;
    const size_t used = strlen(log->place);
    snprintf(log->place + used, sizeof log->place - used, "%s%s '%s'", used == 0 ? "" : " of ", entry ? "entry" : "field", name);
}

static cyaml_config_t config(yaml_log *log) {
    return (cyaml_config_t){.log_fn = log == NULL ? NULL : keep,
                            .log_ctx = log,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_WARNING,
                            .flags = CYAML_CFG_DEFAULT};
}

ct_code ct_yaml_load(const char *text, size_t bytes, const char *path, const cyaml_schema_value_t *schema, void **out, ct_status *status) {
    yaml_log log = {"", "", 0};
    const cyaml_config_t loading = config(&log);
    void *data = NULL;
    const cyaml_err_t error = bytes == 0 ? CYAML_OK : cyaml_load_data((const uint8_t *)text, bytes, &loading, schema, &data, NULL);
    if (error == CYAML_ERR_OOM) return ct_fail(status, CT_EXHAUSTED, "%s: out of memory while reading YAML", path);
    if (error == CYAML_OK && data == NULL) return ct_fail(status, CT_INVALID, "%s: the file is empty; it must be a YAML mapping", path);
    if (error == CYAML_OK) {
        *out = data;
        return CT_OK;
    }
    const char *reason = log.reason[0] != '\0' ? log.reason : cyaml_strerror(error);
    if (log.line == 0) return ct_fail(status, CT_INVALID, "%s: %s%s%s", path, log.place, log.place[0] == '\0' ? "" : ": ", reason);
    return ct_fail(status, CT_INVALID, "%s:%lu: %s%s%s", path, log.line, log.place, log.place[0] == '\0' ? "" : ": ", reason);
}

void ct_yaml_free(const cyaml_schema_value_t *schema, void *data) {
    const cyaml_config_t freeing = config(NULL);
    if (data != NULL) cyaml_free(&freeing, schema, data, 0);
}
