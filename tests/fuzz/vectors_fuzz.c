/* Vector files: a .npy of vectors, and the ids of its rows as text or as an int64 .npy. Input: flags, u16 bytes of the vectors, the
 * vectors, the ids. Flag 1: there is no file of ids. What is not refused is finite, has distinct keys, is the same when it is read again,
 * and keeps its keys and values when they are dealt anew. */
#include "data/vectors.h"

#include <math.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "vectors_fuzz";

enum { NO_IDS = 1, INPUT_HEAD = 3 };

static int by_key(const void *left, const void *right) {
    const uint64_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

/* Returns the sum of the keys, which does not depend on their order. */
static uint64_t check(const ct_vectors *vectors) {
    FUZZ_MUST(vectors->count > 0 && vectors->dim > 0);
    for (size_t i = 0; i < vectors->count * vectors->dim; i++) FUZZ_MUST(isfinite(vectors->values[i]));
    uint64_t *keys = malloc(vectors->count * sizeof *keys);
    FUZZ_MUST(keys);
    memcpy(keys, vectors->keys, vectors->count * sizeof *keys);
    qsort(keys, vectors->count, sizeof *keys, by_key);
    uint64_t sum = keys[0];
    for (size_t i = 1; i < vectors->count; i++) {
        FUZZ_MUST(keys[i] != keys[i - 1]);
        sum += keys[i];
    }
    free(keys);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_vectors *vectors = NULL, *again = NULL;
    if (bytes < INPUT_HEAD || bytes > FUZZ_MAX_BYTES) return 0;
    size_t first = (size_t)(data[1] | data[2] << 8);
    if (first > bytes - INPUT_HEAD) first = bytes - INPUT_HEAD;
    fuzz_file file = fuzz_file_open(data + INPUT_HEAD, first), ids = fuzz_file_open(data + INPUT_HEAD + first, bytes - INPUT_HEAD - first);
    const char *ids_path = data[0] & NO_IDS ? NULL : ids.path;
    const ct_code code = ct_vectors_load(file.path, ids_path, NULL, &vectors, &status);
    if (code != CT_OK) {
        FUZZ_MUST(code == CT_CORRUPT || code == CT_INVALID || code == CT_UNSUPPORTED);
        FUZZ_MUST(strstr(status.message, file.path) || (ids_path && strstr(status.message, ids_path)));
    } else {
        const uint64_t keys = check(vectors);
        FUZZ_MUST(ct_vectors_load(file.path, ids_path, NULL, &again, &status) == CT_OK);
        FUZZ_MUST(strcmp(again->content_hash, vectors->content_hash) == 0);
        FUZZ_MUST(ct_vectors_shuffle(again, 7, &status) == CT_OK && again->count == vectors->count);
        FUZZ_MUST(check(again) == keys);
    }
    ct_vectors_destroy(vectors);
    ct_vectors_destroy(again);
    fuzz_file_close(&file);
    fuzz_file_close(&ids);
    return 0;
}

/* A .npy file: its bytes. */
static size_t put_npy(uint8_t *out, unsigned version, const char *header, const void *values, size_t bytes) {
    const size_t head = version == 1 ? 10 : 12, length = strlen(header);
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (uint8_t)version;
    out[7] = 0;
    ct_put_le32(out + 8, (uint32_t)length); /* in version 1 its upper half is the header's */
    memcpy(out + head, header, length);
    memcpy(out + head + length, values, bytes);
    return head + length + bytes;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const float floats[6] = {0.5f, -1, 2, 3e-5f, -0.0f, 7};
    static const double doubles[6] = {0.5, -1, 2, 3e-5, -0.0, 7};
    static const uint16_t halves[6] = {0x3800, 0xbc00, 0x4000, 0x0001, 0x8000, 0x4700};
    static const int64_t numbers[3] = {5, -7, INT64_MAX};
    static const struct {
        const char *header;
        const void *values;
        size_t bytes;
        unsigned version, ids; /* ids: 0 = none, 1 = text, 2 = .npy */
    } seeds[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }          \n", floats, sizeof floats, 1, 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }          \n", floats, sizeof floats, 1, 1},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }\n", doubles, sizeof doubles, 2, 2},
        {"{\"shape\": (3, 2), \"descr\": \"<f2\", \"fortran_order\": False}\n", halves, sizeof halves, 3, 1},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (18446744073709551615, 2), }\n", floats, sizeof floats, 1, 0},
    };
    if (index >= sizeof seeds / sizeof *seeds) return 0;
    uint8_t *at = out + INPUT_HEAD;
    at += put_npy(at, seeds[index].version, seeds[index].header, seeds[index].values, seeds[index].bytes);
    const size_t first = (size_t)(at - out) - INPUT_HEAD;
    out[0] = seeds[index].ids == 0 ? NO_IDS : 0;
    out[1] = (uint8_t)first;
    out[2] = (uint8_t)(first >> 8);
    if (seeds[index].ids == 1) {
        static const char text[] = "x\ny z\n\xc3\xa9\n";
        memcpy(at, text, sizeof text - 1);
        at += sizeof text - 1;
    } else if (seeds[index].ids == 2) {
        at += put_npy(at, 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }\n", numbers, sizeof numbers);
    }
    return (size_t)(at - out);
}
