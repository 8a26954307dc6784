#!/usr/bin/env bash
# The admin page of a real server, rendered by Chromium without a window. Skips where Chromium or Selenium is not installed (Debian's
# chromium, chromium-driver and python3-selenium).
set -u

program=$PWD/tools/clicktower
script=$PWD/tests/serving/admin_page.py
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/page.XXXXXX")
server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi; rm -rf "$work"' EXIT
export HOME=$work # for the browser's own files

skip() {
    echo "SKIP: $1"
    echo "[  SKIPPED ] admin_page_is_rendered"
    exit 0
}
fail() {
    echo "$1"
    echo "[  FAILED  ] admin_page_is_rendered"
    exit 1
}
command -v chromium >/dev/null || skip "chromium is not installed"
command -v chromedriver >/dev/null || skip "chromedriver (package chromium-driver) is not installed"
/usr/bin/python3 -c 'import selenium' 2>/dev/null || skip "python3-selenium is not installed"

echo "[ RUN      ] admin_page_is_rendered"
"$program" synth --rows 3000 --seed 5 --out "$work/log.tsv" >/dev/null || fail "synth"
for model in lr fm; do
    "$program" train --schema criteo --model $model --train "$work/log.tsv" --out "$work/$model" >/dev/null || fail "train $model"
done
cat >"$work/experiment.yaml" <<EOF
name: ranker
holdout: 10
arms:
  - {name: old, weight: 3, model: lr}
  - {name: new, weight: 1, model: fm}
  - {name: gone, weight: 0, model: none}
EOF
mkfifo "$work/said"
"$program" serve --model "$work/lr" "$work/fm" --experiment "$work/experiment.yaml" --exposures "$work/exposures" \
    --feedback "$work/feedback" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --threads 2 --queue-ms 600000 >"$work/said" &
server=$!
exec 3<"$work/said"
read -r _ _ address <&3 && read -r _ _ page <&3 || fail "the server does not start"
head -n 1000 "$work/log.tsv" >"$work/rows.tsv"
/usr/bin/python3 "$script" "$page" "$program" "$address" "$work/rows.tsv" "${TEST_UNDECLARED_OUTPUTS_DIR:-$work}/admin.png" ||
    fail "the page is not right"
echo "[       OK ] admin_page_is_rendered"
