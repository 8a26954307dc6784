#!/usr/bin/env bash
# The files of histories in a run's folders: a checkpoint writes what has changed and links the rest, --keep leaves nothing that no folder
# needs, a run that is killed ahead of any change to the file system goes on to the same bits, and what is missing, cut or flipped is refused.
. tests/frame.sh
exec 2>/dev/null # what bash says of killed children
kill_at=$root/tests/tools/kill_at.so

cat >shop.yaml <<'EOF'
name: shop
format: {columns: 4}
fields:
  - {name: click, kind: label, column: 1}
  - {name: who, kind: unit, column: 2}
  - {name: item, kind: id, column: 3, type: integer}
  - {name: when, kind: time, column: 4}
  - {name: liked, kind: history, of: item, clicked: true, max: 5}
  - {name: seen, kind: history, of: item, max: 8}
EOF
# 1,500 users, each twice or thrice; then ten of them again and again, less than a percent of the users between two checkpoints.
awk 'BEGIN {
    srand(7)
    for (r = 0; r < 3840; r++) print int(rand() * 2) "\tu" r % 1500 "\t" int(rand() * 300) "\t" 1000 + r
    for (; r < 6144; r++) print int(rand() * 2) "\tu" r % 10 "\t" int(rand() * 300) "\t" 1000 + r
}' >log.tsv
model=(--schema shop.yaml --model lr --batch 256)
train() { "$program" train "${model[@]}" --train log.tsv "$@" >out 2>err </dev/null; }
size() { stat -c %s "$1"; }
nothing_left() { [ -z "$(find . -maxdepth 1 -name 'many.*')" ] || wrong "$1: left $(find . -maxdepth 1 -name 'many.*')"; }

train --out whole || wrong "without checkpoints: $(tail -n 1 err)"
wanted=$(digest whole)
[ -n "$wanted" ] || wrong "no digest"

checkpoints_cost_what_has_changed() {
    local memory folder last keep files
    for memory in 0 40; do
        rm -rf many many.*
        train --out many --checkpoint-rows 512 --keep 3 --memory $memory || wrong "--memory $memory: $(tail -n 1 err)"
        [ "$(digest many)" = "$wanted" ] || wrong "--memory $memory: another digest"
        [ "$(size many/histories/00)" -gt 100000 ] || wrong "the first file is too small for this test"
        keep=$(ls many.checkpoints)
        [ "$(wc -w <<<"$keep")" -eq 2 ] || wrong "kept: $keep"
        for folder in many $(sed 's,^,many.checkpoints/,' <<<"$keep"); do
            files=$(ls "$folder/histories" | wc -l)
            last=$folder/histories/$(printf %02d $((files - 1)))
            [ "$files" -gt 2 ] || wrong "$folder: $files files"
            [ $(($(size "$last") * 20)) -lt "$(size "$folder/histories/00")" ] || wrong "$last: $(size "$last") bytes for ten users"
            [ "$folder/histories/00" -ef many/histories/00 ] || wrong "$folder: the first file was written again"
            "$program" verify "$folder" >/dev/null 2>err || wrong "verify $folder: $(tail -n 1 err)"
        done
        # What is on the disk is what the newest folder needs: older ones' files are among them.
        files=$(find many many.checkpoints -path '*histories/*' -printf '%i\n' | sort -u | wc -l)
        [ "$files" -eq "$(ls many/histories | wc -l)" ] || wrong "$files files, and $(ls many/histories | wc -l) are needed"
        nothing_left_but_kept
    done
}
nothing_left_but_kept() { [ "$(find . -maxdepth 1 -name 'many.*')" = ./many.checkpoints ] || wrong "left $(echo many.*)"; }

kills_lose_nothing() {
    local with place part changes kills=0
    for with in "--memory 0" "--memory 40" "--memory 0 --epochs 2"; do
        # shellcheck disable=SC2086 # the words of $with
        train --out one $with || wrong "$with: the whole run"
        wanted=$(digest one)
        rm -rf many many.* count
        # shellcheck disable=SC2086
        env LD_PRELOAD="$kill_at" CT_KILL_AT=0 CT_KILL_COUNT=count ASAN_OPTIONS=verify_asan_link_order=0 "$program" train "${model[@]}" \
            --train log.tsv --out many --checkpoint-rows 1024 $with >out 2>err </dev/null || wrong "$with: a run that counts: $(tail -n 1 err)"
        changes=$(cat count)
        [ "$(digest many)" = "$wanted" ] || wrong "$with: another digest"
        for part in 2 4 7; do
            rm -rf many many.*
            place=$((part * changes / 8 + part * 5 % 11))
            # shellcheck disable=SC2086
            env LD_PRELOAD="$kill_at" CT_KILL_AT=$place ASAN_OPTIONS=verify_asan_link_order=0 "$program" train "${model[@]}" --train log.tsv \
                --out many --checkpoint-rows 1024 $with >out 2>err </dev/null && wrong "$with: not killed at $place of $changes"
            resume=()
            if [ -e many/manifest ]; then
                "$program" verify many >/dev/null 2>err || wrong "$with: killed at $place, the folder is damaged: $(tail -n 1 err)"
                resume=(--resume)
                kills=$((kills + 1))
            fi
            # shellcheck disable=SC2086
            train --out many --checkpoint-rows 1024 $with "${resume[@]}" || wrong "$with: after a kill at $place: $(tail -n 1 err)"
            [ "$(digest many)" = "$wanted" ] || wrong "$with: killed at $place of $changes: another digest"
            nothing_left "$with"
        done
    done
    echo "  $kills kills behind a checkpoint"
    [ $kills -ge 6 ] || wrong "not as many as meant"
}

files_that_are_damaged_are_refused() {
    local damage file verb at refused=0
    train --out held --checkpoint-rows 512 || wrong "held"
    for damage in "missing 00" "cut 00" "flipped 01" "missing 02"; do
        file=held/histories/${damage#* }
        rm -rf safe && cp -r held safe
        case $damage in
            missing*) rm "$file" ;;
            cut*) truncate -s $(($(size "$file") / 2)) "$file" ;;
            flipped*)
                at=$(($(size "$file") / 2))
                printf '%b' "\\x$(printf '%02x' $((0x$(od -An -tx1 -j $at -N 1 "$file" | tr -d ' ') ^ 16)))" |
                    dd of="$file" bs=1 seek=$at conv=notrunc status=none
                ;;
        esac
        for verb in "eval --model held --data log.tsv --live" "inspect held" "verify held" "train --resume --out held" "train --init held --out never"; do
            # shellcheck disable=SC2086 # the words of $verb
            case $verb in
                train*) ct $verb "${model[@]}" --train log.tsv ;;
                *) ct $verb ;;
            esac
            [ "$code" -eq 1 ] || wrong "$damage: $verb ended with $code"
            grep -q "$file" err || wrong "$damage: $verb does not name it: $(tail -n 1 err)"
            [ -e never ] && wrong "$damage: $verb wrote a model"
            refused=$((refused + 1))
        done
        rm -rf held && mv safe held
    done
    echo "  $refused refusals"
    cp held/histories/01 held/histories/60 # nothing lists it
    "$program" verify held >/dev/null 2>err || wrong "a stray file: $(tail -n 1 err)"
    grep -q "histories/60: the manifest does not list it" err || wrong "a stray file is not said"
}

# What the histories take stands in the manifest, so nobody reads them who has no room for them: not even their checksums.
a_limit_that_is_too_small_is_refused_before_they_are_read() {
    local verb
    train --out held --publish pub || wrong "held"
    cp -r held unread
    printf x | dd of=unread/histories/00 bs=1 seek=1000 conv=notrunc status=none
    cp -r pub/base-000000000000 unread.base
    printf x | dd of=unread.base/histories/00 bs=1 seek=1000 conv=notrunc status=none
    for verb in "eval --data log.tsv" serve; do
        # shellcheck disable=SC2086 # the words of $verb
        for folder in held unread; do
            expect 1 "$folder: a memory limit of 4 MiB is too small to read the model, whose histories take 1 MiB; give 5 MiB$" \
                $verb --model $folder --memory 4
        done
        # shellcheck disable=SC2086
        expect 1 "unread/histories/00: the file is not what was written" $verb --model unread --memory 5
    done
    expect 1 "a memory limit of 6 MiB is too small to read the model, whose histories take 1 MiB; give 7 MiB$" \
        serve --model held=unread.base --follow held=pub --memory 6
    expect 1 "histories/00: the file is not what was written" serve --model held=unread.base --follow held=pub --memory 7
    "$program" eval --model held --data log.tsv --predictions wanted.txt >out 2>err || wrong "eval"
    "$program" eval --model held --data log.tsv --predictions got.txt --memory 5 >out 2>err || wrong "eval --memory 5: $(tail -n 1 err)"
    cmp -s wanted.txt got.txt || wrong "eval --memory 5: other predictions"
}

for case in checkpoints_cost_what_has_changed kills_lose_nothing files_that_are_damaged_are_refused \
    a_limit_that_is_too_small_is_refused_before_they_are_read; do run_case $case; done
finish
