"""Adds up what `bazel test` did: prints every target, why tests were skipped or failed, and `N passed, N failed[, N skipped]`.

Usage: test_summary.py PASS=EVENTS.json[:EXIT] ... [--case NAME=passed|failed ...] [--log NAME=FILE:EXIT ...]

EVENTS.json is Bazel's --build_event_json_file, EXIT Bazel's exit code. Cases are counted, as the test logs show them: cmocka's lines, the same
lines from a shell script, Python's unittest; a target that shows none of them is one case. A log is such a target by itself. Exits 1 where anything failed.
"""

import json
import re
import sys
import urllib.parse

# cmocka: "[       OK ] name", "[  FAILED  ] name", "[  SKIPPED ] name"; the summary behind them has "[  FAILED  ] 2 test(s)" and names again.
CASE = re.compile(r"^\[\s+(OK|FAILED|SKIPPED)\s+\] (?:\S+: )?(\S+)", re.MULTILINE)
UNITTEST = re.compile(r"^Ran (\d+) tests? in .*?\n\n(OK|FAILED)(?: \((.*)\))?", re.MULTILINE | re.DOTALL)
SKIP = re.compile(r"^.*?SKIP: .*$", re.MULTILINE)
GOOD = {"PASSED", "FLAKY"}


def read_log(events):
    for event in events:
        uri = event.get("uri", "")
        if uri.startswith("file://"):
            with open(urllib.parse.unquote(uri[len("file://"):]), encoding="utf-8", errors="replace") as file:
                yield file.read()


def count_log(text):
    """(passed, names of failed, skipped) of one test log; a case is counted once, whatever is said of it again."""
    passed, failed, skipped = 0, [], 0
    said = {}
    for what, name in CASE.findall(text):
        if not name.isdigit():
            said[name] = what if said.get(name) != "SKIPPED" else "SKIPPED"
    for name, what in said.items():
        passed += what == "OK"
        skipped += what == "SKIPPED"
        if what == "FAILED":
            failed.append(name)
    for ran, verdict, details in UNITTEST.findall(text):
        counts = dict(part.split("=") for part in (details or "").split(", ") if "=" in part)
        bad = int(counts.get("failures", 0)) + int(counts.get("errors", 0))
        left = int(counts.get("skipped", 0))
        passed += int(ran) - bad - left
        skipped += left
        failed += ["unittest"] * bad
    return passed, failed, skipped


def read_pass(path):
    """{label: (status, log texts)} of one run of Bazel, and what else it could not do."""
    targets, problems = {}, []
    with open(path, encoding="utf-8") as file:
        for line in file:
            event = json.loads(line)
            identity = event["id"]
            if "testSummary" in identity:
                summary = event["testSummary"]
                logs = list(read_log(summary.get("passed", []) + summary.get("failed", [])))
                targets[identity["testSummary"]["label"]] = (summary["overallStatus"], logs)
            elif "targetCompleted" in identity and not event.get("completed", {}).get("success"):
                problems.append(identity["targetCompleted"]["label"] + " was not built")
            elif "aborted" in event and event["aborted"].get("reason") not in (None, "SKIPPED"):
                problems.append(event["aborted"].get("description") or event["aborted"]["reason"])
    return targets, problems


def main(arguments):
    passed = failed = skipped = 0
    reasons, failures = [], []
    while arguments:
        argument = arguments.pop(0)
        if argument == "--case":
            name, verdict = arguments.pop(0).rsplit("=", 1)
            print(f"  {verdict:<8} {name}")
            passed += verdict == "passed"
            failed += verdict != "passed"
            if verdict != "passed":
                failures.append(name)
            continue
        if argument == "--log":
            name, place = arguments.pop(0).split("=", 1)
            path, _, code = place.rpartition(":")
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
            good, bad, left = count_log(text)
            skips = SKIP.findall(text)
            reasons += [f"{name}: {line.strip()}" for line in skips]
            if int(code) != 0 and not bad:
                bad = [f"ended with {code}"]
            left = left or len(skips)
            print(f"  {'failed' if bad else 'passed':<8} {name}  {good} passed, {len(bad)} failed" + (f", {left} skipped" if left else ""))
            failures += [f"{name}: {case}" for case in bad]
            passed, failed, skipped = passed + good, failed + len(bad), skipped + left
            continue
        name, place = argument.split("=", 1)
        path, _, code = place.rpartition(":")
        try:
            targets, problems = read_pass(path)
        except (OSError, ValueError) as error:
            targets, problems = {}, [f"Bazel did not say what it did ({error})"]
        print(f"{name}:")
        failed_before = failed
        for label, (status, logs) in sorted(targets.items()):
            good, bad, left = 0, [], 0
            for text in logs:
                more = count_log(text)
                good, bad, left = good + more[0], bad + more[1], left + more[2]
                skips = SKIP.findall(text)
                reasons += [f"{name} {label}: {line.strip()}" for line in dict.fromkeys(skips)]
                if skips and not left:
                    left = len(set(skips))
                    good = max(0, good - left)
            if status not in GOOD and not bad:
                bad = [status.lower().replace("_", " ")]
            elif status in GOOD and not good and not left:
                good = 1
            print(f"  {status.lower():<8} {label}  {good} passed, {len(bad)} failed" + (f", {left} skipped" if left else ""))
            failures += [f"{name} {label}: {case}" for case in bad]
            passed, failed, skipped = passed + good, failed + len(bad), skipped + left
        if int(code) != 0 and failed == failed_before:
            problems = problems or [f"Bazel ended with {code}"]
            failed += len(problems)
            failures += [f"{name}: {problem}" for problem in problems]
    if reasons:
        print("\nSkipped, and why:")
        print("\n".join("  " + reason for reason in reasons))
    if failures:
        print("\nFailed:")
        print("\n".join("  " + failure for failure in failures))
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
