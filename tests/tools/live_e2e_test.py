#!/usr/bin/python3
"""A live experiment from end to end: two arms are trained, one server splits the traffic between them, users with a planted taste are
scored over gRPC, a tenth of the candidates is shown, the clicks come back late and out of order; then

 - the report finds the planted difference within its intervals, and counts what it must not compare;
 - join gives the rows that were shown, to the byte, and training on them a model as good as one from the truth.

    live_e2e_test.py CLICKTOWER [--users=N]

The planted difference is that of all users: each user's request is scored by both arms (the other one as an arm chosen outside), and what
each arm would show has a chance to be clicked that is known here. Nothing waits for time to pass.
"""
import concurrent.futures
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

try:
    import grpc  # noqa: F401
    import numpy
    from google.protobuf import json_format  # noqa: F401
except ImportError as error:
    print(f"SKIP: the clients need Debian's python3-grpcio, python3-protobuf and python3-numpy ({error})")
    sys.exit(0)

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.getcwd(), "clients/python"))
import clicktower  # noqa: E402

PROGRAM = os.path.abspath(sys.argv[1])
USERS = int(next((word.split("=")[1] for word in sys.argv[2:] if word.startswith("--users=")), 3000))
CANDIDATES, SHOWN, TASTES, ITEMS, EVENTS_A_CALL, THREADS = 20, 2, 6, 300, 5000, 8
SCHEMA = """name: shop
format: {separator: "\\t", columns: 7}
fields:
  - {name: label, kind: label, column: 1}
  - {name: when, kind: time, column: 2, time_unit: milliseconds}
  - {name: unit, kind: unit, column: 3}
  - {name: taste, kind: id, column: 4, side: context}
  - {name: item, kind: id, column: 5, side: candidate, type: integer}
  - {name: genre, kind: id, column: 6, side: candidate}
  - {name: price, kind: number, column: 7, side: candidate}
"""
EXPERIMENT = """name: taste
arms:
  - {name: popular, weight: 50}
  - {name: personal, weight: 50}
forced: [{unit: user-0, arm: personal}, {unit: user-1, arm: popular}]
"""


def run(*arguments):
    done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{arguments} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class World:
    """Users have a taste, items a genre, an appeal and a price; a click is likelier where taste and genre agree."""

    def __init__(self, seed):
        self.random = r = random.Random(seed)
        self.appeal = [r.gauss(0, 0.5) for _ in range(ITEMS)]
        self.price = [numpy.float32(r.lognormvariate(2, 0.7)) for _ in range(ITEMS)]

    def chance(self, taste, item):
        return 1 / (1 + math.exp(2.2 - 1.7 * (item % TASTES == taste) - self.appeal[item]))

    def line(self, label, when, unit, taste, item):
        return f"{label}\t{when}\t{unit}\ttaste-{taste}\t{item}\tgenre-{item % TASTES}\t{self.price[item]:.9g}\n"

    def log(self, rows):
        """Random items for random users: what both arms and the truth's judge learn from."""
        lines, chances = [], []
        for row in range(rows):
            taste, item = self.random.randrange(TASTES), self.random.randrange(ITEMS)
            chances.append(self.chance(taste, item))
            lines.append(self.line(int(self.random.random() < chances[-1]), 1_600_000_000_000 + row, f"old-{row}", taste, item))
        return "".join(lines), chances


class Server:
    def __init__(self):
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--model", "popular=popular", "personal=personal", "--experiment", "taste.yaml", "--exposures", "log",
             "--feedback", "log", "--listen", "127.0.0.1:0", "--queue-ms", "600000", "--queue", "4096", "--rotate-mib", "1"],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on 127.0.0.1:"), line
        self.client = clicktower.Client(line.split()[-1], timeout=600, options=[("grpc.enable_http_proxy", 0)])

    def stop(self):
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class User:
    """One request: what the user's own arm showed, and the mean chance of what each arm would show."""

    def __init__(self, world, number):
        r = random.Random(f"user/{number}")
        self.unit, self.taste = f"user-{number}", r.randrange(TASTES)
        self.items = r.sample(range(ITEMS), CANDIDATES)
        self.candidates = [{"item": item, "genre": f"genre-{item % TASTES}", "price": float(world.price[item])} for item in self.items]
        self.chances = [world.chance(self.taste, item) for item in self.items]
        self.number, self.random = number, r

    def ask(self, client, arm=""):
        answer = client.answer(self.candidates, {"taste": f"taste-{self.taste}"}, unit=self.unit, arm=arm)
        best = numpy.argsort(-answer.outputs["click"], kind="stable")[:SHOWN]
        return answer, [int(i) for i in best], float(numpy.mean([self.chances[i] for i in best]))

    def visit(self, client):
        self.answer, self.shown, own = self.ask(client)
        other = "personal" if self.answer.arm == "popular" else "popular"
        outside, _, others = self.ask(client, other)
        assert outside.assigned == "outside" and outside.arm == other
        assert self.answer.assigned == ("forced" if self.number < 2 else "bucket") and self.answer.request_id
        self.would = {self.answer.arm: own, other: others}
        return self

    def events(self, now):
        """What happens to the candidates that were shown; `rows` is what join must make of it."""
        self.rows = []
        for position, candidate in enumerate(self.shown):
            at = now + self.number * 10 + position
            event = {"request_id": self.answer.request_id, "candidate": candidate, "position": position + 1}
            clicked = self.random.random() < self.chances[candidate]
            yield {**event, "event": "shown", "time_ms": at}
            if clicked:
                late = at + self.random.randrange(600_000)
                yield {**event, "event": "click", "time_ms": late}
                if self.random.random() < 0.2:  # sent twice
                    yield {**event, "event": "click", "time_ms": late}
                yield {**event, "event": "order", "time_ms": late, "value": 5.0 + candidate, "event_id": f"{self.unit}/{candidate}"}
            elif self.random.random() < 0.01:  # too late to count
                yield {**event, "event": "click", "time_ms": at + 1_800_001}
            self.rows.append((at, clicked, candidate))


def train(name, data, features="[taste, item, genre, price]"):
    write(f"{name}.yaml", f"model: fm\nembedding: {{dim: 8, learning_rate: 0.1, first_value_scale: 0.1}}\nfeatures: {features}\n")
    run("train", "--schema", "shop.yaml", "--model", f"{name}.yaml", "--train", data, "--out", name, "--threads", "2", "--epochs", "3")


def serve_and_visit(world):
    server = Server()
    try:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            users = list(pool.map(lambda number: User(world, number).visit(server.client), range(USERS)))
        now = int(time.time() * 1000)
        events = [event for user in users for event in user.events(now)]
        random.Random(1).shuffle(events)  # long after, in any order
        for first in range(0, len(events), EVENTS_A_CALL):
            part = events[first:first + EVENTS_A_CALL]
            assert server.client.feedback(part) == len(part)
        server.stop()
    finally:
        server.kill()
    return users, (now + USERS * 10 + 1_800_001) / 1000 + 1


def check_report(users, until):
    print(run("report", "--exposures", "log", "--feedback", "log", "--experiment", "taste.yaml", "--wait-seconds", "1800",
              "--until", str(until), "--plan", str(USERS), "--event", "order", "--slice", "taste",
              "--training", "train.tsv", "--schema", "shop.yaml", "--out", "report"))
    with open("report/report.json", encoding="utf-8") as file:
        made = json.load(file)
    compared = [user for user in users if user.answer.assigned == "bucket"]
    for arm in made["arms"]:
        mine = [user for user in compared if user.answer.arm == arm["name"]]
        assert arm["units"] == len(mine) and arm["count"] == SHOWN * len(mine), arm
        assert arm["value"] == sum(row[1] for user in mine for row in user.rows), arm
    would = {name: numpy.mean([user.would[name] for user in users]) for name in ("popular", "personal")}
    planted, one = would["personal"] - would["popular"], made["differences"][0]
    lift = planted / would["popular"]
    print(f"planted difference {planted:+.5f} (lift {lift:+.2%}), told {one['estimate']:+.5f}, at one fixed time "
          f"[{one['fixed']['low']:+.5f} {one['fixed']['high']:+.5f}], whenever you look "
          f"[{one['sequence']['low']:+.5f} {one['sequence']['high']:+.5f}]")
    assert planted > 0.02 and one["a"] == "popular" and one["b"] == "personal"
    assert one["fixed"]["low"] < planted < one["fixed"]["high"] and one["sequence"]["low"] < planted < one["sequence"]["high"]
    assert one["lift"]["fixed"]["low"] < lift < one["lift"]["fixed"]["high"]
    assert one["verdict"] == "B better", one["words"]
    assert not made["sample_ratio"]["mismatch"], made["sample_ratio"]
    left_out = made["left_out"]
    assert left_out["assigned"]["forced"] == {"popular": 1, "personal": 1} and set(left_out["assigned"]) == {"forced", "outside"}
    assert sum(left_out["assigned"]["outside"].values()) == USERS
    assert left_out["feedback"]["unknown_requests"] == 0 and left_out["feedback"]["duplicates"] > 0
    arms = made["guardrails"]["arms"]
    assert [arm["errors"] for arm in arms] == [0, 0] and arms[0]["latency_us"]["p99"]["value"] > 0
    orders = [metric["differences"][0]["estimate"] for metric in made["metrics"] if metric["metric"] == "order by unit"]
    assert len(orders) == 1 and orders[0] > 0
    drift = {feature["feature"]: feature for feature in made["drift"]}
    assert drift["taste"]["verdict"] == "stable" and drift["item"]["unseen"] == 0
    assert drift["genre"]["psi"] < drift["item"]["psi"]  # what is shown is chosen: the appealing items
    print("[       OK ] the_report_finds_the_planted_lift")


def check_join(world, users, until):
    print(run("join", "--exposures", "log", "--feedback", "log", "--schema", "shop.yaml", "--until", str(until), "--out", "joined.ctb"))
    rows = sorted((at, user.answer.request_id, candidate, clicked, user) for user in users for at, clicked, candidate in user.rows)
    write("truth.tsv", "".join(world.line(int(clicked), at, user.unit, user.taste, user.items[candidate])
                               for at, _, candidate, clicked, user in rows))
    run("join", "--exposures", "log", "--feedback", "log", "--schema", "shop.yaml", "--until", str(until), "--out", "joined.tsv")
    with open("joined.tsv", encoding="utf-8") as joined, open("truth.tsv", encoding="utf-8") as truth:
        assert joined.read() == truth.read(), "the joined rows are not those that were shown"
    train("from_join", "joined.ctb")
    train("from_truth", "truth.tsv")
    digests = [line for folder in ("from_join", "from_truth") for line in run("verify", folder).splitlines() if line.startswith("digest ")]
    assert digests[0] == digests[1], digests
    text, chances = world.log(20000)
    write("later.tsv", text)
    made = [json.loads(run("eval", "--model", folder, "--data", "later.tsv", "--json", "-"))
            for folder in ("from_join", "from_truth", "popular")]
    labels = numpy.array([float(line[0]) for line in text.splitlines()])
    best = -(labels * numpy.log(chances) + (1 - labels) * numpy.log1p(-numpy.array(chances))).mean()
    print(f"log loss on later rows: from join {made[0]['log_loss']:.5f}, from the truth {made[1]['log_loss']:.5f}, the chances themselves "
          f"{best:.5f}, the arm without taste {made[2]['log_loss']:.5f}; AUC {made[0]['auc']:.4f} and {made[1]['auc']:.4f}")
    assert made[0]["log_loss"] == made[1]["log_loss"] and made[0]["auc"] == made[1]["auc"]
    print("[       OK ] join_and_train_are_as_good_as_the_truth")


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
        os.chdir(work)
        world = World(seed=3)
        write("shop.yaml", SCHEMA)
        write("taste.yaml", EXPERIMENT)
        write("train.tsv", world.log(30000)[0])
        train("popular", "train.tsv", "[item, price]")
        train("personal", "train.tsv")
        users, until = serve_and_visit(world)
        check_report(users, until)
        check_join(world, users, until)


if __name__ == "__main__":
    main()
