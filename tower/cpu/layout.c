/* Loops that only move: transposed activations, panels of right-hand matrices. A transposition works on 32-bit words, 8 x 8 at a time; for
 * bf16 two neighbours that stay neighbours are one word. */
#include <string.h>

#include "base/math.h"
#include "tower/cpu/loops.h"

#define CT_INLINE static inline __attribute__((always_inline))

typedef uint32_t words8 __attribute__((vector_size(32), aligned(4), may_alias));

/* to[c][r] = from[r][c] for an 8 x 8 block. */
CT_INLINE void transpose_8x8(const uint32_t *from, size_t from_stride, uint32_t *to, size_t to_stride) {
    words8 row[8], a[8], b[8];
    for (size_t i = 0; i < 8; ++i) row[i] = *(const words8 *)(from + i * from_stride);
    for (size_t i = 0; i < 8; i += 2) {
        a[i] = __builtin_shufflevector(row[i], row[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        a[i + 1] = __builtin_shufflevector(row[i], row[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (size_t i = 0; i < 8; i += 4) {
        b[i] = __builtin_shufflevector(a[i], a[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        b[i + 2] = __builtin_shufflevector(a[i + 1], a[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        b[i + 3] = __builtin_shufflevector(a[i + 1], a[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (size_t i = 0; i < 4; ++i) {
        *(words8 *)(to + i * to_stride) = __builtin_shufflevector(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(words8 *)(to + (i + 4) * to_stride) = __builtin_shufflevector(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

CT_INLINE uint32_t two_bf16(float low, float high) { return (uint32_t)ct_bf16_from_f32(low) | (uint32_t)ct_bf16_from_f32(high) << 16; }

CT_HOT void ct_loop_transpose_f32(const float *from, size_t from_stride, size_t rows, size_t columns, float *to, size_t to_stride) {
    for (size_t c = 0; c < columns; c += 8) {
        for (size_t r = 0; r < rows; r += 8) {
            transpose_8x8((const uint32_t *)(const void *)(from + r * from_stride + c), from_stride,
                          (uint32_t *)(void *)(to + c * to_stride + r), to_stride);
        }
    }
}

CT_HOT void ct_loop_transpose_bf16(const uint16_t *restrict from, size_t from_stride, size_t rows, size_t columns, uint16_t *restrict to,
                                   size_t to_stride) {
    for (size_t c = 0; c < columns; c += 16) {
        for (size_t r = 0; r < rows; r += 16) {
            uint32_t pairs[8][16];
            for (size_t p = 0; p < 8; ++p) {
                const uint16_t *restrict even = from + (r + 2 * p) * from_stride + c, *restrict odd = even + from_stride;
                for (size_t i = 0; i < 16; ++i) pairs[p][i] = (uint32_t)even[i] | (uint32_t)odd[i] << 16;
            }
            uint32_t *words = (uint32_t *)(void *)(to + c * to_stride + r);
            transpose_8x8(&pairs[0][0], 16, words, to_stride / 2);
            transpose_8x8(&pairs[0][8], 16, words + 8 * (to_stride / 2), to_stride / 2);
        }
    }
}

/* --- rows of a right-hand matrix --- */

CT_HOT void ct_loop_to_panels_f32(const float *restrict from, size_t from_stride, size_t rows, size_t n, const ct_panels *panels,
                                  size_t row, float *restrict to) {
    const size_t width = panels->width;
    for (size_t c = 0; c < n; c += width) {
        const size_t columns = n - c < width ? n - c : width;
        float *restrict panel = to + c / width * panels->panel_stride + row * width;
        for (size_t r = 0; r < rows; ++r) memcpy(panel + r * width, from + r * from_stride + c, columns * sizeof *panel);
    }
}

CT_HOT void ct_loop_to_panels_bf16(const uint16_t *restrict from, size_t from_stride, size_t rows, size_t n, const ct_panels *panels,
                                   size_t row, uint16_t *restrict to) {
    const size_t width = panels->width;
    for (size_t c = 0; c < n; c += width) {
        const size_t columns = n - c < width ? n - c : width;
        uint16_t *restrict panel = to + c / width * panels->panel_stride + row * width;
        if (panels->pair == 1) {
            for (size_t r = 0; r < rows; ++r) memcpy(panel + r * width, from + r * from_stride + c, columns * sizeof *panel);
            continue;
        }
        for (size_t r = 0; r < rows; r += 2) {
            const uint16_t *restrict even = from + r * from_stride + c, *restrict odd = even + from_stride;
            uint32_t *restrict words = (uint32_t *)(void *)(panel + r * width);
            for (size_t i = 0; i < columns; ++i) words[i] = (uint32_t)even[i] | (uint32_t)odd[i] << 16;
        }
    }
}

/* --- weights --- */

CT_HOT void ct_loop_pack_f32(const float *restrict weights, size_t n, size_t row, size_t end, const ct_panels *panels, float *restrict to) {
    const size_t width = panels->width;
    for (size_t c = 0; c < n; c += width) {
        const size_t columns = n - c < width ? n - c : width;
        float *restrict panel = to + c / width * panels->panel_stride;
        for (size_t i = row; i < end; ++i) memcpy(panel + i * width, weights + i * n + c, columns * sizeof *panel);
    }
}

CT_HOT void ct_loop_pack_bf16(const float *restrict weights, size_t n, size_t row, size_t end, const ct_panels *panels,
                              uint16_t *restrict to) {
    const size_t width = panels->width, pair = panels->pair;
    for (size_t c = 0; c < n; c += width) {
        const size_t columns = n - c < width ? n - c : width;
        uint16_t *restrict panel = to + c / width * panels->panel_stride;
        for (size_t i = row; i < end; i += pair) {
            const float *restrict even = weights + i * n + c;
            if (pair == 1) {
                uint16_t *restrict out = panel + i * width;
                for (size_t k = 0; k < columns; ++k) out[k] = ct_bf16_from_f32(even[k]);
                continue;
            }
            uint32_t *restrict words = (uint32_t *)(void *)(panel + i * width);
            if (i + 1 < end) {
                const float *restrict odd = even + n;
                for (size_t k = 0; k < columns; ++k) words[k] = two_bf16(even[k], odd[k]);
            } else {
                for (size_t k = 0; k < columns; ++k) words[k] = two_bf16(even[k], 0.0f);
            }
        }
    }
}

/* How many rows from i on go together: 8 that begin at a multiple of 8, else those before the next multiple. */
CT_INLINE size_t rows_together(size_t i, size_t end) {
    const size_t group = 8 - i % 8;
    return group < end - i ? group : end - i;
}

/* B = W': a panel of B holds `width` rows of W. Taken 8 rows of W by 8 words at a time; what is left over goes one by one. TILE columns of
 * W go together, so that the lines that are written in parts stay in the cache until they are whole. */
enum { TILE = 64 };

CT_HOT void ct_loop_pack_back_f32(const float *restrict weights, size_t n, size_t row, size_t end, const ct_panels *panels,
                                  float *restrict to) {
    const size_t width = panels->width;
    for (size_t tile = 0; tile < n; tile += TILE) {
        const size_t tile_end = n - tile < TILE ? n : tile + TILE;
        for (size_t i = row, group; i < end; i += group) {
            float *restrict panel = to + i / width * panels->panel_stride + i % width;
            size_t j = tile;
            group = rows_together(i, end);
            for (; group == 8 && width % 8 == 0 && j + 8 <= tile_end; j += 8) {
                transpose_8x8((const uint32_t *)(const void *)(weights + i * n + j), n, (uint32_t *)(void *)(panel + j * width), width);
            }
            for (; j < tile_end; ++j) {
                for (size_t r = 0; r < group; ++r) {
                    const size_t column = i + r;
                    to[column / width * panels->panel_stride + j * width + column % width] = weights[column * n + j];
                }
            }
        }
    }
}

CT_HOT void ct_loop_pack_back_bf16(const float *restrict weights, size_t n, size_t row, size_t end, const ct_panels *panels,
                                   uint16_t *restrict to) {
    const size_t width = panels->width, pair = panels->pair;
    for (size_t tile = 0; tile < n; tile += TILE) {
        const size_t tile_end = n - tile < TILE ? n : tile + TILE;
        for (size_t i = row, group; i < end; i += group) {
            uint16_t *restrict panel = to + i / width * panels->panel_stride + i % width * pair;
            size_t j = tile;
            group = rows_together(i, end);
            for (; pair == 2 && group == 8 && width % 8 == 0 && j + 16 <= tile_end; j += 16) {
                uint32_t words[8][8];
                for (size_t r = 0; r < 8; ++r) {
                    uint16_t rounded[16];
                    const float *restrict from = weights + (i + r) * n + j;
                    for (size_t c = 0; c < 16; ++c) rounded[c] = ct_bf16_from_f32(from[c]);
                    memcpy(words[r], rounded, sizeof rounded);
                }
                transpose_8x8(&words[0][0], 8, (uint32_t *)(void *)(panel + j * width), width);
            }
            for (; j < tile_end; ++j) {
                for (size_t r = 0; r < group; ++r) {
                    const size_t column = i + r;
                    uint16_t *restrict at = to + column / width * panels->panel_stride + j / pair * pair * width;
                    at[column % width * pair + j % pair] = ct_bf16_from_f32(weights[column * n + j]);
                }
            }
        }
    }
}
