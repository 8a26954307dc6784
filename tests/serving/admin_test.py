#!/usr/bin/python3
"""The admin port of a running server, by independent programs: Python's HTTP client, protobuf's own JSON mapping, Prometheus' own parser.

Usage: admin_test.py PROGRAM
"""

import http.client
import json
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile

try:
    import grpc
    from google.protobuf import json_format
except ImportError as error:
    print(f"SKIP: the independent client needs Debian's python3-grpcio and python3-protobuf ({error})")
    sys.exit(0)
try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    text_string_to_metric_families = None
    print("SKIP: Prometheus' own parser (Debian's python3-prometheus-client) is not there; only the checks of this test are made")

PROTO_ROOT = os.getcwd()
NUMBERS = [f"I{i}" for i in range(1, 14)]
IDS = [f"C{i}" for i in range(1, 27)]
NAMES = NUMBERS + IDS
OPTIONS = [("grpc.enable_http_proxy", 0)]


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def bits(value):
    return struct.pack("<f", value)


class Server:
    def __init__(self, program, *models):
        self.process = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--threads", "2", "--queue-ms", "600000", "--model",
                                         *models], stdout=subprocess.PIPE, text=True)
        listening, admin = self.process.stdout.readline().split(), self.process.stdout.readline().split()
        assert listening[:2] == ["listening", "on"] and admin[:2] == ["admin", "on"], (listening, admin)
        assert admin[2].startswith("http://127.0.0.1:") and admin[2].endswith("/"), admin
        self.grpc, self.admin = listening[2], admin[2][len("http://"):-1]
        self.channel = grpc.insecure_channel(self.grpc, options=OPTIONS)
        self.score = self.channel.unary_unary("/clicktower.v1.Scorer/Score", api.ScoreRequest.SerializeToString,
                                              api.ScoreResponse.FromString)

    def http(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.admin)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.headers, data

    def post(self, body):
        status, headers, data = self.http("POST", "/v1/score", body if isinstance(body, (str, bytes)) else json.dumps(body))
        assert headers["Content-Type"] == "application/json", headers
        return status, json.loads(data)

    def metrics(self):
        status, headers, data = self.http("GET", "/metrics")
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), (status, headers)
        return check_metrics(data.decode("utf-8"))


def check_metrics(text):
    """{(name, labels as sorted pairs): value}; every rule of the format that we know is checked."""
    values, types, helps, order = {}, {}, set(), []
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helps and len(line.split(" ", 3)) == 4, line
            helps.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
            order.append(name)
        else:
            head, value = line.rsplit(" ", 1)
            name, _, labels = head.partition("{")
            assert not labels or labels.endswith("}"), line
            pairs = tuple(sorted(part.split("=", 1)[0] + "=" + json.loads(part.split("=", 1)[1]) for part in labels[:-1].split(",") if part))
            assert (name, pairs) not in values, line
            values[name, pairs] = float(value)
            family = next((name[:-len(end)] for end in ("_bucket", "_sum", "_count") if name.endswith(end) and name[:-len(end)] in types), name)
            assert family == order[-1], (line, "stands apart from its TYPE")
            assert types[family] != "counter" or (family.endswith("_total") and float(value) >= 0), line
    assert helps == set(types), helps ^ set(types)
    for family in [name for name, kind in types.items() if kind == "histogram"]:
        series = {}
        for (name, pairs), value in values.items():
            if name != family + "_bucket":
                continue
            bound = [pair[3:] for pair in pairs if pair.startswith("le=")][0]
            rest = tuple(pair for pair in pairs if not pair.startswith("le="))
            series.setdefault(rest, []).append((math.inf if bound == "+Inf" else float(bound), value))
        assert series, family
        for rest, buckets in series.items():
            assert buckets == sorted(buckets) and buckets[-1][0] == math.inf, (family, buckets)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets), (family, buckets)
            assert values[family + "_count", rest] == buckets[-1][1], (family, rest)
            assert values[family + "_sum", rest] >= 0, (family, rest)
            assert values[family + "_sum", rest] == 0 or buckets[-1][1] > 0, (family, rest)
    if text_string_to_metric_families:
        theirs = {(sample.name, tuple(sorted(f"{k}={v}" for k, v in sample.labels.items()))): sample.value
                  for family in text_string_to_metric_families(text) for sample in family.samples}
        assert theirs == values
    return values


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


def check_scores(server, rows):
    """JSON, written and read by protobuf's own json_format, gives what gRPC gives."""
    for model in ("first", "second", ""):
        for size, top_k in ((1, 0), (2, 0), (300, 0), (300, 9)):
            request = make_request(rows[:size], model=model, request_id=f"r\u00e9 {size}", unit="u", logits=True, top_k=top_k)
            wanted = server.score(request)
            assert len(wanted.candidates) == top_k and len(wanted.outputs[0].probabilities) == (top_k or size)
            assert top_k or len(set(wanted.outputs[0].probabilities)) > size / 3
            for names in (True, False):
                status, answer = server.post(json_format.MessageToJson(request, preserving_proto_field_name=names))
                assert status == 200, answer
                got = json_format.ParseDict(answer, api.ScoreResponse())
                assert got == wanted, (model, size)  # floats bit for bit
            request.logits = False
            status, answer = server.post(json_format.MessageToJson(request))
            assert status == 200 and "logits" not in answer["outputs"][0], answer
            assert [bits(v) for v in answer["outputs"][0]["probabilities"]] == [bits(v) for v in wanted.outputs[0].probabilities]
    # Integers for text ids, as numbers or as text; null is nothing.
    request = make_request(rows[:2], request_id="r")
    column = next(column for column in request.candidates if column.name == "C20")
    column.tokens[:] = ["17", "-4"]
    wanted = server.score(request)
    as_json = json_format.MessageToDict(request, preserving_proto_field_name=True)
    column = next(column for column in as_json["candidates"] if column["name"] == "C20")
    del column["tokens"]
    for integers in ([17, -4], ["17", "-4"]):
        column["integers"] = integers
        status, answer = server.post(dict(as_json, unit=None, model=None))
        assert status == 200 and json_format.ParseDict(answer, api.ScoreResponse()) == wanted, answer
    print("JSON scores equal gRPC's, bit for bit")


def check_refusals(server, rows):
    good = json_format.MessageToDict(make_request(rows[:2]), preserving_proto_field_name=True)

    def refused(body, wanted_status, code, *words):
        status, answer = server.post(body)
        assert status == wanted_status and list(answer) == ["error"] and answer["error"]["code"] == code, (body, status, answer)
        for word in words:
            assert word in answer["error"]["message"], (word, answer)

    def spoiled(name, **values):
        columns = [dict(column) for column in good["candidates"]]
        column = next(column for column in columns if column["name"] == name)
        column.update(values)
        return dict(good, candidates=columns)

    def place(name):
        return f"candidates[{[column['name'] for column in good['candidates']].index(name)}]"

    bad = "INVALID_ARGUMENT"
    for body in ("", "{", "no", '{"a":1,}', b"\xff\xfe", b'{"unit":"\xc3("}', b'{"unit":"\\u00e\xc8\xa3"}', '{"unit":"a","unit":"b"}'):
        refused(body, 400, bad, "the body")
    for body in ("[]", "1", "null", '"x"'):
        refused(body, 400, bad, "JSON" if body in ("1", "null", '"x"') else "object")
    refused({}, 400, bad, "no candidates")
    refused(dict(good, candidats=[]), 400, bad, "candidats", "ScoreRequest")
    refused(dict(good, requestId="a", request_id="b"), 400, bad, "request_id", "twice")
    refused(dict(good, request_id="x" * 129), 400, bad, "request_id", "128")
    refused(dict(good, logits="yes"), 400, bad, "logits", "true or false", "a string")
    refused(dict(good, candidates={}), 400, bad, "candidates", "an array", "an object")
    refused(dict(good, candidates=[1]), 400, bad, "candidates[0]", "an object", "a number")
    refused(dict(good, candidate_count=2.5), 400, bad, "candidate_count", "2.5")
    refused(dict(good, candidate_count=-1), 400, bad, "candidate_count", "-1")
    refused(dict(good, candidate_count=2**32), 400, bad, "candidate_count", "4294967295")
    refused(dict(good, candidate_count=3), 400, bad, "candidates column", "3 rows")
    refused(dict(good, model="third"), 404, "NOT_FOUND", "third")
    refused(spoiled("C20", tokens=["a", 1]), 400, bad, place("C20") + ".tokens[1]", "a string")
    refused(spoiled("C20", tokens=["a", None]), 400, bad, place("C20") + ".tokens[1]", "null")
    refused(spoiled("C20", tokens=["a"]), 400, bad, "'C20'", "1 values")
    refused(spoiled("C20", tokens=[], integers=["1", "2x"]), 400, bad, place("C20") + ".integers[1]", "2x")
    # A number with a point or an exponent is a double: beyond 2^53 it may be another one than what was written.
    text = json.dumps(spoiled("C20", tokens=[], integers=[1, "HERE"])).replace('"HERE"', "9007199254740993.0")
    refused(text, 400, bad, place("C20") + ".integers[1]", "9007199254740992", "2^53")
    refused(spoiled("C20", token=["a", "b"]), 400, bad, place("C20"), "token", "Column")
    refused(spoiled("I3", numbers=[1, 1e39], lengths=[]), 400, bad, place("I3") + ".numbers[1]", "1e+39")
    refused(spoiled("I3", numbers=["NaN", 1], lengths=[]), 400, bad, "'I3'", "row 0", "finite")
    refused(spoiled("I3", numbers=[True, 1], lengths=[]), 400, bad, place("I3") + ".numbers[0]", "a number")
    refused(spoiled("I3", lengths=[1, 2**33]), 400, bad, place("I3") + ".lengths[1]")
    refused(dict(good, context=good["context"] + [{"name": "C99", "tokens": ["a"]}]), 400, bad, "'C99'")
    refused(dict(good, candidates=[c for c in good["candidates"] if c["name"] != "C15"]), 400, bad, "'C15'", "missing")
    one = json_format.MessageToDict(make_request(rows[:1]), preserving_proto_field_name=True)
    everything = [dict(column, lengths=[]) for column in one["context"] + one["candidates"]]
    refused({"context": [c for c in everything if c.get("tokens") or c.get("numbers")] +
             [dict(c, lengths=[0]) for c in everything if not c.get("tokens") and not c.get("numbers")], "candidate_count": 10001}, 429,
            "RESOURCE_EXHAUSTED", "10001", "10000")
    refused(b" " * (8 * 1024 * 1024 + 1), 413, "RESOURCE_EXHAUSTED", "8388608")
    refused("[" * 100000, 400, bad, "the body")
    status, answer = server.post(good)
    assert status == 200, answer
    print("refusals name what is wrong")


def check_paths(server):
    assert server.http("GET", "/healthz")[::2] == (200, b"ok\n")
    assert server.http("GET", "/readyz")[::2] == (200, b"ready\n")
    assert server.http("GET", "/healthz?why=1")[0] == 200
    status, headers, data = server.http("HEAD", "/metrics")
    assert status == 200 and data == b"" and int(headers["Content-Length"]) > 1000
    for path, kind in (("/", "text/html"), ("/admin.js", "text/javascript"), ("/chart.js", "text/javascript")):
        status, headers, data = server.http("GET", path)
        assert status == 200 and headers["Content-Type"].startswith(kind) and len(data) > 1000, (path, status, headers)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    for path in ("/none", "/metrics/", "/v1/score/x", "/../etc/passwd", "//"):
        assert server.http("GET", path)[0] == 404, path
    for method, path, allowed in (("POST", "/metrics", "GET, HEAD"), ("GET", "/v1/score", "POST"), ("DELETE", "/", "GET, HEAD")):
        status, headers, _ = server.http(method, path)
        assert status == 405 and headers["Allow"] == allowed, (method, path, status, headers)


def settled(server):
    """The metrics once nothing is being answered: a request is counted just after its answer has gone."""
    while True:
        values = server.metrics()
        if values["clicktower_active_requests", ()] == 0:
            return values


def check_counts(server, rows):
    before = settled(server)
    for size in (1, 1, 5, 300):
        server.score(make_request(rows[:size], model="second"))
    try:
        server.score(api.ScoreRequest(model="second"))
        sys.exit("an empty request was answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    server.http("GET", "/nowhere")
    after = settled(server)

    def grew(name, *labels):
        return after[name, tuple(sorted(labels))] - before[name, tuple(sorted(labels))]

    assert grew("clicktower_requests_total", "code=OK") == 4
    assert grew("clicktower_requests_total", "code=INVALID_ARGUMENT") == 1
    assert grew("clicktower_candidates_total") == 307
    assert grew("clicktower_request_duration_seconds_count") == 4
    assert grew("clicktower_queue_duration_seconds_count") == 5
    assert grew("clicktower_decode_duration_seconds_count") == grew("clicktower_compute_duration_seconds_count") == 4
    assert grew("clicktower_answer_duration_seconds_count") == 4
    assert grew("clicktower_scores_count", "model=second") == 307
    assert grew("clicktower_scores_count", "model=first") == 0
    probabilities = server.score(make_request(rows[:300], model="second")).outputs[0].probabilities
    again = settled(server)
    sums = again["clicktower_scores_sum", ("model=second",)] - after["clicktower_scores_sum", ("model=second",)]
    assert abs(sums - math.fsum(probabilities)) < 1e-4, (sums, math.fsum(probabilities))
    for bound in (0.05, 0.2, 0.5):
        key = "clicktower_scores_bucket", tuple(sorted((f"le={bound:g}", "model=second")))
        assert again[key] - after[key] == sum(p <= bound for p in probabilities), bound
    # A look-up for each id of each candidate, context once for each block of a request.
    lookups = [name for name in after if name[0] == "clicktower_table_lookups_total" and "model=second" in name[1]]
    assert len(lookups) == 1, lookups
    assert after[lookups[0]] - before[lookups[0]] >= 307 * 16
    unknown = "clicktower_table_unknown_total", lookups[0][1]
    assert 0 < after[unknown] < after[lookups[0]]
    assert grew("clicktower_forward_duration_seconds_count", "model=second") == 5  # four requests, one of them of two blocks
    assert grew("clicktower_http_requests_total", "path=/metrics", "code=200") >= 1
    assert after["clicktower_http_requests_total", ("code=404", "path=other")] >= 1
    assert after["clicktower_ready", ()] == 1 and after["clicktower_threads", ()] == 2
    resident = after["process_resident_memory_bytes", ()]
    with open(f"/proc/{server.process.pid}/statm") as file:
        now = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert 0.5 * now < resident < 2 * now, (resident, now)
    infos = {labels for name, labels in after if name == "clicktower_model_info"}
    assert {dict(pair.split("=", 1) for pair in labels)["architecture"] for labels in infos} == {"lr", "dcn-v2"}, infos
    for model in ("first", "second"):
        assert after["clicktower_model_trained_rows", (f"model={model}",)] == 3000
        assert 0 <= after["clicktower_model_age_seconds", (f"model={model}",)] < 3600
    print("metrics count what happened")
    return again


def check_dashboard(path, values):
    """Every metric that the dashboard asks for is there."""
    with open(path) as file:
        dashboard = json.load(file)
    names = {name for name, _ in values}
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) >= 8, expressions
    for expression in expressions:
        asked = {word for word in "".join(c if c.isalnum() or c == "_" else " " for c in expression).split()
                 if word.startswith(("clicktower_", "process_"))}
        assert asked and asked <= names, (expression, asked - names)


def main():
    program = os.path.abspath(sys.argv[1])
    log = os.path.join(work, "log.tsv")
    run(program, "synth", "--rows", "3000", "--seed", "3", "--out", log)
    with open(log) as file:
        rows = [line.rstrip("\n").split("\t")[1:] for line in file]
    recipes = {"first": ["--model", "lr"], "second": ["--model", "dcn-v2", "--set", "deep=[32]", "--set", "embedding.dim=8"]}
    for name, recipe in recipes.items():
        run(program, "train", "--schema", "criteo", *recipe, "--batch", "512", "--train", log, "--out", os.path.join(work, name), "--publish",
            os.path.join(work, name + ".publish"), "--publish-rows", "1000")
    experiment = os.path.join(work, "experiment.yaml")
    with open(experiment, "w") as file:
        file.write('name: "say \\"hi\\""\narms: [{name: "a\\\\b", model: first}, {name: new, model: second}]\n')
    server = Server(program, f"first={os.path.join(work, 'first')}", "--follow", f"second={os.path.join(work, 'second.publish')}", "--experiment", experiment, "--exposures",
                    os.path.join(work, "exposures"), "--feedback", os.path.join(work, "feedback"))
    try:
        check_paths(server)
        check_scores(server, rows)
        check_refusals(server, rows)
        values = check_counts(server, rows)
        check_dashboard("docs/grafana-dashboard.json", values)
        server.process.send_signal(signal.SIGHUP)  # a swap: the counts of the models begin anew
        while server.metrics()["clicktower_model_swaps_total", ("result=done",)] == 0:
            pass
        assert server.metrics()["clicktower_scores_count", ("model=second",)] == 0
        # A port that is taken.
        done = subprocess.run([program, "serve", "--listen", "127.0.0.1:0", "--admin", server.admin, "--model", os.path.join(work, "first")],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and server.admin in done.stderr.splitlines()[-1] and "in use" in done.stderr, done
        assert done.stdout == "", done.stdout
        server.channel.close()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait() == 0
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    run("protoc", f"--proto_path={PROTO_ROOT}", f"--python_out={work}", "proto/clicktower.proto")
    sys.dont_write_bytecode = True
    sys.path.insert(0, work)
    from proto import clicktower_pb2 as api
    main()
