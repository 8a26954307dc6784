/* A folder of files of lines that are written one after the other, for logs that other programs read while they grow.
 *
 * A file is named PREFIX-YYYYMMDDTHHMMSSmmm-PID-SEQ.jsonl, by the time (UTC) of its first line; while it is written, ".part" stands behind
 * that. It is made with its first line, so no file is empty, and renamed when it is rotated. Lines that were appended survive the death of
 * the process; those that were synced, or whose file was renamed, that of the machine. Not for several threads at once. */
#ifndef BASE_LINE_FILES_H
#define BASE_LINE_FILES_H

#include "base/status.h"

typedef struct ct_line_files_options {
    const char *folder, *prefix; /* copied */
    uint64_t rotate_bytes;       /* a file of at least as much is renamed, and the next one begun */
    int64_t rotate_ms;           /* or one that is that old */
} ct_line_files_options;

typedef struct ct_line_files ct_line_files;
/* Makes the folder. CT_IO where files can't be made in it. */
CT_MUST_CHECK ct_code ct_line_files_open(const ct_line_files_options *options, ct_line_files **out_files, ct_status *status);
/* Whole lines. On failure none of them is in a file, and the next call tries anew. */
CT_MUST_CHECK ct_code ct_line_files_append(ct_line_files *files, const void *lines, size_t bytes, ct_status *status);
/* What was appended is on disk when it returns CT_OK. After a failure it is not known what is; the next lines go into another file. */
CT_MUST_CHECK ct_code ct_line_files_sync(ct_line_files *files, ct_status *status);
/* Rotates where it is due by size or age. On failure the file keeps its ".part", and the next lines go into another one. */
CT_MUST_CHECK ct_code ct_line_files_tend(ct_line_files *files, ct_status *status);
/* Milliseconds until it is due by age, at least 0; -1 where no file is being written. */
int64_t ct_line_files_due_ms(const ct_line_files *files);
/* Rotates what is there, frees; NULL is fine. */
CT_MUST_CHECK ct_code ct_line_files_close(ct_line_files *files, ct_status *status);

#endif
