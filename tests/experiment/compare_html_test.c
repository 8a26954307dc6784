/* The page of a comparison: it stands alone, its numbers are the report's, and no name gets out of its place. */
#include "experiment/compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVIL "</script><b a=\"1\">&'"

static json_t *report_of(bool grouped) {
    json_t *metric = json_pack("{s:f, s:f, s:f, s:f, s:f}", "a", 0.7, "b", 0.71, "difference", 0.01234, "low", 0.002, "high", 0.02);
    json_t *none = json_pack("{s:n, s:n, s:n}", "difference", "low", "high");
    json_t *report = json_pack(
        "{s:s, s:[i, i], s:i, s:i, s:{s:i, s:i}, s:i, s:{s:s, s:s, s:i}, s:[{s:s, s:s, s:n, s:{s:{s:f, s:f}}, s:[i], s:f, s:i, s:i}, "
        "{s:s, s:s, s:s, s:{}}], s:[{s:s, s:s, s:s, s:[{s:s, s:s, s:i, s:i, s:O, s:O, s:f, s:s}, {s:s, s:s, s:i, s:i, s:O, s:O, s:n, "
        "s:s}]}], s:n, s:[s], s:s, s:{s:i, s:i}}",
        "schema", EVIL, "seeds", 1, 2, "draws", 1000, "test_clicks", 25, "rows", "train", 900, "test", 100, "ndcg_at", 10, "units", "by",
        "field", "field", EVIL, "units", 50, "arms", "name", EVIL, "kind", "own", "of", "test", "auc", "mean", 0.7123, "deviation", 0.001,
        "best_epochs", 3, "rows_per_second", 1000.0, "parameters", 77, "table_bytes", 88, "name", "p", "kind", "placebo", "of", EVIL,
        "test", "comparisons", "a", EVIL, "b", "p", "words", "B = p against A = " EVIL, "slices", "of", "all", "slice", "all", "rows", 100,
        "clicks", 25, "auc", metric, "grouped_auc", metric, "p_corrected", 0.0125, "verdict", "B better", "of", EVIL, "slice", EVIL, "rows",
        10, "clicks", 2, "auc", none, "grouped_auc", none, "p_corrected", "verdict", "too few clicks", "item_curve", "warnings", EVIL,
        "decided_by", grouped ? "grouped_auc" : "auc", "overlap", "repeated_rows", 4, "later_rows", 5);
    assert_non_null(report);
    json_object_set_new(json_array_get(json_object_get(report, "arms"), 0), "train_seconds", json_real(12.34));
    json_object_set_new(report, "features",
                        json_pack("[{s:s, s:f, s:f, s:f}, {s:s, s:n, s:n, s:n}]", "name", EVIL, "auc", 0.6789, "distinct", 4321.0,
                                  "new_in_test", 0.125, "name", "I1", "auc", "distinct", "new_in_test"));
    json_object_set_new(report, "grouped_by", grouped ? json_string(EVIL) : json_null());
    json_decref(metric);
    json_decref(none);
    return report;
}

static size_t count_of(const char *text, const char *words) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, words)) != NULL; at += strlen(words)) count++;
    return count;
}

static void test_page(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    for (int grouped = 0; grouped < 2; grouped++) {
        json_t *report = report_of(grouped);
        char *html = NULL;
        assert_int_equal(ct_compare_html(report, &html, &status), CT_OK);
        assert_null(strstr(html, "<b a="));
        assert_null(strstr(html, "@@"));
        assert_non_null(strstr(html, "&lt;/script&gt;&lt;b a=&quot;1&quot;&gt;&amp;&#39;"));
        assert_non_null(strstr(html, "default-src 'none'"));
        assert_non_null(strstr(html, "Chart.js v"));
        assert_null(strstr(html, "src=\"http"));
        assert_int_equal(count_of(html, "+0.0123 [+0.0020, +0.0200]"), grouped ? 2 : 1);
        assert_non_null(strstr(html, "<td class=\"better\">B better</td>"));
        assert_non_null(strstr(html, "<td>0.0125</td>"));
        assert_non_null(strstr(html, "(placebo of &lt;/script"));
        assert_non_null(strstr(html, "<td>0.7123</td>"));
        assert_non_null(strstr(html, "<td>12.3</td><td>1000</td><td>77</td><td>88</td></tr>"));
        assert_non_null(strstr(html, "</th><td>0.6789</td><td>4321</td><td>12.5 %</td></tr>"));
        assert_non_null(strstr(html, "I1</th><td></td><td></td><td></td></tr>"));
        /* The island gives the report back. */
        const char *island = strstr(html, "id=\"report-data\">") + strlen("id=\"report-data\">");
        json_t *read = json_loadb(island, (size_t)(strstr(island, "</script>") - island), 0, NULL);
        assert_true(json_equal(read, report));
        json_decref(read);
        json_decref(report);
        free(html);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_page)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
