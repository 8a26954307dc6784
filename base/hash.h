/* Hashes: XXH3 (libxxhash). 64 bits for keys, 128 bits for checksums and digests. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/status.h"

uint64_t ct_hash64(const void *data, size_t bytes, uint64_t seed);

void ct_hash128(const void *data, size_t bytes, uint64_t seed, uint64_t out_hash[2]);

/* A sum of records' hashes: what a set of them holds, in whatever order, whatever its files look like. A change takes the old record's out
 * and puts the new one's in. */
typedef struct ct_sum {
    uint64_t word[2];
} ct_sum;
void ct_sum_add(ct_sum *sum, uint64_t key, const void *record, size_t bytes);
void ct_sum_take(ct_sum *sum, uint64_t key, const void *record, size_t bytes);

enum { CT_DIGEST_HEX_BYTES = 33 }; /* 32 hex digits and NUL */

/* A running 128-bit digest. Not for secrets. */
typedef struct ct_digest ct_digest;
CT_MUST_CHECK ct_code ct_digest_create(ct_digest **out_digest, ct_status *status);
void ct_digest_destroy(ct_digest *digest); /* NULL is fine */
void ct_digest_update(ct_digest *digest, const void *data, size_t bytes);
void ct_digest_update_u64(ct_digest *digest, uint64_t value);    /* as 8 little-endian bytes */
void ct_digest_update_text(ct_digest *digest, const char *text); /* its length as u64, then its bytes */
void ct_digest_hex(const ct_digest *digest, char out_hex[CT_DIGEST_HEX_BYTES]);

#endif
