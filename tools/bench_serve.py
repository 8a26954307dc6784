"""tools/bench serve: DCN-v2 over gRPC on the cores that the clients use, too, beside a bare echo server (tests/serving/echo_server.c) in turn.

Half of the features are given once for a request. One candidate: h2load for both. More: `clicktower load`, which knows refusals from answers;
open loop where it says a rate.
"""
import gzip
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import urllib.request

import bench_overload

SIDES = ("context", "candidate")  # in turn: half of the features each
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
        self.pid = self.process.pid
        self.address = self.process.stdout.readline().strip().replace("listening on ", "")
        if not self.address:
            raise bench.Failed(f"{command[0]} did not start: see {log}")
        socket.create_connection(self.address.rsplit(":", 1), timeout=10).close()

    def resident_mib(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

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


def bench_one(bench, results, ours, echo, body, work):
    """One candidate, against the echo server, in turn."""
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


def bench_many(bench, results, ours, log, schema, forward):
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


def bench_changing(bench, results, server, log, schema, what, change):
    """Without and with `change(step)` each half second (step = 0, 1, ..), under half of what 4 at once reach: no failed request, and what it
    does to the tail."""
    run, _ = load(bench, server, log, schema, 100, "--concurrency", 4, "--deadline-ms", 10000)
    rate = f"{run['answered_per_second'] / 2:.0f}"
    for changing in (False, True):
        done = threading.Event()

        def feed():
            step = 0
            while not done.wait(0.5):
                change(step)
                step += 1

        thread = threading.Thread(target=feed)
        if changing:
            thread.start()
        run, share = load(bench, server, log, schema, 100, "--rate", rate, "--deadline-ms", 10000)
        done.set()
        if changing:
            thread.join()
        results.add("serve", f"100 candidates, half of the capacity, {f'a {what} each half second' if changing else f'no {what}'}", "requests/s",
                    [run["answered_per_second"]], None, None, [share], latency_ms={"ours": run["answered_ms"]}, codes=run["codes"])
        bench.say(f"      ms p50 {run['answered_ms']['p50']:.2f} p99 {run['answered_ms']['p99']:.2f}; {run['codes']}")


def bench_deltas(bench, results, command, work, log, schema):
    """A server that follows: a delta each half second, and what taking one takes."""
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


def train(tools, work, log):
    """The command that trains the model, the model, a log of some rows, and its schema."""
    model, few, schema = (os.path.join(work, name) for name in ("served", "served.tsv", "half.yaml"))
    write_schema(schema)
    tools.Run(["bash", "-c", f'gzip -dcf "$1" | head -n {tools.OPTIONS.serve_rows} >"$2"', "_", log, few])
    command = tools.train_command("dcn-v2", "auto", few, model, tools.SHAPES["dcn-v2"][1] + tools.PLAIN_INPUTS, tools.BATCH)
    command[command.index("--schema") + 1] = schema
    tools.Run(command)
    return command, model, few, schema


def serve(tools, work, model):
    return Process(tools, [tools.PROGRAM, "serve", "--model", model, "--listen", "127.0.0.1:0", "--threads", str(tools.OPTIONS.threads)],
                   os.path.join(work, "serve.log"))


def bench_more_than_it_can(tools, results, work, log):
    _, model, few, schema = train(tools, work, log)
    ours = serve(tools, work, model)
    try:
        bench_overload.sweep(tools, results, ours, lambda candidates, *arguments: load(tools, ours, few, schema, candidates, *arguments))
    finally:
        ours.stop()


OUTSIDE_MIB = 8  # of a served model's limit: look-ups in work and readers of files


def table_lookups(admin):
    """(look-ups, those that memory had not) so far, of all tables."""
    with urllib.request.urlopen(admin + "metrics") as answer:
        text = answer.read().decode()
    return [sum(float(value) for value in re.findall(rf"^clicktower_table_{name}_total\{{.*\}} (\S+)$", text, re.MULTILINE)) for name in ("lookups", "misses")]


def bench_limited(bench, results, work, model, log, schema):
    """Memory for a fifth of the rows: the rest are read from the folder when they are asked for."""
    tables = json.loads(bench.Run([bench.PROGRAM, "inspect", model, "--json"]).out)["tables"]
    limit = OUTSIDE_MIB + max(1, round(sum(table["rows"] * table["dim"] * 4 for table in tables) / 5 / 2**20))
    server = Process(bench, [bench.PROGRAM, "serve", "--model", model, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--threads",
                             str(bench.OPTIONS.threads), "--memory", str(limit)], os.path.join(work, "limited.log"))
    try:
        admin = server.process.stdout.readline().strip().replace("admin on ", "")
        for what, concurrency in (("alone", 1), ("4 at once", 4)):
            before = table_lookups(admin)
            run, share = load(bench, server, log, schema, 100, "--concurrency", concurrency, "--deadline-ms", 10000)
            lookups, missed = (after - earlier for after, earlier in zip(table_lookups(admin), before))
            hits = 1 - missed / lookups if lookups else float("nan")
            results.add("serve", f"100 candidates, a fifth of the rows in memory, {what}", "requests/s", [run["answered_per_second"]], None, None, [share],
                        latency_ms={"ours": run["answered_ms"]}, codes=run["codes"], hit_rate=hits)
            bench.say(f"      ms p50 {run['answered_ms']['p50']:.2f} p99 {run['answered_ms']['p99']:.2f}; {run['codes']}; --memory {limit}: "
                      f"{hits:.1%} of the look-ups found in memory")
    finally:
        server.stop()


def bench(bench_module, results, work, log):
    tools = bench_module
    tools.say("\nserve: DCN-v2 of the shape above over gRPC; clients, server and echo server on the same cores; half of the features once for a request")
    missing = [tool for tool in ("h2load", "protoc") if not shutil.which(tool)]
    echo_program = tools.build("//tests/serving:echo_server")
    if missing or not echo_program:
        tools.say(f"  not measured: no {' and no '.join(missing) or 'echo server'} (packages nghttp2-client and protobuf-compiler)")
        return
    command, model, few, schema = train(tools, work, log)
    body = os.path.join(work, "request-1.bin")
    message = subprocess.run(["protoc", "--encode=clicktower.v1.ScoreRequest", f"-I{tools.ROOT}", "proto/clicktower.proto"], cwd=tools.ROOT, check=True,
                             input=request_text(few).encode(), capture_output=True).stdout
    with open(body, "wb") as file:
        file.write(b"\0" + struct.pack(">I", len(message)) + message)
    tower_bench, forward = tools.build("//tests/tower:tower_bench"), None
    if tower_bench:
        found = re.search(rf"^dcn-v2\s+\S+\s+{tools.OPTIONS.threads} threads?\s*:.*?forward ([\d.]+) of ([\d.]+)",
                          tools.Run([tower_bench, "", str(tools.BATCH), "dcn-v2", str(tools.OPTIONS.threads)]).out, re.MULTILINE)
        forward = tools.BATCH / (1e-3 * float(found.group(1))) if found else None
    ours = serve(tools, work, model)
    echo = Process(tools, [echo_program], os.path.join(work, "echo.log"))
    try:
        bench_one(tools, results, ours, echo, body, work)
        bench_many(tools, results, ours, few, schema, forward)
        bench_changing(tools, results, ours, few, schema, "swap", lambda _: ours.process.send_signal(signal.SIGHUP))
    finally:
        ours.stop()
        echo.stop()
    bench_limited(tools, results, work, model, few, schema)
    bench_deltas(tools, results, command, work, few, schema)
