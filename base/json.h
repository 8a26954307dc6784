/* JSON by jansson, with failures that name the file and the member. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>

#include "base/status.h"

/* `name`: the file, for messages. A new value is the caller's. */
CT_MUST_CHECK ct_code ct_json_parse(const char *data, size_t bytes, const char *name, json_t **out_json, ct_status *status);
CT_MUST_CHECK ct_code ct_json_load(const char *path, json_t **out_json, ct_status *status);
/* Indented, sorted as inserted, final newline; written beside and renamed. */
CT_MUST_CHECK ct_code ct_json_save(const char *path, const json_t *json, ct_status *status);
json_t *ct_json_real(double value); /* null where the value is not finite */
/* The member, or CT_CORRUPT with name, member and the type that was expected. */
CT_MUST_CHECK ct_code ct_json_get_string(const json_t *object, const char *member, const char *name, const char **out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_i64(const json_t *object, const char *member, const char *name, int64_t *out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_range(const json_t *object, const char *member, const char *name, int64_t least, int64_t most,
                                        int64_t *out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_f64(const json_t *object, const char *member, const char *name, double *out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_array(const json_t *object, const char *member, const char *name, json_t **out, ct_status *status);
CT_MUST_CHECK ct_code ct_json_get_object(const json_t *object, const char *member, const char *name, json_t **out, ct_status *status);

#endif
