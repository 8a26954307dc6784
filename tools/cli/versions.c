#include "tools/cli/versions.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "model/model.h"

static bool version_of_name(const char *name, int64_t *out_version) {
    return name[0] >= '0' && name[0] <= '9' && ct_parse_i64(name, strlen(name), out_version);
}

static int descending(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

int64_t *ct_versions_list(const char *folder, size_t *out_count) {
    size_t count = 0, capacity = 0;
    int64_t *versions = NULL;
    DIR *directory = opendir(folder);
    *out_count = 0;
    if (!directory) return NULL;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        int64_t version = 0;
        if (!version_of_name(entry->d_name, &version)) continue;
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            int64_t *more = realloc(versions, capacity * sizeof *versions);
            if (!more) break;
            versions = more;
        }
        versions[count++] = version;
    }
    (void)closedir(directory);
    if (count) qsort(versions, count, sizeof *versions, descending);
    *out_count = count;
    return versions;
}

char *ct_version_folder(const char *folder, int64_t version) {
    char *found = NULL;
    DIR *directory = opendir(folder);
    if (!directory) return NULL;
    for (const struct dirent *entry; !found && (entry = readdir(directory));) {
        int64_t other = 0;
        if (version_of_name(entry->d_name, &other) && other == version) found = ct_path_join(folder, entry->d_name);
    }
    (void)closedir(directory);
    return found;
}

/* --- is it all there? --- */

static int64_t changed_ns(const struct stat *found) { return (int64_t)found->st_ctim.tv_sec * 1000000000 + found->st_ctim.tv_nsec; }

static bool look_at(const char *folder, const char *name, struct stat *out) {
    char *path = ct_path_join(folder, name);
    const bool there = path && stat(path, out) == 0;
    free(path);
    return there;
}

ct_code ct_version_check_complete(const char *folder, int64_t *out_newest, ct_status *status) {
    struct stat found;
    if (!look_at(folder, "manifest", &found)) return ct_fail(status, CT_NOT_FOUND, "%s has no manifest yet", folder);
    *out_newest = changed_ns(&found);
    json_t *manifest = NULL;
    CT_TRY(ct_model_manifest(folder, false, &manifest, status));
    ct_code code = CT_OK;
    size_t index;
    json_t *file;
    json_array_foreach(json_object_get(manifest, "files"), index, file) {
        const char *name = json_string_value(json_object_get(file, "name"));
        if (code != CT_OK || !name) continue;
        const json_int_t bytes = json_integer_value(json_object_get(file, "bytes"));
        if (!look_at(folder, name, &found)) {
            code = ct_fail(status, CT_NOT_FOUND, "%s: %s is not there yet", folder, name);
        } else {
            if (changed_ns(&found) > *out_newest) *out_newest = changed_ns(&found);
            if (found.st_size < bytes)
                code = ct_fail(status, CT_NOT_FOUND, "%s: %s has %lld of %lld bytes yet", folder, name, (long long)found.st_size,
                               (long long)bytes);
        }
    }
    json_decref(manifest);
    return code;
}

bool ct_version_changed_since(const char *folder, int64_t ns) {
    struct stat found;
    return !look_at(folder, "manifest", &found) || changed_ns(&found) > ns;
}
