/* A folder of its own for each test program, below TEST_TMPDIR (or /tmp). */
#ifndef TESTS_BASE_TEMP_H
#define TESTS_BASE_TEMP_H

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

/* A new empty folder; malloc'd name; aborts the program on failure. */
static inline char *temp_folder(void) {
    const char *top = getenv("TEST_TMPDIR");
    char *name = NULL;
    if (asprintf(&name, "%s/ct-XXXXXX", top && top[0] ? top : "/tmp") < 0 || !mkdtemp(name)) {
        perror("temp_folder");
        abort();
    }
    return name;
}

/* Removes it with all in it and frees the name. */
static inline void temp_remove(char *folder) {
    ct_status status = CT_STATUS_INIT;
    if (ct_folder_remove(folder, &status) != CT_OK) (void)fprintf(stderr, "temp_remove: %s\n", status.message);
    free(folder);
}

/* folder/name; malloc'd. */
static inline char *temp_path(const char *folder, const char *name) {
    char *path = ct_path_join(folder, name);
    if (!path) abort();
    return path;
}

#endif
