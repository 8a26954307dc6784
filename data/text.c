/* Pieces of whole lines. A piece is read straight into its buffer; what follows its last newline is carried to the next one. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "data/rows.h"

enum { LINE_TOO_LONG = CT_LINE_MAX_BYTES + 2 }; /* so many bytes without a newline, one of which may be a carriage return */

void ct_text_cutter_begin(ct_text_cutter *cutter, ct_source *source) {
    cutter->source = source;
    cutter->carry_bytes = 0;
    cutter->skipping = cutter->ended = false;
    cutter->code = CT_OK;
}

void ct_text_cutter_deinit(ct_text_cutter *cutter) { free(cutter->carry); }
void ct_text_deinit(ct_text *text) { free(text->buffer); }

static ct_code grow(char **buffer, size_t *capacity, size_t wanted, size_t pad, ct_status *status) {
    if (wanted <= *capacity) return CT_OK;
    char *grown = realloc(*buffer, wanted + pad);
    if (!grown) return ct_fail_memory(status, wanted + pad, "text");
    *buffer = grown;
    *capacity = wanted;
    return CT_OK;
}

/* Drops what has come of a line that is being skipped; `*used` bytes are left. */
static void skip(ct_text_cutter *cutter, char *buffer, size_t *used) {
    const char *newline = memchr(buffer, '\n', *used);
    if (!newline) {
        *used = 0;
        return;
    }
    *used -= (size_t)(newline + 1 - buffer);
    memmove(buffer, newline + 1, *used);
    cutter->skipping = false;
}

/* Fills the buffer; `*out_whole`: bytes of whole lines, `*out_used`: of all that was read. */
static ct_code read_lines(ct_text_cutter *cutter, ct_text *text, size_t wanted, size_t *out_whole, size_t *out_used, ct_status *status) {
    size_t used = *out_used, whole = 0, got;
    int64_t since_ns = 0; /* when the first of them came */
    for (;;) {
        if (used >= wanted && whole) break;
        if (used >= LINE_TOO_LONG && !whole) {
            cutter->skipping = true;
            whole = used;
            break;
        }
        if (used == text->capacity) {
            const size_t more = 2 * text->capacity < LINE_TOO_LONG ? 2 * text->capacity : LINE_TOO_LONG;
            CT_TRY(grow(&text->buffer, &text->capacity, more, CT_TEXT_PAD_BYTES, status));
        }
        const size_t room = (used < wanted ? wanted : text->capacity) - used;
        const ct_code code = ct_source_read(cutter->source, text->buffer + used, room, &got, status);
        if (code == CT_END) {
            cutter->ended = true;
            whole = used;
            break;
        }
        if (code != CT_OK) {
            cutter->code = code;
            cutter->status = *status;
            break;
        }
        size_t searched = used;
        used += got;
        if (since_ns == 0) since_ns = ct_clock_ns();
        if (cutter->skipping) {
            skip(cutter, text->buffer, &used);
            searched = 0;
        }
        const char *newline = used > searched ? memrchr(text->buffer + searched, '\n', used - searched) : NULL;
        if (newline) whole = (size_t)(newline + 1 - text->buffer);
        if (whole && ct_source_should_go_on(cutter->source, since_ns)) break;
    }
    *out_whole = whole;
    *out_used = used;
    return CT_OK;
}

ct_code ct_text_cutter_next(ct_text_cutter *cutter, size_t wanted, ct_text *text, ct_status *status) {
    size_t whole = 0, used = cutter->carry_bytes;
    if (cutter->code == CT_OK && !cutter->ended) {
        CT_TRY(grow(&text->buffer, &text->capacity, wanted > used ? wanted : used + 1, CT_TEXT_PAD_BYTES, status));
        if (used) memcpy(text->buffer, cutter->carry, used);
        CT_TRY(read_lines(cutter, text, wanted, &whole, &used, status));
        CT_TRY(grow(&cutter->carry, &cutter->carry_capacity, used - whole, 0, status));
        if (used > whole) memcpy(cutter->carry, text->buffer + whole, used - whole);
        cutter->carry_bytes = used - whole;
    }
    if (!whole) {
        if (cutter->code != CT_OK) *status = cutter->status;
        return cutter->code != CT_OK ? cutter->code : CT_END;
    }
    memset(text->buffer + whole, 0, CT_TEXT_PAD_BYTES);
    text->buffer[whole] = '\n';
    text->bytes = whole;
    return CT_OK;
}
