/* Inference. Where every context column of a batch is shared (a request), the context is looked up, transformed and multiplied once; the
 * tower's split of the first product makes that exact. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/math.h"
#include "model/model_internal.h"

struct ct_scorer {
    ct_model *model;
    ct_workspace *workspace;
    ct_ticket *ids;
    ct_key_column *key_columns; /* (id_count) */
    uint64_t *bucket_keys;      /* (bucket_count, CT_TOWER_MAX_ROWS) */
    read_scratch scratch;       /* its status: the first failure of ct_scorers_run */
    scorer_counts counts;
};

ct_code ct_scorer_create(ct_model *model, ct_scorer **out_scorer, ct_status *status) {
    ct_scorer *scorer = calloc(1, sizeof *scorer);
    if (scorer == NULL) return ct_fail_memory(status, sizeof *scorer, "a scorer");
    scorer->model = model;
    scorer_counts_init(&scorer->counts);
    ct_code code = CT_OK;
    scorer->key_columns = calloc(model->layout.id_count + 1, sizeof *scorer->key_columns);
    scorer->bucket_keys = calloc(model->layout.bucket_count * CT_TOWER_MAX_ROWS + 1, sizeof *scorer->bucket_keys);
    if (scorer->key_columns == NULL || scorer->bucket_keys == NULL) {
        code = ct_fail_memory(status, model->layout.id_count * sizeof *scorer->key_columns, "a scorer");
        goto fail;
    }
    CT_TRY_GOTO(code, ct_ticket_create(model->store, &scorer->ids, status), fail);
    CT_TRY_GOTO(code, read_scratch_init(&scorer->scratch, model, status), fail);
    CT_TRY_GOTO(code, ct_workspace_create(model->tower, &scorer->workspace, status), fail);
    *out_scorer = scorer;
    return CT_OK;
fail:
    ct_scorer_destroy(scorer);
    return code;
}

void ct_scorer_destroy(ct_scorer *scorer) {
    if (scorer == NULL) return;
    ct_workspace_destroy(scorer->workspace);
    read_scratch_deinit(&scorer->scratch, scorer->model);
    ct_ticket_destroy(scorer->ids);
    free(scorer->key_columns);
    free(scorer->bucket_keys);
    free(scorer);
}

typedef struct feature_range {
    size_t ids[2], vectors[2], numbers[2], similarities[2]; /* first, last */
} feature_range;

static feature_range range_of(const model_layout *layout, bool context, bool candidate) {
    return (feature_range){
        .ids = {context ? 0 : layout->context_ids, candidate ? layout->id_count : layout->context_ids},
        .vectors = {context ? 0 : layout->context_vectors, candidate ? layout->vector_count : layout->context_vectors},
        .numbers = {context ? 0 : layout->context_numbers, candidate ? layout->number_count : layout->context_numbers},
        .similarities = {context ? 0 : layout->context_similarities, candidate ? layout->similarity_count : layout->context_similarities}};
}

static bool all_shared(const ct_model *model, const ct_batch *batch, const feature_range *range) {
    const model_layout *layout = &model->layout;
    for (size_t i = range->ids[0]; i < range->ids[1]; i++)
        if (!batch->columns[layout->ids[i].field].shared) return false;
    for (size_t i = range->vectors[0]; i < range->vectors[1]; i++)
        if (!batch->columns[layout->vectors[i].field].shared) return false;
    for (size_t i = range->numbers[0]; i < range->numbers[1]; i++)
        if (!batch->columns[layout->numbers[i].field].shared) return false;
    for (size_t i = range->similarities[0]; i < range->similarities[1]; i++)
        if (!batch->columns[layout->similarities[i].field].shared || !batch->columns[layout->similarities[i].vector_field].shared)
            return false;
    return true;
}

/* What key_columns say, rows of them at once as memory allows. */
static ct_code write_ids(ct_scorer *scorer, const feature_range *range, size_t rows, float *x, size_t stride, ct_status *status) {
    const ct_model *model = scorer->model;
    ct_lookup lookup = {.mode = CT_LOOKUP_READ,
                        .table = ID_TABLE,
                        .block_rows = CT_TOWER_MAX_ROWS,
                        .columns = scorer->key_columns,
                        .column_count = range->ids[1] - range->ids[0]};
    for (size_t done = 0; done < rows; done += lookup.rows) {
        lookup.rows = rows - done;
        lookup.rows = ct_store_rows_at_once(model->store, &lookup);
        CT_TRY(ct_store_prefetch(model->store, scorer->ids, &lookup, status));
        CT_TRY(ct_store_acquire(model->store, scorer->ids, status));
        ct_store_gather(model->store, scorer->ids, 0, lookup.rows, false, x + done * stride, stride);
        if (model->spec->target_stats)
            write_target_stats(model, scorer->ids, range->ids[0], range->ids[1], 0, lookup.rows, &scorer->scratch, x + done * stride,
                               stride);
        ct_store_release(model->store, scorer->ids);
        skip_rows(scorer->key_columns, lookup.column_count, lookup.rows);
    }
    return CT_OK;
}

static ct_code write_features(ct_scorer *scorer, const ct_batch *batch, const feature_range *range, size_t first_row, size_t rows,
                              ct_status *status) {
    ct_model *model = scorer->model;
    size_t x_stride = 0, raw_stride = 0;
    float *x = ct_workspace_x(scorer->workspace, &x_stride);
    const size_t ids = range->ids[1] - range->ids[0];
    if (ids > 0) {
        write_bucket_keys(model, batch, range->ids[0], range->ids[1], first_row, rows, scorer->bucket_keys, CT_TOWER_MAX_ROWS, 0);
        id_columns(model, batch, range->ids[0], range->ids[1], first_row, scorer->bucket_keys, CT_TOWER_MAX_ROWS, scorer->key_columns);
        CT_TRY(write_ids(scorer, range, rows, x, x_stride, status));
    }
    write_numbers(model, batch, range->numbers[0], range->numbers[1], first_row, rows, &scorer->scratch, x, x_stride);
    CT_TRY(write_similarities(model, batch, range->similarities[0], range->similarities[1], first_row, rows, &scorer->scratch, x, x_stride,
                              status));
    if (range->vectors[1] == range->vectors[0]) return CT_OK;
    float *raw = ct_workspace_raw(scorer->workspace, &raw_stride);
    return write_vectors(model, batch, range->vectors[0], range->vectors[1], first_row, rows, &scorer->scratch, raw, raw_stride, status);
}

/* Nanoseconds since *at, which becomes now. */
static int64_t lap(int64_t *at) {
    const int64_t now = ct_clock_ns(), took = now - *at;
    *at = now;
    return took;
}

/* --- derived columns: one for each id with target statistics --- */

size_t ct_model_derived_count(const ct_model *model) { return model->spec->target_stats ? model->layout.id_count : 0; }

void ct_model_derived_name(const ct_model *model, size_t derived, char *out, size_t out_bytes) {
    const layout_id *id = &model->layout.ids[derived];
    (void)snprintf(out, out_bytes, "%s%s#odds", model->schema->fields[id->field].name, id->bucket == NOT_A_BUCKET ? "" : "#bucket");
}

size_t ct_model_derived_field(const ct_model *model, size_t derived) { return model->layout.ids[derived].field; }

/* Those of the range's ids: row r of what was just written, or, where `shared`, row 0 for all. */
static void read_derived(const ct_scorer *scorer, const feature_range *range, bool shared, size_t rows, float *out, size_t stride) {
    const ct_model *model = scorer->model;
    if (!out || !model->spec->target_stats) return;
    size_t x_stride = 0;
    const float *x = ct_workspace_x(scorer->workspace, &x_stride);
    for (size_t i = range->ids[0]; i < range->ids[1]; i++)
        for (size_t r = 0; r < rows; r++) out[i * stride + r] = x[(shared ? 0 : r) * x_stride + model->layout.ids[i].odds_column];
}

ct_code ct_scorer_run(ct_scorer *scorer, const ct_batch *batch, size_t first_row, size_t rows, float *out_logits, ct_status *status) {
    return ct_scorer_run_derived(scorer, batch, first_row, rows, out_logits, NULL, 0, status);
}

ct_code ct_scorer_run_derived(ct_scorer *scorer, const ct_batch *batch, size_t first_row, size_t rows, float *out_logits,
                              float *out_derived, size_t stride, ct_status *status) {
    ct_model *model = scorer->model;
    CT_TRY(batch_check(model, batch, false, status));
    if (first_row > batch->rows || rows > batch->rows - first_row)
        return ct_fail(status, CT_INVALID, "rows %zu to %zu of a batch of %zu", first_row, first_row + rows, batch->rows);
    const feature_range context = range_of(&model->layout, true, false);
    const bool shared = model->layout.context_width > 0 && all_shared(model, batch, &context);
    int64_t ns[CT_RUN_STAGES] = {0}, at = ct_clock_ns();
    if (shared) {
        CT_TRY(write_features(scorer, batch, &context, 0, 1, status));
        read_derived(scorer, &context, true, rows, out_derived, stride);
        ns[CT_RUN_LOOK_UP] += lap(&at);
        ct_tower_context(model->tower, scorer->workspace);
        ns[CT_RUN_FORWARD] += lap(&at);
    }
    const feature_range own = range_of(&model->layout, !shared, true);
    const size_t outputs = ct_model_output_count(model);
    for (size_t done = 0; done < rows;) {
        const size_t block = rows - done < CT_TOWER_MAX_ROWS ? rows - done : CT_TOWER_MAX_ROWS;
        CT_TRY(write_features(scorer, batch, &own, first_row + done, block, status));
        read_derived(scorer, &own, false, block, out_derived ? out_derived + done : NULL, stride);
        ns[CT_RUN_LOOK_UP] += lap(&at);
        ct_tower_forward(model->tower, scorer->workspace, block, shared, out_logits + done * outputs);
        ns[CT_RUN_FORWARD] += lap(&at);
        scorer_counts_scores(&scorer->counts, out_logits + done * outputs, block, outputs);
        done += block;
    }
    scorer_counts_run(&scorer->counts, ns);
    return CT_OK;
}

void ct_scorer_stats_add(const ct_scorer *scorer, ct_scorer_stats *into) { scorer_counts_read(&scorer->counts, into); }

void ct_probabilities(const float *logits, float *out_probabilities, size_t n) { ct_sigmoid_f32(logits, out_probabilities, n); }

typedef struct scorers_context {
    ct_scorer *const *scorers;
    const ct_batch *batch;
    float *logits;
    size_t outputs;
} scorers_context;

static void score_task(void *context, size_t block, size_t worker) {
    const scorers_context *run = context;
    const size_t first = block * CT_TOWER_MAX_ROWS;
    const size_t left = run->batch->rows - first, rows = left < CT_TOWER_MAX_ROWS ? left : CT_TOWER_MAX_ROWS;
    ct_status *status = &run->scorers[worker]->scratch.status;
    if (status->code != CT_OK) return;
    if (ct_scorer_run(run->scorers[worker], run->batch, first, rows, run->logits + first * run->outputs, status) != CT_OK) return;
}

ct_code ct_scorers_run(ct_scorer *const *scorers, ct_pool *pool, const ct_batch *batch, float *out_logits, ct_status *status) {
    const size_t threads = ct_pool_threads(pool), blocks = (batch->rows + CT_TOWER_MAX_ROWS - 1) / CT_TOWER_MAX_ROWS;
    for (size_t worker = 0; worker < threads; worker++) scorers[worker]->scratch.status.code = CT_OK;
    scorers_context run = {scorers, batch, out_logits, ct_model_output_count(scorers[0]->model)};
    ct_pool_run(pool, blocks, score_task, &run);
    for (size_t worker = 0; worker < threads; worker++)
        if (scorers[worker]->scratch.status.code != CT_OK) {
            *status = scorers[worker]->scratch.status;
            return status->code;
        }
    return CT_OK;
}
