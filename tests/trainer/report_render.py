"""Opens the train.html of model folders in Chromium without a window and looks at what is there.

Usage: report_render.py FOLDER_WITH_EVALUATION FOLDER_WITHOUT [SCREENSHOT.png]
"""

import json
import os
import sys

from selenium.webdriver.common.by import By

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from browser import open_browser

CHARTS = ["loss", "auc", "speed", "calibration"]

# Colours that a canvas holds, by how many pixels; the background of a blank one is transparent black alone.
COLOURS = """
const canvas = document.getElementById(arguments[0]);
const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
const counts = {};
for (const pixel of pixels) counts[pixel] = (counts[pixel] || 0) + 1;
return counts;
"""
LINE, MARK = (0x25, 0x63, 0xA8), (0xC2, 0x41, 0x0C)


def pixels_of(counts, colour):
    red, green, blue = colour
    return counts.get(str(0xFF000000 | blue << 16 | green << 8 | red), 0)


def table(driver):
    """{name: cells} of every row of every table whose first cell is a heading."""
    rows = {}
    for row in driver.find_elements(By.CSS_SELECTOR, "tbody tr"):
        name = row.find_element(By.TAG_NAME, "th").text
        rows.setdefault(name, [cell.text for cell in row.find_elements(By.TAG_NAME, "td")])
    return rows


def check_log(driver):
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors, errors


def island(driver, name):
    return json.loads(driver.find_element(By.ID, name).get_attribute("textContent"))


def open_report(driver, folder):
    driver.get("file://" + os.path.abspath(os.path.join(folder, "train.html")))
    check_log(driver)
    with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as file:
        metrics = json.load(file)
    with open(os.path.join(folder, "curve.jsonl"), encoding="utf-8") as file:
        curve = [json.loads(line) for line in file]
    assert island(driver, "metrics-data") == metrics
    assert island(driver, "curve-data") == curve
    return metrics, curve


def check_evaluated(driver, folder, screenshot):
    metrics, curve = open_report(driver, folder)
    assert metrics["of"] == "evaluation" and len(curve) == 11, (metrics["of"], len(curve))
    rows = table(driver)
    for name in ("auc", "log_loss", "calibration"):
        shown = [float(cell) for cell in rows[name.replace("_", " ")]]
        wanted = [metrics[name], metrics["progressive"][name]]
        assert all(abs(a - b) < 1e-7 * abs(b) for a, b in zip(shown, wanted)), (name, shown, wanted)
    assert rows["bad rows"] == ["0", "0"], rows["bad rows"]
    assert "model: lr" in driver.find_element(By.TAG_NAME, "pre").text
    for chart in CHARTS:
        counts = driver.execute_script(COLOURS, chart)
        assert len(counts) > 20, (chart, "is blank", counts)
        # Lines and points of the data, and the mark of the evaluation or the diagonal.
        assert pixels_of(counts, LINE) > 20, (chart, "has no line")
        assert pixels_of(counts, MARK) > 5, (chart, "has no mark")
    # What Chart.js was given, asked from itself.
    points = driver.execute_script("return Chart.getChart('loss').data.datasets[0].data.map(point => [point.x, point.y])")
    assert points == [[point["rows"], point["log_loss"]] for point in curve], points
    speeds = driver.execute_script("return Chart.getChart('speed').data.datasets[0].data.map(point => point.y)")
    seconds = [0] + [point["seconds"] for point in curve]
    counts = [0] + [point["rows"] for point in curve]
    for i, speed in enumerate(speeds):
        wanted = (counts[i + 1] - counts[i]) / (seconds[i + 1] - seconds[i])
        assert abs(speed - wanted) < 1e-6 * wanted, (speed, wanted)
    bins = driver.execute_script("return Chart.getChart('calibration').data.datasets[0].data.map(point => [point.x, point.y])")
    assert bins == [[bin_["mean_prediction"], bin_["click_rate"]] for bin_ in metrics["calibration_table"]], bins
    if screenshot:
        driver.save_screenshot(screenshot)


def check_short(driver, folder):
    metrics, curve = open_report(driver, folder)
    assert metrics["of"] == "progressive" and not curve
    assert "shorter" in driver.find_element(By.ID, "loss-note").text
    assert "--eval" in driver.find_element(By.ID, "calibration-note").text
    assert len(table(driver)["auc"]) == 1
    assert pixels_of(driver.execute_script(COLOURS, "loss"), MARK) > 5, "the whole run's loss is not marked"


def main(evaluated, short, screenshot=None):
    with open_browser(1280, 2000) as driver:
        check_evaluated(driver, evaluated, screenshot)
        check_short(driver, short)


if __name__ == "__main__":
    main(*sys.argv[1:])
