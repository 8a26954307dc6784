/* The border to RocksDB: the only file that includes its header.
 *
 * A snapshot is written as sorted files, several at a time, which a new database takes in. Then everything that a reader does not need
 * (log, lock, options, empty write-ahead log) is removed, so that the folder holds content alone. A reader scans it and writes nothing
 * into it: many may do so at once, also where the folder cannot be written. One column family a table; RocksDB's own one, "default",
 * is empty. Keys are big-endian, so a partition is a range of keys. */
#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "embedding_store/store_internal.h"

enum {
    FAMILY_BYTES = CT_TABLE_NAME_BYTES + 8,
    FILE_ROWS = 1 << 20,    /* of a sorted file, about */
    SCAN_ROWS = 1 << 16,    /* a table of more is scanned by several tasks */
    BLOCK_BYTES = 16 << 10, /* read as a whole: few, large blocks */
    READAHEAD_BYTES = 1 << 20,
    MAX_FAMILIES = CT_STORE_MAX_TABLES + 1
};

/* RocksDB's text to a status; frees it. `otherwise` is what an error is that is none of the system's. */
static ct_code fail_text(char *error, const char *folder, ct_code otherwise, ct_status *status) {
    ct_code code = otherwise;
    if (strstr(error, "No such file or directory"))
        code = CT_NOT_FOUND;
    else if (strstr(error, "No space left"))
        code = CT_EXHAUSTED;
    else if (strncmp(error, "IO error", 8) == 0)
        code = CT_IO;
    for (char *c = error; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
    (void)ct_fail(status, code, "%s: %s", folder, error);
    rocksdb_free(error);
    return code;
}

typedef struct database {
    rocksdb_block_based_table_options_t *format;
    rocksdb_options_t *options;
    rocksdb_t *db;
    size_t family_count;
    rocksdb_column_family_handle_t *families[MAX_FAMILIES]; /* [0] = default, [1 + table] */
} database;

static void database_close(database *database) {
    if (database->db) {
        for (size_t i = 0; i < database->family_count; i++) rocksdb_column_family_handle_destroy(database->families[i]);
        rocksdb_close(database->db);
    }
    if (database->options) rocksdb_options_destroy(database->options);
    if (database->format) rocksdb_block_based_options_destroy(database->format);
    memset(database, 0, sizeof *database);
}

typedef const ct_table_spec *(*spec_fn)(const void *context, size_t table);

static const ct_table_spec *spec_of_store(const void *context, size_t table) { return ct_store_table(context, table); }

static const ct_table_spec *spec_of_stored(const void *context, size_t table) { return &((const ct_stored_table *)context)[table].spec; }

static ct_code database_open(database *database, const char *folder, bool write, spec_fn spec, const void *context, size_t tables,
                             ct_status *status) {
    memset(database, 0, sizeof *database);
    rocksdb_options_t *options = database->options = rocksdb_options_create();
    rocksdb_block_based_table_options_t *format = database->format = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_no_block_cache(format, 1);
    rocksdb_block_based_options_set_block_size(format, BLOCK_BYTES);
    rocksdb_options_set_block_based_table_factory(options, format);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_disable_auto_compactions(options, 1);
    rocksdb_options_set_max_file_opening_threads(options, 2);
    rocksdb_options_set_info_log_level(options, 4 /* fatal */);
    rocksdb_options_set_paranoid_checks(options, 1);
    if (write) {
        rocksdb_options_set_create_if_missing(options, 1);
        rocksdb_options_set_create_missing_column_families(options, 1);
        rocksdb_options_set_error_if_exists(options, 1);
    } else {
        rocksdb_options_set_skip_stats_update_on_db_open(options, 1);
    }
    char names[MAX_FAMILIES][FAMILY_BYTES];
    const char *name_pointers[MAX_FAMILIES];
    const rocksdb_options_t *all_options[MAX_FAMILIES];
    database->family_count = tables + 1;
    for (size_t i = 0; i <= tables; i++) {
        (void)snprintf(names[i], sizeof names[i], "%s%s", i ? "table:" : "default", i ? spec(context, i - 1)->name : "");
        name_pointers[i] = names[i];
        all_options[i] = options;
    }
    char *error = NULL;
    const int count = (int)database->family_count;
    if (write)
        database->db = rocksdb_open_column_families(options, folder, count, name_pointers, all_options, database->families, &error);
    else
        database->db =
            rocksdb_open_for_read_only_column_families(options, folder, count, name_pointers, all_options, database->families, 0, &error);
    if (!error) return CT_OK;
    database->db = NULL;
    database_close(database);
    return fail_text(error, folder, write ? CT_IO : CT_CORRUPT, status);
}

/* --- writing --- */

typedef struct sorted_file {
    size_t table, first, end; /* partitions */
    char *path;               /* NULL = no entries */
} sorted_file;

typedef struct write_work {
    const ct_store *store;
    const char *folder;
    const rocksdb_options_t *options;
    sorted_file *files;
    ct_failure failure;
} write_work;

/* The layout that store.json describes; entry: a copy of the index's. Returns the value's size. */
static size_t encode(const ct_table *table, const ct_partition *partition, const ct_index_entry *entry, char *out) {
    size_t n = 0;
    const bool has_row = entry->slot != CT_SLOT_STUB;
    if (table->spec.kind == CT_TABLE_TRAINED) {
        ct_put_le32(out, entry->count);
        out[4] = has_row;
        n = 5;
        if (table->spec.target_stats) {
            const ct_key_counts *counts = ct_entry_counts(ct_partition_find(partition, entry->key));
            ct_put_le32(out + n, counts->impressions);
            ct_put_le32(out + n + 4, counts->clicks);
            ct_put_le32(out + n + 8, counts->epoch);
            n += 12;
        }
        if (!has_row) return n;
        const size_t state = partition->state.floats * sizeof(float);
        if (state) memcpy(out + n, ct_slab_at(&partition->state, entry->slot - 1), state);
        n += state;
    }
    memcpy(out + n, ct_slab_at(&partition->values, entry->slot - 1), table->spec.dim * sizeof(float));
    return n + table->spec.dim * sizeof(float);
}

/* A row that left the range of floats is nothing to go on from. */
static bool values_finite(const ct_table *table, const ct_partition *partition, const ct_index_entry *entry) {
    if (table->spec.kind != CT_TABLE_TRAINED || entry->slot == CT_SLOT_STUB) return true;
    const float *values = ct_slab_at(&partition->values, entry->slot - 1);
    float zero = 0; /* stays 0 as long as all are finite */
    for (uint32_t i = 0; i < table->spec.dim; i++) zero += values[i] * 0.0f;
    return zero == 0;
}

static ct_code write_file(const write_work *work, const sorted_file *file, ct_status *status) {
    const ct_table *table = &work->store->tables[file->table];
    char value[3 * CT_TABLE_MAX_DIM * sizeof(float) + 32 /* Adam's row is the largest */], key[8], *error = NULL;
    ct_code code = CT_OK;
    rocksdb_envoptions_t *environment = rocksdb_envoptions_create();
    rocksdb_sstfilewriter_t *writer = rocksdb_sstfilewriter_create(environment, work->options);
    rocksdb_sstfilewriter_open(writer, file->path, &error);
    for (size_t p = file->first; p < file->end && !error && code == CT_OK; p++) {
        const ct_partition *partition = &table->partitions[p];
        ct_index_entry *entries;
        code = ct_partition_sorted(partition, &entries, status);
        if (code != CT_OK) break;
        for (size_t i = 0; i < partition->used && !error; i++) {
            ct_put_be64(key, entries[i].key);
            const size_t bytes = encode(table, partition, &entries[i], value);
            if (!values_finite(table, partition, &entries[i])) {
                code = ct_fail(status, CT_INVALID,
                               "diverged: the row of key %016llx in table %s holds a value that is not finite, and is not saved; lower its "
                               "learning rate",
                               (unsigned long long)entries[i].key, table->spec.name);
                break;
            }
            rocksdb_sstfilewriter_put(writer, key, sizeof key, value, bytes, &error);
        }
        free(entries);
    }
    if (!error && code == CT_OK) rocksdb_sstfilewriter_finish(writer, &error);
    rocksdb_sstfilewriter_destroy(writer);
    rocksdb_envoptions_destroy(environment);
    if (error) code = fail_text(error, work->folder, CT_IO, status);
    return code;
}

static void write_task(void *context, size_t task, size_t worker) {
    (void)worker;
    write_work *work = context;
    ct_status status;
    if (work->files[task].path && write_file(work, &work->files[task], &status) != CT_OK) ct_failure_put(&work->failure, &status);
}

/* Cuts every table into files of whole partitions. */
static ct_code plan_files(const ct_store *store, const char *folder, sorted_file **out_files, size_t *out_count, ct_status *status) {
    const size_t parts = (size_t)1 << store->partition_bits;
    sorted_file *files = calloc(store->table_count * parts + 1, sizeof *files);
    if (!files) return ct_fail_memory(status, store->table_count * parts * sizeof *files, "a snapshot's files");
    *out_files = files;
    *out_count = 0;
    for (size_t i = 0; i < store->table_count; i++) {
        const ct_table *table = &store->tables[i];
        uint64_t rows = 0;
        size_t first = 0;
        for (size_t p = 0; p < parts; p++) {
            rows += table->partitions[p].used;
            const bool last = p + 1 == parts;
            if (rows == 0 || (!last && rows + table->partitions[p + 1].used <= FILE_ROWS)) continue;
            sorted_file *file = &files[(*out_count)++];
            *file = (sorted_file){.table = i, .first = first, .end = p + 1};
            char name[64];
            (void)snprintf(name, sizeof name, "table-%zu-%zu.sst", i, first);
            file->path = ct_path_join(folder, name);
            if (!file->path) return ct_fail_memory(status, strlen(folder), "a path");
            first = p + 1;
            rows = 0;
        }
    }
    return CT_OK;
}

static ct_code take_in(database *database, const char *folder, const sorted_file *files, size_t count, ct_status *status) {
    ct_code code = CT_OK;
    const char **paths = calloc(count + 1, sizeof *paths);
    if (!paths) return ct_fail_memory(status, count * sizeof *paths, "a snapshot's files");
    rocksdb_ingestexternalfileoptions_t *options = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(options, 1);
    for (size_t i = 0; i < count && code == CT_OK;) {
        size_t n = 0;
        const size_t table = files[i].table;
        while (i + n < count && files[i + n].table == table) {
            paths[n] = files[i + n].path;
            n++;
        }
        char *error = NULL;
        rocksdb_ingest_external_file_cf(database->db, database->families[1 + table], paths, n, options, &error);
        if (error) code = fail_text(error, folder, CT_IO, status);
        i += n;
    }
    rocksdb_ingestexternalfileoptions_destroy(options);
    free(paths);
    return code;
}

/* Keeps what a reader needs. */
static ct_code tidy(const char *folder, ct_status *status) {
    ct_file_list list;
    CT_TRY(ct_folder_list(folder, &list, status));
    ct_code code = CT_OK;
    for (size_t i = 0; i < list.count && code == CT_OK; i++) {
        const char *name = list.names[i], *end = strrchr(name, '.');
        if (strcmp(name, "CURRENT") == 0 || strncmp(name, "MANIFEST-", 9) == 0 || (end && strcmp(end, ".sst") == 0)) continue;
        char *path = ct_path_join(folder, name);
        if (!path)
            code = ct_fail_memory(status, strlen(folder), "a path");
        else if (unlink(path) != 0)
            code = ct_fail_errno(status, "%s: cannot remove it", path);
        free(path);
    }
    ct_file_list_deinit(&list);
    return code;
}

ct_code ct_disk_write(ct_store *store, const char *folder, ct_status *status) {
    database database;
    sorted_file *files = NULL;
    size_t count = 0;
    ct_code code;
    CT_TRY(database_open(&database, folder, true, spec_of_store, store, store->table_count, status));
    CT_TRY_GOTO(code, plan_files(store, folder, &files, &count, status), done);
    write_work work = {.store = store, .folder = folder, .options = database.options, .files = files, .failure = {.status = status}};
    ct_run(store->pool, count, write_task, &work);
    CT_TRY_GOTO(code, ct_failure_code(&work.failure), done);
    code = take_in(&database, folder, files, count, status);
done:
    for (size_t i = 0; i < count; i++) free(files[i].path);
    free(files);
    database_close(&database);
    if (code == CT_OK) code = tidy(folder, status);
    return code;
}

/* --- reading --- */

typedef struct scan {
    size_t table, first, end; /* partitions */
    int64_t rows, stubs;      /* found */
} scan;

typedef struct read_work {
    ct_store *store;
    const char *folder;
    const ct_stored_table *stored;
    database *database;
    const rocksdb_readoptions_t *options;
    scan *scans;
    ct_failure failure;
} read_work;

static ct_code fail_entry(const read_work *work, const ct_table *table, const char *what, ct_status *status) {
    return ct_fail(status, CT_CORRUPT, "%s: table %s holds %s", work->folder, table->spec.name, what);
}

static ct_code read_entry(const read_work *work, scan *scan, uint64_t key, const char *value, size_t bytes, ct_status *status) {
    ct_table *table = &work->store->tables[scan->table];
    const ct_stored_table *stored = &work->stored[scan->table];
    ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    const bool trained = table->spec.kind == CT_TABLE_TRAINED;
    const bool has_row = !trained || (bytes > stored->admitted.offset && value[stored->admitted.offset] == 1);
    if (bytes != (has_row ? stored->row_bytes : stored->stub_bytes)) return fail_entry(work, table, "a row of another size", status);
    if (!has_row && value[stored->admitted.offset] != 0) return fail_entry(work, table, "a row that is neither a row nor a stub", status);
    if (has_row)
        scan->rows++;
    else
        scan->stubs++;
    if (!has_row && work->store->mode == CT_STORE_READ && !table->spec.target_stats) return CT_OK;

    ct_index_entry *entry;
    const uint64_t used = partition->used;
    CT_TRY(ct_partition_claim(table, partition, key, &entry, status));
    if (partition->used == used) return fail_entry(work, table, "a key twice", status);
    if (trained) entry->count = ct_get_le32(value + stored->count.offset);
    if (table->spec.target_stats && stored->epoch.present)
        *ct_entry_counts(entry) = (ct_key_counts){.impressions = ct_get_le32(value + stored->impressions.offset),
                                                  .clicks = ct_get_le32(value + stored->clicks.offset),
                                                  .epoch = ct_get_le32(value + stored->epoch.offset)};
    if (!has_row) return CT_OK;
    CT_TRY(ct_partition_add_row(table, partition, entry, status));
    memcpy(ct_slab_at(&partition->values, entry->slot - 1), value + stored->value.offset, table->spec.dim * sizeof(float));
    if (partition->state.floats) {
        float *state = ct_slab_at(&partition->state, entry->slot - 1);
        ct_state_set_first(&table->spec, state);
        ct_state_column columns[CT_STATE_COLUMNS];
        const size_t count = ct_state_columns(&table->spec, columns);
        for (size_t i = 0; i < count; state += columns[i++].count)
            if (stored->state[i].present) memcpy(state, value + stored->state[i].offset, columns[i].count * sizeof(float));
    }
    return CT_OK;
}

static ct_code read_scan(const read_work *work, scan *scan, ct_status *status) {
    const ct_table *table = &work->store->tables[scan->table];
    ct_code code = CT_OK;
    rocksdb_iterator_t *iterator = rocksdb_create_iterator_cf(work->database->db, work->options, work->database->families[1 + scan->table]);
    char first[8];
    ct_put_be64(first, table->partition_bits ? (uint64_t)scan->first << (64 - table->partition_bits) : 0);
    for (rocksdb_iter_seek(iterator, first, sizeof first); rocksdb_iter_valid(iterator) && code == CT_OK; rocksdb_iter_next(iterator)) {
        size_t key_bytes, value_bytes;
        const char *key = rocksdb_iter_key(iterator, &key_bytes), *value = rocksdb_iter_value(iterator, &value_bytes);
        if (key_bytes != 8) {
            code = fail_entry(work, table, "a key that is not of 8 bytes", status);
            break;
        }
        const uint64_t number = ct_get_be64(key);
        if (ct_partition_of(number, table->partition_bits) >= scan->end) break;
        code = read_entry(work, scan, number, value, value_bytes, status);
    }
    char *error = NULL;
    rocksdb_iter_get_error(iterator, &error);
    rocksdb_iter_destroy(iterator);
    if (error) {
        if (code == CT_OK) return fail_text(error, work->folder, CT_CORRUPT, status);
        rocksdb_free(error);
    }
    return code;
}

static void read_task(void *context, size_t task, size_t worker) {
    (void)worker;
    read_work *work = context;
    ct_status status;
    if (read_scan(work, &work->scans[task], &status) != CT_OK) ct_failure_put(&work->failure, &status);
}

static ct_code check_counts(const read_work *work, size_t scans, ct_status *status) {
    for (size_t i = 0, at = 0; i < work->store->table_count; i++) {
        int64_t rows = 0, stubs = 0;
        for (; at < scans && work->scans[at].table == i; at++) {
            rows += work->scans[at].rows;
            stubs += work->scans[at].stubs;
        }
        const ct_stored_table *stored = &work->stored[i];
        if (rows != stored->rows || stubs != stored->stubs)
            return ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", work->folder,
                           stored->spec.name, (long long)rows, (long long)stubs, (long long)stored->rows, (long long)stored->stubs);
    }
    return CT_OK;
}

ct_code ct_disk_read(ct_store *store, const char *folder, const ct_stored_table *stored, ct_status *status) {
    database database;
    const size_t parts = (size_t)1 << store->partition_bits;
    scan *scans = NULL;
    size_t count = 0;
    ct_code code;
    CT_TRY(database_open(&database, folder, false, spec_of_store, store, store->table_count, status));
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(options, 1);
    rocksdb_readoptions_set_fill_cache(options, 0);
    rocksdb_readoptions_set_readahead_size(options, READAHEAD_BYTES);
    scans = calloc(store->table_count * parts + 1, sizeof *scans);
    if (!scans) {
        code = ct_fail_memory(status, store->table_count * parts * sizeof *scans, "a store's scans");
        goto done;
    }
    for (size_t i = 0; i < store->table_count; i++) {
        if (stored[i].rows + stored[i].stubs <= SCAN_ROWS) {
            scans[count++] = (scan){.table = i, .first = 0, .end = parts};
        } else {
            for (size_t p = 0; p < parts; p++) scans[count++] = (scan){.table = i, .first = p, .end = p + 1};
        }
    }
    read_work work = {.store = store,
                      .folder = folder,
                      .stored = stored,
                      .database = &database,
                      .options = options,
                      .scans = scans,
                      .failure = {.status = status}};
    ct_run(store->pool, count, read_task, &work);
    CT_TRY_GOTO(code, ct_failure_code(&work.failure), done);
    code = check_counts(&work, count, status);
done:
    free(scans);
    rocksdb_readoptions_destroy(options);
    database_close(&database);
    return code;
}

ct_code ct_disk_count(const char *folder, const ct_stored_table *stored, size_t count, uint64_t *out_entries, uint64_t *out_bytes,
                      ct_status *status) {
    database database;
    ct_code code = CT_OK;
    CT_TRY(database_open(&database, folder, false, spec_of_stored, stored, count, status));
    for (size_t i = 0; i < count && code == CT_OK; i++) {
        rocksdb_column_family_handle_t *family = database.families[1 + i];
        static const char entries[] = "# entries="; /* of all sorted files; rocksdb.estimate-num-keys looks into some of them only */
        char *text = rocksdb_property_value_cf(database.db, family, "rocksdb.aggregated-table-properties");
        const char *at = text ? strstr(text, entries) : NULL;
        if (!at || rocksdb_property_int_cf(database.db, family, "rocksdb.total-sst-files-size", &out_bytes[i]) != 0)
            code = ct_fail(status, CT_CORRUPT, "%s: table %s has no counts", folder, stored[i].spec.name);
        else
            out_entries[i] = strtoull(at + sizeof entries - 1, NULL, 10);
        rocksdb_free(text);
    }
    database_close(&database);
    return code;
}
