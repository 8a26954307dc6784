#!/usr/bin/env bash
# Training that is broken off and taken up again ends with the bits of training that was not: after kill -9 at any moment, over a log that
# has grown, with checkpoints or without. What does not fit is refused, and a full disk leaves the last checkpoint whole.
set -u

program=$PWD/tools/clicktower
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/resume.XXXXXX")
cd "$work" || exit 1
trap 'rm -rf "$work"' EXIT

failures=0
wrong() {
    failures=$((failures + 1))
    echo "  FAILED: $*"
    [ -s err ] && tail -n 2 err
}
model=(--schema criteo --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --batch 256)
train() { "$program" train "${model[@]}" "$@" >out 2>err </dev/null; }
digest() { "$program" verify "$1" 2>>err | sed -n 's/^digest //p'; }
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
train --train first.tsv --out grown --replace || wrong "over an older model"

echo "kill -9 at any moment"
kills=0
for moment in 0.05 0.08 0.12 0.16 0.21 0.27 0.34 0.42 0.51 0.61; do
    rm -rf killed killed.*
    train --train first.tsv second.tsv --checkpoint-rows 1000 --out killed &
    child=$!
    timeout --signal=KILL "$moment" tail --pid=$child -f /dev/null
    # `train` is a shell function: the program is the child's child.
    pkill -KILL -P $child 2>/dev/null && kills=$((kills + 1))
    wait $child 2>/dev/null
    if [ -e killed/manifest ]; then
        "$program" verify killed >/dev/null 2>err || wrong "after kill -9 at $moment s the folder is damaged"
        train --train first.tsv second.tsv --checkpoint-rows 1000 --out killed --resume || wrong "resume after kill -9 at $moment s"
    else
        train --train first.tsv second.tsv --checkpoint-rows 1000 --out killed || wrong "a new run after kill -9 at $moment s"
    fi
    same killed "killed after $moment s"
done
echo "  $kills of 10 runs were killed while they worked"

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
if train --train first.tsv --out whole --resume; then wrong "a shorter log was accepted"; fi
grep -q 'has learned' err || wrong "the last line does not say what was learned"
same whole "after refusals"

echo "a full disk ends in a clear error, and the last checkpoint stays"
train --train first.tsv --out full || wrong "before the disk is full"
before=$(digest full)
(
    ulimit -f 8 # blocks of 1,024 bytes
    trap '' XFSZ
    train --train first.tsv second.tsv --out full --resume
) && wrong "a file larger than the limit was written"
tail -n 1 err | grep -qE 'clicktower train: .*full' || wrong "the last line does not name the file"
[ "$(digest full)" = "$before" ] || wrong "the last checkpoint is gone"
[ -z "$(find . -maxdepth 1 -name 'full.*')" ] || wrong "left behind: $(find . -maxdepth 1 -name 'full.*')"

echo "early stop keeps the best epoch"
"$program" train "${model[@]}" --train first.tsv --eval second.tsv --epochs 6 --early-stop 1 --out early >out 2>err </dev/null || wrong "early stop"
"$program" eval --model early --data second.tsv --json eval.json >/dev/null 2>err || wrong "eval of the early-stopped model"
best=$(sed -n 's/^evaluation .*log_loss \([0-9.]*\) .*/\1/p' out)
python3 - "$best" <<'EOF' || wrong "the folder is not of the epoch that the run reported"
import json, sys
sys.exit(abs(json.load(open("eval.json"))["log_loss"] - float(sys.argv[1])) > 6e-6)
EOF

if [ $failures -gt 0 ]; then
    echo "$failures failed"
    exit 1
fi
echo "all passed"
