/* The checksums of the files of the model folder that was written last: see prints.c. Internal to model/, and for its test. */
#ifndef MODEL_PRINTS_H
#define MODEL_PRINTS_H

#include "base/hash.h"
#include "base/status.h"

typedef struct file_print {
    uint64_t device, inode, bytes;
    int64_t modified_s, modified_ns;
    char hex[CT_DIGEST_HEX_BYTES];
} file_print;
typedef struct file_prints {
    file_print *items; /* (count) */
    size_t count, room;
} file_prints;
/* Of a file: what `before` says of it, else by reading it; adds it to `now`. */
ct_code file_print_of(const file_prints *before, file_prints *now, const char *path, char out_hex[CT_DIGEST_HEX_BYTES], uint64_t *out_bytes,
                      ct_status *status);
void file_prints_deinit(file_prints *prints);

#endif
