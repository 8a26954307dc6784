#!/usr/bin/python3
"""clicktower schema: what it guesses of logs whose meaning is known, and that training takes it.

Usage: schema_test.py PROGRAM
"""

import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile

PROGRAM = os.path.abspath(sys.argv[1])
failures = []


def schema(*arguments, code=0, data=None):
    done = subprocess.run([PROGRAM, "schema", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, input=data)
    text, error = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    if done.returncode != code:
        failures.append(f"schema {arguments} ended with {done.returncode}: {error}\n{text}")
    return text if code == 0 else error


def fields(text):
    """[(name, kind, column, the rest)]; names and columns without quotes."""
    found = re.findall(r'^  - \{name: ("(?:[^"\\]|\\.)*"|\w+), kind: (\w+), column: ("(?:[^"\\]|\\.)*"|\d+)(?:, )?(.*?)\}  #', text, re.M)
    plain = lambda text: json.loads(text) if text.startswith('"') else text  # noqa: E731
    return [(plain(name), kind, plain(column), rest) for name, kind, column, rest in found]


def check(what, got, wanted):
    if got != wanted:
        failures.append(f"{what}:\n  got    {got}\n  wanted {wanted}")


def trains(work, log, text):
    """Training takes the schema, and every row."""
    path, model = os.path.join(work, "guess.yaml"), os.path.join(work, "model")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    done = subprocess.run([PROGRAM, "train", "--schema", path, "--model", "lr", "--train", log, "--max-bad-rows", "0", "--out", model],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode or "bad row" in done.stderr:
        failures.append(f"training on {log} with\n{text}\nended with {done.returncode}: {done.stderr}")


def write(work, name, lines, newline="\n"):
    path = os.path.join(work, name)
    with (gzip.open(path, "wb") if name.endswith(".gz") else open(path, "wb")) as file:
        file.write(newline.join(lines + [""]).encode("utf-8"))
    return path


def shop(work):
    draw = random.Random(1)
    lines = ["click,user_id,itemId,price,likes,timestamp,session,zip,note,empty,Zeit \u00fcber \"alles\",day"]
    for row in range(1500):
        likes = "|".join(str(draw.randrange(300)) for _ in range(row % 4))
        lines.append(",".join([str(int(draw.random() < 0.3)), f"u{draw.randrange(90)}", str(draw.randrange(10**6)), f"{draw.random() * 30:.2f}",
                               likes, str(1700000000000 + row * 1000), f"s{row // 5}", f"{draw.randrange(10000):05d}", "same", "",
                               str(draw.randrange(9000)), f"2024-{row % 12 + 1:02d}-07 10:00:00"]))
    log = write(work, "shop.csv.gz", lines, "\r\n")
    text = schema("--name", "my shop", log)
    check("a table with a header", fields(text), [
        ("click", "label", "click", ""), ("user_id", "id", "user_id", "side: context"), ("unit", "unit", "user_id", ""),
        ("itemId", "id", "itemId", "type: integer"), ("price", "number", "price", ""), ("likes", "id", "likes", 'separator: "|"'),
        ("timestamp", "time", "timestamp", "time_unit: milliseconds"), ("session", "id", "session", "side: context"),
        ("group", "group", "session", ""), ("zip", "id", "zip", ""), ('Zeit \u00fcber "alles"', "number", 'Zeit \u00fcber "alles"', "")])
    check("its format", re.search(r"^format: (.*)$", text, re.M).group(1), '{separator: ",", header: true, columns: 12}')
    check("its name", re.search(r"^name: (.*)$", text, re.M).group(1), '"my shop"')
    check("what is left out", re.findall(r"# column (.*) is left out: (.*)$", text, re.M),
          [('"note"', "always the same"), ('"empty"', "always missing"),
           ('"day"', "a date; a time is read as seconds or milliseconds since 1970")])
    trains(work, log, text)
    check("the same from standard input", schema("--name", "my shop", "-", data=gzip.open(log).read()), text)


def ratings(work):
    """As MovieLens has it: user, item, rating, time; no header."""
    draw = random.Random(2)
    rows = sorted((978300000 + draw.randrange(10**7), draw.randrange(1, 500), draw.randrange(1, 900), draw.randrange(1, 6)) for _ in range(2000))
    log = write(work, "ratings.tsv", [f"{user}\t{item}\t{rating}\t{when}" for when, user, item, rating in rows])
    text = schema(log)
    check("a table without names", fields(text), [("number1", "number", "1", ""), ("number2", "number", "2", ""),
                                                  ("number3", "number", "3", ""), ("time4", "time", "4", "")])
    assert "# no label was found" in text and "an id where they are codes; 5 different, 1 to 5" in text, text
    log = write(work, "ratings.csv", ["userId;movieId;rating;timestamp"] + [f"{user};{item};{rating};{when}" for when, user, item, rating in rows])
    text = schema(log)
    check("with names", fields(text), [
        ("userId", "id", "userId", "side: context, type: integer"), ("unit", "unit", "userId", ""), ("movieId", "id", "movieId", "type: integer"),
        ("rating", "label", "rating", "at_least: 4"), ("timestamp", "time", "timestamp", "")])
    trains(work, log, text)


def criteo(work):
    log = os.path.join(work, "criteo.tsv")
    subprocess.run([PROGRAM, "synth", "--rows", "3000", "--out", log], stdout=subprocess.DEVNULL, check=True)
    text = schema(log)
    check("Criteo's columns", [kind for _, kind, _, _ in fields(text)], ["label"] + ["number"] * 13 + ["id"] * 26)
    assert "--schema criteo" in text, text
    trains(work, log, text)
    assert "Guessed from 50 rows" in schema("--rows", "50", log) or "Guessed from 51 rows" in schema("--rows", "50", log)


def quotes(work):
    """Quotes are no syntax in a log: whoever has quoted CSV is told so, and how many lines would be bad rows."""
    rows = [f'{n % 2},u{n % 9},' + ('"Heat, 1995"' if n % 50 == 7 else f"film{n}") for n in range(200)]
    text = schema(write(work, "films.csv", ["clicked,user,title"] + rows))
    assert "Guessed from 196 rows" in text and "# 4 of 201 lines do not have 3 columns" in text, text
    assert "# 4 lines have a value that begins with a quote" in text, text
    text = schema(write(work, "plain.csv", ["clicked,user,title"] + [row.replace('"Heat, 1995"', 'the "Heat"') for row in rows]))
    assert "Guessed from 200 rows" in text and "quote" not in text and "do not have" not in text, text
    assert "quotes do not hold" in schema(write(work, "all.csv", [f'"{n}","a{", b" * (n % 3)}"' for n in range(30)]), code=1)


def refusals(work):
    for name, content, word in (("empty", b"", "no rows"), ("blank", b"\n\n", "no rows"), ("one", b"a\nb\nc\n", "no separator"),
                                ("uneven", b"".join(b"a," * (n % 7) + b"b\n" for n in range(100)), "no separator"),
                                ("same", b"1\t2\n" * 9, "two different values"),
                                ("nul", b"1\t2\n1\0\t3\n", ":2:")):
        path = os.path.join(work, name)
        with open(path, "wb") as file:
            file.write(content)
        error = schema(path, code=1)
        if word not in error or name not in error:
            failures.append(f"{name}: {error}")
    assert "none.tsv" in schema(os.path.join(work, "none.tsv"), code=1)
    assert "SOURCE" in schema(code=2)
    draw = random.Random(3)
    for number in range(60):  # anything at all gives a schema or a refusal
        alphabet = bytes(draw.choice(b"01.-eE\t,;| \n\"\\{}:#a\xc3\xff\r") for _ in range(draw.randrange(1, 12)))
        junk = bytes(draw.choice(alphabet) for _ in range(draw.randrange(400))).replace(b"\0", b"")
        done = subprocess.run([PROGRAM, "schema", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, input=junk)
        if done.returncode not in (0, 1) or (done.returncode == 1 and b"the guess" in done.stderr):
            failures.append(f"{junk!r} ended with {done.returncode}: {done.stderr!r}")


with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    for case in (shop, ratings, criteo, quotes, refusals):
        case(work)
for failure in failures:
    print(failure)
sys.exit(1 if failures else 0)
