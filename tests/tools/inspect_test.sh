#!/usr/bin/env bash
# What `inspect` says of a model's tables, against an independent count of the log; what it says of tokens, against the log and against what
# it says of the table.
. tests/frame.sh

awk 'BEGIN {
    srand(5)
    for (r = 0; r < 4000; r++) print int(rand() * 1.3) "\t" int(rand() ^ 3 * 900) "\t" "t" int(rand() ^ 4 * 2000) "\t" int(rand() * 40)
}' >log.tsv
cat >shop.yaml <<'END'
name: shop
format: {separator: "\t", columns: 4}
fields:
  - {name: label, kind: label, column: 1}
  - {name: item, kind: id, column: 2, type: integer}
  - {name: tag, kind: id, column: 3}
  - {name: price, kind: number, column: 4}
END
for with in "" "--memory 40" "--set embedding.admission=filter --set embedding.filter_mib=1" "--set embedding.precision=fp16" "--set embedding.optimizer=sgd --set embedding.target_stats=true"; do
    # shellcheck disable=SC2086 # the words of $with
    "$program" train --schema shop.yaml --model dnn --set 'deep=[8]' --set embedding.min_count=3 --set embedding.id_drop=0 --batch 64 \
        --train log.tsv --out model $with >out 2>err </dev/null || wrong "train $with"
    "$program" inspect model --json >model.json 2>err || wrong "inspect"
    "$program" inspect model >model.txt 2>err || wrong "inspect as text"
    "$program" inspect model --tokens item=0 item=007 tag=t1 tag=never price=5 price= --json >tokens.json 2>err || wrong "inspect --tokens"
    # shellcheck disable=SC2046 # words
    "$program" inspect model --tokens $(cut -f 2 log.tsv | sort -u | sed 's/^/item=/') $(cut -f 3 log.tsv | sort -u | sed 's/^/tag=/') \
        $(cut -f 4 log.tsv | sort -u | sed 's/^/price=/') --json >all.json 2>err || wrong "inspect of all tokens"
    "$program" inspect model --tokens tag=t1 >tokens.txt 2>err || wrong "inspect --tokens as text"
    python3 - "$with" <<'END' || wrong "what is said of a model, $with"
import json, math, sys
BATCH, LEAST = 64, 3
rows = [line.rstrip("\n").split("\t") for line in open("log.tsv")]
bucket = lambda v: 1000 + int(math.log(v) ** 2) if v > 2 else v
count, admitted, trained, rare = {}, set(), set(), {}
for first in range(0, len(rows), BATCH):
    keys = [key for row in rows[first:first + BATCH] for key in (("item", row[1]), ("tag", row[2]), ("price", bucket(int(row[3]))))]
    before = {key: count.get(key, 0) for key in keys}
    for key in keys:
        count[key] = count.get(key, 0) + 1
        if before[key] >= LEAST:
            admitted.add(key)
        if key not in admitted:
            rare[key[0]] = rare.get(key[0], 0) + 1
model, tokens = json.load(open("model.json")), json.load(open("tokens.json"))["tokens"]
table = model["tables"][0]
def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got}, should be {wanted}")
check("rows", table["rows"], len(admitted) + len(rare))
filtered = "filter" in sys.argv[1] # what waits is in no row: its place is the filter's, where so few keys do not meet
waits = "unknown" if filtered else "stub"
check("stubs", table["stubs"], 0 if filtered else len(count) - len(admitted))
if filtered:
    check("bytes of the filter", table["filter_bytes"], 1 << 20)
    assert 0 < table["filter_fill"] < 0.01 and 0 <= table["filter_error"] < 1e-4, table
else:
    assert "filter_bytes" not in table
check("dead rows", table["dead_rows"], 0)
used = {}
for key, seen in count.items():
    one = used.setdefault(seen.bit_length(), [0, 0])
    one[key not in admitted] += 1 if key in admitted or not filtered else 0
for seen in rare.values():
    used.setdefault(seen.bit_length(), [0, 0])[0] += 1
check("use counts", [[(u["seen_from"]).bit_length(), u["rows"], u["stubs"]] for u in model["use_counts"]],
      [[bits, *used[bits]] for bits in sorted(used) if any(used[bits])])
check("rows by norm", sum(n["rows"] for n in model["norms"]), table["rows"])
check("bytes", sum(table["level_bytes"]), table["bytes"])
assert table["bytes"] > 0 and table["shards"] <= 1024 and table["shard_rows"][0] <= table["shard_rows"][1] <= table["shard_rows"][2]
state = 1 if "sgd" not in sys.argv[1] else 0  # row-wise Adagrad's sum
assert table["memory_bytes"] >= table["rows"] * ((8 if "fp16" in sys.argv[1] else 16) + state) * 4
there = {}  # shards of all that has a row or a stub; buckets come by several prices, and rare rows' keys are not known here
for token in json.load(open("all.json"))["tokens"]:
    if token["state"] in ("row", "stub"):
        there[token["key"]] = token["shard"]
check("rows and stubs by token", len(there), table["rows"] + table["stubs"] - len(rare))
assert len(set(there.values())) <= table["shards"] <= len(set(there.values())) + len(rare)
most = max(list(there.values()).count(shard) for shard in set(there.values()))
assert most <= table["shard_rows"][2] <= most + len(rare)
assert 0 < table["norm_mean"] <= table["norm_most"]
check("precision", table.get("precision"), "fp16" if "fp16" in sys.argv[1] else None)
wanted = [("item", "0"), ("item", "7"), ("tag", "t1"), ("tag", "never"), ("price", bucket(5)), ("price", None)]
for got, key in zip(tokens, wanted):
    check(f"state of {key}", got["state"], "row" if key in admitted else waits if key in count else "unknown")
    check(f"count of {key}", got.get("count"), count.get(key) if key in admitted or not filtered else None)
    check(f"shard of {key}", got["shard"], int(got["key"], 16) >> 54)
    if key in admitted:
        assert len(got["values"]) == 16
        assert math.isclose(got["norm"], math.sqrt(sum(v * v for v in got["values"])), rel_tol=1e-6)
        assert got["norm"] <= table["norm_most"] * (1 + 1e-9)
    if "target_stats" in sys.argv[1] and key[1] == "t1":
        of = [row for row in rows if row[2] == "t1"]
        check("impressions and clicks", (got["impressions"], got["clicks"]), (len(of), sum(row[0] == "1" for row in of)))
END
    grep -qE '^  name +kind .* dead_rows ' model.txt || wrong "no table of tables: $(head -n 40 model.txt)"
    grep -qE '^  ids +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ *$' model.txt || wrong "no use counts"
    grep -qE '^  tag +t1 +[0-9a-f]{16} ' tokens.txt || wrong "no token: $(cat tokens.txt)"
done

# `verify` reads every row: a folder with another model's rows, whose manifest has the right checksums of all files, is refused. XXH3 is
# libxxhash's.
"$program" train --schema shop.yaml --model dnn --set 'deep=[8]' --batch 64 --train log.tsv --out one >out 2>err </dev/null || wrong "train"
"$program" train --schema shop.yaml --model dnn --set 'deep=[8]' --batch 64 --train log.tsv --seed 2 --out two >out 2>err </dev/null || wrong "train"
cp -r one mixed
rm -r mixed/tables
cp -r two/tables mixed/tables
python3 - <<'END' || wrong "a folder with another one's rows"
import ctypes, json, os
class Hash(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]
xxh3 = ctypes.CDLL("libxxhash.so.0").XXH3_128bits
xxh3.restype, xxh3.argtypes = Hash, [ctypes.c_char_p, ctypes.c_size_t]
def digest(data):
    found = xxh3(data, len(data))
    return "%016x%016x" % (found.high, found.low)
text = open("mixed/manifest").read()
body, last = text[:text.rindex("\nchecksum ")], text[text.rindex("\nchecksum "):]
assert last == "\nchecksum %s\n" % digest(body.encode()), last
manifest = json.loads(body)
assert manifest["files"][0]["xxh3_128"] == digest(open("mixed/" + manifest["files"][0]["name"], "rb").read())
files = [f for f in manifest["files"] if not f["name"].startswith("tables/")]
for name in os.listdir("mixed/tables"):
    data = open("mixed/tables/" + name, "rb").read()
    files.append({"name": "tables/" + name, "bytes": len(data), "xxh3_128": digest(data)})
manifest["files"] = files
body = json.dumps(manifest, indent=2)
open("mixed/manifest", "w").write("%s\nchecksum %s\n" % (body, digest(body.encode())))
END
"$program" verify one >out 2>err || wrong "verify"
"$program" verify mixed >out 2>err && wrong "verify has not read the rows"
tail -n 1 err | grep -qE "mixed: the content's digest is [0-9a-f]{32}, where the manifest says [0-9a-f]{32}" || wrong "$(tail -n 1 err)"

# A learning rate of 0 leaves every row as it began, but for rare ones, which begin at zero.
"$program" train --schema shop.yaml --model dnn --set 'deep=[8]' --set embedding.learning_rate=0 --train log.tsv --out still >out 2>err \
    </dev/null || wrong "train with a rate of 0"
"$program" inspect still --json | python3 -c 'import json, sys; t = json.load(sys.stdin)["tables"][0]; sys.exit(t["dead_rows"] != t["rows"])' ||
    wrong "rows that nothing has changed are not dead"

refused() { # CODE PATTERN ARGUMENT...
    local expected=$1 pattern=$2
    shift 2
    "$program" inspect "$@" >out 2>err
    [ $? -eq "$expected" ] || wrong "inspect $* did not end with $expected"
    grep -qE -- "$pattern" err || wrong "inspect $*: no '$pattern' in $(tail -n 1 err)"
}
refused 1 "'nothing' is no id of this model" model --tokens nothing=5
refused 1 'item.*five' model --tokens item=five
refused 2 "'item' is not FEATURE=TOKEN" model --tokens item
refused 2 'shop.yaml is no model folder' shop.yaml --tokens item=5

finish
