"""tools/bench overload: more requests than the server can answer. Client (`clicktower load`) and server share the cores.

Closed loop: so many clients that send the next request as soon as they have an answer, or a refusal. Open loop: requests come at a rate, whatever
becomes of them, as a multiple of what 16 clients get answered (the capacity), measured in turn with them. A request is late where its
answer comes after its deadline, or its deadline passes without one.
"""

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FACTORS = (0.5, 0.75, 1, 1.5, 2, 3, 4)
DEADLINE_MS, LONG_MS = 100, 10000
CONNECTIONS = 16


class Run:
    """What `clicktower load --json` says, as shares of what was sent."""

    def __init__(self, said, others, memory_mib):
        sent = max(1, said["requests"])
        self.answered, self.in_time, self.others, self.memory_mib = said["answered_per_second"], said["in_time_per_second"], others, memory_mib
        late = said["codes"].get("OK", 0) - said["in_time_per_second"] * said["seconds"] + said["codes"].get("DEADLINE_EXCEEDED", 0)
        self.late = max(0.0, late) / sent
        self.refused = said["codes"].get("RESOURCE_EXHAUSTED", 0) / sent
        self.codes = said["codes"]
        nothing = {"p50": float("nan"), "p99": float("nan")}
        self.answered_ms, self.refused_ms = said["answered_ms"] or nothing, said["failed_ms"] or nothing


def report(tools, results, what, runs, rates, bounds=None):
    """One line of the table, and what is behind it: medians of the runs."""
    def middle(value):
        return tools.median([value(run) for run in runs])

    latency = {"ours": {q: middle(lambda run, q=q: run.answered_ms[q]) for q in ("p50", "p99")}}
    refused_ms = {q: middle(lambda run, q=q: run.refused_ms[q]) for q in ("p50", "p99")}
    line = results.add("overload", what, "in time/s", rates, bounds, "of what could be" if bounds else None, [run.others for run in runs],
                       latency_ms=latency, refused_ms=refused_ms, refused=middle(lambda run: run.refused), late=middle(lambda run: run.late),
                       memory_mib=max(run.memory_mib for run in runs), codes=[run.codes for run in runs])
    text = f"      ms p50 {latency['ours']['p50']:.2f} p99 {latency['ours']['p99']:.2f}; refused {100 * line['refused']:.1f} %"
    if line["refused"]:
        text += f" after ms p50 {refused_ms['p50']:.2f} p99 {refused_ms['p99']:.2f}"
    tools.say(f"{text}; late {100 * line['late']:.2f} %; memory {line['memory_mib']:.0f} MiB")


def sweep(tools, results, server, load):
    """load(candidates, *arguments) gives what `clicktower load --json` says, and others' share."""
    def run(candidates, deadline_ms, *arguments):
        said, others = load(candidates, "--deadline-ms", deadline_ms, *arguments)
        return Run(said, others, server.resident_mib())

    def closed(candidates, concurrency, deadline_ms):
        return run(candidates, deadline_ms, "--concurrency", concurrency, "--connections", min(concurrency, CONNECTIONS))

    rounds = range(tools.OPTIONS.rounds)
    tools.say(f"\noverload: 100 candidates; the server holds {server.resident_mib():.0f} MiB at first")
    for concurrency in CONCURRENCIES:
        runs = [closed(100, concurrency, LONG_MS) for _ in rounds]
        report(tools, results, f"{concurrency} at once", runs, [one.in_time for one in runs])
    pairs = [(closed(100, 16, LONG_MS), closed(100, 256, DEADLINE_MS)) for _ in rounds]
    report(tools, results, f"256 at once that retry at once, {DEADLINE_MS} ms", [storm for _, storm in pairs], [storm.in_time for _, storm in pairs],
           [calm.in_time for calm, _ in pairs])

    for candidates, factors in ((100, FACTORS), (1024, (1, 2))):
        runs = {factor: [] for factor in factors}
        bounds = {factor: [] for factor in factors}
        calm = []
        for _ in rounds:
            capacity = closed(candidates, 16, LONG_MS)
            calm.append(capacity)
            for factor in factors:
                runs[factor].append(run(candidates, DEADLINE_MS, "--rate", f"{factor * capacity.answered:.0f}", "--connections", CONNECTIONS))
                bounds[factor].append(min(factor, 1) * capacity.answered)
        report(tools, results, f"{candidates:,} candidates, 16 at once (capacity)", calm, [one.in_time for one in calm])
        for factor in factors:
            report(tools, results, f"{candidates:,} candidates, {factor:g} × capacity, {DEADLINE_MS} ms", runs[factor],
                   [one.in_time for one in runs[factor]], bounds[factor])

    recover(tools, results, run, closed)


def recover(tools, results, run, closed):
    """Four times the capacity, and right behind it half of it: the first second is not counted, what is left should be as without a storm."""
    capacity = closed(100, 16, LONG_MS).answered
    half = ("--rate", f"{capacity / 2:.0f}", "--connections", CONNECTIONS)
    before = run(100, DEADLINE_MS, *half)
    _ = run(100, DEADLINE_MS, "--rate", f"{4 * capacity:.0f}", "--connections", CONNECTIONS)
    after = run(100, DEADLINE_MS, *half)
    for what, one in (("before a storm", before), ("from a second after a storm of 4 × on", after)):
        report(tools, results, f"half of the capacity, {what}", [one], [one.in_time], [capacity / 2])
