/* Private to data/: a schema's YAML as strings with their places, before anything is checked. */
#ifndef DATA_SCHEMA_YAML_H
#define DATA_SCHEMA_YAML_H

#include "base/arena.h"
#include "base/status.h"

/* Keys of an entry of `fields`. */
typedef enum ct_key {
    CT_KEY_NAME,
    CT_KEY_KIND,
    CT_KEY_COLUMN,
    CT_KEY_SIDE,
    CT_KEY_AT_LEAST,
    CT_KEY_TIME_UNIT,
    CT_KEY_TYPE,
    CT_KEY_SEPARATOR,
    CT_KEY_MAX,
    CT_KEY_NEWEST,
    CT_KEY_SHARES,
    CT_KEY_OF,
    CT_KEY_FILE,
    CT_KEY_IDS,
    CT_KEY_CLICKED,
    CT_KEY_VECTOR,
    CT_KEY_TIERS,
    CT_KEY_POOLING,
    CT_KEYS
} ct_key;
extern const char *const ct_key_names[CT_KEYS];

enum { CT_FORMAT_SEPARATOR, CT_FORMAT_HEADER, CT_FORMAT_COLUMNS, CT_FORMAT_KEYS };

typedef struct ct_yaml_field {
    const char *value[CT_KEYS]; /* NULL = not given */
    int line;                   /* of the entry; lines are 1-based */
    int key_line[CT_KEYS];      /* 0 = not given */
} ct_yaml_field;

typedef struct ct_yaml_schema {
    const char *name; /* NULL = not given */
    const char *format[CT_FORMAT_KEYS];
    int format_line[CT_FORMAT_KEYS];
    int fields_line;
    ct_yaml_field *fields;
    size_t field_count;
} ct_yaml_schema;

/* All memory is the arena's. CT_INVALID with "PATH:LINE: ..." on anything that is not YAML or not of this shape: one document, a mapping of
 * name, format and fields with the keys above and scalar values, no key twice, no alias. */
CT_MUST_CHECK ct_code ct_yaml_schema_parse(const char *text, size_t bytes, const char *path, ct_arena *arena, ct_yaml_schema *out,
                                           ct_status *status);

#endif
