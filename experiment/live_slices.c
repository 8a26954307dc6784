/* The metric that decides, by slices of features as they were served.
 *
 * A text or integer: a slice for each of the 10 values with the most impressions, and one for all others. A number: 4 slices of equal
 * impressions. Impressions without a value are a slice. A unit's impressions in a slice are its part of it; units without any don't count
 * there. Each feature's intervals share alpha evenly. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "experiment/counts.h"
#include "experiment/live_report_internal.h"
#include "experiment/statistics.h"

enum { SLICE_VALUES = 10, SLICE_QUARTERS = 4, TEXT_BYTES = 64 };
static const uint64_t missing_code = UINT64_MAX; /* no number's; a text's by a chance of 2^-64 */

typedef struct slice_part {
    uint64_t code; /* text: its hash; number: its order */
    uint32_t unit;
    float shown, positives; /* weighted */
} slice_part;

/* How a value reads. */
typedef struct slice_value {
    uint64_t code;
    double shown;
    char text[TEXT_BYTES];
} slice_value;

typedef struct slice_feature {
    const char *name;
    size_t hint;
    bool number, text; /* which kinds of values were met */
    slice_part *parts; /* (count) */
    size_t count, capacity;
    ct_counts *numbers;  /* of a text's code: its number among the values, from 1 */
    slice_value *values; /* (value_count): texts */
    size_t value_count, value_capacity;
} slice_feature;

struct live_slices {
    slice_feature *features;
    size_t count;
};

ct_code live_slices_create(const char *const *names, size_t count, live_slices **out_slices, ct_status *status) {
    live_slices *slices = calloc(1, sizeof *slices);
    ct_code code;
    if (slices == NULL) return ct_fail_memory(status, sizeof *slices, "the slices");
    slices->features = calloc(count + 1, sizeof *slices->features);
    if (slices->features == NULL) {
        code = ct_fail_memory(status, count * sizeof *slices->features, "the slices");
        goto fail;
    }
    slices->count = count;
    for (size_t i = 0; i < count; i++) {
        slices->features[i].name = names[i];
        CT_TRY_GOTO(code, ct_counts_create(&slices->features[i].numbers, status), fail);
    }
    *out_slices = slices;
    return CT_OK;
fail:
    live_slices_destroy(slices);
    return code;
}

void live_slices_destroy(live_slices *slices) {
    if (slices == NULL) return;
    for (size_t i = 0; i < slices->count; i++) {
        ct_counts_destroy(slices->features[i].numbers);
        free(slices->features[i].parts);
        free(slices->features[i].values);
    }
    free(slices->features);
    free(slices);
}

static ct_code text_code(slice_feature *feature, const char *text, size_t bytes, double shown, uint64_t *out_code, ct_status *status) {
    const uint64_t code = ct_hash64(text, bytes, 0);
    uint64_t number = ct_counts_get(feature->numbers, code);
    if (number == 0) {
        if (!online_grow((void **)&feature->values, &feature->value_capacity, feature->value_count + 1, sizeof *feature->values))
            return ct_fail_memory(status, feature->value_count * sizeof *feature->values, "the slices");
        slice_value *value = &feature->values[feature->value_count++];
        *value = (slice_value){.code = code};
        (void)ct_text_show(text, bytes, value->text, TEXT_BYTES);
        number = feature->value_count;
        CT_TRY(ct_counts_add(feature->numbers, code, number, status));
    }
    feature->values[number - 1].shown += shown;
    *out_code = code;
    return CT_OK;
}

static ct_code code_of(slice_feature *feature, const live_exposure *exposure, const live_column *column, size_t candidate, double shown,
                       uint64_t *out_code, ct_status *status) {
    size_t first = 0, count = 0, bytes = 0;
    char buffer[LIVE_INTEGER_BYTES];
    const char *text = NULL;
    *out_code = missing_code;
    if (column == NULL) return CT_OK;
    live_column_row(column, candidate, &first, &count);
    if (count == 0) return CT_OK;
    if (count > 1)
        return live_fail(&exposure->line, status, "slices by '%s': a candidate has %zu values; one is needed", feature->name, count);
    if (column->numbers ? feature->text : feature->number)
        return live_fail(&exposure->line, status, "slices by '%s': a number here, a text or integer elsewhere", feature->name);
    if (!column->numbers) {
        feature->text = true;
        CT_TRY(live_column_token(exposure, column, first, buffer, &text, &bytes, status));
        return text_code(feature, text, bytes, shown, out_code, status);
    }
    feature->number = true;
    float value = 0.0f;
    CT_TRY(live_column_number(exposure, column, first, &value, status));
    if (!isnan(value)) *out_code = ct_score_key(value);
    return CT_OK;
}

static ct_code add_feature(slice_feature *feature, const live_exposure *exposure, uint32_t unit, const live_shown *shown, size_t count,
                           ct_status *status) {
    live_column column;
    bool found = false;
    const double weight = 1.0 / exposure->sample_rate;
    CT_TRY(live_column_find(exposure, feature->name, &feature->hint, &column, &found, status));
    if (!online_grow((void **)&feature->parts, &feature->capacity, feature->count + count, sizeof *feature->parts))
        return ct_fail_memory(status, feature->count * sizeof *feature->parts, "the slices");
    for (size_t i = 0; i < count; i++) {
        slice_part *part = &feature->parts[feature->count];
        *part = (slice_part){.unit = unit, .shown = (float)weight, .positives = shown[i].positive ? (float)weight : 0.0f};
        CT_TRY(code_of(feature, exposure, found ? &column : NULL, shown[i].candidate, weight, &part->code, status));
        feature->count++;
    }
    return CT_OK;
}

ct_code live_slices_add(live_slices *slices, const live_exposure *exposure, uint32_t unit, const live_shown *shown, size_t count,
                        ct_status *status) {
    for (size_t i = 0; i < slices->count; i++) CT_TRY(add_feature(&slices->features[i], exposure, unit, shown, count, status));
    return CT_OK;
}

/* --- the slices --- */

typedef struct slice_line {
    enum { VALUE, RANGE, OTHER, MISSING } kind;
    const char *text; /* VALUE */
    float low, high;  /* RANGE: of the values */
    size_t number;
} slice_line;

static int most_shown(const void *left, const void *right) {
    const slice_value *a = left, *b = right;
    if (a->shown != b->shown) return a->shown < b->shown ? 1 : -1;
    return strcmp(a->text, b->text);
}

static int by_code(const void *left, const void *right) {
    const slice_part *a = left, *b = right;
    return (a->code > b->code) - (a->code < b->code);
}

static int by_code_and_unit(const void *left, const void *right) {
    const slice_part *a = left, *b = right;
    const int order = by_code(left, right);
    return order != 0 ? order : (a->unit > b->unit) - (a->unit < b->unit);
}

/* Codes become the numbers of lines. Returns how many lines there are. */
static size_t divide_texts(slice_feature *feature, slice_line *lines) {
    size_t count = 0;
    bool other = false, missing = false;
    online_sort(feature->values, feature->value_count, sizeof *feature->values, most_shown);
    const size_t named = feature->value_count < SLICE_VALUES ? feature->value_count : SLICE_VALUES;
    for (; count < named; count++) lines[count] = (slice_line){.kind = VALUE, .text = feature->values[count].text};
    for (size_t i = 0; i < feature->count; i++) {
        slice_part *part = &feature->parts[i];
        size_t line = 0;
        if (part->code == missing_code) {
            missing = true;
            part->code = named + 1;
            continue;
        }
        while (line < named && feature->values[line].code != part->code) line++;
        other = other || line == named;
        part->code = line;
    }
    if (other) lines[count++] = (slice_line){.kind = OTHER, .number = named};
    if (missing) lines[count++] = (slice_line){.kind = MISSING, .number = named + 1};
    for (size_t i = 0; i < named; i++) lines[i].number = i;
    return count;
}

/* The value that has this order (ct_score_key). */
static float value_of(uint64_t code) {
    const uint32_t key = (uint32_t)code, bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Quarters of the impressions; equal values stay together, in the quarter in which their middle lies. */
static size_t divide_numbers(slice_feature *feature, slice_line *lines) {
    size_t count = 0, known = 0, first = 0;
    online_sort(feature->parts, feature->count, sizeof *feature->parts, by_code);
    while (known < feature->count && feature->parts[known].code != missing_code) known++;
    while (first < known) {
        const uint64_t code = feature->parts[first].code;
        size_t end = first;
        while (end < known && feature->parts[end].code == code) end++;
        const size_t quarter = SLICE_QUARTERS * (first + end) / 2 / known;
        if (count == 0 || lines[count - 1].number != quarter)
            lines[count++] = (slice_line){.kind = RANGE, .low = value_of(code), .number = quarter};
        lines[count - 1].high = value_of(code);
        for (; first < end; first++) feature->parts[first].code = quarter;
    }
    for (size_t i = known; i < feature->count; i++) feature->parts[i].code = SLICE_QUARTERS;
    if (known < feature->count) lines[count++] = (slice_line){.kind = MISSING, .number = SLICE_QUARTERS};
    return count;
}

static json_t *difference_json(const online_design *design, const online_table *table, const ct_arm_sums *sums, size_t b, double alpha) {
    const ct_arm_sums *a = &sums[design->control];
    const ct_difference d = ct_ratio_difference(a, &sums[b], false);
    const bool few = a->n < ONLINE_FEW_UNITS || sums[b].n < ONLINE_FEW_UNITS;
    const ct_range fixed = ct_fixed_interval(d.estimate, d.variance, alpha);
    const ct_range sequence =
        few ? (ct_range){(double)NAN, (double)NAN} : ct_confidence_sequence(d.estimate, d.variance, a->n + sums[b].n, design->plan, alpha);
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "a", table->arms[design->control], "b", table->arms[b], "mean_a",
                     ct_json_real(ct_ratio(a).value), "mean_b", ct_json_real(ct_ratio(&sums[b]).value), "estimate",
                     ct_json_real(d.estimate), "lift", ct_json_real(d.lift), "fixed", online_range_json(fixed.low, fixed.high), "sequence",
                     online_range_json(sequence.low, sequence.high));
}

/* parts: of one line, by unit. */
static json_t *line_json(const online_design *design, const online_table *table, const slice_line *line, const slice_part *parts,
                         size_t count, double alpha) {
    ct_arm_sums sums[CT_ONLINE_MAX_ARMS] = {0};
    double shown = 0.0;
    json_t *differences = json_array(), *json = NULL;
    for (size_t i = 0; i < count;) {
        const uint32_t unit = parts[i].unit, arm = table->units[unit].arm;
        double y = 0.0, x = 0.0;
        for (; i < count && parts[i].unit == unit; i++) {
            y += (double)parts[i].positives;
            x += (double)parts[i].shown;
        }
        if (arm == TWO_ARMS) continue;
        shown += x;
        ct_arm_sums_add(&sums[arm], y, x, 0.0);
    }
    for (size_t arm = 0; arm < table->arm_count; arm++)
        if (arm != design->control) json_array_append_new(differences, difference_json(design, table, sums, arm, alpha));
    json = json_pack("{s:f, s:o}", "shown", shown, "differences", differences);
    if (line->kind == VALUE) (void)json_object_set_new(json, "value", json_string(line->text));
    if (line->kind == OTHER) (void)json_object_set_new(json, "other", json_true());
    if (line->kind == MISSING) (void)json_object_set_new(json, "missing", json_true());
    if (line->kind == RANGE) {
        (void)json_object_set_new(json, "low", json_real((double)line->low));
        (void)json_object_set_new(json, "high", json_real((double)line->high));
    }
    return json;
}

static json_t *feature_json(slice_feature *feature, const online_design *design, const online_table *table) {
    slice_line lines[SLICE_VALUES + 2];
    json_t *json = json_array();
    const size_t count = feature->number ? divide_numbers(feature, lines) : divide_texts(feature, lines);
    const double alpha = count > 0 ? design->alpha / (double)(count * (table->arm_count - 1)) : design->alpha;
    online_sort(feature->parts, feature->count, sizeof *feature->parts, by_code_and_unit);
    size_t first = 0;
    for (size_t i = 0; i < count; i++) {
        size_t end = first;
        while (end < feature->count && feature->parts[end].code == lines[i].number) end++;
        json_array_append_new(json, line_json(design, table, &lines[i], feature->parts + first, end - first, alpha));
        first = end;
    }
    return json_pack("{s:s, s:s, s:f, s:o}", "feature", feature->name, "by", feature->number ? "quantile" : "value", "alpha", alpha,
                     "slices", json);
}

ct_code live_slices_json(live_slices *slices, const online_design *design, const online_table *table, json_t *warnings, json_t **out_json,
                         ct_status *status) {
    json_t *json = json_array();
    for (size_t i = 0; i < slices->count; i++) {
        slice_feature *feature = &slices->features[i];
        if (!feature->number && !feature->text &&
            report_warn(warnings, status, "slices by '%s': no request brings it", feature->name) != CT_OK) {
            json_decref(json);
            return status->code;
        }
        if (json_array_append_new(json, feature_json(feature, design, table)) != 0) {
            json_decref(json);
            return ct_fail(status, CT_INVALID, "slices: '%s' is not UTF-8", feature->name);
        }
    }
    *out_json = json;
    return CT_OK;
}
