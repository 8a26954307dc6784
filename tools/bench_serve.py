"""tools/bench serve: DCN-v2 over gRPC on the cores that the clients use, too, beside a bare echo server (tests/serving/echo_server.c) in turn.

Half of the features are given once for a request. One candidate: h2load for both. More: `clicktower load`, which knows refusals from answers;
open loop where it says a rate.
"""
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request

import bench_overload

SIDES = ("context", "candidate")  # in turn: half of the features each
SECTIONS = ("one", "many", "swap", "limit", "early", "deltas")
SERVICE, ECHO = "clicktower.v1.Scorer/Score", "echo.Echo/Echo"


def write_schema(path):
    lines = ["name: half", 'format: {separator: "\\t", columns: 40}', "fields:", "  - {name: label, kind: label, column: 1}"]
    lines += [f"  - {{name: I{i}, kind: number, column: {1 + i}, side: {SIDES[(i + 1) % 2]}}}" for i in range(1, 14)]
    lines += [f"  - {{name: C{i}, kind: id, column: {14 + i}, side: {SIDES[(i + 1) % 2]}, type: text}}" for i in range(1, 27)]
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


def request_text(log):
    """A ScoreRequest of the log's first row in protobuf's text form."""
    with gzip.open(log, "rt", encoding="utf-8") if log.endswith(".gz") else open(log, encoding="utf-8") as file:
        row = file.readline().rstrip("\n").split("\t")
    columns = []
    for i in range(1, 40):
        name, value = f"I{i}" if i <= 13 else f"C{i - 13}", row[i]
        values = (f"numbers: {value}" if value else "lengths: 0") if i <= 13 else f'tokens: "{value}"'
        columns.append(f'{"context" if int(name[1:]) % 2 else "candidates"} {{ name: "{name}" {values} }}')
    return "\n".join(columns + ["candidate_count: 1"])


class Process:
    """A server of ours that prints `listening on ADDRESS`."""

    def __init__(self, bench, command, log):
        with open(log, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                                            start_new_session=True, preexec_fn=bench.raise_priority)
        self.pid, self.log = self.process.pid, log
        self.address = self.process.stdout.readline().strip().replace("listening on ", "")
        if not self.address:
            raise bench.Failed(f"{command[0]} did not start: see {log}")
        socket.create_connection(self.address.rsplit(":", 1), timeout=10).close()

    def resident_mib(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def says(self, words):
        with open(self.log, encoding="utf-8") as file:
            return words in file.read()

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def h2load(bench, server, service, body, clients, streams, work, least_bytes):
    """(requests/s, latencies in ms, others' share) of a closed loop. An answer shorter than `least_bytes` is an error that HTTP does not
    show."""
    log = os.path.join(work, "h2load.log")
    if os.path.exists(log):
        os.remove(log)
    run = bench.Run(["h2load", "-D", str(bench.OPTIONS.serve_seconds), "--warm-up-time", "1", "-c", str(clients), "-m", str(streams), "-t", "1", "-d",
                     body, "--log-file", log, "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{server.address}/{service}"],
                    beside=server.pid)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", run.out)
    done = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", run.out)
    data = re.search(r"\((\d+)\) data", run.out)
    if not rate or not done or not data or int(done.group(1)) == 0:
        raise bench.Failed(f"h2load: {run.out[-300:]}")
    if int(done.group(2)) + int(done.group(3)) or int(data.group(1)) < least_bytes * int(done.group(1)):
        raise bench.Failed(f"h2load: answers that are no scores: {run.out[-300:]}")
    with open(log, encoding="ascii") as file:
        milliseconds = sorted(int(line.split("\t")[2]) / 1e3 for line in file)
    return float(rate.group(1)), milliseconds, run.others


def load(bench, server, log, schema, candidates, *arguments):
    """What `clicktower load --json` says, and others' share."""
    run = bench.Run([bench.PROGRAM, "load", "--to", server.address, "--data", log, "--schema", schema, "--candidates", str(candidates), "--seconds",
                     str(bench.OPTIONS.serve_seconds), "--json", *map(str, arguments)], beside=server.pid)
    return json.loads(run.out), run.others


def quantiles(milliseconds):
    return {"p50": milliseconds[len(milliseconds) // 2], "p99": milliseconds[len(milliseconds) * 99 // 100]}


def middle(bench, parts):
    return {q: bench.median([part[q] for part in parts]) for q in ("p50", "p99")}


def request_body(tools, log, work):
    """The log's first row as h2load sends it: 5 bytes of gRPC, and the message."""
    body = os.path.join(work, "request-1.bin")
    message = subprocess.run(["protoc", "--encode=clicktower.v1.ScoreRequest", f"-I{tools.ROOT}", "proto/clicktower.proto"], cwd=tools.ROOT, check=True,
                             input=request_text(log).encode(), capture_output=True).stdout
    with open(body, "wb") as file:
        file.write(b"\0" + struct.pack(">I", len(message)) + message)
    return body


def bench_one(bench, results, ours, log, work):
    """One candidate, against the echo server, in turn."""
    missing = [tool for tool in ("h2load", "protoc") if not shutil.which(tool)]
    echo_program = bench.build("//tests/serving:echo_server")
    if missing or not echo_program:
        bench.say(f"  1 candidate: not measured: no {' and no '.join(missing) or 'echo server'} (packages nghttp2-client and protobuf-compiler)")
        return
    body = request_body(bench, log, work)
    echo = Process(bench, [echo_program], os.path.join(work, "echo.log"))
    try:
        one_beside_echo(bench, results, ours, echo, body, work)
    finally:
        echo.stop()


def one_beside_echo(bench, results, ours, echo, body, work):
    for what, clients, streams in (("alone", 1, 1), ("16 at once", 4, 4), ("64 at once", 4, 16)):
        rates, bounds, latency, bound_latency, others = [], [], [], [], []
        for _ in range(bench.OPTIONS.rounds):
            rate, milliseconds, share = h2load(bench, echo, ECHO, body, clients, streams, work, 5)
            bounds.append(rate)
            bound_latency.append(quantiles(milliseconds))
            rate, milliseconds, share = h2load(bench, ours, SERVICE, body, clients, streams, work, 9)
            rates.append(rate)
            latency.append(quantiles(milliseconds))
            others.append(share)
        both = {"ours": middle(bench, latency), "echo": middle(bench, bound_latency)}
        results.add("serve", f"1 candidate, {what}", "requests/s", rates, bounds, "echo", others, latency_ms=both)
        bench.say(f"      ms p50 {both['ours']['p50']:.3f} p99 {both['ours']['p99']:.3f}; echo p50 {both['echo']['p50']:.3f} p99 {both['echo']['p99']:.3f}")


def products_alone(tools):
    """Candidates/s of the matrix products alone; None where they can't be measured."""
    tower_bench = tools.build("//tests/tower:tower_bench")
    if not tower_bench:
        return None
    found = re.search(rf"^dcn-v2\s+\S+\s+{tools.OPTIONS.threads} threads?\s*:.*?forward ([\d.]+) of ([\d.]+)",
                      tools.Run([tower_bench, "", str(tools.BATCH), "dcn-v2", str(tools.OPTIONS.threads)]).out, re.MULTILINE)
    return tools.BATCH / (1e-3 * float(found.group(1))) if found else None


def bench_many(bench, results, ours, log, schema):
    forward = products_alone(bench)
    for candidates in (100, 1024, 5000):
        for what, concurrency in (("alone", 1), ("16 at once", 16)):
            if candidates == 5000 and concurrency > 1:
                continue
            runs = [load(bench, ours, log, schema, candidates, "--concurrency", concurrency, "--deadline-ms", 10000) for _ in range(bench.OPTIONS.rounds)]
            rates = [run["candidates_per_second"] for run, _ in runs]
            latency = {"ours": middle(bench, [run["answered_ms"] for run, _ in runs])}
            refused = sum(sum(run["codes"].values()) - run["codes"].get("OK", 0) for run, _ in runs)
            results.add("serve", f"{candidates:,} candidates, {what}", "candidates/s", rates, [forward] if forward else None, "forward products alone",
                        [share for _, share in runs], latency_ms=latency, refused=refused)
            bench.say(f"      {bench.thousands(bench.median(rates) / candidates)} requests/s; ms p50 {latency['ours']['p50']:.2f} p99 {latency['ours']['p99']:.2f}; "
                      f"{refused} refused")


def done_lines(log):
    with open(log, encoding="utf-8") as file:
        return re.findall(r"event=serve\.(?:reload|follow) result=done.*", file.read())


def bench_changing(bench, results, server, log, schema, what, change, at_once=False):
    """Without and with `change(step)` each half second (step = 0, 1, ..), and, with `at_once`, whenever the server is done with the one before,
    so that all answers are of a time in which it changes. Under half of what 4 at once reach: no failed request, and what it does to the
    tail."""
    run, _ = load(bench, server, log, schema, 100, "--concurrency", 4, "--deadline-ms", 10000)
    rate = f"{run['answered_per_second'] / 2:.0f}"

    def half_second(over, step):
        change(step)
        return over.wait(0.5)

    def until_done(over, step):
        before = len(done_lines(server.log))
        change(step)
        while len(done_lines(server.log)) == before and not over.wait(0.002):
            continue
        return over.is_set()

    ways = {f"no {what}": None, f"a {what} each half second": half_second, **({f"one {what} after another": until_done} if at_once else {})}
    for name, way in ways.items():
        over, before = threading.Event(), len(done_lines(server.log))

        def feed():
            for step in itertools.count():
                if way(over, step):
                    return

        thread = threading.Thread(target=feed)
        if way:
            thread.start()
        run, share = load(bench, server, log, schema, 100, "--rate", rate, "--deadline-ms", 10000)
        over.set()
        if way:
            thread.join()
        results.add("serve", f"100 candidates, half of the capacity, {name}", "requests/s", [run["answered_per_second"]], None, None, [share],
                    latency_ms={"ours": run["answered_ms"]}, codes=run["codes"])
        lines = done_lines(server.log)[before:]
        took = sorted(int(found.group(1)) for found in (re.search(r" ms=(\d+)", line) for line in lines) if found)
        bench.say(f"      ms p50 {run['answered_ms']['p50']:.2f} p99 {run['answered_ms']['p99']:.2f}; {run['codes']}"
                  + (f"; {len(took)} {what}s, of {took[len(took) // 2]} ms" if took else ""))


def bench_deltas(bench, results, work, log):
    """A server that follows: a delta each half second, and what taking one takes."""
    command, _, log, schema = training(bench, work, log)
    published, stage, lines = os.path.join(work, "published"), os.path.join(work, "followed"), os.path.join(work, "follow.log")
    for folder in (published, stage):  # of an earlier run
        shutil.rmtree(folder, ignore_errors=True)
    bench.Run([*command, "--publish", published, "--publish-rows", str(max(2048, bench.OPTIONS.serve_rows // 20))])
    deltas = sorted(name for name in os.listdir(published) if name.startswith("delta-"))
    os.mkdir(stage)
    shutil.copytree(os.path.join(published, "base-000000000000"), os.path.join(stage, "base-000000000000"))
    server = Process(bench, [bench.PROGRAM, "serve", "--follow", stage, "--look-seconds", "0.05", "--listen", "127.0.0.1:0", "--threads",
                             str(bench.OPTIONS.threads)], lines)
    try:
        def take(step):
            if step < len(deltas):
                os.link(os.path.join(published, deltas[step]), os.path.join(stage, deltas[step]))

        bench_changing(bench, results, server, log, schema, "delta", take)
    finally:
        server.stop()
    with open(lines, encoding="utf-8") as file:
        taken = re.findall(r"records=(\d+) bytes=(\d+) .*read_ms=(\S+) swap_ms=(\S+) settle_ms=(\S+)", file.read())
    if taken:
        records, size, read, swap, settle = (sorted(map(float, values))[len(taken) // 2] for values in zip(*taken))
        bench.say(f"      {len(taken)} deltas; the middle one: {records:.0f} records, {size / 2**20:.1f} MiB, read in {read:.1f} ms, swapped in "
                  f"{swap:.1f}, settled in {settle:.1f}")


def training(tools, work, log):
    """The command that trains the model, the model, a log of some rows, and its schema."""
    model, few, schema = (os.path.join(work, name) for name in ("served", "served.tsv", "half.yaml"))
    write_schema(schema)
    tools.Run(["bash", "-c", f'gzip -dcf "$1" | head -n {tools.OPTIONS.serve_rows} >"$2"', "_", log, few])
    command = tools.train_command("dcn-v2", "auto", few, model, tools.SHAPES["dcn-v2"][1] + tools.PLAIN_INPUTS, tools.BATCH)
    command[command.index("--schema") + 1] = schema
    return command, model, few, schema


def train(tools, work, log):
    """The model, and what it was trained on."""
    command, model, few, schema = training(tools, work, log)
    tools.Run(command)
    return model, few, schema


def serve(tools, work, model):
    return Process(tools, [tools.PROGRAM, "serve", "--model", model, "--listen", "127.0.0.1:0", "--threads", str(tools.OPTIONS.threads)],
                   os.path.join(work, "serve.log"))


def bench_more_than_it_can(tools, results, work, log):
    model, few, schema = train(tools, work, log)
    ours = serve(tools, work, model)
    try:
        bench_overload.sweep(tools, results, ours, lambda candidates, *arguments: load(tools, ours, few, schema, candidates, *arguments))
    finally:
        ours.stop()


# --- models of millions of rows ---


def make_large(tools, work, schema, name, rows, asked, world, known=False):
    """A model with millions of rows, and `asked` rows of the same log behind those that it was trained on; or, `known`, the first of these. Made
    once for a number of rows."""
    model, log = os.path.join(work, f"{name}-{rows}"), os.path.join(work, f"{name}-{rows}.tsv")
    synth = " ".join([tools.PROGRAM, "synth", "--rows", str(rows + asked), *world, "--out", "-", "2>/dev/null"])
    if not os.path.exists(log):
        tools.Run(["bash", "-c", f'{synth} | {"head" if known else "tail"} -n {asked} >"$1.new" && mv "$1.new" "$1"', "_", log])
    if tools.Run([tools.PROGRAM, "inspect", model], check=False).code != 0:
        shutil.rmtree(model, ignore_errors=True)
        sets = tools.SHAPES["dcn-v2"][1] + tools.PLAIN_INPUTS + ["embedding.min_count=1"]
        command = tools.train_command("dcn-v2", "auto", f"|{synth} | head -n {rows}", model, sets, tools.BATCH)
        command[command.index("--schema") + 1] = schema
        tools.say(f"making a model of {rows:,} rows of a log (--{name}-rows)")
        tools.Run(command)
    return model, log


# --- a table that is five times --memory ---

TIMES = 5
COUNTS = ("lookups_total", "misses_total", "unknown_total")
LIMITED_REQUESTS = 2048  # of 100 rows each, that the model was not trained on
LIMITED_WORLD = ["--users", "1000000", "--items", "300000", "--vocabulary", "1000000", "--tail", "40000000"]  # Criteo's skew


class Limited:
    """A server with an admin port, and what its tables say."""

    def __init__(self, tools, work, model, name, *arguments):
        self.server = Process(tools, [tools.PROGRAM, "serve", "--model", model, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--threads",
                                      str(tools.OPTIONS.threads), *arguments], os.path.join(work, f"{name}.log"))
        self.admin = self.server.process.stdout.readline().strip().replace("admin on ", "")

    def tables(self, *names):
        """The sum over all tables of each `clicktower_table_NAME`."""
        with urllib.request.urlopen(self.admin + "metrics") as answer:
            text = answer.read().decode()
        return [sum(float(value) for value in re.findall(rf"^clicktower_table_{name}\{{.*\}} (\S+)$", text, re.MULTILINE)) for name in names]


def bench_limited(tools, results, work):
    """Without a limit and with one of a fifth of what the rows take, in turn: rows that memory has not are read from the folder."""
    schema = os.path.join(work, "half.yaml")
    write_schema(schema)
    model, log = make_large(tools, work, schema, "limited", tools.OPTIONS.limited_rows, 100 * LIMITED_REQUESTS, LIMITED_WORLD)
    whole = Limited(tools, work, model, "whole")
    rows, size = whole.tables("rows", "bytes")
    limit = round(size / TIMES / 2**20)
    limited = Limited(tools, work, model, "limited", "--memory", str(limit))
    tools.say(f"    {rows / 1e6:.2f} M rows, which take {size / 2**20:.0f} MiB; --memory {limit}")
    try:
        for what, concurrency in (("alone", 1), ("4 at once", 4), ("16 at once", 16)):
            runs = {whole: [], limited: []}
            before = limited.tables(*COUNTS)
            for _ in range(tools.OPTIONS.rounds):
                for server, of in runs.items():
                    of.append(load(tools, server.server, log, schema, 100, "--concurrency", concurrency, "--deadline-ms", 10000))
            lookups, misses, unknown = (after - earlier for after, earlier in zip(limited.tables(*COUNTS), before))
            for name, of in (("in memory", runs[whole]), (f"{TIMES} x --memory", runs[limited])):
                failed = sum(sum(run["codes"].values()) - run["codes"].get("OK", 0) for run, _ in of)
                latency = middle(tools, [run["answered_ms"] for run, _ in of])
                results.add("serve", f"100 candidates, {name}, {what}", "requests/s", [run["answered_per_second"] for run, _ in of], None, None,
                            [share for _, share in of], latency_ms={"ours": latency}, failed=failed)
                tools.say(f"      ms p50 {latency['p50']:.2f} p99 {latency['p99']:.2f}; {failed} failed")
            results.lines[-1].update(hit_rate=1 - misses / lookups, unknown=unknown / lookups)
            tools.say(f"      {1 - misses / lookups:.1%} of its look-ups found in memory, {misses / lookups:.1%} asked of the folder, which has no row for {unknown / lookups:.1%}")
    finally:
        limited.server.stop()
        whole.server.stop()


# --- answers before the model is loaded ---

EARLY_WORLD = ["--users", "1000000", "--items", "300000", "--vocabulary", "1000000", "--tail", "1000000000", "--tail-slope", "0"]  # 14 ids without skew


def forget(folder):
    """Takes its files out of the page cache."""
    for name in (os.path.join(where, name) for where, _, names in os.walk(folder) for name in names):
        with open(name, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start_and_ask(tools, work, model, log, schema, *arguments):
    """Seconds from a server's start until it listens, until a client that starts then has its 100 probabilities, and until the model is loaded."""
    begin = time.perf_counter()
    server = Process(tools, [tools.PROGRAM, "serve", "--model", model, "--listen", "127.0.0.1:0", "--threads", str(tools.OPTIONS.threads), *arguments],
                     os.path.join(work, "early.log"))
    try:
        ready = loaded = time.perf_counter() - begin
        run = tools.Run([tools.PROGRAM, "score", "--to", server.address, "--data", log, "--schema", schema, "--rows-per-request", "100",
                         "--max-rows", "100", "--timeout", "600"], beside=server.pid)
        answered = time.perf_counter() - begin
        if len(run.out.split()) != 100:
            raise tools.Failed(f"not 100 probabilities: {run.out[:200]}")
        while arguments and not server.says("event=serve.load result=done"):
            time.sleep(0.01)
            loaded = time.perf_counter() - begin
        return (ready, answered, loaded), run.others
    finally:
        server.stop()


def bench_early(tools, results, work):
    """Starts with --answer-early and without, in turn, with the model's files in the page cache and read from the disk."""
    schema = os.path.join(work, "half.yaml")
    write_schema(schema)
    model, log = make_large(tools, work, schema, "early", tools.OPTIONS.early_rows, 100, EARLY_WORLD, known=True)
    tables = json.loads(tools.Run([tools.PROGRAM, "inspect", model, "--json"]).out)["tables"]
    rows, size = (sum(table[fact] for table in tables) for fact in ("rows", "bytes"))
    tools.say(f"    {rows / 1e6:.2f} M rows, {size / 2**20:.0f} MiB on the disk")
    for where in ("page cache", "disk"):
        early, whole, others = [], [], []
        for _ in range(tools.OPTIONS.rounds):
            for of, arguments in ((early, ["--answer-early"]), (whole, [])):
                if where == "disk":
                    forget(model)
                times, share = start_and_ask(tools, work, model, log, schema, *arguments)
                of.append(times)
                others.append(share)
        for what, ours, theirs in zip(("ready", "100 candidates answered", "loaded"), zip(*early), zip(*whole)):
            results.add("early", f"--answer-early, from the {where}: {what}", "s", ours, theirs, "without", others, table_rows=rows)


# --- all of it ---


def over_grpc(tools, results, work, log, sections):
    """One server of a model in memory: small requests beside an echo server, large ones beside the products alone, and a change of models."""
    model, few, schema = train(tools, work, log)
    ours = serve(tools, work, model)
    try:
        if "one" in sections:
            bench_one(tools, results, ours, few, work)
        if "many" in sections:
            bench_many(tools, results, ours, few, schema)
        if "swap" in sections:
            bench_changing(tools, results, ours, few, schema, "swap", lambda _: ours.process.send_signal(signal.SIGHUP), at_once=True)
    finally:
        ours.stop()


def bench(tools, results, work, log):
    tools.say("\nserve: DCN-v2 of the shape above over gRPC; clients, server and echo server on the same cores; half of the features once for a request")
    sections = tools.OPTIONS.sections or SECTIONS
    if {"one", "many", "swap"} & set(sections):
        over_grpc(tools, results, work, log, sections)
    if "limit" in sections:
        bench_limited(tools, results, work)
    if "early" in sections:
        bench_early(tools, results, work)
    if "deltas" in sections:
        bench_deltas(tools, results, work, log)
