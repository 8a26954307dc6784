/* Private to data/: a block file as header and raw blocks, before any schema. */
#ifndef DATA_BLOCK_FORMAT_H
#define DATA_BLOCK_FORMAT_H

#include <jansson.h>

#include "data/batch.h"
#include "data/source.h"

enum { CT_BLOCK_VERSION = 1, CT_BLOCK_MAX_ROWS = 1 << 22 };
#define CT_BLOCK_MAGIC     "CTBLOCK1"
#define CT_BLOCK_TAG_BLOCK "CTBB"
#define CT_BLOCK_TAG_END   "CTBE"

typedef struct ct_block_column {
    char *name, *kind, *rule; /* owned */
    ct_column_type type;
    bool csr;
    uint64_t hash;
} ct_block_column;

/* Where a column lies in a block that was read; not aligned. */
typedef struct ct_block_span {
    const unsigned char *offsets; /* CSR: (rows + 1) u32, checked: from 0, never down */
    const unsigned char *values;  /* (value_count) */
    size_t value_count;
} ct_block_span;

typedef struct ct_block_scan {
    ct_source *source;
    ct_block_column *columns;
    size_t column_count;
    uint64_t rows, blocks; /* so far */
    unsigned char *buffer; /* u32 rows, payload */
    size_t buffer_bytes;
    ct_block_span *spans; /* (column_count) of the block read last */
} ct_block_scan;

/* Reads and checks the header. */
CT_MUST_CHECK ct_code ct_block_scan_open(ct_source *source, ct_block_scan *out_scan, ct_status *status);
void ct_block_scan_deinit(ct_block_scan *scan);
/* Reads and checks one block; CT_END behind a whole end, after which nothing may follow. */
CT_MUST_CHECK ct_code ct_block_scan_next(ct_block_scan *scan, size_t *out_rows, ct_status *status);

const char *ct_column_type_name(ct_column_type type); /* "f32", "i64", "u64" */

#endif
