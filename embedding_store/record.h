/* A key's record: all that belongs to it, as it stands in the sorted files. The layout is that of store.json: u32 count, u8 admitted; where
 * the table has target statistics u32 impressions, clicks, epoch; where it expires u32 day; for rows the optimiser's state and the values,
 * as floats, or as halves where the table is fp16. Frozen tables: the values alone. Little-endian, no gaps. A stub ends before the state.
 * Internal to the store. */
#ifndef EMBEDDING_STORE_RECORD_H
#define EMBEDDING_STORE_RECORD_H

#include "embedding_store/store_internal.h"

enum { CT_RECORD_MAX_BYTES = 3 * CT_TABLE_MAX_DIM * sizeof(float) + 32 /* Adam's row is the largest */ };

/* Of a row of the table. */
size_t ct_record_bytes(const ct_table *table);
/* entry: in the partition's index. Returns the record's size. */
size_t ct_record_encode(const ct_table *table, const ct_partition *partition, const ct_index_entry *entry, char *out);
/* The record that ct_record_encode makes of an entry in the partition's index, into a sum or out of it. */
void ct_sum_add_entry(ct_sum *sum, const ct_table *table, const ct_partition *partition, const ct_index_entry *entry);
void ct_sum_take_entry(ct_sum *sum, const ct_table *table, const ct_partition *partition, const ct_index_entry *entry);
/* digest.c: what a table's digest is of, beside its spec. */
typedef struct ct_table_state {
    int64_t rows, stubs;
    uint32_t counted_epoch, first_day, day;
    ct_sum sum;
    ct_sum filter; /* where the table has one */
} ct_table_state;
/* As it is now, a tier's after a flush: out_states (tables). sums_too: else those of trained tables are zero. */
CT_MUST_CHECK ct_code ct_store_state(ct_store *store, bool sums_too, ct_table_state *out_states, ct_status *status);
void ct_digest_update_tables(const ct_store *store, const ct_table_state *states, ct_digest *digest);
/* Of all records in memory, by partition: out_sums (partitions). */
void ct_table_sums(const ct_store *store, size_t table, ct_sum *out_sums);
/* A row that left the range of floats is nothing to go on from. */
bool ct_record_finite(const ct_table *table, const ct_partition *partition, const ct_index_entry *entry);
ct_code ct_record_fail_finite(const ct_table *table, uint64_t key, ct_status *status);
/* Is it a row's, a stub's (*out_row false) or neither (CT_CORRUPT)? */
CT_MUST_CHECK ct_code ct_record_check(const ct_stored_table *stored, const char *record, size_t bytes, bool *out_row, ct_status *status);
/* Fills an entry: a stub that was just claimed, or one with a row, which must then be a row's record. The record was checked. */
CT_MUST_CHECK ct_code ct_record_decode(ct_table *table, ct_partition *partition, const ct_stored_table *stored, const char *record,
                                       bool row, ct_index_entry *entry, ct_status *status);
/* Are its columns where this program would put them? CT_UNSUPPORTED: no. */
CT_MUST_CHECK ct_code ct_record_check_layout(const ct_stored_table *stored, ct_status *status);
/* describe.c: the sums of what lies in a snapshot's folder, read record by record; out_sums: (count). */
CT_MUST_CHECK ct_code ct_store_sum_folder(const char *folder, const ct_stored_table *stored, size_t count, ct_sum *out_sums,
                                          ct_status *status);
/* The day on which its key was last seen; 0 where there is no such column. The record was checked. */
uint32_t ct_record_day(const ct_stored_table *stored, const char *record);
/* Of a snapshot's record: as ct_record_check, and has it not expired? One that has is as if it were not there. */
CT_MUST_CHECK ct_code ct_record_lives(const ct_stored_table *stored, const char *record, size_t bytes, bool *out_row, bool *out_lives,
                                      ct_status *status);
/* Of a record that was checked: NULL for a stub. Not aligned. */
static inline const char *ct_record_values(const ct_stored_table *stored, const char *record, bool row) {
    return row ? record + stored->value.offset : NULL;
}
/* Where this program would put the columns. */
void ct_record_layout(const ct_table_spec *spec, ct_stored_table *out_stored);
/* The same for a table that was opened for reading, which has no optimiser's state. */
void ct_record_layout_read(const ct_table_spec *spec, ct_stored_table *out_stored);

#endif
