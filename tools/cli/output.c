#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "tools/cli/cli.h"

void ct_warn(const char *verb, const char *format, ...) {
    char text[CT_STATUS_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "clicktower %s: warning: %s\n", verb, text);
}

void ct_warn_report(const char *verb, const char *what, const ct_read_report *report) {
    if (report->bad_total) {
        for (size_t i = 0; i < report->shown; i++) (void)fprintf(stderr, "clicktower %s: bad row: %s\n", verb, report->first_bad[i]);
        char kinds[512] = "";
        for (int kind = 0; kind < CT_BAD_KINDS; kind++) {
            const size_t used = strlen(kinds);
            if (report->bad_rows[kind])
                (void)snprintf(kinds + used, sizeof kinds - used, "%s%s %" PRId64, used ? ", " : "",
                               ct_bad_row_kind_name((ct_bad_row_kind)kind), report->bad_rows[kind]);
        }
        ct_warn(verb, "%" PRId64 " bad %s rows were left out of %" PRId64 " (%s); --max-bad-rows makes them a failure", report->bad_total,
                what, report->bad_total + report->rows, kinds);
    }
    if (report->unsorted_times)
        ct_warn(verb, "%" PRId64 " of %" PRId64 " %s rows have a time before that of the row ahead of them: the log is not sorted by time",
                report->unsorted_times, report->rows, what);
}

static ct_code check_place(const char *option, const char *path, ct_status *status) {
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) return CT_OK; /* a device or a pipe is written to as it is */
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (folder == NULL) return ct_fail_memory(status, strlen(path), "a folder's name");
    const ct_code code =
        access(folder, W_OK | X_OK) == 0 ? CT_OK : ct_fail_errno(status, "--%s %s: cannot write into folder %s", option, path, folder);
    free(folder);
    return code;
}

ct_code ct_check_output(const char *option, const char *path, const char *const *read, size_t read_count, ct_status *status) {
    for (size_t i = 0; path != NULL && i < read_count; i++)
        if (read[i] != NULL && ct_path_same_file(path, read[i]))
            return ct_fail(status, CT_USAGE, "--%s %s is the file %s, which is read: it would be replaced; give another name", option, path,
                           read[i]);
    return path == NULL || strcmp(path, "-") == 0 ? CT_OK : check_place(option, path, status);
}

ct_code ct_flush_results(ct_status *status) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return CT_OK;
    if (!errno) errno = EIO;
    return ct_fail_errno(status, "standard output");
}

ct_code ct_json_output(const char *path, const json_t *json, ct_status *status) {
    if (strcmp(path, "-") != 0) return ct_json_save(path, json, status);
    if (json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) != 0) return ct_fail_errno(status, "standard output");
    (void)fputc('\n', stdout);
    return ct_flush_results(status);
}

static void print_real(FILE *file, const char *name, double value) {
    if (isfinite(value))
        (void)fprintf(file, "%s %.6f\n", name, value);
    else
        (void)fprintf(file, "%s none\n", name);
}

void ct_print_metrics(FILE *file, const ct_metrics *metrics, bool with_groups) {
    (void)fprintf(file, "rows %" PRId64 "\n", metrics->rows);
    (void)fprintf(file, "clicks %.9g\n", metrics->clicks);
    print_real(file, "auc", metrics->auc);
    print_real(file, "log_loss", metrics->log_loss);
    print_real(file, "normalized_entropy", metrics->normalized_entropy);
    print_real(file, "calibration", metrics->calibration);
    print_real(file, "mean_prediction", metrics->mean_prediction);
    if (!with_groups) return;
    print_real(file, "grouped_auc", metrics->grouped_auc);
    (void)fprintf(file, "groups %" PRId64 "\n", metrics->groups);
}

void ct_print_metrics_line(FILE *file, const ct_metrics *metrics) {
    const struct {
        const char *name;
        double value;
    } parts[] = {{"auc", metrics->auc},
                 {"log_loss", metrics->log_loss},
                 {"normalized_entropy", metrics->normalized_entropy},
                 {"calibration", metrics->calibration}};
    const char *space = "";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!isfinite(parts[i].value)) continue;
        (void)fprintf(file, "%s%s %.5f", space, parts[i].name, parts[i].value);
        space = "  ";
    }
}

struct ct_predictions_file {
    ct_file_writer *writer; /* NULL = standard output */
};

ct_code ct_predictions_open(const char *path, ct_predictions_file **out_file, ct_status *status) {
    ct_predictions_file *file = calloc(1, sizeof *file);
    if (!file) return ct_fail_memory(status, sizeof *file, "the predictions");
    if (strcmp(path, "-") != 0 && ct_file_writer_open(path, &file->writer, status) != CT_OK) {
        free(file);
        return status->code;
    }
    *out_file = file;
    return CT_OK;
}

ct_code ct_predictions_write(ct_predictions_file *file, const float *values, size_t rows, size_t columns, ct_status *status) {
    enum { ONE_BYTES = 24 };
    char text[ONE_BYTES * 64];
    size_t used = 0;
    for (size_t i = 0; i < rows * columns; i++) {
        const bool last_of_row = (i + 1) % columns == 0;
        used += (size_t)snprintf(text + used, ONE_BYTES, "%.9g%c", (double)values[i], last_of_row ? '\n' : '\t');
        if (used + ONE_BYTES <= sizeof text && i + 1 < rows * columns) continue;
        if (file->writer) {
            CT_TRY(ct_file_writer_write(file->writer, text, used, status));
        } else if (fwrite(text, 1, used, stdout) != used) {
            return ct_fail_errno(status, "standard output");
        }
        used = 0;
    }
    return CT_OK;
}

ct_code ct_predictions_commit(ct_predictions_file *file, ct_status *status) {
    const ct_code code = file->writer ? ct_file_writer_commit(file->writer, status) : ct_flush_results(status);
    free(file);
    return code;
}

void ct_predictions_abort(ct_predictions_file *file) {
    if (!file) return;
    ct_file_writer_abort(file->writer);
    free(file);
}
