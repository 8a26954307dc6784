/* Progressive training of one model. The log loss of all rows is summed in the log's order; their AUC is taken over 2^16 bins, so its
 * memory does not grow with the log. Points of the curve are exact over the rows since the last one. */
#include "trainer/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/math.h"

enum { AUC_BINS = 1 << 16, DEFAULT_CURVE_ROWS = 100000, EARLY_CURVE_ROWS = 10000 };

struct ct_trainer {
    ct_model *model;
    int64_t curve_rows; /* 0 = the default: each 10,000 rows of the first 100,000, then each 100,000 */
    int64_t next_point;
    int64_t started_ns;
    int64_t rows;
    double loss, weight, clicks, predicted;
    ct_batch_sums last;
    double seconds_before; /* of earlier parts of the training */
    double *bins;          /* (AUC_BINS, 2): weight of non-clicks and of clicks */
    ct_metrics_collector *window;
    float *logits, *probabilities; /* (capacity) */
    size_t capacity;
    FILE *curve;
    char *curve_text;
    size_t curve_bytes;
};

/* Floats in the order of their value: the upper 16 bits of the ordered pattern. */
static size_t bin_of(float logit) {
    uint32_t bits;
    memcpy(&bits, &logit, sizeof bits);
    bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return bits >> 16;
}

/* Rows at which the next point is due. */
static int64_t next_point(const ct_trainer *trainer, int64_t rows) {
    const int64_t early = rows < DEFAULT_CURVE_ROWS ? EARLY_CURVE_ROWS : DEFAULT_CURVE_ROWS;
    const int64_t each = trainer->curve_rows > 0 ? trainer->curve_rows : early;
    return (rows / each + 1) * each;
}

ct_code ct_trainer_create(ct_model *model, int64_t curve_rows, ct_trainer **out_trainer, ct_status *status) {
    ct_trainer *trainer = calloc(1, sizeof *trainer);
    if (trainer == NULL) return ct_fail_memory(status, sizeof *trainer, "a trainer");
    ct_code code = CT_OK;
    trainer->model = model;
    trainer->curve_rows = curve_rows;
    trainer->next_point = next_point(trainer, ct_model_rows(model));
    trainer->started_ns = ct_clock_ns();
    trainer->capacity = ct_model_batch_rows(model) * ct_model_output_count(model);
    trainer->bins = calloc((size_t)2 * AUC_BINS, sizeof *trainer->bins);
    trainer->logits = calloc(trainer->capacity, sizeof *trainer->logits);
    trainer->probabilities = calloc(trainer->capacity, sizeof *trainer->probabilities);
    trainer->curve = open_memstream(&trainer->curve_text, &trainer->curve_bytes);
    if (trainer->bins == NULL || trainer->logits == NULL || trainer->probabilities == NULL || trainer->curve == NULL ||
        fflush(trainer->curve) != 0) {
        code = ct_fail_memory(status, trainer->capacity * sizeof(float), "a trainer");
        goto fail;
    }
    CT_TRY_GOTO(code, ct_metrics_collector_create(&trainer->window, status), fail);
    *out_trainer = trainer;
    return CT_OK;
fail:
    ct_trainer_destroy(trainer);
    return code;
}

void ct_trainer_destroy(ct_trainer *trainer) {
    if (trainer == NULL) return;
    ct_metrics_collector_destroy(trainer->window);
    if (trainer->curve != NULL) fclose(trainer->curve);
    free(trainer->curve_text);
    free(trainer->bins);
    free(trainer->logits);
    free(trainer->probabilities);
    free(trainer);
}

static double seconds_of(const ct_trainer *trainer) {
    return trainer->seconds_before + (double)(ct_clock_ns() - trainer->started_ns) / 1e9;
}

static ct_code write_point(ct_trainer *trainer, uint32_t epoch, ct_status *status) {
    ct_metrics window;
    CT_TRY(ct_metrics_collector_finish(trainer->window, &window, status));
    ct_metrics_collector_reset(trainer->window);
    json_t *point = json_object();
    CT_TRY(ct_metrics_to_json(&window, false, point, status));
    json_object_set_new(point, "window_rows", json_integer((json_int_t)window.rows));
    json_object_set_new(point, "rows", json_integer((json_int_t)ct_model_rows(trainer->model)));
    json_object_set_new(point, "epoch", json_integer((json_int_t)epoch));
    json_object_set_new(point, "seconds", json_real(seconds_of(trainer)));
    char *text = json_dumps(point, JSON_COMPACT);
    json_decref(point);
    if (text == NULL) return ct_fail_memory(status, 1024, "a point of the curve");
    const bool written = fprintf(trainer->curve, "%s\n", text) > 0 && fflush(trainer->curve) == 0;
    free(text);
    return written ? CT_OK : ct_fail_memory(status, trainer->curve_bytes, "the curve");
}

ct_code ct_trainer_batch(ct_trainer *trainer, const ct_batch *batch, uint32_t epoch, ct_status *status) {
    if (batch->rows == 0) return CT_OK;
    CT_TRY(ct_model_train(trainer->model, batch, epoch, trainer->logits, status));
    const ct_schema *schema = ct_model_schema(trainer->model);
    const float *labels = ct_column_f32(&batch->columns[ct_schema_find_kind(schema, CT_FIELD_LABEL)]);
    const int64_t weight_field = ct_schema_find_kind(schema, CT_FIELD_WEIGHT);
    const float *weights = weight_field >= 0 && batch->columns[weight_field].present ? ct_column_f32(&batch->columns[weight_field]) : NULL;
    ct_probabilities(trainer->logits, trainer->probabilities, batch->rows);
    trainer->last = (ct_batch_sums){0};
    for (size_t r = 0; r < batch->rows; r++) {
        const double w = weights == NULL ? 1 : (double)weights[r], z = (double)trainer->logits[r], y = (double)labels[r];
        trainer->last.loss += w * (ct_softplus(z) - y * z);
        trainer->last.weight += w;
        trainer->last.clicks += w * y;
        trainer->predicted += w * (double)trainer->probabilities[r];
        trainer->bins[2 * bin_of(trainer->logits[r]) + (labels[r] > 0.5f ? 1 : 0)] += w;
    }
    trainer->loss += trainer->last.loss;
    trainer->weight += trainer->last.weight;
    trainer->clicks += trainer->last.clicks;
    trainer->rows += (int64_t)batch->rows;
    CT_TRY(ct_metrics_collector_add(trainer->window, trainer->logits, labels, weights, NULL, batch->rows, status));
    if (ct_model_rows(trainer->model) < trainer->next_point) return CT_OK;
    trainer->next_point = next_point(trainer, ct_model_rows(trainer->model));
    return write_point(trainer, epoch, status);
}

ct_code ct_trainer_progressive(const ct_trainer *trainer, ct_metrics *out_metrics, ct_status *status) {
    (void)status;
    if (trainer->rows == 0) { /* a resumed run that found nothing new */
        const double none = (double)NAN;
        *out_metrics = (ct_metrics){
            .auc = none, .log_loss = none, .normalized_entropy = none, .calibration = none, .mean_prediction = none, .grouped_auc = none};
        return CT_OK;
    }
    double below = 0, pairs = 0, non_clicks = 0, clicks = 0;
    for (size_t bin = 0; bin < AUC_BINS; bin++) {
        const double n = trainer->bins[2 * bin], p = trainer->bins[2 * bin + 1];
        pairs += p * (below + n / 2);
        below += n;
        non_clicks += n;
        clicks += p;
    }
    const double rate = trainer->clicks / trainer->weight;
    const double constant = rate > 0 && rate < 1 ? -rate * ct_log(rate) - (1 - rate) * ct_log(1 - rate) : (double)NAN;
    const double log_loss = trainer->loss / trainer->weight;
    *out_metrics = (ct_metrics){.rows = trainer->rows,
                                .weight = trainer->weight,
                                .clicks = trainer->clicks,
                                .auc = clicks > 0 && non_clicks > 0 ? pairs / (clicks * non_clicks) : (double)NAN,
                                .log_loss = log_loss,
                                .normalized_entropy = log_loss / constant,
                                .calibration = trainer->clicks > 0 ? trainer->predicted / trainer->clicks : (double)NAN,
                                .mean_prediction = trainer->predicted / trainer->weight,
                                .grouped_auc = (double)NAN};
    return CT_OK;
}

ct_batch_sums ct_trainer_last_sums(const ct_trainer *trainer) { return trainer->last; }
const float *ct_trainer_last_logits(const ct_trainer *trainer) { return trainer->logits; }

ct_code ct_trainer_state(const ct_trainer *trainer, json_t **out_state, ct_status *status) {
    json_t *bins = json_array();
    for (size_t bin = 0; bin < AUC_BINS; bin++) {
        const double n = trainer->bins[2 * bin], p = trainer->bins[2 * bin + 1];
        if (n != 0 || p != 0) json_array_append_new(bins, json_pack("[I, f, f]", (json_int_t)bin, n, p));
    }
    json_t *state = json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "rows", (json_int_t)trainer->rows, "loss", trainer->loss, "weight",
                              trainer->weight, "clicks", trainer->clicks, "predicted", trainer->predicted, "seconds", seconds_of(trainer),
                              "bins", bins);
    if (state == NULL) return ct_fail_memory(status, 4096, "the trainer's state");
    *out_state = state;
    return CT_OK;
}

ct_code ct_trainer_take_up(ct_trainer *trainer, const json_t *state, const char *path, const char *curve, ct_status *status) {
    json_t *bins = NULL;
    CT_TRY(ct_json_get_range(state, "rows", path, 0, INT64_MAX, &trainer->rows, status));
    CT_TRY(ct_json_get_f64(state, "loss", path, &trainer->loss, status));
    CT_TRY(ct_json_get_f64(state, "weight", path, &trainer->weight, status));
    CT_TRY(ct_json_get_f64(state, "clicks", path, &trainer->clicks, status));
    CT_TRY(ct_json_get_f64(state, "predicted", path, &trainer->predicted, status));
    CT_TRY(ct_json_get_f64(state, "seconds", path, &trainer->seconds_before, status));
    CT_TRY(ct_json_get_array(state, "bins", path, &bins, status));
    for (size_t i = 0; i < json_array_size(bins); i++) {
        json_int_t bin = -1;
        double n = 0, p = 0;
        if (json_unpack(json_array_get(bins, i), "[I, F, F]", &bin, &n, &p) != 0 || bin < 0 || bin >= AUC_BINS)
            return ct_fail(status, CT_CORRUPT, "%s: bins[%zu] is not [bin, weight of non-clicks, weight of clicks]", path, i);
        trainer->bins[2 * bin] = n;
        trainer->bins[2 * bin + 1] = p;
    }
    if (fputs(curve, trainer->curve) < 0 || fflush(trainer->curve) != 0) return ct_fail_memory(status, strlen(curve), "the curve");
    return CT_OK;
}

const char *ct_trainer_curve(const ct_trainer *trainer) { return trainer->curve_text; }
