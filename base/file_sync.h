/* Private to base: getting what was written onto the disk. */
#ifndef BASE_FILE_SYNC_H
#define BASE_FILE_SYNC_H

#include "base/status.h"

/* fsync; file systems that know no such thing (EINVAL) are no failure. `path` is for the message. */
CT_MUST_CHECK ct_code ct_sync_fd(int fd, const char *path, ct_status *status);
/* Opens `path`, a file or a folder, and syncs it. */
CT_MUST_CHECK ct_code ct_sync_path(const char *path, ct_status *status);
/* Syncs the folder that holds `path`'s name. */
CT_MUST_CHECK ct_code ct_sync_parent(const char *path, ct_status *status);
/* Is it in a folder that ct_folder_stage has made? Then ct_folder_commit syncs it. */
bool ct_path_is_staged(const char *path);
/* The folder that holds `path`'s name, malloc'd: "." for a bare name; NULL when out of memory. */
char *ct_path_parent(const char *path);

#endif
