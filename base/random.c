#include "base/random.h"

#include "base/math.h"

static inline void multiply(uint32_t a, uint32_t b, uint32_t *high, uint32_t *low) {
    const uint64_t product = (uint64_t)a * b;
    *high = (uint32_t)(product >> 32);
    *low = (uint32_t)product;
}

ct_random4 ct_philox4x32(const uint32_t counter[4], const uint32_t key[2]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint32_t high0, low0, high1, low1;
        multiply(0xD2511F53u, c0, &high0, &low0);
        multiply(0xCD9E8D57u, c2, &high1, &low1);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u; /* golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    return (ct_random4){{c0, c1, c2, c3}};
}

/* A bijection of 64 bits (two rounds of multiply and xor-shift), so that neighbouring places and epochs get unrelated keys. */
static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t key_of(uint64_t seed, uint32_t place, uint32_t epoch) { return seed ^ mix((uint64_t)place << 32 | epoch); }

ct_random4 ct_random(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t number, uint32_t index) {
    const uint64_t key = key_of(seed, place, epoch);
    return ct_philox4x32((const uint32_t[4]){(uint32_t)number, (uint32_t)(number >> 32), index, 0},
                         (const uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)});
}

uint64_t ct_random_u64(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t number, uint32_t index) {
    const ct_random4 r = ct_random(seed, place, epoch, number, index);
    return (uint64_t)r.word[1] << 32 | r.word[0];
}

double ct_random_unit(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t number, uint32_t index) {
    return (double)(ct_random_u64(seed, place, epoch, number, index) >> 11) * 0x1p-53;
}

/* ct_philox4x32 with the counters of several numbers side by side. Each 32-bit counter is the lower half of 64 bits whose upper half is
 * never looked at, so that nothing is packed or unpacked between the rounds. */
CT_HOT void ct_random_words(uint64_t seed, uint32_t place, uint32_t epoch, uint64_t first_number, uint32_t index,
                            uint32_t *restrict out_word0, size_t n) {
    const uint64_t key = key_of(seed, place, epoch), low = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        const uint64_t number = first_number + i;
        uint64_t c0 = number, c1 = number >> 32, c2 = index, c3 = 0;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            const uint64_t product0 = (c0 & low) * 0xD2511F53u, product1 = (c2 & low) * 0xCD9E8D57u;
            c0 = product1 >> 32 ^ c1 ^ k0;
            c1 = product1;
            c2 = product0 >> 32 ^ c3 ^ k1;
            c3 = product0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        out_word0[i] = (uint32_t)c0;
    }
}
