/* Pairs of rows in bf16, as our own products' panels have them, by AVX-512 BF16. Private to finish.c and pack.c; x86-64 alone. */
#ifndef TOWER_CPU_PAIRS_H
#define TOWER_CPU_PAIRS_H

#include <immintrin.h>
#include <stdint.h>

#define TARGET        __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define TARGET_INLINE TARGET static inline __attribute__((always_inline))

/* Both rows of a pair, rounded: the first one's sixteen values, then the second one's. */
TARGET_INLINE __m512i round_pair(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/* As a panel or a turned matrix has them: value by value of the first row and the second one. */
TARGET_INLINE __m512i interleaved(__m512i pair) {
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), pair);
}

#endif
