#include "embedding_store/database.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"

/* Files are mapped, not compressed, without a block cache: blocks, indexes and filters are then the kernel's pages, and a point read copies
 * nothing. Small blocks with a hash of their keys, and a filter over whole keys: a read of a key that is nowhere mostly touches one line.
 * A scan reads pieces into memory instead: a page fault for each page, and from a cold disk a read for each, takes several times as long.
 * It needs no filters, and a few files open at a time. */
enum {
    FAMILY_BYTES = CT_TABLE_NAME_BYTES + 8,
    LIVE_FILE_BYTES = 32 << 20, /* that compaction writes */
    LIVE_JOBS = 3,              /* two compactions at a time: small ones go on beside one of everything */
    LIVE_NEVER = 1 << 20,       /* runs at which RocksDB itself would hold up who writes: pace.h does so */
    SCAN_OPEN_FILES = 16
};

/* A live database gets its rows in random order, so each new file overlaps everything. Compaction by size (universal: runs of about one
 * size become one) then writes half the bytes of compaction by levels, which would merge each few MB into all of the next level. */
const ct_tuning ct_tuning_ours = {.runs = 8,
                                  .old_percent = 100,
                                  .block_bytes = 2 << 10,
                                  .filter_bits = 10, /* 1 % of the misses look further */
                                  .reads = CT_READS_MAPPED,
                                  .slow_runs = 48,
                                  .most_runs = 160,
                                  .slow_percent = 150,
                                  .most_percent = 300};

ct_code ct_database_fail(char *error, const char *folder, ct_code otherwise, ct_status *status) {
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

void ct_database_close(ct_database *database) {
    if (database->db) {
        for (size_t i = 0; i < database->family_count; i++) rocksdb_column_family_handle_destroy(database->families[i]);
        rocksdb_close(database->db);
    }
    for (size_t i = 0; i < CT_STORE_MAX_TABLES; i++) {
        if (database->family_options[i]) rocksdb_options_destroy(database->family_options[i]);
        if (database->filters[i]) rocksdb_compactionfilter_destroy(database->filters[i]);
    }
    if (database->options) rocksdb_options_destroy(database->options);
    if (database->limiter) rocksdb_ratelimiter_destroy(database->limiter);
    if (database->format) rocksdb_block_based_options_destroy(database->format);
    memset(database, 0, sizeof *database);
}

static void set_compaction(ct_database *database, const ct_tuning *tuning) {
    rocksdb_options_t *options = database->options;
    if (!tuning->by_levels) {
        rocksdb_universal_compaction_options_t *universal = rocksdb_universal_compaction_options_create();
        rocksdb_universal_compaction_options_set_max_size_amplification_percent(universal, (int)tuning->old_percent);
        rocksdb_options_set_compaction_style(options, rocksdb_universal_compaction);
        rocksdb_options_set_universal_compaction_options(options, universal);
        rocksdb_universal_compaction_options_destroy(universal);
    }
    rocksdb_options_set_level0_file_num_compaction_trigger(options, (int)tuning->runs);
    rocksdb_options_set_level0_slowdown_writes_trigger(options, LIVE_NEVER);
    rocksdb_options_set_level0_stop_writes_trigger(options, LIVE_NEVER);
    rocksdb_options_set_soft_pending_compaction_bytes_limit(options, 0); /* none */
    rocksdb_options_set_hard_pending_compaction_bytes_limit(options, 0);
    rocksdb_options_set_target_file_size_base(options, LIVE_FILE_BYTES);
    rocksdb_options_set_max_background_jobs(options, LIVE_JOBS);
    if (!tuning->compaction_bytes_a_second) return;
    database->limiter = rocksdb_ratelimiter_create((int64_t)tuning->compaction_bytes_a_second, 10000 /* microseconds */, 10);
    rocksdb_options_set_ratelimiter(options, database->limiter);
}

static void set_options(ct_database *database, ct_database_use use, const ct_tuning *tuning) {
    rocksdb_options_t *options = database->options = rocksdb_options_create();
    rocksdb_block_based_table_options_t *format = database->format = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_no_block_cache(format, 1);
    rocksdb_block_based_options_set_block_size(format, tuning->block_bytes);
    rocksdb_block_based_options_set_data_block_index_type(format, rocksdb_block_based_table_data_block_index_type_binary_search_and_hash);
    rocksdb_block_based_options_set_data_block_hash_ratio(format, 0.75);
    if (use != CT_DATABASE_SCAN && tuning->filter_bits)
        rocksdb_block_based_options_set_filter_policy(format, rocksdb_filterpolicy_create_bloom_full(tuning->filter_bits));
    rocksdb_options_set_block_based_table_factory(options, format);
    rocksdb_options_set_allow_mmap_reads(options, use != CT_DATABASE_SCAN && tuning->reads == CT_READS_MAPPED);
    if (use == CT_DATABASE_SCAN) rocksdb_options_set_max_open_files(options, SCAN_OPEN_FILES);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_max_file_opening_threads(options, 2);
    rocksdb_options_set_info_log_level(options, 4 /* fatal */);
    rocksdb_options_set_paranoid_checks(options, 1);
    rocksdb_options_set_write_buffer_size(options, 64 << 10); /* nothing is written but by ingestion */
    rocksdb_options_set_arena_block_size(options, 4 << 10);
    if (use == CT_DATABASE_LIVE) {
        rocksdb_options_set_create_if_missing(options, 1);
        rocksdb_options_set_create_missing_column_families(options, 1);
        set_compaction(database, tuning);
        rocksdb_options_set_use_direct_reads(options, tuning->reads == CT_READS_DIRECT);
        rocksdb_options_set_use_direct_io_for_flush_and_compaction(options, tuning->reads == CT_READS_DIRECT);
    } else {
        rocksdb_options_set_disable_auto_compactions(options, 1);
    }
    if (use == CT_DATABASE_NEW) {
        rocksdb_options_set_create_if_missing(options, 1);
        rocksdb_options_set_create_missing_column_families(options, 1);
        rocksdb_options_set_error_if_exists(options, 1);
    } else {
        rocksdb_options_set_skip_stats_update_on_db_open(options, 1);
    }
}

static unsigned char drop_expired(void *state, int level, const char *key, size_t key_bytes, const char *value, size_t value_bytes,
                                  char **new_value, size_t *new_value_bytes, unsigned char *value_changed) {
    const ct_expiry *expiry = state;
    const uint32_t oldest = atomic_load(&expiry->oldest_day), offset = atomic_load(&expiry->day_offset);
    (void)level, (void)key, (void)key_bytes, (void)new_value, (void)new_value_bytes, (void)value_changed;
    return oldest > 0 && value_bytes >= offset + 4 && ct_get_le32(value + offset) < oldest;
}

static void keep_expiry(void *state) { (void)state; }

static const char *name_expiry(void *state) {
    (void)state;
    return "clicktower.expiry";
}

ct_code ct_database_open(ct_database *database, const char *folder, ct_database_use use, const ct_tuning *tuning, const char *const *names,
                         size_t tables, ct_status *status) {
    memset(database, 0, sizeof *database);
    set_options(database, use, tuning ? tuning : &ct_tuning_ours);
    char full[CT_DATABASE_FAMILIES][FAMILY_BYTES];
    const char *pointers[CT_DATABASE_FAMILIES];
    const rocksdb_options_t *options[CT_DATABASE_FAMILIES];
    database->family_count = tables + 1;
    for (size_t i = 0; i <= tables; i++) {
        (void)snprintf(full[i], sizeof full[i], "%s%s", i ? "table:" : "default", i ? names[i - 1] : "");
        pointers[i] = full[i];
        options[i] = database->options;
        if (use != CT_DATABASE_LIVE || !i) continue;
        database->filters[i - 1] = rocksdb_compactionfilter_create(&database->expiry[i - 1], keep_expiry, drop_expired, name_expiry);
        database->family_options[i - 1] = rocksdb_options_create_copy(database->options);
        rocksdb_options_set_compaction_filter(database->family_options[i - 1], database->filters[i - 1]);
        options[i] = database->family_options[i - 1];
    }
    char *error = NULL;
    const int count = (int)database->family_count;
    const bool reads = use == CT_DATABASE_READ || use == CT_DATABASE_SCAN;
    if (reads)
        database->db =
            rocksdb_open_for_read_only_column_families(database->options, folder, count, pointers, options, database->families, 0, &error);
    else
        database->db = rocksdb_open_column_families(database->options, folder, count, pointers, options, database->families, &error);
    if (!error) return CT_OK;
    database->db = NULL;
    ct_database_close(database);
    return ct_database_fail(error, folder, reads ? CT_CORRUPT : CT_IO, status);
}

ct_code ct_database_ingest(ct_database *database, const char *folder, size_t table, const char *const *paths, size_t count,
                           ct_status *status) {
    if (!count) return CT_OK;
    char *error = NULL;
    rocksdb_ingestexternalfileoptions_t *options = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(options, 1);
    rocksdb_ingest_external_file_cf(database->db, database->families[1 + table], paths, count, options, &error);
    rocksdb_ingestexternalfileoptions_destroy(options);
    return error ? ct_database_fail(error, folder, CT_IO, status) : CT_OK;
}

ct_code ct_database_tidy(const char *folder, ct_status *status) {
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
