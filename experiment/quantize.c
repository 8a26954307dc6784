#include "experiment/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/progress.h"
#include "base/random.h"

enum { BLOCK_ROWS = 4096, DEFAULT_STEPS = 25, LANES = 8 };

typedef struct quantizer {
    const ct_quantize_options *options;
    size_t count, dim, codes, blocks;
    float *rest;                       /* (count, dim): what the levels so far leave */
    float *centres;                    /* (codes, dim) */
    uint32_t *nearest;                 /* (count) */
    float *distance;                   /* (count): square, to the nearest centre */
    double *block_sum;                 /* (blocks) */
    size_t *block_moved;               /* (blocks) */
    double *sums;                      /* (codes, dim) */
    size_t *sizes;                     /* (codes) */
    size_t first_centre, centre_count; /* that a pass looks at */
} quantizer;

CT_HOT static float square_distance(const float *a, const float *b, size_t n) {
    float lane[LANES] = {0.0f};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) {
            const float d = a[i + l] - b[i + l];
            lane[l] += d * d;
        }
    float sum = 0.0f;
    for (size_t l = 0; l < LANES; l++) sum += lane[l];
    for (; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* Vectors of one block to the nearest of the centres [first_centre, first_centre + centre_count), which may take the place of a nearer one
 * that was found before. */
static void nearest_task(void *context, size_t block, size_t worker) {
    (void)worker;
    quantizer *q = context;
    const size_t first = block * BLOCK_ROWS, last = first + BLOCK_ROWS < q->count ? first + BLOCK_ROWS : q->count;
    double sum = 0.0;
    size_t moved = 0;
    for (size_t row = first; row < last; row++) {
        const float *x = q->rest + row * q->dim;
        uint32_t nearest = q->nearest[row];
        float least = q->first_centre == 0 ? INFINITY : q->distance[row];
        for (size_t c = q->first_centre; c < q->first_centre + q->centre_count; c++) {
            const float distance = square_distance(x, q->centres + c * q->dim, q->dim);
            if (distance < least) least = distance, nearest = (uint32_t)c;
        }
        moved += nearest != q->nearest[row];
        q->nearest[row] = nearest;
        q->distance[row] = least;
        sum += (double)least;
    }
    q->block_sum[block] = sum;
    q->block_moved[block] = moved;
}

/* Sum of the square distances; how many vectors changed their centre. */
static double find_nearest(quantizer *q, size_t first_centre, size_t centre_count, size_t *out_moved) {
    double sum = 0.0;
    size_t moved = 0;
    q->first_centre = first_centre;
    q->centre_count = centre_count;
    ct_pool_run(q->options->pool, q->blocks, nearest_task, q);
    for (size_t b = 0; b < q->blocks; b++) {
        sum += q->block_sum[b];
        moved += q->block_moved[b];
    }
    *out_moved = moved;
    return sum;
}

/* Row at which the running sum of the square distances passes `at`; all of them 0: any row. */
static size_t draw_row(const quantizer *q, double at) {
    size_t block = 0, last = q->count - 1;
    while (block + 1 < q->blocks && at >= q->block_sum[block]) at -= q->block_sum[block++];
    for (size_t row = block * BLOCK_ROWS; row < q->count && row < (block + 1) * BLOCK_ROWS; row++) {
        if (q->distance[row] > 0.0f) last = row;
        if (at < (double)q->distance[row]) return row;
        at -= (double)q->distance[row];
    }
    return last;
}

/* k-means++: each centre a vector, drawn by its square distance from the centres before it. */
static void first_centres(quantizer *q, uint32_t level) {
    size_t moved;
    for (size_t c = 0; c < q->codes; c++) {
        const double unit = ct_random_unit(q->options->seed, CT_PLACE_SHUFFLE, level, c, 1);
        size_t row = (size_t)(unit * (double)q->count);
        if (c > 0) {
            double all = 0.0;
            for (size_t b = 0; b < q->blocks; b++) all += q->block_sum[b];
            if (all > 0.0) row = draw_row(q, unit * all);
        }
        memcpy(q->centres + c * q->dim, q->rest + row * q->dim, q->dim * sizeof(float));
        (void)find_nearest(q, c, 1, &moved);
    }
}

/* Sums in the order of the rows: one thread, since it is a k-th of the work. */
static void move_centres(quantizer *q) {
    memset(q->sums, 0, q->codes * q->dim * sizeof *q->sums);
    memset(q->sizes, 0, q->codes * sizeof *q->sizes);
    for (size_t row = 0; row < q->count; row++) {
        double *sum = q->sums + q->nearest[row] * q->dim;
        const float *x = q->rest + row * q->dim;
        for (size_t i = 0; i < q->dim; i++) sum[i] += (double)x[i];
        q->sizes[q->nearest[row]]++;
    }
    for (size_t c = 0; c < q->codes; c++)
        for (size_t i = 0; i < q->dim && q->sizes[c] > 0; i++)
            q->centres[c * q->dim + i] = (float)(q->sums[c * q->dim + i] / (double)q->sizes[c]);
}

static ct_code cluster_level(quantizer *q, uint32_t level, double *out_left, ct_status *status) {
    const uint32_t steps = q->options->steps > 0 ? q->options->steps : DEFAULT_STEPS;
    size_t moved = 0;
    first_centres(q, level);
    double left = find_nearest(q, 0, q->codes, &moved);
    for (uint32_t step = 0; step < steps; step++) {
        if (q->options->stop != NULL && atomic_load(q->options->stop)) return ct_fail(status, CT_CANCELLED, "quantizing was stopped");
        move_centres(q);
        left = find_nearest(q, 0, q->codes, &moved);
        if (moved == 0) break;
    }
    *out_left = left;
    return CT_OK;
}

/* Sum of the squares of the vectors less their mean. */
static double spread_of(const float *values, size_t count, size_t dim) {
    double squares = 0.0;
    for (size_t i = 0; i < dim; i++) {
        double mean = 0.0;
        for (size_t row = 0; row < count; row++) mean += (double)values[row * dim + i] / (double)count;
        for (size_t row = 0; row < count; row++) {
            const double d = (double)values[row * dim + i] - mean;
            squares += d * d;
        }
    }
    return squares;
}

static ct_code check(const float *values, size_t count, size_t dim, const ct_quantize_options *options, ct_status *status) {
    if (options->levels == 0 || options->levels > CT_QUANTIZE_MAX_LEVELS)
        return ct_fail(status, CT_INVALID, "quantize: %u levels; 1 to %d are possible", options->levels, CT_QUANTIZE_MAX_LEVELS);
    if (options->codes == 0 || options->codes > CT_QUANTIZE_MAX_CODES)
        return ct_fail(status, CT_INVALID, "quantize: %u codes; 1 to %d are possible", options->codes, CT_QUANTIZE_MAX_CODES);
    if (count < options->codes || dim == 0)
        return ct_fail(status, CT_INVALID, "quantize: %zu vectors of %zu values are too few for %u codes", count, dim, options->codes);
    for (size_t i = 0; i < count * dim; i++)
        if (!isfinite(values[i])) return ct_fail(status, CT_INVALID, "quantize: value %zu of vector %zu is not finite", i % dim, i / dim);
    return CT_OK;
}

ct_code ct_quantize(const float *values, size_t count, size_t dim, const ct_quantize_options *options, uint32_t *out_codes,
                    double *out_left, ct_status *status) {
    CT_TRY(check(values, count, dim, options, status));
    ct_code code = CT_OK;
    ct_progress progress;
    quantizer q = {
        .options = options, .count = count, .dim = dim, .codes = options->codes, .blocks = (count + BLOCK_ROWS - 1) / BLOCK_ROWS};
    q.rest = malloc(count * dim * sizeof *q.rest);
    q.centres = malloc(q.codes * dim * sizeof *q.centres);
    q.nearest = calloc(count, sizeof *q.nearest);
    q.distance = malloc(count * sizeof *q.distance);
    q.block_sum = malloc(q.blocks * sizeof *q.block_sum);
    q.block_moved = malloc(q.blocks * sizeof *q.block_moved);
    q.sums = malloc(q.codes * dim * sizeof *q.sums);
    q.sizes = malloc(q.codes * sizeof *q.sizes);
    if (!q.rest || !q.centres || !q.nearest || !q.distance || !q.block_sum || !q.block_moved || !q.sums || !q.sizes) {
        code = ct_fail_memory(status, (count + 3 * q.codes) * dim * sizeof(float), "the vectors");
        goto done;
    }
    memcpy(q.rest, values, count * dim * sizeof *q.rest);
    const double spread = spread_of(values, count, dim);
    if (options->progress) ct_progress_init(&progress);
    for (uint32_t level = 0; level < options->levels && code == CT_OK; level++) {
        double left = 0.0;
        if (options->progress) ct_progress_update(&progress, "quantizing %zu vectors, level %u of %u", count, level + 1, options->levels);
        code = cluster_level(&q, level, &left, status);
        if (code != CT_OK) break;
        out_left[level] = spread > 0.0 ? left / spread : 0.0;
        for (size_t row = 0; row < count; row++) {
            out_codes[row * options->levels + level] = q.nearest[row];
            for (size_t i = 0; i < dim; i++) q.rest[row * dim + i] -= q.centres[q.nearest[row] * dim + i];
        }
    }
    if (options->progress) ct_progress_finish(&progress);
done:
    free(q.rest);
    free(q.centres);
    free(q.nearest);
    free(q.distance);
    free(q.block_sum);
    free(q.block_moved);
    free(q.sums);
    free(q.sizes);
    return code;
}
