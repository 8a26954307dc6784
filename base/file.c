/* One file at a time: written beside its name and renamed, or read whole. The name beside is PATH.partial-PID; what a dead process with
 * our number left there is overwritten. Two writers of one path in one process are a mistake of the caller. A device or a pipe
 * (/dev/null, /dev/stdout) is written to as it is: to rename a file over it would take it away from everybody. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_sync.h"
#include "base/pause.h"

enum { BUFFER_BYTES = 256 * 1024 };

struct ct_file_writer {
    char *path, *partial; /* partial: NULL = written to as it is */
    int fd;
    uint64_t position; /* with what the buffer holds */
    size_t used;
    char buffer[BUFFER_BYTES];
};

static void writer_free(ct_file_writer *writer) {
    free(writer->path);
    free(writer->partial);
    free(writer);
}

static ct_code open_output(ct_file_writer *writer, ct_status *status) {
    struct stat info;
    const bool exists = stat(writer->path, &info) == 0;
    if (exists && S_ISDIR(info.st_mode)) return ct_fail(status, CT_INVALID, "%s: is a folder, not a file", writer->path);
    if (exists && !S_ISREG(info.st_mode)) {
        writer->fd = open(writer->path, O_WRONLY | O_CLOEXEC);
        return writer->fd < 0 ? ct_fail_errno(status, "%s: cannot open", writer->path) : CT_OK;
    }
    if (asprintf(&writer->partial, "%s.partial-%ld", writer->path, (long)getpid()) < 0) {
        writer->partial = NULL;
        return ct_fail_memory(status, strlen(writer->path), "a file's name");
    }
    (void)unlink(writer->partial); /* a name that is left may belong to somebody else or be a link */
    writer->fd = open(writer->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return writer->fd < 0 ? ct_fail_errno(status, "%s: cannot create", writer->path) : CT_OK;
}

ct_code ct_file_writer_open(const char *path, ct_file_writer **out_writer, ct_status *status) {
    ct_file_writer *writer = malloc(sizeof *writer);
    if (!writer) return ct_fail_memory(status, sizeof *writer, "a file writer");
    writer->fd = -1;
    writer->position = 0;
    writer->used = 0;
    writer->path = strdup(path);
    writer->partial = NULL;
    const ct_code code = writer->path ? open_output(writer, status) : ct_fail_memory(status, strlen(path), "a file's name");
    if (code != CT_OK) {
        writer_free(writer);
        return code;
    }
    *out_writer = writer;
    return CT_OK;
}

static ct_code write_all(ct_file_writer *writer, const char *data, size_t bytes, ct_status *status) {
    while (bytes > 0) {
        const ssize_t n = write(writer->fd, data, bytes);
        if (n < 0) {
            if (errno == EINTR) continue;
            return ct_fail_errno(status, "%s: cannot write", writer->path);
        }
        data += n;
        bytes -= (size_t)n;
    }
    return CT_OK;
}

static ct_code flush(ct_file_writer *writer, ct_status *status) {
    const size_t used = writer->used;
    writer->used = 0;
    return write_all(writer, writer->buffer, used, status);
}

ct_code ct_file_writer_write(ct_file_writer *writer, const void *data, size_t bytes, ct_status *status) {
    if (bytes > BUFFER_BYTES - writer->used) {
        CT_TRY(flush(writer, status));
        if (bytes >= BUFFER_BYTES) {
            CT_TRY(write_all(writer, data, bytes, status));
            writer->position += bytes;
            return CT_OK;
        }
    }
    if (bytes) memcpy(writer->buffer + writer->used, data, bytes);
    writer->used += bytes;
    writer->position += bytes;
    return CT_OK;
}

ct_code ct_file_writer_printf(ct_file_writer *writer, ct_status *status, const char *format, ...) {
    char small[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(small, sizeof small, format, arguments);
    va_end(arguments);
    if (length < 0) return ct_fail(status, CT_INTERNAL, "%s: cannot format a line", writer->path);
    if ((size_t)length < sizeof small) return ct_file_writer_write(writer, small, (size_t)length, status);
    char *large = NULL;
    va_start(arguments, format);
    length = vasprintf(&large, format, arguments);
    va_end(arguments);
    if (length < 0) return ct_fail_memory(status, 0, "a formatted line");
    const ct_code code = ct_file_writer_write(writer, large, (size_t)length, status);
    free(large);
    return code;
}

ct_code ct_file_writer_overwrite(ct_file_writer *writer, uint64_t offset, const void *data, size_t bytes, ct_status *status) {
    if (offset > writer->position || bytes > writer->position - offset)
        return ct_fail(status, CT_INTERNAL, "%s: bytes %llu to %llu of %llu written ones", writer->path, (unsigned long long)offset,
                       (unsigned long long)(offset + bytes), (unsigned long long)writer->position);
    CT_TRY(flush(writer, status));
    for (const char *from = data; bytes > 0;) {
        const ssize_t n = pwrite(writer->fd, from, bytes, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR) continue;
            return ct_fail_errno(status, "%s: cannot write", writer->path);
        }
        from += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return CT_OK;
}

uint64_t ct_file_writer_position(const ct_file_writer *writer) { return writer->position; }

ct_code ct_file_writer_commit(ct_file_writer *writer, ct_status *status) {
    ct_code code;
    CT_TRY_GOTO(code, flush(writer, status), fail);
    const bool sync = writer->partial && !ct_path_is_staged(writer->path);
    if (sync) CT_TRY_GOTO(code, ct_sync_fd(writer->fd, writer->path, status), fail);
    const int closed = close(writer->fd);
    writer->fd = -1;
    if (closed != 0) {
        code = ct_fail_errno(status, "%s: cannot close", writer->path);
        goto fail;
    }
    if (writer->partial && rename(writer->partial, writer->path) != 0) {
        code = ct_fail_errno(status, "%s: cannot rename %s to it", writer->path, writer->partial);
        goto fail;
    }
    if (sync) code = ct_sync_parent(writer->path, status);
    writer_free(writer);
    return code;
fail:
    ct_file_writer_abort(writer);
    return code;
}

void ct_file_writer_abort(ct_file_writer *writer) {
    if (!writer) return;
    if (writer->fd >= 0) (void)close(writer->fd);
    if (writer->partial) (void)unlink(writer->partial);
    writer_free(writer);
}

/* A kernel that does not preempt itself keeps the processor from others until a call ends: a large one is cut. */
static size_t cut(size_t bytes) { return bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES; }

/* read() that goes on after a signal. */
static ssize_t read_some(int fd, void *to, size_t bytes) {
    ssize_t n;
    do n = read(fd, to, cut(bytes));
    while (n < 0 && errno == EINTR);
    return n;
}

ct_code ct_file_read_at(int fd, const char *path, uint64_t offset, void *to, size_t bytes, ct_status *status) {
    for (char *at = to; bytes > 0;) {
        const ssize_t n = pread(fd, at, cut(bytes), (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ct_fail_errno(status, "%s: cannot read", path);
        if (n == 0) return ct_fail(status, CT_CORRUPT, "%s: it has become shorter", path);
        at += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
        ct_pause_point();
    }
    return CT_OK;
}

ct_code ct_file_read(const char *path, size_t max_bytes, char **out_data, size_t *out_bytes, ct_status *status) {
    ct_code code = CT_OK;
    char *data = NULL;
    size_t used = 0, capacity = 4096;
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ct_fail_errno(status, "%s: cannot open", path);
    if (fstat(fd, &info) != 0) {
        code = ct_fail_errno(status, "%s: cannot look at it", path);
        goto fail;
    }
    if (S_ISREG(info.st_mode)) {
        if ((uint64_t)info.st_size > max_bytes) goto too_large;
        capacity = (size_t)info.st_size + 1; /* one more, to see the end in the same call */
    }
    for (;;) {
        char *larger = realloc(data, capacity + 1);
        if (!larger) {
            code = ct_fail_memory(status, capacity + 1, path);
            goto fail;
        }
        data = larger;
        while (used < capacity) {
            const ssize_t n = read_some(fd, data + used, capacity - used);
            if (n < 0) {
                code = ct_fail_errno(status, "%s: cannot read", path);
                goto fail;
            }
            if (n == 0) goto end;
            used += (size_t)n;
            if (used > max_bytes) goto too_large;
            ct_pause_point();
        }
        capacity += capacity; /* below twice max_bytes + 4096 */
    }
end:
    data[used] = '\0';
    (void)close(fd);
    *out_data = data;
    *out_bytes = used;
    return CT_OK;
too_large:
    code = ct_fail(status, CT_EXHAUSTED, "%s: larger than %zu bytes", path, max_bytes);
fail:
    free(data);
    (void)close(fd);
    return code;
}

ct_code ct_file_write(const char *path, const void *data, size_t bytes, ct_status *status) {
    ct_file_writer *writer;
    CT_TRY(ct_file_writer_open(path, &writer, status));
    const ct_code code = ct_file_writer_write(writer, data, bytes, status);
    if (code != CT_OK) {
        ct_file_writer_abort(writer);
        return code;
    }
    return ct_file_writer_commit(writer, status);
}

ct_code ct_file_digest(const char *path, char out_hex[CT_DIGEST_HEX_BYTES], uint64_t *out_bytes, ct_status *status) {
    ct_code code = CT_OK;
    ct_digest *digest = NULL;
    char *buffer = NULL;
    uint64_t total = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ct_fail_errno(status, "%s: cannot open", path);
    CT_TRY_GOTO(code, ct_digest_create(&digest, status), fail);
    buffer = malloc(BUFFER_BYTES);
    if (!buffer) {
        code = ct_fail_memory(status, BUFFER_BYTES, path);
        goto fail;
    }
    for (;;) {
        const ssize_t n = read_some(fd, buffer, BUFFER_BYTES);
        if (n < 0) {
            code = ct_fail_errno(status, "%s: cannot read", path);
            goto fail;
        }
        if (n == 0) break;
        ct_digest_update(digest, buffer, (size_t)n);
        total += (uint64_t)n;
        CT_TRY_GOTO(code, ct_pause_check(status), fail);
    }
    ct_digest_hex(digest, out_hex);
    if (out_bytes) *out_bytes = total;
fail:
    free(buffer);
    ct_digest_destroy(digest);
    (void)close(fd);
    return code;
}

ct_code ct_file_copy(const char *from, const char *to, ct_status *status) {
    ct_file_writer *writer = NULL;
    char *buffer = malloc(BUFFER_BYTES);
    if (!buffer) return ct_fail_memory(status, BUFFER_BYTES, from);
    ct_code code = CT_OK;
    const int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        code = ct_fail_errno(status, "%s: cannot open", from);
        goto fail;
    }
    CT_TRY_GOTO(code, ct_file_writer_open(to, &writer, status), fail);
    for (;;) {
        const ssize_t n = read_some(fd, buffer, BUFFER_BYTES);
        if (n < 0) {
            code = ct_fail_errno(status, "%s: cannot read", from);
            goto fail;
        }
        if (n == 0) break;
        CT_TRY_GOTO(code, ct_file_writer_write(writer, buffer, (size_t)n, status), fail);
    }
    code = ct_file_writer_commit(writer, status);
    writer = NULL;
fail:
    ct_file_writer_abort(writer);
    if (fd >= 0) (void)close(fd);
    free(buffer);
    return code;
}

ct_code ct_file_link(const char *from, const char *to, ct_status *status) {
    return link(from, to) == 0 ? CT_OK : ct_file_copy(from, to, status);
}
