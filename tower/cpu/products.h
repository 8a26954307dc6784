/* Matrix products: the one border to oneDNN. C (rows, n) = A (rows, k) B (k, n), row-major dense A and C, B packed in panels.
 *
 * bf16 products of processors that multiply bf16 by vectors are our own (tiles.h): any number of rows with the same bits, and nothing to
 * check. All others are oneDNN's, of which the rest of this note is.
 *
 * oneDNN's fast path (brgemm) wants dense row-major A and C (leading dimension = columns) and B in panels; so slabs are as wide as their
 * padded columns. A product is a primitive for each of a few row counts; at creation all are run on random data, and
 *   - the largest count must give a row the same bits wherever it stands in the block, else the next smaller one is the base;
 *   - a smaller count whose rows differ from the base's is dropped; ct_product_run uses the smallest one that is left and large enough.
 * So a row of C depends on that row of A and on B alone. `accumulate` adds the finished product to C: where oneDNN's own sum does that
 * (it is compared once, bitwise; the gemm path adds inside of its sum over k) it is used, else the product goes to scratch memory and is
 * added by a loop.
 *
 * One thread a call: every call runs with the calling thread's OpenMP limit at 1 and puts it back, so that no team is ever started and
 * no blocking depends on the machine's number of processors. Primitives are shared by all threads; handles and scratch memory live in an
 * executor, one for each thread. */
#ifndef TOWER_CPU_PRODUCTS_H
#define TOWER_CPU_PRODUCTS_H

#include "base/status.h"
#include "tower/cpu/tiles.h"

enum { CT_PRODUCT_MAX_COUNTS = 8 };

/* Where element (i, j) of a (k, n) matrix stands: panels of `width` columns, in each of them groups of `pair` rows interleaved:
 * (j / width) * panel_stride + (i / pair) * width * pair + (j % width) * pair + i % pair. Row-major is width = n, pair = 1. */
typedef struct ct_panels {
    size_t k, n;
    size_t width, pair, count; /* columns of a panel, rows interleaved (1 or 2), panels */
    size_t panel_stride;       /* elements */
    size_t elements;           /* in all, padding included; padding must be zero */
} ct_panels;

typedef struct ct_product_shape {
    size_t k, n;
    bool bf16;                            /* A and B; C is fp32 always */
    size_t counts[CT_PRODUCT_MAX_COUNTS]; /* row counts, the largest first; A and C must have room for the next larger count */
    size_t count_count;
    bool accumulate; /* ct_product_run may be asked to add */
} ct_product_shape;

typedef struct ct_products ct_products;
typedef struct ct_product ct_product;
typedef struct ct_executor ct_executor;

CT_MUST_CHECK ct_code ct_products_create(ct_products **out_products, ct_status *status);
void ct_products_destroy(ct_products *products); /* with all its products; NULL is fine */
/* Owned by `products`; the same shape gives the same product. CT_UNSUPPORTED names precision and instruction set. */
CT_MUST_CHECK ct_code ct_products_get(ct_products *products, const ct_product_shape *shape, const ct_product **out_product,
                                      ct_status *status);
const ct_panels *ct_product_panels(const ct_product *product);

/* After the last ct_products_get. */
CT_MUST_CHECK ct_code ct_executor_create(const ct_products *products, ct_executor **out_executor, ct_status *status);
void ct_executor_destroy(ct_executor *executor); /* NULL is fine */

/* rows: 1 .. the largest count. Rows of A up to the count that is used are read and rows of C written. A failure of oneDNN's (memory)
 * fills C with NaN, which the finite check of an update refuses. */
void ct_product_run(const ct_product *product, ct_executor *executor, size_t rows, const void *a, const void *b, float *c, bool accumulate);

/* A product of our own (ct_products_own), whose rows go to `finish`. sums: (CT_TILE_ROWS, n). */
void ct_product_run_finished(const ct_product *product, size_t rows, const void *a, const void *b, float *sums, ct_tile_finish finish,
                             const void *context);

const char *ct_product_kernel(const ct_product *product); /* oneDNN's name of it, of the base count */
bool ct_products_bf16_native(void);                       /* does the hardware multiply bf16? */
bool ct_products_bf16_possible(void);                     /* can oneDNN? */
bool ct_products_own(void);                               /* are bf16 products ours? */
bool ct_products_tiles(void); /* are bf16's multiplied by tiles (AMX)? These want rows of a multiple of 32 elements, all else of 16 */

#endif
