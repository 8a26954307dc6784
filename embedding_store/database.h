/* The border to RocksDB, for disk.c (snapshots) and live.c (the database under a table that outgrows memory): no other file includes its
 * header. One column family a table, named "table:" and the table's name; RocksDB's own one, "default", is empty. Keys are big-endian, so
 * that a partition is a range of keys. Internal to the store. */
#ifndef EMBEDDING_STORE_DATABASE_H
#define EMBEDDING_STORE_DATABASE_H

#include <rocksdb/c.h>

#include "embedding_store/store_internal.h"
#include "embedding_store/tuning.h"

enum { CT_DATABASE_FAMILIES = CT_STORE_MAX_TABLES + 1 };

typedef enum ct_database_use {
    CT_DATABASE_NEW,  /* to be filled by ingestion, then closed: nothing is compacted */
    CT_DATABASE_READ, /* as it stands, by points; writes nothing, so many may do so, also where the folder can't be written */
    CT_DATABASE_SCAN, /* the same, from one end to the other */
    CT_DATABASE_LIVE  /* filled, read and compacted; there or not */
} ct_database_use;

/* What a table's compactions drop: records whose u32 at day_offset is less than oldest_day. */
typedef struct ct_expiry {
    _Atomic uint32_t oldest_day, day_offset; /* oldest_day 0 = nothing */
} ct_expiry;

typedef struct ct_database {
    rocksdb_block_based_table_options_t *format;
    rocksdb_options_t *options;
    rocksdb_ratelimiter_t *limiter; /* NULL = none */
    rocksdb_t *db;
    ct_expiry expiry[CT_STORE_MAX_TABLES]; /* LIVE: by table; a database does not move while it is open */
    rocksdb_compactionfilter_t *filters[CT_STORE_MAX_TABLES];
    rocksdb_options_t *family_options[CT_STORE_MAX_TABLES];
    size_t family_count;
    rocksdb_column_family_handle_t *families[CT_DATABASE_FAMILIES]; /* [0] = default, [1 + table] */
} ct_database;

/* tuning: of a LIVE one; else NULL. names: (tables), of each table. */
CT_MUST_CHECK ct_code ct_database_open(ct_database *database, const char *folder, ct_database_use use, const ct_tuning *tuning,
                                       const char *const *names, size_t tables, ct_status *status);
void ct_database_close(ct_database *database); /* fine on a zeroed one, and twice */
/* RocksDB's text to a status; frees it. `otherwise` is what an error is that is none of the system's. */
ct_code ct_database_fail(char *error, const char *folder, ct_code otherwise, ct_status *status);
/* Takes sorted files of one table in, as newer than all that it holds; the files are moved. */
CT_MUST_CHECK ct_code ct_database_ingest(ct_database *database, const char *folder, size_t table, const char *const *paths, size_t count,
                                         ct_status *status);
/* Removes from a folder, whose database is closed, everything that a reader does not need. */
CT_MUST_CHECK ct_code ct_database_tidy(const char *folder, ct_status *status);

#endif
