/* gzip by ISA-L, which checks each member's header, CRC and length; this file joins members and counts offsets for messages. */
#include <isa-l/igzip_lib.h>
#include <stdlib.h>

#include "data/source_internal.h"

static const char *inflate_fault(int result) {
    switch (result) {
        case ISAL_INCORRECT_CHECKSUM:
            return "its checksum or length does not fit";
        case ISAL_INVALID_WRAPPER:
            return "a wrong header";
        case ISAL_UNSUPPORTED_METHOD:
            return "an unknown method of compression";
        case ISAL_INVALID_LOOKBACK:
            return "a reference to before its start";
        default:
            return "a broken block";
    }
}

ct_code ct_gzip_open(ct_source *source, ct_status *status) {
    struct inflate_state *inflate = malloc(sizeof *inflate);
    if (!inflate) return ct_fail_memory(status, sizeof *inflate, "decompression");
    isal_inflate_init(inflate);
    source->unpacking = inflate;
    source->format = CT_SOURCE_GZIP;
    return CT_OK;
}

void ct_gzip_close(ct_source *source) { free(source->unpacking); }

/* Looks for the next member; `*out_any` is false at a clean end. */
static ct_code next_member(ct_source *source, bool *out_any, ct_status *status) {
    struct inflate_state *inflate = source->unpacking;
    const unsigned char *at;
    CT_TRY(ct_source_fill(source, 4, status));
    const size_t count = source->input_end - source->input_at;
    *out_any = count != 0;
    if (!count) return CT_OK;
    at = source->input + source->input_at;
    if (at[0] != 0x1f || (count > 1 && at[1] != 0x8b)) {
        return ct_fail(status, CT_CORRUPT, "%s: garbage behind the last gzip member, from compressed byte %llu on", source->name,
                       ct_source_offset(source));
    }
    if (count > 3 && (at[2] != 8 || (at[3] & 0xe0))) {
        return ct_fail(status, CT_CORRUPT, "%s: corrupt gzip header at compressed byte %llu: unknown method or flags", source->name,
                       ct_source_offset(source));
    }
    isal_inflate_reset(inflate);
    inflate->crc_flag = ISAL_GZIP;
    source->in_member = true;
    return CT_OK;
}

ct_code ct_gzip_read(ct_source *source, void *buffer, size_t capacity, size_t *out_bytes, ct_status *status) {
    struct inflate_state *inflate = source->unpacking;
    const uint32_t room = capacity > (1u << 30) ? 1u << 30 : (uint32_t)capacity;
    *out_bytes = 0;
    for (;;) {
        if (!source->in_member) {
            bool any;
            CT_TRY(next_member(source, &any, status));
            if (!any) return CT_OK;
        }
        CT_TRY(ct_source_fill(source, 1, status));
        const size_t count = source->input_end - source->input_at;
        inflate->next_in = source->input + source->input_at;
        inflate->avail_in = (uint32_t)count;
        inflate->next_out = buffer;
        inflate->avail_out = room;
        const int result = isal_inflate(inflate);
        const size_t consumed = count - inflate->avail_in;
        const size_t produced = room - inflate->avail_out;
        source->input_at += consumed;
        if (result < 0) {
            return ct_fail(status, CT_CORRUPT, "%s: corrupt gzip data near compressed byte %llu: %s", source->name,
                           ct_source_offset(source), inflate_fault(result));
        }
        if (inflate->block_state == ISAL_BLOCK_FINISH) source->in_member = false;
        if (produced) {
            *out_bytes = produced;
            return CT_OK;
        }
        if (source->in_member && !consumed && source->at_end && source->input_at == source->input_end) {
            return ct_fail(status, CT_CORRUPT, "%s: cut gzip data: the file ends at compressed byte %llu, inside a member", source->name,
                           ct_source_offset(source));
        }
        if (source->in_member && !consumed && count) { /* cannot be; but a loop without end would be worse */
            return ct_fail(status, CT_INTERNAL, "%s: gzip makes no progress at compressed byte %llu", source->name,
                           ct_source_offset(source));
        }
    }
}
