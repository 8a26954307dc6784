#!/usr/bin/env bash
# Training that is broken off and taken up again ends with the bits of training that was not: after kill -9 ahead of any change to the file
# system or at any moment, over a log that has grown, with every row optimiser and what stands beside them. What does not fit is refused,
# and a full disk leaves the last checkpoint whole.
. tests/frame.sh
exec 2>/dev/null # what bash says of killed children
kill_at=$root/tests/tools/kill_at.so

model=(--schema criteo --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --batch 256)
train() { "$program" train "${model[@]}" "$@" >out 2>err </dev/null; }
same() { # FOLDER WHAT
    local found
    found=$(digest "$1")
    [ "$found" = "$expected" ] && [ -n "$found" ] || wrong "$2: digest '$found', expected '$expected'"
}

"$program" synth --rows 30000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 13001 log.tsv >first.tsv
tail -n +13002 log.tsv >second.tsv
train --train first.tsv second.tsv --out whole || wrong "the whole run"
expected=$(digest whole)
[ -n "$expected" ] || wrong "no digest of the whole run"

echo "checkpoints change nothing"
train --train first.tsv second.tsv --checkpoint-rows 1000 --out often || wrong "with checkpoints"
same often "with checkpoints"

echo "a log that has grown"
train --train first.tsv --out grown || wrong "the first file"
[ "$(digest grown)" != "$expected" ] || wrong "half of the log gives the digest of the whole"
train --train first.tsv second.tsv --out grown --resume || wrong "resume over both files"
same grown "over the first file, then both"
train --train first.tsv second.tsv --out grown --resume || wrong "resume of what is complete"
same grown "resumed when complete"

echo "what was saved in the middle is another state"
train --train first.tsv --out grown || wrong "over an older model"

echo "kill -9 ahead of any change to the file system"
# The sums of the whole training stand in metrics.json, whoever wrote them.
same_sums() { # FOLDER FOLDER WHAT
    python3 - "$1" "$2" <<'END' || wrong "$3: other progressive metrics"
import json, sys
a, b = (json.load(open(folder + "/metrics.json"))["progressive"] for folder in sys.argv[1:])
for key in a:
    if a[key] != b[key]:
        sys.exit(f"{key}: {a[key]} and {b[key]}")
END
}
killed() { # NUMBER ARGUMENT...: a run that is killed ahead of its change of that number, or not if it has fewer
    local number=$1
    shift
    env LD_PRELOAD="$kill_at" CT_KILL_AT="$number" CT_KILL_COUNT=count ASAN_OPTIONS=verify_asan_link_order=0 "$program" train "$@" \
        >out 2>err </dev/null
}
head -n 6000 log.tsv >short.tsv
kills=0
lives=0 # kills that left a live database, which has rows that were learned after the checkpoint: none of them may be read
offset=3
while read -r settings; do
    [ -n "$settings" ] || continue
    small=(--schema criteo --batch 256 --set embedding.dim=4 --set 'deep=[16]' --train short.tsv --checkpoint-rows 1500)
    for setting in $settings; do
        case $setting in *=*) small+=(--set "$setting") ;; *) small+=(--model "$setting") ;; esac
    done
    rm -rf one many many.*
    killed 0 "${small[@]}" --out one || wrong "$settings: the whole run"
    expected=$(digest one)
    changes=$(cat count)
    [ "$changes" -gt 100 ] || wrong "only $changes changes were counted"
    offset=$((offset + 7))
    for part in 0 1 2 3 4 5; do
        rm -rf many many.*
        place=$((part * changes / 6 + offset % (changes / 6)))
        rm -f count
        killed $place "${small[@]}" --out many
        [ -e count ] && wrong "$settings: the run that was to be killed at change $place of $changes ended"
        kills=$((kills + 1))
        ls many.live-*/CURRENT >live 2>&1 && lives=$((lives + 1))
        if [ -e many/manifest ]; then # and once more, early in what follows
            killed $((offset % 60 + 1)) "${small[@]}" --out many --resume
            "$program" verify many >/dev/null 2>err || wrong "$settings: killed twice, the folder is damaged"
            "$program" train "${small[@]}" --out many --resume >out 2>err </dev/null || wrong "$settings: resume after a kill at $place"
        else
            "$program" train "${small[@]}" --out many >out 2>err </dev/null || wrong "$settings: a new run after a kill at $place"
        fi
        same many "$settings: killed at change $place of $changes"
        same_sums one many "$settings: killed at change $place"
        [ -z "$(find . -maxdepth 1 -name 'many.*')" ] || wrong "left behind: $(find . -maxdepth 1 -name 'many.*')"
    done
done <<<'
dnn embedding.optimizer=adagrad_rowwise embedding.target_stats=true
dnn embedding.optimizer=adam embedding.learning_rate=0.01 schedule.rows=7000 dropout=0.1
deepfm embedding.optimizer=adagrad average.power=3 embedding.admission=filter embedding.filter_mib=1
dcn-v2 embedding.optimizer=sgd embedding.learning_rate=0.001 cross.layers=1 cross.rank=3 embedding.id_drop=0.1
'
echo "  $kills kills, $lives of them left a live database"
[ $lives -ge 12 ] || wrong "a live database was left $lives times only"
[ $kills -eq 24 ] || wrong "not as many as meant"

echo "kill -9 at any moment"
expected=$(digest whole)
kills=0
for moment in 0.07 0.12 0.18 0.25 0.33; do
    rm -rf killed killed.*
    train --train first.tsv second.tsv --checkpoint-rows 1000 --out killed &
    child=$!
    timeout --signal=KILL "$moment" tail --pid=$child -f /dev/null
    # `train` is a shell function: the program is the child's child.
    pkill -KILL -P $child 2>/dev/null && kills=$((kills + 1))
    wait $child 2>/dev/null
    more=
    [ -e killed/manifest ] && more=--resume
    train --train first.tsv second.tsv --checkpoint-rows 1000 --out killed $more || wrong "a run after kill -9 at $moment s"
    same killed "killed after $moment s"
done
echo "  $kills of 5 runs were killed while they worked"

echo "an interrupt leaves what the training goes on from"
# The first time, the source interrupts its reader when most of the log has gone through and some of it is learned.
source='|cat first.tsv; [ -e again ] || { touch again; until [ -e stopped/manifest ]; do sleep 0.02; done; kill -INT $PPID; }; cat second.tsv'
rm -f again
if train --train "$source" --checkpoint-rows 2000 --out stopped; then wrong "an interrupted run ended with 0"; fi
tail -n 1 err | grep -qE 'stopped by SIGINT: stopped holds the model of the first [0-9]+ rows, .*trained on with --resume$' || wrong "the last line does not say what is kept"
train --train "$source" --out stopped --resume || wrong "resume after an interrupt"
same stopped "interrupted and resumed"
same_sums whole stopped "interrupted and resumed"

echo "another schema, model, seed or batch is refused with both values"
refused() { # PATTERN ARGUMENT...
    local pattern=$1
    shift
    if "$program" train "$@" --train first.tsv second.tsv --out whole --resume >out 2>err </dev/null; then wrong "accepted: $*"; fi
    tail -n 1 err | grep -qE -- "$pattern" || wrong "the last line does not say '$pattern'"
}
refused 'seed 1.*asks for 2' "${model[@]}" --seed 2
refused 'batches of 256.*asks for 128' "${model[@]}" --batch 128
refused 'dim: 4.*dim: 8' "${model[@]}" --set embedding.dim=8
refused "'model: dcn-v2'.*'model: dnn'" --schema criteo --model dnn --batch 256
sed 's/^name: .*/name: other/' whole/schema.yaml | sed 's/name: C26,/name: C27,/' >other.yaml
refused 'schema criteo.*asks for other' --schema other.yaml "${model[@]:2}"
refused 'precision: auto.*precision: fp32' "${model[@]}" --precision fp32
refused 'rows: 0.*rows: 9000' "${model[@]}" --schedule-rows 9000
refused 'optimizer: adagrad_rowwise.*optimizer: adam' "${model[@]}" --set embedding.optimizer=adam
refused 'power: 8.*power: 2' "${model[@]}" --set average.power=2
refused '--resume goes on.*--init begins' "${model[@]}" --init often
if train --train first.tsv --out whole --resume; then wrong "a shorter log was accepted"; fi
grep -q 'has learned' err || wrong "the last line does not say what was learned"
if train --train second.tsv first.tsv --out whole --resume; then wrong "the same files in another order were accepted"; fi
grep -qE 'are not those that the model learned \(fingerprint [0-9a-f]{16}, but it learned [0-9a-f]{16}\)' err || wrong "the fingerprints are not said"
sed '257s/\t[^\t]*$/\tother/' first.tsv >changed.tsv
if train --train changed.tsv second.tsv --out whole --resume; then wrong "a log that was changed was accepted"; fi
train --train first.tsv second.tsv --epochs 2 --out two || wrong "two passes"
if train --train first.tsv second.tsv --out two --resume; then wrong "fewer passes than were done were accepted"; fi
grep -q 'in pass 2 over the log already, but this run asks for 1' err || wrong "the passes are not said"
same whole "after refusals"

echo "another instruction set is said"
DNNL_MAX_CPU_ISA=AVX2 train --train first.tsv --precision fp32 --out narrow || wrong "training with AVX2"
train --train first.tsv second.tsv --precision fp32 --out narrow --resume || wrong "resume with what this machine has"
if grep -q '"instruction_set": "avx2"' whole/manifest; then
    echo "  this machine has AVX2 alone: nothing to tell apart"
else
    grep -qE 'warning: the model was trained with avx2, this machine has avx' err || wrong "no word about the instruction set"
fi

echo "a full disk ends in a clear error, and the last checkpoint stays"
train --train first.tsv --out full || wrong "before the disk is full"
before=$(digest full)
for limit in 4 16 40 100 190; do # blocks of 1,024 bytes: the schema, the tower, the tables, the report
    (
        ulimit -f $limit
        train --train first.tsv second.tsv --out full --resume
    ) && wrong "a file larger than $limit KiB was written"
    tail -n 1 err | grep -qE 'clicktower train: .*full.*[Ff]ile too large' || wrong "$limit KiB: the last line does not name the file"
    [ "$(digest full)" = "$before" ] || wrong "$limit KiB: the last checkpoint is gone"
done
[ -z "$(find . -maxdepth 1 -name 'full.*')" ] || wrong "left behind: $(find . -maxdepth 1 -name 'full.*')"

echo "early stop keeps the best epoch"
"$program" train "${model[@]}" --train first.tsv --eval second.tsv --epochs 6 --early-stop 1 --out early >out 2>err </dev/null || wrong "early stop"
"$program" eval --model early --data second.tsv --json eval.json >/dev/null 2>err || wrong "eval of the early-stopped model"
best=$(sed -n 's/^evaluation .*log_loss \([0-9.]*\) .*/\1/p' out)
python3 - "$best" <<'EOF' || wrong "the folder is not of the epoch that the run reported"
import json, sys
sys.exit(abs(json.load(open("eval.json"))["log_loss"] - float(sys.argv[1])) > 6e-6)
EOF

finish
