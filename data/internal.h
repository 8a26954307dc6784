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

/* The rule by which a field's text becomes a column's content, as one line of text; its XXH3 is the field's hash. */
enum { CT_FIELD_RULE_BYTES = 512 };
void ct_field_rule(const ct_field *field, char out_rule[CT_FIELD_RULE_BYTES]);
const char *ct_field_kind_name(ct_field_kind kind);
static inline bool ct_field_is_multi(const ct_field *field) { return field->value_separator != 0; }

CT_MUST_CHECK ct_code ct_field_weight(const ct_field *field, const char *text, size_t bytes, float *out_weight, ct_status *status);
CT_MUST_CHECK ct_code ct_field_time(const ct_field *field, const char *text, size_t bytes, int64_t *out_ms, ct_status *status);

/* The hot case of ct_field_key. */
static inline uint64_t ct_key_of_text(const ct_field *field, const char *token, size_t bytes) {
    return ct_hash64(token, bytes, field->salt);
}

/* --- batch --- */

/* Room for `rows` rows; keeps what is there. */
CT_MUST_CHECK ct_code ct_batch_reserve_rows(ct_batch *batch, size_t rows, ct_status *status);
/* Values in the column's first `rows` rows. */
static inline size_t ct_column_values(const ct_column *column, size_t rows) { return column->offsets ? column->offsets[rows] : rows; }

/* --- source and lines --- */

/* Reading from a pipe or a terminal gives up with CT_CANCELLED soon after one of the flags becomes true; either may be NULL. */
void ct_source_set_stop(ct_source *source, const atomic_bool *first, const atomic_bool *second);
/* Lines of one open source, which stays the caller's and must outlive them. */
CT_MUST_CHECK ct_code ct_lines_attach(ct_source *source, ct_lines **out_lines, ct_status *status);

/* --- one line to one row --- */

typedef struct ct_row_parser ct_row_parser;
CT_MUST_CHECK ct_code ct_row_parser_create(const ct_schema *schema, ct_row_parser **out_parser, ct_status *status);
void ct_row_parser_destroy(ct_row_parser *parser); /* NULL is fine */
/* Finds the schema's columns in a source's header. `name` and `number` are for messages. */
CT_MUST_CHECK ct_code ct_row_parser_header(ct_row_parser *parser, const ct_line *line, ct_status *status);
/* Writes row `row` of `batch` (which has room) and returns CT_OK; CT_INVALID, with the kind of fault and a message, for a bad row, of
 * which nothing stays; anything else is a failure of the run. */
CT_MUST_CHECK ct_code ct_row_parse(ct_row_parser *parser, const ct_line *line, ct_batch *batch, size_t row, ct_bad_row_kind *out_kind,
                                   ct_status *status);

#endif
