/* A delta: head, blocks, description. Input: flags, u16 bytes of the blocks' part, that part, the description. Flag 1 asks for a head and
 * hashes that fit, so that the description is reached; flag 2 for one block over the whole of its part with the right hash, so that its
 * records are; flag 4 for that of a filter's lines. */
#include "base/bytes.h"
#include "embedding_store/delta_internal.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "delta_fuzz";

enum { INPUT_HEAD = 3, PARTS_MAX = FUZZ_MAX_BYTES + CT_DELTA_HEAD_BYTES };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static char file[PARTS_MAX];
    ct_status status = CT_STATUS_INIT;
    if (bytes < INPUT_HEAD || bytes > FUZZ_MAX_BYTES) return 0;
    uint16_t part = 0;
    memcpy(&part, data + 1, sizeof part);
    size_t total = bytes - INPUT_HEAD;
    if (part > total) part = (uint16_t)total;
    memcpy(file, "CTDELTA1", 8);
    memset(file + 8, 0, CT_DELTA_HEAD_BYTES - 8);
    memcpy(file + CT_DELTA_HEAD_BYTES, data + INPUT_HEAD, total);
    total += CT_DELTA_HEAD_BYTES;
    if ((data[0] & 2) && part >= 16) {
        char *block = file + CT_DELTA_HEAD_BYTES;
        const size_t payload = (size_t)part - 16;
        const ct_delta_section section = {.filter = data[0] & 4};
        ct_put_le32(block, (uint32_t)payload);
        ct_put_le64(block + 8 + payload, ct_delta_block_hash(block, payload, &section));
    }
    if (data[0] & 1) {
        const size_t at = CT_DELTA_HEAD_BYTES + part;
        ct_put_le64(file + 8, total);
        ct_put_le64(file + 16, at);
        ct_put_le64(file + 24, ct_hash64(file + at, total - at, 0));
        ct_put_le64(file + 32, ct_hash64(file, 32, 0));
    }
    fuzz_file on_disk = fuzz_file_open(file, total);
    ct_delta *delta = NULL;
    ct_code code = ct_delta_open(on_disk.path, &delta, &status);
    if (code == CT_OK) {
        FUZZ_MUST(json_is_object(ct_delta_description(delta)) && ct_delta_bytes(delta) == total);
        code = ct_delta_check(delta, &status);
        ct_delta_close(delta);
    }
    FUZZ_MUST(code == CT_OK || strstr(status.message, on_disk.path));
    FUZZ_MUST(code == CT_OK || code == CT_CORRUPT || code == CT_UNSUPPORTED || code == CT_UNAVAILABLE || code == CT_INVALID);
    fuzz_file_close(&on_disk);
    return 0;
}

/* A table of two floats a row: a row, a stub, and a key that is gone; or its filter: a line. */
size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    enum { ROW = 17, STUB = 5, LINE = 64, COUNT = 7 };
    static const uint16_t row_sizes[] = {ROW, STUB, 0}, line_sizes[] = {LINE};
    if (index >= COUNT) return 0;
    const bool filter = index == 6;
    const uint16_t *sizes = filter ? line_sizes : row_sizes;
    const uint32_t records = filter ? 1 : 3;
    const ct_table_spec spec = {
        .name = "ids", .dim = 2, .learning_rate = 0.1f, .initial_accumulator = 0.1f, .min_count = 2, .seed = 1, .filter_mib = filter};
    uint16_t payload = 0;
    for (uint32_t i = 0; i < records; i++) payload = (uint16_t)(payload + CT_DELTA_RECORD_HEAD_BYTES + sizes[i]);
    ct_store *store = NULL;
    ct_status status;
    json_t *tables = NULL;
    FUZZ_MUST(ct_store_create(&spec, 1, ct_device_cpu(), NULL, &store, &status) == CT_OK);
    FUZZ_MUST(ct_store_manifest_json(store, &tables, &status) == CT_OK);
    ct_store_destroy(store);
    char *block = (char *)out + INPUT_HEAD;
    memset(out, 0, INPUT_HEAD + 16u + payload);
    out[0] = index == 1 ? 0 : index == 2 ? 1 : filter ? 7 : 3;
    const uint16_t part = (uint16_t)(16 + payload);
    memcpy(out + 1, &part, sizeof part);
    ct_put_le32(block + 4, records);
    char *at = block + 8;
    for (uint32_t i = 0; i < records; i++) {
        ct_put_le64(at, (i + 1) * UINT64_C(0x1111111111111111));
        memcpy(at + 8, &sizes[i], sizeof sizes[i]);
        if (i == 0 && !filter) at[CT_DELTA_RECORD_HEAD_BYTES + 4] = 1; /* it has a row */
        at += CT_DELTA_RECORD_HEAD_BYTES + sizes[i];
    }
    json_t *json = json_pack("{s:s, s:i, s:i, s:[], s:o, s:[{s:b, s:i, s:i, s:i, s:i, s:i}], s:[]}", "format", "clicktower delta",
                             "version", 1, "least_reader", index == 3 ? 2 : 1, "requires", "store", tables, "sections", "filter", filter,
                             "table", index == 4 ? 1 : 0, "offset", CT_DELTA_HEAD_BYTES, "bytes", (int)part, "blocks",
                             index == 5 ? 1000 : 1, "records", (int)records, "tensors");
    char *text = json_dumps(json, JSON_COMPACT);
    FUZZ_MUST(text && INPUT_HEAD + part + strlen(text) < FUZZ_MAX_BYTES);
    memcpy(out + INPUT_HEAD + part, text, strlen(text));
    const size_t bytes = INPUT_HEAD + part + strlen(text);
    free(text);
    json_decref(json);
    return bytes;
}
