/* Private to data/: a source's parts. source.c opens, tells the format and reads; inflate.c and zstd.c take the bytes of a file and give
 * what they hold; command.c runs a program. */
#ifndef DATA_SOURCE_INTERNAL_H
#define DATA_SOURCE_INTERNAL_H

#include <sys/types.h>

#include "data/internal.h"

enum { CT_SOURCE_INPUT_BYTES = 256 << 10, CT_SOURCE_PEEK_BYTES = 16 };

typedef enum ct_source_format { CT_SOURCE_PLAIN, CT_SOURCE_GZIP, CT_SOURCE_ZSTD } ct_source_format;

struct ct_source {
    char *name; /* for messages */
    int fd;
    bool owns_fd, may_block, at_end; /* at_end: the file's, not of what is buffered */
    bool detected, begun;
    ct_source_format format;
    bool in_member; /* gzip, zstd: inside a member, a frame */
    const atomic_bool *stops[2];
    pid_t command;   /* 0: none, or none that still has to be waited for */
    void *unpacking; /* the format's state */
    uint64_t taken;  /* bytes read from the file */
    size_t input_at, input_end;
    size_t peeked_at, peeked_end;
    char peeked[CT_SOURCE_PEEK_BYTES]; /* decompressed, not yet given out */
    unsigned char input[CT_SOURCE_INPUT_BYTES];
};

/* CT_CANCELLED when somebody asked to stop. */
CT_MUST_CHECK ct_code ct_source_check_stop(const ct_source *source, ct_status *status);
/* Until `wanted` bytes are buffered or the file ends. */
CT_MUST_CHECK ct_code ct_source_fill(ct_source *source, size_t wanted, ct_status *status);
/* Where in the file the next byte of `input` stands. */
static inline unsigned long long ct_source_offset(const ct_source *source) {
    return (unsigned long long)(source->taken - (source->input_end - source->input_at));
}

/* --- inflate.c, zstd.c: `open` when the first bytes have told the format; `read` gives 0 bytes at the end --- */

CT_MUST_CHECK ct_code ct_gzip_open(ct_source *source, ct_status *status);
CT_MUST_CHECK ct_code ct_gzip_read(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status);
void ct_gzip_close(ct_source *source);

bool ct_zstd_is(const unsigned char *first, size_t count);
CT_MUST_CHECK ct_code ct_zstd_open(ct_source *source, ct_status *status);
CT_MUST_CHECK ct_code ct_zstd_read(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status);
void ct_zstd_close(ct_source *source);

/* --- command.c --- */

/* Runs `command` by /bin/sh in a process group of its own, with nothing as standard input; `*out_fd` reads what it prints. */
CT_MUST_CHECK ct_code ct_command_start(const char *command, const char *name, int *out_fd, pid_t *out_process, ct_status *status);
/* Waits until the source's command has ended, which has closed its output; CT_IO where it failed. */
CT_MUST_CHECK ct_code ct_command_finish(ct_source *source, ct_status *status);
/* Ends a command that is no longer wanted, with all that it started. */
void ct_command_kill(pid_t process);

#endif
