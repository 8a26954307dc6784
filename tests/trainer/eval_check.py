"""Recomputes what eval says from the log and the predictions, in plain Python.

Usage: eval_check.py slices LOG PREDICTIONS JSON TABLE | calibration LOG PREDICTIONS JSON | same JSON JSON | importance JSON TABLE
The log has Criteo's columns: label, I1..I13, C1..C26.
"""

import collections
import json
import math
import sys


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_rows(log, predictions):
    with open(log, encoding="utf-8") as lines, open(predictions, encoding="utf-8") as values:
        return [(line.rstrip("\n").split("\t"), float(value)) for line, value in zip(lines, values)]


def column(name):
    return int(name[1:]) + (0 if name[0] == "I" else 13)


def auc(rows):
    clicks = [p for fields, p in rows if fields[0] == "1"]
    others = [p for fields, p in rows if fields[0] == "0"]
    if not clicks or not others:
        return None
    won = sum((a > b) + 0.5 * (a == b) for a in clicks for b in others)
    return won / (len(clicks) * len(others))


def log_loss(rows):
    return -sum(math.log(p if fields[0] == "1" else 1 - p) for fields, p in rows) / len(rows)


def check_slice(found, rows):
    assert found["rows"] == len(rows), (found, len(rows))
    clicks = sum(fields[0] == "1" for fields, _ in rows)
    assert found["clicks"] == clicks, (found, clicks)
    # Predictions are floats; two logits that differ may have one probability, so the AUC has some room.
    wanted = {"auc": auc(rows), "log_loss": log_loss(rows), "mean_prediction": sum(p for _, p in rows) / len(rows)}
    for name, value in wanted.items():
        if value is None:
            assert found[name] is None, (name, found)
        else:
            assert abs(found[name] - value) < 1e-5, (name, found[name], value)


def check_table(table, field, slices):
    with open(table, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.startswith(field + " ")]
    for found in slices:
        cells = ["none" if found[name] is None else "%.6f" % found[name] for name in ("auc", "log_loss", "normalized_entropy", "calibration")]
        assert any(line[-5:] == [str(found["rows"])] + cells for line in lines), (field, found)


def slices(log, predictions, path, table):
    rows = read_rows(log, predictions)
    fields = {entry["field"]: entry for entry in load(path)["slices"]}
    assert list(fields) == ["C5", "I1", "C2"], list(fields)
    for name in ("C5", "C2"):
        by_token = collections.defaultdict(list)
        for row in rows:
            by_token[row[0][column(name)]].append(row)
        # Keys say nothing of tokens, but slices with as many rows as no other token can be told by that.
        counts = sorted((len(part) for part in by_token.values()), reverse=True)
        found = fields[name]
        assert found["values"] == len(by_token) > 20
        assert [part["rows"] for part in found["slices"]] == counts[:20]
        told = 0
        for part in found["slices"]:
            same = [token for token, of in by_token.items() if len(of) == part["rows"]]
            if len(same) == 1:
                check_slice(part, by_token[same[0]])
                told += 1
        assert told > 5, told
        assert found["other"]["values"] == len(by_token) - 20
        if counts[19] > counts[20]:
            rest = [row for token, of in by_token.items() if len(of) < counts[19] for row in of]
            check_slice(found["other"], rest)
        assert found["missing"] is None  # an empty token is a token
        check_table(table, name, found["slices"] + [found["other"]])
    found, at = fields["I1"], column("I1")
    known = [row for row in rows if row[0][at] != ""]
    left = 0
    for part in found["slices"]:
        inside = [row for row in known if part["low"] <= int(row[0][at]) <= part["high"]]
        check_slice(part, inside)
        left += len(inside)
    assert left == len(known)
    check_slice(found["missing"], [row for row in rows if row[0][at] == ""])
    check_table(table, "I1", found["slices"] + [found["missing"]])


def calibration(log, predictions, path):
    rows = sorted(read_rows(log, predictions), key=lambda row: row[1])
    found = load(path)
    bins, at, expected = found["calibration_table"], 0, 0.0
    assert len(bins) == 20 and sum(part["rows"] for part in bins) == len(rows)
    for part in bins:
        inside = rows[at : at + part["rows"]]
        at += part["rows"]
        assert abs(part["rows"] - len(rows) / 20) <= 2, part
        assert abs(part["low"] - inside[0][1]) < 1e-6 and abs(part["high"] - inside[-1][1]) < 1e-6, part
        assert abs(part["mean_prediction"] - sum(p for _, p in inside) / len(inside)) < 1e-6, part
        assert abs(part["click_rate"] - sum(fields[0] == "1" for fields, _ in inside) / len(inside)) < 1e-12, part
        expected += part["rows"] / len(rows) * abs(part["mean_prediction"] - part["click_rate"])
    assert abs(found["expected_calibration_error"] - expected) < 1e-9
    assert found["maximum_calibration_error"] == max(abs(part["mean_prediction"] - part["click_rate"]) for part in bins)


def same(first, second):
    first, second = load(first), load(second)
    assert set(second) - set(first) == {"slices", "importance"}, set(second) - set(first)
    for name, value in first.items():
        assert second[name] == value, name


def importance(path, table):
    found = load(path)
    features = found["importance"]["features"]
    assert found["importance"]["repeats"] == 3
    assert abs(found["importance"]["log_loss"] - found["log_loss"]) < 1e-12
    assert abs(found["importance"]["auc"] - found["auc"]) <= found["importance"]["auc_error"] < 0.01
    assert sorted(part["feature"] for part in features) == sorted(["I%d" % i for i in range(1, 14)] + ["C%d" % i for i in range(1, 27)])
    increases = [part["log_loss_increase"] for part in features]
    assert increases == sorted(increases, reverse=True) and increases[0] > 0
    with open(table, encoding="utf-8") as file:
        lines = [line.split() for line in file]
    names = ("log_loss_increase", "log_loss_increase_error", "auc_drop", "auc_drop_error")
    wanted = [[part["feature"]] + ["%.6f" % part[name] for name in names] for part in features]
    assert lines[-len(wanted) :] == wanted, lines[-len(wanted) :]


if __name__ == "__main__":
    {"slices": slices, "calibration": calibration, "same": same, "importance": importance}[sys.argv[1]](*sys.argv[2:])
