/* A cache over a database: tables that outgrow memory. docs/architecture.md, "More rows than memory", has the whole; internal to the store.
 *
 * Plans are numbered. A partition's `touched` says which plan asked for a key last; an entry is changed (its record in the database, if
 * any, is older) where touched > written, the number up to which the partition was written out. A row may leave where touched is less than
 * the number of the batch that was acquired last: that one and the one planned ahead are pinned.
 *
 * Threads: everything here is called by the one thread that trains, but for ct_tier_read (any thread, while nobody trains) and the
 * helper's own jobs. The helper touches the database, a ticket's fetched records and the records on their way out; it never touches a
 * partition. */
#ifndef EMBEDDING_STORE_TIER_H
#define EMBEDDING_STORE_TIER_H

#include "embedding_store/record.h"
#include "embedding_store/tuning.h"

typedef struct ct_tier_limits {
    uint64_t memory_bytes;   /* of all of the store */
    uint64_t cache_bytes;    /* for tests: of the rows and their index alone; 0 = what memory_bytes leaves */
    const ct_tuning *tuning; /* for tests and benchmarks: of the live database; NULL = ours */
} ct_tier_limits;
/* folder: of the live database. from: the snapshot that it begins with, or NULL; its rows and stubs are counted by the caller as outside.
 */
CT_MUST_CHECK ct_code ct_tier_create(ct_store *store, const ct_tier_limits *limits, const char *folder, const char *from,
                                     const ct_stored_table *stored, ct_status *status);
/* For reading: as many rows as fit become resident, those first that were counted most, or none (limit->all_on_disk); the others are read
 * from `folder` when asked for. */
CT_MUST_CHECK ct_code ct_tier_open(ct_store *store, const ct_store_limit *limit, const char *folder, const ct_stored_table *stored,
                                   ct_status *status);
void ct_tier_destroy(ct_tier *tier); /* NULL is fine */
/* The part of a ticket that is the tier's. NULL is fine. */
void ct_tier_ticket_destroy(ct_tier_ticket *ticket);

/* A TRAIN ticket whose distinct keys are known: marks, makes room, and starts to fetch what is missing. */
CT_MUST_CHECK ct_code ct_tier_plan(ct_tier *tier, ct_ticket *ticket, ct_status *status);
/* Its keys are resident afterwards, but for rare keys that are nowhere, and, where a filter counts, keys that have no row. */
CT_MUST_CHECK ct_code ct_tier_admit(ct_tier *tier, ct_ticket *ticket, ct_status *status);
/* While it is acquired: the key of a new entry of the ticket's part. By the task of the part. */
void ct_tier_added(ct_tier *tier, const ct_table *table, size_t part, const ct_index_entry *entry);
/* The ticket's rows are acquired; rare rows may have been added. */
void ct_tier_acquired(ct_tier *tier, ct_ticket *ticket);
/* Its rows will change no more. */
void ct_tier_applied(ct_tier *tier, const ct_ticket *ticket);

/* Reading: makes the database that records which deltas have changed are put into, in `folder`, which is scratch. Others may read. */
CT_MUST_CHECK ct_code ct_tier_create_changed(ct_tier *tier, const char *folder, ct_status *status);
ct_live *ct_tier_changed(ct_tier *tier); /* NULL = there is none */
/* Its compactions may drop what has expired by the table's day. */
void ct_tier_expire_changed(ct_tier *tier, const ct_table *table);
/* More or fewer (by `change`) tickets share what the limit has for reading. Any thread. */
void ct_tier_count_ticket(ct_tier *tier, int change);
size_t ct_tier_rows_at_once(const ct_tier *tier, const ct_lookup *lookup); /* see ct_store_rows_at_once */
/* Instead of ct_read_acquire. */
CT_MUST_CHECK ct_code ct_tier_read(ct_tier *tier, ct_ticket *ticket, ct_status *status);

/* Writes all that has changed. Not between acquire and apply. */
CT_MUST_CHECK ct_code ct_tier_flush(ct_tier *tier, ct_status *status);
/* The same, but it is on its way only: the helper writes it, before anything that is asked of it later. */
CT_MUST_CHECK ct_code ct_tier_flush_begin(ct_tier *tier, ct_status *status);
/* And behind it: hard links of the database as it is then, in the new folder `folder`, whose name stays the caller's until linked, which
 * any thread may call, waits for it. One at a time. */
CT_MUST_CHECK ct_code ct_tier_link(ct_tier *tier, const char *folder, ct_status *status);
CT_MUST_CHECK ct_code ct_tier_linked(ct_tier *tier, ct_status *status);
/* After a flush: of all of the table. */
ct_sum ct_tier_sum(const ct_tier *tier, size_t table);
/* A record, a row's or a stub's, was put into the database by the caller. */
CT_MUST_CHECK ct_code ct_tier_count(ct_tier *tier, size_t table, uint64_t key, const char *record, size_t bytes, bool row,
                                    ct_status *status);
/* The table has come to another day: what has expired outside memory is taken off. */
CT_MUST_CHECK ct_code ct_tier_expire(ct_tier *tier, ct_table *table, ct_status *status);
/* The entry at `place` has expired: may it be removed? No: the batch at work asks for it (and it will count as a stub). */
bool ct_tier_let_go(ct_tier *tier, const ct_table *table, size_t part, size_t place);
/* After a flush: CT_INVALID where a row is not finite. */
CT_MUST_CHECK ct_code ct_tier_check_finite(ct_tier *tier, ct_status *status);
int64_t ct_tier_waited_ns(const ct_tier *tier);
void ct_tier_disk(const ct_tier *tier, ct_store_disk *out_disk); /* see ct_store_disk_get */
ct_live *ct_tier_live(ct_tier *tier);
/* See ct_store_count_others. */
void ct_tier_count_others(ct_tier *tier, uint64_t bytes);
uint64_t ct_tier_least_memory(const ct_tier *tier); /* see ct_store_least_memory */
const ct_stored_table *ct_tier_layout(const ct_tier *tier, size_t table);

#endif
