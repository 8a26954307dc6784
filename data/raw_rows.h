/* Raw rows: the lines of text sources as they stand, with the text of each field, for what moves rows without changing them (split). Bad
 * rows are told, not counted: the caller knows which fields it needs. */
#ifndef DATA_RAW_ROWS_H
#define DATA_RAW_ROWS_H

#include "data/schema.h"
#include "data/source.h"

typedef struct ct_raw_row {
    ct_line line;
    bool is_header;
    bool is_bad; /* too long, a NUL byte, or another number of columns; `reason` says which; no field may be asked */
    char reason[128];
} ct_raw_row;

typedef struct ct_raw_rows ct_raw_rows;
/* schema and paths must outlive the rows. */
CT_MUST_CHECK ct_code ct_raw_rows_open(const ct_schema *schema, const char *const *paths, size_t count, ct_raw_rows **out_rows,
                                       ct_status *status);
void ct_raw_rows_set_stop(ct_raw_rows *rows, const atomic_bool *stop); /* as ct_lines_set_stop */
void ct_raw_rows_close(ct_raw_rows *rows);                             /* NULL is fine */
/* The next line that is not blank, valid until the next call; CT_END behind the last. CT_UNSUPPORTED for a block file, which has no lines.
 */
CT_MUST_CHECK ct_code ct_raw_rows_next(ct_raw_rows *rows, ct_raw_row *out_row, ct_status *status);
/* Text of field `field` of the row given last; of a vector that of its id. */
const char *ct_raw_rows_text(const ct_raw_rows *rows, size_t field, size_t *out_bytes);

#endif
