/* What the store's files share. Internal: nobody else includes this, except tests that set the number of partitions. */
#ifndef EMBEDDING_STORE_STORE_INTERNAL_H
#define EMBEDDING_STORE_STORE_INTERNAL_H

#include "embedding_store/optimiser.h"
#include "embedding_store/table.h"

typedef struct ct_tier ct_tier;               /* tier.h */
typedef struct ct_tier_ticket ct_tier_ticket; /* tier.h */
typedef struct ct_live ct_live;               /* live.h */
typedef struct ct_changes ct_changes;         /* changes.h */
typedef struct ct_saver ct_saver;             /* saver.h */
typedef struct ct_snapshot_turn ct_snapshot_turn;

struct ct_store {
    ct_device *device;
    ct_pool *pool;
    ct_store_mode mode;
    uint32_t partition_bits;
    size_t table_count;
    ct_table *tables; /* (table_count) */
    ct_tier *tier;    /* NULL = all rows are in memory */
    /* CT_STORE_LOOK */
    char *folder;
    struct ct_stored_table *stored; /* (table_count) */
    bool frozen_live;               /* tier: its database has the frozen tables too */
    bool frozen_summed;
    ct_sum *frozen_sums;    /* (table_count): of frozen tables, where they are summed up */
    ct_snapshot_turn *turn; /* TRAIN: one snapshot at a time */
    ct_saver *saver;        /* TRAIN: NULL = snapshots are written at once, and whole. Never beside a tier. */
    ct_changes *changes;    /* TRAIN: NULL = nobody asks what has changed */
    uint64_t changes_bytes; /* that they may have; 0 = no limit */
    bool view;              /* of a store that follows deltas (following.c) */
    /* of a view: what is read before the tables are; NULL = nothing */
    _Atomic(const struct ct_store *) overlay;
};

/* filter.h */
void ct_filter_set_period(struct ct_filter *filter, uint32_t period);

/* As ct_store_create, in either mode, with 2^partition_bits partitions, 0 .. CT_MAX_PARTITION_BITS. */
CT_MUST_CHECK ct_code ct_store_create_parted(const ct_table_spec *tables, size_t table_count, ct_store_mode mode, uint32_t partition_bits,
                                             ct_device *device, ct_pool *pool, ct_store **out_store, ct_status *status);

/* Where parallel tasks leave their first failure; the rest of them still run. */
typedef struct ct_failure {
    atomic_bool set;
    ct_status *status; /* written by the one task that set `set` */
} ct_failure;
void ct_failure_put(ct_failure *failure, const ct_status *status);
static inline ct_code ct_failure_code(ct_failure *failure) { return atomic_load(&failure->set) ? failure->status->code : CT_OK; }

/* --- a batch's scratch --- */

/* Memory that only grows; contents are lost when it does. */
typedef struct ct_scratch {
    void *memory;
    size_t bytes;
} ct_scratch;
/* At least `bytes`, zeroed where it had to grow. */
CT_MUST_CHECK ct_code ct_scratch_reserve(ct_scratch *scratch, size_t bytes, ct_status *status);

/* Finds a batch's distinct keys: open addressing; an entry is valid where its stamp is the current one, so nothing is ever cleared. */
typedef struct ct_dedupe_entry {
    uint64_t key;
    uint32_t unique;
    uint32_t stamp;
} ct_dedupe_entry;
typedef struct ct_dedupe {
    ct_scratch scratch;
    uint32_t stamp;
    char padding[64 - sizeof(ct_scratch) - sizeof(uint32_t)]; /* a worker's own cache line */
} ct_dedupe;

/* An occurrence's target statistics before the batch. */
typedef struct ct_seen {
    uint32_t impressions, clicks;
} ct_seen;

/* What acquire notes of a unique for apply. */
typedef struct ct_noted {
    ct_seen seen;
    uint32_t place; /* in its partition's index, true as long as that has as many bits as then */
} ct_noted;

typedef enum ct_ticket_stage { CT_TICKET_FREE, CT_TICKET_PREFETCHED, CT_TICKET_ACQUIRED, CT_TICKET_APPLIED } ct_ticket_stage;

/* Occurrences are numbered by (block, feature, row, value): an occurrence's `order`. starts[block * column_count + feature] is the first of
 * that feature in that block; shared columns have theirs behind all blocks. tokens[order] is where the occurrence's values are. */
struct ct_ticket {
    ct_store *store;
    ct_ticket_stage stage;
    ct_lookup lookup;
    ct_table *table;
    bool training;     /* the batch will change the table: TRAIN on a trained table */
    bool plain;        /* every column has exactly one key a row and no weights, none is shared */
    bool weighted;     /* some gradient is scaled: factors is filled */
    bool attends;      /* some column is pooled by attention */
    size_t block_rows; /* of this batch */
    size_t blocks, occurrences, shared_occurrences;

    uint32_t *starts;     /* (blocks * column_count + 1) */
    size_t *shared_start; /* (column_count); valid where shared */
    const float **tokens; /* (occurrences + shared_occurrences + slack) */
    ct_seen *seen;        /* (occurrences + shared_occurrences) where the table has target statistics, else NULL */

    /* training only */
    float *factors; /* (occurrences): weight, or weight / sum of weights; valid where `weighted` */
    /* where a column attends */
    float *slopes;       /* (occurrences): the second factor, of the query; valid for columns that attend */
    float *queries;      /* (columns that attend, rows, query_stride) as they were in gather */
    size_t query_stride; /* the table's dim */
    uint32_t *attended;  /* (column_count): which of the columns that attend, from 1; 0 = it does not */

    uint32_t *output_column; /* (column_count) */
    uint32_t *rare_of;       /* (column_count): index of the column's rare key; CT_NO_ROW = none */
    uint64_t *rare_keys;     /* (rare_count), distinct, in the order of the columns */
    size_t rare_count;
    /* occurrences of a block, sorted by partition: block b's part p is [segments[b * (P + 1) + p], segments[b * (P + 1) + p + 1]) */
    uint64_t *sorted_keys;
    ct_occurrence *sorted;
    uint32_t *segments;
    /* distinct keys of partition p: uniques[bases[p]] .. + unique_counts[p]; their occurrences in order: list[bases[p] + ...] */
    size_t *bases; /* (P + 1) */
    uint32_t *unique_counts;
    ct_unique *uniques;
    uint32_t *unique_of; /* (occurrences): scratch */
    ct_occurrence *list;
    uint8_t *rerouted; /* (P): the partition holds keys without a row */
    bool dropped;      /* id drop is on */
    /* occurrences that read rare rows: by block, from starts on; then as uniques of their own */
    ct_occurrence *open;      /* (occurrences) */
    uint32_t *open_counts;    /* (blocks) */
    ct_unique *rare_uniques;  /* (rare_count) */
    ct_occurrence *rare_list; /* (occurrences) */
    uint32_t *rare_cursors;   /* (blocks * rare_count) */
    bool any_rare;
    /* where the table has target statistics */
    ct_noted *noted;      /* as uniques */
    uint32_t *noted_bits; /* (P): bits of the partition's index when acquire began */
    ct_dedupe *dedupes;   /* (threads) */
    size_t dedupe_count;

    ct_tier_ticket *tier; /* NULL until it is needed */
    /* what is asked before the table (following.h): the same table of an overlay; NULL = nothing */
    const ct_table *overlay;

    ct_scratch scratch[27];
};

/* lookup.c: checks a lookup and lays the ticket out for it. */
CT_MUST_CHECK ct_code ct_lookup_plan(ct_store *store, ct_ticket *ticket, const ct_lookup *lookup, ct_status *status);

/* expire.c: the log has come to `day`. What has expired is not in memory afterwards. */
CT_MUST_CHECK ct_code ct_expire(ct_store *store, ct_table *table, uint32_t day, ct_status *status);
/* Removes what has expired by the table's day. */
CT_MUST_CHECK ct_code ct_expire_rows(ct_store *store, ct_table *table, ct_status *status);
/* Keys that were seen last on a day before this one have expired. first_day: of the log, on which what has no day counts as seen. */
static inline uint32_t ct_oldest_day(uint32_t expire_days, uint32_t first_day, uint32_t day) {
    return !expire_days || day <= expire_days || first_day >= day - expire_days ? 0 : day - expire_days;
}
static inline void ct_table_set_day(ct_table *table, uint32_t first_day, uint32_t day) {
    table->first_day = first_day;
    table->day = day;
    table->oldest_day = ct_oldest_day(table->spec.expire_days, first_day, day);
    if (table->filter && table->spec.expire_days) ct_filter_set_period(table->filter, (day - first_day) / table->spec.expire_days);
}

/* lookup_train.c: TRAIN on a trained table. */
CT_MUST_CHECK ct_code ct_train_prefetch(ct_ticket *ticket, ct_status *status);
CT_MUST_CHECK ct_code ct_train_acquire(ct_ticket *ticket, ct_status *status);
CT_MUST_CHECK ct_code ct_train_apply(ct_ticket *ticket, const float *gradients, size_t stride, const float *labels, ct_status *status);

/* lookup_counts.c: adds the partition's part of the batch to its target statistics. */
void ct_counts_apply(ct_ticket *ticket, size_t part, const float *labels);
/* What a key has in that epoch. */
static inline ct_seen ct_counts_in_epoch(const ct_key_counts *counts, uint32_t epoch) {
    return counts->epoch == epoch ? (ct_seen){counts->impressions, counts->clicks} : (ct_seen){0, 0};
}
/* What an overlay says of a key: false where it does not have it. *out_values: NULL = no row; *out_seen: where the ticket has any. */
static inline bool ct_overlay_find(const ct_table *overlay, uint64_t key, const float **out_values, ct_seen *out_seen) {
    const ct_partition *partition = &overlay->partitions[ct_partition_of(key, overlay->partition_bits)];
    ct_index_entry *entry = ct_partition_find(partition, key);
    if (!entry) return false;
    *out_values = entry->slot == CT_SLOT_STUB ? NULL : ct_slab_at(&partition->values, entry->slot - 1);
    if (overlay->spec.target_stats) *out_seen = ct_counts_in_epoch(ct_entry_counts(entry), overlay->counted_epoch);
    return true;
}
static inline uint32_t ct_add_counts(uint32_t a, uint32_t b) { return a > UINT32_MAX - b ? UINT32_MAX : a + b; }

/* attention.c: gather of column `number`, which attends, for rows [first_row, first_row + rows), to out + output_column, rows stride apart.
 */
void ct_attend(const ct_ticket *ticket, size_t number, size_t first_row, size_t rows, float *out, size_t stride);

/* lookup_read.c: everything else. Changes nothing but the ticket and the table's counters. */
void ct_read_acquire(ct_ticket *ticket);

/* pool may be NULL: the caller does it all, as worker 0. */
void ct_run(ct_pool *pool, size_t tasks, ct_task_fn function, void *context);

/* --- the files of a snapshot --- */

/* manifest.c: store.json. Row counts are what the database must hold. Caller owns. */
CT_MUST_CHECK ct_code ct_store_manifest_json(const ct_store *store, json_t **out_json, ct_status *status);
typedef struct ct_stored_column {
    bool present;
    uint32_t offset; /* in a row's value */
} ct_stored_column;
typedef struct ct_stored_table {
    ct_table_spec spec;
    int64_t rows, stubs;
    uint32_t row_bytes, stub_bytes; /* of a value; stub_bytes 0 = there are none */
    ct_stored_column count, admitted, impressions, clicks, epoch, day, state[CT_STATE_COLUMNS], value;
    uint32_t counted_epoch, first_day, today; /* of the table */
    int64_t expired;
} ct_stored_table;
CT_MUST_CHECK ct_code ct_store_manifest_read(const char *folder, ct_stored_table **out_tables /* malloc'd */, size_t *out_count,
                                             json_t **out_json /* may be NULL */, ct_status *status);
/* `path`: for messages. */
CT_MUST_CHECK ct_code ct_store_manifest_parse(const json_t *json, const char *path, ct_stored_table **out_tables /* malloc'd */,
                                              size_t *out_count, ct_status *status);

/* disk.c: the database. */
CT_MUST_CHECK ct_code ct_disk_write(ct_store *store, const char *folder, ct_status *status);
/* frozen_only: leaves trained tables alone. */
CT_MUST_CHECK ct_code ct_disk_read(ct_store *store, const char *folder, const ct_stored_table *stored, bool frozen_only, ct_status *status);
/* snapshot.c */
CT_MUST_CHECK ct_code ct_snapshot_turn_create(ct_snapshot_turn **out_turn, ct_status *status);
void ct_snapshot_turn_destroy(ct_snapshot_turn *turn); /* NULL is fine */
/* The rows of table `from` of a snapshot become those of table `number`, which has none; target statistics as ct_store_take says. */
CT_MUST_CHECK ct_code ct_tier_take(ct_store *store, size_t number, const char *folder, const ct_stored_table *stored, size_t count,
                                   size_t from, ct_status *status);
#endif
