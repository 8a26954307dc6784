#include "base/hash.h"

#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"

uint64_t ct_hash64(const void *data, size_t bytes, uint64_t seed) { return XXH3_64bits_withSeed(data, bytes, seed); }

void ct_hash128(const void *data, size_t bytes, uint64_t seed, uint64_t out_hash[2]) {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(data, bytes, seed);
    out_hash[0] = hash.low64;
    out_hash[1] = hash.high64;
}

void ct_sum_add(ct_sum *sum, uint64_t key, const void *record, size_t bytes) {
    uint64_t hash[2];
    ct_hash128(record, bytes, key, hash);
    for (size_t i = 0; i < 2; i++) sum->word[i] += hash[i];
}

void ct_sum_take(ct_sum *sum, uint64_t key, const void *record, size_t bytes) {
    uint64_t hash[2];
    ct_hash128(record, bytes, key, hash);
    for (size_t i = 0; i < 2; i++) sum->word[i] -= hash[i];
}

/* ct_digest is xxHash's own state under our name. */
static XXH3_state_t *state_of(ct_digest *digest) { return (XXH3_state_t *)(void *)digest; }

ct_code ct_digest_create(ct_digest **out_digest, ct_status *status) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) return ct_fail(status, CT_EXHAUSTED, "out of memory (for a digest)");
    (void)XXH3_128bits_reset(state);
    *out_digest = (ct_digest *)(void *)state;
    return CT_OK;
}

void ct_digest_destroy(ct_digest *digest) { (void)XXH3_freeState(state_of(digest)); }

void ct_digest_update(ct_digest *digest, const void *data, size_t bytes) {
    if (bytes) (void)XXH3_128bits_update(state_of(digest), data, bytes);
}

void ct_digest_update_u64(ct_digest *digest, uint64_t value) {
    unsigned char bytes[8];
    ct_put_le64(bytes, value);
    ct_digest_update(digest, bytes, sizeof bytes);
}

void ct_digest_update_text(ct_digest *digest, const char *text) {
    const size_t bytes = strlen(text);
    ct_digest_update_u64(digest, bytes);
    ct_digest_update(digest, text, bytes);
}

void ct_digest_hex(const ct_digest *digest, char out_hex[CT_DIGEST_HEX_BYTES]) {
    XXH128_canonical_t canonical; /* big-endian, as xxhsum prints it */
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest((const XXH3_state_t *)(const void *)digest));
    for (size_t i = 0; i < sizeof canonical.digest; i++) {
        out_hex[2 * i] = "0123456789abcdef"[canonical.digest[i] >> 4];
        out_hex[2 * i + 1] = "0123456789abcdef"[canonical.digest[i] & 15];
    }
    out_hex[CT_DIGEST_HEX_BYTES - 1] = '\0';
}
