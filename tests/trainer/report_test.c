/* The report: its islands are JSON with the numbers that went in, its tables hold them, nothing in a text gets out of its place, and
 * nothing is asked from elsewhere. How it looks in a browser: report_render_test. */
#include "trainer/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NASTY "</script><script>alert(1)</script><!-- \"'&\\ \xe2\x80\xa8"

static const char curve[] =
    "{\"rows\":100000,\"auc\":0.70123456789012345,\"log_loss\":0.5,\"epoch\":0,\"seconds\":1.25,\"calibration\":null}\n"
    "{\"rows\":200000,\"auc\":0.75,\"log_loss\":0.47000000000000003,\"epoch\":0,\"seconds\":2.5,\"calibration\":1.01}\n";

static json_t *make_metrics(void) {
    json_error_t error;
    json_t *metrics = json_loads(
        "{\"rows\": 5000, \"auc\": 0.79125, \"log_loss\": 0.4375, \"grouped_auc\": null, \"of\": \"evaluation\", \"stopped\": false,"
        " \"expected_calibration_error\": 0.0125, \"maximum_calibration_error\": 0.03125, \"calibration_table\": [{\"low\": 0.1, \"high\": "
        "0.2,"
        " \"rows\": 5000, \"weight\": 5000.0, \"mean_prediction\": 0.15, \"click_rate\": 0.1625}],"
        " \"progressive\": {\"rows\": 200000, \"auc\": 0.71875, \"log_loss\": 0.484375},"
        " \"train\": {\"rows\": 200000, \"bad_rows\": 17, \"bad_rows_by_kind\": {\"field count\": 16, \"label\": 1}, \"blank_lines\": 3,"
        " \"unsorted_times\": 0}, \"evaluation\": {\"rows\": 5000, \"bad_rows\": 0, \"bad_rows_by_kind\": {}, \"blank_lines\": 0,"
        " \"unsorted_times\": 0}, \"train_seconds\": 2.5, \"rows_per_second\": 80000.0, \"model\": {\"model\": \"dcn-v2\", \"schema\":"
        " \"shop\", \"rows\": 200000, \"step\": 98, \"tables\": [{\"name\": \"ids\", \"kind\": \"trained\", \"dim\": 16, \"rows\": 4242,"
        " \"stubs\": 7, \"bytes\": 99}]}}",
        0, &error);
    if (metrics == NULL) fail_msg("%s at %d", error.text, error.position);
    json_object_set_new(json_object_get(metrics, "model"), "schema", json_string(NASTY));
    json_object_set_new(metrics, "nasty", json_string(NASTY));
    return metrics;
}

static char *make_report(const json_t *metrics, const json_t *settings, const char *points) {
    const ct_report_input input = {
        .title = "T " NASTY, .metrics = metrics, .curve = points, .settings = settings, .model_file = "model: dcn-v2 # " NASTY "\n"};
    ct_status status = CT_STATUS_INIT;
    char *html = NULL;
    if (ct_report_html(&input, &html, &status) != CT_OK) fail_msg("%s", status.message);
    return html;
}

/* An island as a browser reads it: up to the first "</script". */
static json_t *island(const char *html, const char *id) {
    char open[96];
    json_error_t error;
    snprintf(open, sizeof open, "<script type=\"application/json\" id=\"%s\">", id);
    const char *begin = strstr(html, open);
    assert_non_null(begin);
    assert_null(strstr(begin + 1, open));
    begin += strlen(open);
    const char *end = strstr(begin, "</script");
    assert_non_null(end);
    json_t *json = json_loadb(begin, (size_t)(end - begin), 0, &error);
    if (json == NULL) fail_msg("%s: %s at %d", id, error.text, error.position);
    return json;
}

static size_t count_of(const char *text, const char *word) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++) count++;
    return count;
}

static bool matches(const char *text, const char *pattern) {
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_ICASE | REG_NOSUB), 0);
    const bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static void islands_hold_what_went_in(void **state) {
    (void)state;
    json_t *metrics = make_metrics(), *settings = json_pack("{s:[s, s], s:i}", "training_data", "a.tsv", NASTY, "epochs", 1);
    char *html = make_report(metrics, settings, curve);
    json_t *points = island(html, "curve-data"), *got_metrics = island(html, "metrics-data"), *got_settings = island(html, "settings-data");
    assert_true(json_equal(got_metrics, metrics));
    assert_true(json_equal(got_settings, settings));
    assert_int_equal(json_array_size(points), 2);
    const char *line = curve;
    for (size_t i = 0; i < 2; i++) {
        json_error_t error;
        const size_t bytes = strcspn(line, "\n");
        json_t *point = json_loadb(line, bytes, 0, &error);
        assert_non_null(point);
        assert_true(json_equal(json_array_get(points, i), point)); /* to the last bit of each number */
        json_decref(point);
        line += bytes + 1;
    }
    json_decref(points);
    json_decref(got_metrics);
    json_decref(got_settings);
    free(html);

    /* a short log has no curve */
    html = make_report(metrics, settings, "");
    points = island(html, "curve-data");
    assert_int_equal(json_array_size(points), 0);
    json_decref(points);
    free(html);
    json_decref(metrics);
    json_decref(settings);
}

static void tables_hold_the_numbers(void **state) {
    (void)state;
    json_t *metrics = make_metrics(), *settings = json_pack("{s:[s, s], s:i}", "training_data", "a.tsv", "b.tsv", "epochs", 3);
    char *html = make_report(metrics, settings, curve);
    static const char *const cells[] = {
        "<th scope=\"row\">auc</th><td class=\"number\">0.79125</td><td class=\"number\">0.71875</td>",
        "<th scope=\"row\">log loss</th><td class=\"number\">0.4375</td><td class=\"number\">0.484375</td>",
        "<th scope=\"row\">expected calibration error</th><td class=\"number\">0.0125</td>",
        "<th scope=\"row\">grouped auc</th><td class=\"number\">none</td>",
        "<th scope=\"row\">bad rows</th><td class=\"number\">17</td><td class=\"number\">0</td>",
        "<th scope=\"row\">bad: field count</th><td class=\"number\">16</td>",
        "<th scope=\"row\">epochs</th><td>3</td>",
        "a.tsv<br>b.tsv",
        "<td class=\"number\">4242</td>",
    };
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        if (strstr(html, cells[i]) == NULL) fail_msg("not there: %s", cells[i]);
    free(html);

    /* without an evaluation the progressive metrics alone */
    json_object_set_new(metrics, "of", json_string("progressive"));
    json_object_del(metrics, "evaluation");
    html = make_report(metrics, settings, curve);
    assert_non_null(strstr(html, "<th scope=\"row\">auc</th><td class=\"number\">0.71875</td></tr>"));
    assert_non_null(strstr(html, "<th scope=\"row\">bad rows</th><td class=\"number\">17</td></tr>"));
    free(html);
    json_decref(metrics);
    json_decref(settings);
}

static void texts_stay_in_their_places(void **state) {
    (void)state;
    json_t *metrics = make_metrics(), *plain_metrics = make_metrics(), *settings = json_pack("{s:s}", NASTY, NASTY), *none = json_object();
    json_object_set_new(json_object_get(plain_metrics, "model"), "schema", json_string("shop"));
    json_object_del(plain_metrics, "nasty");
    const ct_report_input input = {
        .title = "T", .metrics = plain_metrics, .curve = curve, .settings = none, .model_file = "model: dcn-v2\n"};
    ct_status status = CT_STATUS_INIT;
    char *html = make_report(metrics, settings, curve), *plain = NULL;
    assert_int_equal(ct_report_html(&input, &plain, &status), CT_OK);
    assert_int_equal(count_of(html, "<script"), count_of(plain, "<script"));
    assert_int_equal(count_of(html, "</script"), count_of(plain, "</script"));
    assert_int_equal(count_of(html, "<!--"), count_of(plain, "<!--"));
    assert_non_null(strstr(html, "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;!-- &quot;&#39;&amp;\\"));
    assert_null(strstr(html, "@@"));
    free(html);
    free(plain);
    json_decref(metrics);
    json_decref(plain_metrics);
    json_decref(settings);
    json_decref(none);
}

static void nothing_comes_from_elsewhere(void **state) {
    (void)state;
    json_t *metrics = make_metrics(), *settings = json_object();
    char *html = make_report(metrics, settings, curve);
    assert_non_null(strstr(html, "content=\"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:\""));
    assert_true(strlen(html) > 150000); /* Chart.js is in it */
    assert_non_null(strstr(html, "Chart.js v"));
    assert_non_null(strstr(html, "Released under the MIT License"));
    assert_false(matches(html, "<[a-z]+[^>]*[[:space:]](src|href|srcset|poster|action)[[:space:]]*="));
    assert_false(matches(html, "@import|(^|[^a-z])url[(]"));
    assert_false(matches(html, "<(link|iframe|object|embed|img|base|form)[[:space:]>]"));
    /* Addresses stand in Chart.js's comments only. */
    for (const char *at = html; (at = strstr(at, "://")) != NULL; at++) {
        const char *comment = at;
        while (comment > html && strncmp(comment, "/*", 2) != 0 && strncmp(comment, "*/", 2) != 0) comment--;
        if (strncmp(comment, "/*", 2) != 0) fail_msg("an address: %.60s", at - 10);
    }
    free(html);
    json_decref(metrics);
    json_decref(settings);
}

static void a_curve_that_is_none_is_refused(void **state) {
    (void)state;
    json_t *metrics = make_metrics(), *settings = json_object();
    const ct_report_input input = {
        .title = "T", .metrics = metrics, .curve = "{\"rows\":1}\n{rows\n", .settings = settings, .model_file = ""};
    ct_status status = CT_STATUS_INIT;
    char *html = NULL;
    assert_int_equal(ct_report_html(&input, &html, &status), CT_INVALID);
    assert_int_equal(status.code, CT_INVALID);
    assert_non_null(strstr(status.message, "curve"));
    assert_null(html);
    json_decref(metrics);
    json_decref(settings);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(islands_hold_what_went_in),       cmocka_unit_test(tables_hold_the_numbers),
        cmocka_unit_test(texts_stay_in_their_places),      cmocka_unit_test(nothing_comes_from_elsewhere),
        cmocka_unit_test(a_curve_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
