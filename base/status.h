/* Status: how every function of the library reports failure.
 *
 * A function that can fail returns a ct_code and takes a ct_status as its last argument, which the caller owns and which must not be
 * NULL. On CT_OK the status is left as it was and outputs are written; on any other code the status holds the same code and a message
 * that names the file, line, field and value at fault and says what to do; outputs are left alone. No allocation. Library code never
 * prints and never exits: only tools/ does. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CT_MUST_CHECK                           __attribute__((warn_unused_result))
#define CT_PRINTF(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))

typedef enum ct_code {
    CT_OK = 0,
    CT_END,         /* no more data; not a failure */
    CT_INVALID,     /* the input or an argument is wrong */
    CT_USAGE,       /* the command line is wrong (exit 2) */
    CT_NOT_FOUND,   /* a file, key or name is not there */
    CT_EXISTS,      /* something is there that must not be */
    CT_IO,          /* the operating system refused */
    CT_CORRUPT,     /* a file is not what its checksum or its format says */
    CT_UNSUPPORTED, /* right, but not for this build, version or machine */
    CT_EXHAUSTED,   /* memory, disk or a limit is used up */
    CT_UNAVAILABLE, /* the other side is not there */
    CT_DEADLINE,    /* too late */
    CT_CANCELLED,   /* somebody asked to stop */
    CT_INTERNAL     /* a defect of ours */
} ct_code;

enum { CT_STATUS_MESSAGE_BYTES = 1024 };

typedef struct ct_status {
    ct_code code;
    char message[CT_STATUS_MESSAGE_BYTES]; /* one line of UTF-8, no final full stop needed; cut if longer. Control characters and bytes
                                              that are no UTF-8 become ' ' or '?' */
} ct_status;

#define CT_STATUS_INIT \
    { CT_OK, "" }

/* Fills `status` and returns `code`, so that a failure is one line: `return ct_fail(status, CT_IO, "%s: ...", path);` */
ct_code ct_fail(ct_status *status, ct_code code, const char *format, ...) CT_PRINTF(3, 4);

/* Puts "prefix: " before the message of a failed status; returns its code. */
ct_code ct_fail_within(ct_status *status, const char *format, ...) CT_PRINTF(2, 3);

/* As ct_fail with CT_IO (CT_NOT_FOUND for ENOENT, CT_EXHAUSTED for ENOSPC, EDQUOT, EFBIG and ENOMEM) and ": strerror(errno)" behind the
 * text. */
ct_code ct_fail_errno(ct_status *status, const char *format, ...) CT_PRINTF(2, 3);

/* CT_EXHAUSTED, "out of memory (N bytes for WHAT)". */
ct_code ct_fail_memory(ct_status *status, size_t bytes, const char *what);

const char *ct_code_name(ct_code code); /* "ok", "invalid", ...; static storage */

/* Returns from the calling function when `expression` (a ct_code) is not CT_OK; only where nothing needs to be released. */
#define CT_TRY(expression)                    \
    do {                                      \
        const ct_code ct_try_ = (expression); \
        if (ct_try_ != CT_OK) return ct_try_; \
    } while (0)

/* Goes to `label` when `expression` is not CT_OK; `code` is an lvalue of the caller that receives it. */
#define CT_TRY_GOTO(code, expression, label) \
    do {                                     \
        (code) = (expression);               \
        if ((code) != CT_OK) goto label;     \
    } while (0)

#endif
