#include "embedding_store/live.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/pause.h"
#include "embedding_store/database.h"
#include "embedding_store/record.h"

enum {
    GET_KEYS = 256,            /* at once: what they pin is small */
    READAHEAD_BYTES = 1 << 20, /* of a scan */
    FILE_BYTES = 64 << 20      /* of a sorted file, about; then the next one begins */
};

struct ct_live {
    char *folder;
    bool scratch; /* ours: to be removed */
    ct_tuning tuning;
    _Atomic uint64_t most_level0_bytes; /* tuning's, or where it has none, what was set later */
    ct_database database;
    rocksdb_readoptions_t *read;
    rocksdb_envoptions_t *environment;
    atomic_bool written[CT_STORE_MAX_TABLES]; /* has any file; else a read need not ask. Set before the file is asked for. */
    /* of the files in work */
    rocksdb_sstfilewriter_t *writer; /* of the last one; NULL = it is written */
    size_t table, path_count, path_room;
    char **paths; /* (path_count) */
    uint64_t file_bytes, files;
};

static ct_code open_database(ct_live *live, ct_database_use use, const char *const *names, size_t tables, ct_status *status) {
    CT_TRY(ct_database_open(&live->database, live->folder, use, &live->tuning, names, tables, status));
    live->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(live->read, 1);
    if (use == CT_DATABASE_SCAN) rocksdb_readoptions_set_readahead_size(live->read, READAHEAD_BYTES);
    live->environment = rocksdb_envoptions_create();
    for (size_t i = 0; i < tables; i++) {
        uint64_t bytes = 0;
        live->written[i] =
            rocksdb_property_int_cf(live->database.db, live->database.families[1 + i], "rocksdb.total-sst-files-size", &bytes) != 0 ||
            bytes > 0;
    }
    return CT_OK;
}

/* A sorted file is never changed, so a link is as good as a copy; the others are small. */
static ct_code take_over(const char *from, const char *folder, ct_status *status) {
    ct_file_list list;
    CT_TRY(ct_folder_list(from, &list, status));
    ct_code code = CT_OK;
    for (size_t i = 0; i < list.count && code == CT_OK; i++) {
        const char *end = strrchr(list.names[i], '.');
        if (strcmp(list.names[i], "store.json") == 0 || (end && strcmp(end, ".filter") == 0)) continue;
        char *source = ct_path_join(from, list.names[i]), *target = ct_path_join(folder, list.names[i]);
        if (!source || !target)
            code = ct_fail_memory(status, strlen(from), "a path");
        else
            code = end && strcmp(end, ".sst") == 0 ? ct_file_link(source, target, status) : ct_file_copy(source, target, status);
        free(source);
        free(target);
    }
    ct_file_list_deinit(&list);
    return code;
}

static ct_code live_create(const char *folder, bool scratch, ct_live **out_live, ct_status *status) {
    ct_live *live = calloc(1, sizeof *live);
    if (!live) return ct_fail_memory(status, sizeof *live, "a live database");
    live->folder = strdup(folder);
    live->scratch = scratch;
    live->tuning = ct_tuning_ours;
    if (!live->folder) {
        free(live);
        return ct_fail_memory(status, strlen(folder), "a path");
    }
    *out_live = live;
    return CT_OK;
}

ct_code ct_live_create(const char *folder, const char *from, const ct_tuning *tuning, const char *const *names, size_t tables,
                       ct_live **out_live, ct_status *status) {
    ct_live *live;
    CT_TRY(live_create(folder, true, &live, status));
    if (tuning) live->tuning = *tuning;
    atomic_store(&live->most_level0_bytes, live->tuning.most_level0_bytes);
    ct_code code;
    CT_TRY_GOTO(code, ct_folder_remove(folder, status), fail);
    CT_TRY_GOTO(code, ct_folder_create(folder, status), fail);
    if (from) CT_TRY_GOTO(code, take_over(from, folder, status), fail);
    CT_TRY_GOTO(code, open_database(live, CT_DATABASE_LIVE, names, tables, status), fail);
    *out_live = live;
    return CT_OK;
fail:
    ct_live_close(live);
    return code;
}

ct_code ct_live_open(const char *folder, ct_live_reads reads, const char *const *names, size_t tables, ct_live **out_live,
                     ct_status *status) {
    ct_live *live;
    CT_TRY(live_create(folder, false, &live, status));
    const ct_code code = open_database(live, reads == CT_LIVE_SCANS ? CT_DATABASE_SCAN : CT_DATABASE_READ, names, tables, status);
    if (code != CT_OK)
        ct_live_close(live);
    else
        *out_live = live;
    return code;
}

void ct_live_close(ct_live *live) {
    if (!live) return;
    ct_live_abandon(live);
    ct_database_close(&live->database);
    if (live->read) rocksdb_readoptions_destroy(live->read);
    if (live->environment) rocksdb_envoptions_destroy(live->environment);
    ct_status ignored = CT_STATUS_INIT;
    if (live->scratch && ct_folder_remove(live->folder, &ignored) != CT_OK) ignored.code = CT_OK; /* scratch: the next run removes it */
    free(live->folder);
    free(live);
}

void ct_live_expire(ct_live *live, size_t table, const ct_stored_table *layout, uint32_t oldest_day) {
    ct_expiry *expiry = &live->database.expiry[table];
    atomic_store(&expiry->day_offset, layout->day.offset);
    atomic_store(&expiry->oldest_day, oldest_day); /* last: 0 drops nothing */
}

/* --- writing --- */

/* A file is begun where there is none. */
static ct_code open_file(ct_live *live, ct_status *status) {
    char name[32], *error = NULL;
    if (live->path_count == live->path_room) {
        const size_t room = live->path_room ? 2 * live->path_room : 4;
        char **paths = realloc(live->paths, room * sizeof *paths);
        if (!paths) return ct_fail_memory(status, room * sizeof *paths, "a list of files");
        live->paths = paths;
        live->path_room = room;
    }
    (void)snprintf(name, sizeof name, "new-%llu.sst", (unsigned long long)live->files++);
    char *path = ct_path_join(live->folder, name);
    if (!path) return ct_fail_memory(status, strlen(live->folder), "a path");
    live->paths[live->path_count++] = path;
    live->file_bytes = 0;
    live->writer = rocksdb_sstfilewriter_create(live->environment, live->database.options);
    rocksdb_sstfilewriter_open(live->writer, path, &error);
    return error ? ct_database_fail(error, live->folder, CT_IO, status) : CT_OK;
}

static ct_code close_file(ct_live *live, ct_status *status) {
    char *error = NULL;
    if (!live->writer) return CT_OK;
    rocksdb_sstfilewriter_finish(live->writer, &error);
    rocksdb_sstfilewriter_destroy(live->writer);
    live->writer = NULL;
    return error ? ct_database_fail(error, live->folder, CT_IO, status) : CT_OK;
}

ct_code ct_live_begin(ct_live *live, size_t table, ct_status *status) {
    (void)status;
    live->table = table;
    return CT_OK;
}

ct_code ct_live_put(ct_live *live, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    char key_bytes[8], *error = NULL;
    if (live->writer && live->file_bytes >= FILE_BYTES) CT_TRY(close_file(live, status));
    if (!live->writer) CT_TRY(open_file(live, status));
    ct_put_be64(key_bytes, key);
    rocksdb_sstfilewriter_put(live->writer, key_bytes, sizeof key_bytes, record, bytes, &error);
    live->file_bytes += sizeof key_bytes + bytes;
    return error ? ct_database_fail(error, live->folder, CT_IO, status) : CT_OK;
}

ct_code ct_live_end(ct_live *live, ct_status *status) {
    ct_code code = close_file(live, status);
    if (code == CT_OK && live->path_count) {
        code = ct_database_ingest(&live->database, live->folder, live->table, (const char *const *)live->paths, live->path_count, status);
        if (code == CT_OK) live->written[live->table] = true;
    }
    ct_live_abandon(live);
    return code;
}

void ct_live_abandon(ct_live *live) {
    if (live->writer) rocksdb_sstfilewriter_destroy(live->writer);
    live->writer = NULL;
    for (; live->path_count; live->path_count--) {
        (void)unlink(live->paths[live->path_count - 1]); /* where it was taken in, it is no longer there */
        free(live->paths[live->path_count - 1]);
    }
    free(live->paths);
    live->paths = NULL;
    live->path_room = 0;
}

ct_code ct_live_put_frozen(ct_live *live, const ct_table *table, size_t number, ct_status *status) {
    char record[CT_RECORD_MAX_BYTES];
    CT_TRY(ct_live_begin(live, number, status));
    ct_code code = CT_OK;
    for (size_t p = 0; p < table->partition_count && code == CT_OK; p++) {
        const ct_partition *partition = &table->partitions[p];
        ct_index_entry *entries;
        code = ct_partition_sorted(partition, &entries, status);
        for (size_t i = 0; code == CT_OK && i < partition->used; i++)
            code = ct_live_put(live, entries[i].key, record, ct_record_encode(table, partition, &entries[i], record), status);
        if (partition->used && code == CT_OK) free(entries);
    }
    if (code == CT_OK) return ct_live_end(live, status);
    ct_live_abandon(live);
    return code;
}

/* --- reading --- */

ct_code ct_live_get(ct_live *live, size_t table, const uint64_t *keys, size_t count, ct_live_fn function, void *context,
                    ct_status *status) {
    char bytes[GET_KEYS][8], *errors[GET_KEYS];
    const char *pointers[GET_KEYS];
    size_t sizes[GET_KEYS];
    rocksdb_pinnableslice_t *values[GET_KEYS];
    ct_code code = CT_OK;
    for (size_t first = 0; first < count && code == CT_OK; first += GET_KEYS) {
        const size_t n = count - first < GET_KEYS ? count - first : GET_KEYS;
        for (size_t i = 0; i < n; i++) {
            ct_put_be64(bytes[i], keys[first + i]);
            pointers[i] = bytes[i];
            sizes[i] = sizeof bytes[i];
            values[i] = NULL;
            errors[i] = NULL;
        }
        if (live->written[table])
            rocksdb_batched_multi_get_cf(live->database.db, live->read, live->database.families[1 + table], n, pointers, sizes, values,
                                         errors, true);
        for (size_t i = 0; i < n; i++) {
            if (errors[i]) {
                if (code == CT_OK)
                    code = ct_database_fail(errors[i], live->folder, CT_CORRUPT, status);
                else
                    rocksdb_free(errors[i]);
            } else if (code == CT_OK) {
                size_t size = 0;
                const char *record = values[i] ? rocksdb_pinnableslice_value(values[i], &size) : NULL;
                code = function(context, first + i, keys[first + i], record, size, status);
            }
            if (values[i]) rocksdb_pinnableslice_destroy(values[i]);
        }
    }
    return code;
}

ct_code ct_live_scan(ct_live *live, size_t table, ct_live_fn function, void *context, ct_status *status) {
    ct_code code = CT_OK;
    size_t number = 0;
    char *error = NULL;
    rocksdb_iterator_t *iterator = rocksdb_create_iterator_cf(live->database.db, live->read, live->database.families[1 + table]);
    for (rocksdb_iter_seek_to_first(iterator); rocksdb_iter_valid(iterator) && code == CT_OK; rocksdb_iter_next(iterator)) {
        size_t key_bytes, bytes;
        const char *key = rocksdb_iter_key(iterator, &key_bytes), *record = rocksdb_iter_value(iterator, &bytes);
        if (key_bytes != 8)
            code = ct_fail(status, CT_CORRUPT, "%s: a key that is not of 8 bytes", live->folder);
        else
            code = function(context, number++, ct_get_be64(key), record, bytes, status);
        if (number % CT_PAUSE_ROWS == 0 && code == CT_OK) code = ct_pause_check(status);
    }
    rocksdb_iter_get_error(iterator, &error);
    rocksdb_iter_destroy(iterator);
    if (!error) return code;
    if (code == CT_OK) return ct_database_fail(error, live->folder, CT_CORRUPT, status);
    rocksdb_free(error);
    return code;
}

void ct_live_bound_level0(ct_live *live, uint64_t most_bytes) {
    if (!live->tuning.most_level0_bytes) atomic_store(&live->most_level0_bytes, most_bytes);
}

double ct_live_pressure(ct_live *live, size_t table, ct_backlog *out_backlog) {
    ct_backlog backlog = {0};
    char *text = rocksdb_property_value_cf(live->database.db, live->database.families[1 + table], "rocksdb.levelstats");
    for (const char *line = text; line; line = strchr(line, '\n')) { /* two lines of a head, then of each level: its number, files, MiB */
        line += *line == '\n';
        unsigned level, files;
        double mib;
        if (sscanf(line, "%u %u %lf", &level, &files, &mib) != 3 || files == 0) continue;
        const uint64_t bytes = (uint64_t)mib << 20;
        backlog.runs += level ? 1 : files;
        backlog.newer_bytes += backlog.oldest_bytes;
        backlog.oldest_bytes = level ? bytes : 0;
        if (!level) backlog.newer_bytes = backlog.level0_bytes = bytes;
    }
    rocksdb_free(text);
    *out_backlog = backlog;
    ct_tuning tuning = live->tuning;
    tuning.most_level0_bytes = atomic_load(&live->most_level0_bytes);
    return ct_pace_pressure(&tuning, &backlog);
}

static uint64_t number_of(const ct_live *live, size_t table, const char *property) {
    uint64_t number = 0;
    return rocksdb_property_int_cf(live->database.db, live->database.families[1 + table], property, &number) == 0 ? number : 0;
}

bool ct_live_compacts(ct_live *live, size_t table) {
    if (number_of(live, table, "rocksdb.background-errors")) return false;
    return number_of(live, table, "rocksdb.num-running-compactions") || number_of(live, table, "rocksdb.compaction-pending");
}

void ct_live_levels(ct_live *live, size_t table, uint64_t out_bytes[CT_LIVE_LEVELS]) {
    const rocksdb_livefiles_t *files = rocksdb_livefiles(live->database.db);
    size_t name_bytes;
    char *name = rocksdb_column_family_handle_get_name(live->database.families[1 + table], &name_bytes);
    memset(out_bytes, 0, CT_LIVE_LEVELS * sizeof *out_bytes);
    for (int i = 0; i < rocksdb_livefiles_count(files); i++) {
        const char *of = rocksdb_livefiles_column_family_name(files, i);
        const int level = rocksdb_livefiles_level(files, i);
        if (strlen(of) == name_bytes && memcmp(of, name, name_bytes) == 0 && level >= 0 && level < CT_LIVE_LEVELS)
            out_bytes[level] += rocksdb_livefiles_size(files, i);
    }
    rocksdb_free(name);
    rocksdb_livefiles_destroy(files);
}

ct_code ct_live_checkpoint(ct_live *live, const char *folder, ct_status *status) {
    char *error = NULL;
    rocksdb_checkpoint_t *checkpoint = rocksdb_checkpoint_object_create(live->database.db, &error);
    if (!error) rocksdb_checkpoint_create(checkpoint, folder, 0, &error);
    if (checkpoint) rocksdb_checkpoint_object_destroy(checkpoint);
    return error ? ct_database_fail(error, folder, CT_IO, status) : CT_OK;
}
