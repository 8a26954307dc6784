/* The database under a table that outgrows memory. Written in sorted files, read by points in sorted batches; the newest record of a key
 * is the one that counts. Any number of threads may read at once, also beside one that writes. Internal to the store. */
#ifndef EMBEDDING_STORE_LIVE_H
#define EMBEDDING_STORE_LIVE_H

#include "embedding_store/pace.h"
#include "embedding_store/store_internal.h"

/* A scratch database in `folder`, which is made anew, from the files of the snapshot `from` (hard links, or copies across file systems;
 * NULL = empty). tuning: NULL = ours. names: (tables). */
CT_MUST_CHECK ct_code ct_live_create(const char *folder, const char *from, const ct_tuning *tuning, const char *const *names, size_t tables,
                                     ct_live **out_live, ct_status *status);
/* The snapshot `folder` as it stands, for reading: by points, or from one end to the other. */
typedef enum ct_live_reads { CT_LIVE_POINTS, CT_LIVE_SCANS } ct_live_reads;
CT_MUST_CHECK ct_code ct_live_open(const char *folder, ct_live_reads reads, const char *const *names, size_t tables, ct_live **out_live,
                                   ct_status *status);
/* A scratch database is removed. NULL is fine. */
void ct_live_close(ct_live *live);

/* Of a scratch database: from now on compactions drop records of days before `oldest_day`. layout: of the records. */
void ct_live_expire(ct_live *live, size_t table, const ct_stored_table *layout, uint32_t oldest_day);

/* Sorted records of one table: begin, put in the order of keys, end takes them in (where anything was put). One at a time. */
CT_MUST_CHECK ct_code ct_live_begin(ct_live *live, size_t table, ct_status *status);
CT_MUST_CHECK ct_code ct_live_put(ct_live *live, uint64_t key, const char *record, size_t bytes, ct_status *status);
CT_MUST_CHECK ct_code ct_live_end(ct_live *live, ct_status *status);
void ct_live_abandon(ct_live *live); /* instead of end */
/* A frozen table, all of it and once: it never changes. */
CT_MUST_CHECK ct_code ct_live_put_frozen(ct_live *live, const ct_table *table, size_t number, ct_status *status);

/* record: NULL where there is none; valid during the call. */
typedef ct_code (*ct_live_fn)(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status);
/* Calls `function` for each of keys[0 .. count), rising, in this order. */
CT_MUST_CHECK ct_code ct_live_get(ct_live *live, size_t table, const uint64_t *keys, size_t count, ct_live_fn function, void *context,
                                  ct_status *status);
/* Calls `function` for all records in the order of keys. */
CT_MUST_CHECK ct_code ct_live_scan(ct_live *live, size_t table, ct_live_fn function, void *context, ct_status *status);
/* The backlog of the table's compaction, and the pressure that it makes. Any thread. */
void ct_live_bound_level0(ct_live *live, uint64_t most_bytes); /* of any table */
double ct_live_pressure(ct_live *live, size_t table, ct_backlog *out_backlog);
/* Is a compaction at work or due? No, where none can be any more: the next write says why. */
bool ct_live_compacts(ct_live *live, size_t table);
/* Bytes of the table's sorted files, by level. */
enum { CT_LIVE_LEVELS = 7 };
void ct_live_levels(ct_live *live, size_t table, uint64_t out_bytes[CT_LIVE_LEVELS]);
/* The content as it is now: hard links, in the new folder `folder`. */
CT_MUST_CHECK ct_code ct_live_checkpoint(ct_live *live, const char *folder, ct_status *status);

#endif
