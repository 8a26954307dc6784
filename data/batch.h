/* Batch: consecutive rows as self-describing columns. What a reader gives, a block file holds and a request becomes.
 *
 * One column for each field of the schema, in its order, unless the source has no such column; a reader fills in what is derived where it
 * is asked to (data/history.h). Types: label, weight, number f32 (a number
 * is raw, before any transform; NaN = missing); time i64 milliseconds; group, unit, id, vector u64 keys. Ids may have several values a row
 * (CSR). `shared` columns hold one row that stands for all rows: the context of a request. */
#ifndef DATA_BATCH_H
#define DATA_BATCH_H

#include "data/schema.h"

typedef enum ct_column_type { CT_TYPE_F32, CT_TYPE_I64, CT_TYPE_U64 } ct_column_type;

typedef struct ct_column {
    const char *name; /* the field's */
    ct_field_kind kind;
    ct_column_type type;
    uint64_t hash;         /* the field's: two columns of equal name and hash hold the same thing */
    bool shared;           /* one row for all rows of the batch */
    bool present;          /* false: the source has no such column; nothing below is valid */
    uint32_t *offsets;     /* CSR: (rows + 1), offsets[0] = 0; NULL: dense, one value a row */
    void *values;          /* (rows) or (offsets[rows]) */
    float *value_weights;  /* as values; NULL = all 1 */
    size_t value_capacity; /* private: values that fit */
} ct_column;

typedef struct ct_batch {
    size_t rows;
    int64_t first_row;            /* global number of row 0 in this pass over the log */
    int64_t oldest_ms, newest_ms; /* of a reader: when the first and the last of its rows came, since 1970; shuffled, of their window */
    bool tail;                    /* of a reader: at the log's end, and would be another batch if the log were longer */
    size_t column_count;          /* the schema's field_count */
    ct_column *columns;
    size_t row_capacity;
} ct_batch;

/* Empty batch with room for `row_capacity` rows of `schema` (CSR columns: room for max_values each; grown by ct_batch_reserve). */
CT_MUST_CHECK ct_code ct_batch_create(const ct_schema *schema, size_t row_capacity, ct_batch **out_batch, ct_status *status);
void ct_batch_destroy(ct_batch *batch); /* NULL is fine */
/* Room for `values` values in a CSR column; keeps what is there. */
CT_MUST_CHECK ct_code ct_batch_reserve(ct_batch *batch, size_t column, size_t values, ct_status *status);
ct_column_type ct_field_type(const ct_field *field);
size_t ct_column_type_bytes(ct_column_type type);

static inline const float *ct_column_f32(const ct_column *column) { return (const float *)column->values; }
static inline const int64_t *ct_column_i64(const ct_column *column) { return (const int64_t *)column->values; }
static inline const uint64_t *ct_column_u64(const ct_column *column) { return (const uint64_t *)column->values; }

#endif
