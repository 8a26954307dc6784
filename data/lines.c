/* Lines over a buffer that starts at 256 KiB and grows only while a line does not fit, to a little more than the longest line. A line that
 * is longer than CT_LINE_MAX_BYTES gives its first KiB; the rest is read and thrown away. */
#include <stdlib.h>
#include <string.h>

#include "data/internal.h"

enum { BUFFER_BYTES = 256 << 10, BUFFER_MAX = CT_LINE_MAX_BYTES + (64 << 10), CUT_BYTES = 1024 };

struct ct_lines {
    char **paths, **names; /* owned */
    size_t count, next;
    ct_source *source;       /* NULL between sources */
    const atomic_bool *stop; /* may be NULL */
    int64_t number;
    char *buffer;
    size_t at, end, capacity;
    bool source_ended;
    char cut[CUT_BYTES];
};

ct_code ct_lines_open(const char *const *paths, size_t count, ct_lines **out_lines, ct_status *status) {
    ct_code code = CT_OK;
    ct_lines *lines = calloc(1, sizeof *lines);
    if (!lines) return ct_fail_memory(status, sizeof *lines, "lines");
    lines->capacity = BUFFER_BYTES;
    lines->buffer = malloc(lines->capacity);
    lines->paths = calloc(count ? count : 1, sizeof *lines->paths);
    lines->names = calloc(count ? count : 1, sizeof *lines->names);
    if (!lines->buffer || !lines->paths || !lines->names) {
        code = ct_fail_memory(status, BUFFER_BYTES, "lines");
        goto fail;
    }
    lines->count = count;
    for (size_t i = 0; i < count; i++) {
        lines->paths[i] = strdup(paths[i]);
        lines->names[i] = ct_source_name_of(paths[i]);
        if (!lines->paths[i] || !lines->names[i]) {
            code = ct_fail_memory(status, strlen(paths[i]) + 1, "a source's name");
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

void ct_lines_close(ct_lines *lines) {
    if (!lines) return;
    ct_source_close(lines->source);
    for (size_t i = 0; i < lines->count; i++) {
        free(lines->paths[i]);
        free(lines->names[i]);
    }
    free(lines->paths);
    free(lines->names);
    free(lines->buffer);
    free(lines);
}

void ct_lines_set_stop(ct_lines *lines, const atomic_bool *stop) {
    lines->stop = stop;
    if (lines->source) ct_source_set_stop(lines->source, stop, NULL);
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
    *out_line = (ct_line){text, bytes, too_long, ++lines->number, lines->names[lines->next]};
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
            ct_source_close(lines->source);
            lines->source = NULL;
            lines->number = 0;
            lines->at = lines->end = 0;
            lines->source_ended = false;
            if (lines->next == lines->count) return CT_END;
        }
        CT_TRY(ct_source_open(lines->paths[lines->next], &lines->source, status));
        ct_source_set_stop(lines->source, lines->stop, NULL);
    }
    return CT_END;
}
