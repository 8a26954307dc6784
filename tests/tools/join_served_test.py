#!/usr/bin/python3
"""Histories in the rows that `join` makes: as they were served, from the request or from the server's state, and used as they are.

 - Requests that brought what the rows before give: the model has the digest of the one from the text, which derives it.
 - A server whose state is older than the log: its rows are, byte for byte, those of requests that brought that old state as tokens (worked
   out here from the log that the server's model learned); a model scores them as the server did, and as no text of the same rows does.
 - Rows that do not match: another rule, a part of the arms, sources of both kinds.

    join_served_test.py CLICKTOWER
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile

try:
    import grpc  # noqa: F401
    import numpy
    from google.protobuf import json_format  # noqa: F401
except ImportError as error:
    print(f"SKIP: the client needs Debian's python3-grpcio, python3-protobuf and python3-numpy ({error})")
    sys.exit(0)

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.getcwd(), "clients/python"))
import clicktower  # noqa: E402

PROGRAM = os.path.abspath(sys.argv[1])
USERS, ITEMS, OLD_ROWS, REQUESTS, CANDIDATES, MOST, BEGIN_MS = 40, 30, 900, 500, 4, 3, 1_700_000_000_000
SCHEMA = """name: shop
format: {separator: "\\t", columns: 5}
fields:
  - {name: label, kind: label, column: 1}
  - {name: when, kind: time, column: 2, time_unit: milliseconds}
  - {name: unit, kind: unit, column: 3}
  - {name: taste, kind: id, column: 4, side: context}
  - {name: item, kind: id, column: 5, side: candidate, type: integer}
  - {name: text, kind: vector, of: item, file: text.npy}
  - {name: liked, kind: history, of: item, clicked: true, max: 3}
  - {name: likes, kind: number, of: liked}
  - {name: close, kind: similarity, of: liked, vector: text, tiers: 4}
"""


def run(*arguments, wanted=0):
    done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == wanted, f"{arguments}: {done.returncode}, not {wanted}\n{done.stdout}{done.stderr}"
    return done.stdout if wanted == 0 else done.stderr


def read(path, mode="rb"):
    with open(path, mode) as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def join(folder, out, *more, schema="shop.yaml", wanted=0):
    made = run("join", "--exposures", folder, "--feedback", folder, "--schema", schema, "--out", out, "--wait-seconds", "0", "--json", "-",
               *more, wanted=wanted)
    return json.loads(made) if wanted == 0 else made


def train(data, out="model", schema="shop.yaml"):
    run("train", "--schema", schema, "--model", "fm", "--train", data, "--out", out, "--threads", "2", "--batch", "128")
    return [line for line in run("verify", out).splitlines() if line.startswith("digest ")][0]


def scores(model, data):
    return [numpy.float32(line) for line in run("eval", "--model", model, "--data", data, "--live", "--predictions", "-").split()]


def line(label, when, unit, taste, item):
    return f"{label}\t{when}\t{unit}\t{taste}\t{item}\n"


class Shop:
    """Rows in order of time, some at the same time; what a unit clicked at a strictly earlier time."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.clicks = {}  # unit: [(time, item)]
        self.rows = []

    def row(self, when, unit, item):
        clicked = self.random.random() < (0.7 if item % 5 == int(unit[1:]) % 5 else 0.2)
        self.rows.append((clicked, when, unit, f"t{int(unit[1:]) % 5}", item))
        before = self.liked(unit, when)
        if clicked:
            self.clicks.setdefault(unit, []).append((when, item))
        return clicked, before

    def liked(self, unit, when=None):
        return [item for time, item in self.clicks.get(unit, []) if when is None or time < when][-MOST:]

    def text(self):
        return "".join(line(int(clicked), *rest) for clicked, *rest in self.rows)


def exposure(number, unit, candidates, context=(), **more):
    return {"time_ms": BEGIN_MS + number, "request_id": f"r{number:04}", "unit": unit, "candidates": len(candidates),
            "context": [{"name": "taste", "tokens": [f"t{int(unit[1:]) % 5}"]}, *context],
            "columns": [{"name": "item", "integers": candidates}], "scores": {"click": [0.5] * len(candidates)}, **more}


def event(request, candidate, name, when):
    return {"received_ms": when, "time_ms": when, "request_id": request, "candidate": candidate, "event": name}


def write_log(folder, exposures, events):
    write(f"{folder}/exposures-1.jsonl", "".join(json.dumps(one) + "\n" for one in exposures))
    write(f"{folder}/feedback-1.jsonl", "".join(json.dumps(one) + "\n" for one in events))


def test_in_order():
    """Every request brings, for each candidate, what its unit clicked before that candidate was shown."""
    shop, exposures, events = Shop(1), [], []
    draw = shop.random
    for number in range(REQUESTS):
        unit, items = f"u{draw.randrange(USERS)}", [1 + draw.randrange(ITEMS) for _ in range(CANDIDATES)]
        one, lists = exposure(number, unit, items), [[] for _ in items]
        for later, candidate in enumerate(sorted(draw.sample(range(CANDIDATES), 2))):  # rows of one time are in the order of candidates
            when = BEGIN_MS + 2 * number + (later if number % 2 else 0)
            clicked, lists[candidate] = shop.row(when, unit, items[candidate])
            events.append(event(one["request_id"], candidate, "shown", when))
            if clicked:
                events.append(event(one["request_id"], candidate, "click", when))
        one["columns"].append({"name": "liked", "integers": [item for part in lists for item in part], "lengths": [len(p) for p in lists]})
        exposures.append(one)
    write_log("brought", exposures, events)
    summary = join("brought", "brought.ctb")
    assert summary["served"] == ["liked", "likes", "close"] and summary["warnings"] == [], summary
    join("brought", "brought.tsv")
    digest = train("brought.ctb")
    assert digest == train("brought.tsv"), "as served and derived from the log in order, the models differ"
    run("convert", "--schema", "shop.yaml", "--in", "brought.ctb", "--out", "plain.ctb")
    assert digest == train("plain.ctb") and len(read("plain.ctb")) < len(read("brought.ctb"))
    for one in exposures:
        one["columns"][1] = {"name": "liked", "lengths": [0] * CANDIDATES}
    write_log("empty", exposures, events)
    join("empty", "empty.ctb")
    assert train("empty.ctb") != digest, "what was served is not what was trained on"
    print("[       OK ] what_the_rows_before_give_trains_to_the_same_model")
    return exposures, events


def test_partial(exposures, events):
    """An arm that served without histories: left out, said, and there again for the rows of the other arm alone."""
    for number, one in enumerate(exposures):
        one["arm"] = "with" if number % 3 else "without"
        if one["arm"] == "without":
            del one["columns"][1]
    write_log("arms", exposures, events)
    summary = join("arms", "arms.ctb")
    assert summary["served"] == [] and any("'liked' is left out" in text and "--arm" in text for text in summary["warnings"]), summary
    join("arms", "arms.tsv")
    assert train("arms.ctb") == train("arms.tsv")
    alone = join("arms", "with.ctb", "--arm", "with")
    shown = sum(e["event"] == "shown" and int(e["request_id"][1:]) % 3 != 0 for e in events)
    assert alone["served"] == ["liked", "likes", "close"] and alone["rows"] == shown, alone
    assert "no request of arm 'other'" in join("arms", "x.ctb", "--arm", "other", wanted=1)
    message = run("train", "--schema", "shop.yaml", "--model", "fm", "--train", "with.ctb", "arms.tsv", "--out", "x", wanted=1)
    assert "column 'liked' is missing here, but it is there in the sources before" in message and "convert" in message, message
    print("[       OK ] rows_of_some_requests_alone_are_all_or_nothing")


class Server:
    def __init__(self):
        self.process = subprocess.Popen([PROGRAM, "serve", "--model", "old", "--exposures", "log", "--feedback", "log", "--listen",
                                         "127.0.0.1:0", "--queue-ms", "600000"], stdout=subprocess.PIPE, text=True)
        started = self.process.stdout.readline().strip()
        assert started.startswith("listening on 127.0.0.1:"), started
        self.client = clicktower.Client(started.split()[-1], timeout=600, options=[("grpc.enable_http_proxy", 0)])

    def __enter__(self):
        return self.client

    def __exit__(self, *failure):
        self.client.close()
        self.process.send_signal(signal.SIGTERM if failure[0] is None else signal.SIGKILL)
        assert self.process.wait() == 0 or failure[0] is not None


def test_old_state():
    old, shop = Shop(2), Shop(3)
    for number in range(OLD_ROWS):
        old.row(BEGIN_MS - OLD_ROWS + number // 2, f"u{old.random.randrange(USERS - 5)}", 1 + old.random.randrange(ITEMS))
    write("old.tsv", old.text())
    train("old.tsv", "old")
    draw, events, asked = shop.random, [], {}
    with Server() as client:
        for number in range(REQUESTS // 5):
            unit, items = f"u{draw.randrange(USERS)}", [1 + draw.randrange(ITEMS + 3) for _ in range(CANDIDATES)]
            answer = client.answer([{"item": item} for item in items], {"taste": f"t{int(unit[1:]) % 5}"}, unit=unit,
                                   request_id=f"r{number:04}")
            asked[answer.request_id] = unit, answer.outputs["click"]
            for candidate in draw.sample(range(CANDIDATES), 2):
                when = BEGIN_MS + len(events)
                clicked, _ = shop.row(when, unit, items[candidate])
                events += [{k: v for k, v in event(answer.request_id, candidate, name, when).items() if k != "received_ms"}
                           for name in ["shown"] + ["click"] * clicked]
        assert client.feedback(events) == len(events)
    summary = join("log", "served.ctb")
    assert summary["served"] == ["liked", "likes", "close"] and summary["rows"] == len(shop.rows), summary
    join("log", "served.tsv")
    assert read("served.tsv", "r") == shop.text()

    # The same requests, had they brought the state of the old log.
    exposures = [json.loads(text) for name in sorted(os.listdir("log")) if name.startswith("exposures")
                 for text in read("log/" + name, "r").splitlines()]
    feedback = [json.loads(text) for name in os.listdir("log") if name.startswith("feedback")
                for text in read("log/" + name, "r").splitlines()]
    assert len(exposures) == len(asked) and all([d["name"] for d in one["derived"]] == ["liked", "close"] for one in exposures)
    longest = 0
    for one in exposures:
        liked = old.liked(one["unit"])
        longest = max(longest, len(liked))
        one["derived"] = []
        one["context"].append({"name": "liked", "integers": liked, "lengths": [len(liked)]})
    assert longest == MOST
    write_log("told", exposures, feedback)
    join("told", "told.ctb")
    assert read("served.ctb") == read("told.ctb"), "what was logged is not the state of the log that the model learned"

    # The model scores its rows as it did when it served; from the text they get the histories of the rows before.
    shown = [e for e in events if e["event"] == "shown"]
    served = [numpy.float32(asked[e["request_id"]][1][e["candidate"]]) for e in shown]
    assert scores("old", "served.ctb") == served, "the rows do not hold what was served"
    assert scores("old", "served.tsv") != served
    digest = train("served.ctb")
    assert digest == train("told.ctb") != train("served.tsv")
    print("[       OK ] an_older_state_is_in_the_rows_as_it_was_served")


def test_rules():
    """A schema with another rule: refused by name, in join and in train."""
    write("longer.yaml", SCHEMA.replace("max: 3", "max: 4"))
    message = join("log", "x.ctb", schema="longer.yaml", wanted=1)
    assert "exposures-" in message and "'liked' was served by another rule" in message and "--arm" in message, message
    assert not os.path.exists("x.ctb") and join("log", "longer.tsv", schema="longer.yaml")["served"] == []
    message = run("train", "--schema", "longer.yaml", "--model", "fm", "--train", "served.ctb", "--out", "x", wanted=1)
    assert "column 'liked' was made by another rule" in message and "convert" in message, message
    write("more.yaml", SCHEMA + "  - {name: far, kind: similarity, of: liked, vector: text, tiers: 2}\n")
    message = run("train", "--schema", "more.yaml", "--model", "fm", "--train", "served.ctb", "--out", "x", wanted=1)
    assert "has 'liked' as it was served, but not 'far'" in message, message
    # Tiers are the model's, not the column's.
    write("tiers.yaml", SCHEMA.replace("tiers: 4", "tiers: 9"))
    train("served.ctb", "tiers", "tiers.yaml")
    one = json.loads(read("told/exposures-1.jsonl", "r").splitlines()[0])
    one["context"].pop()
    for derived, words in (([{"name": "liked", "keys": []}], 'a history has "rule"'),
                           ([{"name": "liked", "keys": 1, "rule": ""}], 'a list of "keys"')):
        write_log("wrong", [{**one, "derived": derived}], [event(one["request_id"], 0, "shown", BEGIN_MS)])
        assert words in join("wrong", "x.ctb", wanted=1), words
    logged = [json.loads(text) for name in os.listdir("log") if name.startswith("exposures") for text in read("log/" + name, "r").splitlines()]
    good = next(each for each in logged if len(each["derived"][0]["keys"]) == MOST)
    for keys, words in ((["12"] * 2, "key 0 is not 16 hexadecimal digits"), (["0" * 16] * (MOST + 1), "has 4 keys: at most 3")):
        good["derived"][0]["keys"] = keys
        write_log("wrong", [good], [event(good["request_id"], 0, "shown", BEGIN_MS)])
        assert words in join("wrong", "x.ctb", wanted=1), words
    print("[       OK ] what_does_not_match_is_refused_by_name")


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
        os.chdir(work)
        write("shop.yaml", SCHEMA)
        numpy.save("text.npy", numpy.random.default_rng(1).normal(size=(ITEMS - 4, 6)).astype(numpy.float32))  # some items have none
        test_partial(*test_in_order())
        test_old_state()
        test_rules()


if __name__ == "__main__":
    main()
