/* Reading whole sources in tests. */
#ifndef TESTS_DATA_SOURCE_FIXTURE_H
#define TESTS_DATA_SOURCE_FIXTURE_H

#include "data/source.h"
#include "tests/data/fixture.h"

/* All of a source, read in pieces of `capacity`; `*out_bytes` also on failure. */
static inline ct_code read_all(const char *path, size_t capacity, char **out_data, size_t *out_bytes, ct_status *status) {
    ct_source *source = NULL;
    size_t bytes = 0, got = 0, room = 2 * capacity;
    char *data = malloc(room);
    *out_data = NULL;
    *out_bytes = 0;
    ct_code code = ct_source_open(path, &source, status);
    while (code == CT_OK) {
        if (bytes + capacity > room) {
            room *= 2;
            data = realloc(data, room);
            assert_non_null(data);
        }
        code = ct_source_read(source, data + bytes, capacity, &got, status);
        if (code == CT_OK) {
            assert_true(got > 0 && got <= capacity);
            bytes += got;
        }
    }
    ct_source_close(source);
    *out_data = data;
    *out_bytes = bytes;
    return code == CT_END ? CT_OK : code;
}

static inline void assert_content(const char *path, const void *expected, size_t bytes) {
    static const size_t capacities[] = {1, 7, 4096, 1 << 20};
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++) {
        if (capacities[i] == 1 && bytes > 20000) continue;
        ct_status status = CT_STATUS_INIT;
        char *data;
        size_t got;
        assert_ok(read_all(path, capacities[i], &data, &got, &status), &status);
        assert_int_equal(got, bytes);
        if (bytes) assert_memory_equal(data, expected, bytes);
        free(data);
    }
}

static inline void assert_refused(const char *path, ct_code expected, const char *part) {
    ct_status status = CT_STATUS_INIT;
    char *data;
    size_t got;
    assert_code(expected, read_all(path, 64, &data, &got, &status), &status);
    assert_contains(status.message, part);
    free(data);
}

static inline char *some_text(size_t bytes, uint64_t seed) {
    char *data = malloc(bytes + 1);
    assert_non_null(data);
    for (size_t i = 0; i < bytes; i++) data[i] = "0123456789abcdef\t\t\n"[draw(&seed, 19)];
    data[bytes] = '\0';
    return data;
}

#endif
