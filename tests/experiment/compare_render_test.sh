#!/usr/bin/env bash
# The page of a real comparison, rendered by Chromium without a window. Skips where Chromium or Selenium is not installed (Debian's chromium,
# chromium-driver and python3-selenium).
set -u

program=$PWD/tools/clicktower
script=$PWD/tests/experiment/compare_render.py
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/report.XXXXXX")
trap 'rm -rf "$work"' EXIT
export HOME=$work # for the browser's own files

skip() {
    echo "SKIP: $1"
    echo "[  SKIPPED ] comparison_is_rendered"
    exit 0
}
command -v chromium >/dev/null || skip "chromium is not installed"
command -v chromedriver >/dev/null || skip "chromedriver (package chromium-driver) is not installed"
/usr/bin/python3 -c 'import selenium' 2>/dev/null || skip "python3-selenium is not installed"

cd "$work" || exit 1
printf 'model: lr\nslices: [I1]\narms:\n  - {name: id, exclude: [item_vector]}\n  - {name: both}\n  - {name: shuffled, placebo: both}\n' >arms.yaml
if "$program" synth --rows 12000 --seed 5 --out log.tsv --vectors items.npy --schema-out log.yaml >/dev/null &&
    head -n 9000 log.tsv >train.tsv && tail -n +9001 log.tsv >test.tsv &&
    "$program" compare --schema log.yaml --arms arms.yaml --train train.tsv --test test.tsv --seeds 2 --draws 200 --out report >/dev/null &&
    /usr/bin/python3 "$script" report "$@"; then
    echo "[       OK ] comparison_is_rendered"
else
    echo "[  FAILED  ] comparison_is_rendered"
    exit 1
fi
