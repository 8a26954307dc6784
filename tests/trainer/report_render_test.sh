#!/usr/bin/env bash
# The report of a real run, rendered by Chromium without a window: numbers in its tables, charts that are drawn.
. tests/frame.sh
needs_browser report_is_rendered

report_is_rendered() {
    expect 0 . synth --rows 230000 --seed 5 --out log.tsv
    head -n 5000 log.tsv >short.tsv
    head -n 210000 log.tsv >train.tsv
    tail -n +210001 log.tsv >eval.tsv
    expect 0 . train --schema criteo --model lr --train train.tsv --eval eval.tsv --out model
    expect 0 . train --schema criteo --model lr --train short.tsv --out short
    expect 0 . verify model
    /usr/bin/python3 "$root/tests/trainer/report_render.py" model short || wrong "the report is not right"
}

run_case report_is_rendered
finish
