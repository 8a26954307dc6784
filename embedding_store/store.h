/* The embedding store: tables of rows by 64-bit key, sharded, trained or frozen.
 *
 * The face is made for tiers: a caller never sees a row pointer. In training
 *     prefetch(ticket, lookup) -> acquire -> gather (blocks, in parallel) -> apply(gradients) -> release
 * where prefetch only finds out which rows a batch needs (unique keys, shards) and starts to bring them near; several tickets may be
 * prefetched ahead. Values are read at gather, after the previous apply: a prefetched value is never used. In evaluation and serving the
 * same calls with CT_LOOKUP_READ run in the calling thread, take no lock and change nothing, each thread with a ticket of its own.
 *
 * Shards. The top 10 bits of a key are its virtual shard (1,024). A partition is a range of virtual shards with its own index and slabs;
 * one task at a time works on a partition, so the hot path takes no lock. Results never depend on threads or partitions: occurrences of a
 * key are summed inside a block of rows, in order (feature, row), then over blocks in the log's order.
 *
 * Life of a key in training: unknown -> a stub that counts (exactly, by batches) -> a row with first values once the count *before* the
 * batch has reached min_count (with filter_mib a filter of a fixed size counts instead of the stubs). Until then, and in reading for ever,
 * it stands for its feature's rare row. Rare rows are always admitted and
 * begin at zero. A read of a key that has neither gives zeros. Where the table has expire_days, a key that was not seen for more than so
 * many days of the log is as if it had never been seen (expire.c); the training look-ups say which day the log has come to.
 *
 * On disk: a RocksDB database written in sorted files by ingestion, one column family a table; key = big-endian 64-bit key; value = the
 * row's columns as named in store.json beside it (tables, kinds, columns, optimisers, seeds, counts). */
#ifndef EMBEDDING_STORE_STORE_H
#define EMBEDDING_STORE_STORE_H

#include <jansson.h>

#include "base/hash.h"
#include "base/pool.h"
#include "base/status.h"
#include "device/device.h"

typedef enum ct_table_kind { CT_TABLE_TRAINED, CT_TABLE_FROZEN } ct_table_kind;

/* What a row's gradient (the sum of its occurrences' in the batch) does to the row. All are lazy: a row and its state change only in
 * batches that touch it. The formulas, to the bit, are in optimiser.h. */
typedef enum ct_row_optimiser {
    CT_ROW_ADAGRAD_ROWWISE = 0, /* state: 1 float */
    CT_ROW_SGD = 1,             /* none */
    CT_ROW_ADAGRAD = 2,         /* dim floats */
    CT_ROW_ADAM = 3             /* 2 dim floats, and the row's own number of updates, by which its bias is corrected */
} ct_row_optimiser;
/* "adagrad_rowwise", "sgd", "adagrad", "adam"; NULL for anything else. */
const char *ct_row_optimiser_name(ct_row_optimiser optimiser);
/* false = no optimiser is called so. */
bool ct_row_optimiser_find(const char *name, ct_row_optimiser *out_optimiser);

/* What a row's values are kept as, everywhere. fp16: arithmetic is in fp32, and after each update every value is rounded up or down at
 * random, by bits that are a function of seed, key, epoch and batch, so that small steps are not lost; first values to the nearest. The
 * optimiser's state stays in fp32. */
typedef enum ct_row_precision { CT_ROW_FP32 = 0, CT_ROW_FP16 = 1 } ct_row_precision;

enum {
    CT_TABLE_NAME_BYTES = 64,
    CT_STORE_MAX_TABLES = 64,
    CT_VIRTUAL_SHARDS = 1024,
    CT_TABLE_MAX_DIM = 4096,
    CT_TABLE_MAX_EXPIRE_DAYS = 100000,
    CT_TABLE_MAX_FILTER_MIB = 1 << 16,
    CT_FILTER_MOST_COUNT = 15 /* so far a filter counts */
};

typedef struct ct_table_spec {
    char name[CT_TABLE_NAME_BYTES];
    ct_table_kind kind;
    uint32_t dim; /* floats of a row, 1 .. CT_TABLE_MAX_DIM */
    /* trained only */
    ct_row_precision precision;
    ct_row_optimiser optimiser;
    float learning_rate;
    float initial_accumulator; /* both Adagrads: of the (mean) squared gradient; > 0 */
    float beta1, beta2;        /* Adam: decay of the first and second moment, in [0, 1); usually 0.9 and 0.999 */
    float epsilon;             /* Adam: > 0; usually 1e-8 */
    float l2;                  /* the gradient gets l2 * value at the row's own updates; >= 0; 0 = none */
    float first_value_scale;   /* first values uniform in [-scale, scale); 0 = zeros */
    uint64_t seed;             /* of first values: ct_random(seed, CT_PLACE_FIRST_VALUE, 0, key, element / 4) */
    uint32_t min_count;   /* >= 1; 1 = a row from the first occurrence on; else from the first batch before which it was counted so often */
    bool target_stats;    /* every key keeps impressions and clicks: see ct_store_gather_counts */
    uint32_t expire_days; /* at most CT_TABLE_MAX_EXPIRE_DAYS; 0 = never */
    /* Keys without a row are counted approximately, in so much memory and no more (filter.h): never too low, seldom too high. At most
     * CT_TABLE_MAX_FILTER_MIB; 0 = exactly, by a stub for each. With a min_count of 2 .. CT_FILTER_MOST_COUNT, without target_stats. */
    uint32_t filter_mib;
    char content_hash[CT_DIGEST_HEX_BYTES]; /* frozen only: of the vector file, "" = none */
} ct_table_spec;

typedef struct ct_store ct_store;

typedef enum ct_store_mode {
    CT_STORE_TRAIN, /* all columns; rows may be changed */
    CT_STORE_LOOK,  /* no row at all, only what the tables are: for ct_store_digest, which reads the folder */
    CT_STORE_READ   /* only what a read needs: no optimiser state, and stubs only where the table has target_stats */
} ct_store_mode;

CT_MUST_CHECK ct_code ct_store_create(const ct_table_spec *tables, size_t table_count, ct_device *device, ct_pool *pool,
                                      ct_store **out_store, ct_status *status);
/* Reads the folder that ct_store_snapshot wrote, every row. `pool` and `device` must outlive the store. */
CT_MUST_CHECK ct_code ct_store_open(const char *folder, ct_store_mode mode, ct_device *device, ct_pool *pool, ct_store **out_store,
                                    ct_status *status);

/* The same, within a limit on memory: rows that do not fit are kept in a database on disk, and the result is the same to the bit.
 * memory_bytes: of everything of the store, tickets too (0 = no limit). It is anonymous memory that is counted; files are mapped, and
 * their pages the kernel's. CT_INVALID, with the least that works, at the first batch that it is too small for.
 * live_folder: TRAIN only: for that database, scratch: made anew, removed by destroy, best on the file system of the snapshots, which are
 * then hard links. With a limit one batch may be prefetched ahead, after the acquire of the one before.
 * all_on_disk: READ only: no row is read at opening, so it takes little time; each is read, with the checksum of its block, when it is
 * asked for. How many there are is believed as store.json says. */
enum { CT_STORE_LEAST_READ_MIB = 4 }; /* the least limit that READ keeps; below, it takes what it needs */
typedef struct ct_store_limit {
    uint64_t memory_bytes;
    const char *live_folder;
    bool all_on_disk;
} ct_store_limit;
CT_MUST_CHECK ct_code ct_store_create_within(const ct_table_spec *tables, size_t table_count, const ct_store_limit *limit,
                                             ct_device *device, ct_pool *pool, ct_store **out_store, ct_status *status);
CT_MUST_CHECK ct_code ct_store_open_within(const char *folder, ct_store_mode mode, const ct_store_limit *limit, ct_device *device,
                                           ct_pool *pool, ct_store **out_store, ct_status *status);

void ct_store_destroy(ct_store *store); /* NULL is fine */
/* Writes all tables into `folder`, which must not exist. The caller renames. */
CT_MUST_CHECK ct_code ct_store_snapshot(ct_store *store, const char *folder, ct_status *status);

/* From here on snapshots cost what has changed since the last one, and are written while training goes on; for TRAIN stores without a limit
 * on memory (those within one do so anyway). It takes a byte for each place of the index, and, while a snapshot is written, copies of what
 * training changes before it is: at most a quarter of the tables' memory or 64 MiB; then training waits. live_folder: as of ct_store_limit.
 * from: the snapshot that the store is as; NULL = none. */
CT_MUST_CHECK ct_code ct_store_save_beside(ct_store *store, const char *live_folder, const char *from, ct_status *status);
/* A snapshot in three steps. begin: of the store as it is now, not between acquire and apply; by the thread that trains. One at a time: it
 * waits until the one before has ended. write, by any thread, training or not: `folder` is whole afterwards. digest: as ct_store_digest at
 * the begin; after write. end: in any case; frees it. A store that is none of ct_store_save_beside's nor within a limit does its writing in
 * begin. */
typedef struct ct_snapshot ct_snapshot;
void ct_snapshot_wait(ct_store *store); /* until none is at work */
CT_MUST_CHECK ct_code ct_snapshot_begin(ct_store *store, const char *folder, ct_snapshot **out_snapshot, ct_status *status);
CT_MUST_CHECK ct_code ct_snapshot_write(ct_snapshot *snapshot, ct_status *status);
void ct_snapshot_digest(const ct_snapshot *snapshot, ct_digest *digest);
void ct_snapshot_end(ct_snapshot *snapshot); /* NULL is fine */

/* Feeds table specs, and of each table the sum of hashes of every row and stub: key, count, target statistics, values and state. Equal
 * stores, equal digests, whatever their files or partitions look like. Within a limit on memory the cost is that of what has changed.
 * Not for CT_STORE_READ stores. */
CT_MUST_CHECK ct_code ct_store_digest(ct_store *store, ct_digest *digest, ct_status *status);

/* Puts rows into a frozen table. keys: (count), distinct; values: (count, dim), copied. */
CT_MUST_CHECK ct_code ct_store_fill(ct_store *store, size_t table, const uint64_t *keys, const float *values, size_t count,
                                    ct_status *status);

/* Frozen tables of another store that have the same name, content hash and dim: the store has the other one's rows instead of its own, one
 * copy in memory for both, as long as either lives. Neither may be filled after that, nor be in use by another thread meanwhile. */
CT_MUST_CHECK ct_code ct_store_share_frozen(ct_store *store, ct_store *from, ct_status *status);

/* What ct_store_take found of a table. */
typedef struct ct_store_taken {
    bool rows_taken;   /* false: no table of that name, or one of another kind or dim, and nothing was taken */
    bool state_taken;  /* of the optimiser: where it is the same one; else a row's state is the initial one */
    bool counts_taken; /* target statistics, where both tables have them: those of the last epoch that was counted are now of epoch 0 */
    uint32_t dim;      /* of the other table; 0 = there is none */
    ct_row_optimiser optimiser;
    int64_t rows, stubs;
} ct_store_taken;
/* Fills a table that has no rows yet with those of the table of the same name in the snapshot `folder`. After a failure the store is good
 * for nothing but ct_store_destroy. */
CT_MUST_CHECK ct_code ct_store_take(ct_store *store, size_t table, const char *folder, ct_store_taken *out_taken, ct_status *status);

size_t ct_store_table_count(const ct_store *store);
const ct_table_spec *ct_store_table(const ct_store *store, size_t table);
int64_t ct_store_find_table(const ct_store *store, const char *name); /* -1 = none */

typedef struct ct_table_info {
    int64_t rows, stubs;      /* admitted; counting only (none where a filter counts). Without what has expired. READ: stubs only where the
                                 table has target_stats */
    int64_t waiting;          /* stubs, also those that a READ store leaves out */
    int64_t expired;          /* rows that did, since training began */
    uint64_t bytes;           /* memory: slabs, index and filter */
    int64_t missed;           /* READ within a limit: occurrences so far that were asked of the database, as memory had not their key */
    int64_t lookups, unknown; /* READ, and of frozen tables: occurrences so far that had a row / read the rare row or zeros. Approximate
                                 while others read. */
} ct_table_info;
void ct_store_table_info(const ct_store *store, size_t table, ct_table_info *out_info);
/* How full the filter is that counts keys without a row; of a TRAIN store. Reads it whole. */
typedef struct ct_filter_info {
    uint64_t bytes; /* 0 = there is none: keys are counted exactly */
    double fill;    /* share of its cells that are not 0 */
    double error;   /* the chance that the next key which was never seen is counted as if it had been */
} ct_filter_info;
void ct_store_filter_info(const ct_store *store, size_t table, ct_filter_info *out_info);
/* Of a store whose limit on memory was too small for a batch: the least that is enough for it; else 0. */
uint64_t ct_store_least_memory(const ct_store *store);
/* TRAIN within a limit: so many bytes of it are the caller's own from the next prefetch on; rows leave where they grow. Without a limit
 * nothing happens. */
void ct_store_count_others(ct_store *store, uint64_t bytes);

/* --- what a batch asks of one table --- */

/* The key of a feature's rare row. `salt`: the feature's (ct_field.salt). */
uint64_t ct_rare_key(uint64_t salt);

/* ATTENTION: the mean of the keys' values, weighted by how like they are to the row that another column has in the same row (attention.c).
 */
typedef enum ct_pooling { CT_POOL_SUM, CT_POOL_MEAN, CT_POOL_ATTENTION } ct_pooling;
enum { CT_ATTENTION_MAX_VALUES = 1000 };

/* One feature's keys. All pointers stay the caller's and must live until release. */
typedef struct ct_key_column {
    const uint64_t *keys;    /* (rows) or (offsets[rows]); (1) or (offsets[1]) where shared */
    const uint32_t *offsets; /* (rows + 1), rising, from 0 where shared (else from anywhere); or NULL: exactly one key a row */
    const float *weights;    /* as keys, or NULL: all 1; MEAN divides by their sum */
    bool shared;             /* one row of keys for all rows of the lookup; READ only */
    ct_pooling pooling;      /* of the keys of one row; none = zeros */
    uint32_t query;      /* ATTENTION, which needs offsets and takes no weights: index of the column whose key is compared with each of the
                            keys; it has exactly one a row */
    uint32_t compared;   /* ATTENTION: the first floats of a row that are compared, 1 .. dim */
    uint64_t rare_key;   /* 0 = none: an unknown key reads zeros (frozen tables) */
    uint32_t drop_index; /* index of id drop's random number: low half of the feature's salt */
    uint32_t output_column; /* where the table's `dim` values of this feature start in a row of the output */
} ct_key_column;

typedef enum ct_lookup_mode { CT_LOOKUP_READ, CT_LOOKUP_TRAIN } ct_lookup_mode;

typedef struct ct_lookup {
    ct_lookup_mode mode;
    size_t table;
    size_t rows;                  /* of the batch */
    size_t block_rows;            /* rows of a block: 256 or 128 (DESIGN's unit of arithmetic) */
    const ct_key_column *columns; /* (column_count) */
    size_t column_count;
    /* TRAIN only: id drop. An occurrence reads and trains its rare row where ct_random(drop_seed, CT_PLACE_ID_DROP, epoch, first_row + row,
     * drop_index).word[0] as a unit float < drop_rate. The first value of a row decides for all values of that feature in the row. A
     * dropped occurrence still counts for admission. Columns without a rare row, and frozen tables, drop nothing. */
    double drop_rate;
    uint64_t drop_seed;
    uint32_t epoch;
    int64_t first_row;
    uint32_t day; /* of the batch, since 1970; for tables with expire_days */
    bool alone;   /* prefetch runs on the calling thread only, which may be in a task of the store's pool */
} ct_lookup;

/* Scratch for one batch of one table; grows when a larger batch comes, allocates nothing once warm. */
typedef struct ct_ticket ct_ticket;
CT_MUST_CHECK ct_code ct_ticket_create(ct_store *store, ct_ticket **out_ticket, ct_status *status);
void ct_ticket_destroy(ct_ticket *ticket); /* NULL is fine */

/* How many rows, from the first one on, a READ lookup should have at once: 1 .. lookup->rows. Fewer than all where there is a limit on
 * memory, which counts the rows that all tickets together bring from disk. */
size_t ct_store_rows_at_once(const ct_store *store, const ct_lookup *lookup);
CT_MUST_CHECK ct_code ct_store_prefetch(ct_store *store, ct_ticket *ticket, const ct_lookup *lookup, ct_status *status);
/* TRAIN: admits, creates and counts rows; needs the previous batch's apply to be done. After a failure (memory) the store holds half a
 * batch's counts and is good for nothing but ct_store_destroy. */
CT_MUST_CHECK ct_code ct_store_acquire(ct_store *store, ct_ticket *ticket, ct_status *status);
/* Pooled values of rows [first_row, first_row + rows) to out: row r's feature c at out + (r - first_row) * out_stride + output_column.
 * Other columns are left alone. Thread-safe for disjoint rows between acquire and apply. Shared columns are written to row 0 (of the
 * lookup) only where `shared_once`, else to every row. */
void ct_store_gather(const ct_store *store, const ct_ticket *ticket, size_t first_row, size_t rows, bool shared_once, float *out,
                     size_t out_stride);
/* Ordered target statistics of a table with target_stats (without: zeros): how often the key of each row's value in `column` was seen, and
 * clicked, in earlier batches of the same epoch. Several values a row: the sums over them, without weights. Key by key: a key's own counts
 * count whether or not it is admitted. What id drop took, and a key that was never seen, has 0 and 0. An epoch's counts start from 0.
 * TRAIN: of the lookup's epoch; between acquire and apply, so no row of the batch is counted yet. READ: of the last epoch that was counted;
 * after acquire. Shared columns: the same for every row. Thread-safe as gather is. out_impressions, out_clicks: (rows), of rows
 * [first_row, first_row + rows). Counts stay at UINT32_MAX. */
void ct_store_gather_counts(const ct_store *store, const ct_ticket *ticket, size_t first_row, size_t rows, size_t column,
                            uint32_t *out_impressions, uint32_t *out_clicks);
/* Columns with CT_POOL_ATTENTION, TRAIN: from gradients of gather's output, of rows [first_row, first_row + rows), to those of the keys:
 * adds what the queries get to `gradients`, and keeps in the ticket what apply needs for the keys. Between gather and apply, once for each
 * row; thread-safe for disjoint rows. Nothing to do where no column attends. */
void ct_store_attend_back(const ct_store *store, const ct_ticket *ticket, size_t first_row, size_t rows, float *gradients, size_t stride);
/* gradients: (rows, stride) in the layout of gather's output, of the mean or summed loss; one row optimiser step for each row touched.
 * labels: (rows), or NULL: nothing is counted. Tables with target_stats then count every occurrence, with those that id drop took, as an
 * impression of its key, and as a click where the label is above 0.5. */
CT_MUST_CHECK ct_code ct_store_apply(ct_store *store, ct_ticket *ticket, const float *gradients, size_t stride, const float *labels,
                                     ct_status *status);
void ct_store_release(ct_store *store, ct_ticket *ticket);
/* How long training waited so far for rows from disk, for rows to be written, and for compaction that was behind; nanoseconds. */
int64_t ct_store_waited_ns(const ct_store *store);
/* What training within a limit on memory did with the database under it, so far. All 0 without one. By the thread that trains. */
typedef struct ct_store_disk {
    int64_t waited_ns;                /* as ct_store_waited_ns, of it: */
    int64_t held_ns, longest_held_ns; /* held back because compaction was behind; between two batches at most */
    uint64_t written_bytes, writes;   /* keys and records that left memory, or were written and stayed; in so many times */
    int64_t fetched, fetch_ns;        /* keys that were asked for; how long that took beside training */
    uint64_t asked_runs;              /* over these keys, how many runs (sorted files that cover all keys) there were then */
    uint32_t most_runs;               /* at any time */
} ct_store_disk;
void ct_store_disk_get(const ct_store *store, ct_store_disk *out_disk);
/* For the applies from now on, as a schedule asks; finite, not negative. The table's spec, which a snapshot keeps, stays as it is. */
void ct_store_set_learning_rate(ct_store *store, size_t table, float learning_rate);

/* For people: store.json, and what a scan of all rows finds, in the memory of one row. To each of "tables" are added bytes on disk
 * ("bytes", and by level "level_bytes"), what the rows would take in memory, how many of the virtual shards have rows and how many the
 * emptiest, the middle and the fullest one have ("shards", "shard_rows"), "dead_rows" (no update has changed them), "norm_mean",
 * "norm_most", and of a filter "filter_bytes", "filter_fill" and "filter_error" (ct_filter_info); and to the whole "use_counts" and
 * "norms": rows by how often their keys were seen, and by length, of each table. Caller owns out_json. */
CT_MUST_CHECK ct_code ct_store_describe(const char *folder, json_t **out_json, ct_status *status);
/* What belongs to one key of a table, into an object: key, shard, state ("row", "stub", "expired" or "unknown"), counts, norm, values. */
CT_MUST_CHECK ct_code ct_store_describe_key(const char *folder, size_t table, uint64_t key, json_t *into, ct_status *status);

#endif
