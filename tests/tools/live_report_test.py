#!/usr/bin/python3
"""clicktower report --exposures against the truth that tests/tools/live_log.py knows, and against the same statistics by NumPy.

    live_report_test.py CLICKTOWER
"""
import json
import math
import os
import subprocess
import sys
import tempfile

try:
    import numpy

    from live_log import BEGIN_MS, EXPERIMENT, SCHEMA, LiveLog, WEIGHTS
except ImportError as error:
    print(f"SKIP: the made log needs Debian's python3-numpy and python3-xxhash ({error})")
    sys.exit(0)

PROGRAM = os.path.abspath(sys.argv[1])
Z = 1.959963984540054


def run(*arguments, wanted=0):
    done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == wanted, f"{arguments}: {done.returncode}, not {wanted}\n{done.stdout}{done.stderr}"
    return done.stdout if wanted == 0 else done.stderr


def report(folder, *more):
    return json.loads(run("report", "--exposures", folder, "--feedback", folder, "--experiment", "ranker.yaml", "--wait-seconds", "1800",
                          "--json", "-", *more))


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def near(a, b, relative=1e-9):
    assert abs(a - b) <= relative * max(abs(a), abs(b), 1e-300), f"{a} is not {b}"


def compared(log):
    return [e for e in log.requests if e["assigned"] == "bucket"]


class Arm:
    """Sums by unit, of the metrics and guardrails."""

    def __init__(self, log, name):
        self.requests = [e for e in compared(log) if e["arm"] == name]
        self.units = sorted({e["unit"] for e in self.requests})
        number = {unit: i for i, unit in enumerate(self.units)}
        n = len(self.units)
        self.clicks, self.shown, self.bought, self.errors, self.count = (numpy.zeros(n) for _ in range(5))
        self.impressions = []
        for e in self.requests:
            i = number[e["unit"]]
            self.count[i] += 1
            self.errors[i] += "error" in e
            for candidate, (_, clicked, bought) in e.get("truth", {}).items():
                self.shown[i] += 1
                self.clicks[i] += clicked
                self.bought[i] += bought
                self.impressions.append((e, candidate, clicked))
        self.number = number


def ratio(y, x):
    """A ratio of means and its variance by the delta method."""
    r = y.sum() / x.sum()
    return r, (y - r * x).var(ddof=1) / x.mean() ** 2 / len(y)


def difference_is(one, a, b, y, x):
    (ra, va), (rb, vb) = ratio(y(a), x(a)), ratio(y(b), x(b))
    near(one["estimate"], rb - ra, 1e-7)
    half = Z * math.sqrt(va + vb)
    near(one["fixed"]["low"], rb - ra - half, 1e-6)
    near(one["fixed"]["high"], rb - ra + half, 1e-6)


def test_metrics(log, made):
    a, b = Arm(log, "old"), Arm(log, "new")
    for arm, told in ((a, made["arms"][0]), (b, made["arms"][1])):
        assert told["units"] == len(arm.units) and told["rows"] == len(arm.requests), told
        assert told["value"] == arm.clicks.sum() and told["count"] == arm.shown.sum(), told
    assert [arm["weight"] for arm in made["arms"]] == [60, 40] and made["arms"][0]["control"]
    assert made["metric"] == "click by impression"
    difference_is(made["differences"][0], a, b, lambda arm: arm.clicks, lambda arm: arm.shown)
    other = {metric["metric"]: metric["differences"][0] for metric in made["metrics"]}
    assert set(other) == {"click by unit", "purchase by impression", "purchase by unit"}, set(other)
    difference_is(other["click by unit"], a, b, lambda arm: arm.clicks, lambda arm: numpy.ones(len(arm.units)))
    difference_is(other["purchase by impression"], a, b, lambda arm: arm.bought, lambda arm: arm.shown)
    difference_is(other["purchase by unit"], a, b, lambda arm: arm.bought, lambda arm: numpy.ones(len(arm.units)))
    n, shares = numpy.array([len(a.units), len(b.units)]), numpy.array([0.6, 0.4])
    chi_square = ((n - n.sum() * shares) ** 2 / (n.sum() * shares)).sum()
    near(made["sample_ratio"]["p"], math.erfc(math.sqrt(chi_square / 2)), 1e-8)
    assert not made["sample_ratio"]["mismatch"]
    assert len(made["differences"][0]["looks"]) == 50 and made["differences"][0]["looks"][-1]["units"] == n.sum()
    print("[       OK ] metrics_are_those_of_the_truth")


def test_left_out(log, made):
    wanted = {}
    for e in log.requests:
        if e["assigned"] != "bucket":
            arms = wanted.setdefault(e["assigned"], {})
            arms[e["arm"]] = arms.get(e["arm"], 0) + 1
    assert set(wanted) == {"holdout", "ramp", "forced"}
    assert made["left_out"]["assigned"] == wanted, (made["left_out"]["assigned"], wanted)
    assert made["left_out"]["feedback"]["unknown_requests"] == 3 and made["left_out"]["feedback"]["not_shown"] > 0
    assert not any("another arm than" in warning for warning in made["warnings"]), made["warnings"]
    print("[       OK ] what_is_not_compared_is_counted")


def test_guardrails(log, made):
    guard = made["guardrails"]
    for told, arm in zip(guard["arms"], (Arm(log, "old"), Arm(log, "new"))):
        rate, variance = ratio(arm.errors, arm.count)
        near(told["error_rate"]["value"], rate)
        near(told["error_rate"]["high"], rate + Z * math.sqrt(variance), 1e-7)
        latency = numpy.sort([e["latency_us"] for e in arm.requests if "error" not in e])
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            value = told["latency_us"][name]
            q = latency[math.ceil(share * len(latency)) - 1]
            assert value["value"] == q, (name, value, q)
            below, all_of = numpy.zeros(len(arm.units)), numpy.zeros(len(arm.units))
            for e in arm.requests:
                if "error" not in e:
                    below[arm.number[e["unit"]]] += e["latency_us"] <= q
                    all_of[arm.number[e["unit"]]] += 1
            has = all_of > 0
            deviation = math.sqrt(ratio(below[has], all_of[has])[1])
            for end, sign in (("low", -1), ("high", 1)):
                rank = math.ceil((share + sign * Z * deviation) * len(latency))
                assert value[end] == latency[min(max(rank, 1), len(latency)) - 1], (name, end)
    of = {one["of"]: one for one in guard["differences"]}
    assert set(of) == {"error rate", "latency p50", "latency p95", "latency p99"}
    assert of["latency p50"]["estimate"] == guard["arms"][1]["latency_us"]["p50"]["value"] - guard["arms"][0]["latency_us"]["p50"]["value"]
    print("[       OK ] guardrails_are_those_of_the_truth")


def test_guardrails_tell():
    """New is a tenth slower and fails four times as often: with enough requests the report says so."""
    log = LiveLog(seed=5, users=3000, candidates=1)
    log.write("slow", seed=5)
    of = {one["of"]: one["verdict"] for one in report("slow")["guardrails"]["differences"]}
    assert of["latency p50"] == "B worse" and of["error rate"] == "B worse", of
    print("[       OK ] guardrails_tell_what_was_planted")


def test_scores(log, made):
    for told, arm in zip(made["scores"], (Arm(log, "old"), Arm(log, "new"))):
        p = numpy.array([e["scores"]["click"][candidate] for e, candidate, _ in arm.impressions])
        y = numpy.array([float(clicked) for _, _, clicked in arm.impressions])
        assert told["rows"] == len(y) and told["clicks"] == y.sum()
        near(told["log_loss"], -(y * numpy.log(p) + (1 - y) * numpy.log1p(-p)).mean(), 1e-5)
        near(told["calibration"], p.sum() / y.sum(), 1e-5)
        order = numpy.argsort(p, kind="stable")
        above = numpy.searchsorted(p[order], p, "left") + numpy.searchsorted(p[order], p, "right")  # twice the mean rank, from 0
        clicks = y.sum()
        auc = (above[y == 1].sum() / 2 - clicks * clicks / 2) / clicks / (len(y) - clicks)
        near(told["auc"], auc, 1e-4)  # logits are floats, so nearly equal chances may tie
    print("[       OK ] scores_are_judged_on_what_was_shown")


def test_slices(log, made):
    item, price = made["slices"]
    a, b = Arm(log, "old"), Arm(log, "new")

    def sums(arm, keep):
        clicks, shown = numpy.zeros(len(arm.units)), numpy.zeros(len(arm.units))
        for e, candidate, clicked in arm.impressions:
            if keep(e, candidate):
                clicks[arm.number[e["unit"]]] += clicked
                shown[arm.number[e["unit"]]] += 1
        return clicks[shown > 0], shown[shown > 0]

    def item_of(e, candidate):
        column = [c for c in e["columns"] if c["name"] == "item"][0]
        return str((column.get("integers") or column["tokens"])[candidate])

    def price_of(e, candidate):
        column = [c for c in e["columns"] if c["name"] == "price"][0]
        lengths = column["lengths"]
        return column["numbers"][sum(lengths[:candidate])] if lengths[candidate] else None

    def check(one, keep, fixed_z):
        (ya, xa), (yb, xb) = sums(a, keep), sums(b, keep)
        assert one["shown"] == xa.sum() + xb.sum(), (one["shown"], xa.sum() + xb.sum())
        d = one["differences"][0]
        (ra, va), (rb, vb) = ratio(ya, xa), ratio(yb, xb)
        near(d["estimate"], rb - ra, 1e-6)
        near(d["fixed"]["high"] - d["fixed"]["low"], 2 * fixed_z * math.sqrt(va + vb), 1e-5)

    counts = {}
    for arm in (a, b):
        for e, candidate, _ in arm.impressions:
            counts[item_of(e, candidate)] = counts.get(item_of(e, candidate), 0) + 1
    tops = sorted(counts, key=lambda value: (-counts[value], value))[:10]
    assert [one.get("value") for one in item["slices"]] == tops + [None] and item["slices"][-1]["other"]
    from statistics import NormalDist
    check(item["slices"][0], lambda e, c: item_of(e, c) == tops[0], -NormalDist().inv_cdf(0.05 / 11 / 2))
    check(item["slices"][-1], lambda e, c: item_of(e, c) not in tops, -NormalDist().inv_cdf(0.05 / 11 / 2))
    assert len(price["slices"]) == 5 and price["slices"][-1]["missing"]
    z = -NormalDist().inv_cdf(0.05 / 5 / 2)
    for one in price["slices"][:-1]:
        check(one, lambda e, c: price_of(e, c) is not None and one["low"] <= price_of(e, c) <= one["high"], z)
    check(price["slices"][-1], lambda e, c: price_of(e, c) is None, z)
    whole = [one["shown"] for one in price["slices"][:-1]]
    assert max(whole) - min(whole) <= 2, whole
    print("[       OK ] slices_are_those_of_the_truth")


def test_drift(log):
    """Nothing moved: by chance alone. Prices doubled and new items: both are told, and nothing else."""
    training = LiveLog(seed=8, users=2500)
    write("training.tsv", training.truth())
    write("moved.tsv", "".join(moved(line) for line in training.truth().splitlines(keepends=True)))
    log.write("drift", seed=3)
    still = {one["feature"]: one for one in report("drift", "--training", "training.tsv", "--schema", "shop.yaml")["drift"]}
    assert set(still) == {"user", "hour", "item", "price", "tags", "likes"}
    for name in ("hour", "item", "price", "tags", "likes"):
        # Impressions of a request share its context, so chance moves that more.
        times = 6 if name in ("hour", "likes") else 2.5
        assert still[name]["psi"] < times * still[name]["expected"] and still[name]["verdict"] == "stable", still[name]
    assert still["item"]["unseen"] == 0 and abs(still["price"]["missing"]["served"] - 0.2) < 0.02
    made = report("drift", "--training", "moved.tsv", "--schema", "shop.yaml")
    now = {one["feature"]: one for one in made["drift"]}
    assert now["price"]["verdict"] == "strongly shifted" and now["hour"]["verdict"] == "stable", now
    assert abs(now["item"]["unseen"] - 0.5) < 0.05, now["item"]
    assert any("'price' as it was served is far from training" in warning for warning in made["warnings"])
    # The index of the price over 10 equal parts of training, as it is defined.
    served = numpy.array([float(line[6]) for line in (row[3].split("\t") for row in log_rows(log)) if line[6]])
    before = numpy.sort([float(line[6]) for line in (text.split("\t") for text in open("moved.tsv")) if line[6]])
    edges = before[(numpy.arange(1, 10) * len(before) / 10).astype(int)]
    s, t = (numpy.bincount(numpy.searchsorted(edges, values, "right"), minlength=10) / len(values) for values in (served, before))
    index = ((s - t) * numpy.log(s / t)).sum() * 0.8  # a fifth of both has no price
    assert abs(now["price"]["psi"] - index) < 0.15 * index, (now["price"]["psi"], index)
    print("[       OK ] drift_is_told_where_it_was_planted")


def log_rows(log):
    drawn = {e["request_id"] for e in compared(log)}
    return [row for row in log.rows if row[3].split("\t")[2] in drawn]


def moved(line):
    fields = line.rstrip("\n").split("\t")
    if fields[6]:
        fields[6] = str(float(fields[6]) / 3)
    if int(fields[5]) % 2:
        fields[5] = str(int(fields[5]) + 1)
    return "\t".join(fields) + "\n"


def test_verdicts():
    """A planted lift is found within its interval; nothing is found where nothing is; lost units forbid a verdict; CUPED helps."""
    log = LiveLog(seed=21, users=4000, lift=0.3)
    log.write("lift", seed=21)
    write("before.tsv", "unit\tvalue\n" + "".join(f"{unit}\t{value}\n" for unit, value in log.covariates.items()))
    made = report("lift", "--covariate", "before.tsv")
    one = made["differences"][0]
    assert one["verdict"] == "B better", one["words"]
    chances = {arm: numpy.mean([e["scores"]["click"][c] for e in compared(log) if e["arm"] == arm for c in e.get("truth", {})])
               for arm in WEIGHTS}
    truth = chances["new"] - chances["old"]
    for of in (one, one["cuped"]):
        assert of["fixed"]["low"] < truth < of["fixed"]["high"] and of["sequence"]["low"] < truth < of["sequence"]["high"], (of, truth)
    lift = truth / chances["old"]
    assert one["lift"]["sequence"]["low"] < lift < one["lift"]["sequence"]["high"]
    assert one["cuped"]["variance_reduction"] > 0.02, one["cuped"]
    nothing = LiveLog(seed=12, users=2000)
    nothing.write("nothing", seed=12)
    assert report("nothing")["differences"][0]["verdict"] == "no difference shown"
    lossy = LiveLog(seed=13, users=3000, lift=0.3, lose_new=0.3)
    lossy.write("lossy", seed=13)
    made = report("lossy")
    assert made["sample_ratio"]["mismatch"] and made["differences"][0]["verdict"] == "no verdict"
    assert any("sample ratio mismatch" in warning for warning in made["warnings"])
    print("[       OK ] verdicts_are_right_and_refused_on_a_mismatch")


def test_sampled():
    """Each logged request stands for 1 / sample_rate; where the arms were logged at different rates, their split can not be checked."""
    log = LiveLog(seed=17, users=1000, sample_rate=0.25)
    log.requests[0]["sample_rate"] = 0.5
    log.write("sampled", seed=17)
    made = report("sampled")
    weight = lambda e: 1 / e["sample_rate"]  # noqa: E731
    for told in made["arms"]:
        requests = [e for e in compared(log) if e["arm"] == told["name"]]
        near(told["count"], sum(weight(e) * len(e.get("truth", {})) for e in requests))
        near(told["value"], sum(weight(e) * sum(t[1] for t in e.get("truth", {}).values()) for e in requests))
    assert made["metrics"] == [] and any("sampled" in warning for warning in made["warnings"])
    for e in log.requests:
        e["sample_rate"] = 0.5 if e["arm"] == "new" else 1.0
    log.write("unequal", seed=17)
    made = report("unequal")
    assert made["sample_ratio"]["p"] is None and any("different rates" in warning for warning in made["warnings"])
    print("[       OK ] sampling_is_made_up_for")


def test_outputs(log):
    out = run("report", "--exposures", "log", "--feedback", "log", "--experiment", "ranker.yaml", "--wait-seconds", "1800", "--event",
              "purchase", "--slice", "item", "--slice", "price", "--training", "training.tsv", "--schema", "shop.yaml", "--out", "made")
    assert all(len(line) <= 110 for line in out.splitlines()), [line for line in out.splitlines() if len(line) > 110]
    for words in ("experiment ranker, click by impression", "split of the units: as meant", "purchase by unit: new", "latency p99",
                  "scores of what was shown", "drift from training", "slices: B - A", "requests not compared: ramp ", "page made/report"):
        assert words in out, words
    page = open("made/report.html", encoding="utf-8").read()
    for words in ("Guardrails", "Calibration", "Drift from training", "By item", "What was read and left out"):
        assert words in page, words
    assert "@@" not in page.split("<script>")[0] and json.load(open("made/report.json"))["experiment"] == "ranker"
    print("[       OK ] page_json_and_table")


def test_refused():
    some = ("report", "--exposures", "log", "--feedback", "log", "--experiment", "ranker.yaml")
    assert "--exposures, --feedback and --experiment" in run("report", wanted=2)
    assert "--exposures, --feedback and --experiment" in run(*some[:5], wanted=2)
    assert "--exposures, --feedback and --experiment" in run(*some, "--table", "x", wanted=2)
    assert "--weights" in run(*some, "--weights", "a=1", wanted=2)
    assert "--schema" in run(*some, "--training", "training.tsv", wanted=2)
    assert "--slice" in run("report", "--table", "x", "--slice", "a", wanted=2)
    write("other.yaml", EXPERIMENT.replace("name: ranker", "name: another"))
    assert "no request that drew an arm of experiment 'another'" in run(*some[:6], "other.yaml", wanted=1)
    write("other.yaml", EXPERIMENT.replace("name: new", "name: newest").replace("arm: new", "arm: newest"))
    assert "\"arm\" is 'new', which other.yaml does not have" in run(*some[:6], "other.yaml", wanted=1)
    write("other.yaml", EXPERIMENT.replace("salt-7", "salt-8"))
    assert "another arm than other.yaml deals" in run(*some[:6], "other.yaml")
    assert "values; one is needed" in run(*some, "--slice", "tags", wanted=1)
    write("twice.tsv", "unit,value\nuser-1,1\nuser-1,2\n")
    assert "twice.tsv:3: unit 'user-1' stands there twice" in run(*some, "--covariate", "twice.tsv", wanted=1)
    write("none.tsv", "unit,amount\n")
    assert "no column 'value'" in run(*some, "--covariate", "none.tsv", wanted=1)
    assert "no request brings it" in run(*some, "--slice", "colour")
    out = run(*some, "--positive", "clik", "--event", "buy", "--event", "purchase", "--slice", "user")
    assert "event 'clik': nothing that was shown has it" in out and "event 'buy': " in out and "event 'purchase': " not in out
    # What can't be told is a dash, not a zero: the lift over a rate of 0, and a difference where one arm alone has units.
    assert [line.split()[1:] for line in out.splitlines() if line.startswith("  lift")] == [["-", "-", "-"]]
    alone = [line.split()[-3:] for line in out.splitlines() if line.startswith("user user-")]
    assert len(alone) == 10 and all(ranges == ["-", "-", "-"] for ranges in alone), alone
    print("[       OK ] what_is_wrong_is_refused")


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
        os.chdir(work)
        write("shop.yaml", SCHEMA)
        write("ranker.yaml", EXPERIMENT)
        log = LiveLog(seed=4, users=2500, lift=0.1)
        log.write("log", seed=4)
        made = report("log", "--event", "purchase", "--slice", "item", "--slice", "price")
        assert made["until_ms"] > BEGIN_MS
        test_metrics(log, made)
        test_left_out(log, made)
        test_guardrails(log, made)
        test_scores(log, made)
        test_slices(log, made)
        test_guardrails_tell()
        test_drift(log)
        test_verdicts()
        test_sampled()
        test_outputs(log)
        test_refused()


if __name__ == "__main__":
    main()
