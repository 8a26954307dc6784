/* Where the schema's fields stand in a line: by position, or by the names in a header. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "data/rows.h"

/* --- splitting --- */

size_t ct_row_split(const char *line, size_t bytes, char separator, uint32_t *ends, size_t capacity, bool *out_nul) {
    size_t count = 0;
    bool nul = false;
    for (size_t i = 0; i < bytes; i++) {
        nul = nul || line[i] == 0;
        if (line[i] != separator) continue;
        if (count < capacity) ends[count] = (uint32_t)i;
        count++;
    }
    if (count < capacity) ends[count] = (uint32_t)bytes;
    *out_nul = nul;
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
    const size_t count = ct_row_split(line, bytes, schema->separator, ends, schema->columns, &nul);
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

/* --- layout --- */

static void link_vectors(ct_row_layout *layout, const ct_schema *schema) {
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (field->kind == CT_FIELD_VECTOR) layout->column[f] = layout->column[field->of];
    }
}

ct_code ct_row_layout_init(const ct_schema *schema, ct_row_layout *out_layout, ct_status *status) {
    ct_row_layout layout = {0};
    layout.column = calloc(schema->field_count ? schema->field_count : 1, sizeof *layout.column);
    if (!layout.column) return ct_fail_memory(status, schema->field_count * sizeof *layout.column, "a row's layout");
    if (!schema->header) {
        layout.columns = schema->columns;
        for (size_t f = 0; f < schema->field_count; f++) {
            if (schema->fields[f].column >= 0) layout.column[f] = (size_t)schema->fields[f].column;
        }
        link_vectors(&layout, schema);
    }
    *out_layout = layout;
    return CT_OK;
}

void ct_row_layout_deinit(ct_row_layout *layout) { free(layout->column); }

/* A header's line, split. */
typedef struct header {
    const char *name, *text;
    size_t bytes, columns;
    const uint32_t *ends;
} header;

/* The header's only column of that name. */
static ct_code find_column(const header *h, const ct_field *field, size_t *out_column, ct_status *status) {
    const size_t wanted = strlen(field->column_name);
    bool found = false;
    for (size_t c = 0; c < h->columns; c++) {
        const size_t begin = c ? h->ends[c - 1] + 1u : 0;
        if (h->ends[c] - begin != wanted || memcmp(h->text + begin, field->column_name, wanted) != 0) continue;
        if (found) {
            return ct_fail(status, CT_INVALID, "%s:1: the header has two columns '%s' (field '%s' of the schema)", h->name,
                           field->column_name, field->name);
        }
        found = true;
        *out_column = c;
    }
    if (!found) {
        char shown[256];
        return ct_fail(status, CT_INVALID, "%s:1: the header has no column '%s' (field '%s' of the schema); it is: %s", h->name,
                       field->column_name, field->name, ct_text_show(h->text, h->bytes, shown, sizeof shown));
    }
    return CT_OK;
}

static ct_code find_columns(ct_row_layout *layout, const ct_schema *schema, const header *h, ct_status *status) {
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (field->kind == CT_FIELD_VECTOR || field->derived) continue;
        if (field->column_name) {
            CT_TRY(find_column(h, field, &layout->column[f], status));
        } else if ((size_t)field->column >= h->columns) {
            return ct_fail(status, CT_INVALID, "%s:1: the header has %zu columns; field '%s' of the schema is in column %lld", h->name,
                           h->columns, field->name, (long long)field->column + 1);
        } else {
            layout->column[f] = (size_t)field->column;
        }
    }
    link_vectors(layout, schema);
    layout->columns = h->columns;
    return CT_OK;
}

ct_code ct_row_layout_header(ct_row_layout *layout, const ct_schema *schema, const char *name, const char *text, size_t bytes,
                             ct_status *status) {
    bool nul;
    if (bytes > CT_LINE_MAX_BYTES) return ct_fail(status, CT_INVALID, "%s:1: the header is too long", name);
    const size_t columns = ct_row_split(text, bytes, schema->separator, NULL, 0, &nul);
    if (nul) return ct_fail(status, CT_INVALID, "%s:1: a NUL byte in the header", name);
    if (schema->columns && columns != schema->columns) {
        return ct_fail(status, CT_INVALID, "%s:1: the header has %zu columns instead of the schema's %zu", name, columns, schema->columns);
    }
    uint32_t *ends = malloc(columns * sizeof *ends);
    if (!ends) return ct_fail_memory(status, columns * sizeof *ends, "a header");
    (void)ct_row_split(text, bytes, schema->separator, ends, columns, &nul);
    const header h = {name, text, bytes, columns, ends};
    const ct_code code = find_columns(layout, schema, &h, status);
    free(ends);
    return code;
}
