#!/usr/bin/env bash
# eval --slice and --importance from outside: what they say is checked against the log's own tokens and the predictions, by eval_check.py.
set -u

program=$PWD/tools/clicktower
check=$PWD/tests/trainer/eval_check.py
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/eval.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

failures=0
case_failed=false
wrong() {
    case_failed=true
    echo "  $*"
    [ -s err ] && echo "  last line of standard error: $(tail -n 1 err)"
}
run_case() {
    case_failed=false
    "$1"
    if $case_failed; then
        failures=$((failures + 1))
        echo "[  FAILED  ] $1"
    else
        echo "[       OK ] $1"
    fi
}
# expect CODE ARGUMENT...: runs the program; its output is in out and err.
expect() {
    local wanted=$1
    shift
    "$program" "$@" >out 2>err </dev/null
    local code=$?
    [ $code -eq "$wanted" ] || wrong "clicktower $*: exit code $code, expected $wanted"
}

make_model() {
    expect 0 synth --rows 6000 --seed 3 --out log.tsv
    head -n 4000 log.tsv >train.tsv
    tail -n +4001 log.tsv >eval.tsv
    expect 0 train --schema criteo --model dcn-v2 --set 'deep=[16]' --set embedding.dim=4 --batch 512 --train train.tsv --out model
    expect 0 convert --schema criteo --in eval.tsv --out eval.ctb
    expect 0 eval --model model --data eval.tsv --predictions predictions.txt --json plain.json
}

slices_are_those_of_the_log() {
    expect 0 eval --model model --data eval.tsv --json slices.json --slice C5 --slice I1 --slice C2
    cp out table
    /usr/bin/python3 "$check" slices eval.tsv predictions.txt slices.json table || wrong "slices.json or the table is wrong"
    /usr/bin/python3 "$check" calibration eval.tsv predictions.txt plain.json || wrong "the calibration table is wrong"
}

neither_threads_nor_the_form_of_the_log_matter() {
    expect 0 eval --model model --data eval.tsv --json a.json --slice C5 --slice I1 --importance --repeats 1 --threads 1
    expect 0 eval --model model --data eval.ctb --json b.json --slice C5 --slice I1 --importance --repeats 1 --threads 3
    cmp a.json b.json || wrong "1 thread and a text give another result than 3 threads and a block file"
    /usr/bin/python3 "$check" same plain.json a.json || wrong "--slice or --importance change the metrics"
}

importance_is_a_table() {
    expect 0 eval --model model --data eval.tsv --json importance.json --importance
    cp out table
    /usr/bin/python3 "$check" importance importance.json table || wrong "importance.json or the table is wrong"
}

wrong_use_is_told() {
    expect 1 eval --model model --data eval.tsv --slice C99
    grep -q "C99" err || wrong "the last line does not name C99"
    expect 1 eval --model model --data eval.tsv --slice label
    expect 2 eval --model model --data eval.tsv --importance --repeats 0
}

for case in make_model slices_are_those_of_the_log neither_threads_nor_the_form_of_the_log_matter importance_is_a_table wrong_use_is_told; do
    run_case $case
done
exit $((failures > 0))
