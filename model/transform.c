/* Numbers: t = sign(v) log(1 + |v|), standardised by the mean and deviation of every row trained on. Moments are merged pairwise (Chan,
 * Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979, eq. 2.1), block by block in the
 * log's order, so they do not depend on threads. */
#include <math.h>

#include "base/math.h"
#include "model/model_internal.h"

void moments_merge(number_moments *into, const number_moments *from) {
    if (from->count == 0) return;
    const double count = into->count + from->count;
    const double delta = from->mean - into->mean;
    into->mean += delta * (from->count / count);
    into->m2 += from->m2 + delta * delta * (into->count * from->count / count);
    into->count = count;
}

number_scale moments_scale(const number_moments *moments) {
    /* A constant number (or one seen once) has no deviation: it is centred and left in its unit. */
    const double variance = moments->count > 1 ? moments->m2 / moments->count : 0;
    return (number_scale){(float)moments->mean, variance > 1e-12 ? (float)(1 / sqrt(variance)) : 1.0f};
}

number_moments moments_of(const float *raw, float *scratch, size_t n) {
    ct_signed_log1p_f32(raw, scratch, n);
    number_moments moments = {0, 0, 0};
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(scratch[i])) {
            sum += (double)scratch[i];
            moments.count++;
        }
    if (moments.count == 0) return moments;
    moments.mean = sum / moments.count;
    for (size_t i = 0; i < n; i++)
        if (!isnan(scratch[i])) {
            const double delta = (double)scratch[i] - moments.mean;
            moments.m2 += delta * delta;
        }
    return moments;
}

void number_write(const float *raw, size_t step, const number_scale *scale, bool flag, float *scratch, float *out, size_t stride,
                  size_t n) {
    ct_signed_log1p_f32(raw, scratch, step == 0 ? 1 : n);
    for (size_t i = 0; i < n; i++) {
        const float t = scratch[i * step];
        const bool missing = isnan(t);
        out[i * stride] = missing ? 0.0f : (t - scale->mean) * scale->inverse_deviation;
        if (flag) out[i * stride + 1] = missing ? 1.0f : 0.0f;
    }
}

void click_odds_write(const uint32_t *impressions, const uint32_t *clicks, double prior, float smoothing, float *positive, float *negative,
                      float *out, size_t stride, size_t n) {
    const float of_clicks = (float)(1 / ((double)smoothing * prior)), of_others = (float)(1 / ((double)smoothing * (1 - prior)));
    for (size_t i = 0; i < n; i++) {
        positive[i] = (float)clicks[i] * of_clicks;
        negative[i] = (float)(impressions[i] - clicks[i]) * of_others;
    }
    ct_signed_log1p_f32(positive, positive, n);
    ct_signed_log1p_f32(negative, negative, n);
    for (size_t i = 0; i < n; i++) out[i * stride] = positive[i] - negative[i];
}

/* Small values are their own bucket; the logarithm's buckets start behind them, so that 3 (log(3)^2 = 1.2) is not 1. */
enum { MISSING_BUCKET = INT32_MIN, LOG_BUCKETS = 1000, LEAST_BUCKET = -1000 };

static int32_t bucket_of(float value) {
    if (isnan(value)) return MISSING_BUCKET;
    if (value > 2.0f) {
        const double log = ct_log((double)value);
        return LOG_BUCKETS + (int32_t)(log * log);
    }
    return value < (float)LEAST_BUCKET ? LEAST_BUCKET : (int32_t)floorf(value);
}

void bucket_keys_of(const float *raw, uint64_t salt, uint64_t *out_keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int32_t bucket = bucket_of(raw[i]);
        out_keys[i] = ct_hash64(&bucket, sizeof bucket, salt);
    }
}
