#!/usr/bin/python3
"""`clicktower serve` as those who run it see it, with Python's grpcio and plain sockets: folders of versions, swaps under load, TLS and tokens,
limits, Watch and reflection, clients that misbehave, the drain, and the log.

    operations_test.py CLICKTOWER [--soak=SECONDS]
"""
import contextlib
import http.client
import os
import random
import re
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

try:
    import grpc
    from google.protobuf import descriptor_pb2
except ImportError as error:
    print(f"SKIP: the independent client needs Debian's python3-grpcio and python3-protobuf ({error})")
    sys.exit(0)

PROTO_ROOT = os.getcwd()
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
SCORE, MODELS = "/clicktower.v1.Scorer/Score", "/clicktower.v1.Scorer/Models"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
LONG = 600  # seconds that nothing here should need: so that a test that hangs ends


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


class Server:
    """A running `clicktower serve`, its log, and a channel to it."""
    running = []

    def __init__(self, *arguments, credentials=None, token=None):
        self.log_path = tempfile.mkstemp(dir=work)[1]
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--queue-ms", "600000", *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
        Server.running.append(self)
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on 127.0.0.1:"), (line, self.log())
        self.address = line.split()[-1]
        self.port = int(self.address.rsplit(":", 1)[1])
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.channel = self.connect(credentials)

    def connect(self, credentials=None):
        if credentials:
            return grpc.secure_channel(f"localhost:{self.port}", credentials, options=OPTIONS + [("grpc.ssl_target_name_override", "localhost")])
        return grpc.insecure_channel(self.address, options=OPTIONS)

    def call(self, path, request, answer, channel=None, metadata=None, timeout=LONG, wait_for_ready=None):
        method = (channel or self.channel).unary_unary(path, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                                                       response_deserializer=answer.FromString)
        return method(request, metadata=self.metadata if metadata is None else metadata, timeout=timeout,
                      wait_for_ready=wait_for_ready)

    def code(self, *arguments, **named):
        try:
            self.call(*arguments, **named)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    def log(self):
        with open(self.log_path) as file:
            return file.read()

    def wait_log(self, pattern):
        """The first match, as soon as it stands in the log."""
        limit = time.monotonic() + LONG
        while time.monotonic() < limit:
            found = re.search(pattern, self.log())
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no {pattern} in\n{self.log()}")

    def version(self):
        return self.call(MODELS, api.ModelsRequest(), api.ModelsResponse).models[0].version

    def wait_version(self, version):
        limit = time.monotonic() + LONG
        while self.version() != version:
            assert time.monotonic() < limit, self.log()
            time.sleep(0.02)

    def stop(self):
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LONG)
        self.process.stdout.close()
        Server.running.remove(self)
        assert code == 0, (code, self.log())
        for line in self.log().splitlines():
            assert re.match(r"time=\S+ level=(info|warning|error) event=[a-z.]+", line), line
        return self.log()


def request(rows=1, first=0):
    message = api.ScoreRequest(candidate_count=rows)
    for name in numbers:
        message.context.add(name=name).numbers.append(1.5)
    for name in ids:
        message.candidates.add(name=name).tokens.extend(f"{(first + r) % 97}" for r in range(rows))
    return message


def score(server, rows=1, **named):
    return server.call(SCORE, request(rows), api.ScoreResponse, **named)


def train(seed, out):
    run(program, "train", "--schema", "criteo", "--model", "lr", "--seed", str(seed), "--train", log_file, "--out", out)
    return re.search(r"digest (\w+)", run(program, "verify", out)).group(1)


# --- versions ---


def test_versions():
    """A folder of versions: the highest complete one is served; half a copy is not yet, a damaged one is refused, and the old one goes on."""
    home = os.path.join(work, "versions")
    os.mkdir(home)
    shutil.copytree(model_a, os.path.join(home, "1"))
    server = Server("--model", home, "--look-seconds", "0.05")
    assert server.version() == digest_a
    failures, stop, seen = [], threading.Event(), set()

    def load():
        channel = server.connect()
        while not stop.is_set():
            try:
                answer = score(server, 3, channel=channel)
                seen.add((answer.model_version, tuple(answer.outputs[0].probabilities)))
            except grpc.RpcError as error:
                failures.append(error.details())
        channel.close()

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()

    # The worst order of copying: the manifest first, the tower in two halves last.
    second = os.path.join(home, "2")
    os.mkdir(second)
    shutil.copy(os.path.join(model_b, "manifest"), second)
    server.wait_log(r"result=not_yet .*2")
    last = {os.path.join(model_b, name) for name in ("manifest", "tower.safetensors")}
    shutil.copytree(model_b, second, ignore=lambda folder, names: [n for n in names if os.path.join(folder, n) in last], dirs_exist_ok=True)
    with open(os.path.join(model_b, "tower.safetensors"), "rb") as file:
        tower = file.read()
    with open(os.path.join(second, "tower.safetensors"), "wb") as file:
        file.write(tower[:100])
        file.flush()
        time.sleep(0.3)  # some looks at the half of it; nothing depends on how many
        assert server.version() == digest_a
        file.write(tower[100:])
    server.wait_version(digest_b)

    # The way that training publishes: a rename.
    shutil.copytree(model_a, os.path.join(work, "third"))
    os.rename(os.path.join(work, "third"), os.path.join(home, "0003"))
    server.wait_version(digest_a)

    # A damaged one, as old as a settled one is.
    shutil.copytree(model_b, os.path.join(work, "fourth"))
    broken = os.path.join(work, "fourth", "tower.safetensors")
    with open(broken, "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    os.rename(os.path.join(work, "fourth"), os.path.join(home, "4"))
    server.wait_log(r"level=error event=serve.reload result=refused .*tower.safetensors")
    assert server.version() == digest_a
    # What follows a damaged one is served.
    shutil.copytree(model_b, os.path.join(work, "fifth"))
    os.rename(os.path.join(work, "fifth"), os.path.join(home, "5"))
    server.wait_version(digest_b)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert len({version for version, _ in seen}) == 2 and len(seen) == 2, seen  # one set of scores for each version: none mixed
    log = server.stop()
    assert log.count("result=refused") == 1, log  # once, not at each look
    print("versions: as documented")


def test_hangup():
    """SIGHUP reads a plain folder again; all of several models, or none."""
    home = os.path.join(work, "plain")
    shutil.copytree(model_a, home)
    server = Server("--model", f"x={home}", f"y={model_b}")
    assert server.version() == digest_a

    def replace(source, spoil=False):
        shutil.rmtree(home)
        shutil.copytree(source, home)
        if spoil:
            os.remove(os.path.join(home, "schema.yaml"))

    replace(model_b, spoil=True)
    server.process.send_signal(signal.SIGHUP)
    server.wait_log(r"result=not_yet model=.*schema.yaml")
    assert server.version() == digest_a
    shutil.copy(os.path.join(model_b, "schema.yaml"), home)  # found without another signal
    server.wait_version(digest_b)
    server.stop()
    # The admin port asks for the same, with a token where there are any.
    tokens = os.path.join(work, "reload-tokens")
    with open(tokens, "w") as file:
        file.write("secret\n")
    server = Server("--model", f"x={home}", "--admin", "127.0.0.1:0", "--token-file", tokens, token="secret")
    admin = re.search(r"http://(\S+)/", server.process.stdout.readline()).group(1)

    def reload(method="POST", **headers):
        connection = http.client.HTTPConnection(admin, timeout=LONG)
        connection.request(method, "/v1/reload", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    replace(model_a)
    assert reload()[0] == 401 and reload(Authorization="Bearer other")[0] == 401 and reload("GET", Authorization="Bearer secret")[0] == 405
    assert server.version() == digest_b
    assert reload(Authorization="Bearer secret") == (202, b'{"asked":true}\n')
    server.wait_version(digest_a)
    server.stop()
    print("hangup: as documented")


# --- health, reflection ---


def test_watch_and_reflection():
    server = Server("--model", model_a)
    watch = server.channel.unary_stream(WATCH, health.HealthCheckRequest.SerializeToString, health.HealthCheckResponse.FromString)
    unknown = watch(health.HealthCheckRequest(service="nobody"), timeout=LONG)
    assert next(unknown).status == health.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()
    watched = watch(health.HealthCheckRequest(service="clicktower.v1.Scorer"), timeout=LONG)
    assert next(watched).status == health.HealthCheckResponse.SERVING

    for package in ("grpc.reflection.v1", "grpc.reflection.v1alpha"):
        ask = server.channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo",
                                           reflection.ServerReflectionRequest.SerializeToString, reflection.ServerReflectionResponse.FromString)
        wanted = [reflection.ServerReflectionRequest(list_services="*"),
                  reflection.ServerReflectionRequest(file_containing_symbol="clicktower.v1.Scorer"),
                  reflection.ServerReflectionRequest(file_containing_symbol="clicktower.v1.ScoreRequest.candidates"),
                  reflection.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.HealthCheckResponse.ServingStatus"),
                  reflection.ServerReflectionRequest(file_containing_symbol=f"{package}.ServerReflection.ServerReflectionInfo"),
                  reflection.ServerReflectionRequest(file_by_filename="proto/health.proto"),
                  reflection.ServerReflectionRequest(file_containing_symbol="clicktower.v1.Scorer.Guess"),
                  reflection.ServerReflectionRequest(file_containing_symbol="clicktower.v1"),
                  reflection.ServerReflectionRequest(file_by_filename="other.proto"),
                  reflection.ServerReflectionRequest(all_extension_numbers_of_type="x")]
        answers = list(ask(iter(wanted), timeout=LONG))
        assert len(answers) == len(wanted)
        assert [a.original_request for a in answers] == wanted
        assert {s.name for s in answers[0].list_services_response.service} == {
            "clicktower.v1.Scorer", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
        packages = []
        for answer in answers[1:6]:
            found = [descriptor_pb2.FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto]
            packages.append(found[0].package)
        assert packages == ["clicktower.v1", "clicktower.v1", "grpc.health.v1", package, "grpc.health.v1"], packages
        for answer in answers[6:]:
            assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0], answer
    # A public tool's way: a message class of nothing but what reflection says, and a call with it.
    from google.protobuf import descriptor_pool, message_factory
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(answers[1].file_descriptor_response.file_descriptor_proto[0]))
    service = pool.FindServiceByName("clicktower.v1.Scorer")
    method = service.methods_by_name["Models"]
    make = message_factory.MessageFactory(pool)
    got = server.channel.unary_unary(f"/{service.full_name}/{method.name}", lambda m: m.SerializeToString(),
                                     make.GetPrototype(method.output_type).FromString)(make.GetPrototype(method.input_type)(), timeout=LONG)
    assert got.models[0].version == digest_a

    server.process.send_signal(signal.SIGTERM)  # who watches is told before the connection ends
    assert next(watched).status == health.HealthCheckResponse.NOT_SERVING
    assert server.process.wait(LONG) == 0
    Server.running.remove(server)
    print("watch and reflection: as documented")


# --- who may call ---


def test_access():
    keys = os.path.join(work, "keys")
    os.mkdir(keys)

    def path(name):
        return os.path.join(keys, name)

    def certificate(name, subject, issuer=None):
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", path(name + ".key"), "-out", path(name + ".csr"), "-subj", f"/CN={subject}")
        with open(path("san"), "w") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n" if issuer else "basicConstraints=critical,CA:TRUE\n")
        sign = ["-CA", path(issuer + ".pem"), "-CAkey", path(issuer + ".key"), "-CAcreateserial"] if issuer else ["-signkey", path(name + ".key")]
        run("openssl", "x509", "-req", "-days", "2", "-in", path(name + ".csr"), "-out", path(name + ".pem"), "-extfile", path("san"), *sign)

    if not shutil.which("openssl"):
        print("SKIP: no openssl to make certificates with")
        return
    certificate("ca", "ca")
    certificate("server", "localhost", "ca")
    certificate("client", "client", "ca")

    def read(name):
        with open(path(name), "rb") as file:
            return file.read()

    with open(path("tokens"), "w") as file:
        file.write("# two of them\nfirst-secret\n\n  second-secret  \n")
    server = Server("--model", model_a, "--tls-cert", path("server.pem"), "--tls-key", path("server.key"), "--tls-client-ca", path("ca.pem"),
                    "--token-file", path("tokens"),
                    credentials=grpc.ssl_channel_credentials(read("ca.pem"), read("client.key"), read("client.pem")), token="second-secret")
    assert len(score(server, 2).outputs[0].probabilities) == 2
    for wrong in ((), (("authorization", "Bearer first-secreT"),), (("authorization", "Bearer first-secret2"),), (("authorization", "first-secret"),),
                  (("authorization", "Bearer "),), (("authorization", "Bearer " + "x" * 5000),)):
        code, details = server.code(SCORE, request(), api.ScoreResponse, metadata=wrong)
        assert code == grpc.StatusCode.UNAUTHENTICATED and "authorization" in details, (wrong, code, details)
    assert server.code(MODELS, api.ModelsRequest(), api.ModelsResponse, metadata=())[0] == grpc.StatusCode.UNAUTHENTICATED
    assert server.code(CHECK, health.HealthCheckRequest(), health.HealthCheckResponse, metadata=())[0] == grpc.StatusCode.OK
    # Without the client's certificate, without TLS.
    for channel in (server.connect(grpc.ssl_channel_credentials(read("ca.pem"))), server.connect()):
        assert server.code(CHECK, health.HealthCheckRequest(), health.HealthCheckResponse, channel=channel)[0] == grpc.StatusCode.UNAVAILABLE
        channel.close()
    # Our own client.
    rows = run(program, "score", "--to", f"localhost:{server.port}", "--schema", "criteo", "--data", log_file, "--max-rows", "5", "--tls-ca",
               path("ca.pem"), "--tls-cert", path("client.pem"), "--tls-key", path("client.key"), "--token-file", path("tokens"))
    assert len(rows.split()) == 5
    # Tokens are read again.
    with open(path("tokens"), "w") as file:
        file.write("third-secret\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("event=serve.tokens result=done")
    assert server.code(SCORE, request(), api.ScoreResponse)[0] == grpc.StatusCode.UNAUTHENTICATED
    assert server.code(SCORE, request(), api.ScoreResponse, metadata=(("authorization", "Bearer third-secret"),))[0] == grpc.StatusCode.OK
    # So is the certificate: one that can't be used is refused, a new one is shown to new connections; those that are there stay.
    def shown():
        context = ssl.create_default_context(cafile=path("ca.pem"))
        context.load_cert_chain(path("client.pem"), path("client.key"))
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), timeout=LONG), server_hostname="localhost") as connection:
            return connection.getpeercert(binary_form=True)

    bearer = (("authorization", "Bearer third-secret"),)
    before = shown()
    shutil.copy(path("client.key"), path("server.key"))
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("event=serve.certificate result=refused reason=")
    assert shown() == before
    certificate("server", "localhost", "ca")
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("(?s)result=refused reason=.*event=serve.certificate result=done")
    assert shown() != before
    assert server.code(SCORE, request(), api.ScoreResponse, metadata=bearer)[0] == grpc.StatusCode.OK
    fresh = server.connect(grpc.ssl_channel_credentials(read("ca.pem"), read("client.key"), read("client.pem")))
    assert server.code(SCORE, request(), api.ScoreResponse, metadata=bearer, channel=fresh)[0] == grpc.StatusCode.OK
    fresh.close()
    log = server.stop()
    assert "kind=no_token" in log and "secret" not in log and "PRIVATE" not in log
    # Without a CA for clients nobody needs a certificate, and nobody is asked for one; a new certificate is shown as well.
    server = Server("--model", model_a, "--tls-cert", path("server.pem"), "--tls-key", path("server.key"),
                    credentials=grpc.ssl_channel_credentials(read("ca.pem")))
    assert len(score(server, 2).outputs[0].probabilities) == 2
    before = shown()
    certificate("server", "localhost", "ca")
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("event=serve.certificate result=done")
    assert shown() != before
    assert re.search("event=serve.start .* tls=yes ", server.stop())
    print("access: as documented")


def test_limits():
    # More calls at once than one client makes below: a call is counted until the server has heard that its answer has gone.
    server = Server("--model", model_a, "--max-candidates", "50", "--max-message", "1", "--max-calls-per-peer", "8", "--max-connection-age", "0.3")
    assert server.code(SCORE, request(51), api.ScoreResponse) [0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    code, details = server.code(SCORE, b"\0" * (1 << 20) + b"\0", api.ScoreResponse)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, (code, details)
    assert len(score(server, 50).outputs[0].probabilities) == 50
    # Connections age, calls do not fail by it.
    limit = time.monotonic() + 1.5
    while time.monotonic() < limit:
        score(server, wait_for_ready=True)
    method = server.channel.unary_unary(SCORE, api.ScoreRequest.SerializeToString, api.ScoreResponse.FromString)
    codes = [call.code() for call in [method.future(request(50), timeout=LONG, wait_for_ready=True) for _ in range(200)]]
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED} and grpc.StatusCode.OK in codes, set(codes)
    limit = time.monotonic() + LONG  # what was refused is not held against it, once what was answered is over
    while server.code(SCORE, request(), api.ScoreResponse, wait_for_ready=True)[0] != grpc.StatusCode.OK:
        assert time.monotonic() < limit
    assert "event=serve.request " not in server.stop()
    # A line for each request, where it was asked for.
    server = Server("--model", model_a, "--log-requests")
    asked = request(7)
    asked.request_id = "an id"
    server.call(SCORE, asked, api.ScoreResponse)
    server.wait_log("event=serve.request ")  # its line comes behind its answer
    assert server.code(SCORE, request(10001), api.ScoreResponse)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    lines = [line for line in server.stop().splitlines() if "event=serve.request " in line]
    assert len(lines) == 2, lines
    assert re.search(r'level=info .* request_id="an id" model="a" candidates=7 code=OK us=\d+ queue_us=\d+ decode_us=\d+ compute_us=\d+ answer_us=\d+$', lines[0]), lines
    assert re.search(r"level=warning .* code=RESOURCE_EXHAUSTED .* reason=\".*10001", lines[1]), lines
    print("limits: as documented")


# --- clients that misbehave ---


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)


def call_headers():
    out = b""
    for name, value in ((":method", "POST"), (":scheme", "http"), (":path", SCORE), (":authority", "t"), ("te", "trailers"),
                        ("content-type", "application/grpc")):
        out += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return out


def test_bad_clients():
    server = Server("--model", model_a)
    address = ("127.0.0.1", server.port)
    held = []

    def connect(data=b""):
        connection = socket.create_connection(address, timeout=LONG)
        connection.sendall(data)
        held.append(connection)
        return connection

    def end(connection):
        with contextlib.suppress(OSError):  # the server may have been faster
            connection.shutdown(socket.SHUT_WR)

    # HTTP/1: an answer that is no gRPC, or none, but an end.
    old = connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        while old.recv(4096):
            pass
    draw = random.Random(7)
    for _ in range(50):
        end(connect(bytes(draw.getrandbits(8) for _ in range(draw.randrange(1, 400)))))
    for number in range(50):  # right at first, then anything
        end(connect(PREFACE + frame(1, 4, 1, call_headers()) + bytes(draw.getrandbits(8) for _ in range(number * 3))))
    # Slow senders: a call whose message never ends; half a frame; a preface that stops. Half-open: the other end is gone without a word.
    for part in (PREFACE + frame(1, 4, 1, call_headers()) + frame(0, 0, 1, b"\0\0\0\1\0abc"), PREFACE + b"\0\0", PREFACE[:10], b""):
        for _ in range(20):
            connect(part)
    # Idle connections: 10,000, or as many files as we may have.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    wanted = 10000 if files == resource.RLIM_INFINITY else min(10000, files - 500)
    with open(program, "rb") as file:  # the thread sanitizer takes a lock for each thing that gRPC frees: thousands that end at once take minutes
        if b"__tsan_init" in file.read():
            wanted = min(wanted, 1000)
    for _ in range(wanted):
        connect(PREFACE)
    print(f"{wanted} idle connections")
    # A machine that is busy elsewhere takes more than a connection's 10 s for the thousands before this one: then it connects anew.
    assert len(score(server, 20, wait_for_ready=True).outputs[0].probabilities) == 20
    codes = {
        b"\xff\xff\xff\xff": grpc.StatusCode.INVALID_ARGUMENT,
        request(3).SerializeToString()[:-4]: grpc.StatusCode.INVALID_ARGUMENT,
        b"": grpc.StatusCode.INVALID_ARGUMENT,
        api.ScoreRequest(candidate_count=1000000).SerializeToString(): grpc.StatusCode.RESOURCE_EXHAUSTED,
        b"\x12\x02\xc3\x28" + request(1).SerializeToString(): grpc.StatusCode.INVALID_ARGUMENT,  # a request_id that is not UTF-8
    }
    for data, expected in codes.items():
        code, details = server.code(SCORE, data, api.ScoreResponse)
        assert code == expected, (data[:20], code, details)
    good = request(1)  # a token is bytes, as in a log
    next(column for column in [*good.context, *good.candidates] if column.tokens).tokens[0] = "a-marker"
    code, details = server.code(SCORE, good.SerializeToString().replace(b"a-marker", b"\xff-marker"), api.ScoreResponse)
    assert code == grpc.StatusCode.OK, (code, details)
    twice = request(2)
    twice.candidates.add(name=ids[0]).tokens.extend(["a", "b"])
    code, details = server.code(SCORE, twice, api.ScoreResponse)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and ids[0] in details and "twice" in details, details
    for value in (float("nan"), float("inf"), float("-inf")):
        spoiled = request(2)
        spoiled.context[0].numbers[0] = value
        code, details = server.code(SCORE, spoiled, api.ScoreResponse)
        assert code == grpc.StatusCode.INVALID_ARGUMENT and numbers[0] in details, details
    short = request(4)
    del short.candidates[3].tokens[:1]
    code, details = server.code(SCORE, short, api.ScoreResponse)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and ids[3] in details and "3 values" in details, details
    assert server.code("/clicktower.v1.Scorer/Guess", b"", api.ScoreResponse)[0] == grpc.StatusCode.UNIMPLEMENTED
    for connection in held:
        connection.close()
    assert len(score(server, 20).outputs[0].probabilities) == 20
    log = server.stop()
    for kind in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "no_method"):
        assert f"event=serve.refused kind={kind} " in log, log
    assert len(log.splitlines()) < 100, log
    print("bad clients: as documented")


# --- soak ---


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_soak(seconds):
    """Every kind of call over and over, swaps meanwhile: nothing fails that should not, and memory does not grow."""
    home = os.path.join(work, "soak")
    shutil.copytree(model_a, home)
    server = Server("--model", home)
    stop, failures, counts, watched = threading.Event(), [], [0] * 4, []
    good = request(3).SerializeToString()

    def load(seed):
        draw = random.Random(seed)
        channel = server.connect()
        while not stop.is_set():
            counts[seed] += 1
            kind = draw.randrange(8)
            if kind < 4:
                size = draw.choice((1, 1, 3, 40, 300, 1500))
                code, details = server.code(SCORE, request(size, draw.randrange(97)), api.ScoreResponse, channel=channel)
                expected = {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            elif kind == 4:
                spoiled = bytearray(good)
                for _ in range(3):
                    spoiled[draw.randrange(len(spoiled))] = draw.getrandbits(8)
                code, details = server.code(SCORE, bytes(spoiled), api.ScoreResponse, channel=channel)
                expected = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED}
            elif kind == 5:
                code, details = server.code(SCORE, request(500), api.ScoreResponse, channel=channel, timeout=draw.random() * 0.01)
                expected = {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
            elif kind == 6:
                code, details = server.code(CHECK, health.HealthCheckRequest(), health.HealthCheckResponse, channel=channel)
                expected = {grpc.StatusCode.OK}
            else:
                call = channel.unary_stream(WATCH, health.HealthCheckRequest.SerializeToString, health.HealthCheckResponse.FromString)(
                    health.HealthCheckRequest(), timeout=LONG)
                code, details, expected = next(call).status, "", {health.HealthCheckResponse.SERVING}
                call.cancel()
            if code not in expected:
                failures.append((kind, code, details))
        channel.close()

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    began, swaps, after_warmup = time.monotonic(), 0, 0
    while time.monotonic() - began < seconds and not failures:
        server.process.send_signal(signal.SIGHUP)
        swaps += 1
        time.sleep(min(0.5, seconds / 10))
        if not after_warmup and time.monotonic() - began > seconds / 3:
            after_warmup = resident(server.process.pid)
        watched.append(resident(server.process.pid))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]
    print(f"soak: {sum(counts)} calls, {swaps} swaps in {seconds:.0f} s; memory {after_warmup >> 20} MiB after a third, {watched[-1] >> 20} MiB at the end")
    with open(f"/proc/{server.process.pid}/maps", encoding="utf-8") as maps:
        sanitized = re.search("lib[at]san", maps.read()) is not None  # they keep what was freed for a while
    assert watched[-1] < 1.3 * after_warmup + (32 << 20) or sanitized, watched
    server.stop()


def main():
    seconds = 4.0
    only = None
    for argument in sys.argv[2:]:
        if argument.startswith("--soak="):
            seconds = float(argument[7:])
        if argument.startswith("--only="):
            only = argument[7:]
    tests = {"versions": test_versions, "hangup": test_hangup, "watch": test_watch_and_reflection, "access": test_access, "limits": test_limits,
             "bad": test_bad_clients, "soak": lambda: test_soak(seconds)}
    try:
        for name, test in tests.items():
            if only in (None, name):
                test()
    finally:
        for server in list(Server.running):
            sys.stderr.write(server.log()[-3000:])
            server.process.kill()
            server.process.wait()


program = os.path.abspath(sys.argv[1])
with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    run("protoc", f"--proto_path={PROTO_ROOT}", f"--python_out={work}", "proto/clicktower.proto", "proto/health.proto", "proto/reflection.proto")
    sys.dont_write_bytecode = True
    sys.path.insert(0, work)
    from proto import clicktower_pb2 as api
    from proto import health_pb2 as health
    from proto import reflection_pb2 as reflection
    numbers = [f"I{i}" for i in range(1, 14)]
    ids = [f"C{i}" for i in range(1, 27)]
    log_file = os.path.join(work, "log.tsv")
    run(program, "synth", "--rows", "1000", "--out", log_file)
    model_a, model_b = os.path.join(work, "a"), os.path.join(work, "b")
    digest_a, digest_b = train(1, model_a), train(2, model_b)
    assert digest_a != digest_b
    main()
