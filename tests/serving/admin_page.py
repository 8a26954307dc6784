"""Opens the admin page in Chromium without a window, sends requests meanwhile, and looks at what is there.

Usage: admin_page.py URL PROGRAM GRPC_ADDRESS ROWS.tsv SCREENSHOT.png
"""

import json
import os
import subprocess
import sys
import urllib.request

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from browser import open_browser

LINE, SECOND = (0x25, 0x63, 0xA8), (0xC2, 0x41, 0x0C)

COLOURS = """
const canvas = document.getElementById(arguments[0]);
const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
const counts = {};
for (const pixel of pixels) counts[pixel] = (counts[pixel] || 0) + 1;
return counts;
"""

# Colours of the screenshot itself, as the page's own decoder sees it.
SCREENSHOT_COLOURS = """
const [png, done] = arguments, image = new Image();
image.onload = () => {
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const counts = {};
  for (const pixel of new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer)) counts[pixel] = (counts[pixel] || 0) + 1;
  done({ width: image.width, height: image.height, counts });
};
image.src = "data:image/png;base64," + png;
"""


def pixels_of(counts, colour):
    red, green, blue = colour
    return counts.get(str(0xFF000000 | blue << 16 | green << 8 | red), 0)


def text(driver, name):
    return driver.find_element(By.ID, name).text


def number(driver, name):
    return int(text(driver, name).replace(",", ""))


def table(driver, name):
    # In one call: the page draws its tables anew every two seconds.
    return driver.execute_script("return [...document.querySelectorAll(`#${arguments[0]} tr`)].map((row) => "
                                 "[...row.cells].map((cell) => cell.innerText))", name)


def readings(driver):
    return int(driver.find_element(By.TAG_NAME, "html").get_attribute("data-readings") or 0)


def wait_for(driver, what):
    WebDriverWait(driver, 600, poll_frequency=0.1).until(what)


def post(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer)


def check_experiment(driver, url):
    """Requests of units by HTTP, and feedback: the page counts them by arm."""
    assert text(driver, "experiment-note") == "ranker · ramp 100 % · hold-out 10 %", text(driver, "experiment-note")
    columns = [{"name": f"I{i}", "numbers": [1]} for i in range(1, 14)] + [{"name": f"C{i}", "tokens": ["a"]} for i in range(1, 27)]
    who = [{"unit": f"unit-{number_}"} for number_ in range(40)] + [{}, {"arm": "new"}, {"arm": "gone"}]
    answers = [post(url, "v1/score", {"candidates": columns, **given}) for given in who]
    ways = [(answer["arm"], answer["assigned"]) for answer in answers]
    assert post(url, "v1/feedback", {"events": [{"request_id": "r", "event": "shown"}, {"request_id": "r", "event": "click"}]}) == {"accepted": 2}
    wait_for(driver, lambda d: "1 shown, 1 click, 0 other" in text(d, "feedback-note") and "343 written, 0 dropped" in text(d, "exposures-note")
             and number(d, "requests") == 343)
    arms = table(driver, "arms")
    assert arms[0][:5] == ["arm", "model", "weight", "share of drawn", "drawn"], arms
    names = ["bucket", "ramp", "holdout", "forced", "outside", "fallback", "none"]
    drawn = sum(way == "bucket" for _, way in ways)
    for row, (arm, model, weight) in zip(arms[1:], (("old", "lr", 3), ("new", "fm", 1), ("gone", "none", 0)), strict=True):
        counts = [ways.count((arm, name)) for name in names]
        assert row[0] == arm + (" (control)" if arm == "old" else "") and row[1].startswith(model) and row[2] == str(weight), row
        assert ("control stands in" in row[1]) == (arm == "gone"), row
        assert [int(cell) for cell in row[4:]] == counts + [0], (row, counts)
        assert abs(float(row[3].split()[0]) - 100 * counts[0] / drawn) < 0.1, (row, counts)
    assert drawn > 20 and all(ways.count(way) for way in (("new", "bucket"), ("old", "holdout"), ("old", "none"), ("new", "outside"), ("old", "fallback")))
    return answers


def check_calibration(driver, url):
    """Requests whose candidates are shown and clicked: the page has each once, by model, arm and bucket, as counted here."""
    told, wanted, buckets = [], {}, {}
    bounds = driver.execute_script("return Chart.getChart('scores-chart').data.labels.map(Number)")
    for number_ in range(30):
        columns = [{"name": f"I{i}", "numbers": [1 + number_ + c for c in range(4)]} for i in range(1, 14)]
        columns += [{"name": f"C{i}", "tokens": [f"{number_ % 7}x{c}" for c in range(4)]} for i in range(1, 27)]
        arm = ("old", "new")[number_ % 2]
        request = {"request_id": f"shown-{number_}", "arm": arm, "candidates": columns}
        early = {"request_id": request["request_id"], "candidate": 0, "event": "click"}
        if number_ % 5 == 0:  # feedback that is here before the request
            assert post(url, "v1/feedback", {"events": [early]}) == {"accepted": 1}
        scores = post(url, "v1/score", request)["outputs"][0]["probabilities"]
        events = [{**early, "candidate": c, "event": "shown"} for c in (0, 2, 3)] + [{**early, "candidate": 2}, {**early, "candidate": 1}]
        post(url, "v1/feedback", {"events": events + events[:1]})
        told += events + ([early] if number_ % 5 == 0 else [])
        for c in (0, 2, 3):
            clicked = c == 2 or (c == 0 and number_ % 5 == 0)
            for cell in (wanted.setdefault(arm, [0, 0, 0.0]), buckets.setdefault((arm, next(b for b in bounds if scores[c] <= b)), [0, 0, 0.0])):
                cell[0], cell[1], cell[2] = cell[0] + 1, cell[1] + clicked, cell[2] + scores[c]
    post(url, "v1/feedback", {"events": [{"request_id": "shown-1", "candidate": 9, "event": "click"}]})
    wait_for(driver, lambda d: f"{len(told)} counted, 30 repeated, 1 of requests" in text(d, "calibration-note"))
    rows = table(driver, "calibration")
    assert rows[0] == ["model", "arm", "shown", "clicks", "click rate", "mean score", "clicks to those expected"], rows
    got = {row[1]: row for row in rows[1:]}
    assert sorted(got) == ["new", "old"] and got["old"][0] == "lr" and got["new"][0] == "fm", rows
    for arm, (shown, clicks, predicted) in wanted.items():
        assert [int(cell) for cell in got[arm][2:4]] == [shown, clicks], (arm, got[arm], shown, clicks)
        for cell, figure in zip(got[arm][4:], (clicks / shown, predicted / shown, clicks / predicted)):
            assert abs(float(cell) / figure - 1) < 0.006, (arm, got[arm], figure)
    charts = driver.execute_script("return Chart.getChart('calibration-chart').data.datasets.map((d) => [d.label, d.data])")
    assert [name for name, _ in charts] == [f"{got[arm][0]}, {arm}" for arm in ("old", "new")] + ["as expected"], charts
    for (_, points), arm in zip(charts, ("old", "new")):
        mine = sorted(cells for (of, _), cells in buckets.items() if of == arm)
        assert sorted([p["shown"] for p in points]) == [cells[0] for cells in mine], (points, mine)
        for p in points:
            assert any(abs(p["x"] - cells[2] / cells[0]) < 1e-5 and abs(p["y"] - cells[1] / cells[0]) < 1e-9 for cells in mine), (p, mine)


LAYOUT = """
const broken = [...document.querySelectorAll("td.number, .tile b")].filter((cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1;
});
const root = document.documentElement;
return [broken.map((cell) => cell.innerText), root.scrollWidth <= root.clientWidth, document.querySelectorAll("td.number").length];
"""


def check_layout(driver, width):
    """No figure is broken over lines; only tables scroll sideways, never the page."""
    height = driver.get_window_size()["height"]
    driver.set_window_size(width, height)
    wait_for(driver, lambda d: d.execute_script("return window.innerWidth") <= width)
    seen = readings(driver)
    wait_for(driver, lambda d: readings(d) > seen)
    broken, fits, figures = driver.execute_script(LAYOUT)
    assert not broken and fits and figures > 30, (width, broken, fits, figures)


def check(driver, url, program, address, rows, screenshot):
    driver.get(url)
    wait_for(driver, lambda d: readings(d) >= 1)
    assert text(driver, "lead").startswith("Ready · version ") and "2 threads" in text(driver, "lead"), text(driver, "lead")
    assert number(driver, "requests") == 0 and text(driver, "p99") == "–"
    assert "none yet" in text(driver, "scores-note")
    scored = []
    for model in ("lr", "fm", "fm"):
        said = subprocess.run([program, "score", "--to", address, "--schema", "criteo", "--model", model, "--rows-per-request", "10",
                               "--data", rows], stdout=subprocess.PIPE, check=True, text=True).stdout
        scored.append([float(line) for line in said.split()])
        assert len(scored[-1]) == 1000
    wait_for(driver, lambda d: number(d, "requests") == 300)
    answers = check_experiment(driver, url)
    json_requests = len(answers)
    # The percentiles are those of the last half minute: read with the count, while they are there.
    latencies = []

    def all_counted(d):
        latencies[:] = d.execute_script("return ['requests', 'p50', 'p99'].map((name) => document.getElementById(name).innerText)")
        return latencies[0] == str(300 + json_requests)

    wait_for(driver, all_counted)
    seen = readings(driver)
    wait_for(driver, lambda d: readings(d) >= seen + 2)  # points of a line before and after

    assert number(driver, "candidates") == 3000 + json_requests  # of one candidate each
    assert text(driver, "waiting") == "0" and float(latencies[2]) >= float(latencies[1]) > 0
    models = table(driver, "models")
    assert [row[:3] for row in models[1:]] == [["lr", "lr", "criteo"], ["fm", "fm", "criteo"]], models
    assert all(len(row[-1]) == 32 and row[5] == "3,000" for row in models[1:]), models
    codes = dict(table(driver, "codes")[1:])
    requests = str(300 + json_requests)
    assert codes == {"OK": requests, "refused: full": "0", "refused: slow": "0", "refused: waited": "0", "model swaps: done": "0", "model swaps: refused": "0"}, codes
    stages = {row[0]: row[1:] for row in table(driver, "stages")[1:]}
    names = ["waiting", "message to batch", "look-ups and network", "a block's look-up", "a block's network", "answer", "request"]
    assert list(stages) == names and [row[0] for row in stages.values()] == [requests] * len(names), stages
    assert float(stages["request"][1]) > float(stages["look-ups and network"][1]) > float(stages["a block's network"][1]) > 0, stages
    tables = table(driver, "tables")[1:]
    assert len(tables) == 2 and all(int(row[3].replace(",", "")) >= 26000 and row[4].endswith(" %") for row in tables), tables
    assert text(driver, "calibration-note").startswith("Since the start") and table(driver, "calibration") == [["model", "arm", "shown", "clicks"]]
    for i, (model, scores) in enumerate((("lr", scored[0]), ("fm", scored[1] + scored[2]))):
        scores += [answer["outputs"][0]["probabilities"][0] for answer in answers if answer["model"] == model]
        mean = sum(scores) / len(scores)
        assert f"{model}: mean {float(f'{mean:.4g}'):g} of {len(scores):,}" in text(driver, "scores-note"), (mean, text(driver, "scores-note"))
        # What Chart.js was given, asked from itself: the share of each bucket, counted anew.
        labels, shares = driver.execute_script(
            f"const c = Chart.getChart('scores-chart'); return [c.data.labels.map(Number), c.data.datasets[{i}].data]")
        low = -1.0
        for bound, share in zip(labels, shares):
            wanted = 100 * sum(low < p <= bound for p in scores) / len(scores)
            assert abs(share - wanted) < 0.11, (model, bound, share, wanted)  # a score on a bound may be rounded to either side
            low = bound
    rates = driver.execute_script("return Chart.getChart('rate-chart').data.datasets[0].data")
    assert len(rates) >= 3 and max(rate for rate in rates if rate is not None) > 0, rates
    for chart, colours in (("rate-chart", [LINE]), ("latency-chart", [LINE, SECOND]), ("scores-chart", [LINE, SECOND])):
        counts = driver.execute_script(COLOURS, chart)
        assert len(counts) > 20, (chart, "is blank")
        assert all(pixels_of(counts, colour) > 20 for colour in colours), (chart, "has no line")
    check_calibration(driver, url)
    counts = driver.execute_script(COLOURS, "calibration-chart")
    assert all(pixels_of(counts, colour) > 20 for colour in (LINE, SECOND)), "the calibration chart has no points"
    check_layout(driver, 480)
    check_layout(driver, 1280)
    errors = [entry["message"] for entry in driver.get_log("browser")
              if entry["level"] in ("SEVERE", "WARNING") and "favicon" not in entry["message"]]
    assert not errors, errors

    driver.save_screenshot(screenshot)
    seen = driver.execute_async_script(SCREENSHOT_COLOURS, driver.get_screenshot_as_base64())
    area = seen["width"] * seen["height"]
    assert area >= 1280 * 1500 and len(seen["counts"]) > 100, (seen["width"], seen["height"], len(seen["counts"]))
    assert max(seen["counts"].values()) < 0.9 * area, "the screenshot is almost of one colour"
    assert pixels_of(seen["counts"], LINE) > 500 and pixels_of(seen["counts"], SECOND) > 200, "the screenshot shows no charts"


def main(url, program, address, rows, screenshot):
    with open_browser(1280, 1700) as driver:
        check(driver, url, program, address, rows, screenshot)


if __name__ == "__main__":
    main(*sys.argv[1:])
