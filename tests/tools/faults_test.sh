#!/usr/bin/env bash
# What goes wrong below a store: a full disk while rows are ingested, compacted or saved, and files of a model folder that are missing, cut
# or flipped. Each ends in an error that names the place; what was saved before stays, and nothing is left behind. (Kills are memory_test's
# and resume_test's.)
. tests/frame.sh

awk 'BEGIN {
    srand(4)
    for (r = 0; r < 6000; r++) {
        line = int(rand() * 1.3)
        for (i = 0; i < 13; i++) line = line "\t" int(rand() * 50)
        for (i = 0; i < 26; i++) line = line "\t" sprintf("%x", int(rand() ^ 2 * 3000))
        print line
    }
}' >log.tsv
head -n 1984 log.tsv >part.tsv # whole batches
model=(--schema criteo --model dnn --set 'deep=[8]' --set embedding.dim=16 --batch 64)
nothing_left() { ls -d ./*.live-* ./*.partial-* ./*.lock ./*.tail >/dev/null 2>&1 && wrong "$1: left $(ls -d ./*.*-* ./*.lock ./*.tail)"; }

"$program" train "${model[@]}" --train log.tsv --out whole >out 2>err </dev/null || wrong "the whole run"
wanted=$(digest whole)
"$program" train "${model[@]}" --train part.tsv --out saved >out 2>err </dev/null || wrong "the first part"
kept=$(digest saved)

# A run that fails, over what `saved` holds; then one with room, from there, which ends as if nothing had been.
fails() { # WHAT PATTERN: the failed run's code in $code, its last line in err
    [ "$code" -eq 1 ] || wrong "$1: ended with $code"
    tail -n 1 err | grep -qE -- "^clicktower train: .*($2)" || wrong "$1: the last line says neither of $2"
    local found
    found=$(digest on) # of what was saved before, or of a later checkpoint that there was room for
    [ -n "$found" ] || wrong "$1: what was saved before is gone"
    grep -q '"rows": 1984,' on/manifest && [ "$found" != "$kept" ] && wrong "$1: what was saved before has changed"
    nothing_left "$1"
}
goes_on() {
    "$program" train "${model[@]}" --train log.tsv --out on --resume >out 2>err </dev/null || wrong "$1: does not go on"
    [ "$(digest on)" = "$wanted" ] || wrong "$1: goes on to another model"
}

a_file_may_not_grow() { # as on a full disk, but for every file of its own: sorted files that are ingested, and those of compactions
    local blocks memory
    for memory in 40 0; do
        # of 1,024 bytes; within a limit on memory files are small, and whether one is larger than 400 is a matter of when compactions come
        for blocks in 16 40 100 400; do
            [ $memory -gt 0 ] && [ $blocks -eq 400 ] && continue
            rm -rf on && cp -r saved on
            (
                ulimit -f $blocks
                "$program" train "${model[@]}" --train log.tsv --out on --resume --checkpoint-rows 2560 --memory $memory >out 2>err </dev/null
            )
            code=$?
            fails "files of $blocks KiB, a limit of $memory MiB" "[Ff]ile too large"
        done
        goes_on "files of $blocks KiB, a limit of $memory MiB"
    done
}

a_disk_is_full() {
    cat >small.sh <<'END'
mkdir -p disk && mount -t tmpfs -o "size=$2k" tmpfs disk || exit 77
cp -r saved disk/on || exit 78
"$1" train --schema criteo --model dnn --set 'deep=[8]' --set embedding.dim=16 --batch 64 --train log.tsv --out disk/on --resume \
    --checkpoint-rows "$3" --memory "$4" >out 2>err </dev/null
code=$?
rm -rf on && cp -r disk/on on && ls disk >left
exit $code
END
    local used room memory rows failed=0
    used=$(du -sk saved | cut -f 1)
    for memory in 40 0; do
        for rows in 0 640; do
            for room in 300 1000 2400; do # KiB beside what was saved
                unshare --user --map-root-user --mount bash small.sh "$program" $((used + room)) $rows $memory
                code=$?
                [ $code -eq 77 ] && echo "  SKIP: nothing can be mounted here" && return
                [ $code -eq 0 ] && continue # there was room
                failed=$((failed + 1))
                [ $code -eq 1 ] || wrong "$room KiB: ended with $code"
                tail -n 1 err | grep -qE '^clicktower train: .*No space left' || wrong "$room KiB: the last line does not say that the disk is full"
                [ "$(cat left)" = on ] || wrong "$room KiB, a limit of $memory MiB: left $(cat left)"
                "$program" verify on >out 2>err || wrong "$room KiB: what was saved last is damaged"
                goes_on "$room KiB, a limit of $memory MiB, checkpoints each $rows rows"
            done
        done
    done
    echo "  the disk was full $failed times"
    [ $failed -ge 5 ] || wrong "not as often as meant"
}

damage() { # FILE KIND
    case $2 in
        missing) rm "$1" ;;
        cut) truncate -s $(($(stat -c %s "$1") * 2 / 3)) "$1" ;;
        flipped)
            local at
            at=$(($(stat -c %s "$1") / 2))
            printf '%b' "\\x$(printf '%02x' $((0x$(od -An -tx1 -j $at -N 1 "$1" | tr -d ' ') ^ 16)))" |
                dd of="$1" bs=1 seek=$at conv=notrunc status=none
            ;;
    esac
}

files_are_damaged() {
    local file kind verb refused=0
    local model=("${model[@]}" --set embedding.admission=filter --set embedding.filter_mib=1)
    "$program" train "${model[@]}" --train part.tsv --out held --memory 40 >out 2>err </dev/null || wrong "train --memory: $(tail -n 1 err)"
    for file in $(cd held && ls tables/*.sst | head -n 1) tables/CURRENT $(cd held && ls tables/MANIFEST-*) tables/store.json tables/table-0.filter \
        tower.safetensors model.yaml manifest; do
        for kind in missing cut flipped; do
            rm -rf broken && cp -r held broken
            damage "broken/$file" $kind
            cmp -s "held/$file" "broken/$file" && wrong "$file is not damaged"
            for verb in "eval --model broken --data part.tsv" "eval --model broken --data part.tsv --memory 16" "inspect broken" "verify broken" \
                "train --out broken --resume --train log.tsv" "train --out broken --resume --train log.tsv --memory 40" \
                "train --out other --init broken --train log.tsv"; do
                # shellcheck disable=SC2086 # the words of $verb
                case $verb in
                    train*) ct $verb "${model[@]}" ;;
                    *) ct $verb ;;
                esac
                [ "$code" -eq 1 ] || wrong "$file $kind: $verb ended with $code"
                grep -qE "broken.*${file##*/}" err || wrong "$file $kind: $verb does not name it: $(tail -n 1 err)"
                [ -e other ] && wrong "$file $kind: $verb wrote a model"
                refused=$((refused + 1))
            done
        done
    done
    echo "  $refused refusals"
    nothing_left "damaged files"
}

for case in a_file_may_not_grow a_disk_is_full files_are_damaged; do run_case $case; done
finish
