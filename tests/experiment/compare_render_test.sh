#!/usr/bin/env bash
# The page of a real comparison, rendered by Chromium without a window.
. tests/frame.sh
needs_browser comparison_is_rendered

comparison_is_rendered() {
    printf 'model: lr\nslices: [I1]\narms:\n  - {name: id, exclude: [item_vector]}\n  - {name: both}\n  - {name: shuffled, placebo: both}\n' >arms.yaml
    expect 0 . synth --rows 12000 --seed 5 --out log.tsv --vectors items.npy --schema-out log.yaml
    head -n 9000 log.tsv >train.tsv
    tail -n +9001 log.tsv >test.tsv
    expect 0 . compare --schema log.yaml --arms arms.yaml --train train.tsv --test test.tsv --seeds 2 --draws 200 --out report
    /usr/bin/python3 "$root/tests/experiment/compare_render.py" report || wrong "the page is not right"
}

run_case comparison_is_rendered
finish
