/* Weights into the panels of our own products: a vector is 16 columns of two rows, rounded by the processor. */
#include "tower/cpu/tiles.h"

#if defined(__x86_64__)
#include "tower/cpu/pairs.h"

enum { COLUMNS = CT_TILE_COLUMNS, PAIR = 2 };

static inline __mmask16 first_of(size_t count) {
    if (count >= COLUMNS) return 0xffff;
    return (__mmask16)((1u << count) - 1);
}

TARGET void ct_tiles_pack(const float *weights, size_t n, size_t row, size_t end, size_t panel_stride, uint16_t *to) {
    for (size_t r = row; r < end; r += PAIR) {
        const float *first = weights + r * n;
        const bool alone = r + 1 == end;
        uint16_t *panel = to + r * COLUMNS;
        for (size_t c = 0; c < n; c += COLUMNS, panel += panel_stride) {
            const __mmask16 there = first_of(n - c);
            const __m512 low = _mm512_maskz_loadu_ps(there, first + c);
            const __m512 high = alone ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(there, first + n + c);
            _mm512_storeu_si512(panel, interleaved(round_pair(low, high)));
        }
    }
}

/* Rows of 16 words become columns. */
TARGET_INLINE void transpose_16x16(__m512i word[COLUMNS]) {
    __m512i a[COLUMNS], b[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i += 2) {
        a[i] = _mm512_unpacklo_epi32(word[i], word[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(word[i], word[i + 1]);
    }
    for (size_t i = 0; i < COLUMNS; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    /* b[4 g + k] has, in its lane l of four words, column 4 l + k of rows 4 g to 4 g + 3. */
    for (size_t k = 0; k < 4; ++k) {
        const __m512i even_low = _mm512_shuffle_i32x4(b[k], b[4 + k], 0x88), odd_low = _mm512_shuffle_i32x4(b[k], b[4 + k], 0xdd);
        const __m512i even_high = _mm512_shuffle_i32x4(b[8 + k], b[12 + k], 0x88),
                      odd_high = _mm512_shuffle_i32x4(b[8 + k], b[12 + k], 0xdd);
        word[k] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        word[4 + k] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        word[8 + k] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
        word[12 + k] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
}

/* Rows [row, end) of W within one panel of its transposed: [row, end) lies between two multiples of 16. */
TARGET static void pack_back_panel(const float *weights, size_t n, size_t row, size_t end, uint16_t *panel) {
    const size_t first = row % COLUMNS, rows = end - row;
    const __mmask16 lanes = (__mmask16)((unsigned)first_of(rows) << first);
    for (size_t c = 0; c < n; c += PAIR * COLUMNS) {
        const size_t left = n - c, pairs = left < PAIR * COLUMNS ? (left + 1) / PAIR : COLUMNS;
        const __mmask16 low = first_of(left), high = first_of(left > COLUMNS ? left - COLUMNS : 0);
        __m512i word[COLUMNS];
        for (size_t r = 0; r < COLUMNS; ++r) {
            word[r] = _mm512_setzero_si512();
            if (r < first || r - first >= rows) continue;
            const float *from = weights + (row + r - first) * n + c;
            word[r] = round_pair(_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from + COLUMNS));
        }
        transpose_16x16(word);
        uint16_t *to = panel + c * COLUMNS;
        for (size_t p = 0; p < pairs; ++p) _mm512_mask_storeu_epi32(to + p * PAIR * COLUMNS, lanes, word[p]);
    }
}

TARGET void ct_tiles_pack_back(const float *weights, size_t n, size_t row, size_t end, size_t panel_stride, uint16_t *to) {
    for (size_t r = row, next; r < end; r = next) {
        next = r / COLUMNS * COLUMNS + COLUMNS;
        if (next > end) next = end;
        pack_back_panel(weights, n, r, next, to + r / COLUMNS * panel_stride);
    }
}

#else

/* Never called: ct_tiles_possible says no. */
void ct_tiles_pack(const float *weights, size_t n, size_t row, size_t end, size_t panel_stride, uint16_t *to) {
    (void)weights, (void)n, (void)row, (void)end, (void)panel_stride, (void)to;
}
void ct_tiles_pack_back(const float *weights, size_t n, size_t row, size_t end, size_t panel_stride, uint16_t *to) {
    (void)weights, (void)n, (void)row, (void)end, (void)panel_stride, (void)to;
}

#endif
