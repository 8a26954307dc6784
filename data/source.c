/* Bytes of a file, of standard input or of a command. The first bytes tell what they hold; inflate.c and zstd.c unpack.
 *
 * A name that ends in .gz, .zst or .ctb is not believed, but it is used against damage: such a file whose first bytes are not the format's
 * and are no text either is CT_CORRUPT, so that a flipped byte in the magic number does not turn an archive into bad rows. */
#include "data/source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "data/block_file.h"
#include "data/source_internal.h"

enum { POLL_MS = 100, QUIET_MS = 20 };

/* --- the file's own bytes --- */

ct_code ct_source_check_stop(const ct_source *source, ct_status *status) {
    for (int i = 0; i < 2; i++) {
        if (source->stops[i] && atomic_load(source->stops[i])) return ct_fail(status, CT_CANCELLED, "%s: stopped", source->name);
    }
    return CT_OK;
}

static ct_code wait_readable(ct_source *source, ct_status *status) {
    for (;;) {
        struct pollfd descriptor = {.fd = source->fd, .events = POLLIN};
        CT_TRY(ct_source_check_stop(source, status));
        const int ready = poll(&descriptor, 1, POLL_MS);
        if (ready > 0) return CT_OK;
        if (ready < 0 && errno != EINTR) return ct_fail_errno(status, "%s: cannot wait for input", source->name);
    }
}

bool ct_source_should_go_on(ct_source *source, int64_t since_ns) {
    struct pollfd descriptor = {.fd = source->fd, .events = POLLIN};
    if (!source->may_block || source->at_end) return false;
    const int64_t left_ms = QUIET_MS - (ct_clock_ns() - since_ns) / 1000000;
    return left_ms <= 0 || (source->input_at == source->input_end && poll(&descriptor, 1, (int)left_ms) == 0);
}

/* Reads once into `buffer`; 0 bytes at the end. How a command ended is learned here, so that what cut its output is told, not that it is
 * cut. */
static ct_code read_file(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    *out_bytes = 0;
    if (source->at_end) return CT_OK;
    for (;;) {
        if (source->may_block) CT_TRY(wait_readable(source, status));
        const ssize_t got = read(source->fd, buffer, capacity);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got < 0) return ct_fail_errno(status, "%s: cannot read at byte %llu", source->name, (unsigned long long)source->taken);
        if (got == 0) CT_TRY(ct_command_finish(source, status));
        source->taken += (uint64_t)got;
        source->at_end = got == 0;
        *out_bytes = (size_t)got;
        return CT_OK;
    }
}

ct_code ct_source_fill(ct_source *source, size_t wanted, ct_status *status) {
    if (source->input_at == source->input_end) source->input_at = source->input_end = 0;
    while (!source->at_end && source->input_end - source->input_at < wanted) {
        size_t got;
        if (source->input_at) {
            memmove(source->input, source->input + source->input_at, source->input_end - source->input_at);
            source->input_end -= source->input_at;
            source->input_at = 0;
        }
        CT_TRY(read_file(source, source->input + source->input_end, CT_SOURCE_INPUT_BYTES - source->input_end, &got, status));
        source->input_end += got;
    }
    return CT_OK;
}

/* --- open --- */

static bool ends_with(const char *text, const char *end) {
    const size_t a = strlen(text), b = strlen(end);
    return a >= b && memcmp(text + a - b, end, b) == 0;
}

static bool is_text(const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] < 0x20 && bytes[i] != '\t' && bytes[i] != '\n' && bytes[i] != '\r') return false;
    }
    return true;
}

/* Is the file called by this ending, but holds neither that format nor text? */
static bool is_damaged(const ct_source *source, const char *ending, const unsigned char *first, size_t count) {
    return ends_with(source->name, ending) && (!count || !is_text(first, count));
}

/* At open for a file; at the first read for what may block, so that a stop is heard. */
static ct_code detect(ct_source *source, ct_status *status) {
    static const struct {
        const char *bytes;
        size_t count;
        const char *name, *program;
    } others[] = {{"\xfd"
                   "7zXZ\0",
                   6, "xz", "xz -dc"},
                  {"PK\3\4", 4, "zip", "unzip -p"}};
    if (source->detected) return CT_OK;
    CT_TRY(ct_source_fill(source, CT_SOURCE_PEEK_BYTES, status));
    source->detected = true;
    const unsigned char *first = source->input;
    const size_t count = source->input_end < CT_SOURCE_PEEK_BYTES ? source->input_end : CT_SOURCE_PEEK_BYTES;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (count < others[i].count || memcmp(first, others[i].bytes, others[i].count) != 0) continue;
        return ct_fail(status, CT_UNSUPPORTED, "%s: %s is not read: give '|%s FILE' as source, or use gzip or zstd", source->name,
                       others[i].name, others[i].program);
    }
    if (count >= 2 && first[0] == 0x1f && first[1] == 0x8b) return ct_gzip_open(source, status);
    if (ct_zstd_is(first, count)) return ct_zstd_open(source, status);
    if (is_damaged(source, ".gz", first, count)) {
        return ct_fail(status, CT_CORRUPT, "%s: corrupt or cut at compressed byte 0: no gzip header", source->name);
    }
    const bool cut_magic = count < 4 && ends_with(source->name, ".zst") && memcmp(first, "\x28\xb5\x2f", count) == 0;
    if (cut_magic || is_damaged(source, ".zst", first, count)) {
        return ct_fail(status, CT_CORRUPT, "%s: corrupt or cut at compressed byte 0: no zstd header", source->name);
    }
    if (!ct_block_file_is((const char *)first, count) && is_damaged(source, ".ctb", first, count)) {
        return ct_fail(status, CT_CORRUPT, "%s: corrupt or cut at byte 0: no block file's header", source->name);
    }
    return CT_OK;
}

char *ct_source_name_of(const char *path) {
    char *name = NULL;
    if (strcmp(path, "-") == 0) return strdup("standard input");
    if (path[0] != '|') return strdup(path);
    return asprintf(&name, "command '%s'", path + 1) < 0 ? NULL : name;
}

static ct_code open_file(ct_source *source, const char *path, ct_status *status) {
    struct stat info;
    if (strcmp(path, "-") == 0) {
        source->fd = STDIN_FILENO;
    } else {
        source->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* to open a named pipe that nobody writes to must not hang */
        if (source->fd < 0) return ct_fail_errno(status, "%s: cannot open", path);
        source->owns_fd = true;
    }
    if (fstat(source->fd, &info) != 0) return ct_fail_errno(status, "%s: cannot look at it", source->name);
    if (S_ISDIR(info.st_mode)) return ct_fail(status, CT_INVALID, "%s: is a folder, not a file", source->name);
    source->may_block = !S_ISREG(info.st_mode);
    if (source->may_block) return CT_OK;
    (void)posix_fadvise(source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return detect(source, status);
}

ct_code ct_source_open(const char *path, ct_source **out_source, ct_status *status) {
    ct_code code = CT_OK;
    ct_source *source = malloc(sizeof *source);
    if (!source) return ct_fail_memory(status, sizeof *source, "a source");
    memset(source, 0, offsetof(ct_source, input));
    source->fd = -1;
    source->name = ct_source_name_of(path);
    if (!source->name) {
        code = ct_fail_memory(status, strlen(path) + 1, "a source's name");
        goto fail;
    }
    if (path[0] == '|') {
        CT_TRY_GOTO(code, ct_command_start(path + 1, source->name, &source->fd, &source->command, status), fail);
        source->owns_fd = source->may_block = true;
    } else {
        CT_TRY_GOTO(code, open_file(source, path, status), fail);
    }
    *out_source = source;
    return CT_OK;
fail:
    ct_source_close(source);
    return code;
}

ct_code ct_source_check(const char *path, ct_status *status) {
    struct stat info;
    ct_source *source = NULL;
    if (strcmp(path, "-") == 0 || path[0] == '|') return CT_OK;
    if (stat(path, &info) != 0) return ct_fail_errno(status, "%s: cannot open", path);
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) /* who writes into a pipe would see it opened and closed */
        return access(path, R_OK) == 0 ? CT_OK : ct_fail_errno(status, "%s: cannot open", path);
    CT_TRY(ct_source_open(path, &source, status));
    ct_source_close(source);
    return CT_OK;
}

/* --- read --- */

static ct_code read_plain(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    const size_t buffered = source->input_end - source->input_at;
    if (!buffered) return read_file(source, buffer, capacity, out_bytes, status);
    const size_t count = buffered < capacity ? buffered : capacity;
    memcpy(buffer, source->input + source->input_at, count);
    source->input_at += count;
    *out_bytes = count;
    return CT_OK;
}

static ct_code read_unpacked(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    switch (source->format) {
        case CT_SOURCE_GZIP:
            return ct_gzip_read(source, buffer, capacity, out_bytes, status);
        case CT_SOURCE_ZSTD:
            return ct_zstd_read(source, buffer, capacity, out_bytes, status);
        case CT_SOURCE_PLAIN:
            break;
    }
    return read_plain(source, buffer, capacity, out_bytes, status);
}

/* Bytes to be peeked at, at least `wanted` of them unless it ends before. */
static ct_code fill_peeked(ct_source *source, size_t wanted, ct_status *status) {
    const size_t have = source->peeked_end - source->peeked_at;
    if (have >= wanted) return CT_OK;
    memmove(source->peeked, source->peeked + source->peeked_at, have);
    source->peeked_at = 0;
    source->peeked_end = have;
    while (source->peeked_end < wanted) {
        size_t got;
        CT_TRY(read_unpacked(source, source->peeked + source->peeked_end, wanted - source->peeked_end, &got, status));
        if (!got) break;
        source->peeked_end += got;
    }
    return CT_OK;
}

/* Before the first byte is given out: the format is told, and a byte order mark of UTF-8 is dropped, which would become part of the first
 * value and turn an id into another one. */
static ct_code begin(ct_source *source, ct_status *status) {
    if (source->begun) return CT_OK;
    CT_TRY(detect(source, status));
    CT_TRY(fill_peeked(source, 3, status));
    if (source->peeked_end == 3 && memcmp(source->peeked, "\xef\xbb\xbf", 3) == 0) source->peeked_at = 3;
    source->begun = true;
    return CT_OK;
}

ct_code ct_source_read(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    CT_TRY(begin(source, status));
    size_t got = source->peeked_end - source->peeked_at;
    if (got) {
        if (got > capacity) got = capacity;
        memcpy(buffer, source->peeked + source->peeked_at, got);
        source->peeked_at += got;
    } else {
        CT_TRY(read_unpacked(source, buffer, capacity, &got, status));
        if (!got) return CT_END;
    }
    *out_bytes = got;
    return CT_OK;
}

ct_code ct_source_peek(ct_source *source, char out_bytes[16], size_t *out_count, ct_status *status) {
    CT_TRY(begin(source, status));
    CT_TRY(fill_peeked(source, CT_SOURCE_PEEK_BYTES, status));
    *out_count = source->peeked_end - source->peeked_at;
    memcpy(out_bytes, source->peeked + source->peeked_at, *out_count);
    return CT_OK;
}

void ct_source_close(ct_source *source) {
    if (!source) return;
    if (source->owns_fd) (void)close(source->fd);
    if (source->command) ct_command_kill(source->command);
    if (source->format == CT_SOURCE_GZIP) ct_gzip_close(source);
    if (source->format == CT_SOURCE_ZSTD) ct_zstd_close(source);
    free(source->name);
    free(source);
}

const char *ct_source_name(const ct_source *source) { return source->name; }

void ct_source_set_stop(ct_source *source, const atomic_bool *first, const atomic_bool *second) {
    source->stops[0] = first;
    source->stops[1] = second;
}
