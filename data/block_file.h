/* Block file (.ctb): batches on disk. Little-endian.
 *
 *     "CTBLOCK1" | u32 header bytes | header (JSON: format version, least reader version, columns with name, kind, type, layout, hash) |
 * u64 XXH3 of the header blocks: "CTBB" | u32 rows | u64 payload bytes | payload: for each column its offsets (u32, CSR only) then values |
 * u64 XXH3 of rows and payload "CTBE" | u64 rows in all | u64 XXH3 of the two
 *
 * A column's hash covers its own key rule, so that a new field in a schema does not invalidate old files. A file without its end is cut:
 * CT_CORRUPT.
 *
 * Derived columns (ct_field.derived) stand in a file only where they were logged as they were served (`join`). A reader gives them as they
 * are, and nothing derives them anew. */
#ifndef DATA_BLOCK_FILE_H
#define DATA_BLOCK_FILE_H

#include <jansson.h>

#include "data/batch.h"
#include "data/source.h"

enum { CT_BLOCK_FILE_ROWS = 8192 }; /* of a block that convert writes */

typedef struct ct_block_writer ct_block_writer;
/* Columns are those of the schema, without what is derived; the file appears under its name at commit. */
CT_MUST_CHECK ct_code ct_block_writer_open(const char *path, const ct_schema *schema, ct_block_writer **out_writer, ct_status *status);
/* The same with some of the derived columns, as they were served: derived[field] for each of them; the array must outlive the writer. */
CT_MUST_CHECK ct_code ct_block_writer_open_served(const char *path, const ct_schema *schema, const bool *derived,
                                                  ct_block_writer **out_writer, ct_status *status);
CT_MUST_CHECK ct_code ct_block_writer_write(ct_block_writer *writer, const ct_batch *batch, ct_status *status);
CT_MUST_CHECK ct_code ct_block_writer_commit(ct_block_writer *writer, ct_status *status); /* frees the writer in any case */
void ct_block_writer_abort(ct_block_writer *writer);                                      /* NULL is fine */

/* Reads from an open source (a file or standard input). Columns of the schema that the file lacks are `present == false`; a label that
 * is missing, or a column of the same name and another hash, is CT_INVALID with both rules named. */
typedef struct ct_block_reader ct_block_reader;
CT_MUST_CHECK ct_code ct_block_reader_open(ct_source *source, const ct_schema *schema, ct_block_reader **out_reader, ct_status *status);
void ct_block_reader_close(ct_block_reader *reader); /* does not close the source */
/* One block into `batch` (made for the schema; grown to the block's rows); CT_END after the last. */
CT_MUST_CHECK ct_code ct_block_reader_next(ct_block_reader *reader, ct_batch *batch, ct_status *status);
bool ct_block_file_is(const char *first_bytes, size_t count); /* do these first bytes open a block file? */

/* What a block file holds, without a schema, every checksum checked; for inspect and verify. `out_json`: rows, blocks, columns, digest. */
CT_MUST_CHECK ct_code ct_block_file_describe(const char *path, json_t **out_json, ct_status *status);

#endif
