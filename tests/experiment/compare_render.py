"""Opens the compare.html of a comparison in Chromium without a window and looks at what is there.

Usage: compare_render.py FOLDER [SCREENSHOT.png]
"""

import json
import os
import sys

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from browser import open_browser

COLOURS = """
const canvas = document.getElementById(arguments[0]);
return new Set(new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
"""
POINTS = "return Chart.getChart('differences').data.datasets.map(set => set.data)"


def check(driver, folder, screenshot):
    driver.get("file://" + os.path.abspath(os.path.join(folder, "compare.html")))
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors, errors
    with open(os.path.join(folder, "compare.json"), encoding="utf-8") as file:
        report = json.load(file)
    for chart in ("differences", "curve"):
        assert driver.execute_script(COLOURS, chart) > 20, (chart, "is blank")
    # Every pair and metric: the points are the report's.
    pair, metric = Select(driver.find_element(By.ID, "pair")), Select(driver.find_element(By.ID, "metric"))
    assert len(pair.options) == len(report["comparisons"])
    assert [option.get_attribute("value") for option in metric.options][0] == report["decided_by"]
    for i, comparison in enumerate(report["comparisons"]):
        pair.select_by_index(i)
        for name in [option.get_attribute("value") for option in metric.options]:
            metric.select_by_value(name)
            wanted = [one[name] for one in comparison["slices"] if one[name]["low"] is not None]
            points, bars = driver.execute_script(POINTS)
            assert points == [one["difference"] for one in wanted], (i, name)
            assert bars == [[one["low"], one["high"]] for one in wanted], (i, name)
    lines = driver.execute_script("return Chart.getChart('curve').data.datasets.map(set => [set.label, set.data])")
    assert lines == [[arm["name"], [step["auc"][a] for step in report["item_curve"]]] for a, arm in enumerate(report["arms"])]
    text = driver.find_element(By.TAG_NAME, "main").text
    for comparison in report["comparisons"]:
        assert comparison["words"] in text
    # The cost of each arm stands beside its quality.
    arms = driver.find_element(By.XPATH, "//section[h2='Arms']/table")
    head = [cell.text for cell in arms.find_elements(By.CSS_SELECTOR, "thead th")]
    for i, arm in enumerate(report["arms"]):
        row = dict(zip(head, [cell.text for cell in arms.find_elements(By.CSS_SELECTOR, "tbody tr")[i].find_elements(By.CSS_SELECTOR, "th, td")]))
        assert row["AUC"] == "%.4f" % arm["test"]["auc"]["mean"], row
        wanted = {"training, s": "%.1f" % arm["train_seconds"], "rows/s": "%.0f" % arm["rows_per_second"], "parameters": str(arm["parameters"]),
                  "table bytes": str(arm["table_bytes"])}
        assert {name: row[name] for name in wanted} == wanted, (row, wanted)
    features = driver.find_elements(By.XPATH, "//section[h2[starts-with(.,'Each feature')]]//tbody/tr")
    assert [row.text.split()[:2] for row in features] == [[one["name"], "%.4f" % one["auc"]] for one in report["features"]]
    if screenshot:
        driver.save_screenshot(screenshot)


def main(folder, screenshot=None):
    with open_browser(1280, 2400) as driver:
        check(driver, folder, screenshot)


if __name__ == "__main__":
    main(*sys.argv[1:])
