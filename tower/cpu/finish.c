/* What goes behind our own products: each goes through a tile column by column and row pair by row pair, as panels want them. */
#include "tower/cpu/tiles.h"

#if defined(__x86_64__)
#include "tower/cpu/pairs.h"

enum { COLUMNS = CT_TILE_COLUMNS };

TARGET_INLINE void store_first(uint16_t *to, __m512i pair) { _mm256_storeu_si256((__m256i *)(void *)to, _mm512_castsi512_si256(pair)); }
TARGET_INLINE void store_second(uint16_t *to, __m512i pair) {
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_extracti64x4_epi64(pair, 1));
}
TARGET_INLINE void store_one(uint16_t *to, __m512 row) { _mm256_storeu_si256((__m256i *)(void *)to, (__m256i)_mm512_cvtneps_pbh(row)); }

/* Where row `row` of a turned matrix begins. Vectors of columns are TURNED apart. */
enum { TURNED = CT_TILE_ROWS * COLUMNS };
static inline uint16_t *turned_row(ct_turned turned, size_t n, size_t row) {
    return turned + row / CT_TILE_ROWS * CT_TILE_ROWS * n + row % CT_TILE_ROWS * COLUMNS;
}

TARGET void ct_tiles_to_bf16(const float *from, size_t from_stride, size_t rows, size_t columns, uint16_t *to, size_t to_stride) {
    const size_t whole = columns / COLUMNS * COLUMNS;
    const __mmask16 rest = (__mmask16)((1u << (columns - whole)) - 1);
    for (size_t r = 0; r < rows; ++r) {
        const float *in = from + r * from_stride;
        uint16_t *out = to + r * to_stride;
        for (size_t c = 0; c < whole; c += COLUMNS) store_one(out + c, _mm512_loadu_ps(in + c));
        if (rest == 0) continue;
        _mm256_mask_storeu_epi16(out + whole, rest, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, in + whole)));
    }
}

TARGET void ct_tiles_turn(const float *from, size_t rows, size_t n, ct_turned to) {
    for (size_t r = 0; r < rows; r += 2) {
        const float *first = from + r * n, *second = first + n;
        uint16_t *turned = turned_row(to, n, r);
        for (size_t c = 0; c < n; c += COLUMNS, turned += TURNED) {
            _mm512_storeu_si512(turned, interleaved(round_pair(_mm512_loadu_ps(first + c), _mm512_loadu_ps(second + c))));
        }
    }
}

TARGET void ct_tiles_turn_bf16(const uint16_t *from, size_t rows, size_t n, ct_turned to) {
    for (size_t r = 0; r < rows; r += 2) {
        const uint16_t *first = from + r * n, *second = first + n;
        uint16_t *turned = turned_row(to, n, r);
        for (size_t c = 0; c < n; c += COLUMNS, turned += TURNED) {
            const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(first + c));
            const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(second + c));
            _mm512_storeu_si512(turned, interleaved(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)));
        }
    }
}

/* --- forward --- */

/* second + first, or first alone. */
TARGET_INLINE __m512 sum_of(const float *first, const float *second, size_t c) {
    const __m512 sum = _mm512_loadu_ps(first + c);
    return second == NULL ? sum : _mm512_add_ps(_mm512_loadu_ps(second + c), sum);
}
/* NaN stays NaN: max gives its second operand then. */
TARGET_INLINE __m512 activated(__m512 z, bool relu) { return relu ? _mm512_max_ps(_mm512_setzero_ps(), z) : z; }

static const float *second_row(const float *second, size_t stride, size_t row) { return second == NULL ? NULL : second + row * stride; }

/* Column by column: what is turned is written as it stands. */
TARGET_INLINE void dense_rows(const ct_dense_finish *dense, const ct_tile *tile, bool relu, size_t rows) {
    const size_t n = dense->n;
    const float *more = second_row(dense->second, dense->second_stride, tile->row);
    uint16_t *y = dense->y + tile->row * n, *turned = dense->turned == NULL ? NULL : dense->turned + tile->row * n;
    for (size_t c = tile->column; c < tile->end; c += COLUMNS) {
        const __m512 bias = _mm512_loadu_ps(dense->bias + c);
        _Pragma("GCC unroll 4") for (size_t r = 0; r < rows; r += 2) {
            const size_t pair = r + 1 < rows; /* a last row alone is done twice */
            const float *first = tile->sums + r * tile->stride;
            const __m512 low = sum_of(first, second_row(more, dense->second_stride, r), c);
            const __m512 high = sum_of(first + pair * tile->stride, second_row(more, dense->second_stride, r + pair), c);
            const __m512i both = round_pair(activated(_mm512_add_ps(low, bias), relu), activated(_mm512_add_ps(high, bias), relu));
            store_first(y + r * n + c, both);
            store_second(y + (r + pair) * n + c, both);
            if (turned != NULL) _mm512_storeu_si512(turned + c * CT_TILE_ROWS + r * COLUMNS, interleaved(both));
        }
    }
}

TARGET void ct_finish_dense(const void *context, const ct_tile *tile) {
    const ct_dense_finish *dense = context;
    if (tile->rows != CT_TILE_ROWS) {
        dense_rows(dense, tile, dense->relu, tile->rows);
    } else if (dense->relu) {
        dense_rows(dense, tile, true, CT_TILE_ROWS);
    } else {
        dense_rows(dense, tile, false, CT_TILE_ROWS);
    }
}

/* One vector of a row of x * (sum + bias) + in. */
TARGET_INLINE __m512 cross_value(const float *first, const float *second, const float *bias, const float *x, const float *in, float *kept,
                                 float *y, size_t c) {
    const __m512 sum = sum_of(first, second, c);
    if (kept != NULL) _mm512_storeu_ps(kept + c, sum);
    const __m512 product = _mm512_mul_ps(_mm512_loadu_ps(x + c), _mm512_add_ps(sum, _mm512_loadu_ps(bias + c)));
    const __m512 value = _mm512_add_ps(product, _mm512_loadu_ps(in + c));
    _mm512_storeu_ps(y + c, value);
    return value;
}

TARGET void ct_finish_cross(const void *context, const ct_tile *tile) {
    const ct_cross_finish *cross = context;
    const size_t n = cross->n, x_stride = cross->x_stride, in_stride = cross->in_stride;
    for (size_t r = 0; r < tile->rows; r += 2) {
        const size_t row = tile->row + r, pair = r + 1 < tile->rows; /* a last row alone is done twice */
        const float *first = tile->sums + r * tile->stride, *more_first = second_row(cross->second, cross->second_stride, row);
        const float *second = first + pair * tile->stride, *more_second = second_row(cross->second, cross->second_stride, row + pair);
        const float *x = cross->x + row * x_stride, *in = cross->in + row * in_stride;
        float *kept = cross->kept == NULL ? NULL : cross->kept + row * n, *y = cross->y + row * n;
        uint16_t *rounded = cross->y_bf16 == NULL ? NULL : cross->y_bf16 + row * n;
        uint16_t *turned = cross->turned == NULL ? NULL : turned_row(cross->turned, n, row) + tile->column * CT_TILE_ROWS;
        for (size_t c = tile->column; c < tile->end; c += COLUMNS) {
            const __m512 low = cross_value(first, more_first, cross->bias, x, in, kept, y, c);
            const __m512 high = cross_value(second, more_second, cross->bias, x + pair * x_stride, in + pair * in_stride,
                                            kept == NULL ? NULL : kept + pair * n, y + pair * n, c);
            const __m512i both = round_pair(low, high);
            if (rounded != NULL) {
                store_second(rounded + pair * n + c, both);
                store_first(rounded + c, both);
            }
            if (turned == NULL) continue;
            _mm512_storeu_si512(turned, interleaved(both));
            turned += TURNED;
        }
    }
}

/* --- backward; rows come in eights --- */

/* Which of sixteen are above 0. */
TARGET_INLINE __mmask16 positive(const uint16_t *y) {
    return _mm256_cmpgt_epi16_mask(_mm256_loadu_si256((const __m256i *)(const void *)y), _mm256_setzero_si256());
}
/* The same of a vector of a turned matrix: of the pair's first row, low halves, and of its second one. */
TARGET_INLINE __mmask16 low_positive(__m512i pair) { return _mm512_cmpgt_epi32_mask(_mm512_slli_epi32(pair, 16), _mm512_setzero_si512()); }
TARGET_INLINE __mmask16 high_positive(__m512i pair) {
    return _mm512_cmpgt_epi32_mask(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000u)), _mm512_setzero_si512());
}

/* Column by column: what is turned is read and written as it stands. */
TARGET_INLINE void dense_back_rows(const ct_dense_back_finish *dense, const ct_tile *tile, bool relu, bool y_is_turned) {
    const size_t n = dense->n;
    for (size_t eight = 0; eight < tile->rows; eight += CT_TILE_ROWS) {
        const size_t row = tile->row + eight;
        const float *sums = tile->sums + eight * tile->stride, *others = dense->others == NULL ? NULL : dense->others + row * n;
        const uint16_t *y = y_is_turned ? dense->y_turned + row * n : dense->y + row * n;
        uint16_t *dz = dense->dz + row * n, *turned = dense->turned + row * n + tile->column * CT_TILE_ROWS;
        for (size_t c = tile->column; c < tile->end; c += COLUMNS) {
            __m512 gradient = _mm512_loadu_ps(dense->bias_gradient + c);
            _Pragma("GCC unroll 4") for (size_t r = 0; r < CT_TILE_ROWS; r += 2, turned += 2 * COLUMNS) {
                const float *first = sums + r * tile->stride;
                __m512 low = sum_of(first, second_row(others, n, r), c);
                __m512 high = sum_of(first + tile->stride, second_row(others, n, r + 1), c);
                if (relu && y_is_turned) {
                    const __m512i kept = _mm512_loadu_si512(y + c * CT_TILE_ROWS + r * COLUMNS);
                    low = _mm512_maskz_mov_ps(low_positive(kept), low);
                    high = _mm512_maskz_mov_ps(high_positive(kept), high);
                } else if (relu) {
                    low = _mm512_maskz_mov_ps(positive(y + r * n + c), low);
                    high = _mm512_maskz_mov_ps(positive(y + (r + 1) * n + c), high);
                }
                const __m512i both = round_pair(low, high);
                store_first(dz + r * n + c, both);
                store_second(dz + (r + 1) * n + c, both);
                _mm512_storeu_si512(turned, interleaved(both));
                gradient = _mm512_add_ps(_mm512_add_ps(gradient, low), high);
            }
            _mm512_storeu_ps(dense->bias_gradient + c, gradient);
        }
    }
}

TARGET void ct_finish_dense_back(const void *context, const ct_tile *tile) {
    const ct_dense_back_finish *dense = context;
    if (!dense->relu) {
        dense_back_rows(dense, tile, false, false);
    } else if (dense->y == NULL) {
        dense_back_rows(dense, tile, true, true);
    } else {
        dense_back_rows(dense, tile, true, false);
    }
}

/* Of a row. */
typedef struct cross_back_row {
    const float *sums, *sum, *x;
    float *dy, *dx, *din;
} cross_back_row;

static cross_back_row cross_back_row_of(const ct_cross_back_finish *cross, const ct_tile *tile, size_t r) {
    const size_t row = tile->row + r;
    return (cross_back_row){.sums = tile->sums + r * tile->stride,
                            .sum = cross->sum + row * cross->n,
                            .x = cross->x + row * cross->x_stride,
                            .dy = cross->dy + row * cross->n,
                            .dx = cross->dx + row * cross->dx_stride,
                            .din = cross->din == NULL ? NULL : cross->din + row * cross->n};
}

/* One vector of a row; gives dz. */
TARGET_INLINE __m512 cross_back_value(const cross_back_row *row, __m512 bias, bool adds, bool in_is_x, bool dx_first, size_t c) {
    __m512 dy = _mm512_loadu_ps(row->sums + c);
    if (adds) dy = _mm512_add_ps(_mm512_loadu_ps(row->dy + c), dy);
    _mm512_storeu_ps(row->dy + c, dy);
    __m512 value = _mm512_mul_ps(dy, _mm512_add_ps(_mm512_loadu_ps(row->sum + c), bias));
    if (in_is_x) value = _mm512_add_ps(value, dy);
    _mm512_storeu_ps(row->dx + c, dx_first ? value : _mm512_add_ps(_mm512_loadu_ps(row->dx + c), value));
    if (row->din != NULL) _mm512_storeu_ps(row->din + c, _mm512_add_ps(_mm512_loadu_ps(row->din + c), dy));
    return _mm512_mul_ps(dy, _mm512_loadu_ps(row->x + c));
}

TARGET void ct_finish_cross_back(const void *context, const ct_tile *tile) {
    const ct_cross_back_finish *cross = context;
    const size_t n = cross->n;
    const bool adds = cross->adds, in_is_x = cross->in_is_x, dx_first = cross->dx_first;
    float *gradient = cross->bias_gradient;
    for (size_t r = 0; r < tile->rows; r += 2) {
        const cross_back_row first = cross_back_row_of(cross, tile, r), second = cross_back_row_of(cross, tile, r + 1);
        uint16_t *dz = cross->dz + (tile->row + r) * n, *turned = turned_row(cross->turned, n, tile->row + r) + tile->column * CT_TILE_ROWS;
        for (size_t c = tile->column; c < tile->end; c += COLUMNS, turned += TURNED) {
            const __m512 bias = _mm512_loadu_ps(cross->bias + c);
            const __m512 low = cross_back_value(&first, bias, adds, in_is_x, dx_first, c);
            const __m512 high = cross_back_value(&second, bias, adds, in_is_x, dx_first, c);
            const __m512i both = round_pair(low, high);
            store_first(dz + c, both);
            store_second(dz + n + c, both);
            _mm512_storeu_si512(turned, interleaved(both));
            _mm512_storeu_ps(gradient + c, _mm512_add_ps(_mm512_add_ps(_mm512_loadu_ps(gradient + c), low), high));
        }
    }
}

#else

/* Never called: ct_tiles_possible says no. */
void ct_tiles_to_bf16(const float *from, size_t from_stride, size_t rows, size_t columns, uint16_t *to, size_t to_stride) {
    (void)from, (void)from_stride, (void)rows, (void)columns, (void)to, (void)to_stride;
}
void ct_tiles_turn(const float *from, size_t rows, size_t n, ct_turned to) { (void)from, (void)rows, (void)n, (void)to; }
void ct_tiles_turn_bf16(const uint16_t *from, size_t rows, size_t n, ct_turned to) { (void)from, (void)rows, (void)n, (void)to; }
void ct_finish_dense(const void *context, const ct_tile *tile) { (void)context, (void)tile; }
void ct_finish_cross(const void *context, const ct_tile *tile) { (void)context, (void)tile; }
void ct_finish_dense_back(const void *context, const ct_tile *tile) { (void)context, (void)tile; }
void ct_finish_cross_back(const void *context, const ct_tile *tile) { (void)context, (void)tile; }

#endif
