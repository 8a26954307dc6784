#include "tower/cpu/loops.h"

#include <math.h>
#include <string.h>

#include "base/math.h"
#include "tower/cpu/lanes.h"

enum { MODERATE = (127 + 50) << 7 }; /* 2^50 as bf16, and the upper half of it as fp32 */

CT_HOT void ct_loop_add(const float *restrict from, size_t count, float *restrict to) {
    for (size_t i = 0; i < count; ++i) to[i] += from[i];
}

CT_HOT void ct_loop_to_bf16(const float *restrict from, size_t from_stride, size_t rows, size_t columns, uint16_t *restrict to,
                            size_t to_stride) {
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict in = from + r * from_stride;
        uint16_t *restrict out = to + r * to_stride;
        for (size_t i = 0; i < columns; ++i) out[i] = ct_bf16_from_f32(in[i]);
    }
}

CT_HOT bool ct_loop_moderate_f32(const float *restrict values, size_t count) {
    uint32_t largest = 0;
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    return largest < (uint32_t)MODERATE << 16;
}

CT_HOT bool ct_loop_moderate_bf16(const uint16_t *restrict values, size_t count) {
    uint16_t largest = 0;
    for (size_t i = 0; i < count; ++i) {
        const uint16_t bits = values[i] & 0x7fffu;
        largest = bits > largest ? bits : largest;
    }
    return largest < MODERATE;
}

/* --- forward --- */

CT_INLINE float activate(float z, bool relu) { return relu && z < 0.0f ? 0.0f : z; }

CT_INLINE void dense_rows(const ct_sums *sums, const float *restrict bias, bool relu, bool two, size_t rows, size_t n, float *restrict y,
                          uint16_t *restrict y_bf16, bool bf16, size_t y_stride) {
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict first = sums->first + r * sums->first_stride;
        const float *restrict second = two ? sums->second + r * sums->second_stride : first;
        if (bf16) {
            uint16_t *restrict out = y_bf16 + r * y_stride;
            for (size_t i = 0; i < n; ++i) {
                out[i] = ct_bf16_from_f32(activate((two ? second[i] + first[i] : first[i]) + bias[i], relu));
            }
        } else {
            float *restrict out = y + r * y_stride;
            for (size_t i = 0; i < n; ++i) out[i] = activate((two ? second[i] + first[i] : first[i]) + bias[i], relu);
        }
    }
}

CT_INLINE void dense_any(const ct_sums *sums, const float *restrict bias, bool relu, size_t rows, size_t n, float *restrict y,
                         uint16_t *restrict y_bf16, bool bf16, size_t y_stride) {
    if (sums->second != NULL) {
        if (relu) {
            dense_rows(sums, bias, true, true, rows, n, y, y_bf16, bf16, y_stride);
        } else {
            dense_rows(sums, bias, false, true, rows, n, y, y_bf16, bf16, y_stride);
        }
    } else if (relu) {
        dense_rows(sums, bias, true, false, rows, n, y, y_bf16, bf16, y_stride);
    } else {
        dense_rows(sums, bias, false, false, rows, n, y, y_bf16, bf16, y_stride);
    }
}

CT_HOT void ct_loop_dense_f32(const ct_sums *sums, const float *restrict bias, bool relu, size_t rows, size_t n, float *restrict y,
                              size_t y_stride) {
    dense_any(sums, bias, relu, rows, n, y, NULL, false, y_stride);
}
CT_HOT void ct_loop_dense_bf16(const ct_sums *sums, const float *restrict bias, bool relu, size_t rows, size_t n, uint16_t *restrict y,
                               size_t y_stride) {
    dense_any(sums, bias, relu, rows, n, NULL, y, true, y_stride);
}

CT_HOT void ct_loop_cross(const ct_cross *cross, size_t rows, size_t n) {
    const float *restrict bias = cross->bias;
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict x = cross->x + r * cross->x_stride;
        const float *restrict in = cross->in + r * cross->in_stride;
        const float *sum = cross->sums.first + r * cross->sums.first_stride;
        float *restrict y = cross->y + r * cross->y_stride;
        if (cross->sums.second != NULL) {
            const float *restrict second = cross->sums.second + r * cross->sums.second_stride;
            if (cross->kept != NULL) {
                float *restrict kept = cross->kept + r * cross->kept_stride; /* is `sum` */
                for (size_t i = 0; i < n; ++i) kept[i] = second[i] + kept[i];
                for (size_t i = 0; i < n; ++i) y[i] = x[i] * (kept[i] + bias[i]) + in[i];
            } else {
                for (size_t i = 0; i < n; ++i) y[i] = x[i] * ((second[i] + sum[i]) + bias[i]) + in[i];
            }
        } else {
            for (size_t i = 0; i < n; ++i) y[i] = x[i] * (sum[i] + bias[i]) + in[i];
        }
        if (cross->y_bf16 != NULL) {
            uint16_t *restrict rounded = cross->y_bf16 + r * cross->y_bf16_stride;
            for (size_t i = 0; i < n; ++i) rounded[i] = ct_bf16_from_f32(y[i]);
        }
    }
}

/* --- backward --- */

CT_HOT void ct_loop_dense_back_f32(const float *restrict dy, size_t dy_stride, const float *restrict y, size_t y_stride, bool relu,
                                   size_t rows, size_t n, float *restrict dz, float *restrict bias_gradient) {
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict in = dy + r * dy_stride, *restrict kept = y + r * y_stride;
        float *restrict out = dz + r * n;
        for (size_t i = 0; i < n; ++i) {
            const float value = relu && kept[i] <= 0.0f ? 0.0f : in[i];
            out[i] = value;
            bias_gradient[i] += value;
        }
    }
}

CT_HOT void ct_loop_dense_back_bf16(const float *restrict dy, size_t dy_stride, const uint16_t *restrict y, size_t y_stride, bool relu,
                                    size_t rows, size_t n, uint16_t *restrict dz, float *restrict bias_gradient) {
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict in = dy + r * dy_stride;
        const uint16_t *restrict kept = y + r * y_stride;
        uint16_t *restrict out = dz + r * n;
        for (size_t i = 0; i < n; ++i) {
            const float value = relu && (int16_t)kept[i] <= 0 ? 0.0f : in[i];
            out[i] = ct_bf16_from_f32(value);
            bias_gradient[i] += value;
        }
    }
}

typedef uint32_t words16 __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef int32_t ints16 __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef int16_t shorts16 __attribute__((vector_size(LANES * sizeof(int16_t))));

/* bf16 of each lane, as ct_bf16_from_f32, in the low half of a word. */
CT_INLINE void round16(const lanes16 *values, words16 *out) {
    words16 bits;
    memcpy(&bits, values, sizeof bits);
    const words16 nan = (words16)((ints16)(bits & 0x7fffffffu) > 0x7f800000);
    const words16 high = bits >> 16;
    *out = (nan & (high | 0x40u)) | (~nan & ((bits + 0x7fffu + (high & 1u)) >> 16));
}

/* Sixteen columns of a row: dz to memory and to out. */
CT_INLINE void dense_back16(const float *restrict dy, const uint16_t *restrict y, bool relu, uint16_t *restrict dz, lanes16 *inout_bias,
                            words16 *out) {
    lanes16 value;
    load16(&value, dy);
    if (relu) {
        shorts16 kept;
        memcpy(&kept, y, sizeof kept);
        words16 bits;
        memcpy(&bits, &value, sizeof bits);
        bits &= (words16)(__builtin_convertvector(kept, ints16) > 0);
        memcpy(&value, &bits, sizeof value);
    }
    *inout_bias += value;
    round16(&value, out);
    const shorts16 rounded = __builtin_convertvector((ints16)*out, shorts16);
    memcpy(dz, &rounded, sizeof rounded);
}

CT_INLINE void dense_back_pairs(const float *dy, const uint16_t *y, bool relu, size_t rows, size_t columns, size_t stride, uint16_t *dz,
                                float *bias_gradient, const ct_panels *panels, size_t row, uint16_t *to) {
    const size_t width = panels->width;
    for (size_t r = 0; r < rows; r += 2) {
        for (size_t first = 0; first < columns; first += width) {
            const size_t end = columns - first < width ? columns : first + width;
            uint16_t *restrict panel = to + first / width * panels->panel_stride + (row + r) * width;
            for (size_t c = first; c < end; c += LANES) {
                const size_t even = r * stride + c, odd = even + stride;
                lanes16 bias;
                words16 low, high;
                load16(&bias, bias_gradient + c);
                dense_back16(dy + even, y + even, relu, dz + even, &bias, &low);
                dense_back16(dy + odd, y + odd, relu, dz + odd, &bias, &high);
                store16(bias_gradient + c, &bias);
                low |= high << 16;
                memcpy(panel + 2 * (c - first), &low, sizeof low);
            }
        }
    }
}

CT_HOT void ct_loop_dense_back_pairs(const float *dy, const uint16_t *y, bool relu, size_t rows, size_t columns, size_t stride,
                                     uint16_t *dz, float *bias_gradient, const ct_panels *panels, size_t row, uint16_t *to) {
    if (relu) {
        dense_back_pairs(dy, y, true, rows, columns, stride, dz, bias_gradient, panels, row, to);
    } else {
        dense_back_pairs(dy, y, false, rows, columns, stride, dz, bias_gradient, panels, row, to);
    }
}

CT_INLINE void cross_back(const ct_cross_back *back, size_t rows, size_t n, bool bf16, bool dx_first, bool in_is_x) {
    const float *restrict bias = back->bias;
    float *restrict bias_gradient = back->bias_gradient;
    for (size_t r = 0; r < rows; ++r) {
        const float *restrict dy = back->dy + r * back->dy_stride, *restrict x = back->x + r * back->x_stride;
        const float *restrict sum = back->sum + r * back->sum_stride;
        float *restrict dx = back->dx + r * back->dx_stride;
        float *restrict dz = (float *)back->dz + r * n;
        uint16_t *restrict dz_bf16 = (uint16_t *)back->dz + r * n;
        for (size_t i = 0; i < n; ++i) {
            const float product = dy[i] * x[i];
            if (bf16) {
                dz_bf16[i] = ct_bf16_from_f32(product);
            } else {
                dz[i] = product;
            }
            bias_gradient[i] += product;
        }
        for (size_t i = 0; i < n; ++i) {
            float value = dy[i] * (sum[i] + bias[i]);
            if (in_is_x) value += dy[i];
            dx[i] = dx_first ? value : dx[i] + value;
        }
        if (back->din == NULL) continue;
        float *restrict din = back->din + r * back->din_stride;
        for (size_t i = 0; i < n; ++i) din[i] += dy[i];
    }
}

CT_INLINE void cross_back_any(const ct_cross_back *back, size_t rows, size_t n, bool bf16) {
    if (back->dx_first) {
        if (back->in_is_x) {
            cross_back(back, rows, n, bf16, true, true);
        } else {
            cross_back(back, rows, n, bf16, true, false);
        }
    } else if (back->in_is_x) {
        cross_back(back, rows, n, bf16, false, true);
    } else {
        cross_back(back, rows, n, bf16, false, false);
    }
}

CT_HOT void ct_loop_cross_back_f32(const ct_cross_back *back, size_t rows, size_t n) { cross_back_any(back, rows, n, false); }
CT_HOT void ct_loop_cross_back_bf16(const ct_cross_back *back, size_t rows, size_t n) { cross_back_any(back, rows, n, true); }

/* --- dot products of the HEAD --- */

CT_HOT float ct_loop_dot(const float *restrict a, const float *restrict b, size_t count) {
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; ++k) lane[k] += a[i + k] * b[i + k];
    }
    for (size_t k = 0; i + k < count; ++k) lane[k] += a[i + k] * b[i + k];
    return add_lanes(lane);
}

CT_HOT float ct_loop_dot_bf16(const uint16_t *restrict a, const float *restrict b, size_t count) {
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; ++k) lane[k] += ct_f32_from_bf16(a[i + k]) * b[i + k];
    }
    for (size_t k = 0; i + k < count; ++k) lane[k] += ct_f32_from_bf16(a[i + k]) * b[i + k];
    return add_lanes(lane);
}

CT_HOT void ct_loop_axpy(float scale, const float *restrict v, size_t count, bool first, float *restrict out) {
    if (first) {
        for (size_t i = 0; i < count; ++i) out[i] = scale * v[i];
    } else {
        for (size_t i = 0; i < count; ++i) out[i] += scale * v[i];
    }
}

CT_HOT void ct_loop_axpy_bf16(float scale, const uint16_t *restrict v, size_t count, float *restrict out) {
    for (size_t i = 0; i < count; ++i) out[i] += scale * ct_f32_from_bf16(v[i]);
}

/* --- adapters: narrow products. A row's sum runs over `in` in order, 16 columns at a time; rows in groups hide the additions' latency. */

enum { ADAPTER_ROWS = 8 };

CT_INLINE void adapter_group(const float *restrict raw, size_t raw_stride, const float *restrict a, size_t padded, size_t in,
                             lanes16 sum[ADAPTER_ROWS], size_t rows) {
    for (size_t r = 0; r < rows; ++r) sum[r] = (lanes16){0};
    for (size_t k = 0; k < in; ++k) {
        lanes16 weights;
        load16(&weights, a + k * padded);
        for (size_t r = 0; r < rows; ++r) sum[r] += raw[r * raw_stride + k] * weights;
    }
}

CT_HOT void ct_loop_adapter(const float *restrict raw, size_t raw_stride, const float *restrict a_padded, const float *restrict bias,
                            size_t rows, size_t in, size_t out, float *restrict x, size_t x_stride) {
    const size_t padded = (out + LANES - 1) / LANES * LANES;
    for (size_t c = 0; c < out; c += LANES) {
        const size_t columns = out - c < LANES ? out - c : LANES;
        for (size_t r = 0; r < rows;) {
            lanes16 sum[ADAPTER_ROWS];
            const size_t group = rows - r < ADAPTER_ROWS ? 1 : ADAPTER_ROWS;
            if (group == 1) {
                adapter_group(raw + r * raw_stride, raw_stride, a_padded + c, padded, in, sum, 1);
            } else {
                adapter_group(raw + r * raw_stride, raw_stride, a_padded + c, padded, in, sum, ADAPTER_ROWS);
            }
            for (size_t i = 0; i < group; ++i) {
                for (size_t j = 0; j < columns; ++j) x[(r + i) * x_stride + c + j] = sum[i][j] + bias[c + j];
            }
            r += group;
        }
    }
}

CT_HOT void ct_loop_adapter_back(const float *restrict raw, size_t raw_stride, const float *restrict dx, size_t dx_stride, size_t rows,
                                 size_t in, size_t out, float *restrict a_gradient, float *restrict bias_gradient) {
    const size_t padded = (out + LANES - 1) / LANES * LANES;
    for (size_t c = 0; c < out; c += LANES) {
        const size_t columns = out - c < LANES ? out - c : LANES;
        for (size_t r = 0; r < rows; r += 4) {
            const size_t group = rows - r < 4 ? rows - r : 4;
            float d[4][LANES] = {{0}};
            for (size_t i = 0; i < group; ++i) {
                for (size_t j = 0; j < columns; ++j) d[i][j] = dx[(r + i) * dx_stride + c + j];
            }
            for (size_t i = 0; i < group; ++i) {
                for (size_t j = 0; j < LANES; ++j) bias_gradient[c + j] += d[i][j];
            }
            const float *restrict row = raw + r * raw_stride;
            for (size_t k = 0; k < in; ++k) {
                float *restrict gradient = a_gradient + k * padded + c;
                if (group == 4) {
                    const float v0 = row[k], v1 = row[raw_stride + k], v2 = row[2 * raw_stride + k], v3 = row[3 * raw_stride + k];
                    for (size_t j = 0; j < LANES; ++j) {
                        gradient[j] = (((gradient[j] + v0 * d[0][j]) + v1 * d[1][j]) + v2 * d[2][j]) + v3 * d[3][j];
                    }
                } else {
                    for (size_t i = 0; i < group; ++i) {
                        const float value = row[i * raw_stride + k];
                        for (size_t j = 0; j < LANES; ++j) gradient[j] += value * d[i][j];
                    }
                }
            }
        }
    }
}

CT_HOT void ct_loop_adapter_relu_back(const float *restrict a_padded, const float *restrict dx, size_t dx_stride, size_t rows, size_t in,
                                      size_t out, float *restrict h, size_t h_stride) {
    const size_t padded = (out + LANES - 1) / LANES * LANES;
    for (size_t r = 0; r < rows; ++r) {
        for (size_t k = 0; k < in; ++k) {
            float *restrict value = h + r * h_stride + k;
            *value = *value > 0.0f ? ct_loop_dot(a_padded + k * padded, dx + r * dx_stride, out) : 0.0f;
        }
    }
}

CT_HOT void ct_loop_relu(size_t rows, size_t count, float *restrict v, size_t stride) {
    for (size_t r = 0; r < rows; ++r) {
        for (size_t k = 0; k < count; ++k) v[r * stride + k] = v[r * stride + k] > 0.0f ? v[r * stride + k] : 0.0f;
    }
}

/* --- optimisers: row by row, so that weights and state stream; only the gradient is read in pieces --- */

/* Columns [column, column + *out_count) of a row of the gradient. */
CT_INLINE const float *gradient_piece(const ct_panel_gradient *gradient, size_t row, size_t column, size_t n, size_t *out_count) {
    const size_t width = gradient->columns, left = n - column;
    *out_count = left < width ? left : width;
    return gradient->values + column / width * gradient->panel_stride + row * (left < width ? gradient->last_columns : width);
}

CT_INLINE void adam_piece(const ct_step_rule *rule, const float *restrict from, size_t count, float *restrict w, float *restrict m,
                          float *restrict v, float *restrict a, bool decays, bool averages) {
    const float beta1 = rule->beta1, beta2 = rule->beta2, rest1 = rule->rest1, rest2 = rule->rest2;
    const float rate = rule->rate, root = rule->root, epsilon = rule->epsilon, l2 = rule->l2, share = rule->average;
    for (size_t i = 0; i < count; ++i) {
        const float g = decays ? from[i] + l2 * w[i] : from[i];
        const float first = beta1 * m[i] + rest1 * g;
        const float second = beta2 * v[i] + rest2 * (g * g);
        m[i] = first;
        v[i] = second;
        const float next = w[i] - rate * first / (sqrtf(second) * root + epsilon);
        w[i] = next;
        if (averages) a[i] += share * (next - a[i]);
    }
}

CT_INLINE void adam_rows(const ct_step_rule *rule, const ct_panel_gradient *gradient, size_t row, size_t end, size_t n, float *w, float *m,
                         float *v, float *a, bool decays, bool averages) {
    for (size_t r = row; r < end; ++r) {
        for (size_t c = 0, count; c < n; c += count) {
            const float *from = gradient_piece(gradient, r, c, n, &count);
            const size_t at = r * n + c;
            float *average = averages ? a + at : NULL;
            if (count == 64) { /* the usual widths of a gradient's panel, as constants for the compiler */
                adam_piece(rule, from, 64, w + at, m + at, v + at, average, decays, averages);
            } else if (count == 48) {
                adam_piece(rule, from, 48, w + at, m + at, v + at, average, decays, averages);
            } else {
                adam_piece(rule, from, count, w + at, m + at, v + at, average, decays, averages);
            }
        }
    }
}

CT_HOT void ct_loop_adam(const ct_step_rule *rule, const ct_panel_gradient *gradient, size_t row, size_t end, size_t n, float *w, float *m,
                         float *v, float *average) {
    if (rule->l2 != 0.0f) {
        if (average != NULL) {
            adam_rows(rule, gradient, row, end, n, w, m, v, average, true, true);
        } else {
            adam_rows(rule, gradient, row, end, n, w, m, v, NULL, true, false);
        }
    } else if (average != NULL) {
        adam_rows(rule, gradient, row, end, n, w, m, v, average, false, true);
    } else {
        adam_rows(rule, gradient, row, end, n, w, m, v, NULL, false, false);
    }
}

CT_HOT void ct_loop_sgd(const ct_step_rule *rule, const ct_panel_gradient *gradient, size_t row, size_t end, size_t n, float *w,
                        float *average) {
    const float rate = rule->rate, l2 = rule->l2, share = rule->average;
    for (size_t r = row; r < end; ++r) {
        for (size_t c = 0, count; c < n; c += count) {
            const float *restrict from = gradient_piece(gradient, r, c, n, &count);
            float *restrict wr = w + r * n + c;
            for (size_t i = 0; i < count; ++i) wr[i] -= rate * (from[i] + l2 * wr[i]);
            if (average == NULL) continue;
            float *restrict ar = average + r * n + c;
            for (size_t i = 0; i < count; ++i) ar[i] += share * (wr[i] - ar[i]);
        }
    }
}
