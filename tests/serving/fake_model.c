#include "tests/serving/fake_model.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "model/scorer_stats.h"

struct ct_model {
    const ct_schema *schema;
    bool *used;
    size_t outputs;
    ct_model_spec spec;
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool held;
    size_t rows, runs, running, most;
    size_t run_rows[64];
    unsigned version;
    bool derives;
    size_t derived_field;
};

struct ct_scorer {
    ct_model *model;
};

ct_model *fake_model_create(const ct_schema *schema, const bool *used, size_t outputs) {
    ct_model *model = calloc(1, sizeof *model);
    model->schema = schema;
    model->used = malloc(schema->field_count * sizeof *used);
    memcpy(model->used, used, schema->field_count * sizeof *used);
    model->outputs = outputs;
    (void)pthread_mutex_init(&model->lock, NULL);
    (void)pthread_cond_init(&model->change, NULL);
    return model;
}

void ct_model_destroy(ct_model *model) {
    if (!model) return;
    (void)pthread_mutex_destroy(&model->lock);
    (void)pthread_cond_destroy(&model->change);
    free(model->used);
    free(model);
}

static uint64_t mix(uint64_t state, uint64_t value) { return (state ^ value) * UINT64_C(0x9e3779b97f4a7c15) + (state >> 29); }

void fake_model_logits(const ct_model *model, const ct_batch *batch, size_t row, float *out_logits) {
    uint64_t state = 1 + model->version;
    for (size_t f = 0; f < model->schema->field_count; f++) {
        if (!model->used[f]) continue;
        const ct_column *c = &batch->columns[f];
        const size_t at = c->shared ? 0 : row;
        const size_t begin = c->offsets ? c->offsets[at] : at, end = c->offsets ? c->offsets[at + 1] : at + 1;
        state = mix(state, end - begin);
        for (size_t i = begin; i < end; i++) {
            uint64_t bits = 0;
            if (c->type == CT_TYPE_F32) {
                const float value = ct_column_f32(c)[i];
                if (isnan(value))
                    bits = UINT64_MAX;
                else
                    memcpy(&bits, &value, 4);
            } else {
                bits = ct_column_u64(c)[i];
            }
            state = mix(state, bits);
        }
    }
    for (size_t o = 0; o < model->outputs; o++) {
        state = mix(state, o);
        out_logits[o] = (float)(state >> 40) * 0x1p-21f - 4.0f;
    }
}

size_t fake_model_rows(ct_model *model) {
    (void)pthread_mutex_lock(&model->lock);
    const size_t rows = model->rows;
    (void)pthread_mutex_unlock(&model->lock);
    return rows;
}

size_t fake_model_runs(ct_model *model) {
    (void)pthread_mutex_lock(&model->lock);
    const size_t runs = model->runs;
    (void)pthread_mutex_unlock(&model->lock);
    return runs;
}

size_t fake_model_run_rows(ct_model *model, size_t run) {
    (void)pthread_mutex_lock(&model->lock);
    const size_t rows = model->run_rows[run];
    (void)pthread_mutex_unlock(&model->lock);
    return rows;
}

void fake_model_set_version(ct_model *model, unsigned version) { model->version = version; }

size_t fake_model_threads(ct_model *model) {
    (void)pthread_mutex_lock(&model->lock);
    const size_t most = model->most;
    (void)pthread_mutex_unlock(&model->lock);
    return most;
}

void fake_model_hold(ct_model *model, bool held) {
    (void)pthread_mutex_lock(&model->lock);
    model->held = held;
    (void)pthread_cond_broadcast(&model->change);
    (void)pthread_mutex_unlock(&model->lock);
}

void fake_model_wait_runs(ct_model *model, size_t runs) {
    (void)pthread_mutex_lock(&model->lock);
    while (model->runs < runs) (void)pthread_cond_wait(&model->change, &model->lock);
    (void)pthread_mutex_unlock(&model->lock);
}

ct_code ct_scorer_create(ct_model *model, ct_scorer **out_scorer, ct_status *status) {
    (void)status;
    *out_scorer = calloc(1, sizeof **out_scorer);
    (*out_scorer)->model = model;
    return CT_OK;
}

void ct_scorer_destroy(ct_scorer *scorer) { free(scorer); }

void fake_model_derive(ct_model *model, size_t field) {
    model->derives = true;
    model->derived_field = field;
}
size_t ct_model_derived_count(const ct_model *model) { return model->derives ? 1 : 0; }
size_t ct_model_derived_field(const ct_model *model, size_t derived) { return model->derived_field + derived; }
void ct_model_derived_name(const ct_model *model, size_t derived, char *out, size_t out_bytes) {
    (void)snprintf(out, out_bytes, "%s#odds", model->schema->fields[model->derived_field + derived].name);
}

ct_code ct_scorer_run(ct_scorer *scorer, const ct_batch *batch, size_t first_row, size_t rows, float *out_logits, ct_status *status) {
    return ct_scorer_run_derived(scorer, batch, first_row, rows, out_logits, NULL, 0, status);
}

ct_code ct_scorer_run_derived(ct_scorer *scorer, const ct_batch *batch, size_t first_row, size_t rows, float *out_logits,
                              float *out_derived, size_t stride, ct_status *status) {
    (void)status;
    (void)stride;
    ct_model *model = scorer->model;
    (void)pthread_mutex_lock(&model->lock);
    if (model->runs < 64) model->run_rows[model->runs] = rows;
    model->runs++;
    model->running++;
    if (model->running > model->most) model->most = model->running;
    (void)pthread_cond_broadcast(&model->change);
    while (model->held) (void)pthread_cond_wait(&model->change, &model->lock);
    model->rows += rows;
    (void)pthread_mutex_unlock(&model->lock);
    for (size_t r = 0; r < rows; r++) {
        fake_model_logits(model, batch, first_row + r, out_logits + r * model->outputs);
        if (out_derived) out_derived[r] = out_logits[r * model->outputs] + 1.0f;
    }
    (void)pthread_mutex_lock(&model->lock);
    model->running--;
    (void)pthread_mutex_unlock(&model->lock);
    return CT_OK;
}

void ct_probabilities(const float *logits, float *out_probabilities, size_t n) { ct_sigmoid_f32(logits, out_probabilities, n); }

ct_code ct_model_digest(ct_model *model, char out_hex[CT_DIGEST_HEX_BYTES], ct_status *status) {
    (void)status;
    memset(out_hex, 'f', CT_DIGEST_HEX_BYTES - 1);
    if (model->version) out_hex[CT_DIGEST_HEX_BYTES - 2] = (char)('0' + model->version);
    out_hex[CT_DIGEST_HEX_BYTES - 1] = '\0';
    return CT_OK;
}

const ct_schema *ct_model_schema(const ct_model *model) { return model->schema; }
const ct_model_spec *ct_model_spec_of(const ct_model *model) { return &model->spec; }
int64_t ct_model_rows(const ct_model *model) { return model ? 1234 : 0; }
int64_t ct_model_step(const ct_model *model) { return model ? 5 : 0; }
int64_t ct_model_created_ms(const ct_model *model) { return model ? 1700000000123 : 0; }
bool ct_model_is_early(const ct_model *model) { return model == NULL; }
const char *ct_model_instruction_set(const ct_model *model) { return model ? "fake" : ""; }
ct_precision ct_model_precision(const ct_model *model) { return model ? CT_PRECISION_BF16 : CT_PRECISION_FP32; }
size_t ct_model_output_count(const ct_model *model) { return model->outputs; }
const char *ct_model_output_name(const ct_model *model, size_t output) { return model && output ? "second" : "click"; }
ct_histories *ct_model_histories(const ct_model *model) {
    (void)model;
    return NULL;
}
bool ct_model_uses_field(const ct_model *model, size_t field) { return model->used[field]; }
const char *ct_architecture_name(ct_architecture architecture) { return architecture == CT_ARCHITECTURE_LR ? "lr" : "?"; }
const char *ct_tower_instruction_set(void) { return "none"; }

/* The admin port also asks for these. */
void ct_scorer_stats_add(const ct_scorer *scorer, ct_scorer_stats *into) { into->runs += scorer != NULL; }
size_t ct_model_table_count(const ct_model *model) { return model ? 1 : 0; }
void ct_model_table_get(const ct_model *model, size_t table, ct_model_table *out_table) {
    *out_table = (ct_model_table){.name = "ids \"all\"\\\n", .rows = model && table == 0 ? 7 : 0, .bytes = 8, .found = 9, .unknown = 1};
}
