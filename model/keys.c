/* The keys of training batches. Sorting them and finding the distinct ones does not touch the table, so it is done for the next batch,
 * where the caller says which it is, in a task beside the blocks of the batch at work. Results don't depend on it. Finding and making the
 * rows needs the previous batch's rows to be updated, so it waits for its batch. */
#include <stdlib.h>

#include "model/model_internal.h"

typedef struct bucket_work {
    const ct_model *model;
    const ct_batch *batch;
    uint64_t *buckets;
} bucket_work;

static void bucket_task(void *context, size_t block, size_t worker) {
    (void)worker;
    const bucket_work *work = context;
    const ct_model *model = work->model;
    const size_t first = block * model->block_rows, left = work->batch->rows - first;
    write_bucket_keys(model, work->batch, 0, model->layout.id_count, first, left < model->block_rows ? left : model->block_rows,
                      work->buckets, model->batch_rows, first);
}

static int by_time(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Days since 1970. */
static uint32_t day_of(int64_t time_ms) {
    enum { DAY_MS = 86400000 };
    const int64_t day = time_ms / DAY_MS;
    return time_ms < 0 ? 0 : day >= UINT32_MAX ? UINT32_MAX - 1 : (uint32_t)day;
}

/* The day of the batch's middle row, in the order of time: a few wrong times don't matter. */
static uint32_t middle_day(const ct_model *model, const ct_batch *batch, int64_t *scratch) {
    if (model->spec->expire_days == 0) return 0;
    const int64_t *times = ct_column_i64(&batch->columns[ct_schema_find_kind(model->schema, CT_FIELD_TIME)]);
    bool one_day = true;
    for (size_t r = 0; r < batch->rows; r++) {
        scratch[r] = times[r];
        one_day &= day_of(times[r]) == day_of(times[0]);
    }
    if (!one_day) qsort(scratch, batch->rows, sizeof *scratch, by_time);
    return day_of(scratch[batch->rows / 2]);
}

/* alone: on the calling thread, which may be in a task. */
static ct_code sort(ct_model *model, batch_keys *keys, const ct_batch *batch, uint32_t epoch, bool alone, ct_status *status) {
    const model_layout *layout = &model->layout;
    bucket_work work = {.model = model, .batch = batch, .buckets = keys->buckets};
    const size_t blocks = layout->bucket_count > 0 ? (batch->rows + model->block_rows - 1) / model->block_rows : 0;
    if (alone) {
        for (size_t block = 0; block < blocks; block++) bucket_task(&work, block, 0);
    } else {
        ct_pool_run(model->pool, blocks, bucket_task, &work);
    }
    id_columns(model, batch, 0, layout->id_count, 0, keys->buckets, model->batch_rows, keys->columns);
    const ct_lookup lookup = {.mode = CT_LOOKUP_TRAIN,
                              .table = ID_TABLE,
                              .rows = batch->rows,
                              .block_rows = model->block_rows,
                              .columns = keys->columns,
                              .column_count = layout->id_count,
                              .drop_rate = model->spec->id_drop,
                              .drop_seed = model->seed,
                              .epoch = epoch,
                              .first_row = batch->first_row,
                              .day = middle_day(model, batch, keys->times),
                              .alone = alone};
    return ct_store_prefetch(model->store, keys->ticket, &lookup, status);
}

static void drop_sorted(ct_model *model) {
    if (model->sorted.batch == NULL) return;
    ct_store_release(model->store, model->keys[1 - model->side].ticket);
    model->sorted = (sorted_batch){0};
}

void ct_model_look_ahead(ct_model *model, const ct_batch *next, uint32_t epoch) {
    model->next = next;
    model->next_epoch = epoch;
    if (next == NULL && model->mode == CT_MODEL_TRAIN) drop_sorted(model);
}

ct_code keys_look_up(ct_model *model, const ct_batch *batch, uint32_t epoch, ct_status *status) {
    if (model->layout.id_count == 0) return CT_OK;
    const sorted_batch *sorted = &model->sorted;
    if (sorted->batch == batch && sorted->first_row == batch->first_row && sorted->rows == batch->rows && sorted->epoch == epoch) {
        model->side = 1 - model->side;
        model->sorted = (sorted_batch){0};
    } else {
        drop_sorted(model);
        CT_TRY(sort(model, &model->keys[model->side], batch, epoch, false, status));
    }
    return ct_store_acquire(model->store, model->keys[model->side].ticket, status);
}

void keys_sort_next(ct_model *model, const ct_batch *next, uint32_t epoch) {
    if (next == NULL || next->rows == 0 || model->layout.id_count == 0) return;
    /* A failure is left to the batch's own look-up, which meets it again. */
    ct_status ignored = CT_STATUS_INIT;
    if (batch_check(model, next, true, &ignored) != CT_OK) return;
    if (sort(model, &model->keys[1 - model->side], next, epoch, true, &ignored) != CT_OK) return;
    model->sorted = (sorted_batch){.batch = next, .first_row = next->first_row, .rows = next->rows, .epoch = epoch};
}

void keys_release(ct_model *model) {
    if (model->layout.id_count > 0) ct_store_release(model->store, model->keys[model->side].ticket);
}

ct_code keys_init(ct_model *model, ct_status *status) {
    const model_layout *layout = &model->layout;
    for (size_t i = 0; i < 2; i++) {
        batch_keys *keys = &model->keys[i];
        keys->columns = calloc(layout->id_count + 1, sizeof *keys->columns);
        keys->buckets = calloc(layout->bucket_count * model->batch_rows + 1, sizeof *keys->buckets);
        keys->times = calloc(model->batch_rows, sizeof *keys->times);
        if (keys->columns == NULL || keys->buckets == NULL || keys->times == NULL)
            return ct_fail_memory(status, layout->bucket_count * model->batch_rows * sizeof *keys->buckets, "a batch's keys");
        CT_TRY(ct_ticket_create(model->store, &keys->ticket, status));
    }
    return CT_OK;
}

void keys_deinit(ct_model *model) {
    for (size_t i = 0; i < 2; i++) {
        ct_ticket_destroy(model->keys[i].ticket);
        free(model->keys[i].columns);
        free(model->keys[i].buckets);
        free(model->keys[i].times);
    }
}
