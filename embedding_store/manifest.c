/* store.json: what the tables of a snapshot are and how a row's value is laid out, so that columns are found by name.
 *
 *     {"format": "clicktower store", "version": 1, "least_reader": 1, "requires": [],
 *      "tables": [{"name": "ids", "kind": "trained", "dim": 16, "optimiser": "adagrad_rowwise", "learning_rate": 0.05,
 *                  "l2": 0.0, "initial_accumulator": 0.01, "first_value_scale": 0.01, "seed": "0x2a", "min_count": 1, "rows": 10,
 *                  "stubs": 2,
 *                  "columns": [{"name": "count", "type": "u32", "count": 1}, {"name": "admitted", "type": "u8", "count": 1},
 *                              {"name": "accumulator", "type": "f32", "count": 1}, {"name": "value", "type": "f32", "count": 16}]},
 *                 {"name": "text", "kind": "frozen", "dim": 8, "content_hash": "", "rows": 3, "stubs": 0,
 *                  "columns": [{"name": "value", "type": "f32", "count": 8}]}],
 *      "checksum": "0123456789abcdef"}
 *
 * checksum: XXH3 (64 bits, seed 0) of the object without it, members in the file's order, without blanks: what the tables are decides how
 * training goes on, and a flipped digit would still be JSON. The sorted files have RocksDB's checksums.
 *
 * Row optimisers: "adagrad_rowwise", "adagrad" (both with an initial_accumulator), "sgd", "adam" (beta1, beta2, epsilon); the columns of
 * their state are those of ct_state_columns. A table with target statistics says "target_stats": true and "counted_epoch", the last epoch
 * that was counted, and has the columns "impressions", "clicks" and "epoch" (u32) behind `admitted`; then "requires" names "target_stats".
 * A table that expires says "expire_days", "first_day" and "day" (where the log began and what it has come to, since 1970) and "expired"
 * (rows so far), and has the column "day" (u32: on which the key was last seen, or first_day, if that is later) before the state; then
 * "requires" names "expiry". Its files may hold rows that have expired; they are as if they were not there, and "rows" and "stubs" do not
 * count them.
 *
 * A table whose keys without a row are counted by a filter says its size, "filter_mib", has no stubs, and a file table-NUMBER.filter beside
 * this one (filter.h); then "requires" names "admission_filter".
 *
 * A value holds the columns in this order, little-endian, without gaps. Where `admitted` is 0 it is a stub and ends before the state.
 * A table whose rows are halves says "precision": "fp16"; its column "value" is of type f16, and "requires" names "fp16_rows".
 * Columns that a reader does not know are skipped; missing state is the initial one. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "embedding_store/store_internal.h"

enum { VERSION = 1, MAX_COLUMNS = 64, MAX_COLUMN_COUNT = 1 << 20 };

static const char FORMAT[] = "clicktower store";

static const char TARGET_STATS[] = "target_stats", EXPIRY[] = "expiry", FP16_ROWS[] = "fp16_rows",
                  FILTER[] = "admission_filter"; /* features that a reader may have to know */

static int add_column(json_t *columns, const char *name, const char *type, uint32_t count) {
    return json_array_append_new(columns, json_pack("{s:s, s:s, s:I}", "name", name, "type", type, "count", (json_int_t)count));
}

static int describe_optimiser(const ct_table_spec *spec, json_t *table) {
    switch (spec->optimiser) {
        case CT_ROW_ADAGRAD_ROWWISE:
        case CT_ROW_ADAGRAD:
            return json_object_set_new(table, "initial_accumulator", json_real((double)spec->initial_accumulator));
        case CT_ROW_ADAM:
            return json_object_set_new(table, "beta1", json_real((double)spec->beta1)) |
                   json_object_set_new(table, "beta2", json_real((double)spec->beta2)) |
                   json_object_set_new(table, "epsilon", json_real((double)spec->epsilon));
        case CT_ROW_SGD:
            break;
    }
    return 0;
}

static json_t *describe_table(const ct_store *store, size_t number) {
    const ct_table_spec *spec = ct_store_table(store, number);
    const bool trained = spec->kind == CT_TABLE_TRAINED;
    ct_table_info info;
    ct_store_table_info(store, number, &info);
    json_t *table = json_pack("{s:s, s:s, s:I}", "name", spec->name, "kind", trained ? "trained" : "frozen", "dim", (json_int_t)spec->dim);
    json_t *columns = json_array();
    int bad = !table || !columns;
    if (!bad && trained) {
        char seed[24];
        (void)snprintf(seed, sizeof seed, "0x%llx", (unsigned long long)spec->seed);
        bad |= json_object_set_new(table, "optimiser", json_string(ct_row_optimiser_name(spec->optimiser)));
        bad |= json_object_set_new(table, "learning_rate", json_real((double)spec->learning_rate));
        bad |= json_object_set_new(table, "l2", json_real((double)spec->l2));
        bad |= describe_optimiser(spec, table);
        bad |= json_object_set_new(table, "first_value_scale", json_real((double)spec->first_value_scale));
        bad |= json_object_set_new(table, "seed", json_string(seed));
        bad |= json_object_set_new(table, "min_count", json_integer((json_int_t)spec->min_count));
        if (spec->filter_mib) bad |= json_object_set_new(table, "filter_mib", json_integer((json_int_t)spec->filter_mib));
        bad |= add_column(columns, "count", "u32", 1);
        bad |= add_column(columns, "admitted", "u8", 1);
        if (spec->target_stats) {
            bad |= json_object_set_new(table, TARGET_STATS, json_true());
            bad |= json_object_set_new(table, "counted_epoch", json_integer((json_int_t)store->tables[number].counted_epoch));
            bad |= add_column(columns, "impressions", "u32", 1);
            bad |= add_column(columns, "clicks", "u32", 1);
            bad |= add_column(columns, "epoch", "u32", 1);
        }
        if (spec->expire_days) {
            bad |= json_object_set_new(table, "expire_days", json_integer((json_int_t)spec->expire_days));
            bad |= json_object_set_new(table, "first_day", json_integer((json_int_t)store->tables[number].first_day));
            bad |= json_object_set_new(table, "day", json_integer((json_int_t)store->tables[number].day));
            bad |= json_object_set_new(table, "expired", json_integer(info.expired));
            bad |= add_column(columns, "day", "u32", 1);
        }
        ct_state_column state[CT_STATE_COLUMNS];
        const size_t count = ct_state_columns(spec, state);
        for (size_t i = 0; i < count; i++) bad |= add_column(columns, state[i].name, state[i].type, state[i].count);
    } else if (!bad) {
        bad |= json_object_set_new(table, "content_hash", json_string(spec->content_hash));
    }
    if (!bad) {
        bad |= json_object_set_new(table, "rows", json_integer(info.rows));
        bad |= json_object_set_new(table, "stubs", json_integer(info.stubs));
        if (spec->precision == CT_ROW_FP16) bad |= json_object_set_new(table, "precision", json_string("fp16"));
        bad |= add_column(columns, "value", spec->precision == CT_ROW_FP16 ? "f16" : "f32", spec->dim);
        bad |= json_object_set(table, "columns", columns);
    }
    json_decref(columns);
    if (!bad) return table;
    json_decref(table);
    return NULL;
}

enum { CHECKSUM_BYTES = 17 };

static ct_code checksum(const json_t *json, char out_hex[CHECKSUM_BYTES], ct_status *status) {
    json_t *content = json_copy((json_t *)(uintptr_t)json); /* jansson's copy takes no const; the members are shared, not changed */
    if (content) (void)json_object_del(content, "checksum");
    char *text = content ? json_dumps(content, JSON_COMPACT) : NULL;
    json_decref(content);
    if (!text) return ct_fail_memory(status, 1024, "the checksum of store.json");
    (void)snprintf(out_hex, CHECKSUM_BYTES, "%016llx", (unsigned long long)ct_hash64(text, strlen(text), 0));
    free(text);
    return CT_OK;
}

ct_code ct_store_manifest_json(const ct_store *store, json_t **out_json, ct_status *status) {
    json_t *tables = json_array(), *requires = json_array();
    json_t *json = json_pack("{s:s, s:i, s:i, s:O, s:O}", "format", FORMAT, "version", VERSION, "least_reader", VERSION, "requires",
                             requires, "tables", tables);
    ct_code code = CT_OK;
    bool counted = false, expires = false, halves = false, filtered = false;
    for (size_t i = 0; i < store->table_count; i++) {
        counted |= store->tables[i].spec.target_stats;
        expires |= store->tables[i].spec.expire_days > 0;
        halves |= store->tables[i].spec.precision == CT_ROW_FP16;
        filtered |= store->tables[i].spec.filter_mib > 0;
    }
    if (!json || (counted && json_array_append_new(requires, json_string(TARGET_STATS)) != 0) ||
        (expires && json_array_append_new(requires, json_string(EXPIRY)) != 0) ||
        (halves && json_array_append_new(requires, json_string(FP16_ROWS)) != 0) ||
        (filtered && json_array_append_new(requires, json_string(FILTER)) != 0))
        code = ct_fail_memory(status, 1024, "store.json");
    for (size_t i = 0; i < store->table_count && code == CT_OK; i++)
        if (json_array_append_new(tables, describe_table(store, i)) != 0) code = ct_fail_memory(status, 1024, "store.json");
    char hex[CHECKSUM_BYTES];
    if (code == CT_OK) code = checksum(json, hex, status);
    if (code == CT_OK && json_object_set_new(json, "checksum", json_string(hex)) != 0) code = ct_fail_memory(status, 1024, "store.json");
    json_decref(tables);
    json_decref(requires);
    if (code == CT_OK)
        *out_json = json;
    else
        json_decref(json);
    return code;
}

/* --- reading --- */

static ct_code get_f32(const json_t *table, const char *member, const char *path, float *out, ct_status *status) {
    double value;
    CT_TRY(ct_json_get_f64(table, member, path, &value, status));
    if (!(value >= -3.0e38 && value <= 3.0e38)) return ct_fail(status, CT_CORRUPT, "%s: %s is %g", path, member, value);
    *out = (float)value;
    return CT_OK;
}

static ct_code read_column(const json_t *column, const char *path, ct_stored_table *out, uint32_t *offset, ct_status *status) {
    const char *name, *type;
    int64_t count;
    CT_TRY(ct_json_get_string(column, "name", path, &name, status));
    CT_TRY(ct_json_get_string(column, "type", path, &type, status));
    CT_TRY(ct_json_get_range(column, "count", path, 1, MAX_COLUMN_COUNT, &count, status));
    uint32_t bytes;
    if (strcmp(type, "f32") == 0 || strcmp(type, "u32") == 0)
        bytes = 4;
    else if (strcmp(type, "f16") == 0)
        bytes = 2;
    else if (strcmp(type, "u8") == 0)
        bytes = 1;
    else if (strcmp(type, "u64") == 0)
        bytes = 8;
    else
        return ct_fail(status, CT_UNSUPPORTED, "%s: column %s of table %s has the unknown type %s", path, name, out->spec.name, type);
    const bool trained = out->spec.kind == CT_TABLE_TRAINED, counted = out->spec.target_stats, expires = out->spec.expire_days > 0;
    struct {
        const char *name, *type;
        uint32_t count;
        ct_stored_column *column; /* NULL = this table has none */
    } known[7 + CT_STATE_COLUMNS] = {{"count", "u32", 1, trained ? &out->count : NULL},
                                     {"admitted", "u8", 1, trained ? &out->admitted : NULL},
                                     {"impressions", "u32", 1, counted ? &out->impressions : NULL},
                                     {"clicks", "u32", 1, counted ? &out->clicks : NULL},
                                     {"epoch", "u32", 1, counted ? &out->epoch : NULL},
                                     {"day", "u32", 1, expires ? &out->day : NULL},
                                     {"value", out->spec.precision == CT_ROW_FP16 ? "f16" : "f32", out->spec.dim, &out->value}};
    ct_state_column state[CT_STATE_COLUMNS];
    const size_t states = ct_state_columns(&out->spec, state);
    for (size_t i = 0; i < states; i++) {
        known[7 + i].name = state[i].name;
        known[7 + i].type = state[i].type;
        known[7 + i].count = state[i].count;
        known[7 + i].column = &out->state[i];
    }
    for (size_t i = 0; i < 7 + states; i++) {
        if (strcmp(name, known[i].name) != 0 || !known[i].column) continue;
        if (strcmp(type, known[i].type) != 0 || count != known[i].count || known[i].column->present)
            return ct_fail(status, CT_CORRUPT, "%s: column %s of table %s should be once %u %s", path, name, out->spec.name, known[i].count,
                           known[i].type);
        *known[i].column = (ct_stored_column){true, *offset};
    }
    *offset += (uint32_t)count * bytes;
    return CT_OK;
}

static ct_code read_optimiser(const json_t *table, const char *path, ct_table_spec *spec, ct_status *status) {
    const char *optimiser;
    CT_TRY(ct_json_get_string(table, "optimiser", path, &optimiser, status));
    if (!ct_row_optimiser_find(optimiser, &spec->optimiser))
        return ct_fail(status, CT_UNSUPPORTED, "%s: table %s has the unknown row optimiser %s", path, spec->name, optimiser);
    CT_TRY(get_f32(table, "learning_rate", path, &spec->learning_rate, status));
    if (json_object_get(table, "l2")) CT_TRY(get_f32(table, "l2", path, &spec->l2, status));
    switch (spec->optimiser) {
        case CT_ROW_ADAGRAD_ROWWISE:
        case CT_ROW_ADAGRAD:
            return get_f32(table, "initial_accumulator", path, &spec->initial_accumulator, status);
        case CT_ROW_ADAM:
            CT_TRY(get_f32(table, "beta1", path, &spec->beta1, status));
            CT_TRY(get_f32(table, "beta2", path, &spec->beta2, status));
            return get_f32(table, "epsilon", path, &spec->epsilon, status);
        case CT_ROW_SGD:
            break;
    }
    return CT_OK;
}

/* A stub's value is that of a row as far as the columns that it has: these come first, in this order. */
static ct_code check_stub_columns(const char *path, ct_stored_table *out, ct_status *status) {
    if (!out->count.present || !out->admitted.present || out->count.offset != 0 || out->admitted.offset != 4)
        return ct_fail(status, CT_CORRUPT, "%s: the rows of table %s should begin with count and admitted", path, out->spec.name);
    out->stub_bytes = 5;
    if (out->spec.target_stats) {
        if (!out->impressions.present || !out->clicks.present || !out->epoch.present || out->impressions.offset != 5 ||
            out->clicks.offset != 9 || out->epoch.offset != 13)
            return ct_fail(status, CT_CORRUPT, "%s: impressions, clicks and epoch should follow in the rows of table %s", path,
                           out->spec.name);
        out->stub_bytes = 17;
    }
    if (out->spec.expire_days) {
        if (!out->day.present || out->day.offset != out->stub_bytes)
            return ct_fail(status, CT_CORRUPT, "%s: day should follow in the rows of table %s", path, out->spec.name);
        out->stub_bytes += 4;
    }
    return CT_OK;
}

static ct_code read_table(const json_t *table, const char *path, ct_stored_table *out, ct_status *status) {
    memset(out, 0, sizeof *out);
    ct_table_spec *spec = &out->spec;
    const char *name, *kind;
    int64_t value;
    CT_TRY(ct_json_get_string(table, "name", path, &name, status));
    if (!name[0] || strlen(name) >= sizeof spec->name) return ct_fail(status, CT_CORRUPT, "%s: a table's name is empty or too long", path);
    memcpy(spec->name, name, strlen(name));
    CT_TRY(ct_json_get_string(table, "kind", path, &kind, status));
    CT_TRY(ct_json_get_range(table, "dim", path, 1, CT_TABLE_MAX_DIM, &value, status));
    spec->dim = (uint32_t)value;
    if (strcmp(kind, "trained") == 0) {
        const char *seed;
        char *end;
        spec->kind = CT_TABLE_TRAINED;
        CT_TRY(read_optimiser(table, path, spec, status));
        CT_TRY(get_f32(table, "first_value_scale", path, &spec->first_value_scale, status));
        const json_t *precision = json_object_get(table, "precision");
        if (precision && (!json_is_string(precision) || strcmp(json_string_value(precision), "fp16") != 0))
            return ct_fail(status, CT_UNSUPPORTED, "%s: table %s has an unknown precision", path, name);
        spec->precision = precision ? CT_ROW_FP16 : CT_ROW_FP32;
        spec->target_stats = json_is_true(json_object_get(table, TARGET_STATS));
        if (spec->target_stats) {
            CT_TRY(ct_json_get_range(table, "counted_epoch", path, 0, UINT32_MAX, &value, status));
            out->counted_epoch = (uint32_t)value;
        }
        if (json_object_get(table, "expire_days")) {
            CT_TRY(ct_json_get_range(table, "expire_days", path, 1, CT_TABLE_MAX_EXPIRE_DAYS, &value, status));
            spec->expire_days = (uint32_t)value;
            CT_TRY(ct_json_get_range(table, "day", path, 0, CT_DAY_NEVER - 1, &value, status));
            out->today = (uint32_t)value;
            CT_TRY(ct_json_get_range(table, "first_day", path, 0, out->today, &value, status));
            out->first_day = (uint32_t)value;
            CT_TRY(ct_json_get_range(table, "expired", path, 0, INT64_MAX, &out->expired, status));
        }
        CT_TRY(ct_json_get_string(table, "seed", path, &seed, status));
        spec->seed = strtoull(seed, &end, 16);
        if (strncmp(seed, "0x", 2) != 0 || !seed[2] || *end || strlen(seed) > 18)
            return ct_fail(status, CT_CORRUPT, "%s: the seed of table %s is no hexadecimal number", path, name);
        CT_TRY(ct_json_get_range(table, "min_count", path, 1, UINT32_MAX, &value, status));
        spec->min_count = (uint32_t)value;
        if (json_object_get(table, "filter_mib")) {
            CT_TRY(ct_json_get_range(table, "filter_mib", path, 1, CT_TABLE_MAX_FILTER_MIB, &value, status));
            spec->filter_mib = (uint32_t)value;
        }
    } else if (strcmp(kind, "frozen") == 0) {
        const char *hash;
        spec->kind = CT_TABLE_FROZEN;
        CT_TRY(ct_json_get_string(table, "content_hash", path, &hash, status));
        if (strlen(hash) >= sizeof spec->content_hash)
            return ct_fail(status, CT_CORRUPT, "%s: table %s: content_hash is too long", path, name);
        memcpy(spec->content_hash, hash, strlen(hash));
    } else {
        return ct_fail(status, CT_UNSUPPORTED, "%s: table %s has the unknown kind %s", path, name, kind);
    }
    CT_TRY(ct_json_get_range(table, "rows", path, 0, INT64_MAX / 2, &out->rows, status));
    CT_TRY(ct_json_get_range(table, "stubs", path, 0, INT64_MAX / 2, &out->stubs, status));
    json_t *columns;
    CT_TRY(ct_json_get_array(table, "columns", path, &columns, status));
    if (json_array_size(columns) > MAX_COLUMNS)
        return ct_fail(status, CT_CORRUPT, "%s: table %s has %zu columns", path, name, json_array_size(columns));
    for (size_t i = 0; i < json_array_size(columns); i++)
        CT_TRY(read_column(json_array_get(columns, i), path, out, &out->row_bytes, status));
    if (!out->value.present) return ct_fail(status, CT_CORRUPT, "%s: table %s has no column value", path, name);
    return spec->kind == CT_TABLE_TRAINED ? check_stub_columns(path, out, status) : CT_OK;
}

static ct_code read_header(const json_t *json, const char *path, ct_status *status) {
    const char *format;
    int64_t least_reader;
    json_t *features;
    CT_TRY(ct_json_get_string(json, "format", path, &format, status));
    if (strcmp(format, FORMAT) != 0) return ct_fail(status, CT_CORRUPT, "%s: format is not \"%s\"", path, FORMAT);
    CT_TRY(ct_json_get_i64(json, "least_reader", path, &least_reader, status));
    if (least_reader > VERSION)
        return ct_fail(status, CT_UNSUPPORTED, "%s: needs a reader of version %lld; this one has %d", path, (long long)least_reader,
                       VERSION);
    CT_TRY(ct_json_get_array(json, "requires", path, &features, status));
    for (size_t i = 0; i < json_array_size(features); i++) {
        const char *name = json_string_value(json_array_get(features, i));
        if (!name ||
            (strcmp(name, TARGET_STATS) != 0 && strcmp(name, EXPIRY) != 0 && strcmp(name, FP16_ROWS) != 0 && strcmp(name, FILTER) != 0))
            return ct_fail(status, CT_UNSUPPORTED, "%s: requires the unknown feature %s", path, name ? name : "(no text)");
    }
    const char *stored;
    char found[CHECKSUM_BYTES];
    CT_TRY(ct_json_get_string(json, "checksum", path, &stored, status));
    CT_TRY(checksum(json, found, status));
    if (strcmp(stored, found) != 0) return ct_fail(status, CT_CORRUPT, "%s: the checksum is %s, the content's is %s", path, stored, found);
    return CT_OK;
}

ct_code ct_store_manifest_parse(const json_t *json, const char *path, ct_stored_table **out_tables, size_t *out_count, ct_status *status) {
    json_t *tables;
    CT_TRY(read_header(json, path, status));
    CT_TRY(ct_json_get_array(json, "tables", path, &tables, status));
    const size_t count = json_array_size(tables);
    if (count > CT_STORE_MAX_TABLES)
        return ct_fail(status, CT_CORRUPT, "%s: %zu tables; %d are possible", path, count, CT_STORE_MAX_TABLES);
    ct_stored_table *stored = calloc(count ? count : 1, sizeof *stored);
    if (!stored) return ct_fail_memory(status, count * sizeof *stored, "store.json");
    ct_code code = CT_OK;
    for (size_t i = 0; i < count; i++) {
        CT_TRY_GOTO(code, read_table(json_array_get(tables, i), path, &stored[i], status), fail);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(stored[i].spec.name, stored[j].spec.name) != 0) continue;
            code = ct_fail(status, CT_CORRUPT, "%s: two tables are named %s", path, stored[i].spec.name);
            goto fail;
        }
    }
    *out_tables = stored;
    *out_count = count;
    return CT_OK;
fail:
    free(stored);
    return code;
}

ct_code ct_store_manifest_read(const char *folder, ct_stored_table **out_tables, size_t *out_count, json_t **out_json, ct_status *status) {
    json_t *json = NULL;
    char *path = ct_path_join(folder, "store.json");
    if (!path) return ct_fail_memory(status, strlen(folder), "a path");
    ct_code code = ct_json_load(path, &json, status);
    if (code == CT_OK) code = ct_store_manifest_parse(json, path, out_tables, out_count, status);
    if (code == CT_OK && out_json)
        *out_json = json;
    else
        json_decref(json);
    free(path);
    return code;
}
