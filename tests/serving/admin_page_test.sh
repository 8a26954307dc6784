#!/usr/bin/env bash
# The admin page of a real server, rendered by Chromium without a window.
. tests/frame.sh
needs_browser admin_page_is_rendered

admin_page_is_rendered() {
    local address page
    expect 0 . synth --rows 3000 --seed 5 --out log.tsv
    for model in lr fm; do expect 0 . train --schema criteo --model $model --train log.tsv --out $model; done
    cat >experiment.yaml <<EOF
name: ranker
holdout: 10
arms:
  - {name: old, weight: 3, model: lr}
  - {name: new, weight: 1, model: fm}
  - {name: gone, weight: 0, model: none}
EOF
    mkfifo said
    "$program" serve --model lr fm --experiment experiment.yaml --exposures exposures --feedback feedback --listen 127.0.0.1:0 \
        --admin 127.0.0.1:0 --threads 2 --queue-ms 600000 >said &
    children+=($!)
    exec 3<said
    read -r _ _ address <&3 && read -r _ _ page <&3 || { wrong "the server does not start"; return; }
    head -n 1000 log.tsv >rows.tsv
    /usr/bin/python3 "$root/tests/serving/admin_page.py" "$page" "$program" "$address" rows.tsv \
        "${TEST_UNDECLARED_OUTPUTS_DIR:-$work}/admin.png" || wrong "the page is not right"
}

run_case admin_page_is_rendered
finish
