#!/usr/bin/env bash
# clicktower report and clicktower power as a user meets them; their numbers against SciPy and statsmodels where those are installed.
. tests/frame.sh
check=$root/tests/tools/report_check.py

awk 'BEGIN { print "unit,time,arm,value"; s = 1; for (i = 0; i < 4000; i++) { s = (s * 16807) % 2147483647; b = i % 2
    print "u" int(i / 2) "," i "," (int(i / 2) % 2 ? "new" : "old") "," (s % 1000 < (int(i / 2) % 2 ? 400 : 200)) } }' >table.csv
expect 0 'new .* B better$' report --table table.csv --control old --plan 2000 --json report.json --html report.html
grep -q 'split of the units: as meant' out || wrong "the split is not told"
awk 'length > 100' out | grep -q . && wrong "a line of more than 100 columns"
grep -q 'B better' report.json || wrong "report.json"
grep -q 'whenever you look' report.html || wrong "report.html"
expect 0 'NOT AS MEANT' report --table table.csv --weights old=90,new=10
grep -q 'no verdict' out || wrong "a verdict in spite of a mismatch"
gzip -k table.csv
expect 0 'B better' report --table table.csv.gz --control old --plan 2000
expect 0 'B better' report --table '|cat table.csv' --control old --plan 2000
expect 1 "no arm 'older'" report --table table.csv --control older
expect 1 'nowhere.csv' report --table nowhere.csv
expect 2 'table' report
expect 0 '^one look at a fixed time   units 1366  rows 1366$' power --rate 0.1 --lift 0.5
expect 0 'days' power --rate 0.1 --lift 0.5 --units-per-day 100
expect 0 'lift' power --rate 0.1 --units 1366
expect 2 'either --lift or --units' power --rate 0.1
expect 1 'takes the rate' power --rate 0.6 --lift 1
if /usr/bin/python3 -c 'import numpy, scipy, statsmodels' 2>/dev/null; then
    agrees_with_scipy_and_statsmodels() { /usr/bin/python3 "$check" "$program" "$work" || wrong "another value than theirs"; }
    run_case agrees_with_scipy_and_statsmodels
else
    echo "SKIP: scipy and statsmodels (Debian's python3-scipy and python3-statsmodels, or PyPI's) are not installed"
    echo "[  SKIPPED ] agrees_with_scipy_and_statsmodels"
fi
finish
