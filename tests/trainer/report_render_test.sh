#!/usr/bin/env bash
# The report of a real run, rendered by Chromium without a window: numbers in its tables, charts that are drawn. Skips where Chromium or
# Selenium is not installed (Debian's chromium, chromium-driver and python3-selenium).
set -u

program=$PWD/tools/clicktower
script=$PWD/tests/trainer/report_render.py
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/report.XXXXXX")
trap 'rm -rf "$work"' EXIT
export HOME=$work # for the browser's own files

skip() {
    echo "SKIP: $1"
    echo "[  SKIPPED ] report_is_rendered"
    exit 0
}
command -v chromium >/dev/null || skip "chromium is not installed"
command -v chromedriver >/dev/null || skip "chromedriver (package chromium-driver) is not installed"
/usr/bin/python3 -c 'import selenium' 2>/dev/null || skip "python3-selenium is not installed"

echo "[ RUN      ] report_is_rendered"
if "$program" synth --rows 230000 --seed 5 --out "$work/log.tsv" >/dev/null &&
    head -n 5000 "$work/log.tsv" >"$work/short.tsv" && head -n 210000 "$work/log.tsv" >"$work/train.tsv" && tail -n +210001 "$work/log.tsv" >"$work/eval.tsv" &&
    "$program" train --schema criteo --model lr --train "$work/train.tsv" --eval "$work/eval.tsv" --out "$work/model" >/dev/null &&
    "$program" train --schema criteo --model lr --train "$work/short.tsv" --out "$work/short" >/dev/null &&
    "$program" verify "$work/model" >/dev/null &&
    /usr/bin/python3 "$script" "$work/model" "$work/short"; then
    echo "[       OK ] report_is_rendered"
else
    echo "[  FAILED  ] report_is_rendered"
    exit 1
fi
