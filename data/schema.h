/* Schema: what the columns of a log mean. YAML, read by libcyaml; `criteo` is built in (docs/file-formats.md has the grammar).
 *
 *     name: shop
 *     format: {separator: "\t", header: false, columns: 40}
 *     fields:
 *       - {name: label, kind: label, column: 1, at_least: 4}          # without at_least: 0 or 1
 *       - {name: price, kind: number, column: 2, side: candidate}
 *       - {name: user,  kind: id, column: 3, side: context, type: text}
 *       - {name: item,  kind: id, column: 4, side: candidate, type: integer}
 *       - {name: likes, kind: id, column: 5, side: context, separator: ",", max: 50, newest: last, shares: item}
 *       - {name: item_text, kind: vector, of: item, file: text.npy, ids: text.txt}
 *       - {name: unit, kind: unit, column: 3}                         # a source column may serve several fields
 *       - {name: liked, kind: history, of: item, clicked: true, max: 50}     # what the unit clicked before; shares the item's rows
 *       - {name: close, kind: similarity, of: liked, vector: item_text, tiers: 20}
 *       - {name: likes_before, kind: number, of: liked}                # how many
 *       - {name: alike, kind: history, of: item, clicked: true, pooling: attention}   # weighted by how like they are to the row's item
 *       - {name: when, kind: time, column: 6, time_unit: milliseconds} # without time_unit: seconds
 *
 * `column` is a 1-based position or, with a header, a name. Left out: separator "\t", header false, side candidate, type text, max 100,
 * newest last, pooling mean. Fields keep their order; names are unique. A schema has at most one label (none: for scoring only), weight,
 * time, group and unit. A schema is immutable once loaded and may be used by many threads. */
#ifndef DATA_SCHEMA_H
#define DATA_SCHEMA_H

#include "base/status.h"

typedef enum ct_field_kind {
    CT_FIELD_LABEL,
    CT_FIELD_WEIGHT,
    CT_FIELD_TIME,  /* seconds or milliseconds since 1970 */
    CT_FIELD_GROUP, /* rows that were shown together: grouped AUC */
    CT_FIELD_UNIT,  /* who is randomised and resampled: a user */
    CT_FIELD_NUMBER,
    CT_FIELD_ID,
    CT_FIELD_VECTOR,    /* a frozen vector, chosen by the id field `of` */
    CT_FIELD_HISTORY,   /* the unit's last values of the id field `of`, of earlier rows (data/history.h) */
    CT_FIELD_SIMILARITY /* of the row's vector to those of the history `of`; its column holds the keys of the history's vectors */
} ct_field_kind;
const char *ct_field_kind_name(ct_field_kind kind); /* as schemas spell it: "label", ... */

/* context: the same for all candidates of a request; candidate: its own for each. Training rows bring both. */
typedef enum ct_side { CT_SIDE_CONTEXT, CT_SIDE_CANDIDATE } ct_side;

typedef enum ct_id_type { CT_ID_TEXT, CT_ID_INTEGER } ct_id_type;
typedef enum ct_time_unit { CT_TIME_SECONDS, CT_TIME_MILLISECONDS } ct_time_unit;

typedef struct ct_field {
    const char *name;
    ct_field_kind kind;
    ct_side side;            /* number, id; a vector has its id field's side, a similarity its vector's; a history is context */
    int64_t column;          /* 0-based source column; -1 for a vector, what is derived, or where only column_name is known */
    bool derived;            /* its values are in no source: a history, a similarity, a number that counts a history */
    const char *column_name; /* with a header; else NULL */
    bool has_at_least;       /* label: 1 where value >= at_least */
    double at_least;
    ct_time_unit time_unit;
    ct_id_type id_type;
    char value_separator; /* id: between several values; 0 = one value. Of a history and a similarity, which have several: ',' */
    uint32_t max_values;  /* id: keeps this many newest values; 1 without a separator. history: its last ones */
    bool newest_first;
    const char *shares; /* id: uses that field's keys and rows; NULL = its own */
    uint64_t salt;      /* id: hash of the name whose rows it uses; group, unit, vector: 0 */
    size_t of;          /* vector, history: index of its id field; similarity, derived number: of the history */
    bool clicked;       /* history: of rows whose label is 1 alone */
    bool attention;     /* history: pooled by the attention of the row's own value of `of`, and on its side; else a mean, and context */
    size_t vector;      /* similarity: index of the vector field */
    uint32_t tiers;     /* similarity: steps of the cosine, -1 to 1, in which the history's vectors are counted */
    const char *vector_path;     /* vector: the file, resolved against the schema's folder */
    const char *vector_ids_path; /* resolved; NULL = ids are 1 .. N */
    uint64_t
        hash; /* of everything above that decides the column's content: kind, type, salt, label rule, ... not of paths or source columns */
} ct_field;

typedef struct ct_schema {
    const char *name;
    char separator;
    bool header;
    size_t columns; /* fields that a line must have; 0 = known when the header is read */
    ct_field *fields;
    size_t field_count;
    const char *text; /* the YAML as it was read: what a model folder stores */
    size_t text_bytes;
    uint64_t hash; /* of all fields' names and hashes, in order */
    void *owner;   /* private */
} ct_schema;

enum { CT_SCHEMA_MAX_FIELDS = 4096, CT_HISTORY_MAX_VALUES = 1000, CT_SIMILARITY_MAX_TIERS = 64 };

/* `name_or_path`: "criteo" or a file. The schema is the caller's, and all that it points to is its own. CT_INVALID with file, line and
 * field at fault; CT_NOT_FOUND lists the built-in names. */
CT_MUST_CHECK ct_code ct_schema_load(const char *name_or_path, ct_schema **out_schema, ct_status *status);
/* From text; `path` is for messages and for resolving relative file names. */
CT_MUST_CHECK ct_code ct_schema_parse(const char *text, size_t bytes, const char *path, ct_schema **out_schema, ct_status *status);
void ct_schema_destroy(ct_schema *schema); /* NULL is fine */
/* Index of the field of that name, or -1. */
int64_t ct_schema_find(const ct_schema *schema, const char *name);
/* Of the rule by which the values of the field's column are made: what a block file and an exposure say of it. That of the field, but of
 * what is derived it is a function of the history's rule alone. */
uint64_t ct_schema_column_hash(const ct_schema *schema, size_t field);
/* Index of the only field of that kind, or -1. */
int64_t ct_schema_find_kind(const ct_schema *schema, ct_field_kind kind);

/* --- one value, as text or from a request, to what a batch holds: the only place where this is done --- */

/* The 64-bit key of a token: XXH3 of the token, seeded with the field's salt; integers in canonical decimal form (CT_INVALID otherwise).
 * An empty token is a token of its own ("missing has a row"). */
CT_MUST_CHECK ct_code ct_field_key(const ct_field *field, const char *token, size_t bytes, uint64_t *out_key, ct_status *status);
/* A number; an empty text is NaN = missing. CT_INVALID on anything that is no decimal number in float's range. */
CT_MUST_CHECK ct_code ct_field_number(const ct_field *field, const char *text, size_t bytes, float *out_value, ct_status *status);
/* 1 or 0, by the field's rule; CT_INVALID on an empty text, and where there is no rule on anything but 0 and 1. */
CT_MUST_CHECK ct_code ct_field_label(const ct_field *field, const char *text, size_t bytes, float *out_label, ct_status *status);
/* Milliseconds since 1970; a fraction goes to the nearest one. */
CT_MUST_CHECK ct_code ct_field_time(const ct_field *field, const char *text, size_t bytes, int64_t *out_ms, ct_status *status);

#endif
