/* One line to one row of a batch: split in one pass over 64 bytes at a time, then each field from its piece.
 *
 * What makes a row bad: a NUL byte, more than CT_LINE_MAX_BYTES, another number of columns than the source has, a label, weight, time,
 * number or integer id that is none. A missing number is NaN. An id field with one value takes an empty piece as a token of its own; one
 * with several values takes an empty piece as no values and skips empty values between separators ("a,,b" has two). Of more than
 * max_values values the newest stay, in the order of the text. */
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/text.h"
#include "data/internal.h"

struct ct_row_parser {
    const ct_schema *schema;
    size_t columns; /* of a line; 0 = a header must come first */
    size_t *column; /* (field_count) source column of each field; a vector has its id field's */
    uint32_t *ends; /* (ends_capacity) where each piece of the line ends */
    size_t ends_capacity;
};

/* --- splitting --- */

typedef struct split_masks {
    uint64_t separators, nuls;
} split_masks;

#ifdef __SSE2__
static inline split_masks scan64(const char *at, char separator) {
    const __m128i wanted = _mm_set1_epi8(separator), zero = _mm_setzero_si128();
    split_masks masks = {0, 0};
    for (int i = 0; i < 4; i++) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(at + 16 * i));
        masks.separators |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, wanted)) << (16 * i);
        masks.nuls |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, zero)) << (16 * i);
    }
    return masks;
}
#else
static inline split_masks scan64(const char *at, char separator) {
    split_masks masks = {0, 0};
    for (int i = 0; i < 64; i++) {
        masks.separators |= (uint64_t)(at[i] == separator) << i;
        masks.nuls |= (uint64_t)(at[i] == 0) << i;
    }
    return masks;
}
#endif

/* Writes where the line's pieces end, at most `capacity` of them, and returns how many there are. */
static size_t split(const char *line, size_t bytes, char separator, uint32_t *ends, size_t capacity, bool *out_nul) {
    uint64_t nuls = 0;
    size_t count = 0;
    for (size_t at = 0; at < bytes; at += 64) {
        split_masks masks;
        if (bytes - at >= 64) {
            masks = scan64(line + at, separator);
        } else {
            char tail[64];
            memcpy(tail, line + at, bytes - at);
            masks = scan64(tail, separator);
            const uint64_t valid = (UINT64_C(1) << (bytes - at)) - 1;
            masks.separators &= valid;
            masks.nuls &= valid;
        }
        nuls |= masks.nuls;
        while (masks.separators) {
            if (count < capacity) ends[count] = (uint32_t)(at + (size_t)__builtin_ctzll(masks.separators));
            count++;
            masks.separators &= masks.separators - 1;
        }
    }
    if (count < capacity) ends[count] = (uint32_t)bytes;
    *out_nul = nuls != 0;
    return count + 1;
}

ct_code ct_line_split(const ct_schema *schema, const char *line, size_t bytes, const char **out_begin, size_t *out_bytes,
                      ct_status *status) {
    uint32_t some[64], *ends = some;
    bool nul;
    ct_code code = CT_OK;
    if (!schema->columns) {
        return ct_fail(status, CT_INVALID, "schema '%s': only a header tells how many columns a line has; give `columns` in its format",
                       schema->name);
    }
    if (bytes > CT_LINE_MAX_BYTES) return ct_fail(status, CT_INVALID, "a line of %zu bytes, more than %d", bytes, CT_LINE_MAX_BYTES);
    if (schema->columns > sizeof some / sizeof some[0]) {
        ends = malloc(schema->columns * sizeof *ends);
        if (!ends) return ct_fail_memory(status, schema->columns * sizeof *ends, "a line");
    }
    const size_t count = split(line, bytes, schema->separator, ends, schema->columns, &nul);
    if (nul) {
        code = ct_fail(status, CT_INVALID, "a NUL byte in the line");
    } else if (count != schema->columns) {
        code = ct_fail(status, CT_INVALID, "%zu columns instead of %zu", count, schema->columns);
    } else {
        for (size_t c = 0; c < count; c++) {
            const size_t begin = c ? ends[c - 1] + 1u : 0;
            out_begin[c] = line + begin;
            out_bytes[c] = ends[c] - begin;
        }
    }
    if (ends != some) free(ends);
    return code;
}

/* --- parser --- */

static ct_code reserve_ends(ct_row_parser *parser, size_t columns, ct_status *status) {
    if (columns <= parser->ends_capacity) return CT_OK;
    uint32_t *ends = realloc(parser->ends, columns * sizeof *ends);
    if (!ends) return ct_fail_memory(status, columns * sizeof *ends, "a line's columns");
    parser->ends = ends;
    parser->ends_capacity = columns;
    return CT_OK;
}

static void link_vectors(ct_row_parser *parser) {
    for (size_t f = 0; f < parser->schema->field_count; f++) {
        const ct_field *field = &parser->schema->fields[f];
        if (field->kind == CT_FIELD_VECTOR) parser->column[f] = parser->column[field->of];
    }
}

ct_code ct_row_parser_create(const ct_schema *schema, ct_row_parser **out_parser, ct_status *status) {
    ct_row_parser *parser = calloc(1, sizeof *parser);
    ct_code code = CT_OK;
    if (!parser) return ct_fail_memory(status, sizeof *parser, "a parser");
    parser->schema = schema;
    parser->column = calloc(schema->field_count ? schema->field_count : 1, sizeof *parser->column);
    if (!parser->column) {
        code = ct_fail_memory(status, schema->field_count * sizeof *parser->column, "a parser");
        goto fail;
    }
    if (!schema->header) {
        CT_TRY_GOTO(code, reserve_ends(parser, schema->columns, status), fail);
        parser->columns = schema->columns;
        for (size_t f = 0; f < schema->field_count; f++) {
            if (schema->fields[f].column >= 0) parser->column[f] = (size_t)schema->fields[f].column;
        }
        link_vectors(parser);
    }
    *out_parser = parser;
    return CT_OK;
fail:
    ct_row_parser_destroy(parser);
    return code;
}

void ct_row_parser_destroy(ct_row_parser *parser) {
    if (!parser) return;
    free(parser->column);
    free(parser->ends);
    free(parser);
}

/* The header's only column of that name. */
static ct_code find_column(const ct_row_parser *parser, const ct_line *line, size_t columns, const ct_field *field, size_t *out_column,
                           ct_status *status) {
    const size_t wanted = strlen(field->column_name);
    bool found = false;
    for (size_t c = 0; c < columns; c++) {
        const size_t begin = c ? parser->ends[c - 1] + 1u : 0;
        if (parser->ends[c] - begin != wanted || memcmp(line->text + begin, field->column_name, wanted) != 0) continue;
        if (found) {
            return ct_fail(status, CT_INVALID, "%s:%lld: the header has two columns '%s' (field '%s' of the schema)", line->source,
                           (long long)line->number, field->column_name, field->name);
        }
        found = true;
        *out_column = c;
    }
    if (!found) {
        char shown[256];
        return ct_fail(status, CT_INVALID, "%s:%lld: the header has no column '%s' (field '%s' of the schema); it is: %s", line->source,
                       (long long)line->number, field->column_name, field->name,
                       ct_text_show(line->text, line->bytes, shown, sizeof shown));
    }
    return CT_OK;
}

ct_code ct_row_parser_header(ct_row_parser *parser, const ct_line *line, ct_status *status) {
    const ct_schema *schema = parser->schema;
    bool nul;
    if (line->too_long) return ct_fail(status, CT_INVALID, "%s:%lld: the header is too long", line->source, (long long)line->number);
    const size_t columns = split(line->text, line->bytes, schema->separator, parser->ends, 0, &nul);
    if (nul) return ct_fail(status, CT_INVALID, "%s:%lld: a NUL byte in the header", line->source, (long long)line->number);
    if (schema->columns && columns != schema->columns) {
        return ct_fail(status, CT_INVALID, "%s:%lld: the header has %zu columns instead of the schema's %zu", line->source,
                       (long long)line->number, columns, schema->columns);
    }
    CT_TRY(reserve_ends(parser, columns, status));
    (void)split(line->text, line->bytes, schema->separator, parser->ends, columns, &nul);
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (field->kind == CT_FIELD_VECTOR) continue;
        if (field->column_name) {
            CT_TRY(find_column(parser, line, columns, field, &parser->column[f], status));
        } else if ((size_t)field->column >= columns) {
            return ct_fail(status, CT_INVALID, "%s:%lld: the header has %zu columns; field '%s' of the schema is in column %lld",
                           line->source, (long long)line->number, columns, field->name, (long long)field->column + 1);
        } else {
            parser->column[f] = (size_t)field->column;
        }
    }
    link_vectors(parser);
    parser->columns = columns;
    return CT_OK;
}

/* --- rows --- */

/* Several values of one row; appended behind the values of the rows before. */
static ct_code parse_many(const ct_field *field, size_t index, const char *text, size_t bytes, ct_batch *batch, size_t row,
                          ct_status *status) {
    ct_column *column = &batch->columns[index];
    const char separator = field->value_separator;
    const size_t used = column->offsets[row];
    size_t count = 0, skip = 0, written = 0;
    for (size_t i = 0; i < bytes; i++) count += text[i] != separator && (i + 1 == bytes || text[i + 1] == separator);
    if (count > field->max_values && !field->newest_first) skip = count - field->max_values;
    if (count > field->max_values) count = field->max_values;
    if (used + count > column->value_capacity) {
        const size_t room = used + count < 2 * column->value_capacity ? 2 * column->value_capacity : used + count;
        batch->rows = row; /* what a growing column must keep */
        CT_TRY(ct_batch_reserve(batch, index, room, status));
    }
    uint64_t *keys = (uint64_t *)column->values + used;
    for (size_t at = 0; written < count;) {
        const char *end = memchr(text + at, separator, bytes - at);
        const size_t length = end ? (size_t)(end - (text + at)) : bytes - at;
        if (length && skip) {
            skip--;
        } else if (length) {
            CT_TRY(ct_field_key(field, text + at, length, &keys[written], status));
            written++;
        }
        at += length + 1;
    }
    column->offsets[row + 1] = (uint32_t)(used + count);
    return CT_OK;
}

static const ct_bad_row_kind bad_kind[] = {
    [CT_FIELD_LABEL] = CT_BAD_LABEL, [CT_FIELD_WEIGHT] = CT_BAD_WEIGHT, [CT_FIELD_TIME] = CT_BAD_TIME, [CT_FIELD_GROUP] = CT_BAD_ID,
    [CT_FIELD_UNIT] = CT_BAD_ID,     [CT_FIELD_NUMBER] = CT_BAD_NUMBER, [CT_FIELD_ID] = CT_BAD_ID,     [CT_FIELD_VECTOR] = CT_BAD_ID,
};

static ct_code bad_row(ct_bad_row_kind kind, ct_bad_row_kind *out_kind, ct_status *status, const char *text) {
    *out_kind = kind;
    return ct_fail(status, CT_INVALID, "%s", text);
}

ct_code ct_row_parse(ct_row_parser *parser, const ct_line *line, ct_batch *batch, size_t row, ct_bad_row_kind *out_kind,
                     ct_status *status) {
    const ct_schema *schema = parser->schema;
    const char *text = line->text;
    const uint32_t *ends = parser->ends;
    bool nul;
    if (line->too_long) return bad_row(CT_BAD_TOO_LONG, out_kind, status, "too long: more than 1 MiB");
    const size_t count = split(text, line->bytes, schema->separator, parser->ends, parser->columns, &nul);
    if (nul) return bad_row(CT_BAD_NUL_BYTE, out_kind, status, "a NUL byte in the line");
    if (count != parser->columns) {
        *out_kind = CT_BAD_FIELD_COUNT;
        return ct_fail(status, CT_INVALID, "%zu columns instead of %zu", count, parser->columns);
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        const size_t c = parser->column[f];
        const size_t begin = c ? ends[c - 1] + 1u : 0;
        const size_t bytes = ends[c] - begin;
        void *values = batch->columns[f].values;
        ct_code code = CT_OK;
        switch (field->kind) {
            case CT_FIELD_NUMBER:
                code = ct_field_number(field, text + begin, bytes, (float *)values + row, status);
                break;
            case CT_FIELD_GROUP:
            case CT_FIELD_UNIT:
            case CT_FIELD_ID:
            case CT_FIELD_VECTOR:
                if (ct_field_is_multi(field)) {
                    code = parse_many(field, f, text + begin, bytes, batch, row, status);
                } else if (field->id_type == CT_ID_TEXT) {
                    ((uint64_t *)values)[row] = ct_key_of_text(field, text + begin, bytes);
                } else {
                    code = ct_field_key(field, text + begin, bytes, (uint64_t *)values + row, status);
                }
                break;
            case CT_FIELD_LABEL:
                code = ct_field_label(field, text + begin, bytes, (float *)values + row, status);
                break;
            case CT_FIELD_WEIGHT:
                code = ct_field_weight(field, text + begin, bytes, (float *)values + row, status);
                break;
            case CT_FIELD_TIME:
                code = ct_field_time(field, text + begin, bytes, (int64_t *)values + row, status);
                break;
        }
        if (code != CT_OK) {
            *out_kind = bad_kind[field->kind];
            return code;
        }
    }
    return CT_OK;
}
