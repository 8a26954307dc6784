#!/usr/bin/env bash
# clicktower quantize as a user meets it: its table, the same for any number of threads, ids of both kinds, wrong use.
. tests/frame.sh

"$program" synth --rows 100 --items 500 --out log.tsv --vectors items.npy >/dev/null || wrong "synth"
expect 0 '^left_after_level_3 0\.' quantize --vectors items.npy --ids items.txt --levels 3 --codes 16 --out codes.tsv
[ "$(head -n 1 codes.tsv)" = "$(printf 'id\tcode1\tcode2\tcode3')" ] || wrong "the header"
tail -n +2 codes.tsv | cut -f1 | cmp -s - items.txt || wrong "the ids are not those of the file, in its order"
# Each level is a prefix of the next one, and its last number is below 16.
tail -n +2 codes.tsv | awk -F '\t' 'NF != 4 || $2 !~ /^[0-9]+$/ || index($3, $2 "-") != 1 || index($4, $3 "-") != 1 { bad = 1 }
    { for (i = 2; i <= 4; i++) { n = split($i, part, "-"); if (n != i - 1 || part[n] > 15) bad = 1 } } END { exit bad }' || wrong "the codes"
expect 0 'vectors 500' quantize --vectors items.npy --ids items.txt --levels 3 --codes 16 --threads 1 --out one.tsv
cmp codes.tsv one.tsv || wrong "another number of threads, other codes"
expect 0 'vectors 500' quantize --vectors items.npy --levels 1 --codes 4 --out numbers.tsv
[ "$(tail -n 1 numbers.tsv | cut -f1)" = 500 ] || wrong "ids 1 .. N"
expect 1 'too few' quantize --vectors items.npy --codes 1000 --out x.tsv
expect 1 'nowhere.npy' quantize --vectors nowhere.npy --out x.tsv
expect 2 'codes' quantize --vectors items.npy --codes 0 --out x.tsv
[ ! -e x.tsv ] || wrong "a failed run left a file"
finish
