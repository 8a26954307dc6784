#!/usr/bin/python3
"""clicktower join against the truth that tests/tools/live_log.py knows: rows, labels, order, counts; the digest of a training; refusals.

    join_test.py CLICKTOWER
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    from live_log import LiveLog, SCHEMA, WAIT_MS, BEGIN_MS
except ImportError as error:
    print(f"SKIP: the made log needs Debian's python3-numpy and python3-xxhash ({error})")
    sys.exit(0)

PROGRAM = os.path.abspath(sys.argv[1])


def run(*arguments, wanted=0):
    done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == wanted, f"{arguments}: {done.returncode}, not {wanted}\n{done.stdout}{done.stderr}"
    return done.stdout if wanted == 0 else done.stderr


def join(folder, out, *more):
    return json.loads(run("join", "--exposures", folder, "--feedback", folder, "--schema", "shop.yaml", "--out", out, "--json", "-", *more))


def read(path, mode="rb"):
    with open(path, mode) as file:
        return file.read()


def write(path, text, mode="w"):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, mode) as file:
        file.write(text)


def digest(data):
    run("train", "--schema", "shop.yaml", "--model", "fm", "--train", data, "--out", "model", "--threads", "2", "--batch", "128")
    return [line for line in run("verify", "model").splitlines() if line.startswith("digest ")][0]


def test_rows(log):
    """Text and block file hold what was shown, in its order, and train to the same model as the truth."""
    summary = join("log", "joined.tsv")
    assert read("joined.tsv", "r") == log.truth(), "joined.tsv is not the truth"
    assert summary["rows"] == len(log.rows) and summary["positives"] == sum(row[3][0] == "1" for row in log.rows), summary
    join("log", "joined.ctb")
    write("truth.tsv", log.truth())
    run("convert", "--schema", "shop.yaml", "--in", "truth.tsv", "--out", "truth.ctb")
    assert read("joined.ctb") == read("truth.ctb"), "the block files differ"
    assert digest("joined.ctb") == digest("truth.tsv"), "the models differ"
    print("[       OK ] rows_are_the_truth_and_train_to_the_same_model")


def test_histories(log):
    """What follows from histories that a part of the requests brought: it is made of the rows that were shown, as from the truth."""
    with_history = SCHEMA + """  - {name: liked, kind: history, of: item, clicked: true, max: 5}
  - {name: liked_before, kind: number, of: liked}
"""
    plain = digest("truth.tsv")
    write("shop.yaml", with_history)
    for one in log.requests:
        if "error" not in one and one["unit"] == log.rows[0][3].split("\t")[3]:
            one["context"].append({"name": "liked", "integers": [1, 2], "lengths": [2]})
    log.write("brought", seed=1)
    summary = join("brought", "joined.ctb")
    assert join("brought", "joined.tsv")["rows"] == len(log.rows) and read("joined.tsv", "r") == log.truth()
    brought = sum(row[3].split("\t")[3] == log.rows[0][3].split("\t")[3] for row in log.rows)
    assert any(f"'liked' is left out" in warning and f"({brought} of {len(log.rows)} have" in warning for warning in summary["warnings"]), summary
    assert digest("joined.ctb") == digest("truth.tsv") != plain
    write("shop.yaml", SCHEMA)
    print("[       OK ] histories_are_made_of_the_rows")


def test_counts(log):
    summary, events = join("log", "joined.ctb"), [json.dumps({**e, "received_ms": 0}, sort_keys=True) for e in log.events]
    feedback, exposures = summary["feedback"], summary["exposures"]
    scored = {e["request_id"]: e for e in log.requests if "error" not in e}
    once = [json.loads(e) for e in set(events)]
    wanted = [e for e in once if e["event"] != "purchase" and e["event"] != "ping"]
    assert exposures["scored"] == len(scored) and exposures["failed"] == len(log.requests) - len(scored), exposures
    assert exposures["unfinished_lines"] == 1 and feedback["unfinished_lines"] == 1
    purchases = sum(e["event"] == "purchase" for e in log.events)
    assert feedback["other_events"] == purchases + 1, feedback  # and the ping
    assert feedback["duplicates"] == len(log.events) - purchases - len(wanted), feedback
    assert feedback["conflicting_ids"] == 0 and feedback["unknown_requests"] == 3
    assert feedback["no_such_candidate"] == sum(e["candidate"] >= scored[e["request_id"]]["candidates"] for e in wanted)
    known = [e for e in wanted if e["candidate"] < scored[e["request_id"]]["candidates"]]
    truth = {request: e["truth"] for request, e in scored.items()}
    shown = sum(e["event"] == "shown" for e in known)
    assert feedback["shown_again"] == shown - len(log.rows)
    assert feedback["not_shown"] == sum(e["candidate"] not in truth[e["request_id"]] for e in known) > 0
    late = sum(e["candidate"] in truth[e["request_id"]] and e["event"] == "click" and
               e["time_ms"] > truth[e["request_id"]][e["candidate"]][0] + WAIT_MS for e in known)
    assert feedback["behind_the_window"] == late > 0
    assert summary["missing"] == {} and feedback["still_waiting"] == 0
    print("[       OK ] what_is_left_out_is_counted")


def test_any_order(log):
    """Other files, another order, everything a second time: the same bytes."""
    log.write("other", seed=2, files=5)
    for name in sorted(os.listdir("log")):
        if not name.endswith(".part"):
            write("other/" + name.replace("-1-", "-2-"), read("log/" + name), "wb")
    summary = join("other", "other.ctb")
    join("log", "joined.ctb")
    assert read("other.ctb") == read("joined.ctb"), "the order of the lines shows"
    assert summary["exposures"]["repeated_request_ids"] > 0 and summary["feedback"]["duplicates"] > 1000
    # Folders of their own, and a name that is renamed while it is listed.
    for kind in ("exposures", "feedback"):
        for name in os.listdir("log"):
            if name.startswith(kind):
                write(f"apart-{kind}/sub/{name}", read("log/" + name), "wb")
    whole = [name for name in os.listdir("log") if name.startswith("exposures") and not name.endswith(".part")][0]
    write(f"apart-exposures/sub/{whole}.part", "{")
    out = run("join", "--exposures", "apart-exposures", "--feedback", "apart-feedback", "--schema", "shop.yaml", "--out", "apart.ctb")
    assert read("apart.ctb") == read("joined.ctb") and "rows " in out and "feedback.not_shown " in out, out
    print("[       OK ] order_and_files_do_not_show")


def test_window(log):
    """Rows whose window has not passed are not there yet; without a window nothing waits and every click counts."""
    until = BEGIN_MS + log.span_ms // 2
    summary = join("log", "half.tsv", "--until", str(until / 1000))
    early = "".join(row[3] for row in sorted(log.rows, key=lambda row: row[:3]) if row[0] + WAIT_MS <= until)
    assert read("half.tsv", "r") == early and 0 < summary["rows"] < len(log.rows)
    assert summary["feedback"]["still_waiting"] == len(log.rows) - summary["rows"]
    always, usual = join("log", "always.ctb", "--wait-seconds", "0"), join("log", "usual.ctb")
    assert always["positives"] == usual["positives"] + usual["feedback"]["behind_the_window"]
    bought = join("log", "bought.ctb", "--positive", "purchase")
    assert 0 < bought["positives"] == sum(t[2] > 0 for e in log.requests for t in e.get("truth", {}).values())
    print("[       OK ] the_waiting_window_holds")


def exposure(**changes):
    one = {"time_ms": 5, "request_id": "r", "unit": "u", "candidates": 2, "context": [{"name": "user", "tokens": ["u"]}],
           "columns": [{"name": "item", "integers": [1, 2]}], "scores": {"click": [0.5, 0.25]}}
    one.update(changes)
    return json.dumps({key: value for key, value in one.items() if value is not None})


def event(**changes):
    return json.dumps({"received_ms": 9, "time_ms": 6, "request_id": "r", "candidate": 1, "event": "shown", **changes})


SMALL = """name: small
format: {header: true}
fields:
  - {name: label, kind: label, column: like, at_least: 4}
  - {name: at, kind: time, column: at}
  - {name: user, kind: id, column: user, side: context}
  - {name: item, kind: id, column: item, type: integer}
"""


def test_refused():
    write("small.yaml", SMALL)

    def small(exposures, events, out="small.tsv", wanted=1, wait="0"):
        write("small/exposures-1.jsonl", exposures + "\n")
        write("small/feedback-1.jsonl", events + "\n")
        return run("join", "--exposures", "small", "--feedback", "small", "--schema", "small.yaml", "--out", out, "--wait-seconds", wait,
                   wanted=wanted)

    small(exposure(), event(), wanted=0)
    assert read("small.tsv", "r") == "like\tat\tuser\titem\n3\t0.006\tu\t2\n", read("small.tsv", "r")
    small(exposure(request_id="r", scores={"click": [0, 1]}), event() + "\n" + event(event="click", value=2), wanted=0)
    assert read("small.tsv", "r").startswith("like\tat\tuser\titem\n4\t")
    for lines, words in (
            ((exposure() + "\n{", event()), "small/exposures-1.jsonl:2: no JSON"),
            ((exposure(time_ms=None), event()), 'exposures-1.jsonl:1: "time_ms" is missing: a whole number'),
            ((exposure(time_ms=-1), event()), '"time_ms" is -1'),
            ((exposure(request_id=""), event()), '"request_id"'),
            ((exposure(assigned="coin"), event()), '"assigned" is "coin"'),
            ((exposure(sample_rate=0), event()), '"sample_rate" is 0'),
            ((exposure(sample_rate=1e-40), event()), "a number from 1e-9 to 1"),  # its inverse is no float
            ((exposure(scores={"click": [0.5]}), event()), '"scores" has 1 values for 2 candidates'),
            ((exposure(columns=[{"name": "item", "integers": [1]}]), event()), "column 'item': 1 rows with 1 values"),
            ((exposure(columns=[{"name": "item", "numbers": [1, 2]}]), event()), "column 'item': schema 'small' has a text or integer id"),
            ((exposure(columns=[{"name": "item", "tokens": ["1", "x"]}]), event()), "exposures-1.jsonl:1: field 'item': 'x' is no integer"),
            ((exposure(columns=[{"name": "item", "integers": [1, 2, 3], "lengths": [1, 2]}]), event()), "row 1 has 2 values"),
            ((exposure(columns=[]), event()), "no request brings 'item'"),
            ((exposure(context=[{"name": "user", "tokens": ["a\tb"]}]), event()), "can't stand in a line of text"),
            ((exposure(), event() + "\n" + event(candidate=-1)), 'feedback-1.jsonl:2: "candidate" is -1'),
            ((exposure(), event(event="")), '"event" is ""'),
            ((exposure(), event(value="much")), '"value" is "much"'),
            ((exposure(), event(value=-1e101)), "within 1e100")):
        out = "small.ctb" if "no integer" in words else "refused.tsv"
        message = small(*lines, out=out)
        assert words in message, f"{words!r} is not in {message!r}"
        assert not os.path.exists(out), "a file in spite of a failure"
    message = small(exposure() + "\n" + exposure(request_id="q", columns=None), event() + "\n" + event(request_id="q"), wanted=0)
    assert read("small.tsv", "r").count("\n") == 3
    derived = exposure(derived=[{"name": "item#odds", "numbers": [0.5, 1]}])
    assert "exposures.with_target_statistics 1" in small(derived, event(), wanted=0)
    # Bytes that are not UTF-8, and a number that was not finite.
    small(exposure(context=[{"name": "user", "tokens": [{"hex": "c3ff"}]}]), event(), wanted=0)
    assert read("small.tsv") == b"like\tat\tuser\titem\n3\t0.006\t\xc3\xff\t2\n"
    assert "an id is a text" in small(exposure(context=[{"name": "user", "tokens": [{"hex": "c"}]}]), event(), out="refused.tsv")
    twice = event(event_id="e") + "\n" + event(event_id="e", candidate=0)
    assert "feedback.conflicting_ids 1" in small(exposure(), twice, wanted=0)
    write("small/exposures-2.jsonl.gz", "x")
    assert "unpack it" in small(exposure(), event())
    os.remove("small/exposures-2.jsonl.gz")
    assert "no such folder" in run("join", "--exposures", "nowhere", "--feedback", "small", "--schema", "small.yaml", "--out", "x",
                                   wanted=1)
    assert "--schema" in run("join", "--exposures", "small", "--feedback", "small", "--out", "x", wanted=2)
    print("[       OK ] what_is_wrong_is_refused_by_file_line_and_member")


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
        os.chdir(work)
        write("shop.yaml", SCHEMA)
        log = LiveLog(seed=1, users=700)
        log.write("log", seed=1)
        test_rows(log)
        test_histories(log)
        test_counts(log)
        test_any_order(log)
        test_window(log)
        test_refused()


if __name__ == "__main__":
    main()
