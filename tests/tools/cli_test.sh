#!/usr/bin/env bash
# The command as a user meets it: help, exit codes, last lines, bad input, signals, damaged and moved folders, and the same digest from every
# form of the same log. Each case is a function; its output is shown where it fails. Nothing here waits for a time to pass.
. tests/frame.sh

small=(--schema criteo --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --set cross.layers=1 --batch 512)
lr=(--schema criteo --model lr --batch 512)
# Flips the lowest bit of byte $2 of file $1.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059
    printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# --- help and wrong use ---

help_is_on_standard_output() {
    for arguments in --help "train --help" "eval --help" "compare --help" "split --help" "convert --help" "synth --help" "serve --help" "score --help" \
        "inspect --help" "verify --help"; do
        # shellcheck disable=SC2086
        expect 0 "" $arguments
        has out "^Usage: clicktower"
        has out "^Examples:"
        [ -s err ] && wrong "$arguments writes to standard error"
    done
    ct train --help
    tr -s '[:space:]' ' ' <out >flat # as if there were no line ends
    has flat "default 256"
    has out "--train=SOURCE..."
    ct --version
    has out "^clicktower [0-9]+\.[0-9]+\.[0-9]+$"
}

wrong_use_ends_with_2() {
    expect 2 "a verb is needed"
    expect 2 "unknown verb 'trian': did you mean 'train'" trian
    expect 2 "unknown verb 'xyzzy': .*--help" xyzzy
    expect 2 "--schema .*is needed.*--help" train
    expect 2 "--batch is '0': give a whole number from 1 to" train "${lr[@]}" --train a --out b --batch 0
    expect 2 "--threads is '3x'" eval --model m --data d --threads 3x
    expect 2 "--rows is '99999999999999999999'" synth --rows 99999999999999999999 --out -
    expect 2 "--seed is '-1'" train --seed -1
    expect 2 "--seed needs a value" train --seed
    expect 2 "unknown option '--shema': did you mean --schema" train --shema x
    expect 2 "'b' belongs to no option" train --seed 1 b
    expect 2 "--precision is 'fp16': give one of auto" train --precision fp16
    expect 2 "--device is 'cuda'" train --device cuda
    expect 2 "--max-bad-rows is '101%'" train --max-bad-rows 101%
    expect 2 "--listen is 'localhost': give HOST:PORT" serve --model m --listen localhost
    expect 2 "--to is '127.0.0.1:0'" score --to 127.0.0.1:0 --data d
    expect 2 "give one DIR" verify
    expect 2 "give one DIR" verify a b
    expect 2 "standard input .* 2 times" train "${lr[@]}" --train - --eval - --out m
    expect 2 "standard input .* 2 times" train "${lr[@]}" --train - --epochs 2 --out m
    expect 2 "cannot share standard output" eval --model m --data d --json - --predictions -
    expect 2 "two models are called 'm'" serve --model a/m b/m
    expect 2 "unknown option '--follow'" train --follow
    expect 2 "--publish needs a value" train --publish
}

a_full_disk_is_a_failure() {
    "$program" --help >/dev/full 2>err
    code=$?
    [ $code -eq 1 ] || wrong "exit code $code"
    has err "standard output: No space left"
    "$program" eval --model model --data log.tsv --predictions - >/dev/full 2>err
    code=$?
    [ $code -eq 1 ] || wrong "eval: exit code $code"
    has err "standard output: No space left"
}

# --- a log in every form ---

make_log() {
    expect 0 "" synth --rows 4000 --seed 3 --out log.tsv
    has out "^best_auc 0\.[0-9]+$"
    "$program" synth --rows 4000 --seed 3 --out - 2>/dev/null | cmp - log.tsv || wrong "standard output holds another log than the file"
    expect 0 "" synth --rows 4000 --seed 3 --out log.tsv.gz --json
    /usr/bin/python3 -c 'import json; truth = json.load(open("out")); assert truth["rows"] == 4000 and 0.5 < truth["best_auc"] < 1' ||
        wrong "--json is no JSON with the truth in it"
    gzip -dc log.tsv.gz | cmp - log.tsv || wrong "the .gz holds another log"
    expect 0 "" convert --schema criteo --in log.tsv --out log.ctb
    has out "^rows 4000$"
    expect 0 "" train "${small[@]}" --train log.tsv --eval log.tsv --out model --threads 1
    has out "^trained +rows 4000 +epochs 1 "
    has out "^progressive +auc 0\.[0-9]+ +log_loss 0\."
    has out "^evaluation +rows 4000 +auc 0\."
    has out "^model +model$"
    [ -s err ] && wrong "a good run says something on standard error: $(head -n 1 err)"
    head -n 1100 log.tsv >rows.tsv
    wanted=$(digest model)
    [[ $wanted =~ ^[0-9a-f]{32}$ ]] || wrong "verify prints no digest: $wanted"
}

# same NAME OPTION...: trains with these options and compares the digest.
same() {
    local name=$1
    shift
    rm -rf again
    "$program" train "${small[@]}" --out again "$@" >out 2>err
    code=$?
    [ $code -eq 0 ] || wrong "$name: exit code $code"
    local found
    found=$(digest again)
    [ "$found" = "$wanted" ] || wrong "$name: digest $found, expected $wanted"
}

same_digest_for_any_threads_twice_in_a_row() {
    for threads in 1 2 3 8; do
        same "$threads threads" --train log.tsv --threads $threads
        same "$threads threads, again" --train log.tsv --threads $threads
    done
    rm -rf again
    "$program" train "${small[@]}" --out again --train log.tsv --seed 2 >/dev/null 2>&1
    [ "$(digest again)" != "$wanted" ] || wrong "another seed gives the same digest"
}

same_digest_from_any_form_of_the_log() {
    same "gzip" --train log.tsv.gz
    same "block file" --train log.ctb
    same "standard input" --train - <log.tsv
    same "gzip on standard input" --train - <log.tsv.gz
    same "block file on standard input" --train - <log.ctb
    head -n 1500 log.tsv >a.tsv
    tail -n +1501 log.tsv >b.tsv
    same "two files" --train a.tsv b.tsv
    gzip -k a.tsv b.tsv
    cat a.tsv.gz b.tsv.gz >members.gz
    same "two gzip members" --train members.gz
    "$program" convert --schema criteo --in a.tsv.gz --out a.ctb >/dev/null
    same "a block file and a gzip" --train a.ctb b.tsv.gz
    sed 's/$/\r/' log.tsv >crlf.tsv
    same "CRLF" --train crlf.tsv
    head -c -1 log.tsv >no-newline.tsv
    same "no last newline" --train no-newline.tsv
    sed '7s/^/\n\n/;$s/$/\n\n/' log.tsv >blank.tsv
    same "blank lines" --train blank.tsv
    cp log.tsv "a name with blanks.tsv"
    same "a name with blanks" --train "a name with blanks.tsv"
}

# --- bad input ---

# bad LINE REASON: a log with that line as its 1,001st: counted, shown with its place, left out; a failure where none is forgiven.
bad() {
    local reason=$2
    { head -n 1000 log.tsv; printf '%s\n' "$1"; tail -n +1001 log.tsv; } >bad.tsv
    expect 0 "" convert --schema criteo --in bad.tsv --out bad.ctb
    has out "^rows 4000$"
    has out "^bad_rows 1$"
    has err "bad row: bad.tsv:1001: .*$reason"
    has err "1 bad input rows were left out of 4001"
    cmp -s bad.ctb log.ctb || wrong "$reason: the other rows changed"
    expect 1 "bad" convert --schema criteo --in bad.tsv --out bad.ctb --max-bad-rows 0
    has err "bad.tsv"
}

bad_rows_are_counted_and_shown() {
    local good
    good=$(head -n 1 log.tsv)
    bad "${good%$'\t'*}" "39"
    bad "$good"$'\t'"x" "41"
    bad "2${good:1}" "'?2'?"
    bad "x${good:1}" "x"
    bad "$(awk -F'\t' -v OFS='\t' 'NR == 1 {$2 = "one"; print}' log.tsv)" "one"
    { printf '0\0'; cut -c 2- <<<"$good" | head -n 1; } >nul.txt
    { head -n 1000 log.tsv; cat nul.txt; tail -n +1001 log.tsv; } >nul.tsv
    expect 0 "" convert --schema criteo --in nul.tsv --out bad.ctb
    has err "nul.tsv:1001: .*NUL"
    { head -n 1000 log.tsv; head -c 1048577 /dev/zero | tr '\0' x; echo; tail -n +1001 log.tsv; } >long.tsv
    expect 0 "" convert --schema criteo --in long.tsv --out bad.ctb
    has err "long.tsv:1001: .*long"
    cmp -s bad.ctb log.ctb || wrong "a line that is too long changed the other rows"
}

max_bad_rows_is_a_limit() {
    { cat log.tsv; for i in 1 2 3 4 5; do echo "bad $i"; done; } >five.tsv
    expect 0 "" train "${lr[@]}" --train five.tsv --out limit --max-bad-rows 5
    has out "^bad_rows +training 5"
    has err "5 bad training rows were left out of 4005 \(field count 5\)"
    expect 1 "five.tsv" train "${lr[@]}" --train five.tsv --out limit2 --max-bad-rows 4
    [ -e limit2 ] && wrong "a failed run left a folder"
    expect 0 "" train "${lr[@]}" --train five.tsv --out limit --max-bad-rows 0.2%
    expect 1 "five.tsv" train "${lr[@]}" --train five.tsv --out limit2 --max-bad-rows 0.1%
}

edges_of_numbers_are_numbers() {
    awk -F'\t' -v OFS='\t' '
        NR == 5 {$2 = "-2147483648"; $3 = "9223372036854775808"; $4 = "-18446744073709551616"; $5 = ""}
        NR == 6 {for (i = 2; i <= 40; i++) $i = ""}
        {print}' log.tsv >edges.tsv
    expect 0 "" train "${small[@]}" --train edges.tsv --out edges
    [ -s err ] && wrong "numbers past int64 are numbers: $(head -n 1 err)"
    expect 0 "" eval --model edges --data edges.tsv --json -
    /usr/bin/python3 -c 'import json; metrics = json.load(open("out")); assert metrics["rows"] == 4000 and metrics["bad_rows"] == 0
assert 0 < metrics["log_loss"] < 2 and 0 < metrics["auc"] < 1' || wrong "metrics: $(cat out)"
}

bad_sources_are_failures() {
    : >empty.tsv
    expect 1 "empty.tsv" train "${lr[@]}" --train empty.tsv --out none
    printf '\n\n' >blanks-only.tsv
    expect 1 "blanks-only.tsv" train "${lr[@]}" --train blanks-only.tsv --out none
    head -n 20 log.tsv | cut -f 1-39 >all-bad.tsv
    expect 1 "all-bad.tsv" train "${lr[@]}" --train all-bad.tsv --out none
    expect 1 "nowhere.tsv.*No such file" train "${lr[@]}" --train nowhere.tsv --out none
    expect 1 "nowhere.tsv.*No such file" train "${lr[@]}" --train log.tsv --eval nowhere.tsv --out none
    head -c 20000 log.tsv.gz >cut.gz
    expect 1 "cut.gz" train "${lr[@]}" --train cut.gz --out none
    cp log.tsv.gz corrupt.gz
    printf 'XXXXXXXX' | dd of=corrupt.gz bs=1 seek=30000 conv=notrunc status=none
    expect 1 "corrupt.gz" train "${lr[@]}" --train corrupt.gz --out none
    { cat log.tsv.gz; echo garbage; } >garbage.gz
    expect 1 "garbage.gz" train "${lr[@]}" --train garbage.gz --out none
    head -c -10 log.ctb >cut.ctb
    expect 1 "cut.ctb" train "${lr[@]}" --train cut.ctb --out none
    expect 1 "cut.ctb" verify cut.ctb
    cp log.ctb flipped.ctb
    flip flipped.ctb 100000
    expect 1 "flipped.ctb" train "${lr[@]}" --train flipped.ctb --out none
    expect 1 "flipped.ctb" verify flipped.ctb
    expect 1 "." train "${lr[@]}" --train . --out none
    [ -e none ] && wrong "a failed run left a folder"
    ls -d none* .none* 2>/dev/null && wrong "a failed run left something beside its folder"
}

bad_schemas_and_models_are_failures() {
    cat >wrong.yaml <<'END'
name: wrong
format: {separator: "\t", header: false, columns: 40}
fields:
  - {name: label, kind: label, column: 1}
  - {name: price, kind: numeral, column: 2}
END
    expect 1 "wrong.yaml:5.*price.*numeral|wrong.yaml.*5.*numeral" train --schema wrong.yaml --model lr --train log.tsv --out none
    expect 1 "wrong.yaml" inspect wrong.yaml
    sed 's/numeral/number/; s/column: 2/column: 41/' wrong.yaml >column.yaml
    expect 1 "column.yaml.*price.*41" train --schema column.yaml --model lr --train log.tsv --out none
    expect 1 "nowhere.yaml" train --schema nowhere.yaml --model lr --train log.tsv --out none
    expect 1 "lx" train --schema criteo --model lx --train log.tsv --out none
    expect 1 "depth" train "${lr[@]}" --train log.tsv --out none --set depth=3
    expect 1 "embedding.dim" train "${lr[@]}" --train log.tsv --out none --set embedding.dim=-1
    [ -e none ] && wrong "a failed run left a folder"
}

times_that_go_back_are_said() {
    cat >timed.yaml <<'END'
name: timed
format: {separator: ",", header: false, columns: 3}
fields:
  - {name: label, kind: label, column: 1}
  - {name: when, kind: time, column: 2, time_unit: seconds}
  - {name: item, kind: id, column: 3, side: candidate, type: text}
END
    for i in $(seq 1 50); do echo "$((i % 2)),$((1000 + i)),item$((i % 5))"; done >timed.csv
    expect 0 "" train --schema timed.yaml --model lr --train timed.csv --out timed --set embedding.min_count=1
    [ -s err ] && wrong "sorted times are fine: $(head -n 1 err)"
    sed -i '10s/,1010,/,500,/' timed.csv
    expect 0 "" train --schema timed.yaml --model lr --train timed.csv --out timed
    has err "warning: 1 of 50 training rows have a time before"
}

# --- model folders ---

moved_folder_works() {
    mkdir -p else/where
    cp -r model else/where/m2
    expect 0 "" eval --model model --data log.tsv --predictions a.txt --threads 1
    (cd else/where && "$program" eval --model m2 --data - --predictions ../../b.txt --threads 3 <../../log.ctb >/dev/null 2>&1) ||
        wrong "eval of the moved folder failed"
    cmp a.txt b.txt || wrong "the moved folder predicts something else"
    [ "$(wc -l <a.txt)" -eq 4000 ] || wrong "$(wc -l <a.txt) predictions for 4000 rows"
    "$program" eval --model model --data log.tsv --predictions - >c.txt 2>/dev/null
    cmp a.txt c.txt || wrong "predictions on standard output differ from the file's"
    # The shortest text that gives a float back is not asked for, but the float must come back: nine digits do.
    /usr/bin/python3 - <<'END' || wrong "predictions do not give their floats back"
import struct
for line in open("a.txt"):
    value = float(line)
    single = struct.unpack("f", struct.pack("f", value))[0]
    assert 0 < single < 1 and f"{single:.9g}" == line.strip(), line
END
    [ "$(digest else/where/m2)" = "$wanted" ] || wrong "the moved folder has another digest"
}

one_flipped_byte_is_found() {
    local file bytes place
    find model -type f -size +0 | sort >files.txt
    [ "$(wc -l <files.txt)" -ge 7 ] || wrong "a model folder of $(wc -l <files.txt) files"
    while read -r file; do
        bytes=$(stat -c %s "$file")
        for place in 0 $((bytes / 2)) $((bytes - 1)); do
            rm -rf broken
            cp -r model broken
            flip "broken/${file#model/}" $place
            expect 1 "" verify broken
            has err "broken/${file#model/}"
            [ $place -eq $((bytes / 2)) ] || continue
            expect 1 "broken/${file#model/}" eval --model broken --data log.tsv
            timeout 600 "$program" serve --model broken --listen 127.0.0.1:0 >out 2>err </dev/null
            code=$?
            [ $code -eq 1 ] || wrong "serve of a broken $file: exit code $code"
            has err "broken/${file#model/}"
        done
        rm -rf broken
        cp -r model broken
        rm "broken/${file#model/}"
        expect 1 "" verify broken
        has err "${file#model/}"
    done <files.txt
    expect 0 "" verify model
}

folders_that_are_none_are_failures() {
    expect 1 "nowhere" verify nowhere
    expect 1 "nowhere" eval --model nowhere --data log.tsv
    expect 1 "nowhere" serve --model nowhere
    expect 1 "nowhere" inspect nowhere
    mkdir -p empty
    expect 1 "empty" eval --model empty --data log.tsv
    expect 1 "log.tsv" verify log.tsv
    mkdir -p mine && echo precious >mine/file
    expect 1 "mine" train "${lr[@]}" --train log.tsv --out mine
    [ "$(cat mine/file)" = precious ] || wrong "train destroyed a folder that is no model"
    expect 1 "mine/file" train "${lr[@]}" --train log.tsv --out mine/file/model
}

inspect_shows_what_is_there() {
    expect 0 "" inspect model
    has out "^model dcn-v2$"
    has out "^rows 4000$"
    has out "^digest $wanted$"
    expect 0 "" inspect model --json
    /usr/bin/python3 -c 'import json; assert json.load(open("out"))["rows"] == 4000' || wrong "inspect model --json"
    expect 0 "" inspect log.ctb --json
    /usr/bin/python3 -c 'import json; assert json.load(open("out"))["rows"] == 4000' || wrong "inspect log.ctb --json"
    expect 0 "" inspect criteo
    has out "^schema criteo$"
    has out " C26 +id "
    expect 0 "" verify log.ctb
    has out "^digest [0-9a-f]{32}$"
}

# --- signals ---

# Starts the program in the background; its standard input is what the caller gives.
start() {
    "$program" "$@" >out 2>err &
    child=$!
    children+=("$child")
}
await() {
    wait "$child"
    code=$?
}

a_signal_before_the_first_row_leaves_no_folder() {
    local signal
    for signal in INT TERM; do
        rm -f pipe
        mkfifo pipe
        start train "${lr[@]}" --train pipe --out early
        exec 7>pipe # returns once train has opened its end
        kill -s $signal "$child"
        await
        exec 7>&-
        [ $code -eq 1 ] || wrong "SIG$signal: exit code $code"
        has err "^clicktower train: stopped by SIG$signal: .*nothing was written"
        [ -e early ] && wrong "SIG$signal: a folder without a row"
    done
    true
}

a_signal_later_leaves_a_usable_folder() {
    local signal
    for signal in INT TERM; do
        rm -rf pipe late
        mkfifo pipe
        start train --schema criteo --model lr --batch 64 --train pipe --out late
        exec 7>pipe
        # Far more than the pipe, the buffers and the batches that are read ahead hold, so some of it was learned when cat returns.
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat log.tsv >&7; done
        kill -s $signal "$child"
        await
        exec 7>&-
        [ $code -eq 1 ] || wrong "SIG$signal: exit code $code"
        has err "^clicktower train: stopped by SIG$signal: late holds the model of the first [0-9]+ rows"
        expect 0 "" verify late
        expect 0 "" eval --model late --data log.tsv
    done
}

a_signal_stops_the_other_verbs() {
    rm -f pipe
    mkfifo pipe
    start convert --schema criteo --in pipe --out never.ctb
    exec 7>pipe
    kill -s TERM "$child"
    await
    exec 7>&-
    [ $code -eq 1 ] || wrong "convert: exit code $code"
    has err "^clicktower convert: stopped by SIGTERM: no file was written"
    start eval --model model --data pipe --predictions never.txt
    exec 7>pipe
    kill -s INT "$child"
    await
    exec 7>&-
    [ $code -eq 1 ] || wrong "eval: exit code $code"
    has err "^clicktower eval: stopped by SIGINT"
    ls never* .never* 2>/dev/null && wrong "something was left behind"
    true
}

# --- serving ---

# Starts a server on a free port; sets $child and $address.
start_server() {
    rm -f ready
    mkfifo ready
    "$program" serve --listen 127.0.0.1:0 --queue-ms 600000 "$@" >ready 2>serve.err </dev/null &
    child=$!
    children+=("$child")
    local line=
    read -r line <ready
    address=${line#listening on }
    [[ $address == 127.0.0.1:* ]] || wrong "the server says '$line': $(tail -n 1 serve.err)"
}
stop_server() {
    kill -s "$1" "$child"
    await
    [ $code -eq 0 ] || wrong "serve ended with $code after SIG$1: $(tail -n 1 serve.err)"
    has serve.err "event=serve.start "
    has serve.err "event=serve.stop .*signal=SIG$1"
}

scores_equal_predictions() {
    local isa
    for isa in "" AVX2 AVX512_CORE; do
        if [ -n "$isa" ]; then export DNNL_MAX_CPU_ISA=$isa; fi
        expect 0 "" eval --model model --data rows.tsv --predictions expected.txt
        start_server --model model --threads 2
        for shape in "--rows-per-request 7" "--rows-per-request 256 --context" "--rows-per-request 1000 --context" \
            "--rows-per-request 1000"; do
            # shellcheck disable=SC2086
            expect 0 "" score --to "$address" --data rows.tsv $shape
            cmp out expected.txt || wrong "score $shape differs from eval --predictions (${isa:-this processor})"
        done
        expect 0 "" score --to "$address" --data rows.tsv --rows-per-request 1 --max-rows 150
        head -n 150 expected.txt | cmp - out || wrong "one row a request differs from eval --predictions (${isa:-this processor})"
        stop_server TERM
    done
    unset DNNL_MAX_CPU_ISA
}

score_has_a_json_form_and_a_schema_of_its_own() {
    start_server --model first=model second=model
    expect 0 "" eval --model model --data rows.tsv --predictions expected.txt
    expect 0 "" score --to "$address" --data rows.tsv --json --model second --schema criteo
    /usr/bin/python3 - <<'END' || wrong "score --json"
import json
answer = json.load(open("out"))
assert answer["rows"] == 1100 == len(answer["probabilities"])
assert all(abs(a - float(b)) < 1e-6 for a, b in zip(answer["probabilities"], open("expected.txt")))
END
    expect 1 "third" score --to "$address" --data rows.tsv --model third --schema criteo
    expect 1 "log.ctb" score --to "$address" --data log.ctb
    stop_server INT
}

addresses_that_do_not_work_are_failures() {
    start_server --model model
    expect 1 "$address" serve --model model --listen "$address"
    stop_server TERM
    expect 1 "$address" score --to "$address" --data rows.tsv --timeout 5
}

# --- compare ---

compare_reports_two_arms() {
    expect 0 "" synth --rows 4000 --seed 3 --out v.tsv --vectors items.npy --schema-out v.yaml
    cmp v.tsv log.tsv || wrong "vectors change the log"
    cat >arms.yaml <<'END'
model: lr
item: C2
arms:
  - {name: id, exclude: [item_vector]}
  - {name: id+vector}
END
    head -n 3000 v.tsv >train.tsv
    tail -n +3001 v.tsv >test.tsv
    expect 0 "" compare --schema v.yaml --arms arms.yaml --train train.tsv --test test.tsv --seeds 2 --draws 200 --out report
    has out "id\+vector"
    /usr/bin/python3 -c 'import json; json.load(open("report/compare.json"))' || wrong "compare.json"
    expect 0 "" compare --schema v.yaml --arms arms.yaml --train train.tsv --test test.tsv --seeds 2 --draws 200 --out report2 --threads 3
    diff <(grep -v second report/compare.json) <(grep -v second report2/compare.json) || wrong "another number of threads, another report"
    expect 1 "test.tsv is among" compare --schema v.yaml --arms arms.yaml --train test.tsv --test test.tsv --out report3
    sed -i 's/item_vector/item_vektor/' arms.yaml
    expect 1 "item_vektor" compare --schema v.yaml --arms arms.yaml --train train.tsv --test test.tsv --out report3
    expect 1 "nowhere.yaml" compare --schema v.yaml --arms nowhere.yaml --train train.tsv --test test.tsv --out report3
}

cases=(help_is_on_standard_output wrong_use_ends_with_2 same_digest_for_any_threads_twice_in_a_row same_digest_from_any_form_of_the_log
    a_full_disk_is_a_failure bad_rows_are_counted_and_shown max_bad_rows_is_a_limit edges_of_numbers_are_numbers bad_sources_are_failures
    bad_schemas_and_models_are_failures times_that_go_back_are_said moved_folder_works one_flipped_byte_is_found
    folders_that_are_none_are_failures inspect_shows_what_is_there a_signal_before_the_first_row_leaves_no_folder
    a_signal_later_leaves_a_usable_folder a_signal_stops_the_other_verbs scores_equal_predictions
    score_has_a_json_form_and_a_schema_of_its_own addresses_that_do_not_work_are_failures compare_reports_two_arms)
[ $# -eq 0 ] || cases=("$@") # --test_arg=CASE runs one case alone

run_case make_log
for case in "${cases[@]}"; do run_case "$case"; done
finish
