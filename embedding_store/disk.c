/* Snapshots: a database of its own, written whole.
 *
 * It is written as sorted files, several at a time, which a new database takes in. Then everything that a reader does not need (log, lock,
 * options, empty write-ahead log) is removed, so that the folder holds content alone. A reader scans it and writes nothing into it: many
 * may do so at once, also where the folder cannot be written. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/pause.h"
#include "embedding_store/database.h"
#include "embedding_store/record.h"
#include "embedding_store/sorted.h"

enum {
    FILE_ROWS = 1 << 20,      /* of a sorted file, about */
    SCAN_ROWS = 1 << 16,      /* a table of more is scanned by several tasks */
    READAHEAD_BYTES = 1 << 18 /* for each file that a scan has open: some tens of them, for each task */
};

static ct_code open_store(ct_database *database, const char *folder, ct_database_use use, const ct_store *store, ct_status *status) {
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    for (size_t i = 0; i < store->table_count; i++) names[i] = store->tables[i].spec.name;
    return ct_database_open(database, folder, use, NULL, names, store->table_count, status);
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

static ct_code write_file(const write_work *work, const sorted_file *file, ct_status *status) {
    const ct_table *table = &work->store->tables[file->table];
    char value[CT_RECORD_MAX_BYTES], key[8], *error = NULL;
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
            const ct_index_entry *entry = ct_partition_find(partition, entries[i].key);
            if (!ct_record_finite(table, partition, entry)) {
                code = ct_record_fail_finite(table, entries[i].key, status);
                break;
            }
            const size_t bytes = ct_record_encode(table, partition, entry, value);
            rocksdb_sstfilewriter_put(writer, key, sizeof key, value, bytes, &error);
        }
        free(entries);
    }
    if (!error && code == CT_OK) rocksdb_sstfilewriter_finish(writer, &error);
    rocksdb_sstfilewriter_destroy(writer);
    rocksdb_envoptions_destroy(environment);
    if (error) code = ct_database_fail(error, work->folder, CT_IO, status);
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

static ct_code take_in(ct_database *database, const char *folder, const sorted_file *files, size_t count, ct_status *status) {
    ct_code code = CT_OK;
    const char **paths = calloc(count + 1, sizeof *paths);
    if (!paths) return ct_fail_memory(status, count * sizeof *paths, "a snapshot's files");
    for (size_t i = 0; i < count && code == CT_OK;) {
        size_t n = 0;
        const size_t table = files[i].table;
        while (i + n < count && files[i + n].table == table) {
            paths[n] = files[i + n].path;
            n++;
        }
        code = ct_database_ingest(database, folder, table, paths, n, status);
        i += n;
    }
    free(paths);
    return code;
}

ct_code ct_disk_write(ct_store *store, const char *folder, ct_status *status) {
    ct_database database;
    sorted_file *files = NULL;
    size_t count = 0;
    ct_code code;
    CT_TRY(open_store(&database, folder, CT_DATABASE_NEW, store, status));
    CT_TRY_GOTO(code, plan_files(store, folder, &files, &count, status), done);
    write_work work = {.store = store, .folder = folder, .options = database.options, .files = files, .failure = {.status = status}};
    ct_run(store->pool, count, write_task, &work);
    CT_TRY_GOTO(code, ct_failure_code(&work.failure), done);
    code = take_in(&database, folder, files, count, status);
done:
    for (size_t i = 0; i < count; i++) free(files[i].path);
    free(files);
    ct_database_close(&database);
    if (code == CT_OK) code = ct_database_tidy(folder, status);
    return code;
}

/* --- reading --- */

typedef struct scan {
    size_t table, first, end; /* partitions */
    int64_t rows, stubs;      /* found */
    ct_filling filling;       /* READ */
} scan;

typedef struct read_work {
    ct_store *store;
    const char *folder;
    const ct_stored_table *stored;
    bool frozen_only;
    ct_database *database;
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
    bool has_row, lives;
    if (ct_record_lives(stored, value, bytes, &has_row, &lives, status) != CT_OK) return ct_fail_within(status, "%s", work->folder);
    if (!lives) return CT_OK;
    if (has_row)
        scan->rows++;
    else
        scan->stubs++;
    if (!has_row && work->store->mode == CT_STORE_READ && !table->spec.target_stats) return CT_OK;
    if (!has_row && table->filter) return CT_OK; /* taken from another store, which counted exactly */
    if (table->spec.expire_days && ct_record_day(stored, value) < table->oldest_day) return CT_OK;
    if (has_row && work->store->mode == CT_STORE_READ) {
        if (ct_filling_put(&scan->filling, key, value, status) != CT_OK) return ct_fail_within(status, "%s", work->folder);
        return CT_OK;
    }
    ct_index_entry *entry;
    const uint64_t used = partition->used;
    CT_TRY(ct_partition_claim(table, partition, key, &entry, status));
    if (partition->used == used) return fail_entry(work, table, "a key twice", status);
    return ct_record_decode(table, partition, stored, value, has_row, entry, status);
}

static ct_code read_scan(const read_work *work, scan *scan, ct_status *status) {
    const ct_table *table = &work->store->tables[scan->table];
    ct_code code = CT_OK;
    rocksdb_iterator_t *iterator = rocksdb_create_iterator_cf(work->database->db, work->options, work->database->families[1 + scan->table]);
    scan->filling = (ct_filling){.table = &work->store->tables[scan->table], .stored = &work->stored[scan->table]};
    char first[8];
    size_t entries = 0;
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
        if (++entries % CT_PAUSE_ROWS == 0 && code == CT_OK) code = ct_pause_check(status);
    }
    if (code == CT_OK) code = ct_filling_end(&scan->filling, status);
    ct_filling_deinit(&scan->filling);
    char *error = NULL;
    rocksdb_iter_get_error(iterator, &error);
    rocksdb_iter_destroy(iterator);
    if (error) {
        if (code == CT_OK) return ct_database_fail(error, work->folder, CT_CORRUPT, status);
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
        if (work->frozen_only && stored->spec.kind != CT_TABLE_FROZEN) continue;
        if (rows != stored->rows || stubs != stored->stubs)
            return ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", work->folder,
                           stored->spec.name, (long long)rows, (long long)stubs, (long long)stored->rows, (long long)stored->stubs);
    }
    return CT_OK;
}

ct_code ct_disk_read(ct_store *store, const char *folder, const ct_stored_table *stored, bool frozen_only, ct_status *status) {
    ct_database database;
    const size_t parts = (size_t)1 << store->partition_bits;
    scan *scans = NULL;
    size_t count = 0;
    ct_code code;
    CT_TRY(open_store(&database, folder, CT_DATABASE_SCAN, store, status));
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
        if (frozen_only && stored[i].spec.kind != CT_TABLE_FROZEN) continue;
        if (store->mode == CT_STORE_READ) CT_TRY_GOTO(code, ct_sorted_expect(&store->tables[i], (uint64_t)stored[i].rows, status), done);
        if (stored[i].rows + stored[i].stubs <= SCAN_ROWS) {
            scans[count++] = (scan){.table = i, .first = 0, .end = parts};
        } else {
            for (size_t p = 0; p < parts; p++) scans[count++] = (scan){.table = i, .first = p, .end = p + 1};
        }
    }
    read_work work = {.store = store,
                      .folder = folder,
                      .stored = stored,
                      .frozen_only = frozen_only,
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
    ct_database_close(&database);
    return code;
}
