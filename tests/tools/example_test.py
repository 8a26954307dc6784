#!/usr/bin/python3
"""clicktower example: the requests that it prints are answered, over HTTP and through clients/python; made from a log they score as eval.
With --go PROTO the programs in Go instead, compiled with Debian's packages.

Usage: example_test.py PROGRAM [--go PROTO]
"""

import http.client
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    import grpc  # noqa: F401
    import numpy as np
except ImportError as error:
    print(f"SKIP: clients/python needs Debian's python3-grpcio, python3-protobuf and python3-numpy ({error})")
    sys.exit(0)

PROGRAM = os.path.abspath(sys.argv[1])
GO_PROTO = os.path.abspath(sys.argv[3]) if sys.argv[2:3] == ["--go"] else None
GO_PATH = "/usr/share/gocode"  # where Debian puts Go's packages
PACKAGE = os.path.join(os.getcwd(), "clients/python")

SHOP = """name: shop
format: {separator: "\\t", columns: 8}
fields:
  - {name: label, kind: label, column: 1}
  - {name: price, kind: number, column: 2, side: candidate}
  - {name: user, kind: id, column: 3, side: context, type: text}
  - {name: item, kind: id, column: 4, side: candidate, type: integer}
  - {name: likes, kind: id, column: 5, side: context, type: integer, separator: ",", max: 3, shares: item}
  - {name: age, kind: number, column: 6, side: context}
  - {name: tags, kind: id, column: 7, side: candidate, separator: "|", max: 5}
  - {name: spare, kind: id, column: 8, side: candidate}
  - {name: item_text, kind: vector, of: item, file: items.npy}
"""


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def bits(values):
    return [struct.pack("<f", float(value)) for value in values]


def write_shop(folder):
    draw = np.random.default_rng(1)
    np.save(os.path.join(folder, "items.npy"), draw.normal(size=(40, 6)).astype(np.float32))
    with open(os.path.join(folder, "shop.yaml"), "w") as file:
        file.write(SHOP)
    with open(os.path.join(folder, "shop.tsv"), "w", encoding="utf-8") as file:
        for row in range(2000):
            likes = ",".join(str(v) for v in draw.integers(1, 41, row % 6))
            tags = "|".join(["r\u00e9d", 'say "hi"', "back\\slash", "\U0001f600"][:row % 5])
            price = "" if row % 7 == 0 else f"{draw.gamma(2.0, 30.0):.2f}"
            fields = [int(draw.random() < 0.3), price, f"u{row % 50}", draw.integers(1, 41), likes, "" if row % 11 == 0 else row % 60, tags, "s"]
            file.write("\t".join(str(field) for field in fields) + "\n")


class Server:
    def __init__(self, *models):
        self.process = subprocess.Popen([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--queue-ms", "600000", "--model", *models],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.grpc = self.process.stdout.readline().split()[-1]
        self.admin = self.process.stdout.readline().split("/")[2]

    def post(self, body):
        connection = http.client.HTTPConnection(self.admin)
        connection.request("POST", "/v1/score", body.encode("utf-8"))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def stop(self):
        self.process.terminate()
        self.process.wait()


def run_python(text):
    """What a program of `example` prints: the array, read back."""
    environment = dict(os.environ, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE="1", no_proxy="127.0.0.1", PYTHONIOENCODING="utf-8")
    # NumPy prints eight digits: ask for enough.
    said = run("/usr/bin/python3", "-", input="import numpy, sys; numpy.set_printoptions(precision=9, floatmode='maxprec', threshold=sys.maxsize)\n" +
               text, env=environment)
    return [float(value) for value in said.strip().strip("[]").split()]


def check(server, name, model, log, needs):
    example = [PROGRAM, "example", "--model", model, "--name", name, "--to", server.grpc]
    for extra, count in (([], 3), (["--candidates", "1"], 1), (["--candidates", "300"], 300), (["--data", log], 3)):
        text = run(*example, *extra)
        assert len([name for name in re.findall(r'"name": "(\w+)"', text)]) == needs, text
        status, answer = server.post(text)
        assert status == 200, (extra, text[:2000], answer)
        got = answer["outputs"][0]["probabilities"]
        assert len(got) == count and all(0 < value < 1 for value in got), got
        python = run(*example, "--as", "python", *extra)
        assert bits(run_python(python)) == bits(got), (extra, python[:2000])
        go = run(*example, "--as", "go", *extra)
        assert go.count("{Name: ") == needs and f"CandidateCount: {count}," in go, go[:2000]
        if shutil.which("gofmt"):
            assert run("gofmt", input=go) == go, "gofmt would write it otherwise"
    # One row of the log is what eval says of it.
    with open(log, encoding="utf-8") as file:
        rows = [next(file) for _ in range(30)]
    expected = run(PROGRAM, "eval", "--model", model, "--data", log, "--predictions", "-", "--json", os.path.join(work, "metrics.json")).split()[:30]
    for row, wanted in zip(rows, expected):
        status, answer = server.post(run(*example, "--candidates", "1", "--data", "-", input=row))
        assert status == 200 and bits(answer["outputs"][0]["probabilities"]) == bits([wanted]), (row, answer, wanted)
    # Numbers are about those of the log.
    made_up = json.loads(run(*example))
    columns = {column["name"]: column for column in made_up["context"] + made_up["candidates"]}
    print(f"{name}: as JSON, Python and Go")
    return columns, made_up


# What the printed program uses of gRPC and Debian 12's (1.33) does not have yet; put beside its files while compiling.
GO_NEW_CLIENT = """package grpc

func NewClient(target string, options ...DialOption) (*ClientConn, error) { return Dial(target, options...) }
"""
GO_INSECURE = """package insecure

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
)

type plain struct{}

func NewCredentials() credentials.TransportCredentials { return plain{} }

func (plain) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) { return c, nil, nil }
func (plain) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error)                              { return c, nil, nil }
func (plain) Info() credentials.ProtocolInfo                                                                  { return credentials.ProtocolInfo{} }
func (plain) Clone() credentials.TransportCredentials                                                         { return plain{} }
func (plain) OverrideServerName(string) error                                                                 { return nil }
"""


def go_misses():
    """Why Go's programs can't be compiled here, or None."""
    for command in ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"):
        if not shutil.which(command):
            return f"no command {command}"
    # The older package of protobuf for Go has no wire.go; with it messages of today's protoc-gen-go panic.
    for path in ("google.golang.org/grpc/clientconn.go", "google.golang.org/protobuf", "github.com/golang/protobuf/proto/wire.go"):
        if not os.path.exists(os.path.join(GO_PATH, "src", path)):
            return f"no {GO_PATH}/src/{path}"
    return None


def compile_go(programs):
    """Programs as `example` prints them, by name: a folder with what `go build` makes of them."""
    root = os.path.join(work, "go")
    module = os.path.join(root, "src/clicktower")
    os.makedirs(os.path.join(root, "shims"))
    for name, text in programs.items():
        os.makedirs(os.path.join(module, name))
        with open(os.path.join(module, name, "main.go"), "w", encoding="utf-8") as file:
            assert text.count("time.Second") == 1
            file.write(text.replace("time.Second", "10*time.Minute"))  # of the deadline, for slow machines
    options = ["--go_out=.", "--go_opt=module=clicktower", "--go-grpc_out=.", "--go-grpc_opt=module=clicktower"]
    command = re.search(r"^//\tprotoc (.*) clicktower.proto$", text, re.MULTILINE).group(1).split()
    assert command == options, command
    run("protoc", f"--proto_path={os.path.dirname(GO_PROTO)}", *command, "clicktower.proto", cwd=module)
    grpc_folder, replace = os.path.join(GO_PATH, "src/google.golang.org/grpc"), {}
    with open(os.path.join(grpc_folder, "clientconn.go"), encoding="utf-8") as file:
        if "\nfunc NewClient(" not in file.read():
            replace["new_client.go"] = GO_NEW_CLIENT
    if not os.path.exists(os.path.join(grpc_folder, "credentials/insecure")):
        replace["credentials/insecure/insecure.go"] = GO_INSECURE
    overlay = {}
    for path, text in replace.items():
        overlay[os.path.join(grpc_folder, path)] = shim = os.path.join(root, "shims", os.path.basename(path))
        with open(shim, "w", encoding="utf-8") as file:
            file.write(text)
    with open(os.path.join(root, "overlay.json"), "w", encoding="utf-8") as file:
        json.dump({"Replace": overlay}, file)
    environment = dict(os.environ, GO111MODULE="off", GOPATH=f"{root}:{GO_PATH}", GOCACHE=os.path.join(root, "cache"), GOFLAGS="", GOTOOLCHAIN="local",
                       CGO_ENABLED="0", HOME=root)
    run("go", "build", f"-overlay={root}/overlay.json", "-o", os.path.join(root, "bin") + "/", "clicktower/...", env=environment, cwd=root)
    return os.path.join(root, "bin")


def check_go(server, folders, shop_log, criteo_log):
    def example(name, form, *more, **options):
        return run(PROGRAM, "example", "--model", folders[name], "--name", name, "--to", server.grpc, "--as", form, *more, **options)

    def eval_of(name, rows):
        return run(PROGRAM, "eval", "--model", folders[name], "--data", "-", "--predictions", "-", "--json", os.path.join(work, "metrics.json"),
                   input=rows).split()

    with open(shop_log, encoding="utf-8") as file:
        shop_rows = file.readlines()
    with open(criteo_log, encoding="utf-8") as file:
        criteo_rows = "".join(next(file) for _ in range(5))
    full, empty = shop_rows[9], shop_rows[0]
    assert full.count("|") == 3 and all(full.split("\t")), full
    assert [empty.split("\t")[column] for column in (1, 4, 5, 6)] == [""] * 4, empty
    programs, expected = {}, {}
    for name, model, rows in (("full", "shop", full), ("empty", "shop", empty), ("five", "criteo", criteo_rows)):
        programs[name] = example(model, "go", "--candidates", str(rows.count("\n")), "--data", "-", input=rows)
        expected[name] = eval_of(model, rows)
    # Without candidates' columns and with made-up values: as the same request gets them over HTTP.
    programs["made_up"] = example("user", "go")
    status, answer = server.post(example("user", "json"))
    expected["made_up"] = answer["outputs"][0]["probabilities"]
    assert programs["made_up"].count('Name: "age"') == 1
    programs["wrong"] = programs["made_up"].replace('Name: "age"', 'Name: "aeg"')
    folder = compile_go(programs)
    for name, wanted in expected.items():
        said = run(os.path.join(folder, name)).strip()
        got = bits(said.strip("[]").split())
        assert len(got) > 0 and got == bits(wanted), (name, said, wanted)
        print(f"{name}: the program in Go prints {said}")
    done = subprocess.run([os.path.join(folder, "wrong")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and not done.stdout and "InvalidArgument" in done.stderr and "aeg" in done.stderr, done


def main():
    write_shop(work)
    shop_log = os.path.join(work, "shop.tsv")
    criteo_log = os.path.join(work, "criteo.tsv")
    run(PROGRAM, "synth", "--rows", "2000", "--seed", "3", "--out", criteo_log)
    folders = {name: os.path.join(work, name) for name in ("criteo", "shop", "user")}
    schema = os.path.join(work, "shop.yaml")
    train = [PROGRAM, "train", "--batch", "256"]
    run(*train, "--schema", "criteo", "--model", "lr", "--train", criteo_log, "--out", folders["criteo"])
    run(*train, "--schema", schema, "--model", "dcn-v2", "--set", "deep=[16]", "--set", "exclude=[spare]", "--train", shop_log, "--out",
        folders["shop"])
    run(*train, "--schema", schema, "--model", "lr", "--set", "features=[user, age]", "--train", shop_log, "--out", folders["user"])
    server = Server(*[f"{name}={folder}" for name, folder in folders.items()])
    try:
        if GO_PROTO:
            check_go(server, folders, shop_log, criteo_log)
            return
        columns, _ = check(server, "criteo", folders["criteo"], criteo_log, 39)
        assert all(re.fullmatch("[0-9a-f]{8}", token) for token in columns["C1"]["tokens"]), columns["C1"]
        columns, made_up = check(server, "shop", folders["shop"], shop_log, 6)
        assert {column["name"] for column in made_up["context"]} == {"user", "likes", "age"}, made_up
        assert columns["item"]["integers"] == [1, 2, 3] and columns["likes"]["lengths"] == [2] and columns["tags"]["lengths"] == [2, 2, 2]
        assert columns["user"]["tokens"] == ["user-1"]
        typical = np.expm1(np.mean([np.log1p(float(line.split("\t")[1])) for line in open(shop_log, encoding="utf-8") if line.split("\t")[1]]))
        assert abs(columns["price"]["numbers"][0] / typical - 1) < 0.01, (columns["price"], typical)
        columns, made_up = check(server, "user", folders["user"], shop_log, 2)
        assert not made_up["candidates"] and made_up["candidate_count"] == 3
        for wrong, word in ((["--candidates", "0"], "--candidates"), (["--as", "perl"], "json|python|go"), ([], "--model")):
            done = subprocess.run([PROGRAM, "example", *(["--model", folders["user"]] if wrong else []), *wrong], stderr=subprocess.PIPE, text=True)
            assert done.returncode == 2 and word in done.stderr, done
        with open(shop_log, "rb") as file:
            row = file.readline().split(b"\t")
        row[6] = b"red|caf\xe9"
        done = subprocess.run([PROGRAM, "example", "--model", folders["shop"], "--data", "-"], input=b"\t".join(row), capture_output=True)
        assert done.returncode == 1 and not done.stdout and b"tags: value 2 of these rows is not UTF-8" in done.stderr, done
    finally:
        server.stop()


if GO_PROTO and go_misses():
    print(f"SKIP: the programs in Go need Debian's golang-go, golang-google-grpc-dev, golang-github-golang-protobuf-1-5-dev, protoc-gen-go-1-5 and "
          f"protoc-gen-go-grpc ({go_misses()})")
    sys.exit(0)
with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    main()
