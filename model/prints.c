/* The checksums of the files that were written into a model folder last. A folder shares most of its sorted files with the one before, as
 * hard links, and these were read and summed up then: what a checkpoint costs is in proportion to what has changed. A file is known by its
 * place on the disk, size and time of change; sorted files never change. */
#include "model/prints.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

static bool identify(const char *path, file_print *out) {
    struct stat info;
    if (stat(path, &info) != 0 || info.st_size < 0) return false;
    *out = (file_print){.device = (uint64_t)info.st_dev,
                        .inode = (uint64_t)info.st_ino,
                        .bytes = (uint64_t)info.st_size,
                        .modified_s = (int64_t)info.st_mtim.tv_sec,
                        .modified_ns = (int64_t)info.st_mtim.tv_nsec};
    return true;
}

static const file_print *find(const file_prints *prints, const file_print *file) {
    for (size_t i = 0; i < prints->count; i++) {
        const file_print *print = &prints->items[i];
        if (print->inode == file->inode && print->device == file->device && print->bytes == file->bytes &&
            print->modified_s == file->modified_s && print->modified_ns == file->modified_ns)
            return print;
    }
    return NULL;
}

ct_code file_print_of(const file_prints *before, file_prints *now, const char *path, char out_hex[CT_DIGEST_HEX_BYTES], uint64_t *out_bytes,
                      ct_status *status) {
    file_print file;
    const bool known = identify(path, &file);
    const file_print *print = known ? find(before, &file) : NULL;
    if (print != NULL) {
        file = *print;
    } else {
        CT_TRY(ct_file_digest(path, file.hex, &file.bytes, status));
    }
    memcpy(out_hex, file.hex, CT_DIGEST_HEX_BYTES);
    *out_bytes = file.bytes;
    if (!known) return CT_OK;
    if (now->count == now->room) {
        const size_t room = now->room ? now->room * 2 : 32;
        file_print *items = realloc(now->items, room * sizeof *items);
        if (items == NULL) return ct_fail_memory(status, room * sizeof *items, "the list of files");
        now->items = items;
        now->room = room;
    }
    now->items[now->count++] = file;
    return CT_OK;
}

void file_prints_deinit(file_prints *prints) {
    free(prints->items);
    *prints = (file_prints){0};
}
