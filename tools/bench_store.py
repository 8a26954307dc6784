"""tools/bench store: the embedding store in memory, on disk, saved, loaded and followed; each figure beside its bound of the same run.

A section is a function of SECTIONS: it gets tools/bench itself, the results and the work folder. `--sections` names those that are run.
"""
import collections
import http.client
import json
import os
import re
import shutil
import subprocess
import time

import bench_compaction
import bench_limit
import bench_serve

DIM = 16


def mib(value):
    return f"{value / 2**20:.1f} MiB"


# --- in memory ---


def memory(bench, results, work):
    """Look-up, gather and update of 26 ids a row beside one flat table, on 1 and 2 threads, in turn."""
    program = bench.build("//tests/embedding_store:store_bench")
    if not program:
        return
    one = None
    for more in ([], ["hot"]):
        for threads in dict.fromkeys((1, bench.OPTIONS.threads)):
            ours, bounds, others, parts = [], [], [], ""
            for _ in range(bench.OPTIONS.rounds if not more else 1):
                run = bench.Run([program, str(bench.OPTIONS.store_rows), str(threads), "0"] + more)
                found = dict(re.findall(r"^(plain arrays|store)\s+([\d.]+) M ids/s", run.out, re.MULTILINE))
                ours.append(1e6 * float(found["store"]))
                bounds.append(1e6 * float(found["plain arrays"]))
                others.append(run.others)
                parts = (re.findall(r"^ns an id:.*$", run.out, re.MULTILINE) or [""])[0]
            name = f"in memory, {bench.thousands(bench.OPTIONS.store_rows)} rows{', half of the columns hot' if more else ''}, {threads} thread{'s' if threads > 1 else ''}"
            line = results.add("store", name, "ids/s", ours, bounds, "plain arrays", others, parts=parts)
            bench.say(f"      {parts}")
            if threads == 1:
                one = line["value"]
            elif one:
                bench.say(f"      {line['value'] / one:.2f} times one thread; the plain arrays {bench.median(bounds) / one * line['value'] / line['value']:.2f} times the store on one")


# --- on disk ---


def disk_bench(bench, work):
    """{name: [(value, bound), ..]} of all rounds, and the others' shares."""
    program = bench.build("//tests/embedding_store:disk_bench")
    if not program:
        return None, []
    folder, found, others = os.path.join(work, "disk-bench"), collections.defaultdict(list), []
    for _ in range(bench.OPTIONS.rounds):
        shutil.rmtree(folder, ignore_errors=True)
        run = bench.Run([program, folder, str(bench.OPTIONS.disk_rows), str(bench.OPTIONS.threads), "1"])
        others.append(run.others)
        for line in run.out.splitlines():
            name, value, _, bound = line.split("\t")
            found[name].append((float(value), float(bound)))
    return found, others


def disk(bench, results, work):
    """Sorted rows in, scans, random reads; a whole snapshot, one after 1 % has changed, at rest and beside training; opening it."""
    found, others = disk_bench(bench, work)
    if not found:
        return
    rows = bench.thousands(bench.OPTIONS.disk_rows)

    def add(name, what, unit, bound_is=None, bound=None):
        bounds = [b for _, b in found[name]] if bound_is and bound is None else bound
        return results.add("store", what, unit, [v for v, _ in found[name]], bounds, bound_is, others)

    add("ingest", f"{rows} sorted rows into the database", "rows/s", "RocksDB alone")
    add("open_whole", f"loading a snapshot of {rows} rows to read", "rows/s", "one bare scan", [v for v, _ in found["bare_scan"]])
    add("open", "the same to train, from two snapshots' files", "rows/s", "one bare scan", [v for v, _ in found["bare_scan"]])
    add("random_reads", "random reads, sorted batches of 4,096", "rows/s", "batched_multi_get alone")
    add("whole_seconds", f"a snapshot of all of {rows} rows", "s", "the disk, as many bytes")
    add("few_seconds", f"a checkpoint of {rows} rows after 1 % has changed", "s", "the disk, as many bytes")
    add("few_bytes", "what it writes", "bytes", "records of the changed rows")
    add("few_stall", "what it stalls", "ms")
    add("beside_seconds", "a checkpoint after half has changed, beside training", "s")
    add("beside_stall", "what it stalls", "ms")
    add("beside_longest_batch", "the longest batch of the store meanwhile", "ms", "a batch alone")
    add("first_touch_batch", "a batch whose keys are all changed for the first time", "ms", "without checkpoints")


# --- the command: checkpoints and loading of a trained model ---


def run_checkpoints(bench, results, work):
    """`clicktower train --checkpoint-rows`: how long training stood still, as --profile says."""
    log = bench.make_log(work)
    out = os.path.join(work, "checkpointed")
    rates, stalls, plain, others = [], [], [], []
    for _ in range(bench.OPTIONS.rounds):
        command = bench.train_command("dcn-v2", "auto", log, out, bench.SHAPES["dcn-v2"][1] + bench.PLAIN_INPUTS, bench.BATCH)
        rate, _, run = bench.train_once(command)
        plain.append(rate)
        rate, _, run = bench.train_once(command + ["--checkpoint-rows", str(50 * bench.BATCH)])
        rates.append(rate)
        others.append(run.others)
        said = re.search(r"checkpoints held training up (\d+) times, for ([\d.]+) s at most", run.out)
        stalls.append(1e3 * float(said.group(2)))
    results.add("store", f"DCN-v2, a checkpoint each {50 * bench.BATCH:,} rows", "rows/s", rates, plain, "without", others)
    results.add("store", "the longest time that one of them held training up", "ms", stalls, None, None, others)


# --- from a delta to an answer ---


def version_of(connection, body):
    connection.request("POST", "/v1/score", body)
    answer = connection.getresponse().read()
    return json.loads(answer)["model_version"]


def delta(bench, results, work):
    """From when a delta's file is in its place to the first answer that was computed with it."""
    log = bench.make_log(work)
    published, stage, few = (os.path.join(work, name) for name in ("published-store", "followed-store", "followed.tsv"))
    for folder in (published, stage):
        shutil.rmtree(folder, ignore_errors=True)
    bench.Run(["bash", "-c", f'gzip -dcf "$1" | head -n {bench.OPTIONS.serve_rows} >"$2"', "_", log, few])
    command = bench.train_command("dcn-v2", "auto", few, os.path.join(work, "followed-model"), bench.SHAPES["dcn-v2"][1] + bench.PLAIN_INPUTS, bench.BATCH)
    bench.Run([*command, "--publish", published, "--publish-rows", str(max(bench.BATCH, bench.OPTIONS.serve_rows // 20))])
    deltas = sorted(name for name in os.listdir(published) if name.startswith("delta-"))
    base = os.path.join(stage, "base-000000000000")
    os.mkdir(stage)
    shutil.copytree(os.path.join(published, "base-000000000000"), base)
    body = subprocess.run([bench.PROGRAM, "example", "--model", base, "--as", "json"], check=True, capture_output=True).stdout
    with open(os.path.join(work, "followed.log"), "w", encoding="utf-8") as errors:
        server = subprocess.Popen([bench.PROGRAM, "serve", "--follow", stage, "--look-seconds", "0.05", "--listen", "127.0.0.1:0", "--admin",
                                   "127.0.0.1:0", "--threads", str(bench.OPTIONS.threads)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=errors, text=True)
    try:
        admin = None
        for line in server.stdout:
            if line.startswith("admin on "):
                admin = re.search(r"([\d.]+:\d+)", line).group(1)
                break
        if not admin:
            raise bench.Failed("the server has no admin port")
        connection = http.client.HTTPConnection(admin, timeout=30)
        seconds, sizes = [], []
        version = version_of(connection, body)
        for name in deltas:
            since = time.perf_counter()
            os.link(os.path.join(published, name), os.path.join(stage, name))
            while version_of(connection, body) == version:
                if time.perf_counter() - since > 60:
                    raise bench.Failed(f"{name} was not taken within a minute")
                time.sleep(0.001)
            seconds.append(time.perf_counter() - since)
            sizes.append(os.path.getsize(os.path.join(published, name)))
            version = version_of(connection, body)
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    results.add("store", f"a delta ({mib(bench.median(sizes))}) to the first answer with it, a look each 50 ms", "s", seconds, None, None, [])


SECTIONS = collections.OrderedDict([("memory", memory), ("disk", disk), ("checkpoints", run_checkpoints), ("delta", delta), ("limit", bench_limit.limit),
                                    ("compaction", bench_compaction.compaction)])


def bench(tools, results, work):
    for name in SECTIONS:
        if tools.OPTIONS.sections and name not in tools.OPTIONS.sections:
            continue
        tools.say(f"\nstore, {name}: {SECTIONS[name].__doc__}")
        SECTIONS[name](tools, results, work)
