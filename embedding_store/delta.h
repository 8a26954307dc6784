/* Deltas: one file that takes a store, and what its owner keeps beside it, from one state to a later one.
 *
 *     head (40 bytes)  "CTDELTA1" | u64 bytes of the file | u64 where the description begins | u64 XXH3 of the description | u64 XXH3 of
 *                      the 32 bytes before
 *     sections         of each trained table the records that have changed, sorted by key (of its filter, where it has one, the lines that
 *                      have changed, by number, as records), in blocks:
 *                          u32 payload bytes | u32 records | payload | u64 XXH3 of the 8 bytes and the payload, seeded with the table (a
 *                          filter: with 64 more)
 *                          payload: records of u64 key | u16 bytes | the record as in the store's sorted files; 0 bytes = the key is gone
 *                      then the owner's tensors, one after the other
 *     description      JSON, to the end of the file: the owner's facts, and
 *                          "format": "clicktower delta", "version", "least_reader", "requires": [names of words],
 *                          "store": what store.json says of the tables after the delta,
 *                          "sections": [{"table", "offset", "bytes", "blocks", "records"}], of a filter also "filter": true
 *                          "tensors": [{"name", "type", "rows", "columns", "offset", "xxh3"}]
 *
 * The head comes last to the disk, but stands first, so that a file that is still being copied can be told from one that is damaged. */
#ifndef EMBEDDING_STORE_DELTA_H
#define EMBEDDING_STORE_DELTA_H

#include <jansson.h>

#include "embedding_store/store.h"

/* --- what has changed --- */

/* Before the first batch of a store within a limit on memory: what may be noted is a part of it. Beyond, ct_store_changes_full. */
void ct_store_expect_changes(ct_store *store, uint64_t most_bytes);
/* From now on the store notes which keys change. TRAIN only. */
CT_MUST_CHECK ct_code ct_store_track_changes(ct_store *store, ct_status *status);
int64_t ct_store_changes(const ct_store *store); /* keys so far */
bool ct_store_changes_full(const ct_store *store);
/* Forgets them: somebody has the whole. Not between acquire and apply. */
CT_MUST_CHECK ct_code ct_store_forget_changes(ct_store *store, ct_status *status);

/* --- writing --- */

typedef struct ct_delta_writer ct_delta_writer;
CT_MUST_CHECK ct_code ct_delta_writer_open(const char *path, ct_delta_writer **out_writer, ct_status *status);
/* The records that have changed, which are forgotten; once, before the tensors. After a failure the store is good for nothing but
 * ct_store_destroy. */
CT_MUST_CHECK ct_code ct_delta_writer_changes(ct_delta_writer *writer, ct_store *store, int64_t *out_records, ct_status *status);
/* data: (rows, columns) floats, or doubles where f64. */
CT_MUST_CHECK ct_code ct_delta_writer_tensor(ct_delta_writer *writer, const char *name, bool f64, size_t rows, size_t columns,
                                             const void *data, ct_status *status);
/* Words of 64 bits, without which the delta must not be applied: a reader must know their name. */
CT_MUST_CHECK ct_code ct_delta_writer_words(ct_delta_writer *writer, const char *name, const uint64_t *words, size_t count,
                                            ct_status *status);
/* `facts`: an object whose members join the description; stays the caller's. Frees the writer in any case. */
CT_MUST_CHECK ct_code ct_delta_writer_commit(ct_delta_writer *writer, json_t *facts, uint64_t *out_bytes, ct_status *status);
void ct_delta_writer_abort(ct_delta_writer *writer); /* NULL is fine */

/* --- reading --- */

typedef struct ct_delta ct_delta;
/* Checks head and description. CT_UNAVAILABLE: the file is shorter than it says: somebody still copies it. CT_CORRUPT, CT_UNSUPPORTED. */
CT_MUST_CHECK ct_code ct_delta_open(const char *path, ct_delta **out_delta, ct_status *status);
void ct_delta_close(ct_delta *delta); /* NULL is fine */
/* Reads all of it: CT_CORRUPT names the table or tensor, and the place in the file. */
CT_MUST_CHECK ct_code ct_delta_check(const ct_delta *delta, ct_status *status);
const json_t *ct_delta_description(const ct_delta *delta);
const char *ct_delta_path(const ct_delta *delta);
uint64_t ct_delta_bytes(const ct_delta *delta);
int64_t ct_delta_records(const ct_delta *delta); /* of all tables, without lines of filters */
/* Fills data as it was given to the writer; CT_CORRUPT where there is no such tensor, of another shape, or damaged. */
CT_MUST_CHECK ct_code ct_delta_tensor(const ct_delta *delta, const char *name, bool f64, size_t rows, size_t columns, void *data,
                                      ct_status *status);

/* malloc'd, as they were given to the writer. */
CT_MUST_CHECK ct_code ct_delta_words(const ct_delta *delta, const char *name, uint64_t **out_words, size_t *out_count, ct_status *status);

/* Takes a store of ct_store_open(CT_STORE_TRAIN), without a limit on memory, on to the state after the delta. CT_INVALID where its tables
 * are others. After a failure it is good for nothing but ct_store_destroy. */
CT_MUST_CHECK ct_code ct_store_apply_delta(ct_store *store, const ct_delta *delta, ct_status *status);

#endif
