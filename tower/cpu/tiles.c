#include "tower/cpu/tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

bool ct_tiles_possible(void) { return true; }

enum { GROUP = CT_TILE_ROWS / 2 }; /* pairs that stand together in a turned matrix */

/* What a tile reads; strides in pairs of bf16. */
typedef struct tile_in {
    const uint32_t *a; /* pair p of row i: a[i * a_row + p] */
    size_t a_row;
    const uint32_t *b; /* pair p of columns 16 j ..: b[j * b_panel + 16 p] */
    size_t b_panel, pairs;
    /* of a gradient's tile: rows of a stand side by side, pairs sixteen apart; behind each group of pairs both jump */
    size_t a_jump, b_jump;
} tile_in;

#define EACH(i, count) _Pragma("GCC unroll 8") for (size_t i = 0; i < (count); ++i)

#define TILE_BEGIN(M, N)                                   \
    __m512 sum[M][N];                                      \
    EACH(i, M) EACH(j, N) sum[i][j] = _mm512_setzero_ps(); \
    const uint32_t *a = in->a, *b = in->b;                 \
    const size_t b_panel = in->b_panel, pairs = in->pairs

/* sum += pair p of M rows by N vectors of columns. */
#define TILE_STEP(M, N, ROW)                                                                     \
    __m512i columns[N];                                                                          \
    EACH(j, N) columns[j] = _mm512_loadu_si512(b + j * b_panel);                                 \
    EACH(i, M) {                                                                                 \
        const __m512i row = _mm512_set1_epi32((int)(ROW));                                       \
        EACH(j, N) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], (__m512bh)row, (__m512bh)columns[j]); \
    }

#define TILE_END(M, N)                                                                         \
    EACH(i, M) EACH(j, N) {                                                                    \
        float *to = c + i * stride + 16 * j;                                                   \
        _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][j]) : sum[i][j]); \
    }

/* M rows by N vectors of columns, all sums in registers: M N of them hide an instruction's latency (6 cycles), and M N / (M + N) of them
 * for each load keep the loads below one a cycle. A short loop is faster than an unrolled one, which the processor has to decode again and
 * again. c: rows of `stride` floats. */
#define TILE(M, N)                                                                            \
    TARGET static void tile_##M##_##N(const tile_in *in, float *c, size_t stride, bool add) { \
        const size_t a_row = in->a_row;                                                       \
        TILE_BEGIN(M, N);                                                                     \
        for (size_t p = 0; p < pairs; ++p, b += CT_TILE_COLUMNS) {                            \
            TILE_STEP(M, N, a[i * a_row + p])                                                 \
        }                                                                                     \
        TILE_END(M, N)                                                                        \
    }
#define GRADIENT_TILE(M, N)                                                                            \
    TARGET static void gradient_tile_##M##_##N(const tile_in *in, float *c, size_t stride, bool add) { \
        TILE_BEGIN(M, N);                                                                              \
        for (size_t p = 0; p < pairs;) {                                                               \
            TILE_STEP(M, N, a[i])                                                                      \
            a += CT_TILE_COLUMNS;                                                                      \
            b += CT_TILE_COLUMNS;                                                                      \
            if (++p % GROUP != 0) continue;                                                            \
            a += in->a_jump;                                                                           \
            b += in->b_jump;                                                                           \
        }                                                                                              \
        TILE_END(M, N)                                                                                 \
    }

/* clang-format off */
TILE(8, 3) TILE(8, 2) TILE(8, 1)
TILE(7, 3) TILE(7, 2) TILE(7, 1)
TILE(6, 4) TILE(6, 2) TILE(6, 1)
TILE(5, 5) TILE(5, 3) TILE(5, 2) TILE(5, 1)
TILE(4, 6) TILE(4, 3) TILE(4, 2) TILE(4, 1)
TILE(3, 6) TILE(3, 3) TILE(3, 2) TILE(3, 1)
TILE(2, 8) TILE(2, 4) TILE(2, 2) TILE(2, 1)
TILE(1, 8) TILE(1, 4) TILE(1, 2) TILE(1, 1)
GRADIENT_TILE(8, 3) GRADIENT_TILE(8, 2) GRADIENT_TILE(8, 1)
    /* clang-format on */

    typedef void (*tile_fn)(const tile_in *in, float *c, size_t stride, bool add);

/* Tiles of so many rows, the widest first; the last one has one vector. */
typedef struct tile_set {
    size_t rows;
    struct {
        size_t vectors;
        tile_fn run;
    } tiles[4];
} tile_set;

/* A set for each count: what is left over of the rows goes through the weights once. */
static const tile_set sets[] = {{8, {{3, tile_8_3}, {2, tile_8_2}, {1, tile_8_1}}},
                                {7, {{3, tile_7_3}, {2, tile_7_2}, {1, tile_7_1}}},
                                {6, {{4, tile_6_4}, {2, tile_6_2}, {1, tile_6_1}}},
                                {5, {{5, tile_5_5}, {3, tile_5_3}, {2, tile_5_2}, {1, tile_5_1}}},
                                {4, {{6, tile_4_6}, {3, tile_4_3}, {2, tile_4_2}, {1, tile_4_1}}},
                                {3, {{6, tile_3_6}, {3, tile_3_3}, {2, tile_3_2}, {1, tile_3_1}}},
                                {2, {{8, tile_2_8}, {4, tile_2_4}, {2, tile_2_2}, {1, tile_2_1}}},
                                {1, {{8, tile_1_8}, {4, tile_1_4}, {2, tile_1_2}, {1, tile_1_1}}}};

static const tile_set gradient_set = {8, {{3, gradient_tile_8_3}, {2, gradient_tile_8_2}, {1, gradient_tile_8_1}}};

/* Which tile comes next where so many vectors are left, looking from *at on. */
static tile_fn next_tile(const tile_set *set, size_t vectors, size_t *at, size_t *out_width) {
    for (;; ++*at) {
        const size_t width = set->tiles[*at].vectors;
        /* Four vectors that are left over by threes go as two and two: a tile of one would wait for its own sums. */
        if (width > vectors || (width == 3 && vectors == 4)) continue;
        *out_width = width;
        return set->tiles[*at].run;
    }
}

/* One row of tiles. */
static void run_tiles(const tile_set *set, tile_in *in, size_t vectors, float *c, size_t stride, bool add) {
    for (size_t i = 0, width; vectors > 0;) {
        next_tile(set, vectors, &i, &width)(in, c, stride, add);
        in->b += width * in->b_panel;
        c += width * CT_TILE_COLUMNS;
        vectors -= width;
    }
}

static tile_in tile_in_of(const ct_tile_product *product, size_t row, size_t column) {
    const size_t pairs = product->k / 2;
    return (tile_in){.a = (const uint32_t *)(const void *)(product->a + row * product->k),
                     .a_row = pairs,
                     .b = (const uint32_t *)(const void *)(product->b + column * product->k),
                     .b_panel = pairs * CT_TILE_COLUMNS,
                     .pairs = pairs};
}

static void finish_tile(const ct_tile_product *product, size_t row, size_t rows, size_t column, size_t end) {
    const ct_tile tile = {.row = row, .rows = rows, .column = column, .end = end, .sums = product->c, .stride = product->n};
    product->finish(product->context, &tile);
}

void ct_tiles_multiply(const ct_tile_product *product, size_t rows) {
    const size_t n = product->n, whole = rows / CT_TILE_ROWS * CT_TILE_ROWS;
    const bool finishes = product->finish != NULL;
    size_t at = 0, width;
    /* Columns outside: a weight is read from far away once, and what a row of tiles reads of it is in the second cache for the next one. */
    for (size_t column = 0; column < n && whole > 0; column += width) {
        const tile_fn run = next_tile(sets, (n - column) / CT_TILE_COLUMNS, &at, &width);
        width *= CT_TILE_COLUMNS;
        for (size_t row = 0; row < whole; row += CT_TILE_ROWS) {
            const tile_in in = tile_in_of(product, row, column);
            run(&in, product->c + (finishes ? 0 : row * n) + column, n, product->add && !finishes);
            if (finishes) finish_tile(product, row, CT_TILE_ROWS, column, column + width);
        }
    }
    const tile_set *set = sets;
    for (size_t row = whole; row < rows; row += set->rows) {
        while (set->rows > rows - row) ++set;
        tile_in in = tile_in_of(product, row, 0);
        run_tiles(set, &in, n / CT_TILE_COLUMNS, product->c + (finishes ? 0 : row * n), n, product->add && !finishes);
        if (finishes) finish_tile(product, row, set->rows, 0, n);
    }
}

void ct_tiles_gradient(const ct_tile_gradient *gradient) {
    const size_t group = GROUP * CT_TILE_COLUMNS, n = gradient->out;
    const uint32_t *a = (const uint32_t *)(const void *)gradient->a, *b = (const uint32_t *)(const void *)gradient->b;
    float *c = gradient->c;
    size_t tile = 0, width;
    /* Columns outside: those of dz that a row of tiles reads are in the first cache for the next one. */
    for (size_t left = n / CT_TILE_COLUMNS; left > 0; left -= width, b += width * group, c += width * CT_TILE_COLUMNS) {
        const tile_fn run = next_tile(&gradient_set, left, &tile, &width);
        for (size_t row = gradient->first; row < gradient->end; row += CT_TILE_ROWS) {
            const tile_in in = {.a = a + row / CT_TILE_COLUMNS * group + row % CT_TILE_COLUMNS,
                                .b = b,
                                .b_panel = group,
                                .pairs = gradient->rows / 2,
                                .a_jump = GROUP * gradient->in - group,
                                .b_jump = GROUP * gradient->out - group};
            run(&in, c + (row - gradient->first) * n, n, gradient->add);
        }
    }
}

#else

bool ct_tiles_possible(void) { return false; }
void ct_tiles_multiply(const ct_tile_product *product, size_t rows) { (void)product, (void)rows; }
void ct_tiles_gradient(const ct_tile_gradient *gradient) { (void)gradient; }

#endif
