#!/usr/bin/env bash
# Rows that expire, and rows of halves: the same model and the same counts whatever the limit on memory, the threads, and whether the run was
# broken off; what an independent count of the log says; and a log without times is refused.
. tests/frame.sh

train() { # CODE ARGUMENT...
    local expected=$1
    shift
    "$program" train --model dnn --set 'deep=[8]' --batch 64 "$@" >out 2>err </dev/null
    local code=$?
    [ $code -eq "$expected" ] || wrong "train $* ended with $code, expected $expected"
}
same() { [ -n "$1" ] && [ "$1" = "$2" ] || wrong "$3: $1, should be $2"; }

fields=20
{
    echo 'name: timed'
    echo 'format: {separator: "\t", columns: 22}'
    echo 'fields:'
    echo '  - {name: label, kind: label, column: 1}'
    echo '  - {name: when, kind: time, column: 2}'
    for ((i = 1; i <= fields; i++)); do echo "  - {name: C$i, kind: id, column: $((i + 2))}"; done
} >timed.yaml
grep -v 'kind: time' timed.yaml >timeless.yaml
# 300 rows a day over 24 days; of the tokens some are seen every day, most of them seldom; one time in a hundred is nonsense
awk -v fields=$fields 'BEGIN {
    srand(5)
    for (r = 0; r < 7200; r++) {
        time = 1700000000 + int(r * 86400 / 300)
        if (r % 100 == 50) time = r % 200 == 50 ? 17 : "4000000000"
        line = int(rand() * 1.3) "\t" time
        for (i = 0; i < fields; i++) line = line "\t" sprintf("%x", int(rand() ^ 3 * 3000))
        print line
    }
}' >log.tsv
tail -n 900 log.tsv >eval.tsv

echo "the counts are those of the log"
train 0 --schema timed.yaml --set embedding.expire_days=3 --set embedding.id_drop=0 --set embedding.dim=2 --train log.tsv --out model
python3 - <<'END' || wrong "the counts"
import json, sys
LEAST, EXPIRE, BATCH = 2, 3, 64
rows = [line.rstrip("\n").split("\t") for line in open("log.tsv")]
count, last, admitted, expired, today = {}, {}, set(), 0, 0
rare = set()
for first in range(0, len(rows), BATCH):
    batch = rows[first:first + BATCH]
    times = sorted(int(row[1]) for row in batch)
    today = max(today, times[len(batch) // 2] // 86400)
    for key in [key for key in last if today - last[key] > EXPIRE]:
        expired += key in admitted
        admitted.discard(key)
        del count[key], last[key]
    keys = [(c, token) for row in batch for c, token in enumerate(row[2:])]
    before = {key: count.get(key, 0) for key in keys}
    for key in keys:
        count[key] = count.get(key, 0) + 1
        last[key] = today
        if before[key] >= LEAST:
            admitted.add(key)
        if key not in admitted:
            rare.add(key[0])
metrics = json.load(open("model/metrics.json"))
wanted = {"admitted": len(admitted) + len(rare), "waiting": len(count) - len(admitted), "expired": expired}
print("  ", wanted)
assert expired > 1000 and wanted["waiting"] > 1000, "nothing to see"
if metrics["keys"] != wanted:
    sys.exit(f"metrics.json says {metrics['keys']}")
table = metrics["model"]["tables"][0]
if (table["rows"], table["stubs"], table["expired"]) != (wanted["admitted"], wanted["waiting"], wanted["expired"]):
    sys.exit(f"the table says {table}")
END
has out "^keys         admitted [0-9]+  waiting [0-9]+  expired [1-9][0-9]*$"
has model/model.yaml "expire_days: 3"
has model/train.html "<th scope=\"col\" class=\"number\">expired</th>"

echo "the same bits by row optimiser and precision, limit on memory and threads, and from where a run was broken off"
for kind in adagrad_rowwise,fp16 adagrad,fp32 adam,fp16 sgd,fp32; do
    optimiser=${kind%,*}
    with=(--schema timed.yaml --set "embedding.optimizer=$optimiser" --set "embedding.precision=${kind#*,}" --set embedding.dim=32 --set embedding.expire_days=3
        --set embedding.target_stats=true)
    train 0 "${with[@]}" --train log.tsv --eval eval.tsv --out free
    wanted=$(digest free)
    keys=$(grep '^keys' out)
    "$program" eval --model free --data eval.tsv --predictions wanted.txt >/dev/null 2>err || wrong "eval"
    for threads in 1 2 8; do
        train 0 "${with[@]}" --train log.tsv --eval eval.tsv --out held --memory 38 --threads $threads
        same "$(digest held)" "$wanted" "$optimiser, $threads threads"
        same "$(grep '^keys' out)" "$keys" "$optimiser, $threads threads"
    done
    for folder in free held; do
        "$program" eval --model $folder --data eval.tsv --predictions got.txt --memory 9 >/dev/null 2>err || wrong "eval --memory"
        cmp -s got.txt wanted.txt || wrong "eval --memory of $folder: other predictions"
    done
    # Two thirds, then all of it, once with and once without a limit first.
    for first in 0 38; do
        head -n 4800 log.tsv >part.tsv
        train 0 "${with[@]}" --train part.tsv --out two --memory $first
        train 0 "${with[@]}" --train log.tsv --out two --memory $((38 - first)) --resume
        same "$(digest two)" "$wanted" "$optimiser, resumed with $((38 - first)) MiB"
        same "$(grep '^keys' out)" "$keys" "$optimiser, resumed with $((38 - first)) MiB"
    done
done

echo "a model whose rows don't expire is another one; no time, no expiry"
train 0 "${with[@]}" --set embedding.expire_days=0 --train log.tsv --out never
[ "$(digest never)" != "$wanted" ] || wrong "expire_days changes nothing"
has out "^keys .* expired 0$"
train 1 --schema timeless.yaml --set embedding.expire_days=3 --train log.tsv --out none
has err "embedding.expire_days is 3, but schema timed has no time: it takes a field of kind time$"

finish
