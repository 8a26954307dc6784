#!/usr/bin/env bash
# Features that follow from histories, from one end to the other: training gives the same digest from any form of the log, with any number
# of threads and when it goes on; eval --live and compare give what the same log gives in which each history is written out; a server answers
# from the model's table what eval prints.
. tests/frame.sh

log=$root/tests/tools/history_log.py
run() { "$program" "$@" >out 2>err </dev/null; }
refused() { # WORD, then the command
    local word=$1
    shift
    run "$@" && wrong "$* is not refused"
    grep -qi -- "$word" err || wrong "$*: '$word' is not said"
}

/usr/bin/python3 "$log" . || wrong "the log"
model=(--model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --set embedding.min_count=1 --set embedding.id_drop=0.1
    --set 'vector.adapter=[6,4]' --batch 256)
train() { run train --schema derived.yaml "${model[@]}" "$@"; }

echo "one digest from any form of the log, with any number of threads"
train --train train.tsv --epochs 2 --threads 1 --out model || wrong "training"
expected=$(digest model)
[ -n "$expected" ] || wrong "no digest"
gzip -k train.tsv
run convert --schema derived.yaml --in train.tsv --out train.ctb || wrong "convert"
for source in train.tsv train.tsv.gz train.ctb '|cat train.tsv'; do
    train --train "$source" --epochs 2 --threads 3 --out other || wrong "training on $source"
    [ "$(digest other)" = "$expected" ] || wrong "$source: another digest"
done

echo "a run that goes on"
head -n 2100 train.tsv >first.tsv
tail -n +2101 train.tsv >second.tsv
train --train first.tsv --epochs 1 --out grown || wrong "the first part"
train --train first.tsv second.tsv --epochs 2 --checkpoint-rows 700 --resume --out grown || wrong "resume"
[ "$(digest grown)" = "$expected" ] || wrong "resumed over a longer log: another digest"

echo "histories that were written out give the same"
plain=(--set 'numbers.buckets=false')
printf 'model: dcn-v2\nexclude: [text, close]\n' >exclude.yaml
run train --schema derived.yaml --model exclude.yaml "${model[@]:2}" "${plain[@]}" --train train.tsv --threads 2 --out a || wrong "derived"
run train --schema written.yaml "${model[@]}" "${plain[@]}" --train written_train.tsv --threads 2 --out b || wrong "written"
run eval --model a --data valid.tsv --live --predictions a.txt || wrong "eval --live"
run eval --model b --data written_valid.tsv --predictions b.txt || wrong "eval"
cmp a.txt b.txt || wrong "eval --live is not what written histories give"
run eval --model a --data valid.tsv --predictions standing.txt || wrong "eval"
cmp -s a.txt standing.txt && wrong "histories that stand are those that go on"
cat >arms.yaml <<'END'
model: dcn-v2
set: ["deep=[16]", "embedding.dim=4", "cross.layers=1", "embedding.min_count=1", "numbers.buckets=false"]
item: item
arms:
  - {name: ids, features: [user, item]}
  - {name: count, features: [user, item, likes]}
  - {name: pooled, features: [user, item, liked, likes]}
END
compare() { # SCHEMA PREFIX OUT
    run compare --schema "$1.yaml" --arms arms.yaml --train "$2train.tsv" --valid "$2valid.tsv" --test "$2test.tsv" --seeds 2 --epochs 3 \
        --draws 200 --out "$3" || wrong "compare of $1"
}
compare derived "" report_a
compare written written_ report_b
/usr/bin/python3 - <<'END' || wrong "compare is not what written histories give"
import json
a, b = (json.load(open("report_%s/compare.json" % which)) for which in "ab")
for x, y in zip(a["arms"], b["arms"]):
    assert x["test"] == y["test"] and x["valid"] == y["valid"] and x["best_epochs"] == y["best_epochs"], (x, y)
assert a["comparisons"] == b["comparisons"]
assert a["arms"][0]["test"] != a["arms"][1]["test"] != a["arms"][2]["test"]
END

echo "a server answers from the model's table"
start_server() {
    mkfifo ready
    "$program" serve --listen 127.0.0.1:0 --queue-ms 600000 "$@" >ready 2>serve.err </dev/null &
    child=$!
    children+=("$child")
    local line=
    read -r line <ready
    rm -f ready
    address=${line#listening on }
}
run eval --model model --data test.tsv --predictions expected.txt || wrong "eval"
start_server --model model --threads 2
for shape in "--rows-per-request 1" "--rows-per-request 50" "--rows-per-request 50 --context"; do
    # shellcheck disable=SC2086
    run score --to "$address" --data test.tsv --schema derived.yaml $shape || wrong "score $shape"
    cmp out expected.txt || wrong "score $shape is not what eval prints"
done
kill "$child"
wait "$child"

echo "what makes no sense is refused"
refused "histories" train --schema derived.yaml "${model[@]}" --train train.tsv --shuffle-rows 1000 --out never
run inspect derived.yaml || wrong "inspect"
grep -q '"similarity"' out || grep -q similarity out || wrong "inspect does not show the similarity"
sort -R --random-source=v.npy train.tsv >disorder.tsv
train --train disorder.tsv --out disorder || wrong "training out of order"
grep -q "earlier than what the history" err || wrong "nothing is said of rows out of order"
finish
