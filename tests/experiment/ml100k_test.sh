#!/usr/bin/env bash
# ID against modality on MovieLens 100K, from u.data to the verdicts, on three splits. Needs the data: CT_SHARED names a folder that holds
# data/ml100k (u.data, text_minilm.npy); skips without it. Some minutes a split. A click is a rating of 4 or more: ratings, not impressions.
# ml100k_test.sh [FOLDER [SPLIT...]]: keeps what it makes in FOLDER. Splits: time, user, cold20, and, where they are asked for, cold20b
# and unseen: other draws of the items that training does not see (docs/ab.md says how much depends on the draw).
set -u

program=${CLICKTOWER:-$PWD/tools/clicktower}
check=$PWD/tests/experiment/ml100k_check.py
data=${CT_SHARED:-}/data/ml100k
if [ ! -f "$data/u.data" ]; then
    echo "SKIP: no data/ml100k/u.data below CT_SHARED"
    echo "[  SKIPPED ] ml100k"
    exit 0
fi
if [ $# -gt 0 ]; then
    work=$1
    shift
    mkdir -p "$work"
else
    work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/ml100k.XXXXXX")
    trap 'rm -rf "$work"' EXIT
fi
[ $# -gt 0 ] || set -- time user cold20
cd "$work" || exit 1

{
    cat <<END
name: ml100k
format: {separator: "\t", columns: 7}
fields:
  - {name: user, kind: id, column: 1, side: context, type: integer}
  - {name: unit, kind: unit, column: 1}
  - {name: item, kind: id, column: 2, side: candidate, type: integer}
  - {name: text, kind: vector, of: item, file: $data/text_minilm.npy}
  - {name: label, kind: label, column: 3, at_least: 4}
  - {name: when, kind: time, column: 4}
  - {name: liked, kind: history, of: item, clicked: true, max: 1000}
  - {name: likes, kind: number, of: liked}
  - {name: close, kind: similarity, of: liked, vector: text, tiers: 20}
END
    for level in 1 2 3; do echo "  - {name: code$level, kind: id, column: $((level + 4)), side: candidate}"; done
} >codes.yaml
cat >arms.yaml <<'END'
model: dcn-v2
set: ["deep=[64,32]", "cross.layers=2", "cross.rank=16", "embedding.dim=16", "embedding.optimizer=adam", "embedding.learning_rate=0.002",
      "embedding.min_count=1", "embedding.id_drop=0.1", "optimizer.learning_rate=0.002", "numbers.buckets=false", "vector.adapter=[64,16]"]
item: item
arms:
  - {name: A, features: [user, item]}
  - {name: B, features: [user, text]}
  - {name: C, features: [user, item, text]}
  - {name: D, features: [user, code1, code2, code3]}
  - {name: E, features: [user, item, text, close]}
  - {name: F, features: [user, item, text, close, code1, code2, code3, liked]}
  - {name: AK, features: [user, item, likes]}
  - {name: placebo, placebo: E}
END

set -e -o pipefail
"$program" quantize --vectors "$data/text_minilm.npy" --levels 3 --codes 32 --out codes.tsv
# The log with its items' codes. Equal times in the order of user and item.
sort -k4,4n -k1,1n -k2,2n "$data/u.data" |
    awk -F '\t' -v OFS='\t' 'NR == FNR { if (FNR > 1) code[$1] = $2 OFS $3 OFS $4; next } { print $0, code[$2] }' codes.tsv - >ratings.tsv
for split; do
    case $split in
        time) how=(--by time) ;;
        user) how=(--by user-time) ;;
        cold20) how=(--by user-time) cold='numpy.random.default_rng(7).choice(range(1, 1683), 336, replace=False)' ;;
        cold20b) how=(--by user-time) cold='numpy.random.default_rng(0).permutation(1682)[:336] + 1' ;;
        unseen) how=(--by user-time --unseen-items 20%) ;; # the program's own draw
    esac
    "$program" split --schema codes.yaml "${how[@]}" --in ratings.tsv --out "$split"
    if [[ $split == cold20* ]]; then # a fifth of the items is taken out of training
        /usr/bin/python3 -c "import numpy; print(*$cold, sep='\n')" >cold_items.txt
        awk -F '\t' 'NR == FNR { cold[$1]; next } !($2 in cold)' cold_items.txt "$split/train.tsv" >"$split/kept.tsv"
        mv "$split/kept.tsv" "$split/train.tsv"
    fi
    mkdir -p reports
    "$program" compare --schema codes.yaml --arms arms.yaml --train "$split/train.tsv" --valid "$split/valid.tsv" --test "$split/test.tsv" \
        --seeds 5 --epochs 40 --batch 2048 --threads "${THREADS:-0}" --out "$split/report" | tee "reports/$split.txt"
    /usr/bin/python3 "$check" . "$split"
done
echo "[       OK ] ml100k"
