/* The report of an experiment from tables: values by hand, what is refused, and when there is no verdict. */
#include "experiment/online.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"

static char path[512];

static void write_table(const char *text) {
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_file_write(path, text, strlen(text), &status), CT_OK);
}

static ct_online_options options(void) { return (ct_online_options){.table = path, .plan = 1000, .alpha = 0.05}; }

static json_t *report_of(const ct_online_options *o) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    const ct_code code = ct_online_report(o, &report, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    return report;
}

static const json_t *arm_at(const json_t *report, size_t i) { return json_array_get(json_object_get(report, "arms"), i); }
static const json_t *difference_at(const json_t *report, size_t i) { return json_array_get(json_object_get(report, "differences"), i); }
static double number(const json_t *object, const char *name) { return json_number_value(json_object_get(object, name)); }
static const char *text_of(const json_t *object, const char *name) { return json_string_value(json_object_get(object, name)); }
static bool warns(const json_t *report, const char *words) {
    const json_t *warnings = json_object_get(report, "warnings"), *one = NULL;
    size_t i = 0;
    json_array_foreach(warnings, i, one) if (strstr(json_string_value(one), words) != NULL) return true;
    return false;
}

/* Two units an arm, several rows a unit, out of order; columns in another order; an empty covariate is 0. */
static void test_by_hand(void **state) {
    (void)state;
    write_table(
        "arm,unit,value,time,count\n"
        "new,u3,1,30,2\n"
        "old,u1,1,10,4\n"
        "old,u2,0,20,2\n"
        "\n"
        "new,u4,2,5,2\n"
        "old,u1,2,40,2\n");
    ct_online_options o = options();
    o.control = "old";
    json_t *report = report_of(&o);
    assert_string_equal(text_of(arm_at(report, 0), "name"), "new");
    assert_true(json_is_true(json_object_get(arm_at(report, 1), "control")));
    assert_true(number(arm_at(report, 1), "units") == 2 && number(arm_at(report, 1), "rows") == 3);
    assert_true(number(arm_at(report, 1), "value") == 3 && number(arm_at(report, 1), "count") == 8);
    assert_true(fabs(number(arm_at(report, 1), "mean") - 0.375) < 1e-15 && fabs(number(arm_at(report, 0), "mean") - 0.75) < 1e-15);
    const json_t *d = difference_at(report, 0);
    assert_string_equal(text_of(d, "a"), "old");
    assert_true(fabs(number(d, "estimate") - 0.375) < 1e-15);
    assert_true(fabs(number(json_object_get(d, "lift"), "estimate") - 1.0) < 1e-12);
    /* l of u1: (3 - 0.375 * 6) / 4 = 0.1875, of u2: -0.1875: variance 0.0703125 / 2; of u3: (1 - 1.5) / 2 = -0.25, u4 0.25: 0.125 / 2. */
    const double half = (number(json_object_get(d, "fixed"), "high") - number(json_object_get(d, "fixed"), "low")) / 2.0;
    assert_true(fabs(half - 1.959963984540054 * sqrt((0.0703125 + 0.125) / 2.0)) < 1e-9);
    assert_true(json_is_null(json_object_get(json_object_get(d, "sequence"), "low")));
    assert_string_equal(text_of(d, "verdict"), "no verdict");
    assert_non_null(strstr(text_of(d, "words"), "fewer than 50 units"));
    assert_true(json_is_null(json_object_get(d, "cuped")));
    assert_int_equal(json_array_size(json_object_get(d, "looks")), CT_ONLINE_LOOKS);
    assert_true(number(report, "first_time") == 5 && number(report, "last_time") == 40);
    char *table = ct_online_table(report);
    assert_non_null(strstr(table, "no verdict"));
    free(table);
    json_decref(report);
}

/* n units, B's rate higher by `effect`; every unit twice; `lost` of B's units are missing; the first `mixed` are also in A. */
static void write_units(size_t n, double effect, double lost, size_t mixed) {
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    fprintf(to, "unit\ttime\tarm\tvalue\tcovariate\n");
    for (size_t i = 0; i < n; i++) {
        const ct_random4 r = ct_random(31, CT_PLACE_TEST, 0, i, 0);
        const bool b = r.word[0] >> 31;
        const double level = (double)r.word[1] * 0x1p-32;
        if (b && (double)(r.word[0] & 0xffffff) * 0x1p-24 < lost) continue;
        for (int k = 0; k < 2; k++)
            fprintf(to, "user-%zu\t%zu\t%s\t%d\t%.6f\n", i, 10 * i + (size_t)k, b ? "treatment" : "control",
                    (double)r.word[2 + k] * 0x1p-32 < 0.1 + 0.3 * level + (b ? effect : 0.0), level);
        if (i < mixed) fprintf(to, "user-%zu\t%zu\t%s\t0\t0\n", i, 10 * i + 5, b ? "control" : "treatment");
    }
    assert_int_equal(fclose(to), 0);
}

static void test_verdicts(void **state) {
    (void)state;
    const ct_online_options o = options();
    write_units(4000, 0.1, 0.0, 0);
    json_t *report = report_of(&o);
    const json_t *d = difference_at(report, 0), *cuped = json_object_get(d, "cuped"), *looks = json_object_get(d, "looks"), *look = NULL;
    assert_string_equal(text_of(d, "verdict"), "B better");
    assert_non_null(strstr(text_of(d, "words"), "treatment against A = control: B better."));
    assert_true(number(cuped, "variance_reduction") > 0.02); /* the level explains some of a unit's clicks */
    assert_true(number(json_object_get(cuped, "fixed"), "low") <= 0.1 && number(json_object_get(cuped, "fixed"), "high") >= 0.1);
    assert_false(json_is_true(json_object_get(json_object_get(report, "sample_ratio"), "mismatch")));
    /* The looks hold more and more units, the last one is the end, and the sequence is wider than the fixed interval. */
    double before = 0.0;
    size_t i = 0;
    json_array_foreach(looks, i, look) {
        const json_t *fixed = json_object_get(look, "fixed"), *sequence = json_object_get(look, "sequence");
        assert_true(number(look, "units") >= before);
        before = number(look, "units");
        if (json_is_null(json_object_get(sequence, "low"))) continue;
        assert_true(number(sequence, "low") < number(fixed, "low") && number(fixed, "high") < number(sequence, "high"));
    }
    assert_true(before == 4000);
    assert_true(number(json_array_get(looks, CT_ONLINE_LOOKS - 1), "estimate") == number(cuped, "estimate"));
    assert_in_range((int64_t)number(json_array_get(looks, 24), "units"), 1990, 2010); /* half of the time, half of the units */
    char *html = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_online_html(report, &html, &status), CT_OK);
    assert_null(strstr(html, "@@"));
    assert_non_null(strstr(html, "B better"));
    free(html);
    json_decref(report);

    write_units(2000, 0.0, 0.0, 0);
    report = report_of(&o);
    assert_string_equal(text_of(difference_at(report, 0), "verdict"), "no difference shown");
    json_decref(report);

    write_units(4000, 0.1, 0.2, 0); /* a fifth of B is lost */
    report = report_of(&o);
    assert_string_equal(text_of(difference_at(report, 0), "verdict"), "no verdict");
    assert_true(warns(report, "sample ratio mismatch"));
    json_decref(report);
    ct_online_options weighted = o; /* unless it was meant so */
    weighted.weights = "control=1,treatment=0.8";
    report = report_of(&weighted);
    assert_string_equal(text_of(difference_at(report, 0), "verdict"), "B better");
    json_decref(report);

    write_units(4000, 0.1, 0.0, 10);
    report = report_of(&o);
    assert_string_equal(text_of(difference_at(report, 0), "verdict"), "B better");
    assert_true(warns(report, "10 of 4000 units were in two arms"));
    assert_true(number(arm_at(report, 0), "units") + number(arm_at(report, 1), "units") == 3990);
    json_decref(report);
    write_units(4000, 0.1, 0.0, 100);
    report = report_of(&o);
    assert_string_equal(text_of(difference_at(report, 0), "verdict"), "no verdict");
    json_decref(report);
}

static void refused(const ct_online_options *o, const char *words) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    assert_int_equal(ct_online_report(o, &report, &status), CT_INVALID);
    printf("%s\n", status.message);
    assert_non_null(strstr(status.message, words));
}

static void test_refused(void **state) {
    (void)state;
    ct_online_options o = options();
    static const char *const cases[][2] = {{"unit,time,arm\na,1,b\n", "no column 'value'"},
                                           {"unit,time,arm,value,value\n", "two columns 'value'"},
                                           {"unit,time,arm,value\na,1,b\n", ":2: 3 columns instead of the header's 4"},
                                           {"unit,time,arm,value\na,1,b,3\na,now,b,3\n", ":3: column 'time': 'now'"},
                                           {"unit,time,arm,value\na,1,b,much\n", "column 'value': 'much'"},
                                           {"unit,time,arm,value,count\na,1,b,1,-1\n", "column 'count': -1"},
                                           {"unit,time,arm,value,covariate\na,1,b,1,x\n", "column 'covariate': 'x'"},
                                           {"unit,time,arm,value\na,1,,3\n", "the arm has no name"},
                                           {"unit,time,arm,value\na,1,b\xff,3\n", ":2: the arm's name is not UTF-8"},
                                           {"unit,time,arm,value\na,1,b,3\na,1,c,-1e101\n", ":3: column 'value': -1e+101 is beyond 1e+100"},
                                           {"unit,time,arm,value\na,1e308,b,3\n", ":2: column 'time': 1e+308 is beyond"},
                                           {"unit,time,arm,value\na,1,b,3\n", "needs two arms"},
                                           {"", "needs two arms"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_table(cases[i][0]);
        refused(&o, cases[i][1]);
    }
    write_table("unit,time,arm,value\na,1,x,3\nb,1,y,3\n");
    o.control = "z";
    refused(&o, "no arm 'z'");
    o.control = NULL;
    o.weights = "x=1";
    refused(&o, "arm 'y' has none");
    o.weights = "x=1,y=0";
    refused(&o, "above 0");
    o.weights = "x=1,z=1";
    refused(&o, "ARM=NUMBER");
    o.weights = NULL;
    o.plan = 0;
    refused(&o, "plan of 0");
}

int main(void) {
    const char *temporary = getenv("TEST_TMPDIR");
    (void)snprintf(path, sizeof path, "%s/online_test_%d.tsv", temporary != NULL ? temporary : "/tmp", (int)getpid());
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_hand), cmocka_unit_test(test_verdicts), cmocka_unit_test(test_refused)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)remove(path);
    return failed;
}
