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

/* The same around a cmocka test, whose state it is. */
static inline int temp_setup(void **state) {
    *state = temp_folder();
    return 0;
}
static inline int temp_teardown(void **state) {
    temp_remove(*state);
    return 0;
}

/* How many files lie in it. */
static inline size_t temp_count(const char *folder) {
    ct_file_list list;
    ct_status status = CT_STATUS_INIT;
    if (ct_folder_list(folder, &list, &status) != CT_OK) abort();
    const size_t count = list.count;
    ct_file_list_deinit(&list);
    return count;
}

/* folder/name; malloc'd. */
static inline char *temp_path(const char *folder, const char *name) {
    char *path = ct_path_join(folder, name);
    if (!path) abort();
    return path;
}

#endif
