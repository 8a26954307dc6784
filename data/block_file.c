/* Block files against a schema: the writer, and the reader over block_format.c. A schema must outlive both. */
#include "data/block_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/file.h"
#include "data/block_format.h"
#include "data/internal.h"

/* --- writer --- */

struct ct_block_writer {
    const ct_schema *schema;
    const bool *derived; /* (field_count): derived columns that it writes; NULL = none */
    ct_file_writer *file;
    uint64_t rows;
    XXH3_state_t *hash; /* of the block that is written */
};

static bool is_written(const ct_schema *schema, const bool *derived, size_t field) {
    return !schema->fields[field].derived || (derived && derived[field]);
}

static json_t *header_json(const ct_schema *schema, const bool *derived) {
    json_t *columns = json_array();
    json_t *header = json_pack("{s:i,s:i,s:o}", "format_version", CT_BLOCK_VERSION, "least_reader_version", CT_BLOCK_VERSION, "columns",
                               columns); /* steals the array, also where it fails */
    for (size_t f = 0; header && f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        char rule[CT_FIELD_RULE_BYTES], hash[17];
        if (!is_written(schema, derived, f)) continue;
        ct_column_rule(schema, f, rule);
        (void)snprintf(hash, sizeof hash, "%016llx", (unsigned long long)ct_schema_column_hash(schema, f));
        json_t *column = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "name", field->name, "kind", ct_field_kind_name(field->kind), "type",
                                   ct_column_type_name(ct_field_type(field)), "layout", ct_field_is_multi(field) ? "csr" : "dense", "hash",
                                   hash, "rule", rule);
        if (!column || json_array_append_new(columns, column) != 0) {
            json_decref(header);
            header = NULL;
        }
    }
    return header;
}

static ct_code write_header(ct_block_writer *writer, ct_status *status) {
    unsigned char word[8];
    json_t *json = header_json(writer->schema, writer->derived);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    ct_code code;
    json_decref(json);
    if (!text) return ct_fail_memory(status, writer->schema->text_bytes, "a block file's header");
    const size_t bytes = strlen(text);
    CT_TRY_GOTO(code, ct_file_writer_write(writer->file, CT_BLOCK_MAGIC, 8, status), done);
    ct_put_le32(word, (uint32_t)bytes);
    CT_TRY_GOTO(code, ct_file_writer_write(writer->file, word, 4, status), done);
    CT_TRY_GOTO(code, ct_file_writer_write(writer->file, text, bytes, status), done);
    ct_put_le64(word, ct_hash64(text, bytes, 0));
    CT_TRY_GOTO(code, ct_file_writer_write(writer->file, word, 8, status), done);
done:
    free(text);
    return code;
}

ct_code ct_block_writer_open(const char *path, const ct_schema *schema, ct_block_writer **out_writer, ct_status *status) {
    return ct_block_writer_open_served(path, schema, NULL, out_writer, status);
}

ct_code ct_block_writer_open_served(const char *path, const ct_schema *schema, const bool *derived, ct_block_writer **out_writer,
                                    ct_status *status) {
    ct_block_writer *writer = calloc(1, sizeof *writer);
    ct_code code;
    if (!writer) return ct_fail_memory(status, sizeof *writer, "a block file");
    writer->schema = schema;
    writer->derived = derived;
    writer->hash = XXH3_createState();
    if (!writer->hash) {
        code = ct_fail_memory(status, 1024, "a block file");
        goto fail;
    }
    CT_TRY_GOTO(code, ct_file_writer_open(path, &writer->file, status), fail);
    CT_TRY_GOTO(code, write_header(writer, status), fail);
    *out_writer = writer;
    return CT_OK;
fail:
    ct_block_writer_abort(writer);
    return code;
}

/* A batch that can be written, and its size. */
static ct_code check_batch(const ct_block_writer *writer, const ct_batch *batch, size_t *out_bytes, ct_status *status) {
    const ct_schema *schema = writer->schema;
    size_t bytes = 0;
    if (batch->rows > CT_BLOCK_MAX_ROWS) {
        return ct_fail(status, CT_INVALID, "a block of %zu rows; at most %d", batch->rows, CT_BLOCK_MAX_ROWS);
    }
    if (batch->column_count != schema->field_count) {
        return ct_fail(status, CT_INVALID, "a batch of %zu columns for a block file of %zu", batch->column_count, schema->field_count);
    }
    for (size_t i = 0; i < batch->column_count; i++) {
        const ct_column *column = &batch->columns[i];
        const ct_field *field = &schema->fields[i];
        if (!is_written(schema, writer->derived, i)) continue; /* from the rows before, when it is read */
        if (!column->present) return ct_fail(status, CT_INVALID, "column '%s' is missing: it cannot be written", field->name);
        if (column->hash != field->hash || (column->offsets != NULL) != ct_field_is_multi(field)) {
            return ct_fail(status, CT_INVALID, "column '%s' is of another schema than the block file", field->name);
        }
        if (column->shared || column->value_weights) {
            return ct_fail(status, CT_UNSUPPORTED, "column '%s' is shared or weighted: block files have no such columns yet", field->name);
        }
        if (column->offsets) bytes += 4 * (batch->rows + 1);
        bytes += ct_column_values(column, batch->rows) * ct_column_type_bytes(column->type);
    }
    *out_bytes = bytes;
    return CT_OK;
}

static ct_code put(ct_block_writer *writer, const void *data, size_t bytes, ct_status *status) {
    if (!bytes) return CT_OK;
    (void)XXH3_64bits_update(writer->hash, data, bytes);
    return ct_file_writer_write(writer->file, data, bytes, status);
}

ct_code ct_block_writer_write(ct_block_writer *writer, const ct_batch *batch, ct_status *status) {
    unsigned char word[8];
    size_t bytes = 0;
    CT_TRY(check_batch(writer, batch, &bytes, status));
    if (!batch->rows) return CT_OK;
    const ct_schema *schema = writer->schema;
    ct_put_le32(word, (uint32_t)batch->rows);
    (void)XXH3_64bits_reset(writer->hash); /* of the number of rows and the payload */
    (void)XXH3_64bits_update(writer->hash, word, 4);
    CT_TRY(ct_file_writer_write(writer->file, CT_BLOCK_TAG_BLOCK, 4, status));
    CT_TRY(ct_file_writer_write(writer->file, word, 4, status));
    ct_put_le64(word, bytes);
    CT_TRY(ct_file_writer_write(writer->file, word, 8, status));
    for (size_t i = 0; i < batch->column_count; i++) {
        const ct_column *column = &batch->columns[i];
        if (!is_written(schema, writer->derived, i)) continue;
        if (column->offsets) CT_TRY(put(writer, column->offsets, 4 * (batch->rows + 1), status));
        CT_TRY(put(writer, column->values, ct_column_values(column, batch->rows) * ct_column_type_bytes(column->type), status));
    }
    ct_put_le64(word, XXH3_64bits_digest(writer->hash));
    CT_TRY(ct_file_writer_write(writer->file, word, sizeof word, status));
    writer->rows += batch->rows;
    return CT_OK;
}

ct_code ct_block_writer_commit(ct_block_writer *writer, ct_status *status) {
    unsigned char end[20];
    memcpy(end, CT_BLOCK_TAG_END, 4);
    ct_put_le64(end + 4, writer->rows);
    ct_put_le64(end + 12, ct_hash64(end, 12, 0));
    ct_code code = ct_file_writer_write(writer->file, end, sizeof end, status);
    if (code == CT_OK) {
        code = ct_file_writer_commit(writer->file, status);
        writer->file = NULL;
    }
    ct_block_writer_abort(writer);
    return code;
}

void ct_block_writer_abort(ct_block_writer *writer) {
    if (!writer) return;
    ct_file_writer_abort(writer->file);
    (void)XXH3_freeState(writer->hash);
    free(writer);
}

/* --- reader --- */

#define ABSENT SIZE_MAX

struct ct_block_reader {
    const ct_schema *schema;
    size_t *from; /* (field_count) the file's column, or ABSENT */
    ct_block_scan scan;
};

static const char *const derive_anew = "; `clicktower convert`, with the schema that the file was made with, leaves out what is derived";

static ct_code match_column(ct_block_reader *reader, size_t f, ct_status *status) {
    const ct_field *field = &reader->schema->fields[f];
    const char *source = ct_source_name(reader->scan.source);
    reader->from[f] = ABSENT;
    for (size_t i = 0; i < reader->scan.column_count; i++) {
        const ct_block_column *column = &reader->scan.columns[i];
        if (strcmp(column->name, field->name) != 0) continue;
        if (reader->from[f] != ABSENT) return ct_fail(status, CT_CORRUPT, "%s: two columns '%s'", source, field->name);
        if (column->hash != ct_schema_column_hash(reader->schema, f)) {
            char rule[CT_FIELD_RULE_BYTES];
            ct_column_rule(reader->schema, f, rule);
            return ct_fail(status, CT_INVALID, "%s: column '%s' was made by another rule: the file's is '%s', the schema's '%s'%s", source,
                           field->name, column->rule, rule, field->derived ? derive_anew : "");
        }
        if (column->type != ct_field_type(field) || column->csr != ct_field_is_multi(field)) {
            return ct_fail(status, CT_CORRUPT, "%s: column '%s' is not what its rule says", source, field->name);
        }
        reader->from[f] = i;
    }
    if (reader->from[f] == ABSENT && field->kind == CT_FIELD_LABEL) {
        return ct_fail(status, CT_INVALID, "%s: has no column '%s', the schema's label", source, field->name);
    }
    return CT_OK;
}

/* What follows from one history is there as it was served, all of it, or none. */
static ct_code check_derived(const ct_block_reader *reader, size_t f, ct_status *status) {
    const ct_field *field = &reader->schema->fields[f], *history = &reader->schema->fields[field->of];
    if (!field->derived || field->kind == CT_FIELD_HISTORY || (reader->from[f] == ABSENT) == (reader->from[field->of] == ABSENT))
        return CT_OK;
    const bool missing = reader->from[f] == ABSENT;
    return ct_fail(status, CT_INVALID, "%s: has '%s' as it was served, but not '%s'%s", ct_source_name(reader->scan.source),
                   missing ? history->name : field->name, missing ? field->name : history->name, derive_anew);
}

ct_code ct_block_reader_open(ct_source *source, const ct_schema *schema, ct_block_reader **out_reader, ct_status *status) {
    ct_block_reader *reader = calloc(1, sizeof *reader);
    ct_code code;
    if (!reader) return ct_fail_memory(status, sizeof *reader, "a block file");
    reader->schema = schema;
    CT_TRY_GOTO(code, ct_block_scan_open(source, &reader->scan, status), fail);
    reader->from = calloc(schema->field_count ? schema->field_count : 1, sizeof *reader->from);
    if (!reader->from) {
        code = ct_fail_memory(status, schema->field_count * sizeof *reader->from, "a block file");
        goto fail;
    }
    for (size_t f = 0; f < schema->field_count; f++) CT_TRY_GOTO(code, match_column(reader, f, status), fail);
    for (size_t f = 0; f < schema->field_count; f++) CT_TRY_GOTO(code, check_derived(reader, f, status), fail);
    *out_reader = reader;
    return CT_OK;
fail:
    ct_block_reader_close(reader);
    return code;
}

void ct_block_reader_close(ct_block_reader *reader) {
    if (!reader) return;
    ct_block_scan_deinit(&reader->scan);
    free(reader->from);
    free(reader);
}

/* What a text could not have given must not come from a file either, whoever wrote it. */
static bool values_fit(const ct_field *field, const ct_column *column, size_t rows) {
    const float *values = column->values;
    if (field->kind == CT_FIELD_LABEL) {
        for (size_t r = 0; r < rows; r++) {
            if (values[r] != 0.0f && values[r] != 1.0f) return false;
        }
    } else if (field->kind == CT_FIELD_WEIGHT) {
        for (size_t r = 0; r < rows; r++) {
            if (!(values[r] >= 0.0f && values[r] <= 3.4028235e38f)) return false;
        }
    } else if (column->offsets) {
        for (size_t r = 0; r < rows; r++) {
            if (column->offsets[r + 1] - column->offsets[r] > field->max_values) return false;
        }
    } else if (field->kind == CT_FIELD_NUMBER && field->derived) { /* how many values a history has */
        for (size_t r = 0; r < rows; r++) {
            if (!(values[r] >= 0.0f && values[r] <= (float)CT_HISTORY_MAX_VALUES && values[r] == (float)(int)values[r])) return false;
        }
    }
    return true;
}

ct_code ct_block_reader_next(ct_block_reader *reader, ct_batch *batch, ct_status *status) {
    size_t rows;
    CT_TRY(ct_block_scan_next(&reader->scan, &rows, status));
    batch->rows = 0;
    CT_TRY(ct_batch_reserve_rows(batch, rows, status));
    for (size_t f = 0; f < reader->schema->field_count; f++) {
        const ct_field *field = &reader->schema->fields[f];
        ct_column *column = &batch->columns[f];
        column->present = reader->from[f] != ABSENT;
        column->shared = false;
        if (!column->present) continue;
        const ct_block_span *span = &reader->scan.spans[reader->from[f]];
        CT_TRY(ct_batch_reserve(batch, f, span->value_count, status));
        if (column->offsets) memcpy(column->offsets, span->offsets, 4 * (rows + 1));
        if (span->value_count) memcpy(column->values, span->values, span->value_count * ct_column_type_bytes(column->type));
        if (!values_fit(field, column, rows)) {
            return ct_fail(status, CT_CORRUPT, "%s: block %llu: column '%s' holds values that its rule does not allow",
                           ct_source_name(reader->scan.source), (unsigned long long)reader->scan.blocks, field->name);
        }
    }
    batch->rows = rows;
    return CT_OK;
}
