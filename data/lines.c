/* Lines over a buffer that starts at 256 KiB and grows only while a line does not fit, to a little more than the longest line. A line that
 * is longer than CT_LINE_MAX_BYTES gives its first KiB; the rest is read and thrown away. */
#include <stdlib.h>
#include <string.h>

#include "data/internal.h"

enum { BUFFER_BYTES = 256 << 10, BUFFER_MAX = CT_LINE_MAX_BYTES + (64 << 10), CUT_BYTES = 1024 };

struct ct_lines {
    char **paths; /* owned copies */
    size_t count, next;
    ct_source *source; /* NULL between sources */
    bool attached;     /* the source is the caller's */
    int64_t number;
    char *buffer;
    size_t at, end, capacity;
    bool source_ended;
    char cut[CUT_BYTES];
};

static ct_code lines_create(size_t count, ct_lines **out_lines, ct_status *status) {
    ct_lines *lines = calloc(1, sizeof *lines);
    if (!lines) return ct_fail_memory(status, sizeof *lines, "lines");
    lines->capacity = BUFFER_BYTES;
    lines->buffer = malloc(lines->capacity);
    lines->paths = calloc(count ? count : 1, sizeof *lines->paths);
    if (!lines->buffer || !lines->paths) {
        ct_lines_close(lines);
        return ct_fail_memory(status, BUFFER_BYTES, "lines");
    }
    *out_lines = lines;
    return CT_OK;
}

ct_code ct_lines_open(const char *const *paths, size_t count, ct_lines **out_lines, ct_status *status) {
    ct_lines *lines;
    ct_code code = CT_OK;
    CT_TRY(lines_create(count, &lines, status));
    for (; lines->count < count; lines->count++) {
        lines->paths[lines->count] = strdup(paths[lines->count]);
        if (!lines->paths[lines->count]) {
            code = ct_fail_memory(status, strlen(paths[lines->count]) + 1, "a source's name");
            goto fail;
        }
    }
    if (count) CT_TRY_GOTO(code, ct_source_open(paths[0], &lines->source, status), fail);
    *out_lines = lines;
    return CT_OK;
fail:
    ct_lines_close(lines);
    return code;
}

ct_code ct_lines_attach(ct_source *source, ct_lines **out_lines, ct_status *status) {
    ct_lines *lines;
    CT_TRY(lines_create(1, &lines, status));
    lines->source = source;
    lines->attached = true;
    lines->count = 1;
    *out_lines = lines;
    return CT_OK;
}

void ct_lines_close(ct_lines *lines) {
    if (!lines) return;
    if (!lines->attached) ct_source_close(lines->source);
    for (size_t i = 0; lines->paths && i < lines->count; i++) free(lines->paths[i]);
    free(lines->paths);
    free(lines->buffer);
    free(lines);
}

bool ct_lines_is_first(const ct_lines *lines) { return lines->number == 1; }

/* Reads more behind what is buffered; the line that begins at `at` stays whole. */
static ct_code fill(ct_lines *lines, ct_status *status) {
    size_t got = 0;
    if (lines->at) {
        memmove(lines->buffer, lines->buffer + lines->at, lines->end - lines->at);
        lines->end -= lines->at;
        lines->at = 0;
    }
    if (lines->end == lines->capacity) {
        const size_t capacity = 2 * lines->capacity < BUFFER_MAX ? 2 * lines->capacity : BUFFER_MAX;
        char *buffer = realloc(lines->buffer, capacity);
        if (!buffer) return ct_fail_memory(status, capacity, "a line");
        lines->buffer = buffer;
        lines->capacity = capacity;
    }
    const ct_code code = ct_source_read(lines->source, lines->buffer + lines->end, lines->capacity - lines->end, &got, status);
    if (code == CT_END) {
        lines->source_ended = true;
        return CT_OK;
    }
    lines->end += got;
    return code;
}

/* Throws away up to and with the next newline. */
static ct_code skip_line(ct_lines *lines, ct_status *status) {
    for (;;) {
        char *newline = memchr(lines->buffer + lines->at, '\n', lines->end - lines->at);
        if (newline) {
            lines->at = (size_t)(newline - lines->buffer) + 1;
            return CT_OK;
        }
        lines->at = lines->end = 0;
        if (lines->source_ended) return CT_OK;
        CT_TRY(fill(lines, status));
    }
}

static void give(ct_lines *lines, const char *text, size_t bytes, bool too_long, ct_line *out_line) {
    /* The source's own name goes with the source; the lines' copy stays. */
    const char *path = lines->attached ? NULL : lines->paths[lines->next];
    const char *name = !path ? ct_source_name(lines->source) : strcmp(path, "-") == 0 ? "standard input" : path;
    *out_line = (ct_line){text, bytes, too_long, ++lines->number, name};
}

/* The next line of the open source; CT_END at its end. */
static ct_code next_of_source(ct_lines *lines, ct_line *out_line, ct_status *status) {
    size_t searched = 0; /* bytes behind `at` that hold no newline */
    for (;;) {
        const char *text = lines->buffer + lines->at;
        const size_t available = lines->end - lines->at;
        const char *newline = available > searched ? memchr(text + searched, '\n', available - searched) : NULL;
        size_t bytes = newline ? (size_t)(newline - text) : available;
        const bool returned = bytes && text[bytes - 1] == '\r';
        /* One byte more than the longest line may be the return before a newline that is still to come. */
        if (bytes > CT_LINE_MAX_BYTES + 1u || (bytes == CT_LINE_MAX_BYTES + 1u && !returned)) {
            memcpy(lines->cut, text, CUT_BYTES);
            lines->at += bytes;
            CT_TRY(skip_line(lines, status));
            give(lines, lines->cut, CUT_BYTES, true, out_line);
            return CT_OK;
        }
        if (newline || (lines->source_ended && available)) {
            lines->at += bytes + (newline ? 1 : 0);
            if (returned) bytes--;
            give(lines, text, bytes, false, out_line);
            return CT_OK;
        }
        if (lines->source_ended) return CT_END;
        searched = available;
        CT_TRY(fill(lines, status));
    }
}

ct_code ct_lines_next(ct_lines *lines, ct_line *out_line, ct_status *status) {
    while (lines->next < lines->count) {
        if (lines->source) {
            const ct_code code = next_of_source(lines, out_line, status);
            if (code != CT_END) return code;
            lines->next++;
            if (lines->attached) return CT_END;
            ct_source_close(lines->source);
            lines->source = NULL;
            lines->number = 0;
            lines->at = lines->end = 0;
            lines->source_ended = false;
            if (lines->next == lines->count) return CT_END;
        }
        CT_TRY(ct_source_open(lines->paths[lines->next], &lines->source, status));
    }
    return CT_END;
}
