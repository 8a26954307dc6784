/* The report of a comparison as a page: experiment/compare_page.html with its marks filled from the JSON alone. */
#include <string.h>

#include "experiment/compare.h"
#include "experiment/report_internal.h"
#include "experiment/report_resources.h"
#include "trainer/page.h"

static void put_number(ct_page *page, const json_t *value) {
    ct_page_put(page, "<td>");
    if (json_is_number(value)) ct_page_printf(page, "%.4f", json_number_value(value));
    ct_page_put(page, "</td>");
}

static void put_count(ct_page *page, double value) { ct_page_printf(page, "<td>%.0f</td>", value); }

static void put_title(ct_page *page, const void *report) {
    ct_page_put(page, "Comparison of ");
    ct_page_printf(page, "%zu", json_array_size(member(report, "arms")));
    ct_page_put(page, " arms on ");
    ct_page_escaped(page, text_of(report, "schema"));
}

static void put_lead(ct_page *page, const void *report) {
    const json_t *rows = member(report, "rows"), *units = member(report, "units");
    ct_page_put(page, "Trained on ");
    ct_page_value(page, member(rows, "train"));
    ct_page_put(page, " rows, tested on ");
    ct_page_value(page, member(rows, "test"));
    ct_page_put(page, " with ");
    ct_page_value(page, member(report, "test_clicks"));
    ct_page_printf(page, " clicks; %zu seeds; ", json_array_size(member(report, "seeds")));
    ct_page_value(page, member(report, "draws"));
    ct_page_put(page, " bootstrap draws of ");
    ct_page_value(page, member(units, "units"));
    if (strcmp(text_of(units, "by"), "field") == 0) {
        ct_page_put(page, " units (field ");
        ct_page_escaped(page, text_of(units, "field"));
        ct_page_put(page, ")");
    } else {
        ct_page_put(page, " stretches of consecutive rows, as there is no unit");
    }
    ct_page_put(page, " and of seeds.");
}

static void put_words(ct_page *page, const void *report) {
    const json_t *comparison = NULL;
    size_t i = 0;
    ct_page_put(page, "<ul>\n");
    json_array_foreach(member(report, "comparisons"), i, comparison) {
        ct_page_put(page, "<li>");
        ct_page_escaped(page, text_of(comparison, "words"));
        ct_page_put(page, "</li>\n");
    }
    ct_page_put(page, "</ul>");
}

static void put_warnings(ct_page *page, const void *report) {
    const json_t *warnings = member(report, "warnings"), *warning = NULL;
    size_t i = 0;
    if (json_array_size(warnings) == 0) return;
    ct_page_put(page, "<section><h2>Warnings</h2><ul>\n");
    json_array_foreach(warnings, i, warning) {
        ct_page_put(page, "<li>");
        ct_page_escaped(page, json_string_value(warning));
        ct_page_put(page, "</li>\n");
    }
    ct_page_put(page, "</ul></section>");
}

static void put_arms(ct_page *page, const void *report) {
    static const char *const metrics[] = {"auc", "grouped_auc", "log_loss", "normalized_entropy", "calibration"};
    const json_t *arm = NULL;
    size_t i = 0;
    ct_page_put(page,
                "<table><thead><tr><th>arm</th><th>AUC</th><th>+-</th><th>grouped AUC</th><th>log loss</th><th>normalised entropy</th>"
                "<th>calibration</th><th>best epochs</th><th>rows/s</th><th>parameters</th><th>table bytes</th></tr></thead>\n<tbody>\n");
    json_array_foreach(member(report, "arms"), i, arm) {
        const json_t *test = member(arm, "test");
        ct_page_put(page, "<tr><th scope=\"row\">");
        ct_page_escaped(page, text_of(arm, "name"));
        if (strcmp(text_of(arm, "kind"), "own") != 0) {
            ct_page_put(page, strcmp(text_of(arm, "kind"), "placebo") == 0 ? " (placebo of " : " (A/A of ");
            ct_page_escaped(page, text_of(arm, "of"));
            ct_page_put(page, ")");
        }
        ct_page_put(page, "</th>");
        for (size_t m = 0; m < sizeof metrics / sizeof *metrics; m++) {
            put_number(page, member(member(test, metrics[m]), "mean"));
            if (m == 0) put_number(page, member(member(test, metrics[m]), "deviation"));
        }
        ct_page_put(page, "<td>");
        const json_t *epochs = member(arm, "best_epochs");
        for (size_t s = 0; s < json_array_size(epochs); s++)
            ct_page_printf(page, "%s%lld", s > 0 ? " " : "", (long long)json_integer_value(json_array_get(epochs, s)));
        ct_page_put(page, "</td>");
        put_count(page, json_number_value(member(arm, "rows_per_second")));
        put_count(page, json_number_value(member(arm, "parameters")));
        put_count(page, json_number_value(member(arm, "table_bytes")));
        ct_page_put(page, "</tr>\n");
    }
    ct_page_put(page, "</tbody></table>");
}

static void put_interval(ct_page *page, const json_t *metric) {
    if (!json_is_number(member(metric, "low"))) {
        ct_page_put(page, "<td></td>");
        return;
    }
    ct_page_printf(page, "<td>%+.4f [%+.4f, %+.4f]</td>", json_number_value(member(metric, "difference")),
                   json_number_value(member(metric, "low")), json_number_value(member(metric, "high")));
}

static void put_comparison(ct_page *page, const json_t *report, const json_t *comparison) {
    static const char *const all[][2] = {
        {"grouped_auc", "grouped AUC"}, {"auc", "AUC"}, {"log_loss", "log loss"}, {"ndcg", "nDCG"}, {"mrr", "MRR"}};
    const bool grouped = json_is_string(member(report, "grouped_by"));
    const json_t *slice = NULL;
    size_t i = 0;
    ct_page_put(page, "<section><h2>B = ");
    ct_page_escaped(page, text_of(comparison, "b"));
    ct_page_put(page, " against A = ");
    ct_page_escaped(page, text_of(comparison, "a"));
    ct_page_put(page, "</h2><table><thead><tr><th>slice</th><th>rows</th><th>clicks</th>");
    for (size_t m = 0; m < sizeof all / sizeof *all; m++) {
        if (!grouped && m != 1 && m != 2) continue;
        ct_page_printf(page, "<th>%s, B - A</th>", all[m][1]);
    }
    ct_page_put(page, "<th>p, corrected</th><th>verdict</th></tr></thead>\n<tbody>\n");
    json_array_foreach(member(comparison, "slices"), i, slice) {
        const char *of = text_of(slice, "of"), *verdict = text_of(slice, "verdict");
        const bool is_field = strcmp(of, "all") != 0 && strcmp(of, "items") != 0 && strcmp(of, "units") != 0;
        ct_page_put(page, "<tr><th scope=\"row\">");
        if (is_field) {
            ct_page_escaped(page, of);
            ct_page_put(page, " ");
        }
        ct_page_escaped(page, text_of(slice, "slice"));
        if (strcmp(of, "items") == 0) ct_page_put(page, " items");
        ct_page_put(page, "</th>");
        put_count(page, json_number_value(member(slice, "rows")));
        put_count(page, json_number_value(member(slice, "clicks")));
        for (size_t m = 0; m < sizeof all / sizeof *all; m++)
            if (grouped || m == 1 || m == 2) put_interval(page, member(slice, all[m][0]));
        put_number(page, member(slice, "p_corrected"));
        ct_page_put(page, strcmp(verdict, "B better") == 0   ? "<td class=\"better\">"
                          : strcmp(verdict, "A better") == 0 ? "<td class=\"worse\">"
                                                             : "<td>");
        ct_page_escaped(page, verdict);
        ct_page_put(page, "</td></tr>\n");
    }
    ct_page_put(page, "</tbody></table></section>\n");
}

static void put_comparisons(ct_page *page, const void *report) {
    const json_t *comparison = NULL;
    size_t i = 0;
    json_array_foreach(member(report, "comparisons"), i, comparison) put_comparison(page, report, comparison);
}

static void put_notes(ct_page *page, const void *report) {
    const json_t *overlap = member(report, "overlap");
    ct_page_put(page,
                "<ul>\n<li>Brackets hold 95 % intervals from a bootstrap that draws units and seeds together; both arms of a pair see the "
                "same draws. They are not corrected for the number of pairs.</li>\n<li>A verdict goes by the ");
    ct_page_put(page, strcmp(text_of(report, "decided_by"), "grouped_auc") == 0 ? "grouped AUC (field " : "AUC (no field groups the rows");
    if (strcmp(text_of(report, "decided_by"), "grouped_auc") == 0) ct_page_escaped(page, text_of(report, "grouped_by"));
    ct_page_put(
        page,
        "). \"Better\" needs an interval that leaves out 0 and a p of at most 0.05 after Holm's correction over the pairs of "
        "the slice; \"not sure\" fails the latter; \"no difference shown\" is not \"no difference\".</li>\n<li>Items by their "
        "training rows: new 0, cold below 5 (new ones too), warm 5 to 99, hot 100 or more. Units: old ones are in training.</li>\n<li>");
    ct_page_value(page, member(overlap, "repeated_rows"));
    ct_page_put(page, " training rows are also test rows; ");
    ct_page_value(page, member(overlap, "later_rows"));
    ct_page_put(page,
                " are later than the first test row.</li>\n<li>Offline rows were chosen by whatever system was live: this says which "
                "arm predicts them better, not which earns more clicks.</li>\n</ul>");
}

static void put_json(ct_page *page, const void *report) { ct_page_island(page, report); }

ct_code ct_compare_html(const json_t *report, char **out_html, ct_status *status) {
    static const ct_page_mark marks[] = {
        {"TITLE", put_title}, {"LEAD", put_lead},   {"WORDS", put_words},      {"WARNINGS", put_warnings},
        {"ARMS", put_arms},   {"NOTES", put_notes}, {"REPORT_JSON", put_json}, {"COMPARISONS", put_comparisons},
    };
    return ct_page_make(ct_compare_page, ct_compare_page_bytes, marks, sizeof marks / sizeof *marks, report, out_html, status);
}
