/* Numbered model folders in a folder of versions, and whether a model folder is all there. */
#ifndef TOOLS_CLI_VERSIONS_H
#define TOOLS_CLI_VERSIONS_H

#include "base/status.h"

/* The numbers of a folder's numbered folders, highest first; caller frees. */
int64_t *ct_versions_list(const char *folder, size_t *out_count);
/* The folder of a version, whatever zeros stand before its number: the first one that reads as it. Caller frees; NULL = gone. */
char *ct_version_folder(const char *folder, int64_t version);
/* Whether every file that a model folder's manifest lists is there in its whole length; *out_newest: when the last one of them changed, in
 * nanoseconds since 1970. CT_NOT_FOUND says what is missing. */
ct_code ct_version_check_complete(const char *folder, int64_t *out_newest, ct_status *status);
/* Did the manifest change later than that, or is it gone? */
bool ct_version_changed_since(const char *folder, int64_t ns);

#endif
