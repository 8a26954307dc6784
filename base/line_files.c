#include "base/line_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/file_sync.h"

enum { TRIES = 100 };

struct ct_line_files {
    char *folder, *prefix;
    uint64_t rotate_bytes;
    int64_t rotate_ms;
    unsigned next; /* SEQ */
    /* of the file that is being written; fd -1 = none */
    int fd;
    char *path; /* its name once it is rotated */
    char *part;
    uint64_t bytes;
    int64_t since_ns;
};

static void files_free(ct_line_files *files) {
    free(files->folder);
    free(files->prefix);
    free(files);
}

/* Closes the file and leaves it as it is. */
static void let_go(ct_line_files *files) {
    if (files->fd >= 0) (void)close(files->fd);
    files->fd = -1;
    free(files->path);
    free(files->part);
    files->path = files->part = NULL;
}

ct_code ct_line_files_open(const ct_line_files_options *options, ct_line_files **out_files, ct_status *status) {
    CT_TRY(ct_folder_create(options->folder, status));
    if (access(options->folder, W_OK | X_OK) != 0) return ct_fail_errno(status, "%s: cannot make files in it", options->folder);
    ct_line_files *files = calloc(1, sizeof *files);
    if (!files) return ct_fail_memory(status, sizeof *files, options->prefix);
    files->folder = strdup(options->folder);
    files->prefix = strdup(options->prefix);
    files->rotate_bytes = options->rotate_bytes;
    files->rotate_ms = options->rotate_ms;
    files->fd = -1;
    if (!files->folder || !files->prefix) {
        files_free(files);
        return ct_fail_memory(status, strlen(options->folder), options->prefix);
    }
    *out_files = files;
    return CT_OK;
}

static ct_code name_file(ct_line_files *files, ct_status *status) {
    const int64_t now_ms = ct_clock_unix_ms();
    const time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    char when[32];
    (void)gmtime_r(&seconds, &utc);
    (void)strftime(when, sizeof when, "%Y%m%dT%H%M%S", &utc);
    if (asprintf(&files->path, "%s/%s-%s%03d-%ld-%u.jsonl", files->folder, files->prefix, when, (int)(now_ms % 1000), (long)getpid(),
                 files->next++) < 0) {
        files->path = NULL;
        return ct_fail_memory(status, strlen(files->folder), "a file's name");
    }
    if (asprintf(&files->part, "%s.part", files->path) < 0) {
        files->part = NULL;
        return ct_fail_memory(status, strlen(files->folder), "a file's name");
    }
    return CT_OK;
}

static ct_code begin(ct_line_files *files, ct_status *status) {
    ct_code code = CT_OK;
    for (unsigned i = 0; i < TRIES; i++) {
        CT_TRY_GOTO(code, name_file(files, status), fail);
        files->fd = open(files->part, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
        if (files->fd < 0 ? errno != EEXIST : !ct_path_exists(files->path)) break;
        /* A process of our number, at this very time, in another container; it writes the file, or has rotated it. */
        if (files->fd >= 0) (void)unlink(files->part);
        let_go(files);
        errno = EEXIST;
    }
    if (files->fd < 0) {
        code = ct_fail_errno(status, "%s: cannot create", files->part ? files->part : files->folder);
        goto fail;
    }
    files->bytes = 0;
    files->since_ns = ct_clock_ns();
    CT_TRY_GOTO(code, ct_sync_parent(files->part, status), fail);
    return CT_OK;
fail:
    if (files->fd >= 0) (void)unlink(files->part);
    let_go(files);
    return code;
}

ct_code ct_line_files_append(ct_line_files *files, const void *lines, size_t bytes, ct_status *status) {
    if (bytes == 0) return CT_OK;
    if (files->fd < 0) CT_TRY(begin(files, status));
    const char *at = lines;
    for (size_t left = bytes; left > 0;) {
        const ssize_t n = write(files->fd, at, left);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            (void)ct_fail_errno(status, "%s: cannot write", files->part);
            /* Nobody may find half a line with others behind it. An empty file is of no use. */
            if (files->bytes == 0) (void)unlink(files->part);
            if (files->bytes == 0 || ftruncate(files->fd, (off_t)files->bytes) != 0) let_go(files);
            return status->code;
        }
        at += n;
        left -= (size_t)n;
    }
    files->bytes += bytes;
    return CT_OK;
}

ct_code ct_line_files_sync(ct_line_files *files, ct_status *status) {
    if (files->fd < 0) return CT_OK;
    int failed = 0;
    do failed = fdatasync(files->fd);
    while (failed != 0 && errno == EINTR);
    if (failed == 0 || errno == EINVAL) return CT_OK; /* EINVAL: the file system knows no such thing */
    (void)ct_fail_errno(status, "%s: cannot sync", files->part);
    let_go(files); /* a second sync would say nothing about what the first one lost */
    return status->code;
}

static ct_code rotate(ct_line_files *files, ct_status *status) {
    if (files->fd < 0) return CT_OK;
    CT_TRY(ct_line_files_sync(files, status));
    ct_code code = CT_OK;
    if (rename(files->part, files->path) != 0)
        code = ct_fail_errno(status, "%s: cannot rename", files->part);
    else
        code = ct_sync_parent(files->path, status);
    let_go(files);
    return code;
}

int64_t ct_line_files_due_ms(const ct_line_files *files) {
    if (files->fd < 0) return -1;
    const int64_t left = files->rotate_ms - (ct_clock_ns() - files->since_ns) / 1000000;
    return left > 0 ? left : 0;
}

ct_code ct_line_files_tend(ct_line_files *files, ct_status *status) {
    if (files->fd < 0 || (files->bytes < files->rotate_bytes && ct_line_files_due_ms(files) > 0)) return CT_OK;
    return rotate(files, status);
}

ct_code ct_line_files_close(ct_line_files *files, ct_status *status) {
    if (!files) return CT_OK;
    const ct_code code = rotate(files, status);
    files_free(files);
    return code;
}
