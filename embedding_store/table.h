/* A table's memory. Internal to the store.
 *
 * Keys are spread over partitions by their top bits, so partitions in order hold keys in order. A partition has an open-addressing index
 * (linear probing, at most 70 % full, grown by doubling, never shrunk) and slabs for values and optimiser state, which are addressed by
 * row number. Everything starts small and ends in pieces of 2 MiB or more, which the device backs with huge pages: a table of a thousand
 * rows takes kilobytes, one of a hundred million is quick. Where a table was opened for reading, the keys of its rows stand in order and
 * need no index (sorted.h); what comes later is in the index.
 *
 * One task at a time may change a partition; any number may read one that nobody changes. Row numbers and their order depend only on the
 * order in which keys came. Addresses of rows stay valid until rows are added. */
#ifndef EMBEDDING_STORE_TABLE_H
#define EMBEDDING_STORE_TABLE_H

#include <stdatomic.h>

#include "embedding_store/store.h"

enum { CT_PARTITION_BITS = 5, CT_MAX_PARTITION_BITS = 10 /* of the virtual shard */ };

#define CT_SLOT_EMPTY UINT32_C(0)
#define CT_SLOT_STUB  UINT32_MAX /* counts, no row yet */
#define CT_NO_ROW     UINT32_MAX

typedef struct ct_index_entry {
    uint64_t key;
    uint32_t slot;  /* CT_SLOT_EMPTY, CT_SLOT_STUB or row number + 1 */
    uint32_t count; /* occurrences in training so far; stays at UINT32_MAX */
} ct_index_entry;

/* Behind a key's entry, where the table has target statistics or expires. Statistics are of one epoch; those of another one count as none.
 */
typedef struct ct_key_counts {
    uint32_t impressions, clicks; /* stay at UINT32_MAX */
    uint32_t epoch;
    uint32_t day; /* of the log, on which the key was last seen; 0 where the table does not expire */
} ct_key_counts;

#define CT_DAY_NEVER UINT32_MAX /* as a key's day: it does not expire */

/* Fixed-size records of floats (or pairs of halves) by number, in chunks of a power of two, of which the last may be smaller: a first one
 * grows until it is as large as the others, and what is filled once is cut to what it holds. */
typedef struct ct_slab {
    float **chunks;
    uint32_t chunk_count, chunk_capacity;
    uint32_t shift;       /* log2 of a full chunk's rows */
    uint32_t floats;      /* of a record; 0 = no memory at all */
    size_t last_rows;     /* room in the last chunk */
    size_t capacity_rows; /* room in all chunks */
} ct_slab;

/* The keys of a partition's first rows where the table was opened for reading (sorted.h), in order: the row's number is the place. */
typedef struct ct_sorted {
    uint8_t *keys;    /* (count) of key_bytes each, the lowest ones of the key, little-endian; and 8 bytes more */
    uint32_t *starts; /* (2^(64 - bucket_shift) + 1): the first row of each bucket */
    uint64_t mask;    /* of a key: what key_bytes hold */
    uint32_t count;
    uint32_t alive; /* of them, those whose row was not given back, as what has expired is */
    uint8_t key_bytes, partition_bits, bucket_shift;
} ct_sorted;

/* Where all partitions' sorted keys and starts lie: one piece of address space for as many rows as there can be, so that they share huge
 * pages. What was not used of it takes no memory. */
typedef struct ct_sorted_memory {
    char *memory;
    size_t bytes;
    atomic_size_t used;
} ct_sorted_memory;

_Static_assert(sizeof(ct_key_counts) <= sizeof(ct_index_entry), "counts fit behind an entry");

typedef struct ct_partition {
    ct_sorted sorted; /* a key is here or in the index; empty where the table is trained. In front: what look-ups read. */
    ct_slab values;
    uint64_t used; /* entries of the index: rows and stubs */
    ct_index_entry *index;
    uint32_t entry_shift; /* 1 = every second entry is the place of ct_key_counts, else 0 */
    uint32_t index_bits;
    uint32_t rows;  /* records in the slabs, free ones too */
    uint64_t bytes; /* index, slabs and sorted keys */
    ct_slab state;
    ct_slab counts; /* of the sorted keys: a ct_key_counts each, where the table has any */
    /* where a cache over a database (tier.h) keeps it within a limit; else empty, and most_rows the largest number */
    uint32_t *touched;   /* by place: number of the plan that asked for the key last */
    uint32_t *free_rows; /* (free_count): records that no entry has; room for most_rows */
    uint32_t free_count, most_rows;
    /* where a saver (saver.h) writes the table beside training; else NULL */
    uint8_t *marks; /* by place: when the key changed last, as the saver counts; 0 where it is empty */
    uint8_t mark;   /* of what changes now */
} ct_partition;

typedef struct ct_table {
    ct_table_spec spec;
    ct_device *device;
    uint32_t partition_bits;
    size_t partition_count;
    ct_partition *partitions;            /* (partition_count) */
    ct_sorted_memory *sorted_memory;     /* the partitions'; NULL = none */
    atomic_size_t *sharers;              /* how many tables have these partitions; NULL = this one alone */
    float *zeros;                        /* (dim): what a key without a row reads */
    float learning_rate;                 /* of the applies to come; the spec's, or what ct_store_set_learning_rate says */
    uint32_t counted_epoch;              /* the last one that target statistics were counted in */
    uint32_t day, first_day, oldest_day; /* of the log, where the table expires: see ct_oldest_day */
    int64_t expired;                     /* rows, so far */
    int64_t stored_stubs;                /* READ: that the folder, or the last delta, says there are */
    int64_t outside_rows, outside_stubs; /* of keys that are in the database alone */
    struct ct_filter *filter;            /* TRAIN, where the spec has one: counts keys without a row (filter.h); else NULL */
    _Atomic int64_t lookups, unknown, missed;
} ct_table;

/* state_floats: of a row's optimiser state; 0 where it is not kept. */
CT_MUST_CHECK ct_code ct_table_init(ct_table *table, const ct_table_spec *spec, ct_device *device, uint32_t partition_bits,
                                    uint32_t state_floats, ct_status *status);
void ct_table_deinit(ct_table *table); /* fine on a zeroed one */
/* Drops the table's own rows and has those of `from`, which nobody may change from now on, for as long as either lives. Both have as many
 * partitions. */
CT_MUST_CHECK ct_code ct_table_share(ct_table *table, ct_table *from, ct_status *status);

/* The key's entry; a new one is a stub with count 0. The pointer is valid until the next claim in the partition. */
CT_MUST_CHECK ct_code ct_partition_claim(ct_table *table, ct_partition *partition, uint64_t key, ct_index_entry **out_entry,
                                         ct_status *status);
/* Makes room for `rows` more rows, so that adding them moves none. */
CT_MUST_CHECK ct_code ct_partition_reserve(ct_table *table, ct_partition *partition, size_t rows, ct_status *status);
/* Gives memory back: room for `rows` rows, at least as many as there are, and 2^bits places, for which its keys are not too many. Rows and
 * entries move. */
CT_MUST_CHECK ct_code ct_partition_shrink(ct_table *table, ct_partition *partition, uint32_t rows, uint32_t bits, ct_status *status);
/* The same for the counts of sorted keys. */
CT_MUST_CHECK ct_code ct_partition_reserve_counts(ct_table *table, ct_partition *partition, size_t rows, ct_status *status);
/* Gives a stub a row; its values and state are not set. */
CT_MUST_CHECK ct_code ct_partition_add_row(ct_table *table, ct_partition *partition, ct_index_entry *entry, ct_status *status);
/* Takes the entry at `place` out of the index, and gives its row back. Entries behind it may move up. Only where free_rows has room. */
void ct_partition_remove(ct_partition *partition, size_t place);
/* The entry becomes a stub, and its row, if it had one, free. Only where free_rows has room. */
void ct_partition_free_row(ct_partition *partition, ct_index_entry *entry);
/* The same, with the room for it. */
CT_MUST_CHECK ct_code ct_partition_drop_row(ct_partition *partition, ct_index_entry *entry, ct_status *status);
/* First values of a key, and the initial state. A rare row begins at zero. */
void ct_partition_set_first(const ct_table *table, ct_partition *partition, uint32_t row, uint64_t key, bool rare);
/* The rows that there are, will be all for a while: gives back what the last chunks have beyond them. Nobody reads meanwhile. */
CT_MUST_CHECK ct_code ct_partition_trim(ct_table *table, ct_partition *partition, ct_status *status);
/* Memory of the table's device, zeroed. */
CT_MUST_CHECK ct_code ct_table_allocate(const ct_table *table, size_t bytes, void **out_memory, ct_status *status);
void ct_table_release(const ct_table *table, void *memory, size_t bytes);
/* A copy of the entries of the partition's index sorted by key; (partition->used), malloc'd; NULL where there are none. */
CT_MUST_CHECK ct_code ct_partition_sorted(const ct_partition *partition, ct_index_entry **out_entries, ct_status *status);

/* Memory that a partition has no more use for, while somebody may still read it. */
typedef struct ct_retired {
    struct {
        void *memory;
        size_t bytes; /* of the device's memory; 0 = the heap's */
    } * items;
    size_t count, capacity;
} ct_retired;
void ct_retired_release(ct_retired *retired, const ct_table *table); /* fine on a zeroed one, and twice */
/* Makes room for `entries` more entries and `rows` more rows, where others read the partition meanwhile through copies of the struct:
 * nothing that they see is moved or freed, what is replaced goes to `retired`. */
CT_MUST_CHECK ct_code ct_partition_grow_aside(ct_table *table, ct_partition *partition, size_t entries, size_t rows, ct_retired *retired,
                                              ct_status *status);
/* Of a row's values, and how many floats' room they take in a slab. */
static inline size_t ct_value_bytes(const ct_table_spec *spec) {
    return spec->dim * (spec->precision == CT_ROW_FP16 ? sizeof(uint16_t) : sizeof(float));
}
static inline uint32_t ct_value_floats(const ct_table_spec *spec) {
    return spec->precision == CT_ROW_FP16 ? (spec->dim + 1) / 2 : spec->dim;
}

/* log2 of the places that an entry takes in the index. */
static inline uint32_t ct_entry_shift(const ct_table_spec *spec) { return spec->target_stats || spec->expire_days; }

static inline uint32_t ct_partition_rows(const ct_partition *partition) { return partition->rows - partition->free_count; }
static inline int64_t ct_partition_stubs(const ct_partition *partition) {
    return (int64_t)(partition->used + partition->sorted.alive) - ct_partition_rows(partition);
}

static inline size_t ct_partition_of(uint64_t key, uint32_t bits) { return (size_t)((key >> 1) >> (63 - bits)); }

static inline size_t ct_key_home(uint64_t key, uint32_t bits) { return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - bits)); }

static inline float *ct_slab_at(const ct_slab *slab, size_t row) {
    return slab->chunks[row >> slab->shift] + (row & (((size_t)1 << slab->shift) - 1)) * slab->floats;
}

/* Place 0 .. 2^index_bits - 1 of the index. */
static inline ct_index_entry *ct_partition_entry(const ct_partition *partition, size_t place) {
    return &partition->index[place << partition->entry_shift];
}

/* The other way round. */
static inline uint32_t ct_partition_place(const ct_partition *partition, const ct_index_entry *entry) {
    return (uint32_t)((size_t)(entry - partition->index) >> partition->entry_shift);
}

/* `shift`: the partition's entry_shift, where a caller's loop knows it as a constant. */
static inline ct_index_entry *ct_partition_find_by(const ct_partition *partition, uint64_t key, uint32_t shift) {
    const size_t mask = ((size_t)1 << partition->index_bits) - 1;
    for (size_t at = ct_key_home(key, partition->index_bits);; at = (at + 1) & mask) {
        ct_index_entry *entry = &partition->index[at << shift];
        /* Of a table that follows deltas, other keys' entries may just be written (following.c). */
        if (__atomic_load_n(&entry->slot, __ATOMIC_ACQUIRE) == CT_SLOT_EMPTY) return NULL;
        if (__atomic_load_n(&entry->key, __ATOMIC_RELAXED) == key) return entry;
    }
}

static inline ct_index_entry *ct_partition_find(const ct_partition *partition, uint64_t key) {
    return ct_partition_find_by(partition, key, partition->entry_shift);
}

/* Only where the table has target statistics or expires. `entry`: in the index, not a copy. */
static inline ct_key_counts *ct_entry_counts(ct_index_entry *entry) { return (ct_key_counts *)(void *)(entry + 1); }

/* Of a table that expires: was it not seen for too long? */
static inline bool ct_entry_expired(const ct_table *table, const ct_index_entry *entry) {
    return table->spec.expire_days && ((const ct_key_counts *)(const void *)(entry + 1))->day < table->oldest_day;
}

/* Brings a line of a table, or what a batch keeps beside it, near that is asked for in 8 to 32 keys: into the second cache. The first one
 * can wait for so few lines at a time that a random one takes up to half as long again, whatever the distance. */
static inline __attribute__((always_inline)) void ct_prefetch(const void *at) { __builtin_prefetch(at, 0, 2); }

/* Of the index alone: the line where the key's search begins, and the next one where it begins in the second half of a line, as some go on
 * there. That may be behind the index's end: nothing happens then. */
static inline __attribute__((always_inline)) void ct_table_prefetch_by(const ct_table *table, uint64_t key, uint32_t shift) {
    const ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    const char *home = (const char *)&partition->index[ct_key_home(key, partition->index_bits) << shift];
    ct_prefetch(home);
    ct_prefetch(home + 2 * sizeof(ct_index_entry));
}

static inline __attribute__((always_inline)) void ct_table_prefetch(const ct_table *table, uint64_t key) {
    ct_table_prefetch_by(table, key, ct_entry_shift(&table->spec));
}

#endif
