#!/usr/bin/python3
"""The page of a live experiment's report, and of a table's, in Chromium without a window: the plot over time is what the report says, and
the tables are there. Skips where Chromium or Selenium is not installed (Debian's chromium, chromium-driver and python3-selenium).

    live_report_render_test.py CLICKTOWER [SCREENSHOT.png]
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
try:
    from selenium.webdriver.common.by import By

    from browser import open_browser
    from live_log import EXPERIMENT, SCHEMA, LiveLog
except ImportError as error:
    print(f"SKIP: needs Debian's python3-selenium, python3-numpy and python3-xxhash ({error})")
    sys.exit(0)
if not shutil.which("chromium") or not shutil.which("chromedriver"):
    print("SKIP: chromium or chromedriver (package chromium-driver) is not installed")
    sys.exit(0)

PROGRAM = os.path.abspath(sys.argv[1])
SCREENSHOT = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
COLOURS = """
const canvas = document.getElementById("looks");
return new Set(new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
"""
POINTS = "return Chart.getChart('looks').data.datasets.map(set => set.data)"


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def open_page(driver, folder):
    driver.get("file://" + os.path.abspath(f"{folder}/report.html"))
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors, errors
    with open(f"{folder}/report.json", encoding="utf-8") as file:
        report = json.load(file)
    assert driver.execute_script(COLOURS) > 10, "the plot is blank"
    looks = report["differences"][0]["looks"]
    estimate, fixed_high, fixed_low, high, low = driver.execute_script(POINTS)
    assert estimate == [{"x": look["time"], "y": look["estimate"]} for look in looks]
    for line, of, end in ((fixed_high, "fixed", "high"), (fixed_low, "fixed", "low"), (high, "sequence", "high"), (low, "sequence", "low")):
        assert line == [{"x": look["time"], "y": look[of][end]} for look in looks], (of, end)
    assert report["differences"][0]["words"] in driver.find_element(By.TAG_NAME, "main").text
    return report, [heading.text for heading in driver.find_elements(By.TAG_NAME, "h2")]


def check(driver):
    report, headings = open_page(driver, "live")
    for wanted in ("Guardrails", "Scores of what was shown", "Calibration", "Drift from training", "By price", "purchase by unit",
                   "What was read and left out", "How to read this"):
        assert wanted in headings, (wanted, headings)
    text = driver.find_element(By.TAG_NAME, "main").text
    for feature in report["drift"]:
        assert f"{feature['feature']} {feature['psi']:.4f}" in text, feature
    for arm in report["guardrails"]["arms"]:
        p99 = arm["latency_us"]["p99"]
        assert f"{p99['value']:.0f} [{p99['low']:.0f}, {p99['high']:.0f}]" in text, p99
    if SCREENSHOT:
        driver.save_screenshot(SCREENSHOT)
    _, headings = open_page(driver, "table")
    assert "Guardrails" not in headings and "How to read this" in headings
    print("[       OK ] the_page_shows_the_report")


def make_reports():
    log = LiveLog(seed=4, users=1500, lift=0.3)
    log.write("log", seed=4)
    write("shop.yaml", SCHEMA)
    write("ranker.yaml", EXPERIMENT)
    write("training.tsv", log.truth())
    write("table.csv", "unit,time,arm,value\n" + "".join(f"u{i},{i},{'ab'[i % 2]},{(i * 7 + i // 3) % 5 < 2 + i % 2}\n" for i in range(600))
          .replace("True", "1").replace("False", "0"))
    subprocess.run([PROGRAM, "report", "--exposures", "log", "--feedback", "log", "--experiment", "ranker.yaml", "--event", "purchase",
                    "--slice", "price", "--training", "training.tsv", "--schema", "shop.yaml", "--out", "live"], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run([PROGRAM, "report", "--table", "table.csv", "--out", "table"], check=True, stdout=subprocess.DEVNULL)


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
        os.chdir(work)
        os.environ["HOME"] = work  # for the browser's own files
        make_reports()
        with open_browser(1280, 3600) as driver:
            check(driver)


if __name__ == "__main__":
    main()
