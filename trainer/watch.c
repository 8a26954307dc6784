/* Warnings of a run, and its divergence. All of it is decided from rows and steps, never from time. */
#include "trainer/watch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"

enum {
    LABELS_JUDGED_ROWS = 100000, /* or at the end */
    COPIES_JUDGED_ROWS = 10000,  /* or at the end, of COPIES_LEAST_ROWS or more */
    COPIES_LEAST_ROWS = 100,
    VECTORS_JUDGED_ROWS = 10000, /* or at the end */
    WARM_UP_STEPS = 512,         /* a model may know nothing yet */
    WINDOW_STEPS = 256,
    BAD_WINDOWS = 2,
    FEW_STEPS = 100 /* of fewer nobody expects a good model */
};
static const double ln2 = 0.69314718055994531;
static const double absurd_loss = 1e4; /* of a batch's mean row: a probability of exp(-10,000) for what happened */
static const double full_filter = 0.1; /* chance that a key that comes for the first time is counted too high */

struct ct_watch {
    const ct_model *model;
    ct_warn_fn warn;
    void *context;
    json_t *said;
    int64_t rows, clicks, steps; /* of this run */
    int64_t model_steps;         /* behind the model, ahead of the batch in work */
    bool labels_judged, copies_judged, vectors_judged;
    float first_label;
    uint64_t *first; /* (fields): bits of the column's first value */
    bool *copies;    /* (fields): has the column told the label so far? */
    /* the last steps */
    double last_loss; /* of the batch before; NaN = none */
    ct_batch_sums window;
    int64_t window_steps;
    uint32_t bad_windows; /* in a row */
};

static bool may_copy(const ct_model *model, size_t field) {
    const ct_field_kind kind = ct_model_schema(model)->fields[field].kind;
    return (kind == CT_FIELD_NUMBER || kind == CT_FIELD_ID) && ct_model_uses_field(model, field);
}

ct_code ct_watch_create(const ct_model *model, ct_warn_fn warn, void *context, ct_watch **out_watch, ct_status *status) {
    const size_t fields = ct_model_schema(model)->field_count;
    ct_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) return ct_fail_memory(status, sizeof *watch, "a watch over a run");
    watch->model = model;
    watch->warn = warn;
    watch->context = context;
    watch->last_loss = (double)NAN;
    watch->model_steps = ct_model_step(model);
    watch->said = json_array();
    watch->first = calloc(fields, sizeof *watch->first);
    watch->copies = calloc(fields, sizeof *watch->copies);
    if (watch->said == NULL || watch->first == NULL || watch->copies == NULL) {
        ct_watch_destroy(watch);
        return ct_fail_memory(status, fields * sizeof *watch->first, "a watch over a run");
    }
    for (size_t f = 0; f < fields; f++) watch->copies[f] = may_copy(model, f);
    *out_watch = watch;
    return CT_OK;
}

void ct_watch_destroy(ct_watch *watch) {
    if (watch == NULL) return;
    json_decref(watch->said);
    free(watch->first);
    free(watch->copies);
    free(watch);
}

const json_t *ct_watch_said(const ct_watch *watch) { return watch->said; }

void ct_watch_say(ct_watch *watch, const char *format, ...) {
    char text[CT_STATUS_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_array_append_new(watch->said, json_string(text));
    if (watch->warn != NULL) watch->warn(watch->context, text);
}

/* --- labels --- */

static const char *label_name(const ct_watch *watch) {
    const ct_schema *schema = ct_model_schema(watch->model);
    return schema->fields[ct_schema_find_kind(schema, CT_FIELD_LABEL)].name;
}

static void judge_labels(ct_watch *watch) {
    if (watch->labels_judged || watch->rows == 0) return;
    watch->labels_judged = true;
    const double share = (double)watch->clicks / (double)watch->rows;
    if (watch->clicks == 0 || watch->clicks == watch->rows)
        ct_watch_say(watch,
                     "all of the first %lld rows have the label %d: there is nothing to tell apart, and no AUC; is the column of '%s' "
                     "the right one?",
                     (long long)watch->rows, watch->clicks != 0, label_name(watch));
    else if (share > 0.999)
        ct_watch_say(watch, "%.3f %% of the first %lld rows have the label 1; is the column of '%s' the right one?", 100 * share,
                     (long long)watch->rows, label_name(watch));
}

/* A dense value's bits; false where a row may have several, or none. */
static bool bits_of(const ct_column *column, size_t row, uint64_t *out_bits) {
    if (!column->present || column->shared || column->offsets != NULL) return false;
    uint32_t low;
    if (column->type == CT_TYPE_F32) {
        memcpy(&low, ct_column_f32(column) + row, sizeof low);
        *out_bits = low;
    } else {
        *out_bits = ct_column_u64(column)[row];
    }
    return true;
}

/* A column tells the label where two rows agree in it if, and only if, they agree in the label. */
static void look_for_copies(ct_watch *watch, const ct_batch *batch, const float *labels) {
    for (size_t f = 0; f < batch->column_count; f++)
        for (size_t r = 0; r < batch->rows && watch->copies[f]; r++) {
            uint64_t bits = 0;
            watch->copies[f] = bits_of(&batch->columns[f], r, &bits);
            if (watch->rows == 0 && r == 0) watch->first[f] = bits;
            if ((bits == watch->first[f]) != (labels[r] == watch->first_label)) watch->copies[f] = false;
        }
}

static void judge_copies(ct_watch *watch) {
    if (watch->copies_judged || watch->rows < COPIES_LEAST_ROWS) return;
    watch->copies_judged = true;
    if (watch->clicks == 0 || watch->clicks == watch->rows) return;
    const ct_schema *schema = ct_model_schema(watch->model);
    for (size_t f = 0; f < schema->field_count; f++)
        if (watch->copies[f])
            ct_watch_say(watch,
                         "'%s' tells the label of each of the first %lld rows: it can't be known before the click, or the columns are "
                         "shifted; leave it out with --set exclude=[%s], or check the schema",
                         schema->fields[f].name, (long long)watch->rows, schema->fields[f].name);
}

/* --- vectors --- */

/* Ids of a vector file in another form than the log's (a prefix, a header, another column) would make the vectors zeros for every row. */
static void judge_vectors(ct_watch *watch) {
    if (watch->vectors_judged) return;
    watch->vectors_judged = true;
    const ct_schema *schema = ct_model_schema(watch->model);
    for (size_t f = 0; f < schema->field_count; f++) {
        if (ct_model_found_no_vector(watch->model, f))
            ct_watch_say(watch,
                         "'%s' has no vector for any value of '%s' in the first %lld rows: are the ids of its rows (`ids` in the schema) "
                         "those of the log?",
                         schema->fields[f].name, schema->fields[schema->fields[f].of].name, (long long)watch->rows);
    }
}

/* --- the loss --- */

/* Worse than one half for every row, and than twice the constant that knows the rows' click rate? */
static bool is_bad(const ct_batch_sums *sums) {
    const double mean = sums->loss / sums->weight, rate = sums->clicks / sums->weight;
    const double constant = rate > 0 && rate < 1 ? -rate * ct_log(rate) - (1 - rate) * ct_log(1 - rate) : 0;
    return mean > ln2 && mean > 2 * constant;
}

bool ct_watch_astray(const ct_watch *watch) {
    return watch->bad_windows > 0 || (watch->window_steps > 0 && watch->steps > WARM_UP_STEPS && is_bad(&watch->window));
}

static const float *labels_of(const ct_watch *watch, const ct_batch *batch) {
    return ct_column_f32(&batch->columns[ct_schema_find_kind(ct_model_schema(watch->model), CT_FIELD_LABEL)]);
}

/* loss: mean of the batch, which may not be finite. */
static ct_code fail_diverged(const ct_watch *watch, const ct_batch *batch, double loss, ct_status *status) {
    const ct_model_spec *spec = ct_model_spec_of(watch->model);
    char now[64] = "not finite", before[64] = "";
    if (isfinite(loss)) (void)snprintf(now, sizeof now, "%.4f", loss);
    if (!isnan(watch->last_loss)) (void)snprintf(before, sizeof before, ", that of the batch before was %.4f", watch->last_loss);
    return ct_fail(status, CT_INVALID,
                   "diverged at step %lld (rows %lld to %lld of the pass): the loss is %s%s; lower optimizer.learning_rate (now %g) or "
                   "embedding.learning_rate (now %g) with --set",
                   (long long)watch->model_steps + 1, (long long)batch->first_row + 1, (long long)batch->first_row + (long long)batch->rows,
                   now, before, (double)spec->learning_rate, (double)spec->embedding_learning_rate);
}

ct_code ct_watch_diverged(const ct_watch *watch, const ct_batch *batch, const float *logits, ct_status *status) {
    const float *labels = labels_of(watch, batch);
    double loss = 0;
    for (size_t r = 0; r < batch->rows; r++) loss += ct_softplus((double)logits[r]) - (double)labels[r] * (double)logits[r];
    return fail_diverged(watch, batch, loss / (double)batch->rows, status);
}

static ct_code judge_window(ct_watch *watch, const ct_batch *batch, double loss, ct_status *status) {
    if (watch->window_steps < WINDOW_STEPS) return CT_OK;
    const double mean = watch->window.loss / watch->window.weight;
    watch->bad_windows = watch->steps > WARM_UP_STEPS && is_bad(&watch->window) ? watch->bad_windows + 1 : 0;
    watch->window = (ct_batch_sums){0};
    watch->window_steps = 0;
    if (watch->bad_windows < BAD_WINDOWS) return CT_OK;
    (void)fail_diverged(watch, batch, loss, status);
    return ct_fail_within(status, "the mean loss of %d steps is %.4f, worse than guessing one half and twice that of the click rate",
                          WINDOW_STEPS, mean);
}

ct_code ct_watch_batch(ct_watch *watch, const ct_batch *batch, const ct_batch_sums *sums, ct_status *status) {
    const float *labels = labels_of(watch, batch);
    const double loss = sums->loss / sums->weight;
    watch->model_steps = ct_model_step(watch->model) - 1; /* ahead of this one */
    if (!isfinite(sums->loss) || loss > absurd_loss) return fail_diverged(watch, batch, loss, status);
    if (watch->rows == 0) watch->first_label = labels[0];
    if (!watch->copies_judged) look_for_copies(watch, batch, labels);
    for (size_t r = 0; r < batch->rows; r++) watch->clicks += labels[r] > 0.5f;
    watch->rows += (int64_t)batch->rows;
    if (watch->rows >= COPIES_JUDGED_ROWS) judge_copies(watch);
    if (watch->rows >= VECTORS_JUDGED_ROWS) judge_vectors(watch);
    if (watch->rows >= LABELS_JUDGED_ROWS) judge_labels(watch);
    watch->window.loss += sums->loss;
    watch->window.weight += sums->weight;
    watch->window.clicks += sums->clicks;
    watch->window_steps++;
    watch->steps++;
    CT_TRY(judge_window(watch, batch, loss, status));
    if (sums->weight > 0) watch->last_loss = loss;
    watch->model_steps++;
    return CT_OK;
}

/* --- at the end --- */

static void judge_filter(ct_watch *watch, bool no_rows) {
    ct_filter_info filter;
    ct_model_filter(watch->model, &filter);
    if (filter.bytes == 0) return;
    if (no_rows)
        ct_watch_say(watch,
                     "no key has a row of its own, as the filter has counted none %u times before the last batch: every id reads the rare "
                     "row of its feature; lower embedding.min_count or --batch, or train on more rows",
                     ct_model_spec_of(watch->model)->min_count);
    if (filter.error > full_filter)
        ct_watch_say(watch,
                     "the filter that counts keys without a row is too full: %.0f %% of the keys that come for the first time are counted "
                     "as if they had been seen, and many get a row too early; raise embedding.filter_mib",
                     100 * filter.error);
}

static void judge_rows(ct_watch *watch) {
    const ct_model_spec *spec = ct_model_spec_of(watch->model);
    json_t *model = ct_model_describe(watch->model);
    const json_t *ids = json_array_get(json_object_get(model, "tables"), 0);
    const int64_t rows = json_integer_value(json_object_get(ids, "rows")), keys = json_integer_value(json_object_get(ids, "stubs"));
    const int64_t features = json_integer_value(json_object_get(model, "ids"));
    json_decref(model);
    if (features == 0) return;
    judge_filter(watch, rows <= features);
    if (rows <= features && keys > 0) /* each feature's rare row */
        ct_watch_say(watch,
                     "none of the %lld keys has a row of its own, as none was seen %u times before the last batch: every id reads the rare "
                     "row of its feature; lower embedding.min_count or --batch, or train on more rows",
                     (long long)keys, spec->min_count);
    if (spec->embedding_learning_rate == 0) ct_watch_say(watch, "embedding.learning_rate is 0: the rows of the ids never change");
}

static void judge_schedule(ct_watch *watch) {
    const ct_model_spec *spec = ct_model_spec_of(watch->model);
    const double rows = (double)ct_model_rows(watch->model);
    if (spec->learning_rate == 0) ct_watch_say(watch, "optimizer.learning_rate is 0: the tower's weights never change");
    if (spec->schedule_rows > 0 && rows > spec->schedule_rows + (double)ct_model_batch_rows(watch->model))
        ct_watch_say(watch, "the learning rates reached 0 at row %.0f, as schedule.rows says: the last %.0f rows taught nothing",
                     spec->schedule_rows, rows - spec->schedule_rows);
}

void ct_watch_end(ct_watch *watch, const ct_read_report *report, const ct_metrics *progressive, const ct_metrics *evaluation) {
    judge_copies(watch);
    judge_vectors(watch);
    judge_labels(watch);
    const int64_t read = report->rows + report->bad_total, bad = report->bad_rows[CT_BAD_LABEL];
    if (bad * 10 > read)
        ct_watch_say(watch,
                     "%lld of %lld rows were left out as their label is neither 0 nor 1: is the column of '%s' the right one? A rating "
                     "becomes a label by at_least: in the schema",
                     (long long)bad, (long long)read, label_name(watch));
    judge_rows(watch);
    judge_schedule(watch);
    const ct_metrics *metrics = evaluation != NULL ? evaluation : progressive;
    if (watch->steps < (evaluation != NULL ? FEW_STEPS : WARM_UP_STEPS) || !(metrics->normalized_entropy > 1)) return;
    ct_watch_say(
        watch, "the model is worse than the constant click rate of the %s rows: log loss %.5f, %.2f times that; lower the learning rates%s",
        evaluation != NULL ? "evaluation's" : "training's", metrics->log_loss, metrics->normalized_entropy,
        evaluation != NULL ? ", or are these rows of another kind?" : "");
}
