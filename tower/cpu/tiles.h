/* Products of bf16 matrices in our own code, for processors that multiply bf16 by vectors (AVX-512 BF16) and not by tiles of their own
 * (AMX): C (rows, n) = A (rows, k) B (k, n), sums in fp32.
 *
 * Panels. A weight B stands in panels of 16 columns, in each of them pairs of rows interleaved (ct_panels of width 16, pair 2): a vector is
 * 16 columns of two rows. What a weight gradient in' dz reads, inputs and dz, stands turned: eight rows after eight rows, in each of them
 * panels as above. So it is written row after row in one stream, and read without a transposition: of dz whole vectors, of the inputs,
 * whose columns are the product's rows, pair after pair.
 *
 * Bits. An element of C is one chain of sums over k, in order, in one lane of one register, whatever surrounds it: the same for any number
 * of rows and any width. A sum that is asked for is of C and the finished product. */
#ifndef TOWER_CPU_TILES_H
#define TOWER_CPU_TILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CT_TILE_COLUMNS = 16, CT_TILE_ROWS = 8 };

/* Rows [row, row + rows) and some columns of a product, still in the cache: sums[r * stride + c], r from 0, c from `column` on. */
typedef struct ct_tile {
    size_t row, rows, column, end; /* column, end: multiples of 16 */
    const float *sums;
    size_t stride; /* 0 repeats one row */
} ct_tile;
typedef void (*ct_tile_finish)(const void *context, const ct_tile *tile);

typedef struct ct_tile_product {
    const uint16_t *a; /* (rows, k) */
    const uint16_t *b; /* panels */
    size_t k, n;       /* multiples of 16 */
    float *c;          /* (rows, n) = or += the product; with `finish`: (CT_TILE_ROWS, n), of which it gets tile after tile */
    bool add;
    ct_tile_finish finish; /* may be NULL */
    const void *context;
} ct_tile_product;

/* Rows [first, end) of in' dz over some rows: c (end - first, out) += or =. */
typedef struct ct_tile_gradient {
    const uint16_t *a, *b; /* inputs (rows, in), dz (rows, out), both turned */
    size_t rows, in, out;  /* rows: a multiple of 8; in, out: of 16 */
    size_t first, end;     /* multiples of 8 */
    float *c;
    bool add;
} ct_tile_gradient;

/* Is this code compiled in? Whether the processor can run it is ct_products_bf16_native. */
bool ct_tiles_possible(void);
void ct_tiles_multiply(const ct_tile_product *product, size_t rows /* any */);
void ct_tiles_gradient(const ct_tile_gradient *gradient);

/* Rows [row, end) of weights W (in, n), row-major, into the panels of B = W; `row` is even, and so is `end` but for the last row's.
 * Panels are `panel_stride` values apart. A rounded denormal is 0. */
void ct_tiles_pack(const float *weights, size_t n, size_t row, size_t end, size_t panel_stride, uint16_t *to);
/* The same rows of W into the panels of B = transposed W, whose columns they are; any. */
void ct_tiles_pack_back(const float *weights, size_t n, size_t row, size_t end, size_t panel_stride, uint16_t *to);

/* --- what goes behind a product (finish.c), while its rows are in the cache. As the loops of loops.h, but with the processor's rounding to
 * bf16 (a denormal becomes 0, as it is in a product), and with the result turned, too. Pointers are to the product's row 0; n = its
 * columns, and the stride where nothing else is said. --- */

/* A turned matrix (rows, n), from a row of it on that is a multiple of 8; NULL where it is not wanted, else rows come in eights. */
typedef uint16_t *ct_turned;

typedef struct ct_dense_finish {
    const float *second; /* another product to be added, or NULL */
    size_t second_stride, n;
    const float *bias;
    bool relu;
    uint16_t *y;
    ct_turned turned;
} ct_dense_finish;
void ct_finish_dense(const void *dense, const ct_tile *tile);

typedef struct ct_cross_finish {
    const float *second;
    size_t second_stride, n;
    const float *bias, *x, *in;
    size_t x_stride, in_stride;
    float *kept; /* receives the sum; NULL = not wanted */
    float *y;
    uint16_t *y_bf16; /* NULL = not wanted */
    ct_turned turned;
} ct_cross_finish;
void ct_finish_cross(const void *cross, const ct_tile *tile);

/* The product is dy, or its last part; rows in eights. */
typedef struct ct_dense_back_finish {
    const float *others; /* what others have put to dy, or NULL */
    size_t n;
    const uint16_t *y; /* or NULL: it stands in y_turned */
    ct_turned y_turned;
    bool relu;
    uint16_t *dz;
    ct_turned turned;
    float *bias_gradient;
} ct_dense_back_finish;
void ct_finish_dense_back(const void *dense, const ct_tile *tile);

typedef struct ct_cross_back_finish {
    bool adds; /* to what stands in dy */
    float *dy; /* receives dy; may be what the tile is of */
    size_t n;
    const float *x, *sum, *bias; /* sum = the product before the bias */
    size_t x_stride;
    float *dx; /* of the first input */
    size_t dx_stride;
    bool dx_first; /* dx = ...; else dx += ... */
    bool in_is_x;  /* this layer's input is the first input: dy goes to dx as well */
    float *din;    /* of this layer's input; NULL where it is dy in place or the first input's */
    uint16_t *dz;
    float *bias_gradient;
    ct_turned turned;
} ct_cross_back_finish;
void ct_finish_cross_back(const void *cross, const ct_tile *tile);

void ct_tiles_to_bf16(const float *from, size_t from_stride, size_t rows, size_t columns /* any */, uint16_t *to, size_t to_stride);
void ct_tiles_turn(const float *from, size_t rows, size_t n, ct_turned to);
void ct_tiles_turn_bf16(const uint16_t *from, size_t rows, size_t n, ct_turned to);

#endif
