#!/usr/bin/env bash
# serve --answer-early: a server that answers with rows read from the folder while the models are still checked and read into memory. Its
# scores are those of eval before and after; what is damaged is never read in silence, and ends the server once it is found; it can be
# stopped and told to read again meanwhile.
. tests/frame.sh
. "$root/tests/tools/server.sh"
exec 2>/dev/null # what bash says of killed children
/usr/bin/python3 -c 'import xxhash' || { echo "SKIP: manifests are written anew with Debian's python3-xxhash"; exit 0; }

model=(--model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --batch 256)
"$program" synth --rows 4000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 300 log.tsv >asked.tsv
"$program" train --schema criteo "${model[@]}" --set embedding.target_stats=true --train log.tsv --out plain >out 2>err || wrong "train"
/usr/bin/python3 "$root/tests/tools/history_log.py" . || wrong "the log"
"$program" train --schema derived.yaml "${model[@]}" --train train.tsv --out units >out 2>err || wrong "train"
wanted() { # FOLDER DATA: predictions in FOLDER.txt
    "$program" eval --model "$1" --data "$2" --predictions "$1.txt" >/dev/null 2>err || wrong "eval --model $1"
}
wanted plain asked.tsv
wanted units test.tsv

# Whoever reads all bytes of all files of the folder waits at the first one, a pipe, until it is opened for writing and closed (let_go).
hold() { # FOLDER
    mkfifo "$1/tables/held.sst"
    /usr/bin/python3 - "$1/manifest" <<'END' || wrong "the manifest of $1"
import json, sys, xxhash
text = open(sys.argv[1]).read()
manifest = json.loads(text[:text.rindex("\nchecksum ")])
manifest["files"].insert(0, {"name": "tables/held.sst", "bytes": 0, "xxh3_128": xxhash.xxh3_128_hexdigest(b"")})
text = json.dumps(manifest)
open(sys.argv[1], "w").write(text + "\nchecksum " + xxhash.xxh3_128_hexdigest(text) + "\n")
END
}
let_go() { # FOLDER
    waiting="somebody to read all files of $1; the log ends with: $(tail -n 3 log)"
    : >"$1/tables/held.sst"
    waiting=
}
held_copy() { # FOLDER COPY
    rm -rf "$2"
    cp -r "$1" "$2"
    hold "$2"
}
flip() { # FILE OFFSET: one bit of that byte
    /usr/bin/python3 -c '
import sys
file = open(sys.argv[1], "r+b")
file.seek(int(sys.argv[2]))
byte = file.read(1)[0]
file.seek(int(sys.argv[2]))
file.write(bytes([byte ^ 1]))' "$1" "$2"
}
sorted_file() { find "$1/tables" -name '0*.sst' -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2; } # the largest

serve_early() { serve "$@" --answer-early; }
ends() { # CODE
    local code
    wait $server
    code=$?
    [ $code -eq "$1" ] || wrong "the server ended with $code: $(tail -n 2 log)"
}
refused() { # waits until the log says what came of the load
    waiting="an end of the load"
    until grep -qE 'event=serve.load result=(done|refused)' log; do read -rt 0.05 <> <(:); done
    waiting=
    grep -q 'event=serve.load result=refused' log || { wrong "it was not refused: $(tail -n 2 log)"; return 1; }
}
get() { /usr/bin/python3 - "$admin$1" <<'END'
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")
except urllib.error.HTTPError as error:
    print(error.code)
END
}
is_metric() { get metrics | grep -qxF -- "$1 $2" || wrong "$3: $1 is not $2"; }
answers() { # SCHEMA DATA WANTED WHAT
    "$program" score --to "$address" --schema "$1" --data "$2" --rows-per-request 50 >got.txt 2>err || wrong "$4: score"
    cmp -s got.txt "$3" || wrong "$4: its scores are not eval's"
}

# Before and after, with all that a model may have: ids, target statistics, vectors, histories; with a limit on memory, and told to read
# again in the middle.
early_as_later() {
    local folder schema data memory
    for memory in 0 9; do
        for folder in plain units; do
            case $folder$memory in plain0) schema=criteo data=asked.tsv ;; units*) schema=derived.yaml data=test.tsv ;; *) continue ;; esac
            held_copy $folder held
            serve_early --model m=held --memory $memory || continue
            logged 'event=serve.load result=begun models=1$'
            answers $schema $data $folder.txt "$folder, early"
            is_metric 'clicktower_model_loading{model="m"}' 1 "$folder, early"
            is_metric 'clicktower_ready' 1 "$folder, early"
            get metrics | grep -qE '^clicktower_table_misses_total\{.*\} [1-9]' || wrong "$folder: no row was read from the folder"
            kill -HUP $server
            let_go held
            logged 'event=serve.load result=done model="m" ms='
            let_go held # SIGHUP's
            logged 'event=serve.reload result=done models=1 '
            answers $schema $data $folder.txt "$folder, loaded"
            is_metric 'clicktower_model_loading{model="m"}' 0 "$folder, loaded"
            [ $memory -ne 0 ] || { get metrics | grep -qE '^clicktower_table_misses_total\{.*\} [1-9]' && wrong "$folder: rows are read from the folder for ever"; }
            kill -TERM $server
            ends 0
        done
    done
}
run_case early_as_later

# A sorted file that is not what was written: a request that asks for its row fails, all others are right, and the check ends the server.
damaged() {
    held_copy plain bad
    flip "$(sorted_file bad)" 1000
    serve_early --model bad || return
    "$program" score --to "$address" --schema criteo --data asked.tsv --rows-per-request 1 >got.txt 2>err && wrong "no request met the damage"
    has err 'bad/tables: Corruption: block checksum mismatch'
    [ "$(wc -l <got.txt)" -lt 300 ] && cmp -s got.txt <(head -n "$(wc -l <got.txt)" plain.txt) || wrong "wrong scores"
    let_go bad
    refused || return
    ends 1
    has log 'level=error event=serve.load result=refused model="bad" reason=".*\.sst: the file is not what was written'
    has <(tail -n 1 log) '^clicktower serve: .*\.sst: the file is not what was written'
}
run_case damaged

# What is checked first ends the start, as it does without the option.
refuses() {
    rm -rf bad
    cp -r plain bad
    flip bad/tower.safetensors 500
    expect 1 'bad/tower.safetensors: the file is not what was written' serve --model bad --listen 127.0.0.1:0 --answer-early
    cp plain/tower.safetensors bad/
    truncate -s -1 "$(sorted_file bad)"
    expect 1 '\.sst: the file is not what was written \([0-9]+ bytes; the manifest says [0-9]+\)' serve --model bad --listen 127.0.0.1:0 --answer-early
    rm "$(sorted_file bad)"
    expect 1 '\.sst: the manifest lists this file, but it is missing' serve --model bad --listen 127.0.0.1:0 --answer-early
    # A whole file of another training, of the same length.
    "$program" train --schema criteo "${model[@]}" --seed 2 --set embedding.target_stats=true --train log.tsv --out other >out 2>err || wrong "train"
    cp "$(sorted_file other)" "$(sorted_file plain | sed 's/^plain/bad/')"
    expect 1 'bad/tables: Corruption: Mismatch in unique ID on table file' serve --model bad --listen 127.0.0.1:0 --answer-early
    expect 2 'answer-early does not go with --follow' serve --model plain --follow plain=pub --answer-early
}
run_case refuses

# A folder of versions, the highest of them damaged: what a start would have served instead takes over.
versions() {
    rm -rf versions
    mkdir versions
    cp -r plain versions/1
    held_copy plain versions/2
    flip "$(sorted_file versions/2)" 1000
    serve_early --model m=versions || return
    has log 'event=serve.model model="m" .* folder=2$'
    let_go versions/2
    logged 'event=serve.load result=done model="m" ms='
    has log 'event=serve.model model="m" .* folder=1$'
    answers criteo asked.tsv plain.txt "version 1"
    ln versions/2/tables/held.sst pipe # version 2 may be looked at again, as it is new: without waiting
    : >empty
    mv empty versions/2/tables/held.sst
    : <>pipe
    kill -TERM $server
    ends 0
}
run_case versions

# An arm whose folder is damaged falls to the control once that is found, as it does at a start.
arms() {
    held_copy plain bad
    flip "$(sorted_file bad)" 1000
    printf '%s\n' 'name: x' 'salt: s' 'arms:' '  - {name: a, weight: 50, model: old}' '  - {name: b, weight: 50, model: new}' >x.yaml
    serve_early --model old=plain new=bad --experiment x.yaml || return
    is_metric 'clicktower_experiment_arm_info{experiment="x",arm="b",model="new",control="false",served="true"}' 1 "early"
    let_go bad
    logged 'event=serve.arm .*arm="b".* note='
    is_metric 'clicktower_experiment_arm_info{experiment="x",arm="b",model="new",control="false",served="false"}' 1 "later"
    answers criteo asked.tsv plain.txt "the control"
    kill -TERM $server
    ends 0
}
run_case arms

# Stopped in the middle: it ends as it does at any time, and reads no further.
stops() {
    local gate
    held_copy plain held
    serve_early --model held || return
    exec {gate}>held/tables/held.sst # it reads this file now
    kill -TERM $server
    waiting="the server to drain"
    until [ "$(get readyz | tail -n 1)" = 503 ]; do
        kill -0 $server || { wrong "the server is gone: $(tail -n 1 log)"; return; }
        read -rt 0.05 <> <(:)
    done
    waiting=
    exec {gate}>&-
    ends 0
    grep -qE 'result=(done|refused)' log && wrong "it read on: $(grep -E 'result=(done|refused)' log)"
    has log 'event=serve.stop .*signal=SIGTERM'
}
run_case stops
finish
