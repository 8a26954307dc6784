#include "tools/cli/problems.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

static void print_problem(const ct_status *problem) { (void)fprintf(stderr, "clicktower verify: problem: %s\n", problem->message); }

void ct_problems_take(ct_problems *problems, ct_code code, ct_status *status) {
    problems->checked++;
    if (code == CT_OK) return;
    if (++problems->count == 1) {
        problems->first = *status;
    } else {
        if (problems->count == 2) print_problem(&problems->first);
        print_problem(status);
    }
    *status = (ct_status)CT_STATUS_INIT;
}

static ct_code check_listed(const char *folder, const json_t *entry, ct_status *status) {
    const char *name = NULL, *expected = NULL;
    int64_t expected_bytes = 0;
    CT_TRY(ct_json_get_string(entry, "name", folder, &name, status));
    CT_TRY(ct_json_get_string(entry, "xxh3_128", folder, &expected, status));
    CT_TRY(ct_json_get_i64(entry, "bytes", folder, &expected_bytes, status));
    char *path = ct_path_join(folder, name);
    if (!path) return ct_fail_memory(status, strlen(folder), "a path");
    char hex[CT_DIGEST_HEX_BYTES];
    uint64_t bytes = 0;
    ct_code code = ct_file_digest(path, hex, &bytes, status);
    if (code == CT_NOT_FOUND)
        code = ct_fail(status, CT_CORRUPT, "%s: the manifest lists it, and it is not there; copy the folder again", path);
    else if (code == CT_OK && bytes != (uint64_t)expected_bytes)
        code = ct_fail(status, CT_CORRUPT, "%s: %" PRIu64 " bytes, where the manifest says %" PRId64 "; copy the folder again", path, bytes,
                       expected_bytes);
    else if (code == CT_OK && strcmp(hex, expected) != 0)
        code = ct_fail(status, CT_CORRUPT, "%s: checksum %s, where the manifest says %s; copy the folder again", path, hex, expected);
    free(path);
    return code;
}

void ct_problems_of_files(ct_problems *problems, const char *folder, const json_t *files) {
    size_t index;
    const json_t *entry;
    json_array_foreach(files, index, entry) {
        ct_status status = CT_STATUS_INIT;
        ct_problems_take(problems, check_listed(folder, entry, &status), &status);
    }
}

ct_code ct_problems_end(const ct_problems *problems, const char *folder, ct_status *status) {
    if (problems->count > 1)
        return ct_fail(status, CT_CORRUPT,
                       "%s: %zu of %zu files are not what was written, or can't be read (see above); copy the folder again", folder,
                       problems->count, problems->checked);
    if (problems->count == 1) *status = problems->first;
    return problems->first.code;
}
