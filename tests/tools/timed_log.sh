# A log with times, whose rows expire: 300 rows a day over 24 days. Sourced: makes timed.yaml and timed.tsv, and gives `timed`, what
# `train` needs for them.
# shellcheck shell=bash
{
    echo 'name: timed'
    echo 'format: {separator: "\t", columns: 10}'
    echo 'fields:'
    echo '  - {name: label, kind: label, column: 1}'
    echo '  - {name: when, kind: time, column: 2}'
    for i in 1 2 3 4 5 6 7 8; do echo "  - {name: C$i, kind: id, column: $((i + 2))}"; done
} >timed.yaml
awk 'BEGIN {
    srand(5)
    for (r = 0; r < 7200; r++) {
        line = int(rand() * 1.3) "\t" 1700000000 + int(r * 86400 / 300)
        for (i = 0; i < 8; i++) line = line "\t" sprintf("%x", int(rand() ^ 3 * 3000))
        print line
    }
}' >timed.tsv
# shellcheck disable=SC2034 # whoever sources this uses it
timed=(--schema timed.yaml --model dnn --set 'deep=[8]' --set embedding.dim=4 --batch 64 --set embedding.expire_days=3 --train timed.tsv)
