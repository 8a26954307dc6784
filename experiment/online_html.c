/* The report of an experiment as a page: experiment/online_page.html with its marks filled from the JSON alone. */
#include "experiment/online_render_internal.h"
#include "experiment/report_resources.h"

static void put_title(ct_page *page, const void *report) {
    ct_page_put(page, "Experiment: ");
    ct_page_escaped(page, text_of(report, is_live(report) ? "experiment" : "table"));
}

static void put_list(ct_page *page, const json_t *texts, const char *of) {
    const json_t *one = NULL;
    size_t i = 0;
    ct_page_put(page, "<ul>\n");
    json_array_foreach(texts, i, one) {
        ct_page_put(page, "<li>");
        ct_page_escaped(page, of != NULL ? text_of(one, of) : json_string_value(one));
        ct_page_put(page, "</li>\n");
    }
    ct_page_put(page, "</ul>");
}

static void put_words(ct_page *page, const void *report) { put_list(page, member(report, "differences"), "words"); }

static void put_warnings(ct_page *page, const void *report) {
    if (json_array_size(member(report, "warnings")) == 0) return;
    ct_page_put(page, "<section><h2>Warnings</h2>");
    put_list(page, member(report, "warnings"), NULL);
    ct_page_put(page, "</section>");
}

static void put_arms(ct_page *page, const void *report) {
    const json_t *arm = NULL;
    size_t i = 0;
    ct_page_put(page,
                "<table><thead><tr><th>arm</th><th>units</th><th>rows</th><th>value</th><th>count</th><th>mean</th><th>95 % interval</th>"
                "</tr></thead>\n<tbody>\n");
    json_array_foreach(member(report, "arms"), i, arm) {
        ct_page_put(page, "<tr><th scope=\"row\">");
        ct_page_escaped(page, text_of(arm, "name"));
        ct_page_printf(page, "%s</th><td>%.0f</td><td>%.0f</td><td>%.8g</td><td>%.8g</td>",
                       json_is_true(member(arm, "control")) ? " (control)" : "", number(arm, "units"), number(arm, "rows"),
                       number(arm, "value"), number(arm, "count"));
        online_page_mean(page, member(arm, "mean"));
        if (json_is_number(member(arm, "mean_low")))
            ct_page_printf(page, "<td>[%.5g, %.5g]</td></tr>\n", number(arm, "mean_low"), number(arm, "mean_high"));
        else
            ct_page_put(page, "<td></td></tr>\n");
    }
    ct_page_put(page, "</tbody></table>");
}

static void put_range_times(ct_page *page, const json_t *range, double times, const char *unit) {
    if (json_is_number(member(range, "low")))
        ct_page_printf(page, "<td>[%+.4g%s, %+.4g%s]</td>", times * number(range, "low"), unit, times * number(range, "high"), unit);
    else
        ct_page_put(page, "<td></td>");
}

void online_page_range(ct_page *page, const json_t *range) { put_range_times(page, range, 1.0, ""); }

void online_page_mean(ct_page *page, const json_t *value) {
    if (json_is_number(value))
        ct_page_printf(page, "<td>%.6g</td>", json_number_value(value));
    else
        ct_page_put(page, "<td></td>");
}

static void put_times(ct_page *page, const json_t *value, double times, const char *unit) {
    if (json_is_number(value))
        ct_page_printf(page, "<td>%+.5g%s</td>", times * json_number_value(value), unit);
    else
        ct_page_put(page, "<td></td>");
}

void online_page_difference(ct_page *page, const json_t *value) { put_times(page, value, 1.0, ""); }

static void put_row(ct_page *page, const char *name, const json_t *of, double times, const char *unit, const char *verdict) {
    ct_page_put(page, "<tr><th scope=\"row\">");
    ct_page_escaped(page, name);
    ct_page_put(page, "</th>");
    put_times(page, member(of, "estimate"), times, unit);
    put_range_times(page, member(of, "fixed"), times, unit);
    put_range_times(page, member(of, "sequence"), times, unit);
    ct_page_printf(page, "<td>%s</td></tr>\n", verdict);
}

void online_page_differences(ct_page *page, const json_t *report) {
    const json_t *one = NULL;
    size_t i = 0;
    ct_page_put(
        page,
        "<table><thead><tr><th>B</th><th>B - A</th><th>at one fixed time</th><th>whenever you look</th><th>verdict</th></tr></thead>"
        "\n<tbody>\n");
    json_array_foreach(member(report, "differences"), i, one) {
        const json_t *cuped = member(one, "cuped"), *lift = member(one, "lift");
        put_row(page, text_of(one, "b"), one, 1.0, "", json_is_object(cuped) ? "" : text_of(one, "verdict"));
        if (json_is_object(cuped)) put_row(page, "with the covariate", cuped, 1.0, "", text_of(one, "verdict"));
        put_row(page, "lift, B / A - 1", lift, 100.0, "%", "");
    }
    ct_page_put(page, "</tbody></table>");
}

static void put_differences(ct_page *page, const void *report) { online_page_differences(page, report); }

static void put_live(ct_page *page, const void *report) {
    if (is_live(report)) online_page_live(page, report);
}

static void put_notes(ct_page *page, const void *report) {
    ct_page_printf(
        page,
        "<ul>\n<li>Values are sums over counts, with the unit as cluster (delta method).</li>\n<li>A verdict goes by the confidence "
        "sequence (alpha %.4g), which holds at all times at once; it is narrowest at %.0f units.</li>\n<li>The split of the units has p "
        "%.3g; below 0.001 there is no verdict.</li>\n<li>\"No difference shown\" is not \"no difference\".</li>\n</ul>",
        number(report, "sequence_alpha"), number(report, "plan"), number(member(report, "sample_ratio"), "p"));
}

static void put_json(ct_page *page, const void *report) { ct_page_island(page, report); }

ct_code ct_online_html(const json_t *report, char **out_html, ct_status *status) {
    static const ct_page_mark marks[] = {
        {"TITLE", put_title}, {"WORDS", put_words}, {"WARNINGS", put_warnings}, {"ARMS", put_arms}, {"DIFFERENCES", put_differences},
        {"LIVE", put_live},   {"NOTES", put_notes}, {"REPORT_JSON", put_json},
    };
    return ct_page_make(ct_online_page, ct_online_page_bytes, marks, sizeof marks / sizeof *marks, report, out_html, status);
}
