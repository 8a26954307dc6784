/* Snapshots of tables that are in memory, written while training goes on. docs/architecture.md, "Checkpoints", has the whole; internal to
 * the store.
 *
 * Each entry has a mark: has it changed since the last snapshot began? A snapshot begins by counting on, so what had changed until then is
 * what it has to write, and that costs nothing. A thread of the caller's then goes through these entries in the order of keys. Training
 * does not wait for it: before it changes an entry that is not written yet, it keeps a copy of the record, which is written instead.
 *
 * What was written before stays: the live database (live.h) has the newest record of every key, as of the last snapshot, and a snapshot's
 * folder is hard links to its files. The sum of all records' hashes (record.h) is kept up to date beside it.
 *
 * Threads. One partition at a time is in a lock, by whoever finds, adds or removes its entries in training, and by the one that writes, for
 * some hundred records at once. Values of rows are changed outside of locks, but only of rows that were marked before. */
#ifndef EMBEDDING_STORE_SAVER_H
#define EMBEDDING_STORE_SAVER_H

#include "embedding_store/record.h"

/* from: the snapshot that the tables are as, or NULL: then all that they have counts as changed. A table of `from` whose records lie
 * otherwise than this program writes them makes it NULL. live_folder: as of ct_store_limit. */
CT_MUST_CHECK ct_code ct_saver_create(ct_store *store, const char *live_folder, const char *from, ct_saver **out_saver, ct_status *status);
void ct_saver_destroy(ct_saver *saver); /* NULL is fine */

/* --- in training --- */

/* Around all that finds, adds or removes entries of a partition. */
void ct_saver_lock(ct_saver *saver, const ct_table *table, size_t part);
void ct_saver_unlock(ct_saver *saver, const ct_table *table, size_t part);
/* In the lock: the distinct keys of the ticket's part will change; one key will; one entry will be removed. What is not there is marked
 * when it is claimed. */
CT_MUST_CHECK ct_code ct_saver_mark(ct_saver *saver, const ct_ticket *ticket, size_t part, ct_status *status);
CT_MUST_CHECK ct_code ct_saver_mark_key(ct_saver *saver, const ct_table *table, uint64_t key, ct_status *status);
CT_MUST_CHECK ct_code ct_saver_let_go(ct_saver *saver, const ct_table *table, size_t part, const ct_index_entry *entry, ct_status *status);
/* Outside of locks, before a batch's keys are marked: waits while too many copies are kept. */
void ct_saver_make_room(ct_saver *saver);
int64_t ct_saver_waited_ns(const ct_saver *saver); /* there, so far */

/* --- snapshots, one at a time --- */

/* Not between acquire and apply. out_sums: (tables), of what has not changed since the last one began. */
CT_MUST_CHECK ct_code ct_saver_begin(ct_saver *saver, ct_sum *out_sums, ct_status *status);
/* Any thread, once: writes what has changed and makes the new folder `folder`; adds it to the sums. CT_INVALID where a row is not finite.
 * After a failure there are no more snapshots. */
CT_MUST_CHECK ct_code ct_saver_write(ct_saver *saver, const char *folder, ct_sum *sums, ct_status *status);
/* The snapshot that has begun is over, written or not. */
void ct_saver_end(ct_saver *saver);

/* Of all records of a table as they are now; not between acquire and apply. */
ct_sum ct_saver_sum(ct_saver *saver, size_t table);

#endif
