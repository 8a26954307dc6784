/* Which keys of the trained tables have changed since somebody asked last: what a delta holds. A key is noted once, when a batch acquires
 * it: from there on its count, admission, statistics, state and values may change. Internal to the store.
 *
 * Where all rows are in memory the sum of the records' hashes (record.h) is kept up to date as well: what a record was is taken out when
 * its key is noted, what it is now comes in when the changes are settled. So a delta and its digest cost what has changed, not a scan. */
#ifndef EMBEDDING_STORE_CHANGES_H
#define EMBEDDING_STORE_CHANGES_H

#include "embedding_store/record.h"

/* most_bytes: of the noted keys; beyond, ct_changes_full says so, and nothing is refused. 0 = no limit. */
CT_MUST_CHECK ct_code ct_changes_create(ct_store *store, uint64_t most_bytes, ct_changes **out_changes, ct_status *status);
void ct_changes_destroy(ct_changes *changes); /* NULL is fine */

/* The distinct keys of the ticket's part, before acquire changes their entries. By the task that has the partition. */
CT_MUST_CHECK ct_code ct_changes_mark(ct_changes *changes, const ct_ticket *ticket, size_t part, ct_status *status);
/* One key; while no task runs, or by the task of its part. */
CT_MUST_CHECK ct_code ct_changes_mark_key(ct_changes *changes, const ct_table *table, uint64_t key, ct_status *status);

/* An entry is about to be removed, as it has expired: whoever applies a delta finds that by the log's day. By the task of its part. */
void ct_changes_expire(ct_changes *changes, const ct_table *table, size_t part, const ct_index_entry *entry);

int64_t ct_changes_count(const ct_changes *changes);
bool ct_changes_full(const ct_changes *changes);
/* out_sums: (partitions), of one table. False where there are changes that nobody has settled, or where they are another's business. */
bool ct_changes_sums(const ct_changes *changes, size_t table, ct_sum *out_sums);

/* record NULL: the key is gone. */
typedef ct_code (*ct_changes_fn)(void *context, size_t table, uint64_t key, const char *record, size_t bytes, ct_status *status);
/* Calls `function` (NULL = nobody) for each key that has changed, table by table, in the order of keys, with its record, and forgets them.
 * Not between acquire and apply. CT_INVALID where a row is not finite. After a failure the store is good for nothing but
 * ct_store_destroy. */
CT_MUST_CHECK ct_code ct_changes_settle(ct_changes *changes, ct_changes_fn function, void *context, ct_status *status);

#endif
