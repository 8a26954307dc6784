/* Reading a delta (delta.h): nothing is believed before its hash was seen. Behind it: a store that trains is taken on. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
#include "base/pause.h"
#include "embedding_store/delta_internal.h"
#include "embedding_store/filter.h"

enum { VERSION = 1, DESCRIPTION_MAX_BYTES = 64 << 20, BLOCK_MAX_BYTES = CT_DELTA_BLOCK_BYTES + CT_RECORD_MAX_BYTES + 64 };

static ct_code read_at(const ct_delta *delta, uint64_t offset, void *to, size_t bytes, ct_status *status) {
    if (offset > delta->bytes || bytes > delta->bytes - offset)
        return ct_fail(status, CT_CORRUPT, "%s: bytes %llu to %llu are asked for, but it has %llu", delta->path, (unsigned long long)offset,
                       (unsigned long long)(offset + bytes), (unsigned long long)delta->bytes);
    return ct_file_read_at(delta->fd, delta->path, offset, to, bytes, status);
}

static ct_code read_description(ct_delta *delta, const char *head, ct_status *status) {
    const uint64_t at = ct_get_le64(head + 16), bytes = delta->bytes - at;
    if (at < CT_DELTA_HEAD_BYTES || at >= delta->bytes || bytes > DESCRIPTION_MAX_BYTES)
        return ct_fail(status, CT_CORRUPT, "%s: the description lies at %llu of %llu bytes", delta->path, (unsigned long long)at,
                       (unsigned long long)delta->bytes);
    char *text = malloc(bytes);
    if (!text) return ct_fail_memory(status, bytes, "a delta's description");
    ct_code code = read_at(delta, at, text, bytes, status);
    if (code == CT_OK && ct_hash64(text, bytes, 0) != ct_get_le64(head + 24))
        code = ct_fail(status, CT_CORRUPT, "%s: the description is not what was written; copy the file again", delta->path);
    if (code == CT_OK) code = ct_json_parse(text, bytes, delta->path, &delta->description, status);
    free(text);
    return code;
}

static ct_code check_version(const ct_delta *delta, ct_status *status) {
    const char *format = NULL;
    int64_t least = 0;
    json_t *requires = NULL;
    CT_TRY(ct_json_get_string(delta->description, "format", delta->path, &format, status));
    if (strcmp(format, "clicktower delta") != 0) return ct_fail(status, CT_CORRUPT, "%s: format is '%s'", delta->path, format);
    CT_TRY(ct_json_get_i64(delta->description, "least_reader", delta->path, &least, status));
    if (least > VERSION)
        return ct_fail(status, CT_UNSUPPORTED, "%s: needs a reader of version %lld; this one has %d", delta->path, (long long)least,
                       VERSION);
    CT_TRY(ct_json_get_array(delta->description, "requires", delta->path, &requires, status));
    for (size_t i = 0; i < json_array_size(requires); i++) {
        const char *name = json_string_value(json_array_get(requires, i));
        if (!name || strcmp(name, "histories") != 0)
            return ct_fail(status, CT_UNSUPPORTED, "%s: requires the unknown feature %s", delta->path, name ? name : "(no text)");
    }
    return CT_OK;
}

static ct_code read_section(const ct_delta *delta, const json_t *json, ct_delta_section *out, ct_status *status) {
    int64_t table, offset, bytes;
    CT_TRY(ct_json_get_i64(json, "table", delta->path, &table, status));
    CT_TRY(ct_json_get_i64(json, "offset", delta->path, &offset, status));
    CT_TRY(ct_json_get_i64(json, "bytes", delta->path, &bytes, status));
    CT_TRY(ct_json_get_i64(json, "blocks", delta->path, &out->blocks, status));
    CT_TRY(ct_json_get_i64(json, "records", delta->path, &out->records, status));
    if (table < 0 || (size_t)table >= delta->stored_count || delta->stored[table].spec.kind != CT_TABLE_TRAINED)
        return ct_fail(status, CT_CORRUPT, "%s: a section is of table %lld of %zu", delta->path, (long long)table, delta->stored_count);
    out->table = (size_t)table;
    out->filter = json_is_true(json_object_get(json, "filter"));
    out->offset = (uint64_t)offset;
    out->bytes = (uint64_t)bytes;
    return CT_OK;
}

ct_code ct_delta_open(const char *path, ct_delta **out_delta, ct_status *status) {
    char head[CT_DELTA_HEAD_BYTES];
    struct stat found;
    json_t *sections = NULL;
    ct_code code = CT_OK;
    ct_delta *delta = calloc(1, sizeof *delta);
    if (!delta) return ct_fail_memory(status, sizeof *delta, "a delta");
    delta->path = strdup(path);
    delta->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!delta->path || delta->fd < 0 || fstat(delta->fd, &found) != 0) {
        code = delta->path ? ct_fail_errno(status, "%s: cannot open", path) : ct_fail_memory(status, strlen(path), "a path");
        goto fail;
    }
    const uint64_t size = (uint64_t)found.st_size;
    if (size < sizeof head) {
        code = ct_fail(status, CT_UNAVAILABLE, "%s: %llu bytes are there yet", path, (unsigned long long)size);
        goto fail;
    }
    delta->bytes = sizeof head;
    CT_TRY_GOTO(code, read_at(delta, 0, head, sizeof head, status), fail);
    if (memcmp(head, "CTDELTA1", 8) != 0) {
        code = ct_fail(status, CT_CORRUPT, "%s: is no delta", path);
        goto fail;
    }
    if (ct_hash64(head, 32, 0) != ct_get_le64(head + 32)) {
        code = ct_fail(status, CT_CORRUPT, "%s: its head is not what was written; copy the file again", path);
        goto fail;
    }
    delta->bytes = ct_get_le64(head + 8);
    if (size != delta->bytes) {
        code = ct_fail(status, size < delta->bytes ? CT_UNAVAILABLE : CT_CORRUPT, "%s: has %llu of %llu bytes", path,
                       (unsigned long long)size, (unsigned long long)delta->bytes);
        goto fail;
    }
    CT_TRY_GOTO(code, read_description(delta, head, status), fail);
    CT_TRY_GOTO(code, check_version(delta, status), fail);
    CT_TRY_GOTO(code,
                ct_store_manifest_parse(json_object_get(delta->description, "store"), path, &delta->stored, &delta->stored_count, status),
                fail);
    CT_TRY_GOTO(code, ct_json_get_array(delta->description, "tensors", path, &delta->tensors, status), fail);
    CT_TRY_GOTO(code, ct_json_get_array(delta->description, "sections", path, &sections, status), fail);
    delta->section_count = json_array_size(sections);
    delta->sections = calloc(delta->section_count + 1, sizeof *delta->sections);
    if (!delta->sections) {
        code = ct_fail_memory(status, delta->section_count * sizeof *delta->sections, "a delta's sections");
        goto fail;
    }
    for (size_t i = 0; i < delta->section_count; i++)
        CT_TRY_GOTO(code, read_section(delta, json_array_get(sections, i), &delta->sections[i], status), fail);
    *out_delta = delta;
    return CT_OK;
fail:
    ct_delta_close(delta);
    return code;
}

void ct_delta_close(ct_delta *delta) {
    if (!delta) return;
    if (delta->fd >= 0) (void)close(delta->fd);
    json_decref(delta->description);
    free(delta->stored);
    free(delta->sections);
    free(delta->path);
    free(delta);
}

const json_t *ct_delta_description(const ct_delta *delta) { return delta->description; }
const char *ct_delta_path(const ct_delta *delta) { return delta->path; }
uint64_t ct_delta_bytes(const ct_delta *delta) { return delta->bytes; }

int64_t ct_delta_records(const ct_delta *delta) {
    int64_t records = 0;
    for (size_t i = 0; i < delta->section_count; i++)
        if (!delta->sections[i].filter) records += delta->sections[i].records;
    return records;
}

/* --- records --- */

static ct_code fail_block(const ct_delta *delta, const ct_delta_section *section, uint64_t at, const char *what, ct_status *status) {
    return ct_fail(status, CT_CORRUPT, "%s: the block of table %s at byte %llu %s; copy the file again", delta->path,
                   delta->stored[section->table].spec.name, (unsigned long long)at, what);
}

/* The records of one block, which was checked. *last: the key before, where any was. */
static ct_code scan_block(const ct_delta *delta, const ct_delta_section *section, uint64_t at, const char *payload, size_t bytes,
                          uint32_t records, bool *any, uint64_t *last, ct_delta_fn function, void *context, ct_status *status) {
    const ct_stored_table *stored = &delta->stored[section->table];
    size_t used = 0;
    for (uint32_t i = 0; i < records; i++) {
        uint16_t size = 0;
        if (bytes - used < CT_DELTA_RECORD_HEAD_BYTES) return fail_block(delta, section, at, "ends in a record", status);
        const uint64_t key = ct_get_le64(payload + used);
        memcpy(&size, payload + used + 8, sizeof size);
        used += CT_DELTA_RECORD_HEAD_BYTES;
        if (size > bytes - used) return fail_block(delta, section, at, "ends in a record", status);
        if (*any && key <= *last) return fail_block(delta, section, at, "is not in the order of keys", status);
        bool row = false;
        if (section->filter && size != CT_FILTER_LINE_BYTES)
            return fail_block(delta, section, at, "holds what is no line of a filter", status);
        if (!section->filter && size && ct_record_check(stored, payload + used, size, &row, status) != CT_OK)
            return ct_fail_within(status, "%s", delta->path);
        if (function) CT_TRY(function(context, section->table, key, size ? payload + used : NULL, row, status));
        used += size;
        *any = true;
        *last = key;
    }
    return used == bytes ? CT_OK : fail_block(delta, section, at, "has bytes behind its records", status);
}

static ct_code scan_section(const ct_delta *delta, const ct_delta_section *section, char *block, ct_delta_fn function, void *context,
                            ct_status *status) {
    uint64_t at = section->offset, last = 0;
    int64_t records = 0;
    bool any = false;
    for (int64_t i = 0; i < section->blocks; i++) {
        CT_TRY(read_at(delta, at, block, 8, status));
        const uint32_t bytes = ct_get_le32(block), count = ct_get_le32(block + 4);
        if (bytes > BLOCK_MAX_BYTES) return fail_block(delta, section, at, "is not what was written", status);
        CT_TRY(read_at(delta, at + 8, block + 8, bytes + 8, status));
        if (ct_delta_block_hash(block, bytes, section) != ct_get_le64(block + 8 + bytes))
            return fail_block(delta, section, at, "is not what was written", status);
        CT_TRY(scan_block(delta, section, at, block + 8, bytes, count, &any, &last, function, context, status));
        at += 8 + bytes + 8;
        records += count;
        ct_pause_point();
    }
    if (at == section->offset + section->bytes && records == section->records) return CT_OK;
    return ct_fail(status, CT_CORRUPT, "%s: table %s has %lld records in %llu bytes, the description says %lld in %llu", delta->path,
                   delta->stored[section->table].spec.name, (long long)records, (unsigned long long)(at - section->offset),
                   (long long)section->records, (unsigned long long)section->bytes);
}

ct_code ct_delta_scan(const ct_delta *delta, bool filters, ct_delta_fn function, void *context, ct_status *status) {
    char *block = malloc(8 + BLOCK_MAX_BYTES + 8);
    ct_code code = CT_OK;
    if (!block) return ct_fail_memory(status, BLOCK_MAX_BYTES, "a delta's block");
    for (size_t i = 0; i < delta->section_count && code == CT_OK; i++)
        if (delta->sections[i].filter == filters) code = scan_section(delta, &delta->sections[i], block, function, context, status);
    free(block);
    return code;
}

/* --- tensors --- */

static ct_code read_tensor(const ct_delta *delta, const json_t *json, void *data, size_t bytes, ct_status *status) {
    const char *name = NULL, *hex = NULL;
    int64_t offset = 0;
    char found[20];
    CT_TRY(ct_json_get_string(json, "name", delta->path, &name, status));
    CT_TRY(ct_json_get_string(json, "xxh3", delta->path, &hex, status));
    CT_TRY(ct_json_get_i64(json, "offset", delta->path, &offset, status));
    CT_TRY(read_at(delta, (uint64_t)offset, data, bytes, status));
    (void)snprintf(found, sizeof found, "%016llx", (unsigned long long)ct_hash64(data, bytes, 0));
    if (strcmp(found, hex) == 0) return CT_OK;
    return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' at byte %lld is not what was written; copy the file again", delta->path, name,
                   (long long)offset);
}

static ct_code tensor_bytes(const ct_delta *delta, const json_t *json, size_t *out_bytes, ct_status *status) {
    const char *type = NULL;
    int64_t rows = 0, columns = 0;
    CT_TRY(ct_json_get_string(json, "type", delta->path, &type, status));
    CT_TRY(ct_json_get_i64(json, "rows", delta->path, &rows, status));
    CT_TRY(ct_json_get_i64(json, "columns", delta->path, &columns, status));
    const uint64_t each = strcmp(type, "F32") == 0 ? 4 : 8;
    if (rows < 0 || columns < 0 || (uint64_t)rows > delta->bytes || (uint64_t)columns > delta->bytes / each ||
        (uint64_t)rows * (uint64_t)columns > delta->bytes / each)
        return ct_fail(status, CT_CORRUPT, "%s: a tensor of %lld x %lld", delta->path, (long long)rows, (long long)columns);
    *out_bytes = (size_t)((uint64_t)rows * (uint64_t)columns * each);
    return CT_OK;
}

ct_code ct_delta_tensor(const ct_delta *delta, const char *name, bool f64, size_t rows, size_t columns, void *data, ct_status *status) {
    for (size_t i = 0; i < json_array_size(delta->tensors); i++) {
        const json_t *json = json_array_get(delta->tensors, i);
        const char *other = json_string_value(json_object_get(json, "name")), *type = json_string_value(json_object_get(json, "type"));
        if (!other || strcmp(other, name) != 0) continue;
        const json_int_t its_rows = json_integer_value(json_object_get(json, "rows"));
        const json_int_t its_columns = json_integer_value(json_object_get(json, "columns"));
        if (!type || strcmp(type, f64 ? "F64" : "F32") != 0 || its_rows != (json_int_t)rows || its_columns != (json_int_t)columns)
            return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' is %s %lld x %lld; the model needs %s %zu x %zu", delta->path, name,
                           type ? type : "?", (long long)its_rows, (long long)its_columns, f64 ? "F64" : "F32", rows, columns);
        return read_tensor(delta, json, data, rows * columns * (f64 ? sizeof(double) : sizeof(float)), status);
    }
    return ct_fail(status, CT_CORRUPT, "%s: tensor '%s' is missing", delta->path, name);
}

ct_code ct_delta_words(const ct_delta *delta, const char *name, uint64_t **out_words, size_t *out_count, ct_status *status) {
    for (size_t i = 0; i < json_array_size(delta->tensors); i++) {
        const json_t *json = json_array_get(delta->tensors, i);
        const char *other = json_string_value(json_object_get(json, "name")), *type = json_string_value(json_object_get(json, "type"));
        size_t bytes = 0;
        if (!other || !type || strcmp(other, name) != 0 || strcmp(type, "U64") != 0) continue;
        CT_TRY(tensor_bytes(delta, json, &bytes, status));
        uint64_t *words = malloc(bytes + 1);
        if (!words) return ct_fail_memory(status, bytes, name);
        const ct_code code = read_tensor(delta, json, words, bytes, status);
        if (code != CT_OK) {
            free(words);
            return code;
        }
        *out_words = words;
        *out_count = bytes / sizeof *words;
        return CT_OK;
    }
    return ct_fail(status, CT_CORRUPT, "%s: '%s' is missing", delta->path, name);
}

ct_code ct_delta_check(const ct_delta *delta, ct_status *status) {
    CT_TRY(ct_delta_scan(delta, false, NULL, NULL, status));
    CT_TRY(ct_delta_scan(delta, true, NULL, NULL, status));
    for (size_t i = 0; i < json_array_size(delta->tensors); i++) {
        const json_t *json = json_array_get(delta->tensors, i);
        size_t bytes = 0;
        CT_TRY(tensor_bytes(delta, json, &bytes, status));
        void *data = malloc(bytes + 1);
        if (!data) return ct_fail_memory(status, bytes, "a tensor");
        const ct_code code = read_tensor(delta, json, data, bytes, status);
        free(data);
        CT_TRY(code);
    }
    return CT_OK;
}

/* --- a store that trains --- */

ct_code ct_delta_check_tables(const ct_delta *delta, const ct_store *store, ct_status *status) {
    bool same = delta->stored_count == store->table_count;
    for (size_t i = 0; same && i < store->table_count; i++) {
        const ct_table_spec *a = &delta->stored[i].spec, *b = &store->tables[i].spec;
        same = strcmp(a->name, b->name) == 0 && a->kind == b->kind && a->dim == b->dim && a->optimiser == b->optimiser &&
               a->target_stats == b->target_stats && a->expire_days == b->expire_days && a->filter_mib == b->filter_mib &&
               a->precision == b->precision && strcmp(a->content_hash, b->content_hash) == 0;
    }
    return same ? CT_OK : ct_fail(status, CT_INVALID, "%s: its tables are not those of the model", delta->path);
}

typedef struct applying {
    ct_store *store;
    const ct_delta *delta;
} applying;

static ct_code apply_record(void *context, size_t number, uint64_t key, const char *record, bool row, ct_status *status) {
    const applying *work = context;
    ct_table *table = &work->store->tables[number];
    ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    ct_index_entry *entry = ct_partition_find(partition, key);
    if (entry && entry->slot != CT_SLOT_STUB && !row) CT_TRY(ct_partition_drop_row(partition, entry, status));
    if (!record) {
        if (entry) ct_partition_remove(partition, ct_partition_place(partition, entry));
        return CT_OK;
    }
    if (!entry) CT_TRY(ct_partition_claim(table, partition, key, &entry, status));
    return ct_record_decode(table, partition, &work->delta->stored[number], record, row, entry, status);
}

static ct_code apply_line(void *context, size_t number, uint64_t line, const char *cells, bool row, ct_status *status) {
    const applying *work = context;
    ct_filter *filter = work->store->tables[number].filter;
    (void)row;
    if (!filter || line >= ct_filter_line_count(filter))
        return ct_fail(status, CT_CORRUPT, "%s: line %llu is none of the filter of table %s", work->delta->path, (unsigned long long)line,
                       work->store->tables[number].spec.name);
    memcpy(filter->lines + line * CT_FILTER_LINE_BYTES, cells, CT_FILTER_LINE_BYTES);
    return CT_OK;
}

ct_code ct_store_apply_delta(ct_store *store, const ct_delta *delta, ct_status *status) {
    if (store->mode != CT_STORE_TRAIN || store->tier)
        return ct_fail(status, CT_INVALID, "%s: only a store for training, all in memory, is taken on", delta->path);
    CT_TRY(ct_delta_check_tables(delta, store, status));
    for (size_t i = 0; i < store->table_count; i++) {
        if (!store->tables[i].spec.expire_days) continue;
        ct_table_set_day(&store->tables[i], delta->stored[i].first_day, delta->stored[i].today);
        CT_TRY(ct_expire_rows(store, &store->tables[i], status));
        store->tables[i].expired = delta->stored[i].expired;
    }
    applying work = {store, delta};
    CT_TRY(ct_delta_scan(delta, false, apply_record, &work, status));
    CT_TRY(ct_delta_scan(delta, true, apply_line, &work, status));
    for (size_t i = 0; i < store->table_count; i++) {
        const ct_stored_table *stored = &delta->stored[i];
        ct_table_info info;
        store->tables[i].counted_epoch = stored->counted_epoch;
        ct_store_table_info(store, i, &info);
        if (info.rows != stored->rows || info.stubs != stored->stubs)
            return ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs afterwards; it should have %lld and %lld",
                           delta->path, stored->spec.name, (long long)info.rows, (long long)info.stubs, (long long)stored->rows,
                           (long long)stored->stubs);
    }
    return CT_OK;
}
