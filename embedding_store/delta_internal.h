/* A delta's inside, for those who apply it. Internal to the store. */
#ifndef EMBEDDING_STORE_DELTA_INTERNAL_H
#define EMBEDDING_STORE_DELTA_INTERNAL_H

#include "embedding_store/delta.h"
#include "embedding_store/record.h"

enum { CT_DELTA_HEAD_BYTES = 40, CT_DELTA_BLOCK_BYTES = 64 << 10 /* of a payload, at most */, CT_DELTA_RECORD_HEAD_BYTES = 10 };

typedef struct ct_delta_section {
    size_t table;
    bool filter; /* lines of the table's filter, whose keys are their numbers */
    uint64_t offset, bytes;
    int64_t blocks, records;
} ct_delta_section;

struct ct_delta {
    char *path;
    int fd;
    uint64_t bytes;
    json_t *description, *tensors; /* tensors: the description's */
    ct_stored_table *stored;       /* (stored_count): the tables after the delta */
    size_t stored_count;
    ct_delta_section *sections; /* (section_count) */
    size_t section_count;
};

/* The hash of a block: its head and payload. */
uint64_t ct_delta_block_hash(const char *block, size_t payload_bytes, const ct_delta_section *section);

/* record NULL: the key is gone; else checked, `row` as ct_record_check says. */
typedef ct_code (*ct_delta_fn)(void *context, size_t table, uint64_t key, const char *record, bool row, ct_status *status);
/* Calls `function` for all records, or for all lines of filters, table by table, in the order of keys. Checks each block again: the file
 * may have changed. */
CT_MUST_CHECK ct_code ct_delta_scan(const ct_delta *delta, bool filters, ct_delta_fn function, void *context, ct_status *status);
/* CT_INVALID where the store's tables are not those of the delta. */
CT_MUST_CHECK ct_code ct_delta_check_tables(const ct_delta *delta, const ct_store *store, ct_status *status);

#endif
