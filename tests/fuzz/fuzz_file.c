#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

fuzz_file fuzz_file_open(const void *data, size_t bytes) {
    fuzz_file file = {.fd = memfd_create("fuzz", MFD_CLOEXEC)};
    FUZZ_MUST(file.fd >= 0);
    for (size_t done = 0; done < bytes;) {
        const ssize_t wrote = write(file.fd, (const char *)data + done, bytes - done);
        FUZZ_MUST(wrote > 0);
        done += (size_t)wrote;
    }
    (void)snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
    return file;
}

void fuzz_file_close(fuzz_file *file) { (void)close(file->fd); }

char *fuzz_folder(void) {
    const char *top = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TEST_TMPDIR");
    char *name = NULL;
    FUZZ_MUST(asprintf(&name, "%s/ct-fuzz-XXXXXX", top ? top : "/tmp") > 0 && mkdtemp(name));
    return name;
}
