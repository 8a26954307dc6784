/* Private to data/: what its files share and no other folder may use. */
#ifndef DATA_INTERNAL_H
#define DATA_INTERNAL_H

#include <stdatomic.h>

#include "base/hash.h"
#include "data/batch.h"
#include "data/reader.h"
#include "data/source.h"

/* --- schema --- */

extern const char ct_schema_criteo[]; /* YAML */

/* A character of a field's name. */
static inline bool ct_name_may_hold(char c) { return (unsigned char)c >= 0x20 && c != 0x7f && c != '/'; }

/* The rule by which a field's text becomes a column's content, as one line of text; its XXH3 is the field's hash. */
enum { CT_FIELD_RULE_BYTES = 512 };
void ct_field_rule(const ct_field *field, char out_rule[CT_FIELD_RULE_BYTES]);
/* What ct_schema_column_hash is the hash of. */
void ct_column_rule(const ct_schema *schema, size_t field, char out_rule[CT_FIELD_RULE_BYTES]);
static inline bool ct_field_is_multi(const ct_field *field) { return field->value_separator != 0; }

CT_MUST_CHECK ct_code ct_field_weight(const ct_field *field, const char *text, size_t bytes, float *out_weight, ct_status *status);

/* --- batch --- */

/* Room for `rows` rows; keeps what is there. */
CT_MUST_CHECK ct_code ct_batch_reserve_rows(ct_batch *batch, size_t rows, ct_status *status);
/* Rows first .. first + count - 1 of `from` behind the batch's rows, for which there is room; its columns become present as those of
 * `from`, which is of the same schema and has all of its columns that the batch's rows have. */
CT_MUST_CHECK ct_code ct_batch_append(ct_batch *batch, const ct_batch *from, size_t first, size_t count, ct_status *status);
/* Replaces what the batch holds by `count` rows of `from`, for which there is room. */
CT_MUST_CHECK ct_code ct_batch_gather(ct_batch *batch, const ct_batch *from, const uint32_t *rows, size_t count, ct_status *status);
/* Values in the column's first `rows` rows. */
static inline size_t ct_column_values(const ct_column *column, size_t rows) { return column->offsets ? column->offsets[rows] : rows; }

/* --- source --- */

/* What messages call a source that is given by this path; malloc'd, NULL when out of memory. */
char *ct_source_name_of(const char *path);
/* Reading from a pipe or a terminal gives up with CT_CANCELLED soon after one of the flags becomes true; either may be NULL. */
void ct_source_set_stop(ct_source *source, const atomic_bool *first, const atomic_bool *second);
/* Whether what was read since then (ct_clock_ns) should go on: of a pipe that brings nothing for 20 ms, or for as long too little. So a row
 * of a stream is late by 20 ms at most, however slowly or steadily rows come. */
bool ct_source_should_go_on(ct_source *source, int64_t since_ns);

#endif
