#!/usr/bin/python3
"""clients/python against a running server: every form of input gives the scores of eval, bit for bit.

Usage: python_test.py PROGRAM
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

try:
    import grpc
    import numpy as np
    from google.protobuf import json_format  # noqa: F401
except ImportError as error:
    print(f"SKIP: clients/python needs Debian's python3-grpcio, python3-protobuf and python3-numpy ({error})")
    sys.exit(0)
try:
    import pandas
except ImportError:
    pandas = None
    print("SKIP: pandas (Debian's python3-pandas) is not there; DataFrames are tried with a class of this test that looks like one")

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.getcwd(), "clients/python"))
import clicktower  # noqa: E402
from clicktower import clicktower_pb2 as api  # noqa: E402

PROGRAM = os.path.abspath(sys.argv[1])
OPTIONS = [("grpc.enable_http_proxy", 0)]
SCHEMA = """name: shop
format: {separator: "\\t", columns: 7}
fields:
  - {name: label, kind: label, column: 1}
  - {name: price, kind: number, column: 2, side: candidate}
  - {name: user, kind: id, column: 3, side: context, type: text}
  - {name: item, kind: id, column: 4, side: candidate, type: integer}
  - {name: likes, kind: id, column: 5, side: context, type: integer, separator: ",", max: 3, shares: item}
  - {name: brand, kind: id, column: 6, side: candidate, type: text}
  - {name: unused, kind: id, column: 7, side: candidate, type: text}
"""


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


class Frame:
    """What the client needs of a DataFrame."""

    def __init__(self, columns):
        self._columns = {name: np.array(values, dtype=object) if any(isinstance(v, list) or v is None for v in values) else np.array(values)
                         for name, values in columns.items()}
        self.columns, self.iloc = list(self._columns), None

    def __getitem__(self, name):
        values = self._columns[name]
        return type("Series", (), {"to_numpy": lambda self: values, "__len__": lambda self: len(values)})()

    def __len__(self):
        return len(next(iter(self._columns.values())))


def make_rows(count):
    """Rows as dicts of Python values; the first half shares one context."""
    draw = np.random.default_rng(4)
    rows = []
    for number in range(count):
        session = 0 if number < count // 2 else number
        likes = [int(v) for v in np.random.default_rng(session).integers(1, 41, session % 6)]
        rows.append({"price": None if number % 7 == 0 else float(np.float32(draw.gamma(2.0, 30.0))), "user": f"us\u00e9r{session}",
                     "item": int(draw.integers(1, 41)), "likes": likes, "brand": "" if number % 5 == 0 else f"b{number % 9}", "unused": "x"})
    return rows


def as_line(row):
    price = "" if row["price"] is None else repr(row["price"])
    return "\t".join(["1" if row["item"] % 3 == 0 else "0", price, row["user"], str(row["item"]), ",".join(map(str, row["likes"])),
                      row["brand"], row["unused"]]) + "\n"


def same(got, wanted):
    assert isinstance(got, np.ndarray) and got.dtype == np.float32 and got.shape == (len(wanted),), got
    assert got.tobytes() == np.array(wanted, dtype=np.float32).tobytes(), (got, wanted)


def check_forms(client, rows, expected):
    half = len(rows) // 2
    same(client.score(rows), expected)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    same(client.score(columns), expected)
    arrays = {"price": np.array([np.nan if v is None else v for v in columns["price"]], dtype=np.float32), "user": np.array(columns["user"]),
              "item": np.array(columns["item"], dtype=np.uint16), "likes": columns["likes"], "brand": np.array(columns["brand"])}
    same(client.score(arrays), expected)
    same(client.score(Frame(columns)), expected)
    if pandas:
        frame = pandas.DataFrame(columns)
        same(client.score(frame), expected)
        frame["brand"] = frame["brand"].astype("category")
        frame["item"] = frame["item"].astype("Int64")
        same(client.score(frame), expected)
    # The context once; integers as text, as floats of pandas, and with None for the empty token.
    context = {name: rows[0][name] for name in ("user", "likes")}
    shown = [{"price": row["price"], "item": float(row["item"]), "brand": row["brand"] or None, "more": object()} for row in rows[:half]]
    same(client.score(shown, context), expected[:half])
    same(client.score([dict(row, item=str(int(row["item"]))) for row in shown], dict(context, likes=tuple(context["likes"]), other=1)), expected[:half])
    same(client.score(({"item": row["item"], "brand": row["brand"], "price": row["price"]} for row in rows[:1]), context), expected[:1])
    # Everything as context: one candidate, twice.
    same(client.score(2, rows[3]), [expected[3]] * 2)


def check_answer(client, rows, expected):
    answer = client.answer(rows[:3], request_id="r\u00e9", unit="u", logits=True)
    assert list(answer.outputs) == ["click"] and list(answer.logits) == ["click"]
    same(answer.outputs["click"], expected[:3])
    logits = answer.logits["click"].astype(np.float64)
    assert np.allclose(1 / (1 + np.exp(-logits)), answer.outputs["click"], rtol=1e-5)
    assert (answer.request_id, answer.model) == ("r\u00e9", "shop")
    assert not client.answer(rows[:1]).logits
    model, = client.models()
    assert (model.name, model.version) == ("shop", answer.model_version)
    assert sorted(feature.name for feature in model.features) == ["brand", "item", "likes", "price", "user"]


def raises(kind, call, *words):
    try:
        call()
    except kind as error:
        assert all(word in str(error) for word in words), (str(error), words)
        return error
    sys.exit(f"nothing was raised: {words}")


def check_refusals(client, rows):
    error = raises(clicktower.ScoreError, lambda: client.score([{"item": 1}], {"user": "u"}), "INVALID_ARGUMENT", "missing")
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    raises(clicktower.ScoreError, lambda: client.score([]), "INVALID_ARGUMENT", "no candidates")
    raises(clicktower.ScoreError, lambda: client.score(rows, model="other"), "NOT_FOUND", "other", "shop")
    raises(clicktower.ScoreError, lambda: client.score(rows[0:1] * 10001), "RESOURCE_EXHAUSTED", "10001")
    raises(clicktower.ScoreError, lambda: client.score([dict(rows[1], price=float("inf"))]), "price", "finite")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        late = clicktower.Client("127.0.0.1:%d" % silent.getsockname()[1], options=OPTIONS)
        raises(clicktower.ScoreError, lambda: late.score(rows, timeout=0.2), "DEADLINE_EXCEEDED")
    raises(TypeError, lambda: client.score([dict(rows[1], price="cheap")]), "price", "number")
    raises(TypeError, lambda: client.score([dict(rows[1], item=2.5)]), "item", "row 0", "2.5")
    raises(TypeError, lambda: client.score([rows[0], dict(rows[1], brand=True)]), "brand", "row 1", "True")
    raises(TypeError, lambda: client.score([rows[0], 3]), "candidate 1", "dict")
    raises(ValueError, lambda: client.score({"item": [1, 2], "brand": ["a"]}), "item", "2", "brand", "1")
    # One value where one for each candidate is wanted: the letters of a text are no candidates.
    raises(TypeError, lambda: client.score({"item": [1, 2, 3], "brand": "abc"}), "brand", "abc", "each candidate")
    raises(TypeError, lambda: client.score({"item": 17}), "item", "17", "each candidate")
    raises(TypeError, lambda: client.score(None), "candidates", "None")
    raises(TypeError, lambda: client.score("abc"), "candidates", "abc")
    raises(TypeError, lambda: client.score(rows[:1], ["user"]), "context", "list")
    raises(ValueError, lambda: client.score([rows[0], dict(rows[1], brand="\ud800")]), "brand", "row 1", "surrogate")
    # An integer beyond 64 bits with a sign goes as text: good for an id of text, refused by name where the schema says integer.
    for large in ([2**64 - 1], np.array([2**64 - 1], dtype=np.uint64)):
        columns = {name: [value] for name, value in rows[1].items()}
        same(client.score(dict(columns, brand=large)), client.score(dict(columns, brand=["18446744073709551615"])))
        raises(clicktower.ScoreError, lambda: client.score(dict(columns, item=large)), "INVALID_ARGUMENT", "item", "18446744073709551615")
    same(client.score(dict(columns, brand=np.array([7], dtype=np.uint64))), client.score(dict(columns, brand=["7"])))
    with clicktower.Client("127.0.0.1:1", options=OPTIONS) as nobody:
        raises(clicktower.ScoreError, lambda: nobody.score(rows), "UNAVAILABLE")


def check_token(model, rows, expected):
    tokens = os.path.join(work, "tokens")
    with open(tokens, "w") as file:
        file.write("secret\n")
    server = subprocess.Popen([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--queue-ms", "600000", "--model", model, "--token-file", tokens], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    try:
        target = server.stdout.readline().split()[-1]
        with clicktower.Client(target, token="secret", timeout=600, options=OPTIONS) as client:
            same(client.score(rows), expected)
        for token in (None, "other"):
            with clicktower.Client(target, token=token, timeout=600, options=OPTIONS) as client:
                raises(clicktower.ScoreError, lambda: client.score(rows), "UNAUTHENTICATED")
    finally:
        server.kill()
        server.wait()


def check_experiment(models, rows, expected):
    """Two arms that need different features: the client sends what both need, passes on what the server says, and brings feedback."""
    file, folder = os.path.join(work, "experiment.yaml"), os.path.join(work, "feedback")
    with open(file, "w") as out:
        out.write("name: ranker\narms: [{name: old, model: whole}, {name: new, model: less}]\nforced: [{unit: o, arm: old}, {unit: n, arm: new}, {unit: '7', arm: new}]\n")
    server = subprocess.Popen([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--queue-ms", "600000", "--model", *[f"{name}={path}" for name, path in models.items()],
                               "--experiment", file, "--exposures", os.path.join(work, "exposures"), "--feedback", folder],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        with clicktower.Client(server.stdout.readline().split()[-1], timeout=600, options=OPTIONS) as client:
            for unit, arm, model in (("o", "old", "whole"), ("n", "new", "less"), (7, "new", "less")):
                answer = client.answer(rows, unit=unit)
                assert (answer.experiment, answer.arm, answer.assigned, answer.model) == ("ranker", arm, "forced", model), answer
                same(answer.outputs["click"], expected[model])
                same(client.score(rows, model=model), expected[model])
            answer = client.answer(rows[:2], unit="n", arm="old")
            assert (answer.arm, answer.assigned) == ("old", "outside") and answer.request_id
            assert client.answer(rows[:2]).assigned == "none"
            assert client.answer(rows[:2], model="less").assigned == ""
            raises(clicktower.ScoreError, lambda: client.answer(rows[:2], arm="third"), "INVALID_ARGUMENT", "third")
            shown = [{"request_id": answer.request_id, "candidate": i, "event": "shown", "position": i + 1} for i in range(2)]
            click = {"request_id": answer.request_id, "candidate": 1, "event": "click", "event_id": "c1", "value": 0, "time_ms": 1700000000000}
            assert client.feedback([*shown, click]) == 3
            text = "".join(open(os.path.join(folder, name)).read() for name in os.listdir(folder))
            lines = [json.loads(line) for line in text.splitlines()]
            assert [(line["candidate"], line["event"], line["position"], line["value"]) for line in lines] == [
                (0, "shown", 1, 1), (1, "shown", 2, 1), (1, "click", 0, 0)], lines
            assert lines[2]["event_id"] == "c1" and lines[2]["time_ms"] == 1700000000000
            raises(clicktower.ScoreError, lambda: client.feedback([dict(click, event="")]), "INVALID_ARGUMENT", "events[0].event")
            raises(ValueError, lambda: client.feedback([click, {"requestid": "r"}]), "event 1", "requestid")
        server.terminate()
        assert server.wait() == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def main():
    rows = make_rows(400)
    log, schema, model = (os.path.join(work, name) for name in ("log.tsv", "shop.yaml", "model"))
    with open(log, "w", encoding="utf-8") as file:
        file.writelines(as_line(row) for row in rows)
    with open(schema, "w") as file:
        file.write(SCHEMA)

    def train(*more):
        run(PROGRAM, "train", "--schema", schema, "--model", "dcn-v2", "--set", "deep=[16]", "--set", "embedding.min_count=1", *more,
            "--epochs", "3", "--batch", "128", "--train", log, "--out", model)
        values = run(PROGRAM, "eval", "--model", model, "--data", log, "--predictions", "-", "--json", os.path.join(work, "m.json")).split()
        return [float(value) for value in values]

    expected = train("--set", "exclude=[unused]")
    assert len(set(expected)) > 300
    server = subprocess.Popen([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--queue-ms", "600000", "--model", f"shop={model}"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    try:
        target = server.stdout.readline().split()[-1]
        with clicktower.Client(target, timeout=600, options=OPTIONS) as client:
            check_forms(client, rows, expected)
            check_answer(client, rows, expected)
            check_refusals(client, rows)
            # Another model takes over: it needs one feature less, and the client notices.
            before = client.models()[0].version
            smaller = train("--set", "exclude=[unused, brand]")
            server.send_signal(signal.SIGHUP)
            while client.models()[0].version == before:
                pass
            without = [{name: value for name, value in row.items() if name != "brand"} for row in rows]
            same(client.score(rows), smaller)
            same(client.score(without), smaller)
        less = os.path.join(work, "less")
        shutil.copytree(model, less)
        check_experiment({"whole": model, "less": less}, rows, {"whole": train("--set", "exclude=[unused]"), "less": smaller})
        smaller = train("--set", "exclude=[unused, brand]")
        check_token(model, rows, smaller)
        server.terminate()
        assert server.wait() == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    assert api.ScoreRequest.DESCRIPTOR.full_name == "clicktower.v1.ScoreRequest"
    print("rows, columns, arrays and frames score as eval does")


with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    main()
