/* clicktower verify: every checksum and every reference of a model folder or a block file. Goes on after a problem, so that one run shows
 * all of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "data/block_file.h"
#include "model/model.h"
#include "tools/cli/cli.h"
#include "tools/cli/inspect.h"
#include "tools/cli/problems.h"
#include "tools/cli/publication.h"

static bool is_listed(const json_t *files, const char *name) {
    size_t index;
    const json_t *entry;
    json_array_foreach(files, index, entry) {
        const char *listed = json_string_value(json_object_get(entry, "name"));
        if (listed && strcmp(listed, name) == 0) return true;
    }
    return false;
}

static ct_code warn_of_strangers(const char *folder, const json_t *files, ct_status *status) {
    ct_file_list list;
    CT_TRY(ct_folder_list(folder, &list, status));
    for (size_t i = 0; i < list.count; i++)
        if (strcmp(list.names[i], "manifest") != 0 && !is_listed(files, list.names[i]))
            ct_warn("verify", "%s/%s: the manifest does not list it; nothing reads it", folder, list.names[i]);
    ct_file_list_deinit(&list);
    return CT_OK;
}

static ct_code verify_model(const char *folder, char out_digest[CT_DIGEST_HEX_BYTES], ct_status *status) {
    json_t *manifest = NULL, *files = NULL;
    ct_pool *pool = NULL;
    ct_model *model = NULL;
    ct_problems problems = {0};
    ct_code code;
    CT_TRY_GOTO(code, ct_model_manifest(folder, false, &manifest, status), done);
    CT_TRY_GOTO(code, ct_json_get_array(manifest, "files", folder, &files, status), done);
    ct_problems_of_files(&problems, folder, files);
    CT_TRY_GOTO(code, warn_of_strangers(folder, files, status), done);
    CT_TRY_GOTO(code, ct_problems_end(&problems, folder, status), done);
    /* All columns of the tables and the optimisers' state are read, which serving leaves out; a row at a time. */
    const char *written = NULL;
    CT_TRY_GOTO(code, ct_pool_create(0, &pool, status), done);
    CT_TRY_GOTO(code, ct_model_open(folder, CT_MODEL_LOOK, NULL, pool, &model, status), done);
    CT_TRY_GOTO(code, ct_model_digest(model, out_digest, status), done);
    CT_TRY_GOTO(code, ct_json_get_string(manifest, "digest", folder, &written, status), done);
    if (strcmp(out_digest, written) != 0)
        code = ct_fail(status, CT_CORRUPT, "%s: the content's digest is %s, where the manifest says %s: copy the folder again", folder,
                       out_digest, written);
done:
    ct_model_destroy(model);
    ct_pool_destroy(pool);
    json_decref(manifest);
    return code;
}

static ct_code verify_blocks(const char *path, char out_digest[CT_DIGEST_HEX_BYTES], ct_status *status) {
    json_t *json = NULL;
    const char *digest = NULL;
    CT_TRY(ct_block_file_describe(path, &json, status));
    const ct_code code = ct_json_get_string(json, "digest", path, &digest, status);
    if (code == CT_OK) (void)snprintf(out_digest, CT_DIGEST_HEX_BYTES, "%s", digest);
    json_decref(json);
    return code;
}

ct_code ct_verb_verify(int argc, char **argv, ct_status *status) {
    ct_text_list words = {0};
    const ct_command command = {
        "verify",
        "Checks every checksum and every reference and prints the digest of the content: equal models have equal "
        "digests, whatever their files look like. Of a publish folder: of its newest model, to which every delta was applied.",
        "  clicktower verify model\n"
        "  clicktower verify publish\n"
        "  clicktower verify day_0.ctb",
        "DIR|FILE.ctb|FILE.ctd",
        &words,
        NULL,
        0};
    char digest[CT_DIGEST_HEX_BYTES];
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    const char *path = words.items[0];
    switch (ct_content_kind_of(path)) {
        case CT_CONTENT_MODEL:
            code = verify_model(path, digest, status);
            break;
        case CT_CONTENT_PUBLICATION:
            code = ct_verify_publication(path, digest, status);
            break;
        case CT_CONTENT_DELTA:
            code = ct_verify_delta(path, digest, status);
            break;
        case CT_CONTENT_BLOCKS:
            code = verify_blocks(path, digest, status);
            break;
        case CT_CONTENT_OTHER:
            code = ct_path_exists(path)
                       ? ct_fail(status, CT_INVALID, "%s: neither a model folder, a publish folder, a delta nor a block file", path)
                       : ct_fail(status, CT_NOT_FOUND, "%s: no such file or folder", path);
            break;
    }
    if (code == CT_OK) (void)printf("digest %s\n", digest);
done:
    ct_text_list_deinit(&words);
    return code;
}
