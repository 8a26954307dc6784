/* Slices against counting: which slices there are, and that each has the metrics of its rows alone. */
#include "trainer/slices.h"

#include <math.h>

#include "base/random.h"
#include "tests/model/fixture.h"
#include "trainer/metrics.h"

enum { ROWS = 3000, SOME_MEMORY = 200000 };

typedef struct fixture {
    char *folder, *log;
    ct_schema *schema;
    ct_batch *batch;
    float *logits;
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->folder = temp_folder();
    f->log = shop_log(f->folder, "log.tsv", 0, ROWS, -1);
    f->schema = shop_schema(f->folder);
    f->batch = read_all(f->schema, f->log, ROWS);
    f->logits = malloc(ROWS * sizeof *f->logits);
    assert_non_null(f->logits);
    for (size_t r = 0; r < ROWS; r++) f->logits[r] = (float)floor(ct_random_unit(3, CT_PLACE_TEST, 0, r, 0) * 200.0) / 40.0f - 3.5f;
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    ct_batch_destroy(f->batch);
    ct_schema_destroy(f->schema);
    free(f->logits);
    free(f->log);
    temp_remove(f->folder);
    free(f);
    return 0;
}

static const float *labels_of(const fixture *f) { return ct_column_f32(&f->batch->columns[SHOP_LABEL]); }
static const float *weights_of(const fixture *f) { return ct_column_f32(&f->batch->columns[SHOP_WEIGHT]); }
static const uint64_t *groups_of(const fixture *f) { return ct_column_u64(&f->batch->columns[SHOP_WHO]); }

/* The slices of all rows by one field, or by more. */
static json_t *slices_of(const fixture *f, const char *const *fields, size_t count, bool weights, bool groups, size_t memory) {
    ct_slices *slices = NULL;
    json_t *json = NULL;
    assert_ok(ct_slices_create(f->schema, fields, count, memory, &slices, &status));
    assert_ok(
        ct_slices_add(slices, f->batch, f->logits, labels_of(f), weights ? weights_of(f) : NULL, groups ? groups_of(f) : NULL, &status));
    assert_ok(ct_slices_finish(slices, &json, &status));
    assert_int_equal(json_array_size(json), count);
    ct_slices_destroy(slices);
    return json;
}

/* METRICS of those rows for which `times` is not 0, each taken so often; the caller's. */
static json_t *metrics_of(const fixture *f, const size_t *times, bool weights, bool groups) {
    ct_metrics_collector *collector = NULL;
    ct_metrics metrics;
    json_t *object = json_object();
    assert_ok(ct_metrics_collector_create(&collector, &status));
    for (size_t r = 0; r < ROWS; r++)
        for (size_t t = 0; t < times[r]; t++)
            assert_ok(ct_metrics_collector_add(collector, f->logits + r, labels_of(f) + r, weights ? weights_of(f) + r : NULL,
                                               groups ? groups_of(f) + r : NULL, 1, &status));
    assert_ok(ct_metrics_collector_finish(collector, &metrics, &status));
    assert_ok(ct_metrics_to_json(&metrics, groups, object, &status));
    ct_metrics_collector_destroy(collector);
    return object;
}

/* Every metric of `expected` within `bound`; takes `expected`. */
static void assert_metrics(const json_t *slice, json_t *expected, double bound) {
    const char *name;
    json_t *value;
    json_object_foreach(expected, name, value) {
        const json_t *got = json_object_get(slice, name);
        assert_non_null(got);
        if (json_is_null(value))
            assert_true(json_is_null(got));
        else if (!(fabs(json_number_value(got) - json_number_value(value)) <= bound))
            fail_msg("%s is %.17g, expected %.17g", name, json_number_value(got), json_number_value(value));
    }
    json_decref(expected);
}

/* --- ids --- */

static size_t times_of(const fixture *f, size_t field, size_t row, uint64_t value) {
    const ct_column *column = &f->batch->columns[field];
    const size_t first = column->offsets != NULL ? column->offsets[row] : row,
                 last = column->offsets != NULL ? column->offsets[row + 1] : row + 1;
    for (size_t i = first; i < last; i++)
        if (ct_column_u64(column)[i] == value) return 1;
    return 0;
}

typedef struct counted {
    uint64_t value;
    size_t rows;
} counted;

static int more_rows(const void *a, const void *b) {
    const counted *x = a, *y = b;
    if (x->rows != y->rows) return x->rows < y->rows ? 1 : -1;
    return (x->value > y->value) - (x->value < y->value);
}

static void check_values(const fixture *f, size_t field, bool weights, bool groups, size_t memory) {
    static counted values[ROWS * 4];
    static size_t times[ROWS], others[ROWS], none[ROWS];
    const ct_column *column = &f->batch->columns[field];
    const size_t total = column->offsets != NULL ? column->offsets[ROWS] : ROWS;
    size_t count = 0;
    for (size_t i = 0; i < total; i++) {
        size_t at = 0;
        while (at < count && values[at].value != ct_column_u64(column)[i]) at++;
        if (at == count) values[count++] = (counted){ct_column_u64(column)[i], 0};
    }
    for (size_t v = 0; v < count; v++)
        for (size_t r = 0; r < ROWS; r++) values[v].rows += times_of(f, field, r, values[v].value);
    qsort(values, count, sizeof *values, more_rows);

    const char *name = f->schema->fields[field].name;
    json_t *json = slices_of(f, &name, 1, weights, groups, memory);
    const json_t *object = json_array_get(json, 0), *slices = json_object_get(object, "slices"), *other = json_object_get(object, "other");
    assert_string_equal(json_string_value(json_object_get(object, "field")), name);
    assert_string_equal(json_string_value(json_object_get(object, "by")), "value");
    assert_int_equal(json_integer_value(json_object_get(object, "values")), count);
    assert_int_equal(json_array_size(slices), count < CT_SLICE_VALUES ? count : CT_SLICE_VALUES);
    memset(others, 0, sizeof others);
    for (size_t v = 0; v < count; v++) {
        for (size_t r = 0; r < ROWS; r++) {
            times[r] = times_of(f, field, r, values[v].value);
            if (v >= CT_SLICE_VALUES) others[r] += times[r];
        }
        if (v >= CT_SLICE_VALUES) continue;
        char hex[32];
        snprintf(hex, sizeof hex, "0x%016llx", (unsigned long long)values[v].value);
        const json_t *slice = json_array_get(slices, v);
        assert_string_equal(json_string_value(json_object_get(slice, "value")), hex);
        assert_int_equal(json_integer_value(json_object_get(slice, "rows")), values[v].rows);
        assert_metrics(slice, metrics_of(f, times, weights, groups), 0.0); /* the same rows in the same order: the same bits */
    }
    if (count > CT_SLICE_VALUES) {
        assert_int_equal(json_integer_value(json_object_get(other, "values")), count - CT_SLICE_VALUES);
        assert_metrics(other, metrics_of(f, others, weights, groups), 1e-10);
    } else {
        assert_true(json_is_null(other));
    }
    bool some = false;
    for (size_t r = 0; r < ROWS; r++) {
        none[r] = column->offsets != NULL && column->offsets[r + 1] == column->offsets[r];
        some = some || none[r];
    }
    if (some)
        assert_metrics(json_object_get(object, "missing"), metrics_of(f, none, weights, groups), 0.0);
    else
        assert_true(json_is_null(json_object_get(object, "missing")));
    json_decref(json);
}

static void values_have_the_metrics_of_their_rows(void **state) {
    const fixture *f = *state;
    check_values(f, SHOP_USER, false, false, 0);
    check_values(f, SHOP_ITEM, true, true, 0);
    check_values(f, SHOP_ITEM, true, true, SOME_MEMORY / 100);
    check_values(f, SHOP_WHO, false, true, SOME_MEMORY);
}

static void a_row_stands_in_the_slice_of_each_of_its_values(void **state) {
    const fixture *f = *state;
    check_values(f, SHOP_TAGS, true, false, 0); /* 12 values: no others */
    check_values(f, SHOP_LIKES, true, true, 0);
    check_values(f, SHOP_LIKES, false, false, SOME_MEMORY / 100);
}

/* --- numbers --- */

static void check_bins(const fixture *f, size_t field, size_t memory) {
    static size_t times[ROWS], none[ROWS];
    const float *values = ct_column_f32(&f->batch->columns[field]);
    const char *name = f->schema->fields[field].name;
    size_t total = 0, at = 0;
    json_t *json = slices_of(f, &name, 1, true, true, memory);
    const json_t *object = json_array_get(json, 0), *slices = json_object_get(object, "slices");
    assert_string_equal(json_string_value(json_object_get(object, "by")), "quantile");
    for (size_t r = 0; r < ROWS; r++) {
        none[r] = isnan(values[r]) ? 1u : 0u;
        total += !none[r];
    }
    for (int bin = 0; bin < CT_SLICE_BINS; bin++) {
        double low = INFINITY, high = -INFINITY;
        size_t rows = 0;
        for (size_t r = 0; r < ROWS; r++) {
            size_t below = 0, same = 0;
            for (size_t other = 0; other < ROWS; other++) {
                below += values[other] < values[r];
                same += values[other] == values[r];
            }
            times[r] = !none[r] && (int)(10.0 * (((double)below + (double)same / 2.0) / (double)total)) == bin;
            rows += times[r];
            if (times[r] && (double)values[r] < low) low = (double)values[r];
            if (times[r] && (double)values[r] > high) high = (double)values[r];
        }
        if (rows == 0) continue;
        const json_t *slice = json_array_get(slices, at++);
        assert_non_null(slice);
        assert_true(json_number_value(json_object_get(slice, "low")) == low);
        assert_true(json_number_value(json_object_get(slice, "high")) == high);
        assert_int_equal(json_integer_value(json_object_get(slice, "rows")), rows);
        assert_metrics(slice, metrics_of(f, times, true, true), 1e-12);
    }
    assert_int_equal(at, json_array_size(slices));
    if (total < ROWS)
        assert_metrics(json_object_get(object, "missing"), metrics_of(f, none, true, true), 0.0);
    else
        assert_true(json_is_null(json_object_get(object, "missing")));
    json_decref(json);
}

static void bins_have_the_metrics_of_their_rows(void **state) {
    const fixture *f = *state;
    check_bins(f, SHOP_AGE, 0);
    check_bins(f, SHOP_AGE, SOME_MEMORY / 100);
    check_bins(f, SHOP_PRICE, 0);
    check_bins(f, SHOP_SPREAD, SOME_MEMORY); /* below and above 0 */
}

static void times_are_milliseconds(void **state) {
    (void)state;
    static const char text[] =
        "name: timed\n"
        "format: {separator: \"\\t\", header: false, columns: 2}\n"
        "fields:\n"
        "  - {name: label, kind: label, column: 1}\n"
        "  - {name: when, kind: time, column: 2, time_unit: seconds}\n";
    const float logits[] = {1, 2, 3}, labels[] = {0, 1, 1};
    const char *name = "when";
    ct_schema *schema = NULL;
    ct_batch *batch = NULL;
    ct_slices *slices = NULL;
    json_t *json = NULL;
    assert_ok(ct_schema_parse(text, sizeof text - 1, "timed.yaml", &schema, &status));
    assert_ok(ct_batch_create(schema, 3, &batch, &status));
    batch->rows = 3;
    ct_column *when = &batch->columns[1];
    when->present = true;
    memcpy(when->values, (const int64_t[]){5000, -3000, 5000}, 3 * sizeof(int64_t));
    assert_ok(ct_slices_create(schema, &name, 1, 0, &slices, &status));
    assert_ok(ct_slices_add(slices, batch, logits, labels, NULL, NULL, &status));
    assert_ok(ct_slices_finish(slices, &json, &status));
    const json_t *found = json_object_get(json_array_get(json, 0), "slices");
    assert_int_equal(json_array_size(found), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(found, 0), "low")), -3000);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(found, 0), "rows")), 1);
    assert_true(json_is_null(json_object_get(json_array_get(found, 0), "auc")));
    assert_int_equal(json_integer_value(json_object_get(json_array_get(found, 1), "high")), 5000);
    assert_true(json_real_value(json_object_get(json_array_get(found, 1), "auc")) == 1.0);
    json_decref(json);
    ct_slices_destroy(slices);
    ct_batch_destroy(batch);
    ct_schema_destroy(schema);
}

/* --- the rest --- */

static void memory_and_batches_change_nothing(void **state) {
    const fixture *f = *state;
    const char *const names[] = {"item", "spread", "likes"};
    json_t *whole = slices_of(f, names, 3, true, true, 0), *little = slices_of(f, names, 3, true, true, 3000), *parts = NULL;
    assert_true(json_equal(whole, little));
    ct_slices *slices = NULL;
    assert_ok(ct_slices_create(f->schema, names, 3, 0, &slices, &status));
    ct_reader *reader = open_reader(f->schema, f->log, 700);
    for (ct_batch *batch; (batch = next_batch(reader)) != NULL; ct_reader_release(reader, batch))
        assert_ok(ct_slices_add(slices, batch, f->logits + batch->first_row, ct_column_f32(&batch->columns[SHOP_LABEL]),
                                ct_column_f32(&batch->columns[SHOP_WEIGHT]), ct_column_u64(&batch->columns[SHOP_WHO]), &status));
    ct_reader_close(reader);
    assert_ok(ct_slices_finish(slices, &parts, &status));
    assert_true(json_equal(whole, parts));
    ct_slices_destroy(slices);
    json_decref(whole);
    json_decref(little);
    json_decref(parts);
}

static void fields_without_slices_are_refused(void **state) {
    const fixture *f = *state;
    ct_slices *slices = NULL;
    assert_refused(CT_INVALID, "'usr'", ct_slices_create(f->schema, (const char *const[]){"usr"}, 1, 0, &slices, &status));
    assert_refused(CT_INVALID, "'item_text'",
                   ct_slices_create(f->schema, (const char *const[]){"user", "item_text"}, 2, 0, &slices, &status));
    assert_refused(CT_INVALID, "'label'", ct_slices_create(f->schema, (const char *const[]){"label"}, 1, 0, &slices, &status));
    assert_refused(CT_INVALID, "twice", ct_slices_create(f->schema, (const char *const[]){"user", "age", "user"}, 3, 0, &slices, &status));
    assert_null(slices);
    assert_ok(ct_slices_create(f->schema, (const char *const[]){"user"}, 1, 0, &slices, &status));
    f->batch->columns[SHOP_USER].present = false;
    assert_refused(CT_INVALID, "'user'", ct_slices_add(slices, f->batch, f->logits, labels_of(f), NULL, NULL, &status));
    f->batch->columns[SHOP_USER].present = true;
    ct_slices_destroy(slices);
    ct_slices_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_the_metrics_of_their_rows), cmocka_unit_test(a_row_stands_in_the_slice_of_each_of_its_values),
        cmocka_unit_test(bins_have_the_metrics_of_their_rows),   cmocka_unit_test(times_are_milliseconds),
        cmocka_unit_test(memory_and_batches_change_nothing),     cmocka_unit_test(fields_without_slices_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
