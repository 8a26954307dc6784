"""Exposures and feedback of a live experiment as a server would have logged them, made from a seed, with the truth beside them.

An independent writer of the files that docs/file-formats.md describes, and an independent reading of the assignment's rule: what
`clicktower join` and `clicktower report` make of the files is compared with what is known here.

A user has a level; an arm adds a planted lift to the chance of a click. Requests bring a context (user, hour, likes) and candidates (item,
price, tags); some of the candidates are shown. Clicks come late, out of order, twice, and for things that were never shown.
"""
import json
import os
import random

import numpy
import xxhash

SCHEMA = """name: shop
format: {separator: "\\t", header: false, columns: 9}
fields:
  - {name: label, kind: label, column: 1}
  - {name: when, kind: time, column: 2, time_unit: milliseconds}
  - {name: session, kind: group, column: 3}
  - {name: unit, kind: unit, column: 4}
  - {name: user, kind: id, column: 4, side: context}
  - {name: hour, kind: number, column: 5, side: context}
  - {name: item, kind: id, column: 6, side: candidate, type: integer}
  - {name: price, kind: number, column: 7, side: candidate}
  - {name: tags, kind: id, column: 8, side: candidate, separator: ",", max: 2, newest: last}
  - {name: likes, kind: id, column: 9, side: context, type: integer, separator: ";", max: 3, newest: first, shares: item}
"""
EXPERIMENT = """name: ranker
salt: salt-7
control: old
holdout: 5
ramp: 90
arms:
  - {name: old, weight: 60}
  - {name: new, weight: 40}
forced: [{unit: tester, arm: new}]
"""
WEIGHTS = {"old": 60, "new": 40}
BEGIN_MS = 1_700_000_000_000
WAIT_MS = 1_800_000
FEEDBACK_BEHIND_MS = 7_200_000  # how long after its request the last feedback of it comes


def hash64(text, seed=0):
    return xxhash.xxh3_64_intdigest(text.encode(), seed=seed)


def assign(unit):
    """By the rule that experiment/assign/assign.h states; holdout 5, ramp 90, weights 60 to 40."""
    if unit == "tester":
        return "new", "forced"
    part = hash64(unit, hash64("salt-7", 0)) % 10000
    if part >= 9500:
        return "old", "holdout"
    if part >= 8550:
        return "old", "ramp"
    return ("old" if hash64(unit, hash64("salt-7", 1)) % 10000 < 6000 else "new"), "bucket"


def text_of(number):
    """A float32 with enough digits to give it back."""
    return "%.9g" % numpy.float32(number)


class LiveLog:
    """requests: what was scored; events: the lines of feedback; rows: what `join` must make of them, as (time, request's hash, candidate,
    line of text)."""

    def __init__(self, seed, users, lift=0.0, candidates=6, sample_rate=1.0, lose_new=0.0, days=1.0, base=0.1):
        self.random = random.Random(seed)
        self.requests, self.events, self.rows, self.covariates = [], [], [], {}
        self.lift, self.candidates, self.sample_rate, self.base = lift, candidates, sample_rate, base
        self.span_ms = int(days * 86_400_000)
        for user in range(users):
            self.user(f"user-{user}", lose_new)
        self.user("tester", 0.0)

    def user(self, unit, lose_new):
        r = self.random
        arm, assigned = assign(unit)
        level = r.betavariate(2, 2)
        self.covariates[unit] = level + r.gauss(0, 0.1)
        if arm == "new" and assigned == "bucket" and r.random() < lose_new:
            return
        for number in range(1 + int(r.expovariate(0.7))):
            self.request(unit, arm, assigned, level, f"{unit}/{number}")

    def request(self, unit, arm, assigned, level, request_id):
        r = self.random
        time = BEGIN_MS + r.randrange(self.span_ms)
        exposure = {"time_ms": time, "request_id": request_id, "unit": unit, "experiment": "ranker", "arm": arm, "assigned": assigned,
                    "model": arm, "model_version": "00", "sample_rate": self.sample_rate}
        if r.random() < (0.01 if arm == "old" else 0.02):
            exposure["error"] = "DEADLINE_EXCEEDED"
            self.requests.append(exposure)
            return
        n = r.randrange(1, self.candidates + 1)
        hour = numpy.float32(r.uniform(0, 24))
        likes = [r.randrange(50) for _ in range(r.randrange(6))]
        items = [r.randrange(200) for _ in range(n)]
        prices = [None if r.random() < 0.2 else numpy.float32(r.lognormvariate(2, 1)) for _ in range(n)]
        tags = [[r.choice("abcdef") for _ in range(r.randrange(4))] for _ in range(n)]
        chances = [min(0.95, (self.base + 0.3 * level) * (1.0 + (self.lift if arm == "new" else 0.0)) + 0.1 * (item % 10 == 0))
                   for item in items]
        columns = [{"name": "item", "integers": items} if r.random() < 0.5 else {"name": "item", "tokens": [str(i) for i in items]},
                   {"name": "price", "numbers": [float(p) for p in prices if p is not None],
                    "lengths": [int(p is not None) for p in prices]},
                   {"name": "tags", "tokens": [t for row in tags for t in row], "lengths": [len(row) for row in tags]}]
        context = [{"name": "user", "tokens": [unit]}, {"name": "hour", "numbers": [float(hour)]},
                   {"name": "likes", "integers": likes, "lengths": [len(likes)]}, {"name": "unused", "tokens": ["x"]}]
        r.shuffle(columns)
        exposure.update({"latency_us": int(r.lognormvariate(7, 0.5) * (1.1 if arm == "new" else 1.0)), "candidates": n, "context": context,
                         "columns": columns, "derived": [], "scores": {"click": [float(numpy.float32(c)) for c in chances]}})
        self.requests.append(exposure)
        self.feedback(exposure, chances, (unit, hour, items, prices, tags, likes))

    def feedback(self, exposure, chances, values):
        r = self.random
        time, request_id = exposure["time_ms"], exposure["request_id"]
        exposure["truth"] = shown = {}
        for candidate, chance in enumerate(chances):
            if r.random() < 0.5:  # not shown; some say that it was clicked
                if r.random() < 0.05:
                    self.event(exposure, time + 5000, candidate, "click")
                continue
            at = (time + r.randrange(10_000)) // 4000 * 4000  # so that several rows have the same time
            self.event(exposure, at, candidate, "shown")
            clicked, bought = r.random() < chance, 0.0
            if r.random() < 0.1:  # shown once more, later
                self.event(exposure, at + 60_000, candidate, "shown", event_id=f"again/{request_id}/{candidate}")
            if clicked:
                self.event(exposure, at + r.randrange(WAIT_MS + 1), candidate, "click")
                for purchase in range(r.randrange(3)):
                    value = round(r.uniform(1, 50), 2)
                    bought += value
                    self.event(exposure, at + r.randrange(WAIT_MS + 1), candidate, "purchase", value=value,
                               event_id=f"{request_id}/{candidate}/{purchase}")
            elif r.random() < 0.02:  # too late to count
                self.event(exposure, at + WAIT_MS + 1 + r.randrange(1_000_000), candidate, "click")
            shown[candidate] = (at, clicked, bought)
            self.rows.append((at, hash64(request_id), candidate, self.line(exposure, at, clicked, candidate, values)))
        if r.random() < 0.05:
            self.event(exposure, time, len(chances) + 3, "shown")

    def event(self, exposure, time, candidate, name, **more):
        r = self.random
        event = {"received_ms": time + r.randrange(3_000_000), "time_ms": time, "event_id": "", "request_id": exposure["request_id"],
                 "candidate": candidate, "position": candidate + 1, "event": name, "value": 1.0, **more}
        self.events.append(event)
        if r.random() < 0.1:  # sent again
            self.events.append({**event, "received_ms": event["received_ms"] + r.randrange(1000)})

    @staticmethod
    def line(exposure, at, clicked, candidate, values):
        unit, hour, items, prices, tags, likes = values
        price = prices[candidate]
        return "\t".join([str(int(clicked)), str(at), exposure["request_id"], unit, text_of(hour), str(items[candidate]),
                          "" if price is None else text_of(price), ",".join(tags[candidate][-2:]), ";".join(map(str, likes[:3]))]) + "\n"

    def until_ms(self):
        return BEGIN_MS + self.span_ms + FEEDBACK_BEHIND_MS

    def truth(self):
        return "".join(row[3] for row in sorted(self.rows, key=lambda row: row[:3]))

    def write(self, folder, seed, files=3):
        """Lines in an order and over files that the seed chooses; a .part with a line that is not whole; events of unknown requests."""
        r = random.Random(seed)
        os.makedirs(folder)
        strangers = [{"received_ms": BEGIN_MS, "time_ms": BEGIN_MS, "request_id": f"stranger-{i}", "candidate": 0, "event": "click"}
                     for i in range(3)]
        other = {"received_ms": self.until_ms(), "request_id": "nobody", "candidate": 0, "event": "ping", "value": 0}
        exposures = [{key: value for key, value in e.items() if key != "truth"} for e in self.requests]
        for kind, lines in (("exposures", exposures), ("feedback", self.events + strangers + [other])):
            lines = [json.dumps(line) for line in lines]
            r.shuffle(lines)
            for number in range(files):
                part = ".part" if number == files - 1 else ""
                with open(f"{folder}/{kind}-20231114T2213{number:02}000-1-{number}.jsonl{part}", "w", encoding="utf-8") as file:
                    file.writelines(line + "\n" for line in lines[number::files])
                    if part:
                        file.write(lines[0][:20])
