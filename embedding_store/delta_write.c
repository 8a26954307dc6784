/* Writing a delta (delta.h), and what a store knows of its changes. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "embedding_store/changes.h"
#include "embedding_store/delta_internal.h"
#include "embedding_store/filter.h"

struct ct_delta_writer {
    ct_file_writer *file;
    json_t *store, *sections, *tensors, *requires;
    /* the section in work */
    ct_delta_section section;
    bool open;
    uint32_t records; /* of the block */
    size_t used;      /* bytes of its payload */
    char block[8 + CT_DELTA_BLOCK_BYTES + CT_RECORD_MAX_BYTES + CT_DELTA_RECORD_HEAD_BYTES + 8];
};

/* --- what has changed --- */

void ct_store_expect_changes(ct_store *store, uint64_t most_bytes) { store->changes_bytes = most_bytes; }

ct_code ct_store_track_changes(ct_store *store, ct_status *status) {
    if (store->mode != CT_STORE_TRAIN) return ct_fail(status, CT_INVALID, "changes: the store was opened for reading");
    ct_changes *changes = NULL;
    for (size_t i = 0; i < store->table_count; i++)
        if (store->tables[i].filter) CT_TRY(ct_filter_track(store->tables[i].filter, status));
    CT_TRY(ct_changes_create(store, store->changes_bytes, &changes, status));
    ct_changes_destroy(store->changes);
    store->changes = changes;
    return CT_OK;
}

int64_t ct_store_changes(const ct_store *store) { return store->changes ? ct_changes_count(store->changes) : 0; }

bool ct_store_changes_full(const ct_store *store) { return store->changes && ct_changes_full(store->changes); }

ct_code ct_store_forget_changes(ct_store *store, ct_status *status) {
    for (size_t i = 0; i < store->table_count; i++)
        if (store->tables[i].filter) ct_filter_forget_changes(store->tables[i].filter);
    return store->changes ? ct_changes_settle(store->changes, NULL, NULL, status) : CT_OK;
}

/* --- writing --- */

uint64_t ct_delta_block_hash(const char *block, size_t payload_bytes, const ct_delta_section *section) {
    return ct_hash64(block, 8 + payload_bytes, section->table + (section->filter ? CT_STORE_MAX_TABLES : 0));
}

ct_code ct_delta_writer_open(const char *path, ct_delta_writer **out_writer, ct_status *status) {
    ct_delta_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return ct_fail_memory(status, sizeof *writer, "a delta");
    const char head[CT_DELTA_HEAD_BYTES] = {0}; /* until it is known */
    ct_code code = CT_OK;
    writer->sections = json_array();
    writer->tensors = json_array();
    writer->requires = json_array();
    if (!writer->sections || !writer->tensors || !writer->requires) {
        code = ct_fail_memory(status, 1024, "a delta");
        goto fail;
    }
    CT_TRY_GOTO(code, ct_file_writer_open(path, &writer->file, status), fail);
    CT_TRY_GOTO(code, ct_file_writer_write(writer->file, head, sizeof head, status), fail);
    *out_writer = writer;
    return CT_OK;
fail:
    ct_delta_writer_abort(writer);
    return code;
}

void ct_delta_writer_abort(ct_delta_writer *writer) {
    if (!writer) return;
    ct_file_writer_abort(writer->file);
    json_decref(writer->store);
    json_decref(writer->sections);
    json_decref(writer->tensors);
    json_decref(writer->requires);
    free(writer);
}

static ct_code end_block(ct_delta_writer *writer, ct_status *status) {
    if (!writer->records) return CT_OK;
    ct_put_le32(writer->block, (uint32_t)writer->used);
    ct_put_le32(writer->block + 4, writer->records);
    ct_put_le64(writer->block + 8 + writer->used, ct_delta_block_hash(writer->block, writer->used, &writer->section));
    CT_TRY(ct_file_writer_write(writer->file, writer->block, 8 + writer->used + 8, status));
    writer->section.blocks++;
    writer->section.records += writer->records;
    writer->records = 0;
    writer->used = 0;
    return CT_OK;
}

static ct_code end_section(ct_delta_writer *writer, ct_status *status) {
    if (!writer->open) return CT_OK;
    CT_TRY(end_block(writer, status));
    const ct_delta_section *s = &writer->section;
    const uint64_t bytes = ct_file_writer_position(writer->file) - s->offset;
    json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I}", "table", (json_int_t)s->table, "offset", (json_int_t)s->offset, "bytes",
                             (json_int_t)bytes, "blocks", (json_int_t)s->blocks, "records", (json_int_t)s->records);
    if (json && s->filter && json_object_set_new(json, "filter", json_true()) != 0) return ct_fail_memory(status, 64, "a delta");
    if (json_array_append_new(writer->sections, json) != 0) return ct_fail_memory(status, 1024, "a delta");
    writer->open = false;
    return CT_OK;
}

static ct_code begin_section(ct_delta_writer *writer, size_t table, bool filter, ct_status *status) {
    if (writer->open && writer->section.table == table && writer->section.filter == filter) return CT_OK;
    CT_TRY(end_section(writer, status));
    writer->section = (ct_delta_section){.table = table, .filter = filter, .offset = ct_file_writer_position(writer->file)};
    writer->open = true;
    return CT_OK;
}

/* Into the section that is open. */
static ct_code put(ct_delta_writer *writer, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    char *to = writer->block + 8 + writer->used;
    const uint16_t size = (uint16_t)bytes;
    ct_put_le64(to, key);
    memcpy(to + 8, &size, sizeof size);
    if (bytes) memcpy(to + CT_DELTA_RECORD_HEAD_BYTES, record, bytes);
    writer->used += CT_DELTA_RECORD_HEAD_BYTES + bytes;
    writer->records++;
    return writer->used >= CT_DELTA_BLOCK_BYTES ? end_block(writer, status) : CT_OK;
}

static ct_code put_record(void *context, size_t table, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    ct_delta_writer *writer = context;
    CT_TRY(begin_section(writer, table, false, status));
    return put(writer, key, record, bytes, status);
}

static ct_code put_filter(ct_delta_writer *writer, size_t table, ct_filter *filter, ct_status *status) {
    const size_t lines = ct_filter_line_count(filter);
    for (size_t i = 0; i < lines; i++) {
        if (!filter->changed[i]) continue;
        CT_TRY(begin_section(writer, table, true, status));
        CT_TRY(put(writer, i, (const char *)filter->lines + i * CT_FILTER_LINE_BYTES, CT_FILTER_LINE_BYTES, status));
    }
    ct_filter_forget_changes(filter);
    return CT_OK;
}

_Static_assert(CT_RECORD_MAX_BYTES <= UINT16_MAX, "a record's size fits");

ct_code ct_delta_writer_changes(ct_delta_writer *writer, ct_store *store, int64_t *out_records, ct_status *status) {
    if (!store->changes) return ct_fail(status, CT_INVALID, "a delta of a store that does not note its changes");
    *out_records = ct_changes_count(store->changes);
    CT_TRY(ct_changes_settle(store->changes, put_record, writer, status));
    for (size_t i = 0; i < store->table_count; i++)
        if (store->tables[i].filter) CT_TRY(put_filter(writer, i, store->tables[i].filter, status));
    CT_TRY(end_section(writer, status));
    return ct_store_manifest_json(store, &writer->store, status);
}

static ct_code put_tensor(ct_delta_writer *writer, const char *name, const char *type, size_t rows, size_t columns, const void *data,
                          size_t bytes, ct_status *status) {
    char hex[20];
    (void)snprintf(hex, sizeof hex, "%016llx", (unsigned long long)ct_hash64(data, bytes, 0));
    json_t *json = json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "name", name, "type", type, "rows", (json_int_t)rows, "columns",
                             (json_int_t)columns, "offset", (json_int_t)ct_file_writer_position(writer->file), "xxh3", hex);
    if (json_array_append_new(writer->tensors, json) != 0) return ct_fail_memory(status, 1024, "a delta");
    return ct_file_writer_write(writer->file, data, bytes, status);
}

ct_code ct_delta_writer_tensor(ct_delta_writer *writer, const char *name, bool f64, size_t rows, size_t columns, const void *data,
                               ct_status *status) {
    return put_tensor(writer, name, f64 ? "F64" : "F32", rows, columns, data, rows * columns * (f64 ? sizeof(double) : sizeof(float)),
                      status);
}

ct_code ct_delta_writer_words(ct_delta_writer *writer, const char *name, const uint64_t *words, size_t count, ct_status *status) {
    if (json_array_append_new(writer->requires, json_string(name)) != 0) return ct_fail_memory(status, 64, "a delta");
    return put_tensor(writer, name, "U64", 1, count, words, count * sizeof *words, status);
}

ct_code ct_delta_writer_commit(ct_delta_writer *writer, json_t *facts, uint64_t *out_bytes, ct_status *status) {
    char head[CT_DELTA_HEAD_BYTES] = "CTDELTA1", *text = NULL;
    ct_code code = CT_OK;
    json_t *json =
        json_pack("{s:s, s:i, s:i, s:O}", "format", "clicktower delta", "version", 1, "least_reader", 1, "requires", writer->requires);
    if (!json || json_object_update(json, facts) != 0 || json_object_set(json, "store", writer->store) != 0 ||
        json_object_set(json, "sections", writer->sections) != 0 || json_object_set(json, "tensors", writer->tensors) != 0 ||
        !(text = json_dumps(json, JSON_COMPACT))) {
        code = ct_fail_memory(status, 4096, "a delta");
        goto done;
    }
    const uint64_t at = ct_file_writer_position(writer->file), bytes = at + strlen(text);
    ct_put_le64(head + 8, bytes);
    ct_put_le64(head + 16, at);
    ct_put_le64(head + 24, ct_hash64(text, strlen(text), 0));
    ct_put_le64(head + 32, ct_hash64(head, 32, 0));
    CT_TRY_GOTO(code, ct_file_writer_write(writer->file, text, strlen(text), status), done);
    CT_TRY_GOTO(code, ct_file_writer_overwrite(writer->file, 0, head, sizeof head, status), done);
    code = ct_file_writer_commit(writer->file, status);
    writer->file = NULL;
    if (code == CT_OK) *out_bytes = bytes;
done:
    json_decref(json);
    free(text);
    ct_delta_writer_abort(writer);
    return code;
}
