/* Source: the bytes of a file, decompressed, and the lines of several sources one after the other.
 *
 * A source is a path, "-" (standard input) or "|command" (what `/bin/sh -c command` prints, run again at each opening). What it holds is
 * told by its first bytes, not by its name: gzip (ISA-L) and zstd, where several members or frames are one stream, and garbage behind the
 * last one, a cut or a corrupt one are CT_CORRUPT with name and offset; else plain. A UTF-8 byte order mark at its start is dropped. A
 * command that ends with another exit status than 0 or by a signal is CT_IO, once its output has been read; one that is closed before its
 * end is ended with all that it started. Memory does not depend on the file's size. */
#ifndef DATA_SOURCE_H
#define DATA_SOURCE_H

#include <stdatomic.h>

#include "base/status.h"

typedef struct ct_source ct_source;
CT_MUST_CHECK ct_code ct_source_open(const char *path, ct_source **out_source, ct_status *status);
void ct_source_close(ct_source *source); /* NULL is fine */
/* What can be told before it is read, so that a wrong name is no news of hours later: a file is there and begins as one that can be read.
 */
CT_MUST_CHECK ct_code ct_source_check(const char *path, ct_status *status);
/* Up to `capacity` decompressed bytes; CT_END at the end. */
CT_MUST_CHECK ct_code ct_source_read(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status);
const char *ct_source_name(const ct_source *source); /* for messages: "standard input" for "-", "command '...'" for "|..." */
/* The first bytes without taking them, at most 16: to tell a block file. */
CT_MUST_CHECK ct_code ct_source_peek(ct_source *source, char out_bytes[16], size_t *out_count, ct_status *status);

enum { CT_LINE_MAX_BYTES = 1 << 20 };

typedef struct ct_line {
    const char *text;   /* without the newline and without a carriage return before it; valid until the next call */
    size_t bytes;       /* cut to 1 KiB where too_long */
    bool too_long;      /* longer than CT_LINE_MAX_BYTES; the rest was skipped */
    int64_t number;     /* 1-based within its source; a header counts */
    const char *source; /* name; valid while the lines are open */
} ct_line;

/* Lines of `count` sources in order; a last line without a newline is a line; blank lines are given as such (bytes == 0). */
typedef struct ct_lines ct_lines;
CT_MUST_CHECK ct_code ct_lines_open(const char *const *paths, size_t count, ct_lines **out_lines, ct_status *status);
void ct_lines_close(ct_lines *lines);                                                       /* NULL is fine */
CT_MUST_CHECK ct_code ct_lines_next(ct_lines *lines, ct_line *out_line, ct_status *status); /* CT_END at the end of the last */
/* From now on CT_CANCELLED where input is waited for and somebody asked to stop; `stop` must outlive the lines. */
void ct_lines_set_stop(ct_lines *lines, const atomic_bool *stop);
bool ct_lines_is_first(const ct_lines *lines); /* the line given last was the first of its source */

#endif
