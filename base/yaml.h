/* YAML to C structures by libcyaml, with failures as one line that names file, line, field and reason. */
#ifndef BASE_YAML_H
#define BASE_YAML_H

#include <cyaml/cyaml.h>
#include <stdio.h>

#include "base/status.h"

/* Loads `text` by a cyaml schema whose top is a mapping with CYAML_FLAG_POINTER. `path` is for messages. An empty document is CT_INVALID.
 * `*out` is freed by ct_yaml_free with the same schema. Unknown keys, repeated keys and values of another type are CT_INVALID:
 * a whole number is decimal digits with no leading zero, a boolean is true or false, no value holds a NUL character. So are a second
 * document, and documents that would take long: too deep, with too many anchors, or with aliases that make too many values of a few. */
enum { CT_YAML_MAX_DEPTH = 64, CT_YAML_MAX_ANCHORS = 1000, CT_YAML_MAX_VALUES = 1 << 20 };
CT_MUST_CHECK ct_code ct_yaml_load(const char *text, size_t bytes, const char *path, const cyaml_schema_value_t *schema, void **out,
                                   ct_status *status);
/* Is the value of key `inner` in the mapping of the top's key `outer` a list? For a field that may be one: which of two schemas to load by.
 * False where the text is no YAML or has no such key. */
bool ct_yaml_is_list(const char *text, size_t bytes, const char *outer, const char *inner);
/* In double quotes, with what has no plain form in YAML escaped; a byte that is no UTF-8 becomes U+FFFD. */
void ct_yaml_put_string(FILE *to, const char *text, size_t bytes);
void ct_yaml_free(const cyaml_schema_value_t *schema, void *data); /* NULL is fine */

#endif
