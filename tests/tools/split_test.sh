#!/usr/bin/env bash
# clicktower split as a user meets it: its files, its table, wrong use, and that compare takes what it wrote.
. tests/frame.sh

cat >shop.yaml <<'YAML'
name: shop
format: {separator: "\t", columns: 4}
fields:
  - {name: user, kind: id, column: 1, side: context}
  - {name: unit, kind: unit, column: 1}
  - {name: item, kind: id, column: 2}
  - {name: label, kind: label, column: 3, at_least: 4}
  - {name: when, kind: time, column: 4}
YAML
# 3,000 rows: 60 users, 200 items, times that go round.
awk 'BEGIN { s = 1; for (i = 0; i < 3000; i++) { s = (s * 16807) % 2147483647; print s % 60 "\t" int(s / 7) % 200 "\t" int(s / 31) % 5 + 1 "\t" int(s / 3) % 5000 } }' >log.tsv

expect 0 '^train +2400 ' split --schema shop.yaml --by time --in log.tsv --out by_time
[ "$(cat by_time/*.tsv | sort | cksum)" = "$(sort log.tsv | cksum)" ] || wrong "by time: the rows are not those of the log"
sort -s -n -k4,4 log.tsv | head -n 2400 | cmp - by_time/train.tsv || wrong "by time: another order than sort's"
sort -s -n -k4,4 log.tsv | tail -n 300 | cmp - by_time/test.tsv || wrong "by time: another test than sort's"
gzip -k log.tsv
expect 0 'unseen items' split --schema shop.yaml --by user-time --unseen-items 20% --item item --in log.tsv.gz --out cold
[ -n "$(comm -13 <(cut -f2 cold/train.tsv | sort -u) <(cut -f2 cold/test.tsv | sort -u))" ] || wrong "no unseen item in the test"
expect 0 'rows of new' split --schema shop.yaml --by user-time --parts 70,30 --item item --in '|cat log.tsv' --out piped
[ ! -e piped/valid.tsv ] || wrong "a validation file, where none was asked for"
/usr/bin/python3 -c 'import json; r = json.load(open("piped/split.json")); assert [p["name"] for p in r["parts"]] == ["train", "test"]' || wrong "split.json"

expect 2 'sum to 100' split --schema shop.yaml --by time --parts 80,30 --in log.tsv --out x
expect 2 'sum to 100' split --schema shop.yaml --by time --parts 80,10,5,5 --in log.tsv --out x
expect 2 'as 20%' split --schema shop.yaml --by time --unseen-items 20 --in log.tsv --out x
expect 2 'time\|user-time' split --schema shop.yaml --by item --in log.tsv --out x
expect 2 'read once' split --schema shop.yaml --by time --in - --out x
expect 1 'no time field' split --schema criteo --by time --in log.tsv --out x
mkdir there
expect 1 'no split' split --schema shop.yaml --by time --in log.tsv --out there
[ ! -e x ] || wrong "a failed split left a folder"

printf 'model: lr\nitem: item\narms:\n  - {name: user, features: [user]}\n  - {name: both, features: [user, item]}\n' >arms.yaml
expect 0 'verdict' compare --schema shop.yaml --arms arms.yaml --train cold/train.tsv --valid cold/valid.tsv --test cold/test.tsv --out report
finish
