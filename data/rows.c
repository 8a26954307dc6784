/* Text to rows. A piece is worked off in tiles of some dozens of lines. First each line is split, 64 bytes at a time, into a matrix of
 * where its columns end; then each field is parsed for all rows of the tile, in one short loop without a branch on what the field is.
 *
 * What makes a row bad: more than CT_LINE_MAX_BYTES, a NUL byte, another number of columns than the source has; then, in the order of the
 * schema, a label, weight, time, number or integer id that is none. A line with one of the former gets no row; a row with one of the latter
 * stays in the batch and is left out by whoever reads it. A missing number is NaN. An id field with one value takes an empty text as a
 * token of its own; one with several values takes an empty text as no values and skips empty values between separators ("a,,b" has two). Of
 * more than max_values values the newest stay, in the order of the text. */
#include "data/rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/bytes.h"
#include "base/text.h"
#include "data/key.h"

enum { TILE_ROWS = 64, TILE_ENDS = 1 << 14, NO_FAULT = UINT16_MAX };

struct ct_rows_parser {
    const ct_schema *schema;
    const ct_row_layout *layout; /* of the piece that is parsed */
    const char *text;
    ct_rows *rows;
    uint32_t *ends; /* (tile's rows, columns + 1): one before the line's begin, then where each column ends */
    size_t ends_capacity;
    size_t tile_rows, tile_capacity;
    uint32_t line[TILE_ROWS];  /* of each row */
    uint16_t fault[TILE_ROWS]; /* the row's first field that is wrong */
    bool faulty;               /* is there one? */
    ct_row_event faults[TILE_ROWS];
    ct_status reason; /* why the value seen last is none */
};

/* --- a line's columns --- */

typedef struct masks64 {
    uint64_t separators, newlines;
    bool nul; /* there may be a NUL byte */
} masks64;

#ifdef __SSE2__
static inline uint64_t mask64(const __m128i part[4], char wanted) {
    const __m128i byte = _mm_set1_epi8(wanted);
    uint64_t mask = 0;
    for (int i = 0; i < 4; i++) mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[i], byte)) << (16 * i);
    return mask;
}

static inline masks64 scan64(const char *at, char separator) {
    const __m128i newline = _mm_set1_epi8('\n');
    __m128i part[4], newlines = _mm_setzero_si128();
    masks64 masks = {0, 0, false};
    for (int i = 0; i < 4; i++) {
        part[i] = _mm_loadu_si128((const __m128i *)(const void *)(at + 16 * i));
        newlines = _mm_or_si128(newlines, _mm_cmpeq_epi8(part[i], newline));
    }
    const __m128i least = _mm_min_epu8(_mm_min_epu8(part[0], part[1]), _mm_min_epu8(part[2], part[3]));
    masks.separators = mask64(part, separator);
    if (_mm_movemask_epi8(newlines)) masks.newlines = mask64(part, '\n');
    masks.nul = _mm_movemask_epi8(_mm_cmpeq_epi8(least, _mm_setzero_si128())) != 0;
    return masks;
}
#else
static inline masks64 scan64(const char *at, char separator) {
    masks64 masks = {0, 0, false};
    for (int i = 0; i < 64; i++) {
        masks.separators |= (uint64_t)(at[i] == separator) << i;
        masks.newlines |= (uint64_t)(at[i] == '\n') << i;
        masks.nul = masks.nul || at[i] == 0;
    }
    return masks;
}
#endif

/* Positions of the set bits, eight at a time: more may be written than there are, so that no branch depends on each. */
static inline size_t put_positions(uint64_t bits, size_t at, uint32_t *out) {
    const size_t count = (size_t)__builtin_popcountll(bits);
    for (size_t k = 0; k < count; k += 8) {
        for (int i = 0; i < 8; i++) {
            out[k + (size_t)i] = (uint32_t)(at + (size_t)__builtin_ctzll(bits | UINT64_C(1) << 63));
            bits &= bits - 1;
        }
    }
    return count;
}

/* The line that begins at `begin`; a newline stands at its end. Returns where that is. `ends` has room for `columns` and 64 more; it is
 * what the line holds where `*out_columns` equals `columns`. */
static inline size_t split_line(const char *text, size_t begin, char separator, size_t columns, uint32_t *ends, size_t *out_columns,
                                bool *out_nul) {
    size_t count = 0, at = begin;
    bool nul = false;
    for (;; at += 64) {
        const masks64 masks = scan64(text + at, separator);
        uint64_t separators = masks.separators;
        nul |= masks.nul;
        if (masks.newlines) separators &= (masks.newlines & -masks.newlines) - 1;
        count += count < columns ? put_positions(separators, at, ends + count) : (size_t)__builtin_popcountll(separators);
        if (!masks.newlines) continue;
        at += (size_t)__builtin_ctzll(masks.newlines);
        break;
    }
    *out_columns = count + 1;
    *out_nul = nul && memchr(text + begin, 0, at - begin) != NULL;
    return at;
}

/* --- events --- */

static ct_code reserve_events(ct_rows *rows, size_t more, ct_status *status) {
    if (rows->event_count + more <= rows->event_capacity) return CT_OK;
    const size_t capacity = 2 * (rows->event_count + more);
    ct_row_event *events = realloc(rows->events, capacity * sizeof *events);
    if (!events) return ct_fail_memory(status, capacity * sizeof *events, "bad rows");
    rows->events = events;
    rows->event_capacity = capacity;
    return CT_OK;
}

static ct_code add_event(ct_rows *rows, size_t row, size_t line, int kind, ct_status *status) {
    ct_row_event *last = rows->event_count ? &rows->events[rows->event_count - 1] : NULL;
    if (kind == CT_BAD_KINDS && last && last->kind == kind && last->row == row) {
        last->count++;
        return CT_OK;
    }
    CT_TRY(reserve_events(rows, 1, status));
    rows->events[rows->event_count++] = (ct_row_event){(uint32_t)row, (uint32_t)line, 1, (uint8_t)kind, false};
    return CT_OK;
}

static void CT_PRINTF(2, 3) give_reason(ct_rows *rows, const char *format, ...) {
    va_list arguments;
    if (rows->bad < CT_BAD_ROWS_SHOWN) {
        va_start(arguments, format);
        (void)vsnprintf(rows->reason[rows->bad], CT_ROW_REASON_BYTES, format, arguments);
        va_end(arguments);
    }
    rows->bad++;
}

/* --- a field of one row --- */

static const uint8_t bad_kind[] = {
    [CT_FIELD_LABEL] = CT_BAD_LABEL, [CT_FIELD_WEIGHT] = CT_BAD_WEIGHT, [CT_FIELD_TIME] = CT_BAD_TIME, [CT_FIELD_GROUP] = CT_BAD_ID,
    [CT_FIELD_UNIT] = CT_BAD_ID,     [CT_FIELD_NUMBER] = CT_BAD_NUMBER, [CT_FIELD_ID] = CT_BAD_ID,     [CT_FIELD_VECTOR] = CT_BAD_ID,
    [CT_FIELD_HISTORY] = CT_BAD_ID,  [CT_FIELD_SIMILARITY] = CT_BAD_ID,
};

/* How many values a text with several holds; at most max_values of them are kept, behind `*out_skip` others. */
static size_t count_many(const ct_field *field, const char *text, size_t bytes, size_t *out_skip) {
    const char separator = field->value_separator;
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) count += text[i] != separator && (i + 1 == bytes || text[i + 1] == separator);
    *out_skip = count > field->max_values && !field->newest_first ? count - field->max_values : 0;
    return count > field->max_values ? field->max_values : count;
}

static ct_code put_many(const ct_field *field, const char *text, size_t bytes, size_t skip, size_t count,
                        uint64_t *out_keys /* (count) or NULL */, ct_status *status) {
    for (size_t at = 0, written = 0; written < count;) {
        const char *end = memchr(text + at, field->value_separator, bytes - at);
        const size_t length = end ? (size_t)(end - (text + at)) : bytes - at;
        uint64_t key;
        if (length && skip) {
            skip--;
        } else if (length) {
            CT_TRY(ct_field_key(field, text + at, length, &key, status));
            if (out_keys) out_keys[written] = key;
            written++;
        }
        at += length + 1;
    }
    return CT_OK;
}

/* Several values of one row; appended behind the values of the rows before. */
static ct_code parse_many(const ct_field *field, size_t index, const char *text, size_t bytes, ct_batch *batch, size_t row,
                          ct_status *status) {
    ct_column *column = &batch->columns[index];
    const size_t used = column->offsets[row];
    size_t skip;
    const size_t count = count_many(field, text, bytes, &skip);
    column->offsets[row + 1] = (uint32_t)used; /* if it fails */
    if (!count) return CT_OK;
    if (used + count > column->value_capacity) {
        const size_t room = used + count < 2 * column->value_capacity ? 2 * column->value_capacity : used + count;
        batch->rows = row; /* what a growing column must keep */
        CT_TRY(ct_batch_reserve(batch, index, room, status));
    }
    CT_TRY(put_many(field, text, bytes, skip, count, (uint64_t *)column->values + used, status));
    column->offsets[row + 1] = (uint32_t)(used + count);
    return CT_OK;
}

/* The careful way, for every kind of field; CT_INVALID with a reason where the text is none. */
static ct_code parse_value(ct_rows_parser *parser, size_t f, const char *text, size_t bytes, size_t row, ct_status *status) {
    const ct_field *field = &parser->schema->fields[f];
    ct_batch *batch = parser->rows->batch;
    void *values = batch->columns[f].values;
    switch (field->kind) {
        case CT_FIELD_NUMBER:
            return ct_field_number(field, text, bytes, (float *)values + row, status);
        case CT_FIELD_LABEL:
            return ct_field_label(field, text, bytes, (float *)values + row, status);
        case CT_FIELD_WEIGHT:
            return ct_field_weight(field, text, bytes, (float *)values + row, status);
        case CT_FIELD_TIME:
            return ct_field_time(field, text, bytes, (int64_t *)values + row, status);
        case CT_FIELD_GROUP:
        case CT_FIELD_UNIT:
        case CT_FIELD_ID:
        case CT_FIELD_VECTOR:
        case CT_FIELD_HISTORY: /* no source has these two */
        case CT_FIELD_SIMILARITY:
            break;
    }
    if (ct_field_is_multi(field)) return parse_many(field, f, text, bytes, batch, row, status);
    return ct_field_key(field, text, bytes, (uint64_t *)values + row, status);
}

/* --- a field of all rows of a tile --- */

/* Up to eight digits at once (a SWAR idea that many use): the text in the upper bytes of a word, zeros before it. False where it is
 * anything else. */
static inline bool parse_digits8(const char *text, size_t bytes, uint32_t *out_value) {
    uint64_t word;
    if (bytes - 1 > 7) return false;
    word = ct_get_le64(text) << (64 - 8 * bytes); /* eight bytes may be read: the text has a pad */
    if (bytes < 8) word |= UINT64_C(0x3030303030303030) >> (8 * bytes);
    if (((word & (word + UINT64_C(0x0606060606060606))) & UINT64_C(0xf0f0f0f0f0f0f0f0)) != UINT64_C(0x3030303030303030)) return false;
    word = (word & UINT64_C(0x0f0f0f0f0f0f0f0f)) * 2561 >> 8;
    word = (word & UINT64_C(0x00ff00ff00ff00ff)) * 6553601 >> 16;
    *out_value = (uint32_t)((word & UINT64_C(0x0000ffff0000ffff)) * UINT64_C(42949672960001) >> 32);
    return true;
}

static inline bool parse_number_fast(const char *text, size_t bytes, float *out_value) {
    uint32_t digits;
    const bool negative = bytes && text[0] == '-';
    if (!bytes) {
        *out_value = NAN;
        return true;
    }
    if (!parse_digits8(text + negative, bytes - negative, &digits)) return false;
    const float value = (float)(int32_t)digits; /* rounded to nearest, as ct_parse_f32 does */
    *out_value = negative ? -value : value;
    return true;
}

static inline bool parse_label_fast(const ct_field *field, const char *text, size_t bytes, float *out_value) {
    if (bytes != 1 || field->has_at_least || (text[0] | 1) != '1') return false;
    *out_value = (float)(text[0] - '0');
    return true;
}

/* Calls the careful way where the fast one gave up; marks the row where that fails too. */
static ct_code parse_slowly(ct_rows_parser *parser, size_t f, const char *text, size_t bytes, size_t first_row, size_t r,
                            ct_status *status) {
    const ct_code code = parse_value(parser, f, text, bytes, first_row + r, &parser->reason);
    if (code == CT_OK) return CT_OK;
    if (code != CT_INVALID) return ct_fail(status, code, "%s", parser->reason.message);
    if (parser->fault[r] == NO_FAULT) parser->fault[r] = (uint16_t)f;
    parser->faulty = true;
    return CT_OK;
}

/* For row r of the tile: `text` and `bytes` of the field. The bounds are local, as a store could change the parser's for all that the
 * compiler knows. */
#define FOR_EACH_ROW(parser, f, r)                                                                                                \
    const size_t rows_ = (parser)->tile_rows, stride_ = (parser)->layout->columns + 1;                                            \
    const uint32_t *end_ = (parser)->ends + (parser)->layout->column[f];                                                          \
    const char *const begin_ = (parser)->text, *text;                                                                             \
    size_t bytes;                                                                                                                 \
    for (size_t r = 0; r < rows_ && (text = begin_ + (uint32_t)(end_[0] + 1u), bytes = (size_t)(end_[1] - (end_[0] + 1u)), true); \
         r++, end_ += stride_)

static ct_code parse_numbers(ct_rows_parser *parser, size_t f, size_t first_row, ct_status *status) {
    float *out = (float *)parser->rows->batch->columns[f].values + first_row;
    FOR_EACH_ROW(parser, f, r) {
        if (!parse_number_fast(text, bytes, &out[r])) CT_TRY(parse_slowly(parser, f, text, bytes, first_row, r, status));
    }
    return CT_OK;
}

static ct_code parse_labels(ct_rows_parser *parser, size_t f, size_t first_row, ct_status *status) {
    const ct_field *field = &parser->schema->fields[f];
    float *out = (float *)parser->rows->batch->columns[f].values + first_row;
    FOR_EACH_ROW(parser, f, r) {
        if (!parse_label_fast(field, text, bytes, &out[r])) CT_TRY(parse_slowly(parser, f, text, bytes, first_row, r, status));
    }
    return CT_OK;
}

static void parse_text_ids(const ct_rows_parser *parser, size_t f, size_t first_row) {
    const uint64_t salt = parser->schema->fields[f].salt;
    uint64_t *out = (uint64_t *)parser->rows->batch->columns[f].values + first_row;
    FOR_EACH_ROW(parser, f, r) { out[r] = ct_key_of_salt(salt, text, bytes); }
}

static ct_code parse_others(ct_rows_parser *parser, size_t f, size_t first_row, ct_status *status) {
    FOR_EACH_ROW(parser, f, r) { CT_TRY(parse_slowly(parser, f, text, bytes, first_row, r, status)); }
    return CT_OK;
}

static ct_code parse_fields(ct_rows_parser *parser, size_t first_row, ct_status *status) {
    const ct_schema *schema = parser->schema;
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (field->derived) {
            continue;
        } else if (field->kind == CT_FIELD_NUMBER) {
            CT_TRY(parse_numbers(parser, f, first_row, status));
        } else if (field->kind == CT_FIELD_LABEL) {
            CT_TRY(parse_labels(parser, f, first_row, status));
        } else if (ct_field_type(field) == CT_TYPE_U64 && !ct_field_is_multi(field) && field->id_type == CT_ID_TEXT) {
            parse_text_ids(parser, f, first_row);
        } else {
            CT_TRY(parse_others(parser, f, first_row, status));
        }
    }
    return CT_OK;
}

/* --- tiles --- */

static ct_code reserve_rows(ct_rows *rows, size_t count, size_t more, ct_status *status) {
    ct_batch *batch = rows->batch;
    batch->rows = count; /* what a growing column must keep */
    if (count + more <= batch->row_capacity) return CT_OK;
    return ct_batch_reserve_rows(batch, count + more < 2 * batch->row_capacity ? 2 * batch->row_capacity : count + more, status);
}

/* Splits lines until the tile is full, or, so that it stays small, has some hundred events, or the text ends. */
static ct_code split_tile(ct_rows_parser *parser, size_t *at, size_t bytes, size_t first_row, ct_status *status) {
    const char *text = parser->text;
    const size_t columns = parser->layout->columns;
    ct_rows *rows = parser->rows;
    parser->tile_rows = 0;
    for (size_t lines = 0; *at < bytes && parser->tile_rows < parser->tile_capacity && lines < 4 * TILE_ROWS; lines++) {
        uint32_t *ends = parser->ends + parser->tile_rows * (columns + 1);
        const size_t begin = *at, row = first_row + parser->tile_rows, number = rows->lines++;
        size_t found;
        bool nul;
        const size_t newline = split_line(text, begin, parser->schema->separator, columns, ends + 1, &found, &nul);
        const size_t end = newline > begin && text[newline - 1] == '\r' ? newline - 1 : newline;
        *at = newline + 1;
        if (end == begin) {
            CT_TRY(add_event(rows, row, number, CT_BAD_KINDS, status));
        } else if (end - begin > CT_LINE_MAX_BYTES) {
            CT_TRY(add_event(rows, row, number, CT_BAD_TOO_LONG, status));
        } else if (nul) {
            CT_TRY(add_event(rows, row, number, CT_BAD_NUL_BYTE, status));
        } else if (found != columns) {
            CT_TRY(add_event(rows, row, number, CT_BAD_FIELD_COUNT, status));
            rows->events[rows->event_count - 1].count = (uint32_t)found; /* until its reason is given */
        } else {
            ends[0] = (uint32_t)begin - 1u;
            ends[columns] = (uint32_t)end;
            parser->line[parser->tile_rows] = (uint32_t)number;
            parser->fault[parser->tile_rows++] = NO_FAULT;
        }
    }
    return CT_OK;
}

/* Puts the rows that turned out to be wrong among the tile's other events, in the order of the lines. */
static ct_code merge_faults(ct_rows_parser *parser, size_t first_event, size_t first_row, ct_status *status) {
    ct_rows *rows = parser->rows;
    size_t faults = 0;
    for (size_t r = 0; r < parser->tile_rows; r++) {
        if (parser->fault[r] == NO_FAULT) continue;
        const ct_field_kind kind = parser->schema->fields[parser->fault[r]].kind;
        parser->faults[faults++] = (ct_row_event){(uint32_t)(first_row + r), parser->line[r], 1, bad_kind[kind], true};
    }
    CT_TRY(reserve_events(rows, faults, status));
    size_t from = rows->event_count, to = from + faults;
    rows->event_count = to;
    while (faults) {
        const bool fault_last = from == first_event || rows->events[from - 1].line < parser->faults[faults - 1].line;
        rows->events[--to] = fault_last ? parser->faults[--faults] : rows->events[--from];
    }
    return CT_OK;
}

/* Why a row that has no value for its field is bad: found once more, as only the first ones are asked for. */
static const char *find_reason(ct_rows_parser *parser, size_t r, size_t row) {
    const size_t f = parser->fault[r];
    const ct_field *field = &parser->schema->fields[f];
    const uint32_t *end = parser->ends + r * (parser->layout->columns + 1) + parser->layout->column[f];
    const char *text = parser->text + (uint32_t)(end[0] + 1u);
    const size_t bytes = end[1] - (end[0] + 1u);
    ct_code code;
    if (ct_field_is_multi(field)) { /* the values of other rows stand behind this one's */
        size_t skip;
        const size_t count = count_many(field, text, bytes, &skip);
        code = put_many(field, text, bytes, skip, count, NULL, &parser->reason);
    } else {
        code = parse_value(parser, f, text, bytes, row, &parser->reason);
    }
    return code == CT_OK ? "?" : parser->reason.message;
}

/* What is wrong with each of the tile's bad rows, in order. */
static void give_reasons(ct_rows_parser *parser, size_t first_event, size_t first_row) {
    ct_rows *rows = parser->rows;
    for (size_t e = first_event; e < rows->event_count; e++) {
        ct_row_event *event = &rows->events[e];
        if (event->drops) {
            give_reason(rows, "%s", rows->bad < CT_BAD_ROWS_SHOWN ? find_reason(parser, event->row - first_row, event->row) : "");
        } else if (event->kind == CT_BAD_TOO_LONG) {
            give_reason(rows, "too long: more than 1 MiB");
        } else if (event->kind == CT_BAD_NUL_BYTE) {
            give_reason(rows, "a NUL byte in the line");
        } else if (event->kind == CT_BAD_FIELD_COUNT) {
            give_reason(rows, "%u columns instead of %zu", event->count, parser->layout->columns);
            event->count = 1;
        }
    }
}

static ct_code reserve_tile(ct_rows_parser *parser, ct_status *status) {
    const size_t stride = parser->layout->columns + 1, fit = TILE_ENDS / stride;
    parser->tile_capacity = fit < 1 ? 1 : fit < TILE_ROWS ? fit : TILE_ROWS;
    const size_t wanted = parser->tile_capacity * stride + 64;
    if (wanted <= parser->ends_capacity) return CT_OK;
    free(parser->ends);
    parser->ends_capacity = 0;
    parser->ends = malloc(wanted * sizeof *parser->ends);
    if (!parser->ends) return ct_fail_memory(status, wanted * sizeof *parser->ends, "a line's columns");
    parser->ends_capacity = wanted;
    return CT_OK;
}

ct_code ct_rows_parse(ct_rows_parser *parser, const ct_row_layout *layout, const char *text, size_t bytes, ct_rows *rows,
                      ct_status *status) {
    size_t at = 0, count = 0;
    parser->layout = layout;
    parser->text = text;
    parser->rows = rows;
    rows->lines = rows->event_count = rows->bad = 0;
    for (size_t i = 0; i < rows->batch->column_count; i++) rows->batch->columns[i].present = !parser->schema->fields[i].derived;
    CT_TRY(reserve_tile(parser, status));
    while (at < bytes) {
        const size_t first_event = rows->event_count;
        CT_TRY(split_tile(parser, &at, bytes, count, status));
        parser->faulty = false;
        if (parser->tile_rows) {
            CT_TRY(reserve_rows(rows, count, parser->tile_rows, status));
            CT_TRY(parse_fields(parser, count, status));
        }
        if (parser->faulty) CT_TRY(merge_faults(parser, first_event, count, status));
        give_reasons(parser, first_event, count);
        count += parser->tile_rows;
    }
    rows->batch->rows = count;
    return CT_OK;
}

/* --- life --- */

ct_code ct_rows_parser_create(const ct_schema *schema, ct_rows_parser **out_parser, ct_status *status) {
    ct_rows_parser *parser = calloc(1, sizeof *parser);
    if (!parser) return ct_fail_memory(status, sizeof *parser, "a parser");
    parser->schema = schema;
    *out_parser = parser;
    return CT_OK;
}

void ct_rows_parser_destroy(ct_rows_parser *parser) {
    if (!parser) return;
    free(parser->ends);
    free(parser);
}

ct_code ct_rows_init(const ct_schema *schema, ct_rows *out_rows, ct_status *status) {
    *out_rows = (ct_rows){0};
    return ct_batch_create(schema, 0, &out_rows->batch, status);
}

void ct_rows_deinit(ct_rows *rows) {
    ct_batch_destroy(rows->batch);
    free(rows->events);
}
