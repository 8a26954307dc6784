/* For libFuzzer: before it reads the corpus, the seeds are written into its last folder. */
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static uint8_t seed[FUZZ_MAX_BYTES];
    const char *folder = (*argv)[*argc - 1];
    struct stat info;
    if (*argc < 2 || folder[0] == '-' || stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) return 0;
    for (size_t i = 0, bytes; (bytes = fuzz_seed(i, seed)) != 0; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/seed-%03zu", folder, i);
        FILE *file = fopen(path, "wb");
        FUZZ_MUST(file && fwrite(seed, 1, bytes, file) == bytes && fclose(file) == 0);
    }
    return 0;
}
