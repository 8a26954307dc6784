/* HTTP/2 (RFC 7540) by hand, for what gRPC's own client would not send. */
#ifndef TESTS_SERVING_HTTP2_H
#define TESTS_SERVING_HTTP2_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { HTTP2_DATA = 0, HTTP2_HEADERS = 1, HTTP2_RESET = 3, HTTP2_PING = 6, END_STREAM = 1, END_HEADERS = 4 };

static inline size_t put_frame(uint8_t *out, int type, int flags, uint32_t stream, const void *payload, size_t bytes) {
    const uint8_t head[9] = {(uint8_t)(bytes >> 16),  (uint8_t)(bytes >> 8),   (uint8_t)bytes,         (uint8_t)type,  (uint8_t)flags,
                             (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head, payload, bytes);
    return sizeof head + bytes;
}

/* The next whole frame: its head, and up to `capacity` bytes of what is in it. Returns the latter's bytes; SIZE_MAX: there is none. */
static inline size_t read_frame(int fd, uint8_t head[9], uint8_t *out, size_t capacity) {
    if (recv(fd, head, 9, MSG_WAITALL) != 9) return SIZE_MAX;
    const size_t bytes = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
    if (bytes > capacity || (bytes && recv(fd, out, bytes, MSG_WAITALL) != (ssize_t)bytes)) return SIZE_MAX;
    return bytes;
}

/* HPACK: a literal that is not indexed. */
static inline size_t put_header(uint8_t *out, const char *name, const char *value) {
    const size_t n = strlen(name), v = strlen(value);
    out[0] = 0;
    out[1] = (uint8_t)n;
    memcpy(out + 2, name, n);
    out[2 + n] = (uint8_t)v;
    memcpy(out + 3 + n, value, v);
    return 3 + n + v;
}

/* The head of a unary call; `out` has room for 512 bytes. */
static inline size_t put_head(uint8_t *out, int flags, uint32_t stream, const char *path) {
    uint8_t headers[480];
    size_t h = put_header(headers, ":method", "POST");
    h += put_header(headers + h, ":scheme", "http");
    h += put_header(headers + h, ":path", path);
    h += put_header(headers + h, ":authority", "test");
    h += put_header(headers + h, "te", "trailers");
    h += put_header(headers + h, "content-type", "application/grpc");
    return put_frame(out, HTTP2_HEADERS, END_HEADERS | flags, stream, headers, h);
}

/* A whole unary call; nothing, and 0, where `capacity` is too small. */
static inline size_t put_call(uint8_t *out, size_t capacity, uint32_t stream, const char *path, const uint8_t *message, size_t bytes) {
    uint8_t data[1024] = {0, 0, 0, (uint8_t)(bytes >> 8), (uint8_t)bytes};
    if (bytes + 5 > sizeof data || capacity < 512 + bytes + 32) return 0;
    memcpy(data + 5, message, bytes);
    const size_t at = put_head(out, 0, stream, path);
    return at + put_frame(out + at, HTTP2_DATA, END_STREAM, stream, data, bytes + 5);
}

#endif
