/* One training step. The pool runs: the store's look-up; moments of the numbers, block by block; forward, loss and backward, block by
 * block, then weight gradients, and beside them the sorting of the next batch's keys; the tower's step; row gradients and the rows' steps.
 * Gradients are those of the summed loss, so a row's step does not depend on the size of the batch (Adam's does not either). Every part is
 * cut into blocks of rows, never by threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/math.h"
#include "model/model_internal.h"

typedef struct step_context {
    ct_model *model;
    const ct_batch *batch, *next;  /* next: NULL = unknown */
    const float *labels, *weights; /* weights: NULL = all 1 */
    float *logits;
} step_context;

static size_t block_count(const ct_model *model, size_t rows) { return (rows + model->block_rows - 1) / model->block_rows; }

static size_t rows_of_block(const ct_model *model, size_t rows, size_t block) {
    const size_t first = block * model->block_rows;
    return rows - first < model->block_rows ? rows - first : model->block_rows;
}

static void moments_task(void *context, size_t block, size_t worker) {
    const step_context *step = context;
    ct_model *model = step->model;
    const size_t numbers = model->layout.number_count;
    const size_t rows = rows_of_block(model, step->batch->rows, block);
    for (size_t i = 0; i < numbers; i++) {
        const float *raw = ct_column_f32(&step->batch->columns[model->layout.numbers[i].field]) + block * model->block_rows;
        model->block_moments[block * numbers + i] = moments_of(raw, model->scratch[worker].numbers, rows);
    }
}

static void block_task(void *context, size_t block, size_t worker) {
    const step_context *step = context;
    ct_model *model = step->model;
    const model_layout *layout = &model->layout;
    read_scratch *scratch = &model->scratch[worker];
    const size_t first = block * model->block_rows, rows = rows_of_block(model, step->batch->rows, block);
    size_t x_stride = 0, raw_stride = 0;
    const int64_t began = ct_clock_ns();
    float *x = ct_tower_block_x(model->tower, block, &x_stride);
    const ct_ticket *ticket = model->keys[model->side].ticket;
    if (layout->id_count > 0) ct_store_gather(model->store, ticket, first, rows, false, x, x_stride);
    if (model->spec->target_stats) write_target_stats(model, ticket, 0, layout->id_count, first, rows, scratch, x, x_stride);
    write_numbers(model, step->batch, 0, layout->number_count, first, rows, scratch, x, x_stride);
    if (write_similarities(model, step->batch, 0, layout->similarity_count, first, rows, scratch, x, x_stride, &scratch->status) != CT_OK) {
        ct_tower_block_done(model->tower, block);
        return;
    }
    if (layout->vector_count > 0) {
        float *raw = ct_tower_block_raw(model->tower, block, &raw_stride);
        if (write_vectors(model, step->batch, 0, layout->vector_count, first, rows, scratch, raw, raw_stride, &scratch->status) != CT_OK) {
            ct_tower_block_done(model->tower, block);
            return;
        }
    }
    const int64_t gathered = ct_clock_ns();
    float *logits = step->logits + first;
    float *gradients = model->logit_gradients + first;
    ct_tower_block_forward(model->tower, block, rows, logits);
    const int64_t forwarded = ct_clock_ns();
    ct_sigmoid_f32(logits, gradients, rows);
    for (size_t r = 0; r < rows; r++) gradients[r] -= step->labels[first + r];
    if (step->weights != NULL)
        for (size_t r = 0; r < rows; r++) gradients[r] *= step->weights[first + r];
    ct_tower_block_backward(model->tower, block, rows, gradients);
    if (layout->attention) ct_store_attend_back(model->store, ticket, first, rows, x, x_stride);
    ct_tower_block_done(model->tower, block);
    scratch->gather_ns += gathered - began;
    scratch->forward_ns += forwarded - gathered;
    scratch->backward_ns += ct_clock_ns() - forwarded;
}

/* The blocks, the next batch's keys, the weight gradients, which wait for the blocks in order. */
static void pass_task(void *context, size_t task, size_t worker) {
    const step_context *step = context;
    ct_model *model = step->model;
    const size_t blocks = block_count(model, step->batch->rows);
    const int64_t began = ct_clock_ns();
    if (task < blocks) {
        block_task(context, task, worker);
    } else if (task == blocks) {
        keys_sort_next(model, step->next, model->next_epoch);
        model->scratch[worker].sort_ns += ct_clock_ns() - began;
    } else {
        ct_tower_gradient_task(model->tower, task - blocks - 1);
        model->scratch[worker].gradient_ns += ct_clock_ns() - began;
    }
}

/* Adds the time since *since to a part of the profile, and moves *since on. */
static void lap(int64_t *part, int64_t *since) {
    const int64_t now = ct_clock_ns();
    *part += now - *since;
    *since = now;
}

static void update_moments(ct_model *model, const ct_batch *batch, step_context *step) {
    const size_t numbers = model->layout.number_count, blocks = block_count(model, batch->rows);
    if (numbers == 0) return;
    memcpy(model->saved_moments, model->moments, numbers * sizeof *model->moments);
    ct_pool_run(model->pool, blocks, moments_task, step);
    for (size_t block = 0; block < blocks; block++)
        for (size_t i = 0; i < numbers; i++) moments_merge(&model->moments[i], &model->block_moments[block * numbers + i]);
    model_refresh_scales(model);
}

/* Of this batch: rates fall linearly from the first row of the training to 0 at schedule_rows. */
static void set_rates(ct_model *model, uint32_t epoch, int64_t first_row) {
    const ct_model_spec *spec = model->spec;
    const double left = spec->schedule_rows > 0 ? 1 - (double)model->rows / spec->schedule_rows : 1, share = left > 0 ? left : 0;
    ct_tower_set_position(model->tower, epoch, first_row);
    ct_tower_set_learning_rate(model->tower, (float)((double)spec->learning_rate * share));
    ct_store_set_learning_rate(model->store, ID_TABLE, (float)((double)spec->embedding_learning_rate * share));
}

static ct_code first_failure(ct_model *model, ct_status *status) {
    for (size_t worker = 0; worker < ct_pool_threads(model->pool); worker++)
        if (model->scratch[worker].status.code != CT_OK) {
            *status = model->scratch[worker].status;
            return status->code;
        }
    return CT_OK;
}

static void restore_moments(ct_model *model) {
    if (model->layout.number_count == 0) return;
    memcpy(model->moments, model->saved_moments, model->layout.number_count * sizeof *model->moments);
    model_refresh_scales(model);
}

ct_code ct_model_train(ct_model *model, const ct_batch *batch, uint32_t epoch, float *out_logits, ct_status *status) {
    const ct_batch *next = model->next;
    model->next = NULL;
    if (model->mode != CT_MODEL_TRAIN) return ct_fail(status, CT_INVALID, "the model was opened for reading; it can't be trained");
    CT_TRY(batch_check(model, batch, true, status));
    if (batch->rows == 0) return CT_OK;
    const model_layout *layout = &model->layout;
    const int64_t weight = ct_schema_find_kind(model->schema, CT_FIELD_WEIGHT);
    step_context step = {.model = model, .batch = batch, .next = next, .logits = out_logits};
    step.labels = ct_column_f32(&batch->columns[ct_schema_find_kind(model->schema, CT_FIELD_LABEL)]);
    if (weight >= 0 && batch->columns[weight].present) step.weights = ct_column_f32(&batch->columns[weight]);
    int64_t since = ct_clock_ns();
    /* The reader has another table of histories, as large as this one. */
    if (model->histories != NULL)
        ct_store_count_others(model->store, 2 * ct_histories_bytes(model->histories) + ct_histories_saving_bytes(model->histories));
    CT_TRY(keys_look_up(model, batch, epoch, status));
    for (size_t worker = 0; worker < ct_pool_threads(model->pool); worker++) model->scratch[worker].status = (ct_status)CT_STATUS_INIT;
    lap(&model->profile.look_up, &since);
    update_moments(model, batch, &step);
    lap(&model->profile.moments, &since);
    set_rates(model, epoch, batch->first_row);
    ct_tower_gradients_begin(model->tower, batch->rows);
    ct_pool_run(model->pool, block_count(model, batch->rows) + 1 + ct_tower_gradient_tasks(model->tower), pass_task, &step);
    lap(&model->profile.pass_wall, &since);
    ct_code code = first_failure(model, status);
    model->diverged = code == CT_OK && (code = ct_tower_update(model->tower, batch->rows, status)) == CT_INVALID;
    lap(&model->profile.tower_update, &since);
    if (code == CT_OK && layout->id_count > 0) {
        size_t stride = 0;
        const float *gradients = ct_tower_block_x(model->tower, 0, &stride);
        code = ct_store_apply(model->store, model->keys[model->side].ticket, gradients, stride,
                              model->spec->target_stats ? step.labels : NULL, status);
    }
    keys_release(model);
    lap(&model->profile.row_update, &since);
    if (code != CT_OK) {
        restore_moments(model);
        return code;
    }
    model->prior[0] += (double)batch->rows;
    for (size_t r = 0; r < batch->rows; r++) model->prior[1] += (double)step.labels[r];
    model->rows += (int64_t)batch->rows;
    model->step++;
    model->epoch = epoch;
    model->epoch_rows = batch->first_row + (int64_t)batch->rows;
    if (model->histories == NULL) return CT_OK;
    if (batch->first_row == 0) ct_histories_clear(model->histories); /* told anew in each epoch */
    return ct_histories_add(model->histories, batch, status);
}

bool ct_model_diverged(const ct_model *model) { return model->diverged; }

void ct_model_profile_get(const ct_model *model, ct_model_profile *out_profile) {
    *out_profile = model->profile;
    out_profile->disk = ct_store_waited_ns(model->store);
    for (size_t worker = 0; model->scratch != NULL && worker < ct_pool_threads(model->pool); worker++) {
        out_profile->gather += model->scratch[worker].gather_ns;
        out_profile->forward += model->scratch[worker].forward_ns;
        out_profile->backward += model->scratch[worker].backward_ns;
        out_profile->gradient += model->scratch[worker].gradient_ns;
        out_profile->sort += model->scratch[worker].sort_ns;
    }
}

void ct_model_position(const ct_model *model, uint32_t *out_epoch, int64_t *out_epoch_rows) {
    *out_epoch = model->epoch;
    *out_epoch_rows = model->epoch_rows;
}

/* --- scratch --- */

ct_code read_scratch_init(read_scratch *scratch, ct_model *model, ct_status *status) {
    const size_t vectors = model->layout.vector_count;
    scratch->vector_tickets = calloc(vectors + 1, sizeof(ct_ticket *));
    if (scratch->vector_tickets == NULL) return ct_fail_memory(status, vectors * sizeof(ct_ticket *), "vector look-ups");
    for (size_t i = 0; i < vectors; i++) CT_TRY(ct_ticket_create(model->store, &scratch->vector_tickets[i], status));
    return model->layout.similarity_count == 0 ? CT_OK : similarity_scratch_create(model, &scratch->similar, status);
}

void read_scratch_deinit(read_scratch *scratch, const ct_model *model) {
    if (scratch->vector_tickets == NULL) return;
    for (size_t i = 0; i < model->layout.vector_count; i++) ct_ticket_destroy(scratch->vector_tickets[i]);
    free(scratch->vector_tickets);
    scratch->vector_tickets = NULL;
    similarity_scratch_destroy(scratch->similar);
    scratch->similar = NULL;
}

ct_code training_init(ct_model *model, ct_status *status) {
    const size_t threads = ct_pool_threads(model->pool), numbers = model->layout.number_count;
    model->block_rows = ct_tower_block_rows(model->batch_rows);
    const size_t blocks = block_count(model, model->batch_rows);
    model->scratch = calloc(threads, sizeof *model->scratch);
    model->block_moments = calloc(blocks * numbers + 1, sizeof *model->block_moments);
    model->saved_moments = calloc(numbers + 1, sizeof *model->saved_moments);
    model->logit_gradients = calloc(blocks * model->block_rows, sizeof *model->logit_gradients);
    if (model->scratch == NULL || model->block_moments == NULL || model->saved_moments == NULL || model->logit_gradients == NULL)
        return ct_fail_memory(status, blocks * model->block_rows * sizeof(float), "training");
    for (size_t worker = 0; worker < threads; worker++) CT_TRY(read_scratch_init(&model->scratch[worker], model, status));
    /* The store reads the gradients of a whole batch as one matrix: blocks of x must follow each other. */
    if (blocks > 1) {
        size_t stride = 0;
        const float *first = ct_tower_block_x(model->tower, 0, &stride);
        const float *second = ct_tower_block_x(model->tower, 1, &stride);
        if (second != first + model->block_rows * stride)
            return ct_fail(status, CT_INTERNAL, "the tower's blocks do not follow each other");
    }
    return keys_init(model, status);
}

void training_deinit(ct_model *model) {
    if (model->scratch != NULL)
        for (size_t worker = 0; worker < ct_pool_threads(model->pool); worker++) read_scratch_deinit(&model->scratch[worker], model);
    keys_deinit(model);
    free(model->scratch);
    free(model->block_moments);
    free(model->saved_moments);
    free(model->logit_gradients);
}
