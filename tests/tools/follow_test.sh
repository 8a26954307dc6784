#!/usr/bin/env bash
# A server that follows what a training publishes: after each delta it answers as the checkpoint of that moment does, to the bit, with all
# rows in memory or a part, and changes nothing in the folder; what is half copied is waited for, what is damaged, of another training or
# out of order is refused and the old version goes on; a later base is a way out. No request fails meanwhile.
. tests/frame.sh
exec 2>/dev/null # what bash says of killed children

model=(--schema criteo --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --batch 256)
"$program" synth --rows 12000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 300 log.tsv >asked.tsv
publish() { # OUT PUB ARGUMENT...
    local out=$1 pub=$2
    shift 2
    "$program" train "${model[@]}" --train log.tsv --out "$out" --publish "$pub" "$@" >out 2>err </dev/null || wrong "train --publish $pub"
}
delta() { printf '%s/delta-%012d.ctd' "$1" "$2"; }
base() { printf '%s/base-%012d' "$1" "$2"; }

. "$root/tests/tools/timed_log.sh"
. "$root/tests/tools/server.sh"

stop() {
    kill -TERM $server
    wait $server || wrong "the server ended with $?"
}
arrive() { # NAME: standard input becomes a file of the followed folder, at once, so that the server never sees less of it
    cat >part && mv part "$1"
}
arrives() { arrive "$(delta stage "$2")" <"$(delta "$1" "$2")"; } # PUB NUMBER: that delta
count() { grep -cE -- "$1" log; }
metric() { # NAME{LABELS}: its value
    python3 -c '
import sys, urllib.request
for line in urllib.request.urlopen(sys.argv[1] + "metrics").read().decode().splitlines():
    if line.startswith(sys.argv[2] + " "):
        print(line.rsplit(" ", 1)[1])' "$admin" "$1"
}
answers_as() { # FOLDER WHAT
    "$program" eval --model "$1" --data asked.tsv --predictions wanted.txt >/dev/null 2>err || wrong "eval --model $1"
    "$program" score --to "$address" --schema criteo --data asked.tsv >got.txt 2>err || wrong "$2: score"
    cmp -s got.txt wanted.txt || wrong "$2: it does not answer as $1 does"
}
as_it_stands() { find "$1" -printf '%p %s %T@ %C@\n' | sort; }

publish whole pub --publish-rows 2048 --checkpoint-rows 2048 --keep 99 --set embedding.min_count=2 --set embedding.target_stats=true
last=$("$program" inspect pub | sed -n 's/^sequence //p')
[ "$last" -eq 5 ] || wrong "$last deltas"
# Rows so wide that those of the first delta find no room in the least limit.
"$program" train --schema criteo --model dnn --set 'deep=[4]' --set embedding.dim=256 --batch 256 --train log.tsv --out wide --publish wide.pub \
    --publish-rows 2048 --checkpoint-rows 2048 --keep 99 >out 2>err </dev/null || wrong "train wide"
at() { # NUMBER [OUT]: the folder of that moment
    [ "$1" -eq "$last" ] && echo "${2:-whole}" || echo "${2:-whole}.checkpoints/rows-$((2048 * ($1 + 1)))"
}

follows() {
    local start before n out pub
    export TMPDIR=$PWD
    for start in "--follow m=stage" "--follow m=stage --memory 6 --scratch scratch" "--model m=base --follow stage" "--model m=base other=whole --follow m=stage --memory 10"; do
        rm -rf stage base
        mkdir stage
        out=whole pub=pub
        case $start in *--scratch*) out=wide pub=wide.pub ;; esac
        cp -r "$(base $pub 0)" stage/
        cp -r "$(base $pub 0)" base
        # shellcheck disable=SC2086
        serve $start || continue
        answers_as "$(at 0 $out)" "$start: the base"
        for n in 1 2 3 4 5; do
            arrives $pub $n
            logged "result=done model=\"m\" sequence=$n version=$(digest "$(at $n $out)") "
            answers_as "$(at $n $out)" "$start: delta $n"
            before=$(as_it_stands stage)
        done
        [ "$(metric 'clicktower_deltas_total{model="m",result="applied"}')" = 5 ] || wrong "$start: not 5 applied in /metrics"
        [ "$(metric 'clicktower_delta_sequence{model="m"}')" = 5 ] || wrong "$start: not at number 5 in /metrics"
        [ "$(metric 'clicktower_freshness_seconds_count{model="m"}')" = 5 ] || wrong "$start: no freshness in /metrics"
        [ -n "$(metric 'clicktower_row_to_answer_seconds{model="m",row="newest"}')" ] || wrong "$start: no freshness of the newest row"
        case $start in *--scratch*) compgen -G 'scratch/clicktower-serve.live-*/0/0/*.sst' >/dev/null || wrong "$start: all changed rows found room" ;; esac
        stop
        compgen -G 'scratch/*' >/dev/null && wrong "$start: scratch stays behind"
        [ "$(as_it_stands stage)" = "$before" ] || wrong "$start: the folder was written"
        grep -q 'result=refused' log && wrong "$start: $(grep result=refused log)"
    done
    # All deltas at once, before it listens.
    serve --follow m=pub && answers_as whole "all at once" && stop
}
run_case follows

# What expires in the training is unknown to the server, too, in memory and in the folder's files.
expires() {
    local memory n figure
    rm -rf pub3 timed timed.checkpoints
    "$program" train "${timed[@]}" --set embedding.min_count=2 --out timed --publish pub3 --publish-rows 1024 --checkpoint-rows 1024 --keep 99 >out 2>err </dev/null || wrong "train"
    tail -n 1200 timed.tsv >late.tsv
    for memory in 0 6; do
        rm -rf stage
        mkdir stage
        cp -r "$(base pub3 0)" stage/
        serve --follow m=stage --memory $memory || continue
        for n in 1 2 3 4 5 6; do
            arrives pub3 $n
            logged "result=done model=\"m\" sequence=$n "
        done
        "$program" eval --model timed.checkpoints/rows-7168 --data late.tsv --predictions wanted.txt >/dev/null 2>err || wrong "eval"
        "$program" score --to "$address" --schema timed.yaml --data late.tsv >got.txt 2>err || wrong "score"
        cmp -s got.txt wanted.txt || wrong "--memory $memory: not as the checkpoint answers"
        for figure in rows waiting_keys expired_rows; do
            [ "$(metric "clicktower_table_$figure{model=\"m\",table=\"ids\"}")" = "$("$program" inspect timed.checkpoints/rows-7168 --json | python3 -c '
import json, sys
name = {"rows": "rows", "waiting_keys": "stubs", "expired_rows": "expired"}[sys.argv[1]]
print(json.load(sys.stdin)["tables"][0][name])' $figure)" ] || wrong "--memory $memory: another number of $figure"
        done
        stop
    done
}
run_case expires

# A request brings its unit alone: what that had before is the training's, and comes with the deltas.
histories() {
    local n rows memory
    /usr/bin/python3 "$root/tests/tools/history_log.py" . || wrong "the log"
    "$program" train --schema derived.yaml --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --train train.tsv \
        --epochs 2 --batch 256 --out units --publish pub4 --publish-rows 1024 --checkpoint-rows 1024 --keep 99 >out 2>err </dev/null || wrong "train"
    rows=$(find units.checkpoints -name 'rows-*' | sed 's/.*rows-//' | sort -n)
    for memory in 0 9; do
        rm -rf stage
        mkdir stage
        cp -r "$(base pub4 0)" stage/
        serve --follow m=stage --memory $memory || continue
        n=0
        for at in $rows; do
            [ $n -eq 0 ] || arrives pub4 $n
            [ $n -eq 0 ] || logged "result=done model=\"m\" sequence=$n "
            "$program" eval --model units.checkpoints/rows-"$at" --data test.tsv --predictions wanted.txt >/dev/null 2>err || wrong "eval"
            "$program" score --to "$address" --schema derived.yaml --data test.tsv --rows-per-request 50 >got.txt 2>err || wrong "score"
            cmp -s got.txt wanted.txt || wrong "--memory $memory: number $n does not answer as the checkpoint of $at rows"
            n=$((n + 1))
        done
        [ $n -eq 7 ] || wrong "$n states were compared"
        stop
    done
}
run_case histories

refuses() {
    rm -rf stage
    mkdir stage
    cp -r "$(base pub 0)" stage/
    serve --follow stage || return
    head -c 3000 "$(delta pub 1)" | arrive "$(delta stage 1)"
    logged 'result=not_yet .*delta-000000000001.ctd: has 3000 of [0-9]+ bytes'
    answers_as "$(at 0)" "half a delta"
    tail -c +3001 "$(delta pub 1)" >>"$(delta stage 1)"
    logged 'result=done .*sequence=1 '
    answers_as "$(at 1)" "the whole delta"
    [ "$(count result=not_yet)" -eq 1 ] || wrong "said not_yet more than once"

    { head -c 3000 "$(delta pub 2)"; printf x; tail -c +3002 "$(delta pub 2)"; } | arrive "$(delta stage 2)"
    logged 'result=refused .*delta-000000000002.ctd: the block of table ids at byte [0-9]+ is not what was written; copy the file again'
    answers_as "$(at 1)" "a damaged delta"
    arrives pub 2
    logged 'result=done .*sequence=2 '
    answers_as "$(at 2)" "the same, copied again"

    arrives pub 4
    logged 'result=refused .*stage: delta 3 is missing: the model is at number 2, and there are deltas up to 4, but no later base'
    arrive "$(delta stage 3)" <"$(delta pub 4)"
    logged 'result=refused .*delta-000000000003.ctd: it is number 4, and the model is at number 2, which number 3 must follow'
    answers_as "$(at 2)" "a delta out of order"
    publish strange other --publish-rows 2048 --seed 2
    arrive "$(delta stage 3)" <"$(delta other 3)"
    logged 'result=refused .*delta-000000000003.ctd: number 3 of base 0 \([0-9a-f]+\) follows the model [0-9a-f]+, and this is the model [0-9a-f]+: it is of another training'
    answers_as "$(at 2)" "a delta of another training"
    arrives pub 3
    logged 'result=done .*sequence=4 '
    answers_as "$(at 4)" "delta 3 and 4"
    [ "$(count result=refused)" -eq 4 ] || wrong "$(count result=refused) refusals: $(grep result=refused log)"
    [ "$(metric 'clicktower_deltas_total{model="stage",result="refused"}')" = 4 ] || wrong "not 4 refused in /metrics"

    # A training that begins anew: its base takes over, then its deltas.
    publish strange stage --publish-rows 4096 --seed 2
    logged "result=base .*sequence=5 "
    logged "result=done .*sequence=7 version=$(digest strange) "
    answers_as strange "another training"
    stop
}
run_case refuses

refuses_wrong_use() {
    rm -rf nothing
    mkdir nothing
    expect 1 'nothing: no base is there yet' serve --follow nothing --listen 127.0.0.1:0
    expect 2 'give --model DIR or --follow DIR' serve --listen 127.0.0.1:0
    expect 2 "model 'm' can follow one folder, but pub and nothing are given" serve --follow m=pub m=nothing --listen 127.0.0.1:0
}
run_case refuses_wrong_use

# What was killed while it followed begins again with what the folder holds; what fell behind takes a later base.
killed() {
    local before
    rm -rf stage
    mkdir stage
    cp -r "$(base pub 0)" stage/
    serve --follow m=stage || return
    arrives pub 1
    arrives pub 2
    logged 'result=done .*sequence=1 '
    before=$(as_it_stands stage)
    kill -KILL $server
    wait $server
    [ "$(as_it_stands stage)" = "$before" ] || wrong "a killed server has written into the folder"
    cp "$(delta pub 3)" stage/
    serve --follow m=stage || return
    answers_as "$(at 3)" "after kill -9"
    stop
}
run_case killed

# The disk of --scratch is full: what is there is served, it is said once, and it goes on when there is room.
full_disk() {
    cat >small.sh <<'END'
mount -t tmpfs -o size=16k tmpfs scratch || exit 77
(exec 3<>room; read -rt 600 -u 3 && mount -o remount,size=64m scratch) >/dev/null 2>&1 &
exec "$@"
END
    rm -rf stage scratch
    mkdir stage scratch
    mkfifo room
    cp -r "$(base wide.pub 0)" stage/
    unshare --user --map-root-user --mount mount -t tmpfs tmpfs scratch || { echo "  SKIP: nothing can be mounted here"; return; }
    within=(unshare --user --map-root-user --mount bash small.sh)
    serve --follow m=stage --memory 6 --scratch scratch || return
    within=()
    arrives wide.pub 1
    logged 'level=error .*result=not_yet .*sequence=1 .*no further delta is taken until this one has found its place: scratch/.*No space left'
    arrives wide.pub 2
    answers_as "$(at 1 wide)" "a full disk"
    [ "$(metric 'clicktower_deltas_total{model="m",result="refused"}')" = 0 ] || wrong "a full disk: refused in /metrics"
    echo >room
    logged 'result=done .*sequence=2 '
    answers_as "$(at 2 wide)" "room again"
    [ "$(count result=not_yet)" -eq 1 ] || wrong "a full disk is said more than once"
    stop
}
run_case full_disk

# Requests that never end, beside a training that publishes as fast as it can: none fails.
live() {
    local applied memory=$1
    rm -rf live live.* pub2
    "$program" train "${model[@]}" --train "|cat log.tsv log.tsv" --out live --publish pub2 --publish-rows 512 >out 2>err </dev/null &
    local trainer=$!
    children+=("$trainer")
    until compgen -G 'pub2/base-*/manifest' >/dev/null; do # the first one may be gone again
        kill -0 $trainer || { wrong "no training"; return; }
        read -rt 0.02 <> <(:)
    done
    serve --follow m=pub2 --memory "$memory" || return
    "$program" load --to "$address" --schema criteo --data asked.tsv --candidates 20 --concurrency 3 --seconds 3 --deadline-ms 600000 --json >load.json 2>err || wrong "load"
    wait $trainer || wrong "the training failed"
    logged "result=(done|base) .* version=$(digest live) "
    answers_as live "in the end"
    python3 - load.json <<'END' || wrong "requests failed: $(cat load.json)"
import json, sys
load = json.load(open(sys.argv[1]))
sys.exit(0 if list(load["codes"]) == ["OK"] and load["codes"]["OK"] > 0 else 1)
END
    applied=$(count 'result=done')
    [ "$applied" -ge 1 ] || wrong "no delta was applied"
    stop
    grep -q 'result=refused' log && wrong "$(grep result=refused log)"
}
live_all() { live 0; }
live_part() { live 12; }
run_case live_all
run_case live_part
finish
