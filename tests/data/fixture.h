/* What the tests of data/ share: files from bytes, gzip by zlib (not by the library that reads it), zstd, checks that print the message. */
#ifndef TESTS_DATA_FIXTURE_H
#define TESTS_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "base/file.h"
#include "tests/base/temp.h"

#define assert_code(expected, got, status)                                                                                            \
    do {                                                                                                                              \
        const ct_code got_ = (got), expected_ = (expected);                                                                           \
        if (got_ != expected_) print_error("%s instead of %s: %s\n", ct_code_name(got_), ct_code_name(expected_), (status)->message); \
        assert_int_equal(got_, expected_);                                                                                            \
    } while (0)
#define assert_ok(got, status) assert_code(CT_OK, got, status)

#define assert_contains(text, part)                                                               \
    do {                                                                                          \
        if (!strstr((text), (part))) print_error("'%s' does not contain '%s'\n", (text), (part)); \
        assert_non_null(strstr((text), (part)));                                                  \
    } while (0)

/* folder/name with these bytes; malloc'd path. */
static inline char *write_bytes(const char *folder, const char *name, const void *data, size_t bytes) {
    char *path = temp_path(folder, name);
    (void)remove(path); /* ext4 flushes a file that is cut and written again, but not a new one */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline char *write_text(const char *folder, const char *name, const char *text) {
    return write_bytes(folder, name, text, strlen(text));
}

/* One gzip member; malloc'd. */
static inline unsigned char *gzip_bytes(const void *data, size_t bytes, int level, size_t *out_bytes) {
    z_stream stream = {0};
    const size_t room = bytes + bytes / 100 + 1024;
    unsigned char *out = malloc(room);
    assert_non_null(out);
    assert_int_equal(deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (Bytef *)(uintptr_t)data;
    stream.avail_in = (uInt)bytes;
    stream.next_out = out;
    stream.avail_out = (uInt)room;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    *out_bytes = stream.total_out;
    assert_int_equal(deflateEnd(&stream), Z_OK);
    return out;
}

/* One zstd frame with a checksum; malloc'd. */
static inline unsigned char *zstd_bytes(const void *data, size_t bytes, int level, size_t *out_bytes) {
    const size_t room = ZSTD_compressBound(bytes);
    unsigned char *out = malloc(room);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    assert_true(out && context);
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)));
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)));
    *out_bytes = ZSTD_compress2(context, out, room, data, bytes);
    assert_false(ZSTD_isError(*out_bytes));
    (void)ZSTD_freeCCtx(context);
    return out;
}

/* A growing text. */
typedef struct text {
    char *bytes;
    size_t size, capacity;
} text;

__attribute__((format(printf, 2, 3))) static inline void text_add(text *t, const char *format, ...) {
    va_list arguments;
    for (;;) {
        va_start(arguments, format);
        const int length = vsnprintf(t->bytes ? t->bytes + t->size : NULL, t->capacity - t->size, format, arguments);
        va_end(arguments);
        assert_true(length >= 0);
        if (t->size + (size_t)length < t->capacity) {
            t->size += (size_t)length;
            return;
        }
        t->capacity = 2 * (t->capacity + (size_t)length + 1);
        t->bytes = realloc(t->bytes, t->capacity);
        assert_non_null(t->bytes);
    }
}

/* A small generator for test data: 64-bit LCG, upper bits (Knuth's MMIX constants). */
static inline uint32_t draw(uint64_t *state, uint32_t below) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % below);
}

#endif
