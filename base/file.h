/* Files and folders. Everything that we write is written beside its final name, synced and renamed, so that a name is either absent, old
 * or whole. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/hash.h"
#include "base/status.h"

/* --- one file, written beside and renamed; a device or a pipe is written to as it is, a folder is refused --- */
typedef struct ct_file_writer ct_file_writer;
CT_MUST_CHECK ct_code ct_file_writer_open(const char *path, ct_file_writer **out_writer, ct_status *status);
CT_MUST_CHECK ct_code ct_file_writer_write(ct_file_writer *writer, const void *data, size_t bytes, ct_status *status); /* buffered */
CT_MUST_CHECK ct_code ct_file_writer_printf(ct_file_writer *writer, ct_status *status, const char *format, ...) CT_PRINTF(3, 4);
/* Other bytes in the place of some that were written already; not on a device or a pipe. */
CT_MUST_CHECK ct_code ct_file_writer_overwrite(ct_file_writer *writer, uint64_t offset, const void *data, size_t bytes, ct_status *status);
uint64_t ct_file_writer_position(const ct_file_writer *writer); /* bytes written so far */
/* Writes out, syncs, renames into place, syncs the folder; frees the writer in any case. On failure nothing stays behind. In a folder that
 * ct_folder_stage has made, syncing is left to ct_folder_commit. */
CT_MUST_CHECK ct_code ct_file_writer_commit(ct_file_writer *writer, ct_status *status);
void ct_file_writer_abort(ct_file_writer *writer); /* removes what was written; frees; NULL is fine */

/* Whole file into malloc'd memory (NUL-terminated behind out_bytes); CT_EXHAUSTED beyond max_bytes. */
CT_MUST_CHECK ct_code ct_file_read(const char *path, size_t max_bytes, char **out_data, size_t *out_bytes, ct_status *status);
/* `bytes` bytes from `offset` on of an open file, which `path` names in messages; CT_CORRUPT where it ends before. */
CT_MUST_CHECK ct_code ct_file_read_at(int fd, const char *path, uint64_t offset, void *to, size_t bytes, ct_status *status);
CT_MUST_CHECK ct_code ct_file_write(const char *path, const void *data, size_t bytes, ct_status *status);
CT_MUST_CHECK ct_code ct_file_digest(const char *path, char out_hex[CT_DIGEST_HEX_BYTES], uint64_t *out_bytes, ct_status *status);
/* The same content under another name, which is written as any file is; a hard link of it, or a copy where there can be none (another file
 * system). A link is for a file that is never changed. */
CT_MUST_CHECK ct_code ct_file_copy(const char *from, const char *to, ct_status *status);
CT_MUST_CHECK ct_code ct_file_link(const char *from, const char *to, ct_status *status);

/* --- paths and folders --- */
bool ct_path_exists(const char *path);
bool ct_path_is_folder(const char *path);
bool ct_path_same_file(const char *a, const char *b);     /* both are there and are one regular file, whatever their names */
char *ct_path_join(const char *folder, const char *name); /* malloc'd; an absolute name stands alone; NULL when out of memory */
CT_MUST_CHECK ct_code ct_folder_create(const char *path, ct_status *status); /* with parents; fine if it is there */
CT_MUST_CHECK ct_code ct_folder_remove(const char *path, ct_status *status); /* with all in it; fine if it is absent */

/* Every regular file below `path`, as paths relative to it, sorted by bytes; anything else than files and folders is CT_INVALID. */
typedef struct ct_file_list {
    char **names;
    size_t count;
} ct_file_list;
CT_MUST_CHECK ct_code ct_folder_list(const char *path, ct_file_list *out_list, ct_status *status);
void ct_file_list_deinit(ct_file_list *list);

/* --- a folder, written beside and renamed ---
 * ct_folder_stage makes an empty folder beside `path` (PATH.partial-PID, one left by a dead process is removed) and returns its name,
 * malloc'd. ct_folder_commit syncs every file in it and puts it in the place of `path`; an older folder at `path` is moved away first and
 * removed afterwards. A file with more than one name is not synced: who gave it the first one has done so. Frees nothing: `staged` stays
 * the caller's. */
CT_MUST_CHECK ct_code ct_folder_stage(const char *path, char **out_staged, ct_status *status);
CT_MUST_CHECK ct_code ct_folder_commit(const char *staged, const char *path, ct_status *status);
/* The older folder at `path`, if there is one, becomes `kept`, on the same file system, in the place of what may be there. */
CT_MUST_CHECK ct_code ct_folder_commit_keeping(const char *staged, const char *path, const char *kept, ct_status *status);

/* PATH.live-PID, malloc'd: a folder for this process beside `path`, which it must remove itself. Makes the parent, not the folder; removes
 * what dead processes left under such names. */
CT_MUST_CHECK ct_code ct_folder_scratch(const char *path, char **out_scratch, ct_status *status);

/* The one writer of the folder `path`, which may be none yet: holds PATH.lock beside it, until release or the end of the process, however
 * that comes. CT_EXISTS names the process that holds it. Readers need none. Release removes the file. */
typedef struct ct_folder_lock ct_folder_lock;
CT_MUST_CHECK ct_code ct_folder_lock_take(const char *path, ct_folder_lock **out_lock, ct_status *status);
void ct_folder_lock_release(ct_folder_lock *lock); /* NULL is fine */

#endif
