#!/usr/bin/env bash
# --memory is a promise on anonymous memory, on a log whose table is ten times the limit: sampled, with histories too, and kept by a run inside
# a memory cgroup of the limit, the tower and 256 MiB. The limits, in MiB, are arguments; 64 where there are none.
TEST_WORK=${TEST_WORK:-${TEST_TMPDIR:-/tmp}} # on a disk: a file system in memory is memory of the cgroup
. tests/frame.sh
limits=("$@")
[ $# -gt 0 ] || limits=(64)
if ldd "$program" 2>/dev/null | grep -q 'libasan\|libtsan'; then
    echo "SKIP: a sanitizer's memory is not the program's"
    exit 0
fi

# 288 floats of values and 1 of state are 1,156 bytes a row; a row of the log has twelve keys that no other one has
model=(--model dnn --set 'deep=[4]' --set embedding.dim=288 --set embedding.min_count=1 --batch 256)
log() { echo "|'$program' synth --rows $1 --users 100000 --tail 1000000000 --tail-slope 0 --out - 2>/dev/null"; }
# Peak of the anonymous memory of a run, in KiB, as sampled; GROUP: a cgroup that it runs in, or nothing.
peak_of() { # GROUP ARGUMENT...
    local group=$1
    shift
    { [ -z "$group" ] || echo $BASHPID >"$group/cgroup.procs"; exec "$program" "$@"; } >out 2>err </dev/null &
    local child=$! now=0 most=0 key value
    while kill -0 $child 2>/dev/null; do
        while read -r key value _; do [ "$key" = RssAnon: ] && now=$value; done 2>/dev/null <"/proc/$child/status"
        [ "${now:-0}" -gt $most ] && most=$now
        read -rt 0.02 <> <(:) # a pause, so that the sampling costs little
    done
    wait $child || wrong "$* ended with $?" >&2 # a subshell's: the caller sees it by the digest
    echo $most
}
# The highest of three: a short run's may fall between two looks, and what is compared with it would seem to take more.
highest() { # COMMAND...
    local most=0 now
    for _ in 1 2 3; do
        now=$("$@")
        [ "$now" -gt $most ] && most=$now
    done
    echo $most
}
peak() { # GROUP ARGUMENT...: of a training
    local group=$1
    shift
    peak_of "$group" train "${model[@]}" "$@"
}
held() { # WHAT LIMIT PEAK
    echo "  $1: $((($3 - base) / 1024)) MiB more than with a small table"
    [ $(($3 - base)) -le $(($2 * 1024)) ] || wrong "$1: $2 MiB were promised, $((($3 - base) / 1024)) were used"
}
# A new memory cgroup of so many KiB, below the one that we are in.
make_group() {
    local own=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup) file=memory.limit_in_bytes
    [ -e "$own/$file" ] || own=/sys/fs/cgroup/memory
    [ -e "$own/$file" ] || own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup) file=memory.max
    group=$own/clicktower-$(basename "$work") # one of our own, though others run this test
    if mkdir "$group" 2>/dev/null; then
        echo $(($1 * 1024)) 2>/dev/null >"$group/$file" && return 0
        rmdir "$group" 2>/dev/null
    fi
    group=
    return 1
}

"$program" synth --rows 10 --out any.tsv --schema-out synth.yaml >/dev/null 2>err || wrong "synth"
{
    cat synth.yaml
    for of in C2 C4 C6; do echo "  - {name: past_$of, kind: history, of: $of, max: 20}"; done
} >histories.yaml
base=$(peak "" --schema criteo --train "$(log 1)" --out one)
base=$(peak "" --schema criteo --train "$(log 256)" --out small)
for limit in "${limits[@]}"; do
    rows=$((limit * 750)) # 12 keys each: more than ten times the limit
    [ "$limit" -lt 512 ] || [ "$(df -Pk . | awk 'NR == 2 { print $4 }')" -gt $((limit * 30 * 1024)) ] || {
        echo "SKIP: $limit MiB: less than $((limit * 30)) MiB of disk are free"
        continue
    }
    echo "$limit MiB"
    group=
    make_group $((base + (limit + 256) * 1024)) || echo "  SKIP: no memory cgroup can be made here, so it runs without one"
    with=$(peak "$group" --schema criteo --train "$(log $rows)" --out held --memory "$limit")
    held "$limit MiB${group:+ within a cgroup}" "$limit" "$with"
    [ -z "$group" ] || rmdir "$group"
    wanted=$(digest held)
    [ -n "$wanted" ] || wrong "$limit MiB: no digest"
    if [ "$limit" -lt 512 ]; then # reading: rows that are not in memory, of many threads, which all get batches enough to have all they need
        training=$base
        base=$(highest peak_of "" eval --model small --data "$(log 20000)" --threads 8)
        held "$limit MiB, eval" "$limit" "$(peak_of "" eval --model held --data "$(log 20000)" --memory "$limit" --threads 8)"
        base=$(highest peak_of "" eval --model one --data "$(log 20000)" --threads 8)
        held "the least limit, eval" 4 "$(peak_of "" eval --model held --data "$(log 20000)" --memory 4 --threads 8)"
        expect 2 "--memory is '3': reading rows from disk takes more; give at least 4, or 0" eval --model held --data "$(log 1)" --memory 3
        base=$training
    fi
    rm -rf held
    [ "$limit" -lt 512 ] || continue
    free=$(peak "" --schema criteo --train "$(log $rows)" --out free)
    [ $((free - base)) -gt $((limit * 10 * 1024)) ] || wrong "the table is too small for this test: $(((free - base) / 1024)) MiB"
    [ "$(digest free)" = "$wanted" ] || wrong "$limit MiB: another digest"
    rm -rf free
done

limit=$((${limits[0]} + 32)) # they take so many, in the end
base=$(peak "" --schema histories.yaml --set embedding.target_stats=true --set embedding.dim=32 --train "$(log 256)" --out small)
echo "$limit MiB with histories and target statistics"
rows=$((limit * 600))
with=$(peak "" --schema histories.yaml --set embedding.target_stats=true --set embedding.dim=32 --train "$(log $rows)" --out held --memory "$limit")
held "$limit MiB with histories" "$limit" "$with"
with=$(peak "" --schema histories.yaml --set embedding.target_stats=true --set embedding.dim=32 --train "$(log $rows)" --out held --memory "$limit" --resume)
held "$limit MiB with histories, resumed" "$limit" "$with"
# As they are opened; in training they have room to grow, too.
taken=$("$program" inspect held --json 2>>err | tr -d ' \n' | sed -n 's/.*"histories":{"units":[0-9]*,"bytes":\([0-9]*\).*/\1/p')
[ $((2 * ${taken:-0})) -gt $((12 << 20)) ] || wrong "the histories are too small for this test: $taken bytes"
train=(train --schema histories.yaml "${model[@]}" --set embedding.target_stats=true --set embedding.dim=32 --train "$(log 2000)")
"$program" "${train[@]}" --out free >out 2>err </dev/null || wrong "histories without a limit"
for threads in 1 2 8; do
    "$program" "${train[@]}" --out held --memory $limit --threads $threads >out 2>err </dev/null || wrong "histories with a limit"
    [ "$(digest held)" = "$(digest free)" ] || wrong "histories, $threads threads: another digest"
done
rm -rf small
for ((least = 36, tries = 0; tries < 8; tries++)); do # they grow, so what is enough at first need not be in the end
    "$program" "${train[@]}" --out small --memory "$least" >out 2>err </dev/null && break
    cat err >>refusals
    least=$(sed -n 's/.*give \([0-9]*\) MiB.*/\1/p' err)
    [ -n "$least" ] || break
done
echo "  at least $least MiB"
has refusals 'too small for batches of 256 rows(, beside histories of [0-9]+ MiB, which grow)?; give [0-9]+ MiB, or smaller batches$'
[ -e small ] && [ $tries -gt 0 ] || wrong "no least limit was found"
finish
