#!/usr/bin/python3
"""A live experiment on the whole program: arms, exposures and feedback, through a missing model, changed files, a full disk and kill -9.

Usage: live_test.py PROGRAM
"""

import glob
import http.client
import json
import math
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading

try:
    import grpc
    from google.protobuf import json_format
except ImportError as error:
    print(f"SKIP: the independent client needs Debian's python3-grpcio and python3-protobuf ({error})")
    sys.exit(0)

PROTO_ROOT = os.getcwd()
PROGRAM = os.path.abspath(sys.argv[1])
NUMBERS = [f"I{i}" for i in range(1, 14)]
IDS = [f"C{i}" for i in range(1, 27)]
NAMES = NUMBERS + IDS
EXPERIMENT = """name: ranker
control: old
holdout: 10
ramp: {ramp}
arms:
  - {{name: old, weight: {weight}, model: first}}
  - {{name: new, weight: 50, model: second}}
forced:
  - {{unit: tester, arm: new}}
"""


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def write(name, text):
    path = os.path.join(work, name)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)
    return path


def bits(values):
    return [struct.pack("<f", value) for value in values]


def lines_of(folder, torn=False):
    """Every line of every file as JSON. With `torn`, a last line of a .part may lack its end: it is not there yet."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "*"))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        whole, _, rest = text.rpartition("\n")
        assert not rest or (torn and path.endswith(".part")), (path, rest[-100:])
        found.extend(json.loads(line) for line in whole.splitlines())
    return found


class Server:
    def __init__(self, *arguments):
        self.log, self.said = [], threading.Condition()
        self.process = subprocess.Popen([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--threads", "2", "--queue-ms", "600000",
                                         "--look-seconds", "0.05", *arguments],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read_log, daemon=True).start()
        listening, admin = self.process.stdout.readline().split(), self.process.stdout.readline().split()
        assert listening[:2] == ["listening", "on"] and admin[:2] == ["admin", "on"], (listening, admin, self.log)
        self.admin = admin[2][len("http://"):-1]
        self.channel = grpc.insecure_channel(listening[2], options=[("grpc.enable_http_proxy", 0)])

        def method(name, request, response):
            return self.channel.unary_unary("/clicktower.v1.Scorer/" + name, request.SerializeToString, response.FromString)
        self.score = method("Score", api.ScoreRequest, api.ScoreResponse)
        self.feedback = method("Feedback", api.FeedbackRequest, api.FeedbackResponse)

    def _read_log(self):
        for line in self.process.stderr:
            with self.said:
                self.log.append(line)
                self.said.notify_all()

    def wait_log(self, *words):
        """The first line that holds all of the words, once it is there."""
        with self.said:
            while True:
                for line in self.log:
                    if all(word in line for word in words):
                        return line
                self.said.wait()

    def http(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.admin)
        connection.request(method, path, body if body is None or isinstance(body, (str, bytes)) else json.dumps(body), headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def metric(self, series):
        for line in self.http("GET", "/metrics")[1].decode().splitlines():
            if line.startswith(series + " "):
                return float(line[len(series) + 1:])
        sys.exit(f"no {series}")

    def wait_counted(self):
        """A request is counted just after its answer has gone."""
        while self.metric("clicktower_active_requests") != 0:
            pass

    def requests(self, arm, assigned):
        return self.metric(f'clicktower_experiment_requests_total{{experiment="ranker",arm="{arm}",assigned="{assigned}"}}')

    def reload(self, *words):
        with self.said:
            self.log.clear()
        self.process.send_signal(signal.SIGHUP)
        return self.wait_log(*words)

    def stop(self):
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0, self.log


def make_request(rows, **fields):
    """C1 to C10 as context, of the first row."""
    request = api.ScoreRequest(candidate_count=len(rows), **fields)
    for index, name in enumerate(NAMES):
        context = name in IDS[:10]
        column = (request.context if context else request.candidates).add(name=name)
        texts = [row[index] for row in (rows[:1] if context else rows)]
        if name in NUMBERS:
            column.numbers.extend(float(text) for text in texts if text)
            if not all(texts):
                column.lengths.extend(1 if text else 0 for text in texts)
        else:
            column.tokens.extend(texts)
    return request


def plain(rows, **fields):
    """Everything as a candidate's."""
    request = make_request(rows[:1], **fields)
    request.candidates.extend(request.context)
    del request.context[:]
    return request


def code_of(call, *arguments):
    try:
        call(*arguments)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def events(*given):
    return api.FeedbackRequest(events=[api.FeedbackEvent(**event) for event in given])


def check_arms_and_exposures(rows, expected, log):
    """Scores in an experiment are eval's of the arm's model, over gRPC and HTTP; the exposures hold all of it."""
    folder, file = os.path.join(work, "exposures"), write("experiment.yaml", EXPERIMENT.format(ramp=80, weight=50))
    server = Server("--model", *models, "--experiment", file, "--exposures", folder, "--feedback", os.path.join(work, "feedback"))
    sent, ways = {}, set()
    for number in range(120):
        row = rows[number]
        request = plain([row], unit=f"unit-{number}")
        answer = server.score(request, timeout=600)
        assert answer.experiment == "ranker" and answer.arm in ("old", "new") and answer.model == {"old": "first", "new": "second"}[answer.arm]
        assert bits(answer.outputs[0].probabilities) == bits([expected[answer.model][number]]), number
        assert answer.assigned in ("bucket", "ramp", "holdout") and (answer.assigned == "bucket" or answer.arm == "old"), answer
        ways.add((answer.arm, answer.assigned))
        assert len(answer.request_id) >= 16 and answer.request_id not in sent
        sent[answer.request_id] = request, answer
        if number % 10 == 0:  # the same unit by HTTP: the same arm, the same scores
            request.request_id = f"http-{number}"
            status, data = server.http("POST", "/v1/score", json_format.MessageToJson(request))
            assert status == 200, data
            other = json_format.ParseDict(json.loads(data), api.ScoreResponse())
            assert other.request_id == request.request_id
            sent[other.request_id] = request, other
            other = api.ScoreResponse.FromString(other.SerializeToString())
            other.request_id = answer.request_id
            assert other == answer, (other, answer)
    assert ways == {("old", "bucket"), ("new", "bucket"), ("old", "ramp"), ("old", "holdout")}, ways
    request = make_request(rows[:50], unit="tester", request_id="many \u00e9")  # many candidates, with context
    answer = server.score(request, timeout=600)
    assert (answer.arm, answer.assigned) == ("new", "forced")
    sent[answer.request_id] = request, answer
    request = make_request(rows[:2], arm="new", request_id="outside")
    answer = server.score(request, timeout=600)
    assert (answer.arm, answer.assigned) == ("new", "outside")
    sent[answer.request_id] = request, answer
    code, details = code_of(server.score, make_request(rows[:2], arm="none such", request_id="lost"))
    assert code == "INVALID_ARGUMENT" and "none such" in details, details
    code, details = code_of(server.score, api.ScoreRequest(unit="tester", request_id="failed", candidate_count=1))
    assert code == "INVALID_ARGUMENT" and "missing" in details, details
    status, data = server.http("POST", "/v1/score", {"arm": "none such", "candidate_count": 1})
    assert status == 400 and b"none such" in data, data
    server.wait_counted()
    assert server.requests("new", "forced") == 2 and server.requests("new", "outside") == 1  # the failed one counts
    assert server.metric('clicktower_experiment_failures_total{experiment="ranker",arm="new"}') == 1
    counted = {way: sum(1 for _, answer in sent.values() if (answer.arm, answer.assigned) == way) for way in ways}
    assert {way: server.requests(*way) for way in ways} == counted, counted
    while server.metric("clicktower_exposures_written_total") != len(sent) + 1:
        pass
    assert all(path.endswith(".part") for path in os.listdir(folder))
    server.stop()
    assert not any(path.endswith(".part") for path in os.listdir(folder))
    assert f"written={len(sent) + 1} dropped=0" in server.wait_log("serve.exposures", "result=closed")

    lines = {line["request_id"]: line for line in lines_of(folder)}
    assert set(lines) == set(sent) | {"failed"}, set(lines) ^ set(sent)
    for request_id, (request, answer) in sent.items():
        line = lines[request_id]
        said = {name: line[name] for name in ("unit", "experiment", "arm", "assigned", "model", "model_version")}
        wanted = {name: getattr(answer, name) for name in said if name != "unit"}
        assert said == {"unit": request.unit, **wanted}, (said, wanted)
        assert line["candidates"] == request.candidate_count and line["sample_rate"] == 1 and line["latency_us"] > 0
        assert bits(line["scores"]["click"]) == bits(answer.outputs[0].probabilities)
        back = api.ScoreRequest(unit=request.unit, arm=request.arm, request_id=request.request_id, candidate_count=request.candidate_count)
        json_format.ParseDict({"context": line["context"], "candidates": line["columns"]}, back)
        assert back == request, (back, request)
    failed = lines["failed"]
    assert failed["error"] == "INVALID_ARGUMENT" and failed["arm"] == "new" and "scores" not in failed and "columns" not in failed
    check_derived(lines, log)
    print("arms score as eval does; exposures hold what was asked and answered")


def check_derived(lines, log):
    """Target statistics as they entered the network, computed anew from the log: docs and model.h have the formula."""
    smoothing, clicks, shown = 10, {}, {}
    for label, *row in log:
        for name, value in zip(IDS, row[len(NUMBERS):]):
            shown[name, value] = shown.get((name, value), 0) + 1
            clicks[name, value] = clicks.get((name, value), 0) + int(label)
    prior = (sum(int(line[0]) for line in log) + 0.5) / (len(log) + 1)  # as if one more row had been seen at each rate

    def odds(key):
        n, c = shown.get(key, 0), clicks.get(key, 0)
        return math.log1p(c / (smoothing * prior)) - math.log1p((n - c) / (smoothing * (1 - prior)))

    seen = 0
    for line in lines.values():
        if "error" in line:
            continue
        derived = {column["name"]: column["numbers"] for column in line["derived"]}
        if line["model"] == "first":
            assert not derived
            continue
        assert set(derived) == {name + "#odds" for name in IDS} | {name + "#bucket#odds" for name in NUMBERS}, set(derived)
        context = {column["name"]: column["tokens"] for column in line["context"]}
        for name in IDS:
            tokens = context.get(name) or next(column["tokens"] for column in line["columns"] if column["name"] == name)
            assert len(derived[name + "#odds"]) == len(tokens), name  # one value where the id is context
            for token, value in zip(tokens, derived[name + "#odds"]):
                assert abs(value - odds((name, token))) < 1e-5, (name, token, value, odds((name, token)))
                seen += 1
    assert seen > 1000


def check_changes(rows):
    """A model that is missing, and that comes; a ramp that grows; changes that would move units."""
    file, folder = write("changing.yaml", EXPERIMENT.format(ramp=30, weight=50)), os.path.join(work, "late")
    late = os.path.join(work, "late-model")
    server = Server("--model", models[0], f"second={late}", "--experiment", file, "--exposures", folder)
    assert "level=error" in server.wait_log("serve.reload", "result=refused", late)
    assert "level=warning" in server.wait_log("serve.arm", 'arm="new"', "control stands in")

    def ask(unit):
        answer = server.score(make_request(rows[:1], unit=unit), timeout=600)
        return answer.arm, answer.assigned, answer.model

    assert ask("tester") == ("old", "fallback", "first")
    units = [f"unit-{number}" for number in range(100)]
    without = {unit: ask(unit) for unit in units}
    assert {way for _, way, _ in without.values()} == {"bucket", "fallback", "ramp", "holdout"}
    info = 'clicktower_experiment_arm_info{experiment="ranker",arm="new",model="second",control="false",served="%s"}'
    assert server.metric(info % "false") == 1
    server.reload("serve.reload", "result=not_yet", late)  # still missing: the other model is read again all the same
    server.wait_log("serve.reload", "result=done")
    shutil.copytree(models[1].split("=")[1], late)
    server.reload("level=info", "serve.arm", 'arm="new"')  # a warning is of the time before, and may come late
    assert ask("tester") == ("new", "forced", "second") and server.metric(info % "true") == 1
    small = {unit: ask(unit) for unit in units}
    for unit in units:  # the same units as before, only that those that fell back are now served
        assert small[unit] == (("new", "bucket", "second") if without[unit][1] == "fallback" else without[unit]), unit
    write("changing.yaml", EXPERIMENT.format(ramp=90, weight=50))
    server.reload("serve.experiment", "ramp=90")
    large = {unit: ask(unit) for unit in units}
    moved = [unit for unit in units if large[unit] != small[unit]]
    assert moved and all(small[unit][1] == "ramp" and large[unit][1] == "bucket" for unit in moved), moved
    for text, word in ((EXPERIMENT.format(ramp=90, weight=51), "weight"), (EXPERIMENT.format(ramp=10, weight=50), "ramp"), ("name: x\n", "arms")):
        write("changing.yaml", text)
        assert word in server.reload("serve.experiment", "result=refused")
        server.wait_log("serve.reload", "result=done")
        assert {unit: ask(unit) for unit in units[:30]} == {unit: large[unit] for unit in units[:30]}
    server.wait_counted()
    before = server.requests("old", "bucket")
    write("changing.yaml", EXPERIMENT.format(ramp=100, weight=50))
    server.reload("serve.experiment", "ramp=100")
    assert server.requests("old", "bucket") == before  # the counts go on
    server.stop()
    fallbacks = [line for line in lines_of(folder) if line["assigned"] == "fallback"]
    assert len(fallbacks) == 1 + sum(way == "fallback" for _, way, _ in without.values())
    assert all((line["arm"], line["fallback_arm"], line["model"]) == ("old", "new", "first") for line in fallbacks)
    # What must not be: no model for the control, a wrong file.
    for arguments, words in ((["--model", models[1], "--experiment", file], ("first", "not served")),
                             (["--model", *models, "--experiment", write("wrong.yaml", "name: x\n")], ("wrong.yaml", "arms"))):
        done = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and all(word in done.stderr.splitlines()[-1] for word in words), done.stderr
    print("a missing model falls to the control; ramps move no unit; changes that would are refused")


def check_feedback_http():
    folder, tokens = os.path.join(work, "by-http"), write("tokens", "secret\n")
    server = Server("--model", models[0], "--feedback", folder, "--token-file", tokens)
    body = {"events": [{"request_id": "r", "candidate": 2, "event": "shown", "position": 1}, {"requestId": "r", "event": "bought", "value": 0.1, "timeMs": "1700000000000"}]}
    known = {"Authorization": "Bearer secret"}
    assert server.http("POST", "/v1/feedback", body)[0] == 401
    assert code_of(server.feedback, events({"request_id": "r", "event": "click"}))[0] == "UNAUTHENTICATED"
    status, data = server.http("POST", "/v1/feedback", body, known)
    assert status == 200 and json.loads(data) == {"accepted": 2}, data
    lines = lines_of(folder)  # it is there before anything else happens
    assert [(line["candidate"], line["event"], line["value"], line["position"]) for line in lines] == [(2, "shown", 1, 1), (0, "bought", 0.1, 0)]
    assert lines[1]["time_ms"] == 1700000000000 and lines[0]["time_ms"] == lines[0]["received_ms"]
    for wrong, word in (({"events": []}, "no events"), ({"events": [{"event": "x"}]}, "events[0].request_id"), ({"event": 1}, "event"),
                        ({"events": [{"request_id": "r", "event": "x", "value": "much"}]}, "events[0].value"), ("{", "the body"),
                        ({"events": [{"request_id": "r", "event": "x", "value": "NaN"}]}, "finite"),
                        ({"events": [{"request_id": "r", "event": "x", "candidate": 10000}]}, "candidate")):
        status, data = server.http("POST", "/v1/feedback", wrong, known)
        assert status == 400 and word in json.loads(data)["error"]["message"], (wrong, data)
    assert server.http("GET", "/v1/feedback", None, known)[0] == 405
    assert server.feedback(events({"request_id": "r", "event": "click"}), metadata=[("authorization", "Bearer secret")], timeout=600).accepted == 1
    assert server.metric('clicktower_feedback_refused_total{reason="invalid"}') == 4  # what was no message never came that far
    assert server.metric('clicktower_feedback_events_total{event="other"}') == 1
    assert "count=" in server.wait_log("serve.refused", "kind=feedback_invalid")
    threads = [threading.Thread(target=server.http, args=("POST", "/v1/feedback", body, known)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.stop()
    assert len(lines_of(folder)) == 2 + 1 + 40
    server = Server("--model", models[0])
    status, data = server.http("POST", "/v1/feedback", body)
    assert status == 501 and b"--feedback" in data, data
    assert code_of(server.feedback, events({"request_id": "r", "event": "click"}))[0] == "UNIMPLEMENTED"
    server.stop()
    print("feedback by HTTP: the same checks, and on disk before the answer")


def check_rotation(rows):
    """By age: files take their names while the server runs; no line is lost or twice."""
    folder, feedback = os.path.join(work, "rotated"), os.path.join(work, "rotated-feedback")
    server = Server("--model", *models, "--exposures", folder, "--feedback", feedback, "--rotate-seconds", "0.05", "--exposure-sample", "0.5")
    sent = 0
    while sum(not path.endswith(".part") for path in os.listdir(folder)) < 3 or sum(not path.endswith(".part") for path in os.listdir(feedback)) < 3:
        server.score(make_request(rows[:1], request_id=f"id {sent}"), timeout=600)
        server.feedback(events({"request_id": f"id {sent}", "event": "shown"}), timeout=600)
        sent += 1
    server.stop()
    ids = [line["request_id"] for line in lines_of(folder)]
    assert ids == sorted(set(ids), key=lambda text: int(text[3:])) and 0 < len(ids) < sent, (len(ids), sent)
    assert all(line["sample_rate"] == 0.5 and line["assigned"] == "none" for line in lines_of(folder))
    assert [line["request_id"] for line in lines_of(feedback)] == [f"id {number}" for number in range(sent)]
    print("files are rotated; the sample is part of the requests")


def check_full_disk(rows, expected):
    """Files may not grow beyond a limit: exposures are dropped and counted, feedback is not acknowledged, scoring goes on."""
    folder, feedback = os.path.join(work, "full"), os.path.join(work, "full-feedback")
    server = Server("--model", *models, "--exposures", folder, "--feedback", feedback)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
    acknowledged = sent = 0
    while server.metric('clicktower_exposures_dropped_total{reason="unwritable"}') < 20:
        answer = server.score(plain([rows[sent % len(rows)]]), timeout=600)
        assert bits(answer.outputs[0].probabilities) == bits([expected["first"][sent % len(rows)]])
        sent += 1
    code = "OK"
    while code == "OK":
        code, details = code_of(server.feedback, events(*[{"request_id": f"f {acknowledged}", "event": "x" * 60}] * 10))
        acknowledged += code == "OK"
    assert code == "UNAVAILABLE" and "send it again" in details and feedback in details, (code, details)
    status, data = server.http("POST", "/v1/feedback", {"events": [{"request_id": "f", "event": "x" * 64}] * 1000})
    assert status == 503 and b"UNAVAILABLE" in data, data
    assert server.metric('clicktower_feedback_refused_total{reason="unwritable"}') >= 2
    server.wait_log("serve.feedback", "result=failing", "File too large")
    line = server.wait_log("serve.exposures", "result=failing", "File too large")
    assert "level=error" in line and folder in line, line
    for number in range(50):
        answer = server.score(plain([rows[number]]), timeout=600)
        assert bits(answer.outputs[0].probabilities) == bits([expected["first"][number]])
        sent += 1
    while server.metric('clicktower_exposures_dropped_total{reason="unwritable"}') + server.metric("clicktower_exposures_written_total") != sent:
        pass
    written = server.metric("clicktower_exposures_written_total")
    server.stop()
    assert sum("serve.exposures" in line and "result=failing" in line for line in server.log) <= 1 + sum("result=recovered" in line for line in server.log)
    assert len(lines_of(folder)) == written > 0 and written < sent
    assert len(lines_of(feedback)) == 10 * acknowledged > 0
    print("a full disk: dropped and counted, said once, scored on")


def check_kill(rows):
    """kill -9 while requests and feedback come: whole lines; every request that was answered a while ago, every event that was acknowledged."""
    folder, feedback = os.path.join(work, "killed"), os.path.join(work, "killed-feedback")
    server = Server("--model", *models, "--exposures", folder, "--feedback", feedback)
    acknowledged, answered, stop = [[] for _ in range(4)], [[] for _ in range(2)], threading.Event()

    def send_feedback(mine, number):
        while not stop.is_set():
            name = f"{number}-{len(mine)}"
            if code_of(server.feedback, events(*[{"request_id": name, "event": "shown", "candidate": i} for i in range(5)]))[0] != "OK":
                return
            mine.append(name)

    def send_score(mine, number):
        while not stop.is_set():
            name = f"{number}-{len(mine)}"
            if code_of(server.score, make_request(rows[:20], request_id=name))[0] != "OK":
                return
            mine.append(name)

    threads = [threading.Thread(target=send_feedback, args=(mine, number)) for number, mine in enumerate(acknowledged)]
    threads += [threading.Thread(target=send_score, args=(mine, number)) for number, mine in enumerate(answered)]
    for thread in threads:
        thread.start()
    while min(map(len, acknowledged)) < 20 or min(map(len, answered)) < 100 or server.metric("clicktower_exposures_written_total") < 100:
        pass
    written = server.metric("clicktower_exposures_written_total")
    server.process.kill()
    server.process.wait()
    stop.set()
    for thread in threads:
        thread.join()
    server.channel.close()
    lines = lines_of(feedback, torn=True)
    for mine in acknowledged:
        for name in mine:
            got = [line["candidate"] for line in lines if line["request_id"] == name]
            assert sorted(got) == list(range(5)), (name, got)
    assert len(lines_of(folder, torn=True)) >= written
    assert all(path.endswith(".part") for path in os.listdir(folder) + os.listdir(feedback))
    # The next server writes beside them.
    server = Server("--model", *models, "--exposures", folder, "--feedback", feedback)
    server.score(make_request(rows[:1], request_id="after"), timeout=600)
    server.feedback(events({"request_id": "after", "event": "shown"}), timeout=600)
    server.stop()
    assert lines_of(folder, torn=True)[-1]["request_id"] == "after" and lines_of(feedback, torn=True)[-1]["request_id"] == "after"
    print("kill -9: whole lines, and nothing that was acknowledged is lost")


def check_refused_folders():
    blocked = write("a-file", "x")
    for option in ("--exposures", "--feedback"):
        done = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--model", models[0], option, blocked], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and blocked in done.stderr.splitlines()[-1], done.stderr


def main():
    log_path = os.path.join(work, "log.tsv")
    run(PROGRAM, "synth", "--rows", "3000", "--seed", "3", "--out", log_path)
    with open(log_path) as file:
        log = [line.rstrip("\n").split("\t") for line in file]
    rows = [line[1:] for line in log]
    recipes = {"first": ["--model", "lr"], "second": ["--model", "fm", "--set", "embedding.target_stats=true", "--set", "embedding.dim=8"]}
    expected = {}
    for name, recipe in recipes.items():
        model = os.path.join(work, name)
        run(PROGRAM, "train", "--schema", "criteo", *recipe, "--train", log_path, "--out", model)
        models.append(f"{name}={model}")
        expected[name] = [float(value) for value in run(PROGRAM, "eval", "--model", model, "--data", log_path, "--predictions", "-", "--json",
                                                        os.path.join(work, "metrics.json")).split()]
    check_arms_and_exposures(rows, expected, log)
    check_changes(rows)
    check_feedback_http()
    check_rotation(rows)
    check_full_disk(rows, expected)
    check_kill(rows)
    check_refused_folders()


models = []
with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    run("protoc", f"--proto_path={PROTO_ROOT}", f"--python_out={work}", "proto/clicktower.proto")
    sys.dont_write_bytecode = True
    sys.path.insert(0, work)
    from proto import clicktower_pb2 as api
    main()
