/* Histories: the last values of an id column for each unit, of all rows or of those that were clicked, and the columns that follow from
 * them (ct_field.derived): the history's keys, newest last; the keys of the same values' vectors (a similarity); their number.
 *
 * A row's history holds what is of a strictly earlier time; where the schema has no time, of strictly earlier rows. Rows of the same batch
 * count. It never holds what is later, whatever the order of the log; of rows that come too late (their unit's history holds later ones
 * already) there may be less than there was then: they are counted. What a row gets is a function of the rows before it alone, not of
 * batches, threads or what a table was read from.
 *
 * A table grows with units and their values (24 bytes each), in memory. */
#ifndef DATA_HISTORY_H
#define DATA_HISTORY_H

#include "base/hash.h"
#include "data/batch.h"

typedef struct ct_histories ct_histories;

bool ct_schema_has_histories(const ct_schema *schema);
/* Empty ones, of all histories of the schema, which must outlive them. */
CT_MUST_CHECK ct_code ct_histories_create(const ct_schema *schema, ct_histories **out_histories, ct_status *status);
CT_MUST_CHECK ct_code ct_histories_copy(const ct_histories *from, ct_histories **out_histories, ct_status *status);
void ct_histories_destroy(ct_histories *histories); /* NULL is fine */
void ct_histories_clear(ct_histories *histories);   /* as they were made */

/* Derived columns of all rows, from the histories as they stand: the newest values, whatever the row's time is. Columns that the batch has
 * stay. CT_INVALID names a column that is needed and missing. Thread-safe. */
CT_MUST_CHECK ct_code ct_histories_fill(const ct_histories *histories, ct_batch *batch, ct_status *status);
/* Each row gets its own, then enters: it needs the label where the history is of what was clicked. */
CT_MUST_CHECK ct_code ct_histories_live(ct_histories *histories, ct_batch *batch, ct_status *status);
/* Enters the rows, and fills nothing. */
CT_MUST_CHECK ct_code ct_histories_add(ct_histories *histories, const ct_batch *batch, ct_status *status);
/* The newest values of a unit as they stand, newest last, for field `field`, a history or a similarity: at most its max_values keys;
 * returns how many. Thread-safe. */
size_t ct_histories_read(const ct_histories *histories, size_t field, uint64_t unit, uint64_t *out_keys);

int64_t ct_histories_late(const ct_histories *histories); /* rows that entered, or were filled live, too late */
size_t ct_histories_units(const ct_histories *histories); /* of all histories */
uint64_t ct_histories_bytes(const ct_histories *histories);

/* --- what has changed, for deltas (history_write.c, history_read.c; docs/file-formats.md) --- */
/* The units that have changed since the histories were made, read, or their changes forgotten, with all of their entries; all units where
 * they were cleared meanwhile. out_words: malloc'd, 64 bits each. */
CT_MUST_CHECK ct_code ct_histories_changes(ct_histories *histories, uint64_t **out_words, size_t *out_count, ct_status *status);
void ct_histories_forget_changes(ct_histories *histories);
/* Takes histories on by such words. `path`: for messages. CT_CORRUPT where they are none; then the histories are good for nothing but
 * ct_histories_destroy. */
CT_MUST_CHECK ct_code ct_histories_apply(ct_histories *histories, const uint64_t *words, size_t count, const char *path, ct_status *status);

/* --- versions (history_version.c): the same, while others read --- */
/* Another version, taken on by the words, which shares with `from` what has not changed; `from` may be read meanwhile, and neither may be
 * changed. Costs a copy of the list of units. Then one of the two: */
CT_MUST_CHECK ct_code ct_histories_next(const ct_histories *from, const uint64_t *words, size_t count, const char *path,
                                        ct_histories **out_next, ct_status *status);
/* nobody reads `from` any more: it is freed, and all is next's; */
void ct_histories_retire(ct_histories *from, ct_histories *next);
/* or nobody has read `next`: it is freed. NULL is fine. */
void ct_histories_drop(ct_histories *next);

/* --- files (history_saving.c, history_read.c; docs/file-formats.md) ---
 * A folder holds a chain of files: the first one all units of its moment, each further one those that had changed since the one before. */
enum { CT_HISTORIES_MOST_FILES = 64, CT_HISTORIES_NAME_BYTES = 8 };
void ct_histories_file_name(size_t number, char out_name[CT_HISTORIES_NAME_BYTES]); /* from 0 */
/* From here on what is saved costs what has changed since the last time: files stay in `folder`, scratch that is the caller's, best on the
 * file system of what is saved, and each saving has links to them. from: the folder that they were opened from and have not changed since,
 * or NULL. Without, or once more: nothing happens. */
CT_MUST_CHECK ct_code ct_histories_save_beside(ct_histories *histories, const char *folder, const char *from, ct_status *status);
/* What they hold now is to be written, while rows may enter or all be cleared (nothing else): one at a time, a second one waits. Rows wait
 * too, where they have changed much before it was written. */
typedef struct ct_histories_saving ct_histories_saving;
CT_MUST_CHECK ct_code ct_histories_saving_begin(ct_histories *histories, ct_histories_saving **out_saving, ct_status *status);
/* Any thread, once: makes the new folder `folder`. Feeds the digest as ct_histories_digest would have done then. */
CT_MUST_CHECK ct_code ct_histories_saving_write(ct_histories_saving *saving, const char *folder, ct_digest *digest, ct_status *status);
/* ct_histories_bytes of those that will be opened from it; a few more where units got shorter from one file to the next. */
uint64_t ct_histories_saving_opened_bytes(const ct_histories_saving *saving);
void ct_histories_saving_end(ct_histories_saving *saving);   /* any thread, before the histories go; NULL is fine */
uint64_t ct_histories_saving_bytes(ct_histories *histories); /* that saving takes at most beside ct_histories_bytes */
/* From so many files of the folder `path`, read with next to no memory beside what comes of it; 0 files: `path` is a file that an earlier
 * program has written. The caller has checked that they are what was written; CT_CORRUPT where that is not what such a schema's histories
 * write. */
CT_MUST_CHECK ct_code ct_histories_open(const ct_schema *schema, const char *path, size_t files, ct_histories **out_histories,
                                        ct_status *status);
/* What they hold, as they are now. Where they are those of an earlier program's file, which no row has entered: as it was then, unless it
 * is said that it is to be the new one. */
CT_MUST_CHECK ct_code ct_histories_digest(ct_histories *histories, ct_digest *digest, ct_status *status);
void ct_histories_digest_anew(ct_histories *histories);

#endif
