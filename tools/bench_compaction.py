"""tools/bench store, section `compaction`: the database under a table that outgrows memory, with our settings and with others beside them."""
import os
import re
import shutil

MEMORY_MIB = 160  # of which rows have half: a quarter of the table of --compaction-keys' default
SETTINGS = (  # name, what compaction_bench is told
    ("ours: by size, 8 runs, blocks of 2 KiB, filters of 10 bits, mapped", []),
    ("by levels, 8 files in level 0", ["by_levels=1"]),
    ("by size, 4 runs", ["runs=4"]),
    ("by size, 16 runs", ["runs=16"]),
    ("by size, up to 50 % out of date", ["old_percent=50"]),
    ("by size, up to 200 % out of date", ["old_percent=200"]),
    ("blocks of 1 KiB", ["block_bytes=1024"]),
    ("blocks of 4 KiB", ["block_bytes=4096"]),
    ("filters of 6 bits", ["filter_bits=6"]),
    ("filters of 16 bits", ["filter_bits=16"]),
    ("files read by pread, from the page cache", ["reads=pages"]),
    ("files read past the page cache, also by compaction", ["reads=direct"]),
    ("a disk that compacts 20 MB/s", ["compaction_bytes_a_second=20000000"]),
    ("the same, and training is not held back", ["compaction_bytes_a_second=20000000", "pace=0"]),
)
FIGURES = ("longest_batch_ms", "held_share", "longest_held_ms", "most_runs", "written_mib_a_second", "write_amplification", "runs_a_fetch", "fetch_us_a_key",
           "disk_bytes_a_row", "processor_seconds", "anonymous_mib")


def compaction(bench, results, work):
    """Batches as a training's within a limit of 160 MiB, as fast as they come, without a tower; our settings of the database, and others, in turn."""
    program = bench.build("//tests/embedding_store:compaction_bench")
    if not program:
        return
    folder = os.path.join(work, "compaction-bench")
    for shape, keys in (("uniform", "uniform keys"), ("skewed", "Criteo's skew")):
        found = {name: [] for name, _ in SETTINGS}
        for _ in range(bench.OPTIONS.rounds):
            for name, more in SETTINGS:
                shutil.rmtree(folder, ignore_errors=True)
                run = bench.Run([program, folder, str(MEMORY_MIB), str(bench.OPTIONS.compaction_keys), str(bench.OPTIONS.compaction_seconds), shape,
                                 str(bench.OPTIONS.threads), *more])
                figures = {key: float(value) for key, value in re.findall(r"^(\w+)\t([\d.]+)$", run.out, re.MULTILINE)}
                found[name].append((figures, [float(rate) for rate in re.findall(r"([\d.]+) rows/s", run.out)], run.others))
        for name, _ in SETTINGS:
            more = {key: bench.median([figures[key] for figures, _, _ in found[name]]) for key in FIGURES}
            rates = [bench.median(rates) for rates in zip(*(rates for _, rates, _ in found[name]))]
            results.add("store", f"{keys}: {name}", "rows/s", [figures["rows_per_second"] for figures, _, _ in found[name]], None, None,
                        [others for _, _, others in found[name]], rates=rates, **more)
            bench.say("      tenths of the time: " + " ".join(bench.thousands(rate) for rate in rates) + " rows/s")
            bench.say("      " + ", ".join(f"{key.replace('_', ' ')} {more[key]:g}" for key in FIGURES))
    shutil.rmtree(folder, ignore_errors=True)
