/* A fuzz target: a function that takes any bytes and stops the program when something that must hold does not, and the inputs to start
 * from. It is run by libFuzzer (tools/fuzz) and, over seeds and mutations of them, as a test (fuzz_main.c). */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FUZZ_MAX_BYTES = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
/* Writes seed `index` and returns its size; 0 where there are no more. */
size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]);
extern const char *const fuzz_name;

/* For targets that pick what reads the text by the input's first byte; returns the seed's size. */
typedef struct fuzz_text {
    uint8_t kind;
    const char *text;
} fuzz_text;
static inline size_t fuzz_put_text(const fuzz_text *seed, uint8_t out[FUZZ_MAX_BYTES]) {
    const size_t bytes = strlen(seed->text);
    out[0] = seed->kind;
    memcpy(out + 1, seed->text, bytes);
    return 1 + bytes;
}

#define FUZZ_MUST(condition)                                                                     \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

/* A file in memory with these bytes; its name is good while the descriptor is open. */
typedef struct fuzz_file {
    int fd;
    char path[64];
} fuzz_file;
fuzz_file fuzz_file_open(const void *data, size_t bytes);
void fuzz_file_close(fuzz_file *file);

/* A new empty folder, in memory where there is such a file system: syncing a disk would take most of the time. malloc'd name; temp_remove
 * (tests/base/temp.h) ends it. */
char *fuzz_folder(void);

#endif
