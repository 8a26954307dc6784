/* The sections that only a report of a server's experiment has, for the page. */
#include "experiment/online_render_internal.h"

static void begin(ct_page *page, const char *title, const char *head) {
    ct_page_printf(page, "<section><h2>%s</h2><table><thead><tr>%s</tr></thead>\n<tbody>\n", title, head);
}

static void end(ct_page *page, const char *note) {
    ct_page_put(page, "</tbody></table>");
    if (note != NULL) ct_page_printf(page, "<p class=\"note\">%s</p>", note);
    ct_page_put(page, "</section>\n");
}

static void put_head(ct_page *page, const char *name) {
    ct_page_put(page, "<tr><th scope=\"row\">");
    ct_page_escaped(page, name);
    ct_page_put(page, "</th>");
}

static void put_metrics(ct_page *page, const json_t *report) {
    const json_t *metric = NULL;
    size_t i = 0;
    json_array_foreach(member(report, "metrics"), i, metric) {
        ct_page_put(page, "<section><h2>");
        ct_page_escaped(page, text_of(metric, "metric"));
        ct_page_put(page, "</h2>");
        online_page_differences(page, metric);
        ct_page_put(page, "</section>\n");
    }
}

static void put_quantile(ct_page *page, const json_t *latency, const char *name) {
    const json_t *value = member(latency, name);
    if (json_is_number(member(value, "value")))
        ct_page_printf(page, "<td>%.0f [%.0f, %.0f]</td>", number(value, "value"), number(value, "low"), number(value, "high"));
    else
        ct_page_put(page, "<td></td>");
}

static void put_guardrails(ct_page *page, const json_t *report) {
    const json_t *guardrails = member(report, "guardrails"), *one = NULL;
    size_t i = 0;
    begin(page, "Guardrails",
          "<th>arm</th><th>requests</th><th>errors</th><th>error rate</th><th>latency p50, us</th><th>p95</th><th>p99</th>");
    json_array_foreach(member(guardrails, "arms"), i, one) {
        put_head(page, text_of(one, "name"));
        ct_page_printf(page, "<td>%.0f</td><td>%.0f</td><td>%.4f %%</td>", number(one, "requests"), number(one, "errors"),
                       100.0 * number(member(one, "error_rate"), "value"));
        put_quantile(page, member(one, "latency_us"), "p50");
        put_quantile(page, member(one, "latency_us"), "p95");
        put_quantile(page, member(one, "latency_us"), "p99");
        ct_page_put(page, "</tr>\n");
    }
    ct_page_put(page,
                "</tbody></table><table><thead><tr><th>B</th><th>of</th><th>B - A</th><th>at one fixed time</th><th>whenever you "
                "look</th><th>verdict</th></tr></thead>\n<tbody>\n");
    json_array_foreach(member(guardrails, "differences"), i, one) {
        put_head(page, text_of(one, "b"));
        ct_page_printf(page, "<td>%s</td>", text_of(one, "of"));
        online_page_difference(page, member(one, "estimate"));
        online_page_range(page, member(one, "fixed"));
        online_page_range(page, member(one, "sequence"));
        ct_page_printf(page, "<td>%s</td></tr>\n", text_of(one, "verdict"));
    }
    end(page, "Requests of a unit are taken together. More is worse.");
}

static void put_scores(ct_page *page, const json_t *report) {
    static const char *const columns[] = {"rows", "clicks",      "log_loss",        "normalized_entropy",
                                          "auc",  "calibration", "mean_prediction", "expected_calibration_error"};
    const json_t *one = NULL;
    size_t i = 0;
    begin(page, "Scores of what was shown",
          "<th>arm</th><th>shown</th><th>positive</th><th>log loss</th><th>normalised entropy</th><th>AUC</th><th>calibration</th><th>mean "
          "prediction</th><th>calibration error</th>");
    json_array_foreach(member(report, "scores"), i, one) {
        put_head(page, text_of(one, "name"));
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) ct_page_cell(page, member(one, columns[c]));
        ct_page_put(page, "</tr>\n");
    }
    end(page, "Each arm's model is judged on what it chose to show, so arms are not compared here. Calibration is predicted over seen.");
}

static void put_calibration(ct_page *page, const json_t *report) {
    const json_t *one = NULL, *bin = NULL;
    size_t i = 0, j = 0;
    begin(page, "Calibration", "<th>arm</th><th>predictions from</th><th>to</th><th>shown</th><th>mean prediction</th><th>rate seen</th>");
    json_array_foreach(member(report, "scores"), i, one) json_array_foreach(member(one, "calibration_table"), j, bin) {
        put_head(page, text_of(one, "name"));
        ct_page_printf(page, "<td>%.4f</td><td>%.4f</td><td>%.0f</td><td>%.5f</td><td>%.5f</td></tr>\n", number(bin, "low"),
                       number(bin, "high"), number(bin, "rows"), number(bin, "mean_prediction"), number(bin, "click_rate"));
    }
    end(page, NULL);
}

static void put_drift(ct_page *page, const json_t *report) {
    const json_t *one = NULL;
    size_t i = 0;
    if (!json_is_array(member(report, "drift"))) return;
    begin(page, "Drift from training",
          "<th>feature</th><th>index</th><th>by chance</th><th>unseen, at least</th><th>missing in training</th><th>missing as "
          "served</th><th></th>");
    json_array_foreach(member(report, "drift"), i, one) {
        put_head(page, text_of(one, "feature"));
        ct_page_printf(page, "<td>%.4f</td><td>%.4f</td>", number(one, "psi"), number(one, "expected"));
        ct_page_cell(page, member(one, "unseen"));
        ct_page_printf(page, "<td>%.4f</td><td>%.4f</td><td>%s</td></tr>\n", number(member(one, "missing"), "training"),
                       number(member(one, "missing"), "served"), text_of(one, "verdict"));
    }
    end(page,
        "Population stability index between the training rows and what was shown, over 10 quantiles of a number or 32 hash buckets of "
        "an id. Beyond chance, 0.1 is a shift and 0.25 a strong one.");
}

static void put_slices(ct_page *page, const json_t *report) {
    const json_t *feature = NULL, *slice = NULL, *one = NULL;
    size_t i = 0, j = 0, k = 0;
    json_array_foreach(member(report, "slices"), i, feature) {
        char value[128];
        ct_page_put(page, "<section><h2>By ");
        ct_page_escaped(page, text_of(feature, "feature"));
        ct_page_put(page,
                    "</h2><table><thead><tr><th>slice</th><th>B</th><th>shown</th><th>A</th><th>B</th><th>B - A</th><th>at one fixed "
                    "time</th><th>whenever you look</th></tr></thead>\n<tbody>\n");
        json_array_foreach(member(feature, "slices"), j, slice) json_array_foreach(member(slice, "differences"), k, one) {
            put_head(page, online_slice_name(slice, value, sizeof value));
            ct_page_put(page, "<td>");
            ct_page_escaped(page, text_of(one, "b"));
            ct_page_printf(page, "</td><td>%.0f</td>", number(slice, "shown"));
            online_page_mean(page, member(one, "mean_a"));
            online_page_mean(page, member(one, "mean_b"));
            online_page_difference(page, member(one, "estimate"));
            online_page_range(page, member(one, "fixed"));
            online_page_range(page, member(one, "sequence"));
            ct_page_put(page, "</tr>\n");
        }
        ct_page_printf(page, "</tbody></table><p class=\"note\">The intervals share alpha (%.4g each).</p></section>\n",
                       number(feature, "alpha"));
    }
}

static void put_counts(ct_page *page, const json_t *counts, const char *what) {
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)(uintptr_t)counts, name, value) {
        ct_page_printf(page, "<tr><th scope=\"row\">%s: ", what);
        ct_page_name(page, name);
        ct_page_put(page, "</th>");
        ct_page_cell(page, value);
        ct_page_put(page, "</tr>\n");
    }
}

static void put_left_out(ct_page *page, const json_t *report) {
    const json_t *left_out = member(report, "left_out");
    char assigned[256];
    begin(page, "What was read and left out", "<th></th><th></th>");
    ct_page_put(page, "<tr><th scope=\"row\">requests not compared, by how their arm was assigned</th><td>");
    ct_page_escaped(page, online_assigned_text(left_out, assigned, sizeof assigned)[0] != '\0' ? assigned : "none");
    ct_page_printf(page, "</td></tr>\n<tr><th scope=\"row\">requests of other experiments</th><td>%.0f</td></tr>\n",
                   number(left_out, "other_experiments"));
    put_counts(page, member(left_out, "exposures"), "exposures");
    put_counts(page, member(left_out, "feedback"), "feedback");
    end(page, NULL);
}

void online_page_live(ct_page *page, const json_t *report) {
    put_metrics(page, report);
    put_guardrails(page, report);
    put_scores(page, report);
    put_calibration(page, report);
    put_drift(page, report);
    put_slices(page, report);
    put_left_out(page, report);
}
