/* Drift: how far what was shown is from what the model was trained on, by feature, as the population stability index (Siddiqi, "Credit
 * Risk Scorecards", 2006; twice the symmetric mean of both Kullback-Leibler divergences):
 *
 *     PSI = sum over bins of (s - t) log(s / t), s and t the bin's shares of what was served and of training
 *
 * A number has a bin for "missing" and up to 10 of equal training rows; both sides are counted by the value's upper bits (16 steps for each
 * power of two), of which bins are put together in the end. An id has 32 bins by its key's hash and one for "no value": all its values are
 * in one of them, so a shift in the frequent ones shows, whatever there are of others, and memory does not depend on how many there are.
 * Half a row is added to each bin.
 *
 * Without any drift the index of B bins from n and m rows is (1 / n + 1 / m) times a chi-square of B - 1 degrees (Yurdakul, Naranjo,
 * "Statistical properties of the population stability index", Journal of Risk Model Validation, 2020), whose mean is `expected`.
 * Impressions of one request share its context, so chance gives a context's features somewhat more. What goes beyond it is told: below 0.1
 * "stable", below 0.25 "shifted", else "strongly shifted" (Siddiqi's steps).
 *
 * `unseen`: the share of an id's served values that training never had, at least: training's keys are bits of a table of 2^22, so one that
 * shares its bit is taken for seen. */
#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "data/reader.h"
#include "experiment/live_report_internal.h"

enum { BATCH_ROWS = 1024, ID_BINS = 32, FINE_SHIFT = 19, FINE_BINS = 1 << (32 - FINE_SHIFT), NUMBER_BINS = 10, SEEN_BITS = 22 };
enum { TRAINING, SERVED, SIDES };
#define SHIFTED          0.1
#define STRONGLY_SHIFTED 0.25

typedef struct drift_field {
    double *bins[SIDES];   /* number: (FINE_BINS); id: (ID_BINS) */
    double missing[SIDES]; /* rows without a value */
    double rows[SIDES];    /* with those */
    uint64_t *seen;        /* id: (2^SEEN_BITS bits) */
    double unseen, values; /* id: of what was served */
} drift_field;

struct live_drift {
    const ct_schema *schema;
    drift_field *fields; /* (field_count); bins NULL: no feature with a drift */
    live_rows *rows;
    ct_batch *batch;
    double served;
};

ct_code live_drift_create(const ct_schema *schema, live_drift **out_drift, ct_status *status) {
    ct_code code;
    live_drift *drift = calloc(1, sizeof *drift);
    if (drift == NULL) return ct_fail_memory(status, sizeof *drift, "the drift");
    drift->schema = schema;
    drift->fields = calloc(schema->field_count + 1, sizeof *drift->fields);
    for (size_t f = 0; drift->fields != NULL && f < schema->field_count; f++) {
        drift_field *field = &drift->fields[f];
        if (!live_is_feature(&schema->fields[f])) continue;
        const bool id = schema->fields[f].kind == CT_FIELD_ID;
        for (int side = 0; side < SIDES; side++) field->bins[side] = calloc(id ? ID_BINS : FINE_BINS, sizeof(double));
        if (id) field->seen = calloc((1u << SEEN_BITS) / 64, sizeof *field->seen);
        if (field->bins[TRAINING] == NULL || field->bins[SERVED] == NULL || (id && field->seen == NULL)) {
            code = ct_fail_memory(status, (1u << SEEN_BITS) / 8, "the drift");
            goto fail;
        }
    }
    if (drift->fields == NULL) {
        code = ct_fail_memory(status, schema->field_count * sizeof *drift->fields, "the drift");
        goto fail;
    }
    CT_TRY_GOTO(code, live_rows_create(schema, &drift->rows, status), fail);
    CT_TRY_GOTO(code, ct_batch_create(schema, BATCH_ROWS, &drift->batch, status), fail);
    *out_drift = drift;
    return CT_OK;
fail:
    live_drift_destroy(drift);
    return code;
}

void live_drift_destroy(live_drift *drift) {
    if (drift == NULL) return;
    for (size_t f = 0; drift->fields != NULL && f < drift->schema->field_count; f++) {
        free(drift->fields[f].bins[TRAINING]);
        free(drift->fields[f].bins[SERVED]);
        free(drift->fields[f].seen);
    }
    free(drift->fields);
    live_rows_destroy(drift->rows);
    ct_batch_destroy(drift->batch);
    free(drift);
}

static size_t seen_bit(uint64_t key) { return (size_t)(key >> (64 - SEEN_BITS)); }

static void count_keys(drift_field *field, int side, const uint64_t *keys, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t *word = &field->seen[seen_bit(keys[i]) / 64];
        const uint64_t bit = UINT64_C(1) << (seen_bit(keys[i]) % 64);
        field->bins[side][keys[i] % ID_BINS] += 1.0;
        if (side == TRAINING) {
            *word |= bit;
        } else {
            field->values += 1.0;
            field->unseen += (*word & bit) == 0;
        }
    }
}

static void count_batch(live_drift *drift, int side, const ct_batch *batch) {
    for (size_t f = 0; f < drift->schema->field_count; f++) {
        drift_field *field = &drift->fields[f];
        const ct_column *column = &batch->columns[f];
        if (field->bins[side] == NULL || !column->present) continue;
        field->rows[side] += (double)batch->rows;
        if (column->type == CT_TYPE_F32) {
            for (size_t r = 0; r < batch->rows; r++) {
                const float value = ct_column_f32(column)[r];
                if (isnan(value))
                    field->missing[side] += 1.0;
                else
                    field->bins[side][ct_score_key(value) >> FINE_SHIFT] += 1.0;
            }
            continue;
        }
        for (size_t r = 0; column->offsets != NULL && r < batch->rows; r++)
            field->missing[side] += column->offsets[r] == column->offsets[r + 1];
        count_keys(field, side, ct_column_u64(column), column->offsets != NULL ? column->offsets[batch->rows] : batch->rows);
    }
}

ct_code live_drift_add(live_drift *drift, const live_exposure *exposure, const live_shown *shown, size_t count, ct_status *status) {
    if (count > 0) CT_TRY(live_rows_take(drift->rows, exposure, status));
    for (size_t i = 0; i < count; i++) {
        CT_TRY(live_rows_add(drift->rows, &shown[i], drift->batch, status));
        drift->served += 1.0;
        if (drift->batch->rows < BATCH_ROWS) continue;
        count_batch(drift, SERVED, drift->batch);
        drift->batch->rows = 0;
    }
    return CT_OK;
}

ct_code live_drift_train(live_drift *drift, const char *const *sources, size_t count, const atomic_bool *stop, json_t *warnings,
                         ct_status *status) {
    ct_reader_options reading = CT_READER_OPTIONS_INIT;
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_read_report report;
    ct_code code;
    reading.sources = sources;
    reading.source_count = count;
    reading.stop = stop;
    CT_TRY(ct_reader_open(drift->schema, &reading, &reader, status));
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        count_batch(drift, TRAINING, batch);
        ct_reader_release(reader, batch);
    }
    ct_reader_report(reader, &report);
    ct_reader_close(reader);
    if (code != CT_END) return code;
    if (report.bad_total > 0)
        return report_warn(warnings, status, "training: bad rows left out: %lld; the first: %s", (long long)report.bad_total,
                           report.first_bad[0]);
    return CT_OK;
}

/* --- the index --- */

typedef struct psi_sum {
    double psi, rows[SIDES]; /* values in all, with half a one for each bin */
    int bins;
} psi_sum;

static void psi_add(psi_sum *sum, double training, double served) {
    const double t = (training + 0.5) / sum->rows[TRAINING], s = (served + 0.5) / sum->rows[SERVED];
    sum->psi += (s - t) * log(s / t);
}

static double total(const double *bins, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) sum += bins[i];
    return sum;
}

/* Where the fine bins of a number are put together: out_end (NUMBER_BINS), the last is FINE_BINS; returns how many there are. */
static int merge_bins(const double *training, size_t out_end[NUMBER_BINS]) {
    const double all = total(training, FINE_BINS);
    double below = 0.0;
    int bins = 0;
    for (size_t i = 0; i < FINE_BINS && bins < NUMBER_BINS - 1; i++) {
        if (training[i] > 0.0 && below > 0.0 && below + training[i] / 2.0 > all * (bins + 1) / NUMBER_BINS) out_end[bins++] = i;
        below += training[i];
    }
    out_end[bins++] = FINE_BINS;
    return bins;
}

static psi_sum psi_of(const drift_field *field, bool id) {
    size_t end[NUMBER_BINS];
    psi_sum sum = {.bins = 1 + (id ? ID_BINS : merge_bins(field->bins[TRAINING], end))};
    for (int side = 0; side < SIDES; side++)
        sum.rows[side] = total(field->bins[side], id ? ID_BINS : FINE_BINS) + field->missing[side] + 0.5 * sum.bins;
    psi_add(&sum, field->missing[TRAINING], field->missing[SERVED]);
    for (int bin = 0; bin + 1 < sum.bins; bin++) {
        const size_t first = id ? (size_t)bin : bin > 0 ? end[bin - 1] : 0, last = id ? first + 1 : end[bin];
        psi_add(&sum, total(field->bins[TRAINING] + first, last - first), total(field->bins[SERVED] + first, last - first));
    }
    return sum;
}

static double beyond_of(const json_t *json) { return number(json, "psi") - number(json, "expected"); }

/* The features with the most drift first. */
static ct_code field_json(const live_drift *drift, size_t f, json_t *to, json_t *warnings, ct_status *status) {
    const drift_field *field = &drift->fields[f];
    const char *name = drift->schema->fields[f].name;
    const bool id = drift->schema->fields[f].kind == CT_FIELD_ID;
    if (live_rows_missing(drift->rows, f) == (int64_t)drift->served || !(field->rows[TRAINING] > 0.0))
        return report_warn(warnings, status, "drift: '%s' is not in the %s", name,
                           field->rows[TRAINING] > 0.0 ? "requests" : "training rows");
    const psi_sum sum = psi_of(field, id);
    const double expected = (sum.bins - 1) * (1.0 / sum.rows[TRAINING] + 1.0 / sum.rows[SERVED]);
    const double beyond = sum.psi - expected, unseen = field->values > 0.0 ? field->unseen / field->values : (double)NAN;
    const char *verdict = beyond < SHIFTED ? "stable" : beyond < STRONGLY_SHIFTED ? "shifted" : "strongly shifted";
    json_t *json = json_pack("{s:s, s:s, s:f, s:f, s:o, s:{s:f, s:f}, s:s}", "feature", name, "by", id ? "hash" : "quantile", "psi",
                             sum.psi, "expected", expected, "unseen", ct_json_real(unseen), "missing", "training",
                             field->missing[TRAINING] / field->rows[TRAINING], "served", field->missing[SERVED] / field->rows[SERVED],
                             "verdict", verdict);
    size_t at = 0;
    while (at < json_array_size(to) && beyond_of(json_array_get(to, at)) >= beyond) at++;
    if (json_array_insert_new(to, at, json) != 0) return ct_fail_memory(status, 256, "the drift");
    if (beyond >= STRONGLY_SHIFTED)
        return report_warn(warnings, status, "drift: '%s' as it was served is far from training (index %.2f)", name, sum.psi);
    return CT_OK;
}

ct_code live_drift_json(live_drift *drift, json_t *warnings, json_t **out_json, ct_status *status) {
    json_t *fields = json_array();
    count_batch(drift, SERVED, drift->batch); /* the last, shorter one */
    drift->batch->rows = 0;
    for (size_t f = 0; f < drift->schema->field_count; f++) {
        if (drift->fields[f].bins[TRAINING] == NULL) continue;
        const ct_code code = field_json(drift, f, fields, warnings, status);
        if (code != CT_OK) {
            json_decref(fields);
            return code;
        }
    }
    *out_json = fields;
    return CT_OK;
}
