/* What each feature tells alone, over the training rows, before any training: whether it gives the label away, whether training has its
 * values of the test, how many values it has. One task a feature, so nothing depends on threads.
 *
 * A feature's value is a bucket: an id's key (of several values: all of them) or the upper half of a number's bits, hashed into 32,768. A
 * row's score is the smoothed click rate of its bucket in the rows before it, so no row judges itself and values that are all different
 * tell nothing; a number's value is a score of its own, too. The AUC of the better of the two is the feature's. Scores go into 4,096 bins
 * by the upper bits of their pattern, ties in a bin count half.
 *
 * Values that are new in the test: of up to 4,096 test rows at equal distances, those whose value no training row has. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "experiment/compare_internal.h"
#include "experiment/report_internal.h"
#include "experiment/sketch.h"

enum { BUCKETS = 1 << 15, BINS = 1 << 12, SAMPLE = 4096, SLOTS = 2 * SAMPLE, LEAST_ROWS = 1000, LEAST_SAMPLE = 20 };
#define SMOOTHING   2.0 /* rows of the prior */
#define HOLDS_LABEL 0.999
#define IMPLAUSIBLE 0.9
#define NO_VALUE    UINT64_C(0)

typedef struct bin {
    uint64_t non_clicks, clicks;
} bin;

typedef struct slot {
    uint64_t value; /* NO_VALUE = free */
    uint32_t rows;  /* of the sample */
    bool seen;      /* in training */
} slot;

struct compare_feature {
    size_t field;
    bool id;
    double rows, clicks; /* of training so far */
    ct_sketch values;    /* of an id */
    uint64_t sample[SAMPLE];
    slot slots[SLOTS]; /* of the sample's values, once the test is read */
    bin counts[BUCKETS];
    bin by_rate[BINS], by_value[BINS];
};

bool compare_arm_has(const compare_run *run, const arm_run *arm, size_t field) {
    const ct_model_spec *spec = arm->spec;
    const char *name = run->options->schema->fields[field].name;
    bool has = spec->features == NULL;
    for (size_t i = 0; i < spec->feature_count && !has; i++) has = strcmp(spec->features[i], name) == 0;
    for (size_t i = 0; i < spec->exclude_count && has; i++) has = strcmp(spec->exclude[i], name) != 0;
    return has;
}

ct_code features_init(compare_run *run, ct_status *status) {
    const ct_schema *schema = run->options->schema;
    run->features = calloc(schema->field_count + 1, sizeof(compare_feature *));
    if (run->features == NULL) return ct_fail_memory(status, schema->field_count * sizeof(compare_feature *), "the features");
    run->sample_stride = 1;
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        bool used = false;
        if ((field->kind != CT_FIELD_NUMBER && field->kind != CT_FIELD_ID) || field->derived) continue;
        for (size_t a = 0; a < run->arm_count; a++) used = used || compare_arm_has(run, &run->arms[a], f);
        if (!used) continue;
        compare_feature *feature = calloc(1, sizeof *feature);
        if (feature == NULL) return ct_fail_memory(status, sizeof *feature, "a feature");
        feature->field = f;
        feature->id = field->kind == CT_FIELD_ID;
        run->features[run->feature_count++] = feature;
    }
    return CT_OK;
}

void features_deinit(compare_run *run) {
    for (size_t i = 0; i < run->feature_count; i++) free(run->features[i]);
    free(run->features);
}

/* --- the sample of the test --- */

/* A row's value; NO_VALUE where it has none. */
static uint64_t value_of(const compare_feature *feature, const ct_column *column, size_t row) {
    if (!feature->id) {
        const float value = ct_column_f32(column)[row];
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        return isnan(value) ? NO_VALUE : (uint64_t)(bits >> 16) + 1;
    }
    if (column->offsets == NULL) return ct_column_u64(column)[row];
    const size_t first = column->offsets[row], count = column->offsets[row + 1] - first;
    const uint64_t *keys = ct_column_u64(column) + first;
    return count == 0 ? NO_VALUE : count == 1 ? keys[0] : ct_hash64(keys, count * sizeof *keys, 0);
}

void features_take_test(compare_run *run, const ct_batch *batch) {
    for (size_t row = 0; row < batch->rows; row++) {
        if ((run->test.count + row) % run->sample_stride != 0) continue;
        if (run->sample_rows == SAMPLE) { /* every second one stays */
            for (size_t i = 0; i < run->feature_count; i++)
                for (size_t k = 0; k < SAMPLE / 2; k++) run->features[i]->sample[k] = run->features[i]->sample[2 * k];
            run->sample_rows = SAMPLE / 2;
            run->sample_stride *= 2;
            if ((run->test.count + row) % run->sample_stride != 0) continue;
        }
        for (size_t i = 0; i < run->feature_count; i++) {
            compare_feature *feature = run->features[i];
            const ct_column *column = &batch->columns[feature->field];
            feature->sample[run->sample_rows] = column->present ? value_of(feature, column, row) : NO_VALUE;
        }
        run->sample_rows++;
    }
}

static slot *find(compare_feature *feature, uint64_t value) {
    for (size_t at = (size_t)(value * UINT64_C(0x9e3779b97f4a7c15) >> 40);; at++) {
        slot *here = &feature->slots[at % SLOTS];
        if (here->value == value || here->value == NO_VALUE) return here;
    }
}

void features_test_done(compare_run *run) {
    for (size_t i = 0; i < run->feature_count; i++)
        for (size_t k = 0; k < run->sample_rows; k++) {
            const uint64_t value = run->features[i]->sample[k];
            if (value == NO_VALUE) continue;
            slot *here = find(run->features[i], value);
            here->value = value;
            here->rows++;
        }
}

/* --- training rows --- */

/* Bits that order as positive floats do. */
static size_t rate_bin(double rate) {
    const float value = (float)rate;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 18; /* at most 1: below 4,096 */
}

static size_t value_bin(float value) {
    uint32_t bits;
    if (isnan(value)) return 0; /* with what is lowest */
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x80000000u ? ~bits : bits | 0x80000000u) >> 20;
}

static void add(bin *bins, size_t at, bool click) {
    bins[at].clicks += click;
    bins[at].non_clicks += !click;
}

typedef struct take_job {
    compare_run *run;
    const ct_batch *batch;
    const float *labels;
} take_job;

static void take_task(void *context, size_t task, size_t worker) {
    (void)worker;
    const take_job *job = context;
    compare_feature *feature = job->run->features[task];
    const ct_column *column = &job->batch->columns[feature->field];
    if (!column->present) return;
    for (size_t row = 0; row < job->batch->rows; row++) {
        const bool click = job->labels[row] > 0.5f;
        const uint64_t value = value_of(feature, column, row);
        bin *seen = &feature->counts[value * UINT64_C(0x9e3779b97f4a7c15) >> 49];
        const double n = (double)(seen->clicks + seen->non_clicks), prior = (feature->clicks + 0.5) / (feature->rows + 1.0);
        add(feature->by_rate, rate_bin(((double)seen->clicks + SMOOTHING * prior) / (n + SMOOTHING)), click);
        add(seen, 0, click);
        if (!feature->id) add(feature->by_value, value_bin(ct_column_f32(column)[row]), click);
        feature->rows += 1.0;
        feature->clicks += click;
        if (value == NO_VALUE) continue;
        slot *here = find(feature, value);
        if (here->value == value) here->seen = true;
    }
    if (!feature->id) return;
    const size_t keys = column->offsets != NULL ? column->offsets[job->batch->rows] : job->batch->rows;
    for (size_t i = 0; i < keys; i++) ct_sketch_add(&feature->values, ct_column_u64(column)[i]);
}

void features_take_training(compare_run *run, const ct_batch *batch) {
    const float *labels = ct_column_f32(&batch->columns[ct_schema_find_kind(run->options->schema, CT_FIELD_LABEL)]);
    take_job job = {run, batch, labels};
    ct_pool_run(run->options->pool, run->feature_count, take_task, &job);
}

/* --- what came out --- */

static double bins_auc(const bin *bins) {
    double below = 0.0, pairs = 0.0, clicks = 0.0;
    for (size_t i = 0; i < BINS; i++) {
        pairs += (double)bins[i].clicks * (below + (double)bins[i].non_clicks / 2.0);
        below += (double)bins[i].non_clicks;
        clicks += (double)bins[i].clicks;
    }
    return clicks > 0.0 && below > 0.0 ? pairs / (clicks * below) : (double)NAN;
}

/* NaN with one class. */
static double auc_of(const compare_feature *feature) {
    const double rate = bins_auc(feature->by_rate), value = feature->id ? 0.5 : bins_auc(feature->by_value);
    return fmax(rate, fmax(value, 1.0 - value));
}

/* Share of the sampled test rows with a value; NaN where none has one. */
static double new_share_of(const compare_feature *feature, double *out_rows) {
    double rows = 0.0, fresh = 0.0;
    for (size_t i = 0; i < SLOTS; i++) {
        rows += feature->slots[i].rows;
        if (!feature->slots[i].seen) fresh += feature->slots[i].rows;
    }
    *out_rows = rows;
    return rows > 0.0 ? fresh / rows : (double)NAN;
}

double compare_distinct(const compare_run *run, size_t field) {
    for (size_t i = 0; i < run->feature_count; i++)
        if (run->features[i]->field == field && run->features[i]->id) return ct_sketch_count(&run->features[i]->values);
    return 0.0;
}

ct_code features_judge(compare_run *run, ct_status *status) {
    for (size_t i = 0; i < run->feature_count; i++) {
        const compare_feature *feature = run->features[i];
        const char *name = run->options->schema->fields[feature->field].name;
        const double auc = auc_of(feature);
        double sampled = 0.0;
        const double fresh = new_share_of(feature, &sampled);
        if (feature->rows >= LEAST_ROWS && auc >= HOLDS_LABEL)
            return ct_fail(
                status, CT_INVALID,
                "feature '%s' holds the label: alone it predicts the %.0f training rows with an AUC of %.4f; leave it out of every "
                "arm (exclude: [%s]), or give it as it is known before the click",
                name, feature->rows, auc, name);
        if (feature->rows >= LEAST_ROWS && auc >= IMPLAUSIBLE)
            CT_TRY(report_warn(run->warnings, status,
                               "feature '%s' alone predicts the training rows with an AUC of %.4f, which is implausibly well: is it known "
                               "before the click?",
                               name, auc));
        if (feature->id && sampled >= LEAST_SAMPLE && fresh == 1.0)
            CT_TRY(report_warn(run->warnings, status,
                               "feature '%s': all values in the test are new to training (%.0f test rows were looked at), so it can tell "
                               "them nothing",
                               name, sampled));
    }
    return CT_OK;
}

json_t *features_json(const compare_run *run) {
    json_t *features = json_array();
    for (size_t i = 0; i < run->feature_count; i++) {
        const compare_feature *feature = run->features[i];
        double sampled = 0.0;
        const double fresh = new_share_of(feature, &sampled);
        json_array_append_new(features, json_pack("{s:s, s:o, s:o, s:o}", "name", run->options->schema->fields[feature->field].name, "auc",
                                                  ct_json_real(auc_of(feature)), "distinct",
                                                  feature->id ? ct_json_real(round(ct_sketch_count(&feature->values))) : json_null(),
                                                  "new_in_test", feature->id ? ct_json_real(fresh) : json_null()));
    }
    return features;
}
