/* Bytes of a file or of standard input. The first bytes tell what it holds; gzip goes through ISA-L, which checks each member's header,
 * CRC and length, and this file joins members and counts offsets for messages.
 *
 * A name that ends in .gz or .ctb is not believed, but it is used against damage: such a file whose first bytes are not gzip's (a block
 * file's) and are no text either is CT_CORRUPT, so that a flipped byte in the magic number does not turn an archive into bad rows. */
#include "data/source.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/block_file.h"
#include "data/internal.h"

enum { INPUT_BYTES = 256 << 10, PEEK_BYTES = 16, POLL_MS = 100 };

struct ct_source {
    char *name; /* for messages */
    int fd;
    bool owns_fd, may_block, at_end; /* at_end: the file's, not of what is buffered */
    bool detected, gzip, in_member;
    const atomic_bool *stops[2];
    struct inflate_state *inflate;
    uint64_t taken; /* bytes read from the file */
    size_t input_at, input_end;
    size_t peeked_at, peeked_end;
    char peeked[PEEK_BYTES]; /* decompressed, not yet given out */
    unsigned char input[INPUT_BYTES];
};

/* --- the file's own bytes --- */

static ct_code wait_readable(ct_source *source, ct_status *status) {
    for (;;) {
        struct pollfd descriptor = {.fd = source->fd, .events = POLLIN};
        for (int i = 0; i < 2; i++) {
            if (source->stops[i] && atomic_load(source->stops[i])) return ct_fail(status, CT_CANCELLED, "%s: stopped", source->name);
        }
        const int ready = poll(&descriptor, 1, POLL_MS);
        if (ready > 0) return CT_OK;
        if (ready < 0 && errno != EINTR) return ct_fail_errno(status, "%s: cannot wait for input", source->name);
    }
}

/* Reads once into `buffer`; 0 bytes at the end. */
static ct_code read_file(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    *out_bytes = 0;
    if (source->at_end) return CT_OK;
    for (;;) {
        if (source->may_block) CT_TRY(wait_readable(source, status));
        const ssize_t got = read(source->fd, buffer, capacity);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got < 0) return ct_fail_errno(status, "%s: cannot read at byte %llu", source->name, (unsigned long long)source->taken);
        source->taken += (uint64_t)got;
        source->at_end = got == 0;
        *out_bytes = (size_t)got;
        return CT_OK;
    }
}

/* Until `wanted` bytes are buffered or the file ends. */
static ct_code fill_input(ct_source *source, size_t wanted, ct_status *status) {
    if (source->input_at == source->input_end) source->input_at = source->input_end = 0;
    while (!source->at_end && source->input_end - source->input_at < wanted) {
        size_t got;
        if (source->input_at) {
            memmove(source->input, source->input + source->input_at, source->input_end - source->input_at);
            source->input_end -= source->input_at;
            source->input_at = 0;
        }
        CT_TRY(read_file(source, source->input + source->input_end, INPUT_BYTES - source->input_end, &got, status));
        source->input_end += got;
    }
    return CT_OK;
}

/* --- gzip --- */

static unsigned long long gzip_offset(const ct_source *source) {
    return (unsigned long long)(source->taken - (source->input_end - source->input_at));
}

static const char *inflate_fault(int result) {
    switch (result) {
        case ISAL_INCORRECT_CHECKSUM:
            return "its checksum or length does not fit";
        case ISAL_INVALID_WRAPPER:
            return "a wrong header";
        case ISAL_UNSUPPORTED_METHOD:
            return "an unknown method of compression";
        case ISAL_INVALID_LOOKBACK:
            return "a reference to before its start";
        default:
            return "a broken block";
    }
}

/* Looks for the next member; `*out_any` is false at a clean end. */
static ct_code next_member(ct_source *source, bool *out_any, ct_status *status) {
    const unsigned char *at;
    CT_TRY(fill_input(source, 4, status));
    const size_t count = source->input_end - source->input_at;
    *out_any = count != 0;
    if (!count) return CT_OK;
    at = source->input + source->input_at;
    if (at[0] != 0x1f || (count > 1 && at[1] != 0x8b)) {
        return ct_fail(status, CT_CORRUPT, "%s: garbage behind the last gzip member, from compressed byte %llu on", source->name,
                       gzip_offset(source));
    }
    if (count > 3 && (at[2] != 8 || (at[3] & 0xe0))) {
        return ct_fail(status, CT_CORRUPT, "%s: corrupt gzip header at compressed byte %llu: unknown method or flags", source->name,
                       gzip_offset(source));
    }
    isal_inflate_reset(source->inflate);
    source->inflate->crc_flag = ISAL_GZIP;
    source->in_member = true;
    return CT_OK;
}

static ct_code read_gzip(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    struct inflate_state *inflate = source->inflate;
    const uint32_t room = capacity > (1u << 30) ? 1u << 30 : (uint32_t)capacity;
    *out_bytes = 0;
    for (;;) {
        if (!source->in_member) {
            bool any;
            CT_TRY(next_member(source, &any, status));
            if (!any) return CT_OK;
        }
        CT_TRY(fill_input(source, 1, status));
        const size_t count = source->input_end - source->input_at;
        inflate->next_in = source->input + source->input_at;
        inflate->avail_in = (uint32_t)count;
        inflate->next_out = buffer;
        inflate->avail_out = room;
        const int result = isal_inflate(inflate);
        const size_t consumed = count - inflate->avail_in;
        const size_t produced = room - inflate->avail_out;
        source->input_at += consumed;
        if (result < 0) {
            return ct_fail(status, CT_CORRUPT, "%s: corrupt gzip data near compressed byte %llu: %s", source->name, gzip_offset(source),
                           inflate_fault(result));
        }
        if (inflate->block_state == ISAL_BLOCK_FINISH) source->in_member = false;
        if (produced) {
            *out_bytes = produced;
            return CT_OK;
        }
        if (source->in_member && !consumed && source->at_end && source->input_at == source->input_end) {
            return ct_fail(status, CT_CORRUPT, "%s: cut gzip data: the file ends at compressed byte %llu, inside a member", source->name,
                           gzip_offset(source));
        }
        if (source->in_member && !consumed && count) { /* cannot be; but a loop without end would be worse */
            return ct_fail(status, CT_INTERNAL, "%s: gzip makes no progress at compressed byte %llu", source->name, gzip_offset(source));
        }
    }
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

/* At open for a file; at the first read for what may block, so that a stop is heard. */
static ct_code detect(ct_source *source, ct_status *status) {
    static const struct {
        const char *bytes;
        size_t count;
        const char *name, *program;
    } others[] = {{"\x28\xb5\x2f\xfd", 4, "zstd", "zstd -dc"},
                  {"\xfd"
                   "7zXZ\0",
                   6, "xz", "xz -dc"},
                  {"PK\3\4", 4, "zip", "unzip -p"}};
    if (source->detected) return CT_OK;
    CT_TRY(fill_input(source, PEEK_BYTES, status));
    source->detected = true;
    const unsigned char *first = source->input;
    const size_t count = source->input_end < PEEK_BYTES ? source->input_end : PEEK_BYTES;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (count < others[i].count || memcmp(first, others[i].bytes, others[i].count) != 0) continue;
        return ct_fail(status, CT_UNSUPPORTED, "%s: %s is not read by this version: decompress it into '-' (%s FILE | ...) or use gzip",
                       source->name, others[i].name, others[i].program);
    }
    if (count >= 2 && first[0] == 0x1f && first[1] == 0x8b) {
        source->gzip = true;
        source->inflate = malloc(sizeof *source->inflate);
        if (!source->inflate) return ct_fail_memory(status, sizeof *source->inflate, "decompression");
        isal_inflate_init(source->inflate);
        return CT_OK;
    }
    if (ends_with(source->name, ".gz") && (!count || !is_text(first, count))) {
        return ct_fail(status, CT_CORRUPT, "%s: corrupt or cut at compressed byte 0: no gzip header", source->name);
    }
    if (ends_with(source->name, ".ctb") && !ct_block_file_is((const char *)first, count) && (!count || !is_text(first, count))) {
        return ct_fail(status, CT_CORRUPT, "%s: corrupt or cut at byte 0: no block file's header", source->name);
    }
    return CT_OK;
}

ct_code ct_source_open(const char *path, ct_source **out_source, ct_status *status) {
    const bool standard = strcmp(path, "-") == 0;
    struct stat info;
    ct_code code = CT_OK;
    if (path[0] == '|') {
        return ct_fail(status, CT_UNSUPPORTED, "'%s': a command as source is not run by this version: pipe what it prints into '-'", path);
    }
    ct_source *source = malloc(sizeof *source);
    if (!source) return ct_fail_memory(status, sizeof *source, "a source");
    memset(source, 0, offsetof(ct_source, input));
    source->fd = standard ? STDIN_FILENO : -1;
    source->name = strdup(standard ? "standard input" : path);
    if (!source->name) {
        code = ct_fail_memory(status, strlen(path) + 1, "a source's name");
        goto fail;
    }
    if (!standard) {
        source->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (source->fd < 0) {
            code = ct_fail_errno(status, "%s: cannot open", path);
            goto fail;
        }
        source->owns_fd = true;
    }
    if (fstat(source->fd, &info) != 0) {
        code = ct_fail_errno(status, "%s: cannot look at it", source->name);
        goto fail;
    }
    if (S_ISDIR(info.st_mode)) {
        code = ct_fail(status, CT_INVALID, "%s: is a folder, not a file", source->name);
        goto fail;
    }
    source->may_block = !S_ISREG(info.st_mode);
    if (!source->may_block) {
        (void)posix_fadvise(source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        CT_TRY_GOTO(code, detect(source, status), fail);
    }
    *out_source = source;
    return CT_OK;
fail:
    ct_source_close(source);
    return code;
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

ct_code ct_source_read(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    size_t got = source->peeked_end - source->peeked_at;
    if (got) {
        if (got > capacity) got = capacity;
        memcpy(buffer, source->peeked + source->peeked_at, got);
        source->peeked_at += got;
    } else {
        CT_TRY(detect(source, status));
        CT_TRY(source->gzip ? read_gzip(source, buffer, capacity, &got, status) : read_plain(source, buffer, capacity, &got, status));
        if (!got) return CT_END;
    }
    *out_bytes = got;
    return CT_OK;
}

ct_code ct_source_peek(ct_source *source, char out_bytes[16], size_t *out_count, ct_status *status) {
    const size_t have = source->peeked_end - source->peeked_at;
    memmove(source->peeked, source->peeked + source->peeked_at, have);
    source->peeked_at = 0;
    source->peeked_end = have;
    CT_TRY(detect(source, status));
    while (source->peeked_end < PEEK_BYTES) {
        char *at = source->peeked + source->peeked_end;
        const size_t room = PEEK_BYTES - source->peeked_end;
        size_t got;
        CT_TRY(source->gzip ? read_gzip(source, at, room, &got, status) : read_plain(source, at, room, &got, status));
        if (!got) break;
        source->peeked_end += got;
    }
    memcpy(out_bytes, source->peeked, source->peeked_end);
    *out_count = source->peeked_end;
    return CT_OK;
}

void ct_source_close(ct_source *source) {
    if (!source) return;
    if (source->owns_fd) (void)close(source->fd);
    free(source->inflate);
    free(source->name);
    free(source);
}

const char *ct_source_name(const ct_source *source) { return source->name; }

void ct_source_set_stop(ct_source *source, const atomic_bool *first, const atomic_bool *second) {
    source->stops[0] = first;
    source->stops[1] = second;
}
