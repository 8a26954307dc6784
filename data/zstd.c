/* zstd by libzstd, which checks each frame's header and, where it has one, its checksum; frames, also those to be skipped, are one stream.
 * The library's limit of 128 MiB for a frame's window stays: a larger one comes from `zstd --long=28` and above only. */
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/bytes.h"
#include "data/source_internal.h"

bool ct_zstd_is(const unsigned char *first, size_t count) {
    if (count < 4) return false;
    const uint32_t magic = ct_get_le32(first);
    return magic == ZSTD_MAGICNUMBER || (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

ct_code ct_zstd_open(ct_source *source, ct_status *status) {
    source->unpacking = ZSTD_createDStream();
    if (!source->unpacking) return ct_fail_memory(status, ZSTD_DStreamInSize(), "decompression");
    source->format = CT_SOURCE_ZSTD;
    return CT_OK;
}

void ct_zstd_close(ct_source *source) { (void)ZSTD_freeDStream(source->unpacking); }

static ct_code fail_zstd(const ct_source *source, size_t result, ct_status *status) {
    switch (ZSTD_getErrorCode(result)) {
        case ZSTD_error_frameParameter_windowTooLarge:
            return ct_fail(status, CT_UNSUPPORTED,
                           "%s: this zstd frame needs a window of more than 128 MiB: read it by '|zstd -dc --long=31 FILE' or pack it "
                           "without --long",
                           source->name);
        case ZSTD_error_memory_allocation:
            return ct_fail(status, CT_EXHAUSTED, "%s: out of memory for zstd's window", source->name);
        default:
            return ct_fail(status, CT_CORRUPT, "%s: corrupt zstd data near compressed byte %llu: %s", source->name,
                           ct_source_offset(source), ZSTD_getErrorName(result));
    }
}

ct_code ct_zstd_read(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    ZSTD_outBuffer out = {buffer, capacity, 0};
    *out_bytes = 0;
    while (!out.pos) {
        CT_TRY(ct_source_fill(source, source->in_member ? 1 : 4, status));
        const size_t count = source->input_end - source->input_at;
        const unsigned char *at = source->input + source->input_at;
        if (!source->in_member && !count) return CT_OK;
        if (!source->in_member && !ct_zstd_is(at, count)) {
            return ct_fail(status, CT_CORRUPT, "%s: garbage behind the last zstd frame, from compressed byte %llu on", source->name,
                           ct_source_offset(source));
        }
        ZSTD_inBuffer in = {at, count, 0};
        const size_t result = ZSTD_decompressStream(source->unpacking, &out, &in);
        source->input_at += in.pos;
        if (ZSTD_isError(result)) return fail_zstd(source, result, status);
        source->in_member = result != 0;
        if (source->in_member && !count && !out.pos) { /* fill() found the end */
            return ct_fail(status, CT_CORRUPT, "%s: cut zstd data: the file ends at compressed byte %llu, inside a frame", source->name,
                           ct_source_offset(source));
        }
    }
    *out_bytes = out.pos;
    return CT_OK;
}
