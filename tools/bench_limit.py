"""tools/bench store, section `limit`: training with a cache of a tenth of the table, beside the same training in memory, in turn."""
import os
import re
import shutil

FIXED_MIB = 46  # of a limit: RocksDB's own, and two batches
LEAST_MIB = 64
LOGS = (  # name, rows of --rows, what synth is told
    ("Criteo's skew", 1.0, ["--tail", "40000000"]),
    ("14 of 26 ids uniform", 0.5, ["--tail", "1000000000", "--tail-slope", "0"]),
)


def make_log(bench, work, name, rows, options):
    """A block file, which is read faster than it is learned from."""
    text, log = os.path.join(work, "limit.tsv"), os.path.join(work, f"limit-{name}-{rows}.ctb")
    if not os.path.exists(log):
        bench.Run([bench.PROGRAM, "synth", "--rows", str(rows), "--out", text, *options])
        bench.Run([bench.PROGRAM, "convert", "--schema", "criteo", "--in", text, "--out", log])
        os.remove(text)
    return log


def table_bytes(bench, folder):
    """Of the rows' values and state in memory."""
    found = re.search(r'"memory_bytes": (\d+)', bench.Run([bench.PROGRAM, "inspect", folder, "--json"]).out)
    if not found:
        raise bench.Failed(f"{folder}: inspect does not say what the rows take in memory")
    return int(found.group(1))


def limit(bench, results, work):
    """DCN-v2 with a cache of a tenth of the table beside all of it in memory, in turn."""
    out = os.path.join(work, "limited")
    for number, (name, share, options) in enumerate(LOGS):
        rows = int(bench.OPTIONS.rows * share)
        log = make_log(bench, work, number, rows, options)
        command = bench.train_command("dcn-v2", "auto", log, out, bench.SHAPES["dcn-v2"][1] + bench.PLAIN_INPUTS + ["embedding.min_count=1"], bench.BATCH)
        ours, whole, waited, others, mib = [], [], [], [], 0
        for _ in range(bench.OPTIONS.rounds):
            rate, _, run = bench.train_once(command)
            whole.append(rate)
            # A cache is five sixths of what the fixed parts and two batches leave of a limit.
            mib = max(LEAST_MIB, FIXED_MIB + int(1.2 * table_bytes(bench, out) / 10 / 2**20))
            rate, _, run = bench.train_once([*command, "--memory", str(mib)])
            ours.append(rate)
            others.append(run.others)
            said = re.search(r"([\d.]+) s in look-up and checkpoints were spent waiting for the disk", run.out)
            seconds = re.search(r"^trained .*seconds ([\d.]+)", run.out, re.MULTILINE)
            waited.append(float(said.group(1)) / float(seconds.group(1)) if said and seconds else 0.0)
        results.add("store", f"DCN-v2, a cache of a tenth, {name} (--memory {mib})", "rows/s", ours, whole, "in memory", others, waited_share=bench.median(waited))
        bench.say(f"      {100 * bench.median(waited):.1f} % of the time was spent waiting for the disk")
    shutil.rmtree(out, ignore_errors=True)
