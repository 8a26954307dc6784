/* What the tier's files share. */
#ifndef EMBEDDING_STORE_TIER_INTERNAL_H
#define EMBEDDING_STORE_TIER_INTERNAL_H

#include "embedding_store/tier.h"

typedef struct ct_helper ct_helper; /* helper.h */
typedef struct tier_table tier_table;

typedef struct tier_out_entry {
    uint64_t key;
    size_t offset, bytes; /* of its record */
} tier_out_entry;

typedef struct tier_out_part {
    tier_out_entry *entries; /* (count), sorted by key once it is sent */
    size_t count, room;
    char *records; /* (bytes) */
    size_t bytes, bytes_room;
} tier_out_part;

/* Records on their way out, of one table, by partition. */
typedef struct tier_out {
    ct_live *live;
    tier_table *state; /* the table's */
    size_t table, parts;
    tier_out_part *part; /* (parts) */
    uint64_t job;        /* the helper's, that writes them */
} tier_out;

/* Of one day of the log: what was last seen on it, so that what expires together is taken off together. */
typedef struct tier_day {
    uint32_t day;
    ct_sum sum;          /* of what is in the database as it is, resident or not */
    int64_t rows, stubs; /* in the database alone */
} tier_day;

enum { TIER_AGES = 64 };

typedef struct tier_part {
    uint32_t written;         /* what was touched up to here is in the database as it is */
    uint32_t dirty;           /* entries that were touched later */
    uint32_t asked;           /* distinct keys of the batch that was planned last */
    bool to_write;            /* now */
    uint32_t ages[TIER_AGES]; /* of a choice: dirty entries, by how long they were not asked for */
    tier_day *days;           /* (day_count): all that any key has; 0 alone where the table does not expire */
    uint32_t day_count, day_room;
    ct_sum pending;                      /* of what the last flush wrote that counts as changed all the same */
    int64_t evicted_rows, evicted_stubs; /* by a task; negative = brought in */
} tier_part;

/* What the helper has done for a table; it alone writes here. */
typedef struct tier_done {
    _Atomic uint32_t runs, most_runs; /* after the last write; after any */
    atomic_bool behind;               /* is compaction, after the last write */
    _Atomic uint64_t written_bytes, writes, written_keys;
    _Atomic uint64_t most_level0_bytes; /* at any time */
    _Atomic int64_t fetched, fetch_ns;  /* keys asked for; all of it */
    _Atomic uint64_t asked_runs;        /* sum over these keys of the runs that there were */
} tier_done;

/* How training is held back; its own thread's. */
typedef struct tier_pace {
    int64_t since_ns; /* it has worked, since the end of the last wait; 0 = it has not begun */
    int64_t held_ns, longest_ns;
} tier_pace;

struct tier_table {
    tier_part *part;       /* (partitions) */
    uint64_t sized_for;    /* keys of a batch; 0 = never */
    uint64_t sized_rows;   /* of a partition, that two batches may ask for */
    uint64_t needed_rows;  /* that two may have asked for so far */
    uint64_t sized_beside; /* what others had then */
    uint64_t sized_merge;  /* what merging wanted then */
    uint64_t most_entries; /* of a partition's index */
    uint32_t most_bits;    /* its size */
    uint64_t most_dirty;   /* bytes */
    tier_out out[2];       /* one is filled while the other is written */
    size_t next_out;
    tier_done done;
};

typedef struct fetch {
    ct_tier_ticket *ticket;
    ct_live *live;
    tier_done *done;
    size_t table, first;
    const ct_stored_table *layout;
} fetch;

/* A folder of links to the database's files as they will be when the jobs before it are done. */
typedef struct tier_link {
    ct_live *live;
    const char *folder;
    uint64_t job; /* the helper's */
} tier_link;

/* What a batch misses. */
struct ct_tier_ticket {
    uint32_t sequence;
    /* keys that are not resident, rising: partition p's at [first[p], first[p + 1]); rare ones behind them, count .. count + rare_count */
    uint64_t *missing;
    size_t *missing_counts, *first; /* (parts), (parts + 1) */
    size_t count, rare_count;
    size_t *offsets; /* as missing: of the record among records, twice, and 1 more for a row's; SIZE_MAX = there is none */
    ct_scratch records;
    size_t records_used;
    fetch fetch;
    uint64_t job; /* the helper's */
    ct_scratch scratch[8];
};

struct ct_tier {
    ct_store *store;
    ct_live *live;
    ct_helper *helper; /* NULL = for reading only */
    /* Reading, while deltas are followed: a database of records that have changed and are not in memory; asked before `live`. */
    _Atomic(ct_live *) changed;
    ct_stored_table *changed_layouts; /* (table_count); NULL until there is one */
    uint64_t memory_bytes, cache_bytes;
    uint64_t others_counted; /* bytes of the limit that the store's user has */
    uint64_t least_bytes;    /* where the limit was too small: one that is not; else 0 */
    atomic_int tickets;      /* that there are */
    size_t trained;          /* tables */
    tier_table *tables;      /* (table_count); of trained ones */
    tier_pace pace;
    ct_stored_table *layouts;    /* (table_count): of the database's records */
    uint32_t sequence, acquired; /* numbers of the plans made, and acquired, last */
    ct_ticket *current;          /* acquired and not applied; NULL = none */
    ct_ticket *planned;          /* prefetched and not acquired; NULL = none */
    ct_tier_ticket plan;         /* of that one, or else of the last; tickets that read have their own */
    int64_t misses;
    tier_link link;
    bool expired_wait;                   /* compactions have still to be told what has expired */
    ct_status failed;                    /* of a plan; nothing is right from there on */
    _Atomic uint64_t bad_key;            /* of a row that left with a value that is not finite */
    _Atomic(const ct_table *) bad_table; /* its table; NULL = there is none */
};

/* What tasks over a table's partitions share, where rows leave or are written. */
typedef struct tier_work {
    ct_tier *tier;
    ct_ticket *ticket; /* that is planned; NULL = a flush */
    tier_table *state;
    tier_out *out;
    uint32_t evictable; /* touched must be less */
    uint32_t final;     /* what was touched up to here will not change before it is asked for again */
    ct_failure failure;
} tier_work;

/* It is there for the day of each entry and of each record that has not expired. */
static inline tier_day *tier_day_of(const tier_part *part, uint32_t day) {
    tier_day *at = &part->days[part->day_count - 1];
    while (at > part->days && at->day != day) at--;
    return at;
}
static inline uint32_t tier_entry_day(const ct_table *table, const ct_index_entry *entry) {
    return table->spec.expire_days ? ((const ct_key_counts *)(const void *)(entry + 1))->day : 0;
}

/* tier.c: with nothing but the store and the layouts; stored: NULL = as this program writes. */
CT_MUST_CHECK ct_code tier_init(ct_store *store, const ct_stored_table *stored, ct_tier **out_tier, ct_status *status);

/* tier.c: from now on compactions drop what has expired; but what a snapshot has that is not linked yet must stay until it is: then this
 * has to be called again (expired_wait). */
void tier_drop_expired(ct_tier *tier);

/* tier_sizes.c: of an index's place, and of a row. */
size_t tier_place_bytes(const ct_partition *partition);
size_t tier_row_bytes(const ct_partition *partition);
/* Sets the sizes of the table's partitions by what the largest batch so far leaves. */
CT_MUST_CHECK ct_code tier_set_sizes(ct_tier *tier, const ct_ticket *ticket, ct_status *status);

/* Gives back what the partition has beyond its size, where nobody holds its rows. */
CT_MUST_CHECK ct_code tier_shrink(ct_table *table, const tier_table *state, size_t part, ct_status *status);

/* tier_write.c: one that no job holds. */
CT_MUST_CHECK ct_code tier_out_take(ct_tier *tier, tier_table *state, tier_out **out_out, ct_status *status);
void tier_out_sort(tier_out_part *out);
/* Has the helper write it, if there is anything. */
CT_MUST_CHECK ct_code tier_out_send(ct_tier *tier, tier_out *out, ct_status *status);
/* Makes room for `rows` rows and `entries` entries. */
CT_MUST_CHECK ct_code tier_make_room(const tier_work *work, size_t part, uint64_t rows, uint64_t entries, ct_status *status);
/* Between two batches: waits where compaction is behind (pace.h). */
void tier_hold_back(ct_tier *tier, size_t table);
/* So that not too much is dirty: whether, and up to which plan, partitions write back what this plan does not ask for. */
void tier_choose_dirty(tier_work *work);
/* All that has changed and will not change before it is asked for again. */
CT_MUST_CHECK ct_code tier_write_back(const tier_work *work, size_t part, ct_status *status);

#endif
