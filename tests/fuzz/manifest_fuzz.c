/* The manifest of a model folder. The first byte's lowest bit asks for a right checksum behind the rest, so that what lies behind it is
 * reached; the next bit asks for the files to be checked too. The folder holds the manifest and one file that a good one may list. */
#include <stdbool.h>

#include "base/file.h"
#include "model/model.h"
#include "tests/base/temp.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "manifest_fuzz";

static char *folder, *manifest;

static void make_folder(void) {
    ct_status status = CT_STATUS_INIT;
    if (folder) return;
    folder = fuzz_folder();
    manifest = temp_path(folder, "manifest");
    char *schema = temp_path(folder, "schema.yaml");
    FUZZ_MUST(ct_file_write(schema, "name: x\n", 8, &status) == CT_OK);
    free(schema);
}

__attribute__((destructor)) static void free_folder(void) {
    if (folder) temp_remove(folder);
    free(manifest);
}

static void put_checksum(FILE *file, const uint8_t *text, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_digest *digest = NULL;
    char hex[CT_DIGEST_HEX_BYTES];
    FUZZ_MUST(ct_digest_create(&digest, &status) == CT_OK);
    ct_digest_update(digest, text, bytes);
    ct_digest_hex(digest, hex);
    ct_digest_destroy(digest);
    FUZZ_MUST(fprintf(file, "\nchecksum %s\n", hex) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    json_t *json = NULL;
    if (!bytes) return 0;
    make_folder();
    FILE *file = fopen(manifest, "wb");
    FUZZ_MUST(file && fwrite(data + 1, 1, bytes - 1, file) == bytes - 1);
    if (data[0] & 1) put_checksum(file, data + 1, bytes - 1);
    FUZZ_MUST(fclose(file) == 0);
    const bool check_files = (data[0] & 2) != 0;
    const ct_code code = ct_model_manifest(folder, check_files, &json, &status);
    if (code != CT_OK) {
        FUZZ_MUST((code == CT_CORRUPT || code == CT_UNSUPPORTED || code == CT_INVALID) && strstr(status.message, folder));
        return 0;
    }
    FUZZ_MUST(json_is_object(json) && json_is_array(json_object_get(json, "files")));
    FUZZ_MUST(strcmp(json_string_value(json_object_get(json, "format")), "clicktower-model") == 0);
    json_decref(json);
    return 0;
}

#define HEAD            "{\"format\": \"clicktower-model\", \"version\": 1, \"least_reader_version\": 1, \"required_features\": ["
#define FILE_LINE(name) "{\"name\": \"" name "\", \"bytes\": 8, \"xxh3_128\": \"0123456789abcdef0123456789abcdef\"}"

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const char *const seeds[] = {
        HEAD "], \"rows\": 10, \"digest\": \"00\", \"files\": [" FILE_LINE("schema.yaml") ", " FILE_LINE("model.yaml") ", " FILE_LINE(
            "tower.safetensors") ", " FILE_LINE("tables/store.json") ", " FILE_LINE("tables/CURRENT") "]}",
        HEAD "], \"files\": []}",
        HEAD "\"gpu\"], \"files\": []}",
        HEAD "7], \"files\": [1, null, \"x\"]}",
        "{\"format\": \"clicktower-model\", \"version\": 9, \"least_reader_version\": 9, \"required_features\": []}",
        HEAD "], \"files\": [" FILE_LINE("../../../etc/hostname") ", " FILE_LINE("") ", " FILE_LINE("/") "]}",
        "[]",
        "{\"format\": {\"a\": [[[[[1.5e300, -0.0, \"\\ud834\\udd1e\"]]]]]}}",
    };
    enum { COUNT = sizeof seeds / sizeof seeds[0] };
    if (index >= 2 * COUNT) return 0;
    out[0] = (uint8_t)(index < COUNT ? 1 : 3);
    const char *text = seeds[index % COUNT];
    memcpy(out + 1, text, strlen(text));
    return 1 + strlen(text);
}
