/* Content similarity of a row's vector to those of its history. Vectors come from the frozen table through the store's public face: the
 * distinct keys of some rows are looked up once, their vectors centred and measured, then each row's cosines are taken. A row's values are
 * a function of its own vectors alone, summed in the history's order, so they do not depend on the rows beside it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "model/model_internal.h"

enum { MAX_DISTINCT = 2048, SLOTS = 2 * MAX_DISTINCT, LANES = 16 };
_Static_assert((int)MAX_DISTINCT > (int)CT_HISTORY_MAX_VALUES, "one row must fit");

struct similarity_scratch {
    ct_ticket *ticket;
    size_t padded;               /* the widest dim, rounded up to LANES */
    uint64_t keys[MAX_DISTINCT]; /* that are looked up together */
    size_t count;
    uint16_t slots[SLOTS];       /* key + 1; 0 = free */
    float *vectors;              /* (MAX_DISTINCT, padded): centred, padding 0 */
    float lengths[MAX_DISTINCT]; /* 0 = has no vector, or the mean itself */
    float *sum;                  /* (padded) of the history's vectors */
};

ct_code similarity_scratch_create(ct_model *model, similarity_scratch **out_scratch, ct_status *status) {
    size_t dim = 0;
    for (size_t i = 0; i < model->layout.similarity_count; i++)
        if (model->layout.similarities[i].dim > dim) dim = model->layout.similarities[i].dim;
    similarity_scratch *scratch = calloc(1, sizeof *scratch);
    if (scratch == NULL) return ct_fail_memory(status, sizeof *scratch, "a similarity");
    scratch->padded = (dim + LANES - 1) / LANES * LANES;
    scratch->vectors = calloc(MAX_DISTINCT * scratch->padded, sizeof *scratch->vectors);
    scratch->sum = calloc(scratch->padded, sizeof *scratch->sum);
    const ct_code code = scratch->vectors == NULL || scratch->sum == NULL
                             ? ct_fail_memory(status, MAX_DISTINCT * scratch->padded * sizeof(float), "a similarity")
                             : ct_ticket_create(model->store, &scratch->ticket, status);
    if (code != CT_OK) {
        similarity_scratch_destroy(scratch);
        return code;
    }
    *out_scratch = scratch;
    return CT_OK;
}

void similarity_scratch_destroy(similarity_scratch *scratch) {
    if (scratch == NULL) return;
    ct_ticket_destroy(scratch->ticket);
    free(scratch->vectors);
    free(scratch->sum);
    free(scratch);
}

void similarity_centre(const float *vectors, size_t count, size_t dim, float *out_centre) {
    for (size_t d = 0; d < dim; d++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++) sum += (double)vectors[i * dim + d];
        out_centre[d] = count > 0 ? (float)(sum / (double)count) : 0.0f;
    }
}

/* --- vectors --- */

typedef float lanes16 __attribute__((vector_size(LANES * sizeof(float))));

/* count: a multiple of LANES. Lanes are added in a fixed tree: the same bits on every instruction set. */
CT_HOT static float dot(const float *restrict a, const float *restrict b, size_t count) {
    lanes16 sum = {0};
    for (size_t i = 0; i < count; i += LANES) {
        lanes16 x, y;
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        sum += x * y;
    }
    float lanes[LANES];
    memcpy(lanes, &sum, sizeof lanes);
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t k = 0; k < half; k++) lanes[k] += lanes[k + half];
    return lanes[0];
}

CT_HOT static void add(const float *restrict v, size_t count, float *restrict sum) {
    for (size_t i = 0; i < count; i++) sum[i] += v[i];
}

/* The key's place among those that are looked up; it is added where it is not there. */
static size_t place_of(similarity_scratch *scratch, uint64_t key) {
    size_t at = (size_t)key % SLOTS;
    while (scratch->slots[at] != 0 && scratch->keys[scratch->slots[at] - 1] != key) at = (at + 1) % SLOTS;
    if (scratch->slots[at] == 0) {
        scratch->keys[scratch->count++] = key;
        scratch->slots[at] = (uint16_t)scratch->count;
    }
    return scratch->slots[at] - 1u;
}

static ct_code look_up(const ct_model *model, const layout_similarity *similarity, const float *centre, similarity_scratch *scratch,
                       ct_status *status) {
    const size_t dim = similarity->dim, padded = scratch->padded;
    const ct_key_column column = {.keys = scratch->keys};
    CT_TRY(read_column(model, scratch->ticket, similarity->table, column, scratch->count, scratch->vectors, padded, status));
    for (size_t i = 0; i < scratch->count; i++) {
        float *vector = scratch->vectors + i * padded;
        bool there = false; /* a key without a vector reads zeros */
        for (size_t d = 0; d < dim; d++) there = there || vector[d] != 0.0f;
        for (size_t d = 0; d < dim; d++) vector[d] = there ? vector[d] - centre[d] : 0.0f;
        memset(vector + dim, 0, (padded - dim) * sizeof *vector);
        scratch->lengths[i] = sqrtf(dot(vector, vector, padded));
    }
    return CT_OK;
}

/* --- rows --- */

/* Keys of the history of a row. */
static const uint64_t *history_of(const ct_column *column, size_t row, size_t *out_count) {
    const size_t at = column->shared ? 0 : row;
    *out_count = column->offsets[at + 1] - column->offsets[at];
    return ct_column_u64(column) + column->offsets[at];
}

/* to: the similarity's columns of a row of x. */
static void write_row(similarity_scratch *scratch, const layout_similarity *similarity, bool flag, const uint64_t *history, size_t count,
                      uint64_t own, float *to) {
    const size_t padded = scratch->padded, tiers = similarity->tiers, place = place_of(scratch, own);
    const float *vector = scratch->vectors + place * padded, length = scratch->lengths[place];
    float counts[CT_SIMILARITY_MAX_TIERS] = {0};
    memset(scratch->sum, 0, padded * sizeof *scratch->sum);
    for (size_t i = 0; i < count && length > 0.0f; i++) {
        const size_t other = place_of(scratch, history[i]);
        if (scratch->lengths[other] == 0.0f) continue;
        const float *liked = scratch->vectors + other * padded;
        const float cosine = dot(vector, liked, padded) / (length * scratch->lengths[other]);
        const float at = (cosine + 1.0f) / 2.0f * (float)tiers;
        counts[!(at > 0.0f) ? 0 : at >= (float)tiers ? tiers - 1 : (size_t)at] += 1.0f;
        add(liked, padded, scratch->sum);
    }
    const float sum_length = sqrtf(dot(scratch->sum, scratch->sum, padded));
    const bool missing = !(length > 0.0f && sum_length > 0.0f);
    *to++ = missing ? 0.0f : dot(vector, scratch->sum, padded) / (length * sum_length);
    if (flag) *to++ = missing ? 1.0f : 0.0f;
    ct_signed_log1p_f32(counts, to, tiers);
}

ct_code write_similarities(const ct_model *model, const ct_batch *batch, size_t first, size_t last, size_t first_row, size_t rows,
                           read_scratch *all, float *x, size_t stride, ct_status *status) {
    similarity_scratch *scratch = all->similar;
    for (size_t s = first; s < last; s++) {
        const layout_similarity *similarity = &model->layout.similarities[s];
        const ct_column *history = &batch->columns[similarity->field], *vector = &batch->columns[similarity->vector_field];
        const uint64_t *own = ct_column_u64(vector);
        for (size_t row = 0, end = 0; row < rows; row = end) {
            size_t count = 0;
            scratch->count = 0;
            memset(scratch->slots, 0, sizeof scratch->slots);
            for (; end < rows; end++) { /* as many rows as fit */
                const uint64_t *keys = history_of(history, first_row + end, &count);
                if (scratch->count + count + 1 > MAX_DISTINCT) break;
                (void)place_of(scratch, own[vector->shared ? 0 : first_row + end]);
                for (size_t i = 0; i < count; i++) (void)place_of(scratch, keys[i]);
            }
            CT_TRY(look_up(model, similarity, model->centres[s], scratch, status));
            for (size_t r = row; r < end; r++) {
                const uint64_t *keys = history_of(history, first_row + r, &count);
                write_row(scratch, similarity, model->spec->number_flags, keys, count, own[vector->shared ? 0 : first_row + r],
                          x + r * stride + similarity->column);
            }
        }
    }
    return CT_OK;
}
