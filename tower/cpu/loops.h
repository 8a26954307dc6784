/* Hand-written loops of the tower on the CPU. Each is compiled for several instruction sets (CT_HOT) with the same bits on all: no
 * contraction, and sums have a fixed order (lanes of 16 for dot products, rows in order elsewhere).
 *
 * Legend. n = columns, padded to a multiple of 16, unless said otherwise; stride = elements from row to row; bf16 arrays are uint16_t.
 * Arrays must not overlap unless said. */
#ifndef TOWER_CPU_LOOPS_H
#define TOWER_CPU_LOOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tower/cpu/products.h"

/* The result of one or two products: row r is first[r * first_stride] (+ second[r * second_stride]); second may be NULL. A stride of 0
 * repeats one row (a shared context). */
typedef struct ct_sums {
    const float *first, *second;
    size_t first_stride, second_stride;
} ct_sums;

void ct_loop_add(const float *from, size_t count, float *to); /* to += from; any count */
void ct_loop_to_bf16(const float *from, size_t from_stride, size_t rows, size_t columns /* any */, uint16_t *to, size_t to_stride);
/* Are all below 2^50, and none NaN? Sums of fewer than 2^27 products of two such values are finite. Any count. */
bool ct_loop_moderate_f32(const float *values, size_t count);
bool ct_loop_moderate_bf16(const uint16_t *values, size_t count);

/* y = act(sum + bias); NaN stays NaN. */
void ct_loop_dense_f32(const ct_sums *sums, const float *bias, bool relu, size_t rows, size_t n, float *y, size_t y_stride);
void ct_loop_dense_bf16(const ct_sums *sums, const float *bias, bool relu, size_t rows, size_t n, uint16_t *y, size_t y_stride);

typedef struct ct_cross {
    ct_sums sums;
    const float *bias;
    const float *x, *in; /* first input, this layer's input */
    size_t x_stride, in_stride;
    float *kept; /* NULL, or sums.first: receives the sum of both */
    size_t kept_stride;
    float *y;
    size_t y_stride;
    uint16_t *y_bf16; /* NULL = not wanted */
    size_t y_bf16_stride;
} ct_cross;
/* y = x * (sum + bias) + in */
void ct_loop_cross(const ct_cross *cross, size_t rows, size_t n);

/* dz = dy where y > 0 (relu) or everywhere; bias_gradient += rows of dz before rounding. */
void ct_loop_dense_back_f32(const float *dy, size_t dy_stride, const float *y, size_t y_stride, bool relu, size_t rows, size_t n, float *dz,
                            float *bias_gradient);
void ct_loop_dense_back_bf16(const float *dy, size_t dy_stride, const uint16_t *y, size_t y_stride, bool relu, size_t rows, size_t n,
                             uint16_t *dz, float *bias_gradient);

/* The same, and dz as rows [row, row + rows) of a right-hand matrix in panels of pairs: pair 2, a width that is a multiple of 16; columns:
 * a multiple of 16; rows even. dy, y and dz have one stride. */
void ct_loop_dense_back_pairs(const float *dy, const uint16_t *y, bool relu, size_t rows, size_t columns, size_t stride, uint16_t *dz,
                              float *bias_gradient, const ct_panels *panels, size_t row, uint16_t *to);

typedef struct ct_cross_back {
    const float *dy, *x, *sum, *bias; /* sum = the product before the bias */
    size_t dy_stride, x_stride, sum_stride;
    float *dx; /* of the first input */
    size_t dx_stride;
    bool dx_first; /* dx = ...; else dx += ... */
    bool in_is_x;  /* this layer's input is the first input: dy goes to dx as well */
    float *din;    /* of this layer's input; NULL where it is dy in place or the first input's */
    size_t din_stride;
    void *dz; /* (rows, n) dense, float or bf16 */
    float *bias_gradient;
} ct_cross_back;
/* dz = dy * x; dx (+)= dy * (sum + bias) (+ dy); din += dy; bias_gradient += rows of dz before rounding. */
void ct_loop_cross_back_f32(const ct_cross_back *back, size_t rows, size_t n);
void ct_loop_cross_back_bf16(const ct_cross_back *back, size_t rows, size_t n);

/* (rows, columns) to (columns, rows). rows: a multiple of 16; columns: of 16. */
void ct_loop_transpose_f32(const float *from, size_t from_stride, size_t rows, size_t columns, float *to, size_t to_stride);
void ct_loop_transpose_bf16(const uint16_t *from, size_t from_stride, size_t rows, size_t columns, uint16_t *to, size_t to_stride);

/* Rows [row, row + rows) of a right-hand matrix in panels; from: (rows, n), panels behind each other; rows and row even. */
void ct_loop_to_panels_f32(const float *from, size_t from_stride, size_t rows, size_t n, const ct_panels *panels, size_t row, float *to);
void ct_loop_to_panels_bf16(const uint16_t *from, size_t from_stride, size_t rows, size_t n, const ct_panels *panels, size_t row,
                            uint16_t *to);

/* Rows [row, end) of weights W (in, n), row-major fp32, into panels of B = W. pair rows together: row is even, and so is end but for the
 * last row's. */
void ct_loop_pack_f32(const float *weights, size_t n, size_t row, size_t end, const ct_panels *panels, float *to);
void ct_loop_pack_bf16(const float *weights, size_t n, size_t row, size_t end, const ct_panels *panels, uint16_t *to);
/* The same rows of W into panels of B = transposed W, whose columns they are; any. */
void ct_loop_pack_back_f32(const float *weights, size_t n, size_t row, size_t end, const ct_panels *panels, float *to);
void ct_loop_pack_back_bf16(const float *weights, size_t n, size_t row, size_t end, const ct_panels *panels, uint16_t *to);

/* <a, b> in 16 lanes, the lanes added in a fixed tree; any count. */
float ct_loop_dot(const float *a, const float *b, size_t count);
float ct_loop_dot_bf16(const uint16_t *a, const float *b, size_t count);
/* out (+)= scale * v; any count. */
void ct_loop_axpy(float scale, const float *v, size_t count, bool first, float *out);
void ct_loop_axpy_bf16(float scale, const uint16_t *v, size_t count, float *out); /* += */

/* Adapter: x (rows, out) = raw (rows, in) A + a; A (in, padded) with padded = out rounded up to 16. */
void ct_loop_adapter(const float *raw, size_t raw_stride, const float *a_padded, const float *bias, size_t rows, size_t in, size_t out,
                     float *x, size_t x_stride);
/* a_gradient (in, padded) += raw' dx; bias_gradient (padded) += rows of dx. */
void ct_loop_adapter_back(const float *raw, size_t raw_stride, const float *dx, size_t dx_stride, size_t rows, size_t in, size_t out,
                          float *a_gradient, float *bias_gradient);
/* h (rows, in), max(0, .) of what a hidden adapter made, becomes its gradient dx A' where it is above 0, else 0. */
void ct_loop_adapter_relu_back(const float *a_padded, const float *dx, size_t dx_stride, size_t rows, size_t in, size_t out, float *h,
                               size_t h_stride);
/* v (rows, count) = max(0, v) */
void ct_loop_relu(size_t rows, size_t count, float *v, size_t stride);

/* --- fields: `count` times `dim` columns of x; lanes as in dot products --- */
typedef struct ct_fields {
    const size_t *columns; /* first ones, rising */
    size_t count, dim;
} ct_fields;
/* Rows of `dim` columns, of one type or the other; both NULL = none. */
typedef struct ct_vectors_in {
    const float *f32;
    const uint16_t *bf16;
    size_t stride;
} ct_vectors_in;

/* y (rows, dim), zero up to the stride. The context's fields are summed by themselves. */
void ct_loop_fm(const ct_fields *fields, size_t context_width, const float *x, size_t x_stride, size_t rows, float *y, size_t y_stride);
/* dx (as x) += */
void ct_loop_fm_back(const ct_fields *fields, size_t context_width, const float *x, size_t x_stride, const float *dy, size_t dy_stride,
                     size_t rows, float *dx);
/* y = [second, products of all pairs, <v_1, v_0>, <v_2, v_0>, <v_2, v_1> ..]; v_0 is `second`, where there is one. */
size_t ct_loop_dots_scratch(size_t vectors, size_t dim); /* floats */
void ct_loop_dots(const ct_fields *fields, const float *x, size_t x_stride, const ct_vectors_in *second, size_t rows, float *scratch,
                  float *y, size_t y_stride);
/* dx (as x) +=, d_second (with second's stride) += */
void ct_loop_dots_back(const ct_fields *fields, const float *x, size_t x_stride, const ct_vectors_in *second, const float *dy,
                       size_t dy_stride, size_t rows, float *scratch, float *dx, float *d_second);
/* The columns of x (rows, width) that are in no field; back: dx += */
void ct_loop_rest(const ct_fields *fields, size_t width, const float *x, size_t x_stride, size_t rows, float *y, size_t y_stride);
void ct_loop_rest_back(const ct_fields *fields, size_t width, const float *dy, size_t dy_stride, size_t rows, float *dx, size_t dx_stride);

/* --- beside a DENSE product --- */

/* z (rows, n) = act((z - mean) / sqrt(variance + 1e-5) * scale + shift) over the first `out` columns, 0 behind; kept (rows, n) and inverse
 * (rows), or NULL: what comes before the scale, and 1 / sqrt(..). */
void ct_loop_normalise(float *z, size_t rows, size_t out, size_t n, const float *scale, const float *shift, bool relu, float *kept,
                       float *inverse);
/* d (rows, n): d loss by the result before act, becomes that by z; gradients += */
void ct_loop_normalise_back(float *d, size_t rows, size_t out, size_t n, const float *scale, const float *kept, const float *inverse,
                            float *scale_gradient, float *shift_gradient);
/* factors (rows, n) = 0 with probability `rate`, else 1 / (1 - rate); see ct_tower_set_position. n: a multiple of 8. */
void ct_loop_dropout_factors(uint64_t seed, uint32_t epoch, int64_t first_row, size_t layer, float rate, size_t rows, size_t n,
                             float *factors);
void ct_loop_multiply(const float *factors, size_t count, float *to);    /* to *= factors; any count */
void ct_loop_where_positive_f32(const float *y, size_t count, float *d); /* d = 0 where not y > 0 */
void ct_loop_where_positive_bf16(const uint16_t *y, size_t count, float *d);

typedef struct ct_step_rule {
    float beta1, beta2, rest1, rest2; /* rest = 1 - beta */
    float rate;                       /* learning rate / (1 - beta1^t); SGD: learning rate */
    float root;                       /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
    float l2;      /* g is the gradient + l2 w */
    float average; /* a += average (w - a), with the new w */
} ct_step_rule;
/* A gradient in panels, one `panel_stride` floats behind the other, rows of a panel side by side; the last panel may be narrower. */
typedef struct ct_panel_gradient {
    const float *values;
    size_t panel_stride, columns, last_columns; /* of a panel's row; last_columns: of the one that has less than `columns` of the matrix */
} ct_panel_gradient;
/* m = beta1 m + rest1 g; v = beta2 v + rest2 g g; w -= rate m / (sqrt(v) root + epsilon), for rows [row, end) of matrices (rows, n).
 * average: NULL = none. */
void ct_loop_adam(const ct_step_rule *rule, const ct_panel_gradient *gradient, size_t row, size_t end, size_t n, float *w, float *m,
                  float *v, float *average);
void ct_loop_sgd(const ct_step_rule *rule, const ct_panel_gradient *gradient, size_t row, size_t end, size_t n, float *w, float *average);

#endif
