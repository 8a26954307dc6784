/* Loops over fields: FM's pairs by the square of the sum, DOT's pairs one by one, and the columns that are in no field. A field's columns
 * lie side by side in a row of x, so lanes run over them; DOT's lanes run over partners. */
#include <string.h>

#include "base/math.h"
#include "tower/cpu/lanes.h"
#include "tower/cpu/loops.h"

/* --- FM: y_d = (S_d^2 - Q_d) / 2 with S the sum of the context's fields plus the sum of the candidates', Q the same of squares --- */

CT_INLINE void sum_fields(const ct_fields *fields, size_t from, size_t to, const float *restrict x, size_t at, size_t width, float *s,
                          float *q) {
    for (size_t i = 0; i < width; ++i) s[i] = q[i] = 0.0f;
    for (size_t f = from; f < to; ++f) {
        const float *restrict v = x + fields->columns[f] + at;
        for (size_t i = 0; i < width; ++i) {
            s[i] += v[i];
            q[i] += v[i] * v[i];
        }
    }
}

static size_t context_fields(const ct_fields *fields, size_t context_width) {
    size_t count = 0;
    while (count < fields->count && fields->columns[count] < context_width) ++count;
    return count;
}

CT_INLINE void fm_part(const ct_fields *fields, size_t context, const float *restrict x, size_t at, size_t width, float *restrict y) {
    float s[2][LANES], q[2][LANES];
    sum_fields(fields, 0, context, x, at, width, s[0], q[0]);
    sum_fields(fields, context, fields->count, x, at, width, s[1], q[1]);
    for (size_t i = 0; i < width; ++i) {
        const float sum = s[0][i] + s[1][i];
        y[at + i] = 0.5f * (sum * sum - (q[0][i] + q[1][i]));
    }
}

/* The same in whole lanes, where a row has that much behind its last field: what stands behind a field is summed, too, and left out. */
CT_INLINE bool has_lanes(const ct_fields *fields, size_t x_stride) {
    return fields->columns[fields->count - 1] + (fields->dim + LANES - 1) / LANES * LANES <= x_stride;
}

typedef int32_t lane_mask __attribute__((vector_size(LANES * sizeof(int32_t))));

CT_INLINE void keep_first(size_t width, lanes16 *inout_value) {
    const lane_mask lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    lane_mask bits;
    memcpy(&bits, inout_value, sizeof bits);
    bits &= lane < (int32_t)(width < LANES ? width : LANES);
    memcpy(inout_value, &bits, sizeof bits);
}

CT_INLINE void sum_lanes(const ct_fields *fields, size_t context, const float *restrict x, size_t at, lanes16 *out_s, lanes16 *out_q) {
    lanes16 s[2] = {{0}}, q[2] = {{0}};
    for (size_t f = 0; f < fields->count; ++f) {
        lanes16 v;
        load16(&v, x + fields->columns[f] + at);
        if (f < context) {
            s[0] += v;
            q[0] += v * v;
        } else {
            s[1] += v;
            q[1] += v * v;
        }
    }
    *out_s = s[0] + s[1];
    *out_q = q[0] + q[1];
}

CT_HOT void ct_loop_fm(const ct_fields *fields, size_t context_width, const float *restrict x, size_t x_stride, size_t rows,
                       float *restrict y, size_t y_stride) {
    const size_t context = context_fields(fields, context_width), dim = fields->dim;
    const bool lanes = has_lanes(fields, x_stride) && y_stride % LANES == 0;
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict from = x + r * x_stride;
        float *restrict to = y + r * y_stride;
        size_t at = 0;
        for (; lanes && at < dim; at += LANES) {
            lanes16 s, q;
            sum_lanes(fields, context, from, at, &s, &q);
            s = 0.5f * (s * s - q);
            keep_first(dim - at, &s);
            store16(to + at, &s);
        }
        for (; at + LANES <= dim; at += LANES) fm_part(fields, context, from, at, LANES, to);
        if (at < dim) fm_part(fields, context, from, at, dim - at, to);
        for (size_t i = dim; i < y_stride; ++i) to[i] = 0.0f;
    }
}

CT_INLINE void fm_back_part(const ct_fields *fields, size_t context, const float *restrict x, size_t at, size_t width,
                            const float *restrict dy, float *restrict dx) {
    float s[2][LANES], q[LANES];
    sum_fields(fields, 0, context, x, at, width, s[0], q);
    sum_fields(fields, context, fields->count, x, at, width, s[1], q);
    for (size_t i = 0; i < width; ++i) s[0][i] += s[1][i];
    for (size_t f = 0; f < fields->count; ++f) {
        const float *restrict v = x + fields->columns[f] + at;
        float *restrict to = dx + fields->columns[f] + at;
        for (size_t i = 0; i < width; ++i) to[i] += dy[at + i] * (s[0][i] - v[i]);
    }
}

CT_INLINE void fm_back_lanes(const ct_fields *fields, size_t context, const float *restrict x, size_t at, const float *restrict dy,
                             float *restrict dx) {
    lanes16 s, q, d;
    sum_lanes(fields, context, x, at, &s, &q);
    load16(&d, dy + at);
    for (size_t f = 0; f < fields->count; ++f) {
        float *restrict to = dx + fields->columns[f] + at;
        lanes16 v, sum;
        load16(&v, x + fields->columns[f] + at);
        load16(&sum, to);
        v = d * (s - v);
        keep_first(fields->dim - at, &v);
        sum += v;
        store16(to, &sum);
    }
}

CT_HOT void ct_loop_fm_back(const ct_fields *fields, size_t context_width, const float *restrict x, size_t x_stride,
                            const float *restrict dy, size_t dy_stride, size_t rows, float *restrict dx) {
    const size_t context = context_fields(fields, context_width), dim = fields->dim;
    const bool lanes = has_lanes(fields, x_stride) && dy_stride % LANES == 0;
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict from = x + r * x_stride, *restrict d = dy + r * dy_stride;
        float *restrict to = dx + r * x_stride;
        size_t at = 0;
        for (; lanes && at < dim; at += LANES) fm_back_lanes(fields, context, from, at, d, to);
        for (; at + LANES <= dim; at += LANES) fm_back_part(fields, context, from, at, LANES, d, to);
        if (at < dim) fm_back_part(fields, context, from, at, dim - at, d, to);
    }
}

/* --- DOT --- */

static size_t padded(size_t count) { return (count + LANES - 1) / LANES * LANES; }

size_t ct_loop_dots_scratch(size_t vectors, size_t dim) { return 2 * padded(vectors) * dim + vectors * vectors; }

/* The vectors of a row, one behind the other; returns how many. */
CT_INLINE size_t collect(const ct_fields *fields, const float *restrict x, const ct_vectors_in *second, size_t r, float *restrict z) {
    const size_t dim = fields->dim;
    size_t count = 0;
    if (second->f32 != NULL) {
        memcpy(z, second->f32 + r * second->stride, dim * sizeof *z);
        count = 1;
    } else if (second->bf16 != NULL) {
        const uint16_t *restrict from = second->bf16 + r * second->stride;
        for (size_t d = 0; d < dim; ++d) z[d] = ct_f32_from_bf16(from[d]);
        count = 1;
    }
    for (size_t f = 0; f < fields->count; ++f) {
        float *restrict to = z + (count + f) * dim;
        const float *restrict from = x + fields->columns[f];
        size_t at = 0;
        for (lanes16 value; at + LANES <= dim; at += LANES) {
            load16(&value, from + at);
            store16(to + at, &value);
        }
        for (; at < dim; ++at) to[at] = from[at];
    }
    return count + fields->count;
}

enum { GROUP = 4 }; /* vectors at a time: each keeps a sum of its own, so that additions do not wait for each other */

/* sum[i] = <vector i, columns j .. j + LANES of `turned`>; z: GROUP vectors. */
CT_INLINE void dots_group(const float *restrict z, const float *restrict turned, size_t width, size_t dim, lanes16 sum[GROUP]) {
    for (size_t i = 0; i < GROUP; ++i) sum[i] = (lanes16){0};
    for (size_t d = 0; d < dim; ++d) {
        lanes16 column;
        load16(&column, turned + d * width);
        for (size_t i = 0; i < GROUP; ++i) sum[i] += z[i * dim + d] * column;
    }
}

CT_HOT void ct_loop_dots(const ct_fields *fields, const float *restrict x, size_t x_stride, const ct_vectors_in *second, size_t rows,
                         float *restrict scratch, float *restrict y, size_t y_stride) {
    const size_t dim = fields->dim;
    for (size_t r = 0; r < rows; ++r) {
        float *restrict z = scratch;
        const size_t vectors = collect(fields, x + r * x_stride, second, r, z), width = padded(vectors);
        float *restrict turned = scratch + width * dim; /* (dim, width) */
        memset(z + vectors * dim, 0, (width - vectors) * dim * sizeof *z);
        if (dim % LANES == 0) {
            ct_loop_transpose_f32(z, dim, width, dim, turned, width);
        } else {
            for (size_t v = 0; v < width; ++v) {
                for (size_t d = 0; d < dim; ++d) turned[d * width + v] = z[v * dim + d];
            }
        }
        float *restrict to = y + r * y_stride;
        if (vectors > fields->count) {
            memcpy(to, z, dim * sizeof *to);
            to += dim;
        }
        for (size_t i = 0; i < vectors; i += GROUP) {
            const size_t end = vectors - i < GROUP ? vectors : i + GROUP;
            for (size_t j = 0; j + 1 < end; j += LANES) {
                lanes16 sum[GROUP];
                dots_group(z + i * dim, turned + j, width, dim, sum);
                for (size_t v = i > j ? i : j + 1; v < end; ++v) { /* <v, j>, <v, j + 1> .. up to <v, v - 1> */
                    memcpy(to + v * (v - 1) / 2 + j, &sum[v - i], (v - j < LANES ? v - j : LANES) * sizeof *to);
                }
            }
        }
    }
}

/* to[i] += sum over j of of_rows[i][j] z_j, LANES columns of them. */
CT_INLINE void dots_back_group(const float *restrict of_rows, const float *restrict z, size_t vectors, size_t dim, size_t group,
                               float *const *to) {
    lanes16 sum[GROUP];
    for (size_t i = 0; i < group; ++i) sum[i] = (lanes16){0};
    for (size_t j = 0; j < vectors; ++j) {
        lanes16 vector;
        load16(&vector, z + j * dim);
        for (size_t i = 0; i < group; ++i) sum[i] += of_rows[i * vectors + j] * vector;
    }
    for (size_t i = 0; i < group; ++i) {
        lanes16 value;
        load16(&value, to[i]);
        value += sum[i];
        store16(to[i], &value);
    }
}

CT_INLINE void dots_back_part(const float *restrict of_row, const float *restrict z, size_t vectors, size_t dim, size_t width,
                              float *restrict to) {
    float sum[LANES] = {0};
    for (size_t j = 0; j < vectors; ++j) {
        for (size_t k = 0; k < width; ++k) sum[k] += of_row[j] * z[j * dim + k];
    }
    for (size_t k = 0; k < width; ++k) to[k] += sum[k];
}

CT_HOT void ct_loop_dots_back(const ct_fields *fields, const float *restrict x, size_t x_stride, const ct_vectors_in *second,
                              const float *restrict dy, size_t dy_stride, size_t rows, float *restrict scratch, float *restrict dx,
                              float *restrict d_second) {
    const size_t dim = fields->dim;
    for (size_t r = 0; r < rows; ++r) {
        float *restrict z = scratch;
        const size_t vectors = collect(fields, x + r * x_stride, second, r, z), others = vectors - fields->count;
        float *restrict g = scratch + vectors * dim; /* (vectors, vectors): d of each product, 0 on the diagonal */
        const float *restrict d = dy + r * dy_stride;
        if (others > 0) {
            for (size_t k = 0; k < dim; ++k) d_second[r * second->stride + k] += d[k];
            d += dim;
        }
        for (size_t i = 0; i < vectors; d += i, ++i) {
            g[i * vectors + i] = 0.0f;
            for (size_t j = 0; j < i; ++j) g[i * vectors + j] = g[j * vectors + i] = d[j];
        }
        for (size_t i = 0; i < vectors; i += GROUP) {
            const size_t group = vectors - i < GROUP ? vectors - i : GROUP;
            float *to[GROUP];
            for (size_t v = 0; v < group; ++v) {
                to[v] = i + v < others ? d_second + r * second->stride : dx + r * x_stride + fields->columns[i + v - others];
            }
            const float *of_rows = g + i * vectors;
            size_t at = 0;
            for (; at + LANES <= dim; at += LANES) {
                if (group == GROUP) {
                    dots_back_group(of_rows, z + at, vectors, dim, GROUP, to);
                } else {
                    dots_back_group(of_rows, z + at, vectors, dim, group, to);
                }
                for (size_t v = 0; v < group; ++v) to[v] += LANES;
            }
            for (size_t v = 0; v < group && at < dim; ++v) dots_back_part(of_rows + v * vectors, z + at, vectors, dim, dim - at, to[v]);
        }
    }
}

/* --- REST --- */

/* Columns [*inout_from, end) of x, end = the start of field f or the width; then on behind the field. */
static size_t next_gap(const ct_fields *fields, size_t f, size_t width, size_t *inout_from, size_t *out_from) {
    *out_from = *inout_from;
    const size_t end = f < fields->count ? fields->columns[f] : width;
    *inout_from = end + fields->dim;
    return end - *out_from;
}

void ct_loop_rest(const ct_fields *fields, size_t width, const float *x, size_t x_stride, size_t rows, float *y, size_t y_stride) {
    size_t next = 0, from = 0, at = 0;
    for (size_t f = 0; f <= fields->count; ++f) {
        const size_t count = next_gap(fields, f, width, &next, &from);
        for (size_t r = 0; r < rows && count > 0; ++r) memcpy(y + r * y_stride + at, x + r * x_stride + from, count * sizeof *y);
        at += count;
    }
}

void ct_loop_rest_back(const ct_fields *fields, size_t width, const float *dy, size_t dy_stride, size_t rows, float *dx, size_t dx_stride) {
    size_t next = 0, from = 0, at = 0;
    for (size_t f = 0; f <= fields->count; ++f) {
        const size_t count = next_gap(fields, f, width, &next, &from);
        for (size_t r = 0; r < rows && count > 0; ++r) ct_loop_add(dy + r * dy_stride + at, count, dx + r * dx_stride + from);
        at += count;
    }
}
