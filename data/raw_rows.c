#include "data/raw_rows.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/block_file.h"
#include "data/rows.h"

struct ct_raw_rows {
    const ct_schema *schema;
    ct_lines *lines;
    ct_row_layout layout;
    const char *text; /* of the row given last */
    uint32_t *ends;   /* (end_capacity): where its columns end */
    size_t end_capacity;
};

ct_code ct_raw_rows_open(const ct_schema *schema, const char *const *paths, size_t count, ct_raw_rows **out_rows, ct_status *status) {
    ct_code code = CT_OK;
    ct_raw_rows *rows = calloc(1, sizeof *rows);
    if (!rows) return ct_fail_memory(status, sizeof *rows, "rows");
    rows->schema = schema;
    CT_TRY_GOTO(code, ct_row_layout_init(schema, &rows->layout, status), fail);
    CT_TRY_GOTO(code, ct_lines_open(paths, count, &rows->lines, status), fail);
    *out_rows = rows;
    return CT_OK;
fail:
    ct_raw_rows_close(rows);
    return code;
}

void ct_raw_rows_set_stop(ct_raw_rows *rows, const atomic_bool *stop) { ct_lines_set_stop(rows->lines, stop); }

void ct_raw_rows_close(ct_raw_rows *rows) {
    if (!rows) return;
    ct_lines_close(rows->lines);
    ct_row_layout_deinit(&rows->layout);
    free(rows->ends);
    free(rows);
}

static ct_code reserve_ends(ct_raw_rows *rows, ct_status *status) {
    if (rows->layout.columns <= rows->end_capacity) return CT_OK;
    uint32_t *ends = realloc(rows->ends, rows->layout.columns * sizeof *ends);
    if (!ends) return ct_fail_memory(status, rows->layout.columns * sizeof *ends, "a line");
    rows->ends = ends;
    rows->end_capacity = rows->layout.columns;
    return CT_OK;
}

ct_code ct_raw_rows_next(ct_raw_rows *rows, ct_raw_row *out_row, ct_status *status) {
    ct_raw_row row = {0};
    do CT_TRY(ct_lines_next(rows->lines, &row.line, status));
    while (row.line.bytes == 0 && !(rows->schema->header && ct_lines_is_first(rows->lines)));
    const ct_line *line = &row.line;
    rows->text = line->text;
    if (ct_lines_is_first(rows->lines)) {
        if (ct_block_file_is(line->text, line->bytes))
            return ct_fail(status, CT_UNSUPPORTED, "%s: a block file has no lines; give the text that it was made from", line->source);
        if (rows->schema->header) {
            CT_TRY(ct_row_layout_header(&rows->layout, rows->schema, line->source, line->text, line->bytes, status));
            row.is_header = true;
        }
        CT_TRY(reserve_ends(rows, status));
    }
    if (!row.is_header) {
        bool nul = false;
        const size_t columns = ct_row_split(line->text, line->bytes, rows->schema->separator, rows->ends, rows->layout.columns, &nul);
        row.is_bad = true;
        if (line->too_long)
            (void)snprintf(row.reason, sizeof row.reason, "a line of more than %d bytes", CT_LINE_MAX_BYTES);
        else if (nul)
            (void)snprintf(row.reason, sizeof row.reason, "a NUL byte");
        else if (columns != rows->layout.columns)
            (void)snprintf(row.reason, sizeof row.reason, "%zu columns instead of %zu", columns, rows->layout.columns);
        else
            row.is_bad = false;
    }
    *out_row = row;
    return CT_OK;
}

const char *ct_raw_rows_text(const ct_raw_rows *rows, size_t field, size_t *out_bytes) {
    const size_t column = rows->layout.column[field];
    const size_t begin = column > 0 ? rows->ends[column - 1] + 1u : 0;
    *out_bytes = rows->ends[column] - begin;
    return rows->text + begin;
}
