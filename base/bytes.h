/* Integers to and from bytes: little-endian for files and the wire, big-endian for RocksDB's keys, so that order and number agree. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdint.h>
#include <string.h>

static inline void ct_put_le32(void *to, uint32_t v) { memcpy(to, &v, 4); }
static inline void ct_put_le64(void *to, uint64_t v) { memcpy(to, &v, 8); }
static inline uint32_t ct_get_le32(const void *from) {
    uint32_t v;
    memcpy(&v, from, 4);
    return v;
}
static inline uint64_t ct_get_le64(const void *from) {
    uint64_t v;
    memcpy(&v, from, 8);
    return v;
}
static inline void ct_put_be64(void *to, uint64_t v) {
    v = __builtin_bswap64(v);
    memcpy(to, &v, 8);
}
static inline uint64_t ct_get_be64(const void *from) {
    uint64_t v;
    memcpy(&v, from, 8);
    return __builtin_bswap64(v);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "Clicktower's files are little-endian; so must the machine be");

#endif
