#!/usr/bin/python3
"""An independent client (Python's grpcio, with stubs that protoc makes of our .proto files) against `clicktower serve`.

    grpcio_test.py CLICKTOWER [--only=parity] [--isa=AVX2]

Parity: what a server answers equals what `eval --predictions` prints, bit for bit, at request sizes 1, 7, 256 and 1,024: with each feature
sent as context and as candidate column; for every model and kind of feature; alone, and among many small requests at once, whose rows the
server computes together. --isa: all programs run under that DNNL_MAX_CPU_ISA. Nothing here waits for time to pass.
"""
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading

try:
    import grpc
    from google.protobuf import message as protobuf_message  # noqa: F401
except ImportError as error:
    print(f"SKIP: the independent client needs Debian's python3-grpcio and python3-protobuf ({error})")
    sys.exit(0)

PROTO_ROOT = os.getcwd()
SIZES = (1, 7, 256, 1024)
VARIANTS = 256
NUMBERS = [f"I{i}" for i in range(1, 14)]
IDS = [f"C{i}" for i in range(1, 27)]
NAMES = NUMBERS + IDS  # of columns 1.. of a line; column 0 is the label
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def bits(value):
    return struct.pack("<f", value)


class Server:
    """A running `clicktower serve`; killed if the test fails before it is stopped."""

    def __init__(self, program, *models):
        self.process = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--threads", "3", "--queue-ms", "600000", "--queue", "4096", "--model", *models],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on 127.0.0.1:"), line
        self.address = line.split()[-1]
        self.channel = grpc.insecure_channel(self.address, options=OPTIONS)

    def method(self, path, answer):
        return self.channel.unary_unary(path, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                                        response_deserializer=answer.FromString)

    def stop(self):
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def add_values(column, texts):
    """The values of one feature, as the log has them, to a Column."""
    if column.name in NUMBERS:
        column.numbers.extend(float(text) for text in texts if text)
        if not all(texts):
            column.lengths.extend(1 if text else 0 for text in texts)
    else:
        column.tokens.extend(texts)


def make_request(rows, context=(), **fields):
    """rows: lists of texts in the order of NAMES. Features in `context` must be equal in all rows."""
    request = api.ScoreRequest(candidate_count=len(rows), **fields)
    for index, name in enumerate(NAMES):
        texts = [row[index] for row in rows]
        if name in context:
            assert len(set(texts)) == 1, name
            add_values(request.context.add(name=name), texts[:1])
        else:
            add_values(request.candidates.add(name=name), texts)
    return request


def make_rows(base):
    """For each feature a group of rows that differ in that feature only, so that every other feature can be sent as context."""
    groups = []
    for index in range(len(NAMES)):
        row = base[index]
        groups.append([row[:index] + [base[j][index]] + row[index + 1:] for j in range(VARIANTS)])
    return groups


def cycle(values, count):
    return [values[i % len(values)] for i in range(count)]


def check_parity(server, model, groups, expected, features=tuple(enumerate(NAMES))):
    score = server.method("/clicktower.v1.Scorer/Score", api.ScoreResponse)
    requests = 0
    for index, name in features:
        # This feature differs and comes as candidates, all others as context; then the other way round, in rows where another differs.
        other = (index + 1) % len(NAMES)
        for group, context in ((index, [n for n in NAMES if n != name]), (other, [name])):
            for size in SIZES:
                answer = score(make_request(cycle(groups[group], size), context, model=model, logits=True))
                assert len(answer.outputs) == 1 and answer.outputs[0].name == "click"
                got = list(answer.outputs[0].probabilities)
                wanted = cycle(expected[group], size)
                assert len(got) == len(answer.outputs[0].logits) == size
                for row in range(size):
                    if bits(got[row]) != bits(wanted[row]):
                        sys.exit(f"{model}: {name}, {size} rows, context {context}: row {row} is {got[row]!r}, eval says {wanted[row]!r}")
                requests += 1
    print(f"{model}: {requests} requests agree with eval, bit for bit")


def check_parity_together(server, model, groups, expected):
    """Small requests with contexts of their own, all at once: the server merges what waits together."""
    score = server.method("/clicktower.v1.Scorer/Score", api.ScoreResponse)
    draw = random.Random(5)
    sent = []
    for _ in range(240):
        index = draw.randrange(len(NAMES))
        size, first = draw.choice((1, 1, 1, 2, 7, 30)), draw.randrange(VARIANTS - 30)
        context = [name for name in NAMES if name != NAMES[index] and draw.random() < 0.6]
        sent.append((score.future(make_request(groups[index][first:first + size], context, model=model)), index, first, size))
    for call, index, first, size in sent:
        got = list(call.result().outputs[0].probabilities)
        for row in range(size):
            if bits(got[row]) != bits(expected[index][first + row]):
                sys.exit(f"{model}, together: {NAMES[index]}, {size} rows: row {row} is {got[row]!r}, eval says {expected[index][first + row]!r}")
    print(f"{model}: {len(sent)} requests at once agree with eval, bit for bit")


def code_of(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def check_behaviour(server, groups, expected):
    score = server.method("/clicktower.v1.Scorer/Score", api.ScoreResponse)
    models = server.method("/clicktower.v1.Scorer/Models", api.ModelsResponse)
    check = server.method("/grpc.health.v1.Health/Check", health.HealthCheckResponse)
    rows, wanted = groups[0], expected[0]

    for service in ("", "clicktower.v1.Scorer"):
        assert check(health.HealthCheckRequest(service=service)).status == health.HealthCheckResponse.SERVING
    code, details = code_of(check, health.HealthCheckRequest(service="nobody"))
    assert code == grpc.StatusCode.NOT_FOUND and "nobody" in details, (code, details)

    listed = models(api.ModelsRequest()).models
    assert [m.name for m in listed][:2] == ["dnn", "dcn"], listed
    assert [m.architecture for m in listed] == ["dnn", "dcn-v2", "lr", "fm", "fm", "deepfm", "dlrm", "dcn-v2", "dcn-v2"]
    for model in listed:
        assert sorted(f.name for f in model.features) == sorted(NAMES), model.features
        assert {f.kind for f in model.features if f.name in NUMBERS} == {"number"}
        assert {f.kind for f in model.features if f.name in IDS} == {"id"}
        assert model.rows == 3000 and list(model.outputs) == ["click"] and len(model.version) == 32
    assert listed[0].version != listed[1].version

    # Echo, version, no logits unless asked for, the first model where none is named.
    answer = score(make_request(rows[:2], request_id="r\u00e9-1", unit="u"), metadata=(("authorization", "none"), ("x-bin", b"\0\1")))
    assert (answer.request_id, answer.model, answer.model_version) == ("r\u00e9-1", "dnn", listed[0].version)
    assert not answer.outputs[0].logits

    # Compression, both ways round of size.
    for size in (1, 256):
        got = score(make_request(rows[:size]), compression=grpc.Compression.Gzip).outputs[0].probabilities
        assert [bits(v) for v in got] == [bits(v) for v in wanted[:size]]

    # Deadline, which gRPC rounds up to a millisecond, and cancellation.
    assert code_of(score, make_request(cycle(rows, 10000)), timeout=1e-9)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    for _ in range(20):
        call = score.future(make_request(cycle(rows, 3000)))
        call.cancel()
        assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.OK), call.code()

    # Refusals name what is wrong.
    def refused(request, expected_code, *words):
        code, details = code_of(score, request)
        assert code == expected_code, (code, details)
        for word in words:
            assert word in details, (word, details)

    request = make_request(rows[:2])
    request.candidates.add(name="C99").tokens.extend(["a", "b"])
    refused(request, grpc.StatusCode.INVALID_ARGUMENT, "C99")
    request = make_request(rows[:2])
    del request.candidates[NAMES.index("C5")]
    refused(request, grpc.StatusCode.INVALID_ARGUMENT, "C5", "missing")
    request = make_request(rows[:2])
    request.candidates[0].numbers[:] = [1, float("nan")]
    request.candidates[0].ClearField("lengths")
    refused(request, grpc.StatusCode.INVALID_ARGUMENT, "I1", "finite")
    refused(make_request(cycle(rows, 10001)), grpc.StatusCode.RESOURCE_EXHAUSTED, "10001", "10000")
    refused(api.ScoreRequest(), grpc.StatusCode.INVALID_ARGUMENT, "no candidates")
    refused(make_request(rows[:1], model="other"), grpc.StatusCode.NOT_FOUND, "other")
    refused(b"\0" * (16 * 1024 * 1024 + 1), grpc.StatusCode.RESOURCE_EXHAUSTED)
    for path in ("/clicktower.v1.Scorer/Guess", "/other.Service/Score", "/grpc.health.v1.Health/Look"):
        code, details = code_of(server.method(path, api.ScoreResponse), b"")
        assert code == grpc.StatusCode.UNIMPLEMENTED and path in details, (path, code, details)
    draw = random.Random(1)
    good = make_request(rows[:3]).SerializeToString()
    for number in range(500):
        spoiled = bytearray(good) if number % 2 else bytearray(draw.getrandbits(8) for _ in range(draw.randrange(300)))
        for _ in range(3 if number % 2 else 0):
            spoiled[draw.randrange(len(spoiled))] = draw.getrandbits(8)
        code, details = code_of(score, bytes(spoiled))
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND,
                        grpc.StatusCode.RESOURCE_EXHAUSTED), (code, details)

    # A request without a message; many at once.
    code, details = code_of(server.channel.unary_unary("/clicktower.v1.Scorer/Score"), b"")
    assert code == grpc.StatusCode.INVALID_ARGUMENT, (code, details)
    failures = []

    def many(seed):
        draw = random.Random(seed)
        channel = grpc.insecure_channel(server.address, options=OPTIONS + [("grpc.use_local_subchannel_pool", 1)])
        call = channel.unary_unary("/clicktower.v1.Scorer/Score", api.ScoreRequest.SerializeToString, api.ScoreResponse.FromString)
        for _ in range(20):
            size = draw.choice((1, 3, 300, 800))
            got = call(make_request(cycle(rows, size))).outputs[0].probabilities
            if [bits(v) for v in got] != [bits(v) for v in cycle(wanted, size)]:
                failures.append(size)
        channel.close()

    threads = [threading.Thread(target=many, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert check(health.HealthCheckRequest()).status == health.HealthCheckResponse.SERVING
    print("behaviour: as documented")


def main():
    program = os.path.abspath(sys.argv[1])
    parity_only = "--only=parity" in sys.argv
    for argument in sys.argv[2:]:
        if argument.startswith("--isa="):
            os.environ["DNNL_MAX_CPU_ISA"] = argument[6:]
            print(f"under DNNL_MAX_CPU_ISA={argument[6:]}")
    log, test = os.path.join(work, "log.tsv"), os.path.join(work, "test.tsv")
    schema, vectors = os.path.join(work, "log.yaml"), os.path.join(work, "items.npy")
    run(program, "synth", "--rows", "3000", "--seed", "3", "--out", log, "--vectors", vectors, "--schema-out", schema)
    with open(log) as file:
        base = [line.rstrip("\n").split("\t")[1:] for line in file]
    groups = make_rows(base)
    with open(test, "w") as file:
        for group in groups:
            file.writelines("0\t" + "\t".join(row) + "\n" for row in group)
    plain, statistics = ["--set", "numbers.buckets=false"], ["--set", "embedding.target_stats=true"]
    recipes = {"dnn": ["--model", "dnn", "--set", "deep=[32,16]", "--precision", "fp32"],
               "dcn": ["--model", "dcn-v2", "--set", "deep=[48]", "--set", "cross.layers=2"]}
    further = {"lr": ["--model", "lr"], "fm": ["--model", "fm"], "fm-fp32": ["--model", "fm", "--precision", "fp32", *plain],
               "deepfm": ["--model", "deepfm", "--set", "deep=[32]"], "dlrm": ["--model", "dlrm", "--set", "bottom=[16]", "--set", "deep=[32]"],
               "low-rank": ["--model", "dcn-v2", "--set", "deep=[32]", "--set", "cross.layers=2", "--set", "cross.rank=8", *plain],
               "statistics": ["--model", "dcn-v2", "--set", "deep=[32]", "--set", "cross.layers=1", *statistics]}
    recipes.update(further)
    expected, folders = {}, []
    for name, recipe in recipes.items():
        folder = os.path.join(work, name)
        run(program, "train", "--schema", schema, *recipe, "--set", "embedding.dim=8", "--batch", "512", "--train", log, "--out", folder)
        lines = run(program, "eval", "--model", folder, "--data", test, "--predictions", "-", "--json", os.path.join(work, "metrics.json"))
        values = [float(line) for line in lines.split()]
        assert len(values) == len(NAMES) * VARIANTS, len(values)
        expected[name] = [values[i:i + VARIANTS] for i in range(0, len(values), VARIANTS)]
        assert len(set(values)) > VARIANTS  # a model that says the same of all rows would prove nothing
        folders.append(f"{name}={folder}")
    server = Server(program, *folders)
    try:
        few = [(index, name) for index, name in enumerate(NAMES) if name in ("I1", "I2", "C1", "C2", "C3", "C26")]
        for name in recipes:
            check_parity(server, name, groups, expected[name], few if name in further else tuple(enumerate(NAMES)))
            check_parity_together(server, name, groups, expected[name])
        # Our own client, with the schema's context sent as context.
        for name in ("dnn", "dcn"):
            for extra in ([], ["--context"]):
                lines = run(program, "score", "--to", server.address, "--schema", schema, "--model", name, "--rows-per-request", "1000",
                            "--data", test, *extra).split()
                assert [bits(float(line)) for line in lines] == [bits(v) for group in expected[name] for v in group], (name, extra)
        if not parity_only:
            check_behaviour(server, groups, expected["dnn"])
        code = server.stop()
        assert code == 0, f"after SIGTERM the server ended with {code}"
    finally:
        server.kill()


with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    run("protoc", f"--proto_path={PROTO_ROOT}", f"--python_out={work}", "proto/clicktower.proto", "proto/health.proto")
    sys.dont_write_bytecode = True
    sys.path.insert(0, work)
    from proto import clicktower_pb2 as api
    from proto import health_pb2 as health
    main()
