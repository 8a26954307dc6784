"""A log of users, items and times, and beside it the same log with each row's history written out, worked out here in plain Python: what the
user clicked at a strictly earlier time, the last 6, also over train, valid and test one behind the other.

Usage: history_log.py FOLDER    writes {train,valid,test}.tsv, the same as written_*.tsv, v.npy, derived.yaml and written.yaml
"""

import math
import random
import struct
import sys

ROWS, USERS, ITEMS, VECTORS, DIM, MOST = {"train": 4000, "valid": 600, "test": 600}, 60, 80, 70, 6, 6

COMMON = """  - {name: click, kind: label, column: 1}
  - {name: user, kind: id, column: 2, side: context}
  - {name: who, kind: unit, column: 2}
  - {name: item, kind: id, column: 3, type: integer}
  - {name: when, kind: time, column: 4}
"""
DERIVED = """name: derived
format: {columns: 4}
fields:
""" + COMMON + """  - {name: liked, kind: history, of: item, clicked: true, max: 6}
  - {name: likes, kind: number, of: liked}
  - {name: text, kind: vector, of: item, file: v.npy}
  - {name: close, kind: similarity, of: liked, vector: text, tiers: 5}
"""
WRITTEN = """name: written
format: {columns: 6}
fields:
""" + COMMON + """  - {name: liked, kind: id, column: 5, side: context, type: integer, separator: ",", max: 6, shares: item}
  - {name: likes, kind: number, column: 6, side: context}
"""


def write(path, text, mode="w"):
    with open(path, mode) as file:
        file.write(text)


def main(folder):
    draw = random.Random(11)
    vectors = [[draw.uniform(-1, 1) for _ in range(DIM)] for _ in range(VECTORS)]
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (VECTORS, DIM)
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    write(folder + "/v.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() +
          struct.pack("<%df" % (VECTORS * DIM), *[x for v in vectors for x in v]), "wb")
    write(folder + "/derived.yaml", DERIVED)
    write(folder + "/written.yaml", WRITTEN)
    time, before = 1000, {}
    for part, rows in ROWS.items():
        plain, written = [], []
        for _ in range(rows):
            time += draw.random() < 0.3
            user, item = draw.randrange(USERS), 1 + draw.randrange(ITEMS)  # vectors' ids are 1..N
            near = sum(a * b for a, b in zip(vectors[user % VECTORS], vectors[(item - 1) % VECTORS]))
            click = draw.random() < 1 / (1 + math.exp(-2 * near))
            history = [i for i, t in before.get(user, []) if t < time][-MOST:]
            plain.append("%d\tu%d\t%d\t%d\n" % (click, user, item, time))
            written.append(plain[-1][:-1] + "\t%s\t%d\n" % (",".join(map(str, history)), len(history)))
            if click:
                before.setdefault(user, []).append((item, time))
        write("%s/%s.tsv" % (folder, part), "".join(plain))
        write("%s/written_%s.tsv" % (folder, part), "".join(written))


if __name__ == "__main__":
    main(sys.argv[1])
