#!/usr/bin/env bash
# Training with a shuffle window: another model than in the log's order, the same bits for any number of threads, through a kill and over a
# log that has grown; refused with target statistics.
. tests/frame.sh

model=(--schema criteo --model dnn --set 'deep=[16]' --set embedding.dim=4 --batch 256 --epochs 2)
train() { "$program" train "${model[@]}" "$@" >out 2>err </dev/null; }
same() { # FOLDER WHAT
    local found
    found=$(digest "$1")
    [ "$found" = "$expected" ] && [ -n "$found" ] || wrong "$2: digest '$found', expected '$expected'"
}

"$program" synth --rows 12000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 7000 log.tsv >first.tsv
tail -n +7001 log.tsv >second.tsv
train --train log.tsv --shuffle-rows 3000 --threads 1 --out whole || wrong "the whole run"
expected=$(digest whole)
[ -n "$expected" ] || wrong "no digest of the whole run"

echo "[ RUN      ] order"
train --train log.tsv --out straight || wrong "in the log's order"
[ "$(digest straight)" != "$expected" ] || wrong "a shuffle window changes nothing"
train --train log.tsv --shuffle-rows 5000 --out other || wrong "another window"
[ "$(digest other)" != "$expected" ] || wrong "another window gives the same model"
for threads in 2 3; do
    train --train log.tsv --shuffle-rows 3000 --threads $threads --out "again$threads" || wrong "$threads threads"
    same "again$threads" "$threads threads"
done
train --train first.tsv second.tsv --shuffle-rows 2900 --checkpoint-rows 2000 --out often || wrong "with checkpoints, from two files"
same often "with checkpoints, from two files; 2,900 and 3,000 rows are both twelve batches"

echo "[ RUN      ] kill"
kills=0
for moment in 0.1 0.3 0.6; do
    rm -rf killed killed.*
    train --train log.tsv --shuffle-rows 3000 --checkpoint-rows 2000 --out killed &
    child=$!
    timeout --signal=KILL "$moment" tail --pid=$child -f /dev/null
    pkill -KILL -P $child 2>/dev/null && kills=$((kills + 1)) # `train` is a shell function: the program is the child's child
    wait $child 2>/dev/null
    [ -e killed/manifest ] || continue
    train --train log.tsv --shuffle-rows 3000 --checkpoint-rows 2000 --out killed --resume || wrong "resume after kill -9 at $moment s"
    same killed "kill -9 at $moment s, then resume"
done
echo "$kills of 3 were killed in time"

echo "[ RUN      ] a log that has grown"
model=("${model[@]:0:${#model[@]}-2}") # one epoch
train --train log.tsv --shuffle-rows 3000 --out once || wrong "one epoch"
expected=$(digest once)
train --train first.tsv --shuffle-rows 3000 --out grown || wrong "the first file"
train --train first.tsv second.tsv --shuffle-rows 3000 --out grown --resume || wrong "resume over both files"
same grown "over the first file, then both"

echo "[ RUN      ] refused"
train --train log.tsv --shuffle-rows 3000 --set embedding.target_stats=true --out never && wrong "target statistics are not refused"
grep -q "target statistics are those of the log's order" err || wrong "no reason for refusing target statistics"
[ ! -e never ] || wrong "a refused run has written a folder"

finish
