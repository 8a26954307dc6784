#include "base/mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ct_mapped {
    int file;
    char *folder; /* for messages */
    _Atomic uint64_t end;
};

enum { PAGE_BYTES = 64 << 10 }; /* whole pages everywhere */

static size_t rounded(size_t bytes) { return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; }

/* Where a file system has no files without a name, one that loses it at once. */
static int open_unnamed(const char *folder) {
    const int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return file;
    char path[4096];
    if (snprintf(path, sizeof path, "%s/.clicktower-XXXXXX", folder) >= (int)sizeof path) return -1;
    const int named = mkostemp(path, O_CLOEXEC);
    if (named >= 0) (void)unlink(path);
    return named;
}

ct_code ct_mapped_create(const char *beside, ct_mapped **out_mapped, ct_status *status) {
    ct_mapped *mapped = calloc(1, sizeof *mapped);
    const char *slash = strrchr(beside, '/');
    char *folder = slash == NULL ? strdup(".") : slash == beside ? strdup("/") : strndup(beside, (size_t)(slash - beside));
    if (mapped == NULL || folder == NULL) {
        free(mapped);
        free(folder);
        return ct_fail_memory(status, strlen(beside), "a path");
    }
    mapped->folder = folder;
    mapped->file = open_unnamed(folder);
    if (mapped->file < 0) {
        const ct_code code = ct_fail_errno(status, "%s: cannot make a scratch file", folder);
        ct_mapped_destroy(mapped);
        return code;
    }
    *out_mapped = mapped;
    return CT_OK;
}

void ct_mapped_destroy(ct_mapped *mapped) {
    if (mapped == NULL) return;
    if (mapped->file >= 0) (void)close(mapped->file);
    free(mapped->folder);
    free(mapped);
}

ct_code ct_mapped_take(ct_mapped *mapped, size_t bytes, void **out_memory, ct_status *status) {
    const size_t size = rounded(bytes > 0 ? bytes : 1);
    if (bytes > SIZE_MAX / 2) return ct_fail_memory(status, bytes, "a scratch file");
    const uint64_t at = atomic_fetch_add(&mapped->end, size);
    const int error = posix_fallocate(mapped->file, (off_t)at, (off_t)size); /* else a full disk would be a signal, later */
    if (error != 0) {
        uint64_t end = at + size;
        (void)atomic_compare_exchange_strong(&mapped->end, &end, at); /* else a hole stays, which is no harm */
        errno = error;
        return ct_fail_errno(status, "%s: a scratch file of %llu bytes", mapped->folder, (unsigned long long)(at + size));
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, mapped->file, (off_t)at);
    if (memory == MAP_FAILED) return ct_fail_errno(status, "%s: cannot map a scratch file", mapped->folder);
    (void)madvise(memory, size, MADV_RANDOM); /* a wish */
    *out_memory = memory;
    return CT_OK;
}

void ct_mapped_give(void *memory, size_t bytes) {
    if (memory != NULL) (void)munmap(memory, rounded(bytes > 0 ? bytes : 1));
}
