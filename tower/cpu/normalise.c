/* What a DENSE layer may have beside its product: normalisation over a row's columns, dropout. */
#include <math.h>

#include "base/math.h"
#include "base/random.h"
#include "tower/cpu/lanes.h"
#include "tower/cpu/loops.h"

static const float EPSILON = 1e-5f;

CT_INLINE float sum_of(const float *restrict a, size_t count) {
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; ++k) lane[k] += a[i + k];
    }
    for (size_t k = 0; i + k < count; ++k) lane[k] += a[i + k];
    return add_lanes(lane);
}

CT_HOT void ct_loop_normalise(float *restrict z, size_t rows, size_t out, size_t n, const float *restrict scale,
                              const float *restrict shift, bool relu, float *restrict kept, float *restrict inverse) {
    for (size_t r = 0; r < rows; ++r) {
        float *restrict row = z + r * n;
        const float mean = sum_of(row, out) / (float)out;
        for (size_t i = 0; i < out; ++i) row[i] -= mean;
        for (size_t i = out; i < n; ++i) row[i] = 0.0f;
        const float variance = ct_loop_dot(row, row, out) / (float)out, factor = 1.0f / sqrtf(variance + EPSILON);
        for (size_t i = 0; i < n; ++i) row[i] *= factor;
        if (kept != NULL) {
            for (size_t i = 0; i < n; ++i) kept[r * n + i] = row[i];
            inverse[r] = factor;
        }
        for (size_t i = 0; i < out; ++i) {
            const float y = row[i] * scale[i] + shift[i];
            row[i] = relu && y < 0.0f ? 0.0f : y;
        }
    }
}

CT_HOT void ct_loop_normalise_back(float *restrict d, size_t rows, size_t out, size_t n, const float *restrict scale,
                                   const float *restrict kept, const float *restrict inverse, float *restrict scale_gradient,
                                   float *restrict shift_gradient) {
    for (size_t r = 0; r < rows; ++r) {
        float *restrict row = d + r * n;
        const float *restrict h = kept + r * n;
        for (size_t i = 0; i < out; ++i) {
            scale_gradient[i] += row[i] * h[i];
            shift_gradient[i] += row[i];
            row[i] *= scale[i];
        }
        const float mean = sum_of(row, out) / (float)out, slope = ct_loop_dot(row, h, out) / (float)out;
        for (size_t i = 0; i < out; ++i) row[i] = inverse[r] * ((row[i] - mean) - h[i] * slope);
        for (size_t i = out; i < n; ++i) row[i] = 0.0f;
    }
}

void ct_loop_dropout_factors(uint64_t seed, uint32_t epoch, int64_t first_row, size_t layer, float rate, size_t rows, size_t n,
                             float *factors) {
    const uint32_t least = (uint32_t)((double)rate * 65536.0 + 0.5);
    const float keep = 1.0f / (1.0f - rate);
    for (size_t r = 0; r < rows; ++r) {
        for (size_t i = 0; i < n; i += 8) {
            const ct_random4 random =
                ct_random(seed, CT_PLACE_DROPOUT, epoch, (uint64_t)(first_row + (int64_t)r), (uint32_t)(layer << 16 | i / 8));
            for (size_t k = 0; k < 8; ++k) {
                const uint32_t half = random.word[k / 2] >> (k % 2 * 16) & 0xffffu;
                factors[r * n + i + k] = half < least ? 0.0f : keep;
            }
        }
    }
}

CT_HOT void ct_loop_multiply(const float *restrict factors, size_t count, float *restrict to) {
    for (size_t i = 0; i < count; ++i) to[i] *= factors[i];
}

CT_HOT void ct_loop_where_positive_f32(const float *restrict y, size_t count, float *restrict d) {
    for (size_t i = 0; i < count; ++i) d[i] = y[i] <= 0.0f ? 0.0f : d[i];
}
CT_HOT void ct_loop_where_positive_bf16(const uint16_t *restrict y, size_t count, float *restrict d) {
    for (size_t i = 0; i < count; ++i) d[i] = (int16_t)y[i] <= 0 ? 0.0f : d[i];
}
