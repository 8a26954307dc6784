/* Lines of JSON in a folder, read by jansson: what a reader of exposures or feedback finds. */
#ifndef TESTS_SERVING_LINES_H
#define TESTS_SERVING_LINES_H

#include <jansson.h>
#include <string.h>

#include "tests/base/temp.h"

/* Every whole line of every file, in the order of the files' names; the caller's. Aborts where a line is not JSON. out_files: how many
 * files, out_parts: of them with .part; may be NULL. */
static inline json_t *lines_of(const char *folder, size_t *out_files, size_t *out_parts) {
    ct_status status = CT_STATUS_INIT;
    ct_file_list list;
    json_t *all = json_array();
    if (ct_folder_list(folder, &list, &status) != CT_OK) abort();
    if (out_files) *out_files = list.count;
    if (out_parts) *out_parts = 0;
    for (size_t i = 0; i < list.count; i++) {
        char *path = temp_path(folder, list.names[i]), *data = NULL;
        size_t bytes = 0;
        if (ct_file_read(path, 1 << 28, &data, &bytes, &status) != CT_OK) abort();
        if (out_parts && strstr(list.names[i], ".part")) (*out_parts)++;
        for (char *line = data, *end; (end = strchr(line, '\n')); line = end + 1) {
            json_error_t error;
            json_t *json = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, &error);
            if (!json) {
                (void)fprintf(stderr, "%s: %s: %.*s\n", path, error.text, (int)(end - line), line);
                abort();
            }
            (void)json_array_append_new(all, json);
        }
        free(data);
        free(path);
    }
    ct_file_list_deinit(&list);
    return all;
}

static inline const char *text_of(const json_t *line, const char *member) { return json_string_value(json_object_get(line, member)); }
static inline json_int_t integer_of(const json_t *line, const char *member) { return json_integer_value(json_object_get(line, member)); }

#endif
