/* A candidate of an exposure as a row of a schema: in a batch, as the reader would make it of text, or as that text. Keys, numbers and
 * times go through data/'s own functions (ct_field_key), so that a value has the same key here as in a log and in a request. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "experiment/live_internal.h"

typedef struct live_field {
    size_t source; /* the field whose column is read: a vector's id, the history of what follows from one, else itself */
    size_t hint;
    bool is_feature, found;
    live_column column;
    const json_t *keys; /* what is derived: as it was logged; NULL = it was not */
    const char *rule;   /* of keys */
    int64_t missing;
    size_t text_column; /* of a line of text */
} live_field;

struct live_rows {
    const ct_schema *schema;
    live_field *fields;  /* (field_count) */
    const bool *derived; /* (field_count): derived fields that rows have; NULL = none */
    const live_exposure *exposure;
    size_t text_columns;
    char **cells; /* (text_columns): a line's, owned; NULL = not yet */
    size_t *cell_bytes;
    char *line;
    size_t line_capacity, line_bytes;
};

/* Where fields stand in a line: at their positions, and with a header, behind those, under their names in the order of the schema. */
static ct_code find_text_columns(live_rows *rows, ct_status *status) {
    const ct_field *fields = rows->schema->fields;
    size_t columns = 0;
    for (size_t f = 0; f < rows->schema->field_count; f++) {
        if (fields[f].column < 0) continue;
        rows->fields[f].text_column = (size_t)fields[f].column;
        if (columns <= rows->fields[f].text_column) columns = rows->fields[f].text_column + 1;
    }
    for (size_t f = 0; f < rows->schema->field_count; f++) {
        if (fields[f].column_name == NULL) continue;
        size_t same = 0;
        while (same < f && (fields[same].column_name == NULL || strcmp(fields[same].column_name, fields[f].column_name) != 0)) same++;
        rows->fields[f].text_column = same < f ? rows->fields[same].text_column : columns++;
    }
    rows->text_columns = columns > rows->schema->columns ? columns : rows->schema->columns;
    rows->cells = calloc(rows->text_columns + 1, sizeof *rows->cells);
    rows->cell_bytes = calloc(rows->text_columns + 1, sizeof *rows->cell_bytes);
    if (rows->cells == NULL || rows->cell_bytes == NULL) return ct_fail_memory(status, rows->text_columns * sizeof *rows->cells, "a line");
    return CT_OK;
}

ct_code live_rows_create(const ct_schema *schema, live_rows **out_rows, ct_status *status) {
    ct_code code;
    live_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL) return ct_fail_memory(status, sizeof *rows, "rows");
    rows->schema = schema;
    rows->fields = calloc(schema->field_count + 1, sizeof *rows->fields);
    if (rows->fields == NULL) {
        code = ct_fail_memory(status, schema->field_count * sizeof *rows->fields, "rows");
        goto fail;
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        const bool vector = schema->fields[f].kind == CT_FIELD_VECTOR;
        rows->fields[f].is_feature = vector || live_is_feature(&schema->fields[f]);
        const bool follows = schema->fields[f].derived && schema->fields[f].kind != CT_FIELD_HISTORY;
        rows->fields[f].source = vector || follows ? schema->fields[f].of : f;
    }
    CT_TRY_GOTO(code, find_text_columns(rows, status), fail);
    *out_rows = rows;
    return CT_OK;
fail:
    live_rows_destroy(rows);
    return code;
}

void live_rows_destroy(live_rows *rows) {
    if (rows == NULL) return;
    for (size_t c = 0; rows->cells != NULL && c < rows->text_columns; c++) free(rows->cells[c]);
    free(rows->cells);
    free(rows->cell_bytes);
    free(rows->fields);
    free(rows->line);
    free(rows);
}

int64_t live_rows_missing(const live_rows *rows, size_t field) { return rows->fields[field].missing; }
void live_rows_keep(live_rows *rows, const bool *derived) { rows->derived = derived; }

/* The column's values are of the field's kind, and there are as many as it takes. */
static ct_code check_column(const live_rows *rows, const ct_field *field, const live_column *column, ct_status *status) {
    if (column->values != NULL && column->numbers != (field->kind == CT_FIELD_NUMBER))
        return live_fail(&rows->exposure->line, status, "column '%s': schema '%s' has a %s of that name", column->name, rows->schema->name,
                         field->kind == CT_FIELD_NUMBER ? "number" : "text or integer id");
    if (column->lengths == NULL || field->value_separator != 0) return CT_OK;
    for (size_t r = 0; r < json_array_size(column->lengths); r++) {
        const json_int_t length = json_integer_value(json_array_get(column->lengths, r));
        if (length == 1 || (length == 0 && field->kind == CT_FIELD_NUMBER)) continue;
        return live_fail(&rows->exposure->line, status, "column '%s': row %zu has %lld values, and schema '%s' takes one", column->name, r,
                         (long long)length, rows->schema->name);
    }
    return CT_OK;
}

/* The keys that were logged under a derived field's name; a number that counts has none of its own: those of its history. */
static ct_code find_keys(live_rows *rows, size_t f, ct_status *status) {
    const ct_field *field = &rows->schema->fields[f];
    const char *name = rows->schema->fields[field->kind == CT_FIELD_NUMBER ? field->of : f].name;
    size_t i = 0;
    const json_t *column = NULL;
    rows->fields[f].keys = NULL;
    json_array_foreach(rows->exposure->derived, i, column) {
        const char *its = json_string_value(json_object_get(column, "name"));
        if (its == NULL || strcmp(its, name) != 0) continue;
        const json_t *keys = json_object_get(column, "keys");
        rows->fields[f].rule = json_string_value(json_object_get(column, "rule"));
        if (!json_is_array(keys) || rows->fields[f].rule == NULL)
            return live_fail(&rows->exposure->line, status, "derived column '%s': a history has \"rule\" and a list of \"keys\"", name);
        rows->fields[f].keys = keys;
        return CT_OK;
    }
    return CT_OK;
}

ct_code live_rows_take(live_rows *rows, const live_exposure *exposure, ct_status *status) {
    rows->exposure = exposure;
    for (size_t f = 0; f < rows->schema->field_count; f++) {
        live_field *field = &rows->fields[f];
        if (!field->is_feature && !rows->schema->fields[f].derived) continue;
        CT_TRY(live_column_find(exposure, rows->schema->fields[field->source].name, &field->hint, &field->column, &field->found, status));
        if (field->found && field->is_feature) CT_TRY(check_column(rows, &rows->schema->fields[f], &field->column, status));
        if (!field->is_feature) CT_TRY(find_keys(rows, f, status));
    }
    return CT_OK;
}

/* --- what is derived, as it was served --- */

ct_code live_rows_is_served(const live_rows *rows, size_t f, bool *out_served, ct_status *status) {
    const live_field *mine = &rows->fields[f];
    const ct_field *field = &rows->schema->fields[f];
    char wanted[24];
    *out_served = mine->found || mine->keys != NULL;
    if (mine->found && mine->column.values != NULL && mine->column.numbers)
        return live_fail(&rows->exposure->line, status, "column '%s': schema '%s' has a history of that name, which is of ids",
                         mine->column.name, rows->schema->name);
    if (mine->found || mine->keys == NULL) return CT_OK;
    (void)snprintf(wanted, sizeof wanted, "%016llx",
                   (unsigned long long)ct_schema_column_hash(rows->schema, field->kind == CT_FIELD_NUMBER ? field->of : f));
    if (strcmp(mine->rule, wanted) != 0)
        return live_fail(&rows->exposure->line, status,
                         "'%s' was served by another rule (%s) than that of schema '%s' (%s): join with the schema of the model that "
                         "served, with --arm if arms differ, or write text, which leaves out what is derived",
                         field->name, mine->rule, rows->schema->name, wanted);
    if (json_array_size(mine->keys) > field->max_values && field->kind != CT_FIELD_NUMBER)
        return live_fail(&rows->exposure->line, status, "'%s' has %zu keys: at most %u", field->name, json_array_size(mine->keys),
                         field->max_values);
    return CT_OK;
}

static bool parse_key(const char *hex, uint64_t *out_key) {
    enum { DIGITS = 16 };
    if (hex == NULL || strspn(hex, "0123456789abcdef") != DIGITS || hex[DIGITS] != '\0') return false;
    *out_key = strtoull(hex, NULL, DIGITS);
    return true;
}

/* The values of a candidate that the field keeps: the newest, at most max_values. */
static void find_values(const live_field *mine, const ct_field *field, size_t candidate, size_t *out_first, size_t *out_count) {
    *out_first = *out_count = 0;
    if (!mine->found) return;
    live_column_row(&mine->column, candidate, out_first, out_count);
    if (*out_count <= field->max_values) return;
    if (!field->newest_first) *out_first += *out_count - field->max_values;
    *out_count = field->max_values;
}

/* --- a row of a batch --- */

static ct_code key_at(live_rows *rows, size_t f, size_t i, uint64_t *out_key, ct_status *status) {
    char buffer[LIVE_INTEGER_BYTES];
    const char *text = NULL;
    size_t bytes = 0;
    if (!rows->fields[f].found) { /* logged keys */
        if (parse_key(json_string_value(json_array_get(rows->fields[f].keys, i)), out_key)) return CT_OK;
        return live_fail(&rows->exposure->line, status, "derived column '%s': key %zu is not 16 hexadecimal digits",
                         rows->schema->fields[f].name, i);
    }
    CT_TRY(live_column_token(rows->exposure, &rows->fields[f].column, i, buffer, &text, &bytes, status));
    if (bytes == 0 && rows->schema->fields[f].value_separator != 0)
        return live_fail(&rows->exposure->line, status, "column '%s': value %zu is an empty token; a row may have no values instead",
                         rows->fields[f].column.name, i);
    if (ct_field_key(&rows->schema->fields[f], text, bytes, out_key, status) == CT_OK) return CT_OK;
    return ct_fail_within(status, "%s:%lld", rows->exposure->line.path, (long long)rows->exposure->line.number);
}

static ct_code add_feature(live_rows *rows, size_t f, size_t candidate, ct_column *column, ct_batch *batch, ct_status *status) {
    const ct_field *field = &rows->schema->fields[f];
    const size_t row = batch->rows;
    size_t first = 0, count = 0;
    find_values(&rows->fields[f], field, candidate, &first, &count);
    rows->fields[f].missing += !rows->fields[f].found;
    if (field->kind == CT_FIELD_NUMBER) {
        float *to = (float *)column->values + row;
        *to = NAN;
        return count > 0 ? live_column_number(rows->exposure, &rows->fields[f].column, first, to, status) : CT_OK;
    }
    if (column->offsets == NULL) {
        uint64_t *to = (uint64_t *)column->values + row;
        return count > 0 ? key_at(rows, f, first, to, status) : ct_field_key(field, "", 0, to, status);
    }
    const uint32_t at = column->offsets[row];
    CT_TRY(ct_batch_reserve(batch, f, at + count, status));
    for (size_t i = 0; i < count; i++) CT_TRY(key_at(rows, f, first + i, (uint64_t *)column->values + at + i, status));
    column->offsets[row + 1] = (uint32_t)(at + count);
    return CT_OK;
}

/* As it was served: what the request brought is cut as a request's is, what was logged is whole. */
static ct_code add_served(live_rows *rows, size_t f, size_t candidate, ct_column *column, ct_batch *batch, ct_status *status) {
    const ct_field *field = &rows->schema->fields[f];
    const live_field *mine = &rows->fields[f];
    const size_t row = batch->rows;
    size_t first = 0, count = json_array_size(mine->keys);
    if (mine->found) find_values(mine, &rows->schema->fields[mine->source], candidate, &first, &count);
    if (field->kind == CT_FIELD_NUMBER) {
        ((float *)column->values)[row] = (float)count;
        return CT_OK;
    }
    const uint32_t at = column->offsets[row];
    CT_TRY(ct_batch_reserve(batch, f, at + count, status));
    for (size_t i = 0; i < count; i++) CT_TRY(key_at(rows, f, first + i, (uint64_t *)column->values + at + i, status));
    column->offsets[row + 1] = (uint32_t)(at + count);
    return CT_OK;
}

static ct_code text_key(const live_rows *rows, const ct_field *field, const char *text, uint64_t *out_key, ct_status *status) {
    if (ct_field_key(field, text, strlen(text), out_key, status) == CT_OK) return CT_OK;
    return ct_fail_within(status, "%s:%lld: %s", rows->exposure->line.path, (long long)rows->exposure->line.number,
                          field->kind == CT_FIELD_UNIT ? "unit" : "request_id");
}

ct_code live_rows_add(live_rows *rows, const live_shown *shown, ct_batch *batch, ct_status *status) {
    const size_t row = batch->rows;
    for (size_t f = 0; f < rows->schema->field_count; f++) {
        const ct_field *field = &rows->schema->fields[f];
        ct_column *column = &batch->columns[f];
        switch (field->kind) {
            case CT_FIELD_LABEL:
                ((float *)column->values)[row] = shown->positive ? 1.0f : 0.0f;
                break;
            case CT_FIELD_WEIGHT:
                ((float *)column->values)[row] = (float)(1.0 / rows->exposure->sample_rate);
                break;
            case CT_FIELD_TIME:
                ((int64_t *)column->values)[row] = shown->time_ms;
                break;
            case CT_FIELD_GROUP:
                CT_TRY(text_key(rows, field, rows->exposure->request_id, (uint64_t *)column->values + row, status));
                break;
            case CT_FIELD_UNIT:
                CT_TRY(text_key(rows, field, rows->exposure->unit, (uint64_t *)column->values + row, status));
                break;
            default:
                if (rows->fields[f].is_feature) CT_TRY(add_feature(rows, f, shown->candidate, column, batch, status));
                if (field->derived && rows->derived != NULL && rows->derived[f])
                    CT_TRY(add_served(rows, f, shown->candidate, column, batch, status));
                break;
        }
    }
    batch->rows++;
    return CT_OK;
}

/* --- a line of text --- */

static ct_code put_cell(live_rows *rows, size_t f, const char *text, size_t bytes, ct_status *status) {
    const ct_field *field = &rows->schema->fields[f];
    const size_t c = rows->fields[f].text_column;
    char shown[80];
    if (memchr(text, rows->schema->separator, bytes) != NULL || memchr(text, '\n', bytes) != NULL || memchr(text, '\r', bytes) != NULL ||
        memchr(text, 0, bytes) != NULL)
        return live_fail(&rows->exposure->line, status, "field '%s': '%s' can't stand in a line of text; write a block file (.ctb)",
                         field->name, ct_text_show(text, bytes, shown, sizeof shown));
    if (rows->cells[c] != NULL && (rows->cell_bytes[c] != bytes || memcmp(rows->cells[c], text, bytes) != 0))
        return live_fail(&rows->exposure->line, status,
                         "field '%s' is '%s', and another field of the same column is '%s'; write a block file (.ctb)", field->name,
                         ct_text_show(text, bytes, shown, sizeof shown), rows->cells[c]);
    if (rows->cells[c] != NULL) return CT_OK;
    rows->cells[c] = malloc(bytes + 1);
    if (rows->cells[c] == NULL) return ct_fail_memory(status, bytes, "a line");
    memcpy(rows->cells[c], text, bytes);
    rows->cells[c][bytes] = '\0';
    rows->cell_bytes[c] = bytes;
    return CT_OK;
}

/* Several values with the field's separator between them. */
static ct_code put_values(live_rows *rows, size_t f, size_t first, size_t count, ct_status *status) {
    const ct_field *field = &rows->schema->fields[f];
    const live_column *column = &rows->fields[f].column;
    char *all = NULL, shown[80];
    size_t bytes = 0;
    FILE *to = open_memstream(&all, &bytes);
    ct_code code = CT_OK;
    if (to == NULL) return ct_fail_memory(status, count, "a line");
    for (size_t i = 0; i < count && code == CT_OK; i++) {
        char buffer[LIVE_INTEGER_BYTES];
        const char *text = NULL;
        size_t length = 0;
        code = live_column_token(rows->exposure, column, first + i, buffer, &text, &length, status);
        if (code != CT_OK) break;
        if (field->value_separator != 0 && (length == 0 || memchr(text, field->value_separator, length) != NULL))
            code = live_fail(&rows->exposure->line, status,
                             "field '%s': '%s' can't stand among several values of a line of text; write a block file (.ctb)", field->name,
                             ct_text_show(text, length, shown, sizeof shown));
        if (i > 0) fputc(field->value_separator, to);
        (void)fwrite(text, 1, length, to);
    }
    const bool failed = fclose(to) != 0;
    if (code == CT_OK) code = failed ? ct_fail_memory(status, bytes, "a line") : put_cell(rows, f, all, bytes, status);
    free(all);
    return code;
}

static ct_code put_field(live_rows *rows, size_t f, const live_shown *shown, ct_status *status) {
    const ct_field *field = &rows->schema->fields[f];
    const live_exposure *exposure = rows->exposure;
    size_t first = 0, count = 0;
    float value = 0.0f;
    char text[64] = "";
    switch (field->kind) {
        case CT_FIELD_LABEL:
            if (field->has_at_least)
                (void)snprintf(text, sizeof text, "%.17g", shown->positive ? field->at_least : field->at_least - 1.0);
            else
                (void)snprintf(text, sizeof text, "%d", shown->positive);
            break;
        case CT_FIELD_WEIGHT:
            (void)snprintf(text, sizeof text, "%.9g", (double)(float)(1.0 / exposure->sample_rate));
            break;
        case CT_FIELD_TIME:
            if (field->time_unit == CT_TIME_MILLISECONDS)
                (void)snprintf(text, sizeof text, "%lld", (long long)shown->time_ms);
            else
                (void)snprintf(text, sizeof text, "%lld.%03d", (long long)(shown->time_ms / 1000), (int)(shown->time_ms % 1000));
            break;
        case CT_FIELD_GROUP:
            return put_cell(rows, f, exposure->request_id, strlen(exposure->request_id), status);
        case CT_FIELD_UNIT:
            return put_cell(rows, f, exposure->unit, strlen(exposure->unit), status);
        default:
            if (!live_is_feature(field)) return CT_OK; /* a vector: its id's text; what is derived */
            find_values(&rows->fields[f], field, shown->candidate, &first, &count);
            rows->fields[f].missing += !rows->fields[f].found;
            if (field->kind == CT_FIELD_ID) return put_values(rows, f, first, count, status);
            if (count > 0) {
                CT_TRY(live_column_number(exposure, &rows->fields[f].column, first, &value, status));
                if (!isnan(value)) (void)snprintf(text, sizeof text, "%.9g", (double)value);
            }
            break;
    }
    return put_cell(rows, f, text, strlen(text), status);
}

static ct_code put_line(live_rows *rows, ct_status *status) {
    size_t bytes = 1;
    for (size_t c = 0; c < rows->text_columns; c++) bytes += rows->cell_bytes[c] + 1;
    if (bytes > rows->line_capacity) {
        char *line = realloc(rows->line, 2 * bytes);
        if (line == NULL) return ct_fail_memory(status, 2 * bytes, "a line");
        rows->line = line;
        rows->line_capacity = 2 * bytes;
    }
    char *at = rows->line;
    for (size_t c = 0; c < rows->text_columns; c++) {
        if (rows->cell_bytes[c] > 0) memcpy(at, rows->cells[c], rows->cell_bytes[c]);
        at += rows->cell_bytes[c];
        *at++ = c + 1 < rows->text_columns ? rows->schema->separator : '\n';
    }
    rows->line_bytes = (size_t)(at - rows->line);
    return CT_OK;
}

static void clear_cells(live_rows *rows) {
    for (size_t c = 0; c < rows->text_columns; c++) {
        free(rows->cells[c]);
        rows->cells[c] = NULL;
        rows->cell_bytes[c] = 0;
    }
}

ct_code live_rows_text(live_rows *rows, const live_shown *shown, const char **out_text, size_t *out_bytes, ct_status *status) {
    clear_cells(rows);
    for (size_t f = 0; f < rows->schema->field_count; f++) CT_TRY(put_field(rows, f, shown, status));
    CT_TRY(put_line(rows, status));
    *out_text = rows->line;
    *out_bytes = rows->line_bytes;
    return CT_OK;
}

ct_code live_rows_header(live_rows *rows, const char **out_text, size_t *out_bytes, ct_status *status) {
    clear_cells(rows);
    *out_text = "";
    *out_bytes = 0;
    if (!rows->schema->header) return CT_OK;
    for (size_t f = 0; f < rows->schema->field_count; f++) {
        const ct_field *field = &rows->schema->fields[f];
        if (field->column < 0 && field->column_name == NULL) continue;
        const char *name = field->column_name != NULL ? field->column_name : field->name;
        CT_TRY(put_cell(rows, f, name, strlen(name), status));
    }
    CT_TRY(put_line(rows, status));
    *out_text = rows->line;
    *out_bytes = rows->line_bytes;
    return CT_OK;
}
