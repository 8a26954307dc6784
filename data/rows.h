/* Private to data/: from text to rows. text.c cuts a source into pieces of whole lines, row.c knows where the schema's fields stand in a
 * line, rows.c parses a piece. Pieces are independent of each other, so several threads parse them; the reader puts them in order. */
#ifndef DATA_ROWS_H
#define DATA_ROWS_H

#include "data/internal.h"

/* Behind each piece of text so many bytes may be read; the first is a newline. */
enum { CT_TEXT_PAD_BYTES = 64 };

/* --- text.c: whole lines --- */

typedef struct ct_text {
    char *buffer; /* owned; grows for long lines only */
    size_t capacity, bytes;
} ct_text;

/* A source's text, cut after its newlines. A line longer than CT_LINE_MAX_BYTES gives a piece that ends with more bytes of it than that;
 * the rest is skipped. */
typedef struct ct_text_cutter {
    ct_source *source;
    char *carry; /* the begin of the next piece */
    size_t carry_bytes, carry_capacity;
    bool skipping, ended;
    ct_code code; /* a failure that comes after the piece before it */
    ct_status status;
} ct_text_cutter;

/* For the next source. */
void ct_text_cutter_begin(ct_text_cutter *cutter, ct_source *source);
void ct_text_cutter_deinit(ct_text_cutter *cutter);
/* About `wanted` bytes, fewer where a pipe pauses, more where a line is longer; CT_END behind the last. */
CT_MUST_CHECK ct_code ct_text_cutter_next(ct_text_cutter *cutter, size_t wanted, ct_text *text, ct_status *status);
void ct_text_deinit(ct_text *text);

/* --- row.c: where the fields stand in a line --- */

typedef struct ct_row_layout {
    size_t columns; /* of a line; 0 = a header must come first */
    size_t *column; /* (field_count) source column of each field; a vector has its id field's */
} ct_row_layout;
CT_MUST_CHECK ct_code ct_row_layout_init(const ct_schema *schema, ct_row_layout *out_layout, ct_status *status);
void ct_row_layout_deinit(ct_row_layout *layout);
/* Finds the schema's columns in a source's header. `name` is for messages. */
CT_MUST_CHECK ct_code ct_row_layout_header(ct_row_layout *layout, const ct_schema *schema, const char *name, const char *text, size_t bytes,
                                           ct_status *status);

/* Writes where the line's pieces end, at most `capacity` of them, and returns how many there are. */
size_t ct_row_split(const char *line, size_t bytes, char separator, uint32_t *ends, size_t capacity, bool *out_nul);

/* --- rows.c --- */

/* Something that is no good row, in the order of the log. */
typedef struct ct_row_event {
    uint32_t row;   /* how many rows of the batch come before it */
    uint32_t line;  /* 0-based in the piece */
    uint32_t count; /* blank lines: so many, one after the other; else 1 */
    uint8_t kind;   /* ct_bad_row_kind; CT_BAD_KINDS: blank lines */
    bool drops;     /* the batch's row `row` is the bad one and must be left out */
} ct_row_event;

enum { CT_ROW_REASON_BYTES = 128 };

typedef struct ct_rows {
    ct_batch *batch;
    size_t lines;
    ct_row_event *events;
    size_t event_count, event_capacity;
    size_t bad;                                          /* events that are bad rows */
    char reason[CT_BAD_ROWS_SHOWN][CT_ROW_REASON_BYTES]; /* of the first bad rows, as more of a piece cannot be shown */
} ct_rows;
CT_MUST_CHECK ct_code ct_rows_init(const ct_schema *schema, ct_rows *out_rows, ct_status *status);
void ct_rows_deinit(ct_rows *rows);

typedef struct ct_rows_parser ct_rows_parser;
CT_MUST_CHECK ct_code ct_rows_parser_create(const ct_schema *schema, ct_rows_parser **out_parser, ct_status *status);
void ct_rows_parser_destroy(ct_rows_parser *parser); /* NULL is fine */
/* Replaces what `rows` holds by the rows of `bytes` of text, which has its pad behind it. */
CT_MUST_CHECK ct_code ct_rows_parse(ct_rows_parser *parser, const ct_row_layout *layout, const char *text, size_t bytes, ct_rows *rows,
                                    ct_status *status);

#endif
