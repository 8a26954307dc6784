#!/usr/bin/env bash
# What a training publishes: the base and its deltas are, digest for digest, the checkpoints of those moments; numbers go on over a resume or
# a new base is said; a run that is killed ahead of any change to the file system, or that fills the disk, leaves what was there readable;
# what is missing, in another order or damaged is refused.
. tests/frame.sh
exec 2>/dev/null # what bash says of killed children
kill_at=$root/tests/tools/kill_at.so
sanitized=$(ldd "$program" 2>/dev/null | grep -c 'libasan\|libtsan')

model=(--schema criteo --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --batch 256)
train() { "$program" train "${model[@]}" "$@" >out 2>err </dev/null; }
"$program" synth --rows 12000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 6000 log.tsv >first.tsv
. "$root/tests/tools/timed_log.sh"
# numbers FOLDER: "rows digest" of each state, as inspect says
states() { "$program" inspect "$1" --json 2>err | python3 -c '
import json, sys
d = json.load(sys.stdin)
for s in d["bases"] + d["deltas"]:
    print(s["rows"], s["digest"])'; }
bases() { find "$1" -maxdepth 1 -name 'base-*' | wc -l; }

checked=0 # checkpoints that were compared, in the case at hand
checkpoints_equal() { # WHAT: the folder `whole` and its checkpoints, and what `pub` holds of those moments
    local states folder rows
    [ "$(digest pub)" = "$(digest whole)" ] || wrong "$1: the published model is another one than the folder"
    states=$(states pub)
    for folder in whole.checkpoints/rows-*; do
        rows=${folder##*-}
        grep -qx "$rows $(digest "$folder")" <<<"$states" || wrong "$1: at $rows rows, checkpoint and delta differ"
        checked=$((checked + 1))
    done
}
were_checked() { # NUMBER
    [ $checked -eq "$1" ] || wrong "$checked checkpoints were compared"
    checked=0
}

equal() {
    local set settings with
    for set in "embedding.min_count=2 embedding.id_drop=0.1" "embedding.optimizer=adam embedding.target_stats=true embedding.min_count=2" \
        "embedding.optimizer=adagrad embedding.precision=fp16 numbers.buckets=false average.power=0"; do
        settings=()
        for one in $set; do settings+=(--set "$one"); done
        for with in "--threads 1" "--threads 2" "--threads 2 --memory 40"; do
            rm -rf pub whole whole.*
            # shellcheck disable=SC2086
            train "${settings[@]}" --train log.tsv --out whole --checkpoint-rows 2048 --keep 99 --publish pub --publish-rows 2048 $with ||
                wrong "$set $with"
            checkpoints_equal "$set $with"
            [ -z "$(find . -maxdepth 1 -name 'whole.live-*')" ] || wrong "left behind"
        done
    done
    were_checked 45
}
run_case equal

timed_equal() { # ARGUMENT...: of a training whose rows expire
    rm -rf pub whole whole.*
    "$program" train "${timed[@]}" --out whole --checkpoint-rows 1024 --keep 99 --publish pub --publish-rows 1024 "$@" >out 2>err </dev/null || wrong "$*"
    grep -qE ' expired [1-9]' out || wrong "$*: nothing has expired"
    checkpoints_equal "$*"
}
expires() {
    timed_equal --threads 1
    timed_equal --threads 2 --memory 36
    timed_equal --threads 2 --set embedding.target_stats=true
    were_checked 21
}
run_case expires

# The filter that counts keys without a row is in them too, and its periods.
filtered() {
    local filter=(--set embedding.admission=filter --set embedding.filter_mib=1)
    timed_equal "${filter[@]}" --threads 1
    timed_equal "${filter[@]}" --threads 2 --memory 40
    were_checked 14
}
run_case filtered

# So is what a unit had before, over passes that tell it anew.
histories() {
    local with log resume
    /usr/bin/python3 "$root/tests/tools/history_log.py" . || wrong "the log"
    for with in "--threads 1" "--threads 2 --memory 40"; do
        rm -rf pub whole whole.*
        # shellcheck disable=SC2086
        "$program" train --schema derived.yaml --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --batch 256 \
            --train train.tsv --epochs 2 --out whole --checkpoint-rows 700 --keep 99 --publish pub --publish-rows 700 $with >out 2>err </dev/null ||
            wrong "$with"
        checkpoints_equal "$with"
    done
    were_checked 22
    expect 0 '^histories_bytes [1-9]' inspect pub/delta-000000000001.ctd
    # From half of the log, and on.
    rm -rf pub half
    head -n 2300 train.tsv >part.tsv
    for log in part.tsv train.tsv; do
        resume=()
        [ -e half ] && resume=(--resume)
        "$program" train --schema derived.yaml --model dnn --set 'deep=[16]' --set embedding.dim=4 --train $log --out half --publish pub \
            --publish-rows 512 "${resume[@]}" >out 2>err </dev/null || wrong "half: $(tail -n 1 err)"
        [ "$(digest pub)" = "$(digest half)" ] || wrong "$log: another model"
    done
}
run_case histories

stream() {
    rm -rf pub whole
    train --train log.tsv --out whole || wrong "a run that publishes nothing"
    "$program" train "${model[@]}" --train - --out streamed --publish pub --publish-seconds 0.05 >out 2>err < <(cat log.tsv) || wrong "a stream"
    [ "$(digest pub)" = "$(digest whole)" ] || wrong "published from a stream: another model"
    # What was learned is published while the stream waits: more rows come only then.
    rm -rf pub
    "$program" train "${model[@]}" --train - --out streamed --publish pub --publish-seconds 0.05 >out 2>err < <(
        head -n 3000 log.tsv
        until [ -e pub/base-000000000000/manifest ]; do read -rt 0.05 <> <(:); done
        tail -n +3001 log.tsv | head -n 3000
        until [ -e pub/delta-000000000001.ctd ]; do read -rt 0.05 <> <(:); done
        tail -n +6001 log.tsv
    ) || wrong "a stream that waits"
    [ "$(digest pub)" = "$(digest whole)" ] || wrong "published from a stream that waits: another model"
    expect 0 '^published +again$' train "${model[@]}" --train log.tsv --out whole --publish again --publish-rows 5000
    expect 2 "--publish same is, or lies in, --out same, .*give each a folder of its own" train "${model[@]}" --train log.tsv --out same --publish same
    expect 1 "whole: that is a model folder" train "${model[@]}" --train log.tsv --out other --publish whole
    # Two at once into one folder.
    "$program" train "${model[@]}" --train - --out first --publish one >out1 2>err1 < <(
        head -n 3000 log.tsv
        until [ -e second ]; do read -rt 0.05 <> <(:); done
    ) &
    local first=$!
    until [ -e one.lock ]; do
        kill -0 $first || break
        read -rt 0.05 <> <(:)
    done
    expect 1 "one: process $first.* writes it" train "${model[@]}" --train log.tsv --out other --publish one
    touch second
    wait $first || wrong "the first of two: $(tail -n 1 err1)"
    [ ! -e one.lock ] || wrong "a lock is left"
    expect 2 "--publish-rows does nothing without --publish DIR" train "${model[@]}" --train log.tsv --out whole --publish-rows 5000
    expect 1 "early-stopped" train "${model[@]}" --train log.tsv --eval first.tsv --out early --publish again --early-stop 1
}
run_case stream

goes_on() {
    local before
    rm -rf pub grown grown.*
    # The checkpoint is behind what was published last: numbers go on where the training has come to that state again.
    train --train first.tsv --out grown --checkpoint-rows 4000 --publish pub --publish-rows 1024 || wrong "half of the log"
    before=$("$program" inspect pub | sed -n 's/^sequence //p')
    train --train first.tsv --out grown --resume --publish pub --publish-rows 1024 || wrong "resumed"
    has out published
    grep -q 'begins anew' err && wrong "the same log once more begins a base"
    [ "$("$program" inspect pub | sed -n 's/^sequence //p')" = "$before" ] || wrong "the same log once more is published twice"
    # The tail of a log that has grown is another one: what was published of it is no state of this training.
    train --train log.tsv --out grown --resume --publish pub --publish-rows 1024 || wrong "a log that has grown"
    has err 'warning: pub ends with number [0-9]+ \(6000 rows\), which is not a state of this training: base [0-9]+ begins anew'
    [ "$(bases pub)" -eq 2 ] || wrong "no second base"
    [ "$(digest pub)" = "$(digest grown)" ] || wrong "another model after a resume"
    # Another training into the same folder.
    train --train first.tsv --out other --seed 2 --publish pub --publish-rows 2048 || wrong "another training"
    has err 'which is not a state of this training: base [0-9]+ begins anew'
    [ "$(digest pub)" = "$(digest other)" ] || wrong "another model of another training"
}
run_case goes_on

kills() {
    local small=(--schema criteo --model dnn --set 'deep=[8]' --set embedding.dim=4 --batch 256 --train first.tsv --checkpoint-rows 1500
        --publish pub --publish-rows 256) changes place expected more count=0
    if [ "$sanitized" -ne 0 ]; then
        echo "  SKIP: a preloaded library does not go with a sanitizer"
        return
    fi
    rm -rf pub one many
    env LD_PRELOAD="$kill_at" CT_KILL_AT=0 CT_KILL_COUNT=count "$program" train "${small[@]}" --out one >out 2>err </dev/null || wrong "whole"
    expected=$(digest one)
    changes=$(cat count)
    for memory in "" "--memory 40"; do
        for part in 1 2 4 5 7 8; do
            rm -rf pub many many.*
            place=$((part * changes / 9 + part * 5 % 13))
            # shellcheck disable=SC2086
            env LD_PRELOAD="$kill_at" CT_KILL_AT=$place "$program" train "${small[@]}" --out many $memory >out 2>err </dev/null
            [ $? -eq 137 ] || wrong "not killed at change $place of $changes"
            if [ -e pub/base-000000000000/manifest ]; then
                "$program" verify pub >/dev/null 2>err || wrong "killed at $place: what was published is damaged"
                count=$((count + 1))
            fi
            more=
            [ -e many/manifest ] && more=--resume
            # shellcheck disable=SC2086
            "$program" train "${small[@]}" --out many $memory $more >out 2>err </dev/null || wrong "a run after a kill at $place"
            [ "$(digest pub)" = "$expected" ] || wrong "killed at $place $memory: published another model"
            [ "$(digest many)" = "$expected" ] || wrong "killed at $place $memory: another model"
            # One in the beginning and one behind 16 deltas; more where the run has said so.
            [ -n "$more" ] && [ "$(bases pub)" -ne 2 ] && ! grep -q 'begins anew' err && wrong "a base that was not said"
            [ -z "$(find pub -name '*.partial-*' -o -name '*.old-*')" ] || wrong "left behind: $(ls pub)"
        done
    done
    [ $count -ge 6 ] || wrong "only $count kills found something published"
}
run_case kills

full_disk() {
    local before
    rm -rf pub full full.*
    train --train first.tsv --out full --publish pub --publish-rows 2000 || wrong "before the disk is full"
    before=$(digest pub)
    for limit in 30 100 190; do # blocks of 1,024 bytes
        (
            ulimit -f $limit
            train --train log.tsv --out full2 --publish pub --publish-rows 500
        ) && wrong "a file larger than $limit KiB was written"
        tail -n 1 err | grep -qE 'clicktower train: --publish: .*pub/(base|delta).*[Ff]ile too large' || wrong "$limit KiB: $(tail -n 1 err)"
        [ "$(digest pub)" = "$before" ] || wrong "$limit KiB: what was published before can't be read"
        [ -z "$(find pub -name '*.partial-*')" ] || wrong "$limit KiB: left behind: $(ls pub)"
    done
}
run_case full_disk

# A small disk of its own: base or delta does not fit, what is there stays whole, and with room the numbers go on.
small_disk() {
    cat >small.sh <<'END'
mkdir -p disk && mount -t tmpfs -o "size=$2k" tmpfs disk || exit 77
cp -a pub disk/pub && cp -a full disk/full || exit 78
shift 2
"$@" --publish disk/pub >out 2>err </dev/null
code=$?
cp -r disk/pub pub.after
exit $code
END
    local used room before failed=0
    rm -rf pub full full.* pub.after
    train --train first.tsv --out full --publish pub --publish-rows 2000 || wrong "before the disk is full"
    before=$("$program" inspect pub | sed -n 's/^sequence //p')
    used=$(du -skc pub full | tail -n 1 | cut -f 1)
    for room in 60 400 900; do
        rm -rf pub.after
        unshare --user --map-root-user --mount bash small.sh x $((used + room)) "$program" train "${model[@]}" --train log.tsv --out disk/full \
            --resume --publish-rows 500
        code=$?
        [ $code -eq 77 ] && echo "  SKIP: nothing can be mounted here" && return
        [ $code -eq 0 ] && continue # there was room
        failed=$((failed + 1))
        [ $code -eq 1 ] || wrong "$room KiB: ended with $code"
        tail -n 1 err | grep -qE '^clicktower train: --publish: .*disk/pub/.*No space left' || wrong "$room KiB: $(tail -n 1 err)"
        [ -n "$(digest pub.after)" ] || wrong "$room KiB: what was published before can't be read"
        [ "$("$program" inspect pub.after | sed -n 's/^sequence //p')" -ge "$before" ] || wrong "$room KiB: fewer states than before"
        [ -z "$(find pub.after -name '*.partial-*')" ] || wrong "$room KiB: left behind: $(ls pub.after)"
        cp -r full onward
        "$program" train "${model[@]}" --train log.tsv --out onward --resume --publish pub.after --publish-rows 500 >out 2>err </dev/null ||
            wrong "$room KiB: does not go on"
        [ "$(digest pub.after)" = "$(digest onward)" ] || wrong "$room KiB: goes on to another model"
        rm -rf onward onward.*
    done
    echo "  the disk was full $failed times"
    [ $failed -ge 2 ] || wrong "not as often as meant"
}
run_case small_disk

refused() {
    local two three
    rm -rf pub good
    train --train log.tsv --out good --publish pub --publish-rows 2000 || wrong "publishing"
    cp -r pub copy
    two=copy/delta-000000000002.ctd three=copy/delta-000000000003.ctd
    expect 0 '^digest ' verify $two
    expect 0 '^sequence 2$' inspect $two
    mv $two away
    expect 1 'copy: delta 2 is missing: behind number 1 come deltas up to [0-9]+ and no base' verify copy
    cp $three $two
    expect 1 'delta-000000000002.ctd: it is number 3, and the model is at number 1, which number 2 must follow' verify copy
    head -c 10000 away >$two
    expect 1 'delta-000000000002.ctd: has 10000 of [0-9]+ bytes' verify copy
    head -c 10000 away >$two
    tail -c +10002 away | cat <(printf x) - >>$two
    expect 1 'delta-000000000002.ctd: .*copy the file again' verify copy
    # One that a newer program has written: XXH3 is libxxhash's.
    cat >newer.py <<'END'
import ctypes, json, struct, sys
path, member, value = sys.argv[1:]
xxh3 = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
xxh3.restype, xxh3.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
data = open("away", "rb").read()
_, at, hashed, sealed = struct.unpack("<QQQQ", data[8:40])
assert xxh3(data[at:], len(data) - at) == hashed and xxh3(data[:32], 32) == sealed
description = json.loads(data[at:])
assert member in description
description[member] = json.loads(value)
text = json.dumps(description).encode()
head = data[:8] + struct.pack("<QQQ", at + len(text), at, xxh3(text, len(text)))
open(path, "wb").write(head + struct.pack("<Q", xxh3(head, 32)) + data[40:at] + text)
END
    python3 newer.py $two requires '["tt-cores"]' || wrong "a delta of a newer program"
    expect 1 'delta-000000000002.ctd: requires the unknown feature tt-cores' verify copy
    python3 newer.py $two least_reader 2 || wrong "a delta of a newer program"
    expect 1 'delta-000000000002.ctd: needs a reader of version 2; this one has 1' verify copy
    mv away $two
    expect 0 "^digest $(digest good)$" verify copy
    train --train log.tsv --seed 9 --out strange --publish strange.pub --publish-rows 2000 || wrong "another training"
    cp strange.pub/delta-000000000002.ctd $two
    expect 1 'delta-000000000002.ctd: number 2 of base 0 \([0-9a-f]{32}\) follows the model [0-9a-f]{32}, and this is the model [0-9a-f]{32}: it is of another training' verify copy
    mkdir empty
    expect 1 'no model folder' verify empty
}
run_case refused

consolidates() {
    rm -rf pub many
    train --train log.tsv --out many --publish pub --publish-rows 256 || wrong "publishing often"
    [ "$(bases pub)" -eq 2 ] || wrong "$(bases pub) bases"
    [ ! -e pub/base-000000000000 ] && [ ! -e pub/delta-000000000001.ctd ] || wrong "what is old has not gone"
    [ -e pub/base-000000000016 ] && [ -e pub/delta-000000000017.ctd ] && [ -e pub/base-000000000032 ] || wrong "$(ls pub)"
    [ "$(digest pub)" = "$(digest many)" ] || wrong "another model"
}
run_case consolidates
finish
