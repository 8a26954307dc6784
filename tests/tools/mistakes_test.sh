#!/usr/bin/env bash
# What somebody who is new here does wrong, and what he reads: outputs that are inputs, one thing for another, help that is asked for in
# other ways, Ctrl-C while a command is waited for.
. tests/frame.sh

lr=(--schema criteo --model lr --batch 512)

make_files() {
    expect 0 "" synth --rows 2000 --seed 3 --out log.tsv --vectors items.npy --schema-out log.yaml
    expect 0 "" train "${lr[@]}" --train log.tsv --out model
    printf '1,2,3\n4,5,6\n' >other.csv
    printf 'unit\ttime\tarm\tvalue\na\t1\told\t1\nb\t2\tnew\t0\n' >clicks.tsv
    printf 'name: [\n' >broken.yaml
    : >empty
}

# keeps FILE PATTERN ARGUMENT...: wrong use, and the file stays as it was.
keeps() {
    local file=$1 before
    before=$(cksum <"$file")
    expect 2 "$2" "${@:3}"
    [ "$(cksum <"$file")" = "$before" ] || wrong "clicktower ${*:3}: $file has changed"
}
what_is_read_is_not_replaced() {
    ln log.tsv same.tsv
    keeps log.tsv "--out log.tsv is the file log.tsv, which is read" convert --schema criteo --in log.tsv --out log.tsv
    keeps log.tsv "--out same.tsv is the file log.tsv" convert --schema criteo --in log.tsv --out same.tsv
    keeps log.tsv "--predictions ./log.tsv" eval --model model --data log.tsv --predictions ./log.tsv
    keeps log.tsv "--json log.tsv" eval --model model --data log.tsv --json log.tsv
    keeps items.npy "--out items.npy" quantize --vectors items.npy --out items.npy
    keeps items.txt "--out items.txt" quantize --vectors items.npy --ids items.txt --out items.txt
    keeps clicks.tsv "--html clicks.tsv" report --table clicks.tsv --html clicks.tsv
    keeps clicks.tsv "--json clicks.tsv" report --table clicks.tsv --json clicks.tsv
    rm same.tsv
    expect 1 "--json none/m.json: cannot write into folder none: " eval --model model --data '|touch began; cat log.tsv' --json none/m.json
    [ -e began ] && wrong "a folder that is not there was told behind the work"
    expect 0 "" convert --schema criteo --in log.tsv --out /dev/null
}

one_thing_for_another() {
    for verb in "eval --data log.tsv" "serve --listen 127.0.0.1:0" example; do
        # shellcheck disable=SC2086
        expect 1 "log.tsv: is a file, not a model folder" $verb --model log.tsv
    done
    expect 1 "nothing: no such file or folder" inspect nothing
    expect 1 "no good row to convert \(2 bad ones\); the first: other.csv:1: 1 columns instead of 40" \
        convert --schema criteo --in other.csv --out other.ctb
    [ -e other.ctb ] && wrong "a block file of no row was written"
    expect 0 "^rows 0$" convert --schema criteo --in empty --out empty.ctb
    expect 1 "broken.yaml:2: not YAML: " train --schema criteo --model broken.yaml --train log.tsv --out m
    expect 1 "items.npy:1: not a text in UTF-8: " train --schema criteo --model items.npy --train log.tsv --out m
    expect 2 "give either --lift or --units" power --rate 0.1
    for live in made made/ ./made made//live made/live; do
        expect 2 "--publish $live is, or lies in, --out made, which is replaced" train "${lr[@]}" --train log.tsv --out made --publish $live
    done
    mkdir made
    expect 0 "^model +made$" train "${lr[@]}" --train log.tsv --out made --publish made-live
    mkdir -p work/notes
    expect 1 "work: there is something that is no model folder" train "${lr[@]}" --train log.tsv --out work
    expect 1 "schema synth has no time field; a split needs one" split --schema log.yaml --by time --in log.tsv --out parts
}

# refused OPTION NEEDED ARGUMENT...: an option that would be ignored.
refused() { expect 2 "$1 does nothing without $2: give that, too, or leave it out" "${@:3}"; }
what_would_be_ignored_is_refused() {
    local word
    refused --publish-rows "--publish DIR" train "${lr[@]}" --train log.tsv --out m --publish-rows 100
    refused --publish-seconds "--publish DIR" train "${lr[@]}" --train log.tsv --out m --publish-seconds 9
    refused --repeats --importance eval --model model --data log.tsv --repeats 3
    refused --seed "--unseen-items P%" split --schema timed.yaml --by time --in timed.tsv --out parts --seed 7
    refused --tail-slope "--tail N" synth --rows 10 --out s.tsv --tail-slope 1
    refused --tail-slope "--tail N" synth --rows 10 --out s.tsv --tail-slope 1 --tail 0
    refused --units-per-day "--lift L" power --rate 0.1 --units 1000 --units-per-day 10
    for word in positive=buy event=buy wait-seconds=60 until=1700000000 covariate=x.tsv training=log.tsv slice=C1; do
        refused "--${word%=*}" "--exposures DIR" report --table clicks.tsv --schema criteo --$word
    done
    for word in control=old weights=old=1,new=1; do
        refused "--${word%%=*}" "--table SOURCE" report --exposures x --feedback x --experiment x.yaml --$word
    done
    expect 0 '"days": 14.0' power --rate 0.1 --lift 0.5 --units-per-day 100 --json # 1366 units
}

help_however_it_is_asked_for() {
    local verb
    "$program" train --help >wanted
    for arguments in "train -h" "help train" "--help train" "train --help --foo"; do
        # shellcheck disable=SC2086
        expect 0 "" $arguments
        cmp -s out wanted || wrong "clicktower $arguments: another help than that of train --help"
    done
    expect 2 "unknown verb 'trian': did you mean 'train'" help trian
    # Fits into 79 columns; an example can be copied as it stands.
    for verb in $("$program" --help | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p' | grep -v '^clicktower$'); do
        "$program" "$verb" --help >out || wrong "$verb --help"
        grep -nE '.{80}|[[:blank:]]$' out && wrong "$verb --help: a line is too long or ends with blanks"
        sed '1,/^Examples:$/d' out | grep -vE '^  ' && wrong "$verb --help: an example is broken into two lines"
    done
    return 0
}

# The command that is read says that it has begun by opening the pipe; it waits for nothing that comes.
a_signal_is_heard_while_a_command_is_waited_for() {
    local arguments child
    mkfifo begun never
    for arguments in "report --table" "schema" "split --schema timed.yaml --by time --out parts --in"; do
        # shellcheck disable=SC2086
        "$program" $arguments '|echo >begun; cat never' >out 2>err </dev/null &
        child=$!
        children+=("$child")
        waiting="the command of $arguments"
        read -r _ <begun
        waiting="the end of $arguments"
        kill -INT "$child"
        wait "$child"
        code=$?
        waiting=
        [ $code -eq 1 ] || wrong "$arguments: exit code $code"
        has err "^clicktower ${arguments%% *}: stopped by SIGINT: no "
    done
}

a_split_does_not_replace_what_it_reads() {
    local i
    for ((i = 0; i < 100; i++)); do printf '%d\t%d\n' $((i % 2)) $((1700000000 + i)); done >timed.tsv
    local split=(split --schema timed.yaml --by time --out parts --in)
    expect 0 "" "${split[@]}" timed.tsv
    local before
    before=$(cksum <parts/train.tsv)
    expect 1 "parts/train.tsv is read, and would be replaced by the split in parts" "${split[@]}" timed.tsv parts/train.tsv
    [ "$(cksum <parts/train.tsv)" = "$before" ] || wrong "parts/train.tsv has changed"
    expect 0 "" "${split[@]}" timed.tsv
    rm -r parts
}

run_case make_files
run_case what_is_read_is_not_replaced
run_case one_thing_for_another
run_case help_however_it_is_asked_for
printf 'name: timed\nformat: {separator: "\\t", columns: 2}\nfields:\n  - {name: label, kind: label, column: 1}\n  - {name: when, kind: time, column: 2}\n' >timed.yaml
run_case what_would_be_ignored_is_refused
run_case a_split_does_not_replace_what_it_reads
run_case a_signal_is_heard_while_a_command_is_waited_for
finish
